//! What a listing found newest, kept from one run to the next (`newer: @last`). Only a host whose
//! listing was complete moves on; the file is the old one or the new one, never a part of it.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::event::{Event, What};
use crate::job::TaskId;
use crate::listing::{Last, LastSeen};
use crate::outcome::Outcome;
use crate::target::HostName;

/// The state file of one task.
#[derive(Debug)]
pub struct LastFile {
    task: TaskId,
    path: PathBuf,
    seen: LastSeen,
    running: HashMap<HostName, Last>,
}

impl LastFile {
    /// Goes on from what was `seen` in runs before.
    #[must_use]
    pub fn new(task: TaskId, path: PathBuf, seen: LastSeen) -> Self {
        Self {
            task,
            path,
            seen,
            running: HashMap::new(),
        }
    }

    /// Notes what an event says of the task.
    pub fn take(&mut self, event: &Event) {
        match &event.what {
            What::Entries {
                host,
                task,
                entries,
            } if task.id == self.task => {
                let last = self.running.entry(host.clone()).or_insert_with(|| {
                    let known = self.seen.hosts.get(host.as_str());
                    known.map_or_else(Last::default, |known| (**known).clone())
                });
                entries.iter().for_each(|entry| last.add(entry));
            }
            What::TaskEnd {
                host,
                task,
                outcome,
                ..
            } if task.id == self.task => {
                if let (Some(last), Outcome::Ok { .. }) = (self.running.remove(host), outcome) {
                    self.seen.hosts.insert(host.to_string(), Arc::new(last));
                }
            }
            _ => {}
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn finish(&self) -> Result<(), String> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let write = || {
            let mut file = super::create_private(&new)?;
            file.write_all(self.seen.text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|error| {
            let path = self.path.display();
            format!("the state file {path} could not be written: {error}")
        })
    }
}
