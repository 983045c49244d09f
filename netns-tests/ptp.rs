//! Networks of driver ptp: each container on a link of its own, and the host a router between them.

use std::net::SocketAddr;

use crate::{harness::tests, lab::Lab};

tests! {
    each_container_is_alone_on_its_link,
    both_families_are_routed,
    ports_are_published_and_hairpin,
    containers_meet_unless_that_is_switched_off,
    an_open_network_is_open_to_whoever_has_a_route,
    forged_sources_do_not_leave_the_link,
    what_somebody_deletes_of_a_pair_is_made_again,
    an_internal_network_has_no_way_out,
    options_of_bridges_are_refused,
}

fn each_container_is_alone_on_its_link(lab: &Lab) {
    lab.rn("network create -d ptp --subnet 10.81.0.0/24 blue").ok();
    lab.rn("check").ok().prints("");
    let [web, db] = ["web", "db"].map(|name| lab.web("blue", name, &[]));
    assert_eq!(web.addresses("eth0"), ["10.81.0.2/32"]);
    assert_eq!(web.gateway(), Some(("10.81.0.1".to_owned(), "eth0".to_owned())));
    lab.listen_tcp(&lab.lan, "0.0.0.0:90");
    lab.tcp(&web, "192.0.2.2:90").answered_by(&lab.lan).seen_from("192.0.2.1");
    lab.tcp(&lab.host, "10.81.0.2:80").answered_by(&web);
    lab.tcp(&db, "10.81.0.2:80").answered_by(&web).seen_from("10.81.0.3");
    assert_eq!(lab.sh("ip -n db neigh show 10.81.0.2").text(), "", "it is no neighbour");
    lab.no_tcp(&lab.lan, "10.81.0.2:80");
    lab.rn("check").ok().prints("");
    lab.rn("network disconnect blue web").ok();
    lab.namespace_is_fresh(&web);
    lab.tcp(&db, "192.0.2.2:90").answered_by(&lab.lan);
    lab.rn("network rm -f blue").ok();
}

fn both_families_are_routed(lab: &Lab) {
    lab.rn("network create -d ptp --subnet 10.81.0.0/24 --subnet fd00:81::/64 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect -p 8080:80 blue web").ok();
    lab.listen_tcp(&web, "[::]:80");
    lab.listen_tcp(&lab.lan, "[::]:90");
    lab.tcp(&lab.host, "[fd00:81::2]:80").answered_by(&web);
    lab.tcp(&web, "[2001:db8:1::2]:90").answered_by(&lab.lan).seen_from("2001:db8:1::1");
    lab.tcp(&lab.lan, "[2001:db8:1::1]:8080").answered_by(&web);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("check").ok().prints("");
    lab.rn("network rm -f blue").ok();
}

