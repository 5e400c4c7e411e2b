//! The end of a run, on every screen: how it ended as a whole, then why, grouped; the most
//! important line first in its block and the block last on the screen.

use std::time::Duration;

use super::style::{Kind, Styles};
use crate::outcome::Cause;
use crate::recap::{FailureGroup, ProblemGroup, Recap, Verdict};
use crate::target::HostName;
use crate::text;

/// Groups shown; more are counted. With the lines below them, a title and four footnotes they
/// take at most 22 rows, so that a terminal of 24 shows the whole end.
const GROUPS: usize = 10;
/// Last lines shown below all groups together.
const LINES: usize = 10;
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
            "rescued",
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

    /// Last lines are shared out: one failure shows all that is kept of it, many one each.
    fn failures(self, groups: &[FailureGroup]) -> Vec<Row> {
        let several = groups.iter().filter(|group| !group.lines.is_empty());
        let share = LINES / several.count().clamp(1, LINES);
        let row = |group: &FailureGroup| {
            let from = group.lines.len().saturating_sub(share);
            let lines = &group.lines[from..];
            let inline = match lines {
                [one] => Some(one.clone()),
                [] if group.rest => Some("(each ended in its own way)".to_owned()),
                [] | [_, _, ..] => None,
            };
            Row {
                cells: [
                    group.word.replace('_', " "),
                    group.task.name.to_string(),
                    short(&group.ending),
                    (self.fold)(&group.hosts),
                ],
                lines: match inline {
                    Some(_) => Vec::new(),
                    None => lines.to_vec(),
                },
                last: inline,
            }
        };
        groups.iter().map(row).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Block, Event, Stream, What};
    use crate::job::{PlayId, TaskId, TaskRef};
    use crate::outcome::{ExitStatus, Failure, Outcome};

    fn ending() -> Ending {
        Ending {
            styles: Styles::new(false),
            columns: 80,
            verbose: false,
            fold: |hosts| format!("{} hosts", hosts.len()),
        }
    }

    /// Each of these many hosts fails task `n % tasks` with the lines that `says` gives it.
    fn failing(hosts: u32, tasks: u16, says: impl Fn(u32) -> String) -> Recap {
        let mut recap = Recap::new();
        for n in 0..hosts {
            let host = HostName::new(&format!("n{n}")).unwrap();
            let index = u16::try_from(n).unwrap() % tasks;
            let play = PlayId(0);
            let task = TaskRef {
                id: TaskId { play, index },
                name: format!("task {index}").into(),
                place: None,
            };
            let block = Block {
                stream: Stream::Stdout,
                first_line: 1,
                lines: 1,
                bytes: says(n).into(),
            };
            let output = What::Output {
                host: host.clone(),
                task: task.clone(),
                block,
            };
            let end = What::TaskEnd {
                host,
                task,
                outcome: Outcome::Failed(Failure::Exit(ExitStatus::Exited(1))),
                took: Duration::ZERO,
                tally: None,
                rescued: false,
                effort: crate::outcome::Effort::default(),
            };
            for what in [output, end] {
                let (seq, at) = (0, Duration::ZERO);
                recap.add(&Event { seq, at, what });
            }
        }
        recap
    }

    #[test]
    fn different_last_lines_stand_apart_and_equal_ones_together() {
        let word = |n: u32| {
            if n == 1 {
                "disk full\n"
            } else {
                "no package\n"
            }
        };
        let drawn = ending().draw(&failing(3, 1, |n| word(n).into()));
        assert!(drawn.contains("exit 1   2 hosts   no package\n"), "{drawn}");
        assert!(drawn.contains("exit 1   1 hosts   disk full\n"), "{drawn}");
        let drawn = ending().draw(&failing(3, 1, |_| "1\n2\n3\n4\n5\n6\n".into()));
        assert!(
            drawn.ends_with("      2\n      3\n      4\n      5\n      6\n"),
            "{drawn}"
        );
    }

    #[test]
    fn ten_thousand_different_failures_fit_a_screen() {
        for tasks in [1, 2, 3, 50] {
            let recap = failing(10_000, tasks, |n| format!("1\n2\n3\n4\n{n} failed\n"));
            let drawn = ending().draw(&recap);
            assert!(drawn.lines().count() <= 24 - 2, "{tasks}:\n{drawn}");
            assert!(
                drawn.contains("ended in its own way") || tasks > 2,
                "{drawn}"
            );
        }
    }
}
