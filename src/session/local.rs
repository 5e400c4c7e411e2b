//! Children of this process.
//!
//! Every child leads a process group of its own, so that it and what it starts can be ended
//! together, and gets only descriptors 0 to 2. Its two outputs come through pipes of their own.
//!
//! A child that has ended may leave others behind that hold its pipes open. They are waited for
//! [`DRAIN_GRACE`] after the last output, [`DRAIN_LIMIT`] at most, and then named. Whatever was in
//! the pipes when the child ended is always given out.

mod child_pipe;
mod spawning;
mod table;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal as OsSignal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::child_pipe::ChildPipe;
use self::table::{Table, Who};
use super::{Ending, ProcessEvent, Signal, Spawn, SpawnError, Stdin, Sweep};
use crate::event::Stream;
use crate::outcome::{ExitStatus, signal_name};

/// How long after the last output a child that has ended is still listened to, while something else
/// holds its output open.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// How long a child that has ended is listened to at most.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long [`LocalProcess::close`] waits for a killed child. Only one that is stuck in the kernel
/// takes longer than a moment.
const REAP_LIMIT: Duration = Duration::from_secs(2);

/// How often one sweep with KILL, or a stop, looks for processes that were started while it
/// signalled others.
const ROUNDS: usize = 8;

/// Starts children here.
#[derive(Debug, Default)]
pub struct LocalSession {
    /// Descendants found by earlier sweeps, by the child that they came from. One whose parent has
    /// ended can no longer be traced back to it.
    found: Vec<(Who, Vec<Who>)>,
}

/// A child of this process. Dropped before its end, it is killed with its group, and reaped.
#[derive(Debug)]
pub struct LocalProcess {
    child: Child,
    /// The child, whose id is also its group's.
    leader: Who,
    stdout: ChildPipe<ChildStdout>,
    stderr: ChildPipe<ChildStderr>,
    stdin: Option<JoinHandle<()>>,
    drain: Drain,
    exit: Option<Exit>,
    lingering: Option<String>,
}

/// How long a child that has ended is listened to.
#[derive(Debug, Clone, Copy)]
struct Drain {
    grace: Duration,
    limit: Duration,
}

/// The child has ended.
#[derive(Debug)]
struct Exit {
    status: ExitStatus,
    /// When it was seen.
    at: Instant,
    /// When last it, or what it left behind, wrote.
    last_output: Instant,
}

/// What [`LocalProcess::next`] waits for.
enum Step {
    Stdout(Option<Bytes>),
    Stderr(Option<Bytes>),
    Exit(io::Result<std::process::ExitStatus>),
    GraceOver,
}

/// Keeps descriptors that this process inherited, such as a CI runner's sockets, from being passed
/// on to children. Rust opens everything close-on-exec; what was open before `main` is not. To be
/// called once, when the program starts.
pub fn seal_inherited_descriptors() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// Unblocks all signals, in case our parent had blocked some: children would start with them
/// blocked and could not be ended by TERM. To be called when the program starts, before it has
/// threads.
///
/// # Errors
/// The system refused, which it has no documented reason to.
pub fn unblock_inherited_signals() -> io::Result<()> {
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(io::Error::from)
}

/// Processes that are stopped for as long as this one is.
#[derive(Debug)]
#[must_use = "they would stay stopped"]
pub struct Stopped(Vec<Who>);

/// Stops all that descends from this process, because it is to be stopped itself: its children
/// lead groups of their own, which a terminal's `^Z` does not reach. What is stopped already is
/// somebody else's to continue. Finds nothing where there is no `/proc`.
pub fn stop_descendants() -> Stopped {
    let mut stopped: Vec<Who> = Vec::new();
    for _ in 0..ROUNDS {
        let mut fresh = Table::read().map_or_else(|_| Vec::new(), |table| table.ours_that_run());
        fresh.retain(|who| !stopped.contains(who));
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|who| who.stop());
        stopped.extend(fresh);
    }
    Stopped(stopped)
}

impl Stopped {
    /// Continues them. A parent comes after its children, so that a shell among them finds none
    /// that is stopped.
    pub fn go_on(self) {
        self.0.into_iter().rev().for_each(Who::go_on);
    }
}

/// Where systems put OpenSSH's SFTP server: Debian, Fedora and macOS, Arch and Alpine, SUSE, BSD.
const SFTP_SERVERS: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// The program of a subsystem on this machine.
pub(super) fn subsystem(name: &str) -> Result<String, SpawnError> {
    let found = SFTP_SERVERS
        .iter()
        .find(|path| name == "sftp" && std::path::Path::new(path).exists());
    match found {
        Some(path) => Ok((*path).to_owned()),
        None => Err(SpawnError::NotStarted {
            reason: format!(
                "this machine has no `{name}` server that fanrun knows; \
                 OpenSSH's sftp-server is needed to work on local files"
            ),
        }),
    }
}

