//! The time that this process has been running, without the time that it was stopped (`^Z`).
//!
//! Limits of tasks and of the run are limits on work, and a stopped fanrun neither shows nor ends
//! any. The system's clocks all count a stop, so it is taken out here. One that was announced
//! ([`Clock::stop`], [`Clock::go_on`]) is taken out exactly. SIGSTOP announces nothing: but the
//! run loop beats every [`BEAT`], and of a longer silence at most [`LONGEST`] counts. A timer
//! that wakes before the loop has beaten again reads the same time as one that wakes after it, so
//! nothing depends on who comes first.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Between two beats.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// What counts at most of the time between two beats. A loaded machine may be late by as much.
const LONGEST: Duration = Duration::from_secs(1);

/// One clock for a run; clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock(watch::Sender<Reading>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    /// The time that had been run by then.
    ran: Duration,
    stopped: bool,
}

impl Reading {
    fn ran(&self, now: Instant) -> Duration {
        if self.stopped {
            return self.ran;
        }
        self.ran + now.saturating_duration_since(self.at).min(LONGEST)
    }

    fn advance(&mut self, stopped: bool) {
        let now = Instant::now();
        *self = Self {
            at: now,
            ran: self.ran(now),
            stopped,
        };
    }
}

impl Clock {
    /// Runs from now on.
    #[must_use]
    pub fn start() -> Self {
        let reading = Reading {
            at: Instant::now(),
            ran: Duration::ZERO,
            stopped: false,
        };
        Self(watch::Sender::new(reading))
    }

    /// This process is about to be stopped.
    pub fn stop(&self) {
        self.0.send_modify(|reading| reading.advance(true));
    }

    /// It runs again.
    pub fn go_on(&self) {
        self.0.send_modify(|reading| reading.advance(false));
    }

    /// It still runs. Wakes nobody.
    pub(super) fn beat(&self) {
        self.0.send_if_modified(|reading| {
            reading.advance(reading.stopped);
            false
        });
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.borrow().stopped
    }

    /// Waits until this process has run for so long.
    pub(super) async fn sleep(&self, time: Duration) {
        let until = self.ran().saturating_add(time);
        let mut readings = self.0.subscribe();
        loop {
            let left = until.saturating_sub(self.ran());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
            // The sender is ours: it cannot be gone.
            let _ = readings.wait_for(|reading| !reading.stopped).await;
        }
    }

    /// Waits for a limit, and gives it; for ever where there is none.
    pub(super) async fn limit(&self, limit: Option<Duration>) -> Duration {
        match limit {
            Some(limit) => {
                self.sleep(limit).await;
                limit
            }
            None => std::future::pending().await,
        }
    }

    fn ran(&self) -> Duration {
        self.0.borrow().ran(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets time pass with a beating loop.
    async fn run(clock: &Clock, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::sleep(BEAT.min(until - Instant::now())).await;
            clock.beat();
        }
    }

    async fn is_over(sleep: &mut tokio::task::JoinHandle<()>) -> bool {
        // Both get a turn: the timer that woke and the one that looks.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        sleep.is_finished()
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_stop_does_not_count() {
        let clock = Clock::start();
        let ours = clock.clone();
        let mut sleep = tokio::spawn(async move { ours.sleep(2 * SECOND).await });
        run(&clock, SECOND).await;
        clock.stop();
        tokio::time::advance(100 * SECOND).await;
        assert!(!is_over(&mut sleep).await);
        clock.go_on();
        run(&clock, SECOND * 9 / 10).await;
        assert!(!is_over(&mut sleep).await);
        run(&clock, SECOND / 5).await;
        assert!(is_over(&mut sleep).await);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_stop_that_nobody_announced_little_counts_whoever_wakes_first() {
        for beats_first in [true, false] {
            let clock = Clock::start();
            let ours = clock.clone();
            let mut sleep = tokio::spawn(async move { ours.sleep(3 * SECOND).await });
            run(&clock, SECOND).await;
            tokio::time::advance(100 * SECOND).await;
            if beats_first {
                clock.beat();
            }
            assert!(!is_over(&mut sleep).await);
            clock.beat();
            run(&clock, 2 * SECOND).await;
            assert!(is_over(&mut sleep).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_never_stopped_has_the_time_of_everybody() {
        let clock = Clock::start();
        run(&clock, 100 * SECOND).await;
        assert_eq!(clock.ran(), 100 * SECOND);
        assert_eq!(clock.limit(Some(SECOND / 2)).await, SECOND / 2);
        assert_eq!(clock.ran(), SECOND * 201 / 2);
    }
}
