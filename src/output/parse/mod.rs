//! Output -> rows, while it comes.
//!
//! A [`Parser`] takes bytes however they are cut and gives the rows that they complete. Formats are
//! read by position, never by guess: a line that does not fit is an error that names the line, the
//! bytes and what was expected, or, where that is asked for, is put aside and counted. Every parser
//! takes time in proportion to its input and holds at most one line, record or row block; only
//! `json` holds its whole text, up to 16 MiB.

mod columns;
mod disk;
mod json;
mod matches;
mod pairs;
mod separated;
mod value;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::rows::{BadLine, Format, ParseSpec, Row, Type};

/// The most bytes of a line, and of a record of several lines.
pub const MAX_LINE: usize = 1 << 20;
/// The most columns of a row: a line of [`MAX_LINE`] could name half a million, at a hundred times
/// its own size.
pub const MAX_COLUMNS: usize = 10_000;
/// How many lines that do not fit are kept where that is no error; all are counted.
pub const KEPT: usize = 100;

/// Reads one output.
#[derive(Debug)]
pub struct Parser {
    format: &'static str,
    strict: bool,
    machine: Machine,
    /// What lines end with.
    end: u8,
    keeps_return: bool,
    /// The most bytes of a line.
    longest: usize,
    partial: Vec<u8>,
    number: u64,
    over: bool,
    unparsed: Unparsed,
}

/// Lines that did not fit.
#[derive(Debug, Clone, Default)]
pub struct Unparsed {
    /// The first ones, at most [`KEPT`].
    pub lines: Vec<BadLine>,
    /// How many there were.
    pub total: u64,
}

/// One for each [`Format`].
#[derive(Debug)]
enum Machine {
    Du(disk::Du),
    Df(disk::Df),
    Lines(Arc<str>, Arc<[(String, Type)]>),
    Columns(columns::Columns),
    Pairs(pairs::Pairs),
    Json(json::Whole),
    Ndjson(Arc<[(String, Type)]>),
    Separated(separated::Separated),
    Matches(matches::Matches),
}

impl Parser {
    /// A parser that has read nothing yet.
    #[must_use]
    pub fn new(spec: &ParseSpec) -> Self {
        let types: Arc<[(String, Type)]> = spec.types.clone().into();
        let mut end = b'\n';
        let mut keeps_return = false;
        let mut longest = MAX_LINE;
        let machine = match &spec.format {
            Format::Du { names, unit, zero } => {
                // A file's name may end with a return.
                keeps_return = true;
                end = if *zero { 0 } else { b'\n' };
                Machine::Du(disk::Du::new(names, *unit))
            }
            Format::Df { unit } => Machine::Df(disk::Df::new(*unit)),
            Format::Lines => Machine::Lines("line".into(), types),
            Format::Columns(columns) => Machine::Columns(columns::Columns::new(columns, &types)),
            Format::Pairs(pairs) => Machine::Pairs(pairs::Pairs::new(pairs, &types)),
            Format::Json { path } => {
                // The whole text may be one line.
                longest = json::MAX_TEXT;
                Machine::Json(json::Whole::new(path, &types))
            }
            Format::Ndjson => Machine::Ndjson(types),
            Format::Separated {
                delimiter,
                header,
                names,
            } => {
                keeps_return = true;
                let separated = separated::Separated::new(*delimiter, *header, names, &types);
                Machine::Separated(separated)
            }
            Format::Regex { pattern, matching } => {
                Machine::Matches(matches::Matches::new(pattern, *matching, &types))
            }
        };
        Self {
            format: spec.format.name(),
            strict: spec.strict,
            machine,
            end,
            keeps_return,
            longest,
            partial: Vec::new(),
            number: 0,
            over: false,
            unparsed: Unparsed::default(),
        }
    }

