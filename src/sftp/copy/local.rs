//! Files on this side, reached only through directories that are open.
//!
//! A name is always looked up in an open directory and never followed if it is a link, so that no
//! link which a server made us write, or which another process puts in our way while we work, can
//! lead a write outside of the destination. A file is written under a temporary name and gets its
//! own by a rename when it is complete; what is dropped before that is removed.
//!
//! Everything here blocks; callers are on threads that may.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{self, AtFlags, Mode, OFlags, RawMode, Timespec, Timestamps};

use super::names;
use crate::listing::Kind;

/// Pieces of zeros as long as this are left out: the file system then keeps a hole.
const HOLE: usize = 4 << 10;

/// An open directory.
#[derive(Debug, Clone)]
pub(super) struct Folder(Arc<OwnedFd>);

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) modified: i64,
}

/// What a file gets beside its content.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Finish {
    /// Permission bits.
    pub(super) mode: u32,
    /// Times of last access and change, seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
    /// The disk holds it before it gets its name.
    pub(super) durable: bool,
    /// What it replaces is kept.
    pub(super) backup: bool,
}

const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Folder {
    /// A directory that the person who runs us named: links in its path are theirs.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(fs::open(path, OPEN_DIR, Mode::empty())?)))
    }

    /// The same, made with its parents where it is missing.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// A directory in this one.
    pub(super) fn enter(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OPEN_DIR | OFlags::NOFOLLOW;
        let opened = fs::openat(&*self.0, OsStr::from_bytes(name), flags, Mode::empty())?;
        Ok(Self(Arc::new(opened)))
    }

    /// A directory in this one, made where it is missing; whether it was.
    pub(super) fn make_dir(&self, name: &[u8]) -> io::Result<(Self, bool)> {
        let mode = Mode::from_raw_mode(0o777);
        let made = match fs::mkdirat(&*self.0, OsStr::from_bytes(name), mode) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        Ok((self.enter(name)?, made))
    }

    /// What stands under a name; `None` when nothing does.
    pub(super) fn status(&self, name: &[u8]) -> io::Result<Option<Status>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match fs::statat(&*self.0, OsStr::from_bytes(name), flags) {
            Ok(stat) => Ok(Some(Status {
                kind: Kind::of_mode(stat.st_mode),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                modified: stat.st_mtime,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it, without `.` and `..`.
    pub(super) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&*self.0)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// A file in it, for reading; a link is not followed.
    pub(super) fn read(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = fs::openat(&*self.0, OsStr::from_bytes(name), flags, Mode::empty())?;
        Ok(File::from(opened))
    }

    /// Where the link of that name leads to.
    pub(super) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let target = fs::readlinkat(&*self.0, OsStr::from_bytes(name), Vec::new())?;
        Ok(target.into_bytes())
    }

    /// Makes a link with these times, in place of a file or link of that name.
    pub(super) fn make_link(
        &self,
        target: &[u8],
        name: &[u8],
        times: Option<(u32, u32)>,
        mark: &str,
    ) -> io::Result<()> {
        self.check_replaceable(name)?;
        let part = names::temporary(name, mark);
        let temporary = OsStr::from_bytes(&part);
        fs::symlinkat(OsStr::from_bytes(target), &*self.0, temporary)?;
        let dated = times.map_or(Ok(()), |times| {
            fs::utimensat(
                &*self.0,
                temporary,
                &stamps(times),
                AtFlags::SYMLINK_NOFOLLOW,
            )
        });
        let name = OsStr::from_bytes(name);
        let renamed = dated.and_then(|()| fs::renameat(&*self.0, temporary, &*self.0, name));
        renamed.map_err(|error| {
            let _ = self.remove(&part);
            error.into()
        })
    }

    /// Permission bits and times of the directory itself.
    pub(super) fn set(&self, mode: Option<u32>, times: Option<(u32, u32)>) -> io::Result<()> {
        if let Some(mode) = mode {
            fs::fchmod(&*self.0, Mode::from_raw_mode(mode as RawMode))?;
        }
        if let Some(times) = times {
            fs::futimens(&*self.0, &stamps(times))?;
        }
        Ok(())
    }

    /// Removes a file or a link.
    pub(super) fn remove(&self, name: &[u8]) -> io::Result<()> {
        let name = OsStr::from_bytes(name);
        Ok(fs::unlinkat(&*self.0, name, AtFlags::empty())?)
    }

    /// Removes whatever stands under a name, a directory with all it holds; how many that were.
    pub(super) fn remove_all(&self, name: &[u8]) -> io::Result<u64> {
        let kind = self.status(name)?.map(|status| status.kind);
        match kind {
            None => Ok(0),
            Some(Kind::Dir) => {
                let inside = self.enter(name)?;
                let mut count = 1;
                for name in inside.names()? {
                    count += inside.remove_all(&name)?;
                }
                fs::unlinkat(&*self.0, OsStr::from_bytes(name), AtFlags::REMOVEDIR)?;
                Ok(count)
            }
            Some(_) => self.remove(name).map(|()| 1),
        }
    }

    /// Refuses a name under which something stands that no file replaces.
    pub(super) fn check_replaceable(&self, name: &[u8]) -> io::Result<()> {
        match self.status(name)?.map(|status| status.kind) {
            None | Some(Kind::File | Kind::Link) => Ok(()),
            Some(Kind::Dir) => Err(refused("a directory is in its place")),
            Some(kind) => Err(refused(&format!("a {} is in its place", kind.word()))),
        }
    }

    /// A new file under a temporary name.
    pub(super) fn begin(&self, name: &[u8], mark: &str) -> io::Result<Part> {
        self.check_replaceable(name)?;
        let temporary = names::temporary(name, mark);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.part(temporary, flags, false)
    }

    /// The part that an earlier attempt left, or a new one that stays if this attempt fails.
    pub(super) fn go_on(&self, name: &[u8]) -> io::Result<Part> {
        self.check_replaceable(name)?;
        let temporary = names::resumed(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let part = self.part(temporary, flags, true)?;
        if part.file.metadata()?.is_file() {
            Ok(part)
        } else {
            Err(refused("the part of an earlier attempt is no file"))
        }
    }

    fn part(&self, temporary: Vec<u8>, flags: OFlags, stays: bool) -> io::Result<Part> {
        let mode = Mode::from_raw_mode(0o600);
        let name = OsStr::from_bytes(&temporary);
        let opened = fs::openat(&*self.0, name, flags | OFlags::CLOEXEC, mode)?;
        Ok(Part {
            folder: self.clone(),
            temporary: OsString::from_vec(temporary),
            file: File::from(opened),
            end: 0,
            stays,
            named: false,
        })
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_owned())
}

fn stamps((accessed, modified): (u32, u32)) -> Timestamps {
    let at = |seconds: u32| Timespec {
        tv_sec: i64::from(seconds),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: at(accessed),
        last_modification: at(modified),
    }
}

/// A file that is not complete yet. Dropping it removes it, unless it is to be gone on with.
#[derive(Debug)]
pub(super) struct Part {
    folder: Folder,
    temporary: OsString,
    file: File,
    end: u64,
    stays: bool,
    named: bool,
}

impl Part {
    /// Writes pieces that follow each other. Long runs of zeros are left out.
    pub(super) fn write(&mut self, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces {
            if piece.len() < HOLE || piece.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(piece, at)?;
            }
            at += piece.len() as u64;
        }
        self.end = self.end.max(at);
        Ok(())
    }

    /// Its length so far, and the file for reading, when it is gone on with.
    pub(super) fn so_far(&self) -> io::Result<(u64, File)> {
        Ok((self.file.metadata()?.len(), self.file.try_clone()?))
    }

    /// Cuts it: what follows is written anew.
    pub(super) fn keep(&mut self, len: u64) -> io::Result<()> {
        self.end = len;
        self.file.set_len(len)
    }

    /// Gives it its name, complete and `size` bytes long.
    pub(super) fn finish(mut self, name: &[u8], size: u64, finish: Finish) -> io::Result<()> {
        if self.end != size {
            return Err(io::Error::other(format!(
                "{} bytes were written, not {size}",
                self.end
            )));
        }
        // Zeros at the end were left out; whatever stood behind is cut.
        self.file.set_len(size)?;
        fs::fchmod(&self.file, Mode::from_raw_mode(finish.mode as RawMode))?;
        if let Some(times) = finish.times {
            fs::futimens(&self.file, &stamps(times))?;
        }
        if finish.durable {
            self.file.sync_all()?;
        }
        let folder = &self.folder;
        folder.check_replaceable(name)?;
        if finish.backup {
            keep_old(folder, name)?;
        }
        let (from, to) = (&*self.temporary, OsStr::from_bytes(name));
        fs::renameat(&*folder.0, from, &*folder.0, to)?;
        self.named = true;
        if finish.durable {
            fs::fsync(&*self.folder.0)?;
        }
        Ok(())
    }
}

/// The old file stays under its name with `~`, without a moment in which its own name is missing.
fn keep_old(folder: &Folder, name: &[u8]) -> io::Result<()> {
    if folder.status(name)?.is_none() {
        return Ok(());
    }
    let kept = names::backup(name);
    if folder.status(&kept)?.is_some() {
        folder.remove(&kept)?;
    }
    let (old, kept) = (OsStr::from_bytes(name), OsStr::from_bytes(&kept));
    Ok(fs::linkat(
        &*folder.0,
        old,
        &*folder.0,
        kept,
        AtFlags::empty(),
    )?)
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.named && !self.stays {
            let _ = self.folder.remove(self.temporary.as_bytes());
        }
    }
}

/// The permission bits that this process's umask leaves of `mode`.
pub(super) fn without_umask(mode: u32) -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    // umask(2) can only be asked by setting it, which other threads would notice.
    let umask = UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok())
            .unwrap_or(0o022)
    });
    mode & !umask
}
