//! Commands as another account of the host, by `sudo`, `doas` or `su`.
//!
//! The program is told to start a small shell, which says on standard error that it has begun and
//! then reads the command from its input. The command is not sent before that was heard, so it is
//! certain of a refusal that nothing ran; nothing of it stands on the program's command line; and
//! a password can never be read by the command in the program's stead. What is said before the
//! beginning is the program's, not the command's.
//!
//! A password is sent when the program asks for it, once: a second question means that it was
//! wrong, and asking again and again could lock the account.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::command::{in_any_shell, piped, quote};
use super::{Ending, Process, ProcessEvent, Signal, Spawn, Stdin};
use crate::event::Stream;
use crate::job::{Become, Command, Method};
use crate::text;

/// How long the program may take until the command begins: directory services are slow, people who
/// confirm a login on a telephone are slower.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end after its input was closed.
const GOODBYE: Duration = Duration::from_secs(5);
/// What it says that is kept, in bytes.
const HEARD: usize = 16 << 10;
/// Sweeps may signal so often, and each signal may be asked for a password.
const SIGNALS: usize = 8;

/// What may end a command of another account.
#[derive(Debug, Clone)]
pub struct Rights {
    /// Words for a POSIX shell that run the text after them as that account.
    pub(super) words: String,
    becomes: Become,
}

impl Rights {
    /// What the words read, where they need a password.
    pub(super) fn input(&self) -> Option<Bytes> {
        let password = self.becomes.password.as_ref()?;
        Some(format!("{}\n", password.reveal()).repeat(SIGNALS).into())
    }
}

/// A process that begins once another account has been become.
pub struct Elevated {
    process: Process,
    door: Option<Door>,
    /// What is to be given out before anything else.
    queue: VecDeque<ProcessEvent>,
    becomes: Become,
}

/// Until the command has begun.
pub(super) struct Door {
    becomes: Become,
    /// What the shell says when it has begun.
    mark: Vec<u8>,
    /// What `sudo` says when it wants a password.
    prompt: Vec<u8>,
    heard: Vec<u8>,
    asked: u32,
    /// What the program reads; nothing more where it is gone.
    input: Option<mpsc::Sender<Bytes>>,
    /// The command, and what it reads.
    command: Bytes,
    stdin: Stdin,
    deadline: Instant,
}

/// What standard error says.
enum Heard {
    Nothing,
    /// A password is wanted.
    Question,
    /// The command has begun. What the program said before, and what the command said since.
    Begun(Vec<u8>, Vec<u8>),
}

/// What is started for a command of another account, and the door that it has to pass.
pub(super) fn through(spawn: Spawn, becomes: Become) -> Result<(Spawn, Door), String> {
    let (reader, command) = piped(&spawn)?;
    let token = token();
    let (mark, prompt) = (
        format!("[fanrun {token}]"),
        format!("[fanrun asks {token}]"),
    );
    let script = format!("printf %s {} >&2\n{reader}", quote(&mark));
    let (input, taken) = mpsc::channel(2);
    let door = Door {
        mark: mark.into_bytes(),
        heard: Vec::new(),
        asked: 0,
        input: Some(input),
        command,
        stdin: spawn.stdin,
        deadline: Instant::now() + PATIENCE,
        prompt: prompt.clone().into_bytes(),
        becomes: becomes.clone(),
    };
    let outer = Spawn {
        command: Command::Argv(words(&becomes, &prompt, &script)),
        env: Vec::new(),
        cwd: None,
        shell: None,
        stdin: Stdin::Stream(taken),
        hidden: false,
        becomes: None,
    };
    Ok((outer, door))
}

fn token() -> String {
    // Only has to differ from what a program would say by itself.
    let half = |salt: u8| RandomState::new().hash_one(salt);
    format!("{:016x}{:016x}", half(0), half(1))
}

fn words(becomes: &Become, prompt: &str, script: &str) -> Vec<String> {
    let user = becomes.user.as_str();
    let mut words = program(becomes, prompt);
    match becomes.method {
        Method::Sudo | Method::Doas => words.extend(["/bin/sh", "-c", script].map(str::to_owned)),
        // Read by the shell of the other account, whatever that is.
        Method::Su => words.extend([user, "-c", &in_any_shell(script)].map(str::to_owned)),
    }
    words
}

/// The program and its options, up to where the command stands.
fn program(becomes: &Become, prompt: &str) -> Vec<String> {
    let user = becomes.user.as_str();
    let words: &[&str] = match (becomes.method, &becomes.password) {
        (Method::Sudo, None) => &["sudo", "-n", "-u", user, "--"],
        (Method::Sudo, Some(_)) => &["sudo", "-S", "-p", prompt, "-u", user, "--"],
        (Method::Doas, _) => &["doas", "-n", "-u", user, "--"],
        (Method::Su, _) => &["su"],
    };
    words.iter().map(ToString::to_string).collect()
}

