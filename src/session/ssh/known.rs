//! The lines of known_hosts files that speak of one host: enough of sshd(8)'s `SSH_KNOWN_HOSTS
//! FILE FORMAT` to check a key and to record a new one.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use hmac::{Hmac, Mac};
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

/// Largest file that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// What the files say of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Known,
    Unknown,
    /// Other keys are recorded for this name: fingerprint and place of each.
    Changed(Vec<(String, String)>),
    /// Where it is revoked.
    Revoked(String),
    /// Only a certificate authority is recorded.
    CertAuthority(String),
}

/// The files of a run, each read once: a thousand hosts usually share one.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<HashMap<PathBuf, Arc<str>>>);

impl Files {
    fn text(&self, file: &Path) -> io::Result<Arc<str>> {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = texts.get(file) {
            return Ok(Arc::clone(text));
        }
        let text: Arc<str> = String::from_utf8_lossy(&read(file)?).into();
        texts.insert(file.to_owned(), Arc::clone(&text));
        Ok(text)
    }

    fn forget(&self, file: &Path) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(file);
    }

    /// Records a key, and sees to it that later hosts find it.
    pub(super) fn record(
        &self,
        file: &Path,
        name: &str,
        key: &PublicKey,
        hash: bool,
    ) -> Result<(), String> {
        let recorded = append(file, name, key, hash);
        self.forget(file);
        recorded.map_err(|e| {
            let reason = super::problem::plain(&e);
            format!("cannot record the key in {}: {reason}", file.display())
        })
    }
}

/// Lines for one host.
#[derive(Debug, Default)]
pub(super) struct Entries {
    lines: Vec<Entry>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    marker: Marker,
    key: PublicKey,
    place: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Host,
    Revoked,
    Authority,
}

impl Entries {
    /// Reads every file; one that does not exist holds nothing, one that cannot be read is an
    /// error, since it might have held a revocation.
    pub(super) fn load(all: &Files, files: &[PathBuf], name: &str) -> Result<Self, String> {
        let mut entries = Self::default();
        for file in files {
            let text = match all.text(file) {
                Ok(text) => text,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    let reason = super::problem::plain(&e);
                    return Err(format!("cannot read {}: {reason}", file.display()));
                }
            };
            let found = Self::of(&text, name, file);
            entries.lines.extend(found.lines);
            entries.warnings.extend(found.warnings);
        }
        Ok(entries)
    }

    /// A line that cannot be read hides nothing: what it might have said about another host is
    /// not ours to guess, and a revocation that it might have been is named in a warning.
    ///
    /// ssh takes the tab behind a marker for part of it where a space follows later in the line,
    /// and so passes over a revocation (`check_markers`, hostfile.c); here it counts.
    fn line(&mut self, line: &str, name: &str, file: &Path, number: usize) {
        // C's strings end at a NUL.
        let line = line.split('\0').next().unwrap_or_default();
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let place = || format!("{}:{number}", file.display());
        let (marker, rest) = match line.split_once([' ', '\t']) {
            Some(("@revoked", rest)) => (Marker::Revoked, rest),
            Some(("@cert-authority", rest)) => (Marker::Authority, rest),
            _ if line.starts_with('@') => {
                return self
                    .warnings
                    .push(format!("{}: unknown marker, line ignored", place()));
            }
            _ => (Marker::Host, line),
        };
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        let (Some(patterns), Some(kind), Some(blob)) = (words.next(), words.next(), words.next())
        else {
            return self
                .warnings
                .push(format!("{}: not a known_hosts line, ignored", place()));
        };
        if !matches(patterns, name) {
            return;
        }
        match public_key(kind, blob) {
            Some(key) => self.lines.push(Entry {
                marker,
                key,
                place: place(),
            }),
            None => self
                .warnings
                .push(format!("{}: unusable key ignored", place())),
        }
    }

    fn of(text: &str, name: &str, file: &Path) -> Self {
        let mut entries = Self::default();
        for (index, line) in text.split('\n').enumerate() {
            entries.line(line, name, file, index + 1);
        }
        entries
    }

    pub(super) fn check(&self, key: &PublicKey) -> Verdict {
        let same = |entry: &&Entry| entry.key.key_data() == key.key_data();
        let of = |marker| self.lines.iter().filter(move |e| e.marker == marker);
        if let Some(entry) = of(Marker::Revoked).find(same) {
            return Verdict::Revoked(entry.place.clone());
        }
        if of(Marker::Host).any(|entry| same(&entry)) {
            return Verdict::Known;
        }
        let others: Vec<(String, String)> = of(Marker::Host)
            .map(|e| (fingerprint(&e.key), e.place.clone()))
            .collect();
        match of(Marker::Authority).next() {
            _ if !others.is_empty() => Verdict::Changed(others),
            Some(entry) => Verdict::CertAuthority(entry.place.clone()),
            None => Verdict::Unknown,
        }
    }

    /// Whether a key of this algorithm is recorded, the first of them unrevoked
    /// (`lookup_key_in_hostkeys_by_type`, hostfile.c).
    pub(super) fn has(&self, algorithm: &Algorithm) -> bool {
        let is_meant = |entry: &&Entry| match (entry.key.algorithm(), algorithm) {
            (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
            (recorded, algorithm) => recorded == *algorithm,
        };
        let mut hosts = self.lines.iter().filter(|e| e.marker == Marker::Host);
        let first = hosts.find(is_meant);
        first.is_some_and(|entry| !matches!(self.check(&entry.key), Verdict::Revoked(_)))
    }
}

