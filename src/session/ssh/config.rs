//! ssh_config(5), as much of it as everyday use needs.
//!
//! The files are read once. For each host the lines that apply are walked in order, and the first
//! value of a keyword wins (readconf.c), except that every `IdentityFile` counts. A keyword that
//! is not supported and applies to the host is named in a warning, unless ignoring it changes
//! nothing for fanrun; `ProxyJump` and `ProxyCommand` make the host an error, because dialling it
//! directly would reach another machine or none. Nothing is ever executed.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file that is read, in bytes.
const LIMIT: u64 = 4 << 20;
/// How deep `Include` may go (READCONF_MAX_DEPTH).
const DEPTH: usize = 16;

/// Keywords whose values change nothing here: they concern interactive use, forwarding that was
/// not asked for, connection sharing, or ways to authenticate that are not offered.
const HARMLESS: [&str; 33] = [
    "addkeystoagent",
    "batchmode",
    "checkhostip",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forwardagent",
    "forwardx11",
    "forwardx11trusted",
    "gssapiauthentication",
    "gssapidelegatecredentials",
    "hostbasedauthentication",
    "ignoreunknown",
    "ipqos",
    "loglevel",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "permitlocalcommand",
    "requesttty",
    "sendenv",
    "serveralivecountmax",
    "serveraliveinterval",
    "tcpkeepalive",
    "updatehostkeys",
    "visualhostkey",
    "xauthlocation",
];

/// Both files, parsed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    files: Vec<Vec<Block>>,
    home: PathBuf,
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
    /// A line that ssh would not accept either.
    #[error("{place}: {message}")]
    Wrong {
        /// `file:line`.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// The host needs something that fanrun cannot do yet.
    #[error(
        "{place}: `{keyword}` applies to {host} and is not supported yet; connecting directly would reach the wrong machine"
    )]
    Unsupported {
        /// `file:line`.
        place: String,
        /// The keyword as written.
        keyword: String,
        /// The host.
        host: String,
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
    /// `HostName`, tokens expanded.
    pub hostname: Option<String>,
    /// `User`, and where it stands (`~/.ssh/config:3`).
    pub user: Option<(String, String)>,
    /// `Port`
    pub port: Option<u16>,
    /// Every `IdentityFile`, `~` and tokens expanded; `none` is left out.
    pub identity_files: Vec<PathBuf>,
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
    /// `ConnectTimeout`
    pub connect_timeout: Option<Duration>,
    /// `HostKeyAlias`
    pub host_key_alias: Option<String>,
    /// `HashKnownHosts`
    pub hash_known_hosts: bool,
    /// Keywords that apply and are ignored; one line each.
    pub warnings: Vec<String>,
}

/// Lines that apply together.
#[derive(Debug, Clone)]
struct Block {
    applies: Applies,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
enum Applies {
    Always,
    Host(Vec<String>),
    Match(Vec<(String, String)>),
    /// A `Match` that asks for what is never done here.
    Never {
        place: String,
        what: String,
    },
}

#[derive(Debug, Clone)]
enum Line {
    Set {
        keyword: String,
        args: Vec<String>,
        place: String,
    },
    Include(Vec<Vec<Block>>),
}

impl Config {
    /// Reads the user's file and the system's. One that does not exist says nothing.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Wrong`].
    pub fn load(
        user: Option<&Path>,
        system: Option<&Path>,
        home: &Path,
    ) -> Result<Self, ConfigError> {
        let mut files = Vec::new();
        let folders = [home.join(".ssh"), PathBuf::from("/etc/ssh")];
        for (path, folder) in [user, system].into_iter().zip(&folders) {
            let Some(path) = path else { continue };
            let reader = Reader { home, folder };
            if let Some(blocks) = reader.read(path, 0)? {
                files.push(blocks);
            }
        }
        Ok(Self {
            files,
            home: home.to_owned(),
        })
    }

    /// What applies to the host that the user calls `name`. `user` is the account if it is known
    /// already, from the command line or an inventory.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`], and [`ConfigError::Wrong`] for values that make no sense.
    pub fn for_host(&self, name: &str, user: Option<&str>) -> Result<HostConfig, ConfigError> {
        let mut walk = Walk {
            name,
            given_user: user,
            home: &self.home,
            found: HostConfig::default(),
            identities: Vec::new(),
            seen: HashMap::new(),
        };
        for blocks in &self.files {
            walk.blocks(blocks)?;
        }
        Ok(walk.finish())
    }
}

struct Reader<'a> {
    home: &'a Path,
    /// Where relative `Include`s are looked for.
    folder: &'a Path,
}

