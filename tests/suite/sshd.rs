//! A real OpenSSH server on loopback: its own keys, configuration, log and port.
//!
//! As root it logs in as root or as an ordinary user made for the tests; started by an ordinary
//! user it serves that user. sshd takes at most 16 listening sockets (`MAX_LISTEN_SOCKS` in
//! OpenSSH's sshd.c), so a fixture with many addresses is several sshd on one port.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::processes;

const PROGRAM: &str = "/usr/sbin/sshd";
const LISTENERS_OF_ONE_SSHD: usize = 16;
const START_LIMIT: Duration = Duration::from_secs(20);
/// The ordinary user that root makes for the tests.
pub const ORDINARY_USER: &str = "fanrun-test";

/// What the server shall be; everything has a default.
#[derive(Debug, Clone)]
pub struct Builder {
    config: Vec<String>,
    user: String,
    host_keys: Vec<&'static str>,
    addresses: Vec<Ipv4Addr>,
    port: Option<u16>,
    sftp: Option<String>,
    etc: Vec<(String, String, u32)>,
}

/// A running server; ended, with its sessions, when dropped.
#[derive(Debug)]
pub struct Sshd {
    directory: TempDir,
    builder: Builder,
    port: u16,
    listeners: Vec<Child>,
    /// Sessions that live on without their listener.
    orphans: Vec<i32>,
}

impl Sshd {
    /// A server at 127.0.0.1 with one ed25519 host key, for the user who runs the tests.
    pub fn builder() -> Builder {
        Builder {
            config: Vec::new(),
            user: current_user(),
            host_keys: vec!["ed25519"],
            addresses: vec![Ipv4Addr::LOCALHOST],
            port: None,
            sftp: Some("internal-sftp".into()),
            etc: Vec::new(),
        }
    }

