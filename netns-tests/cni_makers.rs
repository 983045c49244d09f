//! The names `ptp`, `macvlan` and `ipvlan`, with the keys that everybody's configurations have.

use serde_json::{Value, json};

use crate::{
    cni_chain::{List, forget, install, leases, ports},
    harness::tests,
    lab::Lab,
};

tests! {
    ptp_routes_to_each_container,
    ptp_is_followed_by_the_usual_plugins,
    macvlan_shares_an_interface,
    macvlan_finds_its_master_and_takes_a_hardware_address,
    macvlan_without_addresses_is_made,
    ipvlan_says_what_the_kernel_lacks,
    keys_that_cannot_be_had_are_refused,
    type_rnet_makes_a_macvlan_too,
}

fn ptp() -> Value {
    json!({
        "type": "ptp", "ipMasq": true,
        "ipam": { "type": "host-local", "subnet": "10.89.0.0/24", "routes": [{ "dst": "0.0.0.0/0" }] },
    })
}

fn macvlan() -> Value {
    json!({
        "type": "macvlan", "master": "uplink0", "mode": "bridge",
        "ipam": {
            "type": "host-local", "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "gateway": "192.0.2.2",
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })
}

fn ptp_routes_to_each_container(lab: &Lab) {
    install(lab);
    let list = List::new(lab, vec![ptp()]);
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    let result = list.add(&web, &Value::Null);
    let veth = result["interfaces"][0]["name"].clone();
    assert_eq!(
        result,
        json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                { "name": veth },
                { "name": "eth0", "mac": "02:42:0a:59:00:02", "sandbox": "/run/netns/web" },
            ],
            "ips": [{ "version": "4", "interface": 1, "address": "10.89.0.2/24", "gateway": "10.89.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": {},
        })
    );
    list.add(&db, &Value::Null);
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.listen_tcp(&lab.lan, "0.0.0.0:90");
    lab.tcp(&db, "10.89.0.2:80").answered_by(&web);
    lab.tcp(&lab.host, "10.89.0.2:80").answered_by(&web);
    lab.tcp(&db, "192.0.2.2:90").answered_by(&lab.lan).seen_from("192.0.2.1");
    list.check(&web, &result, &Value::Null);
    lab.sh("ip route delete 10.89.0.2").ok();
    let config = list.config(&list.plugins[0], &result, &Value::Null);
    list.call("CHECK", &web, &list.plugins[0], &config).run().refused(102, &["10.89.0.2 is behind veth"]);
    list.del(&web);
    lab.namespace_is_fresh(&web);
    list.del(&db);
    assert_eq!(leases(), [] as [&str; 0]);
    forget(lab);
}

fn ptp_is_followed_by_the_usual_plugins(lab: &Lab) {
    install(lab);
    let rest = ["portmap", "firewall", "tuning", "bandwidth"].map(|name| json!({ "type": name }));
    let mut plugins = vec![ptp()];
    plugins.extend(rest);
    plugins[1]["capabilities"] = json!({ "portMappings": true });
    plugins[3]["sysctl"] = json!({ "net.ipv4.conf.IFNAME.arp_filter": "1" });
    plugins[4]["ingressRate"] = json!(8_000_000);
    plugins[4]["ingressBurst"] = json!(800_000);
    let list = List::new(lab, plugins);
    let web = lab.namespace("web");
    let result = list.add(&web, &ports(8080));
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    list.check(&web, &result, &ports(8080));
    list.del(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.namespace_is_fresh(&web);
    forget(lab);
}

fn macvlan_shares_an_interface(lab: &Lab) {
    install(lab);
    let list = List::new(lab, vec![macvlan()]);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert_eq!(
        result["interfaces"],
        json!([{ "name": "eth0", "mac": "02:42:c0:00:02:80", "sandbox": "/run/netns/web" }])
    );
    assert_eq!(result["ips"][0]["interface"], 0);
    assert_eq!(web.gateway(), Some(("192.0.2.2".to_owned(), "eth0".to_owned())));
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web);
    list.check(&web, &result, &Value::Null);
    list.del(&web);
    lab.namespace_is_fresh(&web);
    // The namespace is where the link is: while it lives, DEL finds it by the record.
    list.add(&web, &Value::Null);
    list.del(&web);
    list.del(&web);
    lab.namespace_is_fresh(&web);
    assert_eq!(leases(), [] as [&str; 0]);
    forget(lab);
}

