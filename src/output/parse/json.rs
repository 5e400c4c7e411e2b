//! JSON texts: the whole output, or one on each line. Whole numbers beyond 64 bits are refused;
//! serde_json alone would round them to floating point.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value as Json;

use super::{MAX_COLUMNS, Misfit, misfit, too_many, typed};
use crate::rows::{Row, Type, Value};

/// The largest output that is read as one JSON text.
pub(super) const MAX_TEXT: usize = 16 << 20;
/// The most commas in it. A value takes at least 32 bytes of memory, and two of text.
const MAX_COMMAS: usize = 1_000_000;

/// Output that is one JSON text.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    path: Vec<String>,
    types: Arc<[(String, Type)]>,
    text: Vec<u8>,
}

impl Whole {
    pub(super) fn new(path: &[String], types: &Arc<[(String, Type)]>) -> Self {
        Self {
            path: path.to_vec(),
            types: Arc::clone(types),
            text: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), Misfit> {
        if self.text.len() + line.len() >= MAX_TEXT {
            let expected = format!("at most {} MiB are read as one JSON text", MAX_TEXT >> 20);
            return Err(misfit(0..line.len(), expected).fatal());
        }
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        Ok(())
    }

    pub(super) fn finish(&mut self, rows: &mut Vec<Row>) -> Result<(), Misfit> {
        let text = std::mem::take(&mut self.text);
        if memchr::memchr_iter(b',', &text).count() > MAX_COMMAS {
            let expected = format!("at most {MAX_COMMAS} values are read as one JSON text");
            return Err(misfit(0..0, expected).at(0));
        }
        let json = parse(&text).map_err(|bad| in_line(&text, bad))?;
        let mut found = &json;
        for step in &self.path {
            let next = match found {
                Json::Array(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
                Json::Object(map) => map.get(step),
                _ => None,
            };
            found = next.ok_or_else(|| {
                let expected =
                    format!("`{step}` of the path `{}` is expected", self.path.join("."));
                misfit(0..0, expected).at(0)
            })?;
        }
        let items = match found {
            Json::Array(items) => &items[..],
            one => std::slice::from_ref(one),
        };
        for item in items {
            rows.push(row(item, &self.types).map_err(|why| misfit(0..0, why).at(0))?);
        }
        Ok(())
    }
}

/// A line that is a JSON text.
pub(super) fn line(line: &[u8], types: &[(String, Type)]) -> Result<Row, Misfit> {
    let json = parse(line)?;
    row(&json, types).map_err(|why| misfit(0..line.len(), why))
}

fn parse(text: &[u8]) -> Result<Json, Misfit> {
    let json = serde_json::from_slice(text).map_err(|error| {
        let before = text.split_inclusive(|byte| *byte == b'\n');
        let above: usize = before
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        let at = (above + error.column().saturating_sub(1)).min(text.len());
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        misfit(
            at..(at + 1).min(text.len()),
            format!("JSON is expected: {reason}"),
        )
    })?;
    match large_number(text) {
        Some(span) => Err(misfit(span, super::value::TOO_LARGE)),
        None => Ok(json),
    }
}

/// A misfit of a text becomes one of the line it is on.
fn in_line(text: &[u8], bad: Misfit) -> Misfit {
    let at = bad.span.start.min(text.len());
    // The end of the text is the end of its last line.
    let at = if at == text.len() {
        at.saturating_sub(1)
    } else {
        at
    };
    let start = memchr::memrchr(b'\n', &text[..at]).map_or(0, |at| at + 1);
    let end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at);
    let number = 1 + memchr::memchr_iter(b'\n', &text[..start]).count();
    let span = at - start..bad.span.end.clamp(at, end.max(at)) - start;
    misfit(span, bad.expected)
        .on(text[start..end].to_vec())
        .at(u64::try_from(number).unwrap_or(u64::MAX))
}

/// A whole number that does not fit 64 bits, in text that is JSON.
fn large_number(text: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = string_end(text, at + 1),
            b'-' | b'0'..=b'9' => {
                let length = text[at..].iter().take_while(|b| {
                    b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E')
                });
                let span = at..at + length.count();
                at = span.end;
                let number = std::str::from_utf8(&text[span.clone()]).unwrap_or_default();
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && super::value::int(number).is_err() {
                    return Some(span);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// Behind the string that began before `at`.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// An object's entries are columns; anything else is a column `value`.
fn row(json: &Json, types: &[(String, Type)]) -> Result<Row, String> {
    let mut row = Row::default();
    let mut put = |name: &str, json: &Json| {
        let (value, rounded) = cell(name, json, types).map_err(|why| format!("`{name}`: {why}"))?;
        row.approximate |= rounded;
        row.cells.push((name.into(), value));
        Ok::<(), String>(())
    };
    match json {
        Json::Object(map) if map.len() > MAX_COLUMNS => return Err(too_many()),
        Json::Object(map) => map.iter().try_for_each(|(name, json)| put(name, json))?,
        other => put("value", other)?,
    }
    Ok(row)
}

fn cell(name: &str, json: &Json, types: &[(String, Type)]) -> Result<(Value, bool), String> {
    let is_typed = types.iter().any(|(typed, _)| typed == name);
    let plain = match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) if is_typed => {
            return typed(types, name, number.to_string().as_bytes());
        }
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => Value::Int(n.into()),
            (None, Some(n)) => Value::Int(n.into()),
            (None, None) => Value::Float(number.as_f64().ok_or("a number is expected")?),
        },
        Json::String(text) if is_typed => return typed(types, name, text.as_bytes()),
        Json::String(text) => Value::Text(Bytes::copy_from_slice(text.as_bytes())),
        Json::Array(_) | Json::Object(_) => Value::Nested(json.clone()),
    };
    Ok((plain, false))
}
