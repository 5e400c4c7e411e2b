//! Whole runs over scripted sessions: the loop, lanes, attempts and the ladder, with a clock that
//! stands still until everybody waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::event::{HostState, Stream};
use crate::inventory::{Inventory, Set, Settings};
use crate::outcome::{Cause, ExitStatus, Failure, HostProblem, Phase, Remains};
use crate::plan::{Defaults, Ground, Reaching, Single};
use crate::recap::Verdict;
use crate::session::scripted::{Asked, Script, ScriptedSession, Step};
use crate::session::ssh::config::Config;
use crate::session::{Ending, Signal, SpawnError, Sweep};
use crate::target::{Dial, HostName, UserName};

fn ground(hosts: usize, fanout: usize) -> Ground {
    let origin = || "a test".to_owned();
    let host = |n: usize| {
        let name = HostName::new(&format!("h{n}")).unwrap();
        let address = Some(Set {
            value: format!("h{n}.test"),
            origin: origin(),
        });
        (
            name,
            Settings {
                address,
                ..Settings::default()
            },
        )
    };
    Ground {
        inventory: Inventory::with_hosts("test", (0..hosts).map(host).collect()),
        listed: true,
        limit: None,
        vars: serde_json::Map::new(),
        selection: crate::plan::Selection::default(),
        reaching: Reaching {
            user: Some(UserName::new("tester").unwrap()),
            port: None,
            identities: Vec::new(),
            known_hosts: Vec::new(),
            policy: None,
            connect_timeout: None,
            password: None,
            config: Arc::new(Config::default()),
            defaults: Defaults {
                home: "/nonexistent".into(),
                user: UserName::new("tester").unwrap(),
                agent: None,
                terminal: false,
            },
        },
        fanout: Some(fanout),
        allow_empty: false,
        unsure: false,
    }
}

fn playbook(text: &str, ground: &Ground) -> Plan {
    let source = crate::diagnostic::Source {
        path: "test.yml".into(),
        text: text.into(),
    };
    let loaded = crate::playbook::load(&Arc::new(source), &|_| Err("is missing".into()))
        .sound()
        .unwrap();
    crate::plan::build(loaded, ground).unwrap().plan
}

fn exec(hosts: usize, fanout: usize, timeout: Option<Duration>) -> Plan {
    let single = Single {
        command: "work".into(),
        timeout,
        pass_through: false,
    };
    crate::plan::single("all", single, &ground(hosts, fanout))
        .unwrap()
        .plan
}

fn setup(plan: Plan, dial: impl Fn(&Dial) -> Dialled + Send + Sync + 'static) -> Setup {
    Setup {
        asker: crate::session::ssh::Asker::none(),
        check: false,
        step: false,
        masks: watch::channel(Arc::default()).1,
        plan: Arc::new(plan),
        connector: Connector::Scripted(Box::new(dial)),
        spill: SpillBudget::new(1 << 20),
        deadline: None,
        clock: Clock::start(),
        fanout: usize::MAX,
        keep_open: true,
        backlog_memory: 64 << 10,
        stdin: None,
    }
}

type Dialled = Result<ScriptedSession, HostProblem>;

/// Runs to the end and gives what was told, checked against the promises of the event stream.
async fn run_all(setup: Setup) -> (Vec<Event>, Finished) {
    let (_controls, taken) = mpsc::channel(4);
    run_with(setup, taken).await
}

async fn run_with(setup: Setup, controls: mpsc::Receiver<Control>) -> (Vec<Event>, Finished) {
    let (events, mut told) = mpsc::channel(8);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(event) = told.recv().await {
            all.push(event);
        }
        all
    });
    let finished = run(setup, events, controls).await;
    let events = reading.await.unwrap();
    check(&events);
    (events, finished)
}

