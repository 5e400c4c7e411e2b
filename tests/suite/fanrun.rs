//! Runs the program itself, and compares stdout, stderr and status every time.
//!
//! A run that is started must be compared: dropping it uncompared fails the test. The
//! environment is clean (an empty home, no agent), every run has a time limit, and after it no
//! process that inherited the run's mark may be left on this machine.
//!
//! Expected text is written out; `[..]` stands for anything within a line, a line `...` for any
//! number of lines. A closure is for what a pattern cannot say.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcsetwinsize};
use tempfile::TempDir;

use crate::dropbear::Dropbear;
use crate::processes;
use crate::sshd::Sshd;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fanrun");
const MARK: &str = "FANRUN_TEST_MARK";
/// How long a child of a run that is over may take to be gone.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);

/// How a run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Code(i32),
    Signal(i32),
}

impl From<i32> for Ending {
    fn from(code: i32) -> Ending {
        Ending::Code(code)
    }
}

impl From<Signal> for Ending {
    fn from(signal: Signal) -> Ending {
        Ending::Signal(signal.as_raw())
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Ending {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(code),
            (None, Some(signal)) => Ending::Signal(signal),
            (None, None) => panic!("a wait gave neither a code nor a signal: {status:?}"),
        }
    }
}

/// What one stream is to hold.
pub enum Expected {
    Pattern(String),
    Check(Box<dyn Fn(&str) -> bool>),
}

impl From<&str> for Expected {
    fn from(pattern: &str) -> Expected {
        Expected::Pattern(pattern.to_owned())
    }
}

impl From<String> for Expected {
    fn from(pattern: String) -> Expected {
        Expected::Pattern(pattern)
    }
}

impl<F: Fn(&str) -> bool + 'static> From<F> for Expected {
    fn from(check: F) -> Expected {
        Expected::Check(Box::new(check))
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Pattern(pattern) => f.write_str(pattern),
            Expected::Check(_) => f.write_str("(what a closure of the test wants)"),
        }
    }
}

impl Expected {
    fn fits(&self, text: &str) -> bool {
        match self {
            Expected::Pattern(pattern) => matches_pattern(pattern, text),
            Expected::Check(check) => check(text),
        }
    }
}