fn macvlan_finds_its_master_and_takes_a_hardware_address(lab: &Lab) {
    install(lab);
    let mut plugin = macvlan();
    plugin["master"] = json!("");
    plugin["mac"] = json!("02:00:00:00:00:77");
    plugin["mtu"] = json!(1400);
    plugin["capabilities"] = json!({ "mac": true });
    let list = List::new(lab, vec![plugin]);
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    list.add(&web, &Value::Null);
    assert_eq!(
        (web.mac("eth0"), web.link("eth0")["mtu"].as_u64()),
        ("02:00:00:00:00:77".to_owned(), Some(1400))
    );
    list.add(&db, &json!({ "mac": "02:00:00:00:00:78" }));
    assert_eq!(db.mac("eth0"), "02:00:00:00:00:78");
    list.del(&web);
    list.del(&db);
    forget(lab);
}

fn macvlan_without_addresses_is_made(lab: &Lab) {
    install(lab);
    let list = List::new(lab, vec![json!({ "type": "macvlan", "master": "uplink0" })]);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert!(web.is_up("eth0"));
    list.check(&web, &result, &Value::Null);
    list.del(&web);
    forget(lab);
}

fn ipvlan_says_what_the_kernel_lacks(lab: &Lab) {
    install(lab);
    let there = lab.sh("ip link add probe0 link uplink0 type ipvlan && ip link delete probe0").succeeded();
    let mut plugin = macvlan();
    plugin["type"] = json!("ipvlan");
    plugin["mode"] = json!("l2");
    let list = List::new(lab, vec![plugin]);
    let web = lab.namespace("web");
    if there {
        list.add(&web, &Value::Null);
        lab.listen_tcp(&web, "0.0.0.0:80");
        lab.tcp(&lab.lan, "192.0.2.128:80").answered_by(&web);
        list.del(&web);
    } else {
        let config = list.config(&list.plugins[0], &Value::Null, &Value::Null);
        let words = ["this kernel has no ipvlan", "CONFIG_IPVLAN"];
        list.call("ADD", &web, &list.plugins[0], &config).run().refused(101, &words);
        lab.namespace_is_fresh(&web);
        assert_eq!(leases(), [] as [&str; 0]);
    }
    let _ = std::fs::remove_dir_all("/var/lib/cni");
    lab.rn("network rm podman1");
}

fn keys_that_cannot_be_had_are_refused(lab: &Lab) {
    install(lab);
    let web = lab.namespace("web");
    for (kind, key, value, code) in [
        ("macvlan", "linkInContainer", json!(true), 2),
        ("macvlan", "bcqueuelen", json!(1000), 2),
        ("macvlan", "mode", json!("l2"), 7),
        ("macvlan", "master", json!("../x"), 7),
        ("macvlan", "master", json!("nowhere0"), 101),
        ("macvlan", "mac", json!("77"), 7),
        ("macvlan", "mtu", json!("1500"), 7),
        ("ipvlan", "mode", json!("bridge"), 7),
        ("ipvlan", "linkInContainer", json!(true), 2),
        ("ptp", "ipMasqBackend", json!("ipfw"), 7),
        ("ptp", "ipam", Value::Null, 7),
        ("ptp", "mtu", json!(1.5), 7),
    ] {
        let mut plugin = if kind == "ptp" { ptp() } else { macvlan() };
        plugin["type"] = json!(kind);
        if kind == "ipvlan" {
            plugin["mode"] = json!("l2");
        }
        plugin[key] = value;
        let list = List::new(lab, vec![plugin]);
        let config = list.config(&list.plugins[0], &Value::Null, &Value::Null);
        list.call("ADD", &web, &list.plugins[0], &config).run().refused(code, &[]);
        lab.namespace_is_fresh(&web);
        assert_eq!(leases(), [] as [&str; 0], "{kind} {key}");
    }
    // Ports of the host lead nowhere from a LAN.
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    let list = List::new(lab, vec![macvlan(), portmap]);
    let config = list.config(&list.plugins[0], &Value::Null, &ports(8080));
    let result = list.call("ADD", &web, &list.plugins[0], &config).ok();
    let config = list.config(&list.plugins[1], &result, &ports(8080));
    list.call("ADD", &web, &list.plugins[1], &config).run().refused(7, &["are on the LAN themselves"]);
    list.del(&web);
    forget(lab);
}

fn type_rnet_makes_a_macvlan_too(lab: &Lab) {
    install(lab);
    let plugin = json!({
        "type": "rnet", "driver": "macvlan", "options": { "parent": "uplink0" }, "subnet": "192.0.2.0/24",
        "gateway": "192.0.2.2", "ipRange": "192.0.2.128/26",
    });
    let list = List::new(lab, vec![plugin]);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert_eq!(result["ips"][0]["address"], "192.0.2.128/24");
    list.check(&web, &result, &Value::Null);
    list.del(&web);
    lab.namespace_is_fresh(&web);
    forget(lab);
}