impl Reader<'_> {
    fn read(&self, path: &Path, depth: usize) -> Result<Option<Vec<Block>>, ConfigError> {
        let shown = self.shown(path);
        let unreadable = |error: std::io::Error| ConfigError::Unreadable {
            path: shown.clone(),
            reason: super::problem::plain(&error),
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut bytes = Vec::new();
        file.take(LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(&unreadable)?;
        if bytes.len() as u64 > LIMIT {
            let reason = format!("it is larger than {} MiB", LIMIT >> 20);
            return Err(unreadable(std::io::Error::other(reason)));
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut blocks = vec![Block {
            applies: Applies::Always,
            lines: Vec::new(),
        }];
        for (number, line) in (1..).zip(text.lines()) {
            self.line(line, &format!("{shown}:{number}"), depth, &mut blocks)?;
        }
        Ok(Some(blocks))
    }

    /// `~/...` where that is what it is.
    fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(self.home) {
            Ok(rest) => format!("~/{}", rest.display()),
            Err(_) => path.display().to_string(),
        }
    }

    fn line(
        &self,
        line: &str,
        place: &str,
        depth: usize,
        blocks: &mut Vec<Block>,
    ) -> Result<(), ConfigError> {
        let wrong = |message: String| ConfigError::Wrong {
            place: place.to_owned(),
            message,
        };
        let Some((keyword, args)) = split(line).map_err(|message| wrong(message.to_owned()))?
        else {
            return Ok(());
        };
        if args.is_empty() {
            return Err(wrong(format!("`{keyword}` has no value")));
        }
        let next = match keyword.to_ascii_lowercase().as_str() {
            "host" => Applies::Host(args),
            "match" => conditions(args, place).map_err(wrong)?,
            "include" => {
                let included = self.include(&args, place, depth)?;
                if let Some(block) = blocks.last_mut() {
                    block.lines.push(Line::Include(included));
                }
                return Ok(());
            }
            _ => {
                if let Some(block) = blocks.last_mut() {
                    block.lines.push(Line::Set {
                        keyword,
                        args,
                        place: place.to_owned(),
                    });
                }
                return Ok(());
            }
        };
        blocks.push(Block {
            applies: next,
            lines: Vec::new(),
        });
        Ok(())
    }

    fn include(
        &self,
        args: &[String],
        place: &str,
        depth: usize,
    ) -> Result<Vec<Vec<Block>>, ConfigError> {
        if depth >= DEPTH {
            let message = format!("`Include` is nested more than {DEPTH} deep");
            return Err(ConfigError::Wrong {
                place: place.to_owned(),
                message,
            });
        }
        let mut found = Vec::new();
        for arg in args {
            let pattern = match expand_home(arg, self.home) {
                path if path.is_absolute() => path,
                path => self.folder.join(path),
            };
            for path in paths(&pattern) {
                found.extend(self.read(&path, depth + 1)?);
            }
        }
        Ok(found)
    }
}

/// The files that a path with `*`, `?` and `[...]` in its last part stands for, sorted.
fn paths(pattern: &Path) -> Vec<PathBuf> {
    let text = pattern.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return vec![pattern.to_owned()];
    }
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let Ok(glob) = globset::Glob::new(&name.to_string_lossy()) else {
        return Vec::new();
    };
    let glob = glob.compile_matcher();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // As in a shell, a leading dot has to be written.
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let meant =
        entries.filter(|e| glob.is_match(e.file_name()) && hidden(&e.file_name()) == hidden(name));
    let mut found: Vec<PathBuf> = meant.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn conditions(args: Vec<String>, place: &str) -> Result<Applies, String> {
    let mut found = Vec::new();
    let mut rest = args.into_iter();
    while let Some(what) = rest.next() {
        let what = what.to_ascii_lowercase();
        match what.as_str() {
            "all" => {}
            "host" | "originalhost" | "user" | "localuser" => match rest.next() {
                Some(pattern) => found.push((what, pattern)),
                None => return Err(format!("`Match {what}` has no pattern")),
            },
            _ => {
                return Ok(Applies::Never {
                    place: place.to_owned(),
                    what,
                });
            }
        }
    }
    Ok(Applies::Match(found))
}

/// A keyword and its arguments; `None` for blank lines and comments. As `argv_split` (misc.c):
/// single and double quotes, a backslash before a quote, a backslash or (outside quotes) a space,
/// `=` after the keyword.
fn split(line: &str) -> Result<Option<(String, Vec<String>)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find([' ', '\t', '=']).unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    Ok(Some((keyword.to_owned(), words(rest)?)))
}

fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut chars)?),
        }
    }
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, &'static str> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(&c) = chars.peek() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => break,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => {
                chars.next();
                match chars.peek() {
                    Some(&next @ ('"' | '\'' | '\\')) => word.push(next),
                    Some(' ') if quote.is_none() => word.push(' '),
                    Some(&next) => word.extend(['\\', next]),
                    None => {
                        word.push('\\');
                        break;
                    }
                }
            }
            (_, c) => word.push(c),
        }
        chars.next();
    }
    if quote.is_some() {
        Err("a quote is not closed")
    } else {
        Ok(word)
    }
}

