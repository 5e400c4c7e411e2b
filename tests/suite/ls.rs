//! `fanrun ls` and the `ls` task, over real servers: formats, sums, accounts without a shell, and
//! what cannot be read.

use std::path::Path;
use std::time::Duration;

use crate::fanrun::{Fanrun, holds};
use crate::sshd::Sshd;

fn anything(_: &str) -> bool {
    true
}

fn ls(sshd: &Sshd, place: &str) -> Fanrun {
    let places = sshd.addresses().join(",");
    Fanrun::new(["ls", &format!("{places}:{place}")]).options(sshd.fanrun_args())
}

/// A small tree that every account can read.
fn tree(sshd: &Sshd) -> String {
    let root = sshd.directory().join("tree");
    std::fs::create_dir_all(root.join("logs/old")).unwrap();
    std::fs::write(root.join("logs/a.log"), "12345").unwrap();
    std::fs::write(root.join("logs/old/b.log"), "1234567890").unwrap();
    std::fs::write(root.join("data, \"x\".csv"), "1").unwrap();
    std::os::unix::fs::symlink("logs", root.join("link")).unwrap();
    root.to_str().unwrap().to_owned()
}

#[test]
fn rows_come_in_every_format() {
    let sshd = Sshd::start();
    let root = tree(&sshd);
    let run = |options: &[&str]| {
        ls(&sshd, &root)
            .options(["-r"])
            .options(options.iter().copied())
    };
    let sorted = ["--sort", "path", "--format"];
    let format = |name: &'static str| [&sorted[..], &[name]].concat();
    run(&format("paths")).expect(
        0,
        format!(
            "{root}/data, \"x\".csv\n{root}/link\n{root}/logs\n{root}/logs/a.log\n\
             {root}/logs/old\n{root}/logs/old/b.log\n"
        ),
        anything,
    );
    let columns = ["--columns", "name,type,size,perm,ext,depth"];
    run(&[&format("csv")[..], &columns].concat()).expect(
        0,
        "name,type,size,perm,ext,depth\n\"data, \"\"x\"\".csv\",file,1,0644,csv,1\n\
         link,link,4,0777,,1\nlogs,dir,[..],0755,,1\na.log,file,5,0644,log,2\n\
         old,dir,[..],0755,,2\nb.log,file,10,0644,log,3\n",
        anything,
    );
    run(&[&format("tsv")[..], &["--files", "--columns", "size,name"]].concat()).expect(
        0,
        "size\tname\n1\t\"data, \"\"x\"\".csv\"\n5\ta.log\n10\tb.log\n",
        anything,
    );
    run(&[&format("ndjson")[..], &["--links", "--columns", "target"]].concat()).expect(
        0,
        |text: &str| {
            let row: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
            assert_eq!(
                (&row["kind"], &row["target"]),
                (&"link".into(), &"logs".into())
            );
            assert!(row["mtime"].as_str().unwrap().ends_with('Z'));
            true
        },
        anything,
    );
    run(&format("json")).expect(
        0,
        |text: &str| {
            let rows: serde_json::Value = serde_json::from_str(text).unwrap();
            rows.as_array().unwrap().len() == 6
        },
        anything,
    );
    run(&format("table")).expect(
        0,
        "MODE        OWNER     SIZE  MODIFIED              PATH\n...\n\
         -rw-r--r--  [..]  10 B  [..]Z  [..]/logs/old/b.log\n",
        holds(["1 host   3 files   16 B"]),
    );
}

