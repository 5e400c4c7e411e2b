//! Durations and sizes as people write them: a number never goes without its unit.

use std::time::Duration;

/// The longest duration that can be written. Longer ones are typing mistakes, and deadlines
/// computed from them could overflow.
const MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a duration or a size was refused. The text is a fragment that follows the written value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// Nothing was written.
    #[error("is empty")]
    Empty,
    /// A bare number; the likely meaning with its unit.
    #[error("has no unit")]
    NoUnit(String),
    /// Not a number followed by a known unit.
    #[error("is not {0}")]
    Malformed(&'static str),
    /// Beyond what fanrun can count.
    #[error("is too large")]
    TooLarge,
}

impl BadQuantity {
    /// How to mend it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoUnit(likely) => Some(format!("did you mean `{likely}`?")),
            Self::Malformed("a time") => {
                Some("write it like `2d`, `2026-11-01` or `2026-11-01T08:00:00Z`".into())
            }
            Self::Malformed("a size") => Some("write it like `512KiB`, `10MiB` or `2GB`".into()),
            Self::Malformed(_) | Self::Empty => {
                Some("write it like `500ms`, `30s`, `5m`, `1h30m` or `2d`".into())
            }
            Self::TooLarge => None,
        }
    }
}

/// `500ms`, `30s`, `1.5m`, `1h30m`, `2d`: units fall from left to right, each at most once.
///
/// # Errors
/// [`BadQuantity`] for a missing unit, anything else, or more than 366 days.
pub fn duration(text: &str) -> Result<Duration, BadQuantity> {
    match lasting(text)? {
        time if time <= MAX => Ok(time),
        _ => Err(BadQuantity::TooLarge),
    }
}

/// A duration of any length.
fn lasting(text: &str) -> Result<Duration, BadQuantity> {
    let malformed = BadQuantity::Malformed("a duration");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(BadQuantity::Empty);
    }
    let mut total = 0.0_f64;
    let mut before = f64::INFINITY;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(|| malformed.clone())?;
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let seconds = match &after[..end] {
            "" if before.is_infinite() && after.is_empty() => {
                return Err(BadQuantity::NoUnit(format!("{}s", text.trim())));
            }
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(malformed),
        };
        if seconds >= before {
            return Err(malformed);
        }
        before = seconds;
        total += number * seconds;
        rest = &after[end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| BadQuantity::TooLarge)
}

/// A point in time, in seconds since 1970: `2d` (so long before `now`), `2026-11-01` (midnight in
/// UTC), or RFC 3339 with its zone.
///
/// # Errors
/// [`BadQuantity::Malformed`].
pub fn moment(text: &str, now: i64) -> Result<i64, BadQuantity> {
    let text = text.trim();
    if let Ok(ago) = lasting(text) {
        return Ok(now - i64::try_from(ago.as_secs()).unwrap_or(i64::MAX));
    }
    let date = text
        .parse::<jiff::civil::Date>()
        .ok()
        .filter(|_| text.len() == 10);
    let midnight = date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    match midnight {
        Some(midnight) => Ok(midnight.timestamp().as_second()),
        None => text
            .parse::<jiff::Timestamp>()
            .map(jiff::Timestamp::as_second)
            .map_err(|_| BadQuantity::Malformed("a time")),
    }
}

/// `10MiB`, `2GB`, `512B`: powers of 1024 with `i`, of 1000 without. In bytes.
///
/// # Errors
/// [`BadQuantity`] for a missing unit, anything else, or more than 64 bits.
pub fn size(text: &str) -> Result<u64, BadQuantity> {
    let text = text.trim();
    if text.is_empty() {
        return Err(BadQuantity::Empty);
    }
    let (number, unit) = number(text).ok_or(BadQuantity::Malformed("a size"))?;
    let scale: u64 = match unit.trim_start() {
        "" => return Err(BadQuantity::NoUnit(format!("{text}B"))),
        "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(BadQuantity::Malformed("a size")),
    };
    #[expect(clippy::cast_precision_loss, reason = "scales are exact in a double")]
    let bytes = number * scale as f64;
    // 2^63: a file size is an off_t.
    if bytes >= 9_223_372_036_854_775_808.0 {
        return Err(BadQuantity::TooLarge);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    Ok(bytes as u64)
}

fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('.') {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_may_be_composed() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(duration("30"), Err(BadQuantity::NoUnit("30s".into())));
        for bad in [
            "-5s", "5x", "5s5s", "5s1m", "s", "1m30", "1..5s", "1e3s", "5 s",
        ] {
            assert_eq!(
                duration(bad),
                Err(BadQuantity::Malformed("a duration")),
                "{bad}"
            );
        }
        assert_eq!(duration("99999d"), Err(BadQuantity::TooLarge));
        assert_eq!(duration("  "), Err(BadQuantity::Empty));
    }

    #[test]
    fn moments_are_ages_dates_or_times() {
        assert_eq!(moment("2d", 1_000_000), Ok(1_000_000 - 172_800));
        assert_eq!(moment("9999d", 9999 * 86_400), Ok(0));
        assert_eq!(moment("1970-01-02", 0), Ok(86_400));
        assert_eq!(moment("1970-01-01T01:00:00+01:00", 9), Ok(0));
        assert_eq!(moment("1970-01-01T00:00:07Z", 9), Ok(7));
        for bad in ["", "yesterday", "5", "2026-13-01", "2026-11-01T08:00:00"] {
            assert!(moment(bad, 0).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_need_a_unit_and_say_which_kilo() {
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        assert_eq!(size("1.5 KiB"), Ok(1536));
        assert_eq!(size("10"), Err(BadQuantity::NoUnit("10B".into())));
        assert_eq!(size("10M"), Err(BadQuantity::Malformed("a size")));
        assert_eq!(size("9999999999TiB"), Err(BadQuantity::TooLarge));
    }
}
