//! The least that a client on this SSH library can cost: connect, authenticate, exec, read to the
//! end, for every host, with a semaphore as its only care. A yardstick, not a runner: it checks no
//! identity, has no deadline, and throws the output away.
//!
//! Arguments: HOSTS_FILE PORT USER IDENTITY FANOUT COMMAND.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a yardstick that fails shall fail loudly"
)]

use std::sync::Arc;

use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, load_secret_key};
use russh::{ChannelMsg, Disconnect};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

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

#[derive(Clone)]
struct Job {
    port: u16,
    user: String,
    key: Arc<PrivateKey>,
    config: Arc<client::Config>,
    command: String,
    permits: Arc<Semaphore>,
}

impl Job {
    async fn open(&self, host: &str) -> Handle<Anyone> {
        let address = (host.to_owned(), self.port);
        let config = Arc::clone(&self.config);
        let mut session = client::connect(config, address, Anyone)
            .await
            .expect("connect");
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        let answer = session.authenticate_publickey(&self.user, key).await;
        assert!(answer.expect("authenticate").success(), "not let in");
        session
    }

    async fn run(self, host: String) -> u32 {
        let _permit = self.permits.acquire().await.expect("never closed");
        let session = self.open(&host).await;
        let mut channel = session.channel_open_session().await.expect("channel");
        channel
            .exec(true, self.command.as_str())
            .await
            .expect("exec");
        let mut code = None;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                code = Some(exit_status);
            }
        }
        let _ = session
            .disconnect(Disconnect::ByApplication, "", "en")
            .await;
        code.expect("no exit status came")
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [hosts, port, user, identity, fanout, command] = args.as_slice() else {
        println!("bare_russh is a peer of benches/compare, which gives it its arguments");
        return;
    };
    let config = client::Config {
        nodelay: true,
        ..client::Config::default()
    };
    let job = Job {
        port: port.parse().expect("port"),
        user: user.clone(),
        key: Arc::new(load_secret_key(identity, None).expect("identity")),
        config: Arc::new(config),
        command: command.clone(),
        permits: Arc::new(Semaphore::new(fanout.parse().expect("fanout"))),
    };
    let text = std::fs::read_to_string(hosts).expect("hosts file");
    let hosts = text.lines().map(str::to_owned);
    let mut lanes: JoinSet<u32> = hosts.map(|host| job.clone().run(host)).collect();
    while let Some(code) = lanes.join_next().await {
        assert_eq!(code.expect("a lane panicked"), 0);
    }
}
