//! What a lane says, in order, to the run loop.
//!
//! There are two channels to the loop, both bounded and shared. What begins something (a
//! connection, a task) goes on its own and is always heard, so that a reader who does not read
//! keeps no host from its work. Output, and what must come after output, goes on the other. While it is full, output goes to the lane's
//! backlog (memory, then a spill file) so that the session stays drained: russh answers no
//! keepalive, signal or other channel while one channel's queue is full. Only when the backlog is
//! full too is reading stopped, and the remote command blocks in its write. Nothing is dropped,
//! except that a run which is being stopped does not wait for a reader who does not read.

use std::collections::VecDeque;

use tokio::sync::{mpsc, watch};

use super::rows::Rowing;
use super::state::{Level, News};
use crate::event::{Block, Severity, Stream};
use crate::job::{HostId, TaskRef};
use crate::output::backlog::Backlog;

/// The sending side of one lane.
pub(super) struct Outbox {
    host: HostId,
    beginnings: mpsc::Sender<(HostId, News)>,
    loop_: mpsc::Sender<(HostId, News)>,
    cancel: watch::Receiver<Level>,
    backlog: Backlog,
    /// Blocks that the backlog had no room for; reading stops while there are any.
    held: VecDeque<Block>,
    task: Option<TaskRef>,
    /// Makes rows of what goes on to the loop: so what waits, waits as bytes.
    rows: Option<Rowing>,
    /// Rows of earlier processes of the same task.
    rows_counted: u64,
    muted: bool,
    dropped: u64,
    /// The last line of each stream of the task, and of its processes before this one.
    numbered: [u64; 2],
    numbered_before: [u64; 2],
}

/// The two channels to the loop.
#[derive(Clone)]
pub(super) struct Ways {
    /// Always heard.
    pub(super) beginnings: mpsc::Sender<(HostId, News)>,
    /// Heard while the reader keeps up.
    pub(super) output: mpsc::Sender<(HostId, News)>,
}

