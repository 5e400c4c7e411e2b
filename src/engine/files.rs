//! Tasks on files: the work goes on in the future that [`perform`] gives, says what it finds on a
//! channel, and is stopped by a token, so that it can take back what is half done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::follow::Followed;
use super::outbox::{Outbox, SpillLost};
use super::sftp::Refused;
use super::state::{Level, News};
use crate::job::{Action, Job, ROWS_LIMIT};
use crate::listing::Entry;
use crate::outcome::{Failure, FilesCause, Outcome, Remains};
use crate::session::SpawnError;
use crate::sftp::Client;
use crate::transfer::Tally;

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
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Does what the job says; gives what it came to. Never drops what it says: it waits for room.
async fn perform(
    client: Client,
    action: &Action,
    say: mpsc::Sender<Said>,
    stop: CancellationToken,
) -> Worked {
    match action {
        Action::List(listing) => super::list::list(client, listing, say, stop).await,
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

/// Follows the work of a job to its end, its limit, or the end of the run.
pub(super) async fn follow(
    client: Client,
    job: &Job,
    clock: &Clock,
    out: &mut Outbox,
    cancel: &mut watch::Receiver<Level>,
) -> Result<Followed, SpillLost> {
    let (say, mut said) = mpsc::channel(SAID);
    let stop = CancellationToken::new();
    let mut work = std::pin::pin!(perform(client, &job.action, say, stop.clone()));
    let mut limit = std::pin::pin!(clock.limit(job.timeout));
    let mut rows = job.keep.then(Vec::new);
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
                return Ok(ended(worked, rows));
            }
        }
    };
    stop.cancel();
    // What it says now is of no use, but it must not wait for room to say it.
    said.close();
    let worked = tokio::time::timeout(CLEAN_UP, work).await;
    let remote = match worked {
        Ok(_) => Remains::Ended,
        Err(_) => Remains::MaybeRunning,
    };
    let outcome = match stopped {
        Stopped::Cancelled => Outcome::Cancelled { remote },
        Stopped::TimedOut(after) => Outcome::TimedOut { after, remote },
    };
    let tally = worked.map(|worked| worked.tally).ok();
    Ok(Followed {
        tally,
        ..Followed::of(outcome)
    })
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

fn ended(worked: Worked, rows: Option<Vec<Value>>) -> Followed {
    let outcome = match worked.trouble {
        None => Outcome::Ok { status: None },
        Some((cause, reason)) => Outcome::Failed(Failure::Files { cause, reason }),
    };
    Followed {
        tally: Some(worked.tally),
        rows,
        ..Followed::of(outcome)
    }
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
