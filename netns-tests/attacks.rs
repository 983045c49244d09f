//! Attacks on the host's boundary and on published ports: first on a network made by hand, where they succeed, then
//! on rnet, where they fail, and beside each the way that must stay open.

use std::fs;

use crate::{
    command::until,
    forge::{self, Client, Wire, mac, tcp_from_port, udp},
    harness::tests,
    lab::{HOST, LAN, Lab, Place, prepare},
    naive::{self, Naive, flush, no_second_lan, second_lan},
    traffic::{Failure, tcp_short, udp_short},
};

tests! {
    a_container_does_not_reach_the_hosts_loopback,
    the_lan_does_not_reach_ports_published_on_the_loopback,
    the_lan_does_not_reach_containers_by_a_route,
    nobody_outside_passes_for_a_container,
    the_host_is_no_router_for_strangers,
    an_admins_router_routes_on,
    one_way_traffic_of_an_admins_router_is_not_judged,
    traffic_through_the_host_is_not_hijacked,
    the_way_back_to_the_loopback_is_for_replies_only,
    the_hosts_address_on_a_bridge_answers_on_that_bridge_only,
    an_admins_own_drop_still_drops,
    clients_of_published_ports_keep_their_address,
    a_udp_flow_follows_its_port_to_another_container,
    a_udp_flow_that_began_before_its_port_was_published_follows_it,
    udp_flows_of_other_ports_and_addresses_stay,
    a_network_that_is_open_on_purpose_is_open,
    a_routed_network_is_open_on_its_ports_only,
    an_isolated_network_has_no_host_in_it,
}

/// A published TCP port as tutorials have it.
fn naive_publish(naive: &Naive<'_>, extra: &str) {
    naive.nft(&format!(
        "table ip naive {{
           chain pre {{ type nat hook prerouting priority -100; {extra} tcp dport 8080 dnat to 172.30.0.2:80; }}
           chain here {{ type nat hook output priority -100; {extra} tcp dport 8080 dnat to 172.30.0.2:80; }}
         }}"
    ));
}

/// Makes a place send to and receive from loopback addresses over the wire, by way of this neighbour.
fn loopback_over_the_wire(place: &Place, by: &str) {
    place.inside(|| {
        for link in ["all", "eth0"] {
            for (switch, value) in [("route_localnet", "1"), ("rp_filter", "0")] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{link}/{switch}"), value)
                    .expect("a place of our own");
            }
        }
    });
    prepare(
        place,
        &format!(
            "address del 127.0.0.1/8 dev lo
             route add 127.0.0.1/32 via {by}
             route add 127.0.0.2/32 via {by}"
        ),
    );
}

fn a_container_does_not_reach_the_hosts_loopback(lab: &Lab) {
    lab.listen_tcp(&lab.host, "127.0.0.1:9999");
    lab.listen_udp(&lab.host, "127.0.0.1:9999");

    let naive = Naive::new(lab);
    // The usual way to publish on the loopback.
    fs::write("/proc/sys/net/ipv4/conf/naive0/route_localnet", "1").expect("/proc");
    loopback_over_the_wire(&naive.ground.one, naive.ground.gateway);
    lab.tcp(&naive.ground.one, "127.0.0.1:9999").answered_by(&lab.host);
    naive.gone();

    let ground = naive::rnet(lab, "", &["-p", "127.0.0.1:8080:80", "-p", "8081:80"]);
    loopback_over_the_wire(&ground.two, ground.gateway);
    let attack = || {
        for to in ["127.0.0.1:9999", "127.0.0.1:8080", "127.0.0.1:8081"] {
            lab.no_tcp(&ground.two, to);
        }
        lab.no_udp(&ground.two, "127.0.0.1:9999");
        lab.tcp(&lab.host, "127.0.0.1:9999").answered_by(&lab.host);
    };
    attack();
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&ground.one);
    flush(lab);
    attack();
    lab.no_tcp(&lab.host, "127.0.0.1:8080");
    lab.rn("repair").ok();
    attack();
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&ground.one);
    lab.rn("network rm -f blue").ok();
}

