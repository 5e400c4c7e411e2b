//! `fanrun upload`, `fanrun download` and the tasks of the same names, over real servers: trees on
//! every server, many hosts, full disks, ends in the middle, and thin links.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::evil_sftp::{Content, Death, EvilSftp, Mode, Tree};
use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::proxy::Proxy;
use crate::sftp_servers::{SftpServer, ids_of, writable};
use crate::sshd::{Sshd, is_root};

fn anything(_: &str) -> bool {
    true
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(step).collect()
}

/// All that is below a directory: paths, and what stands there.
fn tree_of(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    fn add(root: &Path, at: &Path, all: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let what = if data.is_dir() {
                add(root, &path, all);
                b"dir".to_vec()
            } else if data.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let below = path.strip_prefix(root).unwrap();
            all.insert(below.as_os_str().as_bytes().to_vec(), what);
        }
    }
    let mut all = BTreeMap::new();
    add(root, root, &mut all);
    all
}

fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (tree_of(one), tree_of(other));
    let names = |tree: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let names = tree
            .keys()
            .map(|name| String::from_utf8_lossy(name).into_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&one), names(&other));
    assert!(one == other, "the contents differ");
}

fn assert_no_parts(root: &Path) {
    let parts = tree_of(root);
    let parts = parts.keys().map(|name| String::from_utf8_lossy(name));
    let parts: Vec<_> = parts.filter(|name| name.contains(".fanrun-")).collect();
    assert!(parts.is_empty(), "left behind: {parts:?}");
}

/// How many names there are, whatever happens to them meanwhile.
fn seen(root: &Path) -> u64 {
    fs::read_dir(root).map_or(0, |names| names.count() as u64)
}

/// Directories, links, an empty file, odd names, and one file of several pieces.
fn sample(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("a/small file"), "hello").unwrap();
    fs::write(root.join("a/b/large"), noise(2_000_003, 5)).unwrap();
    fs::write(root.join("a/-rf"), "x").unwrap();
    fs::write(root.join("a/new\nline"), "y").unwrap();
    symlink("small file", root.join("a/link")).unwrap();
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `DIR/`: what is in it.
fn inside(dir: &Path) -> String {
    format!("{}/", dir.display())
}

#[test]
fn trees_go_there_and_back_on_every_server() {
    for (name, server) in writable() {
        println!("{name}");
        let from = TempDir::new().unwrap();
        sample(from.path());
        let place = format!("{}:{}", server.address(), server.remote("tree"));
        let upload = |words: &'static str| {
            Fanrun::new(["upload", &inside(from.path()), &place, "--only-changed"])
                .options(server.fanrun_args())
                .expect(0, "", holds([words]));
        };
        upload("5 files");
        assert_same(from.path(), &server.place().join("tree"));
        upload("unchanged");
        let to = TempDir::new().unwrap();
        let download = |words: &'static str| {
            let source = format!("{place}/");
            Fanrun::new([
                "download",
                "--flat",
                &source,
                &path(to.path()),
                "--only-changed",
            ])
            .options(server.fanrun_args())
            .expect(0, "", holds([words]));
        };
        download("5 files");
        assert_same(from.path(), to.path());
        download("unchanged");
        assert_no_parts(server.place());
    }
}

#[test]
fn what_arrives_is_compared_with_or_without_a_shell() {
    let servers = [
        (SftpServer::internal(), "compared by the host's sha256sum"),
        (SftpServer::asyncssh(), "compared by reading back"),
        (SftpServer::chrooted(), "compared by reading back"),
    ];
    for (server, words) in servers {
        let from = TempDir::new().unwrap();
        sample(from.path());
        let place = format!("{}:{}", server.address(), server.remote("tree"));
        let upload = ["upload", "--verify", &inside(from.path()), &place];
        Fanrun::new(upload)
            .options(server.fanrun_args())
            .expect(0, "", holds(["5 files", words]));
        let to = TempDir::new().unwrap();
        let (source, dest) = (format!("{place}/"), path(to.path()));
        let download = ["download", "--flat", "--verify", &source, &dest];
        Fanrun::new(download).options(server.fanrun_args()).expect(
            0,
            "",
            holds(["5 files", words]),
        );
        assert_same(from.path(), to.path());
    }
}

