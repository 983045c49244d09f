//! What must exist, as text: for networks and endpoints of every kind that the drivers know.

use std::fmt::Display;

use rnetkit_drivers::{Endpoint, Network, Pool, PortMapping, Protocol, Publication, driver, port::wildcard};

use super::samples::{self, dual, pool};

/// A bridge network with a subnet of each family that is given.
fn network(options: &[(&str, &str)], pools: &[Pool]) -> Network {
    samples::network("bridge", options, pools)
}

fn ipv4() -> Vec<Pool> {
    vec![pool("10.1.0.0/24", "10.1.0.1")]
}

/// The container `web` with an address of each subnet, the gateways, and these ports.
fn endpoint(network: &Network, ports: &[&str]) -> Endpoint {
    let mut endpoint = samples::endpoint(network);
    for port in ports {
        let mapping: PortMapping = port.parse().unwrap();
        for address in &endpoint.addresses {
            endpoint.ports.push(Publication {
                host: mapping.host.unwrap_or_else(|| wildcard(address.is_ipv6())),
                host_ports: mapping.host_ports.unwrap(),
                target: address.ip(),
                target_ports: mapping.container_ports,
                protocol: mapping.protocol,
                gateway: network.pools.iter().find_map(|pool| pool.gateway),
                service: None,
            });
        }
    }
    endpoint
}

fn text<T: Display>(list: Vec<T>) -> String {
    list.into_iter().map(|resource| format!("{resource}\n")).collect()
}

fn network_text(network: &Network) -> String {
    text(driver(&network.driver).unwrap().network(network).unwrap())
}

fn endpoint_text(network: &Network, endpoint: &Endpoint) -> String {
    text(driver(&network.driver).unwrap().endpoint(network, endpoint).unwrap())
}

/// The lines that only one of the two has, as `diff` shows them.
fn difference(a: &str, b: &str) -> String {
    let only = |mark: char, a: &str, b: &str| -> String {
        a.lines()
            .filter(|line| !b.lines().any(|other| other == *line))
            .map(|line| format!("{mark} {line}\n"))
            .collect()
    };
    only('-', a, b) + &only('+', b, a)
}

/// How a network's list differs from the plain one's.
fn network_differs(changed: &Network, plain: &Network) -> String {
    difference(&network_text(plain), &network_text(changed))
}

#[test]
fn a_network_is_closed_before_its_bridge_is_up() {
    assert_eq!(
        network_text(&network(&[], &ipv4())),
        "firewall: tables, chains and empty sets\n\
         firewall: no IPv4 forwarding for others\n\
         IPv4 forwarding\n\
         bridge rn-b1b1b1b1b1b1 mac 02:42:0a:01:00:01 mtu 1500\n\
         IPv6 off on rn-b1b1b1b1b1b1 on the host\n\
         no redirects on rn-b1b1b1b1b1b1 on the host\n\
         firewall: rn-b1b1b1b1b1b1 is closed but for replies and published ports\n\
         firewall: from 10.1.0.0/24 back into it through the host\n\
         firewall: members of rn-b1b1b1b1b1b1 may talk to each other\n\
         firewall: masquerade IPv4 from rn-b1b1b1b1b1b1\n\
         firewall: members of rn-b1b1b1b1b1b1 may ask the host for names\n\
         firewall: 10.1.0.1 answers on rn-b1b1b1b1b1b1 only\n\
         address 10.1.0.1/24 on rn-b1b1b1b1b1b1 on the host\n\
         rn-b1b1b1b1b1b1 up on the host\n"
    );
}

#[test]
fn an_endpoint_is_pinned_and_isolated_before_it_is_up_and_up_last() {
    let network = network(&[], &ipv4());
    assert_eq!(
        endpoint_text(&network, &endpoint(&network, &["8080:80"])),
        "veth vethe5e5e5e5e5e on rn-b1b1b1b1b1b1 to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500\n\
         IPv6 off on vethe5e5e5e5e5e on the host\n\
         IPv6 off on eth0 in the container\n\
         lo up in the container\n\
         address 10.1.0.2/24 on eth0 in the container\n\
         eth0 up in the container\n\
         default route via 10.1.0.1 on eth0 in the container\n\
         firewall: vethe5e5e5e5e5e sends as 02:42:0a:01:00:02 only\n\
         firewall: vethe5e5e5e5e5e sends as 10.1.0.2 only\n\
         publish 0.0.0.0:8080/tcp to 10.1.0.2:80\n\
         port vethe5e5e5e5e5e: behind it 02:42:0a:01:00:02, hairpin\n\
         vethe5e5e5e5e5e up on the host\n"
    );
}

