//! The playbook language from end to end: values, conditions, loops, blocks, retries, handlers,
//! tags and rollouts, over the sandbox and over a real sshd.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::fanrun::{Fanrun, holds};
use crate::places::everywhere;
use crate::sshd::Sshd;

fn anything(_: &str) -> bool {
    true
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A playbook that runs on so many sandbox hosts; the directory lives as long as it must.
fn on_sandbox(hosts: usize, text: &str) -> (tempfile::TempDir, Fanrun) {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "p.yml", text);
    let run = Fanrun::new(["run", &path, "--sandbox", &hosts.to_string()]);
    (dir, run.within(Duration::from_secs(60)))
}

/// What a run with `--events` wrote, after it ended with a code.
fn events_of(run: Fanrun, dir: &Path, code: i32) -> Vec<Value> {
    let file = dir.join("events.ndjson");
    let file = file.to_str().unwrap().to_owned();
    run.options(["--events", &file])
        .expect(code, anything, anything);
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == kind)
        .collect()
}

/// `name: status` of each ended task of a host, in order.
fn ended(events: &[Value], host: &str) -> Vec<String> {
    let ends = of_type(events, "task_end").into_iter();
    let ends = ends.filter(|end| end["host"] == host);
    ends.map(|end| {
        format!(
            "{}: {}",
            end["name"].as_str().unwrap(),
            end["status"].as_str().unwrap()
        )
    })
    .collect()
}

/// Every start has one end, and the lines of a host, task and stream are numbered without a gap.
fn check_stream(events: &[Value]) {
    let key = |event: &Value| (event["host"].to_string(), event["task"].to_string());
    let starts: Vec<_> = of_type(events, "task_start").into_iter().map(key).collect();
    let ends: Vec<_> = of_type(events, "task_end").into_iter().map(key).collect();
    let mut sorted = (starts.clone(), ends);
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0, sorted.1);
    let mut counts = std::collections::HashMap::new();
    for line in of_type(events, "line") {
        let count = counts
            .entry((key(line), line["stream"].to_string()))
            .or_insert(0);
        *count += 1;
        assert_eq!(line["n"], *count, "{line}");
    }
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], at);
    }
}

#[test]
fn what_is_not_due_is_skipped_and_counted() {
    let text = "hosts: all
tasks:
  - name: number
    run: echo ${HOME##*-}
    register: number
  - {name: only one, when: number.stdout == '2', run: echo here}
  - {name: seen, when: 'number.code == 0 and host.name != \"sandbox-3\"', print: 'n ${{ number.stdout }}'}
";
    for place in everywhere(3) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        assert_eq!(
            ended(&events, "sandbox-1"),
            ["number: ok", "only one: skipped", "seen: ok"]
        );
        assert_eq!(
            ended(&events, "sandbox-2"),
            ["number: ok", "only one: ok", "seen: ok"]
        );
        assert_eq!(
            ended(&events, "sandbox-3"),
            ["number: ok", "only one: skipped", "seen: skipped"]
        );
        let reason = of_type(&events, "task_end")
            .into_iter()
            .find(|e| e["status"] == "skipped");
        assert_eq!(reason.unwrap()["reason"], "`number.stdout == '2'` is false");
        let run = place.run(text);
        run.expect(0, anything, holds(["3 ok", "6 ok, 3 skipped"]));
    }
}

#[test]
fn a_condition_that_is_neither_true_nor_false_fails_the_task() {
    let text = "hosts: all\nvars: {word: 'false'}\ntasks: [{name: x, when: word, run: echo no}]\n";
    for place in everywhere(1) {
        let run = place.run(text);
        run.expect(1, "", holds(["`word` is text, neither true nor false"]));
    }
}

#[test]
fn an_assertion_fails_with_its_message() {
    let text = "hosts: all
tasks:
  - {run: echo 17, register: free}
  - assert: [free.code == 0, free.stdout | int > 20]
    message: only ${{ free.stdout }} GiB are free
  - echo never
";
    for place in everywhere(1) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 1);
        let end = of_type(&events, "task_end")[1];
        assert_eq!(end["status"], "failed");
        assert_eq!(end["cause"], "assert");
        let reason = "only 17 GiB are free (`free.stdout | int > 20` is false)";
        assert_eq!(end["reason"], reason);
        assert_eq!(of_type(&events, "task_end").len(), 2);
        let one = text.replace("[free.code == 0, free.stdout | int > 20]", "free.code == 1");
        let run = place.run(&one);
        run.expect(1, anything, |text: &str| {
            text.contains("only 17 GiB are free  ") && !text.contains("is false")
        });
    }
}

