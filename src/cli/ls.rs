//! `fanrun ls`

use std::io::IsTerminal;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::{Ls, LsFormat};
use super::work::{self, Work};
use super::{End, Fault, settings};
use crate::listing::{Kind, Listing, ModeTest, Wanted};
use crate::plan;
use crate::playbook::units;
use crate::report::listing::{COLUMNS, Choice, Column, Format, Grouping, Older};
use crate::sftp::Filter;

/// Columns of a table, and of CSV.
const FOR_PEOPLE: [Column; 5] = [
    Column::Mode,
    Column::Owner,
    Column::Size,
    Column::Mtime,
    Column::Path,
];
const FOR_MACHINES: [Column; 8] = [
    Column::Host,
    Column::Path,
    Column::Type,
    Column::Size,
    Column::Mtime,
    Column::Perm,
    Column::Uid,
    Column::Gid,
];

pub(super) async fn ls(args: Ls, descriptors: u64) -> Result<End, Fault> {
    let parts = parts(&args)?;
    let ready = settings::prepare(&args.hosts).await?;
    let timeout = args
        .timeout
        .as_deref()
        .map(settings::duration)
        .transpose()?;
    let built = plan::listings(parts, timeout, &ready.ground)?;
    let mut warnings = ready.warnings;
    warnings.extend(built.warnings);
    work::warn(&warnings, &args.output);
    let choice = choice(&args, built.plan.targets.len() > 1)?;
    let work = Work::new(
        built.plan,
        ready.reach,
        args.deadline.as_deref(),
        descriptors,
    )?;
    let work = Work {
        listing: Some(choice),
        ..work
    };
    Ok(work::carry_out(work, &args.output).await?.end)
}

/// What is listed on the hosts of each pattern, paths of one pattern together.
fn parts(args: &Ls) -> Result<Vec<(String, Listing)>, Fault> {
    let wanted = wanted(args)?;
    Filter::new(&wanted).map_err(|bad| Fault::usage(bad.to_string()))?;
    let columns = columns(args, true)?;
    let grouped = args.by.as_deref() == Some("owner") || args.owner.is_some();
    let needs = |all: [Column; 2]| all.iter().any(|column| columns.contains(column));
    let listing = Listing {
        paths: Vec::new(),
        depth: depth(args)?,
        wanted,
        owners: grouped || needs([Column::Owner, Column::Group]),
        targets: needs([Column::Target, Column::Target]),
        ignore_errors: args.ignore_errors,
        state: args.state.clone(),
    };
    let mut parts: Vec<(String, Listing)> = Vec::new();
    for place in &args.places {
        let (pattern, path) = split(place)?;
        let path = bytes::Bytes::copy_from_slice(path.as_bytes());
        match parts.iter_mut().find(|(known, _)| known == pattern) {
            Some((_, known)) => known.paths.push(path),
            None => {
                let paths = vec![path];
                parts.push((
                    pattern.to_owned(),
                    Listing {
                        paths,
                        ..listing.clone()
                    },
                ));
            }
        }
    }
    Ok(parts)
}

/// `PATTERN:PATH`, at the first colon that is not in brackets.
pub(super) fn split(place: &str) -> Result<(&str, &str), Fault> {
    let mut depth = 0usize;
    for (at, c) in place.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && at > 0 => {
                let path = &place[at + 1..];
                return Ok((&place[..at], if path.is_empty() { "." } else { path }));
            }
            _ => {}
        }
    }
    Err(Fault::usage(format!(
        "`{place}`: PATTERN:PATH is needed, such as `web[1-3]:/var/log` or `all:/data`"
    )))
}

fn depth(args: &Ls) -> Result<Option<u32>, Fault> {
    match (args.recursive, args.depth.as_deref()) {
        (true, None) | (_, Some("all")) => Ok(None),
        (false, None) if args.du.is_some() => Ok(None),
        (false, None) => Ok(Some(1)),
        (_, Some(text)) => text
            .parse()
            .map(Some)
            .map_err(|_| Fault::usage(format!("`--depth {text}`: a number or `all` is needed"))),
    }
}

/// In place of a time: since the listing before.
const LAST: &str = "@last";

