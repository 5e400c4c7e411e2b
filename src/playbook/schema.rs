//! The language as a JSON Schema (draft-07), for editors that complete and check playbooks, and as
//! a list of keys for people.
//!
//! Every key stands here once, with what it means and what it takes; that these are the keys that
//! the parser knows is tested, and that both come to the same verdict about playbooks.

use serde_json::{Map, Value, json};

use super::keys;
use super::validate::useless_beside;
use crate::target::RESERVED;

/// A key: its name, what it means, what it takes.
struct Key(&'static str, &'static str, fn() -> Value);

const FILE: &[Key] = &[
    Key("name", "What the playbook is called.", plain),
    Key(
        "inventory",
        "Files of hosts, relative to this one's folder; `-i` stands above them.",
        || some(plain()),
    ),
    Key(
        "vars",
        "Values for templates. They are plain: `${{ }}` in them stays as it is.",
        vars,
    ),
    Key(
        "secrets",
        "Values that nobody may see: where each comes from. Used like variables, masked everywhere.",
        secrets,
    ),
    Key("defaults", "Settings of all plays.", || {
        object(SETTINGS, &[])
    }),
    Key(
        "handlers",
        "Tasks that others `notify` by their names; done once, at the end of the play.",
        handlers,
    ),
    Key(
        "plays",
        "Several plays, one after the other; `include: other.yml` stands for those of another file.",
        || list(reference("play")),
    ),
];

const PLAY: &[Key] = &[
    Key("name", "What the play is called.", plain),
    Key(
        "hosts",
        "Whom it is for: names, `web[01-20]`, globs, `@group`, `a & b`, `a ! b`, `all`; or a mapping of hosts.",
        hosts,
    ),
    Key(
        "strategy",
        "`free`: every host at its own pace (the default). `linear`: all hosts in step.",
        || words(&["free", "linear"]),
    ),
    Key("fanout", "How many hosts are worked on at once.", || {
        whole(1, 100_000)
    }),
    Key(
        "vars",
        "Values for templates; they win over the file's and the hosts'.",
        vars,
    ),
    Key("tasks", "What is done, in this order.", || {
        list(reference("task"))
    }),
    Key("rollout", "Hosts in batches.", rollout),
    Key(
        "handlers",
        "Tasks that others `notify` by their names; done once, at the end of the play.",
        handlers,
    ),
];

const SETTINGS: &[Key] = &[
    Key("user", "The account on the hosts.", plain),
    Key("port", "The port of the hosts' SSH servers.", || {
        whole(1, 65_535)
    }),
    Key("identity", "Private key files.", || some(plain())),
    Key(
        "become",
        "The account that commands run as: `true` (root, by sudo), a name, or a mapping.",
        becomes,
    ),
    Key("env", "Environment variables of commands.", env),
    Key("cwd", "The working directory of commands.", template),
    Key(
        "shell",
        "What runs shell text: `bash`, or words such as `[bash, -euc]`. The account's login shell otherwise.",
        shell,
    ),
    Key("timeout", "How long a command may take.", duration),
    Key(
        "connect_timeout",
        "How long it may take until a host is logged in to.",
        duration,
    ),
    Key(
        "on_failure",
        "`stop`: the host does nothing more (the default). `continue`: it goes on. `stop_all`: no host begins anything more.",
        on_failure,
    ),
];

const ACTIONS: &[Key] = &[
    Key(
        "run",
        "A command on the host: shell text, or a list of words without a shell.",
        line,
    ),
    Key(
        "script",
        "A local file that is copied to the host, run by its own `#!` line, and removed.",
        plain,
    ),
    Key(
        "local",
        "A command on this machine, on behalf of the host.",
        line,
    ),
    Key("upload", "Files to the host.", || copies(UPLOAD)),
    Key("download", "Files from the host.", || copies(DOWNLOAD)),
    Key(
        "ls",
        "A listing over SFTP: a path, several, or a mapping.",
        || any(&[filled(), list(template()), object(LS, &["path"])]),
    ),
    Key("print", "Text for the person who runs it.", filled),
    Key(
        "pause",
        "A wait, or a question: `30s`, `{ask: \"Go on?\"}`.",
        || any(&[duration_or_none(), object(PAUSE, &["ask"])]),
    ),
    Key("assert", "Expressions that must hold.", || {
        some(expression())
    }),
    Key("set", "Values for later tasks.", set),
    Key(
        "wait_for",
        "`connection`, `{port: 80}` or `{path: /run/x}`: waits up to `timeout` (5m).",
        wait_for,
    ),
    Key(
        "block",
        "Tasks that belong together, with `rescue` and `always`.",
        || list(reference("task")),
    ),
    Key(
        "include",
        "A file with a list of tasks, which stand here; among `plays`, a playbook.",
        plain,
    ),
];