impl LocalSession {
    /// A session with this machine. Opens nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a child. Returns when its program has been loaded.
    ///
    /// Shell text is run by `spawn.shell`, or `/bin/sh -c`. Variables are added to our own.
    ///
    /// # Errors
    /// [`SpawnError::NotStarted`] says what is missing: the program, its interpreter, its rights,
    /// its directory, or room for another process.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn start(&mut self, spawn: Spawn) -> Result<LocalProcess, SpawnError> {
        let (mut child, ahead) = spawning::start(&spawn)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (Some(pid), Some(stdout), Some(stderr)) =
            (pid, child.stdout.take(), child.stderr.take())
        else {
            return Err(SpawnError::NotStarted {
                reason: "the child has no process id or no pipes".to_owned(),
            });
        };
        let leader = Who::leader(pid);
        // An earlier child had the same number.
        self.found.retain(|(of, _)| *of != leader);
        let stdin = child.stdin.take().map(|to| feed(to, ahead, spawn.stdin));
        Ok(LocalProcess {
            child,
            leader,
            drain: Drain {
                grace: DRAIN_GRACE,
                limit: DRAIN_LIMIT,
            },
            stdout: ChildPipe::new(stdout),
            stderr: ChildPipe::new(stderr),
            stdin,
            exit: None,
            lingering: None,
        })
    }

    /// Signals all that is left of a process: its group, and descendants that left the group, as
    /// far as they can be traced through parents that live or through an earlier sweep. KILL also
    /// goes to processes that appear meanwhile; TERM does not, for they may be somebody's clean-up.
    ///
    /// Gives the number of processes that were there, each signalled once; zombies are gone. One
    /// that we may not signal (another user's) counts. This process itself is never among them.
    /// [`Sweep::Unknown`] where there is no `/proc`.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn sweep(&mut self, process: &LocalProcess, signal: Signal) -> Sweep {
        let known = self.known(process.leader);
        let mut signalled: Vec<Who> = Vec::new();
        let rounds = match signal {
            Signal::Term | Signal::Probe => 1,
            Signal::Kill => ROUNDS,
        };
        for _ in 0..rounds {
            let Ok(table) = Table::read() else {
                process.signal_group(signal);
                return Sweep::Unknown;
            };
            known.retain(|who| table.is_alive(*who));
            let reaped = process.exit.is_some();
            let all = table.family(process.leader, reaped, known);
            known.clone_from(&all);
            let fresh: Vec<Who> = all
                .into_iter()
                .filter(|who| !signalled.contains(who))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for who in &fresh {
                who.signal(signal);
            }
            signalled.extend(fresh);
        }
        Sweep::Signalled(u32::try_from(signalled.len()).unwrap_or(u32::MAX))
    }

    /// What earlier sweeps found of `leader`'s descendants. Remembered for the latest few children.
    fn known(&mut self, leader: Who) -> &mut Vec<Who> {
        const CHILDREN: usize = 16;
        let at = self.found.iter().position(|(of, _)| *of == leader);
        let at = at.unwrap_or_else(|| {
            if self.found.len() == CHILDREN {
                self.found.remove(0);
            }
            self.found.push((leader, Vec::new()));
            self.found.len() - 1
        });
        &mut self.found[at].1
    }
}

impl LocalProcess {
    /// What it does next. Cancel-safe. After [`ProcessEvent::Ended`] it gives that again.
    pub async fn next(&mut self) -> ProcessEvent {
        loop {
            if let Some(ending) = self.ending() {
                self.stop_feeding();
                return ProcessEvent::Ended(ending);
            }
            match self.step().await {
                Step::Stdout(Some(bytes)) => return self.output(Stream::Stdout, bytes),
                Step::Stderr(Some(bytes)) => return self.output(Stream::Stderr, bytes),
                Step::Stdout(None) | Step::Stderr(None) => {}
                Step::Exit(Ok(status)) => self.exited(status),
                Step::Exit(Err(error)) => {
                    let reason = format!("the child's status cannot be read: {error}");
                    return ProcessEvent::Ended(Ending::Lost { reason });
                }
                Step::GraceOver => {
                    if let Some(event) = self.take_the_rest() {
                        return event;
                    }
                }
            }
        }
    }

