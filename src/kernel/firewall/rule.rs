//! Expressions of nf_tables, as small words from which rules are made. Each loads registers, compares them, or
//! acts; the numbers are those of `linux/netfilter/nf_tables.h`.

use rnetkit_drivers::Pace;

use super::wire::Attributes;

/// The first of sixteen registers of four bytes (`NFT_REG32_00`).
pub(super) const R0: u32 = 8;

/// `NFT_META_*`.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Protocol = 1,
    Mark = 3,
    Iifname = 6,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
    Iifgroup = 21,
    Oifgroup = 22,
    Iifkind = 26,
}

/// Where a header begins (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy)]
pub(super) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// A field of a packet: its header, offset and length in bytes.
pub(super) type Field = (Header, u32, u32);

/// Source and destination of IPv4 and IPv6 (RFC 791, RFC 8200), the ports that TCP, UDP and SCTP have in the
/// same place, hardware addresses, and the parts of ARP for IPv4 (RFC 826).
pub(super) mod field {
    use super::{Field, Header};
    pub(in super::super) const IP4_SOURCE: Field = (Header::Network, 12, 4);
    pub(in super::super) const IP4_DESTINATION: Field = (Header::Network, 16, 4);
    pub(in super::super) const IP6_SOURCE: Field = (Header::Network, 8, 16);
    pub(in super::super) const IP6_DESTINATION: Field = (Header::Network, 24, 16);
    pub(in super::super) const SOURCE_PORT: Field = (Header::Transport, 0, 2);
    pub(in super::super) const DESTINATION_PORT: Field = (Header::Transport, 2, 2);
    pub(in super::super) const TCP_FLAGS: Field = (Header::Transport, 13, 1);
    pub(in super::super) const FRAME_KIND: Field = (Header::Link, 12, 2);
    pub(in super::super) const MAC_SOURCE: Field = (Header::Link, 6, 6);
    pub(in super::super) const ARP_SENDER_MAC: Field = (Header::Network, 8, 6);
    pub(in super::super) const ARP_SENDER_IP: Field = (Header::Network, 14, 4);
    pub(in super::super) const ICMP6_TYPE: Field = (Header::Transport, 0, 1);
    /// The operation of ARP, and the field of a VXLAN header (RFC 7348) that says of which network a frame is.
    pub(in super::super) const ARP_OPERATION: Field = (Header::Network, 6, 2);
    pub(in super::super) const VXLAN_NETWORK: Field = (Header::Transport, 12, 3);
    pub(in super::super) const MAC_DESTINATION: Field = (Header::Link, 0, 6);
    pub(in super::super) const ND_TARGET: Field = (Header::Transport, 8, 16);
}

const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;

/// The expressions of a rule in the making, and what it is for.
#[derive(Default, Clone)]
pub(super) struct Rule {
    expressions: Attributes,
    comment: &'static str,
}

impl Rule {
    /// A rule and what people read beside it.
    pub(super) fn new(comment: &'static str) -> Self {
        Self { comment, ..Self::default() }
    }

    /// The body of a message that appends the rule to a chain.
    pub(super) fn message(&self, table: &str, chain: &str) -> Attributes {
        let mut body = Attributes::default();
        body.text(1, table).text(2, chain).nest(4, |list| list.0.extend(&self.expressions.0));
        if !self.comment.is_empty() {
            // nft's own form of a comment: type 0, length, text with NUL.
            let mut note = vec![0, self.comment.len() as u8 + 1];
            note.extend(self.comment.as_bytes());
            note.push(0);
            body.bytes(7, &note);
        }
        body
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(1, |element| {
            element.text(1, name).nest(2, fill);
        });
        self
    }

    /// Loads a property of the packet.
    pub(super) fn meta(self, key: Meta, register: u32) -> Self {
        self.expression("meta", |a| {
            a.number(1, register).number(2, key as u32);
        })
    }

    /// Sets a property of the packet.
    pub(super) fn set_meta(self, key: Meta, register: u32) -> Self {
        self.expression("meta", |a| {
            a.number(2, key as u32).number(3, register);
        })
    }

    /// Loads a field of the packet.
    pub(super) fn load(self, (header, offset, length): Field, register: u32) -> Self {
        self.expression("payload", |a| {
            a.number(1, register).number(2, header as u32).number(3, offset).number(4, length);
        })
    }

