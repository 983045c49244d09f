//! Services: one host port, several containers, and connections spread over them.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    command::until,
    forge::Client,
    harness::tests,
    lab::{LAN, Lab, Place},
    traffic,
};

tests! {
    connections_are_spread_over_the_members,
    weights_are_kept,
    by_source_one_client_meets_one_member,
    a_member_leaves_and_the_others_go_on,
    open_connections_stay_where_they_are,
    a_udp_flow_leaves_a_member_that_goes,
    the_hosts_loopback_meets_the_first_member,
    a_service_with_ipv6_and_a_host_address,
    strangers_to_the_service_are_refused_its_port,
    services_are_found_and_mended,
    a_service_survives_commands_that_die,
    many_join_and_leave_at_once,
    a_run_container_joins_a_service,
}

/// Who answers how often.
fn answers(lab: &Lab, from: &Place, to: &str, count: usize) -> BTreeMap<String, usize> {
    let mut by = BTreeMap::new();
    for _ in 0..count {
        let reply = lab.tcp(from, to).result().unwrap_or_else(|error| panic!("{to}: {error:?}"));
        *by.entry(reply.by).or_default() += 1;
    }
    by
}

fn member(lab: &Lab, network: &str, name: &str, service: &str) -> Place {
    lab.web(network, name, &["-p", "8080:80", "--service", service])
}

/// 64 connections over three members: that one is left out has a chance of 10^-11.
fn connections_are_spread_over_the_members(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    for (name, network) in [("one", "blue"), ("two", "blue"), ("three", "green")] {
        member(lab, network, name, "web");
    }
    let met = answers(lab, &lab.lan, "192.0.2.1:8080", 64);
    assert_eq!(met.keys().collect::<Vec<_>>(), ["one", "three", "two"], "{met:?}");
    lab.tcp(&lab.lan, "192.0.2.1:8080").seen_from(LAN);
    let stranger = lab.namespace("stranger");
    lab.rn("network connect blue stranger").ok();
    assert_eq!(answers(lab, &stranger, "192.0.2.1:8080", 64).len(), 3);
    assert_eq!(answers(lab, &lab.host, "192.0.2.1:8080", 64).len(), 3);
    let shown = lab.endpoint("blue", "two")["Service"].to_string();
    assert_eq!(shown, r#"{"Name":"web","Weight":1,"Balance":"random"}"#);
    lab.rn("port two").ok().prints("80/tcp -> 0.0.0.0:8080\n");
    lab.rn("network rm -f blue green").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
}

/// Of 64 slots as many belong to each as its weight says: counted, so that no chance is in it.
fn weights_are_kept(lab: &Lab) {
    lab.needs("nft");
    member(lab, "bridge", "light", "web");
    member(lab, "bridge", "heavy", "web,weight=3");
    let count = |address: &str| -> usize {
        let line = format!("nft list map inet rnet spread4_any | grep -o ': {address} \\. 80' | wc -l");
        lab.sh(&line).ok().text().trim().parse().expect("a number")
    };
    assert_eq!([count("172.17.0.2"), count("172.17.0.3")], [65, 191]);
    lab.rn("network disconnect bridge heavy").ok();
    assert_eq!([count("172.17.0.2"), count("172.17.0.3")], [256, 0]);
    lab.rn("network disconnect bridge light").ok();
}

fn by_source_one_client_meets_one_member(lab: &Lab) {
    lab.rn("network create green").ok();
    for name in ["one", "two"] {
        member(lab, "bridge", name, "web,balance=source");
    }
    let met = answers(lab, &lab.lan, "192.0.2.1:8080", 16);
    assert_eq!(met.len(), 1, "{met:?}");
    // Of 32 clients not all meet the same one.
    let clients = lab.namespace("clients");
    lab.rn("network connect --driver-opt ifname=eth0 green clients").ok();
    lab.rn("network disconnect green clients").ok();
    let mut by = BTreeMap::new();
    for number in 0..32 {
        let address = format!("172.18.1.{number}");
        lab.rn(&format!("network connect --ip {address} green clients")).ok();
        let met = answers(lab, &clients, "192.0.2.1:8080", 2);
        assert_eq!(met.len(), 1, "{met:?}");
        by.extend(met);
        lab.rn("network disconnect green clients").ok();
        if by.len() == 2 {
            break;
        }
    }
    assert_eq!(by.len(), 2, "{by:?}");
    for name in ["one", "two"] {
        lab.rn(&format!("network disconnect bridge {name}")).ok();
    }
    lab.rn("network rm green").ok();
}

fn a_member_leaves_and_the_others_go_on(lab: &Lab) {
    let places = ["one", "two", "three"].map(|name| member(lab, "bridge", name, "web"));
    let mut left: Vec<&str> = vec!["one", "two", "three"];
    while let Some(gone) = left.pop() {
        lab.rn(&format!("network disconnect bridge {gone}")).ok();
        if left.is_empty() {
            break;
        }
        let met = answers(lab, &lab.lan, "192.0.2.1:8080", 32);
        let mut names: Vec<&str> = left.clone();
        names.sort_unstable();
        assert_eq!(met.keys().map(String::as_str).collect::<Vec<_>>(), names);
    }
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    // The port is free again, for anybody.
    lab.rn("network connect -p 8080:80 bridge two").ok();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&places[1]);
    lab.rn("network disconnect bridge two").ok();
}

