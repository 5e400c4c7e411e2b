//! From a playbook, an inventory and a command line to a plan; all mistakes at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::control::{self, Selection};
use super::values::{HOST_FIELDS, OWN_NAMES, RESULT_FIELDS};
use super::{Plan, Play, Reaching, Step, Task, copies, delegate, secrets};
use crate::diagnostic::{At, Diagnostic, Source};
use crate::event::RunInfo;
use crate::inventory::{Inventory, Pattern, PatternError, Selected, Unknown};
use crate::job::{Action, Command, HostId, OnFailure, PlayId, TaskId, TaskRef};
use crate::listing::{LastSeen, Listing};
use crate::output::mask::STARS;
use crate::playbook::{self, Hosts, Line, Playbook, Strategy, Template};
use crate::target::{HostName, Target, Vars, Way};
use crate::text;

/// What a plan stands on besides the playbook.
pub struct Ground {
    /// All hosts that are known.
    pub inventory: Inventory,
    /// An inventory was named, so that an unknown name is a mistake and not a host to dial.
    pub listed: bool,
    /// `--limit`
    pub limit: Option<String>,
    /// `-e`
    pub vars: Vars,
    /// Which tasks are wanted.
    pub selection: Selection,
    /// How hosts are reached.
    pub reaching: Reaching,
    /// `--fanout`
    pub fanout: Option<usize>,
    /// Plays without hosts are no mistake.
    pub allow_empty: bool,
    /// The inventory could not be read: what depends on hosts is not looked at.
    pub unsure: bool,
}

/// Hosts worked on at once where nobody says otherwise.
pub const FANOUT: usize = 64;
/// The largest script that is copied to hosts.
const SCRIPT_LIMIT: u64 = 16 << 20;

/// A plan, and what is worth a word.
#[derive(Debug)]
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// Warnings, printable.
    pub warnings: Vec<Diagnostic>,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum PlanError {
    /// Mistakes in what was written.
    Wrong(Vec<Diagnostic>),
    /// No host is selected; one line.
    NothingMatched(String),
}

/// Makes the plan of a playbook.
///
/// # Errors
/// All mistakes that can be found without connecting to anything.
pub fn build(playbook: Playbook, ground: &Ground) -> Result<Built, PlanError> {
    let mut draft = Draft::new(ground);
    draft.doubtful = playbook.doubtful;
    let mut started = false;
    let mut names = Vec::new();
    for mut play in playbook.plays {
        let named = play.tasks.iter().filter_map(|task| task.name.as_ref());
        names.extend(named.map(|name| name.text().to_owned()));
        ground.selection.apply(&mut play, &mut started);
        draft.add_play(play);
    }
    if started && draft.plays.iter().all(|play| play.tasks.is_empty()) {
        draft.empty.push("no task is selected".to_owned());
    }
    if !started {
        draft.errors.extend(ground.selection.no_start(&names));
    }
    let title = playbook.source.path.display().to_string();
    draft.secrets = playbook.secrets;
    let mut plan = draft.finish(title, playbook.vars, |plan, doubts| {
        let mut found = undefined_names(plan, doubts);
        found.extend(copies::flat_for_many(plan));
        found.extend(secrets::misused(plan));
        found.extend(delegate::known_too_late(plan));
        found
    })?;
    let meant = bare_braces(&plan.plan, playbook.bare_braces);
    plan.warnings.extend(meant);
    let places = plan.plan.plays.iter().map(|play| play.fanout);
    let info = RunInfo {
        fanout: places.max().unwrap_or(FANOUT),
        ..(*plan.plan.info).clone()
    };
    plan.plan.info = Arc::new(info);
    Ok(plan)
}

/// One command from the command line.
#[derive(Debug, Clone, Default)]
pub struct Single {
    /// Text for the account's login shell.
    pub command: String,
    /// How long it may take on each host.
    pub timeout: Option<Duration>,
    /// Our standard input goes in and bytes come out as they are; for one host.
    pub pass_through: bool,
}

/// Makes the plan of one command on the hosts of a pattern.
///
/// # Errors
/// As [`build`].
pub fn single(pattern: &str, single: Single, ground: &Ground) -> Result<Built, PlanError> {
    let Single {
        command,
        timeout,
        pass_through,
    } = single;
    let title = text::fit(&one_line(&command), 72).into_owned();
    let name = text::fit(&one_line(&command), 48).into_owned();
    let action = Action::Run(Command::Shell(command));
    let task = Task {
        pass_through,
        ..plain_task(0, name, action, timeout)
    };
    plan_of(title, vec![(pattern.to_owned(), task)], ground)
}

