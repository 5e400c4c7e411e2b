//! Which hosts there are: files and lists of hosts, the groups they form, the patterns that select
//! some of them, and names folded back into ranges for people.
//!
//! A source is read completely, and all its mistakes are reported at once. Several sources are one
//! space of names, later ones over earlier ones. What a group says is merged under what its hosts say when
//! the inventory is put together, so that an [`Entry`] is final.

use std::collections::{BTreeSet, HashMap};

use crate::target::{HostName, UserName, Vars};

mod draft;
mod join;
mod list;
mod node;
mod pattern;
mod range;
pub mod schema;
mod source;
#[cfg(test)]
mod tests;
mod yaml;

pub use pattern::{Fault, Pattern, PatternError, Selected, Unknown};
pub use range::{NAME_LIMIT, expand, fold};
pub use source::{Disk, Files, Loaded};

/// How many memberships (a host in a group, directly or through children) an inventory may have.
const MEMBERSHIP_LIMIT: usize = 2_000_000;

/// How many bytes the variables of all hosts together may take, groups' merged in.
const VARS_LIMIT: usize = 64 << 20;

/// Hosts and groups, in the order in which they were first named.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    hosts: Vec<Host>,
    groups: Vec<Group>,
    vars: Vars,
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
    group_places: HashMap<String, usize>,
    excess: Option<&'static str>,
}

/// One host, final: its groups' settings and variables are merged under its own, parents before
/// children, later groups over earlier ones.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the inventory calls it.
    pub name: HostName,
    /// How it is reached.
    pub settings: Settings,
    /// Its variables.
    pub vars: Vars,
    /// The groups it is in: those that name it first, then those that hold such a group.
    pub groups: Vec<String>,
}

/// How a host is reached. What nobody said is left to `ssh_config` and defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What is connected to in place of the name.
    pub address: Option<Set<String>>,
    /// TCP port, from 1.
    pub port: Option<Set<u16>>,
    /// Account on the host.
    pub user: Option<Set<UserName>>,
    /// Private key files, in the order in which they are offered.
    pub identity: Option<Set<Vec<String>>>,
    /// Over SSH, or child processes here.
    pub connection: Option<Set<Connection>>,
}

/// A value, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T> {
    /// The value.
    pub value: T,
    /// For messages: `inventory.yml:22 (group cache)`.
    pub origin: String,
}

/// The way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Over SSH.
    Ssh,
    /// Child processes of this process.
    Local,
}

#[derive(Debug, Clone)]
struct Host {
    name: HostName,
    settings: Settings,
    vars: Vars,
}

#[derive(Debug, Clone, Default)]
struct Group {
    name: String,
    hosts: Vec<HostName>,
    children: Vec<String>,
    settings: Settings,
    vars: Vars,
    places: Vec<usize>,
    members: Vec<HostName>,
}

impl Settings {
    /// Lets everything that `over` says win.
    pub(crate) fn lay_over(&mut self, over: &Settings) {
        fn put<T: Clone>(under: &mut Option<Set<T>>, over: &Option<Set<T>>) {
            if over.is_some() {
                under.clone_from(over);
            }
        }
        put(&mut self.address, &over.address);
        put(&mut self.port, &over.port);
        put(&mut self.user, &over.user);
        put(&mut self.identity, &over.identity);
        put(&mut self.connection, &over.connection);
    }
}

impl Inventory {
    /// An inventory without hosts.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Hosts that are all in one group, for fleets that are made rather than read. A name that
    /// comes twice keeps its first settings.
    #[must_use]
    pub fn with_hosts(group: &str, hosts: Vec<(HostName, Settings)>) -> Inventory {
        let mut seen = BTreeSet::new();
        let hosts: Vec<Host> = hosts
            .into_iter()
            .filter(|(name, _)| seen.insert(name.clone()))
            .map(|(name, settings)| Host {
                name,
                settings,
                vars: Vars::new(),
            })
            .collect();
        let group = Group {
            name: group.to_owned(),
            hosts: hosts.iter().map(|host| host.name.clone()).collect(),
            ..Group::default()
        };
        Self::put_together(hosts, vec![group], Vars::new())
    }

