//! Files to blocks. Everything is checked and cut up here, once, so that looking up a host
//! compares bytes and allocates nothing.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keywords::{self, KEYWORDS, Meaning, Use, Value};
use super::pattern::{self, Patterns};
use super::{ConfigError, expand, split, values};

/// Largest file that is read, in bytes.
pub(super) const LIMIT: u64 = 4 << 20;
/// How deep `Include` may go (READCONF_MAX_DEPTH).
const DEPTH: usize = 16;

/// Lines that apply together.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) applies: Applies,
    pub(super) lines: Vec<Line>,
    /// A line in it, or in what it includes, has a keyword that ssh does not know.
    pub(super) has_unknown: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Applies {
    Always,
    Host(Patterns),
    Match(Vec<Condition>),
}

#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) negated: bool,
    pub(super) what: What,
}

/// What a `Match` may ask for. Patterns of hosts are in lower case.
#[derive(Debug, Clone)]
pub(super) enum What {
    All,
    /// The second pass, made if anybody asks for it (`final`, `canonical`).
    Final,
    Host(Patterns),
    OriginalHost(Patterns),
    User(Patterns),
    LocalUser(Patterns),
    /// What is never found out here, and where it stands.
    Unheard(String, Place),
}

#[derive(Debug, Clone)]
pub(super) enum Line {
    Set(Set),
    Include(Vec<Vec<Block>>),
    /// A keyword that only `IgnoreUnknown` can excuse.
    Unknown(String, Place),
}

/// A keyword with its value.
#[derive(Debug, Clone)]
pub(super) struct Set {
    /// The keyword's place in [`KEYWORDS`].
    pub(super) slot: usize,
    /// As the user wrote it.
    pub(super) written: Box<str>,
    pub(super) words: Vec<String>,
    pub(super) place: Place,
}

/// A line of a file; shown as `file:line`.
#[derive(Debug, Clone)]
pub(super) struct Place {
    file: Arc<str>,
    line: usize,
    owner: Owner,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Place {
    /// It stands in a file for all users of the machine.
    pub(super) fn is_of_the_system(&self) -> bool {
        self.owner == Owner::System
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::Wrong {
            place: self.to_string(),
            message: message.into(),
        }
    }
}

/// The mistake that an unknown keyword is.
pub(super) fn unknown(keyword: &str, place: &Place) -> ConfigError {
    let meant = keywords::similar(keyword).map(|name| format!("did you mean `{name}`? "));
    place.wrong(format!(
        "`{keyword}` is no keyword of ssh_config; {}`IgnoreUnknown {keyword}` above it makes ssh \
         and fanrun pass over it",
        meant.unwrap_or_default()
    ))
}

/// Whose file it is: that decides what may stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    User,
    System,
}

