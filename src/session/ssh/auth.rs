//! Authentication, in the order of ssh(1): keys that the user named and the agent holds, other
//! keys of the agent, key files, keyboard-interactive, password.
//!
//! The server's list of methods comes with its first refusal; the `none` request that asks for it
//! costs a round trip, so it is sent only when there is no key to try.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Interactive};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};

use super::agent::Agent;
use super::asker::{Asker, QuestionKind};
use super::handler::Client;
use super::keyring::{KeyFile, Keyring};
use super::known::fingerprint;
use super::problem;
use super::state::Facts;
use crate::outcome::{Cause, HostProblem, Phase};
use crate::secret::Secret;
use crate::target::Dial;
use crate::text::printable;

/// Prompts answered in one keyboard-interactive dialogue, and rounds of it.
const PROMPTS: usize = 8;
const ROUNDS: usize = 8;
/// Keys tried: more than any server allows (`MaxAuthTries` is 6 by default).
const KEYS: usize = 20;

/// One host's authentication.
pub(super) struct Login<'a> {
    pub(super) handle: &'a mut Handle<Client>,
    pub(super) dial: &'a Dial,
    pub(super) facts: &'a Facts,
    pub(super) keyring: &'a Keyring,
    pub(super) asker: &'a Asker,
    methods: Option<MethodSet>,
    tried: Vec<String>,
    not_tried: Vec<String>,
    rsa_hash: Option<Option<HashAlg>>,
}

enum Candidate {
    Agent { key: PublicKey, label: String },
    File { path: PathBuf, label: String },
}

type Step = Result<Option<String>, HostProblem>;

/// How the server let us in.
#[derive(Debug)]
pub(super) struct LoggedIn {
    /// In words.
    pub(super) how: String,
    /// The same would work again and nobody would notice: with a key that no finger has to confirm.
    pub(super) silently: bool,
}

