//! The sums of a run: a pure fold over its events, and the verdict that becomes the exit code.
//!
//! It keeps what the end of a screen needs and no more: groups instead of hosts where many ended
//! the same way, and the last lines of a bounded number of failures.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Block, Event, HostState, RunInfo, Severity, Stream, What};
use crate::job::{TaskId, TaskRef};
use crate::outcome::{Cause, Outcome, Remains};
use crate::target::HostName;
use crate::text;

/// How a run ended as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every selected host finished, and nothing failed.
    Ok,
    /// A task failed: code, signal, timeout, lost after it started.
    TaskFailed,
    /// Usage, playbook, inventory or configuration is wrong; nothing was executed.
    Usage,
    /// No task failed, but a host was unreachable.
    Unreachable,
    /// No task failed, but a host was refused: its identity, or our authentication.
    Refused,
    /// No host was selected.
    NothingMatched,
    /// Stopped early by policy: `stop_all`, the run's deadline.
    StoppedEarly,
    /// The work was done, but a report could not be written.
    ReportFailed,
    /// A bug in fanrun.
    Bug,
    /// Ended by this signal.
    Signal(u32),
}

impl Verdict {
    /// What each code means, for people; signals aside.
    pub const TABLE: [(Self, &'static str); 9] = [
        (Self::Ok, "every selected host finished, nothing failed"),
        (
            Self::TaskFailed,
            "a task failed: code, signal, timeout, lost after it started, files, parse, assert",
        ),
        (
            Self::Usage,
            "usage, playbook, inventory or configuration is wrong; nothing was executed",
        ),
        (
            Self::Unreachable,
            "no task failed, but a host was unreachable",
        ),
        (
            Self::Refused,
            "no task failed, but a host was refused: its identity, or our authentication",
        ),
        (
            Self::NothingMatched,
            "nothing matched: no host was selected",
        ),
        (
            Self::StoppedEarly,
            "stopped early by policy: max_failures, stop_all, the deadline",
        ),
        (
            Self::ReportFailed,
            "the work was done, but a report or log could not be written",
        ),
        (Self::Bug, "a bug in fanrun"),
    ];

    /// The process's exit code. This table is an interface: a change needs a new major version.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::TaskFailed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::NothingMatched => 5,
            Self::StoppedEarly => 6,
            Self::ReportFailed => 7,
            Self::Bug => 70,
            Self::Signal(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
        }
    }
}

/// Groups of failures, over all tasks.
const GROUPS: usize = 100;
/// Groups of one task and ending that differ in what was last written.
const VARIANTS: usize = 4;
/// Last lines kept of one failure, and the bytes kept of each.
const KEPT_LINES: usize = 5;
const KEPT_BYTES: usize = 300;
/// The word under which failures are counted that a `rescue` took over.
const RESCUED: &str = "rescued";
/// Slowest tasks kept.
const SLOWEST: usize = 3;

/// The sums.
#[derive(Debug, Clone, Default)]
pub struct Recap {
    /// What is known since the beginning.
    pub info: Option<Arc<RunInfo>>,
    /// Hosts by how they stand; only those that ended.
    pub hosts: BTreeMap<&'static str, usize>,
    /// Tasks by the word of their outcome.
    pub tasks: BTreeMap<&'static str, usize>,
    /// Tasks that were never started on a host that ended.
    pub not_started: u64,
    /// Failures, grouped by task, ending and last line, in the order in which each ending first
    /// came. There are at most two hundred, and one more for each task and word.
    pub failures: Vec<FailureGroup>,
    /// Hosts that could not be worked on, grouped by cause and message.
    pub problems: Vec<ProblemGroup>,
    /// Hosts on which something may still be running.
    pub maybe_running: Vec<HostName>,
    /// The longest tasks, longest first.
    pub slowest: Vec<(Duration, TaskRef, HostName)>,
    /// Diagnostics of at least warning grade.
    pub warnings: usize,
    /// When the last event came.
    pub elapsed: Duration,
    /// The signal that ended the run.
    pub signal: Option<u32>,
    /// The policy that ended it.
    pub stopped_by: Option<String>,
    bugs: usize,
    report_failed: bool,
    tails: HashMap<(HostName, TaskId), Tails>,
}

