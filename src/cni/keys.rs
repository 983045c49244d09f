//! The keys that configurations may have, plugin by plugin. Written here once: what reads them and what looks for
//! misspelt ones have the same list.

/// The keys of a list.
pub(super) const LIST: [&str; 7] =
    ["cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"];

/// The keys that every plugin may have.
pub(super) const EVERY: [&str; 10] = [
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
pub(super) const CAPABILITIES: [&str; 11] = [
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

/// Those of them that type `rnet` acts upon.
pub(super) const ACTED_UPON: [&str; 8] =
    ["portMappings", "ips", "mac", "bandwidth", "ipRanges", "aliases", "dns", "deviceID"];

/// Of type `rnet`: what makes a network of its own.
pub(super) const NETWORK: [&str; 15] = [
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
    "policy",
];

/// What changes an interface and its namespace, of type `rnet` and of `tuning`.
const TUNED: [&str; 5] = ["sysctl", "mac", "promisc", "txQLen", "allmulti"];
/// Limits, of type `rnet` and of `bandwidth`.
const LIMITS: [&str; 6] =
    ["ingressRate", "ingressBurst", "egressRate", "egressBurst", "shapedSubnets", "unshapedSubnets"];
const SHARED: [&str; 4] = ["master", "mode", "mtu", "linkInContainer"];

/// The keys of a plugin that rnet can be or call, beside those that all have.
pub(super) fn of(kind: &str) -> Option<Vec<&'static str>> {
    Some(match kind {
        "rnet" => [&["network"][..], &NETWORK, &TUNED, &LIMITS].concat(),
        "bridge" => vec![
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
        "ptp" => vec!["ipMasq", "ipMasqBackend", "mtu"],
        "macvlan" => [&SHARED[..], &["mac", "bcqueuelen"]].concat(),
        "ipvlan" => SHARED.to_vec(),
        "loopback" => Vec::new(),
        "portmap" => vec![
            "backend",
            "snat",
            "masqAll",
            "markMasqBit",
            "externalSetMarkChain",
            "conditionsV4",
            "conditionsV6",
        ],
        "firewall" => vec!["backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"],
        "bandwidth" => LIMITS.to_vec(),
        "tuning" => [&TUNED[..], &["mtu", "dataDir"]].concat(),
        "host-local" => {
            vec!["subnet", "rangeStart", "rangeEnd", "gateway", "ranges", "routes", "dataDir", "resolvConf"]
        }
        "static" => vec!["addresses", "routes", "dns"],
        "dhcp" => vec!["daemonSocketPath", "provide", "request", "priority"],
        _ => return None,
    })
}
