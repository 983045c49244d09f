//! A lab: a thread in network and mount namespaces of its own, which plays a host. It measures nothing by itself.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// What went wrong, in words.
pub type Done<T = ()> = Result<T, String>;

/// The command and the floor (`examples/floor`), built as they are shipped.
pub fn build() -> Done<[PathBuf; 2]> {
    eprintln!("building target/release/rnet and the floor");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = ["build", "--release", "--bin", "rnet", "--example", "floor"];
    run(Command::new(cargo).current_dir(root).args(words))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok([target.join("release/rnet"), target.join("release/examples/floor")])
}

type Job<C> = Box<dyn FnOnce(&mut C) + Send>;

/// A thread with a host of its own, and a contender on it.
pub struct Lab<C> {
    /// None once the lab is to end.
    jobs: Option<Sender<Job<C>>>,
    thread: Option<JoinHandle<()>>,
}

/// Ends with its contender put away.
impl<C> Drop for Lab<C> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<C: 'static> Lab<C> {
    /// Makes the host with so many containers (`/run/netns/c1` …), and the contender on it.
    pub fn open(containers: usize, make: impl FnOnce() -> Done<C> + Send + 'static) -> Done<Self> {
        let (jobs, list) = channel::<Job<C>>();
        let (says, hears) = channel();
        let thread = thread::spawn(move || match host(containers).and_then(|()| make()) {
            Ok(mut contender) => {
                let _ = says.send(Ok(()));
                list.into_iter().for_each(|job| job(&mut contender));
            }
            Err(error) => drop(says.send(Err(error))),
        });
        hears.recv().map_err(|error| error.to_string())??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has the lab do something; the answer comes when it is done.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce(&mut C) -> T + Send + 'static) -> Receiver<T> {
        let (says, hears) = channel();
        let job: Job<C> = Box::new(move |contender| drop(says.send(work(contender))));
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
        hears
    }

    /// Has the lab do something, and waits.
    pub fn ask<T: Send + 'static>(&self, work: impl FnOnce(&mut C) -> Done<T> + Send + 'static) -> Done<T> {
        self.start(work).recv().map_err(|_| "the lab ended".to_owned())?
    }
}

/// Turns the calling thread into a host: nothing that it does is seen outside.
fn host(containers: usize) -> Done {
    let own = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: the thread shares no file descriptor table or memory that these flags would part.
    unsafe { unshare_unsafe(own) }
        .map_err(|error| format!("a namespace of its own: {error}; the bench needs root"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| format!("private mounts: {error}"))?;
    for folder in ["/run", "/var/lib"] {
        mount("bench", folder, "tmpfs", MountFlags::empty(), None)
            .map_err(|error| format!("tmpfs on {folder}: {error}"))?;
    }
    for folder in ["/run/netns", "/run/etc", "/run/etc-work"] {
        fs::create_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    let options = c"lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work";
    mount("overlay", "/etc", "overlay", MountFlags::empty(), options)
        .map_err(|error| format!("an /etc of its own: {error}"))?;
    // A host whose loopback is down is none.
    run(Command::new("/usr/sbin/ip").args(["link", "set", "lo", "up"]))?;
    let home = File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())?;
    for number in 1..=containers {
        let name = netns(number);
        File::create(&name).map_err(|error| format!("{name}: {error}"))?;
        // SAFETY: as above; the thread goes back home below.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| format!("a container: {error}"))?;
        mount_bind("/proc/thread-self/ns/net", &name).map_err(|error| format!("{name}: {error}"))?;
    }
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("back home: {error}"))
}

/// The namespace of a container.
pub fn netns(container: usize) -> String {
    format!("/run/netns/c{container}")
}

/// The host port of a container.
pub fn port(container: usize) -> u16 {
    20_000 + u16::try_from(container).unwrap_or(0)
}

/// The milliseconds from the fork to the end of a command that must succeed.
pub fn timed(command: &mut Command) -> Done<f64> {
    const ERRORS: &str = "/run/bench.stderr";
    let errors = File::create(ERRORS).map_err(|error| error.to_string())?;
    command.stdout(Stdio::null()).stderr(errors);
    let start = Instant::now();
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    let time = start.elapsed();
    let said = || fs::read_to_string(ERRORS).unwrap_or_default();
    if status.success() { Ok(ms(time)) } else { Err(format!("{command:?}: {status}: {}", said().trim())) }
}

/// The milliseconds from the first fork to the last end of commands started at once, which must all succeed.
pub fn timed_at_once(mut commands: Vec<Command>) -> Done<f64> {
    for command in &mut commands {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    let start = Instant::now();
    let started: Result<Vec<_>, _> = commands.iter_mut().map(Command::spawn).collect();
    let ended: Result<Vec<_>, _> =
        started.map_err(|error| error.to_string())?.iter_mut().map(|child| child.wait()).collect();
    let time = start.elapsed();
    let failed = ended.map_err(|error| error.to_string())?.iter().filter(|status| !status.success()).count();
    if failed == 0 {
        Ok(ms(time))
    } else {
        Err(format!("{failed} of {} attaches at once failed", commands.len()))
    }
}

/// What a command prints.
pub fn run(command: &mut Command) -> Done<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let all_said = || format!("{} {}", text(&output.stderr), text(&output.stdout));
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{command:?}: {}", all_said()))
    }
}

/// How many programs a command executes, itself not counted; `None` where there is no strace.
pub fn programs(command: &Command) -> Done<Option<usize>> {
    const TRACE: &str = "/run/bench.strace";
    if !Path::new("/usr/bin/strace").exists() {
        return Ok(None);
    }
    let mut traced = Command::new("/usr/bin/strace");
    traced
        .args(["-f", "-e", "trace=execve,execveat", "-o", TRACE])
        .arg(command.get_program())
        .args(command.get_args());
    run(&mut traced)?;
    let trace = fs::read_to_string(TRACE).map_err(|error| error.to_string())?;
    Ok(Some(trace.lines().filter(|line| line.contains(" execve")).count().saturating_sub(1)))
}

/// What the kernel does after a deletion must not fall into another's time.
pub fn settle() {
    thread::sleep(Duration::from_millis(40));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
