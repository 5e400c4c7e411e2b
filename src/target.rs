//! Who a job is for: a host's name, and everything that is needed to reach it.
//!
//! Names come from files and command lines that other people wrote, and they end up in messages,
//! file names and the lookups of other programs. So a name is checked once, here, when it is made;
//! a `HostName` or `UserName` that exists is harmless everywhere.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::secret::Secret;

/// Plain variables: names and JSON-like values, in the order they were written.
pub type Vars = serde_json::Map<String, serde_json::Value>;

/// Words of the expression language (minijinja's parser and its functions, and what fanrun gives a
/// value), which cannot be names of variables.
pub const RESERVED: [&str; 22] = [
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "not",
    "and",
    "or",
    "in",
    "is",
    "if",
    "else",
    "range",
    "dict",
    "namespace",
    "debug",
    // What fanrun itself gives a value.
    "host",
    "item",
    "loop",
    "result",
    "row",
];

/// Whether a template can name it: letters, digits and `_`, not beginning with a digit.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks the name of a variable.
///
/// # Errors
/// What a name must be, for the help below a diagnostic, with a name that would do.
pub fn check_variable(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) {
        return Err("the word has a meaning in expressions".into());
    }
    if is_identifier(name) {
        return Ok(());
    }
    let rule = "letters, digits and `_`, not beginning with a digit";
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut near: String = name.chars().map(allowed).collect();
    if near.starts_with(|c: char| c.is_ascii_digit()) {
        near.insert(0, '_');
    }
    let legible = name.is_ascii() && near.len() <= 64 && near.contains(char::is_alphanumeric);
    Err(if legible {
        format!("{rule}: `{near}`")
    } else {
        rule.into()
    })
}

/// A host as the inventory calls it. Never empty, never an option, never shell text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// A remote account. The same promise as [`HostName`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// Why a name was refused. The text is a fragment that follows the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing was written.
    #[error("is empty")]
    Empty,
    /// It would be read as an option by `ssh` and many other programs.
    #[error("begins with `-`, so that other programs would read it as an option")]
    Option,
    /// A character that has no place in a name.
    #[error("contains {0}, which a name cannot have")]
    Character(String),
    /// Longer than a DNS name can be.
    #[error("is {0} characters long; at most 255 are possible")]
    TooLong(usize),
}

impl HostName {
    /// Accepts DNS names, IPv4 and IPv6 addresses (with a zone), and aliases made of the same
    /// characters. International names are written in their `xn--` form.
    ///
    /// # Errors
    /// [`BadName`] for anything that could be an option, shell text or a control sequence.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        // A zone (`fe80::1%eth0`) is the only place for a percent sign: elsewhere it is a token
        // of ssh_config (`%h`) that would be expanded a second time.
        let plain = match name.split_once('%') {
            Some((address, zone)) if address.contains(':') && !zone.is_empty() => {
                format!("{address}{zone}")
            }
            _ => name.to_owned(),
        };
        check_name(name, &plain, allowed)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UserName {
    /// Accepts what OpenSSH's `valid_ruser` (ssh.c) accepts, less white space.
    ///
    /// # Errors
    /// [`BadName`] for anything that could be an option or shell text.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let refused =
            |c: char| c.is_control() || c.is_whitespace() || "'`\";&<>|(){}$*?[]!#~%".contains(c);
        check_name(name, name, |c| !refused(c))?;
        if name.ends_with('\\') {
            return Err(BadName::Character("`\\` at its end".into()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(name: &str, checked: &str, allowed: impl Fn(char) -> bool) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.starts_with('-') {
        return Err(BadName::Option);
    }
    let length = name.chars().count();
    if length > 255 {
        return Err(BadName::TooLong(length));
    }
    match checked.chars().find(|&c| !allowed(c)) {
        None => Ok(()),
        Some(c) if c.is_control() || c.is_whitespace() || !c.is_ascii() => {
            Err(BadName::Character(format!("U+{:04X}", u32::from(c))))
        }
        Some(c) => Err(BadName::Character(format!("`{c}`"))),
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One host of a plan.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the inventory calls it.
    pub name: HostName,
    /// The groups it is in, its own first.
    pub groups: Vec<String>,
    /// Its variables, groups already merged in.
    pub vars: Vars,
}

/// Where a target's commands run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Child processes of this process.
    Local,
    /// Over SSH.
    Ssh(Box<Dial>),
}

/// Everything that is needed to open one SSH connection. All values are final: inventory,
/// ssh_config and defaults have been merged, `~` and tokens expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// What is resolved and connected to: a name or an address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Account on the remote side.
    pub user: UserName,
    /// The name under which known_hosts is asked (before `[name]:port` is made of it). It is what
    /// the user typed or `HostName` said, not the address that DNS gave. Another name than
    /// `address` is an alias, and no port is added to it.
    pub known_as: String,
    /// Key files to offer, in order, each tried before agent keys only if `explicit`.
    pub identities: Vec<Identity>,
    /// Offer only `identities`, even if the agent holds more (`IdentitiesOnly`).
    pub identities_only: bool,
    /// The agent's socket; `None` means no agent is asked.
    pub agent: Option<PathBuf>,
    /// A password, where one was given (prompt or file descriptor, never the command line).
    pub password: Option<Secret>,
    /// The user's known_hosts files, in order; the first is where new keys are recorded.
    pub known_hosts: Vec<PathBuf>,
    /// New names are recorded hashed (`HashKnownHosts`).
    pub hash_known_hosts: bool,
    /// System-wide known_hosts files: read, never written.
    pub global_known_hosts: Vec<PathBuf>,
    /// What happens with a host whose key is not known.
    pub host_key_policy: HostKeyPolicy,
    /// Deadline over DNS, TCP, banner, key exchange and authentication together.
    pub connect_timeout: Duration,
    /// Where the user name came from, for the message when authentication is refused.
    pub user_origin: String,
}

/// A private key file to offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The private key file.
    pub path: PathBuf,
    /// Named by the user (a missing file is worth a word) or one of the default names.
    pub explicit: bool,
}

/// What is done with a key that known_hosts does not know. A *changed* or *revoked* key is refused
/// under every policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Refuse. The default without a terminal.
    Strict,
    /// Ask on the terminal, and record if the answer is yes.
    Ask,
    /// Record and go on.
    AcceptNew,
}
