//! rnet as a CNI plugin of type `rnet`: every verb, every version, what runtimes really pass, and what nobody should.

use serde_json::{Value, json};

use crate::{
    cni_plugin::Call,
    harness::tests,
    lab::{Lab, Place},
    snapshot::Snapshot,
};

tests! {
    a_container_is_added_reached_checked_and_deleted,
    a_deletion_needs_nothing_but_the_key,
    a_network_is_made_on_first_use_and_kept,
    a_network_of_changed_keys_is_made_anew_when_nobody_uses_it,
    each_version_gets_its_own_shape,
    keys_are_read_as_go_reads_them,
    addresses_and_macs_are_asked_for_in_every_way,
    a_container_has_two_interfaces_on_one_network,
    a_container_on_two_networks_keeps_its_ports_on_the_other,
    a_port_of_a_container_stays_with_it_when_it_leaves_one_of_its_networks,
    a_restarted_container_is_added_again,
    check_names_what_differs,
    gc_takes_what_is_not_valid_and_nothing_else,
    gc_without_a_list_takes_only_what_is_dead,
    status_says_whether_there_is_room,
    version_and_about_need_nothing,
    what_cannot_be_is_refused_with_its_code_and_changes_nothing,
    hostile_configurations_are_refused,
    a_killed_addition_leaves_nothing_that_the_next_one_minds,
    a_killed_deletion_is_finished_by_the_next,
}

fn blue(lab: &Lab) -> Value {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    config()
}

fn config() -> Value {
    json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "network": "blue" })
}

fn inline() -> Value {
    json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "subnet": "10.82.0.0/24" })
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn ports(host: u16) -> Value {
    json!({ "portMappings": [{ "hostPort": host, "containerPort": 80, "protocol": "tcp" }] })
}

/// The only container of a network, as `inspect` shows it.
fn only(lab: &Lab, network: &str) -> Value {
    let shown = lab.inspect(network)["Containers"].as_object().cloned().unwrap_or_default();
    assert_eq!(shown.len(), 1, "{shown:#?}");
    shown.into_iter().next().map(|(_, endpoint)| endpoint).unwrap_or_default()
}

/// The host after a container came and went: a bridge that had a port, and indexes of what is free, stay.
fn once(lab: &Lab, place: &Place, config: &Value) -> Snapshot {
    Call::new(lab, "ADD", place, config).ok();
    Call::new(lab, "DEL", place, config).ok();
    lab.snapshot()
}

fn a_container_is_added_reached_checked_and_deleted(lab: &Lab) {
    let config = with(blue(lab), "runtimeConfig", ports(8080));
    let web = lab.namespace("web");
    let result = Call::new(lab, "ADD", &web, &config).ok();
    let bridge = lab.bridge_of("blue").expect("a bridge");
    let veth = result["interfaces"][1]["name"].clone();
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": bridge, "mac": "02:42:0a:51:00:01", "mtu": 1500 },
                { "name": veth, "mtu": 1500 },
                { "name": "eth0", "mac": "02:42:0a:51:00:02", "mtu": 1500, "sandbox": "/run/netns/web" },
            ],
            "ips": [{ "interface": 2, "address": "10.81.0.2/24", "gateway": "10.81.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.81.0.1" }],
            "dns": { "nameservers": ["10.81.0.1"] },
        })
    );
    assert!(lab.host.has_link(veth.as_str().unwrap_or_default()));
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    let shown = only(lab, "blue");
    assert_eq!((&shown["Name"], &shown["Owner"]), (&json!("cni:web"), &json!("cni:pods")));
    let remembered = with(config.clone(), "prevResult", result);
    assert_eq!(Call::new(lab, "CHECK", &web, &remembered).ok(), Value::Null);
    assert_eq!(Call::new(lab, "DEL", &web, &remembered).ok(), Value::Null);
    assert!(!lab.host.has_link(veth.as_str().unwrap_or_default()));
    lab.namespace_is_fresh(&web);
    lab.rn("network rm blue").ok();
}

