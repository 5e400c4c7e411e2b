//! The run, as a pure state machine: `on(input)` says what is to be done, and does nothing itself.
//!
//! Every decision about order lives here: which host begins when, what a failure means for the
//! rest, what a signal does, when the run is over. No clock, no process, no channel; so every pair
//! of inputs can be tested without any of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::shape::{Gate, Going, Rollout, Shape};
use crate::event::{Block, HostState, Severity, What};
use crate::job::{HostId, OnFailure, PlayId, TaskId, TaskRef};
use crate::listing::Entry;
use crate::outcome::{Effort, HostProblem, Outcome, Remains};
use crate::rows::Row;
use crate::target::HostName;
use crate::transfer::{Progress, Tally};

/// Something that happened outside.
#[derive(Debug, Clone)]
pub enum Input {
    /// A lane said something.
    Lane(HostId, News),
    /// A signal that asks us to end came: its number.
    Signal(u32),
    /// Nobody reads our output any more (EPIPE).
    ReaderGone,
    /// The limit for the whole run passed.
    Deadline(Duration),
    /// Time went by; asks for a heartbeat if it has been quiet.
    Tick,
    /// The wait that [`Effect::Wait`] asked for is over.
    Waited,
    /// This process had been stopped, and runs again.
    Continued,
}

/// What lanes say.
#[derive(Debug, Clone)]
pub enum News {
    /// A connection is being opened.
    Connecting {
        /// `user@address:port` or `local`.
        address: String,
    },
    /// It is open and authenticated.
    Ready {
        /// Since the first attempt began.
        took: Duration,
        /// Attempts that were dropped before.
        retries: u32,
    },
    /// An attempt was dropped; another follows.
    Retry {
        /// The task that is tried again; `None` where it is the connection.
        task: Option<TaskRef>,
        /// The next attempt's number, from 2.
        attempt: u32,
        /// The wait before it.
        delay: Duration,
        /// Why.
        reason: String,
    },
    /// The host cannot be worked on. The order that asked for it was not carried out.
    Problem(HostProblem),
    /// A task begins.
    TaskStart(TaskRef),
    /// A process wrote.
    Output(TaskRef, Block),
    /// A process wrote, and that completed rows: the first one's number, and the rows, never none.
    Parsed(TaskRef, Block, u64, Arc<[Row]>),
    /// The end of the output completed rows.
    Rows(TaskRef, u64, Arc<[Row]>),
    /// A listing found files; never none.
    Entries(TaskRef, Arc<[Entry]>),
    /// A transfer has come so far.
    Progress(TaskRef, Progress),
    /// A `print` task's text.
    Print(TaskRef, String),
    /// A task ended.
    TaskEnd {
        /// Which.
        task: TaskRef,
        /// How.
        outcome: Outcome,
        /// Since its start.
        took: Duration,
        /// What it moved or found.
        tally: Option<Tally>,
        /// How often it was tried.
        effort: Effort,
    },
    /// An order was carried out by doing nothing: it was not due on this host, and nobody needs to
    /// hear of it (a handler that nothing notified).
    Passed(TaskId),
    /// An order was dropped because the run is being stopped; its task was not started.
    Stopped,
    /// Whoever was asked wants nothing more to be done: an order was dropped for that, and no
    /// further one is to be given. What runs goes on to its end.
    Quit,
    /// Worth a person's eye.
    Note(Severity, String),
    /// The lane is over; nothing more comes from it.
    Ended,
    /// The lane panicked; nothing more comes from it.
    Panicked(String),
}

/// What a lane is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Do this task; connect first if that is needed.
    Task(TaskId),
    /// Close the connection; more may come later.
    Rest,
    /// Close the connection and end.
    Finish,
}

/// How hard running work is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// It is not.
    #[default]
    Run,
    /// TERM, a grace, then KILL.
    Stop,
    /// KILL at once.
    Kill,
}

