//! The child's half of a start: from the fork to the command. Never allocates before the command is replaced, and
//! never returns: whatever goes wrong is sent to the parent, and the process ends.
//!
//! A fork copies one thread only, and another may have held the allocator's lock, so everything that needs memory
//! was made before, in [`Recipe`]. Only the page, which nothing replaces, needs more; it is started from a
//! single-threaded parent.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
    net::{RecvFlags, SendFlags},
    process::{Gid, Pid, Signal, Uid},
    thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags},
};

use super::{
    mounts,
    report::{Message, Step},
};
use crate::page;

/// Everything the child needs, made before the fork.
#[derive(Debug)]
pub(super) struct Recipe<'a> {
    pub place: Place<'a>,
    pub hostname: Option<CString>,
    pub binds: Vec<Bind>,
    pub sysctls: Vec<(CString, Vec<u8>)>,
    pub output: Option<Streams>,
    pub identity: Option<(Uid, Gid)>,
    pub directory: Option<Directory>,
    pub main: Program,
}

/// Which namespaces the command runs in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A new mount and UTS namespace, and that network namespace.
    Own(Network<'a>),
    /// All three of a process, by its pidfd.
    Of(BorrowedFd<'a>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Network<'a> {
    New,
    Host,
    Join(BorrowedFd<'a>),
}

/// A file that shows where another is.
#[derive(Debug)]
pub(super) struct Bind {
    pub source: CString,
    pub target: &'static CStr,
    pub presence: Presence,
}

/// What to do where the host has no such file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Make room for it: programs look there.
    Needed,
    /// Leave it: a host without it has no program that looks.
    Optional,
}

/// Standard input and output of a process that has no terminal.
#[derive(Debug)]
pub(super) struct Streams {
    pub input: OwnedFd,
    pub output: OwnedFd,
}

#[derive(Debug)]
pub(super) enum Directory {
    /// As asked for.
    Asked(CString),
    /// Where the caller was, if that still is a place in the container.
    Caller(CString),
}

#[derive(Debug)]
pub(super) enum Program {
    Page,
    Command(Executable),
}

/// A command, ready for execve.
#[derive(Debug)]
pub(super) struct Executable {
    /// Where the command may be, in the order of PATH.
    pub candidates: Vec<CString>,
    pub arguments: Pointers,
    pub environment: Pointers,
}

/// Strings and the null-ended array of pointers to them that execve wants.
#[derive(Debug)]
pub(super) struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Pointers {
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// Ends a process that would otherwise unwind into its parent's code and go on as a second parent.
struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        exit(125)
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process; unlike exit(), runs nothing of the parent's.
    unsafe { libc::_exit(code) }
}

/// What the child is for.
pub(super) fn run(recipe: &Recipe<'_>, channel: BorrowedFd<'_>, parent: Pid) -> ! {
    let _guard = NeverReturn;
    let Err(message) = prepare(recipe, channel, parent).and_then(|()| proceed(recipe, channel, parent));
    // Without a reader there is nobody to tell that there is no reader.
    let _ = tell(channel, message);
    exit(125)
}

type Outcome<T> = Result<T, Message>;

/// `map_err` for a step of the child.
fn at(step: Step) -> impl Fn(Errno) -> Message {
    move |errno| Message::new(step, errno)
}

/// Up to the point where the process exists in its namespaces.
fn prepare(recipe: &Recipe<'_>, channel: BorrowedFd<'_>, parent: Pid) -> Outcome<()> {
    die_with(parent)?;
    if let Some(streams) = &recipe.output {
        leave_terminal(streams).map_err(at(Step::Output))?;
    }
    enter(recipe.place).map_err(at(Step::Enter))?;
    close_all_but(channel.as_raw_fd());
    if let Place::Own(network) = recipe.place {
        furnish(recipe, network)?;
    }
    // A parent that never hears of it would wait for ever; that the channel is closed it notices.
    if !tell(channel, Message::READY) {
        exit(125);
    }
    Ok(())
}

/// From the parent's word to the command.
fn proceed(recipe: &Recipe<'_>, channel: BorrowedFd<'_>, parent: Pid) -> Outcome<std::convert::Infallible> {
    let length = hear_length(channel).map_err(at(Step::Release))?;
    // Once more, now that the links exist: what the user asks for has the last word.
    write_sysctls(&recipe.sysctls, Absent::Error)?;
    match &recipe.main {
        Program::Page => serve(recipe, channel, parent, length),
        Program::Command(executable) => {
            become_user(recipe, parent)?;
            reset_signals();
            Err(execute(executable))
        }
    }
}

/// SIGKILL when the parent ends. Twice in a life: a change of user clears it.
fn die_with(parent: Pid) -> Outcome<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Guard))?;
    // The parent may have ended before the line above.
    match rustix::process::getppid() {
        Some(pid) if pid == parent => Ok(()),
        _ => Err(Message::new(Step::Guard, Errno::SRCH)),
    }
}

