//! `rnet host`: the hosts that share networks with this one.

use super::{
    Context, Failure,
    args::{HostCommand, HostLs},
    output::Out,
};
use crate::{
    agent::overlay::{Client, Seen},
    error::shown,
};

pub(super) fn run(context: &Context, command: &HostCommand, mut out: Out) -> Result<u8, Failure> {
    let client = Client::new(context.store()?);
    let hosts = client.hosts()?;
    match command {
        HostCommand::Ls(args) => list(&hosts, args, &mut out),
        HostCommand::Inspect(args) => {
            let found =
                args.hosts.iter().map(|name| find(&hosts, name)).collect::<Result<Vec<_>, Failure>>()?;
            let text = serde_json::to_string_pretty(&found);
            out.line(&text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?);
        }
        HostCommand::Rm(args) => {
            for name in &args.hosts {
                client.fence(&find(&hosts, name)?.host.id)?;
                out.line(&shown(name));
            }
        }
    }
    out.finish()?;
    Ok(0)
}

fn list(hosts: &[Seen], args: &HostLs, out: &mut Out) {
    if args.quiet {
        return hosts.iter().for_each(|seen| out.line(&seen.host.id.short()));
    }
    let mut rows = vec![["HOST ID", "NAME", "ADDRESS", "STATUS", "ENDPOINTS"].map(str::to_owned)];
    rows.extend(hosts.iter().map(|seen| {
        let name = if seen.here { format!("{} *", shown(&seen.host.name)) } else { shown(&seen.host.name) };
        [
            seen.host.id.short(),
            name,
            seen.host.address.to_string(),
            status(seen).to_owned(),
            seen.endpoints.to_string(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| match widths.get(column) {
                Some(width) => format!("{cell:width$}"),
                None => cell.clone(),
            })
            .collect();
        out.line(&cells.join("   "));
    }
}

fn status(seen: &Seen) -> &'static str {
    match (seen.host.fenced, seen.alive) {
        (true, _) => "removed",
        (false, true) => "up",
        (false, false) => "silent",
    }
}

/// The host with that name, id, or beginning of an id.
fn find<'a>(hosts: &'a [Seen], wanted: &str) -> Result<&'a Seen, Failure> {
    if let Some(seen) = hosts.iter().find(|seen| seen.host.name == wanted) {
        return Ok(seen);
    }
    let hex = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut matching = hosts.iter().filter(|seen| hex && seen.host.id.to_string().starts_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(seen), None) => Ok(seen),
        (Some(_), Some(_)) => Err(Failure::new(format!("host {} is ambiguous", shown(wanted)))),
        (None, _) => Err(Failure::new(format!("host {} not found", shown(wanted)))),
    }
}
