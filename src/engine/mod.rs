//! The run: a loop that turns what happens into decisions, and lanes that carry them out.
//!
//! The loop is the one place that orders events. It takes inputs (lanes, signals, limits), lets the
//! pure [`state::RunState`] decide, numbers the events that follow and puts them into a bounded
//! queue for whoever shows them. While that queue is full it takes nothing more from lanes, which
//! then keep their output to themselves; signals and limits it always takes.

mod asks;
pub mod attempts;
pub mod clock;
mod copy;
mod facts;
mod files;
mod follow;
mod lane;
mod list;
mod outbox;
mod perform;
mod restarts;
mod rows;
mod sftp;
pub mod shape;
pub mod sizing;
pub mod state;
mod step;
mod sums;
mod termination;
mod veil;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::event::{Event, RunInfo, What};
use crate::job::HostId;
use crate::outcome::Outcome;
use crate::output::backlog::SpillBudget;
use crate::plan::{Plan, Play, Task};
use crate::playbook;
use crate::recap::Recap;
use crate::session::Connector;
use crate::session::ssh::Asker;
use clock::Clock;
use lane::Lane;
use outbox::Ways;
use shape::{Block, Gate, PlayShape, Rollout, Shape, TaskShape};
use state::{Effect, Input, Level, News, Order, RunState};
pub use veil::Masks;
use veil::Veil;

/// What a run needs.
pub struct Setup {
    /// What is to be done.
    pub plan: Arc<Plan>,
    /// How hosts are reached.
    pub connector: Connector,
    /// The disk space that output may take while nobody reads it.
    pub spill: SpillBudget,
    /// A limit for the whole run.
    pub deadline: Option<Duration>,
    /// What limits are measured with. It has to be told when this process is stopped.
    pub clock: Clock,
    /// Hosts worked on at once, whatever a play wishes: what the descriptors allow.
    pub fanout: usize,
    /// Connections stay open while their hosts wait for others.
    pub keep_open: bool,
    /// What each lane keeps in memory, in bytes, before it uses the disk.
    pub backlog_memory: usize,
    /// Our standard input, for a job that reads it.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// Whoever can be asked.
    pub asker: Asker,
    /// Hosts are connected to and conditions looked at, but no command is run.
    pub check: bool,
    /// What nobody may see.
    pub masks: Masks,
    /// The person at the terminal is asked before each task.
    pub step: bool,
}

/// What reaches the run from outside while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A signal that asks us to end came: its number.
    Signal(u32),
    /// Nobody reads our output any more.
    ReaderGone,
    /// The run is to end and nobody reads: output is not waited for any more.
    Unread,
    /// This process had been stopped, and runs again.
    Continued,
}

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// The sums, with the verdict.
    pub recap: Recap,
    /// The signal that ended it.
    pub signal: Option<u32>,
    /// How the last task that ended did.
    pub last: Option<Outcome>,
    /// Not all events could be handed over before we had to leave.
    pub cut_short: bool,
}

/// What all lanes share.
struct Desk {
    plan: Arc<Plan>,
    connector: Connector,
    gates: attempts::Gates,
    clock: Clock,
    spill: SpillBudget,
    backlog_memory: usize,
    stdin: Mutex<Option<mpsc::Receiver<Bytes>>>,
    copies: copy::Shared,
    asker: Asker,
    /// No command is run.
    check: bool,
    /// Answers, where each task is asked about.
    steps: Option<step::Steps>,
    /// What one host did for all, in order.
    shared: watch::Sender<Vec<perform::Shared>>,
}

