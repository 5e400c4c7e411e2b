//! Playbooks: text in, checked model out, all mistakes at once.
//!
//! [`load`] is pure: the caller reads the file and knows the command line. `tree` is the text as
//! written, `validate` makes the [`model`] of it, [`template`] fills `${{ }}`, `shell` knows how a
//! value is escaped for its place in shell text.

mod copies;
pub mod document;
mod files;
mod keys;
pub mod model;
mod rows;
mod shell;
pub mod template;
mod tree;
pub mod units;
mod validate;
mod values;

#[cfg(test)]
mod corpus;

use std::sync::Arc;

pub use document::Document;
pub use model::{
    Action, Copy, Hosts, Line, Loaded, Located, Parse, Play, Playbook, Settings, Strategy, Task,
};
pub use template::{Condition, Name, RenderCause, RenderError, Scope, Template, TemplateError};

use crate::diagnostic::{Diagnostic, Source};

/// The largest playbook, in bytes. Callers look at a file's size before they read it.
pub const MAX_BYTES: u64 = 4 << 20;

/// Checks a playbook.
#[must_use]
pub fn load(source: &Arc<Source>) -> Loaded {
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
    let mut check = validate::Check::new(source);
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
    found.sort_by_key(|d| d.at.as_ref().map(|at| (at.span.start, at.span.end)));
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
    let mut check = validate::Check::new(source);
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

/// The mistake of a file that is larger than [`MAX_BYTES`].
#[must_use]
pub fn too_large(path: &std::path::Path) -> Diagnostic {
    Diagnostic::error(format!(
        "`{}` is larger than {} MiB, which is the most a playbook can be",
        path.display(),
        MAX_BYTES >> 20
    ))
}
