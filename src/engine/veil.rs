//! Takes secrets out of events before anybody sees them: renderers, files, the recap and the exit
//! message are all made from events, and from nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::event::{Block, RunInfo, Stream, What};
use crate::job::TaskRef;
use crate::listing::Entry;
use crate::outcome::{Failure, HostProblem, Outcome};
use crate::output::mask::{Mask, STARS, Veiled};
use crate::rows::{BadLine, Row, Value};
use crate::target::HostName;

/// How long lines may wait that end with what may be the start of a secret. What a program writes
/// in one go comes in less; a person should not notice.
const PATIENCE: Duration = Duration::from_millis(150);

/// The secrets of a run; more may come while it goes on, such as a password that is asked for.
pub type Masks = watch::Receiver<Arc<Mask>>;

/// Between those who say what happened and those who show it.
pub(super) struct Veil {
    masks: Masks,
    /// Output that is not shown yet, oldest first.
    streams: BTreeMap<HostName, Streams>,
    waiting: VecDeque<(Instant, HostName)>,
}

struct Streams {
    task: TaskRef,
    /// Standard output and standard error.
    veiled: [Veiled; 2],
}

impl Veil {
    pub(super) fn new(masks: Masks) -> Self {
        Self {
            masks,
            streams: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// What of an event may be shown now. Output may come later; never after what followed it.
    pub(super) fn cover(&mut self, what: What) -> Vec<What> {
        let mask = Arc::clone(&self.masks.borrow());
        if mask.is_empty() {
            return vec![what];
        }
        match what {
            What::Output { host, task, block } => self.output(&mask, host, task, block),
            other => {
                let host = host_of(&other);
                let mut shown = host.map_or_else(Vec::new, |host| self.flush(&mask, &host));
                shown.push(covered(&mask, other));
                shown
            }
        }
    }

    fn output(&mut self, mask: &Mask, host: HostName, task: TaskRef, block: Block) -> Vec<What> {
        let streams = self.streams.entry(host.clone()).or_insert_with(|| Streams {
            task: task.clone(),
            veiled: Default::default(),
        });
        streams.task = task;
        let veiled = &mut streams.veiled[usize::from(block.stream == Stream::Stderr)];
        let waited = veiled.waits();
        let blocks = veiled.push(mask, block);
        if veiled.waits() && !waited {
            self.waiting
                .push_back((Instant::now() + PATIENCE, host.clone()));
        }
        shown(&host, &streams.task, blocks)
    }

    /// What waits of a host.
    fn flush(&mut self, mask: &Mask, host: &HostName) -> Vec<What> {
        let Some(mut streams) = self.streams.remove(host) else {
            return Vec::new();
        };
        let veiled = streams.veiled.iter_mut();
        let blocks = veiled.flat_map(|veiled| veiled.flush(mask)).collect();
        shown(host, &streams.task, blocks)
    }

    /// When output has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// The output that has waited long enough.
    pub(super) fn release(&mut self) -> Vec<What> {
        let mask = Arc::clone(&self.masks.borrow());
        let now = Instant::now();
        let mut shown = Vec::new();
        while self.waiting.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, host)) = self.waiting.pop_front() {
                shown.extend(self.flush(&mask, &host));
            }
        }
        shown
    }
}

fn shown(host: &HostName, task: &TaskRef, blocks: Vec<Block>) -> Vec<What> {
    let output = |block| What::Output {
        host: host.clone(),
        task: task.clone(),
        block,
    };
    blocks.into_iter().map(output).collect()
}

fn host_of(what: &What) -> Option<HostName> {
    match what {
        What::HostConnecting { host, .. }
        | What::HostReady { host, .. }
        | What::HostProblem { host, .. }
        | What::TaskStart { host, .. }
        | What::Output { host, .. }
        | What::Entries { host, .. }
        | What::Rows { host, .. }
        | What::Print { host, .. }
        | What::Retry { host, .. }
        | What::TaskEnd { host, .. }
        | What::HostEnd { host, .. } => Some(host.clone()),
        What::Diagnostic { host, .. } => host.clone(),
        What::RunStart(_)
        | What::PlayStart { .. }
        | What::BatchStart { .. }
        | What::Progress { .. }
        | What::Heartbeat { .. }
        | What::RunEnd { .. } => None,
    }
}

