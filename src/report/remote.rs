//! Bytes from a remote side on our terminal or in a CI log: shown, never obeyed.
//!
//! Plain colours (`ESC [ digits ; m`, ECMA-48 "SGR") are the one exception: they are kept where we
//! use colour ourselves, and end with their line; without colour they are left out. Every other
//! control character, escape sequence, bidirectional override, invisible character and invalid
//! UTF-8 byte becomes visible text such as `\x1b` or `\u{202e}`.

use crate::text;

/// How remote bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Keep plain colours.
    pub colour: bool,
    /// The log is read by a CI system that obeys commands in it.
    pub ci: bool,
}

/// What CI systems look for in a log: GitHub Actions, GitLab, Azure Pipelines, TeamCity.
const CI_TOKENS: [&str; 6] = [
    "::",
    "##[",
    "##vso[",
    "##teamcity[",
    "section_start:",
    "section_end:",
];

impl Remote {
    /// Appends one line (without its end), harmless.
    pub fn push_line(self, out: &mut Vec<u8>, line: &[u8]) {
        if is_plain(line) {
            return self.push_text(out, line);
        }
        let mut shown = String::with_capacity(line.len() + 16);
        let mut coloured = false;
        let mut rest = line;
        while !rest.is_empty() {
            let at = memchr::memchr(0x1b, rest).unwrap_or(rest.len());
            shown.push_str(&text::printable(&rest[..at]));
            rest = &rest[at..];
            if rest.is_empty() {
                break;
            }
            let taken = match text::colour_length(rest) {
                Some(length) => {
                    if self.colour {
                        shown.push_str(&String::from_utf8_lossy(&rest[..length]));
                        coloured = true;
                    }
                    length
                }
                None => {
                    shown.push_str("\\x1b");
                    1
                }
            };
            rest = &rest[taken..];
        }
        if coloured {
            shown.push_str("\x1b[0m");
        }
        self.push_text(out, shown.as_bytes());
    }

    fn push_text(self, out: &mut Vec<u8>, line: &[u8]) {
        if !self.ci || !has_ci_token(line) {
            return out.extend_from_slice(line);
        }
        let mut broken = String::from_utf8_lossy(line).into_owned();
        // Breaking one token can bring its end together with what follows: `:::`.
        while has_ci_token(broken.as_bytes()) {
            for token in CI_TOKENS {
                let (first, rest) = token.split_at(1);
                broken = broken.replace(token, &format!("{first}\\{rest}"));
            }
        }
        out.extend_from_slice(broken.as_bytes());
    }
}

/// Printable ASCII and tabs: nearly every line there is.
fn is_plain(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

fn has_ci_token(line: &[u8]) -> bool {
    CI_TOKENS
        .iter()
        .any(|token| memchr::memmem::find(line, token.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(colour: bool, ci: bool, line: &[u8]) -> String {
        let mut out = Vec::new();
        Remote { colour, ci }.push_line(&mut out, line);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_could_drive_a_terminal_is_shown() {
        let table: [(&[u8], &str); 12] = [
            (b"plain \t text", "plain \t text"),
            ("größe ✓".as_bytes(), "größe ✓"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (b"\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),
            (b"\x1b[2J\x1b[6n", "\\x1b[2J\\x1b[6n"),
            (b"\x1bP+q544e\x1b\\", "\\x1bP+q544e\\x1b\\"),
            ("\u{9b}2J".as_bytes(), "\\x9b2J"),
            (b"\x9b2J", "\\x9b2J"),
            (b"a\x08b\x7fc\x07", "a\\x08b\\x7fc\\x07"),
            ("\u{202e}gpj.exe".as_bytes(), "\\u{202e}gpj.exe"),
            ("a\u{200b}b\u{2028}c".as_bytes(), "a\\u{200b}b\\u{2028}c"),
            (b"\x1b[31mred\x1b[0m", "red"),
        ];
        for (line, expected) in table {
            assert_eq!(shown(false, false, line), expected);
        }
    }

    #[test]
    fn plain_colours_are_kept_and_end_with_their_line() {
        assert_eq!(shown(true, false, b"\x1b[1;31mred"), "\x1b[1;31mred\x1b[0m");
        assert_eq!(shown(true, false, b"\x1b[?25l"), "\\x1b[?25l");
        assert_eq!(shown(true, false, b"\x1b[38:2:1m"), "\\x1b[38:2:1m");
    }

    #[test]
    fn commands_to_a_ci_system_are_broken() {
        for line in [
            "::set-output name=x::y",
            "a ##[add-mask]e",
            "##vso[task.x]",
            "section_start:1:x",
        ] {
            let shown = shown(false, true, line.as_bytes());
            assert!(!has_ci_token(shown.as_bytes()), "{shown}");
            assert_eq!(shown.replace('\\', ""), line);
        }
    }

    proptest! {
        #[test]
        fn nothing_but_plain_colour_survives(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut left = shown(true, false, &line);
            while let Some(at) = left.find('\x1b') {
                let length = text::colour_length(&left.as_bytes()[at..]);
                prop_assert!(length.is_some(), "{left:?}");
                left.replace_range(at..at + length.unwrap_or(1), "");
            }
            prop_assert!(!left.chars().any(text::must_escape));
            prop_assert!(!shown(false, false, &line).contains('\x1b'));
        }

        #[test]
        fn no_ci_token_survives(line in "[:#a-z\\[ ]{0,40}(::|##\\[|##vso\\[|section_end:)[:#a-z\\[]{0,9}") {
            prop_assert!(!has_ci_token(shown(false, true, line.as_bytes()).as_bytes()));
        }
    }
}
