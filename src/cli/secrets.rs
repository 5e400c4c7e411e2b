//! Fetching the values of secrets, and keeping them from being seen.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::sync::watch;

use super::settings::Reach;
use super::{Fault, ask, printer};
use crate::diagnostic::Diagnostic;
use crate::output::mask::{Mask, SHORTEST, can_be_masked};
use crate::plan::Plan;
use crate::playbook::{DeclaredSecret, SecretFrom};
use crate::secret::Secret;

/// The longest secret, in bytes.
const LONGEST: u64 = 1 << 20;

/// Fetches the secrets that the plan uses. All that cannot be fetched are told at once, but nobody
/// is asked anything as long as one is missing.
///
/// Gives what is worth a word.
pub(super) fn fetch(plan: &mut Plan, reach: &mut Reach) -> Result<Vec<Diagnostic>, Fault> {
    let mut missing = Vec::new();
    let mut values: Vec<(DeclaredSecret, Option<Secret>)> = Vec::new();
    for declared in plan.needed_secrets() {
        match value(declared, reach.terminal) {
            Ok(value) => values.push((declared.clone(), value)),
            Err(reason) => missing.push(mistake(declared, &reason)),
        }
    }
    if !missing.is_empty() {
        return Err(Fault::Wrong(missing));
    }
    let (mut warnings, mut known) = (Vec::new(), Vec::new());
    for (declared, value) in values {
        let value = match (value, &declared.from) {
            (Some(value), _) => value,
            (None, SecretFrom::Prompt(question)) => ask_for(&declared, question)?,
            (None, _) => continue,
        };
        if !can_be_masked(&value) {
            let message = format!(
                "the secret `{}` is shorter than {SHORTEST} characters: it cannot be masked",
                declared.name
            );
            warnings.push(at(Diagnostic::warning(message), &declared));
        }
        known.push((declared.name, value));
    }
    reach
        .secrets
        .extend(known.iter().map(|(_, value)| value.clone()));
    let mask = Arc::new(Mask::new(reach.secrets.clone()));
    plan.reveal(known, mask);
    Ok(warnings)
}

/// What nobody may see, for all who print. A panic's message is told here as well.
pub(super) fn veil(secrets: Vec<Secret>) -> watch::Sender<Arc<Mask>> {
    let masks = watch::Sender::new(Arc::new(Mask::new(secrets)));
    let seen = masks.subscribe();
    std::panic::set_hook(Box::new(move |panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{trace}\n"),
            _ => String::new(),
        };
        printer::print_talk(&last_words(&seen.borrow(), &panic.to_string(), &trace));
    }));
    masks
}

/// What is told of a panic.
fn last_words(mask: &Mask, panic: &str, trace: &str) -> String {
    let text = format!("fanrun has a bug: {panic}\n{trace}");
    mask.text(&text).into_owned()
}

fn mistake(declared: &DeclaredSecret, reason: &str) -> Diagnostic {
    let message = format!("the secret `{}` is not to be had: {reason}", declared.name);
    at(Diagnostic::error(message), declared)
}

fn at(diagnostic: Diagnostic, declared: &DeclaredSecret) -> Diagnostic {
    diagnostic.at(&declared.at.source, declared.at.span.clone(), "")
}

/// `None` where somebody has to be asked, and is there.
fn value(declared: &DeclaredSecret, terminal: bool) -> Result<Option<Secret>, String> {
    let folder = declared.at.source.path.parent().unwrap_or(Path::new(""));
    let text = match &declared.from {
        SecretFrom::Env(name) => std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => format!("the environment has no `{name}`"),
            std::env::VarError::NotUnicode(_) => format!("`{name}` is not UTF-8 text"),
        })?,
        SecretFrom::File(path) => of_file(&place(folder, path))?,
        SecretFrom::Command(command) => of_command(command, folder)?,
        SecretFrom::Prompt(_) if terminal => return Ok(None),
        SecretFrom::Prompt(_) => return Err("there is no terminal to ask on".to_owned()),
    };
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(Some(Secret::new(text)))
}

fn ask_for(declared: &DeclaredSecret, question: &str) -> Result<Secret, Fault> {
    let question = crate::text::printable(question.trim().as_bytes());
    let prompt = format!("{}: ", question.trim_end_matches(':'));
    let wrong = |reason: &str| Fault::Wrong(vec![mistake(declared, reason)]);
    match ask::password(&prompt) {
        Ok(answer) if answer.reveal().is_empty() => Err(wrong("the answer was empty")),
        Ok(answer) => Ok(answer),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// `~/` is the home directory; else relative to the playbook's folder.
fn place(folder: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(path),
    }
}

/// A file that others can read is no secret; OpenSSH takes the same view of private keys
/// (`sshkey_perm_ok`, authfile.c).
fn of_file(path: &Path) -> Result<String, String> {
    let shown = crate::text::printable(path.as_os_str().as_encoded_bytes()).into_owned();
    let wrong = |error: std::io::Error| format!("{shown}: {error}");
    let file = std::fs::File::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(format!(
            "others may read {shown} (mode {mode:04o}); `chmod 600` it"
        ));
    }
    let mut text = String::new();
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(wrong)?;
    whole(text, &shown)
}

/// Its standard error is ours: that is where such programs ask.
fn of_command(command: &str, folder: &Path) -> Result<String, String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    if !folder.as_os_str().is_empty() {
        shell.current_dir(folder);
    }
    let shown = crate::text::printable(command.as_bytes()).into_owned();
    let output = shell.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("`{shown}`: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{shown}` ended with {}", output.status));
    }
    match String::from_utf8(output.stdout) {
        Ok(text) => whole(text, &format!("what `{shown}` wrote")),
        Err(_) => Err(format!("what `{shown}` wrote is not UTF-8 text")),
    }
}

/// Without its last line end, which editors and programs add.
fn whole(mut text: String, what: &str) -> Result<String, String> {
    if text.len() as u64 > LONGEST {
        return Err(format!("{what} is longer than 1 MiB"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_tells_no_secret() {
        let mask = Mask::new(vec![Secret::new("c4nary-value".into())]);
        let told = last_words(
            &mask,
            "panicked at x.rs:1:\ncalled on \"c4nary-value\"",
            "0: f\n",
        );
        assert_eq!(
            told,
            "fanrun has a bug: panicked at x.rs:1:\ncalled on \"***\"\n0: f\n"
        );
    }

    #[test]
    fn a_last_line_end_is_no_part_of_a_secret() {
        for (written, meant) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a ", " a "),
        ] {
            assert_eq!(whole(written.to_owned(), "it").as_deref(), Ok(meant));
        }
        assert!(whole("x".repeat(2 << 20), "it").is_err());
    }
}