fn a_deletion_needs_nothing_but_the_key(lab: &Lab) {
    let config = blue(lab);
    let web = lab.namespace("web");
    let here = once(lab, &web, &with(config.clone(), "runtimeConfig", ports(8080)));
    let added = || Call::new(lab, "ADD", &web, &with(config.clone(), "runtimeConfig", ports(8080))).ok();
    added();
    let del = Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "");
    del.ok();
    lab.is_like(&here);
    del.ok();
    del.with("CNI_CONTAINERID", "nobody").ok();
    added();
    Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "/run/netns/never-was").ok();
    lab.is_like(&here);
    added();
    lab.delete_namespace(&web);
    Call::new(lab, "DEL", &web, &config).without("CNI_NETNS").with("CNI_IFNAME", "eth0").ok();
    lab.is_like(&here);
    lab.rn("network rm blue").ok();
    Call::new(lab, "DEL", &web, &config).ok();
    lab.is_clean();
}

fn a_network_is_made_on_first_use_and_kept(lab: &Lab) {
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    let keys = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "rnet", "subnets": ["10.82.0.0/24", "fd00:82::/64"],
        "gateway": "10.82.0.254", "mtu": 1400, "options": { "name": "pods0", "icc": true }, "labels": { "tier": "x" },
    });
    let result = Call::new(lab, "ADD", &web, &keys).ok();
    let ips = [&result["ips"][0]["address"], &result["ips"][1]["address"], &result["ips"][0]["gateway"]];
    assert_eq!(ips, ["10.82.0.1/24", "fd00:82::2/64", "10.82.0.254"]);
    assert_eq!(lab.host.link("pods0")["mtu"], 1400);
    assert_eq!(lab.inspect("pods")["Labels"]["tier"], "x");
    Call::new(lab, "ADD", &db, &keys).ok();
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&db, "10.82.0.1:80").answered_by(&web);
    for place in [&web, &db] {
        Call::new(lab, "DEL", place, &keys).ok();
    }
    assert!(lab.host.has_link("pods0"), "the bridge stays for the next container");
    lab.rn("network rm pods").ok();
}

fn a_network_of_changed_keys_is_made_anew_when_nobody_uses_it(lab: &Lab) {
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    let other = with(inline(), "subnet", json!("10.83.0.0/24"));
    Call::new(lab, "ADD", &web, &inline()).ok();
    Call::new(lab, "ADD", &db, &other).refused(7, &["pods", "cni:web"]);
    Call::new(lab, "DEL", &web, &inline()).ok();
    assert_eq!(Call::new(lab, "ADD", &db, &other).ok()["ips"][0]["address"], "10.83.0.2/24");
    Call::new(lab, "DEL", &db, &other).ok();
    // Its configuration is gone; another that needs its subnet gets it.
    let heir = with(other.clone(), "name", json!("heir"));
    assert_eq!(Call::new(lab, "ADD", &db, &heir).ok()["ips"][0]["address"], "10.83.0.2/24");
    Call::new(lab, "DEL", &db, &heir).ok();
    lab.rn("network rm heir").ok();
    lab.rn("network create pods").ok();
    Call::new(lab, "ADD", &web, &inline())
        .refused(7, &["pods", "made by the command", "\"network\": \"pods\""]);
    lab.rn("network rm pods").ok();
}

