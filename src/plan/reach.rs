//! How a host is reached: inventory, then ssh_config, then the play's settings, then what OpenSSH
//! would do; the command line stands above all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::inventory::{Connection, Settings};
use crate::playbook::Settings as PlaySettings;
use crate::secret::Secret;
use crate::session::ssh::config::{Config, Given, HostConfig, StrictHostKeyChecking};
use crate::target::{Dial, HostKeyPolicy, HostName, Identity, UserName, Way};

/// The limit for connecting where nothing else is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The key files that OpenSSH offers by default, in its order (ssh_config(5), `IdentityFile`),
/// less DSA.
const DEFAULT_KEYS: [&str; 5] = [
    "id_rsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
];

/// What the command line says about reaching hosts, and what the surroundings are.
#[derive(Debug, Clone)]
pub struct Reaching {
    /// `--user`
    pub user: Option<UserName>,
    /// `--port`
    pub port: Option<u16>,
    /// `--identity`
    pub identities: Vec<PathBuf>,
    /// `--known-hosts`
    pub known_hosts: Vec<PathBuf>,
    /// `--host-key`
    pub policy: Option<HostKeyPolicy>,
    /// `--connect-timeout`
    pub connect_timeout: Option<Duration>,
    /// A password from a prompt or a descriptor.
    pub password: Option<Secret>,
    /// ssh_config.
    pub config: Arc<Config>,
    /// What holds where nobody says anything.
    pub defaults: Defaults,
}

/// The surroundings.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The home directory.
    pub home: PathBuf,
    /// The account that runs fanrun.
    pub user: UserName,
    /// `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// Somebody can be asked.
    pub terminal: bool,
}

/// A way, and what is worth saying about it.
pub(super) struct Reached {
    pub(super) way: Way,
    pub(super) warnings: Vec<String>,
}

impl Reaching {
    /// How `name` is reached. `Err` is one line that says why it cannot be.
    pub(super) fn reach(
        &self,
        name: &HostName,
        entry: &Settings,
        play: &PlaySettings,
    ) -> Result<Reached, String> {
        if entry
            .connection
            .as_ref()
            .is_some_and(|set| set.value == Connection::Local)
        {
            return Ok(Reached {
                way: Way::Local,
                warnings: Vec::new(),
            });
        }
        let known = entry.user.as_ref().map(|set| set.value.as_str());
        let set = entry.address.as_ref().map(|set| set.value.clone());
        let given = Given {
            user: self.user.as_ref().map(UserName::as_str).or(known),
            port: self.port.or(entry.port.as_ref().map(|set| set.value)),
            host_name: set.as_deref(),
            default_user: play.user.as_ref().map(|set| set.value.as_str()),
            default_port: play.port,
        };
        let config = self
            .config
            .for_host(name.as_str(), &given)
            .map_err(|error| error.to_string())?;
        let (user, user_origin) = self.user(entry, &config, play)?;
        let address = set
            .clone()
            .or_else(|| config.hostname.clone())
            .unwrap_or_else(|| name.to_string());
        let mut warnings = config.warnings.clone();
        let policy = self.policy(&config, &mut warnings);
        let (identities, identities_only) = self.identities(entry, &config, play);
        let dial = Dial {
            known_as: config
                .host_key_alias
                .clone()
                .unwrap_or_else(|| address.clone()),
            port: config.port.or(play.port).unwrap_or(22),
            address,
            user,
            identities,
            identities_only,
            agent: self.agent(&config),
            password: self.password.clone(),
            known_hosts: self.known_hosts(&config),
            hash_known_hosts: config.hash_known_hosts,
            global_known_hosts: self.global_known_hosts(&config),
            host_key_policy: policy,
            connect_timeout: self
                .connect_timeout
                .or(config.connect_timeout)
                .or(play.connect_timeout)
                .unwrap_or(CONNECT_TIMEOUT),
            user_origin,
        };
        Ok(Reached {
            way: Way::Ssh(Box::new(dial)),
            warnings,
        })
    }