#[test]
fn what_a_host_says_is_never_read_as_a_template() {
    let text = "hosts: all
tasks:
  - {run: \"printf '%s' '$''{{ host.name }}; echo broken #'\", register: said}
  - set: {kept: '${{ said.stdout }}', list: ['${{ said.stdout }}', 2], count: '${{ said.lines | length }}'}
  - run: printf '<%s>' ${{ kept }} ${{ list }}
  - {when: count == 1, print: 'counted ${{ list[1] }}'}
  - {loop: list, run: 'echo got ${{ item }}'}
";
    for place in everywhere(1) {
        let run = place.run(text);
        let literal = "${{ host.name }}; echo broken #";
        let wanted = [
            format!("<{literal}><{literal}><2>"),
            "counted 2".to_owned(),
            format!("got {literal}\n"),
            "got 2".to_owned(),
        ];
        run.expect(
            0,
            move |out: &str| {
                wanted.iter().all(|wanted| out.contains(wanted.as_str()))
                    && !out.contains("| broken")
            },
            anything,
        );
    }
}

/// Each row sets the variable in some places; the last place of the row must win.
#[test]
fn variables_have_one_order() {
    let levels = ["file", "group", "host", "play", "task", "line-file", "line"];
    let dir = tempfile::tempdir().unwrap();
    for first in 0..levels.len() {
        for last in first..levels.len() {
            let has = |level: &str| levels[first..=last].contains(&level);
            let vars = |level: &str| {
                if has(level) {
                    format!("{{v: {level}}}")
                } else {
                    "{other: 1}".into()
                }
            };
            let inventory = format!(
                "hosts: {{web1: {{vars: {}}}}}\ngroups: {{web: {{hosts: [web1], vars: {}}}}}\n",
                vars("host"),
                vars("group")
            );
            let inventory = write(dir.path(), "hosts.yml", &inventory);
            let book = format!(
                "vars: {}\nplays:\n  - hosts: web\n    vars: {}\n    tasks: [{{print: 'is ${{{{ v }}}}!', vars: {}}}]\n",
                vars("file"),
                vars("play"),
                vars("task")
            );
            let book = write(dir.path(), "p.yml", &book);
            let more = write(dir.path(), "more.yml", "v: line-file\n");
            let mut args = vec!["plan".to_owned(), book, "-i".into(), inventory];
            // Of these two the later one on the line wins; here that is the nearer one.
            if has("line-file") {
                args.extend(["-e".into(), format!("@{more}")]);
            }
            if has("line") {
                args.extend(["-e".into(), "v=line".into()]);
            }
            let wanted = format!("is {}!", levels[last]);
            Fanrun::new(args).expect(0, move |out: &str| out.contains(&wanted), "");
        }
    }
}

#[test]
fn results_stand_above_the_playbook_and_below_the_command_line() {
    let text = "hosts: all
vars: {a: file, b: file}
tasks:
  - {set: {a: set, b: set, n: 3}}
  - {print: 'a ${{ a }} b ${{ b }} n ${{ n + 1 }}', vars: {a: task}}
";
    for place in everywhere(1) {
        let run = place.run(text);
        run.options(["-e", "b=line"])
            .expect(0, holds(["a set b line n 4"]), anything);
        let run = place
            .run("hosts: all\ntasks: [{when: go, print: went}, {when: not go, print: stayed}]\n");
        run.options(["-e", "go=false"])
            .expect(0, holds(["stayed"]), anything);
    }
}

#[test]
fn a_loop_is_one_task_whose_items_are_counted() {
    let text = "hosts: all
tasks:
  - {run: 'seq 3', register: numbers}
  - name: each
    loop: numbers.lines
    when: item != '2'
    run: echo ${{ loop.index }}/${{ loop.length }} ${{ item }}; echo x >&2
    register: each
  - print: \"${{ each.results | length }} ${{ each.results[1].status }} ${{ each.lines | join(',') }}\"
  - {loop: [], name: none, run: echo never}
";
    for place in everywhere(2) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        let each: Vec<&Value> = of_type(&events, "task_end")
            .into_iter()
            .filter(|e| e["name"] == "each")
            .collect();
        assert_eq!(each.len(), 2);
        for end in each {
            let items = serde_json::json!({"all": 3, "ok": 2, "skipped": 1, "failed": 0});
            assert_eq!((&end["status"], &end["items"]), (&"ok".into(), &items));
        }
        assert!(ended(&events, "sandbox-1").contains(&"none: skipped".to_owned()));
        for print in of_type(&events, "print") {
            assert_eq!(print["text"], "3 skipped 1/3 1,3/3 3");
        }
    }
}

#[test]
fn a_loop_ends_at_its_first_failure_unless_failures_are_borne() {
    let text = |policy: &str| {
        format!(
            "hosts: all\ntasks:\n  - {{name: each, loop: [a, b, c], run: 'echo ${{{{ item }}}}; test ${{{{ item }}}} != b', on_failure: {policy}}}\n"
        )
    };
    let items =
        |all, ok, failed| serde_json::json!({"all": all, "ok": ok, "skipped": 0, "failed": failed});
    for place in everywhere(1) {
        for (policy, wanted) in [("stop", items(3, 1, 1)), ("continue", items(3, 2, 1))] {
            let run = place.run(&text(policy));
            let events = events_of(run, place.directory(), 1);
            check_stream(&events);
            let end = of_type(&events, "task_end")[0];
            assert_eq!(end["status"], "failed", "{policy}");
            assert_eq!(end["items"], wanted, "{policy}");
        }
    }
}

const BLOCKS: &str = "hosts: all
tasks:
  - name: risky
    when: true
    block:
      - {name: try, run: 'echo try; case $HOME in *-2) exit 3;; esac'}
      - {name: then, run: echo then}
    rescue:
      - {name: mend, run: echo mend}
    always:
      - {name: tidy, run: echo tidy}
  - {name: after, run: echo after}
";

#[test]
fn a_rescued_failure_is_no_failure_of_the_run() {
    for place in everywhere(2) {
        let run = place.run(BLOCKS);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        assert_eq!(
            ended(&events, "sandbox-1"),
            ["try: ok", "then: ok", "tidy: ok", "after: ok"]
        );
        assert_eq!(
            ended(&events, "sandbox-2"),
            ["try: failed", "mend: ok", "tidy: ok", "after: ok"]
        );
        let rescued = of_type(&events, "task_end")
            .into_iter()
            .find(|end| end["status"] == "failed");
        assert_eq!(rescued.unwrap()["rescued"], true);
        let run = place.run(BLOCKS);
        run.expect(
            0,
            anything,
            holds(["2 ok", "7 ok, 1 rescued", "exit 3  rescued"]),
        );
    }
}

#[test]
fn a_rescue_that_fails_is_a_failure_and_always_is_done() {
    let text = BLOCKS.replace("echo mend", "false");
    for place in everywhere(2) {
        let run = place.run(&text);
        let events = events_of(run, place.directory(), 1);
        assert_eq!(
            ended(&events, "sandbox-2"),
            ["try: failed", "mend: failed", "tidy: ok"]
        );
        assert_eq!(ended(&events, "sandbox-1").len(), 4);
    }
}

const COUNTING: &str = "echo x >> tries; echo try $(wc -l < tries); test $(wc -l < tries) -ge 3";

