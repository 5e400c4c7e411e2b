//! The event stream as a JSON Schema (draft-07), and as a list for people. Every line that
//! [`super::ndjson`] writes is an instance; the tests of whole runs hold it to that.

use serde_json::{Map, Value, json};

/// A field of an event: its name, what it means, its kind, and whether it is always there.
type Field = (&'static str, &'static str, Kind, bool);
/// Names of fields, and what each means.
pub type Fields = Vec<(&'static str, &'static str)>;
/// An event: its `type`, what it means, its fields.
type Kinds = (&'static str, &'static str, &'static [Field]);

#[derive(Clone, Copy)]
enum Kind {
    Text,
    TextOrNull,
    Count,
    CountOrNull,
    Seconds,
    Truth,
    Object,
    ObjectOrNull,
    List,
    Word(&'static [&'static str]),
}

use Kind::{
    Count, CountOrNull, List, Object, ObjectOrNull, Seconds, Text, TextOrNull, Truth, Word,
};

const HOST: Field = ("host", "The host, as the inventory calls it.", Text, true);
const TASK: Field = (
    "task",
    "The task: its play and its place there, from 0 (`0.2`).",
    Text,
    true,
);
const STATUS: &[&str] = &[
    "ok",
    "failed",
    "timed_out",
    "lost",
    "skipped",
    "cancelled",
    "internal",
];
const REMOTE: &[&str] = &[
    "not_started",
    "killed",
    "maybe_running",
    "stopped",
    "half_done",
];

