//! Who is called what, on which network. Pure: filled from records, asked by address and name.

use std::{cell::Cell, collections::HashMap, net::IpAddr, rc::Rc};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Id, Names, Network};
use serde::Deserialize;

use crate::{store::Far, verbs::check_alias};

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
    of_container: HashMap<Rc<str>, Vec<Id>>,
}

/// One network.
#[derive(Debug, Default)]
struct Net {
    name: Box<str>,
    internal: bool,
    subnets: Vec<IpNetwork>,
    names: Option<Names>,
    members: HashMap<Rc<str>, Member>,
    by_address: HashMap<IpAddr, Rc<str>>,
    by_name: HashMap<Rc<str>, Vec<IpAddr>>,
    /// How many there were when other hosts' members were set.
    far: usize,
    turn: Cell<usize>,
}

#[derive(Debug)]
struct Member {
    place: Place,
    names: Box<[Rc<str>]>,
    addresses: Box<[IpAddr]>,
    servers: Box<[IpAddr]>,
}

/// Where a member is: who is on another host is found here, and asks there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Far,
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
    /// A network that was made, or is another than before. Its endpoints stay.
    pub fn set_network(&mut self, network: &Network) {
        let names = rnetkit_drivers::driver(&network.driver).and_then(|driver| driver.names(network).ok());
        let net = self.nets.entry(network.id).or_default();
        net.name = network.name.as_str().to_ascii_lowercase().into();
        net.internal = network.internal;
        net.subnets = network.pools.iter().map(|pool| pool.subnet).collect();
        net.names = names.flatten();
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
        let endpoint = &record.endpoint;
        let container = &endpoint.container;
        let names = names_of(&container.name, Some(&container.id), &endpoint.aliases);
        let addresses = endpoint.addresses.iter().map(IpNetwork::ip).collect();
        let servers = endpoint.dns.as_slice().into();
        net.add(&record.key, Member { place: Place::Here, names, addresses, servers });
        self.of_container.entry(record.key.as_str().into()).or_default().push(*network);
    }

    /// An endpoint that is gone.
    pub fn remove_endpoint(&mut self, network: &Id, key: &str) {
        if self.nets.get_mut(network).is_some_and(|net| net.remove(key)) {
            self.leave(key, network);
        }
    }

    /// The endpoints on other hosts, all of them.
    pub fn set_far(&mut self, network: &Id, list: &[Far]) {
        let Some(net) = self.nets.get_mut(network) else { return };
        for number in 0..std::mem::take(&mut net.far) {
            net.remove(&far_key(number));
        }
        net.far = list.len();
        for (number, far) in list.iter().enumerate() {
            let names = names_of(&far.name, far.id.as_ref(), &far.aliases);
            let addresses = far.addresses.as_slice().into();
            net.add(
                &far_key(number),
                Member { place: Place::Far, names, addresses, servers: Box::default() },
            );
        }
    }

    /// All endpoints that were set one by one.
    pub fn remove_endpoints(&mut self, network: &Id) {
        let Some(net) = self.nets.get(network) else { return };
        let here = net.members.iter().filter(|(_, member)| member.place == Place::Here);
        let keys: Vec<Rc<str>> = here.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.remove_endpoint(network, key));
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
        if member.place == Place::Far {
            return None;
        }
        Some(Asker { table: self, net, member, networks: self.of_container.get(key)? })
    }

    /// How many networks and endpoints of this host there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let here = |net: &Net| net.members.values().filter(|member| member.place == Place::Here).count();
        (self.nets.len(), self.nets.values().map(here).sum())
    }
}

impl Net {
    /// An address is one member's: of two that say they have it, the one here has it, and else who came first.
    fn add(&mut self, key: &str, mut member: Member) {
        match member.place {
            Place::Far => {
                let free = |address: &&IpAddr| !self.by_address.contains_key(*address);
                member.addresses = member.addresses.iter().filter(free).copied().collect();
            }
            Place::Here => {
                let before = |address: &IpAddr| self.by_address.get(address).cloned();
                let far: Vec<Rc<str>> = member.addresses.iter().filter_map(before).collect();
                for key in far {
                    if self.is_far(&key) {
                        self.remove(&key);
                    }
                }
            }
        }
        // Each text is there once: names and keys of thousands are most of what this process has in memory.
        let key: Rc<str> = key.into();
        for address in &member.addresses {
            self.by_address.insert(*address, Rc::clone(&key));
            for name in &member.names {
                let addresses = self.by_name.entry(Rc::clone(name));
                addresses.or_insert_with(|| Vec::with_capacity(1)).push(*address);
            }
        }
        self.members.insert(key, member);
    }

