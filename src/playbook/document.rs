//! A file that is filled in and uploaded (`upload` with `template: true`): ordinary Jinja, with the
//! variables that `${{ }}` has.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior, Value};

use super::template::Scope;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    super::filters::add(&mut environment);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
});

/// A file with gaps.
#[derive(Debug, Clone)]
pub struct Document {
    name: String,
    text: String,
    needed: Vec<String>,
}

impl Document {
    /// Reads Jinja. `name` is for messages.
    ///
    /// # Errors
    /// One line that says where the text is no Jinja.
    pub fn parse(name: &str, text: String) -> Result<Self, String> {
        let template = ENVIRONMENT
            .template_from_named_str(name, &text)
            .map_err(|error| told(&error))?;
        let mut needed: BTreeSet<String> =
            template.undeclared_variables(false).into_iter().collect();
        // `range` and its like are the language's own.
        needed.retain(|name| !ENVIRONMENT.globals().any(|(global, _)| global == name));
        needed.retain(|name| !may_be_missing(&text, name));
        Ok(Self {
            name: name.to_owned(),
            needed: needed.into_iter().collect(),
            text,
        })
    }

    /// Its name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variables without which it cannot be filled in.
    pub fn needed(&self) -> impl Iterator<Item = &str> {
        self.needed.iter().map(String::as_str)
    }

    /// Fills it in.
    ///
    /// # Errors
    /// One line: which value was missing or of the wrong kind, and where.
    pub fn render(&self, scope: &Scope) -> Result<String, String> {
        let context: Value = scope.as_value();
        let filled = ENVIRONMENT.render_named_str(&self.name, &self.text, context);
        let mut filled = filled.map_err(|error| told(&error))?;
        // Jinja takes the last newline of a file away; a file of configuration needs it.
        if self.text.ends_with('\n') {
            filled.push('\n');
        }
        Ok(filled)
    }
}

/// Whether the text says itself what to do without a variable.
fn may_be_missing(text: &str, name: &str) -> bool {
    let code = format!(
        r"\b{}\b[\w.]*\s*(is\s+(not\s+)?(un)?defined|\|\s*(default|d)\b)",
        regex::escape(name)
    );
    regex::Regex::new(&code).is_ok_and(|guard| guard.is_match(text))
}

fn told(error: &minijinja::Error) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match (error.name(), error.line()) {
        (Some(name), Some(line)) => format!("{name}:{line}: {what}"),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let mut scope = Scope::default();
        scope.set("port", json!(8080));
        scope.set("names", json!(["a", "b"]));
        scope
    }

    #[test]
    fn ordinary_jinja_and_its_last_newline() {
        let text = "listen {{ port }};\n{% for n in names %}{{ n }}${HOME}\n{% endfor %}";
        let document = Document::parse("x.conf", text.into()).unwrap();
        let filled = document.render(&scope()).unwrap();
        assert_eq!(filled, "listen 8080;\na${HOME}\nb${HOME}\n");
        assert_eq!(document.needed().collect::<Vec<_>>(), ["names", "port"]);
    }

    #[test]
    fn values_are_not_read_as_a_template_nor_escaped() {
        let mut scope = scope();
        scope.set("evil", json!("{{ port }} <&>"));
        let document = Document::parse("x.html", "{{ evil }}".into()).unwrap();
        assert_eq!(document.render(&scope).unwrap(), "{{ port }} <&>");
    }

    #[test]
    fn what_is_guarded_is_not_needed() {
        let text = "{% if extra is defined %}{{ extra }}{% endif %}{{ more | default(1) }}";
        let document = Document::parse("x", text.into()).unwrap();
        assert_eq!(document.needed().count(), 0);
        assert_eq!(document.render(&scope()).unwrap(), "1");
    }

    #[test]
    fn mistakes_name_the_file_and_line() {
        let error = Document::parse("a.conf", "x\n{{ port".into()).unwrap_err();
        assert!(error.starts_with("a.conf:2: "), "{error}");
        let document = Document::parse("a.conf", "x\n\n{{ nobody }}".into()).unwrap();
        let error = document.render(&scope()).unwrap_err();
        assert!(error.starts_with("a.conf:3: "), "{error}");
    }
}
