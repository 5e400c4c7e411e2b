//! One task on one host: whether it is due, for which values, how often it is tried, and what is
//! left behind for later tasks. How a single attempt is made is the lane's.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::follow::Followed;
use super::lane::{Halt, Lane};
use super::restarts::{Next, Restarts};
use super::state::News;
use super::step::Step;
use crate::job::{Action, Command, Item, Job, OnFailure, ROWS_LIMIT, Registered, TaskId};
use crate::outcome::{Effort, Failure, Items, Outcome, Remains};
use crate::plan::{Moment, Plan, Task};
use crate::playbook::Retry;
use crate::target::Vars;
use crate::transfer::Tally;

/// What a task has come to so far.
#[derive(Default)]
pub(super) struct Turn {
    /// Since it was said that the task begins; nothing was said where it is `None`.
    pub(super) began: Option<Instant>,
    attempts: u32,
    /// One result for each value that had a turn; one where there is no `loop`.
    results: Vec<Registered>,
    tally: Option<Tally>,
    /// How many values there are, where there is a `loop`.
    items: Option<usize>,
}

/// What tasks left behind that one host did for all.
#[derive(Debug, Clone)]
pub(super) enum Shared {
    Result(String, Registered),
    Values(Vars),
    /// In a check: names whose values are not known.
    Unknown(BTreeSet<String>),
}

impl Lane {
    /// Does a task, or says why not.
    pub(super) async fn perform(&mut self, id: TaskId) -> Result<(), Halt> {
        let desk = Arc::clone(&self.desk);
        let task = desk.plan.task(id);
        self.learn();
        if task.handler && !self.notified.remove(&id) {
            return Ok(self.out.say(News::Passed(id)).await?);
        }
        let mut turn = Turn::default();
        match self.step(task).await? {
            Step::Do => {}
            Step::Leave => {
                let reason = "the answer before it was no".to_owned();
                turn.results.push(without(Outcome::Skipped { reason }));
                return self.end_turn(task, turn).await;
            }
            Step::Quit => return Ok(self.out.say(News::Quit).await?),
        }
        match desk.plan.uses(id, &self.memory.unknown) {
            Some(name) => {
                let reason = format!("`{name}` is not known in a check");
                turn.results.push(without(Outcome::Skipped { reason }));
                self.forget(task);
            }
            None => self.take_turn(&desk.plan, task, &mut turn).await?,
        }
        self.end_turn(task, turn).await
    }

    /// In a check: what the task would give to later ones is not known.
    fn forget(&mut self, task: &Task) {
        let names = task.defines().into_iter().map(|(name, _)| name.to_owned());
        let names: BTreeSet<String> = names.collect();
        if task.control.once {
            self.share(Shared::Unknown(names.clone()));
        }
        self.memory.unknown.extend(names);
    }

    /// A check goes as far as it can without changing anything: it connects, and says what would
    /// be done. `None` where the task is harmless and is done.
    async fn check(
        &mut self,
        task: &Task,
        job: &Job,
        turn: &mut Turn,
    ) -> Result<Option<Registered>, Halt> {
        let Some(intent) = intent(&job.action).filter(|_| self.desk.check) else {
            return Ok(None);
        };
        if !matches!(job.action, Action::Local(_)) {
            let way = self.desk.plan.way_of(self.id, task.reference.id);
            self.connect(&way).await?;
        }
        self.begin_turn(job, turn).await;
        let said = crate::text::printable(intent.as_bytes()).into_owned();
        self.out
            .say(News::Print(task.reference.clone(), said))
            .await?;
        self.forget(task);
        let reason = "only checked".to_owned();
        Ok(Some(without(Outcome::Skipped { reason })))
    }

    /// Takes over what other hosts did for all.
    fn learn(&mut self) {
        let shared = self.shared.borrow();
        for known in &shared[self.learned..] {
            match known {
                Shared::Result(name, result) => self.memory.register(name, result.clone()),
                Shared::Values(values) => self.memory.set(values.clone()),
                Shared::Unknown(names) => self.memory.unknown.extend(names.iter().cloned()),
            }
        }
        self.learned = shared.len();
    }