fn the_lan_does_not_reach_ports_published_on_the_loopback(lab: &Lab) {
    loopback_over_the_wire(&lab.lan, HOST);
    prepare(&lab.lan, "address del ::1/128 dev lo\n route add ::1/128 via 2001:db8:1::1");

    let naive = Naive::new(lab);
    naive_publish(&naive, "ip daddr 127.0.0.0/8");
    lab.tcp(&lab.lan, "127.0.0.1:8080").answered_by(&naive.ground.one);
    lab.tcp(&lab.lan, "127.0.0.2:8080").answered_by(&naive.ground.one);
    naive.gone();

    let publish = ["-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:5300:53/udp", "-p", "[::1]:8080:80"];
    let ground = naive::rnet(lab, "--ipv6", &publish);
    lab.listen_tcp(&ground.one, &format!("[{}]:80", address6(lab, "one")));
    lab.listen_udp(&ground.one, "0.0.0.0:53");
    let other = lab.web("blue", "other", &["-p", "127.0.0.2:8080:80"]);
    let closed = || {
        for to in ["127.0.0.1:8080", "127.0.0.2:8080", "[::1]:8080"] {
            lab.no_tcp(&lab.lan, to);
        }
        lab.no_udp(&lab.lan, "127.0.0.1:5300");
    };
    let open = || {
        for (to, by) in
            [("127.0.0.1:8080", &ground.one), ("127.0.0.2:8080", &other), ("[::1]:8080", &ground.one)]
        {
            lab.tcp(&lab.host, to).answered_by(by);
        }
        lab.udp(&lab.host, "127.0.0.1:5300").answered_by(&ground.one);
    };
    closed();
    open();
    flush(lab);
    closed();
    lab.rn("repair").ok();
    closed();
    open();
    lab.rn("network rm -f blue").ok();
}

/// The IPv6 address of a container on the network `blue`.
pub fn address6(lab: &Lab, name: &str) -> String {
    let endpoint = lab.endpoint("blue", name);
    let address = endpoint["IPv6Address"].as_str().expect("inspect tells the address");
    address.split('/').next().expect("an address").to_owned()
}

fn the_lan_does_not_reach_containers_by_a_route(lab: &Lab) {
    prepare(&lab.lan, "route add 172.30.0.0/24 via 192.0.2.1\n route add 172.18.0.0/16 via 192.0.2.1");
    let from = || format!("{LAN}:4000").parse().expect("an address and a port");
    let host_mac = mac(&lab.host.mac("uplink0"));
    let wire = Wire::on(&lab.lan, "eth0");
    let own = mac(&lab.lan.mac("eth0"));
    let one_way = |to: &str, word: &str| {
        let packet = udp(from(), format!("{to}:7777").parse().expect("an address"), word);
        wire.send(&forge::frame(host_mac, own, forge::IP4, &packet));
    };

    let naive = Naive::new(lab);
    naive_publish(&naive, "fib daddr type local");
    lab.listen_tcp(&naive.ground.one, "0.0.0.0:81");
    lab.tcp(&lab.lan, "172.30.0.2:80").answered_by(&naive.ground.one);
    lab.tcp(&lab.lan, "172.30.0.2:81").answered_by(&naive.ground.one);
    let ear = Wire::on(&naive.ground.one, "eth0");
    one_way("172.30.0.2", "one way by hand");
    ear.must_hear("one way by hand");
    naive.gone();

    let ground = naive::rnet(lab, "", &["-p", "8080:80"]);
    lab.listen_tcp(&ground.one, "0.0.0.0:81");
    let ear = Wire::on(&ground.one, "eth0");
    let attack = || {
        lab.no_tcp(&lab.lan, "172.18.0.2:80");
        lab.no_tcp(&lab.lan, "172.18.0.2:81");
        lab.no_tcp(&lab.lan, "192.0.2.1:81");
        one_way("172.18.0.2", "one way to rnet");
        // The same in two fragments: the second has no port.
        let packet =
            udp(from(), "172.18.0.2:7777".parse().expect("an address"), "one way to rnet in fragments");
        for (offset, part) in [(0x2000, &packet[20..36]), (2, &packet[36..])] {
            let ips = [LAN, "172.18.0.2"].map(|ip| ip.parse().expect("an address"));
            let fragment = forge::fragment(ips[0], ips[1], 17, &[], offset, part);
            wire.send(&forge::frame(host_mac, own, forge::IP4, &fragment));
        }
        ear.must_not_hear("rnet");
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&ground.one).seen_from(LAN);
        lab.tcp(&lab.host, "172.18.0.2:81").answered_by(&ground.one);
    };
    attack();
    flush(lab);
    lab.rn("repair").ok();
    attack();
    lab.rn("network rm -f blue").ok();
}

