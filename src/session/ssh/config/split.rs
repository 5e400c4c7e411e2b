//! A line of ssh_config to its keyword and words.
//!
//! OpenSSH has two ways to cut text, and both are needed: `strdelim` for the keyword and for the
//! conditions of `Match` (double quotes, one `=` as good as a space), `argv_split` for the values
//! of all other keywords (both quotes, backslashes, comments). Both are in its misc.c.

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The keyword as written and what follows it; `None` for blank lines and comments.
pub(super) fn keyword(line: &str) -> Result<Option<(String, &str)>, &'static str> {
    // C's strings end at a NUL; a form feed may stand at the end only, and not alone.
    let line = line.split('\0').next().unwrap_or_default();
    if line.starts_with('\x0c') {
        return Err("a form feed begins it");
    }
    let mut rest = Some(line.trim_end_matches([' ', '\t', '\r', '\n', '\x0c']));
    let mut keyword = token(&mut rest);
    if keyword.as_deref() == Some("") {
        keyword = token(&mut rest);
    }
    let keyword = keyword.unwrap_or_default();
    if keyword.is_empty() || keyword.starts_with('#') {
        return Ok(None);
    }
    match rest.map(|rest| rest.trim_start_matches(SPACE)) {
        None | Some("") => Err("it has no value"),
        Some(rest) => Ok(Some((keyword, rest))),
    }
}

/// Takes the next word as `strdelim` does. `None` at the end and where a quote is not closed.
pub(super) fn token(rest: &mut Option<&str>) -> Option<String> {
    let text = rest.take()?;
    let Some(at) = text.find([' ', '\t', '\r', '\n', '"', '=']) else {
        return Some(text.to_owned());
    };
    let (word, behind) = (&text[..at], &text[at + 1..]);
    match text.as_bytes()[at] {
        b'"' => {
            let (quoted, behind) = behind.split_once('"')?;
            *rest = Some(behind.trim_start_matches(SPACE));
            return Some([word, quoted].concat());
        }
        b'=' => *rest = Some(behind.trim_start_matches(SPACE)),
        _ => {
            let behind = behind.trim_start_matches(SPACE);
            let value = behind.strip_prefix('=');
            *rest = Some(value.map_or(behind, |value| value.trim_start_matches(SPACE)));
        }
    }
    Some(word.to_owned())
}

/// The words of a value as `argv_split` cuts them, up to a comment.
pub(super) fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| [' ', '\t'].contains(c)).is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut chars)?),
        }
    }
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, &'static str> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(&c) = chars.peek() {
        match (quote, c) {
            (None, ' ' | '\t') => break,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => {
                chars.next();
                match chars.peek() {
                    Some(&next @ ('"' | '\'' | '\\')) => word.push(next),
                    Some(' ') if quote.is_none() => word.push(' '),
                    // No escape: the backslash is itself, and what follows is read on its own.
                    Some(_) | None => {
                        word.push('\\');
                        continue;
                    }
                }
            }
            (_, c) => word.push(c),
        }
        chars.next();
    }
    match quote {
        Some(_) => Err("a quote is not closed"),
        None => Ok(word),
    }
}