#[test]
fn two_names_never_become_one() {
    use std::os::unix::ffi::OsStrExt;
    let sshd = Sshd::start();
    let root = sshd.directory().join("names");
    std::fs::create_dir(&root).unwrap();
    let names: [&[u8]; 6] = [b"a\xff", b"a\xfe", b"a\\xff", b"a\nb", b"a\\nb", b"\x1b[2J"];
    for name in names {
        let name = std::ffi::OsStr::from_bytes(name);
        std::fs::write(root.join(name), "").unwrap();
    }
    let root = root.to_str().unwrap();
    for format in ["paths", "csv"] {
        ls(&sshd, root).options(["--format", format]).expect(
            0,
            move |text: &str| {
                let lines: std::collections::BTreeSet<&str> = text.lines().collect();
                let header = usize::from(format == "csv");
                assert_eq!(lines.len(), names.len() + header, "{text}");
                !text.contains('\x1b')
            },
            anything,
        );
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fanrun"))
        .args([
            "ls",
            &format!("{}:{root}", sshd.address()),
            "--format",
            "paths0",
        ])
        .args(sshd.fanrun_args())
        .output()
        .unwrap();
    let mut found: Vec<&[u8]> = output
        .stdout
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .collect();
    let start = root.len() + 1;
    let mut bare: Vec<&[u8]> = found.drain(..).map(|path| &path[start..]).collect();
    bare.sort_unstable();
    let mut wanted = names.to_vec();
    wanted.sort_unstable();
    assert_eq!(bare, wanted);
    ls(&sshd, root).options(["--format", "ndjson"]).expect(
        0,
        |text: &str| text.matches("name_b64").count() == 2,
        anything,
    );
}

#[test]
fn sums_selection_and_the_first_so_many() {
    let sshd = Sshd::builder().addresses(3).start();
    let root = tree(&sshd);
    let run = |options: &[&str]| ls(&sshd, &root).options(options.iter().copied());
    run(&["-r", "--summary", "--format", "csv"]).expect(
        0,
        "host,files,bytes,newest,largest,errors\n127.1.0.1,3,16,[..]Z,[..]b.log,0\n\
         127.1.0.2,3,16,[..]\n127.1.0.3,3,16,[..]\n",
        anything,
    );
    run(&["-r", "--by", "ext", "--format", "csv"]).expect(
        0,
        "ext,files,bytes,newest,largest,errors\n,0,[..]\ncsv,3,3,[..]\nlog,6,45,[..]\n",
        anything,
    );
    run(&["--du", "1", "--format", "csv"]).expect(
        0,
        |text: &str| {
            text.contains("127.1.0.2,")
                && text.contains("tree,3,16,")
                && text.contains("logs,2,15,")
        },
        anything,
    );
    run(&[
        "-r",
        "--sort",
        "size",
        "--reverse",
        "--top",
        "2",
        "--files",
        "--format",
        "csv",
    ])
    .options(["--columns", "host,size"])
    .expect(0, "host,size\n127.1.0.1,10\n127.1.0.2,10\n", anything);
    run(&[
        "-r",
        "--include",
        "*.log",
        "--exclude",
        "old",
        "--format",
        "paths",
    ])
    .expect(
        0,
        |text: &str| text.lines().count() == 3 && text.contains("127.1.0.3:"),
        anything,
    );
    run(&["-r", "--newer", "1d", "--files", "--format", "paths"]).expect(
        0,
        |text: &str| text.lines().count() == 9,
        anything,
    );
    run(&["-r", "--older", "1d", "--format", "paths"]).expect(0, "", anything);
}

#[test]
fn an_account_without_a_shell_can_be_listed() {
    let jail = Path::new("/var/lib/fanrun-test-jail");
    std::fs::create_dir_all(jail.join("seq_dir")).unwrap();
    std::fs::write(jail.join("seq_dir/run.fastq"), "ACGT").unwrap();
    let sshd = Sshd::builder()
        .config(&format!("ChrootDirectory {}", jail.display()))
        .config("ForceCommand internal-sftp")
        .ordinary_user()
        .start();
    ls(&sshd, "/seq_dir")
        .options(["--format", "csv", "--columns", "path,size"])
        .expect(0, "path,size\n/seq_dir/run.fastq,4\n", anything);
    std::fs::remove_dir_all(jail).unwrap();
}

#[test]
fn what_cannot_be_read_is_a_row_and_code_1() {
    let sshd = Sshd::builder().ordinary_user().start();
    let root = tree(&sshd);
    let private = Path::new(&root).join("private");
    std::fs::create_dir(&private).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    let run = || ls(&sshd, &root).options(["-r", "--format", "csv", "--columns", "path,type"]);
    run().options(["--include", "private"]).expect(
        1,
        |text: &str| text.contains("private,dir\n") && text.contains("private,error\n"),
        holds(["permission denied", "private"]),
    );
    run()
        .options(["--ignore-errors"])
        .expect(0, holds(["private,error"]), anything);
    ls(&sshd, "/no/such/place").expect(1, "", holds(["/no/such/place: no such file"]));
}

#[test]
fn a_host_without_sftp_says_so() {
    let sshd = Sshd::builder().config("Subsystem sftp /bin/false").start();
    ls(&sshd, "/tmp").expect(1, "", holds(["the SFTP server ended: exit 1"]));
    let noisy = Sshd::builder()
        .config("Subsystem sftp echo Welcome; /usr/lib/openssh/sftp-server")
        .start();
    ls(&noisy, "/tmp").expect(1, "", holds(["printed \"Welcome\" before the SFTP server"]));
}

#[test]
fn the_task_lists_registers_and_tells_events() {
    let sshd = Sshd::start();
    let root = tree(&sshd);
    let events = sshd.directory().join("events");
    let text = format!(
        "hosts: all\nvars: {{root: '{root}'}}\ntasks:\n\
         - ls: {{path: '${{{{ root }}}}', depth: all, files: true, include: '*.log'}}\n  register: logs\n\
         - print: ${{{{ logs.count }}}} files, ${{{{ logs.bytes }}}} bytes, ${{{{ logs.rows[0].kind }}}}\n\
         - run: echo ${{{{ logs.rows | map(attribute=\"name\") | sort | join(\",\") }}}}\n"
    );
    let path = sshd.directory().join("ls.yml");
    std::fs::write(&path, text).unwrap();
    Fanrun::new([
        "run",
        path.to_str().unwrap(),
        "-i",
        &format!("{},", sshd.address()),
    ])
    .options(sshd.fanrun_args())
    .options(["--events", events.to_str().unwrap()])
    .expect(
        0,
        holds(["logs/a.log", "2 files, 15 bytes, file", "| a.log,b.log"]),
        holds(["3 ok"]),
    );
    let events = std::fs::read_to_string(events).unwrap();
    let entries: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seqs: Vec<u64> = entries
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.iter().zip(0..).all(|(seq, at)| *seq == at), "{seqs:?}");
    assert_eq!(
        entries
            .iter()
            .filter(|event| event["type"] == "entry")
            .count(),
        2
    );
    let end = entries
        .iter()
        .find(|event| event["type"] == "task_end")
        .unwrap();
    assert_eq!(end["tally"]["bytes"], 15);
}

