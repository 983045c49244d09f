//! Lists of plugins by the names that everybody's configurations have, called one after the other as libcni does.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use crate::{
    cni_plugin::Call,
    harness::tests,
    lab::{Lab, Place},
};

tests! {
    the_usual_list_works_as_a_whole,
    a_list_is_deleted_without_namespace_or_result,
    a_list_that_fails_half_way_can_be_deleted_and_added_again,
    portmap_alone_is_taken_back,
    firewall_closes_what_bridge_leaves_open,
    tuning_sets_switches_and_links_and_says_so,
    tuning_sets_no_switch_that_the_administrator_does_not_allow,
    bandwidth_limits_a_container,
    bridge_takes_every_key_or_says_why_not,
    a_bridge_without_addresses_is_made,
    routes_of_the_configuration_are_set,
    addresses_go_round_and_are_kept_in_files,
    a_directory_is_shared_with_the_plugin_of_others,
    addresses_that_cannot_be_are_refused,
    gc_frees_addresses_too_and_status_counts_them,
    static_addresses_come_from_everywhere,
    a_foreign_delegate_is_run_with_all_that_it_needs,
    plugins_that_change_need_one_that_made,
}

const DIR: &str = "/run/lab/cni";

pub fn install(lab: &Lab) {
    lab.rn("cni install --dir /run/lab/cni --aliases").ok();
}

/// As podman 4.3 writes it.
fn podman() -> Vec<Value> {
    vec![
        json!({
            "type": "bridge", "bridge": "cni-podman1", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "routes": [{ "dst": "0.0.0.0/0" }],
                "ranges": [[{ "subnet": "10.89.0.0/24", "gateway": "10.89.0.1" }]],
            },
            "capabilities": { "ips": true },
        }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
        json!({ "type": "firewall", "backend": "" }),
        json!({ "type": "tuning" }),
    ]
}

/// A list, called as a runtime calls it.
pub struct List<'a> {
    lab: &'a Lab,
    version: &'static str,
    pub plugins: Vec<Value>,
}

impl<'a> List<'a> {
    pub fn new(lab: &'a Lab, plugins: Vec<Value>) -> Self {
        Self { lab, version: "0.4.0", plugins }
    }

    /// What a plugin gets on stdin.
    pub fn config(&self, plugin: &Value, previous: &Value, runtime: &Value) -> Value {
        let mut config = plugin.clone();
        config["name"] = json!("podman1");
        config["cniVersion"] = json!(self.version);
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let capabilities = plugin["capabilities"].as_object().cloned().unwrap_or_default();
        let passed: serde_json::Map<String, Value> =
            capabilities.keys().filter_map(|key| Some((key.clone(), runtime.get(key)?.clone()))).collect();
        if !passed.is_empty() {
            config["runtimeConfig"] = Value::Object(passed);
        }
        config
    }

    #[track_caller]
    pub fn call(&self, verb: &str, place: &Place, plugin: &Value, config: &Value) -> Call<'a> {
        Call::new(self.lab, verb, place, config).plugin(plugin["type"].as_str().expect("a type"))
    }

    #[track_caller]
    pub fn add(&self, place: &Place, runtime: &Value) -> Value {
        self.plugins.iter().fold(Value::Null, |previous, plugin| {
            self.call("ADD", place, plugin, &self.config(plugin, &previous, runtime)).ok()
        })
    }

    #[track_caller]
    pub fn check(&self, place: &Place, result: &Value, runtime: &Value) {
        for plugin in &self.plugins {
            self.call("CHECK", place, plugin, &self.config(plugin, result, runtime)).ok();
        }
    }

    #[track_caller]
    pub fn del(&self, place: &Place) {
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", place, plugin, &self.config(plugin, &Value::Null, &Value::Null))
                .with("CNI_NETNS", "")
                .ok();
        }
    }
}

pub fn ports(host: u16) -> Value {
    json!({ "portMappings": [{ "hostPort": host, "containerPort": 80, "protocol": "tcp", "hostIP": "" }] })
}

/// The files of a directory of `host-local`, those of addresses alone.
pub fn leases() -> Vec<String> {
    let entries = fs::read_dir("/var/lib/cni/networks/podman1")
        .map(|list| list.flatten().collect())
        .unwrap_or_else(|_| Vec::new());
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
    names.sort();
    names
}

