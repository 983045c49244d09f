//! `rnet cni …`: what runtimes of containers need to call rnet as their CNI plugin.

use super::{Failure, args, output::Out};
use crate::{
    cni::{self, install},
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
