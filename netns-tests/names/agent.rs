//! The agent that answers: it comes by itself, goes by itself, and is locked in.

use std::time::{Duration, Instant};

use domain::base::iana::Rtype;
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::{Asker, PATIENCE, SILENCE, exchange, names_pid, names_status, question};
use crate::{
    cni_plugin::Call,
    command::{self, Running, until},
    harness::tests,
    lab::Lab,
};

tests! {
    networks_without_names_need_no_agent,
    who_leaves_the_agent_to_others_is_told_when_none_runs,
    whoever_is_killed_while_it_starts_names_work_afterwards,
    the_first_answer_of_another_agent_comes_at_once,
    who_was_added_by_an_orchestrator_finds_names,
    the_agent_leaves_with_the_last_network,
    a_killed_agent_is_replaced,
    it_has_one_capability_and_no_way_to_others,
    it_is_locked_in,
}

fn networks_without_names_need_no_agent(lab: &Lab) {
    lab.rn("network create --opt dns=false blue").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    let _web = lab.web("bridge", "web", &[]);
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.sh("RNET_AGENT=manual rnet network create red").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    std::fs::write("/var/lib/rnet/config.toml", "agent = \"manual\"\n").expect("a file");
    lab.rn("network create green").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    std::fs::remove_file("/var/lib/rnet/config.toml").expect("a file");
    lab.rn("network rm blue red green").ok();
    lab.rn("network disconnect bridge web").ok();
}

fn who_leaves_the_agent_to_others_is_told_when_none_runs(lab: &Lab) {
    let missing = |network: &str| {
        format!(
            "WARN network {network}: containers are not found by name: no agent runs, and starting it is left to you: \
             rnet agent"
        )
    };
    let _web = lab.namespace("web");
    lab.rn("network create --opt dns=false quiet").ok();
    assert!(!lab.rn("doctor").ok().stdout().contains("agent"));
    std::fs::write("/var/lib/rnet/config.toml", "agent = \"manual\"\n").expect("a file");
    let created = lab.rn("network create blue").ok();
    assert_eq!(created.stderr().trim(), missing("blue"));
    assert_eq!(lab.rn("network connect blue web").ok().stderr().trim(), missing("blue"));
    lab.rn("network connect quiet web").ok().silent();
    let found = lab.rn("doctor").exits(1).stdout().to_owned();
    assert!(
        found.contains("bad   agent        none runs; network blue: containers are not found by name\n"),
        "{found}"
    );
    assert!(!found.contains("quiet"), "{found}");
    lab.rn("agent").ok();
    lab.rn("doctor").ok().mentions("ok    agent        it runs");
    lab.rn("network disconnect blue web").ok();
    lab.rn("network connect blue web").ok().silent();
    std::fs::remove_file("/var/lib/rnet/config.toml").expect("a file");
    lab.rn("network rm -f blue quiet").ok();
}

/// The processes of this host's agent, and of its part for names.
fn agents(lab: &Lab) -> (usize, usize) {
    let own = lab.host.inside(|| std::fs::read_link("/proc/thread-self/ns/net")).expect("a namespace");
    let mut found = (0, 0);
    for entry in std::fs::read_dir("/proc").expect("processes").flatten() {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        if words.contains(&&b"agent"[..])
            && std::fs::read_link(entry.path().join("ns/net")).is_ok_and(|ns| ns == own)
        {
            if words.contains(&&b"--part"[..]) { found.1 += 1 } else { found.0 += 1 }
        }
    }
    found
}

/// Calls by which the agent comes to be: processes, its lock, its socket, what it says.
const CALLS: [&str; 11] = [
    "fork,vfork,clone,clone3",
    "execve",
    "setsid",
    "flock",
    "socket,socketpair",
    "bind",
    "listen",
    "connect",
    "sendto,sendmsg",
    "write",
    "prctl,seccomp",
];

fn whoever_is_killed_while_it_starts_names_work_afterwards(lab: &Lab) {
    lab.needs("strace");
    const LOG: &str = "/run/lab/strace";
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    let mut kills = 0;
    for calls in CALLS {
        for time in 1.. {
            assert!(time < 200, "{calls} never ends");
            lab.rn("agent --stop").ok();
            let inject = format!("inject={calls}:signal=KILL:when={time}");
            let _ = std::fs::remove_file(LOG);
            let options = ["-f", "-q", "-o", LOG, "-e", &format!("trace=execve,{calls}"), "-e", &inject];
            let words =
                [&options[..], &["--", crate::lab::RNET, "network", "connect", "blue", "web"]].concat();
            let strace = Running::start(&mut lab.command("strace", &words));
            let log = || std::fs::read_to_string(LOG).unwrap_or_default();
            // The first that is heard of is the command itself; an agent goes on after it.
            let ended = |log: &str| {
                let first = log.split(' ').next().filter(|pid| !pid.is_empty());
                first
                    .is_some_and(|pid| log.lines().any(|line| line.starts_with(pid) && line.contains("+++ ")))
            };
            until(&format!("{calls} {time}: the command ends"), || ended(&log()));
            strace.signal_if_alive(Signal::KILL);
            let _ = strace.wait();
            let killed = log().contains("killed by SIGKILL");
            kills += usize::from(killed);
            let told = lab.rn("network connect blue db").ok();
            assert_eq!(told.stderr(), "", "{calls} {time}");
            let asker = Asker::new(lab, &db, "blue");
            let own = format!("NOERROR {}", lab.address("blue", "db"));
            assert_eq!(asker.a("db"), own, "{calls} {time}");
            until(&format!("{calls} {time}: one agent, and one part"), || agents(lab) == (1, 1));
            lab.rn("network disconnect blue db").ok();
            let _ = lab.rn("network disconnect blue web");
            if !killed {
                break;
            }
        }
    }
    println!("names: {kills} kills while the agent was started");
    assert!(kills > 25, "{kills} kills are no sweep");
    drop(web);
    lab.rn("network rm -f blue").ok();
    until("no agent is left", || agents(lab) == (0, 0));
}