    async fn take_turn(&mut self, plan: &Plan, task: &Task, turn: &mut Turn) -> Result<(), Halt> {
        let id = task.reference.id;
        if let Err(reason) = self.facts_for(plan, task).await? {
            turn.results.push(without(not_started(reason)));
            return Ok(());
        }
        let items = match plan.unmet(self.id, id, Moment::before(&self.memory)) {
            Ok(None) => plan.items(self.id, id, &self.memory),
            Ok(Some(condition)) => {
                turn.results.push(without(skipped(condition)));
                return Ok(());
            }
            Err(reason) => Err(reason),
        };
        match items {
            Err(reason) => turn.results.push(without(not_started(reason))),
            Ok(None) => {
                let result = self.do_item(plan, task, None, turn).await?;
                turn.results.push(result);
            }
            Ok(Some(items)) => {
                turn.items = Some(items.len());
                for item in items {
                    let result = self.do_item(plan, task, Some(&item), turn).await?;
                    let ends = ends_loop(&result.outcome, task.on_failure);
                    turn.results.push(result);
                    if ends {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks the host what it is, where the task uses that and is going to be done.
    async fn facts_for(&mut self, plan: &Plan, task: &Task) -> Result<Result<(), String>, Halt> {
        let id = task.reference.id;
        let (asks, in_conditions) = task.asks_host();
        let skipped = || {
            let unmet = plan.unmet(self.id, id, Moment::before(&self.memory));
            !in_conditions && matches!(unmet, Ok(Some(_)))
        };
        if !asks || self.memory.facts.is_some() || skipped() {
            return Ok(Ok(()));
        }
        self.learn_facts(id).await
    }

    /// One value of a loop, or all there is where there is none.
    async fn do_item(
        &mut self,
        plan: &Plan,
        task: &Task,
        item: Option<&Item>,
        turn: &mut Turn,
    ) -> Result<Registered, Halt> {
        let id = task.reference.id;
        let moment = Moment {
            memory: &self.memory,
            item,
            result: None,
        };
        let unmet = match item {
            Some(_) => plan.unmet(self.id, id, moment),
            None => Ok(None),
        };
        let job = match unmet {
            Ok(None) => plan.job(self.id, id, moment),
            Ok(Some(condition)) => return Ok(without(skipped(condition))),
            Err(reason) => Err(reason),
        };
        let mut job = match job {
            Ok(job) => job,
            Err(reason) => return Ok(without(not_started(reason))),
        };
        if self.desk.check {
            job.action.only_look();
        }
        if let Some(path) = &job.creates {
            match self.exists(&job, path).await? {
                Ok(false) => {}
                Ok(true) => {
                    let reason = format!("{} exists", crate::text::printable(path.as_bytes()));
                    return Ok(without(Outcome::Skipped { reason }));
                }
                Err(reason) => return Ok(without(not_started(reason))),
            }
        }
        match self.check(task, &job, turn).await? {
            Some(checked) => Ok(checked),
            None => self.try_often(plan, task, (&job, item), turn).await,
        }
    }

    /// Attempts until one is good enough or there are no more.
    async fn try_often(
        &mut self,
        plan: &Plan,
        task: &Task,
        (job, item): (&Job, Option<&Item>),
        turn: &mut Turn,
    ) -> Result<Registered, Halt> {
        let retry = task.control.retry.as_ref();
        let mut restarts = task.control.restart.as_ref().map(Restarts::new);
        let (mut job, limit) = (job.clone(), job.timeout);
        let (began, mut tries) = (Instant::now(), 0);
        loop {
            tries += 1;
            let since = Instant::now();
            if restarts.is_some() {
                // The limit is that of the task, not of each child.
                job.timeout = limit.map(|limit| limit.saturating_sub(began.elapsed()));
            }
            let followed = self.attempt_safely(&job, turn).await?;
            turn.attempts += 1;
            turn.tally = match (turn.tally, followed.tally) {
                (Some(before), Some(more)) => Some(before.plus(more)),
                (before, more) => more.or(before),
            };
            self.say_warnings(followed.warnings.clone()).await?;
            let result = self.judged(plan, task, item, registered(followed, since, tries));
            let result = with_values(result, &job.action, &mut self.memory);
            let delay = match &mut restarts {
                Some(restarts) => {
                    let outcome = of_whole(result.outcome.clone(), limit);
                    match restarts.after(outcome, tokio::time::Instant::now()) {
                        Next::Over(outcome) => return Ok(Registered { outcome, ..result }),
                        Next::Again(delay) => delay,
                    }
                }
                None => match retry.filter(|retry| tries <= retry.times) {
                    Some(retry) if may_try_again(&result.outcome) => wait(retry, tries),
                    Some(_) | None => return Ok(result),
                },
            };
            let again = News::Retry {
                task: Some(task.reference.clone()),
                attempt: tries + 1,
                delay,
                reason: result.outcome.to_string(),
            };
            self.out.say(again).await?;
            if let stopped @ Outcome::Cancelled { .. } = self.pause(delay).await {
                return Ok(Registered {
                    outcome: stopped,
                    ..result
                });
            }
        }
    }

    /// An attempt whose task has begun ends it, whatever becomes of the connection.
    async fn attempt_safely(&mut self, job: &Job, turn: &mut Turn) -> Result<Followed, Halt> {
        self.out.next_process();
        match self.attempt(job, turn).await {
            Err(Halt::Problem(problem)) if turn.began.is_some() => {
                Ok(Followed::of(not_started(problem.message)))
            }
            Err(Halt::Stopped) if turn.began.is_some() => Ok(Followed::of(Outcome::Cancelled {
                remote: Remains::NotStarted,
            })),
            attempted => attempted,
        }
    }

    /// What the playbook says of a result: whether it is what was wanted, and whether it changed
    /// something.
    fn judged(
        &self,
        plan: &Plan,
        task: &Task,
        item: Option<&Item>,
        mut result: Registered,
    ) -> Registered {
        let good = matches!(result.outcome, Outcome::Ok { .. });
        let moved = result.tally.as_ref().map(Tally::changed);
        result.changed = good && moved.unwrap_or_else(|| task.may_change());
        let until = task
            .control
            .retry
            .as_ref()
            .and_then(|retry| retry.until.as_ref());
        let conditions = [until, task.control.changed_when.as_ref()];
        let mut held = [None, None];
        for (condition, held) in conditions.into_iter().zip(&mut held) {
            let Some(condition) = condition.filter(|_| good) else {
                continue;
            };
            let moment = Moment {
                memory: &self.memory,
                item,
                result: Some(&result),
            };
            match plan.holds(condition, self.id, task.reference.id, moment) {
                Ok(holds) => *held = Some(holds),
                Err(reason) => {
                    result.outcome = Outcome::Failed(Failure::Unmet { reason });
                    return result;
                }
            }
        }
        if let (Some(false), Some(until)) = (held[0], until) {
            let reason = format!("`{}` is still false", until.text().trim());
            result.outcome = Outcome::Failed(Failure::Unmet { reason });
            result.changed = false;
        } else if let Some(changed) = held[1] {
            result.changed = changed;
        }
        result
    }

    /// Says how the task ended, after what it leaves behind is known.
    async fn end_turn(&mut self, task: &Task, turn: Turn) -> Result<(), Halt> {
        let began = match turn.began {
            Some(began) => began,
            None => self.say_start(&task.reference).await,
        };
        let (took, tally) = (began.elapsed(), turn.tally);
        let effort = turn.effort();
        let result = turn.into_result(took);
        let outcome = result.outcome.clone();
        if effort.changed {
            let play = task.reference.id.play;
            let handler = |index: &u16| TaskId {
                play,
                index: *index,
            };
            self.notified.extend(task.notify.iter().map(handler));
        }
        if task.control.once {
            let set = &self.memory.set;
            let value = |name: &str| Some((name.to_owned(), set.get(name)?.clone()));
            let values: Vars = task.sets().filter_map(value).collect();
            if !values.is_empty() {
                self.share(Shared::Values(values));
            }
        }
        let known = |name: &&str| !self.memory.unknown.contains(*name) || effort.attempts > 0;
        if let Some(name) = task.register().filter(known) {
            if task.control.once {
                self.share(Shared::Result(name.to_owned(), result.clone()));
            }
            self.memory.register(name, result);
        }
        let ended = News::TaskEnd {
            task: task.reference.clone(),
            outcome,
            took,
            tally,
            effort,
        };
        Ok(self.out.say(ended).await?)
    }

    fn share(&self, what: Shared) {
        self.desk.shared.send_modify(|known| known.push(what));
    }
}

impl Turn {
    fn effort(&self) -> Effort {
        let count = |good: fn(&Outcome) -> bool| {
            let found = self.results.iter().filter(|result| good(&result.outcome));
            u32::try_from(found.count()).unwrap_or(u32::MAX)
        };
        let ok = count(|outcome| matches!(outcome, Outcome::Ok { .. }));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped { .. }));
        let items = self.items.map(|all| Items {
            all: u32::try_from(all).unwrap_or(u32::MAX),
            ok,
            skipped,
            failed: count(|_| true) - ok - skipped,
        });
        Effort {
            attempts: self.attempts,
            items,
            changed: self.results.iter().any(|result| result.changed),
        }
    }

    fn has_rows(&self) -> bool {
        self.results.iter().any(|result| result.rows.is_some())
    }

    fn rows(&self) -> impl Iterator<Item = &serde_json::Value> {
        self.results
            .iter()
            .flat_map(|result| result.rows.iter().flatten())
    }

    /// One result for all values: the first failure is the whole's, and output is joined.
    fn into_result(self, took: Duration) -> Registered {
        let (attempts, changed) = (self.attempts, self.results.iter().any(|r| r.changed));
        let Some(_) = self.items else {
            let mut results = self.results;
            return results.pop().unwrap_or_else(|| without(empty()));
        };
        let good = |result: &&Registered| {
            !matches!(result.outcome, Outcome::Ok { .. } | Outcome::Skipped { .. })
        };
        let bad = self.results.iter().find(good);
        let done = |r: &&Registered| matches!(r.outcome, Outcome::Ok { .. });
        let shown = bad.or_else(|| self.results.iter().rev().find(done));
        let outcome = shown.or(self.results.last()).map(|r| r.outcome.clone());
        let joined = |of: fn(&Registered) -> &Vec<u8>| {
            self.results
                .iter()
                .flat_map(|r| of(r).iter().copied())
                .collect()
        };
        Registered {
            stdout: joined(|r| &r.stdout),
            stderr: joined(|r| &r.stderr),
            truncated: self.results.iter().any(|r| r.truncated),
            rows: self
                .has_rows()
                .then(|| self.rows().take(ROWS_LIMIT).cloned().collect()),
            unparsed: self
                .results
                .iter()
                .flat_map(|r| r.unparsed.iter().cloned())
                .collect(),
            tally: self.tally,
            outcome: outcome.unwrap_or_else(empty),
            duration: took,
            changed,
            attempts,
            results: self.results,
        }
    }
}

fn empty() -> Outcome {
    let reason = "the list of `loop` is empty".to_owned();
    Outcome::Skipped { reason }
}

fn skipped(condition: &str) -> Outcome {
    let reason = format!("`{condition}` is false");
    Outcome::Skipped { reason }
}

fn not_started(reason: String) -> Outcome {
    Outcome::Failed(Failure::NotStarted { reason })
}

/// What an action would do that a check does not do; `None` for what changes nothing.
fn intent(action: &Action) -> Option<String> {
    let text = |command: &Command| match command {
        Command::Shell(text) | Command::PosixShell(text) => text.trim_end().to_owned(),
        Command::Argv(words) => words.join(" "),
    };
    match action {
        Action::Run(command) => Some(format!("would run: {}", text(command))),
        Action::Local(command) => Some(format!("would run here: {}", text(command))),
        Action::Script { name, args, .. } => {
            Some(format!("would run the script {name} {}", args.join(" ")))
        }
        Action::Pause(time) => Some(format!("would pause {}", crate::text::duration(*time))),
        Action::WaitFor(_) => Some("would wait".to_owned()),
        Action::Ask(question) => Some(format!("would ask: {}", question.trim())),
        // Copies look for themselves what they would do.
        Action::Upload(_)
        | Action::Download(_)
        | Action::List(_)
        | Action::Print(_)
        | Action::Assert(_)
        | Action::Set(_) => None,
    }
}

/// A result without a process.
fn without(outcome: Outcome) -> Registered {
    Registered {
        stdout: Vec::new(),
        stderr: Vec::new(),
        truncated: false,
        rows: None,
        unparsed: Vec::new(),
        tally: None,
        outcome,
        duration: Duration::ZERO,
        changed: false,
        attempts: 0,
        results: Vec::new(),
    }
}

fn registered(followed: Followed, since: Instant, attempts: u32) -> Registered {
    let many = |rows: &Vec<serde_json::Value>| rows.len() >= ROWS_LIMIT;
    Registered {
        truncated: followed.stdout.is_truncated()
            || followed.stderr.is_truncated()
            || followed.rows.as_ref().is_some_and(many),
        stdout: followed.stdout.into_bytes(),
        stderr: followed.stderr.into_bytes(),
        rows: followed.rows,
        unparsed: followed.unparsed,
        tally: followed.tally,
        outcome: followed.outcome,
        duration: since.elapsed(),
        changed: false,
        attempts,
        results: Vec::new(),
    }
}

fn with_values(result: Registered, action: &Action, memory: &mut crate::job::Memory) -> Registered {
    if let Action::Set(values) = action {
        memory.set(values.clone());
    }
    result
}

/// A failed value ends a loop unless failures are to be borne; one that may be at work still, or
/// that was stopped, always does.
fn ends_loop(outcome: &Outcome, on_failure: OnFailure) -> bool {
    match outcome {
        Outcome::Ok { .. } | Outcome::Skipped { .. } => false,
        Outcome::Failed(_)
        | Outcome::TimedOut {
            remote: Remains::NotStarted | Remains::Ended,
            ..
        } => on_failure != OnFailure::Continue,
        Outcome::TimedOut { .. }
        | Outcome::Lost { .. }
        | Outcome::Cancelled { .. }
        | Outcome::Internal { .. } => true,
    }
}

/// Only what is known to have ended: what was lost may have done its work, or be doing it still.
/// A limit that passed is told as it was written.
fn of_whole(outcome: Outcome, limit: Option<Duration>) -> Outcome {
    match (outcome, limit) {
        (Outcome::TimedOut { remote, .. }, Some(after)) => Outcome::TimedOut { after, remote },
        (outcome, _) => outcome,
    }
}

fn may_try_again(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(Failure::NotStarted { .. } | Failure::Assert { .. }) => false,
        Outcome::Failed(_)
        | Outcome::TimedOut {
            remote: Remains::NotStarted | Remains::Ended,
            ..
        } => true,
        Outcome::TimedOut { .. }
        | Outcome::Ok { .. }
        | Outcome::Lost { .. }
        | Outcome::Skipped { .. }
        | Outcome::Cancelled { .. }
        | Outcome::Internal { .. } => false,
    }
}

/// The wait before attempt `tries + 1`, times a random factor from 0.75 to 1.25: hosts that failed
/// together must not come back together.
fn wait(retry: &Retry, tries: u32) -> Duration {
    let grown = retry.delay.as_secs_f64() * retry.backoff.powf(f64::from(tries - 1));
    let full = grown.min(retry.max_delay.as_secs_f64());
    let random = RandomState::new().hash_one(tries) % 1000;
    Duration::from_secs_f64(full * (0.75 + random as f64 / 2000.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ExitStatus;

    #[test]
    fn waits_grow_to_their_bound_and_are_spread() {
        let retry = Retry {
            times: 9,
            delay: Duration::from_secs(2),
            backoff: 3.0,
            max_delay: Duration::from_secs(30),
            until: None,
        };
        for (tries, full) in [(1, 2.0), (2, 6.0), (3, 18.0), (4, 30.0), (400, 30.0)] {
            let waited = wait(&retry, tries).as_secs_f64();
            assert!(
                (full * 0.75..=full * 1.25).contains(&waited),
                "{tries}: {waited}"
            );
        }
    }

    #[test]
    fn what_may_be_at_work_still_is_not_tried_again() {
        let exit = Outcome::Failed(Failure::Exit(ExitStatus::Exited(1)));
        let timed = |remote| Outcome::TimedOut {
            after: Duration::from_secs(1),
            remote,
        };
        let lost = Outcome::Lost {
            reason: "gone".into(),
        };
        assert!(may_try_again(&exit));
        assert!(may_try_again(&timed(Remains::Ended)));
        assert!(!may_try_again(&timed(Remains::MaybeRunning)));
        assert!(!may_try_again(&lost));
        assert!(!may_try_again(&not_started("no such program".into())));
        assert!(ends_loop(&lost, OnFailure::Continue));
        assert!(!ends_loop(&exit, OnFailure::Continue));
        assert!(ends_loop(&exit, OnFailure::Stop));
    }

    #[test]
    fn a_loop_has_the_ending_of_its_first_failure_and_counts_the_rest() {
        let ok = without(Outcome::Ok { status: None });
        let bad = without(not_started("x".into()));
        let turn = Turn {
            items: Some(5),
            results: vec![without(skipped("a")), ok, bad.clone()],
            ..Turn::default()
        };
        let counted = Items {
            all: 5,
            ok: 1,
            skipped: 1,
            failed: 1,
        };
        assert_eq!(turn.effort().items, Some(counted));
        assert_eq!(turn.into_result(Duration::ZERO).outcome, bad.outcome);
        let none = Turn {
            items: Some(0),
            ..Turn::default()
        };
        assert_eq!(none.into_result(Duration::ZERO).outcome, empty());
    }
}
