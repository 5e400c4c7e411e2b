//! Every promise of the local session, with real children.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use bytes::Bytes;

use super::*;
use crate::job::Command;

/// Long enough for any step on a busy machine; passed only when something hangs.
const HANG: Duration = Duration::from_secs(60);

fn sh(text: &str) -> Spawn {
    Spawn {
        command: Command::Shell(text.to_owned()),
        env: Vec::new(),
        cwd: None,
        shell: None,
        stdin: Stdin::Closed,
        hidden: false,
        becomes: None,
    }
}

fn argv(words: &[&str]) -> Spawn {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    Spawn {
        command: Command::Argv(words),
        ..sh("")
    }
}

async fn start(spawn: Spawn) -> LocalProcess {
    LocalSession::new().start(spawn).await.unwrap()
}

#[derive(Debug)]
struct Told {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: ExitStatus,
    lingering: Option<String>,
}

async fn tell(process: &mut LocalProcess) -> Told {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let event = tokio::time::timeout(HANG, process.next()).await.unwrap();
        match event {
            ProcessEvent::Output { stream, bytes } => {
                assert!(!bytes.is_empty());
                match stream {
                    Stream::Stdout => stdout.extend_from_slice(&bytes),
                    Stream::Stderr => stderr.extend_from_slice(&bytes),
                }
            }
            ProcessEvent::Ended(Ending::Exited { status, lingering }) => {
                return Told {
                    stdout,
                    stderr,
                    status,
                    lingering,
                };
            }
            ProcessEvent::Ended(other) => panic!("{other:?}"),
        }
    }
}

async fn run(spawn: Spawn) -> Told {
    tell(&mut start(spawn).await).await
}

/// Waits until the child has written `line`.
async fn wait_for(process: &mut LocalProcess, line: &str) {
    match tokio::time::timeout(HANG, process.next()).await.unwrap() {
        ProcessEvent::Output { bytes, .. } => assert_eq!(bytes, line),
        ProcessEvent::Ended(ending) => panic!("{ending:?}"),
    }
}

async fn refused(spawn: Spawn) -> String {
    // A file just written may still be open in a child that another test is starting.
    let (command, cwd, shell) = (spawn.command, spawn.cwd, spawn.shell);
    for _ in 0..1000 {
        let again = Spawn {
            command: command.clone(),
            cwd: cwd.clone(),
            shell: shell.clone(),
            ..sh("")
        };
        match LocalSession::new().start(again).await {
            Err(SpawnError::NotStarted { reason }) if reason.contains("being written") => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(SpawnError::NotStarted { reason }) => return reason,
            other => panic!("{other:?}"),
        }
    }
    panic!("the file stays busy")
}

fn signaled(name: &str) -> ExitStatus {
    ExitStatus::Signaled {
        name: name.to_owned(),
        core_dumped: false,
    }
}

/// Looks at a condition until it holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn number(process: &LocalProcess) -> i32 {
    process.leader.pid.as_raw_nonzero().get()
}

fn family_size(process: &LocalProcess) -> usize {
    let table = Table::read().unwrap();
    table
        .family(process.leader, process.exit.is_some(), &[])
        .len()
}

#[tokio::test]
async fn streams_are_apart_and_a_last_line_needs_no_end() {
    let told = run(sh(
        "echo out; echo err >&2; printf tail; printf ouch >&2; exit 7",
    ))
    .await;
    assert_eq!(told.stdout, b"out\ntail");
    assert_eq!(told.stderr, b"err\nouch");
    assert_eq!(told.status, ExitStatus::Exited(7));
    assert_eq!(told.lingering, None);
}

#[tokio::test]
async fn codes_and_signals_are_told() {
    for code in [0, 1, 126, 127, 128, 255] {
        let told = run(sh(&format!("exit {code}"))).await;
        assert_eq!(told.status, ExitStatus::Exited(code));
    }
    for name in ["TERM", "KILL", "SEGV", "USR1"] {
        let told = run(sh(&format!("ulimit -c 0; kill -{name} $$"))).await;
        assert_eq!(told.status, signaled(name));
    }
}

#[test]
fn a_core_file_and_an_unnamed_signal_are_told() {
    let core = std::process::ExitStatus::from_raw(0x80 | 11);
    assert_eq!(
        meaning(core),
        ExitStatus::Signaled {
            name: "SEGV".to_owned(),
            core_dumped: true
        }
    );
    assert_eq!(
        meaning(std::process::ExitStatus::from_raw(40)),
        signaled("40")
    );
}

#[tokio::test]
async fn the_end_is_given_again() {
    let mut process = start(sh("exit 3")).await;
    let first = tell(&mut process).await;
    let second = tell(&mut process).await;
    assert_eq!((first.status, second.stdout.len()), (second.status, 0));
}

