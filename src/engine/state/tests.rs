//! Runs without processes, clocks or channels: a little world that carries effects out and feeds
//! back what lanes would say, in every order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::engine::shape::{Block as BlockShape, PlayShape, TaskShape};

mod turns;
use crate::outcome::{Cause, Effort, ExitStatus, Failure, Phase};

fn task(play: u16, index: u16, policy: OnFailure) -> TaskShape {
    let id = TaskId {
        play: PlayId(play),
        index,
    };
    TaskShape {
        reference: TaskRef {
            id,
            name: format!("task {play}.{index}").into(),
            place: None,
        },
        on_failure: policy,
        gate: Gate::None,
    }
}

fn shape(hosts: u32, plays: &[(bool, usize, &[OnFailure])], keep_open: bool) -> Shape {
    let play =
        |(at, (linear, fanout, policies)): (usize, &(bool, usize, &[OnFailure]))| PlayShape {
            name: format!("play {at}").into(),
            hosts: (0..hosts).map(HostId).collect(),
            fanout: *fanout,
            tasks: policies
                .iter()
                .enumerate()
                .map(|(i, policy)| {
                    let (at, i) = (u16::try_from(at).unwrap(), u16::try_from(i).unwrap());
                    TaskShape {
                        gate: if *linear { Gate::Together } else { Gate::None },
                        ..task(at, i, *policy)
                    }
                })
                .collect(),
            blocks: Vec::new(),
            rollout: Rollout::default(),
        };
    Shape {
        hosts: (0..hosts)
            .map(|n| HostName::new(&format!("h{n}")).unwrap())
            .collect(),
        plays: plays.iter().enumerate().map(play).collect(),
        keep_open,
    }
}

/// What a host does with each order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Fails,
    TimesOut,
    IsLost,
    Unreachable,
    Refused,
    Panics,
}

/// Carries effects out. What a lane is told lies in its queue until the world lets it act.
struct World {
    state: RunState,
    shape: Shape,
    fates: BTreeMap<(u32, TaskId), Fate>,
    inbox: BTreeMap<u32, VecDeque<Order>>,
    began: BTreeSet<u32>,
    running: BTreeMap<u32, TaskRef>,
    level: Level,
    events: Vec<What>,
    finished: Option<(Option<u32>, Option<String>)>,
    left: bool,
    most_at_once: usize,
    wait: Option<Duration>,
    now: Duration,
}

impl World {
    fn new(shape: Shape) -> Self {
        let mut world = Self {
            state: RunState::new(shape.clone()),
            shape,
            fates: BTreeMap::new(),
            inbox: BTreeMap::new(),
            began: BTreeSet::new(),
            running: BTreeMap::new(),
            level: Level::Run,
            events: Vec::new(),
            finished: None,
            left: false,
            most_at_once: 0,
            wait: None,
            now: Duration::ZERO,
        };
        let effects = world.state.begin(Duration::ZERO);
        world.apply(effects);
        world
    }

    fn fate(mut self, host: u32, play: u16, index: u16, fate: Fate) -> Self {
        self.fates.insert(
            (
                host,
                TaskId {
                    play: PlayId(play),
                    index,
                },
            ),
            fate,
        );
        self
    }

