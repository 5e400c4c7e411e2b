//! Text for people: untrusted bytes made harmless, widths, durations, sizes, and guesses at what
//! somebody meant to type.

use std::borrow::Cow;
use std::time::Duration;

use unicode_width::UnicodeWidthChar;

/// Makes bytes from a remote side safe to show: every control character, escape sequence, bidi
/// override, invisible format character and invalid UTF-8 byte becomes visible text such as
/// `\x1b`, `\u{202e}` or `\xff`. Tabs stay.
#[must_use]
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(must_escape) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes)),
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// The length of a plain colour sequence (`ESC [ digits ; m`, ECMA-48 "SGR") at the start of
/// `bytes`.
#[must_use]
pub fn colour_length(bytes: &[u8]) -> Option<usize> {
    // Real programs need a few dozen bytes (38;2;r;g;b); more is a flood.
    const LONGEST: usize = 64;
    let body = bytes.strip_prefix(b"\x1b[")?;
    let end = body
        .iter()
        .take(LONGEST)
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';'))?;
    (body[end] == b'm').then_some(end + 3)
}

/// [`printable`], with plain colours left out instead of shown.
#[must_use]
pub fn printable_plain(bytes: &[u8]) -> Cow<'_, str> {
    if memchr::memchr(0x1b, bytes).is_none() {
        return printable(bytes);
    }
    let mut rest = bytes;
    let mut plain = Vec::with_capacity(bytes.len());
    while let Some((first, after)) = rest.split_first() {
        match colour_length(rest) {
            Some(length) => rest = &rest[length..],
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(printable(&plain).into_owned())
}

/// Appends `c`, or its visible form where [`must_escape`] says so.
pub fn push_escaped(out: &mut String, c: char) {
    match c {
        _ if !must_escape(c) => out.push(c),
        '\r' => out.push_str("\\r"),
        '\n' => out.push_str("\\n"),
        _ if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        _ => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
    }
}

/// Characters that could move the cursor, hide or reorder text, or talk to a terminal.
#[must_use]
pub fn must_escape(c: char) -> bool {
    match c {
        '\t' => false,
        _ if c.is_control() => true,
        // Zero-width and bidirectional controls, line and paragraph separators, the BOM, and tag
        // characters (Unicode, "Default_Ignorable_Code_Point", less those that emoji need).
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// Columns that `text` takes on a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// `text` cut to at most `columns`, with `…` in place of what was cut.
#[must_use]
pub fn fit(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        out.push(c);
    }
    out.push('…');
    Cow::Owned(out)
}

/// A duration in at most two units: `0.4s`, `12.0s`, `1m02s`, `3h05m`.
#[must_use]
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    match seconds {
        _ if d < Duration::from_millis(1) => "<1ms".to_owned(),
        0 if d < Duration::from_millis(100) => format!("{}ms", d.as_millis()),
        0..60 if d.subsec_millis() < 50 && seconds > 0 => format!("{seconds}s"),
        0..60 => format!("{:.1}s", d.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Bytes for people: `1.2 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 host`, `2 hosts`.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// The candidate that `word` was most likely meant to be, if one is close enough.
#[must_use]
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
