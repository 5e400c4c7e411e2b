//! YAML inventories, and the inline hosts of a playbook.
//!
//! ```yaml
//! hosts:
//!   web[01-12]: {user: deploy, port: 2222}
//!   db1: {address: 10.0.0.7, identity: ~/.ssh/db, vars: {role: primary}}
//! groups:
//!   web: {hosts: ["web[01-12]"], vars: {tier: front}}
//!   all_of_it: {children: [web], hosts: [db1]}
//! vars: {site: eu}
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::draft::{Again, Details, Draft, Place};
use super::join::join;
use super::node::{Kind, Node, parse};
use super::{Connection, Group, Inventory, Set, Settings};
use crate::diagnostic::{At, Diagnostic, Source};
use crate::target::{UserName, Vars, check_variable};
use crate::text::{did_you_mean, printable};

pub(super) const FILE_KEYS: &[&str] = &["hosts", "groups", "vars"];
pub(super) const HOST_KEYS: &[&str] =
    &["address", "port", "user", "identity", "connection", "vars"];
pub(super) const GROUP_KEYS: &[&str] = &[
    "hosts",
    "children",
    "vars",
    "port",
    "user",
    "identity",
    "connection",
];

/// Keys that the full language has and this version does not read.
const NOT_YET: &[&str] = &[
    "jump",
    "become",
    "secrets",
    "env",
    "cwd",
    "shell",
    "timeout",
    "connect_timeout",
    "defaults",
    "password",
];

/// The longest user, address or file name; far above what any system allows.
const TEXT_LIMIT: usize = 4096;

/// Reads a YAML inventory.
pub(super) fn read(source: &Arc<Source>) -> Draft {
    let mut draft = Draft::new(source);
    match parse(source) {
        Err(broken) => {
            draft.readable = false;
            draft.errors.push(broken);
        }
        Ok(root) => {
            check_tags(&mut draft, &root);
            read_root(&mut draft, &root);
        }
    }
    draft
}

impl Inventory {
    /// The hosts that a playbook lists itself: names or ranges, each with its settings (`user`,
    /// `port`, `address`, `identity`, `connection`, `vars`) or null. `at` is where they stand.
    ///
    /// # Errors
    /// Every mistake, at `at`.
    pub fn from_inline(entries: &Vars, at: &At) -> Result<Inventory, Vec<Diagnostic>> {
        let line = at.line_column().0 as u64;
        let root = from_json(&Value::Object(entries.clone()), at, line);
        let mut draft = Draft::new(&at.source);
        read_hosts(&mut draft, &root, None);
        join(vec![draft], true).map(|loaded| loaded.inventory)
    }
}

fn from_json(value: &Value, at: &At, line: u64) -> Node {
    let node = |kind| Node {
        kind,
        tag: None,
        span: at.span.clone(),
        line,
    };
    node(match value {
        Value::Null => Kind::Null,
        Value::Bool(value) => Kind::Bool(*value),
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Kind::Uint(n),
            (None, Some(n)) => Kind::Int(n),
            (None, None) => Kind::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Kind::Text(text.clone()),
        Value::Array(items) => {
            Kind::List(items.iter().map(|item| from_json(item, at, line)).collect())
        }
        Value::Object(map) => Kind::Map(
            map.iter()
                .map(|(key, value)| (node(Kind::Text(key.clone())), from_json(value, at, line)))
                .collect(),
        ),
    })
}

fn place(node: &Node) -> Place {
    Place {
        span: node.span.clone(),
        line: node.line,
    }
}

/// Only the tags of YAML's own types mean anything; `!!python/object` must not look accepted.
fn check_tags(draft: &mut Draft, node: &Node) {
    const CORE: &[&str] = &["str", "int", "float", "bool", "null", "map", "seq"];
    if let Some(tag) = &node.tag {
        let name = tag
            .strip_prefix("tag:yaml.org,2002:")
            .or(tag.strip_prefix("!!"));
        if !name.is_some_and(|name| CORE.contains(&name)) && tag != "!" {
            let message = format!("the tag `{}` means nothing here", printable(tag.as_bytes()));
            draft.error(&place(node), message, None);
        }
    }
    match &node.kind {
        Kind::List(items) => items.iter().for_each(|item| check_tags(draft, item)),
        Kind::Map(items) => items.iter().for_each(|(key, value)| {
            check_tags(draft, key);
            check_tags(draft, value);
        }),
        Kind::Null
        | Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Uint(_)
        | Kind::Float(_)
        | Kind::Text(_) => {}
    }
}

