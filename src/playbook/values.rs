//! One value of the tree -> one typed value, or a diagnostic that points at it.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value as Json;
use serde_yaml::granit_parser::ScalarStyle;

use super::expression::{Condition, Filling};
use super::model::{Line, Located};
use super::template::Template;
use super::tree::{Entry, Kind, Node};
use super::units;
use super::validate::Check;
use crate::job::OnFailure;
use crate::target::{Vars, check_variable, is_identifier};

/// A truth, as YAML 1.2 writes it.
pub(super) const YES_NO: [(&str, bool); 2] = [("true", true), ("false", false)];

impl Check<'_> {
    /// Text, whether quoted or not. `1.10`, `0644` and `no` stay as they are written.
    pub(super) fn text<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() && !text.trim().is_empty() => Some(text),
            Kind::Scalar { .. } => {
                self.error(format!("`{key}` has no value"), node, "", None);
                None
            }
            Kind::List(_) | Kind::Map(_) => {
                self.wrong_kind(key, "text", node);
                None
            }
        }
    }

    fn wrong_kind(&mut self, key: &str, wanted: &str, node: &Node) {
        let help = match &node.kind {
            Kind::Map(_) if wanted == "text" => {
                Some("a text that holds `: ` or begins with `{` must be quoted")
            }
            _ => None,
        };
        self.error(
            format!("`{key}` must be {wanted}, not {}", node.noun()),
            node,
            "",
            help,
        );
    }

    /// Text that is used as it is, so that a `${{` in it would never be filled.
    pub(super) fn plain(&mut self, key: &str, node: &Node) -> Option<Located<String>> {
        let text = self.text(key, node)?;
        if text.contains("${{") {
            self.error(
                format!("`{key}` cannot hold `${{{{ }}}}`: it is read before there are variables"),
                node,
                "",
                None,
            );
            return None;
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            self.error(
                format!(
                    "`{key}` contains a control character (U+{:04X})",
                    u32::from(c)
                ),
                node,
                "",
                None,
            );
            return None;
        }
        Some(Located {
            value: text.to_owned(),
            at: self.at(&node.span),
        })
    }

    /// One text or a list of texts.
    pub(super) fn plains(&mut self, key: &str, node: &Node) -> Vec<Located<String>> {
        self.some(key, node, Self::plain)
    }

    /// One of something, or a list of some.
    fn some<T>(
        &mut self,
        key: &str,
        node: &Node,
        one: impl Fn(&mut Self, &str, &Node) -> Option<T>,
    ) -> Vec<T> {
        let items = match &node.kind {
            Kind::List(items) if items.is_empty() => {
                self.error(format!("`{key}` is an empty list"), node, "", None);
                return Vec::new();
            }
            Kind::List(items) => items.iter().map(|item| &**item).collect(),
            Kind::Scalar { .. } | Kind::Map(_) => vec![node],
        };
        items
            .into_iter()
            .filter_map(|item| one(self, key, item))
            .collect()
    }

    pub(super) fn template(&mut self, key: &str, node: &Node) -> Option<Template> {
        match &node.kind {
            // An empty argument, variable or input is a value; an empty key is not.
            Kind::Scalar { text, style } if text.is_empty() && *style != ScalarStyle::Plain => {
                Template::parse("").ok()
            }
            _ => {
                let text = self.text(key, node)?;
                self.parsed(key, text, node, false)
            }
        }
    }

    fn parsed(&mut self, key: &str, text: &str, node: &Node, shell: bool) -> Option<Template> {
        if text.contains('\0') {
            self.error(
                format!("`{key}` contains a NUL character"),
                node,
                "",
                Some("no command line or variable can hold one"),
            );
            return None;
        }
        let source = self.source_text();
        let to_source = ToSource::new(&source, node, text);
        match Template::parse_all(text, shell) {
            Ok(mut template) => {
                template.place_in_source(|span| to_source.map(span));
                let found = bare_braces(text);
                self.note_braces(found.map(|(name, span)| (name.to_owned(), to_source.find(span))));
                Some(template)
            }
            Err(errors) => {
                for error in errors {
                    let span = to_source.map(error.span);
                    self.error_at(error.message, span, &error.label, error.help.as_deref());
                }
                None
            }
        }
    }

    /// How places in a scalar's text become places in the source.
    pub(super) fn to_source(
        &self,
        node: &Node,
        text: &str,
    ) -> impl Fn(Range<usize>) -> Range<usize> + use<> {
        let at = self.source_text()[node.span.clone()].find(text);
        let whole = node.span.clone();
        move |span| match at {
            Some(at) => whole.start + at + span.start..whole.start + at + span.end,
            None => whole.clone(),
        }
    }

    /// A bare expression that is true or false. `true` and `false` themselves are expressions.
    pub(super) fn condition(&mut self, key: &str, node: &Node) -> Option<Condition> {
        let text = self.text(key, node)?;
        let source = self.source_text();
        let to_source = ToSource::new(&source, node, text);
        match Condition::parse(text) {
            Ok(mut condition) => {
                condition.place_in_source(|span| to_source.map(span));
                Some(condition)
            }
            Err(error) => {
                let span = to_source.map(error.span);
                let message = format!("`{key}`: {}", error.message);
                self.error_at(message, span, &error.label, error.help.as_deref());
                None
            }
        }
    }

    /// One condition or a list of them.
    pub(super) fn conditions(&mut self, key: &str, node: &Node) -> Vec<Condition> {
        self.some(key, node, Self::condition)
    }

    /// A value in which `${{ }}` is filled when the task runs.
    pub(super) fn filling(&mut self, key: &str, node: &Node) -> Option<Filling> {
        Some(match &node.kind {
            Kind::Scalar { text, .. } if text.contains("${{") => {
                Filling::Text(self.parsed(key, text, node, false)?)
            }
            Kind::Scalar { .. } => Filling::Plain(self.json(node)),
            Kind::List(items) => {
                let items = items.iter().map(|item| self.filling(key, item));
                Filling::List(items.collect::<Option<_>>()?)
            }
            Kind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|e| Some((e.key.clone(), self.filling(key, &e.value)?)));
                Filling::Map(entries.collect::<Option<_>>()?)
            }
        })
    }

    /// `true` or `false`.
    pub(super) fn yes_no(&mut self, key: &str, node: &Node) -> bool {
        self.one_of(key, node, &YES_NO) == Some(true)
    }

    pub(super) fn templates(&mut self, key: &str, node: &Node) -> Vec<Template> {
        match &node.kind {
            Kind::List(items) => items
                .iter()
                .filter_map(|item| self.template(key, item))
                .collect(),
            Kind::Scalar { .. } | Kind::Map(_) => {
                self.wrong_kind(key, "a list", node);
                Vec::new()
            }
        }
    }

    /// Shell text, or a list of words.
    pub(super) fn line(&mut self, key: &str, node: &Node) -> Option<Line> {
        match &node.kind {
            Kind::List(items) if items.is_empty() => {
                self.error(
                    format!("`{key}` is an empty list"),
                    node,
                    "",
                    Some("the first word is the program"),
                );
                None
            }
            Kind::List(items) => {
                let words: Vec<_> = items.iter().filter_map(|i| self.template(key, i)).collect();
                (words.len() == items.len()).then_some(Line::Argv(words))
            }
            Kind::Scalar { .. } | Kind::Map(_) => {
                let text = self.text(key, node)?;
                self.parsed(key, text, node, true).map(Line::Shell)
            }
        }
    }

    pub(super) fn duration(&mut self, key: &str, node: &Node, zero: bool) -> Option<Duration> {
        let text = self.text(key, node)?;
        match units::duration(text) {
            Ok(d) if d.is_zero() && !zero => {
                self.error(
                    format!("`{key}` must be longer than nothing"),
                    node,
                    "",
                    Some("leave the key out for no limit"),
                );
                None
            }
            Ok(d) => Some(d),
            Err(bad) => {
                let help = bad.help();
                self.error(format!("`{key}: {text}` {bad}"), node, "", help.as_deref());
                None
            }
        }
    }

    /// A whole number without a sign, in decimal.
    pub(super) fn whole(&mut self, key: &str, node: &Node, range: Range<u64>) -> Option<u64> {
        let text = self.text(key, node)?;
        let number = text
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten();
        match number {
            Some(n) if range.contains(&n) => Some(n),
            Some(_) | None => {
                let message = format!(
                    "`{key}` must be a number from {} to {}, not `{text}`",
                    range.start,
                    range.end - 1
                );
                self.error(message, node, "", None);
                None
            }
        }
    }

    pub(super) fn one_of<T: Copy>(
        &mut self,
        key: &str,
        node: &Node,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(key, node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let help = crate::text::did_you_mean(text, names.iter().copied()).map_or_else(
            || format!("one of: {}", names.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        self.error(format!("`{key}` cannot be `{text}`"), node, "", Some(&help));
        None
    }

    pub(super) fn on_failure(&mut self, node: &Node) -> Option<OnFailure> {
        let words = [
            ("stop", OnFailure::Stop),
            ("continue", OnFailure::Continue),
            ("stop_all", OnFailure::StopAll),
        ];
        self.one_of("on_failure", node, &words)
    }

    /// `bash` is `bash -c`; anything else is written as a list of words.
    pub(super) fn shell(&mut self, node: &Node) -> Option<Vec<String>> {
        if let Kind::List(_) = node.kind {
            let words: Vec<String> = self
                .plains("shell", node)
                .into_iter()
                .map(|w| w.value)
                .collect();
            return (!words.is_empty()).then_some(words);
        }
        let word = self.plain("shell", node)?.value;
        if word.contains(char::is_whitespace) {
            let words: Vec<&str> = word.split_whitespace().collect();
            let help = format!("write its words as a list: [{}]", words.join(", "));
            self.error(
                format!("`shell: {word}` holds a space"),
                node,
                "",
                Some(&help),
            );
            return None;
        }
        Some(vec![word, "-c".into()])
    }

    pub(super) fn env(&mut self, node: &Node) -> Vec<(String, Template)> {
        let Some(entries) = self.entries("env", node) else {
            return Vec::new();
        };
        let mut env = Vec::new();
        for entry in entries {
            if !is_identifier(&entry.key) {
                let message = format!(
                    "`{}` cannot be the name of an environment variable",
                    entry.key
                );
                self.error_at(
                    message,
                    entry.key_span.clone(),
                    "",
                    Some("letters, digits and `_`, not beginning with a digit"),
                );
            }
            if let Some(value) = self.template(&entry.key, &entry.value) {
                env.push((entry.key.clone(), value));
            }
        }
        env
    }

    pub(super) fn entries<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n [Entry]> {
        if let Kind::Map(entries) = &node.kind {
            return Some(entries);
        }
        self.wrong_kind(key, "a mapping", node);
        self.doubt_names_in(node);
        None
    }

    pub(super) fn list<'n>(&mut self, key: &str, node: &'n Node) -> Option<&'n [Rc<Node>]> {
        if let Kind::List(items) = &node.kind {
            return Some(items);
        }
        self.wrong_kind(key, "a list", node);
        self.doubt_names_in(node);
        None
    }

    pub(super) fn vars(&mut self, node: &Node) -> Vars {
        let mut vars = Vars::new();
        for entry in self.entries("vars", node).unwrap_or_default() {
            self.variable_name("variable", &entry.key, &entry.key_span);
            vars.insert(entry.key.clone(), self.json(&entry.value));
        }
        vars
    }

    pub(super) fn variable_name(&mut self, what: &str, name: &str, span: &Range<usize>) -> bool {
        let Err(help) = check_variable(name) else {
            return true;
        };
        // `${{ my-var }}` reads as a difference of `my` and `var`.
        let parts = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        self.doubt(parts.map(str::to_owned));
        self.error_at(
            format!("`{name}` cannot be the name of a {what}"),
            span.clone(),
            "",
            Some(&help),
        );
        false
    }

    /// A value for expressions. A number stays text where its digits would not survive
    /// (`0644`, `1.10`, `1e3`), and `yes`, `no`, `on`, `off` are text (YAML 1.2).
    pub(super) fn json(&mut self, node: &Node) -> Json {
        match &node.kind {
            Kind::Scalar { text, .. } if text.contains("${{") => {
                let help = "put the parts together where they are used";
                self.error(
                    "variables are not templates: `${{ }}` would stay as it is".into(),
                    node,
                    "",
                    Some(help),
                );
                Json::Null
            }
            Kind::Scalar {
                text,
                style: ScalarStyle::Plain,
            } => plain_json(text),
            Kind::Scalar { text, .. } => Json::String(text.clone()),
            Kind::List(items) => items.iter().map(|item| self.json(item)).collect(),
            Kind::Map(entries) => entries
                .iter()
                .map(|e| (e.key.clone(), self.json(&e.value)))
                .collect(),
        }
    }

    pub(super) fn ok_codes(&mut self, node: &Node) -> Option<Vec<u32>> {
        let items: Vec<&Node> = match &node.kind {
            Kind::List(items) => items.iter().map(|i| &**i).collect(),
            Kind::Scalar { .. } | Kind::Map(_) => vec![node],
        };
        if items.is_empty() {
            self.error(
                "`ok_codes` is an empty list".into(),
                node,
                "",
                Some("no exit code would be success"),
            );
        }
        let mut codes = Vec::new();
        for item in items {
            let text = self.text("ok_codes", item)?;
            match code_range(text) {
                Some(range) => codes.extend(range),
                None => self.error(
                    format!("`{text}` is not an exit code"),
                    item,
                    "",
                    Some("a number from 0 to 255, or a range such as `0-3`"),
                ),
            }
        }
        codes.sort_unstable();
        codes.dedup();
        Some(codes)
    }
}

