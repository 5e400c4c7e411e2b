//! SFTP servers of every kind that is met in the field: OpenSSH's in its several settings,
//! dropbear in front of it, asyncssh and paramiko.
//!
//! Each has a directory of its own on this machine, `place`, which its clients call `remote`.
//! The two in Python live in `<target directory>/python`, which `tests/run` fills.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use tempfile::TempDir;

use crate::dropbear::Dropbear;
use crate::processes;
use crate::sshd::{Sshd, account_with_shell, is_root, make_key};

/// Where systems keep the server that OpenSSH starts for each session.
const EXTERNAL: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
];
/// Parents of a chroot belong to root and are writable by nobody else, or sshd refuses it; /tmp
/// is not such a place.
const PLACE_FOR_CHROOTS: &str = "/run";
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server; ended, with its sessions and files, when dropped.
#[derive(Debug)]
pub struct SftpServer {
    kind: Kind,
    place: PathBuf,
    remote: String,
    /// Outlives the server, which stands in the field before it.
    _directory: Option<TempDir>,
}

#[derive(Debug)]
enum Kind {
    Sshd(Sshd),
    Dropbear(Dropbear),
    Python(Python),
}

impl SftpServer {
    /// OpenSSH's `internal-sftp`, for whoever runs the tests.
    pub fn internal() -> SftpServer {
        SftpServer::of_sshd(Sshd::start())
    }

    /// OpenSSH's `sftp-server`, a process of its own that the account's shell starts.
    pub fn external() -> SftpServer {
        SftpServer::with_program(&external_program())
    }

    /// `sftp-server -R`: whatever would change anything is refused.
    pub fn read_only() -> SftpServer {
        SftpServer::with_program(&format!("{} -R", external_program()))
    }

    /// `sftp-server -P write`: files can be made, renamed and removed, and stay empty.
    pub fn without_write() -> SftpServer {
        SftpServer::with_program(&format!("{} -P write", external_program()))
    }

    /// `sftp-server` with these arguments, or any other command in its place.
    pub fn with_program(program: &str) -> SftpServer {
        SftpServer::of_sshd(Sshd::builder().sftp(Some(program)).start())
    }

    /// Commands run here, and there is no `sftp` subsystem.
    pub fn missing() -> SftpServer {
        SftpServer::of_sshd(Sshd::builder().sftp(None).start())
    }

    /// An ordinary user's `.bashrc` says `text` before `sftp-server` starts.
    pub fn noisy(text: &str) -> SftpServer {
        let sshd = Sshd::builder()
            .ordinary_user()
            .sftp(Some(&external_program()))
            .start();
        // The fixture's sshd calls its own directory HOME.
        let noise = format!("printf %s '{}'\n", text.replace('\'', "'\\''"));
        fs::write(sshd.directory().join(".bashrc"), noise).unwrap();
        SftpServer::of_sshd(sshd)
    }

    /// An account without a shell, locked into a directory of root's in which it may write to
    /// one place only.
    pub fn chrooted() -> SftpServer {
        assert!(is_root(), "only root can lock an account into a directory");
        let directory = tempfile::Builder::new()
            .prefix("fanrun-chroot-")
            .tempdir_in(PLACE_FOR_CHROOTS)
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let sshd = Sshd::builder()
            .user(&account_with_shell("/usr/sbin/nologin"))
            .config(&format!("ChrootDirectory {}", directory.path().display()))
            .config("ForceCommand internal-sftp")
            .start();
        let place = directory.path().join("files");
        make_place(&place, sshd.user());
        SftpServer {
            kind: Kind::Sshd(sshd),
            place,
            remote: "/files".into(),
            _directory: Some(directory),
        }
    }

    /// dropbear has no server of its own and starts OpenSSH's.
    pub fn dropbear() -> SftpServer {
        let directory = open_directory();
        let dropbear = Dropbear::start();
        let place = directory.path().join("files");
        make_place(&place, dropbear.user());
        SftpServer {
            kind: Kind::Dropbear(dropbear),
            remote: place.to_str().unwrap().into(),
            place,
            _directory: Some(directory),
        }
    }

    /// asyncssh: answers out of order, and takes its paths as they are.
    pub fn asyncssh() -> SftpServer {
        let python = Python::start("asyncssh", "asyncssh_server.py", &[]);
        let place = python.place();
        SftpServer {
            kind: Kind::Python(python),
            remote: place.to_str().unwrap().into(),
            place,
            _directory: None,
        }
    }

