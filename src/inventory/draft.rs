//! An inventory while it is read: hosts and groups as far as they are known, and every mistake
//! found on the way.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::pattern::{Fault, Literal, PatternError};
use super::range::{NAME_LIMIT, words};
use super::{Group, Host, Set, Settings, VARS_LIMIT, weight_of};
use crate::diagnostic::{Diagnostic, Source};
use crate::target::{HostName, Vars};

/// More mistakes than anybody reads; what follows is not reported.
const DIAGNOSTIC_LIMIT: usize = 100;

/// Each group pattern looks at every host once.
const PATTERN_LIMIT: usize = 1_000;

/// Where a piece of text stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) span: Range<usize>,
    /// From 1; 0 where there is no line.
    pub(super) line: u64,
}

/// What is said about a host beside its name.
#[derive(Debug, Clone, Default)]
pub(super) struct Details {
    pub(super) settings: Settings,
    pub(super) vars: Vars,
}

/// Whether naming a host again is a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Error,
    Warn,
    Join,
}

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) source: Arc<Source>,
    pub(super) hosts: Vec<Host>,
    pub(super) groups: Vec<Group>,
    /// Where each of the groups stands.
    pub(super) group_places: Vec<Place>,
    /// Children of groups (by place), which another source may define.
    pub(super) children: Vec<(usize, String, Place)>,
    /// Patterns of groups, which wait until all names are known.
    pub(super) patterns: Vec<(usize, String, Place)>,
    /// The whole text was understood as far as its names go.
    pub(super) readable: bool,
    pub(super) vars: Vars,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    places: HashMap<String, (usize, u64)>,
    names_left: usize,
    vars_left: usize,
}

impl Draft {
    pub(super) fn new(source: &Arc<Source>) -> Self {
        Self {
            source: Arc::clone(source),
            hosts: Vec::new(),
            groups: Vec::new(),
            group_places: Vec::new(),
            children: Vec::new(),
            patterns: Vec::new(),
            readable: true,
            vars: Vars::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            places: HashMap::new(),
            names_left: 10 * NAME_LIMIT,
            vars_left: VARS_LIMIT,
        }
    }

    pub(super) fn error(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.errors.len() < DIAGNOSTIC_LIMIT {
            let mut found = Diagnostic::error(message).at(&self.source, place.span.clone(), "");
            found.help = help;
            self.errors.push(found);
        }
    }

    /// `inventory.yml:22`, or the file alone where there is no line.
    pub(super) fn origin(&self, place: &Place) -> String {
        self.origin_of(place.line)
    }

    fn origin_of(&self, line: u64) -> String {
        let path = self.source.path.display();
        match line {
            0 => path.to_string(),
            line => format!("{path}:{line}"),
        }
    }

    /// Nothing in it could matter to any host.
    pub(super) fn says_nothing(&self) -> bool {
        self.hosts.is_empty() && self.groups.is_empty() && self.vars.is_empty() && self.readable
    }

    /// Where the host of this name is first defined, if it is.
    pub(super) fn host_origin(&self, name: &str) -> Option<String> {
        let (_, line) = self.places.get(name)?;
        Some(self.origin_of(*line))
    }

    pub(super) fn fault(&mut self, text: &str, place: &Place, error: &PatternError) {
        let Fault {
            span,
            message,
            help,
        } = error.fault().clone();
        // Quoted and folded scalars stand in the file in another form than they are read.
        let exact = self.source.text.get(place.span.clone()) == Some(text);
        let span = if exact {
            place.span.start + span.start..place.span.start + span.end
        } else {
            place.span.clone()
        };
        let place = Place {
            span,
            line: place.line,
        };
        self.error(&place, message, help);
    }