impl Desk {
    fn take_stdin(&self) -> Option<mpsc::Receiver<Bytes>> {
        self.stdin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// News that may wait between lanes and the loop, in messages: with blocks of 64 KiB this bounds
/// the memory to 4 MiB for any number of hosts.
const NEWS_QUEUE: usize = 64;
/// How long the last events may wait for a reader when the run was stopped by a signal.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a plan. `events` receives every event in order, `RunEnd` last.
pub async fn run(
    setup: Setup,
    events: mpsc::Sender<Event>,
    controls: mpsc::Receiver<Control>,
) -> Finished {
    let state = RunState::new(shape(&setup));
    let (beginnings, begun) = mpsc::channel(NEWS_QUEUE);
    let (output, heard) = mpsc::channel(NEWS_QUEUE);
    let news = Ways { beginnings, output };
    let (cancel, _) = watch::channel(Level::Run);
    let copies = copy::Shared::of(&setup.plan);
    let desk = Arc::new(Desk {
        copies,
        plan: setup.plan,
        connector: setup.connector,
        gates: attempts::Gates::default(),
        clock: setup.clock,
        spill: setup.spill,
        backlog_memory: setup.backlog_memory,
        stdin: Mutex::new(setup.stdin),
        asker: setup.asker,
        check: setup.check,
        steps: setup.step.then(step::Steps::default),
        shared: watch::Sender::new(Vec::new()),
    });
    let (teller, veil) = (Teller::new(events), Veil::new(setup.masks));
    let orders = HashMap::new();
    Loop {
        state,
        desk,
        news,
        cancel,
        orders,
        veil,
        teller,
        ending: None,
        wait: None,
    }
    .run(begun, heard, controls, setup.deadline)
    .await
}

fn shape(setup: &Setup) -> Shape {
    let plays = setup.plan.plays.iter().map(|play| PlayShape {
        name: Arc::clone(&play.name),
        hosts: play.hosts.clone(),
        fanout: play.fanout.min(setup.fanout),
        tasks: play
            .tasks
            .iter()
            .map(|task| task_shape(play, task))
            .collect(),
        blocks: play.blocks.iter().map(block).collect(),
        rollout: rollout(play.rollout.as_ref(), play.hosts.len()),
    });
    let hosts = setup
        .plan
        .targets
        .iter()
        .map(|target| target.name.clone())
        .collect();
    Shape {
        hosts,
        plays: plays.collect(),
        keep_open: setup.keep_open,
    }
}

fn task_shape(play: &Play, task: &Task) -> TaskShape {
    let control = &task.control;
    let gate = match (&control.rollout, control.fanout) {
        _ if control.once => Gate::Once,
        (Some(_), _) => Gate::Batches(rollout(control.rollout.as_ref(), play.hosts.len())),
        (None, Some(places)) => Gate::Limit(places),
        (None, None) if play.linear => Gate::Together,
        (None, None) => Gate::None,
    };
    TaskShape {
        reference: task.reference.clone(),
        on_failure: task.on_failure,
        gate,
    }
}

fn block(block: &playbook::Block) -> Block {
    Block {
        body: block.body.clone(),
        rescue: block.rescue.clone(),
        always: block.always.clone(),
    }
}

/// Parts of the hosts as numbers of them.
fn rollout(rollout: Option<&playbook::Rollout>, hosts: usize) -> Rollout {
    let Some(rollout) = rollout else {
        return Rollout::default();
    };
    Rollout {
        batches: rollout
            .batches
            .iter()
            .map(|share| share.batch(hosts))
            .collect(),
        max_failures: rollout.max_failures.map(|share| share.at_most(hosts)),
        pause: rollout.pause,
    }
}

struct Loop {
    state: RunState,
    desk: Arc<Desk>,
    news: Ways,
    cancel: watch::Sender<Level>,
    orders: HashMap<HostId, mpsc::Sender<Order>>,
    veil: Veil,
    teller: Teller,
    ending: Option<Ending>,
    /// A wait that has been asked for and not begun.
    wait: Option<Duration>,
}

/// Decided: the run is over.
enum Ending {
    Done {
        signal: Option<u32>,
        stopped_by: Option<String>,
    },
    Leave,
}

impl Loop {
    async fn run(
        mut self,
        mut begun: mpsc::Receiver<(HostId, News)>,
        mut heard: mpsc::Receiver<(HostId, News)>,
        mut controls: mpsc::Receiver<Control>,
        deadline: Option<Duration>,
    ) -> Finished {
        let clock = self.desk.clock.clone();
        let mut over = std::pin::pin!(clock.limit(deadline));
        let mut beat = interval(clock::BEAT);
        let mut pause = std::pin::pin!(sleep_for(None));
        let mut tick = interval(Duration::from_secs(5));
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let info = RunInfo {
            started,
            ..(*self.desk.plan.info).clone()
        };
        self.emit(What::RunStart(Arc::new(info)));
        let effects = self.state.begin(self.teller.now());
        self.apply(effects);
        while self.ending.is_none() {
            let input = tokio::select! {
                biased;
                Some(control) = controls.recv() => match control {
                    Control::Signal(number) => Input::Signal(number),
                    Control::ReaderGone => Input::ReaderGone,
                    Control::Continued => Input::Continued,
                    Control::Unread => {
                        self.teller.muted = true;
                        continue;
                    }
                },
                limit = &mut over => Input::Deadline(limit),
                _ = beat.tick() => {
                    clock.beat();
                    continue;
                }
                Some((host, news)) = begun.recv() => Input::Lane(host, news),
                () = self.teller.pass_on(), if self.teller.waiting() => continue,
                Some((host, news)) = heard.recv(), if self.listens() => {
                    self.catch_up(&mut begun);
                    Input::Lane(host, news)
                }
                () = &mut pause => Input::Waited,
                () = sleep_until(self.veil.due()) => {
                    let released = self.veil.release();
                    self.tell(released);
                    continue;
                }
                // One that fell into a stop says nothing about the hosts.
                _ = tick.tick() => if clock.is_stopped() { continue } else { Input::Tick },
            };
            match input {
                Input::Deadline(_) => over.set(clock.limit(None)),
                Input::Waited => pause.set(sleep_for(None)),
                Input::Lane(..)
                | Input::Signal(_)
                | Input::ReaderGone
                | Input::Tick
                | Input::Continued => {}
            }
            let effects = self.state.on(input, self.teller.now());
            self.apply(effects);
            if let Some(wait) = self.wait.take() {
                pause.set(sleep_for(Some(wait)));
            }
        }
        self.finish(controls).await
    }

    /// Hears every beginning that has been said. A lane on another thread may begin and end a task
    /// between the poll of the one channel, which was empty, and the poll of the other: the end
    /// must not overtake the beginning.
    fn catch_up(&mut self, begun: &mut mpsc::Receiver<(HostId, News)>) {
        for _ in 0..begun.len() {
            if let Ok((host, news)) = begun.try_recv() {
                let effects = self.state.on(Input::Lane(host, news), self.teller.now());
                self.apply(effects);
            }
        }
    }

    /// Lanes are heard while what they said before has been passed on; when the run is being
    /// stopped they are always heard, for their endings must come through.
    fn listens(&self) -> bool {
        !self.teller.waiting() || self.state.stopping()
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Emit(what) => self.emit(what),
                Effect::Begin(host) => self.begin_lane(host),
                Effect::Order(host, order) => self.order(host, order),
                Effect::Cancel(level) => {
                    self.cancel.send_replace(level);
                }
                Effect::Wait(time) => self.wait = Some(time),
                Effect::Leave => self.ending = Some(Ending::Leave),
                Effect::Finish { signal, stopped_by } => {
                    self.ending = Some(Ending::Done { signal, stopped_by });
                }
            }
        }
    }

