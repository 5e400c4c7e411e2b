//! SSH sessions: from a [`Dial`] to a command's output and status.
//!
//! The order of trust is kept by construction: a socket, the server's greeting, the key exchange,
//! the check of its key, and only then authentication. One deadline stands over all of it, because
//! russh has none, and it ends by shutting the socket, because a russh session cannot be aborted.

mod agent;
mod asker;
mod auth;
pub mod config;
mod dial;
mod handler;
mod host_key;
mod keyring;
mod known;
mod problem;
mod process;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod transport;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::client::{Config, Handle, Msg};
use russh::keys::Algorithm;
use russh::{Channel, Limits, Preferred, SshId, cipher};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

pub use asker::{Asker, Question, QuestionKind};
use process::Input;
pub use process::{DRAIN_GRACE, SshProcess};
pub(super) use russh::ChannelId;

use crate::outcome::{HostProblem, Phase};
use crate::session::elevate::Rights;
use crate::session::{Signal, Spawn, SpawnError, Stdin, Sweep, command};
use crate::target::Dial;
use handler::Client;
use host_key::HostKeyCheck;
use keyring::Keyring;
use state::{Facts, Note};
use transport::{Shutdown, Transport};

/// How long a server may take to answer the request for a channel.
const OPEN: Duration = Duration::from_secs(30);
/// How long a second connection may take.
const ASIDE: Duration = Duration::from_secs(6);
/// How long a polite end may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// How much a channel may hold. The memory of a session whose output nobody reads is bounded by
/// the queue (`channel_buffer` packets) and not by the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// Bytes that a server may send before we acknowledge any.
    pub window: u32,
    /// The largest message in a channel, in bytes.
    pub packet: u32,
    /// How much is read from the socket at once while much comes, in bytes.
    pub read_ahead: usize,
    /// Messages of one channel that wait to be read.
    pub channel_buffer: usize,
    /// Whether a host may have a second connection to share the load of large files.
    pub beside: bool,
    /// How long a silent connection is left in peace. After this it is asked for a sign of life,
    /// and after three such questions without an answer it is lost.
    pub keepalive: Duration,
}

impl Default for Sizing {
    fn default() -> Self {
        Self {
            window: 2 << 20,
            packet: 32 << 10,
            read_ahead: 64 << 10,
            channel_buffer: 32,
            beside: false,
            keepalive: Duration::from_secs(15),
        }
    }
}

/// Opens connections. One for a run: key files, passphrases and settings are shared.
#[derive(Debug, Clone)]
pub struct Dialer {
    asker: Asker,
    sizing: Sizing,
    keyring: Arc<Keyring>,
    known: Arc<known::Files>,
}

/// How a host key was found to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// It stands in known_hosts.
    Known,
    /// It was not known, and was accepted by policy or by answer.
    AcceptedNew {
        /// Whether it could be written to known_hosts.
        recorded: bool,
    },
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct ConnectReport {
    /// Resolving the name.
    pub dns: Duration,
    /// TCP handshake.
    pub connect: Duration,
    /// Greeting and key exchange.
    pub kex: Duration,
    /// Authentication.
    pub auth: Duration,
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: Option<SocketAddr>,
    /// The server's identification line, printable.
    pub server_version: String,
    /// Text that the server sent before that line, printable, at most 1 KiB.
    pub greeting: Option<String>,
    /// Key exchange algorithm.
    pub kex_algorithm: String,
    /// Host key algorithm.
    pub host_key_algorithm: String,
    /// Cipher.
    pub cipher: String,
    /// MAC; a name without a meaning for ciphers that authenticate themselves.
    pub mac: String,
    /// Whether strict key exchange (the answer to CVE-2023-48795) was agreed on.
    pub strict_kex: bool,
    /// `SHA256:...` of the host key.
    pub fingerprint: String,
    /// How the host key was verified.
    pub verified: Verified,
    /// What authenticated us: a key's file or comment and its fingerprint, or a method.
    pub authenticated_by: String,
    /// The authentication banner, printable, at most 64 KiB.
    pub banner: Option<String>,
    /// Warnings up to now, one line each.
    pub warnings: Vec<String>,
}

