//! Moving files: what is to be moved and how, how far it is, and the sums at its end.

use std::path::PathBuf;

use bytes::Bytes;

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
    /// How what arrived was compared with what was sent, or what is there with what would be sent.
    pub verified: Option<Verified>,
    /// It was only looked what would be done.
    pub looked: bool,
    /// It was a listing: these are what was found, and nothing was moved.
    pub found: bool,
}

/// How contents on both sides were compared: by their SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verified {
    /// The host made it with a tool of its own.
    Tool,
    /// The file was read back.
    ReadBack,
}

impl Verified {
    /// The word used in events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::ReadBack => "read-back",
        }
    }
}

impl Tally {
    /// Whether anything on the receiving side is different now.
    #[must_use]
    pub fn changed(&self) -> bool {
        !self.found && !self.looked && self.files + self.dirs + self.links + self.deleted > 0
    }

    /// The sums of both.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            files: self.files + more.files,
            bytes: self.bytes + more.bytes,
            dirs: self.dirs + more.dirs,
            links: self.links + more.links,
            unchanged: self.unchanged + more.unchanged,
            deleted: self.deleted + more.deleted,
            errors: self.errors + more.errors,
            verified: self.verified.max(more.verified),
            looked: self.looked || more.looked,
            found: self.found || more.found,
        }
    }

    /// The sums in a few words: `3 files, 1.2 GiB, 40 unchanged`; `unchanged` where nothing was
    /// moved.
    #[must_use]
    pub fn words(&self) -> String {
        let plural = |count: u64, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let bytes = (self.files > 0).then(|| crate::text::size(self.bytes));
        let moved = [
            plural(self.files, "file", "files"),
            bytes,
            plural(self.links, "link", "links"),
            plural(self.dirs, "directory", "directories"),
            plural(self.deleted, "deleted", "deleted"),
        ];
        let mut words: Vec<String> = moved.into_iter().flatten().collect();
        if words.is_empty() {
            words.push(if self.found { "nothing" } else { "unchanged" }.to_owned());
        } else {
            words.extend(plural(self.unchanged, "unchanged", "unchanged"));
        }
        words.extend(self.verified.map(|how| match how {
            Verified::Tool => "compared by the host's sha256sum".to_owned(),
            Verified::ReadBack => "compared by reading back".to_owned(),
        }));
        let would = if self.looked { "would be " } else { "" };
        format!("{would}{}", words.join(", "))
    }
}

/// Files that go to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// What goes.
    pub sources: Vec<Source>,
    /// Where to, on the host: a directory when it ends in `/`, is one already, or there is more
    /// than one file to put there; else the file's new path.
    pub dest: Bytes,
    /// How.
    pub how: How,
}

/// Something that is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, a directory, or a glob that stands for some. A directory with a slash at the end is
    /// what it holds; without, it is itself put into the destination.
    Path(PathBuf),
    /// A file that exists only here: a template that was filled in.
    Content {
        /// Its name.
        name: String,
        /// Its bytes.
        bytes: Bytes,
        /// Its permission bits.
        mode: u32,
    },
}

/// Files that come from a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Files, directories, or globs on the host.
    pub sources: Vec<Bytes>,
    /// Where to, here.
    pub dest: PathBuf,
    /// The source's whole path is built anew below the destination, so that nothing can meet.
    pub whole_paths: bool,
    /// How.
    pub how: How,
}

/// How files are copied, either way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct How {
    /// Permission bits of every file that is copied.
    pub mode: Option<u32>,
    /// What else of a file is kept.
    pub preserve: Preserve,
    /// `USER`, `USER:GROUP` or `:GROUP`, names or numbers; for uploads.
    pub owner: Option<String>,
    /// What arrived is compared with what was sent.
    pub verify: bool,
    /// What is the same already is left alone.
    pub only_changed: Option<Same>,
    /// What the source does not have is removed from the directories that are copied.
    pub delete: bool,
    /// A part that an earlier attempt left is gone on with, after its content was compared.
    pub resume: bool,
    /// What becomes of symbolic links.
    pub symlinks: Symlinks,
    /// Globs of names, or with a slash of paths below the source, that are left out.
    pub exclude: Vec<String>,
    /// Bytes a second, over all hosts together.
    pub bandwidth: Option<u64>,
    /// What a file replaces is kept under its name with `~`.
    pub backup: bool,
    /// The receiving disk holds a file before it gets its name.
    pub durable: bool,
    /// Nothing is changed: it is only told what would be.
    pub check: bool,
}

/// What is kept of a file besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preserve {
    /// Permission bits, exactly, whatever the umask.
    pub mode: bool,
    /// Time of last change.
    pub times: bool,
    /// Set-user-id, set-group-id and sticky bits too.
    pub set_id: bool,
}

/// When a file counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Its size and its time of last change are. What is copied gets the source's time then.
    SizeAndTime,
    /// Its content is.
    Content,
}

/// What becomes of symbolic links in directories that are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// They are made anew, leading where they are written to lead.
    #[default]
    Copy,
    /// What they lead to is copied.
    Follow,
    /// They are left out.
    Skip,
}
