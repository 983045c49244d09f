//! Attacks by way of IPv6, in networks that have it and in networks that do not: first on a network made by hand,
//! where they succeed, then on rnet, where they fail, and beside each the way that must stay open.

use std::{fs, net::Ipv6Addr};

use crate::{
    attacks::address6,
    command::until,
    forge::{
        self, ALL_NODES, ALL_NODES_MAC, Client, IP6, Wire, frame, icmp6, ipv6, link_local, mac,
        neighbour_claim, router_advertisement, udp,
    },
    harness::tests,
    lab::{Lab, Place, mac_of, prepare},
    naive::{self, Ground, Naive, flush},
};

tests! {
    router_advertisements_of_containers_convince_nobody,
    a_network_without_ipv6_has_none,
    nobody_is_taken_in_by_claims_of_anothers_ipv6_address,
    a_container_sends_with_its_own_ipv6_addresses_only,
    a_container_is_no_dhcpv6_server,
    ports_are_published_with_ipv6,
    the_lan_does_not_reach_containers_by_an_ipv6_route,
    members_without_icc_do_not_meet_with_ipv6,
    an_internal_network_is_closed_with_ipv6,
    networks_with_ipv6_do_not_meet,
}

const ROGUE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);

/// The attacker calls itself a router: plainly, behind an extension header, and with another's address.
fn advertise(ground: &Ground) {
    let own = mac(&mac_of(ground.one_ip));
    let wire = Wire::on(&ground.one, "eth0");
    let gateway = link_local(mac(&mac_of(ground.gateway)));
    for from in [link_local(own), gateway] {
        let message = router_advertisement(from, ROGUE);
        wire.send(&frame(ALL_NODES_MAC, own, IP6, &ipv6(from, ALL_NODES, 58, &message)));
        for kind in [0, 60] {
            let padding = [58, 0, 1, 4, 0, 0, 0, 0];
            let packet = ipv6(from, ALL_NODES, kind, &[&padding[..], &message].concat());
            wire.send(&frame(ALL_NODES_MAC, own, IP6, &packet));
        }
    }
}

/// Whether a place believes the rogue router.
fn is_taken_in(place: &Place) -> bool {
    let addresses = place.ip("-6 address").to_string();
    let routes = place.ip("-6 route show table all").to_string();
    addresses.contains("2001:db8:bad")
        || routes.contains("2001:db8:bad")
        || routes.contains("\"protocol\":\"ra\"")
}

