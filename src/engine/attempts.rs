//! Getting to an open session: few unauthenticated connections at a time per endpoint, and another
//! attempt where the server dropped one before it knew us.
//!
//! sshd's `MaxStartups` drops unauthenticated connections at random. So at most
//! [`HANDSHAKES`] are under way at once towards one address and port, a drop makes that fewer, and
//! a dropped attempt is made again after a wait that differs from host to host. Nothing is ever
//! repeated that the server may have understood: no authentication, no command.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::outcome::{Cause, HostProblem, Phase};
use crate::session::{Connector, Session};
use crate::target::Dial;

/// Unauthenticated connections at once towards one endpoint.
pub const HANDSHAKES: usize = 8;
/// Drops of one host that are borne when the server says that it has too many connections.
const BUSY_DROPS: u32 = 40;
/// And when it says nothing: old servers under `MaxStartups` do that, but so does a dead service
/// behind a load balancer.
const SILENT_DROPS: u32 = 3;
/// And not for longer than this.
const PATIENCE: Duration = Duration::from_secs(90);

/// The handshakes under way, by endpoint.
#[derive(Debug, Default)]
pub struct Gates {
    endpoints: Mutex<HashMap<(String, u16), Arc<Gate>>>,
}

#[derive(Debug)]
struct Gate {
    places: Arc<Semaphore>,
}

impl Gates {
    fn of(&self, dial: &Dial) -> Arc<Gate> {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let gate = endpoints.entry((dial.address.clone(), dial.port));
        Arc::clone(gate.or_insert_with(|| {
            Arc::new(Gate {
                places: Arc::new(Semaphore::new(HANDSHAKES)),
            })
        }))
    }
}

impl Gate {
    /// The server drops connections: keep fewer under way from now on, but never none.
    fn narrow(&self) {
        if self.places.available_permits() > 1 {
            self.places.forget_permits(1);
        }
    }
}

/// The attempts on one host.
pub struct Attempts<'a> {
    dial: &'a Dial,
    gate: Arc<Gate>,
    began: Instant,
    dropped: u32,
}

/// What an attempt came to.
pub enum Attempted {
    /// The connection is open and authenticated.
    Open(Box<Session>),
    /// The server dropped it; another may be made after a wait.
    Dropped {
        /// The wait.
        delay: Duration,
        /// What happened, one line.
        reason: String,
    },
    /// The host cannot be worked on.
    Failed(HostProblem),
}

impl<'a> Attempts<'a> {
    /// No attempt has been made yet.
    #[must_use]
    pub fn new(gates: &Gates, dial: &'a Dial) -> Self {
        Self {
            dial,
            gate: gates.of(dial),
            began: Instant::now(),
            dropped: 0,
        }
    }

    /// How many attempts failed so far.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Since the first attempt began.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Makes attempts until there is a session or a reason why there will be none.
    ///
    /// # Errors
    /// Why the host cannot be worked on.
    pub async fn until_open(&mut self, connector: &Connector) -> Result<Session, HostProblem> {
        loop {
            match self.make(connector).await {
                Attempted::Open(session) => return Ok(*session),
                Attempted::Dropped { delay, .. } => tokio::time::sleep(delay).await,
                Attempted::Failed(problem) => return Err(problem),
            }
        }
    }

    /// Makes one attempt, when there is a place for it. Its deadline begins only then.
    pub async fn make(&mut self, connector: &Connector) -> Attempted {
        let result = {
            // The gate is never closed; without a permit the attempt would only be less polite.
            let _place = self.gate.places.acquire().await.ok();
            // Boxed: connecting takes room that a lane does not need once it is connected.
            Box::pin(connector.connect(self.dial)).await
        };
        let problem = match result {
            Ok(mut session) => {
                session.share_places(&self.gate.places);
                return Attempted::Open(Box::new(session));
            }
            Err(problem) => problem,
        };
        self.dropped += 1;
        if self.dropped >= drops_borne(&problem) || self.began.elapsed() >= PATIENCE {
            return Attempted::Failed(problem);
        }
        self.gate.narrow();
        Attempted::Dropped {
            delay: wait(self.dropped),
            reason: problem.message,
        }
    }
}

/// How often a host may be dropped like this before it counts as unreachable.
///
/// A drop by `MaxStartups` is an end of the connection before or right after the banner, at the
/// most with the words "Exceeded MaxStartups" (sshd.c). A server that says "Not allowed at this
/// time" (`PerSourcePenalties`) means it, and coming back would make it worse.
fn drops_borne(problem: &HostProblem) -> u32 {
    let said = |words: &str| {
        problem.message.contains(words)
            || problem.details.iter().any(|(_, text)| text.contains(words))
    };
    match problem.cause {
        Cause::Closed(Phase::Banner | Phase::Kex) if said("Not allowed") => 1,
        Cause::Closed(Phase::Banner | Phase::Kex) if said("MaxStartups") => BUSY_DROPS,
        Cause::Closed(Phase::Banner | Phase::Kex) => SILENT_DROPS,
        _ => 1,
    }
}

/// 100 ms, doubling to 3 s, times a random factor from 0.5 to 1.5.
fn wait(attempt: u32) -> Duration {
    let full = Duration::from_millis(100 << attempt.min(5)).min(Duration::from_secs(3));
    let random = RandomState::new().hash_one(attempt) % 1000;
    full.mul_f64(0.5 + random as f64 / 1000.0)
}
