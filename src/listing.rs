//! What a listing asks for and what it finds: files of a host, as its SFTP server tells of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::text::printable;

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Directories or files on the host, as bytes. `~` and globs (`*`, `?`, `[`) are for the host.
    pub paths: Vec<Bytes>,
    /// How far below the paths: 1 is what stands in them. `None`: all the way down.
    pub depth: Option<u32>,
    /// What is told of all that is found.
    pub wanted: Wanted,
    /// Ask for the names of owners and groups.
    pub owners: bool,
    /// Ask where links lead.
    pub targets: bool,
    /// What cannot be read is told, and the task is ok all the same.
    pub ignore_errors: bool,
    /// Only what is new since the last time, which is kept in this file (`newer: @last`).
    pub state: Option<PathBuf>,
}

/// What of a tree is wanted. Everything that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// These kinds; empty: all.
    pub kinds: Vec<Kind>,
    /// Globs, one of which must fit; empty: all. One without a slash is for the name, another for
    /// the path below the listed one.
    pub include: Vec<String>,
    /// Globs, none of which may fit. A directory that is left out is not entered either.
    pub exclude: Vec<String>,
    /// A regular expression that must be found in the path below the listed one.
    pub regex: Option<String>,
    /// Changed at this time or later, seconds since 1970.
    pub newer: Option<i64>,
    /// Changed before this time.
    pub older: Option<i64>,
    /// At least so many bytes.
    pub min_size: Option<u64>,
    /// At most so many bytes.
    pub max_size: Option<u64>,
    /// Belongs to this account: a name or a number.
    pub owner: Option<String>,
    /// Permission bits.
    pub mode: Option<ModeTest>,
    /// New since a listing before, of the same host.
    pub last: Option<Arc<Last>>,
}

/// What a listing found newest. The times are the host's own, so that its clock need not be right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Last {
    /// The newest time of last change, seconds since 1970.
    pub newest: u32,
    /// The paths that had it: others of the same second may come later.
    pub told: BTreeSet<Bytes>,
}

impl Last {
    /// Whether an entry is new.
    #[must_use]
    pub fn is_new(&self, entry: &Entry) -> bool {
        entry.modified.is_some_and(|time| {
            time > self.newest || time == self.newest && !self.told.contains(&entry.path)
        })
    }

    /// Notes what was found.
    pub fn add(&mut self, entry: &Entry) {
        let Some(time) = entry.modified.filter(|_| entry.kind != Kind::Error) else {
            return;
        };
        if time > self.newest {
            self.newest = time;
            self.told.clear();
        }
        if time == self.newest {
            self.told.insert(entry.path.clone());
        }
    }
}

/// What was found newest on every host; the content of a state file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastSeen {
    /// What was listed, as it was written.
    pub listed: Vec<String>,
    /// By host.
    pub hosts: BTreeMap<String, Arc<Last>>,
}

impl LastSeen {
    /// Reads a state file.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "is no state file of a listing".to_owned();
        let all: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        if all["version"] != 1 {
            return Err(wrong());
        }
        let listed = all["listed"].as_array().ok_or_else(wrong)?.iter();
        let listed = listed.map(|path| path.as_str().map(str::to_owned));
        let mut hosts = BTreeMap::new();
        for (host, last) in all["hosts"].as_object().ok_or_else(wrong)? {
            let newest = last["newest"]
                .as_str()
                .and_then(seconds)
                .ok_or_else(wrong)?;
            let told = last["paths"].as_array().ok_or_else(wrong)?.iter();
            let told = told.map(|path| bytes_of(path.as_object()?, "path"));
            let told = told.collect::<Option<_>>().ok_or_else(wrong)?;
            hosts.insert(host.clone(), Arc::new(Last { newest, told }));
        }
        Ok(Self {
            listed: listed.collect::<Option<_>>().ok_or_else(wrong)?,
            hosts,
        })
    }

    /// The text of a state file.
    #[must_use]
    pub fn text(&self) -> String {
        let hosts = self.hosts.iter().map(|(host, last)| {
            let paths = last.told.iter().map(|path| {
                let mut map = Map::new();
                put_name(&mut map, "path", path);
                Value::Object(map)
            });
            let paths: Vec<Value> = paths.collect();
            let last = json!({"newest": rfc3339(last.newest), "paths": paths});
            (host.clone(), last)
        });
        let hosts: Map<String, Value> = hosts.collect();
        let all = json!({"version": 1, "listed": self.listed, "hosts": hosts});
        format!("{all:#}\n")
    }
}

