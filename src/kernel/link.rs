//! Messages that make, change, find and delete links.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader,
        LinkInfo, LinkMessage,
    },
};
use rnetkit_drivers::{InterfaceName, MacAddress};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::Refusal;

/// What is made must not exist, and its index comes back.
pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO | NLM_F_ACK;

/// One queue each way: the default is one for each possible CPU, which costs milliseconds on large hosts, and a
/// veth pair gains nothing from more.
const QUEUES: u32 = 1;

/// A veth pair to be made.
pub(super) struct Veth<'a> {
    pub(super) name: &'a InterfaceName,
    pub(super) bridge: u32,
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
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(self.name.as_str())
            .mtu(self.mtu)
            .controller(self.bridge)
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
    let message = LinkBridge::new(name.as_str())
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
    pub(super) group: u32,
    pub(super) master: u32,
    /// The other end's index, for a veth.
    pub(super) peer: u32,
    pub(super) alias: String,
    /// It is a port of a bridge, with these flags.
    pub(super) is_port: bool,
    pub(super) isolated: bool,
    pub(super) hairpin: bool,
    pub(super) learning: bool,
}

impl Link {
    /// Reads an answer.
    pub(super) fn read(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else {
            return None;
        };
        let LinkHeader { index, flags, .. } = message.header;
        let mut link = Self { index, up: flags.contains(LinkFlags::Up), ..Self::default() };
        message.attributes.iter().for_each(|attribute| link.take(attribute));
        Some(link)
    }

    fn take(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name.clone_from(name),
            LinkAttribute::Address(mac) => self.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => self.mtu = *mtu,
            LinkAttribute::Group(group) => self.group = *group,
            LinkAttribute::Controller(master) => self.master = *master,
            LinkAttribute::Link(peer) => self.peer = *peer,
            LinkAttribute::IfAlias(alias) => self.alias.clone_from(alias),
            LinkAttribute::LinkInfo(list) => list.iter().for_each(|info| self.take_info(info)),
            _ => {}
        }
    }

    fn take_info(&mut self, info: &LinkInfo) {
        use netlink_packet_route::link::InfoPortData;
        match info {
            LinkInfo::Kind(kind) => self.kind = kind.to_string(),
            LinkInfo::PortData(InfoPortData::BridgePort(flags)) => {
                self.is_port = true;
                for flag in flags {
                    match flag {
                        InfoBridgePort::Isolated(on) => self.isolated = *on,
                        InfoBridgePort::HairpinMode(on) => self.hairpin = *on,
                        InfoBridgePort::Learning(on) => self.learning = *on,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// Finds a link by name; `None` where there is none.
pub(super) fn find(route: &mut super::netlink::Route, name: &InterfaceName) -> Result<Option<Link>, Refusal> {
    match route.get(get(name)) {
        Ok(answer) => Ok(answer.as_ref().and_then(Link::read)),
        Err(refusal) if refusal.is_missing() => Ok(None),
        Err(refusal) => Err(refusal),
    }
}
