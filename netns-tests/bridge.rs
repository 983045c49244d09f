//! Networks of the bridge driver: what a container gets, whom it reaches, what goes when it leaves.

use crate::{
    harness::tests,
    lab::{LAN, Lab, Place, mac_of, prepare, use_resolver},
};

tests! {
    a_newcomer_with_plain_namespaces,
    the_lowest_free_addresses_are_given_in_order,
    a_freed_address_rests_while_others_are_free,
    a_freed_address_is_given_at_once_when_it_is_the_only_one,
    the_default_network_is_made_on_first_use_and_goes_with_its_last_endpoint,
    the_default_network_moves_away_from_a_range_that_the_host_uses,
    the_mac_address_follows_the_address,
    the_chosen_mac_address_is_used_in_lower_case,
    the_interface_is_up_with_address_and_default_route,
    egress_is_masqueraded,
    egress_is_not_masqueraded_where_that_is_off,
    containers_of_one_network_reach_each_other,
    containers_of_two_networks_do_not_reach_each_other,
    a_container_of_two_networks_reaches_both,
    interfaces_are_numbered_and_free_numbers_used_again,
    a_foreign_interface_of_the_container_is_left_alone,
    the_gateway_is_chosen_by_priority_and_moves_on_disconnect,
    the_gateway_stays_where_priority_is_equal_and_the_name_is_first,
    an_internal_network_has_no_way_out_nor_in,
    an_internal_network_never_is_the_default_route,
    without_icc_members_reach_the_outside_but_not_each_other,
    the_given_subnet_and_gateway_are_used,
    addresses_come_from_the_given_range,
    auxiliary_addresses_are_never_given_out,
    the_given_address_is_used,
    the_given_interface_name_is_used,
    the_interface_prefix_is_an_option_of_the_network,
    the_mtu_is_set_on_bridge_and_interface,
    the_bridge_name_is_an_option_of_the_network,
    default_pools_skip_what_the_host_routes,
    default_pools_skip_what_the_host_resolves_through,
    a_network_without_endpoints_can_be_removed_and_its_subnet_is_free_again,
    a_network_with_endpoints_is_removed_by_force_only,
    several_networks_are_removed_and_a_failure_stops_none,
    removing_an_unknown_network_by_force_is_no_error,
    prune_removes_what_nobody_uses,
    prune_asks_first,
    prune_follows_its_filter,
    disconnect_works_after_the_namespace_was_deleted,
    disconnect_by_force_of_what_is_not_connected_is_no_error,
    disconnect_works_after_the_container_deleted_its_interface,
    a_namespace_is_found_by_path_and_by_process,
    dry_runs_print_the_plan_and_change_nothing,
    the_host_forwards_only_while_there_are_containers,
    an_admins_forwarding_is_left_on,
    foreign_links_and_rules_are_left_alone,
    two_instances_leave_each_other_alone,
    root_and_run_may_come_from_the_environment,
}

/// The second block of issue 2, word for word.
fn a_newcomer_with_plain_namespaces(lab: &Lab) {
    lab.sh("ip netns add web && rnet network create blue && rnet network connect -p 8081:80 blue web").ok();
    let web = Place::new("web", "/run/netns/web");
    lab.listen_tcp(&web, "0.0.0.0:80");

    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web).seen_from(LAN);
    let shown = lab.sh("rnet network inspect blue; rnet network ls; rnet port web; rnet ps").ok();
    for word in ["\"Name\": \"blue\"", "NETWORK ID", "80/tcp -> 0.0.0.0:8081", "web"] {
        assert!(shown.stdout().contains(word), "{word} is not in {shown}");
    }

    lab.sh("rnet network disconnect blue web; rnet network rm blue").ok();
    lab.is_clean();
    lab.namespace_is_fresh(&web);
    lab.silence(&web);
    lab.sh("ip netns del web").ok();
}

