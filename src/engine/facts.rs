//! What a host says of itself (`host.os`, `host.arch` ...): asked once, by one small command, when a
//! task first uses it.

use super::lane::{Halt, Lane, in_sh};
use super::state::Level;
use crate::job::TaskId;
use crate::session::Stdin;
use crate::target::Vars;
use crate::text;

/// Lines that say what follows; a start-up file of the shell may have printed something before.
const BEGIN: &str = "fanrun: this host";
const END: &str = "fanrun: that was it";
/// Longest value, in characters: a name, a version.
const LONGEST: usize = 256;

impl Lane {
    /// Asks the host, unless that has been done. The error is why it could not be learnt.
    pub(super) async fn learn_facts(&mut self, task: TaskId) -> Result<Result<(), String>, Halt> {
        if self.memory.facts.is_some() {
            return Ok(Ok(()));
        }
        let way = self.desk.plan.way(self.id, task.play);
        // os-release(5): the second path is the vendor's, the first may be missing.
        let script = format!(
            "echo; echo '{BEGIN}'; uname -s && uname -r && uname -m && uname -n && \
             {{ cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null; echo; \
             echo '{END}'; }}"
        );
        let mut cancel = self.cancel.clone();
        let said = tokio::select! {
            biased;
            _ = cancel.wait_for(|level| *level != Level::Run) => return Err(Halt::Stopped),
            said = self.aside(&way, in_sh(script, Stdin::Closed)) => said?,
        };
        let wrong = |reason: String| format!("could not learn what kind of host it is: {reason}");
        Ok(match said.and_then(|said| understood(&said)) {
            Ok(facts) => {
                self.memory.facts = Some(facts);
                Ok(())
            }
            Err(reason) => Err(wrong(reason)),
        })
    }
}

/// The values, from what the command wrote.
fn understood(said: &str) -> Result<Vars, String> {
    let odd = || {
        let shown = text::printable(said.trim().as_bytes()).into_owned();
        format!("it said {}", text::fit(&shown, 200))
    };
    let part = said
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END));
    let Some((part, _)) = part else {
        return Err(odd());
    };
    let mut lines = part.trim_start_matches(['\r', '\n']).lines();
    let mut next = || lines.next().map(str::trim).filter(|line| is_word(line));
    let (Some(system), Some(kernel), Some(arch), Some(hostname)) = (next(), next(), next(), next())
    else {
        return Err(odd());
    };
    let release: Vec<(&str, String)> = lines.filter_map(assignment).collect();
    let of = |name: &str| {
        release
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let os = of("ID").cloned().unwrap_or_else(|| system.to_lowercase());
    let version = of("VERSION_ID").cloned();
    if ![Some(&os), version.as_ref()]
        .into_iter()
        .flatten()
        .all(|value| is_word(value))
    {
        return Err(odd());
    }
    let mut facts = Vars::new();
    for (name, value) in [
        ("os", Some(os)),
        ("os_version", version),
        ("arch", Some(arch.to_owned())),
        ("kernel", Some(kernel.to_owned())),
        ("hostname", Some(hostname.to_owned())),
    ] {
        facts.insert(name.to_owned(), value.into());
    }
    Ok(facts)
}

fn is_word(value: &str) -> bool {
    let good = |c: char| !c.is_control() && c != char::REPLACEMENT_CHARACTER;
    !value.is_empty() && value.len() <= LONGEST && value.chars().all(good)
}

/// A line of os-release(5): `NAME=value`, the value perhaps in quotes.
fn assignment(line: &str) -> Option<(&str, String)> {
    let (name, value) = line.trim().split_once('=')?;
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    Some((name, value.replace('\\', "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(release: &str) -> String {
        format!("motd\n\n{BEGIN}\nLinux\n6.1.0-56-amd64\nx86_64\nweb1\n{release}\n{END}\n")
    }

    #[test]
    fn a_host_is_understood() {
        let facts = understood(&said(
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"",
        ));
        let facts = facts.unwrap();
        assert_eq!(facts["os"], "debian");
        assert_eq!(facts["os_version"], "12");
        assert_eq!(facts["arch"], "x86_64");
        assert_eq!(facts["kernel"], "6.1.0-56-amd64");
        assert_eq!(facts["hostname"], "web1");
        let bare = understood(&said("")).unwrap();
        assert_eq!(bare["os"], "linux");
        assert!(bare["os_version"].is_null());
    }

    #[test]
    fn an_odd_answer_is_no_fact() {
        let long = "x".repeat(1 << 20);
        for odd in [
            "",
            "This account is not available.\n",
            "fanrun: this host\n\n\n\n\nfanrun: that was it\n",
            "fanrun: this host\nLinux\n6\n",
            "fanrun: this host\nLinux\n6\nx86\u{fffd}\nweb1\nfanrun: that was it\n",
            &format!("fanrun: this host\nLinux\n{long}\nx86\nweb1\nfanrun: that was it\n"),
        ] {
            let reason = understood(odd).unwrap_err();
            assert!(
                reason.starts_with("it said ") && reason.len() < 300,
                "{reason}"
            );
        }
    }
}
