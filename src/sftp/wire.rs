//! SFTP version 3 on the wire: requests to bytes, bytes to replies, and nothing else.
//!
//! draft-ietf-secsh-filexfer-02 gives the packets, OpenSSH's PROTOCOL file (section 4) the
//! extensions. Names and handles are bytes here and stay bytes everywhere. Decoding never trusts a
//! length: whatever is missing, too long or left over is [`Malformed`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version that we speak, and the only one that servers in the field agree on.
pub(super) const VERSION: u32 = 3;
/// Longest handle that a server may give (draft, section 4: "at most 256 bytes").
pub(super) const MAX_HANDLE: usize = 256;

/// `SSH_FXP_*`: what we send.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const EXTENDED: u8 = 200;

    pub(super) const REPLY_VERSION: u8 = 2;
    pub(super) const REPLY_STATUS: u8 = 101;
    pub(super) const REPLY_HANDLE: u8 = 102;
    pub(super) const REPLY_DATA: u8 = 103;
    pub(super) const REPLY_NAME: u8 = 104;
    pub(super) const REPLY_ATTRS: u8 = 105;
    pub(super) const REPLY_EXTENDED: u8 = 201;
}

/// The type byte of the server's first packet.
pub(super) const FIRST_REPLY: u8 = kind::REPLY_VERSION;

/// How a file is opened: `SSH_FXF_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(u32);

impl OpenFlags {
    /// For reading.
    pub const READ: Self = Self(0x01);
    /// For writing, where it exists.
    pub const WRITE: Self = Self(0x02);
    /// For writing, made where it is missing, emptied where it exists.
    pub const CREATE: Self = Self(0x02 | 0x08 | 0x10);
    /// For reading and writing, made where it is missing, with what it holds.
    pub const UPDATE: Self = Self(0x01 | 0x02 | 0x08);
    /// For writing, made; fails where anything of that name exists, a dangling link included.
    pub const CREATE_NEW: Self = Self(0x02 | 0x08 | 0x20);
}

/// What a server says of a file: `ATTRS`. What it left out is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attrs {
    /// Bytes.
    pub size: Option<u64>,
    /// Numeric owner and group.
    pub owner: Option<(u32, u32)>,
    /// Type and permission bits, as in `st_mode`.
    pub mode: Option<u32>,
    /// Times of last access and last change, seconds since 1970 as the protocol's unsigned u32.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    /// Only permission bits.
    #[must_use]
    pub fn of_mode(mode: u32) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }

    pub(super) fn put(self, out: &mut BytesMut) {
        let flags = u32::from(self.size.is_some())
            | u32::from(self.owner.is_some()) << 1
            | u32::from(self.mode.is_some()) << 2
            | u32::from(self.times.is_some()) << 3;
        out.put_u32(flags);
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            out.put_u32(user);
            out.put_u32(group);
        }
        if let Some(mode) = self.mode {
            out.put_u32(mode);
        }
        if let Some((accessed, modified)) = self.times {
            out.put_u32(accessed);
            out.put_u32(modified);
        }
    }
}

/// A request. Paths, handles and data are bytes.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Open {
        path: Bytes,
        flags: OpenFlags,
        attrs: Attrs,
    },
    Close(Bytes),
    Read {
        handle: Bytes,
        offset: u64,
        len: u32,
    },
    Write {
        handle: Bytes,
        offset: u64,
        data: Bytes,
    },
    Lstat(Bytes),
    Stat(Bytes),
    Fstat(Bytes),
    SetStat(Bytes, Attrs),
    FsetStat(Bytes, Attrs),
    OpenDir(Bytes),
    ReadDir(Bytes),
    Remove(Bytes),
    MakeDir(Bytes, Attrs),
    RemoveDir(Bytes),
    RealPath(Bytes),
    Rename(Bytes, Bytes),
    ReadLink(Bytes),
    /// `SSH_FXP_SYMLINK`; see [`super::LinkOrder`] for what is what.
    Symlink {
        first: Bytes,
        second: Bytes,
    },
    Extended {
        name: &'static str,
        body: Bytes,
    },
}

/// The packet that starts a session.
pub(super) fn init() -> Bytes {
    let mut out = BytesMut::with_capacity(9);
    out.put_u32(5);
    out.put_u8(kind::INIT);
    out.put_u32(VERSION);
    out.freeze()
}