fn the_lowest_free_addresses_are_given_in_order(lab: &Lab) {
    lab.rn("network create blue").ok();
    for (name, address) in [("c1", "172.18.0.2"), ("c2", "172.18.0.3"), ("c3", "172.18.0.4")] {
        let place = lab.namespace(name);
        lab.rnet(&["network", "connect", "blue", name]).ok().silent();
        assert_eq!(lab.address("blue", name), address);
        assert_eq!(place.addresses("eth0"), [format!("{address}/16")]);
    }
    lab.audit("blue");
    lab.rn("network rm -f blue").ok();
}

fn a_freed_address_rests_while_others_are_free(lab: &Lab) {
    lab.rn("network create blue").ok();
    for name in ["c1", "c2", "c3"] {
        lab.namespace(name);
    }
    lab.rn("network connect blue c1").ok();
    lab.rn("network connect blue c2").ok();
    lab.rn("network disconnect blue c1").ok();
    lab.rn("network connect blue c3").ok();
    assert_eq!(lab.address("blue", "c3"), "172.18.0.4", "172.18.0.2 was freed a moment ago");
    lab.rn("network rm -f blue").ok();
}

fn a_freed_address_is_given_at_once_when_it_is_the_only_one(lab: &Lab) {
    lab.rn("network create --subnet 10.77.0.0/30 tiny").ok();
    lab.namespace("c1");
    lab.namespace("c2");
    lab.rn("network connect tiny c1").ok();
    lab.rn("network connect tiny c2").refused(&["tiny", "10.77.0.0/30", "1"]);
    lab.rn("network disconnect tiny c1").ok();
    lab.rn("network connect tiny c2").ok();
    assert_eq!(lab.address("tiny", "c2"), "10.77.0.2");
    lab.rn("network rm -f tiny").ok();
}

fn the_default_network_is_made_on_first_use_and_goes_with_its_last_endpoint(lab: &Lab) {
    lab.rn("network inspect bridge").ok();
    lab.is_clean();

    let (c1, c2) = (lab.namespace("c1"), lab.namespace("c2"));
    lab.rn("network connect bridge c1").ok();
    lab.rn("network connect bridge c2").ok();
    assert_eq!(lab.host.addresses("rnet0"), ["172.17.0.1/16"]);
    assert_eq!(c1.addresses("eth0"), ["172.17.0.2/16"]);
    assert_eq!(c2.addresses("eth0"), ["172.17.0.3/16"]);
    lab.rn("network disconnect bridge c1").ok();
    assert!(lab.host.has_link("rnet0"), "c2 still is on it");
    lab.rn("network disconnect bridge c2").ok();
    lab.is_clean();
}

fn the_default_network_moves_away_from_a_range_that_the_host_uses(lab: &Lab) {
    prepare(&lab.host, "route add 172.17.5.0/24 via 192.0.2.2");
    lab.prepared();
    let web = lab.web("bridge", "web", &[]);
    assert_eq!(web.addresses("eth0"), ["172.18.0.2/16"]);
    lab.rn("network disconnect bridge web").ok();
}

fn the_mac_address_follows_the_address(lab: &Lab) {
    lab.rn("network create --subnet 10.9.0.0/16 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect --ip 10.9.170.187 blue web").ok();
    assert_eq!(web.mac("eth0"), "02:42:0a:09:aa:bb");
    assert_eq!(web.mac("eth0"), mac_of("10.9.170.187"));
    assert_eq!(lab.endpoint("blue", "web")["MacAddress"], "02:42:0a:09:aa:bb");
    lab.rn("network rm -f blue").ok();
}

fn the_chosen_mac_address_is_used_in_lower_case(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["--mac-address", "0A:1B:2C:3D:4E:5F"]);
    assert_eq!(web.mac("eth0"), "0a:1b:2c:3d:4e:5f");
    assert_eq!(lab.endpoint("blue", "web")["MacAddress"], "0a:1b:2c:3d:4e:5f");
    lab.tcp(&lab.host, "172.18.0.2:80").answered_by(&web);
    lab.rn("network rm -f blue").ok();
}

