//! The client against OpenSSH's own `sftp-server`, spoken to over pipes, and against servers that
//! say what a test tells them to.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::wire::{self, Frames, Reply, Request};
use super::*;

/// A real server over pipes. Ends with the link.
pub(super) fn real_server(arguments: &[&str]) -> (Link, Child) {
    let mut child = Command::new("/usr/lib/openssh/sftp-server")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("OpenSSH's sftp-server (package openssh-sftp-server) is needed");
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (link, incoming, mut outgoing) = link();
    tokio::spawn(async move {
        while let Some(bytes) = outgoing.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..count]);
            if incoming.send(Incoming::Bytes(bytes)).await.is_err() {
                return;
            }
        }
        let _ = incoming.send(Incoming::Ended("it exited".to_owned())).await;
    });
    (link, child)
}

fn link() -> (Link, mpsc::Sender<Incoming>, mpsc::Receiver<Bytes>) {
    let (to_us, incoming) = mpsc::channel(16);
    let (outgoing, from_us) = mpsc::channel(16);
    (Link { incoming, outgoing }, to_us, from_us)
}

pub(super) async fn real() -> (Client, TempDir, Child) {
    let (link, child) = real_server(&[]);
    let client = Client::start(link, Settings::default()).await.unwrap();
    (client, TempDir::new().unwrap(), child)
}

pub(super) fn at(dir: &TempDir, name: &[u8]) -> RemotePath {
    use std::os::unix::ffi::OsStrExt;
    RemotePath::new(Bytes::copy_from_slice(dir.path().as_os_str().as_bytes())).join(name)
}

async fn write_all(client: &Client, path: &RemotePath, content: &[u8]) {
    let handle = client.open(path, OpenFlags::CREATE_NEW, Some(0o600)).await;
    let handle = handle.unwrap();
    let mut sent = Vec::new();
    for (index, piece) in content.chunks(32 << 10).enumerate() {
        let offset = (index * (32 << 10)) as u64;
        let piece = Bytes::copy_from_slice(piece);
        sent.push(client.write(&handle, offset, piece).await.unwrap());
    }
    for pending in sent {
        pending.done().await.unwrap();
    }
    client.close(handle).await.unwrap();
}

async fn read_all(client: &Client, path: &RemotePath) -> Vec<u8> {
    let handle = client.open(path, OpenFlags::READ, None).await.unwrap();
    let mut content = Vec::new();
    loop {
        let pending = client.read(&handle, content.len() as u64, 1 << 20).await;
        let Some(data) = pending.unwrap().data().await.unwrap() else {
            break;
        };
        content.extend_from_slice(&data);
    }
    client.close(handle).await.unwrap();
    content
}

async fn names(client: &Client, path: &RemotePath) -> Vec<Bytes> {
    let handle = client.open_dir(path).await.unwrap();
    let mut all = Vec::new();
    while let Some(page) = client
        .read_dir(&handle)
        .await
        .unwrap()
        .names()
        .await
        .unwrap()
    {
        all.extend(page.into_iter().map(|named| named.name));
    }
    client.close(handle).await.unwrap();
    all.retain(|name| name != "." && name != "..");
    all.sort();
    all
}