#[test]
fn the_default_bridge_has_a_name_of_its_own() {
    let named = Network { name: "bridge".parse().unwrap(), ..network(&[], &ipv4()) };
    let first = network_text(&named).lines().find(|line| line.starts_with("bridge")).map(str::to_owned);
    assert_eq!(first.as_deref(), Some("bridge rnet0 mac 02:42:0a:01:00:01 mtu 1500"));
}

#[test]
fn a_network_without_a_subnet_has_a_bridge_without_an_address() {
    assert_eq!(
        network_text(&network(&[], &[])),
        "firewall: tables, chains and empty sets\n\
         bridge rn-b1b1b1b1b1b1 mac 02:42:b1:b1:b1:b1 mtu 1500\n\
         IPv6 off on rn-b1b1b1b1b1b1 on the host\n\
         no redirects on rn-b1b1b1b1b1b1 on the host\n\
         firewall: rn-b1b1b1b1b1b1 is closed but for replies and published ports\n\
         firewall: members of rn-b1b1b1b1b1b1 may talk to each other\n\
         rn-b1b1b1b1b1b1 up on the host\n"
    );
}

#[test]
fn both_families_get_the_same() {
    let network = network(&[], &dual());
    assert_eq!(
        network_text(&network),
        "firewall: tables, chains and empty sets\n\
         firewall: no IPv4 forwarding for others\n\
         IPv4 forwarding\n\
         firewall: no IPv6 forwarding for others\n\
         IPv6 forwarding\n\
         bridge rn-b1b1b1b1b1b1 mac 02:42:0a:01:00:01 mtu 1500\n\
         no router advertisements on rn-b1b1b1b1b1b1 on the host\n\
         no duplicate address detection on rn-b1b1b1b1b1b1 on the host\n\
         IPv6 on on rn-b1b1b1b1b1b1 on the host\n\
         no redirects on rn-b1b1b1b1b1b1 on the host\n\
         firewall: rn-b1b1b1b1b1b1 is closed but for replies and published ports\n\
         firewall: from 10.1.0.0/24 back into it through the host\n\
         firewall: from fd00:1::/64 back into it through the host\n\
         firewall: members of rn-b1b1b1b1b1b1 may talk to each other\n\
         firewall: masquerade IPv4 from rn-b1b1b1b1b1b1\n\
         firewall: masquerade IPv6 from rn-b1b1b1b1b1b1\n\
         firewall: members of rn-b1b1b1b1b1b1 may ask the host for names\n\
         firewall: 10.1.0.1 answers on rn-b1b1b1b1b1b1 only\n\
         firewall: fd00:1::1 answers on rn-b1b1b1b1b1b1 only\n\
         address 10.1.0.1/24 on rn-b1b1b1b1b1b1 on the host\n\
         address fd00:1::1/64 on rn-b1b1b1b1b1b1 on the host\n\
         rn-b1b1b1b1b1b1 up on the host\n"
    );
    assert_eq!(
        endpoint_text(&network, &endpoint(&network, &["8080:80", "53:5353/udp"])),
        "veth vethe5e5e5e5e5e on rn-b1b1b1b1b1b1 to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500\n\
         IPv6 off on vethe5e5e5e5e5e on the host\n\
         no router advertisements on eth0 in the container\n\
         no duplicate address detection on eth0 in the container\n\
         IPv6 on on eth0 in the container\n\
         lo up in the container\n\
         address 10.1.0.2/24 on eth0 in the container\n\
         address fd00:1::2/64 on eth0 in the container\n\
         eth0 up in the container\n\
         default route via 10.1.0.1 on eth0 in the container\n\
         default route via fd00:1::1 on eth0 in the container\n\
         firewall: vethe5e5e5e5e5e sends as 02:42:0a:01:00:02 only\n\
         firewall: vethe5e5e5e5e5e sends as 10.1.0.2 only\n\
         firewall: vethe5e5e5e5e5e sends as fd00:1::2 only\n\
         firewall: vethe5e5e5e5e5e sends as fe80::42:aff:fe01:2 only\n\
         publish 0.0.0.0:8080/tcp to 10.1.0.2:80\n\
         publish [::]:8080/tcp to [fd00:1::2]:80\n\
         publish 0.0.0.0:53/udp to 10.1.0.2:5353\n\
         publish [::]:53/udp to [fd00:1::2]:5353\n\
         port vethe5e5e5e5e5e: behind it 02:42:0a:01:00:02, hairpin\n\
         vethe5e5e5e5e5e up on the host\n"
    );
}

