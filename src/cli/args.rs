//! The command line as it was typed. What it means is worked out in `settings`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Run commands on many hosts over SSH, see their output live, and learn how every one ended.
#[derive(Debug, Parser)]
#[command(
    name = "fanrun",
    version,
    max_term_width = 100,
    subcommand_required = true
)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  fanrun run playbooks/tour.yml --sandbox 5      try it without any server
  fanrun exec web[1-20] -- uptime                one command on many hosts
  fanrun run deploy.yml -i hosts.yml -l web      a playbook on a part of the inventory
  fanrun ping -i hosts.yml all                   who can be reached, and how fast

Exit codes:
  0 all ok   1 a task failed   2 usage or playbook wrong   3 a host unreachable   4 a host refused
  5 nothing matched   6 stopped by a limit   7 a report could not be written   70 a bug
  128+n ended by signal n")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a playbook
    #[command(after_help = "\
Examples:
  fanrun run playbooks/tour.yml --sandbox 5
  fanrun run deploy.yml -i hosts.yml
  fanrun run deploy.yml -i hosts.yml -l 'web ! web3' -e version=2.4.1
  fanrun run deploy.yml -i hosts.yml --events run.ndjson --output-dir out/")]
    Run(Run),
    /// Run one command on many hosts
    #[command(after_help = "\
Examples:
  fanrun exec web1,web2 -- uptime
  fanrun exec 'web[01-20]' -f 5 -- sudo systemctl restart nginx
  fanrun exec all -i hosts.yml --timeout 30s -- 'df -h / | tail -1'
  fanrun exec --raw --exit-code remote db1 -- pg_dump app > app.sql

The words after `--` are joined with spaces and given to the account's login shell, as ssh does.")]
    Exec(Exec),
    /// Show what a playbook would do where; connects to nothing
    #[command(after_help = "\
Examples:
  fanrun plan deploy.yml -i hosts.yml
  fanrun plan deploy.yml -i hosts.yml -l web1 -e version=2.4.1")]
    Plan(Plan),
    /// Look for mistakes in a playbook and its inventory; connects to nothing
    #[command(after_help = "\
Examples:
  fanrun check deploy.yml
  fanrun check deploy.yml -i hosts.yml")]
    Check(Plan),
    /// List the hosts that a pattern selects, and how they would be reached
    #[command(after_help = "\
Examples:
  fanrun hosts -i hosts.yml
  fanrun hosts -i hosts.yml 'web & @europe ! web3'
  fanrun hosts -i hosts.yml all --format names")]
    Hosts(Hosts),
    /// List files of many hosts over SFTP; no shell is needed there
    #[command(after_help = "\
Examples:
  fanrun ls 'web[1-3]:/var/log'
  fanrun ls -r 'all:/data' -i hosts.yml --files --newer 2d --format csv
  fanrun ls -r 'all:/data' -i hosts.yml --sort size --reverse --top 20
  fanrun ls 'all:/data' -i hosts.yml --du 2
  fanrun ls -r 'all:/etc/*.d' --include '*.conf' --by host

On a terminal the rows are a table, in a pipe one path a line. Sizes are exact and times are in UTC in
all formats but the table. An unreadable directory is a row of type error and ends with code 1.")]
    Ls(Box<Ls>),
    /// Connect and authenticate; show how long every step takes
    #[command(after_help = "\
Examples:
  fanrun ping web1
  fanrun ping -i hosts.yml all
  fanrun ping --sandbox 5")]
    Ping(Ping),
}

/// `fanrun run`
#[derive(Debug, Args)]
pub struct Run {
    /// The playbook
    pub playbook: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub work: WorkArgs,
    /// Connect, look at conditions and say what would be run, but run nothing
    #[arg(long)]
    pub check: bool,
    /// A limit for the whole run, such as `10m`
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// What standard output gets: text for people, or events
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub format: Format,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub hosts: HostArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub output: OutputArgs,
}

/// What of a playbook is done, and with which values.
#[derive(Debug, Args, Default)]
pub struct WorkArgs {
    /// Set a variable, over every other place that sets it; `@FILE` sets all of a YAML or JSON
    /// mapping (repeatable)
    #[arg(short = 'e', long = "var", value_name = "NAME=VALUE|@FILE")]
    pub vars: Vec<String>,
    /// Only tasks with one of these tags, and those tagged `always` (repeatable)
    #[arg(short, long, value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// No task with one of these tags (repeatable)
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub skip_tags: Vec<String>,
    /// Leave out everything before the task of this name
    #[arg(long, value_name = "TASK")]
    pub start_at: Option<String>,
}