    /// asyncssh without SFTP: it takes a password and demands a new one, or says nothing at all.
    pub fn demanding(words: &[&str]) -> SftpServer {
        let python = Python::start("asyncssh", "expired_server.py", words);
        let place = python.place();
        SftpServer {
            kind: Kind::Python(python),
            remote: place.to_str().unwrap().into(),
            place,
            _directory: None,
        }
    }

    /// paramiko: no extensions but OpenSSH's rename, names are text, and its root is `place`.
    pub fn paramiko() -> SftpServer {
        let python = Python::start("paramiko", "paramiko_server.py", &[]);
        SftpServer {
            place: python.place(),
            kind: Kind::Python(python),
            remote: String::new(),
            _directory: None,
        }
    }

    fn of_sshd(sshd: Sshd) -> SftpServer {
        let place = sshd.directory().join("files");
        make_place(&place, sshd.user());
        SftpServer {
            kind: Kind::Sshd(sshd),
            remote: place.to_str().unwrap().into(),
            place,
            _directory: None,
        }
    }

    /// The directory that the server's user may write to, as this machine calls it.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// What a client calls `name` in that directory.
    pub fn remote(&self, name: &str) -> String {
        format!("{}/{name}", self.remote)
    }

    pub fn address(&self) -> String {
        "127.0.0.1".into()
    }

    pub fn port(&self) -> u16 {
        match &self.kind {
            Kind::Sshd(sshd) => sshd.port(),
            Kind::Dropbear(dropbear) => dropbear.port(),
            Kind::Python(python) => python.port,
        }
    }

    pub fn user(&self) -> &str {
        match &self.kind {
            Kind::Sshd(sshd) => sshd.user(),
            Kind::Dropbear(dropbear) => dropbear.user(),
            Kind::Python(_) => "files",
        }
    }

    pub fn known_hosts(&self) -> PathBuf {
        match &self.kind {
            Kind::Sshd(sshd) => sshd.known_hosts(),
            Kind::Dropbear(dropbear) => dropbear.known_hosts(),
            Kind::Python(python) => python.path("known_hosts"),
        }
    }

    pub fn identity(&self) -> PathBuf {
        match &self.kind {
            Kind::Sshd(sshd) => sshd.identity(),
            Kind::Dropbear(dropbear) => dropbear.identity(),
            Kind::Python(python) => python.path("identity"),
        }
    }

    /// All that the server has said so far.
    pub fn log(&self) -> String {
        match &self.kind {
            Kind::Sshd(sshd) => sshd.log(),
            Kind::Dropbear(dropbear) => dropbear.log(),
            Kind::Python(python) => python.log(),
        }
    }

    /// The sshd behind it, where there is one.
    pub fn sshd(&self) -> Option<&Sshd> {
        match &self.kind {
            Kind::Sshd(sshd) => Some(sshd),
            Kind::Dropbear(_) | Kind::Python(_) => None,
        }
    }

    /// The options with which fanrun reaches this server.
    pub fn fanrun_args(&self) -> Vec<String> {
        self.dial().fanrun_args()
    }

    /// Runs a batch of OpenSSH's `sftp`; a line that begins with `-` may fail.
    pub fn batch(&self, lines: &str) -> Output {
        self.dial().batch(lines)
    }

    /// How OpenSSH's client reaches this server.
    pub fn dial(&self) -> Dial {
        Dial {
            port: self.port(),
            user: self.user().to_owned(),
            known_hosts: self.known_hosts(),
            identity: self.identity(),
        }
    }
}

/// How OpenSSH's client reaches a server at 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Dial {
    pub port: u16,
    pub user: String,
    pub known_hosts: PathBuf,
    pub identity: PathBuf,
}

impl Dial {
    /// The options with which fanrun reaches this server.
    pub fn fanrun_args(&self) -> Vec<String> {
        let port = self.port.to_string();
        let known_hosts = self.known_hosts.display().to_string();
        let identity = self.identity.display().to_string();
        [
            ("--port", port.as_str()),
            ("--user", &self.user),
            ("--identity", &identity),
            ("--known-hosts", &known_hosts),
        ]
        .iter()
        .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
        .collect()
    }

