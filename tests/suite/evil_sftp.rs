//! An SFTP server that lies, one mode a lie, and is honest in everything else.
//!
//! Its files are in memory (`Tree`), so a test sees at once what arrived. It lets any key in and
//! runs no commands. `on` and `after` choose the reply that a lie about one reply is told in;
//! without them it is every reply but VERSION. `requests` tells what the client asked for.

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use russh::keys::load_secret_key;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, PublicKeyOffer, Session,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Sig};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::sftp_servers::Dial;
use crate::sshd::make_key;
use answers::Answers;

mod answers;
pub mod tree;

pub use tree::{Attributes, Content, Tree};

/// `SSH_FXP_*`: what a client asks.
pub mod request {
    pub const INIT: u8 = 1;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const EXTENDED: u8 = 200;
}

/// After this long without a word from the client, what is held back is told.
const IDLE: Duration = Duration::from_millis(20);
/// The most replies that are held back to be shuffled.
const MOST_HELD: usize = 64;
/// Longest packet of a client: beyond it the length is not one.
const LONGEST_PACKET: usize = 16 << 20;

/// One way to be bad. The first group lies about the replies that `on` and `after` choose.
#[derive(Debug, Clone)]
pub enum Mode {
    /// The id of no request.
    WrongId,
    /// The same reply twice.
    Twice,
    /// A packet type that does not exist.
    UnknownKind,
    /// This length before the packet, whatever its own is. 0 comes with no packet behind it.
    Length(u32),
    /// So many bytes more than the packet needs, counted in its length.
    Trailing(usize),
    /// STATUS with this code, in place of whatever the answer was.
    Status(u32),

    /// VERSION never comes.
    NoVersion,
    /// VERSION with this number.
    Version(u32),
    /// `limits@openssh.com` is offered: packet, read, write, handles.
    Limits([u64; 4]),
    /// No answer to anything after so many requests; the channel stays open and is read.
    StallsAfter(u64),
    /// An end after exactly so many bytes of SFTP.
    Dies(u64, Death),
    /// Replies that come in another order than their requests; the number chooses which.
    Reordered(u64),

    /// Every page of a listing has no names and is not the last.
    EmptyPages,
    /// Every page of a listing is the first.
    SamePage,
    /// A listing without an end, and without the same name twice.
    EndlessEntries,
    /// This count before the names of a page.
    NameCount(u32),
    /// Names that no server should say, listed in every directory with this mode, type included.
    /// Whoever opens such a path gets `bait`, or a directory with a file `inside`.
    Names { names: Vec<Vec<u8>>, mode: u32 },
    /// READDIR tells this mode, type included, of what is something else by the time of all
    /// other requests: with a link in the tree, a directory that was swapped for a link.
    ListedAs { path: String, mode: u32 },
    /// These attributes for every regular file, where they are given.
    Attributes(Attributes),
    /// Nothing is said of any file but its name.
    NoAttributes,

    /// DATA with so many bytes more than were asked for.
    LongData(usize),
    /// DATA without a byte, and never an end of the file.
    EmptyData,
    /// DATA of at most so many bytes, which a good server may do too.
    ShortData(usize),
    /// The end of every file at this byte, whatever its size is said to be.
    EarlyEof(u64),

    /// Handles of so many bytes, of every value.
    Handles(usize),
    /// The WRITE with this number (from 1) fails. Its answer comes after those of `late` more, or
    /// before that of the next request of another kind, or when the client waits.
    WriteFails { nth: u64, late: u64 },
    /// CLOSE closes, and is answered with this code.
    CloseFails(u32),
}

/// How a server ends in the middle.
#[derive(Debug, Clone)]
pub enum Death {
    /// The channel closes, with no word of a status.
    Close,
    /// The process behind it has ended with this code.
    Exit(u32),
    /// The process behind it was killed.
    Killed,
    /// The whole connection goes.
    Disconnect,
}

/// A request as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: u8,
    pub id: u32,
    /// Its first string, which is a path, a handle, or the name of an extension; at most 4 KiB.
    pub text: Vec<u8>,
}

/// What the server shall be.
#[derive(Debug)]
pub struct Builder {
    modes: Vec<Mode>,
    on: Option<u8>,
    after: u64,
    tree: Tree,
}

/// A running server; its connections end when it is dropped.
#[derive(Debug)]
pub struct EvilSftp {
    directory: TempDir,
    port: u16,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    modes: Vec<Mode>,
    on: Option<u8>,
    after: u64,
    tree: Mutex<Tree>,
    seen: Mutex<Vec<Seen>>,
    open: AtomicI64,
    connections: AtomicU64,
}

impl Shared {
    fn seen(&self, one: Seen) {
        self.seen.lock().unwrap().push(one);
    }

    fn opened(&self, more: i64) {
        self.open.fetch_add(more, Ordering::SeqCst);
    }
}

