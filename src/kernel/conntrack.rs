//! Connections that the kernel remembers, where they stand in the way of a published UDP port: a UDP flow has no
//! end, so a client that goes on sending would go on reaching whoever had the port before.
//!
//! Touches flows of the very port that changes, and no others. Knows nothing of networks.

use std::net::IpAddr;

use rnetkit_drivers::{PortRange, Protocol, Publication};

use super::{
    Refusal,
    netlink::{Channel, is_verdict, refusal},
};

/// `NFNL_SUBSYS_CTNETLINK` of `linux/netfilter/nfnetlink.h`, and `IPCTNL_MSG_CT_*` of `nfnetlink_conntrack.h`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const DONE: u16 = 3;

/// `CTA_*`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// `CTA_TUPLE_*`, `CTA_IP_*`, `CTA_PROTO_*`, `CTA_FILTER_*`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const FILTER_ORIGINAL: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE: u16 = 0x3fff;
/// `CTA_FILTER_F_CTA_PROTO_NUM` and `..._DST_PORT` of `net/netfilter/nf_internals.h`.
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// How many flows are deleted with one buffer.
const DELETIONS: usize = 256;
/// A netlink header and that of nfnetlink.
const HEADERS: usize = 20;

/// What became of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It leads to its container now: what the host took for its own flows is forgotten.
    Opened,
    /// It leads nowhere now: flows to the container are forgotten.
    Closed,
}

/// Whether there can be flows in the way at all.
pub(super) fn concerns(publication: &Publication) -> bool {
    publication.protocol == Protocol::Udp && !publication.host.is_loopback()
}

/// Forgets the flows that the changes put in the wrong. `locals` are the host's own addresses.
pub(super) fn forget(
    channel: &mut Channel,
    changes: &[(Publication, Change)],
    locals: &[IpAddr],
) -> Result<(), Refusal> {
    for ipv6 in [false, true] {
        let ports = changes.iter().filter(|(publication, _)| publication.host.is_ipv6() == ipv6);
        let ports: Vec<PortRange> = ports.map(|(publication, _)| publication.host_ports).collect();
        if ports.is_empty() {
            continue;
        }
        let wrong = |flow: &Flow| changes.iter().any(|(port, change)| flow.is_wrong(port, *change, locals));
        let mut flows = list(channel, ipv6, &ports)?;
        flows.retain(wrong);
        for some in flows.chunks(DELETIONS) {
            delete(channel, ipv6, some)?;
        }
    }
    Ok(())
}

/// Whether any bytes are a flow, for fuzz targets.
#[cfg(any(test, fuzzing))]
pub(super) fn reads(body: &[u8]) -> bool {
    Flow::read(body).is_some()
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// A flow: as it began, as its replies are expected, and the attributes that name it to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flow {
    original: Tuple,
    reply: Tuple,
    name: Vec<u8>,
}

impl Flow {
    fn is_wrong(&self, publication: &Publication, change: Change, locals: &[IpAddr]) -> bool {
        let asked = self.original.destination;
        let everywhere = publication.host.is_unspecified();
        let is_of_port = self.original.protocol == publication.protocol.number()
            && publication.host_ports.contains(self.original.destination_port)
            && asked.is_ipv6() == publication.host.is_ipv6()
            && (everywhere || asked == publication.host);
        is_of_port
            && match change {
                Change::Opened => self.reply.source == asked && (!everywhere || locals.contains(&asked)),
                Change::Closed => {
                    self.reply.source == publication.target
                        && publication.target_ports.contains(self.reply.source_port)
                }
            }
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut name = Vec::new();
        for kind in [TUPLE_ORIGINAL, ZONE, ID] {
            if let Some(value) = find(body, kind) {
                let flag = if kind == TUPLE_ORIGINAL { NLA_F_NESTED } else { 0 };
                put(&mut name, kind | flag, value);
            }
        }
        let original = Tuple::read(find(body, TUPLE_ORIGINAL)?)?;
        Some(Self { original, reply: Tuple::read(find(body, TUPLE_REPLY)?)?, name })
    }
}

