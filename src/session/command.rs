//! One string for a shell, such as that of an `exec` request, made of words, variables, a directory
//! and an interpreter.
//!
//! A plain command is sent as it is, with nothing around it: the server's shell is the only
//! process between sshd and the command, and a signal that ends the command is seen as a signal.
//!
//! What fanrun itself adds must mean the same to every login shell. POSIX quoting does not: fish
//! reads backslashes inside single quotes, csh reads `!` and stops at a line end. So such text is
//! handed to `/bin/sh` as one word in which everything doubtful is an octal escape of printf(1),
//! and ends with `exec`, so that nothing stands between the server and the command either.

use bytes::Bytes;

use crate::job::Command;
use crate::session::Spawn;
use crate::session::ahead::{LONGEST, not_passed, reader, sent, takes_posix};

/// Longest text that is sent ahead of the input.
const LONGEST_AHEAD: usize = 16 << 20;

/// How long a request a server takes, by its identification line. RFC 4253, section 6.1, promises
/// packets of 32,768 bytes; dropbear refuses commands over 9,000 (`MAX_CMD_LEN`) and ends the
/// connection at longer packets.
pub(super) fn longest_for(version: &str) -> usize {
    if version.contains("dropbear") {
        8_500
    } else {
        32_000
    }
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Composed {
    /// The command of the request.
    pub(super) request: String,
    /// Bytes that the command reads ahead of its input.
    pub(super) ahead: Option<Bytes>,
}

/// `word`, quoted for a POSIX shell.
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The request, or why there can be none.
///
/// `longest` is how long a request the server takes ([`longest_for`]). What is longer comes ahead of
/// the command's input, and so does what other users of the host may not see.
pub(super) fn compose(spawn: &Spawn, longest: usize) -> Result<Composed, String> {
    check(spawn)?;
    let inner = inner(spawn)?;
    let request = match &inner {
        Inner::Plain(text) => text.clone(),
        Inner::Script { setup, run } => in_any_shell(&format!("{setup}{run}")),
    };
    if request.len() <= longest && !spawn.hidden {
        let ahead = None;
        return Ok(Composed { request, ahead });
    }
    let (reader, ahead) = piped_of(spawn, inner)?;
    Ok(Composed {
        request: in_any_shell(&reader),
        ahead: Some(ahead),
    })
}

/// A script for `/bin/sh` that reads the command from its input, and what it reads there.
pub(super) fn piped(spawn: &Spawn) -> Result<(String, Bytes), String> {
    check(spawn)?;
    piped_of(spawn, inner(spawn)?)
}

fn piped_of(spawn: &Spawn, inner: Inner) -> Result<(String, Bytes), String> {
    let (setup, run) = match inner {
        Inner::Plain(text) => (String::new(), login_shell(&text, whose(spawn))),
        Inner::Script { setup, run } => (setup, run),
    };
    let ahead = sent_ahead(spawn, &setup, run)?;
    if ahead.len() > LONGEST_AHEAD {
        return Err(format!("the command is longer than {LONGEST_AHEAD} bytes"));
    }
    let reader = reader(ahead.first_script.len());
    Ok((reader, (ahead.first_script + &ahead.text).into()))
}

/// What the request means before it is made safe for every login shell.
enum Inner {
    /// Every shell reads it the same way, or it is for the account's own.
    Plain(String),
    /// For a POSIX shell: what comes first, and what ends it.
    Script { setup: String, run: String },
}

fn check(spawn: &Spawn) -> Result<(), String> {
    if let Some((name, _)) = spawn.env.iter().find(|(name, _)| !is_variable(name)) {
        return Err(format!("`{name}` cannot be the name of a variable"));
    }
    let command: Vec<&String> = match &spawn.command {
        Command::Argv(words) if words.is_empty() => {
            return Err("the command has no words".to_owned());
        }
        Command::Argv(words) => words.iter().collect(),
        Command::Shell(text) | Command::PosixShell(text) => vec![text],
    };
    let env = spawn.env.iter().map(|(_, value)| value);
    let all = command.into_iter().chain(env).chain(&spawn.cwd);
    match all
        .chain(spawn.shell.iter().flatten())
        .any(|text| text.contains('\0'))
    {
        true => Err("the command contains a NUL character, which no shell can take".to_owned()),
        false => Ok(()),
    }
}

fn inner(spawn: &Spawn) -> Result<Inner, String> {
    let setup = setup(spawn);
    let run = match (&spawn.command, &spawn.shell) {
        (Command::Argv(words), _) => exec(words),
        (Command::Shell(text) | Command::PosixShell(text), Some(shell)) if !shell.is_empty() => {
            let words: Vec<String> = shell.iter().chain([text]).cloned().collect();
            exec(&words)
        }
        (Command::Shell(text), _) if setup.is_empty() => return Ok(Inner::Plain(text.clone())),
        (Command::Shell(text), _) => login_shell(text, whose(spawn)),
        (Command::PosixShell(text), _) => login_shell(text, Whose::Posix),
    };
    if setup.is_empty() && !matches!(spawn.command, Command::PosixShell(_)) && is_clear(&run) {
        return Ok(Inner::Plain(run));
    }
    Ok(Inner::Script { setup, run })
}

/// The directory and the variables.
fn setup(spawn: &Spawn) -> String {
    let mut out = String::new();
    if let Some(dir) = &spawn.cwd {
        out.push_str(&format!("cd -- {} || exit 1\n", quote(dir)));
    }
    for (name, value) in &spawn.env {
        out.push_str(&format!("{name}={}\nexport {name}\n", quote(value)));
    }
    out
}

fn exec(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("exec {}", words.join(" "))
}

/// Whose shell runs a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The account's, whatever it is.
    Theirs,
    /// The account's if it is a POSIX shell, else `/bin/sh`: the text holds values that are
    /// escaped for those.
    Posix,
}

