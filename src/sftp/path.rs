//! Paths on a server: bytes, with `/` between names.

use std::fmt;

use bytes::Bytes;

use crate::text::printable;

/// A path on a server, as bytes. Never empty: the empty path is `.`, as it is for servers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(Bytes);

impl RemotePath {
    /// From what a person or a server wrote.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self(Bytes::from_static(b"."))
        } else {
            Self(bytes)
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// A name inside it. `.` itself is left out: `./a` is `a`.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        if self.as_bytes() == b"." {
            return Self::new(Bytes::copy_from_slice(name));
        }
        let mut joined = Vec::with_capacity(self.0.len() + 1 + name.len());
        joined.extend_from_slice(&self.0);
        if joined.last() != Some(&b'/') {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Self(joined.into())
    }

    /// The last name: what stands after the last slash that is not at the end. `None` for `/`, `.`
    /// and `..`.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        let trimmed = trim_slashes(&self.0);
        let start = memchr::memrchr(b'/', trimmed).map_or(0, |at| at + 1);
        match &trimmed[start..] {
            b"" | b"." | b".." => None,
            name => Some(name),
        }
    }

    /// The directory that holds it: everything before the last name. `.` where there is no slash.
    #[must_use]
    pub fn parent(&self) -> Self {
        let trimmed = trim_slashes(&self.0);
        match memchr::memrchr(b'/', trimmed) {
            None => Self::new(Bytes::new()),
            Some(0) => Self(Bytes::from_static(b"/")),
            Some(at) => Self(self.0.slice_ref(trim_slashes(&trimmed[..at]))),
        }
    }

    /// Whether a slash stands at the end, which says that a directory is meant.
    #[must_use]
    pub fn names_directory(&self) -> bool {
        self.0.ends_with(b"/")
    }
}

/// Without slashes at the end; `/` stays.
fn trim_slashes(mut path: &[u8]) -> &[u8] {
    while let [shorter @ .., b'/'] = path {
        if shorter.is_empty() {
            break;
        }
        path = shorter;
    }
    path
}

/// Whether a name from a server can be a single name in a directory: what is not would lead out of
/// it (`..`, `a/b`, `/etc`) or to nowhere.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("an empty name"),
        b"." | b".." => Err("a name that is not a file's"),
        _ if name.contains(&b'/') => Err("a name with a slash in it"),
        _ if name.contains(&0) => Err("a name with a NUL in it"),
        _ => Ok(()),
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", printable(&self.0))
    }
}
