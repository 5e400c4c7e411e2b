//! The work of an upload or a download, and what such tasks share over all hosts of a run: the
//! files that are read once, and the bounds on bytes a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::files::Worked;
use crate::job::Action;
use crate::outcome::FilesCause;
use crate::plan::Plan;
use crate::sftp::{Client, Copying, Meter, SecondAsk, Sources, SumAsk, Throttle, download, upload};

/// What copies share.
pub(super) struct Shared {
    sources: Arc<Sources>,
    /// One for each bound that some task names: tasks that name the same share it.
    throttles: BTreeMap<u64, Throttle>,
}

impl Shared {
    pub(super) fn of(plan: &Plan) -> Self {
        let rates = plan.bandwidths();
        Self {
            sources: Arc::default(),
            throttles: rates.map(|rate| (rate, Throttle::new(rate))).collect(),
        }
    }

    /// Copies what the action says until it is done or told to stop.
    pub(super) async fn copy(
        &self,
        client: &Client,
        action: &Action,
        (meter, stop): (&Meter, &CancellationToken),
        (sums, seconds): (mpsc::Sender<SumAsk>, mpsc::Sender<SecondAsk>),
    ) -> Worked {
        let how = match action {
            Action::Upload(what) => &what.how,
            Action::Download(what) => &what.how,
            Action::Run(_)
            | Action::Script { .. }
            | Action::Local(_)
            | Action::List(_)
            | Action::WaitFor(_)
            | Action::Ask(_)
            | Action::Assert(_)
            | Action::Set(_)
            | Action::Print(_)
            | Action::Pause(_) => return Worked::default(),
        };
        let throttle = how.bandwidth.and_then(|rate| self.throttles.get(&rate));
        let copying = match Copying::new(client, how, meter, throttle, stop) {
            Ok(copying) => copying.with_sums(sums).with_seconds(seconds),
            Err(bad) => return Worked::failed(FilesCause::Local, bad.to_string()),
        };
        let moved = match action {
            Action::Upload(what) => upload(copying, &self.sources, what).await,
            Action::Download(what) => download(copying, what).await,
            _ => return Worked::default(),
        };
        Worked {
            tally: moved.tally,
            trouble: moved.trouble,
            notes: moved.notes,
            would: moved.would,
            left: moved.left,
        }
    }
}
