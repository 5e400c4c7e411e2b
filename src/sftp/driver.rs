//! The task that owns the link: sends requests while the window has room, hands answers to those
//! who wait, and ends everything when the server breaks the protocol, stalls or goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::outbox::Outbox;
use super::window::Window;
use super::wire::{self, Frames, Reply, Request};
use super::{Error, Incoming, Link, Settings};
use crate::text::printable;

/// A request and who waits for its answer.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Reply, Error>>,
}

/// What the server says on its standard error is kept up to this, for the line that says why it
/// ended.
const SAID: usize = 1024;

/// One request that was sent.
#[derive(Debug)]
struct Awaited {
    answer: oneshot::Sender<Result<Reply, Error>>,
    cost: u64,
    sent: Instant,
    /// A handle that nobody waits for any more is closed by us.
    opens: bool,
    /// For READ: how much was asked for.
    at_most: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Driver {
    link: Link,
    frames: Frames,
    orders: mpsc::Receiver<Order>,
    awaited: HashMap<u32, Awaited>,
    next: u32,
    window: Window,
    patience: Duration,
    /// Requests that wait for the link.
    outbox: Outbox,
    moved: tokio::time::Instant,
    said: Vec<u8>,
    shared: Arc<Shared>,
}

/// What the driver tells everybody.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Why the client is over; read by those who come later.
    pub(super) over: OnceLock<Error>,
    /// The window's size in bytes, for choosing how much to ask for at once.
    pub(super) window: AtomicU64,
    /// Bytes of requests that were made and are not answered, sent or not.
    pub(super) outstanding: AtomicU64,
}

impl Shared {
    /// A request is on its way.
    pub(super) fn made(&self, request: &Request) {
        self.outstanding
            .fetch_add(request.cost(), Ordering::Relaxed);
    }
}

/// What a turn of the loop met.
enum Turn {
    Came(Option<Incoming>),
    Sent,
    Ordered(Option<Order>),
    Stalled,
}

