//! Ranges in host names, both ways: `web[01-03]` into names, and names back into `web[01-03]`.
//!
//! The notation is the one of pdsh and clush. Brackets hold a list of numbers, number ranges with
//! an optional step, single letters, letter ranges and plain words; several brackets multiply.
//! Nothing is allocated for a range before its count is known to be within [`NAME_LIMIT`].

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::pattern::PatternError;

/// How many names one expression, or one inventory, may expand to. Far above any real fleet, far
/// below what would hurt.
pub const NAME_LIMIT: usize = 100_000;

/// Numbers in ranges have at most this many digits, so that they fit `u64`.
const DIGIT_LIMIT: usize = 18;

/// One name, possibly with brackets in it, parsed and counted but not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    List(Vec<Item>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Word(String),
    Numbers {
        first: u64,
        last: u64,
        step: u64,
        width: usize,
    },
    Letters(u8, u8, u64),
}

impl Item {
    fn count(&self) -> u128 {
        match *self {
            Item::Word(_) => 1,
            Item::Numbers {
                first, last, step, ..
            } => u128::from((last - first) / step) + 1,
            Item::Letters(first, last, step) => u128::from(u64::from(last - first) / step) + 1,
        }
    }

    fn push(&self, out: &mut Vec<String>) {
        match self {
            Item::Word(word) => out.push(word.clone()),
            &Item::Numbers {
                first,
                last,
                step,
                width,
            } => {
                let mut value = first;
                loop {
                    out.push(format!("{value:0width$}"));
                    match value.checked_add(step) {
                        Some(next) if next <= last => value = next,
                        _ => break,
                    }
                }
            }
            &Item::Letters(first, last, step) => {
                let step = usize::try_from(step).unwrap_or(usize::MAX);
                out.extend(
                    (first..=last)
                        .step_by(step)
                        .map(|c| char::from(c).to_string()),
                );
            }
        }
    }
}

impl Template {
    /// Parses `text`, which stands at byte `base` of what the user wrote.
    pub(super) fn parse(text: &str, base: usize) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut at = base;
        while let Some(open) = rest.find(['[', ']']) {
            if rest[open..].starts_with(']') {
                return Err(PatternError::written(
                    at + open..at + open + 1,
                    format!("`]` without `[` in `{text}`"),
                ));
            }
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let inner = &rest[open + 1..];
            let close = inner.find(']').ok_or_else(|| {
                PatternError::written(
                    at + open..at + rest.len(),
                    format!("`[` is never closed in `{text}`"),
                )
                .with_help("a range looks like `web[01-20]`")
            })?;
            parts.push(Part::List(parse_list(&inner[..close], at + open + 1)?));
            at += open + close + 2;
            rest = &inner[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// How many names it stands for; saturates.
    pub(super) fn count(&self) -> u128 {
        self.parts.iter().fold(1, |product: u128, part| match part {
            Part::Text(_) => product,
            Part::List(items) => product.saturating_mul(
                items
                    .iter()
                    .fold(0, |sum: u128, item| sum.saturating_add(item.count())),
            ),
        })
    }

    /// Refuses more than `left` names.
    pub(super) fn check_count(
        &self,
        left: usize,
        span: Range<usize>,
    ) -> Result<usize, PatternError> {
        let count = self.count();
        match usize::try_from(count) {
            Ok(count) if count <= left => Ok(count),
            _ => Err(PatternError::too_many(span, count)),
        }
    }

    /// All names, the rightmost bracket running fastest. Call [`Template::check_count`] first.
    pub(super) fn expand(&self) -> Vec<String> {
        let mut names = vec![String::new()];
        for part in &self.parts {
            match part {
                Part::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Part::List(items) => {
                    let mut values = Vec::new();
                    items.iter().for_each(|item| item.push(&mut values));
                    names = names
                        .iter()
                        .flat_map(|name| values.iter().map(move |value| format!("{name}{value}")))
                        .collect();
                }
            }
        }
        names
    }

    /// The first name, without expanding the others.
    pub(super) fn first(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::List(items) => match items.first() {
                    Some(Item::Word(word)) => word.clone(),
                    Some(&Item::Numbers { first, width, .. }) => format!("{first:0width$}"),
                    Some(&Item::Letters(first, ..)) => char::from(first).to_string(),
                    None => String::new(),
                },
            })
            .collect()
    }
}