    /// Writes a field of the packet from a register, and sets the checksum at `checksum` of the same header
    /// right. `pseudo`: the field is part of the transport's pseudo header, so that its checksum changes too.
    pub(super) fn store(
        self,
        register: u32,
        (header, offset, length): Field,
        checksum: Option<u32>,
        pseudo: bool,
    ) -> Self {
        self.expression("payload", |a| {
            a.number(5, register).number(2, header as u32).number(3, offset).number(4, length);
            a.number(6, u32::from(checksum.is_some())).number(7, checksum.unwrap_or(0));
            a.number(8, u32::from(pseudo));
        })
    }

    /// Goes on if the register has (or has not) the value.
    pub(super) fn compare(self, register: u32, equal: bool, value: &[u8]) -> Self {
        self.expression("cmp", |a| {
            a.number(1, register).number(2, u32::from(!equal)).nest(3, |data| {
                data.bytes(1, value);
            });
        })
    }

    /// Keeps the bits of the mask.
    pub(super) fn mask(self, register: u32, mask: &[u8]) -> Self {
        self.expression("bitwise", |a| {
            a.number(1, register).number(2, register).number(3, mask.len() as u32);
            a.nest(4, |data| {
                data.bytes(1, mask);
            });
            a.nest(5, |data| {
                data.bytes(1, &vec![0; mask.len()]);
            });
        })
    }

    /// Goes on if what begins at the register is (or is not) in the set.
    pub(super) fn member(self, register: u32, inside: bool, set: &str) -> Self {
        self.expression("lookup", |a| {
            a.text(1, set).number(2, register).number(5, u32::from(!inside));
        })
    }

    /// Goes on if the map has the key that begins at one register, with its value from the other on.
    pub(super) fn map(self, register: u32, map: &str, value: u32) -> Self {
        self.expression("lookup", |a| {
            a.text(1, map).number(2, register).number(3, value);
        })
    }

    /// Does what the map says for the key that begins at the register; goes on here where it says nothing.
    pub(super) fn verdict_of(self, register: u32, map: &str) -> Self {
        const VERDICT: u32 = 0;
        self.map(register, map, VERDICT)
    }

    /// Keeps an element for the key that begins at the register, and goes on once the key has come more often than
    /// that. A full set remembers no new key: then nothing is limited, rather than everybody.
    pub(super) fn more_often(self, set: &str, register: u32, pace: Pace, milliseconds: u64) -> Self {
        const UPDATE: u32 = 1;
        const INVERT: u32 = 1;
        self.expression("dynset", |a| {
            a.text(1, set).number(3, UPDATE).number(4, register).long(6, milliseconds);
            a.nest(7, |limit| {
                limit.text(1, "limit").nest(2, |limit| {
                    limit.long(1, pace.count.into()).long(2, pace.unit.seconds().into());
                    limit.number(3, pace.count).number(4, 0).number(5, INVERT);
                });
            });
        })
    }

    /// Keeps an element for the key that begins at the register, and goes on while it has more open connections.
    pub(super) fn more_connections(self, set: &str, register: u32, than: u32) -> Self {
        const ADD: u32 = 0;
        const INVERT: u32 = 1;
        self.expression("dynset", |a| {
            a.text(1, set).number(3, ADD).number(4, register);
            a.nest(7, |count| {
                count.text(1, "connlimit").nest(2, |count| {
                    count.number(1, than).number(2, INVERT);
                });
            });
        })
    }

    /// Loads a number below `modulus`, by chance.
    pub(super) fn by_chance(self, register: u32, modulus: u32) -> Self {
        const RANDOM: u32 = 1;
        self.expression("numgen", |a| {
            a.number(1, register).number(2, modulus).number(3, RANDOM).number(4, 0);
        })
    }

    /// Loads a number from `offset` on, below `offset + modulus`, that follows from as many bytes as there are in the
    /// field. The kernel seeds it by itself, so that nobody can tell who meets whom.
    pub(super) fn by_hash(self, field: Field, register: u32, modulus: u32, offset: u32) -> Self {
        const JENKINS: u32 = 0;
        self.load(field, register).expression("hash", |a| {
            a.number(1, register).number(2, register).number(3, field.2).number(4, modulus);
            a.number(6, offset).number(7, JENKINS);
        })
    }

    /// Loads a constant.
    pub(super) fn constant(self, register: u32, value: &[u8]) -> Self {
        self.expression("immediate", |a| {
            a.number(1, register).nest(2, |data| {
                data.bytes(1, value);
            });
        })
    }

