//! Input that a command has not read yet.
//!
//! russh widens the window of incoming data by itself, and a session that waits for a command to
//! read cannot send that command's output: `cat` would stand still for ever. So input is always
//! taken, and what exceeds a small share of memory goes to an unlinked file.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;

const MEMORY: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Backlog {
    memory: VecDeque<Bytes>,
    held: usize,
    spill: Option<File>,
    read: u64,
    written: u64,
}

impl Backlog {
    /// Adds at the end; `directory` is where the file is made when one is needed.
    pub(super) fn push(&mut self, data: Bytes, directory: &Path) -> io::Result<()> {
        if self.written == self.read && self.held < MEMORY {
            self.held += data.len();
            self.memory.push_back(data);
            return Ok(());
        }
        if self.spill.is_none() {
            self.spill = Some(unlinked_file(directory)?);
        }
        if let Some(file) = &self.spill {
            file.write_all_at(&data, self.written)?;
            self.written += data.len() as u64;
        }
        Ok(())
    }

    /// The oldest bytes, to be given to the command.
    pub(super) fn pop(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(first) = self.memory.pop_front() {
            self.held -= first.len();
            return Ok(Some(first));
        }
        let Some(file) = self.spill.as_ref().filter(|_| self.read < self.written) else {
            return Ok(None);
        };
        let mut block = vec![0; BLOCK.min((self.written - self.read) as usize)];
        file.read_exact_at(&mut block, self.read)?;
        self.read += block.len() as u64;
        if self.read == self.written {
            file.set_len(0)?;
            (self.read, self.written) = (0, 0);
        }
        Ok(Some(block.into()))
    }
}

fn unlinked_file(directory: &Path) -> io::Result<File> {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = directory.join(format!("stdin-{number}"));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn bytes_come_out_in_order(steps in prop::collection::vec((1_usize..400_000, any::<bool>()), 1..24)) {
            let directory = tempfile::tempdir().unwrap();
            let (mut backlog, mut sent, mut got) = (Backlog::default(), Vec::new(), Vec::new());
            for (number, (size, take)) in steps.into_iter().enumerate() {
                let data = vec![number as u8; size];
                sent.extend_from_slice(&data);
                backlog.push(data.into(), directory.path()).unwrap();
                prop_assert!(backlog.held <= MEMORY + 400_000);
                if take {
                    got.extend(backlog.pop().unwrap().unwrap());
                }
            }
            while let Some(block) = backlog.pop().unwrap() {
                got.extend(block);
            }
            prop_assert!(sent == got);
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
