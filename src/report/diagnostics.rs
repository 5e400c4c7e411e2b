//! Mistakes in what people wrote, drawn under their source lines.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::diagnostic::{At, Diagnostic};
use crate::event::Severity;
use crate::text;

/// Bytes of a source line that are shown; what is longer is cut around the place.
const LONGEST: usize = 160;

/// Draws all diagnostics, and their count if there are several.
#[must_use]
pub fn draw(diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&one(diagnostic, &renderer));
        out.push('\n');
    }
    let errors = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    if errors > 1 {
        out.push_str(&format!(
            "{}; nothing was connected\n",
            text::count(errors, "error")
        ));
    }
    out
}

fn one(diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = text::printable(diagnostic.message.as_bytes()).into_owned();
    let help = diagnostic
        .help
        .as_ref()
        .map(|help| text::printable(help.as_bytes()).into_owned());
    let Some(excerpt) = diagnostic.at.as_ref().map(Excerpt::of) else {
        // Without a source line the renderer would leave an empty margin before the help.
        let mut lines = renderer.render(&[Group::with_title(level.primary_title(title))]);
        if let Some(help) = help {
            let help = renderer.render(&[Group::with_title(Level::HELP.primary_title(help))]);
            lines.push_str(&format!("\n{help}"));
        }
        return lines;
    };
    let mark = AnnotationKind::Primary.span(excerpt.span.clone());
    let mark = if excerpt.label.is_empty() {
        mark
    } else {
        mark.label(excerpt.label.as_str())
    };
    let group = Group::with_title(level.primary_title(title)).element(
        Snippet::source(excerpt.text.as_str())
            .path(excerpt.path.as_str())
            .line_start(excerpt.line)
            .annotation(mark),
    );
    let mut report = vec![group];
    if let Some(help) = help {
        report.push(Group::with_title(Level::HELP.secondary_title(help)));
    }
    renderer.render(&report)
}

/// The source line that is meant, made harmless and short, with the span moved along.
struct Excerpt {
    path: String,
    line: usize,
    text: String,
    span: std::ops::Range<usize>,
    label: String,
}

impl Excerpt {
    fn of(at: &At) -> Self {
        let source: &str = &at.source.text;
        let start = floor(source, at.span.start);
        let end = floor(source, at.span.end).max(start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..]
            .find('\n')
            .map_or(source.len(), |at| start + at);
        let from = floor(source, start.saturating_sub(LONGEST / 2)).max(line_start);
        let to = floor(source, from + LONGEST).min(line_end).max(start);
        let (before, inside, after) = (
            &source[from..start],
            &source[start..end.clamp(start, to)],
            &source[end.clamp(start, to)..to],
        );
        let (before, inside, after) = (harmless(before), harmless(inside), harmless(after));
        let lead = if from > line_start { "…" } else { "" };
        let tail = if to < line_end { "…" } else { "" };
        let span_start = lead.len() + before.len();
        Self {
            path: text::printable(at.source.path.to_string_lossy().as_bytes()).into_owned(),
            line: source[..line_start].matches('\n').count() + 1,
            span: span_start..span_start + inside.len(),
            text: format!("{lead}{before}{inside}{after}{tail}"),
            label: text::printable(at.label.as_bytes()).into_owned(),
        }
    }
}

/// Tabs become spaces, so that the underline stands below what it means.
fn harmless(text: &str) -> String {
    text::printable(text.as_bytes())
        .replace('\t', " ")
        .trim_end_matches("\\r")
        .to_owned()
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Source;
    use std::sync::Arc;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source {
            path: "playbooks/deploy.yml".into(),
            text: text.into(),
        })
    }

    #[test]
    fn a_mistake_stands_under_its_line_with_a_way_out() {
        let text = "hosts: all\ntasks:\n  - run: restart ${{ servce }}\n";
        let at = text.find("servce").unwrap();
        let diagnostic = Diagnostic::error("unknown variable `servce`")
            .at(&source(text), at..at + 6, "not defined for host web1")
            .help("a variable with a similar name exists: `service`");
        let drawn = draw(&[diagnostic], false);
        for part in [
            "error: unknown variable `servce`",
            "playbooks/deploy.yml:3:22",
            "3 |   - run: restart ${{ servce }}",
            "^^^^^^ not defined for host web1",
            "help: a variable with a similar name exists: `service`",
        ] {
            assert!(drawn.contains(part), "{part:?} is not in\n{drawn}");
        }
    }

    #[test]
    fn several_are_counted() {
        let two = [
            Diagnostic::error("a"),
            Diagnostic::error("b"),
            Diagnostic::warning("c"),
        ];
        assert!(draw(&two, false).ends_with("2 errors; nothing was connected\n"));
        assert!(!draw(&two[..1], false).contains("1 error"));
    }

    #[test]
    fn a_huge_hostile_line_is_cut_and_shown() {
        let text = format!("{}\x1b[2J{}", "a".repeat(500_000), "b".repeat(500_000));
        let diagnostic = Diagnostic::error("x").at(&source(&text), 500_000..500_004, "");
        let drawn = draw(&[diagnostic], false);
        assert!(drawn.len() < 2_000, "{}", drawn.len());
        assert!(drawn.contains("\\x1b[2J") && !drawn.contains('\x1b'));
    }
}
