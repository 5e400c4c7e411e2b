//! Secrets: where they come from, and that they are seen nowhere, whatever happens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;

use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::sshd::Sshd;

const CANARY: &str = "c4nary/\"q'$x \u{e9}%_Lmnopq7+";
const PASSWORD: &str = "ssh-p4ssword-c4nary";

/// What the canary looks like to somebody who knows how it may be written.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap();
    let mut forms = vec![secret.to_owned(), json[1..json.len() - 1].to_owned()];
    for before in ["", "a", "ab"] {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{before}{secret}"));
        // The characters at its ends depend on what stands around.
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms.push("Lmnopq".into());
    forms
}

fn seen(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let all = forms(CANARY).into_iter().chain([PASSWORD.to_owned()]);
    all.into_iter().find(|form| text.contains(form.as_str()))
}

fn tells(text: &str) -> bool {
    let found = seen(text.as_bytes());
    if let Some(form) = &found {
        eprintln!("the secret is seen as {form:?}");
    }
    found.is_some()
}

fn write(dir: &Path, name: &str, text: &str, mode: u32) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Every ending of a task, with the secret in each place that a playbook has.
const PLAYBOOK: &str = r#"
hosts: all
secrets:
  canary: {SOURCE}
defaults: {on_failure: continue}
tasks:
  - name: it is ok
    run: echo "${{ canary }}"; printf %s ${{ canary }} | base64; printf 'x%s' ${{ canary }} | base64 -w 10
  - name: it fails
    run: echo out "$C"; echo err "$C" >&2; printf '%s' "$C" | od -An -tx1 | tr -d ' \n'; exit 3
    env: {C: "${{ canary }}"}
    register: failed
  - name: its input
    run: fold -w 5
    stdin: "${{ canary }}"
  - name: it takes too long
    run: printf '%s' ${{ canary }}; sleep 100
    timeout: 1s
  - name: it is traced
    run: set -x; true "${{ canary }}"
    shell: [bash, -c]
  - name: it does not parse
    run: echo "${{ canary }}"
    parse: du
  - name: its rows
    run: echo "key=${{ canary }}"
    parse: kv
    table: true
    register: rows
  - name: here
    local: echo "$C" ${{ canary }}; exit 1
    env: {C: "${{ canary }}"}
  - print: "${{ canary }} ${{ failed.stdout }} ${{ canary | tojson }}"
  - assert: canary == "no"
    message: it was ${{ canary }}
  - name: it is retried
    run: echo ${{ canary }}; false
    retry: {times: 1, delay: 10ms, until: "result.stdout == canary ~ 'x'"}
  - name: a file
    upload: {src: PAGE, dest: "DIR/uploaded", template: true}
  - name: a file that cannot be
    upload: {src: PAGE, dest: "DIR/config-0/${{ canary }}"}
  - name: files
    ls: "DIR/${{ canary }}"
  - set: {derived: "${{ canary }}"}
  - when: derived != canary
    run: echo "never"
"#;

/// Looks at every command line on the machine while a run goes on.
fn watched(run: impl FnOnce()) {
    let over = Arc::new(AtomicBool::new(false));
    let watching = Arc::clone(&over);
    let watcher = std::thread::spawn(move || {
        let mut looked = 0;
        while !watching.load(Ordering::Relaxed) {
            for process in processes::all() {
                if let Some(form) = seen(process.command.as_bytes()) {
                    return Err(format!("{form} in {process:?}"));
                }
            }
            looked += 1;
        }
        Ok(looked)
    });
    run();
    over.store(true, Ordering::Relaxed);
    let looked = watcher.join().unwrap().unwrap();
    assert!(looked > 3);
}