/// Seconds since 1970 of a time that [`rfc3339`] wrote.
fn seconds(text: &str) -> Option<u32> {
    let time: Timestamp = text.parse().ok()?;
    u32::try_from(time.as_second()).ok()
}

/// A test of permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeTest {
    /// Exactly these (`0644`).
    Exactly(u32),
    /// All of these (`-022`).
    All(u32),
    /// Any of these (`/022`).
    Any(u32),
}

impl ModeTest {
    /// Reads `0644`, `-022` or `/022`, as find(1) writes them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (make, digits): (fn(u32) -> Self, &str) = match text.as_bytes().first()? {
            b'-' => (Self::All, &text[1..]),
            b'/' => (Self::Any, &text[1..]),
            _ => (Self::Exactly, text),
        };
        let octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = u32::from_str_radix(digits, 8).ok().filter(|_| octal)?;
        (bits <= 0o7777).then(|| make(bits))
    }

    /// Whether a mode passes.
    #[must_use]
    pub fn holds(self, mode: u32) -> bool {
        match self {
            Self::Exactly(bits) => mode & 0o7777 == bits,
            Self::All(bits) => mode & bits == bits,
            Self::Any(bits) => mode & bits != 0,
        }
    }
}

/// One file, directory or link that a listing found, or a directory that it could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as it would be asked for again: the listed path and the names below it. Bytes.
    pub path: Bytes,
    /// How far below the listed path: 0 is that path itself.
    pub depth: u32,
    /// What it is.
    pub kind: Kind,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Permission bits with setuid, setgid and sticky: `st_mode & 07777`.
    pub mode: Option<u32>,
    /// Last access, seconds since 1970.
    pub accessed: Option<u32>,
    /// Last change of content, seconds since 1970.
    pub modified: Option<u32>,
    /// Numeric owner.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
    /// The owner's name, where the server told it. Not checked text: print it escaped.
    pub owner: Option<Arc<[u8]>>,
    /// The group's name.
    pub group: Option<Arc<[u8]>>,
    /// Where a link leads to, as it is written.
    pub target: Option<Bytes>,
    /// Why it could not be read, for [`Kind::Error`]. One line, printable.
    pub error: Option<String>,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// The server did not say.
    Unknown,
    /// A path that could not be read; [`Entry::error`] says why.
    Error,
}

impl Kind {
    /// From the type bits of `st_mode`.
    #[must_use]
    pub fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::File,
            0o040_000 => Self::Dir,
            0o120_000 => Self::Link,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o060_000 => Self::Block,
            0o020_000 => Self::Char,
            _ => Self::Unknown,
        }
    }

    /// The word in columns and events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Link => "link",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Block => "block",
            Self::Char => "char",
            Self::Unknown => "unknown",
            Self::Error => "error",
        }
    }

    /// From the word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let all = [
            Self::File,
            Self::Dir,
            Self::Link,
            Self::Fifo,
            Self::Socket,
            Self::Block,
            Self::Char,
            Self::Unknown,
            Self::Error,
        ];
        all.into_iter().find(|kind| kind.word() == word)
    }

    /// The letter with which `ls -l` begins a line.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Dir => 'd',
            Self::Link => 'l',
            Self::Fifo => 'p',
            Self::Socket => 's',
            Self::Block => 'b',
            Self::Char => 'c',
            Self::Unknown | Self::Error => '?',
        }
    }
}

