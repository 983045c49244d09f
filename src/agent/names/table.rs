//! Who is called what, on which network. Pure: filled from records, asked by address and name.

use std::{cell::Cell, collections::HashMap, net::IpAddr};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Id, Names, Network};
use serde::Deserialize;

/// The names of the host itself, in every network that has names.
pub const HOST_NAMES: [&str; 2] = ["host.rnet.internal", "host-gateway"];

/// What of an endpoint's record is of interest here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// The key of its container.
    pub key: String,
    /// The endpoint itself.
    pub endpoint: Described,
}

/// An endpoint, as far as it has to do with names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Described {
    /// Whose it is.
    pub container: Called,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// Its other names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The name servers that its container was given.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Called {
    /// Its id.
    pub id: Id,
    /// Its name, or the path or pid by which it was connected.
    pub name: String,
}

/// All networks of this host.
#[derive(Debug, Default)]
pub struct Table {
    nets: HashMap<Id, Net>,
    /// The networks of each container, by its key.
    of_container: HashMap<Box<str>, Vec<Id>>,
}

/// One network.
#[derive(Debug)]
struct Net {
    name: Box<str>,
    internal: bool,
    subnets: Vec<IpNetwork>,
    names: Option<Names>,
    members: HashMap<Box<str>, Member>,
    by_address: HashMap<IpAddr, Box<str>>,
    by_name: HashMap<Box<str>, Vec<IpAddr>>,
    turn: Cell<usize>,
}

#[derive(Debug)]
struct Member {
    names: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
    servers: Vec<IpAddr>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It has these addresses, of both families, in the order in which to give them.
    Addresses(Vec<IpAddr>),
    /// It is another's to say: of the host's resolvers, or of these.
    Elsewhere(Vec<IpAddr>),
    /// Nobody is called so, and nobody else is asked.
    Nobody,
}

/// Somebody who may ask: an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    table: &'a Table,
    net: &'a Net,
    member: &'a Member,
    networks: &'a [Id],
}

impl Table {
    /// A network that was made, without its endpoints; what was known of it is forgotten.
    pub fn set_network(&mut self, network: &Network) {
        self.remove_network(&network.id);
        let names = rnetkit_drivers::driver(&network.driver).and_then(|driver| driver.names(network).ok());
        let net = Net {
            name: network.name.as_str().to_ascii_lowercase().into(),
            internal: network.internal,
            subnets: network.pools.iter().map(|pool| pool.subnet).collect(),
            names: names.flatten(),
            members: HashMap::new(),
            by_address: HashMap::new(),
            by_name: HashMap::new(),
            turn: Cell::new(0),
        };
        self.nets.insert(network.id, net);
    }

    /// A network that is gone.
    pub fn remove_network(&mut self, id: &Id) {
        let Some(net) = self.nets.remove(id) else { return };
        net.members.keys().for_each(|key| self.leave(key, id));
    }

    /// Whether the network is known.
    #[must_use]
    pub fn has(&self, id: &Id) -> bool {
        self.nets.contains_key(id)
    }

    /// An endpoint that came, or is another than before.
    pub fn set_endpoint(&mut self, network: &Id, record: &Record) {
        self.remove_endpoint(network, &record.key);
        let Some(net) = self.nets.get_mut(network) else { return };
        net.add(record);
        self.of_container.entry(record.key.as_str().into()).or_default().push(*network);
    }

    /// An endpoint that is gone.
    pub fn remove_endpoint(&mut self, network: &Id, key: &str) {
        if self.nets.get_mut(network).is_some_and(|net| net.remove(key)) {
            self.leave(key, network);
        }
    }

    fn leave(&mut self, key: &str, network: &Id) {
        let Some(networks) = self.of_container.get_mut(key) else { return };
        networks.retain(|other| other != network);
        if networks.is_empty() {
            self.of_container.remove(key);
        }
    }

    /// Where each network is asked.
    pub fn places(&self) -> impl Iterator<Item = (Id, &Names)> {
        self.nets.iter().filter_map(|(id, net)| Some((*id, net.names.as_ref()?)))
    }