/// Keys of FIDO devices (OpenSSH's `PROTOCOL.u2f`) sign when they are touched.
fn wants_a_touch(key: &PublicKey) -> bool {
    let kind = key.algorithm();
    matches!(kind, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

impl<'a> Login<'a> {
    pub(super) fn new(
        handle: &'a mut Handle<Client>,
        dial: &'a Dial,
        facts: &'a Facts,
        keyring: &'a Keyring,
        asker: &'a Asker,
    ) -> Self {
        Self {
            handle,
            dial,
            facts,
            keyring,
            asker,
            methods: None,
            tried: Vec::new(),
            not_tried: Vec::new(),
            rsa_hash: None,
        }
    }

    /// Goes through the methods.
    pub(super) async fn run(mut self) -> Result<LoggedIn, HostProblem> {
        let mut agent = self.agent().await;
        let candidates = self.candidates(agent.as_ref()).await;
        if candidates.is_empty()
            && let Some(how) = self.none().await?
        {
            return Ok(LoggedIn {
                how,
                silently: false,
            });
        }
        if let Some(done) = self.keys(candidates, &mut agent).await? {
            return Ok(done);
        }
        let how = self.by_password().await?;
        Ok(LoggedIn {
            how,
            silently: false,
        })
    }

    async fn by_password(&mut self) -> Result<String, HostProblem> {
        if self.may(MethodKind::KeyboardInteractive)
            && let Some(how) = self.interactive().await?
        {
            return Ok(how);
        }
        if self.may(MethodKind::Password)
            && let Some(how) = self.password().await?
        {
            return Ok(how);
        }
        Err(self.refused())
    }

    fn may(&self, method: MethodKind) -> bool {
        self.methods
            .as_ref()
            .is_none_or(|methods| methods.contains(&method))
    }

    /// Takes a refusal in; an ended connection becomes a problem.
    fn failure(&mut self, methods: MethodSet, partial: bool) -> Result<(), HostProblem> {
        if methods.is_empty() && self.handle.is_closed() {
            return Err(self.closed());
        }
        if partial && let Some(last) = self.tried.last_mut() {
            *last = last.replace("rejected", "accepted, more is required");
        }
        self.methods = Some(methods);
        Ok(())
    }

    fn take(&mut self, result: AuthResult, how: String) -> Step {
        match result {
            AuthResult::Success => Ok(Some(how)),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                self.tried.push(format!("{how} rejected"));
                self.failure(remaining_methods, partial_success)?;
                Ok(None)
            }
        }
    }

    async fn none(&mut self) -> Step {
        let user = self.dial.user.as_str();
        let asked = self.handle.authenticate_none(user);
        match answer(self.dial, self.facts, "the first request", asked).await? {
            Ok(AuthResult::Success) => Ok(Some("none".to_owned())),
            Ok(AuthResult::Failure {
                remaining_methods,
                partial_success,
            }) => {
                self.failure(remaining_methods, partial_success)?;
                Ok(None)
            }
            Err(_) => Err(self.closed()),
        }
    }

    async fn agent(&mut self) -> Option<Agent> {
        let path = self.dial.agent.as_ref()?;
        match Agent::connect(path).await {
            Ok(agent) => Some(agent),
            Err(reason) => {
                self.not_tried
                    .push(format!("agent at {} ({reason})", path.display()));
                None
            }
        }
    }

    /// Keys in the order in which they are offered (`pubkey_prepare` in sshconnect2.c).
    async fn candidates(&mut self, agent: Option<&Agent>) -> Vec<Candidate> {
        let held = agent.map(|a| a.keys.as_slice()).unwrap_or_default();
        let mut named = vec![false; held.len()];
        let (mut first, mut files) = (Vec::new(), Vec::new());
        for identity in &self.dial.identities {
            let label = identity.path.display().to_string();
            let public = match self.keyring.look(&identity.path).await {
                KeyFile::Usable(key) => Some(key.public_key().clone()),
                KeyFile::Encrypted { public, .. } => public.map(|key| *key),
                KeyFile::Missing if !identity.explicit => continue,
                KeyFile::Missing => {
                    self.not_tried
                        .push(format!("{label} (there is no such file)"));
                    continue;
                }
                KeyFile::Refused(reason) => {
                    self.not_tried.push(format!("{label} ({reason})"));
                    continue;
                }
            };
            let at = public.as_ref().and_then(|public| {
                held.iter()
                    .position(|(key, _)| key.key_data() == public.key_data())
            });
            match at {
                Some(at) => {
                    named[at] = true;
                    first.push(agent_key(&held[at]));
                }
                None => files.push(Candidate::File {
                    path: identity.path.clone(),
                    label,
                }),
            }
        }
        if !self.dial.identities_only {
            let others = held.iter().zip(&named).filter(|(_, named)| !**named);
            first.extend(others.map(|(key, _)| agent_key(key)));
        }
        first.extend(files);
        first.truncate(KEYS);
        first
    }

    async fn keys(
        &mut self,
        candidates: Vec<Candidate>,
        agent: &mut Option<Agent>,
    ) -> Result<Option<LoggedIn>, HostProblem> {
        for candidate in candidates {
            if !self.may(MethodKind::PublicKey) {
                break;
            }
            let (how, silently) = match candidate {
                Candidate::Agent { key, label } => match agent {
                    Some(agent) => {
                        let touched = wants_a_touch(&key);
                        (self.agent_key(agent, key, label).await?, !touched)
                    }
                    None => (None, false),
                },
                Candidate::File { path, label } => (self.file(&path, label).await?, true),
            };
            if let Some(how) = how {
                return Ok(Some(LoggedIn { how, silently }));
            }
        }
        Ok(None)
    }

    async fn agent_key(&mut self, agent: &mut Agent, key: PublicKey, label: String) -> Step {
        let how = format!("{label} {}", fingerprint(&key));
        let hash = self.hash_for(&key.algorithm()).await;
        let user = self.dial.user.as_str();
        let asked = self
            .handle
            .authenticate_publickey_with(user, key, hash, agent);
        match answer(self.dial, self.facts, &label, asked).await? {
            Ok(result) => self.take(result, how),
            Err(super::agent::AgentError::Session(_)) => Err(self.closed()),
            Err(e) => {
                self.tried.push(format!("{how} ({e})"));
                Ok(None)
            }
        }
    }

    async fn file(&mut self, path: &Path, label: String) -> Step {
        match self.keyring.unlock(path, self.asker, self.facts).await {
            KeyFile::Usable(key) => self.private_key(key, label).await,
            KeyFile::Refused(reason) => {
                self.not_tried.push(format!("{label} ({reason})"));
                Ok(None)
            }
            KeyFile::Missing | KeyFile::Encrypted { .. } => Ok(None),
        }
    }

    async fn private_key(&mut self, key: Arc<PrivateKey>, label: String) -> Step {
        let how = format!("{label} {}", fingerprint(key.public_key()));
        let hash = self.hash_for(&key.algorithm()).await;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let user = self.dial.user.as_str();
        let asked = self.handle.authenticate_publickey(user, key);
        match answer(self.dial, self.facts, &label, asked).await? {
            Ok(result) => self.take(result, how),
            Err(_) => Err(self.closed()),
        }
    }

    /// SHA-2 for RSA (RFC 8332), by the server's `server-sig-algs` where it sent that.
    async fn hash_for(&mut self, algorithm: &Algorithm) -> Option<HashAlg> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return None;
        }
        if self.rsa_hash.is_none() {
            let best = self.handle.best_supported_rsa_hash().await.ok().flatten();
            self.rsa_hash = Some(best.flatten());
        }
        self.rsa_hash.flatten().or(Some(HashAlg::Sha512))
    }

    async fn interactive(&mut self) -> Step {
        if !self.asker.is_present() && self.dial.password.is_none() {
            self.not_tried
                .push("keyboard-interactive (there is no terminal to ask on)".to_owned());
            return Ok(None);
        }
        let user = self.dial.user.as_str();
        const STEP: &str = "keyboard-interactive";
        let asked = self
            .handle
            .authenticate_keyboard_interactive_start(user, None::<String>);
        let mut reply = answer(self.dial, self.facts, STEP, asked).await?;
        let mut password = self.dial.password.clone();
        for _ in 0..ROUNDS {
            let (instructions, prompts) = match reply {
                Ok(Interactive::Success) => return Ok(Some("keyboard-interactive".to_owned())),
                Ok(Interactive::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    self.tried.push("keyboard-interactive rejected".to_owned());
                    self.failure(remaining_methods, partial_success)?;
                    return Ok(None);
                }
                Ok(Interactive::InfoRequest {
                    instructions,
                    prompts,
                    ..
                }) => (instructions, prompts),
                Err(_) => return Err(self.closed()),
            };
            let answers = self.answers(&instructions, &prompts, &mut password).await;
            if answers.is_none() {
                let prompts = crate::text::count(prompts.len(), "prompt");
                self.not_tried.push(format!(
                    "keyboard-interactive ({prompts} that nobody answered)"
                ));
            }
            // Without any reply russh would wait for one and send nothing else; no answers at all
            // are refused by the server, and the next method can follow.
            let answers = answers.unwrap_or_default();
            let asked = self
                .handle
                .authenticate_keyboard_interactive_respond(answers);
            reply = answer(self.dial, self.facts, STEP, asked).await?;
        }
        self.tried
            .push("keyboard-interactive (too many rounds)".to_owned());
        Ok(None)
    }

    async fn answers(
        &self,
        instructions: &str,
        prompts: &[russh::client::Prompt],
        password: &mut Option<Secret>,
    ) -> Option<Vec<String>> {
        if prompts.len() > PROMPTS {
            return None;
        }
        if let [only] = prompts
            && !only.echo
            && let Some(password) = password.take()
        {
            return Some(vec![password.reveal().to_owned()]);
        }
        let at = problem::endpoint(self.dial);
        let mut answers = Vec::new();
        for prompt in prompts {
            let kind = QuestionKind::KeyboardInteractive {
                host: at.clone(),
                echo: prompt.echo,
            };
            let text = format!("{}{}", short(instructions), short(&prompt.prompt));
            let question = format!("{}@{at}: {text}", self.dial.user);
            let answer = super::paused(self.facts, self.asker.ask(kind, question)).await?;
            answers.push(answer.reveal().to_owned());
        }
        Some(answers)
    }

    async fn password(&mut self) -> Step {
        let user = self.dial.user.as_str();
        let at = problem::endpoint(self.dial);
        let password = match &self.dial.password {
            Some(password) => Some(password.clone()),
            None => {
                let kind = QuestionKind::Password {
                    user: user.to_owned(),
                    host: at.clone(),
                };
                let question = format!("password of {user}@{at}: ");
                super::paused(self.facts, self.asker.ask(kind, question)).await
            }
        };
        let Some(password) = password else {
            self.not_tried.push(if self.asker.is_present() {
                "password (none was given)".to_owned()
            } else {
                "password (there is no terminal to ask on)".to_owned()
            });
            return Ok(None);
        };
        let (came, banners) = (self.facts.came(), self.facts.banners());
        let asked = self.handle.authenticate_password(user, password.reveal());
        match answer(self.dial, self.facts, "the password", asked).await {
            Ok(Ok(result)) => self.take(result, "password".to_owned()),
            Ok(Err(_)) => Err(self.closed()),
            // It did answer, and neither with yes nor with no: what is left is the demand for a
            // new password (RFC 4252, section 8), which is not passed on to us. A banner (section
            // 5.4) is no answer: a server that sends one and then nothing has stalled.
            Err(_) if self.facts.came() > came && self.facts.banners() == banners => {
                self.tried
                    .push("password (the server wants a new one to be set first)".to_owned());
                Err(self.refused())
            }
            Err(stalled) => Err(stalled),
        }
    }

    /// The connection ended. After a rejection that is how servers say "no more".
    fn closed(&self) -> HostProblem {
        match (self.facts.disconnect.get(), self.tried.is_empty()) {
            (Some(_), false) => self.refused(),
            _ => {
                let mut problem = problem::failed(self.dial, self.facts, &russh::Error::Disconnect);
                problem.cause = match problem.cause {
                    Cause::Closed(_) => Cause::Closed(Phase::Auth),
                    other => other,
                };
                problem
            }
        }
    }

    fn refused(&self) -> HostProblem {
        let user = &self.dial.user;
        let at = problem::endpoint(self.dial);
        let mut problem = problem::new(
            Cause::Authentication,
            format!("authentication refused for {user}@{at}"),
        );
        let details = &mut problem.details;
        // Where accounts are locked or expired, that is what a banner says.
        let said = self.facts.disconnect.get().or(self.facts.banner.get());
        if let Some(said) = said {
            details.push(("server said", said.clone()));
        }
        if let Some(methods) = &self.methods {
            let names: Vec<&str> = methods.iter().map(Into::into).collect();
            details.push(("server accepts", names.join(", ")));
        }
        if self.tried.is_empty() {
            details.push((
                "tried",
                "nothing: there was no key or password to try".into(),
            ));
        } else {
            details.push(("tried", self.tried.join(", ")));
        }
        if !self.not_tried.is_empty() {
            details.push(("not tried", self.not_tried.join(", ")));
        }
        details.push(("user came from", self.dial.user_origin.clone()));
        details.push((
            "help",
            format!("add the public key to {user}'s authorized_keys, or set `user` or `identity`"),
        ));
        problem
    }
}

/// Waits for the server's answer to one request of authentication, for a share of the time that
/// connecting may take: russh itself would wait for ever.
async fn answer<T>(
    dial: &Dial,
    facts: &Facts,
    step: &str,
    asked: impl Future<Output = T>,
) -> Result<T, HostProblem> {
    let share = dial.connect_timeout * 2 / 3;
    let answered = tokio::time::timeout(share, asked).await;
    answered.map_err(|_| problem::no_answer(dial, facts, step, share))
}

fn agent_key((key, comment): &(PublicKey, String)) -> Candidate {
    let comment = crate::text::fit(&printable(comment.as_bytes()), 60).into_owned();
    Candidate::Agent {
        key: key.clone(),
        label: format!("agent key \"{comment}\""),
    }
}

/// A server's text in a prompt: printable and short.
fn short(text: &str) -> String {
    let mut text = text.trim_start().to_owned();
    if let Some((end, _)) = text.char_indices().nth(400) {
        text.truncate(end);
    }
    printable(text.as_bytes()).into_owned()
}
