//! A session that does what a test tells it to: each process plays back a script, and all that the
//! session is asked to do is told to the test.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{Ending, ProcessEvent, Signal, Spawn, SpawnError, Sweep};
use crate::event::Stream;
use crate::job::Command;

/// How many requests are kept for the test to read; later ones are not recorded.
const RECORDS: usize = 1024;

/// What the next process does.
#[derive(Debug)]
pub enum Script {
    /// It starts, and takes these steps.
    Runs(Vec<Step>),
    /// It does not start.
    Refuses(SpawnError),
}

/// One step of a process.
#[derive(Debug)]
pub enum Step {
    /// It writes.
    Output(Stream, Bytes),
    /// Nothing happens until the test gives notice.
    Wait(Arc<Notify>),
    /// Nothing happens until the process is signalled or swept.
    UntilSignalled,
    /// It ends. Later steps are not taken.
    Ended(Ending),
}

/// What the session was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To start this.
    Start(Command),
    /// To signal the process.
    Signal(Signal),
    /// To sweep the process.
    Sweep(Signal),
    /// To close the process.
    Close,
}

/// A session of scripts.
#[derive(Debug)]
pub struct ScriptedSession {
    scripts: VecDeque<Script>,
    sweeps: VecDeque<Sweep>,
    asked: mpsc::Sender<Asked>,
}

/// A process of a script.
#[derive(Debug)]
pub struct ScriptedProcess {
    steps: VecDeque<Step>,
    ended: Option<Ending>,
    signalled: AtomicBool,
    asked: mpsc::Sender<Asked>,
}

impl ScriptedSession {
    /// A session that plays `scripts` one after the other, and a record of what it is asked.
    #[must_use]
    pub fn new(scripts: Vec<Script>) -> (Self, mpsc::Receiver<Asked>) {
        let (asked, record) = mpsc::channel(RECORDS);
        let session = Self {
            scripts: scripts.into(),
            sweeps: VecDeque::new(),
            asked,
        };
        (session, record)
    }

    /// What the next sweeps find; later ones find nothing left.
    #[must_use]
    pub fn with_sweeps(mut self, sweeps: Vec<Sweep>) -> Self {
        self.sweeps = sweeps.into();
        self
    }

    /// Starts the next script.
    ///
    /// # Errors
    /// The script's own, or [`SpawnError::NotStarted`] when there is no script left.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn start(&mut self, spawn: Spawn) -> Result<ScriptedProcess, SpawnError> {
        let _ = self.asked.try_send(Asked::Start(spawn.command));
        match self.scripts.pop_front() {
            Some(Script::Runs(steps)) => Ok(ScriptedProcess {
                steps: steps.into(),
                ended: None,
                signalled: AtomicBool::new(false),
                asked: self.asked.clone(),
            }),
            Some(Script::Refuses(error)) => Err(error),
            None => Err(SpawnError::NotStarted {
                reason: "no script is left".to_owned(),
            }),
        }
    }

    /// Finds what [`Self::with_sweeps`] said.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn sweep(&mut self, process: &ScriptedProcess, signal: Signal) -> Sweep {
        let _ = self.asked.try_send(Asked::Sweep(signal));
        process.signalled.store(true, Ordering::Relaxed);
        self.sweeps.pop_front().unwrap_or(Sweep::Signalled(0))
    }
}

impl ScriptedProcess {
    /// What it does next. Cancel-safe. After [`ProcessEvent::Ended`] it gives that again. A script
    /// that just stops is a connection that was lost.
    pub async fn next(&mut self) -> ProcessEvent {
        loop {
            if let Some(ending) = &self.ended {
                return ProcessEvent::Ended(ending.clone());
            }
            // A step is taken off only when it is done, so that a cancelled wait is not skipped.
            match self.steps.front() {
                Some(Step::Wait(notice)) => notice.notified().await,
                Some(Step::UntilSignalled) if !self.signalled.load(Ordering::Relaxed) => {
                    std::future::pending::<()>().await;
                }
                Some(Step::UntilSignalled | Step::Output(..) | Step::Ended(_)) | None => {}
            }
            match self.steps.pop_front() {
                Some(Step::Wait(_) | Step::UntilSignalled) => {}
                Some(Step::Output(stream, bytes)) => {
                    return ProcessEvent::Output { stream, bytes };
                }
                Some(Step::Ended(ending)) => self.ended = Some(ending),
                None => {
                    let reason = "the script has no ending".to_owned();
                    self.ended = Some(Ending::Lost { reason });
                }
            }
        }
    }

    /// Records it, and lets a waiting [`Step::UntilSignalled`] go on.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn signal(&mut self, signal: Signal) {
        let _ = self.asked.try_send(Asked::Signal(signal));
        *self.signalled.get_mut() = true;
    }

    /// Records it.
    #[expect(clippy::unused_async, reason = "the same shape as for other sessions")]
    pub async fn close(&mut self) {
        let _ = self.asked.try_send(Asked::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ExitStatus;
    use crate::session::Stdin;

    fn spawn() -> Spawn {
        Spawn {
            command: Command::Shell("true".to_owned()),
            env: Vec::new(),
            cwd: None,
            shell: None,
            stdin: Stdin::Closed,
            hidden: false,
            becomes: None,
        }
    }

    #[tokio::test]
    async fn it_plays_waits_and_records() {
        let notice = Arc::new(Notify::new());
        let ending = Ending::Exited {
            status: ExitStatus::Exited(3),
            lingering: None,
        };
        let said = Bytes::from_static(b"hello\n");
        let (session, mut record) = ScriptedSession::new(vec![Script::Runs(vec![
            Step::Wait(Arc::clone(&notice)),
            Step::Output(Stream::Stderr, said.clone()),
            Step::UntilSignalled,
            Step::Ended(ending.clone()),
        ])]);
        let mut session = session.with_sweeps(vec![Sweep::Unknown]);
        let mut process = session.start(spawn()).await.unwrap();
        tokio::select! {
            biased;
            event = process.next() => panic!("{event:?} came early"),
            () = tokio::task::yield_now() => {}
        }
        notice.notify_one();
        let stream = Stream::Stderr;
        let expected = ProcessEvent::Output {
            stream,
            bytes: said,
        };
        assert_eq!(process.next().await, expected);
        tokio::select! {
            biased;
            event = process.next() => panic!("{event:?} came early"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(session.sweep(&process, Signal::Term).await, Sweep::Unknown);
        assert_eq!(process.next().await, ProcessEvent::Ended(ending.clone()));
        assert_eq!(process.next().await, ProcessEvent::Ended(ending));
        process.signal(Signal::Kill).await;
        process.close().await;
        assert!(session.start(spawn()).await.is_err());
        let start = Asked::Start(Command::Shell("true".to_owned()));
        for asked in [
            start.clone(),
            Asked::Sweep(Signal::Term),
            Asked::Signal(Signal::Kill),
            Asked::Close,
            start,
        ] {
            assert_eq!(record.try_recv().ok(), Some(asked));
        }
    }
}
