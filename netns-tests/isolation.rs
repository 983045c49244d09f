//! Attacks of a container on its neighbours and on other networks: first on a network made by hand, where they
//! succeed, then on rnet, where they fail, and beside each the way that must stay open.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    command::until,
    forge::{self, ALL, ARP, Client, IP4, Wire, arp_claim, frame, mac, udp},
    harness::tests,
    lab::{HOST, LAN, Lab, Place, mac_of, prepare},
    naive::{self, Ground, Naive, flush},
};

tests! {
    nobody_is_taken_in_by_claims_of_anothers_address,
    a_container_sends_with_its_own_addresses_only,
    nothing_but_ip_and_arp_leaves_a_container,
    a_flood_of_hardware_addresses_is_not_learned,
    a_container_is_no_dhcp_server,
    nothing_forged_is_sent_while_a_container_is_attached,
    an_internal_network_is_closed_on_every_address,
    members_without_icc_do_not_meet_whatever_the_bridge_filters,
    networks_do_not_meet_by_any_address_of_the_host,
    source_routes_and_fragments_pass_no_border,
    redirects_are_neither_believed_nor_sent,
}

fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// The hardware address that a place has for a neighbour.
fn neighbour(place: &Place, ip: &str) -> Option<String> {
    let list = place.ip(&format!("neigh show to {ip} dev eth0"));
    Some(list[0]["lladdr"].as_str()?.to_owned())
}

/// The attacker says that the gateway's and the neighbour's addresses are behind its own hardware address.
fn claim_addresses(ground: &Ground) {
    let wire = Wire::on(&ground.one, "eth0");
    let own = mac(&mac_of(ground.one_ip));
    for ip in [ground.gateway, ground.two_ip] {
        let ip = ip.parse().expect("an IPv4 address");
        for operation in [1, 2] {
            wire.send(&frame(ALL, own, ARP, &arp_claim(operation, ip, own)));
            // The same with another sender in the frame than in the claim.
            wire.send(&frame(ALL, [2, 0, 0, 0, 0, 9], ARP, &arp_claim(operation, ip, own)));
        }
    }
}

fn nobody_is_taken_in_by_claims_of_anothers_address(lab: &Lab) {
    let naive = Naive::new(lab);
    let ground = &naive.ground;
    lab.listen_tcp(&lab.host, "0.0.0.0:9999");
    lab.tcp(&ground.two, "172.30.0.1:9999").answered_by(&lab.host);
    claim_addresses(ground);
    until("the neighbour is taken in", || {
        neighbour(&ground.two, ground.gateway) == Some(mac_of(ground.one_ip))
    });
    naive.gone();

    let ground = naive::rnet(lab, "", &[]);
    lab.tcp(&ground.two, "172.18.0.1:9999").answered_by(&lab.host);
    lab.tcp(&lab.host, "172.18.0.3:80").answered_by(&ground.two);
    let ear = Wire::on(&ground.two, "eth0");
    claim_addresses(&ground);
    assert!(!ear.hears("\u{8}\0\u{6}\u{4}\0\u{2}"), "a claim arrives");
    assert_eq!(neighbour(&ground.two, ground.gateway), Some(mac_of(ground.gateway)));
    let list = lab.host.ip(&format!("neigh show to {} dev {}", ground.two_ip, ground.bridge));
    assert_eq!(list[0]["lladdr"], mac_of(ground.two_ip));
    lab.tcp(&ground.two, "172.18.0.1:9999").answered_by(&lab.host);
    lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
    // Its own address it may announce.
    let own = mac(&mac_of(ground.one_ip));
    let wire = Wire::on(&ground.one, "eth0");
    wire.send(&frame(ALL, own, ARP, &arp_claim(2, ground.one_ip.parse().expect("an address"), own)));
    ear.must_hear("\u{8}\0\u{6}\u{4}\0\u{2}");
    lab.rn("network rm -f blue").ok();
}

