//! `rnet doctor`: what on a host helps or is in the way, each with what to do about it.

use serde_json::Value;

use crate::{
    harness::tests,
    lab::{Lab, prepare},
};

tests! {
    a_sound_host_has_nothing_bad,
    features_of_the_kernel_are_those_that_ip_can_make,
    what_is_in_the_way_is_named_with_what_to_do,
}

/// All findings.
#[track_caller]
fn findings(lab: &Lab) -> Vec<Value> {
    let output = lab.rn("doctor --json");
    output.no_panic();
    let list = output.json().as_array().cloned().expect("a list");
    for finding in &list {
        let good = finding["verdict"] == "good";
        assert!(!finding["found"].as_str().unwrap_or_default().is_empty(), "{finding}");
        assert_eq!(finding["advice"].is_null(), good, "advice where it is needed: {finding}");
    }
    list
}

/// The findings about something that are no good news, as text.
#[track_caller]
fn about(lab: &Lab, what: &str) -> String {
    let text = |finding: &Value| {
        let part = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {} -> {}", part("verdict"), part("found"), part("advice"))
    };
    let of = |finding: &&Value| finding["about"] == what && finding["verdict"] != "good";
    findings(lab).iter().filter(of).map(text).collect::<Vec<_>>().join("\n")
}

fn a_sound_host_has_nothing_bad(lab: &Lab) {
    let here = lab.snapshot();
    let list = findings(lab);
    assert!(list.iter().all(|finding| finding["verdict"] != "bad"), "{list:#?}");
    lab.rn("doctor").ok().mentions("ok    firewall").mentions("landlock, seccomp");
    lab.is_like(&here);
}

fn features_of_the_kernel_are_those_that_ip_can_make(lab: &Lab) {
    let lacking = about(lab, "kernel");
    for (name, make) in [
        ("bridge", "ip link add probe0 type bridge"),
        ("veth", "ip link add probe0 type veth peer name probe1"),
        ("vxlan", "ip link add probe0 type vxlan id 7 dstport 4789"),
        ("macvlan", "ip link add probe0 link uplink0 type macvlan mode bridge"),
        ("ipvlan", "ip link add probe0 link uplink0 type ipvlan"),
        ("802.1q", "ip link add probe0 link uplink0 type vlan id 7"),
        ("ifb", "ip link add probe0 type ifb"),
        ("wireguard or tun", "(ip link add probe0 type wireguard || ip tuntap add mode tun name probe0)"),
    ] {
        let there = lab.sh(&format!("{make} 2>/dev/null && ip link delete probe0")).succeeded();
        let said = !lacking.contains(&format!("it has no {name} ("));
        assert_eq!(said, there, "{name}: {lacking}");
    }
}

fn what_is_in_the_way_is_named_with_what_to_do(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.web("blue", "web", &["-p", "8080:80"]);
    for (damage, what, named, undo) in [
        (
            "nft 'add table inet wall; add chain inet wall f { type filter hook forward priority 0; policy drop; }'",
            "policies",
            "bad: chain f of table inet wall drops forwarded packets",
            "nft delete table inet wall",
        ),
        (
            "ip address add 10.81.0.200/25 dev uplink0",
            "addresses",
            "bad: 10.81.0.0/24 of network blue overlaps 10.81.0.200/25 on uplink0",
            "ip address del 10.81.0.200/25 dev uplink0",
        ),
        (
            "ip route add 10.81.0.64/26 via 192.0.2.2",
            "routes",
            "bad: 10.81.0.0/24 of network blue overlaps 10.81.0.64/26 (the host's route through uplink0)",
            "ip route del 10.81.0.64/26",
        ),
        (
            "ip link set uplink0 mtu 1400",
            "MTU",
            "network blue has an MTU of 1500, interface uplink0 one of 1400",
            "ip link set uplink0 mtu 1500",
        ),
        (
            "echo 1 > /proc/sys/net/ipv4/conf/uplink0/rp_filter",
            "rp_filter",
            "note: rp_filter is strict on uplink0",
            "echo 0 > /proc/sys/net/ipv4/conf/uplink0/rp_filter",
        ),
        (
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
            "forwarding",
            "bad: rnet switched it on, and somebody switched it off -> rnet repair",
            "rnet repair",
        ),
        ("nft flush ruleset", "records", "differences, the first: host: missing: firewall", "rnet repair"),
        (
            "ip link add left0 group 1919811585 type bridge",
            "leftovers",
            "note: links with rnet's mark that this instance has no record of: left0",
            "ip link del left0",
        ),
    ] {
        lab.sh(damage).ok();
        let said = about(lab, what);
        assert!(said.contains(named), "after {damage}, about {what}:\n{said}");
        lab.sh(undo).ok();
        assert!(!about(lab, what).contains(named), "after {undo}");
    }
    prepare(&lab.lan, "link set eth0 mtu 1500");
    lab.rn("network rm -f blue").ok();
}
