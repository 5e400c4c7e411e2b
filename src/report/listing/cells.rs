//! One row as cells: exact for machines, readable for people.

use std::fmt::Write as _;

use super::{COLUMNS, Change, Column, Row};
use crate::listing::{Entry, Kind, rfc3339};
use crate::text::{printable, width};

pub(super) fn name(column: Column) -> &'static str {
    COLUMNS
        .iter()
        .find(|(_, known)| *known == column)
        .map_or("", |(name, _)| name)
}

pub(super) fn heading(column: Column) -> &'static str {
    match column {
        Column::Mtime => "modified",
        Column::Atime => "accessed",
        other => name(other),
    }
}

pub(super) fn compare(column: Column, a: &Row, b: &Row) -> std::cmp::Ordering {
    let (x, y) = (&a.entry, &b.entry);
    match column {
        Column::Host => a.host.cmp(&b.host),
        Column::Path => x.path.cmp(&y.path),
        Column::Name => x.name().cmp(y.name()),
        Column::Type => x.kind.cmp(&y.kind),
        Column::Size => x.size.cmp(&y.size),
        Column::Mtime => x.modified.cmp(&y.modified),
        Column::Atime => x.accessed.cmp(&y.accessed),
        Column::Mode | Column::Perm => x.mode.cmp(&y.mode),
        Column::Uid => x.uid.cmp(&y.uid),
        Column::Gid => x.gid.cmp(&y.gid),
        Column::Owner => owner(x).cmp(&owner(y)),
        Column::Group => x.group.cmp(&y.group),
        Column::Target => x.target.cmp(&y.target),
        Column::Depth => x.depth.cmp(&y.depth),
        Column::Ext => x.extension().cmp(&y.extension()),
        Column::Change => a.change.cmp(&b.change),
    }
}

/// The owner's name, or number where no name is known.
pub(super) fn owner(entry: &Entry) -> String {
    match (&entry.owner, entry.uid) {
        (Some(name), _) => printable(name).into_owned(),
        (None, Some(uid)) => uid.to_string(),
        (None, None) => String::new(),
    }
}

pub(super) fn group(entry: &Entry) -> String {
    match (&entry.group, entry.gid) {
        (Some(name), _) => printable(name).into_owned(),
        (None, Some(gid)) => gid.to_string(),
        (None, None) => String::new(),
    }
}

pub(super) fn directory(path: &[u8]) -> String {
    match memchr::memrchr(b'/', path) {
        Some(0) => "/".to_owned(),
        Some(at) => escaped(&path[..at]),
        None => ".".to_owned(),
    }
}

pub(super) fn day(time: u32) -> String {
    rfc3339(time)
        .split('T')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The listed directory and those below it, down to a depth, that hold an entry.
pub(super) fn rolled(entry: &Entry, depth: u32) -> Vec<String> {
    let path = &entry.path;
    let slashes: Vec<usize> = memchr::memchr_iter(b'/', path).collect();
    let levels = usize::try_from(entry.depth)
        .unwrap_or(usize::MAX)
        .min(slashes.len());
    let own = slashes.len() - levels;
    let last = (own + usize::try_from(depth).unwrap_or(usize::MAX)).min(slashes.len() - 1);
    if slashes.is_empty() || levels == 0 {
        return vec![directory(path)];
    }
    slashes[own..=last]
        .iter()
        .map(|at| escaped(&path[..(*at).max(1)]))
        .collect()
}

/// Text that says the bytes exactly: what is not printable, and a backslash, is escaped.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if crate::text::must_escape(c) || c == '\n' || c == '\t' => {
                    crate::text::push_escaped(&mut text, c);
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

pub(super) fn moment(time: u32, people: bool) -> String {
    let text = rfc3339(time);
    if people { text.replace('T', " ") } else { text }
}

/// Cells for machines.
pub(super) fn exact(row: &Row, columns: &[Column]) -> Vec<String> {
    let entry = &row.entry;
    let number = |number: Option<u32>| number.map(|n| n.to_string()).unwrap_or_default();
    let cell = |column: &Column| match column {
        Column::Host => row.host.to_string(),
        Column::Path => escaped(&entry.path),
        Column::Name => escaped(entry.name()),
        Column::Type => entry.kind.word().to_owned(),
        Column::Size => entry.size.map(|size| size.to_string()).unwrap_or_default(),
        Column::Mtime => entry.modified.map(rfc3339).unwrap_or_default(),
        Column::Atime => entry.accessed.map(rfc3339).unwrap_or_default(),
        Column::Mode => entry.mode_text(),
        Column::Perm => entry
            .mode
            .map(|mode| format!("{mode:04o}"))
            .unwrap_or_default(),
        Column::Uid => number(entry.uid),
        Column::Gid => number(entry.gid),
        Column::Owner => owner(entry),
        Column::Group => group(entry),
        Column::Target => entry.target.as_deref().map(escaped).unwrap_or_default(),
        Column::Depth => entry.depth.to_string(),
        Column::Ext => entry.extension(),
        Column::Change => row.change.map_or("", Change::word).to_owned(),
    };
    columns.iter().map(cell).collect()
}

/// Cells for people.
pub(super) fn shown(row: &Row, columns: &[Column]) -> Vec<String> {
    let entry = &row.entry;
    let mut cells = exact(row, columns);
    for (cell, column) in cells.iter_mut().zip(columns) {
        match column {
            Column::Mode if entry.kind == Kind::Error => *cell = "error".to_owned(),
            Column::Size => *cell = entry.size.map(crate::text::size).unwrap_or_default(),
            Column::Mtime => {
                *cell = entry.modified.map(|t| moment(t, true)).unwrap_or_default();
            }
            Column::Atime => {
                *cell = entry.accessed.map(|t| moment(t, true)).unwrap_or_default();
            }
            Column::Path | Column::Name => {
                if let Some(target) = &entry.target {
                    let _ = write!(cell, " -> {}", escaped(target));
                }
                if let Some(error) = &entry.error {
                    let _ = write!(cell, ": {error}");
                }
            }
            _ => {}
        }
    }
    cells
}

pub(super) fn aligned(cells: &[String], widths: &[usize], right: impl Fn(usize) -> bool) -> String {
    let mut line = String::new();
    for (at, (cell, widest)) in cells.iter().zip(widths).enumerate() {
        let room = " ".repeat(widest.saturating_sub(width(cell)));
        if right(at) {
            line.push_str(&room);
            line.push_str(cell);
        } else {
            line.push_str(cell);
            line.push_str(&room);
        }
        line.push_str("  ");
    }
    let mut line = line.trim_end().to_owned();
    line.push('\n');
    line
}

pub(super) fn write_separated(records: &[Vec<String>], delimiter: u8, out: &mut Vec<u8>) {
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .from_writer(Vec::new());
    for record in records {
        // Writing into memory cannot fail.
        let _ = writer.write_record(record);
    }
    out.extend_from_slice(&writer.into_inner().unwrap_or_default());
}
