//! What the hostile server answers: the honest reply first, then the lie that its modes make of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::tree::{Attributes, Content, DIRECTORY, Node, REGULAR, join, normal, status};
use super::{Mode, Seen, Shared, request};

/// `SSH_FXP_*`: what a server sends.
mod reply {
    pub const VERSION: u8 = 2;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 201;
    /// Nobody's.
    pub const UNKNOWN: u8 = 250;
}

/// Entries of an honest page.
const PAGE: usize = 100;
/// Most bytes of one READ.
const LONGEST_READ: u32 = 256 << 10;
/// The content of every file that is listed under a name that no server should say.
const BAIT: &[u8] = b"bait\n";
/// What a directory of that kind holds.
const INSIDE: &[u8] = b"inside";

/// One session's side of the protocol.
pub struct Answers {
    shared: Arc<Shared>,
    open: HashMap<Vec<u8>, Open>,
    given: u64,
    /// Requests so far, and those of the kind that the lie waits for.
    requests: u64,
    chosen: u64,
    writes: u64,
    /// The failure of a WRITE that is told late, and how many acknowledgements go before it.
    late: Option<(Vec<u8>, u64)>,
}

struct Open {
    path: Vec<u8>,
    append: bool,
    /// Entries to be listed, for a directory.
    entries: Vec<(Vec<u8>, Attributes)>,
    /// Entries told so far.
    told: usize,
}

struct Reply {
    kind: u8,
    /// None in VERSION alone.
    id: Option<u32>,
    body: Vec<u8>,
}

type Answer = Result<Reply, u32>;

impl Answers {
    pub fn new(shared: Arc<Shared>) -> Answers {
        Answers {
            shared,
            open: HashMap::new(),
            given: 0,
            requests: 0,
            chosen: 0,
            writes: 0,
            late: None,
        }
    }

    fn modes(&self) -> impl Iterator<Item = &Mode> {
        self.shared.modes.iter()
    }

    /// The packets that answer one packet, each with its length.
    pub fn answer(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut fields = Fields(packet);
        let Some(kind) = fields.byte() else {
            return Vec::new();
        };
        if kind == request::INIT {
            return self.version(packet);
        }
        let id = fields.number().unwrap_or(0);
        self.note(kind, id, fields);
        self.requests += 1;
        let stalled = |mode: &Mode| matches!(mode, Mode::StallsAfter(n) if self.requests > *n);
        if self.modes().any(stalled) {
            return Vec::new();
        }
        let answer = self
            .honest(kind, id, fields)
            .unwrap_or_else(|error| match error {
                Some(code) => says(id, code),
                None => says(id, status::BAD_MESSAGE),
            });
        let packets = self.lies(kind, answer);
        self.delayed(kind, packets)
    }

    /// What is told when the client has been waiting for a while.
    pub fn idle(&mut self) -> Vec<Vec<u8>> {
        self.late.take().into_iter().map(|(late, _)| late).collect()
    }

    /// True while something is held back.
    pub fn holds(&self) -> bool {
        self.late.is_some()
    }

    fn note(&self, kind: u8, id: u32, mut fields: Fields<'_>) {
        let text = fields.text().unwrap_or_default();
        let text = text[..text.len().min(4096)].to_vec();
        self.shared.seen(Seen { kind, id, text });
    }

    fn version(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let id = Fields(&packet[1..]).number().unwrap_or(0);
        self.note(request::INIT, id, Fields(&[]));
        if self.modes().any(|mode| matches!(mode, Mode::NoVersion)) {
            return Vec::new();
        }
        let version = self.modes().find_map(|mode| match mode {
            Mode::Version(version) => Some(*version),
            _ => None,
        });
        let mut body = version.unwrap_or(3).to_be_bytes().to_vec();
        let mut offered = vec!["posix-rename@openssh.com", "fsync@openssh.com"];
        if self.limits().is_some() {
            offered.push("limits@openssh.com");
        }
        for name in offered {
            put(&mut body, name.as_bytes());
            put(&mut body, b"1");
        }
        let version = Reply {
            kind: reply::VERSION,
            id: None,
            body,
        };
        self.lies(request::INIT, version)
    }

    fn limits(&self) -> Option<[u64; 4]> {
        self.modes().find_map(|mode| match mode {
            Mode::Limits(limits) => Some(*limits),
            _ => None,
        })
    }

