//! `become`: commands as another account, by sudo, doas and su of a real system. The server has an
//! /etc of its own, so that nothing of this machine's is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::sshd::{ORDINARY_USER, Sshd, ordinary_user};

const PASSWORD: &str = "correct horse";
/// `openssl passwd -6 -salt fanrun 'correct horse'`
const HASHED: &str = "$6$fanrun$J04r79k/ooY3iCKNAHHb5gZKR4m6KY6nEABmECntsGfIf8/j7OvCz7vtp41zFwfheqq7FhuNJd5gbxZiZ1PKG1";

/// A server whose ordinary user may become root and has a password; so has root.
fn server(sudoers: &str) -> Sshd {
    let user = ordinary_user();
    let shadow = fs::read_to_string("/etc/shadow").unwrap();
    let hashed = |line: &str| {
        let name = line.split(':').next().unwrap();
        if name == "root" || name == user {
            format!("{name}:{HASHED}:19000:0:99999:7:::\n")
        } else {
            format!("{line}\n")
        }
    };
    let shadow: String = shadow.lines().map(hashed).collect();
    let sudoers =
        format!("Defaults env_reset, timestamp_timeout=0\nroot ALL=(ALL:ALL) ALL\n{sudoers}\n");
    Sshd::builder()
        .ordinary_user()
        .etc("shadow", &shadow, 0o640)
        .etc("sudoers", &sudoers, 0o440)
        .etc("doas.conf", "permit nopass fanrun-test as root\n", 0o400)
        .start()
}

fn trusting() -> Sshd {
    server("fanrun-test ALL=(ALL:ALL) NOPASSWD: ALL")
}

fn asking() -> Sshd {
    server("fanrun-test ALL=(ALL:ALL) ALL")
}

fn run(sshd: &Sshd, playbook: &str) -> Fanrun {
    let path = sshd.directory().join("play.yml");
    fs::write(&path, playbook).unwrap();
    let host = format!("{},", sshd.address());
    Fanrun::new(["run", path.to_str().unwrap(), "-i", &host])
        .options(sshd.fanrun_args())
        .env("BECOME_PASSWORD", PASSWORD)
}

fn anything(_: &str) -> bool {
    true
}