impl Entry {
    /// The last name of the path; the path itself where it has none (`/`, `.`).
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let mut path: &[u8] = &self.path;
        while let [shorter @ .., b'/'] = path {
            if shorter.is_empty() {
                return path;
            }
            path = shorter;
        }
        let start = memchr::memrchr(b'/', path).map_or(0, |at| at + 1);
        &path[start..]
    }

    /// What stands behind the last dot of a file's name, in lower case; empty where there is none.
    #[must_use]
    pub fn extension(&self) -> String {
        let name = self.name();
        match memchr::memrchr(b'.', name) {
            Some(at) if at > 0 && self.kind == Kind::File => {
                printable(&name[at + 1..]).to_lowercase()
            }
            Some(_) | None => String::new(),
        }
    }

    /// Type and permissions as `ls -l` shows them: `-rw-r--r--`.
    #[must_use]
    pub fn mode_text(&self) -> String {
        let mut text = String::from(self.kind.letter());
        let Some(mode) = self.mode else {
            return text + "?????????";
        };
        for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = mode >> shift;
            text.push(if bits & 4 == 0 { '-' } else { 'r' });
            text.push(if bits & 2 == 0 { '-' } else { 'w' });
            text.push(match (bits & 1 != 0, mode & special != 0) {
                (true, true) => letter,
                (false, true) => letter.to_ascii_uppercase(),
                (true, false) => 'x',
                (false, false) => '-',
            });
        }
        text
    }

    /// All that is known, for machines: sizes exact, times RFC 3339 in UTC, names as text with
    /// `name_b64` and `path_b64` (base64) beside them where they are not UTF-8.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let mut map = Map::new();
        put_name(&mut map, "path", &self.path);
        put_name(&mut map, "name", self.name());
        let fields = [
            ("kind", json!(self.kind.word())),
            ("size", json!(self.size)),
            ("mtime", json!(self.modified.map(rfc3339))),
            ("atime", json!(self.accessed.map(rfc3339))),
            ("mode", json!(self.mode.map(|mode| format!("{mode:04o}")))),
            ("uid", json!(self.uid)),
            ("gid", json!(self.gid)),
            ("owner", json!(text(self.owner.as_deref()))),
            ("group", json!(text(self.group.as_deref()))),
            ("depth", json!(self.depth)),
        ];
        map.extend(
            fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value)),
        );
        if let Some(target) = &self.target {
            put_name(&mut map, "target", target);
        }
        if let Some(error) = &self.error {
            map.insert("error".to_owned(), json!(error));
        }
        map
    }
}

impl Entry {
    /// Reads what [`Self::fields`] wrote; `None` where it is something else.
    #[must_use]
    pub fn of_fields(map: &Map<String, Value>) -> Option<Self> {
        let word = |key: &str| map.get(key).and_then(Value::as_str);
        let number = |key: &str| {
            let value = map.get(key).and_then(Value::as_u64)?;
            u32::try_from(value).ok()
        };
        let time = |key: &str| word(key).and_then(seconds);
        let name = |key: &str| word(key).map(|name| Arc::from(name.as_bytes()));
        Some(Self {
            path: bytes_of(map, "path")?,
            depth: number("depth")?,
            kind: Kind::of_word(word("kind")?)?,
            size: map.get("size").and_then(Value::as_u64),
            mode: word("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok()),
            accessed: time("atime"),
            modified: time("mtime"),
            uid: number("uid"),
            gid: number("gid"),
            owner: name("owner"),
            group: name("group"),
            target: bytes_of(map, "target"),
            error: word("error").map(str::to_owned),
        })
    }
}

/// A name that [`put_name`] wrote.
fn bytes_of(map: &Map<String, Value>, key: &str) -> Option<Bytes> {
    match map.get(&format!("{key}_b64")).and_then(Value::as_str) {
        Some(code) => STANDARD.decode(code).ok().map(Into::into),
        None => Some(Bytes::copy_from_slice(map.get(key)?.as_str()?.as_bytes())),
    }
}

fn text(name: Option<&[u8]>) -> Option<String> {
    name.map(|name| String::from_utf8_lossy(name).into_owned())
}

/// Puts a name into an object: as text, with `KEY_b64` (base64) beside it where it is not UTF-8.
pub(crate) fn put_name(map: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            map.insert(key.to_owned(), json!(text));
        }
        Err(_) => {
            map.insert(key.to_owned(), json!(String::from_utf8_lossy(bytes)));
            map.insert(format!("{key}_b64"), json!(STANDARD.encode(bytes)));
        }
    }
}

/// `2026-11-21T18:04:11Z`
#[must_use]
pub fn rfc3339(seconds: u32) -> String {
    let time = Timestamp::from_second(i64::from(seconds));
    time.map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
