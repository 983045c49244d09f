//! An audit of a host by `ip`, `nft` and the files alone: links, addresses, elements of the firewall and records are in
//! one-to-one agreement. Asks nothing of rnet, and shares none of its code: what a record stands for is worked out here
//! a second time. Of networks it knows bridges with one IPv4 subnet and everything at its default.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use nftables::expr::{Expression, NamedExpression, Prefix};
use serde_json::Value;

use crate::lab::{Lab, Place};

/// What a set holds, as `nft` writes it.
type Sets = BTreeMap<String, BTreeSet<String>>;

/// Panics where anything on the host and a record do not stand for each other.
#[track_caller]
pub fn agrees(lab: &Lab) {
    let records = Records::read();
    records.are_tidy();
    assert_eq!(links(lab), records.links(), "links of rnet on the host, and those on record");
    assert_eq!(elements(lab), records.elements(), "elements of rnet's sets, and those on record");
    records.addresses(lab);
}

/// What is recorded as made.
struct Records {
    networks: Vec<Value>,
    endpoints: Vec<Value>,
}

impl Records {
    fn read() -> Self {
        let folders = files(Path::new("/run/rnet/networks"));
        let read = |folder: &Path| {
            let all = files(folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
            all.map(|path| parsed(&path)).collect::<Vec<_>>()
        };
        let networks = folders.iter().map(|folder| folder.join("state.json")).filter(|path| path.exists());
        Self {
            networks: networks.map(|path| parsed(&path)).collect(),
            endpoints: folders.iter().flat_map(|folder| read(&folder.join("endpoints"))).collect(),
        }
    }

    /// Nothing is half done: no network and no endpoint is pending, and no temporary or damaged file lies about.
    fn are_tidy(&self) {
        for network in &self.networks {
            assert_eq!(network["pending"], false, "a network that is half made: {network}");
        }
        let all = walk(Path::new("/run/rnet")).into_iter().chain(walk(Path::new("/var/lib/rnet")));
        let untidy = |path: &PathBuf| {
            let text = path.display().to_string();
            text.contains("/pending/") || text.ends_with(".new") || text.ends_with(".damaged")
        };
        assert_eq!(all.filter(untidy).collect::<Vec<_>>(), [] as [PathBuf; 0], "files of half-done work");
    }

    fn bridge_of(&self, endpoint: &Value) -> String {
        let id = &endpoint["endpoint"]["network"];
        let network = self.networks.iter().find(|state| state["network"]["id"] == *id);
        bridge(network.unwrap_or_else(|| panic!("an endpoint of no network: {endpoint}")))
    }

    /// Each link's name, what it is a port of, and that it is up.
    fn links(&self) -> BTreeSet<String> {
        let bridges = self.networks.iter().map(|state| format!("{} up", bridge(state)));
        let ports =
            self.endpoints.iter().map(|state| format!("{} on {} up", port(state), self.bridge_of(state)));
        bridges.chain(ports).collect()
    }

    fn elements(&self) -> Sets {
        let mut sets = Sets::new();
        let mut put = |set: &str, element: String| {
            assert!(sets.entry(set.to_owned()).or_default().insert(element), "twice in {set}");
        };
        for network in &self.networks {
            let link = bridge(network);
            let pool = &network["network"]["pools"][0];
            let (subnet, gateway) = (text(&pool["subnet"]), text(&pool["gateway"]));
            put("bridges", link.clone());
            put("talking", format!("{link} . {link}"));
            put("masquerade4", link.clone());
            // Containers are found by name on every network but the one that is always there.
            if network["network"]["name"] != "bridge" {
                put("named", link.clone());
            }
            put("within4", format!("{subnet} . {subnet}"));
            put("gateways4", gateway.clone());
            put("home4", format!("{link} . {gateway}"));
        }
        if !self.networks.is_empty() {
            put("guarded", "ipv4".to_owned());
        }
        for state in &self.endpoints {
            let (link, endpoint) = (port(state), &state["endpoint"]);
            let address = address(endpoint);
            put("ports", link.clone());
            put("port_mac", format!("{link} . {}", text(&endpoint["mac"])));
            put("port_ip4", format!("{link} . {address}"));
            for published in endpoint["ports"].as_array().into_iter().flatten() {
                let (protocol, gateway) = (text(&published["protocol"]), text(&published["gateway"]));
                let (host, target) = (first(&published["host_ports"]), first(&published["target_ports"]));
                let asked = format!("127.0.0.1 . {host} . {protocol}");
                put("publish4_any", format!("{protocol} . {host} : {address} . {target}"));
                put("gateway4", format!("{asked} : {gateway}"));
                put("container4", format!("{asked} : {address}"));
                put("port4", format!("{asked} : {target}"));
                put("loopback4", format!("{address} . {host} . {protocol} : 127.0.0.1"));
            }
        }
        sets
    }

    /// Bridges have their gateways' addresses, containers theirs, and no address is given twice.
    fn addresses(&self, lab: &Lab) {
        for network in &self.networks {
            let pool = &network["network"]["pools"][0];
            let length = text(&pool["subnet"]).split('/').nth(1).unwrap_or_default().to_owned();
            let wanted = format!("{}/{length}", text(&pool["gateway"]));
            assert_eq!(lab.host.addresses(&bridge(network)), [wanted], "address of a bridge");
        }
        let mut given = BTreeSet::new();
        for state in &self.endpoints {
            let endpoint = &state["endpoint"];
            let container = &endpoint["container"];
            let place = Place::new(&text(&container["name"]), text(&container["netns"]));
            let wanted = text(&endpoint["addresses"][0]);
            assert_eq!(
                place.addresses(&text(&endpoint["interface"])),
                std::slice::from_ref(&wanted),
                "of {container}"
            );
            assert!(given.insert(wanted), "an address is given twice: {endpoint}");
        }
    }
}

/// The links with rnet's mark: an alias that begins so, or a group of rnet's.
fn links(lab: &Lab) -> BTreeSet<String> {
    const GROUPS: u64 = 0x726e;
    let shown = lab.host.ip("-d link");
    let all: Vec<Value> = shown.as_array().cloned().unwrap_or_default();
    let group = |link: &Value| {
        let number = link["group"].as_u64().or_else(|| text(&link["group"]).parse().ok());
        number.is_some_and(|number| number >> 16 == GROUPS)
    };
    let ours = all.into_iter().filter(|link| text(&link["ifalias"]).starts_with("rnet:") || group(link));
    let line = |link: Value| {
        let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        let master = link["master"].as_str().map(|master| format!(" on {master}")).unwrap_or_default();
        format!("{}{master} {}", text(&link["ifname"]), if up { "up" } else { "down" })
    };
    ours.map(line).collect()
}

/// The elements of every set of rnet's tables, as `nft` lists them; flows that come and go left out.
fn elements(lab: &Lab) -> Sets {
    let mut sets = Sets::new();
    for kind in ["set", "map"] {
        let listed = lab.sh(&format!("nft -j -s list {kind}s")).ok().json();
        let ours = listed["nftables"].as_array().into_iter().flatten().map(|object| &object[kind]);
        for set in ours.filter(|set| set["table"] == "rnet") {
            let name = text(&set["name"]);
            if let Some(elements) = set.get("elem").filter(|_| !name.starts_with("flows")) {
                let elements: Vec<Expression<'_>> = serde_json::from_value(elements.clone())
                    .unwrap_or_else(|error| panic!("{name}: {error}: {elements}"));
                sets.insert(name, elements.iter().map(written).collect());
            }
        }
    }
    sets
}

/// An element as it stands in a ruleset, without quotes.
fn written(element: &Expression<'_>) -> String {
    let all =
        |list: &[Expression<'_>], between: &str| list.iter().map(written).collect::<Vec<_>>().join(between);
    match element {
        Expression::String(text) => text.to_string(),
        Expression::Number(number) => number.to_string(),
        // The key of a map, and what it stands for.
        Expression::List(pair) => all(pair, " : "),
        Expression::Named(NamedExpression::Concat(parts)) => all(parts, " . "),
        Expression::Named(NamedExpression::Prefix(Prefix { addr, len })) => {
            format!("{}/{len}", written(addr))
        }
        other => panic!("an element of a kind that rnet makes none of: {other:?}"),
    }
}

fn parsed(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The name of the link of this kind that was made.
fn made(state: &Value, kind: &str) -> String {
    let made = state["made"].as_array().into_iter().flatten();
    let link = made.into_iter().find(|resource| resource["kind"] == kind);
    text(&link.unwrap_or_else(|| panic!("no {kind} in {state}"))["name"])
}

fn bridge(state: &Value) -> String {
    made(state, "bridge")
}

fn port(state: &Value) -> String {
    made(state, "veth")
}

fn address(endpoint: &Value) -> String {
    text(&endpoint["addresses"][0]).split('/').next().unwrap_or_default().to_owned()
}

fn first(ports: &Value) -> String {
    text(ports).split('-').next().unwrap_or_default().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut list: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    list.sort();
    list
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let inner = |path: PathBuf| if path.is_dir() { walk(&path) } else { vec![path] };
    files(folder).into_iter().flat_map(inner).collect()
}
