//! Filters of expressions beside minijinja's own: sizes, times, words for shells, bytes, paths, and
//! sums over rows.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use sha2::{Digest as _, Sha256};

use super::template::to_value;
use super::units;
use crate::text;

/// Makes all of them known.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("size", size);
    environment.add_filter("human_size", human_size);
    environment.add_filter("duration", duration);
    environment.add_filter("human_duration", human_duration);
    environment.add_filter("quote", quote);
    environment.add_filter("regex_escape", |text: &str| regex::escape(text));
    environment.add_filter("json", minijinja::filters::tojson);
    environment.add_filter("from_json", from_json);
    environment.add_filter("b64encode", |text: &str| STANDARD.encode(text));
    environment.add_filter("b64decode", b64decode);
    environment.add_filter("sha256", sha256);
    environment.add_filter("basename", basename);
    environment.add_filter("dirname", dirname);
    environment.add_filter("sum", sum);
    environment.add_filter("min", min);
    environment.add_filter("max", max);
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// As people read it in an error: short, and nothing that a terminal would obey.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    format!("`{}`", text::fit(&text::printable(text.as_bytes()), 60))
}

/// `"10MiB"` in bytes; a number is in bytes already.
fn size(value: &Value) -> Result<u64, Error> {
    if let Ok(bytes) = u64::try_from(value.clone()) {
        return Ok(bytes);
    }
    let text = value
        .as_str()
        .ok_or_else(|| wrong(format!("{} is no size", shown(value))))?;
    units::size(text).map_err(|bad| wrong(format!("{}: {bad}", shown(value))))
}

fn human_size(value: &Value) -> Result<String, Error> {
    Ok(text::size(size(value)?))
}

/// `"5m"` in seconds; a number is in seconds already.
fn duration(value: &Value) -> Result<f64, Error> {
    if value.kind() == ValueKind::Number {
        return f64::try_from(value.clone());
    }
    let text = value
        .as_str()
        .ok_or_else(|| wrong(format!("{} is no duration", shown(value))))?;
    let time = units::duration(text).map_err(|bad| wrong(format!("{}: {bad}", shown(value))))?;
    Ok(time.as_secs_f64())
}

fn human_duration(value: &Value) -> Result<String, Error> {
    let time = Duration::try_from_secs_f64(duration(value)?);
    let time = time.map_err(|_| wrong(format!("{} is no duration", shown(value))))?;
    Ok(text::duration(time))
}

/// A word, or a list of words, for a POSIX shell; for texts that no shell text is made of here.
fn quote(value: &Value) -> Result<String, Error> {
    let word = |value: &Value| format!("'{}'", value.to_string().replace('\'', r"'\''"));
    Ok(match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let words: Vec<String> = value.try_iter()?.map(|item| word(&item)).collect();
            words.join(" ")
        }
        _ => word(value),
    })
}

fn from_json(text: &str) -> Result<Value, Error> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("this is no JSON: {error}")))?;
    Ok(to_value(value))
}

fn b64decode(value: &Value) -> Result<String, Error> {
    let text = value.to_string();
    let bytes = STANDARD.decode(text.trim());
    let bytes = bytes.map_err(|error| wrong(format!("{} is no base64: {error}", shown(value))))?;
    String::from_utf8(bytes).map_err(|_| wrong("what was decoded is not UTF-8 text"))
}

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// basename(1), without a suffix.
fn basename(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// dirname(1).
fn dirname(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((folder, _)) => folder.trim_end_matches('/').to_owned(),
        None if trimmed.is_empty() && path.starts_with('/') => "/".to_owned(),
        None => ".".to_owned(),
    }
}

/// `rows | sum("used")`, `[1, 2] | sum`. Whole numbers stay whole; what is null is left out.
fn sum(value: &Value, attribute: Option<&str>, options: Kwargs) -> Result<Value, Error> {
    let (mut whole, mut rest) = (0_i128, 0.0);
    let mut is_whole = true;
    for item in numbers(value, attribute, options)? {
        match i128::try_from(item.clone()) {
            Ok(number) if item.is_integer() => {
                let sum = whole.checked_add(number);
                whole = sum.ok_or_else(|| wrong("the sum is too large"))?;
            }
            _ => {
                is_whole = false;
                rest += f64::try_from(item)?;
            }
        }
    }
    Ok(if is_whole {
        Value::from(whole)
    } else {
        Value::from(whole as f64 + rest)
    })
}