impl ConnectReport {
    /// What OpenSSH's server puts into `SSH_CONNECTION` of every command: both ends as it sees
    /// them, which is as we do unless addresses are translated on the way.
    fn connection(&self) -> Option<String> {
        let (local, peer) = (self.local?, self.peer);
        Some(format!(
            "{} {} {} {}",
            local.ip(),
            local.port(),
            peer.ip(),
            peer.port()
        ))
    }
}

/// One authenticated connection.
pub struct SshSession {
    handle: Handle<Client>,
    guard: Guard,
    facts: Arc<Facts>,
    notes: mpsc::Receiver<Note>,
    report: ConnectReport,
    next: Option<Channel<Msg>>,
    swept: Option<(russh::ChannelId, sweep::Memory)>,
    /// How it was opened, for a second connection.
    again: Again,
    /// When the last command was begun.
    begun: Instant,
}

/// A second connection to the same host: for sweeps where the first has no channel to spare, and to
/// share the load of large files.
struct Again {
    dialer: Dialer,
    dial: Dial,
    open: Option<Box<SshSession>>,
    /// Places for handshakes at the endpoint, shared with whoever connects there.
    places: Option<Arc<Semaphore>>,
    /// Nobody would notice a second login. Cleared once one has failed.
    silently: bool,
}

impl Again {
    /// A channel of it. Nobody is asked anything: whatever was asked once is known.
    async fn channel(&mut self) -> Option<Channel<Msg>> {
        if self.open.as_ref().is_none_or(|session| session.is_closed()) {
            let places = self.places.clone();
            // They are never closed; without one the attempt would only be less polite.
            let _place = match &places {
                Some(places) => places.acquire().await.ok(),
                None => None,
            };
            let quiet = Dialer {
                asker: Asker::none(),
                ..self.dialer.clone()
            };
            let session = Box::pin(quiet.connect(&self.dial)).await.ok()?;
            self.open = Some(Box::new(session));
        }
        self.open.as_ref()?.open().await.ok()
    }
}

/// Shuts the socket when the attempt or the session is dropped: russh's task would live on.
#[derive(Debug)]
struct Guard(Shutdown);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.now();
    }
}

