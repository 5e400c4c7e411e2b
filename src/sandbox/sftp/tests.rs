//! The subsystem against OpenSSH's `sftp`, and against packets made by hand where that client
//! would never send them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{LONGEST_PACKET, Packets};
use crate::sandbox::Fleet;

const LIMIT: Duration = Duration::from_secs(30);

fn client(program: &str, fleet: &Fleet) -> Command {
    let member = &fleet.members()[0];
    let mut command = Command::new(program);
    for option in ["BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none"] {
        command.args(["-o", option]);
    }
    command
        .args(["-F", "none", "-o"])
        .arg(format!(
            "UserKnownHostsFile={}",
            fleet.known_hosts().display()
        ))
        .arg("-i")
        .arg(fleet.identity())
        .args(["-o", &format!("Port={}", member.port)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a batch of `sftp`; a line that begins with `-` may fail.
async fn batch(fleet: &Fleet, lines: &str) -> Output {
    let mut command = client("sftp", fleet);
    command.args(["-b", "-"]);
    command.arg(format!("{}@127.0.0.1", fleet.user()));
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    ended.unwrap().unwrap()
}

/// A batch that must work; what it printed.
async fn works(fleet: &Fleet, lines: &str) -> String {
    let said = batch(fleet, lines).await;
    assert_eq!(said.status.code(), Some(0), "{lines}: {said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// A batch of one line that must fail; what it said of it.
async fn fails(fleet: &Fleet, line: &str) -> String {
    let said = batch(fleet, line).await;
    assert_eq!(said.status.code(), Some(1), "{line}: {said:?}");
    String::from_utf8(said.stderr).unwrap()
}

fn home(fleet: &Fleet) -> &Path {
    &fleet.members()[0].home
}

#[tokio::test]
async fn files_go_up_and_come_back_whole() {
    let fleet = Fleet::start(1).await.unwrap();
    let local = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..3_000_001_u32).map(|n| (n * 31 % 253) as u8).collect();
    let (up, down) = (local.path().join("up"), local.path().join("down"));
    fs::write(&up, &content).unwrap();
    fs::set_permissions(&up, fs::Permissions::from_mode(0o640)).unwrap();
    let lines = format!("put -p {} it\nget it {}\n", up.display(), down.display());
    works(&fleet, &lines).await;
    assert!(fs::read(&down).unwrap() == content);
    let there = fs::metadata(home(&fleet).join("it")).unwrap();
    assert_eq!(there.mode() & 0o7777, 0o640);
    assert_eq!(there.mtime(), fs::metadata(&up).unwrap().mtime());
    fs::write(&up, vec![7; 3_500_000]).unwrap();
    works(&fleet, &format!("reput {} it\n", up.display())).await;
    let resumed = fs::read(home(&fleet).join("it")).unwrap();
    assert!(resumed[..3_000_001] == content && resumed[3_000_001..] == vec![7; 499_999]);
    fleet.shutdown().await;
}

#[tokio::test]
async fn listings_have_every_entry_once_and_the_columns_of_ls() {
    let fleet = Fleet::start(1).await.unwrap();
    let dir = home(&fleet).join("dir");
    fs::create_dir(&dir).unwrap();
    for n in 0..350 {
        fs::write(dir.join(format!("file {n:03}")), vec![0; n]).unwrap();
    }
    symlink("file 007", dir.join("link")).unwrap();
    let file = dir.join("file 007");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    let said = works(&fleet, "ls -la dir\n").await;
    let lines: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(lines.len(), 353, "with link, dot and dot dot");
    let line = |end: &str| lines.iter().find(|line| line.ends_with(end)).unwrap();
    assert!(line("file 007").starts_with("-rwsr-x--x "));
    assert!(line("link").starts_with("lrwxrwxrwx "));
    assert!(line("/.").starts_with("drwx"), "{}", line("/."));
    assert!(line("file 349").contains("      349 "));
    assert!(long_names(&fleet, "dir").await.iter().any(|line| {
        let owner = fs::metadata(&file).unwrap().uid();
        let name = super::attributes::Accounts::read();
        let start = format!("-rwsr-x--x    1 {:<8} ", name.user(owner).unwrap());
        line.starts_with(&start) && line.ends_with(" file 007")
    }));
    let plain = works(&fleet, "ls -1 dir\n").await;
    assert_eq!(
        plain.lines().filter(|line| line.contains("file")).count(),
        350
    );
    fleet.shutdown().await;
}

/// The `ls -l` lines of a directory, which newer clients read past.
async fn long_names(fleet: &Fleet, directory: &str) -> Vec<String> {
    let mut raw = Raw::start(fleet).await;
    let opened = raw.ask(11, &body(1, &[directory.as_bytes()])).await;
    let mut found = Vec::new();
    loop {
        let page = raw.ask(12, &body(1, &[&opened[9..]])).await;
        if page[0] == 101 {
            assert!(is_status(&page, 1, 1));
            return found;
        }
        let number = |at: usize| u32::from_be_bytes(page[at..at + 4].try_into().unwrap()) as usize;
        let mut at = 9;
        for _ in 0..number(5) {
            at += 4 + number(at);
            let line = &page[at + 4..at + 4 + number(at)];
            found.push(String::from_utf8(line.to_vec()).unwrap());
            at += 4 + line.len();
            assert_eq!(number(at), 15, "size, owner, mode and times");
            at += 4 + 8 + 8 + 4 + 8;
        }
    }
}

#[tokio::test]
async fn names_links_and_modes_change() {
    let fleet = Fleet::start(1).await.unwrap();
    let root = home(&fleet).to_owned();
    fs::write(root.join("a"), "a").unwrap();
    let lines = "mkdir d\nrename a d/b\nsymlink b d/l\nln d/b d/hard\nchmod 600 d/b\ncd d\npwd\n";
    let said = works(&fleet, lines).await;
    assert!(said.contains(&format!("{}/d\n", root.display())), "{said}");
    assert_eq!(fs::read_link(root.join("d/l")).unwrap(), Path::new("b"));
    let there = fs::metadata(root.join("d/hard")).unwrap();
    assert_eq!((there.nlink(), there.mode() & 0o777), (2, 0o600));
    assert!(!root.join("a").exists());
    let lines = "rm d/l\nrm d/hard\nrm d/b\nrmdir d\n";
    works(&fleet, lines).await;
    assert!(!root.join("d").exists());
    fleet.shutdown().await;
}

#[tokio::test]
async fn refusals_have_their_code_and_the_words_of_the_system() {
    let fleet = Fleet::start(1).await.unwrap();
    fs::create_dir_all(home(&fleet).join("d/inner")).unwrap();
    fs::write(home(&fleet).join("f"), "f").unwrap();
    assert!(fails(&fleet, "cd missing\n").await.contains("No such file"));
    let names = works(&fleet, "df -h\n").await;
    assert!(names.contains('%'), "{names}");
    let mut raw = Raw::start(&fleet).await;
    let attrs = [0; 4];
    let (mut again, mut into) = (body(1, &[b"d"]), body(1, &[b"f/x"]));
    again.extend(attrs);
    into.extend(attrs);
    let long = [b'x'; 300];
    for (kind, request, code, words) in [
        (14, again, 4, "File exists"),
        (14, into, 2, "Not a directory"),
        (15, body(1, &[b"d"]), 4, "Directory not empty"),
        (13, body(1, &[b"d"]), 4, "Is a directory"),
        (17, body(1, &[&long]), 5, "File name too long"),
        (18, body(1, &[b"f", b"d"]), 4, "File exists"),
        (18, body(1, &[b"missing", b"new"]), 2, "No such file"),
        (4, body(1, &[b"no handle"]), 4, "no such handle"),
    ] {
        let reply = raw.ask(kind, &request).await;
        let said = String::from_utf8_lossy(&reply[13..]).into_owned();
        assert!(
            is_status(&reply, 1, code) && said.contains(words),
            "{words}: {reply:?}"
        );
    }
    fleet.shutdown().await;
}

#[tokio::test]
async fn a_plain_rename_never_replaces_and_a_posix_one_does() {
    let fleet = Fleet::start(1).await.unwrap();
    for name in ["old", "new"] {
        fs::write(home(&fleet).join(name), name).unwrap();
    }
    assert!(
        fails(&fleet, "rename -l old new\n")
            .await
            .contains("Failure")
    );
    assert_eq!(fs::read(home(&fleet).join("new")).unwrap(), b"new");
    works(&fleet, "rename old new\n").await;
    assert_eq!(fs::read(home(&fleet).join("new")).unwrap(), b"old");
    fleet.shutdown().await;
}

#[tokio::test]
async fn an_absolute_path_is_what_it_is_for_commands() {
    let fleet = Fleet::start(1).await.unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("there"), "x").unwrap();
    let said = works(&fleet, &format!("ls {}\n", outside.path().display())).await;
    assert!(said.contains("there"));
    fleet.shutdown().await;
}

/// The subsystem as a pipe of bytes.
struct Raw {
    client: Child,
    /// None once the input was ended.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Raw {
    async fn start(fleet: &Fleet) -> Raw {
        let mut command = client("ssh", fleet);
        command.args(["-s", "-l", fleet.user().as_str(), "127.0.0.1", "sftp"]);
        let mut client = command.spawn().unwrap();
        let stdin = client.stdin.take();
        let stdout = client.stdout.take().unwrap();
        let mut raw = Raw {
            client,
            stdin,
            stdout,
        };
        assert_eq!(raw.ask(1, &3_u32.to_be_bytes()).await[..5], [2, 0, 0, 0, 3]);
        raw
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.send_bytes(&packet(kind, body)).await;
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).await.unwrap();
    }

    /// One packet, its type first; empty at the end of the stream.
    async fn receive(&mut self) -> Vec<u8> {
        let reading = async {
            let Ok(length) = self.stdout.read_u32().await else {
                return Vec::new();
            };
            let mut packet = vec![0; length as usize];
            self.stdout.read_exact(&mut packet).await.unwrap();
            packet
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap()
    }

    async fn ask(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.send(kind, body).await;
        self.receive().await
    }

    async fn code(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(LIMIT, self.client.wait()).await;
        ended.unwrap().unwrap().code()
    }
}

/// An id and strings.
fn body(id: u32, texts: &[&[u8]]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for text in texts {
        body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        body.extend(*text);
    }
    body
}

/// `STATUS` of this request with this code.
fn is_status(reply: &[u8], id: u8, code: u8) -> bool {
    reply.starts_with(&[101, 0, 0, 0, id, 0, 0, 0, code])
}

#[tokio::test]
async fn a_packet_of_impossible_length_ends_the_server() {
    let fleet = Fleet::start(1).await.unwrap();
    let inside = body(7, &[b"made by the content of a packet"]);
    for length in [0, LONGEST_PACKET + 1, u32::MAX] {
        let mut raw = Raw::start(&fleet).await;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(packet(14, &inside));
        raw.send_bytes(&bytes).await;
        assert_eq!(raw.receive().await, b"", "{length}");
        assert_eq!(raw.code().await, Some(11));
    }
    assert_eq!(fs::read_dir(home(&fleet)).unwrap().count(), 0);
    fleet.shutdown().await;
}

#[tokio::test]
async fn the_end_of_input_ends_the_server_after_its_last_answer() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut raw = Raw::start(&fleet).await;
    for id in 0..50 {
        raw.send(17, &body(id, &[b"."])).await;
    }
    raw.stdin = None;
    for id in 0..50 {
        assert_eq!(raw.receive().await[..5], [105, 0, 0, 0, id]);
    }
    assert_eq!(raw.receive().await, b"");
    assert_eq!(raw.code().await, Some(0));
    fleet.shutdown().await;
}

#[tokio::test]
async fn names_that_lost_bytes_are_refused_and_shown() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut raw = Raw::start(&fleet).await;
    for name in [b"\xff".as_slice(), b"a\x80b", "\u{fffd}".as_bytes()] {
        assert!(is_status(&raw.ask(14, &body(1, &[name])).await, 1, 5));
    }
    assert!(is_status(&raw.ask(14, &body(1, &[b"a\0b"])).await, 1, 5));
    assert!(is_status(&raw.ask(17, &body(1, &[b""])).await, 1, 2));
    assert_eq!(fs::read_dir(home(&fleet)).unwrap().count(), 0);
    use std::os::unix::ffi::OsStrExt;
    fs::write(home(&fleet).join(std::ffi::OsStr::from_bytes(b"\xe9")), "").unwrap();
    assert!(works(&fleet, "ls -1\n").await.contains('\u{fffd}'));
    fleet.shutdown().await;
}

#[tokio::test]
async fn extensions_answer_as_openssh_does() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut raw = Raw::start(&fleet).await;
    let limits = raw.ask(200, &body(1, &[b"limits@openssh.com"])).await;
    let numbers: Vec<u64> = limits[5..]
        .chunks(8)
        .map(|number| u64::from_be_bytes(number.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, [262_144, 261_120, 261_120, 1000]);
    let statvfs = raw
        .ask(200, &body(2, &[b"statvfs@openssh.com", b"."]))
        .await;
    assert_eq!((statvfs[0], statvfs.len()), (201, 5 + 11 * 8));
    let expand = body(3, &[b"expand-path@openssh.com", b"~"]);
    let expanded = raw.ask(200, &expand).await;
    let real = fs::canonicalize(home(&fleet)).unwrap();
    assert!(
        expanded
            .windows(real.as_os_str().len())
            .any(|part| part == real.as_os_str().as_encoded_bytes())
    );
    let zero = 0_u32.to_be_bytes();
    let names = body(4, &[b"users-groups-by-id@openssh.com", &zero, &zero]);
    assert_eq!(
        raw.ask(200, &names).await[5..],
        *b"\0\0\0\x08\0\0\0\x04root\0\0\0\x08\0\0\0\x04root"
    );
    let unknown = raw.ask(200, &body(5, &[b"no-such@example.org"])).await;
    assert!(is_status(&unknown, 5, 8));
    let short = raw
        .ask(200, &body(6, &[b"hardlink@openssh.com", b"one"]))
        .await;
    assert!(is_status(&short, 6, 5));
    fleet.shutdown().await;
}

#[tokio::test]
async fn lsetstat_changes_a_link_and_not_what_it_leads_to() {
    let fleet = Fleet::start(1).await.unwrap();
    fs::write(home(&fleet).join("f"), "f").unwrap();
    symlink("f", home(&fleet).join("l")).unwrap();
    let mut raw = Raw::start(&fleet).await;
    let mut request = body(1, &[b"lsetstat@openssh.com", b"l"]);
    request.extend([0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 9]);
    assert!(is_status(&raw.ask(200, &request).await, 1, 0));
    let mtime = |name: &str| {
        fs::symlink_metadata(home(&fleet).join(name))
            .unwrap()
            .mtime()
    };
    assert_eq!(mtime("l"), 9);
    assert!(mtime("f") > 9);
    fleet.shutdown().await;
}

#[tokio::test]
async fn handles_have_a_limit_and_are_given_back() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut raw = Raw::start(&fleet).await;
    let mut handles = Vec::new();
    for _ in 0..super::MOST_HANDLES {
        let reply = raw.ask(11, &body(1, &[b"."])).await;
        assert_eq!(reply[0], 102);
        handles.push(reply[9..].to_vec());
    }
    assert!(is_status(&raw.ask(11, &body(2, &[b"."])).await, 2, 4));
    for handle in &handles {
        assert!(is_status(&raw.ask(4, &body(3, &[handle])).await, 3, 0));
        assert!(is_status(&raw.ask(4, &body(4, &[handle])).await, 4, 4));
    }
    assert_eq!(raw.ask(11, &body(5, &[b"."])).await[0], 102);
    fleet.shutdown().await;
}

