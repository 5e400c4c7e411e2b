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
    of: HashMap<TaskId, bool>,
    /// The answer to all further questions.
    all: Option<Step>,
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
            if let Some(all) = answers.all {
                return all;
            }
            if let Some(wanted) = answers.of.get(&id) {
                return if *wanted { Step::Do } else { Step::Leave };
            }
            loop {
                let answer = self.desk.asker.answer(question.clone()).await;
                let step = match answer.as_deref() {
                    Some("y" | "yes") => Step::Do,
                    Some("n" | "no") => Step::Leave,
                    Some("c" | "continue") => {
                        answers.all = Some(Step::Do);
                        Step::Do
                    }
                    Some("q" | "quit") | None => {
                        answers.all = Some(Step::Quit);
                        Step::Quit
                    }
                    Some(_) => continue,
                };
                answers.of.insert(id, step == Step::Do);
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