const TASK: &[Key] = &[
    Key("name", "What the task is called.", filled),
    Key(
        "args",
        "Arguments of a `script`.",
        || json!({"type": "array", "items": template()}),
    ),
    Key(
        "become",
        "The account that it runs as; `false` takes the play's back.",
        becomes,
    ),
    Key("env", "Environment variables, beside the play's.", env),
    Key("cwd", "The working directory.", template),
    Key("shell", "What runs shell text.", shell),
    Key("stdin", "What the command reads.", template),
    Key("timeout", "How long it may take.", duration),
    Key(
        "ok_codes",
        "Exit codes that are a success: `[0, 3]`.",
        ok_codes,
    ),
    Key(
        "on_failure",
        "`stop`, `continue` or `stop_all`.",
        on_failure,
    ),
    Key(
        "register",
        "The name under which later tasks find the result.",
        name,
    ),
    Key("parse", "How its output becomes rows.", parse),
    Key("table", "Shows the rows: `true`, or how.", || {
        any(&[yes_no(), object(TABLE, &[])])
    }),
    Key("vars", "Values for its templates.", vars),
    Key(
        "message",
        "What is said where an `assert` does not hold.",
        filled,
    ),
    Key(
        "when",
        "Done only where this expression holds, or all of a list.",
        || some(expression()),
    ),
    Key(
        "loop",
        "Done for each `item`: a list, or an expression.",
        each,
    ),
    Key(
        "retry",
        "Tried again where it failed: how often, or a mapping.",
        || any(&[whole(1, 10_000), object(RETRY, &["times"])]),
    ),
    Key(
        "restart",
        "A `local` child that is kept running: `true`, or a mapping.",
        || any(&[yes_no(), object(RESTART, &[])]),
    ),
    Key("creates", "Not done where this path exists.", filled),
    Key(
        "changed_when",
        "Whether it changed something; an expression with `result`.",
        expression,
    ),
    Key(
        "notify",
        "Handlers that are due when it changed something.",
        || some(plain()),
    ),
    Key(
        "tags",
        "Names by which `-t` and `--skip-tags` choose tasks.",
        || some(plain()),
    ),
    Key("once", "One host does it for all.", yes_no),
    Key("fanout", "How many hosts do it at a time.", || {
        whole(1, 100_000)
    }),
    Key("rollout", "The hosts do it in batches.", rollout),
    Key(
        "delegate_to",
        "The host on which it is done instead.",
        filled,
    ),
    Key("rescue", "Beside `block`: done where that failed.", || {
        list(reference("task"))
    }),
    Key("always", "Beside `block`: done in any case.", || {
        list(reference("task"))
    }),
];

