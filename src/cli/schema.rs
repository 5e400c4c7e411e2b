//! `fanrun schema`

use super::args::{SchemaArgs, SchemaOf};
use super::{End, Fault, printer};
use crate::recap::Verdict;
use crate::{inventory, playbook, report};

pub(super) fn schema(args: &SchemaArgs) -> Result<End, Fault> {
    let schema = match args.of {
        SchemaOf::Playbook => playbook::schema::schema(),
        SchemaOf::Inventory => inventory::schema::schema(),
        SchemaOf::Events => report::schema::events(),
    };
    printer::print_data(&format!("{schema:#}\n")).map_err(Fault::Output)?;
    Ok(End::Code(Verdict::Ok.code()))
}
