//! The event stream in a file: complete lines, in order, readable while the run goes on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file of `--events`.
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// Creates the file, for its owner alone.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn create(path: &Path) -> Result<Self, String> {
        let file = super::create_private(path).map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(64 << 10, file),
        })
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), String> {
        self.file
            .write_all(lines)
            .map_err(|error| failed(&self.path, &error))
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn flush(&mut self) -> Result<(), String> {
        self.file
            .flush()
            .map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!(
        "the events file {} could not be written: {error}",
        path.display()
    )
}