/// Jobs of one task that ended the same way, with the same last words.
#[derive(Debug, Clone)]
pub struct FailureGroup {
    /// The task.
    pub task: TaskRef,
    /// The outcome's word: `failed`, `timed_out`, `lost`, `internal`.
    pub word: &'static str,
    /// How it ended, in words: `exit 100`. Empty if there are too many ways to keep.
    pub ending: String,
    /// On which hosts.
    pub hosts: Vec<HostName>,
    /// The last lines that the first of them wrote, to stderr if it wrote there.
    pub lines: Vec<String>,
    /// The hosts that did not fit any other group: what each of them wrote last is not kept.
    pub rest: bool,
}

impl FailureGroup {
    fn is_of(&self, task: &TaskRef, ending: &str) -> bool {
        self.task.id == task.id && self.ending == ending
    }

    /// The last lines are the same, but for the host's own name in them.
    fn ends_with(&self, host: &HostName, last: Option<&String>) -> bool {
        let shape = |line: &String, host: &HostName| line.replace(host.as_str(), "\0");
        let first = |first: &HostName| self.lines.last().map(|line| shape(line, first));
        self.hosts.first().map(first) == Some(last.map(|line| shape(line, host)))
    }
}

/// Hosts that could not be worked on for the same reason.
#[derive(Debug, Clone)]
pub struct ProblemGroup {
    /// The reason's kind.
    pub cause: Cause,
    /// In words; of the first host.
    pub message: String,
    /// Which hosts.
    pub hosts: Vec<HostName>,
}

/// The last lines of a running task.
#[derive(Debug, Clone, Default)]
struct Tails {
    out: VecDeque<String>,
    err: VecDeque<String>,
}

impl Recap {
    /// Nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what an event says.
    pub fn add(&mut self, event: &Event) {
        self.elapsed = event.at;
        match &event.what {
            What::RunStart(info) => self.info = Some(Arc::clone(info)),
            What::HostProblem { host, problem } => {
                self.add_problem(host, problem.cause, &problem.message)
            }
            What::Output { host, task, block } => self.add_output(host, task, block),
            What::TaskEnd {
                host,
                task,
                outcome,
                took,
                rescued,
                ..
            } => self.add_end(host, task, (outcome, *rescued), *took),
            What::HostEnd {
                state, not_started, ..
            } => {
                self.bugs += usize::from(*state == HostState::Internal);
                *self.hosts.entry(state.word()).or_default() += 1;
                self.not_started += u64::from(*not_started);
            }
            What::Diagnostic { severity, .. } => {
                self.warnings += usize::from(*severity >= Severity::Warning);
            }
            What::RunEnd {
                signal, stopped_by, ..
            } => {
                self.signal = *signal;
                self.stopped_by.clone_from(stopped_by);
            }
            What::HostConnecting { .. }
            | What::HostReady { .. }
            | What::PlayStart { .. }
            | What::BatchStart { .. }
            | What::TaskStart { .. }
            | What::Entries { .. }
            | What::Rows { .. }
            | What::Progress { .. }
            | What::Print { .. }
            | What::Retry { .. }
            | What::Heartbeat { .. } => {}
        }
    }

    /// A report that was asked for could not be written.
    pub fn report_failed(&mut self) {
        self.report_failed = true;
    }

