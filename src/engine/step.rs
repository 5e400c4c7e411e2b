//! `--step`: before each task the person at the terminal is asked whether it is to be done. One
//! answer holds for all hosts; whoever comes to a task while the question stands waits for it.

use std::collections::HashMap;

use tokio::sync::Mutex;

use super::lane::{Halt, Lane};
use super::state::Level;
use crate::job::TaskId;
use crate::plan::Task;
use crate::text;

/// What was answered so far. The lock is held while a question stands.
#[derive(Default)]
pub(super) struct Steps(Mutex<Answers>);

#[derive(Default)]
struct Answers {
    of: HashMap<TaskId, Step>,
    /// The answer to all questions that were not asked.
    rest: Option<Step>,
}

impl Answers {
    /// What a task's host has to do without a question. A host that lags behind comes to tasks that
    /// were answered before "all the rest" was: those answers hold for it too, unless nothing more
    /// is to be done at all.
    fn known(&self, id: TaskId) -> Option<Step> {
        match self.rest {
            Some(Step::Quit) => Some(Step::Quit),
            rest => self.of.get(&id).copied().or(rest),
        }
    }
}

/// What is to become of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done.
    Do,
    /// It is left out.
    Leave,
    /// Nothing more is done.
    Quit,
}

impl Lane {
    /// Asks about a task, unless that has been done or nobody wants to be asked.
    pub(super) async fn step(&mut self, task: &Task) -> Result<Step, Halt> {
        let Some(steps) = &self.desk.steps else {
            return Ok(Step::Do);
        };
        let id = task.reference.id;
        let play = &self.desk.plan.plays[usize::from(id.play.0)];
        let hosts = text::count(play.hosts.len(), "host");
        let name = text::printable(task.reference.name.as_bytes());
        let question =
            format!("{name}  ({hosts})  [y]es, [n]o, [c]ontinue without asking, [q]uit? ");
        let mut cancel = self.cancel.clone();
        let asking = async {
            let mut answers = steps.0.lock().await;
            if let Some(step) = answers.known(id) {
                return step;
            }
            loop {
                let answer = self.desk.asker.answer(question.clone()).await;
                let step = match answer.as_deref() {
                    Some("y" | "yes") => Step::Do,
                    Some("n" | "no") => Step::Leave,
                    Some("c" | "continue") => {
                        answers.rest = Some(Step::Do);
                        Step::Do
                    }
                    Some("q" | "quit") | None => {
                        answers.rest = Some(Step::Quit);
                        Step::Quit
                    }
                    Some(_) => continue,
                };
                answers.of.insert(id, step);
                return step;
            }
        };
        tokio::select! {
            biased;
            _ = cancel.wait_for(|level| *level != Level::Run) => Err(Halt::Stopped),
            step = asking => Ok(step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PlayId;

    fn task(number: u16) -> TaskId {
        TaskId {
            play: PlayId(0),
            index: number,
        }
    }

    #[test]
    fn an_answer_holds_also_for_hosts_that_come_to_it_after_the_last_question() {
        let mut answers = Answers::default();
        answers.of.insert(task(0), Step::Leave);
        assert_eq!(answers.known(task(0)), Some(Step::Leave));
        assert_eq!(answers.known(task(1)), None);
        answers.rest = Some(Step::Do);
        assert_eq!(answers.known(task(0)), Some(Step::Leave));
        assert_eq!(answers.known(task(1)), Some(Step::Do));
        answers.rest = Some(Step::Quit);
        assert_eq!(answers.known(task(0)), Some(Step::Quit));
    }
}
