//! The rows of one process: what its parser makes of the bytes, which row is the last that is wanted,
//! and what is kept for later tasks.
//!
//! Rows are made where output leaves the lane for the run loop, not where it comes in: while the
//! reader is slow, bytes wait (and go to the spill file), never rows, which are larger.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::job::{Job, ROWS_BYTES, ROWS_LIMIT};
use crate::outcome::{Failure, Outcome};
use crate::output::Parser;
use crate::output::parse::Unparsed;
use crate::rows::{BadLine, Predicate, Row};

/// The most bytes whose rows go into one event.
pub(super) const BLOCK: usize = 8 << 10;
/// The most rows of one event, where they do not come from a block of output.
const ROWS: usize = 1000;

/// One output becoming rows.
pub(super) struct Rowing {
    parser: Parser,
    stop_when: Option<Predicate>,
    /// The number of the next row, from 1.
    next: u64,
    /// Rows of earlier processes of the same task.
    before: u64,
    /// For later tasks, if they are wanted.
    kept: Option<Kept>,
    end: Option<RowsEnd>,
}

/// The first rows, as far as there is room for them.
#[derive(Default)]
struct Kept {
    rows: Vec<Json>,
    bytes: usize,
    full: bool,
}

/// Why no more rows are made.
pub(super) enum RowsEnd {
    /// A line does not fit.
    Bad(Box<BadLine>),
    /// The output ended too early, or with a line that does not fit.
    Short(Box<BadLine>),
    /// `stop_when` held.
    Enough,
}

/// What is left when the output is over.
pub(super) struct Rowed {
    pub(super) rows: Option<Vec<Json>>,
    /// How many rows there were.
    pub(super) total: u64,
    pub(super) unparsed: Unparsed,
    pub(super) end: Option<RowsEnd>,
}

/// Rows of one event, and the number of the first.
pub(super) type Numbered = (u64, Arc<[Row]>);

impl Rowing {
    /// For a job, if its output is parsed.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let parsing = job.parse.as_ref()?;
        Some(Self {
            parser: Parser::new(&parsing.spec),
            stop_when: parsing.stop_when.clone(),
            next: 1,
            before: 0,
            kept: job.keep.then(Kept::default),
            end: None,
        })
    }

    /// Goes on counting after the rows of processes before: a task's row numbers have no gap.
    pub(super) fn count_from(&mut self, before: u64) {
        (self.before, self.next) = (before, before + 1);
    }

    /// How many rows the task has had so far.
    pub(super) fn counted(&self) -> u64 {
        self.next - 1
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Takes output; gives the rows that it completes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<Numbered> {
        if self.is_over() {
            return None;
        }
        let mut rows = Vec::new();
        let pushed = self.parser.push(bytes, &mut rows);
        self.judge(pushed.err().map(RowsEnd::Bad), &mut rows);
        (!rows.is_empty()).then(|| self.number(&rows))
    }

    /// The process has ended its output; gives the rows that the end completes.
    pub(super) fn finish(&mut self) -> Vec<Numbered> {
        if self.is_over() {
            return Vec::new();
        }
        let mut rows = Vec::new();
        let finished = self.parser.finish(&mut rows);
        self.judge(finished.err().map(RowsEnd::Short), &mut rows);
        rows.chunks(ROWS).map(|rows| self.number(rows)).collect()
    }

    pub(super) fn into_rowed(self) -> Rowed {
        Rowed {
            rows: self.kept.map(|kept| kept.rows),
            total: self.next - 1 - self.before,
            unparsed: self.parser.into_unparsed(),
            end: self.end,
        }
    }

    /// Rows behind the last one that is wanted are left out, and so is what is wrong there.
    fn judge(&mut self, end: Option<RowsEnd>, rows: &mut Vec<Row>) {
        self.end = end;
        let Some(stop_when) = &self.stop_when else {
            return;
        };
        let judged = rows.iter().map(|row| stop_when.holds(row)).enumerate();
        for (at, holds) in judged {
            self.end = Some(match holds {
                Ok(false) => continue,
                Ok(true) => RowsEnd::Enough,
                Err(reason) => {
                    let number = self.next + at as u64;
                    let expected = format!("row {number}: {reason}");
                    RowsEnd::Bad(Box::new(BadLine::new("stop_when", 0, b"", 0..0, expected)))
                }
            });
            rows.truncate(at + 1);
            return;
        }
    }

    fn number(&mut self, rows: &[Row]) -> Numbered {
        let first = self.next;
        self.next += rows.len() as u64;
        if let Some(kept) = &mut self.kept {
            rows.iter().for_each(|row| kept.add(row));
        }
        (first, rows.into())
    }
}

