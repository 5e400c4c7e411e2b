//! Good and bad playbooks, with everything that is said about them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::job::OnFailure;

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source {
        path: "p.yml".into(),
        text: text.into(),
    })
}

fn no_file(_: &std::path::Path) -> Result<String, String> {
    Err("does not exist".into())
}

fn good(text: &str) -> Playbook {
    let complaints = super::schema::tests::complaints(text).expect("this is YAML");
    assert!(complaints.is_empty(), "{text}\n{}", complaints.join("\n"));
    load(&source(text), &no_file)
        .sound()
        .unwrap_or_else(|found| panic!("{}", told(&found)))
}

/// `line:column message [help]`, one a line.
fn told(found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for d in found {
        let (line, column) = d.at.as_ref().map_or((0, 0), |at| at.line_column());
        let _ = write!(out, "{line}:{column} {}", d.message);
        if let Some(label) = d.at.as_ref().map(|at| &at.label).filter(|l| !l.is_empty()) {
            let _ = write!(out, " ({label})");
        }
        if let Some(help) = &d.help {
            let _ = write!(out, " [{help}]");
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_examples_load() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let playbook = good(&text);
        for play in &playbook.plays {
            for task in &play.tasks {
                if let Action::Script { path, .. } = &task.action {
                    assert!(folder.join(&path.value).is_file(), "{}", path.value);
                }
            }
        }
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "ci-smoke",
            "collect-logs",
            "disk-report",
            "disk-usage",
            "inventory-facts",
            "release",
            "rolling-deploy",
            "sequencer-listing",
            "service-restart",
            "tour",
            "uptime"
        ]
    );
}

#[test]
fn a_whole_playbook() {
    let text = "
name: Deploy
inventory: [hosts.yml, more.ini]
vars: {a: 1, b: [x, 2, true, null], c: {d: e}}
defaults: {user: deploy, timeout: 5m, env: {A: one, B: two}, shell: bash, identity: ~/.ssh/id}
plays:
  - name: first
    hosts: [web1, '@db']
    strategy: linear
    fanout: 3
    user: root
    port: 2222
    connect_timeout: 1.5s
    cwd: /srv
    env: {B: zwei}
    vars: {p: q}
    tasks:
      - uptime
      - 12
      - name: all of it
        run: echo ${{ a }}
        env: {X: '${{ b }}', EMPTY: ''}
        cwd: /tmp
        shell: [sh, -ec]
        stdin: ''
        timeout: 10s
        ok_codes: [3, 0-1]
        on_failure: continue
        register: x
        vars: {t: 1}
  - hosts: {web1: {port: 22}, 'web[2-3]': }
    tasks:
      - run: [ls, -l, '${x}']
      - script: files/x.sh
        args: [a, '${{ a }}']
      - local: date
      - print: hello ${{ x.stdout }}
      - pause: 500ms
";
    let playbook = good(text);
    assert_eq!(playbook.name.as_deref(), Some("Deploy"));
    let inventory: Vec<_> = playbook
        .inventory
        .iter()
        .map(|i| i.value.as_str())
        .collect();
    assert_eq!(inventory, ["hosts.yml", "more.ini"]);
    let vars = serde_json::to_string(&playbook.vars).unwrap();
    assert_eq!(vars, r#"{"a":1,"b":["x",2,true,null],"c":{"d":"e"}}"#);
    let [first, second] = &playbook.plays[..] else {
        panic!("two plays")
    };
    the_first_play(first);
    let Hosts::Inline { entries, at } = &second.hosts else {
        panic!("inline hosts")
    };
    assert_eq!(
        serde_json::to_string(entries).unwrap(),
        r#"{"web1":{"port":22},"web[2-3]":null}"#
    );
    assert_eq!(at.line_column().0, 31);
    assert_eq!(second.strategy, Strategy::Free);
    assert_eq!(second.settings.user.as_ref().unwrap().value, "deploy");
    let kinds: Vec<String> = second
        .tasks
        .iter()
        .map(|t| format!("{:?}", t.action))
        .collect();
    assert!(
        kinds[0].starts_with("Run(Argv([Template(\"ls\"), Template(\"-l\"), Template(\"${x}\")")
    );
    assert!(kinds[1].starts_with("Script { path: Located { value: \"files/x.sh\""));
    assert_eq!(kinds[2], "Local(Shell(Template(\"date\")))");
    assert_eq!(kinds[3], "Print(Template(\"hello ${{ x.stdout }}\"))");
    assert_eq!(kinds[4], "Pause(500ms)");
}

fn the_first_play(play: &Play) {
    assert_eq!(play.name.as_deref(), Some("first"));
    let Hosts::Patterns(patterns) = &play.hosts else {
        panic!("patterns")
    };
    let places: Vec<_> = patterns
        .iter()
        .map(|p| (p.value.as_str(), p.at.line_column()))
        .collect();
    assert_eq!(places, [("web1", (8, 13)), ("@db", (8, 19))]);
    assert_eq!((play.strategy, play.fanout), (Strategy::Linear, Some(3)));
    let settings = &play.settings;
    assert_eq!(settings.user.as_ref().unwrap().value, "root");
    assert_eq!(settings.port, Some(2222));
    assert_eq!(settings.identity, ["~/.ssh/id"]);
    assert_eq!(settings.timeout, Some(Duration::from_secs(300)));
    assert_eq!(settings.connect_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(settings.shell.as_deref().unwrap(), ["bash", "-c"]);
    assert_eq!(settings.cwd.as_ref().unwrap().text(), "/srv");
    let env: Vec<_> = settings
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.text()))
        .collect();
    assert_eq!(env, [("A", "one"), ("B", "zwei")]);
    assert_eq!(play.at.line_column(), (7, 5));
    let task = &play.tasks[2];
    assert_eq!(task.name.as_ref().unwrap().text(), "all of it");
    assert_eq!(task.ok_codes.as_deref(), Some(&[0, 1, 3][..]));
    assert_eq!(task.on_failure, Some(OnFailure::Continue));
    assert_eq!(task.register.as_deref(), Some("x"));
    assert_eq!(task.shell.as_deref().unwrap(), ["sh", "-ec"]);
    assert_eq!(task.stdin.as_ref().unwrap().text(), "");
    assert_eq!(task.env.len(), 2);
    assert_eq!(task.timeout, Some(Duration::from_secs(10)));
    assert_eq!(task.at.line_column(), (20, 9));
    assert_eq!(task.vars["t"], 1);
}

#[test]
fn one_play_at_the_top_keeps_its_vars_once() {
    let playbook = good(
        "name: n\nhosts: all\nvars: {a: 1}\nuser: u\ndefaults: {user: d, port: 7}\ntasks: [true, 'no', ~/x]\n",
    );
    assert_eq!(playbook.vars["a"], 1);
    let play = &playbook.plays[0];
    assert!(play.vars.is_empty());
    assert_eq!(play.name.as_deref(), Some("n"));
    assert_eq!(play.settings.user.as_ref().unwrap().value, "u");
    assert_eq!(play.settings.port, Some(7));
    let texts: Vec<String> = play
        .tasks
        .iter()
        .map(|t| format!("{:?}", t.action))
        .collect();
    assert_eq!(texts[0], "Run(Shell(Template(\"true\")))");
    assert_eq!(texts[2], "Run(Shell(Template(\"~/x\")))");
}

#[test]
fn scalars_keep_what_was_written() {
    let text = "hosts: all\ntasks: [x]\nvars:
  mode: 0644
  version: 1.10
  ratio: 1.5
  no_text: no
  on_text: on
  yes_text: YES
  hex: 0x1F
  big: 123456789012345678901234567890
  neg: -3
  exp: 1e3
  quoted: '12'
  truth: true
  empty:
  tilde: ~
  nan: .nan
  tagged: !!str 7
  date: 2026-01-02
  time: 12:30:45
  block: |
    a
     b
  folded: >-
    a
    b
";
    let vars = serde_json::to_value(good(text).vars).unwrap();
    let wanted = serde_json::json!({
        "mode": "0644", "version": "1.10", "ratio": 1.5, "no_text": "no", "on_text": "on",
        "yes_text": "YES", "hex": "0x1F", "big": "123456789012345678901234567890", "neg": -3,
        "exp": "1e3", "quoted": "12", "truth": true, "empty": null, "tilde": null, "nan": ".nan",
        "tagged": "7", "date": "2026-01-02", "time": "12:30:45", "block": "a\n b\n", "folded": "a b",
    });
    assert_eq!(vars, wanted);
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "hosts: all
vars:
  base: &base {a: 1, b: 2}
  more: {<<: *base, b: 3}
  both: {<<: [*base, {c: 4, a: 9}]}
tasks:
  - &slow {run: a, timeout: 5m}
  - {<<: *slow, run: b}
";
    let playbook = good(text);
    let vars = serde_json::to_value(&playbook.vars).unwrap();
    assert_eq!(vars["more"], serde_json::json!({"b": 3, "a": 1}));
    assert_eq!(vars["both"], serde_json::json!({"a": 1, "b": 2, "c": 4}));
    let task = &playbook.plays[0].tasks[1];
    assert_eq!(task.timeout, Some(Duration::from_secs(300)));
    assert_eq!(format!("{:?}", task.action), "Run(Shell(Template(\"b\")))");
}

#[test]
fn hostile_texts_end_quickly_in_an_error() {
    let mut laughs = String::from(
        "hosts: all\ntasks: [x]\nvars:\n  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n",
    );
    for i in 1..30 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
        laughs.push_str(&format!("  a{i}: &a{i} [{aliases}]\n"));
    }
    let big = "x".repeat(1 << 20);
    let long = format!(
        "hosts: all\ntasks: [x]\nvars:\n  a: &a {big}\n  b: [{}]\n",
        "*a, ".repeat(1000)
    );
    let blocks: String = (0..1000)
        .map(|i| format!("{}a:\n", " ".repeat(i)))
        .collect();
    let chain: String = (1..2000)
        .map(|i| format!("  a{i}: &a{i} [*a{}]\n", i - 1))
        .collect();
    let texts = [
        ("laughs", laughs),
        ("long aliases", long),
        (
            "a chain of aliases",
            format!("hosts: all\ntasks: [x]\nvars:\n  a0: &a0 x\n{chain}"),
        ),
        ("lists", format!("a: {}", "[".repeat(1_000_000))),
        ("mappings", format!("a: {}", "{a: ".repeat(500_000))),
        ("dashes", "- ".repeat(1_000_000)),
        ("keys", "? ".repeat(1_000_000)),
        ("blocks", blocks),
        ("duplicate keys", "a: 1\n".repeat(800_000)),
        (
            "many tasks",
            format!("hosts: all\ntasks:\n{}", "- a\n".repeat(100_000)),
        ),
        (
            "too many tasks",
            format!("hosts: all\ntasks:\n{}", "- a\n".repeat(900_000)),
        ),
        (
            "unknown keys",
            (0..100_000).map(|i| format!("k{i}: 1\n")).collect(),
        ),
        (
            "gaps",
            format!("hosts: all\ntasks:\n- {}", "${{x}}".repeat(500_000)),
        ),
        (
            "open gaps",
            format!("hosts: all\ntasks:\n- {}", "${{".repeat(1_000_000)),
        ),
        (
            "brackets",
            format!(
                "hosts: all\ntasks:\n- 'a ${{{{ {} }}}}'",
                "(".repeat(500_000)
            ),
        ),
        (
            "nots",
            format!(
                "hosts: all\ntasks:\n- 'a ${{{{ {} x y }}}}'",
                "not ".repeat(500_000)
            ),
        ),
        (
            "minuses",
            format!(
                "hosts: all\ntasks:\n- 'a ${{{{ {}x y }}}}'",
                "-".repeat(1_000_000)
            ),
        ),
        (
            "dots",
            format!(
                "hosts: all\ntasks:\n- 'a ${{{{ x{} }}}}'",
                ".a".repeat(500_000)
            ),
        ),
        ("spaces", " ".repeat(4_000_000) + "\u{1}"),
        ("comments", "#\n".repeat(2_000_000)),
        ("a NUL", "hosts: \0\n".into()),
    ];
    for (name, text) in texts {
        let start = Instant::now();
        let found = load(&source(&text), &no_file)
            .sound()
            .map(|_| ())
            .expect_err(name);
        let took = start.elapsed();
        assert!(
            !found.is_empty() && found.len() <= 2 * tree::MAX_FOUND,
            "{name}"
        );
        // The promise is a second in a release build; this one is not optimized.
        assert!(took < Duration::from_secs(8), "{name} took {took:?}");
    }
}