fn code_range(text: &str) -> Option<std::ops::RangeInclusive<u32>> {
    let number = |t: &str| {
        t.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| t.parse::<u8>().ok())
            .flatten()
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first.trim())?, number(last.trim())?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some(u32::from(first)..=u32::from(last))
}

pub(super) fn plain_json(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let number = text
        .parse::<i64>()
        .map(Json::from)
        .or_else(|_| text.parse::<f64>().map(Json::from));
    match number {
        Ok(number) if unchanged(&number, text) => number,
        Ok(_) | Err(_) => Json::String(text.into()),
    }
}

fn unchanged(number: &Json, text: &str) -> bool {
    let written = number.to_string();
    written == text
}

/// Bytes behind a name in which `}}` is looked for.
const LONGEST_BRACES: usize = 100;

/// `{{ name }}` and `{{ name.field }}`, also with a filter, that no `$` stands before: the name and
/// the bytes of the whole.
fn bare_braces(text: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let opens = text.match_indices("{{").map(|(at, _)| at);
    opens.filter_map(|open| {
        let inside = &text[open + 2..];
        let word = inside.trim_start_matches(' ');
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let (name, rest) = word.split_at(end);
        let whole = rest.trim_start_matches(' ').starts_with(['.', '|', '}']);
        if !whole || !is_identifier(name) || text[..open].ends_with(['$', '{']) {
            return None;
        }
        // A text of nothing but braces must not be searched to its end from each of them.
        let near = &rest.as_bytes()[..rest.len().min(LONGEST_BRACES)];
        let code = near.windows(2).position(|pair| pair == b"}}")?;
        let close = text.len() - rest.len() + code + 2;
        Some((name, open..close))
    })
}

