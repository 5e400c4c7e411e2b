//! Which of the files that a listing finds are wanted. Pure: names and attributes in, yes or no out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::Regex;

use crate::listing::{Entry, Kind, Wanted};

/// [`Wanted`], ready to be asked.
#[derive(Debug)]
pub struct Filter {
    wanted: Wanted,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    regex: Option<Regex>,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no {kind}: {reason}")]
pub struct BadPattern {
    /// As it was written.
    pub pattern: String,
    /// What it should have been.
    pub kind: &'static str,
    /// What is wrong with it, one line.
    pub reason: String,
}

#[derive(Debug)]
struct Pattern {
    matcher: GlobMatcher,
    /// It holds a slash, and so is for the path below the listed one.
    whole: bool,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, BadPattern> {
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .build()
            .map_err(|error| BadPattern {
                pattern: text.to_owned(),
                kind: "pattern",
                reason: error.kind().to_string(),
            })?;
        Ok(Self {
            matcher: glob.compile_matcher(),
            whole: text.contains('/'),
        })
    }

    fn fits(&self, name: &[u8], below: &[u8]) -> bool {
        let text = if self.whole { below } else { name };
        self.matcher.is_match(Path::new(OsStr::from_bytes(text)))
    }
}

impl Filter {
    /// Makes the patterns ready.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn new(wanted: &Wanted) -> Result<Self, BadPattern> {
        let all = |texts: &[String]| {
            texts
                .iter()
                .map(|text| Pattern::new(text))
                .collect::<Result<Vec<_>, _>>()
        };
        let regex = wanted.regex.as_ref().map(|text| {
            Regex::new(text).map_err(|error| BadPattern {
                pattern: text.clone(),
                kind: "regular expression",
                reason: last_line(&error.to_string()),
            })
        });
        Ok(Self {
            wanted: wanted.clone(),
            include: all(&wanted.include)?,
            exclude: all(&wanted.exclude)?,
            regex: regex.transpose()?,
        })
    }

    /// Whether what stands at `below` (the path below the listed one) is left out, and not entered
    /// where it is a directory.
    #[must_use]
    pub fn excludes(&self, name: &[u8], below: &[u8]) -> bool {
        self.exclude.iter().any(|pattern| pattern.fits(name, below))
    }

    /// Whether an entry is wanted. What could not be read always is.
    #[must_use]
    pub fn keeps(&self, entry: &Entry, below: &[u8]) -> bool {
        if entry.kind == Kind::Error {
            return true;
        }
        let name = entry.name();
        let wanted = &self.wanted;
        let kind = wanted.kinds.is_empty() || wanted.kinds.contains(&entry.kind);
        kind && !self.excludes(name, below)
            && (self.include.is_empty() || self.include.iter().any(|p| p.fits(name, below)))
            && self
                .regex
                .as_ref()
                .is_none_or(|regex| regex.is_match(below))
            && self.fits_attributes(entry)
    }

    /// A test of something that the server did not tell fails.
    fn fits_attributes(&self, entry: &Entry) -> bool {
        let wanted = &self.wanted;
        let time = entry.modified.map(i64::from);
        let after = |limit: i64| time.is_some_and(|time| time >= limit);
        let before = |limit: i64| time.is_some_and(|time| time < limit);
        let size = |test: &dyn Fn(u64) -> bool| entry.size.is_some_and(test);
        wanted.newer.is_none_or(after)
            && wanted.last.as_ref().is_none_or(|last| last.is_new(entry))
            && wanted.older.is_none_or(before)
            && wanted
                .min_size
                .is_none_or(|least| size(&|size| size >= least))
            && wanted
                .max_size
                .is_none_or(|most| size(&|size| size <= most))
            && wanted
                .mode
                .is_none_or(|test| entry.mode.is_some_and(|mode| test.holds(mode)))
            && wanted
                .owner
                .as_ref()
                .is_none_or(|owner| is_owned_by(entry, owner))
    }
}

fn is_owned_by(entry: &Entry, owner: &str) -> bool {
    let by_name = entry.owner.as_deref() == Some(owner.as_bytes());
    by_name || entry.uid.is_some_and(|uid| uid.to_string() == owner)
}

fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