#[tokio::test]
async fn a_file_comes_back_as_it_went() {
    let (client, dir, _child) = real().await;
    let content: Vec<u8> = (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let path = at(&dir, b"\xff\xfe not UTF-8\n\x1b]0;x\x07");
    write_all(&client, &path, &content).await;
    assert!(read_all(&client, &path).await == content);
    assert_eq!(
        names(&client, &at(&dir, b"")).await,
        [path.file_name().unwrap()]
    );
    let attrs = client.stat(&path).await.unwrap();
    assert_eq!(attrs.size, Some(3_000_000));
    assert_eq!(attrs.mode, Some(0o100_600));
}

#[tokio::test]
async fn every_request_does_on_a_real_server_what_its_name_says() {
    let (client, dir, _child) = real().await;
    let (a, b, link) = (at(&dir, b"a"), at(&dir, b"b"), at(&dir, b"link"));
    write_all(&client, &a, b"one").await;
    client
        .symlink(LinkOrder::TargetFirst, b"a", &link)
        .await
        .unwrap();
    assert_eq!(client.read_link(&link).await.unwrap(), RemotePath::new("a"));
    assert_eq!(
        std::fs::read_link(dir.path().join("link"))
            .unwrap()
            .as_os_str(),
        "a"
    );
    assert_eq!(
        client.lstat(&link).await.unwrap().mode.unwrap() & 0o170_000,
        0o120_000
    );
    assert_eq!(client.stat(&link).await.unwrap().size, Some(3));
    client.hard_link(&a, &b).await.unwrap();
    let exists = client.rename(&a, &b).await.unwrap_err();
    assert_eq!(exists.code(), Some(Code::Failure));
    client.posix_rename(&link, &b).await.unwrap();
    assert_eq!(names(&client, &at(&dir, b"")).await, ["a", "b"]);
    let new = at(&dir, b"c");
    client.rename(&a, &new).await.unwrap();
    let stamp = Attrs {
        times: Some((1, u32::MAX)),
        ..Attrs::of_mode(0o4751)
    };
    client.set_stat(&new, stamp).await.unwrap();
    let attrs = client.stat(&new).await.unwrap();
    assert_eq!(
        (attrs.mode, attrs.times),
        (Some(0o104_751), Some((1, u32::MAX)))
    );
    client
        .lset_stat(
            &b,
            Attrs {
                times: Some((5, 6)),
                ..Attrs::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(client.lstat(&b).await.unwrap().times, Some((5, 6)));
    client.remove(&new).await.unwrap();
    client.remove(&b).await.unwrap();
    let sub = at(&dir, b"sub");
    client.make_dir(&sub, Some(0o700)).await.unwrap();
    assert_eq!(client.real_path(&sub.join(b"../sub/.")).await.unwrap(), sub);
    client.remove_dir(&sub).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn extensions_of_openssh_answer() {
    let (client, dir, _child) = real().await;
    assert!(client.limits().read >= 32 << 10);
    let space = client.space(&at(&dir, b"")).await.unwrap();
    assert!(space.block > 0 && space.blocks >= space.available);
    let IdNames { users, groups } = client.names_of(&[0, 4_000_000_001], &[0]).await.unwrap();
    assert_eq!(
        (users, groups),
        (vec![Some("root".into()), None], vec![Some("root".into())])
    );
    let home = client.expand(&RemotePath::new("~")).await.unwrap();
    assert!(home.as_bytes().starts_with(b"/"));
    let from = at(&dir, b"from");
    write_all(&client, &from, b"0123456789").await;
    let read = client.open(&from, OpenFlags::READ, None).await.unwrap();
    let to = at(&dir, b"to");
    let write = client
        .open(&to, OpenFlags::CREATE, Some(0o600))
        .await
        .unwrap();
    client.copy_data((&read, 2), 5, (&write, 0)).await.unwrap();
    client.sync(&write).await.unwrap();
    client.close(write).await.unwrap();
    assert_eq!(read_all(&client, &to).await, b"23456");
}

#[tokio::test]
async fn two_hundred_handles_are_open_at_once() {
    let (client, dir, _child) = real().await;
    let mut open = Vec::new();
    for index in 0..200 {
        let path = at(&dir, format!("{index}").as_bytes());
        let handle = client
            .open(&path, OpenFlags::CREATE_NEW, None)
            .await
            .unwrap();
        let piece = Bytes::from(format!("content {index}"));
        client
            .write(&handle, 0, piece)
            .await
            .unwrap()
            .done()
            .await
            .unwrap();
        open.push(handle);
    }
    for handle in open {
        client.close(handle).await.unwrap();
    }
    let last = std::fs::read(dir.path().join("199")).unwrap();
    assert_eq!(last, b"content 199");
}

#[tokio::test]
async fn what_fails_says_why_and_the_rest_goes_on() {
    let (client, dir, _child) = real().await;
    let missing = client.stat(&at(&dir, b"missing")).await.unwrap_err();
    assert_eq!(missing.to_string(), "no such file");
    assert!(!missing.is_final());
    let directory = client.open(&at(&dir, b""), OpenFlags::CREATE, None).await;
    assert_eq!(directory.unwrap_err().code(), Some(Code::Failure));
    assert!(client.real_path(&at(&dir, b"")).await.is_ok());
}

#[tokio::test]
async fn a_server_that_exits_ends_every_wait_with_the_reason() {
    let (client, dir, mut child) = real().await;
    let path = at(&dir, b"fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.open(&path, OpenFlags::READ, None).await }
    });
    child.kill().await.unwrap();
    let ended = Error::Ended("it exited".to_owned());
    assert_eq!(waiting.await.unwrap().unwrap_err(), ended);
    assert_eq!(client.stat(&at(&dir, b"")).await.unwrap_err(), ended);
}

// What follows talks to servers that say what the test tells them to.

fn packet(body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    wire::string(&mut out, body);
    out.freeze()
}

fn version(number: u32) -> Bytes {
    let mut body = vec![wire::FIRST_REPLY];
    body.extend(number.to_be_bytes());
    packet(&body)
}

/// A server that greets and then answers every request with what `answer` makes of its number.
fn scripted(answer: impl Fn(u32) -> Vec<Bytes> + Send + 'static) -> Link {
    let (link, to_us, mut from_us) = link();
    tokio::spawn(async move {
        let mut frames = Frames::default();
        let mut greeted = false;
        while let Some(bytes) = from_us.recv().await {
            frames.push(&bytes);
            while let Some(request) = frames.next().unwrap() {
                let answers = if greeted {
                    answer(u32::from_be_bytes(request[1..5].try_into().unwrap()))
                } else {
                    vec![version(3)]
                };
                greeted = true;
                for bytes in answers {
                    let _ = to_us.send(Incoming::Bytes(bytes)).await;
                }
            }
        }
    });
    link
}

fn body(kind: u8, id: u32, rest: &[u8]) -> Bytes {
    let mut body = vec![kind];
    body.extend(id.to_be_bytes());
    body.extend(rest);
    packet(&body)
}

fn data(id: u32, bytes: &[u8]) -> Bytes {
    let mut rest = BytesMut::new();
    wire::string(&mut rest, bytes);
    body(103, id, &rest)
}

async fn read_from(link: Link) -> Result<Option<Bytes>, Error> {
    let client = Client::start(link, Settings::default()).await?;
    let handle = Handle::of(b"h");
    client.read(&handle, 0, 10).await?.data().await
}

async fn broken(answer: impl Fn(u32) -> Vec<Bytes> + Send + 'static) -> String {
    match read_from(scripted(answer)).await {
        Err(Error::Protocol(why)) => why,
        other => panic!("expected a violation, got {other:?}"),
    }
}

#[tokio::test]
async fn violations_end_the_client_with_what_was_wrong() {
    assert_eq!(
        broken(|id| vec![data(id + 7, b"x")]).await,
        "an answer to request 7, which is not awaited"
    );
    assert_eq!(
        broken(|id| vec![data(id, b"01234567890")]).await,
        "11 bytes of data where 10 were asked for"
    );
    assert_eq!(
        broken(|id| vec![data(id, b"")]).await,
        "an empty piece of data"
    );
    assert_eq!(
        broken(|id| vec![body(77, id, b"")]).await,
        "a packet of the unknown type 77"
    );
    assert_eq!(
        broken(|id| vec![body(102, id, &[0, 0, 0, 1, b'h'])]).await,
        "a HANDLE where DATA was asked for"
    );
    assert_eq!(
        broken(|id| vec![body(101, id, &[0, 0, 0, 0])]).await,
        "OK where DATA was due"
    );
    assert_eq!(
        broken(|_| vec![Bytes::from_static(&[0xff; 8])]).await,
        "a packet of 4294967295 bytes; 1 to 266240 are allowed"
    );
    assert_eq!(
        broken(|_| vec![Bytes::from_static(&[0; 8])]).await,
        "a packet of 0 bytes; 1 to 266240 are allowed"
    );
    assert_eq!(
        broken(|id| vec![body(103, id, &[0, 0, 0, 1, b'x', b'y'])]).await,
        "1 bytes too many at the end of a packet"
    );
    assert_eq!(
        broken(|id| vec![body(103, id, &[0, 0, 0, 9, b'x'])]).await,
        "a packet that is cut short"
    );
}

#[tokio::test]
async fn a_second_answer_to_one_request_is_a_violation() {
    let link = scripted(|id| vec![data(id, b"x"), data(id, b"x")]);
    let client = Client::start(link, Settings::default()).await.unwrap();
    let handle = Handle::of(b"h");
    let first = client.read(&handle, 0, 10).await.unwrap().data().await;
    assert_eq!(first.unwrap().unwrap(), "x");
    let second = client.read(&handle, 0, 10).await;
    let second = match second {
        Ok(pending) => pending.data().await,
        Err(error) => Err(error),
    };
    assert!(matches!(second, Err(Error::Protocol(_))), "{second:?}");
}

#[tokio::test]
async fn names_are_bounded_by_the_packet_they_come_in() {
    let link = scripted(|id| vec![body(104, id, &[0xff, 0xff, 0xff, 0xff])]);
    let client = Client::start(link, Settings::default()).await.unwrap();
    let error = client.real_path(&RemotePath::new(".")).await.unwrap_err();
    assert_eq!(
        error,
        Error::Protocol("4294967295 names announced in 0 bytes".to_owned())
    );
    let link = scripted(|id| vec![body(104, id, &[0, 0, 0, 0])]);
    let client = Client::start(link, Settings::default()).await.unwrap();
    let page = client
        .read_dir(&Handle::of(b"h"))
        .await
        .unwrap()
        .names()
        .await;
    assert_eq!(page, Err(Error::Protocol("a page of no names".to_owned())));
}

#[tokio::test]
async fn handles_are_bytes_and_at_most_256_of_them() {
    fn opened(length: usize) -> Link {
        scripted(move |id| {
            let mut rest = BytesMut::new();
            let handle: Vec<u8> = (0..length).map(|i| i as u8).collect();
            wire::string(&mut rest, &handle);
            vec![body(102, id, &rest)]
        })
    }
    let path = RemotePath::new("x");
    let client = Client::start(opened(256), Settings::default())
        .await
        .unwrap();
    let every: Vec<u8> = (0..=255).collect();
    assert_eq!(client.open_dir(&path).await.unwrap(), Handle::of(&every));
    let client = Client::start(opened(257), Settings::default())
        .await
        .unwrap();
    let error = client.open_dir(&path).await.unwrap_err();
    assert_eq!(
        error,
        Error::Protocol("a handle of 257 bytes; 256 are allowed".to_owned())
    );
}

#[tokio::test]
async fn an_unknown_status_fails_one_request_only() {
    let link = scripted(|id| match id {
        0 => vec![body(101, id, &[0, 0, 0, 99])],
        _ => vec![data(id, b"x")],
    });
    let client = Client::start(link, Settings::default()).await.unwrap();
    let handle = Handle::of(b"h");
    let first = client.read(&handle, 0, 10).await.unwrap().data().await;
    assert_eq!(first.unwrap_err().to_string(), "status 99");
    let second = client.read(&handle, 0, 10).await.unwrap().data().await;
    assert_eq!(second.unwrap().unwrap(), "x");
}

async fn started_with(pieces: Vec<Incoming>) -> Error {
    let (link, to_us, mut from_us) = link();
    let server = tokio::spawn(async move {
        let _ = from_us.recv().await;
        for piece in pieces {
            let _ = to_us.send(piece).await;
        }
        let _ = from_us.recv().await;
        to_us
    });
    let error = Client::start(link, Settings::default()).await.unwrap_err();
    server.abort();
    error
}

#[tokio::test]
async fn noise_before_the_server_is_shown() {
    let noise = |text: &'static [u8]| Incoming::Bytes(Bytes::from_static(text));
    let error = started_with(vec![noise(b"hi\n"), Incoming::Bytes(version(3))]).await;
    assert_eq!(
        error,
        Error::Noise {
            text: "hi".to_owned()
        }
    );
    let error = started_with(vec![noise(b"Welcome to \x1b[1mweb1\x1b[0m!\r\n")]).await;
    let Error::Noise { text } = &error else {
        panic!("{error}")
    };
    assert!(
        text.starts_with("Welcome to ") && !text.contains('\x1b'),
        "{text}"
    );
    let ended = Incoming::Ended("exit 1".to_owned());
    let error = started_with(vec![noise(b"no"), ended]).await;
    assert_eq!(
        error,
        Error::Noise {
            text: "no".to_owned()
        }
    );
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let error = started_with(vec![
        Incoming::Said(Bytes::from_static(b"sftp-server: not found\n")),
        Incoming::Ended("exit 127".to_owned()),
    ])
    .await;
    assert_eq!(
        error,
        Error::Ended("exit 127; it said: sftp-server: not found".to_owned())
    );
    assert_eq!(
        started_with(vec![Incoming::Bytes(version(2))]).await,
        Error::Version(2)
    );
    let newer = started_with(vec![Incoming::Bytes(version(6))]).await;
    assert!(matches!(newer, Error::Protocol(_)), "{newer}");
}

#[tokio::test(start_paused = true)]
async fn patience_counts_from_the_last_byte_and_not_from_the_request() {
    let (link, to_us, mut from_us) = link();
    tokio::spawn(async move {
        let _ = from_us.recv().await;
        let _ = to_us.send(Incoming::Bytes(version(3))).await;
        let _ = from_us.recv().await;
        // 50 bytes, one every 50 s: far beyond any deadline on the request.
        for byte in data(0, &[7; 37]) {
            tokio::time::sleep(Duration::from_secs(50)).await;
            let _ = to_us.send(Incoming::Bytes(Bytes::from(vec![byte]))).await;
        }
        let _ = from_us.recv().await;
        std::future::pending::<()>().await;
    });
    let client = Client::start(link, Settings::default()).await.unwrap();
    let handle = Handle::of(b"h");
    let slow = client.read(&handle, 0, 100).await.unwrap().data().await;
    assert_eq!(slow.unwrap().unwrap().len(), 37);
    // An idle client is not a stalled one.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let silent = client.read(&handle, 0, 100).await.unwrap().data().await;
    assert_eq!(silent, Err(Error::Stalled(Duration::from_secs(60))));
}

#[tokio::test]
async fn what_was_opened_for_somebody_who_left_is_closed() {
    let (link, to_us, mut from_us) = link();
    let client = tokio::spawn(Client::start(link, Settings::default()));
    let _ = from_us.recv().await;
    to_us.send(Incoming::Bytes(version(3))).await.unwrap();
    let client = client.await.unwrap().unwrap();
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.open_dir(&RemotePath::new("x")).await }
    });
    let request = from_us.recv().await.unwrap();
    assert_eq!(request[4], 11);
    opening.abort();
    let _ = opening.await;
    to_us
        .send(Incoming::Bytes(body(102, 0, &[0, 0, 0, 1, b'h'])))
        .await
        .unwrap();
    let close = from_us.recv().await.unwrap();
    assert_eq!(close[4..], [4, 0, 0, 0, 1, 0, 0, 0, 1, b'h']);
}

