//! The live region: what is going on now, in a few lines below the log.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::style::{Kind, Styles};
use crate::event::{Event, What};
use crate::job::TaskRef;
use crate::target::HostName;
use crate::text;
use crate::transfer::Progress;

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
    copies: Copies,
    over: bool,
}

/// Files on their way, over all hosts.
#[derive(Debug, Default)]
struct Copies {
    under_way: BTreeMap<HostName, Progress>,
    /// Of hosts that have finished.
    files: u64,
    bytes: u64,
    /// When how many bytes had been moved, the oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Copies {
    fn add(&mut self, at: Duration, host: &HostName, progress: &Progress) {
        self.under_way.insert(host.clone(), progress.clone());
        self.samples.push_back((at, self.moved()));
        while self.samples.len() > 2
            && let Some((oldest, _)) = self.samples.front()
            && at.saturating_sub(*oldest) > RATE_SPAN
        {
            self.samples.pop_front();
        }
    }

    fn end(&mut self, host: &HostName) {
        if let Some(progress) = self.under_way.remove(host) {
            self.files += progress.files;
            self.bytes += progress.bytes;
        }
    }

    fn moved(&self) -> u64 {
        self.bytes + self.under_way.values().map(|one| one.bytes).sum::<u64>()
    }

    /// Bytes a second of late.
    fn rate(&self) -> Option<u64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let time = last.0.checked_sub(first.0)?.as_secs_f64();
        (time > 0.5).then(|| (last.1.saturating_sub(first.1) as f64 / time) as u64)
    }

    /// `▕███░░░░░░░▏  12 of 40 files   412.0 MiB of 1.2 GiB   86.0 MiB/s   9s left`
    fn line(&self) -> Option<String> {
        if self.under_way.is_empty() {
            return None;
        }
        let running = || self.under_way.values();
        let files = self.files + running().map(|one| one.files).sum::<u64>();
        let total = |of: fn(&Progress) -> Option<u64>, done: u64| {
            let known: Option<u64> = running().map(of).sum();
            known.map(|known| known + done)
        };
        let mut line = match total(|one| one.files_total, self.files) {
            Some(all) => format!("{files} of {all} files"),
            None => format!("{files} files"),
        };
        let moved = self.moved();
        let all = total(|one| one.bytes_total, self.bytes);
        if let Some(all) = all {
            let part = |bytes: u64| usize::try_from(bytes >> 10).unwrap_or(usize::MAX);
            line = format!("{}  {line}", bar(part(moved), part(all)));
        }
        line.push_str(&format!("   {}", text::size(moved)));
        if let Some(all) = all {
            line.push_str(&format!(" of {}", text::size(all)));
        }
        if let Some(rate) = self.rate() {
            line.push_str(&format!("   {}/s", text::size(rate)));
            if let (Some(all), 1..) = (all, rate) {
                let left = Duration::from_secs(all.saturating_sub(moved) / rate);
                line.push_str(&format!("   {} left", text::duration(left)));
            }
        }
        Some(line)
    }
}

/// How far back a rate looks.
const RATE_SPAN: Duration = Duration::from_secs(5);

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
                self.copies.end(host);
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
            What::Progress { host, progress, .. } => {
                self.copies.add(event.at, host, progress);
                if let (Some(running), Some(file)) = (self.running.get_mut(host), &progress.current)
                {
                    let percent = file.bytes * 100 / file.total.max(1);
                    running.last = format!("{} {percent}%", file_name(&file.path));
                }
            }
            What::RunEnd { .. } => self.over = true,
            What::HostReady { .. }
            | What::BatchStart { .. }
            | What::Entries { .. }
            | What::Rows { .. }
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
        if let Some(copies) = self.copies.line() {
            lines.push(text::fit(&copies, columns - 1).into_owned());
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

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn clock(now: Duration) -> String {
    let seconds = now.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}
