//! Runs a further command in a container that exists. Never makes a network namespace.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::process::{Pid, PidfdFlags};

use super::{
    SpawnError,
    child::{Bind, Directory, Network, Place, Presence, Program, Recipe},
    options::User,
    report::Labels,
    spawn::{environment, executable, identity, path_string, start},
};

/// Where to run it.
#[derive(Debug)]
pub enum Target {
    /// In the network, mount and UTS namespaces of a process, named by a pidfd.
    Process(OwnedFd),
    /// In a network namespace alone, with a /sys that shows it, as `ip netns exec` does; with a resolv.conf of its own,
    /// if it has one.
    Namespace(OwnedFd, Option<PathBuf>),
}

impl Target {
    /// The namespaces of process `pid`.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn process(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self::Process(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }
}

/// What to run, and as whom.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its name or path.
    pub program: OsString,
    /// Its arguments, without the name.
    pub args: Vec<OsString>,
    /// Added to the caller's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts; where the caller is, unless given.
    pub directory: Option<PathBuf>,
    /// Who it is; who the caller is, unless given.
    pub user: Option<User>,
}

/// Runs it to its end, with signals passed on, and gives its exit code.
///
/// # Errors
/// Where it cannot be started. The error's [`SpawnError::code`] is the exit code for it.
pub fn exec(target: &Target, command: &Command) -> Result<u8, SpawnError> {
    let held = start(&recipe(target, command)?, labels(target, command))?;
    Ok(held.release(None)?.wait())
}

fn recipe<'a>(target: &'a Target, command: &Command) -> Result<Recipe<'a>, SpawnError> {
    let environment = environment(None, &command.environment)?;
    Ok(Recipe {
        place: match target {
            Target::Process(process) => Place::Of(process.as_fd()),
            Target::Namespace(namespace, _) => Place::Own(Network::Join(namespace.as_fd())),
        },
        hostname: None,
        binds: match target {
            Target::Namespace(_, Some(path)) => vec![Bind {
                source: path_string(path)?,
                target: c"/etc/resolv.conf",
                presence: Presence::Needed,
            }],
            Target::Namespace(_, None) | Target::Process(_) => Vec::new(),
        },
        sysctls: Vec::new(),
        output: None,
        identity: command.user.map(identity),
        directory: directory(command)?,
        main: Program::Command(executable(&command.program, &command.args, environment)?),
    })
}

/// To join a mount namespace leads to its root, but the container's files are the host's, so the caller stays in place.
fn directory(command: &Command) -> Result<Option<Directory>, SpawnError> {
    match (&command.directory, std::env::current_dir()) {
        (Some(path), Ok(here)) => path_string(&here.join(path)).map(|path| Some(Directory::Asked(path))),
        (Some(path), Err(_)) => path_string(path).map(|path| Some(Directory::Asked(path))),
        (None, Ok(here)) => path_string(&here).map(|path| Some(Directory::Caller(path))),
        (None, Err(_)) => Ok(None),
    }
}

fn labels(target: &Target, command: &Command) -> Labels {
    Labels {
        program: command.program.to_string_lossy().into_owned(),
        place: match target {
            Target::Process(_) => "join the container's namespaces",
            Target::Namespace(..) => "join the network namespace",
        },
        files: vec!["/etc/resolv.conf"],
        user: command.user.map(|user| user.to_string()).unwrap_or_default(),
        directory: command.directory.as_deref().unwrap_or("".as_ref()).display().to_string(),
        ..Labels::default()
    }
}