#[test]
fn a_release_goes_to_fifty_hosts_once() {
    let sshd = Sshd::builder().addresses(50).start();
    let from = TempDir::new().unwrap();
    sample(from.path());
    let to = sshd.directory().join("hosts");
    let playbook = format!(
        "hosts: all\ntasks:\n  - name: the release\n    upload:\n      src: {}\n      \
         dest: {}/${{{{ host.name }}}}\n      only_changed: true\n      verify: true\n      delete: true\n",
        inside(from.path()),
        to.display()
    );
    let file = sshd.directory().join("release.yml");
    fs::write(&file, playbook).unwrap();
    let run = |words: [&'static str; 2]| {
        let file = path(&file);
        Fanrun::new(["run", &file, "-i", &sshd.addresses().join(",")])
            .options(sshd.fanrun_args())
            .expect(0, "", holds(words));
    };
    run(["5 files", "50 ok"]);
    for address in sshd.addresses() {
        assert_same(from.path(), &to.join(address));
    }
    let stamp = |address: &str| {
        let data = fs::metadata(to.join(address).join("a/b/large")).unwrap();
        (data.ino(), data.ctime(), data.ctime_nsec())
    };
    let before: Vec<_> = sshd.addresses().iter().map(|a| stamp(a)).collect();
    let old = to.join(&sshd.addresses()[7]).join("old");
    fs::write(&old, "x").unwrap();
    // What would go is told before it goes, and `plan` changes nothing.
    let (file, hosts) = (path(&file), sshd.addresses().join(","));
    let line = format!("delete  {}", old.display());
    Fanrun::new(["plan", "--connect", &file, "-i", &hosts])
        .options(sshd.fanrun_args())
        .expect(
            0,
            move |text: &str| text.matches("delete  /").count() == 1 && text.contains(&line),
            anything,
        );
    assert!(old.exists());
    run(["unchanged", "1 deleted"]);
    assert!(!old.exists());
    let after: Vec<_> = sshd.addresses().iter().map(|a| stamp(a)).collect();
    assert_eq!(before, after, "nothing was transferred again");
}

#[test]
fn downloads_of_many_hosts_never_meet() {
    let sshd = Sshd::builder().addresses(3).start();
    let file = sshd.directory().join("logs/app.log");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "hello").unwrap();
    let to = TempDir::new().unwrap();
    let source = format!(
        "{}:{}/*.log",
        sshd.addresses().join(","),
        path(file.parent().unwrap())
    );
    Fanrun::new(["download", &source, &path(to.path())])
        .options(sshd.fanrun_args())
        .expect(0, "", holds(["1 file", "3 ok"]));
    for address in sshd.addresses() {
        let below = file.strip_prefix("/").unwrap();
        let there = to.path().join(address).join(below);
        assert_eq!(fs::read_to_string(there).unwrap(), "hello");
    }
    let named = format!("{}/${{{{ host.name }}}}.log", to.path().display());
    Fanrun::new(["download", &source, &named])
        .options(sshd.fanrun_args())
        .expect(0, "", anything);
    assert!(
        to.path()
            .join(format!("{}.log", sshd.addresses()[2]))
            .is_file()
    );
    Fanrun::new(["download", "--flat", &source, &path(to.path())])
        .options(sshd.fanrun_args())
        .expect(2, "", holds(["3 hosts would overwrite each other"]));
}

/// A file system of so many KiB that is gone at the end.
struct Small(TempDir);

impl Small {
    fn new(kib: u32) -> Small {
        let dir = TempDir::new().unwrap();
        let size = format!("size={kib}k");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success(), "a tmpfs needs root");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Small(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.path())
            .status();
    }
}

#[test]
fn a_full_disk_on_either_side_is_told_and_leaves_nothing() {
    assert!(is_root(), "only root can mount a small file system");
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("large"), noise(3 << 20, 1)).unwrap();
    let small = Small::new(1024);
    let source = path(&from.path().join("large"));
    let place = format!("{}:{}/", sshd.address(), path(small.path()));
    Fanrun::new(["upload", &source, &place, "--format", "ndjson"])
        .options(sshd.fanrun_args())
        .expect(
            1,
            holds(["remote-space", "the disk of the host is full"]),
            "",
        );
    assert_eq!(tree_of(small.path()).len(), 0);
    let place = format!("{}:{source}", sshd.address());
    let dest = inside(small.path());
    Fanrun::new(["download", "--flat", &place, &dest, "--format", "ndjson"])
        .options(sshd.fanrun_args())
        .expect(1, holds(["local-space", "no space left"]), "");
    assert_eq!(tree_of(small.path()).len(), 0);
}

