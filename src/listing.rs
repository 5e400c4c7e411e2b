//! What a listing asks for and what it finds: files of a host, as its SFTP server tells of them.

use std::sync::Arc;

use bytes::Bytes;

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Directories or files on the host, as bytes.
    pub paths: Vec<Bytes>,
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
}
