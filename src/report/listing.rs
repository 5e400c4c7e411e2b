//! What `fanrun ls` prints: rows as they come in every format, tables for people, and sums.
//!
//! Standard output gets the rows and nothing else; what went wrong and how it ended is told by the
//! renderer for people, on standard error. Rows stream: only sorting, the first so many, and sums
//! keep anything. A table on a terminal is drawn a stretch at a time, with columns that only grow.

mod across;
mod cells;
mod diff;

use std::collections::BTreeMap;

pub use diff::{Change, Older};

use self::across::Across;
use self::cells::{
    aligned, compare, day, directory, escaped, exact, heading, moment, name, owner, rolled, shown,
    write_separated,
};
use super::terminal::TextRenderer;
use super::{Ink, Renderer};
use crate::event::{Event, HostState, What};
use crate::listing::{Entry, Kind};
use crate::target::HostName;
use crate::text::{printable, width};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// The same with tabs.
    Tsv,
    /// One JSON object a line.
    Ndjson,
    /// One JSON list.
    Json,
    /// `host:path`, or only the path where there is one host; names that a terminal would not
    /// show as they are, are escaped.
    Paths,
    /// The same with the exact bytes, each ended by a NUL.
    Paths0,
}

/// A column of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the columns' own")]
pub enum Column {
    Host,
    Path,
    Name,
    Type,
    Size,
    Mtime,
    Atime,
    Mode,
    Perm,
    Uid,
    Gid,
    Owner,
    Group,
    Target,
    Depth,
    Ext,
    Change,
}

/// Every column and its name.
pub const COLUMNS: [(&str, Column); 17] = [
    ("host", Column::Host),
    ("path", Column::Path),
    ("name", Column::Name),
    ("type", Column::Type),
    ("size", Column::Size),
    ("mtime", Column::Mtime),
    ("atime", Column::Atime),
    ("mode", Column::Mode),
    ("perm", Column::Perm),
    ("uid", Column::Uid),
    ("gid", Column::Gid),
    ("owner", Column::Owner),
    ("group", Column::Group),
    ("target", Column::Target),
    ("depth", Column::Depth),
    ("ext", Column::Ext),
    ("change", Column::Change),
];

/// What sums are made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Each host.
    Host,
    /// What stands behind the last dot of a name.
    Ext,
    /// The directory that a file stands in.
    Dir,
    /// The owner.
    Owner,
    /// The day of the last change, in UTC.
    Day,
    /// Every directory down to a depth, with all that is below it.
    Du(u32),
}

/// What is printed.
#[derive(Debug, Clone)]
pub struct Choice {
    /// How rows are written.
    pub format: Format,
    /// Which columns; for tables, CSV and TSV.
    pub columns: Vec<Column>,
    /// Sorted by this column.
    pub sort: Option<Column>,
    /// The other way round.
    pub reverse: bool,
    /// Only the first so many.
    pub top: Option<usize>,
    /// Sums in place of rows.
    pub sums: Option<Grouping>,
    /// Hosts are told apart: there is more than one.
    pub many: bool,
    /// Only what is different from this older listing.
    pub older: Option<Older>,
    /// In place of rows, the paths that are not the same on all hosts.
    pub across: bool,
    /// Shows many names as one.
    pub fold: fn(&[HostName]) -> String,
}

/// Rows of a table that are drawn at once.
const STRETCH: usize = 2_000;

/// The renderer of `ls`.
#[derive(Debug)]
pub struct ListingRenderer {
    choice: Choice,
    talk: TextRenderer,
    rows: Vec<Row>,
    groups: BTreeMap<(String, String), Sums>,
    all: Sums,
    hosts: BTreeMap<HostName, ()>,
    /// Hosts of which not everything could be read.
    partly: Vec<HostName>,
    across: Across,
    begun: bool,
    widths: Vec<usize>,
}

/// One found file and where.
#[derive(Debug, Clone)]
struct Row {
    host: HostName,
    entry: Entry,
    change: Option<Change>,
}

/// What some files come to.
#[derive(Debug, Clone, Default)]
struct Sums {
    files: u64,
    bytes: u64,
    dirs: u64,
    links: u64,
    errors: u64,
    newest: Option<u32>,
    largest: Option<(u64, String)>,
}

impl Sums {
    fn add(&mut self, entry: &Entry) {
        match entry.kind {
            Kind::Error => self.errors += 1,
            Kind::Dir => self.dirs += 1,
            Kind::Link => self.links += 1,
            Kind::File | Kind::Fifo | Kind::Socket | Kind::Block | Kind::Char | Kind::Unknown => {
                let size = entry.size.unwrap_or(0);
                self.files += 1;
                self.bytes += size;
                self.newest = self.newest.max(entry.modified);
                if self.largest.as_ref().is_none_or(|(most, _)| size > *most) {
                    self.largest = Some((size, printable(&entry.path).into_owned()));
                }
            }
        }
    }
}