#[test]
fn ctrl_c_at_any_moment_leaves_no_part() {
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    for at in 0..20 {
        fs::write(from.path().join(at.to_string()), noise(400_000, at)).unwrap();
    }
    let expected = tree_of(from.path());
    let to = sshd.directory().join("to");
    for round in 0..12u64 {
        for up in [true, false] {
            let _ = fs::remove_dir_all(&to);
            fs::create_dir(&to).unwrap();
            let there = format!("{}:{}", sshd.address(), inside(from.path()));
            let here = format!("{}:{}", sshd.address(), path(&to));
            let args = if up {
                [
                    "upload".to_owned(),
                    inside(from.path()),
                    here,
                    "--bandwidth=8MiB".into(),
                ]
            } else {
                [
                    "download".to_owned(),
                    there,
                    path(&to),
                    "--bandwidth=8MiB".into(),
                ]
            };
            let flat = (!up).then_some("--flat");
            let running = Fanrun::new(args)
                .options(flat)
                .options(sshd.fanrun_args())
                .spawn();
            running.await_stderr("fanrun");
            let limit = round * 3;
            let begun = || (seen(&to) >= limit.min(18)).then_some(());
            processes::await_some("files", Duration::from_secs(20), begun);
            running.signal(Signal::INT);
            running.expect(Signal::INT, "", holds(["cancelled"]));
            assert_no_parts(&to);
            for (name, content) in tree_of(&to) {
                assert!(expected.get(&name) == Some(&content), "round {round}");
            }
        }
    }
}

#[test]
fn a_server_that_is_killed_leaves_nothing_when_another_can_be_asked() {
    let server = SftpServer::external();
    let sshd = server.sshd().unwrap();
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("large"), noise(8 << 20, 2)).unwrap();
    let source = path(&from.path().join("large"));
    let place = format!("{}:{}", server.address(), server.remote(""));
    let args = ["upload", &source, &place, "--bandwidth", "2MiB"];
    let running = Fanrun::new(args).options(server.fanrun_args()).spawn();
    let begun = || (seen(server.place()) > 0).then_some(());
    processes::await_some("a part", Duration::from_secs(10), begun);
    let mut killed = 0;
    for process in sshd.sessions() {
        if process.command.contains("sftp-server") && !process.command.contains("sshd") {
            processes::signal(process.pid, Signal::KILL);
            killed += 1;
        }
    }
    assert!(killed > 0, "no SFTP server was found");
    running.expect(1, "", holds(["the SFTP server ended"]));
    assert_eq!(tree_of(server.place()).len(), 0, "the part was taken away");
}

#[test]
fn a_link_that_is_swapped_in_leads_nowhere() {
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    for dir in 0..30 {
        let dir = from.path().join(format!("d{dir}/e"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..20 {
            fs::write(dir.join(file.to_string()), "x").unwrap();
        }
    }
    let (to, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Every directory in turn becomes a link to the outside, and a directory again.
            let mut swaps = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let dir = to.path().join(format!("d{}", swaps % 30));
                let aside = to.path().join(format!("aside{swaps}"));
                if fs::rename(&dir, &aside).is_ok() {
                    let _ = symlink(outside.path(), &dir);
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&aside, &dir);
                }
                swaps += 1;
            }
        });
        for _ in 0..8 {
            let place = format!("{}:{}", sshd.address(), inside(from.path()));
            let run = Fanrun::new(["download", "--flat", &place, &path(to.path())])
                .options(sshd.fanrun_args())
                .spawn();
            // Whether it could do its work depends on the race; where it wrote does not.
            run.expect_one_of(&[0, 1]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        tree_of(outside.path()).len(),
        0,
        "something was written outside"
    );
}

