//! The fleet against the real `ssh` client.

use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Fleet;

fn ssh(fleet: &Fleet, extra: &[&str], text: &str) -> Command {
    let mut command = Command::new("ssh");
    command
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args([
            "-o",
            "IdentityAgent=none",
            "-o",
            "StrictHostKeyChecking=yes",
        ])
        .arg("-o")
        .arg(format!(
            "UserKnownHostsFile={}",
            fleet.known_hosts().display()
        ))
        .args(extra)
        .arg("-i")
        .arg(fleet.identity())
        .args(["-p", &fleet.members()[0].port.to_string(), "-l"])
        .args([fleet.user().as_str(), "127.0.0.1", text])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn answer(fleet: &Fleet, extra: &[&str], text: &str) -> Output {
    let limit = std::time::Duration::from_secs(30);
    let run = ssh(fleet, extra, text).output();
    tokio::time::timeout(limit, run).await.unwrap().unwrap()
}

#[tokio::test]
async fn exit_codes_and_streams_stay_apart() {
    let fleet = Fleet::start(1).await.unwrap();
    for code in [0, 1, 126, 255] {
        let said = answer(&fleet, &[], &format!("echo out; echo err >&2; exit {code}")).await;
        assert_eq!(said.status.code(), Some(code));
        assert_eq!(
            (said.stdout, said.stderr),
            (b"out\n".to_vec(), b"err\n".to_vec())
        );
    }
    let said = answer(&fleet, &["-v"], "kill -TERM $$").await;
    assert_eq!(said.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&said.stderr).contains("rtype exit-signal"));
    fleet.shutdown().await;
}

#[tokio::test]
async fn home_is_private_and_env_is_set() {
    let fleet = Fleet::start(1).await.unwrap();
    let text = "echo \"$HOME|$(pwd)|$FOO|${CARGO:-clean}|$FANRUN_SANDBOX|$SSH_CONNECTION\"";
    let said = answer(&fleet, &["-o", "SetEnv=FOO=bar"], text).await;
    let home = fleet.members()[0].home.display().to_string();
    let line = String::from_utf8(said.stdout).unwrap();
    assert!(line.starts_with(&format!("{home}|{home}|bar|clean|sandbox-1|127.0.0.1 ")));
    let port = fleet.members()[0].port;
    assert!(line.ends_with(&format!(" 127.0.0.1 {port}\n")), "{line}");
    fleet.shutdown().await;
}

#[tokio::test]
async fn much_input_comes_back_whole() {
    let fleet = Fleet::start(1).await.unwrap();
    let sent: Vec<u8> = (0..5_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut child = ssh(&fleet, &[], "sleep 0.3; cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let data = sent.clone();
    let feeding = tokio::spawn(async move { stdin.write_all(&data).await });
    let limit = std::time::Duration::from_secs(30);
    let said = tokio::time::timeout(limit, child.wait_with_output()).await;
    assert!(said.unwrap().unwrap().stdout == sent);
    feeding.await.unwrap().unwrap();
    fleet.shutdown().await;
}

#[tokio::test]
async fn much_output_arrives() {
    let fleet = Fleet::start(1).await.unwrap();
    let said = answer(&fleet, &[], "yes | head -c 50000000").await;
    assert_eq!(said.stdout.len(), 50_000_000);
    fleet.shutdown().await;
}

#[tokio::test]
async fn another_key_is_refused() {
    let (fleet, other) = (
        Fleet::start(1).await.unwrap(),
        Fleet::start(1).await.unwrap(),
    );
    std::fs::copy(other.identity(), fleet.identity()).unwrap();
    let said = answer(&fleet, &[], "true").await;
    assert_eq!(said.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&said.stderr).contains("Permission denied (publickey)"));
    fleet.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn nothing_is_left() {
    let fleet = Fleet::start(2).await.unwrap();
    let text = "setsid sleep 300 >/dev/null 2>&1 </dev/null & echo started";
    assert_eq!(answer(&fleet, &[], text).await.stdout, b"started\n");
    let ground = std::sync::Arc::clone(&fleet.ground);
    // In the middle of its exec a process has no environment by which it could be known.
    let seen = async {
        while ground.leftovers().len() != 1 {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    let seen = tokio::time::timeout(limit, seen).await;
    assert!(seen.is_ok(), "sshd leaves it running, and so do we");
    fleet.shutdown().await;
    assert!(ground.leftovers().is_empty());
    assert!(!ground.directory.exists());
}

#[tokio::test]
async fn shutdown_ends_a_running_command_and_its_children() {
    let fleet = Fleet::start(1).await.unwrap();
    let mut client = ssh(&fleet, &[], "sleep 300 & echo up; sleep 300")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 3];
    let mut stdout = client.stdout.take().unwrap();
    let reading = tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut first);
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, reading).await.unwrap().unwrap();
    let ground = std::sync::Arc::clone(&fleet.ground);
    assert!(ground.leftovers().len() >= 2);
    fleet.shutdown().await;
    assert!(ground.leftovers().is_empty());
    let ended = tokio::time::timeout(limit, client.wait()).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(255));
}

#[tokio::test]
async fn a_background_child_holds_the_channel_open() {
    let fleet = Fleet::start(1).await.unwrap();
    let said = answer(&fleet, &[], "(sleep 0.5; echo late) & exit 3").await;
    assert_eq!(
        (said.status.code(), said.stdout),
        (Some(3), b"late\n".to_vec())
    );
    fleet.shutdown().await;
}

#[tokio::test]
async fn a_large_fleet_starts() {
    let fleet = Fleet::start(200).await.unwrap();
    assert_eq!(fleet.members()[199].name.as_str(), "sandbox-200");
    let said = answer(&fleet, &["-s"], "netconf").await;
    assert_eq!(
        said.status.code(),
        Some(255),
        "no other subsystem than sftp"
    );
    let directory = fleet.ground.directory.clone();
    drop(fleet);
    assert!(!directory.exists());
}