impl Kept {
    /// Takes a row while there is room; once one is left out, so are all that follow.
    fn add(&mut self, row: &Row) {
        if self.full || self.rows.len() >= ROWS_LIMIT {
            return self.full = true;
        }
        let row = Json::Object(row.fields());
        self.bytes += weight(&row);
        self.full = self.bytes > ROWS_BYTES;
        if !self.full {
            self.rows.push(row);
        }
    }
}

/// About how many bytes of memory a value takes: an entry of a map is 104 without its texts.
fn weight(json: &Json) -> usize {
    112 + match json {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(map) => map
            .iter()
            .map(|(key, value)| key.len() + weight(value))
            .sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    }
}

/// What rows make of an ending. What was decided while the command ran counts for more than its exit
/// status, which may or may not have come before the decision; what its output lacks at the end, for
/// less.
pub(super) fn judged(outcome: Outcome, end: Option<RowsEnd>) -> Outcome {
    match (outcome, end) {
        (Outcome::Ok { .. } | Outcome::Failed(Failure::Exit(_)), Some(RowsEnd::Bad(bad)))
        | (Outcome::Ok { .. }, Some(RowsEnd::Short(bad))) => Outcome::Failed(Failure::Parse(bad)),
        (Outcome::Ok { .. } | Outcome::Failed(Failure::Exit(_)), Some(RowsEnd::Enough)) => {
            Outcome::Ok { status: None }
        }
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ExitStatus;
    use crate::rows::Value;

    fn row(value: Value) -> Row {
        Row {
            cells: vec![("a".into(), value)],
            approximate: false,
        }
    }

    #[test]
    fn later_tasks_find_the_first_rows_and_no_more_than_fit() {
        let mut kept = Kept::default();
        let short = row(Value::Int(1));
        (0..ROWS_LIMIT + 1).for_each(|_| kept.add(&short));
        assert_eq!((kept.rows.len(), kept.full), (ROWS_LIMIT, true));

        let mut kept = Kept::default();
        let long = row(Value::Text(vec![b'x'; 1 << 20].into()));
        let wide = row(Value::Nested(Json::Array(vec![Json::Null; 300_000])));
        (0..100).for_each(|_| kept.add(&long));
        kept.add(&wide);
        // There would be room for it, but not in its place.
        kept.add(&short);
        assert_eq!((kept.rows.len(), kept.full), (100, true));
    }

    #[test]
    fn rows_judge_what_the_status_does_not_know() {
        let exit = |code| Outcome::Failed(Failure::Exit(ExitStatus::Exited(code)));
        let fine = Outcome::Ok {
            status: Some(ExitStatus::Exited(0)),
        };
        let lost = Outcome::Lost {
            reason: "reset".into(),
        };
        let bad = || Box::new(BadLine::new("du", 1, b"x", 0..1, "a size".into()));
        let failed = Outcome::Failed(Failure::Parse(bad()));
        let stopped = Outcome::Ok { status: None };
        let cases = [
            (fine.clone(), None, fine.clone()),
            (fine.clone(), Some(RowsEnd::Bad(bad())), failed.clone()),
            (fine.clone(), Some(RowsEnd::Short(bad())), failed.clone()),
            (fine, Some(RowsEnd::Enough), stopped.clone()),
            (exit(3), Some(RowsEnd::Bad(bad())), failed),
            (exit(3), Some(RowsEnd::Short(bad())), exit(3)),
            (exit(3), Some(RowsEnd::Enough), stopped),
            (lost.clone(), Some(RowsEnd::Bad(bad())), lost.clone()),
            (lost.clone(), Some(RowsEnd::Enough), lost),
        ];
        for (outcome, end, expected) in cases {
            assert_eq!(judged(outcome, end), expected);
        }
    }
}
