//! Whether a server is who it should be. Asked before a single byte of authentication is sent.

use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use super::asker::{Asker, QuestionKind};
use super::known::{self, Entries, Files, Verdict};
use super::state::{Facts, HostKeyFact, Note};
use super::{Verified, problem};
use crate::outcome::{Cause, HostProblem};
use crate::target::{Dial, HostKeyPolicy};

/// How often a question is put before it counts as answered with no.
const ASKED: usize = 3;

/// The check for one connection.
#[derive(Debug)]
pub(super) struct HostKeyCheck {
    at: String,
    name: String,
    record_in: Option<PathBuf>,
    hash: bool,
    policy: HostKeyPolicy,
    entries: Entries,
    /// What is known of the name without the port.
    portless: Option<Entries>,
    files: Arc<Files>,
    asker: Asker,
}

impl HostKeyCheck {
    /// Reads what is known of the host.
    pub(super) fn load(dial: &Dial, asker: &Asker, all: &Arc<Files>) -> Result<Self, HostProblem> {
        // An alias stands for the host as a whole: it is recorded without a port (sshconnect.c,
        // get_hostfile_hostname_ipaddr).
        let is_alias = dial.known_as != dial.address;
        let name = match is_alias {
            true => dial.known_as.to_ascii_lowercase(),
            false => known::recorded_name(&dial.known_as, dial.port),
        };
        let files = [dial.known_hosts.as_slice(), &dial.global_known_hosts].concat();
        let load = |name: &str| {
            Entries::load(all, &files, name).map_err(|reason| {
                problem::new(
                    Cause::HostKey,
                    format!("the host key cannot be checked: {reason}"),
                )
            })
        };
        let entries = load(&name)?;
        // OpenSSH accepts a key that is recorded without the port (sshconnect.c, "checking without
        // port identifier"), unless the name is an alias.
        let portless = match dial.port != 22 && !is_alias {
            true => Some(load(&dial.known_as.to_ascii_lowercase())?),
            false => None,
        };
        Ok(Self {
            files: Arc::clone(all),
            portless,
            at: problem::endpoint(dial),
            name,
            record_in: dial.known_hosts.first().cloned(),
            hash: dial.hash_known_hosts,
            policy: dial.host_key_policy,
            entries,
            asker: asker.clone(),
        })
    }

