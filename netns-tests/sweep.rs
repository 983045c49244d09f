//! The sweep: a command is killed, or one of its calls fails, at the first, second, third … time that it makes each
//! call that could matter, until it gets through unharmed. After each, a second container attaches and has traffic, the
//! same command succeeds, `gc` finishes, an audit that asks nothing of rnet finds everything in agreement, and when all
//! is removed the host is as it was.
//!
//! `RNET_SWEEP=all cargo test --test netns -- sweep::` lets every call fail in every way with every verb, and kills at
//! opens for reading too; without it verbs that differ little from others fail in one way a call.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use crate::{audit, harness::tests, lab::Lab};

tests! {
    killed_creates,
    killed_connects,
    killed_disconnects,
    killed_removals,
    killed_prunes,
    killed_repairs,
    killed_collections,
    killed_runs,
    killed_detached_runs,
    killed_stops,
    failing_creates,
    failing_connects,
    failing_disconnects,
    failing_removals,
    failing_prunes,
    failing_repairs,
    failing_collections,
    failing_runs,
    failing_detached_runs,
    failing_stops,
}

/// Every call with which rnet writes: to the kernel, to its records, to other processes.
pub const WRITES: [&str; 19] = [
    "sendto",
    "sendmsg",
    "write",
    "pwrite64",
    "rename",
    "renameat2",
    "openat",
    "unlink",
    "unlinkat",
    "linkat",
    "mkdir",
    "rmdir",
    "flock",
    "clone",
    "fork",
    "setns",
    "unshare",
    "mount",
    "execve",
];

/// Calls that can fail, and how; the first way is the one that is always tried. Not setns: the way back into one's own
/// namespace does not fail, and a thread that could not come back would have to end.
pub const FAILURES: [(&str, &[&str]); 12] = [
    ("sendto", &["ENOBUFS", "EPERM", "ENOMEM"]),
    ("recvfrom", &["ENOMEM", "ENOBUFS"]),
    ("write", &["ENOSPC", "EIO"]),
    ("pwrite64", &["ENOSPC", "EIO"]),
    ("openat", &["EMFILE", "EPERM", "EIO"]),
    ("linkat", &["ENOSPC", "EPERM"]),
    ("rename,renameat2", &["EIO", "ENOSPC"]),
    ("unlink", &["EIO", "EPERM"]),
    ("mkdir", &["ENOSPC", "EPERM"]),
    ("socket", &["EMFILE", "ENOMEM"]),
    ("fork,clone", &["EAGAIN", "ENOMEM"]),
    ("mount", &["EPERM", "ENOMEM"]),
];

/// Each of so many calls fails in any case.
const EACH: usize = 20;
/// No sweep needs more; one that does not end would be a fault of its own.
const MOST: usize = 400;

/// A command that is swept over.
struct Verb {
    words: &'static [&'static str],
    /// Prepares the host.
    before: fn(&Lab),
    /// What must hold where the command said that it was done.
    done: fn(&Lab),
    /// What the same command may say the second time, where it cannot be done twice.
    again: &'static [&'static str],
}

const CREATE: Verb = Verb {
    words: &["network", "create", "--subnet", "10.81.0.0/24", "blue"],
    before: |_| (),
    done: |lab| drop(lab.rn("network inspect blue").ok()),
    again: &["network with name blue already exists"],
};

const CONNECT: Verb = Verb {
    words: &["network", "connect", "-p", "8081:80", "blue", "web"],
    before: create_blue,
    done: |lab| drop(lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&lab.known("web"))),
    again: &["container web is already connected to network blue"],
};

const DISCONNECT: Verb = Verb {
    words: &["network", "disconnect", "blue", "web"],
    before: connect_web,
    done: |lab| lab.namespace_is_fresh(&lab.known("web")),
    again: &["container web is not connected to network blue"],
};

const REMOVE: Verb = Verb {
    words: &["network", "rm", "-f", "blue"],
    before: connect_web,
    done: |lab| lab.namespace_is_fresh(&lab.known("web")),
    again: &[],
};

const PRUNE: Verb = Verb {
    words: &["network", "prune", "-f"],
    before: |lab| {
        create_blue(lab);
        lab.rn("network create --subnet 10.82.0.0/24 red").ok();
    },
    done: |lab| drop(lab.rn("network inspect red").exits(1)),
    again: &[],
};

