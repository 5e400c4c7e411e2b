//! An SFTP version 3 client that keeps names and handles as bytes, has any number of requests in
//! flight, and trusts nothing that a server says.
//!
//! It knows nothing of SSH: a [`Link`] carries bytes both ways, so that whoever holds a session
//! joins the two. [`Client`] offers the protocol's requests.
//!
//! * A request is paid for by the byte, from a window that follows the link ([`window`]): enough to
//!   fill a long fat pipe, little enough that a thin one answers before we lose patience.
//! * There is no deadline on a request. The only clock is [`Settings::patience`]: how long nothing at
//!   all may move while something is awaited.
//! * A violation of the protocol ends the client, with the reason, for everybody who waits.

mod client;
mod copy;
mod driver;
mod outbox;
mod path;
mod select;
mod walk;
mod window;
mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

pub use client::{Client, Handle, IdNames, Limits, LinkOrder, Pending, Space};
pub use copy::{Copying, Meter, Moved, SecondAsk, Sources, SumAsk, Throttle, download, upload};
pub use path::{RemotePath, check_name};
pub use select::{BadPattern, Filter};
pub use walk::{Walked, walk};
pub use wire::{Attrs, Named, OpenFlags};

use crate::outcome::FilesCause;

/// Bytes to and from a server.
#[derive(Debug)]
pub struct Link {
    /// What comes.
    pub incoming: mpsc::Receiver<Incoming>,
    /// What goes. Dropping it ends the server.
    pub outgoing: mpsc::Sender<Bytes>,
}

/// What comes over a [`Link`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The protocol's bytes, cut anyhow.
    Bytes(Bytes),
    /// What the server says beside the protocol (its standard error).
    Said(Bytes),
    /// Nothing more will come; one line that says what ended.
    Ended(String),
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long nothing may move in either direction while an answer is awaited.
    pub patience: Duration,
    /// Most bytes in flight: a bound on memory. The window stays below it on all but long links.
    pub most_in_flight: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(60),
            most_in_flight: 16 << 20,
        }
    }
}

/// Why a request, or the whole client, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server answered that it would not, or could not.
    #[error("{}", status_text(*code, said))]
    Status {
        /// What kind of failure.
        code: Code,
        /// The server's words, printable; often only the code again.
        said: String,
    },
    /// The server broke the protocol. The client is over.
    #[error("the SFTP server broke the protocol: {0}")]
    Protocol(String),
    /// Something wrote on the channel before the server started. The client is over.
    #[error(
        "the remote shell printed \"{text}\" before the SFTP server started; \
         a start-up file such as .bashrc must print nothing when the shell is not interactive"
    )]
    Noise {
        /// The first of it, printable.
        text: String,
    },
    /// The server, its channel or the connection is gone. The client is over.
    #[error("the SFTP server ended: {0}")]
    Ended(String),
    /// Nothing moved for so long. The client is over.
    #[error("the SFTP server stalled: nothing came for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The server speaks an older version. The client is over.
    #[error("the server speaks version {0} of SFTP; version 3 is needed")]
    Version(u32),
    /// The server does not offer what the request needs.
    #[error("the server does not offer {0}")]
    Unsupported(&'static str),
}

/// Status codes of the draft, section 7, and of later drafts that version 3 servers send too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// There is nothing more to read.
    Eof,
    /// A path leads nowhere.
    NoSuchFile,
    /// Not allowed.
    PermissionDenied,
    /// Anything that has no code: a full disk, a name that exists, a directory that is not empty.
    Failure,
    /// It could not read our packet.
    BadMessage,
    /// It does not know the request.
    Unsupported,
    /// A code of another version, or none that we know.
    Other(u32),
}

impl Code {
    fn of(code: u32) -> Self {
        match code {
            1 => Self::Eof,
            2 => Self::NoSuchFile,
            3 => Self::PermissionDenied,
            4 => Self::Failure,
            5 => Self::BadMessage,
            8 => Self::Unsupported,
            other => Self::Other(other),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Eof => "end of file".to_owned(),
            Self::NoSuchFile => "no such file".to_owned(),
            Self::PermissionDenied => "permission denied".to_owned(),
            Self::Failure => "failure".to_owned(),
            Self::BadMessage => "bad message".to_owned(),
            Self::Unsupported => "operation unsupported".to_owned(),
            Self::Other(code) => format!("status {code}"),
        }
    }
}

/// The code in words, and the server's own where they say more.
fn status_text(code: Code, said: &str) -> String {
    let words = code.words();
    if said.is_empty() || said.eq_ignore_ascii_case(&words) {
        words
    } else {
        format!("{words} (server said: {said})")
    }
}

impl Error {
    /// The status code, if the server answered with one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Protocol(_)
            | Self::Noise { .. }
            | Self::Ended(_)
            | Self::Stalled(_)
            | Self::Version(_)
            | Self::Unsupported(_) => None,
        }
    }

    /// What kind of trouble it is, for outcomes.
    #[must_use]
    pub fn cause(&self) -> FilesCause {
        match self {
            Self::Status { code, .. } => match code {
                Code::NoSuchFile => FilesCause::Missing,
                Code::PermissionDenied => FilesCause::Denied,
                Code::Eof
                | Code::Failure
                | Code::BadMessage
                | Code::Unsupported
                | Code::Other(_) => FilesCause::Remote,
            },
            Self::Protocol(_) => FilesCause::Protocol,
            Self::Noise { .. } | Self::Version(_) => FilesCause::NoSftp,
            Self::Ended(_) | Self::Stalled(_) => FilesCause::Ended,
            Self::Unsupported(_) => FilesCause::Remote,
        }
    }

    /// Whether the client is over, so that no further request can work.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Status { .. } | Self::Unsupported(_))
    }
}