    /// Adds the hosts that `text` names: words that may have ranges, a user and a port.
    pub(super) fn define(
        &mut self,
        text: &str,
        place: &Place,
        details: &Details,
        group: Option<usize>,
        again: Again,
    ) {
        for (start, word) in words(text) {
            let (literal, count) = match self.literal(word, start) {
                Ok(found) => found,
                Err(error) => {
                    self.fault(text, place, &error);
                    continue;
                }
            };
            if count > 1 && details.settings.address.is_some() {
                let message =
                    format!("`{word}` is {count} hosts, which cannot all have one address");
                self.error(
                    place,
                    message,
                    Some("give each host an entry of its own".into()),
                );
            }
            self.names_left -= count;
            let size = weight_of(&details.vars).saturating_mul(count);
            if size > self.vars_left {
                self.error(
                    place,
                    "the variables of all hosts together take more than 64 MiB",
                    None,
                );
                return;
            }
            self.vars_left -= size;
            let mut details = details.clone();
            let mut settings = literal.settings(&self.origin(place));
            settings.lay_over(&details.settings);
            details.settings = settings;
            for name in literal.host.expand() {
                self.add(&name, word, place, &details, group, again);
            }
        }
    }

    fn literal(&self, word: &str, start: usize) -> Result<(Literal, usize), PatternError> {
        let literal = Literal::parse(word, start)?;
        let limit = self.names_left.min(NAME_LIMIT);
        let count = literal.host.check_count(limit, start..start + word.len())?;
        Ok((literal, count))
    }

    fn add(
        &mut self,
        name: &str,
        word: &str,
        place: &Place,
        details: &Details,
        group: Option<usize>,
        again: Again,
    ) {
        let name = match HostName::new(name) {
            Ok(name) => name,
            Err(e) => return self.error(place, format!("`{word}`: the name {e}"), None),
        };
        if let Some(group) = group.and_then(|at| self.groups.get_mut(at)) {
            group.hosts.push(name.clone());
        }
        let Some(&(at, line)) = self.places.get(name.as_str()) else {
            if self.hosts.len() >= NAME_LIMIT {
                let message = format!("the inventory has more than {NAME_LIMIT} hosts");
                return self.error(place, message, None);
            }
            self.places
                .insert(name.to_string(), (self.hosts.len(), place.line));
            self.hosts.push(Host {
                name,
                settings: details.settings.clone(),
                vars: details.vars.clone(),
            });
            return;
        };
        match again {
            Again::Join if clash(&self.hosts[at], details) => {
                let help = (line > 0).then(|| format!("it is first defined at line {line}"));
                let message = format!("host `{name}` is defined twice, in different ways");
                self.error(place, message, help);
            }
            Again::Join => {
                self.hosts[at].settings.lay_over(&details.settings);
                self.hosts[at].vars.extend(details.vars.clone());
            }
            Again::Warn if same(&self.hosts[at].settings, &details.settings) => {
                if self.warnings.len() < DIAGNOSTIC_LIMIT {
                    let message = format!("host `{name}` is listed twice");
                    let found = Diagnostic::warning(message);
                    self.warnings
                        .push(found.at(&self.source, place.span.clone(), ""));
                }
            }
            Again::Warn | Again::Error => {
                let help = (line > 0).then(|| format!("it is first defined at line {line}"));
                self.error(place, format!("host `{name}` is defined twice"), help);
            }
        }
    }

    /// Keeps a pattern of a group until all names are known.
    pub(super) fn pattern(&mut self, group: usize, text: &str, place: &Place) {
        if self.patterns.len() == PATTERN_LIMIT {
            let message = format!("the groups have more than {PATTERN_LIMIT} patterns");
            return self.error(place, message, None);
        }
        self.patterns.push((group, text.to_owned(), place.clone()));
    }
}

/// The same user and port, wherever they were written.
fn same(a: &Settings, b: &Settings) -> bool {
    a.user.as_ref().map(|set| &set.value) == b.user.as_ref().map(|set| &set.value)
        && a.port.as_ref().map(|set| set.value) == b.port.as_ref().map(|set| set.value)
}

/// Both say something about the same thing, and not the same.
fn clash(host: &Host, details: &Details) -> bool {
    fn differ<T: PartialEq>(a: &Option<Set<T>>, b: &Option<Set<T>>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a.value != b.value)
    }
    let (a, b) = (&host.settings, &details.settings);
    let other = |(key, value)| host.vars.get(key).is_some_and(|before| before != value);
    differ(&a.address, &b.address)
        || differ(&a.port, &b.port)
        || differ(&a.user, &b.user)
        || differ(&a.identity, &b.identity)
        || differ(&a.connection, &b.connection)
        || details.vars.iter().any(other)
}
