//! The `sftp` subsystem of a member: its channel, and the loop of `russh-sftp` behind it.
//!
//! A relative path starts at the member's home, where its commands start too; an absolute one is
//! what it is for them. `russh-sftp` answers one request after another and hands names over as
//! text, so a name that is not UTF-8 is refused, and shown in a listing with U+FFFD in it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use russh::server::{Handle, Msg};
use russh::{ChannelReadHalf, ChannelWriteHalf};
use russh_sftp::server::{Config, run_with_config};
use tokio::io::{AsyncRead, ReadBuf, duplex, join};

use super::command::{Place, carry, feed};
use files::Files;

mod attributes;
mod extensions;
mod files;

/// The subsystem's name (draft, section 3).
pub(super) const NAME: &str = "sftp";
/// Longest packet in bytes, as in OpenSSH (sftp-common.h, `SFTP_MAX_MSG_LENGTH`).
const LONGEST_PACKET: u32 = 256 << 10;
/// Most bytes of a file in one packet: what OpenSSH's server says of itself.
const LONGEST_DATA: u32 = LONGEST_PACKET - 1024;
/// Handles of one session. All sessions of a fleet share the descriptors of one process.
const MOST_HANDLES: usize = 1000;
/// Bytes on their way between the channel and the loop, each way.
const BETWEEN: usize = 64 << 10;
/// The code with which OpenSSH's server ends over a packet of impossible length.
const BROKEN: u32 = 11;

/// Serves until the client has sent its end, or the channel is closed.
pub(super) async fn serve(
    mut read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    place: &Place,
) {
    let (to_server, from_client) = duplex(BETWEEN);
    let (to_client, from_server) = duplex(BETWEEN);
    let broken = Arc::new(AtomicBool::new(false));
    let stream = join(Packets::new(from_client, Arc::clone(&broken)), to_client);
    let config = Config {
        max_client_packet_len: LONGEST_PACKET,
    };
    run_with_config(stream, Files::new(place), config).await;
    tokio::select! {
        () = carry(from_server, &write, None) => {}
        () = feed(&mut read, to_server, &place.ground.directory, |_signal| {}) => return,
    }
    let code = if broken.load(Ordering::SeqCst) {
        BROKEN
    } else {
        0
    };
    // The connection is gone if any of these fails, and then nobody is left to be told.
    let _ = handle.exit_status_request(write.id(), code).await;
    let _ = write.eof().await;
    let _ = write.close().await;
}

/// Ends the input at a packet of impossible length. The loop behind it would go on reading in the
/// middle of that packet, and take the content of a file for requests.
struct Packets<R> {
    inner: R,
    broken: Arc<AtomicBool>,
    /// Bytes of the current packet still to come.
    left: u32,
    /// The length as far as it was read, and how many of its four bytes that is.
    length: u32,
    known: u8,
}

impl<R> Packets<R> {
    fn new(inner: R, broken: Arc<AtomicBool>) -> Self {
        Self {
            inner,
            broken,
            left: 0,
            length: 0,
            known: 0,
        }
    }

    /// How many of these bytes belong to packets that may be.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let step = (bytes.len() - at).min(self.left as usize);
                self.left -= step as u32;
                at += step;
                continue;
            }
            self.length = self.length << 8 | u32::from(bytes[at]);
            self.known += 1;
            if self.known == 4 {
                if self.length == 0 || self.length > LONGEST_PACKET {
                    return at;
                }
                self.left = self.length;
                (self.length, self.known) = (0, 0);
            }
            at += 1;
        }
        at
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Packets<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.broken.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let read = buffer.filled().len() - before;
            let good = self.follow(&buffer.filled()[before..]);
            if good < read {
                self.broken.store(true, Ordering::SeqCst);
                buffer.set_filled(before + good);
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests;