fn the_first_answer_of_another_agent_comes_at_once(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    lab.rn("network connect blue web").ok();
    let asker = Asker::new(lab, &web, "blue");
    const ROUNDS: usize = 20;
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        let agent = lab.rn("agent --status").ok().json()["pid"].as_i64().expect("a process");
        let agent = Pid::from_raw(agent as i32).expect("a process");
        rustix::process::kill_process(agent, Signal::KILL).expect("it lives");
        assert!(command::ended_within(agent, PATIENCE));
        // Its part may not have noticed yet, and still listens where the next one will.
        let began = Instant::now();
        lab.rn("network connect blue db").ok().silent();
        assert!(asker.a("db").starts_with("NOERROR "), "round {round}");
        assert!(asker.tcp("db").starts_with("NOERROR "), "round {round}");
        late.extend(Some(began.elapsed()).filter(|time| *time > Duration::from_millis(900)));
        lab.rn("network disconnect blue db").ok();
    }
    // A machine that does other things makes one late now and then, a part that waits to listen makes them all.
    assert!(late.len() < ROUNDS / 2, "{late:?}");
    drop(db);
    lab.rn("network rm -f blue").ok();
}

/// By the resolver that the plugin's result names, and by an agent that the plugin started.
fn who_was_added_by_an_orchestrator_finds_names(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    lab.rn("network connect blue db").ok();
    lab.rn("agent --stop").ok();
    let config = json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "network": "blue" });
    let result = Call::new(lab, "ADD", &web, &config).ok();
    let server = result["dns"]["nameservers"][0].as_str().expect("a resolver");
    let asker = Asker { place: &web, server: server.parse().expect("an address") };
    assert_eq!(asker.a("db"), "NOERROR 10.90.0.2");
    Call::new(lab, "DEL", &web, &config).ok();
    drop(db);
    lab.rn("network rm -f blue").ok();
    until("no agent is left", || agents(lab) == (0, 0));
}

fn the_agent_leaves_with_the_last_network(lab: &Lab) {
    // Also while the command speaks to it: that is nobody's trouble.
    for _ in 0..20 {
        lab.rn("network create blue").ok();
        assert_eq!(lab.rn("network rm blue").ok().stderr(), "");
    }
    lab.rn("network create blue").ok();
    lab.rn("network create red").ok();
    lab.rn("agent --status").ok();
    lab.rn("network rm blue").ok();
    lab.rn("agent --status").ok();
    lab.rn("network rm red").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.is_clean();
}

fn a_killed_agent_is_replaced(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    lab.rn("network connect blue web").ok();
    let web_asks = Asker::new(lab, &web, "blue");
    // The part alone: the agent starts it again by itself.
    let first = names_pid(lab);
    rustix::process::kill_process(first, rustix::process::Signal::KILL).expect("it lives");
    until("another part answers", || {
        exchange(&web, web_asks.server, &question("web", Rtype::A), SILENCE).is_some()
    });
    assert_ne!(names_pid(lab), first);
    // The agent: its parts end with it, and the next command starts another.
    let agent = lab.rn("agent --status").ok().json()["pid"].as_i64().expect("a process");
    let agent = Pid::from_raw(agent as i32).expect("a process");
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).expect("it lives");
    assert!(command::ended_within(agent, PATIENCE));
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.rn("network connect blue db").ok().silent();
    assert_eq!(web_asks.a("db"), "NOERROR 10.90.0.3");
    lab.rn("network rm -f blue").ok();
    lab.is_clean();
    drop(db);
}

fn it_has_one_capability_and_no_way_to_others(lab: &Lab) {
    lab.rn("network create blue").ok();
    let status = std::fs::read_to_string(format!("/proc/{}/status", names_pid(lab).as_raw_nonzero()))
        .expect("it lives");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "0000000000000400", "{set}: to bind to a port below 1024, and nothing else");
    }
    assert_eq!((field("CapInh").as_str(), field("NoNewPrivs").as_str()), ("0000000000000000", "1"));
    let agent = lab.rn("agent --status").ok().json()["pid"].to_string();
    let status = std::fs::read_to_string(format!("/proc/{agent}/status")).expect("it lives");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    lab.rn("network rm blue").ok();
}

fn it_is_locked_in(lab: &Lab) {
    lab.rn("network create blue").ok();
    let status = std::fs::read_to_string(format!("/proc/{}/status", names_pid(lab).as_raw_nonzero()))
        .expect("it lives");
    assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
    assert_eq!(status.matches("\nThreads:\t1\n").count(), 1, "the one thread that is locked in: {status}");
    let confined = names_status(lab)["confined"].clone();
    assert_eq!(confined, serde_json::json!({"landlock": "holds", "seccomp": "holds"}));
    // As the kernel ends it where it makes another call.
    rustix::process::kill_process(names_pid(lab), rustix::process::Signal::SYS).expect("it lives");
    until("it is said why it ended", || {
        let trouble = lab.rn("agent --status").ok().json()["parts"]["names"]["trouble"].to_string();
        trouble.contains("it made a system call that it may not make, and was killed (SIGSYS)")
    });
    lab.rn("network rm blue").ok();
}
