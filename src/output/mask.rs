//! Secrets in what is shown: found by value, also as other programs write it, and replaced.
//!
//! A secret is looked for as it is, in base64 (at each of the three ways its bytes can fall into
//! groups), percent-encoded, as a JSON string, hexadecimal, and quoted for a shell. Line ends do not
//! count, so that `base64`, which breaks its lines, or a key of many lines is found as well; they
//! stay where they are, so that lines keep their numbers.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;

use crate::event::{Block, cut_line};
use crate::secret::Secret;
use crate::text;

/// What stands in the place of a secret.
pub const STARS: &str = "***";
/// A shorter value cannot be masked: it would be found in everything.
pub const SHORTEST: usize = 4;
/// A line of a secret of many lines that is looked for by itself, in characters.
const LINE: usize = 8;
/// Encodings of a short secret that are shorter than this are not looked for.
const SHORTEST_FORM: usize = 5;
/// Output that may wait for the rest of what looks like the start of a secret, in bytes.
const HELD: usize = 1 << 20;

/// Finds secrets.
#[derive(Debug, Default)]
pub struct Mask {
    secrets: Vec<Secret>,
    forms: Vec<Vec<u8>>,
    finder: Option<AhoCorasick>,
    /// The longest form, in bytes.
    longest: usize,
}

impl Mask {
    /// Looks for these, apart from those that are too short ([`can_be_masked`]).
    #[must_use]
    pub fn new(secrets: Vec<Secret>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets.iter().filter(|secret| can_be_masked(secret)) {
            add_forms(secret.reveal(), &mut forms);
        }
        let forms: Vec<Vec<u8>> = forms.into_iter().collect();
        Self {
            secrets,
            finder: AhoCorasick::new(&forms).ok().filter(|_| !forms.is_empty()),
            longest: forms.iter().map(Vec::len).max().unwrap_or(0),
            forms,
        }
    }

    /// The same with one more.
    #[must_use]
    pub fn and(&self, secret: Secret) -> Self {
        let mut secrets = self.secrets.clone();
        secrets.push(secret);
        Self::new(secrets)
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.finder.is_none()
    }

    /// Whether a text holds one of the secrets in any form.
    #[must_use]
    pub fn finds(&self, text: &str) -> bool {
        !self.found(&Flat::of([text.as_bytes()]).bytes).is_empty()
    }

    /// A text without secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Forms of a text begin and end between characters, and so does what is left.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Bytes without secrets.
    #[must_use]
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let flat = Flat::of([bytes]);
        let found = self.found(&flat.bytes);
        if found.is_empty() {
            return Cow::Borrowed(bytes);
        }
        Cow::Owned(flat.covered(0, bytes, &found))
    }

    /// Where secrets stand, in order, without overlaps.
    fn found(&self, flat: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let Some(finder) = self.finder.as_ref().filter(|finder| finder.is_match(flat)) else {
            return found;
        };
        let hits = finder.find_overlapping_iter(flat);
        let mut hits: Vec<Range<usize>> = hits.map(|hit| hit.range()).collect();
        hits.sort_unstable_by_key(|hit| hit.start);
        for hit in hits {
            match found.last_mut() {
                Some(last) if hit.start <= last.end => last.end = last.end.max(hit.end),
                _ => found.push(hit),
            }
        }
        found
    }

    /// Where something begins that may go on to be a secret.
    fn begins(&self, flat: &[u8]) -> Option<usize> {
        let first = flat.len().saturating_sub(self.longest.saturating_sub(1));
        (first..flat.len()).find(|at| {
            let rest = &flat[*at..];
            let mut longer = self.forms.iter().filter(|form| form.len() > rest.len());
            longer.any(|form| form.starts_with(rest))
        })
    }
}

/// Whether a value is long enough to be looked for.
#[must_use]
pub fn can_be_masked(secret: &Secret) -> bool {
    flat(secret.reveal().as_bytes()).len() >= SHORTEST
}

/// One stream of output without secrets, however it was cut on its way.
///
/// Lines whose end may be the start of a secret wait for the lines after them.
#[derive(Debug, Default)]
pub struct Veiled {
    held: Vec<Block>,
}

