//! Text for people, on a terminal and in a pipe.
//!
//! What hosts write to standard output goes to ours; their standard error, and all talk, goes to
//! our standard error. Every line stands behind its host's name; the mark between the two tells
//! the streams apart without colour: `│` and `┃`, in a pipe `|` and `!`.
//!
//! Where a stream of ours is no terminal and no CI log, the bytes behind the prefix are exact, and
//! a line that had no end gets one. On a terminal they are made harmless ([`super::remote`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::ending::Ending;
use super::live::Live;
use super::remote::Remote;
use super::rows::{Drawn, Tables};
use super::style::{Kind, Styles};
use super::{Ink, Renderer};
use crate::event::{Block, Event, RunInfo, Severity, Stream, What};
use crate::job::{PlayId, TaskId, TaskRef};
use crate::listing::Entry;
use crate::outcome::{Effort, Failure, HostProblem, Outcome};
use crate::recap::Recap;
use crate::rows::TableSpec;
use crate::target::HostName;
use crate::text;
use crate::transfer::Tally;

/// Names longer than this are cut in the middle.
const WIDEST_NAME: usize = 20;

/// How the text is to look.
#[derive(Debug, Clone)]
pub struct TextOptions {
    /// Colours.
    pub colour: bool,
    /// Our standard error is a terminal.
    pub terminal: bool,
    /// Our standard output is a terminal.
    pub data_terminal: bool,
    /// A CI system reads what we write, and obeys commands in it.
    pub ci: bool,
    /// The terminal's width.
    pub columns: usize,
    /// -1 quiet, 0 as usual, 1 and 2 more.
    pub verbosity: i8,
    /// Lines stand behind their host's name.
    pub prefix: bool,
    /// All hosts of the run.
    pub hosts: Vec<HostName>,
    /// The tasks whose rows are shown as tables, in place of their lines.
    pub tables: HashMap<TaskId, Arc<TableSpec>>,
    /// Folds names into ranges.
    pub fold: fn(&[HostName]) -> String,
}

/// The renderer for people.
#[derive(Debug)]
pub struct TextRenderer {
    options: TextOptions,
    styles: Styles,
    width: usize,
    /// Prefix of each host and stream.
    prefixes: HashMap<(HostName, Stream), Arc<[u8]>>,
    headed: HashSet<TaskId>,
    single: bool,
    recap: Recap,
    live: Live,
    tables: Tables,
}

impl TextRenderer {
    /// A renderer that has shown nothing yet.
    #[must_use]
    pub fn new(options: TextOptions) -> Self {
        let widest = options
            .hosts
            .iter()
            .map(|host| text::width(host.as_str()))
            .max()
            .unwrap_or(0);
        Self {
            tables: Tables::new(options.tables.clone(), &options.hosts),
            styles: Styles::new(options.colour),
            width: widest.min(WIDEST_NAME),
            options,
            prefixes: HashMap::new(),
            headed: HashSet::new(),
            single: false,
            recap: Recap::new(),
            live: Live::default(),
        }
    }

    fn talk(&self) -> bool {
        self.options.verbosity >= 0
    }

    fn verbose(&self, level: i8) -> bool {
        self.options.verbosity >= level
    }

    fn shown_name(&self, host: &HostName) -> String {
        let name = middle_cut(host.as_str(), WIDEST_NAME);
        let spaces = self.width.saturating_sub(text::width(&name));
        format!(
            "{}{}",
            self.styles.host(host.as_str(), &name),
            " ".repeat(spaces)
        )
    }

    fn prefix(&mut self, host: &HostName, stream: Stream) -> Arc<[u8]> {
        if !self.options.prefix {
            return Arc::from(Vec::new());
        }
        let key = (host.clone(), stream);
        if let Some(prefix) = self.prefixes.get(&key) {
            return Arc::clone(prefix);
        }
        let mark = match (stream, self.exact(stream)) {
            (Stream::Stdout, false) => "│".to_owned(),
            (Stream::Stdout, true) => "|".to_owned(),
            (Stream::Stderr, false) => self.styles.paint(Kind::Stderr, "┃"),
            (Stream::Stderr, true) => "!".to_owned(),
        };
        // A file or a pipe gets no colour behind which a program would have to look for the name.
        let name = if self.exact(stream) {
            self.plain_name(host)
        } else {
            self.shown_name(host)
        };
        let prefix: Arc<[u8]> = format!("{name} {mark} ").into_bytes().into();
        self.prefixes.insert(key, Arc::clone(&prefix));
        prefix
    }

    fn plain_name(&self, host: &HostName) -> String {
        format!("{:width$}", host.as_str(), width = self.width)
    }

