//! Tables for the rules, and `ssh -G` as the judge over generated files.

use std::process::Command;

use proptest::prelude::*;

use super::*;

fn config(text: &str) -> (tempfile::TempDir, Config) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    let path = home.path().join(".ssh/config");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), None, home.path()).unwrap();
    (home, config)
}

fn host(text: &str, name: &str) -> HostConfig {
    config(text).1.for_host(name, None).unwrap()
}

#[test]
fn the_first_value_wins_and_later_blocks_fill_in() {
    let text =
        "Host web*\n  User deploy\n  Port 2222\nHost *\n  User other\n  ConnectTimeout 1m30s\n";
    let found = host(text, "web1");
    assert_eq!(
        found.user,
        Some(("deploy".into(), "~/.ssh/config:2".into()))
    );
    assert_eq!(found.port, Some(2222));
    assert_eq!(found.connect_timeout, Some(Duration::from_secs(90)));
    assert_eq!(host(text, "db").user.unwrap().0, "other");
}

#[test]
fn quotes_equal_signs_and_comments_are_read_as_ssh_does() {
    let text = "# x\nHost \"a b\" web\nHostName=real.example  # note\nIdentityFile \"~/my key\"\n";
    let (home, config) = config(text);
    let found = config.for_host("web", None).unwrap();
    assert_eq!(found.hostname.as_deref(), Some("real.example"));
    assert_eq!(found.identity_files, [home.path().join("my key")]);
}

#[test]
fn case_counts_for_host_and_user_and_not_for_match_host() {
    let text = "Host WEB\n  Port 1\nMatch host WEB user ROOT\n  Port 2\nMatch host WEB\n  Port 3\n";
    let (_home, config) = config(text);
    assert_eq!(config.for_host("WEB", None).unwrap().port, Some(1));
    assert_eq!(config.for_host("web", Some("root")).unwrap().port, Some(3));
    assert_eq!(config.for_host("web", Some("ROOT")).unwrap().port, Some(2));
}

#[test]
fn a_backslash_keeps_a_space() {
    let (home, config) = config("IdentityFile ~/my\\ key\n");
    let found = config.for_host("web", None).unwrap();
    assert_eq!(found.identity_files, [home.path().join("my key")]);
}

#[test]
fn negation_and_match_conditions() {
    let text = "Host *.example !bad.example\n  Port 1\nMatch host real user root\n  Port 2\nMatch all\n  Port 3\n";
    assert_eq!(host(text, "a.example").port, Some(1));
    assert_eq!(host(text, "bad.example").port, Some(3));
    let (_home, config) = config(text);
    assert_eq!(config.for_host("real", Some("root")).unwrap().port, Some(2));
    assert_eq!(config.for_host("real", Some("me")).unwrap().port, Some(3));
}

#[test]
fn nothing_is_executed_and_the_block_is_named() {
    let home = tempfile::tempdir().unwrap();
    let made = home.path().join("made");
    let text = format!("Match exec \"touch {}\"\n  Port 9\n", made.display());
    let found = host(&text, "web");
    assert_eq!(found.port, None);
    assert!(
        found.warnings[0].contains("Match exec"),
        "{:?}",
        found.warnings
    );
    assert!(!made.exists());
}

#[test]
fn a_jump_host_is_an_error_and_none_is_none() {
    let (_home, config) = config("Host a\n  ProxyJump none\nHost *\n  ProxyJump bastion\n");
    assert!(config.for_host("a", None).is_ok());
    let error = config.for_host("b", None).unwrap_err().to_string();
    assert!(
        error.contains("~/.ssh/config:4") && error.contains("ProxyJump"),
        "{error}"
    );
}

#[test]
fn other_keywords_are_named_once_and_harmless_ones_not_at_all() {
    let text = "Host *\n  Compression yes\n  SendEnv LANG LC_*\n  HashKnownHosts no\n  Ciphers aes128-ctr\n  ciphers x\n";
    let found = host(text, "web");
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    assert!(found.warnings[0].starts_with("~/.ssh/config:5: `Ciphers`"));
}

#[test]
fn the_stock_file_of_debian_gives_no_warning() {
    let text = "Include /nonexistent/*.conf\nHost *\n    SendEnv LANG LC_*\n    GSSAPIAuthentication yes\n";
    assert_eq!(host(text, "web").warnings, Vec::<String>::new());
}

#[test]
fn includes_apply_where_they_stand() {
    let (home, _) = config("");
    let ssh = home.path().join(".ssh");
    std::fs::create_dir(ssh.join("conf.d")).unwrap();
    std::fs::write(ssh.join("conf.d/1.conf"), "Port 7\nHost b\n  User only-b\n").unwrap();
    std::fs::write(
        ssh.join("config"),
        "Host a\n  Include conf.d/*.conf\nHost *\n  Port 8\n",
    )
    .unwrap();
    let config = Config::load(Some(&ssh.join("config")), None, home.path()).unwrap();
    assert_eq!(config.for_host("a", None).unwrap().port, Some(7));
    let b = config.for_host("b", None).unwrap();
    assert_eq!((b.port, b.user), (Some(8), None));
}

// `ssh -G` prints these unexpanded, so the judge below cannot tell.
#[test]
fn tokens_are_expanded_when_all_is_known() {
    let text = "IdentityFile %d/%n-%p-%r-%h-%%\nUserKnownHostsFile ~/%k\nHost a\n  Port 7\n  User u\n  HostName real\n";
    let (home, config) = config(text);
    let found = config.for_host("a", None).unwrap();
    assert_eq!(found.identity_files, [home.path().join("a-7-u-real-%")]);
    assert_eq!(found.user_known_hosts, Some(vec![home.path().join("a")]));
}

