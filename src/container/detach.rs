//! A watcher in the background, for `rnet run -d`: the foreground returns when the watcher has said how it went.
//! Never starts a container itself.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
};

use super::spawn::has_threads;

/// Which of the two processes this is.
#[derive(Debug)]
#[must_use]
pub enum Detached {
    /// The one that the user called; it waits for the report and exits with it.
    Foreground(Foreground),
    /// The one that goes on, in a session of its own and without a terminal.
    Watcher(Watcher),
}

/// The end that hears.
#[derive(Debug)]
pub struct Foreground(UnixStream);

/// The end that speaks, once.
#[derive(Debug)]
pub struct Watcher(UnixStream);

/// Why a watcher did not start what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For the foreground to exit with.
    pub code: u8,
    /// For the foreground to print.
    pub line: String,
}

/// Makes the watcher. Both processes return from here. The watcher has none of the caller's open files: a lock would be
/// held, and a pipe be open, for as long as it lives.
///
/// # Errors
/// Where there can be no further process, or this one has threads: a fork would lose them and keep their locks.
pub fn detach() -> io::Result<Detached> {
    if has_threads() {
        return Err(io::Error::other("a process with threads cannot go to the background"));
    }
    let (hears, speaks) = UnixStream::pair()?;
    // SAFETY: this process has one thread, so its copy is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(hears);
            crate::start::close_all_but(&[0, 1, 2, speaks.as_raw_fd()]);
            Ok(Detached::Watcher(Watcher(speaks).or_fail(leave_terminal)))
        }
        _ => Ok(Detached::Foreground(Foreground(hears))),
    }
}

/// Closes what this process inherited beside its three streams: what goes on in the background would keep it open for
/// long, a lock of the caller's for instance.
///
/// # Safety
/// Nothing of this process owns a descriptor yet, other than those three.
pub unsafe fn leave_files() {
    // SAFETY: as the caller says; a kernel that is too old for the call leaves them open.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

fn leave_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

impl Foreground {
    /// What the watcher had to say: its word for "started" (the container's name, for instance) or its failure.
    ///
    /// # Errors
    /// The watcher's failure, or that it ended without a word.
    pub fn wait(mut self) -> Result<String, Failure> {
        let silent =
            |_| Failure { code: 125, line: "the watcher ended before the container started".to_owned() };
        let mut head = [0; 5];
        self.0.read_exact(&mut head).map_err(silent)?;
        let [code, length @ ..] = head;
        let mut text = Vec::new();
        self.0.take(u64::from(u32::from_le_bytes(length))).read_to_end(&mut text).map_err(silent)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if code == 0 { Ok(text) } else { Err(Failure { code, line: text }) }
    }
}

impl Watcher {
    /// The container runs. A foreground that is gone is no reason to stop.
    pub fn started(self, text: &str) {
        self.report(0, text);
    }

    /// It does not, and this process is about to exit. The code is never 0.
    pub fn failed(self, failure: &Failure) {
        self.report(failure.code.max(1), &failure.line);
    }

    fn report(mut self, code: u8, text: &str) {
        let mut frame = vec![code];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend_from_slice(text.as_bytes());
        let _ = self.0.write_all(&frame);
    }

    /// A watcher that cannot leave its terminal must not return into the caller as one that did.
    fn or_fail(self, step: fn() -> io::Result<()>) -> Self {
        if let Err(error) = step() {
            self.failed(&Failure { code: 125, line: format!("cannot go to the background: {error}") });
            std::process::exit(125);
        }
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair() -> (Foreground, Watcher) {
        let (hears, speaks) = UnixStream::pair().unwrap();
        (Foreground(hears), Watcher(speaks))
    }

    #[test]
    fn the_foreground_hears_what_started() {
        let (foreground, watcher) = pair();
        watcher.started("web");
        assert_eq!(foreground.wait(), Ok("web".to_owned()));
    }

    #[test]
    fn the_foreground_hears_what_failed() {
        let (foreground, watcher) = pair();
        let failure = Failure { code: 127, line: "nosuch: command not found".to_owned() };
        watcher.failed(&failure);
        assert_eq!(foreground.wait(), Err(failure));
    }

    #[test]
    fn a_watcher_that_dies_in_silence_is_a_failure() {
        let (foreground, watcher) = pair();
        drop(watcher);
        assert_eq!(foreground.wait().unwrap_err().code, 125);
    }
}
