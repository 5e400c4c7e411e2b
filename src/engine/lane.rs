//! A lane: one host's jobs in order, over one connection.
//!
//! It carries out orders and says what happened. It decides nothing about other hosts, about what
//! comes next, or about what an ending means for the run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::attempts::{Attempted, Attempts};
use super::follow::{Follow, Followed};
use super::outbox::{Outbox, SpillLost, Ways};
use super::perform::{Shared, Turn};
use super::sftp::Refused;
use super::state::{Level, News, Order};
use super::{Desk, files};
use crate::event::Severity;
use crate::job::{Action, Become, Command, HostId, Input, Job, Memory, TaskId, TaskRef};
use crate::outcome::{Cause, Failure, HostProblem, Outcome, Phase, Remains};
use crate::output::backlog::Backlog;
use crate::session::{Process, Session, Spawn, SpawnError, Stdin};
use crate::sftp::{Client, Code, RemotePath, Settings};
use crate::target::{Dial, Way};

/// One host at work.
pub(super) struct Lane {
    pub(super) id: HostId,
    pub(super) desk: Arc<Desk>,
    pub(super) out: Outbox,
    pub(super) cancel: watch::Receiver<Level>,
    open: Option<Open>,
    /// What its tasks have left behind.
    pub(super) memory: Memory,
    /// Handlers that are due: their places in the play.
    pub(super) notified: HashSet<TaskId>,
    /// What one host did for all, and how much of it is known here.
    pub(super) shared: watch::Receiver<Vec<Shared>>,
    pub(super) learned: usize,
    /// Passwords that were not accepted.
    denials: Vec<Denial>,
}

/// A password that a host did not accept. It is not sent there again: some hosts lock an account
/// after a few.
struct Denial {
    way: Arc<Way>,
    becomes: Become,
    reason: String,
}

struct Open {
    session: Session,
    way: Arc<Way>,
    /// The host's SFTP server, once a task has needed it.
    sftp: Option<Client>,
}

/// Stands before what a small command of our own has to say.
const SAID: &str = "fanrun:";

type Started = Result<Process, SpawnError>;

/// Why an order was not carried out.
pub(super) enum Halt {
    /// The host cannot be worked on.
    Problem(HostProblem),
    /// The run is being stopped.
    Stopped,
    /// A bug or a broken disk on our side.
    Spill(SpillLost),
}

impl From<SpillLost> for Halt {
    fn from(lost: SpillLost) -> Self {
        Self::Spill(lost)
    }
}

impl Lane {
    pub(super) fn new(
        id: HostId,
        desk: Arc<Desk>,
        ways: Ways,
        cancel: watch::Receiver<Level>,
    ) -> Self {
        let backlog = Backlog::with(
            desk.backlog_memory,
            std::env::temp_dir(),
            desk.spill.clone(),
        );
        let shared = desk.shared.subscribe();
        let out = Outbox::new(id, ways, cancel.clone(), backlog);
        Self {
            id,
            desk,
            out,
            cancel,
            open: None,
            memory: Memory::default(),
            notified: HashSet::new(),
            shared,
            learned: 0,
            denials: Vec::new(),
        }
    }

