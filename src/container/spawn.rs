//! Starts a process in namespaces of its own, in two steps: it exists and waits; it is let go.
//! Between the two a caller connects the network. Never touches a network itself.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::process::{Gid, Pid, PidfdFlags, Signal, Uid, WaitId, WaitIdOptions};

use super::{
    SpawnError,
    child::{
        self, Bind, Directory, Executable, Network, Place, Pointers, Presence, Program, Recipe, Streams,
    },
    options::{Sysctl, User},
    report::{Labels, Message},
    watch::{self, Running, Signals},
};
use crate::page;

/// What to start, and in what.
#[derive(Debug)]
pub struct Spec {
    /// The process.
    pub main: Main,
    /// Its network namespace; its mount and UTS namespaces are always new.
    pub namespace: Namespace,
    /// Its hostname, and HOSTNAME in its environment.
    pub hostname: Option<String>,
    /// Added to the caller's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it starts; where the caller is, unless given.
    pub directory: Option<PathBuf>,
    /// Who it is; who the caller is, unless given.
    pub user: Option<User>,
    /// Its own files in /etc.
    pub files: Option<Files>,
    /// Set in its network namespace, before links come and again before it starts.
    pub sysctls: Vec<Sysctl>,
    /// Where it writes.
    pub output: Output,
}

impl Spec {
    /// A new network namespace and nothing else out of the ordinary.
    pub fn new(main: Main) -> Self {
        Self {
            main,
            namespace: Namespace::New,
            hostname: None,
            environment: Vec::new(),
            directory: None,
            user: None,
            files: None,
            sysctls: Vec::new(),
            output: Output::Inherit,
        }
    }
}

/// The process that a container is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Main {
    /// A command, looked up in PATH.
    Command {
        /// Its name or path.
        program: OsString,
        /// Its arguments, without the name.
        args: Vec<OsString>,
    },
    /// The page of [`crate::page`].
    Page,
}

/// A network namespace for a process.
#[derive(Debug)]
pub enum Namespace {
    /// One of its own.
    New,
    /// The caller's.
    Host,
    /// That of another container.
    Join(OwnedFd),
}

/// Prepared files that the process sees in /etc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Seen as /etc/hosts.
    pub hosts: PathBuf,
    /// Seen as /etc/resolv.conf.
    pub resolv_conf: PathBuf,
    /// Seen as /etc/hostname, where the host has one.
    pub hostname: PathBuf,
}

/// Where a process reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The caller's terminal or pipes, in the caller's process group.
    Inherit,
    /// Reads nothing, appends to that file, in a session of its own.
    Log(PathBuf),
}

/// A process that exists in its namespaces and waits. Dropping it ends it.
#[derive(Debug)]
pub struct Held {
    child: Child,
    channel: UnixStream,
    netns: OwnedFd,
    signals: Signals,
    labels: Labels,
    needs_page: bool,
}

/// Makes the process and its namespaces. It waits until [`Held::release`].
///
/// From here on the signals that a watcher forwards are blocked in the calling thread, and stay so: one that arrives
/// while the network is being made reaches the command when it starts, and none can end rnet in the middle of taking
/// down. The process also becomes the reaper of what the command leaves behind.
///
/// # Errors
/// Where the description contradicts itself or a step up to the namespaces fails; nothing is left then.
pub fn spawn(spec: &Spec) -> Result<Held, SpawnError> {
    refuse_nonsense(spec)?;
    let recipe = recipe(spec)?;
    start(&recipe, labels(spec))
}