/// A connection that lives through members that come and go: each byte comes back from the same container.
fn open_connections_stay_where_they_are(lab: &Lab) {
    let one = lab.namespace("one");
    lab.rn("network connect -p 8080:7 --service web bridge one").ok();
    let listener = one.inside(|| TcpListener::bind(("0.0.0.0", 7))).expect("a port");
    let to: SocketAddr = "192.0.2.1:8080".parse().expect("an address");
    let mut client =
        lab.lan.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(15))).expect("a member");
    let (mut served, _) = listener.accept().expect("a client");
    let mut echo = |byte: u8| {
        let mut buffer = [0];
        client.write_all(&[byte]).expect("a connection");
        served.read_exact(&mut buffer).expect("its end");
        served.write_all(&buffer).expect("its end");
        client.read_exact(&mut buffer).expect("an answer");
        assert_eq!(buffer, [byte]);
    };
    echo(1);
    for round in 2..6 {
        let others = ["two", "three"].map(|name| member_on(lab, name));
        echo(round);
        for place in &others {
            lab.rn(&format!("network disconnect bridge {}", place.name())).ok();
            echo(round);
            lab.delete_namespace(place);
        }
    }
    lab.rn("network disconnect bridge one").ok();
}

fn member_on(lab: &Lab, name: &str) -> Place {
    let place = lab.namespace(name);
    lab.rn(&format!("network connect -p 8080:7 --service web bridge {name}")).ok();
    place
}

fn a_udp_flow_leaves_a_member_that_goes(lab: &Lab) {
    let places = ["one", "two"].map(|name| {
        let place = lab.namespace(name);
        lab.rn(&format!("network connect -p 5300:53/udp --service dns bridge {name}")).ok();
        lab.listen_udp(&place, "0.0.0.0:53");
        place
    });
    let client = Client::new(&lab.lan, "192.0.2.2:4000", "192.0.2.1:5300");
    let mut first = None;
    until("an answer", || {
        first = client.ask();
        first.is_some()
    });
    // It stays with its member, whoever joins.
    lab.namespace("three");
    lab.rn("network connect -p 5300:53/udp --service dns bridge three").ok();
    (0..8).for_each(|_| assert_eq!(client.ask(), first));
    lab.rn("network disconnect bridge three").ok();
    assert_eq!(client.ask(), first);
    let gone = first.expect("an answer");
    lab.rn(&format!("network disconnect bridge {gone}")).ok();
    let other = places.iter().find(|place| place.name() != gone).expect("another");
    client.must_reach(other);
    lab.rn(&format!("network disconnect bridge {}", other.name())).ok();
}

/// No connection tracking is on that way, so all packets go to one.
fn the_hosts_loopback_meets_the_first_member(lab: &Lab) {
    let one = member(lab, "bridge", "one", "web");
    let two = member(lab, "bridge", "two", "web");
    for _ in 0..8 {
        lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&one);
    }
    lab.rn("network disconnect bridge one").ok();
    for _ in 0..8 {
        lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&two);
    }
    lab.rn("network disconnect bridge two").ok();
    assert!(traffic::tcp_short(&lab.host, "127.0.0.1:8080").result().is_err());
}

fn a_service_with_ipv6_and_a_host_address(lab: &Lab) {
    lab.rn("network create --ipv6 blue").ok();
    let names = ["one", "two"];
    for name in names {
        let place = lab.namespace(name);
        lab.rn(&format!("network connect -p 8080:80 -p 192.0.2.1:8081:80 --service web blue {name}")).ok();
        lab.listen_tcp(&place, "[::]:80");
    }
    // Beside them, one that has the same port on all addresses by itself.
    let three = lab.web("blue", "three", &["-p", "8081:80"]);
    for to in ["192.0.2.1:8080", "[2001:db8:1::1]:8080", "192.0.2.1:8081"] {
        let met = answers(lab, &lab.lan, to, 48);
        assert_eq!(met.keys().map(String::as_str).collect::<Vec<_>>(), names, "{to}");
    }
    lab.tcp(&lab.host, "127.0.0.1:8081").answered_by(&three);
    lab.rn("network rm -f blue").ok();
}