/// Makes the plan of listings from the command line: what is listed on the hosts of each pattern.
///
/// # Errors
/// As [`build`].
pub fn listings(
    parts: Vec<(String, Listing)>,
    timeout: Option<Duration>,
    ground: &Ground,
) -> Result<Built, PlanError> {
    let words = |listing: &Listing| {
        let paths = listing.paths.iter().map(|path| text::printable(path));
        format!("ls {}", paths.collect::<Vec<_>>().join(" "))
    };
    let all: Vec<String> = parts.iter().map(|(_, listing)| words(listing)).collect();
    let title = text::fit(&all.join(", "), 72).into_owned();
    let plays = parts.into_iter().zip(all).enumerate();
    let plays = plays.map(|(at, ((pattern, listing), name))| {
        let name = text::fit(&name, 48).into_owned();
        let mut task = plain_task(at, name, Action::Pause(Duration::ZERO), timeout);
        task.action = list(listing)?;
        Ok((pattern, task))
    });
    let plays = plays.collect::<Result<_, Box<Diagnostic>>>();
    let plays = plays.map_err(|mistake| PlanError::Wrong(vec![*mistake]))?;
    plan_of(title, plays, ground)
}

/// A listing with what is known of the last one. Without a state there is nothing to fill in.
fn list(listing: Listing) -> Result<Step, Box<Diagnostic>> {
    if listing.state.is_none() {
        return Ok(Step::Plain(Action::List(Arc::new(listing))));
    }
    let paths = listing.paths.iter();
    let paths: Vec<Template> = paths
        .map(|path| Template::plain(&String::from_utf8_lossy(path)))
        .collect();
    let last = last_seen(&listing, &paths)?;
    Ok(Step::List {
        paths,
        listing: Arc::new(listing),
        last,
    })
}

/// What stands for secrets until their values are known.
fn stars(secrets: &[playbook::DeclaredSecret]) -> Vars {
    let star = |secret: &playbook::DeclaredSecret| (secret.name.clone(), STARS.into());
    secrets.iter().map(star).collect()
}

/// What the state file of a listing holds; nothing where it is not there yet.
fn last_seen(listing: &Listing, paths: &[Template]) -> Result<Arc<LastSeen>, Box<Diagnostic>> {
    let listed: Vec<String> = paths.iter().map(|path| path.text().to_owned()).collect();
    let fresh = LastSeen {
        listed,
        ..LastSeen::default()
    };
    let Some(path) = &listing.state else {
        return Ok(Arc::new(fresh));
    };
    let wrong = |why: String| {
        let message = format!("the state file `{}` {why}", path.display());
        let help = "name another file, or remove it to begin anew";
        Box::new(Diagnostic::error(message).help(help))
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Arc::new(fresh)),
        Err(error) => return Err(wrong(format!("cannot be read: {error}"))),
    };
    let seen = LastSeen::parse(&text).map_err(wrong)?;
    if seen.listed != fresh.listed {
        let (old, new) = (seen.listed.join(", "), fresh.listed.join(", "));
        return Err(wrong(format!("is of a listing of {old}, not of {new}")));
    }
    Ok(Arc::new(seen))
}

/// A task without values to fill in, alone in its play.
pub(super) fn plain_task(
    play: usize,
    name: String,
    action: Action,
    timeout: Option<Duration>,
) -> Task {
    let id = TaskId {
        play: PlayId(u16::try_from(play).unwrap_or(u16::MAX)),
        index: 0,
    };
    Task {
        reference: TaskRef {
            id,
            name: name.into(),
            place: None,
        },
        on_failure: OnFailure::Stop,
        action: Step::Plain(action),
        control: playbook::Control::default(),
        notify: Vec::new(),
        handler: false,
        delegate: None,
        becomes: None,
        source: None,
        env: Vec::new(),
        cwd: None,
        shell: None,
        stdin: None,
        timeout,
        ok_codes: vec![0],
        register: None,
        pass_through: false,
        parse: None,
        table: None,
        vars: Vars::new(),
    }
}

/// Plays of one task each.
pub(super) fn plan_of(
    title: String,
    plays: Vec<(String, Task)>,
    ground: &Ground,
) -> Result<Built, PlanError> {
    let mut draft = Draft::new(ground);
    let settings = playbook::Settings::default();
    for (pattern, task) in plays {
        let hosts = draft.select_text(&pattern);
        let name = pattern.into();
        draft.push_play(name, hosts, false, None, vec![task], Vars::new(), &settings);
    }
    draft.finish(title, Vars::new(), |_, _| Vec::new())
}

