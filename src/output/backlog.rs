//! A queue of blocks between a host that writes and a reader that is slow: bounded, in order, and
//! without loss.
//!
//! ```text
//! push -> back (memory) -> file (unlinked, private) -> front (memory) -> pop
//! ```
//! While all of it fits into memory there is no file. All lanes of a run share one [`SpillBudget`];
//! when that or the disk is used up, a push is refused and the lane stops reading its host.
//!
//! Small blocks of one stream that follow each other are joined, and what is known of a block goes
//! into the file with it, so that millions of tiny blocks cost no more memory than a few large ones.
//! Reads and writes go to the page cache in pieces of up to 64 KiB and are done in place.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::lines::MAX_BLOCK;
use crate::event::{Block, Stream};

/// Memory of one backlog unless told otherwise, in bytes.
pub const DEFAULT_MEMORY: usize = 256 << 10;

/// Spill files of a whole run together unless told otherwise, in bytes.
pub const DEFAULT_SPILL: u64 = 1 << 30;

/// What a queued block costs in memory beside its bytes.
const ENTRY_COST: usize = 64;

/// How much is read from the file, and written to it, at once: half of the memory within these.
const PAGES: std::ops::RangeInclusive<usize> = (4 << 10)..=MAX_BLOCK;

/// Before each block in the file: stream, lines, length, first line.
const HEADER: usize = 1 + 4 + 4 + 8;

/// How many bytes the spill files of a run may still take. Clones share the one budget.
#[derive(Debug, Clone)]
pub struct SpillBudget(Arc<AtomicU64>);

/// The block was not taken: memory and spill file are full. Some must be popped first.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("output backlog is full")]
pub struct Full(pub Block);

/// The queue of one lane.
#[derive(Debug)]
pub struct Backlog {
    memory: usize,
    page: usize,
    budget: SpillBudget,
    dir: PathBuf,
    front: Queue,
    back: Queue,
    spill: Option<Spill>,
    /// Bytes of blocks that are in the file.
    spilled: u64,
    problem: Option<io::Error>,
}

/// Blocks in memory.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// One block, or several that were joined.
#[derive(Debug)]
struct Entry {
    stream: Stream,
    first_line: u64,
    lines: u32,
    bytes: Vec<u8>,
}

/// The file. Positions are byte offsets; between them lie the records not read yet.
#[derive(Debug)]
struct Spill {
    file: File,
    read_at: u64,
    write_at: u64,
}

impl SpillBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Bytes not in use.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        // The counter guards no other memory, so relaxed order is enough.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Default for SpillBudget {
    fn default() -> Self {
        Self::new(DEFAULT_SPILL)
    }
}

impl Backlog {
    /// A backlog with [`DEFAULT_MEMORY`] and the system's directory for temporary files.
    #[must_use]
    pub fn new(budget: SpillBudget) -> Self {
        Self::with(DEFAULT_MEMORY, std::env::temp_dir(), budget)
    }

    /// A backlog that keeps about `memory` bytes in memory (never less than two blocks) and
    /// has its spill file in `dir`, which is used only when the memory is full.
    #[must_use]
    pub fn with(memory: usize, dir: PathBuf, budget: SpillBudget) -> Self {
        Self {
            memory,
            page: (memory / 2).clamp(*PAGES.start(), *PAGES.end()),
            budget,
            dir,
            front: Queue::default(),
            back: Queue::default(),
            spill: None,
            spilled: 0,
            problem: None,
        }
    }

    /// Adds a block at the end.
    ///
    /// # Errors
    /// [`Full`] gives the block back when there is no room; [`Backlog::spill_problem`] tells whether
    /// that was the budget or the disk.
    pub fn push(&mut self, block: Block) -> Result<(), Full> {
        let only_front = self.back.entries.is_empty() && self.spill_is_drained();
        let room = self.memory.saturating_sub(self.page);
        if only_front && (self.front.is_empty() || self.front.cost_with(&block) <= room) {
            self.front.push(block);
            return Ok(());
        }
        if self.back.is_empty() || self.back.cost_with(&block) <= self.page || self.spill_back() {
            self.back.push(block);
            return Ok(());
        }
        Err(Full(block))
    }

