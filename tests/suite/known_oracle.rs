//! known_hosts as the real `ssh` judges it: generated files, real servers, the same verdict on
//! every one.
//!
//! `ssh` is let in with no way to log in: what it says at the end tells whether the identity was
//! accepted ("Permission denied") or why it was not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanrun::outcome::Cause;
use fanrun::session::ssh::{Asker, Dialer, Sizing};
use fanrun::target::{Dial, HostKeyPolicy, UserName};

use crate::config_oracle::Dice;
use crate::sshd::{Sshd, make_key};

const FILES: usize = 220;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Unknown,
    Changed,
    Revoked,
}

/// A server and the name under which it is asked for.
struct Asked<'a> {
    sshd: &'a Sshd,
    kinds: &'a [&'a str],
    /// `HostKeyAlias`; without one the address and the port count.
    alias: Option<&'a str>,
}

impl Asked<'_> {
    /// The name as it stands in known_hosts.
    fn name(&self) -> String {
        let port = self.sshd.port();
        self.alias
            .map_or(format!("[127.0.0.1]:{port}"), str::to_ascii_lowercase)
    }
}

fn ssh(asked: &Asked<'_>, known: &Path) -> Verdict {
    let mut command = Command::new("ssh");
    command.args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=yes"]);
    command.args(["-o", "BatchMode=yes", "-o", "PreferredAuthentications=none"]);
    command.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o"]);
    command.arg(format!("UserKnownHostsFile={}", known.display()));
    if let Some(alias) = asked.alias {
        command.args(["-o", &format!("HostKeyAlias={alias}")]);
    }
    command.args(["-p", &asked.sshd.port().to_string(), "127.0.0.1", "true"]);
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("ssh is needed: apt-get install openssh-client");
    let said = String::from_utf8_lossy(&output.stderr);
    let has = |words: &str| said.contains(words);
    match () {
        () if has("Permission denied") => Verdict::Accepted,
        () if has("REVOKED HOST KEY") || has("is revoked") => Verdict::Revoked,
        () if has("IDENTIFICATION HAS CHANGED") => Verdict::Changed,
        () if has("host key is known for") => Verdict::Unknown,
        () => panic!("ssh said: {said}"),
    }
}

async fn ours(asked: &Asked<'_>, known: &Path) -> Verdict {
    let dial = Dial {
        address: "127.0.0.1".into(),
        port: asked.sshd.port(),
        user: UserName::new("nobody").unwrap(),
        known_as: asked.alias.unwrap_or("127.0.0.1").into(),
        identities: vec![],
        identities_only: true,
        hash_known_hosts: false,
        agent: None,
        password: None,
        known_hosts: vec![known.into()],
        global_known_hosts: vec![],
        host_key_policy: HostKeyPolicy::Strict,
        connect_timeout: Duration::from_secs(20),
        user_origin: "the test".into(),
    };
    let dialer = Dialer::new(Asker::none(), Sizing::default());
    let problem = dialer.connect(&dial).await.expect_err("nobody may log in");
    let said = &problem.message;
    match problem.cause {
        Cause::Authentication => Verdict::Accepted,
        // A certificate authority is recorded, and the server shows no certificate: to ssh, too,
        // the key is an unknown one.
        Cause::HostKey if said.contains("not known") || said.contains("authority") => {
            Verdict::Unknown
        }
        Cause::HostKey if said.contains("has changed") => Verdict::Changed,
        Cause::HostKey if said.contains("is revoked") => Verdict::Revoked,
        other => panic!("{other:?}: {said}"),
    }
}

/// Keys that no server has.
struct Strangers(Vec<String>);

impl Strangers {
    fn make(folder: &Path) -> Strangers {
        let keys = ["ed25519", "ecdsa", "rsa"].map(|kind| {
            let path = folder.join(kind);
            make_key(kind, &path);
            let text = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let words: Vec<_> = text.split(' ').take(2).collect();
            words.join(" ")
        });
        Strangers(keys.to_vec())
    }
}

