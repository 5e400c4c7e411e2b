//! Shell text that is too long to be an argument, or that others may not see: it comes ahead of the command's input, and the
//! shell that runs it reads it from there with head(1), which takes exactly as many bytes as it is
//! told.
//!
//! Linux passes one argument of at most 128 KiB to a program (`MAX_ARG_STRLEN`), and a shell gets
//! its text as one. The text runs by `eval`, so that a signal that ends its last command shows as
//! the shell's `128 + n`.

/// Longest text that is passed as an argument; some room is left for what stands around it.
pub(super) const LONGEST: usize = 100 << 10;

/// Stands at both ends of a text: part of a command must never run, be it that the connection ended
/// in the middle or that a start-up file of the shell has read some of it.
const WHOLE: &str = "#fanrun";

/// The text as it is sent.
pub(super) fn sent(text: &str) -> String {
    format!("{WHOLE}\n{text}\n{WHOLE}")
}

/// What a shell runs to read a text of so many bytes, as sent, and to run it.
pub(super) fn reader(length: usize) -> String {
    format!(
        "t=$(head -c {length}); case $t in '{WHOLE}'*'{WHOLE}') eval \"$t\";; \
         *) echo 'fanrun: the command did not arrive whole' >&2; exit 125;; esac"
    )
}

/// Whether an interpreter is a shell that knows `eval` and `$(...)`, given its text by `-c`.
pub(super) fn takes_posix(shell: &[String]) -> bool {
    const SHELLS: [&str; 8] = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "yash"];
    let name = shell
        .first()
        .map(|word| word.rsplit('/').next().unwrap_or(word));
    name.is_some_and(|name| SHELLS.contains(&name))
}

/// Why another interpreter does not get it.
pub(super) fn not_passed(text: &str, shell: &[String], hidden: bool) -> String {
    let shell = shell.first().map_or("a program", String::as_str);
    let shell = crate::text::printable(shell.as_bytes());
    if hidden {
        return format!(
            "the command holds a secret, which would stand on the command line of {shell}; pass it \
             through `env` or `stdin`"
        );
    }
    format!(
        "the command is {} bytes long; at most {LONGEST} can be passed to {shell}, put it into a \
         file and use `script`",
        text.len(),
    )
}
