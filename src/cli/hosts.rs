//! `fanrun hosts`

use super::args::{Hosts as Args, HostsFormat};
use super::{End, Fault, printer, settings};
use crate::job::PlayId;
use crate::plan::{self, Plan, Single};
use crate::report::table::table;
use crate::target::Way;

pub(super) async fn hosts(args: &Args) -> Result<End, Fault> {
    let ready = settings::prepare(&args.hosts).await?;
    let pattern = args.pattern.as_deref().unwrap_or("all");
    let built = plan::single(pattern, Single::default(), &ready.ground)?;
    let plan = &built.plan;
    let text = match args.format {
        HostsFormat::Names => plan
            .targets
            .iter()
            .map(|target| format!("{}\n", target.name))
            .collect(),
        HostsFormat::Folded => {
            let names: Vec<_> = plan
                .targets
                .iter()
                .map(|target| target.name.clone())
                .collect();
            format!("{}\n", settings::fold_names(&names))
        }
        HostsFormat::Table => as_table(plan),
    };
    printer::print_data(&text).map_err(Fault::Output)?;
    Ok(End::Code(0))
}

fn as_table(plan: &Plan) -> String {
    let row = |(at, target): (usize, &crate::target::Target)| {
        let id = crate::job::HostId(u32::try_from(at).unwrap_or(u32::MAX));
        let (user, address, port) = match &*plan.way(id, PlayId(0)) {
            Way::Local => (String::new(), "local".to_owned(), String::new()),
            Way::Ssh(dial) => (
                dial.user.to_string(),
                dial.address.clone(),
                dial.port.to_string(),
            ),
        };
        vec![
            target.name.to_string(),
            user,
            address,
            port,
            target.groups.join(","),
        ]
    };
    let rows: Vec<Vec<String>> = plan.targets.iter().enumerate().map(row).collect();
    table(&["HOST", "USER", "ADDRESS", "PORT", "GROUPS"], &rows, &[3])
}
