//! Text with `${{ expression }}` in it.
//!
//! Everything outside of `${{ }}` is literal, so neither the shell's `${x}` nor `{{.Names}}` is
//! touched. Expressions are minijinja's; a name that is not defined is an error. Values are put in
//! once and never read again as a template. A literal `${{` is written `${{ "${{" }}`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Object, ValueKind};
use minijinja::{Environment, Expression, UndefinedBehavior, Value};

use super::shell::{self, Gap, Place, Sym};
use crate::target::Vars;
use crate::text::did_you_mean;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    super::filters::add(&mut environment);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
});

/// Bytes of one expression. The expression parser recurses once for each `-` or `not`, so this
/// bounds the stack.
const MAX_CODE: usize = 1000;

/// Bytes of `${{`.
const BRACES: usize = 3;

/// Gaps of one text. More are data, not a template.
const MAX_GAPS: usize = 1000;

/// minijinja's filters, those of [`super::filters`], and `raw`. A misspelt one must be found before anything runs.
pub(super) const FILTERS: [&str; 62] = [
    "abs",
    "attr",
    "b64decode",
    "b64encode",
    "basename",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "dirname",
    "duration",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "from_json",
    "groupby",
    "human_duration",
    "human_size",
    "indent",
    "int",
    "items",
    "join",
    "json",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "quote",
    "raw",
    "regex_escape",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sha256",
    "size",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// What fanrun adds to minijinja's filters, for people.
pub const OWN_FILTERS: [(&str, &str); 12] = [
    (
        "size, human_size",
        "\"10MiB\" as 10485760; 1288490189 as \"1.2 GiB\"",
    ),
    ("duration, human_duration", "\"5m\" as 300; 90 as \"1m30s\""),
    (
        "sum, min, max",
        "of a list, or of a column of rows: `x.rows | sum(\"used\")`",
    ),
    ("json, from_json", "text of a value; the value of a text"),
    (
        "quote",
        "a word for a shell, in texts that are not escaped anyway (`env`, files)",
    ),
    ("regex_escape", "a literal for a regular expression"),
    ("basename, dirname", "parts of a path"),
    ("b64encode, b64decode", "base64"),
    ("sha256", "the sum of a text, hexadecimal"),
    (
        "raw",
        "in shell text: the value as it is, not escaped; stands last",
    ),
    ("default(x)", "x where there is no value"),
    (
        "sort, map, selectattr ...",
        "Jinja's, on lists and rows: `x.rows | sort(attribute=\"use\") | last`",
    ),
];

/// Text with gaps that are filled when a task runs.
#[derive(Clone)]
pub struct Template {
    text: Arc<str>,
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Literal(Range<usize>),
    Gap(Arc<Interpolation>),
}

struct Interpolation {
    expression: Expression<'static, 'static>,
    /// Without the braces and without `| raw`.
    code: String,
    raw: bool,
    /// In the source once loaded, in the text before.
    span: Range<usize>,
    names: Vec<Name>,
    /// Only in shell text.
    place: Option<Gap>,
}

/// A variable that an expression uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `x`, or as much of `x.stdout` as is written.
    pub path: String,
    /// Bytes in the source of a loaded playbook; in the parsed text otherwise.
    pub span: Range<usize>,
    /// The expression says itself what to do without it (`default`, `is defined`).
    pub optional: bool,
}

impl Name {
    /// The variable itself: `x` of `x.stdout`.
    #[must_use]
    pub fn root(&self) -> &str {
        self.path.split('.').next().unwrap_or(&self.path)
    }
}

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// A fragment that names its object.
    pub message: String,
    /// Bytes in the parsed text.
    pub span: Range<usize>,
    /// A few words for under the underline; may be empty.
    pub label: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// Why a template has no value here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct RenderError {
    /// What is wrong.
    pub cause: RenderCause,
    /// The interpolation: bytes in the source of a loaded playbook, in the parsed text otherwise.
    pub span: Range<usize>,
    /// How to mend it.
    pub help: Option<String>,
}