impl Request {
    /// The packet: what comes before the data, and the data of a WRITE, which is not copied.
    pub(super) fn encode(self, id: u32) -> (Bytes, Option<Bytes>) {
        let mut out = BytesMut::with_capacity(64);
        out.put_u32(0);
        let data = self.put(id, &mut out);
        let length = out.len() - 4 + data.as_ref().map_or(0, Bytes::len);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        (out.freeze(), data)
    }

    fn put(self, id: u32, out: &mut BytesMut) -> Option<Bytes> {
        let mut begin = |kind: u8, strings: &[&[u8]]| {
            out.put_u8(kind);
            out.put_u32(id);
            for bytes in strings {
                string(out, bytes);
            }
        };
        match self {
            Self::Open { path, flags, attrs } => {
                begin(kind::OPEN, &[&path]);
                out.put_u32(flags.0);
                attrs.put(out);
            }
            Self::Close(handle) => begin(kind::CLOSE, &[&handle]),
            Self::Read {
                handle,
                offset,
                len,
            } => {
                begin(kind::READ, &[&handle]);
                out.put_u64(offset);
                out.put_u32(len);
            }
            Self::Write {
                handle,
                offset,
                data,
            } => {
                begin(kind::WRITE, &[&handle]);
                out.put_u64(offset);
                out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
                return Some(data);
            }
            Self::Lstat(path) => begin(kind::LSTAT, &[&path]),
            Self::Stat(path) => begin(kind::STAT, &[&path]),
            Self::Fstat(handle) => begin(kind::FSTAT, &[&handle]),
            Self::SetStat(path, attrs) => {
                begin(kind::SETSTAT, &[&path]);
                attrs.put(out);
            }
            Self::FsetStat(handle, attrs) => {
                begin(kind::FSETSTAT, &[&handle]);
                attrs.put(out);
            }
            Self::OpenDir(path) => begin(kind::OPENDIR, &[&path]),
            Self::ReadDir(handle) => begin(kind::READDIR, &[&handle]),
            Self::Remove(path) => begin(kind::REMOVE, &[&path]),
            Self::MakeDir(path, attrs) => {
                begin(kind::MKDIR, &[&path]);
                attrs.put(out);
            }
            Self::RemoveDir(path) => begin(kind::RMDIR, &[&path]),
            Self::RealPath(path) => begin(kind::REALPATH, &[&path]),
            Self::Rename(old, new) => begin(kind::RENAME, &[&old, &new]),
            Self::ReadLink(path) => begin(kind::READLINK, &[&path]),
            Self::Symlink { first, second } => begin(kind::SYMLINK, &[&first, &second]),
            Self::Extended { name, body } => {
                begin(kind::EXTENDED, &[name.as_bytes()]);
                out.put_slice(&body);
            }
        }
        None
    }

    /// Bytes that the request moves, in whichever direction: what the window is counted in.
    pub(super) fn cost(&self) -> u64 {
        /// A page of names or attributes, about.
        const PAGE: u64 = 16 << 10;
        /// Everything else, the packet's own head included.
        const SMALL: u64 = 256;
        match self {
            Self::Read { len, .. } => SMALL + u64::from(*len),
            Self::Write { data, .. } => SMALL + data.len() as u64,
            Self::ReadDir(_) => PAGE,
            _ => SMALL,
        }
    }
}

/// Appends a length and the bytes.
pub(super) fn string(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

/// A file as READDIR, REALPATH and READLINK name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name, exactly as the server sent it. Not checked: it may be `..` or hold a slash.
    pub name: Bytes,
    /// What the server said of it.
    pub attrs: Attrs,
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status { code: u32, said: Bytes },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Named>),
    Attrs(Attrs),
    Extended(Bytes),
}

impl Reply {
    /// What the draft calls it, for errors.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Status { .. } => "STATUS",
            Self::Handle(_) => "HANDLE",
            Self::Data(_) => "DATA",
            Self::Names(_) => "NAME",
            Self::Attrs(_) => "ATTRS",
            Self::Extended(_) => "EXTENDED_REPLY",
        }
    }
}

/// The first packet of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    /// Names and data, as sent.
    pub(super) extensions: Vec<(Bytes, Bytes)>,
}

/// A packet that is not what the draft says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

/// Reads the body (type byte included) of the server's first packet.
pub(super) fn hello(body: Bytes) -> Result<Hello, Malformed> {
    let mut rest = Cursor(body);
    let kind = rest.u8()?;
    if kind != kind::REPLY_VERSION {
        return Err(Malformed(format!("its first packet has the type {kind}")));
    }
    let version = rest.u32()?;
    let mut extensions = Vec::new();
    while !rest.0.is_empty() {
        extensions.push((rest.string()?, rest.string()?));
    }
    Ok(Hello {
        version,
        extensions,
    })
}

