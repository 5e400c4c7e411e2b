//! What was typed, turned into what is meant, once, at the door.

use std::io::{IsTerminal, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Fault;
use super::args::{Color, Command, HostArgs, HostKey, WorkArgs};
use super::sources::Sources;
use crate::diagnostic::{Diagnostic, Source};
use crate::engine::sizing::Sizes;
use crate::inventory::{self, Disk, Inventory};
use crate::plan::{self, Built, Defaults, Ground, PlanError, Reaching, Selection};
use crate::playbook::{self, Located, Playbook};
use crate::sandbox::Fleet;
use crate::secret::Secret;
use crate::session::Connector;
use crate::session::ssh::config::{Config, local_user};
use crate::session::ssh::{Asker, Dialer, Question, Sizing};
use crate::target::{HostKeyPolicy, HostName, UserName, Vars};

/// How hosts are reached in this run.
pub(super) struct Reach {
    /// Servers inside this process; they end when this is dropped.
    pub(super) fleet: Option<Fleet>,
    /// Somebody can be asked.
    pub(super) terminal: bool,
    /// What must not be seen: a password that is known already, the secrets of a playbook.
    pub(super) secrets: Vec<Secret>,
}

/// A playbook with everything around it.
pub(super) struct Ready {
    pub(super) ground: Ground,
    pub(super) reach: Reach,
    pub(super) warnings: Vec<Diagnostic>,
}

impl Reach {
    /// The connector, who can be asked, and the questions of both.
    pub(super) fn connector(&self, sizes: Sizes) -> (Connector, Asker, mpsc::Receiver<Question>) {
        let (ask, questions) = mpsc::channel(1);
        let asker = if self.terminal {
            Asker::new(ask)
        } else {
            Asker::none()
        };
        let sizing = Sizing {
            window: sizes.window,
            packet: sizes.packet,
            read_ahead: sizes.read_ahead,
            channel_buffer: sizes.channel_buffer,
            beside: sizes.beside,
            ..Sizing::default()
        };
        let connector = Connector::ssh(Dialer::new(asker.clone(), sizing));
        (connector, asker, questions)
    }
}

/// Reads what is named on the command line: inventories, ssh_config, variables, a password.
pub(super) async fn prepare(args: &HostArgs) -> Result<Ready, Fault> {
    let (ready, mistakes) = prepare_for(args, &WorkArgs::default(), &[]).await?;
    if mistakes.is_empty() {
        Ok(ready)
    } else {
        Err(Fault::Wrong(mistakes))
    }
}

/// The same for a playbook, which names inventories of its own (`more`). What is wrong with an
/// inventory comes beside the rest, to be told together with what is wrong with the playbook.
async fn prepare_for(
    args: &HostArgs,
    work: &WorkArgs,
    more: &[PathBuf],
) -> Result<(Ready, Vec<Diagnostic>), Fault> {
    let fleet = match args.sandbox {
        Some(n) => Some(fleet(n).await?),
        None => None,
    };
    let mut mistakes = Vec::new();
    let mut warnings = Vec::new();
    let (inventory, listed) = match &fleet {
        Some(fleet) => (sandbox_inventory(fleet), true),
        None => match read_inventory(args, more) {
            None => (Inventory::empty(), false),
            Some(Ok(loaded)) => {
                warnings = loaded.warnings;
                (loaded.inventory, true)
            }
            Some(Err(found)) => {
                mistakes = found;
                (Inventory::empty(), false)
            }
        },
    };
    let terminal = terminal();
    let mut reaching = reaching(args, terminal)?;
    let secrets = reaching.password.iter().cloned().collect();
    if let Some(fleet) = &fleet {
        enter_sandbox(&mut reaching, fleet);
    }
    let ground = Ground {
        inventory,
        listed,
        limit: args.limit.clone(),
        vars: parse_vars(&work.vars)?,
        selection: Selection {
            tags: work.tags.clone(),
            skip: work.skip_tags.clone(),
            start_at: work.start_at.clone(),
        },
        reaching,
        fanout: fanout(args)?,
        allow_empty: args.allow_empty,
        unsure: !mistakes.is_empty(),
    };
    let ready = Ready {
        ground,
        reach: Reach {
            fleet,
            terminal,
            secrets,
        },
        warnings,
    };
    Ok((ready, mistakes))
}

/// Whether somebody can be asked.
pub(super) fn terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The plan of a playbook, and how its hosts are reached. Everything that is wrong with the
/// playbook, its inventory and what the one says of the other is told at once.
pub(super) async fn plan_of(
    path: &Path,
    args: &HostArgs,
    work: &WorkArgs,
) -> Result<(Built, Reach), Fault> {
    let sources = Sources::default();
    let text = sources.read(path).map_err(|unread| unread.fault(path))?;
    let source = Arc::new(Source {
        path: path.to_owned(),
        text: text.into(),
    });
    let loaded = playbook::load(&source, &|path| sources.include(path));
    let (files, odd) = sources.into_parts();
    let more = loaded.playbook.as_ref();
    let more = more.map_or_else(Vec::new, |playbook| playbook_inventories(playbook, args));
    let (ready, mut mistakes) = prepare_for(args, work, &more).await?;
    mistakes.extend(loaded.mistakes);
    let Some(playbook) = loaded.playbook else {
        return Err(wrong(mistakes));
    };
    match plan::build(playbook, &ready.ground) {
        Ok(mut built) if mistakes.is_empty() => {
            let before = odd.into_iter().chain(ready.warnings);
            built.warnings.splice(0..0, before);
            built.plan.read_from(files);
            Ok((built, ready.reach))
        }
        Err(PlanError::NothingMatched(message)) if mistakes.is_empty() => {
            Err(Fault::Nothing(message))
        }
        Ok(_) => Err(wrong(mistakes)),
        Err(PlanError::NothingMatched(message)) => {
            mistakes.push(Diagnostic::error(message));
            Err(wrong(mistakes))
        }
        Err(PlanError::Wrong(more)) => {
            mistakes.extend(more);
            Err(wrong(mistakes))
        }
    }
}

/// Mistakes in the order of their files and places; those without a place first.
fn wrong(mut mistakes: Vec<Diagnostic>) -> Fault {
    mistakes.sort_by_cached_key(|mistake| {
        let at = mistake.at.as_ref();
        at.map(|at| (at.source.path.clone(), at.span.start, at.span.end))
    });
    mistakes.dedup();
    Fault::Wrong(mistakes)
}

/// The inventories that a playbook and those that it includes name: relative to their folders, and
/// only where the command line names none.
fn playbook_inventories(playbook: &Playbook, args: &HostArgs) -> Vec<PathBuf> {
    if !args.inventory.is_empty() {
        return Vec::new();
    }
    let beside = |named: &Located<String>| {
        let folder = named.at.source.path.parent();
        folder.unwrap_or(Path::new("")).join(&named.value)
    };
    playbook.inventory.iter().map(beside).collect()
}

/// `None` where none is named.
fn read_inventory(
    args: &HostArgs,
    more: &[PathBuf],
) -> Option<Result<inventory::Loaded, Vec<Diagnostic>>> {
    let mut sources = args.inventory.clone();
    sources.extend(more.iter().map(|path| path.to_string_lossy().into_owned()));
    (!sources.is_empty()).then(|| Inventory::load(&sources, &Disk))
}

async fn fleet(n: usize) -> Result<Fleet, Fault> {
    if n == 0 || n > 10_000 {
        return Err(Fault::usage(format!(
            "`--sandbox {n}`: from 1 to 10000 servers are possible"
        )));
    }
    Fleet::start(n)
        .await
        .map_err(|error| Fault::usage(format!("the sandbox: {error}")))
}

fn sandbox_inventory(fleet: &Fleet) -> Inventory {
    let set = |value: u16| inventory::Set {
        value,
        origin: "the sandbox".into(),
    };
    let hosts = fleet.members().iter().map(|member| {
        let settings = inventory::Settings {
            address: Some(inventory::Set {
                value: "127.0.0.1".into(),
                origin: "the sandbox".into(),
            }),
            port: Some(set(member.port)),
            ..inventory::Settings::default()
        };
        (member.name.clone(), settings)
    });
    Inventory::with_hosts("sandbox", hosts.collect())
}

/// The sandbox has keys of its own; the user's ssh_config, agent and known_hosts stay out of it.
fn enter_sandbox(reaching: &mut Reaching, fleet: &Fleet) {
    reaching.user = Some(fleet.user().clone());
    reaching.identities = vec![fleet.identity().to_owned()];
    reaching.known_hosts = vec![fleet.known_hosts().to_owned()];
    reaching.policy = Some(HostKeyPolicy::Strict);
    reaching.config = Arc::new(Config::default());
    reaching.defaults.agent = None;
    reaching.password = None;
}

fn reaching(args: &HostArgs, terminal: bool) -> Result<Reaching, Fault> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    let user = args
        .user
        .as_deref()
        .map(|name| user_name(name, "--user"))
        .transpose()?;
    let config = Arc::new(read_config(args, &home)?);
    Ok(Reaching {
        user,
        port: args.port,
        identities: args.identity.clone(),
        known_hosts: args.known_hosts.clone(),
        policy: args.host_key.map(policy),
        connect_timeout: args.connect_timeout.as_deref().map(duration).transpose()?,
        password: password(args)?,
        config,
        defaults: Defaults {
            home,
            user: own_user()?,
            agent: std::env::var_os("SSH_AUTH_SOCK")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from),
            terminal,
        },
    })
}