    pub(super) fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.entries.warnings)
    }

    /// Host-key algorithms to offer, those of recorded keys first (RFC 4253, section 7.1 lets the
    /// client's order decide), unless the best of all is among them: then the order stays
    /// (`order_hostkeyalgs`, sshconnect2.c). `ssh-rsa`, which signs with SHA-1, is not offered.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        if self.entries.has(&ALGORITHMS[0]) {
            return ALGORITHMS.to_vec();
        }
        let is_known = |algorithm: &Algorithm| self.entries.has(algorithm);
        let (mut first, rest): (Vec<_>, Vec<_>) = ALGORITHMS.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    /// Accepts or refuses `key`, and says so in `facts`.
    pub(super) async fn check(&self, key: &PublicKey, facts: &Facts) -> bool {
        if let Some(first) = facts.host_key.get() {
            let same = first.key.key_data() == key.key_data();
            if !same {
                let _ = facts
                    .gone
                    .set("the host key changed during the session".to_owned());
            }
            return same;
        }
        match self.judge(key, facts).await {
            Ok(verified) => {
                let key = key.clone();
                let _ = facts.host_key.set(HostKeyFact { key, verified });
                true
            }
            Err(refusal) => {
                let _ = facts.refusal.set(refusal);
                false
            }
        }
    }

    async fn judge(&self, key: &PublicKey, facts: &Facts) -> Result<Verified, HostProblem> {
        let refuse = |message: String| problem::new(Cause::HostKey, message);
        match self.entries.check(key) {
            Verdict::Known => Ok(Verified::Known),
            Verdict::Unknown => match self.portless.as_ref().map(|known| known.check(key)) {
                Some(Verdict::Known) => Ok(Verified::Known),
                // ssh would go on as with any unknown key, and might record it.
                Some(Verdict::Revoked(place)) => Err(self.revoked(key, place)),
                _ => self.unknown(key, facts).await,
            },
            Verdict::Changed(recorded) => Err(self.changed(key, &recorded)),
            Verdict::Revoked(place) => Err(self.revoked(key, place)),
            Verdict::CertAuthority(place) => {
                let mut problem = refuse(format!(
                    "the host key of {} is vouched for by a certificate authority only, \
                     which cannot be verified yet",
                    self.at
                ));
                problem.details.push(("recorded in", place));
                Err(problem)
            }
        }
    }

    fn revoked(&self, key: &PublicKey, place: String) -> HostProblem {
        let message = format!("the host key of {} is revoked", self.at);
        let mut problem = problem::new(Cause::HostKey, message);
        problem
            .details
            .push(("server sent", known::fingerprint(key)));
        problem.details.push(("revoked in", place));
        problem
    }

    fn changed(&self, key: &PublicKey, recorded: &[(String, String)]) -> HostProblem {
        let mut problem = problem::new(
            Cause::HostKey,
            format!("the host key of {} has changed", self.at),
        );
        let sent = format!("{} {}", key.algorithm(), known::fingerprint(key));
        problem.details.push(("server sent", sent));
        for (fingerprint, place) in recorded {
            let line = format!("{fingerprint} ({place})");
            problem.details.push(("recorded", line));
        }
        problem.details.push((
            "help",
            format!(
                "somebody may be reading along; if the host was really given a new key, run: \
                 ssh-keygen -R '{}'",
                self.name
            ),
        ));
        problem
    }

    async fn unknown(&self, key: &PublicKey, facts: &Facts) -> Result<Verified, HostProblem> {
        let fingerprint = known::fingerprint(key);
        let wanted = match self.policy {
            HostKeyPolicy::Strict => false,
            HostKeyPolicy::AcceptNew => true,
            HostKeyPolicy::Ask => self.ask(key, &fingerprint, facts).await,
        };
        if !wanted {
            let mut problem = problem::new(
                Cause::HostKey,
                format!("the host key of {} is not known", self.at),
            );
            let sent = format!("{} {fingerprint}", key.algorithm());
            problem.details.push(("server sent", sent));
            problem.details.push((
                "help",
                format!(
                    "check the fingerprint, then add the key to known_hosts as `{}`, or run \
                     again with --host-key accept-new",
                    self.name
                ),
            ));
            return Err(problem);
        }
        Ok(Verified::AcceptedNew {
            recorded: self.record(key, facts).await,
        })
    }

    /// The fingerprint or `yes` is a yes, `no` or nothing a no; anything else is asked again, as
    /// `confirm` (sshconnect.c) does, but not for ever.
    async fn ask(&self, key: &PublicKey, fingerprint: &str, facts: &Facts) -> bool {
        let found = format!("unknown host key, {} {fingerprint}", key.algorithm());
        let mut prompt = self.question(&found);
        for _ in 0..ASKED {
            let kind = QuestionKind::HostKey {
                host: self.at.clone(),
                fingerprint: fingerprint.to_owned(),
            };
            let answer = super::paused(facts, self.asker.ask(kind, prompt)).await;
            let Some(answer) = answer else { return false };
            match answer.reveal().trim() {
                yes if yes.eq_ignore_ascii_case("yes") || yes == fingerprint => return true,
                no if no.is_empty() || no.eq_ignore_ascii_case("no") => return false,
                _ => prompt = self.question("that is neither `yes`, `no` nor the fingerprint"),
            }
        }
        false
    }

    fn question(&self, why: &str) -> String {
        let at = &self.at;
        format!("{at}: {why}; accept and record it (yes/no, or the fingerprint)? ")
    }

    async fn record(&self, key: &PublicKey, facts: &Facts) -> bool {
        let Some(file) = self.record_in.clone() else {
            facts.note(Note::Warning(
                "the new host key is not recorded: there is no known_hosts file".to_owned(),
            ));
            return false;
        };
        let (name, key, hash) = (self.name.clone(), key.clone(), self.hash);
        let files = Arc::clone(&self.files);
        let recorded =
            tokio::task::spawn_blocking(move || files.record(&file, &name, &key, hash)).await;
        match recorded {
            Ok(Ok(())) => true,
            Ok(Err(warning)) => {
                facts.note(Note::Warning(warning));
                false
            }
            Err(_) => false,
        }
    }
}

const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
];