const REPAIR: Verb = Verb {
    words: &["repair"],
    before: |lab| {
        connect_web(lab);
        lab.sh("nft flush ruleset; ip link delete $(ip -br link show type bridge | cut -d' ' -f1)").ok();
    },
    done: |lab| drop(lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&lab.known("web"))),
    again: &[],
};

/// A container's namespace is gone, and a killed connect left its record.
const COLLECT: Verb = Verb {
    words: &["gc"],
    before: |lab| {
        create_blue(lab);
        lab.sh("ip netns add gone").ok();
        lab.rn("network connect -p 8085:80 blue gone").ok();
        lab.sh("ip netns del gone").ok();
        lab.sh("ip netns add half").ok();
        drop(lab.strace(
            &["-e", "trace=linkat", "-e", "inject=renameat2:signal=SIGKILL"],
            &["network", "connect", "-p", "8086:80", "blue", "half"],
        ));
        lab.sh("ip netns del half").ok();
    },
    done: |lab| drop(lab.rn("gc --dry-run").ok().prints("")),
    again: &[],
};

const RUN: Verb = Verb {
    words: &["run", "--name", "one", "-p", "8083:80", "--", "true"],
    before: create_blue,
    done: |_| (),
    again: &[],
};

/// Its command ends soon: `strace` waits for everything that it follows.
const RUN_DETACHED: Verb = Verb {
    words: &[
        "run",
        "-d",
        "--rm",
        "--name",
        "one",
        "--network",
        "blue",
        "-p",
        "8083:80",
        "--",
        "sleep",
        "0.05",
    ],
    before: create_blue,
    done: |_| (),
    again: &["container one already exists"],
};

const STOP: Verb = Verb {
    words: &["stop", "-t", "0", "one"],
    before: |lab| {
        create_blue(lab);
        lab.rn("run -d --name one --network blue -p 8083:80 -- sleep 1000").ok();
    },
    done: |lab| assert!(!lab.rn("ps --format {{.Names}}").ok().stdout().contains("one")),
    again: &[],
};

fn create_blue(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
}

fn connect_web(lab: &Lab) {
    create_blue(lab);
    lab.rn("network connect -p 8081:80 blue web").ok();
}

/// The host of a sweep: a container with a server, another one, and a server on the LAN.
fn prepare(lab: &Lab) {
    let web = lab.namespace("web");
    lab.namespace("db");
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
}

impl Verb {
    /// Kills at each of the calls one after the other.
    fn kill(&self, lab: &Lab) {
        prepare(lab);
        let mut kills = 0;
        let mut each = Vec::new();
        for call in WRITES {
            let before = kills;
            let some = if call == "openat" && !all() { Some(self.writing_opens(lab)) } else { None };
            for when in (1..MOST).filter(|when| some.as_ref().is_none_or(|some| some.contains(when))) {
                let inject = format!("inject={call}:signal=SIGKILL:when={when}");
                let output = self.try_with(lab, call, &inject);
                if !output.was_killed() && !was_hit(lab, "killed by SIGKILL") {
                    break;
                }
                kills += 1;
            }
            each.push(format!("{call} {}", kills - before));
        }
        println!("sweep: rnet {}: {kills} kills, nothing left ({})", self.words.join(" "), each.join(", "));
        // Who waits for a watcher makes the fewest calls, and more or fewer of them as that takes.
        assert!(kills >= 5, "`rnet {}` was killed {kills} times only", self.words.join(" "));
    }

