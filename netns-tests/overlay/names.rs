//! Names of containers on other hosts, with a real etcd.

use super::cluster::{Cluster, connect, create, remove};
use crate::{
    command::until,
    harness::tests,
    lab::{Lab, Place},
    names::Asker,
};

tests!(containers_of_all_hosts_are_found, names_stay_without_the_store_and_without_the_agents_memory);

/// The container asks at the network's gateway, which its own host answers.
fn asker<'a>(lab: &Lab, cluster: &Cluster, host: usize, place: &'a Place) -> Asker<'a> {
    let shown = cluster.hosts[host].rn(lab, "network inspect ov").ok().json();
    let gateway = shown[0]["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway");
    Asker { place, server: gateway.parse().expect("an address") }
}

fn address(place: &Place) -> String {
    place.addresses("eth0")[0].split('/').next().expect("an address").to_owned()
}

fn containers_of_all_hosts_are_found(lab: &Lab) {
    crate::lab::use_resolver("").expect("a file");
    let cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let places: Vec<Place> = (0..3)
        .map(|n| {
            connect(
                lab,
                &cluster.hosts[n],
                &format!("c{}", n + 1),
                &["--alias", "all", "--alias", &format!("db{n}")],
            )
        })
        .collect();
    let ids: Vec<String> = (0..3)
        .map(|n| {
            let shown = cluster.hosts[n].rn(lab, "network inspect ov").ok().json();
            let containers = shown[0]["Containers"].as_object().cloned().expect("containers");
            containers.keys().next().expect("one")[..12].to_owned()
        })
        .collect();
    for (host, place) in places.iter().enumerate() {
        let asker = asker(lab, &cluster, host, place);
        for (other, there) in places.iter().enumerate() {
            let answer = format!("NOERROR {}", address(there));
            // They hear of each other a moment after a connect returned.
            asker.comes_to_say(&format!("c{}", other + 1), &answer);
            for name in [format!("C{}.ov", other + 1), format!("db{other}"), ids[other].clone()] {
                assert_eq!(asker.a(&name), answer, "{name}");
            }
            let backwards: Vec<String> = address(there).split('.').rev().map(str::to_owned).collect();
            let reverse = format!("{}.in-addr.arpa", backwards.join("."));
            let pointer = asker.ask(&reverse, domain::base::iana::Rtype::PTR);
            assert_eq!(pointer, format!("NOERROR c{}.ov.", other + 1));
        }
        assert_eq!(asker.a("all").split(' ').count(), 4, "{}", asker.a("all"));
    }
    // Each host answers its own: a container asks its own gateway, and nobody else's.
    cluster.hosts[2].rn(lab, "network disconnect ov c3").ok();
    let asker = asker(lab, &cluster, 0, &places[0]);
    asker.comes_to_say("c3", "SERVFAIL");
    assert_eq!(asker.a("all").split(' ').count(), 3);
    for (host, name) in [(0, "c1"), (1, "c2")] {
        cluster.hosts[host].rn(lab, &format!("network disconnect ov {name}")).ok();
    }
    remove(lab, &cluster.hosts[0]);
    cluster.end(lab);
}

fn names_stay_without_the_store_and_without_the_agents_memory(lab: &Lab) {
    crate::lab::use_resolver("").expect("a file");
    let mut cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    let found = format!("NOERROR {}", address(&two));
    {
        let asker = asker(lab, &cluster, 0, &one);
        asker.comes_to_say("c2", &found);
    }
    cluster.store.down();
    {
        let asker = asker(lab, &cluster, 0, &one);
        assert_eq!(asker.a("c2"), found);
        assert_eq!(asker.a("c1"), format!("NOERROR {}", address(&one)));
    }
    // Another agent has seen nothing of the store, and knows what the one before was told.
    cluster.kill_agent(lab, 0);
    cluster.start_agent(lab, 0);
    {
        let asker = asker(lab, &cluster, 0, &one);
        until("the new one answers", || asker.tcp_or_nothing("c1").is_some());
        assert_eq!(asker.a("c2"), found);
    }
    cluster.store.up(lab);
    for (host, name) in [(0, "c1"), (1, "c2")] {
        until("the store is back", || {
            cluster.hosts[host].rn(lab, &format!("network disconnect ov {name}")).succeeded()
        });
    }
    remove(lab, &cluster.hosts[0]);
    cluster.end(lab);
}