    pub fn start() -> Sshd {
        Sshd::builder().start()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The first address.
    pub fn address(&self) -> String {
        self.builder.addresses[0].to_string()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.builder
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    pub fn user(&self) -> &str {
        &self.builder.user
    }

    /// A known_hosts file that holds every address with every host key.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    /// The private key that may log in.
    pub fn identity(&self) -> PathBuf {
        self.directory.path().join("identity")
    }

    /// The public half of a host key: `ssh-ed25519 AAAA...`.
    pub fn host_key(&self, kind: &str) -> String {
        let public = host_key_path(self.directory.path(), kind).with_extension("pub");
        key_and_kind(&fs::read_to_string(public).unwrap())
    }

    /// All that the server has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log holds `text`.
    pub fn await_log(&self, text: &str, limit: Duration) {
        let found = processes::poll(limit, || self.log().contains(text).then_some(()));
        assert!(
            found.is_some(),
            "sshd did not say {text:?}:\n{}",
            self.log()
        );
    }

    /// A directory of the fixture for whatever a test wants to put beside the server.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The options with which fanrun reaches this server.
    pub fn fanrun_args(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec![
            "--port".into(),
            self.port.to_string(),
            "--user".into(),
            self.builder.user.clone(),
            "--identity".into(),
            path(self.identity()),
            "--known-hosts".into(),
            path(self.known_hosts()),
        ]
    }

    /// The arguments with which OpenSSH's `ssh` reaches this server; the host comes after them.
    pub fn ssh_args(&self) -> Vec<String> {
        let known_hosts = self.known_hosts();
        let mut args: Vec<String> = ["-F", "none", "-o", "BatchMode=yes", "-o"]
            .map(String::from)
            .to_vec();
        args.push(format!("UserKnownHostsFile={}", known_hosts.display()));
        args.extend(["-o".into(), "GlobalKnownHostsFile=none".into()]);
        args.extend(["-i".into(), self.identity().display().to_string()]);
        args.extend(["-p".into(), self.port.to_string()]);
        args.extend(["-l".into(), self.builder.user.clone()]);
        args
    }

    /// The pids of the listening sshd.
    pub fn pids(&self) -> Vec<i32> {
        self.listeners.iter().map(pid_of).collect()
    }

    /// Every process that the server has started and that is still below it.
    pub fn sessions(&self) -> Vec<processes::Process> {
        self.pids()
            .into_iter()
            .flat_map(processes::descendants)
            .collect()
    }

    /// Ends the listener at once, and leaves the running sessions alone.
    pub fn stop_listening(&mut self) {
        let sessions: Vec<i32> = self.sessions().iter().map(|one| one.pid).collect();
        self.orphans.extend(sessions);
        // Taken out: the pid of a process that was waited for may soon be another's.
        for mut listener in self.listeners.drain(..) {
            let _ = listener.kill();
            let _ = listener.wait();
        }
    }
}

impl Builder {
    /// One line of `sshd_config`. It stands before the fixture's own lines, and sshd obeys the
    /// first of two.
    pub fn config(mut self, line: &str) -> Builder {
        self.config.push(line.to_owned());
        self
    }

    pub fn user(mut self, user: &str) -> Builder {
        self.user = user.to_owned();
        self
    }

    /// Logs in as an ordinary user: the one made for the tests as root, else whoever runs them.
    pub fn ordinary_user(self) -> Builder {
        let user = ordinary_user();
        self.user(&user)
    }

    /// Replaces the host keys: `ed25519`, `rsa`, `ecdsa`.
    pub fn host_keys(mut self, kinds: &[&'static str]) -> Builder {
        self.host_keys = kinds.to_vec();
        self
    }

    /// One host key of this kind.
    pub fn host_key(self, kind: &'static str) -> Builder {
        self.host_keys(&[kind])
    }

    /// `count` addresses 127.1.0.1, 127.1.0.2 ... on one port.
    pub fn addresses(mut self, count: u8) -> Builder {
        self.addresses = (1..=count).map(|n| Ipv4Addr::new(127, 1, 0, n)).collect();
        self
    }

    /// One address, which must be of the loopback network.
    pub fn listen(mut self, address: &str) -> Builder {
        let address: Ipv4Addr = address.parse().unwrap();
        assert!(
            address.is_loopback(),
            "{address} is not on loopback: a test server is for this machine alone"
        );
        self.addresses = vec![address];
        self
    }

    /// What serves the `sftp` subsystem, as a command or `internal-sftp`; None when nothing does.
    pub fn sftp(mut self, program: Option<&str>) -> Builder {
        self.sftp = program.map(str::to_owned);
        self
    }

    /// The server and what it starts find this file in /etc; nobody else does. Only root can do
    /// that.
    pub fn etc(mut self, name: &str, text: &str, mode: u32) -> Builder {
        self.etc.push((name.to_owned(), text.to_owned(), mode));
        self
    }

    /// A fixed port, for a server that comes back at the place of one that was stopped.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = Some(port);
        self
    }

    pub fn start(self) -> Sshd {
        assert!(
            Path::new(PROGRAM).exists(),
            "these tests need OpenSSH's server: apt-get install openssh-server openssh-client"
        );
        prepare_privilege_separation();
        let directory = tempfile::Builder::new()
            .prefix("fanrun-sshd-")
            .tempdir()
            .unwrap();
        // sshd reads authorized_keys as the user who logs in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        make_keys(directory.path(), &self.host_keys);
        let etc = (!self.etc.is_empty()).then(|| self.make_etc(directory.path()));
        for _ in 0..20 {
            let port = self.port.unwrap_or_else(|| free_port(&self.addresses));
            if let Some(listeners) = self.listen_on(directory.path(), port, etc.as_deref()) {
                let sshd = Sshd {
                    directory,
                    builder: self,
                    port,
                    listeners,
                    orphans: Vec::new(),
                };
                sshd.write_known_hosts();
                return sshd;
            }
        }
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("sshd found no port in 20 tries:\n{log}");
    }

    /// A copy of /etc with the files of this server.
    fn make_etc(&self, directory: &Path) -> PathBuf {
        assert!(is_root(), "only root can give a server files in /etc");
        let etc = directory.join("etc");
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(&etc).status();
        assert!(copied.unwrap().success());
        for (name, text, mode) in &self.etc {
            let path = etc.join(name);
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        etc
    }

    /// Starts one sshd for every 16 addresses. None when the port was taken under our feet.
    fn listen_on(&self, directory: &Path, port: u16, etc: Option<&Path>) -> Option<Vec<Child>> {
        let log_path = directory.join("log");
        let _ = fs::remove_file(&log_path);
        let mut listeners: Vec<Child> = Vec::new();
        for (index, addresses) in self.addresses.chunks(LISTENERS_OF_ONE_SSHD).enumerate() {
            let config = directory.join(format!("config-{index}"));
            fs::write(&config, self.config_text(directory, port, addresses)).unwrap();
            listeners.push(launch(&config, &log_path, etc));
        }
        if await_listening(&mut listeners, &log_path, self.addresses.len()) {
            return Some(listeners);
        }
        for listener in &mut listeners {
            let _ = listener.kill();
            let _ = listener.wait();
        }
        let log = fs::read_to_string(&log_path).unwrap_or_default();
        let taken = log.contains("Address already in use");
        assert!(taken, "sshd did not start:\n{log}");
        None
    }

    fn config_text(&self, directory: &Path, port: u16, addresses: &[Ipv4Addr]) -> String {
        let mut lines = self.config.clone();
        for address in addresses {
            lines.push(format!("ListenAddress {address}:{port}"));
        }
        for kind in &self.host_keys {
            let key = host_key_path(directory, kind);
            lines.push(format!("HostKey {}", key.display()));
        }
        let keys = directory.join("authorized_keys");
        lines.push(format!("AuthorizedKeysFile {}", keys.display()));
        // A login shell reads its start-up files from $HOME: what stands in the account's own (a
        // version manager that takes a lock, for one) is not what is tested here.
        lines.push(format!("SetEnv HOME={}", directory.display()));
        for line in [
            "UsePAM no",
            "StrictModes no",
            "PidFile none",
            "LogLevel VERBOSE",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UseDNS no",
            "PrintMotd no",
            "MaxStartups 200:30:400",
        ] {
            lines.push(line.to_owned());
        }
        // Unlike other keywords, a second one of these is an error.
        if !lines.iter().any(|line| line.starts_with("Subsystem")) {
            lines.extend(self.sftp.iter().map(|it| format!("Subsystem sftp {it}")));
        }
        // A block goes on to the end of the file.
        lines.sort_by_key(|line| line.starts_with("Match "));
        lines.join("\n") + "\n"
    }
}

impl Sshd {
    fn write_known_hosts(&self) {
        let names: Vec<String> = self
            .builder
            .addresses
            .iter()
            .map(|address| format!("[{address}]:{}", self.port))
            .collect();
        let mut text = String::new();
        for kind in &self.builder.host_keys {
            for name in &names {
                text.push_str(&format!("{name} {}\n", self.host_key(kind)));
            }
        }
        fs::write(self.known_hosts(), text).unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Before the listeners die: afterwards nothing says whose children the sessions were.
        for pid in self.pids() {
            processes::end_sessions(pid, "sshd");
        }
        let orphans = std::mem::take(&mut self.orphans);
        self.stop_listening();
        for pid in orphans {
            if processes::all()
                .iter()
                .any(|one| one.pid == pid && one.command.starts_with("sshd"))
            {
                processes::signal(pid, Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- sshd on port {} said:\n{}", self.port, self.log());
        }
    }
}

fn launch(config: &Path, log: &Path, etc: Option<&Path>) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .open(log)
        .unwrap();
    let mut command = match etc {
        None => Command::new(PROGRAM),
        // Both exec what follows: the child is sshd in the end.
        Some(etc) => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c"]);
            let text = "mount --bind \"$0\" /etc && exec \"$@\"";
            command.arg(text).arg(etc).arg(PROGRAM);
            command
        }
    };
    command
        .args(["-D", "-e", "-f"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// True once every address listens; false when a listener ended or missed an address.
fn await_listening(listeners: &mut [Child], log: &Path, addresses: usize) -> bool {
    processes::poll(START_LIMIT, || {
        let ended = listeners
            .iter_mut()
            .any(|listener| listener.try_wait().unwrap().is_some());
        let said = fs::read_to_string(log).unwrap_or_default();
        if ended || said.contains("Bind to port") {
            return Some(false);
        }
        (said.matches("Server listening on").count() >= addresses).then_some(true)
    })
    .unwrap_or(false)
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn host_key_path(directory: &Path, kind: &str) -> PathBuf {
    directory.join(format!("host_key_{kind}"))
}

fn make_keys(directory: &Path, kinds: &[&str]) {
    for kind in kinds {
        make_key(kind, &host_key_path(directory, kind));
    }
    let identity = directory.join("identity");
    make_key("ed25519", &identity);
    let authorized = directory.join("authorized_keys");
    fs::copy(identity.with_extension("pub"), &authorized).unwrap();
    fs::set_permissions(authorized, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Makes a key pair without a passphrase at `path` and `path.pub`.
pub fn make_key(kind: &str, path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-C", "fanrun test", "-f"]);
    command.arg(path).stdin(Stdio::null());
    if kind == "rsa" {
        command.args(["-b", "2048"]);
    }
    let output = command
        .output()
        .expect("these tests need ssh-keygen: apt-get install openssh-client");
    assert!(output.status.success(), "ssh-keygen: {output:?}");
}

/// `ssh-ed25519 AAAA...` without the comment that follows.
fn key_and_kind(line: &str) -> String {
    line.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A port below the range from which the system takes ports for outgoing connections, so that
/// no connection of another test can sit on it.
pub fn free_port(addresses: &[Ipv4Addr]) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 16_000).unwrap();
    for _ in 0..16_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % 16_000;
        let port = 12_000 + (start + step) % 16_000;
        if addresses
            .iter()
            .all(|address| TcpListener::bind((*address, port)).is_ok())
        {
            return port;
        }
    }
    panic!("no free port between 12000 and 28000");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of the user who runs the tests.
pub fn current_user() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let output = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
    .clone()
}

/// The ordinary user with a password that nobody else knows: the account and the password. None,
/// and a word about it, where we may not set one.
pub fn password_account() -> Option<(String, String)> {
    if !is_root() {
        eprintln!("skipped: only root can give an account a password");
        return None;
    }
    let account = ordinary_user();
    let password = format!(
        "pw-{:016x}",
        RandomState::new().hash_one(std::process::id())
    );
    let mut chpasswd = Command::new("chpasswd")
        .stdin(Stdio::piped())
        .spawn()
        .expect("this test needs chpasswd: apt-get install passwd");
    let line = format!("{account}:{password}\n");
    chpasswd
        .stdin
        .take()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    assert!(chpasswd.wait().unwrap().success());
    Some((account, password))
}

/// The ordinary user for logins; as root it is made on first use.
pub fn ordinary_user() -> String {
    if !is_root() {
        return current_user();
    }
    make_account(ORDINARY_USER, "/bin/bash");
    ORDINARY_USER.to_owned()
}

/// An account with this login shell; root makes it on first use.
pub fn account_with_shell(shell: &str) -> String {
    assert!(is_root(), "only root can make an account with {shell}");
    assert!(
        Path::new(shell).exists(),
        "this test needs {shell}; tests/run installs it"
    );
    let name = shell.rsplit('/').next().unwrap();
    let account = format!("fanrun-{name}");
    make_account(&account, shell);
    account
}

fn make_account(name: &str, shell: &str) {
    /// Two tests that make the same account at once would both find it missing.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let prefix = format!("{name}:");
    if passwd.lines().any(|line| line.starts_with(&prefix)) {
        return;
    }
    // '*' and not '!': sshd without PAM takes '!' for a locked account and refuses the key.
    let output = Command::new("useradd")
        .args(["-m", "-s", shell, "-p", "*", name])
        .output()
        .expect("these tests need useradd: apt-get install passwd");
    assert!(output.status.success(), "useradd: {output:?}");
}

/// As root sshd wants its empty directory; a container has often not made it.
fn prepare_privilege_separation() {
    if !is_root() {
        return;
    }
    fs::create_dir_all("/run/sshd").unwrap();
    fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
}

/// Writes a file that only its owner may read, as ssh wants it of keys.
pub fn write_private(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