/// An event without secrets. Output is not meant: it needs what comes after it.
fn covered(mask: &Mask, mut what: What) -> What {
    match &mut what {
        What::RunStart(info) => title(mask, info),
        What::HostConnecting { address, .. } => text(mask, address),
        What::HostProblem { problem, .. } => reasons(mask, problem),
        What::PlayStart { name, .. } => shared(mask, name),
        What::BatchStart { task, .. } => task.iter_mut().for_each(|task| named(mask, task)),
        What::TaskStart { task, .. } => named(mask, task),
        What::Entries { task, entries, .. } => {
            named(mask, task);
            *entries = entries.iter().map(|one| entry(mask, one)).collect();
        }
        What::Rows { task, rows, .. } => {
            named(mask, task);
            *rows = rows.iter().map(|one| row(mask, one)).collect();
        }
        What::Progress { task, progress, .. } => {
            named(mask, task);
            let current = progress.current.as_mut();
            current.into_iter().for_each(|at| text(mask, &mut at.path));
        }
        What::Print {
            task, text: said, ..
        } => {
            named(mask, task);
            text(mask, said);
        }
        What::Retry { task, reason, .. } => {
            task.iter_mut().for_each(|task| named(mask, task));
            text(mask, reason);
        }
        What::TaskEnd { task, outcome, .. } => {
            named(mask, task);
            ending(mask, outcome);
        }
        What::Diagnostic { message, .. } => text(mask, message),
        What::Heartbeat { longest, .. } => {
            longest
                .iter_mut()
                .for_each(|(_, task, _)| named(mask, task));
        }
        What::RunEnd { stopped_by, .. } => {
            stopped_by.iter_mut().for_each(|policy| text(mask, policy));
        }
        What::HostReady { .. } | What::Output { .. } | What::HostEnd { .. } => {}
    }
    what
}

fn text(mask: &Mask, text: &mut String) {
    if let std::borrow::Cow::Owned(masked) = mask.text(text) {
        *text = masked;
    }
}

fn shared(mask: &Mask, name: &mut Arc<str>) {
    if let std::borrow::Cow::Owned(masked) = mask.text(name) {
        *name = masked.into();
    }
}

fn named(mask: &Mask, task: &mut TaskRef) {
    shared(mask, &mut task.name);
}

fn title(mask: &Mask, info: &mut Arc<RunInfo>) {
    text(mask, &mut Arc::make_mut(info).title);
}

fn reasons(mask: &Mask, problem: &mut HostProblem) {
    text(mask, &mut problem.message);
    let details = problem.details.iter_mut();
    details.for_each(|(_, said)| text(mask, said));
}

fn bytes(mask: &Mask, bytes: &mut Bytes) {
    if let std::borrow::Cow::Owned(masked) = mask.bytes(bytes) {
        *bytes = masked.into();
    }
}

fn entry(mask: &Mask, entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    bytes(mask, &mut entry.path);
    entry.target.iter_mut().for_each(|to| bytes(mask, to));
    entry.error.iter_mut().for_each(|error| text(mask, error));
    entry
}

fn row(mask: &Mask, row: &Row) -> Row {
    let mut row = row.clone();
    for (name, value) in &mut row.cells {
        shared(mask, name);
        cell(mask, value);
    }
    row
}

fn cell(mask: &Mask, value: &mut Value) {
    match value {
        Value::Text(said) => bytes(mask, said),
        Value::Nested(json) => inside(mask, json),
        Value::Null | Value::Bool(_) => {}
        // A number that is a secret has no other way to be shown.
        Value::Int(_)
        | Value::Float(_)
        | Value::Size(_)
        | Value::Percent(_)
        | Value::Duration(_)
        | Value::Time(_) => {
            if mask.finds(&value.json().to_string()) {
                *value = Value::Text(Bytes::from_static(STARS.as_bytes()));
            }
        }
    }
}

fn inside(mask: &Mask, json: &mut Json) {
    match json {
        Json::String(said) => text(mask, said),
        Json::Array(items) => items.iter_mut().for_each(|item| inside(mask, item)),
        Json::Object(entries) => entries.values_mut().for_each(|entry| inside(mask, entry)),
        Json::Number(number) if mask.finds(&number.to_string()) => *json = STARS.into(),
        Json::Number(_) | Json::Null | Json::Bool(_) => {}
    }
}

fn ending(mask: &Mask, outcome: &mut Outcome) {
    match outcome {
        Outcome::Failed(Failure::Parse(bad)) => line(mask, bad),
        Outcome::Failed(
            Failure::NotStarted { reason }
            | Failure::Assert { reason }
            | Failure::Unmet { reason }
            | Failure::Files { reason, .. },
        )
        | Outcome::Lost { reason }
        | Outcome::Skipped { reason } => text(mask, reason),
        Outcome::Internal { message } => text(mask, message),
        Outcome::Ok { .. }
        | Outcome::Failed(Failure::Exit(_))
        | Outcome::TimedOut { .. }
        | Outcome::Cancelled { .. } => {}
    }
}

/// The span points into the line: where the line changes, all of it is meant.
fn line(mask: &Mask, bad: &mut BadLine) {
    if let std::borrow::Cow::Owned(masked) = mask.bytes(&bad.text) {
        bad.text = masked.into();
        bad.span = 0..bad.text.len();
    }
    text(mask, &mut bad.expected);
}
