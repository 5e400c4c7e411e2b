//! Copies over OpenSSH's own `sftp-server`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sftp::tests::real;
use crate::transfer::{Download, Preserve, Same, Source, Symlinks, Upload};

/// Two directories: what is there, and where it goes.
struct Places {
    from: TempDir,
    to: TempDir,
}

fn places() -> Places {
    Places {
        from: TempDir::new().unwrap(),
        to: TempDir::new().unwrap(),
    }
}

pub(super) fn bytes_of(path: &Path) -> Bytes {
    Bytes::copy_from_slice(path.as_os_str().as_bytes())
}

/// A path with a slash at the end: what is in it.
fn inside(path: &Path) -> PathBuf {
    path.join("")
}

async fn send(client: &Client, upload: Upload) -> Moved {
    let (meter, stop) = (Meter::default(), CancellationToken::new());
    let copying = Copying::new(client, &upload.how, &meter, None, &stop).unwrap();
    super::upload(copying, &Arc::default(), &upload).await
}

async fn fetch(client: &Client, download: Download) -> Moved {
    let (meter, stop) = (Meter::default(), CancellationToken::new());
    let copying = Copying::new(client, &download.how, &meter, None, &stop).unwrap();
    super::download(copying, &download).await
}

fn upload_of(places: &Places, how: How) -> Upload {
    Upload {
        sources: vec![Source::Path(inside(places.from.path()))],
        dest: bytes_of(places.to.path()),
        how,
    }
}

fn download_of(places: &Places, how: How) -> Download {
    Download {
        sources: vec![bytes_of(&inside(places.from.path()))],
        dest: places.to.path().to_owned(),
        whole_paths: false,
        how,
    }
}

/// Both ways, with the same expectations.
async fn both_ways(make: impl Fn(&Path), how: How, check: impl Fn(&Path, Moved)) {
    for up in [true, false] {
        let (client, _dir, _child) = real().await;
        let places = places();
        make(places.from.path());
        let moved = if up {
            send(&client, upload_of(&places, how.clone())).await
        } else {
            fetch(&client, download_of(&places, how.clone())).await
        };
        check(places.to.path(), moved);
        assert_no_parts(places.to.path());
    }
}

/// All that is below a directory: paths, and what stands there.
fn tree_of(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn add(root: &Path, at: &Path, all: &mut BTreeMap<Vec<u8>, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let what = if data.is_dir() {
                add(root, &path, all);
                "dir".to_owned()
            } else if data.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else {
                let content = fs::read(&path).unwrap();
                format!("{} {:x?}", content.len(), sha2_of(&content))
            };
            let below = path.strip_prefix(root).unwrap();
            all.insert(below.as_os_str().as_bytes().to_vec(), what);
        }
    }
    let mut all = BTreeMap::new();
    add(root, root, &mut all);
    all
}

fn sha2_of(content: &[u8]) -> [u8; 8] {
    use sha2::{Digest, Sha256};
    let sum: [u8; 32] = Sha256::digest(content).into();
    sum[..8].try_into().unwrap()
}

pub(super) fn assert_no_parts(root: &Path) {
    let parts: Vec<_> = tree_of(root).into_keys().collect();
    let parts = parts.iter().map(|path| String::from_utf8_lossy(path));
    let parts: Vec<_> = parts.filter(|path| path.contains(".fanrun-")).collect();
    assert!(parts.is_empty(), "left behind: {parts:?}");
}

pub(super) fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(step).collect()
}

