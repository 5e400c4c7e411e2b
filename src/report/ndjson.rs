//! The event stream for programs, version 1: one JSON object a line.
//!
//! ```json
//! {"v":1,"seq":17,"t":12.345,"type":"line","host":"web1","task":"0.2","stream":"stdout","n":3,"text":"..."}
//! ```
//!
//! `text` (or `bytes`, base64, where a line is not UTF-8) followed by `eol` (`"\n"` where it is left
//! out), joined over a stream, gives the bytes that the host sent.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Ink, Renderer};
use crate::event::{Block, Event, LineEnd, ReadFile, RunInfo, Severity, Stream, What};
use crate::job::{TaskId, TaskRef};
use crate::listing::Entry;
use crate::outcome::{ExitStatus, Failure, Items, Outcome, Remains};
use crate::rows::Row;
use crate::transfer::{Progress, Tally, Verified};

/// The renderer of `--format ndjson` and `--events`.
#[derive(Debug, Default)]
pub struct Ndjson;

impl Renderer for Ndjson {
    fn render(&mut self, event: &Event, ink: &mut Ink) {
        let out = ink.out();
        if let What::Output { host, task, block } = &event.what {
            return push_lines(out, event, host.as_str(), task.id, block);
        }
        if let What::Entries {
            host,
            task,
            entries,
        } = &event.what
        {
            return push_entries(out, event, host.as_str(), task.id, entries);
        }
        if let What::Rows {
            host,
            task,
            first,
            rows,
        } = &event.what
        {
            return push_rows(out, event, host.as_str(), task.id, *first, rows);
        }
        let (kind, mut fields) = describe(&event.what);
        let mut object = Map::new();
        object.insert("v".into(), json!(1));
        object.insert("seq".into(), json!(event.seq));
        object.insert("t".into(), json!(seconds(event)));
        object.insert("type".into(), json!(kind));
        if let Some(fields) = fields.as_object_mut() {
            object.append(fields);
        }
        // A map of plain values cannot fail to be written into memory.
        let _ = serde_json::to_writer(&mut *out, &object);
        out.push(b'\n');
    }
}

fn seconds(event: &Event) -> f64 {
    (event.at.as_secs_f64() * 1e6).round() / 1e6
}

fn id(task: TaskId) -> String {
    format!("{}.{}", task.play.0, task.index)
}

fn push_entries(out: &mut Vec<u8>, event: &Event, host: &str, task: TaskId, entries: &[Entry]) {
    for (at, entry) in (0u64..).zip(entries) {
        let mut object = Map::new();
        object.insert("v".into(), json!(1));
        object.insert("seq".into(), json!(event.seq + at));
        object.insert("t".into(), json!(seconds(event)));
        object.insert("type".into(), json!("entry"));
        object.insert("host".into(), json!(host));
        object.insert("task".into(), json!(id(task)));
        object.append(&mut entry.fields());
        // A map of plain values cannot fail to be written into memory.
        let _ = serde_json::to_writer(&mut *out, &object);
        out.push(b'\n');
    }
}

fn push_rows(out: &mut Vec<u8>, event: &Event, host: &str, task: TaskId, first: u64, rows: &[Row]) {
    for (at, row) in (0u64..).zip(rows) {
        let mut object = Map::new();
        object.insert("v".into(), json!(1));
        object.insert("seq".into(), json!(event.seq + at));
        object.insert("t".into(), json!(seconds(event)));
        object.insert("type".into(), json!("row"));
        object.insert("host".into(), json!(host));
        object.insert("task".into(), json!(id(task)));
        object.insert("n".into(), json!(first + at));
        if row.approximate {
            object.insert("approximate".into(), json!(true));
        }
        object.insert("row".into(), row.fields().into());
        // A map of plain values cannot fail to be written into memory.
        let _ = serde_json::to_writer(&mut *out, &object);
        out.push(b'\n');
    }
}

