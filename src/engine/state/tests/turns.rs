//! Blocks, gates, batches and limits: who goes where, and who waits for whom.

use super::*;

/// A play of so many hosts and tasks, free, with a fanout of 10.
fn play(hosts: u32, tasks: usize) -> Shape {
    let policies = vec![STOP; tasks];
    shape(hosts, &[(false, 10, &policies)], true)
}

fn range(from: usize, to: usize) -> std::ops::Range<usize> {
    from..to
}

fn block(body: (usize, usize), rescue: usize, always: usize) -> BlockShape {
    BlockShape {
        body: range(body.0, body.1),
        rescue: range(body.1, rescue),
        always: range(rescue, always),
    }
}

/// Which tasks a host began, in order.
fn walked(world: &World, host: &str) -> Vec<u16> {
    let begun = |what: &What| match what {
        What::TaskStart { host: on, task } if on.as_str() == host => Some(task.id.index),
        _ => None,
    };
    world.events.iter().filter_map(begun).collect()
}

fn with_blocks(tasks: usize, blocks: Vec<BlockShape>) -> Shape {
    let mut shape = play(1, tasks);
    shape.plays[0].blocks = blocks;
    shape
}

fn run(shape: Shape, failing: &[u16]) -> World {
    let mut world = World::new(shape);
    for index in failing {
        world = world.fate(0, 0, *index, Fate::Fails);
    }
    world.settle();
    assert!(world.finished.is_some());
    world.check_the_books();
    world
}

#[test]
fn a_block_goes_to_rescue_only_when_its_body_failed_and_to_always_in_any_case() {
    // 0 | body 1 2 | rescue 3 | always 4 | 5
    let shape = || with_blocks(6, vec![block((1, 3), 4, 5)]);
    let ways: [(&[u16], &[u16], HostState); 6] = [
        (&[], &[0, 1, 2, 4, 5], HostState::Ok),
        (&[1], &[0, 1, 3, 4, 5], HostState::Ok),
        (&[2], &[0, 1, 2, 3, 4, 5], HostState::Ok),
        (&[2, 3], &[0, 1, 2, 3, 4], HostState::Failed),
        (&[4], &[0, 1, 2, 4], HostState::Failed),
        (&[0], &[0], HostState::Failed),
    ];
    for (failing, walk, end) in ways {
        let world = run(shape(), failing);
        assert_eq!(walked(&world, "h0"), walk, "failing {failing:?}");
        assert_eq!(world.states()["h0"], end, "failing {failing:?}");
    }
}

#[test]
fn without_a_rescue_the_failure_stands_after_always() {
    // body 0 | always 1 2 | 3
    let world = run(with_blocks(4, vec![block((0, 1), 1, 3)]), &[0]);
    assert_eq!(walked(&world, "h0"), [0, 1, 2]);
    assert_eq!(world.states()["h0"], HostState::Failed);
}

#[test]
fn an_inner_failure_reaches_the_outer_rescue_through_the_inner_always() {
    // outer body: 0, inner (body 1 | always 2), 3 | outer rescue 4 | 5
    let blocks = || vec![block((1, 2), 2, 3), block((0, 4), 5, 5)];
    let world = run(with_blocks(6, blocks()), &[1]);
    assert_eq!(walked(&world, "h0"), [0, 1, 2, 4, 5]);
    assert_eq!(world.states()["h0"], HostState::Ok);
    let rescued = |what: &What| match what {
        What::TaskEnd { task, rescued, .. } => Some((task.id.index, *rescued)),
        _ => None,
    };
    let told: Vec<(u16, bool)> = world.events.iter().filter_map(rescued).collect();
    let all = [(0, false), (1, true), (2, false), (4, false), (5, false)];
    assert_eq!(told, all);
    let world = run(with_blocks(6, blocks()), &[]);
    assert_eq!(walked(&world, "h0"), [0, 1, 2, 3, 5]);
}

#[test]
fn stop_all_inside_a_block_with_rescue_stops_nobody() {
    let mut shape = with_blocks(3, vec![block((0, 1), 2, 2)]);
    shape.plays[0].tasks[0].on_failure = OnFailure::StopAll;
    let world = run(shape, &[0]);
    assert_eq!(world.finished, Some((None, None)));
    assert_eq!(walked(&world, "h0"), [0, 1, 2]);
}

