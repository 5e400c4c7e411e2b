//! Rows of many hosts as tables for people: one for each task that asks for one, or one for all
//! tasks whose tables have the same name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::table::table;
use crate::job::{PlayId, TaskId, TaskRef};
use crate::rows::{Pivot, Row, TableSpec, Total, Value};
use crate::target::HostName;
use crate::text;

/// Rows that wait to be drawn, over all tables. What comes after them is only counted.
const MOST: usize = 200_000;
/// The column that every row has without saying it.
const HOST: &str = "host";

/// Rows being gathered.
#[derive(Debug, Default)]
pub struct Tables {
    specs: HashMap<TaskId, Arc<TableSpec>>,
    order: HashMap<HostName, usize>,
    gathered: Vec<Gathered>,
    kept: usize,
}

/// One table.
#[derive(Debug)]
struct Gathered {
    title: Arc<str>,
    /// The first task whose rows are in it, by its place in the plan.
    task: TaskId,
    spec: Arc<TableSpec>,
    rows: Vec<(HostName, TaskId, Row)>,
    left_out: u64,
}

/// A table that is ready.
#[derive(Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Its name, or its task's.
    pub title: Arc<str>,
    /// Whole lines.
    pub text: String,
    /// Rows that came after the last one that fits into memory.
    pub left_out: u64,
}

impl Tables {
    /// For the tasks that ask for tables, and the hosts of the run in their order.
    #[must_use]
    pub fn new(specs: HashMap<TaskId, Arc<TableSpec>>, hosts: &[HostName]) -> Self {
        Self {
            specs: with_looks_of_the_first(specs),
            order: hosts.iter().cloned().zip(0..).collect(),
            gathered: Vec::new(),
            kept: 0,
        }
    }

    /// Whether the rows of a task are shown as a table.
    #[must_use]
    pub fn shows(&self, task: TaskId) -> bool {
        self.specs.contains_key(&task)
    }

    /// Takes rows of a host.
    pub fn add(&mut self, host: &HostName, task: &TaskRef, rows: &[Row]) {
        let Some(spec) = self.specs.get(&task.id) else {
            return;
        };
        let same = |gathered: &Gathered| match &spec.name {
            Some(name) => gathered.spec.name.as_ref() == Some(name),
            None => gathered.task == task.id,
        };
        let at = self.gathered.iter().position(same).unwrap_or_else(|| {
            let title = spec.name.as_ref().map_or(&*task.name, String::as_str);
            self.gathered.push(Gathered {
                title: title.into(),
                task: task.id,
                spec: Arc::clone(spec),
                rows: Vec::new(),
                left_out: 0,
            });
            self.gathered.len() - 1
        });
        let gathered = &mut self.gathered[at];
        gathered.task = gathered.task.min(task.id);
        let room = rows.len().min(MOST - self.kept);
        let taken = rows[..room].iter().cloned();
        let taken = taken.map(|row| (host.clone(), task.id, row));
        gathered.rows.extend(taken);
        gathered.left_out += (rows.len() - room) as u64;
        self.kept += room;
    }