fn a_container_sends_with_its_own_addresses_only(lab: &Lab) {
    let forged = |ground: &Ground, other_ip: &str, word: &str| {
        let (own, two) = (mac(&mac_of(ground.one_ip)), mac(&mac_of(ground.two_ip)));
        let packet = |from: &str, word: &str| udp(socket(from, 4000), socket(ground.two_ip, 7777), word);
        let wire = Wire::on(&ground.one, "eth0");
        wire.send(&frame(two, own, IP4, &packet(other_ip, &format!("{word} second address"))));
        wire.send(&frame(two, own, IP4, &packet(ground.gateway, &format!("{word} gateway"))));
        wire.send(&frame(two, own, IP4, &packet("192.0.2.2", &format!("{word} stranger"))));
        wire.send(&frame(
            two,
            [2, 0, 0, 0, 0, 9],
            IP4,
            &packet(ground.one_ip, &format!("{word} other hardware")),
        ));
        let gateway = mac(&mac_of(ground.gateway));
        wire.send(&frame(two, gateway, IP4, &packet(ground.one_ip, &format!("{word} gateway's hardware"))));
        wire.send(&frame(two, two, IP4, &packet(ground.one_ip, &format!("{word} neighbour's hardware"))));
    };
    let naive = Naive::new(lab);
    let ear = Wire::on(&naive.ground.two, "eth0");
    forged(&naive.ground, "172.30.0.77", "naive");
    for word in ["naive second address", "naive gateway", "naive stranger", "naive other hardware"] {
        ear.must_hear(word);
    }
    naive.gone();

    let ground = naive::rnet(lab, "", &[]);
    let ear = Wire::on(&ground.two, "eth0");
    forged(&ground, "172.18.0.77", "rnet");
    ear.must_not_hear("rnet ");
    // As an administrator of the container would do it.
    prepare(&ground.one, "address add 172.18.0.77/16 dev eth0");
    Client::new(&ground.one, "172.18.0.77:0", "172.18.0.3:7777").say("rnet by address");
    Client::new(&ground.one, "172.18.0.77:0", "172.18.0.1:7777").say("rnet by address");
    let host = Wire::on(&lab.host, &ground.bridge);
    ear.must_not_hear("rnet ");
    host.must_not_hear("rnet ");
    Client::new(&ground.one, "172.18.0.2:0", "172.18.0.3:7777").say("with its own address");
    ear.must_hear("with its own address");
    flush(lab);
    let own_ip = udp(socket(ground.one_ip, 4000), socket(ground.two_ip, 7777), "rnet flushed");
    let wire = Wire::on(&ground.one, "eth0");
    let two = mac(&mac_of(ground.two_ip));
    for other in [[2, 0, 0, 0, 0, 9], mac(&mac_of(ground.gateway)), two] {
        wire.send(&frame(two, other, IP4, &own_ip));
    }
    ear.must_not_hear("rnet flushed");
    Client::new(&ground.one, "172.18.0.2:0", "172.18.0.3:7777").say("with its own hardware");
    ear.must_hear("with its own hardware");
    lab.rn("repair").ok();
    prepare(&ground.one, "link set eth0 address 02:00:00:00:00:09");
    lab.no_tcp(&ground.one, "172.18.0.3:80");
    prepare(&ground.one, &format!("link set eth0 address {}", mac_of(ground.one_ip)));
    lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
    lab.rn("network rm -f blue").ok();
}