#[test]
fn a_file_that_includes_itself_ends() {
    let (home, _) = config("");
    let path = home.path().join(".ssh/config");
    std::fs::write(&path, "Include config\n").unwrap();
    let error = Config::load(Some(&path), None, home.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("nested"), "{error}");
}

#[test]
fn what_makes_no_sense_is_an_error_with_its_place() {
    for (text, part) in [
        ("Port x\n", "`x` is no port"),
        ("Host a\n  Port 0\n", "`0` is no port"),
        ("User\n", "has no value"),
        ("IdentityFile \"x\n", "quote"),
        ("StrictHostKeyChecking maybe\n", "no policy"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        std::fs::write(&path, text).unwrap();
        let error =
            Config::load(Some(&path), None, home.path()).and_then(|c| c.for_host("a", None));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("config:"), "{error}");
    }
}

/// What `ssh -G` says, by keyword.
fn judge(path: &Path, name: &str) -> HashMap<String, Vec<String>> {
    let output = Command::new("ssh")
        .arg("-G")
        .arg("-F")
        .arg(path)
        .arg(name)
        .output();
    let output = output.expect("ssh is needed: apt-get install openssh-client");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((keyword, value)) = line.split_once(' ') {
            found
                .entry(keyword.to_owned())
                .or_default()
                .push(value.to_owned());
        }
    }
    found
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a", "b", "a.x", "*", "?", "*.x", "A", "*.X", "!a *", "!*.x * b", "a b"
        ])
        .prop_map(|pattern| format!("Host {pattern}")),
        prop::sample::select(vec![
            "all",
            "host a",
            "host real*",
            "originalhost b",
            "host *,!A",
            "host *,!a",
            "originalhost A"
        ])
        .prop_map(|what| format!("Match {what}")),
        prop::sample::select(vec!["real.%h", "real1", "10.0.0.1"])
            .prop_map(|v| format!("  HostName {v}")),
        (1u16..99).prop_map(|port| format!("\tPort={port}")),
        prop::sample::select(vec!["u1", "\"u2\"", "u3 # x"]).prop_map(|v| format!("  user   {v}")),
        prop::sample::select(vec!["/k/three", "/k/o\\ ne", "\"/k/two words\""])
            .prop_map(|v| format!("IdentityFile {v}")),
        prop::sample::select(vec!["yes", "no"]).prop_map(|v| format!("IdentitiesOnly {v}")),
        prop::sample::select(vec!["5", "1m", "none"]).prop_map(|v| format!("ConnectTimeout {v}")),
        prop::sample::select(vec!["yes", "ask", "accept-new", "no", "off"])
            .prop_map(|v| format!("StrictHostKeyChecking {v}")),
        prop::sample::select(vec!["/h/a /h/b", "/h/c", "none"])
            .prop_map(|v| format!("UserKnownHostsFile {v}")),
        Just("HostKeyAlias alias".to_owned()),
        Just("# comment".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn ssh_reads_the_same(lines in prop::collection::vec(line(), 1..14), at in 0usize..3) {
        let name = ["a", "b", "a.x"][at];
        let (home, config) = config(&lines.join("\n"));
        let ours = config.for_host(name, None).unwrap();
        let theirs = judge(&home.path().join(".ssh/config"), name);
        let one = |keyword: &str| theirs.get(keyword).and_then(|all| all.first()).cloned();
        prop_assert_eq!(ours.hostname.clone().unwrap_or_else(|| name.into()), one("hostname").unwrap());
        prop_assert_eq!(ours.port.unwrap_or(22).to_string(), one("port").unwrap());
        if let Some((user, _)) = &ours.user {
            prop_assert_eq!(user, &one("user").unwrap());
        }
        let files: Vec<String> = ours.identity_files.iter().map(|p| p.display().to_string()).collect();
        if !files.is_empty() && ours.user.is_some() {
            prop_assert_eq!(&files, &theirs["identityfile"]);
        }
        prop_assert_eq!(ours.identities_only, one("identitiesonly").as_deref() == Some("yes"));
        let timeout = ours.connect_timeout.map_or("none".to_owned(), |t| t.as_secs().to_string());
        prop_assert_eq!(timeout, one("connecttimeout").unwrap());
        let checking = match ours.strict_host_key_checking {
            None | Some(StrictHostKeyChecking::Ask) => "ask",
            Some(StrictHostKeyChecking::Yes) => "true",
            Some(StrictHostKeyChecking::AcceptNew) => "accept-new",
            Some(StrictHostKeyChecking::Off) => "false",
        };
        prop_assert_eq!(checking, one("stricthostkeychecking").unwrap());
        if let Some(files) = &ours.user_known_hosts {
            let files: Vec<String> = files.iter().map(|p| p.display().to_string()).collect();
            let expected = one("userknownhostsfile").unwrap();
            prop_assert_eq!(if files.is_empty() { "none".to_owned() } else { files.join(" ") }, expected);
        }
        prop_assert_eq!(ours.host_key_alias, one("hostkeyalias"));
    }

    #[test]
    fn random_text_never_panics(text in "(?s).{0,200}") {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        std::fs::write(&path, text).unwrap();
        if let Ok(config) = Config::load(Some(&path), None, home.path()) {
            let _ = config.for_host("host", Some("user"));
        }
    }
}
