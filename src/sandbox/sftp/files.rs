//! The requests of version 3 (draft-ietf-secsh-filexfer-02), each answered by the file system as
//! OpenSSH's sftp-server.c answers it. Work that can wait for a disk is done on blocking threads.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use russh_sftp::protocol::{
    Attrs, Data, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status,
    StatusCode, Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::attributes::{self, Accounts, Target};
use super::{LONGEST_DATA, MOST_HANDLES, extensions};
use crate::sandbox::command::Place;

/// Entries of one page of a listing, as in OpenSSH (sftp-server.c, `process_readdir`).
const PAGE: usize = 100;
/// Links followed before a path counts as a loop, as in Linux.
const MOST_LINKS: usize = 40;

/// One session: its open handles, and where its relative paths start.
pub(super) struct Files {
    pub(super) home: PathBuf,
    pub(super) accounts: Arc<Accounts>,
    open: HashMap<String, Open>,
    next: u64,
    /// A fleet that ends waits for the last request, which may still write into its directory.
    _of_fleet: TaskTrackerToken,
}

enum Open {
    File(Arc<File>),
    Directory(Listing),
}

/// A directory that is being read.
struct Listing {
    path: PathBuf,
    /// `.` and `..`, which the standard library leaves out, until they have been told.
    dots: bool,
    entries: fs::ReadDir,
}

impl Files {
    pub(super) fn new(place: &Place) -> Self {
        Self {
            home: place.member.home.clone(),
            accounts: Arc::default(),
            open: HashMap::new(),
            next: 0,
            _of_fleet: place.ground.tasks.token(),
        }
    }

    /// The path that a name means.
    pub(super) fn resolve(&self, name: &str) -> Result<PathBuf, StatusReply> {
        if name.is_empty() {
            return Err(StatusCode::NoSuchFile.into());
        }
        whole(name)?;
        Ok(self.home.join(name))
    }

    pub(super) fn file(&self, handle: &str) -> Result<Arc<File>, StatusReply> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            Some(Open::Directory(_)) | None => Err(no_such_handle()),
        }
    }

    fn keep(&mut self, id: u32, opened: Open) -> Handle {
        let handle = format!("{:x}", self.next);
        self.next += 1;
        self.open.insert(handle.clone(), opened);
        Handle { id, handle }
    }

    fn room(&self) -> Result<(), StatusReply> {
        if self.open.len() < MOST_HANDLES {
            Ok(())
        } else {
            Err(StatusCode::Failure.with_message("too many open handles"))
        }
    }

    /// Sets attributes of what is open, which may be a directory.
    async fn set_open(&self, handle: &str, attrs: FileAttributes) -> Result<(), StatusReply> {
        match self.open.get(handle) {
            Some(Open::File(file)) => {
                let file = Arc::clone(file);
                blocking(move || attributes::set(Target::Open(&file), &attrs)).await
            }
            Some(Open::Directory(listing)) => {
                let path = listing.path.clone();
                blocking(move || attributes::set(Target::Path(&path), &attrs)).await
            }
            None => Err(no_such_handle()),
        }
    }

    /// Runs work on one path that answers with nothing but its success.
    async fn on_path(
        &self,
        id: u32,
        name: &str,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<Status, StatusReply> {
        let path = self.resolve(name)?;
        blocking(move || work(&path)).await?;
        Ok(done(id))
    }

    async fn metadata_of(
        &self,
        id: u32,
        name: &str,
        read: fn(PathBuf) -> io::Result<fs::Metadata>,
    ) -> Result<Attrs, StatusReply> {
        let path = self.resolve(name)?;
        let metadata = blocking(move || read(path)).await?;
        Ok(Attrs {
            id,
            attrs: attributes::of(&metadata),
        })
    }
}