impl Tuple {
    fn read(body: &[u8]) -> Option<Self> {
        let (addresses, protocol) = (find(body, TUPLE_IP)?, find(body, TUPLE_PROTOCOL)?);
        // CTA_IP_V4_SRC, V4_DST, V6_SRC, V6_DST.
        let v4 = |kind| Some(IpAddr::from(<[u8; 4]>::try_from(find(addresses, kind)?).ok()?));
        let v6 = |kind| Some(IpAddr::from(<[u8; 16]>::try_from(find(addresses, kind)?).ok()?));
        let port = |kind| Some(u16::from_be_bytes(find(protocol, kind)?.try_into().ok()?));
        Some(Self {
            source: v4(1).or_else(|| v6(3))?,
            destination: v4(2).or_else(|| v6(4))?,
            protocol: *find(protocol, PROTOCOL_NUMBER)?.first()?,
            source_port: port(SOURCE_PORT)?,
            destination_port: port(DESTINATION_PORT)?,
        })
    }
}

fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([rest[2], rest[3]]) & NLA_TYPE == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn put(list: &mut Vec<u8>, kind: u16, value: &[u8]) {
    list.extend((value.len() as u16 + 4).to_ne_bytes());
    list.extend(kind.to_ne_bytes());
    list.extend(value);
    list.resize(list.len().next_multiple_of(4), 0);
}

fn message(kind: u16, flags: u16, sequence: u32, ipv6: bool, body: &[u8]) -> Vec<u8> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    let mut buffer = Vec::with_capacity(HEADERS + body.len());
    buffer.extend(((HEADERS + body.len()) as u32).to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    buffer.extend(sequence.to_ne_bytes());
    buffer.extend([0; 4]);
    buffer.extend([family, 0, 0, 0]);
    buffer.extend(body);
    buffer
}

/// What the kernel is to leave out of a list: all but UDP, and all but one port where there is just one. Kernels
/// before 5.9 do not know filters and list everything, so the answer is looked through all the same.
fn filter(ports: &[PortRange]) -> Vec<u8> {
    let one = ports.first().filter(|first| first.count() == 1 && ports.iter().all(|port| port == *first));
    let mut protocol = Vec::new();
    put(&mut protocol, PROTOCOL_NUMBER, &[Protocol::Udp.number()]);
    let mut flags = BY_PROTOCOL;
    if let Some(port) = one {
        put(&mut protocol, DESTINATION_PORT, &port.first.to_be_bytes());
        flags |= BY_DESTINATION_PORT;
    }
    let (mut tuple, mut wanted, mut body) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut tuple, TUPLE_PROTOCOL | NLA_F_NESTED, &protocol);
    put(&mut body, TUPLE_ORIGINAL | NLA_F_NESTED, &tuple);
    put(&mut wanted, FILTER_ORIGINAL, &flags.to_ne_bytes());
    put(&mut body, FILTER | NLA_F_NESTED, &wanted);
    body
}

fn list(channel: &mut Channel, ipv6: bool, ports: &[PortRange]) -> Result<Vec<Flow>, Refusal> {
    channel.send(&message(GET, NLM_F_DUMP, 1, ipv6, &filter(ports)))?;
    let mut flows = Vec::new();
    let mut refused = None;
    loop {
        let done = channel.receive(|answer| {
            refused = refused.take().or_else(|| refusal(&answer));
            if answer.kind == DONE || is_verdict(&answer) {
                return true;
            }
            flows.extend(answer.body.get(4..).and_then(Flow::read));
            false
        })?;
        if done {
            return refused.map_or(Ok(flows), Err);
        }
    }
}

/// Deletes flows; one that is gone by now is no error.
fn delete(channel: &mut Channel, ipv6: bool, flows: &[Flow]) -> Result<(), Refusal> {
    let mut buffer = Vec::new();
    for (number, flow) in flows.iter().enumerate() {
        buffer.extend(message(DELETE, NLM_F_ACK, number as u32 + 1, ipv6, &flow.name));
    }
    channel.send(&buffer)?;
    let mut first = None;
    let mut left = flows.len();
    while left > 0 {
        channel.receive(|answer| {
            if is_verdict(&answer) {
                left -= 1;
                first = first.take().or_else(|| refusal(&answer).filter(|refusal| !refusal.is_missing()));
            }
            left == 0
        })?;
    }
    first.map_or(Ok(()), Err)
}
