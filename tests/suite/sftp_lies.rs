//! The hostile SFTP server is tried here: with OpenSSH's `sftp` where that shows the lie, else
//! with packets made by hand. A lie that is not told makes every test above it say nothing.

use std::fs;
use std::process::Output;
use std::time::Duration;

use crate::evil_sftp::tree::{DIRECTORY, LINK, REGULAR};
use crate::evil_sftp::{Attributes, Content, Death, EvilSftp, Mode, Tree, request};
use crate::processes;
use crate::sftp_servers::Subsystem;

const SOON: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `sftp` said of a batch that it could not bring to an end.
fn refused(server: &EvilSftp, lines: &str) -> String {
    let said = server.dial().batch(lines);
    assert_ne!(said.status.code(), Some(0), "{said:?}");
    stderr(&said)
}

fn text(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [length.to_be_bytes().as_slice(), text].concat()
}

/// An id and one string.
fn body(id: u32, of: &[u8]) -> Vec<u8> {
    [id.to_be_bytes().as_slice(), &text(of)].concat()
}

/// OPEN of a path with these flags and no attributes.
fn open(id: u32, path: &[u8], flags: u32) -> Vec<u8> {
    [body(id, path), flags.to_be_bytes().to_vec(), vec![0; 4]].concat()
}

fn read(id: u32, handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    let place = [offset.to_be_bytes().as_slice(), &length.to_be_bytes()].concat();
    [body(id, handle), place].concat()
}

fn write(id: u32, handle: &[u8], offset: u64, data: &[u8]) -> Vec<u8> {
    [body(id, handle), offset.to_be_bytes().to_vec(), text(data)].concat()
}

