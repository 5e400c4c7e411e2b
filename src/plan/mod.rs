//! The plan: playbook x inventory x command line, every name checked, nothing connected.
//!
//! What can be known before the first connection is known here: which hosts, in which order, how
//! each is reached, every script's bytes. Only values that hosts produce (`register`) are filled
//! in later, one [`Job`] at a time.

mod build;
mod control;
mod copies;
mod delegate;
mod reach;
mod secrets;
mod values;

pub use build::{Built, Ground, PlanError, Single, build, listings, single};
pub use control::{Moment, Selection};
pub use copies::{Request, copies};
pub use reach::{Defaults, Reaching};
pub use values::on_rows;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{At, Source};
use crate::event::{ReadFile, RunInfo};
use crate::job::{
    Action, Become, Command, HostId, Input, Job, OnFailure, PlayId, TaskId, TaskRef, WaitFor,
};
use crate::listing::{LastSeen, Listing};
use crate::output::Mask;
use crate::playbook::{
    self, Becoming, Block, Condition, Control, DeclaredSecret, Document, Filling, Line, Name,
    Parse, Rollout, Template,
};
use crate::rows::{Parsing, TableSpec};
use crate::secret::Secret;
use crate::target::{Target, UserName, Vars, Way};
use crate::transfer::How;

/// Everything a run will do.
#[derive(Debug)]
pub struct Plan {
    /// What is told when the run begins.
    pub info: Arc<RunInfo>,
    /// All hosts that take part; a [`HostId`] is a place in here.
    pub targets: Vec<Target>,
    /// The plays, in order.
    pub plays: Vec<Play>,
    /// Variables of the playbook file: under all others.
    file_vars: Vars,
    /// Variables of the command line: over all others.
    extra_vars: Vars,
    /// Where the playbook says that secrets come from.
    secrets: Vec<DeclaredSecret>,
    /// Their values, over all variables; stars until they are known.
    revealed: Vars,
    /// Finds them.
    mask: Arc<Mask>,
}

/// One play.
#[derive(Debug)]
pub struct Play {
    /// Its name, or its hosts where it has none.
    pub name: Arc<str>,
    /// Its hosts, in inventory order.
    pub hosts: Vec<HostId>,
    /// Whether hosts wait for each other after every task.
    pub linear: bool,
    /// How many hosts are worked on at once.
    pub fanout: usize,
    /// Its tasks; handlers stand at the end.
    pub tasks: Vec<Task>,
    /// Its blocks, inner ones before those that they stand in.
    pub blocks: Vec<Block>,
    /// How its hosts are taken in turn.
    pub rollout: Option<Rollout>,
    /// How each host is reached. Hosts that are reached the same way in several plays share one.
    ways: HashMap<HostId, Arc<Way>>,
    vars: Vars,
}

/// One task, with the settings of its play merged in.
#[derive(Debug)]
pub struct Task {
    /// How events name it.
    pub reference: TaskRef,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// What it does.
    pub action: Step,
    /// Whether, how often and where it is done.
    pub control: Control,
    /// The handlers that it notifies: places in its play.
    pub notify: Vec<u16>,
    /// It is only done where something notified it.
    pub handler: bool,
    /// How the host is reached on which it is done instead.
    delegate: Option<delegate::Delegate>,
    becomes: Option<Becoming>,
    /// The text that it was written in.
    source: Option<Arc<Source>>,
    env: Vec<(String, Template)>,
    cwd: Option<Template>,
    shell: Option<Vec<String>>,
    stdin: Option<Template>,
    timeout: Option<Duration>,
    ok_codes: Vec<u32>,
    register: Option<String>,
    /// Our standard input goes in and bytes come out as they are.
    pass_through: bool,
    parse: Option<Parse>,
    table: Option<Arc<TableSpec>>,
    vars: Vars,
}

