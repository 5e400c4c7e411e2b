//! Lists trees: many directories at once, two pages ahead in each, and hands out what it finds as
//! it comes. Only the paths of directories that are still to be read are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::client::{Client, Handle, Pending};
use super::select::Filter;
use super::wire::{Attrs, Named};
use super::{Error, RemotePath, check_name};
use crate::listing::{Entry, Kind, Listing};
use crate::outcome::FilesCause;
use crate::text::printable;
use crate::transfer::Tally;

/// Directories that are read at once.
const AT_ONCE: usize = 8;
/// Pages that are asked for ahead in one directory.
const AHEAD: usize = 2;
/// A path longer than this is not entered: every system refuses far shorter ones, so only a server
/// that makes directories up has them.
const LONGEST_PATH: usize = 16 << 10;
/// Names that one directory may have: more than any file system is used with. Beyond it a server
/// makes them up, and would do so for ever.
const MOST_NAMES: u64 = if cfg!(test) { 1_500_000 } else { 20_000_000 };
/// Paths that one pattern may stand for.
const MOST_ROOTS: usize = 100_000;

/// What a listing came to.
#[derive(Debug, Default)]
pub struct Walked {
    /// What was handed out.
    pub tally: Tally,
    /// What went wrong first, and how much more did.
    pub trouble: Option<(FilesCause, String)>,
}

/// Lists what `listing` says and hands blocks of entries to `out`, whose end stops it.
///
/// # Errors
/// What ended the client. Whatever concerns one path is an entry of kind [`Kind::Error`] instead.
pub async fn walk(
    client: &Client,
    listing: &Listing,
    filter: &Filter,
    out: &mpsc::Sender<Vec<Entry>>,
) -> Result<Walked, Error> {
    let walk = Walk {
        client,
        listing,
        filter,
        out,
        owners: Mutex::default(),
    };
    let mut walked = Walked::default();
    walked.tally.found = true;
    for path in &listing.paths {
        walk.tree(path, &mut walked).await?;
    }
    if let Some((_, reason)) = &mut walked.trouble
        && walked.tally.errors > 1
    {
        reason.push_str(&format!(" (and {} more)", walked.tally.errors - 1));
    }
    Ok(walked)
}

struct Walk<'a> {
    client: &'a Client,
    listing: &'a Listing,
    filter: &'a Filter,
    out: &'a mpsc::Sender<Vec<Entry>>,
    owners: Mutex<Owners>,
}

/// Names that were asked for already.
#[derive(Default)]
struct Owners {
    users: BTreeMap<u32, Option<Arc<[u8]>>>,
    groups: BTreeMap<u32, Option<Arc<[u8]>>>,
}

/// A directory that is to be read.
#[derive(Clone)]
struct Dir {
    path: RemotePath,
    /// Where the path below the listed one begins in `path`.
    below: usize,
    depth: u32,
}

/// What one directory came to.
#[derive(Default)]
struct Read {
    tally: Tally,
    dirs: Vec<Dir>,
    trouble: Option<(FilesCause, String)>,
}

impl Walked {
    fn add(&mut self, read: Read) {
        let (sum, new) = (&mut self.tally, read.tally);
        sum.files += new.files;
        sum.bytes += new.bytes;
        sum.dirs += new.dirs;
        sum.links += new.links;
        sum.errors += new.errors;
        self.trouble = self.trouble.take().or(read.trouble);
    }
}

