//! Two of OpenSSH's own servers that share a file.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::tests::{assert_no_parts, bytes_of, noise};
use super::super::{Copying, GRAIN, Meter, Moved};
use super::SecondAsk;
use crate::sftp::tests::{real, real_server};
use crate::sftp::{Client, Link, Settings};
use crate::transfer::{Download, How, Source, Upload};

const MIB: usize = 1 << 20;

/// A file of many different blocks in a directory, and one to copy it to.
struct Places {
    from: TempDir,
    to: TempDir,
    content: Vec<u8>,
}

fn places() -> Places {
    let from = TempDir::new().unwrap();
    let block = noise(MIB, 3);
    let mut content = Vec::new();
    for number in 0..40u8 {
        content.extend(block.iter().map(|byte| byte ^ number));
    }
    content.extend_from_slice(b"and a short one");
    fs::write(from.path().join("large"), &content).unwrap();
    Places {
        from,
        to: TempDir::new().unwrap(),
        content,
    }
}

/// A client of a server of its own, and how many bytes went to it and came from it.
async fn counted() -> (Client, Arc<AtomicU64>, Child) {
    let (link, child) = real_server(&[]);
    let carried = Arc::new(AtomicU64::new(0));
    let Link {
        mut incoming,
        outgoing,
    } = link;
    let (to_us, ours) = mpsc::channel(4);
    let (from_us, mut theirs) = mpsc::channel::<Bytes>(4);
    let (up, down) = (Arc::clone(&carried), Arc::clone(&carried));
    tokio::spawn(async move {
        while let Some(bytes) = theirs.recv().await {
            up.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if outgoing.send(bytes).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some(came) = incoming.recv().await {
            if let crate::sftp::Incoming::Bytes(bytes) = &came {
                down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            if to_us.send(came).await.is_err() {
                return;
            }
        }
    });
    let link = Link {
        incoming: ours,
        outgoing: from_us,
    };
    let client = Client::start(link, Settings::default()).await.unwrap();
    (client, carried, child)
}

/// Copies `large`; whoever asks for a second client is served by `second`.
async fn copy<S: Future<Output = Option<Client>>>(
    places: &Places,
    up: bool,
    how: How,
    second: impl FnOnce() -> S,
) -> (Moved, bool) {
    let (client, _dir, _child) = real().await;
    let (meter, stop) = (Meter::default(), CancellationToken::new());
    let mut copying = Copying::new(&client, &how, &meter, None, &stop).unwrap();
    copying.second_from = 4 << 20;
    // Little is under way at once, so that the second has joined before the end.
    copying.budget = Arc::new(Semaphore::new(2 * MIB / GRAIN));
    let (ask, mut asks) = mpsc::channel(1);
    let copying = copying.with_seconds(ask);
    let source = places.from.path().join("large");
    let upload = Upload {
        sources: vec![Source::Path(source.clone())],
        dest: bytes_of(&places.to.path().join("")),
        how: how.clone(),
    };
    let download = Download {
        sources: vec![bytes_of(&source)],
        dest: places.to.path().to_owned(),
        whole_paths: false,
        how: how.clone(),
    };
    let serving = async {
        let Some(SecondAsk(mut answer)) = asks.recv().await else {
            return false;
        };
        tokio::select! {
            client = second() => drop(answer.send(client)),
            () = answer.closed() => {}
        }
        assert!(asks.recv().await.is_none(), "it is asked for once");
        true
    };
    let working = async {
        if up {
            super::super::upload(copying, &Arc::default(), &upload).await
        } else {
            super::super::download(copying, &download).await
        }
    };
    tokio::join!(working, serving)
}

fn arrived(places: &Places) -> bool {
    assert_no_parts(places.to.path());
    fs::read(places.to.path().join("large")).unwrap() == places.content
}

/// Seconds since 1970 are of the last hour.
fn is_of_now(seconds: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let age = now.unwrap().as_secs() as i64 - seconds;
    (0..3600).contains(&age)
}

#[tokio::test]
async fn a_large_file_goes_over_both() {
    for up in [true, false] {
        let places = places();
        let (second, carried, _child) = counted().await;
        let (moved, asked) = copy(&places, up, How::default(), || async { Some(second) }).await;
        assert_eq!(moved.trouble, None);
        assert!(asked);
        assert_eq!(moved.tally.bytes, places.content.len() as u64);
        assert!(arrived(&places), "up: {up}");
        let carried = carried.load(Ordering::Relaxed);
        assert!(carried > 4 * MIB as u64, "{carried} of them, up: {up}");
        let data = fs::metadata(places.to.path().join("large")).unwrap();
        assert!(
            is_of_now(data.mtime()) && is_of_now(data.atime()),
            "{data:?}"
        );
    }
}

#[tokio::test]
async fn what_a_second_connection_did_is_done_again_when_it_is_lost() {
    for (round, up) in [(1u64, true), (6, true), (1, false), (6, false)] {
        let places = places();
        let (second, carried, mut child) = counted().await;
        let killing = async move {
            while carried.load(Ordering::Relaxed) < round * MIB as u64 {
                tokio::task::yield_now().await;
            }
            child.start_kill().unwrap();
            child.wait().await.unwrap()
        };
        let copying = copy(&places, up, How::default(), || async { Some(second) });
        let ((moved, _), killed) = tokio::join!(copying, killing);
        assert!(!killed.success());
        assert_eq!(moved.trouble, None, "up: {up}");
        assert!(arrived(&places), "up: {up}");
    }
}

#[tokio::test]
async fn without_a_second_connection_the_first_does_it_all() {
    for up in [true, false] {
        let places = places();
        let (moved, asked) = copy(&places, up, How::default(), || async { None }).await;
        assert_eq!(moved.trouble, None);
        assert!(asked && arrived(&places));
        // Nor does it matter when the answer never comes.
        fs::remove_file(places.to.path().join("large")).unwrap();
        let never = std::future::pending::<Option<Client>>;
        let (moved, asked) = copy(&places, up, How::default(), never).await;
        assert_eq!(moved.trouble, None);
        assert!(asked && arrived(&places));
    }
}

/// The part of an upload that is under way.
fn part_in(dir: &Path) -> std::path::PathBuf {
    let mut names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .find(|path| path.to_string_lossy().contains(".fanrun-"))
        .expect("a part")
}

#[tokio::test]
async fn nothing_is_written_to_what_was_put_in_place_of_a_part() {
    let places = places();
    let victim = places.from.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    let (second, carried, _child) = counted().await;
    let swap = || async {
        let part = part_in(places.to.path());
        fs::rename(&part, places.to.path().join("stolen")).unwrap();
        symlink(&victim, &part).unwrap();
        Some(second)
    };
    let (_, asked) = copy(&places, true, How::default(), swap).await;
    assert!(asked);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    let carried = carried.load(Ordering::Relaxed);
    assert!(carried < 10_000, "{carried} bytes");
    // The file that was opened got them all.
    assert!(fs::read(places.to.path().join("stolen")).unwrap() == places.content);
}

#[tokio::test]
async fn a_source_that_was_replaced_is_not_mixed_with_the_new_one() {
    let places = places();
    let (second, carried, _child) = counted().await;
    let replace = || async {
        let new = places.from.path().join("new");
        fs::write(&new, vec![b'x'; places.content.len()]).unwrap();
        let file = fs::File::options().write(true).open(&new).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        file.set_modified(later).unwrap();
        fs::rename(&new, places.from.path().join("large")).unwrap();
        Some(second)
    };
    let (moved, asked) = copy(&places, false, How::default(), replace).await;
    assert!(asked);
    assert_eq!(moved.trouble, None);
    assert!(arrived(&places));
    let carried = carried.load(Ordering::Relaxed);
    assert!(carried < 10_000, "{carried} bytes");
}

#[tokio::test]
async fn what_may_be_gone_on_with_has_no_holes() {
    let places = places();
    let how = How {
        resume: true,
        ..How::default()
    };
    let (moved, asked) = copy(&places, true, how, || async { None }).await;
    assert_eq!(moved.trouble, None);
    assert!(!asked && arrived(&places));
}