#[tokio::test]
async fn no_output_is_lost_around_the_exit() {
    for _ in 0..40 {
        assert_eq!(run(sh("printf x")).await.stdout, b"x");
    }
    let told = run(sh(
        "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2",
    ))
    .await;
    assert_eq!(
        (told.stdout.len(), told.stderr.len()),
        (3_000_000, 2_000_000)
    );
}

#[tokio::test]
async fn next_may_be_cancelled_at_any_time() {
    let mut process = start(sh(
        "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; exit 4",
    ))
    .await;
    let mut got = Vec::new();
    let status = loop {
        tokio::select! {
            event = process.next() => match event {
                ProcessEvent::Output { bytes, .. } => got.extend_from_slice(&bytes),
                ProcessEvent::Ended(ending) => break ending,
            },
            () = tokio::task::yield_now() => {}
        }
    };
    let expected: String = (0..300).map(|i| format!("line {i}\n")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    let exited = Ending::Exited {
        status: ExitStatus::Exited(4),
        lingering: None,
    };
    assert_eq!(status, exited);
}

#[tokio::test]
async fn input_is_written_and_ends() {
    assert_eq!(run(sh("cat; echo end")).await.stdout, b"end\n");
    let given = Bytes::from(vec![b'i'; 5_000_000]);
    let told = run(Spawn {
        stdin: Stdin::Bytes(given.clone()),
        ..argv(&["cat"])
    })
    .await;
    assert!(told.stdout == given);
    let (blocks, from) = tokio::sync::mpsc::channel(1);
    let mut process = start(Spawn {
        stdin: Stdin::Stream(from),
        ..argv(&["cat"])
    })
    .await;
    blocks.send(Bytes::from_static(b"one\n")).await.unwrap();
    wait_for(&mut process, "one\n").await;
    blocks.send(Bytes::from_static(b"two\n")).await.unwrap();
    drop(blocks);
    assert_eq!(tell(&mut process).await.stdout, b"two\n");
}

#[tokio::test]
async fn a_child_that_stops_reading_does_not_hang() {
    let told = run(Spawn {
        stdin: Stdin::Bytes(Bytes::from(vec![b'x'; 50 << 20])),
        ..argv(&["head", "-c1"])
    })
    .await;
    assert_eq!(
        (&told.stdout[..], told.status),
        (&b"x"[..], ExitStatus::Exited(0))
    );
}

#[tokio::test]
async fn words_environment_directory_and_shell_arrive() {
    let told = run(argv(&["printf", "%s|", "$HOME", "a b", "*", ""])).await;
    assert_eq!(told.stdout, b"$HOME|a b|*||");
    let dir = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(dir.path()).unwrap();
    let told = run(Spawn {
        env: vec![("FANRUN_TEST_WORD".to_owned(), "a 'b' $c".to_owned())],
        cwd: Some(place.to_str().unwrap().to_owned()),
        ..sh("pwd; echo \"$FANRUN_TEST_WORD\"; echo ${PATH:+ours}")
    })
    .await;
    let expected = format!("{}\na 'b' $c\nours\n", place.display());
    assert_eq!(String::from_utf8(told.stdout).unwrap(), expected);
    let told = run(Spawn {
        shell: Some(vec!["printf".to_owned(), "<%s>".to_owned()]),
        ..sh("some text")
    })
    .await;
    assert_eq!(told.stdout, b"<some text>");
}

#[tokio::test]
async fn each_way_not_to_start_has_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, mode: u32, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", 0o644, "#!/bin/sh\n");
    let odd = file("odd", 0o755, "\u{1}\u{2}\u{3}");
    let script = file("script", 0o755, "#!/no/such/sh -e\n");
    let here = dir.path().to_str().unwrap().to_owned();
    let at = |cwd: &str| Spawn {
        cwd: Some(cwd.to_owned()),
        ..argv(&["true"])
    };
    let long = "x".repeat(3 << 20);
    for (spawn, expected) in [
        (
            argv(&["no-such-program-1"]),
            "program no-such-program-1 was not found in PATH".to_owned(),
        ),
        (
            argv(&["/no/such"]),
            "program /no/such does not exist".to_owned(),
        ),
        (
            argv(&[&plain]),
            format!("program {plain} is not executable"),
        ),
        (argv(&[&here]), format!("program {here} is a directory")),
        (
            argv(&[&format!("{plain}/x")]),
            format!("the path of program {plain}/x leads through a file"),
        ),
        (
            argv(&[&odd]),
            format!("program {odd} has no #! line and is no executable of this machine"),
        ),
        (
            argv(&[&script]),
            format!("the interpreter of program {script} does not exist: /no/such/sh -e"),
        ),
        (
            argv(&["true", &long]),
            "the arguments and environment of program true are longer than the system allows"
                .to_owned(),
        ),
        (
            argv(&["true", "a\0b"]),
            "the arguments, environment or directory of program true hold a NUL byte".to_owned(),
        ),
        (
            at("/no/such/dir"),
            "working directory /no/such/dir does not exist".to_owned(),
        ),
        (
            at(&plain),
            format!("working directory {plain} is not a directory"),
        ),
        (argv(&[]), "the command is empty".to_owned()),
        (
            Spawn {
                shell: Some(Vec::new()),
                ..sh("true")
            },
            "the command is empty".to_owned(),
        ),
    ] {
        assert_eq!(refused(spawn).await, expected);
    }
}