fn the_interface_is_up_with_address_and_default_route(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    assert!(web.is_up("eth0"));
    assert_eq!(web.gateway(), Some(("172.18.0.1".into(), "eth0".into())));
    assert_eq!(
        web.ip("-6 address show dev eth0 scope link").as_array().map(Vec::len),
        Some(0),
        "no IPv6 was asked for"
    );
    lab.rn("network rm -f blue").ok();
}

fn egress_is_masqueraded(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &[]);
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
    lab.listen_udp(&lab.lan, "192.0.2.2:9000");
    lab.tcp(&web, "192.0.2.2:9000").answered_by(&lab.lan).seen_from("192.0.2.1");
    lab.udp(&web, "192.0.2.2:9000").answered_by(&lab.lan).seen_from("192.0.2.1");
    lab.rn("network rm -f blue").ok();
}

fn egress_is_not_masqueraded_where_that_is_off(lab: &Lab) {
    lab.rn("network create -o com.docker.network.bridge.enable_ip_masquerade=false blue").ok();
    let web = lab.web("blue", "web", &[]);
    prepare(&lab.lan, "route add 172.18.0.0/16 via 192.0.2.1");
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
    lab.tcp(&web, "192.0.2.2:9000").answered_by(&lab.lan).seen_from("172.18.0.2");
    lab.rn("network rm -f blue").ok();
}

fn containers_of_one_network_reach_each_other(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &[]);
    let db = lab.web("blue", "db", &[]);
    lab.listen_udp(&db, "0.0.0.0:53");
    lab.tcp(&web, "172.18.0.3:80").answered_by(&db).seen_from("172.18.0.2");
    lab.tcp(&db, "172.18.0.2:80").answered_by(&web).seen_from("172.18.0.3");
    lab.udp(&web, "172.18.0.3:53").answered_by(&db).seen_from("172.18.0.2");
    lab.tcp(&web, "172.18.0.3:81").is_refused();
    lab.rn("network rm -f blue").ok();
}

fn containers_of_two_networks_do_not_reach_each_other(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    let web = lab.web("blue", "web", &[]);
    let db = lab.web("green", "db", &[]);
    lab.listen_udp(&db, "0.0.0.0:53");
    assert_eq!(db.addresses("eth0"), ["172.19.0.2/16"]);
    lab.no_tcp(&web, "172.19.0.2:80");
    lab.no_udp(&web, "172.19.0.2:53");
    lab.no_tcp(&db, "172.18.0.2:80");
    lab.tcp(&lab.host, "172.19.0.2:80").answered_by(&db);
    lab.rn("network rm -f blue green").ok();
}

fn a_container_of_two_networks_reaches_both(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    let web = lab.web("blue", "web", &[]);
    lab.rn("network connect green web").ok();
    let (left, right) = (lab.web("blue", "left", &[]), lab.web("green", "right", &[]));
    lab.tcp(&web, "172.18.0.3:80").answered_by(&left).seen_from("172.18.0.2");
    lab.tcp(&web, "172.19.0.3:80").answered_by(&right).seen_from("172.19.0.2");
    lab.no_tcp(&left, "172.19.0.3:80");
    lab.rn("network rm -f blue green").ok();
}

fn interfaces_are_numbered_and_free_numbers_used_again(lab: &Lab) {
    let web = lab.namespace("web");
    for (network, link) in [("blue", "eth0"), ("green", "eth1"), ("red", "eth2")] {
        lab.rnet(&["network", "create", network]).ok();
        lab.rnet(&["network", "connect", network, "web"]).ok();
        assert!(web.has_link(link), "{:?}", web.links());
        assert_eq!(lab.endpoint(network, "web")["Interface"], link);
    }
    lab.rn("network disconnect green web").ok();
    assert!(!web.has_link("eth1"));
    lab.rn("network connect green web").ok();
    assert!(web.has_link("eth1"));
    lab.rn("network rm -f blue green red").ok();
}

