//! Values that are made while a run goes on: bare expressions, and values with expressions in them.
//!
//! What an expression gives is data from then on; it is never read as a template again.

use std::fmt;
use std::ops::Range;

use serde_json::Value as Json;

use super::template::{Name, RenderError, Scope, Template, TemplateError};

/// An expression that is true or false: `when`, `assert`, `changed_when`, `retry.until`.
#[derive(Clone, PartialEq, Eq)]
pub struct Condition(Template);

/// Why a condition is neither true nor false.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// The expression has no value.
    #[error("{0}")]
    Render(#[from] RenderError),
    /// It has one of another kind. Text is never taken for true or false: `"false"` would be true.
    #[error("`{code}` is {found}, neither true nor false; compare it with something")]
    NotABool {
        /// The expression.
        code: String,
        /// What it is.
        found: &'static str,
    },
}

impl Condition {
    /// Parses a bare expression.
    ///
    /// # Errors
    /// The first mistake; its span is in `code`.
    pub fn parse(code: &str) -> Result<Self, TemplateError> {
        Template::parse_expression(code).map(Self)
    }

    /// `true` or `false`, as it was written in YAML.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// The variables that it uses.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.names()
    }

    /// The template that stands behind it, to look its names up.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.0
    }

    /// Whether it is true.
    ///
    /// # Errors
    /// [`ConditionError`] where it has no value, or one that is neither true nor false.
    pub fn holds(&self, scope: &Scope) -> Result<bool, ConditionError> {
        let found = match self.0.value(scope) {
            Some(value) => value?,
            None => Json::Null,
        };
        let not = |found| {
            Err(ConditionError::NotABool {
                code: self.text().trim().to_owned(),
                found,
            })
        };
        match found {
            Json::Bool(holds) => Ok(holds),
            Json::Null => not("null"),
            Json::Number(_) => not("a number"),
            Json::String(_) => not("text"),
            Json::Array(_) => not("a list"),
            Json::Object(_) => not("a mapping"),
        }
    }

    pub(super) fn place_in_source(&mut self, to_source: impl Fn(Range<usize>) -> Range<usize>) {
        self.0.place_in_source(to_source);
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text()).finish()
    }
}

/// A value of `set` or `loop`: plain, or with expressions to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filling {
    /// As it is.
    Plain(Json),
    /// A bare expression, or text that is one `${{ }}` and nothing else: the value keeps its kind.
    /// Other text becomes text.
    Text(Template),
    /// A list of values.
    List(Vec<Filling>),
    /// A mapping.
    Map(Vec<(String, Filling)>),
}

impl Filling {
    /// The value now.
    ///
    /// # Errors
    /// [`RenderError`] for the first part that has none.
    pub fn value(&self, scope: &Scope) -> Result<Json, RenderError> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => match template.value(scope) {
                Some(value) => value?,
                None => Json::String(template.render(scope)?),
            },
            Self::List(items) => items
                .iter()
                .map(|item| item.value(scope))
                .collect::<Result<_, _>>()?,
            Self::Map(entries) => entries
                .iter()
                .map(|(key, value)| Ok((key.clone(), value.value(scope)?)))
                .collect::<Result<_, RenderError>>()?,
        })
    }

    /// Every text in it that may use variables.
    #[must_use]
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Text(template) => vec![template],
            Self::List(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(_, v)| v.templates()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let vars = json!({"n": 3, "yes": true, "word": "false", "list": [1, 2], "none": null});
        let Json::Object(vars) = vars else {
            panic!("a mapping");
        };
        Scope::new(vars.into_iter().collect())
    }

    fn holds(code: &str) -> Result<bool, String> {
        let condition = Condition::parse(code).map_err(|error| error.to_string())?;
        condition.holds(&scope()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_condition_is_true_or_false_and_nothing_is_taken_for_either() {
        assert_eq!(holds("n == 3 and yes"), Ok(true));
        assert_eq!(holds("not yes"), Ok(false));
        assert_eq!(holds("{'a': {'b': n}}.a.b > 2"), Ok(true));
        assert_eq!(holds("4 in list"), Ok(false));
        assert_eq!(holds("other is defined"), Ok(false));
        for (code, found) in [("word", "text"), ("n", "a number"), ("list", "a list")] {
            let wanted =
                format!("`{code}` is {found}, neither true nor false; compare it with something");
            assert_eq!(holds(code), Err(wanted));
        }
        assert_eq!(holds("othr == 1"), Err("`othr` is not defined".to_owned()));
        assert!(holds("${{ yes }}").unwrap_err().contains("without"));
        assert!(
            holds("yes }} or ${ no")
                .unwrap_err()
                .contains("not an expression")
        );
        assert!(holds("yes and").unwrap_err().contains("not an expression"));
    }

    #[test]
    fn a_value_that_is_one_expression_keeps_its_kind_and_is_not_filled_again() {
        let fill = |text: &str| {
            let template = Template::parse(text).unwrap();
            Filling::Text(template).value(&scope()).unwrap()
        };
        assert_eq!(fill("${{ list }}"), json!([1, 2]));
        assert_eq!(fill("n is ${{ n }}"), json!("n is 3"));
        assert_eq!(fill("${{ '${{ n }}' }}"), json!("${{ n }}"));
        let list = Filling::List(vec![
            Filling::Plain(json!("${{ n }}")),
            Filling::Map(vec![("a".into(), Filling::Plain(json!(1)))]),
        ]);
        assert_eq!(list.value(&scope()).unwrap(), json!(["${{ n }}", {"a": 1}]));
    }

    #[test]
    fn names_of_a_condition_stand_where_they_were_written() {
        let condition = Condition::parse("a.b == c").unwrap();
        let names: Vec<_> = condition
            .names()
            .map(|n| (n.path.as_str(), n.span.clone()))
            .collect();
        assert_eq!(names, [("a.b", 0..3), ("c", 7..8)]);
    }
}