const EVENTS: &[Kinds] = &[
    (
        "run_start",
        "The run begins; always the first.",
        &[
            ("version", "The program's version.", Text, true),
            ("title", "The playbook's path, or the command.", Text, true),
            ("hosts", "All hosts, in inventory order.", List, true),
            (
                "tasks",
                "How many tasks there are over all plays.",
                Count,
                true,
            ),
            (
                "fanout",
                "How many hosts are worked on at once.",
                Count,
                true,
            ),
            ("started", "Seconds since 1970 (UTC).", Count, true),
            (
                "files",
                "The playbook and what it includes, each with `path` and `sha256` of what was read.",
                List,
                true,
            ),
        ],
    ),
    (
        "play_start",
        "A play begins.",
        &[
            ("play", "Its number, from 0.", Count, true),
            ("name", "Its name.", Text, true),
            ("hosts", "How many hosts it has.", Count, true),
        ],
    ),
    (
        "batch_start",
        "A batch of hosts begins: of a play, or of one task.",
        &[
            ("play", "The play's number, from 0.", Count, true),
            (
                "task",
                "The task, where only that is done in batches.",
                TextOrNull,
                true,
            ),
            ("number", "The batch's number, from 1.", Count, true),
            ("hosts", "How many hosts it has.", Count, true),
        ],
    ),
    (
        "host_connecting",
        "A connection is being opened.",
        &[HOST, ("address", "`user@address:port`.", Text, true)],
    ),
    (
        "host_ready",
        "The host is logged in to.",
        &[
            HOST,
            (
                "took",
                "Seconds from the start of the attempt.",
                Seconds,
                true,
            ),
            (
                "retries",
                "Attempts before this one that the server dropped.",
                Count,
                true,
            ),
        ],
    ),
    (
        "host_unreachable",
        "The host cannot be worked on: it was not reached.",
        &[
            HOST,
            (
                "cause",
                "`dns`, `refused`, `timeout`, `closed`, `kex` and others.",
                Text,
                true,
            ),
            ("message", "Why.", Text, true),
            ("details", "More, by label.", Object, true),
        ],
    ),
    (
        "host_refused",
        "The host cannot be worked on: its identity, or our authentication, was refused.",
        &[
            HOST,
            ("cause", "`host-key` or `authentication`.", Text, true),
            ("message", "Why.", Text, true),
            (
                "details",
                "More, by label: what was tried, what the server accepts.",
                Object,
                true,
            ),
        ],
    ),
    (
        "task_start",
        "A task begins on a host. Each has exactly one `task_end`.",
        &[
            HOST,
            TASK,
            ("name", "The task's name.", Text, true),
            (
                "place",
                "`file:line` where it is written.",
                TextOrNull,
                true,
            ),
        ],
    ),
    (
        "line",
        "A line of output. Per host, task and stream the numbers have no gap; `text` (or `bytes`) and `eol`, joined, are the bytes that were written.",
        &[
            HOST,
            TASK,
            ("stream", "Which.", Word(&["stdout", "stderr"]), true),
            ("n", "The line's number, from 1.", Count, true),
            ("text", "The line, without its end.", Text, false),
            (
                "bytes",
                "The line in base64, where it is not UTF-8.",
                Text,
                false,
            ),
            (
                "eol",
                "Its end, where that is not `\\n`: `\\r\\n`, `\\r`, or nothing.",
                Word(&["\r\n", "\r", ""]),
                false,
            ),
        ],
    ),
    (
        "row",
        "Output became a row (`parse`).",
        &[
            HOST,
            TASK,
            ("n", "The row's number, from 1.", Count, true),
            ("row", "Its columns.", Object, true),
            (
                "approximate",
                "A number was read from a rounded one.",
                Truth,
                false,
            ),
        ],
    ),
    (
        "entry",
        "A listing found a file.",
        &[
            HOST,
            TASK,
            ("path", "Where it is.", Text, false),
            (
                "path_b64",
                "The same in base64, where it is not UTF-8.",
                Text,
                false,
            ),
            ("name", "Its name.", Text, false),
            (
                "name_b64",
                "The same in base64, where it is not UTF-8.",
                Text,
                false,
            ),
            (
                "kind",
                "`file`, `dir`, `link` and others; `error` for what could not be read.",
                Text,
                true,
            ),
            ("size", "Bytes.", CountOrNull, true),
            (
                "mtime",
                "The last change, RFC 3339 in UTC.",
                TextOrNull,
                true,
            ),
            ("atime", "The last access.", TextOrNull, true),
            ("mode", "Permission bits, octal.", TextOrNull, true),
            ("uid", "The owner's number.", CountOrNull, true),
            ("gid", "The group's number.", CountOrNull, true),
            (
                "owner",
                "The owner's name, where the server told it.",
                TextOrNull,
                true,
            ),
            ("group", "The group's name.", TextOrNull, true),
            ("depth", "How far below the listed path.", Count, true),
            ("target", "Where a link leads.", Text, false),
            (
                "target_b64",
                "The same in base64, where it is not UTF-8.",
                Text,
                false,
            ),
            ("error", "Why it could not be read.", Text, false),
        ],
    ),
    (
        "progress",
        "How far a copy has come; a few times a second at most.",
        &[
            HOST,
            TASK,
            ("files", "Files that are done.", Count, true),
            (
                "files_total",
                "Of so many, once that is known.",
                CountOrNull,
                true,
            ),
            ("bytes", "Bytes that are done.", Count, true),
            ("bytes_total", "Of so many.", CountOrNull, true),
            (
                "current",
                "The large file at hand: `path`, `bytes`, `total`.",
                ObjectOrNull,
                true,
            ),
        ],
    ),
    (
        "print",
        "Text of a `print` task.",
        &[HOST, TASK, ("text", "The text.", Text, true)],
    ),
    (
        "retry",
        "An attempt failed and is made again.",
        &[
            HOST,
            (
                "task",
                "The task; null where it is the connection.",
                TextOrNull,
                true,
            ),
            ("attempt", "Which attempt comes next, from 2.", Count, true),
            ("delay", "Seconds until then.", Seconds, true),
            ("reason", "Why the last one failed.", Text, true),
        ],
    ),
    (
        "task_end",
        "A task ended on a host.",
        &[
            HOST,
            TASK,
            ("name", "The task's name.", Text, true),
            (
                "place",
                "`file:line` where it is written.",
                TextOrNull,
                true,
            ),
            ("status", "How.", Word(STATUS), true),
            ("code", "The exit code, where there is one.", Count, false),
            (
                "signal",
                "The signal that ended it, without SIG.",
                Text,
                false,
            ),
            ("core", "Whether that dumped core.", Truth, false),
            (
                "cause",
                "The kind of a failure without a code: `not_started`, `assert`, `unmet`, `parse`, or of files.",
                Text,
                false,
            ),
            ("reason", "Why, in words.", Text, false),
            (
                "line",
                "Of `parse`: the number of the line that does not fit.",
                Count,
                false,
            ),
            ("text", "Of `parse`: that line.", Text, false),
            ("span", "Of `parse`: which bytes of it.", List, false),
            (
                "after",
                "Of `timed_out`: the limit, in seconds.",
                Seconds,
                false,
            ),
            (
                "remote",
                "Of `timed_out` and `cancelled`: what is left there.",
                Word(REMOTE),
                false,
            ),
            ("took", "Seconds since its start.", Seconds, true),
            (
                "rescued",
                "A `rescue` took over: it is no failure of the run.",
                Truth,
                false,
            ),
            ("changed", "It changed something.", Truth, true),
            (
                "attempts",
                "How often it was tried, if more than once.",
                Count,
                false,
            ),
            (
                "items",
                "Of a `loop`: `all`, `ok`, `skipped`, `failed`.",
                Object,
                false,
            ),
            (
                "tally",
                "Of a task on files: what it moved or found.",
                Object,
                false,
            ),
        ],
    ),
    (
        "host_end",
        "Nothing more will happen on a host.",
        &[
            HOST,
            (
                "state",
                "How it stands.",
                Word(&[
                    "ok",
                    "failed",
                    "unreachable",
                    "refused",
                    "cancelled",
                    "internal",
                ]),
                true,
            ),
            (
                "not_started",
                "How many of its tasks were never started.",
                Count,
                true,
            ),
        ],
    ),
    (
        "diagnostic",
        "Something worth an eye that changes no outcome.",
        &[
            ("host", "The host it is about, if one.", TextOrNull, true),
            (
                "severity",
                "How grave.",
                Word(&["note", "warning", "error"]),
                true,
            ),
            ("message", "What.", Text, true),
        ],
    ),
    (
        "heartbeat",
        "Nothing has happened for a while; the run goes on.",
        &[
            ("running", "Hosts at work.", Count, true),
            ("queued", "Hosts not begun.", Count, true),
            (
                "longest",
                "What has run longest: `host`, `task`, `running` (seconds).",
                ObjectOrNull,
                true,
            ),
        ],
    ),
    (
        "run_end",
        "The run is over; always the last, also after Ctrl-C.",
        &[
            ("code", "The exit code.", Count, true),
            ("signal", "The signal that ended it.", CountOrNull, true),
            (
                "stopped_by",
                "The policy that ended it early.",
                TextOrNull,
                true,
            ),
        ],
    ),
];

