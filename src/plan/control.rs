//! Whether and how often a task is done on a host, as far as the plan and earlier results say.

use std::collections::{BTreeSet, HashMap};

use super::values::{FACTS, Fill};
use super::{Plan, Play, Step, Task};
use crate::diagnostic::Diagnostic;
use crate::job::{HostId, Item, Memory, Registered, TaskId};
use crate::playbook::{self, Block, Condition, Template, WaitFor};
use crate::text;

/// What is known on a host when a task is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// What earlier tasks left behind.
    pub memory: &'a Memory,
    /// The value of the task's `loop` whose turn it is.
    pub item: Option<&'a Item>,
    /// What the task's last attempt came to (`result`).
    pub result: Option<&'a Registered>,
}

impl<'a> Moment<'a> {
    /// Before the task has done anything.
    #[must_use]
    pub fn before(memory: &'a Memory) -> Self {
        Self {
            memory,
            item: None,
            result: None,
        }
    }
}

/// Which tasks of a playbook are wanted.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// `-t`: only tasks with one of these tags, and those tagged `always`. Empty: all.
    pub tags: Vec<String>,
    /// `--skip-tags`: none with one of these.
    pub skip: Vec<String>,
    /// `--start-at`: nothing before the first task of this name.
    pub start_at: Option<String>,
}

impl Selection {
    /// A task tagged `never` is only done when one of its tags is asked for.
    fn wants(&self, tags: &[String]) -> bool {
        let has = |tag: &str| tags.iter().any(|own| own == tag);
        let asked = self.tags.iter().any(|tag| has(tag));
        if self.skip.iter().any(|tag| has(tag)) {
            return false;
        }
        asked || (!has("never") && (self.tags.is_empty() || has("always")))
    }

    /// Takes out of a play what is not wanted. `started` says whether the first task was found.
    pub(super) fn apply(&self, play: &mut playbook::Play, started: &mut bool) {
        let mut keep = Vec::with_capacity(play.tasks.len());
        for task in &play.tasks {
            let name = task.name.as_ref().map(Template::text);
            *started |= self.start_at.is_none() || name == self.start_at.as_deref();
            keep.push(*started && self.wants(&task.control.tags));
        }
        play.blocks = reduced(&play.blocks, &mut keep);
        let mut kept = keep.iter();
        play.tasks.retain(|_| kept.next().is_none_or(|keep| *keep));
    }

    /// The mistake of a `--start-at` that no task has as its name.
    pub(super) fn no_start(&self, names: &[String]) -> Option<Diagnostic> {
        let wanted = self.start_at.as_ref()?;
        let mistake = Diagnostic::error(format!("`--start-at`: no task is named `{wanted}`"));
        Some(
            match text::did_you_mean(wanted, names.iter().map(String::as_str)) {
                Some(near) => mistake.help(format!("did you mean `{near}`?")),
                None => mistake,
            },
        )
    }
}

/// The blocks of what is kept. Where nothing of a body is, there is nothing to rescue: its `rescue`
/// goes too, and its `always` are tasks like others.
fn reduced(blocks: &[Block], keep: &mut [bool]) -> Vec<Block> {
    for block in blocks {
        if !keep[block.body.clone()].contains(&true) {
            keep[block.rescue.clone()].fill(false);
        }
    }
    let mut before = vec![0];
    for keep in keep.iter() {
        before.push(before.last().copied().unwrap_or(0) + usize::from(*keep));
    }
    let moved = |range: &std::ops::Range<usize>| before[range.start]..before[range.end];
    let moved = blocks.iter().map(|block| Block {
        body: moved(&block.body),
        rescue: moved(&block.rescue),
        always: moved(&block.always),
    });
    moved.filter(|block| !block.body.is_empty()).collect()
}