/// One object a line, by hand: this is where the volume is.
fn push_lines(out: &mut Vec<u8>, event: &Event, host: &str, task: TaskId, block: &Block) {
    let stream = stream(block.stream);
    for (at, line) in (0u64..).zip(block.lines()) {
        let (seq, n) = (event.seq + at, block.first_line + at);
        // Writing into memory cannot fail.
        let _ = write!(
            out,
            r#"{{"v":1,"seq":{seq},"t":{},"type":"line","host":"{host}","task":"{}","stream":"{stream}","n":{n},"#,
            seconds(event),
            id(task),
        );
        match std::str::from_utf8(line.text) {
            Ok(text) => {
                out.extend_from_slice(b"\"text\":\"");
                push_escaped(out, text);
                out.push(b'"');
            }
            Err(_) => {
                let _ = write!(out, r#""bytes":"{}""#, STANDARD.encode(line.text));
            }
        }
        let eol = match line.end {
            LineEnd::Lf => "",
            LineEnd::CrLf => r#","eol":"\r\n""#,
            LineEnd::Cr => r#","eol":"\r""#,
            LineEnd::None => r#","eol":"""#,
        };
        out.extend_from_slice(eol.as_bytes());
        out.extend_from_slice(b"}\n");
    }
}

/// JSON's rules (RFC 8259, section 7). What a terminal would obey, or a line-based reader take for
/// a line end, is escaped too, so that the stream may be looked at.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ if crate::text::must_escape(c) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn stream(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn describe(what: &What) -> (&'static str, Value) {
    match what {
        What::RunStart(info) => ("run_start", run_fields(info)),
        What::PlayStart { play, name, hosts } => (
            "play_start",
            json!({"play": play.0, "name": &**name, "hosts": hosts}),
        ),
        What::BatchStart {
            play,
            task,
            number,
            hosts,
        } => (
            "batch_start",
            json!({
                "play": play.0,
                "task": task.as_ref().map(|task| id(task.id)),
                "number": number,
                "hosts": hosts,
            }),
        ),
        What::HostConnecting { .. }
        | What::HostReady { .. }
        | What::HostProblem { .. }
        | What::Retry { .. }
        | What::HostEnd { .. } => describe_host(what),
        What::TaskStart { host, task } => ("task_start", task_fields(host.as_str(), task)),
        What::TaskEnd { .. } => ("task_end", end_fields(what)),
        What::Print { host, task, text } => (
            "print",
            json!({"host": host.as_str(), "task": id(task.id), "text": text}),
        ),
        What::Progress {
            host,
            task,
            progress,
        } => ("progress", progress_fields(host.as_str(), task, progress)),
        // Listings are written entry by entry, before this is asked.
        What::Entries { .. } => ("entry", Value::Null),
        // Rows are written row by row, before this is asked.
        What::Rows { .. } => ("row", Value::Null),
        // Blocks are written line by line, before this is asked.
        What::Output { .. } => ("line", Value::Null),
        What::Diagnostic {
            host,
            severity,
            message,
        } => {
            let host = host.as_ref().map(|host| host.as_str());
            let severity = severity_word(*severity);
            (
                "diagnostic",
                json!({"host": host, "severity": severity, "message": message}),
            )
        }
        What::Heartbeat {
            running,
            queued,
            longest,
        } => {
            let longest = longest.as_ref().map(|(host, task, time)| {
                json!({"host": host.as_str(), "task": id(task.id), "running": time.as_secs_f64()})
            });
            (
                "heartbeat",
                json!({"running": running, "queued": queued, "longest": longest}),
            )
        }
        What::RunEnd {
            signal,
            stopped_by,
            code,
        } => (
            "run_end",
            json!({"code": code, "signal": signal, "stopped_by": stopped_by}),
        ),
    }
}

fn end_fields(what: &What) -> Value {
    let What::TaskEnd {
        host,
        task,
        outcome,
        took,
        tally,
        rescued,
        effort,
    } = what
    else {
        return Value::Null;
    };
    let mut fields = task_fields(host.as_str(), task);
    if let Some(map) = fields.as_object_mut() {
        map.append(&mut outcome_fields(outcome));
        map.insert("took".into(), json!(took.as_secs_f64()));
        if *rescued {
            map.insert("rescued".into(), json!(true));
        }
        map.insert("changed".into(), json!(effort.changed));
        if effort.attempts > 1 {
            map.insert("attempts".into(), json!(effort.attempts));
        }
        map.extend(
            effort
                .items
                .map(|items| ("items".into(), items_fields(items))),
        );
        map.extend(tally.as_ref().map(|tally| ("tally".into(), sums(tally))));
    }
    fields
}

fn items_fields(items: Items) -> Value {
    json!({
        "all": items.all,
        "ok": items.ok,
        "skipped": items.skipped,
        "failed": items.failed,
    })
}

