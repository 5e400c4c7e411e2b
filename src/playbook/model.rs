//! A playbook that has been checked: every key known, every value of the right kind.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::expression::{Condition, Filling};
use super::template::{RowCondition, Template};
use crate::diagnostic::{At, Diagnostic, Source};
use crate::job::{Method, OnFailure};
use crate::listing::Listing;
use crate::rows::{ParseSpec, TableSpec};
use crate::target::Vars;
use crate::transfer::How;

/// What [`super::load`] returns.
#[derive(Debug)]
pub struct Loaded {
    /// The playbook; without the parts that are wrong, where there are mistakes.
    pub playbook: Option<Playbook>,
    /// Every mistake that can be found without hosts, in the order of the text.
    pub mistakes: Vec<Diagnostic>,
}

impl Loaded {
    /// The playbook, if there is nothing wrong with it.
    ///
    /// # Errors
    /// The mistakes, never none.
    pub fn sound(self) -> Result<Playbook, Vec<Diagnostic>> {
        match self.playbook {
            Some(playbook) if self.mistakes.is_empty() => Ok(playbook),
            Some(_) | None => Err(self.mistakes),
        }
    }
}

/// A whole file.
#[derive(Debug)]
pub struct Playbook {
    /// `name` of the file.
    pub name: Option<String>,
    /// Inventories named by the file, as written: paths are relative to its folder.
    pub inventory: Vec<Located<String>>,
    /// Variables of all plays. Values are plain: they are not templates.
    pub vars: Vars,
    /// What may be used like a variable and must not be seen; names are unique.
    pub secrets: Vec<DeclaredSecret>,
    /// At least one. A file that is one play has its `vars` above, not here.
    pub plays: Vec<Play>,
    /// Names that parts with mistakes may have defined: whoever uses them does nothing wrong.
    pub doubtful: BTreeSet<String>,
    /// Where `{{ name }}` stands as other tools write it, which is plain text here: the name.
    pub bare_braces: Vec<Located<String>>,
    /// The text.
    pub source: Arc<Source>,
}

/// Tasks for a set of hosts.
#[derive(Debug)]
pub struct Play {
    /// Its name.
    pub name: Option<String>,
    /// Whom it is for.
    pub hosts: Hosts,
    /// Whether hosts wait for each other.
    pub strategy: Strategy,
    /// How many hosts at once, if the play says so; at least 1.
    pub fanout: Option<usize>,
    /// Variables of this play; they win over the file's.
    pub vars: Vars,
    /// Its own settings merged over the file's `defaults`.
    pub settings: Settings,
    /// At least one, at most 65,535; those of blocks stand in the order body, rescue, always.
    pub tasks: Vec<Task>,
    /// Its blocks, inner ones before those that they stand in.
    pub blocks: Vec<Block>,
    /// Tasks that are done at its end where something notified them; names are unique.
    pub handlers: Vec<Task>,
    /// How its hosts are taken in turn.
    pub rollout: Option<Rollout>,
    /// Where it begins.
    pub at: At,
}

/// A value that must not be seen.
#[derive(Debug, Clone)]
pub struct DeclaredSecret {
    /// How templates call it.
    pub name: String,
    /// Where it comes from.
    pub from: SecretFrom,
    /// Where it is declared.
    pub at: At,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// An environment variable of fanrun.
    Env(String),
    /// A file's text without its last line end; a path relative to the playbook's folder.
    File(String),
    /// What a shell command writes here, without its last line end.
    Command(String),
    /// The answer to a question at the terminal.
    Prompt(String),
}

/// The account that commands run as on the host.
#[derive(Debug, Clone)]
pub enum Becoming {
    /// The one that is logged in, whatever the play says.
    Nobody,
    /// Another one.
    Account {
        /// By which program.
        method: Method,
        /// The account; root where none is named.
        user: Option<Template>,
        /// What the program asks for.
        password: Option<Template>,
        /// Where.
        at: At,
    },
}