/// What went wrong while a gap was filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderCause {
    /// A variable, or an attribute of one, does not exist.
    #[error("`{0}` is not defined")]
    Undefined(String),
    /// The value is null.
    #[error("`{0}` has no value (null)")]
    Null(String),
    /// A list or mapping where text is needed.
    #[error("`{0}` is {1}, not text")]
    NotText(String, &'static str),
    /// A NUL byte: no command line, environment or file name can hold one.
    #[error("the value of `{0}` contains a NUL character")]
    Nul(String),
    /// A newline where one would change the shell text around it.
    #[error(
        "the value of `{0}` contains a newline, which cannot stand on a line that begins a here-document"
    )]
    Newline(String),
    /// The value would end the here-document that it stands in.
    #[error("a line of the value of `{0}` would end the here-document (`{1}`)")]
    Delimiter(String, String),
    /// No escaping is certain at this place.
    #[error("`{0}` stands where its value cannot be escaped for certain: {1}")]
    Unsure(String, &'static str),
    /// The expression failed.
    #[error("`{0}`: {1}")]
    Expression(String, String),
}

/// A bare expression that is true or false: `row.use > 90`.
#[derive(Clone)]
pub struct RowCondition(Arc<Interpolation>);

/// The variables of a scope, and one more.
#[derive(Debug)]
struct WithOne {
    names: Names,
    name: &'static str,
    value: Value,
}

impl Object for WithOne {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            name if name == self.name => Some(self.value.clone()),
            other => self.names.0.get(other).cloned(),
        }
    }
}

impl RowCondition {
    /// Parses the expression, which stands without braces.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        // Places are counted as if braces stood around it.
        let back = |span: &Range<usize>| {
            let moved = |at: usize| at.saturating_sub(3).min(text.len());
            moved(span.start)..moved(span.end)
        };
        let parsed = interpolation(text, 0..text.len() + 5);
        let mut gap = parsed.map_err(|mut error| {
            error.span = back(&error.span);
            error
        })?;
        if gap.raw {
            let help = Some("remove it".to_owned());
            let message = "`raw` has no effect on a condition";
            return Err(mistake(message, 0..text.len(), "", help));
        }
        gap.span = 0..text.len();
        for name in &mut gap.names {
            name.span = back(&name.span);
        }
        Ok(Self(Arc::new(gap)))
    }

    /// Moves all spans from the parsed text into the source.
    pub(super) fn place_in_source(&mut self, to_source: impl Fn(Range<usize>) -> Range<usize>) {
        if let Some(gap) = Arc::get_mut(&mut self.0) {
            gap.span = to_source(gap.span.clone());
            for name in &mut gap.names {
                name.span = to_source(name.span.clone());
            }
        }
    }

    /// The variables that it uses.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.names.iter()
    }

    /// Whether it holds, with one variable more than the scope has.
    ///
    /// # Errors
    /// [`RenderError`] where a name is missing or the value is neither true nor false.
    pub fn holds(
        &self,
        scope: &Scope,
        name: &'static str,
        value: serde_json::Value,
    ) -> Result<bool, RenderError> {
        let (gap, value) = (&self.0, to_value(value));
        let whole = || {
            let mut whole = scope.clone();
            Arc::make_mut(&mut whole.names.0).insert(name.to_owned(), value.clone());
            whole
        };
        // A comparison with what is not there would only be false.
        let needed = gap.names.iter().filter(|needed| !needed.optional);
        let mut own = needed.filter(|needed| needed.root() == name);
        if own.any(|needed| lacks(&value, needed)) {
            return Err(gap.undefined(&whole()));
        }
        let context = Value::from_object(WithOne {
            names: scope.names.clone(),
            name,
            value: value.clone(),
        });
        let holds = gap
            .expression
            .eval(context)
            .map_err(|error| gap.missing(&whole()).unwrap_or_else(|| gap.failed(&error)))?;
        if holds.kind() != ValueKind::Bool {
            let why = "neither true nor false".to_owned();
            return Err(gap.error(RenderCause::Expression(gap.code.clone(), why)));
        }
        Ok(holds.is_true())
    }
}

/// Whether a path leads nowhere in the value of its first name.
fn lacks(value: &Value, name: &Name) -> bool {
    let mut value = value.clone();
    for step in name.path.split('.').skip(1) {
        value = value.get_attr(step).unwrap_or(Value::UNDEFINED);
        if value.is_undefined() {
            return true;
        }
    }
    false
}

impl fmt::Debug for RowCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RowCondition").field(&self.0.code).finish()
    }
}

/// The variables a template is rendered with.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    names: Names,
}

#[derive(Debug, Clone, Default)]
struct Names(Arc<BTreeMap<String, Value>>);

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_str()?).cloned()
    }
}

