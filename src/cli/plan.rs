//! `fanrun plan` and `fanrun check`: everything short of connecting, and what copies would do.

use super::args::{OutputArgs, Plan as Args, PlanArgs};
use super::settings::Reach;
use super::work::{self, Work};
use super::{End, Fault, printer, secrets, settings};
use crate::job::{Action, Memory};
use crate::plan::{Built, Moment, Plan, Play, Step};
use crate::playbook::Rollout;
use crate::report::diagnostics;
use crate::target::Way;
use crate::text::printable;
use crate::transfer::{How, Source};

pub(super) async fn check(args: &Args) -> Result<End, Fault> {
    let (built, _) = make(args).await?;
    let plan = &built.plan;
    let (plays, tasks) = (plan.plays.len(), plan.tasks());
    let text = format!(
        "ok  {}  {}, {}, {}\n",
        plan.info.title,
        crate::text::count(plays, "play"),
        crate::text::count(tasks, "task"),
        crate::text::count(plan.targets.len(), "host"),
    );
    printer::print_data(&text).map_err(Fault::Output)?;
    Ok(End::Code(0))
}

pub(super) async fn plan(args: PlanArgs, descriptors: u64) -> Result<End, Fault> {
    let (built, mut reach) = make(&args.plan).await?;
    printer::print_data(&describe(&built.plan)).map_err(Fault::Output)?;
    if !args.connect {
        return Ok(End::Code(0));
    }
    let Some(mut plan) = built.plan.looking() else {
        return Ok(End::Code(0));
    };
    printer::print_data("\n").map_err(Fault::Output)?;
    let output = OutputArgs {
        color: args.plan.color,
        ..OutputArgs::default()
    };
    work::warn(&secrets::fetch(&mut plan, &mut reach)?, &output);
    let work = Work::new(plan, reach, None, descriptors)?;
    Ok(work::carry_out(work, &output).await?.end)
}

async fn make(args: &Args) -> Result<(Built, Reach), Fault> {
    let (built, reach) = settings::plan_of(&args.playbook, &args.hosts, &args.work).await?;
    if !built.warnings.is_empty() {
        let colour = settings::colour(args.color);
        printer::print_talk(&diagnostics::draw(&built.warnings, colour));
    }
    Ok((built, reach))
}

/// What would run where: a heading a play, then each task with what each group of hosts that gets
/// the same text would run.
fn describe(plan: &Plan) -> String {
    let mut out = format!("{}\n", plan.info.title);
    for (at, play) in plan.plays.iter().enumerate() {
        let names: Vec<_> = play
            .hosts
            .iter()
            .map(|id| plan.targets[id.0 as usize].name.clone())
            .collect();
        let strategy = if play.linear { "linear" } else { "free" };
        out.push_str(&format!(
            "\nplay {}  {}\n  hosts   {} ({})  {strategy}, fanout {}\n",
            at + 1,
            play.name,
            settings::fold_names(&names),
            names.len(),
            play.fanout.min(names.len().max(1)),
        ));
        for way in ways(plan, at) {
            out.push_str(&format!("  reached {way}\n"));
        }
        if let Some(rollout) = &play.rollout {
            out.push_str(&format!(
                "  rollout {}\n",
                rollout_text(rollout, names.len())
            ));
        }
        for (number, task) in play.tasks.iter().enumerate() {
            out.push_str(&format!("  {:>2}. {}", number + 1, task.reference.name));
            if let Some(place) = &task.reference.place {
                out.push_str(&format!("  ({place})"));
            }
            out.push('\n');
            let part = part_text(play, number).into_iter().map(str::to_owned);
            let control = part
                .chain([task.control_text()])
                .filter(|text| !text.is_empty());
            let control = control.collect::<Vec<_>>().join(", ");
            if !control.is_empty() {
                let control = crate::text::printable(control.as_bytes());
                out.push_str(&format!("        ({control})\n"));
            }
            for (hosts, text) in variants(plan, at, number) {
                let whom = if hosts.len() == names.len() {
                    String::new()
                } else {
                    format!("{}: ", settings::fold_names(&hosts))
                };
                for (line, text) in text.lines().enumerate() {
                    let lead = if line == 0 { whom.as_str() } else { "" };
                    out.push_str(&format!("        {lead}{text}\n"));
                }
            }
        }
    }
    out
}

/// In which batches a play goes through its hosts.
fn rollout_text(rollout: &Rollout, hosts: usize) -> String {
    let mut left = hosts;
    let mut sizes: Vec<String> = Vec::new();
    let mut at = 0;
    while left > 0 && at < BATCHES {
        let share = rollout.batches.get(at).or(rollout.batches.last());
        let size = share.map_or(left, |share| share.batch(hosts).min(left));
        sizes.push(size.to_string());
        left -= size;
        at += 1;
    }
    if left > 0 {
        sizes.push(format!("{left} more in such batches"));
    }
    let most = rollout.max_failures.map_or(String::new(), |most| {
        let most = crate::text::count(most.at_most(hosts), "failure");
        format!("; ends after more than {most}")
    });
    let pause = match rollout.pause {
        pause if pause.is_zero() => String::new(),
        pause => format!("; {} between them", crate::text::duration(pause)),
    };
    format!("hosts {}{most}{pause}", sizes.join(", then "))
}

/// Batches that are shown one by one.
const BATCHES: usize = 6;

/// When a task of a block is done.
fn part_text(play: &Play, at: usize) -> Option<&'static str> {
    play.blocks.iter().find_map(|block| match at {
        at if block.rescue.contains(&at) => Some("where its block failed"),
        at if block.always.contains(&at) => Some("after its block in any case"),
        _ => None,
    })
}

