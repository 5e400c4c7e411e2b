//! What one connection has learnt so far, written by its parts and read by whoever tells how the
//! attempt went. Every fact is written once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::outcome::{HostProblem, Phase};
use crate::text::printable;

/// Why what came was no SSH greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Garbage {
    /// A line longer than allowed.
    LongLine,
    /// More lines or bytes than allowed.
    TooMuch,
    /// A protocol that is not 2.0.
    Version,
    /// Text, and then the end.
    Ended,
}

impl Garbage {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::LongLine => "a line that is too long",
            Self::TooMuch => "too much text",
            Self::Version => "a version of SSH other than 2.0",
            Self::Ended => "text and then the end of the connection",
        }
    }
}

/// How a server proved who it is.
#[derive(Debug, Clone)]
pub(super) struct HostKeyFact {
    pub(super) key: russh::keys::PublicKey,
    pub(super) verified: super::Verified,
}

/// Names that the key exchange agreed on.
#[derive(Debug, Clone, Default)]
pub(super) struct Algorithms {
    pub(super) kex: String,
    pub(super) host_key: String,
    pub(super) cipher: String,
    pub(super) mac: String,
    pub(super) strict: bool,
}

/// A message from the session's task.
#[derive(Debug)]
pub(super) enum Note {
    /// One line for people.
    Warning(String),
    /// Text of an authentication banner, printable.
    Banner(String),
}

/// Facts of one connection.
#[derive(Debug)]
pub(super) struct Facts {
    phase: AtomicU8,
    began: Instant,
    entered: [OnceLock<Duration>; 6],
    greeting: OnceLock<String>,
    identification: OnceLock<String>,
    garbage: OnceLock<Garbage>,
    /// Bytes that the server has sent.
    came: AtomicU64,
    /// Authentication banners among them.
    banners: AtomicU64,
    /// Why we refused, if we did.
    pub(super) refusal: OnceLock<HostProblem>,
    /// The key that was accepted.
    pub(super) host_key: OnceLock<HostKeyFact>,
    /// What was agreed on.
    pub(super) algorithms: OnceLock<Algorithms>,
    /// Why the session ended, in words.
    pub(super) gone: OnceLock<String>,
    /// The first text that the server showed while we logged in, printable.
    pub(super) banner: OnceLock<String>,
    /// Set when the server sent a disconnect message: its text.
    pub(super) disconnect: OnceLock<String>,
    /// When the attempt must be over; `None` while a person is asked.
    pub(super) deadline: watch::Sender<Option<Instant>>,
    notes: mpsc::Sender<Note>,
}

const PHASES: [Phase; 5] = [
    Phase::Dns,
    Phase::Connect,
    Phase::Banner,
    Phase::Kex,
    Phase::Auth,
];

impl Facts {
    pub(super) fn new(timeout: Duration) -> (Self, mpsc::Receiver<Note>) {
        let (notes, receiver) = mpsc::channel(64);
        let began = Instant::now();
        let facts = Self {
            phase: AtomicU8::new(0),
            began,
            entered: Default::default(),
            greeting: OnceLock::new(),
            identification: OnceLock::new(),
            garbage: OnceLock::new(),
            came: AtomicU64::new(0),
            banners: AtomicU64::new(0),
            refusal: OnceLock::new(),
            host_key: OnceLock::new(),
            algorithms: OnceLock::new(),
            gone: OnceLock::new(),
            banner: OnceLock::new(),
            disconnect: OnceLock::new(),
            deadline: watch::Sender::new(Some(began + timeout)),
            notes,
        };
        (facts, receiver)
    }

    /// Notes that `phase` begins now.
    pub(super) fn enter(&self, phase: Phase) {
        let index = PHASES.iter().position(|p| *p == phase).unwrap_or(0);
        self.phase
            .store(u8::try_from(index).unwrap_or(0), Ordering::Relaxed);
        let _ = self.entered[index].set(self.began.elapsed());
    }

    /// Notes that the connection is ready.
    pub(super) fn finished(&self) {
        let _ = self.entered[5].set(self.began.elapsed());
    }

    pub(super) fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Relaxed)).min(PHASES.len() - 1)]
    }

    /// Time since the attempt began at which phase number `index` was entered.
    pub(super) fn entered(&self, index: usize) -> Duration {
        self.entered
            .get(index)
            .and_then(OnceLock::get)
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn greeting(&self, bytes: &[u8]) {
        let kept = &bytes[..bytes.len().min(super::transport::GREETING_KEPT)];
        if !kept.is_empty() {
            let _ = self.greeting.set(printable(kept.trim_ascii()).into_owned());
        }
    }

    pub(super) fn identification(&self, bytes: &[u8]) {
        let _ = self
            .identification
            .set(printable(bytes.trim_ascii_end()).into_owned());
    }

    pub(super) fn garbage(&self, garbage: Garbage) {
        let _ = self.garbage.set(garbage);
    }

    /// Notes bytes from the server.
    pub(super) fn add_came(&self, bytes: usize) {
        self.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes the server has sent after its greeting.
    pub(super) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Notes an authentication banner.
    pub(super) fn add_banner(&self) {
        self.banners.fetch_add(1, Ordering::Relaxed);
    }

    /// How many authentication banners the server has sent.
    pub(super) fn banners(&self) -> u64 {
        self.banners.load(Ordering::Relaxed)
    }

    pub(super) fn said(&self) -> Option<&str> {
        self.greeting.get().map(String::as_str)
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.identification.get().map(String::as_str)
    }

    pub(super) fn not_ssh(&self) -> Option<Garbage> {
        self.garbage.get().copied()
    }

    /// Passes a note on; when nobody has read for long, it is dropped rather than waited for.
    pub(super) fn note(&self, note: Note) {
        let _ = self.notes.try_send(note);
    }

    /// Why the connection is no more.
    pub(super) fn ended(&self) -> String {
        self.gone
            .get()
            .cloned()
            .unwrap_or_else(|| "connection lost".to_owned())
    }
}