impl Scope {
    /// Starts with these variables. Layers are merged before, the nearest last.
    #[must_use]
    pub fn new(vars: Vars) -> Self {
        let mut scope = Self::default();
        for (name, value) in vars {
            scope.set(&name, value);
        }
        scope
    }

    /// Sets one variable, such as what a task registered.
    pub fn set(&mut self, name: &str, value: serde_json::Value) {
        Arc::make_mut(&mut self.names.0).insert(name.to_owned(), to_value(value));
    }

    /// Whether a variable of this name exists.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.0.contains_key(name)
    }

    /// The shortest part of a path that has no value, and what may be meant instead.
    fn first_missing<'n>(&self, name: &'n Name) -> Option<(&'n Name, String, Option<String>)> {
        let mut path = String::new();
        let mut value = Value::from_object(self.names.clone());
        let mut siblings: Vec<String> = self.names().map(str::to_owned).collect();
        for step in name.path.split('.') {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(step);
            value = value.get_attr(step).unwrap_or(Value::UNDEFINED);
            if value.is_undefined() {
                let help = did_you_mean(step, siblings.iter().map(String::as_str))
                    .map(|near| format!("did you mean `{near}`?"));
                return Some((name, path, help));
            }
            siblings = match value.kind() {
                ValueKind::Map => value
                    .try_iter()
                    .map_or_else(|_| Vec::new(), |keys| keys.map(|k| k.to_string()).collect()),
                _ => Vec::new(),
            };
        }
        None
    }

    /// All variables as one value, for a whole file that is filled in.
    pub(super) fn as_value(&self) -> Value {
        Value::from_object(self.names.clone())
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.0.keys().map(String::as_str)
    }
}

pub(super) fn to_value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (None, Some(u)) => Value::from(u),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::from(s),
        serde_json::Value::Array(items) => {
            Value::from(items.into_iter().map(to_value).collect::<Vec<_>>())
        }
        serde_json::Value::Object(map) => {
            let map: BTreeMap<String, Value> =
                map.into_iter().map(|(k, v)| (k, to_value(v))).collect();
            Value::from(map)
        }
    }
}