    /// Whether the stream's bytes go out as they came.
    fn exact(&self, stream: Stream) -> bool {
        let terminal = match stream {
            Stream::Stdout => self.options.data_terminal,
            Stream::Stderr => self.options.terminal,
        };
        !terminal && !self.options.ci
    }

    fn output(&mut self, host: &HostName, block: &Block, ink: &mut Ink) {
        let prefix = self.prefix(host, block.stream);
        let exact = self.exact(block.stream);
        let remote = Remote {
            colour: self.options.colour,
            ci: self.options.ci,
        };
        let out = match block.stream {
            Stream::Stdout => ink.out(),
            Stream::Stderr => ink.err(),
        };
        if exact {
            return push_exact(out, &prefix, block);
        }
        for line in block.lines() {
            out.extend_from_slice(&prefix);
            remote.push_line(out, line.text);
            out.push(b'\n');
        }
    }

    fn run_start(&mut self, info: &RunInfo, ink: &mut Ink) {
        self.single = info.tasks <= 1;
        if self.talk() && !self.options.terminal {
            let line = format!(
                "fanrun {}  {}  {}, {}, fanout {}\n",
                env!("CARGO_PKG_VERSION"),
                info.title,
                text::count(info.hosts.len(), "host"),
                text::count(info.tasks, "task"),
                info.fanout,
            );
            ink.err().extend_from_slice(line.as_bytes());
        }
    }

    fn task_start(&mut self, task: &TaskRef, ink: &mut Ink) {
        if self.single || !self.talk() || !self.headed.insert(task.id) {
            return;
        }
        let line = self
            .styles
            .paint(Kind::Heading, &format!("== {}", task.name));
        say(ink, &line);
    }

    fn task_end(
        &self,
        host: &HostName,
        task: &TaskRef,
        (outcome, ending): (&Outcome, String),
        (took, copied): (Duration, bool),
        ink: &mut Ink,
    ) {
        let good = matches!(outcome, Outcome::Ok { .. } | Outcome::Skipped { .. });
        let calm = self.single || !self.options.terminal;
        // What ran no process (print, pause) has shown itself.
        let shown = matches!(outcome, Outcome::Ok { status: None });
        // A copy has nothing else to show for itself.
        let quiet = !copied && (calm || shown) && !self.verbose(1);
        if good && (!self.talk() || quiet) {
            return;
        }
        let line = if self.options.terminal {
            let (kind, mark) = match outcome {
                Outcome::Skipped { .. } => (Kind::Dim, "-"),
                _ if good => (Kind::Good, "✓"),
                _ => (Kind::Bad, "✗"),
            };
            let left = [self.shown_name(host), task.name.to_string(), ending];
            let left = left.join("   ");
            let left = format!("{} {}", self.styles.paint(kind, mark), left.trim_end());
            right_aligned(&left, &text::duration(took), self.options.columns)
        } else {
            let word = match outcome {
                Outcome::Skipped { .. } => "skip",
                _ if good => "ok  ",
                _ => "FAIL",
            };
            let place = task
                .place
                .as_ref()
                .map_or(String::new(), |place| format!("  ({place})"));
            let mut line = format!("{word} {host}  {}", task.name);
            if !ending.is_empty() {
                line.push_str(&format!("  {ending}"));
            }
            format!("{line}  {}{place}", text::duration(took))
        };
        say(ink, &line);
        if let Outcome::Failed(Failure::Parse(bad)) = outcome {
            bad.drawn()
                .iter()
                .for_each(|line| say(ink, &format!("  {line}")));
        }
    }

    /// What is said of an ending besides that it was good or bad.
    fn ending(
        &self,
        outcome: &Outcome,
        effort: Effort,
        rescued: bool,
        moved: Option<Tally>,
    ) -> String {
        let good = matches!(outcome, Outcome::Ok { .. });
        let mut parts = vec![match moved {
            Some(moved) if good => moved.words(),
            None if good => String::new(),
            Some(_) | None => outcome.to_string(),
        }];
        if let Some(items) = effort.items.filter(|items| items.failed > 0) {
            parts.push(format!("{} of {} items failed", items.failed, items.all));
        } else if let Some(items) = effort.items {
            parts.push(text::count(items.all as usize, "item"));
        } else if effort.attempts > 1 {
            parts.push(text::count(effort.attempts as usize, "attempt"));
        }
        parts.extend(rescued.then(|| "rescued".to_owned()));
        parts.retain(|part| !part.is_empty());
        text::printable(parts.join("  ").as_bytes()).into_owned()
    }

