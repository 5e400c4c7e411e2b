//! A second connection that carries part of a large file.
//!
//! One connection is the work of one core, here and there, and of one window; a second one is as
//! much again. Nothing depends on it: a file begins on the first, the second joins when it is ready,
//! and what it could not do the first does.
//!
//! A handle belongs to one connection, so the second opens the file by its path once more. Whoever
//! may write in that directory could have put something else there, so it is used only when it was
//! seen to be the same file (see [`open`]).

use std::pin::Pin;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::Copying;
use crate::sftp::walk::close_quietly;
use crate::sftp::{Attrs, Client, Handle, OpenFlags, RemotePath};

/// What is left of a file must be as much to be worth a second login, and the round trips until it
/// can help.
pub(super) const WORTH: u64 = 256 << 20;

/// A question for a client of a second connection to the same account of the same host; `None` where
/// that is not to be had.
#[derive(Debug)]
pub struct SecondAsk(pub oneshot::Sender<Option<Client>>);

/// The client of the second connection, and the file there.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) client: Client,
    pub(super) handle: Handle,
}

/// A file that is open on the first connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shared<'a> {
    /// One that we made and write.
    Part {
        handle: &'a Handle,
        path: &'a RemotePath,
    },
    /// One that we read, as it was when it was opened.
    Source { path: &'a RemotePath, attrs: Attrs },
}

type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How far the second connection has come. Whoever copies looks at it from time to time, which is
/// what moves it on: no task of its own that somebody would have to end.
pub(super) struct Aid<'a> {
    copying: &'a Copying<'a>,
    file: Option<Shared<'a>>,
    state: State<'a>,
}

enum State<'a> {
    /// There is none, or none any more.
    Alone,
    /// It was asked for. Can be dropped at any time.
    Asked(Soon<'a, Option<Client>>),
    /// It opens the file. Is awaited, or a handle would stay open.
    Opening(Soon<'a, Option<Second>>),
    With(Second),
}

impl<'a> Aid<'a> {
    pub(super) fn none(copying: &'a Copying<'a>) -> Self {
        Self {
            copying,
            file: None,
            state: State::Alone,
        }
    }

    /// For a file of which `left` bytes are to be carried.
    pub(super) fn with(copying: &'a Copying<'a>, file: Shared<'a>, left: u64) -> Self {
        // With a bound on the rate there is no load to share.
        let worth = left >= copying.second_from && copying.throttle.is_none();
        if !worth || copying.seconds.is_none() {
            return Self::none(copying);
        }
        Self {
            copying,
            file: Some(file),
            state: State::Asked(Box::pin(copying.second())),
        }
    }

    /// The second connection, when it is ready.
    pub(super) fn look(&mut self) -> Option<&Second> {
        if let State::Asked(client) = &mut self.state
            && let Some(client) = client.now_or_never()
        {
            self.state = match (client, self.file) {
                (Some(client), Some(file)) => {
                    State::Opening(Box::pin(open(self.copying, client, file)))
                }
                _ => State::Alone,
            };
        }
        if let State::Opening(second) = &mut self.state
            && let Some(second) = second.now_or_never()
        {
            self.state = second.map_or(State::Alone, State::With);
        }
        match &self.state {
            State::With(second) => Some(second),
            State::Alone | State::Asked(_) | State::Opening(_) => None,
        }
    }

    /// It is gone.
    pub(super) fn lost(&mut self) {
        self.state = State::Alone;
    }

    /// Takes it out, to be closed. One that was about to join is waited for, and closed; then true
    /// stands with it, since opening touches the file's times.
    pub(super) async fn end(&mut self) -> (Option<Second>, bool) {
        match std::mem::replace(&mut self.state, State::Alone) {
            State::Alone | State::Asked(_) => (None, false),
            State::Opening(second) => (second.await, true),
            State::With(second) => (Some(second), false),
        }
    }
}

/// Opens the file on the second connection, if it is the same file.
async fn open(copying: &Copying<'_>, client: Client, file: Shared<'_>) -> Option<Second> {
    let (path, flags) = match file {
        Shared::Part { path, .. } => (path, OpenFlags::WRITE),
        Shared::Source { path, .. } => (path, OpenFlags::READ),
    };
    let before = match file {
        Shared::Part { handle, .. } => Some(mark(copying.client, handle).await?),
        Shared::Source { .. } => None,
    };
    let handle = client.open(path, flags, None).await.ok();
    let found = match &handle {
        Some(handle) => client.fstat(handle).await.ok(),
        None => None,
    };
    let same = match (file, &before) {
        (Shared::Part { handle, .. }, Some((mark, before))) => {
            let restored = copying.client.fset_stat(handle, *before).await;
            let marked = found.and_then(|found| found.times).map(|times| times.0);
            restored.is_ok() && marked == Some(*mark)
        }
        (Shared::Source { attrs, .. }, _) => found.is_some_and(|found| looks_like(&found, &attrs)),
        (Shared::Part { .. }, None) => false,
    };
    let handle = handle?;
    if same {
        return Some(Second { client, handle });
    }
    // It says nothing of the copy whether this works.
    let _ = close_quietly(&client, handle).await;
    None
}

/// Gives our part a time of access that nobody could have guessed; and what to set to undo that.
///
/// Setting it takes the owner's rights, writing does not change it, and SFTP has no other sign by
/// which two handles show that they are of one file: it tells neither devices nor inodes. So whoever
/// put a link to somebody else's file in place of our part is found out.
async fn mark(client: &Client, handle: &Handle) -> Option<(u32, Attrs)> {
    use std::hash::{BuildHasher, RandomState};
    let times = client.fstat(handle).await.ok()?.times?;
    // From 1970 to 2004: every file system and every server can tell it.
    let mark = (RandomState::new().hash_one(times) as u32) >> 2;
    let set = |accessed| Attrs {
        times: Some((accessed, times.1)),
        ..Attrs::default()
    };
    client.fset_stat(handle, set(mark)).await.ok()?;
    Some((mark, set(times.0)))
}

/// Whether two looks were at one file that did not change between them, as far as SFTP tells.
fn looks_like(one: &Attrs, other: &Attrs) -> bool {
    let told = |attrs: &Attrs| {
        let modified = attrs.times.map(|times| times.1);
        (attrs.size, attrs.mode, attrs.owner, modified)
    };
    told(one) == told(other)
}

#[cfg(test)]
mod tests;
