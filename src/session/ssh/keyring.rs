//! Private key files: each is read and decrypted once in a run, whoever asks first.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::{self, Kdf};
use russh::keys::{PrivateKey, PublicKey};
use tokio::sync::{Mutex, OnceCell};

use super::asker::{Asker, QuestionKind};
use super::state::Facts;

/// Largest key file that is read, in bytes.
const LIMIT: u64 = 1 << 20;
/// `ssh-keygen -a` takes 16 by default; 1024 rounds take about a quarter of a minute.
const ROUNDS: u32 = 1024;

/// What a key file holds.
#[derive(Debug, Clone)]
pub(super) enum KeyFile {
    /// A key that can sign.
    Usable(Arc<PrivateKey>),
    /// There is no such file.
    Missing,
    /// It cannot be used, and why.
    Refused(String),
    /// A passphrase is needed. The public half is known if the format shows it.
    Encrypted {
        text: zeroize::Zeroizing<String>,
        public: Option<Box<PublicKey>>,
    },
}

/// All key files of a run.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    files: Mutex<HashMap<PathBuf, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    file: OnceCell<KeyFile>,
    unlocked: OnceCell<KeyFile>,
}

impl Keyring {
    async fn slot(&self, path: &Path) -> Arc<Slot> {
        let mut files = self.files.lock().await;
        Arc::clone(files.entry(path.to_owned()).or_default())
    }

    /// The file as it stands, without asking anybody.
    pub(super) async fn look(&self, path: &Path) -> KeyFile {
        let slot = self.slot(path).await;
        if let Some(unlocked) = slot.unlocked.get() {
            return unlocked.clone();
        }
        let owned = path.to_owned();
        let load = || async move {
            tokio::task::spawn_blocking(move || load(&owned))
                .await
                .unwrap_or_else(|_| KeyFile::Refused("cannot be read".to_owned()))
        };
        slot.file.get_or_init(load).await.clone()
    }

    /// The file's key, asking for the passphrase once in a run.
    pub(super) async fn unlock(&self, path: &Path, asker: &Asker, facts: &Facts) -> KeyFile {
        let file = self.look(path).await;
        let KeyFile::Encrypted { text, .. } = &file else {
            return file;
        };
        if !asker.is_present() {
            let reason = "encrypted, and there is no terminal to ask on";
            return KeyFile::Refused(reason.to_owned());
        }
        let slot = self.slot(path).await;
        // Hosts that wait for the same answer wait for a person just as well.
        let opened = slot.unlocked.get_or_init(|| ask(path, text.clone(), asker));
        super::paused(facts, opened).await.clone()
    }
}

async fn ask(path: &Path, text: zeroize::Zeroizing<String>, asker: &Asker) -> KeyFile {
    // As many tries as ssh gives by default (NumberOfPasswordPrompts).
    for _ in 0..3 {
        let kind = QuestionKind::Passphrase {
            path: path.to_owned(),
        };
        let prompt = format!("passphrase of {}: ", path.display());
        let Some(passphrase) = asker.ask(kind, prompt).await else {
            return KeyFile::Refused("encrypted, and no passphrase was given".to_owned());
        };
        let text = text.clone();
        let opened = tokio::task::spawn_blocking(move || {
            russh::keys::decode_secret_key(&text, Some(passphrase.reveal()))
        });
        if let Ok(Ok(key)) = opened.await {
            return KeyFile::Usable(Arc::new(key));
        }
    }
    KeyFile::Refused("encrypted, and the passphrase was wrong".to_owned())
}

fn load(path: &Path) -> KeyFile {
    let text = match read(path) {
        Ok(text) => text,
        Err(file) => return file,
    };
    if let Some(refused) = too_many_rounds(&text) {
        return refused;
    }
    match russh::keys::decode_secret_key(&text, None) {
        Ok(key) => KeyFile::Usable(Arc::new(key)),
        Err(russh::keys::Error::KeyIsEncrypted) => KeyFile::Encrypted {
            public: public_half(path, &text),
            text,
        },
        Err(_) if PrivateKey::from_openssh(&*text).is_ok_and(|key| key.is_encrypted()) => {
            KeyFile::Encrypted {
                public: public_half(path, &text),
                text,
            }
        }
        Err(_) => KeyFile::Refused("not a private key that can be read".to_owned()),
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, KeyFile> {
    let refused = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => KeyFile::Missing,
        std::io::ErrorKind::InvalidData => KeyFile::Refused("not a private key".to_owned()),
        _ => KeyFile::Refused(super::problem::plain(&e)),
    };
    let file = std::fs::File::open(path).map_err(refused)?;
    let meta = file.metadata().map_err(refused)?;
    if !meta.is_file() {
        return Err(KeyFile::Refused("not a regular file".to_owned()));
    }
    // sshkey_perm_ok (authfile.c) asks this only of the user's own files.
    let own = meta.uid() == rustix::process::getuid().as_raw();
    if own && meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(KeyFile::Refused(format!(
            "mode {mode:04o} lets others read it; ssh refuses such a key too, run: chmod 600"
        )));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(LIMIT)
        .read_to_string(&mut text)
        .map_err(refused)?;
    Ok(text)
}

fn too_many_rounds(text: &str) -> Option<KeyFile> {
    match PrivateKey::from_openssh(text).ok()?.kdf() {
        Kdf::Bcrypt { rounds, .. } if *rounds > ROUNDS => Some(KeyFile::Refused(format!(
            "its passphrase takes {rounds} rounds of bcrypt, more than {ROUNDS}"
        ))),
        _ => None,
    }
}

fn public_half(path: &Path, text: &str) -> Option<Box<PublicKey>> {
    if let Ok(key) = PrivateKey::from_openssh(text) {
        return Some(Box::new(key.public_key().clone()));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    ssh_key::PublicKey::read_openssh_file(Path::new(&name))
        .ok()
        .map(Box::new)
}