const COPIED: [Key; 13] = [
    Key(
        "src",
        "What is copied: a path, or several; globs are meant.",
        || any(&[filled(), list(template())]),
    ),
    Key("dest", "Where it goes.", filled),
    Key(
        "mode",
        "The mode of files, in octal: `0644`.",
        || json!({"type": ["string", "integer"], "pattern": "^[0-7]{3,}$"}),
    ),
    Key(
        "preserve",
        "What files keep: `true`, or some of `mode`, `times`, `setid`.",
        || {
            let one = json!({"enum": [true, false, "true", "false", "mode", "times", "setid"]});
            any(&[one.clone(), json!({"type": "array", "items": one})])
        },
    ),
    Key("verify", "Compares SHA-256 sums afterwards.", yes_no),
    Key(
        "only_changed",
        "Leaves out what is the same by size and time, or by `checksum`.",
        || json!({"enum": [true, false, "true", "false", "checksum"]}),
    ),
    Key("delete", "Deletes what the source has not.", yes_no),
    Key("resume", "Goes on where an earlier copy ended.", yes_no),
    Key("symlinks", "What becomes of symbolic links.", || {
        words(&["copy", "follow", "skip"])
    }),
    Key(
        "exclude",
        "Names and paths that are left out; globs.",
        || some(plain()),
    ),
    Key(
        "bandwidth",
        "Bytes a second over all hosts together: `10MiB`.",
        size,
    ),
    Key(
        "backup",
        "Keeps what was there, under another name.",
        yes_no,
    ),
    Key("durable", "Waits until files are on the disk.", yes_no),
];

const UPLOAD: &[Key] = &[
    Key("template", "Fills the files in: ordinary Jinja.", yes_no),
    Key("owner", "The owner of files: `user`, `user:group`.", plain),
];

const DOWNLOAD: &[Key] = &[Key("flat", "Hosts get no folders of their own.", yes_no)];

const LS: &[Key] = &[
    Key("path", "What is listed.", || {
        any(&[filled(), list(template())])
    }),
    Key(
        "depth",
        "How deep; `all` is everything. 1 otherwise.",
        || any(&[whole(0, 100_000), words(&["all"])]),
    ),
    Key("files", "Only files.", yes_no),
    Key("dirs", "Only directories.", yes_no),
    Key("links", "Only symbolic links.", yes_no),
    Key("include", "Only what fits one of these globs.", || {
        some(plain())
    }),
    Key("exclude", "Nothing that fits one of these globs.", || {
        some(plain())
    }),
    Key("regex", "Only what fits this expression.", plain),
    Key(
        "newer",
        "Changed since: `2d`, a date, or `@last` with `state`.",
        filled,
    ),
    Key("older", "Not changed since.", filled),
    Key("min_size", "At least so large.", size),
    Key("max_size", "At most so large.", size),
    Key("owner", "Only what belongs to this account.", plain),
    Key(
        "mode",
        "A test of the mode, as of find: `0644`, `-022`, `/022`.",
        || json!({"type": ["string", "integer"]}),
    ),
    Key(
        "errors",
        "`fail` (the default) or `ignore` what cannot be read.",
        || words(&["ignore", "fail"]),
    ),
    Key(
        "state",
        "A file that remembers what `@last` has seen.",
        plain,
    ),
];

const SECRET: &[Key] = &[
    Key("env", "A variable of fanrun's own environment.", plain),
    Key("file", "A file that only its owner may read.", plain),
    Key("command", "What a command here writes.", plain),
    Key("prompt", "The answer to a question at the terminal.", plain),
];

const BECOME: &[Key] = &[
    Key("method", "The program that changes the account.", || {
        words(&["sudo", "doas", "su"])
    }),
    Key("user", "The account; root otherwise.", filled),
    Key(
        "password",
        "What the program asks for: a secret.",
        || json!({"type": "string", "pattern": r"\$\{\{"}),
    ),
];

const RETRY: &[Key] = &[
    Key("times", "How often it is tried again.", || whole(1, 10_000)),
    Key(
        "delay",
        "The wait before the second attempt; 1s otherwise.",
        duration_or_none,
    ),
    Key(
        "backoff",
        "By how much each further wait is longer; 2 otherwise.",
        || json!({"type": ["number", "string"], "minimum": 1, "maximum": 100, "pattern": "^[0-9.]+$"}),
    ),
    Key(
        "max_delay",
        "The longest wait; 60s otherwise.",
        duration_or_none,
    ),
    Key(
        "until",
        "Tried until this holds; an expression with `result`.",
        expression,
    ),
];

const RESTART: &[Key] = &[
    Key("times", "How many failures are borne; 5 otherwise.", || {
        whole(1, 10_000)
    }),
    Key("within", "In which time; 10s otherwise.", duration),
];