fn read_root(draft: &mut Draft, root: &Node) {
    if matches!(root.kind, Kind::Null) {
        return;
    }
    let fields = fields(draft, root, "an inventory", FILE_KEYS);
    // Hosts first, whatever the order in the file: groups refer to them.
    for (key, _, value) in &fields {
        match key.as_str() {
            "hosts" => read_hosts(draft, value, None),
            "vars" => draft.vars = read_vars(draft, value),
            _ => {}
        }
    }
    for (_, _, value) in fields.iter().filter(|(key, ..)| key == "groups") {
        read_groups(draft, value);
    }
}

type Field<'n> = (String, &'n Node, &'n Node);

/// The entries of a mapping; reports what is no mapping and keys that are no text or come twice.
fn entries<'n>(draft: &mut Draft, node: &'n Node, what: &str) -> Vec<Field<'n>> {
    let Kind::Map(items) = &node.kind else {
        let message = format!("{what} is a mapping, but here is {}", node.kind.name());
        draft.error(&place(node), message, None);
        return Vec::new();
    };
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut found = Vec::new();
    for (key, value) in items {
        let Some(name) = scalar(draft, key) else {
            let message = format!("a key is text, but here is {}", key.kind.name());
            draft.error(&place(key), message, Some("put it in quotes".into()));
            continue;
        };
        if let Some(line) = seen.insert(name.clone(), key.line) {
            let shown = printable(name.as_bytes()).into_owned();
            let help = (line > 0).then(|| format!("it first stands at line {line}"));
            draft.error(
                &place(key),
                format!("the key `{shown}` stands here twice"),
                help,
            );
            continue;
        }
        found.push((name, key, value));
    }
    found
}

/// The entries of a mapping whose keys are fixed.
fn fields<'n>(draft: &mut Draft, node: &'n Node, what: &str, allowed: &[&str]) -> Vec<Field<'n>> {
    let mut found = entries(draft, node, what);
    found.retain(|(name, key, _)| {
        if allowed.contains(&name.as_str()) {
            return true;
        }
        let shown = printable(name.as_bytes()).into_owned();
        if NOT_YET.contains(&name.as_str()) {
            let message = format!("`{shown}` cannot be used in an inventory yet");
            draft.error(&place(key), message, None);
        } else {
            let help = match did_you_mean(name, allowed.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("{what} can have `{}`", allowed.join("`, `")),
            };
            draft.error(
                &place(key),
                format!("{what} has no key `{shown}`"),
                Some(help),
            );
        }
        false
    });
    found
}

/// Text, and numbers and booleans as they were spelled: a host may be called `10` or `1e3`.
fn scalar(draft: &Draft, node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Bool(_) | Kind::Int(_) | Kind::Uint(_) | Kind::Float(_) => {
            let spelled = draft.source.text.get(node.span.clone())?;
            Some(spelled.trim().to_owned())
        }
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    }
}

fn text(draft: &mut Draft, node: &Node, what: &str) -> Option<String> {
    match scalar(draft, node) {
        Some(text)
            if text.len() <= TEXT_LIMIT && !text.is_empty() && !text.contains(char::is_control) =>
        {
            Some(text)
        }
        Some(text) => {
            let cause = match text.len() {
                0 => "is empty",
                length if length > TEXT_LIMIT => "is too long",
                _ => "contains a control character",
            };
            draft.error(&place(node), format!("{what} {cause}"), None);
            None
        }
        None => {
            let message = format!("{what} is text, but here is {}", node.kind.name());
            draft.error(&place(node), message, None);
            None
        }
    }
}

