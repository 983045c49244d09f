//! Published ports: who reaches them, whom the container sees, and who is refused.

use crate::{
    command::until,
    harness::tests,
    lab::{LAN, Lab, Place},
};

tests! {
    tcp_from_the_lan,
    udp_from_the_lan,
    tcp_and_udp_of_one_number_are_two_ports,
    the_host_reaches_it_on_every_address_of_its_own,
    the_container_reaches_itself_through_the_host,
    a_neighbour_reaches_it_through_the_host,
    a_container_of_another_network_reaches_it_through_the_host,
    several_ports_of_one_container,
    a_range_of_ports,
    a_free_host_port_is_chosen_and_shown,
    free_host_ports_are_chosen_without_collision,
    a_given_host_address_alone_listens,
    a_port_on_the_loopback_is_closed_to_the_lan,
    one_port_on_two_host_addresses_by_two_containers,
    the_host_address_may_be_an_option_of_the_network,
    only_the_published_ports_are_open,
    traffic_to_others_on_that_port_is_not_hijacked,
    a_port_closes_on_disconnect_and_can_be_published_again,
    a_port_of_a_container_is_refused_to_another,
    a_specific_address_beats_the_wildcard_whatever_the_order,
    a_port_on_which_the_host_listens_is_refused,
    a_port_on_which_the_host_listens_elsewhere_is_free,
    a_udp_port_on_which_the_host_listens_is_refused,
    a_refused_port_among_others_leaves_none_open,
    port_shows_what_is_published,
    ports_follow_the_container_to_another_address,
    one_container_has_a_port_on_one_loopback_address,
    all_ports_are_one_element,
    a_large_range_that_changes_numbers_works_from_end_to_end,
    sctp_is_refused_where_the_kernel_has_none,
    a_local_address_of_others_is_spared_by_a_host_address,
}

fn tcp_from_the_lan(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "8080:80"]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web).seen_from(LAN);
    lab.rn("network disconnect bridge web").ok().silent();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
}

fn udp_from_the_lan(lab: &Lab) {
    let dns = lab.web("bridge", "dns", &["-p", "5300:53/udp"]);
    lab.listen_udp(&dns, "0.0.0.0:53");
    lab.udp(&lab.lan, "192.0.2.1:5300").answered_by(&dns).seen_from(LAN);
    lab.no_tcp(&lab.lan, "192.0.2.1:5300");
    lab.rn("network disconnect bridge dns").ok();
}

fn tcp_and_udp_of_one_number_are_two_ports(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "443:80", "-p", "443:443/udp"]);
    lab.listen_udp(&web, "0.0.0.0:443");
    lab.tcp(&lab.lan, "192.0.2.1:443").answered_by(&web);
    lab.udp(&lab.lan, "192.0.2.1:443").answered_by(&web);
    lab.rn("network disconnect bridge web").ok();
}

fn the_host_reaches_it_on_every_address_of_its_own(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    lab.listen_udp(&web, "0.0.0.0:53");
    for address in ["127.0.0.1", "192.0.2.1", "172.18.0.1"] {
        for _ in 0..3 {
            lab.tcp(&lab.host, &format!("{address}:8080")).answered_by(&web);
            lab.udp(&lab.host, &format!("{address}:5300")).answered_by(&web);
        }
    }
    lab.rn("network rm -f blue").ok();
}

fn the_container_reaches_itself_through_the_host(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    lab.listen_udp(&web, "0.0.0.0:53");
    lab.tcp(&web, "192.0.2.1:8080").answered_by(&web);
    lab.udp(&web, "192.0.2.1:5300").answered_by(&web);
    lab.tcp(&web, "172.17.0.1:8080").answered_by(&web);
    lab.rn("network disconnect bridge web").ok();
}

fn a_neighbour_reaches_it_through_the_host(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "8080:80", "-p", "5300:53/udp"]);
    lab.listen_udp(&web, "0.0.0.0:53");
    let db = lab.web("bridge", "db", &[]);
    lab.tcp(&db, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&db, "172.17.0.1:8080").answered_by(&web);
    lab.udp(&db, "192.0.2.1:5300").answered_by(&web);
    lab.rn("network rm -f bridge").refused(&["bridge"]);
    lab.rn("network disconnect bridge web").ok();
    lab.rn("network disconnect bridge db").ok();
}

