//! From here to a host.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use tokio_stream::StreamExt;

use super::remote::{self, kind};
use super::second::{self, Aid};
use super::sources::{PIECE, Shared, Sources};
use super::stream::{Reading, Writing};
use super::tree::{Item, Tree, What};
use super::{Copying, FILES_AT_ONCE, Fault, Moved, delete, names};
use crate::listing::Kind;
use crate::outcome::FilesCause;
use crate::sftp::walk::close_quietly;
use crate::sftp::{Attrs, Code, Error, Handle, OpenFlags, RemotePath};
use crate::text::{printable, size as size_in_words};
use crate::transfer::{Same, Upload};

/// Uploads. What goes wrong is in the result.
pub async fn upload(copying: Copying<'_>, sources: &Arc<Sources>, upload: &Upload) -> Moved {
    if let Err(fault) = run(&copying, sources, upload).await {
        copying.failed(fault);
    }
    copying.into_moved()
}

async fn run(copying: &Copying<'_>, sources: &Arc<Sources>, upload: &Upload) -> Result<(), Fault> {
    let shared = copying.unless_stopped(sources.tree(upload)).await??;
    let tree = shared.tree();
    for (cause, reason) in &tree.troubles {
        copying.failed(Fault::File(*cause, reason.clone()));
    }
    for item in &tree.items {
        if let What::File { size, .. } = item.what {
            copying.meter.found(size);
        }
    }
    copying.meter.found_all();
    if tree.items.is_empty() {
        return Ok(());
    }
    let owner = copying.owner().await?;
    let base = base(copying, upload, tree).await?;
    let mut up = Up {
        copying,
        sources,
        shared: &shared,
        base,
        owner,
        fresh: HashSet::new(),
    };
    up.make_dirs().await?;
    up.copy_all().await?;
    up.finish_dirs().await?;
    if copying.how.delete {
        delete::remote(copying, tree, |path| up.path(path), &up.fresh).await?;
    }
    Ok(())
}

/// Where things go.
enum Base {
    /// Into a directory; whether it was there before.
    Dir(RemotePath, bool),
    /// The one file has this path.
    File(RemotePath),
}

async fn base(copying: &Copying<'_>, upload: &Upload, tree: &Tree) -> Result<Base, Fault> {
    let client = copying.client;
    let dest = copying.beyond_tilde(&upload.dest).await?;
    let there = match client.stat(&dest).await {
        Ok(attrs) => Some(kind(&attrs)),
        Err(error) if error.code() == Some(Code::NoSuchFile) => None,
        Err(error) => return Err(Fault::remote(&dest, error)),
    };
    let is_dir = there == Some(Kind::Dir);
    if tree.single && !is_dir && !dest.names_directory() {
        if there.is_none() && !copying.how.check {
            remote::make_dirs(client, &dest.parent()).await?;
        }
        return Ok(Base::File(dest));
    }
    if !copying.how.check {
        remote::make_dirs(client, &dest).await?;
    }
    Ok(Base::Dir(dest, is_dir))
}

struct Up<'a> {
    copying: &'a Copying<'a>,
    sources: &'a Arc<Sources>,
    shared: &'a Arc<Shared>,
    base: Base,
    owner: Option<Owner>,
    /// Directories that this upload made, so that nothing can be in them: by path below the base.
    fresh: HashSet<Bytes>,
}

/// Who is to own what is uploaded; `None` stays as it is.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

/// What was wrong at the end of a file.
enum Ended {
    Writing(Fault),
    After(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::After(error)
    }
}

/// What became of one file.
enum Done {
    Copied(u64),
    Linked,
    Unchanged,
}