#[test]
fn a_network_with_ipv6_alone_forwards_no_ipv4() {
    let network = network(&[], &[pool("fd00:1::/64", "fd00:1::1")]);
    assert_eq!(
        network_text(&network),
        "firewall: tables, chains and empty sets\n\
         firewall: no IPv6 forwarding for others\n\
         IPv6 forwarding\n\
         bridge rn-b1b1b1b1b1b1 mac 02:42:00:00:00:01 mtu 1500\n\
         no router advertisements on rn-b1b1b1b1b1b1 on the host\n\
         no duplicate address detection on rn-b1b1b1b1b1b1 on the host\n\
         IPv6 on on rn-b1b1b1b1b1b1 on the host\n\
         no redirects on rn-b1b1b1b1b1b1 on the host\n\
         firewall: rn-b1b1b1b1b1b1 is closed but for replies and published ports\n\
         firewall: from fd00:1::/64 back into it through the host\n\
         firewall: members of rn-b1b1b1b1b1b1 may talk to each other\n\
         firewall: masquerade IPv6 from rn-b1b1b1b1b1b1\n\
         firewall: members of rn-b1b1b1b1b1b1 may ask the host for names\n\
         firewall: fd00:1::1 answers on rn-b1b1b1b1b1b1 only\n\
         address fd00:1::1/64 on rn-b1b1b1b1b1b1 on the host\n\
         rn-b1b1b1b1b1b1 up on the host\n"
    );
}

#[test]
fn an_internal_network_has_no_way_out() {
    let plain = network(&[], &ipv4());
    let internal = Network { internal: true, ..plain.clone() };
    assert_eq!(
        network_differs(&internal, &plain),
        "- firewall: no IPv4 forwarding for others\n\
         - IPv4 forwarding\n\
         - firewall: masquerade IPv4 from rn-b1b1b1b1b1b1\n\
         + firewall: rn-b1b1b1b1b1b1 has no way in or out\n"
    );
}

#[test]
fn an_isolated_internal_network_has_no_host_either() {
    let plain = Network { internal: true, ..network(&[], &dual()) };
    let modes = [("gateway-mode-ipv4", "isolated"), ("gateway-mode-ipv6", "isolated")];
    let isolated = Network { internal: true, ..network(&modes, &dual()) };
    assert_eq!(
        network_differs(&isolated, &plain),
        "- firewall: members of rn-b1b1b1b1b1b1 may ask the host for names\n\
         - firewall: 10.1.0.1 answers on rn-b1b1b1b1b1b1 only\n\
         - firewall: fd00:1::1 answers on rn-b1b1b1b1b1b1 only\n\
         - address 10.1.0.1/24 on rn-b1b1b1b1b1b1 on the host\n\
         - address fd00:1::1/64 on rn-b1b1b1b1b1b1 on the host\n"
    );
}

#[test]
fn without_icc_ports_are_isolated_from_each_other() {
    let plain = network(&[], &ipv4());
    let silent = network(&[("com.docker.network.bridge.enable_icc", "false")], &ipv4());
    assert_eq!(
        network_differs(&silent, &plain),
        "- firewall: members of rn-b1b1b1b1b1b1 may talk to each other\n"
    );
    let of = |network: &Network| endpoint_text(network, &endpoint(network, &[]));
    assert_eq!(
        difference(&of(&plain), &of(&silent)),
        "- port vethe5e5e5e5e5e: behind it 02:42:0a:01:00:02\n\
         + port vethe5e5e5e5e5e: behind it 02:42:0a:01:00:02, isolated\n"
    );
}

