//! Being stopped and continued (`^Z`, `fg`): what is local stops too, limits do not count the
//! stop, the screen is whole, and the shell sees a stopped job.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::fanrun::{Fanrun, OnTerminal, PROGRAM, Running, holds, interactive_shell};
use crate::processes;
use crate::sshd::Sshd;

const SOON: Duration = Duration::from_secs(10);
/// Longer than the limits of the tasks that are stopped.
const STOP: Duration = Duration::from_secs(3);

fn anything(_: &str) -> bool {
    true
}

fn is_stopped(pid: i32) -> bool {
    let all = processes::all();
    all.iter().any(|one| one.pid == pid && one.state == 'T')
}

fn await_stopped(run: &Running) {
    let stopped = || is_stopped(run.pid()).then_some(());
    processes::await_some("a stopped fanrun", SOON, stopped);
}

/// Stops the run for a while, by a signal.
fn pause(run: &Running, signal: Signal, time: Duration) {
    run.signal(signal);
    await_stopped(run);
    std::thread::sleep(time);
    assert!(is_stopped(run.pid()), "it went on by itself:\n{run}");
    run.signal(Signal::CONT);
}

/// A playbook of one local task.
fn local(dir: &Path, command: &str, more: &str) -> Fanrun {
    let path = dir.join("local.yml");
    let text = format!("hosts: localhost\ntasks:\n  - local: {command}\n{more}");
    std::fs::write(&path, text).unwrap();
    Fanrun::new(["run", path.to_str().unwrap()])
}

#[test]
fn a_stop_counts_neither_for_a_task_nor_for_the_run() {
    let sshd = Sshd::start();
    for limit in [["--timeout", "2s"], ["--deadline", "2s"]] {
        let run = Fanrun::exec(&sshd, "echo begun; sleep 3.7; echo ended").options(limit);
        let run = run.spawn();
        run.await_stdout("begun");
        pause(&run, Signal::TSTP, STOP);
        run.expect(0, holds(["begun", "ended"]), holds(["OK"]));
    }
}

#[test]
fn a_limit_still_ends_what_goes_on_after_a_stop() {
    let sshd = Sshd::start();
    let run = Fanrun::exec(&sshd, "echo begun; sleep 300").options(["--timeout", "2s"]);
    let run = run.spawn();
    run.await_stdout("begun");
    pause(&run, Signal::TSTP, STOP);
    run.within(SOON)
        .expect(1, anything, holds(["timed out after 2s, killed"]));
}

#[test]
fn a_stop_that_cannot_be_caught_breaks_nothing() {
    let sshd = Sshd::start();
    let run = Fanrun::exec(&sshd, "echo begun; sleep 4.5; echo ended");
    let run = run.options(["--timeout", "3s"]).spawn();
    run.await_stdout("begun");
    pause(&run, Signal::STOP, Duration::from_secs(4));
    run.expect(0, holds(["begun", "ended"]), holds(["OK"]));
}

#[test]
fn local_children_stand_still_with_us_whatever_group_they_are_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let count = |name: &str| {
        format!(
            "sh -c 'while :; do echo x >>{}; sleep 0.02; done'",
            file(name)
        )
    };
    let command = format!("setsid {} & {}", count("far"), count("near"));
    let run = local(dir.path(), &command, "    timeout: 20s\n").spawn();
    let size = |name: &str| std::fs::metadata(file(name)).map_or(0, |meta| meta.len());
    let sizes = || (size("near"), size("far"));
    let grow = |from: (u64, u64)| {
        let grown = || (sizes().0 > from.0 && sizes().1 > from.1).then_some(());
        processes::await_some("both files grow", SOON, grown);
    };
    grow((0, 0));
    for _ in 0..2 {
        run.signal(Signal::TSTP);
        await_stopped(&run);
        let before = sizes();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(sizes(), before);
        run.signal(Signal::CONT);
        grow(before);
    }
    run.signal(Signal::INT);
    run.expect(Signal::INT, anything, anything);
}

