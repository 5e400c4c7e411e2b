//! The language's keys: where each may stand, and what other tools call them.

/// Keys of a file besides those of a play.
pub(super) const FILE: &[&str] = &[
    "name",
    "inventory",
    "vars",
    "secrets",
    "defaults",
    "handlers",
    "plays",
];
/// Keys of a play besides [`SETTINGS`].
pub(super) const PLAY: &[&str] = &[
    "name", "hosts", "strategy", "fanout", "vars", "tasks", "rollout", "handlers",
];
/// Keys of `defaults`, and of every play.
pub(super) const SETTINGS: &[&str] = &[
    "user",
    "port",
    "identity",
    "become",
    "env",
    "cwd",
    "shell",
    "timeout",
    "connect_timeout",
    "on_failure",
];
/// What a task can do; exactly one of them.
pub(super) const ACTIONS: &[&str] = &[
    "run", "script", "local", "upload", "download", "ls", "print", "pause", "assert", "set",
    "wait_for", "block", "include",
];
/// Keys of a task besides [`ACTIONS`].
pub(super) const TASK: &[&str] = &[
    "name",
    "args",
    "become",
    "env",
    "cwd",
    "shell",
    "stdin",
    "timeout",
    "ok_codes",
    "on_failure",
    "register",
    "parse",
    "table",
    "vars",
    "message",
    "when",
    "loop",
    "retry",
    "restart",
    "creates",
    "changed_when",
    "notify",
    "tags",
    "once",
    "fanout",
    "rollout",
    "delegate_to",
    "rescue",
    "always",
];
/// Keys of a block.
pub(super) const BLOCK: &[&str] = &["name", "block", "rescue", "always", "when", "tags", "vars"];
/// Keys of an `include`.
pub(super) const INCLUDE: &[&str] = &["name", "include", "when", "tags", "vars"];
/// Keys of an `include` among plays.
pub(super) const INCLUDED_PLAYS: &[&str] = &["name", "include", "vars"];
/// Keys of `retry`, when it is a mapping.
pub(super) const RETRY: &[&str] = &["times", "delay", "backoff", "max_delay", "until"];
/// Keys of `restart`, when it is a mapping.
pub(super) const RESTART: &[&str] = &["times", "within"];
/// Keys of `rollout`.
pub(super) const ROLLOUT: &[&str] = &["batches", "max_failures", "pause"];
/// Keys of `pause`, when it is a mapping.
pub(super) const PAUSE: &[&str] = &["ask"];
/// Keys of `wait_for`, when it is a mapping.
pub(super) const WAIT_FOR: &[&str] = &["port", "address", "path"];

/// Keys of a secret; exactly one of them.
pub(super) const SECRET: &[&str] = &["env", "file", "command", "prompt"];
/// Keys of `become`, when it is a mapping.
pub(super) const BECOME: &[&str] = &["method", "user", "password"];

/// Keys of `ls`, when it is a mapping.
pub(super) const LS: &[&str] = &[
    "path", "depth", "files", "dirs", "links", "include", "exclude", "regex", "newer", "older",
    "min_size", "max_size", "owner", "mode", "errors", "state",
];

/// Keys of `upload`.
pub(super) const UPLOAD: &[&str] = &[
    "src",
    "dest",
    "template",
    "mode",
    "preserve",
    "owner",
    "verify",
    "only_changed",
    "delete",
    "resume",
    "symlinks",
    "exclude",
    "bandwidth",
    "backup",
    "durable",
];

/// Keys of `download`.
pub(super) const DOWNLOAD: &[&str] = &[
    "src",
    "dest",
    "flat",
    "mode",
    "preserve",
    "verify",
    "only_changed",
    "delete",
    "resume",
    "symlinks",
    "exclude",
    "bandwidth",
    "backup",
    "durable",
];

