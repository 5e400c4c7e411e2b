//! `du` and `df`, of GNU, BusyBox and BSD: by position, in any language, the unit always known.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::value::{self, Kilo, Scaled};
use super::{Misfit, misfit};
use crate::rows::{Row, Unit, Value};

/// `du`: a size, a TAB, a path that may hold anything.
#[derive(Debug, Clone)]
pub(super) struct Du {
    unit: Unit,
    names: [Arc<str>; 2],
    /// With [`Unit::Unsaid`]: a bare number above 0 came, a suffix came.
    bare: bool,
    suffixed: bool,
}

impl Du {
    pub(super) fn new([size, path]: &[String; 2], unit: Unit) -> Self {
        Self {
            unit,
            names: [size.as_str().into(), path.as_str().into()],
            bare: false,
            suffixed: false,
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<Row, Misfit> {
        let tab = memchr::memchr(b'\t', line);
        let tab =
            tab.ok_or_else(|| misfit(0..line.len(), "a size, a TAB and a path are expected"))?;
        let size = number(&line[..tab], self.unit).map_err(|wanted| misfit(0..tab, wanted))?;
        if tab + 1 == line.len() {
            return Err(misfit(tab..line.len(), "a path is expected behind the TAB"));
        }
        self.bare |= !size.suffixed && size.number != 0;
        self.suffixed |= size.suffixed;
        if self.unit == Unit::Unsaid && self.bare && self.suffixed {
            return Err(misfit(
                0..tab,
                "bare numbers stand beside suffixes: say what they count, as `unit: human` for -h",
            ));
        }
        let path = Value::Text(Bytes::copy_from_slice(&line[tab + 1..]));
        let [name, path_name] = &self.names;
        Ok(Row {
            cells: vec![
                (Arc::clone(name), Value::Size(size.number)),
                (Arc::clone(path_name), path),
            ],
            approximate: size.suffixed,
        })
    }
}

/// A number in a unit; bare ones count blocks.
fn number(bytes: &[u8], unit: Unit) -> Result<Scaled, &'static str> {
    const SIZE: &str = "a size is expected";
    let text = std::str::from_utf8(bytes).map_err(|_| SIZE)?;
    let text = text.trim_matches(' ');
    let kilo = if unit == Unit::Si {
        Kilo::Decimal
    } else {
        Kilo::Binary
    };
    let block = match unit {
        Unit::Unsaid => 1024,
        Unit::Blocks(bytes) => i128::from(bytes),
        Unit::Human | Unit::Si => 1,
    };
    let read = value::scaled(text, kilo)?;
    if text.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(read);
    }
    let number = read.number.checked_mul(block);
    let fits = i128::from(i64::MIN)..=i128::from(u64::MAX);
    let number = number.filter(|n| fits.contains(n));
    Ok(Scaled {
        number: number.ok_or(value::TOO_LARGE)?,
        suffixed: false,
    })
}

/// `df`: which columns there are is read from the header, where they stand from each line.
#[derive(Debug, Clone)]
pub(super) struct Df {
    unit: Unit,
    header: Option<Header>,
    /// A device whose name was too long for its line: its numbers stand on the next one.
    long: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Header {
    unit: Unit,
    typed: bool,
    inodes: bool,
    /// Words between the percentage and the mount point: BSD shows inodes there.
    extra: usize,
    names: Vec<Arc<str>>,
}

impl Header {
    fn of(line: &[u8], said: Unit) -> Result<Self, Misfit> {
        let text = String::from_utf8_lossy(line);
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.len() < 4 || words.iter().any(|word| is_percent(word.as_bytes())) {
            return Err(misfit(
                0..line.len(),
                "the header of `df` is expected first",
            ));
        }
        let typed = words[1] == "Type";
        let numbers = &words[1 + usize::from(typed)..];
        let inodes = numbers.first().is_some_and(|word| {
            let word = word.to_lowercase();
            word.starts_with("inode") || word.starts_with("ino") && word != "info"
        });
        let unit = match said {
            Unit::Unsaid if inodes => Unit::Blocks(1),
            // "Size" of -h, in whatever language: no number is in it.
            Unit::Unsaid => words
                .iter()
                .find_map(|word| block(word))
                .map_or(Unit::Human, Unit::Blocks),
            said => said,
        };
        let columns: &[&str] = if inodes {
            &["inodes", "used", "free", "use", "mount"]
        } else {
            &["size", "used", "available", "use", "mount"]
        };
        let front: &[&str] = if typed {
            &["filesystem", "type"]
        } else {
            &["filesystem"]
        };
        Ok(Self {
            unit,
            typed,
            inodes,
            extra: if words.contains(&"iused") { 3 } else { 0 },
            names: front
                .iter()
                .chain(columns)
                .map(|name| (*name).into())
                .collect(),
        })
    }
}

/// Bytes of a block named in a header: `1K-blocks`, `512-blocks`, `1024-blocks`, `1MB-blocks`,
/// `1K-Blöcke`, and `1K` alone.
fn block(word: &str) -> Option<u64> {
    let word = word.split('-').next().unwrap_or(word);
    let starts = word.starts_with(|c: char| c.is_ascii_digit());
    let scaled = value::scaled(word, Kilo::Binary).ok().filter(|_| starts)?;
    u64::try_from(scaled.number).ok().filter(|n| *n > 0)
}

fn is_percent(word: &[u8]) -> bool {
    word.strip_suffix(b"%").is_some_and(|digits| {
        !digits.is_empty()
            && digits
                .iter()
                .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b',' | b'-'))
    })
}