/// What a network and its addresses leave, which belong to whoever has the configuration.
pub fn forget(lab: &Lab) {
    lab.rn("network rm podman1").ok();
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn the_usual_list_works_as_a_whole(lab: &Lab) {
    install(lab);
    let list = List::new(lab, podman());
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    let result = list.add(&web, &ports(8080));
    let veth = result["interfaces"][1]["name"].clone();
    assert_eq!(
        result,
        json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                { "name": "cni-podman1", "mac": "02:42:0a:59:00:01" },
                { "name": veth },
                { "name": "eth0", "mac": "02:42:0a:59:00:02", "sandbox": "/run/netns/web" },
            ],
            "ips": [{ "version": "4", "interface": 2, "address": "10.89.0.2/24", "gateway": "10.89.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": {},
        })
    );
    list.add(&db, &Value::Null);
    assert_eq!(leases(), ["10.89.0.2", "10.89.0.3"]);
    let file = fs::read_to_string("/var/lib/cni/networks/podman1/10.89.0.2").expect("the lease");
    assert_eq!(file, "web\r\neth0");
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    lab.tcp(&db, "10.89.0.2:80").answered_by(&web);
    lab.tcp(&db, "10.89.0.1:8080").answered_by(&web);
    lab.tcp(&web, "10.89.0.1:8080").answered_by(&web);
    lab.listen_tcp(&lab.lan, "0.0.0.0:90");
    lab.tcp(&db, "192.0.2.2:90").answered_by(&lab.lan);
    assert_eq!(db.gateway(), Some(("10.89.0.1".to_owned(), "eth0".to_owned())));
    list.check(&web, &result, &ports(8080));
    let shown = lab.inspect("podman1");
    assert_eq!(shown["Containers"].as_object().map(serde_json::Map::len), Some(2));
    list.del(&web);
    list.del(&db);
    assert_eq!(leases(), [] as [&str; 0]);
    forget(lab);
}

