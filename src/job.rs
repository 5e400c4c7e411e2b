//! One task on one host, fully resolved: nothing in here needs a variable, a file or a decision.

use std::sync::Arc;
use std::time::Duration;

use crate::secret::Secret;
use crate::target::UserName;

/// A host's place in the plan's list of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u32);

/// A play's place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlayId(pub u16);

/// A task's place in the plan: its play, and its place in that play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The play.
    pub play: PlayId,
    /// Counted from 0.
    pub index: u16,
}

/// A task as events and reports name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRef {
    /// Its place.
    pub id: TaskId,
    /// Its name, or the start of its command where it has none. One line.
    pub name: Arc<str>,
    /// `file:line` where it was written; `None` for commands from the command line.
    pub place: Option<Arc<str>>,
}

/// One task on one host.
#[derive(Debug, Clone)]
pub struct Job {
    /// Which task this is.
    pub task: TaskRef,
    /// What is to be done.
    pub action: Action,
    /// Variables exported to the command.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: Option<String>,
    /// The interpreter of shell text; `None` is the account's login shell (locally `/bin/sh`).
    /// Words of a command to which the text is appended, such as `["bash", "-euc"]`.
    pub shell: Option<Vec<String>>,
    /// What the command reads.
    pub stdin: Input,
    /// Output is passed on as it comes, not in whole lines.
    pub pass_through: bool,
    /// How long the command may take, from the exec request on.
    pub timeout: Option<Duration>,
    /// Exit codes that count as success.
    pub ok_codes: Vec<u32>,
    /// What a failure means for the rest.
    pub on_failure: OnFailure,
    /// The name under which the result is kept for later tasks.
    pub register: Option<String>,
    /// How standard output becomes rows.
    pub parse: Option<Arc<crate::rows::Parsing>>,
    /// Whether stdout and stderr are kept: for later tasks, or to judge this one.
    pub keep: bool,
    /// It is not done where this path exists.
    pub creates: Option<String>,
    /// It holds a secret, which must not stand on a command line.
    pub hidden: bool,
    /// The account that it is done as on the target, where that is not the one that logs in.
    pub becomes: Option<Become>,
}

impl Job {
    /// A path on its host as the command itself would find it: below `cwd` unless it is absolute.
    pub fn at(&self, path: &str) -> String {
        match &self.cwd {
            Some(cwd) if !path.starts_with('/') => format!("{cwd}/{path}"),
            Some(_) | None => path.to_owned(),
        }
    }
}

/// Another account of the host, and how a command comes to run as it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Become {
    /// The program that changes the account.
    pub method: Method,
    /// The account.
    pub user: UserName,
    /// What the program asks for, where it asks.
    pub password: Option<Secret>,
}

/// A program that runs others as another account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// sudo(8): asks for the password of whoever is logged in.
    Sudo,
    /// doas(1): takes a password from a terminal only, and so here none.
    Doas,
    /// su(1): asks for the password of the account that is become.
    Su,
}

impl Method {
    /// The program's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Sudo => "sudo",
            Self::Doas => "doas",
            Self::Su => "su",
        }
    }
}

/// What a command reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// End of file at once.
    Nothing,
    /// These bytes, then end of file.
    Bytes(bytes::Bytes),
    /// What fanrun itself reads on its standard input; for one job of a run.
    Ours,
}

/// What a job does.
#[derive(Debug, Clone)]
pub enum Action {
    /// A command on the target.
    Run(Command),
    /// A local file, copied to the target, run by its own `#!`, removed.
    Script {
        /// Base name, for messages.
        name: String,
        /// The file's bytes, read once per run.
        content: bytes::Bytes,
        /// Arguments, as separate words.
        args: Vec<String>,
    },
    /// A child process of this process, on behalf of the host.
    Local(Command),
    /// A listing of files on the target.
    List(Arc<crate::listing::Listing>),
    /// Files to the target.
    Upload(Arc<crate::transfer::Upload>),
    /// Files from the target.
    Download(Arc<crate::transfer::Download>),
    /// Text for the person who runs the playbook.
    Print(String),
    /// Wait.
    Pause(Duration),
    /// A question to the person at the terminal.
    Ask(String),
    /// What does not hold of the conditions, in words, if anything.
    Assert(Option<String>),
    /// Values for later tasks.
    Set(crate::target::Vars),
    /// Something that must come to be.
    WaitFor(WaitFor),
}

