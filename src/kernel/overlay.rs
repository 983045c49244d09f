//! Messages of overlay networks: tunnels, the ways out of sandboxes, and who is behind whom.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::RouteProtocol,
};
use rnetkit_drivers::{
    MacAddress,
    resource::{Tunnel, Uplink},
};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use super::netlink::Answer;

/// What is there is overwritten: an entry that somebody else made, or the kernel learned, is no reason to have none.
pub(super) const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// The mark of neighbours that rnet made (`NDA_PROTOCOL`): a number that nobody else has in iproute2's list.
const PROTOCOL: u8 = 114;

/// The tunnel, born in the sandbox and down; its socket stays where the message is sent. It learns nothing, and asks nobody.
pub(super) fn create_tunnel(tunnel: &Tunnel, sandbox: BorrowedFd<'_>) -> RouteNetlinkMessage {
    let message = LinkVxlan::new(tunnel.name.as_str(), tunnel.vni)
        .down()
        .port(tunnel.port)
        .learning(false)
        .udp_csum(true)
        .udp_zero_csum6_tx(false)
        .udp_zero_csum6_rx(false)
        .mtu(tunnel.mtu)
        .link_group(tunnel.group)
        .setns_by_fd(sandbox.as_raw_fd());
    let message = match tunnel.local {
        IpAddr::V4(address) => message.local(address),
        IpAddr::V6(address) => message.local6(address),
    };
    RouteNetlinkMessage::NewLink(message.build())
}

/// The tunnel as a port: nothing is learned there, nothing flooded to it, and it reaches no other isolated port.
pub(super) fn set_tunnel_port(index: u32) -> RouteNetlinkMessage {
    let message = LinkBridgePort::new(index)
        .learning(false)
        .flood(false)
        .mcast_flood(false)
        .bcast_flood(false)
        .neigh_suppress(true)
        .isolated(true)
        .build();
    RouteNetlinkMessage::NewLink(message)
}

/// Whether the bridge answers ARP itself for what is behind a port. (The flag without `WIFI` would also keep every
/// broadcast and multicast from the port, IPv6's neighbour discovery among them.)
pub(super) fn set_answers(index: u32, yes: bool) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(
        LinkBridgePort::new(index).append_info_data(InfoBridgePort::ProxyARPWifi(yes)).build(),
    )
}

/// Both ends in one message: one here, one in the sandbox.
pub(super) fn create_uplink(uplink: &Uplink, sandbox: BorrowedFd<'_>) -> RouteNetlinkMessage {
    let one_queue = |builder: LinkMessageBuilder<LinkUnspec>| {
        builder
            .append_extra_attribute(LinkAttribute::NumTxQueues(1))
            .append_extra_attribute(LinkAttribute::NumRxQueues(1))
    };
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(uplink.peer.as_str())
        .mtu(uplink.mtu)
        .link_group(uplink.group)
        .setns_by_fd(sandbox.as_raw_fd());
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(uplink.name.as_str())
        .address(uplink.mac.0.to_vec())
        .mtu(uplink.mtu)
        .link_group(uplink.group)
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(one_queue(peer).build())));
    RouteNetlinkMessage::NewLink(message.build())
}

/// `NUD_NOARP` and `NUD_PERMANENT` together, as `bridge fdb add` sends them for an entry of a tunnel.
const FIXED: NeighbourState = NeighbourState::Other(0x40 | 0x80);

/// The tunnel's own table: frames to the hardware address go to that host.
pub(super) fn behind_host(tunnel: u32, mac: MacAddress, via: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = tunnel;
    message.header.state = FIXED;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(destination(via)));
    message
}

/// The bridge's table: frames to the hardware address go into the tunnel, and no local container can take it over.
pub(super) fn behind_tunnel(tunnel: u32, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = tunnel;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// The hardware address of an IP address. Permanent: others go when the bridge loses its carrier.
pub(super) fn neighbour(bridge: u32, address: IpAddr, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.ifindex = bridge;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(destination(address)));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    message
}

fn destination(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }
}

/// Asks for all entries of a family; of `AF_BRIDGE`, those of tunnels and of bridges.
pub(super) fn list(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// An entry as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) state: u16,
    pub(super) flags: u8,
    pub(super) mac: Vec<u8>,
    pub(super) address: Option<IpAddr>,
}

impl Entry {
    /// It is of the bridge: a tunnel marks its own (`NTF_SELF`).
    pub(super) fn is_of_bridge(&self) -> bool {
        self.flags & 0x02 == 0
    }

    /// It stays (`NUD_PERMANENT`).
    pub(super) fn is_permanent(&self) -> bool {
        self.state & 0x80 != 0
    }

    /// Reads an answer: `struct ndmsg` of `linux/neighbour.h`, then attributes.
    pub(super) fn read(answer: &Answer<'_>) -> Option<Self> {
        /// `RTM_NEWNEIGH`.
        const NEIGHBOUR: u16 = 28;
        const HEADER: usize = 12;
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        if answer.kind != NEIGHBOUR {
            return None;
        }
        let (header, attributes) = answer.body.split_at_checked(HEADER)?;
        let mut entry = Self {
            index: u32::from_ne_bytes(header[4..8].try_into().ok()?),
            state: u16::from_ne_bytes([header[8], header[9]]),
            flags: header[10],
            ..Self::default()
        };
        for attribute in NlasIterator::new(attributes).flatten() {
            match attribute.kind() {
                NDA_LLADDR => entry.mac = attribute.value().to_vec(),
                NDA_DST => entry.address = ip(attribute.value()),
                _ => {}
            }
        }
        Some(entry)
    }
}

/// An address by its bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}
