//! What is uploaded to many hosts is read once.
//!
//! A tree is shared while any host works on it. Pieces of files are kept for a while, so that
//! hosts which are about as far share one read; the bound is in bytes, for the whole run.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::remote::Sum;
use super::tree::{self, Place, Tree, What};
use super::{Fault, blocking};
use crate::outcome::FilesCause;
use crate::sftp::Filter;
use crate::transfer::{Source, Symlinks, Upload};

/// How much of a file is read at once.
pub(super) const PIECE: u64 = 1 << 20;
/// How much of all files together is kept.
const KEPT: u64 = 64 << 20;
/// What a piece costs besides its bytes.
const OVERHEAD: u64 = 256;

/// Files that go to hosts, shared by all hosts of a run.
#[derive(Debug, Default)]
pub struct Sources {
    trees: Mutex<Vec<Sharing>>,
    pieces: Mutex<Pieces>,
    /// Bytes that were read from files.
    read: AtomicU64,
    trees_read: AtomicU64,
}

#[derive(Debug)]
struct Sharing {
    sources: Vec<Source>,
    symlinks: Symlinks,
    exclude: Vec<String>,
    tree: Weak<Shared>,
}

/// A tree, and what is known of its files.
#[derive(Debug)]
pub(super) struct Shared {
    id: u64,
    tree: OnceCell<Tree>,
    sums: Mutex<HashMap<usize, Sum>>,
}

#[derive(Debug, Default)]
struct Pieces {
    known: HashMap<Key, Arc<OnceCell<Bytes>>>,
    /// The oldest first, with what each counts as.
    order: VecDeque<(Key, u64)>,
    kept: u64,
}

type Key = (u64, usize, u64);

impl Shared {
    /// The tree, once it was read.
    pub(super) fn tree(&self) -> &Tree {
        static NOTHING: Tree = Tree {
            items: Vec::new(),
            troubles: Vec::new(),
            single: false,
            mirrored: Vec::new(),
        };
        self.tree.get().unwrap_or(&NOTHING)
    }
}

impl Sources {
    /// Bytes that were read from files so far: what hosts share counts once.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What an upload sends, read if no other host is at it.
    pub(super) async fn tree(&self, upload: &Upload) -> Result<Arc<Shared>, Fault> {
        let shared = self.shared(upload);
        let (sources, symlinks) = (upload.sources.clone(), upload.how.symlinks);
        let wanted = crate::listing::Wanted {
            exclude: upload.how.exclude.clone(),
            ..Default::default()
        };
        let read = || async move {
            blocking(move || {
                let filter = Filter::new(&wanted).map_err(io::Error::other)?;
                Ok(tree::read(&sources, symlinks, &filter))
            })
            .await
        };
        let done = shared.tree.get_or_try_init(read).await;
        done.map_err(|error| Fault::local("the sources", &error))?;
        Ok(shared)
    }