/// What a `wait_for` task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitFor {
    /// A TCP port that accepts connections from here; of the target where no address is named.
    Port {
        /// Never 0.
        port: u16,
        /// Another machine's name or address.
        address: Option<String>,
    },
    /// A path on the target that exists.
    Path(String),
    /// A new connection to the target.
    Connection,
}

impl Action {
    /// Has a copy only look what it would do.
    pub fn only_look(&mut self) {
        match self {
            Self::Upload(upload) => Arc::make_mut(upload).how.check = true,
            Self::Download(download) => Arc::make_mut(download).how.check = true,
            _ => {}
        }
    }
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for a shell, whichever it is.
    Shell(String),
    /// Text that holds values escaped for POSIX shells, so that no other may read it.
    PosixShell(String),
    /// A program and its arguments, each passed on unchanged.
    Argv(Vec<String>),
}

/// What a failed task means for the rest of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The host does nothing more. The default.
    #[default]
    Stop,
    /// The host goes on with its next task.
    Continue,
    /// No host starts anything more.
    StopAll,
}

/// What a task left behind for later tasks of the same host (`register: x`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Standard output, exact, up to [`CAPTURE_LIMIT`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, exact, up to [`CAPTURE_LIMIT`] bytes.
    pub stderr: Vec<u8>,
    /// More was written than was kept.
    pub truncated: bool,
    /// What a listing found or its output was parsed to, up to [`ROWS_LIMIT`] rows.
    pub rows: Option<Vec<serde_json::Value>>,
    /// Lines that did not fit, where that is no failure; printable.
    pub unparsed: Vec<String>,
    /// The sums of a task on files.
    pub tally: Option<crate::transfer::Tally>,
    /// How it ended.
    pub outcome: crate::outcome::Outcome,
    /// How long it took.
    pub duration: Duration,
    /// It changed something.
    pub changed: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// Of a task with a `loop`: the result for each value that had a turn.
    pub results: Vec<Registered>,
}

/// What tasks of a host have left behind for its later ones.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Results by the names of `register`.
    pub results: std::collections::BTreeMap<String, Registered>,
    /// Values by the names of `set`. No name is in both.
    pub set: crate::target::Vars,
    /// What the host says of itself, once it was asked; `host` has it too.
    pub facts: Option<crate::target::Vars>,
    /// Names whose values are not known, since what would give them was only checked.
    pub unknown: std::collections::BTreeSet<String>,
}

impl Memory {
    /// Keeps a result; what had the name before is forgotten.
    pub fn register(&mut self, name: &str, result: Registered) {
        self.set.remove(name);
        self.unknown.remove(name);
        self.results.insert(name.to_owned(), result);
    }

    /// Keeps values; what had their names before is forgotten.
    pub fn set(&mut self, values: crate::target::Vars) {
        for (name, value) in values {
            self.results.remove(&name);
            self.unknown.remove(&name);
            self.set.insert(name, value);
        }
    }
}

/// One value of a `loop`.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The value.
    pub value: serde_json::Value,
    /// Its place, from 0.
    pub at: usize,
    /// How many there are.
    pub all: usize,
}

/// How many rows `register` keeps.
pub const ROWS_LIMIT: usize = 100_000;

/// How many bytes of memory the rows that `register` keeps may take, as far as that can be told.
pub const ROWS_BYTES: usize = 128 << 20;

/// How much of each stream `register` keeps, in bytes.
pub const CAPTURE_LIMIT: usize = 16 << 20;
