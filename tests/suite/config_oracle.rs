//! ssh_config as `ssh -G` reads it: hundreds of generated files, the same values and the same
//! verdict on every one. What ssh prints before it expands it (`IdentityFile`) is written here
//! without anything to expand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanrun::session::ssh::config::{
    Config, ConfigError, Given, HostConfig, StrictHostKeyChecking, local_user,
};

use crate::sshd::write_private;

const FILES: usize = 400;
const HOSTS: [&str; 5] = ["a", "b.x", "A", "web01", "10.0.0.7"];

/// A reproducible choice: the same files every time (Knuth's 64-bit multiplier).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        dice
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

/// Lines that any file may hold. `{d}` is the folder of the file.
const LINES: &[&str] = &[
    "Port 2201",
    "Port=2202",
    "  Port = 2203",
    "\tport\t2204",
    "Port \"2205\"",
    "Port ssh",
    "Port +2206",
    "User u1",
    "User \"u 2\"",
    "User u3 # note",
    "USER=u4",
    "User 'u5'",
    "User u\\ 6",
    "User u\\x",
    "User ''x",
    "HostName real.%h",
    "HostName REAL1",
    "HostName 10.0.0.1",
    "HostName %h%%h",
    "HostName 2001:db8::1",
    "HostName a",
    "HostKeyAlias alias",
    "HostKeyAlias ALIAS",
    "IdentityFile /k/one",
    "IdentityFile /k/t\\ wo",
    "IdentityFile \"/k/three words\"",
    "IdentityFile none",
    "identityfile2 /k/old",
    "IdentitiesOnly yes",
    "IdentitiesOnly NO",
    "HashKnownHosts true",
    "HashKnownHosts no",
    "ConnectTimeout 5",
    "ConnectTimeout 1m30s",
    "ConnectTimeout none",
    "ConnectTimeout 0",
    "ConnectTimeout 1M30",
    "StrictHostKeyChecking yes",
    "StrictHostKeyChecking ASK",
    "StrictHostKeyChecking accept-new",
    "StrictHostKeyChecking off",
    "UserKnownHostsFile /h/%h-%n-%p-%r-%k",
    "UserKnownHostsFile /h/%C/%L/%l/%i/%u",
    "UserKnownHostsFile %d/x ~/y",
    "UserKnownHostsFile ~",
    "UserKnownHostsFile /h/a \"/h/b c\"",
    "UserKnownHostsFile none",
    "UserKnownHostsFile /h/${PATH}x",
    "UserKnownHostsFile /h/$PATH/100%%",
    "UserKnownHostsFile ~root/x ~root",
    "UserKnownHostsFile ~//z //a//b",
    "GlobalKnownHostsFile /g/a /g/%h",
    "GlobalKnownHostsFile ~/x",
    "GlobalKnownHostsFile none",
    "IdentityAgent /run/%r@%h",
    "IdentityAgent none",
    "IdentityAgent ~/agent",
    "IdentityAgent ${PATH}",
    "ServerAliveInterval 5m",
    "SendEnv LANG LC_*",
    "SetEnv A=b \"C=d e\"",
    "ForwardAgent /run/agent",
    "LocalForward 8080 localhost:80",
    "RemoteForward 8080 localhost:80",
    "DynamicForward 127.0.0.1:1080",
    "LogLevel debug2",
    "EscapeChar ^x",
    "RekeyLimit 1G 1h",
    "IPQoS lowdelay throughput",
    "AddKeysToAgent confirm 5m",
    "ControlPersist 10m",
    "ControlMaster autoask",
    "Compression yes",
    "CompressionLevel 6",
    "Protocol 2,1",
    "UseRoaming no",
    "ChallengeResponseAuthentication no",
    "DSAAuthentication yes",
    "PubkeyAuthentication host-bound",
    "CanonicalDomains a.example b.example",
    "TunnelDevice 1:any",
    "RequiredRSASize 2048",
    "StreamLocalBindMask 0111",
    "NumberOfPasswordPrompts 1",
    "RemoteCommand echo \"a b\" c",
    "LocalCommand x y",
    "GSSAPIAuthentication yes",
    "IgnoreUnknown foo*,UseKeychain",
    "IgnoreUnknown *",
    "# a comment",
    "",
    "   ",
    "\x0c",
    "#Port 1",
    "  # Port 1",
];