    fn input(&mut self, input: Input) {
        self.now += Duration::from_millis(1);
        let effects = self.state.on(input, self.now);
        self.apply(effects);
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(
                self.finished.is_none(),
                "an effect after the end: {effect:?}"
            );
            match effect {
                Effect::Emit(what) => self.events.push(what),
                Effect::Begin(host) => assert!(self.began.insert(host.0), "begun twice"),
                Effect::Order(host, order) => {
                    assert!(self.began.contains(&host.0), "an order without a lane");
                    self.inbox.entry(host.0).or_default().push_back(order);
                }
                Effect::Cancel(level) => self.level = level,
                Effect::Leave => self.left = true,
                Effect::Wait(time) => {
                    assert!(self.wait.replace(time).is_none(), "two waits at once");
                }
                Effect::Finish { signal, stopped_by } => self.finished = Some((signal, stopped_by)),
            }
        }
        // Counting looks at every host; a large world would spend all its time on it.
        if self.shape.hosts.len() <= 100 {
            self.most_at_once = self.most_at_once.max(self.busy());
        }
    }

    fn busy(&self) -> usize {
        let asked = |host: &&u32| {
            self.running.contains_key(host)
                || self.inbox[*host]
                    .iter()
                    .any(|order| matches!(order, Order::Task(_)))
        };
        self.inbox.keys().filter(asked).count()
    }

    /// Hosts that could act now.
    fn able(&self) -> Vec<u32> {
        let able = |(host, orders): (&u32, &VecDeque<Order>)| {
            (self.running.contains_key(host) || !orders.is_empty()).then_some(*host)
        };
        self.inbox.iter().filter_map(able).collect()
    }

    /// Lets one host take its next step.
    fn act(&mut self, host: u32) {
        let id = HostId(host);
        if let Some(task) = self.running.remove(&host) {
            let fate = self
                .fates
                .get(&(host, task.id))
                .copied()
                .unwrap_or(Fate::Fine);
            return self.end_task(id, task, fate);
        }
        match self.inbox.get_mut(&host).and_then(VecDeque::pop_front) {
            None | Some(Order::Rest) => {}
            Some(Order::Finish) => {
                self.inbox.remove(&host);
                self.input(Input::Lane(id, News::Ended));
            }
            Some(Order::Task(_)) if self.level != Level::Run => {
                self.input(Input::Lane(id, News::Stopped));
            }
            Some(Order::Task(task)) => self.start_task(id, task),
        }
    }

    fn start_task(&mut self, id: HostId, task: TaskId) {
        let cause = match self.fates.get(&(id.0, task)) {
            Some(Fate::Unreachable) => Some(Cause::Timeout(Phase::Connect)),
            Some(Fate::Refused) => Some(Cause::HostKey),
            _ => None,
        };
        if let Some(cause) = cause {
            let problem = HostProblem {
                cause,
                message: "no".into(),
                details: Vec::new(),
            };
            return self.input(Input::Lane(id, News::Problem(problem)));
        }
        let play = &self.shape.plays[usize::from(task.play.0)];
        let task = play.tasks[usize::from(task.index)].reference.clone();
        self.running.insert(id.0, task.clone());
        self.input(Input::Lane(id, News::TaskStart(task)));
    }

    fn end_task(&mut self, id: HostId, task: TaskRef, fate: Fate) {
        let outcome = match fate {
            _ if self.level != Level::Run => Outcome::Cancelled {
                remote: Remains::Ended,
            },
            Fate::Fine | Fate::Unreachable | Fate::Refused => Outcome::Ok { status: None },
            Fate::Fails => Outcome::Failed(Failure::Exit(ExitStatus::Exited(1))),
            Fate::TimesOut => Outcome::TimedOut {
                after: Duration::from_secs(1),
                remote: Remains::Ended,
            },
            Fate::IsLost => Outcome::Lost {
                reason: "gone".into(),
            },
            Fate::Panics => {
                self.inbox.remove(&id.0);
                return self.input(Input::Lane(id, News::Panicked("boom".into())));
            }
        };
        let took = Duration::from_millis(5);
        self.input(Input::Lane(
            id,
            News::TaskEnd {
                task,
                outcome,
                took,
                tally: None,
                effort: Effort::default(),
            },
        ));
    }

    /// Lets everybody act until nobody can, first come first served.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            match self.able().first() {
                Some(host) => self.act(*host),
                None if self.wait.take().is_some() => self.input(Input::Waited),
                None => return,
            }
        }
        panic!("the run does not come to rest");
    }

    fn states(&self) -> BTreeMap<String, HostState> {
        let state = |what: &What| match what {
            What::HostEnd { host, state, .. } => Some((host.to_string(), *state)),
            _ => None,
        };
        self.events.iter().filter_map(state).collect()
    }

    fn check_the_books(&self) {
        let mut open: BTreeSet<(String, TaskId)> = BTreeSet::new();
        let mut ends = 0;
        for what in &self.events {
            match what {
                What::TaskStart { host, task } => {
                    assert!(open.insert((host.to_string(), task.id)), "started twice");
                }
                What::TaskEnd { host, task, .. } => {
                    assert!(
                        open.remove(&(host.to_string(), task.id)),
                        "ended without a start"
                    );
                }
                What::HostEnd { .. } => ends += 1,
                _ => {}
            }
        }
        assert!(open.is_empty(), "never ended: {open:?}");
        assert_eq!(ends, self.shape.hosts.len(), "every host ends once");
        assert_eq!(self.states().len(), self.shape.hosts.len());
    }
}

