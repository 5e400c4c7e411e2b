//! The work of a listing task: what the walk finds becomes news.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::files::{Said, Worked};
use crate::listing::{Entry, Listing};
use crate::outcome::FilesCause;
use crate::sftp::{Client, Filter, walk};

/// Blocks that wait to be told.
const BLOCKS: usize = 4;

/// Lists the paths until they are done or it is told to stop.
pub(super) async fn list(
    client: Client,
    listing: &Listing,
    say: mpsc::Sender<Said>,
    stop: CancellationToken,
) -> Worked {
    let filter = match Filter::new(&listing.wanted) {
        Ok(filter) => filter,
        Err(bad) => return Worked::failed(FilesCause::Local, bad.to_string()),
    };
    let (found, mut blocks) = mpsc::channel::<Vec<Entry>>(BLOCKS);
    let telling = async {
        while let Some(entries) = blocks.recv().await {
            if say.send(Said::Entries(entries.into())).await.is_err() {
                return;
            }
        }
    };
    let walking = async {
        let walked = walk(&client, listing, &filter, &found).await;
        drop(found);
        walked
    };
    let (walked, ()) = tokio::select! {
        done = async { tokio::join!(walking, telling) } => done,
        () = stop.cancelled() => return Worked::default(),
    };
    match walked {
        Ok(walked) => Worked {
            tally: walked.tally,
            trouble: walked
                .trouble
                .filter(|(cause, _)| !listing.ignore_errors || *cause == FilesCause::Protocol),
            ..Worked::default()
        },
        Err(error) => Worked::failed(error.cause(), error.to_string()),
    }
}
