//! Whole runs as a person or a CI job starts them: playbooks, sandbox, reports, streams that
//! nobody reads, and what stands on the screen.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::evil::closed_port;
use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::sshd::Sshd;
use crate::streams;

fn anything(_: &str) -> bool {
    true
}

/// A path below the repository's root.
fn here(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn on_sandbox(command: &str, hosts: &str) -> Fanrun {
    Fanrun::new(["exec", "--sandbox", hosts, "--", command])
}

#[test]
fn the_examples_run_on_the_sandbox() {
    for name in [
        "tour",
        "uptime",
        "disk-usage",
        "disk-report",
        "ci-smoke",
        "release",
        "rolling-deploy",
    ] {
        let path = here(&format!("playbooks/{name}.yml"));
        Fanrun::new(["run", &path, "--sandbox", "3"])
            .within(Duration::from_secs(60))
            .expect(0, anything, holds(["OK  ", " ok   tasks: "]));
    }
}

#[test]
fn the_examples_that_need_services_or_logs_are_sound() {
    for name in ["service-restart", "collect-logs", "sequencer-listing"] {
        let path = here(&format!("playbooks/{name}.yml"));
        Fanrun::new(["check", &path, "--sandbox", "3"]).expect(0, holds(["ok", "3 hosts"]), "");
    }
}

#[test]
fn the_fleet_of_the_vagrantfile_can_be_planned() {
    let inventory = here("vagrant/inventory.yml");
    Fanrun::new(["hosts", "-i", &inventory, "fleet", "--format", "folded"]).expect(
        0,
        holds(["debian-[1-2]", "bastion"]),
        "",
    );
}

#[test]
fn two_hundred_addresses_stream_recap_and_exit_right() {
    let sshd = Sshd::builder().addresses(200).start();
    let hosts: String = sshd.addresses().iter().map(|a| format!("{a}\n")).collect();
    let inventory = write(sshd.directory(), "hosts", &hosts);
    let playbook = "hosts: all\ntasks:\n  - echo from ${{ host.name }}\n  - name: odd one out\n    run: |\n      case $SSH_CONNECTION in *' 127.1.0.7 '*) echo broken >&2; exit 9;; esac\n";
    let playbook = write(sshd.directory(), "two.yml", playbook);
    let each_once = |text: &str| {
        let lines: BTreeSet<&str> = text.lines().collect();
        lines.len() == 200
            && lines.iter().all(|line| {
                let (host, said) = line.split_once('|').unwrap_or_default();
                said == format!(" from {}", host.trim())
            })
    };
    Fanrun::new(["run", &playbook, "-i", &inventory])
        .options(sshd.fanrun_args())
        .within(Duration::from_secs(100))
        .expect(
            1,
            each_once,
            holds(["199 ok, 1 failed", "odd one out", "exit 9", "broken"]),
        );
}

#[test]
fn a_name_that_is_not_listed_is_never_dialled() {
    let sshd = Sshd::start();
    let inventory = write(sshd.directory(), "hosts", "web1\nweb2\n");
    Fanrun::new(["exec", "web11", "-i", &inventory, "--", "true"]).expect(
        2,
        "",
        holds(["web11", "web1"]),
    );
    assert_eq!(sshd.log().matches("Connection from").count(), 0);
}

#[test]
fn nothing_matched_is_its_own_code_and_can_be_allowed() {
    let run = || Fanrun::new(["exec", "x*", "-i", "a,b", "--", "true"]);
    run().expect(5, "", holds(["`x*` matches no host", "--allow-empty"]));
    run()
        .options(["--allow-empty"])
        .expect(0, "", holds(["OK"]));
}

#[test]
fn mistakes_are_all_told_at_once_and_nothing_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("executed");
    let text = format!(
        "hosts: localhost\ntasks:\n  - local: touch {0}\n  - tiemout: 3s\n    run: a ${{{{ b\n  - script: none.sh\n",
        marker.display()
    );
    let playbook = write(dir.path(), "bad.yml", &text);
    Fanrun::new(["run", &playbook]).expect(
        2,
        "",
        holds([
            "bad.yml:4:5",
            "did you mean `timeout`?",
            "bad.yml:5",
            "bad.yml:6",
            "3 errors",
        ]),
    );
    let text = format!(
        "hosts: localhost\ntasks:\n  - local: touch {}\n  - script: none.sh\n  - echo ${{{{ wht }}}}\n",
        marker.display()
    );
    let playbook = write(dir.path(), "missing.yml", &text);
    Fanrun::new(["run", &playbook]).expect(2, "", holds(["none.sh", "missing.yml:4"]));
    assert!(!marker.exists());
}

