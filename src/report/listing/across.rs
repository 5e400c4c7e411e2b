//! Which host lacks what others have, or has another version of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::json;

use super::cells::{escaped, write_separated};
use super::{Format, Ink};

use crate::listing::{Entry, Kind};
use crate::target::HostName;

/// What makes two files of the same path different. Times are not compared: they say when a file
/// came to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    kind: Kind,
    size: Option<u64>,
    target: Option<Bytes>,
}

/// Paths over all hosts.
#[derive(Debug, Default)]
pub(super) struct Across {
    hosts: Vec<HostName>,
    places: HashMap<HostName, usize>,
    /// The hosts of which everything was read, by their place in `hosts`.
    whole: Vec<bool>,
    paths: BTreeMap<Bytes, Vec<(Version, Vec<u32>)>>,
}

/// A path that is not the same on all hosts.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) path: Bytes,
    pub(super) versions: Vec<Found>,
    pub(super) lacking: Vec<HostName>,
}

/// One version of a path, and who has it: the most frequent first.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) size: Option<u64>,
    pub(super) target: Option<Bytes>,
    pub(super) hosts: Vec<HostName>,
}

impl Across {
    fn place(&mut self, host: &HostName) -> usize {
        if let Some(at) = self.places.get(host) {
            return *at;
        }
        self.places.insert(host.clone(), self.hosts.len());
        self.hosts.push(host.clone());
        self.whole.push(false);
        self.hosts.len() - 1
    }

    /// The hosts of the run, in the order in which they are told.
    pub(super) fn expect(&mut self, hosts: &[HostName]) {
        for host in hosts {
            self.place(host);
        }
    }

    pub(super) fn add(&mut self, host: &HostName, entries: &[Entry]) {
        let at = u32::try_from(self.place(host)).unwrap_or(u32::MAX);
        for entry in entries.iter().filter(|entry| entry.kind != Kind::Error) {
            let version = Version {
                kind: entry.kind,
                size: entry.size.filter(|_| entry.kind == Kind::File),
                target: entry.target.clone(),
            };
            let versions = self.paths.entry(entry.path.clone()).or_default();
            match versions.iter_mut().find(|(known, _)| *known == version) {
                Some((_, hosts)) => hosts.push(at),
                None => versions.push((version, vec![at])),
            }
        }
    }

    /// Everything was read of a host: what it does not have, it lacks.
    pub(super) fn ended(&mut self, host: &HostName) {
        let at = self.place(host);
        self.whole[at] = true;
    }

    /// How many hosts were compared, how many paths are the same on all of them, and the others.
    pub(super) fn conclude(self) -> (usize, usize, Vec<Difference>) {
        let whole: Vec<usize> = (0..self.hosts.len()).filter(|at| self.whole[*at]).collect();
        let (mut same, mut differences) = (0, Vec::new());
        let name = |at: u32| self.hosts[at as usize].clone();
        for (path, mut versions) in self.paths {
            versions
                .iter_mut()
                .for_each(|(_, hosts)| hosts.sort_unstable());
            let has = |at: &usize| {
                let is = |host: &u32| *host as usize == *at;
                versions.iter().any(|(_, hosts)| hosts.iter().any(is))
            };
            let lacking = whole.iter().filter(|at| !has(at));
            let lacking: Vec<HostName> = lacking.map(|at| self.hosts[*at].clone()).collect();
            if lacking.is_empty() && versions.len() == 1 {
                same += 1;
                continue;
            }
            let mut versions: Vec<Found> = versions
                .into_iter()
                .map(|(version, hosts)| Found {
                    kind: version.kind,
                    size: version.size,
                    target: version.target,
                    hosts: hosts.into_iter().map(name).collect(),
                })
                .collect();
            versions.sort_by_key(|found| std::cmp::Reverse(found.hosts.len()));
            differences.push(Difference {
                path,
                versions,
                lacking,
            });
        }
        (whole.len(), same, differences)
    }
}

