//! Uploads and downloads in a plan: what a task of a playbook, or a command line, becomes for each
//! host.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::build::{plain_task, plan_of, task_name_of};
use super::values::Fill;
use super::{Built, Ground, Plan, PlanError, Step};
use crate::diagnostic::Diagnostic;
use crate::event::RunInfo;
use crate::job::{Action, PlayId, TaskId};
use crate::playbook::{Copy, Document, Template};
use crate::transfer::{Download, How, Source, Upload};

/// The largest file that is filled in.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// A copy from the command line.
#[derive(Debug)]
pub enum Request {
    /// Files from here to the hosts of a pattern.
    Upload {
        /// Paths, relative to the working directory.
        sources: Vec<PathBuf>,
        /// Which hosts, and where to on them.
        to: Vec<(String, String)>,
    },
    /// Files from the hosts of patterns to here.
    Download {
        /// Which hosts, and what of them.
        from: Vec<(String, Vec<String>)>,
        /// Where to; may hold `${{ host }}`.
        dest: Template,
        /// Hosts get no directories of their own.
        flat: bool,
    },
}

/// Makes the plan of copies from the command line.
///
/// # Errors
/// As for a playbook.
pub fn copies(
    request: Request,
    how: How,
    timeout: Option<Duration>,
    ground: &Ground,
) -> Result<Built, PlanError> {
    let how = Arc::new(how);
    let here: Arc<Path> = Path::new("").into();
    let parts: Vec<(String, Step)> = match request {
        Request::Upload { sources, to } => {
            let upload = |(pattern, dest): (String, String)| {
                let upload = Upload {
                    sources: sources.iter().cloned().map(Source::Path).collect(),
                    dest: dest.into(),
                    how: (*how).clone(),
                };
                (pattern, Step::Plain(Action::Upload(Arc::new(upload))))
            };
            to.into_iter().map(upload).collect()
        }
        Request::Download { from, dest, flat } => {
            let download = |(pattern, paths): (String, Vec<String>)| {
                let step = Step::Download {
                    sources: paths.iter().map(|path| Template::plain(path)).collect(),
                    dest: dest.clone(),
                    folder: Arc::clone(&here),
                    how: Arc::clone(&how),
                    flat,
                };
                (pattern, step)
            };
            from.into_iter().map(download).collect()
        }
    };
    let named = parts.into_iter().enumerate().map(|(at, (pattern, step))| {
        let name = task_name_of(&written(&step));
        let mut task = plain_task(at, name, Action::Pause(Duration::ZERO), timeout);
        task.action = step;
        (pattern, task)
    });
    let named: Vec<_> = named.collect();
    let titles: Vec<String> = named
        .iter()
        .map(|(_, task)| task.reference.name.to_string())
        .collect();
    let title = crate::text::fit(&titles.join(", "), 72).into_owned();
    let built = plan_of(title, named, ground)?;
    let clashes = flat_for_many(&built.plan);
    if clashes.is_empty() {
        Ok(built)
    } else {
        Err(PlanError::Wrong(clashes))
    }
}

fn written(step: &Step) -> String {
    match step {
        Step::Plain(Action::Upload(upload)) => {
            let sources = upload.sources.iter().map(|source| match source {
                Source::Path(path) => path.display().to_string(),
                Source::Content { name, .. } => name.clone(),
            });
            let dest = String::from_utf8_lossy(&upload.dest);
            format!("upload {} -> {dest}", sources.collect::<Vec<_>>().join(" "))
        }
        step => step.written(),
    }
}

/// What a task of a playbook is in a plan.
pub(super) fn step(copy: Copy, folder: &Path, download: bool) -> Result<Step, Box<Diagnostic>> {
    let how = Arc::new(copy.how);
    let base: Arc<Path> = folder.into();
    if download {
        return Ok(Step::Download {
            sources: copy.sources,
            dest: copy.dest,
            folder: base,
            how,
            flat: copy.flat,
        });
    }
    let (mut sources, mut documents) = (copy.sources, Vec::new());
    if copy.template {
        for source in std::mem::take(&mut sources) {
            let read = read_document(&folder.join(source.text()));
            documents.push(read.map_err(|reason| {
                let message = format!("the template `{}` {reason}", source.text());
                let at = &copy.at;
                Box::new(Diagnostic::error(message).at(&at.source, at.span.clone(), ""))
            })?);
        }
    }
    Ok(Step::Upload {
        sources,
        documents,
        dest: copy.dest,
        folder: base,
        how,
        at: copy.at,
    })
}

