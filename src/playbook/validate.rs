//! The tree -> the model. A mistake is noted and the rest is checked all the same.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::control::Around;
use super::keys;
use super::model::{
    Action, Block, Control, DeclaredSecret, Hosts, Line, Located, Play, Playbook, Settings,
    Strategy, Task,
};
use super::shell::is_posix;
use super::template::Template;
use super::tree::{Entry, Kind, MAX_FOUND, Node, parse};
use crate::diagnostic::{At, Diagnostic, Source};
use crate::target::{Vars, is_identifier};
use crate::text::did_you_mean;

/// Files that are included, over all and inside of each other.
const MAX_INCLUDED: usize = 1000;
const MAX_INCLUDED_DEPTH: usize = 16;

/// Tasks of a play, and plays of a file: their places are counted in 16 bits.
const MAX_LISTED: usize = u16::MAX as usize;

/// Collects what is wrong while the tree is read.
pub(super) struct Check<'a> {
    source: &'a Arc<Source>,
    found: Vec<Diagnostic>,
    doubtful: BTreeSet<String>,
    bare_braces: Vec<Located<String>>,
    /// What playbooks that are included declare.
    included: Included,
    /// Names of tables that tasks share.
    pub(super) tables: BTreeSet<String>,
    library: &'a Library<'a>,
    /// The files that include each other down to this one.
    chain: Vec<PathBuf>,
}

/// Other files of tasks.
pub(super) struct Library<'a> {
    read: &'a Reader<'a>,
    count: Cell<usize>,
}

/// Gives the text of a file, or why there is none: a fragment that follows the file's name.
pub type Reader<'r> = dyn Fn(&Path) -> Result<String, String> + 'r;

impl<'a> Library<'a> {
    pub fn new(read: &'a Reader<'a>) -> Self {
        let count = Cell::new(0);
        Self { read, count }
    }
}

/// What a playbook that is included declares for all.
#[derive(Default)]
struct Included {
    inventory: Vec<Located<String>>,
    secrets: Vec<DeclaredSecret>,
}

/// Where a mapping stands, and so which keys it may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    File,
    WholeFile,
    Play,
    Defaults,
    Task,
    Block,
    Include,
    IncludedPlays,
    List,
    Upload,
    Download,
    /// What stands behind a key: the key in backquotes, and its own keys.
    Options(&'static str, &'static [&'static str]),
    Retry,
    Rollout,
    WaitFor,
    Pause,
}

/// Tasks in the order in which they stand, and what holds them together.
#[derive(Default)]
struct Listed {
    tasks: Vec<Task>,
    blocks: Vec<Block>,
}

impl Level {
    fn noun(self) -> &'static str {
        match self {
            Self::File | Self::WholeFile => "a playbook",
            Self::Play => "a play",
            Self::Defaults => "`defaults`",
            Self::Task => "a task",
            Self::Block => "a block",
            Self::Include | Self::IncludedPlays => "an `include`",
            Self::List => "`ls`",
            Self::Upload => "`upload`",
            Self::Download => "`download`",
            Self::Options(noun, _) => noun,
            Self::Retry => "`retry`",
            Self::Rollout => "`rollout`",
            Self::WaitFor => "`wait_for`",
            Self::Pause => "`pause`",
        }
    }

    fn allowed(self) -> Vec<&'static str> {
        match self {
            Self::File => keys::FILE.to_vec(),
            Self::WholeFile => [
                keys::FILE,
                &keys::PLAY[1..4],
                &keys::PLAY[5..7],
                keys::SETTINGS,
            ]
            .concat(),
            Self::Play => [keys::PLAY, keys::SETTINGS].concat(),
            Self::Defaults => keys::SETTINGS.to_vec(),
            Self::Task => [keys::ACTIONS, keys::TASK].concat(),
            Self::Block => keys::BLOCK.to_vec(),
            Self::Include => keys::INCLUDE.to_vec(),
            Self::IncludedPlays => keys::INCLUDED_PLAYS.to_vec(),
            Self::List => keys::LS.to_vec(),
            Self::Upload => keys::UPLOAD.to_vec(),
            Self::Download => keys::DOWNLOAD.to_vec(),
            Self::Options(_, keys) => keys.to_vec(),
            Self::Retry => keys::RETRY.to_vec(),
            Self::Rollout => keys::ROLLOUT.to_vec(),
            Self::WaitFor => keys::WAIT_FOR.to_vec(),
            Self::Pause => keys::PAUSE.to_vec(),
        }
    }

    fn later(self) -> Vec<&'static str> {
        match self {
            Self::File => keys::LATER_FILE.to_vec(),
            Self::WholeFile => [keys::LATER_FILE, keys::LATER_SETTINGS].concat(),
            Self::Play | Self::Defaults => keys::LATER_SETTINGS.to_vec(),
            Self::Task => [keys::LATER_ACTIONS, keys::LATER_TASK].concat(),
            Self::Block
            | Self::Include
            | Self::IncludedPlays
            | Self::List
            | Self::Upload
            | Self::Download
            | Self::Options(..)
            | Self::Retry
            | Self::Rollout
            | Self::WaitFor
            | Self::Pause => Vec::new(),
        }
    }
}