impl EvilSftp {
    /// One lie, over the sample tree.
    pub fn start(mode: Mode) -> EvilSftp {
        EvilSftp::builder().mode(mode).start()
    }

    /// An honest server over the sample tree, until it is told otherwise.
    pub fn builder() -> Builder {
        Builder {
            modes: Vec::new(),
            on: None,
            after: 0,
            tree: Tree::sample(),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        Ipv4Addr::LOCALHOST.to_string()
    }

    pub fn user(&self) -> &'static str {
        "evil"
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    pub fn identity(&self) -> PathBuf {
        self.directory.path().join("identity")
    }

    /// The options with which fanrun reaches this server.
    pub fn fanrun_args(&self) -> Vec<String> {
        self.dial().fanrun_args()
    }

    /// How OpenSSH's client reaches this server.
    pub fn dial(&self) -> Dial {
        Dial {
            port: self.port,
            user: self.user().to_owned(),
            known_hosts: self.known_hosts(),
            identity: self.identity(),
        }
    }

    /// The files as they are now.
    pub fn tree(&self) -> MutexGuard<'_, Tree> {
        self.shared.tree.lock().unwrap()
    }

    /// The bytes of a file, where there is one.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        match &self.tree().get(path)?.content {
            Content::File(bytes) => Some(bytes.clone()),
            Content::Directory | Content::Link(_) => None,
        }
    }

    /// Every request so far, in the order of its coming.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests of this kind came so far.
    pub fn count(&self, kind: u8) -> usize {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|one| one.kind == kind).count()
    }

    /// Handles that are open now, in all sessions.
    pub fn open_handles(&self) -> i64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for EvilSftp {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Builder {
    /// One more lie.
    pub fn mode(mut self, mode: Mode) -> Builder {
        self.modes.push(mode);
        self
    }

    /// Lies about one reply are told in answers to this kind of request only.
    pub fn on(mut self, kind: u8) -> Builder {
        self.on = Some(kind);
        self
    }

    /// So many of those answers are honest first.
    pub fn after(mut self, count: u64) -> Builder {
        self.after = count;
        self
    }

    /// Other files than the sample.
    pub fn tree(mut self, tree: Tree) -> Builder {
        self.tree = tree;
        self
    }

    pub fn start(self) -> EvilSftp {
        let directory = tempfile::Builder::new()
            .prefix("fanrun-evil-")
            .tempdir()
            .unwrap();
        for key in ["host_key", "identity"] {
            make_key("ed25519", &directory.path().join(key));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let public = std::fs::read_to_string(directory.path().join("host_key.pub")).unwrap();
        let known = format!("[127.0.0.1]:{port} {public}");
        std::fs::write(directory.path().join("known_hosts"), known).unwrap();
        let key = load_secret_key(directory.path().join("host_key"), None).unwrap();
        let config = Config {
            auth_rejection_time: Duration::ZERO,
            inactivity_timeout: None,
            nodelay: true,
            keys: vec![key],
            ..Config::default()
        };
        let shared = Arc::new(Shared {
            modes: self.modes,
            on: self.on,
            after: self.after,
            tree: Mutex::new(self.tree),
            seen: Mutex::default(),
            open: AtomicI64::new(0),
            connections: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let work = accept(
            listener,
            Arc::new(config),
            Arc::clone(&shared),
            stop.clone(),
        );
        EvilSftp {
            directory,
            port,
            shared,
            stop,
            thread: Some(std::thread::spawn(move || run(work))),
        }
    }
}

/// A runtime of its own, so that plain tests need none; what it runs ends with it.
fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work);
    runtime.shutdown_background();
}

async fn accept(
    listener: TcpListener,
    config: Arc<Config>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        stream.set_nodelay(true).unwrap();
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let connection = Connection(Arc::clone(&shared));
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            if let Ok(session) = russh::server::run_stream(config, stream, connection).await {
                let _ = session.await;
            }
        });
    }
}

struct Connection(Arc<Shared>);

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        _offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let (read, write) = channel.split();
        let wire = Wire {
            read,
            write,
            handle: session.handle(),
            input: Vec::new(),
            eof: false,
            closed: false,
            sent: 0,
        };
        tokio::spawn(serve(wire, Arc::clone(&self.0)));
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == "sftp" {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}

/// One channel. It is read while it is written to: a session whose channel is not drained hears
/// of no widened window either, and both sides would wait for ever.
struct Wire {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    input: Vec<u8>,
    /// The client sends no more, and still reads.
    eof: bool,
    closed: bool,
    sent: u64,
}

impl Wire {
    fn take(&mut self, message: Option<ChannelMsg>) {
        match message {
            Some(ChannelMsg::Data { data }) => self.input.extend_from_slice(&data),
            Some(ChannelMsg::Eof) => self.eof = true,
            Some(ChannelMsg::Close) | None => self.closed = true,
            // Requests and windows, which the connection has answered.
            Some(_without_data) => {}
        }
    }