impl Walk<'_> {
    async fn tree(&self, path: &Bytes, walked: &mut Walked) -> Result<(), Error> {
        let mut waiting = Vec::new();
        for root in self.roots(path, walked).await? {
            waiting.extend(self.root(root, walked).await?);
        }
        waiting.reverse();
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < AT_ONCE
                && let Some(dir) = waiting.pop()
            {
                reading.push(self.read(dir));
            }
            let Some(read) = reading.next().await else {
                return Ok(());
            };
            let mut read = read?;
            waiting.append(&mut read.dirs);
            walked.add(read);
        }
    }

    /// The paths that a written one stands for: itself, or what its pattern fits.
    async fn roots(&self, path: &Bytes, walked: &mut Walked) -> Result<Vec<RemotePath>, Error> {
        let written = RemotePath::new(path.clone());
        let written = if path.starts_with(b"~") {
            match self.client.expand(&written).await {
                Ok(path) => path,
                Err(error) => {
                    walked.add(self.lost(&written, 0, error).await?);
                    return Ok(Vec::new());
                }
            }
        } else {
            written
        };
        match roots(self.client, &written).await {
            Ok(found) => Ok(found),
            Err(error) => {
                walked.add(self.lost(&written, 0, error).await?);
                Ok(Vec::new())
            }
        }
    }

    /// A listed path itself: told where it is no directory, else to be read.
    async fn root(&self, path: RemotePath, walked: &mut Walked) -> Result<Option<Dir>, Error> {
        let attrs = match self.client.stat(&path).await {
            Ok(attrs) => attrs,
            Err(error) => {
                walked.add(self.lost(&path, 0, error).await?);
                return Ok(None);
            }
        };
        let dir = attrs.mode.map(Kind::of_mode) == Some(Kind::Dir);
        if dir && self.listing.depth != Some(0) {
            let below = path.as_bytes().len();
            let below = below + usize::from(!path.names_directory());
            // `./x` is told as `x`.
            let below = if path.as_bytes() == b"." { 0 } else { below };
            let depth = 1;
            return Ok(Some(Dir { path, below, depth }));
        }
        let name = path.file_name().unwrap_or(path.as_bytes()).to_vec();
        let entry = entry(path.bytes(), 0, &attrs);
        let mut read = Read::default();
        let mut entries = vec![entry];
        self.complete(&mut entries).await?;
        entries.retain(|entry| self.filter.keeps(entry, &name));
        self.hand_out(entries, &mut read).await;
        walked.add(read);
        Ok(None)
    }

    async fn read(&self, dir: Dir) -> Result<Read, Error> {
        let mut read = Read::default();
        let done = self.read_into(&dir, &mut read).await;
        match done {
            Ok(()) => Ok(read),
            Err(error) if error.is_final() => Err(error),
            Err(error) => {
                let lost = self.lost(&dir.path, dir.depth - 1, error).await?;
                read.tally.errors += lost.tally.errors;
                read.trouble = read.trouble.or(lost.trouble);
                Ok(read)
            }
        }
    }

    async fn read_into(&self, dir: &Dir, read: &mut Read) -> Result<(), Error> {
        let handle = self.client.open_dir(&dir.path).await?;
        let mut pages = Pages::new(self.client, &handle);
        while let Some(page) = pages.next().await? {
            self.page(dir, page, read).await?;
        }
        close_quietly(self.client, handle).await
    }

    async fn page(&self, dir: &Dir, page: Vec<Named>, read: &mut Read) -> Result<(), Error> {
        let mut entries = Vec::with_capacity(page.len());
        for named in page {
            match check_name(&named.name) {
                Ok(()) => {
                    let path = dir.path.join(&named.name);
                    entries.push(entry(path.bytes(), dir.depth, &named.attrs));
                }
                Err(_) if named.name == "." || named.name == ".." => {}
                Err(why) => {
                    let name = printable(&named.name);
                    let reason = format!("{}: the server gave {why}: {name:?}", dir.path);
                    let bad = broken(dir.path.bytes(), dir.depth, why);
                    read.tally.errors += 1;
                    read.trouble.get_or_insert((FilesCause::Protocol, reason));
                    entries.push(bad);
                }
            }
        }
        self.complete(&mut entries).await?;
        self.enter(dir, &entries, read);
        let below = |entry: &Entry| entry.path.slice(dir.below.min(entry.path.len())..);
        entries.retain(|entry| self.filter.keeps(entry, &below(entry)));
        self.hand_out(entries, read).await;
        Ok(())
    }

    /// Notes the directories that are to be read too. Links are never followed.
    fn enter(&self, dir: &Dir, entries: &[Entry], read: &mut Read) {
        if self.listing.depth.is_some_and(|most| dir.depth >= most) {
            return;
        }
        for entry in entries.iter().filter(|entry| entry.kind == Kind::Dir) {
            let below = &entry.path[dir.below.min(entry.path.len())..];
            if self.filter.excludes(entry.name(), below) {
                continue;
            }
            if entry.path.len() > LONGEST_PATH {
                let reason = "a path of more than 16 KiB".to_owned();
                read.tally.errors += 1;
                read.trouble.get_or_insert((FilesCause::Protocol, reason));
                continue;
            }
            read.dirs.push(Dir {
                path: RemotePath::new(entry.path.clone()),
                below: dir.below,
                depth: dir.depth + 1,
            });
        }
    }

    /// What the page did not say: types, owners' names, where links lead.
    async fn complete(&self, entries: &mut [Entry]) -> Result<(), Error> {
        self.complete_types(entries).await?;
        if self.listing.owners || self.listing.wanted.owner.is_some() {
            self.complete_owners(entries).await?;
        }
        if self.listing.targets {
            let links = entries.iter_mut().filter(|entry| entry.kind == Kind::Link);
            let asked = links.map(|entry| async {
                let path = RemotePath::new(entry.path.clone());
                // A link that is gone meanwhile leads nowhere.
                match self.client.read_link(&path).await {
                    Ok(target) => entry.target = Some(target.bytes()),
                    Err(error) if error.is_final() => return Err(error),
                    Err(_) => {}
                }
                Ok(())
            });
            join_all(asked)
                .await
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn complete_types(&self, entries: &mut [Entry]) -> Result<(), Error> {
        let untold = entries
            .iter_mut()
            .filter(|e| e.kind == Kind::Unknown && e.mode.is_none());
        let asked = untold.map(|untold| async {
            let path = RemotePath::new(untold.path.clone());
            match self.client.lstat(&path).await {
                Ok(attrs) => *untold = entry(untold.path.clone(), untold.depth, &attrs),
                Err(error) if error.is_final() => return Err(error),
                Err(_) => {}
            }
            Ok(())
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn complete_owners(&self, entries: &mut [Entry]) -> Result<(), Error> {
        let (users, groups) = {
            let known = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let users: BTreeSet<u32> = entries.iter().filter_map(|entry| entry.uid).collect();
            let groups: BTreeSet<u32> = entries.iter().filter_map(|entry| entry.gid).collect();
            let new = |ids: BTreeSet<u32>, known: &BTreeMap<u32, _>| {
                ids.into_iter()
                    .filter(|id| !known.contains_key(id))
                    .collect::<Vec<u32>>()
            };
            (new(users, &known.users), new(groups, &known.groups))
        };
        let asked = if users.is_empty() && groups.is_empty() {
            None
        } else {
            match self.client.names_of(&users, &groups).await {
                Ok(names) => Some(names),
                Err(error) if error.is_final() => return Err(error),
                // A server that cannot tell names leaves the numbers.
                Err(_) => None,
            }
        };
        let mut known = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = |name: &Option<Bytes>| name.as_ref().map(|name| Arc::from(&name[..]));
        if let Some(names) = asked {
            let told = users.iter().zip(&names.users);
            known
                .users
                .extend(told.map(|(id, name)| (*id, shared(name))));
            let told = groups.iter().zip(&names.groups);
            known
                .groups
                .extend(told.map(|(id, name)| (*id, shared(name))));
        }
        for entry in entries {
            entry.owner = entry
                .uid
                .and_then(|id| known.users.get(&id).cloned().flatten());
            entry.group = entry
                .gid
                .and_then(|id| known.groups.get(&id).cloned().flatten());
        }
        Ok(())
    }

    /// A path that cannot be read: an entry that says so.
    async fn lost(&self, path: &RemotePath, depth: u32, error: Error) -> Result<Read, Error> {
        if error.is_final() {
            return Err(error);
        }
        let mut read = Read::default();
        read.tally.errors = 1;
        read.trouble = Some((error.cause(), format!("{path}: {error}")));
        let entry = broken(path.bytes(), depth, &error.to_string());
        self.hand_out(vec![entry], &mut read).await;
        Ok(read)
    }

    async fn hand_out(&self, entries: Vec<Entry>, read: &mut Read) {
        for entry in &entries {
            match entry.kind {
                Kind::Dir => read.tally.dirs += 1,
                Kind::Link => read.tally.links += 1,
                Kind::Error => {}
                Kind::File
                | Kind::Fifo
                | Kind::Socket
                | Kind::Block
                | Kind::Char
                | Kind::Unknown => {
                    read.tally.files += 1;
                    read.tally.bytes += entry.size.unwrap_or(0);
                }
            }
        }
        if !entries.is_empty() {
            // Whoever stopped listening drops this future.
            let _ = self.out.send(entries).await;
        }
    }
}

/// What a path stands for: itself, or all that its pattern fits, sorted. As in a shell, a leading
/// dot must be written, and a file whose name only looks like a pattern is that file.
///
/// # Errors
/// Nothing fits the pattern, or the client is over.
pub(super) async fn roots(client: &Client, path: &RemotePath) -> Result<Vec<RemotePath>, Error> {
    let text = path.as_bytes();
    if !is_pattern(text) {
        return Ok(vec![path.clone()]);
    }
    match client.lstat(path).await {
        Ok(_) => return Ok(vec![path.clone()]),
        Err(error) if error.is_final() => return Err(error),
        Err(_) => {}
    }
    let start = if text.starts_with(b"/") { "/" } else { "" };
    let mut found = vec![RemotePath::new(start)];
    for part in text.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        if is_pattern(part) {
            found = fitting(client, &found, part).await?;
        } else {
            found = found.iter().map(|path| path.join(part)).collect();
        }
    }
    // Parts after the last pattern may lead nowhere.
    if !is_pattern(text.rsplit(|b| *b == b'/').next().unwrap_or_default()) {
        let there = join_all(found.iter().map(|path| client.lstat(path))).await;
        let mut there = there.into_iter();
        found.retain(|_| there.next().is_some_and(|attrs| attrs.is_ok()));
    }
    if found.is_empty() {
        return Err(Error::Status {
            code: super::Code::NoSuchFile,
            said: "nothing fits the pattern".to_owned(),
        });
    }
    found.sort();
    Ok(found)
}

/// What in some directories fits one part of a pattern.
async fn fitting(
    client: &Client,
    dirs: &[RemotePath],
    part: &[u8],
) -> Result<Vec<RemotePath>, Error> {
    use std::os::unix::ffi::OsStrExt;
    let Ok(glob) = globset::GlobBuilder::new(&String::from_utf8_lossy(part))
        .literal_separator(true)
        .build()
    else {
        return Ok(Vec::new());
    };
    let matcher = glob.compile_matcher();
    let hidden = part.starts_with(b".");
    let mut found = Vec::new();
    for dir in dirs {
        // What is no directory, or may not be read, fits nothing.
        let names = match names(client, dir).await {
            Err(error) if error.is_final() => return Err(error),
            names => names.unwrap_or_default(),
        };
        found.extend(names.iter().filter_map(|(name, _)| {
            let shown = hidden || !name.starts_with(b".");
            let text = std::path::Path::new(std::ffi::OsStr::from_bytes(name));
            (shown && matcher.is_match(text)).then(|| dir.join(name))
        }));
        found.truncate(MOST_ROOTS);
    }
    Ok(found)
}

/// Every good name in a directory, with what the server says of each; without `.` and `..`.
pub(super) async fn names(
    client: &Client,
    path: &RemotePath,
) -> Result<Vec<(Bytes, Attrs)>, Error> {
    let handle = client.open_dir(path).await?;
    let mut names = Vec::new();
    let mut pages = Pages::new(client, &handle);
    while let Some(page) = pages.next().await? {
        let good = page.into_iter().map(|named| (named.name, named.attrs));
        names.extend(good.filter(|(name, _)| check_name(name).is_ok()));
    }
    close_quietly(client, handle).await?;
    Ok(names)
}

/// Closes what was only read: what the server says to that changes nothing, unless it is the end.
pub(super) async fn close_quietly(client: &Client, handle: Handle) -> Result<(), Error> {
    match client.close(handle).await {
        Err(error) if error.is_final() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The pages of one directory, asked for ahead.
pub(super) struct Pages<'a> {
    client: &'a Client,
    handle: &'a Handle,
    asked: std::collections::VecDeque<Pending>,
    last: Option<u64>,
    /// How many came so far.
    names: u64,
}

impl<'a> Pages<'a> {
    pub(super) fn new(client: &'a Client, handle: &'a Handle) -> Self {
        Self {
            client,
            handle,
            asked: std::collections::VecDeque::with_capacity(AHEAD),
            last: None,
            names: 0,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<Named>>, Error> {
        while self.asked.len() < AHEAD {
            self.asked
                .push_back(self.client.read_dir(self.handle).await?);
        }
        let Some(first) = self.asked.pop_front() else {
            return Ok(None);
        };
        let Some(page) = first.names().await? else {
            return Ok(None);
        };
        self.names += page.len() as u64;
        if self.names > MOST_NAMES {
            let what = format!("more than {MOST_NAMES} names in one directory");
            return Err(Error::Protocol(what));
        }
        let mut hasher = DefaultHasher::new();
        for named in &page {
            named.name.hash(&mut hasher);
        }
        let this = hasher.finish();
        if self.last.replace(this) == Some(this) {
            return Err(Error::Protocol("the same page of names twice".to_owned()));
        }
        Ok(Some(page))
    }
}

fn is_pattern(path: &[u8]) -> bool {
    path.iter().any(|b| b"*?[".contains(b))
}

fn entry(path: Bytes, depth: u32, attrs: &Attrs) -> Entry {
    Entry {
        path,
        depth,
        kind: attrs.mode.map_or(Kind::Unknown, Kind::of_mode),
        size: attrs.size,
        mode: attrs.mode.map(|mode| mode & 0o7777),
        accessed: attrs.times.map(|times| times.0),
        modified: attrs.times.map(|times| times.1),
        uid: attrs.owner.map(|owner| owner.0),
        gid: attrs.owner.map(|owner| owner.1),
        owner: None,
        group: None,
        target: None,
        error: None,
    }
}

fn broken(path: Bytes, depth: u32, error: &str) -> Entry {
    Entry {
        kind: Kind::Error,
        error: Some(error.to_owned()),
        ..entry(path, depth, &Attrs::default())
    }
}
