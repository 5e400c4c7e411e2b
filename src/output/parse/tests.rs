//! Outputs of real programs, what is refused and how, and the laws of all parsers.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::rows::{Columns, Matching, Pairs, Split, Unit, Value};

fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parse");
    std::fs::read(folder.join(name)).unwrap()
}

fn parsed(spec: &ParseSpec, text: &[u8]) -> Result<Vec<Row>, BadLine> {
    let mut parser = Parser::new(spec);
    let mut rows = Vec::new();
    parser.push(text, &mut rows).map_err(|bad| *bad)?;
    parser.finish(&mut rows).map_err(|bad| *bad)?;
    Ok(rows)
}

fn good(spec: &ParseSpec, text: &[u8]) -> Vec<Row> {
    parsed(spec, text).unwrap_or_else(|bad| panic!("{bad}\n{}", bad.drawn().join("\n")))
}

fn fields(rows: &[Row]) -> Json {
    rows.iter().map(|row| Json::Object(row.fields())).collect()
}

/// What is said of the first bad line, and the bytes that are underlined.
fn bad(spec: &ParseSpec, text: &[u8]) -> (String, String) {
    let bad = parsed(spec, text).expect_err("it must not fit");
    let span = String::from_utf8_lossy(&bad.text[bad.span.clone()]).into_owned();
    (bad.to_string(), span)
}

fn du(unit: Unit) -> ParseSpec {
    ParseSpec::of(Format::Du {
        names: Format::DU.map(str::to_owned),
        unit,
        zero: false,
    })
}

fn df() -> ParseSpec {
    ParseSpec::of(Format::Df { unit: Unit::Unsaid })
}

fn columns(columns: Columns, types: &[(&str, Type)]) -> ParseSpec {
    ParseSpec {
        types: types
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .collect(),
        ..ParseSpec::of(Format::Columns(columns))
    }
}

fn headed() -> Columns {
    Columns {
        header: true,
        ..Columns::default()
    }
}

fn separated(delimiter: u8) -> ParseSpec {
    ParseSpec::of(Format::Separated {
        delimiter,
        header: true,
        names: Vec::new(),
    })
}

fn matches(pattern: &str, matching: Matching) -> ParseSpec {
    ParseSpec::of(Format::Regex {
        pattern: regex::bytes::Regex::new(pattern).unwrap(),
        matching,
    })
}

fn pairs(separator: &str, quotes: bool, blocks: bool) -> ParseSpec {
    ParseSpec::of(Format::Pairs(Pairs {
        separator: separator.to_owned(),
        quotes,
        blocks,
    }))
}

#[test]
fn du_of_gnu_and_busybox() {
    for name in ["du-gnu.txt", "du-busybox.txt"] {
        let text = fixture(name);
        // A name with a newline is a line that does not fit; only -0 can tell it.
        let strict = parsed(&du(Unit::Unsaid), &text).unwrap_err();
        assert_eq!(
            (strict.number, &strict.text[..]),
            (8, &b"line"[..]),
            "{name}"
        );
        let lenient = ParseSpec {
            strict: false,
            ..du(Unit::Unsaid)
        };
        let mut parser = Parser::new(&lenient);
        let mut rows = Vec::new();
        parser.push(&text, &mut rows).unwrap();
        parser.finish(&mut rows).unwrap();
        assert_eq!(rows.len(), 9, "{name}");
        let first = json!({"size": 2932 * 1024, "path": "site/with space/b"});
        assert_eq!(fields(&rows[..1]), json!([first]), "{name}");
        let tab = rows[2].get("path").unwrap();
        assert_eq!(*tab, Value::Text(Bytes::from_static(b"site/tab\tname/c")));
        let unparsed = parser.into_unparsed();
        assert_eq!((unparsed.total, unparsed.lines[0].number), (1, 8));
    }
}

#[test]
fn du_with_zero_tells_every_name() {
    let spec = ParseSpec::of(Format::Du {
        names: Format::DU.map(str::to_owned),
        unit: Unit::Blocks(1024),
        zero: true,
    });
    let rows = good(&spec, &fixture("du-gnu-zero.bin"));
    assert_eq!(rows.len(), 9);
    let paths: Vec<&Value> = rows.iter().filter_map(|row| row.get("path")).collect();
    let text = |bytes| Value::Text(Bytes::from_static(bytes));
    assert!(paths.contains(&&text(b"site/new\nline")));
    assert!(paths.contains(&&text(b"site/bad\xff")));
}