fn nothing_but_ip_and_arp_leaves_a_container(lab: &Lab) {
    const BRIDGES: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
    let forged = |ground: &Ground, word: &str| {
        let (own, two) = (mac(&mac_of(ground.one_ip)), mac(&mac_of(ground.two_ip)));
        let wire = Wire::on(&ground.one, "eth0");
        let padded = |text: &str| format!("{word} {text:<60}").into_bytes();
        wire.send(&frame(two, own, 0x88b5, &padded("local experiment")));
        wire.send(&frame(ALL, own, 0x88b5, &padded("to all")));
        wire.send(&frame(two, own, 0x888e, &padded("port access")));
        wire.send(&frame(two, own, 0x8863, &padded("point to point")));
        wire.send(&frame(two, own, 0x8847, &padded("labels")));
        wire.send(&frame(BRIDGES, own, 0x88cc, &padded("link layer discovery")));
        let spanning_tree = [&[0x42, 0x42, 3, 0, 0, 0, 0, 0][..], &padded("spanning tree")].concat();
        wire.send(&frame(BRIDGES, own, spanning_tree.len() as u16, &spanning_tree));
        for tags in [&[0x8100u16, 5][..], &[0x8100, 0], &[0x88a8, 5], &[0x88a8, 5, 0x8100, 6]] {
            let packet = udp(
                socket(ground.one_ip, 4000),
                socket(ground.two_ip, 7777),
                &format!("{word} tags {tags:x?}"),
            );
            let rest: Vec<u8> = tags[1..].iter().flat_map(|part| part.to_be_bytes()).collect();
            wire.send(&frame(two, own, tags[0], &[&rest[..], &IP4.to_be_bytes(), &packet].concat()));
        }
    };
    let naive = Naive::new(lab);
    let ear = Wire::on(&naive.ground.two, "eth0");
    forged(&naive.ground, "naive");
    for word in
        ["local experiment", "to all", "port access", "point to point", "labels", "link layer", "spanning"]
    {
        ear.must_hear(&format!("naive {word}"));
    }
    for tags in ["[8100, 5]", "[8100, 0]", "[88a8, 5]", "[88a8, 5, 8100, 6]"] {
        ear.must_hear(&format!("naive tags {tags}"));
    }
    naive.gone();

    let ground = naive::rnet(lab, "", &[]);
    let (ear, host) = (Wire::on(&ground.two, "eth0"), Wire::on(&lab.host, &ground.bridge));
    forged(&ground, "rnet");
    ear.must_not_hear("rnet ");
    host.must_not_hear("rnet ");
    lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
    let port = lab.host.ip(&format!("-d link show master {}", ground.bridge));
    let state = |link: &serde_json::Value| link["linkinfo"]["info_slave_data"]["state"].clone();
    assert!(
        port.as_array().is_some_and(|list| list.iter().all(|link| state(link) == "forwarding")),
        "{port}"
    );
    lab.rn("network rm -f blue").ok();
}

fn a_flood_of_hardware_addresses_is_not_learned(lab: &Lab) {
    let flood = |ground: &Ground| {
        let wire = Wire::on(&ground.one, "eth0");
        let packet = udp(socket(ground.one_ip, 4000), socket(ground.two_ip, 7777), "flood");
        for number in 0..10_000u16 {
            let [high, low] = number.to_be_bytes();
            wire.send(&frame(ALL, [2, 0, 0, 1, high, low], IP4, &packet));
        }
    };
    let learned = |ground: &Ground| {
        let shown = lab.sh(&format!("bridge fdb show br {}", ground.bridge)).ok();
        shown.stdout().lines().count()
    };
    let naive = Naive::new(lab);
    flood(&naive.ground);
    assert!(learned(&naive.ground) > 5_000, "{}", learned(&naive.ground));
    naive.gone();

    let ground = naive::rnet(lab, "", &[]);
    let before = learned(&ground);
    flood(&ground);
    assert_eq!(learned(&ground), before);
    flush(lab);
    flood(&ground);
    assert_eq!(learned(&ground), before);
    // What is for the neighbour, or for nobody known, is not shown to the attacker.
    let ear = Wire::on(&ground.one, "eth0");
    Client::new(&lab.host, "0.0.0.0:0", "172.18.0.3:7777").say("for the neighbour");
    let packet = udp(socket(ground.gateway, 4000), socket(ground.two_ip, 7777), "for nobody known");
    Wire::on(&lab.host, &ground.bridge).send(&frame(
        [2, 0, 0, 0, 0, 9],
        mac(&mac_of(ground.gateway)),
        IP4,
        &packet,
    ));
    ear.must_not_hear("for ");
    lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two);
    lab.rn("network rm -f blue").ok();
}

