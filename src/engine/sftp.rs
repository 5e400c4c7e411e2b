//! Joins a session and an SFTP client: the session's subsystem is a process whose output is the
//! server's bytes and whose input is ours.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::event::Stream;
use crate::session::{Ending, Process, ProcessEvent, Session, SpawnError, Stdin};
use crate::sftp::{Client, Error, Incoming, Link, Settings};

/// Packets that wait on either way; the client's window bounds what is behind them.
const QUEUE: usize = 64;

/// Why there is no client.
#[derive(Debug)]
pub(super) enum Refused {
    /// No channel, or no process: as for a command.
    Spawn(SpawnError),
    /// The server did not start, or did not speak SFTP.
    Sftp(Error),
}

/// Starts the host's SFTP server and greets it.
pub(super) async fn open(session: &mut Session, settings: Settings) -> Result<Client, Refused> {
    let (outgoing, stdin) = mpsc::channel(QUEUE);
    let process = session
        .subsystem("sftp", Stdin::Stream(stdin))
        .await
        .map_err(Refused::Spawn)?;
    let link = join(process, outgoing);
    Client::start(link, settings).await.map_err(Refused::Sftp)
}

/// A further client of the host, over a second connection; `None` where that is not to be had.
pub(super) async fn open_beside(session: &mut Session, settings: Settings) -> Option<Client> {
    let (outgoing, stdin) = mpsc::channel(QUEUE);
    let process = session
        .subsystem_beside("sftp", Stdin::Stream(stdin))
        .await?;
    let link = join(process, outgoing);
    Client::start(link, settings).await.ok()
}

fn join(process: Process, outgoing: mpsc::Sender<Bytes>) -> Link {
    let (to_client, incoming) = mpsc::channel(QUEUE);
    tokio::spawn(pump(process, to_client));
    Link { incoming, outgoing }
}

/// Carries what the server says to the client, until either is gone.
async fn pump(mut process: Process, client: mpsc::Sender<Incoming>) {
    loop {
        let event = tokio::select! {
            event = process.next() => event,
            () = client.closed() => return process.close().await,
        };
        let (message, last) = match event {
            ProcessEvent::Output {
                stream: Stream::Stdout,
                bytes,
            } => (Incoming::Bytes(bytes), false),
            ProcessEvent::Output {
                stream: Stream::Stderr,
                bytes,
            } => (Incoming::Said(bytes), false),
            ProcessEvent::Ended(ending) => (Incoming::Ended(why(ending)), true),
        };
        // Nobody listens any more: the next turn sees it.
        let _ = client.send(message).await;
        if last {
            return;
        }
    }
}

fn why(ending: Ending) -> String {
    match ending {
        Ending::Exited { status, .. } => status.to_string(),
        Ending::NotStarted { reason } | Ending::Denied { reason } | Ending::Lost { reason } => {
            reason
        }
    }
}