fn a_container_of_another_network_reaches_it_through_the_host(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    let db = lab.web("green", "db", &[]);
    lab.tcp(&db, "192.0.2.1:8080").answered_by(&web);
    lab.no_tcp(&db, "172.18.0.2:80");
    lab.rn("network rm -f blue green").ok();
}

fn several_ports_of_one_container(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "8080:80", "-p", "8081:81", "-p", "8082:80"]);
    lab.listen_tcp(&web, "0.0.0.0:81");
    for port in [8080, 8081, 8082] {
        lab.tcp(&lab.lan, &format!("192.0.2.1:{port}")).answered_by(&web);
    }
    lab.rn("network disconnect bridge web").ok();
}

fn a_range_of_ports(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "8000-8002:9000-9002", "-p", "7000-7100:9100-9200/udp"]);
    for port in 9000..=9002 {
        lab.listen_tcp(&web, &format!("0.0.0.0:{port}"));
    }
    lab.listen_udp(&web, "0.0.0.0:9150");
    for port in 8000..=8002 {
        lab.tcp(&lab.lan, &format!("192.0.2.1:{port}")).answered_by(&web);
    }
    lab.udp(&lab.lan, "192.0.2.1:7050").answered_by(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8003");
    lab.no_tcp(&lab.lan, "192.0.2.1:7999");
    lab.namespace("other");
    lab.rn("network connect -p 8001:80 bridge other").refused(&["8001/tcp", "web"]);
    lab.rn("network connect -p 7000:80/udp bridge other").refused(&["7000/udp", "web"]);
    lab.rn("network connect -p 8003:80 bridge other").ok();
    lab.rn("network disconnect bridge web").ok();
    lab.rn("network disconnect bridge other").ok();
}

fn a_free_host_port_is_chosen_and_shown(lab: &Lab) {
    for spec in ["80", ":80", "192.0.2.1::80", "80/tcp"] {
        let web = lab.web("bridge", "web", &["-p", spec]);
        let shown = lab.rn("port web 80").ok().text();
        let (address, port) =
            shown.lines().next().and_then(|line| line.rsplit_once(':')).expect("ADDRESS:PORT");
        assert_eq!(address, if spec.starts_with("192") { "192.0.2.1" } else { "0.0.0.0" }, "{spec}");
        assert!(port.parse::<u16>().is_ok_and(|port| port >= 1024), "{spec}: {shown}");
        lab.tcp(&lab.lan, &format!("192.0.2.1:{port}")).answered_by(&web);
        lab.rn("network disconnect bridge web").ok();
        lab.delete_namespace(&web);
    }
}

fn free_host_ports_are_chosen_without_collision(lab: &Lab) {
    lab.rn("network create blue").ok();
    let mut ports: Vec<String> = Vec::new();
    for number in 0..5 {
        let name = format!("c{number}");
        lab.namespace(&name);
        lab.rnet(&["network", "connect", "-p", "80", "-p", "81", "blue", &name]).ok();
        for port in ["80", "81"] {
            let shown = lab.rnet(&["port", &name, port]).ok().text();
            ports.push(shown.lines().next().unwrap_or_default().to_owned());
        }
    }
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 10, "{ports:?}");
    lab.rn("network rm -f blue").ok();
}

fn a_given_host_address_alone_listens(lab: &Lab) {
    crate::lab::prepare(&lab.host, "address add 192.0.2.7/24 dev uplink0");
    lab.prepared();
    let web = lab.web("bridge", "web", &["-p", "192.0.2.7:8080:80"]);
    lab.tcp(&lab.lan, "192.0.2.7:8080").answered_by(&web).seen_from(LAN);
    lab.tcp(&lab.host, "192.0.2.7:8080").answered_by(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.no_tcp(&lab.host, "127.0.0.1:8080");
    lab.rn("port web").ok().prints("80/tcp -> 192.0.2.7:8080\n");
    lab.rn("network disconnect bridge web").ok();
}

fn a_port_on_the_loopback_is_closed_to_the_lan(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "127.0.0.1:8080:80"]);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.no_tcp(&lab.host, "192.0.2.1:8080");
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    for sysctl in ["net/ipv4/conf/all/route_localnet", "net/ipv4/conf/rnet0/route_localnet"] {
        let value = std::fs::read_to_string(format!("/proc/sys/{sysctl}")).expect("/proc");
        assert_eq!(value.trim(), "0", "{sysctl}");
    }

    // A neighbour that sends frames for 127.0.0.1 to the host's MAC address.
    lab.lan.inside(|| {
        for sysctl in ["all/route_localnet", "eth0/route_localnet"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{sysctl}"), "1").expect("a namespace of our own");
        }
    });
    crate::lab::prepare(
        &lab.lan,
        "address del 127.0.0.1/8 dev lo\n route add 127.0.0.1/32 via 192.0.2.1 src 192.0.2.2",
    );
    lab.no_tcp(&lab.lan, "127.0.0.1:8080");
    lab.rn("network disconnect bridge web").ok();
}

