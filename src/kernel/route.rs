//! Messages that set, delete and list routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType},
};
use rnetkit_drivers::StaticRoute;
use rtnetlink::RouteMessageBuilder;

use super::netlink::{Answer, parse};

/// Whatever default route there is becomes this one.
pub(super) const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// The default route through a gateway.
pub(super) fn default(gateway: IpAddr, index: u32) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => {
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
        }
        IpAddr::V6(gateway) => {
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
        }
    }
}

/// A route to somewhere.
pub(super) fn to(route: &StaticRoute, index: u32) -> RouteMessage {
    match (route.destination, route.gateway) {
        (IpNetwork::V4(to), gateway) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.ip(), to.prefix())
                .output_interface(index);
            match gateway {
                Some(IpAddr::V4(gateway)) => builder.gateway(gateway).build(),
                _ => builder.scope(RouteScope::Link).build(),
            }
        }
        (IpNetwork::V6(to), gateway) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.ip(), to.prefix())
                .output_interface(index);
            match gateway {
                Some(IpAddr::V6(gateway)) => builder.gateway(gateway).build(),
                _ => builder.build(),
            }
        }
    }
}

/// The way to one address, on the link itself.
pub(super) fn behind(address: IpAddr, index: u32) -> RouteMessage {
    to(&StaticRoute { destination: address.into(), gateway: None }, index)
}

/// Asks for all routes of a family.
pub(super) fn list(ipv6: bool) -> RouteNetlinkMessage {
    let message = if ipv6 {
        RouteMessageBuilder::<Ipv6Addr>::new().build()
    } else {
        RouteMessageBuilder::<Ipv4Addr>::new().build()
    };
    let mut message = message;
    message.header.table = 0;
    RouteNetlinkMessage::GetRoute(message)
}

/// A route as the kernel has it.
pub(super) struct Route {
    pub(super) destination: IpNetwork,
    pub(super) gateway: Option<IpAddr>,
    pub(super) link: u32,
    pub(super) table: u32,
    pub(super) is_unicast: bool,
}

/// Reads an answer.
pub(super) fn read(answer: &Answer<'_>) -> Option<Route> {
    let Some(RouteNetlinkMessage::NewRoute(message)) = parse(answer) else { return None };
    let ipv6 = message.header.address_family == netlink_packet_route::AddressFamily::Inet6;
    let any = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let (mut destination, mut gateway, mut link, mut table) = (any, None, 0, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address).unwrap_or(any),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => link = *index,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let destination = IpNetwork::new(destination, message.header.destination_prefix_length).ok()?;
    let is_unicast = message.header.kind == RouteType::Unicast;
    Some(Route { destination, gateway, link, table, is_unicast })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The main table (`RT_TABLE_MAIN`).
pub(super) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
