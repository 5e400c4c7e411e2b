//! ssh_config(5), as much of it as everyday use needs.
//!
//! The files are read and checked once, every line of them, as ssh does it: a mistake is an error
//! with its place, also where it does not apply. For each host the lines that apply are walked in
//! order, and the first value of a keyword wins (readconf.c), except that every `IdentityFile`
//! counts. A keyword that is not supported and applies to the host is named in a warning, unless
//! ignoring it changes nothing for fanrun; one without which another machine would be reached, or
//! a revoked key be trusted, makes the host an error. Nothing is ever executed.
//!
//! Where this differs from ssh on purpose: `~` is `$HOME` where that is set, newer releases'
//! keywords are known whatever release is installed, names of algorithms are not judged, host
//! names are not canonicalized.

mod expand;
mod keywords;
mod pattern;
mod read;
mod split;
mod values;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use expand::canonical;
pub use expand::local_user;
use read::{Block, Owner, Reader};

/// Both files, parsed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    files: Vec<Vec<Block>>,
    home: PathBuf,
    local_user: String,
    wants_final: bool,
}

/// What is known of a host before ssh_config is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// The account, from the command line or an inventory: it stands above `User`.
    pub user: Option<&'a str>,
    /// The port, likewise.
    pub port: Option<u16>,
    /// The address, likewise.
    pub host_name: Option<&'a str>,
    /// The account where neither says anything; else it is the one that runs us.
    pub default_user: Option<&'a str>,
    /// The port where neither says anything; else it is 22.
    pub default_port: Option<u16>,
}

/// Why a file cannot be used, or a host cannot be reached as it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is there and cannot be read.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's word.
        reason: String,
    },
    /// Somebody else could have written it.
    #[error(
        "{0} must belong to you or to root, and nobody else may write to it; run: chmod go-w {0}"
    )]
    Permissions(String),
    /// A line that ssh would not accept either.
    #[error("{place}: {message}")]
    Wrong {
        /// `file:line`.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The host needs something that fanrun cannot do yet.
    #[error("{place}: `{keyword}` applies to {host} and is not supported yet; {why}")]
    Unsupported {
        /// `file:line`.
        place: String,
        /// The keyword as written.
        keyword: String,
        /// The host.
        host: String,
        /// What going on without it would mean.
        why: &'static str,
    },
}

/// `StrictHostKeyChecking`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrictHostKeyChecking {
    /// Unknown keys are refused.
    Yes,
    /// The person is asked.
    Ask,
    /// Unknown keys are recorded.
    AcceptNew,
    /// `no` or `off`.
    Off,
}

/// What applies to one host. `None`: no line says anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// `HostName`, tokens expanded; in lower case.
    pub hostname: Option<String>,
    /// `User`, and where it stands (`~/.ssh/config:3`).
    pub user: Option<(String, String)>,
    /// `Port`
    pub port: Option<u16>,
    /// Every `IdentityFile`, `~` and tokens expanded; `none` is left out, so that it alone makes
    /// an empty list.
    pub identity_files: Option<Vec<PathBuf>>,
    /// `IdentitiesOnly`
    pub identities_only: bool,
    /// `IdentityAgent`; `Some(None)` is `none`.
    pub identity_agent: Option<Option<PathBuf>>,
    /// `UserKnownHostsFile`
    pub user_known_hosts: Option<Vec<PathBuf>>,
    /// `GlobalKnownHostsFile`
    pub global_known_hosts: Option<Vec<PathBuf>>,
    /// `StrictHostKeyChecking`
    pub strict_host_key_checking: Option<StrictHostKeyChecking>,
    /// `ConnectTimeout`; 0, which is no limit, says nothing here.
    pub connect_timeout: Option<Duration>,
    /// `HostKeyAlias`, in lower case.
    pub host_key_alias: Option<String>,
    /// `HashKnownHosts`
    pub hash_known_hosts: bool,
    /// Keywords that apply and are ignored; one line each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the user's file and the system's. One that does not exist says nothing; one of the
    /// user's that somebody else can write to is refused.
    ///
    /// # Errors
    /// [`ConfigError`], all but `Unsupported`.
    pub fn load(user: &Path, system: &Path, home: &Path) -> Result<Self, ConfigError> {
        Self::read(
            &[(user, Owner::User, true), (system, Owner::System, false)],
            home,
        )
    }

    /// Reads this file alone, whoever owns it, as `ssh -F` does; what it includes is judged as
    /// [`Self::load`] does.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn open(file: &Path, home: &Path) -> Result<Self, ConfigError> {
        Self::read(&[(file, Owner::User, false)], home)
    }

    fn read(files: &[(&Path, Owner, bool)], home: &Path) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(home);
        let mut found = Vec::new();
        for &(path, owner, guarded) in files {
            reader.owner = owner;
            found.extend(reader.read(path, guarded, 0)?);
        }
        match reader.unknown.take() {
            // No host can excuse it.
            Some(error) if !reader.excuses.get() => Err(error),
            _ => Ok(Self {
                files: found,
                home: home.to_owned(),
                local_user: local_user().unwrap_or_default(),
                wants_final: reader.wants_final.get(),
            }),
        }
    }

    /// What applies to the host that the user calls `name`.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`], and [`ConfigError::Wrong`] for values that make no sense for
    /// this host: a token, a variable or an account that is not there.
    pub fn for_host(&self, name: &str, given: &Given<'_>) -> Result<HostConfig, ConfigError> {
        walk::Walk::new(self, name, given).run()
    }
}

#[cfg(test)]
mod tests;