fn ports_are_published_and_hairpin(lab: &Lab) {
    lab.rn("network create -d ptp --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    let db = lab.web("blue", "db", &[]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web).seen_from("192.0.2.2");
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&db, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&web, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network disconnect blue web").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.rn("network rm -f blue").ok();
}

fn containers_meet_unless_that_is_switched_off(lab: &Lab) {
    lab.rn("network create -d ptp -o icc=false --subnet 10.82.0.0/24 red").ok();
    let [one, two] = ["one", "two"].map(|name| lab.web("red", name, &[]));
    lab.no_tcp(&two, "10.82.0.2:80");
    lab.no_tcp(&one, "10.82.0.3:80");
    lab.rn("network create -d ptp --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &[]);
    lab.no_tcp(&one, "10.81.0.2:80");
    lab.no_tcp(&web, "10.82.0.2:80");
    lab.rn("network rm -f blue red").ok();
}

fn an_open_network_is_open_to_whoever_has_a_route(lab: &Lab) {
    lab.rn("network create -d ptp -o gateway-mode-ipv4=nat-unprotected --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &[]);
    crate::lab::prepare(&lab.lan, "route add 10.81.0.0/24 via 192.0.2.1");
    lab.tcp(&lab.lan, "10.81.0.2:80").answered_by(&web);
    lab.rn("network rm -f blue").ok();
}

/// The route that lies in wait is the LAN's: an answer to a forged source could arrive there only.
fn forged_sources_do_not_leave_the_link(lab: &Lab) {
    const MANY: u64 = 20;
    lab.rn("network create -d ptp -o gateway-mode-ipv4=routed -o gateway-mode-ipv6=routed \
            --subnet 10.81.0.0/24 --subnet fd00:81::/64 blue")
        .ok();
    let web = lab.web("blue", "web", &[]);
    lab.web("blue", "db", &[]);
    crate::lab::prepare(&lab.lan, "route add 10.81.0.0/24 via 192.0.2.1");
    crate::lab::prepare(&lab.lan, "route add fd00:81::/64 via 2001:db8:1::1");
    let received = || {
        let shown = lab.lan.ip("-s link show dev eth0");
        shown[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
    };
    crate::lab::prepare(&web, "address add 10.81.0.9/32 dev eth0");
    crate::lab::prepare(&web, "address add fd00:81::9/128 dev eth0 nodad preferred_lft 0");
    let sent = |from: &str, to: &str| {
        let before = received();
        let program = format!(
            "import socket; s = socket.socket(socket.AF_INET{}, socket.SOCK_DGRAM); s.bind(('{from}', 0)); \
             [s.sendto(b'x', ('{to}', 9)) for _ in range({MANY})]",
            if from.contains(':') { "6" } else { "" }
        );
        lab.sh(&format!("ip netns exec web python3 -c \"{program}\"")).ok();
        // What was sent before has arrived by the time that this is answered.
        lab.udp(&web, &SocketAddr::new(to.parse().expect("an address"), 53).to_string())
            .answered_by(&lab.lan);
        received() - before
    };
    lab.listen_udp(&lab.lan, "[::]:53");
    for (own, forged, to) in
        [("10.81.0.2", "10.81.0.9", "192.0.2.2"), ("fd00:81::2", "fd00:81::9", "2001:db8:1::2")]
    {
        // The neighbours know each other then: the lab's host has no link-local address to ask from on behalf of others.
        let listener = SocketAddr::new(to.parse().expect("an address"), 53).to_string();
        lab.udp(&lab.host, &listener).answered_by(&lab.lan);
        lab.udp(&web, &listener).answered_by(&lab.lan).seen_from(own);
        assert!(sent(own, to) >= MANY, "its own address {own} is let through");
        // The host may ask who its neighbours are meanwhile.
        assert!(sent(forged, to) < MANY / 2, "something forged from {forged} arrived");
    }
    lab.rn("network rm -f blue").ok();
}

fn what_somebody_deletes_of_a_pair_is_made_again(lab: &Lab) {
    lab.rn("network create -d ptp --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    for break_it in [
        "ip route delete 10.81.0.2",
        "ip -n web route delete 10.81.0.0/24",
        "ip address flush dev $(ip -br link show type veth | grep -o 'veth[0-9a-f]*' | head -1)",
        "ip link set dev $(ip -br link show type veth | grep -o 'veth[0-9a-f]*' | head -1) alias somebody",
        "ip -n web link delete eth0",
        "nft flush ruleset",
    ] {
        lab.mends(break_it);
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    }
    lab.rn("network rm -f blue").ok();
}

fn an_internal_network_has_no_way_out(lab: &Lab) {
    lab.rn("network create -d ptp --internal --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &[]);
    lab.listen_tcp(&lab.lan, "0.0.0.0:90");
    assert_eq!(web.gateway(), None);
    lab.sh("ip -n web route add default via 10.81.0.1").ok();
    lab.no_tcp(&web, "192.0.2.2:90");
    lab.rn("network rm -f blue").ok();
}

fn options_of_bridges_are_refused(lab: &Lab) {
    for option in ["name=br7", "spoof-check=false", "dns=true"] {
        let line = format!("network create -d ptp -o {option} --subnet 10.81.0.0/24 blue");
        lab.rn(&line).refused(&["there is no such option"]);
    }
}