#[test]
fn a_file_that_is_too_large_is_not_looked_into() {
    let text = "#".repeat(usize::try_from(MAX_BYTES).unwrap() + 1);
    let found = load(&source(&text), &no_file)
        .sound()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        told(&found),
        "0:0 `p.yml` is larger than 4 MiB, which is the most a playbook can be\n"
    );
}

/// Nothing that is typed by mistake makes the loader fail otherwise than by a diagnostic.
#[test]
fn edited_playbooks_never_panic() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let tour = include_str!("../../playbooks/tour.yml");
    let bits = [
        "\"", "'", ": ", "- ", "\n", " ", "{", "}", "[", "]", "${{", "}}", "|", ">", "#", "&a ",
        "*a", "<<: ", "é", "\t", "\\", "\r", "!!x ", "---\n", "\u{feff}",
    ];
    let edit = (
        0..tour.len(),
        0_usize..12,
        proptest::sample::select(bits.to_vec()),
    );
    let edits = proptest::collection::vec(edit, 1..4).prop_map(|edits| {
        let mut text = tour.to_owned();
        for (at, cut, bit) in edits {
            let edge = |at: usize| {
                (0..=at)
                    .rev()
                    .find(|&i| text.is_char_boundary(i))
                    .unwrap_or(0)
            };
            let from = edge(at.min(text.len()));
            let to = edge((at + cut).min(text.len()));
            text.replace_range(from..to, bit);
        }
        text
    });
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..EDITED {
        let text = edits.new_tree(&mut runner).unwrap().current();
        if let Err(found) = load(&source(&text), &no_file).sound() {
            assert!(!found.is_empty());
            for at in found.iter().filter_map(|d| d.at.as_ref()) {
                assert!(
                    text.get(at.span.clone()).is_some(),
                    "{:?} in {text:?}",
                    at.span
                );
            }
        }
    }
}

/// Cases of the test above.
const EDITED: usize = 1_500;

