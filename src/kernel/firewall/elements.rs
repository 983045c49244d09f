//! Which elements of which sets a member or a published port is.

use std::net::IpAddr;

use rnetkit_drivers::{Family, InterfaceName, MacAddress, Member, Protocol, Publication};

use super::wire::{Attributes, BRIDGE, INET};

/// An element: its set, its key (with its end, for a range), and its value in a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Element {
    pub(super) family: u8,
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) key_end: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    /// The chain that its verdict leads to, in a map of verdicts.
    pub(super) jump: Option<String>,
}

impl Element {
    pub(super) fn in_set(family: u8, set: &'static str, key: Vec<u8>) -> Self {
        Self { family, set, key, key_end: None, value: None, jump: None }
    }

    /// For an interface, on to a chain.
    pub(super) fn jump(set: &'static str, link: &InterfaceName, chain: String) -> Self {
        Self { jump: Some(chain), ..Self::in_set(INET, set, Key::new().interface(link).0) }
    }

    /// Writes the element into a list of elements; its value only when it is made.
    pub(super) fn write(&self, list: &mut Attributes, with_value: bool) {
        list.nest(1, |element| {
            element.nest(1, |key| {
                key.bytes(1, &self.key);
            });
            if let Some(end) = &self.key_end {
                element.nest(10, |key| {
                    key.bytes(1, end);
                });
            }
            if let (true, Some(value)) = (with_value, &self.value) {
                element.nest(2, |data| {
                    data.bytes(1, value);
                });
            }
            if let (true, Some(chain)) = (with_value, &self.jump) {
                const JUMP: i32 = -3;
                element.nest(2, |data| {
                    data.nest(2, |verdict| {
                        verdict.number(1, JUMP as u32).text(2, chain);
                    });
                });
            }
        });
    }
}

/// Parts of a key, each padded to four bytes.
struct Key(Vec<u8>);

