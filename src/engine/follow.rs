//! Following one process to its end: its output into the outbox, its ending into an outcome.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::clock::Clock;
use super::outbox::{Outbox, SpillLost};
use super::rows::{self, Rowed, Rowing};
use super::state::Level;
use super::termination::Ladder;
use crate::event::{Block, Stream};
use crate::job::{CAPTURE_LIMIT, Job};
use crate::outcome::{ExitStatus, Failure, Outcome, Remains};
use crate::output::capture::Capture;
use crate::output::lines::Splitter;
use crate::session::{Ending, Process, ProcessEvent, Session, Spawn};
use crate::transfer::Tally;

/// What is known when a process has been followed.
pub(super) struct Followed {
    pub(super) outcome: Outcome,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
    /// Worth a word: what the process left behind held its output open, lines did not fit.
    pub(super) warnings: Vec<String>,
    /// What a task on files moved or found.
    pub(super) tally: Option<Tally>,
    /// What a listing found or the output was parsed to, where it is registered.
    pub(super) rows: Option<Vec<serde_json::Value>>,
    /// Lines that did not fit, where that is no failure; printable.
    pub(super) unparsed: Vec<String>,
    /// Why another account was not to be had although its password was sent.
    pub(super) denied: Option<String>,
}

/// Why a small command of our own said nothing.
pub(super) struct Unsaid {
    /// One line.
    pub(super) reason: String,
    /// Another account was not to be had although its password was sent.
    pub(super) denied: bool,
}

impl Unsaid {
    fn because(reason: String) -> Self {
        Self {
            reason,
            denied: false,
        }
    }
}

impl Followed {
    /// An ending without a process.
    pub(super) fn of(outcome: Outcome) -> Self {
        let none = || Capture::new(0);
        Self {
            outcome,
            stdout: none(),
            stderr: none(),
            warnings: Vec::new(),
            tally: None,
            rows: None,
            unparsed: Vec::new(),
            denied: None,
        }
    }
}

/// One process being followed.
pub(super) struct Follow<'a> {
    job: &'a Job,
    clock: &'a Clock,
    cancel: &'a mut watch::Receiver<Level>,
    lines: Lines<'a>,
    /// Another task follows: its channel is opened while this one runs.
    more: bool,
}

/// Bytes in, blocks out, copies kept.
struct Lines<'a> {
    out: &'a mut Outbox,
    /// Bytes go on as they come; nobody counts lines.
    pass_through: bool,
    /// Standard output becomes rows.
    parsed: bool,
    split: [Splitter; 2],
    kept: [Capture; 2],
}

impl Lines<'_> {
    fn take(&mut self, stream: Stream, bytes: Bytes) {
        let at = usize::from(stream == Stream::Stderr);
        self.kept[at].push(&bytes);
        if self.pass_through {
            return self.out.offer(Block {
                stream,
                first_line: 1,
                lines: 1,
                bytes,
            });
        }
        let cut = self.parsed && stream == Stream::Stdout;
        self.split[at].push(bytes, &mut |block| {
            if cut {
                block
                    .cut(rows::BLOCK)
                    .for_each(|block| self.out.offer(block));
            } else {
                self.out.offer(block);
            }
        });
    }

    fn finish(&mut self) {
        for split in &mut self.split {
            split.finish(&mut |block| self.out.offer(block));
        }
    }
}

/// Why reading stopped.
enum Stop {
    Ended(Ending),
    TimedOut(Duration),
    Cancelled,
    /// No more rows are wanted, or a line did not fit.
    Rows,
}

impl<'a> Follow<'a> {
    pub(super) fn new(
        out: &'a mut Outbox,
        cancel: &'a mut watch::Receiver<Level>,
        job: &'a Job,
        clock: &'a Clock,
        more: bool,
    ) -> Self {
        let limit = if job.keep { CAPTURE_LIMIT } else { 0 };
        let split = [Splitter::new(Stream::Stdout), Splitter::new(Stream::Stderr)];
        let kept = [Capture::new(limit), Capture::new(limit)];
        let rows = Rowing::of(job);
        let parsed = rows.is_some();
        if let Some(rows) = rows {
            out.parse(rows);
        }
        let lines = Lines {
            out,
            parsed,
            pass_through: job.pass_through,
            split,
            kept,
        };
        Self {
            job,
            clock,
            cancel,
            lines,
            more,
        }
    }