/// Something to be done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Tell everybody.
    Emit(What),
    /// Begin this host's lane.
    Begin(HostId),
    /// Tell this host's lane.
    Order(HostId, Order),
    /// End what runs.
    Cancel(Level),
    /// Leave now, whatever still runs.
    Leave,
    /// Say [`Input::Waited`] after so long. At most one is outstanding.
    Wait(Duration),
    /// All is done. The caller adds `RunEnd`, with the exit code that the recap gives.
    Finish {
        /// The signal that ended the run.
        signal: Option<u32>,
        /// The policy that ended it.
        stopped_by: Option<String>,
    },
}

#[derive(Debug)]
struct Host {
    lane: Lane,
    /// Set when nothing more will be started on it.
    out: Option<HostState>,
    /// A task failed and the host went on.
    failed: bool,
    running: Option<(TaskRef, Duration)>,
    /// Next task of the current play.
    next: usize,
    /// Blocks whose `always` is being done while their failure stands.
    unmended: Vec<usize>,
    /// The last play that has work for it.
    last_play: usize,
    /// Tasks that have not ended on it, in any play.
    not_ended: u32,
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    None,
    /// Has an order.
    Busy,
    /// Waits for one.
    Idle,
    /// Was told to finish.
    Finishing,
    Gone,
}

/// How many lanes are in the states that decisions depend on. Counted, not searched: a search at
/// every task's end would be quadratic in the number of hosts.
#[derive(Debug, Default)]
struct Lanes {
    busy: usize,
    idle: usize,
    finishing: usize,
}

impl Lanes {
    fn slot(&mut self, lane: Lane) -> Option<&mut usize> {
        match lane {
            Lane::Busy => Some(&mut self.busy),
            Lane::Idle => Some(&mut self.idle),
            Lane::Finishing => Some(&mut self.finishing),
            Lane::None | Lane::Gone => None,
        }
    }

    /// Places of the fanout in use. A lane that closes its connection still holds its descriptor.
    fn places(&self) -> usize {
        self.busy + self.finishing
    }
}

/// How the hosts of a play take turns, now.
#[derive(Debug, Default)]
struct Turn {
    /// Batches of the play that have begun.
    begun: usize,
    /// Hosts that have failed in this play.
    failed: usize,
    /// Places while a task limits them itself.
    limit: Option<usize>,
    /// A task that is done in batches of its own.
    of_task: Option<TaskTurn>,
    /// A task that one host does for all: its place.
    once: Option<usize>,
    /// Such tasks that have been done, and whether they failed: later batches pass them by.
    was_once: Vec<(usize, bool)>,
    /// A wait between two batches is going on.
    waits: bool,
}

/// One task in batches.
#[derive(Debug)]
struct TaskTurn {
    at: usize,
    begun: usize,
    /// Hosts that had failed when it began.
    failed_before: usize,
}

#[derive(Debug)]
struct Stop {
    signal: Option<u32>,
    reason: Option<String>,
}

/// The state of a run.
#[derive(Debug)]
pub struct RunState {
    shape: Shape,
    hosts: Vec<Host>,
    play: usize,
    /// Hosts of the play that have had no turn yet.
    later: VecDeque<HostId>,
    /// Hosts whose turn it is.
    batch: Vec<HostId>,
    turn: Turn,
    /// Hosts that go on now, as soon as there is a place.
    queue: VecDeque<HostId>,
    lanes: Lanes,
    stop: Option<Stop>,
    /// How many signals have come.
    signals: u32,
    finished: bool,
    last_emit: Duration,
    effects: Vec<Effect>,
}

/// After this much silence a heartbeat is due.
pub const QUIET: Duration = Duration::from_secs(60);

