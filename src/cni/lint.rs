//! Finds what is wrong with a configuration file before a runtime reads it: the protocol lets misspelt keys pass in
//! silence. Changes nothing.

use std::{io::Read, path::Path};

use rnetkit_drivers::{Name, options::nearest_of};
use serde_json::{Map, Value};

use super::{json::get, version::Version};
use crate::error::{Error, shown};

/// The keys of a list.
const LIST: [&str; 7] =
    ["cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"];
/// The keys that every plugin may have.
const ALL: [&str; 10] = [
    "cniVersion",
    "name",
    "type",
    "ipam",
    "dns",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "disableCheck",
];
/// Capabilities that some runtime sends.
const CAPABILITIES: [&str; 11] = [
    "portMappings",
    "ipRanges",
    "ips",
    "mac",
    "bandwidth",
    "dns",
    "deviceID",
    "infinibandGUID",
    "aliases",
    "cgroupPath",
    "io.kubernetes.cri.pod-annotations",
];

/// The keys of each plugin that rnet can be.
const PLUGINS: [(&str, &[&str]); 13] = [
    (
        "rnet",
        &[
            "network",
            "driver",
            "subnet",
            "subnets",
            "gateway",
            "gateways",
            "ipRange",
            "ipRanges",
            "auxAddresses",
            "ipv4",
            "ipv6",
            "internal",
            "options",
            "labels",
            "mtu",
        ],
    ),
    (
        "bridge",
        &[
            "bridge",
            "isGateway",
            "isDefaultGateway",
            "forceAddress",
            "ipMasq",
            "ipMasqBackend",
            "mtu",
            "hairpinMode",
            "promiscMode",
            "vlan",
            "vlanTrunk",
            "preserveDefaultVlan",
            "macspoofchk",
            "enabledad",
            "disableContainerInterface",
            "portIsolation",
        ],
    ),
    ("ptp", &["ipMasq", "ipMasqBackend", "mtu"]),
    ("macvlan", &["master", "mode", "mtu", "mac", "linkInContainer", "bcqueuelen"]),
    ("ipvlan", &["master", "mode", "mtu", "linkInContainer"]),
    ("loopback", &[]),
    (
        "portmap",
        &[
            "backend",
            "snat",
            "masqAll",
            "markMasqBit",
            "externalSetMarkChain",
            "conditionsV4",
            "conditionsV6",
        ],
    ),
    ("firewall", &["backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"]),
    ("bandwidth", &["ingressRate", "ingressBurst", "egressRate", "egressBurst"]),
    ("tuning", &["sysctl", "mac", "promisc", "mtu", "txQLen", "allmulti", "dataDir"]),
    (
        "host-local",
        &["subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "dataDir", "resolvConf"],
    ),
    ("static", &["addresses", "routes", "dns"]),
    ("dhcp", &["daemonSocketPath", "provide", "request", "priority"]),
];

/// What is wrong with the file, a line for each thing; none where all is well.
///
/// # Errors
/// When the file cannot be read.
pub fn lint(path: &Path) -> Result<Vec<String>, Error> {
    const LONGEST: u64 = 1024 * 1024;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Error::store(path, error))?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| Error::store(path, error))?;
    let mut findings = Vec::new();
    match serde_json::from_slice::<Value>(&bytes) {
        _ if bytes.len() as u64 > LONGEST => findings.push(format!("it has more than {LONGEST} bytes")),
        Ok(Value::Object(map)) => findings = whole(&map),
        Ok(_) => findings.push("it is no JSON object".to_owned()),
        Err(error) => findings.push(format!("it is no JSON: {error}")),
    }
    Ok(findings.into_iter().map(|finding| format!("{}: {finding}", path.display())).collect())
}

fn whole(map: &Map<String, Value>) -> Vec<String> {
    let mut findings = Vec::new();
    let text = |key: &str| get(map, key).and_then(Value::as_str);
    match text("name").map(|name| Name::parse("network name", name)) {
        None => findings.push("it has no name".to_owned()),
        Some(Err(error)) => findings.push(error.to_string()),
        Some(Ok(_)) => {}
    }
    let versions = get(map, "cniVersions").and_then(Value::as_array).cloned().unwrap_or_default();
    let versions = versions.iter().filter_map(Value::as_str);
    for version in text("cniVersion").into_iter().chain(versions) {
        if version.parse::<Version>().is_err() {
            findings.push(format!("there is no version \"{}\" of CNI", shown(version)));
        }
    }
    let Some(list) = get(map, "plugins") else {
        findings.extend(plugin("it", map));
        return findings;
    };
    findings.extend(unknown("it", map, &[&LIST]));
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        findings.push("it has no plugins".to_owned());
    }
    for (number, one) in list.iter().enumerate() {
        let name = format!("plugins[{number}]");
        match one.as_object() {
            Some(map) => findings.extend(plugin(&name, map)),
            None => findings.push(format!("{name} is no object")),
        }
    }
    findings
}

fn plugin(name: &str, map: &Map<String, Value>) -> Vec<String> {
    let Some(kind) = get(map, "type").and_then(Value::as_str) else {
        return vec![format!("{name} has no type")];
    };
    if let Err(error) = Name::parse("type", kind) {
        return vec![format!("{name}: {error}")];
    }
    let name = format!("{name} ({kind})");
    let mut findings = Vec::new();
    if let Some(keys) = keys_of(kind) {
        findings.extend(unknown(&name, map, &[&ALL, keys]));
    }
    if let Some(ipam) = get(map, "ipam").and_then(Value::as_object) {
        let kind = get(ipam, "type").and_then(Value::as_str).unwrap_or_default();
        if let Some(keys) = keys_of(kind) {
            findings.extend(unknown(&format!("{name}: ipam ({kind})"), ipam, &[&["type", "name"], keys]));
        }
    }
    if let Some(map) = get(map, "capabilities").and_then(Value::as_object) {
        findings.extend(unknown(&format!("{name}: capabilities"), map, &[&CAPABILITIES]));
    }
    findings
}

fn keys_of(kind: &str) -> Option<&'static [&'static str]> {
    PLUGINS.iter().find(|(name, _)| *name == kind).map(|(_, keys)| *keys)
}

fn unknown(name: &str, map: &Map<String, Value>, known: &[&[&'static str]]) -> Vec<String> {
    let known: Vec<&'static str> = known.iter().flat_map(|keys| keys.iter().copied()).collect();
    let is_unknown = |key: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(key));
    let finding = |key: &String| {
        let near = nearest_of(key, known.iter().copied());
        let near = near.map(|near| format!("; the nearest known one is \"{near}\"")).unwrap_or_default();
        format!("{name}: unknown key \"{}\"{near}", shown(key))
    };
    map.keys().filter(is_unknown).map(finding).collect()
}