impl Driver {
    pub(super) fn new(
        link: Link,
        frames: Frames,
        orders: mpsc::Receiver<Order>,
        settings: Settings,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            link,
            frames,
            orders,
            awaited: HashMap::new(),
            next: 0,
            window: Window::new(settings.most_in_flight),
            patience: settings.patience,
            outbox: Outbox::default(),
            moved: tokio::time::Instant::now(),
            said: Vec::new(),
            shared,
        }
    }

    /// Works until nobody can ask any more and everything is answered, or until the client is over.
    pub(super) async fn run(mut self) {
        let why = loop {
            if self.awaited.is_empty() && self.outbox.is_empty() && self.nobody_asks() {
                return;
            }
            let turn = self.turn().await;
            if let Err(why) = self.take(turn) {
                break why;
            }
        };
        let _ = self.shared.over.set(why.clone());
        self.orders.close();
        for (_, awaited) in self.awaited.drain() {
            let _ = awaited.answer.send(Err(why.clone()));
        }
        while let Some(order) = self.orders.recv().await {
            let _ = order.answer.send(Err(why.clone()));
        }
    }

    fn nobody_asks(&self) -> bool {
        self.orders.is_closed() && self.orders.is_empty()
    }

    async fn turn(&mut self) -> Turn {
        let stalled = self.moved + self.patience;
        let sends = !self.outbox.is_empty();
        let takes = !sends && self.window.has_room() && !self.nobody_asks();
        let waits = !self.awaited.is_empty();
        tokio::select! {
            biased;
            came = self.link.incoming.recv() => Turn::Came(came),
            permit = self.link.outgoing.reserve(), if sends => {
                // A closed way out shows as the end on the way in, which says more.
                if let (Ok(permit), Some(bytes)) = (permit, self.outbox.pop()) {
                    permit.send(bytes);
                }
                Turn::Sent
            }
            order = self.orders.recv(), if takes => Turn::Ordered(order),
            () = tokio::time::sleep_until(stalled), if waits => Turn::Stalled,
        }
    }

    fn take(&mut self, turn: Turn) -> Result<(), Error> {
        match turn {
            Turn::Came(Some(Incoming::Bytes(bytes))) => self.came(&bytes)?,
            Turn::Came(Some(Incoming::Said(bytes))) => {
                let room = SAID.saturating_sub(self.said.len());
                self.said.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Turn::Came(Some(Incoming::Ended(why))) => return Err(self.ended(&why)),
            Turn::Came(None) => return Err(self.ended("its channel is gone")),
            Turn::Sent => self.moved = tokio::time::Instant::now(),
            Turn::Ordered(Some(order)) => {
                self.send(order);
                // What else is ready goes with it.
                while self.outbox.has_room()
                    && self.window.has_room()
                    && let Ok(order) = self.orders.try_recv()
                {
                    self.send(order);
                }
            }
            // Nobody can ask any more; the loop ends when all is answered.
            Turn::Ordered(None) => {}
            Turn::Stalled => return Err(Error::Stalled(self.patience)),
        }
        Ok(())
    }

    fn ended(&self, why: &str) -> Error {
        let said = printable(self.said.trim_ascii());
        Error::Ended(if said.is_empty() {
            why.to_owned()
        } else {
            format!("{why}; it said: {said}")
        })
    }

    fn send(&mut self, order: Order) {
        if self.awaited.is_empty() {
            self.moved = tokio::time::Instant::now();
        }
        // Numbers come round after 2^32 requests; one that is still awaited is passed over.
        while self.awaited.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let awaited = Awaited {
            answer: order.answer,
            cost: order.request.cost(),
            sent: Instant::now(),
            opens: matches!(order.request, Request::Open { .. } | Request::OpenDir(_)),
            at_most: match order.request {
                Request::Read { len, .. } => Some(len),
                _ => None,
            },
        };
        self.window.sent(awaited.cost, awaited.sent);
        self.awaited.insert(id, awaited);
        let (head, data) = order.request.encode(id);
        self.outbox.put(&head, data);
    }

    fn came(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.moved = tokio::time::Instant::now();
        self.frames.push(bytes);
        self.answer()
    }

    /// Hands out every whole packet that has come.
    fn answer(&mut self) -> Result<(), Error> {
        let broken = |malformed: wire::Malformed| Error::Protocol(malformed.0);
        while let Some(packet) = self.frames.next().map_err(broken)? {
            let (id, reply) = wire::reply(packet).map_err(broken)?;
            let awaited = self.awaited.remove(&id).ok_or_else(|| {
                Error::Protocol(format!("an answer to request {id}, which is not awaited"))
            })?;
            self.hand_over(awaited, reply)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, awaited: Awaited, reply: Reply) -> Result<(), Error> {
        let now = Instant::now();
        let took = now.duration_since(awaited.sent);
        self.shared
            .outstanding
            .fetch_sub(awaited.cost, Ordering::Relaxed);
        self.window.answered(awaited.cost, took, now);
        self.shared
            .window
            .store(self.window.size(), Ordering::Relaxed);
        if let (Some(at_most), Reply::Data(data)) = (awaited.at_most, &reply) {
            if data.len() > at_most as usize {
                let sent = data.len();
                return Err(Error::Protocol(format!(
                    "{sent} bytes of data where {at_most} were asked for"
                )));
            }
            if data.is_empty() {
                return Err(Error::Protocol("an empty piece of data".to_owned()));
            }
        }
        if let Err(Ok(Reply::Handle(handle))) = awaited.answer.send(Ok(reply))
            && awaited.opens
        {
            self.close(handle);
        }
        Ok(())
    }

    /// Closes what was opened for somebody who has left.
    fn close(&mut self, handle: Bytes) {
        let (answer, _) = oneshot::channel();
        let request = Request::Close(handle);
        self.shared.made(&request);
        self.send(Order { request, answer });
    }
}
