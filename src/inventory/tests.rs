//! Tables and laws for sources, groups, patterns and ranges.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::{At, Diagnostic, Source};

/// Files that exist only here.
struct Shelf(HashMap<PathBuf, String>);

impl Files for Shelf {
    fn read(&self, path: &Path, limit: u64) -> io::Result<String> {
        let text = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        if text.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text.clone())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

fn load(files: &[(&str, &str)], args: &[&str]) -> Result<Loaded, Vec<Diagnostic>> {
    let files = files
        .iter()
        .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()));
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    Inventory::load(&args, &Shelf(files.collect()))
}

fn yaml(text: &str) -> Result<Inventory, Vec<Diagnostic>> {
    load(&[("i.yml", text)], &["i.yml"]).map(|loaded| loaded.inventory)
}

fn good(text: &str) -> Inventory {
    yaml(text).unwrap_or_else(|found| panic!("{found:#?}"))
}

fn names(inventory: &Inventory) -> Vec<String> {
    inventory
        .hosts()
        .map(|host| host.name.to_string())
        .collect()
}

/// `line:column text-under-it: message | help`, one a mistake.
fn told(found: &[Diagnostic]) -> String {
    let lines: Vec<String> = found
        .iter()
        .map(|one| {
            let at = one.at.as_ref().map_or(String::new(), |at| {
                let (line, column) = at.line_column();
                let under = at.source.text.get(at.span.clone()).unwrap_or("OUTSIDE");
                format!("{line}:{column} {under:?}: ")
            });
            let help = one
                .help
                .as_ref()
                .map_or(String::new(), |help| format!(" | {help}"));
            format!("{at}{}{help}", one.message)
        })
        .collect();
    lines.join("\n")
}

fn refused(text: &str) -> String {
    match yaml(text) {
        Ok(inventory) => panic!("accepted: {:?}", names(&inventory)),
        Err(found) => told(&found),
    }
}

fn pick(inventory: &Inventory, pattern: &str) -> Result<String, PatternError> {
    let selected = Pattern::parse(pattern)?.select(inventory, Unknown::Refuse)?;
    let names: Vec<&str> = selected.iter().map(|host| host.name.as_str()).collect();
    Ok(names.join(" "))
}

fn dial(pattern: &str) -> Result<Vec<Selected>, PatternError> {
    Pattern::parse(pattern)?.select(&Inventory::empty(), Unknown::Dial)
}