impl Held {
    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.number()
    }

    /// The network namespace it waits in.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Lets it become its command, or serve its page, which then must be given.
    ///
    /// # Errors
    /// Where it cannot; the process is gone then. The error's [`SpawnError::code`] is the exit code for it.
    pub fn release(mut self, page: Option<&page::Description>) -> Result<Running, SpawnError> {
        let text = match (self.needs_page, page) {
            (false, _) => Vec::new(),
            (true, Some(page)) => {
                serde_json::to_vec(page).map_err(|error| SpawnError::step("describe", error))?
            }
            (true, None) => return Err(SpawnError::refused("a container without a command needs its page")),
        };
        match send(&mut self.channel, &text) {
            // A child that is gone is found out by what it said, not by what it does not hear.
            Err(error) if !is_gone(&error) => return Err(SpawnError::step("let the process go", error)),
            _ => {}
        }
        match receive(&mut self.channel)? {
            None => Ok(Running::new(self.child, self.signals)),
            Some(message) => Err(self.labels.error(message)),
        }
    }
}

/// A child that is ended and reaped unless it is handed on.
#[derive(Debug)]
pub(super) struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub terminal: Terminal,
}

/// Whether the terminal's own signals reach the child without help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    Shared,
    Left,
}

impl Child {
    pub fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }
}

impl Drop for Child {
    /// Nothing happens where it has been waited for: the pidfd names no process any more.
    fn drop(&mut self) {
        if rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).is_ok() {
            let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

/// Forks, and waits until the child is in its namespaces.
pub(super) fn start(recipe: &Recipe<'_>, labels: Labels) -> Result<Held, SpawnError> {
    let signals = Signals::block().map_err(|error| SpawnError::step("watch for signals", error))?;
    watch::adopt_orphans()
        .map_err(|error| SpawnError::step("look after the container's processes", error))?;
    let terminal = if recipe.output.is_some() { Terminal::Left } else { Terminal::Shared };
    let (child, mut channel) =
        fork(recipe, terminal).map_err(|error| SpawnError::step("make a process", error))?;
    match receive(&mut channel)? {
        Some(Message::READY) => {}
        Some(message) => return Err(labels.error(message)),
        None => return Err(SpawnError::Ended),
    }
    // Only this process reaps the child, so the number cannot have passed to another process meanwhile.
    let path = format!("/proc/{}/ns/net", child.number());
    let netns = File::open(&path).map_err(|error| SpawnError::step(format!("open {path}"), error))?.into();
    let needs_page = matches!(recipe.main, Program::Page);
    Ok(Held { child, channel, netns, signals, labels, needs_page })
}

fn fork(recipe: &Recipe<'_>, terminal: Terminal) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let parent = rustix::process::getpid();
    // SAFETY: the child only runs `child::run`, which neither allocates nor returns.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => child::run(recipe, theirs.as_fd(), parent),
        pid => Pid::from_raw(pid).ok_or(io::ErrorKind::Other)?,
    };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| {
        // Without the descriptor nothing else would end it.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    })?;
    Ok((Child { pid, pidfd, terminal }, ours))
}

fn send(channel: &mut UnixStream, text: &[u8]) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(text);
    channel.write_all(&frame)
}

/// The child's next message, or none where it closed its end: it became its command, or it ended.
fn receive(channel: &mut UnixStream) -> Result<Option<Message>, SpawnError> {
    let mut frame = [0; Message::SIZE];
    match channel.read_exact(&mut frame) {
        Ok(()) => Message::from_bytes(frame).ok_or(SpawnError::Ended).map(Some),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(SpawnError::step("hear from the process", error)),
    }
}

/// Whether an error says that the child has closed its end; one that ended with words unread resets the connection.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn refuse_nonsense(spec: &Spec) -> Result<(), SpawnError> {
    let foreign = match spec.namespace {
        Namespace::New => None,
        Namespace::Host => Some("the host's"),
        Namespace::Join(_) => Some("another container's"),
    };
    if let (Some(whose), Some(sysctl)) = (foreign, spec.sysctls.first()) {
        let key = sysctl.key();
        return Err(SpawnError::refused(format!("the sysctl {key} would change {whose} network namespace")));
    }
    if spec.main == Main::Page && has_threads() {
        return Err(SpawnError::refused("the page cannot be started from a process with threads"));
    }
    Ok(())
}

