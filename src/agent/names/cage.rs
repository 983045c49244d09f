//! What the part may still do once it serves: read the records below one folder, speak over the sockets of a name server,
//! and nothing else. Landlock (`landlock(7)`) keeps it from files and ports, seccomp (`seccomp(2)`) from calls that it
//! never makes. Where the kernel has one of them only, that one holds; and it is said.

use std::{collections::BTreeMap, path::Path};

use landlock::{
    ABI, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::Serialize;

/// The newest rules that were thought through here; an older kernel has fewer of them.
const RULES: ABI = ABI::V6;
/// The one port of name servers.
const PORT: u16 = 53;

/// What holds this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cage {
    /// Files and ports.
    pub landlock: String,
    /// Calls.
    pub seccomp: String,
}

impl Cage {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.landlock == HOLDS && self.seccomp == HOLDS
    }
}

const HOLDS: &str = "holds";

/// Locks the calling thread in, for good: it has no other thread, and none that it could begin.
#[must_use]
pub fn lock(readable: &Path) -> Cage {
    let landlock = match files_and_ports(readable) {
        Ok(RulesetStatus::FullyEnforced) => HOLDS.to_owned(),
        Ok(RulesetStatus::PartiallyEnforced) => "holds in part: the kernel is older than 6.12".to_owned(),
        Ok(RulesetStatus::NotEnforced) => "missing: the kernel has none (Linux 5.13)".to_owned(),
        Err(reason) => format!("missing: {reason}"),
    };
    let seccomp = match calls() {
        Ok(()) => HOLDS.to_owned(),
        Err(reason) => format!("missing: {reason}"),
    };
    Cage { landlock, seccomp }
}

fn files_and_ports(readable: &Path) -> Result<RulesetStatus, String> {
    let failed = |error: landlock::RulesetError| error.to_string();
    let folder = PathFd::new(readable).map_err(|error| error.to_string())?;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(<AccessFs as landlock::Access>::from_all(RULES))
        .and_then(|rules| rules.handle_access(<AccessNet as landlock::Access>::from_all(RULES)))
        .and_then(|rules| rules.scope(<Scope as landlock::Access>::from_all(RULES)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(folder, AccessFs::ReadFile | AccessFs::ReadDir)))
        .and_then(|rules| rules.add_rule(NetPort::new(PORT, AccessNet::BindTcp | AccessNet::ConnectTcp)))
        .map_err(failed)?;
    ruleset.restrict_self().map(|status| status.ruleset).map_err(failed)
}

