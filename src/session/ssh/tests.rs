//! What servers may do and OpenSSH does not: every command is a list of messages that the server
//! sends, one word each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Sig};

use super::{Asker, Dialer, Sizing, SshSession};
use crate::event::Stream;
use crate::job::Command;
use crate::outcome::{Cause, ExitStatus, Phase};
use crate::secret::Secret;
use crate::session::{Ending, ProcessEvent, Spawn, Stdin};
use crate::target::{Dial, HostKeyPolicy, Identity, UserName};

struct Server;

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let words = String::from_utf8_lossy(command).into_owned();
        tokio::spawn(play(session.handle(), id, words));
        Ok(())
    }
}

async fn play(handle: Handle, id: ChannelId, words: String) {
    for word in words.split_ascii_whitespace() {
        let (verb, rest) = word.split_once(':').unwrap_or((word, ""));
        match verb {
            "yes" => handle.channel_success(id).await.unwrap(),
            "no" => handle.channel_failure(id).await.unwrap(),
            "out" => handle.data(id, rest.to_owned()).await.unwrap(),
            "err" => handle.extended_data(id, 1, rest.to_owned()).await.unwrap(),
            "odd" => handle.extended_data(id, 7, rest.to_owned()).await.unwrap(),
            "eof" => handle.eof(id).await.unwrap(),
            "close" => handle.close(id).await.unwrap(),
            "status" => handle
                .exit_status_request(id, rest.parse().unwrap())
                .await
                .unwrap(),
            "signal" => {
                let name = Sig::Custom(rest.replace("ESC", "\x1b"));
                let text = String::new();
                handle
                    .exit_signal_request(id, name, true, text.clone(), text)
                    .await
                    .unwrap();
            }
            "open" => open_everything(&handle).await,
            "wait" => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other}"),
        }
    }
}

async fn open_everything(handle: &Handle) {
    assert!(handle.channel_open_agent().await.is_err());
    assert!(handle.channel_open_x11("a", 1).await.is_err());
    assert!(handle.channel_open_x11("a", 1).await.is_err());
    let forwarded = handle.channel_open_forwarded_tcpip("a", 1, "b", 2).await;
    assert!(forwarded.is_err());
    let forwarded = handle.channel_open_forwarded_streamlocal("a").await;
    assert!(forwarded.is_err());
}

async fn session() -> SshSession {
    let (dial, _known) = serve(Server).await;
    Dialer::new(Asker::none(), Sizing::default())
        .connect(&dial)
        .await
        .unwrap()
}

/// Serves one connection; gives the way to it, and the directory that its known_hosts stands in.
async fn serve(
    handler: impl Handler<Error = russh::Error> + Send + 'static,
) -> (Dial, tempfile::TempDir) {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let known = tempfile::tempdir().unwrap();
    let file = known.path().join("known_hosts");
    let public = key.public_key().to_openssh().unwrap();
    std::fs::write(&file, format!("[127.0.0.1]:{port} {public}\n")).unwrap();
    let config = Arc::new(Config {
        keys: vec![key],
        ..Config::default()
    });
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let running = run_stream(config, stream, handler).await.unwrap();
        let _ = running.await;
    });
    (dial(port, file), known)
}

fn dial(port: u16, known: PathBuf) -> Dial {
    Dial {
        address: "127.0.0.1".into(),
        port,
        user: UserName::new("u").unwrap(),
        known_as: "127.0.0.1".into(),
        identities: vec![],
        identities_only: true,
        hash_known_hosts: false,
        agent: None,
        password: None,
        known_hosts: vec![known],
        global_known_hosts: vec![],
        host_key_policy: HostKeyPolicy::Strict,
        connect_timeout: Duration::from_secs(10),
        user_origin: "the test".into(),
    }
}

/// Runs the words; gives stdout, stderr and the ending.
async fn run(session: &mut SshSession, words: &str) -> (String, String, Ending) {
    let spawn = Spawn {
        command: Command::Shell(words.into()),
        env: vec![],
        cwd: None,
        shell: None,
        stdin: Stdin::Closed,
        hidden: false,
        becomes: None,
    };
    let mut process = session.start(spawn).await.unwrap();
    process.set_drain_grace(Duration::from_millis(500));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let event = tokio::time::timeout_at(limit, process.next()).await;
        match event.expect(words) {
            ProcessEvent::Output { stream, bytes } => match stream {
                Stream::Stdout => out.extend_from_slice(&bytes),
                Stream::Stderr => err.extend_from_slice(&bytes),
            },
            ProcessEvent::Ended(ending) => {
                assert_eq!(process.next().await, ProcessEvent::Ended(ending.clone()));
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), ending);
            }
        }
    }
}

fn exited(code: u32) -> Ending {
    Ending::Exited {
        status: ExitStatus::Exited(code),
        lingering: None,
    }
}

