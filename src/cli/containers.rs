//! `rnet exec`, `ps`, `stop`, `rm`, `logs`, `port`: containers that are there.

use std::{
    collections::BTreeSet,
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rnetkit_drivers::{Protocol, port::socket_text};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use super::{
    Context, Failure, args,
    network::merge,
    output::{Format, Out},
    run::{parse, parse_all},
    view,
};
use crate::{
    container::{
        exec::{Command, Target, exec},
        options::EnvVar,
    },
    container_ref::ContainerRef,
    error::{Error, shown},
    kernel::Linux,
    proxy,
    store::EndpointState,
    verbs::{Container, ContainerState, Proxied, Rnet},
};

pub(super) fn run_inside(context: &Context, args: args::Exec) -> Result<u8, Failure> {
    let container: ContainerRef = args.container.parse()?;
    let environment: Vec<EnvVar> = parse_all(&args.env)?;
    let mut words = args.command.into_iter();
    let command = Command {
        program: words.next().unwrap_or_default(),
        args: words.collect(),
        environment: environment.iter().filter_map(EnvVar::addition).collect(),
        directory: args.workdir,
        user: args.user.as_deref().map(parse).transpose()?,
    };
    let mut rnet = context.rnet()?;
    rnet.wake()?;
    let container = rnet.resolve(&container)?;
    let target = match rnet.container_state(&container)? {
        Some(state) => {
            let pid = state.pid().ok_or_else(|| not_running(&state))?;
            Target::process(pid).map_err(|_| not_running(&state))?
        }
        None => {
            let own = rnet.store().names_dir(&container.key()).join("resolv.conf");
            let netns = container.open(None, rnet.kernel())?.0;
            Target::Namespace(netns.into(), own.exists().then_some(own))
        }
    };
    drop(rnet);
    Ok(exec(&target, &command)?)
}

fn not_running(state: &ContainerState) -> Failure {
    Failure::new(format!("container {} is not running", state.name))
}

pub(super) fn list(context: &Context, args: &args::Ps, out: &mut Out) -> Result<(), Failure> {
    let format = Format::read(args.format.as_deref())?;
    let mut rnet = context.rnet()?;
    rnet.wake()?;
    rnet.reap()?;
    let mut containers = rnet.containers()?;
    containers.retain(|container| args.all || is_there(container));
    containers.sort_by_key(|container| std::cmp::Reverse(created(container)));
    let rows: Vec<Value> = containers.iter().map(|container| row(container, args.no_trunc)).collect();
    if args.quiet && args.format.is_none() {
        rows.iter().for_each(|row| out.line(row["ID"].as_str().unwrap_or_default()));
        return Ok(());
    }
    let header = json!({
        "ID": "CONTAINER ID", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Status": "STATUS",
        "State": "STATE", "Ports": "PORTS", "Networks": "NETWORKS", "Names": "NAMES",
    });
    format.show(&rows, &["ID", "Command", "RunningFor", "Status", "Ports", "Networks", "Names"], &header, out)
}

/// Whether it runs, or is a namespace that is connected.
fn is_there(container: &Container) -> bool {
    container
        .state
        .as_ref()
        .is_none_or(|state| state.process.is_none() && state.exit.is_none() || state.pid().is_some())
}

fn created(container: &Container) -> u64 {
    let endpoints = || container.endpoints.iter().map(|state| state.created).min();
    container.state.as_ref().map(|state| state.created).or_else(endpoints).unwrap_or_default()
}

fn row(container: &Container, in_full: bool) -> Value {
    let id = container.state.as_ref().map(|state| state.id);
    let id = id.or_else(|| container.endpoints.first().map(|state| state.endpoint.container.id));
    let id = id.map(|id| if in_full { id.to_string() } else { id.short() }).unwrap_or_default();
    let name = match (&container.state, container.endpoints.first()) {
        (Some(state), _) => state.name.to_string(),
        (None, Some(state)) => state.endpoint.container.name.clone(),
        (None, None) => container.key.clone(),
    };
    let ports: Vec<_> = container.endpoints.iter().flat_map(|state| state.endpoint.ports.clone()).collect();
    let mut networks: Vec<String> =
        container.endpoints.iter().map(|state| state.network.to_string()).collect();
    networks.extend(container.state.as_ref().and_then(|state| state.network_of.clone()));
    let created = created(container);
    json!({
        "ID": id,
        "Command": command(container, in_full),
        "CreatedAt": view::time(created),
        "RunningFor": format!("{} ago", age(created)),
        "Status": status(container),
        "State": if is_there(container) { "running" } else { "exited" },
        "Ports": view::ports_line(&ports),
        "Networks": networks.join(","),
        "Names": name,
    })
}

/// The command in quotes, as Docker shows it; a namespace has none.
fn command(container: &Container, in_full: bool) -> String {
    const SHOWN: usize = 20;
    let Some(state) = &container.state else { return "-".to_owned() };
    let whole = if state.command.is_empty() { "page".to_owned() } else { state.command.join(" ") };
    let whole = rnetkit_drivers::model::Escaped(&whole).to_string();
    let short: String = whole.chars().take(SHOWN).collect();
    if in_full || short == whole { format!("\"{whole}\"") } else { format!("\"{short}…\"") }
}

fn status(container: &Container) -> String {
    match &container.state {
        None => "Connected".to_owned(),
        Some(ContainerState { exit: Some(code), .. }) => format!("Exited ({code})"),
        Some(state) => format!("Up {}", age(state.created)),
    }
}

/// How long ago, as people say it.
fn age(created: u64) -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH + Duration::from_nanos(created))
        .unwrap_or_default()
        .as_secs();
    let some = |count: u64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match seconds {
        0 => "less than a second".to_owned(),
        1..60 => some(seconds, "second"),
        60..3600 => some(seconds / 60, "minute"),
        3600..172_800 => some(seconds / 3600, "hour"),
        _ => some(seconds / 86_400, "day"),
    }
}

