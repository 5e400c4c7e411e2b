//! One host's bytes as they are, and on standard error what kept them from coming.

use super::{Ink, Renderer};
use crate::event::{Event, Severity, Stream, What};
use crate::outcome::Outcome;
use crate::text;

/// The renderer of `exec --raw`.
#[derive(Debug, Default)]
pub struct Raw;

impl Renderer for Raw {
    fn render(&mut self, event: &Event, ink: &mut Ink) {
        let said = match &event.what {
            What::Output { block, .. } => {
                match block.stream {
                    Stream::Stdout => ink.out().extend_from_slice(&block.bytes),
                    Stream::Stderr => ink.err().extend_from_slice(&block.bytes),
                }
                return;
            }
            What::HostProblem { host, problem } => Some((host, problem.message.clone())),
            What::TaskEnd { host, outcome, .. } if !is_status(outcome) => {
                Some((host, outcome.to_string()))
            }
            What::Diagnostic {
                host: Some(host),
                severity,
                message,
            } if *severity > Severity::Note => Some((host, message.clone())),
            _ => None,
        };
        if let Some((host, message)) = said {
            let line = format!("fanrun: {host}: {}\n", text::printable(message.as_bytes()));
            ink.err().extend_from_slice(line.as_bytes());
        }
    }
}

/// Endings that the exit code tells completely.
fn is_status(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Ok { .. }) || outcome.exit_status().is_some()
}