impl Plan {
    /// The first name that a task uses and that is among these.
    #[must_use]
    pub fn uses(&self, task: TaskId, names: &BTreeSet<String>) -> Option<String> {
        if names.is_empty() {
            return None;
        }
        let mentions = self.task(task).mentions().into_iter();
        let mut used = mentions.flat_map(|(text, _)| text.names().map(|name| name.root()));
        used.find(|name| names.contains(*name)).map(str::to_owned)
    }

    /// The values of the task's `loop` on a host; `None` where it has none.
    ///
    /// # Errors
    /// One line that says why there is no list.
    pub fn items(
        &self,
        host: HostId,
        task: TaskId,
        memory: &Memory,
    ) -> Result<Option<Vec<Item>>, String> {
        let Some(each) = &self.task(task).control.each else {
            return Ok(None);
        };
        let values = match self
            .filler(host, task, Moment::before(memory))
            .value(each)?
        {
            serde_json::Value::Array(values) => values,
            _ => return Err("the value of `loop` is no list".to_owned()),
        };
        let all = values.len();
        let item = |(at, value)| Item { value, at, all };
        Ok(Some(values.into_iter().enumerate().map(item).collect()))
    }

    /// The first condition of `when` that does not hold. Without an item only those are looked at
    /// that do not depend on one, where the task has a `loop`.
    ///
    /// # Errors
    /// One line that says which condition is neither true nor false, and why.
    pub fn unmet(
        &self,
        host: HostId,
        task: TaskId,
        moment: Moment<'_>,
    ) -> Result<Option<&str>, String> {
        let control = &self.task(task).control;
        let early = control.each.is_some() && moment.item.is_none();
        let fill = self.filler(host, task, moment);
        for condition in &control.when {
            if early && of_item(condition) {
                continue;
            }
            if !fill.holds(condition)? {
                return Ok(Some(condition.text().trim()));
            }
        }
        Ok(None)
    }

    /// Whether a condition of the task holds, seen from a moment.
    ///
    /// # Errors
    /// One line that says why it is neither true nor false.
    pub fn holds(
        &self,
        condition: &Condition,
        host: HostId,
        task: TaskId,
        moment: Moment<'_>,
    ) -> Result<bool, String> {
        self.filler(host, task, moment).holds(condition)
    }

    fn filler<'a>(&'a self, host: HostId, task: TaskId, moment: Moment<'a>) -> Fill<'a> {
        let play = &self.plays[usize::from(task.play.0)];
        Fill::new(self, play, self.task(task), host, moment)
    }
}

/// Names that only exist inside of a `loop`.
pub(super) const ITEM_NAMES: [&str; 2] = ["item", "loop"];

fn of_item(condition: &Condition) -> bool {
    condition
        .names()
        .any(|name| ITEM_NAMES.contains(&name.root()))
}

impl Task {
    /// Whether what it writes is needed after its end.
    pub(super) fn is_looked_at(&self) -> bool {
        let until = self
            .control
            .retry
            .as_ref()
            .and_then(|retry| retry.until.as_ref());
        self.register.is_some() || until.is_some() || self.control.changed_when.is_some()
    }

