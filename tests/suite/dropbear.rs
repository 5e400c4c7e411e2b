//! A real dropbear on loopback: the other server that is everywhere, and that differs.
//!
//! dropbear reads `~/.ssh/authorized_keys` of the password entry and cannot be told otherwise, so
//! the key stands there as one line with a mark of ours, added and removed under a lock.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::processes;
use crate::sshd::{free_port, is_root, make_key, ordinary_user};

const PROGRAM: &str = "/usr/sbin/dropbear";
const INSTALL: &str = "these tests need dropbear: apt-get install dropbear-bin";

/// A running dropbear at 127.0.0.1; ended, with its sessions, when dropped.
#[derive(Debug)]
pub struct Dropbear {
    directory: TempDir,
    user: String,
    port: u16,
    mark: String,
    listener: Child,
}

impl Dropbear {
    /// Serves the ordinary user of the tests.
    pub fn start() -> Dropbear {
        assert!(Path::new(PROGRAM).exists(), "{INSTALL}");
        let directory = tempfile::Builder::new()
            .prefix("fanrun-dropbear-")
            .tempdir()
            .unwrap();
        let user = ordinary_user();
        let mark = processes::marker("dropbear");
        make_key("ed25519", &directory.path().join("identity"));
        let public_host_key = make_host_key(directory.path());
        let key = fs::read_to_string(directory.path().join("identity.pub")).unwrap();
        let key = key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let authorized = prepare_authorized_keys(&user);
        edit_lines(&authorized, |lines| lines.push(format!("{key} {mark}")));
        let (port, listener) = listen(directory.path());
        let known = format!("[127.0.0.1]:{port} {public_host_key}\n");
        fs::write(directory.path().join("known_hosts"), known).unwrap();
        Dropbear {
            directory,
            user,
            port,
            mark,
            listener,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        Ipv4Addr::LOCALHOST.to_string()
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    pub fn identity(&self) -> PathBuf {
        self.directory.path().join("identity")
    }

    /// All that the server has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The options with which fanrun reaches this server.
    pub fn fanrun_args(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec![
            "--port".into(),
            self.port.to_string(),
            "--user".into(),
            self.user.clone(),
            "--identity".into(),
            path(self.identity()),
            "--known-hosts".into(),
            path(self.known_hosts()),
        ]
    }
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        let pid = i32::try_from(self.listener.id()).unwrap();
        processes::end_sessions(pid, PROGRAM);
        let _ = self.listener.kill();
        let _ = self.listener.wait();
        let mark = self.mark.clone();
        edit_lines(&authorized_keys(&self.user), |lines| {
            lines.retain(|line| !line.ends_with(&mark));
        });
        if std::thread::panicking() {
            eprintln!("--- dropbear on port {} said:\n{}", self.port, self.log());
        }
    }
}

fn make_host_key(directory: &Path) -> String {
    let output = Command::new("dropbearkey")
        .args(["-t", "ed25519", "-f"])
        .arg(directory.join("host_key"))
        .output()
        .expect(INSTALL);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("ssh-ed25519 "))
        .unwrap_or_else(|| panic!("dropbearkey printed no public key: {output:?}"));
    line.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

fn listen(directory: &Path) -> (u16, Child) {
    for _ in 0..20 {
        let port = free_port(&[Ipv4Addr::LOCALHOST]);
        let log_path = directory.join("log");
        let log = fs::File::create(&log_path).unwrap();
        let mut child = Command::new(PROGRAM)
            .args(["-F", "-E", "-s", "-p", &format!("127.0.0.1:{port}"), "-r"])
            .arg(directory.join("host_key"))
            .arg("-P")
            .arg(directory.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        if await_listening(&mut child, &log_path, port) {
            return (port, child);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    panic!("dropbear found no port in 20 tries:\n{log}");
}

/// dropbear says "Not backgrounding" before it listens, so the kernel's list of sockets is asked.
fn await_listening(child: &mut Child, log: &Path, port: u16) -> bool {
    let socket = format!("0100007F:{port:04X} 00000000:0000 0A");
    processes::poll(Duration::from_secs(10), || {
        let said = fs::read_to_string(log).unwrap_or_default();
        if child.try_wait().unwrap().is_some() || said.contains("Failed listening") {
            return Some(false);
        }
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        sockets.contains(&socket).then_some(true)
    })
    .unwrap_or(false)
}

fn authorized_keys(user: &str) -> PathBuf {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let prefix = format!("{user}:");
    let entry = passwd
        .lines()
        .find(|line| line.starts_with(&prefix))
        .unwrap_or_else(|| panic!("no {user} in /etc/passwd"));
    let home = entry.split(':').nth(5).unwrap();
    Path::new(home).join(".ssh/authorized_keys")
}

/// Makes the file and its directory with the owner and modes that dropbear insists on.
fn prepare_authorized_keys(user: &str) -> PathBuf {
    let file = authorized_keys(user);
    let directory = file.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    drop(
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .unwrap(),
    );
    if is_root() {
        let owner = format!("{user}:");
        let status = Command::new("chown")
            .arg(owner)
            .args([directory, &file])
            .status()
            .unwrap();
        assert!(status.success(), "chown of {}", file.display());
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    file
}

/// Changes the lines in place under a lock, so that tests in other threads and processes lose none.
fn edit_lines(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let Ok(mut file) = fs::OpenOptions::new().read(true).write(true).open(path) else {
        return;
    };
    file.lock().unwrap();
    let text = std::io::read_to_string(&file).unwrap();
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    change(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    file.seek(SeekFrom::Start(0)).unwrap();
    // Written before it is cut: a reader never sees an empty file.
    file.write_all(text.as_bytes()).unwrap();
    file.set_len(text.len() as u64).unwrap();
}
