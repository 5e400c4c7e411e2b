//! What a plan does with secrets that it should not do.

use std::sync::Arc;

use super::{Plan, Step, Task};
use crate::diagnostic::Diagnostic;
use crate::playbook::{Line, Template};

/// Names of secrets that are given to something else, and secrets in the words of commands.
pub(super) fn misused(plan: &Plan) -> Vec<Diagnostic> {
    let is_secret = |name: &str| plan.secrets.iter().any(|secret| secret.name == name);
    let mut found = Vec::new();
    for name in plan.extra_vars.keys().filter(|name| is_secret(name)) {
        let message = format!("`-e {name}`: `{name}` is a secret of the playbook");
        let help = "whoever lists processes can read a command line; the playbook says where the \
                    value comes from";
        found.push(Diagnostic::error(message).help(help));
    }
    for secret in &plan.secrets {
        let mut hosts = plan.targets.iter();
        let owner = hosts.find(|target| target.vars.contains_key(&secret.name));
        found.extend(owner.map(|host| {
            second_name(
                &secret.name,
                &format!("a variable of the host {}", host.name),
            )
        }));
    }
    for play in &plan.plays {
        for name in play.vars.keys().filter(|name| is_secret(name)) {
            found.push(second_name(
                name,
                &format!("a variable of the play {}", play.name),
            ));
        }
        for task in &play.tasks {
            let defined = task.defines().into_iter().map(|(name, _)| name);
            let own = task.vars.keys().map(String::as_str);
            for name in defined.chain(own).filter(|name| is_secret(name)) {
                found.push(second_name(
                    name,
                    &format!("given a value by {}", place(task)),
                ));
            }
            found.extend(on_a_command_line(task, &is_secret));
        }
    }
    found
}

fn second_name(name: &str, what: &str) -> Diagnostic {
    let message = format!("`{name}` is a secret, and {what}");
    Diagnostic::error(message).help("choose another name for one of them")
}

fn place(task: &Task) -> &str {
    task.reference.place.as_deref().unwrap_or("a task")
}

/// Words are seen by whoever lists processes; shell text and variables can be sent another way.
fn on_a_command_line(task: &Task, is_secret: &impl Fn(&str) -> bool) -> Vec<Diagnostic> {
    let words: &[Template] = match &task.action {
        Step::Run(Line::Argv(words)) | Step::Local(Line::Argv(words)) => words,
        Step::Script { args, .. } => args,
        _ => &[],
    };
    let Some(source) = &task.source else {
        return Vec::new();
    };
    let names = words.iter().flat_map(Template::names);
    let mistake = |name: &crate::playbook::Name| {
        let message = format!("the secret `{}` would stand on a command line", name.root());
        let label = "every user of the machine can read it";
        let help = "pass it through `env` or `stdin`, or put the command into shell text";
        Diagnostic::error(message)
            .at(&Arc::clone(source), name.span.clone(), label)
            .help(help)
    };
    names
        .filter(|name| is_secret(name.root()))
        .map(mistake)
        .collect()
}