fn read_hosts(draft: &mut Draft, node: &Node, group: Option<usize>) {
    match &node.kind {
        Kind::Null => {}
        Kind::Map(_) => {
            for (name, key, value) in entries(draft, node, "`hosts`") {
                let details = read_host(draft, value);
                read_name(draft, &name, key, &details, group, true);
            }
        }
        Kind::List(items) => {
            for item in items {
                if let Some(name) = text(draft, item, "a host") {
                    read_name(draft, &name, item, &Details::default(), group, false);
                }
            }
        }
        Kind::Text(name) => read_name(draft, name, node, &Details::default(), group, false),
        other => {
            let message = format!(
                "`hosts` is a mapping or a list, but here is {}",
                other.name()
            );
            draft.error(&place(node), message, None);
        }
    }
}

fn read_name(
    draft: &mut Draft,
    name: &str,
    node: &Node,
    details: &Details,
    group: Option<usize>,
    key: bool,
) {
    let place = place(node);
    let pattern =
        name == "all" || name.starts_with(['/', '@']) || name.contains(['*', '?', '&', '!']);
    match group {
        Some(group) if pattern && !key => return draft.pattern(group, name, &place),
        _ if pattern => {
            let shown = printable(name.as_bytes()).into_owned();
            let message = format!("`{shown}` is a pattern, and hosts are defined here");
            return draft.error(
                &place,
                message,
                Some("patterns can stand in the `hosts` list of a group".into()),
            );
        }
        _ => {}
    }
    if name.trim_matches([' ', ',']).is_empty() {
        return draft.error(&place, "the name of a host is empty", None);
    }
    let again = if group.is_some() {
        Again::Join
    } else {
        Again::Error
    };
    draft.define(name, &place, details, group, again);
}

fn read_host(draft: &mut Draft, node: &Node) -> Details {
    if matches!(node.kind, Kind::Null) {
        return Details::default();
    }
    let mut details = Details::default();
    for (key, _, value) in fields(draft, node, "a host", HOST_KEYS) {
        match key.as_str() {
            "vars" => details.vars = read_vars(draft, value),
            _ => read_setting(draft, &key, value, None, &mut details.settings),
        }
    }
    details
}

fn read_setting(
    draft: &mut Draft,
    key: &str,
    node: &Node,
    group: Option<&str>,
    into: &mut Settings,
) {
    let mut origin = draft.origin(&place(node));
    if let Some(group) = group {
        origin.push_str(&format!(" (group {group})"));
    }
    match key {
        "address" => into.address = read_address(draft, node).map(|value| Set { value, origin }),
        "port" => into.port = read_port(draft, node).map(|value| Set { value, origin }),
        "user" => into.user = read_user(draft, node).map(|value| Set { value, origin }),
        "identity" => into.identity = read_identity(draft, node).map(|value| Set { value, origin }),
        "connection" => {
            into.connection = read_connection(draft, node).map(|value| Set { value, origin })
        }
        _ => {}
    }
}

fn read_address(draft: &mut Draft, node: &Node) -> Option<String> {
    let address = text(draft, node, "`address`")?;
    match crate::target::HostName::new(&address) {
        Ok(_) => Some(address),
        Err(e) => {
            let shown = printable(address.as_bytes()).into_owned();
            draft.error(&place(node), format!("the address `{shown}` {e}"), None);
            None
        }
    }
}

fn read_user(draft: &mut Draft, node: &Node) -> Option<UserName> {
    let user = text(draft, node, "`user`")?;
    UserName::new(&user)
        .map_err(|e| {
            let shown = printable(user.as_bytes()).into_owned();
            draft.error(&place(node), format!("the user `{shown}` {e}"), None);
        })
        .ok()
}

fn read_port(draft: &mut Draft, node: &Node) -> Option<u16> {
    let port = match &node.kind {
        Kind::Uint(n) => u16::try_from(*n).ok(),
        Kind::Int(n) => u16::try_from(*n).ok(),
        _ => None,
    };
    let port = port.filter(|&port| port > 0);
    if port.is_none() {
        let shown = scalar(draft, node).unwrap_or_else(|| node.kind.name().to_owned());
        let message = format!("`{}` is not a port", printable(shown.as_bytes()));
        draft.error(
            &place(node),
            message,
            Some("a port is a number from 1 to 65535".into()),
        );
    }
    port
}