    /// Works until it is told to finish. `Err` is a message for `News::Panicked`.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), String> {
        while let Some(order) = orders.recv().await {
            let done = match order {
                Order::Task(task) => self.on_task(task).await,
                Order::Rest => self.rest().await,
                Order::Finish => break,
            };
            done.map_err(|lost| lost.to_string())?;
        }
        self.rest().await.map_err(|lost| lost.to_string())?;
        self.out
            .say(News::Ended)
            .await
            .map_err(|lost| lost.to_string())
    }

    async fn on_task(&mut self, task: TaskId) -> Result<(), SpillLost> {
        if self.stopping() {
            return self.out.say(News::Stopped).await;
        }
        match self.perform(task).await {
            Ok(()) => Ok(()),
            Err(Halt::Problem(problem)) => self.out.say(News::Problem(problem)).await,
            Err(Halt::Stopped) => self.out.say(News::Stopped).await,
            Err(Halt::Spill(lost)) => Err(lost),
        }
    }

    /// Does what a job says, once. The task begins when its command has been sent.
    pub(super) async fn attempt(&mut self, job: &Job, turn: &mut Turn) -> Result<Followed, Halt> {
        let desk = Arc::clone(&self.desk);
        let way = desk.plan.way_of(self.id, job.task.id);
        match &job.action {
            Action::Run(command) => {
                let process = self
                    .begin(&way, || spawn(&desk, job, command.clone()))
                    .await?;
                self.begin_turn(job, turn).await;
                self.follow(process, job).await
            }
            Action::Local(command) => {
                let mut here = Session::local();
                let started = here.start(spawn(&desk, job, command.clone())).await;
                self.begin_turn(job, turn).await;
                self.follow_here(here, started, job).await
            }
            Action::Script {
                name,
                content,
                args,
            } => Box::pin(self.run_script(&way, job, (name, content, args), turn)).await,
            Action::List(_) | Action::Upload(_) | Action::Download(_) => {
                let client = self.sftp(&way).await?;
                self.begin_turn(job, turn).await;
                // Boxed, or every idle lane would keep the room that copies need.
                Box::pin(self.work_on_files(&way, client, job)).await
            }
            Action::WaitFor(what) => {
                self.begin_turn(job, turn).await;
                let waited = Box::pin(self.wait_for(&way, what, job)).await;
                waited.map(Followed::of)
            }
            Action::Print(_)
            | Action::Pause(_)
            | Action::Ask(_)
            | Action::Assert(_)
            | Action::Set(_) => {
                self.begin_turn(job, turn).await;
                self.do_here(job).await.map(Followed::of)
            }
        }
    }

    /// Actions without a host.
    async fn do_here(&mut self, job: &Job) -> Result<Outcome, Halt> {
        match &job.action {
            Action::Print(text) => {
                let said = News::Print(job.task.clone(), text.clone());
                self.out.say(said).await?;
            }
            Action::Pause(time) => return Ok(self.pause(*time).await),
            Action::Ask(question) => return Ok(self.ask(question).await),
            Action::Assert(Some(reason)) => {
                let reason = reason.clone();
                return Ok(Outcome::Failed(Failure::Assert { reason }));
            }
            Action::Assert(None)
            | Action::Set(_)
            | Action::Run(_)
            | Action::Local(_)
            | Action::Script { .. }
            | Action::List(_)
            | Action::Upload(_)
            | Action::Download(_)
            | Action::WaitFor(_) => {}
        }
        Ok(Outcome::Ok { status: None })
    }

    async fn run_script(
        &mut self,
        way: &Arc<Way>,
        job: &Job,
        (name, content, args): (&str, &Bytes, &[String]),
        turn: &mut Turn,
    ) -> Result<Followed, Halt> {
        let desk = Arc::clone(&self.desk);
        let path = match self.deliver(way, (name, content), &job.becomes).await? {
            Ok(path) => path,
            Err(outcome) => {
                self.begin_turn(job, turn).await;
                return Ok(Followed::of(outcome));
            }
        };
        let argv: Vec<String> = [&path].into_iter().chain(args).cloned().collect();
        let run = || spawn(&desk, job, Command::Argv(argv.clone()));
        let process = self.begin(way, run).await?;
        self.begin_turn(job, turn).await;
        let followed = self.follow(process, job).await?;
        self.remove_script(&path, &job.becomes).await?;
        Ok(followed)
    }

    /// Whether a path exists where the job's command would run.
    pub(super) async fn exists(
        &mut self,
        job: &Job,
        path: &str,
    ) -> Result<Result<bool, String>, Halt> {
        if let Action::Local(_) = job.action {
            return Ok(Ok(std::path::Path::new(&job.at(path))
                .symlink_metadata()
                .is_ok()));
        }
        let way = self.desk.plan.way_of(self.id, job.task.id);
        self.exists_there(&way, job, path).await
    }

    pub(super) async fn exists_there(
        &mut self,
        way: &Arc<Way>,
        job: &Job,
        path: &str,
    ) -> Result<Result<bool, String>, Halt> {
        let path = quote(&job.at(path));
        let text = format!(
            "if [ -e {path} ] || [ -L {path} ]; then printf '\\n{SAID}yes'; else printf '\\n{SAID}no'; fi"
        );
        let spawn = in_sh_as(&job.becomes, text, Stdin::Closed);
        let said = self.aside(way, spawn).await?;
        Ok(said.and_then(|said| match said.rsplit_once(SAID) {
            Some((_, "yes")) => Ok(true),
            Some((_, "no")) => Ok(false),
            Some(_) | None => Err(format!(
                "cannot tell whether {path} exists: the remote shell said {}",
                crate::text::printable(said.as_bytes())
            )),
        }))
    }

    pub(super) async fn begin_turn(&mut self, job: &Job, turn: &mut Turn) {
        if turn.began.is_none() {
            turn.began = Some(self.say_start(&job.task).await);
        }
    }

    pub(super) async fn say_start(&mut self, task: &TaskRef) -> Instant {
        let began = Instant::now();
        self.out.belongs_to(task);
        self.out.say_beginning(News::TaskStart(task.clone())).await;
        began
    }

    pub(super) async fn say_warnings(&mut self, more: Vec<String>) -> Result<(), SpillLost> {
        let from_session = self.open.as_mut().map(|open| open.session.take_warnings());
        for text in from_session.into_iter().flatten().chain(more) {
            self.out.say(News::Note(Severity::Warning, text)).await?;
        }
        Ok(())
    }

    /// Starts a process on the host, connecting first where that is needed. A connection that died
    /// while it was idle, or that opens no further channel, is replaced once: the command had not
    /// been sent.
    async fn begin(&mut self, way: &Arc<Way>, make: impl Fn() -> Spawn) -> Result<Started, Halt> {
        let mut fresh = self.connect(way).await?;
        loop {
            let spawn = make();
            if let Some(reason) = self.denied(way, spawn.becomes.as_ref()) {
                return Ok(Err(SpawnError::NotStarted { reason }));
            }
            let Some(open) = &mut self.open else {
                return Err(Halt::Stopped);
            };
            match open.session.start(spawn).await {
                Err(SpawnError::Disconnected { .. } | SpawnError::ChannelRefused { .. })
                    if !fresh =>
                {
                    self.rest().await?;
                    fresh = self.connect(way).await?;
                }
                Err(SpawnError::Disconnected { reason }) => {
                    return Err(problem(Cause::Closed(Phase::Auth), reason));
                }
                Err(SpawnError::ChannelRefused { reason }) => {
                    return Err(problem(Cause::ChannelRefused, reason));
                }
                started => return Ok(started),
            }
        }
    }

    /// The host's SFTP server, started where it was not. As in [`Self::begin`], a connection that
    /// is of no use any more is replaced once.
    async fn sftp(&mut self, way: &Arc<Way>) -> Result<Result<Client, Refused>, Halt> {
        let mut fresh = self.connect(way).await?;
        loop {
            let Some(open) = &mut self.open else {
                return Err(Halt::Stopped);
            };
            if let Some(client) = open.sftp.as_ref().filter(|client| !client.is_over()) {
                return Ok(Ok(client.clone()));
            }
            match super::sftp::open(&mut open.session, Settings::default()).await {
                Err(Refused::Spawn(
                    SpawnError::Disconnected { .. } | SpawnError::ChannelRefused { .. },
                )) if !fresh => {
                    self.rest().await?;
                    fresh = self.connect(way).await?;
                }
                Err(Refused::Spawn(SpawnError::Disconnected { reason })) => {
                    return Err(problem(Cause::Closed(Phase::Auth), reason));
                }
                Err(Refused::Spawn(SpawnError::ChannelRefused { reason })) => {
                    return Err(problem(Cause::ChannelRefused, reason));
                }
                Err(refused) => return Ok(Err(refused)),
                Ok(client) => open.sftp = Some(client),
            }
        }
    }

    async fn work_on_files(
        &mut self,
        way: &Arc<Way>,
        client: Result<Client, Refused>,
        job: &Job,
    ) -> Result<Followed, Halt> {
        let client = match client {
            Ok(client) => client,
            Err(refused) => return Ok(Followed::of(files::not_begun(&refused))),
        };
        let desk = Arc::clone(&self.desk);
        let errand = files::Errand {
            client,
            job,
            clock: &desk.clock,
            copies: &desk.copies,
            session: self.open.as_mut().map(|open| &mut open.session),
        };
        let (followed, left) = files::follow(errand, &mut self.out, &mut self.cancel).await?;
        self.take_away(way, left).await?;
        Ok(followed)
    }

    /// Files that are not complete, of a server that ended: another one may remove them.
    async fn take_away(&mut self, way: &Arc<Way>, left: Vec<RemotePath>) -> Result<(), Halt> {
        let Some(first) = left.first() else {
            return Ok(());
        };
        let removed = async {
            let client = self.sftp(way).await.ok()?.ok()?;
            for path in &left {
                match client.remove(path).await {
                    Ok(()) => {}
                    Err(error) if error.code() == Some(Code::NoSuchFile) => {}
                    Err(_) => return None,
                }
            }
            Some(())
        };
        let removed = tokio::time::timeout(files::CLEAN_UP, removed).await;
        if !matches!(removed, Ok(Some(()))) {
            let more = match left.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let text = format!("may be left behind, not complete: {first}{more}");
            self.out.say(News::Note(Severity::Warning, text)).await?;
        }
        Ok(())
    }

    /// True when a connection was opened just now.
    pub(super) async fn connect(&mut self, way: &Arc<Way>) -> Result<bool, Halt> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(&open.way, way))
        {
            return Ok(false);
        }
        self.rest().await?;
        let session = match &**way {
            Way::Local => Session::local(),
            Way::Ssh(dial) => self.dial(dial).await?,
        };
        self.open = Some(Open {
            session,
            way: Arc::clone(way),
            sftp: None,
        });
        self.say_warnings(Vec::new()).await?;
        Ok(true)
    }

    async fn dial(&mut self, dial: &Dial) -> Result<Session, Halt> {
        let address = format!("{}@{}:{}", dial.user, dial.address, dial.port);
        self.out.say_beginning(News::Connecting { address }).await;
        let desk = Arc::clone(&self.desk);
        let mut attempts = Attempts::new(&desk.gates, dial);
        loop {
            let attempted = tokio::select! {
                biased;
                _ = self.cancel.wait_for(|level| *level != Level::Run) => return Err(Halt::Stopped),
                attempted = attempts.make(&desk.connector) => attempted,
            };
            let (delay, reason) = match attempted {
                Attempted::Open(session) => {
                    let (took, retries) = (attempts.took(), attempts.dropped());
                    self.out.say_beginning(News::Ready { took, retries }).await;
                    return Ok(*session);
                }
                Attempted::Failed(problem) => return Err(Halt::Problem(problem)),
                Attempted::Dropped { delay, reason } => (delay, reason),
            };
            let attempt = attempts.dropped() + 1;
            self.out
                .say_beginning(News::Retry {
                    task: None,
                    attempt,
                    delay,
                    reason,
                })
                .await;
            if matches!(self.pause(delay).await, Outcome::Cancelled { .. }) {
                return Err(Halt::Stopped);
            }
        }
    }

    async fn follow(&mut self, started: Started, job: &Job) -> Result<Followed, Halt> {
        let process = match started {
            Ok(process) => process,
            Err(error) => return Ok(Followed::of(not_started(&error))),
        };
        let Some(open) = &mut self.open else {
            return Err(Halt::Stopped);
        };
        let more = self.desk.plan.has_next(job.task.id);
        let clock = &self.desk.clock;
        let follow = Follow::new(&mut self.out, &mut self.cancel, job, clock, more);
        let followed = follow.until_the_end(process, &mut open.session).await?;
        let way = Arc::clone(&open.way);
        if open.session.is_closed() {
            self.open = None;
        }
        if let Some(reason) = &followed.denied {
            self.remember_denial(way, job.becomes.as_ref(), reason);
        }
        Ok(followed)
    }

    async fn follow_here(
        &mut self,
        mut here: Session,
        started: Started,
        job: &Job,
    ) -> Result<Followed, Halt> {
        match started {
            Err(error) => Ok(Followed::of(not_started(&error))),
            Ok(process) => {
                let clock = &self.desk.clock;
                let follow = Follow::new(&mut self.out, &mut self.cancel, job, clock, false);
                Ok(follow.until_the_end(process, &mut here).await?)
            }
        }
    }

    /// Copies a script to the host: into a new directory that only its owner can enter. Gives the
    /// script's path there, or how it failed.
    async fn deliver(
        &mut self,
        way: &Arc<Way>,
        (name, content): (&str, &Bytes),
        becomes: &Option<Become>,
    ) -> Result<Result<String, Outcome>, Halt> {
        let name = quote(name);
        let text = format!(
            "umask 077 && d=$(mktemp -d \"${{TMPDIR:-/tmp}}/fanrun.XXXXXXXXXX\") && cat >\"$d\"/{name} \
             && chmod 700 \"$d\"/{name} && printf '\\n{SAID}%s' \"$d\"/{name}"
        );
        let spawn = in_sh_as(becomes, text, Stdin::Bytes(content.clone()));
        let said = self.aside(way, spawn).await?;
        // A start-up file of the shell may have printed something before.
        let path = |said: &str| said.rsplit_once(SAID).map(|(_, path)| path.to_owned());
        Ok(match said.map(|said| path(&said).ok_or(said)) {
            Ok(Ok(path)) if path.starts_with('/') => Ok(path),
            Ok(Ok(other) | Err(other)) => Err(failed(format!(
                "the script could not be copied: the remote shell said {}",
                crate::text::printable(other.as_bytes())
            ))),
            Err(reason) => Err(failed(format!("the script could not be copied: {reason}"))),
        })
    }

    async fn remove_script(&mut self, path: &str, becomes: &Option<Become>) -> Result<(), Halt> {
        let Some(folder) = path.rsplit_once('/').map(|(folder, _)| folder) else {
            return Ok(());
        };
        let Some(way) = self.open.as_ref().map(|open| Arc::clone(&open.way)) else {
            let text = format!("the script's folder {folder} was left behind");
            return Ok(self.out.say(News::Note(Severity::Warning, text)).await?);
        };
        let text = format!("rm -rf -- {}", quote(folder));
        let spawn = in_sh_as(becomes, text, Stdin::Closed);
        if let Err(reason) = self.aside(&way, spawn).await? {
            let text = format!("the script's folder {folder} could not be removed: {reason}");
            self.out.say(News::Note(Severity::Warning, text)).await?;
        }
        Ok(())
    }

    /// Runs a small command of our own and gives its standard output.
    pub(super) async fn aside(
        &mut self,
        way: &Arc<Way>,
        spawn: Spawn,
    ) -> Result<Result<String, String>, Halt> {
        self.connect(way).await?;
        let becomes = spawn.becomes.clone();
        if let Some(reason) = self.denied(way, becomes.as_ref()) {
            return Ok(Err(reason));
        }
        let Some(open) = &mut self.open else {
            return Err(Halt::Stopped);
        };
        let said = super::follow::aside(&mut open.session, spawn).await;
        Ok(said.map_err(|unsaid| {
            if unsaid.denied {
                self.remember_denial(Arc::clone(way), becomes.as_ref(), &unsaid.reason);
            }
            unsaid.reason
        }))
    }

    /// Why a command of another account is not even tried.
    fn denied(&self, way: &Arc<Way>, becomes: Option<&Become>) -> Option<String> {
        let becomes = becomes?;
        let same = |denial: &&Denial| Arc::ptr_eq(&denial.way, way) && denial.becomes == *becomes;
        let denial = self.denials.iter().find(same)?;
        Some(format!(
            "{} (before; the same password is not sent again)",
            denial.reason
        ))
    }

    fn remember_denial(&mut self, way: Arc<Way>, becomes: Option<&Become>, reason: &str) {
        self.denials.extend(becomes.map(|becomes| Denial {
            way,
            becomes: becomes.clone(),
            reason: reason.to_owned(),
        }));
    }

    pub(super) async fn pause(&self, time: Duration) -> Outcome {
        let mut cancel = self.cancel.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => Outcome::Ok { status: None },
            _ = cancel.wait_for(|level| *level != Level::Run) => {
                Outcome::Cancelled { remote: Remains::Ended }
            }
        }
    }

    pub(super) async fn rest(&mut self) -> Result<(), SpillLost> {
        if let Some(open) = self.open.take() {
            open.session.close().await;
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        *self.cancel.borrow() != Level::Run
    }
}

