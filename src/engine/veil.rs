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
        // Whatever stands between two tasks of a host has flushed what was there of the first.
        let streams = self.streams.entry(host.clone()).or_insert_with(|| {
            let mut task = task;
            named(mask, &mut task);
            Streams {
                task,
                veiled: Default::default(),
            }
        });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{HostState, Severity};
    use crate::job::{PlayId, TaskId};
    use crate::outcome::{Cause, Effort, FilesCause, Remains};
    use crate::secret::Secret;
    use crate::transfer::{CurrentFile, Progress};

    const CANARY: &str = "c4nary-in-a-coalmine";

    fn veil() -> Veil {
        let mask = Mask::new(vec![Secret::new(CANARY.into())]);
        Veil::new(watch::channel(Arc::new(mask)).1)
    }

    fn host() -> HostName {
        HostName::new("web1").unwrap()
    }

    fn task() -> TaskRef {
        let id = TaskId {
            play: PlayId(0),
            index: 0,
        };
        TaskRef {
            id,
            name: format!("work {CANARY}").into(),
            place: None,
        }
    }

    fn ended(outcome: Outcome) -> What {
        What::TaskEnd {
            host: host(),
            task: task(),
            outcome,
            took: Duration::ZERO,
            tally: None,
            rescued: false,
            effort: Effort::default(),
        }
    }

    /// One of each event, with the secret wherever there is text.
    fn events() -> Vec<What> {
        let said = || format!("a {CANARY} b");
        let (host, task) = (host(), task());
        let problem = HostProblem {
            cause: Cause::Kex,
            message: said(),
            details: vec![("tried", said())],
        };
        let info = RunInfo {
            title: said(),
            hosts: Vec::new(),
            tasks: 1,
            fanout: 1,
            started: 0,
            files: Vec::new(),
        };
        let current = Some(CurrentFile {
            path: said(),
            bytes: 1,
            total: 2,
        });
        let progress = Progress {
            current,
            ..Progress::default()
        };
        let nested = serde_json::json!({"a": [said()]});
        let row = Row {
            cells: vec![
                (said().into(), Value::Text(said().into())),
                ("n".into(), Value::Nested(nested)),
            ],
            approximate: false,
        };
        let bad = BadLine::new("du", 1, said().as_bytes(), 0..1, said());
        let block = Block {
            stream: Stream::Stderr,
            first_line: 1,
            lines: 1,
            bytes: format!("{}\n", said()).into(),
        };
        let failure = |failure| ended(Outcome::Failed(failure));
        let mut events = vec![
            What::RunStart(Arc::new(info)),
            What::HostConnecting {
                host: host.clone(),
                address: said(),
            },
            What::HostProblem {
                host: host.clone(),
                problem,
            },
            What::PlayStart {
                play: PlayId(0),
                name: said().into(),
                hosts: 1,
            },
            What::BatchStart {
                play: PlayId(0),
                task: Some(task.clone()),
                number: 1,
                hosts: 1,
            },
            What::TaskStart {
                host: host.clone(),
                task: task.clone(),
            },
            What::Output {
                host: host.clone(),
                task: task.clone(),
                block,
            },
            What::Rows {
                host: host.clone(),
                task: task.clone(),
                first: 1,
                rows: Arc::new([row]),
            },
            What::Progress {
                host: host.clone(),
                task: task.clone(),
                progress,
            },
            What::Print {
                host: host.clone(),
                task: task.clone(),
                text: said(),
            },
            What::Diagnostic {
                host: None,
                severity: Severity::Note,
                message: said(),
            },
            What::Heartbeat {
                running: 1,
                queued: 0,
                longest: Some((host.clone(), task.clone(), Duration::ZERO)),
            },
            What::RunEnd {
                signal: None,
                stopped_by: Some(said()),
                code: 0,
            },
            What::HostEnd {
                host: host.clone(),
                state: HostState::Ok,
                not_started: 0,
            },
            failure(Failure::Parse(Box::new(bad))),
            failure(Failure::NotStarted { reason: said() }),
            failure(Failure::Assert { reason: said() }),
            failure(Failure::Unmet { reason: said() }),
            failure(Failure::Files {
                cause: FilesCause::Denied,
                reason: said(),
            }),
            ended(Outcome::Lost { reason: said() }),
            ended(Outcome::Skipped { reason: said() }),
            ended(Outcome::Internal { message: said() }),
            ended(Outcome::Cancelled {
                remote: Remains::Ended,
            }),
        ];
        events.push(What::Retry {
            host,
            task: Some(task),
            attempt: 2,
            delay: Duration::ZERO,
            reason: said(),
        });
        events
    }

    #[test]
    fn no_event_tells_a_secret() {
        let (mut veil, mut shown) = (veil(), 0);
        for what in events() {
            assert!(format!("{what:?}").contains(CANARY) || matches!(what, What::HostEnd { .. }));
            for covered in veil.cover(what) {
                let told = format!("{covered:?}");
                assert!(!told.contains(CANARY), "{told}");
                shown += usize::from(told.contains(STARS));
            }
        }
        assert!(shown >= 22, "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_waits_for_its_end_and_not_for_ever() {
        let mut veil = veil();
        let output = |first_line, text: &str| What::Output {
            host: host(),
            task: task(),
            block: Block {
                stream: Stream::Stdout,
                first_line,
                lines: 1,
                bytes: text.to_owned().into(),
            },
        };
        let text = |shown: Vec<What>| -> String {
            let bytes = shown.into_iter().map(|what| match what {
                What::Output { block, .. } => String::from_utf8(block.bytes.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            });
            bytes.collect()
        };
        assert_eq!(text(veil.cover(output(1, "c4nary-in\n"))), "");
        assert_eq!(text(veil.cover(output(2, "-a-coalmine\n"))), "***\n***\n");
        assert_eq!(text(veil.cover(output(3, "c4nary\n"))), "");
        let due = veil.due().unwrap();
        assert!(veil.release().is_empty() || veil.due().is_none());
        tokio::time::sleep_until(due + PATIENCE).await;
        let released = text(veil.release());
        assert_eq!(released, "c4nary\n");
        assert_eq!(veil.due(), None);
    }
}