/// A datagram from the LAN with a container's address as its source would reach a published port as if it came from
/// inside, and by way of the hairpin even as if it came from the host.
fn nobody_outside_passes_for_a_container(lab: &Lab) {
    let wire = Wire::on(&lab.lan, "eth0");
    let (to, from) = (mac(&lab.host.mac("uplink0")), mac(&lab.lan.mac("eth0")));
    let forged = |kind: u16, source: &str, host: &str, word: &str| {
        let address = |text: &str| text.parse().expect("an address and a port");
        wire.send(&forge::frame(to, from, kind, &udp(address(source), address(host), word)));
    };
    for path in ["all/rp_filter", "uplink0/rp_filter"] {
        let value = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{path}")).expect("/proc");
        assert_eq!(value.trim(), "0", "{path}: the kernel's default, which leaves this to us");
    }
    let naive = Naive::new(lab);
    naive.nft(
        "table ip naive {
           chain pre { type nat hook prerouting priority -100; udp dport 5300 dnat to 172.30.0.2:53; }
         }",
    );
    let ear = Wire::on(&naive.ground.one, "eth0");
    forged(forge::IP4, "172.30.0.3:4000", "192.0.2.1:5300", "naive as the neighbour");
    ear.must_hear("naive as the neighbour");
    naive.gone();

    let ground = naive::rnet(lab, "--ipv6", &["-p", "5300:53/udp"]);
    let two = address6(lab, "two");
    lab.rn("network create green").ok();
    lab.web("green", "stranger", &[]);
    let ear = Wire::on(&ground.one, "eth0");
    for source in
        ["172.18.0.3:4000", "172.18.0.2:4000", "172.18.0.1:4000", "172.18.9.9:4000", "172.19.0.2:4000"]
    {
        forged(forge::IP4, source, "192.0.2.1:5300", "rnet as a container");
    }
    forged(forge::IP6, &format!("[{two}]:4000"), "[2001:db8:1::1]:5300", "rnet as a container");
    ear.must_not_hear("rnet as a container");
    lab.listen_udp(&ground.one, "[::]:53");
    for client in [&lab.lan, &ground.two, &ground.one] {
        lab.udp(client, "192.0.2.1:5300").answered_by(&ground.one);
        lab.udp(client, "[2001:db8:1::1]:5300").answered_by(&ground.one);
    }
    lab.rn("network rm -f blue green").ok();
}

fn the_host_is_no_router_for_strangers(lab: &Lab) {
    let lan2 = second_lan(lab);
    lab.listen_tcp(&lab.lan, "192.0.2.2:80");
    lab.no_tcp(&lab.lan, "198.51.100.2:80");

    let naive = Naive::dual_stack(lab);
    lab.tcp(&lab.lan, "198.51.100.2:80").answered_by(&lan2);
    lab.tcp(&lab.lan, "[2001:db8:2::2]:80").answered_by(&lan2);
    naive.gone();

    let ground = naive::rnet(lab, "--ipv6", &["-p", "8080:80"]);
    let ear = Wire::on(&lan2, "eth0");
    lab.no_tcp(&lab.lan, "198.51.100.2:80");
    lab.no_tcp(&lab.lan, "[2001:db8:2::2]:80");
    lab.no_tcp(&lan2, "192.0.2.2:80");
    Client::new(&lab.lan, "0.0.0.0:0", "198.51.100.2:7777").say("one way through the host");
    ear.must_not_hear("one way through the host");
    // Containers get out on both sides, and both sides get in where a port is published.
    lab.tcp(&ground.two, "198.51.100.2:80").answered_by(&lan2);
    lab.tcp(&ground.two, "192.0.2.2:80").answered_by(&lab.lan);
    lab.tcp(&lan2, "198.51.100.1:8080").answered_by(&ground.one).seen_from("198.51.100.2");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&ground.one).seen_from(LAN);
    lab.rn("network rm -f blue").ok();
    lab.no_tcp(&lab.lan, "198.51.100.2:80");
    no_second_lan(lab, &lan2);
}