fn leave_terminal(streams: &Streams) -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(&streams.input)?;
    rustix::stdio::dup2_stdout(&streams.output)?;
    rustix::stdio::dup2_stderr(&streams.output)
}

fn enter(place: Place<'_>) -> rustix::io::Result<()> {
    let own = UnshareFlags::NEWNS | UnshareFlags::NEWUTS;
    match place {
        Place::Own(Network::New) => unshare(own | UnshareFlags::NEWNET),
        Place::Own(Network::Host) => unshare(own),
        Place::Own(Network::Join(namespace)) => {
            rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
            unshare(own)
        }
        Place::Of(process) => {
            let mount_and_network = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK;
            let all = mount_and_network | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
            rustix::thread::move_into_thread_name_spaces(process, all)
        }
    }
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: FILES is never among the flags, so no thread loses sight of a file descriptor.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Now, not at exec: a lock that the parent holds on a file is also held by each copy of the descriptor. The child
/// uses none of them again and never drops their owners.
pub(super) fn close_all_but(kept: RawFd) {
    crate::start::close_all_but(&[0, 1, 2, kept]);
}

/// Mounts, hostname, sysctls: what makes the namespaces the container's own.
fn furnish(recipe: &Recipe<'_>, network: Network<'_>) -> Outcome<()> {
    mounts::keep_apart().map_err(at(Step::Propagation))?;
    match network {
        Network::Host => {}
        // Without it /sys/class/net shows the host's links: a pity, and no reason not to start.
        Network::New | Network::Join(_) => drop(mounts::own_sys()),
    }
    if let Some(hostname) = &recipe.hostname {
        rustix::system::sethostname(hostname.to_bytes()).map_err(at(Step::Hostname))?;
    }
    make_room(&recipe.binds)?;
    for (index, bind) in recipe.binds.iter().enumerate() {
        if bind.presence == Presence::Needed || mounts::exists(bind.target) {
            mounts::bind(&bind.source, bind.target).map_err(|errno| Message::at(Step::Bind, index, errno))?;
        }
    }
    // Before the links exist, so that they are born with what `default` says.
    write_sysctls(&recipe.sysctls, Absent::Later)
}

/// Names to mount over, for needed files that the host lacks.
fn make_room(binds: &[Bind]) -> Outcome<()> {
    let lacking = |bind: &Bind| bind.presence == Presence::Needed && !mounts::exists(bind.target);
    let Some(index) = binds.iter().position(lacking) else { return Ok(()) };
    let failed = |errno| Message::at(Step::Room, index, errno);
    mounts::overlay_etc().map_err(failed)?;
    binds.iter().filter(|bind| lacking(bind)).try_for_each(|bind| mounts::create(bind.target)).map_err(failed)
}

/// What it means that a sysctl is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// Its link may come.
    Later,
    Error,
}

fn write_sysctls(sysctls: &[(CString, Vec<u8>)], absent: Absent) -> Outcome<()> {
    for (index, (path, value)) in sysctls.iter().enumerate() {
        match write_file(path, value) {
            Err(Errno::NOENT) if absent == Absent::Later => {}
            result => result.map_err(|errno| Message::at(Step::Sysctl, index, errno))?,
        }
    }
    Ok(())
}