impl Veiled {
    /// Takes the next block of the stream and gives those that can be shown.
    pub fn push(&mut self, mask: &Mask, block: Block) -> Vec<Block> {
        let mut blocks = std::mem::take(&mut self.held);
        blocks.push(block);
        let flat = Flat::of(blocks.iter().map(|block| &*block.bytes));
        let found = mask.found(&flat.bytes);
        let all: usize = blocks.iter().map(|block| block.bytes.len()).sum();
        let kept = mask.begins(&flat.bytes).filter(|_| all <= HELD);
        let (first, offset) = match kept {
            Some(at) => flat.line_before(at, &found, &blocks),
            None => (blocks.len(), 0),
        };
        let mut shown = flat.show(&blocks, &found);
        shown.truncate(first + usize::from(offset > 0));
        self.held = blocks.split_off(first);
        if offset > 0
            && let Some(block) = self.held.first_mut()
        {
            let (before, after) = parted(block, offset);
            let covered = flat.covered(first, &before.bytes, &found);
            shown.truncate(first);
            shown.push(Block {
                bytes: covered.into(),
                ..before
            });
            *block = after;
        }
        shown
    }

    /// Gives what still waits: nothing more comes, or has not come for too long.
    pub fn flush(&mut self, mask: &Mask) -> Vec<Block> {
        let blocks = std::mem::take(&mut self.held);
        if blocks.is_empty() {
            return blocks;
        }
        let flat = Flat::of(blocks.iter().map(|block| &*block.bytes));
        let found = mask.found(&flat.bytes);
        flat.show(&blocks, &found)
    }

    /// Whether lines wait.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.held.is_empty()
    }
}

/// A block in two, at the start of one of its lines.
fn parted(block: &Block, at: usize) -> (Block, Block) {
    let (before, after) = (block.bytes.slice(..at), block.bytes.slice(at..));
    let count = |bytes: &Bytes| {
        let mut rest: &[u8] = bytes;
        let mut lines = 0;
        while let Some((_, after)) = cut_line(rest) {
            (rest, lines) = (after, lines + 1);
        }
        lines
    };
    let lines = count(&before);
    let of = |bytes, first_line, lines| Block {
        stream: block.stream,
        first_line,
        lines,
        bytes,
    };
    let first = of(before, block.first_line, lines);
    let next = block.first_line + u64::from(lines);
    let lines = count(&after);
    (first, of(after, next, lines))
}

/// Bytes without their line ends, and where each stretch of them came from.
struct Flat {
    bytes: Vec<u8>,
    stretches: Vec<Stretch>,
}

struct Stretch {
    /// Its place among the flat bytes.
    flat: Range<usize>,
    /// The part that it is of, and its place in there.
    part: usize,
    at: usize,
}

impl Flat {
    fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut bytes, mut stretches) = (Vec::new(), Vec::new());
        for (number, part) in parts.into_iter().enumerate() {
            let mut at = 0;
            let ends = memchr::memchr2_iter(b'\n', b'\r', part);
            for end in ends.chain([part.len()]) {
                if end > at {
                    let start = bytes.len();
                    bytes.extend_from_slice(&part[at..end]);
                    let flat = start..bytes.len();
                    stretches.push(Stretch {
                        flat,
                        part: number,
                        at,
                    });
                }
                at = end + 1;
            }
        }
        Self { bytes, stretches }
    }

    /// A part, or the start of one, with stars in the place of what was found.
    fn covered(&self, part: usize, bytes: &[u8], found: &[Range<usize>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut done = 0;
        let first = self.stretches.partition_point(|one| one.part < part);
        for stretch in &self.stretches[first..] {
            if stretch.part != part || stretch.at >= bytes.len() {
                break;
            }
            let from = found.partition_point(|range| range.end <= stretch.flat.start);
            for range in &found[from..] {
                if range.start >= stretch.flat.end {
                    break;
                }
                let place = |flat: usize| stretch.at + (flat - stretch.flat.start);
                let start = place(range.start.max(stretch.flat.start));
                out.extend_from_slice(&bytes[done..start]);
                out.extend_from_slice(STARS.as_bytes());
                done = place(range.end.min(stretch.flat.end));
            }
        }
        out.extend_from_slice(&bytes[done..]);
        out
    }

    fn show(&self, blocks: &[Block], found: &[Range<usize>]) -> Vec<Block> {
        let cover = |(part, block): (usize, &Block)| {
            if found.is_empty() {
                return block.clone();
            }
            Block {
                bytes: self.covered(part, &block.bytes, found).into(),
                ..block.clone()
            }
        };
        blocks.iter().enumerate().map(cover).collect()
    }

    /// The start of the line that holds a place, as a part and an offset. Nothing that was found
    /// is parted: a secret over two lines keeps both.
    fn line_before(&self, at: usize, found: &[Range<usize>], blocks: &[Block]) -> (usize, usize) {
        let mut at = at;
        loop {
            let index = self
                .stretches
                .partition_point(|stretch| stretch.flat.end <= at);
            let Some(stretch) = self.stretches.get(index) else {
                return (blocks.len(), 0);
            };
            let crossing = found
                .iter()
                .find(|range| range.start < stretch.flat.start && range.end > stretch.flat.start);
            match crossing {
                Some(range) => at = range.start,
                None => return (stretch.part, stretch.at),
            }
        }
    }
}

