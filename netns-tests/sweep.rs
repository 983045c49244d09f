//! The sweep: a command is killed, or one of its calls fails, at the first, second, third … time that it makes each
//! call that could matter, until it gets through unharmed. After each, the host must be as if the command had not been
//! tried, or can be made so by the next one.

use std::cell::Cell;

use crate::{harness::tests, lab::Lab};

tests! {
    killed_creates,
    killed_connects,
    killed_disconnects,
    killed_removals,
    killed_runs,
    failing_creates,
    failing_connects,
    failing_disconnects,
    failing_removals,
}

/// Every call with which rnet writes: to the kernel, to its records, to other processes.
const WRITES: [&str; 18] = [
    "sendto", "sendmsg", "write", "pwrite64", "rename", "openat", "unlink", "unlinkat", "linkat", "mkdir",
    "rmdir", "flock", "clone", "fork", "setns", "unshare", "mount", "execve",
];

/// Calls that can fail, and how. Not setns: the way back into one's own namespace does not fail, and a thread that could
/// not come back would have to end.
const FAILURES: [(&str, &[&str]); 11] = [
    ("sendto", &["ENOBUFS"]),
    ("recvfrom", &["ENOMEM"]),
    ("write", &["ENOSPC", "EIO"]),
    ("pwrite64", &["ENOSPC"]),
    ("openat", &["EMFILE"]),
    ("linkat", &["ENOSPC"]),
    ("rename", &["EIO"]),
    ("unlink", &["EIO"]),
    ("mkdir", &["ENOSPC"]),
    ("socket", &["EMFILE"]),
    ("fork,clone", &["EAGAIN"]),
];

/// No sweep needs more; one that does not end would be a fault of its own.
const MOST: usize = 300;

/// A command, and what surrounds each try of it.
struct Sweep<'a> {
    lab: &'a Lab,
    words: &'a [&'a str],
    /// Prepares the host.
    before: &'a dyn Fn(),
    /// Shows that all is well, and takes back what `before` made; `true` where the command said that it was done.
    after: &'a dyn Fn(bool),
}

impl Sweep<'_> {
    /// Kills at each of the calls one after the other; returns how many kills there were.
    fn kill(&self) -> usize {
        let mut kills = 0;
        for call in WRITES {
            for when in 1..MOST {
                (self.before)();
                let inject = format!("inject={call}:signal=SIGKILL:when={when}");
                let output = self.lab.strace(&["-e", &format!("trace={call}"), "-e", &inject], self.words);
                output.no_panic();
                (self.after)(output.succeeded());
                self.lab.is_clean();
                if !output.was_killed() {
                    break;
                }
                kills += 1;
            }
        }
        assert!(kills >= 10, "`rnet {}` was killed {kills} times only", self.words.join(" "));
        kills
    }

    /// Lets each call fail one time after the other; returns how many failures there were.
    fn fail(&self) -> usize {
        let mut failures = 0;
        for (call, errors) in FAILURES {
            for error in errors {
                for when in 1..MOST {
                    (self.before)();
                    let inject = format!("inject={call}:error={error}:when={when}");
                    let output =
                        self.lab.strace(&["-e", &format!("trace={call}"), "-e", &inject], self.words);
                    output.no_panic();
                    let hit = self.lab.sh("grep -c INJECTED /run/lab/strace || true").text() != "0";
                    (self.after)(output.succeeded());
                    self.lab.is_clean();
                    if !hit {
                        break;
                    }
                    failures += 1;
                }
            }
        }
        assert!(failures >= 10, "`rnet {}` met {failures} failures only", self.words.join(" "));
        failures
    }
}

/// What has to be said of a sweep goes into the test's output, for those who count.
fn tell(words: &[&str], count: usize, what: &str) {
    println!("sweep: rnet {}: {count} {what}, nothing left", words.join(" "));
}

fn create_blue(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
}

const CREATE: [&str; 5] = ["network", "create", "--subnet", "10.81.0.0/24", "blue"];
const CONNECT: [&str; 6] = ["network", "connect", "-p", "8081:80", "blue", "web"];
const DISCONNECT: [&str; 4] = ["network", "disconnect", "blue", "web"];
const REMOVE: [&str; 4] = ["network", "rm", "-f", "blue"];