    /// Which opens, counted in each process, are for writing: a kill at one for reading is a kill at the call before.
    fn writing_opens(&self, lab: &Lab) -> BTreeSet<usize> {
        (self.before)(lab);
        lab.strace(&["-e", "trace=openat"], self.words).no_panic();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut writing = BTreeSet::new();
        for line in std::fs::read_to_string("/run/lab/strace").unwrap_or_default().lines() {
            if !line.contains("openat(") {
                continue;
            }
            let process = line.split(' ').next().unwrap_or_default().to_owned();
            let count = counts.entry(process).or_default();
            *count += 1;
            if ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag)) {
                writing.insert(*count);
            }
        }
        self.recovers(lab, "nothing at all");
        writing
    }

    /// Lets each call fail one time after the other.
    fn fail(&self, lab: &Lab, ways: Ways) {
        prepare(lab);
        let mut failures = 0;
        let mut each = Vec::new();
        for (call, errors) in FAILURES {
            let before = failures;
            let all = matches!(ways, Ways::All) || all();
            for error in errors.iter().take(if all { errors.len() } else { 1 }) {
                // Of calls that are made often every third is tried, unless all are asked for.
                let often = (EACH..MOST).step_by(if all { 1 } else { 3 });
                for when in (1..EACH).chain(often) {
                    let inject = format!("inject={call}:error={error}:when={when}");
                    let output = self.try_with(lab, call, &inject);
                    if !was_hit(lab, "INJECTED") {
                        break;
                    }
                    // Where it is the very words that could not be written, there are none.
                    let mute = was_hit(lab, "write(2,.*INJECTED");
                    assert!(
                        output.succeeded() || mute || !output.stderr().is_empty(),
                        "a failure in silence: {output}"
                    );
                    failures += 1;
                }
            }
            each.push(format!("{call} {}", failures - before));
        }
        println!(
            "sweep: rnet {}: {failures} failures, nothing left ({})",
            self.words.join(" "),
            each.join(", ")
        );
        assert!(failures >= 10, "`rnet {}` met {failures} failures only", self.words.join(" "));
    }

    /// One try, and everything that must hold after it.
    fn try_with(&self, lab: &Lab, call: &str, inject: &str) -> crate::command::Output {
        (self.before)(lab);
        let output = lab.strace(&["-e", &format!("trace={call}"), "-e", inject], self.words);
        output.no_panic();
        if output.succeeded() {
            (self.done)(lab);
        }
        self.recovers(lab, inject);
        output
    }

    fn recovers(&self, lab: &Lab, inject: &str) {
        let known = lab.rn("network inspect blue").succeeded();
        if !known {
            create_blue(lab);
        }
        lab.rn("network connect blue db").ok();
        lab.tcp(&lab.known("db"), "192.0.2.2:9000").answered_by(&lab.lan);
        let again = lab.rnet(self.words);
        let is_refused = || self.again.iter().any(|line| again.stderr().contains(line));
        assert!(again.succeeded() || is_refused(), "after {inject}: {again}");
        (self.done)(lab);
        lab.rn("gc").ok();
        lab.rn("rm -f one").no_panic();
        audit::agrees(lab);
        lab.rn("check").ok().prints("");
        lab.rn("network rm -f blue red").no_panic();
        lab.is_clean();
    }
}

/// Whether everything was asked for.
pub fn all() -> bool {
    env::var("RNET_SWEEP").is_ok_and(|value| value == "all")
}

/// Whether `strace` says that it did something.
pub fn was_hit(lab: &Lab, word: &str) -> bool {
    lab.sh(&format!("grep -c '{word}' /run/lab/strace || true")).text() != "0"
}

/// In how many ways a call fails.
enum Ways {
    One,
    All,
}

fn killed_creates(lab: &Lab) {
    CREATE.kill(lab);
}

fn killed_connects(lab: &Lab) {
    CONNECT.kill(lab);
}

fn killed_disconnects(lab: &Lab) {
    DISCONNECT.kill(lab);
}

fn killed_removals(lab: &Lab) {
    REMOVE.kill(lab);
}

fn killed_prunes(lab: &Lab) {
    PRUNE.kill(lab);
}

fn killed_repairs(lab: &Lab) {
    REPAIR.kill(lab);
}

fn killed_collections(lab: &Lab) {
    COLLECT.kill(lab);
}

fn killed_runs(lab: &Lab) {
    RUN.kill(lab);
}

fn killed_detached_runs(lab: &Lab) {
    RUN_DETACHED.kill(lab);
}

fn killed_stops(lab: &Lab) {
    STOP.kill(lab);
}

fn failing_creates(lab: &Lab) {
    CREATE.fail(lab, Ways::One);
}

fn failing_connects(lab: &Lab) {
    CONNECT.fail(lab, Ways::All);
}

fn failing_disconnects(lab: &Lab) {
    DISCONNECT.fail(lab, Ways::All);
}

fn failing_removals(lab: &Lab) {
    REMOVE.fail(lab, Ways::One);
}

fn failing_prunes(lab: &Lab) {
    PRUNE.fail(lab, Ways::One);
}

fn failing_repairs(lab: &Lab) {
    REPAIR.fail(lab, Ways::One);
}

fn failing_collections(lab: &Lab) {
    COLLECT.fail(lab, Ways::One);
}

fn failing_runs(lab: &Lab) {
    RUN.fail(lab, Ways::One);
}

fn failing_detached_runs(lab: &Lab) {
    RUN_DETACHED.fail(lab, Ways::One);
}

fn failing_stops(lab: &Lab) {
    STOP.fail(lab, Ways::One);
}
