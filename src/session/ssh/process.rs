//! One command on one channel.
//!
//! RFC 4254 orders almost nothing: a status may come before or after end of file, data may follow
//! either, and only `SSH_MSG_CHANNEL_CLOSE` ends a channel. So messages are read as they come, and
//! what they mean together is decided when the channel is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::state::{Facts, Note};
use crate::event::Stream;
use crate::outcome::ExitStatus;
use crate::session::{Ending, ProcessEvent, Signal, Stdin};
use crate::text::{fit, printable};

/// How long output is waited for after a status has come, from the last output on.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// A message to russh's task waits at most this long for its queue.
const QUEUE: Duration = Duration::from_secs(2);
/// RFC 4254, section 5.2: `SSH_EXTENDED_DATA_STDERR`.
const STDERR: u32 = 1;

/// What a command reads.
#[derive(Debug)]
pub(super) struct Input {
    /// Its own text, when that was too long for the request.
    pub(super) ahead: Option<Bytes>,
    pub(super) stdin: Stdin,
}

/// A running (or ended) remote command.
#[derive(Debug)]
pub struct SshProcess {
    /// `None` when nothing more is wanted: a channel that is neither read nor dropped would stop
    /// the whole session once its queue is full.
    read: Option<ChannelReadHalf>,
    write: Arc<ChannelWriteHalf<Msg>>,
    stdin: Option<JoinHandle<()>>,
    facts: Arc<Facts>,
    drain_grace: Duration,
    accepted: bool,
    eof: bool,
    status: Option<ExitStatus>,
    last: Instant,
    ended: Option<Ending>,
    odd_data: bool,
    /// What a failed request means.
    refusal: String,
}

impl SshProcess {
    pub(super) fn new(
        channel: Channel<Msg>,
        input: Input,
        facts: Arc<Facts>,
        refusal: String,
    ) -> Self {
        let (read, write) = channel.split();
        let write = Arc::new(write);
        Self {
            read: Some(read),
            stdin: Some(tokio::spawn(feed(Arc::clone(&write), input))),
            write,
            facts,
            drain_grace: DRAIN_GRACE,
            accepted: false,
            eof: false,
            status: None,
            last: Instant::now(),
            ended: None,
            odd_data: false,
            refusal,
        }
    }