fn each_version_gets_its_own_shape(lab: &Lab) {
    let config = blue(lab);
    let web = lab.namespace("web");
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let config = with(config.clone(), "cniVersion", json!(version));
        let result = Call::new(lab, "ADD", &web, &config).ok();
        assert_eq!(result["cniVersion"], version);
        let family = match version {
            "0.1.0" | "0.2.0" => None,
            "0.3.0" | "0.3.1" | "0.4.0" => Some(json!("4")),
            _ => Some(Value::Null),
        };
        match family {
            None => {
                let routes = json!([{ "dst": "0.0.0.0/0", "gw": "10.81.0.1" }]);
                let ip4 = json!({ "ip": result["ip4"]["ip"], "gateway": "10.81.0.1", "routes": routes });
                assert_eq!(
                    result,
                    json!({ "cniVersion": version, "ip4": ip4, "dns": { "nameservers": ["10.81.0.1"] } })
                );
            }
            Some(family) => assert_eq!(result["ips"][0]["version"], family),
        }
        assert_eq!(result["interfaces"][2]["mtu"].is_null(), version != "1.1.0", "{result}");
        let config = with(config, "prevResult", result);
        let check = Call::new(lab, "CHECK", &web, &config);
        if version >= "0.4.0" {
            check.ok();
        } else {
            check.refused(1, &["CHECK", version]);
        }
        if version < "1.1.0" {
            Call::bare(lab, "GC", &config).refused(1, &["GC", version]);
            Call::bare(lab, "STATUS", &config).refused(1, &["STATUS", version]);
        }
        Call::new(lab, "DEL", &web, &config).ok();
    }
    let unversioned = json!({ "name": "pods", "type": "rnet", "network": "blue" });
    assert_eq!(Call::new(lab, "ADD", &web, &unversioned).ok()["cniVersion"], "0.1.0");
    Call::new(lab, "DEL", &web, &unversioned).ok();
    lab.rn("network rm blue").ok();
}