fn a_list_is_deleted_without_namespace_or_result(lab: &Lab) {
    install(lab);
    let list = List::new(lab, podman());
    let web = lab.namespace("web");
    list.add(&web, &ports(8080));
    list.del(&web);
    let here = lab.snapshot();
    list.add(&web, &ports(8080));
    lab.delete_namespace(&web);
    for _ in 0..2 {
        list.del(&web);
        // `last_reserved_ip` goes on, as it must.
        let _ = fs::write("/var/lib/cni/networks/podman1/last_reserved_ip.0", "10.89.0.2");
        lab.is_like(&here);
    }
    list.del(&Place::new("nobody", "/run/netns/nobody"));
    lab.is_like(&here);
    forget(lab);
    list.del(&web);
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn a_list_that_fails_half_way_can_be_deleted_and_added_again(lab: &Lab) {
    install(lab);
    let list = List::new(lab, podman());
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    list.add(&web, &ports(8080));
    let runtime = ports(8080);
    let made =
        list.call("ADD", &db, &list.plugins[0], &list.config(&list.plugins[0], &Value::Null, &runtime)).ok();
    let config = list.config(&list.plugins[1], &made, &runtime);
    list.call("ADD", &db, &list.plugins[1], &config).refused(100, &["8080/tcp", "cni:web", "podman1"]);
    let again = list.config(&list.plugins[0], &Value::Null, &runtime);
    list.call("ADD", &db, &list.plugins[0], &again).refused(100, &["cni:db", "already connected"]);
    assert_eq!(leases().len(), 2, "a refused ADD takes no address");
    list.del(&db);
    list.add(&db, &ports(8081));
    // Repeated by a runtime that did not hear the answer.
    let config = list.config(&list.plugins[1], &made, &ports(8081));
    list.call("ADD", &db, &list.plugins[1], &config).ok();
    list.del(&db);
    list.del(&web);
    forget(lab);
}

fn portmap_alone_is_taken_back(lab: &Lab) {
    install(lab);
    let list = List::new(lab, podman());
    let web = lab.namespace("web");
    list.add(&web, &ports(8080));
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    let config = list.config(&list.plugins[1], &Value::Null, &Value::Null);
    list.call("DEL", &web, &list.plugins[1], &config).with("CNI_NETNS", "").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.tcp(&lab.host, "10.89.0.2:80").answered_by(&web);
    lab.rn("check").ok().prints("");
    // The port is free for others.
    let db = lab.namespace("db");
    list.add(&db, &ports(8080));
    list.del(&db);
    list.del(&web);
    forget(lab);
}

fn firewall_closes_what_bridge_leaves_open(lab: &Lab) {
    install(lab);
    let [web, db] = ["web", "db"].map(|name| lab.namespace(name));
    lab.rn("network create --subnet 10.81.0.0/24 other").ok();
    let stranger = lab.web("other", "stranger", &[]);
    crate::lab::prepare(&lab.lan, "route add 10.89.0.0/24 via 192.0.2.1");
    let mut plugins = podman();
    for (policy, lan, neighbour) in
        [("", true, true), ("open", true, true), ("same-bridge", false, true), ("isolated", false, false)]
    {
        plugins[2]["ingressPolicy"] = json!(policy);
        let list = List::new(lab, plugins.clone());
        list.add(&web, &Value::Null);
        list.add(&db, &Value::Null);
        let address = format!("{}:80", lab.address("podman1", "cni:web"));
        lab.listen_tcp(&web, "0.0.0.0:80");
        // Other networks of rnet are closed to it whatever is said here.
        for (from, open) in [(&lab.lan, lan), (&stranger, false), (&db, neighbour)] {
            if open {
                lab.tcp(from, &address).answered_by(&web);
            } else {
                lab.no_tcp(from, &address);
            }
        }
        lab.rn("check").ok().prints("");
        list.del(&web);
        list.del(&db);
        lab.silence(&web);
        forget(lab);
    }
    plugins[2]["ingressPolicy"] = json!("closed");
    let list = List::new(lab, plugins);
    let config = list.config(&list.plugins[2], &json!({ "cniVersion": "0.4.0" }), &Value::Null);
    list.call("ADD", &web, &list.plugins[2], &config).refused(7, &["ingressPolicy", "closed"]);
    crate::lab::prepare(&lab.lan, "route del 10.89.0.0/24");
    lab.silence(&stranger);
    lab.rn("network rm -f other").ok();
}

fn tuning_sets_switches_and_links_and_says_so(lab: &Lab) {
    install(lab);
    let mut plugins = podman();
    plugins[3] = json!({
        "type": "tuning", "mac": "02:00:00:00:00:09", "mtu": 1400, "txQLen": 77, "promisc": true, "allmulti": true,
        "sysctl": { "net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1" },
    });
    let list = List::new(lab, plugins);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:09");
    let link = web.link("eth0");
    let shown = (&link["address"], &link["mtu"], &link["txqlen"], &link["promiscuity"], &link["allmulti"]);
    let (mac, mtu, queue) = (json!("02:00:00:00:00:09"), json!(1400), json!(77));
    assert_eq!((shown.0, shown.1, shown.2), (&mac, &mtu, &queue), "{link}");
    assert!(
        link["flags"].to_string().contains("PROMISC") && link["flags"].to_string().contains("ALLMULTI"),
        "{link}"
    );
    let read =
        |name: &str| web.inside(|| fs::read_to_string(format!("/proc/sys/net/{name}"))).unwrap_or_default();
    assert_eq!((read("core/somaxconn").trim(), read("ipv4/conf/eth0/arp_filter").trim()), ("500", "1"));
    list.check(&web, &result, &Value::Null);
    lab.rn("check").ok().prints("");
    web.inside(|| fs::write("/proc/sys/net/core/somaxconn", "600")).expect("a sysctl");
    let config = list.config(&list.plugins[3], &result, &Value::Null);
    list.call("CHECK", &web, &list.plugins[3], &config).refused(102, &["net.core.somaxconn = 500"]);
    list.del(&web);
    for (key, value, code, word) in [
        ("sysctl", json!({ "kernel.hostname": "x" }), 7, "kernel.hostname"),
        ("sysctl", json!({ "net/../kernel/hostname": "x" }), 7, "net/../kernel/hostname"),
        ("sysctl", json!({ "net.core.somaxconn": "1\n2" }), 7, "somaxconn"),
        ("sysctl", json!({ "net.core.nothing": "1" }), 101, "net/core/nothing"),
        ("mac", json!("01:00:00:00:00:00"), 7, "01:00:00:00:00:00"),
        ("mtu", json!(7), 101, "mtu 7"),
    ] {
        let made = list
            .call("ADD", &web, &list.plugins[0], &list.config(&list.plugins[0], &Value::Null, &Value::Null))
            .ok();
        let config = list.config(&json!({ "type": "tuning", key: value }), &made, &Value::Null);
        list.call("ADD", &web, &list.plugins[3], &config).run().refused(code, &[word]);
        lab.rn("check").ok().prints("");
        list.del(&web);
    }
    forget(lab);
}

/// For type `rnet` too; and who was added before the list came can still be deleted.
fn tuning_sets_no_switch_that_the_administrator_does_not_allow(lab: &Lab) {
    install(lab);
    let mut plugins = podman();
    plugins[3] = json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" } });
    let list = List::new(lab, plugins);
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    list.add(&web, &Value::Null);
    lab.sh("mkdir -p /run/lab/etc && mount -t tmpfs none /run/lab/etc && cp -a /etc/. /run/lab/etc && mount --move /run/lab/etc /etc").ok();
    let allow = |text: &str| {
        fs::create_dir_all("/etc/cni/tuning").expect("a directory");
        fs::write("/etc/cni/tuning/allowlist.conf", text).expect("a file");
    };
    let config = json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" } });
    let native = json!({
        "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "subnet": "10.82.0.0/24",
        "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" },
    });
    let made = list
        .call("ADD", &db, &list.plugins[0], &list.config(&list.plugins[0], &Value::Null, &Value::Null))
        .ok();
    let tune = |code: u32, words: &[&str]| {
        let call = list.call("ADD", &db, &list.plugins[3], &list.config(&config, &made, &Value::Null));
        call.run().refused(code, words);
    };
    allow("^net.core.somaxconn$\n");
    tune(7, &["net.ipv4.conf.IFNAME.arp_filter", "/etc/cni/tuning/allowlist.conf"]);
    Call::new(lab, "ADD", &db, &native).with("CNI_IFNAME", "eth1").run().refused(7, &["IFNAME.arp_filter"]);
    allow("(\n");
    tune(5, &["line 1"]);
    allow("arp_filter$\n");
    list.call("ADD", &db, &list.plugins[3], &list.config(&config, &made, &Value::Null)).ok();
    list.del(&db);
    list.del(&web);
    lab.sh("umount /etc").ok();
    forget(lab);
}

