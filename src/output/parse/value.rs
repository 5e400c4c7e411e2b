//! The text of one cell -> its value. A number that does not fit is refused, never cut.

use std::time::Duration;

use bytes::Bytes;

use crate::rows::{Type, Value};

/// A value, and whether it was read from a rounded number.
pub(super) type Read = (Value, bool);

/// What the suffix of a size stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kilo {
    /// `1K` is 1024.
    Binary,
    /// `1k` is 1000.
    Decimal,
}

/// Reads a cell of a typed column. Nothing and `-` are null in all but text.
///
/// # Errors
/// What would have fit.
pub(super) fn read(kind: Type, bytes: &[u8]) -> Result<Read, &'static str> {
    if kind == Type::Text {
        return Ok((Value::Text(Bytes::copy_from_slice(bytes)), false));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wanted(kind))?.trim();
    if matches!(text, "" | "-") {
        return Ok((Value::Null, false));
    }
    let exact = |value: Option<Value>| value.map(|value| (value, false)).ok_or(wanted(kind));
    match kind {
        Type::Text => exact(None),
        Type::Int => int(text).map(|n| (Value::Int(n), false)),
        Type::Float => exact(float(text).map(Value::Float)),
        Type::Bool => exact(yes_or_no(text).map(Value::Bool)),
        Type::Percent => {
            let number = text.strip_suffix('%').unwrap_or(text);
            exact(float(number.trim_end()).map(Value::Percent))
        }
        Type::Size => {
            let size = scaled(text, Kilo::Binary)?;
            Ok((Value::Size(size.number), size.suffixed))
        }
        Type::Duration => exact(duration(text).map(Value::Duration)),
        Type::Datetime => exact(time(text).map(Value::Time)),
    }
}

fn wanted(kind: Type) -> &'static str {
    match kind {
        Type::Text => "text",
        Type::Int => "a whole number is expected",
        Type::Float => "a number is expected",
        Type::Bool => "yes or no is expected",
        Type::Percent => "a percentage such as `94%` is expected",
        Type::Size => SIZE,
        Type::Duration => "a duration such as `1h30m`, `02:03:04` or seconds is expected",
        Type::Datetime => "a time in RFC 3339 with its zone, or seconds since 1970, is expected",
    }
}

const SIZE: &str = "a size such as `512`, `1.5G` or `10MiB` is expected";
/// Said of numbers that are too large.
pub(super) const TOO_LARGE: &str = "the number does not fit 64 bits";

/// What both signed and unsigned 64-bit numbers hold.
fn fits(n: i128) -> bool {
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&n)
}

pub(super) fn int(text: &str) -> Result<i128, &'static str> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wanted(Type::Int));
    }
    let number = text.parse::<i128>().ok().filter(|n| fits(*n));
    number.ok_or(TOO_LARGE)
}

/// Finite, in digits: `inf` and `nan` are words.
fn float(text: &str) -> Option<f64> {
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    (digits && plain)
        .then(|| text.parse::<f64>().ok())
        .flatten()
        .filter(|number| number.is_finite())
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// A number with what its suffix makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scaled {
    pub(super) number: i128,
    /// A suffix stood there, so the number was most likely rounded.
    pub(super) suffixed: bool,
}

/// `512`, `1.5G`, `1,5G` (the same in other locales), `10kB` (1000), `10KiB`, `-3M`.
///
/// # Errors
/// What would have fit.
pub(super) fn scaled(text: &str, kilo: Kilo) -> Result<Scaled, &'static str> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
        .unwrap_or(rest.len());
    let (digits, suffix) = rest.split_at(end);
    let factor = factor(suffix.trim_start(), kilo).ok_or(SIZE)?;
    let (whole, fraction) = match digits.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let point_is_right = digits.len() == whole.len() || !fraction.is_empty() && factor > 1;
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || !point_is_right {
        return Err(SIZE);
    }
    let number = product(whole, fraction, factor).ok_or(TOO_LARGE)?;
    let number = if negative { -number } else { number };
    Ok(Scaled {
        number: Some(number).filter(|n| fits(*n)).ok_or(TOO_LARGE)?,
        suffixed: factor > 1,
    })
}

/// `whole.fraction` times `factor`, rounded to the nearest.
fn product(whole: &str, fraction: &str, factor: i128) -> Option<i128> {
    // 20 digits hold every number of 64 bits; a fraction so long is below one byte.
    if whole.trim_start_matches('0').len() > 20 || fraction.len() > 12 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    Some((digits.checked_mul(factor)? + shift / 2) / shift)
}

fn factor(suffix: &str, kilo: Kilo) -> Option<i128> {
    let mut rest = suffix.chars();
    let Some(letter) = rest.next() else {
        return Some(1);
    };
    let power = match letter.to_ascii_uppercase() {
        'B' if rest.as_str().is_empty() => return Some(1),
        'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        'P' => 5,
        'E' => 6,
        'Z' => 7,
        'Y' => 8,
        _ => return None,
    };
    let base: i128 = match (rest.as_str(), kilo) {
        ("", Kilo::Binary) | ("i" | "iB", _) => 1024,
        ("", Kilo::Decimal) | ("B", _) => 1000,
        _ => return None,
    };
    Some(base.pow(power))
}

