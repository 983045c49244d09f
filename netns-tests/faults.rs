//! Faults of the host: full and read-only disks, holders of locks that were stopped, namespaces that die at the moment of
//! the command, and others who change the network meanwhile. A clear error, or none; never half of anything.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    audit,
    command::{Running, until},
    harness::tests,
    lab::{Lab, Place, RNET},
};

tests! {
    with_a_full_run_directory_connect_is_refused_and_disconnect_works,
    without_inodes_connect_is_refused_and_disconnect_works,
    with_a_read_only_root_directory_what_is_defined_goes_on,
    a_stopped_holder_of_a_lock_is_named_and_holds_up_nobody_else,
    ghosts_of_deleted_namespaces_are_gone_at_once,
    lists_that_others_tear_are_read_again,
    a_writer_that_commits_all_the_time_disturbs_nothing,
    answers_that_are_lost_are_asked_for_again,
    a_kernel_that_never_answers_well_is_a_clear_error,
}

/// The run directory as a small file system of its own.
fn small(lab: &Lab, options: &str) -> [Place; 2] {
    lab.sh(&format!("mkdir -p /run/rnet && mount -t tmpfs -o mode=0700,{options} none /run/rnet")).ok();
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    [web, lab.namespace("db")]
}

/// Nothing more can be written: a connect is refused with that reason and leaves nothing, a disconnect works.
fn is_refused_and_left(lab: &Lab, [web, db]: &[Place; 2]) {
    let here = lab.snapshot();
    lab.rn("network connect -p 8081:80 blue db").refused(&["No space left on device", "/run/rnet/"]);
    lab.is_like(&here);
    lab.namespace_is_fresh(db);
    lab.rn("run -- true").exits(125).no_panic();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(web);
    lab.rn("network disconnect blue web").ok().prints("");
    lab.namespace_is_fresh(web);
    lab.sh("rm -f /run/rnet/fill*").ok();
    lab.rn("network connect -p 8081:80 blue db").ok();
    lab.rn("check").ok().prints("");
    audit::agrees(lab);
    lab.rn("network rm -f blue").ok();
    // An agent that is about to leave is still there.
    until("nobody uses it", || lab.sh("umount /run/rnet && rmdir /run/rnet").succeeded());
}

fn with_a_full_run_directory_connect_is_refused_and_disconnect_works(lab: &Lab) {
    let places = small(lab, "size=512k");
    lab.sh("dd if=/dev/zero of=/run/rnet/fill bs=4k 2>/dev/null").exits(1);
    is_refused_and_left(lab, &places);
}

fn without_inodes_connect_is_refused_and_disconnect_works(lab: &Lab) {
    let places = small(lab, "nr_inodes=64");
    lab.sh("n=0; while touch /run/rnet/fill$n 2>/dev/null; do n=$((n+1)); done").ok();
    is_refused_and_left(lab, &places);
}

fn with_a_read_only_root_directory_what_is_defined_goes_on(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.sh("mount --bind /var/lib/rnet /var/lib/rnet && mount -o remount,ro,bind /var/lib/rnet").ok();
    lab.rn("network create red").refused(&["/var/lib/rnet/networks", "Read-only file system"]);
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network rm -f blue").refused(&["/var/lib/rnet/networks", "Read-only file system"]);
    lab.rn("check").ok().prints("");
    lab.sh("umount /var/lib/rnet").ok();
    lab.rn("network rm -f blue").ok();
}

/// A connect that is stopped while it holds the lock of its network.
fn stopped_connect(lab: &Lab) -> (Running, Pid) {
    let inject = "inject=linkat:signal=SIGSTOP:when=1";
    let words = ["-f", "-qq", "-o", "/run/lab/strace", "-e", "trace=linkat", "-e", inject, "--", RNET];
    let mut command = lab.command("strace", &[&words[..], &["network", "connect", "blue", "web"]].concat());
    let running = Running::start(&mut command);
    let find = "here=$(readlink /proc/self/ns/net); for p in /proc/[0-9]*; do
            [ \"$(readlink $p/ns/net)\" = $here ] || continue
            case $(readlink $p/exe) in */rnet) grep -qE '^State:.[tT]' $p/status && basename $p;; esac
        done 2>/dev/null";
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(pid) = lab.sh(find).text().parse().ok().and_then(Pid::from_raw)
            && lab.sh("cat /proc/locks").ok().stdout().contains(&format!(" {} ", pid.as_raw_nonzero()))
        {
            return (running, pid);
        }
        assert!(Instant::now() < end, "nothing was stopped");
    }
}