    /// Draws the tables that are complete: those of tasks of plays before this one, or with `None`
    /// all of them.
    pub fn draw(&mut self, next: Option<PlayId>) -> Vec<Drawn> {
        let complete = |gathered: &Gathered| match next {
            Some(next) => gathered.spec.name.is_none() && gathered.task.play < next,
            None => true,
        };
        let all = std::mem::take(&mut self.gathered);
        let (mut ready, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(complete);
        self.gathered = rest;
        ready.sort_by_key(|gathered| gathered.task);
        let drawn = ready.into_iter().map(|gathered| {
            self.kept -= gathered.rows.len();
            Drawn {
                title: gathered.title,
                text: self.text(&gathered.spec, gathered.rows),
                left_out: gathered.left_out,
            }
        });
        drawn.collect()
    }

    /// Hosts answer in any order: rows have that of the inventory, and columns that of the tasks.
    fn text(&self, spec: &TableSpec, mut rows: Vec<(HostName, TaskId, Row)>) -> String {
        let hosts = self.order.len() > 1;
        rows.sort_by_key(|(host, task, _)| (*task, self.order.get(host).copied()));
        for (host, _, row) in &mut rows {
            let name = Value::Text(Bytes::copy_from_slice(host.as_str().as_bytes()));
            row.cells.insert(0, (HOST.into(), name));
        }
        let columns = columns(spec, rows.iter().map(|(_, _, row)| row), hosts);
        rows.sort_by_key(|(host, _, _)| self.order.get(host).copied());
        let spec = TableSpec {
            columns,
            ..spec.clone()
        };
        let rows = rows.into_iter().map(|(_, _, row)| row);
        draw_rows(&spec, rows.collect(), hosts)
    }
}

/// The first of the tasks that share a table says how it looks, also where it has no rows.
fn with_looks_of_the_first(
    specs: HashMap<TaskId, Arc<TableSpec>>,
) -> HashMap<TaskId, Arc<TableSpec>> {
    let mut sorted: Vec<_> = specs.into_iter().collect();
    sorted.sort_by_key(|(task, _)| *task);
    let mut named: HashMap<String, Arc<TableSpec>> = HashMap::new();
    for (_, spec) in &mut sorted {
        if let Some(name) = spec.name.clone() {
            *spec = Arc::clone(named.entry(name).or_insert_with(|| Arc::clone(spec)));
        }
    }
    sorted.into_iter().collect()
}

/// One place of a table; several values only where a pivot puts them together.
type Cell = Vec<(Value, bool)>;

/// Columns and lines, before they are text.
struct Grid {
    header: Vec<String>,
    lines: Vec<Vec<Cell>>,
}

/// Draws rows. `hosts` keeps a column `host` where nobody says which columns are wanted.
#[must_use]
pub fn draw_rows(spec: &TableSpec, mut rows: Vec<Row>, hosts: bool) -> String {
    let header = columns(spec, rows.iter(), hosts);
    if let Some((column, falls)) = &spec.sort {
        let key = |row: &Row| row.get(column).cloned().unwrap_or(Value::Null);
        rows.sort_by(|a, b| {
            let order = key(a).order(&key(b));
            if *falls { order.reverse() } else { order }
        });
    }
    let mut grid = match &spec.pivot {
        Some(pivot) => pivoted(pivot, &rows),
        None => plain(header, &rows),
    };
    grid.lines.truncate(spec.limit.unwrap_or(usize::MAX));
    if let Some(sums) = sums(&spec.total, &grid) {
        grid.lines.push(sums);
    }
    as_text(&grid)
}

/// Rows as comma-separated values under a header of all their columns; numbers are exact.
#[must_use]
pub fn as_csv(rows: &[Row]) -> Vec<u8> {
    let grid = plain(columns(&TableSpec::default(), rows.iter(), true), rows);
    let exact = |cell: &Cell| match cell.first() {
        None | Some((Value::Null, _)) => Vec::new(),
        Some((Value::Text(bytes), _)) => bytes.to_vec(),
        Some((value, _)) => match value.json() {
            serde_json::Value::String(text) => text.into_bytes(),
            other => other.to_string().into_bytes(),
        },
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory cannot fail.
    let _ = writer.write_record(&grid.header);
    for line in &grid.lines {
        let _ = writer.write_record(line.iter().map(exact));
    }
    writer.into_inner().unwrap_or_default()
}

/// The columns that are wanted, or all that the rows have.
fn columns<'r>(spec: &TableSpec, rows: impl Iterator<Item = &'r Row>, hosts: bool) -> Vec<String> {
    if !spec.columns.is_empty() {
        return spec.columns.clone();
    }
    let mut seen = HashSet::new();
    let names = rows.flat_map(|row| &row.cells).map(|(name, _)| name);
    names
        .filter(|name| hosts || &***name != HOST)
        .filter(|name| seen.insert(Arc::clone(name)))
        .map(|name| name.to_string())
        .collect()
}

fn plain(header: Vec<String>, rows: &[Row]) -> Grid {
    let cell = |row: &Row, name: &String| {
        let value = row.get(name).map(|value| (value.clone(), row.approximate));
        value.into_iter().collect()
    };
    let line = |row: &Row| header.iter().map(|name| cell(row, name)).collect();
    Grid {
        lines: rows.iter().map(line).collect(),
        header,
    }
}

fn pivoted(pivot: &Pivot, rows: &[Row]) -> Grid {
    let word = |row: &Row, name: &str| row.get(name).map(shown).unwrap_or_default();
    let (mut columns, mut labels) = (HashMap::new(), HashMap::new());
    let mut grid = Grid {
        header: vec![pivot.row.clone()],
        lines: Vec::new(),
    };
    for row in rows {
        let Some(value) = row.get(&pivot.value) else {
            continue;
        };
        let column = *columns
            .entry(word(row, &pivot.column))
            .or_insert_with_key(|name| {
                grid.header.push(name.clone());
                grid.header.len() - 1
            });
        let line = *labels.entry(word(row, &pivot.row)).or_insert_with(|| {
            let label = row.get(&pivot.row).cloned().unwrap_or(Value::Null);
            grid.lines.push(vec![vec![(label, false)]]);
            grid.lines.len() - 1
        });
        let line = &mut grid.lines[line];
        line.resize(line.len().max(column + 1), Cell::new());
        line[column].push((value.clone(), row.approximate));
    }
    let width = grid.header.len();
    grid.lines
        .iter_mut()
        .for_each(|line| line.resize(width, Cell::new()));
    grid
}

/// A line of sums, if any are wanted and there is something to sum up.
fn sums(total: &Total, grid: &Grid) -> Option<Vec<Cell>> {
    let wanted = |name: &String| match total {
        Total::None => false,
        Total::All => true,
        Total::Of(names) => names.contains(name),
    };
    let mut any = false;
    let columns = grid.header.iter().enumerate().map(|(at, name)| {
        let cells = grid.lines.iter().filter_map(|line| line.get(at)).flatten();
        let sum = if wanted(name) { sum(cells) } else { None };
        any |= sum.is_some();
        sum.into_iter().collect::<Cell>()
    });
    let mut line: Vec<Cell> = columns.collect();
    if let Some(first) = line.first_mut().filter(|first| first.is_empty()) {
        first.push((Value::Text(Bytes::from_static(b"total")), false));
    }
    any.then_some(line)
}

/// The sum of numbers of one kind that can be added up; a percentage cannot.
fn sum<'c>(cells: impl Iterator<Item = &'c (Value, bool)>) -> Option<(Value, bool)> {
    let mut total: Option<(Value, bool)> = None;
    for (value, rounded) in cells {
        let (so_far, before) = match total.take() {
            Some((so_far, before)) => (Some(so_far), before),
            None => (None, false),
        };
        let added = match (so_far, value) {
            (so_far, Value::Null) => so_far,
            (None, Value::Int(_) | Value::Size(_) | Value::Duration(_) | Value::Float(_)) => {
                Some(value.clone())
            }
            (Some(Value::Int(a)), Value::Int(b)) => Some(Value::Int(a.saturating_add(*b))),
            (Some(Value::Size(a)), Value::Size(b)) => Some(Value::Size(a.saturating_add(*b))),
            (Some(Value::Float(a)), Value::Float(b)) => Some(Value::Float(a + b)),
            (Some(Value::Duration(a)), Value::Duration(b)) => {
                Some(Value::Duration(a.saturating_add(*b)))
            }
            (Some(_) | None, _) => return None,
        };
        total = added.map(|value| (value, before | rounded));
    }
    total
}