#[test]
fn ranges_expand() {
    for (text, wanted) in [
        ("a", "a"),
        ("a,b c", "a b c"),
        ("n[1-3]", "n1 n2 n3"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("n[01-07/2]", "n01 n03 n05 n07"),
        ("n[98-101]", "n98 n99 n100 n101"),
        (
            "n[0-2].example.com",
            "n0.example.com n1.example.com n2.example.com",
        ),
        ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
        ("n[1,3,7-9]", "n1 n3 n7 n8 n9"),
        ("n[a-d/2,x,01]", "na nc nx n01"),
        ("[red,blue]1", "red1 blue1"),
        ("n[7-7]", "n7"),
        ("", ""),
    ] {
        assert_eq!(expand(text).unwrap().join(" "), wanted, "{text}");
    }
}

#[test]
fn malformed_ranges_are_refused_at_their_place() {
    for (text, span, part) in [
        ("a,n[5-1]", 4..7, "backwards"),
        ("n[1-3", 1..5, "never closed"),
        ("n]1", 1..2, "without `[`"),
        ("n[]", 2..2, "nothing stands"),
        ("n[1,,2]", 4..4, "nothing stands"),
        ("n[1-3/0]", 2..7, "not a step"),
        ("n[1/2]", 2..5, "no range"),
        ("n[01-5]", 2..6, "padded differently"),
        ("n[1-010]", 2..7, "padded differently"),
        ("n[a-F]", 2..5, "not a range"),
        ("n[1-]", 2..4, "not a range"),
        ("n[1:3]", 2..5, "cannot stand"),
        ("n[1-9999999999999999999]", 2..23, "digits"),
    ] {
        let error = expand(text).unwrap_err();
        assert!(matches!(error, PatternError::Written(_)), "{text}");
        assert_eq!(error.fault().span, span, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn range_bombs_are_refused_with_their_count() {
    for (text, count) in [
        ("n[1-99999999999]", "99999999999"),
        ("a[1-1000]b[1-1000]", "1000000"),
        (
            "n[0-999999999999999999][0-999999999999999999][0-999999999999999999]",
            "more than 2^128",
        ),
        ("a,n[1-100000]", "100000"),
    ] {
        for error in [expand(text).unwrap_err(), Pattern::parse(text).unwrap_err()] {
            assert!(matches!(error, PatternError::TooMany(_)), "{text}");
            assert!(error.to_string().contains(count), "{text}: {error}");
        }
        let listed = load(&[("l", text)], &["l"]);
        if !text.starts_with("a,") {
            assert!(told(&listed.unwrap_err()).contains(count));
        }
    }
    assert_eq!(expand("n[1-100000]").unwrap().len(), NAME_LIMIT);
}

#[test]
fn names_fold() {
    for (names, wanted) in [
        ("", ""),
        ("db1", "db1"),
        ("web01 web02 web03 web05 db1", "web[01-03,05],db1"),
        ("web2 db web1 web2", "web[1-2],db"),
        ("n8 n9 n10", "n[8-10]"),
        ("n08 n09 n10 n100", "n[08-10,100]"),
        ("n1 n01", "n[1,01]"),
        ("web1.k8s.io web2.k8s.io", "web[1-2].k8s.io"),
        ("10.0.0.1 10.0.0.2", "10.0.0.[1-2]"),
        ("localhost alpha", "localhost,alpha"),
    ] {
        assert_eq!(fold(names.split_whitespace()), wanted, "{names}");
    }
}

const FLEET: &str = "\
hosts:
  web[01-03]: {user: deploy}
  db1: {port: 2222}
  db2:
  cache:
groups:
  web: {hosts: ['web[01-03]']}
  data: {hosts: [db1, db2]}
  eu: {children: [data], hosts: [web01]}
  none:
";

#[test]
fn patterns_select() {
    let fleet = good(FLEET);
    for (pattern, wanted) in [
        ("all", "web01 web02 web03 db1 db2 cache"),
        ("@all", "web01 web02 web03 db1 db2 cache"),
        ("db1,web01", "web01 db1"),
        ("db1 web01 db1", "web01 db1"),
        ("web[01-03/2]", "web01 web03"),
        ("web", "web01 web02 web03"),
        ("@web", "web01 web02 web03"),
        ("eu", "web01 db1 db2"),
        ("w*", "web01 web02 web03"),
        ("db?", "db1 db2"),
        ("*[1-2]", "web01 web02 db1 db2"),
        ("/^(db|ca)/", "db1 db2 cache"),
        ("/[,] x|01/", "web01"),
        ("web & eu", "web01"),
        ("web&eu", "web01"),
        ("all !web", "db1 db2 cache"),
        ("all ! web, web01", "web01 db1 db2 cache"),
        ("web,db1 !web01 & eu", "db1"),
        ("all,!web01", "web02 web03 db1 db2 cache"),
        ("eu!data", "web01"),
    ] {
        assert_eq!(pick(&fleet, pattern).unwrap(), wanted, "{pattern}");
    }
}

#[test]
fn patterns_that_are_wrong_say_where() {
    let fleet = good(FLEET);
    for (pattern, span, part) in [
        ("", 0..0, "empty"),
        (" , ", 0..3, "empty"),
        ("!a", 0..1, "nothing stands before"),
        ("a &", 2..3, "nothing follows"),
        ("a & ! b", 4..5, "two operators"),
        ("a &, b", 3..4, "follows an operator"),
        ("a,/b", 2..4, "never closed"),
        ("/b/c", 3..4, "something follows"),
        ("//", 0..2, "empty"),
        ("/(/", 0..3, "not a regular expression"),
        ("/a{1000}{1000}{1000}/", 0..21, "not a regular expression"),
        ("x,-oProxyCommand=x", 2..18, "begins with `-`"),
        ("$(id)", 0..5, "`$`"),
        ("a;b", 0..3, "`;`"),
        ("`id`", 0..4, "contains"),
        ("web%h", 0..5, "`%`"),
        ("w\u{435}b", 0..4, "U+0435"),
        ("a\0", 0..2, "U+0000"),
        ("user@host@x", 0..11, "more than one `@`"),
        ("-l@host", 0..7, "user name begins with `-`"),
        ("u$@host", 0..7, "user name contains `$`"),
        ("a:0", 2..3, "not a port"),
        ("a:65536", 2..7, "not a port"),
        ("a:+22", 2..5, "not a port"),
        ("a:", 2..2, "not a port"),
        ("[::1]:0", 6..7, "not a port"),
        ("[::1]x", 5..6, "only `:port`"),
        ("[::g]", 0..5, "neither an IPv6 address"),
        ("a:b:c", 0..5, "several colons"),
        ("@-x", 0..3, "begins with `-`"),
    ] {
        let error = pick(&fleet, pattern).unwrap_err();
        assert!(
            matches!(error, PatternError::Written(_)),
            "{pattern}: {error:?}"
        );
        assert!(error.to_string().contains(part), "{pattern}: {error}");
        assert_eq!(error.fault().span, span, "{pattern}: {error}");
    }
}

#[test]
fn unknown_names_are_refused_and_nothing_matched_is_another_error() {
    let fleet = good(FLEET);
    let error = pick(&fleet, "db1,wbe01").unwrap_err();
    assert!(matches!(&error, PatternError::Unknown(f) if f.span == (4..9)));
    assert_eq!(error.fault().help.as_deref(), Some("did you mean `web01`?"));
    let error = pick(&fleet, "@dta").unwrap_err();
    assert!(matches!(error, PatternError::Unknown(_)));
    assert_eq!(error.fault().help.as_deref(), Some("did you mean `@data`?"));
    assert!(matches!(
        pick(&fleet, "all !wbe01"),
        Err(PatternError::Unknown(_))
    ));
    for pattern in [
        "x*",
        "db1,x*",
        "@none",
        "none",
        "/zzz/",
        "web & data",
        "all !all",
    ] {
        let error = pick(&fleet, pattern).unwrap_err();
        assert!(
            matches!(error, PatternError::NothingMatched(_)),
            "{pattern}: {error:?}"
        );
    }
    let pattern = Pattern::parse("db1,x*,none").unwrap();
    assert_eq!(
        pattern
            .select_or_empty(&fleet, Unknown::Refuse)
            .unwrap()
            .len(),
        1
    );
    assert!(matches!(dial("all"), Err(PatternError::NothingMatched(_))));
    assert!(matches!(dial("@web"), Err(PatternError::Unknown(_))));
}

#[test]
fn literals_are_dialled_without_an_inventory() {
    for (pattern, host, user, port) in [
        ("h", "h", None, None),
        ("u@h", "h", Some("u"), None),
        ("u@h:1", "h", Some("u"), Some(1)),
        ("h:65535", "h", None, Some(65535)),
        ("[::1]:2222", "::1", None, Some(2222)),
        ("[::1]", "::1", None, None),
        ("u@[fe80::1%eth0]:22", "fe80::1%eth0", Some("u"), Some(22)),
        ("::1", "::1", None, None),
        ("fe80::1%eth0", "fe80::1%eth0", None, None),
        ("127.0.0.1", "127.0.0.1", None, None),
    ] {
        let found = dial(pattern).unwrap();
        assert_eq!(found.len(), 1, "{pattern}");
        assert_eq!(found[0].name.as_str(), host, "{pattern}");
        assert_eq!(
            found[0].settings.user.as_ref().map(|s| s.value.as_str()),
            user,
            "{pattern}"
        );
        assert_eq!(
            found[0].settings.port.as_ref().map(|s| s.value),
            port,
            "{pattern}"
        );
        assert_eq!(found[0].settings.connection, None, "{pattern}");
        assert!(!found[0].listed);
    }
    let order: Vec<String> = dial("z,n[1-2]")
        .unwrap()
        .iter()
        .map(|host| host.name.to_string())
        .collect();
    assert_eq!(order, ["z", "n1", "n2"]);
    assert!(
        dial("a:1,a:2")
            .unwrap_err()
            .to_string()
            .contains("second time")
    );
    assert_eq!(dial("a,u@a").unwrap().len(), 1);
    let error = pick(&good(FLEET), "u@web").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`web` is a group, which has no one user or port"
    );
}

#[test]
fn localhost_is_local_unless_something_says_otherwise() {
    let local = |found: &[Selected]| found[0].settings.connection.as_ref().map(|s| s.value);
    assert_eq!(local(&dial("localhost").unwrap()), Some(Connection::Local));
    assert_eq!(local(&dial("localhost:2222").unwrap()), None);
    assert_eq!(local(&dial("127.0.0.1").unwrap()), None);
    let of = |text: &str| {
        let inventory = good(text);
        let pattern = Pattern::parse("localhost").unwrap();
        local(&pattern.select(&inventory, Unknown::Refuse).unwrap())
    };
    assert_eq!(of("hosts: [db]"), Some(Connection::Local));
    assert_eq!(of("hosts: [localhost]"), Some(Connection::Local));
    assert_eq!(
        of("hosts: {localhost: {connection: ssh}}"),
        Some(Connection::Ssh)
    );
    assert_eq!(of("hosts: {localhost: {port: 2222}}"), None);
}

#[test]
fn groups_are_merged_under_hosts() {
    let inventory = good("\
vars: {a: top, b: top, c: top, d: top, e: top}
hosts:
  h: {vars: {e: host}, port: 5}
groups:
  child: {hosts: [h], vars: {c: child}, user: low, port: 4}
  parent: {children: [child], vars: {b: parent, c: parent, d: parent}, user: high, identity: [k1, k2]}
  later: {hosts: ['h*'], vars: {b: later, d: later}}
  new: {hosts: {fresh: {connection: local}}}
");
    let host = inventory.get("h").unwrap();
    let vars = serde_json::to_value(&host.vars).unwrap();
    let wanted =
        serde_json::json!({"a": "top", "b": "later", "c": "child", "d": "later", "e": "host"});
    assert_eq!(vars, wanted);
    let user = host.settings.user.as_ref().unwrap();
    assert_eq!(
        (user.value.as_str(), user.origin.as_str()),
        ("low", "i.yml:5 (group child)")
    );
    let port = host.settings.port.as_ref().unwrap();
    assert_eq!((port.value, port.origin.as_str()), (5, "i.yml:3"));
    assert_eq!(host.settings.identity.as_ref().unwrap().value, ["k1", "k2"]);
    assert_eq!(host.groups, ["child", "later", "parent"]);
    assert_eq!(names(&inventory), ["h", "fresh"]);
    let groups: Vec<_> = inventory
        .groups()
        .map(|(name, hosts)| (name, hosts.len()))
        .collect();
    assert_eq!(
        groups,
        [("child", 1), ("parent", 1), ("later", 1), ("new", 1)]
    );
}

#[test]
fn scalars_keep_their_spelling() {
    let inventory = good("hosts: {10: , 007: , no: , 1e3: , true: }");
    assert_eq!(names(&inventory), ["10", "007", "no", "1e3", "true"]);
    let inventory = good("hosts: {a: {vars: {x: no, mode: 0644, n: 3, y: true, z: null}}}");
    let vars = serde_json::to_value(&inventory.get("a").unwrap().vars).unwrap();
    let wanted = serde_json::json!({"x": "no", "mode": "0644", "n": 3, "y": true, "z": null});
    assert_eq!(vars, wanted);
}

#[test]
fn yaml_mistakes_are_all_told_with_their_places() {
    let found = refused(
        "\
hosts:
  web[01-02]: {usr: x, jump: b, port: 0}
  web02:
  $(id):
  pair[1-2]: {address: 10.0.0.1}
  b: {user: -x, connection: telnet}
  b:
groups:
  one: {children: [two, tow], address: x}
  two: {children: [one]}
  all: {}
  b: {}
extra: 1
",
    );
    let wanted = [
        "13:1 \"extra\": an inventory has no key `extra`",
        "2:16 \"usr\": a host has no key `usr` | did you mean `user`?",
        "2:24 \"jump\": `jump` cannot be used in an inventory yet",
        "2:39 \"0\": `0` is not a port",
        "3:3 \"web02\": host `web02` is defined twice | it is first defined at line 2",
        "4:3 \"$(id)\": `$(id)` is not a host: its name contains `$`",
        "5:3 \"pair[1-2]\": `pair[1-2]` is 2 hosts, which cannot all have one address",
        "6:13 \"-x\": the user `-x` begins with `-`",
        "6:29 \"telnet\": `telnet` is not a connection",
        "7:3 \"b\": the key `b` stands here twice | it first stands at line 6",
        "9:25 \"tow\": there is no group `tow` | did you mean",
        "9:31 \"address\": a group has no key `address`",
        "its own child",
        "11:3 \"all\": `all` always means every host",
        "12:3 \"b\": `b` is both a host and a group",
    ];
    for line in wanted {
        assert!(found.contains(line), "missing {line}\nin\n{found}");
    }
    assert_eq!(found.lines().count(), wanted.len(), "{found}");
}

#[test]
fn broken_yaml_is_refused_with_a_place() {
    for text in [
        "hosts: [a",
        "hosts:\n\tb:",
        "hosts: !!python/object:os.system [a]",
        "hosts: &a [*a]",
        "hosts: [*b]",
        "hosts: [a]\n---\nhosts: [b]",
        "hosts: [\"a\u{1}\"]",
        "- a",
        "a\u{7}: b",
    ] {
        let found = yaml(text).unwrap_err();
        assert!(
            found.iter().all(|one| one.at.is_some()),
            "{text:?} {found:?}"
        );
    }
    assert_eq!(names(&good("\u{feff}hosts: [a]")), ["a"]);
    assert!(good("").is_empty());
    let merged = good("hosts: {a: &x {user: u}, b: {<<: *x, port: 2}}");
    assert_eq!(
        merged
            .get("b")
            .unwrap()
            .settings
            .user
            .as_ref()
            .unwrap()
            .value
            .as_str(),
        "u"
    );
}

#[test]
fn bombs_are_refused_quickly() {
    let mut laughs = String::from("a0: &a0 [x, x]\n");
    for n in 1..40 {
        laughs.push_str(&format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1));
    }
    let big = "x".repeat(1 << 20);
    let bombs = [
        laughs,
        "[".repeat(1_000_000),
        format!("hosts: {}", "{a: ".repeat(100_000)),
        (0..3_000)
            .map(|n| format!("{}a:\n", " ".repeat(n)))
            .collect(),
        "- ".repeat(1_000_000),
        "x".repeat(9 << 20),
        format!("hosts: {{'n[1-90000]': {{vars: {{x: {big}}}}}}}"),
        format!("hosts: ['n[1-90000]']\nvars: {{x: {big}}}"),
        format!("hosts: {{'n[1-90000]': {{identity: {big}}}}}"),
        format!("hosts: [{}]", "'n[1-90000]',".repeat(50)),
        "hosts: [a]\ngroups:\n".to_owned()
            + &(0..60)
                .map(|n| format!("  g{n}: ['n[1-90000]']\n"))
                .collect::<String>(),
    ];
    for (at, bomb) in bombs.iter().enumerate() {
        let start = std::time::Instant::now();
        let found = yaml(bomb)
            .err()
            .unwrap_or_else(|| panic!("bomb {at} was accepted"));
        assert!(found.len() <= 101, "bomb {at}");
        assert!(
            start.elapsed().as_secs() < 10,
            "bomb {at} took {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn lists_are_read() {
    let text = "\u{feff}# fleet\r\nweb[01-02]\r\n\r\n  u@db:2222  # main\r\nweb02\r\n";
    let loaded = load(&[("l", text)], &["l"]).unwrap();
    assert_eq!(names(&loaded.inventory), ["web01", "web02", "db"]);
    let port = loaded
        .inventory
        .get("db")
        .unwrap()
        .settings
        .port
        .clone()
        .unwrap();
    assert_eq!((port.value, port.origin.as_str()), (2222, "l:4"));
    assert_eq!(
        told(&loaded.warnings),
        "5:1 \"web02\": host `web02` is listed twice"
    );
    let found = load(&[("l", "a\n  -oProxyCommand=x\nb:0\nb:1\nb:2")], &["l"]).unwrap_err();
    let found = told(&found);
    assert!(found.starts_with("2:3 \"-oProxyCommand=x\": "), "{found}");
    assert!(found.contains("\n3:3 \"0\": `0` is not a port"), "{found}");
    assert!(
        found.contains("\n5:1 \"b:2\": host `b` is defined twice | it is first defined at line 4")
    );
    let found = load(&[("l", "[web]\na\n")], &["l"]).unwrap_err();
    assert!(told(&found).contains("Ansible INI"));
    let found = load(&[("l", "a#b\n")], &["l"]).unwrap_err();
    assert!(told(&found).contains("contains `#`"), "{}", told(&found));
}

#[test]
fn sources_are_told_apart_and_merged() {
    let files = [
        (
            "a.yml",
            "hosts: {x: {port: 1, user: u, vars: {k: 1, l: 1}}}\ngroups: {g: [x]}",
        ),
        (
            "b",
            "hosts:\n  x: {port: 2, vars: {k: 2}}\n  y:\ngroups: {g: [y]}\n",
        ),
        ("run", "#!/bin/sh\n"),
        ("empty", "# nothing\n"),
    ];
    let loaded = load(&files, &["a.yml", "b", "z,x", "empty"]).unwrap();
    assert_eq!(names(&loaded.inventory), ["x", "y", "z"]);
    let x = loaded.inventory.get("x").unwrap();
    assert_eq!(x.settings.port.as_ref().unwrap().value, 2);
    assert_eq!(x.settings.user.as_ref().unwrap().value.as_str(), "u");
    assert_eq!(
        serde_json::to_value(&x.vars).unwrap(),
        serde_json::json!({"k": 2, "l": 1})
    );
    assert_eq!(pick(&loaded.inventory, "g").unwrap(), "x y");
    assert_eq!(told(&loaded.warnings), "`empty` has no hosts");
    for (arg, part) in [
        ("run", "cannot be run yet"),
        ("ssh-config", "yet"),
        ("ssh-config:x", "yet"),
        ("vagrant:dir", "yet"),
        (
            "nosuch",
            "no inventory file `nosuch` | for a host of that name write `-i nosuch,`",
        ),
        ("a,b;c", "contains `;`"),
        ("g,", "both a host and a group"),
    ] {
        let found = load(&files, &["a.yml", arg]).unwrap_err();
        assert!(told(&found).contains(part), "{arg}: {}", told(&found));
    }
    assert_eq!(names(&load(&[], &["one,"]).unwrap().inventory), ["one"]);
}

#[test]
fn inline_hosts_are_read() {
    let source = Arc::new(Source {
        path: "p.yml".into(),
        text: "x\nhosts: {}".into(),
    });
    let at = At {
        source,
        span: 2..7,
        label: String::new(),
    };
    let of = |json: serde_json::Value| Inventory::from_inline(json.as_object().unwrap(), &at);
    let made = of(serde_json::json!({"web[1-2]": {"user": "u", "port": 22}, "db": null})).unwrap();
    assert_eq!(names(&made), ["web1", "web2", "db"]);
    assert_eq!(
        made.get("web2")
            .unwrap()
            .settings
            .user
            .as_ref()
            .unwrap()
            .origin,
        "p.yml:2"
    );
    let found = of(serde_json::json!({"web": {"prot": 1}, "-x": null})).unwrap_err();
    assert_eq!(found.len(), 2);
    assert!(
        told(&found).starts_with("2:1 \"hosts\": a host has no key `prot` | did you mean `port`?")
    );
}

#[test]
fn a_host_in_two_places_must_agree_with_itself() {
    let agreed = good("hosts: {a: {port: 1}}\ngroups: {g: {hosts: {a: {port: 1, user: u}}}}");
    assert!(agreed.get("a").unwrap().settings.user.is_some());
    let found = refused("groups: {g: {hosts: {a1: {port: 1}, 'a[1-2]': {port: 2}}}}");
    assert!(
        found.contains(
            "host `a1` is defined twice, in different ways | it is first defined at line 1"
        ),
        "{found}"
    );
    let found = refused("hosts: {a: {vars: {k: 1}}}\ngroups: {g: {hosts: {a: {vars: {k: 2}}}}}");
    assert!(
        found.contains("2:22 \"a\": host `a` is defined twice"),
        "{found}"
    );
}

#[test]
fn rings_through_several_files_are_told_with_all_their_groups() {
    let files = [
        ("a.yml", "groups: {x: {children: [y]}, y: , under: [h]}"),
        (
            "b.yml",
            "groups: {y: {children: [z, under]}, z: {children: [x]}}",
        ),
    ];
    let found = told(&load(&files, &["a.yml", "b.yml"]).unwrap_err());
    let turns = ["x: x > y > z > x", "y: y > z > x > y", "z: z > x > y > z"];
    assert!(
        turns.iter().any(|turn| found.contains(&format!(
            "`{}` is its own child{}",
            &turn[..1],
            &turn[1..]
        ))),
        "{found}"
    );
    assert_eq!(found.lines().count(), 1, "{found}");
    let found = refused("groups: {a: {children: [a]}}");
    assert!(
        found.starts_with("1:25 \"a\": the group `a` is its own child |"),
        "{found}"
    );
}

#[test]
fn children_and_patterns_reach_the_groups_and_hosts_of_other_sources() {
    let files = [
        (
            "a.yml",
            "groups: {site: {children: [web], hosts: ['db*'], vars: {k: v}}}",
        ),
        ("b.yml", "groups: {web: ['w[1-2]']}"),
        ("c", "db1\n"),
    ];
    for order in [["a.yml", "b.yml", "c"], ["c", "b.yml", "a.yml"]] {
        let loaded = load(&files, &order).unwrap();
        let mut members: Vec<String> = pick(&loaded.inventory, "site")
            .unwrap()
            .split(' ')
            .map(str::to_owned)
            .collect();
        members.sort();
        assert_eq!(members, ["db1", "w1", "w2"]);
        assert_eq!(loaded.inventory.get("db1").unwrap().vars["k"], "v");
        assert_eq!(told(&loaded.warnings), "");
    }
    let found = load(&files, &["a.yml", "c"]).unwrap_err();
    assert_eq!(told(&found), "1:28 \"web\": there is no group `web`");
    // Another source may define it, but nobody knows: it is not there.
    let found = load(&files, &["a.yml", "none.yml"]).unwrap_err();
    assert!(told(&found).starts_with("there is no inventory file `none.yml`"));
    assert_eq!(found.len(), 1);
    let found = refused("hosts: [h]\ngroups: {g: {children: [h]}}");
    assert!(found.contains("no group `h` | it is a host"), "{found}");
}

#[test]
fn a_name_for_a_host_and_a_group_is_told_with_both_places() {
    let files = [("a.yml", "groups:\n  x: [h]"), ("b", "# one\nx\n")];
    for order in [["a.yml", "b"], ["b", "a.yml"]] {
        let found = told(&load(&files, &order).unwrap_err());
        let wanted = "2:3 \"x\": `x` is both a host and a group | the host stands at b:2;";
        assert!(found.starts_with(wanted), "{found}");
    }
}

#[test]
fn variables_of_an_inventory_are_names_that_templates_can_use() {
    let found = refused(
        "vars: {my-var: 1, inner: {any-key: 1}}\n\
         hosts: {a: {vars: {1st: x}}}\n\
         groups: {g: {hosts: [a], vars: {in: y}}}",
    );
    for line in [
        "1:8 \"my-var\": `my-var` cannot be the name of a variable | letters, digits and `_`, \
         not beginning with a digit: `my_var`",
        "2:20 \"1st\": `1st` cannot be the name of a variable | letters, digits and `_`, \
         not beginning with a digit: `_1st`",
        "3:33 \"in\": `in` cannot be the name of a variable | the word has a meaning in expressions",
    ] {
        assert!(found.contains(line), "missing {line}\nin\n{found}");
    }
    assert_eq!(found.lines().count(), 3, "{found}");
}

#[test]
fn twenty_thousand_hosts_load_and_select() {
    let mut text = String::from("hosts:\n");
    for n in 0..20_000 {
        text.push_str(&format!("  h{n}: {{user: u, port: 22}}\n"));
    }
    text.push_str("groups: {even: {hosts: ['h[0-19998/2]'], vars: {k: v}}, wide: ['h*']}\n");
    let inventory = good(&text);
    assert_eq!(inventory.hosts().len(), 20_000);
    assert_eq!(
        pick(&inventory, "even & wide").unwrap().split(' ').count(),
        10_000
    );
    assert_eq!(
        pick(&inventory, "h[0-19999] !even")
            .unwrap()
            .split(' ')
            .count(),
        10_000
    );
    assert_eq!(fold(names(&inventory)), "h[0-19999]");
}

#[test]
fn made_fleets_are_one_group() {
    let host = |name: &str| (HostName::new(name).unwrap(), Settings::default());
    let made = Inventory::with_hosts("fleet", vec![host("b"), host("a"), host("b")]);
    assert_eq!(pick(&made, "@fleet").unwrap(), "b a");
    assert_eq!(made.get("a").unwrap().groups, ["fleet"]);
}

#[test]
fn the_disk_refuses_what_is_too_large_or_not_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i");
    std::fs::write(&path, b"abc").unwrap();
    assert_eq!(Disk.read(&path, 3).unwrap(), "abc");
    assert_eq!(
        Disk.read(&path, 2).unwrap_err().kind(),
        io::ErrorKind::FileTooLarge
    );
    std::fs::write(&path, b"a\xff").unwrap();
    assert_eq!(
        Disk.read(&path, 9).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    assert!(Disk.is_file(&path) && !Disk.is_file(dir.path()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn folding_loses_and_invents_nothing(names in prop::collection::vec("[ab]{0,1}[0-2]{1,3}[.x]?[0-9]{0,2}", 0..40)) {
        let folded = fold(&names);
        let back: BTreeSet<String> = expand(&folded).unwrap().into_iter().collect();
        let wanted: BTreeSet<String> = names.into_iter().collect();
        prop_assert_eq!(back.len(), expand(&folded).unwrap().len());
        prop_assert_eq!(back, wanted, "{}", folded);
    }

    #[test]
    fn nothing_panics(text in ".{0,40}", odd in r"[\[\]a1,/!&@:*?. \-]{0,20}") {
        for text in [text, odd] {
            let _ = expand(&text);
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.select(&good(FLEET), Unknown::Dial);
            }
            let _ = load(&[("l", &text)], &["l"]);
            let _ = yaml(&text);
        }
    }

    #[test]
    fn sets_obey_the_oracle(terms in prop::collection::vec((0..3_usize, 0..64_u32), 1..8)) {
        let hosts = (0..6).map(|n| (HostName::new(&format!("h{n}")).unwrap(), Settings::default()));
        let inventory = Inventory::with_hosts("g", hosts.collect());
        let mut text = String::new();
        let mut wanted = 0_u32;
        for (at, (operator, bits)) in terms.into_iter().enumerate() {
            let bits = if bits == 0 { 1 } else { bits };
            let members: Vec<String> = (0..6).filter(|n| bits >> n & 1 == 1).map(|n| n.to_string()).collect();
            let operator = if at == 0 { 0 } else { operator };
            text.push_str([",", " & ", " !"][operator]);
            text.push_str(&format!("h[{}]", members.join(",")));
            wanted = match operator { 0 => wanted | bits, 1 => wanted & bits, _ => wanted & !bits };
        }
        let found = Pattern::parse(&text).unwrap().select_or_empty(&inventory, Unknown::Refuse).unwrap();
        let found: Vec<String> = found.iter().map(|host| host.name.to_string()).collect();
        let order: Vec<String> = (0..6).filter(|n| wanted >> n & 1 == 1).map(|n| format!("h{n}")).collect();
        prop_assert_eq!(found, order, "{}", text);
    }

    #[test]
    fn globs_match_as_their_regular_expressions(glob in "[ab?]{0,2}[*?][ab*?]{0,5}", name in "[ab]{1,8}") {
        let inventory = Inventory::with_hosts("g", vec![(HostName::new(&name).unwrap(), Settings::default())]);
        let regex = format!("^{}$", glob.replace('*', ".*").replace('?', "."));
        let found = Pattern::parse(&glob).unwrap().select_or_empty(&inventory, Unknown::Refuse).unwrap();
        prop_assert_eq!(found.len() == 1, regex::Regex::new(&regex).unwrap().is_match(&name), "{} {}", glob, name);
    }
}
