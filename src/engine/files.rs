//! Tasks on files: the work goes on in the future that [`perform`] gives, says what it finds on a
//! channel, and is stopped by a token, so that it can take back what is half done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::copy::Shared;
use super::follow::Followed;
use super::outbox::{Outbox, SpillLost};
use super::sftp::Refused;
use super::state::{Level, News};
use crate::event::Severity;
use crate::job::{Action, Job, ROWS_LIMIT};
use crate::listing::Entry;
use crate::outcome::{Failure, FilesCause, Outcome, Remains};
use crate::session::{Session, SpawnError};
use crate::sftp::{Client, Meter, RemotePath};
use crate::transfer::{Progress, Tally};

/// What a task on files says while it works.
#[derive(Debug)]
pub(super) enum Said {
    /// A listing found something; never nothing.
    Entries(Arc<[Entry]>),
}

/// What a task on files came to. It failed if there is a trouble, whatever else it did.
#[derive(Debug, Default)]
pub(super) struct Worked {
    pub(super) tally: Tally,
    pub(super) trouble: Option<(FilesCause, String)>,
    /// What is worth a word though it changes no outcome. Printable lines.
    pub(super) notes: Vec<String>,
    /// What a copy that only looks would do. Printable lines.
    pub(super) would: Vec<String>,
    /// Files on the host that are not complete and could not be taken away.
    pub(super) left: Vec<RemotePath>,
}

impl Worked {
    /// Nothing was done.
    pub(super) fn failed(cause: FilesCause, reason: String) -> Self {
        Self {
            trouble: Some((cause, reason)),
            ..Self::default()
        }
    }
}

/// What may wait between the work and whoever shows it.
const SAID: usize = 4;
/// How long work that was told to stop may take to clean up.
pub(super) const CLEAN_UP: Duration = Duration::from_secs(2);

/// Checksums that may be asked for at once.
const SUMS: usize = 64;
/// How often a copy says how far it is.
const PROGRESS: Duration = Duration::from_millis(250);

/// What work on files stands on.
pub(super) struct Errand<'a> {
    pub(super) client: Client,
    pub(super) job: &'a Job,
    pub(super) clock: &'a Clock,
    pub(super) copies: &'a Shared,
    /// For checksums that the host's own tool makes, and for a second client.
    pub(super) session: Option<&'a mut Session>,
}

/// Does what the job says; gives what it came to. Never drops what it says: it waits for room.
async fn perform(
    errand: Errand<'_>,
    meter: &Meter,
    say: mpsc::Sender<Said>,
    stop: CancellationToken,
) -> Worked {
    let client = &errand.client;
    match &errand.job.action {
        Action::List(listing) => super::list::list(client.clone(), listing, say, stop).await,
        action @ (Action::Upload(_) | Action::Download(_)) => {
            let (sum, sums) = mpsc::channel(SUMS);
            let (second, seconds) = mpsc::channel(1);
            let serving = async {
                if let Some(session) = errand.session {
                    super::asks::serve(session, sums, seconds).await;
                }
            };
            let copies = errand.copies;
            let copying = copies.copy(client, action, (meter, &stop), (sum, second));
            let mut copying = std::pin::pin!(copying);
            tokio::select! {
                biased;
                // A second connection that has not come by now is of no use.
                worked = &mut copying => worked,
                () = serving => copying.await,
            }
        }
        Action::Run(_)
        | Action::Script { .. }
        | Action::Local(_)
        | Action::Print(_)
        | Action::Pause(_)
        | Action::Ask(_)
        | Action::Assert(_)
        | Action::Set(_)
        | Action::WaitFor(_) => Worked::default(),
    }
}

/// Why the work was told to stop.
enum Stopped {
    Cancelled,
    TimedOut(Duration),
}

