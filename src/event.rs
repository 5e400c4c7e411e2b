//! One thing that happened. Every renderer, the recap and the exit code are made from these and
//! from nothing else, so that what a person sees and what a machine reads cannot differ.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::job::{PlayId, TaskRef};
use crate::listing::Entry;
use crate::outcome::{Effort, HostProblem, Outcome};
use crate::rows::Row;
use crate::target::HostName;
use crate::transfer::{Progress, Tally};

/// An event with its place in the order of the run.
#[derive(Debug, Clone)]
pub struct Event {
    /// Number of the event's first NDJSON object, from 0. A block of n lines takes n numbers.
    pub seq: u64,
    /// Time since the run began, by a monotonic clock.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// The run begins. Always the first.
    RunStart(Arc<RunInfo>),
    /// A connection is being opened.
    HostConnecting {
        /// Which host.
        host: HostName,
        /// `user@address:port`, or `local`.
        address: String,
    },
    /// The host is connected and authenticated.
    HostReady {
        /// Which host.
        host: HostName,
        /// From the start of the attempt.
        took: Duration,
        /// Attempts before this one that the server dropped unauthenticated.
        retries: u32,
    },
    /// The host could not be worked on. [`crate::outcome::Cause::is_refused`] tells `host_refused`
    /// from `host_unreachable`.
    HostProblem {
        /// Which host.
        host: HostName,
        /// Why.
        problem: HostProblem,
    },
    /// A play begins.
    PlayStart {
        /// Which play.
        play: PlayId,
        /// Its name.
        name: Arc<str>,
        /// How many hosts it has.
        hosts: usize,
    },
    /// A batch of hosts begins: of a play, or of one task.
    BatchStart {
        /// Which play.
        play: PlayId,
        /// The task, where only that is done in batches.
        task: Option<TaskRef>,
        /// Counted from 1.
        number: u32,
        /// How many hosts it has.
        hosts: usize,
    },
    /// A task begins on a host.
    TaskStart {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
    },
    /// The host wrote something.
    Output {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
        /// What it wrote.
        block: Block,
    },
    /// A listing found files.
    Entries {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
        /// What it found: at least one. The order is that of the server's answers.
        entries: Arc<[Entry]>,
    },
    /// Output became rows. The lines that they were made of came before.
    Rows {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
        /// The number of the first row, from 1, counted per host and task.
        first: u64,
        /// At least one.
        rows: Arc<[Row]>,
    },
    /// A transfer has come so far. At most a few a second for each task.
    Progress {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
        /// How far.
        progress: Progress,
    },
    /// Text of a `print` task.
    Print {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
        /// The text, printable, possibly several lines.
        text: String,
    },
    /// An attempt failed in a way that may be tried again.
    Retry {
        /// Which host.
        host: HostName,
        /// The task that is tried again; `None` where it is the connection.
        task: Option<TaskRef>,
        /// Which attempt comes next, from 2.
        attempt: u32,
        /// How long is waited before it.
        delay: Duration,
        /// Why the last one failed.
        reason: String,
    },
    /// A task ended on a host. One for every `TaskStart`.
    TaskEnd {
        /// Which host.
        host: HostName,
        /// Which task.
        task: TaskRef,
        /// How it ended.
        outcome: Outcome,
        /// Time since its `TaskStart`.
        took: Duration,
        /// What it moved or found, for tasks on files; also where it failed.
        tally: Option<Tally>,
        /// It failed, and the `rescue` of its block takes over: the host goes on.
        rescued: bool,
        /// How often it was tried, and what became of the values of its `loop`.
        effort: Effort,
    },
    /// Nothing more will happen on a host.
    HostEnd {
        /// Which host.
        host: HostName,
        /// How it stands.
        state: HostState,
        /// Tasks of this host that were never started.
        not_started: u32,
    },
    /// Something worth a person's eye that changes no outcome.
    Diagnostic {
        /// The host it is about, if one.
        host: Option<HostName>,
        /// How grave.
        severity: Severity,
        /// One line.
        message: String,
    },
    /// Nothing has happened for a while; the run goes on.
    Heartbeat {
        /// Hosts at work.
        running: u32,
        /// Hosts not begun.
        queued: u32,
        /// The task that has run longest, and for how long.
        longest: Option<(HostName, TaskRef, Duration)>,
    },
    /// The run is over. Always the last, also after Ctrl-C.
    RunEnd {
        /// Signal that ended it, if one did.
        signal: Option<u32>,
        /// A policy that ended it early, in words: `deadline of 10m passed`.
        stopped_by: Option<String>,
        /// The process's exit code.
        code: u8,
    },
}

