//! The record of a run: its events, and the exact output of every host, in files.
//!
//! What a run wrote may hold what only its owner should read, so files are made for the owner
//! alone, whatever the umask says, and never through a link that somebody left in the way.

pub mod events;
pub mod last;
pub mod raw;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Creates or empties a file that only its owner can read. A link as the last part of the path is
/// refused; devices such as `/dev/stderr` or a pipe are written as they are.
///
/// # Errors
/// What the system says.
pub fn create_private(path: &Path) -> io::Result<File> {
    let special = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let flags = if special { 0 } else { no_follow };
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// Creates a directory (and its parents) that only its owner can enter, if it is not there.
///
/// # Errors
/// What the system says.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