    fn user(
        &self,
        entry: &Settings,
        config: &HostConfig,
        play: &PlaySettings,
    ) -> Result<(UserName, String), String> {
        if let Some(user) = &self.user {
            return Ok((user.clone(), "the command line".into()));
        }
        if let Some(set) = &entry.user {
            return Ok((set.value.clone(), set.origin.clone()));
        }
        let checked = |name: &str, origin: String| match UserName::new(name) {
            Ok(user) => Ok((user, origin)),
            Err(bad) => Err(format!("the user name `{name}` from {origin} {bad}")),
        };
        if let Some((name, origin)) = &config.user {
            return checked(name, origin.clone());
        }
        if let Some(user) = &play.user {
            return checked(&user.value, user.at.place());
        }
        Ok((
            self.defaults.user.clone(),
            "the account that runs fanrun".into(),
        ))
    }

    fn policy(&self, config: &HostConfig, warnings: &mut Vec<String>) -> HostKeyPolicy {
        let ask = if self.defaults.terminal {
            HostKeyPolicy::Ask
        } else {
            HostKeyPolicy::Strict
        };
        if let Some(policy) = self.policy {
            // Nobody can be asked without a terminal; refusing is the honest reading.
            return if policy == HostKeyPolicy::Ask {
                ask
            } else {
                policy
            };
        }
        match config.strict_host_key_checking {
            None | Some(StrictHostKeyChecking::Ask) => ask,
            Some(StrictHostKeyChecking::Yes) => HostKeyPolicy::Strict,
            Some(StrictHostKeyChecking::AcceptNew) => HostKeyPolicy::AcceptNew,
            Some(StrictHostKeyChecking::Off) => {
                warnings.push(
                    "`StrictHostKeyChecking no` is read as `accept-new`: a changed key is refused"
                        .into(),
                );
                HostKeyPolicy::AcceptNew
            }
        }
    }

    fn identities(
        &self,
        entry: &Settings,
        config: &HostConfig,
        play: &PlaySettings,
    ) -> (Vec<Identity>, bool) {
        let explicit = |path: PathBuf| Identity {
            path,
            explicit: true,
        };
        let mut found: Vec<Identity> = self.identities.iter().cloned().map(explicit).collect();
        let texts = match &entry.identity {
            Some(set) => set.value.clone(),
            None => Vec::new(),
        };
        found.extend(texts.iter().map(|text| explicit(self.expand(text))));
        let configured = config.identity_files.iter().flatten();
        found.extend(configured.cloned().map(explicit));
        found.extend(play.identity.iter().map(|text| explicit(self.expand(text))));
        // `IdentityFile none` means none, the default ones included.
        if found.is_empty() && config.identity_files.is_none() {
            let files = DEFAULT_KEYS.map(|name| self.defaults.home.join(".ssh").join(name));
            let there = files.into_iter().filter(|path| path.is_file());
            found.extend(there.map(|path| Identity {
                path,
                explicit: false,
            }));
        }
        (found, config.identities_only)
    }

    fn agent(&self, config: &HostConfig) -> Option<PathBuf> {
        match &config.identity_agent {
            Some(agent) => agent.clone(),
            None => self.defaults.agent.clone(),
        }
    }

    fn known_hosts(&self, config: &HostConfig) -> Vec<PathBuf> {
        if !self.known_hosts.is_empty() {
            return self.known_hosts.clone();
        }
        config.user_known_hosts.clone().unwrap_or_else(|| {
            let folder = self.defaults.home.join(".ssh");
            vec![folder.join("known_hosts"), folder.join("known_hosts2")]
        })
    }

    fn global_known_hosts(&self, config: &HostConfig) -> Vec<PathBuf> {
        if !self.known_hosts.is_empty() {
            return Vec::new();
        }
        let system = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];
        config
            .global_known_hosts
            .clone()
            .unwrap_or_else(|| system.map(PathBuf::from).to_vec())
    }

    /// `~/x` below the home directory; all else as it is.
    fn expand(&self, text: &str) -> PathBuf {
        match text.strip_prefix("~/") {
            Some(rest) => self.defaults.home.join(rest),
            None => Path::new(text).to_owned(),
        }
    }
}