fn creates(lab: &Lab, run: impl Fn(&Sweep<'_>) -> usize) -> usize {
    let after = |done: bool| {
        if done {
            lab.rn("network inspect blue").ok();
        }
        // Killed after the last write it may be done without having said so.
        let again = lab.rn("network create --subnet 10.81.0.0/24 blue");
        if !again.succeeded() {
            again.refused(&["blue"]);
        }
        lab.rn("check").ok().prints("");
        lab.rn("network rm blue").ok();
    };
    run(&Sweep { lab, words: &CREATE, before: &|| (), after: &after })
}

fn connects(lab: &Lab, run: impl Fn(&Sweep<'_>) -> usize) -> usize {
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    lab.listen_tcp(&web, "0.0.0.0:80");
    let tries = Cell::new(0);
    let after = |done: bool| {
        if done {
            lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
        }
        lab.rn("network connect blue db").ok();
        let again = lab.rn("network connect -p 8081:80 blue web");
        if !again.succeeded() {
            again.refused(&["web", "blue"]);
        }
        let address = lab.address("blue", "web");
        lab.tcp(&db, &format!("{address}:80")).answered_by(&web);
        lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
        // The whole audit costs some time: now and then is enough, `check` looks at everything each time.
        if tries.replace(tries.get() + 1) % 8 == 0 {
            lab.audit("blue");
        }
        lab.rn("check").ok().prints("");
        lab.rn("network disconnect blue db").ok();
        lab.rn("network disconnect blue web").ok();
        lab.rn("network rm blue").ok();
    };
    run(&Sweep { lab, words: &CONNECT, before: &|| create_blue(lab), after: &after })
}

fn disconnects(lab: &Lab, run: impl Fn(&Sweep<'_>) -> usize) -> usize {
    let web = lab.namespace("web");
    let before = || {
        create_blue(lab);
        lab.rn("network connect -p 8081:80 blue web").ok();
    };
    let after = |done: bool| {
        if done {
            lab.namespace_is_fresh(&web);
        }
        lab.rn("network disconnect -f blue web").ok();
        lab.namespace_is_fresh(&web);
        lab.rn("check").ok().prints("");
        lab.rn("network rm blue").ok();
    };
    run(&Sweep { lab, words: &DISCONNECT, before: &before, after: &after })
}

fn removals(lab: &Lab, run: impl Fn(&Sweep<'_>) -> usize) -> usize {
    let web = lab.namespace("web");
    let before = || {
        create_blue(lab);
        lab.rn("network connect -p 8081:80 blue web").ok();
    };
    let after = |_: bool| {
        lab.rn("network rm -f blue").ok();
        lab.namespace_is_fresh(&web);
        lab.rn("check").ok().prints("");
    };
    run(&Sweep { lab, words: &REMOVE, before: &before, after: &after })
}

fn killed_creates(lab: &Lab) {
    tell(&CREATE, creates(lab, |sweep| sweep.kill()), "kills");
}

fn killed_connects(lab: &Lab) {
    tell(&CONNECT, connects(lab, |sweep| sweep.kill()), "kills");
}

fn killed_disconnects(lab: &Lab) {
    tell(&DISCONNECT, disconnects(lab, |sweep| sweep.kill()), "kills");
}

fn killed_removals(lab: &Lab) {
    tell(&REMOVE, removals(lab, |sweep| sweep.kill()), "kills");
}

fn killed_runs(lab: &Lab) {
    let words = ["run", "--name", "web", "-p", "8081:80", "--", "true"];
    let after = |_: bool| {
        lab.rn("ps -a").ok();
        lab.rn("run --name web -p 8081:80 -- true").ok();
        lab.rn("check").ok().prints("");
    };
    let count = Sweep { lab, words: &words, before: &|| (), after: &after }.kill();
    tell(&words, count, "kills");
}

fn failing_creates(lab: &Lab) {
    tell(&CREATE, creates(lab, |sweep| sweep.fail()), "failures");
}

fn failing_connects(lab: &Lab) {
    tell(&CONNECT, connects(lab, |sweep| sweep.fail()), "failures");
}

fn failing_disconnects(lab: &Lab) {
    tell(&DISCONNECT, disconnects(lab, |sweep| sweep.fail()), "failures");
}

fn failing_removals(lab: &Lab) {
    tell(&REMOVE, removals(lab, |sweep| sweep.fail()), "failures");
}
