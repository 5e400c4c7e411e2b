//! The run, as a pure state machine: `on(input)` says what is to be done, and does nothing itself.
//!
//! Every decision about order lives here: which host begins when, what a failure means for the
//! rest, what a signal does, when the run is over. No clock, no process, no channel; so every pair
//! of inputs can be tested without any of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Block, HostState, Severity, What};
use crate::job::{HostId, OnFailure, PlayId, TaskId, TaskRef};
use crate::listing::Entry;
use crate::outcome::{HostProblem, Outcome, Remains};
use crate::target::HostName;
use crate::transfer::{Progress, Tally};

/// What a run consists of, as far as order is concerned.
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
    /// Whether hosts wait for each other after every task.
    pub linear: bool,
    /// How many hosts are worked on at once.
    pub fanout: usize,
    /// Its tasks, with what a failure of each means.
    pub tasks: Vec<(TaskRef, OnFailure)>,
}

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
    },
    /// An order was dropped because the run is being stopped; its task was not started.
    Stopped,
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
            News::Connecting { address } => self.emit(What::HostConnecting { host, address }, now),
            News::Ready { took, retries } => self.emit(
                What::HostReady {
                    host,
                    took,
                    retries,
                },
                now,
            ),
            News::Retry {
                attempt,
                delay,
                reason,
            } => {
                self.emit(
                    What::Retry {
                        host,
                        attempt,
                        delay,
                        reason,
                    },
                    now,
                );
            }
            News::Problem(problem) => self.on_problem(id, problem, now),
            News::TaskStart(task) => {
                self.host(id).running = Some((task.clone(), now));
                self.emit(What::TaskStart { host, task }, now);
            }
            News::Output(task, block) => self.emit(What::Output { host, task, block }, now),
            News::Entries(task, entries) => self.emit(
                What::Entries {
                    host,
                    task,
                    entries,
                },
                now,
            ),
            News::Progress(task, progress) => self.emit(
                What::Progress {
                    host,
                    task,
                    progress,
                },
                now,
            ),
            News::Print(task, text) => self.emit(What::Print { host, task, text }, now),
            News::TaskEnd {
                task,
                outcome,
                took,
                tally,
            } => {
                self.host(id).running = None;
                self.host(id).not_ended = self.host(id).not_ended.saturating_sub(1);
                let verdict = judge(&outcome);
                let ended = What::TaskEnd {
                    host,
                    task: task.clone(),
                    outcome,
                    took,
                    tally,
                };
                self.emit(ended, now);
                self.on_task_end(id, &task, verdict, now);
            }
            News::Stopped => self.settle(id, HostState::Cancelled, now),
            News::Note(severity, message) => {
                self.emit(
                    What::Diagnostic {
                        host: Some(host),
                        severity,
                        message,
                    },
                    now,
                );
            }
            News::Ended => self.on_lane_gone(id, now),
            News::Panicked(message) => self.on_panic(id, message, now),
        }
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
        let policy = self.policy(task.id);
        match (verdict, policy) {
            (Judged::Fine, _) => self.advance(id, now),
            (Judged::Stopped, _) => self.settle(id, HostState::Cancelled, now),
            (Judged::Broken, _) | (Judged::Bad, OnFailure::Stop) => {
                self.settle(id, HostState::Failed, now);
            }
            (Judged::Bad, OnFailure::Continue) => {
                self.host(id).failed = true;
                self.advance(id, now);
            }
            (Judged::Bad, OnFailure::StopAll) => {
                let reason = format!("`{}` failed on {}", task.name, self.name(id));
                self.settle(id, HostState::Failed, now);
                self.stop_starting(None, Some(reason), now);
            }
        }
    }

    /// The host did what it was told; what next?
    fn advance(&mut self, id: HostId, now: Duration) {
        self.host(id).next += 1;
        let host = &self.hosts[id.0 as usize];
        let play = &self.shape.plays[self.play];
        let more_here = host.next < play.tasks.len();
        let more_later = host.last_play > self.play;
        if self.stop.is_some() || !more_here && !more_later {
            self.finish_lane(id);
        } else if more_here && !play.linear {
            return self.order_next(id);
        } else {
            self.set_lane(id, Lane::Idle);
            if !self.shape.keep_open {
                self.effects.push(Effect::Order(id, Order::Rest));
            }
        }
        self.step(now);
        self.dispatch();
    }

    /// Nothing more is started on this host.
    fn settle(&mut self, id: HostId, state: HostState, now: Duration) {
        self.host(id).out.get_or_insert(state);
        match self.host(id).lane {
            Lane::Busy | Lane::Idle => self.finish_lane(id),
            Lane::None | Lane::Finishing | Lane::Gone => {}
        }
        self.step(now);
        self.dispatch();
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
                },
                now,
            );
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
        self.on_lane_gone(id, now);
    }

    fn on_signal(&mut self, number: u32, now: Duration) {
        self.signals += 1;
        match self.signals {
            1 => {
                self.effects.push(Effect::Cancel(Level::Stop));
                self.stop_starting(Some(number), None, now);
            }
            2 => self.effects.push(Effect::Cancel(Level::Kill)),
            _ => self.effects.push(Effect::Leave),
        }
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
            let id = PlayId(u16::try_from(self.play).unwrap_or(u16::MAX));
            let (name, count) = (Arc::clone(&play.name), hosts.len());
            for id in &hosts {
                self.hosts[id.0 as usize].next = 0;
            }
            self.queue = hosts;
            self.emit(
                What::PlayStart {
                    play: id,
                    name,
                    hosts: count,
                },
                now,
            );
            return self.dispatch();
        }
        self.finish_if_done(now);
    }

    /// Looks whether a barrier, a play or the run is complete.
    fn step(&mut self, now: Duration) {
        if self.stop.is_some() {
            return self.finish_if_done(now);
        }
        let Some(play) = self.shape.plays.get(self.play) else {
            return self.finish_if_done(now);
        };
        // A barrier waits for work, not for connections that are being closed.
        if !self.queue.is_empty() || self.lanes.busy > 0 {
            return;
        }
        let host = |id: &HostId| &self.hosts[id.0 as usize];
        let waiting = |id: &&HostId| host(id).out.is_none() && host(id).next < play.tasks.len();
        let waiting: VecDeque<HostId> = play.hosts.iter().filter(waiting).copied().collect();
        if waiting.is_empty() {
            self.play += 1;
            self.enter_play(now);
        } else {
            self.queue = waiting;
        }
    }

    fn dispatch(&mut self) {
        let Some(play) = self.shape.plays.get(self.play) else {
            return;
        };
        let fanout = play.fanout.max(1);
        while self.lanes.places() < fanout && self.stop.is_none() {
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
        let task = self.shape.plays[self.play].tasks[index].0.id;
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
            .map_or(OnFailure::Stop, |t| t.1)
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
