//! rnet under the names of other plugins: how it gets them, and what it is under each.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{cni_plugin::Call, harness::tests, lab::Lab};

tests! {
    the_plugin_is_installed_by_its_names_and_no_foreign_file_is_touched,
    loopback_brings_lo_up,
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
