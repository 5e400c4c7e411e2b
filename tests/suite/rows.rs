//! Output that becomes rows while commands run: on the sandbox, over real servers, in tables,
//! events and later tasks; and `fanrun parse`, which does the same to a text.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::sshd::Sshd;
use crate::streams;

fn anything(_: &str) -> bool {
    true
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A run of this playbook on two members of the sandbox. The folder must outlive the run.
fn on_sandbox(dir: &tempfile::TempDir, playbook: &str) -> Fanrun {
    let playbook = write(dir.path(), "play.yml", playbook);
    Fanrun::new(["run", &playbook, "--sandbox", "2"])
}

fn on_sshd(sshd: &Sshd, playbook: &str) -> Fanrun {
    let playbook = write(sshd.directory(), "play.yml", playbook);
    let hosts = write(sshd.directory(), "hosts", &sshd.addresses().join("\n"));
    Fanrun::new(["run", &playbook, "-i", &hosts]).options(sshd.fanrun_args())
}

/// The rows of a stream of events that has been found right.
fn rows(text: &str) -> Vec<Value> {
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    events
        .filter(|event: &Value| event["type"] == "row")
        .collect()
}

/// The disk report of the examples over two addresses of a server and a folder here.
fn disk_report(sshd: &Sshd) -> Fanrun {
    let tree = sshd.directory().join("tree/with space");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    std::fs::write(tree.join("deep/file"), vec![b'x'; 100_000]).unwrap();
    let playbook = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/disk-report.yml");
    let folder = format!("folder={}", sshd.directory().join("tree").display());
    let hosts = write(sshd.directory(), "hosts", &sshd.addresses().join("\n"));
    Fanrun::new([
        "run", playbook, "-i", &hosts, "-e", &folder, "-e", "full=101",
    ])
    .options(sshd.fanrun_args())
}

#[test]
fn du_here_and_df_there_are_one_sorted_table() {
    let sshd = Sshd::builder().addresses(2).start();
    let addresses = sshd.addresses();
    let tree = sshd.directory().join("tree");
    let folders = [
        tree.display().to_string(),
        tree.join("with space").display().to_string(),
    ];
    disk_report(&sshd).expect(
        0,
        move |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            let header: Vec<&str> = lines[0].split_whitespace().collect();
            assert_eq!(header, ["HOST", "MOUNT", "SIZE", "USED", "USE%"], "{text}");
            // One of df on either host, two of du, the larger first, and no raw line.
            assert_eq!(lines.len(), 5, "{text}");
            for (line, host) in lines[1..].iter().zip(&addresses) {
                let begins = format!("{host}  / ");
                assert!(line.starts_with(&begins) && line.contains("iB"), "{text}");
            }
            for (line, folder) in lines[3..].iter().zip(&folders) {
                let begins = format!("localhost  {folder} ");
                assert!(
                    line.starts_with(&begins) && line.ends_with(" KiB"),
                    "{text}"
                );
            }
            // Numbers end where their heading does.
            let end = lines[0].find("USED").unwrap() + 4;
            let used_ends_there = |line: &&str| line.get(..end).is_some_and(|l| l.ends_with('B'));
            lines[1..].iter().all(used_ends_there)
        },
        holds(["== What is full", "3 ok"]),
    );
}

#[test]
fn programs_get_the_numbers_of_a_disk_report_exactly() {
    let sshd = Sshd::builder().addresses(2).start();
    let run = disk_report(&sshd).options(["--format", "ndjson"]);
    run.expect(
        0,
        |text: &str| {
            streams::check(text, 0);
            let rows = rows(text);
            assert_eq!(rows.len(), 4, "{text}");
            for row in &rows {
                let (fields, local) = (&row["row"], row["host"] == "localhost");
                let used = fields["used"].as_u64().unwrap();
                assert!(used.is_multiple_of(1024) && used >= 100_000, "{row}");
                assert_eq!(fields.get("size").is_none(), local, "{row}");
            }
            true
        },
        anything,
    );
}

#[test]
fn rows_are_events_and_later_tasks_have_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "hosts: all\ntasks:\n  - run: printf '10\\t/a b\\n20\\t/c\\n'\n    parse: du\n    register: d\n  - run: echo ${{ d.rows[1].size + 1 }} ${{ d.rows | map(attribute='path') | join(',') }} ${{ d.count }}\n";
    on_sandbox(&dir, playbook)
        .options(["--format", "ndjson"])
        .expect(
            0,
            |text: &str| {
                let told = streams::check(text, 0);
                let rows = rows(text);
                assert_eq!(rows.len(), 4);
                let first = rows.iter().find(|row| row["host"] == "sandbox-1").unwrap();
                assert_eq!((&first["n"], &first["task"]), (&1.into(), &"0.0".into()));
                let fields = serde_json::json!({"size": 10240, "path": "/a b"});
                assert_eq!(first["row"], fields);
                let key =
                    |task: &str| ("sandbox-2".to_owned(), task.to_owned(), "stdout".to_owned());
                assert_eq!(told.bytes[&key("0.1")], b"20481 /a b,/c 2\n");
                // Events have the lines as well.
                assert_eq!(told.bytes[&key("0.0")], b"10\t/a b\n20\t/c\n");
                true
            },
            anything,
        );
}