/// Bytes of a scalar's text -> bytes of the source. Escapes, indentation and folding come
/// between the two, so the n-th `${{` of one is looked up as the n-th of the other.
struct ToSource<'t> {
    text: &'t str,
    raw: &'t str,
    node: Range<usize>,
    /// Where the text stands unchanged in the source.
    same: Option<usize>,
    here: Vec<usize>,
    there: Vec<usize>,
}

impl<'t> ToSource<'t> {
    fn new(source: &'t str, node: &Node, text: &'t str) -> Self {
        let raw = source.get(node.span.clone()).unwrap_or("");
        let marks = |text: &str| text.match_indices("${{").map(|(at, _)| at).collect();
        Self {
            text,
            raw,
            node: node.span.clone(),
            same: raw.find(text),
            here: marks(text),
            there: marks(raw),
        }
    }

    /// The place of a piece that may stand several times: the n-th here is the n-th there.
    fn find(&self, span: Range<usize>) -> Range<usize> {
        let piece = &self.text[span.clone()];
        let nth = self.text[..span.start].matches(piece).count();
        match self.raw.match_indices(piece).nth(nth) {
            Some((at, _)) => self.node.start + at..self.node.start + at + piece.len(),
            None => self.node.clone(),
        }
    }

    fn map(&self, span: Range<usize>) -> Range<usize> {
        let base = self.node.start;
        if let Some(same) = self.same {
            return base + same + span.start..base + same + span.end;
        }
        let nth = self
            .here
            .partition_point(|&at| at <= span.start)
            .checked_sub(1);
        let mark = |marks: &[usize]| nth.and_then(|nth| marks.get(nth).copied());
        let (Some(here), Some(there)) = (mark(&self.here), mark(&self.there)) else {
            return self.node.clone();
        };
        let written = self.text.get(here..span.end);
        if written.is_some_and(|t| self.raw[there..].starts_with(t)) {
            base + there + (span.start - here)..base + there + (span.end - here)
        } else {
            base + there..base + there + 3
        }
    }
}