#[test]
fn a_failed_command_is_tried_again_and_its_lines_are_counted_on() {
    let text = format!(
        "hosts: all\ntasks:\n  - name: flaky\n    run: {COUNTING}\n    retry: {{times: 5, delay: 10ms}}\n    register: r\n  - print: ${{{{ r.attempts }}}} attempts, last ${{{{ r.stdout }}}}\n"
    );
    for place in everywhere(2) {
        let run = place.run(&text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        let ends = of_type(&events, "task_end");
        let flaky: Vec<&&Value> = ends.iter().filter(|end| end["name"] == "flaky").collect();
        assert_eq!(flaky.len(), 2);
        assert!(flaky.iter().all(|end| end["attempts"] == 3));
        let again = of_type(&events, "retry");
        assert_eq!(again.len(), 4);
        assert!(
            again
                .iter()
                .all(|retry| retry["task"] == "0.0" && retry["reason"] == "exit 1")
        );
        for print in of_type(&events, "print") {
            assert_eq!(print["text"], "3 attempts, last try 3");
        }
    }
}

#[test]
fn until_decides_also_about_what_went_well_and_attempts_end() {
    let text = "hosts: all
tasks:
  - name: comes
    run: echo x >> n; wc -l < n
    retry: {times: 5, delay: 5ms, backoff: 1, until: result.stdout | trim == '3'}
  - name: never
    run: echo down
    retry: {times: 2, delay: 5ms, until: result.stdout == 'up'}
";
    for place in everywhere(1) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 1);
        let ends = of_type(&events, "task_end");
        assert_eq!(
            (&ends[0]["status"], &ends[0]["attempts"]),
            (&"ok".into(), &3.into())
        );
        assert_eq!(
            (&ends[1]["status"], &ends[1]["attempts"]),
            (&"failed".into(), &3.into())
        );
        assert_eq!(ends[1]["cause"], "unmet");
        assert_eq!(ends[1]["reason"], "`result.stdout == 'up'` is still false");
    }
}

#[test]
fn what_was_lost_is_never_tried_again() {
    let sshd = Sshd::start();
    let marker = sshd.directory().join("ran");
    let text = format!(
        "hosts: {}\ntasks:\n  - run: echo x >> {}; kill -9 $PPID; sleep 5\n    retry: {{times: 3, delay: 1ms}}\n",
        sshd.address(),
        marker.display()
    );
    let book = write(sshd.directory(), "lost.yml", &text);
    let run = Fanrun::new(["run", &book]).options(sshd.fanrun_args());
    let events = events_of(run, sshd.directory(), 1);
    let end = of_type(&events, "task_end")[0];
    assert_eq!(end["status"], "lost");
    assert_eq!(std::fs::read_to_string(marker).unwrap(), "x\n");
}

#[test]
fn handlers_are_done_once_at_the_end_where_something_changed() {
    let text = "hosts: all
tasks:
  - {name: one, run: echo one, notify: [last, first]}
  - {name: two, loop: [a, b], run: echo two, notify: first}
  - {name: same, run: echo same, changed_when: \"'changed' in result.stdout\", notify: unused}
  - {name: there, run: touch made, creates: made, notify: maker}
  - {name: again, run: echo bad, creates: made, notify: unused}
  - {name: skipped, when: false, run: echo no, notify: unused}
handlers:
  - {name: first, run: echo first, notify: chained}
  - {name: unused, run: echo unused}
  - {name: last, run: echo last}
  - {name: maker, run: echo maker}
  - {name: chained, run: echo chained}
";
    for place in everywhere(2) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        for host in ["sandbox-1", "sandbox-2"] {
            assert_eq!(
                ended(&events, host),
                [
                    "one: ok",
                    "two: ok",
                    "same: ok",
                    "there: ok",
                    "again: skipped",
                    "skipped: skipped",
                    "first: ok",
                    "last: ok",
                    "maker: ok",
                    "chained: ok"
                ]
            );
        }
        let of = |name: &str| {
            of_type(&events, "task_end")
                .into_iter()
                .find(|end| end["name"] == name)
                .unwrap()
        };
        assert_eq!(of("one")["changed"], true);
        assert_eq!(of("same")["changed"], false);
        assert_eq!(of("again")["reason"], "made exists");
        let ends = of_type(&events, "host_end");
        assert!(
            ends.iter()
                .all(|end| end["state"] == "ok" && end["not_started"] == 0)
        );
    }
}

#[test]
fn tags_and_a_place_to_start_choose_the_tasks() {
    let text = "hosts: all
tasks:
  - {name: a, tags: x, run: echo a}
  - tags: y
    block:
      - {name: b, tags: z, run: echo b}
      - {name: c, run: 'false'}
    rescue: [{name: r, run: echo r}]
  - {name: d, run: echo d}
  - {name: e, tags: [always], run: echo e}
";
    for place in everywhere(1) {
        let names = |options: &[&str]| {
            let run = place.run(text);
            let run = run.options(options.iter().map(ToString::to_string));
            let events = events_of(run, place.directory(), 0);
            ended(&events, "sandbox-1").join(", ")
        };
        assert_eq!(names(&["-t", "x,z"]), "a: ok, b: ok, e: ok");
        assert_eq!(names(&["-t", "y"]), "b: ok, c: failed, r: ok, e: ok");
        assert_eq!(names(&["--skip-tags", "y"]), "a: ok, d: ok, e: ok");
        assert_eq!(names(&["--start-at", "d"]), "d: ok, e: ok");
        let run = place.run(text);
        run.options(["--start-at", "D"])
            .expect(2, "", holds(["no task is named `D`"]));
        let run = place.run("hosts: all\ntasks: [{tags: a, run: echo}]\n");
        run.options(["-t", "b"])
            .expect(5, "", holds(["no task is selected"]));
    }
}

