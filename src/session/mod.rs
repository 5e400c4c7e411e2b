//! One way to one host: open it, start a process, read what it writes, learn how it ended, end it.
//!
//! The seam is an enum, not a trait: there are three kinds and all are ours. [`ssh`] talks to a
//! server, [`local`] starts children here, [`scripted`] says in tests what it was told to say.
//!
//! Rules that hold for every kind:
//! * A process is read with [`Process::next`] until it gives [`ProcessEvent::Ended`]; `next` is
//!   cancel-safe, so it may stand in a `select!`.
//! * Input is written by a task of its own. Reading and writing in one task deadlocks when both
//!   sides' windows are full.
//! * Nothing here retries, waits for people, or decides what an ending means.

use bytes::Bytes;

use crate::event::Stream;
use crate::job::Command;
use crate::outcome::ExitStatus;

/// What to start.
#[derive(Debug)]
pub struct Spawn {
    /// The command line.
    pub command: Command,
    /// Variables to export.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Interpreter of shell text: words to which the text is appended, such as `["bash", "-c"]`.
    /// `None` is the account's login shell (locally `/bin/sh -c`).
    pub shell: Option<Vec<String>>,
    /// What it reads.
    pub stdin: Stdin,
}

/// What a process reads.
#[derive(Debug)]
pub enum Stdin {
    /// End of file at once.
    Closed,
    /// These bytes, then end of file.
    Bytes(Bytes),
    /// Blocks as they come; end of file when the sender is dropped.
    Stream(tokio::sync::mpsc::Receiver<Bytes>),
}

/// What a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It wrote bytes. Never empty.
    Output {
        /// To which stream.
        stream: Stream,
        /// What.
        bytes: Bytes,
    },
    /// It ended, and all of its output has been given out. Always the last.
    Ended(Ending),
}

/// How a process ended, as far as the session can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A status came.
    Exited {
        /// The status.
        status: ExitStatus,
        /// Something that the process left behind held its output open past the drain grace; one
        /// line that says so.
        lingering: Option<String>,
    },
    /// The command certainly never ran: the server refused the request, or the program, its
    /// directory or its rights are missing here.
    NotStarted {
        /// One line.
        reason: String,
    },
    /// The channel or connection ended and no status had come. The result is unknown.
    Lost {
        /// One line: what ended.
        reason: String,
    },
}

/// Why nothing could be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// It certainly never ran, and trying again would not help.
    #[error("{reason}")]
    NotStarted {
        /// One line.
        reason: String,
    },
    /// The connection was gone before the request was sent: it certainly never ran, and a new
    /// connection may be tried.
    #[error("{reason}")]
    Disconnected {
        /// One line.
        reason: String,
    },
    /// The server would not open (another) channel on this connection (`MaxSessions`). It
    /// certainly never ran.
    #[error("{reason}")]
    ChannelRefused {
        /// One line.
        reason: String,
    },
}

/// Signals that the termination ladder sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Term,
    /// End.
    Kill,
}

impl Signal {
    /// Without `SIG`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
        }
    }
}

/// What one sweep over a process's group and descendants found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// So many processes were there and were sent the signal. 0: all are gone.
    Signalled(u32),
    /// Nothing could be learnt: no second channel, no POSIX shell, a forced command.
    Unknown,
}
