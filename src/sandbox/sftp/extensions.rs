//! Requests beyond version 3: OpenSSH's PROTOCOL file, section 4, and nothing that is not there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use russh_sftp::protocol::{ExtendedReply, FileAttributes, Packet, StatusCode};
use russh_sftp::server::StatusReply;
use rustix::fs::{StatVfs, StatVfsMountFlags};

use super::attributes::{self, Accounts, Target};
use super::files::{Files, blocking, done, one_name, whole};
use super::{LONGEST_DATA, LONGEST_PACKET, MOST_HANDLES};

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const FSTATVFS: &str = "fstatvfs@openssh.com";
const HARDLINK: &str = "hardlink@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const LSETSTAT: &str = "lsetstat@openssh.com";
const LIMITS: &str = "limits@openssh.com";
const EXPAND_PATH: &str = "expand-path@openssh.com";
const NAMES_BY_ID: &str = "users-groups-by-id@openssh.com";

/// What `VERSION` offers: the names with OpenSSH's revisions of them.
pub(super) fn offered() -> HashMap<String, String> {
    let revisions = [
        (POSIX_RENAME, "1"),
        (STATVFS, "2"),
        (FSTATVFS, "2"),
        (HARDLINK, "1"),
        (FSYNC, "1"),
        (LSETSTAT, "1"),
        (LIMITS, "1"),
        (EXPAND_PATH, "1"),
        (NAMES_BY_ID, "1"),
    ];
    let owned = revisions.map(|(name, revision)| (name.to_owned(), revision.to_owned()));
    HashMap::from(owned)
}

/// Answers one extended request.
pub(super) async fn answer(
    files: &Files,
    id: u32,
    request: &str,
    data: &[u8],
) -> Result<Packet, StatusReply> {
    let mut fields = Fields(Bytes::copy_from_slice(data));
    match request {
        POSIX_RENAME => two_paths(files, id, fields, |old, new| fs::rename(old, new)).await,
        HARDLINK => two_paths(files, id, fields, |old, new| fs::hard_link(old, new)).await,
        FSYNC => {
            let file = files.file(&fields.text()?)?;
            blocking(move || file.sync_all()).await?;
            Ok(done(id).into())
        }
        STATVFS => {
            let path = files.resolve(&fields.text()?)?;
            let stat = blocking(move || Ok(rustix::fs::statvfs(path)?)).await?;
            Ok(reply(id, sums(&stat)))
        }
        FSTATVFS => {
            let file: Arc<File> = files.file(&fields.text()?)?;
            let stat = blocking(move || Ok(rustix::fs::fstatvfs(&file)?)).await?;
            Ok(reply(id, sums(&stat)))
        }
        LSETSTAT => set_link(files, id, fields).await,
        LIMITS => Ok(reply(id, limits())),
        EXPAND_PATH => expand(files, id, fields).await,
        NAMES_BY_ID => {
            let (users, groups) = (fields.bytes()?, fields.bytes()?);
            Ok(reply(id, names_by_id(&files.accounts, users, groups)))
        }
        _ => Err(StatusCode::OpUnsupported.into()),
    }
}

async fn two_paths(
    files: &Files,
    id: u32,
    mut fields: Fields,
    work: fn(&Path, &Path) -> io::Result<()>,
) -> Result<Packet, StatusReply> {
    let old = files.resolve(&fields.text()?)?;
    let new = files.resolve(&fields.text()?)?;
    blocking(move || work(&old, &new)).await?;
    Ok(done(id).into())
}

async fn set_link(files: &Files, id: u32, mut fields: Fields) -> Result<Packet, StatusReply> {
    let path = files.resolve(&fields.text()?)?;
    let wanted = fields.attributes()?;
    blocking(move || attributes::set(Target::Link(&path), &wanted)).await?;
    Ok(done(id).into())
}