#[test]
fn what_is_done_once_is_known_to_all() {
    let text = "hosts: all
tasks:
  - {name: early, run: echo early}
  - {name: migrate, once: true, run: 'echo by $HOME >> \"$FANRUN_SANDBOX_ROOT\"/log; cat \"$FANRUN_SANDBOX_ROOT\"/log', register: done}
  - {name: keep, once: true, set: {key: '${{ done.lines | length }}-${{ host.name }}'}}
  - {name: use, print: '${{ key }}'}
";
    for place in everywhere(4) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        let of = |name: &str| {
            of_type(&events, "task_end")
                .into_iter()
                .filter(|e| e["name"] == name)
                .count()
        };
        assert_eq!(
            (of("early"), of("migrate"), of("keep"), of("use")),
            (4, 1, 1, 4)
        );
        let texts: std::collections::BTreeSet<_> = of_type(&events, "print")
            .into_iter()
            .map(|p| p["text"].to_string())
            .collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert!(texts.first().unwrap().starts_with("\"1-sandbox-"));
    }
}

#[test]
fn a_rollout_goes_in_batches_and_stops_when_too_many_fail() {
    let text = |fails: &str| {
        format!(
            "hosts: all\nrollout: {{batches: [1, 25%, 100%], max_failures: 1, pause: 10ms}}\ntasks:\n  - run: case $HOME in {fails}) exit 1;; esac\n"
        )
    };
    let sizes = |events: &[Value]| -> Vec<u64> {
        of_type(events, "batch_start")
            .into_iter()
            .map(|b| b["hosts"].as_u64().unwrap())
            .collect()
    };
    for place in everywhere(8) {
        let run = place.run(&text("none"));
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        assert_eq!(sizes(&events), [1, 2, 5]);
        let run = place.run(&text("*-2|*-3"));
        let events = events_of(run, place.directory(), 1);
        assert_eq!(sizes(&events), [1, 2]);
        let end = events.last().unwrap();
        assert_eq!(end["stopped_by"], "2 hosts failed; `max_failures` allows 1");
        let not_started = of_type(&events, "host_end")
            .into_iter()
            .filter(|h| h["not_started"] == 1);
        assert_eq!(not_started.count(), 5);
    }
}

#[test]
fn later_batches_pass_by_what_was_done_once() {
    let text = "hosts: all
rollout: {batches: [1, 2]}
tasks:
  - {name: before, run: echo}
  - {name: once, once: true, run: echo x, register: x}
  - {name: after, print: '${{ x.stdout }}'}
";
    for place in everywhere(5) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        let ends = of_type(&events, "task_end");
        assert_eq!(ends.iter().filter(|end| end["name"] == "once").count(), 1);
        assert_eq!(ends.len(), 11);
        assert_eq!(of_type(&events, "batch_start").len(), 3);
    }
}

#[test]
fn what_failed_once_is_mended_by_every_batch() {
    let text = "hosts: all
rollout: {batches: 2}
tasks:
  - block: [{name: once, once: true, run: exit 3}]
    rescue: [{name: mend, run: echo mend}]
  - {name: after, run: echo after}
";
    for place in everywhere(5) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        let count = |name: &str| {
            of_type(&events, "task_end")
                .iter()
                .filter(|e| e["name"] == name)
                .count()
        };
        assert_eq!((count("once"), count("mend"), count("after")), (1, 5, 5));
    }
}

#[test]
fn a_task_may_have_a_fanout_and_batches_of_its_own() {
    let text = "hosts: all
tasks:
  - {name: few, fanout: 1, run: 'mkdir \"$FANRUN_SANDBOX_ROOT\"/lock && sleep 0.05 && rmdir \"$FANRUN_SANDBOX_ROOT\"/lock'}
  - {name: batched, rollout: {batches: 2}, run: echo}
";
    for place in everywhere(5) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        let sizes: Vec<_> = of_type(&events, "batch_start")
            .into_iter()
            .map(|b| b["hosts"].clone())
            .collect();
        assert_eq!(sizes, [2, 2, 1]);
    }
}

#[test]
fn waiting_ends_when_it_is_there_or_its_limit_passes() {
    let port = crate::sshd::free_port(&[std::net::Ipv4Addr::LOCALHOST]);
    let text = format!(
        "hosts: all
tasks:
  - run: (sleep 0.2; touch there) >/dev/null 2>&1 </dev/null &
  - {{name: path, wait_for: {{path: there}}}}
  - {{name: connection, wait_for: connection}}
  - {{name: port, wait_for: {{port: {port}, address: 127.0.0.1}}, timeout: 300ms}}
"
    );
    for place in everywhere(1) {
        let run = place.run(&text);
        let events = events_of(run, place.directory(), 1);
        check_stream(&events);
        let told = ended(&events, "sandbox-1");
        assert_eq!(told[1..], ["path: ok", "connection: ok", "port: failed"]);
        let last = of_type(&events, "task_end").pop().unwrap();
        assert_eq!(
            last["reason"],
            format!("port {port} accepted no connection in 0.3s")
        );
        assert_eq!(
            of_type(&events, "host_ready").len(),
            2,
            "a new connection was opened"
        );
    }
}

#[test]
fn a_task_can_be_done_on_another_host_on_behalf_of_each() {
    let text = "hosts: sandbox-[1-2]
tasks:
  - {name: own, run: 'echo ${HOME##*/}', register: own}
  - {name: there, delegate_to: sandbox-3, run: 'echo ${HOME##*/} ${{ own.stdout }}', register: there}
  - {name: back, run: 'echo ${HOME##*/}', register: back}
  - {name: here, delegate_to: localhost, run: 'echo \"${FANRUN_SANDBOX-none}\"', register: here}
  - assert: [back.stdout == own.stdout, there.stdout == 'sandbox-3 ' ~ host.name, here.stdout == 'none']
";
    for place in everywhere(3) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
    }
    let (_dir, run) = on_sandbox(
        3,
        "hosts: sandbox-1\ntasks:\n  - {run: x, delegate_to: all}\n  - {run: x, delegate_to: sandbox-9}\n",
    );
    run.expect(
        2,
        "",
        holds(["p.yml:3:27", "`all` is more than one host", "p.yml:4:27"]),
    );
}

