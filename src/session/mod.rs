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

mod ahead;
mod command;
mod elevate;
pub mod local;
pub mod scripted;
pub mod ssh;

pub use elevate::Rights;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::event::Stream;
use crate::job::{Become, Command};
use crate::outcome::{ExitStatus, HostProblem};
use crate::target::Dial;

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
    /// It holds what other users of the machine may not see: nothing of it stands on a command
    /// line.
    pub hidden: bool,
    /// The account that it runs as, where that is not the one that is logged in.
    pub becomes: Option<Become>,
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
    /// The command certainly never ran: the account that it was for was not to be had, though its
    /// password was sent. Sending that again may lock the account.
    Denied {
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
    /// No signal: only look what is left.
    Probe,
}

impl Signal {
    /// Without `SIG`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Probe => "0",
        }
    }
}

/// What one sweep over a process's group and descendants found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// So many processes were there, and were sent the signal if it is one. 0: all are gone.
    Signalled(u32),
    /// Nothing could be learnt: no second channel, no POSIX shell, a forced command.
    Unknown,
}

/// How hosts are reached.
pub enum Connector {
    /// Over SSH.
    Ssh(ssh::Dialer),
    /// As a test says.
    Scripted(Box<ScriptedDial>),
}

/// Gives a test's session for an address.
pub type ScriptedDial =
    dyn Fn(&Dial) -> Result<scripted::ScriptedSession, HostProblem> + Send + Sync;

impl Connector {
    /// Over SSH.
    #[must_use]
    pub fn ssh(dialer: ssh::Dialer) -> Self {
        Self::Ssh(dialer)
    }

    /// Makes one attempt to open a session, under the dial's deadline.
    ///
    /// # Errors
    /// Why the host cannot be worked on.
    pub async fn connect(&self, dial: &Dial) -> Result<Session, HostProblem> {
        match self {
            Self::Ssh(dialer) => Ok(Session::Ssh(Box::new(dialer.connect(dial).await?))),
            Self::Scripted(script) => Ok(Session::Scripted(script(dial)?)),
        }
    }
}

/// An open way to one host.
pub enum Session {
    /// Over SSH.
    Ssh(Box<ssh::SshSession>),
    /// Children of this process.
    Local(local::LocalSession),
    /// As a test says.
    Scripted(scripted::ScriptedSession),
}

/// A running process.
pub enum Process {
    /// On an SSH channel.
    Ssh(Box<ssh::SshProcess>),
    /// A child of this process.
    Local(Box<local::LocalProcess>),
    /// As a test says.
    Scripted(scripted::ScriptedProcess),
    /// One of these, behind `sudo` or the like.
    Elevated(Box<elevate::Elevated>),
}

impl Session {
    /// A further connection to the host, where one is ever needed, takes one of these places while
    /// it is opened.
    pub fn share_places(&mut self, places: &Arc<Semaphore>) {
        match self {
            Self::Ssh(session) => session.share_places(places),
            Self::Local(_) | Self::Scripted(_) => {}
        }
    }

    /// This machine.
    #[must_use]
    pub fn local() -> Self {
        Self::Local(local::LocalSession::new())
    }

    /// Starts a process.
    ///
    /// # Errors
    /// [`SpawnError`]; in every case the command certainly never ran.
    pub async fn start(&mut self, spawn: Spawn) -> Result<Process, SpawnError> {
        if let Some(becomes) = &spawn.becomes {
            let becomes = becomes.clone();
            let (spawn, door) = elevate::through(spawn, becomes)
                .map_err(|reason| SpawnError::NotStarted { reason })?;
            let process = Box::pin(self.start(spawn)).await?;
            return Ok(Process::Elevated(Box::new(door.of(process))));
        }
        Ok(match self {
            Self::Ssh(session) => Process::Ssh(Box::new(session.start(spawn).await?)),
            Self::Local(session) => Process::Local(Box::new(session.start(spawn).await?)),
            Self::Scripted(session) => Process::Scripted(session.start(spawn).await?),
        })
    }

    /// Starts a subsystem (RFC 4254, section 6.5) such as `sftp`; its protocol flows as the
    /// process's input and output. This machine has only `sftp`, by OpenSSH's own server.
    ///
    /// # Errors
    /// [`SpawnError`]; a server that has no such subsystem says so in the process's
    /// [`Ending::NotStarted`].
    pub async fn subsystem(&mut self, name: &str, stdin: Stdin) -> Result<Process, SpawnError> {
        match self {
            Self::Ssh(session) => {
                let process = session.subsystem(name, stdin).await?;
                Ok(Process::Ssh(Box::new(process)))
            }
            Self::Local(_) | Self::Scripted(_) => {
                let command = Command::Argv(vec![local::subsystem(name)?]);
                self.start(Spawn {
                    command,
                    env: Vec::new(),
                    cwd: None,
                    shell: None,
                    stdin,
                    hidden: false,
                    becomes: None,
                })
                .await
            }
        }
    }

