//! What a copy asks of its session while it works: checksums that a tool of the host makes, and a
//! second client to share the load of a large file.

use tokio::sync::mpsc;

use crate::session::Session;
use crate::sftp::{SecondAsk, Settings, SumAsk};

/// Answers until nobody can ask any more.
pub(super) async fn serve(
    session: &mut Session,
    mut sums: mpsc::Receiver<SumAsk>,
    mut seconds: mpsc::Receiver<SecondAsk>,
) {
    loop {
        tokio::select! {
            Some(ask) = sums.recv() => super::sums::answer(session, ask, &mut sums).await,
            Some(ask) = seconds.recv() => {
                let client = super::sftp::open_beside(session, Settings::default()).await;
                // Whoever stopped waiting needs no answer.
                let _ = ask.0.send(client);
            }
            else => return,
        }
    }
}