#[test]
fn lies_of_a_server_never_become_a_file() {
    let lies = [
        ("ends early", Mode::EarlyEof(1000), "came of"),
        ("too much", Mode::LongData(10), "broke the protocol"),
        ("empty data", Mode::EmptyData, "broke the protocol"),
        ("wrong id", Mode::WrongId, "broke the protocol"),
        ("twice", Mode::Twice, "broke the protocol"),
        ("unknown", Mode::UnknownKind, "broke the protocol"),
        ("huge", Mode::Length(u32::MAX), "broke the protocol"),
        ("dies", Mode::Dies(3000, Death::Exit(9)), "exit 9"),
        ("killed", Mode::Dies(3000, Death::Killed), "KILL"),
    ];
    for (name, lie, words) in lies {
        println!("{name}");
        let tree = Tree::empty().with("/data/long", Content::File(noise(200_000, 1)));
        let server = EvilSftp::builder().mode(lie).after(8).tree(tree).start();
        let to = TempDir::new().unwrap();
        let place = format!("{}:/data/long", server.address());
        Fanrun::new(["download", "--flat", &place, &inside(to.path())])
            .options(server.fanrun_args())
            .within(Duration::from_secs(20))
            .expect(1, "", move |text: &str| text.contains(words));
        assert_eq!(tree_of(to.path()).len(), 0, "{name}");
    }
}

#[test]
fn names_of_a_server_stay_where_they_belong() {
    let names = ["..", "/etc/passwd", "../../evil", "a/b", "", ".", "n\0ul"];
    for mode in [0o100_644, 0o040_755, 0o120_777] {
        let server = EvilSftp::start(Mode::Names {
            names: names.iter().map(|name| name.as_bytes().to_vec()).collect(),
            mode,
        });
        let outside = TempDir::new().unwrap();
        let to = outside.path().join("deep/er/to");
        fs::create_dir_all(&to).unwrap();
        let place = format!("{}:/", server.address());
        Fanrun::new(["download", "--flat", &place, &path(&to)])
            .options(server.fanrun_args())
            .within(Duration::from_secs(20))
            .expect(1, "", holds(["the server gave"]));
        let beside = tree_of(outside.path());
        let stray = beside
            .keys()
            .find(|name| !name.starts_with(b"deep/er/to") && !b"deep/er/to".starts_with(name));
        assert_eq!(stray, None, "mode {mode:o}");
    }
}

#[test]
fn what_the_server_refuses_is_what_failed() {
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("large"), noise(500_000, 3)).unwrap();
    let source = path(&from.path().join("large"));
    let lies = [
        (
            "an answer to a write",
            Mode::WriteFails { nth: 3, late: 4 },
            "failure",
        ),
        ("the close", Mode::CloseFails(4), "failure"),
    ];
    for (name, lie, words) in lies {
        println!("{name}");
        let server = EvilSftp::start(lie);
        let place = format!("{}:/new", server.address());
        Fanrun::new(["upload", &source, &place])
            .options(server.fanrun_args())
            .expect(1, "", move |text: &str| text.contains(words));
        assert_eq!(server.content("/new"), None, "{name}");
        let parts = server.requests();
        assert!(
            parts.iter().any(|seen| seen.kind == 13),
            "the part was removed"
        );
    }
    let server = SftpServer::read_only();
    let place = format!("{}:{}", server.address(), server.remote("new"));
    Fanrun::new(["upload", &source, &place])
        .options(server.fanrun_args())
        .expect(1, "", holds(["permission denied", "new"]));
    assert_eq!(tree_of(server.place()).len(), 0);
}

#[test]
fn answers_in_any_order_make_the_same_file() {
    let from = TempDir::new().unwrap();
    let content = noise(700_000, 4);
    fs::write(from.path().join("file"), &content).unwrap();
    let server = EvilSftp::builder()
        .mode(Mode::Reordered(7))
        .mode(Mode::ShortData(1000))
        .start();
    let place = format!("{}:/copy", server.address());
    Fanrun::new([
        "upload",
        &path(&from.path().join("file")),
        &place,
        "--verify",
    ])
    .options(server.fanrun_args())
    .within(Duration::from_secs(30))
    .expect(0, "", anything);
    assert!(server.content("/copy") == Some(content.clone()));
    let to = TempDir::new().unwrap();
    Fanrun::new(["download", "--flat", &place, &inside(to.path())])
        .options(server.fanrun_args())
        .within(Duration::from_secs(30))
        .expect(0, "", anything);
    assert!(fs::read(to.path().join("copy")).unwrap() == content);
}

