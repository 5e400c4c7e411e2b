//! Output kept on purpose: the start of a stream for later tasks ([`Capture`]), and the last lines
//! of a task for the place where its failure is told again ([`Tail`]).

use std::collections::VecDeque;

use bytes::Bytes;
use memchr::memrchr2;

use crate::event::{Block, cut_line};

/// The first bytes of a stream, up to a limit.
#[derive(Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Capture {
    /// Keeps at most `limit` bytes, such as [`crate::job::CAPTURE_LIMIT`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            truncated: false,
        }
    }

    /// The next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether more was written than was kept.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// What was kept, exactly as written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was kept, exactly as written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The last lines of a task, of both streams in the order in which they came.
#[derive(Debug)]
pub struct Tail {
    max_lines: usize,
    max_bytes: usize,
    kept: VecDeque<Block>,
    lines: usize,
    bytes: usize,
    dropped: u64,
}

impl Tail {
    /// Keeps at most `max_lines` lines and `max_bytes` bytes, but always the last line, which is at
    /// most [`super::MAX_BLOCK`] bytes.
    #[must_use]
    pub fn new(max_lines: usize, max_bytes: usize) -> Self {
        Self {
            max_lines: max_lines.max(1),
            max_bytes,
            kept: VecDeque::new(),
            lines: 0,
            bytes: 0,
            dropped: 0,
        }
    }

    /// The next lines. Costs the length of what is kept, not of the block.
    pub fn push(&mut self, block: &Block) {
        let (start, lines) = self.last_lines(&block.bytes);
        let skipped = u64::from(block.lines).saturating_sub(lines as u64);
        if start > 0 {
            // All that is kept is older than what of this block is dropped.
            self.dropped += self.lines as u64 + skipped;
            self.kept.clear();
            (self.lines, self.bytes) = (0, 0);
        }
        // Copied, so that a few lines do not hold the whole read buffer.
        let bytes = Bytes::copy_from_slice(&block.bytes[start..]);
        self.lines += lines;
        self.bytes += bytes.len();
        self.kept.push_back(Block {
            stream: block.stream,
            first_line: block.first_line + skipped,
            lines: u32::try_from(lines).unwrap_or(u32::MAX),
            bytes,
        });
        while self.lines > 1 && (self.lines > self.max_lines || self.bytes > self.max_bytes) {
            self.drop_first_line();
        }
    }

    /// What is kept, oldest first.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.kept.iter()
    }

    /// How many lines came before the kept ones.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Where the lines of `bytes` that can be kept begin, and how many there are.
    fn last_lines(&self, bytes: &[u8]) -> (usize, usize) {
        let (mut start, mut lines) = (bytes.len(), 0);
        while start > 0 && lines < self.max_lines {
            let before = last_line_start(&bytes[..start]);
            if lines > 0 && bytes.len() - before > self.max_bytes {
                break;
            }
            (start, lines) = (before, lines + 1);
        }
        (start, lines)
    }

    fn drop_first_line(&mut self) {
        let Some(block) = self.kept.front_mut() else {
            return;
        };
        let rest = cut_line(&block.bytes).map_or(0, |(_, rest)| rest.len());
        self.bytes -= block.bytes.len() - rest;
        self.lines -= 1;
        self.dropped += 1;
        block.bytes = block.bytes.slice(block.bytes.len() - rest..);
        block.first_line += 1;
        block.lines -= 1;
        if rest == 0 {
            self.kept.pop_front();
        }
    }
}

/// Where the last line of `bytes` begins.
fn last_line_start(bytes: &[u8]) -> usize {
    let text = match bytes {
        [text @ .., b'\r', b'\n'] | [text @ .., b'\n' | b'\r'] => text,
        text => text,
    };
    memrchr2(b'\n', b'\r', text).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Stream;
    use crate::output::Splitter;

    #[test]
    fn a_capture_keeps_the_start_and_says_that_it_was_cut() {
        let mut capture = Capture::new(5);
        capture.push(b"abc");
        capture.push(b"de");
        assert_eq!(
            (capture.as_bytes(), capture.is_truncated()),
            (&b"abcde"[..], false)
        );
        capture.push(b"");
        assert!(!capture.is_truncated());
        capture.push(b"f");
        assert!(capture.is_truncated());
        assert_eq!(capture.into_bytes(), b"abcde");
    }

    fn tail_of(chunks: &[Vec<u8>], max_lines: usize, max_bytes: usize) -> Tail {
        let mut tail = Tail::new(max_lines, max_bytes);
        let mut splitter = Splitter::new(Stream::Stdout);
        for chunk in chunks {
            splitter.push(Bytes::from(chunk.clone()), &mut |b| tail.push(&b));
        }
        splitter.finish(&mut |b| tail.push(&b));
        tail
    }

    fn kept(tail: &Tail) -> Vec<u8> {
        tail.blocks().flat_map(|b| b.bytes.to_vec()).collect()
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let text = b"one\ntwo\r\nthree\rfour".to_vec();
        let tail = tail_of(std::slice::from_ref(&text), 2, 1000);
        assert_eq!(kept(&tail), b"three\rfour");
        assert_eq!(tail.dropped(), 2);
        assert_eq!(tail.blocks().next().map(|b| b.first_line), Some(3));
        let tail = tail_of(&[text], 10, 6);
        assert_eq!(kept(&tail), b"four");
    }

    #[test]
    fn the_last_line_is_kept_though_it_is_too_long() {
        let tail = tail_of(&[b"a\nlonger than that\n".to_vec()], 3, 4);
        assert_eq!(kept(&tail), b"longer than that\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_tail_is_the_end_of_all_lines(
            chunks in prop::collection::vec(
                prop::collection::vec(prop::sample::select(&b"abc\n\r"[..]), 0..30), 0..12),
            max_lines in 1usize..6,
            max_bytes in 1usize..40,
        ) {
            let sent = chunks.concat();
            let mut all = Vec::new();
            let mut rest = &sent[..];
            while let Some((line, after)) = cut_line(rest) {
                all.push([line.text, line.end.as_str().as_bytes()].concat());
                rest = after;
            }
            let mut from = all.len().saturating_sub(max_lines);
            while from + 1 < all.len() && all[from..].concat().len() > max_bytes {
                from += 1;
            }
            let tail = tail_of(&chunks, max_lines, max_bytes);
            prop_assert_eq!(kept(&tail), all[from..].concat());
            prop_assert_eq!(tail.dropped(), from as u64);
            let mut next = from as u64 + 1;
            for block in tail.blocks() {
                prop_assert_eq!(block.first_line, next);
                prop_assert_eq!(block.lines().count(), block.lines as usize);
                next += u64::from(block.lines);
            }
        }
    }
}