fn number(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

/// The handle in an answer.
fn handle(answer: &[u8]) -> Vec<u8> {
    assert_eq!(answer[0], 102, "{answer:?}");
    answer[9..].to_vec()
}

fn is_status(packet: &[u8], id: u32, code: u32) -> bool {
    packet[0] == 101 && number(packet, 1) == id && number(packet, 5) == code
}

fn raw(mode: Mode) -> (EvilSftp, Subsystem) {
    let server = EvilSftp::start(mode);
    let raw = server.dial().initialised();
    (server, raw)
}

#[test]
fn without_a_lie_it_is_a_good_server() {
    let server = EvilSftp::builder().start();
    let here = tempfile::tempdir().unwrap();
    let (up, down) = (here.path().join("up"), here.path().join("down"));
    let content = vec![7_u8; 700_000];
    fs::write(&up, &content).unwrap();
    let lines = format!(
        "get /big {down}\nput {up} new\nmkdir d\nrename new d/moved\nchmod 600 d/moved\n\
         symlink moved d/link\nls -l d\nget link {down}2\nrm d/link\nrm /dir/one\nrm /dir/two\n\
         rmdir dir\nls -1 /\ncd d\n",
        up = up.display(),
        down = down.display(),
    );
    let said = server.dial().batch(&lines);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(fs::read(&down).ok(), server.content("/big"));
    assert_eq!(fs::read(here.path().join("down2")).unwrap(), b"hello\n");
    assert_eq!(server.content("/d/moved"), Some(content));
    assert_eq!(server.tree().get("/d/moved").unwrap().mode, 0o600);
    let said = stdout(&said);
    let listed = |name: &str| said.lines().any(|line| line == name);
    assert!(
        listed("/hello.txt") && listed("/d") && !listed("/dir"),
        "{said}"
    );
    assert_eq!(server.tree().paths().len(), 6);
    assert!(server.count(request::WRITE) > 1);
    let closed = processes::poll(SOON, || (server.open_handles() == 0).then_some(()));
    assert!(closed.is_some(), "{} handles", server.open_handles());
}

#[test]
fn lies_about_one_reply_end_openssh() {
    let cases = [
        (Mode::WrongId, "Unexpected reply"),
        (Mode::UnknownKind, "Expected SSH2_FXP_DATA"),
        (Mode::Length(u32::MAX), "message too long 4294967295"),
        (Mode::Status(99), "Unknown status"),
    ];
    for (mode, words) in cases {
        let server = EvilSftp::builder().mode(mode).on(request::READ).after(1);
        let server = server.start();
        let said = refused(&server, "get /big /dev/null\n");
        assert!(said.contains(words), "{words}: {said}");
        assert!(server.count(request::READ) > 1, "the first one was honest");
    }
}

#[test]
fn packets_are_twice_there_empty_or_too_long() {
    let (_server, mut twice) = raw(Mode::Twice);
    let first = twice.ask(request::STAT, &body(5, b"/"));
    assert_eq!(Some(first), twice.packet());
    let (_server, mut empty) = raw(Mode::Length(0));
    assert_eq!(empty.ask(request::STAT, &body(5, b"/")), b"");
    assert!(empty.is_silent_for(QUIET));
    let (_server, mut longer) = raw(Mode::Trailing(3));
    let good = EvilSftp::builder().start();
    let good = good.dial().initialised().ask(request::STAT, &body(5, b"/"));
    let stat = longer.ask(request::STAT, &body(5, b"/"));
    assert_eq!(stat, [good.as_slice(), &[0; 3]].concat());
}

#[test]
fn versions_come_late_old_or_new() {
    let server = EvilSftp::start(Mode::NoVersion);
    let mut silent = server.dial().subsystem();
    silent.send(request::INIT, &3_u32.to_be_bytes());
    assert!(silent.is_silent_for(QUIET));
    assert_eq!(server.count(request::INIT), 1);
    for version in [2, 6] {
        let server = EvilSftp::start(Mode::Version(version));
        let mut raw = server.dial().subsystem();
        let answer = raw.ask(request::INIT, &3_u32.to_be_bytes());
        assert_eq!((answer[0], number(&answer, 1)), (2, version));
    }
    for limits in [[1, 1, 1, 1], [0; 4], [u64::MAX; 4]] {
        let (_server, mut raw) = raw(Mode::Limits(limits));
        let answer = raw.ask(request::EXTENDED, &body(1, b"limits@openssh.com"));
        let told: Vec<u8> = limits.iter().flat_map(|n| n.to_be_bytes()).collect();
        assert_eq!((answer[0], &answer[5..]), (201, told.as_slice()));
    }
}

/// The names of one page, or the code of a status.
fn page(raw: &mut Subsystem, of: &[u8]) -> Result<Vec<Vec<u8>>, u32> {
    let answer = raw.ask(request::READDIR, &body(9, &of[4..]));
    if answer[0] == 101 {
        return Err(number(&answer, 5));
    }
    let mut names = Vec::new();
    let mut at = 9;
    while at < answer.len() {
        let length = number(&answer, at) as usize;
        names.push(answer[at + 4..at + 4 + length].to_vec());
        at += 4 + length;
        at += 4 + number(&answer, at) as usize;
        // Size, owner, mode and times, or nothing.
        at += if number(&answer, at) == 0 { 4 } else { 32 };
    }
    Ok(names)
}

#[test]
fn listings_are_endless_or_miscounted() {
    let directory = |raw: &mut Subsystem| raw.ask(request::OPENDIR, &body(1, b"/"))[5..].to_vec();
    let (_server, mut honest) = raw(Mode::NoAttributes);
    let it = directory(&mut honest);
    let root = page(&mut honest, &it).unwrap();
    assert_eq!(root.join(&b' '), b". .. big dir hello.txt link");
    assert_eq!(page(&mut honest, &it), Err(1));
    let (_server, mut empty) = raw(Mode::EmptyPages);
    let it = directory(&mut empty);
    assert!((0..5).all(|_| page(&mut empty, &it) == Ok(vec![])));
    let (_server, mut same) = raw(Mode::SamePage);
    let it = directory(&mut same);
    assert!((0..5).all(|_| page(&mut same, &it) == Ok(root.clone())));
    let (_server, mut endless) = raw(Mode::EndlessEntries);
    let it = directory(&mut endless);
    let mut all: Vec<_> = (0..20)
        .flat_map(|_| page(&mut endless, &it).unwrap())
        .collect();
    all.dedup();
    assert_eq!(all.len(), 2000);
    let (_server, mut more) = raw(Mode::NameCount(u32::MAX));
    let it = directory(&mut more);
    let answer = more.ask(request::READDIR, &body(1, &it[4..]));
    assert_eq!((answer[0], number(&answer, 5)), (104, u32::MAX));
}

#[test]
fn names_are_there_that_no_server_should_say() {
    let names: Vec<Vec<u8>> = [
        b"..".as_slice(),
        b".",
        b"",
        b"/abs",
        b"a/b",
        b"a\\b",
        b"nul\0nul",
        b"\x1b]0;T\x07",
        &[b'x'; 300],
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let (_server, mut raw) = raw(Mode::Names {
        names: names.clone(),
        mode: REGULAR | 0o644,
    });
    let it = raw.ask(request::OPENDIR, &body(1, b"/dir"))[5..].to_vec();
    let told = page(&mut raw, &it).unwrap();
    assert_eq!(told[4..], names);
    for path in [
        b"/dir/..".as_slice(),
        b"/dir//abs",
        b"/abs",
        b"/dir/nul\0nul",
    ] {
        let opened = handle(&raw.ask(request::OPEN, &open(2, path, 1)));
        let bait = raw.ask(request::READ, &read(3, &opened, 0, 100));
        assert_eq!(bait[5..], text(b"bait\n"));
    }
    let server = EvilSftp::start(Mode::Names {
        names: vec![b"a/b".to_vec()],
        mode: DIRECTORY | 0o755,
    });
    let mut raw = server.dial().initialised();
    let it = raw.ask(request::OPENDIR, &body(1, b"/dir/a/b"))[5..].to_vec();
    assert_eq!(page(&mut raw, &it).unwrap()[2..], [b"inside".to_vec()]);
    let here = tempfile::tempdir().unwrap();
    let get = format!("get -r /dir {}\n", here.path().display());
    let said = server.dial().batch(&get);
    assert!(stderr(&said).contains("a/b"), "{said:?}");
}

#[test]
fn attributes_are_whatever_it_likes() {
    let claimed = Attributes {
        size: Some(u64::MAX),
        owner: Some((u32::MAX, 0)),
        mode: Some(REGULAR | 0o6777),
        times: Some((0, u32::MAX)),
    };
    let server = EvilSftp::start(Mode::Attributes(claimed));
    let said = server.dial().batch("ls -ln /dir\n");
    assert!(stdout(&said).contains("-rwsrwsrwx"), "{said:?}");
    assert!(stdout(&said).contains("18446744073709551615"), "{said:?}");
    let zero = Attributes {
        mode: Some(REGULAR),
        ..Attributes::default()
    };
    let (_server, mut raw) = raw(Mode::Attributes(zero));
    let stat = raw.ask(request::STAT, &body(1, b"/hello.txt"));
    assert_eq!((stat[0], number(&stat, 25)), (105, REGULAR));
}

#[test]
fn a_directory_of_the_listing_is_a_link_when_it_is_opened() {
    let tree = Tree::empty()
        .with("/top/sub", Content::Link(b"/outside".to_vec()))
        .with("/outside/secret", Content::File(b"secret".to_vec()));
    let server = EvilSftp::builder().tree(tree).mode(Mode::ListedAs {
        path: "/top/sub".into(),
        mode: DIRECTORY | 0o755,
    });
    let server = server.start();
    let said = server.dial().batch("ls -ln /top\n");
    assert!(
        stdout(&said).starts_with("sftp> ls -ln /top\ndrwxr-xr-x"),
        "{said:?}"
    );
    let mut raw = server.dial().initialised();
    let stat = raw.ask(request::LSTAT, &body(1, b"/top/sub"));
    assert_eq!(number(&stat, 25) & 0o170_000, LINK);
    let it = raw.ask(request::OPENDIR, &body(1, b"/top/sub"))[5..].to_vec();
    assert_eq!(page(&mut raw, &it).unwrap()[2..], [b"secret".to_vec()]);
}

#[test]
fn data_is_too_long_too_short_or_missing() {
    let server = EvilSftp::start(Mode::LongData(1));
    let said = refused(&server, "get /big /dev/null\n");
    assert!(said.contains("more data than asked"), "{said}");
    let (_server, mut empty) = raw(Mode::EmptyData);
    let it = handle(&empty.ask(request::OPEN, &open(1, b"/big", 1)));
    let it = &it[..];
    for _ in 0..3 {
        assert_eq!(empty.ask(request::READ, &read(2, it, 0, 100))[5..], [0; 4]);
    }
    let here = tempfile::tempdir().unwrap();
    for (mode, length) in [
        (Mode::EarlyEof(100_001), 100_001),
        (Mode::ShortData(999), 3_000_000),
    ] {
        let server = EvilSftp::start(mode);
        let down = here.path().join("down");
        server
            .dial()
            .batch(&format!("get /big {}\n", down.display()));
        let whole = server.content("/big").unwrap();
        assert!(fs::read(&down).unwrap() == whole[..length]);
    }
}

#[test]
fn handles_have_every_byte_and_any_length() {
    for length in [256, 257] {
        let (server, mut raw) = raw(Mode::Handles(length));
        let handles: Vec<Vec<u8>> = (0..200)
            .map(|id| handle(&raw.ask(request::OPEN, &open(id, b"/hello.txt", 1))))
            .collect();
        assert_eq!(server.open_handles(), 200);
        assert!(handles.iter().all(|handle| handle.len() == length));
        let mut bytes = handles[7][..256].to_vec();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        let last = raw.ask(request::READ, &read(1, &handles[199], 0, 100));
        assert_eq!(last[5..], text(b"hello\n"));
    }
}

#[test]
fn a_failed_write_is_told_late_and_a_failed_close_at_all() {
    let (server, mut raw) = raw(Mode::WriteFails { nth: 2, late: 2 });
    let it = handle(&raw.ask(request::OPEN, &open(1, b"/new", 2 | 8)));
    let writes: Vec<_> = (11..=15)
        .map(|id| write(id, &it, u64::from(id - 11), b"x"))
        .collect();
    raw.send_at_once(request::WRITE, &writes);
    let order: Vec<(u32, u32)> = (0..5)
        .map(|_| raw.packet().unwrap())
        .map(|answer| (number(&answer, 1), number(&answer, 5)))
        .collect();
    assert_eq!(order, [(11, 0), (13, 0), (14, 0), (12, 4), (15, 0)]);
    assert_eq!(server.content("/new").unwrap(), b"x\0xxx");
    let server = EvilSftp::start(Mode::WriteFails { nth: 3, late: 1000 });
    let here = tempfile::NamedTempFile::new().unwrap();
    fs::write(here.path(), vec![1; 500_000]).unwrap();
    let put = format!("put {} /new\n", here.path().display());
    assert!(refused(&server, &put).contains("Failure"));
    let server = EvilSftp::start(Mode::CloseFails(4));
    refused(&server, &put);
    assert_eq!(server.content("/new").unwrap(), vec![1; 500_000]);
}

#[test]
fn replies_in_any_order_are_the_same_file() {
    let server = EvilSftp::start(Mode::Reordered(7));
    let here = tempfile::tempdir().unwrap();
    let down = here.path().join("down");
    let said = server
        .dial()
        .batch(&format!("get /big {}\n", down.display()));
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(fs::read(&down).ok(), server.content("/big"));
    let mut raw = server.dial().initialised();
    let stats: Vec<_> = (0..50).map(|id| body(id, b"/")).collect();
    raw.send_at_once(request::STAT, &stats);
    let order: Vec<u32> = (0..50).map(|_| number(&raw.packet().unwrap(), 1)).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    assert_ne!(sorted, order);
}

#[test]
fn it_dies_at_the_byte_and_in_the_way_that_was_named() {
    let honest = {
        let server = EvilSftp::builder().start();
        let mut raw = server.dial().initialised();
        raw.send(request::STAT, &body(1, b"/"));
        raw.end()
    };
    assert_eq!(honest.1, Some(0), "the end of input is a good end");
    let version = 4 + 1 + 4 + 2 * (4 + 1) + 2 * 4 + 24 + 17;
    for (death, code) in [
        (Death::Close, 255),
        (Death::Exit(9), 9),
        (Death::Killed, 255),
        (Death::Disconnect, 255),
    ] {
        let server = EvilSftp::start(Mode::Dies(version + 10, death.clone()));
        let mut raw = server.dial().initialised();
        raw.send(request::STAT, &body(1, b"/"));
        raw.send(request::STAT, &body(2, b"/"));
        let (rest, ended) = raw.end();
        assert_eq!(ended, Some(code), "{death:?}");
        // ssh does not print what came right before the end of its connection.
        let unprinted = rest.is_empty() && matches!(death, Death::Disconnect);
        assert!(unprinted || rest == honest.0[..10], "{death:?}: {rest:?}");
    }
}

#[test]
fn it_stalls_with_the_channel_open() {
    let (server, mut raw) = raw(Mode::StallsAfter(2));
    for id in 1..=2 {
        assert!(is_status(
            &raw.ask(request::STAT, &body(id, b"/none")),
            id,
            2
        ));
    }
    raw.send(request::STAT, &body(3, b"/none"));
    assert!(raw.is_silent_for(QUIET));
    assert_eq!(server.count(request::STAT), 3);
}
