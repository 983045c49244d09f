//! Firewalls of others beside rnet's: found, explained, never overruled; and what is said works when it is done.

use std::fs;

use rustix::process::Signal;

use crate::{
    command::{PATIENCE, until},
    harness::tests,
    lab::{LAN, Lab},
    traffic,
};

tests! {
    a_forward_chain_that_drops_is_explained_and_the_advice_works,
    iptables_that_drops_is_explained_and_the_advice_works,
    docker_ufw_and_firewalld_are_told_apart,
    an_input_chain_that_drops_is_explained_and_the_advice_works,
    the_proxy_serves_the_loopback_until_the_container_leaves,
    the_proxy_knows_its_clients_again_after_a_stop,
    the_proxy_is_explicit,
    an_admins_rule_names_the_port_that_the_client_asked_for,
    rules_of_others_are_as_they_were,
}

/// The commands that `doctor` prints for a chain, as a shell runs them.
fn advice(lab: &Lab, chain: &str) -> String {
    let said = lab.sh("rnet doctor --json || true").text();
    let findings: serde_json::Value =
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let mut all = findings.as_array().cloned().unwrap_or_default().into_iter();
    let found = all.find(|one| one["found"].as_str().is_some_and(|text| text.contains(chain)));
    let found = found.unwrap_or_else(|| panic!("doctor says nothing of {chain}: {said}"));
    let advice = found["advice"].as_str().expect("advice").to_owned();
    let (_, commands) = advice.split_once(": ").expect("what to do: commands");
    commands.split("; or publish").next().unwrap_or_default().to_owned()
}

fn a_forward_chain_that_drops_is_explained_and_the_advice_works(lab: &Lab) {
    lab.needs("nft");
    lab.sh("nft 'table inet admin { chain f { type filter hook forward priority 0; policy drop; }; }'").ok();
    lab.prepared();
    lab.rn("network create --opt name=br-web blue").ok();
    lab.listen_tcp(&lab.lan, "192.0.2.2:80");
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.no_tcp(&web, "192.0.2.2:80");
    lab.sh(&advice(lab, "chain f of table inet admin")).ok();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web).seen_from(LAN);
    lab.tcp(&web, "192.0.2.2:80").answered_by(&lab.lan);
    // Through there is not past rnet.
    crate::lab::prepare(&lab.lan, "route add 172.18.0.0/16 via 192.0.2.1");
    lab.no_tcp(&lab.lan, "172.18.0.2:80");
    lab.rn("network rm -f blue").ok();
    lab.sh("nft flush chain inet admin f").ok();
}

fn iptables_that_drops_is_explained_and_the_advice_works(lab: &Lab) {
    lab.needs("iptables-nft");
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.sh("iptables-nft -P FORWARD DROP").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    let commands = advice(lab, "chain FORWARD of table ip filter (iptables)");
    lab.sh(&commands.replace("iptables", "iptables-nft")).ok();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    let listed = lab.sh("iptables-nft -S FORWARD").ok().text();
    assert!(listed.contains("--src-group 0x726e0000/0xffff0000 -j ACCEPT"), "{listed}");
    lab.rn("network rm -f blue").ok();
    lab.sh("nft delete table ip filter").ok();
}

/// By the chains that they make; the programs themselves are not here.
fn docker_ufw_and_firewalld_are_told_apart(lab: &Lab) {
    lab.needs("nft");
    let chain = "type filter hook forward priority 0; policy drop;";
    for (table, made, found, told) in [
        (
            "ip filter",
            format!("chain DOCKER-USER {{ }}; chain FORWARD {{ {chain} }};"),
            "chain FORWARD of table ip filter (Docker)",
            "iptables -I DOCKER-USER -m devgroup --src-group 0x726e0000/0xffff0000 -j ACCEPT",
        ),
        (
            "ip filter",
            format!("chain ufw-before-forward {{ }}; chain FORWARD {{ {chain} }};"),
            "chain FORWARD of table ip filter (ufw)",
            "ufw route allow in on BRIDGE",
        ),
        (
            "inet firewalld",
            "chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; };"
                .to_owned(),
            "chain filter_FORWARD of table inet firewalld (firewalld)",
            "firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE",
        ),
    ] {
        lab.sh(&format!("nft 'table {table} {{ {made} }}'")).ok();
        let advice = advice(lab, found);
        assert!(advice.contains(told), "{found}: {advice}");
        lab.sh(&format!("nft delete table {table}")).ok();
    }
}