    fn is_far(&self, key: &str) -> bool {
        self.members.get(key).is_some_and(|member| member.place == Place::Far)
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some(member) = self.members.remove(key) else { return false };
        // By its own addresses and names alone: what goes costs the same however many stay.
        for address in &member.addresses {
            if self.by_address.get(address).is_some_and(|owner| &**owner == key) {
                self.by_address.remove(address);
            }
        }
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

/// No container's key has such a sign in it.
fn far_key(number: usize) -> String {
    format!("/{number}")
}

/// A container's name, the twelve digits of its id, and its aliases, as far as one may be called so: the name may be a
/// path, or what somebody called a namespace, and what other hosts say may be anything.
fn names_of(name: &str, id: Option<&Id>, aliases: &[String]) -> Box<[Rc<str>]> {
    let mut names: Vec<Rc<str>> = Vec::new();
    let good = |name: &&str| check_alias(name).is_ok();
    let id = id.map(Id::short);
    let all = [name].into_iter().filter(good).chain(id.as_deref());
    for name in all.chain(aliases.iter().map(String::as_str).filter(good)) {
        let name = name.to_ascii_lowercase();
        if !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }
    names.into()
}

impl Asker<'_> {
    /// Whose a name is, in small letters and without a dot at its end. The network that is asked comes first.
    #[must_use]
    pub fn look_up(&self, name: &str) -> Known {
        if let Some(addresses) = self.find(name) {
            return Known::Addresses(addresses);
        }
        if is_ours(name) { Known::Nobody } else { self.elsewhere() }
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
        Known::Elsewhere(self.member.servers.to_vec())
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

    fn far(last: u8, name: &str, aliases: &[&str]) -> Far {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Far {
            id: Some(Id([last; 32])),
            name: name.to_owned(),
            aliases,
            addresses: vec![[10, 0, 1, last].into()],
        }
    }

    #[test]
    fn who_is_on_another_host_is_found_and_asks_there() {
        let mut table = table();
        let blue = Id([1; 32]);
        table.set_far(&blue, &[far(50, "Mail", &["db"]), far(51, "cache", &[])]);
        for name in ["mail", "mail.blue", "323232323232"] {
            assert_eq!(four(ask(&table, 1, 2, name)), ["10.0.1.50"], "{name}");
        }
        assert_eq!(four(ask(&table, 1, 2, "db")).len(), 3, "here and there under one alias");
        let asker = table.asker(&blue, [10, 0, 1, 2].into()).unwrap();
        assert_eq!(asker.name_of([10, 0, 1, 50].into()).as_deref(), Some("mail.blue"));
        assert!(table.asker(&blue, [10, 0, 1, 50].into()).is_none());
        assert_eq!(table.counts(), (3, 6));
        table.set_far(&blue, &[far(51, "cache", &[])]);
        assert_eq!(ask(&table, 1, 2, "mail"), Known::Elsewhere(Vec::new()));
        assert_eq!(four(ask(&table, 1, 2, "cache")), ["10.0.1.51"]);
        assert_eq!(four(ask(&table, 1, 2, "db")).len(), 2);
        table.set_network(&network(1, "blue", &[]));
        assert_eq!(
            four(ask(&table, 1, 2, "cache")),
            ["10.0.1.51"],
            "what is said of the network is another matter"
        );
    }

    #[test]
    fn an_address_that_is_in_use_here_is_the_one_here() {
        let mut table = table();
        let blue = Id([1; 32]);
        table.set_far(&blue, &[far(2, "web", &["bank"]), far(52, "late", &["shop"])]);
        assert_eq!(four(ask(&table, 1, 3, "web")), ["10.0.1.2"]);
        assert_eq!(ask(&table, 1, 3, "bank"), Known::Elsewhere(Vec::new()));
        // Another host has not said yet that it went from there.
        table.set_endpoint(&blue, &endpoint(1, 52, "late", &[]));
        assert_eq!(four(ask(&table, 1, 3, "late")), ["10.0.1.52"]);
        assert_eq!(ask(&table, 1, 3, "shop"), Known::Elsewhere(Vec::new()));
        table.set_far(&blue, &[]);
        assert_eq!(four(ask(&table, 1, 3, "web")), ["10.0.1.2"]);
        assert_eq!(four(ask(&table, 1, 3, "late")), ["10.0.1.52"]);
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
        for text in [
            "",
            "a b",
            "a\nb",
            "a,b",
            "/proc/1/ns/net",
            "pid:4",
            &long,
            "a..b",
            ".a",
            "ä",
            "LocalHost",
            "0x7f",
            "12",
            "host-gateway",
            "x.rnet.internal",
        ] {
            assert!(names_of(text, None, &[text.to_owned()]).is_empty(), "{text:?}");
        }
        let mut table = table();
        let mut record = endpoint(1, 9, "/proc/1/ns/net", &["fine"]);
        record.key = "x".into();
        table.set_endpoint(&Id([1; 32]), &record);
        assert_eq!(four(ask(&table, 1, 2, "fine")), ["10.0.1.9"]);
    }
}