/// The way back; `None` for what has no place in data, such as a function.
fn from_value(value: &Value) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    Some(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::String => Json::String(value.as_str()?.to_owned()),
        ValueKind::Number => match value.as_i64() {
            Some(whole) if value.is_integer() => Json::from(whole),
            Some(_) | None => Json::from(f64::try_from(value.clone()).ok()?),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().ok()?;
            Json::Array(items.map(|item| from_value(&item)).collect::<Option<_>>()?)
        }
        ValueKind::Map => {
            let entry =
                |key: Value| Some((key.to_string(), from_value(&value.get_item(&key).ok()?)?));
            Json::Object(value.try_iter().ok()?.map(entry).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// A gap's value.
enum Filled {
    One(String),
    Many(Vec<String>),
}

impl Template {
    /// Text without gaps, whatever it holds.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self {
            text: text.into(),
            parts: vec![Part::Literal(0..text.len())],
        }
    }

    /// Parses text that no shell will read: a name, an argument, the value of a variable.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_all(text, false).map_err(first)
    }

    /// Parses shell text: every gap must stand where its value can be escaped for certain, unless
    /// it says `| raw`.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse_shell(text: &str) -> Result<Self, TemplateError> {
        Self::parse_all(text, true).map_err(first)
    }

    /// Parses an expression that stands without braces around it. Spans are bytes of `code`.
    pub(super) fn parse_expression(code: &str) -> Result<Self, TemplateError> {
        if code.contains("${{") {
            let help = "this is an expression already: leave `${{` and `}}` out".to_owned();
            return Err(mistake(
                "an expression stands without `${{ }}`",
                0..code.len(),
                "",
                Some(help),
            ));
        }
        let around = |at: usize| at.saturating_sub(BRACES).min(code.len());
        let inside = |mut error: TemplateError| {
            error.span = around(error.span.start)..around(error.span.end);
            error
        };
        let mut template = Self::parse_all(&format!("${{{{{code}}}}}"), false)
            .map_err(|errors| inside(first(errors)))?;
        if template.parts.len() != 1 {
            let message = format!("`{code}` is not an expression: `}}}}` closes nothing");
            return Err(mistake(message, 0..code.len(), "", None));
        }
        template.place_in_source(|span| around(span.start)..around(span.end));
        template.text = code.into();
        Ok(template)
    }

    /// The value of a template that is one gap and nothing else, with its kind: a list stays a
    /// list. `None` where there is more.
    ///
    /// # Errors
    /// [`RenderError`] if the expression has no value.
    pub(super) fn value(&self, scope: &Scope) -> Option<Result<serde_json::Value, RenderError>> {
        match self.parts.as_slice() {
            [Part::Gap(gap)] => Some(gap.value(scope)),
            _ => None,
        }
    }

    pub(super) fn parse_all(text: &str, shell: bool) -> Result<Self, Vec<TemplateError>> {
        let mut errors = Vec::new();
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find("${{").map(|i| at + i) {
            let Some(close) = expression_end(text, open + 3) else {
                errors.push(mistake(
                    "`${{` is never closed",
                    open..open + 3,
                    "",
                    Some("close it with `}}`".into()),
                ));
                break;
            };
            if parts.len() + errors.len() >= 2 * MAX_GAPS {
                let message = format!("more than {MAX_GAPS} `${{{{ }}}}` in one text");
                errors.push(mistake(message, open..open + 3, "", None));
                break;
            }
            if open > at {
                parts.push(Part::Literal(at..open));
            }
            match interpolation(&text[open + 3..close], open..close + 2) {
                Ok(gap) => parts.push(Part::Gap(Arc::new(gap))),
                Err(error) => errors.push(error),
            }
            at = close + 2;
        }
        if at < text.len() {
            parts.push(Part::Literal(at..text.len()));
        }
        let mut template = Self {
            text: text.into(),
            parts,
        };
        if errors.is_empty() && shell {
            template.find_places(&mut errors);
        }
        if errors.is_empty() {
            Ok(template)
        } else {
            Err(errors)
        }
    }

    fn find_places(&mut self, errors: &mut Vec<TemplateError>) {
        if self.literal().is_some() {
            return;
        }
        let mut symbols = Vec::new();
        for part in &self.parts {
            match part {
                Part::Literal(range) => {
                    symbols.extend(self.text[range.clone()].chars().map(Sym::Char))
                }
                Part::Gap(_) => symbols.push(Sym::Gap),
            }
        }
        let mut places = shell::places(&symbols).into_iter();
        for part in &mut self.parts {
            let Part::Gap(gap) = part else { continue };
            let place = places.next();
            if let (
                Some(Gap {
                    place: Place::Unsure(why),
                    ..
                }),
                false,
            ) = (&place, gap.raw)
            {
                errors.push(mistake(
                    format!(
                        "`{}` stands where its value cannot be escaped for certain",
                        gap.code
                    ),
                    gap.span.clone(),
                    *why,
                    Some("pass it through `env`, or write `| raw` to insert it as it is".into()),
                ));
            }
            if !gap.raw && is_quoted(&gap.code) {
                let message = "in shell text `quote` would quote a second time";
                let help = "values are escaped for the place where they stand: leave it out";
                errors.push(mistake(message, gap.span.clone(), "", Some(help.into())));
            }
            if let Some(gap) = Arc::get_mut(gap) {
                gap.place = place;
            }
        }
    }

    /// Moves all spans from the parsed text into the source.
    pub(super) fn place_in_source(&mut self, to_source: impl Fn(Range<usize>) -> Range<usize>) {
        for part in &mut self.parts {
            if let Part::Gap(gap) = part
                && let Some(gap) = Arc::get_mut(gap)
            {
                gap.span = to_source(gap.span.clone());
                for name in &mut gap.names {
                    name.span = to_source(name.span.clone());
                }
            }
        }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, if it has no gaps.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        let has_gap = self.parts.iter().any(|part| matches!(part, Part::Gap(_)));
        (!has_gap).then_some(&*self.text)
    }

    fn gaps(&self) -> impl Iterator<Item = &Interpolation> {
        self.parts.iter().filter_map(|part| match part {
            Part::Gap(gap) => Some(&**gap),
            Part::Literal(_) => None,
        })
    }

    /// The variables that its expressions use, in the order of their places.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.gaps().flat_map(|gap| &gap.names)
    }

    /// The first gap whose value would be escaped for a POSIX shell.
    pub(super) fn first_escaped(&self) -> Option<(&str, Range<usize>)> {
        self.gaps()
            .find(|gap| !gap.raw)
            .map(|gap| (gap.code.as_str(), gap.span.clone()))
    }

    /// Fills the gaps with the values as they are.
    ///
    /// # Errors
    /// [`RenderError`] for the first gap without a usable value.
    pub fn render(&self, scope: &Scope) -> Result<String, RenderError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(range) => out.push_str(&self.text[range.clone()]),
                Part::Gap(gap) => match gap.fill(scope)? {
                    Filled::One(value) => out.push_str(&value),
                    Filled::Many(_) => return Err(gap.not_text("a list")),
                },
            }
        }
        Ok(out)
    }

    /// Fills the gaps with values escaped for where they stand in POSIX shell text: the shell
    /// sees exactly the value, whatever it holds. A list becomes words.
    ///
    /// # Errors
    /// [`RenderError`] for the first gap without a usable value.
    pub fn render_shell(&self, scope: &Scope) -> Result<String, RenderError> {
        if self.gaps().any(|gap| gap.place.is_none()) {
            return self.as_shell()?.render_shell(scope);
        }
        let mut out = String::new();
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(range) => out.push_str(&self.text[range.clone()]),
                Part::Gap(gap) => {
                    let value = gap.fill(scope)?;
                    gap.escape(value, &mut out, self.rest_of_line(index + 1))?;
                }
            }
        }
        Ok(out)
    }

    fn as_shell(&self) -> Result<Self, RenderError> {
        Self::parse_all(&self.text, true).map_err(|errors| {
            let error = first(errors);
            RenderError {
                cause: RenderCause::Expression(error.message, error.label),
                span: error.span,
                help: error.help,
            }
        })
    }

    /// What follows up to the end of the line; `None` if another gap comes first.
    fn rest_of_line(&self, next: usize) -> Option<&str> {
        match self.parts.get(next) {
            None => Some(""),
            Some(Part::Gap(_)) => None,
            Some(Part::Literal(range)) => {
                let text = &self.text[range.clone()];
                match text.find('\n') {
                    Some(end) => Some(&text[..end]),
                    None if next + 1 == self.parts.len() => Some(text),
                    None => None,
                }
            }
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Template {}

impl Interpolation {
    fn error(&self, cause: RenderCause) -> RenderError {
        RenderError {
            cause,
            span: self.span.clone(),
            help: None,
        }
    }

    fn not_text(&self, noun: &'static str) -> RenderError {
        let mut error = self.error(RenderCause::NotText(self.code.clone(), noun));
        error.help = Some(match noun {
            "a list" => "join it: `| join(\" \")`".into(),
            _ => "name one of its entries, or write `| tojson`".into(),
        });
        error
    }

    fn failed(&self, error: &minijinja::Error) -> RenderError {
        let why = error
            .detail()
            .map_or_else(|| error.kind().to_string(), str::to_owned);
        self.error(RenderCause::Expression(self.code.clone(), why))
    }

    fn eval(&self, scope: &Scope) -> Result<Value, RenderError> {
        let context = Value::from_object(scope.names.clone());
        self.expression.eval(context).map_err(|error| {
            // A missing name is the cause, whatever the operation on it complains of.
            match error.kind() {
                minijinja::ErrorKind::UndefinedError => self.undefined(scope),
                _ => self.missing(scope).unwrap_or_else(|| self.failed(&error)),
            }
        })
    }

    fn value(&self, scope: &Scope) -> Result<serde_json::Value, RenderError> {
        let value = self.eval(scope)?;
        if value.is_undefined() {
            return Err(self.undefined(scope));
        }
        from_value(&value).ok_or_else(|| self.not_text("neither text nor a number"))
    }

    fn fill(&self, scope: &Scope) -> Result<Filled, RenderError> {
        let value = self.eval(scope)?;
        if let ValueKind::Seq | ValueKind::Iterable = value.kind() {
            let items = value.try_iter().map_err(|error| self.failed(&error))?;
            return Ok(Filled::Many(
                items
                    .map(|item| self.text(&item, scope))
                    .collect::<Result<_, _>>()?,
            ));
        }
        self.text(&value, scope).map(Filled::One)
    }

    fn text(&self, value: &Value, scope: &Scope) -> Result<String, RenderError> {
        let text = match value.kind() {
            ValueKind::Undefined => return Err(self.undefined(scope)),
            ValueKind::None => return Err(self.error(RenderCause::Null(self.code.clone()))),
            ValueKind::Bool => value.is_true().to_string(),
            ValueKind::Number | ValueKind::String => value.to_string(),
            ValueKind::Seq | ValueKind::Iterable => return Err(self.not_text("a list of lists")),
            ValueKind::Map => return Err(self.not_text("a mapping")),
            _ => return Err(self.not_text("neither text nor a number")),
        };
        if text.contains('\0') {
            return Err(self.error(RenderCause::Nul(self.code.clone())));
        }
        Ok(text)
    }

    fn undefined(&self, scope: &Scope) -> RenderError {
        self.missing(scope)
            .unwrap_or_else(|| self.error(RenderCause::Undefined(self.code.clone())))
    }

    /// Names what is missing, if a variable or an attribute is.
    fn missing(&self, scope: &Scope) -> Option<RenderError> {
        let needed = self.names.iter().filter(|name| !name.optional);
        let (name, path, help) = needed.filter_map(|name| scope.first_missing(name)).next()?;
        let mut error = self.error(RenderCause::Undefined(path));
        error.span = name.span.clone();
        error.help = help;
        Some(error)
    }

    fn escape(
        &self,
        value: Filled,
        out: &mut String,
        rest: Option<&str>,
    ) -> Result<(), RenderError> {
        let (value, words) = match value {
            Filled::One(value) => (value, None),
            Filled::Many(words) => (words.join(" "), Some(words)),
        };
        if self.raw {
            out.push_str(&value);
            return Ok(());
        }
        let Some(gap) = &self.place else {
            return Ok(());
        };
        if gap.one_line && value.contains('\n') {
            return Err(self.error(RenderCause::Newline(self.code.clone())));
        }
        match (&gap.place, words) {
            (Place::Bare { alone: true, quote }, Some(words)) => {
                let words: Vec<String> =
                    words.iter().map(|w| shell::bare(w, true, *quote)).collect();
                out.push_str(&words.join(" "));
            }
            (_, Some(_)) => return Err(self.not_text("a list")),
            (Place::Bare { alone, quote }, None) => {
                out.push_str(&shell::bare(&value, *alone, *quote))
            }
            (Place::Single, None) => out.push_str(&shell::single(&value)),
            (Place::Double { after_name }, None) => {
                out.push_str(&shell::double(&value, *after_name))
            }
            (Place::Comment, None) => out.push_str(&shell::comment(&value)),
            (
                Place::Heredoc {
                    delimiter,
                    tabs,
                    quoted,
                },
                None,
            ) => {
                let value = if *quoted {
                    value
                } else {
                    shell::heredoc(&value)
                };
                self.check_delimiter(&value, out, rest, delimiter, *tabs)?;
                out.push_str(&value);
            }
            (Place::Unsure(why), None) => {
                return Err(self.error(RenderCause::Unsure(self.code.clone(), why)));
            }
        }
        Ok(())
    }

    /// The shell compares whole lines, so what stands left and right of the value counts too.
    fn check_delimiter(
        &self,
        value: &str,
        out: &str,
        rest: Option<&str>,
        delimiter: &str,
        tabs: bool,
    ) -> Result<(), RenderError> {
        let before = out.rsplit('\n').next().unwrap_or("");
        let lines = format!("{before}{value}{}", rest.unwrap_or(""));
        let last = lines.matches('\n').count();
        for (index, line) in lines.split('\n').enumerate() {
            let complete = index < last || rest.is_some();
            let line = if tabs {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if complete && line == delimiter {
                let cause = RenderCause::Delimiter(self.code.clone(), delimiter.to_owned());
                return Err(self.error(cause));
            }
        }
        Ok(())
    }
}

fn first(mut errors: Vec<TemplateError>) -> TemplateError {
    if errors.is_empty() {
        return mistake("the template is empty", 0..0, "", None);
    }
    errors.swap_remove(0)
}

fn mistake(
    message: impl Into<String>,
    span: Range<usize>,
    label: impl Into<String>,
    help: Option<String>,
) -> TemplateError {
    TemplateError {
        message: message.into(),
        span,
        label: label.into(),
        help,
    }
}

/// Where `}}` closes what began before `from`. Quotes and nested braces are stepped over.
fn expression_end(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut braces = 0_usize;
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = string_end(bytes, at + 1, quote)?,
            b'{' => braces += 1,
            b'}' if braces > 0 => braces -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The closing quote of a string that began before `at`.
fn string_end(bytes: &[u8], mut at: usize, quote: u8) -> Option<usize> {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b if b == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn interpolation(inside: &str, span: Range<usize>) -> Result<Interpolation, TemplateError> {
    let (code, raw) = without_raw(inside.trim());
    if code.is_empty() {
        return Err(mistake(
            "nothing stands between `${{` and `}}`",
            span,
            "",
            None,
        ));
    }
    if code.len() > MAX_CODE {
        let message = format!("an expression of more than {MAX_CODE} bytes");
        return Err(mistake(message, span.start..span.start + 3, "", None));
    }
    if let Some(filter) = unknown_filter(code) {
        let at = inside.find(filter).map_or(span.clone(), |i| {
            span.start + 3 + i..span.start + 3 + i + filter.len()
        });
        let near = did_you_mean(filter, FILTERS).map(|near| format!("did you mean `{near}`?"));
        let help = match filter {
            "raw" => Some("`raw` must come last".into()),
            _ => near,
        };
        return Err(mistake(format!("unknown filter `{filter}`"), at, "", help));
    }
    let expression = ENVIRONMENT
        .compile_expression_owned(code.to_owned())
        .map_err(|error| {
            let why = error.detail().unwrap_or("syntax error").to_owned();
            mistake(
                format!("`{code}` is not an expression: {why}"),
                span.clone(),
                "",
                None,
            )
        })?;
    let names = names(&expression, inside, span.start + 3);
    Ok(Interpolation {
        names,
        expression,
        code: code.to_owned(),
        raw,
        span,
        place: None,
    })
}

/// `raw` concerns the whole gap, so it is taken off before the expression is compiled.
fn without_raw(code: &str) -> (&str, bool) {
    code.strip_suffix("raw")
        .and_then(|rest| rest.trim_end().strip_suffix('|'))
        .map_or((code, false), |rest| (rest.trim_end(), true))
}

/// Whether the last thing that happens to a value is the filter `quote`.
fn is_quoted(code: &str) -> bool {
    let last = code.rsplit('|').next().unwrap_or_default();
    last.trim() == "quote" && code.contains('|')
}

/// The code with its string literals blanked, so that names in them are not found.
fn blanked(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        if let quote @ (b'"' | b'\'') = bytes[at] {
            let end = string_end(&bytes, at + 1, quote).unwrap_or(bytes.len());
            bytes[at..end.min(code.len())].fill(b'"');
            at = end;
        }
        at += 1;
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn unknown_filter(code: &str) -> Option<&str> {
    let plain = blanked(code);
    let mut from = 0;
    while let Some(bar) = plain[from..].find('|').map(|i| from + i + 1) {
        let start = bar + plain[bar..].len() - plain[bar..].trim_start().len();
        let end = start
            + plain[start..]
                .find(|c: char| !is_word(c))
                .unwrap_or(plain.len() - start);
        let filter = code.get(start..end)?;
        if !filter.is_empty() && (!FILTERS.contains(&filter) || filter == "raw") {
            return Some(filter);
        }
        from = bar;
    }
    None
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn names(expression: &Expression<'_, '_>, inside: &str, offset: usize) -> Vec<Name> {
    let plain = blanked(inside);
    let words: Vec<&str> = plain
        .split(|c| !is_word(c))
        .filter(|w| !w.is_empty())
        .collect();
    let optional = words
        .iter()
        .any(|w| ["default", "d", "defined", "undefined"].contains(w));
    let mut names: Vec<Name> = expression
        .undeclared_variables(true)
        .into_iter()
        .filter(|path| !["range", "dict", "namespace", "debug"].contains(&path.as_str()))
        .map(|path| {
            let root = path.split('.').next().unwrap_or(&path);
            let (at, len) = match find_word(&plain, &path) {
                Some(at) => (at, path.len()),
                None => (find_word(&plain, root).unwrap_or(0), root.len()),
            };
            Name {
                span: offset + at..offset + at + len,
                path,
                optional,
            }
        })
        .collect();
    names.sort_by(|a, b| (a.span.start, &a.path).cmp(&(b.span.start, &b.path)));
    names
}

/// Where `word` stands in `text` as a whole name, not behind a dot.
fn find_word(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(|c| is_word(c) || c == '.') && !after.is_some_and(is_word)
    })
}