/// The options with which fanrun reaches a server through a proxy.
fn through(sshd: &Sshd, port: u16) -> Vec<String> {
    let known_hosts = sshd.directory().join(format!("known-{port}"));
    let line = format!("[127.0.0.1]:{port} {}\n", sshd.host_key("ed25519"));
    fs::write(&known_hosts, line).unwrap();
    let (port, known_hosts) = (port.to_string(), path(&known_hosts));
    let identity = path(&sshd.identity());
    [
        ("--port", port.as_str()),
        ("--user", sshd.user()),
        ("--identity", &identity),
        ("--known-hosts", &known_hosts),
    ]
    .iter()
    .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
    .collect()
}

#[test]
fn thin_and_far_links_only_take_their_time() {
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("file"), noise(48_000, 6)).unwrap();
    let thin = Proxy::to(sshd.port())
        .up(|direction| direction.bytes_per_second = Some(8_000))
        .down(|direction| direction.bytes_per_second = Some(8_000))
        .start();
    let far = Proxy::to(sshd.port())
        .round_trip(Duration::from_millis(300))
        .start();
    let tree = sshd.directory().join("tree");
    let mut names = vec![path(&tree)];
    for folder in 0..12 {
        let folder = tree.join(format!("folder-{folder}"));
        fs::create_dir_all(&folder).unwrap();
        names.push(path(&folder));
        for file in 0..8 {
            let file = folder.join(format!("file-{file}"));
            fs::write(&file, "x").unwrap();
            names.push(path(&file));
        }
    }
    names.remove(0);
    names.sort();
    for proxy in [thin, far] {
        let wanted = names.clone();
        let listed = move |text: &str| {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines == wanted
        };
        Fanrun::new(["ls", &format!("127.0.0.1:{}", path(&tree))])
            .options(through(&sshd, proxy.port()))
            .options(["--depth", "all", "--format", "paths"])
            .within(Duration::from_secs(60))
            .expect(0, listed, anything);
        let to = sshd.directory().join(format!("to{}", proxy.port()));
        let args = through(&sshd, proxy.port());
        let place = format!("127.0.0.1:{}/", path(&to));
        Fanrun::new(["upload", &path(&from.path().join("file")), &place])
            .options(args.clone())
            .within(Duration::from_secs(60))
            .expect(0, "", anything);
        let back = TempDir::new().unwrap();
        let place = format!("127.0.0.1:{}/file", path(&to));
        Fanrun::new(["download", "--flat", &place, &inside(back.path())])
            .options(args)
            .within(Duration::from_secs(60))
            .expect(0, "", anything);
        assert_same(from.path(), back.path());
    }
}

#[test]
fn owners_modes_and_templates_of_a_playbook() {
    assert!(is_root(), "only root gives files away");
    let sshd = Sshd::start();
    let folder = TempDir::new().unwrap();
    fs::write(
        folder.path().join("app.conf.j2"),
        "name {{ host.name }}\n{% for p in ports %}port {{ p }}\n{% endfor %}",
    )
    .unwrap();
    let to = sshd.directory().join("etc");
    let text = format!(
        "hosts: all\nvars: {{ports: [80, 443]}}\ntasks:\n  - upload: {{src: app.conf.j2, dest: {}/, \
         template: true, mode: 0640, owner: 'nobody:daemon', backup: true}}\n",
        to.display()
    );
    let file = folder.path().join("play.yml");
    fs::write(&file, &text).unwrap();
    let run = || {
        Fanrun::new(["run", &path(&file), "-i", &format!("{},", sshd.address())])
            .options(sshd.fanrun_args())
    };
    for _ in 0..2 {
        run().expect(0, "", holds(["1 file"]));
    }
    let there = to.join("app.conf");
    let expected = format!("name {}\nport 80\nport 443\n", sshd.address());
    assert_eq!(fs::read_to_string(&there).unwrap(), expected);
    assert!(to.join("app.conf~").is_file());
    let data = fs::metadata(&there).unwrap();
    let (user, _) = ids_of("nobody");
    let (_, group) = ids_of("daemon");
    assert_eq!((data.uid(), data.gid()), (user, group));
    assert_eq!(data.mode() & 0o7777, 0o640);
    // What a template needs is looked for before anything is connected to.
    fs::write(&file, text.replace("ports:", "sports:")).unwrap();
    run().expect(2, "", holds(["unknown variable `ports`", "app.conf.j2"]));
}