    /// The endpoint of a network that has that address: nobody else may ask there.
    #[must_use]
    pub fn asker(&self, network: &Id, address: IpAddr) -> Option<Asker<'_>> {
        let net = self.nets.get(network)?;
        let (key, member) = net.members.get_key_value(net.by_address.get(&address)?)?;
        Some(Asker { table: self, net, member, networks: self.of_container.get(key)? })
    }

    /// How many networks and endpoints there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.nets.len(), self.nets.values().map(|net| net.members.len()).sum())
    }
}

impl Net {
    fn add(&mut self, record: &Record) {
        let member = Member {
            names: names_of(&record.endpoint),
            addresses: record.endpoint.addresses.iter().map(IpNetwork::ip).collect(),
            servers: record.endpoint.dns.clone(),
        };
        for address in &member.addresses {
            self.by_address.insert(*address, record.key.as_str().into());
            for name in &member.names {
                self.by_name.entry(name.clone()).or_default().push(*address);
            }
        }
        self.members.insert(record.key.as_str().into(), member);
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some(member) = self.members.remove(key) else { return false };
        self.by_address.retain(|_, owner| &**owner != key);
        for name in &member.names {
            let Some(addresses) = self.by_name.get_mut(name) else { continue };
            addresses.retain(|address| !member.addresses.contains(address));
            if addresses.is_empty() {
                self.by_name.remove(name);
            }
        }
        true
    }

    /// Everyone's turn to be the first comes.
    fn in_turn(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let at = turn % addresses.len().max(1);
        [&addresses[at..], &addresses[..at]].concat()
    }
}

/// The container's name and aliases, as far as they are names, and the twelve digits of its id.
fn names_of(endpoint: &Described) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    let id = endpoint.container.id.short();
    for name in [&endpoint.container.name, &id].into_iter().chain(&endpoint.aliases) {
        let name = name.to_ascii_lowercase().into_boxed_str();
        if is_name(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether a text can be asked for: labels of 1 to 63 bytes, 253 in all (RFC 1035, 2.3.4).
fn is_name(name: &str) -> bool {
    let fits = |label: &str| (1..=63).contains(&label.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.len() <= 253 && name.bytes().all(plain) && name.split('.').all(fits)
}

impl Asker<'_> {
    /// Whose a name is, in small letters and without a dot at its end. The network that is asked comes first.
    #[must_use]
    pub fn look_up(&self, name: &str) -> Known {
        if let Some(addresses) = self.find(name) {
            return Known::Addresses(addresses);
        }
        if is_name(name) && is_ours(name) { Known::Nobody } else { self.elsewhere() }
    }

    fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        if HOST_NAMES.contains(&name) {
            return self.net.names.as_ref().map(|names| names.servers.clone());
        }
        let plain = self.nets().find_map(|net| Some(net.in_turn(net.by_name.get(name)?)));
        plain.or_else(|| {
            let (name, network) = name.rsplit_once('.')?;
            let net = self.nets().find(|net| &*net.name == network)?;
            Some(net.in_turn(net.by_name.get(name)?))
        })
    }

    /// The name that belongs to an address: of a container, or of the host.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<String> {
        let container = |net: &Net| {
            let name = net.members.get(net.by_address.get(&address)?)?.names.first()?;
            Some(format!("{name}.{}", net.name))
        };
        let host = |net: &Net| {
            let servers = &net.names.as_ref()?.servers;
            servers.contains(&address).then(|| HOST_NAMES[0].to_owned())
        };
        self.nets().find_map(|net| container(net).or_else(|| host(net)))
    }

    /// Whose a name is that nobody of the asker's networks has. Addresses of its networks are nobody else's to name.
    #[must_use]
    pub fn of_address(&self, address: IpAddr) -> Known {
        let own = self.nets().any(|net| net.subnets.iter().any(|subnet| subnet.contains(address)));
        if own { Known::Nobody } else { self.elsewhere() }
    }

    /// Who is in internal networks only has nobody else to ask.
    #[must_use]
    pub fn elsewhere(&self) -> Known {
        if self.all().all(|net| net.internal) {
            return Known::Nobody;
        }
        Known::Elsewhere(self.member.servers.clone())
    }

    /// The asker's networks that have names, the one that is asked first.
    fn nets(&self) -> impl Iterator<Item = &Net> {
        let others = self.all().filter(|net| !std::ptr::eq(*net, self.net) && net.names.is_some());
        std::iter::once(self.net).chain(others)
    }

    fn all(&self) -> impl Iterator<Item = &Net> {
        self.networks.iter().filter_map(|id| self.table.nets.get(id))
    }
}