impl Up<'_> {
    fn path(&self, below: &[u8]) -> RemotePath {
        match &self.base {
            Base::File(path) => path.clone(),
            Base::Dir(path, _) if below.is_empty() => path.clone(),
            Base::Dir(path, _) => path.join(below),
        }
    }

    /// Directories, those of one depth together: whoever holds others is there before them.
    async fn make_dirs(&mut self) -> Result<(), Fault> {
        if let Base::Dir(_, false) = self.base {
            self.fresh.insert(Bytes::new());
        }
        let shared = self.shared;
        let dirs = shared.tree().items.iter();
        let dirs = dirs.filter(|item| matches!(item.what, What::Dir));
        let mut left: Vec<&Item> = dirs.collect();
        left.sort_by_key(|item| depth(&item.path));
        let mut left = left.into_iter().peekable();
        while let Some(first) = left.peek() {
            let level = depth(&first.path);
            let mut making = FuturesUnordered::new();
            while let Some(item) = left.next_if(|item| depth(&item.path) == level) {
                making.push(self.make_dir(item));
            }
            let mut fresh = Vec::new();
            while let Some(made) = self.copying.unless_stopped(making.next()).await? {
                match made {
                    Ok(Some(path)) => fresh.push(path),
                    Ok(None) => {}
                    Err(fault) => {
                        self.copying.failed(fault);
                    }
                }
            }
            drop(making);
            self.copying.count(|tally| tally.dirs += fresh.len() as u64);
            self.fresh.extend(fresh);
            if !self.copying.goes_on() {
                return Err(Fault::Stopped);
            }
        }
        Ok(())
    }

    /// Its path below the base, where it was missing.
    async fn make_dir(&self, item: &Item) -> Result<Option<Bytes>, Fault> {
        let path = self.path(&item.path);
        let made = if self.copying.how.check {
            let missing = self.copying.client.stat(&path).await.is_err();
            if missing {
                self.copying.would(format!("make    {path}/"));
            }
            missing
        } else {
            // The owner may write until all is in it.
            let mode = item.mode & 0o777 | 0o700;
            remote::make_dir(self.copying.client, &path, mode).await?
        };
        Ok(made.then(|| item.path.clone()))
    }

    async fn copy_all(&self) -> Result<(), Fault> {
        let items = self.shared.tree().items.iter().enumerate();
        let mut waiting = items.filter(|(_, item)| !matches!(item.what, What::Dir));
        let mut copying = FuturesUnordered::new();
        loop {
            while copying.len() < FILES_AT_ONCE
                && self.copying.goes_on()
                && let Some((at, item)) = waiting.next()
            {
                copying.push(self.one(at, item));
            }
            if copying.next().await.is_none() {
                break;
            }
        }
        if self.copying.goes_on() {
            Ok(())
        } else {
            Err(Fault::Stopped)
        }
    }

    /// One file or link, with all that is told of it.
    async fn one(&self, at: usize, item: &Item) {
        let path = self.path(&item.path);
        let done = match &item.what {
            What::Link(target) => self.link(item, &path, target).await,
            What::File { size, .. } => self.file(at, item, &path, *size).await,
            What::Dir => return,
        };
        match done {
            Ok(Done::Copied(bytes)) => self.copying.count(|tally| {
                tally.files += 1;
                tally.bytes += bytes;
            }),
            Ok(Done::Linked) => self.copying.count(|tally| tally.links += 1),
            Ok(Done::Unchanged) => {
                if let What::File { size, .. } = item.what {
                    self.copying.meter.spared(size);
                }
                self.copying.count(|tally| tally.unchanged += 1);
            }
            Err(fault) => {
                self.copying.failed(fault);
            }
        }
        if matches!(item.what, What::File { .. }) {
            self.copying.meter.file_done();
        }
    }

    fn in_fresh_dir(&self, item: &Item) -> bool {
        let slash = memchr::memrchr(b'/', &item.path).unwrap_or(0);
        matches!(self.base, Base::Dir(..)) && self.fresh.contains(&item.path[..slash])
    }

    async fn link(&self, item: &Item, path: &RemotePath, target: &Bytes) -> Result<Done, Fault> {
        let client = self.copying.client;
        match client.read_link(path).await {
            Ok(known) if known.as_bytes() == &target[..] => return Ok(Done::Unchanged),
            Err(error) if error.is_final() => return Err(Fault::Client(error)),
            Ok(_) | Err(_) => {}
        }
        if self.copying.how.check {
            let target = printable(target);
            self.copying.would(format!("link    {path} -> {target}"));
            return Ok(Done::Linked);
        }
        let part = self.temporary(path);
        let order = self.copying.link_order(&path.parent()).await?;
        let made = client.symlink(order, target, &part).await;
        made.map_err(|error| Fault::remote(path, error))?;
        let finished = match self.finish_link(item, &part).await {
            Ok(()) => self.copying.rename(&part, path).await,
            Err(error) => Err(Fault::remote(path, error)),
        };
        if finished.is_err() {
            self.discard(part).await;
        }
        finished.map(|()| Done::Linked)
    }

    /// Times and owner of the link itself, which only an extension can set.
    async fn finish_link(&self, item: &Item, part: &RemotePath) -> Result<(), Error> {
        let client = self.copying.client;
        let times = self.copying.how.preserve.times;
        if !times && self.owner.is_none() {
            return Ok(());
        }
        let owner = match self.owner {
            Some(owner) => owner.attrs(client.lstat(part).await?.owner).owner,
            None => None,
        };
        let attrs = Attrs {
            times: times.then(|| self.times(item)).flatten(),
            owner,
            ..Attrs::default()
        };
        match client.lset_stat(part, attrs).await {
            Err(Error::Unsupported(_)) => {
                let text = "the server cannot set times or owners of links".to_owned();
                self.copying.note(text);
                Ok(())
            }
            set => set,
        }
    }

    fn temporary(&self, path: &RemotePath) -> RemotePath {
        let name = path.file_name().unwrap_or(b"file");
        let name = names::temporary(name, &self.copying.mark);
        path.parent().join(&name)
    }

    async fn file(
        &self,
        at: usize,
        item: &Item,
        path: &RemotePath,
        size: u64,
    ) -> Result<Done, Fault> {
        if !self.in_fresh_dir(item) && self.is_same(at, item, path, size).await? {
            return Ok(Done::Unchanged);
        }
        if self.copying.how.check {
            let size = size_in_words(size);
            self.copying.would(format!("upload  {path} ({size})"));
            return Ok(Done::Copied(item_size(item)));
        }
        if !self.copying.goes_on() {
            return Err(Fault::Stopped);
        }
        let resume = self.copying.how.resume;
        let part = if resume {
            let name = path.file_name().unwrap_or(b"file");
            path.parent().join(&names::resumed(name))
        } else {
            self.temporary(path)
        };
        let sent = self.send(at, item, (&part, path), size).await;
        let sent = match sent {
            Ok(bytes) => {
                let renamed = self.copying.rename(&part, path).await;
                renamed.map(|()| bytes)
            }
            // Asked before the part is taken away, which makes room again.
            Err(fault) => Err(self.copying.explain(fault, path).await),
        };
        let keep = resume && !matches!(sent, Err(Fault::File(FilesCause::Verify, _)));
        match sent {
            Ok(bytes) => Ok(Done::Copied(bytes)),
            Err(fault) => {
                if !keep {
                    self.discard(part).await;
                }
                Err(fault)
            }
        }
    }

    /// Takes away what is not complete. Not to be stopped: it is what stopping waits for.
    async fn discard(&self, part: RemotePath) {
        match self.copying.client.remove(&part).await {
            Err(error) if error.is_final() => {
                self.copying.sums(|sums| sums.moved.left.push(part));
            }
            // It was never made, or the server will not let it go: the failure itself is told.
            Ok(()) | Err(_) => {}
        }
    }

    /// Whether the file on the host is as it would be after the upload.
    async fn is_same(
        &self,
        at: usize,
        item: &Item,
        path: &RemotePath,
        size: u64,
    ) -> Result<bool, Fault> {
        let Some(same) = self.copying.how.only_changed else {
            return Ok(false);
        };
        let attrs = match self
            .copying
            .unless_stopped(self.copying.client.lstat(path))
            .await?
        {
            Ok(attrs) => attrs,
            Err(error) if error.is_final() => return Err(Fault::Client(error)),
            Err(_) => return Ok(false),
        };
        if kind(&attrs) != Kind::File || attrs.size != Some(size) {
            return Ok(false);
        }
        Ok(match same {
            Same::SizeAndTime => {
                attrs.times.map(|(_, modified)| i64::from(modified)) == Some(item.modified)
            }
            Same::Content => {
                let ours = self.sources.sum(self.shared, at).await?;
                self.copying.has_sum(path, ours).await?
            }
        })
    }

    /// Sends a file under a temporary name; gives its size.
    async fn send(
        &self,
        at: usize,
        item: &Item,
        (part, path): (&RemotePath, &RemotePath),
        size: u64,
    ) -> Result<u64, Fault> {
        let how = self.copying.how;
        let flags = if how.resume {
            OpenFlags::UPDATE
        } else {
            OpenFlags::CREATE_NEW
        };
        let mode = how.mode.unwrap_or(item.mode & 0o777);
        let opened = self.copying.client.open(part, flags, Some(mode)).await;
        let handle = opened.map_err(|error| Fault::remote(path, error))?;
        let sent = self.fill(at, item, (&handle, part), path, size).await?;
        if how.verify {
            let ours = self.sources.sum(self.shared, at).await?;
            if !self.copying.has_sum(part, ours).await? {
                let reason = format!("{path}: what was read back differs from what was sent");
                return Err(Fault::File(FilesCause::Verify, reason));
            }
        }
        Ok(sent)
    }

    /// Writes the content, sets what else the file has, compares sizes, and closes it.
    async fn fill(
        &self,
        at: usize,
        item: &Item,
        (handle, part): (&Handle, &RemotePath),
        path: &RemotePath,
        size: u64,
    ) -> Result<u64, Fault> {
        let copying = self.copying;
        let client = copying.client;
        let fault = |error| Fault::remote(path, error);
        let from = if copying.how.resume {
            self.verified_prefix(at, handle, path, size).await?
        } else {
            0
        };
        let sparse = matches!(item.what, What::File { sparse: true, .. });
        // What can be gone on with later has no holes.
        let aid = if copying.how.resume || sparse {
            Aid::none(copying)
        } else {
            let file = second::Shared::Part { handle, path: part };
            Aid::with(copying, file, size)
        };
        let mut writing = Writing::new(copying, handle, path).aided(aid);
        let mut offset = from;
        loop {
            let piece = self.sources.piece(self.shared, at, offset / PIECE);
            let piece = copying.unless_stopped(piece).await??;
            let last = (piece.len() as u64) < PIECE || offset / PIECE * PIECE + PIECE == size;
            let piece = piece.slice((offset % PIECE) as usize..);
            // A hole is left where nothing is written; the end must be.
            if last || !sparse || piece.iter().any(|byte| *byte != 0) {
                writing.write(offset, &piece).await?;
            } else {
                copying.meter.moved(piece.len());
            }
            offset += piece.len() as u64;
            copying.meter.at(|| path.to_string(), offset, size);
            if last {
                break;
            }
        }
        for again in writing.rejoin().await? {
            let piece = self.sources.piece(self.shared, at, again / PIECE);
            let piece = copying.unless_stopped(piece).await??;
            writing.write_again(again, &piece).await?;
        }
        if copying.how.durable || self.owner.is_some() {
            writing.finish().await?;
            self.set_owner(handle, path).await?;
            if copying.how.durable {
                client.sync(handle).await.map_err(fault)?;
            }
            writing = Writing::new(copying, handle, path);
        }
        let found = copying.unless_stopped(self.conclude(item, handle, writing));
        let found = found.await?.map_err(|fault| match fault {
            Ended::Writing(fault) => fault,
            Ended::After(error) => Fault::remote(path, error),
        })?;
        match found.size {
            Some(found) if found != offset => Err(Fault::File(
                FilesCause::Remote,
                format!("{path}: {offset} bytes were sent, the host has {found}"),
            )),
            Some(_) | None => Ok(offset),
        }
    }

    /// Sends what follows the content and awaits all answers. The server answers what concerns one
    /// file in order (draft, section 3), so that the last requests need not wait for the answers
    /// to the first.
    async fn conclude(
        &self,
        item: &Item,
        handle: &Handle,
        writing: Writing<'_>,
    ) -> Result<Attrs, Ended> {
        let client = self.copying.client;
        let set = match self.attrs(item) {
            Some(attrs) => Some(client.send_fset_stat(handle, attrs).await?),
            None => None,
        };
        let found = client.send_fstat(handle).await?;
        let closed = client.send_close(handle.clone()).await?;
        writing.finish().await.map_err(Ended::Writing)?;
        if let Some(set) = set {
            set.done().await?;
        }
        let found = found.attrs().await?;
        closed.done().await?;
        Ok(found)
    }

    /// How much of an earlier attempt can stay: all of it if it is how the file begins, else none.
    async fn verified_prefix(
        &self,
        at: usize,
        handle: &Handle,
        path: &RemotePath,
        size: u64,
    ) -> Result<u64, Fault> {
        let client = self.copying.client;
        let attrs = client.fstat(handle).await;
        let there = attrs.map_err(|error| Fault::remote(path, error))?.size;
        let there = there.unwrap_or(0);
        if there > 0 && there <= size && self.begins_with(at, handle, path, there).await? {
            // What is there is not sent, but it is part of what is done.
            self.copying.meter.moved(there as usize);
            return Ok(there);
        }
        if there > 0 {
            let empty = Attrs {
                size: Some(0),
                ..Attrs::default()
            };
            let cut = client.fset_stat(handle, empty).await;
            cut.map_err(|error| Fault::remote(path, error))?;
        }
        Ok(0)
    }

    async fn begins_with(
        &self,
        at: usize,
        handle: &Handle,
        path: &RemotePath,
        there: u64,
    ) -> Result<bool, Fault> {
        let mut reading = Reading::new(self.copying, handle, path, 0, Some(there));
        let mut offset = 0u64;
        while let Some(theirs) = reading.next().await? {
            let mut theirs = &theirs[..];
            while !theirs.is_empty() {
                let piece = self.sources.piece(self.shared, at, offset / PIECE).await?;
                let ours = &piece[((offset % PIECE) as usize).min(piece.len())..];
                let len = ours.len().min(theirs.len());
                if len == 0 || ours[..len] != theirs[..len] {
                    return Ok(false);
                }
                theirs = &theirs[len..];
                offset += len as u64;
            }
        }
        Ok(offset == there)
    }

    /// What is set on a file besides its content, if anything.
    fn attrs(&self, item: &Item) -> Option<Attrs> {
        let how = self.copying.how;
        let kept = if how.preserve.set_id { 0o7777 } else { 0o777 };
        let mode = how
            .mode
            .or((how.preserve.mode || how.preserve.set_id).then_some(item.mode & kept));
        let attrs = Attrs {
            mode,
            times: self.times(item),
            ..Attrs::default()
        };
        (attrs != Attrs::default()).then_some(attrs)
    }

    fn times(&self, item: &Item) -> Option<(u32, u32)> {
        let how = self.copying.how;
        if !how.preserve.times && how.only_changed != Some(Same::SizeAndTime) {
            return None;
        }
        let seconds = |time: i64| u32::try_from(time).ok();
        let modified = seconds(item.modified);
        if modified.is_none() {
            self.copying.note(format!(
                "{}: SFTP cannot carry its time, which is before 1970 or after 2106",
                printable(&item.path)
            ));
        }
        modified.map(|modified| (seconds(item.accessed).unwrap_or(modified), modified))
    }

    async fn set_owner(&self, handle: &Handle, path: &RemotePath) -> Result<(), Fault> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let client = self.copying.client;
        let fault = |error| Fault::remote(path, error);
        let known = client.fstat(handle).await.map_err(fault)?.owner;
        let attrs = owner.attrs(known);
        client.fset_stat(handle, attrs).await.map_err(fault)
    }

    /// What directories get once everything is in them.
    async fn finish_dirs(&self) -> Result<(), Fault> {
        let how = self.copying.how;
        let wanted = how.preserve.mode || how.preserve.times || self.owner.is_some();
        if !wanted || how.check {
            return Ok(());
        }
        let dirs = self.shared.tree().items.iter().rev();
        for item in dirs.filter(|item| matches!(item.what, What::Dir)) {
            let path = self.path(&item.path);
            let known = match self.owner {
                None => None,
                Some(_) => self.copying.client.stat(&path).await.ok(),
            };
            let owned = self
                .owner
                .map(|owner| owner.attrs(known.and_then(|known| known.owner)));
            let attrs = Attrs {
                mode: how.preserve.mode.then_some(item.mode & 0o777),
                times: how.preserve.times.then(|| self.times(item)).flatten(),
                owner: owned.and_then(|attrs| attrs.owner),
                size: None,
            };
            let set = self.copying.client.set_stat(&path, attrs);
            let set = self.copying.unless_stopped(set).await?;
            if let Err(error) = set
                && !self.copying.failed(Fault::remote(&path, error))
            {
                return Err(Fault::Stopped);
            }
        }
        Ok(())
    }
}