fn an_admins_router_routes_on(lab: &Lab) {
    let lan2 = second_lan(lab);
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{path}"), "1").expect("/proc");
    }
    let routes = || {
        lab.tcp(&lab.lan, "198.51.100.2:80").answered_by(&lan2);
        lab.tcp(&lab.lan, "[2001:db8:2::2]:80").answered_by(&lan2);
    };
    routes();
    naive::rnet(lab, "--ipv6", &["-p", "8080:80"]);
    routes();
    lab.rn("network rm -f blue").ok();
    routes();
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{path}"), "0").expect("/proc");
    }
    no_second_lan(lab, &lan2);
}

/// The answers of a connection may go another way: to connection tracking what is left of it is invalid, and none of
/// rnet's business.
fn one_way_traffic_of_an_admins_router_is_not_judged(lab: &Lab) {
    let lan2 = second_lan(lab);
    let before = fs::read("/proc/sys/net/ipv4/ip_forward").expect("/proc");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("/proc");
    let ear = Wire::on(&lan2, "eth0");
    let mouth = Wire::on(&lab.lan, "eth0");
    let (from, to) = ("192.0.2.2".parse().expect("an address"), "198.51.100.2".parse().expect("an address"));
    let ends = [mac(&lab.host.mac("uplink0")), mac(&lab.lan.mac("eth0"))];
    // The middle of a connection that this host never saw the beginning of: ACK and data.
    let say = |word: &str| {
        let mut segment = [0u8; 20];
        segment[..4].copy_from_slice(&[0x9c, 0x40, 0x00, 0x50]);
        segment[12..14].copy_from_slice(&[0x50, 0x18]);
        let segment = [&segment[..], word.as_bytes()].concat();
        mouth.send(&forge::frame(ends[0], ends[1], 0x0800, &forge::ipv4(from, to, 6, &[], &segment)));
    };
    let naive = Naive::new(lab);
    naive.nft("table ip naive { chain f { type filter hook forward priority 0; ct state invalid drop; }; }");
    say("judged by a rule for all");
    ear.must_not_hear("judged by a rule for all");
    naive.gone();
    say("on its way with nobody");
    ear.must_hear("on its way with nobody");

    naive::rnet(lab, "", &["-p", "8080:80"]);
    say("on its way through rnet");
    ear.must_hear("on its way through rnet");
    lab.rn("network rm -f blue").ok();
    fs::write("/proc/sys/net/ipv4/ip_forward", before).expect("/proc");
    no_second_lan(lab, &lan2);
}

fn traffic_through_the_host_is_not_hijacked(lab: &Lab) {
    let lan2 = second_lan(lab);
    lab.listen_udp(&lan2, "0.0.0.0:53");
    lab.listen_tcp(&lan2, "0.0.0.0:53");
    let before = fs::read("/proc/sys/net/ipv4/ip_forward").expect("/proc");
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("/proc");

    let naive = Naive::new(lab);
    naive.nft(
        "table ip naive {
           chain pre { type nat hook prerouting priority -100; tcp dport 53 dnat to 172.30.0.2:80; }
         }",
    );
    lab.tcp(&lab.lan, "198.51.100.2:53").answered_by(&naive.ground.one);
    naive.gone();

    let ground = naive::rnet(lab, "", &["-p", "53:80", "-p", "53:53/udp"]);
    lab.listen_udp(&ground.one, "0.0.0.0:53");
    for client in [&lab.lan, &ground.two, &ground.one, &lab.host] {
        lab.tcp(client, "198.51.100.2:53").answered_by(&lan2);
        lab.udp(client, "198.51.100.2:53").answered_by(&lan2);
    }
    lab.tcp(&lab.lan, "192.0.2.1:53").answered_by(&ground.one);
    lab.udp(&lab.lan, "192.0.2.1:53").answered_by(&ground.one);
    lab.rn("network rm -f blue").ok();
    fs::write("/proc/sys/net/ipv4/ip_forward", before).expect("/proc");
    no_second_lan(lab, &lan2);
}