impl Handler for Files {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    /// Whatever version the client speaks is answered with 3, as OpenSSH does.
    async fn init(
        &mut self,
        _version: u32,
        _extensions: HashMap<String, String>,
    ) -> Result<Version, StatusReply> {
        self.accounts = blocking(|| Ok(Arc::new(Accounts::read()))).await?;
        let mut version = Version::new();
        version.extensions = extensions::offered();
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        pflags: OpenFlags,
        attrs: FileAttributes,
    ) -> Result<Handle, StatusReply> {
        self.room()?;
        let path = self.resolve(&filename)?;
        let file = blocking(move || {
            let mode = attrs.permissions.unwrap_or(0o666) & 0o7777;
            let mode = Mode::from_raw_mode(mode);
            Ok(File::from(rustix::fs::open(path, flags_of(pflags), mode)?))
        });
        let opened = Open::File(Arc::new(file.await?));
        Ok(self.keep(id, opened))
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusReply> {
        let opened = self.open.remove(&handle).ok_or_else(no_such_handle)?;
        blocking(move || {
            drop(opened);
            Ok(())
        })
        .await?;
        Ok(done(id))
    }

    async fn read(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        len: u32,
    ) -> Result<Data, StatusReply> {
        let file = self.file(&handle)?;
        let data = blocking(move || {
            let mut data = vec![0; len.min(LONGEST_DATA) as usize];
            let read = file.read_at(&mut data, offset)?;
            data.truncate(read);
            Ok(data)
        })
        .await?;
        if data.is_empty() {
            return Err(StatusCode::Eof.into());
        }
        Ok(Data { id, data })
    }

    /// What was opened to append is written at its end, whatever the offset says (open(2)).
    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        blocking(move || file.write_all_at(&data, offset)).await?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        self.metadata_of(id, &path, fs::symlink_metadata).await
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        self.metadata_of(id, &path, fs::metadata).await
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusReply> {
        let file = self.file(&handle)?;
        let metadata = blocking(move || file.metadata()).await?;
        Ok(Attrs {
            id,
            attrs: attributes::of(&metadata),
        })
    }

    async fn setstat(
        &mut self,
        id: u32,
        path: String,
        attrs: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let set = move |path: &Path| attributes::set(Target::Path(path), &attrs);
        self.on_path(id, &path, set).await
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        handle: String,
        attrs: FileAttributes,
    ) -> Result<Status, StatusReply> {
        self.set_open(&handle, attrs).await?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusReply> {
        self.room()?;
        let path = self.resolve(&path)?;
        let listing = blocking(move || {
            let entries = fs::read_dir(&path)?;
            Ok(Listing {
                path,
                dots: true,
                entries,
            })
        });
        let opened = Open::Directory(listing.await?);
        Ok(self.keep(id, opened))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusReply> {
        let mut listing = match self.open.remove_entry(&handle) {
            Some((_, Open::Directory(listing))) => listing,
            Some((name, file @ Open::File(_))) => {
                self.open.insert(name, file);
                return Err(no_such_handle());
            }
            None => return Err(no_such_handle()),
        };
        let accounts = Arc::clone(&self.accounts);
        let (listing, page) = blocking(move || {
            let page = listing.page(&accounts);
            Ok((listing, page))
        })
        .await?;
        self.open.insert(handle, Open::Directory(listing));
        let files = page.map_err(|error| refusal(&error))?;
        if files.is_empty() {
            return Err(StatusCode::Eof.into());
        }
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, filename: String) -> Result<Status, StatusReply> {
        self.on_path(id, &filename, |path| fs::remove_file(path))
            .await
    }

    async fn mkdir(
        &mut self,
        id: u32,
        path: String,
        attrs: FileAttributes,
    ) -> Result<Status, StatusReply> {
        let mode = attrs.permissions.unwrap_or(0o777) & 0o7777;
        let make = move |path: &Path| DirBuilder::new().mode(mode).create(path);
        self.on_path(id, &path, make).await
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Result<Status, StatusReply> {
        self.on_path(id, &path, |path| fs::remove_dir(path)).await
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path = if path.is_empty() { "." } else { &path };
        let path = self.resolve(path)?;
        let path = blocking(move || real_path(path)).await?;
        Ok(one_name(id, &path))
    }

    /// Fails when the new name is taken (draft, section 6.5).
    async fn rename(
        &mut self,
        id: u32,
        oldpath: String,
        newpath: String,
    ) -> Result<Status, StatusReply> {
        let new = self.resolve(&newpath)?;
        self.on_path(id, &oldpath, move |old| rename_to_free_name(old, &new))
            .await
    }

    async fn readlink(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        let path = self.resolve(&path)?;
        let target = blocking(move || fs::read_link(path)).await?;
        Ok(one_name(id, &target))
    }

    /// OpenSSH sends the target first and the link second, against the draft (its PROTOCOL file,
    /// section 4.1); the parameters here are in the order of the wire.
    async fn symlink(
        &mut self,
        id: u32,
        target: String,
        link: String,
    ) -> Result<Status, StatusReply> {
        whole(&target)?;
        self.on_path(id, &link, |link| symlink(target, link)).await
    }

    async fn extended(
        &mut self,
        id: u32,
        request: String,
        data: Vec<u8>,
    ) -> Result<Packet, StatusReply> {
        extensions::answer(self, id, &request, &data).await
    }
}

impl Listing {
    /// The next entries; none at the end. An entry that is gone by now is left out.
    fn page(&mut self, accounts: &Accounts) -> io::Result<Vec<Entry>> {
        let mut page = Vec::new();
        if std::mem::take(&mut self.dots) {
            for name in [".", ".."] {
                page.extend(entry(name.into(), &self.path.join(name), accounts));
            }
        }
        while page.len() < PAGE {
            let Some(found) = self.entries.next() else {
                break;
            };
            let found = found?;
            let name = found.file_name().to_string_lossy().into_owned();
            page.extend(entry(name, &found.path(), accounts));
        }
        Ok(page)
    }
}

fn entry(name: String, path: &Path, accounts: &Accounts) -> Option<Entry> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(Entry {
        longname: attributes::long_name(&name, &metadata, accounts),
        attrs: attributes::of(&metadata),
        filename: name,
    })
}

pub(super) fn one_name(id: u32, path: &Path) -> Name {
    let name = path.to_string_lossy().into_owned();
    Name {
        id,
        files: vec![Entry {
            longname: name.clone(),
            filename: name,
            attrs: FileAttributes::empty(),
        }],
    }
}

pub(super) fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Ok".into(),
        language_tag: String::new(),
    }
}

/// Refuses text that lost bytes on its way in: two names would become one.
pub(super) fn whole(name: &str) -> Result<(), StatusReply> {
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(StatusCode::BadMessage.with_message("the sandbox takes names in UTF-8 only"));
    }
    Ok(())
}