impl Difference {
    /// All of it, for machines.
    pub(super) fn object(&self) -> serde_json::Map<String, serde_json::Value> {
        let names =
            |hosts: &[HostName]| -> Vec<String> { hosts.iter().map(ToString::to_string).collect() };
        let mut object = serde_json::Map::new();
        crate::listing::put_name(&mut object, "path", &self.path);
        let versions = self.versions.iter().map(|found| {
            let mut version = serde_json::Map::new();
            version.insert("kind".into(), found.kind.word().into());
            version.insert("size".into(), json!(found.size));
            if let Some(target) = &found.target {
                crate::listing::put_name(&mut version, "target", target);
            }
            version.insert("hosts".into(), json!(names(&found.hosts)));
            serde_json::Value::Object(version)
        });
        object.insert("versions".into(), versions.collect());
        object.insert("lacking".into(), json!(names(&self.lacking)));
        object
    }
}

impl super::ListingRenderer {
    /// The paths that are not the same on all hosts.
    pub(super) fn differences(&mut self, ink: &mut Ink) {
        let (hosts, same, differences) = std::mem::take(&mut self.across).conclude();
        let fold = self.choice.fold;
        match self.choice.format {
            Format::Table => {
                let records: Vec<Vec<String>> = differences
                    .iter()
                    .flat_map(|one| versions(one, true, fold))
                    .collect();
                if !records.is_empty() {
                    let header = ["path", "what", "size", "hosts"];
                    let text = crate::report::table::table(&header, &records, &[2]);
                    ink.out().extend_from_slice(text.as_bytes());
                }
            }
            Format::Csv | Format::Tsv => {
                let delimiter = if self.choice.format == Format::Tsv {
                    b'\t'
                } else {
                    b','
                };
                let header = ["path", "what", "size", "hosts"]
                    .map(str::to_owned)
                    .to_vec();
                let mut records = vec![header];
                records.extend(
                    differences
                        .iter()
                        .flat_map(|one| versions(one, false, fold)),
                );
                write_separated(&records, delimiter, ink.out());
                self.begun = true;
            }
            Format::Ndjson => {
                for one in &differences {
                    let _ = serde_json::to_writer(ink.out(), &one.object());
                    ink.out().push(b'\n');
                }
            }
            Format::Json => {
                for one in &differences {
                    let first = !std::mem::replace(&mut self.begun, true);
                    let lead: &[u8] = if first { b"[\n" } else { b",\n" };
                    ink.out().extend_from_slice(lead);
                    let _ = serde_json::to_writer(ink.out(), &one.object());
                }
            }
            Format::Paths | Format::Paths0 => {
                for one in &differences {
                    if self.choice.format == Format::Paths0 {
                        ink.out().extend_from_slice(&one.path);
                        ink.out().push(0);
                    } else {
                        ink.out().extend_from_slice(escaped(&one.path).as_bytes());
                        ink.out().push(b'\n');
                    }
                }
            }
        }
        let line = format!(
            "{} compared   {} the same   {} not\n",
            crate::text::count(hosts, "host"),
            crate::text::count(same, "path"),
            differences.len(),
        );
        ink.err().extend_from_slice(line.as_bytes());
    }
}

/// Rows for one path: each of its versions, and who lacks it.
fn versions(one: &Difference, people: bool, fold: fn(&[HostName]) -> String) -> Vec<Vec<String>> {
    let path = escaped(&one.path);
    let hosts = |names: &[HostName]| {
        if people {
            return fold(names);
        }
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let size = |size: Option<u64>| match size {
        Some(size) if people => crate::text::size(size),
        Some(size) => size.to_string(),
        None => String::new(),
    };
    let mut rows: Vec<Vec<String>> = one
        .versions
        .iter()
        .map(|found| {
            let mut what = found.kind.word().to_owned();
            if let Some(target) = &found.target {
                let _ = write!(what, " -> {}", escaped(target));
            }
            vec![path.clone(), what, size(found.size), hosts(&found.hosts)]
        })
        .collect();
    if !one.lacking.is_empty() {
        let (what, none) = ("missing".to_owned(), String::new());
        rows.push(vec![path, what, none, hosts(&one.lacking)]);
    }
    rows
}