impl ListingRenderer {
    /// A renderer that has printed nothing yet. `talk` tells what goes wrong.
    #[must_use]
    pub fn new(choice: Choice, talk: TextRenderer) -> Self {
        Self {
            choice,
            talk,
            rows: Vec::new(),
            groups: BTreeMap::new(),
            all: Sums::default(),
            hosts: BTreeMap::new(),
            partly: Vec::new(),
            across: Across::default(),
            begun: false,
            widths: Vec::new(),
        }
    }

    fn take(&mut self, host: &HostName, entries: &[Entry], ink: &mut Ink) {
        self.hosts.entry(host.clone()).or_default();
        for entry in entries {
            self.all.add(entry);
        }
        if self.choice.across {
            return self.across.add(host, entries);
        }
        if let Some(grouping) = self.choice.sums {
            return self.group(host, entries, grouping);
        }
        for entry in entries {
            let change = match &mut self.choice.older {
                // What could not be read is told in any case.
                Some(older) if entry.kind != Kind::Error => {
                    let Some(change) = older.compare(host.as_str(), entry) else {
                        continue;
                    };
                    Some(change)
                }
                Some(_) | None => None,
            };
            self.rows.push(Row {
                host: host.clone(),
                entry: entry.clone(),
                change,
            });
        }
        self.kept(ink);
    }

    /// Writes what need not be kept.
    fn kept(&mut self, ink: &mut Ink) {
        if self.choice.sort.is_some() {
            if let Some(top) = self
                .choice
                .top
                .filter(|top| self.rows.len() > top * 2 + STRETCH)
            {
                self.sort();
                self.rows.truncate(top);
            }
            return;
        }
        if self.choice.format != Format::Table || self.rows.len() >= STRETCH {
            self.sort();
            self.flush(ink);
        }
    }

    fn group(&mut self, host: &HostName, entries: &[Entry], grouping: Grouping) {
        for entry in entries {
            let on = |many: bool| {
                if many {
                    host.to_string()
                } else {
                    String::new()
                }
            };
            let key = match grouping {
                Grouping::Host => host.to_string(),
                Grouping::Ext => entry.extension(),
                Grouping::Dir => directory(&entry.path),
                Grouping::Owner => owner(entry),
                Grouping::Day => entry.modified.map(day).unwrap_or_default(),
                Grouping::Du(depth) => {
                    for path in rolled(entry, depth) {
                        let sums = self.groups.entry((on(self.choice.many), path));
                        sums.or_default().add(entry);
                    }
                    continue;
                }
            };
            let by_host = matches!(grouping, Grouping::Dir) && self.choice.many;
            self.groups
                .entry((on(by_host), key))
                .or_default()
                .add(entry);
        }
    }

    /// Sorts what is kept: as asked for, a table by host and path where nothing is asked for.
    fn sort(&mut self) {
        let column = match self.choice.sort {
            Some(column) => column,
            None if self.choice.format == Format::Table => Column::Host,
            None => return,
        };
        let reverse = self.choice.reverse;
        self.rows.sort_by(|a, b| {
            let order = compare(column, a, b);
            let order = if reverse { order.reverse() } else { order };
            order.then_with(|| (&a.host, &a.entry.path).cmp(&(&b.host, &b.entry.path)))
        });
    }

    /// Writes the rows that are kept.
    fn flush(&mut self, ink: &mut Ink) {
        let mut rows = std::mem::take(&mut self.rows);
        if let Some(top) = self.choice.top {
            rows.truncate(top);
            if self.choice.sort.is_none() {
                self.choice.top = Some(top - rows.len());
            }
        }
        match self.choice.format {
            Format::Table => self.table(&rows, ink),
            Format::Csv => self.separated(&rows, b',', ink),
            Format::Tsv => self.separated(&rows, b'\t', ink),
            Format::Ndjson => {
                for row in &rows {
                    self.object(row, ink.out());
                    ink.out().push(b'\n');
                }
            }
            Format::Json => {
                for row in &rows {
                    let first = !std::mem::replace(&mut self.begun, true);
                    ink.out()
                        .extend_from_slice(if first { b"[\n" } else { b",\n" });
                    self.object(row, ink.out());
                }
            }
            Format::Paths | Format::Paths0 => self.paths(&rows, ink.out()),
        }
    }

