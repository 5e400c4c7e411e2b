//! One string for an `exec` request, made of words, variables, a directory and an interpreter.
//!
//! A plain command is sent as it is, with nothing around it: the server's shell is the only
//! process between sshd and the command, and a signal that ends the command is seen as a signal.

use crate::job::Command;
use crate::session::Spawn;

/// Longest command that is sent. Linux passes one argument of at most 128 KiB to a program
/// (`MAX_ARG_STRLEN`), and the server's shell gets the command as one.
const LONGEST: usize = 120 << 10;

/// `word`, quoted for a POSIX shell.
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The text of the request, or why it cannot be sent.
pub(super) fn compose(spawn: &Spawn) -> Result<String, String> {
    let text = text(spawn)?;
    if text.contains('\0') {
        return Err("the command contains a NUL character, which no shell can take".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!(
            "the command is {} bytes long; at most {LONGEST} can be passed to a shell, put the \
             rest on its standard input",
            text.len()
        ));
    }
    Ok(text)
}

fn text(spawn: &Spawn) -> Result<String, String> {
    for (name, _) in &spawn.env {
        if !is_variable(name) {
            return Err(format!("`{name}` cannot be the name of a variable"));
        }
    }
    let cd = spawn
        .cwd
        .as_ref()
        .map(|dir| format!("cd -- {} && ", quote(dir)))
        .unwrap_or_default();
    let words: Vec<String> = match (&spawn.command, &spawn.shell) {
        (Command::Argv(words), _) if words.is_empty() => {
            return Err("the command has no words".to_owned());
        }
        (Command::Argv(words), _) => words.clone(),
        (Command::Shell(text), Some(shell)) if !shell.is_empty() => {
            shell.iter().chain([text]).cloned().collect()
        }
        (Command::Shell(text), _) => return Ok(login_shell(text, spawn)),
    };
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let words = words.join(" ");
    if spawn.env.is_empty() {
        return Ok(format!("{cd}exec {words}"));
    }
    let env: Vec<String> = spawn
        .env
        .iter()
        .map(|(name, value)| format!("{name}={}", quote(value)))
        .collect();
    Ok(format!("{cd}exec env {} {words}", env.join(" ")))
}

/// Text for the account's own shell. The directory and the text are joined with `||` and a line
/// end, so that the text may be anything: several lines, a here-document, a comment.
fn login_shell(text: &str, spawn: &Spawn) -> String {
    let mut out = String::new();
    if let Some(dir) = &spawn.cwd {
        out.push_str(&format!("cd -- {} || exit 1\n", quote(dir)));
    }
    for (name, value) in &spawn.env {
        out.push_str(&format!("export {name}={}\n", quote(value)));
    }
    out.push_str(text);
    out
}

/// A name as POSIX.1-2024 (XBD 8.1) has it.
fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Stdin;

    fn spawn(command: Command) -> Spawn {
        Spawn {
            command,
            env: Vec::new(),
            cwd: None,
            shell: None,
            stdin: Stdin::Closed,
        }
    }

    #[test]
    fn a_plain_command_is_sent_as_it_is() {
        let text = "echo 'a' | wc\n# done";
        let composed = compose(&spawn(Command::Shell(text.into()))).unwrap();
        assert_eq!(composed, text);
    }

    #[test]
    fn words_are_quoted_and_replace_the_shell() {
        let mut it = spawn(Command::Argv(vec!["echo".into(), "it's".into()]));
        assert_eq!(compose(&it).unwrap(), r"exec 'echo' 'it'\''s'");
        it.env = vec![("A".into(), "b c".into())];
        it.cwd = Some("/x y".into());
        assert_eq!(
            compose(&it).unwrap(),
            r"cd -- '/x y' && exec env A='b c' 'echo' 'it'\''s'"
        );
    }

    #[test]
    fn an_interpreter_gets_the_text_as_one_word() {
        let mut it = spawn(Command::Shell("a\nb".into()));
        it.shell = Some(vec!["bash".into(), "-c".into()]);
        assert_eq!(compose(&it).unwrap(), "exec 'bash' '-c' 'a\nb'");
    }

    #[test]
    fn what_no_shell_can_take() {
        assert!(compose(&spawn(Command::Shell("a\0b".into()))).is_err());
        assert!(compose(&spawn(Command::Shell("x".repeat(130_000)))).is_err());
        assert!(compose(&spawn(Command::Argv(vec![]))).is_err());
        let mut it = spawn(Command::Shell("true".into()));
        it.env = vec![("A;rm".into(), "b".into())];
        assert!(compose(&it).is_err());
    }
}
