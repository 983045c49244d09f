//! Tests of `rnet::container` with real processes in real namespaces. Nothing outside them is touched.
//!
//! Forking needs a process with one thread, and a watcher reaps whatever it meets, so each container is started by a
//! process of its own: this very program, called with `container`.

#![allow(clippy::unwrap_used)]

use std::{
    error::Error,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output as Finished, Stdio},
};

use libtest_mimic::{Arguments, Failed, Trial};
use rnet::{
    container::{
        SpawnError,
        detach::{Detached, Failure, detach},
        exec::{self, Target},
        spawn::{Files, Main, Namespace, Output, Spec, spawn},
    },
    page::{Description, Interface},
};
use rustix::process::{Pid, Signal, kill_process};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "container") {
        return container(&words[1..]);
    }
    let root = rustix::process::geteuid().is_root();
    let users = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    let possible = |name: &str| root && (users || !NEED_THE_HOSTS_ROOT.contains(&name));
    let trial = |(name, test): Test| Trial::test(name, test).with_ignored_flag(!possible(name));
    let trials = tests().into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

type Test = (&'static str, fn() -> Result<(), Failed>);

/// Other users and other mount namespaces are out of reach for the root of a user namespace.
const NEED_THE_HOSTS_ROOT: [&str; 4] = [
    "environment_directory_and_user",
    "the_command_of_another_user_dies_with_its_watcher",
    "what_left_the_mounts_but_not_the_network_is_ended",
    "a_second_command_in_the_same_namespaces",
];

fn tests() -> Vec<Test> {
    vec![
        ("the_exit_code_is_the_commands", exit_codes),
        ("a_command_that_cannot_run_is_126_or_127_with_one_line", failures),
        ("a_hostname_of_its_own", hostname),
        ("a_network_namespace_of_its_own_in_proc_and_sys", network),
        ("the_hosts_network_namespace", host_network),
        ("the_network_namespace_of_another", join),
        ("a_dead_network_namespace_is_a_clear_error", join_nonsense),
        ("files_of_its_own", files),
        ("files_where_the_host_has_none_or_a_dangling_link", odd_files),
        ("a_missing_prepared_file_is_a_clear_error", missing_source),
        ("sysctls_of_its_own", sysctls),
        ("environment_directory_and_user", identity),
        ("no_descriptor_but_the_three", descriptors),
        ("a_lock_of_the_caller_is_not_kept_by_a_held_child", locks),
        ("signals_arrive_once", signals),
        ("a_signal_before_the_start_arrives_after_it", early_signal),
        ("a_stop_of_the_command_stops_rnet", stops),
        ("what_the_command_leaves_behind_is_ended", descendants),
        ("what_left_the_mounts_but_not_the_network_is_ended", escaped_descendant),
        ("the_command_dies_with_its_watcher", watcher_killed),
        ("the_command_of_another_user_dies_with_its_watcher", watcher_of_user_killed),
        ("a_held_process_that_is_dropped_is_gone", dropped),
        ("a_held_process_waits", held),
        ("a_log_instead_of_a_terminal", log),
        ("a_second_command_in_the_same_namespaces", exec_process),
        ("a_command_in_a_network_namespace_alone", exec_namespace),
        ("the_page_is_served_inside", page),
        ("a_taken_port_is_a_clear_error", page_taken),
        ("a_background_watcher_reports_and_goes_on", detached),
        ("a_background_watcher_reports_failure", detached_failure),
    ]
}

// ---- the program under test: a small `rnet run`, without a network ----

/// `container [KEY=VALUE]... -- COMMAND...`
fn container(words: &[String]) -> ExitCode {
    let split = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (options, command) = (&words[..split], words.get(split + 1..).unwrap_or_default());
    match run(&Options(options), command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("rnet: {error}");
            ExitCode::from(error.downcast_ref::<SpawnError>().map_or(125, SpawnError::code))
        }
    }
}

struct Options<'a>(&'a [String]);

impl<'a> Options<'a> {
    fn all(&self, key: &str) -> Vec<&'a str> {
        self.0.iter().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.all(key).first().copied()
    }
}