    /// The reply of a good server; an error without a code is a request that ends too early.
    fn honest(&mut self, kind: u8, id: u32, mut of: Fields<'_>) -> Result<Reply, Option<u32>> {
        let first = of.text().ok_or(None)?;
        let answer = match kind {
            request::OPEN => {
                let flags = of.number().ok_or(None)?;
                self.open_file(id, first, flags, of.attributes().ok_or(None)?)
            }
            request::CLOSE => self.close(id, first),
            request::READ => {
                let offset = of.long().ok_or(None)?;
                self.read(id, first, offset, of.number().ok_or(None)?)
            }
            request::WRITE => {
                let offset = of.long().ok_or(None)?;
                self.write(id, first, offset, of.text().ok_or(None)?)
            }
            request::LSTAT => self.stat(id, first, false),
            request::STAT => self.stat(id, first, true),
            request::FSTAT => self
                .path_of(first)
                .and_then(|path| self.stat(id, &path, true)),
            request::SETSTAT => self.change(id, |tree| {
                tree.set(first, of.attributes().unwrap_or_default())
            }),
            request::FSETSTAT => self.path_of(first).and_then(|path| {
                self.change(id, |tree| {
                    tree.set(&path, of.attributes().unwrap_or_default())
                })
            }),
            request::OPENDIR => self.open_directory(id, first),
            request::READDIR => self.read_directory(id, first),
            request::REMOVE => self.change(id, |tree| tree.remove(first, false)),
            request::MKDIR => {
                let mode = of.attributes().ok_or(None)?.mode;
                self.change(id, |tree| tree.make(first, Content::Directory, mode))
            }
            request::RMDIR => self.change(id, |tree| tree.remove(first, true)),
            request::REALPATH => Ok(names(id, &[(normal(first), Attributes::default())])),
            request::RENAME => {
                let new = of.text().ok_or(None)?;
                self.change(id, |tree| tree.rename(first, new, false))
            }
            request::READLINK => self.read_link(id, first),
            // OpenSSH's order: the target first.
            request::SYMLINK => {
                let link = of.text().ok_or(None)?;
                let target = Content::Link(first.to_vec());
                self.change(id, |tree| tree.make(link, target, None))
            }
            request::EXTENDED => self.extended(id, first, of),
            _ => Err(status::UNSUPPORTED),
        };
        answer.map_err(Some)
    }

    fn change(
        &self,
        id: u32,
        work: impl FnOnce(&mut super::tree::Tree) -> Result<(), u32>,
    ) -> Answer {
        work(&mut self.shared.tree.lock().unwrap())?;
        Ok(says(id, status::OK))
    }

    fn path_of(&self, handle: &[u8]) -> Result<Vec<u8>, u32> {
        let open = self.open.get(handle).ok_or(status::FAILURE)?;
        Ok(open.path.clone())
    }

    fn keep(&mut self, id: u32, open: Open) -> Reply {
        let length = self.modes().find_map(|mode| match mode {
            Mode::Handles(length) => Some(*length),
            _ => None,
        });
        let handle = loop {
            let given = self.given;
            self.given += 1;
            let handle: Vec<u8> = match length {
                // Every byte value, turned by one for each handle.
                Some(length) => (given..).take(length).map(|n| (n % 256) as u8).collect(),
                None => given.to_be_bytes().to_vec(),
            };
            if !self.open.contains_key(&handle) {
                break handle;
            }
        };
        let mut body = Vec::new();
        put(&mut body, &handle);
        self.open.insert(handle, open);
        self.shared.opened(1);
        Reply {
            kind: reply::HANDLE,
            id: Some(id),
            body,
        }
    }

    fn open_file(&mut self, id: u32, path: &[u8], flags: u32, wanted: Attributes) -> Answer {
        let (append, create, truncate, new) = (
            flags & 4 != 0,
            flags & 8 != 0,
            flags & 16 != 0,
            flags & 32 != 0,
        );
        if self.bait(path).is_none() {
            let mut tree = self.shared.tree.lock().unwrap();
            let exists = tree.find(path, true).is_ok();
            if exists && create && new {
                return Err(status::FAILURE);
            }
            if !exists {
                if !create {
                    return Err(status::NO_SUCH_FILE);
                }
                tree.make(path, Content::File(Vec::new()), wanted.mode)?;
            } else if truncate {
                let size = Some(0);
                tree.set(
                    path,
                    Attributes {
                        size,
                        ..Attributes::default()
                    },
                )?;
            }
        }
        let open = Open {
            path: path.to_vec(),
            append,
            entries: Vec::new(),
            told: 0,
        };
        Ok(self.keep(id, open))
    }