/// What `${{ }}` means away from the shell.
mod templates {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let vars = json!({
            "name": "web1", "n": 3, "f": 1.5, "yes": true, "nothing": null, "list": ["a", 1],
            "map": {"key": "v"}, "tricky": "${{ name }} {{ name }}",
        });
        let serde_json::Value::Object(vars) = vars else {
            panic!("a mapping")
        };
        Scope::new(vars)
    }

    fn render(text: &str) -> Result<String, String> {
        Template::parse(text)
            .unwrap()
            .render(&scope())
            .map_err(|e| match e.help {
                Some(help) => format!("{} [{help}]", e.cause),
                None => e.cause.to_string(),
            })
    }

    #[test]
    fn values_are_put_in_once() {
        for (text, wanted) in [
            (
                "plain ${x} {{ name }} $name }}",
                "plain ${x} {{ name }} $name }}",
            ),
            ("${{name}}-${{ n }}", "web1-3"),
            (
                "${{ yes }} ${{ not yes }} ${{ f }} ${{ n + 1 }}",
                "true false 1.5 4",
            ),
            ("${{ map.key }}${{ map['key'] }}${{ list[0] }}", "vva"),
            ("${{ {'a': {'b': 'x}}y'}}.a.b }}", "x}}y"),
            ("${{ '${{' }} x }}", "${{ x }}"),
            ("${{ missing | default('d') }}", "d"),
            ("${{ 'y' if map.x is defined else 'n' }}", "n"),
            ("${{ list | join('+') }}", "a+1"),
            ("${{ map | tojson }}", "{\"key\": \"v\"}"),
            ("${{ tricky }}", "${{ name }} {{ name }}"),
            ("${{ name | raw }}", "web1"),
            ("", ""),
        ] {
            assert_eq!(render(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_an_error() {
        for (text, wanted) in [
            (
                "${{ nmae }}",
                "`nmae` is not defined [did you mean `name`?]",
            ),
            (
                "${{ map.kye }}",
                "`map.kye` is not defined [did you mean `key`?]",
            ),
            ("${{ zzz.a.b }}", "`zzz` is not defined"),
            ("${{ zzz + 1 }}", "`zzz` is not defined"),
            ("${{ nothing }}", "`nothing` has no value (null)"),
            (
                "${{ list }}",
                "`list` is a list, not text [join it: `| join(\" \")`]",
            ),
            (
                "${{ map }}",
                "`map` is a mapping, not text [name one of its entries, or write `| tojson`]",
            ),
        ] {
            assert_eq!(render(text), Err(wanted.to_owned()), "{text}");
        }
        let mut scope = scope();
        scope.set("nul", json!("a\u{0}b"));
        for render in [Template::render, Template::render_shell] {
            let error = render(&Template::parse("echo ${{ nul }}").unwrap(), &scope).unwrap_err();
            assert_eq!(error.cause, RenderCause::Nul("nul".into()));
        }
    }

    #[test]
    fn every_filter_of_the_list_exists() {
        for filter in template::FILTERS.iter().filter(|f| **f != "raw") {
            let text = format!("${{{{ name | {filter} }}}}");
            if let Err(error) = render(&text) {
                assert!(!error.contains("unknown filter"), "{error}");
            }
        }
    }

    #[test]
    fn names_have_places_in_the_source() {
        let text = "hosts: all
tasks:
  - run: |
      # x ${{ comment }}
      echo ${{ one.stdout | trim }} ${{ 'two' ~ two }}
  - run: >-
      echo a
      ${{ three }}

      ${{ four | default('x') }}
  - print: \"\\t\\\"${{ five }}\\\" é ${{ six is defined }}\"
  - run: [a, 'it''s ${{ seven[0] }}']
  - 'echo
    ${{ eight }}'
";
        let playbook = good(text);
        let mut seen = String::new();
        let mut look = |template: &Template| {
            for name in template.names() {
                let at = Diagnostic::error("")
                    .at(&playbook.source, name.span.clone(), "")
                    .at
                    .unwrap();
                let (line, column) = at.line_column();
                let slice = &text[name.span.clone()];
                let _ = writeln!(
                    seen,
                    "{line}:{column} {} {} {slice}",
                    name.path, name.optional
                );
            }
        };
        for task in &playbook.plays[0].tasks {
            match &task.action {
                Action::Run(Line::Shell(t)) | Action::Print(t) => look(t),
                Action::Run(Line::Argv(words)) => words.iter().for_each(&mut look),
                Action::List { .. }
                | Action::Upload(_)
                | Action::Download(_)
                | Action::Script { .. }
                | Action::Local(_)
                | Action::Pause(_)
                | Action::Ask(_)
                | Action::Assert { .. }
                | Action::Set(_)
                | Action::WaitFor(_) => {}
            }
        }
        let wanted = "4:15 comment false comment
5:16 one.stdout false one.stdout
5:49 two false two
8:11 three false three
10:11 four true four
11:21 five false five
11:37 six true six
12:25 seven false seven
14:9 eight false eight
";
        assert_eq!(seen, wanted);
    }
}

/// Real shells read what was rendered, and print back what they understood.
mod shells {
    use std::process::{Command, Stdio};

    use proptest::prelude::any as any_of;
    use proptest::prop_oneof;
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    use super::*;
    use serde_json::json;

    /// Text around the gap, and what the shell must print before and after the value.
    const PLACES: &[(&str, &str, &str, &str)] = &[
        ("bare", "printf '%s\\001' ${{ v }}\n", "", ""),
        (
            "behind text",
            "printf '%s\\001' --name=${{ v }}\n",
            "--name=",
            "",
        ),
        ("between letters", "printf '%s\\001' a${{ v }}b\n", "a", "b"),
        ("before a digit", "printf '%s\\001' 1${{ v }}2\n", "1", "2"),
        ("single", "printf '%s\\001' 'a ${{ v }} b'\n", "a ", " b"),
        ("double", "printf '%s\\001' \"a ${{ v }} b\"\n", "a ", " b"),
        (
            "behind a variable",
            "x=X; printf '%s\\001' $x${{ v }}\n",
            "X",
            "",
        ),
        (
            "behind a quoted variable",
            "x=X; printf '%s\\001' \"$x${{ v }}\"\n",
            "X",
            "",
        ),
        (
            "behind a parameter",
            "printf '%s\\001' \"$1${{ v }}\"\n",
            "",
            "",
        ),
        ("assigned", "x=${{ v }}; printf '%s\\001' \"$x\"\n", "", ""),
        (
            "apostrophe in double",
            "printf '%s\\001' \"it's ${{ v }}\"\n",
            "it's ",
            "",
        ),
        (
            "escaped quote",
            "printf '%s\\001' \\\"${{ v }}\\'\n",
            "\"",
            "'",
        ),
        (
            "substitution",
            "x=$(printf %s. ${{ v }}); printf '%s\\001' \"${x%.}\"\n",
            "",
            "",
        ),
        (
            "quoted substitution",
            "x=\"$(printf '%s.' \"a'${{ v }}\")\"; printf '%s\\001' \"${x%.}\"\n",
            "a'",
            "",
        ),
        (
            "single in substitution",
            "x=\"$(printf '%s.' 'q\"${{ v }}')\"; printf '%s\\001' \"${x%.}\"\n",
            "q\"",
            "",
        ),
        (
            "behind a comment",
            "# it's\nprintf '%s\\001' ${{ v }} # it's too\n",
            "",
            "",
        ),
        ("no comment", "printf '%s\\001' a#'${{ v }}'\n", "a#", ""),
        (
            "case",
            "case ${{ v }} in ${{ v }}) printf '%s\\001' ${{ v }} ;; esac\n",
            "",
            "",
        ),
        (
            "heredoc",
            "cat <<E_O_F; printf '\\001'\n<${{ v }}> it's \"\nE_O_F\n",
            "<",
            "> it's \"\n",
        ),
        (
            "quoted heredoc",
            "cat <<'E_O_F'; printf '\\001'\n<${{ v }}> $x `\\\nE_O_F\n",
            "<",
            "> $x `\\\n",
        ),
        (
            "behind a heredoc",
            "cat >/dev/null <<E_O_F\nit's\nE_O_F\nprintf '%s\\001' ${{ v }}\n",
            "",
            "",
        ),
        (
            "two gaps",
            "printf '%s\\001' ${{ v }}'|'${{ v | upper | lower | replace(v, '') }}\n",
            "",
            "|",
        ),
        (
            "in a comment",
            "printf '%s' # ${{ v }}\nprintf '\\001'\n",
            "\0",
            "",
        ),
    ];

    fn run(shell: &str, script: &str) -> String {
        let mut child = Command::new(shell)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let script = script.to_owned();
        let writer =
            std::thread::spawn(move || std::io::Write::write_all(&mut stdin, script.as_bytes()));
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&out.stderr),
            "",
            "{shell} complained"
        );
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    }

    /// Every value in every place, in one process per shell. The script comes on standard input,
    /// so nothing depends on the length of an argument.
    fn round_trip(values: &[String]) {
        let mut script = String::new();
        let mut expected = Vec::new();
        for value in values {
            let mut scope = Scope::default();
            scope.set("v", json!(value));
            for (name, text, before, after) in PLACES {
                let template = Template::parse_shell(text)
                    .unwrap_or_else(|e| panic!("{name}: {e} {}", e.label));
                let wanted = match (*name, *before) {
                    // The value stands twice, the second time emptied.
                    ("two gaps", _) => format!("{value}|"),
                    (_, "\0") => String::new(),
                    _ => format!("{before}{value}{after}"),
                };
                if *name == "two gaps"
                    && !(value.is_ascii() && value == &value.to_lowercase() && !value.is_empty())
                {
                    continue;
                }
                match template.render_shell(&scope) {
                    Ok(text) => script.push_str(&text),
                    Err(error) => {
                        assert!(
                            matches!(error.cause, RenderCause::Delimiter(..)),
                            "{name}: {error}"
                        );
                        continue;
                    }
                }
                expected.push((*name, value, wanted));
            }
        }
        for shell in ["sh", "bash"] {
            let out = run(shell, &script);
            let got: Vec<&str> = out.split('\u{1}').collect();
            for ((name, value, wanted), got) in expected.iter().zip(&got) {
                assert_eq!(got, wanted, "{shell}, {name}, {value:?}");
            }
            assert_eq!(got.len(), expected.len() + 1, "{shell}");
        }
    }

    #[test]
    fn nasty_values_come_back_unchanged() {
        let nasty = [
            "",
            " ",
            "a b",
            "'",
            "''",
            "'\"'",
            "\"",
            "\\",
            "\\\\",
            "a\\",
            "$",
            "$HOME",
            "${HOME}",
            "$(id)",
            "`id`",
            "!",
            "!!",
            "a!b",
            "*",
            "?",
            "[a]",
            "~",
            "~root",
            "#",
            "# x",
            "-n",
            "--",
            "-e",
            ";",
            "; id",
            "&",
            "|",
            "<",
            ">",
            ">x",
            "(",
            ")",
            "{",
            "}",
            "{a,b}",
            "{1..3}",
            "1..3",
            "..",
            ".",
            "\n",
            "a\n",
            "\na",
            "a\n\nb",
            "\t",
            "\r",
            "\r\n",
            "E_O_F",
            "\nE_O_F\n",
            "E_O_F\nid",
            "$(echo '`",
            "'; id; '",
            "\"; id; \"",
            "%s",
            "%",
            "if",
            "then",
            "done",
            "2",
            "=",
            "a=b",
            "^",
            "é",
            "日本語",
            "${{ v }}",
            "{{ v }}",
            "\u{7f}",
            "\u{1b}[31m",
            "$'a'",
            "<<E",
            "x\\\ny",
            "EOF",
        ];
        let values: Vec<String> = nasty.iter().map(|s| (*s).to_owned()).collect();
        round_trip(&values);
    }

    #[test]
    fn any_value_comes_back_unchanged() {
        let mut runner = TestRunner::deterministic();
        let any = proptest::collection::vec(
            prop_oneof![
                3 => proptest::sample::select(
                    "'\"\\$`!*?[]{}()<>;&|#~=-\n\t ,.:%@+^/aEOFx019é".chars().collect::<Vec<_>>()
                ),
                1 => any_of::<char>().prop_filter("not the marks", |c| !matches!(c, '\0' | '\u{1}')),
            ],
            0..12,
        );
        let values: Vec<String> = (0..400)
            .map(|_| {
                any.new_tree(&mut runner)
                    .unwrap()
                    .current()
                    .into_iter()
                    .collect()
            })
            .collect();
        round_trip(&values);
    }

    #[test]
    fn a_list_becomes_words() {
        let mut scope = Scope::default();
        scope.set("l", json!(["a b", "", "it's", "$x", 7, true, "if"]));
        scope.set("empty", json!([]));
        let template =
            Template::parse_shell("printf '<%s>' ${{ l }}; f() { echo $#; }; f ${{ empty }}\n")
                .unwrap();
        let script = template.render_shell(&scope).unwrap();
        for shell in ["sh", "bash"] {
            assert_eq!(run(shell, &script), "<a b><><it's><$x><7><true><if>0\n");
        }
    }

    #[test]
    fn a_list_stands_alone_or_not_at_all() {
        let mut scope = Scope::default();
        scope.set("l", json!(["a", "b"]));
        for text in [
            "echo x=${{ l }}",
            "echo '${{ l }}'",
            "echo \"${{ l }}\"",
            "cat > ${{ l }}",
            "cat <<E\n${{ l }}\nE\n",
        ] {
            let error = Template::parse_shell(text)
                .unwrap()
                .render_shell(&scope)
                .unwrap_err();
            assert_eq!(error.to_string(), "`l` is a list, not text", "{text}");
        }
        let joined = Template::parse_shell("echo x=${{ l | join(',') }}").unwrap();
        assert_eq!(joined.render_shell(&scope).unwrap(), "echo x='a,b'");
    }

    #[test]
    fn quotes_only_where_needed() {
        let mut scope = Scope::default();
        for (value, text, wanted) in [
            ("web1", "echo ${{ v }}", "echo web1"),
            ("shop", "cd /srv/${{ v }}/x", "cd /srv/shop/x"),
            ("if", "echo ${{ v }}", "echo 'if'"),
            ("f", "i${{ v }} x", "i'f' x"),
            ("2", "echo ${{ v }}>x", "echo '2'>x"),
            ("root", "echo ~${{ v }}", "echo ~'root'"),
            ("x; id", "echo ${{ v | raw }}", "echo x; id"),
        ] {
            scope.set("v", json!(value));
            assert_eq!(
                Template::parse_shell(text)
                    .unwrap()
                    .render_shell(&scope)
                    .unwrap(),
                wanted
            );
        }
    }

    #[test]
    fn a_value_cannot_end_its_heredoc() {
        let mut scope = Scope::default();
        for (text, value) in [
            ("cat <<EOF\n${{ v }}\nEOF\n", "a\nEOF\nb"),
            ("cat <<EOF\n${{ v }}\nEOF\n", "EOF"),
            ("cat <<'EOF'\nE${{ v }}\nEOF\n", "OF"),
            ("cat <<'EOF'\n${{ v }}F\nEOF\n", "x\nEO"),
            ("cat <<-EOF\n\t${{ v }}\nEOF\n", "x\n\t\tEOF\n"),
            ("cat <<EOF\nE${{ 'O' }}${{ v }}\nEOF\n", "F"),
        ] {
            scope.set("v", json!(value));
            let error = Template::parse_shell(text)
                .unwrap()
                .render_shell(&scope)
                .unwrap_err();
            assert!(
                matches!(error.cause, RenderCause::Delimiter(..)),
                "{text} {error}"
            );
        }
        scope.set("v", json!("a\nb"));
        let error = Template::parse_shell("cat <<EOF ${{ v }}\nEOF\n")
            .unwrap()
            .render_shell(&scope)
            .unwrap_err();
        assert!(matches!(error.cause, RenderCause::Newline(_)));
    }

    #[test]
    fn uncertain_places_are_refused() {
        for text in [
            "echo `echo ${{ v }}`",
            "echo $((1 + ${{ v }}))",
            "echo \"$((1 + ${{ v }}))\"",
            "((x = ${{ v }}))",
            "echo $[ ${{ v }} ]",
            "echo ${x:-${{ v }}}",
            "echo \"${x:-${{ v }}}\"",
            "echo \"${x:-'}\" ${{ v }}",
            "echo $'${{ v }}'",
            "echo $'\\'' ${{ v }}",
            "echo \\${{ v }}",
            "echo \"\\${{ v }}\"",
            "echo $${{ v }}",
            "echo \"$${{ v }}\"",
            "echo 'it' 's ${{ v }}",
            "echo it's ${{ v }}",
            "echo \"$(echo ${{ v }}\"",
            "eval ${{ v }}",
            "if eval \"echo ${{ v }}\"; then :; fi",
            "eval \"$(printf %s ${{ v }})\"",
            "let x=${{ v }}",
            "sh -c 'echo ${{ v }}'",
            "sudo bash -ec \"echo ${{ v }}\"",
            "[[ ${{ v }} -eq 1 ]]",
            "[[ $x == 1 && $x -lt ${{ v }} ]]",
            "x=$(case a in a) echo ;; esac; echo ${{ v }})",
            "cat <<${{ v }}\nx\n",
            "cat <<EOF\n$x${{ v }}\nEOF\n",
            "cat <<EOF\n$(echo ${{ v }})\nEOF\n",
            "cat <<EOF\n`echo ${{ v }}`\nEOF\n",
            "cat <<EOF\n\\${{ v }}\nEOF\n",
            "cat <<EOF\nE\\\n${{ v }}\nEOF\n",
            "x=$(cat <<EOF\n${{ v }}\nEOF\n)",
            "echo $((echo a); echo ${{ v }})",
            "x=((${{ v }})",
            "x=(; ${{ v }})",
            "\\eval ${{ v }}",
            "'eval' ${{ v }}",
            ">x $y'eval' ${{ v }}",
        ] {
            let error = Template::parse_shell(text).expect_err(text);
            assert!(
                error.message.contains("cannot be escaped for certain"),
                "{text}: {error}"
            );
            assert!(!error.label.is_empty());
            let raw = text.replace(" v }}", " v | raw }}");
            assert!(Template::parse_shell(&raw).is_ok(), "{raw}");
        }
    }

    #[test]
    fn certain_places_are_accepted() {
        for text in [
            "sh -c 'echo \"$1\"' sh ${{ v }}",
            "sh -c 'echo'; echo ${{ v }}",
            "eval x; echo ${{ v }}",
            "[[ $x == ${{ v }} ]]",
            "[[ 1 -eq 1 ]]; echo ${{ v }}",
            "echo $$${{ v }}",
            "echo $((1 + 1)) ${{ v }}",
            "echo `date` ${{ v }}",
            "echo ${x:-a} \"${y#*/}\" ${{ v }}",
            "for i in ${{ v }}; do echo $i; done",
            "case ${{ v }} in a) echo ${{ v }};; esac",
            "cat <<< ${{ v }}",
            "diff <(echo ${{ v }}) x",
            "x=(a ${{ v }} b); echo ${{ v }}",
            "awk '{ print $1 }' ${{ v }}",
        ] {
            assert!(Template::parse_shell(text).is_ok(), "{text}");
        }
    }

    /// Texts put together at random, most of them nonsense. Whatever is accepted must not let a
    /// value be run: `PWN` is a program that leaves a file behind.
    #[test]
    fn no_accepted_text_runs_its_values() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        let work = folder.path().join("work");
        let canary = folder.path().join("canary");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(&work).unwrap();
        let program = bin.join("PWN");
        std::fs::write(&program, format!("#!/bin/sh\n: > {}\n", canary.display())).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, executable).unwrap();
        let path = format!("{}:/usr/bin:/bin", bin.display());

        let pieces = [
            "${{ v }}",
            "${{ v }}",
            "${{ v }}",
            "'",
            "'",
            "\"",
            "\"",
            "\\",
            "$",
            "$(",
            "$(echo ",
            ")",
            ")",
            "`",
            "${x",
            "${x:-",
            "}",
            "$((",
            "))",
            "((",
            "#",
            " # ",
            " ",
            " ",
            "\n",
            "\n",
            "a",
            "x=",
            "$x",
            "$1",
            "echo ",
            "cat <<E\n",
            "cat <<'E'\n",
            "cat <<-E ",
            "\nE\n",
            "\n\tE\n",
            "E",
            ";",
            "|",
            "&&",
            "(",
            "{ ",
            "; }",
            "eval ",
            "let ",
            "[[ ",
            " ]]",
            " -eq ",
            "$'",
            "$\"",
            "case a in ",
            "a) ",
            ";; ",
            "esac",
            "if true; then ",
            "; fi",
            "for i in ",
            "; do ",
            "; done",
            "!",
            "~",
            "=",
            "<<<",
            "$[",
            "]",
            "$$",
        ];
        let values = [
            "x;PWN;",
            "$(PWN)",
            "`PWN`",
            "'$(PWN)'",
            "\"$(PWN)\"",
            "' ;PWN; '",
            "\" ;PWN; \"",
            "\nPWN\n",
            "E\nPWN\n",
            "\nE\nPWN\n",
            ")PWN",
            "}PWN",
            ") ;PWN;",
            "));PWN;",
            "\\';PWN;",
            "\\\";PWN;",
            "a[$(PWN)]",
            "]];PWN",
            "fi;PWN",
            ";;esac;PWN",
            "`PWN",
            "\\",
            "'",
            "\"",
            "\n\tE\nPWN\n",
            "&PWN&",
            "PWN)",
            "'\nE\n$(PWN)\n",
        ];
        let text = proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 1..14);
        let value = proptest::sample::select(values.to_vec());
        let mut runner = TestRunner::deterministic();
        let mut ran = 0;
        while ran < CASES {
            let text = text.new_tree(&mut runner).unwrap().current().concat();
            let value = value.new_tree(&mut runner).unwrap().current();
            let mut scope = Scope::default();
            scope.set("v", json!(value));
            if !text.contains("${{") {
                continue;
            }
            let Ok(script) = Template::parse_shell(&text)
                .map_err(|_| ())
                .and_then(|t| t.render_shell(&scope).map_err(|_| ()))
            else {
                continue;
            };
            ran += 1;
            for shell in ["sh", "bash"] {
                let mut command = Command::new(shell);
                command
                    .arg("-c")
                    .arg(&script)
                    .env_clear()
                    .env("PATH", &path)
                    .current_dir(&work);
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                command.status().unwrap();
                assert!(
                    !canary.exists(),
                    "{shell} ran the value {value:?} of {text:?}: {script:?}"
                );
            }
        }
    }

    /// Cases of the test above; each takes two processes.
    const CASES: usize = 500;

    #[test]
    fn deep_nesting_is_refused_quickly() {
        for open in ["$(", "${", "$((", "\"$(", "`", "[[ ", "<<a "] {
            let text = format!("{} ${{{{ v }}}}", open.repeat(100_000));
            let start = Instant::now();
            let _ = Template::parse_shell(&text);
            assert!(start.elapsed() < Duration::from_secs(2), "{open}");
        }
    }
}