/// The invariants of the stream.
fn check(events: &[Event]) {
    let mut seq = 0;
    let mut open = HashMap::new();
    let mut next_line: HashMap<(HostName, crate::job::TaskId, Stream), u64> = HashMap::new();
    for event in events {
        assert_eq!(event.seq, seq);
        seq += event.what.span();
        match &event.what {
            What::TaskStart { host, task } => {
                assert!(open.insert((host.clone(), task.id), ()).is_none());
            }
            What::TaskEnd { host, task, .. } => {
                assert!(open.remove(&(host.clone(), task.id)).is_some());
            }
            What::Output { host, task, block } => {
                assert!(
                    open.contains_key(&(host.clone(), task.id)),
                    "output outside its task"
                );
                let line = next_line
                    .entry((host.clone(), task.id, block.stream))
                    .or_insert(1);
                assert_eq!(block.first_line, *line);
                *line += u64::from(block.lines);
            }
            _ => {}
        }
    }
    assert!(open.is_empty());
    assert!(matches!(
        events.last().map(|event| &event.what),
        Some(What::RunEnd { .. })
    ));
}

fn exits(code: u32) -> Script {
    Script::Runs(vec![Step::Ended(exited(code))])
}

fn exited(code: u32) -> Ending {
    Ending::Exited {
        status: ExitStatus::Exited(code),
        lingering: None,
    }
}

fn scripts(scripts: Vec<Script>) -> Dialled {
    Ok(ScriptedSession::new(scripts).0)
}

