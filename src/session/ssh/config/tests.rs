//! Tables for the rules. What `ssh -G` says of hundreds of files is asked in `tests/suite`.

use proptest::prelude::*;

use super::*;

fn config(text: &str) -> (tempfile::TempDir, Config) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    let path = home.path().join(".ssh/config");
    std::fs::write(&path, text).unwrap();
    let config = Config::open(&path, home.path()).unwrap();
    (home, config)
}

fn as_user(user: &str) -> Given<'_> {
    Given {
        user: Some(user),
        ..Given::default()
    }
}

fn host(text: &str, name: &str) -> HostConfig {
    config(text).1.for_host(name, &Given::default()).unwrap()
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
    let found = config.for_host("web", &Given::default()).unwrap();
    assert_eq!(found.hostname.as_deref(), Some("real.example"));
    assert_eq!(found.identity_files.unwrap(), [home.path().join("my key")]);
}

#[test]
fn case_counts_for_host_and_user_and_not_for_match_host() {
    let text = "Host WEB\n  Port 1\nMatch host WEB user ROOT\n  Port 2\nMatch host WEB\n  Port 3\n";
    let (_home, config) = config(text);
    assert_eq!(
        config.for_host("WEB", &Given::default()).unwrap().port,
        Some(1)
    );
    assert_eq!(
        config.for_host("web", &as_user("root")).unwrap().port,
        Some(3)
    );
    assert_eq!(
        config.for_host("web", &as_user("ROOT")).unwrap().port,
        Some(2)
    );
}

#[test]
fn a_backslash_keeps_a_space() {
    let (home, config) = config("IdentityFile ~/my\\ key\n");
    let found = config.for_host("web", &Given::default()).unwrap();
    assert_eq!(found.identity_files.unwrap(), [home.path().join("my key")]);
}

#[test]
fn negation_and_match_conditions() {
    let text = "Host *.example !bad.example\n  Port 1\nMatch host real user root\n  Port 2\nMatch all\n  Port 3\n";
    assert_eq!(host(text, "a.example").port, Some(1));
    assert_eq!(host(text, "bad.example").port, Some(3));
    let (_home, config) = config(text);
    assert_eq!(
        config.for_host("real", &as_user("root")).unwrap().port,
        Some(2)
    );
    assert_eq!(
        config.for_host("real", &as_user("me")).unwrap().port,
        Some(3)
    );
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
    assert!(config.for_host("a", &Given::default()).is_ok());
    let error = config
        .for_host("b", &Given::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("~/.ssh/config:4") && error.contains("ProxyJump"),
        "{error}"
    );
}

#[test]
fn other_keywords_are_named_once_and_those_without_effect_not_at_all() {
    let text = "Host *\n  Compression no\n  SendEnv LANG LC_*\n  HashKnownHosts no\n  Ciphers aes128-ctr\n  ciphers x\n";
    let found = host(text, "web");
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    assert!(found.warnings[0].starts_with("~/.ssh/config:5: `Ciphers`"));
}

#[test]
fn the_stock_file_of_debian_gives_no_warning() {
    let text = "Include /nonexistent/*.conf\nHost *\n    SendEnv LANG LC_*\n    GSSAPIAuthentication yes\n";
    let home = tempfile::tempdir().unwrap();
    let (user, system) = (home.path().join("none"), home.path().join("system"));
    std::fs::write(&system, text).unwrap();
    let config = Config::load(&user, &system, home.path()).unwrap();
    let found = config.for_host("web", &Given::default()).unwrap();
    assert_eq!(found.warnings, Vec::<String>::new());
    // Whoever writes it for himself wants it.
    assert_eq!(host(text, "web").warnings.len(), 1);
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
    let config = Config::open(&ssh.join("config"), home.path()).unwrap();
    assert_eq!(
        config.for_host("a", &Given::default()).unwrap().port,
        Some(7)
    );
    let b = config.for_host("b", &Given::default()).unwrap();
    assert_eq!((b.port, b.user), (Some(8), None));
}