/// A key by the names that ssh takes for its kind (`sshkey_type_from_name`, sshkey.c): that of the
/// key, and for RSA those of its signatures.
fn public_key(kind: &str, blob: &str) -> Option<PublicKey> {
    let name = match kind {
        "rsa-sha2-256" | "rsa-sha2-512" => "ssh-rsa",
        _ => kind,
    };
    PublicKey::from_openssh(&format!("{name} {blob}")).ok()
}

/// `SHA256:...`, as `ssh-keygen -l` prints it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(russh::keys::HashAlg::Sha256).to_string()
}

/// The name under which a host is recorded: `name`, or `[name]:port`. An address is written in its
/// one spelling.
pub(super) fn recorded_name(name: &str, port: u16) -> String {
    let name = super::config::canonical(name);
    match port {
        22 => name,
        _ => format!("[{name}]:{port}"),
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(file)?
        .take(LIMIT + 1)
        .read_to_end(&mut text)?;
    // What stands behind the limit might revoke a key.
    if text.len() as u64 > LIMIT {
        let reason = format!("it is larger than {} MiB", LIMIT >> 20);
        return Err(io::Error::other(reason));
    }
    Ok(text)
}

fn matches(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        return hashed_matches(hashed, name).unwrap_or(false);
    }
    let mut found = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if glob(not.to_ascii_lowercase().as_bytes(), name.as_bytes()) => {
                return false;
            }
            Some(_) => {}
            None => found |= glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// As `host_hash` (hostfile.c) has it, the salt is as long as the hash.
fn hashed_matches(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let base64 = base64::engine::general_purpose::STANDARD;
    let salt = base64.decode(salt).ok().filter(|salt| salt.len() == 20)?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&base64.decode(hash).ok()?).is_ok())
}

/// `*` and `?` of ssh_config(5), `PATTERNS`.
pub(super) fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, at)) => {
                    back = Some((star, at + 1));
                    p = star + 1;
                    n = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Appends one line under a lock, so that fanrun and fanrun never mix theirs; ssh, which does not
/// lock, appends in the same way (`O_APPEND`, one write). Appending keeps mode, owner and links of
/// the file. What a full disk cut off is taken back: the file is the old one or the new one.
fn append(file: &Path, name: &str, key: &PublicKey, hash: bool) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(file)?;
    out.lock()?;
    let before = read(file)?;
    let recorded = Entries::of(&String::from_utf8_lossy(&before), name, file);
    match recorded.check(key) {
        // Another process has learnt the same.
        Verdict::Known => return Ok(()),
        Verdict::Unknown | Verdict::CertAuthority(_) => {}
        Verdict::Changed(_) | Verdict::Revoked(_) => {
            return Err(io::Error::other(
                "another key was recorded for it meanwhile",
            ));
        }
    }
    let line = key.to_openssh().map_err(io::Error::other)?;
    let start = if before.last().is_some_and(|&b| b != b'\n') {
        "\n"
    } else {
        ""
    };
    let shown = if hash { hashed(name)? } else { name.to_owned() };
    write_whole(&out, format!("{start}{shown} {line}\n").as_bytes())
}