fn a_foreign_interface_of_the_container_is_left_alone(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    prepare(&web, "link add eth0 type bridge");
    let before = web.link("eth0");
    lab.rn("network connect blue web").ok();
    assert_eq!(web.addresses("eth1"), ["172.18.0.2/16"]);
    assert_eq!(web.link("eth0"), before);
    lab.rn("network disconnect blue web").ok();
    assert_eq!(web.link("eth0"), before);
    let here = lab.snapshot();
    lab.rn("network connect --interface eth0 blue web").refused(&["eth0", "web"]);
    lab.is_like(&here);
    lab.rn("network rm blue").ok();
}

fn the_gateway_is_chosen_by_priority_and_moves_on_disconnect(lab: &Lab) {
    for network in ["blue", "green", "red"] {
        lab.rnet(&["network", "create", network]).ok();
    }
    let web = lab.namespace("web");
    let gateway = |address: &str, link: &str| Some((address.to_owned(), link.to_owned()));
    lab.rn("network connect blue web").ok();
    assert_eq!(web.gateway(), gateway("172.18.0.1", "eth0"));
    lab.rn("network connect --gw-priority 10 green web").ok();
    assert_eq!(web.gateway(), gateway("172.19.0.1", "eth1"), "green has the higher priority");
    lab.rn("network connect --gw-priority -1 red web").ok();
    assert_eq!(web.gateway(), gateway("172.19.0.1", "eth1"), "red has the lowest");
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
    lab.tcp(&web, "192.0.2.2:9000").answered_by(&lab.lan);
    lab.rn("network disconnect green web").ok();
    assert_eq!(web.gateway(), gateway("172.18.0.1", "eth0"));
    lab.tcp(&web, "192.0.2.2:9000").answered_by(&lab.lan);
    lab.rn("network disconnect blue web").ok();
    assert_eq!(web.gateway(), gateway("172.20.0.1", "eth2"));
    lab.rn("network disconnect red web").ok();
    assert_eq!(web.gateway(), None);
    lab.rn("network rm blue green red").ok();
}

/// Docker's order: by name where the priority is equal.
fn the_gateway_stays_where_priority_is_equal_and_the_name_is_first(lab: &Lab) {
    for network in ["blue", "green", "amber"] {
        lab.rnet(&["network", "create", network]).ok();
    }
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    lab.rn("network connect green web").ok();
    assert_eq!(web.gateway(), Some(("172.18.0.1".into(), "eth0".into())));
    lab.rn("network connect amber web").ok();
    assert_eq!(web.gateway(), Some(("172.20.0.1".into(), "eth2".into())), "amber comes before blue");
    lab.rn("network rm -f blue green amber").ok();
}

fn an_internal_network_has_no_way_out_nor_in(lab: &Lab) {
    lab.rn("network create --internal vault").ok();
    let (web, db) = (lab.web("vault", "web", &[]), lab.web("vault", "db", &[]));
    lab.listen_udp(&web, "0.0.0.0:53");
    lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
    lab.listen_udp(&lab.lan, "192.0.2.2:9000");
    lab.listen_tcp(&lab.host, "0.0.0.0:9001");
    prepare(&lab.lan, "route add 172.18.0.0/16 via 192.0.2.1");
    lab.tcp(&db, "172.18.0.2:80").answered_by(&web).seen_from("172.18.0.3");
    assert_eq!(web.gateway(), None);
    lab.no_tcp(&web, "192.0.2.2:9000");
    lab.no_udp(&web, "192.0.2.2:9000");
    lab.no_tcp(&lab.lan, "172.18.0.2:80");
    lab.no_udp(&lab.lan, "172.18.0.2:53");

    // Not even for a container that gives itself a route.
    prepare(&web, "route add default via 172.18.0.1");
    lab.no_tcp(&web, "192.0.2.2:9000");
    lab.no_udp(&web, "192.0.2.2:9000");
    lab.no_tcp(&web, "192.0.2.1:9001");
    lab.rn("network rm -f vault").ok();
}

