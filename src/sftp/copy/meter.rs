//! How far a copy is, and how fast it may be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::transfer::{CurrentFile, Progress};

/// Files above this size are told by name.
const LARGE: u64 = 10 << 20;
/// A throttle lets through at once what it would in this time, so that a timer is set for each
/// such stretch and not for each piece.
const STRETCH: Duration = Duration::from_millis(50);

/// Counts what is done. Read by whoever shows it while the copy goes on.
#[derive(Debug, Default)]
pub struct Meter {
    files: AtomicU64,
    files_total: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
    /// Nothing more will be found.
    counted: AtomicBool,
    current: Mutex<Option<CurrentFile>>,
}

impl Meter {
    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counted = self.counted.load(Ordering::Relaxed);
        Progress {
            files: read(&self.files),
            files_total: counted.then(|| read(&self.files_total)),
            bytes: read(&self.bytes),
            bytes_total: counted.then(|| read(&self.bytes_total)),
            current: self.current().clone(),
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<CurrentFile>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn found(&self, bytes: u64) {
        self.files_total.fetch_add(1, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn found_all(&self) {
        self.counted.store(true, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was not moved because it was there already.
    pub(super) fn spared(&self, bytes: u64) {
        self.bytes_total.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A file is `done` bytes far of `total`.
    pub(super) fn at(&self, path: impl FnOnce() -> String, done: u64, total: u64) {
        if total < LARGE {
            return;
        }
        let mut current = self.current();
        match &mut *current {
            // Of several the one that was begun first is told until it is done.
            Some(known) if known.bytes < known.total => {
                let path = path();
                if known.path == path {
                    known.bytes = done;
                }
            }
            Some(_) | None => {
                *current = Some(CurrentFile {
                    path: path(),
                    bytes: done,
                    total,
                });
            }
        }
    }
}

/// A bound on bytes a second, for all that share it.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    rate: u64,
    /// Nanoseconds after `began` at which all that was let through is due.
    due: AtomicU64,
}

impl Throttle {
    /// Lets `rate` bytes a second through; at least 1.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self {
            began: Instant::now(),
            rate: rate.max(1),
            due: AtomicU64::new(0),
        }
    }

    /// Waits until so many bytes may go.
    pub(super) async fn take(&self, bytes: usize) {
        let costs = (bytes as u128 * 1_000_000_000 / u128::from(self.rate)) as u64;
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Time in which nothing went is not saved up.
        let later = |due: u64| Some(due.max(now).saturating_add(costs));
        let due = self
            .due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later)
            .unwrap_or_else(|due| due);
        let wait = Duration::from_nanos(due.saturating_sub(now));
        if wait > STRETCH {
            tokio::time::sleep(wait - STRETCH).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_throttle_is_shared() {
        let throttle = Throttle::new(1 << 20);
        let began = Instant::now();
        let one = async {
            for _ in 0..16 {
                throttle.take(128 << 10).await;
            }
        };
        tokio::join!(one, async {
            for _ in 0..16 {
                throttle.take(128 << 10).await;
            }
        });
        // 4 MiB at 1 MiB a second; the last piece need not be waited for.
        let took = began.elapsed().as_secs_f64();
        assert!((3.5..4.1).contains(&took), "{took}");
    }

    #[test]
    fn the_first_large_file_is_told_until_it_is_done() {
        let meter = Meter::default();
        meter.at(|| "small".into(), 1, 1000);
        assert_eq!(meter.progress().current, None);
        meter.at(|| "a".into(), 0, 20 << 20);
        meter.at(|| "b".into(), 5, 30 << 20);
        assert_eq!(meter.progress().current.map(|c| c.path), Some("a".into()));
        meter.at(|| "a".into(), 20 << 20, 20 << 20);
        meter.at(|| "b".into(), 6, 30 << 20);
        let current = meter.progress().current;
        assert_eq!(current.map(|c| (c.path, c.bytes)), Some(("b".into(), 6)));
    }
}
