//! `fanrun exec`

use super::args::{Exec, ExitCode};
use super::work::{self, Work};
use super::{End, Fault, raw, settings};
use crate::plan::{self, Plan, Single};

pub(super) async fn exec(args: Exec, descriptors: u64) -> Result<End, Fault> {
    let ready = settings::prepare(&args.hosts).await?;
    let pattern = args.pattern.as_deref().unwrap_or("all");
    // As ssh does: the words are joined, and the remote shell takes them apart.
    let command = args.command.join(" ");
    if command.contains('\0') {
        return Err(Fault::usage("a command cannot hold a NUL byte"));
    }
    let timeout = args
        .timeout
        .as_deref()
        .map(settings::duration)
        .transpose()?;
    let single = Single {
        command,
        timeout,
        pass_through: args.raw,
    };
    let built = plan::single(pattern, single, &ready.ground)?;
    let mut warnings = ready.warnings;
    warnings.extend(built.warnings);
    work::warn(&warnings, &args.output);
    one_host_only(&args, &built.plan)?;
    let work = Work::new(
        built.plan,
        ready.reach,
        args.deadline.as_deref(),
        descriptors,
    )?;
    let work = Work {
        raw: args.raw,
        format: args.format,
        ..work
    };
    let done = work::carry_out(work, &args.output).await?;
    Ok(match (args.exit_code, done.end) {
        (ExitCode::Remote, End::Code(_)) => End::Code(raw::code_of(done.last.as_ref())),
        (ExitCode::Fanrun, _) | (ExitCode::Remote, End::Signal(_)) => done.end,
    })
}

fn one_host_only(args: &Exec, plan: &Plan) -> Result<(), Fault> {
    let what = match (args.raw, args.exit_code) {
        (true, _) => "--raw",
        (false, ExitCode::Remote) => "--exit-code remote",
        (false, ExitCode::Fanrun) => return Ok(()),
    };
    match plan.targets.len() {
        0 | 1 => Ok(()),
        n => Err(Fault::usage(format!(
            "`{what}` is for one host; {n} are selected"
        ))),
    }
}
