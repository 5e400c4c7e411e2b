//! The files of the hostile server: in memory, by absolute path, names are bytes.

use std::collections::BTreeMap;

/// Links followed before a path counts as a loop.
const MOST_LINKS: usize = 40;
/// Longest file that a client may make.
const LONGEST_FILE: usize = 64 << 20;

pub const DIRECTORY: u32 = 0o040_000;
pub const REGULAR: u32 = 0o100_000;
pub const LINK: u32 = 0o120_000;

/// `SSH_FX_*`.
pub mod status {
    pub const OK: u32 = 0;
    pub const EOF: u32 = 1;
    pub const NO_SUCH_FILE: u32 = 2;
    pub const FAILURE: u32 = 4;
    pub const BAD_MESSAGE: u32 = 5;
    pub const UNSUPPORTED: u32 = 8;
}

/// What version 3 says of a file. A field that is None is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    /// With the bits of the type.
    pub mode: Option<u32>,
    /// Of access and of change.
    pub times: Option<(u32, u32)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub content: Content,
    /// Without the bits of the type.
    pub mode: u32,
    pub times: (u32, u32),
}

impl Node {
    pub fn new(content: Content) -> Node {
        let mode = match content {
            Content::File(_) => 0o644,
            Content::Directory => 0o755,
            Content::Link(_) => 0o777,
        };
        Node {
            content,
            mode,
            times: (1_700_000_000, 1_700_000_000),
        }
    }

    pub fn attributes(&self) -> Attributes {
        let (kind, size) = match &self.content {
            Content::File(bytes) => (REGULAR, bytes.len()),
            Content::Directory => (DIRECTORY, 0),
            Content::Link(target) => (LINK, target.len()),
        };
        Attributes {
            size: Some(size as u64),
            owner: Some((1000, 1000)),
            mode: Some(kind | self.mode),
            times: Some(self.times),
        }
    }
}

/// Files by absolute path.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
}

/// `/a/../b//c` is `/b/c`, and a relative path starts at `/`.
pub fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    [b"/", joined.as_slice()].concat()
}

fn parent(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    normal(&path[..end])
}

pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"/" => [b"/", name].concat(),
        _ => [directory, b"/", name].concat(),
    }
}

impl Tree {
    /// Nothing but the root.
    pub fn empty() -> Tree {
        let root = (b"/".to_vec(), Node::new(Content::Directory));
        Tree {
            nodes: BTreeMap::from([root]),
        }
    }

    /// `/hello.txt`, `/big` of three million bytes, `/dir` with `one` and `two`, `/link` to hello.
    pub fn sample() -> Tree {
        let big = (0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        Tree::empty()
            .with("/hello.txt", Content::File(b"hello\n".to_vec()))
            .with("/big", Content::File(big))
            .with("/dir/one", Content::File(b"1".to_vec()))
            .with("/dir/two", Content::File(b"22".to_vec()))
            .with("/link", Content::Link(b"hello.txt".to_vec()))
    }

    /// Adds a file, with the directories above it.
    pub fn with(mut self, path: impl AsRef<[u8]>, content: Content) -> Tree {
        let path = normal(path.as_ref());
        let mut above = parent(&path);
        while !self.nodes.contains_key(&above) {
            let next = parent(&above);
            self.nodes.insert(above, Node::new(Content::Directory));
            above = next;
        }
        self.nodes.insert(path, Node::new(content));
        self
    }

    /// What stands at this very path.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<&Node> {
        self.nodes.get(&normal(path.as_ref()))
    }