fn an_internal_network_never_is_the_default_route(lab: &Lab) {
    lab.rn("network create --internal a-vault").ok();
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect a-vault web").ok();
    assert_eq!(web.gateway(), None);
    lab.rn("network connect blue web").ok();
    assert_eq!(web.gateway(), Some(("172.19.0.1".into(), "eth1".into())));
    lab.rn("network rm -f a-vault blue").ok();
}

fn without_icc_members_reach_the_outside_but_not_each_other(lab: &Lab) {
    for option in ["com.docker.network.bridge.enable_icc=false", "icc=false"] {
        lab.rnet(&["network", "create", "-o", option, "quiet"]).ok();
        let (web, db) = (lab.web("quiet", "web", &["-p", "8080:80"]), lab.web("quiet", "db", &[]));
        lab.listen_udp(&web, "0.0.0.0:53");
        lab.listen_tcp(&lab.lan, "192.0.2.2:9000");
        lab.no_tcp(&db, "172.18.0.2:80");
        lab.no_udp(&db, "172.18.0.2:53");
        lab.no_tcp(&web, "172.18.0.3:80");
        lab.tcp(&db, "192.0.2.2:9000").answered_by(&lab.lan);
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
        lab.silence(&lab.lan);
        lab.rn("network rm -f quiet").ok();
        lab.delete_namespace(&web);
        lab.delete_namespace(&db);
        lab.is_clean();
    }
}

fn the_given_subnet_and_gateway_are_used(lab: &Lab) {
    lab.rn("network create --subnet 10.40.0.0/24 --gateway 10.40.0.254 blue").ok();
    let web = lab.web("blue", "web", &[]);
    assert_eq!(web.addresses("eth0"), ["10.40.0.1/24"], "the lowest that is not the gateway's");
    assert_eq!(web.gateway(), Some(("10.40.0.254".into(), "eth0".into())));
    let bridge = lab.bridge_of("blue").expect("a bridge");
    assert_eq!(lab.host.addresses(&bridge), ["10.40.0.254/24"]);
    lab.tcp(&lab.host, "10.40.0.1:80").answered_by(&web).seen_from("10.40.0.254");
    lab.rn("network rm -f blue").ok();
}

fn addresses_come_from_the_given_range(lab: &Lab) {
    lab.rn("network create --subnet 10.41.0.0/24 --gateway 10.41.0.1 --ip-range 10.41.0.64/30 blue").ok();
    for (name, address) in [("c1", "64"), ("c2", "65"), ("c3", "66"), ("c4", "67")] {
        lab.namespace(name);
        lab.rnet(&["network", "connect", "blue", name]).ok();
        assert_eq!(lab.address("blue", name), format!("10.41.0.{address}"));
    }
    lab.namespace("c5");
    lab.rn("network connect blue c5").refused(&["blue", "10.41.0.64/30", "4"]);
    lab.rn("network connect --ip 10.41.0.200 blue c5").ok();
    assert_eq!(lab.address("blue", "c5"), "10.41.0.200", "a given one may be anywhere in the subnet");
    lab.rn("network rm -f blue").ok();
}

fn auxiliary_addresses_are_never_given_out(lab: &Lab) {
    let options = "--subnet 10.42.0.0/24 --aux-address printer=10.42.0.2 --aux-address door=10.42.0.4";
    lab.rn(&format!("network create {options} blue")).ok();
    for (name, address) in [("c1", "10.42.0.3"), ("c2", "10.42.0.5")] {
        lab.namespace(name);
        lab.rnet(&["network", "connect", "blue", name]).ok();
        assert_eq!(lab.address("blue", name), address);
    }
    lab.namespace("c3");
    lab.rn("network connect --ip 10.42.0.2 blue c3").refused(&["10.42.0.2", "printer"]);
    lab.rn("network rm -f blue").ok();
}