    /// How the run ended.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict_if(self.signal, self.stopped_by.is_some())
    }

    /// How the run will have ended if it ends now, by this signal or this policy.
    ///
    /// Of several verdicts the first in this order holds: signal, bug, failed task, stopped early,
    /// refused, unreachable, report.
    #[must_use]
    pub fn verdict_if(&self, signal: Option<u32>, stopped: bool) -> Verdict {
        let hosts = |state: HostState| self.hosts.get(state.word()).is_some_and(|n| *n > 0);
        match signal {
            Some(number) => Verdict::Signal(number),
            None if self.bugs > 0 => Verdict::Bug,
            None if !self.failures.is_empty() || hosts(HostState::Failed) => Verdict::TaskFailed,
            None if stopped || hosts(HostState::Cancelled) => Verdict::StoppedEarly,
            None if hosts(HostState::Refused) => Verdict::Refused,
            None if hosts(HostState::Unreachable) => Verdict::Unreachable,
            None if self.report_failed => Verdict::ReportFailed,
            // Green has to be earned: every host ended, and ended well, with nothing left to do.
            None if self.everything_was_done() => Verdict::Ok,
            None => Verdict::Bug,
        }
    }

    fn everything_was_done(&self) -> bool {
        let ok = self.hosts.get(HostState::Ok.word()).copied().unwrap_or(0);
        let selected = self.info.as_ref().map(|info| info.hosts.len());
        let cancelled = self.tasks.contains_key("cancelled");
        selected == Some(ok) && self.problems.is_empty() && self.not_started == 0 && !cancelled
    }

    fn add_problem(&mut self, host: &HostName, cause: Cause, message: &str) {
        let shape = |text: &str| text.replace(host.as_str(), "");
        let same = |group: &ProblemGroup| {
            let first = group.hosts.first().map_or("", HostName::as_str);
            group.cause == cause && group.message.replace(first, "") == shape(message)
        };
        let crowded = self.problems.len() >= GROUPS;
        let alike = |group: &ProblemGroup| same(group) || (crowded && group.cause == cause);
        let exact = self.problems.iter().position(same);
        match exact.or_else(|| self.problems.iter().position(alike)) {
            Some(at) => self.problems[at].hosts.push(host.clone()),
            None => {
                let (message, hosts) = (message.to_owned(), vec![host.clone()]);
                self.problems.push(ProblemGroup {
                    cause,
                    message,
                    hosts,
                });
            }
        }
    }

    fn add_output(&mut self, host: &HostName, task: &TaskRef, block: &Block) {
        let key = (host.clone(), task.id);
        let tails = self.tails.entry(key).or_default();
        let tail = match block.stream {
            Stream::Stdout => &mut tails.out,
            Stream::Stderr => &mut tails.err,
        };
        for line in last_lines(&block.bytes) {
            if tail.len() == KEPT_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }

    fn add_end(
        &mut self,
        host: &HostName,
        task: &TaskRef,
        (outcome, rescued): (&Outcome, bool),
        took: Duration,
    ) {
        let word = if rescued { RESCUED } else { outcome.word() };
        *self.tasks.entry(word).or_default() += 1;
        let tails = self
            .tails
            .remove(&(host.clone(), task.id))
            .unwrap_or_default();
        self.slowest.push((took, task.clone(), host.clone()));
        self.slowest.sort_by_key(|entry| std::cmp::Reverse(entry.0));
        self.slowest.truncate(SLOWEST);
        match outcome {
            Outcome::TimedOut {
                remote: Remains::MaybeRunning,
                ..
            }
            | Outcome::Cancelled {
                remote: Remains::MaybeRunning,
            }
            | Outcome::Lost { .. }
                if !self.maybe_running.contains(host) =>
            {
                self.maybe_running.push(host.clone());
            }
            _ => {}
        }
        match outcome {
            _ if rescued => return,
            Outcome::Ok { .. } | Outcome::Skipped { .. } | Outcome::Cancelled { .. } => return,
            Outcome::Internal { .. } => self.bugs += 1,
            Outcome::Failed(_) | Outcome::TimedOut { .. } | Outcome::Lost { .. } => {}
        }
        self.add_failure(host, task, outcome, tails);
    }

    /// Puts a failure where it belongs: to the same last words, else to a group of its own while
    /// there is room, else to the rest of the same ending, else to the rest of the task.
    fn add_failure(&mut self, host: &HostName, task: &TaskRef, outcome: &Outcome, tails: Tails) {
        let (word, ending) = (outcome.word(), outcome.to_string());
        let lines = tails.into_lines();
        let same = |group: &FailureGroup| group.is_of(task, &ending);
        let alike = |g: &FailureGroup| !g.rest && same(g) && g.ends_with(host, lines.last());
        if let Some(group) = self.failures.iter_mut().find(|group| alike(group)) {
            return group.hosts.push(host.clone());
        }
        let variants = self.failures.iter().filter(|group| same(group)).count();
        let crowded = self.failures.len() >= GROUPS;
        let rest = crowded || variants >= VARIANTS;
        // Where there is no room for the ending itself, all of them are one.
        let ending = match crowded && variants == 0 {
            true => String::new(),
            false => ending,
        };
        let same = |g: &FailureGroup| g.is_of(task, &ending) && g.word == word;
        let known = self.failures.iter_mut().find(|g| g.rest && same(g));
        if let (true, Some(group)) = (rest, known) {
            return group.hosts.push(host.clone());
        }
        let last = self.failures.iter().rposition(same);
        let at = last.map_or(self.failures.len(), |at| at + 1);
        let group = FailureGroup {
            task: task.clone(),
            word,
            ending,
            hosts: vec![host.clone()],
            lines: if rest { Vec::new() } else { lines },
            rest,
        };
        self.failures.insert(at, group);
    }
}