    /// Sends a signal to the child's group, if anything is left of it. A stopped process is woken,
    /// so that it can act on TERM.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn signal(&mut self, signal: Signal) {
        self.signal_group(signal);
    }

    /// Kills the group if the child has not ended, reaps the child, and reads no more. A child that
    /// has ended before keeps what it left behind.
    pub async fn close(&mut self) {
        if self.exit.is_none() {
            self.signal_group(Signal::Kill);
            if let Ok(Ok(status)) = tokio::time::timeout(REAP_LIMIT, self.child.wait()).await {
                self.exited(status);
            }
        }
        self.stop_feeding();
        self.stdout.close();
        self.stderr.close();
    }

    /// Waits for one thing. Every branch is cancel-safe and keeps its progress in `self`.
    async fn step(&mut self) -> Step {
        let running = self.exit.is_none();
        let deadline = self.exit.as_ref().map(|exit| self.drain.deadline(exit));
        let grace = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = self.stdout.read(), if self.stdout.is_open() => Step::Stdout(read),
            read = self.stderr.read(), if self.stderr.is_open() => Step::Stderr(read),
            status = self.child.wait(), if running => Step::Exit(status),
            () = grace => Step::GraceOver,
        }
    }

    /// How it ended, once that is known and all output has been given out.
    fn ending(&self) -> Option<Ending> {
        let exit = self.exit.as_ref()?;
        if self.stdout.is_open() || self.stderr.is_open() {
            return None;
        }
        Some(Ending::Exited {
            status: exit.status.clone(),
            lingering: self.lingering.clone(),
        })
    }

    fn output(&mut self, stream: Stream, bytes: bytes::Bytes) -> ProcessEvent {
        if let Some(exit) = &mut self.exit {
            exit.last_output = Instant::now();
        }
        ProcessEvent::Output { stream, bytes }
    }

    fn exited(&mut self, status: std::process::ExitStatus) {
        let now = Instant::now();
        self.stdout.note_exit();
        self.stderr.note_exit();
        self.exit = Some(Exit {
            status: meaning(status),
            at: now,
            last_output: now,
        });
    }

    /// The grace is over. Gives out what is still in the pipes; when that is done, names who holds
    /// them and closes them.
    fn take_the_rest(&mut self) -> Option<ProcessEvent> {
        let over = self
            .exit
            .as_ref()
            .is_some_and(|exit| exit.at.elapsed() >= self.drain.limit);
        // A slow reader may come back long after the end, so the clock alone decides nothing: what
        // the child wrote is in the pipe and is owed.
        if let Some(bytes) = self.stdout.read_now(over) {
            return Some(self.output(Stream::Stdout, bytes));
        }
        if let Some(bytes) = self.stderr.read_now(over) {
            return Some(self.output(Stream::Stderr, bytes));
        }
        let pipes = [self.stdout.inode(), self.stderr.inode()];
        if pipes.iter().any(Option::is_some) {
            self.lingering = Some(table::who_holds(&pipes));
        }
        self.stdout.close();
        self.stderr.close();
        None
    }

    /// Signals the group, unless its number may belong to somebody else by now.
    fn signal_group(&self, signal: Signal) {
        // The number of a group that still has members is not given to a new process. So once the
        // child has been reaped, a process of that number shows that the group was gone.
        if self.exit.is_some() && self.leader.pid_is_taken() {
            return;
        }
        // An error means that nobody is left, or that nobody left is ours to signal.
        if let Some(number) = os_signal(signal) {
            let _ = kill_process_group(self.leader.pid, number);
        }
        if signal == Signal::Term {
            let _ = kill_process_group(self.leader.pid, OsSignal::CONT);
        }
    }

    fn stop_feeding(&mut self) {
        if let Some(task) = self.stdin.take() {
            task.abort();
        }
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        self.stop_feeding();
        if self.exit.is_none() {
            // Tokio reaps a child whose handle is gone.
            self.signal_group(Signal::Kill);
        }
    }
}

impl Drain {
    fn deadline(self, exit: &Exit) -> Instant {
        (exit.last_output + self.grace).min(exit.at + self.limit)
    }
}

/// None for a mere look.
fn os_signal(signal: Signal) -> Option<OsSignal> {
    match signal {
        Signal::Term => Some(OsSignal::TERM),
        Signal::Kill => Some(OsSignal::KILL),
        Signal::Probe => None,
    }
}

/// Writes the input in a task of its own: a child that does not read must not keep its output from
/// being read. A child that stops reading (EPIPE) is no error.
fn feed(mut to: ChildStdin, ahead: Option<Bytes>, stdin: Stdin) -> JoinHandle<()> {
    use tokio::io::AsyncWriteExt as _;
    tokio::spawn(async move {
        if let Some(ahead) = ahead
            && to.write_all(&ahead).await.is_err()
        {
            return;
        }
        match stdin {
            Stdin::Closed => {}
            Stdin::Bytes(bytes) => {
                let _ = to.write_all(&bytes).await;
            }
            Stdin::Stream(mut blocks) => {
                while let Some(bytes) = blocks.recv().await {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        }
    })
}

fn meaning(status: std::process::ExitStatus) -> ExitStatus {
    match (status.signal(), status.code()) {
        (Some(number), _) => ExitStatus::Signaled {
            name: signal_name(number.cast_unsigned())
                .map_or_else(|| number.to_string(), str::to_owned),
            core_dumped: status.core_dumped(),
        },
        (None, Some(code)) => ExitStatus::Exited(code.cast_unsigned()),
        // `wait` reports only ends, and an end has one or the other.
        (None, None) => ExitStatus::Signaled {
            name: format!("unknown ({})", status.into_raw()),
            core_dumped: false,
        },
    }
}

#[cfg(test)]
mod tests;
