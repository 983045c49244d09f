//! The command line: words in, verbs called, words out. Never touches the kernel or the store itself.

mod agent;
mod args;
mod cni;
mod completions;
mod containers;
mod events;
mod filter;
mod host;
mod keep;
mod network;
mod output;
mod quick;
mod run;
pub mod template;
mod view;

use std::{ffi::OsString, path::Path};

use args::{CniCommand, Command, Global, NetworkCommand};
use output::Out;
use rnetkit_drivers::Network;

use crate::{
    container::watch::Held,
    error::{Error, shown},
    kernel::{Deletion, Linux},
    store::Store,
    verbs::Rnet,
};

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// The lines for people: without line ends, and without the name of the command.
    pub(crate) lines: Vec<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// One line, and exit code 1.
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self { code: 1, lines: vec![line.into()], hint: None }
    }

    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    fn print(&self) -> u8 {
        use std::io::Write as _;
        let mut text: String = self.lines.iter().map(|line| format!("rnet: {line}\n")).collect();
        if let Some(hint) = &self.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
        self.code
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Self { hint: hint(&error), ..Self::new(error.to_string().replace('\n', " ")) }
    }
}

/// What the user can do about an error, where there is something.
fn hint(error: &Error) -> Option<String> {
    Some(match error {
        Error::BadOption(bad) => format!("the nearest known option is {}", bad.nearest?),
        Error::NetworkNotFound { .. } => "rnet network ls lists the networks".to_owned(),
        Error::NetworkAmbiguous { .. } => "give more digits of the id, or the name".to_owned(),
        Error::HasEndpoints { network, .. } => {
            format!("rnet network disconnect {network} CONTAINER disconnects one, rnet network rm -f {network} all of them")
        }
        Error::SubnetTaken { .. } => "choose another with --subnet, or leave it to rnet".to_owned(),
        Error::PoolsExhausted { .. } => "rnet network prune removes unused networks; --subnet gives one by hand".to_owned(),
        Error::PoolExhausted { .. } => "a larger --subnet or --ip-range has room for more containers".to_owned(),
        Error::ContainerNotFound { .. } => {
            "a container is one of rnet run, a namespace of ip netns add, a path to a namespace file, or pid:NUMBER".to_owned()
        }
        Error::OtherHost { .. } => "each host or namespace needs a --root and --run of its own".to_owned(),
        Error::Locked { .. } => {
            "if that process hangs, end it: the next command takes back what it left half-done".to_owned()
        }
        Error::LinkTaken { .. } => "choose another name with --opt name=...".to_owned(),
        _ => return None,
    })
}

/// Everything that a command needs besides its own words.
pub(crate) struct Context {
    global: Global,
}

/// After another face connected a container: the agent is started where the network needs it and none runs.
pub(crate) fn container_connected(root: &Path, run: &Path, network: &Network) {
    let (root, run, log) = (root.to_owned(), run.to_owned(), "warn".to_owned());
    agent::container_connected(&Context { global: Global { root, run, log } }, network, false);
}

impl Context {
    /// The networks of this host.
    pub(crate) fn rnet(&self) -> Result<Rnet<Linux>, Error> {
        Rnet::open(&self.global.root, &self.global.run, Deletion::Behind)
    }

    /// Their records alone.
    pub(crate) fn store(&self) -> Result<Store, Error> {
        Store::open(&self.global.root, &self.global.run)
    }
}

/// Runs the command with these words; the first is its own name. Returns its exit code.
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = words.into_iter().collect();
    let parsed = match args::Args::read(&words) {
        Ok(parsed) => parsed,
        Err(error) => return refuse_words(&error, &words),
    };
    let result = log(&parsed.global.log).and_then(|()| run(parsed));
    match result {
        Ok(code) => code,
        Err(failure) => failure.print(),
    }
}