/// Lines that begin a block.
const BLOCKS: &[&str] = &[
    "Host a",
    "Host *",
    "Host !a *",
    "Host a !a",
    "Host b.* A",
    "Host ?",
    "Host \"a\" b.x",
    "Host=web01",
    "Host web??",
    "Host 10.0.0.*",
    "Host *.X",
    "Host real*",
    "host REAL1 real1",
    "Match all",
    "Match !all",
    "Match host a",
    "Match host A,b.x",
    "Match !host a",
    "Match host *,!a",
    "Match originalhost A",
    "Match !originalhost a,b*",
    "Match host real* user u1",
    "Match user u*",
    "Match !user u1",
    "Match user U1",
    "Match localuser {u}",
    "Match localuser nobody",
    "Match !localuser {u},x",
    "Match host=a",
    "Match host = web01",
    "Match host \"a\" !user x",
    "Match host a all",
    "Match final",
    "Match !final",
    "Match canonical",
    "Match final host real.a",
    "Match final all",
    "Match !canonical host b.x",
    "MATCH HOST web01 # note",
    "Match host a exec",
];

/// Lines that ssh does not accept, or only where something else stands above.
const BAD: &[&str] = &[
    "Port 0",
    "Port x",
    "Port 65536",
    "Port 22 23",
    "Port -1",
    "Port",
    "Port ",
    "User",
    "User \"\"",
    "User a b",
    "User \"a",
    "User 'a",
    "Foo bar",
    "FooBar 1 2",
    "UseKeychain yes",
    "Foo \"x",
    "IdentitiesOnly maybe",
    "IdentitiesOnly yes no",
    "StrictHostKeyChecking sometimes",
    "ConnectTimeout 5x",
    "ConnectTimeout m",
    "ConnectTimeout 99999999999",
    "HostName %n",
    "HostName x%",
    "HostName a b",
    "UserKnownHostsFile /h/%z",
    "UserKnownHostsFile ~no-such-account/x",
    "UserKnownHostsFile ${NO_SUCH_VARIABLE_}",
    "UserKnownHostsFile none /x",
    "UserKnownHostsFile /h/${OPEN",
    "UserKnownHostsFile \"\"",
    "GlobalKnownHostsFile /x none",
    "IdentityAgent $NO-NAME",
    "IdentityAgent ${NO_SUCH_VARIABLE_}",
    "SendEnv A=B",
    "SetEnv A",
    "LocalForward 1",
    "LocalForward x y:1",
    "LocalForward 1 host",
    "DynamicForward x",
    "LogLevel loud",
    "EscapeChar xx",
    "ControlMaster perhaps",
    "ControlPersist x",
    "AddKeysToAgent maybe",
    "NumberOfPasswordPrompts x",
    "ServerAliveCountMax -1",
    "StreamLocalBindMask 999",
    "RequestTTY si",
    "FingerprintHash crc",
    "SyslogFacility x",
    "AddressFamily ipx",
    "Match",
    "Match foo x",
    "Match host",
    "Match user",
    "Match all host a",
    "Match host a user b all",
    "Match host \"a",
    "Host",
    "Host \"\"",
    "Include ~/\"x",
    "Compression maybe",
    "Tunnel x",
    "CanonicalDomains none a",
    "ForwardAgent $A-B",
    "HashKnownHosts ask",
    "IdentityFile",
    "IdentityFile a b",
    "\"Port\" 7",
    "=Port 7",
    "Port == 7",
    "Port 7 # x",
    "Port 7#x",
];