/// A call that is on no list ends the process at once, and the agent says so and starts another.
fn calls() -> Result<(), String> {
    let architecture = std::env::consts::ARCH.try_into();
    let architecture = architecture.map_err(|_| "it is not known for this processor".to_owned())?;
    let failed = |error: seccompiler::BackendError| error.to_string();
    let any = |calls: &[i64]| calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    // Of two filters the stricter answer counts: the second lets these pass, and the first refuses them.
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let refuse = SeccompFilter::new(any(REFUSED), SeccompAction::Allow, refused, architecture);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = any(&[PLAIN, REFUSED].concat());
    for (call, argument, allowed) in bounded() {
        let rule = |condition| SeccompRule::new(vec![condition]);
        let conditions = allowed.into_iter().map(|(operator, value)| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).and_then(rule)
        });
        rules.insert(call, conditions.collect::<Result<_, _>>().map_err(failed)?);
    }
    let allow = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture);
    for filter in [refuse, allow] {
        let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(failed)?;
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Calls that fail: a record that is damaged is set aside by others, and what else the C library may try on its way can
/// do without.
const REFUSED: &[i64] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_prlimit64,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sched_getaffinity,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

/// Calls that may be made with any words: memory, time, the files that are open, the sockets.
const PLAIN: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // musl looks at files by the old calls where there are such.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Whatever an open file could be changed by: `O_ACCMODE`, `O_CREAT`, `O_TRUNC`, `O_TMPFILE`.
const WRITING: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// How a word may be: in one of these ways.
type Allowed = Vec<(SeccompCmpOp, u64)>;

/// Calls that may be made with some words only: the call, which of its words, and how that must be.
// Requests of ioctl are of another type with musl.
#[allow(clippy::unnecessary_cast)]
fn bounded() -> Vec<(i64, u8, Allowed)> {
    let is = |values: &[u64]| values.iter().map(|value| (SeccompCmpOp::Eq, *value)).collect::<Allowed>();
    let without = |bits: u64| vec![(SeccompCmpOp::MaskedEq(bits), 0)];
    let families = is(&[libc::AF_INET as u64, libc::AF_INET6 as u64]);
    // One that panics ends itself by a signal to itself.
    let own = is(&[u64::from(std::process::id())]);
    let mut list = vec![
        (libc::SYS_tgkill, 0, own.clone()),
        (libc::SYS_tkill, 0, own),
        (libc::SYS_socket, 0, families),
        (libc::SYS_ioctl, 1, is(&[libc::SIOCGIFINDEX as u64, libc::FIONBIO as u64])),
        (libc::SYS_openat, 2, without(WRITING)),
        (libc::SYS_mmap, 2, without(EXECUTABLE)),
        (libc::SYS_mprotect, 2, without(EXECUTABLE)),
    ];
    // musl opens by the old call where there is one.
    #[cfg(target_arch = "x86_64")]
    list.push((libc::SYS_open, 1, without(WRITING)));
    list
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::process::ExitStatusExt as _, process::Command};

    use super::*;

    const ATTEMPT: &str = "RNET_TEST_ATTEMPT";

    /// Tries one thing in a process of its own, which is this test again.
    fn attempt(what: &str) -> std::process::ExitStatus {
        let name = "agent::names::cage::tests::what_it_does_not_need_it_cannot_do";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--test-threads=1"]).env(ATTEMPT, what);
        command.output().unwrap().status
    }

    fn is_refused<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES))
    }

    /// Whether it went as it should; calls that are on no list end the process before it can say.
    fn try_it(what: &str) -> bool {
        let folder = std::env::temp_dir().join(format!("rnet-cage-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("record"), "here").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = folder.join("socket");
        let _unix = std::os::unix::net::UnixListener::bind(&unix).unwrap();
        let path = what.strip_prefix("landlock ").map(|_| files_and_ports(&folder).unwrap());
        if path.is_none() {
            assert!(lock(&folder).is_whole());
        }
        match what {
            "read" => fs::read(folder.join("record")).unwrap() == b"here",
            "set aside" => fs::rename(folder.join("record"), folder.join("damaged"))
                .is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)),
            "list" => fs::read_dir(&folder).unwrap().count() == 2,
            "udp" => std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
            "read elsewhere" => {
                is_refused(fs::read("/etc/hostname")) && is_refused(fs::read("/proc/self/maps"))
            }
            "list elsewhere" => is_refused(fs::read_dir("/").map(|_| ())),
            "connect elsewhere" => is_refused(std::net::TcpStream::connect(listener.local_addr().unwrap())),
            "landlock write" => is_refused(fs::write(folder.join("record"), "other")),
            "landlock make" => is_refused(fs::create_dir(folder.join("other"))),
            "landlock remove" => is_refused(fs::remove_file(folder.join("record"))),
            "landlock execute" => is_refused(Command::new("/bin/true").spawn()),
            "write" => fs::write(folder.join("record"), "other").is_err(),
            "make" => fs::create_dir(folder.join("other")).is_err(),
            "remove" => fs::remove_file(folder.join("record")).is_err(),
            "execute" => Command::new("/bin/true").spawn().is_err(),
            "unix" => std::os::unix::net::UnixStream::connect(&unix).is_err(),
            "signal" => rustix::process::test_kill_process(rustix::process::Pid::INIT).is_err(),
            "thread" => std::thread::Builder::new().spawn(|| ()).is_err(),
            "trace" => {
                rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).is_err()
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_it_does_not_need_it_cannot_do() {
        if let Ok(what) = std::env::var(ATTEMPT) {
            let good = try_it(&what);
            std::process::exit(i32::from(!good));
        }
        for what in
            ["read", "list", "set aside", "udp", "read elsewhere", "list elsewhere", "connect elsewhere"]
        {
            assert_eq!(attempt(what).code(), Some(0), "{what}");
        }
        for what in ["landlock write", "landlock make", "landlock remove", "landlock execute"] {
            assert_eq!(attempt(what).code(), Some(0), "{what}");
        }
        for what in ["write", "make", "remove", "execute", "unix", "signal", "thread", "trace"] {
            assert_eq!(attempt(what).signal(), Some(libc::SIGSYS), "{what}");
        }
        for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("rnet-cage-") {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
    }
}
