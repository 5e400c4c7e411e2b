//! The requests of SFTP version 3 and of OpenSSH's extensions, each as one call.
//!
//! A call is in flight from the moment it is awaited; [`Client`] is cheap to clone, so that any
//! number may be. Reads and writes can also be sent first and awaited later ([`Pending`]), which
//! is how a transfer keeps its order without a task for each piece.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use super::driver::{Driver, Order, Shared};
use super::wire::{self, Attrs, Cursor, Frames, Named, OpenFlags, Reply, Request};
use super::{Code, Error, Incoming, Link, RemotePath, Settings};
use crate::text::{fit, printable};

/// Requests that wait for room in the window.
const QUEUE: usize = 64;
/// What every version 3 server takes in one READ or WRITE (draft, section 3: 34,000 bytes a packet).
const PIECE: u32 = 32 << 10;
/// The most we ask for at once, so that an answer fits the longest packet that we read.
const MOST: u64 = 255 << 10;
/// How much of a shell's noise is shown.
const NOISE: usize = 100;
/// How long noise is collected after the first of it.
const NOISE_TIME: Duration = Duration::from_millis(500);

/// A connection to an SFTP server.
#[derive(Debug, Clone)]
pub struct Client {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    hello: Arc<Offered>,
}

/// What the server said of itself.
#[derive(Debug, Default)]
struct Offered {
    extensions: BTreeMap<Bytes, Bytes>,
    limits: Limits,
}

/// What a server takes; `limits@openssh.com`, or what the draft says where it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes in one READ.
    pub read: u32,
    /// Most bytes in one WRITE.
    pub write: u32,
    /// Most open handles; `None` when it does not say.
    pub handles: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read: PIECE,
            write: PIECE,
            handles: None,
        }
    }
}

/// What `statvfs@openssh.com` says of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes a block.
    pub block: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks that an ordinary account may still use.
    pub available: u64,
    /// Files that may still be made.
    pub files: u64,
}

/// Which of its two paths a server takes for what in SYMLINK. It cannot be asked; it can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOrder {
    /// As OpenSSH reads it (PROTOCOL, 4.1), and most servers with it.
    TargetFirst,
    /// As the draft has it (section 6.10). Some servers do so for clients that are not OpenSSH's.
    LinkFirst,
}

/// Names of numeric owners and groups, in the order in which they were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdNames {
    /// Of users; `None` where the server knows none.
    pub users: Vec<Option<Bytes>>,
    /// Of groups.
    pub groups: Vec<Option<Bytes>>,
}

/// An open file or directory. Close it with [`Client::close`]; what is dropped stays open on the
/// server until the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle(Bytes);

#[cfg(test)]
impl Handle {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

/// A request that was sent and whose answer is awaited later.
#[derive(Debug)]
#[must_use = "the answer says whether it worked"]
pub struct Pending {
    answer: oneshot::Receiver<Result<Reply, Error>>,
    shared: Arc<Shared>,
}

impl Pending {
    async fn reply(self) -> Result<Reply, Error> {
        match self.answer.await {
            Ok(answer) => answer,
            Err(_) => Err(over(&self.shared)),
        }
    }

    /// The answer of a READ: `None` at the end of the file. Never empty, and never more than was
    /// asked for; less is allowed anywhere.
    ///
    /// # Errors
    /// What the server said, or why the client is over.
    pub async fn data(self) -> Result<Option<Bytes>, Error> {
        match self.reply().await? {
            Reply::Data(data) => Ok(Some(data)),
            reply => eof(reply, "DATA"),
        }
    }

    /// The answer of a WRITE.
    ///
    /// # Errors
    /// What the server said, or why the client is over.
    pub async fn done(self) -> Result<(), Error> {
        done(self.reply().await?)
    }

    /// The answer of an FSTAT.
    ///
    /// # Errors
    /// What the server said, or why the client is over.
    pub async fn attrs(self) -> Result<Attrs, Error> {
        attrs(self.reply().await?)
    }