// `ssh -G` prints these unexpanded, so the judge below cannot tell.
#[test]
fn tokens_are_expanded_when_all_is_known() {
    let text = "IdentityFile %d/%n-%p-%r-%h-%%\nUserKnownHostsFile ~/%k\nHost a\n  Port 7\n  User u\n  HostName real\n";
    let (home, config) = config(text);
    let found = config.for_host("a", &Given::default()).unwrap();
    assert_eq!(
        found.identity_files.unwrap(),
        [home.path().join("a-7-u-real-%")]
    );
    assert_eq!(found.user_known_hosts, Some(vec![home.path().join("a")]));
}

#[test]
fn a_file_that_includes_itself_ends() {
    let (home, _) = config("");
    let path = home.path().join(".ssh/config");
    std::fs::write(&path, "Include config\n").unwrap();
    let error = Config::open(&path, home.path()).unwrap_err().to_string();
    assert!(error.contains("nested"), "{error}");
}

#[test]
fn what_makes_no_sense_is_an_error_with_its_place() {
    for (text, part) in [
        ("Port x\n", "`x` is no port"),
        ("Host a\n  Port 0\n", "`0` is no port"),
        ("User\n", "has no value"),
        ("IdentityFile \"x\n", "quote"),
        ("StrictHostKeyChecking maybe\n", "is none of yes"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        std::fs::write(&path, text).unwrap();
        let error =
            Config::open(&path, home.path()).and_then(|c| c.for_host("a", &Given::default()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("config:"), "{error}");
    }
}

#[test]
fn what_changes_nothing_is_not_worth_a_word() {
    let text = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\nPubkeyAuthentication yes\n\
        HostbasedAuthentication no\nGSSAPIAuthentication no\nServerAliveInterval 0\nCompression no\n\
        ControlMaster no\nControlPath none\nLogLevel INFO\nAddKeysToAgent no\nProtocol 2\n\
        ForwardAgent no\nForwardX11 no\nRequestTTY auto\nTunnel no\nAddressFamily any\nBatchMode no\n\
        CheckHostIP no\nVisualHostKey no\nHashKnownHosts yes\nCanonicalizeHostname no\nPKCS11Provider none\n\
        LocalCommand true\nSendEnv LANG LC_* NO_SUCH_VARIABLE_ -PATH\nProxyCommand none\nRevokedHostKeys none\n\
        ClearAllForwardings yes\nLocalForward 1 a:2\n";
    assert_eq!(host(text, "web").warnings, Vec::<String>::new());
}

#[test]
fn what_changes_something_is_named_once() {
    let lines = [
        "ForwardAgent yes",
        "CertificateFile x",
        "PKCS11Provider x",
        "LocalForward 1 a:2",
        "RemoteCommand x y",
        "KexAlgorithms x",
        "SendEnv P?TH",
        "SetEnv A=b",
        "PasswordAuthentication no",
        "BatchMode yes",
        "RequestTTY force",
        "BindAddress 127.0.0.1",
        "CanonicalizeHostname yes",
        "PreferredAuthentications publickey",
        "KnownHostsCommand x",
        "AddressFamily inet6",
        "VerifyHostKeyDNS ask",
        "ChannelTimeout session=1m",
        "Compression yes",
        "ServerAliveInterval 30",
        "ControlMaster auto",
        "LogLevel QUIET",
        "GSSAPIAuthentication yes",
        "RekeyLimit 1G",
    ];
    for line in lines {
        let keyword = line.split(' ').next().unwrap();
        let text = format!("Host other\n  {line}\nHost *\n  {line}\nMatch host web\n  {line}\n");
        let warnings = host(&text, "web").warnings;
        assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
        let start = format!("~/.ssh/config:4: `{keyword}` ");
        assert!(warnings[0].starts_with(&start), "{warnings:?}");
    }
    let permitted = host("PermitLocalCommand yes\nLocalCommand x\n", "web").warnings;
    assert!(permitted[0].contains("LocalCommand"), "{permitted:?}");
    // The first value counts, and it says what is done anyway.
    let first = "ForwardAgent no\nForwardAgent yes\n";
    assert_eq!(host(first, "web").warnings, Vec::<String>::new());
}

#[test]
fn what_would_let_a_wrong_machine_in_is_an_error() {
    for line in [
        "ProxyCommand nc %h %p",
        "ProxyJump a",
        "RevokedHostKeys /etc/revoked",
        "RefuseConnection closed",
    ] {
        let (_home, config) = config(&format!("Host b\n  {line}\n"));
        assert!(config.for_host("a", &Given::default()).is_ok());
        let error = config.for_host("b", &Given::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Unsupported { .. }), "{error}");
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let (path, system) = (home.path().join("config"), home.path().join("system"));
    std::fs::write(&path, "Port 7\n").unwrap();
    let load = |path: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
        Config::load(path, &system, home.path())
    };
    assert!(load(&path, 0o644).is_ok());
    for mode in [0o664, 0o646, 0o602] {
        let error = load(&path, mode).unwrap_err();
        assert!(matches!(error, ConfigError::Permissions(_)), "{error}");
        assert!(Config::open(&path, home.path()).is_ok());
        std::fs::write(&system, format!("Include {}\n", path.display())).unwrap();
        let error = Config::open(&system, home.path()).unwrap_err();
        assert!(matches!(error, ConfigError::Permissions(_)), "{error}");
        std::fs::remove_file(&system).unwrap();
    }
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12), None).unwrap();
        assert!(load(&path, 0o600).is_err());
    }
}