/// Whom a play is for.
#[derive(Debug)]
pub enum Hosts {
    /// Patterns, at least one, to be matched against an inventory.
    Patterns(Vec<Located<String>>),
    /// Hosts written in the play itself.
    Inline {
        /// Names or ranges, each with a mapping of settings or null.
        entries: Vars,
        /// Where.
        at: At,
    },
}

/// Whether the hosts of a play wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Every host goes on as soon as it can.
    #[default]
    Free,
    /// All hosts finish a task before any begins the next.
    Linear,
}

/// Settings of a play, for its connections and as defaults of its tasks.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Remote account.
    pub user: Option<Located<String>>,
    /// TCP port, never 0.
    pub port: Option<u16>,
    /// Private key files, as written.
    pub identity: Vec<String>,
    /// The account that commands run as.
    pub becomes: Option<Becoming>,
    /// Variables exported to every command; names are unique.
    pub env: Vec<(String, Template)>,
    /// Working directory of every command.
    pub cwd: Option<Template>,
    /// The words before shell text, such as `["bash", "-c"]`.
    pub shell: Option<Vec<String>>,
    /// How long every command may take.
    pub timeout: Option<Duration>,
    /// How long it may take until a host is logged in to.
    pub connect_timeout: Option<Duration>,
    /// What a failure means.
    pub on_failure: Option<OnFailure>,
}

/// Tasks that stand in for each other: places in the play's list, each part beginning where the one
/// before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What is tried.
    pub body: Range<usize>,
    /// What is done when that failed; may be empty.
    pub rescue: Range<usize>,
    /// What is done in any case; may be empty.
    pub always: Range<usize>,
}

/// Whether, how often and where a task is done.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// All must hold; those of the blocks around it come first.
    pub when: Vec<Condition>,
    /// It is done for each of these.
    pub each: Option<Filling>,
    /// It is tried again where it failed.
    pub retry: Option<Retry>,
    /// Its child is started again where it fails.
    pub restart: Option<Restart>,
    /// It is not done where this path exists.
    pub creates: Option<Template>,
    /// Whether it changed something; a success did unless this says otherwise.
    pub changed_when: Option<Condition>,
    /// Handlers that are done at the end where it changed something.
    pub notify: Vec<Located<String>>,
    /// Its own, and those of the blocks around it.
    pub tags: Vec<String>,
    /// One host does it for all.
    pub once: bool,
    /// How many hosts do it at a time; at least 1.
    pub fanout: Option<usize>,
    /// The hosts do it in batches.
    pub rollout: Option<Rollout>,
    /// The host on which it is done instead, on behalf of each.
    pub delegate_to: Option<Located<Template>>,
}

/// When a task is tried again. Only one that is known to have ended is: one that was lost may be
/// at work still.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Further attempts after the first; at least 1.
    pub times: u32,
    /// The wait before the second attempt.
    pub delay: Duration,
    /// By how much each further wait is longer; at least 1.
    pub backoff: f64,
    /// The longest wait.
    pub max_delay: Duration,
    /// It is tried again until this holds, also where it succeeded.
    pub until: Option<Condition>,
}

/// When a child of this machine that failed is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// How many failures are borne; at least 1.
    pub times: u32,
    /// Failures longer ago than this do not count; never 0.
    pub within: Duration,
}

/// Hosts in turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// How many hosts each batch has; the last holds for all that follow. Empty: all at once.
    pub batches: Vec<Share>,
    /// How many hosts may fail; one more ends the run.
    pub max_failures: Option<Share>,
    /// The wait between two batches.
    pub pause: Duration,
}

/// A number of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(usize),
    /// So many of a hundred: 0 to 100.
    Percent(u8),
}

impl Share {
    /// How many of `all` hosts a batch of this size has: part of a host is a host, and there is
    /// always one.
    #[must_use]
    pub fn batch(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count.max(1),
            Self::Percent(percent) => (all * usize::from(percent)).div_ceil(100).max(1),
        }
    }

    /// How many of `all` hosts may fail: part of a host may not.
    #[must_use]
    pub fn at_most(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => all * usize::from(percent) / 100,
        }
    }
}

