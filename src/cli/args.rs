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
  128+n ended by signal n

Pages:
  fanrun help playbook      the keys of a playbook
  fanrun help vars          what `${{ }}` can hold, and where values come from
  fanrun help parse         output as rows, and tables
  fanrun help exit-codes    what fanrun ends with
  fanrun help events        the stream for programs")]
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
    /// Show what a playbook would do where; connects to nothing unless it is told to
    #[command(after_help = "\
Examples:
  fanrun plan deploy.yml -i hosts.yml
  fanrun plan deploy.yml -i hosts.yml --connect      what its copies would change, too
  fanrun plan deploy.yml -i hosts.yml -l web1 -e version=2.4.1")]
    Plan(PlanArgs),
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
  fanrun ls -r 'all:/seq_dir' -i hosts.yml --files --newer @last --state seen.json
  fanrun ls -r 'all:/srv/app' -i hosts.yml --diff yesterday.ndjson
  fanrun ls -r 'web:/etc/nginx' -i hosts.yml --across

On a terminal the rows are a table, in a pipe one path a line. Sizes are exact and times are in UTC in
all formats but the table. An unreadable directory is a row of type error and ends with code 1.")]
    Ls(Box<Ls>),
    /// Copy files to many hosts over SFTP; no shell is needed there
    #[command(after_help = "\
Examples:
  fanrun upload app.conf 'web[1-3]:/etc/app/'
  fanrun upload dist/ 'all:/srv/app' -i hosts.yml --only-changed --delete
  fanrun upload dist/ 'all:/srv/app' -i hosts.yml --only-changed --delete --check
  fanrun upload image.iso 'all:/var/lib/images/' -i hosts.yml --resume --verify --bandwidth 50MiB

A directory with a slash at its end is what it holds; without, it is itself put into the destination.
A file appears under its name when it is complete. Directories that are missing are made.")]
    Upload(Box<Upload>),
    /// Copy files from many hosts over SFTP; no shell is needed there
    #[command(after_help = "\
Examples:
  fanrun download 'web[1-3]:/var/log/nginx/*.log' logs/         logs/web1/var/log/nginx/access.log ...
  fanrun download 'all:/etc' backup/ -i hosts.yml --preserve --only-changed --delete
  fanrun download --flat db1:/var/backups/app.sql.gz .
  fanrun download 'all:/etc/os-release' 'facts/${{ host.name }}.txt' -i hosts.yml

What comes from a host goes to DEST/HOST/ with its whole path, so that hosts never overwrite each
other; where DEST names the host itself, or with --flat, it goes to DEST.")]
    Download(Box<Download>),
    /// Connect and authenticate; show how long every step takes
    #[command(after_help = "\
Examples:
  fanrun ping web1
  fanrun ping -i hosts.yml all
  fanrun ping --sandbox 5")]
    Ping(Ping),
    /// Read text on standard input as a playbook's `parse` would, and show the rows
    #[command(after_help = "\
Examples:
  du -a /srv | fanrun parse du
  df -PT | fanrun parse df --format csv
  ps -eo pid,rss,args | fanrun parse '{columns: {last: rest}, types: {pid: int}}'
  fanrun parse kv < /etc/os-release
  fanrun parse '{regex: \"load average: (?<load>[0-9.]+)\", types: {load: float}}' < uptime.txt

A SPEC is a format's name, or `{FORMAT: {OPTION: VALUE}}`:
  du        unit (bytes, 512, 1K, 1M, 1G; human for -h, si for --si), zero (-0), names [a, b]
  df        unit
  lines     one column, `line`
  columns   split (whitespace, aligned, tab, or a separator), names, header, last: rest, skip
  kv        separator (also alone: `kv: \": \"`), quotes, blocks (a row for each)
  json      path to the list of rows (also alone: `json: data.items`)
  ndjson    a row a line
  csv, tsv  names, header
  regex     pattern with named groups (also alone), match (lines, first, all)

Beside the format: `types: {COLUMN: TYPE}` of int, float, bool, percent, size, duration, datetime;
`strict: false` goes on behind lines that do not fit; `stop_when: row.COLUMN > 3` needs no more.")]
    Parse(Parse),
    /// Print a JSON Schema, for editors and programs that check
    #[command(after_help = "\
Examples:
  fanrun schema playbook > playbook.schema.json
  fanrun schema events > events.schema.json