fn flat(bytes: &[u8]) -> Vec<u8> {
    let ends = |byte: &&u8| !matches!(byte, b'\n' | b'\r');
    bytes.iter().filter(ends).copied().collect()
}

/// Everything that a value may look like.
fn add_forms(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: &[u8], shortest: usize| {
        let form = flat(form);
        if form.len() >= shortest {
            forms.insert(form);
        }
    };
    add(value.as_bytes(), SHORTEST);
    let lines = value.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| line.len() >= LINE).collect();
    for part in [value].into_iter().chain(lines) {
        add(part.as_bytes(), SHORTEST);
        for form in in_base64(part.as_bytes()) {
            add(form.as_bytes(), SHORTEST_FORM);
        }
        let others = [percent(part), json(part), hexadecimal(part), shell(part)];
        for form in others.into_iter().flatten() {
            add(form.as_bytes(), SHORTEST);
        }
        add(text::printable(part.as_bytes()).as_bytes(), SHORTEST);
    }
}

/// In base64 as a whole, and as a part of something longer: of the first and last character only
/// some bits are known then, and they are left out.
fn in_base64(value: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for engine in [STANDARD, URL_SAFE] {
        forms.push(engine.encode(value));
        for before in 0..3 {
            let padded = [&[0_u8; 2][..before], value].concat();
            let encoded = engine.encode(&padded);
            let first = (before * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            forms.push(encoded.get(first..last).unwrap_or_default().to_owned());
        }
    }
    forms
}

fn percent(value: &str) -> Vec<String> {
    let encoded = |plain: &str, upper: bool, plus: bool| {
        let mut out = String::new();
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
                b' ' if plus => out.push('+'),
                byte if plain.as_bytes().contains(&byte) => out.push(char::from(byte)),
                byte => {
                    let _ = if upper {
                        write!(out, "%{byte:02X}")
                    } else {
                        write!(out, "%{byte:02x}")
                    };
                }
            }
        }
        out
    };
    // RFC 3986, section 2.3; ECMAScript's encodeURIComponent; a form's own way (WHATWG URL).
    let kinds = [("-._~", false), ("-._~!'()*", false), ("*-._", true)];
    let both = |(plain, plus)| [encoded(plain, true, plus), encoded(plain, false, plus)];
    kinds.into_iter().flat_map(both).collect()
}

/// RFC 8259, section 7, as the common writers use it: plain, with `\/`, with all but ASCII escaped,
/// and with what has a meaning in HTML escaped.
fn json(value: &str) -> Vec<String> {
    let string = serde_json::Value::String(value.to_owned()).to_string();
    let plain = string
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let plain = plain.unwrap_or(&string);
    let mut forms = Vec::new();
    for extra in ["", "<>&'", "<>&"] {
        for ascii in [false, true] {
            for upper in [false, true] {
                let escapes = |c: char| extra.contains(c) || ascii && !c.is_ascii();
                let form = escaped(plain, escapes, upper);
                forms.push(form.replace('/', "\\/"));
                forms.push(form);
            }
        }
    }
    forms
}