pub(super) struct Draft<'a> {
    ground: &'a Ground,
    targets: Vec<Target>,
    ids: HashMap<HostName, HostId>,
    /// The way of each host in the last play it was in, so that plays share connections.
    ways: HashMap<HostId, Arc<Way>>,
    plays: Vec<Play>,
    /// The settings of each play that is written in a playbook.
    settings: Vec<playbook::Settings>,
    pub(super) errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    warned: HashSet<String>,
    empty: Vec<String>,
    /// Names that parts with mistakes may define.
    doubtful: BTreeSet<String>,
    secrets: Vec<playbook::DeclaredSecret>,
    /// The plays whose hosts could not be understood.
    hostless: HashSet<PlayId>,
}

/// What mistakes that are told already leave open about names.
struct Doubts<'a> {
    names: &'a BTreeSet<String>,
    hostless: &'a HashSet<PlayId>,
    /// Variables that hosts have: such a play may have had any of them. None if they are not
    /// known either.
    of_hosts: Option<HashSet<&'a str>>,
}

impl Doubts<'_> {
    fn about_hosts_of(&self, play: PlayId) -> bool {
        self.of_hosts.is_none() || self.hostless.contains(&play)
    }

    fn may_be_of_a_host(&self, name: &str) -> bool {
        let known = self.of_hosts.as_ref();
        !OWN_NAMES.contains(&name) && known.is_none_or(|names| names.contains(name))
    }
}

impl<'a> Draft<'a> {
    fn new(ground: &'a Ground) -> Self {
        Self {
            ground,
            targets: Vec::new(),
            ids: HashMap::new(),
            ways: HashMap::new(),
            plays: Vec::new(),
            settings: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            warned: HashSet::new(),
            empty: Vec::new(),
            doubtful: BTreeSet::new(),
            secrets: Vec::new(),
            hostless: HashSet::new(),
        }
    }

    fn add_play(&mut self, play: playbook::Play) {
        let mistakes = self.errors.len();
        let (name, hosts) = match &play.hosts {
            Hosts::Patterns(patterns) => {
                let texts: Vec<&str> = patterns.iter().map(|p| p.value.as_str()).collect();
                let mut found = Vec::new();
                for pattern in patterns {
                    found.extend(self.select_at(&pattern.value, &pattern.at));
                }
                (texts.join(","), found)
            }
            Hosts::Inline { entries, at } => match Inventory::from_inline(entries, at) {
                Ok(inventory) => {
                    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
                    let inventory = self.ground.inventory.clone().merge(inventory);
                    let found = select(&names.join(","), &inventory, Unknown::Refuse, self.ground);
                    (
                        names.join(","),
                        self.keep(found.map(|hosts| with_entries(hosts, &inventory)), Some(at)),
                    )
                }
                Err(mistakes) => {
                    self.errors.extend(mistakes);
                    (String::new(), Vec::new())
                }
            },
        };
        let place = PlayId(u16::try_from(self.plays.len()).unwrap_or(u16::MAX));
        if self.errors.len() > mistakes || name.is_empty() {
            self.hostless.insert(place);
        }
        let first_handler = play.tasks.len();
        // Handlers of a play whose tasks are all left out have nobody to notify them.
        let handlers = play.handlers.into_iter().filter(|_| first_handler > 0);
        let mut tasks = Vec::with_capacity(first_handler);
        for (index, task) in play.tasks.into_iter().chain(handlers).enumerate() {
            let id = TaskId {
                play: place,
                index: u16::try_from(index).unwrap_or(u16::MAX),
            };
            let register = task.register.clone();
            match merge(id, task, &play.settings) {
                Ok(task) => tasks.push(Task {
                    handler: index >= first_handler,
                    ..task
                }),
                Err(mistake) => {
                    self.errors.push(*mistake);
                    self.doubtful.extend(register);
                }
            }
        }
        let name: Arc<str> = play.name.unwrap_or(name).into();
        let linear = play.strategy == Strategy::Linear;
        self.push_play(
            name,
            hosts,
            linear,
            play.fanout,
            tasks,
            play.vars,
            &play.settings,
        );
        self.join_tasks(play.blocks, play.rollout);
        self.settings.push(play.settings);
    }

    /// What holds the tasks of the play together that was added last.
    fn join_tasks(&mut self, blocks: Vec<playbook::Block>, rollout: Option<playbook::Rollout>) {
        let Some(play) = self.plays.last_mut() else {
            return;
        };
        play.blocks = blocks;
        play.rollout = rollout;
        let places = control::handler_places(play);
        for task in &mut play.tasks {
            let place = |name: &playbook::Located<String>| places.get(&name.value).copied();
            task.notify = task.control.notify.iter().filter_map(place).collect();
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one play, named at the callers"
    )]
    fn push_play(
        &mut self,
        name: Arc<str>,
        hosts: Vec<Chosen>,
        linear: bool,
        fanout: Option<usize>,
        tasks: Vec<Task>,
        vars: Vars,
        settings: &playbook::Settings,
    ) {
        let mut ids = Vec::with_capacity(hosts.len());
        let mut ways = HashMap::with_capacity(hosts.len());
        for host in hosts {
            let way = self.way(&host, settings);
            let id = self.target(host);
            if ways.contains_key(&id) {
                continue;
            }
            let shared = match self.ways.get(&id) {
                Some(known) if **known == way => Arc::clone(known),
                Some(_) | None => Arc::new(way),
            };
            self.ways.insert(id, Arc::clone(&shared));
            ways.insert(id, shared);
            ids.push(id);
        }
        let fanout = self.ground.fanout.or(fanout).unwrap_or(FANOUT);
        self.plays.push(Play {
            name,
            hosts: ids,
            linear,
            fanout,
            tasks,
            blocks: Vec::new(),
            rollout: None,
            ways,
            vars,
        });
    }

