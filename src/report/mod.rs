//! Events turned into bytes. Words only: nothing here writes, looks at a clock or asks a terminal.

pub mod diagnostics;
mod ending;
pub mod listing;
mod live;
pub mod ndjson;
pub mod raw;
pub mod remote;
pub mod rows;
pub mod schema;
mod style;
pub mod table;
pub mod terminal;

use std::time::Duration;

use crate::event::Event;

/// Turns events into bytes.
pub trait Renderer {
    /// Appends what an event gives.
    fn render(&mut self, event: &Event, ink: &mut Ink);

    /// The lines of the live region below the log, at a time since the run began, for a terminal
    /// of so many columns and rows. None where there is no such region.
    fn live(&mut self, now: Duration, size: (usize, usize)) -> Vec<String> {
        let _ = (now, size);
        Vec::new()
    }

    /// Appends what comes after the last event.
    fn end(&mut self, ink: &mut Ink) {
        let _ = ink;
    }
}

/// Which stream of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Standard output: data.
    Out,
    /// Standard error: talk.
    Err,
}

/// Bytes for both streams, in the order in which they must be written: both may be one terminal.
#[derive(Debug, Default)]
pub struct Ink {
    bytes: Vec<u8>,
    /// Where each run of bytes for one sink ends; the last one's end is the end of `bytes`.
    runs: Vec<(Sink, usize)>,
}

impl Ink {
    /// Where bytes for standard output go.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.turn_to(Sink::Out)
    }

    /// Where bytes for standard error go.
    pub fn err(&mut self) -> &mut Vec<u8> {
        self.turn_to(Sink::Err)
    }

    fn turn_to(&mut self, sink: Sink) -> &mut Vec<u8> {
        match self.runs.last_mut() {
            Some((last, _)) if *last == sink => {}
            Some((_, end)) => {
                *end = self.bytes.len();
                self.runs.push((sink, 0));
            }
            None => self.runs.push((sink, 0)),
        }
        &mut self.bytes
    }

    /// The runs of bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (Sink, &[u8])> {
        let last = self.runs.len().saturating_sub(1);
        let mut start = 0;
        self.runs.iter().enumerate().map(move |(at, (sink, end))| {
            let end = if at == last { self.bytes.len() } else { *end };
            let piece = &self.bytes[start..end];
            start = end;
            (*sink, piece)
        })
    }

    /// Forgets all bytes, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no bytes wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_the_order_across_both_sinks() {
        let mut ink = Ink::default();
        ink.out().extend_from_slice(b"a");
        ink.out().extend_from_slice(b"b");
        ink.err().extend_from_slice(b"c");
        ink.out().extend_from_slice(b"d");
        let pieces: Vec<(Sink, &[u8])> = ink.pieces().collect();
        assert_eq!(
            pieces,
            [
                (Sink::Out, &b"ab"[..]),
                (Sink::Err, b"c"),
                (Sink::Out, b"d")
            ]
        );
        ink.clear();
        assert!(ink.is_empty());
        assert_eq!(ink.pieces().count(), 0);
    }
}