/// An action whose values are not filled in yet.
#[derive(Debug)]
pub enum Step {
    /// A command on the host.
    Run(Line),
    /// A script, read already.
    Script {
        /// Base name.
        name: String,
        /// Its bytes.
        content: bytes::Bytes,
        /// Its arguments.
        args: Vec<Template>,
    },
    /// A command here.
    Local(Line),
    /// Files.
    List {
        /// What is listed.
        paths: Vec<Template>,
        /// How.
        listing: Arc<Listing>,
        /// What was found newest in runs before.
        last: Arc<LastSeen>,
    },
    /// Files to the host.
    Upload {
        /// Paths here; empty where files are filled in.
        sources: Vec<Template>,
        /// Files that are filled in, with the mode of each.
        documents: Vec<(Document, u32)>,
        /// Where to.
        dest: Template,
        /// What local paths are relative to.
        folder: Arc<Path>,
        /// How.
        how: Arc<How>,
        /// Where the sources are written.
        at: At,
    },
    /// Files from the host.
    Download {
        /// Paths there.
        sources: Vec<Template>,
        /// Where to.
        dest: Template,
        /// What local paths are relative to.
        folder: Arc<Path>,
        /// How.
        how: Arc<How>,
        /// Hosts get no directories of their own.
        flat: bool,
    },
    /// Text.
    Print(Template),
    /// Time.
    Pause(Duration),
    /// A question to the person at the terminal.
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
    WaitFor(playbook::WaitFor),
    /// Without values to fill in: from the command line.
    Plain(Action),
}

impl Plan {
    /// How a host is reached in a play.
    #[must_use]
    pub fn way(&self, host: HostId, play: PlayId) -> Arc<Way> {
        let way = self
            .plays
            .get(usize::from(play.0))
            .and_then(|play| play.ways.get(&host));
        way.map_or_else(|| Arc::new(Way::Local), Arc::clone)
    }

    /// How the host is reached on which a task is done for `host`.
    #[must_use]
    pub fn way_of(&self, host: HostId, task: TaskId) -> Arc<Way> {
        let delegate = self.task(task).delegate.as_ref();
        let way = delegate.and_then(|delegate| delegate.of(host));
        way.map_or_else(|| self.way(host, task.play), Arc::clone)
    }

    /// Whether another task follows in the same play.
    #[must_use]
    pub fn has_next(&self, task: TaskId) -> bool {
        let play = self.plays.get(usize::from(task.play.0));
        play.is_some_and(|play| usize::from(task.index) + 1 < play.tasks.len())
    }

    /// A task of the plan.
    #[must_use]
    pub fn task(&self, task: TaskId) -> &Task {
        &self.plays[usize::from(task.play.0)].tasks[usize::from(task.index)]
    }

    /// Fills the values in.
    ///
    /// # Errors
    /// One line that says which value could not be filled in and why.
    pub fn job(&self, host: HostId, task: TaskId, moment: Moment<'_>) -> Result<Job, String> {
        let play = &self.plays[usize::from(task.play.0)];
        let task = &play.tasks[usize::from(task.index)];
        task.fill(&values::Fill::new(self, play, task, host, moment))
    }

    /// The secrets that tasks use.
    #[must_use]
    pub fn needed_secrets(&self) -> Vec<&DeclaredSecret> {
        let tasks = self.plays.iter().flat_map(|play| &play.tasks);
        let names: BTreeSet<String> = tasks.flat_map(|task| self.names_of(task)).collect();
        let declared = self.secrets.iter();
        declared
            .filter(|secret| names.contains(&secret.name))
            .collect()
    }

    fn names_of(&self, task: &Task) -> Vec<String> {
        let mentioned = task.mentions().into_iter();
        let mentioned = mentioned.flat_map(|(text, _)| text.names());
        let in_files = task.names_in_documents();
        let names = mentioned.chain(&in_files).chain(task.condition_names());
        names.map(|name| name.root().to_owned()).collect()
    }

    /// Takes over which files it was made from.
    pub fn read_from(&mut self, files: Vec<ReadFile>) {
        let info = RunInfo {
            files,
            ..(*self.info).clone()
        };
        self.info = Arc::new(info);
    }

    /// Takes the values of secrets, and what finds them.
    pub fn reveal(&mut self, values: Vec<(String, Secret)>, mask: Arc<Mask>) {
        let value = |(name, secret): (String, Secret)| (name, secret.reveal().into());
        self.revealed = values.into_iter().map(value).collect();
        self.mask = mask;
    }

