//! Starting a child, and saying in words why that did not work.
//!
//! The system has one number for "the program is missing" and "its directory is missing", so after
//! a failure we look which it was.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use tokio::process::{Child, Command};

use super::super::{Spawn, SpawnError, Stdin, ahead};
use crate::job;
use crate::text;

/// What runs shell text unless the job names another shell.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Starts the child with pipes on its outputs, in a group of its own.
///
/// Gives the bytes that come ahead of its input: its text, where that cannot be an argument.
pub(super) fn start(spawn: &Spawn) -> Result<(Child, Option<Bytes>), SpawnError> {
    let (words, ahead) = words(spawn).map_err(not_started)?;
    let Some((program, args)) = words.split_first() else {
        return Err(not_started("the command is empty".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(spawn.env.iter().map(|(name, value)| (name, value)))
        .stdin(match spawn.stdin {
            Stdin::Closed if ahead.is_none() => Stdio::null(),
            Stdin::Closed | Stdin::Bytes(_) | Stdin::Stream(_) => Stdio::piped(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(cwd) = &spawn.cwd {
        command.current_dir(cwd);
    }
    let child = command
        .spawn()
        .map_err(|error| not_started(reason(&error, program, spawn.cwd.as_deref())))?;
    Ok((child, ahead))
}

fn not_started(reason: String) -> SpawnError {
    SpawnError::NotStarted { reason }
}

/// The program and its arguments, and what comes ahead of its input.
fn words(spawn: &Spawn) -> Result<(Vec<String>, Option<Bytes>), String> {
    let text = match &spawn.command {
        job::Command::Argv(words) => return Ok((words.clone(), None)),
        job::Command::Shell(text) | job::Command::PosixShell(text) => text,
    };
    let mut words = match &spawn.shell {
        Some(shell) if shell.is_empty() => return Ok((Vec::new(), None)),
        Some(shell) => shell.clone(),
        None => SHELL.map(str::to_owned).to_vec(),
    };
    if text.len() <= ahead::LONGEST && !spawn.hidden {
        words.push(text.clone());
        return Ok((words, None));
    }
    if !ahead::takes_posix(&words) {
        return Err(ahead::not_passed(text, &words, spawn.hidden));
    }
    let sent = ahead::sent(text);
    words.push(ahead::reader(sent.len()));
    Ok((words, Some(sent.into())))
}

/// Why `program` could not be started in `cwd`.
fn reason(error: &io::Error, program: &str, cwd: Option<&str>) -> String {
    if let Some(reason) = cwd.and_then(directory_problem) {
        return reason;
    }
    let name = text::printable(program.as_bytes());
    let file = program_file(program, cwd);
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => missing(&name, file.as_deref()),
        Some(Errno::NOTDIR) => format!("the path of program {name} leads through a file"),
        Some(Errno::ACCESS | Errno::PERM) => forbidden(&name, file.as_deref()),
        Some(Errno::NOEXEC) => {
            format!("program {name} has no #! line and is no executable of this machine")
        }
        Some(Errno::TOOBIG) => {
            format!(
                "the arguments and environment of program {name} are longer than the system allows"
            )
        }
        Some(Errno::AGAIN) => {
            format!("program {name} was not started: the limit of processes is reached")
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            format!("program {name} was not started: the limit of open files is reached")
        }
        Some(Errno::NOMEM) => format!("program {name} was not started: not enough memory"),
        Some(Errno::TXTBSY) => format!("program {name} is being written by another process"),
        None if error.kind() == io::ErrorKind::InvalidInput => {
            format!("the arguments, environment or directory of program {name} hold a NUL byte")
        }
        _ => format!("program {name} was not started: {error}"),
    }
}

/// What is wrong with the working directory, if anything is.
fn directory_problem(cwd: &str) -> Option<String> {
    let name = text::printable(cwd.as_bytes());
    match std::fs::metadata(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("working directory {name} does not exist"))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
        Err(error) => Some(format!(
            "working directory {name} cannot be entered: {error}"
        )),
        Ok(meta) if !meta.is_dir() => Some(format!("working directory {name} is not a directory")),
        Ok(_) => access(cwd, Access::EXEC_OK)
            .err()
            .map(|_| format!("working directory {name} cannot be entered: permission denied")),
    }
}

/// The program's file; `None` if it is to be found in `PATH`.
fn program_file(program: &str, cwd: Option<&str>) -> Option<PathBuf> {
    program
        .contains('/')
        .then(|| Path::new(cwd.unwrap_or(".")).join(program))
}

fn missing(name: &str, file: Option<&Path>) -> String {
    match file {
        None => format!("program {name} was not found in PATH"),
        Some(file) if file.exists() => match interpreter(file) {
            Some(interpreter) => {
                format!("the interpreter of program {name} does not exist: {interpreter}")
            }
            None => format!("the loader of program {name} does not exist"),
        },
        Some(_) => format!("program {name} does not exist"),
    }
}

fn forbidden(name: &str, file: Option<&Path>) -> String {
    match file {
        Some(file) if file.is_dir() => format!("program {name} is a directory"),
        Some(file) if file.exists() && access(file, Access::EXEC_OK).is_err() => {
            format!("program {name} is not executable")
        }
        _ => format!("permission denied for program {name}"),
    }
}

/// What the `#!` line names, printable.
fn interpreter(file: &Path) -> Option<String> {
    use std::io::Read as _;
    // The kernel itself looks at 256 bytes.
    let mut start = Vec::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?;
    let line = line.split(|&b| b == b'\n').next()?;
    Some(text::printable(line.trim_ascii()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_system_are_told_apart() {
        let told = |errno: Errno| reason(&errno.into(), "make", None);
        for (errno, expected) in [
            (Errno::AGAIN, "the limit of processes is reached"),
            (Errno::MFILE, "the limit of open files is reached"),
            (Errno::NOMEM, "not enough memory"),
        ] {
            assert_eq!(
                told(errno),
                format!("program make was not started: {expected}")
            );
        }
        assert_eq!(told(Errno::ACCESS), "permission denied for program make");
        let other = told(Errno::IO);
        assert!(
            other.starts_with("program make was not started: "),
            "{other}"
        );
    }

    #[test]
    fn names_are_made_printable() {
        let told = reason(&Errno::NOENT.into(), "a\u{1b}[31m", None);
        assert_eq!(told, "program a\\x1b[31m was not found in PATH");
    }
}
