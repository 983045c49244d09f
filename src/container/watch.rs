//! Stays with a process until it ends: signals passed on, stops followed, everything it leaves behind ended.
//! Never polls on a clock and never sleeps.

use std::{
    fs, io, mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus},
};

use super::spawn::{Child, Terminal};

/// What is passed on to the command.
const FORWARDED: [Signal; 9] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::CONT,
    Signal::TSTP,
];

/// A process that runs its command. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    signals: Signals,
}

impl Running {
    pub(super) fn new(child: Child, signals: Signals) -> Self {
        Self { child, signals }
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.number()
    }

    /// Its exit code, or 128 and the signal that killed it. Whatever it started and left behind is ended by then.
    ///
    /// Other children of this process that end meanwhile are reaped too: a watcher has nothing else to wait for.
    pub fn wait(self) -> u8 {
        let status = self.watch();
        Self::end_descendants();
        // A status that somebody else took cannot be known.
        status.map_or(255, exit_code)
    }

    fn watch(&self) -> Option<WaitStatus> {
        loop {
            let ended = self.wait_for_news();
            while let Some(news) = self.signals.next() {
                self.pass_on(&news);
            }
            match self.reap() {
                Some(status) => return Some(status),
                None if ended => return None,
                None => {}
            }
        }
    }

    /// Blocks until a signal came or the process ended; says whether it ended.
    fn wait_for_news(&self) -> bool {
        let signals = PollFd::new(&self.signals.descriptor, PollFlags::IN);
        let process = PollFd::new(&self.child.pidfd, PollFlags::IN);
        let mut both = [process, signals];
        match poll(&mut both, None) {
            Ok(_) => !both[0].revents().is_empty(),
            Err(Errno::INTR) => false,
            // Without poll, the next best thing is to wait for the process alone.
            Err(_) => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                let _ = rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), options);
                true
            }
        }
    }

    fn pass_on(&self, news: &libc::signalfd_siginfo) {
        // ^C and the like come from the kernel to the terminal's whole process group: the child has it already.
        let has_it = self.child.terminal == Terminal::Shared && news.ssi_code == libc::SI_KERNEL;
        let number = i32::try_from(news.ssi_signo).unwrap_or_default();
        match FORWARDED.into_iter().find(|signal| signal.as_raw() == number) {
            Some(signal) if !has_it => {
                // It may just have ended.
                let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, signal);
            }
            _ => {}
        }
    }

    /// Takes every change of state there is; the status of the command once it has ended.
    fn reap(&self) -> Option<WaitStatus> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)
        {
            if pid != self.child.pid {
                continue;
            }
            match status.stopping_signal() {
                Some(signal) => self.stop_with_it(signal),
                None => return Some(status),
            }
        }
        None
    }

    /// Stops rnet where the terminal stopped the command, so that the shell takes the terminal back.
    ///
    /// By the command's stop and not by ^Z itself: an editor first tidies the screen, and a shell ignores it.
    fn stop_with_it(&self, signal: i32) {
        let by_terminal = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        if by_terminal && self.child.terminal == Terminal::Shared {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
        }
    }

    /// Kills what the command left behind. Ending one makes its children ours, hence the loop.
    ///
    /// A container that forks faster than this would need a control group to be ended at once.
    fn end_descendants() {
        while has_children() {
            let left: Vec<i32> = children().into_iter().filter(|pid| !is_rnets_own(*pid)).collect();
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                // Only this process reaps its children, so the number still is that child's.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                while matches!(rustix::process::waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
            }
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// What a killed command's children become ours, not init's.
pub(super) fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// The children of this process. Read from each process's own line: /proc/self/task/…/children is a kernel option.
fn children() -> Vec<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| parent(*pid) == Some(own)).collect()
}

fn parent(pid: i32) -> Option<i32> {
    parent_in(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The fourth field. The second is a name in parentheses that may itself have spaces and parentheses.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a child is a helper that rnet made for itself: the command's all live in a mount namespace that is not ours,
/// and one that found its way out of it may still be in the container's network.
fn is_rnets_own(pid: i32) -> bool {
    ["mnt", "net"].iter().all(|kind| {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}"));
        // A child that has just ended shows no namespace, and is the more surely to be reaped.
        fs::read_link(format!("/proc/{pid}/ns/{kind}"))
            .is_ok_and(|theirs| ours.is_ok_and(|ours| ours == theirs))
    })
}

/// Signals that end a process, held back until this is dropped; those that came meanwhile then do.
#[derive(Debug)]
pub struct Held {
    before: libc::sigset_t,
}

impl Held {
    /// Holds them back.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not.
    pub fn signals() -> io::Result<Self> {
        // SAFETY: both sets are valid; the second is filled by the call.
        unsafe {
            let mut wanted: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut wanted);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
                libc::sigaddset(&raw mut wanted, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const wanted, &raw mut before) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { before })
        }
    }
}

impl Held {
    /// Holds none back, whatever the caller's caller did: a mask is inherited.
    pub fn none() {
        // SAFETY: the set is valid and empty.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the kernel gave.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The signals of a watcher, blocked and readable.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks them in this thread, for good.
    pub fn block() -> io::Result<Self> {
        let mask = mask();
        // SAFETY: the mask is valid. A caller that ignores SIGCHLD, which is inherited, would have no exit codes.
        let descriptor = unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// The next one that has come, if any.
    fn next(&self) -> Option<libc::signalfd_siginfo> {
        const SIZE: usize = mem::size_of::<libc::signalfd_siginfo>();
        // SAFETY: the type is plain numbers, and the kernel writes whole ones of exactly this size.
        unsafe {
            let mut news: libc::signalfd_siginfo = mem::zeroed();
            let count = libc::read(self.descriptor.as_raw_fd(), (&raw mut news).cast(), SIZE);
            usize::try_from(count).is_ok_and(|count| count == SIZE).then_some(news)
        }
    }
}

fn mask() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid argument of sigemptyset, which makes it a valid mask.
    unsafe {
        let mut mask: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigaddset(&raw mut mask, libc::SIGCHLD);
        for signal in FORWARDED {
            libc::sigaddset(&raw mut mask, signal.as_raw());
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent_in(b"42 (a) S 7 (b)) S 13 42 42 0"), Some(13));
        assert_eq!(parent_in(b"42 (sh) S 1 42"), Some(1));
        assert_eq!(parent_in(b"42"), None);
        assert_eq!(parent_in(b")"), None);
    }
}