/// What is known when a run begins.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// What is run: the playbook's path, or the command of `exec`.
    pub title: String,
    /// The hosts, in inventory order.
    pub hosts: Vec<HostName>,
    /// Number of tasks over all plays.
    pub tasks: usize,
    /// Hosts worked on at once.
    pub fanout: usize,
    /// Wall clock at the start, in seconds since 1970 (UTC).
    pub started: u64,
    /// The files that said what to do: the playbook and what it includes.
    pub files: Vec<ReadFile>,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFile {
    /// As it was named.
    pub path: String,
    /// Of its bytes; lower-case hexadecimal.
    pub sha256: String,
}

/// A run of output lines from one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Which stream.
    pub stream: Stream,
    /// Number of the first line in this block, from 1, counted per host, task and stream. A piece
    /// of a long line counts as a line.
    pub first_line: u64,
    /// How many lines (or pieces) there are: at least 1.
    pub lines: u32,
    /// The exact bytes, line ends included. See [`Block::lines`] for how they are cut.
    pub bytes: Bytes,
}

/// The two output streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a host stands when nothing more will happen on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostState {
    /// All its tasks are done and none failed.
    Ok,
    /// A task failed, timed out, was lost, or hit a bug.
    Failed,
    /// It could not be reached.
    Unreachable,
    /// Its identity or our authentication was refused.
    Refused,
    /// It was stopped, or never begun because the run was stopped.
    Cancelled,
    /// A bug in fanrun ended its lane.
    Internal,
}

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the curious (`-v`).
    Note,
    /// Something is not as it should be; the outcome stands.
    Warning,
    /// Something went wrong beside the work: a report could not be written.
    Error,
}

/// One line, or one piece of a line too long to keep whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The bytes without the line end.
    pub text: &'a [u8],
    /// How it ended.
    pub end: LineEnd,
}

/// What stood at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r` alone: a progress line that the next one would overwrite.
    Cr,
    /// Nothing: the stream ended here, or the line goes on in the next piece.
    None,
}

impl LineEnd {
    /// The bytes of the line end.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
            Self::Cr => "\r",
            Self::None => "",
        }
    }
}

impl Block {
    /// The same lines in blocks of at most `most` bytes, or of one line that is longer.
    pub fn cut(self, most: usize) -> impl Iterator<Item = Self> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let (mut taken, mut lines) = (0, 0);
            while let Some((line, _)) = cut_line(&rest.bytes[taken..]) {
                let length = line.text.len() + line.end.as_str().len();
                if lines > 0 && taken + length > most {
                    break;
                }
                (taken, lines) = (taken + length, lines + 1);
            }
            let block = Self {
                lines,
                bytes: rest.bytes.split_to(taken),
                ..rest.clone()
            };
            rest.first_line += u64::from(lines);
            (lines > 0).then_some(block)
        })
    }

    /// The lines, in order. Joining every `text` and `end` gives `bytes` back.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut rest: &[u8] = &self.bytes;
        std::iter::from_fn(move || {
            let (line, after) = cut_line(rest)?;
            rest = after;
            Some(line)
        })
    }
}

/// Cuts the first line off `bytes`; `None` when there is nothing left.
#[must_use]
pub fn cut_line(bytes: &[u8]) -> Option<(Line<'_>, &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let Some(at) = memchr::memchr2(b'\n', b'\r', bytes) else {
        return Some((
            Line {
                text: bytes,
                end: LineEnd::None,
            },
            &[],
        ));
    };
    let (text, rest) = bytes.split_at(at);
    let end = match rest {
        [b'\r', b'\n', ..] => LineEnd::CrLf,
        [b'\r', ..] => LineEnd::Cr,
        _ => LineEnd::Lf,
    };
    Some((Line { text, end }, &rest[end.as_str().len()..]))
}

impl What {
    /// How many sequence numbers this event takes.
    #[must_use]
    pub fn span(&self) -> u64 {
        match self {
            Self::Output { block, .. } => u64::from(block.lines),
            Self::Entries { entries, .. } => entries.len() as u64,
            Self::Rows { rows, .. } => rows.len() as u64,
            _ => 1,
        }
    }
}

impl HostState {
    /// The word used in events and recaps.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}