impl<'a> Check<'a> {
    pub fn new(source: &'a Arc<Source>, library: &'a Library<'a>) -> Self {
        Self {
            source,
            library,
            chain: vec![source.path.clone()],
            found: Vec::new(),
            doubtful: BTreeSet::new(),
            bare_braces: Vec::new(),
            included: Included::default(),
            tables: BTreeSet::new(),
        }
    }

    /// What is wrong.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.found
    }

    pub(super) fn source_text(&self) -> Arc<str> {
        Arc::clone(&self.source.text)
    }

    pub(super) fn at(&self, span: &Range<usize>) -> At {
        At {
            source: Arc::clone(self.source),
            span: self.first_line(span),
            label: String::new(),
        }
    }

    /// Underlines stay on one line.
    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let text = self.source.text.get(span.clone()).unwrap_or("");
        let line = text.lines().next().unwrap_or("").trim_end();
        span.start..span.start + line.len()
    }

    pub(super) fn error(&mut self, message: String, node: &Node, label: &str, help: Option<&str>) {
        self.error_at(message, node.span.clone(), label, help);
    }

    pub(super) fn error_at(
        &mut self,
        message: String,
        span: Range<usize>,
        label: &str,
        help: Option<&str>,
    ) {
        if self.found.len() >= MAX_FOUND {
            return;
        }
        let span = self.first_line(&span);
        let d = Diagnostic::error(message).at(self.source, span, label);
        self.found.push(match help {
            Some(help) => d.help(help),
            None => d,
        });
    }

    /// Names that may be defined by something that was not understood.
    pub(super) fn doubt(&mut self, names: impl IntoIterator<Item = String>) {
        let names = names.into_iter().filter(|name| is_identifier(name));
        self.doubtful.extend(names);
    }

    /// Doubts every name that stands in a value that is not looked into.
    pub fn doubt_names_in(&mut self, node: &Node) {
        match &node.kind {
            Kind::Scalar { text, .. } => self.doubt([text.clone()]),
            Kind::List(items) => items.iter().for_each(|item| self.doubt_names_in(item)),
            Kind::Map(entries) => {
                for Entry { key, value, .. } in entries {
                    self.doubt([key.clone()]);
                    self.doubt_names_in(value);
                }
            }
        }
    }

    /// Keeps the places where `{{ name }}` stands without its `$`, up to a bound.
    pub(super) fn note_braces(&mut self, found: impl Iterator<Item = (String, Range<usize>)>) {
        for (value, span) in found.take(MAX_FOUND - self.bare_braces.len()) {
            let at = self.at(&span);
            self.bare_braces.push(Located { value, at });
        }
    }

    /// The whole document.
    pub fn file(&mut self, root: &Node) -> Option<Playbook> {
        let Kind::Map(entries) = &root.kind else {
            let help = match root.kind {
                Kind::List(_) => "put the list under `plays:`",
                Kind::Scalar { .. } | Kind::Map(_) => "the smallest one has `hosts:` and `tasks:`",
            };
            self.error(
                format!("a playbook is a mapping, not {}", root.noun()),
                root,
                "",
                Some(help),
            );
            return None;
        };
        let many = get(entries, "plays");
        self.check_keys(
            entries,
            if many.is_some() {
                Level::File
            } else {
                Level::WholeFile
            },
        );
        let defaults =
            get(entries, "defaults").map_or_else(Settings::default, |node| self.defaults(node));
        let name = self.title(entries);
        let mut inventory =
            get(entries, "inventory").map_or_else(Vec::new, |node| self.plains("inventory", node));
        let vars = get(entries, "vars").map_or_else(Vars::new, |node| self.vars(node));
        let mut secrets = get(entries, "secrets").map_or_else(Vec::new, |node| self.secrets(node));
        self.check_secret_names(&secrets, entries);
        let plays = match many {
            Some(node) => {
                let handlers = self.handlers(entries, &defaults);
                self.plays(node, &defaults, &handlers)?
            }
            None => {
                let mut play = self.play_entries(entries, root, &defaults, &[])?;
                // They are the file's, where they already stand.
                play.vars = Vars::new();
                vec![play]
            }
        };
        let included = std::mem::take(&mut self.included);
        inventory.extend(included.inventory);
        self.join_secrets(&mut secrets, included.secrets);
        Some(Playbook {
            name,
            inventory,
            vars,
            secrets,
            plays,
            doubtful: std::mem::take(&mut self.doubtful),
            bare_braces: std::mem::take(&mut self.bare_braces),
            source: Arc::clone(self.source),
        })
    }

    fn title(&mut self, entries: &[Entry]) -> Option<String> {
        let node = get(entries, "name")?;
        self.plain("name", node).map(|name| name.value)
    }

    fn plays(&mut self, node: &Node, defaults: &Settings, handlers: &[Task]) -> Option<Vec<Play>> {
        let items = self.list("plays", node)?;
        if items.is_empty() || items.len() > MAX_LISTED {
            let message = if items.is_empty() {
                "`plays` is empty".into()
            } else {
                format!("more than {MAX_LISTED} plays")
            };
            self.error(message, node, "", None);
            return None;
        }
        let mut plays = Vec::new();
        for item in items {
            let Kind::Map(entries) = &item.kind else {
                let message = format!("a play is a mapping, not {}", item.noun());
                self.error(message, item, "", None);
                self.doubt_names_in(item);
                continue;
            };
            if get(entries, "include").is_some() {
                self.include_plays(entries, &mut plays);
                continue;
            }
            self.check_keys(entries, Level::Play);
            plays.extend(self.play_entries(entries, item, defaults, handlers));
        }
        Some(plays)
    }

    fn play_entries(
        &mut self,
        entries: &[Entry],
        node: &Node,
        defaults: &Settings,
        of_file: &[Task],
    ) -> Option<Play> {
        let settings = merged(defaults, self.settings(entries));
        let name = self.title(entries);
        let hosts = self.hosts(entries, node);
        let strategy = get(entries, "strategy")
            .and_then(|node| {
                self.one_of(
                    "strategy",
                    node,
                    &[("free", Strategy::Free), ("linear", Strategy::Linear)],
                )
            })
            .unwrap_or_default();
        let fanout = get(entries, "fanout").and_then(|node| self.fanout(node));
        let rollout = get(entries, "rollout").and_then(|node| self.rollout(node));
        let vars = get(entries, "vars").map_or_else(Vars::new, |node| self.vars(node));
        let listed = self.tasks(entries, node, &settings).unwrap_or_default();
        let mut handlers = self.handlers(entries, &settings);
        // The play's own stand in for those of the file.
        let own: Vec<String> = handlers.iter().filter_map(plain_name).collect();
        let inherited = of_file
            .iter()
            .filter(|task| plain_name(task).is_some_and(|name| !own.contains(&name)));
        handlers.splice(0..0, inherited.cloned());
        self.check_notified(&listed.tasks, &handlers);
        let at = self.at(&node.span);
        Some(Play {
            name,
            // Without hosts that can be understood it is a play for nobody.
            hosts: hosts.unwrap_or_else(|| Hosts::Patterns(Vec::new())),
            strategy,
            fanout,
            vars,
            settings,
            tasks: listed.tasks,
            blocks: listed.blocks,
            handlers,
            rollout,
            at,
        })
    }

    fn hosts(&mut self, entries: &[Entry], play: &Node) -> Option<Hosts> {
        let Some(node) = get(entries, "hosts") else {
            if !entries.is_empty() {
                self.error("the play has no `hosts`".into(), play, "", Some("name them: `hosts: web[1-3].example.com`, `hosts: all`, `hosts: localhost`"));
            }
            return None;
        };
        let Kind::Map(hosts) = &node.kind else {
            let patterns = self.plains("hosts", node);
            return (!patterns.is_empty()).then_some(Hosts::Patterns(patterns));
        };
        if hosts.is_empty() {
            self.error("`hosts` is an empty mapping".into(), node, "", None);
            return None;
        }
        let mut all = Vars::new();
        for entry in hosts {
            if !matches!(entry.value.kind, Kind::Map(_)) && !entry.value.is_null() {
                let message = format!(
                    "host `{}` must have a mapping of settings or nothing, not {}",
                    entry.key,
                    entry.value.noun()
                );
                self.error(
                    message,
                    &entry.value,
                    "",
                    Some("write it like `web1: {user: deploy, port: 2222}`"),
                );
            }
            all.insert(entry.key.clone(), self.json(&entry.value));
        }
        Some(Hosts::Inline {
            entries: all,
            at: self.at(&node.span),
        })
    }

    fn defaults(&mut self, node: &Node) -> Settings {
        let Some(entries) = self.entries("defaults", node) else {
            return Settings::default();
        };
        self.check_keys(entries, Level::Defaults);
        self.settings(entries)
    }

    fn settings(&mut self, entries: &[Entry]) -> Settings {
        let mut settings = Settings::default();
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "user" => settings.user = self.plain(key, value),
                "port" => {
                    settings.port = self
                        .whole(key, value, 1..65_536)
                        .and_then(|n| u16::try_from(n).ok())
                }
                "identity" => {
                    settings.identity = self
                        .plains(key, value)
                        .into_iter()
                        .map(|i| i.value)
                        .collect()
                }
                "become" => settings.becomes = self.becomes(value),
                "env" => settings.env = self.env(value),
                "cwd" => settings.cwd = self.template(key, value),
                "shell" => settings.shell = self.shell(value),
                "timeout" => settings.timeout = self.duration(key, value, false),
                "connect_timeout" => settings.connect_timeout = self.duration(key, value, false),
                "on_failure" => settings.on_failure = self.on_failure(value),
                _ => {}
            }
        }
        settings
    }

    fn tasks(&mut self, entries: &[Entry], play: &Node, settings: &Settings) -> Option<Listed> {
        let Some(node) = get(entries, "tasks") else {
            self.error(
                "the play has no `tasks`".into(),
                play,
                "",
                Some("list its commands: `tasks: [uptime]`"),
            );
            return None;
        };
        let mut listed = Listed::default();
        self.list_tasks("tasks", node, settings, &Around::default(), &mut listed)?;
        let count = listed.tasks.len();
        if count > MAX_LISTED {
            let message = format!("more than {MAX_LISTED} tasks in one play");
            self.error(message, node, "", None);
            return None;
        }
        Some(listed)
    }

    /// Adds the tasks of a list, those of its blocks among them.
    fn list_tasks(
        &mut self,
        key: &str,
        node: &Node,
        settings: &Settings,
        around: &Around,
        listed: &mut Listed,
    ) -> Option<()> {
        let items = self.list(key, node)?;
        if items.is_empty() || items.len() > MAX_LISTED {
            let message = if items.is_empty() {
                format!("`{key}` is empty")
            } else {
                format!("more than {MAX_LISTED} tasks in one play")
            };
            self.error(message, node, "", None);
            return None;
        }
        for item in items {
            match &item.kind {
                Kind::Map(entries) if get(entries, "block").is_some() => {
                    self.block(entries, settings, around, listed);
                }
                Kind::Map(entries) if get(entries, "include").is_some() => {
                    self.include(entries, settings, around, listed);
                }
                Kind::Map(_) | Kind::List(_) | Kind::Scalar { .. } => {
                    listed.tasks.extend(self.task(item, settings, around));
                }
            }
        }
        Some(())
    }

    fn block(
        &mut self,
        entries: &[Entry],
        settings: &Settings,
        around: &Around,
        listed: &mut Listed,
    ) {
        self.check_keys(entries, Level::Block);
        let around = self.around(entries, around);
        let mut part = |key: &str| {
            let start = listed.tasks.len();
            if let Some(node) = get(entries, key) {
                self.list_tasks(key, node, settings, &around, listed);
            }
            start..listed.tasks.len()
        };
        let (body, rescue, always) = (part("block"), part("rescue"), part("always"));
        listed.blocks.push(Block {
            body,
            rescue,
            always,
        });
    }

    /// The tasks of another file, as if they stood here.
    fn include(
        &mut self,
        entries: &[Entry],
        settings: &Settings,
        around: &Around,
        listed: &mut Listed,
    ) {
        self.check_keys(entries, Level::Include);
        let around = self.around(entries, around);
        self.look_into(entries, |check, root| {
            check.list_tasks("tasks", root, settings, &around, listed);
        });
    }

    /// Reads the file that an `include` names, and gives what stands in it to `look`.
    fn look_into(&mut self, entries: &[Entry], look: impl FnOnce(&mut Check<'_>, &Node)) {
        let path = get(entries, "include").and_then(|node| self.plain("include", node));
        let Some(Located { value: path, at }) = path else {
            return;
        };
        let source = match self.read(&path) {
            Ok(source) => Arc::new(source),
            Err(reason) => {
                let message = format!("`include: {path}` {reason}");
                self.error_at(message, at.span, "", None);
                return;
            }
        };
        let tree = parse(&source);
        let mut check = Check::new(&source, self.library);
        check.chain.splice(0..0, self.chain.iter().cloned());
        tree.left_out
            .iter()
            .for_each(|node| check.doubt_names_in(node));
        match &tree.root {
            Some(root) => look(&mut check, root),
            None if tree.found.is_empty() => {
                self.error_at(format!("`{path}` is empty"), at.span, "", None);
            }
            None => {}
        }
        self.take_over(tree.found, check);
    }

    /// The plays of another playbook, as if they stood here. `vars` stand above those of its plays.
    fn include_plays(&mut self, entries: &[Entry], plays: &mut Vec<Play>) {
        self.check_keys(entries, Level::IncludedPlays);
        let vars = get(entries, "vars").map_or_else(Vars::new, |node| self.vars(node));
        let mut playbook = None;
        self.look_into(entries, |check, root| playbook = check.file(root));
        let Some(playbook) = playbook else { return };
        self.doubtful.extend(playbook.doubtful);
        self.note_found(playbook.bare_braces);
        self.included.inventory.extend(playbook.inventory);
        self.included.secrets.extend(playbook.secrets);
        for mut play in playbook.plays {
            let mut all = playbook.vars.clone();
            all.extend(play.vars);
            all.extend(vars.clone());
            play.vars = all;
            plays.push(play);
        }
    }

    /// What was found in a file that is included.
    fn take_over(&mut self, in_tree: Vec<Diagnostic>, check: Check<'_>) {
        let room = MAX_FOUND.saturating_sub(self.found.len());
        self.found
            .extend(in_tree.into_iter().chain(check.found).take(room));
        self.doubtful.extend(check.doubtful);
        self.note_found(check.bare_braces);
    }

    fn note_found(&mut self, braces: Vec<Located<String>>) {
        let room = MAX_FOUND.saturating_sub(self.bare_braces.len());
        self.bare_braces.extend(braces.into_iter().take(room));
    }

    /// A name for two secrets is a mistake, unless both are the same file's: it is included twice.
    fn join_secrets(&mut self, own: &mut Vec<DeclaredSecret>, more: Vec<DeclaredSecret>) {
        for secret in more {
            match own.iter().find(|known| known.name == secret.name) {
                None => own.push(secret),
                Some(known) if known.from == secret.from => {}
                Some(_) => {
                    let At { source, span, .. } = &secret.at;
                    let message = format!("a second secret `{}`", secret.name);
                    let mistake = Diagnostic::error(message).at(source, span.clone(), "");
                    let help = "a file that includes this one declares another of that name";
                    self.found.push(mistake.help(help));
                }
            }
        }
    }

    /// A file whose name is relative to this one's folder.
    fn read(&self, path: &str) -> Result<Source, String> {
        let folder = self.source.path.parent().unwrap_or(Path::new(""));
        let path = folder.join(path);
        let same = |known: &PathBuf| straight(known) == straight(&path);
        if self.chain.iter().any(same) {
            return Err("includes itself in the end".into());
        }
        let count = self.library.count.get() + 1;
        self.library.count.set(count);
        if count > MAX_INCLUDED || self.chain.len() > MAX_INCLUDED_DEPTH {
            return Err(format!(
                "is one too many: at most {MAX_INCLUDED} files, {MAX_INCLUDED_DEPTH} inside each other"
            ));
        }
        let text = (self.library.read)(&path)?.into();
        Ok(Source { path, text })
    }

    /// Tasks that others notify, by their names.
    fn handlers(&mut self, entries: &[Entry], settings: &Settings) -> Vec<Task> {
        let Some(node) = get(entries, "handlers") else {
            return Vec::new();
        };
        let mut handlers: Vec<Task> = Vec::new();
        for item in self.list("handlers", node).unwrap_or_default() {
            let Some(task) = self.task(item, settings, &Around::default()) else {
                continue;
            };
            match plain_name(&task) {
                None => {
                    let help = Some("`notify` finds it by its name: `name: restart app`");
                    self.error("a handler needs a plain `name`".into(), item, "", help);
                }
                Some(name)
                    if handlers
                        .iter()
                        .any(|h| plain_name(h).as_ref() == Some(&name)) =>
                {
                    self.error(format!("a second handler `{name}`"), item, "", None);
                }
                Some(_) => handlers.push(task),
            }
        }
        handlers
    }

    fn check_notified(&mut self, tasks: &[Task], handlers: &[Task]) {
        let known: Vec<String> = handlers.iter().filter_map(plain_name).collect();
        for notified in tasks.iter().chain(handlers).flat_map(|t| &t.control.notify) {
            if known.contains(&notified.value) {
                continue;
            }
            let near = did_you_mean(&notified.value, known.iter().map(String::as_str));
            let help = match (near, known.is_empty()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, true) => "define it under `handlers:` of the play".to_owned(),
                (None, false) => format!("there are: {}", known.join(", ")),
            };
            let At { source, span, .. } = &notified.at;
            let message = format!("no handler is named `{}`", notified.value);
            let mistake = Diagnostic::error(message).at(source, span.clone(), "");
            if self.found.len() < MAX_FOUND {
                self.found.push(mistake.help(help));
            }
        }
    }

    fn task(&mut self, node: &Node, settings: &Settings, around: &Around) -> Option<Task> {
        let task = match &node.kind {
            Kind::Map(entries) => self.task_entries(entries, node, around),
            Kind::Scalar { .. } => {
                let action = self.line("run", node).map(Action::Run);
                action.map(|action| Task {
                    vars: around.vars.clone(),
                    control: self.control(&[], around),
                    ..self.bare_task(action, node)
                })
            }
            Kind::List(_) => {
                self.error(
                    "a task is text or a mapping, not a list".into(),
                    node,
                    "",
                    Some("a command in words is written `run: [ls, -l]`"),
                );
                self.doubt_names_in(node);
                None
            }
        }?;
        self.check_shell(&task, settings);
        Some(task)
    }

    fn bare_task(&self, action: Action, node: &Node) -> Task {
        Task {
            name: None,
            action,
            becomes: None,
            env: Vec::new(),
            cwd: None,
            shell: None,
            stdin: None,
            timeout: None,
            ok_codes: None,
            on_failure: None,
            register: None,
            parse: None,
            table: None,
            vars: Vars::new(),
            control: Control::default(),
            at: self.at(&node.span),
        }
    }

    fn task_entries(&mut self, entries: &[Entry], node: &Node, around: &Around) -> Option<Task> {
        let known = self.check_keys(entries, Level::Task);
        let action = self.action(entries, node, known);
        self.check_fit(entries);
        // A task whose action is wrong still has its other keys checked.
        let broken = action.is_none();
        let mut task = self.bare_task(
            action.unwrap_or(Action::Pause(std::time::Duration::ZERO)),
            node,
        );
        task.vars.clone_from(&around.vars);
        task.control = self.control(entries, around);
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "name" => task.name = self.template(key, value),
                "become" => task.becomes = self.becomes(value),
                "env" => task.env = self.env(value),
                "cwd" => task.cwd = self.template(key, value),
                "shell" => task.shell = self.shell(value),
                "stdin" => task.stdin = self.template(key, value),
                "timeout" => task.timeout = self.duration(key, value, false),
                "ok_codes" => task.ok_codes = self.ok_codes(value),
                "on_failure" => task.on_failure = self.on_failure(value),
                "register" => task.register = self.register(value),
                "parse" => task.parse = self.parse(value),
                "table" => task.table = self.table(value),
                "vars" => task.vars.extend(self.vars(value)),
                _ => {}
            }
        }
        self.check_table(entries, &task);
        // Nobody wants to be asked by every host.
        task.control.once |= matches!(task.action, Action::Ask(_));
        if broken {
            self.doubt(task.register);
            return None;
        }
        Some(task)
    }

    fn register(&mut self, node: &Node) -> Option<String> {
        let Some(Located { value: name, .. }) = self.plain("register", node) else {
            self.doubt_names_in(node);
            return None;
        };
        self.variable_name("variable", &name, &node.span)
            .then_some(name)
    }

    fn action(&mut self, entries: &[Entry], node: &Node, known: bool) -> Option<Action> {
        let is_action = |e: &&Entry| {
            keys::ACTIONS.contains(&e.key.as_str()) || keys::LATER_ACTIONS.contains(&e.key.as_str())
        };
        let actions: Vec<&Entry> = entries.iter().filter(is_action).collect();
        let Some(first) = actions.first() else {
            // An unknown or future key was most likely meant to be the action.
            let of_block = ["rescue", "always"]
                .iter()
                .any(|key| get(entries, key).is_some());
            if known && !of_block {
                let help = format!("add one of: {}", keys::ACTIONS.join(", "));
                self.error("the task does nothing".into(), node, "", Some(&help));
            }
            return None;
        };
        for more in &actions[1..] {
            let message = format!(
                "a task does one thing: `{}` and `{}` are two",
                first.key, more.key
            );
            self.error_at(
                message,
                more.key_span.clone(),
                "",
                Some("make two tasks of it"),
            );
        }
        let Entry { key, value, .. } = first;
        match key.as_str() {
            "run" => self.line(key, value).map(Action::Run),
            "local" => self.line(key, value).map(Action::Local),
            "ls" => self.listing(value),
            "upload" => self.copy(key, value, Level::Upload),
            "download" => self.copy(key, value, Level::Download),
            "print" => self.template(key, value).map(Action::Print),
            "pause" => self.pause(value),
            "assert" => self.assert(entries, value),
            "set" => self.set(value),
            "wait_for" => self.wait_for(value),
            "script" => {
                let args =
                    get(entries, "args").map_or_else(Vec::new, |node| self.templates("args", node));
                self.plain(key, value)
                    .map(|path| Action::Script { path, args })
            }
            _ => None,
        }
    }

    /// Keys that would have no effect beside this action are mistakes, not decoration.
    fn check_fit(&mut self, entries: &[Entry]) {
        let has = |key: &str| entries.iter().find(|e| e.key == key);
        for (action, useless) in useless_beside() {
            if has(action).is_none() {
                continue;
            }
            for key in useless {
                if let Some(entry) = has(key) {
                    self.error_at(
                        format!("`{key}` has no effect on `{action}`"),
                        entry.key_span.clone(),
                        "",
                        Some("remove it"),
                    );
                }
            }
        }
        for (key, action) in [
            ("message", "assert"),
            ("rescue", "block"),
            ("always", "block"),
        ] {
            if let (Some(entry), None) = (has(key), has(action)) {
                let message = format!("`{key}` goes with `{action}`");
                self.error_at(message, entry.key_span.clone(), "", None);
            }
        }
        self.check_restart(has("restart"), has("local"), has("retry"));
        if let (Some(entry), Some(_)) = (has("fanout").or(has("rollout")), has("once")) {
            let message = format!("`{}` has no effect beside `once`", entry.key);
            self.error_at(message, entry.key_span.clone(), "", Some("remove it"));
        }
        if let (Some(entry), None) = (has("args"), has("script")) {
            self.error_at(
                "`args` goes with `script`".into(),
                entry.key_span.clone(),
                "",
                Some("arguments of a command stand in `run` itself"),
            );
        }
        let argv = ["run", "local"]
            .iter()
            .any(|key| has(key).is_some_and(|e| matches!(e.value.kind, Kind::List(_))));
        if let (Some(entry), true) = (has("shell"), argv || has("script").is_some()) {
            let help = if argv {
                "a list is run without a shell"
            } else {
                "a script is run by its own `#!` line"
            };
            self.error_at(
                "`shell` has no effect here".into(),
                entry.key_span.clone(),
                "",
                Some(help),
            );
        }
    }

    /// A command on a host is never sent twice by itself.
    fn check_restart(
        &mut self,
        restart: Option<&Entry>,
        local: Option<&Entry>,
        retry: Option<&Entry>,
    ) {
        let Some(Entry { key_span, .. }) = restart else {
            return;
        };
        let (message, help) = match (local, retry) {
            (None, _) => (
                "`restart` goes with `local`",
                "a command on a host is tried again with `retry`",
            ),
            (Some(_), Some(_)) => (
                "`restart` and `retry` are two ways to begin again",
                "`restart` is for a child that is to run on, `retry` for one that is to succeed",
            ),
            (Some(_), None) => return,
        };
        self.error_at(message.into(), key_span.clone(), "", Some(help));
    }

    /// Values are escaped as POSIX says, which is wrong for a shell that quotes otherwise.
    fn check_shell(&mut self, task: &Task, settings: &Settings) {
        let (Action::Run(Line::Shell(text)) | Action::Local(Line::Shell(text))) = &task.action
        else {
            return;
        };
        let Some(shell) = task.shell.as_ref().or(settings.shell.as_ref()) else {
            return;
        };
        if shell.iter().any(|word| is_posix(word)) {
            return;
        }
        if let (Some((code, span)), Some(program)) = (Template::first_escaped(text), shell.first())
        {
            let message = format!("`{code}` cannot be escaped for `{program}`");
            self.error_at(
                message,
                span,
                "only POSIX shells are known",
                Some("pass it through `env`, or write `| raw` to insert it as it is"),
            );
        }
    }

    /// Whether all keys may stand here.
    pub(super) fn check_keys(&mut self, entries: &[Entry], level: Level) -> bool {
        let (allowed, later) = (level.allowed(), level.later());
        let mut all = true;
        for entry in entries {
            let (key, key_span) = (entry.key.as_str(), &entry.key_span);
            if allowed.contains(&key) {
                continue;
            }
            all = false;
            // A misspelt `vars` or `register`, a `set` of a later version.
            self.doubt_names_in(&entry.value);
            let (message, help) = if later.contains(&key) {
                (
                    format!(
                        "`{key}` is part of the playbook language but this version cannot do it yet"
                    ),
                    None,
                )
            } else if level == Level::File && Level::WholeFile.allowed().contains(&key) {
                let help = "the file has `plays`, so the key belongs inside one of them";
                (
                    format!("`{key}` cannot stand beside `plays`"),
                    Some(help.to_owned()),
                )
            } else {
                (
                    format!("unknown key `{key}` in {}", level.noun()),
                    Some(unknown_help(key, &allowed, &later, level)),
                )
            };
            self.error_at(message, key_span.clone(), "", help.as_deref());
        }
        all
    }
}

