//! Each host's exact output in files of its own, written live: `DIR/HOST.stdout`, `DIR/HOST.stderr`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::event::{Event, Stream, What};
use crate::target::HostName;

/// The files of `--output-dir`.
pub struct RawFiles {
    dir: PathBuf,
    open: HashMap<(HostName, Stream), File>,
    made: std::collections::HashSet<(HostName, Stream)>,
}

/// Files kept open at once; a host that writes again after more than that is opened again.
const OPEN: usize = 128;

impl RawFiles {
    /// Creates the directory, for its owner alone, if it is not there.
    ///
    /// # Errors
    /// One line that names the directory.
    pub fn create(dir: &Path) -> Result<Self, String> {
        super::create_private_dir(dir).map_err(|error| failed(dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            open: HashMap::new(),
            made: std::collections::HashSet::new(),
        })
    }

    /// Appends an event's output.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn write(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Output { host, block, .. } => {
                let key = (host.clone(), block.stream);
                let path = self.path(&key);
                let file = self
                    .file(key, &path)
                    .map_err(|error| failed(&path, &error))?;
                file.write_all(&block.bytes)
                    .map_err(|error| failed(&path, &error))
            }
            What::HostEnd { host, .. } => {
                self.open.remove(&(host.clone(), Stream::Stdout));
                self.open.remove(&(host.clone(), Stream::Stderr));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, key: (HostName, Stream), path: &Path) -> std::io::Result<&mut File> {
        if !self.open.contains_key(&key) {
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            let first = self.made.insert(key.clone());
            let file = if first {
                super::create_private(path)?
            } else {
                OpenOptions::new().append(true).open(path)?
            };
            self.open.insert(key.clone(), file);
        }
        self.open
            .get_mut(&key)
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn path(&self, (host, stream): &(HostName, Stream)) -> PathBuf {
        let ending = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        self.dir.join(format!("{host}.{ending}"))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{} could not be written: {error}", path.display())
}