/// A fork copies one thread; code that allocates must not run in the copy where there were others.
pub(super) fn has_threads() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1)
}

fn recipe(spec: &Spec) -> Result<Recipe<'_>, SpawnError> {
    let network = match &spec.namespace {
        Namespace::New => Network::New,
        Namespace::Host => Network::Host,
        Namespace::Join(namespace) => Network::Join(namespace.as_fd()),
    };
    let environment = environment(spec.hostname.as_deref(), &spec.environment)?;
    let main = match &spec.main {
        Main::Page => Program::Page,
        Main::Command { program, args } => Program::Command(executable(program, args, environment)?),
    };
    Ok(Recipe {
        place: Place::Own(network),
        hostname: spec.hostname.as_deref().map(|name| c_string(name.as_ref())).transpose()?,
        binds: spec.files.as_ref().map_or(Ok(Vec::new()), binds)?,
        sysctls: spec.sysctls.iter().map(prepare_sysctl).collect::<Result<_, _>>()?,
        output: streams(&spec.output)?,
        identity: spec.user.map(identity),
        directory: spec
            .directory
            .as_deref()
            .map(|path| path_string(path).map(Directory::Asked))
            .transpose()?,
        main,
    })
}

fn labels(spec: &Spec) -> Labels {
    let program = match &spec.main {
        Main::Page => String::new(),
        Main::Command { program, .. } => program.to_string_lossy().into_owned(),
    };
    let place = match spec.namespace {
        Namespace::New => "make a network, mount and UTS namespace",
        Namespace::Host => "make a mount and UTS namespace",
        Namespace::Join(_) => "join the other container's network namespace",
    };
    Labels {
        program,
        place,
        hostname: spec.hostname.clone().unwrap_or_default(),
        files: vec!["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"],
        sysctls: spec.sysctls.iter().map(ToString::to_string).collect(),
        user: spec.user.map(|user| user.to_string()).unwrap_or_default(),
        directory: spec.directory.as_deref().unwrap_or(Path::new("")).display().to_string(),
    }
}

fn binds(files: &Files) -> Result<Vec<Bind>, SpawnError> {
    let all = [
        (&files.hosts, c"/etc/hosts", Presence::Needed),
        (&files.resolv_conf, c"/etc/resolv.conf", Presence::Needed),
        (&files.hostname, c"/etc/hostname", Presence::Optional),
    ];
    let bind = |(source, target, presence): (&PathBuf, _, _)| {
        // Looked at here, so that a missing target and a missing source are two different errors.
        let doing = || format!("read {}", source.display());
        let source = source.canonicalize().map_err(|error| SpawnError::step(doing(), error))?;
        Ok(Bind { source: path_string(&source)?, target, presence })
    };
    all.into_iter().map(bind).collect()
}

fn prepare_sysctl(sysctl: &Sysctl) -> Result<(CString, Vec<u8>), SpawnError> {
    Ok((c_string(sysctl.path().as_ref())?, sysctl.value().as_bytes().to_vec()))
}

fn streams(output: &Output) -> Result<Option<Streams>, SpawnError> {
    let path = match output {
        Output::Inherit => return Ok(None),
        Output::Log(path) => path,
    };
    let failed = |path: &Path, error| SpawnError::step(format!("open {}", path.display()), error);
    let null = Path::new("/dev/null");
    let input = File::open(null).map_err(|error| failed(null, error))?;
    let log =
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|e| failed(path, e))?;
    Ok(Some(Streams { input: input.into(), output: log.into() }))
}

