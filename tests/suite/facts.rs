//! What a host says of itself: asked once, only where a task uses it, and never guessed.

use std::fs;

use crate::fanrun::{Fanrun, holds};
use crate::sshd::Sshd;

fn run(sshd: &Sshd, playbook: &str) -> Fanrun {
    let path = sshd.directory().join("play.yml");
    fs::write(&path, playbook).unwrap();
    let host = format!("{},", sshd.address());
    Fanrun::new(["run", path.to_str().unwrap(), "-i", &host]).options(sshd.fanrun_args())
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_host_is_asked_once_and_only_when_that_is_needed() {
    let sshd = Sshd::start();
    let playbook = "hosts: all
tasks:
  - true
  - when: 1 == 2
    run: echo ${{ host.os }}
  - run: echo ${{ host.arch }} ${{ host.kernel }}
  - when: host.os != 'plan9'
    print: on ${{ host.hostname }} ${{ host.name }}
  - loop: ['${{ host.os }}']
    run: echo ${{ item }}
";
    let address = sshd.address();
    let os = fs::read_to_string("/etc/os-release").unwrap();
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("ID="))
        .unwrap();
    let expected = format!(
        "{address} | {} {}\n{address} | on {} {address}\n{address} | {}\n",
        first_line("uname", &["-m"]),
        first_line("uname", &["-r"]),
        first_line("uname", &["-n"]),
        os.trim_matches('"'),
    );
    run(&sshd, playbook).expect(0, expected, holds(["OK"]));
    // `true`, the question, the command, the loop: no more.
    assert_eq!(sshd.log().matches("Starting session: command").count(), 4);
    let none = "hosts: all\ntasks: [true, 'echo ${{ host.name }}']\n";
    let before = sshd.log().matches("Starting session: command").count();
    run(&sshd, none).expect(0, format!("{address} | {address}\n"), holds(["OK"]));
    let after = sshd.log().matches("Starting session: command").count();
    assert_eq!(after - before, 2);
}

#[test]
fn an_odd_answer_fails_the_task_and_not_the_host() {
    for (forced, told) in [
        ("echo noise; exit 3", "exit 3"),
        ("echo noise", "it said noise"),
        ("head -c 3000000 /dev/zero | tr '\\0' x", "it said xxxx"),
        ("printf '\\377\\376'", "it said"),
    ] {
        let sshd = Sshd::builder()
            .config(&format!("ForceCommand {forced}"))
            .start();
        let playbook = "hosts: all
on_failure: continue
tasks:
  - {name: uses it, run: 'echo ${{ host.os }}'}
  - {name: goes on, print: still here}
";
        let address = sshd.address();
        run(&sshd, playbook).expect(1, format!("{address} | still here\n"), move |text: &str| {
            text.contains("uses it  not started: could not learn what kind of host it is: ")
                && text.contains(told)
                && text.len() < 4000
        });
    }
}

#[test]
fn a_misspelt_fact_is_found_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.yml");
    fs::write(&path, "hosts: all\ntasks: ['echo ${{ host.oss }}']\n").unwrap();
    Fanrun::new(["check", path.to_str().unwrap(), "--sandbox", "1"]).expect(
        2,
        "",
        holds(["`host` has no `oss`", "did you mean `host.os`?"]),
    );
    fs::write(&path, "hosts: localhost\ntasks: ['echo ${{ host.os }}']\n").unwrap();
    let path = path.to_str().unwrap();
    Fanrun::new(["plan", path]).expect(0, holds(["echo ${{ host.os }}"]), "");
    Fanrun::new(["run", path]).expect(0, holds(["localhost | "]), holds(["OK"]));
}
