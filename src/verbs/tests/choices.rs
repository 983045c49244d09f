//! What is chosen where nothing was asked for, and what is refused where it cannot be had.

use std::net::IpAddr;

use rnetkit_drivers::{InterfaceName, Protocol};

use super::*;

fn refusal(lab: &mut Lab, wanted: &Connect) -> String {
    let before = lab.snapshot();
    let shown = lab.rnet.connect(wanted, Mode::Show).map(drop);
    let error = lab.connect(wanted).unwrap_err().to_string();
    assert_eq!(lab.snapshot(), before, "{error}");
    if let Err(shown) = shown {
        assert_eq!(shown.to_string(), error, "--dry-run gives another reason");
    }
    error
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn gateways(lab: &Lab, name: &str) -> Vec<String> {
    let states = lab.rnet.store().endpoints_of(name).unwrap();
    let mut list: Vec<String> = states
        .iter()
        .flat_map(|state| {
            state.endpoint.gateways.iter().map(|gateway| format!("{} {gateway}", state.network))
        })
        .collect();
    list.sort();
    list
}

/// The default routes that the kernel has in the container.
fn routes(lab: &mut Lab, name: &str) -> Vec<String> {
    let at = lab.kernel().namespaces[&netns(name)];
    let inside = lab.kernel().resources.iter().filter(|(place, _)| *place == at);
    let mut list: Vec<String> =
        inside.map(|(_, r)| r.to_string()).filter(|r| r.starts_with("default")).collect();
    list.sort();
    list
}

#[test]
fn addresses_are_given_out_lowest_first() {
    let mut lab = Lab::blue();
    let given: Vec<String> = ["web", "db", "app"]
        .iter()
        .map(|name| address(&lab.connect(&connect("blue", name)).unwrap()))
        .collect();
    assert_eq!(given, ["10.1.0.2/24", "10.1.0.3/24", "10.1.0.4/24"]);
}

#[test]
fn an_address_is_given_again_when_no_other_is_left() {
    let mut lab = Lab::new();
    lab.create(&create("blue", &["10.1.0.0/29"])).unwrap();
    for number in 2..=6 {
        lab.start(&format!("c{number}"));
        let connected = lab.connect(&connect("blue", &format!("c{number}"))).unwrap();
        assert_eq!(address(&connected), format!("10.1.0.{number}/29"));
    }
    let full = "no address is free in 10.1.0.0/29 of network blue: 5 are in use";
    assert_eq!(refusal(&mut lab, &connect("blue", "web")), full);
    lab.disconnect("blue", "c4").unwrap();
    assert_eq!(address(&lab.connect(&connect("blue", "web")).unwrap()), "10.1.0.4/29");
    assert_eq!(refusal(&mut lab, &connect("blue", "db")), full);
}

#[test]
fn an_address_that_was_used_rests_while_others_are_free() {
    let mut lab = Lab::blue();
    lab.connect(&connect("blue", "web")).unwrap();
    lab.disconnect("blue", "web").unwrap();
    assert_eq!(address(&lab.connect(&connect("blue", "web")).unwrap()), "10.1.0.3/24");
}

#[test]
fn addresses_come_from_the_range_and_skip_what_is_reserved() {
    let mut lab = Lab::new();
    let mut wanted = create("blue", &["10.1.0.0/24"]);
    wanted.wishes.ranges.push("10.1.0.128/30".parse().unwrap());
    wanted.wishes.aux.insert("printer".to_owned(), "10.1.0.129".parse().unwrap());
    lab.create(&wanted).unwrap();
    let mut given = Vec::new();
    for name in ["web", "db", "app"] {
        given.push(address(&lab.connect(&connect("blue", name)).unwrap()));
    }
    assert_eq!(given, ["10.1.0.128/24", "10.1.0.130/24", "10.1.0.131/24"]);
    lab.start("late");
    assert_eq!(
        refusal(&mut lab, &connect("blue", "late")),
        "no address is free in 10.1.0.128/30 of network blue: 3 are in use"
    );
    let outside = Connect { ip: ip("10.1.0.9"), ..connect("blue", "late") };
    assert_eq!(address(&lab.connect(&outside).unwrap()), "10.1.0.9/24", "a static address may be anywhere");
}

#[test]
fn a_static_address_that_cannot_be_had_is_refused_with_the_reason() {
    let mut lab = Lab::new();
    let mut wanted = create("blue", &["10.1.0.0/24"]);
    wanted.wishes.aux.insert("printer".to_owned(), "10.1.0.9".parse().unwrap());
    lab.create(&wanted).unwrap();
    lab.connect(&Connect { ip: ip("10.1.0.7"), ..connect("blue", "web") }).unwrap();
    for (ip4, ip6, text) in [
        ("10.1.0.7", "", "address 10.1.0.7 is in use by container web on network blue"),
        ("10.1.0.1", "", "address 10.1.0.1 cannot be given out on network blue: it is the gateway"),
        (
            "10.1.0.0",
            "",
            "address 10.1.0.0 cannot be given out on network blue: it is the address of the subnet itself",
        ),
        (
            "10.1.0.255",
            "",
            "address 10.1.0.255 cannot be given out on network blue: it is the broadcast address of the subnet",
        ),
        (
            "10.1.0.9",
            "",
            "address 10.1.0.9 cannot be given out on network blue: it is reserved as aux-address printer",
        ),
        (
            "10.2.0.7",
            "",
            "address 10.2.0.7 cannot be given out on network blue: it is not in subnet 10.1.0.0/24",
        ),
        ("fd00::7", "", "address fd00::7 cannot be given out on network blue: it is no IPv4 address"),
        ("", "fd00::7", "address fd00::7 cannot be given out on network blue: the network has no IPv6"),
    ] {
        let some = |text: &str| if text.is_empty() { None } else { ip(text) };
        assert_eq!(
            refusal(&mut lab, &Connect { ip: some(ip4), ip6: some(ip6), ..connect("blue", "db") }),
            text
        );
    }
}

#[test]
fn a_static_address_is_skipped_by_those_that_come_after() {
    let mut lab = Lab::blue();
    lab.connect(&Connect { ip: ip("10.1.0.2"), ..connect("blue", "web") }).unwrap();
    assert_eq!(address(&lab.connect(&connect("blue", "db")).unwrap()), "10.1.0.3/24");
}

#[test]
fn a_hardware_address_that_another_container_has_is_refused() {
    let mut lab = Lab::blue();
    let mac = Some("02:00:00:00:00:07".parse().unwrap());
    lab.connect(&Connect { mac, ..connect("blue", "web") }).unwrap();
    assert_eq!(
        refusal(&mut lab, &Connect { mac, ..connect("blue", "db") }),
        "MAC address 02:00:00:00:00:07 is in use on network blue"
    );
}

#[test]
fn a_published_port_belongs_to_one_container() {
    let mut lab = Lab::blue();
    lab.connect(&publish("blue", "web", &["8080:80", "127.0.0.1:9000-9009:9000-9009", "53:53/udp"])).unwrap();
    for (port, text) in [
        ("8080:81", "port 8080/tcp is published by container web on network blue"),
        ("8000-8100:8000-8100", "port 8080/tcp is published by container web on network blue"),
        ("127.0.0.1:8080:80", "port 8080/tcp is published by container web on network blue"),
        ("127.0.0.1:9009:80", "port 127.0.0.1:9009/tcp is published by container web on network blue"),
        ("53:5353/udp", "port 53/udp is published by container web on network blue"),
    ] {
        assert_eq!(refusal(&mut lab, &publish("blue", "db", &[port])), text);
    }
    lab.connect(&publish("blue", "db", &["8080:80/udp", "8081:80", "53:53", "192.0.2.1:8080:80"])).unwrap();
}

#[test]
fn one_port_cannot_be_published_twice_by_one_container() {
    let mut lab = Lab::blue();
    assert_eq!(
        refusal(&mut lab, &publish("blue", "web", &["8080:80", "8080:81"])),
        "port 8080/tcp is to be published twice"
    );
}

#[test]
fn a_port_on_which_a_process_of_the_host_listens_is_not_taken_away_from_it() {
    let mut lab = Lab::blue();
    lab.kernel().listening.push((IpAddr::from([0, 0, 0, 0]), 8080, Protocol::Tcp));
    assert_eq!(
        refusal(&mut lab, &publish("blue", "web", &["8080:80"])),
        "port 8080/tcp is in use by a process of the test of the host"
    );
}

#[test]
fn free_ports_are_chosen_where_none_or_several_are_given() {
    let mut lab = Lab::blue();
    lab.kernel().listening.push((IpAddr::from([0, 0, 0, 0]), 8001, Protocol::Tcp));
    let mut chosen = Vec::new();
    for name in ["web", "db"] {
        let connected = lab.connect(&publish("blue", name, &["8000-8002:80", "443"])).unwrap();
        chosen.extend(connected.endpoint.ports.iter().map(ToString::to_string));
    }
    assert_eq!(
        chosen,
        [
            "0.0.0.0:8000/tcp to 10.1.0.2:80",
            "0.0.0.0:32768/tcp to 10.1.0.2:443",
            "0.0.0.0:8002/tcp to 10.1.0.3:80",
            "0.0.0.0:32769/tcp to 10.1.0.3:443",
        ]
    );
    assert_eq!(
        refusal(&mut lab, &publish("blue", "app", &["8000-8002:80"])),
        "no port is free from 8000 to 8002/tcp"
    );
}

#[test]
fn a_port_is_free_again_after_a_disconnect() {
    let mut lab = Lab::blue();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab.disconnect("blue", "web").unwrap();
    lab.connect(&publish("blue", "db", &["8080:80"])).unwrap();
}

#[test]
fn a_dual_stack_network_publishes_on_both_families() {
    let mut lab = Lab::new();
    lab.create(&create("blue", &["10.1.0.0/24", "fd00:1::/64"])).unwrap();
    let connected = lab.connect(&publish("blue", "web", &["8080:80", "[::1]:9090:90"])).unwrap();
    let ports: Vec<String> = connected.endpoint.ports.iter().map(ToString::to_string).collect();
    assert_eq!(
        ports,
        [
            "0.0.0.0:8080/tcp to 10.1.0.2:80",
            "[::]:8080/tcp to [fd00:1::2]:80",
            "[::1]:9090/tcp to [fd00:1::2]:90",
        ]
    );
    assert_eq!(
        refusal(&mut lab, &publish("blue", "db", &["[::]:8080:80"])),
        "port 8080/tcp is published by container web on network blue"
    );
}

#[test]
fn the_gateway_is_the_network_that_comes_first_by_name_unless_a_priority_says_otherwise() {
    let mut lab = Lab::blue();
    lab.create(&create("amber", &["10.2.0.0/24"])).unwrap();
    lab.create(&create("red", &["10.3.0.0/24"])).unwrap();
    lab.connect(&connect("blue", "web")).unwrap();
    assert_eq!(gateways(&lab, "web"), ["blue 10.1.0.1"]);
    lab.connect(&connect("amber", "web")).unwrap();
    assert_eq!(gateways(&lab, "web"), ["amber 10.2.0.1"]);
    lab.connect(&Connect { gateway_priority: 1, ..connect("red", "web") }).unwrap();
    assert_eq!(gateways(&lab, "web"), ["red 10.3.0.1"]);
    assert_eq!(routes(&mut lab, "web"), ["default route via 10.3.0.1 on eth2 in the container"]);
}

#[test]
fn the_gateway_moves_on_when_its_network_is_left() {
    let mut lab = Lab::blue();
    lab.create(&create("amber", &["10.2.0.0/24"])).unwrap();
    lab.create(&create("red", &["10.3.0.0/24"])).unwrap();
    for (network, priority) in [("amber", 0), ("blue", 5), ("red", 9)] {
        lab.connect(&Connect { gateway_priority: priority, ..connect(network, "web") }).unwrap();
    }
    lab.disconnect("red", "web").unwrap();
    assert_eq!(gateways(&lab, "web"), ["blue 10.1.0.1"]);
    assert_eq!(routes(&mut lab, "web"), ["default route via 10.1.0.1 on eth1 in the container"]);
    lab.rnet.remove("blue", true, Mode::Do).unwrap();
    assert_eq!(gateways(&lab, "web"), ["amber 10.2.0.1"]);
    assert_eq!(routes(&mut lab, "web"), ["default route via 10.2.0.1 on eth0 in the container"]);
    lab.disconnect("amber", "web").unwrap();
    assert_eq!(routes(&mut lab, "web"), Vec::<String>::new());
}

#[test]
fn an_internal_network_is_no_gateway() {
    let mut lab = Lab::blue();
    lab.create(&CreateNetwork { internal: true, ..create("amber", &["10.2.0.0/24"]) }).unwrap();
    lab.connect(&Connect { gateway_priority: 9, ..connect("amber", "web") }).unwrap();
    assert_eq!(gateways(&lab, "web"), Vec::<String>::new());
    lab.connect(&connect("blue", "web")).unwrap();
    assert_eq!(gateways(&lab, "web"), ["blue 10.1.0.1"]);
    assert_eq!(
        refusal(&mut lab, &publish("amber", "db", &["80:80"])),
        "network amber is internal: port 80:80/tcp cannot be published there"
    );
}

#[test]
fn each_family_has_a_gateway_of_its_own() {
    let mut lab = Lab::blue();
    lab.create(&create("six", &["fd00:1::/64"])).unwrap();
    lab.connect(&connect("blue", "web")).unwrap();
    lab.connect(&connect("six", "web")).unwrap();
    assert_eq!(gateways(&lab, "web"), ["blue 10.1.0.1", "six fd00:1::1"]);
    assert_eq!(
        routes(&mut lab, "web"),
        [
            "default route via 10.1.0.1 on eth0 in the container",
            "default route via fd00:1::1 on eth1 in the container",
        ]
    );
}

#[test]
fn interfaces_are_numbered_and_a_name_that_is_taken_is_refused() {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    assert_eq!(lab.connect(&connect("blue", "web")).unwrap().endpoint.interface.as_str(), "eth0");
    let same: Option<InterfaceName> = Some("eth0".parse().unwrap());
    assert_eq!(
        refusal(&mut lab, &Connect { interface: same, ..connect("red", "web") }),
        "container web already has an interface eth0"
    );
    assert_eq!(lab.connect(&connect("red", "web")).unwrap().endpoint.interface.as_str(), "eth1");
}

#[test]
fn an_interface_that_somebody_else_made_in_the_container_is_left_alone() {
    let mut lab = Lab::blue();
    lab.create(&CreateNetwork { internal: true, ..create("red", &["10.2.0.0/24"]) }).unwrap();
    // An interface of which no record speaks.
    lab.connect(&connect("red", "web")).unwrap();
    let of_web = |path: &str| path.contains("/endpoints/web") || path.contains("containers/web/");
    for path in lab.snapshot().files.keys().filter(|path| of_web(path)) {
        fs::remove_file(lab.folder.join(path)).unwrap();
    }
    let name: Option<InterfaceName> = Some("eth0".parse().unwrap());
    assert_eq!(
        refusal(&mut lab, &Connect { interface: name, ..connect("blue", "web") }),
        "container web already has an interface eth0"
    );
    assert_eq!(lab.connect(&connect("blue", "web")).unwrap().endpoint.interface.as_str(), "eth1");
}

#[test]
fn a_container_is_in_a_network_once() {
    let mut lab = Lab::blue();
    lab.connect(&connect("blue", "web")).unwrap();
    assert_eq!(
        refusal(&mut lab, &connect("blue", "web")),
        "container web is already connected to network blue"
    );
    assert_eq!(
        lab.disconnect("blue", "db").unwrap_err().to_string(),
        "container db is not connected to network blue"
    );
}

#[test]
fn what_cannot_be_a_container_is_refused() {
    let mut lab = Lab::blue();
    lab.kernel().namespaces.insert(netns("host"), None);
    lab.kernel().namespaces.insert("/proc/1/ns/net".into(), None);
    for (name, text) in [
        ("nobody", "container nobody not found: no container of rnet run, and no /run/netns/nobody"),
        ("pid:4242", "container pid:4242 not found: there is no such process"),
        ("/nowhere", "container /nowhere not found: there is no such file"),
        ("host", "host is the host's own network namespace, which cannot be a container"),
        ("pid:1", "pid:1 is the host's own network namespace, which cannot be a container"),
    ] {
        assert_eq!(refusal(&mut lab, &connect("blue", name)), text);
    }
    assert_eq!(
        refusal(&mut lab, &connect("host", "web")),
        "a container cannot be connected to network host: it must be started there (rnet run --network host)"
    );
    assert_eq!(
        refusal(&mut lab, &connect("none", "web")),
        "a container cannot be connected to network none: that means to have no network"
    );
    assert_eq!(refusal(&mut lab, &connect("nowhere", "web")), "network nowhere not found");
}

#[test]
fn a_bridge_has_room_for_1023_containers() {
    let mut lab = Lab::new();
    let network = lab.create(&create("blue", &["10.1.0.0/16"])).unwrap();
    let bridge: InterfaceName = InterfaceName::of("rn-", &network.id);
    for number in 0..1023 {
        let veth = rnetkit_drivers::Resource::Veth {
            name: format!("v{number}").parse().unwrap(),
            bridge: Some(bridge.clone()),
            peer: "eth0".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1500,
            group: 1,
        };
        lab.kernel().resources.push((Some((4, number)), veth));
    }
    assert_eq!(
        refusal(&mut lab, &connect("blue", "web")),
        "network blue is full: a bridge of the Linux kernel has at most 1023 ports"
    );
}

#[test]
fn default_pools_skip_what_the_host_routes_and_what_networks_have() {
    let mut lab = Lab::new();
    lab.kernel()
        .routed
        .extend(["172.17.0.0/16".parse().unwrap(), "172.19.4.0/24".parse::<IpNetwork>().unwrap()]);
    let mut subnets = Vec::new();
    for name in ["blue", "red"] {
        subnets.push(lab.create(&create(name, &[])).unwrap().pools[0].subnet.to_string());
    }
    assert_eq!(subnets, ["172.20.0.0/16", "172.21.0.0/16"], "172.18.0.0/16 is kept for network bridge");
    assert_eq!(address(&lab.connect(&connect("bridge", "web")).unwrap()), "172.18.0.2/16");
}

#[test]
fn a_subnet_that_meets_another_is_refused_by_name() {
    let mut lab = Lab::blue();
    lab.kernel().routed.push("192.0.2.0/24".parse().unwrap());
    let before = lab.snapshot();
    for (subnet, text) in [
        ("10.1.0.128/25", "subnet 10.1.0.128/25 overlaps 10.1.0.0/24 of network blue"),
        ("10.0.0.0/8", "subnet 10.0.0.0/8 overlaps 10.1.0.0/24 of network blue"),
        ("192.0.2.64/26", "subnet 192.0.2.64/26 overlaps 192.0.2.0/24, a route of the test"),
        ("172.17.1.0/24", "subnet 172.17.1.0/24 overlaps 172.17.0.0/16, which is kept for network bridge"),
    ] {
        assert_eq!(lab.create(&create("red", &[subnet])).unwrap_err().to_string(), text);
    }
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn what_cannot_be_created_is_refused_and_changes_nothing() {
    let mut lab = Lab::blue();
    let before = lab.snapshot();
    let with = |change: &dyn Fn(&mut CreateNetwork)| {
        let mut wanted = create("red", &["10.2.0.0/24"]);
        change(&mut wanted);
        wanted
    };
    let option = |key: &str, value: &str| {
        with(&|wanted| drop(wanted.options.insert(key.to_owned(), value.to_owned())))
    };
    let id = "0123456789abcdef".repeat(4);
    for (wanted, text) in [
        (create("blue", &[]), "network with name blue already exists".to_owned()),
        (create("bridge", &[]), "network with name bridge already exists".to_owned()),
        (create(&id, &[]), format!("invalid network name \"{id}\": it has the form of an id")),
        (
            with(&|wanted| wanted.driver = "overlay9".to_owned()),
            "driver overlay9 not found; there are bridge, host, ipvlan, macvlan, null, overlay, ptp".to_owned(),
        ),
        (
            with(&|wanted| wanted.driver = "host".to_owned()),
            "driver host has one network only, which is there already".to_owned(),
        ),
        (
            with(&|wanted| wanted.ipv4 = false),
            "an IPv4 subnet was given, and IPv4 is switched off".to_owned(),
        ),
        (
            with(&|wanted| wanted.wishes.subnets.push("10.3.0.0/24".parse().unwrap())),
            "a bridge has one IPv4 subnet, and these were given: 10.2.0.0/24, 10.3.0.0/24".to_owned(),
        ),
        (
            with(&|wanted| wanted.wishes.gateways.push("10.9.0.1".parse().unwrap())),
            "gateway 10.9.0.1 is in no subnet of the network".to_owned(),
        ),
        (
            option("mtu", "12"),
            "option \"mtu\" of driver bridge: \"12\" is refused: it must be a number of bytes from 68 to 65535, and from 1280 with IPv6".to_owned(),
        ),
        (option("name", "rnet0"), "bridge rnet0 is the one of network bridge already".to_owned()),
    ] {
        assert_eq!(lab.create(&wanted).unwrap_err().to_string(), text);
        assert_eq!(lab.snapshot(), before, "{text}");
    }
}

#[test]
fn a_link_of_somebody_else_is_left_alone() {
    let mut lab = Lab::new();
    lab.kernel().resources.push((
        None,
        rnetkit_drivers::Resource::Bridge {
            name: "br0".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 9000,
            group: 0,
            alias: String::new(),
        },
    ));
    let before = lab.snapshot();
    let mut wanted = create("blue", &["10.1.0.0/24"]);
    wanted.options.insert("name".to_owned(), "br0".to_owned());
    assert_eq!(
        lab.create(&wanted).unwrap_err().to_string(),
        "the host already has a link br0, which is not of network blue"
    );
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn networks_are_found_by_name_id_or_the_beginning_of_an_id() {
    let mut lab = Lab::blue();
    let id = lab.rnet.network("blue").unwrap().id.to_string();
    assert_eq!(lab.rnet.network(&id).unwrap().name.as_str(), "blue");
    assert_eq!(lab.rnet.network(&id[..12]).unwrap().name.as_str(), "blue");
    assert_eq!(lab.rnet.network("blu").unwrap_err().to_string(), "network blu not found");
    assert_eq!(lab.rnet.network("").unwrap_err().to_string(), "network \"\" not found");
    assert_eq!(lab.rnet.network("a\u{1b}[31m").unwrap_err().to_string(), "network a\\u{1b}[31m not found");
    for (name, _) in crate::verbs::BUILTIN {
        assert_eq!(
            lab.remove(name).unwrap_err().to_string(),
            format!("{name} is a pre-defined network and cannot be removed")
        );
    }
}