    /// The answer of a READDIR: `None` at the end of the directory. Never empty.
    ///
    /// # Errors
    /// What the server said, or why the client is over.
    pub async fn names(self) -> Result<Option<Vec<Named>>, Error> {
        match self.reply().await? {
            // An empty page is how a server keeps a client asking without end.
            Reply::Names(names) if names.is_empty() => {
                Err(Error::Protocol("a page of no names".to_owned()))
            }
            Reply::Names(names) => Ok(Some(names)),
            reply => eof(reply, "NAME"),
        }
    }
}

fn over(shared: &Shared) -> Error {
    shared
        .over
        .get()
        .cloned()
        .unwrap_or_else(|| Error::Ended("the client is closed".to_owned()))
}

fn status(code: u32, said: &[u8]) -> Error {
    Error::Status {
        code: Code::of(code),
        said: fit(&printable(said), 200).into_owned(),
    }
}

/// An answer of the wrong kind. The stream itself is still whole, but nothing that such a server
/// says can be believed.
fn misplaced<T>(reply: &Reply, wanted: &str) -> Result<T, Error> {
    Err(Error::Protocol(format!(
        "a {} where {wanted} was asked for",
        reply.word()
    )))
}

fn failed<T>(reply: Reply, wanted: &str) -> Result<T, Error> {
    match reply {
        Reply::Status { code: 0, .. } => Err(Error::Protocol(format!("OK where {wanted} was due"))),
        Reply::Status { code, said } => Err(status(code, &said)),
        other => misplaced(&other, wanted),
    }
}

fn eof<T>(reply: Reply, wanted: &str) -> Result<Option<T>, Error> {
    match failed(reply, wanted) {
        Err(error) if error.code() == Some(Code::Eof) => Ok(None),
        other => other.map(Some),
    }
}

fn attrs(reply: Reply) -> Result<Attrs, Error> {
    match reply {
        Reply::Attrs(attrs) => Ok(attrs),
        reply => failed(reply, "ATTRS"),
    }
}

fn done(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Status { code: 0, .. } => Ok(()),
        other => failed(other, "STATUS"),
    }
}

impl Client {
    /// Greets the server and learns what it offers.
    ///
    /// # Errors
    /// [`Error::Noise`], [`Error::Version`], and whatever ends a client.
    pub async fn start(mut link: Link, settings: Settings) -> Result<Self, Error> {
        let mut frames = Frames::default();
        let greeting = greet(&mut link, &mut frames);
        let hello = tokio::time::timeout(settings.patience, greeting)
            .await
            .unwrap_or(Err(Error::Stalled(settings.patience)))?;
        let (orders, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let driver = Driver::new(link, frames, queue, settings, Arc::clone(&shared));
        tokio::spawn(driver.run());
        let mut offered = Offered {
            extensions: hello.extensions.into_iter().collect(),
            limits: Limits::default(),
        };
        let client = Self {
            orders,
            shared,
            hello: Arc::default(),
        };
        if offered.has("limits@openssh.com") {
            offered.limits = client.ask_limits().await?;
        }
        Ok(Self {
            hello: Arc::new(offered),
            ..client
        })
    }

    /// Whether it has ended, so that nothing can be asked any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.orders.is_closed()
    }

