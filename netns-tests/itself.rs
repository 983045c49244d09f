//! The lab itself: it must see what it is there to see, or the other tests prove nothing.

use std::fs;

use crate::{
    harness::tests,
    lab::{HOST, LAN, Lab, prepare},
    traffic::{self, Failure},
};

tests! {
    the_host_and_its_neighbour_reach_each_other,
    refused_and_silent_are_told_apart,
    whatever_is_left_is_seen,
    labs_do_not_see_each_other,
    a_bridge_made_by_hand_carries_traffic,
    a_deleted_namespace_is_gone,
}

fn the_host_and_its_neighbour_reach_each_other(lab: &Lab) {
    lab.listen_tcp(&lab.host, "192.0.2.1:80");
    lab.listen_udp(&lab.host, "192.0.2.1:53");
    lab.listen_tcp(&lab.lan, "[2001:db8:1::2]:80");
    lab.tcp(&lab.lan, "192.0.2.1:80").answered_by(&lab.host).seen_from(LAN);
    lab.udp(&lab.lan, "192.0.2.1:53").answered_by(&lab.host).seen_from(LAN);
    lab.tcp(&lab.host, "[2001:db8:1::2]:80").answered_by(&lab.lan).seen_from("2001:db8:1::1");
    assert_eq!(lab.host.gateway(), Some(("192.0.2.254".into(), "uplink0".into())));
    assert_eq!(lab.lan.addresses("eth0"), ["192.0.2.2/24", "192.0.2.254/24"]);
}

fn refused_and_silent_are_told_apart(lab: &Lab) {
    lab.needs("nft");
    lab.tcp(&lab.lan, "192.0.2.1:81").is_refused();
    lab.udp(&lab.lan, "192.0.2.1:81").is_refused();
    prepare(&lab.lan, "route add 198.51.100.0/24 via 192.0.2.1");
    lab.sh("nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; policy drop; }'").ok();
    assert_eq!(traffic::tcp_short(&lab.lan, "192.0.2.1:81").result(), Err(Failure::Timeout));
    assert_eq!(traffic::udp_short(&lab.lan, "192.0.2.1:81").result(), Err(Failure::Timeout));
    assert_eq!(traffic::tcp_short(&lab.host, "203.0.113.1:81").result(), Err(Failure::Timeout));
    lab.sh("nft delete table inet wall").ok();
}

fn whatever_is_left_is_seen(lab: &Lab) {
    lab.needs("nft");
    for (make, undo, section) in [
        ("ip link add left0 type bridge", "ip link del left0", "link"),
        ("ip address add 10.0.0.1/32 dev lo", "ip address del 10.0.0.1/32 dev lo", "address"),
        ("ip route add 10.0.0.0/24 via 192.0.2.2", "ip route del 10.0.0.0/24", "route"),
        ("ip route add 10.0.0.0/24 via 192.0.2.2 table 7", "ip route flush table 7", "route"),
        ("ip rule add to 10.0.0.0/24 prohibit", "ip rule del to 10.0.0.0/24 prohibit", "rule"),
        ("nft add table inet left", "nft delete table inet left", "nft"),
        ("nft add table bridge left", "nft delete table bridge left", "nft"),
        ("echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 0 > /proc/sys/net/ipv4/ip_forward", "sysctl"),
        ("mkdir -p /run/rnet/x && echo > /run/rnet/x/left", "rm -r /run/rnet", "file"),
        ("mkdir -p /var/lib/rnet && echo > /var/lib/rnet/left", "rm -r /var/lib/rnet", "file"),
        ("mount -t tmpfs none /mnt", "umount /mnt", "mount"),
    ] {
        let before = lab.snapshot();
        lab.sh(make).ok();
        let seen = before.difference(&lab.snapshot()).unwrap_or_default();
        assert!(seen.contains(&format!("extra  {section}")), "after `{make}` only this is seen:\n{seen}");
        lab.sh(undo).ok();
        lab.is_like(&before);
    }
}

fn labs_do_not_see_each_other(lab: &Lab) {
    let place = lab.namespace("only-here");
    let other = std::thread::spawn(|| {
        let lab = Lab::new().expect("a second lab");
        let names = lab.sh("ip netns").ok().text();
        lab.sh("touch /run/netns/only-there /var/lib/only-there").ok();
        (names, lab.host.links())
    });
    let (names, links) = other.join().expect("a second lab");
    assert_eq!(names, "");
    assert!(links.contains(&"uplink0".to_owned()));
    assert_eq!(lab.sh("ip netns; ls /var/lib").ok().text(), "only-here");
    assert!(place.links().contains(&"lo".to_owned()));
}

fn a_bridge_made_by_hand_carries_traffic(lab: &Lab) {
    let web = lab.namespace("web");
    prepare(
        &lab.host,
        "link add br0 type bridge
         address add 10.5.0.1/24 dev br0
         link set br0 up
         link add v0 type veth peer name eth0 netns /run/netns/web
         link set v0 master br0 up",
    );
    prepare(&web, "address add 10.5.0.2/24 dev eth0\n link set eth0 up\n route add default via 10.5.0.1");
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.host, "10.5.0.2:80").answered_by(&web).seen_from("10.5.0.1");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a host of our own");
    prepare(&lab.lan, "route add 10.5.0.0/24 via 192.0.2.1");
    lab.tcp(&lab.lan, "10.5.0.2:80").answered_by(&web).seen_from(LAN);
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
    lab.tcp(&web, "192.0.2.2:9000").answered_by(&lab.lan).seen_from("10.5.0.2");
    assert_eq!(web.gateway(), Some(("10.5.0.1".into(), "eth0".into())));
    assert_eq!(web.addresses("eth0"), ["10.5.0.2/24"]);
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("a host of our own");
    prepare(&lab.host, "link del v0\n link del br0");
    assert_eq!(HOST, "192.0.2.1");
}

fn a_deleted_namespace_is_gone(lab: &Lab) {
    let web = lab.namespace("web");
    prepare(&lab.host, "link add v0 type veth peer name eth0 netns /run/netns/web");
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.delete_namespace(&web);
    lab.sh("ip netns").ok().prints("");
    // The kernel takes the pair away when the last user of the namespace is gone.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while lab.host.has_link("v0") {
        assert!(std::time::Instant::now() < deadline, "something still holds the namespace");
    }
}
