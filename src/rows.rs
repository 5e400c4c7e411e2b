//! Rows: what a task's output becomes when it is parsed, how that is asked for, and how rows are
//! shown as a table.
//!
//! Numbers keep what they count (bytes, percent, time), so that people read `1.2 GiB` and programs
//! the exact number.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use crate::text::{printable, width};

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: `-` of df, an empty cell of a typed column.
    Null,
    /// Yes or no.
    Bool(bool),
    /// From -2^63 to 2^64 - 1.
    Int(i128),
    /// Finite.
    Float(f64),
    /// As it was written, exactly; not necessarily UTF-8.
    Text(Bytes),
    /// Bytes, from -2^63 (df of a full BSD disk) to 2^64 - 1.
    Size(i128),
    /// 94.5 is 94.5 %.
    Percent(f64),
    /// A length of time.
    Duration(Duration),
    /// A point in time.
    Time(jiff::Timestamp),
    /// A list or mapping inside of JSON.
    Nested(Json),
}

/// One row: columns in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Names and values; names are unique.
    pub cells: Vec<(Arc<str>, Value)>,
    /// A number was read from a rounded one, such as `1.5G`.
    pub approximate: bool,
}

impl Row {
    /// The value of a column.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let mut cells = self.cells.iter();
        cells
            .find(|(name, _)| &**name == column)
            .map(|(_, value)| value)
    }

    /// For machines and templates: sizes in bytes, percents as numbers, durations in seconds, times
    /// as RFC 3339 in UTC, text with `NAME_b64` (base64) beside it where it is not UTF-8.
    #[must_use]
    pub fn fields(&self) -> Map<String, Json> {
        let mut map = Map::new();
        for (name, value) in &self.cells {
            map.insert((**name).to_owned(), value.json());
            if let Value::Text(bytes) = value
                && std::str::from_utf8(bytes).is_err()
            {
                map.insert(format!("{name}_b64"), json!(STANDARD.encode(bytes)));
            }
        }
        map
    }
}

impl Value {
    /// For machines; see [`Row::fields`].
    #[must_use]
    pub fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(yes) => json!(yes),
            Self::Int(n) | Self::Size(n) => match u64::try_from(*n) {
                Ok(n) => json!(n),
                Err(_) => json!(i64::try_from(*n).unwrap_or(i64::MIN)),
            },
            Self::Float(number) | Self::Percent(number) => number_json(*number),
            Self::Text(bytes) => json!(String::from_utf8_lossy(bytes)),
            Self::Duration(time) => number_json(time.as_secs_f64()),
            Self::Time(time) => json!(time.to_string()),
            Self::Nested(json) => json.clone(),
        }
    }

    /// Whether it is a number, which stands at the right of its column.
    #[must_use]
    pub fn is_number(&self) -> bool {
        match self {
            Self::Int(_)
            | Self::Float(_)
            | Self::Size(_)
            | Self::Percent(_)
            | Self::Duration(_) => true,
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::Time(_) | Self::Nested(_) => false,
        }
    }

    /// The order of a sorted table: nothing first, then numbers, times, text by its bytes, the rest.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |value: &Self| match value {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Size(_) | Self::Float(_) | Self::Percent(_) => 2,
            Self::Duration(_) => 3,
            Self::Time(_) => 4,
            Self::Text(_) => 5,
            Self::Nested(_) => 6,
        };
        match (self, other) {
            (Self::Int(a) | Self::Size(a), Self::Int(b) | Self::Size(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Duration(a), Self::Duration(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Nested(a), Self::Nested(b)) => a.to_string().cmp(&b.to_string()),
            (a, b) => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => a.total_cmp(&b),
                _ => rank(a).cmp(&rank(b)),
            },
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "only for the order of mixed kinds"
    )]
    fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(n) | Self::Size(n) => Some(*n as f64),
            Self::Float(n) | Self::Percent(n) => Some(*n),
            Self::Null
            | Self::Bool(_)
            | Self::Text(_)
            | Self::Duration(_)
            | Self::Time(_)
            | Self::Nested(_) => None,
        }
    }
}

