//! Reads the sources and fails on what the layout forbids: an import that goes upward or sideways,
//! a crate outside its fence, a second place that prints or exits, a lint silenced without a
//! reason, a function that does not fit a screen.
//!
//! It reads text, not a syntax tree: comments, strings and test modules are taken out first.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Areas and words by floor. An import may go to a lower floor, inside its own area, or among
/// the words of floor 0.
const FLOORS: &[&[&str]] = &[
    &[
        "diagnostic",
        "event",
        "job",
        "listing",
        "outcome",
        "recap",
        "rows",
        "secret",
        "target",
        "text",
        "transfer",
    ],
    &[
        "inventory",
        "output",
        "playbook",
        "sandbox",
        "session",
        "sftp",
    ],
    &["journal", "plan", "report"],
    &["engine"],
    &["cli"],
];

/// Sideways imports that are meant, with the reason.
const MEANT: &[(&str, &str, &str)] = &[];

/// A crate, as it is written in paths, and the places that may name it.
const FENCES: &[(&str, &[&str])] = &[
    ("russh", &["session/ssh", "sandbox"]),
    ("russh_sftp", &["sandbox"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("serde_yaml", &["playbook", "inventory"]),
    ("quick_junit", &["report/junit"]),
    ("tabled", &["report", "cli"]),
    ("indicatif", &["report", "cli"]),
    ("rpassword", &["cli", "session/ssh"]),
];

/// Words of a program that only some places may say.
const WORDS: &[(&str, &[&str])] = &[
    ("println!", &["cli"]),
    ("eprintln!", &["cli"]),
    ("print!", &["cli"]),
    ("eprint!", &["cli"]),
    ("process::exit", &["cli", "main"]),
    ("dbg!", &[]),
    ("unbounded_channel", &[]),
    ("mpsc::unbounded", &[]),
    ("anyhow", &[]),
];

/// Where the program may let time pass on purpose. Waiting for a condition is never a sleep, so
/// each place says what it waits for.
const SLEEPS: &[(&str, &str)] = &[
    (
        "engine",
        "retry delays, pauses of a playbook, grace periods",
    ),
    ("session", "deadlines and back-off between attempts"),
    ("sftp/driver", "how long nothing at all may move"),
    (
        "sftp/copy/meter",
        "the pace that a bound on bandwidth asks for",
    ),
    ("sandbox", "the grace of a session that ends"),
    ("cli/printer", "the frames of the live screen"),
    (
        "cli/outlet",
        "how long a reader may block a run that is to end",
    ),
];

const LONGEST_FUNCTION: usize = 80;

struct Source {
    /// Below `src`, without `.rs`: `session/ssh/connect`.
    place: String,
    /// As written.
    text: String,
    /// A whole file behind `#[cfg(test)] mod name;`.
    is_test: bool,
}

impl Source {
    fn area(&self) -> &str {
        self.place.split('/').next().unwrap_or_default()
    }

    /// The files that join the floors, and so may name them all.
    fn joins(&self) -> bool {
        ["main", "lib"].contains(&self.place.as_str())
    }
}

fn is_within(place: &str, fence: &str) -> bool {
    place == fence
        || place
            .strip_prefix(fence)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    let place = |path: &Path| {
        let below = path.strip_prefix(&root).unwrap().with_extension("");
        below.to_str().unwrap().to_owned()
    };
    let mut sources: Vec<Source> = found
        .into_iter()
        .map(|path| Source {
            place: place(&path),
            text: fs::read_to_string(&path).unwrap(),
            is_test: false,
        })
        .collect();
    let tests: Vec<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        source.is_test = tests.iter().any(|test| is_within(&source.place, test));
    }
    sources
}

/// The places of the files that this file declares for tests alone.
fn test_files(source: &Source) -> Vec<String> {
    let directory = ["mod", "lib", "main"]
        .iter()
        .find_map(|root| source.place.strip_suffix(root))
        .map_or_else(|| format!("{}/", source.place), str::to_owned);
    source
        .text
        .split("#[cfg(test)]")
        .skip(1)
        .filter_map(|item| item.trim_start().strip_prefix("mod "))
        .filter_map(|item| item.split_once(';'))
        .filter(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .map(|(name, _)| format!("{directory}{name}"))
        .collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// All that is wrong with these sources, one sentence each.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let code = without_test_modules(&without_comments_and_strings(&source.text));
        found.extend(arrows(source, &code));
        found.extend(fences(source, &code));
        found.extend(words(source, &code));
        found.extend(silenced_lints(source));
        found.extend(long_functions(source, &code));
    }
    found
}

fn floor_of(area: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&area))
}

