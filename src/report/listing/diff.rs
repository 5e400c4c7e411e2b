//! What is different from an older listing: added, removed, changed.
//!
//! Rows stream all the same: what is new or another is known at once, and what is gone when its
//! host has ended. A host of which not everything could be read loses nothing: what was not seen
//! may still be there.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::listing::{Entry, Kind};

/// How a row differs from the older listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// Its kind, size, time, permissions or target are others. The time of a directory is not
    /// looked at: it changes with every name in it.
    Changed,
}

impl Change {
    /// The word used in rows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// An older listing: what `--format ndjson` wrote.
#[derive(Debug, Clone, Default)]
pub struct Older {
    hosts: HashMap<String, HashMap<Vec<u8>, Entry>>,
}

impl Older {
    /// Reads rows, one JSON object a line.
    ///
    /// # Errors
    /// One line that says which line is no row.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut older = Self::default();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let wrong = || format!("line {} is no row of `ls --format ndjson`", number + 1);
            let row: Map<String, Value> = serde_json::from_str(line).map_err(|_| wrong())?;
            let host = row.get("host").and_then(Value::as_str).ok_or_else(wrong)?;
            let entry = Entry::of_fields(&row).ok_or_else(wrong)?;
            // What another comparison told as gone is not there.
            if entry.kind == Kind::Error || row.get("change") == Some(&"removed".into()) {
                continue;
            }
            let host = older.hosts.entry(host.to_owned()).or_default();
            host.insert(entry.path.to_vec(), entry);
        }
        Ok(older)
    }

    /// How an entry that is there now differs; `None` where it does not. It is not looked for
    /// again.
    pub(super) fn compare(&mut self, host: &str, entry: &Entry) -> Option<Change> {
        let known = self.hosts.get_mut(host);
        match known.and_then(|known| known.remove(&entry.path[..])) {
            None => Some(Change::Added),
            Some(old) if differs(&old, entry) => Some(Change::Changed),
            Some(_) => None,
        }
    }

    /// What a host that has ended does not have any more.
    pub(super) fn gone(&mut self, host: &str) -> Vec<Entry> {
        let left = self.hosts.remove(host).unwrap_or_default();
        let mut left: Vec<Entry> = left.into_values().collect();
        left.sort_by(|a, b| a.path.cmp(&b.path));
        left
    }
}

/// Only what both listings know is compared.
fn differs(old: &Entry, new: &Entry) -> bool {
    fn other<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> bool {
        matches!((old, new), (Some(old), Some(new)) if old != new)
    }
    let dir = new.kind == Kind::Dir;
    old.kind != new.kind
        || other(&old.mode, &new.mode)
        || other(&old.target, &new.target)
        || !dir && (other(&old.size, &new.size) || other(&old.modified, &new.modified))
}