/// Follows the work of a job to its end, its limit, or the end of the run. Gives what may be left
/// on the host, too.
pub(super) async fn follow(
    errand: Errand<'_>,
    out: &mut Outbox,
    cancel: &mut watch::Receiver<Level>,
) -> Result<(Followed, Vec<RemotePath>), SpillLost> {
    let (job, clock) = (errand.job, errand.clock);
    let (say, mut said) = mpsc::channel(SAID);
    let (stop, meter) = (CancellationToken::new(), Meter::default());
    let mut work = std::pin::pin!(perform(errand, &meter, say, stop.clone()));
    let mut limit = std::pin::pin!(clock.limit(job.timeout));
    let mut rows = job.keep.then(Vec::new);
    let copies = matches!(job.action, Action::Upload(_) | Action::Download(_));
    let mut ticks = tokio::time::interval(PROGRESS);
    let mut shown = Progress::default();
    let stopped = loop {
        tokio::select! {
            biased;
            () = told_to_stop(cancel) => break Stopped::Cancelled,
            after = &mut limit => break Stopped::TimedOut(after),
            Some(said) = said.recv() => tell(out, job, said, &mut rows).await?,
            worked = &mut work => {
                while let Ok(said) = said.try_recv() {
                    tell(out, job, said, &mut rows).await?;
                }
                return ended(out, job, worked, rows).await;
            }
            _ = ticks.tick(), if copies => {
                let progress = meter.progress();
                if progress != shown {
                    shown = progress;
                    out.say_if_heard(News::Progress(job.task.clone(), shown.clone()));
                }
            }
        }
    };
    stop.cancel();
    // What it says now is of no use, but it must not wait for room to say it.
    said.close();
    let worked = tokio::time::timeout(CLEAN_UP, work).await;
    let remote = match &worked {
        Ok(worked) if worked.left.is_empty() => Remains::Stopped,
        Ok(_) | Err(_) => Remains::HalfDone,
    };
    let outcome = match stopped {
        Stopped::Cancelled => Outcome::Cancelled { remote },
        Stopped::TimedOut(after) => Outcome::TimedOut { after, remote },
    };
    let worked = worked.unwrap_or_default();
    let followed = Followed {
        tally: Some(worked.tally),
        ..Followed::of(outcome)
    };
    Ok((followed, worked.left))
}

async fn told_to_stop(cancel: &mut watch::Receiver<Level>) {
    let _ = cancel.wait_for(|level| *level != Level::Run).await;
}

async fn tell(
    out: &mut Outbox,
    job: &Job,
    said: Said,
    rows: &mut Option<Vec<Value>>,
) -> Result<(), SpillLost> {
    let task = job.task.clone();
    if let (Some(rows), Said::Entries(entries)) = (rows, &said) {
        let room = ROWS_LIMIT.saturating_sub(rows.len());
        rows.extend(entries.iter().take(room).map(|entry| entry.fields().into()));
    }
    out.say(match said {
        Said::Entries(entries) => News::Entries(task, entries),
    })
    .await
}

async fn ended(
    out: &mut Outbox,
    job: &Job,
    worked: Worked,
    rows: Option<Vec<Value>>,
) -> Result<(Followed, Vec<RemotePath>), SpillLost> {
    for note in worked.notes {
        out.say(News::Note(Severity::Warning, note)).await?;
    }
    if !worked.would.is_empty() {
        let text = worked.would.join("\n");
        out.say(News::Print(job.task.clone(), text)).await?;
    }
    let outcome = match worked.trouble {
        None => Outcome::Ok { status: None },
        Some((cause, reason)) => Outcome::Failed(Failure::Files { cause, reason }),
    };
    let followed = Followed {
        tally: Some(worked.tally),
        rows,
        ..Followed::of(outcome)
    };
    Ok((followed, worked.left))
}

/// Why a task on files could not begin.
pub(super) fn not_begun(refused: &Refused) -> Outcome {
    let (cause, reason) = match refused {
        Refused::Spawn(
            SpawnError::NotStarted { reason }
            | SpawnError::Disconnected { reason }
            | SpawnError::ChannelRefused { reason },
        ) => (FilesCause::NoSftp, reason.clone()),
        // Whatever it was, there is no server to work with; only a violation is worse.
        Refused::Sftp(error) => match error.cause() {
            FilesCause::Protocol => (FilesCause::Protocol, error.to_string()),
            _ => (FilesCause::NoSftp, error.to_string()),
        },
    };
    Outcome::Failed(Failure::Files { cause, reason })
}
