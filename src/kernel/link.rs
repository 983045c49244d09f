//! Messages that make, change, find and delete links.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage,
    },
};
use rnetkit_drivers::{InterfaceName, LinkTuning, MacAddress};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{Refusal, netlink::Answer, overlay};

/// What is made must not exist, and its index comes back.
pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO | NLM_F_ACK;

/// One queue each way: the default is one for each possible CPU, which costs milliseconds on large hosts, and a
/// veth pair gains nothing from more.
const QUEUES: u32 = 1;

/// A veth pair to be made.
pub(super) struct Veth<'a> {
    pub(super) name: &'a InterfaceName,
    pub(super) bridge: Option<u32>,
    pub(super) peer: &'a InterfaceName,
    pub(super) netns: BorrowedFd<'a>,
    pub(super) mac: MacAddress,
    pub(super) mtu: u32,
    pub(super) group: u32,
}

impl Veth<'_> {
    /// Both ends in one message, the peer directly in the container's namespace, both down.
    pub(super) fn create(&self) -> RouteNetlinkMessage {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(self.peer.as_str())
            .mtu(self.mtu)
            .address(self.mac.0.to_vec())
            .append_extra_attribute(LinkAttribute::NumTxQueues(QUEUES))
            .append_extra_attribute(LinkAttribute::NumRxQueues(QUEUES))
            .setns_by_fd(self.netns.as_raw_fd())
            .build();
        let mut builder = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
        if let Some(bridge) = self.bridge {
            builder = builder.controller(bridge);
        }
        let message = builder
            .name(self.name.as_str())
            .mtu(self.mtu)
            .link_group(self.group)
            .append_extra_attribute(LinkAttribute::NumTxQueues(QUEUES))
            .append_extra_attribute(LinkAttribute::NumRxQueues(QUEUES))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        RouteNetlinkMessage::NewLink(message)
    }
}

/// A bridge to be made, down.
pub(super) fn create_bridge(
    name: &InterfaceName,
    mac: MacAddress,
    mtu: u32,
    group: u32,
) -> RouteNetlinkMessage {
    // `LinkBridge::new` alone would bring it up, before anything that makes it safe.
    let message = LinkBridge::new(name.as_str())
        .down()
        .address(mac.0.to_vec())
        .mtu(mtu)
        .link_group(group)
        .mcast_snooping(false)
        .build();
    RouteNetlinkMessage::NewLink(message)
}

/// Sets the flags of a bridge's port. In the message that creates the port the kernel ignores them.
pub(super) fn set_port(index: u32, isolated: bool, hairpin: bool, pinned: bool) -> RouteNetlinkMessage {
    let message = LinkBridgePort::new(index)
        .isolated(isolated)
        .hairpin(hairpin)
        .learning(!pinned)
        .flood(!pinned)
        .append_info_data(InfoBridgePort::Locked(pinned))
        .build();
    RouteNetlinkMessage::NewLink(message)
}

/// Sets the text that says whose a link is.
pub(super) fn set_alias(index: u32, alias: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(LinkMessageBuilder::<LinkUnspec>::new().index(index).alias(alias).build())
}

/// Makes a link a port of a bridge again.
pub(super) fn set_master(index: u32, bridge: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(
        LinkMessageBuilder::<LinkUnspec>::new().index(index).controller(bridge).build(),
    )
}

/// Gives a bridge its hardware address and its largest packet again.
pub(super) fn set_bridge(index: u32, mac: MacAddress, mtu: u32) -> RouteNetlinkMessage {
    let builder = LinkMessageBuilder::<LinkUnspec>::new().index(index);
    RouteNetlinkMessage::SetLink(builder.address(mac.0.to_vec()).mtu(mtu).build())
}

/// How long the packets of a link are, and how many of them wait.
pub(super) fn set_packets(index: u32, mtu: u32, queue: u32) -> RouteNetlinkMessage {
    let builder = LinkMessageBuilder::<LinkUnspec>::new().index(index).mtu(mtu);
    RouteNetlinkMessage::SetLink(builder.append_extra_attribute(LinkAttribute::TxQueueLen(queue)).build())
}

