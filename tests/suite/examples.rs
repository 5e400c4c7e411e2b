//! The playbooks that come with fanrun, over the sandbox and over a real sshd.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::fanrun::{Fanrun, holds};
use crate::sshd::Sshd;

fn playbook(name: &str) -> String {
    format!("{}/playbooks/{name}.yml", env!("CARGO_MANIFEST_DIR"))
}

fn over_sshd(sshd: &Sshd, name: &str, args: &[&str]) -> Fanrun {
    let hosts = sshd.directory().join("hosts");
    fs::write(&hosts, sshd.addresses().join("\n")).unwrap();
    Fanrun::new(["run", &playbook(name), "-i", hosts.to_str().unwrap()])
        .options(sshd.fanrun_args())
        .options(args.iter().copied())
        .within(Duration::from_secs(60))
}

fn over_sandbox(name: &str, args: &[&str]) -> Fanrun {
    Fanrun::new(["run", &playbook(name), "--sandbox", "5"])
        .options(args.iter().copied())
        .within(Duration::from_secs(60))
}

fn rows(text: &str) -> Vec<Value> {
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    events
        .filter(|event: &Value| event["type"] == "row")
        .collect()
}

#[test]
fn facts_of_an_inventory() {
    let tables = holds(["SYSTEM", "MACHINE", "KERNEL", "MEMTOTAL", "GiB", "MOUNT"]);
    over_sandbox("inventory-facts", &[]).expect(0, tables, holds(["15 ok"]));
    let sshd = Sshd::builder().addresses(3).start();
    let addresses = sshd.addresses();
    over_sshd(&sshd, "inventory-facts", &["--format", "ndjson"]).expect(
        0,
        move |text: &str| {
            let rows = rows(text);
            let memory = |row: &&Value| row["row"]["what"] == "MemTotal";
            let memory: Vec<&Value> = rows.iter().filter(memory).collect();
            let machines = rows
                .iter()
                .filter(|row| row["row"].get("machine").is_some());
            memory.len() == 3
                && memory
                    .iter()
                    .all(|row| row["row"]["size"].as_u64().unwrap() > 1 << 20)
                && machines.count() == 3
                && addresses
                    .iter()
                    .all(|host| rows.iter().any(|row| row["host"] == *host))
        },
        "",
    );
}

#[test]
fn a_report_of_disks_fails_where_one_is_full() {
    let sshd = Sshd::builder().addresses(2).start();
    let folder = format!("folder={}", sshd.directory().display());
    let args = ["-e", &folder, "-e", "full=101"];
    over_sshd(&sshd, "disk-report", &args).expect(0, holds(["MOUNT", "USE%"]), holds(["OK"]));
    let args = ["-e", &folder, "-e", "full=0"];
    let told = holds(["Is there room left?", "127.1.0.2: / is ", "% full"]);
    over_sshd(&sshd, "disk-report", &args).expect(1, holds(["MOUNT", "USE%"]), told);
    over_sandbox("disk-report", &args).expect(1, holds(["sandbox-5"]), holds(["5 failed"]));
}

#[test]
fn a_rolling_deploy_over_a_real_sshd() {
    let sshd = Sshd::builder().addresses(5).start();
    // The account's home is this machine's own: the release goes elsewhere.
    let text = fs::read_to_string(playbook("rolling-deploy")).unwrap();
    let folder = sshd.directory().display();
    let text = text.replacen("hosts: all\n", &format!("hosts: all\ncwd: {folder}\n"), 1);
    let copy = sshd.directory().join("rolling-deploy.yml");
    fs::write(&copy, text).unwrap();
    let hosts = sshd.directory().join("hosts");
    fs::write(&hosts, sshd.addresses().join("\n")).unwrap();
    let run = |args: &[&str]| {
        Fanrun::new(["run", copy.to_str().unwrap(), "-i", hosts.to_str().unwrap()])
            .options(sshd.fanrun_args())
            .options(args.iter().copied())
            .within(Duration::from_secs(60))
    };
    run(&["-e", "version=3.1"]).expect(
        0,
        |_: &str| true,
        holds(["hosts: 5 ok", "migrate the database"]),
    );
    let current = fs::read_link(sshd.directory().join("app/current")).unwrap();
    assert_eq!(current.to_str(), Some("releases/3.1"));
    let args = ["-e", "version=3.2", "-e", "broken_on=127.1.0.1"];
    run(&args).expect(1, |_: &str| true, holds(["FAILED"]));
    let current = fs::read_link(sshd.directory().join("app/current")).unwrap();
    assert_eq!(current.to_str(), Some("releases/3.1"), "it went back");
}
