//! Networks of drivers macvlan and ipvlan: containers on the LAN of one of the host's interfaces themselves.

use crate::{
    command::until,
    harness::tests,
    lab::{Lab, Place},
};

tests! {
    containers_are_on_the_lan_themselves,
    members_of_a_private_network_do_not_meet,
    what_somebody_deletes_is_made_again,
    a_link_goes_while_its_container_stays_and_with_it,
    a_network_goes_with_all_its_links,
    a_link_that_is_there_is_left_alone,
    what_makes_no_sense_on_a_lan_is_refused,
    ipvlan_works_or_says_what_the_kernel_lacks,
    killed_connects_to_a_lan_are_finished,
}

const CREATE: &str = "network create -d macvlan -o parent=uplink0 --subnet 192.0.2.0/24 --gateway 192.0.2.2 --ip-range 192.0.2.128/26";

fn create(lab: &Lab) {
    lab.rn(&format!("{CREATE} blue")).ok();
}

fn connect(lab: &Lab, name: &str) -> Place {
    let place = lab.namespace(name);
    lab.rn(&format!("network connect blue {name}")).ok();
    place
}

fn serve(lab: &Lab, place: &Place) {
    lab.listen_tcp(place, "0.0.0.0:80");
}

fn containers_are_on_the_lan_themselves(lab: &Lab) {
    create(lab);
    lab.rn("check").ok().prints("");
    let [web, db] = ["web", "db"].map(|name| connect(lab, name));
    assert_eq!(web.addresses("eth0"), ["192.0.2.128/24"]);
    assert_eq!(web.mac("eth0"), "02:42:c0:00:02:80");
    assert_eq!(web.gateway(), Some(("192.0.2.2".to_owned(), "eth0".to_owned())));
    serve(lab, &web);
    lab.listen_tcp(&lab.lan, "192.0.2.2:90");
    lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web).seen_from("192.0.2.2");
    lab.tcp(&web, "192.0.2.2:90").answered_by(&lab.lan).seen_from("192.0.2.128");
    lab.tcp(&db, "192.0.2.128:80").answered_by(&web);
    // As the kernel has it: an interface does not reach those that share it.
    lab.no_tcp(&lab.host, "192.0.2.128:80");
    lab.rn("check").ok().prints("");
    assert_eq!(lab.inspect("blue")["Driver"], "macvlan");
    lab.rn("network disconnect blue db").ok();
    lab.namespace_is_fresh(&db);
    lab.rn("network rm -f blue").ok();
    lab.namespace_is_fresh(&web);
}

fn members_of_a_private_network_do_not_meet(lab: &Lab) {
    lab.rn(&format!("{CREATE} -o macvlan_mode=private -o mtu=1400 blue")).ok();
    let [web, db] = ["web", "db"].map(|name| connect(lab, name));
    assert_eq!(web.link("eth0")["mtu"], 1400);
    serve(lab, &web);
    lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web);
    lab.no_tcp(&db, "192.0.2.128:80");
    lab.rn("network rm -f blue").ok();
}

fn what_somebody_deletes_is_made_again(lab: &Lab) {
    create(lab);
    let web = connect(lab, "web");
    lab.sh("ip -n web link delete eth0").ok();
    lab.rn("check").exits(1).mentions("macvlan eth0 in the container on uplink0 of the host");
    lab.rn("repair").ok();
    lab.rn("check").ok().prints("");
    lab.sh("ip -n web link set eth0 down; ip -n web link set eth0 address 02:00:00:00:00:99 up").ok();
    lab.rn("repair").ok();
    lab.rn("repair").ok();
    lab.rn("check").ok().prints("");
    serve(lab, &web);
    lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web);
    lab.rn("network rm -f blue").ok();
}

fn a_link_goes_while_its_container_stays_and_with_it(lab: &Lab) {
    create(lab);
    let web = connect(lab, "web");
    lab.rn("network disconnect blue web").ok();
    lab.namespace_is_fresh(&web);
    let here = lab.snapshot();
    lab.rn("network connect blue web").ok();
    lab.delete_namespace(&web);
    lab.rn("network disconnect blue web").ok();
    nobody_shares(lab);
    lab.is_like(&here);
    let app = connect(lab, "app");
    lab.delete_namespace(&app);
    lab.rn("gc").ok();
    nobody_shares(lab);
    lab.is_like(&here);
    lab.rn("network rm blue").ok();
}

/// The kernel takes a namespace apart some time after its last name is gone, and the links in it.
fn nobody_shares(lab: &Lab) {
    until("uplink0 is nobody's parent", || lab.host.link("uplink0")["promiscuity"] == 0);
}

