//! An in-process fleet of SSH servers on loopback, for trying fanrun out and for tests.
//!
//! Every member listens on an ephemeral port of 127.0.0.1 with its own host key, accepts exactly
//! one key, and runs commands with the user's shell in a private temporary home, the way sshd
//! does. Commands of all members are children of this one process, so `$PPID` cannot tell the
//! connections apart: whoever looks for the commands of one connection compares `SSH_CONNECTION`
//! in their environment, which is unique per connection. `FANRUN_SANDBOX` names the member.
//! A command that outlives its channel ends with its connection; a process that outlives its
//! command (`nohup`) ends with the fleet. SFTP starts in the same home, with the same rights.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use rustix::process::{Pid, Signal};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::target::{HostName, UserName};

mod backlog;
mod command;
mod server;
mod sftp;

/// Why no fleet could be started.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The private directory or a file in it could not be made.
    #[error("cannot prepare the sandbox's directory `{path}`: {source}")]
    Directory {
        /// What was being made.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// No loopback port could be had.
    #[error("cannot listen on 127.0.0.1: {0}")]
    Listen(io::Error),
    /// A key could not be made or written as text.
    #[error("cannot make the sandbox's keys: {0}")]
    Key(String),
    /// A member's name was refused; the text says why.
    #[error("sandbox member's name {0}")]
    Name(#[from] crate::target::BadName),
}

/// One server of a fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// `sandbox-1`, `sandbox-2`, ...
    pub name: HostName,
    /// The TCP port on 127.0.0.1.
    pub port: u16,
    /// The home (and working directory) of its commands.
    pub home: PathBuf,
}

/// Running servers. Dropping it, or [`Fleet::shutdown`], ends every process and removes every file.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    known_hosts: PathBuf,
    identity: PathBuf,
    ground: Arc<Ground>,
}

/// What all members share.
#[derive(Debug)]
struct Ground {
    directory: PathBuf,
    user: UserName,
    key: PublicKey,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Process groups whose leader has not been reaped. A lock, since `Drop` cannot wait for a
    /// message; it is held for a set operation only.
    groups: Mutex<HashSet<Pid>>,
}

impl Fleet {
    /// Starts `n` servers; they accept connections when this returns.
    ///
    /// # Errors
    /// [`SandboxError`] when directory, keys or ports are not to be had; nothing is left then.
    pub async fn start(n: usize) -> Result<Self, SandboxError> {
        let client = new_key()?;
        let ground = Arc::new(Ground {
            user: current_user()?,
            key: client.public_key().clone(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            groups: Mutex::default(),
            // Last: from here on `Drop` removes it, whatever fails.
            directory: private_directory()?,
        });
        let mut fleet = Self {
            members: Vec::with_capacity(n),
            known_hosts: ground.directory.join("known_hosts"),
            identity: ground.directory.join("id_ed25519"),
            ground,
        };
        let pem = client
            .to_openssh(russh::keys::ssh_key::LineEnding::LF)
            .map_err(|e| SandboxError::Key(e.to_string()))?;
        write_private(&fleet.identity, pem.as_bytes())?;
        let mut known = String::new();
        for number in 1..=n {
            fleet.add_member(number, &mut known).await?;
        }
        write_private(&fleet.known_hosts, known.as_bytes())?;
        Ok(fleet)
    }

    async fn add_member(&mut self, number: usize, known: &mut String) -> Result<(), SandboxError> {
        let name = HostName::new(&format!("sandbox-{number}"))?;
        let home = self.ground.directory.join(name.as_str());
        make_directory(&home)?;
        let key = new_key()?;
        let public = key
            .public_key()
            .to_openssh()
            .map_err(|e| SandboxError::Key(e.to_string()))?;
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(SandboxError::Listen)?;
        let port = listener.local_addr().map_err(SandboxError::Listen)?.port();
        known.push_str(&format!("[127.0.0.1]:{port},[{name}]:{port} {public}\n"));
        let member = Member { name, port, home };
        self.members.push(member.clone());
        let ground = Arc::clone(&self.ground);
        self.ground
            .tasks
            .spawn(server::listen(listener, key, member, ground));
        Ok(())
    }

    /// The servers, in the order of their numbers.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A known_hosts file with every member, by address and by name.
    #[must_use]
    pub fn known_hosts(&self) -> &Path {
        &self.known_hosts
    }

    /// The private key that every member accepts.
    #[must_use]
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// The only account that can log in: the one that runs this process.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.ground.user
    }

