//! What a run consists of, as far as order is concerned: plays, tasks, blocks, gates, batches.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::job::{HostId, OnFailure, TaskId, TaskRef};
use crate::target::HostName;

/// A run.
#[derive(Debug, Clone)]
pub struct Shape {
    /// All hosts; a [`HostId`] is a place in here.
    pub hosts: Vec<HostName>,
    /// The plays, in order.
    pub plays: Vec<PlayShape>,
    /// Whether connections stay open while their hosts wait: all of them fit under the limit.
    pub keep_open: bool,
}

/// One play.
#[derive(Debug, Clone)]
pub struct PlayShape {
    /// Its name.
    pub name: Arc<str>,
    /// Its hosts.
    pub hosts: Vec<HostId>,
    /// How many hosts are worked on at once.
    pub fanout: usize,
    /// Its tasks; those of blocks stand in the order body, rescue, always.
    pub tasks: Vec<TaskShape>,
    /// Its blocks, inner ones before those that they stand in.
    pub blocks: Vec<Block>,
    /// How its hosts are taken in turn.
    pub rollout: Rollout,
}

/// One task.
#[derive(Debug, Clone)]
pub struct TaskShape {
    /// How events name it.
    pub reference: TaskRef,
    /// What a failure means.
    pub on_failure: OnFailure,
    /// Whether hosts wait for each other before it.
    pub gate: Gate,
}

/// What stands before a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gate {
    /// Nothing: every host goes on as soon as it can.
    #[default]
    None,
    /// All hosts of the batch arrive before any begins.
    Together,
    /// All arrive; then one does it for all.
    Once,
    /// All arrive; then so many at a time do it.
    Limit(usize),
    /// All arrive; then they do it in batches, and none goes on before the last batch is through.
    Batches(Rollout),
}

/// Hosts in turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// How many hosts each batch has, at least 1 each; the last holds for all that follow. Empty:
    /// all at once.
    pub batches: Vec<usize>,
    /// How many hosts may fail; one more ends the run.
    pub max_failures: Option<usize>,
    /// The wait between two batches.
    pub pause: Duration,
}

/// Tasks that stand in for each other: places in the play's list. Each begins where the one before
/// ends; `rescue` and `always` may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What is tried.
    pub body: Range<usize>,
    /// What is done when that failed.
    pub rescue: Range<usize>,
    /// What is done in any case.
    pub always: Range<usize>,
}

impl Rollout {
    /// The size of batch number `index`, from 0, when `left` hosts have had no turn yet.
    pub(super) fn size(&self, index: usize, left: usize) -> usize {
        let size = self.batches.get(index).or(self.batches.last());
        size.copied().unwrap_or(left).clamp(1, left.max(1))
    }
}

/// Where a host goes after a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    /// To this place.
    On(usize),
    /// It has failed, and nothing rescued it.
    Failed,
    /// It is through.
    Done,
}

impl PlayShape {
    /// Whether a failure of the task is taken over by a `rescue`, at once or after an `always`.
    pub(super) fn is_rescued(&self, task: TaskId) -> bool {
        let at = usize::from(task.index);
        self.blocks
            .iter()
            .any(|block| block.body.contains(&at) && !block.rescue.is_empty())
    }

    /// Where a host goes after the task at `at`, which `failed` or not. `unmended` holds the blocks
    /// whose `always` is being done while their failure stands.
    pub(super) fn after(&self, at: usize, failed: bool, unmended: &mut Vec<usize>) -> Going {
        let (mut failed, mut next) = (failed, at + 1);
        for (number, block) in self.blocks.iter().enumerate() {
            if !(block.body.start..block.always.end).contains(&at) {
                continue;
            }
            if block.always.contains(&at) {
                if !failed && next < block.always.end {
                    return Going::On(next);
                }
                failed |= unmended.pop_if(|open| *open == number).is_some();
                next = block.always.end;
                continue;
            }
            let part = if block.body.contains(&at) {
                &block.body
            } else {
                &block.rescue
            };
            if !failed && next < part.end {
                return Going::On(next);
            }
            if failed && block.body.contains(&at) && !block.rescue.is_empty() {
                return Going::On(block.rescue.start);
            }
            if !block.always.is_empty() {
                if failed {
                    unmended.push(number);
                }
                return Going::On(block.always.start);
            }
            next = block.always.end;
        }
        match (failed, next < self.tasks.len()) {
            (true, _) => Going::Failed,
            (false, true) => Going::On(next),
            (false, false) => Going::Done,
        }
    }
}