fn sample(root: &Path) {
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("small"), b"hello").unwrap();
    fs::write(root.join("large"), noise(5_000_001, 7)).unwrap();
    fs::write(root.join("piece"), noise(1 << 20, 8)).unwrap();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/b/c/deep"), b"deep").unwrap();
    fs::create_dir(root.join("nothing")).unwrap();
    symlink("../small", root.join("a/link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
}

#[tokio::test]
async fn a_tree_is_the_same_on_the_other_side() {
    let reference = TempDir::new().unwrap();
    sample(reference.path());
    let expected = tree_of(reference.path());
    both_ways(sample, How::default(), |to, moved| {
        assert_eq!(moved.trouble, None);
        assert_eq!(tree_of(to), expected);
        let tally = moved.tally;
        assert_eq!((tally.files, tally.links, tally.dirs), (5, 2, 4));
        assert_eq!(tally.bytes, 5 + 5_000_001 + (1 << 20) + 4);
    })
    .await;
}

#[tokio::test]
async fn what_is_the_same_is_not_moved_again() {
    for same in [Same::SizeAndTime, Same::Content] {
        for up in [true, false] {
            let (client, _dir, _child) = real().await;
            let places = places();
            sample(places.from.path());
            let how = How {
                only_changed: Some(same),
                ..How::default()
            };
            let again = async || {
                if up {
                    send(&client, upload_of(&places, how.clone())).await
                } else {
                    fetch(&client, download_of(&places, how.clone())).await
                }
            };
            let first = again().await;
            assert_eq!((first.trouble, first.tally.files), (None, 5));
            let second = again().await;
            assert_eq!(second.trouble, None);
            assert_eq!((second.tally.files, second.tally.bytes), (0, 0));
            assert_eq!(second.tally.unchanged, 7);
            assert!(!second.tally.changed());
            // One byte is another, the size is the same.
            fs::write(places.from.path().join("small"), b"hullo").unwrap();
            let old = fs::File::options()
                .write(true)
                .open(places.from.path().join("small"));
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9);
            old.unwrap().set_modified(time).unwrap();
            let third = again().await;
            assert_eq!((third.tally.files, third.tally.unchanged), (1, 6));
            let there = fs::read(places.to.path().join("small")).unwrap();
            assert_eq!(there, b"hullo");
        }
    }
}

#[tokio::test]
async fn five_thousand_names_of_any_bytes_come_back() {
    let (client, _dir, _child) = real().await;
    let places = places();
    let mut names = std::collections::BTreeSet::new();
    let mut seed = 1;
    while names.len() < 5000 {
        seed += 1;
        let mut name = noise(1 + seed as usize % 250, seed);
        name.retain(|byte| *byte != 0 && *byte != b'/');
        if !name.is_empty() && name != b"." && name != b".." {
            names.insert(name);
        }
    }
    names.extend([vec![b'x'; 255], b"-rf".to_vec(), b"a*b[c]?".to_vec()]);
    for (at, name) in names.iter().enumerate() {
        let path = places.from.path().join(OsStr::from_bytes(name));
        fs::write(path, at.to_string()).unwrap();
    }
    let moved = send(&client, upload_of(&places, How::default())).await;
    assert_eq!(moved.trouble, None);
    assert_eq!(tree_of(places.from.path()), tree_of(places.to.path()));
    let back = Places {
        from: places.to,
        to: TempDir::new().unwrap(),
    };
    let moved = fetch(&client, download_of(&back, How::default())).await;
    assert_eq!(moved.trouble, None);
    assert_eq!(tree_of(places.from.path()), tree_of(back.to.path()));
    assert_no_parts(back.to.path());
}