const STOP: OnFailure = OnFailure::Stop;
const GO_ON: OnFailure = OnFailure::Continue;

#[test]
fn a_free_run_does_every_task_on_every_host_in_order_and_ends() {
    let mut world = World::new(shape(3, &[(false, 2, &[STOP, STOP])], true));
    world.settle();
    assert_eq!(world.finished, Some((None, None)));
    world.check_the_books();
    let ends = world
        .events
        .iter()
        .filter(|what| matches!(what, What::TaskEnd { .. }))
        .count();
    assert_eq!(ends, 6);
    assert!(world.states().values().all(|state| *state == HostState::Ok));
}

#[test]
fn the_fanout_is_never_exceeded_and_always_used() {
    let mut world = World::new(shape(10, &[(false, 3, &[STOP])], true));
    assert_eq!(world.able().len(), 3);
    world.settle();
    assert_eq!(world.most_at_once, 3);
    world.check_the_books();
}

#[test]
fn a_closing_connection_still_holds_its_place() {
    let mut world = World::new(shape(2, &[(false, 1, &[STOP])], true));
    world.act(0);
    world.act(0);
    assert_eq!(world.inbox[&0].front(), Some(&Order::Finish));
    assert!(!world.began.contains(&1), "its descriptor is not free yet");
    world.act(0);
    assert!(world.began.contains(&1));
}

#[test]
fn in_step_nobody_begins_the_second_task_before_all_ended_the_first() {
    let mut world = World::new(shape(3, &[(true, 2, &[STOP, STOP])], true));
    world.settle();
    world.check_the_books();
    let index = |what: &What| match what {
        What::TaskStart { task, .. } => Some((true, task.id.index)),
        What::TaskEnd { task, .. } => Some((false, task.id.index)),
        _ => None,
    };
    let order: Vec<(bool, u16)> = world.events.iter().filter_map(index).collect();
    let first_of_second = order.iter().position(|at| *at == (true, 1)).unwrap();
    assert_eq!(
        order[..first_of_second]
            .iter()
            .filter(|at| **at == (false, 0))
            .count(),
        3
    );
}

#[test]
fn in_step_a_failed_host_does_not_hold_the_others_back() {
    let world = World::new(shape(3, &[(true, 3, &[STOP, STOP])], true));
    let mut world = world.fate(1, 0, 0, Fate::Fails);
    world.settle();
    world.check_the_books();
    let states = world.states();
    assert_eq!(
        (states["h0"], states["h1"]),
        (HostState::Ok, HostState::Failed)
    );
}

#[test]
fn plays_are_barriers_and_a_failed_host_is_out_of_the_next() {
    let plays: &[(bool, usize, &[OnFailure])] = &[(false, 5, &[STOP, STOP]), (false, 5, &[STOP])];
    let mut world = World::new(shape(2, plays, true)).fate(0, 0, 0, Fate::TimesOut);
    world.settle();
    world.check_the_books();
    let second = world
        .events
        .iter()
        .position(|what| matches!(what, What::PlayStart { play, .. } if *play == PlayId(1)));
    let last_of_first = world
        .events
        .iter()
        .rposition(|what| matches!(what, What::TaskEnd { task, .. } if task.id.play == PlayId(0)));
    assert!(second > last_of_first);
    let not_started = world.events.iter().find_map(|what| match what {
        What::HostEnd {
            host, not_started, ..
        } if host.as_str() == "h0" => Some(*not_started),
        _ => None,
    });
    assert_eq!(not_started, Some(2));
}

#[test]
fn continue_goes_on_and_the_host_still_counts_as_failed() {
    let mut world =
        World::new(shape(1, &[(false, 1, &[GO_ON, STOP])], true)).fate(0, 0, 0, Fate::IsLost);
    world.settle();
    world.check_the_books();
    assert_eq!(world.states()["h0"], HostState::Failed);
    assert_eq!(
        world
            .events
            .iter()
            .filter(|what| matches!(what, What::TaskEnd { .. }))
            .count(),
        2
    );
}

#[test]
fn stop_all_starts_nothing_more_and_lets_running_tasks_end() {
    let plays: &[(bool, usize, &[OnFailure])] = &[(false, 2, &[OnFailure::StopAll, STOP])];
    let mut world = World::new(shape(4, plays, true)).fate(0, 0, 0, Fate::Fails);
    world.act(0);
    world.act(1);
    world.act(0);
    assert_eq!(world.level, Level::Run, "nothing that runs is ended");
    world.settle();
    world.check_the_books();
    let states = world.states();
    assert_eq!(states["h0"], HostState::Failed);
    assert_eq!(states["h1"], HostState::Cancelled);
    assert_eq!(states["h3"], HostState::Cancelled);
    let (signal, reason) = world.finished.unwrap();
    assert_eq!(signal, None);
    assert!(reason.unwrap().contains("task 0.0"));
}

