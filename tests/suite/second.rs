//! Large files over two connections: when a second one is opened, and that nobody notices when not.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::sshd::{Sshd, password_account};

/// More than a second login is worth.
const MIB: u32 = 300;

/// A file in which no two blocks are the same.
fn large(path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let block: Vec<u8> = (0..1u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for number in 0..MIB {
        let [high, low, ..] = number.to_le_bytes();
        let block: Vec<u8> = block
            .iter()
            .map(|byte| byte ^ low ^ high.rotate_left(3))
            .collect();
        file.write_all(&block[..block.len() - 4]).unwrap();
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    file.into_inner().unwrap();
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

fn logins(sshd: &Sshd, how: &str) -> usize {
    sshd.log().matches(&format!("Accepted {how}")).count()
}

#[test]
fn a_large_file_of_a_single_host_goes_over_two_connections() {
    let sshd = Sshd::start();
    let from = TempDir::new().unwrap();
    let (source, there) = (from.path().join("large"), sshd.directory().join("large"));
    large(&source);
    let place = format!("{}:{}/", sshd.address(), path(sshd.directory()));
    Fanrun::new(["upload", &path(&source), &place])
        .options(sshd.fanrun_args())
        .expect(0, "", holds(["1 file, 300.0 MiB"]));
    assert!(same(&source, &there));
    assert_eq!(logins(&sshd, "publickey"), 2, "{}", sshd.log());
    let place = format!("{}:{}", sshd.address(), path(&there));
    let to = path(&from.path().join("back/"));
    Fanrun::new(["download", "--flat", &place, &format!("{to}/"), "--verify"])
        .options(sshd.fanrun_args())
        .expect(0, "", holds(["1 file, 300.0 MiB"]));
    assert!(same(&source, &from.path().join("back/large")));
    assert_eq!(logins(&sshd, "publickey"), 4, "{}", sshd.log());
    let limit = Duration::from_secs(10);
    let gone = || sshd.sessions().is_empty().then_some(());
    assert!(
        processes::poll(limit, gone).is_some(),
        "{:?}",
        sshd.sessions()
    );
}

/// A password is not sent a second time behind the user's back, and a bound on the rate leaves
/// nothing to share.
#[test]
fn a_second_login_is_made_only_where_it_helps_and_nobody_notices() {
    let from = TempDir::new().unwrap();
    let source = from.path().join("large");
    large(&source);
    let sshd = Sshd::builder()
        .config("PasswordAuthentication yes")
        .ordinary_user()
        .start();
    let there = format!("/tmp/fanrun-second-{}", std::process::id());
    let place = format!("{}:{there}", sshd.address());
    Fanrun::new(["upload", &path(&source), &place, "--bandwidth", "1GiB"])
        .options(sshd.fanrun_args())
        .expect(0, "", holds(["1 file, 300.0 MiB"]));
    assert_eq!(logins(&sshd, "publickey"), 1);
    fs::remove_file(&there).unwrap();
    let Some((account, password)) = password_account() else {
        return;
    };
    Fanrun::new(["upload", &path(&source), &place])
        .options(["--port", &sshd.port().to_string(), "--user", &account])
        .options(["--known-hosts", &path(&sshd.known_hosts())])
        .options(["--password-fd", "0"])
        .stdin(format!("{password}\n"))
        .expect(0, "", holds(["1 file, 300.0 MiB"]));
    assert_eq!(logins(&sshd, "password"), 1, "{}", sshd.log());
    fs::remove_file(there).unwrap();
}
