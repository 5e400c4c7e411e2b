//! Signals that ask fanrun to end, as controls of the run; and dying by one in the end, so that
//! the shell that started fanrun sees what happened.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::engine::Control;

/// HUP, INT and TERM become controls from now on. A HUP that was ignored when fanrun started
/// (`nohup`) stays ignored.
pub(super) fn watch(controls: mpsc::Sender<Control>) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = match is_ignored(SignalKind::hangup().as_raw_value()) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    tokio::spawn(async move {
        loop {
            let kind = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                () = received(&mut hangup) => SignalKind::hangup(),
            };
            let number = u32::try_from(kind.as_raw_value()).unwrap_or(0);
            if controls.send(Control::Signal(number)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
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