#[test]
fn without_masquerade_addresses_are_seen_outside() {
    let plain = network(&[], &dual());
    assert_eq!(
        network_differs(&network(&[("masquerade", "false")], &dual()), &plain),
        "- firewall: masquerade IPv4 from rn-b1b1b1b1b1b1\n\
         - firewall: masquerade IPv6 from rn-b1b1b1b1b1b1\n"
    );
}

#[test]
fn a_routed_network_opens_ports_on_the_containers_own_address() {
    let plain = network(&[], &dual());
    let routed = network(&[("gateway-mode-ipv4", "routed"), ("gateway-mode-ipv6", "routed")], &dual());
    assert_eq!(
        network_differs(&routed, &plain),
        "- firewall: masquerade IPv4 from rn-b1b1b1b1b1b1\n\
         - firewall: masquerade IPv6 from rn-b1b1b1b1b1b1\n"
    );
    let of = |network: &Network| {
        endpoint_text(network, &endpoint(network, &["8080:80", "5000-5002:6000-6002/udp"]))
    };
    assert_eq!(
        difference(&of(&plain), &of(&routed)),
        "- publish 0.0.0.0:8080/tcp to 10.1.0.2:80\n\
         - publish [::]:8080/tcp to [fd00:1::2]:80\n\
         - publish 0.0.0.0:5000-5002/udp to 10.1.0.2:6000-6002\n\
         - publish [::]:5000-5002/udp to [fd00:1::2]:6000-6002\n\
         + firewall: open 10.1.0.2:80/tcp\n\
         + firewall: open [fd00:1::2]:80/tcp\n\
         + firewall: open 10.1.0.2:6000-6002/udp\n\
         + firewall: open [fd00:1::2]:6000-6002/udp\n"
    );
}

#[test]
fn a_routed_network_opens_each_port_once_however_often_it_is_published() {
    let routed = network(&[("gateway-mode-ipv4", "routed")], &ipv4());
    let ports =
        ["8080:80", "8081:80", "1000-1009:80-89", "1020-1024:85-89", "1030-1034:90-94", "8080:80/udp"];
    let list = endpoint_text(&routed, &endpoint(&routed, &ports));
    let open: Vec<&str> = list.lines().filter(|line| line.contains(": open ")).collect();
    assert_eq!(
        open,
        [
            "firewall: open 10.1.0.2:80-89/tcp",
            "firewall: open 10.1.0.2:90-94/tcp",
            "firewall: open 10.1.0.2:80/udp"
        ]
    );
}

#[test]
fn an_unprotected_network_is_open_to_whoever_has_a_route() {
    let plain = network(&[], &dual());
    let open = network(&[("gateway-mode-ipv4", "nat-unprotected")], &dual());
    assert_eq!(network_differs(&open, &plain), "+ firewall: rn-b1b1b1b1b1b1 is open with IPv4\n");
}

#[test]
fn an_inhibited_bridge_has_no_ipv4_address() {
    let plain = network(&[], &dual());
    assert_eq!(
        network_differs(&network(&[("inhibit-ipv4", "true")], &dual()), &plain),
        "- firewall: 10.1.0.1 answers on rn-b1b1b1b1b1b1 only\n\
         - address 10.1.0.1/24 on rn-b1b1b1b1b1b1 on the host\n"
    );
}

#[test]
fn without_spoof_check_nothing_is_pinned() {
    let plain = network(&[], &dual());
    let loose = network(&[("spoof-check", "false")], &dual());
    assert_eq!(network_differs(&loose, &plain), "");
    let of = |network: &Network| endpoint_text(network, &endpoint(network, &[]));
    assert_eq!(
        difference(&of(&plain), &of(&loose)),
        "- firewall: vethe5e5e5e5e5e sends as 02:42:0a:01:00:02 only\n\
         - firewall: vethe5e5e5e5e5e sends as 10.1.0.2 only\n\
         - firewall: vethe5e5e5e5e5e sends as fd00:1::2 only\n\
         - firewall: vethe5e5e5e5e5e sends as fe80::42:aff:fe01:2 only\n\
         - port vethe5e5e5e5e5e: behind it 02:42:0a:01:00:02\n\
         + port vethe5e5e5e5e5e: behind it whatever it learns\n"
    );
}