const ROLLOUT: &[Key] = &[
    Key(
        "batches",
        "The sizes of the batches: `[1, 25%, 100%]`; the last holds for all that follow.",
        || some(share()),
    ),
    Key(
        "max_failures",
        "How many hosts may fail: a number or a percentage.",
        share_or_none,
    ),
    Key("pause", "The wait between two batches.", duration_or_none),
];

const PAUSE: &[Key] = &[Key("ask", "A question; only a yes goes on.", filled)];

const WAIT_FOR: &[Key] = &[
    Key("port", "A TCP port that accepts connections.", || {
        whole(1, 65_535)
    }),
    Key(
        "address",
        "Another machine's address; the host's otherwise.",
        filled,
    ),
    Key("path", "A path that exists.", filled),
];

const PARSE: &[Key] = &[
    Key("du", "Sizes and paths, as `du` writes them.", || {
        any(&[nothing(), object(DU, &[])])
    }),
    Key("df", "File systems, as `df -P` writes them.", || {
        any(&[nothing(), object(DF, &[])])
    }),
    Key("lines", "Each line is a row.", || {
        any(&[nothing(), json!({"type": "object", "maxProperties": 0})])
    }),
    Key("columns", "Columns of text.", || {
        any(&[nothing(), object(COLUMNS, &[])])
    }),
    Key("kv", "`name=value`; a separator, or a mapping.", || {
        any(&[
            nothing(),
            json!({"type": ["string", "number", "boolean"]}),
            object(KV, &[]),
        ])
    }),
    Key("json", "One JSON text; the path of its rows.", || {
        any(&[
            nothing(),
            plain(),
            list(plain()),
            json!({"type": "array"}),
            object(JSON, &[]),
        ])
    }),
    Key("ndjson", "A JSON object on each line.", || {
        any(&[nothing(), json!({"type": "object", "maxProperties": 0})])
    }),
    Key("csv", "Comma-separated values (RFC 4180).", || {
        any(&[nothing(), object(SEPARATED, &[])])
    }),
    Key("tsv", "Values with TABs between them.", || {
        any(&[nothing(), object(SEPARATED, &[])])
    }),
    Key("regex", "Named groups of an expression.", || {
        any(&[plain(), object(REGEX, &["pattern"])])
    }),
    Key("types", "The types of columns.", types),
    Key(
        "strict",
        "`false`: a line that does not fit is no failure.",
        yes_no,
    ),
    Key(
        "stop_when",
        "Ends the command early; an expression with `row`.",
        expression,
    ),
];