fn write_file(path: &CStr, value: &[u8]) -> rustix::io::Result<()> {
    let file = fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value).map(drop)
}

/// The parent lets the child go by sending the length of the page's description and the description.
fn hear_length(channel: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let mut length = [0; 4];
    hear(channel, &mut length)?;
    Ok(usize::try_from(u32::from_le_bytes(length)).unwrap_or(0))
}

fn hear(channel: BorrowedFd<'_>, mut buffer: &mut [u8]) -> rustix::io::Result<()> {
    while !buffer.is_empty() {
        let (count, _) = match rustix::net::recv(channel, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        if count == 0 {
            // The parent gave up; nobody is left to tell.
            return Err(Errno::PIPE);
        }
        buffer = &mut buffer[count..];
    }
    Ok(())
}

/// Says something to the parent; whether it was said.
fn tell(channel: BorrowedFd<'_>, message: Message) -> bool {
    loop {
        match rustix::net::send(channel, &message.to_bytes(), SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.is_ok(),
        }
    }
}

/// User and directory last, so that everything before may need root.
fn become_user(recipe: &Recipe<'_>, parent: Pid) -> Outcome<()> {
    if let Some((uid, gid)) = recipe.identity {
        rustix::thread::set_thread_groups(&[gid]).map_err(at(Step::User))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::User))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::User))?;
        die_with(parent)?;
    }
    match &recipe.directory {
        Some(Directory::Asked(path)) => rustix::process::chdir(path).map_err(at(Step::Directory)),
        Some(Directory::Caller(path)) => {
            let _ = rustix::process::chdir(path);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Everything as a fresh process has it, except that `nohup rnet run …` keeps its meaning.
///
/// The dispositions first: the signals that came while the child waited are delivered with the mask.
fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        if !(signal == libc::SIGHUP && is_ignored(signal)) {
            // SAFETY: SIG_DFL has no code that could be wrong; a number that cannot be set is an error, no more.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: an all-zero set is a valid argument of sigemptyset, which makes it a valid mask.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: with a null new action sigaction only writes the old one, which is large enough.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Tries each candidate, as a shell does; comes back only when none is a command.
fn execute(executable: &Executable) -> Message {
    let mut verdict = Errno::NOENT;
    for candidate in &executable.candidates {
        let errno = replace(candidate, &executable.arguments, &executable.environment);
        match errno {
            Errno::NOENT | Errno::NOTDIR => {}
            // A folder of PATH that may not be entered has no commands: to a shell, too, that is "not found".
            Errno::ACCESS if executable.candidates.len() > 1 && !mounts::exists(candidate) => {}
            // A later folder may have one that can be run.
            Errno::ACCESS => verdict = errno,
            _ => return Message::new(Step::Execute, errno),
        }
    }
    Message::new(Step::Execute, verdict)
}

fn replace(path: &CStr, arguments: &Pointers, environment: &Pointers) -> Errno {
    // SAFETY: the path is a C string, and both arrays end with a null and point to C strings that live beside them.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error)
}

/// The page: listen while still root, become the user, tell the parent, serve.
fn serve(
    recipe: &Recipe<'_>,
    channel: BorrowedFd<'_>,
    parent: Pid,
    length: usize,
) -> Outcome<std::convert::Infallible> {
    let mut text = vec![0; length];
    hear(channel, &mut text).map_err(at(Step::Release))?;
    let description = serde_json::from_slice(&text).map_err(|_| Message::new(Step::Page, Errno::INVAL))?;
    let door = page::listen(page::PORT).map_err(failed_io)?;
    become_user(recipe, parent)?;
    reset_signals();
    let _ = rustix::thread::set_name(c"rnet-page");
    // SAFETY: the channel's owner is never dropped in this process; closing it tells the parent that all is well.
    unsafe { libc::close(channel.as_raw_fd()) };
    let Err(_) = page::serve_on(door, &description);
    exit(1)
}

fn failed_io(error: std::io::Error) -> Message {
    Message::new(Step::Page, error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}
