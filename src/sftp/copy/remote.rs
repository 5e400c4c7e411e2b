//! What copying does on the host besides moving bytes.

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::stream::Reading;
use super::{Copying, Fault, SumAsk, names};
use crate::listing::Kind;
use crate::outcome::FilesCause;
use crate::sftp::walk::close_quietly;
use crate::sftp::{Attrs, Client, Code, Error, LinkOrder, OpenFlags, RemotePath};
use crate::transfer::Verified;

/// A checksum of a file's bytes.
pub(super) type Sum = [u8; 32];

/// The kind of what stands somewhere, as far as the server tells.
pub(super) fn kind(attrs: &Attrs) -> Kind {
    attrs.mode.map_or(Kind::Unknown, Kind::of_mode)
}

/// Makes a directory and those above it; whether it was missing.
pub(super) async fn make_dirs(client: &Client, path: &RemotePath) -> Result<bool, Fault> {
    let mut missing = Vec::new();
    let mut at = path.clone();
    // From below upward until something is there, and then down again.
    loop {
        match client.stat(&at).await {
            Ok(attrs) if kind(&attrs) == Kind::Dir => break,
            Ok(_) => return Err(not_a_directory(&at)),
            Err(error) if error.code() == Some(Code::NoSuchFile) => {
                let parent = at.parent();
                if parent == at {
                    return Err(Fault::remote(&at, error));
                }
                missing.push(std::mem::replace(&mut at, parent));
            }
            Err(error) => return Err(Fault::remote(&at, error)),
        }
    }
    let made = !missing.is_empty();
    for path in missing.iter().rev() {
        make_dir(client, path, 0o777).await?;
    }
    Ok(made)
}

/// Makes a directory whose parent is there; whether it was missing.
pub(super) async fn make_dir(client: &Client, path: &RemotePath, mode: u32) -> Result<bool, Fault> {
    let Err(error) = client.make_dir(path, Some(mode)).await else {
        return Ok(true);
    };
    if error.is_final() {
        return Err(Fault::Client(error));
    }
    // Version 3 has no code for "it exists": servers say Failure, or something of their own.
    match client.stat(path).await {
        Ok(attrs) if kind(&attrs) == Kind::Dir => Ok(false),
        Ok(_) => Err(not_a_directory(path)),
        Err(_) => Err(Fault::remote(path, error)),
    }
}

fn not_a_directory(path: &RemotePath) -> Fault {
    let reason = format!("{path}: is no directory");
    Fault::File(FilesCause::Remote, reason)
}

