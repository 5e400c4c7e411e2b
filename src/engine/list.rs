//! The work of a listing task.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::files::{Said, Worked, trouble};
use crate::listing::{Entry, Kind, Listing};
use crate::sftp::{Client, Error, Named, RemotePath};
use crate::transfer::Tally;

/// Lists the paths; stops between two pages when it is told to.
pub(super) async fn list(
    client: Client,
    listing: &Listing,
    say: mpsc::Sender<Said>,
    stop: CancellationToken,
) -> Worked {
    let mut worked = Worked::default();
    for path in &listing.paths {
        let path = RemotePath::new(path.clone());
        let listed = tokio::select! {
            listed = list_one(&client, &path, &say, &mut worked.tally) => listed,
            () = stop.cancelled() => return worked,
        };
        if let Err(error) = listed {
            worked.tally.errors += 1;
            worked.trouble = Some(trouble(&path.to_string(), &error));
        }
    }
    worked
}

async fn list_one(
    client: &Client,
    path: &RemotePath,
    say: &mpsc::Sender<Said>,
    tally: &mut Tally,
) -> Result<(), Error> {
    let root = client.expand(path).await?;
    let handle = client.open_dir(&root).await?;
    while let Some(page) = client.read_dir(&handle).await?.names().await? {
        let entries: Vec<Entry> = page
            .iter()
            .filter(|named| crate::sftp::check_name(&named.name).is_ok())
            .map(|named| entry(&root, named))
            .collect();
        tally.files += entries.len() as u64;
        if !entries.is_empty() {
            let _ = say.send(Said::Entries(entries.into())).await;
        }
    }
    client.close(handle).await
}

fn entry(root: &RemotePath, named: &Named) -> Entry {
    let attrs = named.attrs;
    Entry {
        path: root.join(&named.name).bytes(),
        depth: 1,
        kind: attrs.mode.map_or(Kind::Unknown, Kind::of_mode),
        size: attrs.size,
        mode: attrs.mode.map(|mode| mode & 0o7777),
        accessed: attrs.times.map(|times| times.0),
        modified: attrs.times.map(|times| times.1),
        uid: attrs.owner.map(|owner| owner.0),
        gid: attrs.owner.map(|owner| owner.1),
        owner: None,
        group: None,
        target: None,
        error: None,
    }
}