impl Dialer {
    /// `asker` puts questions to the user, if there is one.
    #[must_use]
    pub fn new(asker: Asker, sizing: Sizing) -> Self {
        Self {
            asker,
            sizing,
            keyring: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Makes one attempt, from the name to the end of authentication, under
    /// [`Dial::connect_timeout`]. Time in which a person is asked does not count.
    ///
    /// # Errors
    /// [`HostProblem`] with the cause and the phase it happened in.
    pub async fn connect(&self, dial: &Dial) -> Result<SshSession, HostProblem> {
        let (facts, notes) = Facts::new(dial.connect_timeout);
        let facts = Arc::new(facts);
        tokio::select! {
            biased;
            () = expiry(&facts) => Err(problem::timeout(dial, &facts)),
            session = self.attempt(dial, &facts, notes) => session,
        }
    }

    async fn attempt(
        &self,
        dial: &Dial,
        facts: &Arc<Facts>,
        notes: mpsc::Receiver<Note>,
    ) -> Result<SshSession, HostProblem> {
        facts.enter(Phase::Dns);
        let mut check = HostKeyCheck::load(dial, &self.asker, &self.known)?;
        for warning in check.warnings() {
            facts.note(Note::Warning(warning));
        }
        let addresses = dial::resolve(dial).await?;
        facts.enter(Phase::Connect);
        let (stream, peer) = dial::connect(&addresses).await?;
        let local = stream.local_addr().ok();
        facts.enter(Phase::Banner);
        let config = self.config(check.algorithms());
        let (transport, shutdown) =
            Transport::new(stream, Arc::clone(facts), self.sizing.read_ahead);
        let guard = Guard(shutdown);
        let client = Client::new(Arc::clone(facts), check);
        let mut handle = russh::client::connect_stream(config, transport, client)
            .await
            .map_err(|e| problem::failed(dial, facts, &e))?;
        facts.enter(Phase::Auth);
        let login = auth::Login::new(&mut handle, dial, facts, &self.keyring, &self.asker);
        let logged_in = login.run().await?;
        facts.finished();
        let mut session = SshSession {
            report: report(facts, peer, local, logged_in.how),
            handle,
            guard,
            facts: Arc::clone(facts),
            notes,
            next: None,
            swept: None,
            again: Again {
                dialer: self.clone(),
                dial: dial.clone(),
                open: None,
                places: None,
                silently: logged_in.silently,
            },
            begun: Instant::now(),
        };
        session.report.warnings = session.take_warnings();
        Ok(session)
    }

    fn config(&self, key: Vec<Algorithm>) -> Arc<Config> {
        Arc::new(Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!(
                "SSH-2.0-fanrun_",
                env!("CARGO_PKG_VERSION")
            ))),
            // More than twice the window in flight during our own rekey ends a session in russh,
            // and AES-GCM needs none before 64 GiB (RFC 5647 counts invocations, not bytes): so
            // as rarely as russh allows.
            limits: Limits {
                rekey_write_limit: 1 << 30,
                rekey_read_limit: 1 << 30,
                rekey_time_limit: Duration::from_secs(24 * 3600),
            },
            window_size: self.sizing.window,
            maximum_packet_size: self.sizing.packet,
            channel_buffer_size: self.sizing.channel_buffer,
            preferred: Preferred {
                key: Cow::Owned(key),
                cipher: Cow::Borrowed(CIPHERS),
                compression: Cow::Borrowed(&[russh::compression::NONE]),
                ..Preferred::DEFAULT
            },
            inactivity_timeout: None,
            keepalive_interval: Some(self.sizing.keepalive),
            keepalive_max: 3,
            nodelay: true,
            ..Config::default()
        })
    }
}

/// By measured speed: AES-GCM has hardware for it almost everywhere.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

fn report(
    facts: &Facts,
    peer: SocketAddr,
    local: Option<SocketAddr>,
    authenticated_by: String,
) -> ConnectReport {
    let at = |index| facts.entered(index);
    let algorithms = facts.algorithms.get().cloned().unwrap_or_default();
    let host_key = facts.host_key.get();
    ConnectReport {
        dns: at(1).saturating_sub(at(0)),
        connect: at(2).saturating_sub(at(1)),
        kex: at(4).saturating_sub(at(2)),
        auth: at(5).saturating_sub(at(4)),
        peer,
        local,
        server_version: facts.version().unwrap_or_default().to_owned(),
        greeting: facts.said().map(str::to_owned),
        kex_algorithm: algorithms.kex,
        host_key_algorithm: algorithms.host_key,
        cipher: algorithms.cipher,
        mac: algorithms.mac,
        strict_kex: algorithms.strict,
        fingerprint: host_key
            .map(|fact| known::fingerprint(&fact.key))
            .unwrap_or_default(),
        verified: host_key.map_or(Verified::AcceptedNew { recorded: false }, |fact| {
            fact.verified
        }),
        authenticated_by,
        banner: None,
        warnings: Vec::new(),
    }
}