A playbook whose first line is `# yaml-language-server: $schema=playbook.schema.json` is completed and
checked by editors that know the YAML language server.")]
    Schema(SchemaArgs),
    /// Show a page (playbook, vars, parse, exit-codes, events) or the help of a command
    Help(HelpArgs),
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
    /// Ask before each task whether it is to be done
    #[arg(long)]
    pub step: bool,
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

/// `fanrun plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Connect, and show what uploads and downloads would copy and delete; nothing is changed
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub plan: Plan,
}

/// `fanrun check`, and what `fanrun plan` shares with it
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
    /// Changed since: `2d`, `2026-11-01`, a time with its zone, or `@last` (see --state)
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
    /// Only what was added, removed or changed since a listing that `--format ndjson` wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["summary", "by", "du", "across"])]
    pub diff: Option<PathBuf>,
    /// Only the paths that some host lacks, or has another version of
    #[arg(long, conflicts_with_all = ["summary", "by", "du"])]
    pub across: bool,
    /// Where `--newer @last` keeps what was listed last
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
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

/// `fanrun upload`
#[derive(Debug, Args)]
pub struct Upload {
    /// Files and directories here, then which hosts and where to
    #[arg(required = true, num_args = 1.., value_names = ["SRC", "PATTERN:DEST"])]
    pub paths: Vec<PathBuf>,
    /// Give what is copied to USER, USER:GROUP or :GROUP
    #[arg(long, value_name = "WHO", help_heading = "Copying")]
    pub owner: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub copy: CopyArgs,
}

/// `fanrun download`
#[derive(Debug, Args)]
pub struct Download {
    /// Which hosts and what on them (globs are the host's), then where to here
    #[arg(required = true, num_args = 1.., value_names = ["PATTERN:SRC", "DEST"])]
    pub paths: Vec<String>,
    /// Straight into DEST: for one host
    #[arg(long, help_heading = "Copying")]
    pub flat: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened")]
    pub copy: CopyArgs,
}

/// How files are copied.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copying")]
pub struct CopyArgs {
    /// Permission bits of every file, such as `0644`
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Keep permission bits and times; or only what is named: mode, times, setid
    #[arg(
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "mode,times"
    )]
    pub preserve: Vec<String>,
    /// Leave alone what has the same size and time already
    #[arg(long)]
    pub only_changed: bool,
    /// Leave alone what has the same content already
    #[arg(long)]
    pub checksum: bool,
    /// Read back what arrived and compare
    #[arg(long)]
    pub verify: bool,
    /// Remove what the source does not have from the directories that are copied
    #[arg(long)]
    pub delete: bool,
    /// Go on with what an earlier attempt left, after comparing it
    #[arg(long)]
    pub resume: bool,
    /// What becomes of symbolic links
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub symlinks: Symlinks,
    /// Leave out what fits a glob: on the name, or with a slash on the path below (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// At most so many bytes a second over all hosts together, such as `10MiB`
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<String>,
    /// Keep what is replaced under its name with `~`
    #[arg(long)]
    pub backup: bool,
    /// Have the receiving disk hold a file before it gets its name
    #[arg(long)]
    pub durable: bool,
    /// Connect and show what would be done, and change nothing
    #[arg(long)]
    pub check: bool,
    /// A limit for the copy on each host, such as `30m`
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// A limit for the whole run
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

/// What becomes of symbolic links that are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Symlinks {
    /// They are made anew
    #[default]
    Copy,
    /// What they lead to is copied
    Follow,
    /// They are left out
    Skip,
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

/// `fanrun parse`
#[derive(Debug, Args)]
pub struct Parse {
    /// What stands behind `parse:` in a playbook: a format's name, or a mapping
    pub spec: String,
    /// How rows are written [default: table on a terminal, else ndjson]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<RowsFormat>,
    /// Colour: always, never, or where it is wanted
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// `fanrun schema`
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(value_enum)]
    pub of: SchemaOf,
}

/// What there is a schema of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// A playbook
    Playbook,
    /// A YAML inventory
    Inventory,
    /// A line of `--events`
    Events,
}

/// `fanrun help`
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A page or a command
    pub topic: Option<String>,
    /// Colour: always, never, or where it is wanted
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// How `parse` writes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowsFormat {
    /// Aligned columns for people, at the end
    Table,
    /// One JSON object a line, as they come
    Ndjson,
    /// Comma-separated values, at the end
    Csv,
    /// One JSON list
    Json,
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