    pub(super) fn way(&mut self, host: &Chosen, settings: &playbook::Settings) -> Way {
        match self
            .ground
            .reaching
            .reach(&host.name, &host.settings, settings)
        {
            Ok(reached) => {
                for warning in reached.warnings {
                    if self.warned.insert(warning.clone()) {
                        self.warnings.push(Diagnostic::warning(warning));
                    }
                }
                reached.way
            }
            Err(reason) => {
                if !self.ground.unsure && self.warned.insert(reason.clone()) {
                    self.errors.push(Diagnostic::error(reason));
                }
                Way::Local
            }
        }
    }

    fn target(&mut self, host: Chosen) -> HostId {
        if let Some(id) = self.ids.get(&host.name) {
            return *id;
        }
        let id = HostId(u32::try_from(self.targets.len()).unwrap_or(u32::MAX));
        self.ids.insert(host.name.clone(), id);
        self.targets.push(Target {
            name: host.name,
            groups: host.groups,
            vars: host.vars,
        });
        id
    }

    fn unknown(&self) -> Unknown {
        if self.ground.listed {
            Unknown::Refuse
        } else {
            Unknown::Dial
        }
    }

    pub(super) fn select_at(&mut self, pattern: &str, at: &At) -> Vec<Chosen> {
        let found = select(pattern, &self.ground.inventory, self.unknown(), self.ground);
        let found = found.map(|hosts| with_entries(hosts, &self.ground.inventory));
        self.keep(found, Some(at))
    }

    fn select_text(&mut self, pattern: &str) -> Vec<Chosen> {
        let found = select(pattern, &self.ground.inventory, self.unknown(), self.ground);
        let found = found.map(|hosts| with_entries(hosts, &self.ground.inventory));
        let source = Source {
            path: "<command line>".into(),
            text: pattern.into(),
        };
        let at = At {
            source: Arc::new(source),
            span: 0..pattern.len(),
            label: String::new(),
        };
        self.keep(found, Some(&at))
    }

    fn keep(&mut self, found: Result<Vec<Chosen>, PatternError>, at: Option<&At>) -> Vec<Chosen> {
        match found {
            Ok(hosts) => return hosts,
            Err(_) if self.ground.unsure => {}
            Err(PatternError::NothingMatched(fault)) => self.empty.push(fault.message),
            Err(error) => {
                let fault = error.fault();
                let mut mistake = Diagnostic::error(fault.message.clone());
                if let Some(at) = at {
                    mistake = mistake.at(&at.source, inside(at, &fault.span), "");
                }
                mistake.help.clone_from(&fault.help);
                self.errors.push(mistake);
            }
        }
        Vec::new()
    }

