//! The end of a run, on every screen: how it ended as a whole, then why, grouped; the most
//! important line first in its block and the block last on the screen.

use std::time::Duration;

use super::style::{Kind, Styles};
use crate::outcome::Cause;
use crate::recap::{FailureGroup, ProblemGroup, Recap, Verdict};
use crate::target::HostName;
use crate::text;

/// Groups shown; more are counted.
const GROUPS: usize = 12;
/// Failures whose last lines are shown.
const WITH_LINES: usize = 6;
/// A task that took longer is worth a word.
const SLOW: Duration = Duration::from_secs(10);

/// How the end is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) styles: Styles,
    pub(super) columns: usize,
    pub(super) verbose: bool,
    pub(super) fold: fn(&[HostName]) -> String,
}

impl Ending {
    pub(super) fn draw(self, recap: &Recap) -> String {
        let mut out = self.title(recap);
        out.push('\n');
        let mut rows = self.failures(&recap.failures);
        rows.extend(self.problems(&recap.problems));
        let shown = rows.len().min(GROUPS);
        let width = |at: usize| {
            rows[..shown]
                .iter()
                .map(|row| text::width(&row.cells[at]))
                .max()
                .unwrap_or(0)
        };
        let widths = [width(0), width(1).min(40), width(2).min(48)];
        for row in &rows[..shown] {
            out.push_str(&self.row(row, widths));
        }
        if rows.len() > shown {
            out.push_str(&format!("  + {} more\n", rows.len() - shown));
        }
        self.push_footnotes(&mut out, recap);
        out
    }

    fn title(self, recap: &Recap) -> String {
        let verdict = recap.verdict();
        let (kind, word) = match verdict {
            Verdict::Ok => (Kind::Good, "OK"),
            Verdict::TaskFailed => (Kind::Bad, "FAILED"),
            Verdict::Unreachable => (Kind::Bad, "UNREACHABLE"),
            Verdict::Refused => (Kind::Bad, "REFUSED"),
            Verdict::StoppedEarly => (Kind::Bad, "STOPPED"),
            Verdict::Signal(_) => (Kind::Bad, "INTERRUPTED"),
            Verdict::Bug => (Kind::Bad, "INTERNAL ERROR"),
            Verdict::ReportFailed => (Kind::Bad, "REPORT FAILED"),
            Verdict::NothingMatched => (Kind::Bad, "NOTHING MATCHED"),
            Verdict::Usage => (Kind::Bad, "WRONG"),
        };
        let title = recap.info.as_ref().map_or("", |info| info.title.as_str());
        let mut line = format!(
            "{}  {}  {}   hosts: {}",
            self.styles.paint(kind, word),
            text::fit(title, 48),
            text::duration(recap.elapsed),
            sums(
                &recap.hosts,
                &[
                    "ok",
                    "failed",
                    "unreachable",
                    "refused",
                    "cancelled",
                    "internal"
                ]
            ),
        );
        let tasks = [
            "ok",
            "failed",
            "timed_out",
            "lost",
            "internal",
            "skipped",
            "cancelled",
        ];
        let mut tasks = sums(&recap.tasks, &tasks);
        if recap.not_started > 0 {
            tasks.push_str(&format!(", {} not started", recap.not_started));
        }
        line.push_str(&format!(
            "   tasks: {}",
            tasks.replace('_', " ").trim_start_matches("none, ")
        ));
        line
    }

    fn failures(self, groups: &[FailureGroup]) -> Vec<Row> {
        let row = |(at, group): (usize, &FailureGroup)| {
            let lines = if at < WITH_LINES {
                group.lines.clone()
            } else {
                Vec::new()
            };
            let last = (lines.len() == 1).then(|| lines[0].clone());
            Row {
                cells: [
                    group.word.replace('_', " "),
                    group.task.name.to_string(),
                    short(&group.ending),
                    (self.fold)(&group.hosts),
                ],
                last,
                lines: if lines.len() > 1 { lines } else { Vec::new() },
            }
        };
        groups.iter().enumerate().map(row).collect()
    }