#[test]
fn a_line_that_does_not_fit_ends_the_command_and_is_shown() {
    let sshd = Sshd::start();
    let marker = processes::marker("bad-line");
    let playbook = format!(
        "hosts: all\ntasks:\n  - run: |\n      echo '{{\"a\": 1}}'; echo '{{\"a\" 2}}'; sh -c 'sleep 60; : {marker}'\n    parse: ndjson\n    table: true\n  - echo never\n"
    );
    let begun = Instant::now();
    on_sshd(&sshd, &playbook).expect(
        1,
        "A\n1\n",
        holds([
            "line 2 of the output does not fit `ndjson`: JSON is expected: expected `:`",
            "\n  2 | {\"a\" 2}\n    |      ^\n",
            "not started",
        ]),
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
    processes::await_gone(&marker, Duration::from_secs(5));
}

#[test]
fn the_row_that_is_enough_ends_the_command_and_well() {
    let sshd = Sshd::start();
    let marker = processes::marker("enough");
    let playbook = format!(
        "hosts: all\nvars: {{most: 3}}\ntasks:\n  - run: \"seq 1 100; sh -c 'sleep 60; : {marker}'\"\n    parse: {{lines: , types: {{line: int}}, stop_when: row.line >= most}}\n    register: seen\n    table: true\n  - echo ${{{{ seen.rows | length }}}} ${{{{ seen.status }}}}\n"
    );
    let begun = Instant::now();
    on_sshd(&sshd, &playbook).expect(
        0,
        "127.0.0.1 | 3 ok\nLINE\n   1\n   2\n   3\n",
        holds(["OK"]),
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
    processes::await_gone(&marker, Duration::from_secs(5));
}

#[test]
fn a_condition_that_cannot_be_told_fails_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let playbook =
        "hosts: all\ntasks:\n  - run: echo line=2\n    parse: {kv: , stop_when: row.lime == '2'}\n";
    let said = holds(["the output does not fit `stop_when`: row 1: `row.lime` is not defined"]);
    on_sandbox(&dir, playbook).expect(1, anything, said);
    let playbook = "hosts: all\ntasks:\n  - run: seq 1 3\n    parse: {lines: , stop_when: row.line == limmit}\n";
    let said = holds(["unknown variable `limmit`", "play.yml:4:45"]);
    on_sandbox(&dir, playbook).expect(2, "", said);
}

#[test]
fn tables_are_merged_sorted_and_turned_over_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let task = "  - run: \"printf '/ %s\\\\n/srv 20\\\\n' $(echo ${{ host.name }} | tr -dc 12)\"\n    parse: {columns: {names: [mount, used]}, types: {used: int}}\n";
    let playbook = |table: &str| format!("hosts: all\ntasks:\n{task}    table: {table}\n");
    on_sandbox(&dir, &playbook("{sort: -used, limit: 3, total: true}")).expect(
        0,
        "HOST       MOUNT  USED\nsandbox-1  /srv     20\nsandbox-2  /srv     20\nsandbox-2  /         2\ntotal               42\n",
        anything,
    );
    let pivot = "{pivot: {row: mount, column: host, value: used}}";
    on_sandbox(&dir, &playbook(pivot)).expect(
        0,
        "MOUNT  SANDBOX-1  SANDBOX-2\n/              1          2\n/srv          20         20\n",
        anything,
    );
    // The lines themselves are for the curious.
    on_sandbox(&dir, &playbook("true")).options(["-v"]).expect(
        0,
        holds([
            "sandbox-1 | / 1\n",
            "sandbox-2 | /srv 20\n",
            "HOST       MOUNT  USED\n",
        ]),
        anything,
    );
}

#[test]
fn lines_put_aside_are_told_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "hosts: all\ntasks:\n  - run: printf '1\\nx\\n3\\ny\\n'\n    parse: {lines: , types: {line: int}, strict: false}\n    register: r\n  - echo ${{ r.rows | length }} ${{ r.unparsed | join('+') }}\n";
    on_sandbox(&dir, playbook).options(["-l", "sandbox-1"]).expect(
        0,
        holds(["sandbox-1 | 2 x+y\n"]),
        holds(["warning: sandbox-1: 2 lines of the output do not fit `lines`; the first is line 2: x\n"]),
    );
}

#[test]
fn a_failure_of_the_command_is_not_blamed_on_its_cut_output() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "hosts: all\non_failure: continue\ntasks:\n  - run: printf '[1, 2'; exit 3\n    parse: json\n  - run: printf '12'; sleep 20\n    timeout: 1s\n    parse: {lines: , types: {line: int}}\n";
    on_sandbox(&dir, playbook)
        .options(["--format", "ndjson"])
        .expect(
            1,
            |text: &str| {
                let told = streams::check(text, 1);
                let end = |task: &str| &told.ends[&("sandbox-1".to_owned(), task.to_owned())];
                assert_eq!(end("0.0")["code"], 3);
                assert_eq!(end("0.1")["status"], "timed_out");
                // `12` may have been the beginning of `1234`.
                rows(text).is_empty()
            },
            anything,
        );
}

