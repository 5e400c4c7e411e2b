//! The SFTP servers that other tests stand on, tried with OpenSSH's own client, and with packets
//! made by hand where that client would not show the difference.

use std::fs;
use std::process::Output;

use crate::sftp_servers::{SftpServer, writable};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn files_go_to_every_server_and_come_back() {
    let content: Vec<u8> = (0..300_001_u32).map(|n| (n % 251) as u8).collect();
    let here = tempfile::tempdir().unwrap();
    let (up, down) = (here.path().join("up"), here.path().join("down"));
    fs::write(&up, &content).unwrap();
    for (name, server) in writable() {
        let lines = format!(
            "put {up} {it}\nmkdir {dir}\nrename {it} {moved}\nsymlink file {link}\nchmod 600 {moved}\n\
             ls -l {dir}\nget {moved} {down}\nrm {link}\n",
            up = up.display(),
            down = down.display(),
            it = server.remote("it"),
            dir = server.remote("dir"),
            moved = server.remote("dir/file"),
            link = server.remote("dir/link"),
        );
        let said = server.batch(&lines);
        assert_eq!(
            said.status.code(),
            Some(0),
            "{name}: {said:?}\n{}",
            server.log()
        );
        assert!(fs::read(&down).unwrap() == content, "{name}");
        assert!(fs::read(server.place().join("dir/file")).unwrap() == content);
        assert!(!server.place().join("dir/link").is_symlink(), "{name}");
        let listed = stdout(&said);
        assert!(
            listed.contains("lrwxrwxrwx") && listed.contains("300001"),
            "{name}: {listed}"
        );
        fs::remove_file(&down).unwrap();
    }
}

#[test]
fn an_account_in_a_chroot_has_no_shell_and_sees_no_more_than_its_directory() {
    let server = SftpServer::chrooted();
    let said = server.batch("ls -1 /\ncd /etc\n");
    assert_eq!(said.status.code(), Some(1), "{said:?}\n{}", server.log());
    assert!(
        stdout(&said).lines().any(|line| line == "/files"),
        "{said:?}"
    );
    let shell = server
        .dial()
        .command("ssh")
        .args(["127.0.0.1", "id"])
        .output();
    assert!(!stdout(&shell.unwrap()).contains("uid="));
}

#[test]
fn a_read_only_server_gives_and_does_not_take() {
    let server = SftpServer::read_only();
    fs::write(server.place().join("it"), "content").unwrap();
    let here = tempfile::tempdir().unwrap();
    let down = here.path().join("it");
    let said = server.batch(&format!("get {} {}\n", server.remote("it"), down.display()));
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let said = server.batch(&format!(
        "put {} {}\n",
        down.display(),
        server.remote("new")
    ));
    assert_eq!(said.status.code(), Some(1));
    assert!(stderr(&said).contains("Permission denied"), "{said:?}");
    assert!(!server.place().join("new").exists());
}

#[test]
fn a_server_without_write_makes_files_and_never_fills_them() {
    let server = SftpServer::without_write();
    let here = tempfile::NamedTempFile::new().unwrap();
    fs::write(here.path(), "content").unwrap();
    let said = server.batch(&format!(
        "put {} {}\n",
        here.path().display(),
        server.remote("new")
    ));
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(fs::read(server.place().join("new")).unwrap(), b"");
}

#[test]
fn a_missing_subsystem_is_refused_where_commands_run() {
    let server = SftpServer::missing();
    let said = server.batch("pwd\n");
    assert_eq!(said.status.code(), Some(255));
    assert!(
        stderr(&said).contains("subsystem request failed"),
        "{said:?}"
    );
    let command = server
        .dial()
        .command("ssh")
        .args(["127.0.0.1", "echo up"])
        .output();
    assert_eq!(stdout(&command.unwrap()), "up\n");
}

#[test]
fn a_noisy_shell_speaks_before_the_server() {
    let server = SftpServer::noisy("Welcome, it's \x1b[1mme\n");
    let said = server.batch("pwd\n");
    assert_eq!(said.status.code(), Some(255));
    // The first four letters, taken for a length.
    let length = u32::from_be_bytes(*b"Welc").to_string();
    assert!(stderr(&said).contains(&length), "{said:?}");
    let mut raw = server.dial().subsystem();
    assert!(raw.read_some().starts_with(b"Welcome, it's \x1b[1mme\n"));
}