/// `94`, not `94.0`, where that is the same number.
#[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
fn number_json(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        json!(number as i64)
    } else {
        json!(number)
    }
}

/// The kind of value that a column's text is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// As it stands.
    Text,
    /// A whole number of at most 64 bits.
    Int,
    /// A finite number.
    Float,
    /// `true`, `yes`, `on`, `1` and their opposites.
    Bool,
    /// `94%` or `94`.
    Percent,
    /// Bytes: `512`, `1.5G` (powers of 1024), `10MB` (of 1000), `10MiB`.
    Size,
    /// `1h30m`, `1min 2s`, `2-03:04:05` of ps, or seconds.
    Duration,
    /// RFC 3339, or seconds since 1970.
    Datetime,
}

impl Type {
    /// Words of a playbook.
    pub const WORDS: [(&'static str, Self); 8] = [
        ("text", Self::Text),
        ("int", Self::Int),
        ("float", Self::Float),
        ("bool", Self::Bool),
        ("percent", Self::Percent),
        ("size", Self::Size),
        ("duration", Self::Duration),
        ("datetime", Self::Datetime),
    ];
}

/// How output is read.
#[derive(Debug, Clone)]
pub struct ParseSpec {
    /// What it looks like.
    pub format: Format,
    /// Columns whose text is more than text.
    pub types: Vec<(String, Type)>,
    /// A line that does not fit ends the task; otherwise it is kept aside.
    pub strict: bool,
}

impl ParseSpec {
    /// Strict, and without types.
    #[must_use]
    pub fn of(format: Format) -> Self {
        Self {
            format,
            types: Vec::new(),
            strict: true,
        }
    }
}

/// What output looks like.
#[derive(Debug, Clone)]
pub enum Format {
    /// `du`: a size, a TAB, a path.
    Du {
        /// Of the two columns.
        names: [String; 2],
        /// What a bare number counts.
        unit: Unit,
        /// Lines end with NUL (`-0`), so that paths may hold newlines.
        zero: bool,
    },
    /// `df`, with or without `-P`, `-h`, `-i`, `-T`. Columns `filesystem`, `type` (with `-T`), `size`,
    /// `used`, `available` (with `-i`: `inodes`, `used`, `free`), `use`, `mount`.
    Df {
        /// What a bare number counts; [`Unit::Unsaid`] is what the header says.
        unit: Unit,
    },
    /// One row a line, with the column `line`.
    Lines,
    /// Columns of text.
    Columns(Columns),
    /// `key=value` lines.
    Pairs(Pairs),
    /// One JSON text.
    Json {
        /// Where in it the list of rows is: `["data", "items"]`.
        path: Vec<String>,
    },
    /// A JSON text on each line.
    Ndjson,
    /// Comma- or tab-separated values as in RFC 4180: quoted cells may hold newlines.
    Separated {
        /// `,` or TAB.
        delimiter: u8,
        /// Whether the first record names the columns.
        header: bool,
        /// Names of the columns, in place of the header's.
        names: Vec<String>,
    },
    /// The named groups of a regular expression.
    Regex {
        /// Compiled; it has at least one named group.
        pattern: regex::bytes::Regex,
        /// How it is applied.
        matching: Matching,
    },
}

impl Format {
    /// The columns of `du` where nobody names them.
    pub const DU: [&'static str; 2] = ["size", "path"];

    /// Its name in a playbook.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Du { .. } => "du",
            Self::Df { .. } => "df",
            Self::Lines => "lines",
            Self::Columns(_) => "columns",
            Self::Pairs(_) => "kv",
            Self::Json { .. } => "json",
            Self::Ndjson => "ndjson",
            Self::Separated {
                delimiter: b',', ..
            } => "csv",
            Self::Separated { .. } => "tsv",
            Self::Regex { .. } => "regex",
        }
    }
}