#[test]
fn mistakes_of_every_kind_are_told_at_once_and_none_makes_another() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: web1\nvars: {service: app}\ntasks:\n\
                - run: restart ${{ servce }}\n\
                - rnu: true\n\
                - {run: uptime, timeout: 5}\n\
                - script: none.sh\n\
                - {run: id, register: who, retires: 3}\n\
                - run: [echo, '${{ who.stdout }}']\n\
                - {run: [], register: never}\n\
                - run: echo ${{ never.code }}\n";
    let playbook = write(dir.path(), "many.yml", text);
    let inventory = write(
        dir.path(),
        "inventory.yml",
        "hosts:\n  web1: {port: 70000}\n",
    );
    let in_order = |text: &str, places: &[&str]| {
        let found: Vec<usize> = places
            .iter()
            .map(|place| text.find(place).unwrap())
            .collect();
        found.is_sorted()
    };
    let own = [
        "many.yml:5:3",
        "many.yml:6:26",
        "many.yml:7:11",
        "many.yml:8:28",
        "many.yml:10:9",
    ];
    let known = write(dir.path(), "known.yml", "hosts:\n  web1: {port: 22}\n");
    for command in ["run", "check", "plan"] {
        Fanrun::new([command, &playbook, "-i", &known]).expect(2, "", move |text: &str| {
            let all = [&["many.yml:4:20"][..], &own].concat();
            assert!(in_order(text, &all), "{text}");
            assert!(text.contains("did you mean `service`") || text.contains("`service`"));
            assert_eq!(text.matches("error: ").count(), 6, "{text}");
            assert!(text.contains("6 errors"), "{text}");
            true
        });
        // With the inventory broken nothing is said of names that it may define.
        Fanrun::new([command, &playbook, "-i", &inventory]).expect(2, "", move |text: &str| {
            assert!(
                in_order(text, &[&["inventory.yml:2:16"][..], &own].concat()),
                "{text}"
            );
            assert_eq!(text.matches("error: ").count(), 6, "{text}");
            true
        });
    }
}

#[test]
fn a_huge_playbook_is_refused_without_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.yml");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    Fanrun::new(["check", path.to_str().unwrap()])
        .within(Duration::from_secs(2))
        .expect(2, "", holds(["huge.yml"]));
}

#[test]
fn localhost_runs_here_and_its_endings_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: localhost\ntasks:\n  - echo here; echo there >&2\n  - run: kill -TERM $$\n    on_failure: continue\n  - run: [no-such-program]\n";
    let playbook = write(dir.path(), "here.yml", text);
    Fanrun::new(["run", &playbook]).expect(
        1,
        "localhost | here\n",
        holds([
            "localhost ! there",
            "signal TERM",
            "not started: ",
            "no-such-program",
        ]),
    );
}

#[test]
fn a_script_runs_by_its_own_line_and_is_removed() {
    let sshd = Sshd::builder().ordinary_user().start();
    let dir = sshd.directory();
    write(
        dir,
        "it's a script.sh",
        "#!/bin/sh\necho \"$0\"; printf '<%s>\\n' \"$@\"; exit 4\n",
    );
    let text = "hosts: all\ntasks:\n  - script: it's a script.sh\n    args: [\"a b\", \"$HOME\"]\n";
    let playbook = write(dir, "script.yml", text);
    let sees = |text: &str| {
        let place = text.lines().next().and_then(|line| line.split_once("| "));
        let gone =
            place.is_some_and(|(_, path)| path.contains("/fanrun.") && !Path::new(path).exists());
        gone && text.contains("| <a b>\n") && text.contains("| <$HOME>\n")
    };
    Fanrun::new(["run", &playbook, "-i", &format!("{},", sshd.address())])
        .options(sshd.fanrun_args())
        .expect(1, sees, holds(["exit 4"]));
}