impl RunState {
    /// A run that has not begun.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let host = || Host {
            lane: Lane::None,
            out: None,
            failed: false,
            running: None,
            next: 0,
            unmended: Vec::new(),
            last_play: 0,
            not_ended: 0,
            ended: false,
        };
        let mut hosts: Vec<Host> = shape.hosts.iter().map(|_| host()).collect();
        for (at, play) in shape
            .plays
            .iter()
            .enumerate()
            .filter(|(_, play)| !play.tasks.is_empty())
        {
            for id in &play.hosts {
                let host = &mut hosts[id.0 as usize];
                host.not_ended += small(play.tasks.len());
                host.last_play = at;
            }
        }
        Self {
            hosts,
            shape,
            lanes: Lanes::default(),
            play: 0,
            later: VecDeque::new(),
            batch: Vec::new(),
            turn: Turn::default(),
            queue: VecDeque::new(),
            stop: None,
            signals: 0,
            finished: false,
            last_emit: Duration::ZERO,
            effects: Vec::new(),
        }
    }

    /// Begins the first play. `RunStart` has been emitted by the caller.
    #[must_use]
    pub fn begin(&mut self, now: Duration) -> Vec<Effect> {
        self.enter_play(now);
        std::mem::take(&mut self.effects)
    }

    /// Decides what follows from an input at a time (since the run began).
    #[must_use]
    pub fn on(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        if self.finished {
            return Vec::new();
        }
        match input {
            Input::Lane(host, news) => self.on_news(host, news, now),
            Input::Signal(number) => self.on_signal(number, now),
            Input::ReaderGone => self.on_reader_gone(now),
            Input::Deadline(limit) => self.on_deadline(limit, now),
            Input::Tick => self.on_tick(now),
            Input::Waited => self.on_waited(now),
            // The silence was our own: hosts get their time to break it.
            Input::Continued => self.last_emit = now,
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether the run was asked to stop.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stop.is_some()
    }

    fn on_news(&mut self, id: HostId, news: News, now: Duration) {
        let host = self.name(id);
        match news {
            News::Connecting { .. } | News::Ready { .. } | News::Retry { .. } => {
                self.on_connection(host, news, now);
            }
            News::Problem(problem) => self.on_problem(id, problem, now),
            News::TaskStart(task) => {
                self.host(id).running = Some((task.clone(), now));
                self.emit(What::TaskStart { host, task }, now);
            }
            News::Output(task, block) => self.emit(What::Output { host, task, block }, now),
            News::Parsed(task, block, first, rows) => {
                let output = What::Output {
                    host: host.clone(),
                    task: task.clone(),
                    block,
                };
                self.emit(output, now);
                self.emit_rows(host, task, first, rows, now);
            }
            News::Rows(task, first, rows) => self.emit_rows(host, task, first, rows, now),
            News::Entries(task, entries) => {
                let what = What::Entries {
                    host,
                    task,
                    entries,
                };
                self.emit(what, now);
            }
            News::Progress(task, progress) => {
                let what = What::Progress {
                    host,
                    task,
                    progress,
                };
                self.emit(what, now);
            }
            News::Print(task, text) => self.emit(What::Print { host, task, text }, now),
            News::TaskEnd {
                task,
                outcome,
                took,
                tally,
                effort,
            } => {
                self.host(id).running = None;
                self.host(id).not_ended = self.host(id).not_ended.saturating_sub(1);
                let verdict = judge(&outcome);
                let rescued = self.is_rescued(&verdict, &task);
                let ended = What::TaskEnd {
                    host,
                    task: task.clone(),
                    outcome,
                    took,
                    tally,
                    rescued,
                    effort,
                };
                self.emit(ended, now);
                self.on_task_end(id, &task, verdict, now);
            }
            News::Passed(_) => {
                self.host(id).not_ended = self.host(id).not_ended.saturating_sub(1);
                self.pass_on(id, false, now);
            }
            News::Stopped => self.settle(id, HostState::Cancelled, now),
            News::Quit => self.on_quit(id, now),
            News::Note(severity, message) => self.on_note(host, severity, message, now),
            News::Ended => self.on_lane_gone(id, now),
            News::Panicked(message) => self.on_panic(id, message, now),
        }
    }

    fn emit_rows(
        &mut self,
        host: HostName,
        task: TaskRef,
        first: u64,
        rows: Arc<[Row]>,
        now: Duration,
    ) {
        self.emit(
            What::Rows {
                host,
                task,
                first,
                rows,
            },
            now,
        );
    }

    fn on_connection(&mut self, host: HostName, news: News, now: Duration) {
        let what = match news {
            News::Connecting { address } => What::HostConnecting { host, address },
            News::Ready { took, retries } => What::HostReady {
                host,
                took,
                retries,
            },
            News::Retry {
                task,
                attempt,
                delay,
                reason,
            } => What::Retry {
                host,
                task,
                attempt,
                delay,
                reason,
            },
            _ => return,
        };
        self.emit(what, now);
    }

    fn on_problem(&mut self, id: HostId, problem: HostProblem, now: Duration) {
        let refused = problem.cause.is_refused();
        self.emit(
            What::HostProblem {
                host: self.name(id),
                problem,
            },
            now,
        );
        self.settle(
            id,
            if refused {
                HostState::Refused
            } else {
                HostState::Unreachable
            },
            now,
        );
    }

    fn on_task_end(&mut self, id: HostId, task: &TaskRef, verdict: Judged, now: Duration) {
        match (verdict, self.policy(task.id)) {
            (Judged::Fine, _) => self.pass_on(id, false, now),
            (Judged::Stopped, _) => self.settle(id, HostState::Cancelled, now),
            (Judged::Broken, _) => {
                self.leave_once(id, now);
                self.settle(id, HostState::Failed, now);
            }
            (Judged::Bad, OnFailure::Continue) => {
                self.host(id).failed = true;
                self.pass_on(id, false, now);
            }
            (Judged::Bad, OnFailure::Stop) => self.pass_on(id, true, now),
            (Judged::Bad, OnFailure::StopAll) => {
                let rescued = self.is_rescued(&Judged::Bad, task);
                self.pass_on(id, true, now);
                if !rescued {
                    let reason = format!("`{}` failed on {}", task.name, self.name(id));
                    self.stop_starting(None, Some(reason), now);
                }
            }
        }
    }

    /// Whether a `rescue` follows where a task has failed.
    fn is_rescued(&self, verdict: &Judged, task: &TaskRef) -> bool {
        let bad = matches!(verdict, Judged::Bad);
        let goes_on = self.policy(task.id) == OnFailure::Continue;
        bad && !goes_on && self.stop.is_none() && self.shape.plays[self.play].is_rescued(task.id)
    }

    /// The host did what it was told; what next? One that did it for all takes the others along.
    fn pass_on(&mut self, id: HostId, failed: bool, now: Duration) {
        let at = self.host(id).next;
        if self.turn.once.take_if(|once| *once == at).is_some() {
            self.turn.was_once.push((at, failed));
            self.take_others_along(id, at, failed, now);
        }
        match self.walk(id, failed) {
            Going::On(next) => self.go_on(id, at, next),
            Going::Failed => return self.settle(id, HostState::Failed, now),
            Going::Done => self.done(id),
        }
        self.step(now);
        self.dispatch();
    }

    /// Moves the host's place. Tasks that it passes by on the way count as ended.
    fn walk(&mut self, id: HostId, failed: bool) -> Going {
        let play = &self.shape.plays[self.play];
        let host = &mut self.hosts[id.0 as usize];
        let at = host.next;
        let going = play.after(at, failed, &mut host.unmended);
        let next = match going {
            Going::On(next) => next,
            Going::Done => play.tasks.len(),
            Going::Failed => return going,
        };
        host.next = next;
        host.not_ended = host.not_ended.saturating_sub(small(next - at - 1));
        going
    }

    /// From one task to another: at once where no other host has to be heeded.
    fn go_on(&mut self, id: HostId, at: usize, next: usize) {
        let tasks = &self.shape.plays[self.play].tasks;
        let free = matches!(tasks[at].gate, Gate::None | Gate::Together);
        if self.stop.is_some() {
            self.finish_lane(id);
        } else if free && tasks[next].gate == Gate::None {
            self.order_next(id);
        } else {
            self.park(id);
        }
    }

    fn done(&mut self, id: HostId) {
        if self.stop.is_some() || self.hosts[id.0 as usize].last_play <= self.play {
            self.finish_lane(id);
        } else {
            self.park(id);
        }
    }

    fn park(&mut self, id: HostId) {
        self.set_lane(id, Lane::Idle);
        if !self.shape.keep_open {
            self.effects.push(Effect::Order(id, Order::Rest));
        }
    }

    /// What one host did for all counts for all that wait there.
    fn take_others_along(&mut self, id: HostId, at: usize, failed: bool, now: Duration) {
        let waits = |host: &Host| host.out.is_none() && host.next == at;
        let others = self.batch.iter().filter(|other| **other != id);
        let others: Vec<HostId> = others
            .filter(|other| waits(&self.hosts[other.0 as usize]))
            .copied()
            .collect();
        self.pass_by(others, failed, now);
    }

    /// Moves hosts past a task that another one has done for them.
    fn pass_by(&mut self, hosts: impl IntoIterator<Item = HostId>, failed: bool, now: Duration) {
        for other in hosts {
            let host = self.host(other);
            host.not_ended = host.not_ended.saturating_sub(1);
            match self.walk(other, failed) {
                Going::On(_) => {}
                Going::Failed => self.drop_out(other, HostState::Cancelled, now),
                Going::Done if self.host(other).lane == Lane::Idle => self.done(other),
                Going::Done => {}
            }
        }
    }

    /// The host that did something for all is gone in the middle: it must not be done again.
    fn leave_once(&mut self, id: HostId, now: Duration) {
        let at = self.host(id).next;
        if self.turn.once.take_if(|once| *once == at).is_some() {
            self.turn.was_once.push((at, true));
            self.take_others_along(id, at, true, now);
        }
    }

    /// Nothing more is started on this host.
    fn settle(&mut self, id: HostId, state: HostState, now: Duration) {
        self.drop_out(id, state, now);
        self.step(now);
        self.dispatch();
    }

    fn drop_out(&mut self, id: HostId, state: HostState, now: Duration) {
        self.host(id).out.get_or_insert(state);
        match self.host(id).lane {
            Lane::Busy | Lane::Idle => self.finish_lane(id),
            Lane::None | Lane::Finishing | Lane::Gone => {}
        }
        match state {
            HostState::Ok | HostState::Cancelled => {}
            HostState::Failed
            | HostState::Unreachable
            | HostState::Refused
            | HostState::Internal => self.count_failure(now),
        }
    }

    /// One more host has failed; too many end the run.
    fn count_failure(&mut self, now: Duration) {
        self.turn.failed += 1;
        let Some(play) = self.shape.plays.get(self.play) else {
            return;
        };
        let of_task = self.turn.of_task.as_ref().and_then(|turn| {
            let failed = self.turn.failed - turn.failed_before;
            match &play.tasks[turn.at].gate {
                Gate::Batches(rollout) => Some((failed, rollout.max_failures?)),
                Gate::None | Gate::Together | Gate::Once | Gate::Limit(_) => None,
            }
        });
        let of_play = play
            .rollout
            .max_failures
            .map(|most| (self.turn.failed, most));
        let over = [of_play, of_task].into_iter().flatten();
        if let Some((failed, most)) = over.into_iter().find(|(failed, most)| failed > most) {
            let failed = crate::text::count(failed, "host");
            let reason = format!("{failed} failed; `max_failures` allows {most}");
            self.stop_starting(None, Some(reason), now);
        }
    }

    fn finish_lane(&mut self, id: HostId) {
        self.set_lane(id, Lane::Finishing);
        self.effects.push(Effect::Order(id, Order::Finish));
    }

    fn finish_idle_lanes(&mut self) {
        for at in 0..self.hosts.len() {
            if self.hosts[at].lane == Lane::Idle {
                self.finish_lane(HostId(small(at)));
            }
        }
    }

    fn set_lane(&mut self, id: HostId, lane: Lane) {
        let old = std::mem::replace(&mut self.host(id).lane, lane);
        if let Some(count) = self.lanes.slot(old) {
            *count -= 1;
        }
        if let Some(count) = self.lanes.slot(lane) {
            *count += 1;
        }
    }

    fn on_lane_gone(&mut self, id: HostId, now: Duration) {
        if self.host(id).lane == Lane::Gone {
            return;
        }
        self.set_lane(id, Lane::Gone);
        self.end_host(id, now);
        self.step(now);
        self.dispatch();
    }

    fn on_panic(&mut self, id: HostId, message: String, now: Duration) {
        if let Some((task, started)) = self.host(id).running.take() {
            let host = self.name(id);
            let outcome = Outcome::Internal { message };
            self.host(id).not_ended = self.host(id).not_ended.saturating_sub(1);
            self.emit(
                What::TaskEnd {
                    host,
                    task,
                    outcome,
                    took: now.saturating_sub(started),
                    tally: None,
                    rescued: false,
                    effort: Effort::default(),
                },
                now,
            );
            self.leave_once(id, now);
        } else {
            let (host, severity) = (Some(self.name(id)), Severity::Error);
            let message = format!("internal error: {message}");
            self.emit(
                What::Diagnostic {
                    host,
                    severity,
                    message,
                },
                now,
            );
        }
        self.host(id).out = Some(HostState::Internal);
        self.count_failure(now);
        self.on_lane_gone(id, now);
    }

    fn on_signal(&mut self, number: u32, now: Duration) {
        self.signals += 1;
        match self.signals {
            1 => {
                self.effects.push(Effect::Cancel(Level::Stop));
                self.acknowledge("is being ended; a second signal kills it", now);
                self.stop_starting(Some(number), None, now);
            }
            2 => {
                self.effects.push(Effect::Cancel(Level::Kill));
                self.acknowledge("is being killed", now);
            }
            _ => self.effects.push(Effect::Leave),
        }
    }

    /// Ending what runs may take seconds: whoever sent the signal sees that it was heard.
    fn acknowledge(&mut self, what: &str, now: Duration) {
        let message = match self.lanes.busy {
            0 => return,
            1 => format!("what runs on 1 host {what}"),
            hosts => format!("what runs on {hosts} hosts {what}"),
        };
        let what = What::Diagnostic {
            host: None,
            severity: Severity::Warning,
            message,
        };
        self.emit(what, now);
    }

    fn on_reader_gone(&mut self, now: Duration) {
        const SIGPIPE: u32 = 13;
        if self.stop.is_none() {
            self.effects.push(Effect::Cancel(Level::Stop));
            self.stop_starting(Some(SIGPIPE), None, now);
        }
    }

    fn on_deadline(&mut self, limit: Duration, now: Duration) {
        self.effects.push(Effect::Cancel(Level::Stop));
        let reason = format!("the run's limit of {} passed", crate::text::duration(limit));
        self.stop_starting(None, Some(reason), now);
    }

    fn on_note(&mut self, host: HostName, severity: Severity, message: String, now: Duration) {
        let what = What::Diagnostic {
            host: Some(host),
            severity,
            message,
        };
        self.emit(what, now);
    }

    fn on_quit(&mut self, id: HostId, now: Duration) {
        let reason = "the answer before a task was to quit".to_owned();
        self.stop_starting(None, Some(reason), now);
        self.settle(id, HostState::Cancelled, now);
    }

    fn on_tick(&mut self, now: Duration) {
        if now.saturating_sub(self.last_emit) < QUIET {
            return;
        }
        let oldest = |h: &(usize, &Host)| h.1.running.as_ref().map(|(_, since)| *since);
        let longest = self
            .hosts
            .iter()
            .enumerate()
            .filter(|h| h.1.running.is_some())
            .min_by_key(oldest);
        let longest = longest.and_then(|(at, host)| {
            let (task, since) = host.running.clone()?;
            Some((
                self.shape.hosts[at].clone(),
                task,
                now.saturating_sub(since),
            ))
        });
        let (running, queued) = (small(self.lanes.busy), small(self.queue.len()));
        self.emit(
            What::Heartbeat {
                running,
                queued,
                longest,
            },
            now,
        );
    }

    /// Starts nothing more. What runs is left to its end unless `Cancel` is among the effects.
    fn stop_starting(&mut self, signal: Option<u32>, reason: Option<String>, now: Duration) {
        let first = self.stop.is_none();
        let stop = self.stop.get_or_insert(Stop {
            signal: None,
            reason: None,
        });
        stop.signal = stop.signal.or(signal);
        if stop.reason.is_none() {
            stop.reason = reason;
        }
        if !first {
            return;
        }
        self.queue.clear();
        self.later.clear();
        self.finish_idle_lanes();
        self.step(now);
    }

    fn enter_play(&mut self, now: Duration) {
        while let Some(play) = self.shape.plays.get(self.play) {
            let alive = |id: &&HostId| self.hosts[id.0 as usize].out.is_none();
            let hosts: VecDeque<HostId> = play.hosts.iter().filter(alive).copied().collect();
            if hosts.is_empty() || play.tasks.is_empty() {
                self.play += 1;
                continue;
            }
            let (name, count) = (Arc::clone(&play.name), hosts.len());
            for id in &hosts {
                self.hosts[id.0 as usize].next = 0;
            }
            self.later = hosts;
            self.turn = Turn::default();
            let started = What::PlayStart {
                play: self.play_id(),
                name,
                hosts: count,
            };
            self.emit(started, now);
            self.enter_batch(now);
            return self.dispatch();
        }
        self.finish_if_done(now);
    }

    fn play_id(&self) -> PlayId {
        PlayId(u16::try_from(self.play).unwrap_or(u16::MAX))
    }

    fn enter_batch(&mut self, now: Duration) {
        let rollout = &self.shape.plays[self.play].rollout;
        let size = rollout.size(self.turn.begun, self.later.len());
        let named = !rollout.batches.is_empty();
        self.batch = self.later.drain(..size).collect();
        self.turn.begun += 1;
        if named {
            self.tell_batch(None, self.turn.begun, self.batch.len(), now);
        }
        self.release(now);
    }

    fn tell_batch(&mut self, task: Option<TaskRef>, number: usize, hosts: usize, now: Duration) {
        let begins = What::BatchStart {
            play: self.play_id(),
            task,
            number: small(number),
            hosts,
        };
        self.emit(begins, now);
    }

    /// Looks whether a barrier, a batch, a play or the run is complete.
    fn step(&mut self, now: Duration) {
        if self.stop.is_some() || self.play >= self.shape.plays.len() {
            return self.finish_if_done(now);
        }
        // A barrier waits for work, not for connections that are being closed.
        if self.queue.is_empty() && self.lanes.busy == 0 && !self.turn.waits {
            self.release(now);
        }
    }

    /// Nobody is at work: lets those go on who wait at the first place where any does.
    fn release(&mut self, now: Duration) {
        let play = &self.shape.plays[self.play];
        let host = |id: &HostId| &self.hosts[id.0 as usize];
        let waits = |id: &&HostId| host(id).out.is_none() && host(id).next < play.tasks.len();
        let waiting: Vec<HostId> = self.batch.iter().filter(waits).copied().collect();
        let Some(at) = waiting.iter().map(|id| host(id).next).min() else {
            return self.end_batch(now);
        };
        let there = waiting.into_iter().filter(|id| host(id).next == at);
        let mut there: VecDeque<HostId> = there.collect();
        self.turn.limit = None;
        let done = self.turn.was_once.iter().find(|(once, _)| *once == at);
        if let Some(&(_, failed)) = done {
            self.pass_by(there, failed, now);
            return self.release(now);
        }
        match play.tasks[at].gate.clone() {
            Gate::None | Gate::Together => {}
            Gate::Once => {
                there.truncate(1);
                self.turn.once = Some(at);
            }
            Gate::Limit(places) => self.turn.limit = Some(places),
            Gate::Batches(rollout) => return self.release_batch(at, &rollout, there, now),
        }
        self.queue = there;
    }

    /// The next batch of a task that has batches of its own.
    fn release_batch(
        &mut self,
        at: usize,
        rollout: &Rollout,
        mut there: VecDeque<HostId>,
        now: Duration,
    ) {
        let failed_before = self.turn.failed;
        let turn = match self.turn.of_task.take() {
            Some(turn) if turn.at == at => turn,
            Some(_) | None => TaskTurn {
                at,
                begun: 0,
                failed_before,
            },
        };
        there.truncate(rollout.size(turn.begun, there.len()));
        let number = turn.begun + 1;
        self.turn.of_task = Some(TaskTurn {
            begun: number,
            ..turn
        });
        let task = self.shape.plays[self.play].tasks[at].reference.clone();
        self.tell_batch(Some(task), number, there.len(), now);
        self.queue = there;
        if number > 1 {
            self.wait(rollout.pause);
        }
    }

    fn wait(&mut self, pause: Duration) {
        if !pause.is_zero() {
            self.turn.waits = true;
            self.effects.push(Effect::Wait(pause));
        }
    }

    fn on_waited(&mut self, now: Duration) {
        if !std::mem::take(&mut self.turn.waits) || self.stop.is_some() {
            return;
        }
        if self.queue.is_empty() {
            self.enter_batch(now);
        }
        self.dispatch();
    }

    fn end_batch(&mut self, now: Duration) {
        if self.later.is_empty() {
            self.play += 1;
            return self.enter_play(now);
        }
        let rollout = &self.shape.plays[self.play].rollout;
        let pause = rollout.pause;
        let lost = |id: &HostId| self.hosts[id.0 as usize].out.is_some();
        if self.batch.iter().all(lost) {
            let reason = format!("every host of batch {} failed", self.turn.begun);
            return self.stop_starting(None, Some(reason), now);
        }
        if pause.is_zero() {
            return self.enter_batch(now);
        }
        self.batch.clear();
        self.wait(pause);
    }

    fn dispatch(&mut self) {
        let Some(play) = self.shape.plays.get(self.play) else {
            return;
        };
        if self.turn.waits {
            return;
        }
        let limit = self.turn.limit.unwrap_or(usize::MAX);
        let places = play.fanout.min(limit).max(1);
        while self.lanes.places() < places && self.stop.is_none() {
            let Some(id) = self.queue.pop_front() else {
                return;
            };
            if self.host(id).lane == Lane::None {
                self.effects.push(Effect::Begin(id));
            }
            self.order_next(id);
        }
    }

    fn order_next(&mut self, id: HostId) {
        let index = self.host(id).next;
        let task = self.shape.plays[self.play].tasks[index].reference.id;
        self.set_lane(id, Lane::Busy);
        self.effects.push(Effect::Order(id, Order::Task(task)));
    }

    fn finish_if_done(&mut self, now: Duration) {
        let over = self.stop.is_some() || self.play >= self.shape.plays.len();
        if self.finished || !over {
            return;
        }
        self.finish_idle_lanes();
        if self.lanes.places() > 0 {
            return;
        }
        for at in 0..self.hosts.len() {
            self.end_host(HostId(small(at)), now);
        }
        self.finished = true;
        let stop = self.stop.take().unwrap_or(Stop {
            signal: None,
            reason: None,
        });
        self.effects.push(Effect::Finish {
            signal: stop.signal,
            stopped_by: stop.reason,
        });
    }

    fn end_host(&mut self, id: HostId, now: Duration) {
        let host = self.host(id);
        if std::mem::replace(&mut host.ended, true) {
            return;
        }
        let not_started = host.not_ended;
        let state = match host.out {
            Some(HostState::Cancelled) | None if host.failed => HostState::Failed,
            Some(state) => state,
            None if not_started > 0 => HostState::Cancelled,
            None => HostState::Ok,
        };
        let host = self.name(id);
        self.emit(
            What::HostEnd {
                host,
                state,
                not_started,
            },
            now,
        );
    }

    fn policy(&self, task: TaskId) -> OnFailure {
        let play = self.shape.plays.get(usize::from(task.play.0));
        play.and_then(|play| play.tasks.get(usize::from(task.index)))
            .map_or(OnFailure::Stop, |task| task.on_failure)
    }

    fn emit(&mut self, what: What, now: Duration) {
        self.last_emit = now;
        self.effects.push(Effect::Emit(what));
    }

    fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    fn name(&self, id: HostId) -> HostName {
        self.shape.hosts[id.0 as usize].clone()
    }
}

/// What an outcome means for its host.
enum Judged {
    Fine,
    /// `on_failure` decides.
    Bad,
    /// The host cannot go on, whatever `on_failure` says.
    Broken,
    Stopped,
}

fn judge(outcome: &Outcome) -> Judged {
    match outcome {
        Outcome::Ok { .. } | Outcome::Skipped { .. } => Judged::Fine,
        Outcome::Failed(_) | Outcome::Lost { .. } => Judged::Bad,
        // What may still be running must not meet the next task.
        Outcome::TimedOut {
            remote: Remains::MaybeRunning,
            ..
        } => Judged::Broken,
        Outcome::TimedOut { .. } => Judged::Bad,
        Outcome::Cancelled { .. } => Judged::Stopped,
        Outcome::Internal { .. } => Judged::Broken,
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
