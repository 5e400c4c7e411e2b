//! `fanrun ping`: connect and authenticate, with the time of every step.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::Ping as Args;
use super::{End, Fault, printer, settings};
use crate::engine::attempts::{Attempts, Gates};
use crate::engine::sizing;
use crate::job::{HostId, PlayId};
use crate::outcome::HostProblem;
use crate::plan::{self, Single};
use crate::recap::Verdict;
use crate::report::table::table;
use crate::session::{Connector, Session};
use crate::target::Way;
use crate::text;

/// How one host answered.
type Answer = Result<Vec<String>, HostProblem>;

pub(super) async fn ping(args: Args, descriptors: u64) -> Result<End, Fault> {
    let ready = settings::prepare(&args.hosts).await?;
    let pattern = args.pattern.as_deref().unwrap_or("all");
    let plan = plan::single(pattern, Single::default(), &ready.ground)?.plan;
    let sizes = sizing::size(plan.targets.len(), plan.info.fanout, descriptors);
    let (connector, _, questions) = ready.reach.connector(sizes);
    let asking = tokio::task::spawn_blocking(move || super::ask::answer_all(questions));
    let shared = Arc::new((connector, Gates::default(), Semaphore::new(sizes.fanout)));
    let mut asked = JoinSet::new();
    for at in 0..plan.targets.len() {
        let way = plan.way(HostId(u32::try_from(at).unwrap_or(u32::MAX)), PlayId(0));
        let shared = Arc::clone(&shared);
        asked.spawn(async move {
            let (connector, gates, places) = &*shared;
            let _place = places.acquire().await.ok();
            (at, ask(connector, gates, &way).await)
        });
    }
    let mut answers: Vec<Option<Answer>> = plan.targets.iter().map(|_| None).collect();
    while let Some(joined) = asked.join_next().await {
        if let Ok((at, answer)) = joined {
            answers[at] = Some(answer);
        }
    }
    drop(shared);
    asking.abort();
    let names = plan.targets.iter().map(|target| target.name.to_string());
    show(names.zip(answers).collect())
}

async fn ask(connector: &Connector, gates: &Gates, way: &Way) -> Answer {
    let Way::Ssh(dial) = way else {
        return Ok(vec!["local".into()]);
    };
    let session = Attempts::new(gates, dial).until_open(connector).await?;
    let row = describe(&session);
    session.close().await;
    Ok(row)
}

const HEADER: [&str; 8] = [
    "HOST", "TOTAL", "DNS", "TCP", "KEX", "AUTH", "SERVER", "HOST KEY",
];

fn describe(session: &Session) -> Vec<String> {
    let Session::Ssh(session) = session else {
        return vec!["local".into()];
    };
    let report = session.report();
    let total = report.dns + report.connect + report.kex + report.auth;
    let times = [total, report.dns, report.connect, report.kex, report.auth];
    let mut row: Vec<String> = times.iter().map(|time| milliseconds(*time)).collect();
    row.extend([report.server_version.clone(), report.fingerprint.clone()]);
    row
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}ms", time.as_secs_f64() * 1000.0)
}

/// The table of those that answered, then the others, each with its reason.
fn show(answers: Vec<(String, Option<Answer>)>) -> Result<End, Fault> {
    let mut verdict = Verdict::Ok;
    let (mut rows, mut talk, mut good) = (Vec::new(), String::new(), 0);
    let all = answers.len();
    for (name, answer) in answers {
        match answer {
            Some(Ok(row)) => {
                good += 1;
                rows.push([name].into_iter().chain(row).collect());
            }
            Some(Err(problem)) => {
                verdict = worse(verdict, &problem);
                let message = text::printable(problem.message.as_bytes()).into_owned();
                talk.push_str(&format!("{name}: {message}\n"));
                for (label, detail) in &problem.details {
                    talk.push_str(&format!(
                        "  {label:<16} {}\n",
                        text::printable(detail.as_bytes())
                    ));
                }
            }
            None => {
                verdict = Verdict::Bug;
                talk.push_str(&format!("{name}: internal error\n"));
            }
        }
    }
    if !rows.is_empty() {
        printer::print_data(&table(&HEADER, &rows, &[1, 2, 3, 4, 5])).map_err(Fault::Output)?;
    }
    talk.push_str(&format!(
        "{good} of {} answered\n",
        text::count(all, "host")
    ));
    printer::print_talk(&talk);
    Ok(verdict.into())
}

fn worse(so_far: Verdict, problem: &HostProblem) -> Verdict {
    match (so_far, problem.cause.is_refused()) {
        (Verdict::Bug, _) => Verdict::Bug,
        (_, true) | (Verdict::Refused, false) => Verdict::Refused,
        (_, false) => Verdict::Unreachable,
    }
}