const DU: &[Key] = &[
    Key("unit", "What a number without a unit counts.", unit),
    Key("zero", "Lines end with NUL (`du -0`).", yes_no),
    Key("names", "The names of the two columns.", || some(plain())),
];
const DF: &[Key] = &[Key("unit", "What a number without a unit counts.", unit)];
const COLUMNS: &[Key] = &[
    Key(
        "split",
        "`whitespace` (the default), `aligned`, `tab`, or a separator.",
        || json!({"type": ["string", "number"], "minLength": 1}),
    ),
    Key(
        "names",
        "The names of the columns, where there is no header.",
        || some(plain()),
    ),
    Key(
        "header",
        "Whether the first line names the columns.",
        yes_no,
    ),
    Key(
        "last",
        "`rest`: the last column takes the rest of the line.",
        || words(&["rest"]),
    ),
    Key("skip", "Lines before the first that counts.", || {
        whole(0, 1_000_000)
    }),
];
const KV: &[Key] = &[
    Key(
        "separator",
        "What stands between name and value; `=` otherwise.",
        || json!({"type": ["string", "number"], "minLength": 1}),
    ),
    Key(
        "quotes",
        "Whether quotes around values are taken off.",
        yes_no,
    ),
    Key("blocks", "An empty line ends a row.", yes_no),
];
const JSON: &[Key] = &[Key(
    "path",
    "Where the rows are: `a.b`, or a list of steps.",
    || any(&[plain(), json!({"type": "array"})]),
)];
const SEPARATED: &[Key] = &[
    Key(
        "names",
        "The names of the columns, where there is no header.",
        || some(plain()),
    ),
    Key(
        "header",
        "Whether the first line names the columns.",
        yes_no,
    ),
];
const REGEX: &[Key] = &[
    Key("pattern", "The expression, with named groups.", plain),
    Key(
        "match",
        "On each line (the default), the `first` or `all` in the whole.",
        || words(&["lines", "first", "all"]),
    ),
];
const TABLE: &[Key] = &[
    Key("name", "Tables of one name are one table.", plain),
    Key(
        "columns",
        "Which columns, in which order.",
        || some(plain()),
    ),
    Key("sort", "A column; `-use` is the largest first.", plain),
    Key("limit", "How many rows are shown.", || whole(1, 1_000_000)),
    Key(
        "total",
        "A row of sums: `true`, or of which columns.",
        || any(&[yes_no(), some(plain())]),
    ),
    Key("pivot", "One column's values become columns.", || {
        object(PIVOT, &["row", "column", "value"])
    }),
];
const PIVOT: &[Key] = &[
    Key("row", "What each row is about.", plain),
    Key("column", "Whose values become columns.", plain),
    Key("value", "What stands in the cells.", plain),
];

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let many: Vec<&Key> = FILE.iter().collect();
    let of_whole = |key: &&Key| !["name", "vars", "handlers"].contains(&key.0);
    let whole = FILE.iter().filter(|key| key.0 != "plays");
    let whole: Vec<&Key> = whole
        .chain(PLAY.iter().filter(of_whole))
        .chain(SETTINGS)
        .collect();
    let play: Vec<&Key> = PLAY.iter().chain(SETTINGS).collect();
    let among_plays = |key: &&Key| keys::INCLUDED_PLAYS.contains(&key.0);
    let included = ACTIONS.iter().chain(TASK);
    let included: Vec<&Key> = included.filter(among_plays).collect();
    let first = "A fanrun playbook: one play, or several under `plays`.";
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "fanrun playbook",
        "description": first,
        "type": "object",
        "if": {"required": ["plays"]},
        "then": of_keys(&many, &["plays"]),
        "else": of_keys(&whole, &["hosts", "tasks"]),
        "definitions": {
            "play": {
                "if": {"required": ["include"]},
                "then": of_keys(&included, &["include"]),
                "else": of_keys(&play, &["hosts", "tasks"]),
            },
            "task": task(),
        },
    })
}

/// The keys for people: headings, with the keys below them and what each means.
#[must_use]
pub fn reference_of_keys() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let told = |keys: &'static [Key]| keys.iter().map(|key| (key.0, key.1)).collect();
    let copied = |own: &'static [Key]| {
        let all = COPIED.iter().map(|key| (key.0, key.1));
        all.chain(own.iter().map(|key| (key.0, key.1))).collect()
    };
    vec![
        ("A file", told(FILE)),
        ("A play", told(PLAY)),
        ("A play, and `defaults`", told(SETTINGS)),
        ("What a task does (one of these)", told(ACTIONS)),
        ("A task", told(TASK)),
        ("retry", told(RETRY)),
        ("restart", told(RESTART)),
        ("rollout", told(ROLLOUT)),
        ("become", told(BECOME)),
        ("secrets", told(SECRET)),
        ("upload", copied(UPLOAD)),
        ("download", copied(DOWNLOAD)),
        ("ls", told(LS)),
        ("wait_for", told(WAIT_FOR)),
        ("table", told(TABLE)),
    ]
}

/// The same for what stands behind `parse`.
#[must_use]
pub fn reference_of_parse() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let told = |keys: &'static [Key]| keys.iter().map(|key| (key.0, key.1)).collect();
    vec![
        ("parse", told(PARSE)),
        ("du", told(DU)),
        ("df", told(DF)),
        ("columns", told(COLUMNS)),
        ("kv", told(KV)),
        ("json", told(JSON)),
        ("csv, tsv", told(SEPARATED)),
        ("regex", told(REGEX)),
        ("table", told(TABLE)),
        ("pivot", told(PIVOT)),
    ]
}