    /// The state files of listings: whose they are, where they are, and what they hold.
    pub fn states(&self) -> impl Iterator<Item = (TaskId, &Path, &LastSeen)> {
        let tasks = self.plays.iter().flat_map(|play| &play.tasks);
        tasks.filter_map(|task| match &task.action {
            Step::List { listing, last, .. } => {
                Some((task.reference.id, listing.state.as_deref()?, &**last))
            }
            _ => None,
        })
    }

    /// The bounds on bytes a second that tasks name.
    pub fn bandwidths(&self) -> impl Iterator<Item = u64> {
        let tasks = self.plays.iter().flat_map(|play| &play.tasks);
        tasks.filter_map(|task| match &task.action {
            Step::Upload { how, .. } | Step::Download { how, .. } => how.bandwidth,
            Step::Plain(Action::Upload(upload)) => upload.how.bandwidth,
            Step::Plain(Action::Download(download)) => download.how.bandwidth,
            _ => None,
        })
    }

    /// The tasks whose rows are shown as tables.
    #[must_use]
    pub fn tables(&self) -> HashMap<TaskId, Arc<TableSpec>> {
        let tasks = self.plays.iter().flat_map(|play| &play.tasks);
        let table = |task: &Task| Some((task.reference.id, Arc::clone(task.table.as_ref()?)));
        tasks.filter_map(table).collect()
    }

    /// The number of tasks over all plays.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.plays.iter().map(|play| play.tasks.len()).sum()
    }
}

impl Step {
    /// The action as it was written, for people; values are not filled in.
    #[must_use]
    pub fn written(&self) -> String {
        let line = |line: &Line| match line {
            Line::Shell(text) => text.text().trim_end().to_owned(),
            Line::Argv(words) => words
                .iter()
                .map(Template::text)
                .collect::<Vec<_>>()
                .join(" "),
        };
        match self {
            Self::Run(text) => format!("$ {}", line(text)),
            Self::Local(text) => format!("here$ {}", line(text)),
            Self::Script { name, args, .. } => {
                let args: Vec<&str> = args.iter().map(Template::text).collect();
                format!("script {name} {}", args.join(" "))
            }
            Self::List { paths, .. } => {
                let paths: Vec<&str> = paths.iter().map(Template::text).collect();
                format!("ls {}", paths.join(" "))
            }
            Self::Upload {
                sources,
                documents,
                dest,
                ..
            } => {
                let files = documents.iter().map(|(document, _)| document.name());
                let paths = sources.iter().map(Template::text).chain(files);
                let paths: Vec<&str> = paths.collect();
                format!("upload {} -> {}", paths.join(" "), dest.text())
            }
            Self::Download { sources, dest, .. } => {
                let paths: Vec<&str> = sources.iter().map(Template::text).collect();
                format!("download {} -> {}", paths.join(" "), dest.text())
            }
            Self::Print(text) => format!("print {}", text.text()),
            Self::Pause(time) => format!("pause {}", crate::text::duration(*time)),
            Self::Ask(question) => format!("ask {}", question.text()),
            Self::Assert { that, .. } => {
                let that: Vec<&str> = that.iter().map(Condition::text).collect();
                format!("assert {}", that.join(" and "))
            }
            Self::Set(values) => {
                let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
                format!("set {}", names.join(", "))
            }
            Self::WaitFor(what) => control::wait_text(what),
            Self::Plain(action) => format!("{action:?}"),
        }
    }
}