fn the_way_back_to_the_loopback_is_for_replies_only(lab: &Lab) {
    lab.listen_tcp(&lab.host, "127.0.0.1:9999");
    lab.listen_udp(&lab.host, "127.0.0.1:9999");

    let naive = Naive::new(lab);
    naive.nft(
        "table ip naive {
           chain raw { type filter hook prerouting priority -300;
             iifname naive0 ip saddr 172.30.0.2 ip daddr 172.30.0.1 tcp sport 81 notrack; }
           chain back { type filter hook input priority -150;
             iifname naive0 ip saddr 172.30.0.2 ip daddr 172.30.0.1 tcp sport 81
               tcp sport set 8080 ip saddr set 127.0.0.1 ip daddr set 127.0.0.1; }
           chain rawout { type filter hook output priority -300; ip daddr 127.0.0.1 tcp dport 8080 notrack; }
           chain out { type route hook output priority -150;
             ip saddr 127.0.0.1 ip daddr 127.0.0.1 tcp dport 8080
               tcp dport set 81 ip saddr set 172.30.0.1 ip daddr set 172.30.0.2; }
         }",
    );
    let reply = tcp_from_port(&naive.ground.one, 81, "172.30.0.1:9999");
    assert_eq!(reply.as_deref(), Some("host 127.0.0.1\n"), "the guard is not what keeps rnet safe");
    naive.gone();

    let publish = ["-p", "127.0.0.1:8080:81", "-p", "127.0.0.1:5300:53/udp"];
    let ground = naive::rnet(lab, "", &publish);
    lab.listen_udp(&ground.one, "0.0.0.0:54");
    let attack = || {
        assert_eq!(tcp_from_port(&ground.one, 81, "172.18.0.1:9999"), None);
        assert_eq!(Client::new(&ground.one, "0.0.0.0:53", "172.18.0.1:9999").ask(), None);
    };
    attack();
    // With a flow of another client alive.
    lab.listen_tcp(&ground.one, "0.0.0.0:81");
    lab.listen_udp(&ground.one, "0.0.0.0:53");
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&ground.one);
    lab.udp(&lab.host, "127.0.0.1:5300").answered_by(&ground.one);
    lab.silence(&ground.one);
    attack();
    flush(lab);
    attack();
    lab.rn("repair").ok();
    attack();
    lab.rn("network rm -f blue").ok();
}

fn the_hosts_address_on_a_bridge_answers_on_that_bridge_only(lab: &Lab) {
    prepare(&lab.lan, "route add 172.30.0.0/24 via 192.0.2.1\n route add 172.18.0.0/16 via 192.0.2.1");
    let naive = Naive::new(lab);
    lab.listen_tcp(&lab.host, "172.30.0.1:5353");
    lab.tcp(&lab.lan, "172.30.0.1:5353").answered_by(&lab.host);
    lab.silence(&lab.host);
    naive.gone();

    let ground = naive::rnet(lab, "", &[]);
    lab.listen_tcp(&lab.host, "172.18.0.1:5353");
    lab.listen_udp(&lab.host, "172.18.0.1:5353");
    lab.no_tcp(&lab.lan, "172.18.0.1:5353");
    lab.no_udp(&lab.lan, "172.18.0.1:5353");
    lab.tcp(&ground.one, "172.18.0.1:5353").answered_by(&lab.host);
    lab.udp(&ground.one, "172.18.0.1:5353").answered_by(&lab.host);
    lab.tcp(&lab.host, "172.18.0.1:5353").answered_by(&lab.host);
    lab.rn("network rm -f blue").ok();
}

/// Whatever its priority: rnet's accepts end rnet's own chains only.
fn an_admins_own_drop_still_drops(lab: &Lab) {
    lab.needs("nft");
    let ground = naive::rnet(lab, "", &["-p", "8080:80", "-p", "8081:81"]);
    lab.listen_tcp(&ground.one, "0.0.0.0:81");
    for priority in [-200, -1, 0, 1, 200] {
        lab.sh(&format!(
            "nft 'table ip admin {{
               chain c {{ type filter hook forward priority {priority}; ip daddr 172.18.0.2 tcp dport 80 drop; }}
             }}'"
        ))
        .ok();
        lab.no_tcp(&lab.lan, "192.0.2.1:8080");
        lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&ground.one);
        lab.sh("nft delete table ip admin").ok();
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&ground.one);
    }
    lab.rn("network rm -f blue").ok();
}

fn clients_of_published_ports_keep_their_address(lab: &Lab) {
    let ground = naive::rnet(lab, "", &["-p", "8080:80", "-p", "5300:53/udp"]);
    lab.listen_udp(&ground.one, "0.0.0.0:53");
    lab.rn("network create green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&ground.one).seen_from(LAN);
    lab.udp(&lab.lan, "192.0.2.1:5300").answered_by(&ground.one).seen_from(LAN);
    // Only the host itself is its own address on the bridge; nobody is 127.0.0.1.
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&ground.one).seen_from(ground.gateway);
    let seen = lab.tcp(&stranger, "192.0.2.1:8080").answered_by(&ground.one).result().expect("an answer");
    assert!(!seen.saw.is_loopback(), "{seen:?}");
    lab.rn("network rm -f blue green").ok();
}