fn parse_list(text: &str, base: usize) -> Result<Vec<Item>, PatternError> {
    let mut items = Vec::new();
    let mut at = base;
    for item in text.split(',') {
        items.push(parse_item(item, at..at + item.len())?);
        at += item.len() + 1;
    }
    Ok(items)
}

fn parse_item(item: &str, span: Range<usize>) -> Result<Item, PatternError> {
    let bad = |message: String| PatternError::written(span.clone(), message);
    if item.is_empty() {
        return Err(bad("nothing stands between the brackets or commas".into())
            .with_help("a range looks like `[01-20]` or `[1,3,7-9]`"));
    }
    if let Some(c) = item
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"-/".contains(*c))
    {
        let help = match c {
            ':' => "write a range with `-`, as in `[1-20]`",
            '[' => "brackets cannot stand inside brackets",
            _ => "only letters, digits, `-`, `,` and a step after `/` can stand in brackets",
        };
        return Err(bad(format!(
            "`{}` cannot stand in a range",
            crate::text::printable(item.as_bytes())
        ))
        .with_help(help));
    }
    let (range, step) = match item.split_once('/') {
        None => (item, None),
        Some((range, step)) => match step.parse::<u64>() {
            Ok(n) if n > 0 && step.len() <= DIGIT_LIMIT => (range, Some(n)),
            _ => {
                return Err(bad(format!(
                    "`{step}` is not a step; a step is a whole number from 1"
                )));
            }
        },
    };
    match range.split_once('-') {
        None if step.is_some() => Err(bad(format!("`{item}` has a step but is no range"))),
        None => Ok(Item::Word(range.to_owned())),
        Some((first, last)) => parse_bounds(first, last, step.unwrap_or(1)).map_err(bad),
    }
}

fn parse_bounds(first: &str, last: &str, step: u64) -> Result<Item, String> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if digits(first) && digits(last) {
        return parse_numbers(first, last, step);
    }
    match (first.as_bytes(), last.as_bytes()) {
        (&[a], &[b])
            if a.is_ascii_lowercase() && b.is_ascii_lowercase()
                || a.is_ascii_uppercase() && b.is_ascii_uppercase() =>
        {
            if a > b {
                return Err(format!("`{first}-{last}` runs backwards"));
            }
            Ok(Item::Letters(a, b, step))
        }
        _ => Err(format!(
            "`{first}-{last}` is not a range: both ends are numbers, or single letters of one case"
        )),
    }
}

fn parse_numbers(first: &str, last: &str, step: u64) -> Result<Item, String> {
    if first.len() > DIGIT_LIMIT || last.len() > DIGIT_LIMIT {
        return Err(format!(
            "`{first}-{last}` has a number of more than {DIGIT_LIMIT} digits"
        ));
    }
    let padded = |s: &str| s.len() > 1 && s.starts_with('0');
    let number = |s: &str| {
        s.parse::<u64>()
            .map_err(|e| format!("`{s}` is not a number: {e}"))
    };
    let (a, b) = (number(first)?, number(last)?);
    if a > b {
        return Err(format!("`{first}-{last}` runs backwards"));
    }
    // `[1-010]` and `[01-5]` could each mean two things, so they mean none.
    let width = if padded(first) { first.len() } else { 0 };
    if padded(last) && last.len() != width || last.len() < first.len() {
        return Err(format!(
            "the ends of `{first}-{last}` are padded differently"
        ));
    }
    Ok(Item::Numbers {
        first: a,
        last: b,
        step,
        width,
    })
}

/// Expands the ranges in `text`: names separated by commas or white space, in written order, each
/// as often as it was written. Globs, groups and operators are not understood here.
///
/// # Errors
/// [`PatternError`] for a malformed range, and for more than [`NAME_LIMIT`] names.
pub fn expand(text: &str) -> Result<Vec<String>, PatternError> {
    let mut names = Vec::new();
    for (start, word) in words(text) {
        let template = Template::parse(word, start)?;
        template.check_count(NAME_LIMIT - names.len(), start..start + word.len())?;
        names.extend(template.expand());
    }
    Ok(names)
}

