//! What must exist for a network that spans hosts, as text; and which words about its hosts make sense.

use rnetkit_drivers::{Network, Peer, Pool, RemoteEndpoint, driver};

use super::samples::{self, texts};

fn pool(subnet: &str, gateway: &str, range: &str) -> Pool {
    Pool { range: Some(range.parse().unwrap()), ..samples::pool(subnet, gateway) }
}

fn network(options: &[(&str, &str)], pools: Vec<Pool>) -> Network {
    let fixed = [("local", "198.51.100.1"), ("mtu", "1450"), ("vni", "4097")];
    samples::network("overlay", &[&fixed, options].concat(), &pools)
}

fn ipv4() -> Vec<Pool> {
    vec![pool("10.1.0.0/24", "10.1.0.1", "10.1.0.0/30")]
}

#[test]
fn who_may_send_is_settled_before_there_is_a_tunnel() {
    let network = network(&[("peers", "")], ipv4());
    let sandbox = "in sandbox ov-b1b1b1b1b1b1";
    assert_eq!(
        texts(driver("overlay").unwrap().network(&network).unwrap()),
        [
            "firewall: tables, chains and empty sets".to_owned(),
            "firewall: no IPv4 forwarding for others".to_owned(),
            "IPv4 forwarding".to_owned(),
            "firewall: VXLAN 4097 on 4789/udp from its hosts only".to_owned(),
            "sandbox ov-b1b1b1b1b1b1".to_owned(),
            format!("firewall: tables, chains and empty sets, {sandbox}"),
            format!("bridge br0 mac 02:5e:b1:b1:b1:b1 mtu 1450, {sandbox}"),
            format!("br0 up on the host, {sandbox}"),
            format!("vxlan vx0 {sandbox} on br0, vni 4097 port 4789 from 198.51.100.1 mtu 1450"),
            format!("vx0 up on the host, {sandbox}"),
            format!("veth rn-b1b1b1b1b1b1 mac 02:42:0a:01:00:01 to up0 on br0 {sandbox}, mtu 1450"),
            format!("port up0: behind it 02:42:0a:01:00:01, isolated, {sandbox}"),
            format!("ARP is answered for up0, {sandbox}"),
            "IPv6 off on rn-b1b1b1b1b1b1 on the host".to_owned(),
            "no redirects on rn-b1b1b1b1b1b1 on the host".to_owned(),
            "firewall: rn-b1b1b1b1b1b1 is closed but for replies and published ports".to_owned(),
            "firewall: from 10.1.0.0/24 back into it through the host".to_owned(),
            "firewall: members of rn-b1b1b1b1b1b1 may talk to each other".to_owned(),
            "firewall: masquerade IPv4 from rn-b1b1b1b1b1b1".to_owned(),
            "firewall: 10.1.0.1 answers on rn-b1b1b1b1b1b1 only".to_owned(),
            format!("up0 up on the host, {sandbox}"),
            format!("10.1.0.1 is 02:42:0a:01:00:01 on br0, {sandbox}"),
            "address 10.1.0.1/24 on rn-b1b1b1b1b1b1 on the host".to_owned(),
            "rn-b1b1b1b1b1b1 up on the host".to_owned(),
        ]
    );
}

#[test]
fn an_encrypted_network_s_port_is_sealed_before_there_is_a_tunnel() {
    let network = network(&[("encrypted", "")], ipv4());
    let list = texts(driver("overlay").unwrap().network(&network).unwrap());
    let place = |line: &str| list.iter().position(|other| other == line).unwrap();
    let tunnel =
        "vxlan vx0 in sandbox ov-b1b1b1b1b1b1 on br0, vni 4097 port 4799 from 198.51.100.1 mtu 1450, sealed";
    assert!(place("firewall: 4799/udp in cipher only") < place("sandbox ov-b1b1b1b1b1b1"));
    assert!(place("firewall: VXLAN 4097 on 4799/udp from its hosts only") < place(tunnel));
}