#[test]
fn du_counts_what_the_unit_says() {
    let first = |unit, name: &str| {
        let lenient = ParseSpec {
            strict: false,
            ..du(unit)
        };
        let row = good(&lenient, &fixture(name)).remove(0);
        (row.get("size").unwrap().json(), row.approximate)
    };
    assert_eq!(
        first(Unit::Blocks(1), "du-gnu-bytes.txt"),
        (json!(3_000_000), false)
    );
    assert_eq!(
        first(Unit::Human, "du-gnu-human.txt"),
        (json!(3_040_870), true)
    );
    assert_eq!(
        first(Unit::Human, "du-busybox-human.txt"),
        (json!(3_040_870), true)
    );
    assert_eq!(first(Unit::Si, "du-gnu-si.txt"), (json!(3_100_000), true));
    let line = |unit, text: &[u8]| good(&du(unit), text)[0].get("size").unwrap().json();
    assert_eq!(line(Unit::Unsaid, b"1.5G\t/x"), json!(3u64 << 29));
    assert_eq!(line(Unit::Unsaid, b"1,5G\t/x"), json!(3u64 << 29));
    assert_eq!(line(Unit::Blocks(512), b"3\t/x"), json!(1536));
    assert_eq!(line(Unit::Human, b"512\t/x"), json!(512));
}

#[test]
fn du_refuses_what_it_cannot_know() {
    let said = "bare numbers stand beside suffixes: say what they count, as `unit: human` for -h";
    let line = format!("line 3 of the output does not fit `du`: {said}");
    let mixed = b"0\ta\n1.5G\tb\n512\tc\n";
    assert_eq!(bad(&du(Unit::Unsaid), mixed), (line, "512".into()));
    assert!(parsed(&du(Unit::Human), mixed).is_ok());
    let cases: [(&[u8], &str, &str); 5] = [
        (b"12 /x", "a size, a TAB and a path are expected", "12 /x"),
        (b"", "a size, a TAB and a path are expected", ""),
        (b"12\t", "a path is expected behind the TAB", "\t"),
        (
            b"1.5\t/x",
            "a size such as `512`, `1.5G` or `10MiB` is expected",
            "1.5",
        ),
        (
            b"18014398509481984\t/x",
            "the number does not fit 64 bits",
            "18014398509481984",
        ),
    ];
    for (text, expected, span) in cases {
        let text = [text, b"\n"].concat();
        let said = format!("line 1 of the output does not fit `du`: {expected}");
        assert_eq!(bad(&du(Unit::Unsaid), &text), (said, span.into()));
    }
}

#[test]
fn df_of_gnu_and_busybox_by_position() {
    let row = |name: &str, at: usize| {
        let rows = good(&df(), &fixture(name));
        Json::Object(rows[at].fields())
    };
    let nas = json!({
        "filesystem": "nas01.example.com:/data", "size": 4096, "used": 0, "available": 4096, "use": 0,
        "mount": "/srv/shared data",
    });
    for (name, at) in [
        ("df-gnu.txt", 3),
        ("df-gnu-human.txt", 3),
        // The name is longer than its column: its numbers are on the next line.
        ("df-busybox.txt", 3),
        ("df-busybox-human.txt", 3),
        ("df-busybox-posix.txt", 3),
    ] {
        assert_eq!(row(name, at), nas, "{name}");
    }
    assert_eq!(row("df-gnu-type.txt", 2)["type"], "ext4");
    assert_eq!(row("df-gnu-type.txt", 2)["mount"], "/");
    assert_eq!(row("df-posix.txt", 0)["size"], 264_212_084u64 * 1024);
    let inodes = json!({
        "filesystem": "/dev/vda", "inodes": 16_777_216, "used": 518_630, "free": 16_258_586, "use": 4,
        "mount": "/",
    });
    assert_eq!(row("df-gnu-inodes.txt", 2), inodes);
    let total = row("df-gnu-total.txt", 2);
    assert_eq!(
        (&total["size"], &total["mount"]),
        (&json!(295_829_676_032u64), &Json::Null)
    );
    let spec = ParseSpec::of(Format::Df { unit: Unit::Si });
    let rows = good(&spec, &fixture("df-gnu-si.txt"));
    assert_eq!(rows[2].get("size"), Some(&Value::Size(271_000_000_000)));
    assert!(rows[2].approximate);
}