/// The schema of one line.
#[must_use]
pub fn events() -> Value {
    let events: Vec<Value> = EVENTS.iter().map(event).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "fanrun event",
        "description": "One line of `--events` or `--format ndjson`.",
        "type": "object",
        "required": ["v", "seq", "t", "type"],
        "oneOf": events,
    })
}

/// The events for people: type, meaning, and the fields with theirs.
#[must_use]
pub fn reference() -> Vec<(&'static str, &'static str, Fields)> {
    let fields = |fields: &'static [Field]| fields.iter().map(|field| (field.0, field.1)).collect();
    EVENTS
        .iter()
        .map(|(kind, about, own)| (*kind, *about, fields(own)))
        .collect()
}

fn event((kind, about, fields): &Kinds) -> Value {
    let mut properties = Map::new();
    properties.insert(
        "v".into(),
        json!({"const": 1, "description": "The version of the stream."}),
    );
    properties.insert(
        "seq".into(),
        json!({"type": "integer", "minimum": 0, "description": "Rises by one."}),
    );
    properties.insert(
        "t".into(),
        json!({"type": "number", "minimum": 0, "description": "Seconds since the run began."}),
    );
    properties.insert("type".into(), json!({"const": kind}));
    let mut required = vec!["v", "seq", "t", "type"];
    for (name, about, kind, always) in *fields {
        let mut shape = shape(*kind);
        if let Some(shape) = shape.as_object_mut() {
            shape.insert("description".into(), json!(about));
        }
        properties.insert((*name).to_owned(), shape);
        required.extend(always.then_some(*name));
    }
    json!({
        "title": kind,
        "description": about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn shape(kind: Kind) -> Value {
    match kind {
        Text => json!({"type": "string"}),
        TextOrNull => json!({"type": ["string", "null"]}),
        Count => json!({"type": "integer", "minimum": 0}),
        CountOrNull => json!({"type": ["integer", "null"], "minimum": 0}),
        Seconds => json!({"type": "number", "minimum": 0}),
        Truth => json!({"type": "boolean"}),
        Object => json!({"type": "object"}),
        ObjectOrNull => json!({"type": ["object", "null"]}),
        List => json!({"type": "array"}),
        Word(words) => json!({"enum": words}),
    }
}
