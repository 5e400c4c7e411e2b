//! Bad links: cut in either direction at any byte, bits turned over, half open, thin and far. A
//! command is never ok unless all of it came, and nothing waits without end.

use std::time::Duration;

use fanrun::job::Command;
use fanrun::outcome::{Cause, ExitStatus, HostProblem};
use fanrun::session::ssh::{Asker, Dialer, Sizing};
use fanrun::session::{Ending, ProcessEvent, Spawn, Stdin};
use fanrun::target::{Dial, HostKeyPolicy, Identity, UserName};

use crate::proxy::{Builder, Proxy};
use crate::sshd::Sshd;

/// What must be over by then, whatever happens to the link.
const LIMIT: Duration = Duration::from_secs(30);

fn dial(sshd: &Sshd, port: u16) -> Dial {
    let known_hosts = sshd.directory().join(format!("known-{port}"));
    let line = format!("[127.0.0.1]:{port} {}\n", sshd.host_key("ed25519"));
    std::fs::write(&known_hosts, line).unwrap();
    Dial {
        address: "127.0.0.1".into(),
        port,
        user: UserName::new(sshd.user()).unwrap(),
        known_as: "127.0.0.1".into(),
        identities: vec![Identity {
            path: sshd.identity(),
            explicit: true,
        }],
        identities_only: true,
        hash_known_hosts: false,
        agent: None,
        password: None,
        known_hosts: vec![known_hosts],
        global_known_hosts: vec![],
        host_key_policy: HostKeyPolicy::Strict,
        connect_timeout: Duration::from_secs(4),
        user_origin: "the test".into(),
    }
}

fn sizing(keepalive: Duration) -> Sizing {
    Sizing {
        keepalive,
        ..Sizing::default()
    }
}

/// What one command over one link came to, and what it wrote.
type Came = Result<(Ending, Vec<u8>), HostProblem>;

async fn over(sshd: &Sshd, proxy: &Proxy, text: &str, keepalive: Duration) -> Came {
    let dial = dial(sshd, proxy.port());
    let work = async {
        let dialer = Dialer::new(Asker::none(), sizing(keepalive));
        let mut session = dialer.connect(&dial).await?;
        let spawn = Spawn {
            command: Command::Shell(text.into()),
            env: vec![],
            cwd: None,
            shell: None,
            stdin: Stdin::Closed,
            hidden: false,
            becomes: None,
        };
        let mut process = match session.start(spawn).await {
            Ok(process) => process,
            Err(error) => {
                let reason = error.to_string();
                return Ok((Ending::NotStarted { reason }, Vec::new()));
            }
        };
        let mut output = Vec::new();
        loop {
            match process.next().await {
                ProcessEvent::Output { bytes, .. } => output.extend_from_slice(&bytes),
                ProcessEvent::Ended(ending) => return Ok((ending, output)),
            }
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("it hangs")
}

fn is_ok(came: &Came) -> bool {
    let exited = ExitStatus::Exited(0);
    matches!(came, Ok((Ending::Exited { status, .. }, _)) if *status == exited)
}

/// A link that broke shows as one, and never as a refusal of ours or of the server's.
fn is_honest(came: &Came, whole: &[u8]) -> bool {
    match came {
        Ok((Ending::Exited { .. }, output)) => output == whole,
        Ok((Ending::Lost { .. } | Ending::NotStarted { .. }, _)) => true,
        Ok((Ending::Denied { .. }, _)) => false,
        Err(problem) => !matches!(problem.cause, Cause::Authentication | Cause::Local),
    }
}

const TEXT: &str = "echo begin; sleep 0.2; seq 1 2000; echo end";

fn whole() -> Vec<u8> {
    let numbers: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    format!("begin\n{numbers}end\n").into_bytes()
}

/// Runs a few at a time: each waits for its link most of the time.
async fn each(sshd: &Sshd, links: Vec<(String, Builder)>) -> Vec<(String, Came)> {
    use futures_util::StreamExt as _;
    let runs = links.into_iter().map(|(name, link)| async move {
        let proxy = link.start();
        let came = over(sshd, &proxy, TEXT, Duration::from_secs(2)).await;
        (name, came)
    });
    futures_util::stream::iter(runs)
        .buffer_unordered(6)
        .collect()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_in_either_direction_is_told_and_never_ok() {
    let sshd = Sshd::start();
    let mut links = Vec::new();
    // About 3,000 bytes go up and 3,000 come down before the command's output.
    for at in [
        0u64, 1, 20, 40, 300, 900, 1_300, 1_600, 2_000, 2_300, 2_600, 2_900,
    ] {
        let to = || Proxy::to(sshd.port());
        links.push((
            format!("reset up {at}"),
            to().up(|d| d.reset_after = Some(at)),
        ));
        links.push((
            format!("close up {at}"),
            to().up(|d| d.close_after = Some(at)),
        ));
        links.push((
            format!("reset down {at}"),
            to().down(|d| d.reset_after = Some(at)),
        ));
        links.push((
            format!("close down {at}"),
            to().down(|d| d.close_after = Some(at)),
        ));
    }
    for at in [4_000u64, 6_000, 9_000] {
        let to = || Proxy::to(sshd.port());
        links.push((
            format!("reset down {at}"),
            to().down(|d| d.reset_after = Some(at)),
        ));
        links.push((
            format!("close down {at}"),
            to().down(|d| d.close_after = Some(at)),
        ));
    }
    for (name, came) in each(&sshd, links).await {
        assert!(is_honest(&came, &whole()), "{name}: {came:?}");
        // Up to 2,300 bytes nobody is logged in yet.
        let early = name.ends_with(" 0") || name.ends_with(" 40") || name.ends_with(" 900");
        assert!(!(early && came.is_ok()), "{name}: {came:?}");
        if name.contains("down") {
            assert!(!is_ok(&came), "{name}: {came:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_turned_over_anywhere_is_never_taken_for_the_truth() {
    let sshd = Sshd::start();
    let mut links = Vec::new();
    for at in (5u64..4_000).step_by(170) {
        let to = || Proxy::to(sshd.port());
        links.push((format!("up {at}"), to().up(|d| d.flip_at = Some(at))));
        links.push((format!("down {at}"), to().down(|d| d.flip_at = Some(at))));
    }
    let came = each(&sshd, links).await;
    for (name, came) in &came {
        // A bit of the software's name in the greeting may pass; nothing else can.
        assert!(is_honest(came, &whole()), "{name}: {came:?}");
    }
    let passed = came.iter().filter(|(_, came)| is_ok(came)).count();
    assert!(passed < came.len() / 3, "{passed} of {} passed", came.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_is_lost_after_three_questions() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.port()).start();
    let silence = async {
        // The command is under way when its first line has come through.
        while proxy.sent_down() < 2_500 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.go_silent();
    };
    let text = "echo begin; sleep 60";
    let run = over(&sshd, &proxy, text, Duration::from_millis(300));
    let (came, ()) = tokio::join!(run, silence);
    let (ending, output) = came.unwrap();
    assert!(matches!(ending, Ending::Lost { .. }), "{ending:?}");
    assert_eq!(output, b"begin\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thin_and_far_link_only_takes_longer() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.port())
        .round_trip(Duration::from_millis(300))
        .up(|d| d.bytes_per_second = Some(8_000))
        .down(|d| d.bytes_per_second = Some(8_000))
        .start();
    let came = over(&sshd, &proxy, TEXT, Duration::from_secs(2)).await;
    assert!(is_ok(&came), "{came:?}");
    assert_eq!(came.unwrap().1, whole());
}
