//! Copies files and trees, either way: many files at once, many requests ahead in each.
//!
//! A file gets its name when it is complete: it is written under a temporary one in the same
//! directory, every answer is awaited, its size is compared, and one rename gives it its name. Told
//! to stop, a copy takes its temporary files away before it ends. What goes wrong with one file is
//! that file's failure; only the end of the client ends everything.

mod delete;
mod download;
mod local;
mod meter;
mod names;
mod remote;
mod second;
mod sources;
mod stream;
mod tree;
mod upload;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use download::download;
pub use meter::{Meter, Throttle};
pub use second::SecondAsk;
pub use sources::Sources;
pub use upload::upload;

use super::{BadPattern, Client, Error, Filter, LinkOrder, RemotePath};
use crate::listing::Wanted;
use crate::outcome::FilesCause;
use crate::transfer::{How, Tally};

/// Files that are under way at once on one host.
const FILES_AT_ONCE: usize = 64;
/// Bytes that are asked for, or not yet acknowledged, on one host: a bound on memory.
const IN_FLIGHT: usize = 16 << 20;
/// Budgets are counted in these.
const GRAIN: usize = 1 << 10;

/// What a copy stands on.
#[derive(Debug)]
pub struct Copying<'a> {
    client: &'a Client,
    how: &'a How,
    meter: &'a Meter,
    stop: &'a CancellationToken,
    throttle: Option<&'a Throttle>,
    budget: Arc<Semaphore>,
    filter: Filter,
    mark: String,
    sums: Mutex<Sums>,
    /// Where to ask for a checksum that the host makes itself.
    tool: Option<mpsc::Sender<SumAsk>>,
    /// Where to ask for a second client, and what came of it.
    seconds: Option<mpsc::Sender<SecondAsk>>,
    second: OnceCell<Option<Client>>,
    /// The smallest file that a second connection shares.
    second_from: u64,
    link_order: OnceCell<LinkOrder>,
}

/// A question for the checksum of a file on the host.
#[derive(Debug)]
pub struct SumAsk {
    /// Which file.
    pub path: RemotePath,
    /// Takes its SHA-256, or `None` where the host has no tool that can be asked.
    pub answer: oneshot::Sender<Option<[u8; 32]>>,
}

/// What a copy came to.
#[derive(Debug, Default)]
pub struct Moved {
    /// What was moved.
    pub tally: Tally,
    /// What went wrong first, and how much more did.
    pub trouble: Option<(FilesCause, String)>,
    /// What is worth a word though it changes no outcome, each once. Printable lines.
    pub notes: Vec<String>,
    /// What would be done, for a copy that only looks. Printable lines.
    pub would: Vec<String>,
    /// Temporary files that may still be there, because the server was gone.
    pub left: Vec<RemotePath>,
}

#[derive(Debug, Default)]
struct Sums {
    moved: Moved,
    /// The end of the client, which is why everything else failed too.
    over: Option<Error>,
    /// The host was asked for a checksum and could not make one.
    no_tool: bool,
}

/// Why one file was not copied.
#[derive(Debug, Clone)]
enum Fault {
    /// What is wrong with it, in a line that names it.
    File(FilesCause, String),
    /// The client is over.
    Client(Error),
    /// We were told to stop.
    Stopped,
}

impl Fault {
    /// What the server said of a path.
    fn remote(path: impl fmt::Display, error: Error) -> Self {
        if error.is_final() {
            Self::Client(error)
        } else {
            Self::File(error.cause(), format!("{path}: {error}"))
        }
    }

    /// What our own system said of a path.
    fn local(path: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::File(local_cause(error), format!("{path}: {}", in_words(error)))
    }
}

/// What kind of trouble an error of our own system is.
fn local_cause(error: &std::io::Error) -> FilesCause {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FilesCause::LocalSpace,
        ErrorKind::NotFound => FilesCause::Missing,
        ErrorKind::PermissionDenied => FilesCause::Denied,
        _ => FilesCause::Local,
    }
}