#[tokio::test]
async fn messages_in_any_order() {
    let mut session = session().await;
    for words in [
        "yes out:a err:b status:263 eof close",
        "yes out:a err:b eof status:263 close",
        "yes status:263 out:a wait err:b eof close",
        "yes out:a eof err:b status:263 close",
        "out:a err:b status:263 yes close",
        "yes status:263 status:5 out:a err:b close close",
        "yes out:a err:b status:263 signal:TERM close",
        "yes out:a err:b status:263 no close",
        "yes out:a err:b status:263 eof",
    ] {
        let (out, err, ending) = run(&mut session, words).await;
        assert_eq!((out.as_str(), err.as_str()), ("a", "b"), "{words}");
        assert_eq!(ending, exited(263), "{words}");
    }
}

#[tokio::test]
async fn endings_that_are_not_a_status() {
    let mut session = session().await;
    let (_, _, ending) = run(&mut session, "yes out:a eof close").await;
    assert!(matches!(ending, Ending::Lost { .. }), "{ending:?}");
    let (_, _, ending) = run(&mut session, "no close").await;
    assert!(matches!(ending, Ending::NotStarted { .. }), "{ending:?}");
    let (_, _, ending) = run(&mut session, "yes signal:ESC[31m@x close").await;
    let signal = ExitStatus::Signaled {
        name: r"\x1b[31m@x".into(),
        core_dumped: true,
    };
    let lingering = None;
    let status = signal;
    assert_eq!(ending, Ending::Exited { status, lingering });
    let (_, _, ending) = run(&mut session, "yes status:0").await;
    assert!(
        matches!(
            &ending,
            Ending::Exited {
                lingering: Some(_),
                ..
            }
        ),
        "{ending:?}"
    );
}

#[tokio::test]
async fn channels_that_the_server_opens_are_refused() {
    let mut session = session().await;
    let (_, _, ending) = run(&mut session, "yes open odd:x status:0 close").await;
    assert_eq!(ending, exited(0));
    let warnings = session.take_warnings();
    for kind in [
        "auth-agent",
        "x11",
        "forwarded-tcpip",
        "forwarded-streamlocal",
    ] {
        let named = warnings.iter().filter(|w| w.contains(kind)).count();
        assert_eq!(named, 1, "{kind}: {warnings:?}");
    }
    assert!(warnings.iter().any(|w| w.contains("unknown type 7")));
    assert_eq!(session.take_warnings(), Vec::<String>::new());
}

/// Takes a request for a login and never answers it.
struct Stalls {
    /// Which request; others are refused.
    at: MethodKind,
}

impl Stalls {
    async fn answer(&self, method: MethodKind) -> Result<Auth, russh::Error> {
        if self.at == method {
            std::future::pending::<()>().await;
        }
        let methods = [self.at];
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&methods[..])),
            partial_success: false,
        })
    }
}

impl Handler for Stalls {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        self.answer(MethodKind::None).await
    }

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, russh::Error> {
        self.answer(MethodKind::Password).await
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        _: russh::server::PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        self.answer(MethodKind::PublicKey).await
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        _: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        self.answer(MethodKind::PublicKey).await
    }
}

#[tokio::test]
async fn a_server_that_stops_inside_authentication_is_told_by_its_phase() {
    for at in [
        MethodKind::None,
        MethodKind::PublicKey,
        MethodKind::Password,
    ] {
        let (mut dial, known) = serve(Stalls { at }).await;
        dial.connect_timeout = Duration::from_millis(700);
        match at {
            MethodKind::PublicKey => {
                let rng = &mut russh::keys::key::safe_rng();
                let key = PrivateKey::random(rng, Algorithm::Ed25519).unwrap();
                let path = known.path().join("identity");
                key.write_openssh_file(&path, Default::default()).unwrap();
                dial.identities = vec![Identity {
                    path,
                    explicit: true,
                }];
            }
            MethodKind::Password => dial.password = Some(Secret::new("x".to_owned())),
            _ => {}
        }
        let dialer = Dialer::new(Asker::none(), Sizing::default());
        let connecting = tokio::time::timeout(Duration::from_secs(10), dialer.connect(&dial));
        let problem = connecting.await.expect("it hangs").unwrap_err();
        assert_eq!(problem.cause, Cause::Timeout(Phase::Auth), "{at:?}");
    }
}

#[tokio::test]
async fn a_host_key_that_changes_is_noticed() {
    let (facts, _notes) = super::state::Facts::new(Duration::from_secs(1));
    let keys: Vec<_> = (0..2)
        .map(|_| {
            PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
                .unwrap()
                .public_key()
                .clone()
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let mut dial = dial(22, directory.path().join("known_hosts"));
    dial.host_key_policy = HostKeyPolicy::AcceptNew;
    let check =
        super::host_key::HostKeyCheck::load(&dial, &Asker::none(), &Arc::default()).unwrap();
    assert!(check.check(&keys[0], &facts).await);
    assert!(check.check(&keys[0], &facts).await);
    assert!(!check.check(&keys[1], &facts).await);
    assert!(facts.ended().contains("host key changed"));
    let fingerprint = keys[0].fingerprint(HashAlg::Sha256).to_string();
    let fact = facts.host_key.get().unwrap();
    assert_eq!(super::known::fingerprint(&fact.key), fingerprint);
}