/// Holes stay holes, and offsets of more than 32 bits are no other ones.
#[test]
fn a_file_beyond_four_gigabytes_comes_down_with_its_holes() {
    const END: u64 = (4 << 30) + 4096;
    let sshd = Sshd::start();
    let source = sshd.directory().join("sparse");
    let file = fs::File::create(&source).unwrap();
    file.set_len(END).unwrap();
    let marks: [(u64, &[u8]); 3] = [((4 << 30) - 1, b"ab"), (7, b"c"), (END - 1, b"d")];
    for (at, mark) in marks {
        file.write_all_at(mark, at).unwrap();
    }
    let to = TempDir::new().unwrap();
    let place = format!("{}:{}", sshd.address(), path(&source));
    let dest = format!("{}/", path(to.path()));
    Fanrun::new(["download", "--flat", &place, &dest])
        .options(sshd.fanrun_args())
        .within(Duration::from_secs(240))
        .expect(0, "", holds(["1 file, 4.0 GiB"]));
    let landed = to.path().join("sparse");
    let data = fs::metadata(&landed).unwrap();
    assert_eq!(data.len(), END);
    assert!(data.blocks() * 512 < 1 << 20, "{} blocks", data.blocks());
    let same = std::process::Command::new("cmp")
        .args([&source, &landed])
        .status();
    assert!(same.unwrap().success());
}

/// A link is given away itself, and nothing that it leads to.
#[test]
fn links_have_owners_of_their_own() {
    assert!(is_root(), "only root gives files away");
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    symlink("target", from.path().join("link")).unwrap();
    let to = sshd.directory().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("target"), "mine").unwrap();
    let source = format!("{}/", path(from.path()));
    let place = format!("{}:{}", sshd.address(), path(&to));
    Fanrun::new(["upload", &source, &place, "--owner", "nobody"])
        .options(sshd.fanrun_args())
        .expect(0, "", holds(["1 link"]));
    let link = fs::symlink_metadata(to.join("link")).unwrap();
    assert_eq!(link.uid(), ids_of("nobody").0);
    assert_eq!(fs::metadata(to.join("link")).unwrap().uid(), 0);
}

#[test]
fn the_screen_shows_how_far_a_copy_is() {
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("image.iso"), noise(12 << 20, 9)).unwrap();
    let source = path(&from.path().join("image.iso"));
    let place = format!("{}:{}/", sshd.address(), path(&sshd.directory().join("to")));
    let run = Fanrun::new(["upload", &source, &place, "--bandwidth", "6MiB"])
        .options(sshd.fanrun_args())
        .spawn_on_terminal(100, 30);
    run.await_screen("of 1 files");
    run.await_screen("MiB/s");
    run.await_screen("image.iso");
    run.await_screen(" left");
    run.expect(0, holds(["1 file, 12.0 MiB"]));
}

#[test]
fn events_of_a_copy_add_up() {
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    sample(from.path());
    let place = format!("{}:{}", sshd.address(), path(&sshd.directory().join("to")));
    let args = [
        "upload",
        &inside(from.path()),
        &place,
        "--bandwidth",
        "2MiB",
    ];
    Fanrun::new(args)
        .options(["--format", "ndjson"])
        .options(sshd.fanrun_args())
        .expect(
            0,
            |text: &str| {
                let events: Vec<serde_json::Value> = text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                let of =
                    |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
                let (mut last, mut count) = (0, 0);
                for event in of("progress") {
                    let bytes = event["bytes"].as_u64().unwrap();
                    assert!(bytes >= last && bytes <= event["bytes_total"].as_u64().unwrap());
                    (last, count) = (bytes, count + 1);
                }
                let tally = &of("task_end").next().unwrap()["tally"];
                assert_eq!((&tally["files"], &tally["links"]), (&5.into(), &1.into()));
                assert_eq!(tally["bytes"], 2_000_003 + 5 + 2);
                assert_eq!(tally["changed"], true);
                count > 1
            },
            anything,
        );
}
