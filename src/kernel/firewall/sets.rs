//! The sets and maps of the ruleset: what changes as networks and containers come and go. Everything else in the
//! firewall is fixed.

use std::borrow::Cow;

use super::wire::{Attributes, BRIDGE, INET};

/// Types of keys and values, by the numbers that `nft` prints them by, and their length in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Nfproto,
    Ip4,
    Ip6,
    Mac,
    Protocol,
    Port,
    Mark,
    Interface,
    /// A network's number in a VXLAN header: 24 bits.
    Vni,
    Verdict,
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Self::Nfproto => 2,
            Self::Ip4 => 7,
            Self::Ip6 => 8,
            Self::Mac => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::Interface => 41,
            // `TYPE_INTEGER`, of any length.
            Self::Vni => 4,
            // NFT_DATA_VERDICT
            Self::Verdict => 0xffff_ff00,
        }
    }

    pub(super) fn length(self) -> u32 {
        match self {
            Self::Nfproto | Self::Protocol => 1,
            Self::Port => 2,
            Self::Vni => 3,
            Self::Ip4 | Self::Mark => 4,
            Self::Mac => 6,
            Self::Ip6 | Self::Interface | Self::Verdict => 16,
        }
    }

    pub(super) fn padded(self) -> u32 {
        self.length().next_multiple_of(4)
    }
}

/// How a set is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// As a hash: one key, one element.
    Exactly,
    /// By ranges of ports or addresses.
    InRanges,
    /// By the packets themselves, for a while.
    ForAWhile,
    /// By the packets themselves, as long as there are connections.
    WhileConnected,
}

/// A set, or a map where it has values.
pub(super) struct Set {
    pub(super) family: u8,
    pub(super) name: Cow<'static, str>,
    pub(super) key: &'static [Type],
    pub(super) value: &'static [Type],
    pub(super) kept: Kept,
}

const fn set(family: u8, name: &'static str, key: &'static [Type]) -> Set {
    Set { family, name: Cow::Borrowed(name), key, value: &[], kept: Kept::Exactly }
}

const fn ranges(name: &'static str, key: &'static [Type]) -> Set {
    Set { family: INET, name: Cow::Borrowed(name), key, value: &[], kept: Kept::InRanges }
}

const fn map(name: &'static str, key: &'static [Type], value: &'static [Type], kept: Kept) -> Set {
    Set { family: INET, name: Cow::Borrowed(name), key, value, kept }
}

use Kept::{Exactly, ForAWhile, InRanges};
use Type::{Interface, Ip4, Ip6, Mac, Mark, Nfproto, Port, Protocol, Verdict, Vni};

