//! The values that a template of one task on one host can name, and filling them in.
//!
//! Precedence, highest first: secrets, command line, task (its own before those of the blocks around it),
//! play, host, its groups, playbook file. What tasks registered or set stands above all of these but
//! the command line, since the name was chosen for it on purpose; `host`, `item`, `loop` and `result`
//! are fanrun's own.

use std::cell::OnceCell;

use serde_json::{Value, json};

use super::{Moment, Plan, Play, Task};
use crate::job::{HostId, Item, Registered};
use crate::outcome::ExitStatus;
use crate::output::Mask;
use crate::playbook::{Condition, Document, Filling, RowCondition, Scope, Template};
use crate::rows::Predicate;
use crate::target::{Target, Vars, Way};

/// Names that exist on every host without anybody setting them.
pub(super) const OWN_NAMES: [&str; 1] = ["host"];
/// What a registered result has.
pub(super) const RESULT_FIELDS: [&str; 14] = [
    "stdout", "stderr", "lines", "code", "signal", "status", "changed", "duration", "rows",
    "unparsed", "count", "bytes", "attempts", "results",
];
/// What a condition on rows calls the row.
pub(super) const ROW: &str = "row";
/// What `host` has.
pub(super) const HOST_FIELDS: [&str; 10] = [
    "name",
    "groups",
    "address",
    "port",
    "user",
    "os",
    "os_version",
    "arch",
    "kernel",
    "hostname",
];
/// What of it only the host itself can say.
pub(super) const FACTS: [&str; 5] = ["os", "os_version", "arch", "kernel", "hostname"];

/// Filling in one task on one host. The scope is only made when a template asks for it: most tasks
/// of most playbooks are plain text.
pub(super) struct Fill<'a> {
    plan: &'a Plan,
    play: &'a Play,
    task: &'a Task,
    host: HostId,
    moment: Moment<'a>,
    scope: OnceCell<Scope>,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        play: &'a Play,
        task: &'a Task,
        host: HostId,
        moment: Moment<'a>,
    ) -> Self {
        Self {
            plan,
            play,
            task,
            host,
            moment,
            scope: OnceCell::new(),
        }
    }

    /// Plain text: values stand as they are.
    pub(super) fn text(&self, template: &Template) -> Result<String, String> {
        match template.literal() {
            Some(text) => Ok(text.to_owned()),
            None => template
                .render(self.scope())
                .map_err(|error| error.to_string()),
        }
    }

    /// Shell text: values are escaped for their places.
    pub(super) fn shell(&self, template: &Template) -> Result<String, String> {
        match template.literal() {
            Some(text) => Ok(text.to_owned()),
            None => template
                .render_shell(self.scope())
                .map_err(|error| error.to_string()),
        }
    }

    /// Finds secrets.
    pub(super) fn mask(&self) -> &Mask {
        &self.plan.mask
    }

    /// The host's name.
    pub(super) fn host(&self) -> &str {
        self.plan.targets[self.host.0 as usize].name.as_str()
    }

    /// A file that is filled in.
    pub(super) fn document(&self, document: &Document) -> Result<String, String> {
        document.render(self.scope())
    }

    /// A condition on rows, with the values of now.
    pub(super) fn on_rows(&self, condition: &RowCondition) -> Predicate {
        on_rows(condition, self.scope())
    }

    /// Whether a condition is true.
    pub(super) fn holds(&self, condition: &Condition) -> Result<bool, String> {
        condition
            .holds(self.scope())
            .map_err(|error| error.to_string())
    }

    /// A value with its kind.
    pub(super) fn value(&self, filling: &Filling) -> Result<Value, String> {
        filling
            .value(self.scope())
            .map_err(|error| error.to_string())
    }

    fn scope(&self) -> &Scope {
        self.scope.get_or_init(|| {
            let target = &self.plan.targets[self.host.0 as usize];
            let mut scope = Scope::new(merged(self.plan, self.play, self.task, target));
            for (name, result) in &self.moment.memory.results {
                scope.set(name, result_value(result));
            }
            for (name, value) in &self.moment.memory.set {
                scope.set(name, value.clone());
            }
            for (name, value) in self.plan.extra_vars.iter().chain(&self.plan.revealed) {
                scope.set(name, value.clone());
            }
            let way = self.play.ways.get(&self.host);
            let facts = self.moment.memory.facts.as_ref();
            scope.set("host", host_value(target, way.map(|way| &**way), facts));
            if let Some(item) = self.moment.item {
                scope.set("item", item.value.clone());
                scope.set("loop", loop_value(item));
            }
            if let Some(result) = self.moment.result {
                scope.set("result", result_value(result));
            }
            scope
        })
    }
}

/// A condition on rows, each of which is its `row`.
#[must_use]
pub fn on_rows(condition: &RowCondition, scope: &Scope) -> Predicate {
    let (condition, scope) = (condition.clone(), scope.clone());
    Predicate::new(move |row| {
        let row = Value::Object(row.fields());
        let held = condition.holds(&scope, ROW, row);
        held.map_err(|error| error.to_string())
    })
}

/// All variables of a task on a host.
pub(super) fn merged(plan: &Plan, play: &Play, task: &Task, target: &Target) -> Vars {
    let mut all = plan.file_vars.clone();
    for layer in [&target.vars, &play.vars, &task.vars, &plan.extra_vars] {
        all.extend(
            layer
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
    all
}

fn loop_value(item: &Item) -> Value {
    json!({
        "index": item.at + 1,
        "index0": item.at,
        "first": item.at == 0,
        "last": item.at + 1 == item.all,
        "length": item.all,
    })
}

fn host_value(target: &Target, way: Option<&Way>, facts: Option<&Vars>) -> Value {
    let (address, port, user) = match way {
        Some(Way::Ssh(dial)) => (
            json!(dial.address),
            json!(dial.port),
            json!(dial.user.as_str()),
        ),
        Some(Way::Local) | None => (json!("localhost"), Value::Null, Value::Null),
    };
    let mut host = json!({
        "name": target.name.as_str(),
        "groups": target.groups,
        "address": address,
        "port": port,
        "user": user,
    });
    if let (Some(host), Some(facts)) = (host.as_object_mut(), facts) {
        host.extend(
            facts
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
    host
}

/// A result as templates see it. Like a shell's `$(...)`, `stdout` has lost its last line ends.
fn result_value(result: &Registered) -> Value {
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim_end_matches(['\n', '\r'])
            .to_owned()
    };
    let stdout = text(&result.stdout);
    let lines: Vec<&str> = if stdout.is_empty() {
        Vec::new()
    } else {
        stdout.lines().collect()
    };
    let (code, signal) = match result.outcome.exit_status() {
        Some(ExitStatus::Exited(code)) => (json!(code), Value::Null),
        Some(ExitStatus::Signaled { name, .. }) => (Value::Null, json!(name)),
        None => (Value::Null, Value::Null),
    };
    json!({
        "lines": lines,
        "stdout": stdout,
        "stderr": text(&result.stderr),
        "code": code,
        "signal": signal,
        "status": result.outcome.word(),
        "changed": result.changed,
        "attempts": result.attempts,
        "results": result.results.iter().map(result_value).collect::<Vec<_>>(),
        "duration": result.duration.as_secs_f64(),
        "rows": result.rows,
        "unparsed": result.unparsed,
        "count": result.rows.as_ref().map(Vec::len),
        "bytes": result.tally.as_ref().map(|tally| tally.bytes),
    })
}