/// Walks the lines that apply to one host.
struct Walk<'a> {
    name: &'a str,
    given_user: Option<&'a str>,
    home: &'a Path,
    found: HostConfig,
    identities: Vec<String>,
    /// First values of keywords that are expanded only when all is known.
    seen: HashMap<String, Vec<String>>,
}

impl Walk<'_> {
    fn blocks(&mut self, blocks: &[Block]) -> Result<(), ConfigError> {
        for block in blocks {
            if !self.applies(&block.applies) {
                continue;
            }
            for line in &block.lines {
                match line {
                    Line::Include(files) => {
                        for blocks in files {
                            self.blocks(blocks)?;
                        }
                    }
                    Line::Set {
                        keyword,
                        args,
                        place,
                    } => self.set(keyword, args, place)?,
                }
            }
        }
        Ok(())
    }

    fn applies(&mut self, applies: &Applies) -> bool {
        match applies {
            Applies::Always => true,
            Applies::Host(patterns) => matches_list(patterns.iter().map(String::as_str), self.name),
            Applies::Match(conditions) => conditions
                .iter()
                .all(|(what, pattern)| self.condition(what, pattern)),
            Applies::Never { place, what } => {
                let warning =
                    format!("{place}: `Match {what}` is not supported yet; its lines are ignored");
                self.warn(warning);
                false
            }
        }
    }

    fn condition(&self, what: &str, patterns: &str) -> bool {
        let local = || std::env::var("USER").unwrap_or_default();
        let user = || {
            self.given_user
                .map(str::to_owned)
                .or_else(|| self.found.user.as_ref().map(|u| u.0.clone()))
        };
        let subject = match what {
            "host" => self
                .found
                .hostname
                .clone()
                .unwrap_or_else(|| self.name.to_owned()),
            "originalhost" => self.name.to_owned(),
            "user" => user().unwrap_or_else(local),
            _ => local(),
        };
        // Host names are compared in lower case here, but not by `Host`, and accounts nowhere.
        match what {
            "host" | "originalhost" => {
                let patterns = patterns.to_ascii_lowercase();
                matches_list(patterns.split(','), &subject.to_ascii_lowercase())
            }
            _ => matches_list(patterns.split(','), &subject),
        }
    }

    fn warn(&mut self, warning: String) {
        if !self.found.warnings.contains(&warning) {
            self.found.warnings.push(warning);
        }
    }

    fn set(&mut self, keyword: &str, args: &[String], place: &str) -> Result<(), ConfigError> {
        let wrong = |message: String| ConfigError::Wrong {
            place: place.to_owned(),
            message,
        };
        let lower = keyword.to_ascii_lowercase();
        let first = args.first().map(String::as_str).unwrap_or_default();
        let is_none = first.eq_ignore_ascii_case("none");
        let found = &mut self.found;
        match lower.as_str() {
            "identityfile" if self.identities.iter().any(|known| known == first) => {}
            "identityfile" => self.identities.push(first.to_owned()),
            "hostname" => {
                let value = first.replace("%h", self.name).replace("%%", "%");
                found.hostname.get_or_insert(value);
            }
            "user" => {
                found
                    .user
                    .get_or_insert_with(|| (first.to_owned(), place.to_owned()));
            }
            "port" => {
                let port = first.parse().ok().filter(|port| *port > 0);
                let port = port.ok_or_else(|| wrong(format!("`{first}` is no port")))?;
                found.port.get_or_insert(port);
            }
            "identitiesonly" => {
                let yes =
                    flag(first).ok_or_else(|| wrong(format!("`{first}` is neither yes nor no")))?;
                if self.seen.insert(lower, Vec::new()).is_none() {
                    found.identities_only = yes;
                }
            }
            "stricthostkeychecking" => {
                let value =
                    checking(first).ok_or_else(|| wrong(format!("`{first}` is no policy")))?;
                found.strict_host_key_checking.get_or_insert(value);
            }
            "connecttimeout" if is_none => {}
            "connecttimeout" => {
                let time = seconds(first).ok_or_else(|| wrong(format!("`{first}` is no time")))?;
                found.connect_timeout.get_or_insert(time);
            }
            "hostkeyalias" => {
                found.host_key_alias.get_or_insert(first.to_owned());
            }
            "identityagent" | "userknownhostsfile" | "globalknownhostsfile" => {
                self.seen.entry(lower).or_insert_with(|| args.to_vec());
            }
            "hashknownhosts" => {
                let yes =
                    flag(first).ok_or_else(|| wrong(format!("`{first}` is neither yes nor no")))?;
                if self.seen.insert(lower, Vec::new()).is_none() {
                    found.hash_known_hosts = yes;
                }
            }
            "proxyjump" | "proxycommand" => {
                // The first of the two that is seen decides, and `none` is an answer.
                let decided = self.seen.contains_key("proxy");
                self.seen.insert("proxy".into(), Vec::new());
                if !decided && !is_none {
                    let (keyword, host) = (keyword.to_owned(), self.name.to_owned());
                    return Err(ConfigError::Unsupported {
                        place: place.to_owned(),
                        keyword,
                        host,
                    });
                }
            }
            _ if HARMLESS.contains(&lower.as_str()) => {}
            _ => self.warn(format!(
                "{place}: `{keyword}` is not supported yet and is ignored"
            )),
        }
        Ok(())
    }

    /// Expands what may hold tokens of other values.
    fn finish(mut self) -> HostConfig {
        let paths = |walk: &Self, keyword: &str| {
            let args = walk.seen.get(keyword)?;
            let none = args.len() == 1 && args[0].eq_ignore_ascii_case("none");
            Some(if none {
                Vec::new()
            } else {
                args.iter().map(|arg| walk.path(arg)).collect()
            })
        };
        self.found.user_known_hosts = paths(&self, "userknownhostsfile");
        self.found.global_known_hosts = paths(&self, "globalknownhostsfile");
        self.found.identity_agent = self.seen.get("identityagent").map(|args| {
            let arg = args.first().map(String::as_str).unwrap_or_default();
            match arg {
                _ if arg.eq_ignore_ascii_case("none") => None,
                "SSH_AUTH_SOCK" => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
                _ => match arg.strip_prefix('$') {
                    Some(name) => std::env::var_os(name).map(PathBuf::from),
                    None => Some(self.path(arg)),
                },
            }
        });
        let identities = std::mem::take(&mut self.identities);
        let real = identities
            .iter()
            .filter(|text| !text.eq_ignore_ascii_case("none"));
        self.found.identity_files = real.map(|text| self.path(text)).collect();
        self.found
    }

    fn path(&self, text: &str) -> PathBuf {
        expand_home(&self.tokens(text), self.home)
    }

    /// The tokens that ssh_config(5) allows in file names, as far as they are known here.
    fn tokens(&self, text: &str) -> String {
        let host = self.found.hostname.as_deref().unwrap_or(self.name);
        let local = std::env::var("USER").unwrap_or_default();
        let user = self
            .given_user
            .or(self.found.user.as_ref().map(|user| user.0.as_str()));
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, if c == '%' { chars.next() } else { None }) {
                ('%', Some('%')) => out.push('%'),
                ('%', Some('h')) => out.push_str(host),
                ('%', Some('n')) => out.push_str(self.name),
                ('%', Some('p')) => out.push_str(&self.found.port.unwrap_or(22).to_string()),
                ('%', Some('r')) => out.push_str(user.unwrap_or(&local)),
                ('%', Some('u')) => out.push_str(&local),
                ('%', Some('d')) => out.push_str(&self.home.to_string_lossy()),
                ('%', Some('k')) => {
                    out.push_str(self.found.host_key_alias.as_deref().unwrap_or(self.name))
                }
                ('%', Some(other)) => out.extend(['%', other]),
                (c, _) => out.push(c),
            }
        }
        out
    }
}