fn the_given_address_is_used(lab: &Lab) {
    lab.rn("network create --subnet 10.43.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &["--ip", "10.43.0.2"]);
    assert_eq!(web.addresses("eth0"), ["10.43.0.2/24"]);
    lab.namespace("db");
    lab.rn("network connect blue db").ok();
    assert_eq!(lab.address("blue", "db"), "10.43.0.3", "the given one is taken");
    lab.rn("network rm -f blue").ok();
}

fn the_given_interface_name_is_used(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect --interface lan0 blue web").ok();
    assert_eq!(web.addresses("lan0"), ["172.18.0.2/16"]);
    assert!(!web.has_link("eth0"));
    assert_eq!(lab.endpoint("blue", "web")["Interface"], "lan0");
    lab.rn("network rm -f blue").ok();
}

fn the_interface_prefix_is_an_option_of_the_network(lab: &Lab) {
    lab.rn("network create -o com.docker.network.container_iface_prefix=net blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    assert_eq!(web.addresses("net0"), ["172.18.0.2/16"]);
    lab.rn("network rm -f blue").ok();
}

fn the_mtu_is_set_on_bridge_and_interface(lab: &Lab) {
    let web = lab.namespace("web");
    for option in ["com.docker.network.driver.mtu=1400", "mtu=1400"] {
        lab.rnet(&["network", "create", "-o", option, "blue"]).ok();
        lab.rn("network connect blue web").ok();
        assert_eq!(web.link("eth0")["mtu"], 1400);
        assert_eq!(lab.host.link(&lab.bridge_of("blue").expect("a bridge"))["mtu"], 1400);
        lab.rn("network rm -f blue").ok();
    }
}

fn the_bridge_name_is_an_option_of_the_network(lab: &Lab) {
    lab.namespace("web");
    for option in ["com.docker.network.bridge.name=office0", "name=office0"] {
        lab.rnet(&["network", "create", "-o", option, "blue"]).ok();
        lab.rn("network connect blue web").ok();
        assert_eq!(lab.host.addresses("office0"), ["172.18.0.1/16"]);
        lab.rn("network rm -f blue").ok();
        assert!(!lab.host.has_link("office0"));
    }
}

fn default_pools_skip_what_the_host_routes(lab: &Lab) {
    prepare(&lab.host, "route add 172.18.99.0/24 via 192.0.2.2\n address add 172.20.0.9/24 dev uplink0");
    lab.prepared();
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    assert_eq!(lab.inspect("blue")["IPAM"]["Config"][0]["Subnet"], "172.19.0.0/16");
    assert_eq!(lab.inspect("green")["IPAM"]["Config"][0]["Subnet"], "172.21.0.0/16");
    lab.rn("network rm blue green").ok();
}

fn default_pools_skip_what_the_host_resolves_through(lab: &Lab) {
    use_resolver("nameserver 172.18.0.53\nnameserver 172.19.0.53\n").expect("mounts of our own");
    lab.prepared();
    lab.rn("network create blue").ok();
    assert_eq!(lab.inspect("blue")["IPAM"]["Config"][0]["Subnet"], "172.20.0.0/16");
    lab.rn("network rm blue").ok();
}

fn a_network_without_endpoints_can_be_removed_and_its_subnet_is_free_again(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    lab.rn("network rm blue").ok().prints("blue\n");
    lab.rn("network inspect blue").failed_after_output(&["blue"]);
    lab.rn("network create red").ok();
    assert_eq!(lab.inspect("red")["IPAM"]["Config"][0]["Subnet"], "172.18.0.0/16");
    lab.rn("network rm red green").ok().prints("red\ngreen\n");
}

fn a_network_with_endpoints_is_removed_by_force_only(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    let here = lab.snapshot();
    lab.rn("network rm blue").refused(&["blue", "web"]);
    lab.is_like(&here);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.rn("network rm -f blue").ok().prints("blue\n");
    lab.is_clean();
    lab.namespace_is_fresh(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
}

fn several_networks_are_removed_and_a_failure_stops_none(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create green").ok();
    lab.rn("network rm blue nowhere green").failed_after_output(&["nowhere"]).prints("blue\ngreen\n");
}

fn removing_an_unknown_network_by_force_is_no_error(lab: &Lab) {
    lab.rn("network rm -f nowhere").ok();
    lab.rn("network rm nowhere").refused(&["nowhere"]);
}

fn prune_removes_what_nobody_uses(lab: &Lab) {
    for network in ["used", "idle", "unused"] {
        lab.rnet(&["network", "create", network]).ok();
    }
    lab.web("used", "web", &[]);
    let pruned = lab.rn("network prune -f").ok();
    let mut lines: Vec<&str> = pruned.stdout().lines().collect();
    lines.retain(|line| !line.is_empty());
    lines[1..].sort_unstable();
    assert_eq!(lines, ["Deleted Networks:", "idle", "unused"]);
    lab.rn("network ls --format {{.Name}}").ok().prints("bridge\nhost\nnone\nused\n");
    lab.rn("network prune -f").ok().prints("");
    lab.rn("network rm -f used").ok();
}

fn prune_asks_first(lab: &Lab) {
    lab.rn("network create idle").ok();
    lab.rn("network prune").no_panic();
    lab.rn("network inspect idle").ok();
    let mut asked = lab.start(&["network", "prune"]);
    asked.type_line("y");
    asked.wait().ok().mentions("idle");
    lab.rn("network inspect idle").failed_after_output(&["idle"]);
}

fn prune_follows_its_filter(lab: &Lab) {
    lab.rn("network create --label keep=yes kept").ok();
    lab.rn("network create --label old gone").ok();
    lab.rn("network prune -f --filter label=old").ok();
    lab.rn("network ls -f type=custom --format {{.Name}}").ok().prints("kept\n");
    lab.rn("network prune -f --filter label!=keep=yes").ok();
    lab.rn("network ls -f type=custom --format {{.Name}}").ok().prints("kept\n");
    lab.rn("network prune -f --filter label=keep=yes").ok();
    lab.rn("network ls -f type=custom --format {{.Name}}").ok().prints("");
}

fn disconnect_works_after_the_namespace_was_deleted(lab: &Lab) {
    lab.rn("network create blue").ok();
    for _ in 0..20 {
        let web = lab.namespace("web");
        lab.rn("network connect -p 8080:80 blue web").ok();
        lab.delete_namespace(&web);
        lab.rn("network disconnect blue web").ok().silent();
        assert_eq!(lab.inspect("blue")["Containers"], serde_json::json!({}));
        let links = lab.host.ip("link show type veth");
        assert_eq!(links.as_array().map(Vec::len), Some(1), "only uplink0 may be left: {links}");
    }
    lab.rn("network rm blue").ok();
}

fn disconnect_by_force_of_what_is_not_connected_is_no_error(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    lab.rn("network disconnect blue web").refused(&["web", "blue"]);
    lab.rn("network disconnect -f blue web").ok();
    lab.rn("network rm blue").ok();
}

fn disconnect_works_after_the_container_deleted_its_interface(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect -p 8080:80 blue web").ok();
    prepare(&web, "link del eth0");
    lab.rn("network disconnect blue web").ok();
    lab.rn("network rm blue").ok();
}

fn a_namespace_is_found_by_path_and_by_process(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue /run/netns/web").ok();
    assert_eq!(web.addresses("eth0"), ["172.18.0.2/16"]);
    lab.rn("network disconnect blue /run/netns/web").ok();
    assert!(!web.has_link("eth0"));

    let mut sleeper = web.inside(|| crate::command::Running::start(&mut lab.command("cat", &[] as &[&str])));
    let pid = sleeper.pid().as_raw_nonzero();
    for container in [format!("pid:{pid}"), format!("/proc/{pid}/ns/net")] {
        lab.rnet(&["network", "connect", "blue", &container]).ok();
        assert_eq!(web.addresses("eth0").len(), 1, "{container}");
        lab.rnet(&["network", "disconnect", "blue", &container]).ok();
        assert!(!web.has_link("eth0"), "{container}");
    }
    sleeper.type_line("done");
    sleeper.wait().ok();
    lab.rn("network rm blue").ok();
}

fn dry_runs_print_the_plan_and_change_nothing(lab: &Lab) {
    let before = lab.snapshot();
    lab.rn("network create --dry-run blue").ok().mentions("172.18.0.1");
    lab.is_like(&before);
    lab.rn("network inspect blue").failed_after_output(&["blue"]);

    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    let created = lab.snapshot();
    let plan = lab.rn("network connect --dry-run -p 8080:80 blue web").ok();
    for word in ["172.18.0.2", "8080", "eth0"] {
        assert!(plan.stdout().contains(word), "{word} is not in the plan: {plan}");
    }
    lab.is_like(&created);
    lab.namespace_is_fresh(&web);
    assert_eq!(lab.inspect("blue")["Containers"], serde_json::json!({}));

    // The dry run reserved nothing.
    lab.rn("network connect -p 8080:80 blue web").ok();
    assert_eq!(lab.address("blue", "web"), "172.18.0.2");
    lab.rn("network rm -f blue").ok();
}

fn the_host_forwards_only_while_there_are_containers(lab: &Lab) {
    assert_eq!(forwarding(), "0");
    lab.rn("network create blue").ok();
    lab.namespace("web");
    lab.rn("network connect blue web").ok();
    assert_eq!(forwarding(), "1");
    lab.rn("network rm -f blue").ok();
    assert_eq!(forwarding(), "0");
}

fn an_admins_forwarding_is_left_on(lab: &Lab) {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a host of our own");
    lab.prepared();
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    assert!(web.has_link("eth0"));
    lab.rn("network rm -f blue").ok();
    assert_eq!(forwarding(), "1");
}

fn forwarding() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("/proc").trim().to_owned()
}

fn foreign_links_and_rules_are_left_alone(lab: &Lab) {
    lab.needs("nft");
    prepare(
        &lab.host,
        "link add br-other type bridge\n link set br-other up\n address add 10.99.0.1/24 dev br-other",
    );
    lab.sh("nft add table inet admin; nft add chain inet admin in '{ type filter hook input priority 0; }'")
        .ok();
    lab.sh("nft add rule inet admin in tcp dport 22 accept").ok();
    lab.prepared();
    let foreign = lab.sh("nft list table inet admin").ok().text();
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    assert_eq!(lab.sh("nft list table inet admin").ok().text(), foreign);
    lab.rn("network rm -f blue").ok();
}

fn two_instances_leave_each_other_alone(lab: &Lab) {
    let other = |line: &str| lab.rn(&format!("--root /var/lib/other --run /run/other {line}"));
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    other("network create blue").ok();
    let db = lab.namespace("db");
    other("network connect -p 8081:80 blue db").ok();
    lab.listen_tcp(&db, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&db);
    lab.rn("network rm -f blue").ok();
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&db);
    lab.tcp(&db, "192.0.2.1:8081").answered_by(&db);
    other("network rm -f blue").ok();
}

fn root_and_run_may_come_from_the_environment(lab: &Lab) {
    let mut create = lab.command(crate::lab::RNET, &["network", "create", "blue"]);
    crate::command::run(create.env("RNET_ROOT", "/var/lib/other").env("RNET_RUN", "/run/other")).ok();
    lab.rn("network inspect blue").failed_after_output(&["blue"]);
    lab.rn("--root /var/lib/other --run /run/other network inspect blue").ok();
    lab.rn("--root /var/lib/other --run /run/other network rm blue").ok();
}