fn a_container_is_no_dhcp_server(lab: &Lab) {
    let offer = |ground: &Ground, word: &str| {
        let (own, two) = (mac(&mac_of(ground.one_ip)), mac(&mac_of(ground.two_ip)));
        let wire = Wire::on(&ground.one, "eth0");
        let text = format!("{word} offer");
        wire.send(&frame(
            ALL,
            own,
            IP4,
            &udp(socket(ground.one_ip, 67), socket("255.255.255.255", 68), &text),
        ));
        wire.send(&frame(two, own, IP4, &udp(socket(ground.one_ip, 67), socket(ground.two_ip, 68), &text)));
    };
    let naive = Naive::new(lab);
    let ear = Wire::on(&naive.ground.two, "eth0");
    offer(&naive.ground, "naive");
    ear.must_hear("naive offer");
    naive.gone();

    let ground = naive::rnet(lab, "", &[]);
    let (ear, host) = (Wire::on(&ground.two, "eth0"), Wire::on(&lab.host, &ground.bridge));
    offer(&ground, "rnet");
    ear.must_not_hear("rnet offer");
    host.must_not_hear("rnet offer");
    // A client may ask, and TCP has its own ports.
    Client::new(&ground.one, "172.18.0.2:68", "172.18.0.3:67").say("a question");
    ear.must_hear("a question");
    let answer = forge::tcp_from_port(&ground.one, 67, "172.18.0.3:80");
    assert_eq!(answer.as_deref(), Some("two 172.18.0.2\n"));
    lab.rn("network rm -f blue").ok();
}