fn read_config(args: &HostArgs, home: &Path) -> Result<Config, Fault> {
    let loaded = match &args.ssh_config {
        Some(path) if path.as_os_str() == "none" => return Ok(Config::default()),
        Some(path) if !path.is_file() => {
            return Err(Fault::usage(format!(
                "`--ssh-config {}` is no file",
                path.display()
            )));
        }
        Some(path) => Config::open(path, home),
        None => {
            let (user, system) = (home.join(".ssh/config"), Path::new("/etc/ssh/ssh_config"));
            Config::load(&user, system, home)
        }
    };
    loaded.map_err(|error| Fault::usage(error.to_string()))
}

fn policy(policy: HostKey) -> HostKeyPolicy {
    match policy {
        HostKey::Strict => HostKeyPolicy::Strict,
        HostKey::Ask => HostKeyPolicy::Ask,
        HostKey::AcceptNew => HostKeyPolicy::AcceptNew,
    }
}

fn own_user() -> Result<UserName, Fault> {
    match local_user() {
        Some(name) => user_name(&name, "the account database"),
        None => Err(Fault::usage("this account has no name; say `--user`")),
    }
}

fn user_name(name: &str, origin: &str) -> Result<UserName, Fault> {
    UserName::new(name).map_err(|bad| {
        let name = crate::text::printable(name.as_bytes()).into_owned();
        Fault::usage(format!("the user name `{name}` from {origin} {bad}"))
    })
}