fn bandwidth_limits_a_container(lab: &Lab) {
    install(lab);
    let mut plugins = podman();
    plugins.push(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }));
    let list = List::new(lab, plugins);
    let web = lab.namespace("web");
    let runtime = json!({ "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 800_000, "EgressRate": 4_000_000, "EgressBurst": 4_294_967_295_u64 } });
    let result = list.add(&web, &runtime);
    let limits = lab.endpoint("podman1", "cni:web")["Limits"].clone();
    assert_eq!((&limits["IngressRate"], &limits["EgressRate"]), (&json!(8_000_000), &json!(4_000_000)));
    lab.rn("check").ok().prints("");
    list.check(&web, &result, &runtime);
    list.del(&web);
    forget(lab);
}

fn bridge_takes_every_key_or_says_why_not(lab: &Lab) {
    install(lab);
    let web = lab.namespace("web");
    let with = |key: &str, value: Value| {
        let mut plugin = podman().swap_remove(0);
        plugin[key] = value;
        List::new(lab, vec![plugin])
    };
    for (key, value, code) in [
        ("vlan", json!(7), 2),
        ("vlanTrunk", json!([{ "id": 7 }]), 2),
        ("promiscMode", json!(true), 2),
        ("disableContainerInterface", json!(true), 2),
        ("ipMasqBackend", json!("ipfw"), 7),
        ("mtu", json!("1500"), 7),
        ("mtu", json!(1.5), 7),
        ("bridge", json!("../x"), 7),
        ("isGateway", json!("yes"), 7),
        ("ipam", json!({ "type": "../host-local" }), 7),
        ("ipam", json!({ "type": "/run/lab/cni/host-local" }), 7),
        ("ipam", json!({ "type": "nowhere" }), 7),
        ("ipam", json!({ "type": "portmap" }), 7),
        ("ipam", json!({ "type": "host-local" }), 7),
        ("ipam", json!("host-local"), 7),
    ] {
        let list = with(key, value);
        let config = list.config(&list.plugins[0], &Value::Null, &Value::Null);
        list.call("ADD", &web, &list.plugins[0], &config).refused(code, &[]);
    }
    for (key, value) in [
        ("vlan", json!(0)),
        ("forceAddress", json!(true)),
        ("enabledad", json!(true)),
        ("macspoofchk", json!(true)),
        ("ipMasqBackend", json!("iptables")),
        ("isDefaultGateway", json!(true)),
        ("portIsolation", json!(true)),
    ] {
        let list = with(key, value);
        let result = list.add(&web, &Value::Null);
        list.check(&web, &result, &Value::Null);
        list.del(&web);
    }
    let list = with("mtu", json!(1300));
    list.add(&web, &Value::Null);
    assert_eq!(web.link("eth0")["mtu"], 1300);
    list.del(&web);
    let list = List::new(lab, podman());
    let config = list.config(&list.plugins[0], &Value::Null, &Value::Null);
    list.call("ADD", &web, &list.plugins[0], &config)
        .with("CNI_NETNS", "/proc/self/ns/net")
        .refused(8, &["host's own"]);
    assert_eq!(leases(), [] as [&str; 0]);
    // A bridge of somebody else is not taken over.
    lab.rn("network rm podman1").ok();
    crate::lab::prepare(&lab.host, "link add cni-podman1 type bridge");
    list.call("ADD", &web, &list.plugins[0], &config)
        .run()
        .refused(100, &["cni-podman1", "not of network podman1"]);
    assert_eq!(leases(), [] as [&str; 0]);
    crate::lab::prepare(&lab.host, "link del cni-podman1");
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn a_bridge_without_addresses_is_made(lab: &Lab) {
    install(lab);
    let list = List::new(lab, vec![json!({ "type": "bridge", "bridge": "l2" })]);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert_eq!(result["ips"], Value::Null);
    assert!(web.is_up("eth0"));
    list.check(&web, &result, &Value::Null);
    list.del(&web);
    lab.rn("network rm podman1").ok();
}

fn routes_of_the_configuration_are_set(lab: &Lab) {
    install(lab);
    let mut plugin = podman().swap_remove(0);
    plugin["isGateway"] = json!(false);
    plugin["ipam"]["routes"] =
        json!([{ "dst": "10.200.0.0/16" }, { "dst": "10.201.0.0/16", "gw": "10.89.0.77" }]);
    let list = List::new(lab, vec![plugin]);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert_eq!(
        result["routes"],
        json!([{ "dst": "10.200.0.0/16" }, { "dst": "10.201.0.0/16", "gw": "10.89.0.77" }])
    );
    let routes = web.ip("-4 route show");
    let via = |to: &str| {
        routes
            .as_array()
            .and_then(|all| all.iter().find(|route| route["dst"] == to))
            .map(|route| route["gateway"].clone())
    };
    assert_eq!(
        (via("10.200.0.0/16"), via("10.201.0.0/16")),
        (Some(json!("10.89.0.1")), Some(json!("10.89.0.77")))
    );
    assert_eq!(via("default"), None);
    assert!(lab.host.addresses("cni-podman1").is_empty(), "the host has no address there");
    list.check(&web, &result, &Value::Null);
    list.del(&web);
    forget(lab);
}

/// Calls `host-local` alone.
fn lease<'a>(lab: &'a Lab, verb: &str, name: &str, ipam: &Value) -> Call<'a> {
    let mut ipam = ipam.clone();
    ipam["type"] = json!("host-local");
    let config = json!({ "cniVersion": "1.0.0", "name": "podman1", "type": "bridge", "ipam": ipam });
    Call::new(lab, verb, &Place::new(name, "/run/netns/x"), &config).plugin("host-local")
}

