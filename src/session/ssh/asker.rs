//! Questions to the person at the terminal. They travel to whoever owns the terminal, one at a
//! time; without a terminal every question is answered with nothing.

use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};

use crate::secret::Secret;

/// Asks people. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asker(Option<mpsc::Sender<Question>>);

/// One question.
#[derive(Debug)]
pub struct Question {
    /// What is asked for.
    pub kind: QuestionKind,
    /// One line or more, printable, labelled with the host or file it is about.
    pub prompt: String,
    /// Where the answer goes; `None` means that nobody answered.
    pub answer: oneshot::Sender<Option<Secret>>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuestionKind {
    /// The passphrase of a key file.
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// An account's password.
    Password {
        /// The account.
        user: String,
        /// The host.
        host: String,
    },
    /// Whether a host's key is right. The answers `yes` and the fingerprint itself are a yes.
    HostKey {
        /// The host.
        host: String,
        /// `SHA256:...`.
        fingerprint: String,
    },
    /// Whether to go on. Only the answer `yes` or `y` is a yes.
    Confirm,
    /// A prompt that the server made up.
    KeyboardInteractive {
        /// The host.
        host: String,
        /// Whether the answer may be seen while it is typed.
        echo: bool,
    },
}

impl Asker {
    /// Nobody is there to ask.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Questions go to `sender`, whose receiver puts them one after the other.
    #[must_use]
    pub fn new(sender: mpsc::Sender<Question>) -> Self {
        Self(Some(sender))
    }

    /// Whether somebody could answer.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// Asks whether to go on; `None` where nobody answers. Cancel-safe.
    pub async fn confirm(&self, prompt: String) -> Option<bool> {
        let answer = self.answer(prompt).await?;
        Some(matches!(answer.as_str(), "yes" | "y"))
    }

    /// Asks for a word, in lower case; `None` where nobody answers. Cancel-safe.
    pub async fn answer(&self, prompt: String) -> Option<String> {
        let answer = self.ask(QuestionKind::Confirm, prompt).await?;
        Some(answer.reveal().trim().to_ascii_lowercase())
    }

    /// Asks, and waits for as long as it takes.
    pub(super) async fn ask(&self, kind: QuestionKind, prompt: String) -> Option<Secret> {
        let sender = self.0.as_ref()?;
        let (answer, receiver) = oneshot::channel();
        let question = Question {
            kind,
            prompt,
            answer,
        };
        sender.send(question).await.ok()?;
        receiver.await.ok().flatten()
    }
}