#[test]
fn once_is_done_by_one_host_when_all_have_come_and_all_go_on() {
    let mut shape = play(4, 3);
    shape.plays[0].tasks[1].gate = Gate::Once;
    let mut world = World::new(shape);
    world.settle();
    world.check_the_books();
    assert_eq!(walked(&world, "h0"), [0, 1, 2]);
    for host in ["h1", "h2", "h3"] {
        assert_eq!(walked(&world, host), [0, 2]);
    }
    let at = |host: &str, index: u16| {
        world.events.iter().position(|what| {
            matches!(what, What::TaskStart { host: on, task }
                if on.as_str() == host && task.id.index == index)
        })
    };
    assert!(at("h0", 1) > at("h3", 0), "all arrive first");
    assert!(at("h0", 1) < at("h3", 2), "nobody goes on before");
    assert!(world.states().values().all(|state| *state == HostState::Ok));
}

#[test]
fn once_is_taken_over_where_the_first_host_is_not_there_and_never_done_twice() {
    let once = |fate| {
        let mut shape = play(3, 2);
        shape.plays[0].tasks[0].gate = Gate::Once;
        let mut world = World::new(shape).fate(0, 0, 0, fate);
        world.settle();
        world.check_the_books();
        world
    };
    let world = once(Fate::Unreachable);
    assert_eq!(walked(&world, "h1"), [0, 1]);
    assert_eq!(walked(&world, "h2"), [1]);
    for fate in [Fate::Fails, Fate::IsLost, Fate::Panics] {
        let world = once(fate);
        assert_eq!(walked(&world, "h0"), [0], "{fate:?}");
        assert!(walked(&world, "h1").is_empty(), "{fate:?}");
        assert_eq!(world.states()["h1"], HostState::Cancelled, "{fate:?}");
    }
}

#[test]
fn a_failed_once_takes_every_host_to_the_rescue() {
    let mut shape = play(2, 3);
    shape.plays[0].tasks[0].gate = Gate::Once;
    shape.plays[0].blocks = vec![block((0, 1), 2, 2)];
    let mut world = World::new(shape).fate(0, 0, 0, Fate::Fails);
    world.settle();
    world.check_the_books();
    assert_eq!(walked(&world, "h0"), [0, 1, 2]);
    assert_eq!(walked(&world, "h1"), [1, 2]);
}

fn batches(world: &World) -> Vec<(u32, usize)> {
    let batch = |what: &What| match what {
        What::BatchStart { number, hosts, .. } => Some((*number, *hosts)),
        _ => None,
    };
    world.events.iter().filter_map(batch).collect()
}

fn rollout(batches: &[usize], max_failures: Option<usize>) -> Rollout {
    Rollout {
        batches: batches.to_vec(),
        max_failures,
        pause: Duration::ZERO,
    }
}

#[test]
fn a_play_goes_over_its_hosts_in_growing_batches() {
    let mut shape = play(10, 2);
    shape.plays[0].rollout = rollout(&[1, 3], None);
    let mut world = World::new(shape);
    assert_eq!(world.able(), [0]);
    world.settle();
    world.check_the_books();
    assert_eq!(batches(&world), [(1, 1), (2, 3), (3, 3), (4, 3)]);
    assert_eq!(world.most_at_once, 3);
    assert!(world.states().values().all(|state| *state == HostState::Ok));
}

#[test]
fn a_batch_in_which_every_host_failed_is_the_last() {
    let mut shape = play(4, 2);
    shape.plays[0].rollout = rollout(&[1], None);
    let mut world = World::new(shape).fate(1, 0, 0, Fate::Fails);
    world.settle();
    world.check_the_books();
    assert_eq!(batches(&world), [(1, 1), (2, 1)]);
    let reason = world.finished.clone().unwrap().1.unwrap();
    assert_eq!(reason, "every host of batch 2 failed");
    assert_eq!(world.states()["h3"], HostState::Cancelled);
}

#[test]
fn one_failure_more_than_allowed_ends_the_run_and_one_less_does_not() {
    let with = |failing: &[u32]| {
        let mut shape = play(6, 1);
        shape.plays[0].rollout = rollout(&[2], Some(1));
        let mut world = World::new(shape);
        for host in failing {
            world = world.fate(*host, 0, 0, Fate::Fails);
        }
        world.settle();
        world.check_the_books();
        world
    };
    assert_eq!(with(&[0]).finished, Some((None, None)));
    let world = with(&[0, 2]);
    let reason = world.finished.clone().unwrap().1.unwrap();
    assert_eq!(reason, "2 hosts failed; `max_failures` allows 1");
    assert_eq!(batches(&world), [(1, 2), (2, 2)]);
    assert_eq!(world.states()["h5"], HostState::Cancelled);
}