/// `fanrun exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// Which hosts: names, ranges `web[1-9]`, globs, groups, `a & b`, `a ! b`
    #[arg(required_unless_present = "sandbox")]
    pub pattern: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
    /// A limit for the command on each host, such as `30s`
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// A limit for the whole run, such as `10m`
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// Pass bytes through as they are, and standard input on; one host only
    #[arg(long)]
    pub raw: bool,
    /// Whose exit code to end with: fanrun's table, or (one host only) the command's own
    #[arg(long, value_enum, default_value_t = ExitCode::Fanrun, value_name = "WHOSE")]
    pub exit_code: ExitCode,
    /// What standard output gets: text for people, or events
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub format: Format,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub hosts: HostArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub output: OutputArgs,
}

/// `fanrun plan` and `fanrun check`
#[derive(Debug, Args)]
pub struct Plan {
    /// The playbook
    pub playbook: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub work: WorkArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub hosts: HostArgs,
    /// Colour: always, never, or where it is wanted
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// `fanrun hosts`
#[derive(Debug, Args)]
pub struct Hosts {
    /// Which hosts; all of the inventory if it is left out
    pub pattern: Option<String>,
    /// How to show them
    #[arg(long, value_enum, default_value_t = HostsFormat::Table, value_name = "FORMAT")]
    pub format: HostsFormat,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub hosts: HostArgs,
    /// Colour: always, never, or where it is wanted
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// `fanrun ls`
#[derive(Debug, Args)]
pub struct Ls {
    /// Which hosts, and what on them; `~` and globs are the host's
    #[arg(required = true, value_name = "PATTERN:PATH")]
    pub places: Vec<String>,
    /// All the way down
    #[arg(short, long, conflicts_with = "depth")]
    pub recursive: bool,
    /// How far down: a number, or `all` [default: 1]
    #[arg(long, value_name = "N")]
    pub depth: Option<String>,
    /// Only files
    #[arg(long, help_heading = "Selection")]
    pub files: bool,
    /// Only directories
    #[arg(long, help_heading = "Selection")]
    pub dirs: bool,
    /// Only symbolic links
    #[arg(long, help_heading = "Selection")]
    pub links: bool,
    /// Only what fits a glob: on the name, or with a slash on the path below (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub include: Vec<String>,
    /// Nothing that fits a glob; a directory is not entered either (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub exclude: Vec<String>,
    /// Only what a regular expression is found in, on the path below
    #[arg(long, value_name = "REGEX", help_heading = "Selection")]
    pub regex: Option<String>,
    /// Changed since: `2d`, `2026-11-01`, or a time with its zone
    #[arg(long, value_name = "TIME", help_heading = "Selection")]
    pub newer: Option<String>,
    /// Not changed since
    #[arg(long, value_name = "TIME", help_heading = "Selection")]
    pub older: Option<String>,
    /// At least so large, such as `10MiB`
    #[arg(long, value_name = "SIZE", help_heading = "Selection")]
    pub min_size: Option<String>,
    /// At most so large
    #[arg(long, value_name = "SIZE", help_heading = "Selection")]
    pub max_size: Option<String>,
    /// Only of this account: a name or a number
    #[arg(long, value_name = "WHO", help_heading = "Selection")]
    pub owner: Option<String>,
    /// Only with these permissions: `0644`, `-022` (all of), `/022` (any of)
    #[arg(
        long,
        value_name = "MODE",
        allow_hyphen_values = true,
        help_heading = "Selection"
    )]
    pub mode: Option<String>,
    /// What cannot be read is told, and the exit code does not heed it
    #[arg(long)]
    pub ignore_errors: bool,
    /// How rows are written
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<LsFormat>,
    /// Which columns: host, path, name, type, size, mtime, atime, mode, perm, uid, gid, owner, group,
    /// target, depth, ext
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Sort by a column
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// The other way round
    #[arg(long)]
    pub reverse: bool,
    /// Only the first N
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Sums for each host in place of rows
    #[arg(long, conflicts_with_all = ["by", "du"])]
    pub summary: bool,
    /// Sums by ext, dir, owner, day or host
    #[arg(long, value_name = "WHAT", conflicts_with = "du")]
    pub by: Option<String>,
    /// Sizes of directories with all that is below them, down to a depth
    #[arg(long, value_name = "DEPTH")]
    pub du: Option<u32>,
    /// A limit for the listing of each host, such as `5m`
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// A limit for the whole run
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub hosts: HostArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub output: OutputArgs,
}

