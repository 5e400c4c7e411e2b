//! From a host to here.
//!
//! One side walks the host's directories and makes them here, the other copies the files that are
//! found. Nothing that the server says is a path here: a name is checked to be one name and then
//! looked up in a directory that is open.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::delete::{self, Superfluous};
use super::local::{Finish, Folder, Part, without_umask};
use super::remote::{Sum, kind};
use super::second::{self, Aid};
use super::stream::Reading;
use super::{Copying, FILES_AT_ONCE, Fault, Moved, blocking};
use crate::listing::Kind;
use crate::outcome::FilesCause;
use crate::sftp::walk::{Pages, close_quietly, roots};
use crate::sftp::{Attrs, OpenFlags, RemotePath, check_name};
use crate::text::{printable, size as size_in_words};
use crate::transfer::{Download, Same, Symlinks};

/// Files that were found and wait for their turn.
const WAITING: usize = 1024;
/// Directories that are read at once.
const DIRS_AT_ONCE: usize = 4;
/// How many links to directories may follow each other on one path.
const MOST_LINKS: usize = 64;
/// Bytes that are written to the disk at once.
const WRITE: usize = 1 << 20;

/// Downloads. What goes wrong is in the result.
pub async fn download(copying: Copying<'_>, download: &Download) -> Moved {
    let down = Down {
        copying: &copying,
        download,
        later: Mutex::default(),
    };
    if let Err(fault) = down.run().await {
        copying.failed(fault);
    }
    copying.into_moved()
}

struct Down<'a> {
    copying: &'a Copying<'a>,
    download: &'a Download,
    later: Mutex<Later>,
}

/// What is done when all files are there.
#[derive(Default)]
struct Later {
    /// In the order in which they were entered.
    dirs: Vec<DirAttrs>,
    superfluous: Vec<Superfluous>,
}

/// What a directory here gets once all is in it.
struct DirAttrs {
    folder: Folder,
    mode: Option<u32>,
    times: Option<(u32, u32)>,
}

/// A directory here, unless it is missing and this is only a look.
type Place = Option<Folder>;

/// A file or link on the host that is to be copied.
struct Found {
    place: Place,
    name: Bytes,
    remote: RemotePath,
    attrs: Attrs,
}

/// A directory on the host that is to be copied.
struct Dir {
    place: Place,
    /// Its path here, for people.
    shown: String,
    remote: RemotePath,
    /// Its path below the source.
    below: Bytes,
    /// What it was said to be.
    attrs: Attrs,
    /// Real paths of the directories above that were reached by links.
    through: Arc<Vec<RemotePath>>,
}

/// What became of one file.
enum Done {
    Copied(u64),
    Linked,
    Unchanged,
}