    /// Every text of the task with the names that exist for it alone.
    pub(super) fn mentions(&self) -> Vec<(&Template, &'static [&'static str])> {
        let control = &self.control;
        let in_loop: &[&str] = if control.each.is_some() {
            &ITEM_NAMES
        } else {
            &[]
        };
        let after: &[&str] = match control.each {
            Some(_) => &["item", "loop", "result"],
            None => &["result"],
        };
        let until = control
            .retry
            .iter()
            .filter_map(|retry| retry.until.as_ref());
        let each = control.each.iter().flat_map(|each| each.templates());
        let when = control.when.iter().map(Condition::template);
        let late = until.chain(&control.changed_when).map(Condition::template);
        let with = |names: &'static [&'static str]| move |template| (template, names);
        // Those of a loop exist and come too late, which is told of them apart.
        let delegate = control.delegate_to.iter().map(|to| &to.value);
        each.map(with(&[]))
            .chain(delegate.map(with(&ITEM_NAMES)))
            .chain(
                when.chain(self.templates())
                    .chain(&control.creates)
                    .map(with(in_loop)),
            )
            .chain(late.map(with(after)))
            .collect()
    }

    /// Whether it uses what only the host can say of itself, and whether its conditions do.
    #[must_use]
    pub fn asks_host(&self) -> (bool, bool) {
        let asks = |name: &playbook::Name| {
            let mut parts = name.path.split('.');
            let own = parts.next() == Some("host");
            own && parts.next().is_none_or(|field| FACTS.contains(&field))
        };
        let mentioned = self.mentions().into_iter();
        let mentioned = mentioned.flat_map(|(text, _)| text.names());
        let in_files = self.names_in_documents();
        let mut all = mentioned.chain(&in_files).chain(self.condition_names());
        let when = &self.control.when;
        (
            all.any(asks),
            when.iter().flat_map(Condition::names).any(asks),
        )
    }

    /// The name under which its result is kept.
    #[must_use]
    pub fn register(&self) -> Option<&str> {
        self.register.as_deref()
    }

    /// The names of the values that it sets.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        let set: &[_] = match &self.action {
            Step::Set(values) => values,
            _ => &[],
        };
        set.iter().map(|(name, _)| name.as_str())
    }

    /// Whether it can change something on the host, as far as its kind says.
    #[must_use]
    pub fn may_change(&self) -> bool {
        match &self.action {
            Step::Run(_)
            | Step::Script { .. }
            | Step::Local(_)
            | Step::Upload { .. }
            | Step::Download { .. }
            | Step::Plain(_) => true,
            Step::List { .. }
            | Step::Print(_)
            | Step::Pause(_)
            | Step::Ask(_)
            | Step::Assert { .. }
            | Step::Set(_)
            | Step::WaitFor(_) => false,
        }
    }

    /// Names that the task gives values to, and whether as a result.
    #[must_use]
    pub fn defines(&self) -> Vec<(&str, bool)> {
        let set = self.sets().map(|name| (name, false));
        self.register
            .iter()
            .map(|name| (name.as_str(), true))
            .chain(set)
            .collect()
    }

    /// Whether, how often and where it is done, in words; empty where there is nothing to say.
    #[must_use]
    pub fn control_text(&self) -> String {
        let control = &self.control;
        let mut words: Vec<String> = Vec::new();
        words.extend(self.handler.then(|| "when notified".to_owned()));
        words.extend(control.once.then(|| "once for all hosts".to_owned()));
        let when = control
            .when
            .iter()
            .map(|when| format!("when {}", when.text().trim()));
        words.extend(when);
        words.extend(control.each.as_ref().map(|_| "for each item".to_owned()));
        words.extend(
            control
                .creates
                .as_ref()
                .map(|path| format!("unless {} exists", path.text())),
        );
        let retry = control.retry.as_ref();
        words.extend(retry.map(|retry| {
            let times = text::count(retry.times as usize, "more attempt");
            let until = retry.until.as_ref();
            let until = until.map_or(String::new(), |u| format!(" until {}", u.text().trim()));
            format!("up to {times}{until}")
        }));
        let restart = control.restart.as_ref();
        words.extend(restart.map(|restart| {
            let within = text::duration(restart.within);
            format!(
                "started again up to {} times within {within}",
                restart.times
            )
        }));
        let delegate = control.delegate_to.as_ref();
        words.extend(delegate.map(|to| format!("done on {}", to.value.text())));
        words.extend(control.fanout.map(|hosts| format!("on {hosts} at a time")));
        let notify = control
            .notify
            .iter()
            .map(|name| format!("notifies {}", name.value));
        words.extend(notify);
        words.join(", ")
    }
}

/// Places of handlers by their names.
pub(super) fn handler_places(play: &Play) -> HashMap<String, u16> {
    let handlers = play.tasks.iter().filter(|task| task.handler);
    handlers
        .map(|task| (task.reference.name.to_string(), task.reference.id.index))
        .collect()
}