    fn problem(&self, host: &HostName, problem: &HostProblem, ink: &mut Ink) {
        let message = text::printable(problem.message.as_bytes());
        let message = self.styles.paint(Kind::Bad, &message);
        say(
            ink,
            &format!(
                "{}: {message}",
                self.styles.host(host.as_str(), host.as_str())
            ),
        );
        let widest = problem
            .details
            .iter()
            .map(|(label, _)| label.len())
            .max()
            .unwrap_or(0);
        for (label, detail) in &problem.details {
            let label = self.styles.paint(Kind::Dim, &format!("{label:widest$}"));
            for (at, line) in detail.lines().enumerate() {
                let label = if at == 0 {
                    label.clone()
                } else {
                    " ".repeat(widest)
                };
                say(
                    ink,
                    &format!("  {label}   {}", text::printable(line.as_bytes())),
                );
            }
        }
    }

    fn diagnostic(
        &self,
        host: Option<&HostName>,
        severity: Severity,
        message: &str,
        ink: &mut Ink,
    ) {
        let (kind, word, level) = match severity {
            Severity::Note => (Kind::Dim, "note", 1),
            Severity::Warning => (Kind::Warning, "warning", 0),
            Severity::Error => (Kind::Bad, "error", -1),
        };
        if self.verbose(level) {
            let host = host.map_or(String::new(), |host| format!("{host}: "));
            let word = self.styles.paint(kind, word);
            say(
                ink,
                &format!("{word}: {host}{}", text::printable(message.as_bytes())),
            );
        }
    }

    fn heartbeat(
        &self,
        at: Duration,
        running: u32,
        queued: u32,
        longest: Option<&(HostName, TaskRef, Duration)>,
        ink: &mut Ink,
    ) {
        if !self.talk() || self.options.terminal {
            return;
        }
        let mut line = format!(".... {}: {running} running", text::duration(at));
        if queued > 0 {
            line.push_str(&format!(", {queued} queued"));
        }
        if let Some((host, task, time)) = longest {
            line.push_str(&format!(
                ", longest {host} {} ({})",
                text::duration(*time),
                task.name
            ));
        }
        say(ink, &line);
    }

    fn run_end(&self, ink: &mut Ink) {
        if self.options.terminal && self.talk() {
            let rule = "─".repeat(self.options.columns.clamp(20, 100) - 1);
            say(ink, &self.styles.paint(Kind::Dim, &rule));
        }
        let ending = Ending {
            styles: self.styles,
            columns: self.options.columns,
            verbose: self.verbose(1),
            fold: self.options.fold,
        };
        ink.err()
            .extend_from_slice(ending.draw(&self.recap).as_bytes());
    }
}

impl TextRenderer {
    /// Draws the tables that are complete when this play begins; with `None`, all.
    fn draw_tables(&mut self, next: Option<PlayId>, ink: &mut Ink) {
        let remote = Remote {
            colour: false,
            ci: self.options.ci,
        };
        for Drawn {
            title,
            text,
            left_out,
        } in self.tables.draw(next)
        {
            if self.talk() && !self.single {
                let title = format!("== {}", text::printable(title.as_bytes()));
                say(ink, &self.styles.paint(Kind::Heading, &title));
            }
            for line in text.lines() {
                remote.push_line(ink.out(), line.as_bytes());
                ink.out().push(b'\n');
            }
            if left_out > 0 {
                let text = format!("{left_out} more rows are not in the table: it is too long");
                self.diagnostic(None, Severity::Warning, &text, ink);
            }
        }
    }

    /// Files that a listing found, a line each.
    fn entries(&mut self, host: &HostName, entries: &[Entry], ink: &mut Ink) {
        let text: String = entries.iter().map(super::listing::long_line).collect();
        let block = Block {
            stream: Stream::Stdout,
            first_line: 1,
            lines: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            bytes: text.into(),
        };
        self.output(host, &block, ink);
    }
}