/// The group of a user without one: as in the host's /etc/passwd, which is the container's too; else by the same number.
pub(super) fn identity(user: User) -> (Uid, Gid) {
    let from_passwd = || user.group_in(&std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    // Docker gives root's group to a user that it does not know, which is more than was asked for.
    let gid = user.gid.or_else(from_passwd).unwrap_or(user.uid);
    (Uid::from_raw(user.uid), Gid::from_raw(gid))
}

/// The caller's environment and what is added to it.
pub(super) fn environment(
    hostname: Option<&str>,
    added: &[(OsString, OsString)],
) -> Result<Vec<(OsString, OsString)>, SpawnError> {
    let hostname = hostname.map(|name| ("HOSTNAME".into(), name.into()));
    let mut environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    for (key, value) in hostname.iter().chain(added) {
        if key.is_empty() || key.as_bytes().contains(&b'=') {
            return Err(SpawnError::refused(format!(
                "{key:?} cannot be the name of an environment variable"
            )));
        }
        environment.retain(|(present, _)| present != key);
        environment.push((key.clone(), value.clone()));
    }
    Ok(environment)
}

/// The command as execve wants it, looked up in the PATH that it will itself have.
pub(super) fn executable(
    program: &OsStr,
    args: &[OsString],
    environment: Vec<(OsString, OsString)>,
) -> Result<Executable, SpawnError> {
    let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_os_str());
    let candidates = candidates(program, path.unwrap_or(OsStr::new(DEFAULT_PATH)))?;
    let arguments = std::iter::once(program).chain(args.iter().map(OsString::as_os_str)).map(c_string);
    let variables =
        environment.iter().map(|(key, value)| c_string(&[key.as_os_str(), value].join(OsStr::new("="))));
    Ok(Executable {
        candidates,
        arguments: Pointers::new(arguments.collect::<Result<_, _>>()?),
        environment: Pointers::new(variables.collect::<Result<_, _>>()?),
    })
}

/// Docker's, for a caller without any.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where `program` may be: where it says, if it has a slash, else in each folder of `path`.
fn candidates(program: &OsStr, path: &OsStr) -> Result<Vec<CString>, SpawnError> {
    if program.is_empty() {
        return Ok(Vec::new());
    }
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(program)?]);
    }
    std::env::split_paths(path).map(|folder| path_string(&folder.join(program))).collect()
}

pub(super) fn path_string(path: &Path) -> Result<CString, SpawnError> {
    c_string(path.as_os_str())
}

fn c_string(text: &OsStr) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::refused(format!("{text:?} has a NUL byte in it")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(program: &str, path: &str) -> Vec<String> {
        let found = candidates(program.as_ref(), path.as_ref()).unwrap();
        found.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_name_is_looked_up_in_each_folder_of_the_path() {
        assert_eq!(names("ls", "/bin:/usr/bin"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(names("ls", "/bin:"), ["/bin/ls", "ls"]);
        assert_eq!(names("./ls", "/bin"), ["./ls"]);
        assert_eq!(names("", "/bin"), [""; 0]);
    }

    #[test]
    fn what_is_added_replaces_what_the_caller_has() {
        let added = [("PATH".into(), "/a".into()), ("PATH".into(), "/b".into())];
        let all = environment(Some("web"), &added).unwrap();
        let paths: Vec<_> = all.iter().filter(|(key, _)| key == "PATH").collect();
        assert_eq!(paths, [&("PATH".into(), OsString::from("/b"))]);
        assert!(all.contains(&("HOSTNAME".into(), "web".into())));
    }

    #[test]
    fn a_nul_or_a_nameless_variable_is_refused() {
        assert!(candidates("a\0b".as_ref(), "/bin".as_ref()).is_err());
        assert!(environment(None, &[("".into(), "x".into())]).is_err());
        assert!(environment(None, &[("a=b".into(), "x".into())]).is_err());
    }

    #[test]
    fn sysctls_are_refused_where_the_namespace_is_not_the_containers() {
        let main = Main::Command { program: "true".into(), args: Vec::new() };
        let sysctls = vec!["net.ipv4.ip_forward=1".parse().unwrap()];
        let spec = Spec { namespace: Namespace::Host, sysctls, ..Spec::new(main) };
        let error = spawn(&spec).unwrap_err().to_string();
        assert_eq!(error, "the sysctl net.ipv4.ip_forward would change the host's network namespace");
    }
}