/// What does not hold of an `assert`, in words.
pub(super) fn unheld(
    that: &[Condition],
    message: Option<&Template>,
    fill: &Fill<'_>,
) -> Result<Option<String>, String> {
    for condition in that {
        if fill.holds(condition)? {
            continue;
        }
        let text = condition.text().trim();
        return Ok(Some(match message {
            Some(message) if that.len() == 1 => fill.text(message)?.trim().to_owned(),
            // One message for several: which of them it was is worth a word.
            Some(message) => format!("{} (`{text}` is false)", fill.text(message)?.trim()),
            None => format!("`{text}` is false"),
        }));
    }
    Ok(None)
}

pub(super) fn wait_text(what: &WaitFor) -> String {
    match what {
        WaitFor::Port { port, address } => {
            let of = address
                .as_ref()
                .map_or(String::new(), |a| format!(" of {}", a.text()));
            format!("wait for port {port}{of}")
        }
        WaitFor::Path(path) => format!("wait for {}", path.text()),
        WaitFor::Connection => "wait for a connection".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(body: std::ops::Range<usize>, rescue: usize, always: usize) -> Block {
        Block {
            rescue: body.end..rescue,
            always: rescue..always,
            body,
        }
    }

    /// `-t`, `--skip-tags`, the task's own, and whether it is wanted.
    type Case = (
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
        bool,
    );

    #[test]
    fn tags_choose_tasks() {
        let selection = |tags: &[&str], skip: &[&str]| Selection {
            tags: tags.iter().map(ToString::to_string).collect(),
            skip: skip.iter().map(ToString::to_string).collect(),
            start_at: None,
        };
        let cases: &[Case] = &[
            (&[], &[], &[], true),
            (&[], &[], &["a"], true),
            (&["a"], &[], &[], false),
            (&["a"], &[], &["a", "b"], true),
            (&["a"], &["b"], &["a", "b"], false),
            (&[], &["b"], &["a"], true),
            (&["a"], &[], &["always"], true),
            (&[], &["always"], &["always"], false),
            (&[], &[], &["never"], false),
            (&["never"], &[], &["never"], true),
            (&["a"], &[], &["a", "never"], true),
        ];
        for (tags, skip, own, wanted) in cases {
            let own: Vec<String> = own.iter().map(ToString::to_string).collect();
            assert_eq!(
                selection(tags, skip).wants(&own),
                *wanted,
                "{tags:?} {skip:?} {own:?}"
            );
        }
    }

    #[test]
    fn a_rescue_goes_with_the_last_task_of_its_body() {
        let mut keep = [true, false, false, true, true, true];
        let blocks = reduced(&[block(1..3, 4, 5)], &mut keep);
        assert_eq!(blocks, []);
        assert_eq!(keep, [true, false, false, false, true, true]);
        let mut keep = [true, false, true, true, true, true];
        assert_eq!(
            reduced(&[block(1..3, 4, 5)], &mut keep),
            [block(1..2, 3, 4)]
        );
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_in_the_part_it_was_in(mut keep in prop::collection::vec(any::<bool>(), 12)) {
            let blocks = [block(2..4, 5, 6), block(1..7, 9, 10)];
            let wanted = keep.clone();
            let left = reduced(&blocks, &mut keep);
            let old: Vec<usize> = (0..12).filter(|at| keep[*at]).collect();
            let part = |blocks: &[Block], at: usize| {
                let parts = |b: &Block| (b.body.contains(&at), b.rescue.contains(&at));
                blocks.iter().map(parts).filter(|p| p.0 || p.1).collect::<Vec<_>>()
            };
            for (new, old) in old.iter().enumerate() {
                prop_assert_eq!(part(&left, new), part(&blocks, *old));
            }
            for at in 0..12 {
                let in_rescue = blocks.iter().any(|b| b.rescue.contains(&at));
                prop_assert!(keep[at] == wanted[at] || in_rescue);
            }
        }
    }
}