#[tokio::test]
async fn only_three_descriptors_are_passed_on() {
    // Without O_CLOEXEC, as something that we inherited would be.
    let flags = rustix::fs::OFlags::RDONLY;
    let inherited = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).unwrap();
    let open_in = |process: &LocalProcess| {
        let entries = fs::read_dir(format!("/proc/{}/fd", number(process))).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    // Close-on-exec is done a moment after the start is reported, so the program has to have spoken.
    let started = async || {
        let mut process = start(sh("echo up; sleep 60; true")).await;
        wait_for(&mut process, "up\n").await;
        process
    };
    let number = inherited.as_raw_fd().to_string();
    assert!(open_in(&started().await).contains(&number));
    seal_inherited_descriptors();
    assert_eq!(open_in(&started().await), ["0", "1", "2"]);
    drop(inherited);
}

#[tokio::test]
async fn a_child_starts_with_no_signal_blocked_and_leads_its_group() {
    let process = start(argv(&["sleep", "60"])).await;
    let pid = number(&process);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(mask("SigBlk:"), 0);
    // Rust ignores PIPE in this process; the child must not.
    assert_eq!(mask("SigIgn:") & (1 << (13 - 1)), 0);
    let group = rustix::process::getpgid(Some(process.leader.pid)).unwrap();
    assert_eq!(group, process.leader.pid);
}

#[test]
fn a_signal_mask_that_was_inherited_is_undone() {
    use nix::sys::signal::{SigSet, Signal};
    // A thread of its own, because the mask is the thread's.
    let check = std::thread::spawn(|| {
        SigSet::from(Signal::SIGTERM).thread_set_mask().unwrap();
        unblock_inherited_signals().unwrap();
        SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM)
    });
    assert!(!check.join().unwrap());
}

#[tokio::test]
async fn what_is_left_behind_is_waited_for_and_then_named() {
    let mut session = LocalSession::new();
    let mut process = session.start(sh("sleep 60 & echo $!")).await.unwrap();
    process.drain.grace = Duration::from_millis(300);
    let told = tell(&mut process).await;
    let pid = String::from_utf8(told.stdout).unwrap();
    let expected = format!("sleep (pid {}) kept the output open", pid.trim());
    assert_eq!(told.lingering, Some(expected));
    assert_eq!(told.status, ExitStatus::Exited(0));
    assert_eq!(
        session.sweep(&process, Signal::Kill).await,
        Sweep::Signalled(1)
    );
    eventually("the sleep is gone", || family_size(&process) == 0).await;
    assert_eq!(
        session.sweep(&process, Signal::Kill).await,
        Sweep::Signalled(0)
    );
}

#[tokio::test]
async fn output_that_comes_within_the_grace_is_taken() {
    let told = run(sh("(sleep 0.3; echo late) & echo early")).await;
    assert_eq!(told.stdout, b"early\nlate\n");
    assert_eq!(told.lingering, None);
}

#[tokio::test]
async fn a_talkative_daemon_is_not_listened_to_for_ever() {
    let mut process = start(sh("(while :; do echo x; done) & exit 5")).await;
    process.drain.limit = Duration::from_millis(200);
    let told = tell(&mut process).await;
    assert_eq!(told.status, ExitStatus::Exited(5));
    assert!(told.lingering.is_some());
    process.signal(Signal::Kill).await;
    eventually("the loop is gone", || family_size(&process) == 0).await;
}

#[tokio::test]
async fn a_slow_reader_still_gets_what_was_in_the_pipes() {
    let mut process = start(sh(
        "sleep 60 & head -c 60000 /dev/zero; head -c 50000 /dev/zero >&2",
    ))
    .await;
    (process.drain.grace, process.drain.limit) = (Duration::ZERO, Duration::ZERO);
    let zombie = format!("/proc/{}/stat", number(&process));
    eventually("the child has ended", || {
        fs::read_to_string(&zombie).is_ok_and(|stat| stat.contains(") Z "))
    })
    .await;
    let told = tell(&mut process).await;
    assert_eq!((told.stdout.len(), told.stderr.len()), (60_000, 50_000));
    assert!(told.lingering.is_some());
    process.signal(Signal::Kill).await;
}