/// How `ls` writes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LsFormat {
    /// Aligned columns for people
    Table,
    /// Comma-separated values
    Csv,
    /// Tab-separated values
    Tsv,
    /// One JSON object a line
    Ndjson,
    /// One JSON list
    Json,
    /// Paths, a line each
    Paths,
    /// Paths, exact bytes, each ended by a NUL
    Paths0,
}

/// `fanrun ping`
#[derive(Debug, Args)]
pub struct Ping {
    /// Which hosts; all of the inventory if it is left out
    pub pattern: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub hosts: HostArgs,
    /// Colour: always, never, or where it is wanted
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// Which hosts, and how they are reached.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Hosts")]
pub struct HostArgs {
    /// Where hosts are listed: a YAML file, a file with a name a line, or `a,b,c` (repeatable)
    #[arg(short, long, value_name = "FILE|LIST")]
    pub inventory: Vec<String>,
    /// Work only on these of the selected hosts
    #[arg(short, long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Hosts worked on at once [default: 64]
    #[arg(short, long, value_name = "N")]
    pub fanout: Option<usize>,
    /// Use N servers inside this process instead of real hosts: `sandbox-1`, `sandbox-2`, ...
    #[arg(long, value_name = "N", conflicts_with = "inventory")]
    pub sandbox: Option<usize>,
    /// Log in as
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// TCP port
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Private key to offer first (repeatable)
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// Ask for a password, to be used where no key is accepted
    #[arg(long)]
    pub ask_password: bool,
    /// Read that password from an open file descriptor
    #[arg(long, value_name = "FD", conflicts_with = "ask_password")]
    pub password_fd: Option<u32>,
    /// Known host keys, instead of ~/.ssh/known_hosts and the system's (repeatable)
    #[arg(
        long,
        value_name = "FILE",
        env = "FANRUN_KNOWN_HOSTS",
        value_delimiter = ':'
    )]
    pub known_hosts: Vec<PathBuf>,
    /// What to do with a host whose key is not known [default: ask on a terminal, else strict]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub host_key: Option<HostKey>,
    /// A limit for connecting, from name lookup to login [default: 15s]
    #[arg(long, value_name = "TIME")]
    pub connect_timeout: Option<String>,
    /// OpenSSH client configuration, instead of ~/.ssh/config; `none` reads none
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// End with code 0 when no host is selected
    #[arg(long)]
    pub allow_empty: bool,
}

/// What is shown and written.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Show only failures and the sums; output of commands is shown all the same
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show more (repeatable)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour: always, never, or where it is wanted
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Write every event to a file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Write each host's exact output to DIR/HOST.stdout and DIR/HOST.stderr
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Leave the host's name in front of each line out
    #[arg(long)]
    pub no_prefix: bool,
    /// Finish the work when standard output is closed (as by `| head`), instead of ending it
    #[arg(long)]
    pub keep_going_on_broken_pipe: bool,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Color {
    /// On a terminal and in a CI system that shows it, unless NO_COLOR says otherwise
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What standard output gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// Text for people
    #[default]
    Text,
    /// One JSON object a line
    Ndjson,
}

/// How `hosts` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum HostsFormat {
    /// An aligned table
    #[default]
    Table,
    /// One name a line
    Names,
    /// Names folded into ranges, on one line
    Folded,
}

/// Whose exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum ExitCode {
    /// The table of `fanrun --help`
    #[default]
    Fanrun,
    /// The command's, 128+n for signal n, 255 if the connection failed; as ssh does
    Remote,
}

/// What to do with an unknown host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostKey {
    /// Refuse the host
    Strict,
    /// Ask on the terminal
    Ask,
    /// Record it and go on; a changed key is refused all the same
    AcceptNew,
}
