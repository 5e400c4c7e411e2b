//! Whole screens of small runs, on a terminal and in a pipe.

use super::*;
use crate::event::HostState;
use crate::job::PlayId;
use crate::outcome::{Cause, ExitStatus, Failure, Remains};
use crate::report::Sink;

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn task(index: u16, name: &str) -> TaskRef {
    let id = TaskId {
        play: PlayId(0),
        index,
    };
    TaskRef {
        id,
        name: name.into(),
        place: Some(format!("deploy.yml:{}", 3 + index).into()),
    }
}

fn options(terminal: bool) -> TextOptions {
    TextOptions {
        colour: false,
        terminal,
        data_terminal: terminal,
        ci: false,
        columns: 80,
        verbosity: 0,
        prefix: true,
        hosts: vec![host("web1"), host("database-primary")],
        tables: HashMap::new(),
        fold: |names| {
            names
                .iter()
                .map(HostName::as_str)
                .collect::<Vec<_>>()
                .join(",")
        },
    }
}

fn output(name: &str, task: &TaskRef, stream: Stream, text: &[u8]) -> What {
    let lines = u32::try_from(text.iter().filter(|b| **b == b'\n').count().max(1)).unwrap();
    let bytes = bytes::Bytes::copy_from_slice(text);
    let block = Block {
        stream,
        first_line: 1,
        lines,
        bytes,
    };
    What::Output {
        host: host(name),
        task: task.clone(),
        block,
    }
}

fn ended(name: &str, task: &TaskRef, outcome: Outcome, ms: u64) -> What {
    let took = Duration::from_millis(ms);
    What::TaskEnd {
        host: host(name),
        task: task.clone(),
        outcome,
        took,
        tally: None,
        rescued: false,
        effort: crate::outcome::Effort::default(),
    }
}

fn ok() -> Outcome {
    Outcome::Ok {
        status: Some(ExitStatus::Exited(0)),
    }
}

fn host_end(name: &str, state: HostState, not_started: u32) -> What {
    What::HostEnd {
        host: host(name),
        state,
        not_started,
    }
}

/// What is shown, each line behind `1` or `2` for its stream.
fn screen(options: TextOptions, whats: Vec<What>) -> String {
    let mut renderer = TextRenderer::new(options);
    let mut ink = Ink::default();
    let last = whats.len();
    for (seq, what) in (0u64..).zip(whats) {
        let at = Duration::from_millis(if seq + 1 == last as u64 {
            62_000
        } else {
            100 * seq
        });
        renderer.render(&Event { seq, at, what }, &mut ink);
    }
    let mut shown = String::new();
    for (sink, bytes) in ink.pieces() {
        let number = if sink == Sink::Out { '1' } else { '2' };
        for line in String::from_utf8(bytes.to_vec()).unwrap().lines() {
            shown.push_str(&format!("{number} {line}\n"));
        }
    }
    shown
}

fn run_start(tasks: usize) -> What {
    What::RunStart(Arc::new(RunInfo {
        title: "deploy.yml".into(),
        hosts: vec![host("web1"), host("database-primary")],
        tasks,
        fanout: 64,
        started: 0,
        files: Vec::new(),
    }))
}

fn failing_run() -> Vec<What> {
    let (install, restart) = (task(0, "install app"), task(1, "restart"));
    let failed = Outcome::Failed(Failure::Exit(ExitStatus::Exited(100)));
    vec![
        run_start(2),
        What::TaskStart {
            host: host("web1"),
            task: install.clone(),
        },
        What::TaskStart {
            host: host("database-primary"),
            task: install.clone(),
        },
        output("web1", &install, Stream::Stdout, b"unpacking ...\r\ndone\n"),
        output(
            "database-primary",
            &install,
            Stream::Stderr,
            b"E: Unable to locate \x1b[31mapp\x1b[0m\n",
        ),
        ended("web1", &install, ok(), 4_100),
        ended("database-primary", &install, failed, 900),
        What::TaskStart {
            host: host("web1"),
            task: restart.clone(),
        },
        ended("web1", &restart, ok(), 20),
        host_end("web1", HostState::Ok, 0),
        host_end("database-primary", HostState::Failed, 1),
        What::RunEnd {
            signal: None,
            stopped_by: None,
            code: 1,
        },
    ]
}

