//! Carrying out a plan for `run` and `exec`: the printer, the run, and what the two make of the
//! exit code.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::args::{Format, OutputArgs};
use super::printer::{self, Curtain, Printer};
use super::settings::{self, Reach};
use super::{End, Fault, raw, secrets, signals};
use crate::diagnostic::Diagnostic;
use crate::engine::{
    self, Control, Finished,
    clock::Clock,
    sizing::{self, Sizes},
};
use crate::journal::events::EventFile;
use crate::journal::last::LastFile;
use crate::journal::raw::RawFiles;
use crate::outcome::Outcome;
use crate::output::backlog::{DEFAULT_SPILL, SpillBudget};
use crate::plan::Plan;
use crate::recap::Verdict;
use crate::report::listing::{Choice, ListingRenderer};
use crate::report::ndjson::Ndjson;
use crate::report::raw::Raw;
use crate::report::terminal::{TextOptions, TextRenderer};
use crate::report::{Renderer, diagnostics};
use crate::target::HostName;

/// Events that may wait for the printer.
const EVENT_QUEUE: usize = 64;
/// How long the printer may take when a signal ended the run.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is carried out.
pub(super) struct Work {
    pub(super) plan: Plan,
    pub(super) reach: Reach,
    pub(super) sizes: Sizes,
    pub(super) deadline: Option<Duration>,
    /// No command is run.
    pub(super) check: bool,
    /// Each task is asked about.
    pub(super) step: bool,
    /// Bytes pass through as they are.
    pub(super) raw: bool,
    /// What standard output gets.
    pub(super) format: Format,
    /// Standard output gets files that were found.
    pub(super) listing: Option<Choice>,
}

impl Work {
    /// What a plan becomes with the sizes that the descriptors allow. `deadline` is as typed.
    pub(super) fn new(
        plan: Plan,
        reach: Reach,
        deadline: Option<&str>,
        descriptors: u64,
    ) -> Result<Self, Fault> {
        let sizes = sizing::size(plan.targets.len(), plan.info.fanout, descriptors);
        let deadline = deadline.map(settings::duration).transpose()?;
        Ok(Self {
            plan,
            reach,
            sizes,
            deadline,
            check: false,
            step: false,
            raw: false,
            format: Format::Text,
            listing: None,
        })
    }
}

/// A run that is over.
pub(super) struct Done {
    /// How the last task that ended did.
    pub(super) last: Option<Outcome>,
    pub(super) end: End,
}

/// Tells what is odd before the run begins.
pub(super) fn warn(warnings: &[Diagnostic], output: &OutputArgs) {
    if !warnings.is_empty() && !output.quiet {
        printer::print_talk(&diagnostics::draw(warnings, settings::colour(output.color)));
    }
}

/// Runs the plan and prints what happens.
pub(super) async fn carry_out(work: Work, output: &OutputArgs) -> Result<Done, Fault> {
    let masks = secrets::veil(work.reach.secrets.clone());
    let (controls, taken) = mpsc::channel(8);
    let (clock, curtain) = (Clock::start(), watch::Sender::new(Curtain::Up));
    let stop = watch::Sender::new(false);
    let audience = signals::Audience {
        stop: stop.clone(),
        controls: controls.clone(),
        curtain: curtain.clone(),
        clock: clock.clone(),
    };
    signals::watch(audience).map_err(|error| Fault::usage(format!("no signals: {error}")))?;
    let printing = printing(&work, output)?;
    let (events, shown) = mpsc::channel(EVENT_QUEUE);
    let (connector, asker, questions) = work.reach.connector(work.sizes);
    let setup = printer::Setup {
        stop: stop.subscribe(),
        controls,
        curtain,
        questions,
        masks: masks.clone(),
        ..printing
    };
    let printer = Printer::start(setup, shown)
        .map_err(|error| Fault::usage(format!("no thread to print with: {error}")))?;
    let stdin = if work.raw {
        Some(raw::standard_input().map_err(Fault::Output)?)
    } else {
        None
    };
    let setup = engine::Setup {
        stdin,
        asker,
        check: work.check,
        masks: masks.subscribe(),
        step: work.step,
        plan: Arc::new(work.plan),
        connector,
        spill: SpillBudget::new(DEFAULT_SPILL),
        deadline: work.deadline,
        clock,
        fanout: work.sizes.fanout,
        keep_open: work.sizes.keep_open,
        backlog_memory: work.sizes.backlog_memory,
    };
    let finished = engine::run(setup, events, taken).await;
    if let Some(fleet) = work.reach.fleet {
        fleet.shutdown().await;
    }
    Ok(conclude(finished, printer).await)
}

