//! `wait_for`: looking again and again for something that must come to be, until the task's limit.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::lane::{Halt, Lane};
use super::state::Level;
use crate::job::{Job, WaitFor};
use crate::outcome::{Failure, Outcome, Remains};
use crate::target::Way;

/// How long is waited where the task has no `timeout`.
const LIMIT: Duration = Duration::from_secs(300);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one attempt at a port may take: a firewall that drops packets answers never.
const LOOK: Duration = Duration::from_secs(5);

impl Lane {
    /// Waits until it is there, the limit passes, or the run is stopped.
    pub(super) async fn wait_for(
        &mut self,
        way: &Arc<Way>,
        what: &WaitFor,
        job: &Job,
    ) -> Result<Outcome, Halt> {
        let limit = job.timeout.unwrap_or(LIMIT);
        let mut cancel = self.cancel.clone();
        let looking = async {
            match what {
                WaitFor::Port { port, address } => {
                    port_opens(address.as_deref().unwrap_or_else(|| address_of(way)), *port).await;
                    Ok(Outcome::Ok { status: None })
                }
                WaitFor::Path(path) => self.path_appears(way, path, job).await,
                WaitFor::Connection => self.connection_opens(way).await,
            }
        };
        tokio::select! {
            biased;
            _ = cancel.wait_for(|level| *level != Level::Run) => Ok(Outcome::Cancelled {
                remote: Remains::Ended,
            }),
            looked = timeout(limit, looking) => looked.unwrap_or_else(|_| {
                let reason = format!("{} in {}", missing(what), crate::text::duration(limit));
                Ok(Outcome::Failed(Failure::Unmet { reason }))
            }),
        }
    }

    /// Asks whoever runs us; only a yes goes on.
    pub(super) async fn ask(&mut self, question: &str) -> Outcome {
        let question = crate::text::printable(question.trim().as_bytes()).into_owned();
        let mut cancel = self.cancel.clone();
        let unmet = |reason: String| Outcome::Failed(Failure::Unmet { reason });
        tokio::select! {
            biased;
            _ = cancel.wait_for(|level| *level != Level::Run) => Outcome::Cancelled {
                remote: Remains::Ended,
            },
            answer = self.desk.asker.confirm(format!("{question} [yes/no] ")) => match answer {
                Some(true) => Outcome::Ok { status: None },
                Some(false) => unmet(format!("the answer to `{question}` was no")),
                None => unmet(format!("nobody is there to answer `{question}`")),
            },
        }
    }

    async fn path_appears(
        &mut self,
        way: &Arc<Way>,
        path: &str,
        job: &Job,
    ) -> Result<Outcome, Halt> {
        loop {
            match self.exists_there(way, job, path).await? {
                Ok(true) => return Ok(Outcome::Ok { status: None }),
                Ok(false) => sleep(PAUSE).await,
                Err(reason) => return Ok(Outcome::Failed(Failure::NotStarted { reason })),
            }
        }
    }

    /// A new connection: the one that is open may belong to a system that is going down. A refusal
    /// is final; asking again and again could lock the account.
    async fn connection_opens(&mut self, way: &Arc<Way>) -> Result<Outcome, Halt> {
        self.rest().await?;
        loop {
            match self.connect(way).await {
                Ok(_) => return Ok(Outcome::Ok { status: None }),
                Err(Halt::Problem(problem)) if !problem.cause.is_refused() => sleep(PAUSE).await,
                Err(halt) => return Err(halt),
            }
        }
    }
}

fn address_of(way: &Way) -> &str {
    match way {
        Way::Ssh(dial) => &dial.address,
        Way::Local => "localhost",
    }
}

async fn port_opens(address: &str, port: u16) {
    let local = Ipv4Addr::LOCALHOST.to_string();
    let address = if address == "localhost" {
        &local
    } else {
        address
    };
    while !matches!(
        timeout(LOOK, TcpStream::connect((address, port))).await,
        Ok(Ok(_))
    ) {
        sleep(PAUSE).await;
    }
}

fn missing(what: &WaitFor) -> String {
    match what {
        WaitFor::Port { port, .. } => format!("port {port} accepted no connection"),
        WaitFor::Path(path) => {
            format!("{} did not appear", crate::text::printable(path.as_bytes()))
        }
        WaitFor::Connection => "no connection could be opened".to_owned(),
    }
}