/// `2-03:04:05`, `04:05`, `1h30m`, `1min 30s`, `1.5`.
fn duration(text: &str) -> Option<Duration> {
    let seconds = if text.contains(':') {
        clock(text)?
    } else if let Some(seconds) = float(text) {
        seconds
    } else {
        units(text)?
    };
    Duration::try_from_secs_f64(seconds).ok()
}

/// ps(1), `etime`: `[[dd-]hh:]mm:ss`.
fn clock(text: &str) -> Option<f64> {
    let whole = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u32>().ok()).flatten()
    };
    let (days, time) = match text.split_once('-') {
        Some((days, time)) => (whole(days)?, time),
        None => (0, text),
    };
    let parts: Vec<&str> = time.split(':').collect();
    let (last, before) = parts.split_last()?;
    if before.is_empty() || before.len() > 2 {
        return None;
    }
    let mut minutes = 0.0;
    for part in before {
        minutes = minutes * 60.0 + f64::from(whole(part)?);
    }
    let seconds = float(last).filter(|s| (0.0..60.0).contains(s) && !last.starts_with('-'))?;
    Some(f64::from(days) * 86_400.0 + minutes * 60.0 + seconds)
}

fn units(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = rest[end..].trim_start();
        let end = after
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(after.len());
        let scale = match &after[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" | "hr" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        total += number * scale;
        rest = after[end..].trim_start();
    }
    Some(total)
}

fn time(text: &str) -> Option<jiff::Timestamp> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !plain {
        return text.parse().ok();
    }
    let nanos = format!("{fraction:0<9}");
    jiff::Timestamp::new(seconds.parse().ok()?, nanos.get(..9)?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(kind: Type, text: &str) -> Result<Value, &'static str> {
        read(kind, text.as_bytes()).map(|(value, _)| value)
    }

    #[test]
    fn sizes_are_exact_and_never_cut() {
        let size = |text| scaled(text, Kilo::Binary).map(|s| s.number);
        assert_eq!(size("1.5G"), Ok(3 << 29));
        assert_eq!(size("1,5G"), Ok(3 << 29));
        assert_eq!(size("2.9M"), Ok(3_040_870));
        assert_eq!(size("10 KiB"), Ok(10_240));
        assert_eq!(size("10kB"), Ok(10_000));
        assert_eq!(size("16E"), Err(TOO_LARGE));
        assert_eq!(size("18446744073709551615"), Ok(i128::from(u64::MAX)));
        assert_eq!(size("18446744073709551616"), Err(TOO_LARGE));
        assert_eq!(size("0000000000000000000000001"), Ok(1));
        assert_eq!(
            scaled("4.1k", Kilo::Decimal).map(|s| (s.number, s.suffixed)),
            Ok((4100, true))
        );
        let bad = [
            "",
            "G",
            "1.G",
            ".5G",
            "1.5",
            "1,5",
            "1.2.3G",
            "1,000,000",
            "1X",
            "1KX",
            "+1",
            "1.5B",
        ];
        for bad in bad {
            assert_eq!(size(bad), Err(SIZE), "{bad}");
        }
    }

    #[test]
    fn numbers_are_numbers_of_their_kind() {
        assert_eq!(one(Type::Int, "-42"), Ok(Value::Int(-42)));
        assert_eq!(one(Type::Int, "4.0"), Err(wanted(Type::Int)));
        assert_eq!(one(Type::Int, "99999999999999999999"), Err(TOO_LARGE));
        assert_eq!(one(Type::Int, "-9223372036854775809"), Err(TOO_LARGE));
        assert_eq!(one(Type::Float, "1e3"), Ok(Value::Float(1000.0)));
        for bad in ["nan", "inf", "1e999", "x", "e"] {
            assert!(one(Type::Float, bad).is_err(), "{bad}");
        }
        assert_eq!(one(Type::Percent, "94%"), Ok(Value::Percent(94.0)));
        assert_eq!(one(Type::Bool, "Yes"), Ok(Value::Bool(true)));
        assert!(one(Type::Bool, "2").is_err());
        assert_eq!(one(Type::Size, "-"), Ok(Value::Null));
        assert_eq!(read(Type::Int, b"\xff"), Err(wanted(Type::Int)));
    }

    #[test]
    fn times_and_durations() {
        let seconds = |text| match one(Type::Duration, text) {
            Ok(Value::Duration(time)) => Some(time.as_secs_f64()),
            _ => None,
        };
        assert_eq!(seconds("2-03:04:05"), Some(183_845.0));
        assert_eq!(seconds("05:40:33"), Some(20_433.0));
        assert_eq!(seconds("1min 30s"), Some(90.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("1.5"), Some(1.5));
        for bad in ["1:2:3:4", "1:75", "5 apples", "-3", ":", "1::2"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let text = |text| one(Type::Datetime, text).map(|value| value.json());
        assert_eq!(
            text("2026-11-21T19:04:11+01:00"),
            Ok("2026-11-21T18:04:11Z".into())
        );
        assert_eq!(text("0"), Ok("1970-01-01T00:00:00Z".into()));
        assert_eq!(text("1.5"), Ok("1970-01-01T00:00:01.5Z".into()));
        assert!(text("2026-11-21 18:04:11").is_err(), "no zone");
        assert!(text("999999999999999999").is_err());
    }
}