    /// Takes the next bytes of the output and appends the rows that they complete.
    ///
    /// # Errors
    /// The first line that does not fit. What follows it is not read.
    pub fn push(&mut self, bytes: &[u8], rows: &mut Vec<Row>) -> Result<(), Box<BadLine>> {
        let mut rest = bytes;
        while !self.over && !rest.is_empty() {
            let at = memchr::memchr(self.end, rest);
            let piece = &rest[..at.unwrap_or(rest.len())];
            match at {
                Some(at) if self.partial.is_empty() => {
                    self.line(piece, rows)?;
                    rest = &rest[at + 1..];
                }
                Some(at) => {
                    self.partial.extend_from_slice(piece);
                    let mut line = std::mem::take(&mut self.partial);
                    self.line(&line, rows)?;
                    line.clear();
                    self.partial = line;
                    rest = &rest[at + 1..];
                }
                None => {
                    self.partial.extend_from_slice(piece);
                    if self.partial.len() > self.longest + 1 {
                        let line = std::mem::take(&mut self.partial);
                        self.line(&line, rows)?;
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The output has ended, and not been cut off: appends the rows that its end completes.
    ///
    /// # Errors
    /// The first line that does not fit, or what is missing.
    pub fn finish(&mut self, rows: &mut Vec<Row>) -> Result<(), Box<BadLine>> {
        if self.over {
            return Ok(());
        }
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(&line, rows)?;
        }
        let finished = match &mut self.machine {
            Machine::Df(df) => df.finish(),
            Machine::Pairs(pairs) => {
                rows.extend(pairs.take());
                Ok(())
            }
            Machine::Json(json) => json.finish(rows),
            Machine::Separated(separated) => separated.finish(),
            Machine::Matches(matches) => matches.finish(),
            Machine::Du(_) | Machine::Lines(..) | Machine::Columns(_) | Machine::Ndjson(_) => {
                Ok(())
            }
        };
        let judged = finished.or_else(|bad| self.misfit(bad, b""));
        self.over = true;
        judged
    }

    /// Lines that did not fit, where that is no error.
    #[must_use]
    pub fn into_unparsed(self) -> Unparsed {
        self.unparsed
    }

    fn line(&mut self, line: &[u8], rows: &mut Vec<Row>) -> Result<(), Box<BadLine>> {
        self.number += 1;
        if line.len() > self.longest {
            let expected = format!("at most {} KiB a line are expected", self.longest >> 10);
            return self.misfit(misfit(0..line.len(), expected).fatal(), line);
        }
        let line = match line.strip_suffix(b"\r") {
            Some(line) if !self.keeps_return => line,
            Some(_) | None => line,
        };
        let blank = line.trim_ascii().is_empty();
        let read = match &mut self.machine {
            Machine::Du(du) => du.line(line).map(Some),
            Machine::Df(df) => df.line(line),
            Machine::Lines(name, types) => matches::whole_line(line, name, types).map(Some),
            Machine::Columns(columns) => columns.line(line),
            Machine::Pairs(pairs) => pairs.line(line),
            Machine::Json(json) => json.line(line).map(|()| None),
            Machine::Ndjson(_) if blank => Ok(None),
            Machine::Ndjson(types) => json::line(line, types).map(Some),
            Machine::Separated(separated) => separated.line(line, self.number),
            Machine::Matches(matches) => matches.line(line, rows).map(|()| None),
        };
        match read {
            Ok(row) => {
                rows.extend(row);
                Ok(())
            }
            Err(bad) => self.misfit(bad, line),
        }
    }

    fn misfit(&mut self, bad: Misfit, line: &[u8]) -> Result<(), Box<BadLine>> {
        let text = bad.text.as_deref().unwrap_or(line);
        let number = bad.number.unwrap_or(self.number);
        let known = BadLine::new(self.format, number, text, bad.span, bad.expected);
        if self.strict || bad.fatal {
            self.over = true;
            self.partial = Vec::new();
            return Err(Box::new(known));
        }
        self.unparsed.total += 1;
        if self.unparsed.lines.len() < KEPT {
            self.unparsed.lines.push(known);
        }
        Ok(())
    }
}

/// Why a line does not fit.
#[derive(Debug, PartialEq, Eq)]
struct Misfit {
    span: Range<usize>,
    expected: String,
    /// What the span is of, where it is not the line at hand.
    text: Option<Vec<u8>>,
    /// The line's number, where it is not the line at hand.
    number: Option<u64>,
    /// Nothing after it can be read either.
    fatal: bool,
}

fn misfit(span: Range<usize>, expected: impl Into<String>) -> Misfit {
    Misfit {
        span,
        expected: expected.into(),
        text: None,
        number: None,
        fatal: false,
    }
}

impl Misfit {
    fn on(mut self, text: Vec<u8>) -> Self {
        self.text = Some(text);
        self
    }

    fn at(mut self, number: u64) -> Self {
        self.number = Some(number);
        self
    }

    fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }
}

fn too_many() -> String {
    format!("at most {MAX_COLUMNS} columns are expected")
}

/// The value of a column by its name.
fn typed(types: &[(String, Type)], name: &str, text: &[u8]) -> Result<value::Read, String> {
    let kind = types.iter().find(|(typed, _)| typed == name);
    let kind = kind.map_or(Type::Text, |(_, kind)| *kind);
    value::read(kind, text).map_err(str::to_owned)
}

/// Columns that are the same for all rows.
#[derive(Debug, Clone)]
struct Schema {
    columns: Vec<(Arc<str>, Type)>,
}

impl Schema {
    fn new(names: Vec<String>, types: &[(String, Type)]) -> Result<Self, String> {
        let kinds: HashMap<&str, Type> =
            types.iter().map(|(name, kind)| (&**name, *kind)).collect();
        if names.len() > MAX_COLUMNS {
            return Err(too_many());
        }
        let mut seen = HashSet::new();
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(format!(
                    "column {} has no name: say them in `names`",
                    at + 1
                ));
            }
            if !seen.insert(name.as_str()) {
                return Err(format!(
                    "two columns are named `{name}`: say others in `names`"
                ));
            }
        }
        if let Some((name, _)) = types.iter().find(|(name, _)| !seen.contains(name.as_str())) {
            let known = names.join(", ");
            return Err(format!(
                "`types` names a column `{name}`, but there are: {known}"
            ));
        }
        let kind = |name: &String| kinds.get(name.as_str()).copied().unwrap_or(Type::Text);
        Ok(Self {
            columns: names
                .iter()
                .map(|name| (name.as_str().into(), kind(name)))
                .collect(),
        })
    }

    fn len(&self) -> usize {
        self.columns.len()
    }

    /// A row of as many cells as there are columns.
    fn row<'c>(
        &self,
        cells: impl Iterator<Item = (&'c [u8], Range<usize>)>,
        end: usize,
    ) -> Result<Row, Misfit> {
        let mut row = Row::default();
        row.cells.reserve(self.columns.len());
        for ((name, kind), (text, span)) in self.columns.iter().zip(cells) {
            let (value, rounded) = value::read(*kind, text).map_err(|wanted| {
                let span = if span.is_empty() { 0..end } else { span };
                misfit(span, format!("`{name}`: {wanted}"))
            })?;
            row.approximate |= rounded;
            row.cells.push((Arc::clone(name), value));
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests;
