//! Host patterns: which hosts of an inventory are meant.
//!
//! A pattern is read from left to right. Every operator applies to everything on its left:
//! `web,db !db2 & eu` is `((web or db) without db2) and also in eu`.
//!
//! | written | means |
//! |---|---|
//! | `a,b` or `a b` | union |
//! | `a & b` | hosts in both |
//! | `a ! b`, `a !b` | hosts in `a` but not in `b` |
//! | `all` | every host of the inventory |
//! | `@web` | the group `web` |
//! | `web` | the host `web`, or else the group `web` |
//! | `web[01-20/2]`, `r[1-2]n[a,c-e]` | ranges, as in [`super::expand`] |
//! | `web*`, `db?` | globs; `[...]` in a glob is a range, never a set of characters |
//! | `/^web\d+$/` | a regular expression (of the `regex` crate, not anchored); `\/` is a slash |
//! | `user@host:port`, `[::1]:22`, `fe80::1%eth0` | a host with its way in |

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::range::{NAME_LIMIT, Template};
use super::{Connection, Inventory, Set, Settings};
use crate::target::{HostName, UserName};
use crate::text::{did_you_mean, printable};

/// Compiled regular expressions may take this many bytes.
const REGEX_LIMIT: usize = 1 << 20;

/// One glob may stand for this many by its ranges: each of them looks at every host.
const GLOB_LIMIT: usize = 1_000;

/// What is wrong with a pattern, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Byte range in the pattern's text.
    pub span: Range<usize>,
    /// A lower-case fragment that names its object.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// Why a pattern could not be read, or selected nothing that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is not a pattern.
    #[error("{}", .0.message)]
    Written(Fault),
    /// It stands for more than [`NAME_LIMIT`] names. Found before any of them is made.
    #[error("{}", .0.message)]
    TooMany(Fault),
    /// It names a host or group that the inventory does not have.
    #[error("{}", .0.message)]
    Unknown(Fault),
    /// It is right, but the whole of it, or a glob, a group or a regular expression in it,
    /// matches no host.
    #[error("{}", .0.message)]
    NothingMatched(Fault),
}

impl PatternError {
    pub(super) fn written(span: Range<usize>, message: impl Into<String>) -> Self {
        Self::Written(Fault {
            span,
            message: message.into(),
            help: None,
        })
    }

    pub(super) fn too_many(span: Range<usize>, count: u128) -> Self {
        let count = match count {
            u128::MAX => "more than 2^128".to_owned(),
            n => n.to_string(),
        };
        Self::TooMany(Fault {
            span,
            message: format!("the range stands for {count} names"),
            help: Some(format!("one expression can stand for at most {NAME_LIMIT}")),
        })
    }

    fn unknown(span: Range<usize>, message: String, help: Option<String>) -> Self {
        Self::Unknown(Fault {
            span,
            message,
            help,
        })
    }

    fn nothing(span: Range<usize>, message: String) -> Self {
        Self::NothingMatched(Fault {
            span,
            message,
            help: None,
        })
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.fault_mut().help = Some(help.into());
        self
    }

    fn fault_mut(&mut self) -> &mut Fault {
        match self {
            Self::Written(f) | Self::TooMany(f) | Self::Unknown(f) | Self::NothingMatched(f) => f,
        }
    }

    /// Place, message and help.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Written(f) | Self::TooMany(f) | Self::Unknown(f) | Self::NothingMatched(f) => f,
        }
    }
}

/// What becomes of a literal name that the inventory does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is an error: a typo must not dial a stranger.
    Refuse,
    /// It is dialled as `ssh NAME` would. For runs without any inventory.
    Dial,
}

/// One host that a pattern selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Its name. For a name that is dialled also what is connected to.
    pub name: HostName,
    /// The inventory's settings, under those that the pattern itself gives (`user@host:port`).
    pub settings: Settings,
    /// The inventory has it, so that [`Inventory::get`] gives variables and groups.
    pub listed: bool,
}

/// A parsed pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    terms: Vec<Term>,
    length: usize,
}

#[derive(Debug, Clone)]
struct Term {
    operator: Operator,
    atom: Atom,
    text: String,
    span: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Not,
}

#[derive(Debug, Clone)]
enum Atom {
    All,
    Group(Template),
    Glob(Template),
    Matching(Regex),
    Name(Literal),
}