fn keys_are_read_as_go_reads_them(lab: &Lab) {
    blue(lab);
    let web = lab.namespace("web");
    let config = json!({
        "CNIVERSION": "1.0.0", "Name": "pods", "type": "rnet", "NetWork": "blue", "mtu": null, "unknown": { "a": [1] },
        "capabilities": { "portMappings": true },
        "runtimeConfig": {
            "PortMappings": [
                { "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
                { "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
                { "HostPort": 8081, "ContainerPort": 80, "Protocol": "UDP", "HostIP": "127.0.0.1" },
            ],
            "Aliases": { "pods": ["www"], "other": ["nobody"] },
            "bandwidth": { "IngressRate": 8000000, "IngressBurst": 4294967295_u64, "EgressRate": 0 },
            "dns": { "Servers": ["10.0.0.53"], "Searches": ["cluster.local"], "Options": null },
        },
    });
    let result =
        Call::new(lab, "ADD", &web, &config).with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web").ok();
    assert_eq!(result["dns"], json!({ "nameservers": ["10.0.0.53"], "search": ["cluster.local"] }));
    let shown = only(lab, "blue");
    assert_eq!(shown["Limits"], json!({ "IngressRate": 8_000_000, "IngressBurst": 4_294_967_288_u64 }));
    assert_eq!(
        shown["Ports"],
        json!({
            "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }],
            "80/udp": [{ "HostIp": "127.0.0.1", "HostPort": "8081" }],
        })
    );
    Call::new(lab, "DEL", &web, &config).with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web").ok();
    lab.rn("network rm blue").ok();
}

fn addresses_and_macs_are_asked_for_in_every_way(lab: &Lab) {
    let config = blue(lab);
    let web = lab.namespace("web");
    for (config, args, address, mac) in [
        (config.clone(), "IP=10.81.0.10;MAC=02:00:00:00:00:10", "10.81.0.10/24", "02:00:00:00:00:10"),
        (
            with(
                config.clone(),
                "runtimeConfig",
                json!({ "ips": ["10.81.0.11/24"], "mac": "02:00:00:00:00:11" }),
            ),
            "",
            "10.81.0.11/24",
            "02:00:00:00:00:11",
        ),
        (
            with(
                config.clone(),
                "args",
                json!({ "cni": { "ips": ["10.81.0.12"], "mac": "02:00:00:00:00:12" } }),
            ),
            "IgnoreUnknown=true;SOMETHING=else",
            "10.81.0.12/24",
            "02:00:00:00:00:12",
        ),
    ] {
        let result = Call::new(lab, "ADD", &web, &config).with("CNI_ARGS", args).ok();
        assert_eq!(
            (&result["ips"][0]["address"], &result["interfaces"][2]["mac"]),
            (&json!(address), &json!(mac))
        );
        assert_eq!(web.mac("eth0"), mac);
        Call::new(lab, "DEL", &web, &config).with("CNI_ARGS", args).ok();
    }
    lab.rn("network rm blue").ok();
}

fn a_container_has_two_interfaces_on_one_network(lab: &Lab) {
    let config = blue(lab);
    let web = lab.namespace("web");
    Call::new(lab, "ADD", &web, &config).ok();
    let second = Call::new(lab, "ADD", &web, &config).with("CNI_IFNAME", "net1").ok();
    assert_eq!(second["ips"][0]["address"], "10.81.0.3/24");
    assert_eq!(web.gateway(), Some(("10.81.0.1".to_owned(), "eth0".to_owned())));
    Call::new(lab, "CHECK", &web, &config).with("CNI_IFNAME", "net1").ok();
    Call::new(lab, "DEL", &web, &config).with("CNI_IFNAME", "net7").ok();
    Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "").ok();
    assert!(web.has_link("net1") && !web.has_link("eth0"));
    Call::new(lab, "DEL", &web, &config).with("CNI_IFNAME", "net1").ok();
    assert!(!web.has_link("net1"));
    lab.rn("network rm blue").ok();
}

fn a_container_on_two_networks_keeps_its_ports_on_the_other(lab: &Lab) {
    let blue = with(blue(lab), "runtimeConfig", ports(8080));
    lab.rn("network create --subnet 10.84.0.0/24 red").ok();
    let red = json!({ "cniVersion": "1.1.0", "name": "more", "type": "rnet", "network": "red", "runtimeConfig": ports(8081) });
    let web = lab.namespace("web");
    Call::new(lab, "ADD", &web, &blue).ok();
    Call::new(lab, "ADD", &web, &red).with("CNI_IFNAME", "eth1").ok();
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    Call::new(lab, "DEL", &web, &blue).with("CNI_NETNS", "").ok();
    assert_eq!(
        web.gateway(),
        Some(("10.84.0.1".to_owned(), "eth1".to_owned())),
        "the other network takes over"
    );
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    Call::new(lab, "DEL", &web, &red).with("CNI_IFNAME", "eth1").ok();
    lab.rn("network rm blue red").ok();
}

fn a_port_of_a_container_stays_with_it_when_it_leaves_one_of_its_networks(lab: &Lab) {
    // As podman does it: the same ports for each of a container's networks.
    let blue = with(blue(lab), "runtimeConfig", ports(8080));
    lab.rn("network create --subnet 10.84.0.0/24 red").ok();
    let red = json!({ "cniVersion": "1.1.0", "name": "more", "type": "rnet", "network": "red", "runtimeConfig": ports(8080) });
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    Call::new(lab, "ADD", &web, &blue).ok();
    Call::new(lab, "ADD", &web, &red).with("CNI_IFNAME", "eth1").ok();
    Call::new(lab, "CHECK", &web, &red).with("CNI_IFNAME", "eth1").ok();
    Call::new(lab, "ADD", &db, &red).refused(100, &["8080/tcp", "cni:web", "blue"]);
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    // Whoever listens there now had no traffic before, and gets none: a port that moves is not asked for again.
    lab.listen_tcp(&lab.host, "0.0.0.0:8080");
    Call::new(lab, "DEL", &web, &blue).ok();
    assert_eq!(lab.endpoint("red", "cni:web")["Ports"]["80/tcp"][0]["HostPort"], "8080");
    lab.silence(&lab.host);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    Call::new(lab, "DEL", &web, &red).with("CNI_IFNAME", "eth1").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.rn("network rm blue red").ok();
}

fn a_restarted_container_is_added_again(lab: &Lab) {
    let config = with(blue(lab), "runtimeConfig", ports(8080));
    let web = lab.namespace("web");
    Call::new(lab, "ADD", &web, &config).ok();
    // The runtime died, and its container with it; nobody said DEL.
    lab.delete_namespace(&web);
    let web = lab.namespace("web");
    Call::new(lab, "ADD", &web, &config).ok();
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    only(lab, "blue");
    Call::new(lab, "DEL", &web, &config).ok();
    lab.rn("network rm blue").ok();
}

fn check_names_what_differs(lab: &Lab) {
    lab.needs("nft");
    let config = with(blue(lab), "runtimeConfig", ports(8080));
    let web = lab.namespace("web");
    let result = Call::new(lab, "ADD", &web, &config).ok();
    let config = with(config, "prevResult", result);
    let check = || Call::new(lab, "CHECK", &web, &config);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    for (place, line, named) in [
        (&lab.host, "ip link set BRIDGE down".to_owned(), format!("{bridge} up")),
        (&lab.host, "nft flush set inet rnet masquerade4".to_owned(), "masquerade".to_owned()),
        (&lab.host, "nft flush map inet rnet publish4_any".to_owned(), "publish 0.0.0.0:8080/tcp".to_owned()),
        (&web, "ip address del 10.81.0.2/24 dev eth0".to_owned(), "address 10.81.0.2/24 on eth0".to_owned()),
        (&web, "ip route del default".to_owned(), "default route via 10.81.0.1".to_owned()),
    ] {
        check().ok();
        let line = line.replace("BRIDGE", &bridge);
        place.inside(|| lab.sh(&line)).ok();
        check().refused(102, &[&named]);
        lab.rn("repair").ok();
    }
    let other = with(config.clone(), "runtimeConfig", ports(8081));
    Call::new(lab, "CHECK", &web, &other).refused(102, &["8081:80/tcp", "not published"]);
    let mut lie = config.clone();
    lie["prevResult"]["ips"][0]["address"] = json!("10.81.0.77/24");
    Call::new(lab, "CHECK", &web, &lie).refused(102, &["10.81.0.77/24"]);
    Call::new(lab, "CHECK", &web, &config)
        .with("CNI_CONTAINERID", "nobody")
        .refused(3, &["nobody", "eth0", "blue"]);
    Call::new(lab, "DEL", &web, &config).ok();
    lab.rn("network rm blue").ok();
}

fn attachments(list: &[&Place]) -> Value {
    list.iter().map(|place| json!({ "containerID": place.name(), "ifname": "eth0" })).collect()
}

fn gc_takes_what_is_not_valid_and_nothing_else(lab: &Lab) {
    let config = blue(lab);
    let [web, db, app] = ["web", "db", "app"].map(|name| lab.namespace(name));
    let foreign = with(config.clone(), "name", json!("other"));
    lab.web("blue", "cli", &[]);
    Call::new(lab, "ADD", &web, &config).ok();
    Call::new(lab, "ADD", &db, &config).ok();
    Call::new(lab, "ADD", &app, &foreign).ok();
    let gc =
        |valid: Value| Call::bare(lab, "GC", &with(config.clone(), "cni.dev/valid-attachments", valid)).ok();
    gc(attachments(&[&web, &db]));
    assert!(web.has_link("eth0") && db.has_link("eth0"));
    gc(attachments(&[&db]));
    assert!(!web.has_link("eth0") && db.has_link("eth0"));
    gc(Value::Null);
    assert!(!db.has_link("eth0"), "null means that nothing is valid");
    assert!(app.has_link("eth0"), "another configuration's container stays");
    assert!(Place::new("cli", "/run/netns/cli").has_link("eth0"), "the command's container stays");
    let gone = json!({ "cniVersion": "1.1.0", "name": "x", "type": "rnet", "network": "gone", "cni.dev/attachments": [] });
    Call::bare(lab, "GC", &gone).ok();
    lab.rn("network rm -f blue").ok();
}

fn gc_without_a_list_takes_only_what_is_dead(lab: &Lab) {
    let config = blue(lab);
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    Call::new(lab, "ADD", &web, &config).ok();
    Call::new(lab, "ADD", &db, &config).ok();
    lab.delete_namespace(&web);
    Call::bare(lab, "GC", &config).ok();
    assert_eq!(only(lab, "blue")["Name"], "cni:db");
    assert!(db.has_link("eth0"));
    Call::new(lab, "DEL", &db, &config).ok();
    lab.rn("network rm blue").ok();
}

fn status_says_whether_there_is_room(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/30 blue").ok();
    let status = || Call::bare(lab, "STATUS", &config());
    status().ok();
    let web = lab.web("blue", "web", &[]);
    status().refused(50, &["no address is free in 10.81.0.0/30", "1"]);
    lab.rn("network disconnect blue web").ok();
    lab.silence(&web);
    status().ok();
    lab.rn("network rm blue").ok();
    status().refused(50, &["blue", "not found"]);
    Call::bare(lab, "STATUS", &inline()).ok();
    let own = with(inline(), "subnet", json!("192.0.2.0/24"));
    Call::bare(lab, "STATUS", &own).refused(50, &["192.0.2.0/24", "the host"]);
    lab.is_clean();
}

fn version_and_about_need_nothing(lab: &Lab) {
    let versions = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    let expected = json!({ "cniVersion": "1.1.0", "supportedVersions": versions });
    let version = || Call::bare(lab, "VERSION", &json!({})).without("CNI_PATH");
    assert_eq!(version().ok(), expected);
    assert_eq!(version().stdin("").ok(), expected);
    assert_eq!(version().stdin("{").ok(), expected);
    let about = lab.rn("cni").ok().stderr().to_owned();
    assert_eq!(
        about,
        format!(
            "CNI rnet plugin v1.9.1+rnet.{}\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n",
            env!("CARGO_PKG_VERSION")
        )
    );
}

fn what_cannot_be_is_refused_with_its_code_and_changes_nothing(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/29 blue").ok();
    let config = config();
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    let add = |config: &Value| Call::new(lab, "ADD", &db, config);
    add(&config).with("CNI_NETNS", "/proc/self/ns/net").refused(8, &["host's own network namespace"]);
    add(&config).with("CNI_NETNS", "/run/lab/host").refused(8, &["host's own network namespace"]);
    add(&config).with("CNI_NETNS", "/etc/passwd").refused(8, &["/etc/passwd"]);
    add(&config).with("CNI_NETNS", "/run/netns/gone").refused(3, &["/run/netns/gone"]);
    add(&with(config.clone(), "network", json!("red"))).refused(7, &["red", "not found"]);
    add(&inline()).with("CNI_NETNS", "/proc/self/ns/net").refused(8, &["host's own"]);
    db.inside(|| lab.sh("ip link add eth0 type veth peer name other")).ok();
    add(&config).refused(100, &["eth0"]);
    add(&inline()).refused(100, &["eth0"]);
    db.inside(|| lab.sh("ip link del eth0")).ok();

    Call::new(lab, "ADD", &web, &with(config.clone(), "runtimeConfig", ports(8080))).ok();
    Call::new(lab, "ADD", &web, &config).refused(100, &["cni:web", "already connected", "blue"]);
    add(&with(config.clone(), "runtimeConfig", ports(8080))).refused(100, &["8080/tcp", "cni:web", "blue"]);
    lab.listen_tcp(&lab.host, "0.0.0.0:9090");
    add(&with(config.clone(), "runtimeConfig", ports(9090))).refused(100, &["9090/tcp"]);
    lab.silence(&lab.host);
    let ips = |text: &str| with(config.clone(), "runtimeConfig", json!({ "ips": [text] }));
    add(&ips("10.81.0.2")).refused(100, &["10.81.0.2", "cni:web"]);
    add(&ips("10.81.0.1")).refused(7, &["10.81.0.1"]);
    add(&ips("10.99.0.1")).refused(7, &["10.99.0.1", "10.81.0.0/29"]);
    for name in ["a", "b", "c", "d"] {
        Call::new(lab, "ADD", &lab.namespace(name), &config).ok();
    }
    add(&config).refused(11, &["no address is free in 10.81.0.0/29", "5 addresses"]);
    lab.rn("network rm -f blue").ok();
}

fn hostile_configurations_are_refused(lab: &Lab) {
    let web = lab.namespace("web");
    let add = |config: &Value| Call::new(lab, "ADD", &web, config);
    for (name, value) in [
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_CONTAINERID", ""),
        ("CNI_IFNAME", "../eth0"),
        ("CNI_IFNAME", "a-name-of-16-byte"),
        ("CNI_IFNAME", "all"),
        ("CNI_ARGS", "IP"),
        ("CNI_ARGS", "UNKNOWN=1"),
        ("CNI_NETNS", "netns/web"),
        ("CNI_COMMAND", "add"),
        ("CNI_COMMAND", "UPDATE"),
    ] {
        add(&inline()).with(name, value).refused(4, &[name]);
    }
    for name in ["CNI_NETNS", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"] {
        add(&inline()).without(name).refused(4, &["ADD needs", name]);
    }
    for text in ["", "[]", "null", "{", "{\"name\": \"a\"} x", "\u{0}", "nan"] {
        add(&inline()).stdin(text).refused(6, &["configuration"]);
    }
    let long = format!("{{\"name\": \"a\", \"x\": \"{}\"}}", "x".repeat(8 << 20));
    add(&inline()).stdin(&long).refused(6, &["1048576 bytes"]);
    let deep = format!("{{\"name\": \"a\", \"x\": {}", "[".repeat(200_000));
    add(&inline()).stdin(&deep).refused(6, &["JSON"]);
    for version in ["1.2.0", "2.0.0", "0.5.0", "1", "1.1.0 ", "../1.1.0"] {
        add(&with(inline(), "cniVersion", json!(version))).refused(1, &[version, "1.1.0"]);
    }
    for (key, value) in [
        ("name", json!("../x")),
        ("name", json!("")),
        ("name", json!("a/b")),
        ("name", json!(7)),
        ("cniVersion", json!(1.0)),
        ("subnet", json!("10.82.0.0")),
        ("subnet", json!("10.82.0.1/24")),
        ("subnet", json!("10.82.0.0/33")),
        ("subnet", json!(["10.82.0.0/24"])),
        ("subnet", json!("192.0.2.0/25")),
        ("gateway", json!("10.99.0.1")),
        ("mtu", json!("1500")),
        ("mtu", json!(1500.0)),
        ("mtu", json!(-1)),
        ("mtu", json!(1)),
        ("driver", json!("../bridge")),
        ("options", json!({ "nmae": "x" })),
        ("options", json!({ "name": "../x" })),
        ("options", json!([])),
        ("network", json!("blue")),
        ("dns", json!("10.0.0.1")),
        ("dns", json!({ "nameservers": "10.0.0.1" })),
        ("runtimeConfig", json!([])),
        ("runtimeConfig", json!({ "portMappings": {} })),
        ("runtimeConfig", json!({ "portMappings": [{ "hostPort": 0, "containerPort": 80 }] })),
        ("runtimeConfig", json!({ "portMappings": [{ "hostPort": 65536, "containerPort": 80 }] })),
        ("runtimeConfig", json!({ "portMappings": [{ "hostPort": "80", "containerPort": 80 }] })),
        (
            "runtimeConfig",
            json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": "icmp" }] }),
        ),
        (
            "runtimeConfig",
            json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80, "hostIP": "x" }] }),
        ),
        ("runtimeConfig", json!({ "ips": ["10.82.0.9", "10.82.0.10"] })),
        ("runtimeConfig", json!({ "ips": ["nonsense"] })),
        ("runtimeConfig", json!({ "mac": "01:00:00:00:00:00" })),
        ("runtimeConfig", json!({ "aliases": ["../x"] })),
    ] {
        let error = add(&with(inline(), key, value.clone())).run();
        let shown = error.to_string();
        let error = serde_json::from_str::<Value>(
            shown.split("stdout: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default(),
        );
        let code = error.ok().and_then(|error| error["code"].as_u64());
        let expected = if value == json!("192.0.2.0/25") { 100 } else { 7 };
        assert_eq!(code, Some(expected), "{key}: {value}: {shown}");
        lab.is_clean();
    }
    add(&with(inline(), "ipam", json!({ "type": "host-local" }))).refused(2, &["ipam"]);
    add(&with(inline(), "runtimeConfig", json!({ "deviceID": "0000:00:01.0" }))).refused(2, &["deviceID"]);
    for previous in
        [json!([]), json!("x"), json!({ "cniVersion": "9" }), json!({ "ips": [{ "address": "x" }] })]
    {
        let config = with(inline(), "prevResult", previous);
        Call::new(lab, "CHECK", &web, &config).refused(3, &["web"]);
    }
    // What takes back must not be stopped by what nobody can read any more.
    Call::new(lab, "DEL", &web, &with(inline(), "prevResult", json!("x"))).ok();
}