    /// The host of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.places.get(name).and_then(|&at| self.entries.get(at))
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// All groups in order, with their hosts (their children's too) in the inventory's order.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &[HostName])> {
        self.groups
            .iter()
            .map(|group| (group.name.as_str(), group.members.as_slice()))
    }

    /// No host at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Both, `other` over `self`: hosts and groups of one name become one, and what `other` says
    /// about them wins.
    #[must_use]
    pub fn merge(self, other: Inventory) -> Inventory {
        let Self {
            mut hosts,
            mut groups,
            mut vars,
            places,
            group_places,
            ..
        } = self;
        for host in other.hosts {
            match places
                .get(host.name.as_str())
                .and_then(|&at| hosts.get_mut(at))
            {
                None => hosts.push(host),
                Some(under) => {
                    under.settings.lay_over(&host.settings);
                    under.vars.extend(host.vars);
                }
            }
        }
        for group in other.groups {
            match group_places
                .get(&group.name)
                .and_then(|&at| groups.get_mut(at))
            {
                None => groups.push(group),
                Some(under) => {
                    under.settings.lay_over(&group.settings);
                    under.vars.extend(group.vars);
                    under.hosts.extend(group.hosts);
                    under.children.extend(group.children);
                }
            }
        }
        vars.extend(other.vars);
        Self::put_together(hosts, groups, vars)
    }

    /// The places of a group's hosts.
    fn group_members(&self, name: &str) -> Option<impl Iterator<Item = usize>> {
        let group = self.groups.get(*self.group_places.get(name)?)?;
        Some(group.places.iter().copied())
    }

    fn put_together(hosts: Vec<Host>, groups: Vec<Group>, vars: Vars) -> Self {
        let mut made = Self {
            places: index(hosts.iter().map(|host| host.name.as_str())),
            group_places: index(groups.iter().map(|group| group.name.as_str())),
            hosts,
            groups,
            vars,
            ..Self::default()
        };
        let order = made.parents_first();
        made.fill_groups(&order);
        if made.excess.is_none() {
            made.fill_entries(&order);
        }
        made
    }

    /// Groups by depth, roots first; groups of one depth in written order. In a ring of groups
    /// the ones that close it are last.
    fn parents_first(&self) -> Vec<usize> {
        let children = |at: usize| self.children(at);
        let mut parents = vec![0_usize; self.groups.len()];
        (0..self.groups.len())
            .flat_map(children)
            .for_each(|child| parents[child] += 1);
        let mut level: Vec<usize> = (0..parents.len()).filter(|&at| parents[at] == 0).collect();
        let mut order = Vec::with_capacity(parents.len());
        while !level.is_empty() {
            level.sort_unstable();
            order.extend(&level);
            let mut next = Vec::new();
            for child in level.into_iter().flat_map(children) {
                parents[child] -= 1;
                if parents[child] == 0 {
                    next.push(child);
                }
            }
            level = next;
        }
        order.extend((0..parents.len()).filter(|&at| parents[at] > 0));
        order
    }

    fn children(&self, at: usize) -> impl Iterator<Item = usize> {
        let children = self.groups[at].children.iter();
        children.filter_map(|child| self.group_places.get(child).copied())
    }

    /// Groups that hold themselves, each the parent of the next and the last the first's. Empty
    /// where there is no such ring.
    fn ring(&self) -> Vec<&str> {
        let mut parents = vec![0_usize; self.groups.len()];
        (0..self.groups.len())
            .flat_map(|at| self.children(at))
            .for_each(|child| parents[child] += 1);
        let mut free: Vec<usize> = (0..parents.len()).filter(|&at| parents[at] == 0).collect();
        while let Some(at) = free.pop() {
            for child in self.children(at) {
                parents[child] -= 1;
                if parents[child] == 0 {
                    free.push(child);
                }
            }
        }
        // What hangs below a ring also keeps a parent; only a member reaches itself again.
        let left: BTreeSet<usize> = (0..parents.len()).filter(|&at| parents[at] > 0).collect();
        let Some(&first) = left.first() else {
            return Vec::new();
        };
        let mut at = first;
        let mut back: HashMap<usize, usize> = HashMap::new();
        for &group in &left {
            back.extend(self.children(group).map(|child| (child, group)));
        }
        for _ in 0..left.len() {
            at = back.get(&at).copied().unwrap_or(at);
        }
        let mut ring = vec![at];
        let parent = |at: usize| back.get(&at).copied().unwrap_or(at);
        let mut next = parent(at);
        while next != at {
            ring.push(next);
            next = parent(next);
        }
        ring.reverse();
        let names = ring.into_iter().map(|at| self.groups[at].name.as_str());
        names.collect()
    }

    fn fill_groups(&mut self, order: &[usize]) {
        let mut total = 0_usize;
        for &at in order.iter().rev() {
            let named = self.groups[at].hosts.iter();
            let mut places: Vec<usize> = named
                .filter_map(|host| self.places.get(host.as_str()).copied())
                .collect();
            for child in self.children(at) {
                places.extend(&self.groups[child].places);
                if places.len() > MEMBERSHIP_LIMIT {
                    break;
                }
            }
            places.sort_unstable();
            places.dedup();
            total = total.saturating_add(places.len());
            if total > MEMBERSHIP_LIMIT {
                self.excess = Some("the groups of the inventory have more than 2000000 members");
                return;
            }
            let members = places
                .iter()
                .map(|&at| self.hosts[at].name.clone())
                .collect();
            self.groups[at].places = places;
            self.groups[at].members = members;
        }
    }

    fn fill_entries(&mut self, order: &[usize]) {
        let mut of_host: Vec<Vec<usize>> = vec![Vec::new(); self.hosts.len()];
        let mut size = weight_of(&self.vars).saturating_mul(self.hosts.len());
        for &at in order {
            let group = &self.groups[at];
            size = size.saturating_add(weight_of(&group.vars).saturating_mul(group.places.len()));
            group.places.iter().for_each(|&host| of_host[host].push(at));
        }
        if size > VARS_LIMIT {
            self.excess = Some("the variables of all hosts together take more than 64 MiB");
            return;
        }
        let mut named: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.hosts.len()];
        for (at, group) in self.groups.iter().enumerate() {
            let places = group
                .hosts
                .iter()
                .filter_map(|host| self.places.get(host.as_str()));
            for &host in places {
                named[host].insert(at);
            }
        }
        self.entries = (0..self.hosts.len())
            .map(|at| self.entry(at, &of_host[at], &named[at]))
            .collect();
    }

    fn entry(&self, at: usize, groups: &[usize], named: &BTreeSet<usize>) -> Entry {
        let host = &self.hosts[at];
        let mut settings = Settings::default();
        let mut vars = self.vars.clone();
        for group in groups.iter().filter_map(|&at| self.groups.get(at)) {
            settings.lay_over(&group.settings);
            vars.extend(group.vars.clone());
        }
        settings.lay_over(&host.settings);
        vars.extend(host.vars.clone());
        let others = groups.iter().filter(|at| !named.contains(at));
        let all = named.iter().chain(others);
        Entry {
            name: host.name.clone(),
            settings,
            vars,
            groups: all.map(|&at| self.groups[at].name.clone()).collect(),
        }
    }
}

fn index<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<String, usize> {
    names
        .enumerate()
        .map(|(at, name)| (name.to_owned(), at))
        .collect()
}

/// Bytes that variables take, roughly.
fn weight_of(vars: &Vars) -> usize {
    vars.iter()
        .map(|(key, value)| key.len() + weight(value))
        .sum()
}

fn weight(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 32,
        Value::String(text) => 32 + text.len(),
        Value::Array(items) => 32 + items.iter().map(weight).sum::<usize>(),
        Value::Object(vars) => 32 + weight_of(vars),
    }
}