/// What a bare number of `du` and `df` counts, and what the suffixes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// du: KiB, as GNU and BusyBox count, unless there are suffixes too, which is an error: then it
    /// is not known what a bare number is. df: what the header says.
    #[default]
    Unsaid,
    /// Blocks of so many bytes.
    Blocks(u64),
    /// `-h`: bytes; suffixes are powers of 1024.
    Human,
    /// `--si`: bytes; suffixes are powers of 1000.
    Si,
}

/// Columns of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// How a line is cut.
    pub split: Split,
    /// Names of the columns; where there are none, the header's.
    pub names: Vec<String>,
    /// Whether the first line is a header.
    pub header: bool,
    /// The last column is the rest of the line.
    pub last_rest: bool,
    /// Lines before all others that are left out.
    pub skip: usize,
}

/// How a line is cut into columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Split {
    /// At runs of spaces and tabs.
    #[default]
    Whitespace,
    /// Where the header's names begin, which stand two spaces or more apart (`docker ps`).
    Aligned,
    /// At every occurrence of this text, such as a TAB or `:`.
    At(String),
}

/// Lines of `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// Between the key and its value; the first one in a line counts.
    pub separator: String,
    /// Values are quoted as in a shell, and `#` begins a comment (`/etc/os-release`).
    pub quotes: bool,
    /// Blank lines stand between rows (`systemctl show a b`); otherwise all lines are one row.
    pub blocks: bool,
}

/// How a regular expression is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matching {
    /// To every line: each must match, and gives one row.
    #[default]
    Lines,
    /// The first line that matches gives the only row.
    First,
    /// Every match in every line gives a row; lines without one are left out.
    All,
}

/// A line that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The format's name.
    pub format: &'static str,
    /// Counted from 1; 0 is the output as a whole.
    pub number: u64,
    /// The line, or the part of it around the span.
    pub text: Bytes,
    /// The bytes of `text` that are meant.
    pub span: Range<usize>,
    /// What would have fit: `a size and a TAB`.
    pub expected: String,
}

/// Bytes of a bad line that are kept.
const EXCERPT: usize = 160;

impl BadLine {
    /// Keeps what lies around the span.
    #[must_use]
    pub fn new(
        format: &'static str,
        number: u64,
        line: &[u8],
        span: Range<usize>,
        expected: String,
    ) -> Self {
        let start = span.start.min(line.len());
        let end = span.end.clamp(start, line.len());
        let from = if line.len() <= EXCERPT {
            0
        } else {
            start.saturating_sub(EXCERPT / 3)
        };
        let to = line.len().min(from + EXCERPT);
        Self {
            format,
            number,
            text: Bytes::copy_from_slice(&line[from..to]),
            span: start - from..end.min(to).max(start) - from,
            expected,
        }
    }

    /// The line with its number, and below it the underline; harmless on a terminal. Nothing where
    /// there is no line to show.
    #[must_use]
    pub fn drawn(&self) -> Vec<String> {
        if self.number == 0 {
            return Vec::new();
        }
        let shown = |range: Range<usize>| {
            let bytes = self.text.get(range).unwrap_or_default();
            printable(bytes).replace('\t', " ")
        };
        let (before, inside) = (shown(0..self.span.start), shown(self.span.clone()));
        let after = shown(self.span.end..self.text.len());
        let number = self.number.to_string();
        let margin = " ".repeat(number.len());
        let (room, mark) = (
            " ".repeat(width(&before)),
            "^".repeat(width(&inside).max(1)),
        );
        vec![
            format!("{number} | {before}{inside}{after}"),
            format!("{margin} | {room}{mark}"),
        ]
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (format, expected) = (self.format, &self.expected);
        match self.number {
            0 => write!(f, "the output does not fit `{format}`: {expected}"),
            n => write!(
                f,
                "line {n} of the output does not fit `{format}`: {expected}"
            ),
        }
    }
}

/// Says of a row whether it is the last one that is wanted.
#[derive(Clone)]
pub struct Predicate(Arc<Judge>);