impl Step {
    /// The action for one host, with the values of now.
    fn fill(&self, fill: &values::Fill<'_>) -> Result<Action, String> {
        Ok(match self {
            Step::Run(line) => Action::Run(command(line, fill)?),
            Step::Local(line) => Action::Local(command(line, fill)?),
            Step::Script {
                name,
                content,
                args,
            } => Action::Script {
                name: name.clone(),
                content: content.clone(),
                args: args
                    .iter()
                    .map(|arg| fill.text(arg))
                    .collect::<Result<_, _>>()?,
            },
            Step::List {
                paths,
                listing,
                last,
            } => {
                let paths = paths.iter().map(|path| fill.text(path).map(Into::into));
                let mut listing = Listing {
                    paths: paths.collect::<Result<_, String>>()?,
                    ..(**listing).clone()
                };
                listing.wanted.last = last.hosts.get(fill.host()).cloned();
                Action::List(Arc::new(listing))
            }
            Step::Upload { .. } | Step::Download { .. } => copies::fill(self, fill)?,
            Step::Print(text) => Action::Print(fill.text(text)?),
            Step::Pause(time) => Action::Pause(*time),
            Step::Ask(question) => Action::Ask(fill.text(question)?),
            Step::Assert { that, message } => {
                Action::Assert(control::unheld(that, message.as_ref(), fill)?)
            }
            Step::Set(values) => {
                let value =
                    |(name, value): &(String, Filling)| Ok((name.clone(), fill.value(value)?));
                Action::Set(values.iter().map(value).collect::<Result<_, String>>()?)
            }
            Step::WaitFor(what) => Action::WaitFor(match what {
                playbook::WaitFor::Port { port, address } => WaitFor::Port {
                    port: *port,
                    address: address.as_ref().map(|text| fill.text(text)).transpose()?,
                },
                playbook::WaitFor::Path(path) => WaitFor::Path(fill.text(path)?),
                playbook::WaitFor::Connection => WaitFor::Connection,
            }),
            Step::Plain(action) => action.clone(),
        })
    }
}

impl Task {
    fn fill(&self, fill: &values::Fill<'_>) -> Result<Job, String> {
        let action = self.action.fill(fill)?;
        let env = self
            .env
            .iter()
            .map(|(name, value)| Ok((name.clone(), fill.text(value)?)));
        let mut env = env.collect::<Result<Vec<_>, String>>()?;
        if self.parse.is_some() && env.iter().all(|(name, _)| name != "LC_ALL") {
            env.push(("LC_ALL".to_owned(), "C".to_owned()));
        }
        let stdin = self
            .stdin
            .as_ref()
            .map(|text| fill.text(text))
            .transpose()?;
        let hidden = self.holds_secret(&action, &env, fill)?;
        Ok(Job {
            task: self.reference.clone(),
            action,
            env,
            hidden,
            becomes: self.becomes(fill)?,
            cwd: self.cwd.as_ref().map(|text| fill.text(text)).transpose()?,
            shell: self.shell.clone(),
            stdin: match stdin {
                Some(text) => Input::Bytes(text.into()),
                None if self.pass_through => Input::Ours,
                None => Input::Nothing,
            },
            pass_through: self.pass_through,
            timeout: self.timeout,
            ok_codes: self.ok_codes.clone(),
            on_failure: self.on_failure,
            register: self.register.clone(),
            keep: self.is_looked_at(),
            creates: self
                .control
                .creates
                .as_ref()
                .map(|path| fill.text(path))
                .transpose()?,
            parse: self.parsing(fill),
        })
    }

    /// Whether a command would show a secret to whoever lists processes: shell text and variables
    /// can be sent another way.
    ///
    /// # Errors
    /// Words of a command cannot.
    fn holds_secret(
        &self,
        action: &Action,
        env: &[(String, String)],
        fill: &values::Fill<'_>,
    ) -> Result<bool, String> {
        let mask = fill.mask();
        if mask.is_empty() {
            return Ok(false);
        }
        let refused = || {
            "a secret would stand on a command line, where every user of the machine can read it; \
             pass it through `env` or `stdin`"
                .to_owned()
        };
        let text = match action {
            Action::Run(Command::Argv(words)) | Action::Local(Command::Argv(words)) => {
                let shown = words.iter().any(|word| mask.finds(word));
                return if shown { Err(refused()) } else { Ok(false) };
            }
            Action::Script { args, .. } if args.iter().any(|word| mask.finds(word)) => {
                return Err(refused());
            }
            Action::Run(Command::Shell(text) | Command::PosixShell(text))
            | Action::Local(Command::Shell(text) | Command::PosixShell(text)) => Some(text),
            _ => None,
        };
        let mut texts = text.into_iter().chain(env.iter().map(|(_, value)| value));
        Ok(texts.any(|text| mask.finds(text)))
    }