    /// What tells this process from others of its connection.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.write.id()
    }

    /// Sets how long output is waited for after a status has come. [`DRAIN_GRACE`] by default.
    pub fn set_drain_grace(&mut self, grace: Duration) {
        self.drain_grace = grace;
    }

    /// The next thing that happened. Cancel-safe. After [`ProcessEvent::Ended`] it gives the same
    /// ending again and again.
    pub async fn next(&mut self) -> ProcessEvent {
        loop {
            if let Some(ending) = &self.ended {
                return ProcessEvent::Ended(ending.clone());
            }
            let grace = self.last + self.drain_grace;
            let waits = self.status.is_some();
            let read = &mut self.read;
            let incoming = async {
                match read {
                    Some(read) => read.wait().await,
                    None => None,
                }
            };
            let message = tokio::select! {
                biased;
                message = incoming => message,
                () = tokio::time::sleep_until(grace), if waits => {
                    self.leave_lingering().await;
                    continue;
                }
            };
            if let Some(event) = self.take(message) {
                return event;
            }
        }
    }

    /// Asks the server to send a signal (RFC 4254, section 6.9). Servers may ignore it.
    pub async fn signal(&mut self, signal: Signal) {
        let signal = match signal {
            Signal::Term => Sig::TERM,
            Signal::Kill => Sig::KILL,
            Signal::Probe => return,
        };
        let _ = timeout(QUEUE, self.write.signal(signal)).await;
    }

    /// Closes the channel. The process may live on; what it writes is lost.
    pub async fn close(&mut self) {
        self.stop_stdin();
        let _ = timeout(QUEUE, self.write.close()).await;
    }

    fn take(&mut self, message: Option<ChannelMsg>) -> Option<ProcessEvent> {
        match message {
            None => {
                let reason = self.facts.ended();
                self.end(&reason);
            }
            Some(ChannelMsg::Close) => {
                self.end("the server closed the channel without an exit status");
            }
            Some(ChannelMsg::Data { data }) => return self.output(Stream::Stdout, data),
            Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                return self.output(Stream::Stderr, data);
            }
            Some(ChannelMsg::ExtendedData { ext, .. }) => self.odd(ext),
            Some(ChannelMsg::Eof) => self.eof = true,
            Some(ChannelMsg::Success) => self.accepted = true,
            Some(ChannelMsg::Failure) => self.refused(),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                self.status(ExitStatus::Exited(exit_status));
            }
            Some(ChannelMsg::ExitSignal {
                signal_name,
                core_dumped,
                ..
            }) => self.status(ExitStatus::Signaled {
                name: signal_word(&signal_name),
                core_dumped,
            }),
            // Nothing that says how the command fares; requests that only a client makes.
            Some(ChannelMsg::WindowAdjusted { .. } | ChannelMsg::XonXoff { .. }) => {}
            Some(other) => {
                let name = format!("{other:?}");
                let name = name.split([' ', '{', '(']).next().unwrap_or_default();
                self.facts.note(Note::Warning(format!(
                    "the server sent a message that has no place on a command's channel: {name}"
                )));
            }
        }
        None
    }

    fn output(&mut self, stream: Stream, bytes: Bytes) -> Option<ProcessEvent> {
        self.last = Instant::now();
        (!bytes.is_empty()).then_some(ProcessEvent::Output { stream, bytes })
    }

    fn odd(&mut self, kind: u32) {
        if !std::mem::replace(&mut self.odd_data, true) {
            self.facts.note(Note::Warning(format!(
                "the server sent extended data of the unknown type {kind}; ignored"
            )));
        }
    }

    /// The first status counts; a second one changes nothing.
    fn status(&mut self, status: ExitStatus) {
        self.last = Instant::now();
        self.status.get_or_insert(status);
    }

    fn refused(&mut self) {
        if self.accepted || self.status.is_some() {
            return;
        }
        self.finish(Ending::NotStarted {
            reason: self.refusal.clone(),
        });
    }

    fn end(&mut self, why: &str) {
        let ending = match self.status.take() {
            Some(status) => Ending::Exited {
                status,
                lingering: None,
            },
            None => Ending::Lost {
                reason: why.to_owned(),
            },
        };
        self.finish(ending);
    }

    /// The status is known and nothing has come for the grace: something else holds the channel.
    async fn leave_lingering(&mut self) {
        if let Some(status) = self.status.take() {
            let lingering =
                (!self.eof).then(|| "a background process kept the output open".to_owned());
            self.finish(Ending::Exited { status, lingering });
        }
        let _ = timeout(QUEUE, self.write.close()).await;
    }

    fn finish(&mut self, ending: Ending) {
        self.ended = Some(ending);
        self.stop_stdin();
        self.read = None;
    }

    /// A writer that waits for the channel's window is never woken when the channel ends.
    fn stop_stdin(&mut self) {
        if let Some(task) = self.stdin.take() {
            task.abort();
        }
    }
}

impl Drop for SshProcess {
    fn drop(&mut self) {
        self.stop_stdin();
        let gone = matches!(
            &self.ended,
            Some(Ending::Exited { .. } | Ending::Lost { .. })
        );
        if gone {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let write = Arc::clone(&self.write);
            runtime.spawn(async move { timeout(QUEUE, write.close()).await });
        }
    }
}

/// Gives the process its input, then end of file.
async fn feed(write: Arc<ChannelWriteHalf<Msg>>, input: Input) {
    if let Some(ahead) = input.ahead
        && write.data_bytes(ahead).await.is_err()
    {
        return;
    }
    match input.stdin {
        Stdin::Closed => {}
        Stdin::Bytes(bytes) => {
            if write.data_bytes(bytes).await.is_err() {
                return;
            }
        }
        Stdin::Stream(mut blocks) => {
            while let Some(block) = blocks.recv().await {
                if write.data_bytes(block).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = write.eof().await;
}

/// A signal's name without `SIG`, printable and short.
fn signal_word(signal: &Sig) -> String {
    let name = match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    };
    fit(&printable(name.as_bytes()), 64).into_owned()
}
