//! Signals that ask fanrun to end, as controls of the run; being stopped and continued; and dying
//! by a signal in the end, so that the shell that started fanrun sees what happened.
//!
//! A stop (`^Z`) reaches this process alone: its children lead groups of their own. So TSTP is
//! caught: the live region is erased, the terminal's modes are put back, the children are stopped,
//! and then this process stops itself by the signal that nobody can catch, so that the shell sees
//! a stopped job. CONT undoes all of it in the opposite order.

use std::time::Duration;

use rustix::process::{Signal as OsSignal, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::printer::Curtain;
use super::settings::TerminalState;
use crate::engine::Control;
use crate::engine::clock::Clock;
use crate::session::local;

/// How long the printer may take to erase the live region. It may be held up by its reader.
const CURTAIN: Duration = Duration::from_millis(200);
/// A stop comes within microseconds, or never: the first process of a container cannot be stopped.
const NEVER_STOPPED: Duration = Duration::from_secs(1);

/// What is told of signals, and of stops.
pub(super) struct Audience {
    pub(super) controls: mpsc::Sender<Control>,
    pub(super) curtain: watch::Sender<Curtain>,
    /// Becomes true with the first signal to end.
    pub(super) stop: watch::Sender<bool>,
    pub(super) clock: Clock,
}

/// HUP, INT and TERM become controls from now on, and TSTP stops the whole run. A HUP or TSTP that
/// was ignored when fanrun started (`nohup`) stays ignored.
pub(super) fn watch(audience: Audience) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = unless_ignored(SignalKind::hangup())?;
    let mut stop = unless_ignored(SignalKind::from_raw(OsSignal::TSTP.as_raw()))?;
    let mut stage = Stage {
        continued: signal(SignalKind::from_raw(OsSignal::CONT.as_raw()))?,
        modes: TerminalState::save(),
        audience,
    };
    tokio::spawn(async move {
        loop {
            let kind = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                () = received(&mut hangup) => SignalKind::hangup(),
                () = received(&mut stop) => {
                    stage.stop().await;
                    continue;
                }
                // After a stop by SIGSTOP, which nobody was told of.
                _ = stage.continued.recv() => {
                    stage.go_on().await;
                    continue;
                }
            };
            stage.audience.stop.send_replace(true);
            let number = u32::try_from(kind.as_raw_value()).unwrap_or(0);
            let sent = stage.audience.controls.send(Control::Signal(number)).await;
            if sent.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// All that stops and goes on with this process.
struct Stage {
    audience: Audience,
    continued: Signal,
    /// Of the terminal, before anybody was asked anything.
    modes: TerminalState,
}

impl Stage {
    /// Comes back when this process has been continued.
    async fn stop(&mut self) {
        self.lower_curtain().await;
        // A question may be under way, with the echo off.
        let modes = TerminalState::save();
        self.modes.restore();
        self.audience.clock.stop();
        let stopped = local::stop_descendants();
        self.stop_ourselves().await;
        stopped.go_on();
        modes.restore();
        // Told before time goes on: a beat of the run loop must not come between.
        self.go_on().await;
        self.audience.clock.go_on();
    }

    async fn lower_curtain(&self) {
        let curtain = &self.audience.curtain;
        let mut seen = curtain.subscribe();
        curtain.send_replace(Curtain::Falls);
        let down = seen.wait_for(|curtain| *curtain == Curtain::Down);
        let _ = tokio::time::timeout(CURTAIN, down).await;
    }

    /// The call comes back before the process stands still, so the end of the stop is waited for.
    async fn stop_ourselves(&mut self) {
        // One that came before this stop must not end it.
        tokio::select! {
            biased;
            _ = self.continued.recv() => {}
            () = std::future::ready(()) => {}
        }
        if kill_process(getpid(), OsSignal::STOP).is_ok() {
            let _ = tokio::time::timeout(NEVER_STOPPED, self.continued.recv()).await;
        }
    }

    async fn go_on(&self) {
        self.audience.curtain.send_replace(Curtain::Up);
        // The run may be over.
        let _ = self.audience.controls.send(Control::Continued).await;
    }
}

fn unless_ignored(kind: SignalKind) -> std::io::Result<Option<Signal>> {
    match is_ignored(kind.as_raw_value()) {
        true => Ok(None),
        false => signal(kind).map(Some),
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether this process inherited a signal as ignored (proc(5), `SigIgn`).
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask & (1 << (number - 1)) != 0
}

/// Ends this process by a signal's default action.
pub(super) fn die_by(number: u32) -> std::process::ExitCode {
    let raw = i32::try_from(number).unwrap_or(15);
    // It comes back only if the signal is blocked; then the code says the same.
    let _ = signal_hook::low_level::emulate_default_handler(raw);
    std::process::ExitCode::from(u8::try_from(128 + number).unwrap_or(255))
}
