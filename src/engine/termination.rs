//! Ending a process: a ladder that trusts no rung.
//!
//! The signal request alone is not enough: OpenSSH before 10.0 refuses it for root, dropbear
//! signals only the shell, and dropping the connection stops nothing that does not write. So each
//! rung sweeps over the command's processes on a second way, and believes only a sweep that finds
//! nothing; the request is made where no sweep is possible, and then a status that comes back is
//! believed. Never the request first: it may end the leader, whose orphans no sweep can find that
//! has not seen them before. What is left after KILL is reported as perhaps running.
//!
//! All the while the process's output is read: an undrained channel would block the very sweep.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::Level;
use crate::event::Stream;
use crate::outcome::Remains;
use crate::session::{Ending, Process, ProcessEvent, Session, Signal, Sweep};

/// Between TERM and KILL.
pub const GRACE: Duration = Duration::from_secs(5);
/// Between KILL and giving up.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// First look after a signal; each further one waits twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(20);

/// One process that is being ended.
pub(super) struct Ladder<'a, F> {
    session: &'a mut Session,
    process: &'a mut Process,
    cancel: &'a mut watch::Receiver<Level>,
    /// Receives what the process still writes.
    output: F,
    ended: Option<Ending>,
}

impl<'a, F: FnMut(Stream, Bytes)> Ladder<'a, F> {
    pub(super) fn new(
        session: &'a mut Session,
        process: &'a mut Process,
        cancel: &'a mut watch::Receiver<Level>,
        output: F,
    ) -> Self {
        Self {
            session,
            process,
            cancel,
            output,
            ended: None,
        }
    }

    /// Climbs the ladder; returns what is known at its end.
    pub(super) async fn climb(mut self) -> Remains {
        let hurry = *self.cancel.borrow() == Level::Kill;
        if !hurry && self.rung(Signal::Term, GRACE).await {
            return Remains::Ended;
        }
        if self.rung(Signal::Kill, AFTER_KILL).await {
            return Remains::Ended;
        }
        self.process.close().await;
        Remains::MaybeRunning
    }

    /// One signal, and looks until the grace is over. True when nothing is left.
    async fn rung(&mut self, signal: Signal, grace: Duration) -> bool {
        let until = Instant::now() + grace;
        let mut found = self.sweep(signal).await;
        if found == Sweep::Unknown {
            self.process.signal(signal).await;
        }
        let mut pause = FIRST_LOOK;
        loop {
            match found {
                Sweep::Signalled(0) => return true,
                Sweep::Unknown if self.status_came() => return true,
                Sweep::Signalled(_) | Sweep::Unknown => {}
            }
            let hurry = signal == Signal::Term && *self.cancel.borrow() == Level::Kill;
            if hurry || Instant::now() >= until {
                return false;
            }
            self.read_until(Instant::now() + pause.min(until - Instant::now()))
                .await;
            pause = (pause * 2).min(Duration::from_millis(500));
            // Only a sweep can say that the group is empty; a status says so of its leader alone.
            if found != Sweep::Unknown {
                found = self.sweep(Signal::Probe).await;
            }
        }
    }

    fn status_came(&self) -> bool {
        matches!(
            self.ended,
            Some(Ending::Exited { .. } | Ending::NotStarted { .. } | Ending::Denied { .. })
        )
    }

    async fn sweep(&mut self, signal: Signal) -> Sweep {
        let Self {
            session,
            process,
            output,
            ended,
            ..
        } = self;
        session
            .sweep(process, signal, |event| take(event, ended, output))
            .await
    }

    /// Reads until a time, the process's end, or a higher level.
    async fn read_until(&mut self, until: Instant) {
        let Self {
            process,
            output,
            ended,
            cancel,
            ..
        } = self;
        let before = *cancel.borrow();
        let was_running = ended.is_none();
        let wait = async {
            let harder = cancel.wait_for(|level| *level > before);
            let _ = tokio::time::timeout_at(until, harder).await;
        };
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                biased;
                () = &mut wait => return,
                event = process.next(), if ended.is_none() => take(event, ended, output),
            }
            if was_running && ended.is_some() {
                return;
            }
        }
    }
}

fn take(event: ProcessEvent, ended: &mut Option<Ending>, output: &mut impl FnMut(Stream, Bytes)) {
    match event {
        ProcessEvent::Output { stream, bytes } => output(stream, bytes),
        ProcessEvent::Ended(ending) => *ended = Some(ending),
    }
}
