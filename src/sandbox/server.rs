//! The SSH side of a member: who may log in, and which requests are answered how.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::command::{self, Place};
use super::{Ground, Member, sftp};

/// Accepts connections until the fleet stops.
pub(super) async fn listen(
    listener: TcpListener,
    key: PrivateKey,
    member: Member,
    ground: Arc<Ground>,
) {
    let config = Arc::new(Config {
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        nodelay: true,
        keys: vec![key],
        ..Config::default()
    });
    loop {
        let accepted = tokio::select! {
            () = ground.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // As sshd does. Without it every answer waits for a delayed acknowledgement, 40 ms.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::warn!(%error, "sandbox: no TCP_NODELAY");
                }
                let work = serve(
                    stream,
                    peer,
                    Arc::clone(&config),
                    member.clone(),
                    ground.clone(),
                );
                ground.tasks.spawn(work);
            }
            Err(error) => {
                tracing::warn!(%error, "sandbox: cannot accept a connection");
                // Out of descriptors: the same error would come back at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<Config>,
    member: Member,
    ground: Arc<Ground>,
) {
    let place = Arc::new(Place {
        member,
        peer,
        ended: ground.stop.child_token(),
        ground,
    });
    // Commands end with their connection, whichever way it ends.
    let _guard = place.ended.clone().drop_guard();
    if let Err(error) = converse(stream, config, &place).await {
        tracing::debug!(%error, "sandbox: connection ended");
    }
}

async fn converse(
    stream: TcpStream,
    config: Arc<Config>,
    place: &Arc<Place>,
) -> Result<(), russh::Error> {
    let stream = stream.into_std()?;
    // russh's task cannot be stopped from outside while a message waits for a window; an end of
    // its socket stops it always.
    let socket = stream.try_clone()?;
    let stream = TcpStream::from_std(stream)?;
    let _cut = Cut(socket);
    let handler = Connection {
        place: Arc::clone(place),
        busy: HashSet::new(),
    };
    let stop: &CancellationToken = &place.ended;
    let session = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        session = russh::server::run_stream(config, stream, handler) => session?,
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = session => ended,
    }
}

struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        // Closed by the other side already: nothing is left to do.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

struct Connection {
    place: Arc<Place>,
    /// Channels that have had their one command (RFC 4254 6.5).
    busy: HashSet<ChannelId>,
}

impl Connection {
    fn may_enter(&self, user: &str, key: &russh::keys::PublicKey) -> Auth {
        let ground = &self.place.ground;
        if user == ground.user.as_str() && key.key_data() == ground.key.key_data() {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.may_enter(user, offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.may_enter(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let work = command::serve(channel, session.handle(), Arc::clone(&self.place));
        self.place.ground.tasks.spawn(work);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.busy.remove(&channel);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.busy.insert(channel) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == sftp::NAME && self.busy.insert(channel) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