#[test]
fn parsed_commands_speak_the_language_of_programs() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "hosts: all\ntasks:\n  - run: echo \"l=$LC_ALL\"\n    parse: kv\n    table: {columns: [l]}\n  - local: echo \"l=$LC_ALL\"\n    env: {LC_ALL: POSIX}\n    parse: kv\n    table: {columns: [l]}\n";
    on_sandbox(&dir, playbook).expect(0, "L\nC\nC\nL\nPOSIX\nPOSIX\n", anything);
}

#[test]
fn a_reader_who_pauses_misses_no_row_and_costs_no_memory() {
    let sshd = Sshd::start();
    let playbook =
        "hosts: all\ntasks:\n  - run: seq 1 600000\n    parse: {lines: , types: {line: int}}\n";
    let mut running = on_sshd(&sshd, playbook)
        .options(["--format", "ndjson"])
        .within(Duration::from_secs(120))
        .blocked_stdout()
        .spawn();
    std::thread::sleep(Duration::from_secs(2));
    let paused = running.peak_memory();
    assert!(paused < 160 << 20, "{} MiB", paused >> 20);
    running.read_stdout();
    running.expect(
        0,
        |text: &str| {
            let rows = text
                .lines()
                .filter(|line| line.contains("\"type\":\"row\""));
            let ns = rows.zip(1u64..).map(|(row, n)| {
                let row: Value = serde_json::from_str(row).unwrap();
                assert_eq!((&row["n"], &row["row"]["line"]), (&n.into(), &n.into()));
            });
            ns.count() == 600_000
        },
        anything,
    );
}

fn parse(spec: &str, text: &str) -> Fanrun {
    Fanrun::new(["parse", spec]).stdin(text)
}

#[test]
fn a_text_is_parsed_in_every_format() {
    let text = "1.5G\t/a \"b\"\n";
    let run =
        |format: &'static str| parse("{du: {unit: human}}", text).options(["--format", format]);
    run("table").expect(0, "    SIZE  PATH\n~1.5 GiB  /a \"b\"\n", "");
    run("csv").expect(0, "size,path\n1610612736,\"/a \"\"b\"\"\"\n", "");
    let object = "{\"size\":1610612736,\"path\":\"/a \\\"b\\\"\",\"approximate\":true}";
    run("ndjson").expect(0, format!("{object}\n"), "");
    run("json").expect(0, format!("[\n  {object}\n]\n"), "");
    parse("du", "")
        .options(["--format", "json"])
        .expect(0, "[]\n", "");
    parse("lines", "a\nb").expect(0, "{\"line\":\"a\"}\n{\"line\":\"b\"}\n", "");
    let spec = "{lines: , types: {line: int}, stop_when: row.line == 2}";
    parse(spec, "1\n2\nx\n").expect(0, "{\"line\":1}\n{\"line\":2}\n", "");
}

#[test]
fn a_text_that_does_not_fit_is_shown_with_its_fault() {
    let fault = "error: line 2 of the output does not fit `du`: a size, a TAB and a path are expected\n  2 | 12 /b\n    | ^^^^^\n";
    parse("du", "1\t/a\n12 /b\n3\t/c\n").expect(1, "{\"size\":1024,\"path\":\"/a\"}\n", fault);
    let warned = "warning: line 1 of the output does not fit `lines`: a whole number is expected\n  1 | x\n    | ^\n";
    parse("{lines: , types: {line: int}, strict: false}", "x\n2\n").expect(
        0,
        "{\"line\":2}\n",
        warned,
    );
    let said = holds([
        "error: `parse` cannot be `duh`",
        "<command line>:1:1",
        "help: did you mean `du`?",
    ]);
    parse("duh", "").expect(2, "", said);
    parse("{regex: '('}", "").expect(2, "", holds(["is no regular expression: unclosed group"]));
    parse("", "").expect(2, "", holds(["nothing says how to parse"]));
}

#[test]
fn rows_of_a_loop_are_counted_on_and_kept_together() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = dir.path().join("loop.yml");
    let text = "hosts: all\ntasks:\n  - run: printf 'n=%s\\n' ${{ item }}\n    loop: [1, 2, 3]\n    \
                parse: {kv: {separator: '='}}\n    register: x\n  - print: ${{ x.rows | length }} rows\n";
    std::fs::write(&playbook, text).unwrap();
    let playbook = playbook.to_str().unwrap();
    Fanrun::new(["run", playbook, "--sandbox", "1"]).expect(0, holds(["3 rows"]), |_: &str| true);
    Fanrun::new(["run", playbook, "--sandbox", "1", "--format", "ndjson"]).expect(
        0,
        |text: &str| {
            let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let rows = events.filter(|event: &serde_json::Value| event["type"] == "row");
            rows.map(|row| row["n"].as_u64().unwrap()).eq(1..=3)
        },
        "",
    );
}