/// Formats of `parse`; exactly one of them.
pub(super) const FORMATS: &[&str] = &[
    "du", "df", "lines", "columns", "kv", "json", "ndjson", "csv", "tsv", "regex",
];
/// Keys of `parse`.
pub(super) const PARSE: &[&str] = &[
    "du",
    "df",
    "lines",
    "columns",
    "kv",
    "json",
    "ndjson",
    "csv",
    "tsv",
    "regex",
    "types",
    "strict",
    "stop_when",
];
/// Keys of the formats, where they are mappings.
pub(super) const DU: &[&str] = &["unit", "zero", "names"];
pub(super) const DF: &[&str] = &["unit"];
pub(super) const COLUMNS: &[&str] = &["split", "names", "header", "last", "skip"];
pub(super) const KV: &[&str] = &["separator", "quotes", "blocks"];
pub(super) const JSON: &[&str] = &["path"];
pub(super) const SEPARATED: &[&str] = &["names", "header"];
pub(super) const REGEX: &[&str] = &["pattern", "match"];
/// Keys of `table`, when it is a mapping.
pub(super) const TABLE: &[&str] = &["name", "columns", "sort", "limit", "total", "pivot"];
/// Keys of `pivot`; all of them.
pub(super) const PIVOT: &[&str] = &["row", "column", "value"];

/// Part of the language, but not of this version.
pub(super) const LATER_FILE: &[&str] = &[];
pub(super) const LATER_SETTINGS: &[&str] = &["jump"];
pub(super) const LATER_ACTIONS: &[&str] = &[];
pub(super) const LATER_TASK: &[&str] = &["template"];

/// What somebody who knows another tool would write.
pub(super) fn foreign(key: &str) -> Option<&'static str> {
    Some(match key {
        "command" | "cmd" | "raw" | "exec" | "sh" | "win_shell" | "commands" => {
            "a command is written `run: ...`"
        }
        "debug" | "msg" | "echo" => "text for the terminal is written `print: ...`",
        "ignore_errors" => "write `on_failure: continue`",
        "failed_when" => "exit codes that are fine are written `ok_codes: [0, 3]`",
        "any_errors_fatal" => "write `on_failure: stop_all`",
        "remote_user" | "ansible_user" | "username" => "the account is written `user: ...`",
        "become_user" | "become_method" | "sudo" | "become_pass" | "sudo_user" => {
            "write `become: true`, or `become: {user: ..., method: ..., password: ...}`"
        }
        "vars_prompt" | "vault" | "vault_password_file" => {
            "values that must not be seen are declared under `secrets:`"
        }
        "environment" => "write `env:`",
        "chdir" | "workdir" | "dir" => "the working directory is written `cwd: ...`",
        "serial" => "batches of hosts are written `rollout: {batches: [1, 25%]}`",
        "max_fail_percentage" => "write `rollout: {max_failures: 5%}`",
        "with_items" | "with_list" | "loop_control" | "foreach" => {
            "write `loop: [a, b]`; the value is `item`"
        }
        "run_once" => "write `once: true`",
        "set_fact" => "write `set: {name: value}`",
        "if" | "only_if" | "unless" => "write `when:` with an expression",
        "that" => "conditions are written `assert: [a == b, c > 1]`",
        "forks" | "parallel" => "how many hosts at once is written `fanout: 10`",
        "gather_facts" => "nothing is gathered; remove it",
        "local_action" => "a command on this machine is written `local: ...`",
        "sleep" | "wait" => "write `pause: 30s`",
        "steps" | "pre_tasks" | "post_tasks" => "write `tasks:`",
        "variables" => "write `vars:`",
        "private_key" | "key" | "identity_file" => "a private key file is written `identity: ...`",
        "copy" | "put" | "synchronize" => {
            "sending files is written `upload: {src: ..., dest: ...}`"
        }
        "fetch" | "get" => "fetching files is written `download: {src: ..., dest: ...}`",
        "roles" | "import_tasks" | "include_tasks" => "write `include: tasks.yml`",
        "until" | "retries" | "delay" => {
            "write `retry: {times: 5, delay: 2s, until: result.code == 0}`"
        }
        _ => return None,
    })
}
