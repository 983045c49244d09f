//! `rnet check`, `repair`, `gc`, `doctor`, `purge`, `restore`: records and kernel kept in agreement.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Context, Failure, agent, args, output::Out};
use crate::verbs::{Difference, Verdict, What};

/// One line per difference, and exit code 1 if there is any.
pub(super) fn check(context: &Context, args: &args::Check, mut out: Out) -> Result<u8, Failure> {
    let differences = context.rnet()?.check(&args.networks)?;
    differences.iter().for_each(|difference| out.line(&difference.to_string()));
    out.finish()?;
    Ok(u8::from(!differences.is_empty()))
}

/// With as many open files as may be: what is mended together is locked together, and is one transaction.
pub(super) fn repair(context: &Context, args: &args::Repair, out: &mut Out) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let mut rnet = context.rnet()?;
    let mended = if args.dry_run { rnet.check(&[])? } else { rnet.repair()? };
    if !args.dry_run && !mended.is_empty() {
        agent::records_changed(context);
    }
    for Difference { of, what } in &mended {
        out.line(&match what {
            What::Step(step) => format!("{of}: {step}"),
            What::Stray(stray) => format!("{of}: - {stray}"),
            What::SetAside(path) => format!("{of}: - damaged record {}", path.display()),
        });
    }
    Ok(())
}

pub(super) fn collect(context: &Context, args: &args::Gc, out: &mut Out) -> Result<(), Failure> {
    let garbage = context.rnet()?.collect_garbage(args.dry_run)?;
    if garbage.unfinished > 0 {
        out.line(&format!("{} endpoints that a killed command left unfinished", garbage.unfinished));
    }
    garbage
        .abandoned
        .iter()
        .for_each(|name| out.line(&format!("container {name}, whose rnet run was killed")));
    for (container, network) in &garbage.orphans {
        out.line(&format!("container {container} on network {network}, whose namespace is gone"));
    }
    garbage.strays.iter().for_each(|stray| out.line(&format!("{stray}, which no record names")));
    for path in &garbage.set_aside {
        out.line(&format!("{}, a record that was damaged", path.display()));
    }
    Ok(())
}

pub(super) fn purge(context: &Context) -> Result<(), Failure> {
    context.rnet()?.purge()?;
    agent::records_changed(context);
    Ok(())
}

pub(super) fn restore(context: &Context, out: &mut Out) -> Result<(), Failure> {
    let mut rnet = context.rnet()?;
    let restored = rnet.restore()?;
    for name in &restored {
        agent::network_made(context, &rnet.network(name)?);
        out.line(name);
    }
    Ok(())
}

pub(super) fn doctor(context: &Context, args: &args::Doctor, mut out: Out) -> Result<u8, Failure> {
    let findings = context.rnet()?.doctor()?;
    if args.json {
        let text = serde_json::to_string_pretty(&findings);
        out.line(&text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?);
    } else {
        for finding in &findings {
            let mark = match finding.verdict {
                Verdict::Good => "ok  ",
                Verdict::Note => "note",
                Verdict::Bad => "bad ",
            };
            out.line(&format!("{mark}  {:<13}{}", finding.about, finding.found));
            finding.advice.iter().for_each(|advice| out.line(&format!("                   -> {advice}")));
        }
    }
    out.finish()?;
    Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Bad)))
}