    fn emit(&mut self, what: What) {
        let shown = self.veil.cover(what);
        self.tell(shown);
    }

    fn tell(&mut self, shown: Vec<What>) {
        for what in shown {
            if self.state.stopping() {
                self.teller.tell_while_stopping(what);
            } else {
                self.teller.tell(what);
            }
        }
    }

    fn begin_lane(&mut self, host: HostId) {
        // Two places: one order under way and `Finish` behind it. More are never outstanding.
        let (orders, taken) = mpsc::channel(2);
        self.orders.insert(host, orders);
        let (news, cancel) = (self.news.clone(), self.cancel.subscribe());
        let lane = Lane::new(host, Arc::clone(&self.desk), news.clone(), cancel);
        let work = tokio::spawn(lane.run(taken));
        // A second task, so that a panic in the first is that host's ending and nobody else's.
        tokio::spawn(async move {
            let message = match work.await {
                Ok(Ok(())) => return,
                Ok(Err(message)) => message,
                Err(error) => panic_message(error),
            };
            let _ = news.output.send((host, News::Panicked(message))).await;
        });
    }

    fn order(&mut self, host: HostId, order: Order) {
        let Some(orders) = self.orders.get(&host) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(order)) = orders.try_send(order) {
            let orders = orders.clone();
            tokio::spawn(async move { orders.send(order).await });
        }
        if order == Order::Finish {
            self.orders.remove(&host);
        }
    }

    /// The last event, and the wait until all are handed over.
    async fn finish(mut self, mut controls: mpsc::Receiver<Control>) -> Finished {
        let ending = self.ending.take().unwrap_or(Ending::Leave);
        let Ending::Done { signal, stopped_by } = ending else {
            let Teller { recap, last, .. } = self.teller;
            return Finished {
                recap,
                signal: None,
                last,
                cut_short: true,
            };
        };
        let code = self
            .teller
            .recap
            .verdict_if(signal, stopped_by.is_some())
            .code();
        self.emit(What::RunEnd {
            signal,
            stopped_by,
            code,
        });
        let patience = signal.map(|_| LAST_WORDS);
        let hurry = async {
            let mut signals = 0;
            while let Some(control) = controls.recv().await {
                signals += u32::from(matches!(control, Control::Signal(_)));
                if signals > 1 || control == Control::ReaderGone {
                    return;
                }
            }
            std::future::pending().await
        };
        let teller = &mut self.teller;
        let all = async {
            while teller.waiting() {
                teller.pass_on().await;
            }
        };
        let cut_short = tokio::select! {
            biased;
            () = all => false,
            () = hurry => true,
            () = sleep_for(patience) => true,
        };
        let Teller { recap, last, .. } = self.teller;
        Finished {
            recap,
            signal,
            last,
            cut_short,
        }
    }
}

