//! A mistake in something a person wrote, with the place where it stands.
//!
//! Playbooks and inventories collect all of theirs and report them at once; `report` draws them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::event::Severity;

/// A text that diagnostics point into, with the name people know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given, or `<command line>`.
    pub path: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// An error stops fanrun before anything is connected; a warning does not.
    pub severity: Severity,
    /// What is wrong: a lower-case fragment that names its object in backquotes.
    pub message: String,
    /// Where, if it stands in a text.
    pub at: Option<At>,
    /// How to mend it: `did you mean ...?`, or what is allowed here.
    pub help: Option<String>,
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The text.
    pub source: Arc<Source>,
    /// Byte range in it. Empty ranges point between two characters.
    pub span: std::ops::Range<usize>,
    /// A few words shown under the underline; may be empty.
    pub label: String,
}

impl At {
    /// Line and column, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let start = self.span.start.min(self.source.text.len());
        let before = self.source.text.get(..start).unwrap_or(&self.source.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    /// `file:line:column`.
    #[must_use]
    pub fn place(&self) -> String {
        let (line, column) = self.line_column();
        format!("{}:{line}:{column}", self.source.path.display())
    }
}

impl Diagnostic {
    /// An error without a place.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            at: None,
            help: None,
        }
    }

    /// A warning without a place.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            message: message.into(),
            at: None,
            help: None,
        }
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(
        mut self,
        source: &Arc<Source>,
        span: std::ops::Range<usize>,
        label: impl Into<String>,
    ) -> Self {
        self.at = Some(At {
            source: Arc::clone(source),
            span,
            label: label.into(),
        });
        self
    }

    /// The same, with a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