impl Tails {
    /// What was written to stderr, or to stdout if nothing was.
    fn into_lines(self) -> Vec<String> {
        let lines = if self.err.is_empty() {
            self.out
        } else {
            self.err
        };
        lines.into()
    }
}

/// The last few lines of a block, printable and cut, found from its end: a block may hold
/// thousands.
fn last_lines(bytes: &[u8]) -> Vec<String> {
    let mut rest = bytes;
    let mut lines = Vec::new();
    while !rest.is_empty() && lines.len() < KEPT_LINES {
        let body = rest.strip_suffix(b"\n").unwrap_or(rest);
        let start = memchr::memrchr(b'\n', body).map_or(0, |at| at + 1);
        let line = body[start..].trim_ascii_end();
        let line = &line[..line.len().min(KEPT_BYTES)];
        if !line.is_empty() {
            lines.push(text::printable_plain(line).into_owned());
        }
        rest = &rest[..start];
    }
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PlayId;
    use crate::outcome::{ExitStatus, Failure, HostProblem, Phase};
    use proptest::prelude::*;

    fn host(n: u8) -> HostName {
        HostName::new(&format!("h{n}")).unwrap()
    }

    fn task() -> TaskRef {
        TaskRef {
            id: TaskId {
                play: PlayId(0),
                index: 0,
            },
            name: "work".into(),
            place: None,
        }
    }

    fn recap(whats: impl IntoIterator<Item = What>) -> Recap {
        let mut recap = Recap::new();
        for what in whats {
            recap.add(&Event {
                seq: 0,
                at: Duration::ZERO,
                what,
            });
        }
        recap
    }

    fn ends(n: u8, state: HostState) -> What {
        What::HostEnd {
            host: host(n),
            state,
            not_started: 0,
        }
    }

    fn task_end(n: u8, outcome: Outcome) -> What {
        What::TaskEnd {
            host: host(n),
            task: task(),
            outcome,
            took: Duration::ZERO,
            tally: None,
            rescued: false,
            effort: crate::outcome::Effort::default(),
        }
    }

    fn problem(n: u8, cause: Cause) -> What {
        let problem = HostProblem {
            cause,
            message: "no".into(),
            details: Vec::new(),
        };
        What::HostProblem {
            host: host(n),
            problem,
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed(Failure::Exit(ExitStatus::Exited(1)))
    }

    #[test]
    fn what_a_rescue_took_over_is_counted_apart_and_is_no_failure() {
        let failed = |rescued| What::TaskEnd {
            host: host(1),
            task: task(),
            outcome: Outcome::Failed(Failure::Exit(ExitStatus::Exited(3))),
            took: Duration::ZERO,
            tally: None,
            rescued,
            effort: crate::outcome::Effort::default(),
        };
        let sums = recap([failed(true), failed(true)]);
        assert_eq!(sums.tasks, BTreeMap::from([("rescued", 2)]));
        assert!(sums.failures.is_empty());
        let sums = recap([failed(true), failed(false)]);
        assert_eq!(sums.tasks, BTreeMap::from([("failed", 1), ("rescued", 1)]));
        assert_eq!(sums.verdict(), Verdict::TaskFailed);
    }

    #[test]
    fn the_table_of_exit_codes_is_an_interface() {
        let codes = [
            (Verdict::Ok, 0),
            (Verdict::TaskFailed, 1),
            (Verdict::Usage, 2),
            (Verdict::Unreachable, 3),
            (Verdict::Refused, 4),
            (Verdict::NothingMatched, 5),
            (Verdict::StoppedEarly, 6),
            (Verdict::ReportFailed, 7),
            (Verdict::Bug, 70),
            (Verdict::Signal(2), 130),
            (Verdict::Signal(15), 143),
        ];
        for (verdict, code) in codes {
            assert_eq!(verdict.code(), code, "{verdict:?}");
        }
    }

    #[test]
    fn of_several_verdicts_the_gravest_holds() {
        let mut all = vec![ends(0, HostState::Ok), ends(1, HostState::Unreachable)];
        let mut reported = recap(all.clone());
        reported.report_failed();
        assert_eq!(reported.verdict(), Verdict::Unreachable);
        all.push(ends(2, HostState::Refused));
        assert_eq!(recap(all.clone()).verdict(), Verdict::Refused);
        all.push(ends(3, HostState::Cancelled));
        assert_eq!(recap(all.clone()).verdict(), Verdict::StoppedEarly);
        all.push(task_end(4, failed()));
        assert_eq!(recap(all.clone()).verdict(), Verdict::TaskFailed);
        all.push(task_end(
            5,
            Outcome::Internal {
                message: "x".into(),
            },
        ));
        assert_eq!(recap(all.clone()).verdict(), Verdict::Bug);
        all.push(What::RunEnd {
            signal: Some(15),
            stopped_by: None,
            code: 143,
        });
        assert_eq!(recap(all).verdict(), Verdict::Signal(15));
    }

    #[test]
    fn hosts_that_failed_the_same_way_are_one_group_with_the_last_lines() {
        let block = |text: &str| Block {
            stream: Stream::Stderr,
            first_line: 1,
            lines: 7,
            bytes: bytes::Bytes::from(text.to_owned()),
        };
        let says = |n| What::Output {
            host: host(n),
            task: task(),
            block: block("1\n2\n3\n4\n5\n6\n\x1b[2Jend\n"),
        };
        let ends = |n| task_end(n, failed());
        let recap = recap([says(1), says(2), ends(1), ends(2)]);
        assert_eq!(recap.failures.len(), 1);
        assert_eq!(recap.failures[0].hosts, [host(1), host(2)]);
        assert_eq!(recap.failures[0].lines, ["3", "4", "5", "6", "\\x1b[2Jend"]);
        assert_eq!(recap.failures[0].ending, "exit 1");
    }

    fn says(n: u8, text: &str) -> What {
        What::Output {
            host: host(n),
            task: task(),
            block: Block {
                stream: Stream::Stderr,
                first_line: 1,
                lines: 1,
                bytes: bytes::Bytes::from(text.to_owned()),
            },
        }
    }

    #[test]
    fn hosts_with_other_last_words_are_groups_of_their_own_up_to_a_bound() {
        let words = [
            "E: no package\n",
            "h1 is full\n",
            "E: no package\n",
            "h3 is full\n",
            "a\nb\n",
            "c\n",
        ];
        let failing = |n: u8| [says(n, words[usize::from(n)]), task_end(n, failed())];
        let mut recap = recap((0..6).flat_map(failing));
        let groups: Vec<(usize, Option<&str>)> = recap
            .failures
            .iter()
            .map(|g| (g.hosts.len(), g.lines.last().map(String::as_str)))
            .collect();
        let wanted = [
            (2, Some("E: no package")),
            (2, Some("h1 is full")),
            (1, Some("b")),
            (1, Some("c")),
        ];
        assert_eq!(groups, wanted);
        for n in 6..20 {
            for what in [says(n, &format!("{n}\n")), task_end(n, failed())] {
                let (seq, at) = (0, Duration::ZERO);
                recap.add(&Event { seq, at, what });
            }
        }
        let rest = recap.failures.last().unwrap();
        assert_eq!((recap.failures.len(), rest.hosts.len()), (5, 14));
        assert!(rest.rest && rest.lines.is_empty() && rest.ending == "exit 1");
        assert!(recap.tails.is_empty());
    }

    #[test]
    fn ten_thousand_endings_take_few_groups_and_lose_no_host() {
        let mut recap = Recap::new();
        for n in 0..10_000 {
            let host = HostName::new(&format!("n{n}")).unwrap();
            let reason = format!("reason {n}");
            let problem = HostProblem {
                cause: Cause::NoRoute,
                message: reason.clone(),
                details: Vec::new(),
            };
            let outcome = Outcome::Failed(Failure::NotStarted { reason });
            let end = What::TaskEnd {
                host: host.clone(),
                task: task(),
                outcome,
                took: Duration::ZERO,
                tally: None,
                rescued: false,
                effort: crate::outcome::Effort::default(),
            };
            for what in [end, What::HostProblem { host, problem }] {
                let (seq, at) = (0, Duration::ZERO);
                recap.add(&Event { seq, at, what });
            }
        }
        assert_eq!(
            (recap.failures.len(), recap.problems.len()),
            (GROUPS + 1, GROUPS)
        );
        let failed = recap.failures.iter().map(|g| g.hosts.len());
        assert_eq!(failed.sum::<usize>(), 10_000);
        let problems = recap.problems.iter().map(|g| g.hosts.len());
        assert_eq!(problems.sum::<usize>(), 10_000);
    }

    fn any_what() -> impl Strategy<Value = What> {
        let states = [
            HostState::Ok,
            HostState::Failed,
            HostState::Unreachable,
            HostState::Refused,
            HostState::Cancelled,
            HostState::Internal,
        ];
        let cancelled = || Outcome::Cancelled {
            remote: Remains::Ended,
        };
        let left = |n| What::HostEnd {
            host: host(n),
            state: HostState::Ok,
            not_started: 1,
        };
        prop_oneof![
            20 => (0u8..9).prop_map(|n| ends(n, HostState::Ok)),
            1 => (0u8..9, 0usize..6).prop_map(move |(n, at)| ends(n, states[at])),
            1 => (0u8..9).prop_map(left),
            10 => (0u8..9).prop_map(|n| task_end(n, Outcome::Ok { status: None })),
            1 => (0u8..9).prop_map(|n| task_end(n, failed())),
            1 => (0u8..9).prop_map(move |n| task_end(n, cancelled())),
            1 => (0u8..9).prop_map(|n| task_end(n, Outcome::Lost { reason: "x".into() })),
            1 => (0u8..9).prop_map(|n| problem(n, Cause::Timeout(Phase::Kex))),
        ]
    }

    fn begins(hosts: u8) -> What {
        What::RunStart(Arc::new(RunInfo {
            title: "x".into(),
            hosts: (0..hosts).map(host).collect(),
            tasks: 1,
            fanout: 1,
            started: 0,
            files: Vec::new(),
        }))
    }

    proptest! {
        #[test]
        fn green_only_if_everything_was(
            hosts in 0u8..4,
            whats in prop::collection::vec(any_what(), 0..6),
        ) {
            let good = |what: &What| match what {
                What::HostEnd { state, not_started, .. } => *state == HostState::Ok && *not_started == 0,
                What::TaskEnd { outcome, .. } => matches!(outcome, Outcome::Ok { .. }),
                What::HostProblem { .. } => false,
                _ => true,
            };
            let ended = whats.iter().filter(|what| matches!(what, What::HostEnd { .. })).count();
            let all_good = whats.iter().all(good) && ended == usize::from(hosts);
            let all = [begins(hosts)].into_iter().chain(whats.clone());
            prop_assert_eq!(recap(all).verdict() == Verdict::Ok, all_good);
            prop_assert_ne!(recap(whats).verdict(), Verdict::Ok, "without a beginning nothing is known");
        }
    }
}