#[test]
fn the_window_grows_on_a_long_link_and_stays_small_on_a_thin_one() {
    use super::window::Window;
    use std::time::Instant;
    /// Plays a link of so many bytes a second and so much delay; gives the window after a while.
    fn played(rate: f64, delay: Duration, seconds: u64) -> u64 {
        let began = Instant::now();
        let mut window = Window::new(64 << 20);
        let cost = 32 << 10;
        let (mut now, mut free) = (began, began);
        let mut flying = std::collections::VecDeque::new();
        while now < began + Duration::from_secs(seconds) {
            while window.has_room() {
                free = free.max(now) + Duration::from_secs_f64(cost as f64 / rate);
                flying.push_back((now, free + delay));
                window.sent(cost, now);
            }
            let (sent, back) = flying.pop_front().unwrap();
            now = back;
            window.answered(cost, now - sent, now);
        }
        window.size()
    }
    // 100 MB/s and 300 ms: the pipe holds 30 MB.
    let long = played(100e6, Duration::from_millis(300), 30);
    assert!(long >= 30 << 20, "{long}");
    let thin = played(8e3, Duration::from_millis(300), 300);
    assert!(thin <= 128 << 10, "{thin}");
    let near = played(600e6, Duration::from_micros(200), 10);
    assert!(near >= 4 << 20, "{near}");
}

