//! Mirroring: what the source does not have is removed from the directories that were copied, once
//! everything else is done and nothing has failed. What `exclude` fits stays.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::local::Folder;
use super::remote::kind;
use super::tree::{Tree, What, join};
use super::{Copying, Fault};
use crate::listing::Kind;
use crate::sftp::RemotePath;
use crate::sftp::walk;
use crate::text::printable;

/// Removes on the host what a local tree does not have. `path_of` gives the path on the host of
/// one below the base; `fresh` are directories that were made just now.
pub(super) async fn remote(
    copying: &Copying<'_>,
    tree: &Tree,
    path_of: impl Fn(&[u8]) -> RemotePath,
    fresh: &HashSet<Bytes>,
) -> Result<(), Fault> {
    if !may_delete(copying) {
        return Ok(());
    }
    let mut names: HashMap<&[u8], HashSet<&[u8]>> = HashMap::new();
    for item in &tree.items {
        let (above, name) = split(&item.path);
        names.entry(above).or_default().insert(name);
    }
    for root in &tree.mirrored {
        let inside = |path: &Bytes| {
            root.is_empty() || path == root || path.starts_with(&[root, &b"/"[..]].concat())
        };
        let dirs = tree.items.iter().filter(|i| matches!(i.what, What::Dir));
        let dirs = dirs.map(|item| &item.path).filter(|path| inside(path));
        let own = root.is_empty().then_some(root);
        for dir in own.into_iter().chain(dirs) {
            if fresh.contains(dir) {
                continue;
            }
            let path = path_of(dir);
            let found = copying.unless_stopped(walk::names(copying.client, &path));
            let found = found.await?.map_err(|error| Fault::remote(&path, error))?;
            let wanted = names.get(&dir[..]);
            for (name, attrs) in found {
                if wanted.is_some_and(|wanted| wanted.contains(&name[..])) {
                    continue;
                }
                let below = join(dir, &name);
                let from_root = below.slice((root.len() + usize::from(!root.is_empty()))..);
                let is_dir = kind(&attrs) == Kind::Dir;
                let path = path.join(&name);
                let removed = copying.unless_stopped(remove(copying, &path, from_root, is_dir));
                match removed.await? {
                    Ok(removed) => copying.count(|tally| tally.deleted += removed.count),
                    Err(fault) if copying.failed(fault.clone()) => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
    }
    Ok(())
}

/// A failed copy may be why something seems to be superfluous.
fn may_delete(copying: &Copying<'_>) -> bool {
    if copying.has_failed() {
        copying.note("nothing was deleted, because not everything was copied".to_owned());
        return false;
    }
    true
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

struct Removed {
    count: u64,
    /// Something in it stays, so that it cannot go itself.
    stays: bool,
}

/// Removes what stands at a path, but for what is excluded. `below` is its path below the source.
async fn remove(
    copying: &Copying<'_>,
    path: &RemotePath,
    below: Bytes,
    is_dir: bool,
) -> Result<Removed, Fault> {
    let fault = |error| Fault::remote(path, error);
    let name = split(&below).1;
    if copying.filter.excludes(name, &below) {
        let (count, stays) = (0, true);
        return Ok(Removed { count, stays });
    }
    let check = copying.how.check;
    let mut all = Removed {
        count: 1,
        stays: false,
    };
    if is_dir {
        let inside = walk::names(copying.client, path).await.map_err(fault)?;
        for (name, attrs) in inside {
            let (path, below) = (path.join(&name), join(&below, &name));
            let is_dir = kind(&attrs) == Kind::Dir;
            let removed = Box::pin(remove(copying, &path, below, is_dir)).await?;
            all.count += removed.count;
            all.stays |= removed.stays;
        }
    }
    if all.stays {
        all.count -= 1;
    } else if check {
        let slash = if is_dir { "/" } else { "" };
        copying.would(format!("delete  {path}{slash}"));
    } else if is_dir {
        copying.client.remove_dir(path).await.map_err(fault)?;
    } else {
        copying.client.remove(path).await.map_err(fault)?;
    }
    Ok(all)
}

/// Something here that the host does not have.
pub(super) struct Superfluous {
    pub(super) folder: Folder,
    pub(super) name: Vec<u8>,
    /// Its path below the source.
    pub(super) below: Bytes,
    /// As people are told of it.
    pub(super) shown: String,
}

/// Removes here what the host does not have.
pub(super) async fn local(copying: &Copying<'_>, found: Vec<Superfluous>) -> Result<(), Fault> {
    if found.is_empty() || !may_delete(copying) {
        return Ok(());
    }
    for old in found {
        if !copying.goes_on() {
            return Err(Fault::Stopped);
        }
        if copying.filter.excludes(&old.name, &old.below) {
            continue;
        }
        if copying.how.check {
            copying.would(format!("delete  {}", old.shown));
            copying.count(|tally| tally.deleted += 1);
            continue;
        }
        let (folder, name) = (old.folder, old.name);
        let removed = super::blocking(move || folder.remove_all(&name)).await;
        match removed {
            Ok(count) => copying.count(|tally| tally.deleted += count),
            Err(error) => {
                let shown = printable(old.shown.as_bytes()).into_owned();
                copying.failed(Fault::local(shown, &error));
            }
        }
    }
    Ok(())
}