fn everything_under(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_under(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

#[test]
fn a_canary_is_seen_nowhere() {
    let sshd = Sshd::start();
    let dir = sshd.directory().join("work");
    fs::create_dir(&dir).unwrap();
    write(&dir, "page", "{{ canary }}\n", 0o600);
    write(&dir, "canary", &format!("{CANARY}\n"), 0o600);
    write(&dir, "hosts", &sshd.address(), 0o600);
    let host = dir.join("hosts").to_str().unwrap().to_owned();
    let sources = [
        "{env: CANARY}",
        "{file: canary}",
        "{command: \"cat canary\"}",
    ];
    let ways: [(&[&str], Option<u16>); 7] = [
        (&["-q"], None),
        (&[], None),
        (&["-v", "--color", "always"], None),
        (&["-vv", "--no-prefix"], None),
        (&["--format", "ndjson"], None),
        (&[], Some(120)),
        (&["-vv"], Some(44)),
    ];
    for (at, (way, columns)) in ways.into_iter().enumerate() {
        let source = sources[at % sources.len()];
        let sinks = dir.join(format!("sinks-{at}"));
        fs::create_dir(&sinks).unwrap();
        let text = PLAYBOOK
            .replace("{SOURCE}", source)
            .replace("PAGE", "page")
            .replace("DIR", sshd.directory().to_str().unwrap());
        let playbook = write(&dir, "play.yml", &text, 0o600);
        let events = sinks.join("events").to_str().unwrap().to_owned();
        let output = sinks.join("output").to_str().unwrap().to_owned();
        let args = [
            "run",
            &playbook,
            "-i",
            &host,
            "--events",
            &events,
            "--output-dir",
            &output,
        ];
        watched(|| {
            let run = Fanrun::new(args)
                .options(sshd.fanrun_args())
                .options(way.iter().copied())
                .env("CANARY", CANARY)
                .within(Duration::from_secs(60));
            let silent = |text: &str| !tells(text);
            match columns {
                None => run.expect(1, silent, silent),
                Some(columns) => run
                    .spawn_on_terminal(columns, 24)
                    .expect(1, |text: &str| !tells(text) && text.contains("***")),
            }
        });
        let written = everything_under(&sinks);
        assert!(written.len() >= 3, "{written:?}");
        for (path, bytes) in written {
            assert_eq!(seen(&bytes), None, "{}", path.display());
        }
        let events = fs::read_to_string(sinks.join("events")).unwrap();
        assert!(events.matches("***").count() > 20, "{events}");
        // The tasks themselves had the real value.
        let uploaded = fs::read_to_string(sshd.directory().join("uploaded")).unwrap();
        assert_eq!(uploaded, format!("{CANARY}\n"));
    }
}

/// Lines keep their numbers and the stream its rules, with secrets over several lines.
#[test]
fn events_stay_whole_around_a_key_of_many_lines() {
    let dir = tempfile::tempdir().unwrap();
    let key: String = (0..30)
        .map(|n| format!("line-{n}-{}\n", "k".repeat(50)))
        .collect();
    write(
        dir.path(),
        "key",
        &format!("-----BEGIN KEY-----\n{key}-----END KEY-----\n"),
        0o600,
    );
    let playbook = "hosts: all
secrets: {key: {file: key}}
tasks:
  - run: 'echo before; echo \"$K\"; echo after; echo \"$K\" | sed \"s/^/   /\"; echo \"$K\" | base64'
    env: {K: \"${{ key }}\"}
";
    let playbook = write(dir.path(), "play.yml", playbook, 0o600);
    let right = |text: &str| {
        let events: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let lines: Vec<&serde_json::Value> = events
            .iter()
            .filter(|event| event["type"] == "line")
            .collect();
        for (at, line) in lines.iter().enumerate() {
            assert_eq!(line["n"], at + 1, "{line}");
        }
        assert!(
            events
                .iter()
                .enumerate()
                .all(|(at, event)| event["seq"] == at)
        );
        assert_eq!(lines[0]["text"], "before");
        assert_eq!(lines[1]["text"], "***");
        assert_eq!(lines[33]["text"], "after");
        assert_eq!(lines[35]["text"], "   ***");
        let encoded = base64::engine::general_purpose::STANDARD.encode("line-7-kkkkkkkkk");
        !text.contains("kkkk") && !text.contains(&encoded[..16]) && lines.len() > 90
    };
    Fanrun::new(["run", &playbook, "--sandbox", "1", "--format", "ndjson"]).expect(0, right, "");
}

#[test]
fn secrets_that_are_not_to_be_had_are_told_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "open", "value", 0o644);
    write(dir.path(), "empty", "\n", 0o600);
    let playbook = "hosts: all
secrets:
  one: {env: NOT_THERE}
  two: {file: missing}
  three: {file: open}
  four: {file: empty}
  five: {command: 'echo no; exit 4'}
  six: {prompt: Password for six}
  unused: {env: NOT_THERE_EITHER}
tasks:
  - run: echo ${{ one }} ${{ two }} ${{ three }} ${{ four }} ${{ five }} ${{ six }}
";
    let playbook = write(dir.path(), "play.yml", playbook, 0o600);
    Fanrun::new(["run", &playbook, "--sandbox", "1"]).expect(
        2,
        "",
        holds([
            "the secret `one` is not to be had: the environment has no `NOT_THERE`",
            "missing: No such file",
            "(mode 0644); `chmod 600` it",
            "the secret `four` is not to be had: it is empty",
            "ended with exit status: 4",
            "there is no terminal to ask on",
        ]),
    );
    let unasked = |text: &str| !text.contains("unused") && !text.contains("is not to be had");
    Fanrun::new(["check", &playbook, "--sandbox", "1"]).expect(0, holds(["ok "]), unasked);
    Fanrun::new(["plan", &playbook, "--sandbox", "1"]).expect(
        0,
        holds(["echo '***' '***'"]),
        unasked,
    );
}

#[test]
fn a_secret_is_asked_for_on_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = "hosts: all
secrets: {word: {prompt: \"The word\"}}
tasks: ['echo \"<${{ word }}>\"; echo ${{ word }} | wc -c']
";
    let playbook = write(dir.path(), "play.yml", playbook, 0o600);
    let mut run = Fanrun::new(["run", &playbook, "--sandbox", "1"]).spawn_on_terminal(100, 30);
    run.await_screen("The word: ");
    let silent = || (!run.echoes()).then_some(());
    processes::await_some("a question", Duration::from_secs(20), silent);
    run.type_keys("typed-c4nary\r");
    run.expect(0, |screen: &str| {
        screen.contains("<***>") && screen.contains(" 13") && !screen.contains("typed-c4nary")
    });
}

/// The password of a login is masked as well: when it is given, and when it is typed.
#[test]
fn the_password_of_a_login_is_masked() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = format!("hosts: all\ntasks: ['echo \"<{PASSWORD}>\"']\n");
    let playbook = write(dir.path(), "play.yml", &playbook, 0o600);
    let given = write(dir.path(), "password", PASSWORD, 0o600);
    // The file's descriptor is opened by the shell that starts the run.
    let mut command = std::process::Command::new("/bin/sh");
    let text = "exec \"$0\" run \"$1\" --sandbox 1 --password-fd 7 7<\"$2\"";
    let output = command
        .args(["-c", text, crate::fanrun::PROGRAM, &playbook, &given])
        .env("HOME", dir.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("<***>"), "{output:?}");
    assert_eq!(seen(&[output.stdout, output.stderr].concat()), None);
}

#[test]
fn the_name_of_a_secret_is_nothing_elses_and_its_value_is_no_argument() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = "hosts:\n  web1: {vars: {on_host: 1}}\n";
    let hosts = write(dir.path(), "hosts.yml", hosts, 0o600);
    let playbook = "hosts: all
vars: {in_play: 1}
secrets:
  given: {env: CANARY}
  in_play: {env: CANARY}
  on_host: {env: CANARY}
  result: {env: CANARY}
  kept: {env: CANARY}
  word: {env: CANARY}
tasks:
  - {run: 'true', register: kept}
  - {run: [echo, '${{ word }}']}
  - {local: [echo, '${{ word }}']}
";
    let playbook = write(dir.path(), "play.yml", playbook, 0o600);
    Fanrun::new(["run", &playbook, "-i", &hosts, "-e", "given=1"])
        .env("CANARY", CANARY)
        .expect(
            2,
            "",
            holds([
                "`-e given`: `given` is a secret of the playbook",
                "`on_host` is a secret, and a variable of the host web1",
                "`kept` is a secret, and given a value by",
                "the secret `word` would stand on a command line",
                "every user of the machine can read it",
            ]),
        );
    // What only shows while it runs is refused then.
    let playbook = "hosts: all
secrets: {word: {env: CANARY}}
tasks:
  - set: {derived: 'x${{ word }}'}
  - {name: leaks, run: [echo, '${{ derived }}']}
";
    let playbook = write(dir.path(), "play.yml", playbook, 0o600);
    watched(|| {
        Fanrun::new(["run", &playbook, "--sandbox", "1"])
            .env("CANARY", CANARY)
            .expect(
                1,
                "",
                holds(["leaks", "a secret would stand on a command line"]),
            );
    });
}