    /// Ends all connections and processes, waits for them, and removes the directory.
    pub async fn shutdown(self) {
        self.ground.stop.cancel();
        self.ground.kill_all();
        self.ground.tasks.close();
        // Every task ends by `stop`; the limit is for a process stuck in the kernel.
        let waited = tokio::time::timeout(Duration::from_secs(5), self.ground.tasks.wait()).await;
        if waited.is_err() {
            tracing::warn!("sandbox: a process did not end within 5 seconds");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.ground.stop.cancel();
        self.ground.tasks.close();
        self.ground.kill_all();
        if let Err(error) = fs::remove_dir_all(&self.ground.directory) {
            tracing::warn!(%error, "sandbox: its directory could not be removed");
        }
    }
}

impl Ground {
    /// Remembers a new group; kills it at once if the fleet is ending already.
    fn adopt(&self, leader: Pid) {
        self.groups().insert(leader);
        if self.stop.is_cancelled() {
            end_group(leader);
        }
    }

    fn release(&self, leader: Pid) {
        self.groups().remove(&leader);
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, HashSet<Pid>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill_all(&self) {
        for &leader in self.groups().iter() {
            end_group(leader);
        }
        // A killed parent may have forked just before: look again until nothing is found.
        for _ in 0..20 {
            let left = self.leftovers();
            if left.is_empty() {
                break;
            }
            for pid in left {
                // Gone meanwhile is as good.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Processes of ours that left their group or outlived its leader, found by the marker in
    /// their environment (Linux only: elsewhere there is no `/proc/PID/environ`).
    fn leftovers(&self) -> Vec<Pid> {
        let marker = format!("FANRUN_SANDBOX_ROOT={}", self.directory.display());
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.split(|&b| b == 0).any(|var| var == marker.as_bytes()))
        })
        .filter_map(Pid::from_raw)
        .collect()
    }
}

fn end_group(leader: Pid) {
    // Gone meanwhile is as good.
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
}

fn random<const N: usize>() -> Result<[u8; N], SandboxError> {
    let mut bytes = [0_u8; N];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags).map_err(|e| SandboxError::Key(e.to_string()))?;
    Ok(bytes)
}

fn new_key() -> Result<PrivateKey, SandboxError> {
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&random()?)))
}

fn current_user() -> Result<UserName, SandboxError> {
    let named = ["USER", "LOGNAME"]
        .iter()
        .find_map(|var| UserName::new(&std::env::var(var).ok()?).ok());
    match named {
        Some(user) => Ok(user),
        None => Ok(UserName::new("sandbox")?),
    }
}

fn private_directory() -> Result<PathBuf, SandboxError> {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute() && dir.is_dir())
        .unwrap_or_else(std::env::temp_dir);
    let suffix = u128::from_le_bytes(random()?);
    let path = base.join(format!("fanrun-sandbox-{suffix:032x}"));
    make_directory(&path)?;
    Ok(path)
}

fn make_directory(path: &Path) -> Result<(), SandboxError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| directory_error(path, source))
}

fn write_private(path: &Path, text: &[u8]) -> Result<(), SandboxError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text))
        .map_err(|source| directory_error(path, source))
}

fn directory_error(path: &Path, source: io::Error) -> SandboxError {
    SandboxError::Directory {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
