//! Where hosts come from: what one `-i` means, and reading it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::draft::Draft;
use super::join::join;
use super::{Inventory, list, yaml};
use crate::diagnostic::{Diagnostic, Source};
use crate::text::printable;

/// The largest inventory file that is read, in bytes: a hundred times what 20,000 hosts take.
const FILE_LIMIT: u64 = 8 << 20;

/// Files, as far as inventories need them.
pub trait Files {
    /// The whole text of a file.
    ///
    /// # Errors
    /// What the system says, `FileTooLarge` for more than `limit` bytes, and `InvalidData` for
    /// what is not UTF-8.
    fn read(&self, path: &Path, limit: u64) -> io::Result<String>;

    /// There is a file (and not a directory) of that name.
    fn is_file(&self, path: &Path) -> bool;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, limit: u64) -> io::Result<String> {
        let mut text = Vec::new();
        std::fs::File::open(path)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut text)?;
        if text.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        String::from_utf8(text).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("byte {at} is not UTF-8"),
            )
        })
    }

    fn is_file(&self, path: &Path) -> bool {
        // Pipes too: `-i <(...)`.
        std::fs::metadata(path).is_ok_and(|found| !found.is_dir())
    }
}

/// An inventory, and what was odd about its sources.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All sources, merged.
    pub inventory: Inventory,
    /// Worth a word, not worth stopping for.
    pub warnings: Vec<Diagnostic>,
}

impl Inventory {
    /// Reads the sources that `-i` names and merges them, later ones over earlier ones. Each is
    /// the path of a YAML inventory or of a plain list, or hosts separated by commas (`a,b`, `a,`).
    /// A file is YAML by its extension (`.yml`, `.yaml`, `.json`), or else if its first line that
    /// says something looks like a YAML mapping.
    ///
    /// # Errors
    /// Every mistake in every source.
    pub fn load(args: &[String], files: &dyn Files) -> Result<Loaded, Vec<Diagnostic>> {
        let mut drafts = Vec::new();
        let mut unread = Vec::new();
        for arg in args {
            match load_one(arg, files) {
                Ok(mut draft) => {
                    if draft.says_nothing() {
                        let name = printable(arg.as_bytes());
                        let odd = Diagnostic::warning(format!("`{name}` has no hosts"));
                        draft.warnings.push(odd);
                    }
                    drafts.push(draft);
                }
                Err(mistake) => unread.push(*mistake),
            }
        }
        match join(drafts, unread.is_empty()) {
            Ok(loaded) if unread.is_empty() => Ok(loaded),
            Ok(_) => Err(unread),
            Err(found) => {
                unread.extend(found);
                Err(unread)
            }
        }
    }
}

fn load_one(arg: &str, files: &dyn Files) -> Result<Draft, Box<Diagnostic>> {
    let path = Path::new(arg);
    let shown = printable(arg.as_bytes());
    if files.is_file(path) {
        return load_file(path, files);
    }
    let kind = arg.split(':').next().unwrap_or_default();
    if matches!(kind, "ssh-config" | "vagrant") {
        let message = format!("hosts cannot be taken from `{shown}` yet");
        return Err(Box::new(
            Diagnostic::error(message).help("`-i` takes a YAML file, a plain list, or `a,b`"),
        ));
    }
    if !arg.contains(',') {
        let message = format!("there is no inventory file `{shown}`");
        let help = format!("for a host of that name write `-i {shown},`");
        return Err(Box::new(Diagnostic::error(message).help(help)));
    }
    Ok(list::read(&Arc::new(Source {
        path: "<command line>".into(),
        text: arg.into(),
    })))
}

fn load_file(path: &Path, files: &dyn Files) -> Result<Draft, Box<Diagnostic>> {
    let shown = path.display().to_string();
    let shown = printable(shown.as_bytes());
    let text = files.read(path, FILE_LIMIT).map_err(|e| {
        let cause = match e.kind() {
            io::ErrorKind::FileTooLarge => format!("it is larger than {} MiB", FILE_LIMIT >> 20),
            _ => e.to_string(),
        };
        let message = format!("cannot read the inventory `{shown}`: {cause}");
        Box::new(Diagnostic::error(message))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.starts_with("#!") {
        let message = format!("`{shown}` is a program, and inventory programs cannot be run yet");
        return Err(Box::new(
            Diagnostic::error(message).help("run it, and give `-i` what it printed as a list"),
        ));
    }
    let source = Arc::new(Source {
        path: path.to_owned(),
        text: text.into(),
    });
    Ok(if is_yaml(path, text) {
        yaml::read(&source)
    } else {
        list::read(&source)
    })
}

fn is_yaml(path: &Path, text: &str) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if matches!(
        extension.to_ascii_lowercase().as_str(),
        "yml" | "yaml" | "json"
    ) {
        return true;
    }
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .is_some_and(|line| {
            let line = line.split(" #").next().unwrap_or(line).trim_end();
            line.starts_with(['{', '%'])
                || line.starts_with("---")
                || line.ends_with(':')
                || line.contains(": ")
        })
}