/// Makes a link other than it was born.
pub(super) fn tune(index: u32, tuning: &LinkTuning) -> RouteNetlinkMessage {
    let mut builder = LinkMessageBuilder::<LinkUnspec>::new().index(index);
    if let Some(mac) = tuning.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = tuning.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(queue) = tuning.queue {
        builder = builder.append_extra_attribute(LinkAttribute::TxQueueLen(queue));
    }
    let mut message = builder.build();
    for (wanted, flag) in
        [(tuning.promiscuous, LinkFlags::Promisc), (tuning.all_multicast, LinkFlags::Allmulti)]
    {
        if let Some(on) = wanted {
            message.header.change_mask |= flag;
            message.header.flags.set(flag, on);
        }
    }
    RouteNetlinkMessage::SetLink(message)
}

/// Brings a link up.
pub(super) fn set_up(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build())
}

/// Brings a link down.
pub(super) fn set_down(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(LinkMessageBuilder::<LinkUnspec>::new().index(index).down().build())
}

/// Deletes one link.
pub(super) fn delete(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(LinkMessageBuilder::<LinkUnspec>::new().index(index).build())
}

/// Deletes all links of a group.
pub(super) fn delete_group(group: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(LinkMessageBuilder::<LinkUnspec>::new().link_group(group).build())
}

/// Asks for a link by name, without its statistics.
pub(super) fn get(name: &InterfaceName) -> RouteNetlinkMessage {
    let message = LinkMessageBuilder::<LinkUnspec>::new()
        .name(name.as_str())
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
        .build();
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for all links, without their statistics.
pub(super) fn list() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// A link as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) kind: String,
    pub(super) mac: Vec<u8>,
    pub(super) mtu: u32,
    pub(super) queue: u32,
    pub(super) flags: LinkFlags,
    pub(super) group: u32,
    pub(super) master: u32,
    /// The other end's index, for a veth; that of the interface that it shares, for a macvlan or ipvlan.
    pub(super) peer: u32,
    pub(super) alias: String,
    /// It is a port of a bridge, with these flags.
    pub(super) is_port: bool,
    pub(super) isolated: bool,
    pub(super) hairpin: bool,
    pub(super) learning: bool,
    /// The bridge answers ARP itself here.
    pub(super) answers: bool,
    /// How it shares its interface, for a macvlan or ipvlan.
    pub(super) mode: Option<u32>,
    /// The network's number, UDP port and own address, for a VXLAN tunnel.
    pub(super) tunnel: Option<(u32, u16, IpAddr)>,
}

impl Link {
    /// Reads an answer, as far as rnet needs it: `netlink-packet-route` reads a whole link, and that
    /// shows in the time of a connect.
    pub(super) fn read(answer: &Answer<'_>) -> Option<Self> {
        /// `RTM_NEWLINK` and `RTM_DELLINK` of `linux/rtnetlink.h`.
        const LINKS: [u16; 2] = [16, 17];
        /// Bytes of `struct ifinfomsg`, with index and flags at these places.
        const HEADER: usize = 16;
        const INDEX: usize = 4;
        const FLAGS: usize = 8;
        let (header, attributes) = answer.body.split_at_checked(HEADER)?;
        if !LINKS.contains(&answer.kind) {
            return None;
        }
        let flags = LinkFlags::from_bits_truncate(number(&header[FLAGS..]));
        let up = flags.contains(LinkFlags::Up);
        let mut link = Self { index: number(&header[INDEX..]), up, flags, ..Self::default() };
        for attribute in NlasIterator::new(attributes).flatten() {
            link.take(attribute.kind(), attribute.value());
        }
        Some(link)
    }