/// Every one of `words` stands in the text.
pub fn holds<const N: usize>(words: [&'static str; N]) -> impl Fn(&str) -> bool + 'static {
    move |text| words.iter().all(|word| text.contains(word))
}

/// `[..]` is anything within a line, a line `...` is any number of lines.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('\n').collect();
    let text: Vec<&str> = text.split('\n').collect();
    lines_match(&pattern, &text)
}

fn lines_match(pattern: &[&str], text: &[&str]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((&"...", rest)) => (0..=text.len()).any(|skip| lines_match(rest, &text[skip..])),
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(line, below)| line_matches(first, line) && lines_match(rest, below)),
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("[..]");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A run of the program in the making.
#[derive(Debug)]
#[must_use]
pub struct Fanrun {
    program: String,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    removed: Vec<String>,
    stdin: Vec<u8>,
    limit: Duration,
    home: TempDir,
    paused: bool,
    limits: Option<String>,
}

impl Fanrun {
    /// `fanrun COMMAND ARGS...`
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Fanrun {
        Fanrun {
            program: PROGRAM.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            removed: Vec::new(),
            stdin: Vec::new(),
            limit: Duration::from_secs(30),
            home: tempfile::Builder::new()
                .prefix("fanrun-home-")
                .tempdir()
                .unwrap(),
            paused: false,
            limits: None,
        }
    }

    /// `fanrun exec ADDRESS [options for this server] -- COMMAND`
    pub fn exec(sshd: &Sshd, command: &str) -> Fanrun {
        Fanrun::new(["exec", &sshd.address(), "--", command]).options(sshd.fanrun_args())
    }

    pub fn exec_on_dropbear(dropbear: &Dropbear, command: &str) -> Fanrun {
        Fanrun::new(["exec", &dropbear.address(), "--", command]).options(dropbear.fanrun_args())
    }

    /// Options right behind the name of the command, so before any `--`.
    pub fn options<S: Into<String>>(mut self, options: impl IntoIterator<Item = S>) -> Fanrun {
        self.args.splice(1..1, options.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Fanrun {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without_env(mut self, name: &str) -> Fanrun {
        self.removed.push(name.to_owned());
        self
    }

    /// Bytes for standard input, which is closed behind them. Without any it is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Fanrun {
        self.stdin = bytes.into();
        self
    }

    /// The run must be over within this time (30 s if not said).
    pub fn within(mut self, limit: Duration) -> Fanrun {
        self.limit = limit;
        self
    }

    /// Nobody reads stdout until [`Running::read_stdout`].
    pub fn blocked_stdout(mut self) -> Fanrun {
        self.paused = true;
        self
    }

    /// Runs under `ulimit WHAT`, for instance `-n 64`.
    pub fn ulimit(mut self, what: &str) -> Fanrun {
        self.limits = Some(what.to_owned());
        self
    }

    /// The home directory of the run, for files that the program finds there.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Runs to the end, and compares.
    pub fn expect(
        self,
        ending: impl Into<Ending>,
        stdout: impl Into<Expected>,
        stderr: impl Into<Expected>,
    ) {
        self.spawn().expect(ending, stdout, stderr);
    }

    /// Starts the run and leaves it to the test; it must still be compared.
    pub fn spawn(self) -> Running {
        let mark = processes::marker("run");
        let mut command = self.command(&mark);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        feed(&mut child, self.stdin.clone());
        let (release, gate) = channel();
        let stdout = Stream::read(child.stdout.take().unwrap(), Some(gate));
        let stderr = Stream::read(child.stderr.take().unwrap(), None);
        let mut running = Running::new(child, stdout, stderr, mark, self);
        running.release = Some(release);
        if !running.made_from.paused {
            running.read_stdout();
        }
        running
    }

    /// Starts the run on a terminal of its own, of this many columns and rows. What the program
    /// writes, to stdout or to stderr, is the screen.
    pub fn spawn_on_terminal(self, columns: u16, rows: u16) -> OnTerminal {
        let mark = processes::marker("run");
        let (controller, terminal) = open_terminal(columns, rows);
        let program = self.command(&mark);
        // setsid gives the run a controlling terminal, so that the terminal's keys are signals.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program());
        command.args(program.get_args()).env_clear();
        command.envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command.env("TERM", "xterm-256color");
        command
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal);
        let child = command.spawn().unwrap();
        // The command still holds the terminal's end: with it the screen would never end.
        drop(command);
        let keyboard = controller.try_clone().unwrap();
        let screen = Stream::read(controller, None);
        OnTerminal {
            keyboard,
            running: Running::new(child, screen, Stream::empty(), mark, self),
        }
    }

    fn command(&self, mark: &str) -> Command {
        let mut command = match &self.limits {
            None => Command::new(&self.program),
            Some(limits) => {
                let mut shell = Command::new("/bin/sh");
                let text = format!("ulimit {limits} && exec \"$0\" \"$@\"");
                shell.args(["-c", &text, &self.program]);
                shell
            }
        };
        command.args(&self.args).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.home.path()).env(MARK, mark);
        command.env("LANG", "C.UTF-8");
        command.envs(self.environment.iter().cloned());
        for name in &self.removed {
            command.env_remove(name);
        }
        command.current_dir(self.home.path());
        command
    }
}

fn feed(child: &mut Child, bytes: Vec<u8>) {
    let mut stdin = child.stdin.take().unwrap();
    // A thread of its own: a program that does not read its stdin must not stop the test. That
    // it may end before it has read everything is no fault.
    std::thread::spawn(move || {
        let _ = stdin.write_all(&bytes);
    });
}

fn open_terminal(columns: u16, rows: u16) -> (File, OwnedFd) {
    let controller =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&controller, size).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(controller), OwnedFd::from(terminal))
}

/// What has come on one stream so far, read by a thread.
#[derive(Debug)]
struct Stream {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn empty() -> Stream {
        Stream {
            text: Arc::default(),
            reader: None,
        }
    }