#[test]
fn what_is_left_of_a_packet() {
    let (four, six) = ("198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let left = |underlay, encrypted| rnetkit_drivers::overlay::inner_mtu(underlay, 1500, encrypted);
    assert_eq!(
        [left(four, false), left(six, false), left(four, true), left(six, true)],
        [1450, 1430, 1370, 1350]
    );
}

#[test]
fn another_host_is_believed_then_its_endpoints_are_placed_then_announced() {
    let network = network(&[], ipv4());
    let remote = RemoteEndpoint {
        mac: "02:42:0a:01:00:09".parse().unwrap(),
        addresses: vec!["10.1.0.9".parse().unwrap()],
    };
    let peer = Peer { address: "198.51.100.2".parse().unwrap(), endpoints: vec![remote] };
    assert_eq!(
        texts(driver("overlay").unwrap().peer(&network, &peer).unwrap()),
        [
            "firewall: VXLAN 4097 on 4789/udp from 198.51.100.2",
            "02:42:0a:01:00:09 is behind 198.51.100.2 on vx0, in sandbox ov-b1b1b1b1b1b1",
            "10.1.0.9 is 02:42:0a:01:00:09 on br0, in sandbox ov-b1b1b1b1b1b1",
        ]
    );
}

#[test]
fn a_host_named_by_hand_has_every_address_of_its_range_but_the_network_s_own() {
    let network = network(&[("peers", "198.51.100.2=10.1.0.252/30")], ipv4());
    let list = texts(driver("overlay").unwrap().network(&network).unwrap());
    let placed: Vec<&String> = list.iter().filter(|line| line.contains("is behind 198.51.100.2")).collect();
    assert_eq!(placed.len(), 3, "{placed:#?}");
    assert!(!list.iter().any(|line| line.starts_with("10.1.0.255 ")));
}

#[test]
fn nothing_is_in_two_states_at_once_and_nothing_lives_on_what_comes_later() {
    let peers = "198.51.100.2=10.1.0.4/30+fd00:1::4/126,198.51.100.3=10.1.0.8/30+fd00:1::8/126";
    let mut pools = ipv4();
    pools.push(pool("fd00:1::/64", "fd00:1::1", "fd00:1::/126"));
    let list = driver("overlay").unwrap().network(&network(&[("peers", peers)], pools)).unwrap();
    for (number, resource) in list.iter().enumerate() {
        assert!(!list[number + 1..].iter().any(|other| other.is_same_thing(resource)), "{resource}");
        let carrier = list.iter().position(|other| resource.goes_with(other));
        assert!(carrier.is_none_or(|at| at < number), "{resource}");
        if let Some((sandbox, _)) = resource.inside() {
            assert!(carrier.is_some(), "{resource} has no sandbox {sandbox}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    for (options, reason) in [
        (&[("encrypted", ""), ("peers", "")][..], "hosts named by hand have no keys"),
        (&[("encrypted", ""), ("port", "4789")], "port 4799 is that of encrypted networks"),
        (&[("port", "4799")], "port 4799 is that of encrypted networks"),
        (&[("encrypted", "perhaps")], "true or false"),
        (&[("vni", "0")], "from 1 to 16777215"),
        (&[("vni", "16777216")], "from 1 to 16777215"),
        (&[("port", "0")], "UDP port"),
        (&[("mtu", "67")], "from 68 to 65465"),
        (&[("peers", "198.51.100.2=10.1.0.4/30,198.51.100.2=10.1.0.8/30")], "given twice"),
        (&[("peers", "198.51.100.2=10.1.0.0/29")], "meets 10.1.0.0/30"),
        (&[("peers", "198.51.100.1=10.1.0.4/30")], "is this host itself"),
        (&[("peers", "198.51.100.2=10.2.0.4/30")], "in no subnet"),
        (&[("peers", "198.51.100.2=10.1.0.5/30")], "is no range"),
        (&[("peers", "2001:db8::2=10.1.0.4/30")], "another family"),
        (&[("peers", "198.51.100.2=10.1.0.4/30+fd00::/126")], "in no subnet"),
        (&[("peers", "$(id)=10.1.0.4/30")], "HOST=RANGE"),
        (&[("com.docker.network.bridge.name", "x")], "no such option"),
    ] {
        let error = driver("overlay").unwrap().check(&network(options, ipv4())).unwrap_err();
        assert!(error.to_string().contains(reason), "{options:?}: {error}");
    }
    let wide = vec![pool("10.0.0.0/8", "10.0.0.1", "10.1.0.0/24")];
    let error = driver("overlay")
        .unwrap()
        .check(&network(&[("peers", "198.51.100.2=10.2.0.0/16")], wide))
        .unwrap_err();
    assert!(error.to_string().contains("4096 are the most"), "{error}");
}