#[test]
fn this_machine_is_listed_by_its_own_server() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("one"), "1").unwrap();
    let place = format!("localhost:{}", dir.path().display());
    Fanrun::new(["ls", &place, "--format", "csv", "--columns", "name"]).expect(
        0,
        "name\none\n",
        anything,
    );
}

#[test]
fn mistakes_are_told_before_anything_is_connected() {
    let told = |args: &[&str], words: &'static str| {
        Fanrun::new(["ls"].iter().chain(args).copied()).expect(2, "", move |text: &str| {
            assert!(text.contains(words), "{text}");
            true
        });
    };
    told(&["/var/log"], "PATTERN:PATH is needed");
    told(&["h:/x", "--columns", "sise"], "did you mean `size`?");
    told(&["h:/x", "--newer", "soon"], "is not a time");
    told(&["h:/x", "--regex", "("], "is no regular expression");
    told(&["h:/x", "--by", "colour"], "`--by colour`");
    told(&["h:/x", "--mode", "rwx"], "`--mode rwx`");
}

#[test]
fn a_signal_ends_a_listing_at_once() {
    let sshd = Sshd::start();
    let run = ls(&sshd, "/proc")
        .options(["-r", "--format", "paths"])
        .blocked_stdout()
        .spawn();
    std::thread::sleep(Duration::from_millis(700));
    let began = std::time::Instant::now();
    run.signal(rustix::process::Signal::INT);
    run.expect(rustix::process::Signal::INT, anything, anything);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn what_is_different_from_an_older_listing() {
    let sshd = Sshd::start();
    let root = tree(&sshd);
    let old = sshd.directory().join("old.ndjson");
    let run = || ls(&sshd, &root).options(["-r", "--format", "ndjson"]);
    let keep = old.clone();
    run().expect(
        0,
        move |text: &str| {
            std::fs::write(&keep, text).unwrap();
            true
        },
        anything,
    );
    let old = old.to_str().unwrap();
    let diff = || ls(&sshd, &root).options(["-r", "--diff", old, "--sort", "path"]);
    diff().options(["--format", "csv"]).expect(
        0,
        "change,host,path,type,size,mtime,perm,uid,gid\n",
        anything,
    );
    let root = Path::new(&root);
    std::fs::write(root.join("logs/new"), "n").unwrap();
    std::fs::write(root.join("logs/a.log"), "longer now").unwrap();
    std::fs::remove_dir_all(root.join("logs/old")).unwrap();
    diff()
        .options(["--format", "csv", "--columns", "change,name"])
        .expect(
            0,
            "change,name\nchanged,a.log\nadded,new\nremoved,old\nremoved,b.log\n",
            anything,
        );
    diff().options(["--format", "ndjson"]).expect(
        0,
        holds(["\"change\":\"added\"", "\"change\":\"removed\""]),
        anything,
    );
    // What cannot be seen may still be there.
    let gone = format!("{}:{}/none", sshd.address(), root.display());
    Fanrun::new(["ls", &gone, "--diff", old, "--format", "csv"])
        .options(sshd.fanrun_args())
        .expect(1, |text: &str| !text.contains("removed"), anything);
    Fanrun::new(["ls", &gone, "--diff", "/etc/passwd"])
        .options(sshd.fanrun_args())
        .expect(2, "", holds(["line 1 is no row"]));
}

#[test]
fn which_host_lacks_what_others_have() {
    let root = tempfile::tempdir().unwrap();
    let mut builder = Sshd::builder().addresses(4);
    // The same path is another place on each host.
    for host in 1..=4 {
        let dir = root.path().join(host.to_string());
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("same"), "same").unwrap();
        std::fs::write(dir.join("size"), "x".repeat(if host == 4 { 9 } else { 1 })).unwrap();
        if host != 2 {
            std::fs::write(dir.join("most"), "x").unwrap();
        }
        let place = dir.display();
        let block =
            format!("Match LocalAddress 127.1.0.{host}\n  ForceCommand internal-sftp -d {place}");
        builder = builder.config(&block);
    }
    let sshd = builder.start();
    let across = |format: &str| ls(&sshd, ".").options(["--across", "--format", format]);
    across("csv").expect(
        0,
        "path,what,size,hosts\nmost,file,1,127.1.0.1 127.1.0.3 127.1.0.4\nmost,missing,,127.1.0.2\n\
         size,file,1,127.1.0.1 127.1.0.2 127.1.0.3\nsize,file,9,127.1.0.4\n",
        holds(["4 hosts compared", "1 path the same", "2 not"]),
    );
    across("table").expect(
        0,
        "PATH  WHAT     SIZE  HOSTS\nmost  file      1 B  127.1.0.[1,3-4]\n\
         most  missing        127.1.0.2\nsize  file      1 B  127.1.0.[1-3]\n\
         size  file      9 B  127.1.0.4\n",
        anything,
    );
    across("ndjson").expect(
        0,
        |text: &str| {
            let rows: Vec<serde_json::Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            rows.len() == 2 && rows[0]["lacking"][0] == "127.1.0.2"
        },
        anything,
    );
}