    fn object(&self, row: &Row, out: &mut Vec<u8>) {
        let mut object = serde_json::Map::new();
        object.insert("host".into(), row.host.as_str().into());
        if let Some(change) = row.change {
            object.insert("change".into(), change.word().into());
        }
        object.append(&mut row.entry.fields());
        // A map of plain values cannot fail to be written into memory.
        let _ = serde_json::to_writer(out, &object);
    }

    fn paths(&self, rows: &[Row], out: &mut Vec<u8>) {
        for row in rows.iter().filter(|row| row.entry.kind != Kind::Error) {
            if self.choice.many {
                out.extend_from_slice(row.host.as_str().as_bytes());
                out.push(b':');
            }
            if self.choice.format == Format::Paths0 {
                out.extend_from_slice(&row.entry.path);
                out.push(0);
            } else {
                out.extend_from_slice(escaped(&row.entry.path).as_bytes());
                out.push(b'\n');
            }
        }
    }

    fn separated(&mut self, rows: &[Row], delimiter: u8, ink: &mut Ink) {
        let columns = self.choice.columns.clone();
        let mut records = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            records.push(
                columns
                    .iter()
                    .map(|column| name(*column).to_owned())
                    .collect(),
            );
        }
        records.extend(rows.iter().map(|row| exact(row, &columns)));
        write_separated(&records, delimiter, ink.out());
    }

    fn table(&mut self, rows: &[Row], ink: &mut Ink) {
        let columns = self.choice.columns.clone();
        if rows.is_empty() {
            return;
        }
        let mut lines: Vec<Vec<String>> = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.widths = vec![0; columns.len()];
            lines.push(
                columns
                    .iter()
                    .map(|column| heading(*column).to_uppercase())
                    .collect(),
            );
        }
        lines.extend(rows.iter().map(|row| shown(row, &columns)));
        for line in &lines {
            for (widest, cell) in self.widths.iter_mut().zip(line) {
                // One very long name must not push all others off the screen.
                *widest = (*widest).max(width(cell).min(60));
            }
        }
        let right = |at: usize| matches!(columns.get(at), Some(Column::Size | Column::Depth));
        for line in &lines {
            ink.out()
                .extend_from_slice(aligned(line, &self.widths, right).as_bytes());
        }
    }

    fn sums(&mut self, grouping: Grouping, ink: &mut Ink) {
        let mut groups: Vec<((String, String), Sums)> =
            std::mem::take(&mut self.groups).into_iter().collect();
        match self.choice.sort {
            Some(Column::Size) => groups.sort_by_key(|(_, sums)| sums.bytes),
            Some(Column::Mtime) => groups.sort_by_key(|(_, sums)| sums.newest),
            Some(_) | None => {}
        }
        if self.choice.reverse {
            groups.reverse();
        }
        groups.truncate(self.choice.top.unwrap_or(usize::MAX));
        let hosts = groups.iter().any(|((host, _), _)| !host.is_empty());
        let what = match grouping {
            Grouping::Host => "host",
            Grouping::Ext => "ext",
            Grouping::Dir | Grouping::Du(_) => "path",
            Grouping::Owner => "owner",
            Grouping::Day => "day",
        };
        let mut header = vec![what, "files", "bytes", "newest", "largest", "errors"];
        if hosts {
            header.insert(0, "host");
        }
        let people = self.choice.format == Format::Table;
        let records: Vec<Vec<String>> = groups
            .iter()
            .map(|((host, key), sums)| {
                let mut record = vec![key.clone(), sums.files.to_string()];
                record.push(if people {
                    crate::text::size(sums.bytes)
                } else {
                    sums.bytes.to_string()
                });
                record.push(
                    sums.newest
                        .map(|time| moment(time, people))
                        .unwrap_or_default(),
                );
                record.push(
                    sums.largest
                        .as_ref()
                        .map(|(_, p)| p.clone())
                        .unwrap_or_default(),
                );
                record.push(sums.errors.to_string());
                if hosts {
                    record.insert(0, host.clone());
                }
                record
            })
            .collect();
        let first = usize::from(hosts);
        self.write_sums(&header, &records, first, ink);
    }

    fn write_sums(&self, header: &[&str], records: &[Vec<String>], first: usize, ink: &mut Ink) {
        match self.choice.format {
            Format::Table => {
                let right = [first + 1, first + 2, first + 5];
                let text = super::table::table(header, records, &right);
                ink.out().extend_from_slice(text.as_bytes());
            }
            Format::Csv | Format::Tsv | Format::Paths | Format::Paths0 => {
                let header = header.iter().map(|cell| (*cell).to_owned()).collect();
                let all = [&[header], records].concat();
                let delimiter = if self.choice.format == Format::Tsv {
                    b'\t'
                } else {
                    b','
                };
                write_separated(&all, delimiter, ink.out());
            }
            Format::Ndjson | Format::Json => {
                for record in records {
                    let mut object = serde_json::Map::new();
                    for (key, cell) in header.iter().zip(record) {
                        let number = ["files", "bytes", "errors"].contains(key);
                        let value = match cell.parse::<u64>() {
                            Ok(value) if number => value.into(),
                            Ok(_) | Err(_) => cell.as_str().into(),
                        };
                        object.insert((*key).to_owned(), value);
                    }
                    let _ = serde_json::to_writer(ink.out(), &object);
                    ink.out().push(b'\n');
                }
            }
        }
    }

    /// A host of which everything was read lacks what was not seen.
    fn host_end(&mut self, host: &HostName, state: HostState, ink: &mut Ink) {
        let compares = self.choice.across || self.choice.older.is_some();
        if state != HostState::Ok {
            if compares {
                self.partly.push(host.clone());
            }
            return;
        }
        if self.choice.across {
            return self.across.ended(host);
        }
        let Some(older) = &mut self.choice.older else {
            return;
        };
        let gone = older.gone(host.as_str()).into_iter().map(|entry| Row {
            host: host.clone(),
            entry,
            change: Some(Change::Removed),
        });
        self.rows.extend(gone);
        self.kept(ink);
    }

    /// What all of it comes to, for people.
    fn foot(&self) -> String {
        let all = &self.all;
        let mut parts = vec![
            crate::text::count(self.hosts.len(), "host"),
            crate::text::count(usize::try_from(all.files).unwrap_or(usize::MAX), "file"),
            crate::text::size(all.bytes),
        ];
        if let Some(newest) = all.newest {
            parts.push(format!("newest {}", moment(newest, true)));
        }
        if all.errors > 0 {
            let count = usize::try_from(all.errors).unwrap_or(usize::MAX);
            parts.push(format!("{} unreadable", crate::text::count(count, "path")));
        }
        if !self.partly.is_empty() {
            parts.push(format!(
                "not compared: {}",
                (self.choice.fold)(&self.partly)
            ));
        }
        parts.join("   ")
    }
}