/// Numbers events, sums them up and hands them over.
struct Teller {
    began: Instant,
    seq: u64,
    waiting: VecDeque<Event>,
    events: mpsc::Sender<Event>,
    recap: Recap,
    last: Option<Outcome>,
    muted: bool,
}

/// Events that may wait for the reader while the run is being stopped, before output is dropped.
const LAST_OUTPUT: usize = 64;

impl Teller {
    fn new(events: mpsc::Sender<Event>) -> Self {
        let (began, waiting, recap) = (Instant::now(), VecDeque::new(), Recap::new());
        Self {
            began,
            seq: 0,
            waiting,
            events,
            recap,
            last: None,
            muted: false,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn tell(&mut self, what: What) {
        let event = Event {
            seq: self.seq,
            at: self.now(),
            what,
        };
        self.seq += event.what.span();
        self.recap.add(&event);
        if let What::TaskEnd { outcome, .. } = &event.what {
            self.last = Some(outcome.clone());
        }
        if self.waiting.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => self.waiting.push_back(event),
            }
        } else {
            self.waiting.push_back(event);
        }
    }

    /// Output for a reader who does not read is dropped now, and all output after it, so that
    /// what was shown has an end and no gap.
    fn tell_while_stopping(&mut self, what: What) {
        let output = matches!(what, What::Output { .. });
        self.muted |= output && self.waiting.len() > LAST_OUTPUT;
        if !(self.muted && output) {
            self.tell(what);
        }
    }

    fn waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands one event over as soon as there is room. Cancel-safe.
    async fn pass_on(&mut self) {
        match self.events.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.waiting.pop_front() {
                    permit.send(event);
                }
            }
            Err(_) => self.waiting.clear(),
        }
    }
}

fn panic_message(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
            })
            .unwrap_or_else(|| "a panic without a message".to_owned()),
        Err(error) => error.to_string(),
    }
}

/// Beats that were missed while this process was stopped are not made up for.
fn interval(time: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(time);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

async fn sleep_until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
