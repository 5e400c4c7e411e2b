//! `fanrun help`: pages about the language and the interfaces, and the help of commands.
//!
//! What the code knows in one table is told from that table: keys, events, exit codes, filters.

use std::io::IsTerminal;

use clap::CommandFactory;

use super::args::{Cli, HelpArgs};
use super::{End, Fault, printer, settings};
use crate::playbook::schema::{self, reference_of_keys};
use crate::playbook::template::OWN_FILTERS;
use crate::recap::Verdict;
use crate::report;
use crate::text::did_you_mean;

/// The pages; `fanrun --help` says what each is about.
const PAGES: [&str; 5] = ["playbook", "vars", "parse", "exit-codes", "events"];
/// Columns of a page.
const WIDTH: usize = 100;

pub(super) fn help(args: &HelpArgs) -> Result<End, Fault> {
    let bold = std::io::stdout().is_terminal() && settings::colour(args.color);
    let page = match args.topic.as_deref() {
        None => Cli::command().render_long_help().to_string(),
        Some("playbook") => playbook(),
        Some("vars") => vars(),
        Some("parse") => parse(),
        Some("exit-codes") => exit_codes(),
        Some("events") => events(),
        Some(command) => return of_command(command),
    };
    let page = if bold { emboldened(&page) } else { page };
    printer::print_data(&page).map_err(Fault::Output)?;
    Ok(End::Code(Verdict::Ok.code()))
}

fn of_command(name: &str) -> Result<End, Fault> {
    let mut cli = Cli::command();
    cli.build();
    let Some(command) = cli.find_subcommand_mut(name) else {
        let known = cli.get_subcommands().map(clap::Command::get_name);
        let near = did_you_mean(name, known.chain(PAGES));
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let message = format!("there is no page and no command `{name}`{near}");
        return Err(Fault::usage(message));
    };
    let text = command.render_long_help().to_string();
    printer::print_data(&text).map_err(Fault::Output)?;
    Ok(End::Code(Verdict::Ok.code()))
}

fn playbook() -> String {
    let mut page = include_str!("help/playbook.txt").to_owned();
    for (heading, keys) in reference_of_keys() {
        push_table(&mut page, &heading.to_uppercase(), &keys);
    }
    page
}

fn vars() -> String {
    let mut page = include_str!("help/vars.txt").to_owned();
    push_table(&mut page, "FILTERS", &OWN_FILTERS);
    page
}

fn parse() -> String {
    let mut page = include_str!("help/parse.txt").to_owned();
    for (heading, keys) in schema::reference_of_parse() {
        push_table(&mut page, &heading.to_uppercase(), &keys);
    }
    let types = crate::rows::Type::WORDS.iter().map(|(word, _)| *word);
    let types = types.collect::<Vec<_>>().join(", ");
    page.push_str(&format!("\nTYPES\n  {types}\n"));
    page
}

fn exit_codes() -> String {
    let mut page =
        "EXIT CODES\n\nA stable interface: a change of this table needs a new major version.\n\n"
            .to_owned();
    for (verdict, about) in Verdict::TABLE {
        page.push_str(&format!("  {:>5}  {about}\n", verdict.code()));
    }
    page.push_str("  128+n  it was ended by signal n; fanrun dies of that signal\n");
    page.push_str(
        "\nWhere several apply: the signal, 70, 1, 6, 4, 3, 7. `exec --exit-code remote`, for one host,\n\
         ends with the command's own code, 128+n for signal n, and 255 where there was none, as ssh does.\n",
    );
    page
}

fn events() -> String {
    let mut page = "EVENTS\n\n`--format ndjson` and `--events FILE`: one JSON object a line. Every line has `v` (1), `seq`\n\
                    (which rises by one), `t` (seconds since the start) and `type`. Fields may be added; none is\n\
                    removed or changes its meaning without a new `v`. `fanrun schema events` is the same for\n\
                    programs.\n"
        .to_owned();
    for (kind, about, fields) in report::schema::reference() {
        page.push_str(&format!("\n{kind}\n"));
        push_wrapped(&mut page, 2, about);
        push_keys(&mut page, &fields);
    }
    page
}

fn push_table(page: &mut String, heading: &str, keys: &[(&str, &str)]) {
    page.push_str(&format!("\n{heading}\n"));
    push_keys(page, keys);
}

/// Names on the left, all of one width; what they mean beside them.
fn push_keys(page: &mut String, keys: &[(&str, &str)]) {
    let widest = keys.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, about) in keys {
        page.push_str(&format!("  {key:<widest$}  "));
        let lines = wrapped(about, WIDTH - widest - 4);
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                page.push_str(&" ".repeat(widest + 4));
            }
            page.push_str(line);
            page.push('\n');
        }
    }
}

fn push_wrapped(page: &mut String, indent: usize, text: &str) {
    for line in wrapped(text, WIDTH - indent) {
        page.push_str(&format!("{}{line}\n", " ".repeat(indent)));
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines
            .last_mut()
            .filter(|line| line.is_empty() || line.len() + 1 + word.len() <= width);
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Headings, which are lines without an indent in capitals, or names of events.
fn emboldened(page: &str) -> String {
    let heading = |line: &str| {
        let first = line.chars().next().is_some_and(char::is_alphabetic);
        let capitals = !line.chars().any(char::is_lowercase);
        let event = line.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        first && (capitals || event)
    };
    let line = |line: &str| {
        if heading(line) {
            format!("\x1b[1m{line}\x1b[0m\n")
        } else {
            format!("{line}\n")
        }
    };
    page.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::Source;

    /// The playbooks in a page: what is indented by four and begins with `hosts:` or `name:`.
    fn playbooks(page: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut inside = false;
        for line in page.lines() {
            match line.strip_prefix("    ") {
                Some(code)
                    if !inside && (code.starts_with("hosts:") || code.starts_with("name:")) =>
                {
                    found.push(format!("{code}\n"));
                    inside = true;
                }
                Some(code) if inside => {
                    if let Some(last) = found.last_mut() {
                        last.push_str(code);
                        last.push('\n');
                    }
                }
                _ => inside = false,
            }
        }
        found
    }

    #[test]
    fn the_examples_of_all_pages_are_playbooks() {
        let pages = [playbook(), vars(), parse()];
        let all: Vec<String> = pages.iter().flat_map(|page| playbooks(page)).collect();
        assert_eq!(all.len(), 4, "{all:?}");
        for text in all {
            let source = Arc::new(Source {
                path: "page.yml".into(),
                text: text.as_str().into(),
            });
            let loaded = crate::playbook::load(&source, &|_| Err("is missing".into()));
            assert!(loaded.mistakes.is_empty(), "{text}\n{:?}", loaded.mistakes);
        }
    }

    #[test]
    fn pages_fit_their_width() {
        for page in [playbook(), vars(), parse(), exit_codes(), events()] {
            for line in page.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn headings_alone_are_bold() {
        let shown = emboldened("FILTERS\n  size  of\nrun_end\nplain text\n");
        let wanted = "\x1b[1mFILTERS\x1b[0m\n  size  of\n\x1b[1mrun_end\x1b[0m\nplain text\n";
        assert_eq!(shown, wanted);
    }
}