    /// The same over a second connection to the host, if one is to be had.
    pub async fn subsystem_beside(&mut self, name: &str, stdin: Stdin) -> Option<Process> {
        match self {
            Self::Ssh(session) => {
                let process = session.subsystem_beside(name, stdin).await?;
                Some(Process::Ssh(Box::new(process)))
            }
            Self::Local(_) | Self::Scripted(_) => None,
        }
    }

    /// Signals all that is left of a process, on a way of its own, and counts it. What the process
    /// does meanwhile goes to `meanwhile`: its channel has to be read, or it would block the very
    /// connection that the sweep uses.
    pub async fn sweep(
        &mut self,
        process: &mut Process,
        signal: Signal,
        mut meanwhile: impl FnMut(ProcessEvent),
    ) -> Sweep {
        let rights = match process {
            Process::Elevated(elevated) => Some(elevated.rights()),
            Process::Ssh(_) | Process::Local(_) | Process::Scripted(_) => None,
        };
        match (self, process) {
            (Self::Ssh(session), process) => {
                let Some(id) = process.channel() else {
                    return Sweep::Unknown;
                };
                let mut work = std::pin::pin!(session.sweep(id, signal, rights.as_ref()));
                let mut ended = false;
                loop {
                    let event = tokio::select! {
                        biased;
                        found = &mut work => return found,
                        event = process.next(), if !ended => event,
                    };
                    ended = matches!(event, ProcessEvent::Ended(_));
                    meanwhile(event);
                }
            }
            (Self::Local(session), Process::Local(process)) => session.sweep(process, signal).await,
            (Self::Scripted(session), Process::Scripted(process)) => {
                session.sweep(process, signal).await
            }
            // A process of another session, or one of another account of this machine: nothing can
            // be learnt here.
            (Self::Local(_) | Self::Scripted(_), _) => Sweep::Unknown,
        }
    }

    /// Gets ready for a further process, so that starting it costs no round trip of its own.
    pub async fn prepare(&mut self) {
        match self {
            Self::Ssh(session) => session.prepare().await,
            Self::Local(_) | Self::Scripted(_) => {}
        }
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Ssh(session) => session.is_closed(),
            Self::Local(_) | Self::Scripted(_) => false,
        }
    }

    /// What was odd since the last call; each one line.
    pub fn take_warnings(&mut self) -> Vec<String> {
        match self {
            Self::Ssh(session) => session.take_warnings(),
            Self::Local(_) | Self::Scripted(_) => Vec::new(),
        }
    }

    /// Ends the connection politely; bounded.
    pub async fn close(self) {
        match self {
            Self::Ssh(session) => session.close().await,
            Self::Local(_) | Self::Scripted(_) => {}
        }
    }

    /// Ends the connection now.
    pub fn abort(&self) {
        match self {
            Self::Ssh(session) => session.abort(),
            Self::Local(_) | Self::Scripted(_) => {}
        }
    }
}

impl Process {
    /// What it does next. Cancel-safe. [`ProcessEvent::Ended`] is the last.
    pub async fn next(&mut self) -> ProcessEvent {
        match self {
            Self::Ssh(process) => process.next().await,
            Self::Local(process) => process.next().await,
            Self::Scripted(process) => process.next().await,
            Self::Elevated(process) => process.next().await,
        }
    }

    /// Asks the other side to signal it; never waits for long.
    pub async fn signal(&mut self, signal: Signal) {
        match self {
            Self::Ssh(process) => process.signal(signal).await,
            Self::Local(process) => process.signal(signal).await,
            Self::Scripted(process) => process.signal(signal).await,
            Self::Elevated(process) => process.signal(signal).await,
        }
    }

    /// Gives it up: nothing more is read or written.
    pub async fn close(&mut self) {
        match self {
            Self::Ssh(process) => process.close().await,
            Self::Local(process) => process.close().await,
            Self::Scripted(process) => process.close().await,
            Self::Elevated(process) => process.close().await,
        }
    }

    /// The SSH channel that it is on.
    fn channel(&self) -> Option<ssh::ChannelId> {
        match self {
            Self::Ssh(process) => Some(process.id()),
            Self::Elevated(process) => process.process().channel(),
            Self::Local(_) | Self::Scripted(_) => None,
        }
    }
}