impl Copying<'_> {
    /// How this server reads SYMLINK: tried once, with two names that are nobody's.
    pub(super) async fn link_order(&self, dir: &RemotePath) -> Result<LinkOrder, Fault> {
        let order = self.link_order.get_or_try_init(|| self.try_link(dir));
        order.await.copied()
    }

    async fn try_link(&self, dir: &RemotePath) -> Result<LinkOrder, Fault> {
        let name = |end: &[u8]| dir.join(&names::temporary(end, &self.mark));
        let (link, target) = (name(b"link"), name(b"target"));
        let made = self
            .client
            .symlink(LinkOrder::TargetFirst, target.as_bytes(), &link);
        made.await.map_err(|error| Fault::remote(dir, error))?;
        for (order, made) in [
            (LinkOrder::TargetFirst, &link),
            (LinkOrder::LinkFirst, &target),
        ] {
            match self.client.remove(made).await {
                Ok(()) => return Ok(order),
                Err(error) if error.is_final() => return Err(Fault::Client(error)),
                Err(_) => {}
            }
        }
        let reason = format!("{dir}: the server made a symbolic link that is not there");
        Err(Fault::File(FilesCause::Protocol, reason))
    }

    /// Gives a complete file its name, in place of what had it.
    pub(super) async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), Fault> {
        let fault = |error| Fault::remote(to, error);
        if self.how.backup {
            self.keep_old(to).await?;
        }
        let error = match self.client.posix_rename(from, to).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, Error::Unsupported(_)) {
            return self.rename_in_two_steps(from, to).await;
        }
        if error.is_final() {
            return Err(Fault::Client(error));
        }
        match self.client.lstat(to).await {
            Ok(attrs) if kind(&attrs) == Kind::Dir => {
                let reason = format!("{to}: a directory is in its place");
                Err(Fault::File(FilesCause::Remote, reason))
            }
            Ok(_) | Err(_) => Err(fault(error)),
        }
    }

    /// For servers that only know the rename of version 3, which replaces nothing.
    async fn rename_in_two_steps(&self, from: &RemotePath, to: &RemotePath) -> Result<(), Fault> {
        let Err(first) = self.client.rename(from, to).await else {
            return Ok(());
        };
        if first.is_final() {
            return Err(Fault::Client(first));
        }
        if self.client.remove(to).await.is_err() {
            return Err(Fault::remote(to, first));
        }
        self.note(
            "the server cannot replace a file in one step: for a moment the name was missing"
                .to_owned(),
        );
        let renamed = self.client.rename(from, to).await;
        renamed.map_err(|error| Fault::remote(to, error))
    }

    /// What is about to be replaced stays under its name with `~`.
    async fn keep_old(&self, path: &RemotePath) -> Result<(), Fault> {
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        match self.client.lstat(path).await {
            Ok(attrs) if kind(&attrs) == Kind::Dir => return Ok(()),
            Ok(_) => {}
            Err(error) if error.code() == Some(Code::NoSuchFile) => return Ok(()),
            Err(error) => return Err(Fault::remote(path, error)),
        }
        let kept = path.parent().join(&names::backup(name));
        match self.client.remove(&kept).await {
            Err(error) if error.is_final() => return Err(Fault::Client(error)),
            Ok(()) | Err(_) => {}
        }
        let linked = self.client.hard_link(path, &kept).await;
        let kept_by = match linked {
            Err(error) if error.is_final() => return Err(Fault::Client(error)),
            Err(_) => match self.copy_there(path, &kept).await {
                Err(error) if error.is_final() => Err(error),
                // Neither links nor copies there: the name is missing until the new file has it.
                Err(_) => self.client.rename(path, &kept).await,
                Ok(()) => Ok(()),
            },
            Ok(()) => Ok(()),
        };
        kept_by.map_err(|error| Fault::remote(&kept, error))
    }

    /// Copies a file within the host (`copy-data`); not a byte of it comes here.
    async fn copy_there(&self, from: &RemotePath, to: &RemotePath) -> Result<(), Error> {
        let client = self.client;
        if !client.offers("copy-data") {
            return Err(Error::Unsupported("copy-data"));
        }
        let source = client.open(from, OpenFlags::READ, None).await?;
        let mode = client.fstat(&source).await?.mode.map(|mode| mode & 0o777);
        let copied = match client.open(to, OpenFlags::CREATE, mode).await {
            Ok(dest) => {
                let copied = client.copy_data((&source, 0), 0, (&dest, 0)).await;
                copied.and(client.close(dest).await)
            }
            Err(error) => Err(error),
        };
        let closed = close_quietly(client, source).await;
        copied.and(closed)
    }

    /// Whether a file on the host has this checksum. A tool of the host is asked where there is one;
    /// where it disagrees the file is read back, because a tool may see another tree than SFTP does
    /// (a chroot) and only the bytes themselves are proof.
    pub(super) async fn has_sum(&self, path: &RemotePath, ours: Sum) -> Result<bool, Fault> {
        if self.tool_sum(path).await? == Some(ours) {
            self.verified_by(Verified::Tool);
            return Ok(true);
        }
        self.verified_by(Verified::ReadBack);
        Ok(self.remote_sum(path).await? == ours)
    }

    async fn tool_sum(&self, path: &RemotePath) -> Result<Option<Sum>, Fault> {
        let Some(tool) = self.tool.as_ref().filter(|_| self.has_tool()) else {
            return Ok(None);
        };
        let (answer, sum) = oneshot::channel();
        let ask = SumAsk {
            path: path.clone(),
            answer,
        };
        let asked = async {
            tool.send(ask).await.ok()?;
            sum.await.ok()?
        };
        let sum = self.unless_stopped(asked).await?;
        if sum.is_none() {
            // One that is not there will not be there for the next file either.
            self.sums(|sums| sums.no_tool = true);
        }
        Ok(sum)
    }

    fn has_tool(&self) -> bool {
        self.sums(|sums| !sums.no_tool)
    }

    /// Reading back is what is told where both were done.
    fn verified_by(&self, how: Verified) {
        self.count(|tally| tally.verified = tally.verified.max(Some(how)));
    }

    /// The checksum of a file on the host, by reading it.
    pub(super) async fn remote_sum(&self, path: &RemotePath) -> Result<Sum, Fault> {
        let opened = self.client.open(path, OpenFlags::READ, None).await;
        let handle = opened.map_err(|error| Fault::remote(path, error))?;
        let mut hasher = Sha256::new();
        let mut reading = Reading::new(self, &handle, path, 0, None);
        let read = async {
            let attrs = self.client.fstat(&handle).await;
            let attrs = attrs.map_err(|error| Fault::remote(path, error))?;
            if let Some(size @ 1..) = attrs.size {
                reading.expect(size);
            }
            while let Some(piece) = reading.next().await? {
                hasher.update(&piece);
            }
            Ok(())
        };
        let read = read.await;
        let closed = close_quietly(self.client, handle.clone()).await;
        read?;
        closed.map_err(Fault::Client)?;
        Ok(hasher.finalize().into())
    }

    /// The kind of trouble behind a failure that has no code: a full disk, if it is one.
    pub(super) async fn explain(&self, fault: Fault, near: &RemotePath) -> Fault {
        let Fault::File(FilesCause::Remote, reason) = fault else {
            return fault;
        };
        let space = self.client.space(&near.parent()).await;
        match space {
            Ok(space) if space.available == 0 || space.files == 0 => {
                let reason = format!("{reason}: the disk of the host is full");
                Fault::File(FilesCause::RemoteSpace, reason)
            }
            Ok(_) | Err(_) => Fault::File(FilesCause::Remote, reason),
        }
    }
}