/// Bad playbooks: the text, and everything that is said about it.
mod bad {
    use super::*;

    fn check(text: &str) -> String {
        load(&source(text), &no_file)
            .sound()
            .map_or_else(|found| told(&found), |_| "accepted\n".to_owned())
    }

    /// Mistakes that are not of form, and so not for a schema: what a diagnostic of each holds.
    const UNSEEN: &[&str] = &[
        "stands where its value cannot be escaped",
        "`quote` would quote a second time",
        "cannot be escaped for `fish`",
        "is not an expression",
        "unknown filter",
        "`${{` is never closed",
        "nothing stands between `${{` and `}}`",
        "contains a NUL character",
        "`loop` needs a list",
        "does not exist",
        "no handler is named",
        "is a secret and a variable",
        "which a name cannot have",
        "no column is named",
        "without a header the columns have no names",
        "`aligned` columns stand below their header",
        "an earlier task says how the table",
    ];

    /// The schema refuses what the parser refuses, unless all that is wrong lies deeper.
    #[test]
    fn a_schema_comes_to_the_same_verdict() {
        let (mut refused, mut used) = (0, BTreeSet::new());
        for (text, wanted) in CASES {
            let Some(complaints) = super::super::schema::tests::complaints(text) else {
                continue;
            };
            if !complaints.is_empty() {
                refused += 1;
                continue;
            }
            for said in *wanted {
                let deep = UNSEEN.iter().find(|unseen| said.contains(**unseen));
                let deep = deep.unwrap_or_else(|| panic!("a schema could see {said}\n{text}"));
                used.insert(deep);
            }
        }
        assert!(refused > 120, "{refused}");
        let idle: Vec<_> = UNSEEN
            .iter()
            .filter(|unseen| !used.contains(unseen))
            .collect();
        assert!(idle.is_empty(), "{idle:?}");
    }

    #[test]
    fn everything_is_said_at_once_and_at_its_place() {
        for (text, wanted) in CASES {
            let said = check(text);
            let said: Vec<&str> = said.lines().collect();
            assert_eq!(said, *wanted, "{text}");
        }
    }

