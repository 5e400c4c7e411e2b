//! `fanrun ls` over every kind of SFTP server, and over one that lies: whatever a server says, the
//! listing ends, with what is true and with what was wrong.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::evil_sftp::{Death, EvilSftp, Mode};
use crate::fanrun::{Fanrun, holds};
use crate::sftp_servers::{SftpServer, writable};

fn anything(_: &str) -> bool {
    true
}

/// Files, a directory in a directory, a link, names that are hard to write.
fn sample(place: &Path, bytes: bool) -> BTreeSet<String> {
    let root = place.join("tree");
    fs::create_dir_all(root.join("a/b")).unwrap();
    let mut names = BTreeSet::new();
    let mut file = |name: &[u8], shown: &str| {
        fs::write(root.join(OsStr::from_bytes(name)), "12345").unwrap();
        names.insert(shown.to_owned());
    };
    file(b"plain", "plain");
    file(b"a/b/deep", "a/b/deep");
    file(b"a/with space", "a/with space");
    file("a/\u{fc}ml\u{e4}ut".as_bytes(), "a/\u{fc}ml\u{e4}ut");
    file(b"a/new\nline", "a/new\nline");
    if bytes {
        file(b"a/not\xfftext", "a/not\u{fffd}text");
    }
    std::os::unix::fs::symlink("plain", root.join("a/link")).unwrap();
    names.extend(["a", "a/b", "a/link"].map(str::to_owned));
    names
}

#[test]
fn a_tree_is_the_same_whoever_serves_it() {
    for (name, server) in writable() {
        println!("{name}");
        // paramiko's names are text.
        let expected = sample(server.place(), name != "paramiko");
        let root = server.remote("tree");
        let place = format!("{}:{root}", server.address());
        Fanrun::new(["ls", "-r", &place, "--format", "ndjson"])
            .options(server.fanrun_args())
            .expect(
                0,
                move |text: &str| {
                    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
                    let rows: Vec<serde_json::Value> = rows.collect();
                    let below = |row: &serde_json::Value| {
                        let path = row["path"].as_str().unwrap();
                        path.strip_prefix(&format!("{root}/")).unwrap().to_owned()
                    };
                    let found: BTreeSet<String> = rows.iter().map(below).collect();
                    assert_eq!(found, expected);
                    for row in rows {
                        let kind = row["kind"].as_str().unwrap();
                        let size = row["size"].as_u64();
                        assert!(kind != "file" || size == Some(5), "{row}");
                        assert!(["file", "dir", "link"].contains(&kind), "{row}");
                    }
                    true
                },
                anything,
            );
    }
}

#[test]
fn servers_that_cannot_be_listed_say_why() {
    let noisy = SftpServer::noisy("hello from bashrc\n");
    for (server, words) in [
        (noisy, "hello from bashrc"),
        (SftpServer::missing(), "sftp"),
        (SftpServer::with_program("/bin/false"), "exit 1"),
    ] {
        let place = format!("{}:/tmp", server.address());
        Fanrun::new(["ls", &place, "--format", "csv"])
            .options(server.fanrun_args())
            .within(Duration::from_secs(20))
            .expect(1, anything, move |text: &str| text.contains(words));
    }
}

#[test]
fn lies_about_a_directory_end_the_listing() {
    let lies = [
        ("empty pages", Mode::EmptyPages, "broke the protocol"),
        ("the same page", Mode::SamePage, "broke the protocol"),
        (
            "a count too large",
            Mode::NameCount(u32::MAX),
            "broke the protocol",
        ),
        ("a count of none", Mode::NameCount(0), "broke the protocol"),
        ("the id of no request", Mode::WrongId, "broke the protocol"),
        ("an answer twice", Mode::Twice, "broke the protocol"),
        ("an unknown packet", Mode::UnknownKind, "broke the protocol"),
        (
            "a huge packet",
            Mode::Length(u32::MAX),
            "broke the protocol",
        ),
        ("bytes left over", Mode::Trailing(7), "broke the protocol"),
        ("a long handle", Mode::Handles(257), "broke the protocol"),
        ("an old version", Mode::Version(2), "version 2"),
        ("an end", Mode::Dies(400, Death::Exit(9)), "exit 9"),
        ("a kill", Mode::Dies(400, Death::Killed), "KILL"),
        ("no word", Mode::Dies(400, Death::Close), "ended"),
    ];
    for (name, lie, words) in lies {
        println!("{name}");
        let server = EvilSftp::start(lie);
        let place = format!("{}:/", server.address());
        Fanrun::new(["ls", "-r", &place, "--format", "csv"])
            .options(server.fanrun_args())
            .within(Duration::from_secs(20))
            .expect(1, anything, move |text: &str| text.contains(words));
    }
}

#[test]
fn hostile_names_are_rows_of_their_own_and_drive_no_terminal() {
    let names = [
        "..",
        "/etc/passwd",
        "a/b",
        "",
        "\x1b]0;title\x07",
        "new\nline",
    ];
    let server = EvilSftp::start(Mode::Names {
        names: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
        mode: 0o100_644,
    });
    let place = format!("{}:/", server.address());
    Fanrun::new(["ls", &place, "--format", "table"])
        .options(server.fanrun_args())
        .expect(
            1,
            |text: &str| {
                assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
                text.contains("a name with a slash in it") && text.contains("new\\nline")
            },
            holds(["the server gave"]),
        );
}

#[test]
fn one_liar_keeps_nobody_else_from_being_listed() {
    let liar = EvilSftp::start(Mode::EmptyPages);
    let honest = SftpServer::internal();
    sample(honest.place(), false);
    let inventory = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let host = |name: &str, dial: crate::sftp_servers::Dial| {
        format!(
            "  {name}: {{address: 127.0.0.1, port: {}, user: {}, identity: {}}}\n",
            dial.port,
            dial.user,
            dial.identity.display()
        )
    };
    let text = format!(
        "hosts:\n{}{}",
        host("liar", liar.dial()),
        host("honest", honest.dial())
    );
    fs::write(&inventory, text).unwrap();
    let known = format!(
        "{}:{}",
        liar.known_hosts().display(),
        honest.known_hosts().display()
    );
    let place = format!("liar,honest:{}", honest.remote("tree"));
    Fanrun::new(["ls", "-r", &place, "--files", "--format", "paths"])
        .options(["-i", inventory.path().to_str().unwrap()])
        .options(["--known-hosts", &known])
        .expect(
            1,
            holds(["honest:", "a/b/deep"]),
            holds(["liar", "1 ok, 1 failed"]),
        );
}
