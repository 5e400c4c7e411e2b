//! How commands, connections and runs end, over real servers: the exit codes, the signals, the
//! losses, and that nothing is left behind.
//!
//! Every sentence is checked on OpenSSH as whoever runs the tests, on OpenSSH as an ordinary user
//! and, where the server makes a difference, on dropbear.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::dropbear::Dropbear;
use crate::evil::{Behaviour, Evil, closed_port};
use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::proxy::Proxy;
use crate::sshd::{Sshd, make_key, write_private};

const SOON: Duration = Duration::from_secs(10);

/// Ends what a test left running on purpose.
struct Leftover(String);

impl Drop for Leftover {
    fn drop(&mut self) {
        for process in processes::with_command(&self.0) {
            processes::signal(process.pid, Signal::KILL);
        }
    }
}

/// OpenSSH as root and as an ordinary user: a name, and a maker of runs.
fn on_openssh(check: impl Fn(&str, &dyn Fn(&str) -> Fanrun)) {
    let own = Sshd::start();
    check("sshd", &|command| Fanrun::exec(&own, command));
    let ordinary = Sshd::builder().ordinary_user().start();
    check("sshd, ordinary user", &|command| {
        Fanrun::exec(&ordinary, command)
    });
}

/// The servers of the matrix.
fn on_every_server(check: impl Fn(&str, &dyn Fn(&str) -> Fanrun)) {
    on_openssh(&check);
    let dropbear = Dropbear::start();
    check("dropbear", &|command| {
        Fanrun::exec_on_dropbear(&dropbear, command)
    });
}

fn remote_code(run: Fanrun) -> Fanrun {
    run.options(["--exit-code", "remote"])
}

/// A command that shows up under `marker` for as long as it runs.
fn marked_sleep(marker: &str) -> String {
    format!("sh -c 'sleep 300; : {marker}'")
}

