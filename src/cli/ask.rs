//! Questions to the person at the terminal.

use std::io::{BufRead, BufReader, Write};

use crate::secret::Secret;
use crate::session::ssh::{Question, QuestionKind};

/// Asks, and sends the answer; none if the terminal is gone or the person gave none. What must not
/// be seen is told to `hide` first.
pub(super) fn answer(question: Question, mut hide: impl FnMut(Secret)) {
    let answer = match question.kind {
        QuestionKind::HostKey { .. } | QuestionKind::Confirm => ask_line(&question.prompt),
        _ => {
            let answer = password(&question.prompt).ok();
            answer.iter().cloned().for_each(&mut hide);
            answer
        }
    };
    // The asker may have given up meanwhile.
    let _ = question.answer.send(answer);
}

/// Asks for a password before the run begins.
pub(super) fn password(prompt: &str) -> std::io::Result<Secret> {
    rpassword::prompt_password(prompt).map(Secret::new)
}

fn ask_line(prompt: &str) -> Option<Secret> {
    let mut tty = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()?;
    tty.write_all(prompt.as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(tty).read_line(&mut line).ok()?;
    Some(Secret::new(line.trim().to_owned()))
}

/// Answers questions until nobody can ask any more. For commands without a printer.
pub(super) fn answer_all(mut questions: tokio::sync::mpsc::Receiver<Question>) {
    while let Some(question) = questions.blocking_recv() {
        answer(question, |_| {});
    }
}
