//! Playbooks: text in, checked model out, all mistakes at once.
//!
//! [`load`] is pure: the caller reads the file and knows the command line. `tree` is the text as
//! written, `validate` makes the [`model`] of it, [`template`] fills `${{ }}`, `shell` knows how a
//! value is escaped for its place in shell text.

mod control;
mod copies;
pub mod document;
mod expression;
mod files;
mod filters;
mod keys;
pub mod model;
mod rows;
pub mod schema;
mod secrets;
mod shell;
pub mod template;
mod tree;
pub mod units;
mod validate;
mod values;

#[cfg(test)]
mod corpus;

use std::path::Path;
use std::sync::Arc;

pub use document::Document;
pub use expression::{Condition, ConditionError, Filling};
pub use model::{
    Action, Becoming, Block, Control, Copy, DeclaredSecret, Hosts, Line, Loaded, Located, Parse,
    Play, Playbook, Restart, Retry, Rollout, SecretFrom, Settings, Share, Strategy, Task, WaitFor,
};
pub use template::{Name, RenderCause, RenderError, RowCondition, Scope, Template, TemplateError};

pub use validate::Reader;

use crate::diagnostic::{At, Diagnostic, Source};
use crate::target::Vars;

/// The largest playbook, in bytes. Callers look at a file's size before they read it.
pub const MAX_BYTES: u64 = 4 << 20;

/// Checks a playbook. Other files of tasks that it names (`include`) come from `read`, which is
/// asked with paths relative to the playbook's folder.
#[must_use]
pub fn load(source: &Arc<Source>, read: &Reader<'_>) -> Loaded {
    if source.text.len() as u64 > MAX_BYTES {
        return Loaded {
            playbook: None,
            mistakes: vec![too_large(&source.path)],
        };
    }
    let tree::Tree {
        root,
        mut found,
        left_out,
    } = tree::parse(source);
    let library = validate::Library::new(read);
    let mut check = validate::Check::new(source, &library);
    left_out.iter().for_each(|node| check.doubt_names_in(node));
    let playbook = root.as_ref().and_then(|root| check.file(root));
    if root.is_none() && found.is_empty() {
        found.push(
            Diagnostic::error("the playbook is empty")
                .at(source, 0..0, "")
                .help("the smallest one has `hosts:` and `tasks:`"),
        );
    }
    found.extend(check.into_diagnostics());
    found.sort_by_cached_key(|d| {
        let at = d.at.as_ref();
        let own = |at: &At| !Arc::ptr_eq(&at.source, source);
        at.map(|at| (own(at), at.source.path.clone(), at.span.start, at.span.end))
    });
    // A mapping that is merged or aliased twice is checked twice.
    found.dedup();
    Loaded {
        playbook,
        mistakes: found,
    }
}

/// Checks what stands behind `parse:` when it stands alone: `du`, or `{regex: "..."}`.
///
/// # Errors
/// Every mistake, never none.
pub fn load_parse(source: &Arc<Source>) -> Result<Parse, Vec<Diagnostic>> {
    let tree::Tree {
        root, mut found, ..
    } = tree::parse(source);
    let nothing = |_: &Path| Err("cannot be read here".to_owned());
    let library = validate::Library::new(&nothing);
    let mut check = validate::Check::new(source, &library);
    let parse = root.as_ref().and_then(|root| check.parse(root));
    found.extend(check.into_diagnostics());
    if parse.is_none() && found.is_empty() {
        let help = format!("one of: {}", keys::FORMATS.join(", "));
        found.push(Diagnostic::error("nothing says how to parse").help(help));
    }
    match parse {
        Some(parse) if found.is_empty() => Ok(parse),
        Some(_) | None => Err(found),
    }
}

/// Reads a file of variables (`-e @FILE`): one mapping, YAML or JSON.
///
/// # Errors
/// All mistakes.
pub fn variables(source: &Arc<Source>) -> Result<Vars, Vec<Diagnostic>> {
    let tree::Tree { root, found, .. } = tree::parse(source);
    let nothing = |_: &Path| Err("cannot be read here".to_owned());
    let library = validate::Library::new(&nothing);
    let mut check = validate::Check::new(source, &library);
    let vars = root.as_ref().map(|root| check.vars(root));
    let mut found = found;
    found.extend(check.into_diagnostics());
    match vars {
        Some(vars) if found.is_empty() => Ok(vars),
        None if found.is_empty() => Ok(Vars::new()),
        Some(_) | None => Err(found),
    }
}

/// A value from the command line, as it would be read if it stood unquoted in a playbook: `3` is a
/// number, `true` is true, `1.10` and `yes` are text.
#[must_use]
pub fn plain_value(text: &str) -> serde_json::Value {
    values::plain_json(text)
}

/// The mistake of a file that is larger than [`MAX_BYTES`].
#[must_use]
pub fn too_large(path: &std::path::Path) -> Diagnostic {
    Diagnostic::error(format!(
        "`{}` is larger than {} MiB, which is the most a playbook can be",
        path.display(),
        MAX_BYTES >> 20
    ))
}
