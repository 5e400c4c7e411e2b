//! A child that is kept running (`restart`): when it is started again, and when it has died too
//! often for that to be of use.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::outcome::{Failure, Outcome};
use crate::playbook::Restart;
use crate::text;

/// The wait after a first death; it doubles with each further one.
const SHORTEST: Duration = Duration::from_millis(100);

/// The deaths of one child.
pub(super) struct Restarts<'a> {
    spec: &'a Restart,
    /// Those that still count, oldest first.
    deaths: VecDeque<Instant>,
}

/// What follows an ending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The task is over.
    Over(Outcome),
    /// It is started again after this time.
    Again(Duration),
}

impl<'a> Restarts<'a> {
    pub(super) fn new(spec: &'a Restart) -> Self {
        let deaths = VecDeque::new();
        Self { spec, deaths }
    }

    /// Only a child that ran and failed is started again: a success is an end that it chose itself,
    /// and what could not be started once cannot be started twice.
    pub(super) fn after(&mut self, outcome: Outcome, now: Instant) -> Next {
        let Outcome::Failed(Failure::Exit(status)) = &outcome else {
            return Next::Over(outcome);
        };
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|death| now.duration_since(*death) > self.spec.within)
        {
            self.deaths.pop_front();
        }
        let deaths = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX);
        if deaths > self.spec.times {
            let within = text::duration(self.spec.within);
            let times = text::count(self.deaths.len(), "time");
            let reason = format!("it died {times} within {within}, the last time with {status}");
            return Next::Over(Outcome::Failed(Failure::Unmet { reason }));
        }
        // A child that dies at once must come to its limit, so the waits leave half of the time.
        let most = self.spec.within / (2 * (self.spec.times + 1));
        let grown = SHORTEST.saturating_mul(1 << (deaths - 1).min(16));
        Next::Again(grown.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{ExitStatus, Remains};

    const SPEC: Restart = Restart {
        times: 3,
        within: Duration::from_secs(10),
    };

    fn died() -> Outcome {
        Outcome::Failed(Failure::Exit(ExitStatus::Exited(1)))
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_dies_at_once_is_given_up() {
        let mut restarts = Restarts::new(&SPEC);
        let began = Instant::now();
        let mut waits = Vec::new();
        let over = loop {
            match restarts.after(died(), Instant::now()) {
                Next::Again(wait) => {
                    waits.push(wait.as_millis());
                    tokio::time::advance(wait).await;
                }
                Next::Over(outcome) => break outcome,
            }
        };
        assert_eq!(waits, [100, 200, 400]);
        assert!(began.elapsed() < SPEC.within);
        let said = "it died 4 times within 10s, the last time with exit 1";
        assert_eq!(over.to_string(), said);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_dies_now_and_then_is_kept_running() {
        let mut restarts = Restarts::new(&SPEC);
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(5)).await;
            assert!(matches!(
                restarts.after(died(), Instant::now()),
                Next::Again(_)
            ));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_deaths_that_are_allowed_still_come_to_an_end() {
        let spec = Restart {
            times: 500,
            within: Duration::from_secs(1),
        };
        let mut restarts = Restarts::new(&spec);
        let mut deaths = 0;
        while let Next::Again(wait) = restarts.after(died(), Instant::now()) {
            tokio::time::advance(wait).await;
            deaths += 1;
        }
        assert_eq!(deaths, 500);
    }

    #[tokio::test(start_paused = true)]
    async fn other_endings_are_endings() {
        for outcome in [
            Outcome::Ok { status: None },
            Outcome::Failed(Failure::NotStarted {
                reason: "missing".into(),
            }),
            Outcome::TimedOut {
                after: Duration::from_secs(1),
                remote: Remains::Ended,
            },
            Outcome::Cancelled {
                remote: Remains::Ended,
            },
        ] {
            let mut restarts = Restarts::new(&SPEC);
            let next = restarts.after(outcome.clone(), Instant::now());
            assert_eq!(next, Next::Over(outcome));
        }
    }
}
