//! Plain tables: aligned columns, no boxes.

use tabled::builder::Builder;
use tabled::settings::object::{Columns, Object, Rows};
use tabled::settings::{Alignment, Modify, Padding, Style};

/// Draws rows under a header. `right` names the columns whose cells are numbers and stand at the
/// right; two spaces lie between columns, and no line ends in spaces.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut builder = Builder::default();
    builder.push_record(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        let missing = header.len().saturating_sub(row.len());
        let cells = row
            .iter()
            .map(|cell| crate::text::printable(cell.as_bytes()).into_owned());
        builder.push_record(cells.chain(std::iter::repeat_n(String::new(), missing)));
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    for column in right {
        let cells = Columns::one(*column).intersect(Rows::new(0..));
        table.with(Modify::new(cells).with(Alignment::right()));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let row = |a: &str, b: &str, c: &str| vec![a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = [row("web1", "5", "x"), row("database1", "12345", "")];
        let expected = "HOST        SIZE  NOTE\nweb1           5  x\ndatabase1  12345\n";
        assert_eq!(table(&["host", "size", "note"], &rows, &[1]), expected);
    }

    #[test]
    fn cells_cannot_break_the_table() {
        let rows = [vec!["a\nb\x1b[2J".to_owned()]];
        assert_eq!(table(&["x"], &rows, &[]), "X\na\\nb\\x1b[2J\n");
    }
}
