//! Several sources become one inventory: all names are one space, so that a group of one file may
//! hold the groups, and by patterns the hosts, of another.
//!
//! What only all sources together can get wrong is checked here: children that nobody defines,
//! rings, names with two meanings.

use std::collections::HashSet;

use super::draft::{Draft, Place};
use super::{Group, Host, Inventory, Loaded, Pattern, Unknown};
use crate::diagnostic::Diagnostic;
use crate::target::Vars;
use crate::text::{did_you_mean, printable};

/// A guess looks at every group; so many of them are enough.
const GUESSES: usize = 100;

/// Puts the sources together, later ones over earlier ones. With sources that could not be read
/// (`complete` is false) nothing is said about names that they may define.
///
/// # Errors
/// Every mistake in every source, in their order.
pub(super) fn join(mut drafts: Vec<Draft>, complete: bool) -> Result<Loaded, Vec<Diagnostic>> {
    let complete = complete && drafts.iter().all(|draft| draft.readable);
    settle_children(&mut drafts, complete);
    check_ring(&mut drafts);
    check_names(&mut drafts);
    let sound = drafts.iter().all(|draft| draft.errors.is_empty());
    if sound && complete && drafts.iter().any(|draft| !draft.patterns.is_empty()) {
        run_patterns(&mut drafts);
    }
    let errors = drafts.iter_mut().flat_map(|draft| draft.errors.drain(..));
    let errors: Vec<Diagnostic> = errors.collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    let warnings = drafts
        .iter_mut()
        .flat_map(|draft| draft.warnings.drain(..))
        .collect();
    let only = match drafts.as_slice() {
        [one] => Some(std::sync::Arc::clone(&one.source)),
        [] | [_, _, ..] => None,
    };
    let parts = drafts.into_iter().map(|d| (d.hosts, d.groups, d.vars));
    let inventory = merged(parts);
    match (inventory.excess, only) {
        (None, _) => Ok(Loaded {
            inventory,
            warnings,
        }),
        (Some(excess), Some(source)) => Err(vec![Diagnostic::error(excess).at(&source, 0..0, "")]),
        (Some(excess), None) => Err(vec![Diagnostic::error(excess)]),
    }
}

fn merged(parts: impl Iterator<Item = (Vec<Host>, Vec<Group>, Vars)>) -> Inventory {
    parts
        .map(|(hosts, groups, vars)| Inventory::put_together(hosts, groups, vars))
        .reduce(Inventory::merge)
        .unwrap_or_default()
}

/// Gives every group the children that exist, and tells of the others.
fn settle_children(drafts: &mut [Draft], complete: bool) {
    let names = |draft: &Draft| draft.groups.iter().map(|g| g.name.clone()).collect();
    let known: HashSet<String> = drafts.iter().flat_map::<Vec<String>, _>(names).collect();
    let mut unknown: Vec<(usize, String, Place)> = Vec::new();
    for (at, draft) in drafts.iter_mut().enumerate() {
        for (group, child, place) in &draft.children {
            if known.contains(child) {
                draft.groups[*group].children.push(child.clone());
            } else if complete {
                unknown.push((at, child.clone(), place.clone()));
            }
        }
    }
    for (nth, (at, child, place)) in unknown.into_iter().enumerate() {
        let help = if drafts
            .iter()
            .any(|draft| draft.host_origin(&child).is_some())
        {
            Some("it is a host, which stands under `hosts`".to_owned())
        } else if nth < GUESSES {
            did_you_mean(&child, known.iter().map(String::as_str))
                .map(|near| format!("did you mean `{near}`?"))
        } else {
            None
        };
        let message = format!("there is no group `{}`", printable(child.as_bytes()));
        drafts[at].error(&place, message, help);
    }
}

/// A group that holds itself, where it is written.
fn check_ring(drafts: &mut [Draft]) {
    let mut shape = Inventory::default();
    for group in drafts.iter().flat_map(|draft| &draft.groups) {
        let next = shape.groups.len();
        let at = *shape.group_places.entry(group.name.clone()).or_insert(next);
        if at == next {
            shape.groups.push(Group {
                name: group.name.clone(),
                ..Group::default()
            });
        }
        shape.groups[at].children.extend_from_slice(&group.children);
    }
    let ring: Vec<String> = shape.ring().into_iter().map(str::to_owned).collect();
    let (Some(first), Some(last)) = (ring.first(), ring.last()) else {
        return;
    };
    let through = match ring.len() {
        1 => String::new(),
        _ => format!(": {} > {first}", ring.join(" > ")),
    };
    let message = format!("the group `{first}` is its own child{through}");
    for draft in drafts {
        let closes = |(group, child, _): &&(usize, String, Place)| {
            child == first && draft.groups[*group].name == *last
        };
        let place = draft
            .children
            .iter()
            .find(closes)
            .map(|found| found.2.clone());
        if let Some(place) = place {
            return draft.error(
                &place,
                message,
                Some("a child cannot hold its parents".into()),
            );
        }
    }
}

/// A bare word in a pattern must have one meaning.
fn check_names(drafts: &mut [Draft]) {
    let mut clashes: Vec<(usize, Place, String, String)> = Vec::new();
    for (at, draft) in drafts.iter().enumerate() {
        for (group, place) in draft.groups.iter().zip(&draft.group_places) {
            let origin = drafts
                .iter()
                .find_map(|other| other.host_origin(&group.name));
            if let Some(origin) = origin {
                clashes.push((at, place.clone(), group.name.clone(), origin));
            }
        }
    }
    for (at, place, name, origin) in clashes {
        let help = format!(
            "the host stands at {origin}; a group inside a group stands under `children`, \
             otherwise rename one"
        );
        let message = format!("`{name}` is both a host and a group");
        drafts[at].error(&place, message, Some(help));
    }
}

/// Patterns in groups see the hosts of all sources and the members that are written by name,
/// whatever the order.
fn run_patterns(drafts: &mut [Draft]) {
    let parts = drafts
        .iter()
        .map(|draft| (draft.hosts.clone(), draft.groups.clone(), Vars::new()));
    let named = merged(parts);
    if named.excess.is_some() {
        return;
    }
    for draft in drafts {
        for (group, text, place) in std::mem::take(&mut draft.patterns) {
            let selected = Pattern::parse(&text).and_then(|p| p.select(&named, Unknown::Refuse));
            match selected {
                Err(error) => draft.fault(&text, &place, &error),
                Ok(selected) => {
                    let names = selected.into_iter().map(|host| host.name);
                    let known = names.filter(|name| named.get(name.as_str()).is_some());
                    draft.groups[group].hosts.extend(known);
                }
            }
        }
    }
}
