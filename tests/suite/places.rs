//! The same playbook in two places: on the sandbox and over a real sshd. The hosts of both have the
//! same names, homes of their own and the same environment, so that a test of the language asks
//! both the same questions.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::fanrun::Fanrun;
use crate::sshd::Sshd;

/// The longest of these runs, with a margin for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a playbook runs: hosts `sandbox-1`, `sandbox-2` ...
#[derive(Debug)]
pub struct Place {
    hosts: usize,
    directory: TempDir,
    sshd: Option<Sshd>,
}

/// The sandbox, and a server with an address for each host.
pub fn everywhere(hosts: usize) -> [Place; 2] {
    [Place::sandbox(hosts), Place::openssh(hosts)]
}

impl Place {
    fn sandbox(hosts: usize) -> Place {
        Place {
            hosts,
            directory: TempDir::new().unwrap(),
            sshd: None,
        }
    }

    /// Each address is a host: it has a home of its own, where commands begin (`cwd`, which the
    /// playbook gets), and the variables that tell the members of a sandbox apart.
    fn openssh(hosts: usize) -> Place {
        let directory = TempDir::new().unwrap();
        let root = directory.path().display();
        let mut server = Sshd::builder().addresses(u8::try_from(hosts).unwrap());
        for host in 1..=hosts {
            std::fs::create_dir(directory.path().join(name(host))).unwrap();
            server = server.config(&format!(
                "Match LocalAddress {}\nSetEnv HOME={root}/{name} FANRUN_SANDBOX={name} FANRUN_SANDBOX_ROOT={root}",
                address(host),
                name = name(host),
            ));
        }
        Place {
            hosts,
            directory,
            sshd: Some(server.start()),
        }
    }

    /// A folder that lives as long as the place; the playbook lies in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a playbook whose first key stands in its first column.
    pub fn run(&self, text: &str) -> Fanrun {
        let Some(sshd) = &self.sshd else {
            let book = self.write("p.yml", text);
            let hosts = self.hosts.to_string();
            return Fanrun::new(["run", &book, "--sandbox", &hosts]).within(LIMIT);
        };
        let cwd = format!("{}/${{{{ host.name }}}}", self.directory().display());
        let book = self.write("p.yml", &format!("cwd: '{cwd}'\n{text}"));
        let inventory = self.write("hosts.yml", &self.inventory());
        Fanrun::new(["run", &book, "-i", &inventory])
            .options(sshd.fanrun_args())
            .within(LIMIT)
    }

    fn inventory(&self) -> String {
        let line = |host| format!("  {}: {{address: {}}}\n", name(host), address(host));
        let hosts: String = (1..=self.hosts).map(line).collect();
        format!("hosts:\n{hosts}")
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn name(host: usize) -> String {
    format!("sandbox-{host}")
}

fn address(host: usize) -> String {
    format!("127.1.0.{host}")
}
