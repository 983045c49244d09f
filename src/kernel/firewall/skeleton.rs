//! The fixed part of the firewall: tables, chains, rules. It has the same size whatever is published; networks,
//! containers and ports are elements of the sets in `sets.rs`.
//!
//! It only drops what goes to or from rnet's own bridges, and its accepts end rnet's own chain only: the
//! administrator's tables still have their say.

use super::{
    TableName,
    elements::interface_key,
    rule::{Meta, R0, Rule, field},
    sets,
    wire::{APPEND, Attributes, BRIDGE, Batch, CREATE, EXCL, INET, message},
};
use crate::cipher::DEVICE;

/// Where in a packet's way a chain stands: hook number and priority.
struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

pub(super) struct Chain<'a> {
    family: u8,
    name: &'a str,
    hook: Option<Hook>,
}

const fn hooked(
    family: u8,
    name: &'static str,
    kind: &'static str,
    number: u32,
    priority: i32,
) -> Chain<'static> {
    Chain { family, name, hook: Some(Hook { kind, number, priority }) }
}

pub(super) const fn plain(name: &str) -> Chain<'_> {
    Chain { family: INET, name, hook: None }
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

static CHAINS: [Chain<'static>; 17] = [
    plain("from_containers"),
    plain("publish"),
    plain("to_containers"),
    plain("out_of_containers"),
    plain("loopback_reply"),
    plain("datagrams"),
    plain("tunnels"),
    plain("from_hosts"),
    hooked(INET, "untrack", "filter", PREROUTING, -300),
    hooked(INET, "loopback", "route", OUTPUT, -300),
    hooked(INET, "tunnels_out", "filter", OUTPUT, -300),
    hooked(INET, "loopback_replies", "filter", INPUT, -150),
    hooked(INET, "published", "nat", PREROUTING, -100),
    hooked(INET, "published_here", "nat", OUTPUT, -100),
    hooked(INET, "forward", "filter", FORWARD, 0),
    hooked(INET, "input", "filter", INPUT, 0),
    hooked(INET, "source", "nat", POSTROUTING, 100),
];

static PORTS: Chain<'static> = hooked(BRIDGE, "ports", "filter", PREROUTING, -300);
static SPOOF: Chain<'static> = Chain { family: BRIDGE, name: "spoof", hook: None };

/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and `(IP_CT_RELATED)` of `nf_conntrack_common.h`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const NEW: u32 = 8;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;

/// How long a flow from the host's loopback is remembered after its last packet: TCP as long as the kernel's own
/// connection tracking does, TCP after its end, and anything else.
const TCP_FLOW: u64 = 5 * 24 * 3600 * 1000;
const ENDED_FLOW: u64 = 30 * 1000;
const OTHER_FLOW: u64 = 180 * 1000;

/// Whose firewall it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Scope {
    /// The host's: networks are translated, published, and kept apart.
    Host,
    /// A sandbox's: it routes nothing, so only its bridge is guarded; and neighbours are asked for nowhere else.
    Sandbox,
}

impl Scope {
    /// The families of the tables.
    pub(super) fn families(self) -> &'static [u8] {
        match self {
            Self::Host => &[INET, BRIDGE],
            Self::Sandbox => &[BRIDGE],
        }
    }
}

/// The whole of it as one transaction, which fails if the tables exist.
pub(super) fn create(table: &TableName, scope: Scope, owner: usize) -> Batch {
    let mut batch = Batch::default();
    let name = table.as_str();
    let within = |family: u8| scope.families().contains(&family);
    for family in scope.families().iter().copied() {
        let mut body = Attributes::default();
        body.text(1, name).number(2, 0);
        batch.push(message::NEW_TABLE, CREATE | EXCL, family, body, owner);
    }
    for (number, set) in sets::ALL.iter().enumerate().filter(|(_, set)| within(set.family)) {
        batch.push(message::NEW_SET, CREATE, set.family, set.message(name, number as u32 + 1), owner);
    }
    for chain in CHAINS.iter().chain([&SPOOF, &PORTS]).filter(|chain| within(chain.family)) {
        batch.push(message::NEW_CHAIN, CREATE, chain.family, chain.message(name), owner);
    }
    for (family, chain, rule) in rules(scope) {
        batch.push(message::NEW_RULE, CREATE | APPEND, family, rule.message(name, chain), owner);
    }
    batch
}

