//! `~`, `%` and `${...}` in values, where ssh expands them (misc.c: `tilde_expand`,
//! `vdollar_percent_expand`), and who we are on this machine.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User, gethostname};
use sha1::{Digest, Sha1};

/// The name of the account that runs us: by its number in the account database, as ssh has it,
/// not by what the environment says; the environment only where there is no such entry.
#[must_use]
pub fn local_user() -> Option<String> {
    let entry = User::from_uid(Uid::current()).ok().flatten();
    entry
        .map(|user| user.name)
        .or_else(|| std::env::var("USER").ok())
}

/// What the tokens of file names stand for.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    /// `%h`
    pub(super) host: &'a str,
    /// `%n`
    pub(super) name: &'a str,
    /// `%k`
    pub(super) key_alias: &'a str,
    /// `%p`
    pub(super) port: u16,
    /// `%r`
    pub(super) user: &'a str,
    /// `%u`
    pub(super) local_user: &'a str,
    /// `%d`, and `~`
    pub(super) home: &'a Path,
}

impl Tokens<'_> {
    /// A file name.
    ///
    /// # Errors
    /// In words: no such account, token or variable.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, String> {
        let text = tilde(text, self.home)?;
        self.expand(&text).map(PathBuf::from)
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            rest = match from.strip_prefix("${") {
                Some(behind) => {
                    let (value, behind) = variable(behind)?;
                    out.push_str(&value);
                    behind
                }
                None if from.starts_with('$') => {
                    out.push('$');
                    &from[1..]
                }
                None => {
                    let mut behind = from[1..].chars();
                    out.push_str(&self.token(behind.next())?);
                    behind.as_str()
                }
            };
        }
        out.push_str(rest);
        Ok(out)
    }

    fn token(&self, token: Option<char>) -> Result<String, String> {
        let token = token.ok_or("a `%` at the end; write `%%`")?;
        Ok(match token {
            '%' => "%".to_owned(),
            'C' => self.connection(),
            'L' => machine().split('.').next().unwrap_or_default().to_owned(),
            'd' => self.home.to_string_lossy().into_owned(),
            'h' => self.host.to_owned(),
            'i' => Uid::current().to_string(),
            // The jump host, of which there is none.
            'j' => String::new(),
            'k' => self.key_alias.to_owned(),
            'l' => machine(),
            'n' => self.name.to_owned(),
            'p' => self.port.to_string(),
            'r' => self.user.to_owned(),
            'u' => self.local_user.to_owned(),
            other => return Err(format!("`%{other}` is no token")),
        })
    }

    /// `%C`: SHA-1 of `%l%h%p%r%j`.
    fn connection(&self) -> String {
        let text = [&machine(), self.host, &self.port.to_string(), self.user].concat();
        let digest = Sha1::digest(text.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn machine() -> String {
    let name = gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// `HostName`: `%h` is the name that the user typed.
///
/// # Errors
/// In words: no such token.
pub(super) fn host_name(text: &str, typed: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('h') => out.push_str(typed),
            Some(other) => return Err(format!("`%{other}` is no token of a host name")),
            None => return Err("a `%` at the end; write `%%`".to_owned()),
        }
    }
    Ok(out)
}

/// A host as ssh goes on with it: names in lower case, addresses in their one spelling.
pub(in crate::session::ssh) fn canonical(host: &str) -> String {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        // Taken for an address with a zone (`is_addr_fast`, ssh.c).
        Err(_) if host.contains('%') => host.to_owned(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

/// Whether every `${VARIABLE}` has a value.
pub(super) fn variables(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("${") {
        rest = variable(behind)?.1;
    }
    Ok(())
}

/// The value of what stands before the next `}`, and what follows.
fn variable(text: &str) -> Result<(String, &str), String> {
    let (name, rest) = text
        .split_once('}')
        .ok_or_else(|| format!("`${{{text}` is not closed"))?;
    match std::env::var(name) {
        Ok(value) => Ok((value, rest)),
        Err(_) => Err(format!("the variable `{name}` is not set")),
    }
}

/// `~/file` and `~account/file`.
///
/// # Errors
/// In words: no such account.
pub(super) fn tilde(text: &str, home: &Path) -> Result<String, String> {
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(text.to_owned());
    };
    let (account, below) = rest.split_once('/').unwrap_or((rest, ""));
    let folder = match account {
        "" => home.to_owned(),
        name => {
            let entry = User::from_name(name).ok().flatten();
            entry
                .ok_or_else(|| format!("there is no account `{name}`"))?
                .dir
        }
    };
    let folder = folder.to_string_lossy();
    let below = below.trim_start_matches('/');
    Ok(format!("{}/{below}", folder.trim_end_matches('/')))
}