/// The spill file could not be read back: output is lost, and the task must not look whole.
#[derive(Debug, thiserror::Error)]
#[error("output kept in a temporary file could not be read back: {0}")]
pub(super) struct SpillLost(#[from] std::io::Error);

impl Outbox {
    pub(super) fn new(
        host: HostId,
        ways: Ways,
        cancel: watch::Receiver<Level>,
        backlog: Backlog,
    ) -> Self {
        Self {
            host,
            beginnings: ways.beginnings,
            loop_: ways.output,
            cancel,
            backlog,
            held: VecDeque::new(),
            task: None,
            rows: None,
            rows_counted: 0,
            muted: false,
            dropped: 0,
            numbered: [0; 2],
            numbered_before: [0; 2],
        }
    }

    /// Says that something begins. Nothing that was said before it is still waiting.
    pub(super) async fn say_beginning(&self, news: News) {
        // The loop outlives every lane; if it is gone there is nobody left to tell.
        let _ = self.beginnings.send((self.host, news)).await;
    }

    /// Says something after all output that was offered before it.
    pub(super) async fn say(&mut self, news: News) -> Result<(), SpillLost> {
        self.flush().await?;
        // The loop outlives every lane; if it is gone there is nobody left to tell.
        let _ = self.loop_.send((self.host, news)).await;
        Ok(())
    }

    /// Says something that is of use only at once: not at all while there is no room for it.
    pub(super) fn say_if_heard(&mut self, news: News) {
        if self.is_empty()
            && let Ok(permit) = self.loop_.try_reserve()
        {
            permit.send((self.host, news));
        }
    }

    /// Output offered from now on belongs to this task.
    pub(super) fn belongs_to(&mut self, task: &TaskRef) {
        self.task = Some(task.clone());
        self.rows = None;
        self.rows_counted = 0;
        self.muted = false;
        self.numbered = [0; 2];
        self.numbered_before = [0; 2];
    }

    /// Another process of the same task follows: its lines are counted on from here, since line
    /// numbers of a task have no gap.
    pub(super) fn next_process(&mut self) {
        self.numbered_before = self.numbered;
    }

    /// Standard output offered from now on becomes rows as well.
    pub(super) fn parse(&mut self, mut rows: Rowing) {
        rows.count_from(self.rows_counted);
        self.rows = Some(rows);
    }

    /// Whether no more rows are wanted, or a line did not fit.
    pub(super) fn rows_are_over(&self) -> bool {
        self.rows.as_ref().is_some_and(Rowing::is_over)
    }

    /// All output was offered; `whole` if the process ended it. Says the last rows.
    pub(super) async fn end_rows(&mut self, whole: bool) -> Result<Option<Rowing>, SpillLost> {
        if self.rows.is_none() {
            return Ok(None);
        }
        self.flush().await?;
        let mut rows = self.rows.take();
        if let (Some(rows), Some(task), true) = (&mut rows, self.task.clone(), whole && !self.muted)
        {
            for (first, block) in rows.finish() {
                self.say(News::Rows(task.clone(), first, block)).await?;
            }
        }
        self.rows_counted = rows.as_ref().map_or(self.rows_counted, Rowing::counted);
        Ok(rows)
    }

    /// Takes a block without waiting.
    pub(super) fn offer(&mut self, mut block: Block) {
        let at = usize::from(block.stream == Stream::Stderr);
        block.first_line += self.numbered_before[at];
        self.numbered[at] = block.first_line + u64::from(block.lines) - 1;
        if self.muted {
            self.dropped += block.bytes.len() as u64;
            return;
        }
        let block = match self.is_empty().then(|| self.loop_.try_reserve()) {
            Some(Ok(permit)) => {
                if let Some(task) = &self.task {
                    permit.send((self.host, news(task, &mut self.rows, block)));
                }
                return;
            }
            Some(Err(_)) | None => block,
        };
        if !self.held.is_empty() {
            return self.held.push_back(block);
        }
        if let Err(full) = self.backlog.push(block) {
            self.held.push_back(full.0);
        }
    }

    /// Whether the process may be read.
    pub(super) fn has_room(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.backlog.is_empty()
    }

    /// Moves one block on as soon as the loop has room. Cancel-safe: a block leaves the backlog
    /// only when its place is reserved.
    pub(super) async fn pump(&mut self) -> Result<(), SpillLost> {
        let Ok(permit) = self.loop_.reserve().await else {
            self.discard();
            return Ok(());
        };
        let next = match self.backlog.pop()? {
            Some(block) => Some(block),
            None => self.held.pop_front(),
        };
        if let (Some(block), Some(task)) = (next, &self.task) {
            permit.send((self.host, news(task, &mut self.rows, block)));
        }
        while let Some(block) = self.held.pop_front() {
            if let Err(full) = self.backlog.push(block) {
                self.held.push_front(full.0);
                break;
            }
        }
        Ok(())
    }

    /// The run is being stopped. A reader who kept up still gets what follows; for one who did
    /// not, waiting would be endless: what waits is dropped, and so is all that would follow, so
    /// that no gap stands in the middle.
    pub(super) fn stop_waiting(&mut self) {
        if !self.is_empty() {
            self.discard();
        }
    }

    /// Bytes of output that were never shown, for the note at the end.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn discard(&mut self) {
        self.dropped += self.backlog.bytes();
        self.dropped += self
            .held
            .iter()
            .map(|block| block.bytes.len() as u64)
            .sum::<u64>();
        self.backlog.clear();
        self.held.clear();
        self.muted = true;
    }

    async fn flush(&mut self) -> Result<(), SpillLost> {
        let mut cancel = self.cancel.clone();
        while !self.is_empty() {
            let stopped = cancel.wait_for(|level| *level != Level::Run);
            tokio::select! {
                biased;
                moved = self.pump() => moved?,
                _ = stopped => self.stop_waiting(),
            }
        }
        let dropped = self.take_dropped();
        if dropped > 0 {
            let text = format!("{dropped} bytes of output were not shown: nobody read them");
            let _ = self
                .loop_
                .send((self.host, News::Note(Severity::Warning, text)))
                .await;
        }
        Ok(())
    }
}

/// A block, with the rows that it completes.
fn news(task: &TaskRef, rows: &mut Option<Rowing>, block: Block) -> News {
    let wanted = rows.as_mut().filter(|_| block.stream == Stream::Stdout);
    match wanted.and_then(|rows| rows.take(&block.bytes)) {
        Some((first, rows)) => News::Parsed(task.clone(), block, first, rows),
        None => News::Output(task.clone(), block),
    }
}
