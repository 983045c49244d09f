//! rnet under the names of other plugins: how it gets them, and what it is under each.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{cni_plugin::Call, harness::tests, lab::Lab};

tests! {
    the_plugin_is_installed_by_its_names_and_no_foreign_file_is_touched,
    loopback_brings_lo_up,
    a_network_is_exported_for_runtimes,
    lint_names_what_is_misspelt,
}

const DIR: &str = "/run/lab/cni";

fn the_plugin_is_installed_by_its_names_and_no_foreign_file_is_touched(lab: &Lab) {
    lab.rn("cni install --dir /run/lab/cni").ok().prints("/run/lab/cni/rnet\n");
    assert_eq!(fs::read_dir(DIR).expect(DIR).count(), 1);
    fs::write(format!("{DIR}/loopback"), "somebody else's").expect(DIR);
    lab.rn("cni install --dir /run/lab/cni --aliases=loopback")
        .refused(&["/run/lab/cni/loopback", "is not rnet"]);
    assert_eq!(fs::read_to_string(format!("{DIR}/loopback")).expect(DIR), "somebody else's");
    lab.rn("cni install --dir /run/lab/cni --aliases=nonsense").refused(&["nonsense", "loopback"]);
    lab.rn("cni install --dir /run/lab/cni --aliases --force").ok();
    // An older one, or a copy, is replaced; a runtime that copies files elsewhere is served as well.
    fs::copy(format!("{DIR}/rnet"), format!("{DIR}/copy")).expect(DIR);
    fs::rename(format!("{DIR}/copy"), format!("{DIR}/loopback")).expect(DIR);
    lab.rn("cni install --dir /run/lab/cni --aliases").ok();
    for entry in fs::read_dir(DIR).expect(DIR).flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let about = Call::bare(lab, "", &json!({})).without("CNI_COMMAND").plugin(&name);
        if name != "rnet" {
            let line = format!("CNI {name} plugin v1.9.1+rnet.{}\n", env!("CARGO_PKG_VERSION"));
            let said = about.run().about();
            assert!(said.starts_with(&line), "{said}");
        }
        let version = Call::bare(lab, "VERSION", &json!({})).plugin(&name).ok();
        assert_eq!(version["supportedVersions"].as_array().map(Vec::len), Some(7), "{name}");
    }
    assert!(!Path::new(DIR).join("dnsname").exists(), "podman takes that name for a promise to serve names");
}

fn loopback_brings_lo_up(lab: &Lab) {
    lab.rn("cni install --dir /run/lab/cni --aliases").ok();
    let web = lab.namespace("web");
    let config = json!({ "cniVersion": "0.4.0", "name": "cni-loopback", "type": "loopback" });
    let call = |verb: &str, config: &Value| {
        Call::new(lab, verb, &web, config).with("CNI_IFNAME", "lo").plugin("loopback")
    };
    call("CHECK", &config).refused(102, &["lo is down"]);
    let result = call("ADD", &config).ok();
    assert_eq!(
        result,
        json!({
            "cniVersion": "0.4.0",
            "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/web" }],
            "ips": [
                { "version": "4", "interface": 0, "address": "127.0.0.1/8" },
                { "version": "6", "interface": 0, "address": "::1/128" },
            ],
            "dns": {},
        })
    );
    assert!(web.is_up("lo"));
    call("CHECK", &config).ok();
    let mut chained = config.clone();
    chained["prevResult"] =
        json!({ "cniVersion": "0.4.0", "interfaces": [{ "name": "x", "pciID": "kept" }], "dns": {} });
    assert_eq!(call("ADD", &chained).ok(), chained["prevResult"]);
    call("ADD", &config).with("CNI_NETNS", "/proc/self/ns/net").refused(8, &["host's own"]);
    call("DEL", &config).with("CNI_NETNS", "").ok();
}

fn a_network_is_exported_for_runtimes(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 --cni=/run/lab/net.d blue").ok();
    let text = fs::read_to_string("/run/lab/net.d/blue.conflist").expect("the list");
    lab.rn("cni export blue").ok().prints(&text);
    lab.rn("cni lint /run/lab/net.d/blue.conflist").ok().prints("");
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut config = list["plugins"][0].clone();
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersions"][2].clone();
    let web = lab.namespace("web");
    Call::new(lab, "ADD", &web, &config).ok();
    assert_eq!(lab.endpoint("blue", "cni:web")["Owner"], "cni:blue");
    Call::new(lab, "DEL", &web, &config).ok();
    lab.rn("cni export --dir=/run/lab/net.d blue").ok().prints("/run/lab/net.d/blue.conflist\n");
    fs::write("/run/lab/net.d/red.conflist", "{}").expect("a file");
    lab.rn("network create --cni=/run/lab/net.d red").refused(&["/run/lab/net.d/red.conflist", "not rnet's"]);
    lab.rn("network inspect red").failed_after_output(&["red"]);
    lab.rn("network create --cni=/proc/nowhere green").refused(&["/proc/nowhere"]);
    lab.rn("network inspect green").failed_after_output(&["green"]);
    let files: Vec<_> =
        fs::read_dir("/run/lab/net.d").expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    lab.rn("network rm blue").ok();
}

fn lint_names_what_is_misspelt(lab: &Lab) {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cni");
    for entry in fs::read_dir(examples).expect("examples").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "conflist") {
            lab.rnet(&["cni", "lint", &path.to_string_lossy()]).ok().prints("");
        }
    }
    let lint = |value: Value| {
        fs::write("/run/lab/x.conflist", value.to_string()).expect("a file");
        lab.rn("cni lint /run/lab/x.conflist").exits(1).stdout().to_owned()
    };
    let said = lint(json!({
        "cniVersion": "1.2.0", "name": "../x", "plugin": [],
        "plugins": [
            { "type": "rnet", "subnett": "10.0.0.0/24", "CAPABILITIES": { "portMapings": true } },
            { "type": "bridge", "isGatewy": true, "ipam": { "type": "host-local", "rangeStrt": "10.0.0.1", "zebra": 1 } },
            { "type": "foreign", "whatever": 1 },
            { "typ": "rnet" },
        ],
    }));
    assert_eq!(
        said.replace("/run/lab/x.conflist: ", ""),
        "invalid network name \"../x\": it must begin with a letter or a digit\n\
         there is no version \"1.2.0\" of CNI\n\
         it: unknown key \"plugin\"; the nearest known one is \"plugins\"\n\
         plugins[0] (rnet): unknown key \"subnett\"; the nearest known one is \"subnet\"\n\
         plugins[0] (rnet): capabilities: unknown key \"portMapings\"; the nearest known one is \"portMappings\"\n\
         plugins[1] (bridge): unknown key \"isGatewy\"; the nearest known one is \"isGateway\"\n\
         plugins[1] (bridge): ipam (host-local): unknown key \"rangeStrt\"; the nearest known one is \"rangeStart\"\n\
         plugins[1] (bridge): ipam (host-local): unknown key \"zebra\"\n\
         plugins[3] has no type\n"
    );
    fs::write("/run/lab/x.conflist", "{").expect("a file");
    lab.rn("cni lint /run/lab/x.conflist").exits(1).mentions("no JSON");
    lab.rn("cni lint /run/lab/nowhere").refused(&["/run/lab/nowhere"]);
}