    fn problems(self, groups: &[ProblemGroup]) -> Vec<Row> {
        let row = |group: &ProblemGroup| {
            let word = if group.cause.is_refused() {
                "refused"
            } else {
                "unreachable"
            };
            Row {
                cells: [
                    word.into(),
                    what(group.cause).into(),
                    String::new(),
                    (self.fold)(&group.hosts),
                ],
                last: Some(text::printable(group.message.as_bytes()).into_owned()),
                lines: Vec::new(),
            }
        };
        groups.iter().map(row).collect()
    }

    fn row(self, row: &Row, widths: [usize; 3]) -> String {
        let [word, task, ending, hosts] = &row.cells;
        let pad = |text: &str, width: usize| {
            let text = text::fit(text, width).into_owned();
            let spaces = width.saturating_sub(text::width(&text));
            format!("{text}{}", " ".repeat(spaces))
        };
        let word = self.styles.paint(Kind::Bad, &pad(word, widths[0]));
        let mut line = format!("  {word}   {}", pad(task, widths[1]));
        if widths[2] > 0 {
            line.push_str(&format!("   {}", pad(ending, widths[2])));
        }
        line.push_str(&format!(
            "   {}",
            text::fit(hosts, self.columns.max(60) / 2)
        ));
        if let Some(last) = &row.last {
            line.push_str(&format!("   {}", text::fit(last, self.columns.max(60))));
        }
        line.push('\n');
        for text in &row.lines {
            let text = text::fit(text, self.columns.max(60) - 6).into_owned();
            line.push_str(&format!("      {}\n", self.styles.paint(Kind::Dim, &text)));
        }
        line
    }

    fn push_footnotes(self, out: &mut String, recap: &Recap) {
        if !recap.maybe_running.is_empty() {
            let hosts = (self.fold)(&recap.maybe_running);
            let word = self.styles.paint(Kind::Bad, "may still be running");
            out.push_str(&format!("  {word} on {hosts}\n"));
        }
        if let Some(reason) = &recap.stopped_by {
            out.push_str(&format!(
                "  stopped: {}\n",
                text::printable(reason.as_bytes())
            ));
        }
        let slow = recap
            .slowest
            .iter()
            .filter(|(took, ..)| *took > SLOW || self.verbose);
        let slow: Vec<String> = slow
            .map(|(took, task, host)| format!("{} {} on {host}", task.name, text::duration(*took)))
            .collect();
        if !slow.is_empty() {
            out.push_str(&format!("  slowest  {}\n", slow.join(", ")));
        }
        if recap.warnings > 0 {
            out.push_str(&format!(
                "  {} above\n",
                text::count(recap.warnings, "warning")
            ));
        }
    }
}

/// One line of the end, and what hangs below it.
struct Row {
    cells: [String; 4],
    last: Option<String>,
    lines: Vec<String>,
}

/// `not started: ...` and `lost: ...` can be long; their beginning says what it is.
fn short(ending: &str) -> String {
    text::fit(&text::printable(ending.as_bytes()), 72).into_owned()
}

fn sums(sums: &std::collections::BTreeMap<&'static str, usize>, order: &[&str]) -> String {
    let part = |word: &&str| sums.get(*word).map(|n| format!("{n} {word}"));
    let parts: Vec<String> = order.iter().filter_map(part).collect();
    if parts.is_empty() {
        "none".into()
    } else {
        parts.join(", ")
    }
}

fn what(cause: Cause) -> &'static str {
    match cause {
        Cause::Dns => "name lookup",
        Cause::ConnectionRefused => "connection refused",
        Cause::NoRoute => "no route",
        Cause::Timeout(_) => "timeout",
        Cause::Closed(_) => "connection closed",
        Cause::Banner => "no SSH server",
        Cause::Algorithms => "algorithms",
        Cause::Kex => "key exchange",
        Cause::ChannelRefused => "channel refused",
        Cause::Local => "on this side",
        Cause::HostKey => "host key",
        Cause::Authentication => "authentication",
    }
}