fn outcomes(events: &[Event]) -> Vec<(String, Outcome)> {
    let outcome = |event: &Event| match &event.what {
        What::TaskEnd { host, outcome, .. } => Some((host.to_string(), outcome.clone())),
        _ => None,
    };
    events.iter().filter_map(outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn a_status_is_ok_only_if_its_code_is_listed() {
    let plan = playbook(
        "hosts: all\ntasks:\n  - run: a\n    ok_codes: [0, 3]\n  - run: b\n",
        &ground(1, 1),
    );
    let (events, finished) = run_all(setup(plan, |_| scripts(vec![exits(3), exits(3)]))).await;
    let outcomes = outcomes(&events);
    assert_eq!(
        outcomes[0].1,
        Outcome::Ok {
            status: Some(ExitStatus::Exited(3))
        }
    );
    assert_eq!(
        outcomes[1].1,
        Outcome::Failed(Failure::Exit(ExitStatus::Exited(3)))
    );
    assert_eq!(finished.recap.verdict(), Verdict::TaskFailed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_lane_is_that_hosts_ending_and_code_70() {
    let dial = |dial: &Dial| match dial.address.as_str() {
        "h1.test" => panic!("a bug on purpose"),
        _ => scripts(vec![exits(0)]),
    };
    let (events, finished) = run_all(setup(exec(3, 3, None), dial)).await;
    assert_eq!(outcomes(&events).len(), 2);
    let ends = events.iter().filter_map(|event| match &event.what {
        What::HostEnd { host, state, .. } => Some((host.to_string(), *state)),
        _ => None,
    });
    let ends: HashMap<String, HostState> = ends.collect();
    assert_eq!(ends["h1"], HostState::Internal);
    assert_eq!((ends["h0"], ends["h2"]), (HostState::Ok, HostState::Ok));
    assert_eq!(finished.recap.verdict().code(), 70);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_jobs_go_through_a_pool_of_two_thousand() {
    let plan = exec(10_000, 2_000, None);
    let (events, finished) = run_all(setup(plan, |_| scripts(vec![exits(0)]))).await;
    assert_eq!(outcomes(&events).len(), 10_000);
    assert_eq!(finished.recap.verdict(), Verdict::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handshake_is_tried_again_and_a_word_from_the_server_is_not() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let closed = |message: &str| HostProblem {
        cause: Cause::Closed(Phase::Banner),
        message: message.into(),
        details: Vec::new(),
    };
    let dial = move |dial: &Dial| match dial.address.as_str() {
        "h0.test" if CALLS.fetch_add(1, Ordering::Relaxed) < 9 => {
            Err(closed("server said: Exceeded MaxStartups"))
        }
        "h0.test" => scripts(vec![exits(0)]),
        _ => Err(closed("server said: Not allowed at this time")),
    };
    let (events, finished) = run_all(setup(exec(2, 2, None), dial)).await;
    let ready = events.iter().find_map(|event| match &event.what {
        What::HostReady { retries, .. } => Some(*retries),
        _ => None,
    });
    assert_eq!(ready, Some(9));
    assert_eq!(finished.recap.verdict(), Verdict::Unreachable);
    assert_eq!(CALLS.load(Ordering::Relaxed), 10);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_while_idle_is_replaced_and_the_command_is_sent_once() {
    let plan = playbook("hosts: all\ntasks:\n  - a\n  - b\n", &ground(1, 1));
    let dials = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&dials);
    let dial = move |_: &Dial| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let gone = SpawnError::Disconnected {
                reason: "gone".into(),
            };
            scripts(vec![exits(0), Script::Refuses(gone)])
        }
        _ => scripts(vec![exits(0)]),
    };
    let (events, finished) = run_all(setup(plan, dial)).await;
    assert_eq!(dials.load(Ordering::Relaxed), 2);
    assert_eq!(outcomes(&events).len(), 2);
    assert_eq!(finished.recap.verdict(), Verdict::Ok);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_after_it_started_is_never_sent_again() {
    let dials = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&dials);
    let dial = move |_: &Dial| {
        counted.fetch_add(1, Ordering::Relaxed);
        let lost = Ending::Lost {
            reason: "gone".into(),
        };
        scripts(vec![Script::Runs(vec![Step::Ended(lost)])])
    };
    let (events, finished) = run_all(setup(exec(1, 1, None), dial)).await;
    assert_eq!(dials.load(Ordering::Relaxed), 1);
    assert!(matches!(outcomes(&events)[0].1, Outcome::Lost { .. }));
    assert_eq!(finished.recap.verdict(), Verdict::TaskFailed);
}

/// Runs one command that ends only when it is signalled; gives its outcome and what was asked.
async fn time_out(sweeps: Vec<Sweep>) -> (Outcome, Vec<Asked>, Duration) {
    let record = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&record);
    let dial = move |_: &Dial| {
        let endless = Script::Runs(vec![Step::UntilSignalled, Step::Ended(exited(0))]);
        let (session, asked) = ScriptedSession::new(vec![endless]);
        *kept.lock().unwrap() = Some(asked);
        Ok(session.with_sweeps(sweeps.clone()))
    };
    let began = tokio::time::Instant::now();
    let plan = exec(1, 1, Some(Duration::from_secs(30)));
    let (events, _) = run_all(setup(plan, dial)).await;
    let mut asked = Vec::new();
    let mut record = record.lock().unwrap().take().unwrap();
    while let Ok(one) = record.try_recv() {
        asked.push(one);
    }
    (outcomes(&events).remove(0).1, asked, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_timeout_asks_politely_and_believes_an_empty_sweep() {
    let (outcome, asked, took) = time_out(vec![Sweep::Signalled(2), Sweep::Signalled(0)]).await;
    let after = Duration::from_secs(30);
    assert_eq!(
        outcome,
        Outcome::TimedOut {
            after,
            remote: Remains::Ended
        }
    );
    assert!(asked.contains(&Asked::Sweep(Signal::Term)));
    let request = |asked: &Asked| matches!(asked, Asked::Signal(_));
    assert!(!asked.iter().any(request), "no request beside a sweep");
    assert!(asked.contains(&Asked::Sweep(Signal::Term)));
    assert!(!asked.contains(&Asked::Signal(Signal::Kill)));
    assert!(took < after + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ignores_term_is_killed_after_the_grace() {
    let mut sweeps = vec![Sweep::Signalled(1); 100];
    sweeps.extend([Sweep::Signalled(0)]);
    let (outcome, asked, took) = time_out(sweeps).await;
    assert!(matches!(outcome, Outcome::TimedOut { .. }));
    assert!(asked.contains(&Asked::Sweep(Signal::Kill)));
    assert!(
        took >= Duration::from_secs(30) + termination::GRACE,
        "{took:?}"
    );
    assert!(took < Duration::from_secs(40), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_outlives_kill_is_said_to_be_perhaps_running() {
    let (outcome, asked, _) = time_out(vec![Sweep::Signalled(1); 1000]).await;
    let after = Duration::from_secs(30);
    assert_eq!(
        outcome,
        Outcome::TimedOut {
            after,
            remote: Remains::MaybeRunning
        }
    );
    assert_eq!(asked.last(), Some(&Asked::Close));
}

#[tokio::test(start_paused = true)]
async fn a_signal_stops_the_run_even_while_nobody_reads_what_it_says() {
    let (controls, taken) = mpsc::channel(4);
    let (events, told) = mpsc::channel(1);
    let dial = |_: &Dial| {
        let line = || Step::Output(Stream::Stdout, Bytes::from_static(b"flood\n"));
        let mut steps: Vec<Step> = (0..5000).map(|_| line()).collect();
        steps.extend([Step::UntilSignalled, Step::Ended(exited(0))]);
        scripts(vec![Script::Runs(steps)])
    };
    let running = tokio::spawn(run(setup(exec(5, 5, None), dial), events, taken));
    tokio::time::sleep(Duration::from_secs(1)).await;
    controls.send(Control::Signal(2)).await.unwrap();
    let finished = tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(finished.signal, Some(2));
    assert!(finished.cut_short, "nobody took the last words");
    drop(told);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_does_not_read_keeps_no_host_from_its_work() {
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let dial = move |_: &Dial| {
        counted.fetch_add(1, Ordering::Relaxed);
        let line = || Step::Output(Stream::Stdout, Bytes::from_static(b"flood\n"));
        let mut steps: Vec<Step> = (0..2000).map(|_| line()).collect();
        steps.extend([Step::UntilSignalled, Step::Ended(exited(0))]);
        scripts(vec![Script::Runs(steps)])
    };
    let (_controls, taken) = mpsc::channel(4);
    let (events, told) = mpsc::channel(1);
    let running = tokio::spawn(run(setup(exec(300, 300, None), dial), events, taken));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(begun.load(Ordering::Relaxed), 300);
    running.abort();
    drop(told);
}

#[tokio::test(start_paused = true)]
async fn output_reaches_a_slow_reader_whole_and_in_order() {
    let dial = |_: &Dial| {
        let line = |n: usize| Step::Output(Stream::Stdout, Bytes::from(format!("line {n}\n")));
        let mut steps: Vec<Step> = (0..20_000).map(line).collect();
        steps.push(Step::Ended(exited(0)));
        scripts(vec![Script::Runs(steps)])
    };
    let (_controls, taken) = mpsc::channel(4);
    let (events, mut told) = mpsc::channel(1);
    let running = tokio::spawn(run(setup(exec(2, 2, None), dial), events, taken));
    let mut text: HashMap<String, Vec<u8>> = HashMap::new();
    let mut all = Vec::new();
    while let Some(event) = told.recv().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let What::Output { host, block, .. } = &event.what {
            text.entry(host.to_string())
                .or_default()
                .extend_from_slice(&block.bytes);
        }
        all.push(event);
    }
    check(&all);
    let expected: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    assert!(text.values().all(|bytes| bytes == expected.as_bytes()));
    assert_eq!(text.len(), 2);
    assert_eq!(running.await.unwrap().recap.verdict(), Verdict::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_result_is_filled_into_later_tasks() {
    let text = "hosts: all\ntasks:\n  - run: hostname\n    register: who\n  - run: [echo, '${{ who.stdout }}']\n";
    let record = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&record);
    let dial = move |_: &Dial| {
        let says = Step::Output(Stream::Stdout, Bytes::from_static(b"it's $(me)\n"));
        let first = Script::Runs(vec![says, Step::Ended(exited(0))]);
        let (session, asked) = ScriptedSession::new(vec![first, exits(0)]);
        *kept.lock().unwrap() = Some(asked);
        Ok(session)
    };
    let (_, finished) = run_all(setup(playbook(text, &ground(1, 1)), dial)).await;
    assert_eq!(finished.recap.verdict(), Verdict::Ok);
    let mut asked = record.lock().unwrap().take().unwrap();
    assert!(matches!(asked.try_recv(), Ok(Asked::Start(_))));
    let argv = vec!["echo".to_owned(), "it's $(me)".to_owned()];
    assert_eq!(
        asked.try_recv().unwrap(),
        Asked::Start(crate::job::Command::Argv(argv))
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_run_ends_it_with_code_6() {
    let endless = || Script::Runs(vec![Step::UntilSignalled, Step::Ended(exited(0))]);
    let mut setup = setup(exec(2, 1, None), move |_| scripts(vec![endless()]));
    setup.deadline = Some(Duration::from_secs(60));
    let (events, _) = run_all(setup).await;
    let code = events.last().map(|event| match &event.what {
        What::RunEnd { code, .. } => *code,
        _ => 0,
    });
    assert_eq!(code, Some(6));
}