    /// `ssh` or `sftp` with all but the destination.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-i"]).arg(&self.identity);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "GlobalKnownHostsFile=none",
            &format!("UserKnownHostsFile={}", self.known_hosts.display()),
            &format!("Port={}", self.port),
            &format!("User={}", self.user),
        ] {
            command.args(["-o", option]);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a batch of `sftp`, with half a minute for all of it.
    pub fn batch(&self, lines: &str) -> Output {
        let mut child = self
            .command("sftp")
            .args(["-b", "-", "127.0.0.1"])
            .spawn()
            .expect("these tests need sftp: apt-get install openssh-client");
        let mut stdin = child.stdin.take().unwrap();
        // Ended already when it could not connect; its status tells.
        let _ = stdin.write_all(lines.as_bytes());
        drop(stdin);
        within_limit(child)
    }
}

/// The `sftp` subsystem as a pipe of bytes, through OpenSSH's `ssh`; every wait has a limit.
#[derive(Debug)]
pub struct Subsystem {
    client: Child,
    /// None once the input was ended.
    pub stdin: Option<ChildStdin>,
    /// What the server says, as it comes; closed at its end.
    said: Receiver<Vec<u8>>,
    /// Said, and not yet asked for.
    pending: Vec<u8>,
}

impl Dial {
    /// Asks for the subsystem, and sends nothing.
    pub fn subsystem(&self) -> Subsystem {
        let mut client = self
            .command("ssh")
            .args(["-s", "127.0.0.1", "sftp"])
            .spawn()
            .expect("these tests need ssh: apt-get install openssh-client");
        let stdin = client.stdin.take();
        let mut stdout = client.stdout.take().unwrap();
        // Bounded, so that an endless answer stands in the pipe and not in our memory.
        let (tell, said) = sync_channel(16);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if tell.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Subsystem {
            client,
            stdin,
            said,
            pending: Vec::new(),
        }
    }

    /// The subsystem after `INIT` and a `VERSION` that names this version.
    pub fn initialised(&self) -> Subsystem {
        let mut raw = self.subsystem();
        raw.send(1, &3_u32.to_be_bytes());
        let version = raw.packet().expect("no VERSION");
        assert!(version.starts_with(&[2, 0, 0, 0, 3]), "{version:?}");
        raw
    }
}

impl Subsystem {
    /// Sends one packet.
    pub fn send(&mut self, kind: u8, body: &[u8]) {
        self.send_at_once(kind, &[body.to_vec()]);
    }

    /// Sends packets of one kind in one write, so that none can be late for the others.
    pub fn send_at_once(&mut self, kind: u8, bodies: &[Vec<u8>]) {
        let mut packets = Vec::new();
        for body in bodies {
            packets.extend(u32::try_from(body.len() + 1).unwrap().to_be_bytes());
            packets.push(kind);
            packets.extend(body);
        }
        // A server that has ended takes nothing; what it answers, or does not, tells.
        let _ = self.stdin.as_mut().unwrap().write_all(&packets);
    }

    /// Some bytes; none at the end.
    pub fn read_some(&mut self) -> Vec<u8> {
        if !self.pending.is_empty() {
            return std::mem::take(&mut self.pending);
        }
        match self.said.recv_timeout(START_LIMIT) {
            Ok(bytes) => bytes,
            Err(RecvTimeoutError::Disconnected) => Vec::new(),
            Err(RecvTimeoutError::Timeout) => panic!("the server says nothing"),
        }
    }

    /// True when nothing comes for this long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        let quiet = self.said.recv_timeout(time);
        self.pending.is_empty() && quiet == Err(RecvTimeoutError::Timeout)
    }

    /// Exactly this many bytes, or fewer at the end.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let some = self.read_some();
            if some.is_empty() {
                break;
            }
            taken.extend(some);
        }
        self.pending = taken.split_off(count.min(taken.len()));
        taken
    }

    /// One packet without its length, its type first; None when the stream ends in it.
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.take(4).try_into().ok()?) as usize;
        let packet = self.take(length);
        (packet.len() == length).then_some(packet)
    }

    /// Sends a request and takes the next packet.
    pub fn ask(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.send(kind, body);
        self.packet().expect("no answer")
    }

    /// All that is still said, and how the client ended: with the server's exit status, or 255.
    pub fn end(mut self) -> (Vec<u8>, Option<i32>) {
        self.stdin = None;
        let mut rest = Vec::new();
        loop {
            let some = self.read_some();
            if some.is_empty() {
                break;
            }
            rest.extend(some);
        }
        let code = processes::poll(START_LIMIT, || self.client.try_wait().unwrap());
        (rest, code.expect("the client does not end").code())
    }
}