#[test]
fn a_hardware_address_of_its_own_is_pinned() {
    let network = network(&[], &ipv4());
    let plain = endpoint(&network, &[]);
    let own = Endpoint { mac: "02:00:00:00:00:07".parse().unwrap(), ..plain.clone() };
    assert_eq!(
        difference(&endpoint_text(&network, &plain), &endpoint_text(&network, &own)),
        "- veth vethe5e5e5e5e5e on rn-b1b1b1b1b1b1 to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500\n\
         - firewall: vethe5e5e5e5e5e sends as 02:42:0a:01:00:02 only\n\
         - port vethe5e5e5e5e5e: behind it 02:42:0a:01:00:02\n\
         + veth vethe5e5e5e5e5e on rn-b1b1b1b1b1b1 to eth0 in the container, mac 02:00:00:00:00:07 mtu 1500\n\
         + firewall: vethe5e5e5e5e5e sends as 02:00:00:00:00:07 only\n\
         + port vethe5e5e5e5e5e: behind it 02:00:00:00:00:07\n"
    );
}

#[test]
fn name_and_size_are_those_of_the_options() {
    let plain = network(&[], &ipv4());
    let own = network(&[("name", "br-blue"), ("mtu", "9000")], &ipv4());
    assert_eq!(
        network_differs(&own, &plain).lines().find(|line| line.starts_with("+ bridge")),
        Some("+ bridge br-blue mac 02:42:0a:01:00:01 mtu 9000")
    );
    let veth = endpoint_text(&own, &endpoint(&own, &[]));
    assert_eq!(
        veth.lines().next(),
        Some("veth vethe5e5e5e5e5e on br-blue to eth0 in the container, mac 02:42:0a:01:00:02 mtu 9000")
    );
}

#[test]
fn an_endpoint_that_is_not_the_gateway_has_no_default_route() {
    let network = network(&[], &dual());
    let plain = endpoint(&network, &[]);
    let second = Endpoint { gateways: Vec::new(), ..plain.clone() };
    assert_eq!(
        difference(&endpoint_text(&network, &plain), &endpoint_text(&network, &second)),
        "- default route via 10.1.0.1 on eth0 in the container\n\
         - default route via fd00:1::1 on eth0 in the container\n"
    );
}

#[test]
fn every_address_is_pinned_and_set() {
    let network = network(&[], &ipv4());
    let plain = endpoint(&network, &[]);
    let mut several = plain.clone();
    several.addresses.push("10.1.0.9/24".parse().unwrap());
    assert_eq!(
        difference(&endpoint_text(&network, &plain), &endpoint_text(&network, &several)),
        "+ address 10.1.0.9/24 on eth0 in the container\n\
         + firewall: vethe5e5e5e5e5e sends as 10.1.0.9 only\n"
    );
}

#[test]
fn every_form_of_a_published_port_is_one_line() {
    let network = network(&[], &ipv4());
    let mut wanted =
        endpoint(&network, &["8080:80", "127.0.0.1:53:53/udp", "9000-9002:9000-9002", "7000:7000/sctp"]);
    wanted.ports.retain(|port| port.protocol != Protocol::Udp || port.host.is_loopback());
    let list = endpoint_text(&network, &wanted);
    let ports: Vec<&str> = list.lines().filter(|line| line.starts_with("publish")).collect();
    assert_eq!(
        ports,
        [
            "publish 0.0.0.0:8080/tcp to 10.1.0.2:80",
            "publish 127.0.0.1:53/udp to 10.1.0.2:53",
            "publish 0.0.0.0:9000-9002/tcp to 10.1.0.2:9000-9002",
            "publish 0.0.0.0:7000/sctp to 10.1.0.2:7000",
        ]
    );
}

#[test]
fn host_and_none_need_nothing() {
    for name in ["host", "null"] {
        let network = Network { driver: name.to_owned(), ..network(&[], &[]) };
        assert_eq!(network_text(&network), "");
        assert_eq!(endpoint_text(&network, &endpoint(&network, &[])), "");
    }
}

#[test]
fn none_and_null_are_one_driver() {
    assert_eq!(driver("none").map(|driver| driver.name()), Some("null"));
    assert!(driver("nothing").is_none());
}