#[test]
fn what_is_known_before_decides_what_applies() {
    let text =
        "Match host addr user me\n  Port 7\nMatch all\n  UserKnownHostsFile /%h/%p/%r\n  Port 8\n";
    let (_home, config) = config(text);
    let given = Given {
        user: Some("me"),
        host_name: Some("addr"),
        ..Given::default()
    };
    let found = config.for_host("web", &given).unwrap();
    let files = |found: &HostConfig| found.user_known_hosts.clone().unwrap();
    assert_eq!(
        (found.port, files(&found)),
        (Some(7), vec!["/addr/7/me".into()])
    );
    let given = Given {
        default_user: Some("you"),
        port: Some(9),
        ..Given::default()
    };
    let found = config.for_host("web", &given).unwrap();
    assert_eq!(
        (found.port, files(&found)),
        (Some(9), vec!["/web/9/you".into()])
    );
}

#[test]
fn an_unknown_keyword_is_a_mistake_that_a_host_can_excuse() {
    let text = "Host a\n  IgnoreUnknown Fu*\nHost b\n  Furt 22\n";
    let (_home, config) = config(text);
    assert!(config.for_host("a", &Given::default()).is_ok());
    let error = config.for_host("b", &Given::default()).unwrap_err();
    assert!(
        error.to_string().starts_with("~/.ssh/config:4: `Furt`"),
        "{error}"
    );
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config");
    std::fs::write(&path, "Host x\n  Prot 22\n").unwrap();
    let error = Config::open(&path, home.path()).unwrap_err().to_string();
    assert!(error.contains("did you mean `port`"), "{error}");
}

#[test]
fn ten_thousand_blocks_are_looked_up_as_they_are() {
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("Host web{n} *.alias{n}\n  Port {}\n", n + 1));
    }
    text.push_str("Host *\n  User last\n");
    let (_home, config) = config(&text);
    for n in (0..10_000).step_by(10) {
        let name = if n % 20 == 0 {
            format!("web{n}")
        } else {
            format!("x.alias{n}")
        };
        let found = config.for_host(&name, &Given::default()).unwrap();
        assert_eq!(found.port, Some(n + 1));
        assert_eq!(found.user.unwrap().0, "last");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_text_never_panics(text in "(?s).{0,200}") {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        std::fs::write(&path, text).unwrap();
        if let Ok(config) = Config::open(&path, home.path()) {
            let _ = config.for_host("host", &as_user("user"));
        }
    }
}