    /// Takes the first block. Blocks that were joined come out as one.
    ///
    /// # Errors
    /// The spill file could not be read back: its output is lost and the caller must say so. What
    /// was in the file is dropped; later blocks still come.
    pub fn pop(&mut self) -> io::Result<Option<Block>> {
        if self.front.is_empty() && !self.spill_is_drained() {
            let loaded = self.load();
            if loaded.is_err() {
                self.spilled = 0;
                self.reset_spill();
            }
            loaded?;
        }
        if self.front.is_empty() {
            std::mem::swap(&mut self.front, &mut self.back);
        }
        Ok(self.front.pop())
    }

    /// Drops all that waits and gives its disk space back.
    pub fn clear(&mut self) {
        self.front = Queue::default();
        self.back = Queue::default();
        self.spilled = 0;
        self.reset_spill();
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Bytes of output that wait, in memory and in the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.spilled + (self.front.bytes + self.back.bytes) as u64
    }

    /// Why the file could not be made or written when last a push was refused; `None` when the
    /// budget was used up or no push was refused.
    #[must_use]
    pub fn spill_problem(&self) -> Option<&io::Error> {
        self.problem.as_ref()
    }

    fn spill_is_drained(&self) -> bool {
        self.spill.as_ref().is_none_or(|s| s.read_at == s.write_at)
    }

    /// Writes what is at the back to the file. False, and nothing changed, if that cannot be done.
    fn spill_back(&mut self) -> bool {
        self.problem = None;
        let records = self.back.encode();
        let len = records.len() as u64;
        if !self.budget.take(len) {
            return false;
        }
        let written = self.spill_file().and_then(|spill| spill.append(&records));
        if let Err(error) = written {
            self.budget.give_back(len);
            self.problem = Some(error);
            return false;
        }
        self.spilled += self.back.bytes as u64;
        self.back = Queue::default();
        true
    }

    fn spill_file(&mut self) -> io::Result<&mut Spill> {
        let spill = match self.spill.take() {
            Some(spill) => spill,
            None => Spill {
                file: private_file(&self.dir)?,
                read_at: 0,
                write_at: 0,
            },
        };
        Ok(self.spill.insert(spill))
    }

    /// Moves the file's first records to the front.
    fn load(&mut self) -> io::Result<()> {
        let Some(spill) = &mut self.spill else {
            return Ok(());
        };
        let mut page = spill.peek(self.page + HEADER)?;
        let first = HEADER + record_len(&page)?;
        if first > page.len() {
            page = spill.peek(first)?;
        }
        let mut at = 0;
        while let Some((entry, len)) = Entry::decode(&page[at..]) {
            self.spilled = self.spilled.saturating_sub(entry.bytes.len() as u64);
            self.front.append(entry);
            at += len;
        }
        if at == 0 {
            return Err(damaged());
        }
        spill.read_at += at as u64;
        if self.spill_is_drained() {
            self.reset_spill();
        }
        Ok(())
    }