async fn conclude(finished: Finished, printer: Printer) -> Done {
    let Finished {
        mut recap,
        signal,
        last,
        cut_short,
    } = finished;
    let patience = (signal.is_some() || cut_short).then_some(LAST_WORDS);
    match printer.finish(patience).await {
        Some(printed) if printed.failed.is_some() => recap.report_failed(),
        Some(_) | None => {}
    }
    let verdict = match (cut_short, signal) {
        (true, None) => Verdict::Signal(2),
        (_, Some(number)) => Verdict::Signal(number),
        (false, None) => recap.verdict(),
    };
    Done {
        last,
        end: verdict.into(),
    }
}

fn printing(work: &Work, output: &OutputArgs) -> Result<printer::Setup, Fault> {
    let events = output
        .events
        .as_deref()
        .map(EventFile::create)
        .transpose()
        .map_err(Fault::usage)?;
    let raw = output
        .output_dir
        .as_deref()
        .map(RawFiles::create)
        .transpose()
        .map_err(Fault::usage)?;
    let talk_on_terminal = std::io::stderr().is_terminal() && !settings::dumb_terminal();
    let text = work.format == Format::Text;
    let renderer: Box<dyn Renderer + Send> = match work.format {
        Format::Text if work.raw => Box::new(Raw),
        Format::Ndjson => Box::new(Ndjson),
        Format::Text => {
            let mut options = text_options(&work.plan, output);
            match &work.listing {
                Some(choice) => {
                    // Rows say enough; only what goes wrong is worth a word.
                    options.verbosity -= i8::from(options.verbosity == 0);
                    Box::new(ListingRenderer::new(
                        choice.clone(),
                        TextRenderer::new(options),
                    ))
                }
                None => Box::new(TextRenderer::new(options)),
            }
        }
    };
    let last = work.plan.states();
    let last = last.map(|(task, path, seen)| LastFile::new(task, path.to_owned(), seen.clone()));
    let (controls, _) = mpsc::channel::<Control>(1);
    let (_, questions) = mpsc::channel(1);
    let live = text && talk_on_terminal && !output.quiet && !work.raw;
    Ok(printer::Setup {
        stop: watch::Sender::new(false).subscribe(),
        renderer,
        events,
        raw,
        last: last.collect(),
        live,
        outlives_reader: output.keep_going_on_broken_pipe,
        questions,
        controls,
        curtain: watch::Sender::new(Curtain::Up),
        masks: watch::Sender::default(),
    })
}

fn text_options(plan: &Plan, output: &OutputArgs) -> TextOptions {
    let hosts: Vec<HostName> = plan
        .targets
        .iter()
        .map(|target| target.name.clone())
        .collect();
    let data_on_terminal = std::io::stdout().is_terminal();
    TextOptions {
        colour: settings::colour(output.color),
        terminal: std::io::stderr().is_terminal() && !settings::dumb_terminal(),
        data_terminal: data_on_terminal,
        ci: settings::in_ci(),
        columns: printer::terminal_size().0,
        verbosity: if output.quiet {
            -1
        } else {
            i8::try_from(output.verbose).unwrap_or(2)
        },
        prefix: !output.no_prefix,
        hosts,
        tables: plan.tables(),
        fold: settings::fold_names,
    }
}