/// `user@host:port`, the host perhaps with ranges.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    pub(super) user: Option<UserName>,
    pub(super) host: Template,
    pub(super) port: Option<u16>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError::Written`] and [`PatternError::TooMany`], with the place in `text`.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let mut terms = Vec::new();
        let mut left = NAME_LIMIT;
        let mut pending: Option<(Operator, usize)> = None;
        for (start, token) in tokens(text)? {
            let operator = match token {
                "&" => Some(Operator::And),
                "!" => Some(Operator::Not),
                _ => None,
            };
            let span = start..start + token.len();
            if let Some(operator) = operator {
                check_operator(token, span, terms.is_empty(), pending.is_some())?;
                pending = Some((operator, start));
                continue;
            }
            let (atom, count) = parse_atom(token, start, left)?;
            left -= count;
            let operator = pending
                .take()
                .map_or(Operator::Or, |(operator, _)| operator);
            let text = token.to_owned();
            terms.push(Term {
                operator,
                atom,
                text,
                span,
            });
        }
        if let Some((_, at)) = pending {
            return Err(PatternError::written(
                at..at + 1,
                "nothing follows this operator",
            ));
        }
        if terms.is_empty() {
            return Err(PatternError::written(0..text.len(), "the pattern is empty")
                .with_help("`all` stands for every host"));
        }
        Ok(Pattern {
            terms,
            length: text.len(),
        })
    }

    /// The hosts that are meant: those of the inventory in its order, then those that are dialled
    /// in the order in which they were written; none twice.
    ///
    /// The name `localhost` is a local connection, unless the pattern or the inventory gives it an
    /// address, a port, a user, an identity or a connection.
    ///
    /// # Errors
    /// [`PatternError::Unknown`] for names and groups that do not exist (the latter under either
    /// `unknown`), [`PatternError::NothingMatched`] if the whole pattern, or any glob, group or
    /// regular expression in it, matches nothing.
    pub fn select(
        &self,
        inventory: &Inventory,
        unknown: Unknown,
    ) -> Result<Vec<Selected>, PatternError> {
        self.run(inventory, unknown, false)
    }

    /// The same for callers to whom an empty selection is welcome: globs, groups and regular
    /// expressions that match nothing are empty sets. Unknown names stay errors.
    ///
    /// # Errors
    /// As [`Pattern::select`], less [`PatternError::NothingMatched`].
    pub fn select_or_empty(
        &self,
        inventory: &Inventory,
        unknown: Unknown,
    ) -> Result<Vec<Selected>, PatternError> {
        self.run(inventory, unknown, true)
    }

    fn run(
        &self,
        inventory: &Inventory,
        unknown: Unknown,
        empty: bool,
    ) -> Result<Vec<Selected>, PatternError> {
        let mut selection = Selection {
            inventory,
            unknown,
            empty,
            dialled: Vec::new(),
            places: HashMap::new(),
            given: HashMap::new(),
        };
        let mut chosen: BTreeSet<usize> = BTreeSet::new();
        for term in &self.terms {
            let found = selection.term(term)?;
            match term.operator {
                Operator::Or => chosen.extend(found),
                Operator::And => chosen.retain(|at| found.contains(at)),
                Operator::Not => chosen.retain(|at| !found.contains(at)),
            }
        }
        if chosen.is_empty() && !empty {
            let message = "the pattern matches no host".to_owned();
            return Err(PatternError::nothing(0..self.length, message));
        }
        Ok(chosen
            .into_iter()
            .map(|at| selection.selected(at))
            .collect())
    }
}

fn check_operator(
    token: &str,
    span: Range<usize>,
    first: bool,
    doubled: bool,
) -> Result<(), PatternError> {
    if first {
        let help = format!("write what it applies to first, as in `all {token} x`");
        return Err(
            PatternError::written(span, format!("nothing stands before `{token}`")).with_help(help),
        );
    }
    if doubled {
        return Err(PatternError::written(
            span,
            "two operators follow one another",
        ));
    }
    Ok(())
}

/// Cuts a pattern at separators and operators that stand outside brackets and slashes.
fn tokens(text: &str) -> Result<Vec<(usize, &str)>, PatternError> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let at = text.len() - rest.len();
        let length = match c {
            ',' => 1,
            _ if c.is_whitespace() => c.len_utf8(),
            '&' | '!' => 1,
            '/' => regex_length(rest, at)?,
            _ => word_length(rest),
        };
        if c != ',' && !c.is_whitespace() {
            found.push((at, &rest[..length]));
        }
        rest = &rest[length..];
        check_comma(text, at, c, found.last().map(|(_, token)| *token))?;
        if c == '/'
            && !rest.is_empty()
            && !rest.starts_with([',', '&', '!'])
            && !rest.starts_with(char::is_whitespace)
        {
            let at = at + length;
            return Err(
                PatternError::written(at..at + 1, "something follows the closing `/`")
                    .with_help("a slash inside the expression is written `\\/`"),
            );
        }
    }
    Ok(found)
}

/// `a &, b` would silently lose one of its two operators.
fn check_comma(text: &str, at: usize, c: char, last: Option<&str>) -> Result<(), PatternError> {
    if c == ',' && matches!(last, Some("&" | "!")) {
        let around = &text[at..=at];
        return Err(PatternError::written(
            at..at + 1,
            format!("`{around}` follows an operator"),
        ));
    }
    Ok(())
}

fn regex_length(rest: &str, at: usize) -> Result<usize, PatternError> {
    let mut escaped = false;
    for (offset, c) in rest.char_indices().skip(1) {
        match c {
            '/' if !escaped => return Ok(offset + 1),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    Err(PatternError::written(
        at..at + rest.len(),
        "the regular expression is never closed",
    )
    .with_help("write it between slashes: `/^web/`"))
}

fn word_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' | '&' | '!' if depth == 0 => return at,
            _ if c.is_whitespace() && depth == 0 => return at,
            _ => {}
        }
    }
    rest.len()
}

/// The atom and how many names it stands for.
fn parse_atom(token: &str, start: usize, left: usize) -> Result<(Atom, usize), PatternError> {
    let span = start..start + token.len();
    if token == "all" || token == "@all" {
        return Ok((Atom::All, 1));
    }
    if let Some(inner) = token.strip_prefix('/') {
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        return parse_regex(inner, span).map(|regex| (Atom::Matching(regex), 1));
    }
    if let Some(group) = token.strip_prefix('@') {
        let template = Template::parse(group, start + 1)?;
        check_name(&template.first(), token, span.clone())?;
        let count = template.check_count(left, span)?;
        return Ok((Atom::Group(template), count));
    }
    if token.contains(['*', '?']) {
        let template = Template::parse(token, start)?;
        check_name(
            &template.first().replace(['*', '?'], "x"),
            token,
            span.clone(),
        )?;
        let count = template.check_count(left.min(GLOB_LIMIT), span)?;
        return Ok((Atom::Glob(template), count));
    }
    let literal = Literal::parse(token, start)?;
    let count = literal.host.check_count(left, span)?;
    Ok((Atom::Name(literal), count))
}

fn parse_regex(inner: &str, span: Range<usize>) -> Result<Regex, PatternError> {
    if inner.is_empty() {
        return Err(PatternError::written(
            span,
            "the regular expression is empty",
        ));
    }
    RegexBuilder::new(&inner.replace("\\/", "/"))
        .size_limit(REGEX_LIMIT)
        .build()
        .map_err(|e| {
            let text = e.to_string();
            let cause = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            let message = format!(
                "`/{}/` is not a regular expression: {cause}",
                printable(inner.as_bytes())
            );
            PatternError::written(span, message)
        })
}

fn check_name(name: &str, token: &str, span: Range<usize>) -> Result<(), PatternError> {
    HostName::new(name).map(drop).map_err(|e| {
        let token = printable(token.as_bytes()).into_owned();
        PatternError::written(span, format!("`{token}` is not a host: its name {e}"))
    })
}

impl Literal {
    /// Parses `user@host:port`, an IPv6 address bare or in brackets, or a plain name.
    pub(super) fn parse(token: &str, start: usize) -> Result<Self, PatternError> {
        let span = start..start + token.len();
        let (user, host) = match token.split_once('@') {
            None => (None, token),
            Some((_, rest)) if rest.contains('@') => {
                let shown = printable(token.as_bytes());
                return Err(PatternError::written(
                    span,
                    format!("`{shown}` has more than one `@`"),
                ));
            }
            Some((user, host)) => (Some(parse_user(user, token, span.clone())?), host),
        };
        let host_start = start + token.len() - host.len();
        let (host, host_start, port) = split_port(host, host_start, token)?;
        let template = Template::parse(host, host_start)?;
        check_name(&template.first(), token, span)?;
        Ok(Self {
            user,
            host: template,
            port,
        })
    }

    /// The settings that the literal itself gives.
    pub(super) fn settings(&self, origin: &str) -> Settings {
        let origin = || origin.to_owned();
        Settings {
            user: self.user.clone().map(|value| Set {
                value,
                origin: origin(),
            }),
            port: self.port.map(|value| Set {
                value,
                origin: origin(),
            }),
            ..Settings::default()
        }
    }
}

fn parse_user(user: &str, token: &str, span: Range<usize>) -> Result<UserName, PatternError> {
    UserName::new(user).map_err(|e| {
        let token = printable(token.as_bytes()).into_owned();
        PatternError::written(span, format!("`{token}` is not a host: its user name {e}"))
    })
}

type HostAndPort<'a> = (&'a str, usize, Option<u16>);

/// Takes the port off a host. `[::1]` is an address because of its colons; any other bracket is a
/// range.
fn split_port<'a>(
    host: &'a str,
    start: usize,
    token: &str,
) -> Result<HostAndPort<'a>, PatternError> {
    let end = start + host.len();
    let shown = || printable(token.as_bytes()).into_owned();
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|h| h.split_once(']'))
        && address.contains(':')
        && !address.contains('[')
    {
        if address
            .split('%')
            .next()
            .unwrap_or_default()
            .parse::<std::net::Ipv6Addr>()
            .is_err()
        {
            let message = format!("`[{address}]` is neither an IPv6 address nor a range");
            return Err(PatternError::written(start..end, message)
                .with_help("a range is written with `-`, as in `[1-20]`"));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((
                address,
                start + 1,
                Some(parse_port(port, end - port.len()..end)?),
            )),
            None if rest.is_empty() => Ok((address, start + 1, None)),
            None => Err(PatternError::written(
                end - rest.len()..end,
                format!("only `:port` can follow the address in `{}`", shown()),
            )),
        };
    }
    let mut depth = 0_usize;
    let mut colons = Vec::new();
    for (at, c) in host.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => colons.push(at),
            _ => {}
        }
    }
    match colons[..] {
        [] => Ok((host, start, None)),
        [colon] => {
            let port = parse_port(&host[colon + 1..], start + colon + 1..end)?;
            Ok((&host[..colon], start, Some(port)))
        }
        // Two colons or more can only be an IPv6 address, and then nothing in it is a port.
        _ if host.contains('[')
            || host
                .split('%')
                .next()
                .unwrap_or_default()
                .parse::<std::net::Ipv6Addr>()
                .is_ok() =>
        {
            Ok((host, start, None))
        }
        _ => Err(PatternError::written(
            start..end,
            format!("`{}` has several colons but is no IPv6 address", shown()),
        )
        .with_help("an IPv6 address with a port is written `[::1]:2222`")),
    }
}

fn parse_port(port: &str, span: Range<usize>) -> Result<u16, PatternError> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => {
            let shown = printable(port.as_bytes()).into_owned();
            Err(
                PatternError::written(span, format!("`{shown}` is not a port"))
                    .with_help("a port is a number from 1 to 65535"),
            )
        }
    }
}

/// Matches `*` (any text) and `?` (one character) in time linear in both for each star.
fn glob_matches(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, n));
                g += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match retry {
                None => return false,
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    g = star;
                    n = from + 1;
                }
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

/// The work of selecting. Hosts are numbers: the inventory's places, then dialled names.
struct Selection<'a> {
    inventory: &'a Inventory,
    unknown: Unknown,
    empty: bool,
    dialled: Vec<HostName>,
    places: HashMap<HostName, usize>,
    given: HashMap<usize, Settings>,
}

impl Selection<'_> {
    fn term(&mut self, term: &Term) -> Result<BTreeSet<usize>, PatternError> {
        let inventory = self.inventory;
        let found: BTreeSet<usize> = match &term.atom {
            Atom::Name(literal) => return self.literal(literal, term),
            Atom::All => (0..inventory.entries.len()).collect(),
            Atom::Group(template) => self.groups(template, term)?,
            Atom::Matching(regex) => self.matching(|name| regex.is_match(name)),
            Atom::Glob(template) => {
                let mut found = BTreeSet::new();
                for glob in template.expand() {
                    found.append(&mut self.matching(|name| glob_matches(&glob, name)));
                }
                found
            }
        };
        if found.is_empty() && !self.empty {
            let error = PatternError::nothing(
                term.span.clone(),
                format!("`{}` matches no host", printable(term.text.as_bytes())),
            );
            return Err(if inventory.is_empty() {
                error.with_help("there is no inventory; give one with `-i`")
            } else {
                error
            });
        }
        Ok(found)
    }

    fn matching(&self, test: impl Fn(&str) -> bool) -> BTreeSet<usize> {
        let entries = self.inventory.entries.iter().enumerate();
        entries
            .filter(|(_, entry)| test(entry.name.as_str()))
            .map(|(at, _)| at)
            .collect()
    }

    fn groups(&self, template: &Template, term: &Term) -> Result<BTreeSet<usize>, PatternError> {
        let mut found = BTreeSet::new();
        for name in template.expand() {
            let members = self.inventory.group_members(&name).ok_or_else(|| {
                let names = self.inventory.groups().map(|(name, _)| name);
                let help =
                    did_you_mean(&name, names).map(|near| format!("did you mean `@{near}`?"));
                let message = format!("there is no group `{name}`");
                PatternError::unknown(term.span.clone(), message, help)
            })?;
            found.extend(members);
        }
        Ok(found)
    }

    fn literal(&mut self, literal: &Literal, term: &Term) -> Result<BTreeSet<usize>, PatternError> {
        let mut found = BTreeSet::new();
        let given = literal.settings(&format!("`{}`", term.text));
        for name in literal.host.expand() {
            check_name(&name, &name, term.span.clone())?;
            let places = self.name(&name, literal, term)?;
            if term.operator != Operator::Not && given != Settings::default() {
                for &at in &places {
                    self.give(at, &given, term)?;
                }
            }
            found.extend(places);
        }
        Ok(found)
    }

    fn name(
        &mut self,
        name: &str,
        literal: &Literal,
        term: &Term,
    ) -> Result<Vec<usize>, PatternError> {
        if let Some(&at) = self.inventory.places.get(name) {
            return Ok(vec![at]);
        }
        let plain = literal.user.is_none() && literal.port.is_none();
        if plain && let Some(members) = self.inventory.group_members(name) {
            let members: Vec<usize> = members.collect();
            if members.is_empty() && !self.empty {
                let message = format!("the group `{name}` has no host");
                return Err(PatternError::nothing(term.span.clone(), message));
            }
            return Ok(members);
        }
        if self.unknown == Unknown::Dial || name == "localhost" && plain {
            return self.dial(name, term).map(|at| vec![at]);
        }
        if self.inventory.group_members(name).is_some() {
            let message = format!("`{name}` is a group, which has no one user or port");
            return Err(PatternError::written(term.span.clone(), message));
        }
        Err(self.unknown_name(name, term))
    }

    fn dial(&mut self, name: &str, term: &Term) -> Result<usize, PatternError> {
        let host = HostName::new(name)
            .map_err(|e| PatternError::written(term.span.clone(), format!("`{name}` {e}")))?;
        let next = self.inventory.entries.len() + self.dialled.len();
        let at = *self.places.entry(host.clone()).or_insert(next);
        if at == next {
            self.dialled.push(host);
        }
        Ok(at)
    }

    /// Settings in the pattern itself win over the inventory, but must agree with one another.
    fn give(&mut self, at: usize, given: &Settings, term: &Term) -> Result<(), PatternError> {
        let port = given.port.as_ref().map(|set| set.value);
        let user = given.user.as_ref().map(|set| &set.value);
        if let Some(before) = self.given.get(&at)
            && (before.port.as_ref().map(|set| set.value) != port
                || before.user.as_ref().map(|set| &set.value) != user)
        {
            let message = format!(
                "`{}` names a host a second time, with another user or port",
                term.text
            );
            return Err(PatternError::written(term.span.clone(), message).with_help(
                "give each a name of its own in an inventory, with `address` and `port`",
            ));
        }
        self.given.entry(at).or_insert_with(|| given.clone());
        Ok(())
    }

    fn unknown_name(&self, name: &str, term: &Term) -> PatternError {
        let hosts = self.inventory.hosts().map(|entry| entry.name.as_str());
        let groups = self.inventory.groups().map(|(name, _)| name);
        let help = did_you_mean(name, hosts.chain(groups).chain(["all"]))
            .map(|near| format!("did you mean `{near}`?"));
        let message = format!("the inventory has no host or group `{name}`");
        PatternError::unknown(term.span.clone(), message, help)
    }

    fn selected(&self, at: usize) -> Selected {
        let entry = self.inventory.entries.get(at);
        let mut settings = entry
            .map(|entry| entry.settings.clone())
            .unwrap_or_default();
        if let Some(given) = self.given.get(&at) {
            settings.lay_over(given);
        }
        let name = match entry {
            Some(entry) => entry.name.clone(),
            None => self.dialled[at - self.inventory.entries.len()].clone(),
        };
        if name.as_str() == "localhost" && settings == Settings::default() {
            settings.connection = Some(Set {
                value: Connection::Local,
                origin: "the name `localhost`".into(),
            });
        }
        Selected {
            name,
            settings,
            listed: entry.is_some(),
        }
    }
}