    /// Reads to the end; with a gate, not before it opens.
    fn read(mut source: impl Read + Send + 'static, gate: Option<Receiver<()>>) -> Stream {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let filled = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            if let Some(gate) = gate {
                let _ = gate.recv();
            }
            let mut buffer = vec![0; 64 * 1024];
            // A terminal whose other end is closed says EIO where a pipe says 0.
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                filled.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Stream {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn has_ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// A run that has been started.
#[derive(Debug)]
#[must_use]
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    release: Option<Sender<()>>,
    mark: String,
    started: Instant,
    compared: bool,
    made_from: Fanrun,
}

impl Running {
    fn new(child: Child, stdout: Stream, stderr: Stream, mark: String, made_from: Fanrun) -> Self {
        Running {
            child,
            stdout,
            stderr,
            release: None,
            mark,
            started: Instant::now(),
            compared: false,
            made_from,
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Begins to read stdout that was blocked.
    pub fn read_stdout(&mut self) {
        if let Some(release) = self.release.take() {
            let _ = release.send(());
        }
    }

    /// What came on stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub fn await_stdout(&self, text: &str) {
        self.await_text("stdout", &self.stdout, text);
    }

    pub fn await_stderr(&self, text: &str) {
        self.await_text("stderr", &self.stderr, text);
    }

    fn await_text(&self, name: &str, stream: &Stream, text: &str) {
        let found = processes::poll(self.made_from.limit, || {
            stream.text().contains(text).then_some(())
        });
        assert!(found.is_some(), "{name} never held {text:?}:\n{self}");
    }

    /// Peak resident memory in bytes, while the run lives.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .expect("a run that is over has no memory to measure");
        kib * 1024
    }

    /// The run must be over within this time from now.
    pub fn within(mut self, limit: Duration) -> Running {
        self.made_from.limit = self.started.elapsed() + limit;
        self
    }

    /// Waits for the end, and compares all three.
    pub fn expect(
        mut self,
        ending: impl Into<Ending>,
        stdout: impl Into<Expected>,
        stderr: impl Into<Expected>,
    ) {
        self.compared = true;
        let (ending, stdout, stderr) = (ending.into(), stdout.into(), stderr.into());
        let status = self.await_end();
        assert_eq!(Ending::from(status), ending, "the wrong status:\n{self}");
        self.await_streams();
        assert!(
            stdout.fits(&self.stdout()),
            "stdout is not\n{stdout:?}\n{self}"
        );
        assert!(
            stderr.fits(&self.stderr()),
            "stderr is not\n{stderr:?}\n{self}"
        );
        self.assert_nothing_left();
    }

    /// Waits for the end, which may have any of these codes; the output is not looked at.
    pub fn expect_one_of(mut self, codes: &[i32]) {
        self.compared = true;
        let status = self.await_end();
        let code = status.code();
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "the wrong status:\n{self}"
        );
        self.await_streams();
        self.assert_nothing_left();
    }

    fn await_end(&mut self) -> ExitStatus {
        let left = self.made_from.limit.saturating_sub(self.started.elapsed());
        let child = &mut self.child;
        match processes::poll(left, || child.try_wait().unwrap()) {
            Some(status) => status,
            None => panic!("not over within {:?}:\n{self}", self.made_from.limit),
        }
    }

    /// The streams end with the last process that holds them, and that must be the run itself.
    fn await_streams(&mut self) {
        self.read_stdout();
        let ended = processes::poll(LEFTOVER_GRACE, || {
            (self.stdout.has_ended() && self.stderr.has_ended()).then_some(())
        });
        assert!(ended.is_some(), "someone still holds the output:\n{self}");
    }

    fn assert_nothing_left(&self) {
        let none = processes::poll(LEFTOVER_GRACE, || {
            processes::with_environment(&self.mark)
                .is_empty()
                .then_some(())
        });
        assert!(
            none.is_some(),
            "left running: {:#?}\n{self}",
            processes::with_environment(&self.mark)
        );
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "--- fanrun {}", self.made_from.args.join(" "))?;
        writeln!(f, "--- stdout\n{}", self.stdout())?;
        writeln!(f, "--- stderr\n{}", self.stderr())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let below = processes::descendants(self.pid());
            let _ = self.child.kill();
            let _ = self.child.wait();
            for process in below {
                processes::signal(process.pid, Signal::KILL);
            }
        }
        if !self.compared && !std::thread::panicking() {
            panic!("a run was started and never compared:\n{self}");
        }
    }
}