/// Reads files.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) home: &'a Path,
    pub(super) owner: Owner,
    /// Some `IgnoreUnknown` stands somewhere, so that a host decides what is a mistake.
    pub(super) excuses: Cell<bool>,
    /// The first keyword that is unknown.
    pub(super) unknown: RefCell<Option<ConfigError>>,
    /// Some `Match` asks for the second pass.
    pub(super) wants_final: Cell<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(home: &'a Path) -> Self {
        Self {
            home,
            owner: Owner::User,
            excuses: Cell::new(false),
            unknown: RefCell::default(),
            wants_final: Cell::new(false),
        }
    }

    /// The blocks of a file; `None` if there is no such file. A directory is an empty file, as it
    /// is for ssh. With `guarded`, somebody else's file is refused.
    pub(super) fn read(
        &self,
        path: &Path,
        guarded: bool,
        depth: usize,
    ) -> Result<Option<Vec<Block>>, ConfigError> {
        let shown: Arc<str> = self.shown(path).into();
        let unreadable = |reason: String| ConfigError::Unreadable {
            path: shown.to_string(),
            reason,
        };
        let failed = |error: std::io::Error| unreadable(super::super::problem::plain(&error));
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let facts = file.metadata().map_err(failed)?;
        let own = rustix::process::getuid().as_raw();
        if guarded && (![0, own].contains(&facts.uid()) || facts.mode() & 0o022 != 0) {
            return Err(ConfigError::Permissions(shown.to_string()));
        }
        let mut bytes = Vec::new();
        if !facts.is_dir() {
            file.take(LIMIT + 1)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
        }
        if bytes.len() as u64 > LIMIT {
            return Err(unreadable(format!("it is larger than {} MiB", LIMIT >> 20)));
        }
        self.blocks(&String::from_utf8_lossy(&bytes), &shown, depth)
            .map(Some)
    }

    /// `~/...` where that is what it is.
    fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(self.home) {
            Ok(rest) => format!("~/{}", rest.display()),
            Err(_) => path.display().to_string(),
        }
    }

    fn blocks(&self, text: &str, file: &Arc<str>, depth: usize) -> Result<Vec<Block>, ConfigError> {
        let mut blocks = vec![block(Applies::Always)];
        for (line, text) in (1..).zip(text.split('\n')) {
            let file = Arc::clone(file);
            let owner = self.owner;
            let place = Place { file, line, owner };
            let cut = split::keyword(text).and_then(|found| {
                found
                    .map(|(keyword, rest)| Ok((keyword, rest, split::words(rest)?)))
                    .transpose()
            });
            if let Some((keyword, rest, words)) = cut.map_err(|message| place.wrong(message))? {
                self.line((keyword, rest, words), place, depth, &mut blocks)?;
            }
        }
        Ok(blocks)
    }

    fn line(
        &self,
        (written, rest, words): (String, &str, Vec<String>),
        place: Place,
        depth: usize,
        blocks: &mut Vec<Block>,
    ) -> Result<(), ConfigError> {
        let Some(slot) = keywords::find(&written) else {
            let mut first = self.unknown.borrow_mut();
            first.get_or_insert_with(|| unknown(&written, &place));
            push(blocks, Line::Unknown(written, place), true);
            return Ok(());
        };
        let keyword = &KEYWORDS[slot];
        values::check(keyword.value, &words)
            .map_err(|message| place.wrong(format!("`{written}`: {message}")))?;
        match keyword.meaning {
            Meaning::Used(Use::Host) => {
                let patterns = Patterns::new(words.iter().map(String::as_str));
                blocks.push(block(Applies::Host(patterns)));
            }
            Meaning::Used(Use::Match) => {
                let conditions = self.conditions(rest, &place);
                blocks.push(block(Applies::Match(
                    conditions.map_err(|m| place.wrong(m))?,
                )));
            }
            Meaning::Used(Use::Include) => {
                let (files, has_unknown) = self.include(&words, &place, depth)?;
                push(blocks, Line::Include(files), has_unknown);
            }
            meaning => {
                if meaning == Meaning::Used(Use::IgnoreUnknown) {
                    self.excuses.set(true);
                }
                let words = match keyword.value {
                    Value::Rest => vec![rest.trim_start_matches('=').trim_start().to_owned()],
                    _ => words,
                };
                let written = written.into();
                let set = Set {
                    slot,
                    written,
                    words,
                    place,
                };
                push(blocks, Line::Set(set), false);
            }
        }
        Ok(())
    }

    fn include(
        &self,
        words: &[String],
        place: &Place,
        depth: usize,
    ) -> Result<(Vec<Vec<Block>>, bool), ConfigError> {
        if depth >= DEPTH {
            let message = format!("`Include` is nested more than {DEPTH} deep");
            return Err(place.wrong(message));
        }
        let mut found = Vec::new();
        for word in words {
            let pattern = self
                .included(word)
                .map_err(|message| place.wrong(message))?;
            for path in pattern::paths(&pattern) {
                found.extend(self.read(&path, true, depth + 1)?);
            }
        }
        let has_unknown = found.iter().flatten().any(|block| block.has_unknown);
        Ok((found, has_unknown))
    }

    /// Where a relative path begins, and whether `~` is allowed, depends on whose file it is.
    fn included(&self, word: &str) -> Result<PathBuf, String> {
        match self.owner {
            Owner::User if word.starts_with('~') => {
                expand::tilde(word, self.home).map(PathBuf::from)
            }
            Owner::User => Ok(self.home.join(".ssh").join(word)),
            Owner::System if word.starts_with('~') => {
                Err(format!("`Include {word}` in the system's file"))
            }
            Owner::System => Ok(Path::new("/etc/ssh").join(word)),
        }
    }

    /// As `match_cfg_line` (readconf.c): `all` may follow one other condition, and what follows
    /// `all` is a mistake.
    fn conditions(&self, rest: &str, place: &Place) -> Result<Vec<Condition>, String> {
        let mut found: Vec<Condition> = Vec::new();
        let mut rest = Some(rest);
        loop {
            let word = split::token(&mut rest).unwrap_or_default();
            if word.is_empty() || word.starts_with('#') {
                break;
            }
            let name = word.strip_prefix('!').unwrap_or(&word).to_ascii_lowercase();
            let negated = word.starts_with('!');
            let mut value = || {
                let value = split::token(&mut rest).unwrap_or_default();
                if value.is_empty() || value.starts_with('#') {
                    return Err(format!("`Match {name}` has no pattern"));
                }
                Ok(value)
            };
            let what = match name.as_str() {
                "all" if found.len() > 1 || value().is_ok() => {
                    return Err("`Match all` cannot be combined with other conditions".to_owned());
                }
                "all" => What::All,
                "final" | "canonical" => {
                    self.wants_final
                        .set(self.wants_final.get() || name == "final");
                    What::Final
                }
                "host" => What::Host(Patterns::list(&value()?.to_ascii_lowercase())),
                "originalhost" => {
                    What::OriginalHost(Patterns::list(&value()?.to_ascii_lowercase()))
                }
                "user" => What::User(Patterns::list(&value()?)),
                "localuser" => What::LocalUser(Patterns::list(&value()?)),
                "exec" | "localnetwork" | "tagged" | "version" | "sessiontype" | "command" => {
                    value()?;
                    What::Unheard(name.clone(), place.clone())
                }
                _ => return Err(format!("`{word}` is no condition of `Match`")),
            };
            found.push(Condition { negated, what });
            if name == "all" {
                return Ok(found);
            }
        }
        match found.is_empty() {
            true => Err("`Match` has no condition".to_owned()),
            false => Ok(found),
        }
    }
}

fn block(applies: Applies) -> Block {
    Block {
        applies,
        lines: Vec::new(),
        has_unknown: false,
    }
}

fn push(blocks: &mut [Block], line: Line, has_unknown: bool) {
    if let Some(block) = blocks.last_mut() {
        block.lines.push(line);
        block.has_unknown |= has_unknown;
    }
}