    /// `names` finds the mistakes that only show on a whole plan.
    fn finish(
        mut self,
        title: String,
        file_vars: Vars,
        names: impl Fn(&Plan, &Doubts<'_>) -> Vec<Diagnostic>,
    ) -> Result<Built, PlanError> {
        self.limit();
        let mut errors = std::mem::take(&mut self.errors);
        let doubtful = std::mem::take(&mut self.doubtful);
        let hostless = std::mem::take(&mut self.hostless);
        let ground = self.ground;
        let (unsure, allow_empty) = (ground.unsure, ground.allow_empty);
        let mut plan = self.plan(title, file_vars);
        let hosts = ground.inventory.hosts();
        // Only looked at for plays without hosts, which most playbooks do not have.
        let hosts = hosts.take(if hostless.is_empty() { 0 } else { usize::MAX });
        let of_hosts = hosts.flat_map(|host| host.vars.keys().map(String::as_str));
        let doubts = Doubts {
            names: &doubtful,
            hostless: &hostless,
            of_hosts: (!unsure).then(|| of_hosts.collect()),
        };
        errors.extend(names(&plan, &doubts));
        let settings = std::mem::take(&mut self.settings);
        self.delegate(&mut plan, &settings, errors.is_empty());
        errors.append(&mut self.errors);
        let empty = self.empty;
        if !errors.is_empty() {
            let empty = empty.into_iter().filter(|_| !allow_empty);
            errors.extend(empty.map(Diagnostic::error));
            return Err(PlanError::Wrong(errors));
        }
        match empty.into_iter().next() {
            Some(message) if !allow_empty => Err(PlanError::NothingMatched(message)),
            Some(_) | None => Ok(Built {
                plan,
                warnings: self.warnings,
            }),
        }
    }

    /// Notes where no play has a host left, unless a mistake is the reason.
    fn note_empty(&mut self) {
        if self.ground.unsure || !self.hostless.is_empty() {
            return;
        }
        if self.empty.is_empty() && self.plays.iter().all(|play| play.hosts.is_empty()) {
            let limit = self.ground.limit.as_deref();
            let by = limit.map_or(String::new(), |limit| format!(" within `--limit {limit}`"));
            self.empty.push(format!("no host is selected{by}"));
        }
    }

    fn plan(&mut self, title: String, file_vars: Vars) -> Plan {
        let info = RunInfo {
            title,
            hosts: self
                .targets
                .iter()
                .map(|target| target.name.clone())
                .collect(),
            tasks: self.plays.iter().map(|play| play.tasks.len()).sum(),
            fanout: self
                .plays
                .iter()
                .map(|play| play.fanout)
                .max()
                .unwrap_or(FANOUT),
            started: 0,
            files: Vec::new(),
        };
        Plan {
            info: Arc::new(info),
            targets: std::mem::take(&mut self.targets),
            plays: std::mem::take(&mut self.plays),
            file_vars,
            extra_vars: self.ground.vars.clone(),
            revealed: stars(&self.secrets),
            secrets: std::mem::take(&mut self.secrets),
            mask: Arc::default(),
        }
    }

    /// Keeps only the hosts of `--limit`, and gives ids anew so that no other host is in the plan.
    fn limit(&mut self) {
        let Some(limit) = &self.ground.limit else {
            return self.note_empty();
        };
        let found = Pattern::parse(limit)
            .and_then(|pattern| pattern.select_or_empty(&self.ground.inventory, self.unknown()));
        let wanted: HashSet<HostName> = match found {
            Ok(hosts) => hosts.into_iter().map(|host| host.name).collect(),
            Err(error) => {
                let message = format!("`--limit {limit}`: {error}");
                let mut mistake = Diagnostic::error(message);
                mistake.help.clone_from(&error.fault().help);
                if !self.ground.unsure {
                    self.errors.push(mistake);
                }
                return;
            }
        };
        let old = std::mem::take(&mut self.targets);
        let mut new_ids = HashMap::new();
        for (at, target) in old.into_iter().enumerate() {
            if wanted.contains(&target.name) {
                let new = HostId(u32::try_from(self.targets.len()).unwrap_or(u32::MAX));
                new_ids.insert(HostId(u32::try_from(at).unwrap_or(u32::MAX)), new);
                self.targets.push(target);
            }
        }
        for play in &mut self.plays {
            play.hosts = play
                .hosts
                .iter()
                .filter_map(|id| new_ids.get(id).copied())
                .collect();
            let ways = std::mem::take(&mut play.ways);
            let moved = ways
                .into_iter()
                .filter_map(|(id, way)| Some((*new_ids.get(&id)?, way)));
            play.ways = moved.collect();
        }
        self.note_empty();
    }
}

/// A selected host with all that the inventory says about it.
pub(super) struct Chosen {
    pub(super) name: HostName,
    settings: crate::inventory::Settings,
    vars: Vars,
    groups: Vec<String>,
}

fn select(
    pattern: &str,
    inventory: &Inventory,
    unknown: Unknown,
    ground: &Ground,
) -> Result<Vec<Selected>, PatternError> {
    let pattern = Pattern::parse(pattern)?;
    if ground.allow_empty {
        pattern.select_or_empty(inventory, unknown)
    } else {
        pattern.select(inventory, unknown)
    }
}

fn with_entries(hosts: Vec<Selected>, inventory: &Inventory) -> Vec<Chosen> {
    let chosen = |host: Selected| {
        let entry = inventory.get(host.name.as_str()).filter(|_| host.listed);
        Chosen {
            vars: entry.map(|entry| entry.vars.clone()).unwrap_or_default(),
            groups: entry.map(|entry| entry.groups.clone()).unwrap_or_default(),
            name: host.name,
            settings: host.settings,
        }
    };
    hosts.into_iter().map(chosen).collect()
}

/// A span in a pattern as a span in the text that holds it. Where the text is not the pattern
/// itself (quotes, escapes), the whole is underlined.
fn inside(at: &At, span: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    let moved = at.span.start + span.start..at.span.start + span.end;
    let plain = at
        .source
        .text
        .get(at.span.clone())
        .is_some_and(|text| !text.starts_with(['"', '\'']));
    if plain && moved.end <= at.span.end && !moved.is_empty() {
        moved
    } else {
        at.span.clone()
    }
}

/// A task with its play's settings.
fn merge(
    id: TaskId,
    task: playbook::Task,
    play: &playbook::Settings,
) -> Result<Task, Box<Diagnostic>> {
    let name = task_name(&task);
    let source = Arc::clone(&task.at.source);
    let (line, _) = task.at.line_column();
    let place = format!("{}:{line}", source.path.display());
    let own: HashSet<&str> = task.env.iter().map(|(name, _)| name.as_str()).collect();
    let inherited = play
        .env
        .iter()
        .filter(|(name, _)| !own.contains(name.as_str()));
    let env = inherited
        .cloned()
        .collect::<Vec<_>>()
        .into_iter()
        .chain(task.env.clone())
        .collect();
    let moves_files = matches!(
        task.action,
        playbook::Action::List { .. } | playbook::Action::Upload(_) | playbook::Action::Download(_)
    );
    let takes = matches!(
        task.action,
        playbook::Action::Run(_) | playbook::Action::Script { .. } | playbook::Action::WaitFor(_)
    );
    Ok(Task {
        reference: TaskRef {
            id,
            name: name.into(),
            place: Some(place.into()),
        },
        on_failure: task.on_failure.or(play.on_failure).unwrap_or_default(),
        action: step(task.action, source.path.parent().unwrap_or(Path::new("")))?,
        control: task.control,
        notify: Vec::new(),
        handler: false,
        delegate: None,
        becomes: task
            .becomes
            .or_else(|| play.becomes.clone())
            .filter(|_| takes),
        source: Some(source),
        env,
        cwd: task
            .cwd
            .or_else(|| play.cwd.clone())
            .filter(|_| !moves_files),
        shell: task.shell.or_else(|| play.shell.clone()),
        stdin: task.stdin,
        timeout: task.timeout.or(play.timeout),
        ok_codes: task.ok_codes.unwrap_or_else(|| vec![0]),
        register: task.register,
        pass_through: false,
        parse: task.parse,
        table: task.table.map(Arc::new),
        vars: task.vars,
    })
}

fn step(action: playbook::Action, folder: &Path) -> Result<Step, Box<Diagnostic>> {
    Ok(match action {
        playbook::Action::Run(line) => Step::Run(line),
        playbook::Action::Local(line) => Step::Local(line),
        playbook::Action::List { paths, mut listing } => {
            listing.state = listing.state.map(|state| folder.join(state));
            let last = last_seen(&listing, &paths)?;
            Step::List {
                paths,
                listing: Arc::new(listing),
                last,
            }
        }
        playbook::Action::Upload(copy) => copies::step(copy, folder, false)?,
        playbook::Action::Download(copy) => copies::step(copy, folder, true)?,
        playbook::Action::Print(text) => Step::Print(text),
        playbook::Action::Pause(time) => Step::Pause(time),
        playbook::Action::Ask(question) => Step::Ask(question),
        playbook::Action::Assert { that, message } => Step::Assert { that, message },
        playbook::Action::Set(values) => Step::Set(values),
        playbook::Action::WaitFor(what) => Step::WaitFor(what),
        playbook::Action::Script { path, args } => {
            let file = folder.join(&path.value);
            let content = read_script(&file).map_err(|reason| {
                let message = format!("the script `{}` {reason}", path.value);
                let at = &path.at;
                Box::new(Diagnostic::error(message).at(&at.source, at.span.clone(), ""))
            })?;
            let name = file
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            Step::Script {
                name: name.unwrap_or_else(|| "script".into()),
                content,
                args,
            }
        }
    })
}

fn read_script(path: &Path) -> Result<bytes::Bytes, String> {
    let fault = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("does not exist ({})", path.display()),
        _ => format!("cannot be read: {error}"),
    };
    let file = std::fs::File::open(path).map_err(fault)?;
    let mut content = Vec::new();
    file.take(SCRIPT_LIMIT + 1)
        .read_to_end(&mut content)
        .map_err(fault)?;
    if content.len() as u64 > SCRIPT_LIMIT {
        return Err(format!("is larger than {} MiB", SCRIPT_LIMIT >> 20));
    }
    if !content.starts_with(b"#!") {
        return Err(
            "does not begin with `#!`, so that the host would not know what runs it".into(),
        );
    }
    Ok(content.into())
}

