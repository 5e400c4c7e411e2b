//! What the values of keywords must look like. ssh checks every line, whether it applies to a
//! host or not, and so do we: a mistake shows on the day it is made.
//!
//! Names of ciphers and other algorithms are not checked, since which there are depends on the
//! release of ssh.

use std::time::Duration;

use super::StrictHostKeyChecking;
use super::keywords::Value;

/// Whether these words may be the value.
pub(super) fn check(value: Value, words: &[String]) -> Result<(), String> {
    let most = match value {
        Value::Words | Value::WordsOrNone | Value::SendEnv | Value::SetEnv => usize::MAX,
        Value::Rest => return Ok(()),
        Value::UpTo(most) | Value::TimeOr(_, most) => most,
        Value::Forward { .. } => 2,
        _ => 1,
    };
    let Some(first) = words.first() else {
        return Err("it has no value".to_owned());
    };
    if words.iter().any(String::is_empty) {
        return Err("a value is empty".to_owned());
    }
    if words.len() > most {
        return Err(format!("`{}` is too much", words[most..].join(" ")));
    }
    match value {
        Value::Choice(choices) if !choices.iter().any(|c| c.eq_ignore_ascii_case(first)) => {
            Err(format!("`{first}` is none of {}", choices.join(", ")))
        }
        Value::Time if first != "none" && seconds(first).is_none() => {
            Err(format!("`{first}` is no time"))
        }
        Value::TimeOr(choices, _) => {
            let bad = |word: &str| {
                let named = choices.iter().any(|c| c.eq_ignore_ascii_case(word));
                !named && seconds(word).is_none()
            };
            refuse(words, bad, "is no time and no choice")
        }
        Value::Number if number(first).is_none() => Err(format!("`{first}` is no number")),
        Value::Port if port(first).is_none() => Err(format!("`{first}` is no port")),
        Value::WordsOrNone if words.len() > 1 && words.iter().any(|w| is_none(w)) => {
            Err("`none` stands alone".to_owned())
        }
        Value::Agent => agent(first),
        Value::Forward { target } => forward(words, target),
        Value::SendEnv => refuse(words, |word| word.contains('='), "is no name of a variable"),
        Value::SetEnv => refuse(words, |word| !word.contains('='), "is not `NAME=value`"),
        Value::Escape if !is_escape(first) => Err(format!("`{first}` is no escape character")),
        Value::Mask if u32::from_str_radix(first, 8).is_ok_and(|mask| mask <= 0o777) => Ok(()),
        Value::Mask => Err(format!("`{first}` is no mask")),
        _ => Ok(()),
    }
}

fn refuse(words: &[String], bad: impl Fn(&str) -> bool, why: &str) -> Result<(), String> {
    match words.iter().find(|word| bad(word)) {
        Some(word) => Err(format!("`{word}` {why}")),
        None => Ok(()),
    }
}

/// `none`, in any case.
pub(super) fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none")
}

fn is_escape(text: &str) -> bool {
    match text.as_bytes() {
        [_] => true,
        [b'^', letter] => (64..128).contains(letter),
        _ => text == "none",
    }
}

fn agent(text: &str) -> Result<(), String> {
    let name = |name: &str| {
        let mut bytes = name.bytes();
        let first = bytes.next();
        first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    super::expand::variables(text)?;
    match text.strip_prefix('$') {
        Some(rest) if !rest.starts_with('{') && !name(rest) => {
            Err(format!("`{text}` is no name of a variable"))
        }
        _ => Ok(()),
    }
}

/// `[bind:]port` or a path, and for some a target: `host:port` or a path (`parse_forward` of
/// readconf.c, without its bracketed corners).
fn forward(words: &[String], needs_target: bool) -> Result<(), String> {
    let port = |text: &str, least: u16| {
        let last = text.rsplit(':').next().unwrap_or_default();
        last.parse().is_ok_and(|port: u16| port >= least) || text.contains('/')
    };
    let (listen, target) = (words.first(), words.get(1));
    match (listen, target) {
        (Some(listen), _) if !port(listen, 0) => Err(format!("`{listen}` is no port to listen on")),
        (_, Some(target)) if !(target.contains([':', '/']) && port(target, 1)) => {
            Err(format!("`{target}` is no `host:port`"))
        }
        (_, None) if needs_target => Err("it has no target".to_owned()),
        _ => Ok(()),
    }
}

/// A decimal number as `strtonum` reads it.
fn number(text: &str) -> Option<i32> {
    text.trim_start()
        .parse()
        .ok()
        .filter(|number: &i32| *number >= 0)
}

/// `a2port` (misc.c): a number, or the name of a service.
pub(super) fn port(text: &str) -> Option<u16> {
    let port = match number(text) {
        Some(number) => u16::try_from(number).ok(),
        None => service(text),
    };
    port.filter(|port| *port > 0)
}

fn service(name: &str) -> Option<u16> {
    let known = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let find = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        let is_meant = first == name || words.any(|alias| alias == name);
        is_meant.then(|| port.parse().ok()).flatten()
    };
    known.lines().find_map(find)
}

/// Of a value that [`check`] has let through.
pub(super) fn flag(text: &str) -> bool {
    ["yes", "true"]
        .iter()
        .any(|yes| yes.eq_ignore_ascii_case(text))
}

/// Of a value that [`check`] has let through.
pub(super) fn checking(text: &str) -> StrictHostKeyChecking {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => StrictHostKeyChecking::Yes,
        "accept-new" => StrictHostKeyChecking::AcceptNew,
        "no" | "false" | "off" => StrictHostKeyChecking::Off,
        _ => StrictHostKeyChecking::Ask,
    }
}

/// `convtime` (misc.c): seconds, or numbers with units such as `1m30s`.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut number = String::new();
    for c in text.chars() {
        let unit = match c.to_ascii_lowercase() {
            digit if digit.is_ascii_digit() => {
                number.push(digit);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let count: u64 = std::mem::take(&mut number).parse().ok()?;
        total = total.checked_add(count.checked_mul(unit)?)?;
    }
    if !number.is_empty() {
        total = total.checked_add(number.parse().ok()?)?;
    }
    let fits = !text.is_empty() && i32::try_from(total).is_ok();
    fits.then(|| Duration::from_secs(total))
}
