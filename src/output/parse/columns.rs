//! Columns of text: cut at white space, where a header's names stand, or at a separator.

use std::ops::Range;
use std::sync::Arc;

use super::{Misfit, Schema, misfit};
use crate::rows::{Columns as Spec, Row, Split, Type};

/// Where the words of a line stand.
pub(super) fn words(line: &[u8]) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, byte) in line.iter().enumerate() {
        match (byte.is_ascii_whitespace(), start) {
            (true, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            (false, None) => start = Some(at),
            (true, None) | (false, Some(_)) => {}
        }
    }
    words.extend(start.map(|from| from..line.len()));
    words
}

/// Lines of columns.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    spec: Arc<Spec>,
    types: Arc<[(String, Type)]>,
    schema: Option<Schema>,
    /// Where the columns begin, in characters; of [`Split::Aligned`].
    starts: Vec<usize>,
    skipped: usize,
    headed: bool,
}

impl Columns {
    pub(super) fn new(spec: &Spec, types: &Arc<[(String, Type)]>) -> Self {
        Self {
            spec: Arc::new(spec.clone()),
            types: Arc::clone(types),
            schema: None,
            starts: Vec::new(),
            skipped: 0,
            headed: false,
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<Row>, Misfit> {
        if self.skipped < self.spec.skip {
            self.skipped += 1;
            return Ok(None);
        }
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        if self.spec.header && !self.headed {
            self.headed = true;
            self.header(line).map_err(Misfit::fatal)?;
            return Ok(None);
        }
        if self.schema.is_none() {
            let names = self.spec.names.clone();
            let schema = Schema::new(names, &self.types);
            self.schema = Some(schema.map_err(|why| misfit(0..line.len(), why).fatal())?);
        }
        let Some(schema) = &self.schema else {
            return Ok(None);
        };
        let spans = self.cut(line, schema.len())?;
        let cells = spans.into_iter().map(|span| (&line[span.clone()], span));
        schema.row(cells, line.len()).map(Some)
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Misfit> {
        let spans = match &self.spec.split {
            Split::Whitespace => words(line),
            Split::Aligned => names_apart(line),
            Split::At(separator) => pieces(line, separator.as_bytes(), usize::MAX),
        };
        if self.spec.split == Split::Aligned {
            let column = |span: &Range<usize>| characters(&line[..span.start]);
            self.starts = spans.iter().map(column).collect();
        }
        let names = if self.spec.names.is_empty() {
            spans
                .into_iter()
                .map(|span| plain_name(&line[span]))
                .collect()
        } else {
            self.spec.names.clone()
        };
        let wrong = |why| misfit(0..line.len(), why);
        if self.spec.split == Split::Aligned && names.len() != self.starts.len() {
            return Err(wrong(format!(
                "{} columns are expected, as `names` says",
                names.len()
            )));
        }
        self.schema = Some(Schema::new(names, &self.types).map_err(wrong)?);
        Ok(())
    }

    fn cut(&self, line: &[u8], columns: usize) -> Result<Vec<Range<usize>>, Misfit> {
        let spans = match &self.spec.split {
            Split::Aligned => return self.cut_aligned(line),
            Split::Whitespace => {
                let mut words = words(line);
                if self.spec.last_rest && words.len() > columns {
                    words.truncate(columns);
                    if let Some(last) = words.last_mut() {
                        last.end = line.trim_ascii_end().len();
                    }
                }
                words
            }
            Split::At(separator) => {
                let most = if self.spec.last_rest {
                    columns
                } else {
                    usize::MAX
                };
                pieces(line, separator.as_bytes(), most)
            }
        };
        if spans.len() == columns {
            return Ok(spans);
        }
        let (span, found) = match spans.get(columns) {
            Some(more) => (more.start..line.len(), spans.len()),
            None => (0..line.len(), spans.len()),
        };
        let expected = format!("{columns} columns are expected, here are {found}");
        Err(misfit(span, expected))
    }

    /// Every cell lies below its name; the last one goes to the end of the line.
    fn cut_aligned(&self, line: &[u8]) -> Result<Vec<Range<usize>>, Misfit> {
        let mut starts = self.starts.iter().copied().peekable();
        let mut bounds = Vec::with_capacity(self.starts.len() + 1);
        let boundaries = (0..=line.len()).filter(|at| is_boundary(line, *at));
        for (column, at) in boundaries.enumerate() {
            if starts.peek() == Some(&column) {
                starts.next();
                let alone = at == 0 || line[at - 1] == b' ' || bounds.is_empty();
                if !alone {
                    return Err(misfit(
                        at - 1..at + 1,
                        "a space is expected between two columns",
                    ));
                }
                bounds.push(at);
            }
        }
        bounds.resize(self.starts.len() + 1, line.len());
        let trimmed = |pair: &[usize]| {
            let cell = &line[pair[0]..pair[1]];
            let start = pair[0] + (cell.len() - cell.trim_ascii_start().len());
            start..start + cell.trim_ascii().len()
        };
        Ok(bounds.windows(2).map(trimmed).collect())
    }
}

/// Whether a character begins here; other bytes than UTF-8 count one each.
fn is_boundary(line: &[u8], at: usize) -> bool {
    line.get(at).is_none_or(|byte| !(0x80..0xC0).contains(byte))
}

fn characters(bytes: &[u8]) -> usize {
    (0..bytes.len())
        .filter(|at| is_boundary(bytes, *at))
        .count()
}

/// Names that hold single spaces and stand two or more apart.
fn names_apart(line: &[u8]) -> Vec<Range<usize>> {
    let mut names: Vec<Range<usize>> = Vec::new();
    for word in words(line) {
        match names.last_mut() {
            Some(last) if word.start - last.end == 1 => last.end = word.end,
            Some(_) | None => names.push(word),
        }
    }
    names
}

fn pieces(line: &[u8], separator: &[u8], most: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for at in memchr::memmem::find_iter(line, separator) {
        if pieces.len() + 1 >= most {
            break;
        }
        pieces.push(from..at);
        from = at + separator.len();
    }
    pieces.push(from..line.len());
    pieces
}

/// A header's name as a name in expressions: lower case, `_` for what is neither letter nor digit.
fn plain_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).to_lowercase();
    let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    name.trim_matches('_').to_owned()
}