fn task_name(task: &playbook::Task) -> String {
    if let Some(name) = &task.name {
        return text::fit(&one_line(name.text()), 60).into_owned();
    }
    let text = match &task.action {
        playbook::Action::Run(line) | playbook::Action::Local(line) => match line {
            Line::Shell(text) => text.text().to_owned(),
            Line::Argv(words) => words
                .iter()
                .map(Template::text)
                .collect::<Vec<_>>()
                .join(" "),
        },
        playbook::Action::Script { path, .. } => path.value.clone(),
        playbook::Action::List { paths, .. } => {
            let paths: Vec<&str> = paths.iter().map(Template::text).collect();
            format!("ls {}", paths.join(" "))
        }
        playbook::Action::Upload(copy) => {
            let paths: Vec<&str> = copy.sources.iter().map(Template::text).collect();
            format!("upload {} -> {}", paths.join(" "), copy.dest.text())
        }
        playbook::Action::Download(copy) => {
            let paths: Vec<&str> = copy.sources.iter().map(Template::text).collect();
            format!("download {} -> {}", paths.join(" "), copy.dest.text())
        }
        playbook::Action::Print(text) => format!("print: {}", text.text()),
        playbook::Action::Pause(time) => format!("pause {}", text::duration(*time)),
        playbook::Action::Ask(question) => format!("ask: {}", question.text()),
        playbook::Action::Assert { that, .. } => {
            let that: Vec<&str> = that.iter().map(playbook::Condition::text).collect();
            format!("assert {}", that.join(" and "))
        }
        playbook::Action::Set(values) => {
            let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
            format!("set {}", names.join(", "))
        }
        playbook::Action::WaitFor(what) => control::wait_text(what),
    };
    task_name_of(&text)
}