fn read_identity(draft: &mut Draft, node: &Node) -> Option<Vec<String>> {
    match &node.kind {
        Kind::List(items) if items.len() <= 64 => items
            .iter()
            .map(|item| text(draft, item, "a key file in `identity`"))
            .collect(),
        Kind::List(_) => {
            draft.error(&place(node), "`identity` has more than 64 key files", None);
            None
        }
        _ => text(draft, node, "`identity`").map(|path| vec![path]),
    }
}

fn read_connection(draft: &mut Draft, node: &Node) -> Option<Connection> {
    let written = text(draft, node, "`connection`")?;
    match written.as_str() {
        "ssh" => Some(Connection::Ssh),
        "local" => Some(Connection::Local),
        _ => {
            let message = format!("`{written}` is not a connection");
            draft.error(&place(node), message, Some("`ssh` or `local`".into()));
            None
        }
    }
}

fn read_vars(draft: &mut Draft, node: &Node) -> Vars {
    if matches!(node.kind, Kind::Null) {
        return Vars::new();
    }
    let found = entries(draft, node, "`vars`");
    for (name, key, _) in &found {
        if let Err(help) = check_variable(name) {
            let shown = printable(name.as_bytes());
            let message = format!("`{shown}` cannot be the name of a variable");
            draft.error(&place(key), message, Some(help));
        }
    }
    values(draft, found)
}

fn values(draft: &mut Draft, found: Vec<Field<'_>>) -> Vars {
    found
        .into_iter()
        .map(|(name, _, value)| {
            let value = read_value(draft, value);
            (name, value)
        })
        .collect()
}

fn read_value(draft: &mut Draft, node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => (*value).into(),
        Kind::Int(value) => (*value).into(),
        Kind::Uint(value) => (*value).into(),
        Kind::Float(value) => (*value).into(),
        Kind::Text(value) => value.as_str().into(),
        Kind::List(items) => items.iter().map(|item| read_value(draft, item)).collect(),
        Kind::Map(_) => {
            let found = entries(draft, node, "a value");
            Value::Object(values(draft, found))
        }
    }
}

fn read_groups(draft: &mut Draft, node: &Node) {
    if matches!(node.kind, Kind::Null) {
        return;
    }
    let groups = entries(draft, node, "`groups`");
    for (name, key, _) in &groups {
        check_group_name(draft, name, key);
        draft.groups.push(Group {
            name: name.clone(),
            ..Group::default()
        });
        draft.group_places.push(place(key));
    }
    for (at, (_, _, value)) in groups.iter().enumerate() {
        read_group(draft, at, value);
    }
}

fn check_group_name(draft: &mut Draft, name: &str, key: &Node) {
    let shown = printable(name.as_bytes()).into_owned();
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name == "all" {
        let help = "what all hosts share stands under `vars` at the top of the file";
        draft.error(
            &place(key),
            "`all` always means every host",
            Some(help.into()),
        );
    } else if name.is_empty()
        || name.starts_with('-')
        || name.len() > 255
        || !name.chars().all(good)
    {
        let help = "letters, digits, `_`, `-` and `.`, at most 255 of them, no `-` first";
        draft.error(
            &place(key),
            format!("`{shown}` cannot be the name of a group"),
            Some(help.into()),
        );
    }
}

fn read_group(draft: &mut Draft, at: usize, node: &Node) {
    if matches!(node.kind, Kind::Null) {
        return;
    }
    if matches!(node.kind, Kind::List(_) | Kind::Text(_)) {
        return read_hosts(draft, node, Some(at));
    }
    let name = draft.groups[at].name.clone();
    let mut settings = Settings::default();
    for (key, _, value) in fields(draft, node, "a group", GROUP_KEYS) {
        match key.as_str() {
            "hosts" => read_hosts(draft, value, Some(at)),
            "vars" => draft.groups[at].vars = read_vars(draft, value),
            "children" => {
                let items = match &value.kind {
                    Kind::List(items) => items.as_slice(),
                    Kind::Null => &[],
                    _ => std::slice::from_ref(value),
                };
                for item in items {
                    if let Some(child) = text(draft, item, "a child") {
                        draft.children.push((at, child, place(item)));
                    }
                }
            }
            _ => read_setting(draft, &key, value, Some(&name), &mut settings),
        }
    }
    draft.groups[at].settings = settings;
}