/// Kills the call at each of its writes, one after the other; after each, `after` puts everything right.
fn kill(call: &Call<'_>, before: &dyn Fn(), after: &dyn Fn()) -> usize {
    let mut kills = 0;
    for name in [
        "sendto", "sendmsg", "write", "pwrite64", "rename", "openat", "unlink", "linkat", "mkdir", "flock",
        "setns",
    ] {
        for when in 1..200 {
            before();
            let killed = call.is_killed_at(name, when);
            after();
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    kills
}

fn a_killed_addition_leaves_nothing_that_the_next_one_minds(lab: &Lab) {
    let config = with(blue(lab), "runtimeConfig", ports(8080));
    let web = lab.namespace("web");
    let here = once(lab, &web, &config);
    let call = Call::new(lab, "ADD", &web, &config);
    let kills = kill(&call, &|| {}, &|| {
        // Killed before the record was ready it can be added again; after that, the runtime has to say DEL first.
        let again = Call::new(lab, "ADD", &web, &config);
        if again.run().to_string().contains("already connected") {
            Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "").ok();
            again.ok();
        }
        assert_eq!(web.addresses("eth0"), [only(lab, "blue")["IPv4Address"].as_str().unwrap_or_default()]);
        Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "").ok();
        lab.is_like(&here);
    });
    println!("sweep: rnet as CNI ADD: {kills} kills, nothing left");
    assert!(kills >= 20, "killed {kills} times only");
    lab.rn("network rm blue").ok();
}

fn a_killed_deletion_is_finished_by_the_next(lab: &Lab) {
    let config = with(blue(lab), "runtimeConfig", ports(8080));
    let web = lab.namespace("web");
    let here = once(lab, &web, &config);
    let call = Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "");
    let kills = kill(&call, &|| drop(Call::new(lab, "ADD", &web, &config).ok()), &|| {
        Call::new(lab, "DEL", &web, &config).with("CNI_NETNS", "").ok();
        lab.is_like(&here);
        lab.namespace_is_fresh(&web);
    });
    println!("sweep: rnet as CNI DEL: {kills} kills, nothing left");
    assert!(kills >= 15, "killed {kills} times only");
    lab.rn("network rm blue").ok();
}
