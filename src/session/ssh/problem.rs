//! How failures of a connection attempt are worded.

use std::io;
use std::time::Duration;

use super::state::Facts;
use crate::outcome::{Cause, HostProblem, Phase};
use crate::target::Dial;
use crate::text;

pub(super) fn new(cause: Cause, message: impl Into<String>) -> HostProblem {
    HostProblem {
        cause,
        message: message.into(),
        details: Vec::new(),
    }
}

/// `user@address:port`.
pub(super) fn endpoint(dial: &Dial) -> String {
    if dial.address.contains(':') {
        format!("[{}]:{}", dial.address, dial.port)
    } else {
        format!("{}:{}", dial.address, dial.port)
    }
}

/// An I/O error in lower case and without `(os error 111)`.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars
        .next()
        .map(|c| c.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// `connect_timeout` has passed.
pub(super) fn timeout(dial: &Dial, facts: &Facts) -> HostProblem {
    let phase = facts.phase();
    let place = match phase {
        Phase::Dns => format!("while resolving {}", dial.address),
        Phase::Connect => format!("while connecting to {}", endpoint(dial)),
        Phase::Banner => format!("waiting for the SSH banner of {}", endpoint(dial)),
        Phase::Kex => format!("in key exchange with {}", endpoint(dial)),
        Phase::Auth => format!("in authentication at {}", endpoint(dial)),
    };
    let after = text::duration(dial.connect_timeout);
    let problem = new(
        Cause::Timeout(phase),
        format!("timed out after {after} {place}"),
    );
    with_greeting(problem, facts)
}

/// One step of authentication had no answer for its share of `connect_timeout`.
pub(super) fn no_answer(dial: &Dial, facts: &Facts, step: &str, after: Duration) -> HostProblem {
    let after = text::duration(after);
    let at = endpoint(dial);
    let message = format!("timed out after {after} in authentication at {at}: no answer to {step}");
    with_greeting(new(Cause::Timeout(Phase::Auth), message), facts)
}

/// The session ended before it was ready.
pub(super) fn failed(dial: &Dial, facts: &Facts, error: &russh::Error) -> HostProblem {
    if let Some(refusal) = facts.refusal.get() {
        return refusal.clone();
    }
    let at = endpoint(dial);
    // OpenSSH's words when it drops a connection before it has looked at it (sshd.c): the host
    // speaks SSH, and may be tried again.
    let dropped = facts.said().is_some_and(|said| {
        said.starts_with("Exceeded MaxStartups") || said.starts_with("Not allowed at this time")
    });
    if dropped && facts.phase() == Phase::Banner {
        return with_greeting(closed(&at, Phase::Banner), facts);
    }
    if let Some(garbage) = facts.not_ssh() {
        let words = garbage.words();
        let problem = new(
            Cause::Banner,
            format!("{at} does not speak SSH 2: it sent {words}"),
        );
        return with_greeting(problem, facts);
    }
    with_greeting(by_error(&at, facts.phase(), error), facts)
}

fn by_error(at: &str, phase: Phase, error: &russh::Error) -> HostProblem {
    use russh::Error as E;
    match error {
        E::NoCommonAlgo { kind, ours, theirs } => {
            let kind = format!("{kind:?}").to_lowercase();
            let mut problem = new(
                Cause::Algorithms,
                format!("no {kind} algorithm in common with {at}"),
            );
            let theirs = text::printable(theirs.join(", ").as_bytes()).into_owned();
            problem.details.push(("server offers", theirs));
            problem.details.push(("we accept", ours.join(", ")));
            problem
        }
        E::Disconnect | E::HUP | E::RecvError | E::SendError => closed(at, phase),
        E::IO(e) => match e.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => closed(at, phase),
            _ => {
                let mut problem = closed(at, phase);
                problem.details.push(("reason", plain(e)));
                problem
            }
        },
        E::KeepaliveTimeout | E::ConnectionTimeout | E::InactivityTimeout | E::Elapsed(_) => {
            new(Cause::Timeout(phase), format!("{at} stopped answering"))
        }
        other => {
            let what = text::printable(other.to_string().as_bytes()).into_owned();
            let message = format!("{} with {at} failed: {what}", phase.words());
            new(Cause::Kex, message)
        }
    }
}

fn closed(at: &str, phase: Phase) -> HostProblem {
    new(
        Cause::Closed(phase),
        format!("{at} closed the connection during {}", phase.words()),
    )
}

fn with_greeting(mut problem: HostProblem, facts: &Facts) -> HostProblem {
    if let Some(said) = facts.said().or(facts.disconnect.get().map(String::as_str)) {
        problem.details.push(("server said", said.to_owned()));
    }
    problem
}