/// Runs work on a thread that may wait for a disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StatusReply> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| refusal(&error)),
        Err(_ended_with_the_program) => Err(StatusCode::Failure.into()),
    }
}

fn no_such_handle() -> StatusReply {
    StatusCode::Failure.with_message("no such handle")
}

/// The status of an error as OpenSSH has it (sftp-server.c, `errno_to_portable`), with the words
/// of the system, which OpenSSH keeps to itself.
fn refusal(error: &io::Error) -> StatusReply {
    let code = match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => StatusCode::NoSuchFile,
        Some(Errno::PERM | Errno::ACCESS | Errno::FAULT) => StatusCode::PermissionDenied,
        Some(Errno::NAMETOOLONG | Errno::INVAL) => StatusCode::BadMessage,
        Some(Errno::NOSYS) => StatusCode::OpUnsupported,
        // The standard library itself: a NUL inside a name.
        None if error.kind() == io::ErrorKind::InvalidInput => StatusCode::BadMessage,
        Some(_) | None => StatusCode::Failure,
    };
    code.with_message(error.to_string())
}

/// NONBLOCK: a FIFO without another end would hold its thread, and the end of the program, for
/// ever. It means nothing to a regular file.
fn flags_of(wanted: OpenFlags) -> OFlags {
    let both = wanted.contains(OpenFlags::READ | OpenFlags::WRITE);
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    flags |= match wanted.contains(OpenFlags::WRITE) {
        _ if both => OFlags::RDWR,
        true => OFlags::WRONLY,
        false => OFlags::RDONLY,
    };
    for (asked, flag) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
    ] {
        if wanted.contains(asked) {
            flags |= flag;
        }
    }
    flags
}

/// The path without links and dots; its last part need not exist (OpenSSH, sftp-realpath.c).
fn real_path(path: PathBuf) -> io::Result<PathBuf> {
    let mut path = path;
    for _ in 0..MOST_LINKS {
        let error = match fs::canonicalize(&path) {
            Ok(real) => return Ok(real),
            Err(error) if error.kind() == io::ErrorKind::NotFound => error,
            Err(error) => return Err(error),
        };
        let Some(Component::Normal(last)) = path.components().next_back() else {
            return Err(error);
        };
        let Some(parent) = path.parent() else {
            return Err(error);
        };
        let parent = fs::canonicalize(parent)?;
        let here = parent.join(last);
        match fs::read_link(&here) {
            Ok(target) => path = parent.join(target),
            Err(_no_link) => return Ok(here),
        }
    }
    Err(Errno::LOOP.into())
}

fn rename_to_free_name(old: &Path, new: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, old, CWD, new, RenameFlags::NOREPLACE) {
        // A file system that cannot do it at one blow.
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(new).is_err() => {
            fs::rename(old, new)
        }
        Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST.into()),
        other => Ok(other?),
    }
}
