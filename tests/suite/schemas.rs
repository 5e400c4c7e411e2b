//! `fanrun schema` and `fanrun help`: what they print is what the program does.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::fanrun::{Fanrun, PROGRAM, holds};
use crate::sshd::Sshd;

fn said(args: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_line_of_every_run_is_an_event_of_the_schema() {
    let schema: Value = serde_json::from_str(&said(&["schema", "events"])).unwrap();
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let sshd = Sshd::start();
    let folder = sshd.directory().display().to_string();
    let playbook = format!(
        "hosts: all
on_failure: continue
vars: {{folder: {folder}}}
tasks:
  - {{run: 'true', rollout: {{batches: [1, 100%], max_failures: 100%}}}}
  - printf 'a\\nb\\r\\nc\\377'
  - exit 3
  - kill -KILL $$
  - {{run: sleep 100, timeout: 300ms}}
  - {{run: 'df -P /', parse: df, table: true}}
  - {{run: echo x, parse: du}}
  - {{run: 'echo 1.5G\ta', parse: du}}
  - {{run: a, when: 1 == 2}}
  - {{loop: [1, 2], run: 'exit ${{{{ item }}}}', ok_codes: [1]}}
  - {{run: exit 1, retry: {{times: 1, delay: 1ms}}}}
  - {{ls: {{path: '${{{{ folder }}}}', depth: all}}}}
  - {{upload: {{src: big, dest: '${{{{ folder }}}}/copy'}}}}
  - {{upload: {{src: big, dest: '${{{{ folder }}}}/copy', only_changed: true}}}}
  - {{download: {{src: '${{{{ folder }}}}/copy', dest: back/}}}}
  - print: said
  - assert: false
  - {{local: [no-such-program]}}
  - block: [exit 5]
    rescue: ['true']
  - {{wait_for: {{path: /nonexistent/x}}, timeout: 100ms}}
"
    );
    std::fs::write(sshd.directory().join("play.yml"), playbook).unwrap();
    std::fs::write(sshd.directory().join("big"), vec![b'x'; 40 << 20]).unwrap();
    std::os::unix::fs::symlink("big", sshd.directory().join("link")).unwrap();
    let hosts = sshd.directory().join("hosts.yml");
    let list = format!(
        "hosts:\n  good: {{address: 127.0.0.1, port: {port}}}\n  closed: {{address: 127.0.0.1, port: 1}}\n  stranger: {{address: 127.0.0.1, port: {port}, user: nobody-here}}\n",
        port = sshd.port()
    );
    std::fs::write(&hosts, list).unwrap();
    let path = sshd.directory().join("play.yml");
    let mut args = sshd.fanrun_args();
    // The port and the account are the inventory's here.
    args.drain(..4);
    let events = sshd.directory().join("events");
    Fanrun::new(["run", path.to_str().unwrap(), "-i", hosts.to_str().unwrap()])
        .options(args)
        .options(["--events", events.to_str().unwrap()])
        .within(std::time::Duration::from_secs(60))
        .expect(1, |_: &str| true, |_: &str| true);
    let mut seen = BTreeSet::new();
    for line in std::fs::read_to_string(events).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let kind = event["type"].as_str().unwrap().to_owned();
        assert!(validator.is_valid(&event), "{line}");
        seen.insert(kind);
    }
    let rare = ["heartbeat", "diagnostic"];
    let all = schema["oneOf"].as_array().unwrap().iter();
    let all = all.map(|one| one["title"].as_str().unwrap().to_owned());
    let missing: Vec<String> = all
        .filter(|kind| !seen.contains(kind) && !rare.contains(&kind.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(!validator.is_valid(&serde_json::json!({"v": 1, "seq": 0, "t": 0, "type": "x"})));
}

#[test]
fn the_schema_beside_the_playbooks_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/schema.json");
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == said(&["schema", "playbook"]),
        "run `fanrun schema playbook > playbooks/schema.json`"
    );
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let modeline = "# yaml-language-server: $schema=schema.json\n";
            assert!(text.starts_with(modeline), "{}", path.display());
        }
    }
    let inventory: Value = serde_json::from_str(&said(&["schema", "inventory"])).unwrap();
    assert!(jsonschema::draft7::new(&inventory).is_ok());
}

#[test]
fn help_has_pages_and_commands() {
    let all = said(&["--help"]);
    for (page, word) in [
        ("playbook", "delegate_to"),
        ("vars", "human_size"),
        ("parse", "stop_when"),
        ("exit-codes", "128+n"),
        ("events", "run_end"),
        ("ping", "Usage: fanrun ping"),
    ] {
        assert!(said(&["help", page]).contains(word), "{page}");
        assert!(
            page == "ping" || all.contains(&format!("fanrun help {page}")),
            "{page}"
        );
    }
    assert!(said(&["help"]).contains("fanrun help playbook"));
    Fanrun::new(["help", "playbok"]).expect(2, "", holds(["did you mean `playbook`?"]));
    let mut shown = Fanrun::new(["help", "exit-codes"]).spawn_on_terminal(100, 40);
    shown.type_keys("");
    shown.expect(0, holds(["\u{1b}[1mEXIT CODES\u{1b}[0m"]));
}
