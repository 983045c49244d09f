//! Keys of type rnet beside those that make a network: policy, switches, limits, devices, names; and networks of other
//! drivers than bridge.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    cni_plugin::Call,
    harness::tests,
    lab::{Lab, Place, prepare},
    names::Asker,
};

tests! {
    a_policy_says_how_open_the_network_is,
    an_interface_and_its_namespace_are_as_the_keys_say,
    limits_may_be_the_configurations_own,
    a_device_is_shared_by_its_place_on_the_bus,
    the_result_says_who_answers_names,
    names_are_answered_though_only_runtimes_were_here,
    an_overlay_network_is_joined,
    keys_that_contradict_each_other_are_refused,
}

fn config(more: Value) -> Value {
    let mut config =
        json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "subnet": "10.82.0.0/24" });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        config[key] = value;
    }
    config
}

#[track_caller]
fn add(lab: &Lab, name: &str, config: &Value) -> (Place, Value) {
    let place = lab.namespace(name);
    let result = Call::new(lab, "ADD", &place, config).ok();
    lab.listen_tcp(&place, "0.0.0.0:80");
    (place, result)
}

#[track_caller]
fn del(lab: &Lab, place: &Place, config: &Value) {
    Call::new(lab, "DEL", place, config).with("CNI_NETNS", "").ok();
}

fn a_policy_says_how_open_the_network_is(lab: &Lab) {
    prepare(&lab.lan, "route add 10.82.0.0/24 via 192.0.2.1");
    for (policy, from_lan, from_neighbour) in [
        (None, false, true),
        (Some("open"), true, true),
        (Some("same-bridge"), false, true),
        (Some("isolated"), false, false),
    ] {
        let config = match policy {
            None => config(json!({})),
            Some(policy) => config(json!({ "policy": policy })),
        };
        let (web, result) = add(lab, "web", &config);
        let (db, _) = add(lab, "db", &config);
        let reached = |from: &Place, whether: bool| {
            if whether {
                lab.tcp(from, "10.82.0.2:80").answered_by(&web);
            } else {
                lab.no_tcp(from, "10.82.0.2:80");
            }
        };
        reached(&lab.lan, from_lan);
        reached(&db, from_neighbour);
        let mut remembered = config.clone();
        remembered["prevResult"] = result;
        Call::new(lab, "CHECK", &web, &remembered).ok();
        [&web, &db].into_iter().for_each(|place| {
            del(lab, place, &config);
            lab.silence(place);
            lab.delete_namespace(place);
        });
    }
    lab.rn("network rm pods").ok();
}

fn an_interface_and_its_namespace_are_as_the_keys_say(lab: &Lab) {
    let config = config(json!({
        "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": 99 },
        "mac": "02:00:00:00:00:77", "promisc": true, "allmulti": true, "txQLen": 77, "mtu": 1400,
        "args": { "cni": { "sysctl": { "net.core.somaxconn": "100" } } },
    }));
    let (web, result) = add(lab, "web", &config);
    let link = web.link("eth0");
    assert_eq!((&link["mtu"], &link["txqlen"]), (&json!(1400), &json!(77)), "{link}");
    assert!(link["flags"].to_string().contains("PROMISC"), "{link}");
    assert_eq!(web.mac("eth0"), "02:00:00:00:00:77");
    assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:77");
    let switch = |name: &str| lab.sh(&format!("ip netns exec web cat /proc/sys/net/{name}")).text();
    assert_eq!(
        (switch("ipv4/conf/eth0/arp_filter"), switch("core/somaxconn")),
        ("1".to_owned(), "100".to_owned())
    );
    lab.tcp(&lab.host, "10.82.0.2:80").answered_by(&web);
    let mut remembered = config.clone();
    remembered["prevResult"] = result;
    Call::new(lab, "CHECK", &web, &remembered).ok();
    lab.sh("ip netns exec web sysctl -qw net.core.somaxconn=101").ok();
    Call::new(lab, "CHECK", &web, &remembered).run().refused(102, &["net.core.somaxconn = 100"]);
    // The runtime has the last word about the hardware address.
    del(lab, &web, &config);
    let mut asked = config;
    asked["runtimeConfig"] = json!({ "mac": "02:00:00:00:00:78" });
    Call::new(lab, "ADD", &web, &asked).ok();
    assert_eq!(web.mac("eth0"), "02:00:00:00:00:78");
    del(lab, &web, &asked);
    lab.rn("network rm pods").ok();
}