#[tokio::test]
async fn a_fifo_holds_nobody() {
    let fleet = Fleet::start(1).await.unwrap();
    let fifo = home(&fleet).join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().await.unwrap();
    assert!(made.success());
    let mut raw = Raw::start(&fleet).await;
    for flags in [1_u8, 2] {
        let mut request = body(1, &[b"fifo"]);
        request.extend([0, 0, 0, flags, 0, 0, 0, 0]);
        assert!(!raw.ask(3, &request).await.is_empty());
    }
    fleet.shutdown().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_stop_its_connection() {
    let fleet = Fleet::start(1).await.unwrap();
    fs::write(home(&fleet).join("big"), vec![1; 1 << 20]).unwrap();
    let control = fleet.identity().with_file_name("control");
    let mut master = client("ssh", &fleet);
    master.args(["-M", "-N", "-S"]).arg(&control);
    let mut master = master
        .args(["-l", fleet.user().as_str(), "127.0.0.1"])
        .spawn()
        .unwrap();
    let appeared = async {
        while !control.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, appeared).await.unwrap();
    let through = |words: &[&str]| {
        let mut command = client("ssh", &fleet);
        command.arg("-S").arg(&control);
        command.args(["-l", fleet.user().as_str()]).args(words);
        command
    };
    let mut silent = through(&["-s", "127.0.0.1", "sftp"]).spawn().unwrap();
    let mut stdin = silent.stdin.take().unwrap();
    let mut open = body(1, &[b"big"]);
    open.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    let mut requests = packet(1, &3_u32.to_be_bytes());
    requests.extend(packet(3, &open));
    let mut read = body(2, &[b"0"]);
    read.extend(0_u64.to_be_bytes());
    read.extend(261_120_u32.to_be_bytes());
    requests.extend(packet(5, &read).repeat(20_000));
    let asking = tokio::time::timeout(LIMIT, stdin.write_all(&requests)).await;
    asking.unwrap().unwrap();
    let said = tokio::time::timeout(LIMIT, through(&["127.0.0.1", "echo alive"]).output()).await;
    assert_eq!(said.unwrap().unwrap().stdout, b"alive\n");
    master.kill().await.unwrap();
    fleet.shutdown().await;
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = u32::try_from(body.len() + 1)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    packet.push(kind);
    packet.extend(body);
    packet
}

#[tokio::test]
async fn many_sessions_at_once_and_a_shutdown_in_their_middle() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(Raw::start(&fleet).await);
    }
    for raw in &mut sessions {
        assert_eq!(raw.ask(17, &body(1, &[b"."])).await[0], 105);
    }
    let directory = fleet.identity().parent().unwrap().to_owned();
    fleet.shutdown().await;
    assert!(!directory.exists());
    for raw in &mut sessions {
        assert_eq!(raw.receive().await, b"");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn packets_pass_however_they_are_cut(
        lengths in prop::collection::vec(1_usize..5000, 1..20),
        cuts in prop::collection::vec(1_usize..700, 1..50),
        bad in prop_oneof![Just(0_u32), LONGEST_PACKET + 1..=u32::MAX],
    ) {
        let mut good = Vec::new();
        for length in lengths {
            good.extend(packet(9, &vec![0xff; length - 1]));
        }
        let mut all = good.clone();
        all.extend(bad.to_be_bytes());
        all.extend([9; 100]);
        let mut packets = Packets::new((), std::sync::Arc::default());
        let (mut passed, mut at) = (0, 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(all.len());
            let followed = packets.follow(&all[at..end]);
            passed += followed;
            if followed < end - at {
                break;
            }
            prop_assert!(end < all.len());
            at = end;
        }
        // The bytes of the bad length itself may pass, its packet never.
        prop_assert!(passed >= good.len() && passed < good.len() + 4);
    }
}