/// All of them.
pub(super) static ALL: [Set; 55] = [
    set(INET, "bridges", &[Interface]),
    ranges("within4", &[Ip4, Ip4]),
    ranges("within6", &[Ip6, Ip6]),
    set(INET, "talking", &[Interface, Interface]),
    set(INET, "routed", &[Interface]),
    set(INET, "internal", &[Interface]),
    set(INET, "named", &[Interface]),
    set(INET, "masquerade4", &[Interface]),
    set(INET, "masquerade6", &[Interface]),
    set(INET, "gateways4", &[Ip4]),
    set(INET, "gateways6", &[Ip6]),
    set(INET, "home4", &[Interface, Ip4]),
    set(INET, "home6", &[Interface, Ip6]),
    set(INET, "guarded", &[Nfproto]),
    map("publish4", &[Ip4, Protocol, Port], &[Ip4, Port], Exactly),
    map("publish6", &[Ip6, Protocol, Port], &[Ip6, Port], Exactly),
    map("publish4_any", &[Protocol, Port], &[Ip4, Port], Exactly),
    map("publish6_any", &[Protocol, Port], &[Ip6, Port], Exactly),
    map("ranges4", &[Ip4, Protocol, Port], &[Ip4], InRanges),
    map("ranges6", &[Ip6, Protocol, Port], &[Ip6], InRanges),
    map("ranges4_any", &[Protocol, Port], &[Ip4], InRanges),
    map("ranges6_any", &[Protocol, Port], &[Ip6], InRanges),
    map("gateway4", &[Ip4, Port, Protocol], &[Ip4], Exactly),
    map("container4", &[Ip4, Port, Protocol], &[Ip4], Exactly),
    map("port4", &[Ip4, Port, Protocol], &[Port], Exactly),
    map("loopback4", &[Ip4, Port, Protocol], &[Ip4], Exactly),
    map("gateway4_ranges", &[Ip4, Port, Protocol], &[Ip4], InRanges),
    map("container4_ranges", &[Ip4, Port, Protocol], &[Ip4], InRanges),
    map("loopback4_ranges", &[Ip4, Port, Protocol], &[Ip4], InRanges),
    map("flows4", &[Protocol, Ip4, Ip4, Port, Port], &[Mark], ForAWhile),
    map("gateway6", &[Ip6, Port, Protocol], &[Ip6], Exactly),
    map("container6", &[Ip6, Port, Protocol], &[Ip6], Exactly),
    map("port6", &[Ip6, Port, Protocol], &[Port], Exactly),
    map("loopback6", &[Ip6, Port, Protocol], &[Ip6], Exactly),
    map("gateway6_ranges", &[Ip6, Port, Protocol], &[Ip6], InRanges),
    map("container6_ranges", &[Ip6, Port, Protocol], &[Ip6], InRanges),
    map("loopback6_ranges", &[Ip6, Port, Protocol], &[Ip6], InRanges),
    map("flows6", &[Protocol, Ip6, Ip6, Port, Port], &[Mark], ForAWhile),
    set(BRIDGE, "ports", &[Interface]),
    set(BRIDGE, "port_mac", &[Interface, Mac]),
    set(BRIDGE, "port_ip4", &[Interface, Ip4]),
    set(BRIDGE, "port_ip6", &[Interface, Ip6]),
    ranges("open4", &[Ip4, Protocol, Port]),
    ranges("open6", &[Ip6, Protocol, Port]),
    set(INET, "unprotected4", &[Interface]),
    set(INET, "unprotected6", &[Interface]),
    set(INET, "tunnels", &[Port, Vni]),
    set(INET, "hosts4", &[Port, Vni, Ip4]),
    set(INET, "hosts6", &[Port, Vni, Ip6]),
    set(INET, "sealed", &[Port]),
    map("limits", &[Interface], &[Verdict], Exactly),
    map("spread4", &[Ip4, Protocol, Port, Mark], &[Ip4, Port], Exactly),
    map("spread6", &[Ip6, Protocol, Port, Mark], &[Ip6, Port], Exactly),
    map("spread4_any", &[Protocol, Port, Mark], &[Ip4, Port], Exactly),
    map("spread6_any", &[Protocol, Port, Mark], &[Ip6, Port], Exactly),
];

/// `NFT_SET_INTERVAL`, `MAP`, `TIMEOUT`, `EVAL`, `CONCAT`.
const INTERVAL: u32 = 0x4;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;
const CONCAT: u32 = 0x80;

/// The most flows from the host's loopback, or visitors of a network, that are remembered at a time, for each family.
const MOST_FLOWS: u32 = 131_072;

impl Set {
    /// The body of the message that makes the set, empty.
    pub(super) fn message(&self, table: &str, id: u32) -> Attributes {
        let mut flags = if self.value.is_empty() { 0 } else { MAP };
        flags |= match self.kept {
            Kept::Exactly => 0,
            Kept::InRanges => INTERVAL | CONCAT,
            Kept::ForAWhile => TIMEOUT | EVAL,
            Kept::WhileConnected => EVAL,
        };
        let mut body = Attributes::default();
        body.text(1, table).text(2, &self.name).number(3, flags);
        body.number(4, number(self.key)).number(5, length(self.key));
        if !self.value.is_empty() {
            body.number(6, number(self.value)).number(7, length(self.value));
        }
        body.nest(9, |description| self.describe(description));
        body.number(10, id);
        if matches!(self.key, [Type::Interface | Type::Nfproto]) {
            // For nft's printer alone: type 0 (order of the key's bytes), 4 bytes, 1 (the machine's own).
            let mut note = vec![0, 4];
            note.extend(1u32.to_ne_bytes());
            body.bytes(13, &note);
        }
        body
    }

    /// The lengths of a ranged key's parts, by which the kernel cuts it, and the size of what grows by itself.
    fn describe(&self, description: &mut Attributes) {
        if matches!(self.kept, Kept::ForAWhile | Kept::WhileConnected) {
            description.number(1, MOST_FLOWS);
        }
        if self.kept == Kept::InRanges {
            description.nest(2, |parts| {
                for part in self.key {
                    parts.nest(1, |field| {
                        field.number(1, part.length());
                    });
                }
            });
        }
    }
}

fn number(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | part.number())
}

fn length(types: &[Type]) -> u32 {
    match types {
        [only] => only.length(),
        parts => parts.iter().map(|part| part.padded()).sum(),
    }
}