impl Renderer for TextRenderer {
    fn render(&mut self, event: &Event, ink: &mut Ink) {
        self.recap.add(event);
        if self.options.terminal {
            self.live.add(event);
        }
        match &event.what {
            What::RunStart(info) => self.run_start(info, ink),
            What::Output { task, block, .. }
                if block.stream == Stream::Stdout
                    && self.tables.shows(task.id)
                    && !self.verbose(1) => {}
            What::Output { host, block, .. } => self.output(host, block, ink),
            What::Rows {
                host, task, rows, ..
            } => self.tables.add(host, task, rows),
            What::Print { host, text, .. } => {
                let block = Block {
                    stream: Stream::Stdout,
                    first_line: 1,
                    lines: 1,
                    bytes: format!("{}\n", text.trim_end()).into(),
                };
                self.output(host, &block, ink);
            }
            What::TaskStart { task, .. } => self.task_start(task, ink),
            What::TaskEnd {
                host,
                task,
                outcome,
                took,
                rescued,
                effort,
                tally,
            } => {
                let moved = tally.filter(|tally| !tally.found);
                let ending = self.ending(outcome, *effort, *rescued, moved);
                let shown = moved.is_some();
                self.task_end(host, task, (outcome, ending), (*took, shown), ink);
            }
            What::HostProblem { host, problem } => self.problem(host, problem, ink),
            What::Diagnostic {
                host,
                severity,
                message,
            } => {
                self.diagnostic(host.as_ref(), *severity, message, ink);
            }
            What::Heartbeat {
                running,
                queued,
                longest,
            } => {
                self.heartbeat(event.at, *running, *queued, longest.as_ref(), ink);
            }
            What::RunEnd { .. } => {
                self.draw_tables(None, ink);
                self.run_end(ink);
            }
            What::BatchStart { .. }
            | What::PlayStart { .. }
            | What::HostConnecting { .. }
            | What::HostReady { .. }
            | What::Retry { .. } => {
                if let What::PlayStart { play, .. } = &event.what {
                    self.draw_tables(Some(*play), ink);
                }
                if let Some((level, line)) = detail(&event.what)
                    && self.verbose(level)
                {
                    say(ink, &line);
                }
            }
            What::Entries { host, entries, .. } => self.entries(host, entries, ink),
            What::Progress { .. } | What::HostEnd { .. } => {}
        }
    }

    fn live(&mut self, now: Duration, size: (usize, usize)) -> Vec<String> {
        self.options.columns = size.0;
        self.live.lines(now, size, self.styles)
    }
}

/// What only the curious see, and from which verbosity on.
fn detail(what: &What) -> Option<(i8, String)> {
    Some(match what {
        What::PlayStart { name, hosts, .. } => {
            (1, format!("play {name}  {}", text::count(*hosts, "host")))
        }
        What::HostConnecting { host, address } => (2, format!("{host}: connecting to {address}")),
        What::HostReady {
            host,
            took,
            retries,
        } => {
            let again = match *retries {
                0 => String::new(),
                n => format!(" after {}", text::count(n as usize, "dropped attempt")),
            };
            (
                1,
                format!("{host}: logged in in {}{again}", text::duration(*took)),
            )
        }
        What::Retry {
            host,
            task,
            attempt,
            delay,
            reason,
        } => {
            let reason = text::printable(reason.as_bytes());
            let task = task
                .as_ref()
                .map_or(String::new(), |task| format!("{}: ", task.name));
            (
                1,
                format!(
                    "{host}: {task}attempt {attempt} in {}: {reason}",
                    text::duration(*delay)
                ),
            )
        }
        _ => return None,
    })
}

fn say(ink: &mut Ink, line: &str) {
    let err = ink.err();
    err.extend_from_slice(line.as_bytes());
    err.push(b'\n');
}

/// The volume goes through here: no formatting and no allocation a line.
fn push_exact(out: &mut Vec<u8>, prefix: &[u8], block: &Block) {
    let bytes: &[u8] = &block.bytes;
    out.reserve(bytes.len() + (block.lines as usize + 1) * prefix.len() + 1);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        out.extend_from_slice(prefix);
        out.extend_from_slice(&bytes[start..=end]);
        start = end + 1;
    }
    if start < bytes.len() {
        out.extend_from_slice(prefix);
        out.extend_from_slice(&bytes[start..]);
        out.push(b'\n');
    }
}

fn right_aligned(left: &str, right: &str, columns: usize) -> String {
    let visible = text::width(&strip_colour(left));
    let width = columns.clamp(20, 100) - 1;
    let gap = width.saturating_sub(visible + text::width(right)).max(2);
    format!("{left}{}{right}", " ".repeat(gap))
}

fn strip_colour(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match (inside, c) {
            (false, '\x1b') => inside = true,
            (false, _) => out.push(c),
            (true, 'm') => inside = false,
            (true, _) => {}
        }
    }
    out
}

fn middle_cut(name: &str, columns: usize) -> String {
    if text::width(name) <= columns {
        return name.to_owned();
    }
    let chars: Vec<char> = name.chars().collect();
    let tail = columns / 2;
    let head = columns - tail - 1;
    let (head, tail) = (&chars[..head], &chars[chars.len() - tail..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

#[cfg(test)]
mod tests;