fn sums(tally: &Tally) -> Value {
    json!({
        "files": tally.files,
        "bytes": tally.bytes,
        "dirs": tally.dirs,
        "links": tally.links,
        "unchanged": tally.unchanged,
        "deleted": tally.deleted,
        "errors": tally.errors,
        "verified": tally.verified.map(Verified::word),
        "changed": tally.changed(),
    })
}

fn progress_fields(host: &str, task: &TaskRef, progress: &Progress) -> Value {
    let current = progress
        .current
        .as_ref()
        .map(|file| json!({"path": file.path, "bytes": file.bytes, "total": file.total}));
    json!({
        "host": host,
        "task": id(task.id),
        "files": progress.files,
        "files_total": progress.files_total,
        "bytes": progress.bytes,
        "bytes_total": progress.bytes_total,
        "current": current,
    })
}

fn run_fields(info: &RunInfo) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "title": info.title,
        "hosts": info.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(),
        "tasks": info.tasks,
        "fanout": info.fanout,
        "started": info.started,
        "files": info.files.iter().map(file_fields).collect::<Vec<_>>(),
    })
}

fn file_fields(file: &ReadFile) -> Value {
    json!({"path": file.path, "sha256": file.sha256})
}

/// What happens to a host as a whole.
fn describe_host(what: &What) -> (&'static str, Value) {
    match what {
        What::HostConnecting { host, address } => (
            "host_connecting",
            json!({"host": host.as_str(), "address": address}),
        ),
        What::HostReady {
            host,
            took,
            retries,
        } => {
            let took = took.as_secs_f64();
            (
                "host_ready",
                json!({"host": host.as_str(), "took": took, "retries": retries}),
            )
        }
        What::HostProblem { host, problem } => {
            let refused = problem.cause.is_refused();
            let details = problem.details.iter();
            let details: Map<String, Value> = details
                .map(|(label, text)| ((*label).into(), json!(text)))
                .collect();
            let fields = json!({
                "host": host.as_str(),
                "cause": problem.cause.word(),
                "message": problem.message,
                "details": details,
            });
            (
                if refused {
                    "host_refused"
                } else {
                    "host_unreachable"
                },
                fields,
            )
        }
        What::Retry {
            host,
            task,
            attempt,
            delay,
            reason,
        } => {
            let (host, delay) = (host.as_str(), delay.as_secs_f64());
            let task = task.as_ref().map(|task| id(task.id));
            (
                "retry",
                json!({"host": host, "task": task, "attempt": attempt, "delay": delay, "reason": reason}),
            )
        }
        What::HostEnd {
            host,
            state,
            not_started,
        } => {
            let (host, state) = (host.as_str(), state.word());
            (
                "host_end",
                json!({"host": host, "state": state, "not_started": not_started}),
            )
        }
        _ => ("", Value::Null),
    }
}

fn task_fields(host: &str, task: &TaskRef) -> Value {
    json!({
        "host": host,
        "task": id(task.id),
        "name": &*task.name,
        "place": task.place.as_deref(),
    })
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Every ending with the fields that belong to it, and no others.
fn outcome_fields(outcome: &Outcome) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("status".into(), json!(outcome.word()));
    let mut put = |name: &str, value: Value| map.insert(name.into(), value);
    match outcome {
        Outcome::Ok { status } => {
            if let Some(status) = status {
                put_status(&mut put, status);
            }
        }
        Outcome::Failed(Failure::Exit(status)) => put_status(&mut put, status),
        Outcome::Failed(Failure::Files { cause, reason }) => {
            put("cause", json!(cause.word()));
            put("reason", json!(reason));
        }
        Outcome::Failed(Failure::Parse(bad)) => {
            put("cause", json!("parse"));
            put("reason", json!(bad.to_string()));
            put("line", json!(bad.number));
            put("text", json!(String::from_utf8_lossy(&bad.text)));
            put("span", json!([bad.span.start, bad.span.end]));
        }
        Outcome::Failed(
            failure @ (Failure::NotStarted { reason }
            | Failure::Assert { reason }
            | Failure::Unmet { reason }),
        ) => {
            let cause = match failure {
                Failure::Assert { .. } => "assert",
                Failure::Unmet { .. } => "unmet",
                _ => "not_started",
            };
            put("cause", json!(cause));
            put("reason", json!(reason));
        }
        Outcome::TimedOut { after, remote } => {
            put("after", json!(after.as_secs_f64()));
            put("remote", json!(remains_word(*remote)));
        }
        Outcome::Lost { reason } | Outcome::Skipped { reason } => {
            put("reason", json!(reason));
        }
        Outcome::Cancelled { remote } => {
            put("remote", json!(remains_word(*remote)));
        }
        Outcome::Internal { message } => {
            put("reason", json!(message));
        }
    }
    map
}

