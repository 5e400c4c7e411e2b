//! The one place that prints: a thread that turns events into bytes and writes them.
//!
//! It may block as long as the reader likes; the run goes on up to the bounds of its queues. It
//! also asks questions, since nothing else may use the terminal meanwhile.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::outlet::Outlet;
use crate::engine::Control;
use crate::event::Event;
use crate::journal::events::EventFile;
use crate::journal::last::LastFile;
use crate::journal::raw::RawFiles;
use crate::output::Mask;
use crate::report::ndjson::Ndjson;
use crate::report::{Ink, Renderer, Sink};
use crate::session::ssh::Question;

/// What a printer needs.
pub(super) struct Setup {
    pub(super) renderer: Box<dyn Renderer + Send>,
    pub(super) events: Option<EventFile>,
    pub(super) raw: Option<RawFiles>,
    pub(super) last: Vec<LastFile>,
    /// Redraw a live region on standard error, which is a terminal.
    pub(super) live: bool,
    /// A closed standard output ends the printing and not the run.
    pub(super) outlives_reader: bool,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) controls: mpsc::Sender<Control>,
    pub(super) curtain: watch::Sender<Curtain>,
    /// True once the run is asked to end: a reader who does not read is waited for no longer.
    pub(super) stop: watch::Receiver<bool>,
    /// What nobody may see. Passwords that are typed are added before they are used.
    pub(super) masks: watch::Sender<Arc<Mask>>,
}

/// Whether the live region may be seen: not while this process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curtain {
    /// It may.
    Up,
    /// The printer is to erase it, and to say so.
    Falls,
    /// It is erased.
    Down,
}

/// What a printer knows at its end.
#[derive(Debug, Default)]
pub(super) struct Printed {
    /// Something that was asked for could not be written; one line.
    pub(super) failed: Option<String>,
}

/// A printer at work.
pub(super) struct Printer {
    thread: std::thread::JoinHandle<Printed>,
}

/// How often the live region is drawn at the most.
const FRAME: Duration = Duration::from_millis(100);
/// A region that was drawn longer ago is not erased: this process was stopped by SIGSTOP, which
/// nobody was told of in time, and others have written below it since.
const STALE: Duration = Duration::from_secs(1);
/// Events that are turned into one write.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 << 10;

impl Printer {
    /// Starts the thread. It ends when `events` is closed and all is written.
    pub(super) fn start(setup: Setup, events: mpsc::Receiver<Event>) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (ink, objects) = (Ink::default(), Ink::default());
        let (screen, printed) = (Screen::default(), Printed::default());
        let outlet = |fd| Outlet::new(fd, setup.stop.clone());
        let (out, err) = (
            outlet(rustix::stdio::stdout()),
            outlet(rustix::stdio::stderr()),
        );
        let work = Work {
            out,
            err,
            setup,
            ink,
            objects,
            screen,
            printed,
        };
        let thread = std::thread::Builder::new()
            .name("printer".into())
            .spawn(move || runtime.block_on(work.run(events)))?;
        Ok(Self { thread })
    }

    /// Waits until all is written, or for so long at the most. `None` if that was not enough.
    pub(super) async fn finish(self, patience: Option<Duration>) -> Option<Printed> {
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        let joined = match patience {
            Some(patience) => tokio::time::timeout(patience, joined).await.ok()?,
            None => joined.await,
        };
        let lost = || Printed {
            failed: Some("the printing thread ended early".into()),
        };
        Some(joined.ok().and_then(Result::ok).unwrap_or_else(lost))
    }
}

struct Work {
    setup: Setup,
    ink: Ink,
    /// Lines on their way to the events file.
    objects: Ink,
    screen: Screen,
    out: Outlet,
    err: Outlet,
    printed: Printed,
}

enum Next {
    Curtain,
    Event(Option<Event>),
    Question(Question),
    Frame,
}

