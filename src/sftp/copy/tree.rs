//! What is uploaded, as it stands here: read once for all hosts that get it.
//!
//! Everything here blocks; callers are on threads that may.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use globset::GlobBuilder;

use super::{in_words, local_cause};
use crate::listing::Kind;
use crate::outcome::FilesCause;
use crate::sftp::Filter;
use crate::text::printable;
use crate::transfer::{Source, Symlinks};

/// Files, directories and links, every directory before what it holds.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) items: Vec<Item>,
    /// What could not be read.
    pub(super) troubles: Vec<(FilesCause, String)>,
    /// It is one file and nothing else.
    pub(super) single: bool,
    /// What a source's own directory is called at the destination; empty is the destination
    /// itself. Only what stands below these is mirrored.
    pub(super) mirrored: Vec<Bytes>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Item {
    /// Its path below the destination. Bytes, with `/` between names.
    pub(super) path: Bytes,
    pub(super) what: What,
    /// `st_mode & 07777`
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) accessed: i64,
    pub(super) modified: i64,
}

#[derive(Debug)]
pub(super) enum What {
    Dir,
    Link(Bytes),
    File {
        place: Place,
        size: u64,
        /// Parts of it are not on the disk, and are zeros.
        sparse: bool,
    },
}

/// Where a file's bytes are.
#[derive(Debug)]
pub(super) enum Place {
    Disk {
        path: PathBuf,
        /// Device and number, by which it is known again.
        id: (u64, u64),
        /// Nanoseconds since 1970.
        changed: i128,
        /// It was found, not named: a link put in its place is not followed.
        found: bool,
    },
    Here(Bytes),
}

/// Reads what `sources` name.
pub(super) fn read(sources: &[Source], symlinks: Symlinks, filter: &Filter) -> Tree {
    let mut reader = Reader {
        tree: Tree::default(),
        symlinks,
        filter,
    };
    for source in sources {
        match source {
            Source::Content { name, bytes, mode } => reader.tree.items.push(Item {
                path: Bytes::copy_from_slice(name.as_bytes()),
                what: What::File {
                    place: Place::Here(bytes.clone()),
                    size: bytes.len() as u64,
                    sparse: false,
                },
                mode: *mode,
                accessed: 0,
                modified: 0,
            }),
            Source::Path(path) => reader.source(path),
        }
    }
    let mut tree = reader.tree;
    tree.single = match &tree.items[..] {
        [one] => matches!(one.what, What::File { .. }) && sources.len() == 1,
        _ => false,
    };
    check_unique(&mut tree);
    tree
}

/// Two sources of the same name would overwrite each other.
fn check_unique(tree: &mut Tree) {
    let mut seen = BTreeSet::new();
    let mut twice = None;
    for item in tree.items.iter().filter(|i| !matches!(i.what, What::Dir)) {
        if !seen.insert(&item.path) {
            twice.get_or_insert_with(|| printable(&item.path).into_owned());
        }
    }
    if let Some(path) = twice {
        let reason = format!("{path}: two sources have this name");
        tree.troubles.push((FilesCause::Local, reason));
        tree.items.clear();
    }
}

struct Reader<'a> {
    tree: Tree,
    symlinks: Symlinks,
    filter: &'a Filter,
}

