//! Host keys: the same verdict as OpenSSH's own client for generated known_hosts files, and what
//! a person at a terminal is asked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanrun::outcome::{Cause, HostProblem};
use fanrun::session::ssh::{Asker, Dialer, Sizing, SshSession};
use fanrun::target::{Dial, HostKeyPolicy, UserName};

use crate::fanrun::{Fanrun, holds};
use crate::sftp_servers::SftpServer;
use crate::sshd::{Sshd, make_key};

/// What became of the host's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Unknown,
    Changed,
    Revoked,
}

/// How many files are made.
const CASES: usize = 180;
/// ssh processes at once.
const AT_ONCE: usize = 4;
const ALIAS: &str = "web1.example.com";

/// A generator of one's own, so that a failing case can be told by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.next() % of.len() as u64).unwrap()]
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

struct Case {
    server: usize,
    alias: bool,
    text: String,
}

/// Servers that show one kind of key each, and keys of strangers by kind.
struct World {
    servers: Vec<Sshd>,
    strangers: Vec<String>,
}

impl World {
    fn new(dir: &Path) -> World {
        let kinds = ["ed25519", "ecdsa", "rsa"];
        let servers = kinds.map(|kind| Sshd::builder().host_key(kind).start());
        let strangers = kinds.map(|kind| {
            let path = dir.join(format!("stranger_{kind}"));
            make_key(kind, &path);
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let mut words = public.split_whitespace();
            format!("{} {}", words.next().unwrap(), words.next().unwrap())
        });
        World {
            servers: servers.into(),
            strangers: strangers.to_vec(),
        }
    }

    fn own_key(&self, server: usize) -> String {
        self.servers[server].host_key(["ed25519", "ecdsa", "rsa"][server])
    }

    fn case(&self, random: &mut Random) -> Case {
        let server = usize::try_from(random.next() % 3).unwrap();
        let alias = !random.one_in(3);
        let name = if alias {
            ALIAS.to_owned()
        } else {
            format!("[127.0.0.1]:{}", self.servers[server].port())
        };
        let mut text = String::new();
        for _ in 0..1 + random.next() % 4 {
            text.push_str(&self.line(random, server, &name));
            let end: &&str = random.pick(&["\n", "\n", "\n", "\r\n", "\n\n", " \n"]);
            text.push_str(end);
        }
        if random.one_in(8) {
            text.truncate(text.trim_end().len());
        }
        Case {
            server,
            alias,
            text,
        }
    }

    fn line(&self, random: &mut Random, server: usize, name: &str) -> String {
        if random.one_in(12) {
            let odd = [
                "# a comment",
                "",
                "nonsense",
                "one two",
                "\tx",
                "@revoked",
                "* ssh-rsa",
            ];
            return (*random.pick(&odd)).to_owned();
        }
        let marker = *random.pick(&["", "", "", "", "", "@revoked ", "@cert-authority ", "@new "]);
        let names = names(random, name);
        let key = match random.next() % 4 {
            0 => random.pick(&self.strangers).clone(),
            1 => self.strangers[server].clone(),
            _ => self.own_key(server),
        };
        let key = match random.next() % 16 {
            0 => key.replace("ssh-", "shh-"),
            1 => key[..key.len() - 9].to_owned(),
            _ => key,
        };
        let space = *random.pick(&[" ", " ", "\t", "  "]);
        let comment = *random.pick(&["", "", " a comment", " # x"]);
        let before = *random.pick(&["", "", "", " ", "\t"]);
        format!("{before}{marker}{names}{space}{key}{comment}")
    }
}

/// A field of names that may or may not mean `name`.
fn names(random: &mut Random, name: &str) -> String {
    let upper = name.to_uppercase();
    let other = "other.example.net".to_owned();
    let wild = match name.strip_prefix('[') {
        Some(_) => [
            "*".to_owned(),
            "[127.0.0.?]:*".to_owned(),
            "[127.*".to_owned(),
            "127.0.0.1".to_owned(),
        ],
        None => [
            "*".to_owned(),
            "web?.example.com".to_owned(),
            "*.com".to_owned(),
            "WEB*".to_owned(),
        ],
    };
    let one = |random: &mut Random| match random.next() % 10 {
        0..=3 => name.to_owned(),
        4 => upper.clone(),
        5 => other.clone(),
        6 | 7 => random.pick(&wild).clone(),
        8 => format!("!{name}"),
        _ => format!("!{}", random.pick(&wild)),
    };
    match random.next() % 8 {
        0 => hashed(name),
        1 => hashed(&other),
        2 => format!("{},{}", one(random), one(random)),
        3 => format!("{},{},{}", one(random), one(random), one(random)),
        _ => one(random),
    }
}