    /// Goes on if one of the bits of the connection's state or status is set (`NFT_CT_STATE`, `NFT_CT_STATUS`).
    pub(super) fn connection(self, key: u32, bits: u32) -> Self {
        let rule = self.expression("ct", |a| {
            a.number(1, R0).number(2, key);
        });
        rule.mask(R0, &bits.to_ne_bytes()).compare(R0, false, &[0; 4])
    }

    /// Goes on if the destination is an address of the host (`RTN_LOCAL`).
    pub(super) fn local_destination(self) -> Self {
        let rule = self.expression("fib", |a| {
            a.number(1, R0).number(2, 3).number(3, 2);
        });
        rule.compare(R0, true, &2u32.to_ne_bytes())
    }

    /// Goes on if no route leads from here back to the source by the way the packet came (`NFT_FIB_F_SADDR`,
    /// `NFT_FIB_F_IIF`, `NFT_FIB_F_PRESENT`, `NFT_FIB_RESULT_OIF`).
    pub(super) fn foreign_source(self, register: u32) -> Self {
        const SADDR: u32 = 1 << 0;
        const IIF: u32 = 1 << 3;
        const PRESENT: u32 = 1 << 5;
        const OIF: u32 = 1;
        let rule = self.expression("fib", |a| {
            a.number(1, register).number(2, OIF).number(3, SADDR | IIF | PRESENT);
        });
        rule.compare(register, true, &[0; 4])
    }

    /// Goes on if a socket of the host waits for the packet at that very address, and not at all of them
    /// (`NFT_SOCKET_WILDCARD`).
    pub(super) fn expected_there(self, register: u32) -> Self {
        let rule = self.expression("socket", |a| {
            a.number(1, 2).number(2, register);
        });
        rule.compare(register, true, &[0])
    }

    /// Adds or refreshes an element of a map whose key and value begin at these registers.
    pub(super) fn remember(self, map: &str, key: u32, value: u32, milliseconds: u64) -> Self {
        self.expression("dynset", |a| {
            a.text(1, map).number(3, 1).number(4, key).number(5, value).long(6, milliseconds);
        })
    }

    /// Translates the destination to the address and port in these registers; no port leaves the port as it is.
    pub(super) fn dnat(self, ipv6: bool, address: u32, port: Option<u32>) -> Self {
        self.expression("nat", |a| {
            a.number(1, 1).number(2, if ipv6 { 10 } else { 2 }).number(3, address);
            if let Some(port) = port {
                a.number(5, port);
            }
        })
    }

    /// Takes the host's own address on the outgoing interface.
    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Leaves the packet out of connection tracking.
    pub(super) fn untracked(self) -> Self {
        self.expression("notrack", |_| {})
    }

    /// Counts what comes this far.
    pub(super) fn counter(self) -> Self {
        self.expression("counter", |_| {})
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |a| {
            a.number(1, 0).nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.number(1, code as u32);
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        })
    }

    /// This table has no objection; other tables may have.
    pub(super) fn accept(self) -> Self {
        self.verdict(ACCEPT, None)
    }

    /// The packet is gone.
    pub(super) fn drop(self) -> Self {
        self.counter().verdict(DROP, None)
    }

    /// Goes through the chain, and on here if that decides nothing.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(JUMP, Some(chain))
    }
}

/// Phrases that many rules begin with.
impl Rule {
    /// Only packets of the family.
    pub(super) fn family(self, ipv6: bool) -> Self {
        self.meta(Meta::Nfproto, R0).compare(R0, true, &[if ipv6 { 10 } else { 2 }])
    }

    /// Only what came in through an interface in (or outside) the set.
    pub(super) fn from(self, inside: bool, set: &str) -> Self {
        self.meta(Meta::Iifname, R0).member(R0, inside, set)
    }

    /// Only what goes out through an interface in (or outside) the set.
    pub(super) fn to(self, inside: bool, set: &str) -> Self {
        self.meta(Meta::Oifname, R0).member(R0, inside, set)
    }

    /// Only what goes from one interface to another that stand beside each other in the set.
    pub(super) fn between(self, set: &str) -> Self {
        self.meta(Meta::Iifname, R0).meta(Meta::Oifname, R0 + 4).member(R0, true, set)
    }

    /// Only what came in through (or not through) loopback.
    pub(super) fn by_loopback(self, yes: bool) -> Self {
        self.meta(Meta::Iifname, R0).compare(R0, yes, b"lo\0")
    }
}