fn one_port_on_two_host_addresses_by_two_containers(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "192.0.2.1:8080:80"]);
    let db = lab.web("bridge", "db", &["-p", "127.0.0.1:8080:80"]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&db);
    lab.rn("network disconnect bridge web").ok();
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&db);
    lab.rn("network disconnect bridge db").ok();
}

fn the_host_address_may_be_an_option_of_the_network(lab: &Lab) {
    lab.rn("network create -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.rn("port web").ok().prints("80/tcp -> 127.0.0.1:8080\n");
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.rn("network rm -f blue").ok();
}

fn only_the_published_ports_are_open(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "8080:80"]);
    lab.listen_tcp(&web, "0.0.0.0:81");
    crate::lab::prepare(&lab.lan, "route add 172.17.0.0/16 via 192.0.2.1");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:81");
    lab.no_tcp(&lab.lan, "172.17.0.2:80");
    lab.no_tcp(&lab.lan, "172.17.0.2:81");
    lab.rn("network disconnect bridge web").ok();
}

fn traffic_to_others_on_that_port_is_not_hijacked(lab: &Lab) {
    let web = lab.web("bridge", "web", &["-p", "9000:80"]);
    let db = lab.web("bridge", "db", &[]);
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
    lab.tcp(&db, "192.0.2.2:9000").answered_by(&lab.lan);
    lab.tcp(&lab.host, "192.0.2.2:9000").answered_by(&lab.lan);
    lab.tcp(&lab.lan, "192.0.2.1:9000").answered_by(&web);
    lab.rn("network disconnect bridge web").ok();
    lab.rn("network disconnect bridge db").ok();
}

fn a_port_closes_on_disconnect_and_can_be_published_again(lab: &Lab) {
    lab.rn("network create blue").ok();
    for name in ["one", "two", "three"] {
        let place = lab.web("blue", name, &["-p", "8080:80", "-p", "5300:53/udp"]);
        lab.listen_udp(&place, "0.0.0.0:53");
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&place);
        lab.udp(&lab.lan, "192.0.2.1:5300").answered_by(&place);
        lab.rnet(&["network", "disconnect", "blue", name]).ok();
        lab.no_tcp(&lab.lan, "192.0.2.1:8080");
        lab.no_udp(&lab.lan, "192.0.2.1:5300");
    }
    lab.rn("network rm blue").ok();
}

fn a_port_of_a_container_is_refused_to_another(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.namespace("db");
    let here = lab.snapshot();
    let line = "rnet: port 8080/tcp is published by container web on network blue";
    for network in ["blue", "green", "bridge"] {
        lab.rnet(&["network", "connect", "-p", "8080:80", network, "db"]).fails_with(line);
        lab.rnet(&["network", "connect", "-p", "127.0.0.1:8080:80", network, "db"]).fails_with(line);
        lab.rnet(&["network", "connect", "-p", "8070-8090:70-90", network, "db"]).fails_with(line);
        lab.is_like(&here);
    }
    lab.rn("network connect -p 8080:80/udp blue db").ok();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network rm -f blue green").ok();
}