fn a_udp_flow_follows_its_port_to_another_container(lab: &Lab) {
    let naive = Naive::new(lab);
    let publish = |target: &str| {
        naive.nft(&format!(
            "table ip naive {{ chain pre {{ type nat hook prerouting priority -100; }}; }}
             flush table ip naive
             table ip naive {{ chain pre {{ udp dport 5300 dnat to {target}:53; }}; }}"
        ));
    };
    lab.listen_udp(&naive.ground.one, "0.0.0.0:53");
    lab.listen_udp(&naive.ground.two, "0.0.0.0:53");
    publish("172.30.0.2");
    let client = Client::new(&lab.lan, "192.0.2.2:4000", "192.0.2.1:5300");
    client.must_reach(&naive.ground.one);
    publish("172.30.0.3");
    assert_eq!(client.ask().as_deref(), Some("naive1"), "the flow stays with the old container");
    naive.gone();
    drop(client);

    lab.rn("network create --ipv6 blue").ok();
    let places: Vec<Place> = ["first", "second", "third"].map(|name| lab.namespace(name)).into();
    let clients = [
        Client::new(&lab.lan, "192.0.2.2:4001", "192.0.2.1:5301"),
        Client::new(&lab.lan, "[2001:db8:1::2]:4001", "[2001:db8:1::1]:5301"),
        Client::new(&lab.host, "192.0.2.1:4001", "192.0.2.1:5301"),
        Client::new(&lab.host, "127.0.0.1:4001", "127.0.0.1:5301"),
    ];
    for place in &places {
        let name = place.name();
        lab.rn(&format!("network connect -p 5301:53/udp blue {name}")).ok();
        lab.listen_udp(place, "[::]:53");
        for client in &clients {
            client.must_reach(place);
        }
        lab.rn(&format!("network disconnect blue {name}")).ok();
        for client in &clients {
            assert_eq!(client.ask(), None, "nobody serves the port");
        }
    }
    // Within one command after a range, too.
    for place in &places {
        lab.rn(&format!("network connect -p 5300-5310:5300-5310/udp blue {}", place.name())).ok();
        lab.listen_udp(place, "[::]:5301");
        clients[0].must_reach(place);
        lab.rn(&format!("network disconnect blue {}", place.name())).ok();
    }
    lab.rn("network rm blue").ok();
}

/// Before the port is published the host itself answers, or nobody; a client that goes on asking must get through.
fn a_udp_flow_that_began_before_its_port_was_published_follows_it(lab: &Lab) {
    lab.rn("network create blue").ok();
    // Something that tracks connections before anything is published.
    lab.web("blue", "other", &["-p", "9:9/udp"]);
    let dns = lab.namespace("dns");
    lab.listen_udp(&dns, "0.0.0.0:53");
    let client = Client::new(&lab.lan, "192.0.2.2:4001", "192.0.2.1:5300");
    assert_eq!(client.ask(), None);
    lab.rn("network connect -p 5300:53/udp blue dns").ok();
    client.must_reach(&dns);
    lab.rn("network rm -f blue").ok();
}

fn udp_flows_of_other_ports_and_addresses_stay(lab: &Lab) {
    lab.needs("conntrack");
    prepare(&lab.host, "address add 192.0.2.7/24 dev uplink0");
    lab.prepared();
    lab.rn("network create blue").ok();
    let here =
        lab.web("blue", "here", &["-p", "192.0.2.7:5300:53/udp", "-p", "5301:53/udp", "-p", "53:53/udp"]);
    lab.listen_udp(&here, "0.0.0.0:53");
    lab.listen_udp(&lab.lan, "192.0.2.2:5300");
    lab.listen_udp(&lab.lan, "192.0.2.2:53");
    let clients = [
        Client::new(&lab.lan, "192.0.2.2:4000", "192.0.2.7:5300"),
        Client::new(&lab.lan, "192.0.2.2:4001", "192.0.2.1:5301"),
        Client::new(&here, "0.0.0.0:4002", "192.0.2.2:5300"),
        Client::new(&here, "0.0.0.0:4003", "192.0.2.2:53"),
    ];
    for client in &clients {
        until("a flow", || client.ask().is_some());
    }
    let flows = || -> Vec<String> {
        let text = lab.sh("conntrack -L -p udp -o id 2>/dev/null").ok().text();
        let id = |line: &str| line.split(' ').find(|word| word.starts_with("id=")).map(str::to_owned);
        let mut ids: Vec<String> =
            text.lines().filter(|line| line.contains("sport=400")).filter_map(id).collect();
        ids.sort();
        ids
    };
    let before = flows();
    assert_eq!(before.len(), 4, "{before:?}");
    let there = lab.namespace("there");
    lab.rn("network connect -p 5300:53/udp -p 54:54/udp blue there").ok();
    assert_eq!(flows(), before, "flows of others after a port was published");
    lab.rn("network disconnect blue there").ok();
    assert_eq!(flows(), before, "flows of others after a port was closed");
    drop(there);
    lab.rn("network rm -f blue").ok();
}

