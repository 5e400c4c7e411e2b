//! Standard output and standard error for readers who may stop reading, as a pager does: what is
//! written to a pipe or a terminal is written by a thread of its own. Once the run is asked to end,
//! the printer waits no longer for a thread that is stuck, and has the last word elsewhere: on the
//! other of the two, and in files.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use tokio::sync::{mpsc, watch};

use super::printer::write_all;

/// How long a write may take once the run is asked to end.
const PATIENCE: Duration = Duration::from_millis(250);

/// One of the two, and whether anything can still be written to it.
pub(super) struct Outlet {
    fd: BorrowedFd<'static>,
    hand: Option<Hand>,
    /// Nothing is written any more: its reader is gone, or is not waited for.
    pub(super) gone: bool,
    /// True once the run is asked to end.
    stop: watch::Receiver<bool>,
}

/// The thread that writes. There is one write under way at the most.
struct Hand {
    give: mpsc::Sender<Vec<u8>>,
    /// What came of it, and the buffer to be used again.
    back: mpsc::Receiver<(Vec<u8>, io::Result<()>)>,
    buffer: Vec<u8>,
}

impl Outlet {
    pub(super) fn new(fd: BorrowedFd<'static>, stop: watch::Receiver<bool>) -> Self {
        Self {
            fd,
            hand: None,
            gone: false,
            stop,
        }
    }

    /// Writes all of it, unless this was given up.
    ///
    /// # Errors
    /// What the write said, or `TimedOut` when the run is to end and nobody reads. Nothing is
    /// written after an error.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let result = match never_blocks(self.fd) {
            true => write_all(self.fd, bytes),
            false => self.hand_over(bytes).await,
        };
        self.gone = result.is_err();
        result
    }

    async fn hand_over(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut hand = match self.hand.take() {
            Some(hand) => hand,
            None => Hand::start(self.fd)?,
        };
        hand.buffer.clear();
        hand.buffer.extend_from_slice(bytes);
        let lost = || io::Error::other("the thread that writes ended early");
        let buffer = std::mem::take(&mut hand.buffer);
        hand.give.send(buffer).await.map_err(|_| lost())?;
        let (buffer, result) = tokio::select! {
            biased;
            written = hand.back.recv() => written.ok_or_else(lost)?,
            () = out_of_patience(&mut self.stop) => return Err(io::ErrorKind::TimedOut.into()),
        };
        hand.buffer = buffer;
        self.hand = Some(hand);
        result
    }
}

impl Hand {
    fn start(fd: BorrowedFd<'static>) -> io::Result<Self> {
        let (give, mut taken) = mpsc::channel::<Vec<u8>>(1);
        let (returned, back) = mpsc::channel(1);
        let write = move || {
            while let Some(bytes) = taken.blocking_recv() {
                let result = write_all(fd, &bytes);
                if returned.blocking_send((bytes, result)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(write)?;
        Ok(Self {
            give,
            back,
            buffer: Vec::new(),
        })
    }
}

async fn out_of_patience(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(PATIENCE).await;
}

/// A write to a file takes as long as the disk does; no reader holds it up.
fn never_blocks(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}