#[test]
fn paths_are_joined_and_cut() {
    let path = |text: &'static str| RemotePath::new(text);
    assert_eq!(path("a").join(b"b"), path("a/b"));
    assert_eq!(path("/").join(b"b"), path("/b"));
    assert_eq!(path("").join(b"b"), path("b"));
    assert_eq!(path("a/b//").file_name(), Some(&b"b"[..]));
    assert_eq!(path("a/b//").parent(), path("a"));
    assert_eq!(path("/a").parent(), path("/"));
    assert_eq!(path("a").parent(), path("."));
    for nameless in ["/", ".", "..", "a/..", "//"] {
        assert_eq!(path(nameless).file_name(), None, "{nameless}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for bad in [&b""[..], b".", b"..", b"/abs", b"a/b", b"a\0b"] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    for good in [&b"..."[..], b"-rf", b" ", b"a\\b", b"\n", b"\xff", b"CON"] {
        assert_eq!(check_name(good), Ok(()), "{good:?}");
    }
}

proptest! {
    #[test]
    fn random_packets_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = wire::hello(Bytes::from(body.clone()));
        let _ = wire::reply(Bytes::from(body));
    }

    #[test]
    fn attributes_come_back_as_they_went(
        size in any::<Option<u64>>(),
        owner in any::<Option<(u32, u32)>>(),
        mode in any::<Option<u32>>(),
        times in any::<Option<(u32, u32)>>(),
    ) {
        let attrs = Attrs { size, owner, mode, times };
        let mut body = BytesMut::new();
        body.put_u8(105);
        body.put_u32(9);
        attrs.put(&mut body);
        prop_assert_eq!(wire::reply(body.freeze()), Ok((9, Reply::Attrs(attrs))));
    }

    #[test]
    fn packets_do_not_depend_on_how_they_are_cut(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8),
        cuts in proptest::collection::vec(1usize..20, 1..40),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|b| packet(b)).collect();
        let mut frames = Frames::default();
        let mut got = Vec::new();
        let (mut rest, mut cuts) = (&stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = after;
            frames.push(piece);
            while let Some(packet) = frames.next().unwrap() {
                got.push(packet.to_vec());
            }
        }
        prop_assert_eq!(got, bodies);
    }

    #[test]
    fn requests_say_their_length(path in proptest::collection::vec(any::<u8>(), 0..100), id in any::<u32>()) {
        let request = Request::Write { handle: path.clone().into(), offset: 1, data: path.into() };
        let (head, data) = request.encode(id);
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        prop_assert_eq!(length, head.len() - 4 + data.unwrap().len());
    }
}