impl Door {
    pub(super) fn of(self, process: Process) -> Elevated {
        Elevated {
            process,
            becomes: self.becomes.clone(),
            door: Some(self),
            queue: VecDeque::new(),
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Heard {
        self.heard.extend_from_slice(bytes);
        if let Some(at) = memmem::find(&self.heard, &self.mark) {
            let after = self.heard.split_off(at + self.mark.len());
            self.heard.truncate(at);
            return Heard::Begun(std::mem::take(&mut self.heard), after);
        }
        let asks = match self.becomes.method {
            Method::Sudo => memmem::find(&self.heard, &self.prompt)
                .map(|at| self.heard.drain(at..at + self.prompt.len()).count()),
            // It cannot be told what to ask, and asks in the language of its locale.
            Method::Su => self.question().map(|at| self.heard.drain(at..).count()),
            Method::Doas => None,
        };
        let over = self.heard.len().saturating_sub(HEARD);
        self.heard.drain(..over);
        if asks.is_some() {
            Heard::Question
        } else {
            Heard::Nothing
        }
    }

    /// Where a line begins that waits for an answer.
    fn question(&self) -> Option<usize> {
        let line = memchr::memrchr(b'\n', &self.heard).map_or(0, |at| at + 1);
        let said = &self.heard[line..];
        // What it says of itself may come in pieces: `su: `, `Authentication failure`.
        let waits = said.trim_ascii_end().ends_with(b":") && !said.starts_with(b"su:");
        waits.then_some(line)
    }

    /// Answers a question, or closes the input where there is no answer.
    fn answer(&mut self) {
        self.asked += 1;
        let password = self.becomes.password.as_ref().filter(|_| self.asked == 1);
        let line = password.map(|password| Bytes::from(format!("{}\n", password.reveal())));
        let sent = match (line, &self.input) {
            (Some(line), Some(input)) => input.try_send(line).is_ok(),
            _ => false,
        };
        if !sent {
            self.input = None;
            self.deadline = self.deadline.min(Instant::now() + GOODBYE);
        }
    }

    /// Gives the command to the shell that has begun.
    fn open(self) {
        let Some(input) = self.input else { return };
        tokio::spawn(feed(input, self.command, self.stdin));
    }

    /// How it ends where the command never ran.
    fn shut(&self, ending: &Ending) -> Ending {
        let reason = self.reason(ending);
        if self.asked > 0 && self.becomes.password.is_some() {
            Ending::Denied { reason }
        } else {
            Ending::NotStarted { reason }
        }
    }

    /// Why the command never ran.
    fn reason(&self, ending: &Ending) -> String {
        let program = self.becomes.method.word();
        let user = &self.becomes.user;
        let said = text::printable(self.heard.trim_ascii()).into_owned();
        let said = said.replace("\\n", "; ");
        let said = if said.is_empty() {
            match ending {
                Ending::Exited { status, .. } => format!("{program} ended with {status}"),
                Ending::NotStarted { reason }
                | Ending::Denied { reason }
                | Ending::Lost { reason } => reason.clone(),
            }
        } else {
            said
        };
        match (self.asked, &self.becomes.password) {
            (2.., Some(_)) => format!("{program} did not accept the password: {said}"),
            (1.., None) => format!(
                "{program} asks for a password to become {user}; name one in `become`: {said}"
            ),
            _ => format!("{program} did not let us become {user}: {said}"),
        }
    }
}

async fn feed(input: mpsc::Sender<Bytes>, command: Bytes, stdin: Stdin) {
    if input.send(command).await.is_err() {
        return;
    }
    match stdin {
        Stdin::Closed => {}
        Stdin::Bytes(bytes) => {
            // Whoever has ended reads no more.
            let _ = input.send(bytes).await;
        }
        Stdin::Stream(mut blocks) => loop {
            let block = tokio::select! {
                block = blocks.recv() => block,
                () = input.closed() => None,
            };
            let Some(block) = block else { return };
            if input.send(block).await.is_err() {
                return;
            }
        },
    }
}

impl Elevated {
    /// What may end it.
    pub(super) fn rights(&self) -> Rights {
        let mut words = program(&self.becomes, "");
        let shell: &[&str] = match self.becomes.method {
            Method::Sudo | Method::Doas => &["/bin/sh", "-c"],
            Method::Su => &[self.becomes.user.as_str(), "-c"],
        };
        words.extend(shell.iter().map(ToString::to_string));
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        Rights {
            words: words.join(" "),
            becomes: self.becomes.clone(),
        }
    }

    /// What it is behind the program.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// What it does next. Cancel-safe.
    pub(super) async fn next(&mut self) -> ProcessEvent {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            let Some(door) = &mut self.door else {
                return Box::pin(self.process.next()).await;
            };
            let event = tokio::select! {
                biased;
                event = Box::pin(self.process.next()) => event,
                () = tokio::time::sleep_until(door.deadline) => {
                    let ending = Ending::Lost {
                        reason: "it gave no answer".to_owned(),
                    };
                    let ending = door.shut(&ending);
                    Box::pin(self.process.close()).await;
                    return ProcessEvent::Ended(ending);
                }
            };
            match event {
                ProcessEvent::Output {
                    stream: Stream::Stderr,
                    bytes,
                } => match door.hear(&bytes) {
                    Heard::Nothing => {}
                    Heard::Question => door.answer(),
                    Heard::Begun(before, after) => self.begin([before, after]),
                },
                ProcessEvent::Output { .. } => return event,
                ProcessEvent::Ended(ending) => {
                    return ProcessEvent::Ended(match ending {
                        Ending::NotStarted { .. } | Ending::Denied { .. } => ending,
                        Ending::Exited { .. } | Ending::Lost { .. } => door.shut(&ending),
                    });
                }
            }
        }
    }

    fn begin(&mut self, said: [Vec<u8>; 2]) {
        if let Some(door) = self.door.take() {
            door.open();
        }
        for bytes in said.into_iter().filter(|bytes| !bytes.is_empty()) {
            self.queue.push_back(ProcessEvent::Output {
                stream: Stream::Stderr,
                bytes: bytes.into(),
            });
        }
    }

    /// As [`Process::signal`].
    pub(super) async fn signal(&mut self, signal: Signal) {
        Box::pin(self.process.signal(signal)).await;
    }

    /// As [`Process::close`].
    pub(super) async fn close(&mut self) {
        Box::pin(self.process.close()).await;
    }
}