fn task() -> Value {
    let keys: Vec<&Key> = ACTIONS.iter().chain(TASK).collect();
    let of = |names: &[&str]| -> Vec<&Key> {
        let all = ACTIONS.iter().chain(TASK);
        all.filter(|key| names.contains(&key.0)).collect()
    };
    json!({
        "if": {"type": "object", "required": ["block"]},
        "then": of_keys(&of(keys::BLOCK), &["block"]),
        "else": {
            "if": {"type": "object", "required": ["include"]},
            "then": of_keys(&of(keys::INCLUDE), &["include"]),
            "else": {"anyOf": [filled(), one_action(of_keys(&keys, &[]))]},
        },
    })
}

/// A task does one thing, and its other keys must have an effect on that.
fn one_action(mut task: Value) -> Value {
    let required = |key: &&str| json!({"required": [key]});
    let one: Vec<Value> = keys::ACTIONS.iter().map(required).collect();
    let mut rules: Vec<Value> = Vec::new();
    for (action, useless) in useless_beside() {
        let none: Map<String, Value> = useless
            .iter()
            .map(|key| ((*key).to_owned(), json!(false)))
            .collect();
        rules.push(json!({"if": {"required": [action]}, "then": {"properties": none}}));
    }
    let argv = |key: &str| json!({"required": [key], "properties": {key: {"type": "array"}}});
    rules.push(json!({
        "if": {"anyOf": [argv("run"), argv("local"), {"required": ["script"]}]},
        "then": {"properties": {"shell": false}},
    }));
    rules.push(json!({"if": {"required": ["once"]}, "then": {"properties": {"fanout": false, "rollout": false}}}));
    rules.push(json!({"if": {"required": ["restart"]}, "then": {"properties": {"retry": false}}}));
    if let Some(task) = task.as_object_mut() {
        task.insert("oneOf".into(), one.into());
        task.insert("allOf".into(), rules.into());
        let needs = json!({
            "message": ["assert"], "args": ["script"], "restart": ["local"],
            "rescue": ["block"], "always": ["block"], "table": ["parse"],
        });
        task.insert("dependencies".into(), needs);
    }
    task
}

fn of_keys(keys: &[&Key], required: &[&str]) -> Value {
    let mut properties = Map::new();
    for Key(name, about, shape) in keys {
        let mut shape = shape();
        if let Some(shape) = shape.as_object_mut() {
            shape.insert("description".into(), json!(about));
        }
        properties.insert((*name).to_owned(), shape);
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn object(keys: &[Key], required: &[&str]) -> Value {
    of_keys(&keys.iter().collect::<Vec<_>>(), required)
}

fn copies(own: &[Key]) -> Value {
    of_keys(
        &COPIED.iter().chain(own).collect::<Vec<_>>(),
        &["src", "dest"],
    )
}

fn reference(name: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/definitions/{name}")}]})
}

fn handlers() -> Value {
    let named = json!({"type": "object", "required": ["name"]});
    let task = json!({"$ref": "#/definitions/task"});
    json!({"type": "array", "items": {"allOf": [named, task]}})
}

fn any(shapes: &[Value]) -> Value {
    json!({"anyOf": shapes})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items, "minItems": 1})
}