fn line(dice: &mut Dice, folder: &Path, depth: usize, name: &str) -> String {
    let user = local_user().unwrap();
    match dice.below(100) {
        0..2 => dice.pick(BAD).to_owned(),
        2..35 => dice.pick(BLOCKS).replace("{u}", &user),
        35..42 if depth < 3 => {
            let (folders, part) = (["x", "y"], dice.below(1000));
            let sub = folder.join(dice.pick(&folders));
            std::fs::create_dir_all(&sub).unwrap();
            let file = format!("{name}-{part}.conf");
            let text = text(dice, folder, depth + 1, &format!("{name}{part}"));
            write_private(&sub.join(&file), &text);
            let shown = folder.display();
            match dice.below(4) {
                0 => format!("Include {shown}/?/{name}-*.conf"),
                1 => format!("Include {shown}/[xy]/{file} {shown}/none/*"),
                2 => format!("Include \"{}\" {shown}", sub.join(&file).display()),
                _ => format!("  include={}", sub.join(&file).display()),
            }
        }
        _ => dice.pick(LINES).to_owned(),
    }
}

fn text(dice: &mut Dice, folder: &Path, depth: usize, name: &str) -> String {
    let lines = 1 + dice.below(if depth == 0 { 16 } else { 6 });
    let end = if dice.one_in(6) { "\r\n" } else { "\n" };
    let lines: Vec<String> = (0..lines)
        .map(|_| line(dice, folder, depth, name))
        .collect();
    let last = if dice.one_in(5) { "" } else { end };
    lines.join(end) + last
}