/// The transaction that takes the tables away, with all that is in them. Somebody may have taken one of them: each is
/// made first if it is not there, so that there is something to delete.
pub(super) fn delete(table: &TableName, scope: Scope, owner: usize) -> Batch {
    let mut batch = Batch::default();
    for family in scope.families().iter().copied() {
        let mut body = Attributes::default();
        body.text(1, table.as_str());
        batch.push(message::NEW_TABLE, CREATE, family, body.clone(), owner);
        batch.push(message::DELETE_TABLE, 0, family, body, owner);
    }
    batch
}

impl Chain<'_> {
    pub(super) fn message(&self, table: &str) -> Attributes {
        const ACCEPT: u32 = 1;
        let mut body = Attributes::default();
        body.text(1, table).text(3, self.name);
        if let Some(hook) = &self.hook {
            body.nest(4, |place| {
                place.number(1, hook.number).number(2, hook.priority as u32);
            });
            body.number(5, ACCEPT).text(7, hook.kind);
        }
        body
    }
}

/// Every rule, with the table's family and the chain that it is in, in order.
pub(super) fn rules(scope: Scope) -> Vec<(u8, &'static str, Rule)> {
    let mut list: Vec<(u8, &'static str, Rule)> = Vec::new();
    if scope == Scope::Sandbox {
        asked_here(&mut |chain, rule| list.push((BRIDGE, chain, rule)));
        ports(&mut |chain, rule| list.push((BRIDGE, chain, rule)));
        return list;
    }
    let mut inet = |chain, rule| list.push((INET, chain, rule));
    untracked(&mut inet);
    tunnels(&mut inet);
    for ipv6 in [false, true] {
        loopback(&mut inet, ipv6);
        loopback_replies(&mut inet, ipv6);
    }
    inet("loopback_replies", Rule::new("").from(true, "bridges").jump("loopback_reply"));
    published(&mut inet);
    forward(&mut inet);
    input(&mut inet);
    source(&mut inet);
    ports(&mut |chain, rule| list.push((BRIDGE, chain, rule)));
    list
}

type Add<'a> = &'a mut dyn FnMut(&'static str, Rule);

/// Before connection tracking: loopback addresses never arrive from a container, and replies to the host's own
/// loopback are not tracked and get the port that the client asked for.
fn untracked(add: Add<'_>) {
    add("untrack", Rule::new("").from(true, "bridges").jump("from_containers"));
    for side in [field::IP4_DESTINATION, field::IP4_SOURCE] {
        let rule = Rule::new("no loopback address from a container").family(false).load(side, R0);
        add("from_containers", rule.mask(R0, &[255, 0, 0, 0]).compare(R0, true, &[127, 0, 0, 0]).drop());
    }
    for side in [field::IP6_DESTINATION, field::IP6_SOURCE] {
        let rule = Rule::new("no loopback address from a container").family(true).load(side, R0);
        add("from_containers", rule.compare(R0, true, &LOOPBACK6).drop());
    }
    // What `rp_filter` is to IPv4. A link-local address goes no further than its link.
    let rule = Rule::new("its own IPv6 address only, where a link is its own").family(true);
    let rule = rule.meta(Meta::Iifkind, R0).compare(R0, true, VETH).load(field::IP6_SOURCE, R0);
    let rule = rule.mask(R0, &first_bytes([0xff, 0xc0])).compare(R0, false, &first_bytes([0xfe, 0x80]));
    add("from_containers", rule.foreign_source(R0).drop());
    for ipv6 in [false, true] {
        let words = Words::of(ipv6);
        for (number, checksum) in TRANSPORTS {
            let rule =
                flow(Rule::new("reply to the host's loopback"), &words, number).map(R0, words.flows, R0);
            add("from_containers", rule.store(R0, field::SOURCE_PORT, Some(checksum), false).untracked());
        }
    }
}

/// The rules that keep clear text from a sealed port: the chain of each, and what it says of itself.
pub(super) const SEAL: [(&str, &str); 2] =
    [("datagrams", "never in clear from elsewhere"), ("tunnels_out", "never in clear to elsewhere")];

/// VXLAN of rnet's own networks: it comes from their hosts, and is sent by this host and not through it. Nothing in it
/// is authenticated, so without this whoever reaches the port could send into a network; and a container could, by
/// way of the host's address, send into it on another host. It is not tracked: each of its flows goes one way.
///
/// What must never be seen in clear is known by its port alone, whatever networks and hosts there are: it comes from the
/// device that encrypts, and leaves by it.
///
/// A VXLAN network that is not rnet's, on the same port, is not looked at.
fn tunnels(add: Add<'_>) {
    let udp = |rule: Rule| rule.meta(Meta::L4proto, R0).compare(R0, true, &[UDP]);
    let sealed = |rule: Rule, link| {
        let rule = rule.load(field::DESTINATION_PORT, R0).member(R0, true, "sealed");
        rule.meta(link, R0).compare(R0, false, &interface_key(DEVICE)).drop()
    };
    let network = |rule: Rule| {
        let rule = rule.load(field::DESTINATION_PORT, R0).load(field::VXLAN_NETWORK, R0 + 1);
        rule.member(R0, true, "tunnels")
    };
    add("untrack", udp(Rule::new("")).jump("datagrams"));
    let [(arriving, from), (leaving, to)] = SEAL;
    add(arriving, sealed(Rule::new(from), Meta::Iifname));
    add("datagrams", network(Rule::new("overlay networks")).jump("tunnels"));
    add("tunnels", Rule::new("never from a container").from(true, "bridges").drop());
    for (ipv6, set) in [(false, "hosts4"), (true, "hosts6")] {
        let rule = Rule::new("from a host of the network").family(ipv6).load(field::DESTINATION_PORT, R0);
        let rule = rule.load(field::VXLAN_NETWORK, R0 + 1).load(Words::of(ipv6).source, R0 + 2);
        add("tunnels", rule.member(R0, true, set).jump("from_hosts"));
    }
    add("tunnels", Rule::new("from anybody else").drop());
    add("from_hosts", Rule::new("to this one").local_destination().untracked().accept());
    add("from_hosts", Rule::new("").accept());
    add(leaving, sealed(udp(Rule::new(to)), Meta::Oifname));
    add("tunnels_out", network(udp(Rule::new("overlay networks"))).untracked());
}

/// Who has an address is known in the sandbox and nowhere else: a neighbour that is asked directly, to see whether
/// it is still there, is asked here instead, and the bridge answers. (It answers only what was sent to all.)
fn asked_here(add: Add<'_>) {
    const ARP: [u8; 2] = [0x08, 0x06];
    const IP6: [u8; 2] = [0x86, 0xdd];
    const REQUEST: [u8; 2] = [0, 1];
    const SOLICITATION: u8 = 135;
    const TO_ALL: [u8; 6] = [0xff; 6];
    /// All nodes on the link (RFC 2464, section 7).
    const TO_ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    let rule = Rule::new("ARP is answered here").from(true, "ports").meta(Meta::Protocol, R0);
    let rule = rule.compare(R0, true, &ARP).load(field::ARP_OPERATION, R0).compare(R0, true, &REQUEST);
    add("ports", rule.constant(R0, &TO_ALL).store(R0, field::MAC_DESTINATION, None, false));
    let rule = Rule::new("neighbours are found here").from(true, "ports").meta(Meta::Protocol, R0);
    let rule = rule.compare(R0, true, &IP6).meta(Meta::L4proto, R0).compare(R0, true, &[ICMP6]);
    let rule = rule.load(field::ICMP6_TYPE, R0).compare(R0, true, &[SOLICITATION]);
    add("ports", rule.constant(R0, &TO_ALL_NODES).store(R0, field::MAC_DESTINATION, None, false));
}

/// Loads what a flow is remembered by, in the order of a reply: protocol, container, host on the bridge,
/// container's port, client's port.
fn flow(rule: Rule, words: &Words, protocol: u8) -> Rule {
    let n = words.registers;
    let rule = rule.family(words.ipv6).meta(Meta::L4proto, R0).compare(R0, true, &[protocol]);
    let rule = rule.load(words.source, R0 + 1).load(words.destination, R0 + 1 + n);
    rule.load(field::SOURCE_PORT, R0 + 1 + 2 * n).load(field::DESTINATION_PORT, R0 + 2 + 2 * n)
}

const LOOPBACK4: [u8; 4] = [127, 0, 0, 1];
/// The kind of a link that leads to one container (`IFNAMSIZ` bytes).
const VETH: &[u8; 16] = b"veth\0\0\0\0\0\0\0\0\0\0\0\0";

/// An IPv6 address that begins so.
const fn first_bytes([first, second]: [u8; 2]) -> [u8; 16] {
    [first, second, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// What differs between the families: fields, names, and how many registers an address takes.
pub(super) struct Words {
    pub(super) ipv6: bool,
    pub(super) source: super::rule::Field,
    pub(super) destination: super::rule::Field,
    loopback: &'static [u8],
    pub(super) registers: u32,
    /// Where the header's own checksum is, for the family that has one.
    checksum: Option<u32>,
    /// Maps for single ports, and for ranges: host on the bridge, container, loopback address.
    maps: [[&'static str; 3]; 2],
    /// The map from a host's port to the container's.
    port: &'static str,
    flows: &'static str,
}

impl Words {
    pub(super) fn of(ipv6: bool) -> Self {
        if ipv6 {
            Self {
                ipv6,
                source: field::IP6_SOURCE,
                destination: field::IP6_DESTINATION,
                loopback: &LOOPBACK6,
                registers: 4,
                checksum: None,
                maps: [
                    ["gateway6", "container6", "loopback6"],
                    ["gateway6_ranges", "container6_ranges", "loopback6_ranges"],
                ],
                port: "port6",
                flows: "flows6",
            }
        } else {
            Self {
                ipv6,
                source: field::IP4_SOURCE,
                destination: field::IP4_DESTINATION,
                loopback: &LOOPBACK4,
                registers: 1,
                checksum: Some(10),
                maps: [
                    ["gateway4", "container4", "loopback4"],
                    ["gateway4_ranges", "container4_ranges", "loopback4_ranges"],
                ],
                port: "port4",
                flows: "flows4",
            }
        }
    }
}

/// The transports whose checksums the kernel can be told to correct, with the place of the checksum.
const TRANSPORTS: [(u8, u32); 2] = [(6, 16), (17, 6)];

/// From the host's loopback to a container, without connection tracking and without `route_localnet`: source and
/// destination are rewritten to the host's and the container's addresses on the bridge, and the packet is routed
/// again. The flow is remembered, so that only replies find the way back.
///
/// The port that the client asked for waits in the packet's mark while the packet is rewritten; the mark is 0 again
/// before any other rule sees it. Every map has a register of its own, so that `nft list` can show the rule.
fn loopback(add: Add<'_>, ipv6: bool) {
    let words = Words::of(ipv6);
    for ranges in [false, true] {
        for (protocol, checksum) in TRANSPORTS {
            let rewrite = |rule: Rule, lasts: u64| rewrite(rule, &words, ranges, (protocol, checksum), lasts);
            if protocol == 6 {
                // After a last packet (FIN or RST) the flow is forgotten soon.
                let last = Rule::new("").family(ipv6).meta(Meta::L4proto, R0).compare(R0, true, &[6]);
                let last = last.load(field::TCP_FLAGS, R0).mask(R0, &[5]).compare(R0, false, &[0]);
                add("loopback", rewrite(last, ENDED_FLOW));
                add("loopback", rewrite(Rule::new(""), TCP_FLOW));
            } else {
                add("loopback", rewrite(Rule::new(""), OTHER_FLOW));
            }
        }
    }
}

fn rewrite(rule: Rule, words: &Words, ranges: bool, (protocol, checksum): (u8, u32), lasts: u64) -> Rule {
    let n = words.registers;
    let [gateway, container, _] = words.maps[usize::from(ranges)];
    let (key, value) = (R0, R0 + n + 2);
    let rule = rule.family(words.ipv6).load(words.source, R0).compare(R0, true, words.loopback);
    let rule = rule.meta(Meta::L4proto, R0).compare(R0, true, &[protocol]);
    let asked = |rule: Rule| {
        let rule = rule.load(words.destination, key).load(field::DESTINATION_PORT, key + n);
        rule.meta(Meta::L4proto, key + n + 1)
    };
    let rule = asked(rule).map(key, gateway, value).store(value, words.source, words.checksum, true);
    let rule = rule.untracked().load(field::DESTINATION_PORT, R0).set_meta(Meta::Mark, R0);
    let rule = if ranges {
        asked(rule).map(key, container, value)
    } else {
        let rule = asked(rule).map(key, words.port, value + n).map(key, container, value);
        rule.store(value + n, field::DESTINATION_PORT, Some(checksum), false)
    };
    let rule = rule.store(value, words.destination, words.checksum, true);
    // As the reply will have it: the container first, then the host.
    let rule = rule.meta(Meta::L4proto, R0).load(words.destination, R0 + 1).load(words.source, R0 + 1 + n);
    let rule = rule.load(field::DESTINATION_PORT, R0 + 1 + 2 * n).load(field::SOURCE_PORT, R0 + 2 + 2 * n);
    let mark = R0 + 3 + 2 * n;
    let rule = rule.meta(Meta::Mark, mark).remember(words.flows, R0, mark, lasts);
    rule.constant(R0, &[0; 4]).set_meta(Meta::Mark, R0).accept()
}

/// The way back, at the last moment: past all checks of where loopback addresses may come from. Only what was
/// recognised as a reply before is untracked.
fn loopback_replies(add: Add<'_>, ipv6: bool) {
    const UNTRACKED: u32 = 1 << 6;
    let words = Words::of(ipv6);
    let n = words.registers;
    for [_, _, loopback] in words.maps {
        for (protocol, _) in TRANSPORTS {
            let rule = Rule::new("").family(ipv6).connection(CT_STATE, UNTRACKED);
            let rule = rule.meta(Meta::L4proto, R0).compare(R0, true, &[protocol]);
            let rule =
                rule.load(words.source, R0).load(field::SOURCE_PORT, R0 + n).meta(Meta::L4proto, R0 + n + 1);
            let rule = rule.map(R0, loopback, R0).store(R0, words.source, words.checksum, true);
            let rule = rule.constant(R0, words.loopback).store(R0, words.destination, words.checksum, true);
            add("loopback_reply", rule.accept());
        }
    }
}

/// Published ports, for what comes from elsewhere and for what the host sends itself. Only addresses of the host
/// are translated: what is on its way to others passes. A specific address beats all addresses.
fn published(add: Add<'_>) {
    names(add, "published");
    for chain in ["published", "published_here"] {
        let elsewhere = |rule: Rule| rule.local_destination().jump("publish");
        let rule = Rule::new("published ports").family(false).load(field::IP4_DESTINATION, R0);
        add(chain, elsewhere(rule.mask(R0, &[255, 0, 0, 0]).compare(R0, false, &[127, 0, 0, 0])));
        let rule = Rule::new("published ports").family(true).load(field::IP6_DESTINATION, R0);
        add(chain, elsewhere(rule.compare(R0, false, &LOOPBACK6)));
    }
    for (ipv6, exact, ranges, any, any_ranges) in [
        (false, "publish4", "ranges4", "publish4_any", "ranges4_any"),
        (true, "publish6", "ranges6", "publish6_any", "ranges6_any"),
    ] {
        let words = Words::of(ipv6);
        let n = words.registers;
        let specific = || {
            let rule = Rule::new("").family(ipv6).load(words.destination, R0);
            rule.meta(Meta::L4proto, R0 + n).load(field::DESTINATION_PORT, R0 + n + 1)
        };
        let wildcard =
            || Rule::new("").family(ipv6).meta(Meta::L4proto, R0).load(field::DESTINATION_PORT, R0 + 1);
        add("publish", specific().map(R0, exact, R0).dnat(ipv6, R0, Some(R0 + n)));
        add("publish", specific().map(R0, ranges, R0).dnat(ipv6, R0, None));
        shared(add, &words, true, &specific);
        add("publish", wildcard().map(R0, any, R0).dnat(ipv6, R0, Some(R0 + n)));
        add("publish", wildcard().map(R0, any_ranges, R0).dnat(ipv6, R0, None));
        shared(add, &words, false, &wildcard);
    }
}

/// Ports that several containers share: the connection falls into a slot, and the map says whose that is. The slots
/// by chance and those by source lie beside each other, so that one map has both.
fn shared(add: Add<'_>, words: &Words, specific: bool, port: &dyn Fn() -> Rule) {
    let n = words.registers;
    let slot = R0 + if specific { n + 2 } else { 2 };
    let modulus = rnetkit_drivers::service::SLOTS as u32;
    let spread = match (words.ipv6, specific) {
        (false, true) => "spread4",
        (true, true) => "spread6",
        (false, false) => "spread4_any",
        (true, false) => "spread6_any",
    };
    for rule in [port().by_chance(slot, modulus), port().by_hash(words.source, slot, modulus, modulus)] {
        add("publish", rule.map(R0, spread, R0).dnat(words.ipv6, R0, Some(R0 + n)));
    }
}

/// The group of rnet's own links, whichever network and instance they are of.
fn foreign(rule: Rule, key: Meta) -> Rule {
    let ours = rnetkit_drivers::Network::GROUPS.to_ne_bytes();
    rule.meta(key, R0).mask(R0, &0xffff_0000u32.to_ne_bytes()).compare(R0, false, &ours)
}

/// Between interfaces: containers are reached by replies, by neighbours, and on published ports. Replies first, whoever's
/// they are: nearly all packets are, and what no rule let begin has none.
fn forward(add: Add<'_>) {
    add("forward", Rule::new("replies").connection(CT_STATE, ESTABLISHED_OR_RELATED).accept());
    add("forward", Rule::new("to containers").to(true, "bridges").jump("to_containers"));
    add("forward", Rule::new("out of containers").from(true, "bridges").jump("out_of_containers"));
    let stranger = Rule::new("rnet made this host a router for its own networks only");
    let stranger = stranger.meta(Meta::Nfproto, R0).member(R0, true, "guarded");
    add("forward", foreign(foreign(stranger, Meta::Iifgroup), Meta::Oifgroup).drop());

    let to = "to_containers";
    add(to, Rule::new("neighbours").between("talking").accept());
    for (ipv6, set) in [(false, "within4"), (true, "within6")] {
        let words = Words::of(ipv6);
        let rule = Rule::new("neighbours on links of their own").family(ipv6);
        let rule = rule.from(true, "routed").to(true, "routed").load(words.source, R0);
        add(to, rule.load(words.destination, R0 + words.registers).member(R0, true, set).accept());
    }
    for (ipv6, set) in [(false, "within4"), (true, "within6")] {
        // The set holds pairs of addresses of one network; an address beside itself tells whether it is in any.
        let words = Words::of(ipv6);
        let rule = Rule::new("no container is out there").family(ipv6).from(false, "bridges");
        let rule = rule.load(words.source, R0).load(words.source, R0 + words.registers);
        add(to, rule.member(R0, true, set).drop());
    }
    add(to, Rule::new("no way into an internal network").to(true, "internal").drop());
    add(to, Rule::new("no way out of an internal network").from(true, "internal").drop());
    let limited = Rule::new("limits of networks that have some").connection(CT_STATE, NEW);
    add(to, limited.meta(Meta::Oifname, R0).verdict_of(R0, "limits"));
    add(to, Rule::new("published ports").connection(CT_STATUS, DESTINATION_TRANSLATED).accept());
    for (ipv6, set) in [(false, "open4"), (true, "open6")] {
        let words = Words::of(ipv6);
        let n = words.registers;
        let rule = Rule::new("opened ports").family(ipv6).load(words.destination, R0);
        let rule = rule.meta(Meta::L4proto, R0 + n).load(field::DESTINATION_PORT, R0 + n + 1);
        add(to, rule.member(R0, true, set).accept());
    }
    for (ipv6, set) in [(false, "unprotected4"), (true, "unprotected6")] {
        let open = Rule::new("open networks").family(ipv6).to(true, set).from(false, "bridges");
        add(to, open.accept());
    }
    add(to, Rule::new("everything else").drop());

    let out = Rule::new("no way out of an internal network");
    add("out_of_containers", out.from(true, "internal").drop());
}

/// To the host itself: the host's address on a bridge answers on that bridge only, and internal networks reach
/// nothing of the host but names.
fn input(add: Add<'_>) {
    // The kernel's own WireGuard lets in whatever another host of the cluster sends.
    let cipher = |yes| {
        let rule = Rule::new("from the cipher what is sealed alone").meta(Meta::Iifname, R0);
        rule.compare(R0, true, &interface_key(DEVICE)).meta(Meta::L4proto, R0).compare(R0, yes, &[UDP])
    };
    add("input", cipher(false).drop());
    add("input", cipher(true).load(field::DESTINATION_PORT, R0).member(R0, false, "sealed").drop());
    for (ipv6, gateways, home) in [(false, "gateways4", "home4"), (true, "gateways6", "home6")] {
        let words = Words::of(ipv6);
        let rule = Rule::new("a bridge's address answers on that bridge").by_loopback(false).family(ipv6);
        let rule = rule.load(words.destination, R0).member(R0, true, gateways);
        let rule = rule.meta(Meta::Iifname, R0).load(words.destination, R0 + 4);
        add("input", rule.member(R0, false, home).drop());
    }
    names(add, "input");
    // Of a handshake not yet complete no socket can be told anything, so what follows a first packet is known by that.
    for (ipv6, home) in [(false, "home4"), (true, "home6")] {
        add("input", name_port(ipv6, home, TCP).connection(CT_STATE, ESTABLISHED_OR_RELATED).accept());
    }
    add("input", Rule::new("internal networks do not reach the host").from(true, "internal").drop());
}

/// A question to the resolver of the network is let through as it is. To another resolver of the host, at all its
/// addresses, it is not: that one would ask the world.
fn names(add: Add<'_>, chain: &'static str) {
    for (ipv6, home) in [(false, "home4"), (true, "home6")] {
        for protocol in [TCP, UDP] {
            add(chain, name_port(ipv6, home, protocol).expected_there(R0).accept());
        }
    }
}

/// What is for the port of names, at the host's address on the bridge that it comes from.
fn name_port(ipv6: bool, home: &'static str, protocol: u8) -> Rule {
    const NAMES: u16 = 53;
    let rule = Rule::new("names").family(ipv6).meta(Meta::L4proto, R0).compare(R0, true, &[protocol]);
    let rule = rule.load(field::DESTINATION_PORT, R0).compare(R0, true, &NAMES.to_be_bytes());
    let rule = rule.from(true, "named").meta(Meta::Iifname, R0).load(Words::of(ipv6).destination, R0 + 4);
    rule.member(R0, true, home)
}

/// Source addresses: what leaves for elsewhere takes the host's address. So does what comes back to its own
/// network by way of a published port, or the answer would go straight to the asker, from the wrong address.
fn source(add: Add<'_>) {
    for (ipv6, set) in [(false, "within4"), (true, "within6")] {
        // By address and not by interface: on a bridge that br_netfilter looks into, this hook has no input.
        let words = Words::of(ipv6);
        let hairpin = Rule::new("back into the same network through a published port").family(ipv6);
        let hairpin = hairpin.connection(CT_STATUS, DESTINATION_TRANSLATED).load(words.source, R0);
        add(
            "source",
            hairpin.load(words.destination, R0 + words.registers).member(R0, true, set).masquerade(),
        );
    }
    for (ipv6, set) in [(false, "masquerade4"), (true, "masquerade6")] {
        let rule = Rule::new("out of the host").family(ipv6).from(true, set).to(false, "bridges");
        add("source", rule.masquerade());
    }
}

/// On the bridge, before anything is forwarded: a container sends with its own addresses only, and nothing but
/// IP and ARP. It hands out no addresses either.
fn ports(add: Add<'_>) {
    const ARP: [u8; 2] = [0x08, 0x06];
    const IP4: [u8; 2] = [0x08, 0x00];
    const IP6: [u8; 2] = [0x86, 0xdd];
    /// The tags of IEEE 802.1Q and 802.1ad. The kernel takes them off, and `meta protocol` shows what is below.
    const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
    let source_mac =
        |rule: Rule, field| rule.meta(Meta::Iifname, R0).load(field, R0 + 4).member(R0, false, "port_mac");
    let protocol =
        |comment, value: &[u8; 2]| Rule::new(comment).meta(Meta::Protocol, R0).compare(R0, true, value);
    add("ports", Rule::new("containers").from(true, "ports").jump("spoof"));
    add("spoof", source_mac(Rule::new("its own hardware address only"), field::MAC_SOURCE).drop());
    for tag in TAGS {
        let rule = Rule::new("no tags: a container is in one network").load(field::FRAME_KIND, R0);
        add("spoof", rule.compare(R0, true, &tag).drop());
    }
    let own4 = |comment, kind: &[u8; 2], field| {
        let rule = protocol(comment, kind).meta(Meta::Iifname, R0).load(field, R0 + 4);
        rule.member(R0, false, "port_ip4").drop()
    };
    let from_port = |kind, port: u16| {
        let rule = protocol("a container hands out no addresses", kind).meta(Meta::L4proto, R0);
        let rule = rule.compare(R0, true, &[UDP]).load(field::SOURCE_PORT, R0);
        rule.compare(R0, true, &port.to_be_bytes()).drop()
    };
    add("spoof", own4("its own IPv4 address only", &IP4, field::IP4_SOURCE));
    add("spoof", from_port(&IP4, DHCP_SERVER));
    add("spoof", protocol("", &IP4).accept());
    add("spoof", source_mac(protocol("no ARP for others", &ARP), field::ARP_SENDER_MAC).drop());
    add("spoof", own4("no ARP for others", &ARP, field::ARP_SENDER_IP));
    add("spoof", protocol("", &ARP).accept());
    add("spoof", from_port(&IP6, DHCP6_SERVER));
    neighbour_discovery(add, &|comment| protocol(comment, &IP6));
    let rule =
        protocol("its own IPv6 address only", &IP6).meta(Meta::Iifname, R0).load(field::IP6_SOURCE, R0 + 4);
    add("spoof", rule.member(R0, true, "port_ip6").accept());
    add("spoof", Rule::new("everything else").drop());
}

/// The ports that DHCP servers answer from (RFC 2131, RFC 8415).
const DHCP_SERVER: u16 = 67;
const DHCP6_SERVER: u16 = 547;
/// TCP, UDP and ICMPv6 (IANA protocol numbers).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// A container is no router, and announces its own addresses only (RFC 4861: router advertisement 134, neighbour
/// advertisement 136, redirect 137).
fn neighbour_discovery(add: Add<'_>, ipv6: &dyn Fn(&'static str) -> Rule) {
    let kind = |comment, number: u8| {
        let rule = ipv6(comment).meta(Meta::L4proto, R0).compare(R0, true, &[ICMP6]);
        rule.load(field::ICMP6_TYPE, R0).compare(R0, true, &[number])
    };
    add("spoof", kind("a container is no router", 134).drop());
    add("spoof", kind("a container is no router", 137).drop());
    let others =
        kind("announces its own addresses only", 136).meta(Meta::Iifname, R0).load(field::ND_TARGET, R0 + 4);
    add("spoof", others.member(R0, false, "port_ip6").drop());
}
