//! The files that say what is to be done. Each is read once, and what was read is what is run,
//! whatever becomes of the file meanwhile; its checksum is told when the run begins.

use std::cell::RefCell;
use std::fs::Metadata;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::diagnostic::Diagnostic;
use crate::event::ReadFile;
use crate::playbook::{self, MAX_BYTES};

/// What was read so far.
#[derive(Default)]
pub(super) struct Sources {
    files: RefCell<Vec<ReadFile>>,
    warnings: RefCell<Vec<Diagnostic>>,
}

/// Why a file gives no text.
pub(super) enum Unread {
    Io(io::Error),
    TooLarge,
    /// The first byte that does not belong into UTF-8 text.
    NotText(usize),
}

impl Sources {
    /// The text of a file.
    pub(super) fn read(&self, path: &Path) -> Result<String, Unread> {
        let file = std::fs::File::open(path).map_err(Unread::Io)?;
        let open_to = file.metadata().map_err(Unread::Io)?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(Unread::Io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Unread::TooLarge);
        }
        let sum = Sha256::digest(&bytes);
        let text = String::from_utf8(bytes)
            .map_err(|error| Unread::NotText(error.utf8_error().valid_up_to()))?;
        self.files.borrow_mut().push(ReadFile {
            path: path.display().to_string(),
            sha256: sum.iter().map(|byte| format!("{byte:02x}")).collect(),
        });
        self.warnings
            .borrow_mut()
            .extend(open_to_all(path, &open_to));
        Ok(text)
    }

    /// A file that a playbook includes; why it cannot be in a few words.
    pub(super) fn include(&self, path: &Path) -> Result<String, String> {
        self.read(path).map_err(|unread| match unread {
            Unread::Io(error) if error.kind() == ErrorKind::NotFound => {
                format!("does not exist ({})", path.display())
            }
            Unread::Io(error) => format!("cannot be read: {error}"),
            Unread::TooLarge => format!("is larger than {} MiB", MAX_BYTES >> 20),
            Unread::NotText(at) => not_text(at),
        })
    }

    /// What was read, and what was odd about it.
    pub(super) fn into_parts(self) -> (Vec<ReadFile>, Vec<Diagnostic>) {
        (self.files.into_inner(), self.warnings.into_inner())
    }
}

impl Unread {
    pub(super) fn fault(self, path: &Path) -> super::Fault {
        let text = match self {
            Self::Io(error) => format!("cannot be read: {error}"),
            Self::NotText(at) => not_text(at),
            Self::TooLarge => return super::Fault::Wrong(vec![playbook::too_large(path)]),
        };
        super::Fault::usage(format!("`{}` {text}", path.display()))
    }
}

fn not_text(at: usize) -> String {
    format!("is not UTF-8 text: the byte at offset {at} does not belong there")
}

/// Commands in a file that anybody may change are anybody's commands.
fn open_to_all(path: &Path, file: &Metadata) -> Option<Diagnostic> {
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let warn = |what: String, fix: String| Some(Diagnostic::warning(what).help(fix));
    let shown = path.display();
    let mode = file.permissions().mode();
    if file.is_file() && mode & OTHERS_WRITE != 0 {
        return warn(
            format!("every user of this machine can change `{shown}`"),
            format!("chmod o-w {shown}"),
        );
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mode = folder.metadata().ok()?.permissions().mode();
    if file.is_file() && mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let folder = folder.display();
        return warn(
            format!("every user of this machine can replace `{shown}`: `{folder}` is open to all"),
            format!("chmod o-w {folder}"),
        );
    }
    None
}
