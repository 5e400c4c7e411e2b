//! Plain lists of hosts: one expression a line (`web[01-03]`, `deploy@db1:2222`), `#` comments.

use std::sync::Arc;

use super::draft::{Again, Details, Draft, Place};
use crate::diagnostic::Source;

/// Reads a list. Places count from the start of the text, so that `\r\n` keeps its columns.
pub(super) fn read(source: &Arc<Source>) -> Draft {
    let mut draft = Draft::new(source);
    let mut start = 0;
    for (number, line) in (1..).zip(source.text.split_inclusive('\n')) {
        let text = without_comment(line);
        let indent = text.len() - text.trim_start().len();
        let text = text.trim();
        let from = start + indent;
        start += line.len();
        let place = Place {
            span: from..from + text.len(),
            line: number,
        };
        if is_section(text) {
            let message = format!(
                "`{text}` is a section of an Ansible INI inventory, which cannot be read yet"
            );
            let help = "write groups in a YAML inventory, under `groups:`";
            draft.error(&place, message, Some(help.into()));
            draft.readable = false;
            break;
        }
        draft.define(text, &place, &Details::default(), None, Again::Warn);
    }
    draft
}

/// A `#` begins a comment at the start of a line and after white space.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// `[web]`, `[web:vars]`: no range stands alone without a digit, a comma or a minus, and no IPv6
/// address is made of words.
pub(super) fn is_section(line: &str) -> bool {
    line.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|name| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_:.-".contains(c);
            name.chars().all(plain)
                && name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.parse::<std::net::Ipv6Addr>().is_err()
        })
}