/// The attacker is in the namespace before its interface is, and sends from the first moment.
fn nothing_forged_is_sent_while_a_container_is_attached(lab: &Lab) {
    lab.rn("network create blue").ok();
    let two = lab.web("blue", "two", &[]);
    let ear = Wire::on(&two, "eth0");
    for round in 0..5 {
        let one = lab.namespace("one");
        let (stop, sent) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let from_two = udp(socket("172.18.0.99", 4000), socket("172.18.0.2", 7777), "forged early");
                let own = mac(&mac_of("172.18.0.3"));
                let frames = [
                    frame(ALL, own, IP4, &from_two),
                    frame(ALL, [2, 0, 0, 0, 0, 9], IP4, &from_two),
                    frame(ALL, own, 0x88b5, format!("{:<60}", "forged early").as_bytes()),
                ];
                let mut wire = None;
                while !stop.load(Ordering::Relaxed) {
                    wire = wire.or_else(|| Wire::try_on(&one, "eth0"));
                    for frame in &frames {
                        if wire.as_ref().is_some_and(|wire| wire.send(frame)) {
                            sent.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
            lab.rn("network connect blue one").ok();
            until("the attacker sends", || sent.load(Ordering::Relaxed));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(!ear.hears("forged early"), "a forged frame in round {round}");
        lab.listen_tcp(&two, "0.0.0.0:81");
        lab.rn("network disconnect blue one").ok();
        lab.delete_namespace(&one);
        lab.silence(&two);
    }
    lab.rn("network rm -f blue").ok();
}

fn an_internal_network_is_closed_on_every_address(lab: &Lab) {
    lab.listen_tcp(&lab.host, "0.0.0.0:9999");
    lab.listen_udp(&lab.host, "0.0.0.0:9999");
    lab.listen_tcp(&lab.lan, "192.0.2.2:80");
    prepare(&lab.lan, "route add 172.30.0.0/24 via 192.0.2.1\n route add 172.18.0.0/16 via 192.0.2.1");
    let lan_ear = Wire::on(&lab.lan, "eth0");

    let naive = Naive::new(lab);
    for address in ["172.30.0.1", HOST] {
        lab.tcp(&naive.ground.one, &format!("{address}:9999")).answered_by(&lab.host);
    }
    lab.tcp(&naive.ground.one, "192.0.2.2:80").answered_by(&lab.lan);
    lab.tcp(&lab.lan, "172.30.0.2:80").answered_by(&naive.ground.one);
    naive.gone();

    let ground = naive::rnet(lab, "--internal", &[]);
    lab.rn("network create green").ok();
    let stranger = lab.web("green", "stranger", &["-p", "8080:80"]);
    // The attacker gives itself the route that rnet did not give it.
    prepare(&ground.one, "route add default via 172.18.0.1");
    let ear = Wire::on(&ground.one, "eth0");
    let attack = || {
        for address in ["172.18.0.1", HOST, "172.19.0.1", "127.0.0.1"] {
            lab.no_tcp(&ground.one, &format!("{address}:9999"));
            lab.no_udp(&ground.one, &format!("{address}:9999"));
        }
        for to in ["192.0.2.2:80", "172.19.0.2:80", "192.0.2.1:8080", "172.19.0.1:8080", "172.18.0.1:8080"] {
            lab.no_tcp(&ground.one, to);
        }
        lab.no_tcp(&lab.lan, "172.18.0.2:80");
        lab.no_tcp(&stranger, "172.18.0.2:80");
        Client::new(&ground.one, "0.0.0.0:0", "192.0.2.2:7777").say("one way out");
        lan_ear.must_not_hear("one way out");
        Client::new(&lab.lan, "0.0.0.0:0", "172.18.0.2:7777").say("one way in");
        Client::new(&stranger, "0.0.0.0:0", "172.18.0.2:7777").say("one way in");
        ear.must_not_hear("one way in");
        lab.tcp(&ground.one, "172.18.0.3:80").answered_by(&ground.two).seen_from("172.18.0.2");
        lab.tcp(&stranger, "192.0.2.2:80").answered_by(&lab.lan);
    };
    attack();
    flush(lab);
    lab.rn("repair").ok();
    attack();
    lab.rn("network rm -f blue green").ok();
}

fn members_without_icc_do_not_meet_whatever_the_bridge_filters(lab: &Lab) {
    const SWITCHES: [&str; 2] =
        ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];
    let before = SWITCHES.map(|path| fs::read_to_string(path).ok());
    lab.listen_tcp(&lab.host, "0.0.0.0:9999");
    lab.listen_tcp(&lab.lan, "192.0.2.2:80");

    let naive = Naive::new(lab);
    lab.tcp(&naive.ground.one, "172.30.0.3:80").answered_by(&naive.ground.two);
    naive.gone();

    for filters in ["0", "1"] {
        for path in SWITCHES {
            // A kernel without br_netfilter has nothing to set, and behaves as with 0.
            let _ = fs::write(path, filters);
        }
        lab.rn("network create -o icc=false blue").ok();
        let one = lab.web("blue", "one", &["-p", "8080:80"]);
        let two = lab.web("blue", "two", &["-p", "5300:53/udp"]);
        lab.listen_udp(&one, "0.0.0.0:53");
        lab.listen_udp(&two, "0.0.0.0:53");
        let ear = Wire::on(&two, "eth0");
        let apart = |way: &str| {
            lab.no_tcp(&one, "172.18.0.3:80");
            lab.no_udp(&one, "172.18.0.3:53");
            lab.no_tcp(&two, "172.18.0.2:80");
            let packet = udp(socket("172.18.0.2", 4000), socket("172.18.0.3", 7777), way);
            let (own, wire) = (mac(&mac_of("172.18.0.2")), Wire::on(&one, "eth0"));
            wire.send(&frame(mac(&mac_of("172.18.0.3")), own, IP4, &packet));
            wire.send(&frame(ALL, own, IP4, &packet));
            ear.must_not_hear(way);
        };
        let by_the_gateway = |way: &str| {
            let packet = udp(socket("172.18.0.2", 4000), socket("172.18.0.3", 7777), way);
            let wire = Wire::on(&one, "eth0");
            wire.send(&frame(mac(&mac_of("172.18.0.1")), mac(&mac_of("172.18.0.2")), IP4, &packet));
            ear.must_not_hear(way);
        };
        apart("directly");
        by_the_gateway("by the gateway");
        // From the own published port, which the rules for replies might let through.
        assert_eq!(forge::tcp_from_port(&one, 80, "172.18.0.3:80"), None);

        lab.tcp(&one, "172.18.0.1:9999").answered_by(&lab.host);
        lab.tcp(&one, "192.0.2.2:80").answered_by(&lab.lan).seen_from(HOST);
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&one).seen_from(LAN);
        lab.tcp(&lab.host, "172.18.0.3:80").answered_by(&two);
        // Published is reachable through the host, for neighbours too. Not so where br_netfilter looks into the
        // bridge: it turns what is translated there into a frame between two isolated ports.
        if filters == "0" {
            lab.tcp(&one, "192.0.2.1:8080").answered_by(&one);
            lab.tcp(&two, "192.0.2.1:8080").answered_by(&one);
            lab.tcp(&two, "172.18.0.1:8080").answered_by(&one);
            lab.udp(&one, "192.0.2.1:5300").answered_by(&two);
        }
        lab.no_tcp(&two, "192.0.2.1:80");

        flush(lab);
        apart("directly after the rules are gone");
        lab.rn("repair").ok();
        apart("directly after repair");
        by_the_gateway("by the gateway after repair");
        lab.rn("network rm -f blue").ok();
        lab.delete_namespace(&one);
        lab.delete_namespace(&two);
    }
    for (path, value) in SWITCHES.iter().zip(before) {
        if let Some(value) = value {
            fs::write(path, value).expect("/proc");
        }
    }
}

fn networks_do_not_meet_by_any_address_of_the_host(lab: &Lab) {
    let naive = Naive::new(lab);
    prepare(
        &lab.host,
        "link add naive9 type bridge
         link set naive9 up
         address add 172.31.0.1/24 dev naive9
         link set v-naive2 master naive9",
    );
    prepare(
        &naive.ground.two,
        "address flush dev eth0
         address add 172.31.0.2/24 dev eth0
         route add default via 172.31.0.1",
    );
    lab.tcp(&naive.ground.one, "172.31.0.2:80").answered_by(&naive.ground.two);
    prepare(&lab.host, "link del naive9");
    naive.gone();

    let ground = naive::rnet(lab, "", &["-p", "8080:80"]);
    lab.rn("network create green").ok();
    let stranger = lab.web("green", "stranger", &["-p", "8081:80", "-p", "172.19.0.1:8082:80"]);
    lab.listen_tcp(&ground.one, "0.0.0.0:81");
    lab.listen_udp(&ground.one, "0.0.0.0:81");
    lab.listen_tcp(&lab.host, "0.0.0.0:9999");
    let ear = Wire::on(&ground.one, "eth0");
    let attack = || {
        lab.no_tcp(&stranger, "172.18.0.2:80");
        lab.no_tcp(&stranger, "172.18.0.2:81");
        lab.no_udp(&stranger, "172.18.0.2:81");
        for address in ["172.18.0.1", "172.19.0.1", HOST] {
            lab.no_tcp(&stranger, &format!("{address}:81"));
        }
        Client::new(&stranger, "0.0.0.0:0", "172.18.0.2:7777").say("one way across");
        ear.must_not_hear("one way across");
        // Through the host's hardware address of the other network, with an address of that network.
        let packet = udp(socket("172.19.0.2", 4000), socket("172.18.0.2", 7777), "one way across by hand");
        let wire = Wire::on(&stranger, "eth0");
        for to in ["172.18.0.1", "172.19.0.1"] {
            wire.send(&frame(mac(&mac_of(to)), mac(&mac_of("172.19.0.2")), IP4, &packet));
        }
        ear.must_not_hear("one way across by hand");
        // The host's own services answer on its addresses, but on a bridge's address on that bridge only.
        lab.no_tcp(&stranger, "172.18.0.1:9999");
        lab.tcp(&stranger, "172.19.0.1:9999").answered_by(&lab.host);
        lab.tcp(&stranger, "192.0.2.1:9999").answered_by(&lab.host);
        // So do published ports.
        lab.tcp(&stranger, "192.0.2.1:8080").answered_by(&ground.one);
        lab.tcp(&stranger, "172.19.0.1:8080").answered_by(&ground.one);
        lab.tcp(&ground.two, "192.0.2.1:8081").answered_by(&stranger);
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&ground.one).seen_from(LAN);
    };
    attack();
    flush(lab);
    lab.rn("repair").ok();
    attack();
    lab.rn("network rm -f blue green").ok();
}