fn spawn(desk: &Desk, job: &Job, command: Command) -> Spawn {
    let stdin = match &job.stdin {
        Input::Nothing => Stdin::Closed,
        Input::Bytes(bytes) => Stdin::Bytes(bytes.clone()),
        // A second taker would find it gone: there is only one standard input.
        Input::Ours => desk.take_stdin().map_or(Stdin::Closed, Stdin::Stream),
    };
    Spawn {
        command,
        env: job.env.clone(),
        cwd: job.cwd.clone(),
        shell: job.shell.clone(),
        stdin,
        hidden: job.hidden,
        becomes: job.becomes.clone(),
    }
}

pub(super) fn in_sh(text: String, stdin: Stdin) -> Spawn {
    let command = Command::Argv(vec!["/bin/sh".into(), "-c".into(), text]);
    Spawn {
        command,
        env: Vec::new(),
        cwd: None,
        shell: None,
        stdin,
        hidden: false,
        becomes: None,
    }
}

fn in_sh_as(becomes: &Option<Become>, text: String, stdin: Stdin) -> Spawn {
    Spawn {
        becomes: becomes.clone(),
        ..in_sh(text, stdin)
    }
}

pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed(Failure::NotStarted { reason })
}

fn not_started(error: &SpawnError) -> Outcome {
    failed(error.to_string())
}

fn problem(cause: Cause, message: String) -> Halt {
    Halt::Problem(HostProblem {
        cause,
        message,
        details: Vec::new(),
    })
}
