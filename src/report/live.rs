//! The live region: what is going on now, in a few lines below the log.

use std::collections::BTreeMap;
use std::time::Duration;

use super::style::{Kind, Styles};
use crate::event::{Event, What};
use crate::job::TaskRef;
use crate::target::HostName;
use crate::text;

/// Width of the progress bar, in cells.
const BAR: usize = 10;
/// Hosts named in the line of those that are waited for.
const NAMED: usize = 3;

/// What the region needs to know.
#[derive(Debug, Default)]
pub(super) struct Live {
    title: String,
    tasks: usize,
    play: Option<Play>,
    hosts: usize,
    ended: usize,
    begun: usize,
    running: BTreeMap<HostName, Running>,
    sums: BTreeMap<&'static str, usize>,
    over: bool,
}

#[derive(Debug)]
struct Play {
    hosts: usize,
    /// The furthest task that has begun, and how many hosts have ended it.
    task: Option<TaskRef>,
    done: BTreeMap<u16, usize>,
}

#[derive(Debug)]
struct Running {
    since: Duration,
    last: String,
}

impl Live {
    pub(super) fn add(&mut self, event: &Event) {
        match &event.what {
            What::RunStart(info) => {
                self.title.clone_from(&info.title);
                (self.tasks, self.hosts) = (info.tasks, info.hosts.len());
            }
            What::PlayStart { hosts, .. } => {
                self.play = Some(Play {
                    hosts: *hosts,
                    task: None,
                    done: BTreeMap::new(),
                });
                self.begun = 0;
            }
            What::HostConnecting { host, .. } => self.begin(host, event.at, "connecting"),
            What::TaskStart { host, task } => {
                self.begin(host, event.at, "");
                if let Some(play) = &mut self.play
                    && play.task.as_ref().is_none_or(|known| known.id < task.id)
                {
                    play.task = Some(task.clone());
                }
            }
            What::Output { host, block, .. } => {
                let last = block.lines().last();
                if let (Some(running), Some(line)) = (self.running.get_mut(host), last) {
                    let cut = &line.text[..line.text.len().min(60)];
                    running.last = text::printable_plain(cut.trim_ascii()).into_owned();
                }
            }
            What::TaskEnd {
                host,
                task,
                outcome,
                ..
            } => {
                self.running.remove(host);
                *self.sums.entry(outcome.word()).or_default() += 1;
                if let Some(play) = &mut self.play {
                    *play.done.entry(task.id.index).or_default() += 1;
                }
            }
            What::HostProblem { host, problem } => {
                self.running.remove(host);
                let word = if problem.cause.is_refused() {
                    "refused"
                } else {
                    "unreachable"
                };
                *self.sums.entry(word).or_default() += 1;
            }
            What::HostEnd { host, .. } => {
                self.running.remove(host);
                self.ended += 1;
            }
            What::RunEnd { .. } => self.over = true,
            What::HostReady { .. }
            | What::BatchStart { .. }
            | What::Entries { .. }
            | What::Progress { .. }
            | What::Print { .. }
            | What::Retry { .. }
            | What::Diagnostic { .. }
            | What::Heartbeat { .. } => {}
        }
    }

    fn begin(&mut self, host: &HostName, at: Duration, doing: &str) {
        let fresh = Running {
            since: at,
            last: doing.to_owned(),
        };
        if self.running.insert(host.clone(), fresh).is_none() {
            self.begun += 1;
        }
    }

    pub(super) fn lines(
        &self,
        now: Duration,
        (columns, rows): (usize, usize),
        styles: Styles,
    ) -> Vec<String> {
        let most = (rows / 3).max(1);
        if self.over || self.title.is_empty() || columns < 20 {
            return Vec::new();
        }
        let mut lines = vec![styles.paint(Kind::Dim, &"─".repeat(columns.saturating_sub(1)))];
        lines.push(text::fit(&self.progress(now), columns - 1).into_owned());
        if let Some(waiting) = self.waiting(now) {
            lines.push(text::fit(&waiting, columns - 1).into_owned());
        }
        if let Some(sums) = self.sums() {
            lines.push(text::fit(&sums, columns - 1).into_owned());
        }
        // The progress line matters most; the rule least.
        if lines.len() > most {
            lines.remove(0);
            lines.truncate(most);
        }
        lines
    }

    fn progress(&self, now: Duration) -> String {
        let Some(play) = &self.play else {
            return format!("{}   starting", self.title);
        };
        let (number, name, done) = match &play.task {
            None => (0, "connecting", 0),
            Some(task) => {
                let done = play.done.get(&task.id.index).copied().unwrap_or(0);
                (usize::from(task.id.index) + 1, &*task.name, done)
            }
        };
        let bar = bar(done, play.hosts);
        // The one task of an `exec` is its title.
        let step = match self.tasks {
            0 | 1 => String::new(),
            all => format!("{number}/{all} {}   ", text::fit(name, 28)),
        };
        let (title, hosts) = (text::fit(&self.title, 24), play.hosts);
        format!(
            "{title}   {step}{bar} {done}/{hosts} hosts   {}",
            clock(now)
        )
    }

    fn waiting(&self, now: Duration) -> Option<String> {
        let mut longest: Vec<(&HostName, &Running)> = self.running.iter().collect();
        longest.sort_by_key(|(_, running)| running.since);
        let (first, rest) = longest.split_first()?;
        let time = |running: &Running| match now.saturating_sub(running.since).as_secs() {
            0 => "0s".to_owned(),
            seconds => text::duration(Duration::from_secs(seconds)),
        };
        let mut line = format!("waiting for  {} {}", first.0, time(first.1));
        if !first.1.last.is_empty() {
            line.push_str(&format!(" \"{}\"", text::fit(&first.1.last, 30)));
        }
        for (host, running) in rest.iter().take(NAMED - 1) {
            line.push_str(&format!("  {host} {}", time(running)));
        }
        if longest.len() > NAMED {
            line.push_str(&format!("  +{}", longest.len() - NAMED));
        }
        Some(line)
    }

    fn sums(&self) -> Option<String> {
        let sums: Vec<String> = self
            .sums
            .iter()
            .map(|(word, n)| format!("{} {n}", word.replace('_', " ")))
            .collect();
        (!sums.is_empty()).then(|| sums.join("   "))
    }
}

fn bar(done: usize, all: usize) -> String {
    let filled = (done * BAR).checked_div(all).unwrap_or(0).min(BAR);
    format!("▕{}{}▏", "█".repeat(filled), "░".repeat(BAR - filled))
}

fn clock(now: Duration) -> String {
    let seconds = now.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}