/// What is typed to open a key is a secret from then on, though no playbook declares it.
#[test]
fn a_passphrase_that_is_typed_is_masked() {
    // Not the canary: ssh-keygen takes it as an argument, where another test would find it.
    const TYPED: &str = "an-open-sesame";
    let sshd = Sshd::start();
    let locked = sshd.directory().join("locked");
    fs::copy(sshd.identity(), &locked).unwrap();
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", TYPED, "-f"])
        .arg(&locked)
        .status();
    assert!(made.unwrap().success());
    let playbook = format!("hosts: all\ntasks: ['echo \"<{TYPED}>\"']\n");
    let playbook = write(sshd.directory(), "play.yml", &playbook, 0o600);
    let key = sshd.identity().to_str().unwrap().to_owned();
    let args = sshd.fanrun_args().into_iter().map(|arg| match arg {
        arg if arg == key => locked.to_str().unwrap().to_owned(),
        arg => arg,
    });
    let host = format!("{},", sshd.address());
    let mut run = Fanrun::new(["run", &playbook, "-i", &host])
        .options(args)
        .spawn_on_terminal(100, 30);
    run.await_screen("locked");
    let silent = || (!run.echoes()).then_some(());
    processes::await_some("a question", Duration::from_secs(20), silent);
    run.type_keys(&format!("{TYPED}\r"));
    run.expect(0, |screen: &str| {
        screen.contains("<***>") && !screen.contains(TYPED)
    });
}