fn limits_may_be_the_configurations_own(lab: &Lab) {
    let config =
        config(json!({ "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000 }));
    let (web, _) = add(lab, "web", &config);
    let shown = |limits: Value| {
        let all = lab.inspect("pods");
        let one =
            all["Containers"].as_object().and_then(|all| all.values().next().cloned()).unwrap_or_default();
        assert_eq!(one["Limits"], limits, "{one}");
    };
    shown(
        json!({ "IngressRate": 8_000_000, "IngressBurst": 800_000, "EgressRate": 4_000_000, "EgressBurst": 524_288 }),
    );
    del(lab, &web, &config);
    let mut asked = config;
    asked["runtimeConfig"] = json!({ "bandwidth": { "ingressRate": 1_000_000, "ingressBurst": 100_000 } });
    Call::new(lab, "ADD", &web, &asked).ok();
    shown(
        json!({ "IngressRate": 1_000_000, "IngressBurst": 100_000, "EgressRate": 4_000_000, "EgressBurst": 524_288 }),
    );
    del(lab, &web, &asked);
    lab.rn("network rm pods").ok();
}

/// This machine may have no such device: sysfs is one of ours.
fn a_device_is_shared_by_its_place_on_the_bus(lab: &Lab) {
    lab.sh("mount -t tmpfs devices /sys/bus && mkdir -p /sys/bus/pci/devices/0000:00:05.0/net/uplink0 \
         /sys/bus/pci/devices/0000:00:06.0")
        .ok();
    let config = json!({
        "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "driver": "macvlan", "subnet": "192.0.2.0/24",
        "gateway": "192.0.2.2", "ipRange": "192.0.2.128/26", "runtimeConfig": { "deviceID": "0000:00:05.0" },
    });
    let (web, _) = add(lab, "web", &config);
    lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web);
    del(lab, &web, &config);
    lab.namespace_is_fresh(&web);
    lab.rn("network rm pods").ok();
    for (id, word) in [
        ("0000:00:07.0", "is no device of this host"),
        ("0000:00:06.0", "has no interface"),
        ("../../../class/net", "is no place on a bus"),
        ("..", "is no place on a bus"),
    ] {
        let mut wrong = config.clone();
        wrong["runtimeConfig"]["deviceID"] = json!(id);
        Call::new(lab, "ADD", &web, &wrong).run().refused(7, &["deviceID", word]);
    }
    let mut wrong = config;
    wrong["options"] = json!({ "parent": "lo" });
    Call::new(lab, "ADD", &web, &wrong).run().refused(7, &["0000:00:05.0 is uplink0", "parent = lo"]);
    lab.sh("umount /sys/bus").ok();
}

fn the_result_says_who_answers_names(lab: &Lab) {
    let [plain, own, none] = [
        json!({}),
        json!({ "dns": { "nameservers": ["192.0.2.254"] } }),
        json!({ "options": { "dns": "false" } }),
    ]
    .map(config);
    for (config, servers) in
        [(plain, json!(["10.82.0.1"])), (own, json!(["192.0.2.254"])), (none, Value::Null)]
    {
        let (web, result) = add(lab, "web", &config);
        assert_eq!(result["dns"]["nameservers"], servers, "{config}");
        del(lab, &web, &config);
        lab.silence(&web);
        lab.delete_namespace(&web);
        lab.rn("network rm pods").ok();
    }
}

fn names_are_answered_though_only_runtimes_were_here(lab: &Lab) {
    let mut config = config(json!({}));
    config["runtimeConfig"] = json!({ "aliases": ["www"] });
    let (web, _) = add(lab, "web", &config);
    config["runtimeConfig"] = json!({ "aliases": ["store"] });
    let (db, _) = add(lab, "db", &config);
    assert_eq!(Asker::new(lab, &db, "pods").a("www"), "NOERROR 10.82.0.2");
    assert_eq!(Asker::new(lab, &web, "pods").a("store"), "NOERROR 10.82.0.3");
    del(lab, &web, &config);
    del(lab, &db, &config);
    lab.rn("network rm pods").ok();
    assert!(!Path::new("/run/rnet/agent.sock").exists(), "the agent left with the last network");
}

fn an_overlay_network_is_joined(lab: &Lab) {
    lab.rn("network create -d overlay --subnet 10.9.0.0/24 --ip-range 10.9.0.0/26 -o peers= -o local=192.0.2.1 ov").ok();
    let mut config = json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "network": "ov" });
    config["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] });
    let (web, result) = add(lab, "web", &config);
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    let mut second = config.clone();
    second["runtimeConfig"] = Value::Null;
    let (db, _) = add(lab, "db", &second);
    lab.tcp(&db, "10.9.0.2:80").answered_by(&web);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    let mut remembered = config.clone();
    remembered["prevResult"] = result;
    Call::new(lab, "CHECK", &web, &remembered).ok();
    Call::bare(lab, "STATUS", &config).ok();
    del(lab, &web, &config);
    lab.namespace_is_fresh(&web);
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([]);
    Call::bare(lab, "GC", &gc).ok();
    lab.namespace_is_fresh(&db);
    lab.rn("network rm ov").ok();
}

fn keys_that_contradict_each_other_are_refused(lab: &Lab) {
    let web = lab.namespace("web");
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    for (more, code, words) in [
        (json!({ "policy": "shut" }), 7, "it must be open, same-bridge or isolated"),
        (json!({ "policy": "isolated", "options": { "icc": "true" } }), 7, "contradicts icc = true"),
        (json!({ "ingressBurst": 1000 }), 7, "there is no ingressRate"),
        (json!({ "shapedSubnets": ["10.0.0.0/8"] }), 2, "shapedSubnets"),
        (json!({ "sysctl": { "kernel.hostname": "x" } }), 7, "net."),
        (json!({ "sysctl": { "net.ipv4.conf.IFNAME/../../../kernel.x": "1" } }), 7, "sysctl"),
        (json!({ "mac": "01:00:00:00:00:77" }), 7, "mac"),
        (json!({ "promisc": "yes" }), 7, "promisc"),
    ] {
        Call::new(lab, "ADD", &web, &config(more)).run().refused(code, &[words]);
        assert!(!lab.rn("network inspect pods").succeeded());
    }
    let made =
        json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "network": "blue", "policy": "open" });
    Call::new(lab, "ADD", &web, &made).run().refused(7, &["invalid policy"]);
    lab.rn("network rm blue").ok();
}
