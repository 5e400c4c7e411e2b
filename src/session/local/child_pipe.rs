//! Our end of a pipe that a child writes to.

use std::os::fd::AsFd;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once: what a Linux pipe holds.
const READ: usize = 64 << 10;

/// When so little of a buffer is left, the next read gets a new one.
const LEAST: usize = 4 << 10;

/// The reading end.
#[derive(Debug)]
pub(super) struct ChildPipe<R> {
    /// `None` after the end of the file.
    from: Option<R>,
    /// Reads fill it, one behind the other; what was read is split off, not copied.
    buffer: BytesMut,
    /// Bytes that were in the pipe when the child ended and have not been read.
    owed: usize,
}

impl<R: AsyncRead + AsFd + Unpin> ChildPipe<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from: Some(from),
            buffer: BytesMut::new(),
            owed: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.from.is_some()
    }

    pub(super) fn close(&mut self) {
        self.from = None;
    }

    /// The next bytes; `None` when no more will come. Cancel-safe.
    pub(super) async fn read(&mut self) -> Option<Bytes> {
        let from = self.from.as_mut()?;
        make_room(&mut self.buffer);
        match from.read_buf(&mut self.buffer).await {
            Ok(1..) => Some(self.take()),
            // A pipe has no read errors; if it had one, no more could be read.
            Ok(0) | Err(_) => {
                self.from = None;
                None
            }
        }
    }

    /// What is there now; with `owed_only`, only of what was there when the child ended.
    pub(super) fn read_now(&mut self, owed_only: bool) -> Option<Bytes> {
        let from = self.from.as_ref()?;
        if owed_only && self.owed == 0 {
            return None;
        }
        let most = if owed_only { self.owed } else { READ };
        let mut fresh = Vec::with_capacity(most.min(READ));
        // The descriptor does not block: tokio has made it so.
        let read = || rustix::io::read(from, rustix::buffer::spare_capacity(&mut fresh));
        match rustix::io::retry_on_intr(read) {
            Ok(0) => {
                self.from = None;
                None
            }
            Ok(count) => {
                self.owed = self.owed.saturating_sub(count);
                Some(Bytes::from(fresh))
            }
            Err(_) => None,
        }
    }

    /// The child has ended: what is in the pipe now is certainly to be given out.
    pub(super) fn note_exit(&mut self) {
        let waiting = self.from.as_ref().map(rustix::io::ioctl_fionread);
        self.owed = match waiting {
            Some(Ok(bytes)) => usize::try_from(bytes).unwrap_or(READ),
            Some(Err(_)) => READ,
            None => 0,
        };
    }

    /// The pipe's number, by which `/proc` names it. `None` when it is closed.
    pub(super) fn inode(&self) -> Option<u64> {
        let stat = rustix::fs::fstat(self.from.as_ref()?).ok()?;
        Some(stat.st_ino)
    }

    fn take(&mut self) -> Bytes {
        let bytes = self.buffer.split().freeze();
        self.owed = self.owed.saturating_sub(bytes.len());
        bytes
    }
}

fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() < LEAST {
        // Not `reserve` alone: it may keep a small old allocation and grow it.
        *buffer = BytesMut::with_capacity(READ);
    }
}