fn known_hosts_for(sshd: &Sshd, port: u16, key: &str) -> String {
    let path = sshd.directory().join(format!("known_hosts_{port}"));
    std::fs::write(&path, format!("[127.0.0.1]:{port} {key}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `exec 127.0.0.1` through another port, with the key that belongs to it.
fn exec_through(sshd: &Sshd, port: u16, command: &str) -> Fanrun {
    let known_hosts = known_hosts_for(sshd, port, &sshd.host_key("ed25519"));
    Fanrun::new(["exec", "127.0.0.1", "--", command]).options([
        "--port",
        &port.to_string(),
        "--user",
        sshd.user(),
        "--identity",
        sshd.identity().to_str().unwrap(),
        "--known-hosts",
        &known_hosts,
    ])
}

/// An inventory of `count` names `h1`, `h2` ... that all are this one server.
fn many_names(sshd: &Sshd, count: u32) -> Vec<String> {
    let path = sshd.directory().join("inventory.yml");
    let entry = |n: u32| {
        let (port, user) = (sshd.port(), sshd.user());
        format!("  h{n}: {{address: 127.0.0.1, port: {port}, user: {user}}}\n")
    };
    let text = format!("hosts:\n{}", (1..=count).map(entry).collect::<String>());
    std::fs::write(&path, text).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    vec![
        "-i".into(),
        text(&path),
        "--identity".into(),
        text(&sshd.identity()),
        "--known-hosts".into(),
        text(&sshd.known_hosts()),
    ]
}

#[test]
fn a_code_is_told_and_only_zero_is_ok() {
    on_every_server(|_, exec| {
        exec("echo fine").expect(0, holds(["127.0.0.1", "fine"]), |_: &str| true);
        exec("exit 1").expect(1, |_: &str| true, holds(["127.0.0.1", "1"]));
        exec("exit 126").expect(1, |_: &str| true, holds(["126"]));
        exec("no-such-command-here").expect(1, |_: &str| true, holds(["127"]));
        exec("exit 255").expect(1, |_: &str| true, holds(["255"]));
    });
}

#[test]
fn with_exit_code_remote_the_code_is_passed_through() {
    on_every_server(|_, exec| {
        for code in [0, 1, 2, 126, 127, 254, 255] {
            let run = remote_code(exec(&format!("exit {code}")));
            run.expect(code, "", |_: &str| true);
        }
        for (signal, code) in [("TERM", 143), ("KILL", 137), ("HUP", 129)] {
            let run = remote_code(exec(&format!("kill -{signal} $$")));
            run.expect(code, "", |_: &str| true);
        }
    });
}

#[test]
fn what_outlives_its_leader_is_ended_too() {
    on_every_server(|server, exec| {
        // The shell dies of TERM at once; what it started does not.
        let marker = processes::marker("orphan");
        let text = format!("sh -c 'trap \"\" TERM; sleep 300; : {marker}'; true");
        let seen = server.to_owned();
        exec(&text)
            .options(["--timeout", "1s"])
            .within(Duration::from_secs(20))
            .expect(1, "", move |text: &str| {
                assert!(
                    text.contains("timed out after 1s, killed"),
                    "{seen}: {text}"
                );
                true
            });
        processes::await_gone(&marker, Duration::from_secs(2));
    });
}

/// Ways for a command to get away from its parent, its session, or its signals.
const ESCAPES: [&str; 6] = [
    "(setsid SLEEP &) ; sleep 300",
    "nohup SLEEP >/dev/null 2>&1 & sleep 300",
    "sh -c 'SLEEP & exit' ; sleep 300",
    "setsid sh -c 'trap \"\" TERM HUP INT; SLEEP'",
    "trap '' TERM; SLEEP; true",
    "sudo -n -u fanrun-test sh -c 'trap \"\" TERM; SLEEP'",
];

#[test]
fn nothing_gets_away_from_a_timeout() {
    crate::sshd::ordinary_user();
    on_every_server(|server, exec| {
        for escape in ESCAPES {
            if escape.starts_with("sudo") && server != "sshd" {
                continue;
            }
            let marker = processes::marker("away");
            let text = escape.replace("SLEEP", &format!("env {marker}=1 tail -f /dev/null"));
            let seen = format!("{server}: {escape}");
            exec(&text)
                .options(["--timeout", "1s"])
                .within(Duration::from_secs(20))
                .expect(1, "", move |text: &str| {
                    assert!(
                        text.contains("timed out after 1s, killed"),
                        "{seen}: {text}"
                    );
                    true
                });
            let left = processes::with_environment(&marker);
            assert!(left.is_empty(), "{server}: {escape}: {left:?}");
        }
    });
}

/// Where all tools are BusyBox's, and where a process is named like the columns of /proc.
#[test]
fn nothing_gets_away_where_tools_and_names_are_odd() {
    let tools = tempfile::tempdir().unwrap();
    let dir = tools.path().display().to_string();
    let installed = std::process::Command::new("busybox")
        .args(["--install", "-s", &dir])
        .status();
    assert!(installed.unwrap().success());
    let odd = tools.path().join("a) S 1 2 3\n4");
    std::fs::copy("/usr/bin/tail", &odd).unwrap();
    let odd = format!("'{}'", odd.display());
    let sshd = Sshd::builder()
        .config(&format!("SetEnv HOME={dir} PATH={dir}"))
        .start();
    for escape in [
        "(setsid env MARKER=1 tail -f /dev/null &) ; sleep 300",
        "env MARKER=1 ODD -f /dev/null & sleep 300",
        "(setsid env MARKER=1 ODD -f /dev/null &) ; sleep 300",
    ] {
        let marker = processes::marker("odd");
        let text = escape.replace("MARKER", &marker).replace("ODD", &odd);
        Fanrun::exec(&sshd, &text)
            .options(["--timeout", "1s"])
            .within(Duration::from_secs(20))
            .expect(1, "", holds(["timed out after 1s, killed"]));
        let left = processes::with_environment(&marker);
        assert!(left.is_empty(), "{escape}: {left:?}");
    }
}

#[test]
fn a_daemon_that_an_earlier_task_left_is_not_ended() {
    let sshd = Sshd::start();
    let marker = processes::marker("daemon");
    let _leftover = Leftover(marker.clone());
    let text = format!(
        "hosts: all\ntasks:\n\
         - run: \"setsid sh -c 'sleep 300; : {marker}' >/dev/null 2>&1 </dev/null &\"\n\
         - {{run: sleep 300, timeout: 1s}}\n"
    );
    let path = sshd.directory().join("daemon.yml");
    std::fs::write(&path, text).unwrap();
    Fanrun::new([
        "run",
        path.to_str().unwrap(),
        "-i",
        &format!("{},", sshd.address()),
    ])
    .options(sshd.fanrun_args())
    .expect(1, |_: &str| true, holds(["timed out after 1s, killed"]));
    assert!(!processes::with_command(&marker).is_empty());
}

#[test]
fn many_tasks_need_one_channel_only() {
    let sshd = Sshd::builder().config("MaxSessions 1").start();
    let tasks: String = (0..12).map(|n| format!("- echo task {n}\n")).collect();
    let path = sshd.directory().join("many.yml");
    std::fs::write(&path, format!("hosts: all\ntasks:\n{tasks}")).unwrap();
    Fanrun::new([
        "run",
        path.to_str().unwrap(),
        "-i",
        &format!("{},", sshd.address()),
    ])
    .options(sshd.fanrun_args())
    .expect(0, holds(["task 0", "task 11"]), holds(["12 ok"]));
}

#[test]
fn one_channel_is_enough_to_end_what_runs() {
    for server in [Sshd::builder(), Sshd::builder().ordinary_user()] {
        let sshd = server.config("MaxSessions 1").start();
        let marker = processes::marker("narrow");
        Fanrun::exec(&sshd, &marked_sleep(&marker))
            .options(["--timeout", "1s"])
            .expect(1, "", holds(["timed out after 1s, killed"]));
        processes::await_gone(&marker, Duration::from_secs(2));
    }
}

#[test]
fn a_signal_is_named_and_never_ok() {
    on_every_server(|_, exec| {
        exec("kill -TERM $$").expect(1, |_: &str| true, holds(["TERM"]));
        exec("kill -KILL $$").expect(1, |_: &str| true, holds(["KILL"]));
    });
}

#[test]
fn a_core_dump_is_told_where_the_system_wrote_one() {
    let script = "cd \"$(mktemp -d)\" && ulimit -c unlimited; kill -SEGV $$";
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    let sshd = Sshd::start();
    let dumped = status.core_dumped();
    Fanrun::exec(&sshd, script).expect(
        1,
        |_: &str| true,
        move |text: &str| text.contains("SEGV") && text.contains("core") == dumped,
    );
}

// Dropbear's server process belongs to root, so that an ordinary user's command cannot kill it.
#[test]
fn a_killed_server_process_is_a_loss_and_never_ok() {
    on_openssh(|_, exec| {
        exec("kill -9 $PPID; sleep 5").expect(1, |_: &str| true, holds(["lost"]));
        let run = remote_code(exec("kill -9 $PPID; sleep 5"));
        run.expect(255, "", |_: &str| true);
    });
}

#[test]
fn output_after_the_end_of_stdout_still_counts() {
    on_every_server(|_, exec| {
        let late = "echo out; exec >&-; sleep 1; echo late >&2; exit 5";
        remote_code(exec(late)).expect(5, holds(["out"]), holds(["late"]));
        let mute = "exec >/dev/null 2>&1; sleep 1; exit 5";
        remote_code(exec(mute)).expect(5, "", |_: &str| true);
    });
}

// Dropbear closes the channel with the command, whatever holds the output open.
#[test]
fn a_child_that_keeps_the_output_open_does_not_hold_the_run() {
    on_openssh(|_, exec| {
        let marker = processes::marker("background");
        let _leftover = Leftover(marker.clone());
        let sleep = marked_sleep(&marker);
        for (start, code) in [("nohup ", 0), ("", 3), ("setsid ", 4)] {
            let command = format!("{start}{sleep} & echo begun; exit {code}");
            remote_code(exec(&command)).within(SOON).expect(
                code,
                holds(["begun"]),
                holds(["output open"]),
            );
        }
    });
}

#[test]
fn a_timeout_leaves_no_process() {
    on_every_server(|_, exec| {
        for prefix in ["", "trap '' TERM; "] {
            let marker = processes::marker("timeout");
            let _leftover = Leftover(marker.clone());
            let command = format!("{prefix}{}", marked_sleep(&marker));
            exec(&command)
                .options(["--timeout", "1s"])
                .within(Duration::from_secs(20))
                .expect(1, |_: &str| true, holds(["timed out"]));
            processes::await_gone(&marker, Duration::from_secs(2));
        }
    });
}

#[test]
fn ctrl_c_ends_the_remote_process_and_then_us() {
    on_every_server(|_, exec| {
        let marker = processes::marker("interrupt");
        let _leftover = Leftover(marker.clone());
        let mut run = exec(&marked_sleep(&marker)).spawn_on_terminal(100, 30);
        processes::await_running(&marker, SOON);
        run.type_keys("\x03");
        processes::await_gone(&marker, Duration::from_secs(2));
        run.expect(Signal::INT, |_: &str| true);
    });
}

#[test]
fn signals_from_outside_end_the_run_as_they_would_any_program() {
    let sshd = Sshd::start();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let marker = processes::marker("signal");
        let _leftover = Leftover(marker.clone());
        let run = Fanrun::exec(&sshd, &marked_sleep(&marker)).spawn();
        processes::await_running(&marker, SOON);
        run.signal(signal);
        processes::await_gone(&marker, Duration::from_secs(2));
        run.within(SOON)
            .expect(signal, |_: &str| true, |_: &str| true);
    }
}

#[test]
fn ctrl_c_acts_within_two_seconds_while_stdout_is_blocked() {
    let sshd = Sshd::start();
    let marker = processes::marker("blocked");
    let _leftover = Leftover(marker.clone());
    let command = format!("sh -c 'while :; do echo {marker}; done'");
    let run = Fanrun::exec(&sshd, &command).blocked_stdout().spawn();
    processes::await_running(&marker, SOON);
    run.signal(Signal::INT);
    processes::await_gone(&marker, Duration::from_secs(2));
    run.within(SOON)
        .expect(Signal::INT, |_: &str| true, |_: &str| true);
}

/// Who reads no more still gets the last word on standard error, and the events are whole.
#[test]
fn ctrl_c_has_a_last_word_while_stdout_is_blocked() {
    let sshd = Sshd::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.ndjson");
    let run = Fanrun::exec(&sshd, &format!("yes {}", "x".repeat(1000)))
        .options(["--events", file.to_str().unwrap()])
        .blocked_stdout()
        .spawn();
    processes::await_some("output", SOON, || {
        let events = std::fs::read_to_string(&file).unwrap_or_default();
        events.contains("\"line\"").then_some(())
    });
    run.signal(Signal::INT);
    run.await_stderr("what runs on 1 host is being ended; a second signal kills it");
    run.within(SOON).expect(
        Signal::INT,
        |_: &str| true,
        holds(["nobody reads it", "cancelled, killed", "INTERRUPTED"]),
    );
    let events = std::fs::read_to_string(&file).unwrap();
    let last: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "run_end");
    assert_eq!(last["signal"], 2);
}

#[test]
fn a_paused_reader_costs_neither_output_nor_the_session() {
    // A minute is fifteen times the server's patience with a client that does not answer.
    let sshd = Sshd::builder()
        .config("ClientAliveInterval 2")
        .config("ClientAliveCountMax 2")
        .start();
    let mut run = Fanrun::exec(&sshd, "seq 1 2000000; echo the-end")
        .blocked_stdout()
        .within(Duration::from_secs(150))
        .spawn();
    std::thread::sleep(Duration::from_secs(60));
    run.read_stdout();
    let whole = |text: &str| text.lines().count() == 2_000_001 && text.contains("the-end");
    run.expect(0, whole, |_: &str| true);
}

#[test]
fn stdin_that_nobody_reads_does_not_hold_the_run() {
    let sshd = Sshd::start();
    let run = Fanrun::exec(&sshd, "head -c1").options(["--raw"]);
    run.stdin(vec![b'x'; 50_000_000])
        .expect(0, "x", |_: &str| true);
}

#[test]
fn bad_banners_are_unreachable_and_named() {
    let cases: Vec<(Behaviour, &'static str)> = vec![
        (Behaviour::Silent, "time"),
        (Behaviour::dripping(), "time"),
        (Behaviour::banner_then_silence(), "time"),
        (Behaviour::no_newline(), "time"),
        (Behaviour::http(), "HTTP/1.1 400"),
        (Behaviour::telnet(), "127.0.0.1"),
        (Behaviour::garbage(), "127.0.0.1"),
        (Behaviour::ssh_1_5(), "SSH-1.5"),
        (Behaviour::not_allowed(), "Not allowed at this time"),
        (Behaviour::endless_lines(), "127.0.0.1"),
        (Behaviour::endless_line(), "127.0.0.1"),
        (Behaviour::Close, "127.0.0.1"),
        (Behaviour::Reset, "127.0.0.1"),
        (Behaviour::escape_sequences(), "go away"),
    ];
    let sshd = Sshd::start();
    for (behaviour, word) in cases {
        let evil = Evil::start(behaviour);
        exec_through(&sshd, evil.port(), "true")
            .options(["--connect-timeout", "2s"])
            .within(Duration::from_secs(8))
            .expect(3, "", move |text: &str| {
                text.contains(word) && !text.contains('\x1b')
            });
    }
}

#[test]
fn a_closed_port_is_unreachable_at_once() {
    let sshd = Sshd::start();
    exec_through(&sshd, closed_port(), "true")
        .within(Duration::from_secs(3))
        .expect(3, "", holds(["refused"]));
}

#[test]
fn a_reset_anywhere_is_never_ok() {
    let sshd = Sshd::start();
    // About 3,000 bytes come down before the command runs; its output is far longer.
    for byte in [0, 1, 20, 42, 500, 1000, 1500, 2000, 2500, 3000, 4000, 8000] {
        let proxy = Proxy::to(sshd.port())
            .down(|down| down.reset_after = Some(byte))
            .start();
        let run = exec_through(&sshd, proxy.port(), "seq 1 100000").spawn();
        let code = if byte <= 1000 { 3 } else { 1 };
        // Between the two the phase decides, and either word is honest.
        if (1500..=3000).contains(&byte) {
            let either = std::panic::AssertUnwindSafe(run);
            let failed = std::panic::catch_unwind(move || {
                let run = either;
                run.0.expect(0, |_: &str| true, |_: &str| true);
            });
            assert!(failed.is_err(), "reset after byte {byte} was taken for ok");
        } else {
            run.expect(code, |_: &str| true, holds(["127.0.0.1"]));
        }
    }
}

#[test]
fn another_host_key_is_refused_and_nothing_is_sent() {
    let sshd = Sshd::start();
    let other = sshd.directory().join("other_host_key");
    make_key("ed25519", &other);
    let other = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let own = sshd.host_key("ed25519");
    let name = format!("[127.0.0.1]:{}", sshd.port());
    let cases = [
        format!("{name} {other}"),
        format!("@revoked * {own}\n{name} {own}\n"),
        String::new(),
    ];
    for text in cases {
        let path = sshd.directory().join("known_hosts_of_case");
        std::fs::write(&path, text).unwrap();
        let mut options = sshd.fanrun_args();
        *options.last_mut().unwrap() = path.to_str().unwrap().to_owned();
        let run = Fanrun::new(["exec", "127.0.0.1", "--", "true"]).options(options);
        run.expect(4, "", holds(["127.0.0.1"]));
    }
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[test]
fn a_key_that_may_not_log_in_is_refused_and_told() {
    let sshd = Sshd::start();
    let other = sshd.directory().join("other_identity");
    make_key("ed25519", &other);
    let private = std::fs::read_to_string(&other).unwrap();
    write_private(&sshd.identity(), &private);
    Fanrun::exec(&sshd, "true").expect(4, "", holds(["127.0.0.1", "publickey"]));
}

#[test]
fn a_hundred_hosts_behind_six_startups_all_succeed() {
    let sshd = Sshd::builder().config("MaxStartups 3:50:6").start();
    Fanrun::new(["exec", "all", "--", "echo here"])
        .options(many_names(&sshd, 100))
        .within(Duration::from_secs(120))
        .expect(
            0,
            |text: &str| text.matches("here").count() == 100,
            |_: &str| true,
        );
}

#[test]
fn three_hundred_hosts_pass_through_sixty_four_descriptors() {
    let sshd = Sshd::start();
    Fanrun::new(["exec", "all", "--", "echo here"])
        .options(many_names(&sshd, 300))
        .ulimit("-n 64")
        .within(Duration::from_secs(180))
        .expect(
            0,
            |text: &str| text.matches("here").count() == 300,
            |_: &str| true,
        );
}

#[test]
fn a_flood_into_a_blocked_reader_stays_small() {
    let sshd = Sshd::start();
    let run = Fanrun::new(["exec", "all", "--", "yes"])
        .options(many_names(&sshd, 100))
        .options(["--fanout", "100"])
        .blocked_stdout()
        .within(Duration::from_secs(120))
        .spawn();
    processes::await_some("100 sessions", Duration::from_secs(60), || {
        let flooding = sshd.sessions();
        (flooding.iter().filter(|one| one.command == "yes").count() >= 100).then_some(())
    });
    // Long enough for the slowest of the hundred to fill whatever would take it.
    std::thread::sleep(Duration::from_secs(10));
    let peak = run.peak_memory();
    assert!(peak < 128 * 1024 * 1024, "{peak} bytes at the peak");
    run.signal(Signal::INT);
    run.expect(Signal::INT, |_: &str| true, |_: &str| true);
}

#[test]
fn four_endings_are_told_apart_in_one_run() {
    let sshd = Sshd::builder().addresses(3).start();
    let path = |name: &str| sshd.directory().join(name).to_str().unwrap().to_owned();
    let hosts = format!(
        "hosts:\n  failing: {{address: 127.1.0.1, port: {port}}}\n  killed: {{address: 127.1.0.2, \
         port: {port}}}\n  refused: {{address: 127.1.0.3, port: {port}}}\n  gone: {{address: \
         127.0.0.1, port: {closed}}}\n",
        port = sshd.port(),
        closed = closed_port(),
    );
    std::fs::write(path("four.yml"), hosts).unwrap();
    let known = std::fs::read_to_string(sshd.known_hosts()).unwrap();
    let known: Vec<&str> = known
        .lines()
        .filter(|line| !line.contains("127.1.0.3"))
        .collect();
    std::fs::write(path("known_two"), known.join("\n") + "\n").unwrap();
    let command = "case $SSH_CONNECTION in *' 127.1.0.1 '*) exit 3;; *) kill -TERM $$;; esac";
    let (inventory, known) = (path("four.yml"), path("known_two"));
    let identity = path("identity");
    Fanrun::new(["exec", "all", "--", command])
        .options(["-i", &inventory, "--known-hosts", &known])
        .options(["--identity", &identity, "--user", sshd.user()])
        .expect(
            1,
            |_: &str| true,
            holds([
                "failing",
                "3",
                "killed",
                "TERM",
                "refused",
                "gone",
                "unreachable",
            ]),
        );
}