    /// What the server takes.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.hello.limits
    }

    /// Whether the server announced an extension.
    #[must_use]
    pub fn offers(&self, extension: &str) -> bool {
        self.hello.has(extension)
    }

    /// How much to read at once now: a quarter of the window, so that several are in flight, within
    /// what the server takes.
    #[must_use]
    pub fn read_size(&self) -> u32 {
        self.piece(self.hello.limits.read)
    }

    /// How much to write at once now.
    #[must_use]
    pub fn write_size(&self) -> u32 {
        self.piece(self.hello.limits.write)
    }

    fn piece(&self, most: u32) -> u32 {
        let window = self.shared.window.load(Ordering::Relaxed);
        let share = u32::try_from(window / 4).unwrap_or(u32::MAX);
        share.max(PIECE).min(most)
    }

    /// Bytes of requests that are not answered yet. Of two clients, the one with less has less to
    /// do or does it faster.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.shared.outstanding.load(Ordering::Relaxed)
    }

    async fn send(&self, request: Request) -> Result<Pending, Error> {
        self.shared.made(&request);
        let (answer, receiver) = oneshot::channel();
        let order = Order { request, answer };
        if self.orders.send(order).await.is_err() {
            return Err(over(&self.shared));
        }
        Ok(Pending {
            answer: receiver,
            shared: Arc::clone(&self.shared),
        })
    }

    async fn ask(&self, request: Request) -> Result<Reply, Error> {
        self.send(request).await?.reply().await
    }

    async fn act(&self, request: Request) -> Result<(), Error> {
        done(self.ask(request).await?)
    }

    /// Opens a file. `mode` is for files that this makes; the server's umask applies.
    ///
    /// # Errors
    /// What the server said, or why the client is over. So for every request below.
    pub async fn open(
        &self,
        path: &RemotePath,
        flags: OpenFlags,
        mode: Option<u32>,
    ) -> Result<Handle, Error> {
        let attrs = mode.map(Attrs::of_mode).unwrap_or_default();
        let path = path.bytes();
        self.handle(Request::Open { path, flags, attrs }).await
    }

    /// Opens a directory for [`Self::read_dir`].
    pub async fn open_dir(&self, path: &RemotePath) -> Result<Handle, Error> {
        self.handle(Request::OpenDir(path.bytes())).await
    }

    async fn handle(&self, request: Request) -> Result<Handle, Error> {
        match self.ask(request).await? {
            Reply::Handle(handle) => Ok(Handle(handle)),
            reply => failed(reply, "HANDLE"),
        }
    }

    /// Closes a handle. For a file that was written to, the answer says whether the server could
    /// keep what it had accepted.
    pub async fn close(&self, handle: Handle) -> Result<(), Error> {
        self.send_close(handle).await?.done().await
    }

    /// Sends a CLOSE.
    pub async fn send_close(&self, handle: Handle) -> Result<Pending, Error> {
        self.send(Request::Close(handle.0)).await
    }

    /// Sends a READ of at most `len` bytes.
    pub async fn read(&self, handle: &Handle, offset: u64, len: u32) -> Result<Pending, Error> {
        let len = len.min(self.hello.limits.read);
        let handle = handle.0.clone();
        self.send(Request::Read {
            handle,
            offset,
            len,
        })
        .await
    }

    /// Sends a WRITE. `data` must not be longer than [`Limits::write`].
    pub async fn write(&self, handle: &Handle, offset: u64, data: Bytes) -> Result<Pending, Error> {
        let handle = handle.0.clone();
        self.send(Request::Write {
            handle,
            offset,
            data,
        })
        .await
    }

    /// Sends a READDIR.
    pub async fn read_dir(&self, handle: &Handle) -> Result<Pending, Error> {
        self.send(Request::ReadDir(handle.0.clone())).await
    }

    /// Attributes of what a path leads to; links are followed.
    pub async fn stat(&self, path: &RemotePath) -> Result<Attrs, Error> {
        self.attrs(Request::Stat(path.bytes())).await
    }

    /// Attributes of what stands at a path, be it a link.
    pub async fn lstat(&self, path: &RemotePath) -> Result<Attrs, Error> {
        self.attrs(Request::Lstat(path.bytes())).await
    }

    /// Attributes of an open file.
    pub async fn fstat(&self, handle: &Handle) -> Result<Attrs, Error> {
        self.send_fstat(handle).await?.attrs().await
    }

    /// Sends an FSTAT.
    pub async fn send_fstat(&self, handle: &Handle) -> Result<Pending, Error> {
        self.send(Request::Fstat(handle.0.clone())).await
    }

    async fn attrs(&self, request: Request) -> Result<Attrs, Error> {
        attrs(self.ask(request).await?)
    }

    /// Sets attributes of what a path leads to.
    pub async fn set_stat(&self, path: &RemotePath, attrs: Attrs) -> Result<(), Error> {
        self.act(Request::SetStat(path.bytes(), attrs)).await
    }

    /// Sets attributes of an open file.
    pub async fn fset_stat(&self, handle: &Handle, attrs: Attrs) -> Result<(), Error> {
        self.send_fset_stat(handle, attrs).await?.done().await
    }

    /// Sends an FSETSTAT.
    pub async fn send_fset_stat(&self, handle: &Handle, attrs: Attrs) -> Result<Pending, Error> {
        self.send(Request::FsetStat(handle.0.clone(), attrs)).await
    }

    /// Sets attributes of what stands at a path, be it a link (`lsetstat@openssh.com`).
    pub async fn lset_stat(&self, path: &RemotePath, attrs: Attrs) -> Result<(), Error> {
        let mut body = BytesMut::new();
        wire::string(&mut body, path.as_bytes());
        attrs.put(&mut body);
        self.extended("lsetstat@openssh.com", body.freeze()).await
    }

    /// Removes a file or a link.
    pub async fn remove(&self, path: &RemotePath) -> Result<(), Error> {
        self.act(Request::Remove(path.bytes())).await
    }

    /// Makes a directory; its parent must exist.
    pub async fn make_dir(&self, path: &RemotePath, mode: Option<u32>) -> Result<(), Error> {
        let attrs = mode.map(Attrs::of_mode).unwrap_or_default();
        self.act(Request::MakeDir(path.bytes(), attrs)).await
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: &RemotePath) -> Result<(), Error> {
        self.act(Request::RemoveDir(path.bytes())).await
    }

    /// The absolute path that the server makes of a path.
    pub async fn real_path(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        self.one_name(Request::RealPath(path.bytes())).await
    }

    /// Where a link leads to, as it is written.
    pub async fn read_link(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        self.one_name(Request::ReadLink(path.bytes())).await
    }

    /// An absolute path, `~` and `~user` included where the server can (`expand-path@openssh.com`).
    /// Where it cannot, `~` is the directory that a session starts in; `~user` is an error.
    pub async fn expand(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        if !path.as_bytes().starts_with(b"~") {
            return self.real_path(path).await;
        }
        const EXPAND: &str = "expand-path@openssh.com";
        if self.offers(EXPAND) {
            let mut body = BytesMut::new();
            wire::string(&mut body, path.as_bytes());
            let body = body.freeze();
            return self
                .one_name(Request::Extended { name: EXPAND, body })
                .await;
        }
        match path.as_bytes() {
            b"~" => self.real_path(&RemotePath::new(".")).await,
            [b'~', b'/', rest @ ..] => {
                let rest = RemotePath::new(Bytes::copy_from_slice(rest));
                self.real_path(&rest).await
            }
            _ => Err(Error::Unsupported(EXPAND)),
        }
    }

    async fn one_name(&self, request: Request) -> Result<RemotePath, Error> {
        match self.ask(request).await? {
            Reply::Names(names) => match <[Named; 1]>::try_from(names) {
                Ok([name]) => Ok(RemotePath::new(name.name)),
                Err(names) => Err(Error::Protocol(format!(
                    "{} names where one was asked for",
                    names.len()
                ))),
            },
            reply => failed(reply, "NAME"),
        }
    }

    /// Renames as version 3 does: fails where `new` exists.
    pub async fn rename(&self, old: &RemotePath, new: &RemotePath) -> Result<(), Error> {
        self.act(Request::Rename(old.bytes(), new.bytes())).await
    }

    /// Renames as rename(2) does, replacing `new` in one step (`posix-rename@openssh.com`).
    pub async fn posix_rename(&self, old: &RemotePath, new: &RemotePath) -> Result<(), Error> {
        let body = strings(&[old.as_bytes(), new.as_bytes()]);
        self.extended("posix-rename@openssh.com", body).await
    }

    /// Makes a symbolic link.
    pub async fn symlink(
        &self,
        order: LinkOrder,
        target: &[u8],
        link: &RemotePath,
    ) -> Result<(), Error> {
        let target = Bytes::copy_from_slice(target);
        let (first, second) = match order {
            LinkOrder::TargetFirst => (target, link.bytes()),
            LinkOrder::LinkFirst => (link.bytes(), target),
        };
        self.act(Request::Symlink { first, second }).await
    }

    /// Makes a hard link (`hardlink@openssh.com`).
    pub async fn hard_link(&self, old: &RemotePath, new: &RemotePath) -> Result<(), Error> {
        let body = strings(&[old.as_bytes(), new.as_bytes()]);
        self.extended("hardlink@openssh.com", body).await
    }

    /// Waits until the server's disk holds what was written (`fsync@openssh.com`).
    pub async fn sync(&self, handle: &Handle) -> Result<(), Error> {
        self.extended("fsync@openssh.com", strings(&[&handle.0]))
            .await
    }

    /// Copies within the server (`copy-data`): `len` bytes, 0 for all up to the end.
    pub async fn copy_data(
        &self,
        from: (&Handle, u64),
        len: u64,
        to: (&Handle, u64),
    ) -> Result<(), Error> {
        let mut body = BytesMut::new();
        wire::string(&mut body, &from.0.0);
        body.put_u64(from.1);
        body.put_u64(len);
        wire::string(&mut body, &to.0.0);
        body.put_u64(to.1);
        self.extended("copy-data", body.freeze()).await
    }

    /// How full the file system is that a path stands on (`statvfs@openssh.com`).
    pub async fn space(&self, path: &RemotePath) -> Result<Space, Error> {
        let body = strings(&[path.as_bytes()]);
        let mut rest = self.query("statvfs@openssh.com", body).await?;
        let mut numbers = [0u64; 11];
        for number in &mut numbers {
            *number = rest.u64().map_err(|m| Error::Protocol(m.0))?;
        }
        Ok(Space {
            block: numbers[1],
            blocks: numbers[2],
            available: numbers[4],
            files: numbers[7],
        })
    }

    /// Names of numeric owners and groups (`users-groups-by-id@openssh.com`), in the same order;
    /// `None` where the server knows none.
    pub async fn names_of(&self, users: &[u32], groups: &[u32]) -> Result<IdNames, Error> {
        let list = |ids: &[u32]| {
            ids.iter()
                .flat_map(|id| id.to_be_bytes())
                .collect::<Vec<_>>()
        };
        let body = strings(&[&list(users), &list(groups)]);
        let mut rest = self.query("users-groups-by-id@openssh.com", body).await?;
        let broken = |malformed: wire::Malformed| Error::Protocol(malformed.0);
        let first = rest.string().map_err(broken)?;
        let second = rest.string().map_err(broken)?;
        Ok(IdNames {
            users: id_names(first, users.len()).map_err(broken)?,
            groups: id_names(second, groups.len()).map_err(broken)?,
        })
    }

    async fn ask_limits(&self) -> Result<Limits, Error> {
        let name = "limits@openssh.com";
        let body = Bytes::new();
        let reply = self.ask(Request::Extended { name, body }).await?;
        let Reply::Extended(body) = reply else {
            // Announced and then refused: what the draft says holds.
            return failed(reply, "EXTENDED_REPLY").or(Ok(Limits::default()));
        };
        let mut rest = Cursor(body);
        let mut number = || rest.u64().map_err(|m| Error::Protocol(m.0));
        let (_packet, read, write, handles) = (number()?, number()?, number()?, number()?);
        // 0 is "no limit" (PROTOCOL, 4.8). A limit too small to work with is not believed.
        let piece = |limit: u64| match limit {
            0 => PIECE,
            some => u32::try_from(some.clamp(1024, MOST)).unwrap_or(PIECE),
        };
        Ok(Limits {
            read: piece(read),
            write: piece(write),
            handles: (handles > 0).then_some(handles),
        })
    }

    async fn extended(&self, name: &'static str, body: Bytes) -> Result<(), Error> {
        if !self.offers(name) {
            return Err(Error::Unsupported(name));
        }
        self.act(Request::Extended { name, body }).await
    }

    async fn query(&self, name: &'static str, body: Bytes) -> Result<Cursor, Error> {
        if !self.offers(name) {
            return Err(Error::Unsupported(name));
        }
        match self.ask(Request::Extended { name, body }).await? {
            Reply::Extended(body) => Ok(Cursor(body)),
            reply => failed(reply, "EXTENDED_REPLY"),
        }
    }
}

