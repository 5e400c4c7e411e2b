//! The authentication agent: asked over a connection of its own for every host, because one
//! connection serves one request at a time, and always under a deadline.

use std::path::Path;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PublicKey};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an agent may take to connect and to list its keys.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to sign: a person may have to touch a token.
const SIGN: Duration = Duration::from_secs(30);

/// A connection to an agent.
pub(super) struct Agent {
    client: AgentClient<UnixStream>,
    /// What it holds: keys and their comments.
    pub(super) keys: Vec<(PublicKey, String)>,
}

/// Why the agent did not sign.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error("the connection ended")]
    Session(#[from] russh::SendError),
    #[error("the agent would not sign")]
    Refused,
    #[error("the agent did not sign within {}", crate::text::duration(SIGN))]
    Slow,
}

impl Agent {
    /// Connects and lists keys. The error is one line.
    pub(super) async fn connect(path: &Path) -> Result<Self, String> {
        let open = async {
            let stream = UnixStream::connect(path)
                .await
                .map_err(|e| super::problem::plain(&e))?;
            let mut client = AgentClient::connect(stream);
            let identities = client
                .request_identities()
                .await
                .map_err(|_| "it gave no list of keys".to_owned())?;
            Ok::<_, String>((client, identities))
        };
        let (client, identities) = timeout(ANSWER, open)
            .await
            .map_err(|_| "it did not answer".to_owned())??;
        let keys = identities
            .into_iter()
            .filter_map(|identity| match identity {
                AgentIdentity::PublicKey { key, comment } => Some((key, comment)),
                AgentIdentity::Certificate { .. } => None,
            })
            .collect();
        Ok(Self { client, keys })
    }
}

impl russh::Signer for Agent {
    type Error = AgentError;

    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, AgentError> {
        match timeout(SIGN, self.client.sign_request(key, hash, data)).await {
            Ok(Ok(signed)) => Ok(signed),
            Ok(Err(_)) => Err(AgentError::Refused),
            Err(_) => Err(AgentError::Slow),
        }
    }
}