fn router_advertisements_of_containers_convince_nobody(lab: &Lab) {
    let naive = Naive::new(lab);
    for (place, link) in [(&lab.host, "naive0"), (&naive.ground.two, "eth0")] {
        let accepts =
            place.inside(|| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra")));
        assert_eq!(accepts.expect("/proc").trim(), "1", "the default of the kernel");
    }
    until("the neighbour is taken in", || {
        advertise(&naive.ground);
        is_taken_in(&naive.ground.two)
    });
    until("the host is taken in", || is_taken_in(&lab.host));
    naive.gone();

    for options in ["", "--ipv6"] {
        let ground = naive::rnet(lab, options, &[]);
        let ear = Wire::on(&ground.two, "eth0");
        let attack = || {
            advertise(&ground);
            forge::for_a_short_while(&fs::File::open("/proc/self/stat").expect("/proc"));
            for place in [&lab.host, &ground.two, &ground.one] {
                assert!(!is_taken_in(place), "{} is taken in, with {options:?}", place.name());
            }
        };
        attack();
        assert!(!ear.hears(" \u{1}\r\u{b8}\u{b}"), "an advertisement arrives");
        flush(lab);
        attack();
        lab.rn("repair").ok();
        lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
        lab.rn("network rm -f blue").ok();
        lab.delete_namespace(&ground.one);
        lab.delete_namespace(&ground.two);
    }
}

fn a_network_without_ipv6_has_none(lab: &Lab) {
    lab.listen_tcp(&lab.host, "[::]:9999");
    let naive = Naive::new(lab);
    let host = link_local(mac(&mac_of(naive.ground.gateway)));
    let scope = naive.ground.one.link("eth0")["ifindex"].clone();
    until("a link-local address is usable", || {
        crate::traffic::tcp_short(&naive.ground.one, &format!("[{host}%{scope}]:9999")).result().is_ok()
    });
    naive.gone();

    let ground = naive::rnet(lab, "", &["-p", "8080:80"]);
    for place in [&lab.host, &ground.one, &ground.two] {
        let shown = place.ip("-6 address show scope link").to_string();
        assert!(!shown.contains("fe80"), "{} has {shown}", place.name());
    }
    // The attacker switches its own back on; the host has none for it.
    ground.one.inside(|| fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").expect("/proc"));
    let host = link_local(mac(&mac_of(ground.gateway)));
    let scope = ground.one.link("eth0")["ifindex"].clone();
    let attack = || {
        lab.no_tcp(&ground.one, &format!("[{host}%{scope}]:9999"));
        prepare(&ground.one, &format!("neigh replace {host} lladdr {} dev eth0", mac_of(ground.gateway)));
        lab.no_tcp(&ground.one, &format!("[{host}%{scope}]:9999"));
    };
    attack();
    flush(lab);
    attack();
    lab.rn("repair").ok();
    lab.tcp(&ground.one, "172.18.0.1:9999").answered_by(&lab.host);
    lab.rn("network rm -f blue").ok();
}

fn neighbour6(place: &Place, ip: &str) -> Option<String> {
    let list = place.ip(&format!("-6 neigh show to {ip} dev eth0"));
    Some(list[0]["lladdr"].as_str()?.to_owned())
}

fn nobody_is_taken_in_by_claims_of_anothers_ipv6_address(lab: &Lab) {
    let claim = |ground: &Ground, address: &str| {
        let own = mac(&mac_of(ground.one_ip));
        let wire = Wire::on(&ground.one, "eth0");
        let address: Ipv6Addr = address.parse().expect("an address");
        for from in [link_local(own), address] {
            let packet = ipv6(from, ALL_NODES, 58, &neighbour_claim(from, address, own));
            wire.send(&frame(ALL_NODES_MAC, own, IP6, &packet));
        }
        // As a question, which tells the asker's hardware address.
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &ALL_NODES.octets(), &[1, 1], &own].concat();
        let packet = ipv6(address, ALL_NODES, 58, &icmp6(address, ALL_NODES, &message));
        wire.send(&frame(ALL_NODES_MAC, own, IP6, &packet));
    };
    lab.listen_tcp(&lab.host, "[::]:9999");
    let naive = Naive::dual_stack(lab);
    let ground = &naive.ground;
    lab.tcp(&ground.two, &format!("[{}]:9999", naive::GATEWAY6)).answered_by(&lab.host);
    until("the neighbour is taken in", || {
        claim(ground, naive::GATEWAY6);
        neighbour6(&ground.two, naive::GATEWAY6) == Some(mac_of(ground.one_ip))
    });
    naive.gone();

    let ground = naive::rnet(lab, "--ipv6", &[]);
    let gateway = gateway6(lab);
    lab.tcp(&ground.two, &format!("[{gateway}]:9999")).answered_by(&lab.host);
    let ear = Wire::on(&ground.two, "eth0");
    claim(&ground, &gateway);
    claim(&ground, &link_local(mac(&mac_of(ground.gateway))).to_string());
    forge::for_a_short_while(&fs::File::open("/proc/self/stat").expect("/proc"));
    assert_eq!(neighbour6(&ground.two, &gateway), Some(mac_of(ground.gateway)));
    drop(ear);
    lab.tcp(&ground.two, &format!("[{gateway}]:9999")).answered_by(&lab.host);
    lab.rn("network rm -f blue").ok();
}

/// The host's IPv6 address on the network `blue`.
fn gateway6(lab: &Lab) -> String {
    let shown = lab.inspect("blue");
    let configs = shown["IPAM"]["Config"].as_array().cloned().unwrap_or_default();
    let gateways = configs.iter().filter_map(|config| config["Gateway"].as_str());
    gateways.filter(|gateway| gateway.contains(':')).map(str::to_owned).next().expect("an IPv6 gateway")
}

fn a_container_sends_with_its_own_ipv6_addresses_only(lab: &Lab) {
    let forged = |ground: &Ground, one: &str, two: &str, other: &str, word: &str| {
        let (own, to) = (mac(&mac_of(ground.one_ip)), mac(&mac_of(ground.two_ip)));
        let wire = Wire::on(&ground.one, "eth0");
        let socket = |ip: &str, port| std::net::SocketAddr::new(ip.parse().expect("an address"), port);
        let packet = |from: &str| udp(socket(from, 4000), socket(two, 7777), word);
        wire.send(&frame(to, own, IP6, &packet(other)));
        wire.send(&frame(to, own, IP6, &packet("fe80::77")));
        wire.send(&frame(to, [2, 0, 0, 0, 0, 9], IP6, &packet(one)));
    };
    let naive = Naive::dual_stack(lab);
    let ear = Wire::on(&naive.ground.two, "eth0");
    forged(&naive.ground, "fd00:30::2", "fd00:30::3", "fd00:30::77", "naive");
    ear.must_hear("naive");
    naive.gone();

    let ground = naive::rnet(lab, "--ipv6", &[]);
    let (one, two) = (address6(lab, "one"), address6(lab, "two"));
    let ear = Wire::on(&ground.two, "eth0");
    forged(&ground, &one, &two, &gateway6(lab), "rnet");
    ear.must_not_hear("rnet");
    Client::new(&ground.one, &format!("[{one}]:0"), &format!("[{two}]:7777")).say("with its own address");
    ear.must_hear("with its own address");
    lab.listen_tcp(&ground.two, &format!("[{two}]:80"));
    lab.tcp(&ground.one, &format!("[{two}]:80")).answered_by(&ground.two).seen_from(&one);
    lab.rn("network rm -f blue").ok();
}

fn a_container_is_no_dhcpv6_server(lab: &Lab) {
    let offer = |ground: &Ground, one: &str, two: &str, word: &str| {
        let (own, to) = (mac(&mac_of(ground.one_ip)), mac(&mac_of(ground.two_ip)));
        let socket = |ip: &str, port| std::net::SocketAddr::new(ip.parse().expect("an address"), port);
        let packet = udp(socket(one, 547), socket(two, 546), word);
        Wire::on(&ground.one, "eth0").send(&frame(to, own, IP6, &packet));
    };
    let naive = Naive::dual_stack(lab);
    let ear = Wire::on(&naive.ground.two, "eth0");
    offer(&naive.ground, "fd00:30::2", "fd00:30::3", "naive offer");
    ear.must_hear("naive offer");
    naive.gone();

    let ground = naive::rnet(lab, "--ipv6", &[]);
    let ear = Wire::on(&ground.two, "eth0");
    offer(&ground, &address6(lab, "one"), &address6(lab, "two"), "rnet offer");
    ear.must_not_hear("rnet offer");
    lab.rn("network rm -f blue").ok();
}

/// From the LAN, from the host itself on every address, from containers, and out again.
fn ports_are_published_with_ipv6(lab: &Lab) {
    let ground = naive::rnet(lab, "--ipv6", &["-p", "8080:80", "-p", "5300:53/udp"]);
    let one = address6(lab, "one");
    lab.listen_tcp(&ground.one, &format!("[{one}]:80"));
    lab.listen_udp(&ground.one, &format!("[{one}]:53"));
    lab.listen_tcp(&lab.lan, "[2001:db8:1::2]:80");
    lab.rn("network create --ipv6 green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    let gateway = gateway6(lab);
    let works = || {
        lab.tcp(&lab.lan, "[2001:db8:1::1]:8080").answered_by(&ground.one).seen_from("2001:db8:1::2");
        lab.udp(&lab.lan, "[2001:db8:1::1]:5300").answered_by(&ground.one).seen_from("2001:db8:1::2");
        for address in ["::1", "2001:db8:1::1", &gateway] {
            lab.tcp(&lab.host, &format!("[{address}]:8080")).answered_by(&ground.one);
            lab.udp(&lab.host, &format!("[{address}]:5300")).answered_by(&ground.one);
        }
        for client in [&ground.one, &ground.two, &stranger] {
            lab.tcp(client, "[2001:db8:1::1]:8080").answered_by(&ground.one);
            lab.udp(client, "[2001:db8:1::1]:5300").answered_by(&ground.one);
        }
        lab.tcp(&ground.two, "[2001:db8:1::2]:80").answered_by(&lab.lan).seen_from("2001:db8:1::1");
    };
    works();
    flush(lab);
    lab.no_tcp(&lab.host, "[::1]:8080");
    lab.rn("repair").ok();
    works();
    lab.rn("network rm -f blue green").ok();
}

fn the_lan_does_not_reach_containers_by_an_ipv6_route(lab: &Lab) {
    prepare(&lab.lan, "route add fc00::/7 via 2001:db8:1::1\n route add 2001:db8:77::/64 via 2001:db8:1::1");
    let naive = Naive::dual_stack(lab);
    lab.listen_tcp(&naive.ground.one, "[fd00:30::2]:81");
    lab.tcp(&lab.lan, "[fd00:30::2]:81").answered_by(&naive.ground.one);
    naive.gone();

    for options in ["--ipv6", "--ipv6 --subnet 2001:db8:77::/64"] {
        let ground = naive::rnet(lab, options, &["-p", "8080:80"]);
        let (one, gateway) = (address6(lab, "one"), gateway6(lab));
        lab.listen_tcp(&ground.one, &format!("[{one}]:80"));
        lab.listen_tcp(&ground.one, &format!("[{one}]:81"));
        lab.listen_tcp(&lab.host, &format!("[{gateway}]:5353"));
        let ear = Wire::on(&ground.one, "eth0");
        let attack = || {
            for port in [80, 81] {
                lab.no_tcp(&lab.lan, &format!("[{one}]:{port}"));
            }
            lab.no_tcp(&lab.lan, &format!("[{gateway}]:5353"));
            Client::new(&lab.lan, "[::]:0", &format!("[{one}]:7777")).say("one way in");
            ear.must_not_hear("one way in");
            lab.tcp(&lab.lan, "[2001:db8:1::1]:8080").answered_by(&ground.one).seen_from("2001:db8:1::2");
            lab.tcp(&ground.two, &format!("[{gateway}]:5353")).answered_by(&lab.host);
        };
        attack();
        flush(lab);
        lab.rn("repair").ok();
        attack();
        lab.silence(&lab.host);
        lab.rn("network rm -f blue").ok();
        lab.delete_namespace(&ground.one);
        lab.delete_namespace(&ground.two);
    }
}

fn members_without_icc_do_not_meet_with_ipv6(lab: &Lab) {
    let ground = naive::rnet(lab, "--ipv6 -o icc=false", &["-p", "8080:80"]);
    let (one, two) = (address6(lab, "one"), address6(lab, "two"));
    for (place, address) in [(&ground.one, &one), (&ground.two, &two)] {
        lab.listen_tcp(place, &format!("[{address}]:80"));
    }
    let ear = Wire::on(&ground.two, "eth0");
    let own = mac(&mac_of(ground.one_ip));
    let socket = |ip: &str, port| std::net::SocketAddr::new(ip.parse().expect("an address"), port);
    let apart = |by: &str, word: &str| {
        lab.no_tcp(&ground.one, &format!("[{two}]:80"));
        let wire = Wire::on(&ground.one, "eth0");
        let packet = udp(socket(&one, 4000), socket(&two, 7777), word);
        wire.send(&frame(mac(&mac_of(by)), own, IP6, &packet));
        let local = [link_local(own), link_local(mac(&mac_of(ground.two_ip)))].map(|ip| ip.to_string());
        let packet = udp(socket(&local[0], 4000), socket(&local[1], 7777), word);
        wire.send(&frame(mac(&mac_of(by)), own, IP6, &packet));
        ear.must_not_hear(word);
    };
    apart(ground.two_ip, "directly");
    apart(ground.gateway, "by the gateway");
    lab.tcp(&lab.lan, "[2001:db8:1::1]:8080").answered_by(&ground.one);
    lab.tcp(&lab.host, &format!("[{two}]:80")).answered_by(&ground.two);
    flush(lab);
    apart(ground.two_ip, "directly after the rules are gone");
    lab.rn("repair").ok();
    apart(ground.gateway, "by the gateway after repair");
    lab.rn("network rm -f blue").ok();
}

fn an_internal_network_is_closed_with_ipv6(lab: &Lab) {
    lab.listen_tcp(&lab.host, "[::]:9999");
    lab.listen_tcp(&lab.lan, "[2001:db8:1::2]:80");
    prepare(&lab.lan, "route add fc00::/7 via 2001:db8:1::1");
    let naive = Naive::dual_stack(lab);
    lab.tcp(&naive.ground.one, "[2001:db8:1::1]:9999").answered_by(&lab.host);
    naive.gone();

    let ground = naive::rnet(lab, "--ipv6 --internal", &[]);
    lab.rn("network create --ipv6 green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    let (one, two, gateway) = (address6(lab, "one"), address6(lab, "two"), gateway6(lab));
    lab.listen_tcp(&ground.one, &format!("[{one}]:80"));
    lab.listen_tcp(&ground.two, &format!("[{two}]:80"));
    prepare(&ground.one, &format!("route add default via {gateway}"));
    let local = link_local(mac(&mac_of(ground.gateway)));
    let scope = ground.one.link("eth0")["ifindex"].clone();
    let ear = Wire::on(&ground.one, "eth0");
    for address in [gateway.as_str(), "2001:db8:1::1", &format!("{local}%{scope}")] {
        lab.no_tcp(&ground.one, &format!("[{address}]:9999"));
    }
    lab.no_tcp(&ground.one, "[2001:db8:1::2]:80");
    lab.no_tcp(&lab.lan, &format!("[{one}]:80"));
    lab.no_tcp(&stranger, &format!("[{one}]:80"));
    Client::new(&lab.lan, "[::]:0", &format!("[{one}]:7777")).say("one way in");
    ear.must_not_hear("one way in");
    lab.tcp(&ground.one, &format!("[{two}]:80")).answered_by(&ground.two).seen_from(&one);
    lab.rn("network rm -f blue green").ok();
}

fn networks_with_ipv6_do_not_meet(lab: &Lab) {
    let ground = naive::rnet(lab, "--ipv6", &["-p", "8080:80"]);
    lab.rn("network create --ipv6 green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    let (one, gateway) = (address6(lab, "one"), gateway6(lab));
    lab.listen_tcp(&ground.one, &format!("[{one}]:80"));
    lab.listen_tcp(&lab.host, "[::]:9999");
    let ear = Wire::on(&ground.one, "eth0");
    lab.no_tcp(&stranger, &format!("[{one}]:80"));
    lab.no_tcp(&stranger, &format!("[{gateway}]:9999"));
    Client::new(&stranger, "[::]:0", &format!("[{one}]:7777")).say("one way across");
    ear.must_not_hear("one way across");
    lab.tcp(&stranger, "[2001:db8:1::1]:8080").answered_by(&ground.one);
    lab.rn("network rm -f blue green").ok();
}