    fn close(&mut self, id: u32, handle: &[u8]) -> Answer {
        self.open.remove(handle).ok_or(status::FAILURE)?;
        self.shared.opened(-1);
        let fails = self.modes().find_map(|mode| match mode {
            Mode::CloseFails(code) => Some(*code),
            _ => None,
        });
        Ok(says(id, fails.unwrap_or(status::OK)))
    }

    fn read(&self, id: u32, handle: &[u8], offset: u64, length: u32) -> Answer {
        let path = self.path_of(handle)?;
        let node = self.node(&path, true)?;
        let Content::File(bytes) = node.content else {
            return Err(status::FAILURE);
        };
        let mut most = length.min(LONGEST_READ) as usize;
        let mut end = bytes.len();
        for mode in self.modes() {
            match mode {
                Mode::EmptyData => return Ok(data(id, &[])),
                Mode::LongData(more) => {
                    return Ok(data(id, &vec![b'+'; length as usize + more]));
                }
                Mode::EarlyEof(byte) => end = end.min(usize::try_from(*byte).unwrap()),
                Mode::ShortData(count) => most = most.min(*count),
                _ => {}
            }
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start >= end {
            return Err(status::EOF);
        }
        Ok(data(id, &bytes[start..end.min(start + most)]))
    }

    fn write(&mut self, id: u32, handle: &[u8], offset: u64, bytes: &[u8]) -> Answer {
        let open = self.open.get(handle).ok_or(status::FAILURE)?;
        let mut tree = self.shared.tree.lock().unwrap();
        let end = tree.find(&open.path, true)?.attributes().size.unwrap_or(0);
        let offset = if open.append { end } else { offset };
        self.writes += 1;
        let fails = self
            .shared
            .modes
            .iter()
            .any(|mode| matches!(mode, Mode::WriteFails { nth, .. } if *nth == self.writes));
        if fails {
            return Err(status::FAILURE);
        }
        tree.write(&open.path, offset, bytes)?;
        Ok(says(id, status::OK))
    }

    fn stat(&self, id: u32, path: &[u8], to_end: bool) -> Answer {
        let mut body = Vec::new();
        let node = self.node(path, to_end)?;
        put_attributes(&mut body, self.claimed(node.attributes()));
        Ok(Reply {
            kind: reply::ATTRS,
            id: Some(id),
            body,
        })
    }

    /// What stands at a path, the baits included.
    fn node(&self, path: &[u8], to_end: bool) -> Result<Node, u32> {
        if let Some(bait) = self.bait(path) {
            return Ok(bait);
        }
        let tree = self.shared.tree.lock().unwrap();
        tree.find(path, to_end).cloned()
    }

    /// What a client finds that has joined one of the false names to a directory.
    fn bait(&self, path: &[u8]) -> Option<Node> {
        self.modes().find_map(|mode| {
            let Mode::Names { names, mode } = mode else {
                return None;
            };
            let names = names.iter().filter(|name| !name.is_empty());
            for name in names {
                let below = [b"/", name.as_slice()].concat();
                let inside = join(&below, INSIDE);
                if path.ends_with(&inside) {
                    return Some(Node::new(Content::File(BAIT.to_vec())));
                }
                let absolute = name.starts_with(b"/") && path == name.as_slice();
                if absolute || path.ends_with(&below) {
                    return Some(match mode & 0o170_000 {
                        DIRECTORY => Node::new(Content::Directory),
                        _ => Node::new(Content::File(BAIT.to_vec())),
                    });
                }
            }
            None
        })
    }

    /// The attributes that the modes make of true ones.
    fn claimed(&self, of: Attributes) -> Attributes {
        let regular = of.mode.is_some_and(|mode| mode & 0o170_000 == REGULAR);
        self.modes().fold(of, |of, mode| match mode {
            Mode::NoAttributes => Attributes::default(),
            Mode::Attributes(claimed) if regular => Attributes {
                size: claimed.size.or(of.size),
                owner: claimed.owner.or(of.owner),
                mode: claimed.mode.or(of.mode),
                times: claimed.times.or(of.times),
            },
            _ => of,
        })
    }

    fn open_directory(&mut self, id: u32, path: &[u8]) -> Answer {
        let mut entries = Vec::new();
        let above = Node::new(Content::Directory).attributes();
        entries.extend([b".".as_slice(), b".."].map(|name| (name.to_vec(), above)));
        let bait = self.bait(path);
        if bait.is_some_and(|node| node.content == Content::Directory) {
            let inside = Node::new(Content::File(BAIT.to_vec()));
            entries.push((INSIDE.to_vec(), inside.attributes()));
        } else {
            let tree = self.shared.tree.lock().unwrap();
            for (name, node) in tree.children(path)? {
                let mut claimed = self.claimed(node.attributes());
                let here = join(&normal(path), &name);
                claimed.mode = self.listed_as(&here).or(claimed.mode);
                entries.push((name, claimed));
            }
            drop(tree);
            entries.extend(self.false_entries());
        }
        let open = Open {
            path: path.to_vec(),
            append: false,
            entries,
            told: 0,
        };
        Ok(self.keep(id, open))
    }

    fn listed_as(&self, path: &[u8]) -> Option<u32> {
        self.modes().find_map(|mode| match mode {
            Mode::ListedAs { path: of, mode } if normal(of.as_bytes()) == path => Some(*mode),
            _ => None,
        })
    }

    fn false_entries(&self) -> Vec<(Vec<u8>, Attributes)> {
        let mut entries = Vec::new();
        for mode in self.modes() {
            if let Mode::Names { names, mode } = mode {
                let attributes = Attributes {
                    mode: Some(*mode),
                    ..Node::new(Content::File(BAIT.to_vec())).attributes()
                };
                entries.extend(names.iter().map(|name| (name.clone(), attributes)));
            }
        }
        entries
    }

    fn read_directory(&mut self, id: u32, handle: &[u8]) -> Answer {
        let shared = Arc::clone(&self.shared);
        let open = self.open.get_mut(handle).ok_or(status::FAILURE)?;
        for mode in &shared.modes {
            match mode {
                Mode::EmptyPages => return Ok(names(id, &[])),
                Mode::SamePage => open.told = 0,
                Mode::EndlessEntries => {
                    let attributes = Node::new(Content::File(Vec::new())).attributes();
                    let numbers = open.told..open.told + PAGE;
                    open.told += PAGE;
                    let page: Vec<_> = numbers
                        .map(|n| (format!("entry-{n:08}").into_bytes(), attributes))
                        .collect();
                    return Ok(names(id, &page));
                }
                _ => {}
            }
        }
        let rest = &open.entries[open.told..];
        let page = &rest[..rest.len().min(PAGE)];
        if page.is_empty() {
            return Err(status::EOF);
        }
        let mut answer = names(id, page);
        open.told += page.len();
        for mode in &shared.modes {
            if let Mode::NameCount(count) = mode {
                answer.body[..4].copy_from_slice(&count.to_be_bytes());
            }
        }
        Ok(answer)
    }

    fn read_link(&self, id: u32, path: &[u8]) -> Answer {
        let tree = self.shared.tree.lock().unwrap();
        match &tree.find(path, false)?.content {
            Content::Link(target) => Ok(names(id, &[(target.clone(), Attributes::default())])),
            Content::File(_) | Content::Directory => Err(status::FAILURE),
        }
    }

    fn extended(&mut self, id: u32, name: &[u8], mut of: Fields<'_>) -> Answer {
        match name {
            b"posix-rename@openssh.com" => {
                let old = of.text().ok_or(status::BAD_MESSAGE)?;
                let new = of.text().ok_or(status::BAD_MESSAGE)?;
                self.change(id, |tree| tree.rename(old, new, true))
            }
            b"fsync@openssh.com" => {
                self.path_of(of.text().ok_or(status::BAD_MESSAGE)?)?;
                Ok(says(id, status::OK))
            }
            b"limits@openssh.com" => {
                let limits = self.limits().ok_or(status::UNSUPPORTED)?;
                Ok(Reply {
                    kind: reply::EXTENDED,
                    id: Some(id),
                    body: limits.iter().flat_map(|n| n.to_be_bytes()).collect(),
                })
            }
            _ => Err(status::UNSUPPORTED),
        }
    }

    /// Whether the lie about one reply is due now.
    fn is_due(&mut self, kind: u8) -> bool {
        let wanted = self.shared.on.is_none_or(|on| on == kind);
        let named = kind != request::INIT || self.shared.on.is_some();
        if !(wanted && named) {
            return false;
        }
        self.chosen += 1;
        self.chosen > self.shared.after
    }

    /// Lies about one whole packet.
    fn lies(&mut self, kind: u8, mut answer: Reply) -> Vec<Vec<u8>> {
        if !self.is_due(kind) {
            return vec![framed(&answer)];
        }
        let shared = Arc::clone(&self.shared);
        for mode in &shared.modes {
            match mode {
                Mode::Status(code) => answer = says(answer.id.unwrap_or(0), *code),
                Mode::WrongId => answer.id = answer.id.map(|id| id ^ 0x8000_0000),
                Mode::UnknownKind => answer.kind = reply::UNKNOWN,
                Mode::Trailing(count) => answer.body.extend(vec![0; *count]),
                _ => {}
            }
        }
        let mut packets = vec![framed(&answer)];
        for mode in &shared.modes {
            match mode {
                Mode::Twice => packets.push(packets[0].clone()),
                Mode::Length(0) => packets = vec![vec![0; 4]],
                Mode::Length(length) => packets[0][..4].copy_from_slice(&length.to_be_bytes()),
                _ => {}
            }
        }
        packets
    }

    /// Keeps the failure of a WRITE until later ones have been acknowledged.
    fn delayed(&mut self, kind: u8, packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let is_write = kind == request::WRITE;
        let due = self.shared.modes.iter().find_map(|mode| match mode {
            Mode::WriteFails { nth, late } if is_write && *nth == self.writes => Some(*late),
            _ => None,
        });
        if let (Some(late), None) = (due, &self.late) {
            let first = packets.into_iter().next().unwrap_or_default();
            self.late = Some((first, late));
            return Vec::new();
        }
        let mut all = packets;
        match &mut self.late {
            Some((_, 0)) => all.splice(0..0, self.idle()).for_each(drop),
            Some(_) if !is_write => all.splice(0..0, self.idle()).for_each(drop),
            Some((_, left)) => *left -= 1,
            None => {}
        }
        all
    }
}

fn framed(answer: &Reply) -> Vec<u8> {
    let mut packet = vec![answer.kind];
    packet.extend(answer.id.iter().flat_map(|id| id.to_be_bytes()));
    packet.extend(&answer.body);
    let length = u32::try_from(packet.len()).unwrap().to_be_bytes();
    [length.as_slice(), &packet].concat()
}

fn says(id: u32, code: u32) -> Reply {
    let mut body = code.to_be_bytes().to_vec();
    put(&mut body, b"the server's own words");
    put(&mut body, b"en");
    Reply {
        kind: reply::STATUS,
        id: Some(id),
        body,
    }
}

fn data(id: u32, bytes: &[u8]) -> Reply {
    let mut body = Vec::new();
    put(&mut body, bytes);
    Reply {
        kind: reply::DATA,
        id: Some(id),
        body,
    }
}

fn names(id: u32, entries: &[(Vec<u8>, Attributes)]) -> Reply {
    let mut body = u32::try_from(entries.len()).unwrap().to_be_bytes().to_vec();
    for (name, attributes) in entries {
        put(&mut body, name);
        put(&mut body, &[b"?????????? ".as_slice(), name].concat());
        put_attributes(&mut body, *attributes);
    }
    Reply {
        kind: reply::NAME,
        id: Some(id),
        body,
    }
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    out.extend(text);
}

fn put_attributes(out: &mut Vec<u8>, of: Attributes) {
    let flags = u32::from(of.size.is_some())
        | u32::from(of.owner.is_some()) << 1
        | u32::from(of.mode.is_some()) << 2
        | u32::from(of.times.is_some()) << 3;
    out.extend(flags.to_be_bytes());
    out.extend(of.size.iter().flat_map(|size| size.to_be_bytes()));
    let pair = |(a, b): (u32, u32)| [a, b];
    for number in of.owner.map(pair).into_iter().flatten() {
        out.extend(number.to_be_bytes());
    }
    out.extend(of.mode.iter().flat_map(|mode| mode.to_be_bytes()));
    for number in of.times.map(pair).into_iter().flatten() {
        out.extend(number.to_be_bytes());
    }
}

/// The body of a request, taken field by field; None when it ends too early.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().unwrap()))
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().unwrap()))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let flags = self.number()?;
        let mut of = Attributes::default();
        if flags & 1 != 0 {
            of.size = Some(self.long()?);
        }
        if flags & 2 != 0 {
            of.owner = Some((self.number()?, self.number()?));
        }
        if flags & 4 != 0 {
            of.mode = Some(self.number()?);
        }
        if flags & 8 != 0 {
            of.times = Some((self.number()?, self.number()?));
        }
        Some(of)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // A session that ended has closed what it had open.
        self.shared.opened(-i64::try_from(self.open.len()).unwrap());
    }
}