#[test]
fn df_in_other_languages_and_of_other_systems() {
    let german = "Dateisystem    1K-Blöcke Benutzt Verfügbar Verw% Eingehängt auf\n\
                  /dev/sda 1000 250 750 25% /\n";
    let mac = "Filesystem    512-blocks      Used Available Capacity iused      ifree %iused  Mounted on\n\
               map -hosts             -         -         -    -       0          0     -  /net\n\
               /dev/disk1s1 1000 250 -10 94% 488 9223372036854775807 0% /System/Volumes/My Data\n";
    let row = |text: &str, at: usize| Json::Object(good(&df(), text.as_bytes())[at].fields());
    let expected = json!({
        "filesystem": "/dev/sda", "size": 1_024_000, "used": 256_000, "available": 768_000, "use": 25,
        "mount": "/",
    });
    assert_eq!(row(german, 0), expected);
    let expected = json!({
        "filesystem": "map -hosts", "size": null, "used": null, "available": null, "use": null,
        "mount": "/net",
    });
    assert_eq!(row(mac, 0), expected);
    assert_eq!(row(mac, 1)["available"], -5120);
    assert_eq!(row(mac, 1)["mount"], "/System/Volumes/My Data");
}

#[test]
fn df_refuses_other_text() {
    let (said, _) = bad(&df(), b"/dev/sda 1 2 3 4% /\n");
    assert!(
        said.ends_with("the header of `df` is expected first"),
        "{said}"
    );
    let head = "Filesystem 1K-blocks Used Available Use% Mounted on\n";
    let cases = [
        (
            "df: /x: Stale file handle\n",
            "three numbers, a percentage and a mount point are expected",
        ),
        ("/dev/sda 1 2 3 4%\n", "a mount point is expected"),
        (
            "/dev/sda 1 2 99999999999999999999 4% /\n",
            "the number does not fit 64 bits",
        ),
        ("/dev/sda\n", "numbers are expected behind the name"),
    ];
    for (text, expected) in cases {
        let (said, _) = bad(&df(), format!("{head}{text}").as_bytes());
        assert!(said.ends_with(expected), "{said}");
    }
    let bad = parsed(&df(), format!("{head}long-name\n  1 2 x 4% /\n").as_bytes()).unwrap_err();
    assert_eq!(bad.drawn()[0], "3 | long-name  1 2 x 4% /");
}