fn as_text(grid: &Grid) -> String {
    let values = |at: usize| {
        let cells = grid.lines.iter().filter_map(move |line| line.get(at));
        cells.flatten().map(|(value, _)| value)
    };
    let told = |at: usize| values(at).filter(|value| **value != Value::Null);
    let right: Vec<usize> = (0..grid.header.len())
        .filter(|at| told(*at).next().is_some() && told(*at).all(Value::is_number))
        .collect();
    let heading = |(at, name): (usize, &String)| {
        let percent = values(at).any(|value| matches!(value, Value::Percent(_)));
        if percent && !name.ends_with('%') {
            format!("{name}%")
        } else {
            text::printable(name.as_bytes()).into_owned()
        }
    };
    let header: Vec<String> = grid.header.iter().enumerate().map(heading).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let cell = |cell: &Cell| {
        let texts = cell.iter().map(|(value, rounded)| match value {
            Value::Size(_) if *rounded => format!("~{}", shown(value)),
            other => shown(other),
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    let lines: Vec<Vec<String>> = grid
        .lines
        .iter()
        .map(|line| line.iter().map(cell).collect())
        .collect();
    table(&header, &lines, &right)
}

/// A value for people. Sizes are rounded to one digit, percentages go without their sign.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Size(bytes) => {
            let sign = if *bytes < 0 { "-" } else { "" };
            let amount = u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX);
            format!("{sign}{}", text::size(amount))
        }
        Value::Text(bytes) => text::printable(bytes).into_owned(),
        Value::Duration(time) => text::duration(*time),
        Value::Time(time) => time.to_string().replace('T', " "),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Percent(_) | Value::Nested(_) => {
            value.json().to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn task(play: u16, index: u16) -> TaskRef {
        let id = TaskId {
            play: PlayId(play),
            index,
        };
        TaskRef {
            id,
            name: format!("task {play}.{index}").into(),
            place: None,
        }
    }

    fn row(mount: &str, size: i128, used: f64) -> Row {
        let mount = Value::Text(Bytes::copy_from_slice(mount.as_bytes()));
        Row {
            cells: vec![
                ("mount".into(), mount),
                ("size".into(), Value::Size(size)),
                ("use".into(), Value::Percent(used)),
            ],
            approximate: false,
        }
    }

    fn tables(specs: Vec<(TaskRef, TableSpec)>) -> Tables {
        let hosts = [host("web1"), host("db1")];
        let specs = specs
            .into_iter()
            .map(|(task, spec)| (task.id, Arc::new(spec)));
        Tables::new(specs.collect(), &hosts)
    }

    fn disks(spec: TableSpec) -> String {
        let mut tables = tables(vec![(task(0, 0), spec)]);
        tables.add(
            &host("db1"),
            &task(0, 0),
            &[row("/", 105_226_698_752, 94.0), row("/srv", 512, 5.5)],
        );
        tables.add(
            &host("web1"),
            &task(0, 0),
            &[row("/", 52_506_000_000, 25.0)],
        );
        tables.add(&host("web1"), &task(0, 1), &[row("/no", 1, 1.0)]);
        tables.draw(None).remove(0).text
    }

    #[test]
    fn rows_of_all_hosts_are_one_table_in_the_order_of_the_inventory() {
        let expected = "\
HOST  MOUNT      SIZE  USE%
web1  /      48.9 GiB    25
db1   /      98.0 GiB    94
db1   /srv      512 B   5.5
";
        assert_eq!(disks(TableSpec::default()), expected);
    }

    #[test]
    fn a_table_is_sorted_cut_and_summed_up() {
        let spec = TableSpec {
            columns: vec!["mount".into(), "size".into(), "host".into()],
            sort: Some(("size".into(), true)),
            limit: Some(2),
            total: Total::All,
            ..TableSpec::default()
        };
        let expected = "\
MOUNT       SIZE  HOST
/       98.0 GiB  db1
/       48.9 GiB  web1
total  146.9 GiB
";
        assert_eq!(disks(spec), expected);
    }

    #[test]
    fn a_pivot_puts_hosts_side_by_side() {
        let pivot = |value: &str| {
            disks(TableSpec {
                pivot: Some(Pivot {
                    row: "mount".into(),
                    column: "host".into(),
                    value: value.into(),
                }),
                ..TableSpec::default()
            })
        };
        assert_eq!(
            pivot("use"),
            "MOUNT  WEB1%  DB1%\n/         25    94\n/srv           5.5\n"
        );
        assert_eq!(
            pivot("size"),
            "MOUNT      WEB1       DB1\n/      48.9 GiB  98.0 GiB\n/srv                512 B\n"
        );
    }

    #[test]
    fn tasks_share_a_table_by_its_name() {
        let named = |sort: Option<(String, bool)>| TableSpec {
            name: Some("disks".into()),
            sort,
            ..TableSpec::default()
        };
        let by_mount = Some(("mount".to_owned(), true));
        let specs = vec![
            (task(1, 0), named(None)),
            // Its looks count, though it has no rows.
            (task(0, 2), named(by_mount)),
            (task(0, 3), named(None)),
            (task(0, 1), TableSpec::default()),
        ];
        let mut tables = tables(specs);
        tables.add(&host("web1"), &task(0, 3), &[row("/a", 1, 1.0)]);
        tables.add(&host("web1"), &task(0, 1), &[row("/b", 1, 1.0)]);
        let titles = |drawn: &[Drawn]| {
            drawn
                .iter()
                .map(|d| d.title.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(titles(&tables.draw(Some(PlayId(0)))), [""; 0]);
        assert_eq!(titles(&tables.draw(Some(PlayId(1)))), ["task 0.1"]);
        tables.add(&host("db1"), &task(1, 0), &[row("/c", 1, 1.0)]);
        let folder = Row {
            cells: vec![("folder".into(), Value::Text(Bytes::from_static(b"/d")))],
            approximate: false,
        };
        tables.add(&host("web1"), &task(1, 0), &[folder]);
        let drawn = tables.draw(None);
        assert_eq!(titles(&drawn), ["disks"]);
        // Columns stand in the order of tasks, whichever host's rows come first.
        let expected = "\
HOST  MOUNT  SIZE  USE%  FOLDER
db1   /c      1 B     1
web1  /a      1 B     1
web1                     /d
";
        assert_eq!(drawn[0].text, expected);
        assert_eq!(tables.kept, 0);
    }

    #[test]
    fn rounded_and_hostile_values_look_like_it() {
        let rounded = Row {
            approximate: true,
            ..row("a\nb\x1b[2J", 1 << 30, 1.0)
        };
        let text = draw_rows(&TableSpec::default(), vec![rounded], false);
        assert_eq!(
            text,
            "MOUNT            SIZE  USE%\na\\nb\\x1b[2J  ~1.0 GiB     1\n"
        );
    }
}