fn an_input_chain_that_drops_is_explained_and_the_advice_works(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --opt name=br-web blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.sh("nft 'table inet admin { chain i { type filter hook input priority 0; policy drop;
           iif lo accept; ct state established,related accept; }; }'")
        .ok();
    assert!(traffic::tcp_short(&lab.host, "127.0.0.1:8080").result().is_err());
    lab.tcp(&lab.host, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.sh(&advice(lab, "chain i of table inet admin")).ok();
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.rn("network rm -f blue").ok();
    lab.sh("nft delete table inet admin").ok();
}

fn the_proxy_serves_the_loopback_until_the_container_leaves(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --ipv6 --opt loopback=proxy blue").ok();
    let web =
        lab.web("blue", "web", &["-p", "8080:81", "-p", "127.0.0.2:9000:81", "-p", "5300-5301:53-54/udp"]);
    lab.listen_tcp(&web, "[::]:81");
    lab.listen_udp(&web, "[::]:53");
    lab.listen_udp(&web, "[::]:54");
    // What makes the rewriting impossible.
    lab.sh("nft 'table inet admin { chain i { type filter hook input priority 0; policy drop;
           iif lo accept; ct state established,related accept; meta l4proto ipv6-icmp accept; }; }'")
        .ok();
    assert!(traffic::tcp_short(&lab.host, "127.0.0.1:8080").result().is_err(), "nobody serves it by itself");
    let said = lab.sh("rnet doctor || true").text();
    assert!(said.contains("nobody serves 127.0.0.1:8080/tcp for container web"), "{said}");
    assert!(said.contains("nobody serves 127.0.0.1:5300/udp for container web"), "{said}");
    assert!(said.contains("run rnet proxy web"), "{said}");
    let proxy = lab.start(&["proxy", "web"]);
    for to in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.2:9000"] {
        until("the proxy listens", || traffic::tcp_short(&lab.host, to).result().is_ok());
        lab.tcp(&lab.host, to).answered_by(&web);
    }
    // Several clients at once, each again and again: every answer finds its own.
    for to in ["127.0.0.1:5300", "127.0.0.1:5301", "[::1]:5300", "127.0.0.1:5300"] {
        lab.udp(&lab.host, to).answered_by(&web);
    }
    assert!(!lab.sh("rnet doctor || true").text().contains("nobody serves"));
    lab.no_tcp(&lab.lan, "127.0.0.1:8080");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web).seen_from(LAN);
    lab.rn("check").ok().prints("");
    lab.rn("network disconnect blue web").ok();
    proxy.wait().ok();
    // At once the port can be published again.
    lab.rn("network connect -p 8080:81 blue web").ok();
    lab.rn("network rm -f blue").ok();
    lab.sh("nft delete table inet admin").ok();
}