fn small() -> Value {
    json!({ "ranges": [[{ "subnet": "10.89.0.0/29" }], [{ "subnet": "fd00:89::/64" }]] })
}

fn addresses_go_round_and_are_kept_in_files(lab: &Lab) {
    install(lab);
    let address = |name: &str| lease(lab, "ADD", name, &small()).ok()["ips"][0]["address"].clone();
    assert_eq!(
        lease(lab, "ADD", "a", &small()).ok(),
        json!({
            "cniVersion": "1.0.0",
            "ips": [
                { "address": "10.89.0.2/29", "gateway": "10.89.0.1" },
                { "address": "fd00:89::2/64", "gateway": "fd00:89::1" },
            ],
            "dns": {},
        })
    );
    assert_eq!((address("b"), address("c")), (json!("10.89.0.3/29"), json!("10.89.0.4/29")));
    lease(lab, "DEL", "a", &small()).ok();
    assert_eq!(address("d"), "10.89.0.5/29", "a freed address rests");
    assert_eq!(address("e"), "10.89.0.6/29");
    assert_eq!(address("f"), "10.89.0.2/29");
    lease(lab, "ADD", "g", &small()).refused(11, &["10.89.0.1-10.89.0.6"]);
    lease(lab, "ADD", "b", &small()).refused(100, &["eth0", "b", "10.89.0.3"]);
    assert_eq!(leases().len(), 10, "five of each family: {:?}", leases());
    // Somebody was killed between making a file and writing to it.
    lease(lab, "DEL", "c", &small()).ok();
    fs::write("/var/lib/cni/networks/podman1/10.89.0.4", "").expect("a lease");
    assert_eq!(address("g"), "10.89.0.4/29");
    lease(lab, "CHECK", "g", &small()).ok();
    lease(lab, "CHECK", "nobody", &small()).refused(102, &["nobody"]);
    for name in ["b", "c", "d", "e", "f", "g", "nobody"] {
        lease(lab, "DEL", name, &small()).ok();
    }
    assert_eq!(leases(), [] as [&str; 0]);
    let two = json!({ "subnet": "10.90.0.0/24", "rangeStart": "10.90.0.10", "rangeEnd": "10.90.0.11", "gateway": "10.90.0.10", "routes": [{ "dst": "0.0.0.0/0" }], "dataDir": "/run/lab/leases" });
    let result = lease(lab, "ADD", "a", &two).ok();
    assert_eq!(
        (&result["ips"][0]["address"], &result["routes"]),
        (&json!("10.90.0.11/24"), &json!([{ "dst": "0.0.0.0/0" }]))
    );
    lease(lab, "ADD", "b", &two).refused(11, &["10.90.0.10-10.90.0.11"]);
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn a_directory_is_shared_with_the_plugin_of_others(lab: &Lab) {
    lab.needs("../lib/cni/host-local");
    install(lab);
    let theirs = |verb: &str, name: &str| {
        let call = lease(lab, verb, name, &small());
        let mut command = call.command();
        let mut other = std::process::Command::new("/usr/lib/cni/host-local");
        other.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let _ = command.stdin(std::process::Stdio::null());
        let output =
            other.stdin(fs::File::open("/run/lab/stdin").expect("stdin")).output().expect("host-local");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()["ips"][0]["address"].clone()
    };
    let ours = |name: &str| lease(lab, "ADD", name, &small()).ok()["ips"][0]["address"].clone();
    assert_eq!(
        (ours("a"), theirs("ADD", "b"), ours("c")),
        (json!("10.89.0.2/29"), json!("10.89.0.3/29"), json!("10.89.0.4/29"))
    );
    lease(lab, "ADD", "b", &small()).refused(100, &["10.89.0.3"]);
    lease(lab, "DEL", "b", &small()).ok();
    theirs("DEL", "a");
    assert_eq!(leases(), ["10.89.0.4", "fd00:89::4"]);
    assert_eq!(ours("a"), "10.89.0.5/29");
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn addresses_that_cannot_be_are_refused(lab: &Lab) {
    install(lab);
    for (ipam, word) in [
        (json!({}), "range"),
        (json!({ "subnet": "10.0.0.0" }), "10.0.0.0"),
        (json!({ "subnet": "10.0.0.1/24" }), "host bits"),
        (json!({ "subnet": "10.0.0.0/31" }), "too small"),
        (json!({ "subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1" }), "rangeStart"),
        (json!({ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.3" }), "rangeEnd"),
        (json!({ "subnet": "10.0.0.0/24", "gateway": "x" }), "gateway"),
        (json!({ "ranges": [{ "subnet": "10.0.0.0/24" }] }), "list of lists"),
        (json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.0.0/25" }]] }), "overlaps"),
        (json!({ "subnet": "10.0.0.0/24", "routes": [{ "dst": "x" }] }), "dst"),
    ] {
        lease(lab, "ADD", "a", &ipam).refused(7, &[word]);
    }
    lease(lab, "ADD", "a", &small()).with("CNI_ARGS", "IP=10.99.0.1").refused(7, &["10.99.0.1", "podman1"]);
    assert_eq!(
        lease(lab, "ADD", "a", &small()).with("CNI_ARGS", "IP=10.89.0.4;MAC=02:00:00:00:00:01").ok()["ips"]
            [0]["address"],
        "10.89.0.4/29"
    );
    lease(lab, "ADD", "b", &small()).with("CNI_ARGS", "IP=10.89.0.4").run().refused(100, &["10.89.0.4"]);
    lease(lab, "ADD", "b", &small()).with("CNI_ARGS", "IP=10.89.0.1").run().refused(7, &["gateway"]);
    assert_eq!(leases(), ["10.89.0.4", "fd00:89::2"], "a refused ADD keeps nothing");
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn gc_frees_addresses_too_and_status_counts_them(lab: &Lab) {
    install(lab);
    let mut plugins = podman();
    plugins[0]["ipam"] = json!({ "type": "host-local", "subnet": "10.89.0.0/29" });
    let list = List { version: "1.1.0", ..List::new(lab, plugins) };
    let config = list.config(&list.plugins[0], &Value::Null, &Value::Null);
    let status = || Call::bare(lab, "STATUS", &config).plugin("bridge");
    status().ok();
    let places = ["a", "b", "c", "d", "e"].map(|name| lab.namespace(name));
    places.iter().for_each(|place| drop(list.add(place, &Value::Null)));
    status().refused(50, &["10.89.0.1-10.89.0.6"]);
    lab.delete_namespace(&places[0]);
    Call::bare(lab, "GC", &config).plugin("bridge").ok();
    assert_eq!(leases(), ["10.89.0.3", "10.89.0.4", "10.89.0.5", "10.89.0.6"]);
    status().ok();
    let mut valid = config.clone();
    valid["cni.dev/valid-attachments"] = json!([{ "containerID": "c", "ifname": "eth0" }]);
    Call::bare(lab, "GC", &valid).plugin("bridge").ok();
    assert_eq!(leases(), ["10.89.0.4"]);
    assert!(!places[1].has_link("eth0") && places[2].has_link("eth0"));
    valid["cni.dev/valid-attachments"] = Value::Null;
    Call::bare(lab, "GC", &valid).plugin("bridge").ok();
    for name in ["portmap", "firewall", "tuning", "loopback", "bandwidth"] {
        Call::bare(lab, "GC", &valid).plugin(name).ok();
        Call::bare(lab, "STATUS", &valid).plugin(name).ok();
    }
    forget(lab);
}

fn static_addresses_come_from_everywhere(lab: &Lab) {
    install(lab);
    let call = |ipam: Value, more: Value| {
        let mut config = json!({ "cniVersion": "1.0.0", "name": "podman1", "type": "bridge", "ipam": ipam });
        more.as_object().into_iter().flatten().for_each(|(key, value)| config[key] = value.clone());
        config["ipam"]["type"] = json!("static");
        Call::new(lab, "ADD", &Place::new("a", "/run/netns/x"), &config).plugin("static")
    };
    let one = json!({ "addresses": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1" }], "routes": [{ "dst": "0.0.0.0/0" }], "dns": { "nameservers": ["10.1.0.1"] } });
    assert_eq!(
        call(one.clone(), Value::Null).ok(),
        json!({
            "cniVersion": "1.0.0",
            "ips": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": { "nameservers": ["10.1.0.1"] },
        })
    );
    let args = call(json!({}), Value::Null).with("CNI_ARGS", "IP=10.2.0.5/24,fd00::5/64;GATEWAY=10.2.0.1");
    assert_eq!(
        args.ok()["ips"],
        json!([{ "address": "10.2.0.5/24", "gateway": "10.2.0.1" }, { "address": "fd00::5/64" }])
    );
    let runtime = call(one, json!({ "runtimeConfig": { "ips": ["10.3.0.5/24"] } }));
    assert_eq!(runtime.ok()["ips"], json!([{ "address": "10.3.0.5/24" }]));
    call(json!({}), Value::Null).refused(7, &["no address"]);
    call(json!({ "addresses": [{ "address": "10.1.0.5" }] }), Value::Null).refused(7, &["10.1.0.5"]);
    let web = lab.namespace("web");
    let mut plugin = podman().swap_remove(0);
    plugin["ipam"] =
        json!({ "type": "static", "addresses": [{ "address": "10.89.0.7/24", "gateway": "10.89.0.1" }] });
    let list = List::new(lab, vec![plugin]);
    list.add(&web, &Value::Null);
    assert_eq!(web.addresses("eth0"), ["10.89.0.7/24"]);
    list.del(&web);
    lab.rn("network rm podman1").ok();
}

fn a_foreign_delegate_is_run_with_all_that_it_needs(lab: &Lab) {
    install(lab);
    let script = r#"#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME" >> /run/lab/said
cat >> /run/lab/said; echo >> /run/lab/said
[ "$CNI_COMMAND" != ADD ] || cat /run/lab/answer
[ ! -e /run/lab/fails ] || { echo '{"cniVersion":"0.4.0","code":123,"msg":"out of luck","details":"d"}'; exit 1; }
"#;
    fs::write(format!("{DIR}/lucky"), script).expect(DIR);
    fs::set_permissions(format!("{DIR}/lucky"), fs::Permissions::from_mode(0o755)).expect(DIR);
    let answer = json!({ "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": "10.89.0.99/24", "gateway": "10.89.0.1" }], "routes": [{ "dst": "0.0.0.0/0" }] });
    fs::write("/run/lab/answer", answer.to_string()).expect("an answer");
    let mut plugin = podman().swap_remove(0);
    plugin["ipam"] = json!({ "type": "lucky", "secret": 7 });
    let list = List::new(lab, vec![plugin]);
    let web = lab.namespace("web");
    let result = list.add(&web, &Value::Null);
    assert_eq!(web.addresses("eth0"), ["10.89.0.99/24"]);
    list.check(&web, &result, &Value::Null);
    list.del(&web);
    let said = fs::read_to_string("/run/lab/said").unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        (lines[0], lines[2], lines[4]),
        ("ADD web /run/netns/web eth0", "CHECK web /run/netns/web eth0", "DEL web  eth0")
    );
    let passed: Value = serde_json::from_str(lines[1]).unwrap_or_default();
    assert_eq!((&passed["type"], &passed["ipam"]["secret"]), (&json!("bridge"), &json!(7)));
    // Its own failure is the runtime's to know, in its own words and with its own code.
    fs::write("/run/lab/fails", "").expect("a file");
    fs::write("/run/lab/answer", "").expect("an answer");
    let config = list.config(&list.plugins[0], &Value::Null, &Value::Null);
    list.call("ADD", &web, &list.plugins[0], &config).run().refused(123, &["lucky", "out of luck", "d"]);
    assert!(!web.has_link("eth0"));
    lab.rn("network rm podman1").ok();
}

fn plugins_that_change_need_one_that_made(lab: &Lab) {
    install(lab);
    let web = lab.namespace("web");
    let result =
        json!({ "cniVersion": "0.4.0", "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/web" }] });
    for (plugin, config) in [
        ("portmap", json!({ "runtimeConfig": ports(8080) })),
        ("tuning", json!({ "sysctl": { "net.core.somaxconn": "500" } })),
        ("bandwidth", json!({ "ingressRate": 8_000_000, "ingressBurst": 800_000 })),
        ("firewall", json!({ "ingressPolicy": "same-bridge" })),
    ] {
        let mut config = config;
        config["cniVersion"] = json!("0.4.0");
        config["name"] = json!("podman1");
        let call = |config: &Value| Call::new(lab, "ADD", &web, config).plugin(plugin);
        call(&config).refused(7, &["prevResult"]);
        config["prevResult"] = result.clone();
        call(&config).refused(7, &["web", "eth0", "not made by rnet"]);
        Call::new(lab, "DEL", &web, &config).plugin(plugin).ok();
        config["prevResult"] = json!({ "interfaces": "x" });
        call(&config).refused(7, &["interfaces"]);
    }
    let mut config = json!({ "cniVersion": "0.4.0", "name": "podman1", "prevResult": result.clone() });
    for plugin in ["portmap", "tuning", "bandwidth", "firewall"] {
        assert_eq!(
            Call::new(lab, "ADD", &web, &config).plugin(plugin).ok(),
            result,
            "nothing to do for {plugin}"
        );
    }
    for (key, value) in [("masqAll", json!(true)), ("conditionsV4", json!(["!", "-d", "10.0.0.0/8"]))] {
        config["runtimeConfig"] = ports(8080);
        config[key] = value;
        Call::new(lab, "ADD", &web, &config).plugin("portmap").refused(2, &[key]);
        config[key] = Value::Null;
    }
    lab.is_clean();
}
