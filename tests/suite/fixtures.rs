//! The fixtures themselves are tested here, with OpenSSH's own client where there is one:
//! a fixture that does not do what it says makes every test above it say nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::dropbear::Dropbear;
use crate::evil::{Behaviour, Evil};
use crate::processes;
use crate::proxy::Proxy;
use crate::sshd::Sshd;

const SOON: Duration = Duration::from_secs(10);

fn ssh(sshd: &Sshd, address: &str, command: &str) -> Output {
    Command::new("ssh")
        .args(sshd.ssh_args())
        .args([address, command])
        .stdin(Stdio::null())
        .output()
        .expect("these tests need ssh: apt-get install openssh-client")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn sshd_runs_commands_for_whoever_runs_the_tests() {
    let sshd = Sshd::start();
    let output = ssh(&sshd, &sshd.address(), "id -un; exit 7");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(stdout(&output), format!("{}\n", sshd.user()));
    sshd.await_log("Accepted publickey", SOON);
}

#[test]
fn sshd_serves_an_ordinary_user() {
    let sshd = Sshd::builder().ordinary_user().start();
    let output = ssh(&sshd, &sshd.address(), "id -u");
    assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", sshd.log());
    assert_ne!(stdout(&output).trim(), "0");
}

#[test]
fn sshd_has_the_host_keys_and_lines_that_were_asked_for() {
    let sshd = Sshd::builder()
        .host_keys(&["rsa", "ecdsa"])
        .config("Banner none")
        .config("MaxStartups 3:50:6")
        .start();
    let known = std::fs::read_to_string(sshd.known_hosts()).unwrap();
    assert!(known.contains("ssh-rsa ") && known.contains("ecdsa-sha2-nistp256 "));
    assert!(!known.contains("ssh-ed25519"));
    let output = ssh(&sshd, &sshd.address(), "true");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn sshd_listens_on_two_hundred_addresses() {
    let sshd = Sshd::builder().addresses(200).start();
    assert_eq!(sshd.addresses().len(), 200);
    for address in ["127.1.0.1", "127.1.0.17", "127.1.0.200"] {
        let output = ssh(&sshd, address, "echo here");
        assert_eq!(stdout(&output), "here\n", "{address}: {output:?}");
    }
}

#[test]
fn sshd_takes_its_sessions_with_it() {
    let marker = processes::marker("session");
    let sshd = Sshd::start();
    let mut client = Command::new("ssh")
        .args(sshd.ssh_args())
        .args([&sshd.address(), &format!("exec -a {marker} sleep 300")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let title = format!("{marker} 300");
    processes::await_running(&title, SOON);
    drop(sshd);
    client.wait().unwrap();
    processes::await_gone(&title, SOON);
}

fn ssh_through(sshd: &Sshd, proxy: &Proxy, command: &str) -> Output {
    let mut args = sshd.ssh_args();
    let port = args.iter().position(|arg| arg == "-p").unwrap() + 1;
    args[port] = proxy.port().to_string();
    Command::new("ssh")
        .args(args)
        .args(["-o", &format!("HostKeyAlias=[127.0.0.1]:{}", sshd.port())])
        .args(["127.0.0.1", command])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn dropbear_runs_commands() {
    let dropbear = Dropbear::start();
    let output = Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o"])
        .arg(format!(
            "UserKnownHostsFile={}",
            dropbear.known_hosts().display()
        ))
        .args(["-i", dropbear.identity().to_str().unwrap()])
        .args(["-p", &dropbear.port().to_string(), "-l", dropbear.user()])
        .args(["127.0.0.1", "id -un; exit 3"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(stdout(&output), format!("{}\n", dropbear.user()));
}

#[test]
fn proxy_passes_everything_and_counts() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.port()).start();
    let output = ssh_through(&sshd, &proxy, "head -c 3000000 /dev/zero");
    assert_eq!(output.stdout.len(), 3_000_000, "{output:?}");
    assert_eq!(proxy.connections(), 1);
    assert!(proxy.sent_down() > 3_000_000 && proxy.sent_up() > 1000);
}

#[test]
fn proxy_delays_every_round_trip() {
    let sshd = Sshd::start();
    let far = Proxy::to(sshd.port())
        .round_trip(Duration::from_millis(100))
        .start();
    let start = Instant::now();
    let output = ssh_through(&sshd, &far, "true");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Banner, key exchange, service, authentication, channel: never fewer than six trips.
    assert!(start.elapsed() > Duration::from_millis(600));
}

#[test]
fn proxy_resets_after_the_byte_that_was_named() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.port())
        .down(|down| down.reset_after = Some(100))
        .start();
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    client.write_all(b"SSH-2.0-Test\r\n").unwrap();
    let mut got = Vec::new();
    let error = client.read_to_end(&mut got).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.sent_down(), 100);
}

#[test]
fn proxy_turns_one_bit_over() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.port())
        .down(|down| down.flip_at = Some(2))
        .start();
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    let mut got = [0; 8];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"SSI-2.0-");
}

#[test]
fn proxy_goes_silent_without_a_close() {
    let sshd = Sshd::start();
    let proxy = Proxy::to(sshd.port()).start();
    proxy.go_silent();
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    proxy.speak_again();
    client.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 1);
}

#[test]
fn evil_servers_do_what_they_say() {
    let read = |behaviour| {
        let evil = Evil::start(behaviour);
        let mut client = TcpStream::connect(("127.0.0.1", evil.port())).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match client.read(&mut buffer) {
                Ok(0) => return (got, None),
                Ok(count) if got.len() < 100_000 => got.extend(&buffer[..count]),
                Ok(_) => return (got, None),
                Err(error) => return (got, Some(error.kind())),
            }
        }
    };
    assert_eq!(
        read(Behaviour::Silent),
        (vec![], Some(ErrorKind::WouldBlock))
    );
    assert_eq!(read(Behaviour::Close), (vec![], None));
    assert_eq!(
        read(Behaviour::Reset),
        (vec![], Some(ErrorKind::ConnectionReset))
    );
    assert_eq!(
        read(Behaviour::not_allowed()),
        (b"Not allowed at this time\r\n".to_vec(), None)
    );
    let (lines, end) = read(Behaviour::lines_before_banner(20));
    assert_eq!(lines.split(|byte| *byte == b'\n').count(), 22);
    assert_eq!(end, Some(ErrorKind::WouldBlock));
    assert_eq!(read(Behaviour::dripping()).0, b"S");
    assert!(read(Behaviour::endless_lines()).0.len() >= 100_000);
}

#[test]
fn sshd_sessions_outlive_the_listener_until_the_fixture_goes() {
    let marker = processes::marker("outlive");
    let mut sshd = Sshd::start();
    let mut client = Command::new("ssh")
        .args(sshd.ssh_args())
        .args([&sshd.address(), &format!("exec -a {marker} sleep 300")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sleep = processes::await_running(&format!("{marker} 300"), SOON);
    sshd.stop_listening();
    assert!(TcpStream::connect(("127.0.0.1", sshd.port())).is_err());
    assert!(client.try_wait().unwrap().is_none(), "the session ended");
    drop(sshd);
    assert_eq!(client.wait().unwrap().code(), Some(255));
    for process in sleep {
        processes::signal(process.pid, rustix::process::Signal::KILL);
    }
}