/// As `ssh-keygen -H` writes a name.
fn hashed(name: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1lZGlldmFsIGNhc3RsZXMgYW5kIGtuaWdodHMg";
    std::fs::write(&file, format!("{name} {key}\n")).unwrap();
    let output = Command::new("ssh-keygen")
        .args(["-H", "-f"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

/// What OpenSSH's client says. It offers no way to log in, so that a right key ends in a refusal of
/// the login.
fn by_ssh(world: &World, case: &Case, file: &Path) -> Verdict {
    let mut command = Command::new("ssh");
    command.args([
        "-F",
        "/dev/null",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "BatchMode=yes",
    ]);
    command.args([
        "-o",
        "GlobalKnownHostsFile=/dev/null",
        "-o",
        "PreferredAuthentications=none",
    ]);
    command.args(["-o", "UpdateHostKeys=no", "-o"]);
    command.arg(format!("UserKnownHostsFile={}", file.display()));
    if case.alias {
        command.args(["-o", &format!("HostKeyAlias={ALIAS}")]);
    }
    let port = world.servers[case.server].port().to_string();
    command.args(["-p", &port, "127.0.0.1", "true"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("Permission denied") {
        Verdict::Accepted
    } else if said.contains("REVOKED HOST KEY") {
        Verdict::Revoked
    } else if said.contains("IDENTIFICATION HAS CHANGED") {
        Verdict::Changed
    } else if said.contains("host key is known for") {
        Verdict::Unknown
    } else {
        panic!("ssh said {said}\nof\n{}", case.text);
    }
}

fn dial(world: &World, case: &Case, file: PathBuf) -> Dial {
    let address = "127.0.0.1".to_owned();
    Dial {
        known_as: if case.alias {
            ALIAS.to_owned()
        } else {
            address.clone()
        },
        address,
        port: world.servers[case.server].port(),
        user: UserName::new("nobody").unwrap(),
        identities: vec![],
        identities_only: true,
        hash_known_hosts: false,
        agent: None,
        password: None,
        known_hosts: vec![file],
        global_known_hosts: vec![],
        host_key_policy: HostKeyPolicy::Strict,
        connect_timeout: Duration::from_secs(20),
        user_origin: "the test".into(),
    }
}

fn by_fanrun(attempt: Result<SshSession, HostProblem>) -> Verdict {
    let problem = attempt.expect_err("nobody can log in");
    match problem.cause {
        Cause::Authentication => Verdict::Accepted,
        Cause::HostKey if problem.message.contains("has changed") => Verdict::Changed,
        Cause::HostKey if problem.message.contains("is revoked") => Verdict::Revoked,
        Cause::HostKey => Verdict::Unknown,
        _ => panic!("{problem:?}"),
    }
}

#[test]
fn known_hosts_files_are_judged_as_openssh_judges_them() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(dir.path());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let cases: Vec<Case> = (0..CASES).map(|_| world.case(&mut random)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let next = AtomicUsize::new(0);
    let differences = Mutex::new(Vec::new());
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = tempfile::NamedTempFile::new().unwrap();
                    std::fs::write(file.path(), &case.text).unwrap();
                    let theirs = by_ssh(&world, case, file.path());
                    let to = dial(&world, case, file.path().to_owned());
                    let dialer = Dialer::new(Asker::none(), Sizing::default());
                    let ours = by_fanrun(runtime.block_on(dialer.connect(&to)));
                    seen.lock().unwrap().push(theirs);
                    if ours != theirs {
                        let kind = ["ed25519", "ecdsa", "rsa"][case.server];
                        let text =
                            format!("{kind}, ssh {theirs:?}, fanrun {ours:?}:\n{}", case.text);
                        differences.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n---\n"));
    let seen = seen.into_inner().unwrap();
    for verdict in [
        Verdict::Accepted,
        Verdict::Unknown,
        Verdict::Changed,
        Verdict::Revoked,
    ] {
        let count = seen.iter().filter(|one| **one == verdict).count();
        assert!(count >= 8, "{verdict:?} came only {count} times");
    }
}

fn asking(sshd: &Sshd, known_hosts: &Path) -> Fanrun {
    Fanrun::new(["exec", &sshd.address(), "--", "echo came in"]).options([
        "--port",
        &sshd.port().to_string(),
        "--user",
        sshd.user(),
        "--identity",
        sshd.identity().to_str().unwrap(),
        "--known-hosts",
        known_hosts.to_str().unwrap(),
    ])
}

#[test]
fn on_a_terminal_an_unknown_key_is_shown_and_asked_about() {
    let sshd = Sshd::start();
    let known_hosts = sshd.directory().join("asked");
    let output = Command::new("ssh-keygen")
        .args(["-l", "-f"])
        .arg(sshd.directory().join("host_key_ed25519.pub"))
        .output()
        .unwrap();
    let fingerprint = String::from_utf8(output.stdout).unwrap();
    let fingerprint = fingerprint.split_whitespace().nth(1).unwrap().to_owned();

    let mut no = asking(&sshd, &known_hosts).spawn_on_terminal(160, 30);
    no.await_screen("unknown host key");
    assert!(no.screen().contains(&fingerprint), "{}", no.screen());
    no.type_keys("no\r");
    no.expect(4, holds(["is not known"]));
    assert!(!known_hosts.exists(), "a refused key is not recorded");

    let mut pasted = asking(&sshd, &known_hosts).spawn_on_terminal(160, 30);
    pasted.await_screen("unknown host key");
    pasted.type_keys(&format!("{fingerprint}\r"));
    pasted.expect(0, holds(["came in"]));
    let recorded = std::fs::read_to_string(&known_hosts).unwrap();
    assert!(recorded.contains(&sshd.host_key("ed25519")), "{recorded}");
    asking(&sshd, &known_hosts).expect(0, holds(["came in"]), holds(["OK"]));

    std::fs::remove_file(&known_hosts).unwrap();
    let mut yes = asking(&sshd, &known_hosts).spawn_on_terminal(160, 30);
    yes.await_screen("unknown host key");
    yes.type_keys("yes\r");
    yes.expect(0, holds(["came in"]));
    assert!(known_hosts.exists());
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let sshd = Sshd::start();
    let known_hosts = sshd.directory().join("asked");
    asking(&sshd, &known_hosts)
        .options(["--host-key", "ask"])
        .expect(4, "", holds(["is not known"]));
    assert!(!known_hosts.exists());
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