impl Down<'_> {
    async fn run(&self) -> Result<(), Fault> {
        let (found, files) = mpsc::channel(WAITING);
        let finding = async {
            let done = self.find(found).await;
            self.copying.meter.found_all();
            done
        };
        let (done, ()) = tokio::join!(finding, self.copy_all(files));
        done?;
        if !self.copying.goes_on() {
            return Err(Fault::Stopped);
        }
        let later = std::mem::take(&mut *self.later.lock().unwrap_or_else(PoisonError::into_inner));
        self.finish_dirs(later.dirs).await;
        delete::local(self.copying, later.superfluous).await
    }

    fn later(&self, change: impl FnOnce(&mut Later)) {
        change(&mut self.later.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Walks what the sources name and sends what there is to copy.
    async fn find(&self, found: mpsc::Sender<Found>) -> Result<(), Fault> {
        let mut waiting = Vec::new();
        let mut starts = Vec::new();
        for source in &self.download.sources {
            let path = self.copying.beyond_tilde(source).await?;
            let expanded = self
                .copying
                .unless_stopped(roots(self.copying.client, &path));
            match expanded.await? {
                Ok(paths) => starts.extend(paths),
                Err(error) => {
                    if !self.copying.failed(Fault::remote(&path, error)) {
                        return Err(Fault::Stopped);
                    }
                }
            }
        }
        let single = starts.len() == 1 && !self.download.whole_paths;
        for start in starts {
            match self.root(start, single, &found).await {
                Ok(dir) => waiting.extend(dir),
                Err(fault) if self.copying.failed(fault.clone()) => {}
                Err(fault) => return Err(fault),
            }
        }
        waiting.reverse();
        let mut reading = FuturesUnordered::new();
        loop {
            while reading.len() < DIRS_AT_ONCE
                && let Some(dir) = waiting.pop()
            {
                reading.push(self.read(dir, &found));
            }
            match self.copying.unless_stopped(reading.next()).await? {
                None => return Ok(()),
                Some(Ok(dirs)) => waiting.extend(dirs),
                Some(Err(fault)) if self.copying.failed(fault.clone()) => {}
                Some(Err(fault)) => return Err(fault),
            }
        }
    }

    /// A source itself: sent where it is a file, given back where it is a directory.
    async fn root(
        &self,
        remote: RemotePath,
        single: bool,
        found: &mpsc::Sender<Found>,
    ) -> Result<Option<Dir>, Fault> {
        let client = self.copying.client;
        let attrs = self.copying.unless_stopped(client.stat(&remote)).await?;
        let attrs = attrs.map_err(|error| Fault::remote(&remote, error))?;
        let is_dir = kind(&attrs) == Kind::Dir;
        let mut folder = self.download.dest.clone();
        let mut steps = Vec::new();
        if self.download.whole_paths {
            steps = self.whole_path(&remote).await?;
            if !is_dir {
                steps.pop();
            }
        }
        let name = match remote.file_name() {
            Some(name) => Bytes::copy_from_slice(name),
            // `/`, `.` and `..` have no name of their own.
            None => client
                .real_path(&remote)
                .await
                .map_err(|error| Fault::remote(&remote, error))?
                .file_name()
                .map(Bytes::copy_from_slice)
                .unwrap_or_default(),
        };
        let mut local_name = name.clone();
        let whole = self.download.whole_paths;
        if is_dir && !whole && !remote.names_directory() && !name.is_empty() {
            steps.push(name);
        } else if !is_dir && single && !ends_in_slash(&folder) && !folder.is_dir() {
            // The one file gets the very path.
            let named = folder.file_name().map(std::ffi::OsStr::as_encoded_bytes);
            if let Some(named) = named {
                local_name = Bytes::copy_from_slice(named);
                folder.pop();
            }
        }
        if folder.as_os_str().is_empty() {
            folder.push(".");
        }
        let place = self.place(folder.clone(), steps.clone()).await?;
        if is_dir {
            let mut shown = folder;
            shown.extend(steps.iter().map(|step| printable(step).into_owned()));
            return Ok(Some(Dir {
                place,
                shown: printable(shown.as_os_str().as_encoded_bytes()).into_owned(),
                remote,
                below: Bytes::new(),
                attrs,
                through: Arc::default(),
            }));
        }
        self.send(found, place, local_name, remote, attrs).await?;
        Ok(None)
    }

    /// The names on the way to a path, none of which leads upward.
    async fn whole_path(&self, remote: &RemotePath) -> Result<Vec<Bytes>, Fault> {
        let steps = |path: &RemotePath| -> Vec<Bytes> {
            let parts = path.as_bytes().split(|b| *b == b'/');
            let parts = parts.filter(|part| !part.is_empty() && *part != b".");
            parts.map(Bytes::copy_from_slice).collect()
        };
        let written = steps(remote);
        if !written.iter().any(|step| step == "..") {
            return Ok(written);
        }
        let real = self.copying.client.real_path(remote).await;
        let real = steps(&real.map_err(|error| Fault::remote(remote, error))?);
        match real.iter().find_map(|step| check_name(step).err()) {
            None => Ok(real),
            Some(why) => Err(bad_name(remote, b"..", why)),
        }
    }

    /// A directory below one that the person who runs us named.
    async fn place(&self, base: std::path::PathBuf, steps: Vec<Bytes>) -> Result<Place, Fault> {
        let check = self.copying.how.check;
        let shown = printable(base.as_os_str().as_encoded_bytes()).into_owned();
        let opened = blocking(move || {
            if check && !base.is_dir() {
                return Ok(None);
            }
            let mut folder = Folder::make(&base)?;
            for step in &steps {
                if !check {
                    folder = folder.make_dir(step)?.0;
                    continue;
                }
                match folder.enter(step) {
                    Ok(inside) => folder = inside,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            Ok(Some(folder))
        });
        opened.await.map_err(|error| Fault::local(shown, &error))
    }

    async fn send(
        &self,
        found: &mpsc::Sender<Found>,
        place: Place,
        name: Bytes,
        remote: RemotePath,
        attrs: Attrs,
    ) -> Result<(), Fault> {
        match kind(&attrs) {
            Kind::File | Kind::Unknown => self.copying.meter.found(attrs.size.unwrap_or(0)),
            Kind::Link => {}
            kind => {
                let reason = format!("{remote}: is a {}", kind.word());
                return Err(Fault::File(FilesCause::Remote, reason));
            }
        }
        let file = Found {
            place,
            name,
            remote,
            attrs,
        };
        // Whoever copies has ended only if we are told to stop, which is seen soon.
        let _ = self.copying.unless_stopped(found.send(file)).await?;
        Ok(())
    }

    /// Reads a directory: sends its files, gives the directories in it.
    async fn read(&self, dir: Dir, found: &mpsc::Sender<Found>) -> Result<Vec<Dir>, Fault> {
        let client = self.copying.client;
        let fault = |error| Fault::remote(&dir.remote, error);
        let opened = self.copying.unless_stopped(client.open_dir(&dir.remote));
        let handle = opened.await?.map_err(fault)?;
        if let Some(folder) = &dir.place {
            self.note_attrs(folder, &dir.attrs);
        }
        let mut names = self.download.how.delete.then(HashSet::new);
        let mut dirs = Vec::new();
        let mut pages = Pages::new(client, &handle);
        let mut whole = true;
        while let Some(page) = self
            .copying
            .unless_stopped(pages.next())
            .await?
            .map_err(fault)?
        {
            for named in page {
                if named.name == "." || named.name == ".." {
                    continue;
                }
                let taken = match check_name(&named.name) {
                    Ok(()) => {
                        if let Some(names) = &mut names {
                            names.insert(named.name.to_vec());
                        }
                        self.take(&dir, named.name, named.attrs, found).await
                    }
                    Err(why) => Err(bad_name(&dir.remote, &named.name, why)),
                };
                match taken {
                    Ok(inside) => dirs.extend(inside),
                    Err(fault) if self.copying.failed(fault.clone()) => whole = false,
                    Err(fault) => return Err(fault),
                }
            }
        }
        close_quietly(client, handle.clone())
            .await
            .map_err(Fault::Client)?;
        if let (Some(names), Some(folder), true) = (names, &dir.place, whole) {
            self.find_superfluous(folder, &dir, names).await?;
        }
        Ok(dirs)
    }

    /// One name in a directory.
    async fn take(
        &self,
        dir: &Dir,
        name: Bytes,
        mut attrs: Attrs,
        found: &mpsc::Sender<Found>,
    ) -> Result<Option<Dir>, Fault> {
        let below = super::tree::join(&dir.below, &name);
        if self.copying.filter.excludes(&name, &below) {
            return Ok(None);
        }
        let remote = dir.remote.join(&name);
        let client = self.copying.client;
        if kind(&attrs) == Kind::Unknown {
            let asked = self.copying.unless_stopped(client.lstat(&remote)).await?;
            attrs = asked.map_err(|error| Fault::remote(&remote, error))?;
        }
        let mut through = Arc::clone(&dir.through);
        if kind(&attrs) == Kind::Link {
            match self.copying.how.symlinks {
                Symlinks::Skip => return Ok(None),
                Symlinks::Copy => {}
                Symlinks::Follow => {
                    let asked = self.copying.unless_stopped(client.stat(&remote)).await?;
                    attrs = asked.map_err(|error| Fault::remote(&remote, error))?;
                    if kind(&attrs) == Kind::Dir {
                        through = self.follow(&remote, &through).await?;
                    }
                }
            }
        }
        if kind(&attrs) != Kind::Dir {
            self.send(found, dir.place.clone(), name, remote, attrs)
                .await?;
            return Ok(None);
        }
        let shown = format!("{}/{}", dir.shown, printable(&name));
        let place = match &dir.place {
            Some(folder) => self.make_dir(folder.clone(), name, &shown).await?,
            None => None,
        };
        if place.is_none() {
            self.copying.would(format!("make    {shown}/"));
        }
        Ok(Some(Dir {
            place,
            shown,
            remote,
            below,
            attrs,
            through,
        }))
    }

    /// A directory behind a link; refused when it is one that we are in already.
    async fn follow(
        &self,
        remote: &RemotePath,
        through: &Arc<Vec<RemotePath>>,
    ) -> Result<Arc<Vec<RemotePath>>, Fault> {
        let real = self.copying.client.real_path(remote);
        let real = self.copying.unless_stopped(real).await?;
        let real = real.map_err(|error| Fault::remote(remote, error))?;
        let above = self.copying.client.real_path(&remote.parent()).await;
        let above = above.map_err(|error| Fault::remote(remote, error))?;
        let mut start = real.as_bytes().to_vec();
        if !start.ends_with(b"/") {
            start.push(b'/');
        }
        let inside = above == real || above.as_bytes().starts_with(&start);
        if inside || through.contains(&real) || through.len() >= MOST_LINKS {
            let reason = format!("{remote}: leads back to a directory that holds it");
            return Err(Fault::File(FilesCause::Remote, reason));
        }
        Ok(Arc::new([&through[..], &[real]].concat()))
    }

    async fn make_dir(&self, folder: Folder, name: Bytes, shown: &str) -> Result<Place, Fault> {
        let check = self.copying.how.check;
        let made = blocking(move || {
            if check {
                return match folder.enter(&name) {
                    Ok(inside) => Ok(Some((inside, false))),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                };
            }
            folder.make_dir(&name).map(Some)
        });
        let made = made.await.map_err(|error| Fault::local(shown, &error))?;
        if let Some((_, true)) = made {
            self.copying.count(|tally| tally.dirs += 1);
        }
        Ok(made.map(|(inside, _)| inside))
    }

    fn note_attrs(&self, folder: &Folder, attrs: &Attrs) {
        let how = self.copying.how;
        let mode = attrs.mode.filter(|_| how.preserve.mode);
        // Without it nobody could write into it before all is there.
        let mode = mode.map(|mode| mode & 0o777);
        let times = attrs.times.filter(|_| how.preserve.times);
        if (mode.is_some() || times.is_some()) && !how.check {
            let folder = folder.clone();
            let attrs = DirAttrs {
                folder,
                mode,
                times,
            };
            self.later(|later| later.dirs.push(attrs));
        }
    }

    async fn finish_dirs(&self, dirs: Vec<DirAttrs>) {
        if dirs.is_empty() {
            return;
        }
        let set = blocking(move || {
            let set = dirs.iter().rev();
            let set = set.map(|dir| dir.folder.set(dir.mode, dir.times));
            set.fold(Ok(()), Result::and)
        });
        if let Err(error) = set.await {
            self.copying.failed(Fault::local("a directory", &error));
        }
    }

    async fn find_superfluous(
        &self,
        folder: &Folder,
        dir: &Dir,
        names: HashSet<Vec<u8>>,
    ) -> Result<(), Fault> {
        let inside = folder.clone();
        let here = blocking(move || inside.names()).await;
        let here = here.map_err(|error| Fault::local(&dir.shown, &error))?;
        let old = here.into_iter().filter(|name| !names.contains(name));
        let old = old.map(|name| Superfluous {
            folder: folder.clone(),
            below: super::tree::join(&dir.below, &name),
            shown: format!("{}/{}", dir.shown, printable(&name)),
            name,
        });
        let old: Vec<Superfluous> = old.collect();
        self.later(|later| later.superfluous.extend(old));
        Ok(())
    }

    async fn copy_all(&self, mut files: mpsc::Receiver<Found>) {
        let mut copying = FuturesUnordered::new();
        let mut more = true;
        while more || !copying.is_empty() {
            tokio::select! {
                file = files.recv(), if more && copying.len() < FILES_AT_ONCE => match file {
                    Some(file) if self.copying.goes_on() => copying.push(self.one(file)),
                    Some(_) => {}
                    None => more = false,
                },
                Some(()) = copying.next() => {}
            }
        }
    }

    async fn one(&self, file: Found) {
        let size = file.attrs.size.unwrap_or(0);
        let is_link = kind(&file.attrs) == Kind::Link;
        let done = if is_link {
            self.link(file).await
        } else {
            self.file(file).await
        };
        match done {
            Ok(Done::Copied(bytes)) => self.copying.count(|tally| {
                tally.files += 1;
                tally.bytes += bytes;
            }),
            Ok(Done::Linked) => self.copying.count(|tally| tally.links += 1),
            Ok(Done::Unchanged) => {
                if !is_link {
                    self.copying.meter.spared(size);
                }
                self.copying.count(|tally| tally.unchanged += 1);
            }
            Err(fault) => {
                self.copying.failed(fault);
            }
        }
        if !is_link {
            self.copying.meter.file_done();
        }
    }

    async fn link(&self, file: Found) -> Result<Done, Fault> {
        let client = self.copying.client;
        let target = self.copying.unless_stopped(client.read_link(&file.remote));
        let target = target.await?;
        let target = target.map_err(|error| Fault::remote(&file.remote, error))?;
        if let Err(why @ ("a name with a NUL in it" | "an empty name")) =
            check_name(target.as_bytes())
        {
            return Err(bad_name(&file.remote, target.as_bytes(), why));
        }
        let check = self.copying.how.check;
        let times = file.attrs.times.filter(|_| self.copying.how.preserve.times);
        let (name, mark) = (file.name.clone(), self.copying.mark.clone());
        let bytes = target.bytes();
        let Some(folder) = file.place else {
            self.copying.would(format!("link    {}", file.remote));
            return Ok(Done::Linked);
        };
        let made = blocking(move || {
            let there = folder.status(&name)?.map(|status| status.kind);
            if there == Some(Kind::Link) && folder.read_link(&name)? == bytes[..] {
                return Ok(false);
            }
            if !check {
                folder.make_link(&bytes, &name, times, &mark)?;
            }
            Ok(true)
        });
        match made.await {
            Ok(false) => Ok(Done::Unchanged),
            Ok(true) => {
                if check {
                    let line = format!("link    {} -> {target}", file.remote);
                    self.copying.would(line);
                }
                Ok(Done::Linked)
            }
            Err(error) => Err(Fault::local(&file.remote, &error)),
        }
    }

    async fn file(&self, file: Found) -> Result<Done, Fault> {
        if self.is_same(&file).await? {
            return Ok(Done::Unchanged);
        }
        if self.copying.how.check {
            let size = file.attrs.size.unwrap_or(0);
            let words = size_in_words(size);
            self.copying
                .would(format!("download  {} ({words})", file.remote));
            return Ok(Done::Copied(size));
        }
        let Some(folder) = &file.place else {
            return Ok(Done::Unchanged);
        };
        if !self.copying.goes_on() {
            return Err(Fault::Stopped);
        }
        let client = self.copying.client;
        let opened = client.open(&file.remote, OpenFlags::READ, None).await;
        let handle = opened.map_err(|error| Fault::remote(&file.remote, error))?;
        let mut arriving = Arriving {
            down: self,
            file: &file,
            folder,
            handle: &handle,
        };
        let arrived = arriving.arrive().await;
        let closed = close_quietly(client, handle.clone()).await;
        let bytes = arrived?;
        closed.map_err(Fault::Client)?;
        Ok(Done::Copied(bytes))
    }

    async fn is_same(&self, file: &Found) -> Result<bool, Fault> {
        let (Some(same), Some(folder)) = (self.copying.how.only_changed, &file.place) else {
            return Ok(false);
        };
        let (inside, name) = (folder.clone(), file.name.clone());
        let there = blocking(move || inside.status(&name)).await;
        let there = there.map_err(|error| Fault::local(&file.remote, &error))?;
        let Some(there) = there.filter(|there| there.kind == Kind::File) else {
            return Ok(false);
        };
        if file.attrs.size != Some(there.size) {
            return Ok(false);
        }
        Ok(match same {
            Same::SizeAndTime => {
                file.attrs.times.map(|(_, modified)| i64::from(modified)) == Some(there.modified)
            }
            Same::Content => {
                let (folder, name) = (folder.clone(), file.name.clone());
                let ours = blocking(move || sum_of(&mut folder.read(&name)?)).await;
                let ours = ours.map_err(|error| Fault::local(&file.remote, &error))?;
                self.copying.has_sum(&file.remote, ours).await?
            }
        })
    }
}

/// One file that is open on the host.
struct Arriving<'a> {
    down: &'a Down<'a>,
    file: &'a Found,
    folder: &'a Folder,
    handle: &'a crate::sftp::Handle,
}

impl Arriving<'_> {
    fn local(&self, error: &std::io::Error) -> Fault {
        Fault::local(&self.file.remote, error)
    }

    fn finish(&self, attrs: &Attrs) -> Finish {
        let how = self.down.copying.how;
        let kept = if how.preserve.set_id { 0o7777 } else { 0o777 };
        let mode = attrs.mode.unwrap_or(0o644) & kept;
        let exact = how.preserve.mode || how.preserve.set_id;
        let times = how.preserve.times || how.only_changed == Some(Same::SizeAndTime);
        Finish {
            mode: how.mode.unwrap_or(if exact {
                mode
            } else {
                without_umask(mode & 0o777)
            }),
            times: attrs.times.filter(|_| times),
            durable: how.durable,
            backup: how.backup,
        }
    }

    /// Brings the file here under its name; gives its size.
    async fn arrive(&mut self) -> Result<u64, Fault> {
        let copying = self.down.copying;
        let hint = self.file.attrs.size.unwrap_or(0);
        let most = u64::from(copying.client.read_size());
        if hint > 0 && hint < most && !copying.how.resume {
            self.arrive_whole(hint).await
        } else {
            self.arrive_large().await
        }
    }

    /// A file of any size, known or not.
    async fn arrive_large(&mut self) -> Result<u64, Fault> {
        let copying = self.down.copying;
        let client = copying.client;
        let found = copying.unless_stopped(client.fstat(self.handle)).await?;
        let attrs = found.map_err(|error| Fault::remote(&self.file.remote, error))?;
        let size = attrs.size.filter(|size| *size > 0);
        let (folder, name) = (self.folder.clone(), self.file.name.clone());
        let (resume, mark) = (copying.how.resume, copying.mark.clone());
        let part = blocking(move || {
            if resume {
                folder.go_on(&name)
            } else {
                folder.begin(&name, &mark)
            }
        });
        let part = part.await.map_err(|error| self.local(&error))?;
        let (part, from) = self.verified_prefix(part, size.unwrap_or(0)).await?;
        self.arrive_in_pieces(part, from, size, attrs).await
    }

    /// A small file: asked for at once, written at once.
    async fn arrive_whole(&mut self, hint: u64) -> Result<u64, Fault> {
        let copying = self.down.copying;
        let client = copying.client;
        let remote = &self.file.remote;
        let fault = |error| Fault::remote(remote, error);
        let mut reading = Reading::new(copying, self.handle, remote, 0, Some(hint));
        let both = async {
            reading.ask_ahead().await?;
            // Answered after the reading, so that it is of the same moment or a later one.
            let attrs = client.send_fstat(self.handle).await.map_err(fault)?;
            let mut pieces = Vec::with_capacity(1);
            while let Some(piece) = reading.next().await? {
                copying.meter.moved(piece.len());
                pieces.push(piece);
            }
            Ok((pieces, attrs.attrs().await.map_err(fault)?))
        };
        let (pieces, attrs): (Vec<Bytes>, Attrs) = copying.unless_stopped(both).await??;
        let size: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let now = attrs.size.unwrap_or(size);
        if size == hint && now > size {
            // It grew after it was listed.
            return self.arrive_large().await;
        }
        if size < hint && now != size {
            self.check_source(size, hint, (&attrs, &attrs))?;
        }
        self.compare(pieces.iter()).await?;
        let finish = self.finish(&attrs);
        let (folder, name, mark) = (
            self.folder.clone(),
            self.file.name.clone(),
            copying.mark.clone(),
        );
        let written = blocking(move || {
            let mut part = folder.begin(&name, &mark)?;
            part.write(0, &pieces)?;
            part.finish(&name, size, finish)
        });
        written.await.map_err(|error| self.local(&error))?;
        Ok(size)
    }

    async fn arrive_in_pieces(
        &mut self,
        mut part: Part,
        from: u64,
        size: Option<u64>,
        before: Attrs,
    ) -> Result<u64, Fault> {
        let copying = self.down.copying;
        let remote = &self.file.remote;
        let source = second::Shared::Source {
            path: remote,
            attrs: before,
        };
        let aid = Aid::with(copying, source, size.unwrap_or(0).saturating_sub(from));
        let mut reading = Reading::new(copying, self.handle, remote, from, size).aided(aid);
        let mut offset = from;
        let mut batch = Vec::new();
        let mut batched = 0;
        let mut hasher = copying.how.verify.then(Sha256::new);
        loop {
            let piece = reading.next().await?;
            let last = piece.is_none();
            if let Some(piece) = piece {
                copying.meter.moved(piece.len());
                batched += piece.len();
                batch.push(piece);
            }
            if last || batched >= WRITE {
                let pieces = std::mem::take(&mut batch);
                if let Some(hasher) = &mut hasher {
                    pieces.iter().for_each(|piece| hasher.update(piece));
                }
                let written = blocking(move || {
                    part.write(offset, &pieces)?;
                    Ok(part)
                });
                part = written.await.map_err(|error| self.local(&error))?;
                offset += batched as u64;
                batched = 0;
                copying
                    .meter
                    .at(|| remote.to_string(), offset, size.unwrap_or(0));
            }
            if last {
                break;
            }
        }
        reading.leave().await;
        let after = copying.client.fstat(self.handle);
        let after = copying.unless_stopped(after).await?;
        let after = after.map_err(|error| Fault::remote(remote, error))?;
        self.check_source(offset, size.unwrap_or(offset), (&before, &after))?;
        if let (Some(hasher), 0) = (hasher, from) {
            self.check_sum(hasher.finalize().into()).await?;
        }
        let (name, finish) = (self.file.name.clone(), self.finish(&before));
        let named = blocking(move || part.finish(&name, offset, finish));
        named.await.map_err(|error| self.local(&error))?;
        Ok(offset)
    }

    /// Whether the source was the same all the time. One that only grew, as logs do, is complete
    /// up to where it ended when it was opened.
    fn check_source(
        &self,
        read: u64,
        wanted: u64,
        (before, after): (&Attrs, &Attrs),
    ) -> Result<(), Fault> {
        let remote = &self.file.remote;
        let now = after.size.unwrap_or(read);
        let modified = |attrs: &Attrs| attrs.times.map(|times| times.1);
        let why = if read < wanted && now >= wanted {
            // The server ended the data early and says that there is more.
            let reason = format!("{remote}: {read} bytes came of {wanted}");
            return Err(Fault::File(FilesCause::Protocol, reason));
        } else if read < wanted || (now > 0 && now < read) {
            "shrank while it was read"
        } else if now == read && wanted > 0 && modified(before) != modified(after) {
            "changed while it was read"
        } else {
            if now > read {
                self.down.copying.note(format!(
                    "{remote}: grew while it was read; its first {read} bytes are here"
                ));
            }
            return Ok(());
        };
        Err(Fault::File(FilesCause::Changed, format!("{remote}: {why}")))
    }

    async fn compare(&self, pieces: impl Iterator<Item = &Bytes>) -> Result<(), Fault> {
        if !self.down.copying.how.verify {
            return Ok(());
        }
        let mut hasher = Sha256::new();
        pieces.for_each(|piece| hasher.update(piece));
        self.check_sum(hasher.finalize().into()).await
    }

    async fn check_sum(&self, ours: Sum) -> Result<(), Fault> {
        let remote = &self.file.remote;
        if self.down.copying.has_sum(remote, ours).await? {
            return Ok(());
        }
        let reason = format!("{remote}: what came differs from what the host has");
        Err(Fault::File(FilesCause::Verify, reason))
    }

    /// How much of an earlier attempt can stay: all of it if it is how the file begins, else none.
    async fn verified_prefix(&self, mut part: Part, size: u64) -> Result<(Part, u64), Fault> {
        let copying = self.down.copying;
        if !copying.how.resume {
            return Ok((part, 0));
        }
        let (there, file) = part.so_far().map_err(|error| self.local(&error))?;
        let mut same = there > 0 && there <= size;
        if same {
            let path = &self.file.remote;
            let mut reading = Reading::new(copying, self.handle, path, 0, Some(there));
            let mut offset = 0;
            while same && let Some(theirs) = reading.next().await? {
                let (from, len) = (offset, theirs.len());
                let file = file.try_clone().map_err(|error| self.local(&error))?;
                let compared = blocking(move || {
                    use std::os::unix::fs::FileExt;
                    let mut ours = vec![0; len];
                    file.read_exact_at(&mut ours, from)?;
                    Ok(ours == theirs[..])
                });
                same = compared.await.map_err(|error| self.local(&error))?;
                offset += len as u64;
            }
            same &= offset == there;
        }
        let keep = if same { there } else { 0 };
        copying.meter.moved(keep as usize);
        part.keep(keep).map_err(|error| self.local(&error))?;
        Ok((part, keep))
    }
}

fn bad_name(dir: &RemotePath, name: &[u8], why: &str) -> Fault {
    let reason = format!("{dir}: the server gave {why}: {:?}", printable(name));
    Fault::File(FilesCause::Protocol, reason)
}

fn ends_in_slash(path: &std::path::Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// The checksum of a file here.
fn sum_of(file: &mut std::fs::File) -> std::io::Result<Sum> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(file, &mut buffer)?;
        if count == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..count]);
    }
}
