//! Bytes of one stream into blocks of whole lines.
//!
//! The bytes of all blocks, joined, are the bytes of the stream. However the stream was chunked on
//! its way, its lines come out the same; only how many of them share a block may differ.
//!
//! The work per byte is a vectorised search: a block is a slice of the buffer that was pushed, and
//! only the unfinished line at the end of a buffer is copied.

use bytes::{Buf, Bytes};
use memchr::{memchr_iter, memchr2, memrchr2};

use crate::event::{Block, Stream};

/// The most bytes in a block, and so in a line, its line end included. Longer lines come in pieces.
pub const MAX_BLOCK: usize = 64 << 10;

/// Cuts one stream into blocks.
///
/// A line ends with `\n`, `\r\n`, or a lone `\r`. A `\r` at the very end of what has come is held
/// back until the next byte tells which it is. A line longer than [`MAX_BLOCK`] is cut into pieces,
/// never inside a UTF-8 sequence that is well formed so far; a piece with more to come ends its
/// block and has [`crate::event::LineEnd::None`].
///
/// Whole lines are given out at once. An unfinished line waits for its end, so a prompt without a
/// line end appears when the stream ends.
#[derive(Debug)]
pub struct Splitter {
    stream: Stream,
    next_line: u64,
    /// The start of a line whose end has not come: at most [`MAX_BLOCK`] bytes, of which only the
    /// last may be a `\r`.
    partial: Vec<u8>,
}

impl Splitter {
    /// A splitter for the start of `stream`.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            next_line: 1,
            partial: Vec::new(),
        }
    }

    /// Takes the next bytes of the stream and gives `out` the lines that they complete.
    pub fn push(&mut self, mut bytes: Bytes, out: &mut impl FnMut(Block)) {
        while !self.partial.is_empty() && !bytes.is_empty() {
            self.complete_partial(&mut bytes, out);
        }
        while !bytes.is_empty() {
            let Some(at) = block_end(&bytes) else {
                self.partial.extend_from_slice(&bytes);
                return;
            };
            let block = bytes.split_to(at);
            self.emit(block, out);
        }
    }

    /// The stream has ended: gives `out` the unfinished line, if there is one.
    pub fn finish(&mut self, out: &mut impl FnMut(Block)) {
        if !self.partial.is_empty() {
            self.emit_partial(out);
        }
    }

    /// Whether an unfinished line is held.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// One step: takes bytes to the held line's end, or to the point where it must be cut.
    fn complete_partial(&mut self, bytes: &mut Bytes, out: &mut impl FnMut(Block)) {
        if self.partial.last() == Some(&b'\r') {
            return self.settle_return(bytes, out);
        }
        let room = bytes.len().min(MAX_BLOCK - self.partial.len());
        let found = memchr2(b'\n', b'\r', &bytes[..room]);
        let take = found.map_or(room, |at| at + 1);
        self.partial.extend_from_slice(&bytes[..take]);
        bytes.advance(take);
        match self.partial.last() {
            Some(b'\n') => self.emit_partial(out),
            Some(b'\r') => {}
            _ if self.partial.len() == MAX_BLOCK => self.emit_piece(MAX_BLOCK, out),
            _ => {}
        }
    }

    /// The byte after a held `\r` has come.
    fn settle_return(&mut self, bytes: &mut Bytes, out: &mut impl FnMut(Block)) {
        if bytes.first() != Some(&b'\n') {
            self.emit_partial(out);
        } else if self.partial.len() == MAX_BLOCK {
            // A `\r\n` is never parted: both go into the next piece.
            self.emit_piece(MAX_BLOCK - 1, out);
        } else {
            self.partial.push(b'\n');
            bytes.advance(1);
            self.emit_partial(out);
        }
    }

    /// Gives out the first `at` held bytes or a little less, and keeps the rest.
    fn emit_piece(&mut self, at: usize, out: &mut impl FnMut(Block)) {
        let rest = self.partial.split_off(sequence_floor(&self.partial[..at]));
        self.emit_partial(out);
        self.partial = rest;
    }

    fn emit_partial(&mut self, out: &mut impl FnMut(Block)) {
        let line = std::mem::take(&mut self.partial);
        self.emit(Bytes::from(line), out);
    }

    fn emit(&mut self, bytes: Bytes, out: &mut impl FnMut(Block)) {
        let lines = count_lines(&bytes);
        let first_line = self.next_line;
        self.next_line += u64::from(lines);
        out(Block {
            stream: self.stream,
            first_line,
            lines,
            bytes,
        });
    }
}

