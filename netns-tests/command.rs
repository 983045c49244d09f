//! Runs programs and says what one may expect of them. Never waits without an end.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;

/// No command of a test takes longer than this, not even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what comes by itself, and announces itself to nobody.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        // Two processors are few: what is waited for needs them too.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a program printed and how it ended.
pub struct Output {
    what: String,
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Output {
    /// It did what it was asked, exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// It ended with this exit code, without a panic.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        self.no_panic();
        assert_eq!(self.status.code(), Some(code), "exit code of {self}");
        self
    }

    /// It was refused with exactly this line (hints aside).
    #[track_caller]
    pub fn fails_with(self, line: &str) -> Self {
        let failed = self.refused(&[]);
        assert_eq!(failed.first_line(), line, "the line on stderr of {failed}");
        failed
    }

    /// Exit 1 with one `rnet:` line, at most one `hint:` line after it, nothing on stdout, and all of `words` said.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        let failed = self.exits(1);
        assert_eq!(failed.stdout, "", "stdout of {failed}");
        failed.one_clear_line();
        for word in words {
            assert!(failed.stderr.contains(word), "{word:?} is not mentioned by {failed}");
        }
        failed
    }

    /// Exit 1 with one clear line, whatever was printed before it failed.
    #[track_caller]
    pub fn failed_after_output(self, words: &[&str]) -> Self {
        let failed = self.exits(1);
        failed.one_clear_line();
        for word in words {
            assert!(failed.stderr.contains(word), "{word:?} is not mentioned by {failed}");
        }
        failed
    }

    /// It was refused with one clear line.
    #[track_caller]
    pub fn is_one_clear_refusal(&self) {
        assert_eq!(self.status.code(), Some(1), "exit code of {self}");
        self.one_clear_line();
    }

    #[track_caller]
    fn one_clear_line(&self) {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let clear = match lines.as_slice() {
            [error] => is_clear(error, "rnet: "),
            [error, hint] => is_clear(error, "rnet: ") && is_clear(hint, "hint: "),
            _ => false,
        };
        assert!(clear, "not one clear line (and at most one hint) on stderr: {self}");
    }

    /// The words were wrong: exit 2, nothing on stdout, the word named.
    #[track_caller]
    pub fn wrong_words(self, word: &str) -> Self {
        let failed = self.exits(2);
        assert_eq!(failed.stdout, "", "stdout of {failed}");
        assert!(failed.stderr.contains(word), "{word:?} is not mentioned by {failed}");
        failed
    }

    /// It was ended by this signal, or says so in its exit code as a shell does.
    #[track_caller]
    pub fn ended_by(self, signal: Signal) -> Self {
        let ended = self.status.signal() == Some(signal.as_raw())
            || self.status.code() == Some(128 + signal.as_raw());
        assert!(ended, "not ended by {signal:?}: {self}");
        self
    }

    /// Neither a panic nor a backtrace, whatever else.
    #[track_caller]
    pub fn no_panic(&self) {
        let clean = !self.stderr.contains("panicked at") && !self.stderr.contains("RUST_BACKTRACE");
        assert!(clean && self.status.code() != Some(101), "a panic: {self}");
        assert_ne!(self.status.signal(), Some(Signal::ABORT.as_raw()), "aborted: {self}");
    }

    /// It printed nothing at all.
    #[track_caller]
    pub fn silent(self) -> Self {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""), "output of {self}");
        self
    }

    /// It printed exactly this.
    #[track_caller]
    pub fn prints(self, stdout: &str) -> Self {
        assert_eq!(self.stdout, stdout, "stdout of {self}");
        self
    }

    /// Its stdout mentions this.
    #[track_caller]
    pub fn mentions(self, word: &str) -> Self {
        assert!(self.stdout.contains(word), "{word:?} is not on stdout of {self}");
        self
    }

    /// What it printed.
    pub fn stdout(&self) -> &str {
        &self.stdout
    }

    /// What it printed, without the newline at its end.
    pub fn text(&self) -> String {
        self.stdout.trim_end().to_owned()
    }

    /// What it complained about.
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// Whether it ended well.
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// Whether something killed it with SIGKILL, itself or what it was run by.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw()) || self.status.code() == Some(128 + 9)
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}) on stdout of {self}"))
    }

    /// What it printed, as JSON, where it ended well.
    pub fn succeeded_json(&self) -> Option<Value> {
        self.status.success().then(|| serde_json::from_str(&self.stdout).ok()).flatten()
    }

    fn first_line(&self) -> &str {
        self.stderr.lines().next().unwrap_or_default()
    }
}

fn is_clear(line: &str, start: &str) -> bool {
    line.starts_with(start) && line.len() > start.len() && !line.chars().any(confuses_a_terminal)
}

/// Control characters, and those that turn the direction of writing.
fn confuses_a_terminal(c: char) -> bool {
    c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ({})\n--- stdout\n{}--- stderr\n{}---",
            self.what, self.status, self.stdout, self.stderr
        )
    }
}

/// A program that runs while the test goes on. Killed when dropped.
pub struct Running {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Receiver<String>,
    seen: String,
}

impl Running {
    /// Starts it with pipes to all three of its streams.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let what = describe(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{what}` does not start: {error}"));
        let stdin = child.stdin.take();
        let (line, lines) = channel();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while stdout.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                let _ = line.send(String::from_utf8_lossy(&bytes).into_owned());
                bytes.clear();
            }
        });
        let (complaint, stderr) = channel();
        let mut pipe = child.stderr.take().expect("stderr is a pipe");
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            let _ = complaint.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        Self { what, child, stdin, lines, stderr, seen: String::new() }
    }

    /// The next line that it prints, waited for.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push_str(&line);
                line.trim_end().to_owned()
            }
            Err(_) => {
                let stderr = self.stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
                panic!("no further line on stdout of `{}`; stderr:\n{stderr}", self.what)
            }
        }
    }

    /// The next line that it prints, if it comes within that time.
    pub fn line_within(&mut self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok().map(|line| line.trim_end().to_owned())
    }

    /// Types a line into it.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it reads");
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal_if_alive(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it lives");
    }

    /// Waits up to `time` for its end; true when it ended.
    pub fn ended_within(&self, time: Duration) -> bool {
        ended_within(self.pid(), time)
    }

    /// Closes its stdin and waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        drop(self.stdin.take());
        assert!(self.ended_within(PATIENCE), "`{}` does not end", self.what);
        let status = self.child.wait().expect("it ended");
        let mut stdout = std::mem::take(&mut self.seen);
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => stdout.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("`{}` ended, but something holds its stdout", self.what)
                }
            }
        }
        let stderr = self.stderr.recv_timeout(Duration::from_secs(20));
        let stderr =
            stderr.unwrap_or_else(|_| panic!("`{}` ended, but something holds its stderr", self.what));
        Output { what: self.what.clone(), status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, without input.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    Running::start(command).wait()
}

/// Waits up to `time` for the end of a process; true when it has ended.
pub fn ended_within(pid: Pid, time: Duration) -> bool {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&time)).is_ok_and(|ready| ready > 0)
}

fn describe(command: &Command) -> String {
    let name = command.get_program().to_string_lossy();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let words =
        command.get_args().map(OsStr::to_string_lossy).map(|word| match word.contains([' ', '\n', '"']) {
            true => format!("{word:?}"),
            false => word.into_owned(),
        });
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}
