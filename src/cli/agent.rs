//! `rnet agent`; and for other commands: the agent told of what they did, or started where it is needed.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rnetkit_drivers::Network;

use super::{Context, Failure, args, output::Out};
use crate::{
    agent::{
        cipher, part,
        start::{self, Turn, turn},
        supervisor::{self, Program, Stay},
        wire::{self, Reply, Request},
    },
    config::{AgentStart, Config},
    container::{
        detach::{self, Detached, Watcher},
        watch::Held,
    },
    error::Error,
    store::{Lock, Store},
};

/// Overrules `agent` of `config.toml`.
const VARIABLE: &str = "RNET_AGENT";

pub(super) fn run(context: &Context, args: &args::Agent, mut out: Out) -> Result<u8, Failure> {
    Held::none();
    // What is started as /proc/self/exe would be called "exe" by everybody.
    let _ = rustix::thread::set_name(c"rnet");
    let store = context.store()?;
    if let Some(name) = &args.part {
        if name == cipher::NAME {
            cipher::be(&store)?;
        } else {
            part::be(name, store.clone(), config(&store, args)?, program(context, args))?;
        }
        return Ok(0);
    }
    if args.status {
        let Some(Reply::Done(status)) = start::ask(&store, &Request::Status)? else { return none_runs() };
        let text = serde_json::to_string_pretty(&status);
        out.line(&text.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?);
        out.finish()?;
        return Ok(0);
    }
    if args.stop {
        return stop(&store);
    }
    let stay = if args.while_wanted { Stay::WhileWanted } else { Stay::UntilDone };
    let begin = Begin { stay, program: program(context, args), config: config(&store, args)? };
    if args.foreground { in_foreground(&store, begin) } else { in_background(&store, begin) }
}

fn none_runs() -> Result<u8, Failure> {
    Err(Failure::new("no agent runs"))
}

/// Returns when it is gone.
fn stop(store: &Store) -> Result<u8, Failure> {
    if start::ask(store, &Request::Stop)?.is_none() {
        return none_runs();
    }
    match turn(store, Stay::WhileWanted)? {
        Turn::Mine(_) | Turn::Taken => Ok(0),
    }
}

/// What an agent begins with.
struct Begin {
    stay: Stay,
    program: Program,
    config: Config,
}

/// The administrator's file; what the words of the command or the environment say comes first.
fn config(store: &Store, args: &args::Agent) -> Result<Config, Failure> {
    let mut config = store.config()?;
    config.store = args.at.store.clone().or(config.store);
    let at = &args.at;
    let given = [&at.store_ca, &at.store_cert, &at.store_key, &at.store_password_file];
    for (file, given) in config.files().into_iter().zip(given) {
        *file = given.as_deref().or(file.as_deref()).map(absolute);
    }
    config.host_name = args.host_name.clone().or(config.host_name);
    if let Some(text) = &args.host_address {
        let wrong = |_| rnetkit_drivers::Invalid::new("host address", text, "it is not an IP address");
        config.host_address = Some(text.parse().map_err(wrong)?);
    }
    Ok(config)
}

fn in_foreground(store: &Store, begin: Begin) -> Result<u8, Failure> {
    match turn(store, Stay::Always)? {
        Turn::Mine(lock) => {
            supervisor::serve(store, lock, Stay::Always, begin.program, begin.config, || ())?;
        }
        Turn::Taken => {}
    }
    Ok(0)
}

/// Returns when the agent answers, whoever started it.
fn in_background(store: &Store, begin: Begin) -> Result<u8, Failure> {
    // SAFETY: the records are opened by path, each for one look; nothing is held before the lock of the agent.
    unsafe { detach::leave_files() };
    if wire::is_there(&store.agent_socket()) {
        return Ok(0);
    }
    let cannot = |error| Failure::new(format!("cannot go to the background: {error}"));
    match detach::detach().map_err(cannot)? {
        Detached::Foreground(foreground) => match foreground.wait() {
            Ok(_) => Ok(0),
            Err(failure) => Err(Failure::new(failure.line).code(failure.code)),
        },
        Detached::Watcher(watcher) => match turn(store, begin.stay) {
            Ok(Turn::Mine(lock)) => Ok(serve_behind(store, begin, lock, watcher)),
            Ok(Turn::Taken) => {
                watcher.started("");
                Ok(0)
            }
            Err(error) => Ok(give_up(watcher, &error)),
        },
    }
}

