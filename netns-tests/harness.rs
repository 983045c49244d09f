//! Runs each test on a thread that is a host of its own, and tells cargo how it went. Knows nothing of rnet.

use std::{
    any::Any,
    cell::RefCell,
    env, fs,
    panic::{self, PanicHookInfo},
    process::ExitCode,
    thread,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::{
    process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::lab::Lab;

/// One behaviour of the command, and the function that shows it.
pub struct Test {
    /// `area::behaviour`
    pub name: &'static str,
    /// Panics unless the behaviour is there.
    pub run: fn(&Lab),
}

/// The tests of a file, each named after its module and function.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this file.
        pub const TESTS: &[crate::harness::Test] = &[
            $(crate::harness::Test { name: concat!(module_path!(), "::", stringify!($name)), run: $name }),*
        ];
    };
}
pub(crate) use tests;

/// Ends a test that cannot be run here; it is then shown as ignored, with the reason.
pub fn skip(reason: impl Into<String>) -> ! {
    panic::panic_any(Skip(reason.into()))
}

struct Skip(String);

/// Runs what the command line selects, a few at a time: the kernel lets one at a time change its network anyway.
pub fn main(files: &[&'static [Test]]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    raise_open_files();
    let obstacle = if arguments.list { None } else { become_root().and_then(|()| probe()).err() };
    panic::set_hook(Box::new(remember));
    let trials =
        files.iter().flat_map(|file| file.iter()).map(|test| trial(test, obstacle.clone())).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_ignored > 0 {
        println!("{} tests could not run here; with CI=true they count as failed\n", conclusion.num_ignored);
    }
    conclusion.exit_code()
}

fn trial(test: &'static Test, obstacle: Option<String>) -> Trial {
    let name = test.name.trim_start_matches("netns::");
    Trial::ignorable_test(name, move || {
        let outcome = match obstacle {
            Some(reason) => Outcome::Skipped(reason),
            None => run(test),
        };
        match outcome {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Skipped(reason) if in_ci() => Err(Failed::from(format!("cannot run here: {reason}"))),
            Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
            Outcome::Failed(message) => Err(Failed::from(message)),
        }
    })
}

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Gives the test a thread, and with it a host, of its own.
fn run(test: &'static Test) -> Outcome {
    let attempt = || {
        panic::catch_unwind(|| {
            let lab = Lab::new().unwrap_or_else(|obstacle| skip(obstacle));
            (test.run)(&lab);
            lab.finish();
        })
        .map_err(|panic| outcome_of(panic.as_ref()))
    };
    let thread = thread::Builder::new().name(format!("{THREAD}{}", test.name)).spawn(attempt);
    match thread.map(|thread| thread.join()) {
        Ok(Ok(Ok(()))) => Outcome::Passed,
        Ok(Ok(Err(outcome))) => outcome,
        Ok(Err(_)) => Outcome::Failed("the test's thread died".into()),
        Err(error) => Outcome::Failed(format!("no thread for the test: {error}")),
    }
}

const THREAD: &str = "lab ";

thread_local! { static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) } }

/// Keeps a test's panic for its report, rather than in the middle of the others' lines.
fn remember(info: &PanicHookInfo<'_>) {
    if info.payload().is::<Skip>() {
        return;
    }
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let report = format!("{place}:\n{}", info.payload_as_str().unwrap_or("panic"));
    if thread::current().name().is_some_and(|name| name.starts_with(THREAD)) {
        // The first panic is the one that tells; a second one comes from taking the lab down.
        LAST_PANIC.with_borrow_mut(|last| {
            if last.is_empty() {
                *last = report
            }
        });
    } else {
        eprintln!("{report}");
    }
}

fn outcome_of(panic: &(dyn Any + Send)) -> Outcome {
    match panic.downcast_ref::<Skip>() {
        Some(Skip(reason)) => Outcome::Skipped(reason.clone()),
        None => Outcome::Failed(LAST_PANIC.with_borrow(Clone::clone)),
    }
}

fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// The thousand containers of `many.rs` come with a server each.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Without root, a user namespace in which we are root does as well. Must come before the first thread.
fn become_root() -> Result<(), String> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    // SAFETY: no other thread exists yet, and no descriptor table is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|e| format!("not root, and no user namespace: {e}"))?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| format!("not root, and {file} refused: {e}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {} 1", user.as_raw()))?;
    write("gid_map", format!("0 {} 1", group.as_raw()))
}

/// Builds one lab, so that a machine where that is impossible says so once and not as 100 failures.
fn probe() -> Result<(), String> {
    thread::spawn(|| Lab::new().map(drop)).join().unwrap_or_else(|_| Err("the lab could not be built".into()))
}