#[tokio::test]
async fn a_mirror_loses_what_the_source_does_not_have() {
    for up in [true, false] {
        let (client, _dir, _child) = real().await;
        let places = places();
        sample(places.from.path());
        let to = places.to.path();
        fs::create_dir_all(to.join("old/deeper")).unwrap();
        fs::write(to.join("old/deeper/file"), b"x").unwrap();
        fs::create_dir_all(to.join("a/b")).unwrap();
        fs::write(to.join("a/b/stale"), b"x").unwrap();
        fs::write(to.join("keep.log"), b"x").unwrap();
        let outside = TempDir::new().unwrap();
        fs::write(outside.path().join("precious"), b"x").unwrap();
        symlink(outside.path(), to.join("old/way-out")).unwrap();
        let mut how = How {
            delete: true,
            exclude: vec!["*.log".into()],
            check: true,
            ..How::default()
        };
        let before = tree_of(to);
        let run = async |how: &How| {
            if up {
                send(&client, upload_of(&places, how.clone())).await
            } else {
                fetch(&client, download_of(&places, how.clone())).await
            }
        };
        let looked = run(&how).await;
        assert_eq!(looked.trouble, None);
        assert_eq!(tree_of(to), before, "a look changes nothing");
        let would: Vec<_> = looked
            .would
            .iter()
            .filter(|l| l.starts_with("delete"))
            .collect();
        assert!(
            would.iter().any(|line| line.contains("a/b/stale")),
            "{would:?}"
        );
        assert!(would.iter().any(|line| line.contains("/old")), "{would:?}");
        assert!(!would.iter().any(|line| line.contains("keep")), "{would:?}");
        how.check = false;
        let moved = run(&how).await;
        assert_eq!(moved.trouble, None);
        assert_eq!(moved.tally.deleted, 5);
        let mut expected = tree_of(places.from.path());
        expected.insert(b"keep.log".to_vec(), tree_of(to)[&b"keep.log"[..]].clone());
        assert_eq!(tree_of(to), expected);
        assert!(outside.path().join("precious").exists());
    }
}

#[tokio::test]
async fn nothing_is_deleted_when_something_failed() {
    let (client, _dir, _child) = real().await;
    let places = places();
    fs::write(places.from.path().join("file"), b"new").unwrap();
    // A directory is where the file should go.
    fs::create_dir(places.to.path().join("file")).unwrap();
    fs::write(places.to.path().join("old"), b"x").unwrap();
    let how = How {
        delete: true,
        ..How::default()
    };
    for up in [true, false] {
        let moved = if up {
            send(&client, upload_of(&places, how.clone())).await
        } else {
            fetch(&client, download_of(&places, how.clone())).await
        };
        let (_, reason) = moved.trouble.unwrap();
        assert!(reason.contains("a directory is in its place"), "{reason}");
        assert!(
            moved
                .notes
                .iter()
                .any(|note| note.contains("nothing was deleted"))
        );
        assert!(places.to.path().join("old").exists());
        assert_no_parts(places.to.path());
    }
}

#[tokio::test]
async fn modes_and_times_are_kept_only_on_purpose() {
    let make = |root: &Path| {
        let path = root.join("tool");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        file.set_modified(time).unwrap();
    };
    let all = Preserve {
        mode: true,
        times: true,
        set_id: false,
    };
    let with_set_id = Preserve {
        set_id: true,
        ..all
    };
    let cases = [
        (Preserve::default(), 0o751 & !0o022, false),
        (all, 0o751, true),
        (with_set_id, 0o6751, true),
    ];
    for (preserve, mode, old) in cases {
        let how = How {
            preserve,
            ..How::default()
        };
        both_ways(make, how, |to, moved| {
            assert_eq!(moved.trouble, None);
            let data = fs::metadata(to.join("tool")).unwrap();
            assert_eq!(data.mode() & 0o7777, mode, "{:o}", data.mode());
            assert_eq!(data.mtime() == 1_000_000, old);
        })
        .await;
    }
    let how = How {
        mode: Some(0o600),
        ..How::default()
    };
    both_ways(make, how, |to, _| {
        let data = fs::metadata(to.join("tool")).unwrap();
        assert_eq!(data.mode() & 0o7777, 0o600);
    })
    .await;
}