fn escaped(text: &str, escapes: impl Fn(char) -> bool, upper: bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !escapes(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = if upper {
                write!(out, "\\u{unit:04X}")
            } else {
                write!(out, "\\u{unit:04x}")
            };
        }
    }
    out
}

fn hexadecimal(value: &str) -> Vec<String> {
    let mut out = String::new();
    for byte in value.bytes() {
        let _ = write!(out, "{byte:02x}");
    }
    vec![out.to_uppercase(), out]
}

/// As shells and their tracing (`set -x`) write words.
fn shell(value: &str) -> Vec<String> {
    let mut backslashes = String::new();
    for c in value.chars() {
        if !c.is_alphanumeric() && !"_-./:=@%+,".contains(c) {
            backslashes.push('\\');
        }
        backslashes.push(c);
    }
    let mut quoted = String::new();
    for c in value.chars() {
        if "\\\"$`".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    vec![
        value.replace('\'', r"'\''"),
        value.replace('\'', r#"'"'"'"#),
        backslashes,
        quoted,
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Stream;
    use crate::output::lines::Splitter;

    const CANARY: &str = "c4n/\"ary'+ \u{e9}7$Xq!z%Kw";

    fn mask(values: &[&str]) -> Mask {
        Mask::new(values.iter().map(|v| Secret::new((*v).into())).collect())
    }

    #[test]
    fn every_form_is_found() {
        let mask = mask(&[CANARY]);
        let json = serde_json::to_string(CANARY).unwrap();
        let python = r#"c4n/\"ary'+ \u00e97$Xq!z%Kw"#;
        let mut forms = vec![CANARY.to_owned(), json, python.to_owned()];
        forms.push(python.replace('/', "\\/"));
        forms.push(r#"c4n/\"ary\u0027+ é7$Xq!z%Kw"#.to_owned());
        forms.push("c4n%2F%22ary%27%2B%20%C3%A97%24Xq%21z%25Kw".into());
        forms.push("c4n%2f%22ary%27%2b+%c3%a97%24Xq%21z%25Kw".into());
        forms.push("c4n%2F%22ary'%2B%20%C3%A97%24Xq!z%25Kw".into());
        forms.push(CANARY.replace('\'', r"'\''"));
        forms.push(STANDARD.encode(CANARY));
        for around in ["a", "ab", "abc"] {
            let inside = format!("{around}{CANARY}{around}");
            for encoded in [STANDARD.encode(&inside), URL_SAFE.encode(&inside)] {
                let masked = mask.text(&encoded).into_owned();
                assert!(masked.contains(STARS), "{encoded}");
                // What is left says less than one byte of the secret at either side.
                assert!(masked.len() <= 4 + 3 + 8, "{encoded}: {masked}");
            }
        }
        for form in forms {
            let shown = mask.text(&format!("<{form}>")).into_owned();
            assert!(shown.contains(STARS), "{form}");
            assert!(!shown.contains("Xq") && !shown.contains("c4n"), "{shown}");
        }
    }

    #[test]
    fn line_ends_do_not_hide_a_secret_and_stay() {
        let mask = mask(&["-----BEGIN\nabcdefgh\nxy\n-----END\n", "correct horse"]);
        let text = "key:\r\n-----BEGIN\r\nabcdefgh\r\nxy\r\n-----END\r\nrest\n";
        let expected = "key:\r\n***\r\n***\r\n***\r\n***\r\nrest\n";
        assert_eq!(mask.text(text), expected);
        // A line of it that is long enough, by itself and further in.
        assert_eq!(mask.text("  abcdefgh\n"), "  ***\n");
        assert_eq!(mask.text("corr\nect h\norse."), "***\n***\n***.");
        let long = STANDARD.encode(format!("{}correct horse", "x".repeat(50)));
        let broken = format!("{}\n{}\n", &long[..76], &long[76..]);
        assert_eq!(broken.lines().count(), mask.text(&broken).lines().count());
        assert!(mask.text(&broken).matches(STARS).count() == 2, "{broken}");
    }

    #[test]
    fn what_is_too_short_is_not_looked_for() {
        let short = Secret::new("abc".into());
        assert!(!can_be_masked(&short));
        assert!(Mask::new(vec![short]).is_empty());
        assert_eq!(mask(&["abcd"]).text("abcabcd"), "abc***");
    }

    #[test]
    fn overlapping_secrets_are_masked_as_one() {
        let mask = mask(&["abcdef", "defghi"]);
        assert_eq!(mask.text("1abcdefghi2"), "1***2");
    }

    #[test]
    fn a_line_waits_only_for_what_may_be_a_secret() {
        let mask = mask(&["secret"]);
        let block = |text: &'static str, first_line, lines| Block {
            stream: Stream::Stdout,
            first_line,
            lines,
            bytes: Bytes::from_static(text.as_bytes()),
        };
        let mut veiled = Veiled::default();
        let shown = veiled.push(&mask, block("one\ntwo\n", 1, 2));
        assert_eq!(shown, [block("one\ntwo\n", 1, 2)]);
        let shown = veiled.push(&mask, block("three\nsec\n", 3, 2));
        assert_eq!(shown, [block("three\n", 3, 1)]);
        assert!(veiled.waits());
        let shown = veiled.push(&mask, block("ret\nfive\n", 5, 2));
        assert_eq!(shown, [block("***\n", 4, 1), block("***\nfive\n", 5, 2)]);
        assert!(veiled.push(&mask, block("se\n", 7, 1)).is_empty());
        assert_eq!(veiled.flush(&mask), [block("se\n", 7, 1)]);
        assert!(!veiled.waits());
    }

    fn through(mask: &Mask, text: &[u8], cuts: &[usize]) -> (Vec<u8>, u64) {
        let (mut splitter, mut veiled) = (Splitter::new(Stream::Stdout), Veiled::default());
        let mut blocks = Vec::new();
        let (mut rest, mut cuts) = (Bytes::copy_from_slice(text), cuts.iter().cycle());
        while !rest.is_empty() {
            let at = (*cuts.next().unwrap()).clamp(1, rest.len());
            splitter.push(rest.split_to(at), &mut |block| blocks.push(block));
        }
        splitter.finish(&mut |block| blocks.push(block));
        let pushed = blocks.into_iter().map(|block| veiled.push(mask, block));
        let mut shown: Vec<Block> = pushed.flatten().collect();
        shown.extend(veiled.flush(mask));
        let mut next = 1;
        for block in &shown {
            assert_eq!(block.first_line, next);
            assert_eq!(block.lines().count(), block.lines as usize);
            next += u64::from(block.lines);
        }
        let bytes = shown.iter().flat_map(|block| block.bytes.iter().copied());
        (bytes.collect(), next)
    }

    proptest! {
        /// However the bytes come, the same is shown, and it is what is shown of the whole.
        #[test]
        fn any_split_shows_the_same(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just("ababc"), Just("ab"), Just("ba"), Just("a\nbabc"), Just("\n"), Just("x"),
                    Just("YWJhYmM="), Just("abcabcabd"), Just("\r\n"), Just("\rabca")
                ], 0..40),
            cuts in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let mask = mask(&["ababc", "abcabd"]);
            let text = pieces.concat();
            let (shown, _) = through(&mask, text.as_bytes(), &cuts);
            prop_assert_eq!(
                String::from_utf8_lossy(&shown),
                mask.text(&text)
            );
        }

        #[test]
        fn the_secret_is_nowhere_afterwards(
            before in "[a-c\n]{0,20}", after in "[a-c\n]{0,20}",
            secret in "[a-c]{4,8}", at in prop::collection::vec(0_usize..9, 0..3),
        ) {
            let mut broken = secret.clone();
            for at in at {
                broken.insert(at.min(broken.len()), '\n');
            }
            let mask = mask(&[&secret]);
            let text = format!("{before}{broken}{after}");
            let (shown, _) = through(&mask, text.as_bytes(), &[3, 1, 7]);
            let shown = String::from_utf8(shown).unwrap().replace('\n', "");
            prop_assert!(!shown.contains(&secret), "{}", shown);
        }
    }
}