fn run(parsed: args::Args) -> Result<u8, Failure> {
    let context = Context { global: parsed.global };
    let mut out = Out::default();
    // A signal that comes while the host is being changed ends the command when it is done, and not half-way.
    let _held = parsed.command.changes_networks().then(Held::signals).transpose();
    let _held = _held.map_err(|error| Failure::new(format!("cannot hold signals back: {error}")))?;
    match parsed.command {
        Command::Network(NetworkCommand::Create(args)) => network::create(&context, args, &mut out)?,
        Command::Network(NetworkCommand::Ls(args)) => network::list(&context, &args, &mut out)?,
        Command::Network(NetworkCommand::Inspect(args)) => return network::inspect(&context, &args, out),
        Command::Network(NetworkCommand::Connect(args)) => network::connect(&context, args, &mut out)?,
        Command::Network(NetworkCommand::Disconnect(args)) => network::disconnect(&context, &args, &mut out)?,
        Command::Network(NetworkCommand::Rm(args)) => return network::remove(&context, &args, out),
        Command::Network(NetworkCommand::Prune(args)) => network::prune(&context, &args, &mut out)?,
        Command::Run(args) => return run::run(&context, args),
        Command::Exec(args) => return containers::run_inside(&context, args),
        Command::Ps(args) => containers::list(&context, &args, &mut out)?,
        Command::Stop(args) => return containers::stop(&context, &args, out),
        Command::Rm(args) => return containers::remove(&context, &args, out),
        Command::Logs(args) => containers::logs(&context, &args)?,
        Command::Port(args) => containers::ports(&context, &args, &mut out)?,
        Command::Check(args) => return keep::check(&context, &args, out),
        Command::Repair(args) => keep::repair(&context, &args, &mut out)?,
        Command::Gc(args) => keep::collect(&context, &args, &mut out)?,
        Command::Doctor(args) => return keep::doctor(&context, &args, out),
        Command::Cni(CniCommand::Install(args)) => cni::install(&args, &mut out)?,
        Command::Cni(CniCommand::Export(args)) => cni::export(&context, &args, &mut out)?,
        Command::Cni(CniCommand::Lint(args)) => return cni::lint(&args, out),
        Command::Host(command) => return host::run(&context, &command, out),
        Command::Proxy(args) => containers::proxy(&context, &args)?,
        Command::Events(args) => return events::events(&context, &args),
        Command::Purge => keep::purge(&context)?,
        Command::Restore => keep::restore(&context, &mut out)?,
        Command::Agent(args) => return agent::run(&context, &args, out),
        Command::Completions(args) => completions::completions(args.shell, &mut out),
        Command::Man => completions::man(&mut out)?,
    }
    out.finish()?;
    Ok(0)
}

/// Events of the library go to stderr, from this level on.
fn log(level: &str) -> Result<(), Failure> {
    let level = match level {
        "off" => return Ok(()),
        "error" => tracing::Level::ERROR,
        "warn" => tracing::Level::WARN,
        "info" => tracing::Level::INFO,
        "debug" => tracing::Level::DEBUG,
        "trace" => tracing::Level::TRACE,
        other => {
            return Err(Failure::new(format!(
                "invalid log level \"{}\": it must be off, error, warn, info, debug or trace",
                shown(other)
            )));
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    Ok(())
}

/// Words that are no command: help and version are printed, a bad value is refused as any other, and everything
/// else is exit code 2.
fn refuse_words(error: &clap::Error, words: &[OsString]) -> u8 {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let mut out = Out::default();
        out.text(&error.to_string());
        return out.finish().map_or_else(|failure| failure.print(), |()| 0);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        use std::io::Write as _;
        let _ = std::io::stderr().write_all(error.to_string().as_bytes());
        return 2;
    }
    if error.kind() == ErrorKind::InvalidUtf8 {
        let word = words.iter().find(|word| word.to_str().is_none());
        let word = word.map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        return Failure::new(format!("invalid value \"{}\": it is not UTF-8", shown(&word))).print();
    }
    let text = error.to_string();
    let mut lines = text.lines().map(|line| crate::drivers::model::Escaped(line).to_string());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    let value = error.get(clap::error::ContextKind::InvalidValue);
    let has_value = matches!(value, Some(clap::error::ContextValue::String(value)) if !value.is_empty());
    let is_value = has_value && matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let rest = lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
    let usage = rest.map(|line| line.replace("Usage: ", "usage: ")).collect::<Vec<_>>();
    let failure = Failure::new(if is_value { first } else { [vec![first], usage].concat().join("; ") });
    failure.code(if is_value { 1 } else { 2 }).print()
}
