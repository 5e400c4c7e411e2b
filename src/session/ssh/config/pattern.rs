//! Patterns of hosts and accounts, and of files to include.

use std::path::{Path, PathBuf};

use crate::session::ssh::known::glob;

/// A list of which one has to match, and none of the negated ones (`match_pattern_list`, match.c).
#[derive(Debug, Clone)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    text: Box<[u8]>,
}

impl Patterns {
    pub(super) fn new<'t>(patterns: impl Iterator<Item = &'t str>) -> Self {
        let pattern = |text: &str| {
            let positive = text.strip_prefix('!');
            Pattern {
                negated: positive.is_some(),
                text: positive.unwrap_or(text).as_bytes().into(),
            }
        };
        Self(patterns.map(pattern).collect())
    }

    /// Separated by commas.
    pub(super) fn list(text: &str) -> Self {
        Self::new(text.split(','))
    }

    pub(super) fn matches(&self, subject: &str) -> bool {
        let mut found = false;
        for pattern in &self.0 {
            // Once one has matched, only a negated one can change that.
            if (pattern.negated || !found) && glob(&pattern.text, subject.as_bytes()) {
                if pattern.negated {
                    return false;
                }
                found = true;
            }
        }
        found
    }
}

/// The files that a path with `*`, `?` and `[...]` in any part stands for, sorted, as glob(3)
/// gives them: a leading dot has to be written, what does not exist is not there.
pub(super) fn paths(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str();
        let text = part.to_string_lossy();
        found = match text.contains(['*', '?', '[', '\\']) {
            false => found.iter().map(|path| path.join(part)).collect(),
            true => found.iter().flat_map(|path| below(path, &text)).collect(),
        };
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    found.sort();
    found
}

fn below(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let meant = names.filter(|name| {
        let name = name.to_string_lossy();
        let hidden = name.starts_with('.');
        (!hidden || pattern.starts_with('.'))
            && fits(
                &pattern.chars().collect::<Vec<_>>(),
                &name.chars().collect::<Vec<_>>(),
            )
    });
    meant.map(|name| folder.join(name)).collect()
}

/// One part of a path against one name, by the rules of fnmatch(3).
fn fits(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        (['*', rest @ ..], _) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        (['?', rest @ ..], [_, behind @ ..]) => fits(rest, behind),
        (['[', inside @ ..], [c, behind @ ..]) => match class(inside, *c) {
            Some((is_in, rest)) => is_in && fits(rest, behind),
            None => *c == '[' && fits(inside, behind),
        },
        (['\\', escaped, rest @ ..], [c, behind @ ..]) => escaped == c && fits(rest, behind),
        ([first, rest @ ..], [c, behind @ ..]) => first == c && fits(rest, behind),
        (_, []) => false,
    }
}

/// What follows a `[`: whether `c` is in it, and what stands behind the `]`. `None` without one.
fn class(inside: &[char], c: char) -> Option<(bool, &[char])> {
    let negated = matches!(inside.first(), Some('!' | '^'));
    let set = &inside[usize::from(negated)..];
    // A `]` that comes first is one of the set.
    let end = 1 + set.iter().skip(1).position(|&c| c == ']')?;
    let (mut set, rest) = (&set[..end], &set[end + 1..]);
    let mut found = false;
    while let [first, more @ ..] = set {
        set = match more {
            ['-', last, behind @ ..] => {
                found |= (*first..=*last).contains(&c);
                behind
            }
            _ => {
                found |= *first == c;
                more
            }
        };
    }
    Some((found != negated, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths() {
        let fits = |pattern: &str, name: &str| {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            fits(&chars(pattern), &chars(name))
        };
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("[0-9]?-*", "10-x"),
            ("[!a]b", "cb"),
            ("a\\*b", "a*b"),
            ("[]]", "]"),
            ("a[", "a["),
            ("{a}", "{a}"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf~"),
            ("[!a]b", "ab"),
            ("a\\*b", "axb"),
            ("?", ""),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn any_part_of_a_path_may_be_a_pattern() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a/x.conf", "b/y.conf", "b/.hidden.conf", "c/z.txt"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = paths(&root.path().join("[ab]/*.conf"));
        assert_eq!(
            found,
            ["a/x.conf", "b/y.conf"].map(|name| root.path().join(name))
        );
        assert_eq!(paths(&root.path().join("none")), Vec::<PathBuf>::new());
    }
}