fn a_stopped_holder_of_a_lock_is_named_and_holds_up_nobody_else(lab: &Lab) {
    lab.needs("strace");
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.82.0.0/24 red").ok();
    for name in ["web", "db"] {
        lab.namespace(name);
    }
    let (running, pid) = stopped_connect(lab);
    lab.rn("network connect red db").ok();
    let start = Instant::now();
    let holder = format!("network blue is locked by process {} (rnet, stopped)", pid.as_raw_nonzero());
    lab.rn("network connect blue db").fails_with(&format!("rnet: {holder}"));
    assert!(start.elapsed() < Duration::from_secs(20), "that took {:?}", start.elapsed());
    kill_process(pid, Signal::CONT).expect("it lives");
    running.wait().ok();
    lab.rn("network connect blue db").ok();
    lab.rn("check").ok().prints("");
    lab.rn("network rm -f blue red").ok();
}

/// A namespace that is deleted keeps its veth for some time: nobody has to wait for that.
fn ghosts_of_deleted_namespaces_are_gone_at_once(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    let once = "ip netns add ghost && rnet network connect -p 8080:80 blue ghost && ip netns del ghost &&
        rnet network disconnect blue ghost && test -z \"$(ip -br link show type veth | grep -v uplink0)\"";
    for _ in 0..50 {
        lab.sh(once).ok().prints("");
    }
    lab.rn("check").ok().prints("");
    audit::agrees(lab);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        lab.sh("test -z \"$(ip -br link show type veth | grep -v uplink0)\"").ok();
    }
    audit::agrees(lab);
    lab.rn("network rm blue").ok();
}

/// Something that goes on until `enough`.
fn meanwhile(lab: &Lab, line: &str) -> Running {
    let line = format!("echo ready; while [ ! -e /run/lab/enough ] && {line}; do :; done");
    let mut running = Running::start(&mut lab.command("sh", &["-c", &line]));
    assert_eq!(running.line(), "ready");
    running
}

#[track_caller]
fn enough(lab: &Lab, running: Running) {
    lab.sh("touch /run/lab/enough").ok();
    drop(running.wait());
}

/// Verbs of every kind, all of which must do their work.
fn everything_works(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    for _ in 0..10 {
        lab.sh("ip netns add more").ok();
        lab.rn("network connect -p 8081:80 blue more").ok();
        lab.rn("check").ok().prints("");
        lab.rn("repair").ok().prints("");
        lab.rn("network disconnect blue more").ok();
        lab.sh("ip netns del more").ok();
        lab.rn("doctor").no_panic();
    }
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network rm -f blue").ok();
}

fn lists_that_others_tear_are_read_again(lab: &Lab) {
    let lines: String = (0..10).map(|n| format!("link add t{n} type bridge\nlink del t{n}\n")).collect();
    std::fs::write("/run/lab/links", lines).expect("a file");
    let churn = meanwhile(lab, "ip -batch /run/lab/links");
    everything_works(lab);
    enough(lab, churn);
    lab.sh("for t in $(ip -br link show type bridge | grep -o '^t[0-9]*'); do ip link del $t; done").ok();
}

fn a_writer_that_commits_all_the_time_disturbs_nothing(lab: &Lab) {
    lab.needs("nft");
    let lines: String = "add table inet other\nadd set inet other s { type ipv4_addr; }\nadd element inet other s { 10.0.0.1 }\ndelete table inet other\n".repeat(20);
    let each: String = lines.lines().map(|line| format!("{line}\n")).collect();
    std::fs::write("/run/lab/rules", each).expect("a file");
    let churn = meanwhile(lab, "while read line; do nft \"$line\"; done < /run/lab/rules");
    everything_works(lab);
    enough(lab, churn);
    lab.sh("nft delete table inet other 2>/dev/null; true").ok();
}

/// Each answer once interrupted, once not kept by the kernel, once refused as busy: what only asks does not mind.
fn answers_that_are_lost_are_asked_for_again(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.web("blue", "web", &["-p", "8080:80"]);
    for error in ["EINTR", "ENOBUFS", "EBUSY"] {
        for when in 1..=24 {
            let inject = format!("inject=recvfrom:error={error}:when={when}");
            lab.strace(&["-e", "trace=recvfrom", "-e", &inject], &["check"]).ok().prints("");
        }
    }
    lab.rn("network rm -f blue").ok();
}

fn a_kernel_that_never_answers_well_is_a_clear_error(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.namespace("web");
    for (words, reason) in [
        (&["check"][..], "each time the kernel's list was read it changed, or the answer was lost"),
        (&["network", "connect", "blue", "web"], "No buffer space available"),
    ] {
        let inject = "inject=recvfrom:error=ENOBUFS";
        let failed = lab.strace(&["-e", "trace=recvfrom", "-e", inject], words);
        failed.refused(&[reason]);
    }
    lab.rn("gc").ok();
    lab.audit("blue");
    lab.rn("network rm blue").ok();
}