impl Key {
    fn new() -> Self {
        Self(Vec::with_capacity(44))
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn interface(self, name: &InterfaceName) -> Self {
        self.bytes(&interface_key(name.as_str()))
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    fn mac(self, mac: MacAddress) -> Self {
        self.bytes(&mac.0)
    }

    fn protocol(self, protocol: Protocol) -> Self {
        self.bytes(&[protocol.number()])
    }

    fn port(self, port: u16) -> Self {
        self.bytes(&port.to_be_bytes())
    }

    /// The 24 bits of a VXLAN header.
    fn vni(self, vni: u32) -> Self {
        self.bytes(&vni.to_be_bytes()[1..])
    }
}

/// The key of an interface alone, by whatever name the kernel knows it.
pub(super) fn interface_key(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The elements of a member.
pub(super) fn of_member(member: &Member) -> Vec<Element> {
    let inet = |set, key: Key| Element::in_set(INET, set, key.0);
    let bridge = |set, key: Key| Element::in_set(BRIDGE, set, key.0);
    let alone = |link| Key::new().interface(link);
    let pair = |link| Key::new().interface(link).interface(link);
    let by_family = |address: IpAddr, four, six| if address.is_ipv6() { six } else { four };
    match member {
        Member::Bridge { link } => vec![inet("bridges", alone(link))],
        Member::Subnet { subnet } => {
            let both = |address| Key::new().address(address).address(address).0;
            let set = by_family(subnet.ip(), "within4", "within6");
            let (key, key_end) = (both(subnet.network()), Some(both(subnet.broadcast())));
            vec![Element { key_end, ..Element::in_set(INET, set, key) }]
        }
        Member::Talking { link } => vec![inet("talking", pair(link))],
        Member::Routed { link } => vec![inet("routed", alone(link))],
        Member::Internal { link } => vec![inet("internal", alone(link))],
        Member::Named { link } => vec![inet("named", alone(link))],
        Member::Masquerade { link, family: Family::Ipv4 } => vec![inet("masquerade4", alone(link))],
        Member::Masquerade { link, family: Family::Ipv6 } => vec![inet("masquerade6", alone(link))],
        Member::Unprotected { link, family: Family::Ipv4 } => vec![inet("unprotected4", alone(link))],
        Member::Unprotected { link, family: Family::Ipv6 } => vec![inet("unprotected6", alone(link))],
        Member::Open { address, protocol, ports } => {
            let key = |port| Key::new().address(*address).protocol(*protocol).port(port).0;
            let set = by_family(*address, "open4", "open6");
            vec![Element { key_end: Some(key(ports.last)), ..Element::in_set(INET, set, key(ports.first)) }]
        }
        Member::Gateway { link, address } => vec![
            inet(by_family(*address, "gateways4", "gateways6"), Key::new().address(*address)),
            inet(by_family(*address, "home4", "home6"), alone(link).address(*address)),
        ],
        Member::Pinned { link, mac } => {
            vec![bridge("ports", alone(link)), bridge("port_mac", alone(link).mac(*mac))]
        }
        Member::Address { link, address } => {
            vec![bridge(by_family(*address, "port_ip4", "port_ip6"), alone(link).address(*address))]
        }
        Member::Tunnel { port, vni } => vec![inet("tunnels", Key::new().port(*port).vni(*vni))],
        Member::Host { port, vni, address } => {
            let key = Key::new().port(*port).vni(*vni).address(*address);
            vec![inet(by_family(*address, "hosts4", "hosts6"), key)]
        }
        // A key of one part is not padded.
        Member::Sealed { port } => vec![Element::in_set(INET, "sealed", port.to_be_bytes().to_vec())],
        // NFPROTO_IPV4 and NFPROTO_IPV6.
        Member::Guard { family } => {
            vec![Element::in_set(INET, "guarded", vec![if *family == Family::Ipv4 { 2 } else { 10 }])]
        }
    }
}

/// The elements of published ports: for the host's addresses, and for its loopback.
///
/// Ports that keep their numbers are one element, however many they are; others are one each.
pub(super) fn of_publication(publication: &Publication) -> Vec<Element> {
    let one = publication.host_ports.count() == 1;
    let mut list = Vec::new();
    if publication.is_identity() && !one {
        list.extend(translated_range(publication));
        list.extend(loopback_range(publication));
        return list;
    }
    for (host, target) in
        (publication.host_ports.first..=publication.host_ports.last).zip(publication.target_ports.first..)
    {
        list.extend(translated(publication, host, target));
        list.extend(loopback(publication, host, target));
    }
    list
}

/// A slot of a port that several share, without its value.
pub(super) fn slot(port: &Publication, number: u32) -> Element {
    // In the machine's own order, as the kernel counts.
    let key = shared_port(port).bytes(&number.to_ne_bytes()).0;
    Element::in_set(INET, sets_of_shared(port)[0], key)
}

/// How the keys of all its slots begin.
fn shared_port(port: &Publication) -> Key {
    let key = if port.host.is_unspecified() { Key::new() } else { Key::new().address(port.host) };
    key.protocol(port.protocol).port(port.host_ports.first)
}

/// What a slot of this member holds.
pub(super) fn target_of(member: &Publication) -> Vec<u8> {
    Key::new().address(member.target).port(member.target_ports.first).0
}

/// The sets in which a port that several share may have elements.
pub(super) fn sets_of_shared(port: &Publication) -> [&'static str; 5] {
    let slots = match (port.host.is_ipv6(), port.host.is_unspecified()) {
        (false, false) => "spread4",
        (true, false) => "spread6",
        (false, true) => "spread4_any",
        (true, true) => "spread6_any",
    };
    let [gateway, container, target, loopback] = loopback_sets(port.host.is_ipv6());
    [slots, gateway, container, target, loopback]
}

/// The maps for single ports of the host's loopback.
fn loopback_sets(ipv6: bool) -> [&'static str; 4] {
    if ipv6 {
        ["gateway6", "container6", "port6", "loopback6"]
    } else {
        ["gateway4", "container4", "port4", "loopback4"]
    }
}

/// Whether an element is of this port, whoever shares it.
pub(super) fn is_of_shared(element: &Element, port: &Publication) -> bool {
    let host = port.host_ports.first;
    if element.set.starts_with("spread") {
        return element.key.starts_with(&shared_port(port).0);
    }
    let Some((address, _)) = loopback_address(port) else { return false };
    let end = Key::new().port(host).protocol(port.protocol).0;
    let address = Key::new().address(address).0;
    // Back from the container the key has its address, and the value is the one that the host asked for.
    let whose = if element.set.starts_with("loopback") { element.value.as_ref() } else { Some(&element.key) };
    element.key.ends_with(&end) && whose.is_some_and(|whose| whose.starts_with(&address))
}

fn translated(publication: &Publication, host: u16, target: u16) -> Option<Element> {
    let (address, protocol) = (publication.host, publication.protocol);
    let value = Key::new().address(publication.target).port(target).0;
    if address.is_loopback() {
        return None;
    }
    let (set, key) = match (address.is_unspecified(), address.is_ipv6()) {
        (true, false) => ("publish4_any", Key::new()),
        (true, true) => ("publish6_any", Key::new()),
        (false, false) => ("publish4", Key::new().address(address)),
        (false, true) => ("publish6", Key::new().address(address)),
    };
    let key = key.protocol(protocol).port(host).0;
    Some(Element { value: Some(value), ..Element::in_set(INET, set, key) })
}

fn translated_range(publication: &Publication) -> Option<Element> {
    let (address, protocol) = (publication.host, publication.protocol);
    if address.is_loopback() {
        return None;
    }
    let set = match (address.is_unspecified(), address.is_ipv6()) {
        (true, false) => "ranges4_any",
        (true, true) => "ranges6_any",
        (false, false) => "ranges4",
        (false, true) => "ranges6",
    };
    let key = |port| {
        let key = if address.is_unspecified() { Key::new() } else { Key::new().address(address) };
        key.protocol(protocol).port(port).0
    };
    Some(Element {
        key_end: Some(key(publication.host_ports.last)),
        value: Some(Key::new().address(publication.target).0),
        ..Element::in_set(INET, set, key(publication.host_ports.first))
    })
}

/// The loopback address by which the host reaches the port: the one named, or the usual one where all are meant.
/// SCTP has no checksum that the kernel could correct here, so it is not published on loopback.
fn loopback_address(publication: &Publication) -> Option<(IpAddr, IpAddr)> {
    let gateway = publication.gateway.filter(|_| publication.protocol != Protocol::Sctp)?;
    let address = match publication.host {
        address if address.is_loopback() => address,
        address if !address.is_unspecified() => return None,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    };
    Some((address, gateway))
}

pub(super) fn loopback(publication: &Publication, host: u16, target: u16) -> Vec<Element> {
    let Some((address, gateway)) = loopback_address(publication) else { return Vec::new() };
    let protocol = publication.protocol;
    let asked = || Key::new().address(address).port(host).protocol(protocol).0;
    let back = Key::new().address(publication.target).port(host).protocol(protocol).0;
    let [gateways, containers, ports, loopbacks] = loopback_sets(address.is_ipv6());
    vec![
        entry(gateways, asked(), None, Key::new().address(gateway)),
        entry(containers, asked(), None, Key::new().address(publication.target)),
        // A value of two bytes is not padded.
        Element { value: Some(target.to_be_bytes().to_vec()), ..entry(ports, asked(), None, Key::new()) },
        entry(loopbacks, back, None, Key::new().address(address)),
    ]
}

fn loopback_range(publication: &Publication) -> Vec<Element> {
    let Some((address, gateway)) = loopback_address(publication) else { return Vec::new() };
    let (first, last) = (publication.host_ports.first, publication.host_ports.last);
    let key = |address, port| Key::new().address(address).port(port).protocol(publication.protocol).0;
    let range = |set, from: IpAddr, to: IpAddr| {
        entry(set, key(from, first), Some(key(from, last)), Key::new().address(to))
    };
    let [gateways, containers, loopbacks] = if address.is_ipv6() {
        ["gateway6_ranges", "container6_ranges", "loopback6_ranges"]
    } else {
        ["gateway4_ranges", "container4_ranges", "loopback4_ranges"]
    };
    vec![
        range(gateways, address, gateway),
        range(containers, address, publication.target),
        range(loopbacks, publication.target, address),
    ]
}

fn entry(set: &'static str, key: Vec<u8>, key_end: Option<Vec<u8>>, value: Key) -> Element {
    Element { key_end, value: Some(value.0), ..Element::in_set(INET, set, key) }
}
