//! What a server may ask of us: to be checked, and nothing else. Every channel that it opens is
//! refused, with one warning for each kind.

use std::sync::Arc;

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure, Names};

use super::host_key::HostKeyCheck;
use super::state::{Algorithms, Facts, Note};
use crate::outcome::Phase;
use crate::text::printable;

/// Bytes of authentication banners that are kept.
const BANNER_KEPT: usize = 64 << 10;

/// Answers russh's session task.
#[derive(Debug)]
pub(super) struct Client {
    facts: Arc<Facts>,
    check: HostKeyCheck,
    banner: usize,
    refused: Vec<String>,
}

impl Client {
    pub(super) fn new(facts: Arc<Facts>, check: HostKeyCheck) -> Self {
        Self {
            facts,
            check,
            banner: 0,
            refused: Vec::new(),
        }
    }

    async fn refuse(&mut self, kind: &str, reply: Option<ChannelOpenHandle>) {
        if let Some(reply) = reply {
            reply
                .reject(ChannelOpenFailure::AdministrativelyProhibited)
                .await;
        }
        if self.refused.len() < 8 && !self.refused.iter().any(|known| known == kind) {
            self.refused.push(kind.to_owned());
            self.facts.note(Note::Warning(format!(
                "the server tried to open a channel of type {kind}; refused"
            )));
        }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), russh::Error> {
        self.facts.add_banner();
        let room = BANNER_KEPT.saturating_sub(self.banner);
        let kept = &banner.as_bytes()[..banner.len().min(room)];
        self.banner += kept.len();
        if !kept.is_empty() {
            let lines: Vec<_> = kept.split(|&b| b == b'\n').map(printable).collect();
            let text = lines.join("\n");
            let _ = self.facts.banner.set(text.clone());
            self.facts.note(Note::Banner(text));
        }
        Ok(())
    }

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                Ok(self.check.check(key, &self.facts).await)
            }
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let _ = self.facts.algorithms.set(Algorithms {
            kex: names.kex.as_ref().to_owned(),
            host_key: names.key.to_string(),
            cipher: names.cipher.as_ref().to_owned(),
            mac: names.server_mac.as_ref().to_owned(),
            strict: names.strict_kex(),
        });
        if self.facts.phase() == Phase::Kex {
            self.facts.enter(Phase::Auth);
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("forwarded-tcpip", Some(reply)).await;
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("forwarded-streamlocal", Some(reply)).await;
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("auth-agent", Some(reply)).await;
        Ok(())
    }

    async fn should_accept_unknown_server_channel(&mut self, _: ChannelId, kind: &str) -> bool {
        let kind = printable(kind.as_bytes());
        let kind = crate::text::fit(&kind, 40).into_owned();
        self.refuse(&kind, None).await;
        false
    }

    async fn server_channel_open_unknown(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("unknown", Some(reply)).await;
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("session", Some(reply)).await;
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("direct-tcpip", Some(reply)).await;
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("direct-streamlocal", Some(reply)).await;
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refuse("x11", Some(reply)).await;
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        let words = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let message = printable(info.message.as_bytes()).into_owned();
                let _ = self.facts.disconnect.set(message.clone());
                format!("the server disconnected: {message}")
            }
            DisconnectReason::Error(e) => format!("connection lost: {}", describe(e)),
        };
        let _ = self.facts.gone.set(words);
        Ok(())
    }
}

/// An error that ended a session, in words.
fn describe(error: &russh::Error) -> String {
    use russh::Error as E;
    match error {
        E::KeepaliveTimeout => "keepalive timeout".to_owned(),
        E::HUP | E::Disconnect => "the server closed the connection".to_owned(),
        E::IO(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        E::IO(e) => super::problem::plain(e),
        E::PacketAuth | E::DecryptionError => "a packet was damaged on the way".to_owned(),
        other => printable(other.to_string().as_bytes()).to_lowercase(),
    }
}