#[test]
fn unreachable_and_refused_hosts_are_told_apart() {
    let world = World::new(shape(2, &[(false, 2, &[STOP])], true));
    let mut world = world
        .fate(0, 0, 0, Fate::Unreachable)
        .fate(1, 0, 0, Fate::Refused);
    world.settle();
    world.check_the_books();
    let states = world.states();
    assert_eq!(
        (states["h0"], states["h1"]),
        (HostState::Unreachable, HostState::Refused)
    );
}

#[test]
fn a_panic_is_that_hosts_ending_and_the_others_finish() {
    let world = World::new(shape(3, &[(false, 1, &[STOP, STOP])], true));
    let mut world = world.fate(0, 0, 1, Fate::Panics);
    world.settle();
    world.check_the_books();
    let states = world.states();
    assert_eq!(
        (states["h0"], states["h2"]),
        (HostState::Internal, HostState::Ok)
    );
    let internal = |what: &What| {
        matches!(
            what,
            What::TaskEnd {
                outcome: Outcome::Internal { .. },
                ..
            }
        )
    };
    assert_eq!(world.events.iter().filter(|what| internal(what)).count(), 1);
}

#[test]
fn three_signals_climb_from_a_request_to_leaving() {
    let mut world = World::new(shape(2, &[(false, 1, &[STOP])], true));
    world.act(0);
    world.input(Input::Signal(2));
    assert_eq!((world.level, world.left), (Level::Stop, false));
    world.input(Input::Signal(2));
    assert_eq!((world.level, world.left), (Level::Kill, false));
    world.input(Input::Signal(2));
    assert!(world.left);
}

#[test]
fn a_signal_before_anything_was_started_ends_the_run_at_once() {
    let mut world = World::new(shape(2, &[(false, 1, &[STOP])], true));
    world.input(Input::Signal(15));
    world.settle();
    world.check_the_books();
    assert_eq!(world.finished, Some((Some(15), None)));
    assert!(
        world
            .states()
            .values()
            .all(|state| *state == HostState::Cancelled)
    );
}

#[test]
fn a_host_that_had_done_everything_when_the_run_was_stopped_is_ok() {
    let mut world = World::new(shape(2, &[(false, 1, &[STOP])], true));
    world.act(0);
    world.act(0);
    world.act(0);
    world.input(Input::Signal(2));
    world.settle();
    world.check_the_books();
    let states = world.states();
    assert_eq!(
        (states["h0"], states["h1"]),
        (HostState::Ok, HostState::Cancelled)
    );
}

#[test]
fn the_deadline_ends_what_runs_and_names_itself() {
    let mut world = World::new(shape(1, &[(false, 1, &[STOP])], true));
    world.act(0);
    world.input(Input::Deadline(Duration::from_secs(600)));
    assert_eq!(world.level, Level::Stop);
    world.settle();
    world.check_the_books();
    let reason = world.finished.unwrap().1.unwrap();
    assert!(reason.contains("10m00s"), "{reason}");
}

#[test]
fn connections_are_closed_at_barriers_when_they_do_not_all_fit() {
    let mut world = World::new(shape(2, &[(true, 1, &[STOP, STOP])], false));
    world.act(0);
    world.act(0);
    assert_eq!(world.inbox[&0].front(), Some(&Order::Rest));
    world.settle();
    world.check_the_books();
}

#[test]
fn silence_asks_for_a_heartbeat_and_noise_does_not() {
    let mut world = World::new(shape(1, &[(false, 1, &[STOP])], true));
    world.act(0);
    world.now += QUIET * 2;
    world.input(Input::Tick);
    world.input(Input::Tick);
    let beats = world
        .events
        .iter()
        .filter(|what| matches!(what, What::Heartbeat { .. }))
        .count();
    assert_eq!(beats, 1);
}