/// The name of a task that has none: what it does, cut.
pub(super) fn task_name_of(text: &str) -> String {
    text::fit(&one_line(text), 48).into_owned()
}

/// The first line that says something, with what a terminal would obey made visible.
fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("");
    let more = if lines.next().is_some() { " …" } else { "" };
    format!("{}{more}", text::printable(first.as_bytes()))
}

/// What earlier tasks define, by name.
type Results<'a> = HashMap<&'a str, Defined>;

/// Who has a value under a name.
#[derive(Default)]
struct Defined {
    hosts: HashSet<HostId>,
    /// There may be more hosts that have it.
    elsewhere: bool,
    /// It may be something else than a result.
    is_free: bool,
}

/// `{{ name }}` in text, where there is something of that name: it is not filled in.
fn bare_braces(plan: &Plan, found: Vec<playbook::Located<String>>) -> Vec<Diagnostic> {
    let plays = plan.plays.iter();
    let tasks = || plays.clone().flat_map(|play| &play.tasks);
    let layers = [&plan.file_vars, &plan.extra_vars]
        .into_iter()
        .chain(plays.clone().map(|play| &play.vars))
        .chain(tasks().map(|task| &task.vars))
        .chain(plan.targets.iter().map(|target| &target.vars));
    let mut known: HashSet<&str> = OWN_NAMES.into();
    known.extend(layers.flat_map(|vars| vars.keys().map(String::as_str)));
    known.extend(
        tasks()
            .flat_map(|task| task.defines())
            .map(|(name, _)| name),
    );
    let warn = |braces: playbook::Located<String>| {
        let At { source, span, .. } = braces.at;
        let text = source.text.get(span.clone()).unwrap_or_default();
        let message = format!("`{text}` stays as it is written");
        let help = format!("did you mean `${text}`?");
        Diagnostic::warning(message)
            .at(&source, span, "")
            .help(help)
    };
    let mut warnings: Vec<Diagnostic> = found
        .into_iter()
        .filter(|braces| known.contains(braces.value.as_str()))
        .map(warn)
        .collect();
    // A value that is used twice through an alias stands in the text once.
    warnings.dedup();
    warnings
}

/// Names in templates that are not defined on some host, each place once.
fn undefined_names(plan: &Plan, doubts: &Doubts<'_>) -> Vec<Diagnostic> {
    let mut found: BTreeMap<(usize, usize, usize), (Missing, Arc<Source>)> = BTreeMap::new();
    let mut sources: Vec<Arc<Source>> = Vec::new();
    let mut registered: Results<'_> = HashMap::new();
    for play in &plan.plays {
        for task in &play.tasks {
            let hostless = doubts.about_hosts_of(task.reference.id.play);
            let Some(source) = &task.source else {
                continue;
            };
            let place = sources.iter().position(|known| Arc::ptr_eq(known, source));
            let place = place.unwrap_or_else(|| {
                sources.push(Arc::clone(source));
                sources.len() - 1
            });
            let own = |own: &[&str], name: &playbook::Name| own.contains(&name.root());
            let in_files = task.names_in_documents();
            for name in task
                .mentions()
                .into_iter()
                .flat_map(|(text, names)| text.names().filter(move |name| !own(names, name)))
                .chain(&in_files)
                .chain(task.condition_names())
                .filter(|name| !name.optional && !doubts.names.contains(name.root()))
            {
                let root = name.root();
                let open = hostless && !registered.contains_key(root);
                let missing = if open && doubts.may_be_of_a_host(root) {
                    None
                } else {
                    missing_on(plan, (play, task), name, &registered, hostless)
                };
                if let Some(missing) = missing {
                    found
                        .entry((place, name.span.start, name.span.end))
                        .or_insert((missing, Arc::clone(source)));
                }
            }
            for (name, is_result) in task.defines() {
                let results = registered.entry(name).or_default();
                results.hosts.extend(&play.hosts);
                // What is done once is known to all.
                results.elsewhere |= hostless || task.control.once;
                results.is_free |= !is_result;
            }
        }
    }
    let describe = |(span, (missing, source)): ((usize, usize, usize), (Missing, Arc<Source>))| {
        let label = missing.label();
        let mistake = Diagnostic::error(missing.message).at(&source, span.1..span.2, label);
        match missing.near {
            Some(near) => mistake.help(near),
            None => mistake,
        }
    };
    found.into_iter().map(describe).collect()
}