mod listings {
    use std::collections::BTreeSet;

    use super::*;
    use crate::listing::{Entry, Kind, Listing, ModeTest, Wanted};

    async fn listed(client: &Client, listing: &Listing) -> (Vec<Entry>, Walked) {
        let filter = Filter::new(&listing.wanted).unwrap();
        let (found, mut blocks) = mpsc::channel(4);
        let walking = async {
            let walked = walk(client, listing, &filter, &found).await;
            drop(found);
            walked
        };
        let collecting = async {
            let mut all = Vec::new();
            while let Some(block) = blocks.recv().await {
                all.extend(block);
            }
            all
        };
        let (walked, mut all) = tokio::join!(walking, collecting);
        all.sort_by(|a, b| a.path.cmp(&b.path));
        (all, walked.unwrap())
    }

    fn of(dir: &TempDir, below: &str) -> Listing {
        Listing {
            paths: vec![at(dir, below.as_bytes()).bytes()],
            depth: None,
            ..Listing::default()
        }
    }

    fn below(dir: &TempDir, entries: &[Entry]) -> Vec<String> {
        let start = dir.path().to_str().unwrap().len() + 1;
        let cut = |entry: &Entry| String::from_utf8_lossy(&entry.path[start..]).into_owned();
        entries.iter().map(cut).collect()
    }