    const CASES: &[(&str, &[&str])] = &[
        (
            "hosts: all\ntasks:\n  - run: a\n    restart: true\n  - local: b\n    restart: {times: 3}\n    retry: 2\n",
            &[
                "4:5 `restart` goes with `local` [a command on a host is tried again with `retry`]",
                "6:5 `restart` and `retry` are two ways to begin again [`restart` is for a child that is to run on, `retry` for one that is to succeed]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - local: b\n    restart: {times: 0}\n  - local: b\n    restart: {within: 10}\n  - local: b\n    restart: 5\n  - local: b\n    restart: {every: 1s}\n",
            &[
                "4:22 `times` must be a number from 1 to 10000, not `0`",
                "6:23 `within: 10` has no unit [did you mean `10s`?]",
                "8:14 `restart` cannot be `5` [one of: true, false]",
                "10:15 unknown key `every` in `restart` [allowed here: times, within]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: 'echo ${{ x | quote }} \"${{ x | upper | quote }}\"'\n    vars: {x: a b}\n",
            &[
                "3:16 in shell text `quote` would quote a second time [values are escaped for the place where they stand: leave it out]",
                "3:34 in shell text `quote` would quote a second time [values are escaped for the place where they stand: leave it out]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    loop: 3\n",
            &[
                "4:11 `loop` needs a list, and `3` is none [write `loop: [a, b]`, `loop: x.lines` or `loop: range(3)`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    loop: true\n",
            &[
                "4:11 `loop` needs a list, and `true` is none [write `loop: [a, b]`, `loop: x.lines` or `loop: range(3)`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    loop: '\"abc\"'\n",
            &[
                "4:11 `loop` needs a list, and `\"abc\"` is none [write `loop: [a, b]`, `loop: x.lines` or `loop: range(3)`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    register: item\n  - run: uptime\n    register: result\n  - set: {loop: 1}\n",
            &[
                "4:15 `item` cannot be the name of a variable [the word has a meaning in expressions]",
                "6:15 `result` cannot be the name of a variable [the word has a meaning in expressions]",
                "7:11 `loop` cannot be the name of a variable [the word has a meaning in expressions]",
            ],
        ),
        (
            "hosts: all\nvars: {host: a}\ntasks:\n  - run: uptime\n    vars: {row: 1}\n",
            &[
                "2:8 `host` cannot be the name of a variable [the word has a meaning in expressions]",
                "5:12 `row` cannot be the name of a variable [the word has a meaning in expressions]",
            ],
        ),
        (
            "hosts: all\nrollout: {batches: []}\ntasks: [uptime]\n",
            &["2:20 `batches` is an empty list"],
        ),
        (
            "hosts: all\nrollout: {batches: [0]}\ntasks: [uptime]\n",
            &[
                "2:21 `batches` cannot be `0` [a number of hosts such as `3`, or a part of them such as `25%`]",
            ],
        ),
        (
            "hosts: all\nrollout: {batches: [1, 150%]}\ntasks: [uptime]\n",
            &[
                "2:24 `batches` cannot be `150%` [a number of hosts such as `3`, or a part of them such as `25%`]",
            ],
        ),
        (
            "hosts: all\nrollout: {max_failures: x}\ntasks: [uptime]\n",
            &[
                "2:25 `max_failures` cannot be `x` [a number of hosts such as `3`, or a part of them such as `25%`]",
            ],
        ),
        (
            "hosts: all\nrollout: 25%\ntasks: [uptime]\n",
            &["2:10 `rollout` must be a mapping, not text"],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    retry: -1\n",
            &["4:12 `retry` must be a number from 1 to 10000, not `-1`"],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    retry: {times: 3, delay: 5}\n",
            &["4:30 `delay: 5` has no unit [did you mean `5s`?]"],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    retry: {delay: 5s}\n",
            &["4:13 `retry` has no `times` [say how often: `retry: {times: 5}`]"],
        ),
        (
            "hosts: all\ntasks:\n  - wait_for: {port: 99999}\n",
            &["3:22 `port` must be a number from 1 to 65535, not `99999`"],
        ),
        (
            "hosts: all\ntasks:\n  - wait_for: {port: 22, path: /x}\n",
            &[
                "3:16 `wait_for` waits for one thing [write `connection`, `{port: 8080}` or `{path: /run/app.pid}`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - wait_for: reboot\n",
            &[
                "3:15 `wait_for` cannot be `reboot` [write `connection`, `{port: 8080}` or `{path: /run/app.pid}`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - pause: 30\n",
            &["3:12 `pause: 30` has no unit [did you mean `30s`?]"],
        ),
        (
            "hosts: all\ntasks:\n  - pause: {question: Go on?}\n",
            &["3:13 unknown key `question` in `pause` [allowed here: ask]"],
        ),
        (
            "hosts: all\ntasks:\n  - assert: []\n",
            &["3:13 `assert` is an empty list"],
        ),
        (
            "hosts: all\ntasks:\n  - assert: {that: x}\n",
            &[
                "3:14 `assert` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - set: [a]\n",
            &["3:10 `set` must be a mapping, not a list"],
        ),
        (
            "hosts: all\ntasks:\n  - set: {1a: x}\n",
            &[
                "3:11 `1a` cannot be the name of a variable [letters, digits and `_`, not beginning with a digit: `_1a`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - block: []\n",
            &["3:12 `block` is empty"],
        ),
        (
            "hosts: all\ntasks:\n  - block: [uptime]\n    register: x\n",
            &[
                "4:5 unknown key `register` in a block [it is a key of a task; allowed here: name, block, rescue, always, when, tags, vars]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - rescue: [uptime]\n",
            &["3:5 `rescue` goes with `block`"],
        ),
        (
            "hosts: all\ntasks:\n  - include: [a.yml]\n",
            &["3:14 `include` must be text, not a list"],
        ),
        (
            "hosts: all\ntasks:\n  - include: missing.yml\n",
            &["3:14 `include: missing.yml` does not exist"],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    notify: restart\n",
            &["4:13 no handler is named `restart` [define it under `handlers:` of the play]"],
        ),
        (
            "hosts: all\nhandlers:\n  - run: uptime\ntasks: [uptime]\n",
            &[
                "3:5 a handler needs a plain `name` [`notify` finds it by its name: `name: restart app`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    tags: {a: 1}\n",
            &[
                "4:12 `tags` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    once: maybe\n",
            &["4:11 `once` cannot be `maybe` [one of: true, false]"],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    fanout: 0\n",
            &["4:13 `fanout` must be a number from 1 to 100000, not `0`"],
        ),
        (
            "hosts: all\ntasks:\n  - run: uptime\n    when: x ==\n",
            &[
                "4:11 `when`: `x ==` is not an expression: unexpected end of input, expected expression",
            ],
        ),
        (
            "",
            &["1:1 the playbook is empty [the smallest one has `hosts:` and `tasks:`]"],
        ),
        (
            "# only a comment\n",
            &["1:1 the playbook is empty [the smallest one has `hosts:` and `tasks:`]"],
        ),
        (
            "just text\n",
            &["1:1 a playbook is a mapping, not text [the smallest one has `hosts:` and `tasks:`]"],
        ),
        (
            "- hosts: all\n  tasks: [uptime]\n",
            &["1:1 a playbook is a mapping, not a list [put the list under `plays:`]"],
        ),
        (
            "hosts: all\n",
            &["1:1 the play has no `tasks` [list its commands: `tasks: [uptime]`]"],
        ),
        (
            "tasks: [uptime]\n",
            &[
                "1:1 the play has no `hosts` [name them: `hosts: web[1-3].example.com`, `hosts: all`, `hosts: localhost`]",
            ],
        ),
        (
            "name: x\n",
            &[
                "1:1 the play has no `hosts` [name them: `hosts: web[1-3].example.com`, `hosts: all`, `hosts: localhost`]",
                "1:1 the play has no `tasks` [list its commands: `tasks: [uptime]`]",
            ],
        ),
        ("hosts: all\ntasks: []\n", &["2:8 `tasks` is empty"]),
        (
            "hosts: all\ntasks:\n",
            &["2:6 `tasks` must be a list, not nothing"],
        ),
        (
            "hosts: all\ntasks: uptime\n",
            &["2:8 `tasks` must be a list, not text"],
        ),
        (
            "hosts: []\ntasks: [uptime]\n",
            &["1:8 `hosts` is an empty list"],
        ),
        (
            "hosts: {}\ntasks: [uptime]\n",
            &["1:8 `hosts` is an empty mapping"],
        ),
        (
            "hosts: ''\ntasks: [uptime]\n",
            &["1:8 `hosts` has no value"],
        ),
        (
            "hosts: [web1, [web2]]\ntasks: [uptime]\n",
            &["1:15 `hosts` must be text, not a list"],
        ),
        (
            "hosts: {web1: deploy}\ntasks: [uptime]\n",
            &[
                "1:15 host `web1` must have a mapping of settings or nothing, not text [write it like `web1: {user: deploy, port: 2222}`]",
            ],
        ),
        (
            "hosts: ${{ target }}\ntasks: [uptime]\n",
            &["1:8 `hosts` cannot hold `${{ }}`: it is read before there are variables"],
        ),
        (
            "hosts: all\ntsaks: [uptime]\n",
            &[
                "1:1 the play has no `tasks` [list its commands: `tasks: [uptime]`]",
                "2:1 unknown key `tsaks` in a playbook [did you mean `tasks`?]",
            ],
        ),
        (
            "hosts: all\ntasks: [uptime]\nfoo: 1\n",
            &[
                "3:1 unknown key `foo` in a playbook [allowed here: name, inventory, vars, secrets, defaults, handlers, plays, hosts, strategy, fanout, tasks, rollout, user, port, identity, become, env, cwd, shell, timeout, connect_timeout, on_failure]",
            ],
        ),
        (
            "hosts: all\nhosts: web\ntasks: [uptime]\n",
            &["2:1 `hosts` is written twice [it is already on line 1; keep one]"],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    run: b\n    nmae: c\n    timeout: 5\n",
            &[
                "4:5 `run` is written twice [it is already on line 3; keep one]",
                "5:5 unknown key `nmae` in a task [did you mean `name`?]",
                "6:14 `timeout: 5` has no unit [did you mean `5s`?]",
            ],
        ),
        (
            "hosts: all\ntasks: [uptime]\nplays: []\n",
            &[
                "1:1 `hosts` cannot stand beside `plays` [the file has `plays`, so the key belongs inside one of them]",
                "2:1 `tasks` cannot stand beside `plays` [the file has `plays`, so the key belongs inside one of them]",
                "3:8 `plays` is empty",
            ],
        ),
        (
            "plays:\n  - hosts: all\n    tasks: [uptime]\n    inventory: x\n  - tasks: [uptime]\n",
            &[
                "4:5 unknown key `inventory` in a play [it is a key of a playbook; allowed here: name, hosts, strategy, fanout, vars, tasks, rollout, handlers, user, port, identity, become, env, cwd, shell, timeout, connect_timeout, on_failure]",
                "5:5 the play has no `hosts` [name them: `hosts: web[1-3].example.com`, `hosts: all`, `hosts: localhost`]",
            ],
        ),
        (
            "plays: {}\n",
            &["1:8 `plays` must be a list, not a mapping"],
        ),
        (
            "plays:\n  - uptime\n",
            &["2:5 a play is a mapping, not text"],
        ),
        (
            "hosts: all\nstrategy: linaer\ntasks: [uptime]\n",
            &["2:11 `strategy` cannot be `linaer` [did you mean `linear`?]"],
        ),
        (
            "hosts: all\nstrategy: fast\ntasks: [uptime]\n",
            &["2:11 `strategy` cannot be `fast` [one of: free, linear]"],
        ),
        (
            "hosts: all\nfanout: 0\ntasks: [uptime]\n",
            &["2:9 `fanout` must be a number from 1 to 100000, not `0`"],
        ),
        (
            "hosts: all\nfanout: many\ntasks: [uptime]\n",
            &["2:9 `fanout` must be a number from 1 to 100000, not `many`"],
        ),
        (
            "hosts: all\nport: 65536\ntasks: [uptime]\n",
            &["2:7 `port` must be a number from 1 to 65535, not `65536`"],
        ),
        (
            "hosts: all\nport: 022x\ntasks: [uptime]\n",
            &["2:7 `port` must be a number from 1 to 65535, not `022x`"],
        ),
        (
            "hosts: all\ntimeout: 30\ntasks: [uptime]\n",
            &["2:10 `timeout: 30` has no unit [did you mean `30s`?]"],
        ),
        (
            "hosts: all\ntimeout: 30 minutes\ntasks: [uptime]\n",
            &[
                "2:10 `timeout: 30 minutes` is not a duration [write it like `500ms`, `30s`, `5m`, `1h30m` or `2d`]",
            ],
        ),
        (
            "hosts: all\ntimeout: 0s\ntasks: [uptime]\n",
            &["2:10 `timeout` must be longer than nothing [leave the key out for no limit]"],
        ),
        (
            "hosts: all\ndefaults: {timeout: 5x, usr: root, conect_timeout: 5s}\ntasks: [uptime]\n",
            &[
                "2:21 `timeout: 5x` is not a duration [write it like `500ms`, `30s`, `5m`, `1h30m` or `2d`]",
                "2:25 unknown key `usr` in `defaults` [did you mean `user`?]",
                "2:36 unknown key `conect_timeout` in `defaults` [did you mean `connect_timeout`?]",
            ],
        ),
        (
            "hosts: all\ndefaults: {jump: bastion}\njump: bastion\ntasks: [uptime]\n",
            &[
                "2:12 `jump` is part of the playbook language but this version cannot do it yet",
                "3:1 `jump` is part of the playbook language but this version cannot do it yet",
            ],
        ),
        (
            "hosts: all\nsecrets: [a]\ntasks: [uptime]\n",
            &["2:10 `secrets` must be a mapping, not a list"],
        ),
        (
            "hosts: all\nsecrets: {pw: hunter2}\ntasks: [uptime]\n",
            &[
                "2:15 the secret `pw` stands in the playbook [say where it comes from: `{env: NAME}`, `{file: PATH}`, `{command: \"pass show x\"}` or `{prompt: \"Password for x\"}`]",
            ],
        ),
        (
            "hosts: all\nsecrets: {pw: {env: A, file: b}}\ntasks: [uptime]\n",
            &[
                "2:16 the secret `pw` comes from one place [say where it comes from: `{env: NAME}`, `{file: PATH}`, `{command: \"pass show x\"}` or `{prompt: \"Password for x\"}`]",
            ],
        ),
        (
            "hosts: all\nsecrets: {pw: {vault: a}}\ntasks: [uptime]\n",
            &["2:16 unknown key `vault` in a secret [allowed here: env, file, command, prompt]"],
        ),
        (
            "hosts: all\nsecrets: {pw: {}}\ntasks: [uptime]\n",
            &[
                "2:15 the secret `pw` comes from one place [say where it comes from: `{env: NAME}`, `{file: PATH}`, `{command: \"pass show x\"}` or `{prompt: \"Password for x\"}`]",
            ],
        ),
        (
            "hosts: all\nsecrets: {my-pw: {env: A}}\ntasks: [uptime]\n",
            &[
                "2:11 `my-pw` cannot be the name of a secret [letters, digits and `_`, not beginning with a digit: `my_pw`]",
            ],
        ),
        (
            "hosts: all\nsecrets: {pw: {env: [A]}}\ntasks: [uptime]\n",
            &["2:21 `env` must be text, not a list"],
        ),
        (
            "hosts: all\nvars: {pw: x}\nsecrets: {pw: {env: A}}\ntasks: [uptime]\n",
            &["2:8 `pw` is a secret and a variable [choose another name for one of them]"],
        ),
        (
            "hosts: all\nbecome: {method: sodo}\ntasks: [uptime]\n",
            &["2:18 `method` cannot be `sodo` [did you mean `sudo`?]"],
        ),
        (
            "hosts: all\nbecome: {user: 'a;b'}\ntasks: [uptime]\n",
            &["2:16 the account `a;b` contains `;`, which a name cannot have"],
        ),
        (
            "hosts: all\nbecome: {password: hunter2}\ntasks: [uptime]\n",
            &[
                "2:20 a password stands in the playbook [declare it under `secrets` and write `password: ${{ name }}`]",
            ],
        ),
        (
            "hosts: all\nsecrets: {pw: {env: A}}\nbecome: {method: doas, password: '${{ pw }}'}\ntasks: [uptime]\n",
            &[
                "3:34 doas takes a password from a terminal only [allow it without one (`nopass` in doas.conf), or use `method: sudo`]",
            ],
        ),
        (
            "hosts: all\nbecome: [root]\ntasks: [uptime]\n",
            &["2:9 `become` must be text, not a list"],
        ),
        (
            "hosts: all\nbecome: {become_user: root}\ntasks: [uptime]\n",
            &["2:10 unknown key `become_user` in `become` [allowed here: method, user, password]"],
        ),
        (
            "hosts: all\ntasks:\n  - local: uptime\n    become: true\n  - upload: {src: a, dest: b}\n    become: true\n",
            &[
                "4:5 `become` has no effect on `local` [remove it]",
                "6:5 `become` has no effect on `upload` [remove it]",
            ],
        ),
        (
            "hosts: all\nbecome_user: root\ntasks:\n  - run: id\n    sudo: true\n",
            &[
                "2:1 unknown key `become_user` in a playbook [write `become: true`, or `become: {user: ..., method: ..., password: ...}`]",
                "5:5 unknown key `sudo` in a task [write `become: true`, or `become: {user: ..., method: ..., password: ...}`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - upload: a\n  - include: b.yml\n  - run: a\n    parse: df\n",
            &[
                "3:13 `upload` must be a mapping, not text [write it like `upload: {src: app.conf, dest: /etc/app.conf}`]",
                "4:14 `include: b.yml` does not exist",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - upload: {src: a, destination: /b}\n  - download: {dest: x}\n  - upload: {src: [], dest: y}\n",
            &[
                "3:14 `upload` has no `dest` [name where it goes: `dest: PATH`]",
                "3:22 unknown key `destination` in `upload` [allowed here: src, dest, template, mode, preserve, owner, verify, only_changed, delete, resume, symlinks, exclude, bandwidth, backup, durable]",
                "4:16 `download` has no `src` [name what is copied: `src: PATH`]",
                "5:19 `src` is an empty list",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - upload: {src: a, dest: b, mode: rw, bandwidth: fast, preserve: owner, only_changed: size}\n",
            &[
                "3:37 `mode: rw` is no mode [write it in octal, as for chmod: `0644`]",
                "3:52 `bandwidth: fast` is not a size [bytes a second over all hosts together, such as `10MiB`]",
                "3:68 `preserve` cannot be `owner` [one of: true, false, mode, times, setid]",
                "3:89 `only_changed` cannot be `size` [one of: true, false, checksum]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - upload: {src: a, dest: b, symlinks: keep, exclude: 'x[', bandwidth: 0}\n    stdin: x\n",
            &[
                "3:41 `symlinks` cannot be `keep` [one of: copy, follow, skip]",
                "3:56 `x[` is no pattern: unclosed character class; missing ']'",
                "3:73 `bandwidth: 0` has no unit [bytes a second over all hosts together, such as `10MiB`]",
                "4:5 `stdin` has no effect on `upload` [remove it]",
            ],
        ),
        (
            "hosts: all\nvars: {v: 1}\ntasks:\n  - upload: {src: 'a${{ v }}', dest: b, template: true, delete: true}\n  - download: {src: a, dest: b, owner: root, template: true}\n",
            &[
                "4:19 `src` cannot hold `${{ }}` beside `template: true` [the file is read before there are variables; name it as it is]",
                "4:57 `delete` has no effect beside `template: true` [remove it: what is filled in are single files]",
                "5:33 unknown key `owner` in `download` [allowed here: src, dest, flat, mode, preserve, verify, only_changed, delete, resume, symlinks, exclude, bandwidth, backup, durable]",
                "5:46 unknown key `template` in `download` [allowed here: src, dest, flat, mode, preserve, verify, only_changed, delete, resume, symlinks, exclude, bandwidth, backup, durable]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    when: ${{ x }}\n",
            &[
                "4:11 `when`: an expression stands without `${{ }}` [this is an expression already: leave `${{` and `}}` out]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    when: x ==\n  - run: b\n    when: [a, b | upcase]\n  - run: c\n    when: []\n",
            &[
                "4:11 `when`: `x ==` is not an expression: unexpected end of input, expected expression",
                "6:19 `when`: unknown filter `upcase`",
                "8:11 `when` is an empty list",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    when: x }} y\n  - run: b\n    when: {a: b}\n",
            &[
                "4:11 `when`: `x }} y` is not an expression: `}}` closes nothing",
                "6:12 `when` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    loop: {a: 1}\n  - run: b\n    loop: ''\n  - run: c\n    loop: '${{ x'\n",
            &[
                "4:12 `loop` must be a list, not a mapping [write `loop: [a, b]` or `loop: x.lines`]",
                "6:11 `loop` has no value",
                "8:12 `${{` is never closed [close it with `}}`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    retry: 0\n  - run: b\n    retry: {delay: 2s}\n  - run: c\n    retry: {times: 2, dealy: 2s, backoff: 0.5}\n",
            &[
                "4:12 `retry` must be a number from 1 to 10000, not `0`",
                "6:13 `retry` has no `times` [say how often: `retry: {times: 5}`]",
                "8:23 unknown key `dealy` in `retry` [did you mean `delay`?]",
                "8:43 `backoff` must be a number from 1 to 100, not `0.5` [each wait is so many times as long as the one before]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    retry: {times: 3, delay: 1m, max_delay: 5s, until: ok ==}\n  - run: b\n    retry: often\n",
            &[
                "4:45 `max_delay` is shorter than `delay`",
                "4:56 `until`: `ok ==` is not an expression: unexpected end of input, expected expression",
                "6:12 `retry` must be a number from 1 to 10000, not `often`",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    tags: [a, 'b c']\n  - run: b\n    tags: []\n",
            &[
                "4:15 `b c` is no tag [letters, digits, `_`, `-` and `.`; several are a list: `[a, b]`]",
                "6:11 `tags` is an empty list",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    once: maybe\n  - run: b\n    once: true\n    fanout: 3\n",
            &[
                "4:11 `once` cannot be `maybe` [one of: true, false]",
                "7:5 `fanout` has no effect beside `once` [remove it]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    fanout: 0\n    rollout: {batches: [0, 150%, x]}\n",
            &[
                "4:13 `fanout` must be a number from 1 to 100000, not `0`",
                "5:25 `batches` cannot be `0` [a number of hosts such as `3`, or a part of them such as `25%`]",
                "5:28 `batches` cannot be `150%` [a number of hosts such as `3`, or a part of them such as `25%`]",
                "5:34 `batches` cannot be `x` [a number of hosts such as `3`, or a part of them such as `25%`]",
            ],
        ),
        (
            "hosts: all\nrollout: {pause: 3s}\ntasks: [a]\n",
            &["2:18 without `batches` there is no `pause` [add `batches: [1, 25%]`]"],
        ),
        (
            "hosts: all\nrollout: {batches: [], max_failures: many, batch: 3}\ntasks: [a]\n",
            &[
                "2:20 `batches` is an empty list",
                "2:38 `max_failures` cannot be `many` [a number of hosts such as `3`, or a part of them such as `25%`]",
                "2:44 unknown key `batch` in `rollout` [allowed here: batches, max_failures, pause]",
            ],
        ),
        (
            "hosts: all\nrollout: 3\ntasks: [a]\n",
            &["2:10 `rollout` must be a mapping, not text"],
        ),
        (
            "hosts: all\ntasks:\n  - block: []\n  - block: [a]\n    rescue: b\n  - rescue: [a]\n  - run: x\n    always: [y]\n",
            &[
                "3:12 `block` is empty",
                "5:13 `rescue` must be a list, not text",
                "6:5 `rescue` goes with `block`",
                "8:5 `always` goes with `block`",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - block:\n      - run: a\n        tiemout: 3s\n    register: x\n    whne: true\n",
            &[
                "5:9 unknown key `tiemout` in a task [did you mean `timeout`?]",
                "6:5 unknown key `register` in a block [it is a key of a task; allowed here: name, block, rescue, always, when, tags, vars]",
                "7:5 unknown key `whne` in a block [did you mean `when`?]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - block:\n      - block: [{run: a, b: c}]\n",
            &[
                "4:26 unknown key `b` in a task [allowed here: run, script, local, upload, download, ls, print, pause, assert, set, wait_for, block, include, name, args, become, env, cwd, shell, stdin, timeout, ok_codes, on_failure, register, parse, table, vars, message, when, loop, retry, restart, creates, changed_when, notify, tags, once, fanout, rollout, delegate_to, rescue, always]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    notify: restrt\n  - run: b\n    notify: other\nhandlers:\n  - {name: restart, run: c}\n",
            &[
                "4:13 no handler is named `restrt` [did you mean `restart`?]",
                "6:13 no handler is named `other` [there are: restart]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    notify: restart\n",
            &["4:13 no handler is named `restart` [define it under `handlers:` of the play]"],
        ),
        (
            "hosts: all\ntasks: [a]\nhandlers:\n  - run: c\n  - {name: 'x ${{ y }}', run: d}\n  - {name: z, run: e}\n  - {name: z, run: f}\n",
            &[
                "4:5 a handler needs a plain `name` [`notify` finds it by its name: `name: restart app`]",
                "5:6 a handler needs a plain `name` [`notify` finds it by its name: `name: restart app`]",
                "7:6 a second handler `z`",
            ],
        ),
        (
            "hosts: all\ntasks: [a]\nhandlers: restart\n",
            &["3:11 `handlers` must be a list, not text"],
        ),
        (
            "hosts: all\ntasks:\n  - assert: []\n  - assert: a ==\n    message: ${{\n  - run: x\n    message: y\n",
            &[
                "3:13 `assert` is an empty list",
                "4:13 `assert`: `a ==` is not an expression: unexpected end of input, expected expression",
                "5:14 `${{` is never closed [close it with `}}`]",
                "7:5 `message` goes with `assert`",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - assert: a\n    register: x\n    retry: 3\n",
            &[
                "4:5 `register` has no effect on `assert` [remove it]",
                "5:5 `retry` has no effect on `assert` [remove it]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - set: {}\n  - set: x\n  - set: {a-b: 1, host: 2}\n",
            &[
                "3:10 `set` sets nothing",
                "4:10 `set` must be a mapping, not text",
                "5:11 `a-b` cannot be the name of a variable [letters, digits and `_`, not beginning with a digit: `a_b`]",
                "5:19 `host` cannot be the name of a variable [the word has a meaning in expressions]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - set: {x: '${{ a | foo }}'}\n  - print: x\n    notify: y\n    creates: z\n",
            &[
                "3:23 unknown filter `foo`",
                "5:5 `notify` has no effect on `print` [remove it]",
                "5:13 no handler is named `y` [define it under `handlers:` of the play]",
                "6:5 `creates` has no effect on `print` [remove it]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - wait_for: 80\n  - wait_for: {}\n  - wait_for: {port: 80, path: /x}\n  - wait_for: {path: /x, address: y}\n  - wait_for: {port: 0, prot: 3}\n",
            &[
                "3:15 `wait_for` cannot be `80` [write `connection`, `{port: 8080}` or `{path: /run/app.pid}`]",
                "4:15 `wait_for` waits for one thing [write `connection`, `{port: 8080}` or `{path: /run/app.pid}`]",
                "5:16 `wait_for` waits for one thing [write `connection`, `{port: 8080}` or `{path: /run/app.pid}`]",
                "6:35 `address` goes with `port`",
                "7:22 `port` must be a number from 1 to 65535, not `0`",
                "7:25 unknown key `prot` in `wait_for` [did you mean `port`?]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - wait_for: conection\n    register: x\n",
            &[
                "3:15 `wait_for` cannot be `conection` [write `connection`, `{port: 8080}` or `{path: /run/app.pid}`]",
                "4:5 `register` has no effect on `wait_for` [remove it]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    until: x\n    retries: 3\n  - run: b\n    with_items: [a]\n  - run: c\n    run_once: true\n",
            &[
                "4:5 unknown key `until` in a task [write `retry: {times: 5, delay: 2s, until: result.code == 0}`]",
                "5:5 unknown key `retries` in a task [write `retry: {times: 5, delay: 2s, until: result.code == 0}`]",
                "7:5 unknown key `with_items` in a task [write `loop: [a, b]`; the value is `item`]",
                "9:5 unknown key `run_once` in a task [write `once: true`]",
            ],
        ),
        (
            "hosts: all\nserial: 3\nmax_fail_percentage: 5\ntasks:\n  - set_fact: {a: 1}\n",
            &[
                "2:1 unknown key `serial` in a playbook [batches of hosts are written `rollout: {batches: [1, 25%]}`]",
                "3:1 unknown key `max_fail_percentage` in a playbook [write `rollout: {max_failures: 5%}`]",
                "5:5 unknown key `set_fact` in a task [write `set: {name: value}`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    changed_when: 'x and'\n    creates: ''\n",
            &[
                "4:20 `changed_when`: `x and` is not an expression: unexpected end of input, expected expression",
            ],
        ),
        (
            "handlers: [{name: a, run: b}]\nplays:\n  - hosts: all\n    tasks: [{run: c, notify: [a, b]}]\n    handlers: [{name: c, run: d}]\n",
            &["4:34 no handler is named `b` [did you mean `a`?]"],
        ),
        (
            "hosts: all\ntasks:\n  - pause: {}\n  - pause: {ask: ''}\n  - pause: {aks: x}\n  - pause: soon\n",
            &[
                "3:12 `pause` has no `ask` [write `pause: 30s` or `pause: {ask: \"Go on?\"}`]",
                "5:13 unknown key `aks` in `pause` [did you mean `ask`?]",
                "6:12 `pause: soon` is not a duration [write it like `500ms`, `30s`, `5m`, `1h30m` or `2d`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - command: uptime\n  - debug: {msg: x}\n  - run: x\n    ignore_errors: yes\n",
            &[
                "3:5 unknown key `command` in a task [a command is written `run: ...`]",
                "4:5 unknown key `debug` in a task [text for the terminal is written `print: ...`]",
                "6:5 unknown key `ignore_errors` in a task [write `on_failure: continue`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - name: nothing\n",
            &[
                "3:5 the task does nothing [add one of: run, script, local, upload, download, ls, print, pause, assert, set, wait_for, block, include]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    local: b\n    print: c\n",
            &[
                "4:5 a task does one thing: `run` and `local` are two [make two tasks of it]",
                "5:5 a task does one thing: `run` and `print` are two [make two tasks of it]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - [ls, -l]\n",
            &[
                "3:5 a task is text or a mapping, not a list [a command in words is written `run: [ls, -l]`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run:\n",
            &["3:8 `run` has no value"],
        ),
        (
            "hosts: all\ntasks:\n  - run: {a: b}\n",
            &[
                "3:11 `run` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: []\n",
            &["3:10 `run` is an empty list [the first word is the program]"],
        ),
        (
            "hosts: all\ntasks:\n  - run: [ls, [a], {b: c}]\n",
            &[
                "3:15 `run` must be text, not a list",
                "3:21 `run` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - echo status: ok\n",
            &[
                "3:5 unknown key `echo status` in a task [a command that holds `: ` must be quoted as a whole, or written under `run: |`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: echo status: ok\n",
            &[
                "3:21 this is not YAML: mapping values are not allowed in this context [a text that holds `: ` must be quoted, or written under `|` on lines of its own]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: \"echo\" a\n",
            &[
                "3:17 this is not YAML: invalid trailing content after double-quoted scalar [a text that begins with one of \" ' [ { * & ! % @ ` | > must be quoted as a whole, or written under `|` on lines of its own]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: [echo, ${{ x }}]\n",
            &[
                "3:18 this is not YAML: while parsing a flow sequence, expected ',' or ']' [inside `[...]` a text with `${{ }}` must be quoted: \"${{ name }}\"]",
            ],
        ),
        (
            "hosts: all\ntasks:\n\t- uptime\n",
            &["3:1 a tab in the indentation [YAML is indented with spaces only]"],
        ),
        (
            "hosts: all\ntasks:\n  - name: a\n   run: b\n",
            &[
                "4:4 this is not YAML: while parsing a block collection, did not find expected '-' indicator [the line is not indented like the ones it belongs to]",
            ],
        ),
        (
            "hosts: all\ntasks: [uptime\n",
            &["2:8 this is not YAML: unclosed bracket '['"],
        ),
        (
            "hosts: all\ntasks: [uptime]\n---\nhosts: all\ntasks: [uptime]\n",
            &[
                "3:1 a second YAML document [a playbook is one document: list its plays under `plays:` instead of separating them with `---`]",
            ],
        ),
        (
            "hosts: all\ntasks: [!!python/object/apply:os.system ['id']]\n",
            &[
                "2:41 the tag `!!python/object/apply:os.system` is not allowed [a playbook holds plain text, numbers, lists and mappings; remove the tag]",
                "2:41 a task is text or a mapping, not a list [a command in words is written `run: [ls, -l]`]",
            ],
        ),
        (
            "hosts: all\ntasks: [!vault abc]\n",
            &[
                "2:16 the tag `!vault` is not allowed [a playbook holds plain text, numbers, lists and mappings; remove the tag]",
            ],
        ),
        (
            "hosts: all\ntasks: [*nowhere]\n",
            &[
                "2:9 this is not YAML: while parsing node, found unknown anchor [a text that begins with one of \" ' [ { * & ! % @ ` | > must be quoted as a whole, or written under `|` on lines of its own]",
            ],
        ),
        (
            "hosts: all\nvars: {a: &a [*a]}\ntasks: [uptime]\n",
            &["2:15 an alias that stands inside what it names"],
        ),
        (
            "hosts: all\nvars: {<<: 5}\ntasks: [uptime]\n",
            &["2:8 `<<` takes a mapping or a list of mappings"],
        ),
        (
            "hosts: all\nvars: {? [a] : b}\ntasks: [uptime]\n",
            &["2:10 a key must be text"],
        ),
        (
            "hosts: all\nvars: [a]\ntasks: [uptime]\n",
            &["2:7 `vars` must be a mapping, not a list"],
        ),
        (
            "hosts: all\nvars: {my-var: 1, 2x: 3, not: 4, ok: \"${{ x }}\"}\ntasks: [uptime]\n",
            &[
                "2:8 `my-var` cannot be the name of a variable [letters, digits and `_`, not beginning with a digit: `my_var`]",
                "2:19 `2x` cannot be the name of a variable [letters, digits and `_`, not beginning with a digit: `_2x`]",
                "2:26 `not` cannot be the name of a variable [the word has a meaning in expressions]",
                "2:38 variables are not templates: `${{ }}` would stay as it is [put the parts together where they are used]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    register: my-result\n  - run: b\n    register: none\n",
            &[
                "4:15 `my-result` cannot be the name of a variable [letters, digits and `_`, not beginning with a digit: `my_result`]",
                "6:15 `none` cannot be the name of a variable [the word has a meaning in expressions]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    env: {A-B: x, C: [y], D: }\n",
            &[
                "4:11 `A-B` cannot be the name of an environment variable [letters, digits and `_`, not beginning with a digit]",
                "4:22 `C` must be text, not a list",
                "4:28 `D` has no value",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    env: [A=b]\n",
            &["4:10 `env` must be a mapping, not a list"],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    ok_codes: [0, 256, x, 3-1]\n",
            &[
                "4:19 `256` is not an exit code [a number from 0 to 255, or a range such as `0-3`]",
                "4:24 `x` is not an exit code [a number from 0 to 255, or a range such as `0-3`]",
                "4:27 `3-1` is not an exit code [a number from 0 to 255, or a range such as `0-3`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    ok_codes: []\n",
            &["4:15 `ok_codes` is an empty list [no exit code would be success]"],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    on_failure: ignore\n  - run: b\n    on_failure: contineu\n",
            &[
                "4:17 `on_failure` cannot be `ignore` [one of: stop, continue, stop_all]",
                "6:17 `on_failure` cannot be `contineu` [did you mean `continue`?]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    shell: bash -eu\n  - run: [a]\n    shell: bash\n  - script: x.sh\n    shell: bash\n",
            &[
                "4:12 `shell: bash -eu` holds a space [write its words as a list: [bash, -eu]]",
                "6:5 `shell` has no effect here [a list is run without a shell]",
                "8:5 `shell` has no effect here [a script is run by its own `#!` line]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - print: a\n    register: x\n    timeout: 5s\n  - pause: 5\n  - pause: 5s\n    env: {A: b}\n",
            &[
                "4:5 `register` has no effect on `print` [remove it]",
                "5:5 `timeout` has no effect on `print` [remove it]",
                "6:12 `pause: 5` has no unit [did you mean `5s`?]",
                "8:5 `env` has no effect on `pause` [remove it]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    args: [b]\n  - script: x.sh\n    args: b\n  - script: \"${{ x }}.sh\"\n",
            &[
                "4:5 `args` goes with `script` [arguments of a command stand in `run` itself]",
                "6:11 `args` must be a list, not text",
                "7:13 `script` cannot hold `${{ }}`: it is read before there are variables",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - echo ${{ x\n",
            &["3:10 `${{` is never closed [close it with `}}`]"],
        ),
        (
            "hosts: all\ntasks:\n  - echo ${{ }} ${{ a b }}\n",
            &[
                "3:10 nothing stands between `${{` and `}}`",
                "3:17 `a b` is not an expression: unexpected input after expression",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - echo ${{ x | uper }} ${{ x | raw | upper }}\n",
            &[
                "3:18 unknown filter `uper` [did you mean `upper`?]",
                "3:34 unknown filter `raw` [`raw` must come last]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: |\n      echo one\n      echo `echo ${{ x }}`\n",
            &[
                "5:18 `x` stands where its value cannot be escaped for certain (backquotes would read it a second time: use `$( )`) [pass it through `env`, or write `| raw` to insert it as it is]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: >\n      echo one\n      echo $((1 + ${{ x }}))\n",
            &[
                "5:19 `x` stands where its value cannot be escaped for certain (arithmetic would evaluate it, commands included) [pass it through `env`, or write `| raw` to insert it as it is]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: \"echo \\\"\\\\${{ x }}\\\"\"\n",
            &[
                "3:20 `x` stands where its value cannot be escaped for certain (a backslash right before it escapes its first character) [pass it through `env`, or write `| raw` to insert it as it is]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: \"a\\0b\"\n  - run: [a, \"\\0\"]\n  - run: a\n    env: {A: \"\\0\"}\n",
            &[
                "3:10 `run` contains a NUL character [no command line or variable can hold one]",
                "4:14 `run` contains a NUL character [no command line or variable can hold one]",
                "6:14 `A` contains a NUL character [no command line or variable can hold one]",
            ],
        ),
        (
            "hosts: all\nshell: fish\ntasks:\n  - echo ${{ x }}\n  - echo plain\n  - run: echo ${{ x }}\n    shell: bash\n",
            &[
                "4:10 `x` cannot be escaped for `fish` (only POSIX shells are known) [pass it through `env`, or write `| raw` to insert it as it is]",
            ],
        ),
        (
            "hosts: \"a\\nb\"\nuser: \"a\\u001bb\"\ntasks: [uptime]\n",
            &[
                "1:8 `hosts` contains a control character (U+000A)",
                "2:7 `user` contains a control character (U+001B)",
            ],
        ),
        (
            "\u{feff}hosts: all\ntasks: [{run: a, tiemout: 5s}]\n",
            &["2:18 unknown key `tiemout` in a task [did you mean `timeout`?]"],
        ),
        (
            "hosts: all\r\ntasks:\r\n  - run: a\r\n    tiemout: 5s\r\n",
            &["4:5 unknown key `tiemout` in a task [did you mean `timeout`?]"],
        ),
        (
            "hosts: all\ntasks:\n  - print: é ${{ x | uper }}\n",
            &["3:22 unknown filter `uper` [did you mean `upper`?]"],
        ),
        (
            "x: 1\nhosts: all\ntasks: [{run: a, cwd: {}, stdin: [], name: [], timeout: [], register: {}}]\n",
            &[
                "1:1 unknown key `x` in a playbook [allowed here: name, inventory, vars, secrets, defaults, handlers, plays, hosts, strategy, fanout, tasks, rollout, user, port, identity, become, env, cwd, shell, timeout, connect_timeout, on_failure]",
                "3:23 `cwd` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
                "3:34 `stdin` must be text, not a list",
                "3:44 `name` must be text, not a list",
                "3:57 `timeout` must be text, not a list",
                "3:71 `register` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\nuser: [a]\nidentity: {}\nport: []\ninventory: {}\ntasks: [uptime]\n",
            &[
                "2:7 `user` must be text, not a list",
                "3:11 `identity` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
                "4:7 `port` must be text, not a list",
                "5:12 `inventory` must be text, not a mapping [a text that holds `: ` or begins with `{` must be quoted]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    hosts: b\n    user: c\n",
            &[
                "4:5 unknown key `hosts` in a task [it is a key of a play; allowed here: run, script, local, upload, download, ls, print, pause, assert, set, wait_for, block, include, name, args, become, env, cwd, shell, stdin, timeout, ok_codes, on_failure, register, parse, table, vars, message, when, loop, retry, restart, creates, changed_when, notify, tags, once, fanout, rollout, delegate_to, rescue, always]",
                "5:5 unknown key `user` in a task [it is a key of a play; allowed here: run, script, local, upload, download, ls, print, pause, assert, set, wait_for, block, include, name, args, become, env, cwd, shell, stdin, timeout, ok_codes, on_failure, register, parse, table, vars, message, when, loop, retry, restart, creates, changed_when, notify, tags, once, fanout, rollout, delegate_to, rescue, always]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse: duh\n  - run: a\n    parse: regex\n  - run: a\n    parse: [du]\n",
            &[
                "4:12 `parse` cannot be `duh` [did you mean `du`?]",
                "6:12 `regex` has no pattern [write it like `parse: {regex: 'load (?<load>[0-9.]+)'}`]",
                "8:12 `parse` must be text, not a list",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse: {types: {a: int}}\n  - run: a\n    parse: {du: , df: , strikt: false}\n  - run: a\n    parse: {du: {names: [a]}}\n",
            &[
                "4:13 `parse` has no format [add one of: du, df, lines, columns, kv, json, ndjson, csv, tsv, regex]",
                "6:19 `du` and `df` are two formats [one output has one format]",
                "6:25 unknown key `strikt` in `parse` [did you mean `strict`?]",
                "8:25 `du` has two columns, and here are 1 [write it like `names: [used, folder]`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse:\n      du: {unit: kib, zerro: true}\n      types: {size: int}\n      strict: maybe\n",
            &[
                "5:18 `unit` cannot be `kib` [one of: bytes, 512, 1K, 1M, 1G, human, si]",
                "5:23 unknown key `zerro` in `du` [did you mean `zero`?]",
                "6:7 `types` has no effect on `du` [remove it]",
                "7:15 `strict` cannot be `maybe` [one of: true, false]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse:\n      columns: {names: [pid, pid, args], split: aligend, last: rest}\n      types: {pdi: int, args: number}\n",
            &[
                "5:30 two columns are named `pid`",
                "5:49 `split` cannot be `aligend` [did you mean `aligned`?]",
                "6:31 `types` cannot be `number` [one of: text, int, float, bool, percent, size, duration, datetime]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse:\n      columns: {names: [pid, args]}\n      types: {pdi: int}\n  - run: a\n    parse: {columns: {header: false}}\n  - run: a\n    parse: {csv: {header: false}}\n  - run: a\n    parse: {columns: {names: [a], split: aligned}}\n",
            &[
                "6:15 no column is named `pdi` [did you mean `pid`?]",
                "8:23 without a header the columns have no names [say them: `names: [pid, command]`]",
                "10:19 without a header the columns have no names [say them: `names: [name, size]`]",
                "12:23 `aligned` columns stand below their header [remove `header: false`, or add `header: true`]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse: {regex: '(x'}\n  - run: a\n    parse: {regex: 'x'}\n  - run: a\n    parse: {regex: {pattern: '(?<a>x)', match: every}}\n",
            &[
                "4:20 `(x` is no regular expression: unclosed group",
                "6:20 `x` has no named group [a group is named like this: `(?<size>[0-9]+)`]",
                "8:48 `match` cannot be `every` [one of: lines, first, all]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse: {df: , stop_when: row.use >}\n  - run: a\n    parse: {df: , stop_when: '${{ row.use > 3 }}'}\n  - run: a\n    parse: {df: , stop_when: row.usse > 3 and row.mount_b64 != 'eA=='}\n",
            &[
                "4:30 `row.use >` is not an expression: unexpected end of input, expected expression",
                "6:30 `stop_when` is an expression already [write it without `${{ }}`: `stop_when: row.use > 90`]",
                "8:30 no column is named `usse` [did you mean `use`?]",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    table: true\n  - run: a\n    parse: df\n    table: {sort: -usse, columns: [host, mount], colums: [x]}\n  - run: a\n    parse: df\n    table: {pivot: {row: mount, column: host}, limit: 0}\n",
            &[
                "4:5 `table` shows rows, and the task has no `parse` [say how its output becomes rows: `parse: df`]",
                "7:5 no column is named `usse` [did you mean `use`?]",
                "7:50 unknown key `colums` in `table` [did you mean `columns`?]",
                "10:21 `pivot` has no `value` [write it like `pivot: {row: mount, column: host, value: use}`]",
                "10:55 `limit` must be a number from 1 to 1000000, not `0`",
            ],
        ),
        (
            "hosts: all\ntasks:\n  - run: a\n    parse: df\n    table: {name: t, sort: use}\n  - run: a\n    parse: df\n    table: {name: t}\n  - run: a\n    parse: df\n    table: {name: t, sort: use}\n",
            &["11:22 an earlier task says how the table `t` looks [move `sort` to that task]"],
        ),
        (
            "hosts: all\ntasks:\n  - print: a\n    parse: df\n  - ls: /\n    table: true\n",
            &[
                "4:5 `parse` has no effect on `print` [remove it]",
                "6:5 `table` has no effect on `ls` [remove it]",
            ],
        ),
    ];
}

#[test]
fn every_way_to_say_how_output_is_read() {
    use crate::rows::{Columns, Format, Matching, Pairs, Split, Total, Type, Unit};
    let formats = [
        "du",
        "{du: }",
        "{du: {unit: si, zero: true, names: [used, folder]}}",
        "df",
        "{df: {unit: human}}",
        "lines",
        "columns",
        "{columns: {split: tab, names: [a, b], header: true, last: rest, skip: 2}}",
        "{columns: {split: ':', names: [a, b]}}",
        "{columns: {split: aligned}}",
        "kv",
        "{kv: ': '}",
        "{kv: {quotes: false, blocks: true}}",
        "json",
        "{json: a.b}",
        "{json: [a.b, c]}",
        "{json: {path: a}}",
        "ndjson",
        "csv",
        "{csv: {names: [a]}}",
        "tsv",
        "{regex: '(?<a>x)'}",
        "{regex: {pattern: '(?<a>x)', match: first}}",
    ];
    for text in formats {
        let found = load_parse(&source(text));
        assert!(found.is_ok(), "{text}: {}", told(&found.unwrap_err()));
    }
    let parse = |text: &str| load_parse(&source(text)).unwrap();
    let format = |text: &str| parse(text).spec.format;
    let Format::Du { names, unit, zero } = format(formats[2]) else {
        panic!("du")
    };
    assert_eq!((unit, zero), (Unit::Si, true));
    assert_eq!(names, ["used", "folder"]);
    let Format::Columns(columns) = format(formats[7]) else {
        panic!("columns")
    };
    let expected = Columns {
        split: Split::At("\t".into()),
        names: vec!["a".into(), "b".into()],
        header: true,
        last_rest: true,
        skip: 2,
    };
    assert_eq!(columns, expected);
    let Format::Pairs(pairs) = format("{kv: ': '}") else {
        panic!("kv")
    };
    let separator = ": ".to_owned();
    assert_eq!(
        pairs,
        Pairs {
            separator,
            quotes: false,
            blocks: false
        }
    );
    let Format::Json { path } = format("{json: [a.b, c]}") else {
        panic!("json")
    };
    assert_eq!(path, ["a.b", "c"]);
    let Format::Regex { matching, .. } = format(formats[22]) else {
        panic!("regex")
    };
    assert_eq!(matching, Matching::First);
    let all = parse("{csv: , types: {a: size}, strict: false, stop_when: row.a > 1}");
    assert_eq!(all.spec.types, [("a".to_owned(), Type::Size)]);
    assert!(!all.spec.strict && all.stop_when.is_some());
    assert!(load_parse(&source("")).is_err());

    let text = "hosts: all\ntasks:\n  - run: a\n    parse: df\n    table: {name: disks, columns: [mount], sort: -use, limit: 3, total: [size]}\n";
    let playbook = good(text);
    let table = playbook.plays[0].tasks[0].table.clone().unwrap();
    assert_eq!(table.sort, Some(("use".to_owned(), true)));
    assert_eq!(
        (table.limit, table.total),
        (Some(3), Total::Of(vec!["size".to_owned()]))
    );
}

#[test]
fn a_condition_on_rows_is_sure_or_an_error() {
    let holds = |text: &str, row: serde_json::Value| {
        let mut scope = Scope::default();
        scope.set("limit", 90.into());
        let condition = RowCondition::parse(text).unwrap();
        condition
            .holds(&scope, "row", row)
            .map_err(|error| error.to_string())
    };
    let row = || serde_json::json!({"use": 94, "name": "x"});
    assert_eq!(holds("row.use > limit", row()), Ok(true));
    assert_eq!(
        holds("row.use < limit or row['name'] == 'y'", row()),
        Ok(false)
    );
    assert_eq!(
        holds("row.usse > 90", row()),
        Err("`row.usse` is not defined".into())
    );
    assert_eq!(
        holds("row.use > limmit", row()),
        Err("`limmit` is not defined".into())
    );
    assert_eq!(
        holds("row.use", row()),
        Err("`row.use`: neither true nor false".into())
    );
    assert_eq!(holds("row.none is defined", row()), Ok(false));
    let bad = RowCondition::parse("row.use | uper").unwrap_err();
    assert_eq!(
        (bad.message.as_str(), bad.span),
        ("unknown filter `uper`", 10..14)
    );
    assert!(RowCondition::parse("row.use | raw").is_err());
}
