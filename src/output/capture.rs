//! Output kept on purpose: the start of a stream, for later tasks.
//!
//! It is kept as bytes, up to a limit, and says when there was more.

/// The first bytes of a stream, up to a limit.
#[derive(Debug)]
pub struct Capture {
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Capture {
    /// Keeps at most `limit` bytes, such as [`crate::job::CAPTURE_LIMIT`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            truncated: false,
        }
    }

    /// The next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.limit - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether more was written than was kept.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// What was kept, exactly as written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was kept, exactly as written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_keeps_the_start_and_says_that_it_was_cut() {
        let mut capture = Capture::new(5);
        capture.push(b"abc");
        capture.push(b"de");
        assert_eq!(
            (capture.as_bytes(), capture.is_truncated()),
            (&b"abcde"[..], false)
        );
        capture.push(b"");
        assert!(!capture.is_truncated());
        capture.push(b"f");
        assert!(capture.is_truncated());
        assert_eq!(capture.into_bytes(), b"abcde");
    }
}
