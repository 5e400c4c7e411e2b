//! How things ended. There is no `bool success` and no default code anywhere: whoever wants to know
//! matches on these enums and so meets every ending.

use std::fmt;
use std::time::Duration;

/// How a process ended, as the other side reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// `exit-status` (RFC 4254, section 6.10), or a local child's code. Kept as the u32 it is on
    /// the wire: servers that are not Unix send codes above 255.
    Exited(u32),
    /// `exit-signal`, or a local child's signal.
    Signaled {
        /// Without `SIG`, printable: `TERM`, `KILL`, or a server's own such as `BUS@openssh.com`.
        name: String,
        /// Whether the system said that it wrote a core file.
        core_dumped: bool,
    },
}

impl ExitStatus {
    /// The code a shell would show: the exit code, or 128 plus the signal's number on Linux.
    /// `None` for a signal whose number is not known.
    #[must_use]
    pub fn shell_code(&self) -> Option<u32> {
        match self {
            Self::Exited(code) => Some(*code),
            Self::Signaled { name, .. } => signal_number(name).map(|n| 128 + n),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Signaled {
                name,
                core_dumped: false,
            } => write!(f, "signal {name}"),
            Self::Signaled {
                name,
                core_dumped: true,
            } => write!(f, "signal {name}, core dumped"),
        }
    }
}

/// The Linux number of a signal named without `SIG`; OpenSSH's `@openssh.com` suffix is allowed.
#[must_use]
pub fn signal_number(name: &str) -> Option<u32> {
    let name = name.strip_suffix("@openssh.com").unwrap_or(name);
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

/// The name, without `SIG`, of a Linux signal number.
#[must_use]
pub fn signal_name(number: u32) -> Option<&'static str> {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map(|(name, _)| *name)
}

/// signal(7), x86 and ARM column.
const SIGNALS: [(&str, u32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended with an accepted code, or (print, pause) it was done.
    Ok {
        /// `None` for actions that run no process.
        status: Option<ExitStatus>,
    },
    /// It ended, and not well.
    Failed(Failure),
    /// Its `timeout` passed.
    TimedOut {
        /// The limit that passed.
        after: Duration,
        /// What is known of the process now.
        remote: Remains,
    },
    /// The connection ended after the command was sent and before its status came. Whether it ran
    /// to its end cannot be known, so it is never repeated and never a success.
    Lost {
        /// One line: what ended.
        reason: String,
    },
    /// It was not due.
    Skipped {
        /// One line: why.
        reason: String,
    },
    /// The run was stopped.
    Cancelled {
        /// What is known of the process; `NotStarted` where none was begun.
        remote: Remains,
    },
    /// A bug in fanrun: this host's lane panicked.
    Internal {
        /// The panic's message.
        message: String,
    },
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A code that is not in `ok_codes`, or a signal.
    Exit(ExitStatus),
    /// The command never ran: the server refused the request, the program or directory is missing
    /// locally, a value could not be rendered.
    NotStarted {
        /// One line.
        reason: String,
    },
    /// A line of its output does not fit its `parse`. The command was ended if it still ran.
    Parse(Box<crate::rows::BadLine>),
    /// A condition of `assert` does not hold.
    Assert {
        /// One line: the playbook's message, or the condition.
        reason: String,
    },
    /// What was waited for did not come: `until` of `retry`, or a `wait_for`.
    Unmet {
        /// One line.
        reason: String,
    },
    /// Files could not be moved or listed, wholly or in part.
    Files {
        /// What kind of trouble; the gravest where there was more than one.
        cause: FilesCause,
        /// One line that names the first path it happened on, and how many more there were.
        reason: String,
    },
}

/// Why files could not be moved or listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FilesCause {
    /// The server broke the protocol, or gave a name that would lead out of its directory.
    Protocol,
    /// There is no SFTP server, or it did not start.
    NoSftp,
    /// The SFTP server ended or stalled in the middle.
    Ended,
    /// A path is missing.
    Missing,
    /// A path may not be read or written.
    Denied,
    /// The remote disk is full, or a quota is reached.
    RemoteSpace,
    /// The local disk is full, or a quota is reached.
    LocalSpace,
    /// The source changed while it was read.
    Changed,
    /// What was read back differs from what was sent.
    Verify,
    /// The server refused for another reason.
    Remote,
    /// Our side refused: a path that is no directory, a read-only file system.
    Local,
}

impl FilesCause {
    /// The word used in events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::NoSftp => "no-sftp",
            Self::Ended => "ended",
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::RemoteSpace => "remote-space",
            Self::LocalSpace => "local-space",
            Self::Changed => "changed",
            Self::Verify => "verify",
            Self::Remote => "remote",
            Self::Local => "local",
        }
    }
}

/// What a task took besides time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// How often it was tried, over all items; 0 where it was not due.
    pub attempts: u32,
    /// What became of the values of its `loop`, where it has one.
    pub items: Option<Items>,
    /// It changed something, as far as it says.
    pub changed: bool,
}

/// The values of a `loop`, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Items {
    /// How many there are.
    pub all: u32,
    /// Well done.
    pub ok: u32,
    /// Not due.
    pub skipped: u32,
    /// Not well done; those that remain had no turn.
    pub failed: u32,
}