fn serve_behind(store: &Store, begin: Begin, lock: Lock, watcher: Watcher) -> u8 {
    let mut watcher = Some(watcher);
    let ready = || {
        if let Some(watcher) = watcher.take() {
            watcher.started("");
        }
    };
    let _ = std::env::set_current_dir("/");
    let Begin { stay, program, config } = begin;
    match (supervisor::serve(store, lock, stay, program, config, ready), watcher) {
        (Ok(()), _) => 0,
        (Err(error), Some(watcher)) => give_up(watcher, &error),
        (Err(error), None) => {
            tracing::error!("{error}");
            1
        }
    }
}

fn give_up(watcher: Watcher, error: &Error) -> u8 {
    watcher.failed(&detach::Failure { code: 1, line: error.to_string() });
    1
}

/// This program, with the words that make it a part.
fn program(context: &Context, args: &args::Agent) -> Program {
    let mut words = words(context);
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| absolute(path).into_os_string());
    let text = |text: &Option<String>| text.as_ref().map(OsString::from);
    let given = [
        ("--store", text(&args.at.store)),
        ("--store-ca", file(&args.at.store_ca)),
        ("--store-cert", file(&args.at.store_cert)),
        ("--store-key", file(&args.at.store_key)),
        ("--store-password-file", file(&args.at.store_password_file)),
        ("--host-address", text(&args.host_address)),
        ("--host-name", text(&args.host_name)),
    ];
    for (name, value) in given {
        words.extend(value.into_iter().flat_map(|value| [OsString::from(name), value]));
    }
    words.push("--part".into());
    Program { words }
}

/// The path from whatever place: an agent leaves the one where it was begun.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The words that make this program an agent of the same directories, from whatever place.
fn words(context: &Context) -> Vec<OsString> {
    let global = &context.global;
    vec![
        "--root".into(),
        absolute(&global.root).into(),
        "--run".into(),
        absolute(&global.run).into(),
        "--log".into(),
        global.log.clone().into(),
        "agent".into(),
    ]
}

/// After a network was made: the agent acts upon it before this returns, and is started where it is needed and
/// none runs. Trouble is told, and no reason to undo anything: the network itself is as it should be.
pub(super) fn network_made(context: &Context, network: &Network) {
    if part::is_wanted_for(network) {
        tell_trouble(
            network,
            context.store().map_err(Failure::from).and_then(|store| ensure(context, &store)),
        );
    }
}

/// After a container was connected: costs one connection to the agent's socket, and finds out if it died. More only
/// where the network itself was made on the way.
pub(super) fn container_connected(context: &Context, network: &Network, made: bool) {
    let is_there = || wire::is_there(&context.global.run.join("agent.sock"));
    if part::is_wanted_for(network) && (made || !is_there()) {
        network_made(context, network);
    }
}

/// After a network went: an agent that nobody needs any more leaves before this returns.
pub(super) fn network_gone(context: &Context, network: &Network) {
    if part::is_wanted_for(network) {
        records_changed(context);
    }
}

/// After many things changed: the agent, if there is one, acts upon them before this returns.
pub(super) fn records_changed(context: &Context) {
    if let Err(error) = context.store().and_then(|store| start::sync(&store)) {
        tracing::warn!("{error}");
    }
}

fn tell_trouble(network: &Network, result: Result<(), Failure>) {
    if let Err(failure) = result {
        let line = failure.lines.join("; ");
        tracing::warn!("network {}: {}: {line}", network.name, part::missed_by(network));
    }
}

fn ensure(context: &Context, store: &Store) -> Result<(), Failure> {
    if start::sync(store)? {
        return Ok(());
    }
    if who_starts(store)? == AgentStart::Manual {
        return Err(Failure::new("no agent runs, and starting it is left to you: rnet agent"));
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("rnet")
        .args(words(context))
        .arg("--while-wanted")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).output();
    let output = output.map_err(|error| Failure::new(format!("the agent cannot be started: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = crate::error::shown(text.trim().trim_start_matches("rnet: "));
        return Err(Failure::new(format!("the agent cannot be started: {line}")));
    }
    start::sync(store)?;
    Ok(())
}

/// The variable, or the administrator's file.
fn who_starts(store: &Store) -> Result<AgentStart, Failure> {
    match std::env::var(VARIABLE) {
        Ok(text) => Ok(text.parse::<AgentStart>()?),
        Err(_) => Ok(store.config()?.agent),
    }
}
