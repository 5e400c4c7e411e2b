//! One file's bytes, many requests ahead, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Copying, Fault, GRAIN};
use crate::sftp::{Client, Error, Handle, Pending, RemotePath};

/// Room in the budget of a copy, given back when it is dropped.
type Room = Option<OwnedSemaphorePermit>;

/// Takes room for so many bytes. Whoever has something under way does not wait for more, so that
/// files cannot wait for each other in a circle.
async fn room(budget: &Arc<Semaphore>, bytes: usize, has_some: bool) -> Option<Room> {
    let grains = u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX);
    let budget = Arc::clone(budget);
    if has_some {
        budget.try_acquire_many_owned(grains).ok().map(Some)
    } else {
        // A closed budget cannot be: nobody closes it.
        Some(budget.acquire_many_owned(grains).await.ok())
    }
}

/// Reads a file from some offset on.
pub(super) struct Reading<'a> {
    copying: &'a Copying<'a>,
    handle: &'a Handle,
    path: &'a RemotePath,
    /// Where the next request begins.
    next: u64,
    /// Where the file ends, if that is known.
    end: Option<u64>,
    asked: VecDeque<Asked>,
}

struct Asked {
    offset: u64,
    len: u32,
    answer: Pending,
    room: Room,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        copying: &'a Copying<'a>,
        handle: &'a Handle,
        path: &'a RemotePath,
        from: u64,
        end: Option<u64>,
    ) -> Self {
        Self {
            copying,
            handle,
            path,
            next: from,
            end,
            asked: VecDeque::new(),
        }
    }

    /// The file ends there, as far as is known now.
    pub(super) fn expect(&mut self, end: u64) {
        self.end = Some(end);
    }

    fn client(&self) -> &'a Client {
        self.copying.client
    }

    fn fault(&self, error: Error) -> Fault {
        Fault::remote(self.path, error)
    }

    /// The next piece, never empty; `None` at the end, which may come before the one that was
    /// expected.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let copying = self.copying;
        copying.unless_stopped(self.step()).await?
    }

    async fn step(&mut self) -> Result<Option<Bytes>, Fault> {
        self.ask_ahead().await?;
        let Some(first) = self.asked.pop_front() else {
            return Ok(None);
        };
        let answer = first.answer.data().await;
        let Some(data) = answer.map_err(|error| self.fault(error))? else {
            self.asked.clear();
            self.end = Some(first.offset);
            return Ok(None);
        };
        let missing = first.len - u32::try_from(data.len()).unwrap_or(first.len);
        if missing > 0 {
            let offset = first.offset + data.len() as u64;
            let answer = self.client().read(self.handle, offset, missing).await;
            self.asked.push_front(Asked {
                offset,
                len: missing,
                answer: answer.map_err(|error| self.fault(error))?,
                room: first.room,
            });
        }
        Ok(Some(data))
    }

    /// Sends as many requests as there is room for, and at least one.
    pub(super) async fn ask_ahead(&mut self) -> Result<(), Fault> {
        loop {
            let left = self.end.map(|end| end.saturating_sub(self.next));
            let len = match left {
                Some(0) => return Ok(()),
                Some(left) => u64::from(self.client().read_size()).min(left) as u32,
                None => self.client().read_size(),
            };
            let has_some = !self.asked.is_empty();
            // Past an end that is not known, asking far ahead is mostly asking for nothing.
            if self.end.is_none() && self.asked.len() >= 2 {
                return Ok(());
            }
            let Some(room) = room(&self.copying.budget, len as usize, has_some).await else {
                return Ok(());
            };
            if let Some(throttle) = self.copying.throttle {
                throttle.take(len as usize).await;
            }
            let answer = self.client().read(self.handle, self.next, len).await;
            self.asked.push_back(Asked {
                offset: self.next,
                len,
                answer: answer.map_err(|error| self.fault(error))?,
                room,
            });
            self.next += u64::from(len);
        }
    }
}

/// Writes a file, piece by piece.
pub(super) struct Writing<'a> {
    copying: &'a Copying<'a>,
    handle: &'a Handle,
    path: &'a RemotePath,
    sent: VecDeque<(Pending, Room)>,
}

impl<'a> Writing<'a> {
    pub(super) fn new(copying: &'a Copying<'a>, handle: &'a Handle, path: &'a RemotePath) -> Self {
        Self {
            copying,
            handle,
            path,
            sent: VecDeque::new(),
        }
    }

    /// Sends some bytes, of any length.
    pub(super) async fn write(&mut self, offset: u64, data: &Bytes) -> Result<(), Fault> {
        let copying = self.copying;
        copying.unless_stopped(self.send(offset, data)).await?
    }

    async fn send(&mut self, mut offset: u64, data: &Bytes) -> Result<(), Fault> {
        let mut rest = data.clone();
        while !rest.is_empty() {
            let size = self.copying.client.write_size() as usize;
            let piece = rest.split_to(size.min(rest.len()));
            let room = loop {
                let has_some = !self.sent.is_empty();
                match room(&self.copying.budget, piece.len(), has_some).await {
                    Some(room) => break room,
                    None => self.acknowledge().await?,
                }
            };
            if let Some(throttle) = self.copying.throttle {
                throttle.take(piece.len()).await;
            }
            let len = piece.len();
            let sent = self.copying.client.write(self.handle, offset, piece).await;
            let sent = sent.map_err(|error| Fault::remote(self.path, error))?;
            self.copying.meter.moved(len);
            offset += len as u64;
            self.sent.push_back((sent, room));
        }
        Ok(())
    }

    /// Waits for the oldest answer: the first that is bad is what went wrong.
    async fn acknowledge(&mut self) -> Result<(), Fault> {
        match self.sent.pop_front() {
            None => Ok(()),
            Some((answer, _room)) => {
                let done = answer.done().await;
                done.map_err(|error| Fault::remote(self.path, error))
            }
        }
    }

    /// Waits for all answers.
    pub(super) async fn finish(mut self) -> Result<(), Fault> {
        let copying = self.copying;
        while !self.sent.is_empty() {
            copying.unless_stopped(self.acknowledge()).await??;
        }
        Ok(())
    }
}