fn run(options: &Options<'_>, command: &[String]) -> Result<u8, Box<dyn Error>> {
    prepare_host(options)?;
    if let Some(target) = options.get("exec") {
        return run_exec(target, options, command);
    }
    let spec = spec(options, command)?;
    match options.get("mode") {
        Some("drop") => {
            let held = spawn(&spec)?;
            println!("{}", held.pid());
            Ok(0)
        }
        Some("hold") => {
            let held = spawn(&spec)?;
            println!("{}", held.pid());
            std::io::stdin().read_line(&mut String::new())?;
            Ok(held.release(None)?.wait())
        }
        Some("detach") => run_detached(&spec),
        _ => Ok(spawn(&spec)?.release(Some(&description()))?.wait()),
    }
}

fn run_detached(spec: &Spec) -> Result<u8, Box<dyn Error>> {
    match detach()? {
        Detached::Foreground(foreground) => match foreground.wait() {
            Ok(text) => {
                println!("{text}");
                Ok(0)
            }
            Err(Failure { code, line }) => {
                eprintln!("rnet: {line}");
                Ok(code)
            }
        },
        Detached::Watcher(watcher) => match spawn(spec).and_then(|held| held.release(None)) {
            Ok(running) => {
                watcher.started(&running.pid().to_string());
                Ok(running.wait())
            }
            Err(error) => {
                watcher.failed(&Failure { code: error.code(), line: error.to_string() });
                Ok(125)
            }
        },
    }
}

fn run_exec(target: &str, options: &Options<'_>, command: &[String]) -> Result<u8, Box<dyn Error>> {
    let target = match target.parse() {
        Ok(pid) => Target::process(pid)?,
        Err(_) => Target::Namespace(fs::File::open(target)?.into(), None),
    };
    let (program, args) = words(command);
    let directory = options.get("directory").map(PathBuf::from);
    let user = options.get("user").map(str::parse).transpose()?;
    Ok(exec::exec(&target, &exec::Command { program, args, directory, user, ..exec::Command::default() })?)
}

fn words(command: &[String]) -> (OsString, Vec<OsString>) {
    let mut words = command.iter().map(OsString::from);
    (words.next().unwrap_or_default(), words.collect())
}

fn spec(options: &Options<'_>, command: &[String]) -> Result<Spec, Box<dyn Error>> {
    let main = match words(command) {
        (program, _) if program.is_empty() => Main::Page,
        (program, args) => Main::Command { program, args },
    };
    let mut spec = Spec::new(main);
    spec.namespace = match options.get("network") {
        None => Namespace::New,
        Some("host") => Namespace::Host,
        Some(path) => Namespace::Join(fs::File::open(path)?.into()),
    };
    spec.hostname = options.get("hostname").map(str::to_owned);
    spec.environment = options
        .all("env")
        .iter()
        .filter_map(|e| e.split_once(':'))
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    spec.directory = options.get("directory").map(PathBuf::from);
    spec.user = options.get("user").map(str::parse).transpose()?;
    spec.files = options.get("files").map(|folder| Files {
        hosts: Path::new(folder).join("hosts"),
        resolv_conf: Path::new(folder).join("resolv.conf"),
        hostname: Path::new(folder).join("hostname"),
    });
    spec.sysctls = options.all("sysctl").iter().map(|sysctl| sysctl.parse()).collect::<Result<_, _>>()?;
    spec.output = options.get("log").map_or(Output::Inherit, |path| Output::Log(path.into()));
    Ok(spec)
}

/// A host with an odd /etc, in a mount namespace that ends with this process.
fn prepare_host(options: &Options<'_>) -> Result<(), Box<dyn Error>> {
    let Some(kind) = options.get("host-etc") else { return Ok(()) };
    let folder = options.get("files").ok_or("needs files")?;
    // SAFETY: CLONE_FILES is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let etc = Path::new(folder).join("etc");
    fs::create_dir(&etc)?;
    fs::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\n")?;
    match kind {
        "empty" => {}
        "dangling" => {
            fs::write(etc.join("hosts"), "host")?;
            std::os::unix::fs::symlink("/nowhere/at/all", etc.join("resolv.conf"))?;
        }
        "linked" => {
            fs::write(etc.join("hosts"), "host")?;
            fs::write(etc.join("real"), "host")?;
            std::os::unix::fs::symlink("real", etc.join("resolv.conf"))?;
        }
        _ => return Err("no such host".into()),
    }
    rustix::mount::mount_bind(&etc, "/etc")?;
    Ok(())
}

fn description() -> Description {
    let interface =
        Interface { name: "eth0".into(), addresses: vec!["10.1.2.3/24".into()], ..Interface::default() };
    Description { name: "shown".into(), interfaces: vec![interface], ..Description::default() }
}

// ---- helpers ----

type Result_ = Result<(), Failed>;

