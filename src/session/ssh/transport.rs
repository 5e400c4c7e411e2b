//! The socket under an SSH session: it can be shut down from outside, it reads the server's
//! greeting itself, and it reads ahead.
//!
//! russh drops whatever a server says before its identification line, has no deadline and cannot
//! be aborted; and it makes two reads for every packet. So the text is kept here, the socket has a
//! handle that ends it, and reads go through a buffer that exists only while data flows.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::state::{Facts, Garbage};
use crate::outcome::Phase;

/// Text before the identification line that is kept for messages, in bytes.
pub(super) const GREETING_KEPT: usize = 1024;
/// OpenSSH's `SSH_MAX_PRE_BANNER_LINES` (ssh.h).
const GREETING_LINES: usize = 1024;
/// One line before the identification line; OpenSSH allows 8192 (kex.c).
const GREETING_LINE: usize = 8192;
/// RFC 4253, section 4.2: with CR and LF.
const IDENTIFICATION: usize = 255;
/// Everything before the key exchange together.
const GREETING_TOTAL: usize = 64 << 10;

const SMALL: usize = 4 << 10;

/// Ends the socket under a session, whoever holds it.
#[derive(Debug, Clone)]
pub(super) struct Shutdown(Arc<TcpStream>);

impl Shutdown {
    /// Ends both directions at once; further reads give end of file.
    pub(super) fn now(&self) {
        // A socket that is already gone is what was wanted.
        let _ = rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Both);
    }
}

/// What russh reads and writes.
#[derive(Debug)]
pub(super) struct Transport {
    stream: Arc<TcpStream>,
    facts: Arc<Facts>,
    /// Bytes read from the socket and not yet given out: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    next: usize,
    most: usize,
    greeted: bool,
}

impl Transport {
    /// `most` is how much is read at once while much comes.
    pub(super) fn new(stream: TcpStream, facts: Arc<Facts>, most: usize) -> (Self, Shutdown) {
        let stream = Arc::new(stream);
        let shutdown = Shutdown(Arc::clone(&stream));
        let transport = Self {
            stream,
            facts,
            buffer: Vec::new(),
            start: 0,
            next: SMALL,
            most,
            greeted: false,
        };
        (transport, shutdown)
    }

    fn poll_some(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Fills the empty buffer. It is given back to the allocator whenever the socket has nothing,
    /// so that an idle session holds none.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(self.next, 0);
        self.start = 0;
        match self.poll_some(cx, &mut buffer) {
            Poll::Pending => {
                self.next = SMALL;
                Poll::Pending
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Ready(Ok(n)) => {
                self.next = if n == buffer.len() {
                    self.most
                } else {
                    self.next
                };
                buffer.truncate(n);
                self.facts.add_came(n);
                self.buffer = buffer;
                Poll::Ready(Ok(n))
            }
        }
    }

    /// Reads up to and including the identification line, keeps what stands before it, and leaves
    /// the line and what follows it in the buffer.
    fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; 512];
        loop {
            match scan(&self.buffer) {
                Scan::More => {}
                Scan::Found { at, line } => {
                    self.facts.greeting(&self.buffer[..at]);
                    self.facts.identification(&self.buffer[at..line]);
                    self.start = at;
                    self.greeted = true;
                    self.facts.enter(Phase::Kex);
                    return Poll::Ready(Ok(()));
                }
                Scan::Bad(garbage) => {
                    self.facts.greeting(&self.buffer);
                    return Poll::Ready(Err(self.garbage(garbage)));
                }
            }
            let n = ready!(self.poll_some(cx, &mut chunk))?;
            if n == 0 {
                self.facts.greeting(&self.buffer);
                let text = !self.buffer.is_empty();
                return Poll::Ready(Err(if text {
                    self.garbage(Garbage::Ended)
                } else {
                    io::ErrorKind::UnexpectedEof.into()
                }));
            }
            self.buffer.extend_from_slice(&chunk[..n]);
        }
    }

    fn garbage(&self, garbage: Garbage) -> io::Error {
        self.facts.garbage(garbage);
        io::ErrorKind::InvalidData.into()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Scan {
    More,
    Found { at: usize, line: usize },
    Bad(Garbage),
}

/// Looks for the identification line (RFC 4253, section 4.2).
fn scan(bytes: &[u8]) -> Scan {
    let mut at = 0;
    for _ in 0..GREETING_LINES {
        let rest = &bytes[at..];
        let is_ssh = rest.starts_with(b"SSH-");
        let limit = if is_ssh {
            IDENTIFICATION
        } else {
            GREETING_LINE
        };
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return match rest.len() {
                n if n >= limit => Scan::Bad(Garbage::LongLine),
                _ if bytes.len() >= GREETING_TOTAL => Scan::Bad(Garbage::TooMuch),
                _ => Scan::More,
            };
        };
        if end + 1 > limit {
            return Scan::Bad(Garbage::LongLine);
        }
        if is_ssh {
            let known = rest.starts_with(b"SSH-2.0-") || rest.starts_with(b"SSH-1.99-");
            return if known {
                Scan::Found { at, line: at + end }
            } else {
                Scan::Bad(Garbage::Version)
            };
        }
        at += end + 1;
    }
    Scan::Bad(Garbage::TooMuch)
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.greeted {
            ready!(this.poll_greeting(cx))?;
        }
        if this.start >= this.buffer.len() && ready!(this.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let available = &this.buffer[this.start..];
        let n = available.len().min(into.remaining());
        into.put_slice(&available[..n]);
        this.start += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Never fails: russh gives no reason for the end of a session whose socket cannot be shut.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identification_lines() {
        assert_eq!(scan(b"SSH-2.0-x\r\n"), Scan::Found { at: 0, line: 10 });
        assert_eq!(
            scan(b"hello\nSSH-1.99-x\nrest"),
            Scan::Found { at: 6, line: 16 }
        );
        assert_eq!(scan(b"SSH-2.0-x"), Scan::More);
        assert_eq!(scan(b"SSH-1.5-x\n"), Scan::Bad(Garbage::Version));
    }

    #[test]
    fn limits_of_the_greeting() {
        let longest = [b"SSH-2.0-".as_slice(), &[b'a'; 246], b"\n"].concat();
        assert!(matches!(scan(&longest), Scan::Found { .. }));
        let longer = [b"SSH-2.0-".as_slice(), &[b'a'; 247], b"\n"].concat();
        assert_eq!(scan(&longer), Scan::Bad(Garbage::LongLine));
        assert_eq!(scan(&[b'x'; 8192]), Scan::Bad(Garbage::LongLine));
        assert_eq!(scan(&b"\n".repeat(1024)), Scan::Bad(Garbage::TooMuch));
    }
}