fn arrows(source: &Source, code: &str) -> Vec<String> {
    if source.joins() {
        return Vec::new();
    }
    let place = &source.place;
    let Some(from) = floor_of(source.area()) else {
        return vec![format!("{place}: `{}` stands on no floor", source.area())];
    };
    let mut found = Vec::new();
    for target in imported_areas(code) {
        if target == source.area() || is_meant(source.area(), &target) {
            continue;
        }
        match floor_of(&target) {
            None => found.push(format!("{place}: imports `{target}`, which is on no floor")),
            Some(to) if to > from => {
                found.push(format!("{place}: imports upward, from `{target}`"));
            }
            Some(to) if to == from && from > 0 => {
                found.push(format!("{place}: imports sideways, from `{target}`"));
            }
            Some(_) => {}
        }
    }
    found
}

fn is_meant(from: &str, to: &str) -> bool {
    MEANT.iter().any(|(a, b, _)| (*a, *b) == (from, to))
}

/// The first names behind `crate::`, in `use` lines with braces and inline alike.
fn imported_areas(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::`, and names that only end in "crate".
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_names_of_list(list)),
            None => found.push(first_name(rest)),
        }
    }
    found.sort();
    found.dedup();
    found
}

fn first_name(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn first_names_of_list(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = vec![first_name(list)];
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_name(&list[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn fences(source: &Source, code: &str) -> Vec<String> {
    let outside = |fence: &[&str]| !fence.iter().any(|place| is_within(&source.place, place));
    FENCES
        .iter()
        .filter(|(name, fence)| outside(fence) && names_crate(code, name))
        .map(|(name, fence)| {
            let place = &source.place;
            format!("{place}: `{name}` belongs to {} only", fence.join(", "))
        })
        .collect()
}

/// `name::`, `use name;` or `extern crate name`, and not as the tail of another path.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let whole = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let of_a_path = code[..at].ends_with("::") && !code[..at].trim_end().ends_with(" ::");
        let rest = &code[at + name.len()..];
        let used = rest.starts_with("::") || code[..at].trim_end().ends_with("use");
        whole && !of_a_path && used && !rest.starts_with('_')
    })
}

fn words(source: &Source, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, places) in WORDS {
        let allowed = places.iter().any(|place| is_within(&source.place, place));
        let said = code
            .match_indices(word)
            .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        if said && !allowed {
            found.push(format!("{}: `{word}` has no place here", source.place));
        }
    }
    let sleeps = code.contains("sleep(") || code.contains("sleep_until(");
    if sleeps
        && !SLEEPS
            .iter()
            .any(|(place, _)| is_within(&source.place, place))
    {
        found.push(format!("{}: sleeps, and has no leave to", source.place));
    }
    found
}

/// `#[allow(...)]` and `#[expect(...)]` say why: in a `reason`, or in a comment on the same line
/// or the line above. Tests are held to this too.
fn silenced_lints(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let silences = ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
            .iter()
            .any(|opening| start.starts_with(opening));
        let attribute: String = lines[index..]
            .iter()
            .scan(false, |over, part| {
                let now = *over;
                *over |= part.trim_end().ends_with(")]");
                (!now).then_some(*part)
            })
            .collect();
        let above = index.checked_sub(1).map_or("", |above| lines[above].trim());
        let explained = attribute.contains("reason")
            || line.contains(" // ")
            || (above.starts_with("//") && !above.starts_with("///"));
        if silences && !explained {
            let number = index + 1;
            found.push(format!(
                "{}:{number}: a lint is silenced without a reason",
                source.place
            ));
        }
    }
    found
}

fn long_functions(source: &Source, code: &str) -> Vec<String> {
    functions(code)
        .into_iter()
        .filter(|(_, lines)| *lines > LONGEST_FUNCTION)
        .map(|(name, lines)| format!("{}: `{name}` has {lines} lines", source.place))
        .collect()
}

/// Name and number of lines of every function with a body.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at..];
        let Some(open) = rest.find(['{', ';']) else {
            continue;
        };
        if rest[open..].starts_with('{') {
            let end = open + closing(&rest[open..]);
            let lines = rest[..end].lines().count();
            found.push((first_name(&rest["fn ".len()..]), lines));
        }
    }
    found
}

/// Bytes up to and with the brace that closes the first one.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Takes out `#[cfg(test)]` items with a body; line ends stay, so that numbers keep their sense.
fn without_test_modules(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let Some(open) = item.find(['{', ';']) else {
            return kept;
        };
        let end = if item[open..].starts_with('{') {
            open + closing(&item[open..])
        } else {
            open + 1
        };
        kept.extend(item[..end].matches('\n'));
        rest = &item[end..];
    }
    kept + rest
}

/// Blanks comments, strings and character literals; line ends stay.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = hidden_length(&text[at..], kept.last().copied());
        if length == 0 {
            // Whole characters only: an offset into the middle of one could not be sliced.
            let step = text[at..].chars().next().map_or(1, char::len_utf8);
            kept.extend(&bytes[at..at + step]);
            at += step;
        } else {
            let hidden = &text[at..at + length];
            kept.push(b' ');
            kept.extend(hidden.bytes().filter(|byte| *byte == b'\n'));
            at += length;
        }
    }
    String::from_utf8(kept).unwrap()
}