fn a_specific_address_beats_the_wildcard_whatever_the_order(lab: &Lab) {
    lab.rn("network create blue").ok();
    for (first, second) in [("192.0.2.1:8080:80", "8080:80"), ("8080:80", "192.0.2.1:8080:80")] {
        let one = lab.web("blue", "one", &["-p", first]);
        let two = lab.web("blue", "two", &["-p", second]);
        let specific = if first.starts_with("192") { &one } else { &two };
        let wildcard = if first.starts_with("192") { &two } else { &one };
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(specific).seen_from(LAN);
        lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(wildcard);
        let three = lab.namespace("three");
        let line = "rnet: port 192.0.2.1:8080/tcp is published by container";
        lab.rn("network connect -p 192.0.2.1:8080:80 blue three").refused(&[line]);
        for place in [&one, &two] {
            lab.rn(&format!("network disconnect blue {}", place.name())).ok();
            lab.delete_namespace(place);
        }
        lab.delete_namespace(&three);
    }
    lab.rn("network rm -f blue").ok();
}

fn a_port_on_which_the_host_listens_is_refused(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    for address in ["0.0.0.0:8080", "127.0.0.1:8080", "192.0.2.1:8080", "[::]:8080"] {
        lab.listen_tcp(&lab.host, address);
        let here = lab.snapshot();
        let who = format!("(pid {}) of the host", std::process::id());
        for ports in ["8080:80", "8000-8100:80-180"] {
            // A child that another test forks at this moment has the socket too, until it becomes its own program.
            until("who listens is named", || {
                let output = lab.rn(&format!("network connect -p {ports} blue web"));
                output.refused(&["8080/tcp", "in use by", ") of the host"]).stderr().contains(&who)
            });
        }
        lab.is_like(&here);
        let client = if address.contains("127.0.0.1") { "127.0.0.1:8080" } else { "192.0.2.1:8080" };
        lab.tcp(&lab.host, client).answered_by(&lab.host);
        lab.silence(&lab.host);
    }
    lab.rn("network rm blue").ok();
}

fn a_port_on_which_the_host_listens_elsewhere_is_free(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.listen_tcp(&lab.host, "127.0.0.1:8080");
    let web = lab.web("blue", "web", &["-p", "192.0.2.1:8080:80"]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&lab.host);
    lab.rn("network rm -f blue").ok();
}

fn a_udp_port_on_which_the_host_listens_is_refused(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("dns");
    lab.listen_udp(&lab.host, "0.0.0.0:5300");
    lab.rn("network connect -p 5300:53/udp blue dns").refused(&["5300/udp"]);
    lab.rn("network connect -p 5300:53/tcp blue dns").ok();
    lab.rn("network rm -f blue").ok();
}