    /// Begins the drained file anew, and returns its share of the budget.
    fn reset_spill(&mut self) {
        let Some(spill) = &mut self.spill else {
            return;
        };
        self.budget.give_back(spill.write_at);
        (spill.read_at, spill.write_at) = (0, 0);
        if spill.file.set_len(0).is_err() {
            // The disk space goes with the file when it is closed; the next spill makes another.
            self.spill = None;
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.reset_spill();
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn cost_with(&self, block: &Block) -> usize {
        self.bytes + block.bytes.len() + (self.entries.len() + 1) * ENTRY_COST
    }

    fn push(&mut self, block: Block) {
        self.bytes += block.bytes.len();
        match self.entries.back_mut() {
            Some(last) if last.can_take(&block) => {
                last.lines += block.lines;
                last.bytes.extend_from_slice(&block.bytes);
            }
            // Copied, so that a few bytes do not hold a whole read buffer.
            _ => self.entries.push_back(Entry {
                stream: block.stream,
                first_line: block.first_line,
                lines: block.lines,
                bytes: block.bytes.to_vec(),
            }),
        }
    }

    fn append(&mut self, entry: Entry) {
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Block> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes.len();
        Some(Block {
            stream: entry.stream,
            first_line: entry.first_line,
            lines: entry.lines,
            bytes: Bytes::from(entry.bytes),
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut records = Vec::with_capacity(self.bytes + self.entries.len() * HEADER);
        for entry in &self.entries {
            entry.encode(&mut records);
        }
        records
    }
}

impl Entry {
    /// Whether `block` goes on where this ends, so that both are one run of lines.
    fn can_take(&self, block: &Block) -> bool {
        let follows = self.stream == block.stream
            && self.first_line + u64::from(self.lines) == block.first_line;
        // After a piece of a long line, or a return before a feed, joining would change the lines.
        let apart = match self.bytes.last() {
            Some(b'\n') => true,
            Some(b'\r') => block.bytes.first() != Some(&b'\n'),
            _ => false,
        };
        follows && apart && self.bytes.len() + block.bytes.len() <= MAX_BLOCK
    }

    fn encode(&self, to: &mut Vec<u8>) {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        to.push(match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        });
        to.extend_from_slice(&len.to_le_bytes());
        to.extend_from_slice(&self.lines.to_le_bytes());
        to.extend_from_slice(&self.first_line.to_le_bytes());
        to.extend_from_slice(&self.bytes);
    }

    /// The record that `page` begins with, and its length; `None` if it is not all there.
    fn decode(page: &[u8]) -> Option<(Self, usize)> {
        let (header, rest) = page.split_first_chunk::<HEADER>()?;
        let [stream, l0, l1, l2, l3, n0, n1, n2, n3, first @ ..] = *header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let entry = Self {
            stream: match stream {
                1 => Stream::Stdout,
                2 => Stream::Stderr,
                _ => return None,
            },
            first_line: u64::from_le_bytes(first),
            lines: u32::from_le_bytes([n0, n1, n2, n3]),
            bytes: rest.get(..len)?.to_vec(),
        };
        Some((entry, HEADER + len))
    }
}

impl Spill {
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all_at(records, self.write_at)?;
        self.write_at += records.len() as u64;
        Ok(())
    }

    /// The next bytes, at most `wanted`, without moving on.
    fn peek(&self, wanted: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.write_at - self.read_at).unwrap_or(usize::MAX);
        let mut page = vec![0; wanted.min(left)];
        self.file.read_exact_at(&mut page, self.read_at)?;
        Ok(page)
    }
}

/// The length of the block whose record `page` begins with.
fn record_len(page: &[u8]) -> io::Result<usize> {
    match page {
        [_, l0, l1, l2, l3, ..] => Ok(u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize),
        _ => Err(damaged()),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "output spill file is damaged")
}

/// A file in `dir` that has no name and that nobody else may read.
fn private_file(dir: &Path) -> io::Result<File> {
    // Not every file system knows O_TMPFILE (overlayfs before Linux 6.1, NFS).
    nameless_file(dir).or_else(|_| unlinked_file(dir))
}

#[cfg(target_os = "linux")]
fn nameless_file(dir: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).map_err(io::Error::other)?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(dir)
}