/// `~` and `~/x` start at the home; other accounts have none here.
async fn expand(files: &Files, id: u32, mut fields: Fields) -> Result<Packet, StatusReply> {
    let text = fields.text()?;
    let path = match text.strip_prefix('~') {
        Some("") => files.home.clone(),
        Some(rest) if rest.starts_with('/') => files.home.join(rest.trim_start_matches('/')),
        Some(_other_account) => return Err(StatusCode::NoSuchFile.into()),
        None => files.resolve(&text)?,
    };
    let path = blocking(move || fs::canonicalize(path)).await?;
    Ok(one_name(id, &path).into())
}

fn reply(id: u32, data: Vec<u8>) -> Packet {
    Packet::ExtendedReply(ExtendedReply { id, data })
}

/// The fields of statvfs(3) in their order there, flags in OpenSSH's numbers.
fn sums(stat: &StatVfs) -> Vec<u8> {
    let read_only = stat.f_flag.contains(StatVfsMountFlags::RDONLY);
    let no_setuid = stat.f_flag.contains(StatVfsMountFlags::NOSUID);
    let flags = u64::from(read_only) | u64::from(no_setuid) << 1;
    numbers(&[
        stat.f_bsize,
        stat.f_frsize,
        stat.f_blocks,
        stat.f_bfree,
        stat.f_bavail,
        stat.f_files,
        stat.f_ffree,
        stat.f_favail,
        stat.f_fsid,
        flags,
        stat.f_namemax,
    ])
}

fn limits() -> Vec<u8> {
    let data = u64::from(LONGEST_DATA);
    numbers(&[u64::from(LONGEST_PACKET), data, data, MOST_HANDLES as u64])
}

fn numbers(all: &[u64]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Two strings, each of strings: the names, empty where there is none.
fn names_by_id(accounts: &Accounts, users: Bytes, groups: Bytes) -> Vec<u8> {
    let mut answer = Vec::new();
    let users = numbers_of(users).map(|id| accounts.user(id).unwrap_or_default());
    put_text(&mut answer, &joined(users));
    let groups = numbers_of(groups).map(|id| accounts.group(id).unwrap_or_default());
    put_text(&mut answer, &joined(groups));
    answer
}

fn numbers_of(mut bytes: Bytes) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || bytes.try_get_u32().ok())
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut all = Vec::new();
    for name in names {
        put_text(&mut all, name.as_bytes());
    }
    all
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.put_slice(text);
}

/// The body of a request, taken field by field.
struct Fields(Bytes);

impl Fields {
    fn number(&mut self) -> Result<u32, StatusReply> {
        self.0
            .try_get_u32()
            .map_err(|_| StatusCode::BadMessage.into())
    }

    fn long(&mut self) -> Result<u64, StatusReply> {
        self.0
            .try_get_u64()
            .map_err(|_| StatusCode::BadMessage.into())
    }

    fn bytes(&mut self) -> Result<Bytes, StatusReply> {
        let length = self.number()? as usize;
        if length > self.0.len() {
            return Err(StatusCode::BadMessage.into());
        }
        Ok(self.0.split_to(length))
    }

    /// A name or a handle. What is not UTF-8 is refused here as everywhere in the sandbox.
    fn text(&mut self) -> Result<String, StatusReply> {
        let text = String::from_utf8_lossy(&self.bytes()?).into_owned();
        whole(&text)?;
        Ok(text)
    }

    /// `ATTRS` (draft, section 5), without its extensions.
    fn attributes(&mut self) -> Result<FileAttributes, StatusReply> {
        let flags = self.number()?;
        let mut found = FileAttributes::empty();
        if flags & 1 != 0 {
            found.size = Some(self.long()?);
        }
        if flags & 2 != 0 {
            (found.uid, found.gid) = (Some(self.number()?), Some(self.number()?));
        }
        if flags & 4 != 0 {
            found.permissions = Some(self.number()?);
        }
        if flags & 8 != 0 {
            (found.atime, found.mtime) = (Some(self.number()?), Some(self.number()?));
        }
        Ok(found)
    }
}