/// An error without the number that Rust puts behind it.
fn in_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

impl<'a> Copying<'a> {
    /// A copy over `client`. `throttle` is shared by all that together may only be so fast.
    ///
    /// # Errors
    /// A pattern of `exclude` that is none.
    pub fn new(
        client: &'a Client,
        how: &'a How,
        meter: &'a Meter,
        throttle: Option<&'a Throttle>,
        stop: &'a CancellationToken,
    ) -> Result<Self, BadPattern> {
        let sums = Sums {
            moved: Moved {
                tally: Tally {
                    looked: how.check,
                    ..Tally::default()
                },
                ..Moved::default()
            },
            ..Sums::default()
        };
        let wanted = Wanted {
            exclude: how.exclude.clone(),
            ..Wanted::default()
        };
        Ok(Self {
            client,
            how,
            meter,
            stop,
            throttle,
            budget: Arc::new(Semaphore::new(IN_FLIGHT / GRAIN)),
            filter: Filter::new(&wanted)?,
            mark: names::mark(),
            sums: Mutex::new(sums),
            tool: None,
            seconds: None,
            second: OnceCell::new(),
            second_from: second::WORTH,
            link_order: OnceCell::new(),
        })
    }

    /// Checksums are asked for there first; where none comes, files are read back.
    #[must_use]
    pub fn with_sums(mut self, tool: mpsc::Sender<SumAsk>) -> Self {
        self.tool = Some(tool);
        self
    }

    /// Large files are shared with a client that is asked for there.
    #[must_use]
    pub fn with_seconds(mut self, seconds: mpsc::Sender<SecondAsk>) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// The client of a second connection. Asked for once for all files.
    async fn second(&self) -> Option<Client> {
        let ask = || async {
            let (answer, receiver) = oneshot::channel();
            let seconds = self.seconds.as_ref()?;
            seconds.send(SecondAsk(answer)).await.ok()?;
            receiver.await.ok().flatten()
        };
        let client = self.second.get_or_init(ask).await.clone();
        client.filter(|client| !client.is_over())
    }

    fn sums<T>(&self, change: impl FnOnce(&mut Sums) -> T) -> T {
        change(&mut self.sums.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, add: impl FnOnce(&mut Tally)) {
        self.sums(|sums| add(&mut sums.moved.tally));
    }

    /// A line that is told once.
    fn note(&self, line: String) {
        self.sums(|sums| {
            if !sums.moved.notes.contains(&line) {
                sums.moved.notes.push(line);
            }
        });
    }

    /// What would be done if this were more than a look.
    fn would(&self, line: String) {
        self.sums(|sums| sums.moved.would.push(line));
    }

    /// Notes why a file was not copied. False when nothing more can work.
    fn failed(&self, fault: Fault) -> bool {
        self.sums(|sums| match fault {
            Fault::File(cause, reason) => {
                sums.moved.tally.errors += 1;
                sums.moved.trouble.get_or_insert((cause, reason));
                true
            }
            Fault::Client(error) => {
                sums.over.get_or_insert(error);
                false
            }
            Fault::Stopped => false,
        })
    }

    fn has_failed(&self) -> bool {
        self.sums(|sums| sums.over.is_some() || sums.moved.tally.errors > 0)
    }

    fn goes_on(&self) -> bool {
        !self.stop.is_cancelled() && self.sums(|sums| sums.over.is_none())
    }

    /// Waits for something unless we are told to stop first.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Fault::Stopped),
            done = work => Ok(done),
        }
    }

    fn into_moved(self) -> Moved {
        let Sums {
            mut moved, over, ..
        } = self
            .sums
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = over {
            moved.trouble = Some((error.cause(), error.to_string()));
        } else if let Some((_, reason)) = &mut moved.trouble
            && moved.tally.errors > 1
        {
            reason.push_str(&format!(" (and {} more)", moved.tally.errors - 1));
        }
        moved
    }
}

/// Does what blocks where that hurts nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(gone) => Err(std::io::Error::other(gone)),
    }
}
