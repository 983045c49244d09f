//! From nothing to nothing: what a verb makes, its opposite takes away.

use rnetkit_drivers::{Family, Resource};

use super::*;

#[test]
fn create_connect_disconnect_and_remove_leave_the_host_as_it_was() {
    let mut lab = Lab::new();
    let before = lab.snapshot();
    lab.create(&create("blue", &["10.1.0.0/24"])).unwrap();
    let created = lab.snapshot();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    assert_eq!(text(&lab.disconnect("blue", "web").unwrap().steps).lines().count(), 4);
    assert_eq!(lab.kernel().host(), created.host);
    lab.remove("blue").unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_network_exists_on_the_host_from_its_creation_on() {
    let mut lab = Lab::blue();
    let host = lab.kernel().host().join("\n");
    let bridges = regex_lite::Regex::new("rn-[0-9a-f]{12}").unwrap();
    assert_eq!(
        bridges.replace_all(&host, "rn-*"),
        "IPv4 forwarding\n\
         IPv6 off on rn-* on the host\n\
         address 10.1.0.1/24 on rn-* on the host\n\
         bridge rn-* mac 02:42:0a:01:00:01 mtu 1500\n\
         firewall: 10.1.0.1 answers on rn-* only\n\
         firewall: from 10.1.0.0/24 back into it through the host\n\
         firewall: masquerade IPv4 from rn-*\n\
         firewall: members of rn-* may ask the host for names\n\
         firewall: members of rn-* may talk to each other\n\
         firewall: no IPv4 forwarding for others\n\
         firewall: rn-* is closed but for replies and published ports\n\
         firewall: tables, chains and empty sets\n\
         no redirects on rn-* on the host\n\
         rn-* up on the host"
    );
}

#[test]
fn the_default_bridge_is_made_with_its_first_container_and_goes_with_its_last() {
    let mut lab = Lab::new();
    let before = lab.snapshot();
    assert_eq!(address(&lab.connect(&connect("bridge", "web")).unwrap()), "172.17.0.2/16");
    assert_eq!(address(&lab.connect(&connect("bridge", "db")).unwrap()), "172.17.0.3/16");
    lab.disconnect("bridge", "web").unwrap();
    assert!(lab.kernel().host().contains(&"rnet0 up on the host".to_owned()));
    lab.disconnect("bridge", "db").unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn what_networks_share_goes_with_the_last_network() {
    let mut lab = Lab::new();
    let before = lab.snapshot();
    lab.create(&create("blue", &["10.1.0.0/24"])).unwrap();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    lab.remove("blue").unwrap();
    assert!(lab.kernel().host().contains(&"firewall: tables, chains and empty sets".to_owned()));
    assert!(lab.kernel().host().contains(&"IPv4 forwarding".to_owned()));
    lab.remove("red").unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn forwarding_that_the_administrator_switched_on_stays_on() {
    let mut lab = Lab::new();
    lab.kernel().resources.push((None, Resource::Forwarding { family: Family::Ipv4 }));
    lab.create(&create("blue", &["10.1.0.0/24"])).unwrap();
    assert!(!lab.kernel().host().contains(&"firewall: no IPv4 forwarding for others".to_owned()));
    lab.remove("blue").unwrap();
    assert_eq!(lab.kernel().host(), ["IPv4 forwarding"]);
}

#[test]
fn a_container_whose_namespace_is_gone_can_be_disconnected() {
    let mut lab = Lab::blue();
    let before = lab.snapshot().host;
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab.kernel().end(&netns("web"));
    lab.disconnect("blue", "web").unwrap();
    assert_eq!(lab.snapshot().host, before);
    lab.remove_all();
    assert_eq!(lab.kernel().host(), Vec::<String>::new());
}

#[test]
fn a_container_that_was_started_anew_under_its_name_can_be_connected_at_once() {
    for network in ["blue", "red"] {
        let mut lab = Lab::blue();
        lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
        lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
        lab.connect(&connect("bridge", "web")).unwrap();
        lab.kernel().end(&netns("web"));
        lab.start("web");
        let connected = lab.connect(&publish(network, "web", &["8080:80"])).unwrap();
        assert_eq!(connected.endpoint.interface.as_str(), "eth0");
        assert_eq!(lab.rnet.store().endpoints_of("web").unwrap().len(), 1);
        assert!(!lab.kernel().host().contains(&"rnet0 up on the host".to_owned()));
        lab.remove_all();
        assert_eq!(lab.kernel().host(), Vec::<String>::new());
    }
}

#[test]
fn what_somebody_deleted_is_made_again_by_the_next_connect() {
    let mut lab = Lab::blue();
    let before = lab.kernel().host();
    let gone =
        |resource: &Resource| matches!(resource, Resource::Bridge { .. }) || resource.lives_on().is_some();
    lab.kernel().resources.retain(|(_, resource)| !gone(resource));
    lab.connect(&connect("blue", "web")).unwrap();
    lab.disconnect("blue", "web").unwrap();
    assert_eq!(lab.kernel().host(), before);
}

#[test]
fn a_network_with_containers_is_removed_by_force_only() {
    let mut lab = Lab::new();
    let before = lab.snapshot();
    lab.create(&create("blue", &["10.1.0.0/24"])).unwrap();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab.connect(&connect("blue", "db")).unwrap();
    let connected = lab.snapshot();
    let error = lab.remove("blue").unwrap_err();
    assert_eq!(error.to_string(), "network blue has active endpoints (db, web)");
    assert_eq!(lab.snapshot(), connected);
    lab.rnet.remove("blue", true, Mode::Do).unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn prune_removes_the_networks_without_containers() {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    lab.create(&create("green", &["10.3.0.0/24"])).unwrap();
    lab.connect(&connect("red", "web")).unwrap();
    let pruned = lab.rnet.prune(|_| true).unwrap();
    assert_eq!(pruned.iter().map(ToString::to_string).collect::<Vec<_>>(), ["blue", "green"]);
    let left = lab.rnet.networks().unwrap();
    assert_eq!(
        left.iter().map(|network| network.name.as_str()).collect::<Vec<_>>(),
        ["bridge", "host", "none", "red"]
    );
}

#[test]
fn networks_are_defined_also_after_a_reboot_and_made_again_on_first_use() {
    let mut lab = Lab::blue();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    let connected = lab.kernel().host();
    // A reboot: the kernel has nothing, and the run directory is in memory.
    lab.kernel().resources.clear();
    fs::remove_dir_all(lab.folder.join("run")).unwrap();
    assert_eq!(lab.rnet.network("blue").unwrap().pools[0].subnet.to_string(), "10.1.0.0/24");
    let again = lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    assert_eq!(address(&again), "10.1.0.2/24");
    assert_eq!(text_of(&lab.kernel().host()), text_of(&connected));
    lab.remove_all();
    assert_eq!(lab.kernel().host(), Vec::<String>::new());
}

/// With the names that are drawn by lot left out.
fn text_of(host: &[String]) -> Vec<String> {
    let links = regex_lite::Regex::new("veth[0-9a-f]{11}").unwrap();
    let mut list: Vec<String> =
        host.iter().map(|line| links.replace_all(line, "veth*").into_owned()).collect();
    list.sort();
    list
}
