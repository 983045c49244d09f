//! What must exist for networks whose containers share an interface of the host, as text.

use rnetkit_drivers::{Network, driver};

use super::samples::{self, dual, endpoint, texts};

fn network(driver: &str, options: &[(&str, &str)]) -> Network {
    samples::network(driver, options, &dual())
}

fn endpoint_texts(network: &Network) -> Vec<String> {
    texts(driver(&network.driver).unwrap().endpoint(network, &endpoint(network)).unwrap())
}

#[test]
fn a_macvlan_is_born_in_the_container_and_settled_before_it_is_up() {
    let network = network("macvlan", &[("parent", "lan0"), ("mtu", "1400")]);
    assert_eq!(
        texts(driver("macvlan").unwrap().network(&network).unwrap()),
        ["lan0 of the host, for macvlan"]
    );
    assert_eq!(
        endpoint_texts(&network),
        [
            "macvlan eth0 in the container on lan0 of the host, mode bridge mac 02:42:0a:01:00:02 mtu 1400",
            "no router advertisements on eth0 in the container",
            "no duplicate address detection on eth0 in the container",
            "IPv6 on on eth0 in the container",
            "lo up in the container",
            "address 10.1.0.2/24 on eth0 in the container",
            "address fd00:1::2/64 on eth0 in the container",
            "eth0 up in the container",
            "default route via 10.1.0.1 on eth0 in the container",
            "default route via fd00:1::1 on eth0 in the container",
        ]
    );
}

#[test]
fn an_ipvlan_has_the_hosts_hardware_address() {
    let list = endpoint_texts(&network("ipvlan", &[("parent", "lan0")]));
    assert_eq!(list[0], "ipvlan eth0 in the container on lan0 of the host, mode l2");
    assert_eq!(list[8], "default route via 10.1.0.1 on eth0 in the container");
}

#[test]
fn where_nobody_answers_arp_the_way_out_is_the_link_itself() {
    for mode in ["l3", "l3s"] {
        let list = endpoint_texts(&network("ipvlan", &[("parent", "lan0"), ("ipvlan_mode", mode)]));
        assert_eq!(list[0], format!("ipvlan eth0 in the container on lan0 of the host, mode {mode}"));
        assert_eq!(
            list[8..],
            ["route 0.0.0.0/0 on eth0 in the container", "route ::/0 on eth0 in the container"]
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |name: &str, options: &[(&str, &str)]| {
        driver(name).unwrap().check(&network(name, options)).unwrap_err().to_string()
    };
    for name in ["macvlan", "ipvlan"] {
        assert_eq!(
            refused(name, &[]),
            format!(
                "option \"parent\" of driver {name}: it must be given: the interface of this host that containers share"
            )
        );
        assert!(refused(name, &[("parent", "a/b")]).contains("it must be the name of an interface"));
        assert!(refused(name, &[("parent", "lan0"), ("mtu", "1000")]).contains("1280 with IPv6"));
        assert!(refused(name, &[("parent", "lan0"), ("icc", "true")]).contains("there is no such option"));
    }
    assert!(refused("macvlan", &[("parent", "lan0"), ("mode", "l2")]).contains("bridge, private, vepa"));
    assert!(refused("ipvlan", &[("parent", "lan0"), ("mode", "bridge")]).contains("l2, l3 or l3s"));
    assert!(refused("ipvlan", &[("parent", "lan0"), ("ipvlan_flag", "vepa")]).contains("it must be bridge"));
}

#[test]
fn a_pair_without_a_bridge_is_routed() {
    let mut network = network("ptp", &[]);
    network.pools.truncate(1);
    assert_eq!(
        texts(driver("ptp").unwrap().network(&network).unwrap()),
        [
            "firewall: tables, chains and empty sets",
            "firewall: no IPv4 forwarding for others",
            "IPv4 forwarding",
            "firewall: from 10.1.0.0/24 back into it through the host",
        ]
    );
    let mut endpoint = endpoint(&network);
    endpoint.addresses.truncate(1);
    assert_eq!(
        texts(driver("ptp").unwrap().endpoint(&network, &endpoint).unwrap()),
        [
            "veth vethe5e5e5e5e5e to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500",
            "vethe5e5e5e5e5e is marked rnet:b1b1b1b1b1b1:blue:e5e5e5e5e5e5",
            "IPv6 off on vethe5e5e5e5e5e on the host",
            "no redirects on vethe5e5e5e5e5e on the host",
            "no sources that are elsewhere on vethe5e5e5e5e5e on the host",
            "IPv6 off on eth0 in the container",
            "firewall: vethe5e5e5e5e5e is closed but for replies and published ports",
            "firewall: the member behind vethe5e5e5e5e5e may talk to others",
            "firewall: masquerade IPv4 from vethe5e5e5e5e5e",
            "address 10.1.0.1/32 on vethe5e5e5e5e5e on the host",
            "lo up in the container",
            "address 10.1.0.2/32 on eth0 in the container",
            "eth0 up in the container",
            "route 10.1.0.1/32 on eth0 in the container",
            "route 10.1.0.0/24 via 10.1.0.1 on eth0 in the container",
            "default route via 10.1.0.1 on eth0 in the container",
            "vethe5e5e5e5e5e up on the host",
            "10.1.0.2 is behind vethe5e5e5e5e5e",
        ]
    );
}
