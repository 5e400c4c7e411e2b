//! The stream of events, read as a consumer would: a law over random playbooks on the sandbox,
//! and the reader that other tests use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rustix::process::Signal;
use serde_json::Value;

use crate::fanrun::{Ending, Fanrun};

/// How long a task that is too slow may take.
const LIMIT: &str = "700ms";

/// What a stream of events told, once its form was found right.
#[derive(Debug, Default)]
pub struct Told {
    /// The bytes of each host, task and stream.
    pub bytes: BTreeMap<(String, String, String), Vec<u8>>,
    /// `task_end` of each host and task.
    pub ends: BTreeMap<(String, String), Value>,
}

/// Holds a whole stream to its promises: `seq` rises by one, every `task_start` has one `task_end`,
/// the lines of a stream have no gap and come within their task, `run_end` is last.
pub fn check(text: &str, code: u64) -> Told {
    assert!(text.ends_with('\n'), "the last line is cut");
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut told = Told::default();
    let mut open = BTreeSet::new();
    let mut lines: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for (seq, event) in (0u64..).zip(&events) {
        assert_eq!((&event["seq"], &event["v"]), (&seq.into(), &1.into()));
        let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let job = (word("host"), word("task"));
        match event["type"].as_str().unwrap() {
            "task_start" => {
                assert!(!told.ends.contains_key(&job), "begins twice: {event}");
                assert!(open.insert(job), "begins twice: {event}");
            }
            "task_end" => {
                assert!(open.remove(&job), "ends without a beginning: {event}");
                told.ends.insert(job, event.clone());
            }
            "line" => {
                assert!(open.contains(&job), "a line outside of its task: {event}");
                let key = (job.0, job.1, word("stream"));
                let n = lines.entry(key.clone()).or_default();
                *n += 1;
                assert_eq!(event["n"], *n, "{event}");
                told.bytes.entry(key).or_default().extend(line(event));
            }
            "run_end" => assert_eq!(seq + 1, events.len() as u64, "not the last: {event}"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "without an end: {open:?}");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "run_end");
    assert_eq!(last["code"], code);
    told
}

fn line(event: &Value) -> Vec<u8> {
    let mut bytes = match (event["text"].as_str(), event["bytes"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(coded)) => {
            let bytes = STANDARD.decode(coded).unwrap();
            assert!(
                std::str::from_utf8(&bytes).is_err(),
                "could be text: {event}"
            );
            bytes
        }
        _ => panic!("either `text` or `bytes`: {event}"),
    };
    bytes.extend_from_slice(event["eol"].as_str().unwrap_or("\n").as_bytes());
    bytes
}

/// What a task writes, piece by piece, and how it ends.
#[derive(Debug, Clone)]
struct Script {
    pieces: Vec<(bool, Piece)>,
    end: End,
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Vec<u8>),
    /// One line longer than a block.
    Long(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exit(u8),
    Signal(&'static str),
    TooSlow,
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Piece::Bytes(bytes) => bytes.clone(),
            Piece::Long(length) => vec![b'x'; *length],
        }
    }

    fn command(&self) -> String {
        match self {
            Piece::Bytes(bytes) => {
                let octal = |byte: &u8| format!("\\0{byte:03o}");
                let octals: String = bytes.iter().map(octal).collect();
                format!("printf '%b' '{octals}'")
            }
            Piece::Long(length) => format!("head -c {length} /dev/zero | tr '\\0' x"),
        }
    }
}

impl Script {
    fn sent(&self, stderr: bool) -> Vec<u8> {
        let own = self.pieces.iter().filter(|(to, _)| *to == stderr);
        own.flat_map(|(_, piece)| piece.bytes()).collect()
    }

    fn task(&self) -> String {
        let mut task = String::from("  - run: |\n");
        for (stderr, piece) in &self.pieces {
            let to = if *stderr { " >&2" } else { "" };
            writeln!(task, "      {{ {}; }}{to}", piece.command()).unwrap();
        }
        match self.end {
            End::Exit(code) => writeln!(task, "      exit {code}"),
            End::Signal(name) => writeln!(task, "      kill -{name} $$"),
            End::TooSlow => writeln!(task, "      sleep 60\n    timeout: {LIMIT}"),
        }
        .unwrap();
        task + "    on_failure: continue\n"
    }

    /// The end of the task as the stream must tell it.
    fn check_end(&self, event: &Value) {
        let wanted = match self.end {
            End::Exit(0) => "ok",
            End::Exit(_) | End::Signal(_) => "failed",
            End::TooSlow => "timed_out",
        };
        assert_eq!(event["status"], wanted, "{event}");
        match self.end {
            End::Exit(code) => assert_eq!(event["code"], code, "{event}"),
            End::Signal(name) => assert_eq!(event["signal"], name, "{event}"),
            End::TooSlow => {}
        }
    }
}

fn any_piece() -> impl Strategy<Value = (bool, Piece)> {
    let byte = prop_oneof![
        4 => prop::sample::select(&b"ab %\\'\"$\t{"[..]),
        3 => Just(b'\n'),
        1 => Just(b'\r'),
        1 => any::<u8>(),
    ];
    let text = prop::sample::select(&["é", "日本", "\u{2028}", "\x1b[2J", "\u{fffd}"][..]);
    let piece = prop_oneof![
        6 => prop::collection::vec(byte, 0..60).prop_map(Piece::Bytes),
        2 => text.prop_map(|text| Piece::Bytes(text.as_bytes().to_vec())),
        1 => (60_000usize..150_000).prop_map(Piece::Long),
    ];
    (any::<bool>(), piece)
}

