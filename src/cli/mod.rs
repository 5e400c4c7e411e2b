//! The command line: what was typed, what it means, one file per command, and the one place that
//! prints errors and picks the exit code.

mod args;
mod ask;
mod copy;
mod exec;
mod help;
mod hosts;
mod ls;
mod outlet;
mod parse;
mod ping;
mod plan;
mod printer;
mod raw;
mod run;
mod schema;
mod secrets;
mod settings;
mod signals;
mod sources;
mod work;

use std::process::ExitCode;

use clap::Parser;

use crate::diagnostic::Diagnostic;
use crate::plan::PlanError;
use crate::recap::Verdict;
use args::{Cli, Command};

/// Why a command could not be carried out.
#[derive(Debug)]
enum Fault {
    /// The playbook, inventory or command line is wrong; nothing was executed.
    Wrong(Vec<Diagnostic>),
    /// No host was selected.
    Nothing(String),
    /// Data could not be written to standard output.
    Output(std::io::Error),
}

/// How fanrun ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Code(u8),
    /// By this signal, so that whoever started us sees it.
    Signal(u32),
}

impl Fault {
    fn usage(message: impl Into<String>) -> Self {
        Self::Wrong(vec![Diagnostic::error(message)])
    }
}

impl From<PlanError> for Fault {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Wrong(diagnostics) => Self::Wrong(diagnostics),
            PlanError::NothingMatched(message) => Self::Nothing(message),
        }
    }
}

impl From<Verdict> for End {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Signal(number) => Self::Signal(number),
            other => Self::Code(other.code()),
        }
    }
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return show_usage(&error),
    };
    let terminal = settings::TerminalState::save();
    let end = start(cli);
    terminal.restore();
    match end {
        End::Code(code) => ExitCode::from(code),
        End::Signal(number) => signals::die_by(number),
    }
}

fn start(cli: Cli) -> End {
    crate::session::local::seal_inherited_descriptors();
    // Refused only where the system has no signal masks; then there is none to undo.
    let _ = crate::session::local::unblock_inherited_signals();
    let descriptors = crate::engine::sizing::raise_descriptor_limit();
    let colour = settings::colour_of(&cli.command);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return show(&Fault::usage(format!("no runtime: {error}")), colour),
    };
    let end = runtime.block_on(async {
        match dispatch(cli.command, descriptors).await {
            Ok(end) => end,
            Err(fault) => show(&fault, colour),
        }
    });
    // A thread that still waits for a reader or for input must not keep us.
    runtime.shutdown_background();
    end
}

async fn dispatch(command: Command, descriptors: u64) -> Result<End, Fault> {
    match command {
        Command::Run(args) => run::run(args, descriptors).await,
        Command::Exec(args) => exec::exec(args, descriptors).await,
        Command::Plan(args) => plan::plan(args, descriptors).await,
        Command::Check(args) => plan::check(&args).await,
        Command::Hosts(args) => hosts::hosts(&args).await,
        Command::Upload(args) => copy::upload(*args, descriptors).await,
        Command::Download(args) => copy::download(*args, descriptors).await,
        Command::Ls(args) => ls::ls(*args, descriptors).await,
        Command::Ping(args) => ping::ping(args, descriptors).await,
        Command::Parse(args) => parse::parse(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Help(args) => help::help(&args),
    }
}

/// Prints a fault and gives its exit code.
fn show(fault: &Fault, colour: bool) -> End {
    match fault {
        Fault::Wrong(diagnostics) => {
            printer::print_talk(&crate::report::diagnostics::draw(diagnostics, colour));
            End::Code(Verdict::Usage.code())
        }
        Fault::Nothing(message) => {
            let diagnostic = Diagnostic::error(message.clone())
                .help("`--allow-empty` ends with code 0 where that is meant");
            printer::print_talk(&crate::report::diagnostics::draw(&[diagnostic], colour));
            End::Code(Verdict::NothingMatched.code())
        }
        Fault::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => End::Signal(13),
        Fault::Output(error) => {
            let text = format!("standard output could not be written: {error}");
            printer::print_talk(&crate::report::diagnostics::draw(
                &[Diagnostic::error(text)],
                colour,
            ));
            End::Code(Verdict::ReportFailed.code())
        }
    }
}

fn show_usage(error: &clap::Error) -> ExitCode {
    let text = error.render();
    if error.use_stderr() {
        printer::print_talk(&text.to_string());
        ExitCode::from(Verdict::Usage.code())
    } else {
        match printer::print_data(&text.to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(Verdict::ReportFailed.code()),
        }
    }
}
