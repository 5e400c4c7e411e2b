//! Keys that say whether, how often and where a task is done: the tree -> [`Control`].

use std::time::Duration;

use serde_json::Value as Json;

use super::keys;
use super::model::{Action, Control, Located, Restart, Retry, Rollout, Share, WaitFor};
use super::tree::{Entry, Kind, Node};
use super::validate::{Check, Level, get};
use super::{Condition, Filling, Scope};
use crate::target::Vars;

/// The wait before a second attempt where nobody says otherwise.
const DELAY: Duration = Duration::from_secs(1);
/// The longest wait between attempts where nobody says otherwise.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The most further attempts.
const MAX_TIMES: u64 = 10_000;

/// What the blocks around a task say.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub when: Vec<Condition>,
    pub tags: Vec<String>,
    pub vars: Vars,
}

impl Check<'_> {
    /// What a block says, with what stands around it.
    pub(super) fn around(&mut self, entries: &[Entry], outer: &Around) -> Around {
        let mut around = outer.clone();
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "when" => around.when.extend(self.conditions(key, value)),
                "tags" => around.tags.extend(self.tags(value)),
                "vars" => around.vars.extend(self.vars(value)),
                _ => {}
            }
        }
        around
    }

    /// What a task says itself, with what stands around it.
    pub(super) fn control(&mut self, entries: &[Entry], around: &Around) -> Control {
        let mut control = Control {
            when: around.when.clone(),
            tags: around.tags.clone(),
            ..Control::default()
        };
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "when" => control.when.extend(self.conditions(key, value)),
                "tags" => control.tags.extend(self.tags(value)),
                "restart" => control.restart = self.restart(value),
                "loop" => control.each = self.each(value),
                "retry" => control.retry = self.retry(value),
                "creates" => control.creates = self.template(key, value),
                "changed_when" => control.changed_when = self.condition(key, value),
                "notify" => control.notify = self.plains(key, value),
                "once" => control.once = self.yes_no(key, value),
                "fanout" => control.fanout = self.fanout(value),
                "rollout" => control.rollout = self.rollout(value),
                "delegate_to" => {
                    let at = self.at(&value.span);
                    let host = self.template(key, value);
                    control.delegate_to = host.map(|value| Located { value, at });
                }
                _ => {}
            }
        }
        control
    }

    pub(super) fn fanout(&mut self, node: &Node) -> Option<usize> {
        self.whole("fanout", node, 1..100_001)
            .and_then(|n| usize::try_from(n).ok())
    }

    /// Words that `-t` can name.
    fn tags(&mut self, node: &Node) -> Vec<String> {
        let tags = self.plains("tags", node);
        let good = |tag: &str| {
            tag.chars()
                .all(|c| c.is_alphanumeric() || "_-.".contains(c))
        };
        for Located { value, at } in tags.iter().filter(|tag| !good(&tag.value)) {
            let help = Some("letters, digits, `_`, `-` and `.`; several are a list: `[a, b]`");
            self.error_at(format!("`{value}` is no tag"), at.span.clone(), "", help);
        }
        tags.into_iter().map(|tag| tag.value).collect()
    }

    /// A list, or an expression that gives one.
    fn each(&mut self, node: &Node) -> Option<Filling> {
        match &node.kind {
            Kind::List(_) => self.filling("loop", node),
            Kind::Scalar { text, .. } if text.contains("${{") => self.filling("loop", node),
            Kind::Scalar { .. } => {
                let condition = self.condition("loop", node)?;
                let each = Filling::Text(condition.template().clone());
                // What depends on nothing is known now: a number, a truth.
                let constant = condition.names().next().is_none();
                let value = constant.then(|| each.value(&Scope::new(Vars::new())));
                if let Some(Ok(value)) = value.filter(|v| !matches!(v, Ok(Json::Array(_)))) {
                    let message = format!("`loop` needs a list, and `{value}` is none");
                    let help = "write `loop: [a, b]`, `loop: x.lines` or `loop: range(3)`";
                    self.error(message, node, "", Some(help));
                    return None;
                }
                Some(each)
            }
            Kind::Map(_) => {
                let help = Some("write `loop: [a, b]` or `loop: x.lines`");
                self.error(
                    "`loop` must be a list, not a mapping".into(),
                    node,
                    "",
                    help,
                );
                None
            }
        }
    }

    /// `retry: 5` or a mapping.
    fn retry(&mut self, node: &Node) -> Option<Retry> {
        let mut retry = Retry {
            times: 0,
            delay: DELAY,
            backoff: 2.0,
            max_delay: MAX_DELAY,
            until: None,
        };
        let Kind::Map(entries) = &node.kind else {
            retry.times = self.times("retry", node)?;
            return Some(retry);
        };
        self.check_keys(entries, Level::Retry);
        let mut longest = None;
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "times" => retry.times = self.times(key, value)?,
                "delay" => retry.delay = self.duration(key, value, true)?,
                "backoff" => retry.backoff = self.factor(key, value)?,
                "max_delay" => longest = self.duration(key, value, true),
                "until" => retry.until = self.condition(key, value),
                _ => {}
            }
        }
        if get(entries, "times").is_none() {
            let help = Some("say how often: `retry: {times: 5}`");
            self.error("`retry` has no `times`".into(), node, "", help);
            return None;
        }
        if let (Some(max), Some(node)) = (longest, get(entries, "max_delay"))
            && max < retry.delay
        {
            self.error("`max_delay` is shorter than `delay`".into(), node, "", None);
        }
        retry.max_delay = longest.unwrap_or(MAX_DELAY.max(retry.delay));
        Some(retry)
    }

    /// `restart: true` or a mapping.
    fn restart(&mut self, node: &Node) -> Option<Restart> {
        let mut restart = Restart {
            times: 5,
            within: Duration::from_secs(10),
        };
        let Kind::Map(entries) = &node.kind else {
            let words = [("true", true), ("false", false)];
            let wanted = self.one_of("restart", node, &words)?;
            return wanted.then_some(restart);
        };
        self.check_keys(entries, Level::Options("`restart`", keys::RESTART));
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "times" => restart.times = self.times(key, value)?,
                "within" => restart.within = self.duration(key, value, false)?,
                _ => {}
            }
        }
        Some(restart)
    }

    fn times(&mut self, key: &str, node: &Node) -> Option<u32> {
        let times = self.whole(key, node, 1..MAX_TIMES + 1)?;
        u32::try_from(times).ok()
    }

    fn factor(&mut self, key: &str, node: &Node) -> Option<f64> {
        let text = self.text(key, node)?;
        match text.parse::<f64>() {
            Ok(factor) if (1.0..=100.0).contains(&factor) => Some(factor),
            Ok(_) | Err(_) => {
                let message = format!("`{key}` must be a number from 1 to 100, not `{text}`");
                let help = Some("each wait is so many times as long as the one before");
                self.error(message, node, "", help);
                None
            }
        }
    }

    pub(super) fn rollout(&mut self, node: &Node) -> Option<Rollout> {
        let entries = self.entries("rollout", node)?;
        self.check_keys(entries, Level::Rollout);
        let mut rollout = Rollout::default();
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "batches" => rollout.batches = self.batches(value),
                "max_failures" => rollout.max_failures = self.share(key, value, true),
                "pause" => rollout.pause = self.duration(key, value, true).unwrap_or_default(),
                _ => {}
            }
        }
        if let (Some(pause), None) = (get(entries, "pause"), get(entries, "batches")) {
            let help = Some("add `batches: [1, 25%]`");
            self.error(
                "without `batches` there is no `pause`".into(),
                pause,
                "",
                help,
            );
        }
        Some(rollout)
    }

    fn batches(&mut self, node: &Node) -> Vec<Share> {
        match &node.kind {
            Kind::List(items) if items.is_empty() => {
                self.error("`batches` is an empty list".into(), node, "", None);
                Vec::new()
            }
            Kind::List(items) => items
                .iter()
                .filter_map(|item| self.share("batches", item, false))
                .collect(),
            Kind::Scalar { .. } | Kind::Map(_) => {
                self.share("batches", node, false).into_iter().collect()
            }
        }
    }

    /// `3` or `25%`.
    fn share(&mut self, key: &str, node: &Node, zero: bool) -> Option<Share> {
        let text = self.text(key, node)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<usize>().ok()).flatten()
        };
        let share = match text.strip_suffix('%') {
            Some(percent) => number(percent.trim())
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| *n <= 100)
                .map(Share::Percent),
            None => number(text).map(Share::Count),
        };
        let empty = matches!(share, Some(Share::Count(0) | Share::Percent(0)));
        if share.is_none() || (empty && !zero) {
            let message = format!("`{key}` cannot be `{text}`");
            let help = Some("a number of hosts such as `3`, or a part of them such as `25%`");
            self.error(message, node, "", help);
            return None;
        }
        share
    }

    /// `assert: EXPRESSION` or a list, with `message` beside it.
    pub(super) fn assert(&mut self, entries: &[Entry], node: &Node) -> Option<Action> {
        let that = self.conditions("assert", node);
        let message = get(entries, "message").and_then(|node| self.template("message", node));
        (!that.is_empty()).then_some(Action::Assert { that, message })
    }

    /// `set: {name: value}`.
    pub(super) fn set(&mut self, node: &Node) -> Option<Action> {
        let entries = self.entries("set", node)?;
        if entries.is_empty() {
            self.error("`set` sets nothing".into(), node, "", None);
            return None;
        }
        let mut values = Vec::new();
        for entry in entries {
            self.variable_name("variable", &entry.key, &entry.key_span);
            match self.filling(&entry.key, &entry.value) {
                Some(value) => values.push((entry.key.clone(), value)),
                None => self.doubt([entry.key.clone()]),
            }
        }
        Some(Action::Set(values))
    }

    /// `wait_for: connection`, or a mapping with `port` or `path`.
    pub(super) fn wait_for(&mut self, node: &Node) -> Option<Action> {
        let help = Some("write `connection`, `{port: 8080}` or `{path: /run/app.pid}`");
        let Kind::Map(entries) = &node.kind else {
            return match self.text("wait_for", node)? {
                "connection" => Some(Action::WaitFor(WaitFor::Connection)),
                other => {
                    let message = format!("`wait_for` cannot be `{other}`");
                    self.error(message, node, "", help);
                    None
                }
            };
        };
        self.check_keys(entries, Level::WaitFor);
        let address = get(entries, "address");
        let what = match (get(entries, "port"), get(entries, "path")) {
            (Some(port), None) => WaitFor::Port {
                port: self
                    .whole("port", port, 1..65_536)
                    .and_then(|n| u16::try_from(n).ok())?,
                address: match address {
                    Some(node) => Some(self.template("address", node)?),
                    None => None,
                },
            },
            (None, Some(path)) => WaitFor::Path(self.template("path", path)?),
            (None, None) | (Some(_), Some(_)) => {
                self.error("`wait_for` waits for one thing".into(), node, "", help);
                return None;
            }
        };
        if let (Some(address), WaitFor::Path(_)) = (address, &what) {
            self.error("`address` goes with `port`".into(), address, "", None);
        }
        Some(Action::WaitFor(what))
    }

    /// `pause: 30s` or `pause: {ask: "Go on?"}`.
    pub(super) fn pause(&mut self, node: &Node) -> Option<Action> {
        let Kind::Map(entries) = &node.kind else {
            return self.duration("pause", node, true).map(Action::Pause);
        };
        let known = self.check_keys(entries, Level::Pause);
        let Some(question) = get(entries, "ask") else {
            let help = Some("write `pause: 30s` or `pause: {ask: \"Go on?\"}`");
            if known {
                self.error("`pause` has no `ask`".into(), node, "", help);
            }
            return None;
        };
        self.template("ask", question).map(Action::Ask)
    }
}