/// A name as `ssh-keygen -H` hides it.
fn hashed(folder: &Path, name: &str) -> String {
    let file = folder.join(format!("hash-{}", name.replace(['[', ']', ':'], "_")));
    if !file.exists() {
        let key = std::fs::read_to_string(folder.join("ed25519.pub")).unwrap();
        std::fs::write(&file, format!("{name} {key}")).unwrap();
        let mut command = Command::new("ssh-keygen");
        let output = command.arg("-H").arg("-f").arg(&file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let text = std::fs::read_to_string(file).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

fn names(dice: &mut Dice, name: &str, folder: &Path) -> String {
    match dice.below(24) {
        0..8 => name.to_owned(),
        8 => name.to_ascii_uppercase(),
        9 => "*".to_owned(),
        10 => format!("*,!{name}"),
        11 => format!("!{name},*"),
        12 => format!("other,{name}"),
        13 => format!("{name},"),
        14 => format!(",{name},::1"),
        15 => format!("!other,{}*", &name[..2]),
        16 => format!("?{}", &name[1..]),
        17 => format!("!*,{name}"),
        18 | 19 => hashed(folder, name),
        20 => hashed(folder, "other"),
        21 => format!("|1|{}|{}", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        22 => "127.0.0.1".to_owned(),
        _ => "other,[127.0.0.1]:1,::1".to_owned(),
    }
}

fn key(dice: &mut Dice, asked: &Asked<'_>, strangers: &Strangers) -> String {
    let right = asked.sshd.host_key(dice.pick(asked.kinds));
    let (kind, blob) = right.split_once(' ').unwrap();
    let stranger = &strangers.0[dice.below(3)];
    match dice.below(22) {
        0..9 => right,
        9..13 => stranger.clone(),
        13 => format!("ED25519 {blob}"),
        14 => format!("rsa {blob}"),
        15 => format!("rsa-sha2-512 {blob}"),
        16 => format!("{kind} {}", &blob[..20]),
        17 => format!("ssh-unheard-of {blob}"),
        18 => format!("{kind}   {blob}"),
        19 => format!("1024 35 {}", 12_345),
        20 => format!("{}{} {blob}", kind, "x"),
        _ => kind.to_owned(),
    }
}

fn line(dice: &mut Dice, asked: &Asked<'_>, strangers: &Strangers, folder: &Path) -> String {
    let begin = ["", "", "", "", "", "", "  ", "\t", "#", "# "];
    let marker = match dice.below(16) {
        0 | 1 => "@revoked ",
        2 => "@cert-authority ",
        3 => dice.pick(&[
            "@revoked\t",
            "@revoked \t",
            "@unheard ",
            "@revoked @revoked ",
            "@",
            "@REVOKED ",
            "@revoked  ",
        ]),
        _ => "",
    };
    let end = [
        "",
        "",
        "",
        "",
        " comment",
        " # two words",
        "  ",
        "\t",
        "\r",
        " comment\r",
        "\0x",
    ];
    let gap = dice.pick(&[" ", " ", " ", "\t", "  "]);
    let names = names(dice, &asked.name(), folder);
    let key = key(dice, asked, strangers);
    format!(
        "{}{marker}{names}{gap}{key}{}",
        dice.pick(&begin),
        dice.pick(&end)
    )
}

fn file(dice: &mut Dice, asked: &Asked<'_>, strangers: &Strangers, folder: &Path) -> String {
    let count = 1 + dice.below(5);
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(match dice.below(30) {
            0 => String::new(),
            1 => "nonsense".to_owned(),
            2 => "   \t ".to_owned(),
            _ => line(dice, asked, strangers, folder),
        });
    }
    let end = if dice.one_in(3) { "" } else { "\n" };
    lines.join(if dice.one_in(12) { "\r\n" } else { "\n" }) + end
}

/// Ours is stricter in two things: a tab ends a marker, whatever follows, and a key that is
/// revoked for the name without the port is revoked.
fn is_stricter(asked: &Asked<'_>, text: &str, theirs: Verdict, ours: Verdict) -> bool {
    let mut lines = text.lines().map(str::trim_start);
    let tabbed = lines.any(|line| line.starts_with("@revoked\t"));
    let portless = asked.alias.is_none() && theirs == Verdict::Unknown;
    ours == Verdict::Revoked && (tabbed || portless)
}

#[test]
fn generated_known_hosts_get_the_verdict_of_ssh() {
    let root = tempfile::tempdir().unwrap();
    let strangers = Strangers::make(root.path());
    let kinds: [&[&str]; 5] = [
        &["ed25519"],
        &["ecdsa"],
        &["rsa"],
        &["ed25519", "ecdsa", "rsa"],
        &["ecdsa", "rsa"],
    ];
    let servers: Vec<Sshd> = kinds
        .iter()
        .map(|kinds| {
            let kinds: Vec<&'static str> = kinds.to_vec();
            Sshd::builder().host_keys(&kinds).start()
        })
        .collect();
    hashed(root.path(), "other");
    let next = AtomicUsize::new(0);
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= FILES {
                return found;
            }
            let mut dice = Dice::new(number as u64);
            let server = dice.below(servers.len());
            let asked = Asked {
                sshd: &servers[server],
                kinds: kinds[server],
                alias: [None, Some("box"), Some("Box.Example")][dice.below(3)],
            };
            let folder = root.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::copy(root.path().join("ed25519.pub"), folder.join("ed25519.pub")).unwrap();
            let text = file(&mut dice, &asked, &strangers, &folder);
            let path: PathBuf = folder.join("known_hosts");
            std::fs::write(&path, &text).unwrap();
            let (theirs, ours) = (ssh(&asked, &path), runtime.block_on(ours(&asked, &path)));
            found.push((
                theirs,
                (theirs != ours && !is_stricter(&asked, &text, theirs, ours)).then(|| {
                    format!(
                        "--- {number}, {} as {}: ours {ours:?}, ssh's {theirs:?}\n{text:?}",
                        asked.kinds.join("+"),
                        asked.name()
                    )
                }),
            ));
        }
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let differences: Vec<_> = found
        .iter()
        .filter_map(|(_, said)| said.as_deref())
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
    // Files that all get one verdict would prove nothing.
    for verdict in [
        Verdict::Accepted,
        Verdict::Unknown,
        Verdict::Changed,
        Verdict::Revoked,
    ] {
        let count = found
            .iter()
            .filter(|(theirs, _)| *theirs == verdict)
            .count();
        assert!(count >= 10, "{verdict:?} only {count} times");
    }
}