fn a_network_goes_with_all_its_links(lab: &Lab) {
    create(lab);
    let places = ["a", "b", "c"].map(|name| connect(lab, name));
    // One of them is on another network too, which becomes its way out.
    lab.rn("network create --subnet 10.81.0.0/24 red").ok();
    lab.rn("network connect red c").ok();
    assert_eq!(places[2].gateway(), Some(("192.0.2.2".to_owned(), "eth0".to_owned())));
    lab.rn("network rm -f blue").ok();
    places[..2].iter().for_each(|place| lab.namespace_is_fresh(place));
    assert_eq!(places[2].gateway(), Some(("10.81.0.1".to_owned(), "eth1".to_owned())));
    lab.rn("check").ok().prints("");
    lab.rn("network rm -f red").ok();
}

fn a_link_that_is_there_is_left_alone(lab: &Lab) {
    create(lab);
    let web = lab.namespace("web");
    lab.sh(
        "ip link add theirs link uplink0 type macvlan mode bridge && ip link set theirs netns web name eth0",
    )
    .ok();
    lab.rn("network connect blue web").ok();
    assert!(web.has_link("eth1"), "{:?}", web.links());
    let asked = lab.rn("network connect --driver-opt ifname=eth0 blue web");
    asked.exits(1);
    lab.rn("network disconnect blue web").ok();
    assert!(web.has_link("eth0") && !web.has_link("eth1"), "{:?}", web.links());
    lab.rn("network connect --driver-opt ifname=eth0 blue web").refused(&["eth0"]);
    assert!(web.has_link("eth0"), "{:?}", web.links());
    lab.sh("ip -n web link delete eth0").ok();
    lab.rn("network rm blue").ok();
}

fn what_makes_no_sense_on_a_lan_is_refused(lab: &Lab) {
    let here = lab.snapshot();
    for (options, words) in [
        ("", "option \"parent\" of driver macvlan: it must be given"),
        ("-o parent=nowhere0", "there is no link nowhere0 on the host"),
        ("-o parent=uplink0 -o macvlan_mode=bridg", "it must be bridge, private, vepa or passthru"),
        ("-o parent=uplink0 -o icc=false", "there is no such option"),
        ("-o parent=uplink0 -o mtu=99999", "it must be a number of bytes"),
    ] {
        let line = format!("network create -d macvlan --subnet 192.0.2.0/24 {options} blue");
        lab.rn(&line).refused(&[words]);
        lab.is_like(&here);
    }
    create(lab);
    connect(lab, "web");
    lab.rn("network disconnect blue web").ok();
    let here = lab.snapshot();
    for (options, words) in [
        ("-p 8080:80", "containers of network blue are on the LAN themselves"),
        ("--driver-opt ingress-rate=1mbit", "there is no such option"),
        ("--ip 192.0.3.1", "192.0.3.1"),
    ] {
        lab.rn(&format!("network connect {options} blue web")).refused(&[words]);
        lab.is_like(&here);
    }
    lab.rn(&format!("{CREATE} red")).refused(&["192.0.2.0/24 of network blue"]);
    lab.rn("network rm blue").ok();
}

fn ipvlan_works_or_says_what_the_kernel_lacks(lab: &Lab) {
    let there = lab.sh("ip link add probe0 link uplink0 type ipvlan && ip link delete probe0").succeeded();
    let here = lab.snapshot();
    let created = lab.rn(&format!("{} blue", CREATE.replace("macvlan", "ipvlan")));
    if !there {
        created.refused(&["this kernel has no ipvlan: it needs CONFIG_IPVLAN"]);
        lab.is_like(&here);
        return;
    }
    created.ok();
    let web = connect(lab, "web");
    serve(lab, &web);
    lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web);
    lab.rn("check").ok().prints("");
    lab.rn("network disconnect blue web").ok();
    lab.namespace_is_fresh(&web);
    lab.rn("network rm blue").ok();
}

fn killed_connects_to_a_lan_are_finished(lab: &Lab) {
    create(lab);
    let web = connect(lab, "web");
    lab.rn("network disconnect blue web").ok();
    let here = lab.snapshot();
    let mut kills = 0;
    for call in ["sendto", "setns", "linkat", "renameat2", "write"] {
        for when in 1..40 {
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let trace = format!("trace={call}");
            let output = lab.strace(&["-e", &trace, "-e", &inject], &["network", "connect", "blue", "web"]);
            if !output.was_killed() {
                break;
            }
            kills += 1;
            lab.rn("gc").ok();
            lab.namespace_is_fresh(&web);
            lab.is_like(&here);
        }
        lab.rn("network disconnect blue web").no_panic();
    }
    assert!(kills >= 10, "killed {kills} times only");
    lab.rn("network rm -f blue").ok();
}