    fn touch(dir: &TempDir, path: &str, size: usize) {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![b'x'; size]).unwrap();
    }

    #[tokio::test]
    async fn a_tree_of_random_byte_names_is_listed_as_it_is() {
        use std::os::unix::ffi::OsStrExt;
        let (client, dir, _child) = real().await;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut made = BTreeSet::new();
        let mut dirs = vec![dir.path().as_os_str().as_bytes().to_vec()];
        while made.len() < 2_000 {
            let length = 1 + random() % 12;
            let name: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            if name.iter().any(|b| *b == 0 || *b == b'/') || name == b"." || name == b".." {
                continue;
            }
            let parent = &dirs[random() as usize % dirs.len()];
            let path = [&parent[..], b"/", &name].concat();
            let os = std::path::Path::new(std::ffi::OsStr::from_bytes(&path)).to_owned();
            if made.contains(&path) {
                continue;
            }
            if random().is_multiple_of(8) {
                std::fs::create_dir(os).unwrap();
                dirs.push(path.clone());
            } else {
                std::fs::write(os, b"x").unwrap();
            }
            made.insert(path);
        }
        let (found, walked) = listed(&client, &of(&dir, "")).await;
        let paths: BTreeSet<Vec<u8>> = found.iter().map(|entry| entry.path.to_vec()).collect();
        assert_eq!(found.len(), paths.len(), "nothing is listed twice");
        assert!(paths == made);
        assert_eq!(walked.tally.dirs as usize, dirs.len() - 1);
        assert_eq!(walked.trouble, None);
    }

    #[tokio::test]
    async fn depth_links_and_what_is_left_out() {
        let (client, dir, _child) = real().await;
        touch(&dir, "a/b/c/deep", 1);
        touch(&dir, "a/top.txt", 10);
        touch(&dir, "node_modules/x/y", 1);
        std::os::unix::fs::symlink("..", dir.path().join("a/loop")).unwrap();
        let mut listing = of(&dir, "");
        listing.wanted.exclude = vec!["node_modules".to_owned()];
        let (found, _) = listed(&client, &listing).await;
        let all = ["a", "a/b", "a/b/c", "a/b/c/deep", "a/loop", "a/top.txt"];
        assert_eq!(below(&dir, &found), all);
        listing.depth = Some(2);
        listing.targets = true;
        let (found, _) = listed(&client, &listing).await;
        assert_eq!(below(&dir, &found), ["a", "a/b", "a/loop", "a/top.txt"]);
        assert_eq!(found[2].target.as_deref(), Some(&b".."[..]));
        listing.depth = Some(0);
        let (found, _) = listed(&client, &listing).await;
        assert_eq!(
            (found.len(), found[0].depth, found[0].kind),
            (1, 0, Kind::Dir)
        );
    }

    #[tokio::test]
    async fn globs_are_resolved_on_the_host() {
        let (client, dir, _child) = real().await;
        for path in [
            "x1/log/a.log",
            "x2/log/b.log",
            "y/log/c.log",
            ".x3/log/d.log",
            "x4/none",
        ] {
            touch(&dir, path, 1);
        }
        let (found, _) = listed(&client, &of(&dir, "x*/log/*.log")).await;
        assert_eq!(below(&dir, &found), ["x1/log/a.log", "x2/log/b.log"]);
        let (found, walked) = listed(&client, &of(&dir, "z*/log")).await;
        assert_eq!(found[0].kind, Kind::Error);
        let (cause, reason) = walked.trouble.unwrap();
        assert_eq!(cause, FilesCause::Missing);
        assert!(reason.contains("nothing fits the pattern"), "{reason}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_a_row_and_the_rest_goes_on() {
        let (client, dir, _child) = real().await;
        touch(&dir, "there", 5);
        let mut listing = of(&dir, "missing");
        listing.paths.push(at(&dir, b"there").bytes());
        let (found, walked) = listed(&client, &listing).await;
        let kinds: Vec<Kind> = found.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Error, Kind::File]);
        assert_eq!(
            (walked.tally.files, walked.tally.bytes, walked.tally.errors),
            (1, 5, 1)
        );
        let (cause, reason) = walked.trouble.unwrap();
        assert_eq!(cause, FilesCause::Missing);
        assert!(reason.ends_with("missing: no such file"), "{reason}");
    }

    #[tokio::test]
    async fn owners_are_asked_for_by_name() {
        let (client, dir, _child) = real().await;
        touch(&dir, "mine", 1);
        let mut listing = of(&dir, "");
        listing.owners = true;
        let (found, _) = listed(&client, &listing).await;
        let id = std::process::Command::new("id")
            .arg("-un")
            .output()
            .unwrap();
        assert_eq!(found[0].owner.as_deref(), Some(id.stdout.trim_ascii()));
    }

    fn names_reply(id: u32, names: &[&[u8]]) -> Bytes {
        let mut rest = BytesMut::new();
        rest.put_u32(u32::try_from(names.len()).unwrap());
        for name in names {
            wire::string(&mut rest, name);
            wire::string(&mut rest, b"long");
            Attrs::of_mode(0o100_644).put(&mut rest);
        }
        body(104, id, &rest)
    }

    /// A directory whose pages are these; every request before them is answered as it must be.
    fn directory(page: impl Fn(u32) -> Option<Vec<Vec<u8>>> + Send + 'static) -> Link {
        scripted(move |id| match id {
            0 => {
                let mut rest = BytesMut::new();
                Attrs::of_mode(0o040_755).put(&mut rest);
                vec![body(105, id, &rest)]
            }
            1 => vec![body(102, id, &[0, 0, 0, 1, b'h'])],
            _ => match page(id - 2) {
                Some(names) => {
                    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
                    vec![names_reply(id, &names)]
                }
                None => vec![body(101, id, &[0, 0, 0, 1])],
            },
        })
    }

    #[tokio::test]
    async fn the_same_page_without_end_is_a_violation() {
        let link = directory(|_| Some(vec![b"a".to_vec(), b"b".to_vec()]));
        let client = Client::start(link, Settings::default()).await.unwrap();
        let listing = Listing {
            paths: vec!["/x".into()],
            ..Listing::default()
        };
        let filter = Filter::new(&Wanted::default()).unwrap();
        let (found, mut blocks) = mpsc::channel(4);
        let error = walk(&client, &listing, &filter, &found).await.unwrap_err();
        assert_eq!(
            error,
            Error::Protocol("the same page of names twice".to_owned())
        );
        drop(found);
        assert_eq!(blocks.recv().await.unwrap().len(), 2);
        assert!(blocks.recv().await.is_none(), "one page is told, once");
    }

    #[tokio::test]
    async fn names_that_lead_out_are_rows_of_their_own_and_are_never_entered() {
        let names: Vec<Vec<u8>> = [
            &b".."[..],
            b".",
            b"../evil",
            b"/etc/passwd",
            b"",
            b"fine",
            b"n\0l",
        ]
        .map(<[u8]>::to_vec)
        .to_vec();
        let link = directory(move |page| (page == 0).then(|| names.clone()));
        let client = Client::start(link, Settings::default()).await.unwrap();
        let listing = Listing {
            paths: vec!["/x".into()],
            ..Listing::default()
        };
        let (found, walked) = listed(&client, &listing).await;
        let kinds: Vec<Kind> = found.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Error).count(), 4);
        assert_eq!(kinds.iter().filter(|kind| **kind == Kind::File).count(), 1);
        assert!(found.iter().all(|entry| entry.path.starts_with(b"/x")));
        assert_eq!(walked.trouble.unwrap().0, FilesCause::Protocol);
    }

    #[tokio::test]
    async fn a_million_entries_are_handed_out_page_by_page() {
        const PAGES: u32 = 10_000;
        let link = directory(|page| {
            let name = |n: u32| format!("{page}-{n}").into_bytes();
            (page < PAGES).then(|| (0..100).map(name).collect())
        });
        let client = Client::start(link, Settings::default()).await.unwrap();
        let listing = Listing {
            paths: vec!["/x".into()],
            ..Listing::default()
        };
        let filter = Filter::new(&Wanted::default()).unwrap();
        let (found, mut blocks) = mpsc::channel(4);
        let walking = async {
            let walked = walk(&client, &listing, &filter, &found).await;
            drop(found);
            walked
        };
        let counting = async {
            let (mut count, mut largest) = (0, 0);
            while let Some(block) = blocks.recv().await {
                count += block.len();
                largest = largest.max(block.len());
            }
            (count, largest)
        };
        let (walked, (count, largest)) = tokio::join!(walking, counting);
        assert_eq!(walked.unwrap().tally.files, 1_000_000);
        // What waits is at most a few pages, whatever the directory's size.
        assert_eq!((count, largest), (1_000_000, 100));
    }

    #[tokio::test]
    async fn a_directory_without_end_is_a_violation() {
        let link = directory(|page| {
            let name = |n: u32| format!("{page}-{n}").into_bytes();
            Some((0..1000).map(name).collect())
        });
        let client = Client::start(link, Settings::default()).await.unwrap();
        let listing = Listing {
            paths: vec!["/x".into()],
            ..Listing::default()
        };
        let filter = Filter::new(&Wanted::default()).unwrap();
        let (found, mut blocks) = mpsc::channel(4);
        let walking = async {
            let walked = walk(&client, &listing, &filter, &found).await;
            drop(found);
            walked
        };
        let counting = async {
            let mut count = 0;
            while let Some(block) = blocks.recv().await {
                count += block.len();
            }
            count
        };
        let (walked, count) = tokio::join!(walking, counting);
        let ended = walked.unwrap_err();
        assert!(matches!(ended, Error::Protocol(_)), "{ended}");
        assert!(count >= 1_000_000, "real directories are not cut: {count}");
    }

    fn entry(path: &'static str, size: u64, modified: u32, mode: u32) -> Entry {
        Entry {
            path: path.into(),
            depth: 1,
            kind: Kind::of_mode(mode),
            size: Some(size),
            mode: Some(mode & 0o7777),
            accessed: Some(0),
            modified: Some(modified),
            uid: Some(7),
            gid: Some(7),
            owner: Some(Arc::from(&b"ann"[..])),
            group: None,
            target: None,
            error: None,
        }
    }

    #[test]
    fn every_test_of_a_selection_counts() {
        let file = entry("/d/sub/a.log", 100, 1000, 0o100_644);
        let keeps = |change: &dyn Fn(&mut Wanted)| {
            let mut wanted = Wanted::default();
            change(&mut wanted);
            Filter::new(&wanted).unwrap().keeps(&file, b"sub/a.log")
        };
        assert!(keeps(&|_| {}));
        assert!(keeps(&|w| w.kinds = vec![Kind::File]));
        assert!(!keeps(&|w| w.kinds = vec![Kind::Dir, Kind::Link]));
        assert!(keeps(&|w| w.include = vec!["*.txt".into(), "*.log".into()]));
        assert!(keeps(&|w| w.include = vec!["sub/*.log".into()]));
        assert!(!keeps(&|w| w.include = vec!["*/*/*.log".into()]));
        assert!(!keeps(&|w| w.exclude = vec!["a.*".into()]));
        assert!(keeps(&|w| w.regex = Some("^sub/.*g$".into())));
        assert!(!keeps(&|w| w.regex = Some("^/d".into())));
        assert!(keeps(&|w| w.newer = Some(1000)));
        assert!(!keeps(&|w| w.newer = Some(1001)));
        assert!(keeps(&|w| w.older = Some(1001)));
        assert!(!keeps(&|w| w.older = Some(1000)));
        assert!(keeps(&|w| (w.min_size, w.max_size) = (Some(100), Some(100))));
        assert!(!keeps(&|w| w.min_size = Some(101)));
        assert!(!keeps(&|w| w.max_size = Some(99)));
        assert!(keeps(&|w| w.owner = Some("ann".into())));
        assert!(keeps(&|w| w.owner = Some("7".into())));
        assert!(!keeps(&|w| w.owner = Some("bob".into())));
        assert!(keeps(&|w| w.mode = ModeTest::parse("0644")));
        assert!(!keeps(&|w| w.mode = ModeTest::parse("/022")));
        assert!(keeps(&|w| w.mode = ModeTest::parse("-044")));
        assert!(
            Filter::new(&Wanted {
                regex: Some("(".into()),
                ..Wanted::default()
            })
            .is_err()
        );
        assert!(
            Filter::new(&Wanted {
                include: vec!["[".into()],
                ..Wanted::default()
            })
            .is_err()
        );
        for bad in ["", "8", "-", "010000", "+1", "u+x"] {
            assert_eq!(ModeTest::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn modes_are_shown_as_ls_shows_them() {
        let shown = |mode: u32| entry("x", 0, 0, mode).mode_text();
        assert_eq!(shown(0o100_644), "-rw-r--r--");
        assert_eq!(shown(0o041_777), "drwxrwxrwt");
        assert_eq!(shown(0o104_755), "-rwsr-xr-x");
        assert_eq!(shown(0o106_600), "-rwS--S---");
        assert_eq!(shown(0o120_777), "lrwxrwxrwx");
    }
}