#[test]
fn the_same_input_gives_the_same_list_and_no_resource_twice() {
    let network = network(&[], &dual());
    let endpoint = endpoint(&network, &["8080:80", "8081:81"]);
    let bridge = driver("bridge").unwrap();
    let lists = || [bridge.network(&network).unwrap(), bridge.endpoint(&network, &endpoint).unwrap()];
    assert_eq!(lists(), lists());
    for list in lists() {
        for (number, resource) in list.iter().enumerate() {
            assert!(!list[..number].contains(resource), "{resource} is twice in the list");
        }
    }
}

#[test]
fn nothing_lives_on_a_link_that_comes_later() {
    let network = network(&[], &dual());
    let bridge = driver("bridge").unwrap();
    let mut list = bridge.network(&network).unwrap();
    list.extend(bridge.endpoint(&network, &endpoint(&network, &["8080:80"])).unwrap());
    for (number, resource) in list.iter().enumerate() {
        let Some((place, link)) = resource.lives_on().filter(|(_, link)| link.as_str() != "lo") else {
            continue;
        };
        assert!(list[..number].iter().any(|carrier| carrier.carries(place, link)), "{resource}");
    }
}

#[test]
fn options_are_refused_with_what_they_must_be() {
    let refused = |options: &[(&str, &str)]| {
        let network = network(options, &dual());
        driver("bridge").unwrap().check(&network).unwrap_err().to_string()
    };
    let texts = [
        refused(&[("mtu", "1000")]),
        refused(&[("mtu", "big")]),
        refused(&[("mtuu", "1500")]),
        refused(&[("icc", "perhaps")]),
        refused(&[("name", "br*")]),
        refused(&[("name", "a-name-of-16-chrs")]),
        refused(&[("iface-prefix", "a-long-prefix")]),
        refused(&[("iface-prefix", "e/")]),
        refused(&[("host-binding-ipv4", "10.0.0.300")]),
        refused(&[("gateway-mode-ipv4", "isolated")]),
        refused(&[("gateway-mode-ipv6", "open")]),
        refused(&[("mtu", "1400"), ("com.docker.network.driver.mtu", "1500")]),
    ];
    assert_eq!(
        texts,
        [
            "option \"mtu\" of driver bridge: \"1000\" is refused: it must be a number of bytes from 68 to 65535, and from 1280 with IPv6",
            "option \"mtu\" of driver bridge: \"big\" is refused: it must be a number of bytes from 68 to 65535, and from 1280 with IPv6",
            "option \"mtuu\" of driver bridge: there is no such option",
            "option \"icc\" of driver bridge: \"perhaps\" is refused: it must be true or false",
            "option \"name\" of driver bridge: \"br*\" is refused: it must be an interface name of at most 15 letters, digits, '_', '.' or '-'",
            "option \"name\" of driver bridge: \"a-name-of-16-chrs\" is refused: it must be an interface name of at most 15 letters, digits, '_', '.' or '-'",
            "option \"iface-prefix\" of driver bridge: \"a-long-prefix\" is refused: it must be 1 to 12 letters, digits, '_', '.' or '-'",
            "option \"iface-prefix\" of driver bridge: \"e/\" is refused: it must be 1 to 12 letters, digits, '_', '.' or '-'",
            "option \"host-binding-ipv4\" of driver bridge: \"10.0.0.300\" is refused: it must be an IP address",
            "option \"gateway-mode-ipv4\" of driver bridge: \"isolated\" is refused: it is for internal networks only",
            "option \"gateway-mode-ipv6\" of driver bridge: \"open\" is refused: it must be nat, nat-unprotected, routed or, for internal networks, isolated",
            "option \"mtu\" of driver bridge: it contradicts \"com.docker.network.driver.mtu\", which is the same option",
        ]
    );
}

#[test]
fn an_endpoints_options_are_refused_with_what_they_must_be() {
    let network = network(&[], &ipv4());
    let refused = |key: &str, value: &str| {
        let options = [(key.to_owned(), value.to_owned())].into();
        let endpoint = Endpoint { options, ..endpoint(&network, &[]) };
        driver("bridge").unwrap().endpoint(&network, &endpoint).unwrap_err().to_string()
    };
    assert_eq!(
        [refused("ifname", "eth 0"), refused("ifnam", "eth0")],
        [
            "option \"ifname\" of driver bridge: \"eth 0\" is refused: it must be an interface name of at most 15 letters, digits, '_', '.' or '-'",
            "option \"ifnam\" of driver bridge: there is no such option",
        ]
    );
}