/// What `ssh -G` says, by keyword; `Err` holds its words where it refuses.
fn judge(path: &Path, name: &str, args: &[&str]) -> Result<HashMap<String, Vec<String>>, String> {
    let mut command = Command::new("ssh");
    command.arg("-G").arg("-F").arg(path).args(args).arg(name);
    let output = command
        .output()
        .expect("ssh is needed: apt-get install openssh-client");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        found
            .entry(keyword.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    Ok(found)
}

/// The home directory as ssh sees it.
fn home() -> PathBuf {
    let found = judge(Path::new("/dev/null"), "x", &["-oUserKnownHostsFile=~"]).unwrap();
    PathBuf::from(found["userknownhostsfile"][0].trim_end_matches('/'))
}

fn words(paths: &[PathBuf]) -> String {
    let words: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    words.join(" ")
}

/// Ours in the words of `ssh -G`, each beside theirs.
fn pairs(
    ours: &HostConfig,
    theirs: &HashMap<String, Vec<String>>,
    name: &str,
    user: &str,
) -> Vec<(&'static str, String, String)> {
    let their = |keyword: &str| {
        theirs
            .get(keyword)
            .map_or(String::new(), |all| all.join("|"))
    };
    let mut pairs = Vec::new();
    let mut pair = |keyword: &'static str, our: String| pairs.push((keyword, our, their(keyword)));
    let host = ours
        .hostname
        .clone()
        .unwrap_or_else(|| name.to_ascii_lowercase());
    pair("hostname", host);
    pair("port", ours.port.unwrap_or(22).to_string());
    pair(
        "user",
        ours.user.clone().map_or(user.to_owned(), |user| user.0),
    );
    pair("identitiesonly", yes(ours.identities_only));
    pair("hashknownhosts", yes(ours.hash_known_hosts));
    let checking = match ours.strict_host_key_checking {
        None | Some(StrictHostKeyChecking::Ask) => "ask",
        Some(StrictHostKeyChecking::Yes) => "true",
        Some(StrictHostKeyChecking::AcceptNew) => "accept-new",
        Some(StrictHostKeyChecking::Off) => "false",
    };
    pair("stricthostkeychecking", checking.to_owned());
    pair(
        "hostkeyalias",
        ours.host_key_alias.clone().unwrap_or_default(),
    );
    if let Some(files) = &ours.identity_files {
        let files: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        pairs.push((
            "identityfile",
            files.join("|"),
            their("identityfile")
                .replace("|none", "")
                .replace("none|", "")
                .replace("none", ""),
        ));
    } else {
        pairs.push((
            "identityfile",
            "~/.ssh/id_rsa".into(),
            theirs["identityfile"][0].clone(),
        ));
    }
    for (keyword, ours, default) in [
        (
            "userknownhostsfile",
            &ours.user_known_hosts,
            "/.ssh/known_hosts2",
        ),
        (
            "globalknownhostsfile",
            &ours.global_known_hosts,
            "/etc/ssh/ssh_known_hosts2",
        ),
    ] {
        let theirs = their(keyword);
        match ours {
            None => pairs.push((
                keyword,
                "as always".into(),
                if theirs.ends_with(default) {
                    "as always".into()
                } else {
                    theirs
                },
            )),
            Some(files) if files.is_empty() => pairs.push((keyword, "none".into(), theirs)),
            Some(files) => pairs.push((keyword, words(files), theirs)),
        }
    }
    let agent = match &ours.identity_agent {
        None => String::new(),
        Some(None) => "none".to_owned(),
        Some(Some(path)) => path.display().to_string(),
    };
    pairs.push(("identityagent", agent, their("identityagent")));
    let theirs = their("connecttimeout");
    let time = ours
        .connect_timeout
        .map_or("none".to_owned(), |time| time.as_secs().to_string());
    pairs.push((
        "connecttimeout",
        time,
        if theirs == "0" { "none".into() } else { theirs },
    ));
    pairs
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// How one file fared. `None`: as it should.
fn difference(path: &Path, name: &str, home: &Path, dice: &mut Dice) -> Option<String> {
    let user = dice.one_in(4).then_some("u1");
    let port = dice.one_in(5).then_some(2299);
    let given = Given {
        user,
        port,
        ..Given::default()
    };
    let shown = port.unwrap_or(0).to_string();
    let mut args = user.map_or(vec![], |user| vec!["-l", user]);
    args.extend(port.map_or(vec![], |_| vec!["-p", &shown]));
    let ours = Config::open(path, home).and_then(|config| config.for_host(name, &given));
    let theirs = judge(path, name, &args);
    match (ours, theirs) {
        (Err(ConfigError::Unsupported { .. }), _) => Some("nothing here is unsupported".into()),
        (Ok(ours), Ok(theirs)) => {
            let local = local_user().unwrap();
            let mut pairs = pairs(&ours, &theirs, name, &local);
            pairs.retain(|(keyword, ours, theirs)| {
                ours != theirs && !(*keyword == "user" && user == Some(theirs))
            });
            let lines: Vec<_> = pairs
                .iter()
                .map(|(keyword, ours, theirs)| {
                    format!("{keyword}: ours {ours:?}, ssh's {theirs:?}")
                })
                .collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        }
        (Err(_), Err(_)) => None,
        (Ok(_), Err(said)) => Some(format!("we accept it, ssh does not: {said}")),
        (Err(error), Ok(_)) => Some(format!("ssh accepts it, we do not: {error}")),
    }
}

#[test]
fn generated_files_mean_what_ssh_takes_them_for() {
    let root = tempfile::tempdir().unwrap();
    let home = home();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= FILES {
                return found;
            }
            let mut dice = Dice::new(number as u64);
            let folder = root.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            let text = text(&mut dice, &folder, 0, "f");
            let path = folder.join("config");
            write_private(&path, &text);
            for _ in 0..2 {
                let name = dice.pick(&HOSTS);
                if let Some(said) = difference(&path, name, &home, &mut dice) {
                    found.push(format!("--- {number}, host {name}\n{text}\n--- {said}"));
                }
            }
        }
    };
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        found.is_empty(),
        "{} differences\n{}",
        found.len(),
        found.join("\n\n")
    );
}

/// Every line of the tables by itself, and in a block that does not apply.
#[test]
fn every_line_alone_is_judged_as_ssh_does() {
    let root = tempfile::tempdir().unwrap();
    let home = home();
    let user = local_user().unwrap();
    let lines: Vec<&str> = [LINES, BLOCKS, BAD].concat();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(line) = lines.get(number) else {
                return found;
            };
            let line = line.replace("{u}", &user);
            for (part, text) in [format!("{line}\n"), format!("Host other\n{line}\n")]
                .iter()
                .enumerate()
            {
                let path = root.path().join(format!("{number}-{part}"));
                write_private(&path, text);
                if let Some(said) = difference(&path, "a", &home, &mut Dice::new(7)) {
                    found.push(format!("--- {text}--- {said}"));
                }
            }
        }
    };
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        found.is_empty(),
        "{} differences\n{}",
        found.len(),
        found.join("\n\n")
    );
}
