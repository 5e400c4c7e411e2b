//! `parse` and `table`: the tree -> how output is read and how its rows are shown.
//!
//! `parse` is a format's name, or a mapping of one format with its options and, beside it, `types`,
//! `strict` and `stop_when`: `parse: {columns: {last: rest}, types: {pid: int}, strict: false}`.

use super::keys;
use super::model::{Parse, Task};
use super::template::RowCondition;
use super::tree::{Entry, Kind, Node};
use super::validate::{Check, Level, get};
use super::values::YES_NO;
use crate::rows::{
    Columns, Format, Matching, Pairs, ParseSpec, Pivot, Split, TableSpec, Total, Type, Unit,
};
use crate::text::did_you_mean;

/// Separators longer than this are misspelt words.
const LONGEST_SEPARATOR: usize = 4;

impl Check<'_> {
    /// `parse: NAME`, or a mapping.
    pub(super) fn parse(&mut self, node: &Node) -> Option<Parse> {
        let Kind::Map(entries) = &node.kind else {
            let words: Vec<(&str, &str)> = keys::FORMATS.iter().map(|key| (*key, *key)).collect();
            let name = self.one_of("parse", node, &words)?;
            let format = self.format(name, None, node)?;
            return Some(Parse {
                spec: ParseSpec::of(format),
                stop_when: None,
            });
        };
        let known = self.check_keys(entries, Level::Options("`parse`", keys::PARSE));
        let is_format = |entry: &&Entry| keys::FORMATS.contains(&entry.key.as_str());
        let formats: Vec<&Entry> = entries.iter().filter(is_format).collect();
        for more in formats.iter().skip(1) {
            let message = format!("`{}` and `{}` are two formats", formats[0].key, more.key);
            let help = Some("one output has one format");
            self.error_at(message, more.key_span.clone(), "", help);
        }
        let Some(Entry { key, value, .. }) = formats.first() else {
            if known {
                let help = format!("add one of: {}", keys::FORMATS.join(", "));
                self.error("`parse` has no format".into(), node, "", Some(&help));
            }
            return None;
        };
        let options = (!value.is_null()).then_some(&**value);
        let format = self.format(key, options, value);
        let columns = format.as_ref().and_then(known_columns);
        let mut spec = ParseSpec::of(format.unwrap_or(Format::Lines));
        let mut stop_when = None;
        for Entry {
            key,
            value,
            key_span,
        } in entries
        {
            match key.as_str() {
                "types" if matches!(spec.format, Format::Du { .. } | Format::Df { .. }) => {
                    let message = format!("`types` has no effect on `{}`", spec.format.name());
                    self.error_at(message, key_span.clone(), "", Some("remove it"));
                }
                "types" => spec.types = self.types(value, columns.as_deref()),
                "strict" => spec.strict = self.one_of(key, value, &YES_NO).unwrap_or(true),
                "stop_when" => stop_when = self.row_condition(key, value),
                _ => {}
            }
        }
        if let Some(condition) = &stop_when {
            self.columns_of(condition, columns.as_deref());
        }
        Some(Parse { spec, stop_when })
    }

    /// A condition asks for columns that there will be.
    fn columns_of(&mut self, condition: &RowCondition, columns: Option<&[String]>) {
        for name in condition.names().filter(|name| !name.optional) {
            let mut steps = name.path.split('.');
            let (root, column) = (steps.next(), steps.next());
            // Of text that is not UTF-8.
            if let (Some("row"), Some(column)) = (root, column)
                && !column.ends_with("_b64")
            {
                self.known_column(column, columns, name.span.clone());
            }
        }
    }

    fn format(&mut self, name: &str, options: Option<&Node>, at: &Node) -> Option<Format> {
        match name {
            "du" => self.du(options),
            "df" => {
                let entries = self.options(options, Level::Options("`df`", keys::DF))?;
                let unit = self.unit(entries);
                Some(Format::Df { unit })
            }
            "columns" => self.columns(options, at),
            "kv" => self.pairs(options),
            "json" => self.json_path(options),
            "csv" => self.separated(options, b',', Level::Options("`csv`", keys::SEPARATED)),
            "tsv" => self.separated(options, b'\t', Level::Options("`tsv`", keys::SEPARATED)),
            "regex" => self.pattern(options, at),
            plain => {
                let level = if plain == "lines" {
                    Level::Options("`lines`", &[])
                } else {
                    Level::Options("`ndjson`", &[])
                };
                self.options(options, level)?;
                Some(if plain == "lines" {
                    Format::Lines
                } else {
                    Format::Ndjson
                })
            }
        }
    }

    /// The options of a format; none where nothing is said.
    fn options<'n>(&mut self, node: Option<&'n Node>, level: Level) -> Option<&'n [Entry]> {
        let Some(node) = node else {
            return Some(&[]);
        };
        let Level::Options(noun, _) = level else {
            return None;
        };
        let entries = self.entries(noun.trim_matches('`'), node)?;
        self.check_keys(entries, level);
        Some(entries)
    }

    fn du(&mut self, options: Option<&Node>) -> Option<Format> {
        let entries = self.options(options, Level::Options("`du`", keys::DU))?;
        let zero = get(entries, "zero").and_then(|node| self.one_of("zero", node, &YES_NO));
        let names = self.names(entries);
        let names = match (get(entries, "names"), <[String; 2]>::try_from(names)) {
            (None, _) => Format::DU.map(str::to_owned),
            (Some(_), Ok(names)) => names,
            (Some(node), Err(others)) => {
                let help = Some("write it like `names: [used, folder]`");
                let message = format!("`du` has two columns, and here are {}", others.len());
                self.error(message, node, "", help);
                return None;
            }
        };
        Some(Format::Du {
            names,
            unit: self.unit(entries),
            zero: zero.unwrap_or(false),
        })
    }

    fn unit(&mut self, entries: &[Entry]) -> Unit {
        let Some(node) = get(entries, "unit") else {
            return Unit::Unsaid;
        };
        let words = [
            ("bytes", Unit::Blocks(1)),
            ("512", Unit::Blocks(512)),
            ("1K", Unit::Blocks(1 << 10)),
            ("1M", Unit::Blocks(1 << 20)),
            ("1G", Unit::Blocks(1 << 30)),
            ("human", Unit::Human),
            ("si", Unit::Si),
        ];
        self.one_of("unit", node, &words).unwrap_or_default()
    }

    fn columns(&mut self, options: Option<&Node>, at: &Node) -> Option<Format> {
        let entries = self.options(options, Level::Options("`columns`", keys::COLUMNS))?;
        let names = self.names(entries);
        let mut columns = Columns {
            header: names.is_empty(),
            names,
            ..Columns::default()
        };
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "split" => columns.split = self.split(value)?,
                "header" => columns.header = self.one_of(key, value, &YES_NO)?,
                "last" => columns.last_rest = self.one_of(key, value, &[("rest", true)])?,
                "skip" => {
                    let skip = self.whole(key, value, 0..1_000_001)?;
                    columns.skip = usize::try_from(skip).ok()?;
                }
                _ => {}
            }
        }
        if !columns.header && (columns.names.is_empty() || columns.split == Split::Aligned) {
            let (message, help) = if columns.names.is_empty() {
                (
                    "without a header the columns have no names",
                    "say them: `names: [pid, command]`",
                )
            } else {
                (
                    "`aligned` columns stand below their header",
                    "remove `header: false`, or add `header: true`",
                )
            };
            self.error(message.into(), options.unwrap_or(at), "", Some(help));
            return None;
        }
        Some(Format::Columns(columns))
    }

    fn split(&mut self, node: &Node) -> Option<Split> {
        // A TAB is text as well, and looks like nothing.
        let text = match &node.kind {
            Kind::Scalar { text, .. } if !text.is_empty() => text.as_str(),
            Kind::Scalar { .. } | Kind::List(_) | Kind::Map(_) => self.text("split", node)?,
        };
        let words = ["whitespace", "aligned", "tab"];
        match text {
            "whitespace" => Some(Split::Whitespace),
            "aligned" => Some(Split::Aligned),
            "tab" => Some(Split::At("\t".into())),
            separator if separator.len() <= LONGEST_SEPARATOR => Some(Split::At(separator.into())),
            other => {
                let near = did_you_mean(other, words);
                let help = near.map_or_else(
                    || format!("one of: {}, or a separator such as `:`", words.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                self.error(
                    format!("`split` cannot be `{other}`"),
                    node,
                    "",
                    Some(&help),
                );
                None
            }
        }
    }

    /// Names of columns, each once.
    fn names(&mut self, entries: &[Entry]) -> Vec<String> {
        let Some(node) = get(entries, "names") else {
            return Vec::new();
        };
        let mut names: Vec<String> = Vec::new();
        for name in self.plains("names", node) {
            if names.contains(&name.value) {
                let message = format!("two columns are named `{}`", name.value);
                self.error_at(message, name.at.span.clone(), "", None);
            }
            names.push(name.value);
        }
        names
    }

    fn pairs(&mut self, options: Option<&Node>) -> Option<Format> {
        let level = Level::Options("`kv`", keys::KV);
        let entries = match options {
            Some(node) if matches!(node.kind, Kind::Scalar { .. }) => {
                let separator = self.separator(node)?;
                return Some(Format::Pairs(Pairs {
                    quotes: separator == "=",
                    separator,
                    blocks: false,
                }));
            }
            other => self.options(other, level)?,
        };
        let separator = match get(entries, "separator") {
            Some(node) => self.separator(node)?,
            None => "=".to_owned(),
        };
        let mut yes =
            |key: &str| get(entries, key).and_then(|node| self.one_of(key, node, &YES_NO));
        Some(Format::Pairs(Pairs {
            quotes: yes("quotes").unwrap_or(separator == "="),
            blocks: yes("blocks").unwrap_or(false),
            separator,
        }))
    }

    fn separator(&mut self, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Scalar { text, .. } if !text.is_empty() => Some(text.clone()),
            Kind::Scalar { .. } | Kind::List(_) | Kind::Map(_) => {
                self.text("separator", node).map(str::to_owned)
            }
        }
    }

    /// `json: a.b`, `json: [a, b.c]` or `json: {path: ...}`.
    fn json_path(&mut self, options: Option<&Node>) -> Option<Format> {
        let path = match options {
            Some(node) if matches!(node.kind, Kind::Map(_)) => {
                let entries = self.options(options, Level::Options("`json`", keys::JSON))?;
                get(entries, "path")
            }
            other => other,
        };
        let steps = match path {
            None => Vec::new(),
            Some(node) if matches!(node.kind, Kind::List(_)) => {
                let steps = self.plains("path", node);
                steps.into_iter().map(|step| step.value).collect()
            }
            Some(node) => {
                let path = self.plain("path", node)?.value;
                path.split('.').map(str::to_owned).collect()
            }
        };
        Some(Format::Json { path: steps })
    }

    fn separated(&mut self, options: Option<&Node>, delimiter: u8, level: Level) -> Option<Format> {
        let entries = self.options(options, level)?;
        let names = self.names(entries);
        let header = get(entries, "header").and_then(|node| self.one_of("header", node, &YES_NO));
        let header = header.unwrap_or(names.is_empty());
        if let (Some(node), false, true) = (options, header, names.is_empty()) {
            let help = Some("say them: `names: [name, size]`");
            self.error(
                "without a header the columns have no names".into(),
                node,
                "",
                help,
            );
            return None;
        }
        Some(Format::Separated {
            delimiter,
            header,
            names,
        })
    }

    fn pattern(&mut self, options: Option<&Node>, at: &Node) -> Option<Format> {
        let mut matching = Matching::default();
        let pattern = match options {
            Some(node) if matches!(node.kind, Kind::Map(_)) => {
                let entries = self.options(options, Level::Options("`regex`", keys::REGEX))?;
                let words = [
                    ("lines", Matching::Lines),
                    ("first", Matching::First),
                    ("all", Matching::All),
                ];
                if let Some(node) = get(entries, "match") {
                    matching = self.one_of("match", node, &words)?;
                }
                get(entries, "pattern")
            }
            other => other,
        };
        let Some(node) = pattern else {
            let help = Some("write it like `parse: {regex: 'load (?<load>[0-9.]+)'}`");
            self.error("`regex` has no pattern".into(), at, "", help);
            return None;
        };
        let text = self.regex("regex", node)?;
        let pattern = regex::bytes::Regex::new(&text).ok()?;
        if pattern.capture_names().flatten().next().is_none() {
            let help = Some("a group is named like this: `(?<size>[0-9]+)`");
            self.error(format!("`{text}` has no named group"), node, "", help);
            return None;
        }
        Some(Format::Regex { pattern, matching })
    }

    fn types(&mut self, node: &Node, columns: Option<&[String]>) -> Vec<(String, Type)> {
        let mut types = Vec::new();
        for entry in self.entries("types", node).unwrap_or_default() {
            self.known_column(&entry.key, columns, entry.key_span.clone());
            let kind = self.one_of("types", &entry.value, &Type::WORDS);
            types.extend(kind.map(|kind| (entry.key.clone(), kind)));
        }
        types
    }

    fn known_column(
        &mut self,
        name: &str,
        columns: Option<&[String]>,
        span: std::ops::Range<usize>,
    ) {
        let Some(columns) = columns.filter(|columns| !columns.iter().any(|known| known == name))
        else {
            return;
        };
        let near = did_you_mean(name, columns.iter().map(String::as_str));
        let help = near.map_or_else(
            || format!("there are: {}", columns.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        self.error_at(
            format!("no column is named `{name}`"),
            span,
            "",
            Some(&help),
        );
    }

    fn row_condition(&mut self, key: &str, node: &Node) -> Option<RowCondition> {
        let text = self.text(key, node)?;
        if text.contains("${{") {
            let help = Some("write it without `${{ }}`: `stop_when: row.use > 90`");
            self.error(format!("`{key}` is an expression already"), node, "", help);
            return None;
        }
        let to_source = self.to_source(node, text);
        match RowCondition::parse(text) {
            Ok(mut condition) => {
                condition.place_in_source(to_source);
                Some(condition)
            }
            Err(error) => {
                let span = to_source(error.span);
                self.error_at(error.message, span, &error.label, error.help.as_deref());
                None
            }
        }
    }

    /// `table: true`, or a mapping.
    pub(super) fn table(&mut self, node: &Node) -> Option<TableSpec> {
        let Kind::Map(entries) = &node.kind else {
            let shown = self.one_of("table", node, &YES_NO)?;
            return shown.then(TableSpec::default);
        };
        self.check_keys(entries, Level::Options("`table`", keys::TABLE));
        let mut table = TableSpec::default();
        let texts = |found: Vec<super::Located<String>>| found.into_iter().map(|text| text.value);
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "name" => table.name = self.plain(key, value).map(|name| name.value),
                "columns" => table.columns = texts(self.plains(key, value)).collect(),
                "sort" => {
                    table.sort = self.plain(key, value).map(|text| {
                        let down = text.value.strip_prefix('-').map(str::to_owned);
                        let falls = down.is_some();
                        (down.unwrap_or(text.value), falls)
                    });
                }
                "limit" => {
                    let limit = self.whole(key, value, 1..1_000_001);
                    table.limit = limit.and_then(|limit| usize::try_from(limit).ok());
                }
                "total" => table.total = self.total(value),
                "pivot" => table.pivot = self.pivot(value),
                _ => {}
            }
        }
        if let (Some(_), Some(Entry { key_span, .. })) = (
            &table.pivot,
            entries.iter().find(|entry| entry.key == "columns"),
        ) {
            let help = Some("`pivot` says what the columns are");
            let message = "`columns` has no effect beside `pivot`";
            self.error_at(message.into(), key_span.clone(), "", help);
        }
        if let Some(name) = &table.name {
            self.shared(name, entries);
        }
        Some(table)
    }

    /// The first task of a table that tasks share says how it looks.
    fn shared(&mut self, name: &str, entries: &[Entry]) {
        if self.tables.insert(name.to_owned()) {
            return;
        }
        let known = entries.iter().filter(|e| keys::TABLE.contains(&&*e.key));
        for Entry { key, key_span, .. } in known.filter(|e| e.key != "name") {
            let message = format!("an earlier task says how the table `{name}` looks");
            let help = format!("move `{key}` to that task");
            self.error_at(message, key_span.clone(), "", Some(&help));
        }
    }

    fn total(&mut self, node: &Node) -> Total {
        match &node.kind {
            Kind::Scalar { text, .. } if YES_NO.iter().any(|(word, _)| word == text) => {
                if text == "true" {
                    Total::All
                } else {
                    Total::None
                }
            }
            Kind::Scalar { .. } | Kind::List(_) | Kind::Map(_) => {
                let names = self.plains("total", node);
                Total::Of(names.into_iter().map(|name| name.value).collect())
            }
        }
    }

    fn pivot(&mut self, node: &Node) -> Option<Pivot> {
        let entries = self.entries("pivot", node)?;
        self.check_keys(entries, Level::Options("`pivot`", keys::PIVOT));
        let mut part = |key: &str| match get(entries, key) {
            Some(node) => self.plain(key, node).map(|name| name.value),
            None => {
                let help = Some("write it like `pivot: {row: mount, column: host, value: use}`");
                self.error(format!("`pivot` has no `{key}`"), node, "", help);
                None
            }
        };
        let (row, column, value) = (part("row"), part("column"), part("value"));
        Some(Pivot {
            row: row?,
            column: column?,
            value: value?,
        })
    }

    /// What a table needs from `parse`: rows, and the columns that it names.
    pub(super) fn check_table(&mut self, entries: &[Entry], task: &Task) {
        let Some(entry) = entries.iter().find(|entry| entry.key == "table") else {
            return;
        };
        let writes = |action: &str| get(entries, action).is_some();
        if !["run", "script", "local"].into_iter().any(writes) {
            return;
        }
        if get(entries, "parse").is_none() {
            let help = Some("say how its output becomes rows: `parse: df`");
            let message = "`table` shows rows, and the task has no `parse`";
            return self.error_at(message.into(), entry.key_span.clone(), "", help);
        }
        let (Some(parse), Some(table)) = (&task.parse, &task.table) else {
            return;
        };
        // The columns of others that share the table are not known here.
        let Some(mut columns) = known_columns(&parse.spec.format).filter(|_| table.name.is_none())
        else {
            return;
        };
        columns.push("host".to_owned());
        let pivot = table.pivot.iter();
        let pivot = pivot.flat_map(|pivot| [&pivot.row, &pivot.column, &pivot.value]);
        let sums = match &table.total {
            Total::Of(names) => &names[..],
            Total::None | Total::All => &[],
        };
        let named = table.columns.iter().chain(sums).chain(pivot);
        let named = named.chain(table.sort.iter().map(|(name, _)| name));
        for name in named.collect::<std::collections::BTreeSet<_>>() {
            self.known_column(name, Some(&columns), entry.key_span.clone());
        }
    }
}

/// The columns of a format, where they are known before there is any output.
fn known_columns(format: &Format) -> Option<Vec<String>> {
    let all = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    match format {
        Format::Du { names, .. } => Some(names.to_vec()),
        Format::Df { .. } => all(&[
            "filesystem",
            "type",
            "size",
            "used",
            "available",
            "use",
            "mount",
            "inodes",
            "free",
        ]),
        Format::Lines => all(&["line"]),
        Format::Columns(Columns { names, .. }) | Format::Separated { names, .. } => {
            (!names.is_empty()).then(|| names.clone())
        }
        Format::Regex { pattern, .. } => {
            let names: Vec<&str> = pattern.capture_names().flatten().collect();
            all(&names)
        }
        Format::Pairs(_) | Format::Json { .. } | Format::Ndjson => None,
    }
}