impl Drop for Subsystem {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// The output of a process that ends by itself, or is ended after half a minute.
pub fn within_limit(child: Child) -> Output {
    let pid = i32::try_from(child.id()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        let _ = tell.send(());
        output
    });
    if told.recv_timeout(START_LIMIT).is_err() {
        processes::signal(pid, rustix::process::Signal::KILL);
    }
    reading.join().unwrap()
}

/// The path of OpenSSH's `sftp-server`.
pub fn external_program() -> String {
    let found = EXTERNAL.iter().find(|path| Path::new(path).exists());
    let missing = "these tests need OpenSSH's sftp-server: apt-get install openssh-sftp-server";
    (*found.expect(missing)).to_owned()
}

/// A directory that every account may walk through.
fn open_directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("fanrun-sftp-")
        .tempdir()
        .unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn make_place(place: &Path, user: &str) {
    fs::create_dir(place).unwrap();
    if is_root() {
        let (uid, gid) = ids_of(user);
        chown(place, Some(uid), Some(gid)).unwrap();
    }
}

/// Numbers of a user and of its group.
pub fn ids_of(user: &str) -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let prefix = format!("{user}:");
    let line = passwd.lines().find(|line| line.starts_with(&prefix));
    let mut fields = line.unwrap().split(':').skip(2);
    let mut number = || fields.next().unwrap().parse().unwrap();
    (number(), number())
}

/// A server written in Python, which ends when its input does: with the tests at the latest.
#[derive(Debug)]
struct Python {
    directory: TempDir,
    port: u16,
    server: Child,
}

impl Python {
    fn start(library: &str, script: &str, words: &[&str]) -> Python {
        let interpreter = interpreter(library);
        let directory = open_directory();
        for key in ["host_key", "identity"] {
            make_key("ed25519", &directory.path().join(key));
        }
        fs::create_dir(directory.path().join("files")).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/suite/servers")
            .join(script);
        let mut server = Command::new(interpreter)
            .args(["-u".as_ref(), script.as_os_str()])
            .arg(directory.path())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let log = directory.path().join("log");
        let port = await_port(&mut server, &log);
        let host_key = fs::read_to_string(directory.path().join("host_key.pub")).unwrap();
        let known = format!("[127.0.0.1]:{port} {host_key}");
        fs::write(directory.path().join("known_hosts"), known).unwrap();
        Python {
            directory,
            port,
            server,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn place(&self) -> PathBuf {
        self.path("files")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            eprintln!("--- server on port {} said:\n{}", self.port, self.log());
        }
    }
}

/// The Python that `tests/run` has prepared.
fn interpreter(library: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let home = target.join("python");
    let interpreter = home.join("bin/python");
    let ready = Command::new(&interpreter)
        .args(["-c", &format!("import {library}")])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let home = home.display();
    assert!(
        ready,
        "these tests need {library} in {home}, which tests/run makes; by hand:\n    \
         python3 -m venv {home} && {home}/bin/pip install -r tests/suite/servers/requirements.txt"
    );
    interpreter
}

fn await_port(server: &mut Child, log: &Path) -> u16 {
    let found = processes::poll(START_LIMIT, || {
        let said = fs::read_to_string(log).unwrap_or_default();
        let whole_lines = &said[..said.rfind('\n').unwrap_or(0)];
        let port = whole_lines
            .lines()
            .find_map(|line| line.strip_prefix("listening on "));
        if let Some(port) = port {
            return Some(port.parse().ok());
        }
        server.try_wait().unwrap().is_some().then_some(None)
    });
    let said = fs::read_to_string(log).unwrap_or_default();
    found
        .flatten()
        .unwrap_or_else(|| panic!("it did not start:\n{said}"))
}

/// Every server on which files can be written, each with its name.
pub fn writable() -> Vec<(&'static str, SftpServer)> {
    let mut servers = vec![
        ("internal", SftpServer::internal()),
        ("external", SftpServer::external()),
        ("dropbear", SftpServer::dropbear()),
        ("asyncssh", SftpServer::asyncssh()),
        ("paramiko", SftpServer::paramiko()),
    ];
    if is_root() {
        servers.push(("chrooted", SftpServer::chrooted()));
    }
    servers
}
