//! One file over SFTP with the client of russh-sftp, as its documentation shows it. A yardstick for
//! benches/compare: it checks no identity and gives the file its name from the first byte on.
//!
//! Arguments: ADDRESS PORT USER IDENTITY up|down FROM TO.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a yardstick that fails shall fail loudly"
)]

use std::sync::Arc;

use russh::client;
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use russh_sftp::client::SftpSession;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};

/// What is read and written at once.
const BUFFER: usize = 256 << 10;

struct Anyone;

impl client::Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, identity, way, from, to] = args.as_slice() else {
        println!("bare_sftp is a peer of benches/compare, which gives it its arguments");
        return;
    };
    let config = client::Config {
        nodelay: true,
        ..client::Config::default()
    };
    let address = (host.clone(), port.parse().expect("port"));
    let connected = client::connect(Arc::new(config), address, Anyone).await;
    let mut session = connected.expect("connect");
    let key = Arc::new(load_secret_key(identity, None).expect("identity"));
    let key = PrivateKeyWithHashAlg::new(key, None);
    let answer = session.authenticate_publickey(user, key).await;
    assert!(answer.expect("authenticate").success(), "not let in");
    let channel = session.channel_open_session().await.expect("channel");
    channel.request_subsystem(true, "sftp").await.expect("sftp");
    let sftp = SftpSession::new(channel.into_stream()).await.expect("init");
    if way == "up" {
        let mut source = BufReader::with_capacity(BUFFER, File::open(from).await.expect("source"));
        let remote = sftp.create(to.as_str()).await.expect("create");
        let mut remote = BufWriter::with_capacity(BUFFER, remote);
        tokio::io::copy_buf(&mut source, &mut remote)
            .await
            .expect("copy");
        remote.shutdown().await.expect("close");
    } else {
        let remote = sftp.open(from.as_str()).await.expect("open");
        let mut remote = BufReader::with_capacity(BUFFER, remote);
        let mut dest = BufWriter::with_capacity(BUFFER, File::create(to).await.expect("create"));
        tokio::io::copy_buf(&mut remote, &mut dest)
            .await
            .expect("copy");
        dest.flush().await.expect("flush");
    }
}