/// How the hosts of a play are reached, folded where only the address differs.
fn ways(plan: &Plan, play: usize) -> Vec<String> {
    let mut groups: Vec<(String, Vec<crate::target::HostName>)> = Vec::new();
    for id in &plan.plays[play].hosts {
        let name = &plan.targets[id.0 as usize].name;
        let play = crate::job::PlayId(u16::try_from(play).unwrap_or(u16::MAX));
        let text = match &*plan.way(*id, play) {
            Way::Local => "here, without SSH".to_owned(),
            Way::Ssh(dial) if dial.address == name.as_str() => {
                format!("as {} on port {}", dial.user, dial.port)
            }
            Way::Ssh(dial) => format!("as {} at {} port {}", dial.user, dial.address, dial.port),
        };
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name.clone()),
            None => groups.push((text, vec![name.clone()])),
        }
    }
    let (one, all) = (groups.len() == 1, groups.len());
    let show = |(text, names): (String, Vec<_>)| {
        if one {
            text
        } else {
            format!("{}: {text}", settings::fold_names(&names))
        }
    };
    let mut lines: Vec<String> = groups.into_iter().take(WAYS).map(show).collect();
    if all > WAYS {
        lines.push(format!(
            "+ {} more; `fanrun hosts` lists them all",
            all - WAYS
        ));
    }
    lines
}

/// Ways that are shown of a play.
const WAYS: usize = 4;

/// The texts of a task, each with the hosts that get it.
fn variants(plan: &Plan, play: usize, task: usize) -> Vec<(Vec<crate::target::HostName>, String)> {
    let task_id = plan.plays[play].tasks[task].reference.id;
    let mut found: Vec<(Vec<crate::target::HostName>, String)> = Vec::new();
    for id in &plan.plays[play].hosts {
        let name = plan.targets[id.0 as usize].name.clone();
        let known = match plan.job(*id, task_id, Moment::before(&Memory::default())) {
            Ok(job) => action_text(&job.action),
            // A value that an earlier task registers is not known before it has run.
            Err(_) => None,
        };
        let text = known.unwrap_or_else(|| written(&plan.plays[play].tasks[task].action));
        match found.iter_mut().find(|(_, known)| *known == text) {
            Some((names, _)) => names.push(name),
            None => found.push((vec![name], text)),
        }
    }
    found
}

fn action_text(action: &Action) -> Option<String> {
    let command = |command: &crate::job::Command| match command {
        crate::job::Command::Shell(text) | crate::job::Command::PosixShell(text) => {
            text.trim_end().to_owned()
        }
        crate::job::Command::Argv(words) => format!("{words:?}"),
    };
    let text = match action {
        Action::Run(line) => format!("$ {}", command(line)),
        Action::Local(line) => format!("here$ {}", command(line)),
        Action::Script {
            name,
            content,
            args,
        } => {
            format!("script {name} ({} bytes) {}", content.len(), args.join(" "))
        }
        Action::List(listing) => {
            let paths = listing
                .paths
                .iter()
                .map(|path| crate::text::printable(path));
            format!("ls {}", paths.collect::<Vec<_>>().join(" "))
        }
        Action::Upload(upload) => {
            let sources = upload.sources.iter().map(|source| match source {
                Source::Path(path) => printable(path.as_os_str().as_encoded_bytes()).into_owned(),
                Source::Content { name, bytes, .. } => {
                    format!("{name} (filled in, {} bytes)", bytes.len())
                }
            });
            let (sources, dest) = (sources.collect::<Vec<_>>(), printable(&upload.dest));
            let how = how_text(&upload.how);
            format!("upload {} -> {dest}{how}", sources.join(" "))
        }
        Action::Download(download) => {
            let sources = download.sources.iter().map(|source| printable(source));
            let (sources, dest) = (sources.collect::<Vec<_>>(), download.dest.display());
            let how = how_text(&download.how);
            format!("download {} -> {dest}{how}", sources.join(" "))
        }
        Action::Print(text) => format!("print {text}"),
        Action::Pause(time) => format!("pause {}", crate::text::duration(*time)),
        // As it was written says more than what has been made of it.
        Action::Ask(_) | Action::Assert(_) | Action::Set(_) | Action::WaitFor(_) => return None,
    };
    let lines: Vec<_> = text
        .lines()
        .map(|line| crate::text::printable(line.as_bytes()).into_owned())
        .collect();
    Some(lines.join("\n"))
}

/// What is asked of a copy besides copying.
fn how_text(how: &How) -> String {
    let mut all = Vec::new();
    all.extend(how.mode.map(|mode| format!("mode {mode:04o}")));
    all.extend(how.owner.as_ref().map(|owner| format!("owner {owner}")));
    all.extend(
        how.bandwidth
            .map(|rate| format!("{}/s", crate::text::size(rate))),
    );
    let words = [
        (how.preserve.mode && how.preserve.times, "preserve"),
        (how.only_changed.is_some(), "only changed"),
        (how.verify, "verify"),
        (how.resume, "resume"),
        (how.backup, "backup"),
        (how.durable, "durable"),
        (how.delete, "delete what the source does not have"),
    ];
    let set = words.iter().filter(|(set, _)| *set);
    all.extend(set.map(|(_, word)| (*word).to_owned()));
    if all.is_empty() {
        String::new()
    } else {
        format!("\n  {}", all.join(", "))
    }
}

fn written(step: &Step) -> String {
    step.written()
}
