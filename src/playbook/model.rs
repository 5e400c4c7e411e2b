//! A playbook that has been checked: every key known, every value of the right kind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::template::{Condition, Template};
use crate::diagnostic::{At, Diagnostic, Source};
use crate::job::OnFailure;
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
    /// At least one, at most 65,535.
    pub tasks: Vec<Task>,
    /// Where it begins.
    pub at: At,
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

/// One task as written; what it leaves open comes from the play's [`Settings`].
#[derive(Debug)]
pub struct Task {
    /// Its name.
    pub name: Option<Template>,
    /// What it does.
    pub action: Action,
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
    /// Where it begins.
    pub at: At,
}

/// How output becomes rows, as written.
#[derive(Debug)]
pub struct Parse {
    /// How it is read.
    pub spec: ParseSpec,
    /// After the first row for which it holds, the command is ended. The row is its `row`.
    pub stop_when: Option<Condition>,
}

/// What a task does.
#[derive(Debug)]
pub enum Action {
    /// A command on the host.
    Run(Line),
    /// A local file, run on the host.
    Script {
        /// Relative to the playbook's folder.
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
}

/// Files that are copied, either way.
#[derive(Debug)]
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
#[derive(Debug)]
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
