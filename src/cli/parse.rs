//! `fanrun parse`

use std::io::{IsTerminal, Read};
use std::sync::Arc;

use super::args::{Parse as Args, RowsFormat};
use super::{End, Fault, printer, settings};
use crate::diagnostic::{Diagnostic, Source};
use crate::output::Parser;
use crate::plan;
use crate::playbook::{self, Scope};
use crate::recap::Verdict;
use crate::report::{diagnostics, rows};
use crate::rows::{BadLine, Predicate, Row, TableSpec};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// How reading ended before the text did.
enum Early {
    Bad(Box<BadLine>),
    /// `stop_when` could not be told.
    Unsure(String),
    /// `stop_when` held.
    Enough,
}

pub(super) fn parse(args: &Args) -> Result<End, Fault> {
    let source = Arc::new(Source {
        path: "<command line>".into(),
        text: args.spec.as_str().into(),
    });
    let parse = playbook::load_parse(&source).map_err(Fault::Wrong)?;
    let stop_when = parse.stop_when.as_ref();
    let stop_when = stop_when.map(|when| plan::on_rows(when, &Scope::default()));
    let format = args.format.unwrap_or(if std::io::stdout().is_terminal() {
        RowsFormat::Table
    } else {
        RowsFormat::Ndjson
    });
    let mut out = Out {
        format,
        kept: Vec::new(),
        any: false,
    };
    let mut parser = Parser::new(&parse.spec);
    let early = read(&mut parser, stop_when.as_ref(), &mut out)?;
    out.end().map_err(Fault::Output)?;
    let colour = settings::colour(args.color);
    for bad in parser.into_unparsed().lines {
        tell(&Diagnostic::warning(bad.to_string()), &bad.drawn(), colour);
    }
    let (message, drawn) = match early {
        None | Some(Early::Enough) => return Ok(End::Code(0)),
        Some(Early::Bad(bad)) => (bad.to_string(), bad.drawn()),
        Some(Early::Unsure(reason)) => (format!("`stop_when`: {reason}"), Vec::new()),
    };
    tell(&Diagnostic::error(message), &drawn, colour);
    Ok(End::Code(Verdict::TaskFailed.code()))
}

fn tell(diagnostic: &Diagnostic, drawn: &[String], colour: bool) {
    let mut text = diagnostics::draw(std::slice::from_ref(diagnostic), colour);
    for line in drawn {
        text.push_str(&format!("  {line}\n"));
    }
    printer::print_talk(&text);
}

/// Reads standard input to its end, or until no more rows are to be had.
fn read(
    parser: &mut Parser,
    stop_when: Option<&Predicate>,
    out: &mut Out,
) -> Result<Option<Early>, Fault> {
    let mut input = std::io::stdin().lock();
    let mut piece = vec![0; PIECE];
    loop {
        let length = match input.read(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let text = format!("standard input could not be read: {error}");
                return Err(Fault::usage(text));
            }
        };
        let mut rows = Vec::new();
        let parsed = if length == 0 {
            parser.finish(&mut rows)
        } else {
            parser.push(&piece[..length], &mut rows)
        };
        let early = parsed.err().map(Early::Bad);
        let early = cut(&mut rows, stop_when).or(early);
        out.take(rows).map_err(Fault::Output)?;
        if early.is_some() || length == 0 {
            return Ok(early);
        }
    }
}

/// Leaves the rows out that come after the last one that is wanted.
fn cut(rows: &mut Vec<Row>, stop_when: Option<&Predicate>) -> Option<Early> {
    let stop_when = stop_when?;
    for at in 0..rows.len() {
        let early = match stop_when.holds(&rows[at]) {
            Ok(false) => continue,
            Ok(true) => Early::Enough,
            Err(reason) => Early::Unsure(reason),
        };
        rows.truncate(at + 1);
        return Some(early);
    }
    None
}

/// Rows on their way to standard output.
struct Out {
    format: RowsFormat,
    /// Of formats that need all rows before they can show one.
    kept: Vec<Row>,
    any: bool,
}

impl Out {
    fn take(&mut self, rows: Vec<Row>) -> std::io::Result<()> {
        let mut text = String::new();
        match self.format {
            RowsFormat::Table | RowsFormat::Csv => self.kept.extend(rows),
            RowsFormat::Ndjson => {
                for row in rows {
                    text.push_str(&format!("{}\n", object(&row)));
                }
            }
            RowsFormat::Json => {
                for row in rows {
                    let before = if std::mem::replace(&mut self.any, true) {
                        ",\n"
                    } else {
                        "[\n"
                    };
                    text.push_str(&format!("{before}  {}", object(&row)));
                }
            }
        }
        printer::print_data(&text)
    }

    fn end(self) -> std::io::Result<()> {
        match self.format {
            RowsFormat::Ndjson => Ok(()),
            RowsFormat::Json => printer::print_data(if self.any { "\n]\n" } else { "[]\n" }),
            RowsFormat::Table if self.kept.is_empty() => Ok(()),
            RowsFormat::Table => {
                let text = rows::draw_rows(&TableSpec::default(), self.kept, true);
                printer::print_data(&text)
            }
            RowsFormat::Csv => {
                printer::write_all(rustix::stdio::stdout(), &rows::as_csv(&self.kept))
            }
        }
    }
}

/// A row as JSON, with a mark where a number was rounded.
fn object(row: &Row) -> serde_json::Value {
    let mut fields = row.fields();
    if row.approximate {
        fields.entry("approximate").or_insert(true.into());
    }
    fields.into()
}