/// One, or a list of them.
fn some(one: Value) -> Value {
    any(&[one.clone(), list(one)])
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

fn nothing() -> Value {
    json!({"type": "null"})
}

fn yes_no() -> Value {
    json!({"enum": [true, false, "true", "false"]})
}

/// Any scalar is text; `${{ }}` in it would stay as it is.
fn plain() -> Value {
    let template = json!({"type": "string", "pattern": r"\$\{\{"});
    json!({"type": ["string", "number", "boolean"], "pattern": r"^[^\u0000-\u001f]*\S[^\u0000-\u001f]*$", "not": template})
}

/// Text that may hold `${{ }}`; it may be empty where it is quoted.
fn template() -> Value {
    json!({"type": ["string", "number", "boolean"]})
}

fn filled() -> Value {
    json!({"type": ["string", "number", "boolean"], "pattern": r"\S"})
}

fn expression() -> Value {
    plain_or_lines()
}

fn plain_or_lines() -> Value {
    let template = json!({"type": "string", "pattern": r"\$\{\{"});
    json!({"type": ["string", "number", "boolean"], "pattern": r"\S", "not": template})
}

fn whole(from: u64, to: u64) -> Value {
    any(&[
        json!({"type": "integer", "minimum": from, "maximum": to}),
        json!({"type": "string", "pattern": "^[0-9]+$"}),
    ])
}

const DURATION: &str = r"^\s*([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+\s*$";

fn duration() -> Value {
    json!({"type": "string", "pattern": DURATION, "not": {"pattern": r"^[^1-9]*$"}})
}

fn duration_or_none() -> Value {
    json!({"type": "string", "pattern": DURATION})
}

fn size() -> Value {
    json!({"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([kKMGT]B|[KMGT]iB|B)(/s)?\s*$"})
}

fn share() -> Value {
    any(&[
        json!({"type": "integer", "minimum": 1}),
        json!({"type": "string", "pattern": r"^([1-9][0-9]*|(100|[1-9][0-9]?)(\.0+)?\s*%|[0-9]+\.[0-9]+\s*%)$"}),
    ])
}

fn share_or_none() -> Value {
    any(&[share(), json!({"enum": [0, "0", "0%"]})])
}

fn rollout() -> Value {
    let mut one = object(ROLLOUT, &[]);
    if let Some(one) = one.as_object_mut() {
        one.insert("dependencies".into(), json!({"pause": ["batches"]}));
    }
    one
}

fn on_failure() -> Value {
    words(&["stop", "continue", "stop_all"])
}

fn line() -> Value {
    any(&[filled(), list(template())])
}

fn shell() -> Value {
    let mut word = plain();
    if let Some(word) = word.as_object_mut() {
        word.insert("pattern".into(), json!(r"^\S+$"));
    }
    any(&[word, list(plain())])
}

const NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

fn name() -> Value {
    json!({"type": "string", "pattern": NAME, "not": {"enum": RESERVED}})
}

fn env() -> Value {
    json!({"type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": template()})
}

fn vars() -> Value {
    json!({"type": "object", "propertyNames": name()})
}

fn set() -> Value {
    json!({"type": "object", "propertyNames": name(), "minProperties": 1})
}

fn secrets() -> Value {
    let mut one = object(SECRET, &[]);
    if let Some(one) = one.as_object_mut() {
        one.insert("minProperties".into(), json!(1));
        one.insert("maxProperties".into(), json!(1));
    }
    json!({"type": "object", "propertyNames": name(), "additionalProperties": one})
}

fn becomes() -> Value {
    let mut one = object(BECOME, &[]);
    if let Some(one) = one.as_object_mut() {
        let doas = json!({"required": ["method"], "properties": {"method": {"const": "doas"}}});
        one.insert("if".into(), doas);
        one.insert("then".into(), json!({"properties": {"password": false}}));
    }
    any(&[filled(), one])
}

fn ok_codes() -> Value {
    let code = any(&[
        json!({"type": "integer", "minimum": 0}),
        json!({"type": "string", "pattern": r"^[0-9]+(-[0-9]+)?$"}),
    ]);
    some(code)
}

fn each() -> Value {
    any(&[
        json!({"type": "array"}),
        json!({"type": "string", "pattern": r"\S"}),
    ])
}

fn wait_for() -> Value {
    let mut one = object(WAIT_FOR, &[]);
    if let Some(one) = one.as_object_mut() {
        one.insert(
            "oneOf".into(),
            json!([{"required": ["port"]}, {"required": ["path"]}]),
        );
        one.insert("dependencies".into(), json!({"address": ["port"]}));
    }
    any(&[words(&["connection"]), one])
}

fn hosts() -> Value {
    let one = json!({"type": ["object", "null"]});
    let map = json!({"type": "object", "minProperties": 1, "additionalProperties": one});
    any(&[some(plain()), map])
}

fn unit() -> Value {
    json!({"enum": ["bytes", "512", 512, "1K", "1M", "1G", "human", "si"]})
}

fn types() -> Value {
    let names: Vec<&str> = crate::rows::Type::WORDS
        .iter()
        .map(|(word, _)| *word)
        .collect();
    json!({"type": "object", "additionalProperties": {"enum": names}})
}

fn parse() -> Value {
    let mut mapping = object(PARSE, &[]);
    let one: Vec<Value> = keys::FORMATS
        .iter()
        .map(|key| json!({"required": [key]}))
        .collect();
    if let Some(mapping) = mapping.as_object_mut() {
        mapping.insert("oneOf".into(), one.into());
    }
    let plain: Vec<&str> = keys::FORMATS
        .iter()
        .copied()
        .filter(|name| *name != "regex")
        .collect();
    any(&[words(&plain), mapping])
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, LazyLock};

    use jsonschema::Validator;

    use serde_yaml::granit_parser::ScalarStyle;

    use super::super::tree::{self, Kind, Node};
    use super::super::values::plain_json;
    use super::*;
    use crate::diagnostic::Source;

    static VALIDATOR: LazyLock<Validator> =
        LazyLock::new(|| jsonschema::draft7::new(&schema()).unwrap());

    /// What an editor's YAML reader gives to a validator.
    fn as_json(node: &Node) -> Value {
        match &node.kind {
            Kind::Scalar { text, style } if *style == ScalarStyle::Plain => plain_json(text),
            Kind::Scalar { text, .. } => text.clone().into(),
            Kind::List(items) => items.iter().map(|item| as_json(item)).collect(),
            Kind::Map(entries) => {
                let entry = |e: &tree::Entry| (e.key.clone(), as_json(&e.value));
                Value::Object(entries.iter().map(entry).collect())
            }
        }
    }

    /// What the schema says of a playbook; `None` where that is no YAML.
    pub fn complaints(text: &str) -> Option<Vec<String>> {
        let source = Arc::new(Source {
            path: "p.yml".into(),
            text: text.into(),
        });
        let tree = tree::parse(&source);
        if !tree.found.is_empty() {
            return None;
        }
        let root = tree.root?;
        let json = as_json(&root);
        let complaints = VALIDATOR.iter_errors(&json);
        Some(
            complaints
                .map(|error| format!("{} at {}", error, error.instance_path()))
                .collect(),
        )
    }

    #[test]
    fn the_keys_are_those_of_the_parser() {
        let names = |keys: &[Key]| {
            let mut names: Vec<&str> = keys.iter().map(|key| key.0).collect();
            names.sort_unstable();
            names
        };
        let sorted = |keys: &[&'static str]| {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            keys
        };
        let copied = |own: &[Key]| {
            let mut all: Vec<&str> = COPIED.iter().chain(own).map(|key| key.0).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(copied(UPLOAD), sorted(keys::UPLOAD));
        assert_eq!(copied(DOWNLOAD), sorted(keys::DOWNLOAD));
        for (ours, theirs) in [
            (FILE, keys::FILE),
            (PLAY, keys::PLAY),
            (SETTINGS, keys::SETTINGS),
            (ACTIONS, keys::ACTIONS),
            (TASK, keys::TASK),
            (LS, keys::LS),
            (SECRET, keys::SECRET),
            (BECOME, keys::BECOME),
            (RETRY, keys::RETRY),
            (RESTART, keys::RESTART),
            (ROLLOUT, keys::ROLLOUT),
            (PAUSE, keys::PAUSE),
            (WAIT_FOR, keys::WAIT_FOR),
            (PARSE, keys::PARSE),
            (DU, keys::DU),
            (DF, keys::DF),
            (COLUMNS, keys::COLUMNS),
            (KV, keys::KV),
            (JSON, keys::JSON),
            (SEPARATED, keys::SEPARATED),
            (REGEX, keys::REGEX),
            (TABLE, keys::TABLE),
            (PIVOT, keys::PIVOT),
        ] {
            assert_eq!(names(ours), sorted(theirs));
        }
    }
}