impl Reader<'_> {
    fn source(&mut self, written: &Path) {
        let found = match expand(written) {
            Ok(found) => found,
            Err(error) => return self.lost(written, &error),
        };
        for path in found {
            match fs::metadata(&path) {
                Ok(data) => self.root(&path, &data),
                Err(error) => self.lost(&path, &error),
            }
        }
    }

    fn root(&mut self, path: &Path, data: &Metadata) {
        let bytes = path.as_os_str().as_bytes();
        let inside = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
        let name = match path.file_name() {
            Some(name) => Bytes::copy_from_slice(name.as_bytes()),
            None if data.is_dir() => Bytes::new(),
            None => return self.trouble(path, "has no name"),
        };
        if !data.is_dir() {
            return self.item(path, name, data, false, &[]);
        }
        let below = if inside { Bytes::new() } else { name };
        if !below.is_empty() {
            self.item(path, below.clone(), data, false, &[]);
        }
        self.tree.mirrored.push(below.clone());
        self.inside(path, &below, below.len(), &[(data.dev(), data.ino())]);
    }

    /// What a directory holds. `root` is how much of `below` belongs to the source itself, and
    /// `above` the directories that we are in, by which a circle is seen.
    fn inside(&mut self, path: &Path, below: &Bytes, root: usize, above: &[(u64, u64)]) {
        let listed = fs::read_dir(path).and_then(|entries| {
            let mut names = entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        });
        let names = match listed {
            Ok(names) => names,
            Err(error) => return self.lost(path, &error),
        };
        for name in names {
            let item = join(below, name.as_bytes());
            let from_root = &item[(root + usize::from(root > 0)).min(item.len())..];
            if self.filter.excludes(name.as_bytes(), from_root) {
                continue;
            }
            let path = path.join(&name);
            match fs::symlink_metadata(&path) {
                Err(error) => self.lost(&path, &error),
                Ok(data) if data.is_symlink() => self.link(&path, item, &data, root, above),
                Ok(data) => self.found(&path, item, &data, root, above),
            }
        }
    }

    fn found(
        &mut self,
        path: &Path,
        item: Bytes,
        data: &Metadata,
        root: usize,
        above: &[(u64, u64)],
    ) {
        let id = (data.dev(), data.ino());
        if data.is_dir() && above.contains(&id) {
            return self.trouble(path, "leads back to a directory that holds it");
        }
        self.item(path, item.clone(), data, true, above);
        if data.is_dir() {
            self.inside(path, &item, root, &[above, &[id]].concat());
        }
    }

    /// A link, of which `data` tells.
    fn link(
        &mut self,
        path: &Path,
        item: Bytes,
        data: &Metadata,
        root: usize,
        above: &[(u64, u64)],
    ) {
        match self.symlinks {
            Symlinks::Skip => {}
            Symlinks::Follow => match fs::metadata(path) {
                Ok(data) => self.found(path, item, &data, root, above),
                Err(error) => self.lost(path, &error),
            },
            Symlinks::Copy => match fs::read_link(path) {
                Ok(target) => self.tree.items.push(Item {
                    path: item,
                    what: What::Link(Bytes::copy_from_slice(target.as_os_str().as_bytes())),
                    mode: 0o777,
                    accessed: data.atime(),
                    modified: data.mtime(),
                }),
                Err(error) => self.lost(path, &error),
            },
        }
    }

    fn item(&mut self, path: &Path, item: Bytes, data: &Metadata, found: bool, _: &[(u64, u64)]) {
        let what = match Kind::of_mode(data.mode()) {
            Kind::Dir => What::Dir,
            Kind::File => What::File {
                place: Place::Disk {
                    path: path.to_owned(),
                    id: (data.dev(), data.ino()),
                    changed: changed(data),
                    found: found && self.symlinks != Symlinks::Follow,
                },
                size: data.size(),
                sparse: data.blocks() * 512 < data.size(),
            },
            kind => return self.trouble(path, &format!("is a {}", kind.word())),
        };
        self.tree.items.push(Item {
            path: item,
            what,
            mode: data.mode() & 0o7777,
            accessed: data.atime(),
            modified: data.mtime(),
        });
    }

    fn lost(&mut self, path: &Path, error: &io::Error) {
        let reason = format!(
            "{}: {}",
            printable(path.as_os_str().as_bytes()),
            in_words(error)
        );
        self.tree.troubles.push((local_cause(error), reason));
    }

    fn trouble(&mut self, path: &Path, why: &str) {
        let reason = format!("{}: {why}", printable(path.as_os_str().as_bytes()));
        self.tree.troubles.push((FilesCause::Local, reason));
    }
}

/// Nanoseconds since 1970 of the last change.
pub(super) fn changed(data: &Metadata) -> i128 {
    i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec())
}

pub(super) fn join(below: &Bytes, name: &[u8]) -> Bytes {
    if below.is_empty() {
        return Bytes::copy_from_slice(name);
    }
    [below, &b"/"[..], name].concat().into()
}

/// What a path with `*`, `?` or `[` stands for, sorted. A path that exists as written is itself.
fn expand(written: &Path) -> io::Result<Vec<PathBuf>> {
    let text = written.as_os_str().as_bytes();
    let is_pattern = |text: &[u8]| text.iter().any(|b| b"*?[".contains(b));
    if !is_pattern(text) || fs::symlink_metadata(written).is_ok() {
        return Ok(vec![written.to_owned()]);
    }
    let start = if text.starts_with(b"/") { "/" } else { "" };
    let mut found = vec![PathBuf::from(start)];
    for part in text.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        let part = OsStr::from_bytes(part);
        if !is_pattern(part.as_bytes()) {
            found = found.iter().map(|path| path.join(part)).collect();
            continue;
        }
        let glob = GlobBuilder::new(&part.to_string_lossy())
            .literal_separator(true)
            .build()
            .map_err(|error| io::Error::other(error.kind().to_string()))?
            .compile_matcher();
        let hidden = part.as_bytes().starts_with(b".");
        let inside = |path: &PathBuf| {
            let listed = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            };
            let names = fs::read_dir(listed).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name());
            let fit = names.filter(|name| {
                glob.is_match(Path::new(name)) && (hidden || !name.as_bytes().starts_with(b"."))
            });
            fit.map(|name| path.join(name)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(inside).collect();
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    found.sort();
    if text.ends_with(b"/") {
        found = found.into_iter().map(|path| path.join("")).collect();
    }
    if found.is_empty() {
        let none = "nothing fits the pattern";
        return Err(io::Error::new(io::ErrorKind::NotFound, none));
    }
    Ok(found)
}