impl Offered {
    fn has(&self, extension: &str) -> bool {
        self.extensions.contains_key(extension.as_bytes())
    }
}

fn strings(parts: &[&[u8]]) -> Bytes {
    let mut body = BytesMut::new();
    for part in parts {
        wire::string(&mut body, part);
    }
    body.freeze()
}

/// As many names as were asked for; an empty one is not known.
fn id_names(packed: Bytes, count: usize) -> Result<Vec<Option<Bytes>>, wire::Malformed> {
    let mut rest = Cursor(packed);
    (0..count)
        .map(|_| rest.string().map(|name| (!name.is_empty()).then_some(name)))
        .collect()
}

/// Sends INIT and reads the answer.
async fn greet(link: &mut Link, frames: &mut Frames) -> Result<wire::Hello, Error> {
    // A closed way out shows as the end on the way in, which says why.
    let _ = link.outgoing.send(wire::init()).await;
    let mut said = Vec::new();
    loop {
        if is_noise(frames.rest()) {
            return Err(noise(link, frames).await);
        }
        if let Some(packet) = frames.next().map_err(|m| Error::Protocol(m.0))? {
            let hello = wire::hello(packet).map_err(|m| Error::Protocol(m.0))?;
            return match hello.version {
                wire::VERSION => Ok(hello),
                older @ ..wire::VERSION => Err(Error::Version(older)),
                newer => Err(Error::Protocol(format!(
                    "it answered version {newer} to version {}",
                    wire::VERSION
                ))),
            };
        }
        match link.incoming.recv().await {
            Some(Incoming::Bytes(bytes)) => frames.push(&bytes),
            Some(Incoming::Said(bytes)) => said.extend_from_slice(&bytes[..bytes.len().min(1024)]),
            Some(Incoming::Ended(_)) | None if !frames.rest().is_empty() => {
                return Err(noise(link, frames).await);
            }
            Some(Incoming::Ended(why)) => return Err(Error::Ended(with_words(&why, &said))),
            None => return Err(Error::Ended(with_words("its channel is gone", &said))),
        }
    }
}

