//! A TCP proxy that can delay, throttle, cut, silence and corrupt a stream.
//!
//! Threads and blocking sockets: a fault of the runtime under test cannot hide in its own fixture.
//! Offsets count the bytes of one direction of one connection.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PIECE: usize = 16 * 1024;
/// How often a waiting thread looks whether the proxy is at its end.
const TICK: Duration = Duration::from_millis(20);

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Default)]
pub struct Direction {
    /// Every byte arrives this much later; the throughput stays.
    pub delay: Duration,
    /// After this many bytes the connection is reset (RST, both sides).
    pub reset_after: Option<u64>,
    /// After this many bytes the connection is closed in order (FIN, both sides).
    pub close_after: Option<u64>,
    /// After this many bytes nothing is passed on any more, and nothing is closed.
    pub silent_after: Option<u64>,
    /// The lowest bit of the byte at this offset is turned over.
    pub flip_at: Option<u64>,
    /// At most about this many bytes a second.
    pub bytes_per_second: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Builder {
    target: SocketAddr,
    up: Direction,
    down: Direction,
}

/// A running proxy on 127.0.0.1; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    silent: AtomicBool,
    connections: AtomicU64,
    open: AtomicU64,
    sent_up: AtomicU64,
    sent_down: AtomicU64,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy to `port` on 127.0.0.1.
    pub fn to(port: u16) -> Builder {
        Builder {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            up: Direction::default(),
            down: Direction::default(),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections of which a direction still flows.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Bytes passed on to the server.
    pub fn sent_up(&self) -> u64 {
        self.shared.sent_up.load(Ordering::SeqCst)
    }

    /// Bytes passed on to the client.
    pub fn sent_down(&self) -> u64 {
        self.shared.sent_down.load(Ordering::SeqCst)
    }

    /// From now on nothing passes in either direction, and nothing is closed: a half-open link.
    pub fn go_silent(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// Lets the bytes flow again; what came meanwhile was kept.
    pub fn speak_again(&self) {
        self.shared.silent.store(false, Ordering::SeqCst);
    }

    /// Resets every connection that is open now.
    pub fn reset_all(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            reset(&socket);
        }
    }
}

impl Builder {
    /// Client to server.
    pub fn up(mut self, change: impl FnOnce(&mut Direction)) -> Builder {
        change(&mut self.up);
        self
    }

    /// Server to client.
    pub fn down(mut self, change: impl FnOnce(&mut Direction)) -> Builder {
        change(&mut self.down);
        self
    }

    /// A link with this round-trip time: half of it each way.
    pub fn round_trip(mut self, time: Duration) -> Builder {
        self.up.delay = time / 2;
        self.down.delay = time / 2;
        self
    }

    pub fn start(self) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &self, &of_acceptor));
        Proxy {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees the flag.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, builder: &Builder, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        // A target that refuses is shown to the client as an end of its connection.
        let Ok(server) = TcpStream::connect(builder.target) else {
            continue;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let clones = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        shared.sockets.lock().unwrap().extend(clones);
        connect_pumps(client, server, builder, shared);
    }
}

fn connect_pumps(client: TcpStream, server: TcpStream, builder: &Builder, shared: &Arc<Shared>) {
    let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    spawn_pump(client, server, builder.up.clone(), shared, true);
    spawn_pump(back.0, back.1, builder.down.clone(), shared, false);
}

fn spawn_pump(
    from: TcpStream,
    to: TcpStream,
    direction: Direction,
    shared: &Arc<Shared>,
    is_up: bool,
) {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let line = Arc::new(Line::default());
    let shared = Arc::clone(shared);
    let filling = Arc::clone(&line);
    let source = from.try_clone().unwrap();
    let delay = direction.delay;
    std::thread::spawn(move || fill(source, &filling, delay));
    std::thread::spawn(move || {
        let pump = Pump {
            from,
            to,
            direction,
            passed: 0,
            is_up,
            shared: Arc::clone(&shared),
        };
        pump.run(&line);
        shared.open.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Bytes under way, each piece with the moment at which it may arrive. None marks the end.
#[derive(Debug, Default)]
struct Line {
    pieces: Mutex<VecDeque<(Instant, Option<Vec<u8>>)>>,
    changed: Condvar,
}

fn fill(mut from: TcpStream, line: &Line, delay: Duration) {
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = match from.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => Some(buffer[..count].to_vec()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => None,
        };
        let ended = piece.is_none();
        let mut pieces = line.pieces.lock().unwrap();
        // A bounded line: a real one does not hold gigabytes either.
        while pieces.len() > 4096 && !ended {
            pieces = line.changed.wait_timeout(pieces, TICK).unwrap().0;
        }
        pieces.push_back((Instant::now() + delay, piece));
        line.changed.notify_all();
        if ended {
            return;
        }
    }
}

struct Pump {
    from: TcpStream,
    to: TcpStream,
    direction: Direction,
    passed: u64,
    is_up: bool,
    shared: Arc<Shared>,
}

impl Pump {
    fn run(mut self, line: &Line) {
        while let Some(due) = self.next(line) {
            let Some(mut piece) = due else {
                let _ = self.to.shutdown(Shutdown::Write);
                return;
            };
            self.flip(&mut piece);
            if !self.pass(&piece) {
                return;
            }
        }
    }

    /// The next piece once it is due and the proxy speaks; None when the proxy is at its end.
    fn next(&self, line: &Line) -> Option<Option<Vec<u8>>> {
        loop {
            if self.shared.stopping.load(Ordering::SeqCst) {
                return None;
            }
            let mut pieces = line.pieces.lock().unwrap();
            let wait = match pieces.front() {
                _ if self.shared.silent.load(Ordering::SeqCst) => TICK,
                None => TICK,
                Some((due, _)) => match due.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => left.min(TICK),
                    _ => {
                        let piece = pieces.pop_front().map(|(_, piece)| piece);
                        line.changed.notify_all();
                        return piece;
                    }
                },
            };
            drop(line.changed.wait_timeout(pieces, wait).unwrap());
        }
    }

    fn flip(&self, piece: &mut [u8]) {
        let at = self
            .direction
            .flip_at
            .and_then(|at| at.checked_sub(self.passed));
        if let Some(byte) = at
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| piece.get_mut(at))
        {
            *byte ^= 1;
        }
    }

    /// Writes as much as the limits let through; false when this direction is over.
    fn pass(&mut self, piece: &[u8]) -> bool {
        let limits = &self.direction;
        let limit = [limits.reset_after, limits.close_after, limits.silent_after]
            .into_iter()
            .flatten()
            .min();
        let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.passed));
        let count = piece.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if !self.write(&piece[..count]) {
            return false;
        }
        limit.is_none_or(|limit| self.passed < limit) || self.reach_limit(limit)
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        // A throttled direction goes in small steps, so that its rate is even.
        let step = self
            .direction
            .bytes_per_second
            .map_or(PIECE, |rate| usize::try_from(rate / 50).unwrap_or(PIECE))
            .clamp(1, PIECE);
        for part in bytes.chunks(step) {
            if self.to.write_all(part).is_err() {
                let _ = self.from.shutdown(Shutdown::Both);
                return false;
            }
            self.passed += part.len() as u64;
            let counter = if self.is_up {
                &self.shared.sent_up
            } else {
                &self.shared.sent_down
            };
            counter.fetch_add(part.len() as u64, Ordering::SeqCst);
            if let Some(rate) = self.direction.bytes_per_second {
                std::thread::sleep(Duration::from_secs_f64(
                    part.len() as f64 / rate.max(1) as f64,
                ));
            }
        }
        true
    }

    fn reach_limit(&mut self, limit: Option<u64>) -> bool {
        if self.direction.reset_after == limit {
            reset(&self.from);
            reset(&self.to);
        } else if self.direction.close_after == limit {
            let _ = self.from.shutdown(Shutdown::Both);
            let _ = self.to.shutdown(Shutdown::Both);
        }
        // Silence: this thread ends, the sockets stay open with the proxy.
        false
    }
}

/// Ends a connection with RST at once, also while other threads hold clones of the socket:
/// connecting to no address is how Linux drops a connection without waiting for a last close.
pub fn reset(socket: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
    let _ = rustix::net::connect_unspec(socket);
    let _ = socket.shutdown(Shutdown::Both);
}