/// Begins like a number, or stands for none.
fn is_number(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    word == b"-" || digits.first().is_some_and(u8::is_ascii_digit)
}

impl Df {
    pub(super) fn new(unit: Unit) -> Self {
        Self {
            unit,
            header: None,
            long: None,
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<Row>, Misfit> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let Some(header) = &self.header else {
            self.header = Some(Header::of(line, self.unit).map_err(Misfit::fatal)?);
            return Ok(None);
        };
        if let Some(mut long) = self.long.take() {
            long.extend_from_slice(line);
            return header.row(&long).map(Some).map_err(|bad| bad.on(long));
        }
        if words(line).len() == 1 {
            self.long = Some(line.to_vec());
            return Ok(None);
        }
        header.row(line).map(Some)
    }

    pub(super) fn finish(&mut self) -> Result<(), Misfit> {
        match self.long.take() {
            Some(line) => Err(misfit(
                line.len()..line.len(),
                "numbers are expected behind the name",
            )),
            None => Ok(()),
        }
    }
}

fn words(line: &[u8]) -> Vec<Range<usize>> {
    super::columns::words(line)
}

impl Header {
    fn row(&self, line: &[u8]) -> Result<Row, Misfit> {
        let words = words(line);
        let word = |at: usize| words.get(at).map_or(&[][..], |word| &line[word.clone()]);
        let first = 1 + usize::from(self.typed);
        let fits = |at: &usize| {
            let percent = word(*at + 3);
            (*at..*at + 3).all(|at| is_number(word(at))) && (is_percent(percent) || percent == b"-")
        };
        // A name may hold spaces, and even numbers; the percentage tells where the numbers end.
        let last = words.len().saturating_sub(4);
        let Some(at) = (first..=last).find(fits) else {
            return Err(misfit(
                0..line.len(),
                "three numbers, a percentage and a mount point are expected",
            ));
        };
        let mut row = Row::default();
        let name_end = words[at - 1 - usize::from(self.typed)].end;
        let mut values = vec![text(&line[words[0].start..name_end])];
        if self.typed {
            values.push(text(word(at - 1)));
        }
        for span in &words[at..at + 3] {
            let unit = if self.inodes {
                Unit::Blocks(1)
            } else {
                self.unit
            };
            if line[span.clone()] == *b"-" {
                values.push(Value::Null);
                continue;
            }
            let read = number(&line[span.clone()], unit);
            let read = read.map_err(|wanted| misfit(span.clone(), wanted))?;
            row.approximate |= read.suffixed;
            values.push(if self.inodes {
                Value::Int(read.number)
            } else {
                Value::Size(read.number)
            });
        }
        let percent = value::read(crate::rows::Type::Percent, word(at + 3));
        values.push(
            percent
                .map_err(|wanted| misfit(words[at + 3].clone(), wanted))?
                .0,
        );
        values.push(self.mount(line, words.get(at + 4 + self.extra))?);
        row.cells = self.names.iter().cloned().zip(values).collect();
        Ok(row)
    }

    /// The rest of the line; `-` of a sum is null.
    fn mount(&self, line: &[u8], first: Option<&Range<usize>>) -> Result<Value, Misfit> {
        let Some(first) = first else {
            return Err(misfit(line.len()..line.len(), "a mount point is expected"));
        };
        Ok(match &line[first.start..] {
            b"-" => Value::Null,
            rest => text(rest),
        })
    }
}

fn text(bytes: &[u8]) -> Value {
    Value::Text(Bytes::copy_from_slice(bytes))
}