#[test]
fn batches_wait_for_their_pause_and_a_signal_ends_the_wait() {
    let paused = || {
        let mut shape = play(2, 1);
        shape.plays[0].rollout = Rollout {
            pause: Duration::from_secs(9),
            ..rollout(&[1], None)
        };
        let mut world = World::new(shape);
        while let Some(host) = world.able().first().copied() {
            world.act(host);
        }
        world
    };
    let mut world = paused();
    assert_eq!(world.wait, Some(Duration::from_secs(9)));
    assert_eq!(walked(&world, "h1"), [0u16; 0]);
    world.settle();
    assert_eq!(walked(&world, "h1"), [0]);
    world.check_the_books();
    let mut world = paused();
    world.input(Input::Signal(2));
    assert_eq!(world.finished, Some((Some(2), None)));
}

#[test]
fn one_task_in_batches_holds_everybody_until_the_last_batch_is_through() {
    let mut shape = play(5, 3);
    shape.plays[0].tasks[1].gate = Gate::Batches(rollout(&[1, 2], None));
    let mut world = World::new(shape);
    world.settle();
    world.check_the_books();
    assert_eq!(batches(&world), [(1, 1), (2, 2), (3, 2)]);
    let index = |what: &What| match what {
        What::TaskStart { task, .. } => Some(task.id.index),
        _ => None,
    };
    let order: Vec<u16> = world.events.iter().filter_map(index).collect();
    assert_eq!(order, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
}

#[test]
fn a_task_with_a_limit_of_its_own_narrows_only_itself() {
    let mut shape = play(6, 3);
    shape.plays[0].tasks[1].gate = Gate::Limit(2);
    let mut world = World::new(shape);
    let mut most = [0; 3];
    while let Some(host) = world.able().first().copied() {
        world.act(host);
        let mut now = [0; 3];
        for task in world.running.values() {
            now[usize::from(task.id.index)] += 1;
        }
        // Everybody who was told to begin does, before anybody ends.
        for host in world.able() {
            if !world.running.contains_key(&host) {
                world.act(host);
            }
        }
        for task in world.running.values() {
            let at = usize::from(task.id.index);
            let same = world
                .running
                .values()
                .filter(|t| usize::from(t.id.index) == at);
            most[at] = most[at].max(same.count());
        }
    }
    world.check_the_books();
    assert_eq!(most, [6, 2, 6]);
}

#[test]
fn a_task_that_was_not_due_leaves_no_trace() {
    let mut world = World::new(play(1, 2));
    world.act(0);
    world.act(0);
    assert_eq!(world.inbox[&0].front(), Some(&Order::Task(id(1))));
    world.inbox.get_mut(&0).unwrap().pop_front();
    world.input(Input::Lane(HostId(0), News::Passed(id(1))));
    world.settle();
    assert_eq!(walked(&world, "h0"), [0]);
    assert_eq!(world.states()["h0"], HostState::Ok);
    world.check_the_books();
}

fn id(index: u16) -> TaskId {
    TaskId {
        play: PlayId(0),
        index,
    }
}

fn any_gate() -> impl Strategy<Value = Gate> {
    let sizes = prop::collection::vec(1usize..4, 1..3);
    prop_oneof![
        3 => Just(Gate::None),
        1 => Just(Gate::Together),
        1 => Just(Gate::Once),
        1 => (1usize..3).prop_map(Gate::Limit),
        1 => sizes.prop_map(|sizes| Gate::Batches(rollout(&sizes, None))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// body 0 1 | rescue 2 | always 3 | 4, with any gates, turns, endings and order.
    #[test]
    fn any_rollout_in_any_order_ends_with_true_books(
        hosts in 1u32..6,
        gates in prop::collection::vec(any_gate(), 5),
        sizes in prop::collection::vec(1usize..4, 0..3),
        max_failures in prop::option::of(0usize..3),
        pause in prop::sample::select(vec![0u64, 5]),
        fanout in 1usize..4,
        keep_open in any::<bool>(),
        fates in prop::collection::vec(any_fate(), 30),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 300),
        signal_at in prop::option::of(0usize..60),
    ) {
        let mut shape = shape(hosts, &[(false, fanout, &[STOP; 5])], keep_open);
        shape.plays[0].blocks = vec![block((0, 2), 3, 4)];
        shape.plays[0].rollout = Rollout {
            pause: Duration::from_secs(pause),
            ..rollout(&sizes, max_failures)
        };
        for (task, gate) in shape.plays[0].tasks.iter_mut().zip(&gates) {
            task.gate = gate.clone();
        }
        let mut world = World::new(shape);
        for (at, fate) in (0u32..).zip(fates) {
            world.fates.insert((at / 5, id((at % 5) as u16)), fate);
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
        if sizes.is_empty() {
            for (at, _) in gates.iter().enumerate().filter(|(_, gate)| **gate == Gate::Once) {
                let starts = world.events.iter().filter(|what| {
                    matches!(what, What::TaskStart { task, .. } if usize::from(task.id.index) == at)
                });
                prop_assert!(starts.count() <= 1, "task {at} was done more than once");
            }
        }
    }
}