fn a_network_that_is_open_on_purpose_is_open(lab: &Lab) {
    prepare(&lab.lan, "route add 172.18.0.0/16 via 192.0.2.1");
    let ground = naive::rnet(lab, "-o gateway-mode-ipv4=nat-unprotected", &["-p", "8080:80"]);
    lab.listen_tcp(&ground.one, "0.0.0.0:81");
    lab.listen_tcp(&lab.lan, "192.0.2.2:80");
    lab.rn("network create green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    lab.tcp(&lab.lan, "172.18.0.2:81").answered_by(&ground.one).seen_from(LAN);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&ground.one).seen_from(LAN);
    lab.tcp(&ground.one, "192.0.2.2:80").answered_by(&lab.lan).seen_from(HOST);
    // Open to the world is not open to other networks of this host.
    lab.no_tcp(&stranger, "172.18.0.2:81");
    lab.no_tcp(&lab.lan, "172.19.0.2:80");
    lab.rn("network rm -f blue green").ok();
}

fn a_routed_network_is_open_on_its_ports_only(lab: &Lab) {
    prepare(&lab.lan, "route add 172.18.0.0/16 via 192.0.2.1");
    let ground = naive::rnet(lab, "-o gateway-mode-ipv4=routed", &["-p", "8080:80"]);
    lab.listen_tcp(&ground.one, "0.0.0.0:81");
    lab.listen_tcp(&lab.lan, "192.0.2.2:80");
    lab.tcp(&lab.lan, "172.18.0.2:80").answered_by(&ground.one).seen_from(LAN);
    lab.no_tcp(&lab.lan, "172.18.0.2:81");
    lab.no_tcp(&lab.lan, "172.18.0.3:80");
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.tcp(&ground.one, "192.0.2.2:80").answered_by(&lab.lan).seen_from(ground.one_ip);
    flush(lab);
    lab.rn("repair").ok();
    lab.tcp(&lab.lan, "172.18.0.2:80").answered_by(&ground.one).seen_from(LAN);
    lab.no_tcp(&lab.lan, "172.18.0.2:81");
    lab.rn("network rm -f blue").ok();
}

fn an_isolated_network_has_no_host_in_it(lab: &Lab) {
    let ground = naive::rnet(lab, "--internal -o gateway-mode-ipv4=isolated", &[]);
    lab.listen_tcp(&lab.host, "0.0.0.0:9999");
    assert_eq!(lab.host.addresses(&ground.bridge), [] as [&str; 0]);
    lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
    prepare(&ground.one, "route add default via 172.18.0.1 dev eth0 onlink");
    let attack = || {
        for address in ["172.18.0.1", HOST, "127.0.0.1"] {
            let result = tcp_short(&ground.one, &format!("{address}:9999")).result();
            assert!(result.is_err(), "{address}: {result:?}");
        }
        // Whatever the frame says: by the bridge's own hardware address.
        prepare(
            &ground.one,
            &format!("neigh replace 172.18.0.1 lladdr {} dev eth0", lab.host.mac(&ground.bridge)),
        );
        lab.no_tcp(&ground.one, &format!("{HOST}:9999"));
        assert!(udp_short(&ground.one, &format!("{HOST}:9999")).result() != Err(Failure::Refused));
    };
    attack();
    flush(lab);
    lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
    lab.rn("repair").ok();
    attack();
    lab.rn("network rm -f blue").ok();
    until("the bridge is gone", || !lab.host.has_link(&ground.bridge));
}
