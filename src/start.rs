//! The beginning of the command's process, in place of the one that Rust's standard library has for a `main` of its
//! own. That one reads `/proc/self/maps` and sets a signal stack up, to say a word before a stack overflow ends the
//! process: fourteen calls, and one fiftieth of a connect. What matters of it is here. And what a process that goes on
//! by itself leaves to others.

use std::{
    os::fd::RawFd,
    sync::atomic::{AtomicBool, Ordering},
};

/// Standard output was closed when the process began: /dev/null is in its place, and what is written there is lost
/// in silence.
static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Makes sure that the first three descriptors are open, so that no file of ours gets the number of one and a message
/// is written into it, and that a reader who goes away is an error like any other, and not a signal.
pub fn begin() {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array is as long as is said. Poll takes numbers that are not open, and says so of each.
    let asked = unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) };
    for at in standard {
        // SAFETY: asks for the flags of a descriptor, which need not be open; asked only where poll could not say it.
        let open = if asked < 0 {
            unsafe { libc::fcntl(at.fd, libc::F_GETFD) != -1 }
        } else {
            at.revents & libc::POLLNVAL == 0
        };
        if open {
            continue;
        }
        // SAFETY: a constant path that ends with a zero. The lowest free number is given, which is this one.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } == -1 {
            std::process::abort();
        }
        if at.fd == libc::STDOUT_FILENO {
            STDOUT_WAS_CLOSED.store(true, Ordering::Relaxed);
        }
    }
    // SAFETY: ignoring a signal runs no code of ours. Commands that are started have it as usual again.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Whether standard output was closed when the process began.
pub(crate) fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

/// Closes every file of the process but these: the caller's pipes must not stay open, nor its locks held. For a process
/// that uses no other from here on.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    for (from, to) in all_but(keep) {
        // SAFETY: the caller uses no other file from here on, and drops no owner of one.
        unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    }
}

/// The descriptors that a process may have beside these, from and to.
pub(crate) fn all_but(keep: &[RawFd]) -> Vec<(u32, u32)> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut from = 0;
    let mut rest = Vec::new();
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            rest.push((from, fd - 1));
        }
        from = fd.saturating_add(1);
    }
    rest
}
