//! What moving files comes to: how far it is, and the sums at its end.

/// How far a transfer has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files that are done.
    pub files: u64,
    /// Files in all; `None` while the source is still being listed.
    pub files_total: Option<u64>,
    /// Bytes that have been moved.
    pub bytes: u64,
    /// Bytes in all; `None` while they are not known.
    pub bytes_total: Option<u64>,
    /// The file at hand when it is a large one: its path, printable, and how much of it is done.
    pub current: Option<CurrentFile>,
}

/// A large file under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentFile {
    /// Its path, printable.
    pub path: String,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a task on files moved or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Files that were moved, or found by a listing.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories that were made, or found.
    pub dirs: u64,
    /// Links that were made, or found.
    pub links: u64,
    /// Files that were right already and were not moved.
    pub unchanged: u64,
    /// Files and directories that were removed.
    pub deleted: u64,
    /// Files and directories on which something failed.
    pub errors: u64,
}

impl Tally {
    /// Whether anything on the receiving side is different now.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.files + self.dirs + self.links + self.deleted > 0
    }
}