fn a_refused_port_among_others_leaves_none_open(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.listen_tcp(&lab.host, "0.0.0.0:8082");
    let here = lab.snapshot();
    lab.rn("network connect -p 8080:80 -p 8081:81 -p 8082:82 blue web").refused(&["8082/tcp"]);
    lab.is_like(&here);
    lab.namespace_is_fresh(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.rn("network rm blue").ok();
}

fn port_shows_what_is_published(lab: &Lab) {
    let options = ["-p", "192.0.2.1:8080:80", "-p", "127.0.0.1:5300:53/udp", "-p", "127.0.0.1:9000:100"];
    lab.web("bridge", "web", &options);
    let all = "53/udp -> 127.0.0.1:5300\n80/tcp -> 192.0.2.1:8080\n100/tcp -> 127.0.0.1:9000\n";
    lab.rn("port web").ok().prints(all);
    lab.rn("port web 80").ok().prints("192.0.2.1:8080\n");
    lab.rn("port web 80/tcp").ok().prints("192.0.2.1:8080\n");
    lab.rn("port web 53/udp").ok().prints("127.0.0.1:5300\n");
    lab.rn("port web 53").refused(&["53/tcp", "web"]);
    lab.rn("port web 81").refused(&["81/tcp", "web"]);
    lab.rn("port nobody").refused(&["nobody"]);
    lab.rn("network disconnect bridge web").ok();
}

fn ports_follow_the_container_to_another_address(lab: &Lab) {
    lab.rn("network create --subnet 10.50.0.0/24 blue").ok();
    let web: Place = lab.web("blue", "web", &["-p", "8080:80", "--ip", "10.50.0.10"]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network disconnect blue web").ok();
    lab.rn("network connect -p 8080:80 --ip 10.50.0.20 blue web").ok();
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.rn("network rm -f blue").ok();
}

fn one_container_has_a_port_on_one_loopback_address(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    let here = lab.snapshot();
    for (first, second) in [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")] {
        lab.rn(&format!("network connect -p {first}:8080:80 -p {second}:8080:81 blue web")).fails_with(&format!(
            "rnet: port 8080/tcp of one container can be on one loopback address only, and is on {first}: not on {second} too"
        ));
        lab.is_like(&here);
    }
    // Two containers may.
    lab.rn("network connect -p 127.0.0.1:8080:80 blue web").ok();
    let db = lab.web("blue", "db", &["-p", "127.0.0.2:8080:80"]);
    lab.tcp(&lab.host, "127.0.0.2:8080").answered_by(&db);
    lab.rn("network rm -f blue").ok();
}

fn all_ports_are_one_element(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --ipv6 blue").ok();
    let web = lab.web("blue", "web", &["-p", "1-65535:1-65535", "-p", "1-65535:1-65535/udp"]);
    for map in ["ranges4_any", "ranges6_any"] {
        let listed = lab.sh(&format!("nft list map inet rnet {map}")).ok().text();
        let elements: Vec<&str> = listed.lines().filter(|line| line.contains("1-65535")).collect();
        assert_eq!(elements.len(), 2, "{listed}");
    }
    lab.listen_tcp(&web, "0.0.0.0:65535");
    lab.listen_tcp(&web, "0.0.0.0:1");
    lab.listen_udp(&web, "0.0.0.0:40000");
    for port in [1, 80, 65535] {
        lab.tcp(&lab.lan, &format!("192.0.2.1:{port}")).answered_by(&web).seen_from(LAN);
        lab.tcp(&lab.host, &format!("127.0.0.1:{port}")).answered_by(&web);
    }
    lab.udp(&lab.lan, "192.0.2.1:40000").answered_by(&web);
    lab.namespace("db");
    lab.rn("network connect -p 9:9 blue db")
        .fails_with("rnet: port 9/tcp is published by container web on network blue");
    lab.rn("check").ok().prints("");
    lab.rn("network rm -f blue").ok();
}

fn a_large_range_that_changes_numbers_works_from_end_to_end(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect -p 1-20000:30001-50000 blue web").ok();
    for (outside, inside) in [(1, 30001), (9999, 39999), (20000, 50000)] {
        lab.listen_tcp(&web, &format!("0.0.0.0:{inside}"));
        lab.tcp(&lab.lan, &format!("192.0.2.1:{outside}")).answered_by(&web);
        lab.tcp(&lab.host, &format!("127.0.0.1:{outside}")).answered_by(&web);
    }
    lab.no_tcp(&lab.lan, "192.0.2.1:20001");
    lab.rn("network disconnect blue web").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:9999");
    lab.rn("network rm blue").ok();
}

fn sctp_is_refused_where_the_kernel_has_none(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    // SAFETY: asks for a socket, and closes it if there is one.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 132) };
    if socket >= 0 {
        // SAFETY: it is the descriptor of above, and nobody else's.
        unsafe { libc::close(socket) };
        lab.rn("network connect -p 80:80/sctp blue web").ok();
        lab.rn("port web").ok().prints("80/sctp -> 0.0.0.0:80\n");
    } else {
        let here = lab.snapshot();
        let line = "rnet: port 80/sctp cannot be published: the kernel of this host has no SCTP";
        lab.rn("network connect -p 80:80/sctp blue web").fails_with(line);
        lab.is_like(&here);
    }
    lab.rn("network rm -f blue").ok();
}

/// An address that somebody routed to this host as local is one of the host's: the wildcard means it too.
fn a_local_address_of_others_is_spared_by_a_host_address(lab: &Lab) {
    crate::lab::prepare(&lab.host, "route add local 203.0.113.5/32 dev lo");
    crate::lab::prepare(&lab.lan, "route add 203.0.113.5/32 via 192.0.2.1");
    lab.prepared();
    let web = lab.web("bridge", "web", &["-p", "8080:80", "-p", "192.0.2.1:8081:80"]);
    lab.tcp(&lab.lan, "203.0.113.5:8080").answered_by(&web);
    lab.no_tcp(&lab.lan, "203.0.113.5:8081");
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
    lab.rn("network disconnect bridge web").ok();
}