    /// One packet without its length.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let length = self
            .input
            .first_chunk()
            .map(|four| u32::from_be_bytes(*four))? as usize;
        if length > LONGEST_PACKET {
            self.closed = true;
            return None;
        }
        if self.input.len() < 4 + length {
            return None;
        }
        let rest = self.input.split_off(4 + length);
        let packet = std::mem::replace(&mut self.input, rest);
        Some(packet[4..].to_vec())
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        self.sent += bytes.len() as u64;
        let mut heard = Vec::new();
        let sent = {
            let sending = self.write.data_bytes(bytes);
            tokio::pin!(sending);
            loop {
                let closed = heard.last().is_some_and(Option::is_none);
                tokio::select! {
                    sent = &mut sending => break sent,
                    message = self.read.wait(), if !closed => heard.push(message),
                }
            }
        };
        self.closed |= sent.is_err();
        for message in heard {
            self.take(message);
        }
    }

    async fn die(&mut self, death: &Death) {
        let id = self.write.id();
        // The connection is gone if any of these fails, which is an end as well.
        match death {
            Death::Close => {}
            Death::Exit(code) => {
                let _ = self.handle.exit_status_request(id, *code).await;
            }
            Death::Killed => {
                let (why, language) = (String::new(), String::new());
                let _ = self
                    .handle
                    .exit_signal_request(id, Sig::KILL, false, why, language)
                    .await;
            }
            Death::Disconnect => {
                let why = Disconnect::ByApplication;
                let _ = self
                    .handle
                    .disconnect(why, "dies".into(), "en".into())
                    .await;
            }
        }
        let _ = self.write.eof().await;
        let _ = self.write.close().await;
        self.closed = true;
    }
}

async fn serve(mut wire: Wire, shared: Arc<Shared>) {
    let mut answers = Answers::new(Arc::clone(&shared));
    let mut shuffled = shared.modes.iter().find_map(|mode| match mode {
        Mode::Reordered(seed) => Some(Shuffled::new(*seed)),
        _ => None,
    });
    loop {
        while let Some(packet) = wire.packet() {
            let mut packets = answers.answer(&packet);
            if let Some(shuffled) = &mut shuffled {
                packets = shuffled.hold(packets);
            }
            tell(&mut wire, &shared, packets).await;
        }
        let holds = answers.holds() || shuffled.as_ref().is_some_and(Shuffled::holds);
        let ends = wire.eof || wire.closed;
        if !ends {
            let limit = if holds { IDLE } else { Duration::MAX };
            if let Ok(message) = tokio::time::timeout(limit, wire.read.wait()).await {
                wire.take(message);
                continue;
            }
        }
        let mut packets = answers.idle();
        packets.extend(shuffled.iter_mut().flat_map(Shuffled::all));
        tell(&mut wire, &shared, packets).await;
        if ends {
            break;
        }
    }
    // As a server does whose input has ended; a channel that is closed takes no more.
    let _ = wire.handle.exit_status_request(wire.write.id(), 0).await;
    let _ = wire.write.eof().await;
    let _ = wire.write.close().await;
}

/// Sends packets, as far as the server lives.
async fn tell(wire: &mut Wire, shared: &Shared, packets: Vec<Vec<u8>>) {
    let death = shared.modes.iter().find_map(|mode| match mode {
        Mode::Dies(after, how) => Some((*after, how)),
        _ => None,
    });
    for mut packet in packets {
        if wire.closed {
            return;
        }
        let Some((after, how)) = death else {
            wire.send(packet).await;
            continue;
        };
        let left = usize::try_from(after - wire.sent).unwrap();
        let dies = packet.len() >= left;
        packet.truncate(left);
        wire.send(packet).await;
        if dies {
            wire.die(how).await;
        }
    }
}

/// Replies that wait to be told in another order.
struct Shuffled {
    held: Vec<Vec<u8>>,
    state: u64,
    /// VERSION goes first whatever happens.
    started: bool,
}

impl Shuffled {
    fn new(seed: u64) -> Shuffled {
        Shuffled {
            held: Vec::new(),
            // Zero would stay zero.
            state: seed | 1 << 63,
            started: false,
        }
    }

    fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes replies; gives them all once there are enough.
    fn hold(&mut self, packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        if !std::mem::replace(&mut self.started, true) {
            return packets;
        }
        self.held.extend(packets);
        if self.held.len() < MOST_HELD {
            return Vec::new();
        }
        self.all()
    }

    /// Everything, in an order that the seed chooses.
    fn all(&mut self) -> Vec<Vec<u8>> {
        let mut held = std::mem::take(&mut self.held);
        for end in (1..held.len()).rev() {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            held.swap(end, (self.state % (end as u64 + 1)) as usize);
        }
        held
    }
}