fn read_document(path: &Path) -> Result<(Document, u32), String> {
    use std::os::unix::fs::MetadataExt;
    let fault = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("does not exist ({})", path.display()),
        _ => format!("cannot be read: {error}"),
    };
    let file = std::fs::File::open(path).map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.mode() & 0o777;
    let mut text = String::new();
    file.take(DOCUMENT_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(fault)?;
    if text.len() as u64 > DOCUMENT_LIMIT {
        return Err(format!("is larger than {} MiB", DOCUMENT_LIMIT >> 20));
    }
    let name = path.file_name().map(|name| name.to_string_lossy());
    let name = name.as_deref().unwrap_or("template");
    let document = Document::parse(name, text).map_err(|why| format!("is no Jinja: {why}"))?;
    Ok((document, mode))
}

/// Fills the values in for one host.
pub(super) fn fill(step: &Step, fill: &Fill<'_>) -> Result<Action, String> {
    let texts = |texts: &[Template]| -> Result<Vec<String>, String> {
        texts.iter().map(|text| fill.text(text)).collect()
    };
    match step {
        Step::Upload {
            sources,
            documents,
            dest,
            folder,
            how,
            ..
        } => {
            let paths = texts(sources)?.into_iter();
            let mut sources: Vec<Source> =
                paths.map(|path| Source::Path(folder.join(path))).collect();
            for (document, mode) in documents {
                let name = document.name();
                let name = [".j2", ".jinja", ".jinja2"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap_or(name);
                sources.push(Source::Content {
                    name: name.to_owned(),
                    bytes: fill.document(document)?.into(),
                    mode: *mode,
                });
            }
            Ok(Action::Upload(Arc::new(Upload {
                sources,
                dest: fill.text(dest)?.into(),
                how: (**how).clone(),
            })))
        }
        Step::Download {
            sources,
            dest,
            folder,
            how,
            flat,
        } => {
            let own = !flat && !names_host(dest);
            let mut place = folder.join(fill.text(dest)?);
            if own {
                place.push(fill.host());
            }
            let paths = texts(sources)?.into_iter().map(Into::into);
            Ok(Action::Download(Arc::new(Download {
                sources: paths.collect(),
                dest: place,
                whole_paths: own,
                how: (**how).clone(),
            })))
        }
        _ => Err("no copy".to_owned()),
    }
}

/// Whether a destination is another one for each host by itself.
fn names_host(dest: &Template) -> bool {
    dest.names().any(|name| name.root() == "host")
}

/// Downloads in which the files of many hosts would meet under one name.
pub(super) fn flat_for_many(plan: &Plan) -> Vec<Diagnostic> {
    let plays = plan.plays.iter().filter(|play| play.hosts.len() > 1);
    let tasks = plays.flat_map(|play| play.tasks.iter().map(move |task| (play, task)));
    let clash = tasks.filter_map(|(play, task)| match &task.action {
        Step::Download {
            flat: true, dest, ..
        } if !names_host(dest) => {
            let hosts = play.hosts.len();
            let message = format!(
                "`{}`: the files of {hosts} hosts would overwrite each other",
                task.reference.name
            );
            let help = "leave `flat` out, or name the host in `dest`: `logs/${{ host.name }}/`";
            let mistake = Diagnostic::error(message).help(help);
            Some(mistake)
        }
        _ => None,
    });
    clash.collect()
}

impl Plan {
    /// The same plan with nothing but its copies, which only look what they would do. `None` where
    /// it has none.
    #[must_use]
    pub fn looking(mut self) -> Option<Self> {
        for play in &mut self.plays {
            play.tasks.retain_mut(|task| match &mut task.action {
                Step::Upload { how, .. } | Step::Download { how, .. } => {
                    Arc::make_mut(how).check = true;
                    true
                }
                _ => false,
            });
        }
        self.plays.retain(|play| !play.tasks.is_empty());
        for (at, play) in self.plays.iter_mut().enumerate() {
            for (index, task) in play.tasks.iter_mut().enumerate() {
                task.reference.id = TaskId {
                    play: PlayId(u16::try_from(at).unwrap_or(u16::MAX)),
                    index: u16::try_from(index).unwrap_or(u16::MAX),
                };
            }
        }
        let info = RunInfo {
            tasks: self.tasks(),
            ..(*self.info).clone()
        };
        self.info = Arc::new(info);
        (self.tasks() > 0).then_some(self)
    }
}