/// Words separated by commas and white space outside brackets, with their byte offsets.
pub(super) fn words(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 && (c == ',' || c.is_whitespace()) => {
                found.push((start, &text[start..at]));
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    found.push((start, &text[start..]));
    found.retain(|(_, word)| !word.is_empty());
    found
}

/// A name with one of its numbers taken out.
type Shape<'a> = (&'a str, &'a str);

/// Folds names into ranges: `web[01-05,07],db1`. Every name appears once, in the order in which
/// its fold first appears; padding is kept; a single name stays plain. [`expand`] of the result
/// gives the same set of names.
///
/// Where a name holds several numbers (`r1n3`, `web1.k8s.io`), the one that folds with the most
/// other names is taken; of equals, the rightmost.
#[must_use]
pub fn fold<I>(names: I) -> String
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let names: Vec<I::Item> = names.into_iter().collect();
    let mut seen = HashSet::new();
    let names: Vec<&str> = names
        .iter()
        .map(AsRef::as_ref)
        .filter(|name| seen.insert(*name))
        .collect();
    let mut popularity: HashMap<Shape<'_>, usize> = HashMap::new();
    for name in &names {
        for (shape, _) in numbers(name) {
            *popularity.entry(shape).or_default() += 1;
        }
    }
    let mut order: Vec<(Option<Shape<'_>>, Vec<&str>)> = Vec::new();
    let mut places: HashMap<Shape<'_>, usize> = HashMap::new();
    for name in names {
        match numbers(name)
            .into_iter()
            .max_by_key(|(shape, _)| popularity[shape])
        {
            None => order.push((None, vec![name])),
            Some((shape, digits)) => {
                let place = *places.entry(shape).or_insert(order.len());
                if place == order.len() {
                    order.push((Some(shape), Vec::new()));
                }
                order[place].1.push(digits);
            }
        }
    }
    let folded: Vec<String> = order
        .into_iter()
        .map(|(shape, members)| fold_one(shape, members))
        .collect();
    folded.join(",")
}

/// Every run of digits in `name`, left to right, with what stands around it.
fn numbers(name: &str) -> Vec<(Shape<'_>, &str)> {
    let bytes = name.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if (1..=DIGIT_LIMIT).contains(&length) {
            found.push(((&name[..at], &name[at + length..]), &name[at..at + length]));
        }
        at += length.max(1);
    }
    // A name is never cut in the middle of a character: digits are ASCII.
    found
}

fn fold_one(shape: Option<Shape<'_>>, members: Vec<&str>) -> String {
    let Some((prefix, suffix)) = shape else {
        return members.concat();
    };
    if let [only] = members[..] {
        return format!("{prefix}{only}{suffix}");
    }
    let padded: HashSet<usize> = members
        .iter()
        .filter(|digits| digits.len() > 1 && digits.starts_with('0'))
        .map(|digits| digits.len())
        .collect();
    let mut sorted: Vec<(usize, u64, &str)> = members
        .into_iter()
        .map(|digits| {
            let class = if padded.contains(&digits.len()) {
                digits.len()
            } else {
                0
            };
            (class, digits.parse().unwrap_or(0), digits)
        })
        .collect();
    sorted.sort_unstable();
    format!("{prefix}[{}]{suffix}", runs(&sorted).join(","))
}

fn runs(sorted: &[(usize, u64, &str)]) -> Vec<String> {
    let mut out: Vec<(u64, String)> = Vec::new();
    let mut at = 0;
    while at < sorted.len() {
        let (class, start, first) = sorted[at];
        let mut end = at;
        while let Some(&(next_class, value, _)) = sorted.get(end + 1) {
            if next_class != class || value != start + (end + 1 - at) as u64 {
                break;
            }
            end += 1;
        }
        let run = if end == at {
            first.to_owned()
        } else {
            format!("{first}-{}", sorted[end].2)
        };
        out.push((start, run));
        at = end + 1;
    }
    out.sort_by_key(|(start, _)| *start);
    out.into_iter().map(|(_, run)| run).collect()
}