/// One task as written; what it leaves open comes from the play's [`Settings`].
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: Option<Template>,
    /// What it does.
    pub action: Action,
    /// The account that it runs as, where it says so itself.
    pub becomes: Option<Becoming>,
    /// Variables exported to the command, added to the play's and winning over them.
    pub env: Vec<(String, Template)>,
    /// Working directory.
    pub cwd: Option<Template>,
    /// The words before shell text.
    pub shell: Option<Vec<String>>,
    /// What the command reads.
    pub stdin: Option<Template>,
    /// How long the command may take; never zero.
    pub timeout: Option<Duration>,
    /// Exit codes that count as success, sorted, exactly as written: 0 only if it is listed.
    pub ok_codes: Option<Vec<u32>>,
    /// What a failure means.
    pub on_failure: Option<OnFailure>,
    /// Under which name the result is kept.
    pub register: Option<String>,
    /// How the output becomes rows.
    pub parse: Option<Parse>,
    /// How the rows are shown.
    pub table: Option<TableSpec>,
    /// Variables of this task; they win over the play's.
    pub vars: Vars,
    /// Whether, how often and where it is done.
    pub control: Control,
    /// Where it begins.
    pub at: At,
}

/// How output becomes rows, as written.
#[derive(Debug, Clone)]
pub struct Parse {
    /// How it is read.
    pub spec: ParseSpec,
    /// After the first row for which it holds, the command is ended. The row is its `row`.
    pub stop_when: Option<RowCondition>,
}

/// What a task does.
#[derive(Debug, Clone)]
pub enum Action {
    /// A command on the host.
    Run(Line),
    /// A local file, run on the host.
    Script {
        /// Relative to the folder of the file that it stands in.
        path: Located<String>,
        /// Its arguments.
        args: Vec<Template>,
    },
    /// A command here, on behalf of the host.
    Local(Line),
    /// A listing of files on the host.
    List {
        /// What is listed, at least one.
        paths: Vec<Template>,
        /// How; its own paths are empty.
        listing: Listing,
    },
    /// Files to the host.
    Upload(Copy),
    /// Files from the host.
    Download(Copy),
    /// Text for the person who runs the playbook.
    Print(Template),
    /// Wait.
    Pause(Duration),
    /// A question to the person at the terminal; the run goes on after a yes.
    Ask(Template),
    /// Conditions that must hold.
    Assert {
        /// At least one.
        that: Vec<Condition>,
        /// What is said where one does not.
        message: Option<Template>,
    },
    /// Values for later tasks.
    Set(Vec<(String, Filling)>),
    /// Something that must come to be.
    WaitFor(WaitFor),
}

/// What a `wait_for` task waits for.
#[derive(Debug, Clone)]
pub enum WaitFor {
    /// A TCP port that accepts connections from here; of the host where no address is named.
    Port {
        /// Never 0.
        port: u16,
        /// Another machine's name or address.
        address: Option<Template>,
    },
    /// A path on the host that exists.
    Path(Template),
    /// A new connection to the host.
    Connection,
}

/// Files that are copied, either way.
#[derive(Debug, Clone)]
pub struct Copy {
    /// What is copied, at least one. Local paths are relative to the playbook's folder.
    pub sources: Vec<Template>,
    /// Where to.
    pub dest: Template,
    /// How.
    pub how: How,
    /// The sources are filled in for each host.
    pub template: bool,
    /// Hosts get no directories of their own here.
    pub flat: bool,
    /// Where the sources are written.
    pub at: At,
}

/// A command line as written.
#[derive(Debug, Clone)]
pub enum Line {
    /// Shell text: render it with [`Template::render_shell`].
    Shell(Template),
    /// A program and its arguments, at least one: render each with [`Template::render`].
    Argv(Vec<Template>),
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub at: At,
}