/// Length of the comment or literal that starts here; 0 when none does.
fn hidden_length(rest: &str, before: Option<u8>) -> usize {
    let in_name = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return string_length(rest);
    }
    let raw = rest.strip_prefix('b').unwrap_or(rest);
    if !in_name && raw.starts_with('r') && raw[1..].trim_start_matches('#').starts_with('"') {
        let hashes = raw[1..].len() - raw[1..].trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let body = rest.len() - raw.len() + 2 + hashes;
        return rest[body..]
            .find(&end)
            .map_or(rest.len(), |length| body + length + end.len());
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    0
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'x'`, `'\n'`, `'\u{1b}'`; a lifetime has no second quote there and hides nothing.
fn character_length(rest: &str) -> usize {
    if rest.starts_with("'\\") {
        let end = rest[3..].find('\'').map_or(0, |at| at + 4);
        return end.min(rest.len());
    }
    let mut characters = rest.char_indices().skip(2);
    match characters.next() {
        Some((at, '\'')) => at + 1,
        _ => 0,
    }
}

#[test]
fn sources_keep_to_the_layout() {
    let found = violations(&sources());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_area_stands_on_one_floor() {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for area in FLOORS.iter().flat_map(|floor| floor.iter()) {
        *count.entry(area).or_default() += 1;
    }
    assert!(count.values().all(|times| *times == 1), "{count:?}");
}

/// What the checker says about one made-up file.
fn said_about(place: &str, text: &str) -> String {
    let source = Source {
        place: place.to_owned(),
        text: text.to_owned(),
        is_test: false,
    };
    violations(&[source]).join("\n")
}

#[test]
fn made_up_violations_are_caught() {
    let long = format!("fn long() {{\n{}}}\n", "    work();\n".repeat(90));
    let cases = [
        ("playbook/schema", "use crate::engine::Run;", "upward"),
        ("session/ssh/connect", "use crate::{text, cli};", "upward"),
        (
            "sftp/client",
            "fn f() { crate::session::open() }",
            "sideways",
        ),
        ("plan", "use crate::{\n    report::{a, b},\n};", "sideways"),
        ("job", "use crate::plan;", "upward"),
        ("utils", "", "no floor"),
        ("sftp/wire", "use russh::ChannelId;", "`russh` belongs"),
        (
            "engine/lane",
            "fn f(h: russh::client::Handle) {}",
            "`russh` belongs",
        ),
        ("plan", "use clap::Parser;", "`clap` belongs"),
        (
            "session/ssh/auth",
            "use russh_sftp::server;",
            "`russh_sftp`",
        ),
        ("engine/lane", "fn f() { println!(\"x\") }", "println!"),
        ("report/fold", "std::process::exit(1);", "process::exit"),
        ("engine", "mpsc::unbounded_channel()", "unbounded_channel"),
        ("output/lines", "tokio::time::sleep(d).await", "sleeps"),
        ("text", "#[allow(dead_code)]\nfn f() {}", "without a reason"),
        ("text", long.as_str(), "`long` has 92 lines"),
    ];
    for (place, text, expected) in cases {
        let said = said_about(place, text);
        assert!(said.contains(expected), "{place}: {text}: said {said:?}");
    }
}

#[test]
fn what_is_allowed_is_left_alone() {
    let cases = [
        ("engine/lane", "use crate::{session::Session, report};"),
        ("session/ssh/connect", "use russh::client; use crate::text;"),
        ("job", "use crate::outcome::Outcome;"),
        ("sftp/wire", "// as russh::sftp does\nlet x = \"clap::x\";"),
        ("output/lines", "let quote = '\"'; fn f<'a>(x: &'a str) {}"),
        (
            "playbook/schema",
            "#[cfg(test)]\nmod tests {\n    use crate::sandbox;\n    println!();\n}",
        ),
        ("text", "#[allow(dead_code, reason = \"why\")]\nfn f() {}"),
        ("cli/print", "fn f() { println!(\"data\"); }"),
    ];
    for (place, text) in cases {
        assert_eq!(said_about(place, text), "", "{place}: {text}");
    }
}

#[test]
fn files_of_tests_are_known_by_their_declaration() {
    let source = |place: &str| Source {
        place: place.to_owned(),
        text: "#[cfg(test)]\nmod corpus;\n#[cfg(test)]\nmod tests { fn f(); }\nmod real;".into(),
        is_test: false,
    };
    assert_eq!(test_files(&source("playbook/mod")), ["playbook/corpus"]);
    assert_eq!(
        test_files(&source("session/local")),
        ["session/local/corpus"]
    );
}