#[test]
fn settings_and_values_reach_the_command_over_ssh() {
    let sshd = Sshd::builder().ordinary_user().start();
    let text = "\
hosts: all
vars: {word: \"it's; $(touch /tmp/never) `x`\"}
tasks:
  - run: printf '%s|%s|%s\\n' \"$A\" \"$PWD\" ${{ word }}
    env: {A: \"a 'b' $c\"}
    cwd: /usr
  - run: cat
    stdin: \"from ${{ word }}\"
  - run: echo ${BASH_VERSION:+bash}
    shell: bash
";
    let playbook = write(sshd.directory(), "values.yml", text);
    let word = "it's; $(touch /tmp/never) `x`";
    let expected =
        format!("127.0.0.1 | a 'b' $c|/usr|{word}\n127.0.0.1 | from {word}\n127.0.0.1 | bash\n");
    Fanrun::new(["run", &playbook, "-i", "127.0.0.1,"])
        .options(sshd.fanrun_args())
        .expect(0, expected, anything);
}

#[test]
fn the_event_stream_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("run.ndjson");
    let out = dir.path().join("out");
    let command = r"printf 'one\ntwo\r\n\377\376\nlast'; echo err >&2; exit 3";
    on_sandbox(command, "3")
        .options([
            "--events",
            events.to_str().unwrap(),
            "--output-dir",
            out.to_str().unwrap(),
        ])
        .expect(1, anything, holds(["exit 3"]));
    streams::check(&std::fs::read_to_string(&events).unwrap(), 1);
    for n in 1..=3 {
        let file = out.join(format!("sandbox-{n}.stdout"));
        assert_eq!(std::fs::read(&file).unwrap(), b"one\ntwo\r\n\xff\xfe\nlast");
        assert_eq!(
            std::fs::read(out.join(format!("sandbox-{n}.stderr"))).unwrap(),
            b"err\n"
        );
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(
        events.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn events_on_standard_output_end_with_run_end_also_after_a_signal() {
    let marker = processes::marker("events");
    let command = format!("echo begun; sh -c 'sleep 300; : {marker}'");
    let run = on_sandbox(&command, "2")
        .options(["--format", "ndjson"])
        .spawn();
    for host in ["sandbox-1", "sandbox-2"] {
        run.await_stdout(&format!("\"host\":\"{host}\",\"task\":\"0.0\",\"stream\""));
    }
    run.signal(Signal::TERM);
    let sound = |text: &str| {
        streams::check(text, 143);
        text.matches("\"status\":\"cancelled\"").count() == 2
    };
    run.expect(Signal::TERM, sound, anything);
    processes::await_gone(&marker, Duration::from_secs(2));
}

#[test]
fn a_second_signal_kills_at_once_what_ignores_the_first() {
    let marker = processes::marker("stubborn");
    let command = format!("trap '' TERM; echo up; sh -c 'sleep 300; : {marker}'");
    let sshd = Sshd::start();
    let run = Fanrun::exec(&sshd, &command).spawn();
    run.await_stdout("up");
    processes::await_running(&marker, Duration::from_secs(10));
    run.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    run.signal(Signal::INT);
    run.expect(Signal::INT, anything, holds(["INTERRUPTED"]));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    processes::await_gone(&marker, Duration::from_secs(2));
}

#[test]
fn a_third_signal_leaves_at_once() {
    let marker = processes::marker("third");
    let command = format!("trap '' TERM; echo up; sh -c 'sleep 300; : {marker}'");
    let run = on_sandbox(&command, "1").spawn();
    run.await_stdout("up");
    let began = Instant::now();
    for _ in 0..3 {
        run.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(30));
    }
    run.expect(Signal::INT, anything, anything);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_closed_stdout_does_not_end_the_run_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("done");
    let events = dir.path().join("events");
    let fanrun = env!("CARGO_BIN_EXE_fanrun");
    let script = format!(
        "{fanrun} exec --keep-going-on-broken-pipe --events {} --sandbox 1 -- \
         'for i in $(seq 1 400); do seq 1 100; done; touch {}; exit 3' 2>/dev/null | head -1; \
         echo \"${{PIPESTATUS[0]}}\"",
        events.display(),
        marker.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("\n1\n"), "{said}");
    assert!(marker.exists());
    let events = std::fs::read_to_string(events).unwrap();
    assert_eq!(events.matches("\"type\":\"line\"").count(), 40_000);
    assert!(events.lines().last().unwrap().contains("\"run_end\""));
}

#[test]
fn a_closed_stdout_alone_is_code_7_where_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "hosts: all\ntasks: [seq 1 100000, 'touch done-$FANRUN_SANDBOX']\n";
    let playbook = write(dir.path(), "two.yml", playbook);
    let script = format!(
        "cd {} && {{ {} run {playbook} --keep-going-on-broken-pipe --sandbox 2 --format ndjson; \
         echo $? >code; }} | head -1",
        dir.path().display(),
        env!("CARGO_BIN_EXE_fanrun"),
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    let code = std::fs::read_to_string(dir.path().join("code")).unwrap();
    assert_eq!(code, "7\n", "{talk}");
    assert_eq!(talk.matches("nobody reads standard output").count(), 1);
}

#[test]
fn failures_with_other_last_words_stand_apart_at_the_end() {
    let command = "case $FANRUN_SANDBOX in *-2) echo disk full;; *) echo $FANRUN_SANDBOX: no package;; esac >&2; exit 9";
    let grouped = |text: &str| {
        let end = text.split("\nFAILED").nth(1).unwrap();
        let row = |host: &str, last: &str| {
            let mut lines = end.lines();
            lines.any(|line| line.contains("exit 9") && line.contains(host) && line.ends_with(last))
        };
        row("sandbox-[1,3]", "no package") && row("sandbox-2", "disk full")
    };
    on_sandbox(command, "3").expect(1, "", grouped);
}

#[test]
fn a_closed_pipe_ends_the_run_as_it_would_any_program() {
    let fanrun = env!("CARGO_BIN_EXE_fanrun");
    let script = format!(
        "{fanrun} exec --sandbox 2 -- 'while :; do echo y; done' 2>/dev/null | head -1; echo \"${{PIPESTATUS[0]}}\""
    );
    let began = Instant::now();
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("y\n141\n"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_full_disk_behind_stdout_is_code_7_and_the_work_is_done() {
    let fanrun = env!("CARGO_BIN_EXE_fanrun");
    let script = format!("{fanrun} exec --sandbox 2 -- 'echo y' >/dev/full");
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{talk}");
    assert!(
        talk.contains("could not be written") && talk.contains("2 ok"),
        "{talk}"
    );
}

#[test]
fn an_events_file_that_cannot_be_made_is_told_before_anything_runs() {
    on_sandbox("true", "1")
        .options(["--events", "/nonexistent/x"])
        .expect(2, "", holds(["/nonexistent/x"]));
    on_sandbox("true", "1")
        .options(["--events", "/dev/full"])
        .expect(7, "", holds(["/dev/full"]));
}

#[test]
fn quiet_keeps_data_and_failures() {
    on_sandbox("echo data; exit $(( ${FANRUN_SANDBOX#sandbox-} - 1 ))", "2")
        .options(["-q"])
        .expect(
            1,
            "sandbox-[..] | data\nsandbox-[..] | data\n",
            "FAIL sandbox-2  [..]\nFAILED[..]\n...\n",
        );
}

#[test]
fn a_timeout_in_the_sandbox_hits_its_own_host_only() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: all\ntasks:\n  - run: |\n      if [ $FANRUN_SANDBOX = sandbox-1 ]; then sleep 300; else sleep 3; echo survived; fi\n    timeout: 1s\n    on_failure: continue\n";
    // One limit for all, but only the first host is over it by far; the others get more time.
    let playbook = write(
        dir.path(),
        "timeout.yml",
        &text.replace("timeout: 1s", "timeout: ${{ x }}"),
    );
    Fanrun::new(["check", &playbook, "--sandbox", "2"]).expect(2, "", holds(["timeout"]));
    let text = "plays:\n  - hosts: all\n    tasks:\n      - run: if [ $FANRUN_SANDBOX = sandbox-1 ]; then sleep 300; else sleep 1.5; echo survived; fi\n        timeout: 2s\n";
    let playbook = write(dir.path(), "own.yml", text);
    Fanrun::new(["run", &playbook, "--sandbox", "3"]).expect(
        1,
        "sandbox-[..] | survived\nsandbox-[..] | survived\n",
        holds(["timed out after 2s, killed", "2 ok, 1 failed"]),
    );
}

#[test]
fn a_terminal_shows_a_region_that_is_gone_at_the_end() {
    let run = on_sandbox("echo working; sleep 1", "2").spawn_on_terminal(80, 24);
    run.await_screen("waiting for");
    let calm = |screen: &str| screen.contains("OK") && screen.contains("│ working");
    run.expect(0, calm);
}

#[test]
fn remote_bytes_cannot_drive_a_terminal() {
    let run = on_sandbox(r"printf '\033]0;title\007\033[2J\033[31mred\n'", "1");
    let harmless = |screen: &str| {
        screen.contains("\\x1b]0;title\\x07\\x1b[2J")
            && !screen.contains("\x1b]0;")
            && screen.contains("red")
    };
    run.spawn_on_terminal(100, 24).expect(0, harmless);
}

#[test]
fn ping_shows_every_step_and_who_did_not_answer() {
    Fanrun::new(["ping", "--sandbox", "2"]).expect(
        0,
        holds(["HOST", "KEX", "AUTH", "SHA256:", "sandbox-2"]),
        "2 of 2 hosts answered\n",
    );
    let port = closed_port().to_string();
    Fanrun::new(["ping", "127.0.0.1", "--port", &port]).expect(
        3,
        "",
        holds(["connection refused", "0 of 1 host answered"]),
    );
}

#[test]
fn a_listener_that_answers_no_syn_is_given_up_after_the_limit() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let quiet = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(&quiet, &any).unwrap();
    listen(&quiet, 0).unwrap();
    let listener = std::net::TcpListener::from(quiet);
    let port = listener.local_addr().unwrap().port();
    // A full queue of a listener that never accepts drops every further SYN.
    let fill = |_| {
        let limit = Duration::from_millis(200);
        std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), limit).ok()
    };
    let _queue: Vec<_> = (0..4).map(fill).collect();
    let began = Instant::now();
    Fanrun::new([
        "exec",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--connect-timeout",
        "1s",
        "--",
        "true",
    ])
    .expect(3, "", holds(["timed out after 1s"]));
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn a_password_is_read_from_a_descriptor_and_a_wrong_one_is_told_once() {
    let Some((account, password)) = crate::sshd::password_account() else {
        return;
    };
    let sshd = Sshd::builder()
        .config("PasswordAuthentication yes")
        .user(&account)
        .start();
    let known = sshd.known_hosts();
    let run = |given: &str| {
        Fanrun::new(["exec", &sshd.address(), "--", "id -un"])
            .options(["--port", &sshd.port().to_string(), "--user", &account])
            .options([
                "--known-hosts",
                known.to_str().unwrap(),
                "--password-fd",
                "0",
            ])
            .stdin(format!("{given}\n"))
    };
    run(&password).expect(0, holds(["fanrun-test"]), anything);
    run("not the password").expect(4, "", holds(["authentication refused", "password"]));
    assert_eq!(sshd.log().matches("Failed password").count(), 1);
}

#[test]
fn ssh_config_is_followed_and_a_jump_host_is_not_jumped_over() {
    let sshd = Sshd::start();
    let run = Fanrun::new(["exec", "box", "--", "echo reached"]);
    let config = format!(
        "Host box\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  UserKnownHostsFile {}\n  Ciphers aes128-ctr\nHost far\n  ProxyJump box\n",
        sshd.port(),
        sshd.user(),
        sshd.identity().display(),
        sshd.known_hosts().display(),
    );
    let path = write(sshd.directory(), "config", &config);
    run.options(["-F", &path]).expect(
        0,
        "box | reached\n",
        holds(["`Ciphers` is not supported yet"]),
    );
    Fanrun::new(["exec", "far", "-F", &path, "--", "true"]).expect(
        2,
        "",
        holds(["ProxyJump", "far"]),
    );
}

#[test]
fn an_unknown_key_is_learnt_on_request_and_then_known() {
    let sshd = Sshd::start();
    let known = sshd.directory().join("learnt");
    let run = || {
        Fanrun::new(["exec", "127.0.0.1", "--", "true"])
            .options(["--port", &sshd.port().to_string(), "--user", sshd.user()])
            .options(["--identity", sshd.identity().to_str().unwrap()])
            .options(["--known-hosts", known.to_str().unwrap()])
    };
    run().expect(
        4,
        "",
        holds(["not known", "SHA256:", "--host-key accept-new"]),
    );
    run()
        .options(["--host-key", "accept-new"])
        .expect(0, "", anything);
    run().expect(0, "", anything);
    assert_eq!(std::fs::read_to_string(&known).unwrap().lines().count(), 1);
}
