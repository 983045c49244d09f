//! Many containers at once. These take some seconds.

use std::time::Instant;

use crate::{
    harness::tests,
    lab::Lab,
    watch::{Watch, only_asks},
};

tests! {
    a_crowded_machine_is_told_what_a_container_may_as_any_other,
    an_exhausted_subnet_says_how_many_addresses_are_in_use,
    a_full_bridge_is_repaired_at_once_and_its_1024th_port_refused_before_anything_is_made,
    a_hundred_endpoints_go_with_their_network,
    networks_run_out_of_default_pools_with_a_clear_error,
}

/// Where there are many links, in whatever namespaces, switches are written through an instance of procfs of their own; and
/// through the usual one where that is refused.
fn a_crowded_machine_is_told_what_a_container_may_as_any_other(lab: &Lab) {
    lab.namespace("elsewhere");
    let links = "for i in $(seq 150); do echo link add a$i group 7 type veth peer name b$i; done | ip -n elsewhere -b -";
    lab.sh(links).ok();
    lab.rn("network create --subnet 10.71.0.0/24 blue").ok();
    let refused = ["-e", "inject=fsopen:error=EPERM"];
    for (name, inject, apart) in [("one", &[][..], true), ("two", &refused[..], false)] {
        let place = lab.namespace(name);
        let options = [&["-e", "trace=fsopen,openat"], inject].concat();
        lab.strace(&options, &["network", "connect", "blue", name]).ok();
        let trace = std::fs::read_to_string("/run/lab/strace").expect("a trace");
        assert!(trace.contains("fsopen(\"proc\""), "{trace}");
        assert_ne!(trace.contains("\"/proc/sys/net/ipv6/conf/eth0/disable_ipv6\""), apart, "{trace}");
        let off = place.inside(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/disable_ipv6"));
        assert_eq!(off.expect("a switch"), "1\n");
    }
    lab.audit("blue");
    lab.rn("network rm -f blue").ok();
    lab.sh("ip -n elsewhere link del group 7").ok();
}

fn an_exhausted_subnet_says_how_many_addresses_are_in_use(lab: &Lab) {
    lab.rn("network create --subnet 10.70.0.0/29 tiny").ok();
    for number in 2..=6 {
        let place = lab.namespace(&format!("c{number}"));
        lab.rn(&format!("network connect tiny c{number}")).ok();
        assert_eq!(place.addresses("eth0"), [format!("10.70.0.{number}/29")]);
    }
    let sixth = lab.namespace("sixth");
    let here = lab.snapshot();
    lab.rn("network connect tiny sixth").refused(&["tiny", "10.70.0.0/29", "5"]);
    lab.is_like(&here);
    lab.namespace_is_fresh(&sixth);
    lab.rn("network disconnect tiny c4").ok();
    lab.rn("network connect tiny sixth").ok();
    assert_eq!(lab.address("tiny", "sixth"), "10.70.0.4");
    lab.audit("tiny");
    lab.rn("network rm -f tiny").ok();
}

/// A thousand containers, and a port published for each: the whole firewall is gone, and comes back in one transaction;
/// then there is nothing left to do, and nothing is done.
fn a_full_bridge_is_repaired_at_once_and_its_1024th_port_refused_before_anything_is_made(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create crowd").ok();
    for number in 1..=1023 {
        let (name, port) = (format!("c{number}"), format!("{}:80", 10_000 + number));
        lab.namespace(&name);
        lab.rnet(&["network", "connect", "-p", &port, "crowd", &name]).ok();
    }
    let here = lab.snapshot();
    lab.sh("nft flush ruleset").ok();
    let mut watch = Watch::start(lab);
    let start = Instant::now();
    lab.rn("repair").ok();
    let took = start.elapsed();
    let transactions = watch.transactions();
    assert_eq!(transactions, 1, "transactions of a repair");
    lab.is_like(&here);
    only_asks(lab, &["repair"]);
    println!("repair of 1023 endpoints after a flush: {took:?}, {transactions} transaction");

    let last = lab.namespace("last");
    let here = lab.snapshot();
    lab.rn("network connect crowd last").refused(&["crowd", "1023"]);
    lab.is_like(&here);
    lab.namespace_is_fresh(&last);
    lab.rn("network disconnect crowd c500").ok();
    lab.rn("network connect crowd last").ok();
    lab.rn("network rm -f crowd").ok();
    lab.is_clean();
}

fn a_hundred_endpoints_go_with_their_network(lab: &Lab) {
    lab.rn("network create crowd").ok();
    for number in 0..100 {
        let (name, port) = (format!("c{number}"), format!("{}:80", 8000 + number));
        lab.namespace(&name);
        lab.rnet(&["network", "connect", "-p", &port, "crowd", &name]).ok();
    }
    lab.audit("crowd");
    lab.rn("network rm -f crowd").ok().prints("crowd\n");
    lab.is_clean();
}

/// Docker's default pools hold 31 networks, of which one is the default network's.
fn networks_run_out_of_default_pools_with_a_clear_error(lab: &Lab) {
    let mut made = 0;
    let refused = loop {
        let output = lab.rnet(&["network", "create", &format!("net{made}")]);
        if !output.succeeded() {
            break output;
        }
        made += 1;
        assert!(made < 64, "the default pools do not end");
    };
    refused.refused(&["pool"]);
    assert_eq!(made, 30, "networks in the default pools");
    lab.rn("network create --subnet 10.71.0.0/24 given").ok();
    lab.rn("network prune -f").ok();
}