/// What is known of a process that we tried to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Nothing had been started.
    NotStarted,
    /// It ended before or while we tried, or was seen gone afterwards.
    Ended,
    /// Nothing confirmed its end.
    MaybeRunning,
    /// It was work on files, which stopped, and took away what was not complete.
    Stopped,
    /// It was work on files: something that is not complete may be left.
    HalfDone,
}

impl Outcome {
    /// How its process ended, where there was one and that is known.
    #[must_use]
    pub fn exit_status(&self) -> Option<&ExitStatus> {
        match self {
            Self::Ok { status } => status.as_ref(),
            Self::Failed(Failure::Exit(status)) => Some(status),
            Self::Failed(
                Failure::NotStarted { .. }
                | Failure::Files { .. }
                | Failure::Parse(_)
                | Failure::Assert { .. }
                | Failure::Unmet { .. },
            )
            | Self::TimedOut { .. }
            | Self::Lost { .. }
            | Self::Skipped { .. }
            | Self::Cancelled { .. }
            | Self::Internal { .. } => None,
        }
    }

    /// The word used in events and recaps.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Failed(_) => "failed",
            Self::TimedOut { .. } => "timed_out",
            Self::Lost { .. } => "lost",
            Self::Skipped { .. } => "skipped",
            Self::Cancelled { .. } => "cancelled",
            Self::Internal { .. } => "internal",
        }
    }
}

impl fmt::Display for Outcome {
    /// The ending in a few words: `exit 100`, `timed out after 5s, may still be running`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { status: None } => f.write_str("ok"),
            Self::Ok {
                status: Some(ExitStatus::Exited(0)),
            } => f.write_str("ok"),
            Self::Ok {
                status: Some(status),
            } => write!(f, "ok ({status})"),
            Self::Failed(Failure::Exit(status)) => write!(f, "{status}"),
            Self::Failed(Failure::NotStarted { reason }) => write!(f, "not started: {reason}"),
            Self::Failed(
                Failure::Files { reason, .. }
                | Failure::Assert { reason }
                | Failure::Unmet { reason },
            ) => f.write_str(reason),
            Self::Failed(Failure::Parse(bad)) => write!(f, "{bad}"),
            Self::TimedOut { after, remote } => {
                write!(
                    f,
                    "timed out after {}{remote}",
                    crate::text::duration(*after)
                )
            }
            Self::Lost { reason } => write!(f, "lost: {reason}; the result is unknown"),
            Self::Skipped { reason } => write!(f, "skipped: {reason}"),
            Self::Cancelled { remote } => write!(f, "cancelled{remote}"),
            Self::Internal { message } => write!(f, "internal error: {message}"),
        }
    }
}

impl fmt::Display for Remains {
    /// A clause that follows `timed out after 5s` or `cancelled`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str(" before it started"),
            Self::Ended => f.write_str(", killed"),
            Self::MaybeRunning => f.write_str(", may still be running"),
            Self::Stopped => Ok(()),
            Self::HalfDone => f.write_str(", files that are not complete may be left"),
        }
    }
}

/// Why a host could not be worked on at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProblem {
    /// What stood in the way.
    pub cause: Cause,
    /// One line that names the object: `connection refused by 10.0.3.8 port 22`.
    pub message: String,
    /// Further lines, each a label and a text: what was tried, what the server said, what helps.
    pub details: Vec<(&'static str, String)>,
}

/// The kinds of [`HostProblem`], first by what they mean for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The name has no address.
    Dns,
    /// Nothing listens there, or a firewall said no.
    ConnectionRefused,
    /// The network said that there is no way.
    NoRoute,
    /// `connect_timeout` passed, in the named phase.
    Timeout(Phase),
    /// The connection ended in the named phase.
    Closed(Phase),
    /// What came was not an SSH banner.
    Banner,
    /// No common algorithm, or only ones that are not safe any more.
    Algorithms,
    /// The key exchange broke down.
    Kex,
    /// The server refuses to open channels on a connection that it accepted.
    ChannelRefused,
    /// Our side lacked something: descriptors, ports, memory.
    Local,
    /// Refused by us: the host's key is unknown, changed, revoked, or could not be checked.
    HostKey,
    /// Refused by the server: our authentication.
    Authentication,
}

/// How far an attempt to connect had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Resolving the name.
    Dns,
    /// TCP handshake.
    Connect,
    /// Waiting for `SSH-2.0-...`.
    Banner,
    /// Key exchange.
    Kex,
    /// Authentication.
    Auth,
}

impl Cause {
    /// Whether the host was *refused* (identity or authentication) rather than unreachable.
    #[must_use]
    pub fn is_refused(self) -> bool {
        matches!(self, Self::HostKey | Self::Authentication)
    }

    /// The word used in events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::ConnectionRefused => "refused",
            Self::NoRoute => "no-route",
            Self::Timeout(_) => "timeout",
            Self::Closed(_) => "closed",
            Self::Banner => "banner",
            Self::Algorithms => "algorithms",
            Self::Kex => "kex",
            Self::ChannelRefused => "channel-refused",
            Self::Local => "local",
            Self::HostKey => "host-key",
            Self::Authentication => "authentication",
        }
    }
}

impl Phase {
    /// The phase in words that follow "while" or "in": `key exchange`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Dns => "name lookup",
            Self::Connect => "connecting",
            Self::Banner => "the banner",
            Self::Kex => "key exchange",
            Self::Auth => "authentication",
        }
    }
}
