//! `fanrun run`

use super::args::Run;
use super::work::{self, Work};
use super::{End, Fault, settings};
use crate::plan;

pub(super) async fn run(args: Run, descriptors: u64) -> Result<End, Fault> {
    let (playbook, mut warnings) = settings::read_playbook(&args.playbook)?;
    let more = settings::playbook_inventories(&playbook, &args.hosts);
    let ready = settings::prepare(&args.hosts, &args.vars, &more).await?;
    warnings.extend(ready.warnings);
    let built = plan::build(playbook, &ready.ground)?;
    warnings.extend(built.warnings);
    work::warn(&warnings, &args.output);
    let work = Work::new(
        built.plan,
        ready.reach,
        args.deadline.as_deref(),
        descriptors,
    )?;
    Ok(work::carry_out(work, &args.output).await?.end)
}
