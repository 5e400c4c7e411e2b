//! What others may not see: where secrets come from (`secrets`), and other accounts (`become`).

use super::keys;
use super::model::{Becoming, DeclaredSecret, Located, SecretFrom};
use super::template::Template;
use super::tree::{Entry, Kind, Node};
use super::validate::{Check, Level, get};
use crate::diagnostic::At;
use crate::job::Method;
use crate::target::UserName;

impl Check<'_> {
    /// `secrets: {name: {env: X}}`
    pub(super) fn secrets(&mut self, node: &Node) -> Vec<DeclaredSecret> {
        let mut secrets = Vec::new();
        for Entry {
            key,
            key_span,
            value,
        } in self.entries("secrets", node).unwrap_or_default()
        {
            if !self.variable_name("secret", key, key_span) {
                continue;
            }
            match self.secret_from(key, value) {
                Some(from) => secrets.push(DeclaredSecret {
                    name: key.clone(),
                    from,
                    at: self.at(key_span),
                }),
                None => self.doubt([key.clone()]),
            }
        }
        secrets
    }

    fn secret_from(&mut self, name: &str, node: &Node) -> Option<SecretFrom> {
        let help = Some(
            "say where it comes from: `{env: NAME}`, `{file: PATH}`, `{command: \"pass show x\"}` or \
             `{prompt: \"Password for x\"}`",
        );
        let Kind::Map(entries) = &node.kind else {
            let message = match &node.kind {
                Kind::Scalar { .. } => format!("the secret `{name}` stands in the playbook"),
                Kind::List(_) | Kind::Map(_) => format!("the secret `{name}` must be a mapping"),
            };
            self.error(message, node, "", help);
            return None;
        };
        let level = Level::Options("a secret", keys::SECRET);
        let known = self.check_keys(entries, level);
        let [entry] = entries.as_slice() else {
            if known {
                let message = format!("the secret `{name}` comes from one place");
                self.error(message, node, "", help);
            }
            return None;
        };
        let Entry { key, value, .. } = entry;
        let Located { value: text, .. } = self.plain(key, value).filter(|_| known)?;
        Some(match key.as_str() {
            "env" => SecretFrom::Env(text),
            "file" => SecretFrom::File(text),
            "command" => SecretFrom::Command(text),
            _ => SecretFrom::Prompt(text),
        })
    }

    /// Secrets are told apart from variables by their names.
    pub(super) fn check_secret_names(&mut self, secrets: &[DeclaredSecret], entries: &[Entry]) {
        let Some(vars) = get(entries, "vars") else {
            return;
        };
        let Kind::Map(vars) = &vars.kind else { return };
        for Entry { key, key_span, .. } in vars {
            if secrets.iter().any(|secret| secret.name == *key) {
                let message = format!("`{key}` is a secret and a variable");
                let help = Some("choose another name for one of them");
                self.error_at(message, key_span.clone(), "", help);
            }
        }
    }

    /// `become: true`, `become: postgres`, `become: {method: su, user: app, password: ...}`,
    /// `become: false`.
    pub(super) fn becomes(&mut self, node: &Node) -> Option<Becoming> {
        let at = self.at(&node.span);
        let root = |at| Becoming::Account {
            method: Method::Sudo,
            user: None,
            password: None,
            at,
        };
        match &node.kind {
            Kind::Scalar { text, .. } if text == "true" => Some(root(at)),
            Kind::Scalar { text, .. } if text == "false" => Some(Becoming::Nobody),
            Kind::Map(entries) => self.becomes_with(entries, at),
            Kind::Scalar { .. } | Kind::List(_) => {
                let user = self.account("become", node)?;
                Some(Becoming::Account {
                    method: Method::Sudo,
                    user: Some(user),
                    password: None,
                    at,
                })
            }
        }
    }

    fn becomes_with(&mut self, entries: &[Entry], at: At) -> Option<Becoming> {
        self.check_keys(entries, Level::Options("`become`", keys::BECOME));
        let words = [
            ("sudo", Method::Sudo),
            ("doas", Method::Doas),
            ("su", Method::Su),
        ];
        let method = match get(entries, "method") {
            Some(node) => self.one_of("method", node, &words)?,
            None => Method::Sudo,
        };
        let user = match get(entries, "user") {
            Some(node) => Some(self.account("user", node)?),
            None => None,
        };
        let password = match get(entries, "password") {
            Some(node) => Some(self.password(node, method)?),
            None => None,
        };
        Some(Becoming::Account {
            method,
            user,
            password,
            at,
        })
    }

    fn account(&mut self, key: &str, node: &Node) -> Option<Template> {
        let template = self.template(key, node)?;
        if let Some(name) = template.literal()
            && let Err(bad) = UserName::new(name)
        {
            let shown = crate::text::printable(name.as_bytes()).into_owned();
            self.error(format!("the account `{shown}` {bad}"), node, "", None);
            return None;
        }
        Some(template)
    }

    fn password(&mut self, node: &Node, method: Method) -> Option<Template> {
        let template = self.template("password", node)?;
        if template.literal().is_some() {
            let help = "declare it under `secrets` and write `password: ${{ name }}`";
            let message = "a password stands in the playbook".to_owned();
            self.error(message, node, "", Some(help));
            return None;
        }
        if method == Method::Doas {
            let help = "allow it without one (`nopass` in doas.conf), or use `method: sudo`";
            let message = "doas takes a password from a terminal only".to_owned();
            self.error(message, node, "", Some(help));
            return None;
        }
        Some(template)
    }
}