    /// Reads until the process ends, its time is over, or the run is stopped.
    pub(super) async fn until_the_end(
        mut self,
        mut process: Process,
        session: &mut Session,
    ) -> Result<Followed, SpillLost> {
        let (mut warnings, mut denied) = (Vec::new(), None);
        let outcome = match self.read(&mut process, session).await? {
            Stop::Ended(ending) => {
                if let Ending::Denied { reason } = &ending {
                    denied = Some(reason.clone());
                }
                let (outcome, left) = judge(ending, &self.job.ok_codes);
                warnings.extend(left);
                outcome
            }
            Stop::Rows => {
                let remains = self.end(&mut process, session).await;
                if remains == Remains::MaybeRunning {
                    let word =
                        "the command was ended because of its rows, but may still be running";
                    warnings.push(word.to_owned());
                }
                Outcome::Ok { status: None }
            }
            Stop::TimedOut(after) => {
                let remote = self.end(&mut process, session).await;
                Outcome::TimedOut { after, remote }
            }
            Stop::Cancelled => {
                self.lines.out.stop_waiting();
                let remote = self.end(&mut process, session).await;
                Outcome::Cancelled { remote }
            }
        };
        self.lines.finish();
        // A line that was cut off is not read: `12` may have been `1234`.
        let whole = matches!(
            outcome,
            Outcome::Ok { status: Some(_) } | Outcome::Failed(Failure::Exit(ExitStatus::Exited(_)))
        );
        let rowed = self.lines.out.end_rows(whole).await?;
        let [stdout, stderr] = self.lines.kept;
        let followed = Followed {
            outcome,
            stdout,
            stderr,
            warnings,
            tally: None,
            rows: None,
            unparsed: Vec::new(),
            denied,
        };
        Ok(match rowed {
            Some(rowing) => with_rows(followed, rowing.into_rowed()),
            None => followed,
        })
    }

    async fn read(
        &mut self,
        process: &mut Process,
        session: &mut Session,
    ) -> Result<Stop, SpillLost> {
        let mut ready = !self.more;
        let mut ahead = std::pin::pin!(session.prepare());
        let mut deadline = std::pin::pin!(self.clock.limit(self.job.timeout));
        let ending = loop {
            let out = &mut *self.lines.out;
            if out.rows_are_over() {
                return Ok(Stop::Rows);
            }
            let (waiting, room) = (!out.is_empty(), out.has_room());
            tokio::select! {
                biased;
                _ = self.cancel.wait_for(|level| *level != Level::Run) => {
                    return Ok(Stop::Cancelled);
                }
                after = &mut deadline => return Ok(Stop::TimedOut(after)),
                moved = out.pump(), if waiting => moved?,
                () = &mut ahead, if !ready => ready = true,
                event = process.next(), if room => match event {
                    ProcessEvent::Output { stream, bytes } => self.lines.take(stream, bytes),
                    ProcessEvent::Ended(ending) => break ending,
                },
            }
        };
        // A request for a channel that nobody waits for would leave it open. The next task needs
        // it anyway.
        if !ready {
            ahead.await;
        }
        Ok(Stop::Ended(ending))
    }

    async fn end(
        &mut self,
        process: &mut Process,
        session: &mut Session,
    ) -> crate::outcome::Remains {
        let lines = &mut self.lines;
        let output = |stream, bytes| lines.take(stream, bytes);
        let remains = Ladder::new(session, process, self.cancel, output)
            .climb()
            .await;
        if remains == crate::outcome::Remains::MaybeRunning {
            session.abort();
        }
        remains
    }
}