impl Renderer for ListingRenderer {
    fn render(&mut self, event: &Event, ink: &mut Ink) {
        match &event.what {
            What::Entries { host, entries, .. } => return self.take(host, entries, ink),
            What::RunStart(info) => self.across.expect(&info.hosts),
            What::HostEnd { host, state, .. } => self.host_end(host, *state, ink),
            _ => {}
        }
        if matches!(event.what, What::RunEnd { .. }) {
            self.sort();
            match self.choice.sums {
                _ if self.choice.across => self.differences(ink),
                Some(grouping) => self.sums(grouping, ink),
                None => self.flush(ink),
            }
            match self.choice.format {
                Format::Json if self.choice.sums.is_none() => {
                    let end: &[u8] = if self.begun { b"\n]\n" } else { b"[]\n" };
                    ink.out().extend_from_slice(end);
                }
                Format::Csv | Format::Tsv if !self.begun && self.choice.sums.is_none() => {
                    let delimiter = if self.choice.format == Format::Tsv {
                        b'\t'
                    } else {
                        b','
                    };
                    self.separated(&[], delimiter, ink);
                }
                Format::Table => {
                    let foot = self.foot();
                    ink.err().extend_from_slice(format!("{foot}\n").as_bytes());
                }
                Format::Csv
                | Format::Tsv
                | Format::Ndjson
                | Format::Json
                | Format::Paths
                | Format::Paths0 => {}
            }
        }
        self.talk.render(event, ink);
    }

    fn live(&mut self, now: std::time::Duration, size: (usize, usize)) -> Vec<String> {
        self.talk.live(now, size)
    }

    fn end(&mut self, ink: &mut Ink) {
        self.talk.end(ink);
    }
}

/// One line of a listing inside a run, as `ls -l` would show it.
#[must_use]
pub fn long_line(entry: &Entry) -> String {
    let columns = [
        Column::Mode,
        Column::Owner,
        Column::Size,
        Column::Mtime,
        Column::Path,
    ];
    let Ok(host) = HostName::new("x") else {
        return String::new();
    };
    let row = Row {
        host,
        entry: entry.clone(),
        change: None,
    };
    let cells = shown(&row, &columns);
    aligned(&cells, &[10, 8, 10, 20, 0], |at| at == 2)
}