    fn shared(&self, upload: &Upload) -> Arc<Shared> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.retain(|sharing| sharing.tree.strong_count() > 0);
        let how = &upload.how;
        let same = trees.iter().find(|sharing| {
            sharing.sources == upload.sources
                && sharing.symlinks == how.symlinks
                && sharing.exclude == how.exclude
        });
        if let Some(shared) = same.and_then(|sharing| sharing.tree.upgrade()) {
            return shared;
        }
        let shared = Arc::new(Shared {
            id: self.trees_read.fetch_add(1, Ordering::Relaxed),
            tree: OnceCell::new(),
            sums: Mutex::default(),
        });
        trees.push(Sharing {
            sources: upload.sources.clone(),
            symlinks: how.symlinks,
            exclude: how.exclude.clone(),
            tree: Arc::downgrade(&shared),
        });
        shared
    }

    /// Piece number `at` of a file of a tree: shorter than [`PIECE`] at the end of the file only.
    pub(super) async fn piece(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        item: usize,
        at: u64,
    ) -> Result<Bytes, Fault> {
        let key = (shared.id, item, at);
        let len = match shared.tree().items[item].what {
            // A file without a size may have a content all the same.
            What::File { size: 0, .. } => PIECE,
            What::File { size, .. } => size.saturating_sub(at * PIECE).min(PIECE),
            What::Dir | What::Link(_) => 0,
        };
        let cell = self.cell(key, len + OVERHEAD);
        let read = || async {
            let (sources, shared) = (Arc::clone(self), Arc::clone(shared));
            let read = tokio::task::spawn_blocking(move || sources.read(&shared, item, at)).await;
            read.unwrap_or_else(|gone| Err(Fault::File(FilesCause::Local, gone.to_string())))
        };
        cell.get_or_try_init(read).await.cloned()
    }

    /// Where a piece is kept, or will be. Room is taken for `len` bytes; the oldest make it.
    fn cell(&self, key: Key, len: u64) -> Arc<OnceCell<Bytes>> {
        let mut guard = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = &mut *guard;
        if let Some(known) = pieces.known.get(&key) {
            return Arc::clone(known);
        }
        pieces.kept += len;
        while pieces.kept > KEPT
            && let Some((old, len)) = pieces.order.pop_front()
        {
            pieces.known.remove(&old);
            pieces.kept -= len;
        }
        let cell = Arc::new(OnceCell::new());
        pieces.known.insert(key, Arc::clone(&cell));
        pieces.order.push_back((key, len));
        cell
    }

    fn read(&self, shared: &Shared, item: usize, at: u64) -> Result<Bytes, Fault> {
        let item = &shared.tree().items[item];
        let What::File { place, size, .. } = &item.what else {
            return Ok(Bytes::new());
        };
        let bytes = match place {
            Place::Here(bytes) => {
                let from = (at * PIECE).min(*size) as usize;
                let to = ((at + 1) * PIECE).min(*size) as usize;
                bytes.slice(from..to)
            }
            Place::Disk { path, .. } => {
                let read = open(place, *size).and_then(|file| read_at(&file, at * PIECE, *size));
                let bytes = read.map_err(|error| {
                    let path = crate::text::printable(path.as_os_str().as_encoded_bytes());
                    match error.kind() {
                        io::ErrorKind::InvalidData => {
                            Fault::File(FilesCause::Changed, format!("{path}: {error}"))
                        }
                        _ => Fault::local(path, &error),
                    }
                })?;
                self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                bytes
            }
        };
        Ok(bytes)
    }

    /// The checksum of a file of a tree.
    pub(super) async fn sum(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        item: usize,
    ) -> Result<Sum, Fault> {
        let known = |sums: &Mutex<HashMap<usize, Sum>>| {
            let sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.get(&item).copied()
        };
        if let Some(sum) = known(&shared.sums) {
            return Ok(sum);
        }
        let mut hasher = Sha256::new();
        for at in 0.. {
            let piece = self.piece(shared, item, at).await?;
            hasher.update(&piece);
            if (piece.len() as u64) < PIECE {
                break;
            }
        }
        let sum = hasher.finalize().into();
        let mut sums = shared.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.insert(item, sum);
        Ok(sum)
    }
}

/// Opens a file and sees whether it is still the one that was found.
fn open(place: &Place, size: u64) -> io::Result<File> {
    let Place::Disk {
        path,
        id,
        changed,
        found,
    } = place
    else {
        return Err(io::Error::other("no file"));
    };
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, *found);
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let data = file.metadata()?;
    let same = (data.dev(), data.ino()) == *id && data.is_file();
    // One that only grew, as logs do, is copied as far as it went; its start is as it was.
    let grew = data.size() > size;
    let whole = data.size() == size && tree::changed(&data) == *changed;
    // Files of /proc have no size and change at every look.
    if same && (grew || whole || size == 0) {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "changed while it was read",
        ))
    }
}

/// Up to one piece, never beyond the size that the file had; one without a size is read to its end.
fn read_at(file: &File, from: u64, size: u64) -> io::Result<Bytes> {
    let most = if size == 0 {
        PIECE
    } else {
        size.saturating_sub(from).min(PIECE)
    };
    let mut bytes = vec![0; most as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if size > 0 && filled < bytes.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "shrank while it was read",
        ));
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