/// A stop interrupts whoever waits with a time limit (signal(7)); that is no silence of the container's.
fn the_proxy_knows_its_clients_again_after_a_stop(lab: &Lab) {
    lab.rn("network create --opt loopback=proxy blue").ok();
    let web = lab.web("blue", "web", &["-p", "5300:53/udp"]);
    let proxy = lab.start(&["proxy", "web"]);
    // Who is asked says from which port it was asked.
    let server = web.inside(|| std::net::UdpSocket::bind("0.0.0.0:53")).expect("a socket");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let client = lab.host.inside(|| std::net::UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    client.connect("127.0.0.1:5300").expect("a way there");
    let asked_from = || {
        client.send(b"hello").expect("sent");
        server.recv_from(&mut [0; 64]).expect("a question").1
    };
    until("the proxy listens", || lab.sh("ss -Huln 'sport = :5300'").text().contains("127.0.0.1"));
    let before = asked_from();
    proxy.signal(Signal::STOP);
    let status = format!("/proc/{}/status", proxy.pid().as_raw_nonzero());
    let stands = || fs::read_to_string(&status).expect("it lives").contains("State:\tT");
    until("it stands still", stands);
    proxy.signal(Signal::CONT);
    until("it goes on", || !stands());
    assert_eq!(asked_from(), before, "the client was forgotten");
    lab.rn("network disconnect blue web").ok();
    proxy.wait().ok();
    lab.rn("network rm -f blue").ok();
}

fn the_proxy_is_explicit(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create --opt loopback=proxy green").ok();
    lab.web("blue", "web", &["-p", "8080:80"]);
    let line = |name: &str| {
        format!(
            "rnet: container {name} has no TCP or UDP port on the host's loopback in a network with --opt loopback=proxy"
        )
    };
    lab.rn("proxy web").fails_with(&line("web"));
    lab.rn("proxy nobody").fails_with(&line("nobody"));
    lab.namespace("db");
    lab.rn("network connect -p 192.0.2.1:9000:80 -p 192.0.2.1:53:53/udp green db").ok();
    lab.rn("proxy db").fails_with(&line("db"));
    lab.rn("network create --opt loopback=both red").fails_with(
        "rnet: option \"loopback\" of driver bridge: \"both\" is refused: it must be rewrite or proxy",
    );
    lab.namespace("taken");
    lab.rn("network connect -p 7000:80 green taken").ok();
    lab.listen_tcp(&lab.host, "127.0.0.1:7000");
    lab.rn("proxy taken")
        .fails_with("rnet: 127.0.0.1:7000/tcp cannot be listened on: Address already in use");
    lab.silence(&lab.host);
    lab.rn("network rm -f blue green").ok();
}

/// In a table of his own, whatever its priority: the documented way.
fn an_admins_rule_names_the_port_that_the_client_asked_for(lab: &Lab) {
    lab.needs("nft");
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/firewall.md")).expect("the page");
    let rule = page.lines().find(|line| line.contains("ct original proto-dst 8080")).expect("the rule");
    let web = lab.web("bridge", "web", &["-p", "8080:80", "-p", "8081:80"]);
    lab.rn("network create green").ok();
    let stranger = lab.web("green", "stranger", &[]);
    let ruleset = format!(
        "table inet admin {{ chain published {{ type filter hook forward priority -1; policy accept;
           {} ; }}; }}",
        rule.trim().replace("198.51.100.0/24", "172.18.0.0/16")
    );
    lab.sh(&format!("nft '{ruleset}'")).ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
    lab.tcp(&stranger, "192.0.2.1:8080").answered_by(&web);
    lab.sh("nft delete table inet admin").ok();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network rm -f green").ok();
    lab.rn("network disconnect bridge web").ok();
}

fn rules_of_others_are_as_they_were(lab: &Lab) {
    lab.needs("iptables-nft");
    lab.sh(
        "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER;
         iptables-nft -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to 192.0.2.9;
         nft 'table inet firewalld { chain filter_INPUT { type filter hook input priority 10; policy accept; }; }'",
    )
    .ok();
    lab.prepared();
    let before = lab.sh("nft -s list ruleset").ok().text();
    let alone = || {
        let all = lab.sh("nft -s list ruleset").ok().text();
        let others: String = all.split("table ").filter(|table| !table.contains("rnet {")).collect();
        assert_eq!(others.trim(), before.replace("table ", "").trim());
    };
    lab.rn("network create --opt conn-limit=9/second blue").ok();
    lab.namespace("web");
    lab.rn("network connect -p 8080:80 --service web blue web").ok();
    alone();
    lab.rn("repair").ok();
    lab.sh("rnet doctor || true");
    alone();
    lab.rn("network rm -f blue").ok();
    alone();
}