fn item_size(item: &Item) -> u64 {
    match item.what {
        What::File { size, .. } => size,
        What::Dir | What::Link(_) => 0,
    }
}

fn depth(path: &[u8]) -> usize {
    memchr::memchr_iter(b'/', path).count()
}

impl Owner {
    /// SFTP sets both at once, so what is to stay is said again.
    fn attrs(self, known: Option<(u32, u32)>) -> Attrs {
        let user = self.user.or(known.map(|known| known.0));
        let group = self.group.or(known.map(|known| known.1));
        Attrs {
            owner: user.zip(group),
            ..Attrs::default()
        }
    }
}

impl Copying<'_> {
    /// A path whose `~` or `~user` is what the host says it is.
    pub(super) async fn beyond_tilde(&self, path: &Bytes) -> Result<RemotePath, Fault> {
        if !path.starts_with(b"~") {
            return Ok(RemotePath::new(path.clone()));
        }
        let end = memchr::memchr(b'/', path).unwrap_or(path.len());
        let home = RemotePath::new(path.slice(..end));
        let expanded = self.client.expand(&home).await;
        let expanded = expanded.map_err(|error| Fault::remote(&home, error))?;
        match &path[end..] {
            b"" => Ok(expanded),
            rest => Ok(expanded.join(&rest[1..])),
        }
    }

    /// Numbers for the wanted owner: names are looked up in the host's own files, which needs no
    /// command.
    async fn owner(&self) -> Result<Option<Owner>, Fault> {
        let Some(text) = &self.how.owner else {
            return Ok(None);
        };
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Ok(Some(Owner {
            user: self.id(user, "/etc/passwd").await?,
            group: self.id(group, "/etc/group").await?,
        }))
    }

    async fn id(&self, name: &str, file: &'static str) -> Result<Option<u32>, Fault> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        let path = RemotePath::new(Bytes::from_static(file.as_bytes()));
        let fault = |error| {
            let reason = format!("the number of `{name}` is not known: {path}: {error}");
            Fault::File(FilesCause::Remote, reason)
        };
        let handle = self.client.open(&path, OpenFlags::READ, None).await;
        let handle = handle.map_err(fault)?;
        let mut content = Vec::new();
        let mut reading = Reading::new(self, &handle, &path, 0, None);
        while let Some(piece) = reading.next().await? {
            content.extend_from_slice(&piece);
        }
        close_quietly(self.client, handle.clone())
            .await
            .map_err(Fault::Client)?;
        let content = String::from_utf8_lossy(&content);
        let found = content.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        });
        match found {
            Some(number) => Ok(Some(number)),
            None => {
                let reason = format!("`{name}` is not in the host's {file}; give its number");
                Err(Fault::File(FilesCause::Missing, reason))
            }
        }
    }
}