fn source_routes_and_fragments_pass_no_border(lab: &Lab) {
    // Loose source route: by the host to the neighbour. And the same datagram in fragments, by the gateway.
    let forged = |ground: &Ground, target: &str, word: &str| {
        let ip = |text: &str| text.parse().expect("an IPv4 address");
        let wire = Wire::on(&ground.one, "eth0");
        let (own, gateway) = (mac(&mac_of(ground.one_ip)), mac(&mac_of(ground.gateway)));
        let whole =
            udp(socket(ground.one_ip, 4000), socket(target, 7777), &format!("{word} in two fragments"));
        let option: std::net::Ipv4Addr = ip(target);
        let route = [&[0x83, 7, 4][..], &option.octets(), &[0]].concat();
        let data = udp(socket(ground.one_ip, 4000), socket(target, 7777), &format!("{word} by source route"));
        let routed = forge::ipv4(ip(ground.one_ip), ip(ground.gateway), 17, &route, &data[20..]);
        wire.send(&frame(gateway, own, IP4, &routed));
        for (offset, part) in [(0x2000, &whole[20..28]), (1, &whole[28..])] {
            let packet = forge::fragment(ip(ground.one_ip), ip(target), 17, &[], offset, part);
            wire.send(&frame(gateway, own, IP4, &packet));
        }
    };
    let all = "/proc/sys/net/ipv4/conf/all/accept_source_route";
    let before = fs::read(all).expect("/proc");
    fs::write(all, "1").expect("/proc");
    let naive = Naive::new(lab);
    let ear = Wire::on(&naive.ground.two, "eth0");
    forged(&naive.ground, "172.30.0.3", "naive");
    ear.must_hear("naive in two fragments");
    forged(&naive.ground, "172.30.0.3", "naive");
    ear.must_hear("naive by source route");
    naive.gone();

    let ground = naive::rnet(lab, "-o icc=false", &[]);
    lab.rn("network create green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    let ears = [Wire::on(&ground.two, "eth0"), Wire::on(&stranger, "eth0")];
    forged(&ground, "172.18.0.3", "rnet");
    forged(&ground, "172.19.0.2", "rnet");
    for ear in &ears {
        ear.must_not_hear("rnet ");
    }
    fs::write(all, before).expect("/proc");
    lab.rn("network rm -f blue green").ok();
}

fn redirects_are_neither_believed_nor_sent(lab: &Lab) {
    let ground = naive::rnet(lab, "--ipv6", &[]);
    for (family, switch) in
        [("ipv4", "accept_redirects"), ("ipv4", "send_redirects"), ("ipv6", "accept_redirects")]
    {
        let path = format!("/proc/sys/net/{family}/conf/{}/{switch}", ground.bridge);
        assert_eq!(fs::read_to_string(&path).expect("/proc").trim(), "0", "{path}");
    }
    let path = "/proc/sys/net/ipv6/conf/eth0/accept_redirects";
    let value = ground.two.inside(|| fs::read_to_string(path).expect("/proc"));
    assert_eq!(value.trim(), "0", "{path} in the container");
    lab.rn("network rm -f blue").ok();
}