fn any_script() -> impl Strategy<Value = Script> {
    let end = prop_oneof![
        6 => (0u8..4).prop_map(End::Exit),
        2 => prop::sample::select(&["TERM", "KILL", "SEGV"][..]).prop_map(End::Signal),
        1 => Just(End::TooSlow),
    ];
    let pieces = prop::collection::vec(any_piece(), 0..6);
    (pieces, end).prop_map(|(pieces, end)| Script { pieces, end })
}

#[derive(Debug, Clone)]
struct Case {
    hosts: usize,
    linear: bool,
    scripts: Vec<Script>,
    /// Ctrl-C while the task behind them all runs.
    interrupted: bool,
}

fn any_case() -> impl Strategy<Value = Case> {
    let scripts = prop::collection::vec(any_script(), 1..4);
    (1usize..4, any::<bool>(), scripts, prop::bool::weighted(0.3)).prop_map(
        |(hosts, linear, scripts, interrupted)| Case {
            hosts,
            linear,
            scripts,
            interrupted,
        },
    )
}

impl Case {
    fn playbook(&self) -> String {
        let strategy = if self.linear { "linear" } else { "free" };
        let mut text = format!("hosts: all\nstrategy: {strategy}\ntasks:\n");
        text.extend(self.scripts.iter().map(Script::task));
        if self.interrupted {
            text.push_str("  - echo ready >&2; sleep 60\n");
        }
        text
    }

    /// Runs it and gives the file of events and the code that it must tell.
    fn run(&self) -> (String, u64) {
        let dir = tempfile::tempdir().unwrap();
        let (playbook, events) = (dir.path().join("p.yml"), dir.path().join("events"));
        std::fs::write(&playbook, self.playbook()).unwrap();
        let hosts = self.hosts.to_string();
        let run = Fanrun::new(["run", playbook.to_str().unwrap(), "--sandbox", &hosts])
            .options(["--events", events.to_str().unwrap()])
            .spawn();
        let failed = self.scripts.iter().any(|s| s.end != End::Exit(0));
        let (ending, code) = if self.interrupted {
            for host in 1..=self.hosts {
                run.await_stderr(&format!("sandbox-{host} ! ready"));
            }
            run.signal(Signal::INT);
            (Ending::from(Signal::INT), 130)
        } else {
            (Ending::from(i32::from(failed)), u64::from(failed))
        };
        run.expect(ending, |_: &str| true, |_: &str| true);
        (std::fs::read_to_string(&events).unwrap(), code)
    }

    fn check(&self) {
        let (text, code) = self.run();
        let told = check(&text, code);
        assert_eq!(
            told.ends.len(),
            self.hosts * (self.scripts.len() + usize::from(self.interrupted))
        );
        for host in (1..=self.hosts).map(|n| format!("sandbox-{n}")) {
            for (at, script) in self.scripts.iter().enumerate() {
                let job = (host.clone(), format!("0.{at}"));
                script.check_end(&told.ends[&job]);
                for (stream, stderr) in [("stdout", false), ("stderr", true)] {
                    let key = (host.clone(), job.1.clone(), stream.to_owned());
                    let got = told.bytes.get(&key).map_or(&[][..], Vec::as_slice);
                    let sent = script.sent(stderr);
                    // What is too slow may be ended before it has written everything.
                    let whole = script.end != End::TooSlow;
                    let fits = got == sent || (!whole && sent.starts_with(got));
                    assert!(fits, "{key:?}: {} of {} bytes", got.len(), sent.len());
                }
            }
        }
    }
}

#[test]
fn the_events_of_any_run_are_whole_in_order_and_exact() {
    // The same cases every time: a run that fails can be looked at again.
    let mut runner = TestRunner::deterministic();
    let mut interrupted = 0;
    for _ in 0..12 {
        let case = any_case().new_tree(&mut runner).unwrap().current();
        interrupted += usize::from(case.interrupted);
        let told = std::panic::catch_unwind(|| case.check());
        assert!(told.is_ok(), "{case:#?}\n{}", case.playbook());
    }
    assert!(interrupted > 0, "no case was interrupted");
}

#[test]
fn ten_thousand_commands_go_through_a_pool_of_two_thousand() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("many.yml");
    std::fs::write(
        &inventory,
        "groups: {here: {hosts: ['n[00001-10000]'], connection: local}}\n",
    )
    .unwrap();
    let events = dir.path().join("events");
    Fanrun::new(["exec", "here", "-f", "2000", "--", "true"])
        .options([
            "-i",
            inventory.to_str().unwrap(),
            "--events",
            events.to_str().unwrap(),
        ])
        .within(Duration::from_secs(120))
        .expect(0, "", |text: &str| {
            text.contains("hosts: 10000 ok   tasks: 10000 ok")
        });
    let told = check(&std::fs::read_to_string(&events).unwrap(), 0);
    assert_eq!(told.ends.len(), 10_000);
}