    /// All paths, in order.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        self.nodes.keys().cloned().collect()
    }

    /// The path without links; a link at its end is followed where `to_end` says so.
    pub fn resolve(&self, path: &[u8], to_end: bool) -> Result<Vec<u8>, u32> {
        let mut rest: Vec<Vec<u8>> = parts(path);
        let mut at = b"/".to_vec();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            let next = match part.as_slice() {
                b".." => parent(&at),
                part => join(&at, part),
            };
            if let Some(Content::Link(target)) = self.nodes.get(&next).map(|node| &node.content)
                && (to_end || !rest.is_empty())
            {
                links += 1;
                if links > MOST_LINKS {
                    return Err(status::NO_SUCH_FILE);
                }
                if target.starts_with(b"/") {
                    at = b"/".to_vec();
                }
                rest.extend(parts(target));
                continue;
            }
            at = next;
        }
        Ok(at)
    }

    /// What a path leads to.
    pub fn find(&self, path: &[u8], to_end: bool) -> Result<&Node, u32> {
        let path = self.resolve(path, to_end)?;
        self.nodes.get(&path).ok_or(status::NO_SUCH_FILE)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, path: &[u8], to_end: bool) -> Result<&mut Node, u32> {
        let path = self.resolve(path, to_end)?;
        self.nodes.get_mut(&path).ok_or(status::NO_SUCH_FILE)
    }

    /// Names and nodes right below a directory.
    pub fn children(&self, directory: &[u8]) -> Result<Vec<(Vec<u8>, &Node)>, u32> {
        let directory = self.resolve(directory, true)?;
        match self.nodes.get(&directory).map(|node| &node.content) {
            Some(Content::Directory) => {}
            Some(_) | None => return Err(status::NO_SUCH_FILE),
        }
        let prefix = join(&directory, b"");
        let below = self.nodes.range(prefix.clone()..);
        Ok(below
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| path.len() > prefix.len())
            .filter(|(path, _)| !path[prefix.len()..].contains(&b'/'))
            .map(|(path, node)| (path[prefix.len()..].to_vec(), node))
            .collect())
    }

    /// Puts something at a path where nothing is, in a directory that is there.
    pub fn make(&mut self, path: &[u8], content: Content, mode: Option<u32>) -> Result<(), u32> {
        let path = self.resolve(path, false)?;
        if self.nodes.contains_key(&path) {
            return Err(status::FAILURE);
        }
        match self.nodes.get(&parent(&path)).map(|node| &node.content) {
            Some(Content::Directory) => {}
            Some(_) | None => return Err(status::NO_SUCH_FILE),
        }
        let mut node = Node::new(content);
        node.mode = mode.map_or(node.mode, |mode| mode & 0o7777);
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Takes away a directory that is empty, or what is none.
    pub fn remove(&mut self, path: &[u8], directory: bool) -> Result<(), u32> {
        let path = self.resolve(path, false)?;
        let node = self.nodes.get(&path).ok_or(status::NO_SUCH_FILE)?;
        if directory != (node.content == Content::Directory) {
            return Err(status::FAILURE);
        }
        if directory && (path == b"/" || !self.children(&path)?.is_empty()) {
            return Err(status::FAILURE);
        }
        self.nodes.remove(&path);
        Ok(())
    }

    /// Moves a path with all below it.
    pub fn rename(&mut self, old: &[u8], new: &[u8], replace: bool) -> Result<(), u32> {
        let (old, new) = (self.resolve(old, false)?, self.resolve(new, false)?);
        if !self.nodes.contains_key(&old) {
            return Err(status::NO_SUCH_FILE);
        }
        if self.nodes.contains_key(&new) && !replace {
            return Err(status::FAILURE);
        }
        let below = join(&old, b"");
        let moved: Vec<Vec<u8>> = self
            .nodes
            .keys()
            .filter(|path| **path == old || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            let node = self.nodes.remove(&path).unwrap();
            self.nodes.insert([&new, &path[old.len()..]].concat(), node);
        }
        Ok(())
    }

    pub fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Result<(), u32> {
        let Content::File(bytes) = &mut self.find_mut(path, true)?.content else {
            return Err(status::FAILURE);
        };
        let start = usize::try_from(offset).map_err(|_| status::FAILURE)?;
        let end = start.saturating_add(data.len());
        if end > LONGEST_FILE {
            return Err(status::FAILURE);
        }
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        Ok(())
    }

    pub fn set(&mut self, path: &[u8], wanted: Attributes) -> Result<(), u32> {
        let node = self.find_mut(path, true)?;
        if let (Some(size), Content::File(bytes)) = (wanted.size, &mut node.content) {
            let size = usize::try_from(size).map_err(|_| status::FAILURE)?;
            if size > LONGEST_FILE {
                return Err(status::FAILURE);
            }
            bytes.resize(size, 0);
        }
        node.mode = wanted.mode.map_or(node.mode, |mode| mode & 0o7777);
        node.times = wanted.times.unwrap_or(node.times);
        Ok(())
    }
}

/// The parts of a path, the first of them last.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}