/// What the rows of a process say of its task.
fn with_rows(mut followed: Followed, rowed: Rowed) -> Followed {
    followed.outcome = rows::judged(followed.outcome, rowed.end);
    let kept = rowed
        .rows
        .as_ref()
        .map_or(rowed.total, |rows| rows.len() as u64);
    if kept < rowed.total {
        let total = rowed.total;
        followed.warnings.push(format!(
            "later tasks find the first {kept} of {total} rows; more are not kept"
        ));
    }
    let unparsed = rowed.unparsed;
    if let Some(first) = unparsed.lines.first() {
        let count = crate::text::count(
            usize::try_from(unparsed.total).unwrap_or(usize::MAX),
            "line",
        );
        let text = crate::text::printable(&first.text);
        let verb = if unparsed.total == 1 { "does" } else { "do" };
        followed.warnings.push(format!(
            "{count} of the output {verb} not fit `{}`; the first is line {}: {text}",
            first.format, first.number
        ));
    }
    let text = |line: &crate::rows::BadLine| crate::text::printable(&line.text).into_owned();
    followed.unparsed = unparsed.lines.iter().map(text).collect();
    followed.rows = rowed.rows;
    followed
}

fn judge(ending: Ending, ok_codes: &[u32]) -> (Outcome, Option<String>) {
    match ending {
        Ending::Exited { status, lingering } => (by_status(status, ok_codes), lingering),
        Ending::NotStarted { reason } | Ending::Denied { reason } => {
            (Outcome::Failed(Failure::NotStarted { reason }), None)
        }
        Ending::Lost { reason } => (Outcome::Lost { reason }, None),
    }
}

fn by_status(status: ExitStatus, ok_codes: &[u32]) -> Outcome {
    match status {
        ExitStatus::Exited(code) if ok_codes.contains(&code) => Outcome::Ok {
            status: Some(status),
        },
        ExitStatus::Exited(_) | ExitStatus::Signaled { .. } => {
            Outcome::Failed(Failure::Exit(status))
        }
    }
}

/// How long a small command of our own may take, and how much it may say.
const ASIDE_TIME: Duration = Duration::from_secs(60);
const ASIDE_BYTES: usize = 4096;

/// Runs a small command of our own; gives its standard output, or why there is none.
pub(super) async fn aside(session: &mut Session, spawn: Spawn) -> Result<String, Unsaid> {
    aside_within(session, spawn, ASIDE_TIME, ASIDE_BYTES).await
}

/// The same for one that may take `time` and say `most` bytes.
pub(super) async fn aside_within(
    session: &mut Session,
    spawn: Spawn,
    time: Duration,
    most: usize,
) -> Result<String, Unsaid> {
    let mut process = session
        .start(spawn)
        .await
        .map_err(|error| Unsaid::because(error.to_string()))?;
    let mut kept = [Capture::new(most), Capture::new(most)];
    let reading = async {
        loop {
            match process.next().await {
                ProcessEvent::Output { stream, bytes } => {
                    kept[usize::from(stream == Stream::Stderr)].push(&bytes);
                }
                ProcessEvent::Ended(ending) => return ending,
            }
        }
    };
    let ending = tokio::time::timeout(time, reading).await;
    let [stdout, stderr] = kept;
    match ending {
        Ok(Ending::Exited {
            status: ExitStatus::Exited(0),
            ..
        }) => Ok(String::from_utf8_lossy(stdout.as_bytes()).into_owned()),
        Ok(Ending::Exited { status, .. }) => {
            let said = crate::text::printable(stderr.as_bytes().trim_ascii()).into_owned();
            Err(Unsaid::because(if said.is_empty() {
                status.to_string()
            } else {
                format!("{status}: {said}")
            }))
        }
        Ok(Ending::NotStarted { reason } | Ending::Lost { reason }) => Err(Unsaid::because(reason)),
        Ok(Ending::Denied { reason }) => Err(Unsaid {
            reason,
            denied: true,
        }),
        Err(_) => {
            process.close().await;
            let time = crate::text::duration(time);
            Err(Unsaid::because(format!("no answer in {time}")))
        }
    }
}
