//! Messages that add, delete and list addresses of links.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};
use rtnetlink::AddressMessageBuilder;

use super::netlink::{Answer, parse};

/// Adds an address. An IPv6 address is usable at once: rnet itself keeps addresses unique.
pub(super) fn add(index: u32, address: IpNetwork) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(message(index, address))
}

/// Deletes an address.
pub(super) fn delete(index: u32, address: IpNetwork) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(message(index, address))
}

/// Asks for all addresses.
pub(super) fn list() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

fn message(index: u32, address: IpNetwork) -> AddressMessage {
    match address {
        IpNetwork::V4(address) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
            .index(index)
            .address(address.ip(), address.prefix())
            .build(),
        IpNetwork::V6(address) => {
            let builder = AddressMessageBuilder::<std::net::Ipv6Addr>::new().index(index);
            let mut message = builder.address(address.ip(), address.prefix()).build();
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    }
}

/// Link and address of an answer.
pub(super) fn read(answer: &Answer<'_>) -> Option<(u32, IpNetwork)> {
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) =
        parse(answer)?
    else {
        return None;
    };
    let mut found: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            _ => {}
        }
    }
    Some((message.header.index, IpNetwork::new(found?, message.header.prefix_len).ok()?))
}