/// Reads the body (type byte included) of a reply.
pub(super) fn reply(body: Bytes) -> Result<(u32, Reply), Malformed> {
    let mut rest = Cursor(body);
    let kind = rest.u8()?;
    let id = rest.u32()?;
    let reply = match kind {
        kind::REPLY_STATUS => status(&mut rest)?,
        kind::REPLY_HANDLE => Reply::Handle(handle(&mut rest)?),
        kind::REPLY_DATA => Reply::Data(rest.string()?),
        kind::REPLY_NAME => Reply::Names(names(&mut rest)?),
        kind::REPLY_ATTRS => Reply::Attrs(attrs(&mut rest)?),
        kind::REPLY_EXTENDED => Reply::Extended(std::mem::take(&mut rest.0)),
        other => return Err(Malformed(format!("a packet of the unknown type {other}"))),
    };
    if rest.0.is_empty() {
        Ok((id, reply))
    } else {
        Err(Malformed(format!(
            "{} bytes too many at the end of a packet",
            rest.0.len()
        )))
    }
}

/// Text and language came with version 3; servers that leave them out are older than their word.
fn status(rest: &mut Cursor) -> Result<Reply, Malformed> {
    let code = rest.u32()?;
    let said = if rest.0.is_empty() {
        Bytes::new()
    } else {
        rest.string()?
    };
    if !rest.0.is_empty() {
        rest.string()?;
    }
    Ok(Reply::Status { code, said })
}

fn handle(rest: &mut Cursor) -> Result<Bytes, Malformed> {
    let handle = rest.string()?;
    if handle.len() > MAX_HANDLE {
        return Err(Malformed(format!(
            "a handle of {} bytes; {MAX_HANDLE} are allowed",
            handle.len()
        )));
    }
    Ok(handle)
}

fn names(rest: &mut Cursor) -> Result<Vec<Named>, Malformed> {
    /// Name, long name and flags at their shortest: what a count must be able to fill.
    const SHORTEST: usize = 12;
    let count = rest.u32()? as usize;
    if count > rest.0.len() / SHORTEST {
        return Err(Malformed(format!(
            "{count} names announced in {} bytes",
            rest.0.len()
        )));
    }
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let name = rest.string()?;
        rest.string()?;
        let attrs = attrs(rest)?;
        names.push(Named { name, attrs });
    }
    Ok(names)
}

fn attrs(rest: &mut Cursor) -> Result<Attrs, Malformed> {
    let flags = rest.u32()?;
    let mut attrs = Attrs::default();
    if flags & 1 != 0 {
        attrs.size = Some(rest.u64()?);
    }
    if flags & 2 != 0 {
        attrs.owner = Some((rest.u32()?, rest.u32()?));
    }
    if flags & 4 != 0 {
        attrs.mode = Some(rest.u32()?);
    }
    if flags & 8 != 0 {
        attrs.times = Some((rest.u32()?, rest.u32()?));
    }
    if flags & 0x8000_0000 != 0 {
        for _ in 0..rest.u32()? {
            rest.string()?;
            rest.string()?;
        }
    }
    if flags & 0x7fff_fff0 != 0 {
        return Err(Malformed(format!(
            "attributes with unknown flags {flags:#x}"
        )));
    }
    Ok(attrs)
}

/// Cuts fields off the front.
pub(super) struct Cursor(pub(super) Bytes);

impl Cursor {
    fn need(&self, count: usize) -> Result<(), Malformed> {
        if self.0.len() < count {
            Err(Malformed::new("a packet that is cut short"))
        } else {
            Ok(())
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        self.need(length)?;
        Ok(self.0.split_to(length))
    }
}

/// Cuts the server's stream into packets.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

/// Longest packet that is read. Servers send at most 256 KiB of data or names and a head; what asks
/// for more is noise or an attack.
pub(super) const MAX_PACKET: usize = (256 << 10) + 4096;

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What has come and is not part of a whole packet yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// The next whole packet without its length.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_PACKET {
            return Err(Malformed(format!(
                "a packet of {length} bytes; 1 to {MAX_PACKET} are allowed"
            )));
        }
        if self.buffer.len() < 4 + length {
            self.buffer.reserve(4 + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}
