//! Values between commas or tabs, as RFC 4180 has them: a quoted cell may hold delimiters, doubled
//! quotes and newlines. As in the csv crate, a quote inside of a plain cell is a character.

use std::ops::Range;
use std::sync::Arc;

use super::{MAX_LINE, Misfit, Schema, misfit};
use crate::rows::{Row, Type};

#[derive(Debug, Clone)]
pub(super) struct Separated {
    delimiter: u8,
    header: bool,
    names: Vec<String>,
    types: Arc<[(String, Type)]>,
    schema: Option<Schema>,
    begun: bool,
    record: Record,
}

/// The record at hand, which may go on over several lines.
#[derive(Debug, Clone, Default)]
struct Record {
    /// The line it began on.
    number: u64,
    raw: Vec<u8>,
    cells: Vec<(Vec<u8>, Range<usize>)>,
    cell: Vec<u8>,
    start: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Start,
    Plain,
    Quoted,
    /// Behind a quote that closes the cell, unless another follows.
    Closed,
}

impl Separated {
    pub(super) fn new(
        delimiter: u8,
        header: bool,
        names: &[String],
        types: &Arc<[(String, Type)]>,
    ) -> Self {
        Self {
            delimiter,
            header,
            names: names.to_vec(),
            types: Arc::clone(types),
            schema: None,
            begun: false,
            record: Record::default(),
        }
    }

    pub(super) fn line(&mut self, line: &[u8], number: u64) -> Result<Option<Row>, Misfit> {
        let mut line = line;
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if self.record.raw.is_empty() {
            if line.is_empty() || line == b"\r" {
                return Ok(None);
            }
            self.record.number = number;
        }
        let done = match self.record.take(line, self.delimiter) {
            Ok(done) => done,
            Err(bad) => return Err(self.lost(bad)),
        };
        if !done {
            return Ok(None);
        }
        let record = std::mem::take(&mut self.record);
        let (raw, number) = (record.raw, record.number);
        self.row(record.cells, raw.len())
            .map_err(|bad| bad.on(raw).at(number))
    }

    pub(super) fn finish(&mut self) -> Result<(), Misfit> {
        if self.record.raw.is_empty() {
            return Ok(());
        }
        let start = self.record.start;
        Err(self.lost(misfit(
            start..start + 1,
            "the quote that begins here is never closed",
        )))
    }

    fn lost(&mut self, bad: Misfit) -> Misfit {
        let record = std::mem::take(&mut self.record);
        bad.on(record.raw).at(record.number)
    }

    fn row(
        &mut self,
        cells: Vec<(Vec<u8>, Range<usize>)>,
        end: usize,
    ) -> Result<Option<Row>, Misfit> {
        let Some(schema) = &self.schema else {
            let named = !self.names.is_empty();
            let names = if named {
                std::mem::take(&mut self.names)
            } else {
                let text = |(cell, _): &(Vec<u8>, _)| String::from_utf8_lossy(cell).into_owned();
                cells.iter().map(text).collect()
            };
            let schema = Schema::new(names, &self.types);
            self.schema = Some(schema.map_err(|why| misfit(0..end, why).fatal())?);
            return if self.header {
                Ok(None)
            } else {
                self.row(cells, end)
            };
        };
        if cells.len() != schema.len() {
            let expected = format!(
                "{} cells are expected, here are {}",
                schema.len(),
                cells.len()
            );
            let from = cells.get(schema.len()).map_or(0, |(_, span)| span.start);
            return Err(misfit(from..end, expected));
        }
        let cells = cells.iter().map(|(cell, span)| (&cell[..], span.clone()));
        schema.row(cells, end).map(Some)
    }
}

impl Record {
    /// Takes a line; true when the record ends with it.
    fn take(&mut self, line: &[u8], delimiter: u8) -> Result<bool, Misfit> {
        let base = self.raw.len();
        if base + line.len() > MAX_LINE {
            let start = self.start;
            let expected = format!("a quote is expected to close within {} KiB", MAX_LINE >> 10);
            return Err(misfit(start..start + 1, expected).fatal());
        }
        self.raw.extend_from_slice(line);
        for (at, byte) in line.iter().enumerate() {
            self.byte(*byte, base + at, delimiter, at + 1 == line.len())?;
        }
        if self.state == State::Quoted {
            self.cell.push(b'\n');
            self.raw.push(b'\n');
            return Ok(false);
        }
        self.end_cell(self.raw.len());
        Ok(true)
    }

    fn byte(&mut self, byte: u8, at: usize, delimiter: u8, last: bool) -> Result<(), Misfit> {
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Closed,
            (State::Quoted, _) => self.cell.push(byte),
            (State::Closed, b'"') => {
                self.cell.push(b'"');
                self.state = State::Quoted;
            }
            (_, b'\r') if last => {}
            (_, byte) if byte == delimiter => {
                self.end_cell(at);
                self.start = at + 1;
            }
            (State::Closed, _) => {
                return Err(misfit(
                    at..at + 1,
                    "the end of the cell is expected behind its closing quote",
                ));
            }
            (State::Start, b'"') => self.state = State::Quoted,
            (State::Start | State::Plain, _) => {
                self.state = State::Plain;
                self.cell.push(byte);
            }
        }
        Ok(())
    }

    fn end_cell(&mut self, at: usize) {
        let cell = std::mem::take(&mut self.cell);
        self.cells.push((cell, self.start..at));
        self.state = State::Start;
    }
}