#[tokio::test]
async fn links_are_copied_followed_or_left_out() {
    let make = |root: &Path| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), b"x").unwrap();
        symlink("dir/file", root.join("to-file")).unwrap();
        symlink("dir", root.join("to-dir")).unwrap();
        symlink("..", root.join("dir/up")).unwrap();
    };
    let with = |symlinks| How {
        symlinks,
        ..How::default()
    };
    both_ways(make, with(Symlinks::Copy), |to, moved| {
        assert_eq!(moved.trouble, None);
        assert_eq!(fs::read_link(to.join("to-dir")).unwrap(), Path::new("dir"));
        assert_eq!(fs::read_link(to.join("dir/up")).unwrap(), Path::new(".."));
    })
    .await;
    both_ways(make, with(Symlinks::Skip), |to, moved| {
        assert_eq!(moved.trouble, None);
        assert_eq!(tree_of(to).len(), 2);
    })
    .await;
    let make_old = |root: &Path| {
        make(root);
        // 2001-09-09, of the link and not of what it leads to.
        let old = ["-h", "-d", "@1000000000"];
        let link = root.join("to-file");
        let mut touch = std::process::Command::new("touch");
        assert!(touch.args(old).arg(link).status().unwrap().success());
    };
    let preserving = How {
        preserve: Preserve {
            times: true,
            ..Preserve::default()
        },
        ..How::default()
    };
    both_ways(make_old, preserving, |to, moved| {
        assert_eq!(moved.trouble, None);
        let link = fs::symlink_metadata(to.join("to-file")).unwrap();
        assert_eq!(link.mtime(), 1_000_000_000);
        let file = fs::metadata(to.join("to-file")).unwrap();
        assert!(file.mtime() > 1_600_000_000);
    })
    .await;
    both_ways(make, with(Symlinks::Follow), |to, moved| {
        let (_, reason) = moved.trouble.unwrap();
        assert!(reason.contains("leads back"), "{reason}");
        assert_eq!(fs::read(to.join("to-file")).unwrap(), b"x");
        assert_eq!(fs::read(to.join("to-dir/file")).unwrap(), b"x");
        assert!(fs::symlink_metadata(to.join("to-dir")).unwrap().is_dir());
    })
    .await;
}

