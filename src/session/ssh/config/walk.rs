//! The lines that apply to one host, in order; the first value of a keyword wins.

use super::expand::{self, Tokens};
use super::keywords::{KEYWORDS, Meaning, Use};
use super::pattern::Patterns;
use super::read::{Applies, Block, Condition, Line, Set, What, unknown};
use super::values::{self, is_none};
use super::{Config, ConfigError, Given, HostConfig};

/// Most `IdentityFile`s that ssh takes (SSH_MAX_IDENTITY_FILES).
const IDENTITIES: usize = 100;
/// Variables of the language and the keyboard, which systems' files send to every host. A remote
/// command runs in the remote side's own language.
const LOCALE: [&str; 4] = ["LANG", "LANGUAGE", "LC_*", "XMODIFIERS"];

/// Walks the blocks.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    config: &'a Config,
    name: &'a str,
    given: &'a Given<'a>,
    /// What `Host` looks at: the name as typed, in the second pass the host that it stands for.
    subject: String,
    /// The typed name in lower case.
    original: String,
    /// The host so far, in lower case.
    host: String,
    is_final: bool,
    seen: [bool; KEYWORDS.len()],
    found: HostConfig,
    identities: Vec<&'a Set>,
    user_files: Option<&'a Set>,
    agent: Option<&'a Set>,
    ignored: Option<Patterns>,
    sent: Vec<(&'a str, &'a Set)>,
    /// What is not supported and is worth a word.
    missed: Vec<&'a Set>,
    unheard: Vec<String>,
    no_forwardings: bool,
    local_command: bool,
    wants_final: bool,
    has_proxy: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(config: &'a Config, name: &'a str, given: &'a Given<'a>) -> Self {
        let original = name.to_ascii_lowercase();
        let host = given.host_name.unwrap_or(name).to_ascii_lowercase();
        Self {
            config,
            name,
            given,
            subject: name.to_owned(),
            original,
            host,
            is_final: false,
            seen: [false; KEYWORDS.len()],
            found: HostConfig {
                hostname: given.host_name.map(str::to_owned),
                port: given.port,
                ..HostConfig::default()
            },
            identities: Vec::new(),
            user_files: None,
            agent: None,
            ignored: None,
            sent: Vec::new(),
            missed: Vec::new(),
            unheard: Vec::new(),
            no_forwardings: false,
            local_command: false,
            wants_final: config.wants_final,
            has_proxy: false,
        }
    }

    /// Both passes, if there are two: in the second one `Host` and `Match` see the host that the
    /// first one has found (ssh.c, "re-parsing configuration").
    pub(super) fn run(mut self) -> Result<HostConfig, ConfigError> {
        self.files()?;
        if self.wants_final {
            self.subject = self.reached();
            self.host = self.subject.to_ascii_lowercase();
            self.found
                .hostname
                .get_or_insert_with(|| self.subject.clone());
            self.is_final = true;
            self.files()?;
        }
        self.finish()
    }

    fn files(&mut self) -> Result<(), ConfigError> {
        let config = self.config;
        config.files.iter().try_for_each(|file| self.blocks(file))
    }

    fn blocks(&mut self, blocks: &'a [Block]) -> Result<(), ConfigError> {
        for block in blocks {
            if self.applies(&block.applies) {
                self.lines(&block.lines)?;
            } else if block.has_unknown {
                self.unknown(&block.lines)?;
            }
        }
        Ok(())
    }

    fn lines(&mut self, lines: &'a [Line]) -> Result<(), ConfigError> {
        for line in lines {
            match line {
                Line::Include(files) => files.iter().try_for_each(|file| self.blocks(file))?,
                Line::Set(set) => self.set(set)?,
                Line::Unknown(..) => self.unknown(std::slice::from_ref(line))?,
            }
        }
        Ok(())
    }

    /// Unknown keywords are mistakes also where they do not apply.
    fn unknown(&self, lines: &[Line]) -> Result<(), ConfigError> {
        for line in lines {
            match line {
                Line::Unknown(keyword, place) => {
                    let name = keyword.to_ascii_lowercase();
                    if !self
                        .ignored
                        .as_ref()
                        .is_some_and(|list| list.matches(&name))
                    {
                        return Err(unknown(keyword, place));
                    }
                }
                Line::Include(files) => {
                    let blocks = files.iter().flatten();
                    blocks
                        .filter(|block| block.has_unknown)
                        .try_for_each(|block| self.unknown(&block.lines))?;
                }
                Line::Set(_) => {}
            }
        }
        Ok(())
    }

    fn applies(&mut self, applies: &Applies) -> bool {
        match applies {
            Applies::Always => true,
            Applies::Host(patterns) => patterns.matches(&self.subject),
            Applies::Match(conditions) => self.all(conditions),
        }
    }

    fn all(&mut self, conditions: &[Condition]) -> bool {
        let mut unheard = None;
        for Condition { negated, what } in conditions {
            let holds = match what {
                What::All => true,
                What::Final => self.is_final,
                What::Host(patterns) => patterns.matches(&self.host),
                What::OriginalHost(patterns) => patterns.matches(&self.original),
                What::User(patterns) => patterns.matches(self.user()),
                What::LocalUser(patterns) => patterns.matches(&self.config.local_user),
                What::Unheard(name, place) => {
                    unheard.get_or_insert((name, place));
                    continue;
                }
            };
            if holds == *negated {
                return false;
            }
        }
        let Some((name, place)) = unheard else {
            return true;
        };
        let warning =
            format!("{place}: `Match {name}` is not supported yet; its lines are ignored");
        if !self.unheard.contains(&warning) {
            self.unheard.push(warning);
        }
        false
    }

    /// The host that is reached, as far as is known yet.
    fn reached(&self) -> String {
        expand::canonical(self.found.hostname.as_deref().unwrap_or(self.name))
    }

    fn user(&self) -> &str {
        let written = self.found.user.as_ref().map(|user| user.0.as_str());
        self.given
            .user
            .or(written)
            .or(self.given.default_user)
            .unwrap_or(&self.config.local_user)
    }

    fn set(&mut self, set: &'a Set) -> Result<(), ConfigError> {
        let first = set.words.first().map(String::as_str).unwrap_or_default();
        let was_seen = std::mem::replace(&mut self.seen[set.slot], true);
        match KEYWORDS[set.slot].meaning {
            Meaning::Harmless => {}
            Meaning::Used(Use::IdentityFile) => return self.identity(set, first),
            Meaning::Used(Use::SendEnv) => self.send(set),
            Meaning::Refused(_) if is_proxy(set) => {
                // The first of the two that is seen decides, and `none` is an answer.
                let decided = std::mem::replace(&mut self.has_proxy, true);
                if !decided {
                    return self.refuse(set, first);
                }
            }
            _ if was_seen => {}
            Meaning::Refused(_) => return self.refuse(set, first),
            Meaning::Used(meaning) => return self.used(meaning, set, first),
            Meaning::Unless(same) if same.iter().any(|s| s.eq_ignore_ascii_case(first)) => {}
            Meaning::Mild(same)
                if set.place.is_of_the_system()
                    || same.iter().any(|s| s.eq_ignore_ascii_case(first)) => {}
            Meaning::Unless(_) | Meaning::Mild(_) | Meaning::Warned => self.missed.push(set),
        }
        Ok(())
    }

    fn refuse(&self, set: &Set, first: &str) -> Result<(), ConfigError> {
        match KEYWORDS[set.slot].meaning {
            Meaning::Refused(why) if !is_none(first) => Err(ConfigError::Unsupported {
                place: set.place.to_string(),
                keyword: set.written.to_string(),
                host: self.name.to_owned(),
                why,
            }),
            _ => Ok(()),
        }
    }

    fn identity(&mut self, set: &'a Set, first: &str) -> Result<(), ConfigError> {
        if self.identities.iter().any(|known| known.words[0] == first) {
            return Ok(());
        }
        if self.identities.len() == IDENTITIES {
            let message = format!("more than {IDENTITIES} times `IdentityFile`");
            return Err(set.place.wrong(message));
        }
        self.identities.push(set);
        Ok(())
    }

    fn send(&mut self, set: &'a Set) {
        for word in &set.words {
            match word.strip_prefix('-') {
                Some(removed) => {
                    let removed = Patterns::new([removed].into_iter());
                    self.sent.retain(|(pattern, _)| !removed.matches(pattern));
                }
                None => self.sent.push((word, set)),
            }
        }
    }

    fn used(&mut self, meaning: Use, set: &'a Set, first: &str) -> Result<(), ConfigError> {
        let found = &mut self.found;
        match meaning {
            // A name that is given from outside stands where the first value would.
            Use::HostName if found.hostname.is_none() => {
                let host = expand::host_name(first, self.name).map_err(|m| set.place.wrong(m))?;
                found.hostname = Some(expand::canonical(&host));
                self.host = host.to_ascii_lowercase();
            }
            Use::Port if found.port.is_none() => found.port = values::port(first),
            Use::User => found.user = Some((first.to_owned(), set.place.to_string())),
            Use::IdentitiesOnly => found.identities_only = values::flag(first),
            Use::HashKnownHosts => found.hash_known_hosts = values::flag(first),
            Use::StrictHostKeyChecking => {
                found.strict_host_key_checking = Some(values::checking(first));
            }
            // `none` is no value, and 0 is no limit.
            Use::ConnectTimeout if first == "none" => self.seen[set.slot] = false,
            Use::ConnectTimeout => {
                let time = values::seconds(first);
                found.connect_timeout = time.filter(|time| !time.is_zero());
            }
            Use::HostKeyAlias => found.host_key_alias = Some(first.to_ascii_lowercase()),
            Use::IdentityAgent => self.agent = Some(set),
            Use::UserKnownHosts => self.user_files = Some(set),
            Use::GlobalKnownHosts => {
                let files = set.words.iter().filter(|word| !is_none(word));
                found.global_known_hosts = Some(files.map(Into::into).collect());
            }
            Use::IgnoreUnknown => self.ignored = Some(Patterns::list(&first.to_ascii_lowercase())),
            Use::PermitLocalCommand => self.local_command = values::flag(first),
            Use::ClearAllForwardings => self.no_forwardings = values::flag(first),
            Use::CanonicalizeHostname if first != "no" && first != "false" => {
                self.missed.push(set);
                self.wants_final = true;
            }
            Use::CanonicalizeHostname | Use::HostName | Use::Port => {}
            // These are lines of their own kind.
            Use::Host | Use::Match | Use::Include | Use::IdentityFile | Use::SendEnv => {}
        }
        Ok(())
    }

    /// Expands what may hold tokens of other values, and says what was passed over.
    fn finish(mut self) -> Result<HostConfig, ConfigError> {
        let host = self.reached();
        let tokens = Tokens {
            host: &host,
            name: self.name,
            key_alias: self.found.host_key_alias.as_deref().unwrap_or(self.name),
            port: self.found.port.or(self.given.default_port).unwrap_or(22),
            user: self.user(),
            local_user: &self.config.local_user,
            home: &self.config.home,
        };
        let path = |set: &Set, word: &String| {
            let wrong = |m| set.place.wrong(format!("`{}`: {m}", set.written));
            tokens.path(word).map_err(wrong)
        };
        let mut identities = Vec::new();
        for set in &self.identities {
            let real = set.words.iter().filter(|word| !is_none(word));
            for word in real {
                identities.push(path(set, word)?);
            }
        }
        let user_known_hosts = match self.user_files {
            None => None,
            Some(set) => {
                let real = set.words.iter().filter(|word| !is_none(word));
                Some(real.map(|word| path(set, word)).collect::<Result<_, _>>()?)
            }
        };
        let identity_agent = match self.agent {
            None => None,
            Some(set) => Some(agent(set, path)?),
        };
        let warnings = self.warnings();
        self.found.identity_files = (!self.identities.is_empty()).then_some(identities);
        self.found.user_known_hosts = user_known_hosts;
        self.found.identity_agent = identity_agent;
        self.found.warnings = warnings;
        Ok(self.found)
    }

    fn warnings(&self) -> Vec<String> {
        let is_missed = |set: &&&Set| match KEYWORDS[set.slot].name {
            "localforward" | "remoteforward" | "dynamicforward" => !self.no_forwardings,
            "localcommand" => self.local_command,
            _ => true,
        };
        let missed = self.missed.iter().filter(is_missed).copied();
        let lines = missed.chain(self.unsent()).map(|set| {
            let Set { place, written, .. } = set;
            format!("{place}: `{written}` is not supported yet and is ignored")
        });
        self.unheard.iter().cloned().chain(lines).collect()
    }

    /// The first `SendEnv` that would send a variable which is there.
    fn unsent(&self) -> Option<&'a Set> {
        let is_locale = |pattern: &str| {
            LOCALE
                .iter()
                .any(|known| pattern.starts_with(known.trim_end_matches('*')))
        };
        let sends = |pattern: &str| {
            let pattern = Patterns::new([pattern].into_iter());
            std::env::vars_os().any(|(name, _)| {
                let name = name.to_string_lossy();
                pattern.matches(&name) && !is_locale(&name)
            })
        };
        let mut sent = self.sent.iter().filter(|(pattern, _)| !is_locale(pattern));
        sent.find(|(pattern, _)| sends(pattern))
            .map(|(_, set)| *set)
    }
}

fn is_proxy(set: &Set) -> bool {
    ["proxyjump", "proxycommand"].contains(&KEYWORDS[set.slot].name)
}

/// `none`, the word `SSH_AUTH_SOCK`, `$VARIABLE`, or a path (ssh.c).
fn agent(
    set: &Set,
    path: impl Fn(&Set, &String) -> Result<std::path::PathBuf, ConfigError>,
) -> Result<Option<std::path::PathBuf>, ConfigError> {
    let word = &set.words[0];
    let variable = match word.strip_prefix('$') {
        Some(name) if !name.starts_with('{') => Some(name),
        _ => (word == "SSH_AUTH_SOCK").then_some("SSH_AUTH_SOCK"),
    };
    match variable {
        _ if is_none(word) => Ok(None),
        Some(name) => Ok(std::env::var_os(name).map(Into::into)),
        None => path(set, word).map(Some),
    }
}