fn put_status(put: &mut impl FnMut(&str, Value) -> Option<Value>, status: &ExitStatus) {
    match status {
        ExitStatus::Exited(code) => {
            put("code", json!(code));
        }
        ExitStatus::Signaled { name, core_dumped } => {
            put("signal", json!(name));
            put("core", json!(core_dumped));
        }
    }
}

fn remains_word(remains: Remains) -> &'static str {
    match remains {
        Remains::NotStarted => "not_started",
        Remains::Ended => "killed",
        Remains::MaybeRunning => "maybe_running",
        Remains::Stopped => "stopped",
        Remains::HalfDone => "half_done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::PlayId;
    use crate::target::HostName;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;

    fn task() -> TaskRef {
        let id = TaskId {
            play: PlayId(0),
            index: 2,
        };
        TaskRef {
            id,
            name: "work".into(),
            place: Some("a.yml:3".into()),
        }
    }

    fn rendered(what: What) -> Vec<Value> {
        let mut ink = Ink::default();
        Ndjson.render(
            &Event {
                seq: 17,
                at: Duration::from_millis(12_345),
                what,
            },
            &mut ink,
        );
        let bytes: Vec<u8> = ink.pieces().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn host() -> HostName {
        HostName::new("web1").unwrap()
    }

    fn output(bytes: &[u8]) -> What {
        let mut rest = bytes;
        let mut lines = 0;
        while let Some((_, after)) = crate::event::cut_line(rest) {
            (rest, lines) = (after, lines + 1);
        }
        let bytes = Bytes::copy_from_slice(bytes);
        let block = Block {
            stream: Stream::Stdout,
            first_line: 5,
            lines,
            bytes,
        };
        What::Output {
            host: host(),
            task: task(),
            block,
        }
    }

    #[test]
    fn a_line_is_an_object_with_everything_to_put_the_stream_together() {
        let lines = rendered(output(b"one\ntw\"o\r\nthree\rlast"));
        assert_eq!(
            lines[0],
            json!({"v":1,"seq":17,"t":12.345,"type":"line","host":"web1","task":"0.2",
                   "stream":"stdout","n":5,"text":"one"})
        );
        let eols: Vec<&Value> = lines.iter().map(|line| &line["eol"]).collect();
        assert_eq!(
            eols,
            [&Value::Null, &json!("\r\n"), &json!("\r"), &json!("")]
        );
        assert_eq!(lines[3]["seq"], 20);
        assert_eq!(lines[3]["n"], 8);
    }

    #[test]
    fn an_ending_says_how_and_nothing_else() {
        let end = |outcome| What::TaskEnd {
            host: host(),
            task: task(),
            outcome,
            took: Duration::from_secs(1),
            tally: None,
            rescued: false,
            effort: crate::outcome::Effort::default(),
        };
        let status = ExitStatus::Signaled {
            name: "SEGV".into(),
            core_dumped: true,
        };
        let segv = rendered(end(Outcome::Failed(Failure::Exit(status)))).remove(0);
        assert_eq!(
            (&segv["status"], &segv["signal"], &segv["core"]),
            (&json!("failed"), &json!("SEGV"), &json!(true))
        );
        assert!(segv.get("code").is_none());
        let lost = rendered(end(Outcome::Lost {
            reason: "gone".into(),
        }))
        .remove(0);
        assert_eq!(lost["status"], "lost");
        assert!(lost.get("code").is_none() && lost.get("signal").is_none());
    }

    proptest! {
        #[test]
        fn the_lines_joined_are_the_bytes_that_were_sent(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            let mut joined = Vec::new();
            for line in rendered(output(&bytes)) {
                match line.get("text") {
                    Some(text) => joined.extend_from_slice(text.as_str().unwrap().as_bytes()),
                    None => joined.extend(STANDARD.decode(line["bytes"].as_str().unwrap()).unwrap()),
                }
                joined.extend_from_slice(line.get("eol").map_or("\n", |eol| eol.as_str().unwrap()).as_bytes());
            }
            prop_assert_eq!(joined, bytes);
        }

        #[test]
        fn any_text_survives_our_escaping(text in "\\PC*|(?s).{0,40}") {
            let mut json = b"\"".to_vec();
            push_escaped(&mut json, &text);
            json.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
