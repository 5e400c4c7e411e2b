//! `fanrun run`

use super::args::Run;
use super::work::{self, Work};
use super::{End, Fault, secrets, settings};

pub(super) async fn run(args: Run, descriptors: u64) -> Result<End, Fault> {
    if args.step && !settings::terminal() {
        let message = "`--step` asks before each task, and there is no terminal to ask on";
        return Err(Fault::usage(message));
    }
    let (mut built, mut reach) = settings::plan_of(&args.playbook, &args.hosts, &args.work).await?;
    work::warn(&built.warnings, &args.output);
    let warnings = secrets::fetch(&mut built.plan, &mut reach)?;
    work::warn(&warnings, &args.output);
    let work = Work::new(built.plan, reach, args.deadline.as_deref(), descriptors)?;
    let work = Work {
        format: args.format,
        check: args.check,
        step: args.step,
        ..work
    };
    Ok(work::carry_out(work, &args.output).await?.end)
}