fn expand_home(text: &str, home: &Path) -> PathBuf {
    match text.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => PathBuf::from(text),
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

fn checking(text: &str) -> Option<StrictHostKeyChecking> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(StrictHostKeyChecking::Yes),
        "ask" => Some(StrictHostKeyChecking::Ask),
        "accept-new" => Some(StrictHostKeyChecking::AcceptNew),
        "no" | "false" | "off" => Some(StrictHostKeyChecking::Off),
        _ => None,
    }
}

/// `convtime` (misc.c): seconds, or numbers with units such as `1m30s`.
fn seconds(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut number = String::new();
    for c in text.chars() {
        let unit = match c.to_ascii_lowercase() {
            digit if digit.is_ascii_digit() => {
                number.push(digit);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(
            std::mem::take(&mut number)
                .parse::<u64>()
                .ok()?
                .checked_mul(unit)?,
        )?;
    }
    if !number.is_empty() {
        total = total.checked_add(number.parse().ok()?)?;
    }
    (!text.is_empty()).then(|| Duration::from_secs(total))
}

/// Whether a positive pattern of the list matches and no negated one does (`match_pattern_list`).
fn matches_list<'p>(patterns: impl Iterator<Item = &'p str>, subject: &str) -> bool {
    let matches = |pattern: &str| super::known::glob(pattern.as_bytes(), subject.as_bytes());
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if matches(not) => return false,
            Some(_) => {}
            None => found |= matches(pattern),
        }
    }
    found
}

#[cfg(test)]
mod tests;