/// `|1|salt|HMAC-SHA1(salt, name)|` of hostfile.c, `host_hash`.
fn hashed(name: &str) -> io::Result<String> {
    let mut salt = [0; 20];
    rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).map_err(io::Error::other)?;
    mac.update(name.as_bytes());
    let base64 = base64::engine::general_purpose::STANDARD;
    let hash = base64.encode(mac.finalize().into_bytes());
    Ok(format!("|1|{}|{hash}", base64.encode(salt)))
}

fn write_whole(mut out: &File, line: &[u8]) -> io::Result<()> {
    let old = out.metadata()?.len();
    let written = out.write_all(line).and_then(|()| out.sync_all());
    if written.is_err() {
        out.set_len(old)?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("*.example,!bad.example", "a.example"));
        assert!(!matches("*.example,!bad.example", "bad.example"));
        assert!(!matches("*.example,!Bad.EXAMPLE", "bad.example"));
        assert!(matches("[h]:2222", "[h]:2222"));
        assert!(!matches("h", "[h]:2222"));
        assert!(glob(b"a?c*", b"abcdef"));
        assert!(!glob(b"a?c", b"abcd"));
    }

    fn key(n: u8) -> PublicKey {
        let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[n; 32]);
        PublicKey::from(russh::keys::ssh_key::public::KeyData::from(pair.public))
    }

    #[test]
    fn two_hundred_keys_learnt_at_once_are_two_hundred_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/known_hosts");
        std::fs::create_dir(dir.path().join("new")).unwrap();
        std::fs::write(&file, "# no line end").unwrap();
        std::thread::scope(|scope| {
            for n in 0..200u8 {
                let file = &file;
                scope.spawn(move || {
                    Files::default()
                        .record(file, &format!("h{n}"), &key(n), false)
                        .unwrap();
                });
            }
        });
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 201);
        for n in 0..200u8 {
            let entries = Entries::load(
                &Files::default(),
                std::slice::from_ref(&file),
                &format!("h{n}"),
            )
            .unwrap();
            assert_eq!(entries.check(&key(n)), Verdict::Known);
            assert!(entries.warnings.is_empty());
        }
    }

    #[test]
    fn a_key_is_recorded_once_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/known_hosts");
        let files = Files::default();
        files.record(&file, "h", &key(1), false).unwrap();
        files.record(&file, "h", &key(1), false).unwrap();
        assert!(files.record(&file, "h", &key(2), false).is_err());
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 1);
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_name_can_be_recorded_hashed_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        let files = Files::default();
        files
            .record(&file, "[secret.example]:2222", &key(1), true)
            .unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("|1|") && !text.contains("secret"),
            "{text}"
        );
        let found = |name: &str| Entries::of(&text, name, &file).check(&key(1));
        assert_eq!(found("[secret.example]:2222"), Verdict::Known);
        assert_eq!(found("other"), Verdict::Unknown);
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Files::default().record(&link, "h", &key(1), false).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(
            std::fs::read_to_string(&file)
                .unwrap()
                .starts_with("h ssh-ed25519 ")
        );
    }

    #[test]
    fn odd_lines_are_named_and_hide_nothing() {
        let line = key(1).to_openssh().unwrap();
        let text =
            format!("garbage\n@other h {line}\nh ssh-ed25519 AAAA\n@revoked * {line}\nh {line}\n");
        let entries = Entries::of(&text, "h", Path::new("f"));
        assert_eq!(entries.warnings.len(), 3, "{:?}", entries.warnings);
        assert!(entries.warnings[0].starts_with("f:1: "));
        assert_eq!(entries.check(&key(1)), Verdict::Revoked("f:4".into()));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_what_is_not_there_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::default();
        assert!(Entries::load(&files, &[dir.path().join("none")], "h").is_ok());
        assert!(Entries::load(&files, &[dir.path().to_owned()], "h").is_err());
        let huge = dir.path().join("huge");
        File::create(&huge).unwrap().set_len(LIMIT + 1).unwrap();
        assert!(Entries::load(&files, &[huge], "h").is_err());
    }

    #[test]
    fn hashed_names() {
        let base64 = base64::engine::general_purpose::STANDARD;
        let mut mac = Hmac::<Sha1>::new_from_slice(&[7; 20]).unwrap();
        mac.update(b"host");
        let hash = base64.encode(mac.finalize().into_bytes());
        let line = format!("|1|{}|{hash}", base64.encode([7; 20]));
        assert!(matches(&line, "host"));
        assert!(!matches(&line, "other"));
    }
}