fn min(value: &Value, attribute: Option<&str>, options: Kwargs) -> Result<Value, Error> {
    let items = picked(value, attribute, options)?;
    Ok(items.into_iter().min().unwrap_or_default())
}

fn max(value: &Value, attribute: Option<&str>, options: Kwargs) -> Result<Value, Error> {
    let items = picked(value, attribute, options)?;
    Ok(items.into_iter().max().unwrap_or_default())
}

fn numbers(value: &Value, attribute: Option<&str>, options: Kwargs) -> Result<Vec<Value>, Error> {
    let items = picked(value, attribute, options)?;
    match items.iter().find(|item| item.kind() != ValueKind::Number) {
        Some(other) => Err(wrong(format!("{} is no number", shown(other)))),
        None => Ok(items),
    }
}

/// The items, or what each has under a name; without nulls.
fn picked(value: &Value, attribute: Option<&str>, options: Kwargs) -> Result<Vec<Value>, Error> {
    let named: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let attribute = attribute.map(str::to_owned).or(named);
    let mut found = Vec::new();
    for item in value.try_iter()? {
        let picked = match &attribute {
            None => item,
            Some(name) => match item.get_attr(name)? {
                missing if missing.is_undefined() => {
                    return Err(wrong(format!("{} has no `{name}`", shown(&item))));
                }
                found => found,
            },
        };
        if !picked.is_none() {
            found.push(picked);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn evaluated(expression: &str) -> Result<String, String> {
        let mut environment = Environment::new();
        add(&mut environment);
        let rows = vec![
            context! { mount => "/", used => 3_000_000_000_000_u64, share => 0.5, none => () },
            context! { mount => "/srv", used => 7, share => 2, none => 1 },
        ];
        let value = environment.compile_expression(expression).unwrap();
        let value = value.eval(context! { rows });
        value
            .map(|value| value.to_string())
            .map_err(|error| error.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn values_in_and_out() {
        for (expression, wanted) in [
            ("'10MiB' | size", "10485760"),
            ("512 | size", "512"),
            ("1288490189 | human_size", "1.2 GiB"),
            ("'1h30m' | duration", "5400.0"),
            ("90 | human_duration", "1m30s"),
            ("\"it's\" | quote", r"'it'\''s'"),
            ("['a b', 'c'] | quote", "'a b' 'c'"),
            ("'a.b*' | regex_escape", r"a\.b\*"),
            ("('{\"a\": [1]}' | from_json).a[0]", "1"),
            ("[1, 'x'] | json", "[1, \"x\"]"),
            ("'secret' | b64encode", "c2VjcmV0"),
            ("'c2VjcmV0\n' | b64decode", "secret"),
            (
                "'' | sha256",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            ("'/srv/app/' | basename", "app"),
            ("'/srv/app/' | dirname", "/srv"),
            ("'/srv' | dirname", "/"),
            ("'/' | dirname", "/"),
            ("'app' | dirname", "."),
            ("rows | sum('used')", "3000000000007"),
            ("rows | sum(attribute='share')", "2.5"),
            ("rows | sum('none')", "1"),
            ("[1, 2, 3] | sum", "6"),
            ("[] | sum", "0"),
            ("rows | max('used')", "3000000000000"),
            ("rows | min('mount')", "/"),
            ("[4, 2] | max", "4"),
            ("rows | map(attribute='mount') | join(', ')", "/, /srv"),
            ("(rows | sort(attribute='used') | first).mount", "/srv"),
            (
                "(rows | selectattr('used', 'gt', 100) | list | length)",
                "1",
            ),
        ] {
            assert_eq!(evaluated(expression).as_deref(), Ok(wanted), "{expression}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (expression, wanted) in [
            ("'10' | size", "`10`: "),
            ("[1] | size", "`[1]` is no size"),
            ("'soon' | duration", "`soon`: "),
            ("-1 | human_duration", "`-1` is no duration"),
            ("'{' | from_json", "this is no JSON: "),
            ("'!' | b64decode", "`!` is no base64: "),
            ("rows | sum('mount')", "`/` is no number"),
            ("rows | sum('usd')", "has no `usd`"),
        ] {
            let said = evaluated(expression).unwrap_err();
            assert!(said.contains(wanted), "{expression}: {said}");
        }
    }
}