impl Work {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) -> Printed {
        let began = Instant::now();
        let mut questions_open = true;
        let mut curtain = self.setup.curtain.subscribe();
        loop {
            let frame = if self.setup.live {
                FRAME
            } else {
                Duration::from_secs(3600)
            };
            let next = tokio::select! {
                biased;
                // The sender is in our own setup: there is always one.
                _ = curtain.changed() => Next::Curtain,
                event = events.recv() => Next::Event(event),
                question = self.setup.questions.recv(), if questions_open && self.screen.shown => match question {
                    Some(question) => Next::Question(question),
                    None => { questions_open = false; continue }
                },
                () = tokio::time::sleep(frame) => Next::Frame,
            };
            match next {
                Next::Curtain => self.move_curtain(),
                Next::Event(Some(event)) => self.take_batch(event, &mut events).await,
                Next::Event(None) => break,
                Next::Question(question) => {
                    self.screen.erase();
                    super::ask::answer(question, |secret| {
                        let more = |mask: &mut Arc<Mask>| *mask = Arc::new(mask.and(secret));
                        self.setup.masks.send_modify(more);
                    });
                }
                Next::Frame => {}
            }
            if self.setup.live && self.screen.due() && self.screen.may_draw() {
                self.screen
                    .draw(&self.setup.renderer.live(began.elapsed(), terminal_size()));
            }
        }
        self.setup.renderer.end(&mut self.ink);
        self.write_ink().await;
        self.finish_files();
        self.write_ink().await;
        self.printed
    }

    fn move_curtain(&mut self) {
        let now = *self.setup.curtain.borrow();
        match now {
            // Others have written since: what was drawn before a stop is not at the end any more.
            Curtain::Up => {
                self.screen = Screen::default();
            }
            Curtain::Falls => {
                self.screen.erase();
                self.screen.shown = false;
                self.setup.curtain.send_if_modified(|curtain| {
                    let falls = *curtain == Curtain::Falls;
                    *curtain = if falls { Curtain::Down } else { *curtain };
                    falls
                });
            }
            Curtain::Down => {}
        }
    }

    async fn take_batch(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        self.take(&first);
        for _ in 0..BATCH {
            if self.ink.len() > BATCH_BYTES {
                break;
            }
            match events.try_recv() {
                Ok(event) => self.take(&event),
                Err(_) => break,
            }
        }
        self.write_ink().await;
        if let Some(file) = &mut self.setup.events {
            let flushed = file.flush();
            self.note(flushed);
        }
        // What went wrong with it.
        self.write_ink().await;
    }

    fn take(&mut self, event: &Event) {
        self.setup.renderer.render(event, &mut self.ink);
        if let Some(file) = &mut self.setup.events {
            Ndjson.render(event, &mut self.objects);
            let written = self
                .objects
                .pieces()
                .try_for_each(|(_, lines)| file.append(lines));
            self.objects.clear();
            self.note(written);
        }
        if let Some(raw) = &mut self.setup.raw {
            let written = raw.write(event);
            self.note(written);
        }
        for file in &mut self.setup.last {
            file.take(event);
        }
    }

    fn finish_files(&mut self) {
        if let Some(mut file) = self.setup.events.take() {
            let finished = file.flush();
            self.note(finished);
        }
        for file in std::mem::take(&mut self.setup.last) {
            let finished = file.finish();
            self.note(finished);
        }
    }

    /// The first failure is told with what is written next; the work goes on, and the exit code says so in the end.
    fn note(&mut self, result: Result<(), String>) {
        if let (Err(problem), None) = (result, &self.printed.failed) {
            let line = format!("error: {problem}\n");
            self.ink.err().extend_from_slice(line.as_bytes());
            self.printed.failed = Some(problem);
        }
    }

    async fn write_ink(&mut self) {
        if self.ink.is_empty() {
            return;
        }
        self.screen.erase();
        let mut ink = std::mem::take(&mut self.ink);
        let mut failed = None;
        for (sink, bytes) in ink.pieces() {
            let result = match sink {
                Sink::Out => self.out.write(bytes).await,
                // Nobody is left to be told that standard error cannot be written.
                Sink::Err => self.err.write(bytes).await.or(Ok(())),
            };
            failed = result.err().or(failed);
        }
        ink.clear();
        self.ink = ink;
        match failed {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                if self.setup.outlives_reader {
                    return self.note(Err("nobody reads standard output any more".into()));
                }
                // If the queue is full, signals are already on their way.
                let _ = self.setup.controls.try_send(Control::ReaderGone);
            }
            Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                let _ = self.setup.controls.try_send(Control::Unread);
                self.note(Err(
                    "the rest of the output was not written: nobody reads it".into(),
                ));
            }
            Some(error) => self.note(Err(format!(
                "standard output could not be written: {error}"
            ))),
            None => {}
        }
    }
}

/// What is on the terminal now.
struct Screen {
    lines: usize,
    drawn: Option<Instant>,
    /// The curtain is up.
    shown: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            lines: 0,
            drawn: None,
            shown: true,
        }
    }
}

impl Screen {
    fn due(&self) -> bool {
        self.drawn.is_none_or(|at| at.elapsed() >= FRAME)
    }

    /// In the background (`bg`) the terminal is somebody else's.
    fn may_draw(&self) -> bool {
        self.shown && super::settings::in_front(rustix::stdio::stderr())
    }

    fn erase(&mut self) {
        let up = self.way_up();
        self.lines = 0;
        let _ = write_all(rustix::stdio::stderr(), up.as_bytes());
    }

    /// What erases the region; nothing if there is none.
    fn way_up(&self) -> String {
        match self.drawn {
            Some(at) if self.lines > 0 && at.elapsed() < STALE => {
                format!("\r\x1b[{}A\x1b[J", self.lines)
            }
            Some(_) | None => String::new(),
        }
    }

    fn draw(&mut self, lines: &[String]) {
        let mut text = self.way_up();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        let _ = write_all(rustix::stdio::stderr(), text.as_bytes());
        self.lines = lines.len();
        self.drawn = Some(Instant::now());
    }
}

/// Columns and rows of the terminal behind standard error.
pub(super) fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
        Ok(_) | Err(_) => (100, 30),
    }
}

/// Writes all bytes to a descriptor, also to one that somebody else made non-blocking.
pub(super) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints data of a command that shows something and ends.
pub(super) fn print_data(text: &str) -> Result<(), io::Error> {
    write_all(rustix::stdio::stdout(), text.as_bytes())
}

/// Prints talk.
pub(super) fn print_talk(text: &str) {
    let _ = write_all(rustix::stdio::stderr(), text.as_bytes());
}