#[test]
fn newer_than_the_last_time_tells_every_file_once() {
    let sshd = Sshd::start();
    let root = tree(&sshd);
    let state = sshd.directory().join("seen.json");
    let state = state.to_str().unwrap().to_owned();
    let run = |expected: &'static str| {
        ls(&sshd, &root)
            .options(["-r", "--files", "--format", "csv", "--columns", "name"])
            .options(["--sort", "name", "--newer", "@last", "--state", &state])
            .expect(0, expected, anything);
    };
    run("name\na.log\nb.log\n\"data, \"\"x\"\".csv\"\n");
    run("name\n");
    let root = Path::new(&root);
    // In the very second of the newest, and a later one.
    let newest = std::fs::metadata(root.join("logs/a.log"))
        .unwrap()
        .modified()
        .unwrap();
    let make = |name: &str, time: std::time::SystemTime| {
        let file = std::fs::File::create(root.join(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    make("twin", newest);
    run("name\ntwin\n");
    make("later", newest + Duration::from_secs(5));
    run("name\nlater\n");
    run("name\n");
    // A host that could not be read does not move on.
    make("last", newest + Duration::from_secs(9));
    let place = format!("{}:{}", sshd.address(), root.display());
    Fanrun::new(["ls", "-r", &place, "--newer", "@last", "--state", &state])
        .options(["--user", "nobody-here"])
        .options(sshd.fanrun_args().into_iter().skip(4))
        .options(["--port", &sshd.port().to_string()])
        .expect(4, "", anything);
    run("name\nlast\n");
    let other = format!("{}:/tmp", sshd.address());
    Fanrun::new(["ls", &other, "--newer", "@last", "--state", &state])
        .options(sshd.fanrun_args())
        .expect(2, "", holds(["is of a listing of"]));
    Fanrun::new(["ls", &other, "--newer", "@last"])
        .options(sshd.fanrun_args())
        .expect(2, "", holds(["--state FILE"]));
}

#[test]
fn two_hundred_hosts_run_a_playbook_and_stream_one_csv() {
    let sshd = Sshd::builder().addresses(200).start();
    let hosts = sshd.directory().join("hosts");
    std::fs::write(&hosts, sshd.addresses().join("\n")).unwrap();
    let playbook = sshd.directory().join("all.yml");
    let text = "hosts: all\ntasks:\n  - echo ${{ host.name }}\n  \
                - test ${{ host.name }} != 127.1.0.7\n";
    std::fs::write(&playbook, text).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    Fanrun::new(["run", &path(&playbook), "-i", &path(&hosts)])
        .options(sshd.fanrun_args())
        .within(Duration::from_secs(60))
        .expect(
            1,
            |text: &str| {
                let whole = |line: &str| line.split_once(" | ").is_some_and(|(a, b)| a.trim() == b);
                text.lines().count() == 200 && text.lines().all(whole)
            },
            holds(["199 ok, 1 failed", "127.1.0.7"]),
        );
    let root = tree(&sshd);
    let place = format!("@all:{root}");
    Fanrun::new(["ls", "-r", &place, "-i", &path(&hosts)])
        .options(["--files", "--newer", "2d", "--format", "csv"])
        .options(["--columns", "host,name,size"])
        .options(sshd.fanrun_args())
        .within(Duration::from_secs(60))
        .expect(
            0,
            |text: &str| {
                let mut rows = csv_rows(text);
                assert_eq!(rows.remove(0), ["host", "name", "size"]);
                rows.sort();
                rows.dedup();
                let of = |name: &str| rows.iter().filter(|row| row[1] == name).count();
                rows.len() == 600 && of("a.log") == 200 && of("data, \"x\".csv") == 200
            },
            anything,
        );
}

/// Rows of comma-separated values with quotes.
fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let cell = |cells: &mut Vec<String>| cells.push(String::new());
    let row = |line: &str| {
        let (mut cells, mut quoted, mut before) = (vec![String::new()], false, ' ');
        for c in line.chars() {
            match c {
                '"' if quoted || cells.last().is_some_and(String::is_empty) => quoted = !quoted,
                '"' if before == '"' => {
                    quoted = true;
                    cells.last_mut().unwrap().push('"');
                }
                ',' if !quoted => cell(&mut cells),
                c => cells.last_mut().unwrap().push(c),
            }
            before = c;
        }
        cells
    };
    text.lines().map(row).collect()
}