type Judge = dyn Fn(&Row) -> Result<bool, String> + Send + Sync;

impl Predicate {
    /// From a function, whose error is one line.
    #[must_use]
    pub fn new(judge: impl Fn(&Row) -> Result<bool, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(judge))
    }

    /// Whether the row is the last one.
    ///
    /// # Errors
    /// One line: why it cannot be told.
    pub fn holds(&self, row: &Row) -> Result<bool, String> {
        (self.0)(row)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate")
    }
}

/// What a job does with its standard output.
#[derive(Debug, Clone)]
pub struct Parsing {
    /// How it is read.
    pub spec: ParseSpec,
    /// After the first row for which this holds, the command is ended, and well.
    pub stop_when: Option<Predicate>,
    /// Rows are shown as a table in place of the lines.
    pub table: Option<Arc<TableSpec>>,
}

/// How rows become a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSpec {
    /// Tables of the same name are one table, drawn at the end of the run.
    pub name: Option<String>,
    /// Which columns, in this order; all where there are none. `host` is one.
    pub columns: Vec<String>,
    /// Sorted by this column, and whether from the largest down.
    pub sort: Option<(String, bool)>,
    /// Only the first rows after sorting.
    pub limit: Option<usize>,
    /// A line of sums below.
    pub total: Total,
    /// Values of one column become columns.
    pub pivot: Option<Pivot>,
}

/// What is summed up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Total {
    /// Nothing.
    #[default]
    None,
    /// Sizes, whole numbers and durations.
    All,
    /// These columns.
    Of(Vec<String>),
}

/// A table turned so that the values of one column head its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pivot {
    /// Whose values begin the lines.
    pub row: String,
    /// Whose values head the columns.
    pub column: String,
    /// Whose values fill the table.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_underlined_where_it_is_bad() {
        let bad = BadLine::new("du", 12, b"12K\tcaf\xc3\xa9\x1b", 0..3, "a size".into());
        assert_eq!(bad.drawn(), ["12 | 12K café\\x1b", "   | ^^^"]);
        let text = "line 12 of the output does not fit `du`: a size";
        assert_eq!(bad.to_string(), text);
    }

    #[test]
    fn a_long_bad_line_is_cut_around_its_fault() {
        let line = vec![b'x'; 1 << 20];
        let bad = BadLine::new("du", 1, &line, 500_000..700_000, String::new());
        assert_eq!(bad.text.len(), EXCERPT);
        assert_eq!(bad.span, EXCERPT / 3..EXCERPT);
        let bad = BadLine::new("du", 1, b"", 5..9, String::new());
        assert_eq!(bad.drawn(), ["1 | ", "  | ^"]);
    }

    #[test]
    fn machines_get_exact_numbers_and_bytes() {
        let cell = |name: &str, value| (Arc::from(name), value);
        let row = Row {
            cells: vec![
                cell("size", Value::Size(i128::from(u64::MAX))),
                cell("less", Value::Int(-3)),
                cell("use", Value::Percent(94.0)),
                cell("path", Value::Text(Bytes::from_static(b"a\xff"))),
                cell("none", Value::Null),
            ],
            approximate: false,
        };
        let expected = json!({
            "size": u64::MAX, "less": -3, "use": 94, "path": "a\u{fffd}", "path_b64": "Yf8=",
            "none": null,
        });
        assert_eq!(Json::Object(row.fields()), expected);
    }

    #[test]
    fn numbers_of_different_kinds_have_an_order() {
        let mut values = [
            Value::Text(Bytes::from_static(b"a")),
            Value::Float(1.5),
            Value::Size(2),
            Value::Null,
            Value::Int(1),
        ];
        values.sort_by(Value::order);
        let expected = [
            Value::Null,
            Value::Int(1),
            Value::Float(1.5),
            Value::Size(2),
            Value::Text(Bytes::from_static(b"a")),
        ];
        assert_eq!(values, expected);
    }
}