struct Missing {
    message: String,
    hosts: Vec<HostName>,
    near: Option<String>,
}

impl Missing {
    fn label(&self) -> String {
        match self.hosts.as_slice() {
            [] => String::new(),
            [one] => format!("not defined for host {one}"),
            [first, rest @ ..] => format!("not defined for host {first} and {} more", rest.len()),
        }
    }
}

fn missing_on(
    plan: &Plan,
    (play, task): (&Play, &Task),
    name: &playbook::Name,
    registered: &Results<'_>,
    hostless: bool,
) -> Option<Missing> {
    let root = name.root();
    let field = name.path.split('.').nth(1);
    let everywhere = [&plan.extra_vars, &task.vars, &play.vars, &plan.file_vars];
    if OWN_NAMES.contains(&root) {
        return missing_field(name, field, &HOST_FIELDS);
    }
    let results = registered.get(root);
    let secret = plan.secrets.iter().any(|secret| secret.name == root);
    if !secret && !everywhere.iter().any(|vars| vars.contains_key(root)) {
        let lacks = |id: &&HostId| {
            let target = &plan.targets[id.0 as usize];
            let has = |defined: &Defined| defined.elsewhere || defined.hosts.contains(id);
            !target.vars.contains_key(root) && !results.is_some_and(has)
        };
        let hosts: Vec<HostName> = play
            .hosts
            .iter()
            .filter(lacks)
            .map(|id| plan.targets[id.0 as usize].name.clone())
            .collect();
        if !hosts.is_empty() || (hostless && results.is_none()) {
            return Some(missing_name(plan, play, task, root, hosts, registered));
        }
    }
    if results.is_some_and(|defined| !defined.is_free) {
        missing_field(name, field, &RESULT_FIELDS)
    } else {
        None
    }
}

fn missing_field(name: &playbook::Name, field: Option<&str>, fields: &[&str]) -> Option<Missing> {
    let field = field.filter(|field| !fields.contains(field))?;
    let near = match text::did_you_mean(field, fields.iter().copied()) {
        Some(near) => format!("did you mean `{}.{near}`?", name.root()),
        None => format!("there are: {}", fields.join(", ")),
    };
    let message = format!("`{}` has no `{field}`", name.root());
    Some(Missing {
        message,
        hosts: Vec::new(),
        near: Some(near),
    })
}

fn missing_name(
    plan: &Plan,
    play: &Play,
    task: &Task,
    root: &str,
    hosts: Vec<HostName>,
    registered: &Results<'_>,
) -> Missing {
    let later = plan
        .plays
        .iter()
        .flat_map(|play| &play.tasks)
        .find(|t| t.defines().iter().any(|(name, _)| *name == root));
    let near = match later {
        Some(later) if later.reference.id > task.reference.id => Some(format!(
            "`{root}` is registered by a later task, `{}`",
            later.reference.name
        )),
        Some(_) => Some(format!(
            "`{root}` is registered in a play that does not have these hosts"
        )),
        None => {
            let first = play.hosts.first().map(|id| &plan.targets[id.0 as usize]);
            let layers = [&plan.file_vars, &play.vars, &task.vars, &plan.extra_vars];
            let layers = layers.into_iter().chain(first.map(|target| &target.vars));
            let names = layers
                .flat_map(|vars| vars.keys().map(String::as_str))
                .chain(plan.secrets.iter().map(|secret| secret.name.as_str()))
                .chain(registered.keys().copied());
            text::did_you_mean(root, names.chain(OWN_NAMES))
                .map(|near| format!("a variable with a similar name exists: `{near}`"))
        }
    };
    Missing {
        message: format!("unknown variable `{root}`"),
        hosts,
        near,
    }
}
