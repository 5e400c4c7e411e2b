//! How many bytes may be in flight.
//!
//! The link's own product of rate and delay, doubled so that there is room to find out that it is
//! more, is enough to keep it busy; beyond that, requests only wait in queues. On a thin link a
//! queue is what kills: 2 MiB at 8 kB/s are four minutes without an answer. So the window starts
//! small, grows each round trip while the rate keeps up, and is never below two requests.

use std::time::{Duration, Instant};

/// Where it begins: four requests of the size that every server takes.
const START: u64 = 128 << 10;
/// Two requests of that size, or one answer could never overlap with the next request.
const LEAST: u64 = 64 << 10;
/// Links shorter than this are treated as this long: it covers a server that is slow to wake up.
const SHORTEST: Duration = Duration::from_millis(60);
/// How many times as large it may become at once. What is wanted was measured from end to end, so
/// a fast link need not be found in small steps.
const GROWTH: u64 = 8;
/// Rates are measured over at least this long.
const SPAN: Duration = Duration::from_millis(20);

/// The window of one client.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    most: u64,
    in_flight: u64,
    fastest: Option<Duration>,
    rate: f64,
    since: Option<Instant>,
    moved: u64,
    full: bool,
}

impl Window {
    pub(super) fn new(most: u64) -> Self {
        Self {
            size: START.min(most.max(LEAST)),
            most: most.max(LEAST),
            in_flight: 0,
            fastest: None,
            rate: 0.0,
            since: None,
            moved: 0,
            full: false,
        }
    }

    /// Whether a request may be sent. One always may when nothing is in flight.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.size
    }

    /// A request goes out.
    pub(super) fn sent(&mut self, cost: u64, now: Instant) {
        if self.in_flight == 0 {
            // Time in which nobody asked for anything says nothing of the link.
            self.since = Some(now);
            self.moved = 0;
        }
        self.in_flight += cost;
        self.full |= !self.has_room();
    }

    /// Its answer has come, `took` after it was sent.
    pub(super) fn answered(&mut self, cost: u64, took: Duration, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(cost);
        self.moved += cost;
        self.fastest = Some(self.fastest.map_or(took, |known| known.min(took)));
        let Some(since) = self.since else { return };
        let span = now.duration_since(since);
        if span < SPAN.max(self.fastest.unwrap_or_default()) {
            return;
        }
        let rate = self.moved as f64 / span.as_secs_f64();
        // The best of late: one slow moment (a disk, a scheduler) must not shrink a good link.
        self.rate = rate.max(self.rate * 0.8);
        self.since = Some(now);
        self.moved = 0;
        self.resize();
    }

    fn resize(&mut self) {
        let delay = self.fastest.unwrap_or_default().max(SHORTEST);
        let wanted = (2.0 * self.rate * delay.as_secs_f64()) as u64;
        let wanted = wanted.clamp(LEAST, self.most);
        // Only a window that was used up can be too small.
        if wanted < self.size || self.full {
            self.size = wanted.min(self.size.saturating_mul(GROWTH));
        }
        self.full = false;
    }

    /// Bytes that may be in flight now.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}