#[test]
fn a_child_that_somebody_else_stopped_is_left_so() {
    let dir = tempfile::tempdir().unwrap();
    let marker = processes::marker("stopped");
    let run = local(dir.path(), &format!("'sleep 300; : {marker}'"), "").spawn();
    let child = processes::await_running(&marker, SOON)[0].pid;
    processes::signal(child, Signal::STOP);
    processes::await_some("a stopped child", SOON, || is_stopped(child).then_some(()));
    pause(&run, Signal::TSTP, Duration::from_millis(300));
    let goes_on = || (!is_stopped(run.pid())).then_some(());
    processes::await_some("a fanrun that goes on", SOON, goes_on);
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_stopped(child));
    run.signal(Signal::INT);
    run.expect(Signal::INT, anything, anything);
}

#[test]
fn a_signal_that_comes_during_a_stop_ends_the_run_after_it() {
    let sshd = Sshd::start();
    let marker = processes::marker("ended");
    let run = Fanrun::exec(&sshd, &format!("sh -c 'sleep 300; : {marker}'")).spawn();
    processes::await_running(&marker, SOON);
    run.signal(Signal::TSTP);
    await_stopped(&run);
    run.signal(Signal::TERM);
    run.signal(Signal::CONT);
    run.within(SOON).expect(Signal::TERM, anything, anything);
    processes::await_gone(&marker, Duration::from_secs(2));
}

#[test]
fn a_run_that_ignores_ctrl_z_goes_on_ignoring_it() {
    let text = format!("trap '' TSTP; exec {PROGRAM} exec --sandbox 1 -- 'echo begun; sleep 1'");
    let mut shell = std::process::Command::new("sh")
        .args(["-c", &text])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(shell.id()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    processes::signal(pid, Signal::TSTP);
    let ended = processes::poll(SOON, || shell.try_wait().unwrap());
    processes::signal(pid, Signal::KILL);
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

/// What is on the screen after all that was written to it: enough of a terminal for what the live
/// region uses (carriage return, newline, lines up, clear to the end).
fn on_screen(written: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut row, mut rest) = (0, written);
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(String::new());
                }
            }
            '\r' => {}
            '\x1b' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                let (number, last) = (&rest[1..end], &rest[end..=end]);
                match last {
                    "A" => row -= number.parse::<usize>().unwrap(),
                    "J" => {
                        lines.truncate(row);
                        lines.push(String::new());
                    }
                    _ => {}
                }
                rest = &rest[end + 1..];
            }
            other => lines[row].push(other),
        }
    }
    lines
}

fn await_on_screen(run: &OnTerminal, what: &str, fits: impl Fn(&[String]) -> bool) {
    let found = processes::poll(SOON, || fits(&on_screen(&run.screen())).then_some(()));
    assert!(
        found.is_some(),
        "no {what} on the screen:\n{}",
        run.running()
    );
}

fn regions(lines: &[String]) -> usize {
    let region = |line: &&String| line.starts_with("waiting for");
    lines.iter().filter(region).count()
}

#[test]
fn the_live_region_is_gone_while_we_are_stopped_and_back_afterwards() {
    let sshd = Sshd::start();
    let command = "echo begun; sleep 5; echo ended";
    let mut run = Fanrun::exec(&sshd, command).spawn_on_terminal(90, 30);
    for _ in 0..2 {
        await_on_screen(&run, "region", |lines| regions(lines) == 1);
        run.type_keys("\x1a");
        await_stopped(run.running());
        await_on_screen(&run, "erased region", |lines| regions(lines) == 0);
        let before = run.screen();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(run.screen(), before, "something was drawn during the stop");
        run.running().signal(Signal::CONT);
    }
    await_on_screen(&run, "region", |lines| regions(lines) == 1);
    run.expect(0, |screen: &str| {
        let lines = on_screen(screen);
        let once = |word: &str| lines.iter().filter(|line| line.contains(word)).count() == 1;
        regions(&lines) == 0 && once("│ begun") && once("│ ended") && once("OK")
    });
}

