//! Servers that speak anything but good SSH up to the key exchange: silent, dripping, garbage,
//! lines before the banner, endless text, closed and reset connections.
//!
//! What follows the banner needs keys and packets, and is not played here.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::proxy::reset;

/// A banner that any client accepts.
pub const BANNER: &[u8] = b"SSH-2.0-Evil_1.0\r\n";

/// What the server does with each connection.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Accepts, and never says a word.
    Silent,
    /// Sends the bytes one at a time, with this pause between two.
    Drip(Vec<u8>, Duration),
    /// Sends the bytes, and then stays silent.
    Say(Vec<u8>),
    /// Sends the bytes, and closes.
    SayAndClose(Vec<u8>),
    /// Sends the bytes over and over until the client has enough.
    Endless(Vec<u8>),
    /// Closes at once.
    Close,
    /// Resets at once.
    Reset,
    /// Sends the bytes, then resets as soon as the client has sent something.
    SayAndReset(Vec<u8>),
}

impl Behaviour {
    /// A good banner, then silence: the key exchange never comes.
    pub fn banner_then_silence() -> Behaviour {
        Behaviour::Say(BANNER.to_vec())
    }

    /// A byte a second, never a whole banner within any sensible time.
    pub fn dripping() -> Behaviour {
        Behaviour::Drip(b"SSH-2.0-Drip".repeat(100), Duration::from_secs(1))
    }

    pub fn http() -> Behaviour {
        let text = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html>400</html>\r\n";
        Behaviour::SayAndClose(text.into())
    }

    /// Telnet negotiation, then a login prompt without an end of line.
    pub fn telnet() -> Behaviour {
        Behaviour::Say(b"\xff\xfd\x18\xff\xfd\x20\xff\xfb\x01\xff\xfb\x03login: ".to_vec())
    }

    /// Bytes of every value, no banner.
    pub fn garbage() -> Behaviour {
        Behaviour::SayAndClose((0..=255).cycle().take(4096).collect())
    }

    pub fn ssh_1_5() -> Behaviour {
        Behaviour::Say(b"SSH-1.5-OldServer\n".to_vec())
    }

    /// `count` lines before the banner, as RFC 4253 section 4.2 allows.
    pub fn lines_before_banner(count: usize) -> Behaviour {
        let mut text: Vec<u8> = Vec::new();
        for n in 1..=count {
            text.extend(format!("notice {n}\r\n").bytes());
        }
        text.extend(BANNER);
        Behaviour::Say(text)
    }

    /// What OpenSSH says to a source that it punishes.
    pub fn not_allowed() -> Behaviour {
        Behaviour::SayAndClose(b"Not allowed at this time\r\n".to_vec())
    }

    /// What OpenSSH says beyond MaxStartups.
    pub fn exceeded_max_startups() -> Behaviour {
        Behaviour::SayAndClose(b"Exceeded MaxStartups\r\n".to_vec())
    }

    /// One line of this many bytes before the banner.
    pub fn long_line(length: usize) -> Behaviour {
        let mut text = vec![b'x'; length];
        text.extend(b"\r\n");
        text.extend(BANNER);
        Behaviour::Say(text)
    }

    /// Text that never ends a line, and then silence.
    pub fn no_newline() -> Behaviour {
        Behaviour::Say(b"wait a moment".to_vec())
    }

    /// Line after line, no banner ever.
    pub fn endless_lines() -> Behaviour {
        Behaviour::Endless(b"still starting\r\n".repeat(256))
    }

    /// One line without an end.
    pub fn endless_line() -> Behaviour {
        Behaviour::Endless(vec![b'x'; 4096])
    }

    /// A line before the close that would set the title of a terminal that believed it.
    pub fn escape_sequences() -> Behaviour {
        Behaviour::SayAndClose(b"\x1b]0;owned\x07\x1b[2Jgo away\r\n".to_vec())
    }
}

/// A running server on loopback; its connections end when it is dropped.
#[derive(Debug)]
pub struct Evil {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    connections: AtomicU64,
    /// All that clients have sent, in the order of its coming.
    received: Mutex<Vec<u8>>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Evil {
    pub fn start(behaviour: Behaviour) -> Evil {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &behaviour, &of_acceptor));
        Evil {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// All bytes that clients have sent so far: a test says what must not be among them.
    pub fn received(&self) -> Vec<u8> {
        self.shared.received.lock().unwrap().clone()
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A port on 127.0.0.1 at which nothing listens.
pub fn closed_port() -> u16 {
    crate::sshd::free_port(&[Ipv4Addr::LOCALHOST])
}

fn accept(listener: &TcpListener, behaviour: &Behaviour, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let clone = socket.try_clone().unwrap();
        shared.sockets.lock().unwrap().push(clone);
        let behaviour = behaviour.clone();
        let shared = Arc::clone(shared);
        std::thread::spawn(move || play(socket, &behaviour, &shared));
    }
}

fn play(mut socket: TcpStream, behaviour: &Behaviour, shared: &Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    match behaviour {
        Behaviour::Silent => listen(&mut socket, shared),
        Behaviour::Drip(bytes, pause) => drip(&mut socket, bytes, *pause, shared),
        Behaviour::Say(bytes) => {
            let _ = socket.write_all(bytes);
            listen(&mut socket, shared);
        }
        Behaviour::SayAndClose(bytes) => say_and_close(&mut socket, bytes, shared),
        Behaviour::Endless(bytes) => while socket.write_all(bytes).is_ok() {},
        Behaviour::Close => {
            let _ = socket.shutdown(Shutdown::Both);
        }
        Behaviour::Reset => reset(&socket),
        Behaviour::SayAndReset(bytes) => {
            let _ = socket.write_all(bytes);
            let mut first = [0; 1];
            let _ = socket.read(&mut first);
            reset(&socket);
        }
    }
}

fn listen(socket: &mut TcpStream, shared: &Shared) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        let mut received = shared.received.lock().unwrap();
        received.extend(&buffer[..count]);
    }
}

/// FIN after the text, then reads on: a close with unread bytes would be a reset, and a reset
/// can overtake the text.
fn say_and_close(socket: &mut TcpStream, bytes: &[u8], shared: &Shared) {
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    listen(socket, shared);
}

fn drip(socket: &mut TcpStream, bytes: &[u8], pause: Duration, shared: &Shared) {
    for byte in bytes {
        if socket.write_all(&[*byte]).is_err() || shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        std::thread::sleep(pause);
    }
    listen(socket, shared);
}