#[test]
fn a_silence_that_was_our_own_asks_for_no_heartbeat() {
    let mut world = World::new(shape(1, &[(false, 1, &[STOP])], true));
    world.act(0);
    let beats = |world: &World| {
        let is_beat = |what: &&What| matches!(what, What::Heartbeat { .. });
        world.events.iter().filter(is_beat).count()
    };
    world.now += QUIET * 2;
    world.input(Input::Continued);
    world.input(Input::Tick);
    assert_eq!(beats(&world), 0);
    world.now += QUIET;
    world.input(Input::Tick);
    assert_eq!(beats(&world), 1);
}

#[test]
fn ten_thousand_hosts_take_time_in_proportion() {
    let mut world = World::new(shape(
        10_000,
        &[(false, 2_000, &[STOP]), (false, 50, &[STOP])],
        false,
    ));
    world.settle_fast();
    world.check_the_books();
    assert_eq!(world.finished, Some((None, None)));
}

impl World {
    /// As `settle`, without looking for who is able in between.
    fn settle_fast(&mut self) {
        while self.finished.is_none() {
            let able = self.able();
            assert!(!able.is_empty(), "stuck");
            for host in able {
                self.act(host);
            }
        }
    }
}

/// Every input that can come at any moment.
fn outside() -> Vec<Input> {
    vec![
        Input::Signal(2),
        Input::Signal(15),
        Input::ReaderGone,
        Input::Deadline(Duration::from_secs(1)),
        Input::Tick,
    ]
}

#[test]
fn every_pair_of_inputs_at_every_moment_comes_to_an_end_with_true_books() {
    let plays: &[(bool, usize, &[OnFailure])] = &[(true, 2, &[GO_ON, STOP]), (false, 1, &[STOP])];
    for first_at in 0..12 {
        for gap in 0..6 {
            for first in outside() {
                for second in outside() {
                    let world = World::new(shape(3, plays, true));
                    let mut world = world.fate(1, 0, 0, Fate::Fails).fate(2, 0, 1, Fate::Panics);
                    run_steps(&mut world, first_at);
                    world.input(first.clone());
                    run_steps(&mut world, gap);
                    world.input(second.clone());
                    world.settle();
                    assert!(
                        world.finished.is_some(),
                        "{first:?} at {first_at}, {second:?} {gap} later"
                    );
                    world.check_the_books();
                }
            }
        }
    }
}

fn run_steps(world: &mut World, steps: usize) {
    for _ in 0..steps {
        if let Some(host) = world.able().first().copied() {
            world.act(host);
        }
    }
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Fine),
        1 => Just(Fate::Fails),
        1 => Just(Fate::TimesOut),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::Unreachable),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Panics),
    ]
}

fn any_policy() -> impl Strategy<Value = OnFailure> {
    prop_oneof![Just(STOP), Just(GO_ON), Just(OnFailure::StopAll)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_run_in_any_order_ends_with_true_books(
        hosts in 1u32..6,
        linear in prop::collection::vec(any::<bool>(), 1..3),
        policies in prop::collection::vec(any_policy(), 1..4),
        fanout in 1usize..4,
        keep_open in any::<bool>(),
        fates in prop::collection::vec(any_fate(), 60),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 400),
        signal_at in prop::option::of(0usize..60),
    ) {
        let plays: Vec<(bool, usize, &[OnFailure])> =
            linear.iter().map(|linear| (*linear, fanout, policies.as_slice())).collect();
        let mut world = World::new(shape(hosts, &plays, keep_open));
        let mut fates = fates.into_iter();
        for host in 0..hosts {
            for play in 0..linear.len() {
                for index in 0..policies.len() {
                    let id = TaskId { play: PlayId(play as u16), index: index as u16 };
                    world.fates.insert((host, id), fates.next().unwrap_or(Fate::Fine));
                }
            }
        }
        for (step, turn) in turns.iter().enumerate() {
            if signal_at == Some(step) {
                world.input(Input::Signal(2));
            }
            let able = world.able();
            if !able.is_empty() {
                world.act(*turn.get(&able));
            }
            prop_assert!(world.busy() <= fanout);
        }
        world.settle();
        prop_assert!(world.finished.is_some());
        world.check_the_books();
        let failed = world.events.iter().any(|what| matches!(
            what,
            What::TaskEnd { outcome, .. } if !matches!(outcome, Outcome::Ok { .. } | Outcome::Cancelled { .. })
        ));
        let all_ok = world.states().values().all(|state| *state == HostState::Ok);
        prop_assert!(!(failed && all_ok), "a failure must show");
    }
}