#[test]
fn the_host_that_does_a_task_may_depend_on_the_one_it_is_done_for() {
    let text = "hosts: sandbox-[1-3]
vars: {deputies: {sandbox-1: sandbox-4, sandbox-2: localhost, sandbox-3: sandbox-3}}
tasks:
  - {name: own, run: 'echo ${HOME##*/}', register: own}
  - name: there
    delegate_to: ${{ deputies[host.name] }}
    run: echo ${FANRUN_SANDBOX-none} ${HOME##*/} ${{ host.name }}
    register: there
  - print: '${{ host.name }} had ${{ there.stdout }}'
";
    for place in everywhere(4) {
        let run = place.run(text);
        let events = events_of(run, place.directory(), 0);
        check_stream(&events);
        let said = |host: &str| {
            let mut lines = of_type(&events, "line").into_iter();
            let last = lines.rfind(|line| line["host"] == host);
            last.unwrap()["text"].as_str().unwrap().to_owned()
        };
        assert!(said("sandbox-1").ends_with(" sandbox-4 sandbox-1"));
        assert!(said("sandbox-2").starts_with("none "));
        assert!(said("sandbox-2").ends_with(" sandbox-2"));
        assert!(said("sandbox-3").ends_with(" sandbox-3 sandbox-3"));
        let ready = of_type(&events, "host_ready").len();
        assert_eq!(
            ready, 4,
            "one connection a host, and one to the deputy of the first"
        );
    }

    let text = "hosts: sandbox-[1-3]
vars: {deputies: {sandbox-1: sandbox-2, sandbox-2: sandbox-9}}
secrets: {token: {env: TOKEN}}
tasks:
  - {name: a, run: hostname, register: own}
  - {name: b, run: x, delegate_to: '${{ own.stdout }}'}
  - {name: c, run: x, delegate_to: '${{ item }}', loop: [a]}
  - {name: d, run: x, delegate_to: '${{ host.os }}'}
  - {name: e, run: x, delegate_to: '${{ token }}'}
";
    let (_dir, run) = on_sandbox(3, text);
    run.expect(
        2,
        "",
        holds([
            "p.yml:6:41",
            "`delegate_to` cannot use `own.stdout`",
            "p.yml:7:41",
            "`delegate_to` cannot use `item`",
            "`delegate_to` cannot use `host.os`",
            "`delegate_to` cannot use `token`",
            "known only while tasks run",
            "4 errors",
        ]),
    );
    let text = "hosts: sandbox-[1-3]
vars: {deputies: {sandbox-1: sandbox-2, sandbox-2: sandbox-9}}
tasks:
  - {name: f, run: x, delegate_to: '${{ deputies[host.name] }}'}
";
    let (_dir, run) = on_sandbox(3, text);
    run.expect(
        2,
        "",
        holds(["p.yml:4:36", "sandbox-9", "for host sandbox-2"]),
    );
    let (_dir, run) = on_sandbox(
        3,
        "hosts: all\ntasks:\n  - {run: x, delegate_to: '${{ host.groups[7] }}'}\n",
    );
    run.expect(2, "", holds(["p.yml:3:27", "for host sandbox-1"]));
}

const INCLUDING: &str = "hosts: all
tasks:
  - {include: parts/part.yml, vars: {word: one}, tags: a}
  - {include: parts/part.yml, vars: {word: two}, when: host.name == 'x'}
";

/// What that playbook includes.
fn write_parts(dir: &Path) {
    std::fs::create_dir(dir.join("parts")).unwrap();
    let script = "#!/bin/sh\necho script $1\n";
    write(dir, "parts/x.sh", script);
    let inner = "- {name: inner, print: 'inner ${{ word }}'}\n";
    write(dir, "parts/inner.yml", inner);
    let part = "- {name: part, script: x.sh, args: ['${{ word }}']}\n- include: inner.yml\n";
    write(dir, "parts/part.yml", part);
}

#[test]
fn tasks_of_another_file_stand_where_they_are_included() {
    for place in everywhere(1) {
        let dir = place.directory();
        write_parts(dir);
        let run = || place.run(INCLUDING);
        let events = events_of(run(), dir, 0);
        let told = ended(&events, "sandbox-1");
        assert_eq!(
            told,
            ["part: ok", "inner: ok", "part: skipped", "inner: skipped"]
        );
        assert_eq!(of_type(&events, "line")[0]["text"], "script one");
        assert_eq!(of_type(&events, "print")[0]["text"], "inner one");
        let place = of_type(&events, "task_end")[1]["place"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(place.ends_with("parts/inner.yml:1"), "{place}");
        let tagged = events_of(run().options(["-t", "a"]), dir, 0);
        assert_eq!(ended(&tagged, "sandbox-1").len(), 2);
    }
    let dir = tempfile::tempdir().unwrap();
    write_parts(dir.path());
    let book = write(dir.path(), "p.yml", INCLUDING);
    write(
        dir.path(),
        "parts/inner.yml",
        "- {nam: x, print: '${{ wrod }}'}\n- include: part.yml\n- include: none.yml\n",
    );
    Fanrun::new(["check", &book, "--sandbox", "1"]).expect(
        2,
        "",
        holds([
            "inner.yml:1:4",
            "did you mean `name`?",
            "`include: part.yml` includes itself in the end",
            "`include: none.yml` does not exist",
        ]),
    );
    write(dir.path(), "parts/inner.yml", "- print: ${{ wrod }}\n");
    Fanrun::new(["check", &book, "--sandbox", "1"]).expect(
        2,
        "",
        holds(["unknown variable `wrod`", "inner.yml:1:14", "`word`"]),
    );
}

/// `cwd` is where commands begin and what is looked for by them; files go below the login folder.
#[test]
fn a_working_directory_is_that_of_commands() {
    let text = "plays:
  - {hosts: all, tasks: [mkdir sub]}
  - hosts: all
    cwd: sub
    tasks:
      - {name: make, run: touch made}
      - {name: comes, wait_for: {path: made}}
      - {name: made, run: 'false', creates: made}
      - {name: copy, upload: {src: p.yml, dest: copied}, creates: copied}
      - {name: copied, upload: {src: p.yml, dest: copied}, creates: copied}
      - {name: below, ls: ., register: seen}
      - assert: seen.rows | map(attribute='name') | sort == ['copied', 'sub']
";
    let (dir, run) = on_sandbox(1, text);
    let events = events_of(run, dir.path(), 0);
    let of = |name: &str| {
        let mut ends = of_type(&events, "task_end").into_iter();
        ends.find(|end| end["name"] == name).unwrap()
    };
    assert_eq!(of("made")["reason"], "made exists");
    assert_eq!(of("copied")["reason"], "copied exists");
    assert_eq!(of("copy")["status"], "ok");
}

#[test]
fn a_check_connects_and_looks_but_changes_nothing() {
    let text = "hosts: all
tasks:
  - {name: make, run: 'touch ${{ host.name }}', register: made, notify: told}
  - {name: depends, when: made.code == 0, set: {x: 1}}
  - {name: further, print: 'x ${{ x }}'}
  - {name: known, assert: host.name == 'sandbox-1'}
  - {name: shown, print: 'known ${{ host.name }}'}
  - {name: here, local: 'touch here'}
  - {name: files, ls: .}
handlers: [{name: told, run: echo told}]
";
    for place in everywhere(1) {
        let run = place.run(text);
        let events = events_of(run.options(["--check"]), place.directory(), 0);
        check_stream(&events);
        let wanted = [
            "make: skipped",
            "depends: skipped",
            "further: skipped",
            "known: ok",
            "shown: ok",
            "here: skipped",
            "files: ok",
        ];
        assert_eq!(ended(&events, "sandbox-1"), wanted);
        let said: Vec<_> = of_type(&events, "print")
            .into_iter()
            .map(|p| p["text"].clone())
            .collect();
        assert_eq!(
            said,
            [
                "would run: touch sandbox-1",
                "known sandbox-1",
                "would run here: touch here"
            ]
        );
        assert_eq!(of_type(&events, "host_ready").len(), 1);
        let listed = of_type(&events, "entry").into_iter();
        let made = |entry: &Value| entry["path"].to_string().contains("sandbox-1");
        assert!(!listed.into_iter().any(made), "the file was not made");
        let file = place.directory().join("sandbox-1/sandbox-1");
        assert!(!file.exists(), "the file was not made");
    }
}

#[test]
fn a_question_is_asked_once_and_only_a_yes_goes_on() {
    let text = "hosts: all
tasks:
  - {name: sure, pause: {ask: 'Deploy to ${{ where }}?'}}
  - {name: after, run: echo went on}
vars: {where: production}
";
    // Nobody is there.
    for place in everywhere(3) {
        let run = place.run(text);
        run.expect(
            1,
            "",
            holds([
                "nobody is there to answer `Deploy to production?`",
                "1 failed, 2 cancelled",
            ]),
        );
        for (keys, code, said) in [("yes\n", 0, "3 ok"), ("no\n", 1, "the answer to")] {
            let run = place.run(text);
            let mut terminal = run.spawn_on_terminal(100, 30);
            terminal.await_screen("Deploy to production? [yes/no]");
            terminal.type_keys(keys);
            let asked_once = move |screen: &str| {
                screen.matches("[yes/no]").count() == 1 && screen.contains(said)
            };
            terminal.expect(code, asked_once);
        }
    }
}

#[test]
fn a_plan_says_when_and_how_often() {
    let path = format!(
        "{}/playbooks/rolling-deploy.yml",
        env!("CARGO_MANIFEST_DIR")
    );
    Fanrun::new(["plan", &path, "--sandbox", "8"]).expect(
        0,
        holds([
            "rollout hosts 1, then 2, then 5; ends after more than 0 failures; 0.2s between them",
            "(once for all hosts)",
            "(unless app/releases/${{ version }}/VERSION exists)",
            "(up to 4 more attempts until 'up' in result.stdout)",
            "(where its block failed, when before.stdout != 'none')",
            "(after its block in any case)",
            "(when notified)",
        ]),
        "",
    );
}

#[test]
fn a_rolling_deploy_goes_back_where_the_new_release_does_not_come_up() {
    let path = format!(
        "{}/playbooks/rolling-deploy.yml",
        env!("CARGO_MANIFEST_DIR")
    );
    let dir = tempfile::tempdir().unwrap();
    let run = Fanrun::new(["run", &path, "--sandbox", "8", "-e", "broken_on=sandbox-1"]);
    let events = events_of(run, dir.path(), 1);
    check_stream(&events);
    let of = |name: &str| {
        let ends = of_type(&events, "task_end").into_iter();
        ends.filter(|end| end["name"] == name)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("health check")[0]["attempts"], 5);
    assert_eq!(of("health check")[0]["rescued"], true);
    assert_eq!(of("say what happened")[0]["cause"], "assert");
    assert_eq!(of("tidy").len(), 1);
    assert_eq!(of("unpack").len(), 1, "no other host was touched");
    let stopped = &events.last().unwrap()["stopped_by"];
    assert_eq!(stopped, "1 host failed; `max_failures` allows 0");
}

#[test]
fn the_language_works_over_a_real_sshd() {
    let sshd = Sshd::builder().addresses(3).start();
    let root = sshd.directory().join("work");
    std::fs::create_dir(&root).unwrap();
    let hosts: String = sshd.addresses().iter().map(|a| format!("{a}\n")).collect();
    let inventory = write(sshd.directory(), "hosts", &hosts);
    let text = format!(
        "hosts: all
vars: {{root: {}}}
env: {{MINE: '${{{{ root }}}}/${{{{ host.name }}}}'}}
rollout: {{batches: [1, 100%]}}
tasks:
  - {{name: folder, run: mkdir -p \"$MINE\", creates: '${{{{ root }}}}/${{{{ host.name }}}}', notify: tell}}
  - {{name: flaky, cwd: '${{{{ root }}}}/${{{{ host.name }}}}', run: '{COUNTING}', retry: {{times: 4, delay: 5ms}}}}
  - block:
      - {{name: bad, run: exit 4, register: bad}}
    rescue:
      - {{name: mend, assert: bad.code == 4}}
  - {{name: each, loop: [a b, \"c'd\"], run: 'touch \"$MINE\"/${{{{ item }}}}'}}
  - {{name: seen, run: 'ls \"$MINE\"', register: seen}}
  - assert: seen.lines == ['a b', \"c'd\", 'tries']
handlers:
  - {{name: tell, print: made}}
",
        root.display()
    );
    let book = write(sshd.directory(), "language.yml", &text);
    let run = || {
        Fanrun::new(["run", &book, "-i", &inventory])
            .options(sshd.fanrun_args())
            .within(Duration::from_secs(60))
    };
    let events = events_of(run(), sshd.directory(), 0);
    check_stream(&events);
    assert_eq!(of_type(&events, "print").len(), 3);
    assert_eq!(of_type(&events, "batch_start").len(), 2);
    let again = events_of(run(), sshd.directory(), 0);
    let folders = of_type(&again, "task_end")
        .into_iter()
        .filter(|e| e["name"] == "folder");
    assert!(
        folders
            .map(|end| &end["status"])
            .all(|status| status == "skipped")
    );
    assert_eq!(
        of_type(&again, "print").len(),
        0,
        "nothing changed, nobody is notified"
    );
}

/// A child that is watched: started again when it fails, over when it is done or fails too often.
#[test]
fn a_watched_child_is_started_again_until_it_dies_too_often() {
    let text = format!(
        "hosts: all
on_failure: continue
tasks:
  - {{name: recovers, local: '{COUNTING}', cwd: FOLDER, restart: {{times: 5, within: 10s}}, register: seen}}
  - {{name: told, assert: seen.attempts == 3 and seen.code == 0}}
  - {{name: dies, local: 'echo up; exit 7', restart: {{times: 2, within: 5s}}}}
  - {{name: missing, local: [no-such-program-here], restart: true}}
  - {{name: slow, local: 'sleep 0.2; exit 1', restart: {{times: 50, within: 1s}}, timeout: 700ms}}
"
    );
    for place in everywhere(1) {
        let folder = place.directory().to_str().unwrap();
        let run = place.run(&text.replace("FOLDER", folder));
        let events = events_of(run, place.directory(), 1);
        check_stream(&events);
        let wanted = [
            "recovers: ok",
            "told: ok",
            "dies: failed",
            "missing: failed",
            "slow: timed_out",
        ];
        assert_eq!(ended(&events, "sandbox-1"), wanted);
        let end = |name: &str| {
            let mut ends = of_type(&events, "task_end").into_iter();
            ends.find(|end| end["name"] == name).unwrap()
        };
        let reason = "it died 3 times within 5s, the last time with exit 7";
        assert_eq!(end("dies")["reason"], reason);
        assert_eq!(end("dies")["attempts"], 3);
        assert!(end("missing")["attempts"].is_null(), "one attempt");
        let lines = of_type(&events, "line").into_iter();
        assert_eq!(lines.filter(|line| line["text"] == "up").count(), 3);
        assert!(of_type(&events, "retry").len() >= 5);
    }
}

/// Ctrl-C ends it, and it is not started again.
#[test]
fn a_watched_child_ends_with_the_run() {
    let mark = crate::processes::marker("watched");
    let text = format!(
        "hosts: localhost\ntasks:\n  - local: 'trap \"exit 1\" TERM; echo {mark}; sleep 1000 & wait'\n    restart: true\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "p.yml", &text);
    let run = Fanrun::new(["run", &path]).spawn();
    run.await_stdout(&mark);
    run.signal(rustix::process::Signal::INT);
    run.expect(rustix::process::Signal::INT, anything, holds(["cancelled"]));
    assert!(crate::processes::with_command(&mark).is_empty());
}

/// One answer for all hosts; no leaves a task out, quit ends the run early, and that is told.
#[test]
fn each_task_can_be_asked_about() {
    let text = "hosts: all
tasks:
  - {name: one, run: echo first}
  - {name: two, run: echo second}
  - {name: three, run: echo third}
  - {name: four, run: echo fourth}
";
    for place in everywhere(2) {
        let answered = |answers: &'static [(&str, &str)], code: i32, words: Vec<&'static str>| {
            let run = place.run(text);
            let mut run = run.options(["--step"]).spawn_on_terminal(100, 40);
            for (task, answer) in answers {
                run.await_screen(&format!("{task}  (2 hosts)  [y]es"));
                run.type_keys(&format!("{answer}\r"));
            }
            run.expect(code, move |screen: &str| {
                let all = ["first", "second", "third", "fourth"];
                let said = |word: &&str| screen.contains(&format!("│ {word}"));
                let said: Vec<&str> = all.into_iter().filter(said).collect();
                said == words
            });
        };
        answered(
            &[
                ("one", "y"),
                ("two", "no"),
                ("three", "what?"),
                ("three", "c"),
            ],
            0,
            vec!["first", "third", "fourth"],
        );
        answered(&[("one", "y"), ("two", "q")], 6, vec!["first"]);
    }
    let (_dir, run) = on_sandbox(1, text);
    run.options(["--step"])
        .expect(2, "", holds(["there is no terminal to ask on"]));
}

/// What was read is what is run: the stream tells its checksums, and a file that is anybody's to
/// change gets a word.
#[test]
fn the_files_of_a_run_are_named_with_their_checksums() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, run) = on_sandbox(1, "hosts: all\ntasks: [{include: more.yml}]\n");
    let more = write(dir.path(), "more.yml", "- 'true'\n");
    let events = events_of(run, dir.path(), 0);
    let files = events[0]["files"].as_array().unwrap();
    assert_eq!(files.len(), 2, "{files:?}");
    for (file, name) in files.iter().zip(["p.yml", "more.yml"]) {
        assert!(file["path"].as_str().unwrap().ends_with(name), "{file}");
        let sum = std::process::Command::new("sha256sum")
            .arg(dir.path().join(name))
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        assert_eq!(sum[..64], *file["sha256"].as_str().unwrap());
    }
    let again = || {
        let path = dir.path().join("p.yml");
        Fanrun::new(["run", path.to_str().unwrap(), "--sandbox", "1"])
    };
    again().expect(0, anything, |text: &str| !text.contains("every user"));
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(Path::new(&more), 0o646);
    let told = holds([
        "warning: every user of this machine can change",
        "more.yml",
        "chmod o-w",
    ]);
    again().expect(0, anything, told);
    mode(Path::new(&more), 0o644);
    mode(dir.path(), 0o777);
    let told = holds([
        "every user of this machine can replace",
        "p.yml",
        "chmod o-w",
    ]);
    again().expect(0, anything, told);
    // As in /tmp: nobody but its owner replaces a file.
    mode(dir.path(), 0o1777);
    again().expect(0, anything, |text: &str| !text.contains("every user"));
}

#[test]
fn a_port_that_opens_ends_the_wait() {
    for place in everywhere(1) {
        let port = crate::sshd::free_port(&[std::net::Ipv4Addr::LOCALHOST]);
        let text = format!(
            "hosts: all
tasks:
  - {{name: port, wait_for: {{port: {port}, address: 127.0.0.1}}, timeout: 20s}}
  - {{name: after, print: it is there}}
"
        );
        let run = place.run(&text);
        let opener = std::thread::spawn(move || {
            // The first look must find nothing.
            std::thread::sleep(Duration::from_millis(300));
            std::net::TcpListener::bind(("127.0.0.1", port)).unwrap()
        });
        let events = events_of(run, place.directory(), 0);
        drop(opener.join().unwrap());
        assert_eq!(ended(&events, "sandbox-1"), ["port: ok", "after: ok"]);
        let took = of_type(&events, "task_end")[0]["took"].as_f64().unwrap();
        assert!(took > 0.2, "{took}");
    }
}

/// Over a real server: conditions are looked at, and no command, script or copy is done.
#[test]
fn a_check_changes_nothing_on_a_real_host() {
    let sshd = Sshd::start();
    let folder = sshd.directory().join("target");
    std::fs::create_dir(&folder).unwrap();
    write(
        sshd.directory(),
        "hello.sh",
        "#!/bin/sh\ntouch made-by-script\n",
    );
    let text = format!(
        "hosts: all
cwd: {folder}
tasks:
  - {{name: run, run: touch made}}
  - {{name: script, script: hello.sh}}
  - {{name: upload, upload: {{src: hello.sh, dest: {folder}/copied}}}}
  - {{name: here, local: 'touch {folder}/made-here'}}
  - {{name: known, assert: host.os != ''}}
  - {{name: becomes, become: true, run: touch made-as-root}}
  - {{name: listed, ls: {folder}, register: seen}}
  - {{name: empty, assert: seen.count == 0}}
",
        folder = folder.display()
    );
    let playbook = write(sshd.directory(), "p.yml", &text);
    let host = format!("{},", sshd.address());
    let run = Fanrun::new(["run", &playbook, "-i", &host, "--check"]).options(sshd.fanrun_args());
    let events = events_of(run, sshd.directory(), 0);
    let wanted = [
        "run: skipped",
        "script: skipped",
        "upload: ok",
        "here: skipped",
        "known: ok",
        "becomes: skipped",
        "listed: ok",
        "empty: ok",
    ];
    assert_eq!(ended(&events, &sshd.address()), wanted);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

/// Its plays stand where it is included, with values of the one who includes it above its own.
#[test]
fn a_playbook_can_be_made_of_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("parts")).unwrap();
    write(dir.path(), "parts/say.sh", "#!/bin/sh\necho said $1\n");
    write(
        dir.path(),
        "parts/hosts.yml",
        "hosts: {here: {connection: local}}\n",
    );
    write(
        dir.path(),
        "parts/web.yml",
        "hosts: all
inventory: hosts.yml
vars: {word: its own, other: kept}
secrets: {key: {env: INCLUDED_KEY}}
tasks:
  - {name: web, script: say.sh, args: ['${{ word }}-${{ other }}']}
  - {name: hidden, run: 'echo ${{ key }}'}
",
    );
    let two = "plays:\n  - include: web.yml\n  - {hosts: here, vars: {word: b}, tasks: [{name: last, print: '${{ word }}'}]}\n";
    write(dir.path(), "parts/two.yml", two);
    let book = "plays:
  - {include: parts/web.yml, vars: {word: given}}
  - include: parts/two.yml
";
    let book = write(dir.path(), "p.yml", book);
    let run = Fanrun::new(["run", &book]).env("INCLUDED_KEY", "c4nary-key");
    let events = events_of(run, dir.path(), 0);
    check_stream(&events);
    let lines: Vec<&Value> = of_type(&events, "line")
        .iter()
        .map(|line| &line["text"])
        .collect();
    assert_eq!(
        lines,
        ["said given-kept", "***", "said its own-kept", "***"]
    );
    assert_eq!(of_type(&events, "print")[0]["text"], "b");
    assert_eq!(of_type(&events, "play_start").len(), 3);
    write(
        dir.path(),
        "parts/two.yml",
        "plays:\n  - include: ../p.yml\n  - {include: x.yml, hosts: a}\n",
    );
    Fanrun::new(["check", &book]).expect(
        2,
        "",
        holds([
            "`include: ../p.yml` includes itself in the end",
            "`include: x.yml` does not exist",
            "unknown key `hosts` in an `include`",
        ]),
    );
}