#[test]
fn ps_and_ls_as_columns() {
    let rest = Columns {
        last_rest: true,
        ..headed()
    };
    let types = [
        ("pid", Type::Int),
        ("cpu", Type::Float),
        ("rss", Type::Int),
        ("elapsed", Type::Duration),
    ];
    let rows = good(&columns(rest.clone(), &types), &fixture("ps-gnu.txt"));
    let first = json!({
        "user": "root", "pid": 1, "cpu": 0.4, "rss": 16908, "elapsed": 20433, "command": "/sbin/init splash",
    });
    assert_eq!((rows.len(), Json::Object(rows[0].fields())), (11, first));
    let rows = good(
        &columns(rest, &[("pid", Type::Int)]),
        &fixture("ps-busybox.txt"),
    );
    assert_eq!(rows[0].fields()["command"], "[kthreadd]");

    let ls = Columns {
        skip: 1,
        last_rest: true,
        names: [
            "mode", "links", "owner", "group", "size", "date", "time", "zone", "name",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Columns::default()
    };
    let spec = ParseSpec {
        strict: false,
        ..columns(ls, &[("size", Type::Size), ("links", Type::Int)])
    };
    let mut parser = Parser::new(&spec);
    let mut rows = Vec::new();
    parser.push(&fixture("ls-gnu.txt"), &mut rows).unwrap();
    let last = rows.last().unwrap().fields();
    assert_eq!(
        (&last["name"], &last["size"]),
        (&json!("with space"), &json!(4096))
    );
    // The second half of a name with a newline.
    assert_eq!(parser.into_unparsed().total, 1);
    let ls = Columns {
        skip: 1,
        last_rest: true,
        names: [
            "mode", "links", "owner", "group", "size", "month", "day", "time", "name",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Columns::default()
    };
    let rows = good(
        &columns(ls, &[("size", Type::Size)]),
        &fixture("ls-busybox.txt"),
    );
    assert_eq!(rows[6].fields()["name"], "with space");
}

#[test]
fn columns_below_their_names() {
    let aligned = Columns {
        split: Split::Aligned,
        ..headed()
    };
    let text = "CONTAINER ID   IMAGE     NAMES\n\
                0123456789ab   café:1    web 1\n\
                ba9876543210             db\n\n";
    let rows = good(&columns(aligned.clone(), &[]), text.as_bytes());
    let expected = json!([
        {"container_id": "0123456789ab", "image": "café:1", "names": "web 1"},
        {"container_id": "ba9876543210", "image": "", "names": "db"},
    ]);
    assert_eq!(fields(&rows), expected);
    let text = "NAME   AGE\ntoolong-name 5\n";
    let (said, span) = bad(&columns(aligned, &[]), text.as_bytes());
    assert!(
        said.ends_with("a space is expected between two columns"),
        "{said}"
    );
    assert_eq!(span, "g-");
}

#[test]
fn columns_at_a_separator() {
    let passwd = Columns {
        split: Split::At(":".into()),
        names: ["name", "password", "uid", "gid", "comment", "home", "shell"]
            .map(str::to_owned)
            .to_vec(),
        ..Columns::default()
    };
    let spec = columns(passwd, &[("uid", Type::Int)]);
    let rows = good(&spec, b"root:x:0:0:root,,:/root:/bin/bash\r\n");
    let row = rows[0].fields();
    assert_eq!(
        (&row["uid"], &row["shell"]),
        (&json!(0), &json!("/bin/bash"))
    );
    let (said, span) = bad(&spec, b"a:b:c\n");
    assert!(
        said.ends_with("7 columns are expected, here are 3"),
        "{said}"
    );
    assert_eq!(span, "a:b:c");
    let (said, span) = bad(&spec, b"a:b:x:d:e:f:g\n");
    assert!(
        said.ends_with("`uid`: a whole number is expected"),
        "{said}"
    );
    assert_eq!(span, "x");
}

#[test]
fn headers_must_name_every_column_once() {
    let said = |text: &str, types| bad(&columns(headed(), types), text.as_bytes()).0;
    assert!(said("A B a\n", &[]).ends_with("two columns are named `a`: say others in `names`"));
    assert!(said("A ++ C\n", &[]).ends_with("column 2 has no name: say them in `names`"));
    let said = said("A B\n", &[("c", Type::Int)]);
    assert!(
        said.ends_with("`types` names a column `c`, but there are: a, b"),
        "{said}"
    );
}

#[test]
fn pairs_of_os_release_and_systemctl() {
    let rows = good(&pairs("=", true, false), &fixture("os-release.txt"));
    let row = rows[0].fields();
    assert_eq!(
        (rows.len(), &row["NAME"], &row["ID"]),
        (1, &json!("Debian GNU/Linux"), &json!("debian"))
    );
    let rows = good(&pairs("=", false, true), &fixture("systemctl-show.txt"));
    let ids: Vec<Json> = rows.iter().map(|row| row.fields()["Id"].clone()).collect();
    assert_eq!(ids, [json!("ssh.service"), json!("cron.service")]);
    let row = rows[0].fields();
    assert_eq!(row["Environment"], "\"GREETING=hello world\" LANG=C");
    assert!(
        row["ExecStart"]
            .as_str()
            .unwrap()
            .contains("argv[]=/usr/sbin/sshd -D $SSHD_OPTS")
    );
    let (said, span) = bad(&pairs("=", false, false), &fixture("systemctl-show.txt"));
    assert_eq!(span, "Type");
    assert!(
        said.contains("`Type` came before; `blocks: true`"),
        "{said}"
    );
    let (said, _) = bad(&pairs("=", true, false), b"A=1\nB=\"open\n");
    assert!(
        said.starts_with("line 2") && said.contains("closing quote"),
        "{said}"
    );
    assert!(
        bad(&pairs("=", true, false), b"nothing\n")
            .0
            .ends_with("a key and `=` are expected")
    );
}

#[test]
fn csv_and_tsv_of_other_programs() {
    let spec = ParseSpec {
        types: vec![("size".into(), Type::Int)],
        ..separated(b',')
    };
    let expected = json!([
        {"name": "plain", "note": "", "size": 12},
        {"name": "quoted", "note": "a \"b\", c", "size": 0},
        {"name": "lines", "note": "one\ntwo\r\nthree", "size": u64::MAX},
        {"name": "épée", "note": " spaces ", "size": 7},
    ]);
    let text = fixture("table.csv");
    assert_eq!(fields(&good(&spec, &text)), expected);
    // As the csv crate reads it.
    let mut reader = csv::Reader::from_reader(&text[..]);
    let names: Vec<String> = reader
        .records()
        .map(|record| record.unwrap()[1].to_owned())
        .collect();
    let notes: Vec<String> = good(&spec, &text)
        .iter()
        .map(|row| row.fields()["note"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(notes, names);
    let rows = good(&separated(b'\t'), &fixture("table.tsv"));
    assert_eq!(rows[0].fields()["note"], "a\tb");
    let named = ParseSpec::of(Format::Separated {
        delimiter: b',',
        header: false,
        names: vec!["a".into(), "b".into()],
    });
    assert_eq!(
        fields(&good(&named, b"\xef\xbb\xbf1,2\n\n")),
        json!([{"a": "1", "b": "2"}])
    );
}

#[test]
fn csv_refuses_broken_records() {
    let said = |text: &[u8]| {
        let bad = parsed(&separated(b','), text).unwrap_err();
        (bad.number, bad.expected.clone(), bad.span.clone())
    };
    let open = "the quote that begins here is never closed".to_owned();
    assert_eq!(said(b"a,b\n1,\"x\ny\n"), (2, open, 2..3));
    let count = "2 cells are expected, here are 3".to_owned();
    assert_eq!(said(b"a,b\n\n1,2,3\n"), (3, count, 4..5));
    let behind = "the end of the cell is expected behind its closing quote".to_owned();
    assert_eq!(said(b"a,b\n\"x\"y,2\n"), (2, behind, 3..4));
    assert_eq!(
        fields(&good(&separated(b','), b"a\n5\" disk\n")),
        json!([{"a": "5\" disk"}])
    );
}

#[test]
fn json_whole_with_a_path_and_line_by_line() {
    let whole = |path: &[&str]| {
        let path = path.iter().map(|step| (*step).to_owned()).collect();
        ParseSpec::of(Format::Json { path })
    };
    let text = fixture("ip-addr.json");
    let rows = good(&whole(&["0", "addr_info"]), &text);
    assert_eq!(
        (rows.len(), &rows[0].fields()["local"]),
        (2, &json!("127.0.0.1"))
    );
    let rows = good(&whole(&[]), &text);
    assert_eq!(rows[0].get("mtu"), Some(&Value::Int(65536)));
    assert!(matches!(rows[0].get("flags"), Some(Value::Nested(_))));
    let (said, _) = bad(&whole(&["0", "adr"]), &text);
    assert!(
        said.ends_with("`adr` of the path `0.adr` is expected"),
        "{said}"
    );
    let broken = parsed(&whole(&[]), b"[\n {\"a\": 1},\n {\"b\" 2}\n]\n").unwrap_err();
    assert_eq!((broken.number, &broken.text[..]), (3, &b" {\"b\" 2}"[..]));
    assert_eq!(broken.drawn()[1], "  |       ^");
    assert!(parsed(&whole(&[]), b"").is_err());
    assert!(parsed(&whole(&[]), b"[1, 2").is_err());

    let spec = ParseSpec {
        types: vec![("size".into(), Type::Size)],
        ..ParseSpec::of(Format::Ndjson)
    };
    let rows = good(&spec, b"{\"size\": \"1K\", \"x\": 1e2}\n\n7\n");
    assert_eq!(
        fields(&rows),
        json!([{"size": 1024, "x": 100}, {"value": 7}])
    );
    let (said, span) = bad(&spec, b"{}\n{\"id\": 18446744073709551616}\n");
    assert_eq!((&said[..6], &span[..]), ("line 2", "18446744073709551616"));
    assert!(parsed(&spec, b"{\"id\": \"18446744073709551616\"}\n").is_ok());
}

#[test]
fn groups_of_a_regular_expression() {
    let text = b"a=1 b=2\nnothing\nc=3\n";
    let pattern = r"(?<key>\w)=(?<value>\d)(?<more>!)?";
    let rows = good(&matches(pattern, Matching::All), text);
    assert_eq!(rows.len(), 3);
    let last = json!({"key": "c", "value": "3", "more": null});
    assert_eq!(Json::Object(rows[2].fields()), last);
    assert_eq!(good(&matches(pattern, Matching::First), text).len(), 1);
    let (said, span) = bad(&matches(pattern, Matching::Lines), text);
    assert_eq!((&said[..6], &span[..]), ("line 2", "nothing"));
    let none = parsed(&matches("(?<x>z)", Matching::First), text).unwrap_err();
    assert_eq!(none.number, 0);
}

#[test]
fn a_line_without_end_is_an_error_and_not_memory() {
    let long = vec![b'x'; 64 << 10];
    for strict in [true, false] {
        let spec = ParseSpec {
            strict,
            ..ParseSpec::of(Format::Lines)
        };
        let mut parser = Parser::new(&spec);
        let mut rows = Vec::new();
        let end = (0..40).find_map(|_| parser.push(&long, &mut rows).err());
        assert_eq!(
            end.unwrap().expected,
            "at most 1024 KiB a line are expected"
        );
        assert!(parser.partial.len() <= MAX_LINE && rows.is_empty());
    }
    let just = [vec![b'x'; MAX_LINE], b"\n".to_vec()].concat();
    assert_eq!(good(&ParseSpec::of(Format::Lines), &just).len(), 1);
}

#[test]
fn rows_of_endless_columns_and_texts_of_endless_values_are_refused() {
    let many = |format: fn(usize) -> String, between: &str| {
        let parts: Vec<String> = (0..=MAX_COLUMNS).map(format).collect();
        parts.join(between)
    };
    let names = many(|at| format!("c{at}"), " ");
    let (said, _) = bad(&columns(headed(), &[]), names.as_bytes());
    assert!(
        said.ends_with(": at most 10000 columns are expected"),
        "{said}"
    );
    let object = many(|at| format!("\"c{at}\":0"), ",");
    let object = format!("{{{object}}}\n");
    let (said, _) = bad(&ParseSpec::of(Format::Ndjson), object.as_bytes());
    assert!(
        said.ends_with(": at most 10000 columns are expected"),
        "{said}"
    );
    let lines = many(|at| format!("c{at}=0\n"), "");
    let (said, _) = bad(&pairs("=", true, false), lines.as_bytes());
    assert!(
        said.ends_with(": at most 10000 columns are expected"),
        "{said}"
    );
    let whole = ParseSpec::of(Format::Json { path: Vec::new() });
    // All on one line, and longer than lines of other formats may be.
    let values = format!("[0{}]", ",0".repeat(1_000_000));
    assert!(values.len() > MAX_LINE);
    assert_eq!(good(&whole, values.as_bytes()).len(), 1_000_001);
    let values = format!("[0{}]", ",0".repeat(1_000_001));
    let (said, _) = bad(&whole, values.as_bytes());
    assert!(
        said.ends_with(": at most 1000000 values are read as one JSON text"),
        "{said}"
    );
}

/// One of each, with what it is fond of.
fn every_kind() -> Vec<ParseSpec> {
    let aligned = Columns {
        split: Split::Aligned,
        ..headed()
    };
    let tabs = Columns {
        split: Split::At("\t".into()),
        last_rest: true,
        names: vec!["a".into(), "b".into()],
        ..Columns::default()
    };
    let whole = ParseSpec::of(Format::Json {
        path: vec!["a".into()],
    });
    vec![
        du(Unit::Unsaid),
        ParseSpec::of(Format::Du {
            names: Format::DU.map(str::to_owned),
            unit: Unit::Si,
            zero: true,
        }),
        df(),
        ParseSpec::of(Format::Lines),
        columns(headed(), &[]),
        columns(aligned, &[]),
        columns(tabs, &[("a", Type::Size), ("b", Type::Duration)]),
        pairs("=", true, true),
        pairs(":", false, false),
        whole,
        ParseSpec::of(Format::Ndjson),
        separated(b','),
        separated(b'\t'),
        matches(r"(?<a>\w+)(?<b>\d)?", Matching::All),
        matches(r"(?<a>\d+)", Matching::First),
    ]
}

/// Text in which numbers, quotes, separators and other bytes are likely.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => prop::sample::select(&[
            "12", "1.5G", "-", "99999999999999999999", "4%", "\t", " ", "  ", "\n", "\r\n", "\"", ",",
            "=", ":", "{\"a\":", "[", "]", "}", "\\", "Filesystem 1K-blocks Used Avail Use% Mounted on\n",
            "/dev/sda 1 2 3 4% /\n", "é", "\0", "1-02:03:04", "'", "#",
        ][..]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

/// All that a parser says of a text that comes in these pieces.
fn told(spec: &ParseSpec, pieces: &[&[u8]]) -> (Json, Option<BadLine>, u64) {
    let mut parser = Parser::new(spec);
    let mut rows = Vec::new();
    let failed = pieces
        .iter()
        .find_map(|piece| parser.push(piece, &mut rows).err());
    let failed = failed.or_else(|| parser.finish(&mut rows).err());
    (
        fields(&rows),
        failed.map(|bad| *bad),
        parser.into_unparsed().total,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_text_is_a_panic_and_no_cut_changes_the_rows(
        text in text(),
        cut in 1usize..40,
        strict in any::<bool>(),
    ) {
        for spec in every_kind() {
            let spec = ParseSpec { strict, ..spec };
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            let whole = told(&spec, &[&text]);
            prop_assert_eq!(told(&spec, &pieces), whole.clone(), "{}", spec.format.name());
            if let Some(bad) = whole.1 {
                prop_assert!(bad.span.end <= bad.text.len());
                let _ = bad.drawn();
            }
        }
    }

    #[test]
    fn a_table_of_anything_comes_back_from_csv(
        cells in prop::collection::vec(prop::collection::vec("[a,\"\r\n\té ]{0,6}", 3), 1..8),
    ) {
        let mut writer = csv::WriterBuilder::new()
            .quote_style(csv::QuoteStyle::Always)
            .from_writer(Vec::new());
        writer.write_record(["x", "y", "z"]).unwrap();
        for row in &cells {
            writer.write_record(row).unwrap();
        }
        let rows = good(&separated(b','), &writer.into_inner().unwrap());
        let read: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.fields().values().map(|v| v.as_str().unwrap().to_owned()).collect())
            .collect();
        prop_assert_eq!(read, cells);
    }
}

#[test]
fn tenfold_text_is_tenfold_work() {
    let line = |spec: &ParseSpec| match spec.format.name() {
        "df" => "/dev/sda 1 2 3 4% /\n",
        "csv" => "1,\"2\n2\",3\n",
        "kv" => "a=1\n\n",
        "json" => "[1, 2],\n",
        _ => "12\tx\n",
    };
    for spec in every_kind() {
        let spec = ParseSpec {
            strict: false,
            ..spec
        };
        let head = match spec.format.name() {
            "df" => "Filesystem 1K-blocks Used Available Use% Mounted on\n",
            "csv" | "tsv" => "a,b,c\n",
            "json" => "{\"a\": [\n",
            _ => "",
        };
        // Time of this thread alone, so that a busy machine changes nothing; the best of three.
        let work = |times: usize| {
            let text = head.to_owned() + &line(&spec).repeat(times);
            let once = || {
                let begun = thread_time();
                let mut parser = Parser::new(&spec);
                let mut rows = Vec::new();
                for piece in text.as_bytes().chunks(3) {
                    let _ = parser.push(piece, &mut rows);
                    rows.clear();
                }
                let _ = parser.finish(&mut rows);
                thread_time() - begun
            };
            (0..3).map(|_| once()).min().unwrap()
        };
        let (few, many) = (work(2_000), work(20_000));
        // In proportion it is 10, in the square 100.
        let name = spec.format.name();
        assert!(many < few * 40, "{name}: {few:?} {many:?}");
    }
}

fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.try_into().unwrap(),
        now.tv_nsec.try_into().unwrap(),
    )
}