fn unknown_help(key: &str, allowed: &[&str], later: &[&str], level: Level) -> String {
    if key.contains(char::is_whitespace) && level == Level::Task {
        return "a command that holds `: ` must be quoted as a whole, or written under `run: |`"
            .into();
    }
    let options = matches!(level, Level::Options(..));
    if let Some(foreign) = keys::foreign(key).filter(|_| !options) {
        return foreign.into();
    }
    if let Some(near) = did_you_mean(key, allowed.iter().chain(later).copied()) {
        return format!("did you mean `{near}`?");
    }
    let elsewhere = [Level::Task, Level::Play, Level::WholeFile]
        .into_iter()
        .find(|other| !options && *other != level && other.allowed().contains(&key));
    match elsewhere {
        Some(other) => format!(
            "it is a key of {}; allowed here: {}",
            other.noun(),
            allowed.join(", ")
        ),
        None => format!("allowed here: {}", allowed.join(", ")),
    }
}

pub(super) fn get<'n>(entries: &'n [Entry], key: &str) -> Option<&'n Node> {
    entries.iter().find(|e| e.key == key).map(|e| &*e.value)
}

/// A path without detours, for comparing: `a/../b` is `b`.
fn straight(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// For each action the keys that do nothing there.
pub(super) fn useless_beside() -> [(&'static str, Vec<&'static str>); 9] {
    let of_process = &["env", "cwd", "shell", "stdin", "ok_codes"][..];
    let of_result = &["timeout", "register"][..];
    let of_rows = &["parse", "table"][..];
    let of_trying = &["retry", "creates", "changed_when"][..];
    let of_hosts = &["notify", "delegate_to", "become"][..];
    let here = [of_process, of_result, of_trying, of_rows, of_hosts].concat();
    let files = [of_process, of_rows, &["become"]].concat();
    [
        ("print", here.clone()),
        ("pause", here.clone()),
        ("assert", here.clone()),
        ("set", here),
        ("local", vec!["delegate_to", "become"]),
        (
            "wait_for",
            [of_process, &["register"], of_trying, of_rows].concat(),
        ),
        ("ls", files.clone()),
        ("upload", files.clone()),
        ("download", files),
    ]
}

/// The name of a task, if it has one without values to fill in.
fn plain_name(task: &Task) -> Option<String> {
    task.name.as_ref()?.literal().map(str::to_owned)
}

/// The play's own settings win; `env` is joined name by name.
fn merged(defaults: &Settings, own: Settings) -> Settings {
    let mut env = defaults.env.clone();
    env.retain(|(name, _)| own.env.iter().all(|(other, _)| other != name));
    env.extend(own.env);
    let defaults = defaults.clone();
    Settings {
        user: own.user.or(defaults.user),
        port: own.port.or(defaults.port),
        identity: if own.identity.is_empty() {
            defaults.identity
        } else {
            own.identity
        },
        becomes: own.becomes.or(defaults.becomes),
        env,
        cwd: own.cwd.or(defaults.cwd),
        shell: own.shell.or(defaults.shell),
        timeout: own.timeout.or(defaults.timeout),
        connect_timeout: own.connect_timeout.or(defaults.connect_timeout),
        on_failure: own.on_failure.or(defaults.on_failure),
    }
}
