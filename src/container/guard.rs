//! A process that waits for the end of a watcher and does nothing else: where the watcher is killed before it could
//! take its container down, somebody is left to do so at once. Never looks at what the container is.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::PidfdFlags,
};

use super::{child::close_all_but, spawn::has_threads};

/// Makes the process. Once the calling process has ended, however it did, it runs `after` and ends.
///
/// It is in a session of its own and has none of the caller's files: no signal of a terminal reaches it, no pipe stays
/// open for it, no lock is held on.
///
/// # Errors
/// Where there can be no further process, or the caller has threads.
pub fn outlive(after: impl FnOnce()) -> io::Result<()> {
    if has_threads() {
        return Err(io::Error::other("a process with threads cannot be forked"));
    }
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    // SAFETY: this process has one thread, so its copy is whole; the copy ends below and drops nothing of the caller's.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            if leave(&own).is_ok() && wait(&own).is_ok() {
                after();
            }
            // SAFETY: ends this copy; nothing of the caller's is flushed or dropped.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

fn leave(kept: &OwnedFd) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // `null` is never dropped: its number may be another file's by then.
    std::mem::forget(null);
    close_all_but(kept.as_raw_fd());
    Ok(rustix::thread::set_name(c"rnet-guard")?)
}

/// Until the process has ended.
fn wait(process: &OwnedFd) -> rustix::io::Result<()> {
    let mut ended = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    loop {
        match poll(&mut ended, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(drop),
        }
    }
}