/// Names below `rnet.internal` are nobody else's.
fn is_ours(name: &str) -> bool {
    name == "rnet.internal" || name.ends_with(".rnet.internal")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// A network called `name`, on 10.0.`number`.0/24 and fd00:`number`::/64.
    pub fn network(number: u8, name: &str, options: &[(&str, &str)]) -> Network {
        let options: serde_json::Map<String, serde_json::Value> =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let value = serde_json::json!({
            "id": Id([number; 32]), "name": name, "driver": "bridge", "created": 0, "ipam_driver": "default",
            "group": 0, "internal": options.contains_key("internal"),
            "options": options.iter().filter(|(key, _)| *key != "internal").collect::<std::collections::BTreeMap<_, _>>(),
            "pools": [
                {"subnet": format!("10.0.{number}.0/24"), "gateway": format!("10.0.{number}.1")},
                {"subnet": format!("fd00:{number}::/64"), "gateway": format!("fd00:{number}::1")},
            ],
        });
        serde_json::from_value(value).unwrap()
    }

    /// An endpoint on the network of that number, with the address that ends so.
    pub fn endpoint(network: u8, last: u8, name: &str, aliases: &[&str]) -> Record {
        Record {
            key: name.to_owned(),
            endpoint: Described {
                container: Called { id: Id([last; 32]), name: name.to_owned() },
                addresses: vec![
                    format!("10.0.{network}.{last}/24").parse().unwrap(),
                    format!("fd00:{network}::{last}/64").parse().unwrap(),
                ],
                aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
                dns: Vec::new(),
            },
        }
    }

    /// web (.2) on blue (1) and red (2); db (.3, .4 as `db` alias) on blue; far (.5) on red; alone (.6) on inner (3),
    /// which is internal.
    pub fn table() -> Table {
        let mut table = Table::default();
        table.set_network(&network(1, "blue", &[]));
        table.set_network(&network(2, "red", &[]));
        table.set_network(&network(3, "inner", &[("internal", "true")]));
        for (net, last, name, aliases) in [
            (1, 2, "web", &["www"][..]),
            (2, 2, "web", &[]),
            (1, 3, "db1", &["DB"]),
            (1, 4, "db2", &["db"]),
            (2, 5, "far", &[]),
            (3, 6, "alone", &[]),
        ] {
            table.set_endpoint(&Id([net; 32]), &endpoint(net, last, name, aliases));
        }
        table
    }

    fn ask(table: &Table, net: u8, last: u8, name: &str) -> Known {
        table.asker(&Id([net; 32]), [10, 0, net, last].into()).unwrap().look_up(name)
    }

    fn four(known: Known) -> Vec<String> {
        match known {
            Known::Addresses(list) => {
                list.into_iter().filter(IpAddr::is_ipv4).map(|address| address.to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_aliases_and_short_ids_are_found_on_the_askers_networks() {
        let table = table();
        for name in ["web", "www", "020202020202", "web.blue", "www.blue"] {
            assert_eq!(four(ask(&table, 1, 3, name)), ["10.0.1.2"], "{name}");
        }
        assert_eq!(four(ask(&table, 1, 3, "host.rnet.internal")), ["10.0.1.1"]);
        assert_eq!(four(ask(&table, 2, 5, "host-gateway")), ["10.0.2.1"]);
        assert_eq!(four(ask(&table, 2, 5, "web")), ["10.0.2.2"]);
    }

    #[test]
    fn who_is_on_two_networks_finds_the_names_of_both_and_the_asked_one_first() {
        let table = table();
        assert_eq!(four(ask(&table, 1, 2, "far")), ["10.0.2.5"]);
        assert_eq!(four(ask(&table, 1, 2, "web")), ["10.0.1.2"]);
        assert_eq!(four(ask(&table, 2, 2, "web")), ["10.0.2.2"]);
        assert_eq!(four(ask(&table, 2, 2, "web.blue")), ["10.0.1.2"]);
    }

    #[test]
    fn names_of_other_networks_are_unknown() {
        let table = table();
        assert_eq!(ask(&table, 1, 3, "far"), Known::Elsewhere(Vec::new()));
        assert_eq!(ask(&table, 1, 3, "far.red"), Known::Elsewhere(Vec::new()));
        assert_eq!(ask(&table, 3, 6, "web"), Known::Nobody);
    }

    #[test]
    fn only_endpoints_of_the_network_ask() {
        let table = table();
        assert!(table.asker(&Id([1; 32]), [10, 0, 1, 9].into()).is_none());
        assert!(table.asker(&Id([1; 32]), [10, 0, 2, 5].into()).is_none());
        assert!(table.asker(&Id([9; 32]), [10, 0, 1, 2].into()).is_none());
    }

    #[test]
    fn several_under_one_alias_come_in_turn() {
        let table = table();
        let firsts: Vec<String> = (0..4).map(|_| four(ask(&table, 1, 2, "db"))[0].clone()).collect();
        let mut distinct = firsts.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct, ["10.0.1.3", "10.0.1.4"], "{firsts:?}");
        assert_eq!(four(ask(&table, 1, 2, "db")).len(), 2);
    }

    #[test]
    fn nobody_beyond_is_asked_from_an_internal_network_alone() {
        let mut table = table();
        assert_eq!(ask(&table, 3, 6, "example.org"), Known::Nobody);
        table.set_endpoint(&Id([2; 32]), &endpoint(2, 6, "alone", &[]));
        assert_eq!(ask(&table, 3, 6, "example.org"), Known::Elsewhere(Vec::new()));
    }

    #[test]
    fn what_goes_is_forgotten() {
        let mut table = table();
        table.remove_endpoint(&Id([1; 32]), "db1");
        assert_eq!(four(ask(&table, 1, 2, "db")), ["10.0.1.4"]);
        table.remove_endpoint(&Id([1; 32]), "db2");
        assert_eq!(ask(&table, 1, 2, "db"), Known::Elsewhere(Vec::new()));
        table.remove_network(&Id([2; 32]));
        assert_eq!(ask(&table, 1, 2, "far"), Known::Elsewhere(Vec::new()));
        assert_eq!(table.counts(), (2, 2));
        table.remove_network(&Id([1; 32]));
        table.remove_network(&Id([3; 32]));
        assert!(table.of_container.is_empty());
    }

    #[test]
    fn the_default_network_has_no_names() {
        let mut table = table();
        table.set_network(&network(4, "bridge", &[]));
        table.set_network(&network(5, "quiet", &[("dns", "false")]));
        let mut places: Vec<String> = table.places().map(|(_, names)| names.servers[0].to_string()).collect();
        places.sort();
        assert_eq!(places, ["10.0.1.1", "10.0.2.1", "10.0.3.1"]);
    }

    #[test]
    fn a_text_that_cannot_be_asked_for_is_no_name() {
        let long = "x".repeat(64);
        for text in ["", "a b", "a\nb", "a,b", "/proc/1/ns/net", "pid:4", &long, "a..b", ".a", "ä"] {
            assert!(!is_name(text), "{text:?}");
        }
        let mut table = table();
        let mut record = endpoint(1, 9, "/proc/1/ns/net", &["fine"]);
        record.key = "x".into();
        table.set_endpoint(&Id([1; 32]), &record);
        assert_eq!(four(ask(&table, 1, 2, "fine")), ["10.0.1.9"]);
    }
}