fn program(options: &[&str], command: &[&str]) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.arg("container").args(options).arg("--").args(command);
    program
}

fn finish(options: &[&str], command: &[&str]) -> Finished {
    program(options, command).stdin(Stdio::null()).output().unwrap()
}

/// What it wrote, where it ended well.
fn written(options: &[&str], command: &[&str]) -> Result<String, Failed> {
    let done = finish(options, command);
    if !done.status.success() {
        return Err(format!("{:?}: {}", done.status, String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}

fn shell(options: &[&str], script: &str) -> Result<String, Failed> {
    written(options, &["sh", "-c", script])
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result_ {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}").into()) }
}

/// A container in the background, with its output a line at a time. Ended with the test.
struct Background {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Background {
    fn start(options: &[&str], command: &[&str]) -> Self {
        // A process group of its own, as a shell gives to a job: in a group that nobody could wake (an orphaned one, as
        // where the tests run without a terminal) the kernel lets no ^Z stop anything.
        let mut program = program(options, command);
        std::os::unix::process::CommandExt::process_group(&mut program, 0);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that may be nobody's child here. Opened while it lives.
struct Watched(std::os::fd::OwnedFd);

impl Watched {
    fn new(pid: &str) -> Result<Self, Failed> {
        let pid = Pid::from_raw(pid.parse()?).ok_or("no process")?;
        Ok(Self(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
    }

    /// Ten seconds are a limit, not a wait: the kernel says when it ends.
    fn ends(&self) -> Result_ {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        same(poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit))?, 1)
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rnet-process-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with_files(name: &str) -> Self {
        let folder = Self::new(name);
        for (file, text) in
            [("hosts", "own hosts\n"), ("resolv.conf", "own resolv\n"), ("hostname", "own name\n")]
        {
            fs::write(folder.0.join(file), text).unwrap();
        }
        folder
    }

    fn option(&self, key: &str) -> String {
        format!("{key}={}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn namespace_of(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).map(|path| path.display().to_string()).unwrap_or_default()
}

// ---- the tests ----

fn exit_codes() -> Result_ {
    for (script, code) in
        [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
    {
        same(finish(&[], &["sh", "-c", script]).status.code(), Some(code))?;
    }
    Ok(())
}

fn failures() -> Result_ {
    let folder = Folder::new("failures");
    let plain = folder.0.join("plain");
    fs::write(&plain, "#!/bin/sh\n")?;
    let plain = plain.display().to_string();
    let cases = [
        (vec!["nosuch"], 127, "rnet: nosuch: command not found\n".to_owned()),
        (vec!["/no/such"], 127, "rnet: /no/such: command not found\n".to_owned()),
        (vec![plain.as_str()], 126, format!("rnet: {plain}: cannot be run: Permission denied\n")),
        (vec!["/tmp"], 126, "rnet: /tmp: cannot be run: Permission denied\n".to_owned()),
    ];
    for (command, code, line) in cases {
        let done = finish(&[], &command);
        same((done.status.code(), String::from_utf8(done.stderr)?), (Some(code), line))?;
    }
    let done = finish(&["directory=/no/such"], &["true"]);
    let line = "rnet: cannot change to the directory /no/such: No such file or directory\n".to_owned();
    same((done.status.code(), String::from_utf8(done.stderr)?), (Some(125), line))
}

fn hostname() -> Result_ {
    let before = rustix::system::uname().nodename().to_owned();
    same(shell(&["hostname=web-1"], "uname -n; echo $HOSTNAME")?.as_str(), "web-1\nweb-1\n")?;
    same(rustix::system::uname().nodename(), before.as_c_str())
}

fn network() -> Result_ {
    let script = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; ls /sys/class/net";
    same(shell(&[], script)?.as_str(), "lo\nlo\n")?;
    let found = shell(&[], "readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/uts")?;
    for (line, kind) in found.lines().zip(["net", "mnt", "uts"]) {
        same(line == namespace_of("self", kind), false)?;
    }
    let groups = "stat -f -c %T /sys/fs/cgroup";
    let outside = Command::new("sh").args(["-c", groups]).output()?;
    same(shell(&[], groups)?, String::from_utf8(outside.stdout)?)
}

fn host_network() -> Result_ {
    let found = shell(&["network=host"], "readlink /proc/self/ns/net /proc/self/ns/mnt")?;
    let (net, mnt) = found.trim_end().split_once('\n').ok_or("two lines")?;
    same(net.to_owned(), namespace_of("self", "net"))?;
    same(mnt == namespace_of("self", "mnt"), false)
}

fn join() -> Result_ {
    let mut first = Background::start(&[], &["sh", "-c", "readlink /proc/self/ns/net; echo $$; read _"]);
    let (namespace, pid) = (first.line(), first.line());
    let option = format!("network=/proc/{pid}/ns/net");
    same(shell(&[&option], "readlink /proc/self/ns/net")?.trim_end(), namespace.as_str())
}

fn join_nonsense() -> Result_ {
    let done = finish(&["network=/etc/passwd"], &["true"]);
    let line = "rnet: cannot join the other container's network namespace: Invalid argument\n";
    same((done.status.code(), std::str::from_utf8(&done.stderr)?), (Some(125), line))
}

fn files() -> Result_ {
    let folder = Folder::with_files("files");
    let before = fs::read("/etc/resolv.conf")?;
    let script = "cat /etc/hosts /etc/resolv.conf /etc/hostname";
    same(shell(&[&folder.option("files")], script)?.as_str(), "own hosts\nown resolv\nown name\n")?;
    same(fs::read("/etc/resolv.conf")?, before)
}

fn odd_files() -> Result_ {
    for (host, expected) in [
        ("empty", "own hosts\nown resolv\nhostname passwd "),
        ("dangling", "own hosts\nown resolv\nhostname passwd "),
        ("linked", "own hosts\nown resolv\nhostname passwd "),
    ] {
        let folder = Folder::with_files(&format!("odd-{host}"));
        let script = "cat /etc/hosts /etc/resolv.conf; \
            for f in hostname passwd; do [ $f = hostname ] && printf 'hostname ' || { [ -s /etc/$f ] && printf 'passwd '; }; done";
        let found = shell(&[&folder.option("files"), &format!("host-etc={host}")], script)?;
        same(found.as_str(), expected)?;
        // The host has no more than it had.
        let mut left: Vec<_> =
            fs::read_dir(folder.0.join("etc"))?.flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        let expected: &[&str] = match host {
            "empty" => &["passwd"],
            "dangling" => &["hosts", "passwd", "resolv.conf"],
            _ => &["hosts", "passwd", "real", "resolv.conf"],
        };
        same(left, expected.iter().map(OsString::from).collect())?;
    }
    Ok(())
}

fn missing_source() -> Result_ {
    let done = finish(&["files=/no/such"], &["true"]);
    let line = "rnet: cannot read /no/such/hosts: No such file or directory\n";
    same((done.status.code(), std::str::from_utf8(&done.stderr)?), (Some(125), line))
}

fn sysctls() -> Result_ {
    let read = "cat /proc/sys/net/ipv4/ip_default_ttl";
    let outside = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")?;
    same(shell(&["sysctl=net.ipv4.ip_default_ttl=77"], read)?.as_str(), "77\n")?;
    same(fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl")?, outside)?;
    let done = finish(&["sysctl=net.ipv4.nosuch=1"], &["true"]);
    let line = "rnet: cannot set the sysctl net.ipv4.nosuch=1: No such file or directory\n";
    same((done.status.code(), std::str::from_utf8(&done.stderr)?), (Some(125), line))
}

fn identity() -> Result_ {
    let options = ["env=COLOUR:blue", "directory=/usr", "user=1234:2345"];
    let script = "echo $COLOUR; pwd; id -u; id -g; id -G; grep Cap[EP] /proc/self/status | cut -f2 | sort -u";
    same(shell(&options, script)?.as_str(), "blue\n/usr\n1234\n2345\n2345\n0000000000000000\n")?;
    // A folder of PATH that the user may not enter hides nothing: the command is not there.
    let closed = Folder::new("closed");
    fs::set_permissions(&closed.0, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let path = format!("env=PATH:{}:/bin:/usr/bin", closed.0.display());
    same(finish(&["user=1234", &path], &["nosuch"]).status.code(), Some(127))?;
    same(shell(&["user=54321"], "id -g")?.as_str(), "54321\n")
}

fn descriptors() -> Result_ {
    let folder = Folder::new("descriptors");
    let open = fs::File::create(folder.0.join("open"))?;
    // A descriptor that a careless caller let through to rnet does not reach the command.
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty())?;
    let found = written(&[], &["ls", "/proc/self/fd"])?;
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::CLOEXEC)?;
    // 3 is the folder that ls reads.
    same(found.as_str(), "0\n1\n2\n3\n")
}

fn locks() -> Result_ {
    let folder = Folder::new("locks");
    let lock = fs::File::create(folder.0.join("lock"))?;
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
    let mut held = Background::start(&["mode=hold"], &["true"]);
    let pid = held.line();
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::CLOEXEC)?;
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|e| fs::read_link(e.path()).ok())
        .collect();
    same(open.contains(&folder.0.join("lock")), false)
}

/// Counts in the shell, and ends on USR2. The wait is in `sleep`, which signals do not end.
const COUNT: &str = "n=0; trap 'n=$((n+1)); echo got $n' TERM; trap 'exit $n' USR2; echo ready; \
    while :; do read line; done";

fn signals() -> Result_ {
    let mut background = Background::start(&[], &["bash", "-c", COUNT]);
    same(background.line().as_str(), "ready")?;
    background.signal(Signal::TERM);
    same(background.line().as_str(), "got 1")?;
    background.signal(Signal::TERM);
    same(background.line().as_str(), "got 2")?;
    background.signal(Signal::USR2);
    same(background.child.wait()?.code(), Some(2))
}

fn early_signal() -> Result_ {
    let mut background = Background::start(&["mode=hold"], &["sleep", "60"]);
    background.line();
    background.signal(Signal::TERM);
    background.child.stdin.take().ok_or("no input")?.write_all(b"go\n")?;
    same(background.child.wait()?.code(), Some(143))
}

fn stops() -> Result_ {
    let mut background = Background::start(&[], &["sh", "-c", "echo $$; kill -TSTP $$; exit 5"]);
    let pid = background.line();
    let rnet = Pid::from_child(&background.child);
    let stopped = rustix::process::waitpid(Some(rnet), rustix::process::WaitOptions::UNTRACED)?;
    same(stopped.and_then(|(_, status)| status.stopping_signal()), Some(libc::SIGSTOP))?;
    same(fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") T "), true)?;
    background.signal(Signal::CONT);
    same(background.child.wait()?.code(), Some(5))
}

fn descendants() -> Result_ {
    // One that is orphaned while the command runs, one in a session of its own, one deep below.
    let script = "setsid sh -c 'sleep 1000 & echo $!; exec sleep 1001' & \
        sh -c 'sleep 1002 & echo $!'; sleep 1003 & echo $!; exit 4";
    let mut background =
        Background::start(&[], &["bash", "-c", &format!("{{ {script}; }} & wait; read _; exit 4")]);
    let watched: Vec<Watched> = (0..3).map(|_| Watched::new(&background.line())).collect::<Result<_, _>>()?;
    same(background.code().is_some(), true)?;
    watched.iter().try_for_each(Watched::ends)
}

fn escaped_descendant() -> Result_ {
    let script = "nsenter --mount=/proc/$PPID/ns/mnt setsid sh -c 'echo $$; exec sleep 1000' || echo none & read _; exit 4";
    let mut background = Background::start(&[], &["bash", "-c", script]);
    let escaped = Watched::new(&background.line())?;
    same(background.code(), Some(4))?;
    escaped.ends()
}

fn watcher_killed() -> Result_ {
    dies_with_watcher(&[])
}

fn watcher_of_user_killed() -> Result_ {
    dies_with_watcher(&["user=1234:1234"])
}

fn dies_with_watcher(options: &[&str]) -> Result_ {
    let mut background = Background::start(options, &["sh", "-c", "echo $$; exec sleep 1000"]);
    let command = Watched::new(&background.line())?;
    background.signal(Signal::KILL);
    same(background.child.wait()?.signal(), Some(9))?;
    command.ends()
}

fn dropped() -> Result_ {
    let pid = written(&["mode=drop"], &["true"])?;
    same(Path::new(&format!("/proc/{}", pid.trim_end())).exists(), false)
}

fn held() -> Result_ {
    let mut background = Background::start(&["mode=hold"], &["sh", "-c", "exit 6"]);
    let pid = background.line();
    same(namespace_of(&pid, "net") == namespace_of("self", "net"), false)?;
    same(background.child.try_wait()?, None)?;
    same(background.code(), Some(6))
}

fn log() -> Result_ {
    let folder = Folder::new("log");
    let path = folder.0.join("log");
    fs::write(&path, "before\n")?;
    let option = format!("log={}", path.display());
    same(
        shell(
            &[&option],
            "cat; echo out; echo err >&2; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leads",
        )?
        .as_str(),
        "",
    )?;
    same(fs::read_to_string(&path)?.as_str(), "before\nout\nerr\nleads\n")
}

fn exec_process() -> Result_ {
    let folder = Folder::with_files("exec");
    let options = ["hostname=inside", &folder.option("files")];
    let mut first = Background::start(&options, &["sh", "-c", "echo $$; read _"]);
    let option = format!("exec={}", first.line());
    let script = "uname -n; cat /etc/hosts; ls /sys/class/net; pwd";
    let here = std::env::current_dir()?.display().to_string();
    same(shell(&[&option], script)?, format!("inside\nown hosts\nlo\n{here}\n"))?;
    same(shell(&[&option, "directory=/usr", "user=7:8"], "pwd; id -u; id -g")?.as_str(), "/usr\n7\n8\n")?;
    same(finish(&[&option], &["sh", "-c", "exit 9"]).status.code(), Some(9))?;
    same(finish(&[&option], &["nosuch"]).status.code(), Some(127))
}

fn exec_namespace() -> Result_ {
    let mut first = Background::start(&["hostname=inside"], &["sh", "-c", "echo $$; read _"]);
    let option = format!("exec=/proc/{}/ns/net", first.line());
    let outside = rustix::system::uname().nodename().to_str()?.to_owned();
    same(shell(&[&option], "uname -n; ls /sys/class/net")?, format!("{outside}\nlo\n"))
}

/// In a namespace that plays the host, so that port 80 is free whatever runs here.
fn page() -> Result_ {
    let mut background = Background::start(&["mode=page"], &[]);
    // The page's process is the container's; its namespace has no way in but to be entered.
    let reply = ask_inside(&mut background)?;
    same(reply.contains("10.1.2.3/24") && reply.contains("container  shown"), true)?;
    background.signal(Signal::TERM);
    same(background.child.wait()?.code(), Some(143))
}

fn ask_inside(background: &mut Background) -> Result<String, Failed> {
    let watcher = background.child.id();
    let page = loop {
        // The watcher's only child; it listens from the moment that the watcher waits, so a refusal means "not yet".
        if let Some(pid) = child_of(watcher) {
            break pid;
        }
        std::thread::yield_now();
    };
    loop {
        let namespace = fs::File::open(format!("/proc/{page}/ns/net"))?;
        let asked = std::thread::spawn(move || -> std::io::Result<String> {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )?;
            up_loopback()?;
            let mut stream = TcpStream::connect("127.0.0.1:80")?;
            stream.write_all(b"GET /text HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        });
        match asked.join().map_err(|_| "the asking thread died")? {
            Ok(reply) => return Ok(reply),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::thread::yield_now(),
            Err(_) if background.child.try_wait()?.is_none() && child_of(watcher).is_some() => {
                std::thread::yield_now()
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn child_of(parent: u32) -> Option<u32> {
    let numbers =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut own = numbers.filter(|pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|ppid| ppid.trim() == parent.to_string()))
    });
    own.find(|pid| namespace_of(&pid.to_string(), "net") != namespace_of("self", "net"))
}

/// The loopback of the namespace that this thread is in, which is a container's.
fn up_loopback() -> std::io::Result<()> {
    let done = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if done.success() { Ok(()) } else { Err(std::io::Error::other("ip link set lo up")) }
}

fn page_taken() -> Result_ {
    let mut first = Background::start(&["mode=page"], &[]);
    ask_inside(&mut first)?;
    let page = child_of(first.child.id()).ok_or("no page")?;
    let done = finish(&[&format!("network=/proc/{page}/ns/net")], &[]);
    let line = "rnet: cannot serve the page on port 80: Address already in use\n";
    same((done.status.code(), std::str::from_utf8(&done.stderr)?), (Some(125), line))
}

fn detached() -> Result_ {
    let folder = Folder::new("detached");
    let log = format!("log={}", folder.0.join("log").display());
    let pid = shell(&["mode=detach", &log], "echo up; exec sleep 1000")?;
    let command = Watched::new(pid.trim_end())?;
    let pid = Pid::from_raw(pid.trim_end().parse()?).ok_or("no process")?;
    kill_process(pid, Signal::TERM)?;
    command.ends()
}

fn detached_failure() -> Result_ {
    let done = finish(&["mode=detach", "log=/dev/null"], &["nosuch"]);
    let line = "rnet: nosuch: command not found\n";
    same((done.status.code(), std::str::from_utf8(&done.stderr)?), (Some(127), line))
}