/// Accounts that programs run as often have a shell that refuses everybody (nologin).
fn whose(spawn: &Spawn) -> Whose {
    match spawn.becomes {
        Some(_) => Whose::Posix,
        None => Whose::Theirs,
    }
}

impl Whose {
    /// Sets `s` to the shell.
    fn choose(self) -> &'static str {
        match self {
            Self::Theirs => "s=${SHELL:-/bin/sh}\n",
            Self::Posix => {
                "case ${SHELL##*/} in sh|bash|dash|ash|ksh|ksh93|mksh|zsh|yash|rbash) s=$SHELL;; \
                 *) s=/bin/sh;; esac\n"
            }
        }
    }
}

fn login_shell(text: &str, whose: Whose) -> String {
    format!("{}exec \"$s\" -c {}", whose.choose(), quote(text))
}

/// Whether sh, bash, fish and csh read quoted text like this the same way.
fn is_clear(text: &str) -> bool {
    let quotes = text.replace(r"'\''", "");
    !quotes.contains(['\\', '!', '\n', '\r'])
}

/// A script for `/bin/sh` that any login shell hands over unchanged.
pub(super) fn in_any_shell(script: &str) -> String {
    let mut word = String::with_capacity(script.len() + script.len() / 8);
    for c in script.chars() {
        match c {
            '\'' | '\\' | '!' | '\0'..='\x1f' | '\x7f' => {
                word.push_str(&format!("\\0{:03o}", u32::from(c)));
            }
            _ => word.push(c),
        }
    }
    format!(r#"exec /bin/sh -c 'eval "$(printf %b "$1")"' sh '{word}'"#)
}

/// What comes ahead of the input of a long command.
struct Ahead {
    /// For `/bin/sh`.
    first_script: String,
    /// For the shell that the script starts, where that is too long to be its argument.
    text: String,
}

impl Ahead {
    fn len(&self) -> usize {
        self.first_script.len() + self.text.len()
    }
}

fn sent_ahead(spawn: &Spawn, setup: &str, run: String) -> Result<Ahead, String> {
    let text = match &spawn.command {
        Command::Shell(text) | Command::PosixShell(text)
            if text.len() > LONGEST || spawn.hidden =>
        {
            text
        }
        Command::Argv(_) | Command::Shell(_) | Command::PosixShell(_) => {
            return Ok(Ahead {
                first_script: sent(&format!("{setup}{run}")),
                text: String::new(),
            });
        }
    };
    let sent_text = sent(text);
    let read = reader(sent_text.len());
    let run = match &spawn.shell {
        Some(shell) if !shell.is_empty() && !takes_posix(shell) => {
            return Err(not_passed(text, shell, spawn.hidden));
        }
        Some(shell) if !shell.is_empty() => exec(&[shell.as_slice(), &[read]].concat()),
        Some(_) | None => login_shell(&read, Whose::Posix),
    };
    Ok(Ahead {
        first_script: sent(&format!("{setup}{run}")),
        text: sent_text,
    })
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
            hidden: false,
            becomes: None,
        }
    }

    fn request(spawn: &Spawn) -> String {
        let composed = compose(spawn, 32_000).unwrap();
        assert_eq!(composed.ahead, None);
        composed.request
    }

    /// What a shell makes of a request.
    fn said_by(shell: &str, request: &str) -> String {
        let output = std::process::Command::new(shell)
            .args(["-c", request])
            .env("SHELL", shell)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_plain_command_is_sent_as_it_is() {
        let text = "echo 'a' | wc\n# done";
        assert_eq!(request(&spawn(Command::Shell(text.into()))), text);
        let words = vec!["echo".into(), "it's".into()];
        let sent = request(&spawn(Command::Argv(words)));
        assert_eq!(sent, r"exec 'echo' 'it'\''s'");
    }

    #[test]
    fn words_directories_and_variables_mean_the_same_to_every_shell() {
        let hostile = "it's \\ \\\\ !x \\' $HOME `id` \n\t%s \u{e9}\\";
        let words = ["printf", "%s|", hostile, ""].map(str::to_owned).to_vec();
        let mut it = spawn(Command::Argv(words));
        for shell in ["/bin/sh", "/bin/bash", "/bin/dash"] {
            assert_eq!(said_by(shell, &request(&it)), format!("{hostile}||"));
        }
        it.cwd = Some("/usr".into());
        it.env = vec![("A_1".into(), hostile.into())];
        it.command = Command::Shell("pwd; printf %s \"$A_1\"; echo \"$0\"".into());
        for shell in ["/bin/sh", "/bin/bash", "/bin/dash"] {
            let said = said_by(shell, &request(&it));
            assert_eq!(said, format!("/usr\n{hostile}{shell}\n"), "{shell}");
        }
    }

    #[test]
    fn an_interpreter_gets_the_text_as_one_word() {
        let mut it = spawn(Command::Shell("echo a\necho \"$0\"".into()));
        it.shell = Some(vec!["bash".into(), "-c".into()]);
        assert_eq!(said_by("/bin/sh", &request(&it)), "a\nbash\n");
    }

    #[test]
    fn escaped_values_go_to_a_posix_shell() {
        let it = spawn(Command::PosixShell(
            "printf '%s ' 'a\\b'; echo \"$0\"".into(),
        ));
        let sent = request(&it);
        let run = |login: &str| {
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", &sent])
                .env("SHELL", login)
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run("/bin/bash"), "a\\b /bin/bash\n");
        assert_eq!(run("/usr/bin/fish"), "a\\b /bin/sh\n");
    }

    #[test]
    fn a_long_text_comes_ahead_of_the_input() {
        use std::io::Write;
        let bash = vec!["bash".to_owned(), "-euc".to_owned()];
        let both = [(40_000, None), (40_000, Some(bash.clone()))];
        let longer = [(1 << 20, None), (1 << 20, Some(bash))];
        for (length, shell) in both.into_iter().chain(longer) {
            let text = format!(": {}\ncat; exit 7 # end", "x".repeat(length));
            let mut it = spawn(Command::Shell(text.clone()));
            it.shell = shell;
            let sent = compose(&it, 32_000).unwrap();
            assert!(sent.request.len() < 1000);
            let mut child = std::process::Command::new("/bin/sh")
                .args(["-c", &sent.request])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || {
                stdin.write_all(&sent.ahead.unwrap()).unwrap();
                stdin.write_all(b"the input").unwrap();
            });
            let output = child.wait_with_output().unwrap();
            writer.join().unwrap();
            assert_eq!(output.stdout, b"the input");
            assert_eq!(output.status.code(), Some(7));
        }
    }

    #[test]
    fn part_of_a_long_text_never_runs() {
        use std::io::Write;
        let text = format!(": {}\necho ran", "x".repeat(40_000));
        let sent = compose(&spawn(Command::Shell(text)), 32_000).unwrap();
        let ahead = sent.ahead.unwrap();
        let whole = ahead.len();
        for part in [&ahead[..whole - 1], &ahead[1..], &ahead[..20_000], b""] {
            let mut child = std::process::Command::new("/bin/sh")
                .args(["-c", &sent.request])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(part).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.stdout.is_empty());
            assert_eq!(output.status.code(), Some(125));
        }
    }

    #[test]
    fn what_no_shell_can_take() {
        assert!(compose(&spawn(Command::Shell("a\0b".into())), 32_000).is_err());
        assert!(compose(&spawn(Command::Argv(vec![])), 32_000).is_err());
        let mut it = spawn(Command::Shell("x".repeat(130_000)));
        it.shell = Some(vec!["python3".into(), "-c".into()]);
        assert!(compose(&it, 32_000).unwrap_err().contains("`script`"));
        let mut it = spawn(Command::Shell("true".into()));
        it.env = vec![("A;rm".into(), "b".into())];
        assert!(compose(&it, 32_000).is_err());
    }
}