#[test]
fn a_failing_run_in_a_pipe() {
    let expected = "\
2 fanrun 0.1.0  deploy.yml  2 hosts, 2 tasks, fanout 64
2 == install app
1 web1             | unpacking ...\r
1 web1             | done
2 database-primary ! E: Unable to locate \u{1b}[31mapp\u{1b}[0m
2 FAIL database-primary  install app  exit 100  0.9s  (deploy.yml:3)
2 == restart
2 FAILED  deploy.yml  1m02s   hosts: 1 ok, 1 failed   tasks: 2 ok, 1 failed, 1 not started
2   failed   install app   exit 100   database-primary   E: Unable to locate app
";
    // `lines` would take the carriage return for a part of the line end.
    let shown = screen(options(false), failing_run());
    assert_eq!(shown, expected.replace('\r', ""));
}

#[test]
fn a_failing_run_on_a_terminal() {
    let expected = "\
2 == install app
1 web1             │ unpacking ...
1 web1             │ done
2 database-primary ┃ E: Unable to locate app
2 ✓ web1               install app                                           4.1s
2 ✗ database-primary   install app   exit 100                                0.9s
2 == restart
2 ✓ web1               restart                                               20ms
2 ───────────────────────────────────────────────────────────────────────────────
2 FAILED  deploy.yml  1m02s   hosts: 1 ok, 1 failed   tasks: 2 ok, 1 failed, 1 not started
2   failed   install app   exit 100   database-primary   E: Unable to locate app
";
    assert_eq!(screen(options(true), failing_run()), expected);
}

#[test]
fn quiet_silences_talk_and_not_data() {
    let quiet = TextOptions {
        verbosity: -1,
        ..options(false)
    };
    let shown = screen(quiet, failing_run());
    assert!(shown.contains("1 web1             | done\n"));
    assert!(shown.contains("2 FAIL database-primary"));
    assert!(
        !shown.contains("== install") && !shown.contains("fanout"),
        "{shown}"
    );
}

fn refused() -> What {
    What::HostProblem {
        host: host("database-primary"),
        problem: HostProblem {
            cause: Cause::Authentication,
            message: "authentication refused for deploy@10.0.3.8:22".into(),
            details: vec![
                ("server accepts", "publickey".into()),
                (
                    "tried",
                    "~/.ssh/id_ed25519 SHA256:AbC rejected\nagent key \"ci\" rejected".into(),
                ),
                (
                    "help",
                    "add the public key to deploy's authorized_keys\x1b[2J".into(),
                ),
            ],
        },
    }
}

#[test]
fn a_host_that_would_not_let_us_in_says_what_was_tried() {
    let whats = vec![
        run_start(1),
        refused(),
        host_end("database-primary", HostState::Refused, 1),
        host_end("web1", HostState::Ok, 0),
        What::RunEnd {
            signal: None,
            stopped_by: None,
            code: 4,
        },
    ];
    let expected = "\
2 fanrun 0.1.0  deploy.yml  2 hosts, 1 task, fanout 64
2 database-primary: authentication refused for deploy@10.0.3.8:22
2   server accepts   publickey
2   tried            ~/.ssh/id_ed25519 SHA256:AbC rejected
2                    agent key \"ci\" rejected
2   help             add the public key to deploy's authorized_keys\\x1b[2J
2 REFUSED  deploy.yml  1m02s   hosts: 1 ok, 1 refused   tasks: 1 not started
2   refused   authentication   database-primary   authentication refused for deploy@10.0.3.8:22
";
    assert_eq!(screen(options(false), whats), expected);
}

#[test]
fn an_interrupted_run_says_what_may_still_be_running() {
    let work = task(0, "work");
    let left = Outcome::Cancelled {
        remote: Remains::MaybeRunning,
    };
    let whats = vec![
        run_start(1),
        What::TaskStart {
            host: host("web1"),
            task: work.clone(),
        },
        ended("web1", &work, left, 2_000),
        host_end("web1", HostState::Cancelled, 0),
        host_end("database-primary", HostState::Cancelled, 1),
        What::RunEnd {
            signal: Some(2),
            stopped_by: None,
            code: 130,
        },
    ];
    let shown = screen(options(false), whats);
    for part in [
        "2 FAIL web1  work  cancelled, may still be running  2s  (deploy.yml:3)\n",
        "2 INTERRUPTED  deploy.yml  1m02s   hosts: 2 cancelled   tasks: 1 cancelled, 1 not started\n",
        "2   may still be running on web1\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn a_long_run_fits_a_screen() {
    let work = task(0, "work");
    let mut whats = vec![run_start(1)];
    for code in 1..=60 {
        let failed = Outcome::Failed(Failure::Exit(ExitStatus::Exited(code)));
        whats.push(ended("web1", &work, failed, 1));
    }
    whats.push(What::RunEnd {
        signal: None,
        stopped_by: None,
        code: 1,
    });
    let shown = screen(
        TextOptions {
            verbosity: -1,
            ..options(false)
        },
        whats,
    );
    let end = shown.split("2 FAILED").nth(1).unwrap();
    assert!(end.lines().count() < 20, "{end}");
    assert!(end.contains("+ 50 more"), "{end}");
}

#[test]
fn the_live_region_fits_its_terminal() {
    let mut renderer = TextRenderer::new(options(true));
    let mut ink = Ink::default();
    let install = task(0, "install the application with a very long name indeed");
    let mut whats = vec![
        run_start(5),
        What::PlayStart {
            play: PlayId(0),
            name: "all".into(),
            hosts: 20,
        },
    ];
    for n in 0..9 {
        whats.push(What::TaskStart {
            host: host(&format!("cache{n}")),
            task: install.clone(),
        });
    }
    whats.push(output(
        "cache0",
        &install,
        Stream::Stdout,
        b"Setting up libc6 \x1b[2J...\n",
    ));
    whats.push(ended("cache8", &install, ok(), 900));
    for what in whats {
        renderer.render(
            &Event {
                seq: 0,
                at: Duration::ZERO,
                what,
            },
            &mut ink,
        );
    }
    for columns in [20, 40, 80, 200] {
        for rows in [3, 10, 50] {
            let lines = renderer.live(Duration::from_secs(41), (columns, rows));
            assert!(lines.len() <= (rows / 3).max(1));
            assert!(
                lines.iter().all(|line| text::width(line) < columns),
                "{columns}: {lines:?}"
            );
        }
    }
    let lines = renderer.live(Duration::from_secs(41), (100, 50));
    assert_eq!(
        lines[1],
        "deploy.yml   1/5 install the application wit…   ▕░░░░░░░░░░▏ 1/20 hosts   00:41"
    );
    assert_eq!(
        lines[2],
        "waiting for  cache0 41s \"Setting up libc6 \\x1b[2J...\"  cache1 41s  cache2 41s  +5"
    );
    assert_eq!(lines[3], "ok 1");
}

#[test]
fn every_line_of_exact_output_stands_behind_its_name() {
    let work = task(0, "work");
    let bytes = b"one\n\xff\xfe\x1b[2J\nlast";
    let mut renderer = TextRenderer::new(options(false));
    let mut ink = Ink::default();
    let what = output("web1", &work, Stream::Stdout, bytes);
    renderer.render(
        &Event {
            seq: 0,
            at: Duration::ZERO,
            what,
        },
        &mut ink,
    );
    let (_, out) = ink.pieces().next().unwrap();
    let expected =
        b"web1             | one\nweb1             | \xff\xfe\x1b[2J\nweb1             | last\n";
    assert_eq!(out, expected);
}