fn password(args: &HostArgs) -> Result<Option<Secret>, Fault> {
    if args.ask_password {
        let password = super::ask::password("Password: ");
        return password
            .map(Some)
            .map_err(|error| Fault::usage(format!("no password: {error}")));
    }
    let Some(number) = args.password_fd else {
        return Ok(None);
    };
    let fault = |error: std::io::Error| Fault::usage(format!("--password-fd {number}: {error}"));
    let mut text = String::new();
    std::fs::File::open(format!("/dev/fd/{number}"))
        .and_then(|file| file.take(4096).read_to_string(&mut text))
        .map_err(fault)?;
    let line = text.lines().next().unwrap_or("").to_owned();
    Ok(Some(Secret::new(line)))
}

fn fanout(args: &HostArgs) -> Result<Option<usize>, Fault> {
    match args.fanout {
        Some(0) => Err(Fault::usage(
            "`--fanout 0`: at least one host at a time is needed",
        )),
        other => Ok(other),
    }
}

/// `30s`, `5m`: the same durations as in playbooks.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    playbook::units::duration(text).map_err(|reason| Fault::usage(format!("`{text}`: {reason}")))
}

fn parse_vars(given: &[String]) -> Result<Vars, Fault> {
    let mut vars = Vars::new();
    for text in given {
        if let Some(path) = text.strip_prefix('@') {
            vars.extend(read_vars(Path::new(path))?);
            continue;
        }
        let Some((name, value)) = text.split_once('=') else {
            let message = format!("`-e {text}`: NAME=VALUE or @FILE is needed");
            return Err(Fault::usage(message));
        };
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let good =
            name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        if !good {
            let help = "letters, digits and `_`, not a digit first";
            return Err(Fault::usage(format!(
                "`-e {text}`: `{name}` is no variable name ({help})"
            )));
        }
        vars.insert(name.to_owned(), playbook::plain_value(value));
    }
    Ok(vars)
}

