//! Hosts that are cut off, that hang, or that come back elsewhere: what runs goes on, and all agree again afterwards.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::cluster::{Cluster, Pinging, addresses, connect, create, pair, remotes};
use crate::{
    command::until,
    harness::tests,
    lab::{Lab, prepare},
};

tests!(
    a_host_with_another_address_is_reached_there,
    a_host_with_another_address_is_reached_there_in_cipher,
    an_agent_that_hangs_is_away_and_comes_back,
    a_host_that_is_cut_off_from_the_store_keeps_what_it_has,
    two_hosts_that_are_cut_off_from_each_other_are_alone_with_that,
);

/// What a host says of another.
#[track_caller]
fn state(lab: &Lab, cluster: &Cluster, asked: usize, of: usize) -> String {
    let shown = cluster.hosts[asked].rn(lab, "host ls").ok();
    let name = cluster.hosts[of].name();
    let line = shown.stdout().lines().find(|line| line.split_whitespace().any(|word| word == name));
    line.expect("the host is listed").to_owned()
}

fn a_host_with_another_address_is_reached_there(lab: &Lab) {
    moves(lab, "");
}

fn a_host_with_another_address_is_reached_there_in_cipher(lab: &Lab) {
    moves(lab, "-o encrypted");
}

/// A host begins again with another address on the underlay.
#[track_caller]
fn moves(lab: &Lab, options: &str) {
    let mut cluster = Cluster::start(lab, 2);
    create(lab, &cluster, &format!("{options} --subnet 10.9.0.0/24"));
    let (one, two) = pair(lab, &cluster);
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    cluster.kill_agent(lab, 0);
    prepare(
        &cluster.hosts[0].place,
        "address del 198.51.100.1/24 dev eth0
         address add 198.51.100.77/24 dev eth0
         route replace default via 198.51.100.254",
    );
    cluster.hosts[0].address = "198.51.100.77".to_owned();
    cluster.start_agent(lab, 0);
    until("the other host knows", || state(lab, &cluster, 1, 0).contains("198.51.100.77"));
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    lab.tcp(&two, &format!("{}:80", addresses(&one).0)).answered_by(&one);
    cluster.hosts.iter().for_each(|host| drop(host.rn(lab, "check").ok().silent()));
    cluster.end(lab);
}

fn an_agent_that_hangs_is_away_and_comes_back(lab: &Lab) {
    let cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let (one, two) = pair(lab, &cluster);
    let pinging = Pinging::start(&one, &format!("{}:7000", addresses(&two).0));
    let status = cluster.hosts[1].rn(lab, "agent --status").ok().json();
    let part = status["parts"]["overlay"]["pid"].as_i64().expect("the part runs");
    let part = Pid::from_raw(part as i32).expect("a process");
    let before = state(lab, &cluster, 0, 1);
    rustix::process::kill_process(part, Signal::STOP).expect("stopped");
    // As long as it counts as alive, and what etcd takes to say so.
    until("the other host sees that it is away", || state(lab, &cluster, 0, 1) != before);
    rustix::process::kill_process(part, Signal::CONT).expect("goes on");
    until("it is back as it was", || state(lab, &cluster, 0, 1) == before);
    pinging.lost_nothing();
    assert_eq!(remotes(lab, &cluster.hosts[0]), 1);
    cluster.end(lab);
}

fn a_host_that_is_cut_off_from_the_store_keeps_what_it_has(lab: &Lab) {
    let cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let (one, two) = pair(lab, &cluster);
    let pinging = Pinging::start(&one, &format!("{}:7000", addresses(&two).0));
    let before = state(lab, &cluster, 1, 0);
    // Without a word of its end: nothing arrives any more, either way.
    cluster.hosts[0].sh(lab, CUT).ok();
    lab.namespace("c4");
    let begun = Instant::now();
    cluster.hosts[0].rn(lab, "network connect ov c4").refused(&["overlay: cannot reserve an address"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    until("the others see that it is away", || state(lab, &cluster, 1, 0) != before);
    // What happens meanwhile, on both sides of the cut.
    let three = connect(lab, &cluster.hosts[2], "c3", &[]);
    until("the other side knows", || remotes(lab, &cluster.hosts[1]) == 2);
    assert_eq!(remotes(lab, &cluster.hosts[0]), 1);
    lab.tcp(&two, &format!("{}:80", addresses(&three).0)).answered_by(&three);
    cluster.hosts[0].sh(lab, "nft delete table inet cut").ok();
    until("it has caught up", || {
        remotes(lab, &cluster.hosts[0]) == 2 && state(lab, &cluster, 1, 0) == before
    });
    lab.tcp(&one, &format!("{}:80", addresses(&three).0)).answered_by(&three);
    pinging.lost_nothing();
    cluster.hosts[0].rn(lab, "network connect ov c4").ok();
    cluster.end(lab);
}

const CUT: &str = "nft 'add table inet cut; \
    add chain inet cut o { type filter hook output priority 0; }; add rule inet cut o tcp dport 2379 drop; \
    add chain inet cut i { type filter hook input priority 0; }; add rule inet cut i tcp sport 2379 drop'";

fn two_hosts_that_are_cut_off_from_each_other_are_alone_with_that(lab: &Lab) {
    let cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let (one, two) = pair(lab, &cluster);
    let three = connect(lab, &cluster.hosts[2], "c3", &[]);
    until("all are placed", || cluster.hosts.iter().all(|host| remotes(lab, host) == 2));
    let before = state(lab, &cluster, 2, 0);
    cluster.hosts[0]
        .sh(
            lab,
            "nft 'add table inet cut; add chain inet cut i { type filter hook prerouting priority -400; }; \
             add rule inet cut i ip saddr 198.51.100.2 drop'",
        )
        .ok();
    lab.no_tcp(&one, &format!("{}:80", addresses(&two).0));
    for (from, to) in [(&one, &three), (&three, &two), (&two, &three), (&three, &one)] {
        lab.tcp(from, &format!("{}:80", addresses(to).0)).answered_by(to);
    }
    assert_eq!(state(lab, &cluster, 2, 0), before);
    cluster.hosts[0].sh(lab, "nft delete table inet cut").ok();
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    cluster.end(lab);
}
