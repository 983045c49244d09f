//! `rnet cni …`: what runtimes of containers need to call rnet as their CNI plugin.

use super::{Context, Failure, args, output::Out};
use crate::{
    cni::{self, export, install, lint},
    error::{Error, shown},
};

pub(super) fn install(args: &args::CniInstall, out: &mut Out) -> Result<(), Failure> {
    let names = names(args.aliases.as_deref())?;
    let program = std::env::current_exe().map_err(|error| Error::store("/proc/self/exe", error))?;
    for path in install::install(&program, &args.dir, &names, args.force)? {
        out.line(&path.to_string_lossy());
    }
    Ok(())
}

/// rnet's own name, and those that are asked for besides.
fn names(aliases: Option<&str>) -> Result<Vec<&'static str>, Failure> {
    let all = cni::names();
    let mut list = vec![all[0]];
    match aliases {
        None => {}
        Some("all") => list = all,
        Some(text) => {
            for name in text.split(',') {
                let known = all.iter().find(|known| **known == name).ok_or_else(|| {
                    Failure::new(format!(
                        "rnet is no CNI plugin \"{}\"; it can be {}",
                        shown(name),
                        all.join(", ")
                    ))
                })?;
                list.push(known);
            }
        }
    }
    list.dedup();
    Ok(list)
}

pub(super) fn export(context: &Context, args: &args::CniExport, out: &mut Out) -> Result<(), Failure> {
    let network = context.rnet()?.network(&args.network)?;
    match &args.dir {
        None => out.text(&export::list(&network)),
        Some(folder) => out.line(&export::write(folder, &network)?.to_string_lossy()),
    }
    Ok(())
}

pub(super) fn lint(args: &args::CniLint, mut out: Out) -> Result<u8, Failure> {
    let mut code = 0;
    for file in &args.files {
        for finding in lint::lint(file)? {
            out.line(&finding);
            code = 1;
        }
    }
    out.finish()?;
    Ok(code)
}