fn read_vars(path: &Path) -> Result<Vars, Fault> {
    let text = Sources::default().read(path);
    let text = text.map_err(|unread| unread.fault(path))?.into();
    let path = path.to_owned();
    playbook::variables(&Arc::new(Source { path, text })).map_err(Fault::Wrong)
}

/// Folds host names for people.
pub(super) fn fold_names(names: &[HostName]) -> String {
    inventory::fold(names.iter().map(HostName::as_str))
}

/// Whether to use colour.
pub(super) fn colour(wish: Color) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match wish {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if set("NO_COLOR") => false,
        Color::Auto if std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| v != "0") => true,
        Color::Auto => in_ci() || std::io::stderr().is_terminal() && !dumb_terminal(),
    }
}

/// The colour wish of any command.
pub(super) fn colour_of(command: &Command) -> bool {
    colour(match command {
        Command::Run(args) => args.output.color,
        Command::Exec(args) => args.output.color,
        Command::Plan(args) => args.plan.color,
        Command::Check(args) => args.color,
        Command::Hosts(args) => args.color,
        Command::Ls(args) => args.output.color,
        Command::Upload(args) => args.copy.output.color,
        Command::Download(args) => args.copy.output.color,
        Command::Ping(args) => args.color,
        Command::Parse(args) => args.color,
        Command::Help(args) => args.color,
        Command::Schema(_) => Color::Auto,
    })
}

/// A terminal that cannot move its cursor.
pub(super) fn dumb_terminal() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// A CI system whose log obeys commands in the output.
pub(super) fn in_ci() -> bool {
    let known = [
        "GITHUB_ACTIONS",
        "GITLAB_CI",
        "TF_BUILD",
        "TEAMCITY_VERSION",
        "BUILDKITE",
    ];
    known
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The terminal's modes when fanrun began. A password prompt that is given up leaves it without
/// echo; whoever comes after us must not find it so.
pub(super) struct TerminalState(Option<rustix::termios::Termios>);

impl TerminalState {
    pub(super) fn save() -> Self {
        Self(rustix::termios::tcgetattr(std::io::stdin().as_fd()).ok())
    }

    /// Does nothing in the background: whoever is in front has modes of their own, and the attempt
    /// would stop this process (SIGTTOU).
    pub(super) fn restore(&self) {
        let terminal = std::io::stdin();
        if let Some(modes) = self.0.as_ref().filter(|_| in_front(terminal.as_fd())) {
            let when = rustix::termios::OptionalActions::Now;
            // The terminal may be gone; then there is nothing to restore.
            let _ = rustix::termios::tcsetattr(terminal.as_fd(), when, modes);
        }
    }
}

/// Whether this process is in the foreground of the terminal. So it is on one that does no job
/// control for it.
pub(super) fn in_front(terminal: BorrowedFd<'_>) -> bool {
    match rustix::termios::tcgetpgrp(terminal) {
        Ok(group) => group == rustix::process::getpgrp(),
        Err(_) => true,
    }
}