    fn becomes(&self, fill: &values::Fill<'_>) -> Result<Option<Become>, String> {
        let Some(Becoming::Account {
            method,
            user,
            password,
            ..
        }) = &self.becomes
        else {
            return Ok(None);
        };
        let name = match user {
            Some(user) => fill.text(user)?,
            None => "root".to_owned(),
        };
        let user = UserName::new(&name).map_err(|bad| {
            let name = crate::text::printable(name.as_bytes());
            format!("the account `{name}` of `become` {bad}")
        })?;
        let password = password.as_ref().map(|text| fill.text(text)).transpose()?;
        let broken = password
            .as_ref()
            .is_some_and(|text| text.contains(['\n', '\r']));
        if broken {
            return Err("the password of `become` has more than one line".to_owned());
        }
        Ok(Some(Become {
            method: *method,
            user,
            password: password.map(Secret::new),
        }))
    }

    /// The variables of files that are filled in, as if they stood where the file is named.
    fn names_in_documents(&self) -> Vec<Name> {
        let Step::Upload { documents, at, .. } = &self.action else {
            return Vec::new();
        };
        let needed = documents.iter().flat_map(|(document, _)| document.needed());
        needed
            .map(|name| Name {
                path: name.to_owned(),
                span: at.span.clone(),
                optional: false,
            })
            .collect()
    }

    fn parsing(&self, fill: &values::Fill<'_>) -> Option<Arc<Parsing>> {
        let parse = self.parse.as_ref()?;
        Some(Arc::new(Parsing {
            spec: parse.spec.clone(),
            stop_when: parse.stop_when.as_ref().map(|when| fill.on_rows(when)),
            table: self.table.clone(),
        }))
    }

    /// Names that conditions of the task use, but for those that are theirs.
    fn condition_names(&self) -> impl Iterator<Item = &Name> {
        let conditions = self
            .parse
            .iter()
            .filter_map(|parse| parse.stop_when.as_ref());
        let names = conditions.flat_map(crate::playbook::RowCondition::names);
        names.filter(|name| name.root() != values::ROW)
    }

    /// Every text of the task that may hold values, but for those of [`Control`].
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let action: Vec<&Template> = match &self.action {
            Step::Run(line) | Step::Local(line) => match line {
                Line::Shell(text) => vec![text],
                Line::Argv(words) => words.iter().collect(),
            },
            Step::Script { args, .. } => args.iter().collect(),
            Step::List { paths, .. } => paths.iter().collect(),
            Step::Upload { sources, dest, .. } | Step::Download { sources, dest, .. } => {
                sources.iter().chain([dest]).collect()
            }
            Step::Print(text) | Step::Ask(text) => vec![text],
            Step::Assert { that, message } => that
                .iter()
                .map(Condition::template)
                .chain(message)
                .collect(),
            Step::Set(values) => values.iter().flat_map(|(_, v)| v.templates()).collect(),
            Step::WaitFor(playbook::WaitFor::Port { address, .. }) => address.iter().collect(),
            Step::WaitFor(playbook::WaitFor::Path(path)) => vec![path],
            Step::WaitFor(playbook::WaitFor::Connection) => Vec::new(),
            Step::Pause(_) | Step::Plain(_) => Vec::new(),
        };
        let becomes = self.becomes.iter().flat_map(|becomes| match becomes {
            Becoming::Account { user, password, .. } => user.iter().chain(password),
            Becoming::Nobody => None.iter().chain(&None),
        });
        let env = self.env.iter().map(|(_, value)| value);
        action
            .into_iter()
            .chain(env)
            .chain(&self.cwd)
            .chain(&self.stdin)
            .chain(becomes)
    }
}

fn command(line: &Line, fill: &values::Fill<'_>) -> Result<Command, String> {
    Ok(match line {
        Line::Shell(text) => {
            let filled = fill.shell(text)?;
            // Where shells differ: without these, escaped values mean the same to all of them.
            let differs = filled.contains(['\\', '!', '\'', '\n']);
            if text.literal().is_none() && differs {
                Command::PosixShell(filled)
            } else {
                Command::Shell(filled)
            }
        }
        Line::Argv(words) => Command::Argv(
            words
                .iter()
                .map(|word| fill.text(word))
                .collect::<Result<_, _>>()?,
        ),
    })
}