/// Everything a command has, as another account, by each program.
#[test]
fn a_command_is_the_same_as_another_account() {
    let sshd = trusting();
    for method in ["sudo", "doas"] {
        let playbook = format!(
            "hosts: all
become: {{method: {method}}}
tasks:
  - run: 'id -un; pwd; echo \"$WORD\"; cat; echo to stderr >&2; exit 7'
    cwd: /usr
    env: {{WORD: \"it's a $word\"}}
    stdin: from stdin
    ok_codes: [7]
  - run: [printf, '%s.', 'a b', \"it's\"]
  - run: 'echo \"$BASH_VERSION\" | cut -c1'
    shell: [bash, -c]
  - run: id -un
    become: false
  - script: hello.sh
    args: [one, 'two three']
  - run: kill -KILL $$
"
        );
        let script = sshd.directory().join("hello.sh");
        fs::write(&script, "#!/bin/sh\nid -un; printf '<%s>' \"$@\"; echo\n").unwrap();
        let address = sshd.address();
        let expected = "root\n/usr\nit's a $word\nfrom stdin\na b.it's.\n5\nfanrun-test\nroot\n<one><two three>\n";
        let expected: String = expected
            .lines()
            .map(|line| format!("{address} | {line}\n"))
            .collect();
        run(&sshd, &playbook).expect(1, expected, holds(["to stderr", "FAIL", "kill -KILL"]));
    }
}

/// sudo and su are asked, and answered; the password is on no command line and in no output.
#[test]
fn a_password_goes_to_whoever_asks_for_it() {
    let sshd = asking();
    for (method, user) in [("sudo", "root"), ("su", "root"), ("sudo", "daemon")] {
        let playbook = format!(
            "hosts: all
secrets: {{pw: {{env: BECOME_PASSWORD}}}}
become: {{method: {method}, user: {user}, password: \"${{{{ pw }}}}\"}}
tasks:
  - run: 'id -un; cat; cat /proc/[0-9]*/cmdline | tr \"\\0\" \" \" | grep -c \"correct [h]orse\"'
    stdin: the input
    ok_codes: [1]
  - run: [id, -un]
    creates: /etc/shadow-not-there
"
        );
        let address = sshd.address();
        let expected = [user, "the input0", user].map(|line| format!("{address} | {line}\n"));
        run(&sshd, &playbook).expect(0, expected.concat(), |text: &str| {
            !text.contains(PASSWORD) && !text.contains("assword:")
        });
    }
}

/// Nothing ran, and that is certain.
#[test]
fn a_refusal_says_that_nothing_ran() {
    let asking = asking();
    let started = std::time::Instant::now();
    let refused = |sshd: &Sshd, becomes: &str, words: &'static [&'static str]| {
        let mark = sshd.directory().join("ran");
        fs::set_permissions(sshd.directory(), fs::Permissions::from_mode(0o777)).unwrap();
        let playbook = format!(
            "hosts: all\nsecrets: {{pw: {{env: BECOME_PASSWORD}}}}\ntasks:\n  - run: touch {}\n    become: {becomes}\n    retry: 3\n",
            mark.display()
        );
        run(sshd, &playbook)
            .env("BECOME_PASSWORD", "a wrong one")
            .expect(1, "", move |text: &str| {
                let told = words.iter().all(|word| text.contains(word));
                told && text.contains("not started: ") && !text.contains("a wrong one")
            });
        assert!(!mark.exists(), "{becomes}");
    };
    refused(
        &asking,
        "true",
        &["sudo did not let us become root", "password is required"],
    );
    refused(
        &asking,
        "{password: \"${{ pw }}\"}",
        &["sudo did not accept the password"],
    );
    refused(
        &asking,
        "{method: su, password: \"${{ pw }}\"}",
        &["su did not let us become root", "Authentication failure"],
    );
    refused(
        &asking,
        "{method: su}",
        &["su asks for a password to become root"],
    );
    refused(
        &asking,
        "{method: doas, user: daemon}",
        &["doas did not let us become daemon"],
    );
    refused(
        &asking,
        "no-such-account",
        &["sudo did not let us become no-such-account"],
    );
    let none = server("");
    refused(&none, "{password: \"${{ pw }}\"}", &["sudo did not"]);
    // PAM waits two seconds after a wrong password; nobody tried again.
    assert!(started.elapsed() < Duration::from_secs(25));
}

/// Some hosts lock an account after a few wrong passwords: neither an attempt nor a later task nor
/// a question of our own sends one again.
#[test]
fn a_wrong_password_is_sent_once() {
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("sudo.log");
    let sshd = server(&format!(
        "Defaults logfile={}\nfanrun-test ALL=(ALL:ALL) ALL",
        log.display()
    ));
    fs::write(sshd.directory().join("x.sh"), "#!/bin/sh\ntrue\n").unwrap();
    let playbook = "hosts: all
secrets: {pw: {env: BECOME_PASSWORD}}
become: {password: \"${{ pw }}\"}
on_failure: continue
tasks:
  - {name: looks, run: x, creates: /no/such/path}
  - {name: tries, run: x, retry: 3}
  - {name: script, script: x.sh}
  - {name: own, run: id -un, become: false}
";
    let again = "(before; the same password is not sent again)";
    let stdout = format!("{} | {ORDINARY_USER}\n", sshd.address());
    run(&sshd, playbook)
        .env("BECOME_PASSWORD", "a wrong one")
        .expect(1, stdout, move |text: &str| {
            text.matches(again).count() == 2 && text.contains("tasks: 1 ok, 3 failed")
        });
    let tries = |log: &std::path::Path| {
        let text = fs::read_to_string(log).unwrap();
        text.matches("incorrect password attempt").count()
    };
    assert_eq!(tries(&log), 1, "{}", fs::read_to_string(&log).unwrap());
    // What this log shows where one is sent again: the next run knows nothing of the last.
    run(&sshd, playbook)
        .env("BECOME_PASSWORD", "a wrong one")
        .expect(1, anything, anything);
    assert_eq!(tries(&log), 2);
}

/// What belongs to root is ended all the same.
#[test]
fn a_timeout_ends_what_another_account_runs() {
    for (sshd, becomes) in [
        (trusting(), "true"),
        (asking(), "{password: \"${{ pw }}\"}"),
        (asking(), "{method: su, password: \"${{ pw }}\"}"),
    ] {
        let mark = processes::marker("becomes");
        let playbook = format!(
            "hosts: all\nsecrets: {{pw: {{env: BECOME_PASSWORD}}}}\ntasks:\n  - run: 'echo {mark} >/dev/null; sleep 1000.5; true'\n    become: {becomes}\n    timeout: 1s\n"
        );
        run(&sshd, &playbook).expect(1, "", holds(["timed out after 1s, killed"]));
        let left = processes::with_command(&mark);
        assert!(left.is_empty(), "{becomes}: {left:?}");
    }
}

#[test]
fn long_commands_and_much_input_go_through() {
    let sshd = asking();
    let long = "x".repeat(200_000);
    let playbook = format!(
        "hosts: all
secrets: {{pw: {{env: BECOME_PASSWORD}}}}
become: {{password: \"${{{{ pw }}}}\"}}
tasks:
  - run: 'w={long}; echo ${{#w}}; wc -c'
    stdin: {long}
"
    );
    let address = sshd.address();
    let expected = format!("{address} | 200000\n{address} | 200000\n");
    run(&sshd, &playbook).expect(0, expected, anything);
    assert_eq!(sshd.user(), ORDINARY_USER);
}