fn wanted(args: &Ls) -> Result<Wanted, Fault> {
    match (args.newer.as_deref() == Some(LAST), &args.state) {
        (true, None) => {
            let help = "`--newer @last` needs `--state FILE`, where it keeps what it has seen";
            return Err(Fault::usage(help));
        }
        (false, Some(_)) => {
            return Err(Fault::usage("`--state` goes with `--newer @last`"));
        }
        (true, Some(_)) | (false, None) => {}
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
    let moment = |name: &str, text: &Option<String>| {
        let read =
            |text: &String| units::moment(text, now).map_err(|bad| bad_quantity(name, text, &bad));
        text.as_ref().map(read).transpose()
    };
    let size = |name: &str, text: &Option<String>| {
        let read = |text: &String| units::size(text).map_err(|bad| bad_quantity(name, text, &bad));
        text.as_ref().map(read).transpose()
    };
    let mode = args.mode.as_ref().map(|text| {
        ModeTest::parse(text).ok_or_else(|| {
            Fault::usage(format!(
                "`--mode {text}`: `0644`, `-022` or `/022` is needed"
            ))
        })
    });
    let kinds = [
        (args.files, Kind::File),
        (args.dirs, Kind::Dir),
        (args.links, Kind::Link),
    ];
    Ok(Wanted {
        kinds: kinds
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, kind)| *kind)
            .collect(),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        regex: args.regex.clone(),
        newer: moment("--newer", &args.newer.clone().filter(|text| text != LAST))?,
        last: None,
        older: moment("--older", &args.older)?,
        min_size: size("--min-size", &args.min_size)?,
        max_size: size("--max-size", &args.max_size)?,
        owner: args.owner.clone(),
        mode: mode.transpose()?,
    })
}

fn bad_quantity(name: &str, text: &str, bad: &units::BadQuantity) -> Fault {
    let help = bad
        .help()
        .map(|help| format!("; {help}"))
        .unwrap_or_default();
    Fault::usage(format!("`{name} {text}` {bad}{help}"))
}

fn format(args: &Ls) -> Format {
    match args.format {
        Some(LsFormat::Table) => Format::Table,
        Some(LsFormat::Csv) => Format::Csv,
        Some(LsFormat::Tsv) => Format::Tsv,
        Some(LsFormat::Ndjson) => Format::Ndjson,
        Some(LsFormat::Json) => Format::Json,
        Some(LsFormat::Paths) => Format::Paths,
        Some(LsFormat::Paths0) => Format::Paths0,
        None if std::io::stdout().is_terminal() => Format::Table,
        None => Format::Paths,
    }
}

fn older(path: &Path) -> Result<Older, Fault> {
    let wrong = |why: String| Fault::usage(format!("`--diff {}`: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Older::read(&text).map_err(wrong)
}

fn columns(args: &Ls, many: bool) -> Result<Vec<Column>, Fault> {
    if args.columns.is_empty() {
        let mut columns = match format(args) {
            Format::Table if many => [&[Column::Host], &FOR_PEOPLE[..]].concat(),
            Format::Table => FOR_PEOPLE.to_vec(),
            _ => FOR_MACHINES.to_vec(),
        };
        if args.diff.is_some() {
            columns.insert(0, Column::Change);
        }
        return Ok(columns);
    }
    args.columns.iter().map(|name| column(name)).collect()
}

fn column(name: &str) -> Result<Column, Fault> {
    let known = COLUMNS.iter().find(|(known, _)| *known == name);
    known.map(|(_, column)| *column).ok_or_else(|| {
        let names = COLUMNS.map(|(name, _)| name);
        let near = crate::text::did_you_mean(name, names);
        let help = near.map_or_else(
            || format!("there are: {}", names.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Fault::usage(format!("`{name}` is no column; {help}"))
    })
}

fn choice(args: &Ls, many: bool) -> Result<Choice, Fault> {
    let sums = match (args.summary, args.by.as_deref(), args.du) {
        (_, _, Some(depth)) => Some(Grouping::Du(depth)),
        (_, Some("ext"), _) => Some(Grouping::Ext),
        (_, Some("dir"), _) => Some(Grouping::Dir),
        (_, Some("owner"), _) => Some(Grouping::Owner),
        (_, Some("day"), _) => Some(Grouping::Day),
        (_, Some("host"), _) | (true, None, _) => Some(Grouping::Host),
        (false, None, None) => None,
        (_, Some(other), _) => {
            let help = "one of ext, dir, owner, day, host";
            return Err(Fault::usage(format!("`--by {other}`: {help} is needed")));
        }
    };
    let sort = args.sort.as_deref().map(column).transpose()?;
    let older = args.diff.as_deref().map(older).transpose()?;
    Ok(Choice {
        format: format(args),
        columns: columns(args, many)?,
        // Sums of sizes are asked for to see the large ones.
        sort,
        reverse: args.reverse,
        top: args.top,
        sums,
        many,
        older,
        across: args.across,
        fold: settings::fold_names,
    })
}