/// Waits until the attempt's deadline has passed.
async fn expiry(facts: &Facts) {
    let mut deadline = facts.deadline.subscribe();
    loop {
        let until = *deadline.borrow_and_update();
        let passed = async {
            match until {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = passed => return,
            _ = deadline.changed() => {}
        }
    }
}

/// Waits for a person: the deadline moves by as long as that takes.
async fn paused<T>(facts: &Facts, asking: impl Future<Output = T>) -> T {
    let before = *facts.deadline.borrow();
    let began = Instant::now();
    facts.deadline.send_replace(None);
    let answer = asking.await;
    let after = before.map(|at| at + began.elapsed());
    facts.deadline.send_replace(after);
    answer
}

impl SshSession {
    /// A further connection to the host takes one of these places while it is opened.
    pub fn share_places(&mut self, places: &Arc<Semaphore>) {
        self.again.places = Some(Arc::clone(places));
    }

    /// What is known of the connection.
    #[must_use]
    pub fn report(&self) -> &ConnectReport {
        &self.report
    }

    /// Opens the next command's channel ahead, so that [`Self::start`] costs no round trip. A
    /// failure is kept silent; `start` will meet it again.
    pub async fn prepare(&mut self) {
        if self.next.is_none() {
            self.next = self.open().await.ok();
        }
    }

    /// The channel opened ahead, unless the server has closed it meanwhile: a request sent there
    /// would look like a command whose result was lost.
    async fn prepared(&mut self) -> Option<Channel<Msg>> {
        let mut channel = self.next.take()?;
        match timeout(Duration::ZERO, channel.wait()).await {
            Err(_) | Ok(Some(russh::ChannelMsg::WindowAdjusted { .. })) => Some(channel),
            Ok(_) => None,
        }
    }

    async fn open(&self) -> Result<Channel<Msg>, SpawnError> {
        let refused = |reason: &str| SpawnError::ChannelRefused {
            reason: format!("the server would not open a channel: {reason}"),
        };
        match timeout(OPEN, self.handle.channel_open_session()).await {
            Err(_) => Err(refused("it did not answer")),
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(failure))) => {
                Err(refused(&describe_refusal(&failure)))
            }
            Ok(Err(_)) => Err(SpawnError::Disconnected {
                reason: self.facts.ended(),
            }),
        }
    }

    /// Sends the request to run a command and does not wait for the answer: a refusal comes as
    /// [`crate::session::Ending::NotStarted`]. At most one process runs at a time.
    ///
    /// # Errors
    /// [`SpawnError`]: in every case the command certainly never ran.
    pub async fn start(&mut self, spawn: Spawn) -> Result<SshProcess, SpawnError> {
        let longest = command::longest_for(&self.report.server_version);
        let composed = command::compose(&spawn, longest)
            .map_err(|reason| SpawnError::NotStarted { reason })?;
        let channel = self.ready_channel().await?;
        self.begun = Instant::now();
        if channel.exec(true, composed.request).await.is_err() {
            return Err(self.disconnected());
        }
        let facts = Arc::clone(&self.facts);
        let refusal = "the server refused to run the command".to_owned();
        let input = Input {
            ahead: composed.ahead,
            stdin: spawn.stdin,
        };
        Ok(SshProcess::new(channel, input, facts, refusal))
    }

    /// Sends the request to start a subsystem and does not wait for the answer, as [`Self::start`].
    ///
    /// # Errors
    /// [`SpawnError`]: in every case it certainly was not started.
    pub async fn subsystem(&mut self, name: &str, stdin: Stdin) -> Result<SshProcess, SpawnError> {
        let channel = self.ready_channel().await?;
        if channel.request_subsystem(true, name).await.is_err() {
            return Err(self.disconnected());
        }
        let facts = Arc::clone(&self.facts);
        let refusal = format!("the server has no `{name}` subsystem");
        let input = Input { ahead: None, stdin };
        Ok(SshProcess::new(channel, input, facts, refusal))
    }

    /// Starts a subsystem over a second connection, which is opened where there is none yet. `None`
    /// where that is not to be had: nothing depends on it, so nobody is told and nobody is asked.
    pub async fn subsystem_beside(&mut self, name: &str, stdin: Stdin) -> Option<SshProcess> {
        if !self.again.silently || !self.again.dialer.sizing.beside {
            return None;
        }
        let channel = timeout(ASIDE, self.again.channel()).await.ok().flatten();
        self.again.silently = channel.is_some();
        let beside = self.again.open.as_ref()?;
        if beside.report.fingerprint != self.report.fingerprint {
            // One name for several machines.
            self.again.silently = false;
            return None;
        }
        let (channel, facts) = (channel?, Arc::clone(&beside.facts));
        channel.request_subsystem(true, name).await.ok()?;
        let refusal = format!("the server has no `{name}` subsystem");
        let input = Input { ahead: None, stdin };
        Some(SshProcess::new(channel, input, facts, refusal))
    }

    async fn ready_channel(&mut self) -> Result<Channel<Msg>, SpawnError> {
        if self.handle.is_closed() {
            return Err(self.disconnected());
        }
        match self.prepared().await {
            Some(channel) => Ok(channel),
            None => self.open().await,
        }
    }

    fn disconnected(&self) -> SpawnError {
        SpawnError::Disconnected {
            reason: self.facts.ended(),
        }
    }

    /// Sends `signal` to every process that `process` started and that can be found, over a second
    /// channel. Takes a few seconds at most.
    ///
    /// The process must be read meanwhile: a channel that nobody reads stops all others of its
    /// connection.
    pub async fn sweep(&mut self, id: ChannelId, signal: Signal, rights: Option<&Rights>) -> Sweep {
        let mut memory = match self.swept.take() {
            Some((known, memory)) if known == id => memory,
            _ => sweep::Memory::default(),
        };
        let channel = match self.prepared().await {
            Some(channel) => Some(channel),
            None => timeout(sweep::DEADLINE, self.open())
                .await
                .ok()
                .and_then(Result::ok),
        };
        let found = match channel {
            Some(channel) => {
                let of = sweep::Command {
                    connection: None,
                    age: self.begun.elapsed(),
                    rights,
                };
                sweep::run(channel, signal.name(), &mut memory, of).await
            }
            None => self.sweep_aside(signal, &mut memory, rights).await,
        };
        self.swept = Some((id, memory));
        found
    }

    /// Sweeps over a second connection.
    async fn sweep_aside(
        &mut self,
        signal: Signal,
        memory: &mut sweep::Memory,
        rights: Option<&Rights>,
    ) -> Sweep {
        let Some(connection) = self.report.connection() else {
            return Sweep::Unknown;
        };
        match timeout(ASIDE, self.again.channel()).await {
            Ok(Some(channel)) => {
                let of = sweep::Command {
                    connection: Some(&connection),
                    age: self.begun.elapsed(),
                    rights,
                };
                sweep::run(channel, signal.name(), memory, of).await
            }
            Ok(None) | Err(_) => Sweep::Unknown,
        }
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Warnings since the last call, one line each.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Warning(warning) => warnings.push(warning),
                Note::Banner(text) => match &mut self.report.banner {
                    Some(banner) => banner.push_str(&text),
                    None => self.report.banner = Some(text),
                },
            }
        }
        warnings
    }

    /// Says goodbye, waits a moment for it to leave, and shuts the socket.
    pub async fn close(mut self) {
        let beside = self.again.open.take();
        let goodbye = async {
            let reason = russh::Disconnect::ByApplication;
            if self.handle.disconnect(reason, "done", "").await.is_ok() {
                let _ = self.handle.await;
            }
        };
        let goodbye = timeout(GOODBYE, goodbye);
        let _ = match beside {
            Some(beside) => tokio::join!(goodbye, Box::pin(beside.close())).0,
            None => goodbye.await,
        };
    }

    /// Shuts the socket now.
    pub fn abort(&self) {
        self.guard.0.now();
    }
}

impl std::fmt::Debug for SshSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshSession")
            .field("peer", &self.report.peer)
            .finish_non_exhaustive()
    }
}

fn describe_refusal(failure: &russh::ChannelOpenFailure) -> String {
    use russh::ChannelOpenFailure as F;
    match failure {
        F::AdministrativelyProhibited => "administratively prohibited".to_owned(),
        F::ConnectFailed => "it could not (MaxSessions may be reached)".to_owned(),
        F::UnknownChannelType => "it knows no sessions".to_owned(),
        F::ResourceShortage => "resource shortage".to_owned(),
        F::Other { code, reason } => {
            let reason = crate::text::printable(reason.as_bytes());
            format!("code {code}, {}", crate::text::fit(&reason, 200))
        }
    }
}