#[tokio::test]
async fn a_dropped_process_is_killed_with_its_group_and_reaped() {
    let mut process = start(sh("sleep 60 & sleep 60 & echo up; wait")).await;
    wait_for(&mut process, "up\n").await;
    let leader = process.leader;
    assert_eq!(family_size(&process), 3);
    drop(process);
    eventually("the group is gone", || {
        Table::read().unwrap().family(leader, false, &[]).is_empty()
    })
    .await;
    eventually("the child is reaped", || !leader.pid_is_taken()).await;
}

#[tokio::test]
async fn a_closed_process_is_killed_and_reaped() {
    let mut process = start(sh("trap '' TERM; echo up; sleep 60; sleep 60")).await;
    wait_for(&mut process, "up\n").await;
    process.close().await;
    assert!(!process.leader.pid_is_taken());
    assert_eq!(tell(&mut process).await.status, signaled("KILL"));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group_and_wakes_the_stopped() {
    let mut process = start(sh("sleep 60 & echo up; wait")).await;
    wait_for(&mut process, "up\n").await;
    process.signal(Signal::Term).await;
    let told = tell(&mut process).await;
    assert_eq!((told.status, told.lingering), (signaled("TERM"), None));
    let mut process = start(sh("echo up; kill -STOP $$")).await;
    wait_for(&mut process, "up\n").await;
    let stat = format!("/proc/{}/stat", number(&process));
    eventually("the child has stopped", || {
        fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
    })
    .await;
    process.signal(Signal::Term).await;
    assert_eq!(tell(&mut process).await.status, signaled("TERM"));
}

#[tokio::test]
async fn a_sweep_finds_who_left_the_group_and_remembers_it() {
    let mut session = LocalSession::new();
    let stubborn = "setsid sh -c 'trap \"\" TERM; echo up; while :; do sleep 0.1; done' & wait";
    let mut process = session.start(sh(stubborn)).await.unwrap();
    process.drain.grace = Duration::from_millis(100);
    wait_for(&mut process, "up\n").await;
    let Sweep::Signalled(first) = session.sweep(&process, Signal::Term).await else {
        panic!("there is /proc here");
    };
    assert!(first >= 2, "{first}");
    let told = tell(&mut process).await;
    assert_eq!(told.status, signaled("TERM"));
    assert!(told.lingering.is_some());
    // The parent is gone, so that only the first sweep's memory leads there.
    assert_eq!(family_size(&process), 0);
    let Sweep::Signalled(second) = session.sweep(&process, Signal::Kill).await else {
        panic!("there is /proc here");
    };
    assert!(second >= 1, "{second}");
    for _ in 0..3000 {
        if session.sweep(&process, Signal::Kill).await == Sweep::Signalled(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("something is left");
}

#[tokio::test]
async fn a_sweep_with_term_leaves_the_clean_up_alone() {
    let mut session = LocalSession::new();
    let tidy = "trap 'sleep 0.2 && echo cleaned; exit 9' TERM; echo up; while :; do sleep 1; done";
    let mut process = session.start(sh(tidy)).await.unwrap();
    wait_for(&mut process, "up\n").await;
    assert!(matches!(
        session.sweep(&process, Signal::Term).await,
        Sweep::Signalled(1..)
    ));
    let told = tell(&mut process).await;
    assert_eq!(
        (&told.stdout[..], told.status),
        (&b"cleaned\n"[..], ExitStatus::Exited(9))
    );
}

#[tokio::test]
async fn a_sweep_with_kill_ends_what_keeps_forking() {
    let mut session = LocalSession::new();
    let forks = "f() { sleep 0.01; f & }; echo up; f & f & f & wait; sleep 60";
    let mut process = session.start(sh(forks)).await.unwrap();
    wait_for(&mut process, "up\n").await;
    for _ in 0..1000 {
        if session.sweep(&process, Signal::Kill).await == Sweep::Signalled(0) {
            assert_eq!(tell(&mut process).await.status, signaled("KILL"));
            assert_eq!(family_size(&process), 0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("something is left");
}

#[tokio::test]
async fn a_sweep_after_a_good_end_finds_nothing() {
    let mut session = LocalSession::new();
    let mut process = session.start(sh("true")).await.unwrap();
    tell(&mut process).await;
    assert_eq!(
        session.sweep(&process, Signal::Term).await,
        Sweep::Signalled(0)
    );
    assert!(!process.leader.pid_is_taken());
}

#[tokio::test]
async fn many_children_run_at_once_and_none_is_left() {
    let mut children = Vec::new();
    for code in 0..60 {
        children.push((code, start(sh(&format!("echo {code}; exit {code}"))).await));
    }
    for (code, process) in &mut children {
        let told = tell(process).await;
        assert_eq!(told.stdout, format!("{code}\n").into_bytes());
        assert_eq!(told.status, ExitStatus::Exited(*code));
        assert!(!process.leader.pid_is_taken());
    }
}