/// Where the first block of `bytes`, which begin a line, ends. `None`: no line is complete yet.
fn block_end(bytes: &[u8]) -> Option<usize> {
    let mut window = &bytes[..bytes.len().min(MAX_BLOCK)];
    while let Some(at) = memrchr2(b'\n', b'\r', window) {
        let ends_line = bytes[at] == b'\n' || bytes.get(at + 1).is_some_and(|&next| next != b'\n');
        if ends_line {
            return Some(at + 1);
        }
        window = &window[..at];
    }
    // No line ends in the window, except perhaps by a `\r` in its last place.
    match bytes.get(MAX_BLOCK - 1)? {
        b'\r' if bytes.len() == MAX_BLOCK => None,
        b'\r' => Some(sequence_floor(&bytes[..MAX_BLOCK - 1])),
        _ => Some(sequence_floor(&bytes[..MAX_BLOCK])),
    }
}

/// The length of `piece` without a UTF-8 sequence that is begun and not complete at its end.
fn sequence_floor(piece: &[u8]) -> usize {
    let len = piece.len();
    for back in 1..=len.min(3) {
        let lead = piece[len - back];
        let wanted = match lead {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if wanted > back { len - back } else { len };
    }
    len
}

/// How many lines or pieces `bytes` hold; `bytes` are not empty.
fn count_lines(bytes: &[u8]) -> u32 {
    let feeds = memchr_iter(b'\n', bytes).count();
    let lone_returns = memchr_iter(b'\r', bytes)
        .filter(|at| bytes.get(at + 1) != Some(&b'\n'))
        .count();
    let unfinished = usize::from(!matches!(bytes.last(), Some(b'\n' | b'\r')));
    // A block is at most 64 KiB, so this cannot saturate.
    u32::try_from(feeds + lone_returns + unfinished).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::LineEnd;

    fn split(chunks: &[&[u8]]) -> Vec<Block> {
        let mut splitter = Splitter::new(Stream::Stdout);
        let mut blocks = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk), &mut |block| {
                blocks.push(block);
            });
        }
        splitter.finish(&mut |block| blocks.push(block));
        assert!(!splitter.has_partial());
        blocks
    }

    fn lines(blocks: &[Block]) -> Vec<(Vec<u8>, LineEnd)> {
        blocks
            .iter()
            .flat_map(|block| block.lines().map(|l| (l.text.to_vec(), l.end)))
            .collect()
    }

    fn check_laws(blocks: &[Block], sent: &[u8]) {
        let mut next = 1;
        let mut joined = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            assert_eq!(block.first_line, next);
            assert_eq!(block.lines as usize, block.lines().count());
            assert!(!block.bytes.is_empty() && block.bytes.len() <= MAX_BLOCK);
            next += u64::from(block.lines);
            joined.extend_from_slice(&block.bytes);
            let ends = block.lines().map(|l| l.end).collect::<Vec<_>>();
            assert!(!ends[..ends.len() - 1].contains(&LineEnd::None));
            if let Some(after) = blocks.get(index + 1) {
                assert!(!(block.bytes.ends_with(b"\r") && after.bytes.starts_with(b"\n")));
            }
        }
        assert!(joined == sent, "the joined bytes differ");
    }

    fn one(text: &str, end: LineEnd) -> (Vec<u8>, LineEnd) {
        (text.as_bytes().to_vec(), end)
    }

    #[test]
    fn every_line_end_is_told_apart_when_each_byte_comes_alone() {
        let sent = b"a\nb\r\nc\rd\r\r\n\n\re";
        let alone: Vec<&[u8]> = sent.chunks(1).collect();
        let blocks = split(&alone);
        check_laws(&blocks, sent);
        assert_eq!(
            lines(&blocks),
            [
                one("a", LineEnd::Lf),
                one("b", LineEnd::CrLf),
                one("c", LineEnd::Cr),
                one("d", LineEnd::Cr),
                one("", LineEnd::CrLf),
                one("", LineEnd::Lf),
                one("", LineEnd::Cr),
                one("e", LineEnd::None),
            ]
        );
        assert_eq!(lines(&split(&[sent])), lines(&blocks));
    }

    #[test]
    fn whole_lines_are_not_delayed_and_a_last_return_is() {
        let mut splitter = Splitter::new(Stream::Stderr);
        let mut got = Vec::new();
        splitter.push(Bytes::from_static(b"one\ntwo\n10%\r"), &mut |b| got.push(b));
        assert_eq!(got.len(), 1);
        assert_eq!((&got[0].bytes[..], got[0].lines), (&b"one\ntwo\n"[..], 2));
        assert_eq!(got[0].stream, Stream::Stderr);
        assert!(splitter.has_partial());
        splitter.push(Bytes::from_static(b"2"), &mut |b| got.push(b));
        assert_eq!((&got[1].bytes[..], got[1].first_line), (&b"10%\r"[..], 3));
        splitter.finish(&mut |b| got.push(b));
        assert_eq!((&got[2].bytes[..], got[2].first_line), (&b"2"[..], 4));
    }

    #[test]
    fn a_block_is_a_slice_of_what_was_pushed() {
        let sent = Bytes::from(b"line\n".repeat(1000));
        let mut splitter = Splitter::new(Stream::Stdout);
        let mut at = None;
        splitter.push(sent.clone(), &mut |b| at = Some(b.bytes.as_ptr()));
        assert_eq!(at, Some(sent.as_ptr()));
    }

    #[test]
    fn a_line_that_just_fits_is_whole_and_a_longer_one_is_cut() {
        for (text, end, pieces) in [
            (MAX_BLOCK - 1, "\n", 1),
            (MAX_BLOCK, "\n", 2),
            (MAX_BLOCK - 2, "\r\n", 1),
            (MAX_BLOCK - 1, "\r\n", 2),
            (MAX_BLOCK - 1, "\r", 1),
            (MAX_BLOCK, "", 1),
            (3 * MAX_BLOCK + 5, "\n", 4),
        ] {
            let mut sent = vec![b'x'; text];
            sent.extend_from_slice(end.as_bytes());
            sent.extend_from_slice(b"next\n");
            let whole = split(&[&sent]);
            check_laws(&whole, &sent);
            let expected = if end.is_empty() { 2 } else { pieces + 1 };
            assert_eq!(lines(&whole).len(), expected, "{text} {end:?}");
            let parts: Vec<&[u8]> = sent.chunks(1000).collect();
            assert_eq!(lines(&split(&parts)), lines(&whole), "{text} {end:?}");
        }
    }

    #[test]
    fn a_cut_does_not_part_a_character() {
        for shift in 0..4 {
            let text = format!("{}{}", "x".repeat(shift), "\u{1F600}".repeat(40_000));
            let blocks = split(&[text.as_bytes()]);
            check_laws(&blocks, text.as_bytes());
            for block in &blocks {
                assert!(std::str::from_utf8(&block.bytes).is_ok());
            }
            let parts: Vec<&[u8]> = text.as_bytes().chunks(777).collect();
            assert_eq!(lines(&split(&parts)), lines(&blocks));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_still_cut() {
        let sent = vec![0x80; MAX_BLOCK * 2 + 1];
        let blocks = split(&[&sent]);
        check_laws(&blocks, &sent);
        assert_eq!(blocks.len(), 3);
    }

    /// Text in which ends, long runs and characters of several bytes are likely.
    fn written() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            8 => prop::collection::vec(prop::sample::select(&b"ab\n\r\r\n\0\xff"[..]), 0..12),
            2 => Just("\u{e9}\u{1F600}".as_bytes().to_vec()),
            1 => (MAX_BLOCK - 6..MAX_BLOCK + 3).prop_map(|n| vec![b'x'; n]),
            1 => (1..MAX_BLOCK / 2).prop_map(|n| "\u{20ac}".repeat(n).into_bytes()),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn any_chunking_gives_the_same_lines(
            sent in written(),
            sizes in prop::collection::vec(prop_oneof![1usize..5, 1000usize..70_000], 1..40),
        ) {
            let mut chunks = Vec::new();
            let mut rest = &sent[..];
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            let blocks = split(&chunks);
            check_laws(&blocks, &sent);
            let whole = split(&[&sent]);
            check_laws(&whole, &sent);
            prop_assert!(lines(&blocks) == lines(&whole));
            for most in [1, 100, 8 << 10] {
                let smaller: Vec<Block> = whole.iter().cloned().flat_map(|b| b.cut(most)).collect();
                check_laws(&smaller, &sent);
                prop_assert!(lines(&smaller) == lines(&whole));
                prop_assert!(smaller.iter().all(|b| b.bytes.len() <= most || b.lines == 1));
            }
        }
    }
}
