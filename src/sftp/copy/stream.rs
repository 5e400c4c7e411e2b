//! One file's bytes, many requests ahead, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::second::Aid;
use super::{Copying, Fault, GRAIN};
use crate::sftp::walk::close_quietly;
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
    aid: Aid<'a>,
}

struct Asked {
    offset: u64,
    len: u32,
    answer: Pending,
    room: Room,
    /// It was asked of the second connection.
    aside: bool,
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
            aid: Aid::none(copying),
        }
    }

    /// Shares the work with a second connection.
    pub(super) fn aided(mut self, aid: Aid<'a>) -> Self {
        self.aid = aid;
        self
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
        loop {
            self.ask_ahead().await?;
            let Some(first) = self.asked.pop_front() else {
                return Ok(None);
            };
            match first.answer.data().await {
                Ok(Some(data)) => {
                    let missing = first.len - u32::try_from(data.len()).unwrap_or(first.len);
                    if missing > 0 {
                        let offset = first.offset + data.len() as u64;
                        self.ask_again(offset, missing, first.room).await?;
                    }
                    return Ok(Some(data));
                }
                Ok(None) => {
                    self.asked.clear();
                    self.end = Some(first.offset);
                    return Ok(None);
                }
                Err(error) if first.aside && error.is_final() => {
                    self.aid.lost();
                    self.ask_again(first.offset, first.len, first.room).await?;
                }
                Err(error) => return Err(self.fault(error)),
            }
        }
    }

    /// Asks the first connection for what is needed next.
    async fn ask_again(&mut self, offset: u64, len: u32, room: Room) -> Result<(), Fault> {
        let answer = self.client().read(self.handle, offset, len).await;
        self.asked.push_front(Asked {
            offset,
            len,
            answer: answer.map_err(|error| self.fault(error))?,
            room,
            aside: false,
        });
        Ok(())
    }

    /// Asks whoever has less to do. The answer of a second connection that is gone is one that
    /// never comes, which is met when it is awaited.
    async fn ask(&mut self, len: u32) -> Result<(Pending, bool), Error> {
        let first = self.client();
        if let Some(second) = self.aid.look()
            && second.client.outstanding() < first.outstanding()
        {
            match second.client.read(&second.handle, self.next, len).await {
                Ok(answer) => return Ok((answer, true)),
                Err(_) => self.aid.lost(),
            }
        }
        Ok((first.read(self.handle, self.next, len).await?, false))
    }

    /// Nothing more is wanted.
    pub(super) async fn leave(mut self) {
        self.asked.clear();
        if let (Some(second), _) = self.aid.end().await {
            // What was read is here; that this fails changes nothing.
            let _ = close_quietly(&second.client, second.handle).await;
        }
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
            let asked = self.ask(len).await;
            let (answer, aside) = asked.map_err(|error| self.fault(error))?;
            self.asked.push_back(Asked {
                offset: self.next,
                len,
                answer,
                room,
                aside,
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
    sent: VecDeque<Sent>,
    aid: Aid<'a>,
    /// Where the blocks begin that went over the second connection. They are sent again if that is
    /// lost: nobody could say then whether the server kept them.
    aside: Vec<u64>,
    /// Where the last block begins.
    last: u64,
}

struct Sent {
    answer: Pending,
    _room: Room,
    aside: bool,
}

impl<'a> Writing<'a> {
    pub(super) fn new(copying: &'a Copying<'a>, handle: &'a Handle, path: &'a RemotePath) -> Self {
        Self {
            copying,
            handle,
            path,
            sent: VecDeque::new(),
            aid: Aid::none(copying),
            aside: Vec::new(),
            last: 0,
        }
    }

    /// Shares the work with a second connection.
    pub(super) fn aided(mut self, aid: Aid<'a>) -> Self {
        self.aid = aid;
        self
    }

    /// Sends a block of bytes, of any length.
    pub(super) async fn write(&mut self, offset: u64, data: &Bytes) -> Result<(), Fault> {
        let copying = self.copying;
        self.last = offset;
        copying
            .unless_stopped(self.send(offset, data, true))
            .await?
    }

    /// The same for a block that was sent before.
    pub(super) async fn write_again(&mut self, offset: u64, data: &Bytes) -> Result<(), Fault> {
        let copying = self.copying;
        copying
            .unless_stopped(self.send(offset, data, false))
            .await?
    }

    /// Whether the second connection has less to do.
    fn goes_aside(&mut self) -> bool {
        let first = self.copying.client;
        let second = self.aid.look();
        second.is_some_and(|second| second.client.outstanding() < first.outstanding())
    }

    async fn send(&mut self, mut offset: u64, data: &Bytes, counts: bool) -> Result<(), Fault> {
        let aside = self.goes_aside();
        if aside {
            self.aside.push(offset);
        }
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
            let sent = match (aside, self.aid.look()) {
                (false, _) => self.copying.client.write(self.handle, offset, piece).await,
                (true, Some(second)) => {
                    let sent = second.client.write(&second.handle, offset, piece);
                    sent.await
                }
                (true, None) => Err(Error::Ended("it was lost meanwhile".to_owned())),
            };
            if counts {
                self.copying.meter.moved(len);
            }
            match sent {
                Ok(answer) => self.sent.push_back(Sent {
                    answer,
                    _room: room,
                    aside,
                }),
                Err(error) => self.refused(error, aside)?,
            }
            offset += len as u64;
        }
        Ok(())
    }

    /// Waits for the oldest answer: the first that is bad is what went wrong.
    async fn acknowledge(&mut self) -> Result<(), Fault> {
        let Some(Sent { answer, aside, .. }) = self.sent.pop_front() else {
            return Ok(());
        };
        match answer.done().await {
            Ok(()) => Ok(()),
            Err(error) => self.refused(error, aside),
        }
    }

    /// The end of the second connection is not the end of the copy.
    fn refused(&mut self, error: Error, aside: bool) -> Result<(), Fault> {
        if aside && error.is_final() {
            self.aid.lost();
            return Ok(());
        }
        Err(Fault::remote(self.path, error))
    }

    /// Waits for what went over the second connection, and closes the file there. Gives where
    /// blocks begin that must be sent once more.
    pub(super) async fn rejoin(&mut self) -> Result<Vec<u64>, Fault> {
        let copying = self.copying;
        copying.unless_stopped(self.close_aside()).await?
    }

    async fn close_aside(&mut self) -> Result<Vec<u64>, Fault> {
        let aside = std::mem::take(&mut self.aside);
        if !aside.is_empty() {
            while !self.sent.is_empty() {
                self.acknowledge().await?;
            }
        }
        let (second, late) = self.aid.end().await;
        let Some(second) = second else {
            // What came after the mark was taken away gives the file its time.
            return Ok(if late { vec![self.last] } else { aside });
        };
        match second.client.close(second.handle).await {
            Ok(()) if late => Ok(vec![self.last]),
            Ok(()) => Ok(Vec::new()),
            Err(error) => self.refused(error, true).map(|()| aside),
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