/// A run on a terminal of its own.
#[derive(Debug)]
#[must_use]
pub struct OnTerminal {
    keyboard: File,
    running: Running,
}

impl OnTerminal {
    /// Types keys: `\x03` is Ctrl-C, `\x1a` is Ctrl-Z.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal shows what is typed.
    pub fn echoes(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.keyboard).unwrap();
        modes.local_modes.contains(LocalModes::ECHO)
    }

    /// All that was written to the terminal so far, control sequences and all.
    pub fn screen(&self) -> String {
        self.running.stdout()
    }

    pub fn await_screen(&self, text: &str) {
        self.running.await_stdout(text);
    }

    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Waits for the end, and compares status and screen; on a terminal there is no second stream.
    pub fn expect(self, ending: impl Into<Ending>, screen: impl Into<Expected>) {
        self.running.expect(ending, screen, "");
    }
}

#[test]
fn patterns_compare_whole_texts() {
    assert!(matches_pattern("a [..] c\n", "a b c\n"));
    assert!(matches_pattern("...\nend\n", "one\ntwo\nend\n"));
    assert!(matches_pattern("[..]", "anything"));
    assert!(!matches_pattern("[..]", "two\nlines"));
    assert!(!matches_pattern("a\n", "a\nb\n"));
    assert!(!matches_pattern("", "x"));
    assert!(!matches_pattern("a[..]a", "a"));
}

#[test]
#[should_panic(expected = "never compared")]
fn a_run_that_is_not_compared_fails() {
    drop(Fanrun::new(["--version"]).spawn());
}

/// An interactive shell in the place of the program: one that does job control on its terminal.
pub fn interactive_shell() -> Fanrun {
    let mut run = Fanrun::new(["--norc", "--noprofile", "--noediting", "-i"]);
    run.program = "/bin/bash".to_owned();
    run.env("PS1", "ready> ").env("HISTFILE", "/dev/null")
}

/// A shell in the place of the program, to test the harness itself.
fn shell(script: &str) -> Fanrun {
    let mut run = Fanrun::new(["-c", script]);
    run.program = "/bin/sh".to_owned();
    run
}

#[test]
fn a_run_compares_all_three() {
    let run = || shell("echo out; cat; echo err >&2; exit 3").stdin("in\n");
    run().expect(3, "out\nin\n", "err\n");
    for (code, stdout, stderr) in [
        (4, "out\nin\n", "err\n"),
        (3, "out\n", "err\n"),
        (3, "out\nin\n", ""),
    ] {
        let failed = std::panic::catch_unwind(|| run().expect(code, stdout, stderr));
        assert!(failed.is_err(), "{code} {stdout:?} {stderr:?} passed");
    }
}

#[test]
fn a_run_that_leaves_a_process_fails() {
    let failed = std::panic::catch_unwind(|| {
        shell("sleep 20 >/dev/null 2>&1 & echo $!").expect(0, "[..]\n", "");
    });
    let message = *failed.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("left running"), "{message}");
    let pid = message.split("--- stdout\n").nth(1).unwrap();
    let pid = pid.lines().next().unwrap().parse().unwrap();
    processes::signal(pid, Signal::KILL);
}

#[test]
fn signals_and_time_limits_reach_a_run() {
    let run = shell("echo up; exec sleep 20").spawn();
    run.await_stdout("up");
    run.signal(Signal::TERM);
    run.expect(Signal::TERM, "up\n", "");
    let slow = shell("exec sleep 20").within(Duration::from_millis(100));
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slow.expect(0, "", "")));
    assert!(failed.is_err());
}

#[test]
fn keys_of_a_terminal_are_signals() {
    let mut run = shell("stty size; tty >&2; exec sleep 20").spawn_on_terminal(90, 30);
    run.await_screen("/dev/pts/");
    run.type_keys("\x03");
    run.expect(Signal::INT, |screen: &str| {
        screen.starts_with("30 90\r\n/dev/pts/")
    });
}