pub(super) fn stop(context: &Context, args: &args::Stop, mut out: Out) -> Result<u8, Failure> {
    let patience = args.time.parse::<u32>().map_err(|_| {
        Failure::new(format!("invalid time \"{}\": it must be a number of seconds", shown(&args.time)))
    })?;
    let mut rnet = context.rnet()?;
    rnet.wake()?;
    rnet.reap()?;
    let mut refused = None;
    for name in &args.containers {
        match stop_one(&mut rnet, name, Duration::from_secs(u64::from(patience))) {
            Ok(()) => out.line(&shown(name)),
            Err(failure) => refused = Some(merge(refused, failure)),
        }
    }
    out.finish()?;
    refused.map_or(Ok(0), Err)
}

/// The record of a container of `rnet run`, by name or by the beginning of its id.
fn find(rnet: &mut Rnet<Linux>, name: &str) -> Result<ContainerState, Failure> {
    let reference: ContainerRef = name.parse()?;
    if let Some(state) = rnet.container_state(&reference)? {
        return Ok(state);
    }
    let mut matching = rnet.containers()?.into_iter().filter_map(|container| container.state);
    let found = matching.find(|state| name.len() >= 4 && state.id.to_string().starts_with(name));
    found.ok_or_else(|| {
        Error::ContainerNotFound { name: shown(name), reason: ": rnet run did not start it".to_owned() }
            .into()
    })
}

fn stop_one(rnet: &mut Rnet<Linux>, name: &str, patience: Duration) -> Result<(), Failure> {
    let state = find(rnet, name)?;
    end_process(rnet, &state, Some(patience))
}