    fn take(&mut self, kind: u16, value: &[u8]) {
        match kind {
            libc::IFLA_IFNAME => self.name = text(value),
            libc::IFLA_ADDRESS => self.mac = value.to_vec(),
            libc::IFLA_MTU => self.mtu = number(value),
            libc::IFLA_TXQLEN => self.queue = number(value),
            libc::IFLA_GROUP => self.group = number(value),
            libc::IFLA_MASTER => self.master = number(value),
            libc::IFLA_LINK => self.peer = number(value),
            libc::IFLA_IFALIAS => self.alias = text(value),
            libc::IFLA_LINKINFO => {
                NlasIterator::new(value).flatten().for_each(|info| self.take_info(info.kind(), info.value()))
            }
            _ => {}
        }
    }

    /// What kind of link it is, and of what kind of link it is a port; the kernel says that before the flags.
    fn take_info(&mut self, kind: u16, value: &[u8]) {
        match kind {
            libc::IFLA_INFO_KIND => self.kind = text(value),
            libc::IFLA_INFO_DATA if self.kind == "vxlan" => self.tunnel = tunnel(value),
            libc::IFLA_INFO_DATA if ["macvlan", "ipvlan"].contains(&self.kind.as_str()) => {
                self.mode = mode(value);
            }
            libc::IFLA_INFO_SLAVE_KIND => self.is_port = text(value) == "bridge",
            libc::IFLA_INFO_SLAVE_DATA if self.is_port => {
                NlasIterator::new(value)
                    .flatten()
                    .for_each(|flag| self.take_flag(flag.kind(), flag.value() == [1]));
            }
            _ => {}
        }
    }

    fn take_flag(&mut self, kind: u16, on: bool) {
        /// `IFLA_BRPORT_MODE`, `IFLA_BRPORT_LEARNING` and `IFLA_BRPORT_ISOLATED` of `linux/if_link.h`.
        const HAIRPIN: u16 = 4;
        const LEARNING: u16 = 8;
        const ISOLATED: u16 = 33;
        /// `IFLA_BRPORT_PROXYARP_WIFI`.
        const ANSWERS: u16 = 12;
        match kind {
            HAIRPIN => self.hairpin = on,
            LEARNING => self.learning = on,
            ISOLATED => self.isolated = on,
            ANSWERS => self.answers = on,
            _ => {}
        }
    }
}

/// What a VXLAN tunnel says of itself (`IFLA_VXLAN_*` of `linux/if_link.h`).
fn tunnel(value: &[u8]) -> Option<(u32, u16, IpAddr)> {
    const ID: u16 = 1;
    const LOCAL: u16 = 4;
    const PORT: u16 = 15;
    const LOCAL6: u16 = 17;
    let (mut vni, mut port, mut local) = (None, None, None);
    for attribute in NlasIterator::new(value).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            ID => vni = Some(number(value)),
            PORT => port = value.first_chunk().copied().map(u16::from_be_bytes),
            LOCAL | LOCAL6 => local = overlay::ip(value),
            _ => {}
        }
    }
    Some((vni?, port?, local?))
}

/// `IFLA_MACVLAN_MODE` has four bytes, and `IFLA_IPVLAN_MODE` two; both have the same number.
fn mode(value: &[u8]) -> Option<u32> {
    const MODE: u16 = 1;
    let found = NlasIterator::new(value).flatten().find(|attribute| attribute.kind() == MODE)?;
    match *found.value() {
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}

/// A number in the machine's own order; 0 where there are not enough bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map_or(0, u32::from_ne_bytes)
}

/// A text up to its closing NUL.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Finds a link by name; `None` where there is none.
pub(super) fn find(route: &mut super::netlink::Route, name: &InterfaceName) -> Result<Option<Link>, Refusal> {
    match route.get(get(name), Link::read) {
        Err(refusal) if refusal.is_missing() => Ok(None),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_born_down() {
        let name = "rn-0".parse().unwrap();
        let mac = "02:42:00:00:00:01".parse().unwrap();
        let RouteNetlinkMessage::NewLink(message) = create_bridge(&name, mac, 1500, 1) else {
            panic!("no link");
        };
        assert!(!message.header.flags.contains(LinkFlags::Up));
    }
}