#[test]
fn what_others_wrote_during_a_stop_stays_on_the_screen() {
    for (signal, time) in [(Signal::TSTP, 300), (Signal::STOP, 1500)] {
        let sshd = Sshd::start();
        let mut run = Fanrun::exec(&sshd, "echo begun; sleep 3").spawn_on_terminal(90, 30);
        await_on_screen(&run, "region", |lines| regions(lines) == 1);
        run.running().signal(signal);
        await_stopped(run.running());
        // The terminal echoes them, as if a shell had.
        run.type_keys("one\ntwo\nthree\nfour\n");
        run.await_screen("four");
        std::thread::sleep(Duration::from_millis(time));
        run.running().signal(Signal::CONT);
        run.expect(0, |screen: &str| {
            let lines = on_screen(screen);
            let stays = |word: &&str| lines.iter().any(|line| line == word);
            ["one", "two", "three", "four"].iter().all(stays)
        });
    }
}

#[test]
fn a_stop_in_the_middle_of_a_question_leaves_a_terminal_that_echoes() {
    let sshd = Sshd::start();
    let locked = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "open sesame", "-f"])
        .arg(sshd.identity())
        .output()
        .unwrap();
    assert!(locked.status.success(), "{locked:?}");
    let mut run = Fanrun::exec(&sshd, "echo reached").spawn_on_terminal(90, 30);
    let silent = |run: &OnTerminal| (!run.echoes()).then_some(());
    processes::await_some("a question", SOON, || silent(&run));
    // Not `^Z`: while it asks, the terminal makes no signals of keys.
    run.running().signal(Signal::TSTP);
    await_stopped(run.running());
    assert!(run.echoes());
    run.running().signal(Signal::CONT);
    processes::await_some("the question again", SOON, || silent(&run));
    run.type_keys("open sesame\n");
    run.expect(0, |screen: &str| {
        screen.contains("reached") && !screen.contains("sesame")
    });
}

#[test]
fn a_shell_sees_a_stopped_job_and_can_continue_it_in_front_and_behind() {
    let sshd = Sshd::start();
    let exec = format!("{PROGRAM} exec {}", sshd.fanrun_args().join(" "));
    let mut shell = interactive_shell().spawn_on_terminal(200, 50);
    shell.await_screen("ready>");
    let host = sshd.address();
    shell.type_keys(&format!(
        "{exec} {host} -- 'echo be\"\"gun; sleep 6; echo en\"\"ded'\n"
    ));
    shell.await_screen("begun");
    shell.await_screen("waiting for");
    shell.type_keys("\x1a");
    shell.await_screen("Stopped");
    shell.type_keys("bg; echo be'hin'd\n");
    shell.await_screen("behind");
    let drawn = shell.screen().matches("waiting for").count();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(shell.screen().matches("waiting for").count(), drawn);
    shell.type_keys("fg\n");
    let again = || (shell.screen().matches("waiting for").count() > drawn).then_some(());
    processes::await_some("a region in front", SOON, again);
    shell.await_screen("ended");
    shell.type_keys("echo code $?; exit\n");
    shell.expect(0, holds(["code 0", "OK"]));
}

#[test]
fn a_run_that_ends_in_the_background_is_not_stopped_by_its_terminal() {
    let mut shell = interactive_shell().spawn_on_terminal(200, 50);
    shell.await_screen("ready>");
    let run = format!("{PROGRAM} exec --sandbox 1 -- 'sleep 1; echo en\"\"ded; exit 3'");
    shell.type_keys(&format!("{run} & wait $!; echo code $?\n"));
    shell.await_screen("ended");
    shell.await_screen("code 1");
    shell.type_keys("exit\n");
    shell.expect(0, anything);
}