pub(super) fn with_words(why: &str, said: &[u8]) -> String {
    let said = printable(said.trim_ascii());
    if said.is_empty() {
        why.to_owned()
    } else {
        format!("{why}; it said: {}", fit(&said, 300))
    }
}

/// Whether what came first cannot be a VERSION packet: it is a small packet of a known type.
fn is_noise(start: &[u8]) -> bool {
    let long = start
        .first_chunk::<4>()
        .is_some_and(|length| u32::from_be_bytes(*length) as usize > wire::MAX_PACKET);
    long || start.get(4).is_some_and(|kind| *kind != wire::FIRST_REPLY)
}

/// Collects what a shell printed, up to where the server's packet begins.
async fn noise(link: &mut Link, frames: &mut Frames) -> Error {
    let more = async {
        while frames.rest().len() < 2 * NOISE && packet_start(frames.rest()).is_none() {
            match link.incoming.recv().await {
                Some(Incoming::Bytes(bytes)) => frames.push(&bytes),
                Some(Incoming::Said(_)) => {}
                Some(Incoming::Ended(_)) | None => return,
            }
        }
    };
    // Noise may be all that ever comes: the server waits for nothing that would end it.
    let _ = tokio::time::timeout(NOISE_TIME, more).await;
    let all = frames.rest();
    let noise = &all[..packet_start(all).unwrap_or(all.len())];
    let text = printable(noise.trim_ascii());
    Error::Noise {
        text: fit(&text, NOISE).into_owned(),
    }
}

/// Where a VERSION packet of version 3 begins.
fn packet_start(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(9)
        .position(|nine| nine[..2] == [0, 0] && nine[4..] == [wire::FIRST_REPLY, 0, 0, 0, 3])
}
