//! `fanrun upload` and `fanrun download`

use super::args::{CopyArgs, Download, Symlinks as Links, Upload};
use super::work::{self, Work};
use super::{End, Fault, ls, settings};
use crate::plan::{self, Request};
use crate::playbook::{Template, units};
use crate::transfer::{How, Preserve, Same, Symlinks};

pub(super) async fn upload(args: Upload, descriptors: u64) -> Result<End, Fault> {
    let Some((place, sources)) = args.paths.split_last() else {
        return Err(Fault::usage("nothing to upload"));
    };
    let Some(place) = place.to_str() else {
        return Err(Fault::usage("the destination is not UTF-8 text"));
    };
    if sources.is_empty() {
        return Err(Fault::usage(format!(
            "`{place}` is where files go: name what is uploaded before it"
        )));
    }
    let (pattern, dest) = ls::split(place)?;
    let request = Request::Upload {
        sources: sources.to_vec(),
        to: vec![(pattern.to_owned(), dest.to_owned())],
    };
    let how = How {
        owner: args.owner,
        ..how(&args.copy)?
    };
    carry_out(request, how, args.copy, descriptors).await
}

pub(super) async fn download(args: Download, descriptors: u64) -> Result<End, Fault> {
    let Some((dest, places)) = args.paths.split_last() else {
        return Err(Fault::usage("nothing to download"));
    };
    if places.is_empty() {
        return Err(Fault::usage(format!(
            "`{dest}` is where files go: name PATTERN:PATH before it"
        )));
    }
    let mut from: Vec<(String, Vec<String>)> = Vec::new();
    for place in places {
        let (pattern, path) = ls::split(place)?;
        match from.iter_mut().find(|(known, _)| known == pattern) {
            Some((_, paths)) => paths.push(path.to_owned()),
            None => from.push((pattern.to_owned(), vec![path.to_owned()])),
        }
    }
    let dest =
        Template::parse(dest).map_err(|error| Fault::usage(format!("the destination: {error}")))?;
    let request = Request::Download {
        from,
        dest,
        flat: args.flat,
    };
    let how = how(&args.copy)?;
    carry_out(request, how, args.copy, descriptors).await
}

async fn carry_out(
    request: Request,
    how: How,
    args: CopyArgs,
    descriptors: u64,
) -> Result<End, Fault> {
    let ready = settings::prepare(&args.hosts).await?;
    let timeout = args.timeout.as_deref();
    let timeout = timeout.map(settings::duration).transpose()?;
    let built = plan::copies(request, how, timeout, &ready.ground)?;
    let mut warnings = ready.warnings;
    warnings.extend(built.warnings);
    work::warn(&warnings, &args.output);
    let deadline = args.deadline.as_deref();
    let work = Work {
        format: args.format,
        ..Work::new(built.plan, ready.reach, deadline, descriptors)?
    };
    Ok(work::carry_out(work, &args.output).await?.end)
}

fn how(args: &CopyArgs) -> Result<How, Fault> {
    let mode = args.mode.as_deref().map(|text| {
        let octal = text.len() >= 3 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        bits.filter(|bits| *bits <= 0o7777)
            .ok_or_else(|| Fault::usage(format!("`--mode {text}`: octal is needed, as `0644`")))
    });
    let bandwidth = args.bandwidth.as_deref().map(|text| {
        let rate = units::size(text.strip_suffix("/s").unwrap_or(text));
        rate.ok().filter(|rate| *rate > 0).ok_or_else(|| {
            let help = "bytes a second are needed, as `10MiB`";
            Fault::usage(format!("`--bandwidth {text}`: {help}"))
        })
    });
    let same = match (args.only_changed, args.checksum) {
        (_, true) => Some(Same::Content),
        (true, false) => Some(Same::SizeAndTime),
        (false, false) => None,
    };
    Ok(How {
        mode: mode.transpose()?,
        preserve: preserve(&args.preserve)?,
        owner: None,
        verify: args.verify,
        only_changed: same,
        delete: args.delete,
        resume: args.resume,
        symlinks: match args.symlinks {
            Links::Copy => Symlinks::Copy,
            Links::Follow => Symlinks::Follow,
            Links::Skip => Symlinks::Skip,
        },
        exclude: args.exclude.clone(),
        bandwidth: bandwidth.transpose()?,
        backup: args.backup,
        durable: args.durable,
        check: args.check,
    })
}

fn preserve(words: &[String]) -> Result<Preserve, Fault> {
    let mut all = Preserve::default();
    for word in words {
        match word.as_str() {
            "mode" => all.mode = true,
            "times" => all.times = true,
            "setid" => (all.mode, all.set_id) = (true, true),
            other => {
                let help = "mode, times and setid can be kept";
                return Err(Fault::usage(format!("`--preserve={other}`: {help}")));
            }
        }
    }
    Ok(all)
}