/// Ends the main process, and waits until its watcher has taken everything down. Without patience it is killed.
fn end_process(
    rnet: &mut Rnet<Linux>,
    state: &ContainerState,
    patience: Option<Duration>,
) -> Result<(), Failure> {
    let open = |pid: u32| {
        i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    };
    if let Some(process) = state.pid().and_then(open) {
        let ended = match patience {
            Some(patience) => {
                pidfd_send_signal(&process, Signal::TERM).is_err() || ends_within(&process, patience)
            }
            None => false,
        };
        if !ended {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    rnet.store().wait_unwatched(state.name.as_str())?;
    rnet.reap()?;
    Ok(())
}

/// Whether the process ends in time; its pidfd is readable then.
fn ends_within(process: &std::os::fd::OwnedFd, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = std::time::Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}

pub(super) fn remove(context: &Context, args: &args::RmContainers, mut out: Out) -> Result<u8, Failure> {
    let mut rnet = context.rnet()?;
    rnet.wake()?;
    rnet.reap()?;
    let mut refused = None;
    for name in &args.containers {
        match remove_one(&mut rnet, name, args.force) {
            Ok(true) => out.line(&shown(name)),
            Ok(false) => {}
            Err(failure) => refused = Some(merge(refused, failure)),
        }
    }
    out.finish()?;
    refused.map_or(Ok(0), Err)
}

fn remove_one(rnet: &mut Rnet<Linux>, name: &str, force: bool) -> Result<bool, Failure> {
    let state = match find(rnet, name) {
        Err(_) if force && name.parse::<ContainerRef>().is_ok() => return Ok(false),
        state => state?,
    };
    if state.exit.is_none() {
        if !force {
            let failure = Failure::new(format!("container {} is running", state.name));
            return Err(Failure {
                hint: Some(format!("rnet stop {} ends it, rnet rm -f does both", state.name)),
                ..failure
            });
        }
        end_process(rnet, &state, None)?;
    }
    if let Some(ended) = rnet.container_state(&state.name.clone().into())? {
        rnet.forget_container(&ended)?;
    }
    Ok(true)
}

/// What was written, as it is; straight to stdout, since it may be long.
pub(super) fn logs(context: &Context, args: &args::Logs) -> Result<(), Failure> {
    let mut rnet = context.rnet()?;
    let state = find(&mut rnet, &args.container)?;
    let path = rnet.store().container_dir(state.name.as_str()).join("log");
    let cannot = |error| Failure::new(format!("cannot print the log of container {}: {error}", state.name));
    let mut log = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        log => log.map_err(cannot)?,
    };
    let mut stdout = std::io::stdout().lock();
    std::io::copy(&mut log, &mut stdout).and_then(|_| stdout.flush()).map_err(cannot)
}

pub(super) fn ports(context: &Context, args: &args::Port, out: &mut Out) -> Result<(), Failure> {
    let wanted = args.port.as_deref().map(wanted_port).transpose()?;
    let container: ContainerRef = args.container.parse()?;
    let mut rnet = context.rnet()?;
    rnet.wake()?;
    rnet.reap()?;
    let container = rnet.resolve(&container)?;
    let endpoints = endpoints_of(&mut rnet, &container)?;
    let list: Vec<_> = endpoints.iter().flat_map(|state| state.endpoint.ports.clone()).collect();
    let mut found = BTreeSet::new();
    for (port, address, host) in view::pairs(&list) {
        let socket = socket_text(address, &host.to_string());
        match &wanted {
            None => out.line(&format!("{port} -> {socket}")),
            Some(wanted) if *wanted == port => {
                found.insert(port);
                out.line(&socket);
            }
            Some(_) => {}
        }
    }
    match wanted {
        Some(port) if found.is_empty() => {
            Err(Failure::new(format!("port {port} of container {container} is not published")))
        }
        _ => Ok(()),
    }
}

fn endpoints_of(rnet: &mut Rnet<Linux>, container: &ContainerRef) -> Result<Vec<EndpointState>, Failure> {
    let endpoints = rnet.store().endpoints_of(&container.key())?;
    if endpoints.is_empty() && rnet.container_state(container)?.is_none() {
        // A namespace without networks has no ports; anything else is no container.
        container.open(None, rnet.kernel())?;
    }
    Ok(endpoints)
}

/// `80` or `80/udp`.
fn wanted_port(text: &str) -> Result<String, Failure> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port: rnetkit_drivers::PortRange = port.parse()?;
    let protocol: Protocol = protocol.parse()?;
    Ok(format!("{}/{protocol}", port.first))
}

/// Serves until the endpoints are gone; a signal ends it as it ends any program.
pub(super) fn proxy(context: &Context, args: &args::Proxy) -> Result<(), Failure> {
    let mut rnet = context.rnet()?;
    let (served, ports) = rnet.proxied(&args.container.parse()?)?;
    let listen = |port: &Proxied| {
        let listener = proxy::listen(port).map_err(|error| {
            let plain = error.to_string();
            let plain = plain.split(" (os error").next().unwrap_or(&plain).to_owned();
            Failure::new(format!("{}/{} cannot be listened on: {plain}", port.host, port.carrier.protocol()))
        })?;
        Ok((listener, port.target))
    };
    let listeners = ports.iter().map(listen).collect::<Result<Vec<_>, Failure>>()?;
    listeners.into_iter().for_each(|(listener, target)| proxy::serve(listener, target));
    // The first endpoint that goes ends all: who wants the others served starts it anew.
    Ok(rnet.wait_gone(&served)?)
}
