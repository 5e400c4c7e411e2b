//! What a person at a terminal is asked about a host key that is not known, what each answer does,
//! that nobody is asked where there is no terminal, and logins that get no answer.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::fanrun::{Fanrun, OnTerminal, holds};
use crate::processes;
use crate::sftp_servers::SftpServer;
use crate::sshd::{Sshd, make_key};

const SOON: Duration = Duration::from_secs(15);
/// The command's output on a terminal, which also shows the command itself.
const CAME_IN: &str = "│ reached";
const QUESTION: &str = "(yes/no, or the fingerprint)? ";

fn known(sshd: &Sshd) -> PathBuf {
    sshd.directory().join("asked")
}

fn run(sshd: &Sshd, hosts: &str) -> Fanrun {
    Fanrun::new(["exec", hosts, "--", "echo reached"])
        .options(["--port", &sshd.port().to_string(), "--user", sshd.user()])
        .options(["--identity", sshd.identity().to_str().unwrap()])
        .options(["--known-hosts", known(sshd).to_str().unwrap()])
        // The system's own file may ask for hashed names.
        .options(["--ssh-config", "none"])
}

/// What was recorded, a line a host.
fn recorded(sshd: &Sshd) -> Vec<String> {
    let text = std::fs::read_to_string(known(sshd)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// As `ssh-keygen -l` prints it.
fn fingerprint(sshd: &Sshd) -> String {
    let file = sshd.directory().join("shown.pub");
    std::fs::write(&file, sshd.host_key("ed25519")).unwrap();
    let output = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

fn asked(run: &OnTerminal) -> usize {
    run.screen().matches(QUESTION).count()
}

fn await_asked(run: &OnTerminal, times: usize) {
    let found = processes::poll(SOON, || (asked(run) >= times).then_some(()));
    assert!(
        found.is_some(),
        "not asked {times} times:\n{}",
        run.screen()
    );
}

/// Runs with these answers, one by one.
fn answered(sshd: &Sshd, answers: &[&str]) -> OnTerminal {
    let mut run = run(sshd, "127.0.0.1").spawn_on_terminal(200, 30);
    await_asked(&run, 1);
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            let again = "that is neither `yes`, `no` nor the fingerprint";
            let found = processes::poll(SOON, || {
                (run.screen().matches(again).count() >= index).then_some(())
            });
            assert!(found.is_some(), "not asked again:\n{}", run.screen());
        }
        run.type_keys(&format!("{answer}\r"));
    }
    run
}

#[test]
fn the_question_names_host_and_fingerprint_and_yes_records() {
    let sshd = Sshd::start();
    let (port, print) = (sshd.port(), fingerprint(&sshd));
    answered(&sshd, &["yes"]).expect(0, move |screen: &str| {
        screen.contains(&format!(
            "127.0.0.1:{port}: unknown host key, ssh-ed25519 {print};"
        )) && screen.contains(CAME_IN)
    });
    let line = format!("[127.0.0.1]:{port} {}", sshd.host_key("ed25519"));
    assert_eq!(recorded(&sshd), [line]);
    // Known from now on: no terminal is needed.
    run(&sshd, "127.0.0.1").expect(0, "127.0.0.1 | reached\n", |_: &str| true);
}

#[test]
fn the_fingerprint_itself_is_a_yes() {
    let sshd = Sshd::start();
    let print = fingerprint(&sshd);
    answered(&sshd, &[&print]).expect(0, |screen: &str| screen.contains(CAME_IN));
    assert_eq!(recorded(&sshd).len(), 1);
}

#[test]
fn a_no_refuses_and_records_nothing() {
    for answers in [
        &["no"][..],
        &[""],
        &["y", "No"],
        &["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "no"],
        &["ok", "sure", "why not"],
    ] {
        let sshd = Sshd::start();
        answered(&sshd, answers).expect(4, |screen: &str| {
            screen.contains("is not known") && !screen.contains(CAME_IN)
        });
        assert_eq!(recorded(&sshd), Vec::<String>::new(), "{answers:?}");
        assert!(!sshd.log().contains("Accepted"), "{answers:?}");
    }
}

#[test]
fn nobody_is_asked_without_a_terminal() {
    let sshd = Sshd::start();
    for options in [&[][..], &["--host-key", "ask"]] {
        run(&sshd, "127.0.0.1")
            .options(options.to_vec())
            .stdin("yes\n")
            .expect(4, "", |said: &str| {
                said.contains("is not known") && !said.contains(QUESTION)
            });
    }
    assert_eq!(recorded(&sshd), Vec::<String>::new());
}

#[test]
fn strict_does_not_ask_at_a_terminal_either() {
    let sshd = Sshd::start();
    run(&sshd, "127.0.0.1")
        .options(["--host-key", "strict"])
        .spawn_on_terminal(200, 30)
        .expect(4, |screen: &str| !screen.contains(QUESTION));
}

#[test]
fn several_hosts_ask_one_at_a_time() {
    let sshd = Sshd::builder().addresses(3).start();
    let mut run = run(&sshd, "127.1.0.1,127.1.0.2,127.1.0.3").spawn_on_terminal(200, 30);
    // All three wait for an answer before the first is given.
    let all = || sshd.log().matches("Connection from").count() == 3;
    assert!(processes::poll(SOON, || all().then_some(())).is_some());
    for (times, answer) in [(1, "yes"), (2, "no"), (3, "yes")] {
        await_asked(&run, times);
        assert_eq!(asked(&run), times, "{}", run.screen());
        run.type_keys(&format!("{answer}\r"));
    }
    run.expect(4, |screen: &str| {
        screen.matches(CAME_IN).count() == 2 && screen.contains("is not known")
    });
    assert_eq!(recorded(&sshd).len(), 2);
}

/// A run with the password `old` on descriptor 0.
fn with_password(server: &SftpServer) -> Fanrun {
    Fanrun::new(["exec", &server.address(), "--", "true"])
        .options(server.fanrun_args())
        .options(["--connect-timeout", "3s", "--password-fd", "0"])
        .stdin("old\n")
}

#[test]
fn a_demand_for_a_new_password_is_a_refusal_and_no_hang() {
    let server = SftpServer::demanding(&[]);
    with_password(&server)
        .within(Duration::from_secs(15))
        .expect(4, "", holds(["authentication refused", "wants a new one"]));
}

#[test]
fn a_step_without_any_answer_is_a_timeout_that_names_it() {
    let server = SftpServer::demanding(&["silent"]);
    with_password(&server)
        .within(Duration::from_secs(15))
        .expect(
            3,
            "",
            holds([
                "timed out after 2s in authentication",
                "no answer to keyboard-interactive",
            ]),
        );
}

#[test]
fn a_banner_is_no_answer_and_no_demand_for_a_new_password() {
    let server = SftpServer::demanding(&["banner"]);
    with_password(&server)
        .within(Duration::from_secs(15))
        .expect(
            3,
            "",
            holds([
                "timed out after 2s in authentication",
                "no answer to the password",
            ]),
        );
}

#[test]
fn what_a_server_says_while_it_refuses_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let banner = folder.path().join("banner");
    std::fs::write(&banner, "this account is locked until Monday\n").unwrap();
    let sshd = Sshd::builder()
        .config(&format!("Banner {}", banner.display()))
        .start();
    let stranger = folder.path().join("stranger");
    make_key("ed25519", &stranger);
    Fanrun::new(["exec", &sshd.address(), "--", "true"])
        .options(["--port", &sshd.port().to_string(), "--user", sshd.user()])
        .options(["--identity", stranger.to_str().unwrap()])
        .options(["--known-hosts", sshd.known_hosts().to_str().unwrap()])
        .without_env("SSH_AUTH_SOCK")
        .expect(
            4,
            "",
            holds(["authentication refused", "locked until Monday"]),
        );
}
