//! Tasks that one host does on behalf of others: which host that is, found before anything runs, so
//! that every host that is going to be connected to is known and known to exist.

use std::collections::HashMap;
use std::sync::Arc;

use super::build::Draft;
use super::control::ITEM_NAMES;
use super::values::{FACTS, Fill};
use super::{Moment, Plan, Task};
use crate::diagnostic::{At, Diagnostic};
use crate::job::{HostId, Memory, TaskId};
use crate::playbook::{Located, Name, Settings, Template};
use crate::target::{HostName, Way};

/// How the host is reached that does a task.
#[derive(Debug)]
pub(super) enum Delegate {
    /// One does it for all.
    One(Arc<Way>),
    /// It depends on the host that it is done for.
    Each(HashMap<HostId, Arc<Way>>),
}

impl Delegate {
    pub(super) fn of(&self, host: HostId) -> Option<&Arc<Way>> {
        match self {
            Self::One(way) => Some(way),
            Self::Each(ways) => ways.get(&host),
        }
    }
}

/// Hosts that were named in a play, and the ways to them with its settings.
type Known = HashMap<HostName, Arc<Way>>;

impl Draft<'_> {
    /// Finds the hosts. Those that depend on values are only looked for where every value is known
    /// to exist (`sure`).
    pub(super) fn delegate(&mut self, plan: &mut Plan, of_plays: &[Settings], sure: bool) {
        for (at, settings) in of_plays.iter().enumerate() {
            let mut known = Known::new();
            for place in 0..plan.plays[at].tasks.len() {
                let task = &plan.plays[at].tasks[place];
                let Some(to) = task.control.delegate_to.clone() else {
                    continue;
                };
                let id = task.reference.id;
                let found = match to.value.literal() {
                    Some(name) => self
                        .deputy(name, &to.at, settings, &mut known)
                        .map(Delegate::One),
                    None if sure => self.deputies(plan, id, &to, settings, &mut known),
                    None => None,
                };
                plan.plays[at].tasks[place].delegate = found;
            }
        }
    }

    fn deputies(
        &mut self,
        plan: &Plan,
        task: TaskId,
        to: &Located<Template>,
        settings: &Settings,
        known: &mut Known,
    ) -> Option<Delegate> {
        let play = &plan.plays[usize::from(task.play.0)];
        let memory = Memory::default();
        let mut ways = HashMap::with_capacity(play.hosts.len());
        for host in &play.hosts {
            let fill = Fill::new(plan, play, plan.task(task), *host, Moment::before(&memory));
            let before = self.errors.len();
            let way = match fill.text(&to.value) {
                Ok(name) if name == fill.host() => Some(plan.way(*host, task.play)),
                Ok(name) => self.deputy(&name, &to.at, settings, known),
                Err(reason) => {
                    self.errors.push(Diagnostic::error(reason));
                    None
                }
            };
            // The name does not stand in the text, so that no part of that can be pointed at.
            for mistake in self.errors.drain(before..).collect::<Vec<_>>() {
                let label = format!("for host {}", fill.host());
                let place = mistake.at(&to.at.source, to.at.span.clone(), label);
                self.errors.push(place);
            }
            ways.insert(*host, way?);
        }
        Some(Delegate::Each(ways))
    }

    fn deputy(
        &mut self,
        name: &str,
        at: &At,
        settings: &Settings,
        known: &mut Known,
    ) -> Option<Arc<Way>> {
        let hosts = self.select_at(name, at);
        let [host] = hosts.as_slice() else {
            if !hosts.is_empty() {
                let message = format!("`{name}` is more than one host");
                let mistake = Diagnostic::error(message).at(&at.source, at.span.clone(), "");
                self.errors
                    .push(mistake.help("a task is delegated to one host"));
            }
            return None;
        };
        if let Some(way) = known.get(&host.name) {
            return Some(Arc::clone(way));
        }
        let way = Arc::new(self.way(host, settings));
        known.insert(host.name.clone(), Arc::clone(&way));
        Some(way)
    }
}

/// Names that `delegate_to` uses and that have no value before tasks have run.
pub(super) fn known_too_late(plan: &Plan) -> Vec<Diagnostic> {
    let tasks = || plan.plays.iter().flat_map(|play| &play.tasks);
    let given: Vec<&str> = tasks()
        .flat_map(Task::defines)
        .map(|(name, _)| name)
        .collect();
    let late = |name: &Name| {
        let root = name.root();
        let mut parts = name.path.split('.').skip(1);
        let of_host = root == "host" && parts.next().is_none_or(|part| FACTS.contains(&part));
        of_host
            || given.contains(&root)
            || ITEM_NAMES.contains(&root)
            || plan.secrets.iter().any(|secret| secret.name == root)
    };
    let mistake = |(name, at): (&Name, &At)| {
        let message = format!("`delegate_to` cannot use `{}`", name.path);
        let label = "known only while tasks run";
        Diagnostic::error(message)
            .at(&at.source, name.span.clone(), label)
            .help("which hosts are connected to is found before: use variables, or `host.name`")
    };
    tasks()
        .filter_map(|task| task.control.delegate_to.as_ref())
        .flat_map(|to| to.value.names().map(|name| (name, &to.at)))
        .filter(|(name, _)| late(name))
        .map(mistake)
        .collect()
}
