//! The named groups of a regular expression, line by line.

use std::sync::Arc;

use bytes::Bytes;
use regex::bytes::{Captures, Regex};

use super::{Misfit, misfit, typed};
use crate::rows::{Matching, Row, Type, Value};

/// The longest line in which all matches are sought: some expressions need time in the square of
/// it (regex, "Iterating over matches").
const LONGEST: usize = 64 << 10;

#[derive(Debug, Clone)]
pub(super) struct Matches {
    regex: Regex,
    matching: Matching,
    /// The named groups and their numbers.
    groups: Vec<(usize, Arc<str>)>,
    types: Arc<[(String, Type)]>,
    found: bool,
}

impl Matches {
    pub(super) fn new(regex: &Regex, matching: Matching, types: &Arc<[(String, Type)]>) -> Self {
        let named = |(at, name): (usize, Option<&str>)| name.map(|name| (at, Arc::from(name)));
        Self {
            groups: regex
                .capture_names()
                .enumerate()
                .filter_map(named)
                .collect(),
            regex: regex.clone(),
            matching,
            types: Arc::clone(types),
            found: false,
        }
    }

    pub(super) fn line(&mut self, line: &[u8], rows: &mut Vec<Row>) -> Result<(), Misfit> {
        match self.matching {
            Matching::First if self.found => {}
            Matching::First => {
                if let Some(captures) = self.regex.captures(line) {
                    self.found = true;
                    rows.push(self.row(&captures)?);
                }
            }
            Matching::Lines => match self.regex.captures(line) {
                Some(captures) => rows.push(self.row(&captures)?),
                None => {
                    let expected = format!("a match of `{}` is expected", self.regex);
                    return Err(misfit(0..line.len(), expected));
                }
            },
            Matching::All if line.len() > LONGEST => {
                let expected = format!("at most {} KiB a line are expected", LONGEST >> 10);
                return Err(misfit(0..line.len(), expected));
            }
            Matching::All => {
                for captures in self.regex.captures_iter(line) {
                    rows.push(self.row(&captures)?);
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Misfit> {
        if self.matching == Matching::First && !self.found {
            let expected = format!("a line that matches `{}` is expected", self.regex);
            return Err(misfit(0..0, expected).at(0));
        }
        Ok(())
    }

    fn row(&self, captures: &Captures<'_>) -> Result<Row, Misfit> {
        let mut row = Row::default();
        for (at, name) in &self.groups {
            let (value, rounded) = match captures.get(*at) {
                Some(found) => typed(&self.types, name, found.as_bytes())
                    .map_err(|wanted| misfit(found.range(), format!("`{name}`: {wanted}")))?,
                None => (Value::Null, false),
            };
            row.approximate |= rounded;
            row.cells.push((Arc::clone(name), value));
        }
        Ok(row)
    }
}

/// A whole line.
pub(super) fn whole_line(
    line: &[u8],
    name: &Arc<str>,
    types: &[(String, Type)],
) -> Result<Row, Misfit> {
    let read = match types.is_empty() {
        true => Ok((Value::Text(Bytes::copy_from_slice(line)), false)),
        false => typed(types, name, line),
    };
    let (value, approximate) = read.map_err(|wanted| misfit(0..line.len(), wanted))?;
    Ok(Row {
        cells: vec![(Arc::clone(name), value)],
        approximate,
    })
}