#[cfg(not(target_os = "linux"))]
fn nameless_file(_dir: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn unlinked_file(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!(".fanrun-{}-{number}.spill", std::process::id()));
    // create_new follows no link and takes no file that is there already.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use proptest::prelude::*;

    use super::*;

    fn block(stream: Stream, first_line: u64, bytes: &[u8]) -> Block {
        Block {
            stream,
            first_line,
            lines: 1,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    fn line(number: u64, len: usize) -> Block {
        let mut text = vec![b'a' + (number % 26) as u8; len - 1];
        text.push(b'\n');
        block(Stream::Stdout, number, &text)
    }

    /// The lines of blocks, one by one, as (stream, number, bytes).
    fn lines_of(blocks: &[Block]) -> Vec<(Stream, u64, Vec<u8>)> {
        let mut all = Vec::new();
        for block in blocks {
            assert_eq!(block.lines().count(), block.lines as usize);
            for (number, line) in (block.first_line..).zip(block.lines()) {
                let bytes = [line.text, line.end.as_str().as_bytes()].concat();
                all.push((block.stream, number, bytes));
            }
        }
        all
    }

    fn drain(backlog: &mut Backlog) -> Vec<Block> {
        std::iter::from_fn(|| backlog.pop().unwrap()).collect()
    }

    #[test]
    fn there_is_no_file_while_all_fits_into_memory() {
        let budget = SpillBudget::new(1 << 20);
        let mut backlog = Backlog::with(DEFAULT_MEMORY, "/nonexistent".into(), budget.clone());
        for number in 1..=1000 {
            backlog.push(line(number, 100)).unwrap();
        }
        assert_eq!(backlog.bytes(), 100_000);
        assert!(!backlog.is_empty());
        assert_eq!(budget.available(), 1 << 20);
        assert_eq!(lines_of(&drain(&mut backlog)).len(), 1000);
        assert!(backlog.is_empty());
    }

    #[test]
    fn the_file_is_private_nameless_and_returns_its_budget() {
        let dir = tempfile::tempdir().unwrap();
        let budget = SpillBudget::new(8 << 20);
        let mut backlog = Backlog::with(DEFAULT_MEMORY, dir.path().into(), budget.clone());
        for round in 0..3 {
            for number in 1..=100 {
                backlog.push(line(number, 20_000)).unwrap();
            }
            let meta = backlog.spill.as_ref().unwrap().file.metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
            assert_eq!(meta.nlink(), 0);
            assert!(meta.len() > 1_000_000, "round {round}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            assert_eq!(budget.available(), (8 << 20) - meta.len());
            assert_eq!(lines_of(&drain(&mut backlog)).len(), 100);
            let len = backlog
                .spill
                .as_ref()
                .unwrap()
                .file
                .metadata()
                .unwrap()
                .len();
            assert_eq!((len, budget.available()), (0, 8 << 20));
        }
        for number in 1..=100 {
            backlog.push(line(number, 20_000)).unwrap();
        }
        drop(backlog);
        assert_eq!(budget.available(), 8 << 20);
    }

    #[test]
    fn a_file_system_without_nameless_files_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = unlinked_file(dir.path()).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!(
            (meta.nlink(), meta.permissions().mode() & 0o777),
            (0, 0o600)
        );
    }

    #[test]
    fn millions_of_tiny_blocks_stay_small_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::with(DEFAULT_MEMORY, dir.path().into(), SpillBudget::default());
        for number in 1..=200_000_u64 {
            let stream = [Stream::Stdout, Stream::Stderr][number as usize % 2];
            backlog
                .push(block(stream, number.div_ceil(2), b"\n"))
                .unwrap();
        }
        let held = backlog.front.entries.len() + backlog.back.entries.len();
        assert!(
            held * (ENTRY_COST + 8) < DEFAULT_MEMORY + MAX_BLOCK,
            "{held} entries"
        );
        let blocks = drain(&mut backlog);
        assert_eq!(blocks.len(), 200_000);
        assert_eq!(blocks[199_999].first_line, 100_000);
    }

    #[test]
    fn tiny_blocks_of_one_stream_are_joined_but_pieces_are_not() {
        let mut backlog = Backlog::new(SpillBudget::new(0));
        backlog.push(block(Stream::Stdout, 1, b"a\n")).unwrap();
        backlog.push(block(Stream::Stdout, 2, b"b\r")).unwrap();
        backlog.push(block(Stream::Stdout, 3, b"\n")).unwrap();
        backlog.push(block(Stream::Stdout, 4, b"piece")).unwrap();
        backlog.push(block(Stream::Stdout, 5, b"rest\n")).unwrap();
        backlog.push(block(Stream::Stdout, 9, b"gap\n")).unwrap();
        let blocks = drain(&mut backlog);
        let bytes: Vec<&[u8]> = blocks.iter().map(|b| &b.bytes[..]).collect();
        assert_eq!(bytes, [&b"a\nb\r"[..], b"\npiece", b"rest\n", b"gap\n"]);
    }

    #[test]
    fn a_full_backlog_gives_the_block_back_and_goes_on_after_a_pop() {
        let dir = tempfile::tempdir().unwrap();
        let budget = SpillBudget::new(200_000);
        let mut backlog = Backlog::with(DEFAULT_MEMORY, dir.path().into(), budget);
        let mut sent = Vec::new();
        let refused = (1..).find_map(|number| {
            let next = line(number, 10_000);
            sent.push(next.clone());
            backlog.push(next).err()
        });
        assert_eq!(refused.map(|Full(b)| b), sent.last().cloned());
        assert!(backlog.spill_problem().is_none());
        assert!(backlog.bytes() > 400_000 && backlog.bytes() < 600_000);
        let again = sent.last().cloned().unwrap();
        let mut got = Vec::new();
        while backlog.push(again.clone()).is_err() {
            got.push(backlog.pop().unwrap().unwrap());
        }
        got.extend(drain(&mut backlog));
        assert_eq!(lines_of(&got), lines_of(&sent));
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_full() {
        let budget = SpillBudget::new(1 << 20);
        let mut backlog = Backlog::with(DEFAULT_MEMORY, "/nonexistent".into(), budget.clone());
        let taken = (1..).take_while(|&n| backlog.push(line(n, 50_000)).is_ok());
        assert!(taken.count() >= 3);
        assert!(backlog.spill_problem().is_some());
        assert_eq!(budget.available(), 1 << 20);
        assert!(lines_of(&drain(&mut backlog)).len() >= 3);
    }

    #[test]
    fn a_spill_file_that_cannot_be_read_is_told_once_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let budget = SpillBudget::new(8 << 20);
        let mut backlog = Backlog::with(DEFAULT_MEMORY, dir.path().into(), budget.clone());
        for number in 1..=100 {
            backlog.push(line(number, 20_000)).unwrap();
        }
        backlog.spill.as_ref().unwrap().file.set_len(10).unwrap();
        let mut got = Vec::new();
        let mut errors = 0;
        loop {
            match backlog.pop() {
                Ok(Some(block)) => got.push(block),
                Ok(None) => break,
                Err(_) => errors += 1,
            }
        }
        assert_eq!((errors, budget.available()), (1, 8 << 20));
        assert!(backlog.is_empty());
        assert_eq!(
            lines_of(&got).last().map(|(_, number, _)| *number),
            Some(100)
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(bool, usize, bool),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = prop_oneof![4 => 1usize..40, 2 => 1000usize..30_000, 1 => Just(MAX_BLOCK)];
        let push = (any::<bool>(), size, prop::bool::weighted(0.9));
        let step = prop_oneof![
            3 => push.prop_map(|(out, len, whole)| Step::Push(out, len, whole)),
            1 => Just(Step::Pop),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_queue(steps in steps(), memory in 0usize..200_000, spill in 0u64..1_000_000) {
            let dir = tempfile::tempdir().unwrap();
            let budget = SpillBudget::new(spill);
            let mut backlog = Backlog::with(memory, dir.path().into(), budget.clone());
            let (mut sent, mut got, mut numbers) = (Vec::new(), Vec::new(), [1, 1]);
            for step in steps {
                match step {
                    Step::Push(out, len, whole) => {
                        let stream = if out { Stream::Stdout } else { Stream::Stderr };
                        let number = &mut numbers[usize::from(out)];
                        let mut bytes = vec![b'a' + (*number % 26) as u8; len];
                        if whole {
                            bytes[len - 1] = b'\n';
                        }
                        let next = block(stream, *number, &bytes);
                        match backlog.push(next.clone()) {
                            Ok(()) => {
                                *number += 1;
                                sent.push(next);
                            }
                            Err(Full(back)) => {
                                prop_assert_eq!(back, next);
                                prop_assert!(!backlog.is_empty());
                            }
                        }
                    }
                    Step::Pop => got.extend(backlog.pop().unwrap()),
                }
                let waiting = |b: &[Block]| b.iter().map(|b| b.bytes.len() as u64).sum::<u64>();
                prop_assert_eq!(backlog.bytes(), waiting(&sent) - waiting(&got));
                prop_assert!(backlog.front.bytes + backlog.back.bytes <= memory.max(2 * MAX_BLOCK) + MAX_BLOCK);
            }
            got.extend(drain(&mut backlog));
            prop_assert!(lines_of(&got) == lines_of(&sent));
            prop_assert_eq!(budget.available(), spill);
        }
    }
}