#[tokio::test]
async fn a_link_here_is_never_written_through() {
    let (client, _dir, _child) = real().await;
    let places = places();
    let outside = TempDir::new().unwrap();
    fs::create_dir(places.from.path().join("dir")).unwrap();
    fs::write(places.from.path().join("dir/file"), b"x").unwrap();
    fs::write(places.from.path().join("plain"), b"x").unwrap();
    symlink(outside.path(), places.to.path().join("dir")).unwrap();
    let aim = outside.path().join("aim");
    symlink(&aim, places.to.path().join("plain")).unwrap();
    let moved = fetch(&client, download_of(&places, How::default())).await;
    assert_eq!(moved.tally.errors, 1, "{moved:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    // The link itself was replaced.
    assert_eq!(fs::read(places.to.path().join("plain")).unwrap(), b"x");
    assert!(
        !fs::symlink_metadata(places.to.path().join("plain"))
            .unwrap()
            .is_symlink()
    );
}

#[tokio::test]
async fn a_part_is_gone_on_with_if_it_is_how_the_file_begins() {
    let content = noise(3_000_000, 3);
    for up in [true, false] {
        for good in [true, false] {
            let (client, _dir, _child) = real().await;
            let places = places();
            fs::write(places.from.path().join("file"), &content).unwrap();
            let mut part = content[..1_234_567].to_vec();
            part[1_000_000] ^= u8::from(!good);
            fs::write(places.to.path().join(".file.fanrun-part"), &part).unwrap();
            let how = How {
                resume: true,
                verify: true,
                ..How::default()
            };
            let moved = if up {
                send(&client, upload_of(&places, how)).await
            } else {
                fetch(&client, download_of(&places, how)).await
            };
            assert_eq!(moved.trouble, None);
            assert!(fs::read(places.to.path().join("file")).unwrap() == content);
            assert_no_parts(places.to.path());
        }
    }
}

#[tokio::test]
async fn what_is_replaced_can_be_kept() {
    let how = How {
        backup: true,
        durable: true,
        ..How::default()
    };
    for up in [true, false] {
        let (client, _dir, _child) = real().await;
        let places = places();
        fs::write(places.to.path().join("file"), b"zero").unwrap();
        for content in ["one", "two"] {
            fs::write(places.from.path().join("file"), content).unwrap();
            let moved = if up {
                send(&client, upload_of(&places, how.clone())).await
            } else {
                fetch(&client, download_of(&places, how.clone())).await
            };
            assert_eq!(moved.trouble, None);
        }
        assert_eq!(fs::read(places.to.path().join("file")).unwrap(), b"two");
        assert_eq!(fs::read(places.to.path().join("file~")).unwrap(), b"one");
    }
}

#[tokio::test]
async fn one_file_has_the_very_path_unless_a_directory_is_named() {
    let (client, _dir, _child) = real().await;
    let places = places();
    let (from, to) = (places.from.path(), places.to.path());
    fs::write(from.join("file"), b"x").unwrap();
    fs::create_dir(to.join("there")).unwrap();
    let cases = [
        ("new/name", "new/name"),
        ("new/dir/", "new/dir/file"),
        ("there", "there/file"),
        ("name2", "name2"),
    ];
    for (dest, expected) in cases {
        for up in [true, false] {
            let to = to.join(if up { "up" } else { "down" });
            fs::create_dir_all(to.join("there")).unwrap();
            let dest = to.join(dest);
            let moved = if up {
                let upload = Upload {
                    sources: vec![Source::Path(from.join("file"))],
                    dest: bytes_of(&dest),
                    how: How::default(),
                };
                send(&client, upload).await
            } else {
                let download = Download {
                    sources: vec![bytes_of(&from.join("file"))],
                    dest,
                    whole_paths: false,
                    how: How::default(),
                };
                fetch(&client, download).await
            };
            assert_eq!(moved.trouble, None);
            assert!(to.join(expected).is_file(), "{expected}, up: {up}");
        }
    }
}

#[tokio::test]
async fn whole_paths_and_patterns() {
    let (client, _dir, _child) = real().await;
    let places = places();
    let from = places.from.path();
    for host in ["a", "b"] {
        fs::create_dir(from.join(host)).unwrap();
        fs::write(from.join(host).join("x.log"), host).unwrap();
        fs::write(from.join(host).join("y.txt"), host).unwrap();
    }
    let download = Download {
        sources: vec![bytes_of(&from.join("*/*.log"))],
        dest: places.to.path().to_owned(),
        whole_paths: true,
        how: How::default(),
    };
    let moved = fetch(&client, download).await;
    assert_eq!((moved.trouble, moved.tally.files), (None, 2));
    let below = from.strip_prefix("/").unwrap();
    let there = places.to.path().join(below).join("b/x.log");
    assert_eq!(fs::read(there).unwrap(), b"b");
    let upload = Upload {
        sources: vec![Source::Path(from.join("*/y.txt"))],
        dest: bytes_of(places.to.path()),
        how: How::default(),
    };
    let moved = send(&client, upload).await;
    // Both are called y.txt.
    let (_, reason) = moved.trouble.unwrap();
    assert!(reason.contains("two sources have this name"), "{reason}");
    let missing = Download {
        sources: vec![bytes_of(&from.join("*.none"))],
        dest: places.to.path().to_owned(),
        whole_paths: false,
        how: How::default(),
    };
    let (cause, reason) = fetch(&client, missing).await.trouble.unwrap();
    assert_eq!(cause, FilesCause::Missing);
    assert!(reason.contains("nothing fits"), "{reason}");
}

#[tokio::test]
async fn files_without_a_size_are_read_to_their_end() {
    let (client, _dir, _child) = real().await;
    let to = TempDir::new().unwrap();
    let download = Download {
        sources: vec![Bytes::from_static(b"/proc/cpuinfo")],
        dest: to.path().join("down"),
        whole_paths: false,
        how: How::default(),
    };
    assert_eq!(fetch(&client, download).await.trouble, None);
    let upload = Upload {
        sources: vec![Source::Path("/proc/cpuinfo".into())],
        dest: bytes_of(&to.path().join("up")),
        how: How::default(),
    };
    assert_eq!(send(&client, upload).await.trouble, None);
    let expected = fs::read_to_string("/proc/cpuinfo").unwrap();
    // The clock rates in it change all the time.
    let lines = |text: &str| text.lines().filter(|line| !line.contains("MHz")).count();
    for name in ["up", "down"] {
        let there = fs::read_to_string(to.path().join(name)).unwrap();
        assert_eq!(lines(&there), lines(&expected), "{name}");
    }
}

#[tokio::test]
async fn holes_and_offsets_beyond_four_gigabytes() {
    use std::os::unix::fs::FileExt;
    let (client, _dir, _child) = real().await;
    let places = places();
    let path = places.from.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    let places_of_marks = [0, (4 << 30) - 1, 4 << 30, (4 << 30) + 1, (5 << 30) - 1];
    for (mark, at) in (b'A'..).zip(places_of_marks) {
        file.write_all_at(&[mark], at).unwrap();
    }
    let moved = send(&client, upload_of(&places, How::default())).await;
    assert_eq!(moved.trouble, None);
    let there = fs::File::open(places.to.path().join("sparse")).unwrap();
    assert_eq!(there.metadata().unwrap().len(), 5 << 30);
    assert!(
        there.metadata().unwrap().blocks() < 1 << 16,
        "holes stay holes"
    );
    for (mark, at) in (b'A'..).zip(places_of_marks) {
        let mut byte = [0];
        there.read_exact_at(&mut byte, at).unwrap();
        assert_eq!(byte, [mark], "at {at}");
    }
}

#[tokio::test]
async fn special_files_are_refused_and_the_rest_goes_on() {
    let make = |root: &Path| {
        fs::write(root.join("file"), b"x").unwrap();
        let fifo = root.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    };
    both_ways(make, How::default(), |to, moved| {
        let (_, reason) = moved.trouble.unwrap();
        assert!(reason.contains("fifo: is a fifo"), "{reason}");
        assert_eq!(moved.tally.files, 1);
        assert!(to.join("file").exists());
    })
    .await;
}

#[tokio::test]
async fn what_many_hosts_get_is_read_once() {
    let places = places();
    sample(places.from.path());
    let sources = Arc::new(Sources::default());
    let upload = Upload {
        sources: vec![Source::Path(inside(places.from.path()))],
        dest: Bytes::from_static(b"copy"),
        how: How::default(),
    };
    let one = async || {
        let (client, _dir, _child) = real().await;
        let to = TempDir::new().unwrap();
        let upload = Upload {
            dest: bytes_of(to.path()),
            ..upload.clone()
        };
        let (meter, stop) = (Meter::default(), CancellationToken::new());
        let copying = Copying::new(&client, &upload.how, &meter, None, &stop).unwrap();
        let moved = super::upload(copying, &sources, &upload).await;
        assert_eq!(moved.trouble, None);
        assert_eq!(tree_of(to.path()), tree_of(places.from.path()));
    };
    tokio::join!(one(), one(), one(), one(), one(), one());
    let once = 5 + 5_000_001 + (1 << 20) + 4;
    assert_eq!(sources.bytes_read(), once);
}

#[tokio::test]
async fn told_to_stop_it_takes_its_parts_away() {
    let places = places();
    for at in 0..40 {
        fs::write(places.from.path().join(at.to_string()), noise(300_000, at)).unwrap();
    }
    let expected = tree_of(places.from.path());
    for round in 0..60u64 {
        for up in [true, false] {
            let (client, _dir, _child) = real().await;
            let to = TempDir::new().unwrap();
            let (meter, stop) = (Meter::default(), CancellationToken::new());
            let upload = Upload {
                dest: bytes_of(to.path()),
                ..upload_of(&places, How::default())
            };
            let download = Download {
                dest: to.path().to_owned(),
                ..download_of(&places, How::default())
            };
            let copying = Copying::new(&client, &upload.how, &meter, None, &stop).unwrap();
            let stopping = async {
                // At some byte of the way; the first few rounds before anything has moved.
                let limit = round.saturating_sub(3) * 200_000;
                while meter.progress().bytes < limit {
                    tokio::task::yield_now().await;
                }
                stop.cancel();
            };
            let working = async {
                if up {
                    super::upload(copying, &Arc::default(), &upload).await
                } else {
                    super::download(copying, &download).await
                }
            };
            let (moved, ()) = tokio::join!(working, stopping);
            assert_eq!(moved.trouble, None);
            assert_no_parts(to.path());
            for (name, what) in tree_of(to.path()) {
                assert_eq!(Some(&what), expected.get(&name), "round {round}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_dies_leaves_no_name_incomplete() {
    let places = places();
    for at in 0..20 {
        fs::write(places.from.path().join(at.to_string()), noise(300_000, at)).unwrap();
    }
    let expected = tree_of(places.from.path());
    for round in 0..30u64 {
        for up in [true, false] {
            let (client, _dir, mut child) = real().await;
            let to = TempDir::new().unwrap();
            let (meter, stop) = (Meter::default(), CancellationToken::new());
            let upload = Upload {
                dest: bytes_of(to.path()),
                ..upload_of(&places, How::default())
            };
            let download = Download {
                dest: to.path().to_owned(),
                ..download_of(&places, How::default())
            };
            let copying = Copying::new(&client, &upload.how, &meter, None, &stop).unwrap();
            let killing = async {
                while meter.progress().bytes < round * 150_000 {
                    tokio::task::yield_now().await;
                }
                child.start_kill().unwrap();
                child.wait().await.unwrap();
            };
            let working = async {
                if up {
                    super::upload(copying, &Arc::default(), &upload).await
                } else {
                    super::download(copying, &download).await
                }
            };
            let (moved, ()) = tokio::join!(working, killing);
            let (cause, _) = moved.trouble.expect("the server is gone");
            assert_eq!(cause, FilesCause::Ended);
            let there = tree_of(to.path());
            // Nobody is left to take away what is on the host, but it is told of.
            for (name, _) in there.iter().filter(|(name, _)| name.starts_with(b".")) {
                let path = RemotePath::new(bytes_of(to.path())).join(name);
                assert!(up && moved.left.contains(&path), "{path} is not told of");
            }
            for (name, what) in there.iter().filter(|(name, _)| !name.starts_with(b".")) {
                assert_eq!(Some(what), expected.get(name), "round {round}");
            }
        }
    }
}

#[tokio::test]
async fn without_hard_links_the_old_file_is_copied_where_it_is() {
    let from = TempDir::new().unwrap();
    let to = TempDir::new().unwrap();
    fs::write(from.path().join("file"), b"new").unwrap();
    fs::write(to.path().join("file"), noise(300_000, 4)).unwrap();
    fs::set_permissions(to.path().join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    let (link, _child) = crate::sftp::tests::real_server(&["-P", "hardlink"]);
    let client = Client::start(link, crate::sftp::Settings::default());
    let client = client.await.unwrap();
    let how = How {
        backup: true,
        ..How::default()
    };
    let old = fs::metadata(to.path().join("file")).unwrap().ino();
    let places = Places { from, to };
    let moved = send(&client, upload_of(&places, how)).await;
    assert_eq!(moved.trouble, None);
    let kept = places.to.path().join("file~");
    assert!(fs::read(&kept).unwrap() == noise(300_000, 4));
    let data = fs::metadata(kept).unwrap();
    assert_eq!(data.mode() & 0o777, 0o640);
    assert_ne!(
        data.ino(),
        old,
        "renamed, so that for a moment there was no file"
    );
    assert_eq!(fs::read(places.to.path().join("file")).unwrap(), b"new");
}