fn strangers_to_the_service_are_refused_its_port(lab: &Lab) {
    lab.rn("network create blue").ok();
    let one = member(lab, "blue", "one", "web");
    lab.namespace("two");
    let here = lab.snapshot();
    let taken = "rnet: port 8080/tcp is published by service web by random, container one on network blue";
    for (words, line) in [
        ("-p 8080:80", taken),
        ("-p 8080:80 --service other", taken),
        ("-p 8080:80 --service web,balance=source", taken),
        ("-p 127.0.0.1:8080:80 --service web", taken),
        ("-p 8070-8090:70-90", taken),
        ("-p 80 --service web", "rnet: service web needs the host port that its members share: not :80/tcp"),
        ("-p 1-9:1-9 --service web", "rnet: service web shares single ports, and 1-9 is a range"),
        ("--service web", "rnet: service web shares published ports, and there is none"),
        (
            "-p 8080:80 --service web,weight=101",
            "rnet: invalid service \"web,weight=101\": \"weight=101\": a weight is a number from 1 to 100",
        ),
    ] {
        lab.rn(&format!("network connect {words} blue two")).fails_with(line);
        lab.is_like(&here);
    }
    lab.rn("network connect -p 8081:80 blue two").ok();
    lab.rn("network disconnect blue two").ok();
    lab.rn("network connect -p 8081:80 blue two").ok();
    lab.namespace("three");
    lab.rn("network connect -p 8081:80 --service web blue three")
        .fails_with("rnet: port 8081/tcp is published by container two on network blue");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&one);
    lab.rn("network rm -f blue").ok();
}

fn services_are_found_and_mended(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create blue").ok();
    for name in ["one", "two"] {
        member(lab, "blue", name, "web");
    }
    lab.rn("check").ok().prints("");
    let dry = lab.namespace("dry");
    lab.rn("network connect -p 8080:80 --service web --dry-run blue dry").ok().mentions(
        "~ service web by random: 0.0.0.0:8080/tcp to 172.18.0.2:80, 172.18.0.3:80 => service web by random: 0.0.0.0:8080/tcp to 172.18.0.2:80, 172.18.0.3:80, 172.18.0.4:80",
    );
    drop(dry);
    for damage in [
        "nft flush map inet rnet spread4_any",
        "nft delete element inet rnet spread4_any '{ tcp . 8080 . 0x00000007 }'",
        "nft flush map inet rnet container4",
        "nft flush ruleset",
    ] {
        lab.mends(damage);
        let met = answers(lab, &lab.lan, "192.0.2.1:8080", 32);
        assert_eq!(met.len(), 2, "after {damage}: {met:?}");
        lab.tcp(&lab.host, "127.0.0.1:8080").result().expect("the loopback, too");
    }
    lab.rn("network rm -f blue").ok();
}

/// Whoever dies at whatever step: the next command shares the port among those that are there.
fn a_service_survives_commands_that_die(lab: &Lab) {
    lab.rn("network create blue").ok();
    let one = member(lab, "blue", "one", "web");
    let two = lab.namespace("two");
    lab.listen_tcp(&two, "0.0.0.0:80");
    let connect = ["network", "connect", "-p", "8080:80", "--service", "web", "blue", "two"];
    let disconnect = ["network", "disconnect", "blue", "two"];
    for (before, words) in [(false, &connect[..]), (true, &disconnect[..])] {
        for call in ["sendto", "rename", "unlink", "pwrite64", "flock"] {
            for when in 1..200 {
                if before {
                    lab.rnet(&connect).ok();
                }
                let inject = format!("inject={call}:signal=SIGKILL:when={when}");
                let output = lab.strace(&["-e", &format!("trace={call}"), "-e", &inject], words);
                // Any command takes back what the dead one left.
                lab.rn("check").ok().prints("");
                let is_in = lab.inspect("blue")["Containers"].to_string().contains("\"two\"");
                let met = answers(lab, &lab.lan, "192.0.2.1:8080", if is_in { 32 } else { 4 });
                assert_eq!(met.len(), if is_in { 2 } else { 1 }, "{call} {when}: {met:?}");
                lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&one);
                lab.rn("network disconnect -f blue two").ok();
                if !output.was_killed() {
                    break;
                }
            }
        }
    }
    lab.rn("network rm -f blue").ok();
}

fn many_join_and_leave_at_once(lab: &Lab) {
    lab.rn("network create blue").ok();
    const MEMBERS: usize = 16;
    let names: Vec<String> = (0..MEMBERS).map(|number| format!("c{number}")).collect();
    for name in &names {
        let place = lab.namespace(name);
        lab.listen_tcp(&place, "0.0.0.0:80");
    }
    let at_once = |verb: &[&str]| {
        let started: Vec<_> =
            names.iter().map(|name| lab.start(&[&["network"], verb, &["blue", name]].concat())).collect();
        started.into_iter().for_each(|running| {
            running.wait().ok();
        });
    };
    at_once(&["connect", "-p", "8080:80", "--service", "web"]);
    lab.rn("check").ok().prints("");
    let met = answers(lab, &lab.lan, "192.0.2.1:8080", 400);
    assert_eq!(met.len(), MEMBERS, "{met:?}");
    at_once(&["disconnect"]);
    lab.rn("check").ok().prints("");
    lab.rn("network rm blue").ok();
}

fn a_run_container_joins_a_service(lab: &Lab) {
    let one = member(lab, "bridge", "one", "web");
    lab.rn("run -d --name two -p 8080:80 --service web,weight=100").ok();
    until("the page answers some", || {
        traffic::http(&lab.lan, "192.0.2.1:8080", "/").is_ok_and(|page| page.contains("<svg"))
    });
    lab.rn("rm -f two").ok();
    for _ in 0..8 {
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&one);
    }
    lab.rn("network disconnect bridge one").ok();
}
