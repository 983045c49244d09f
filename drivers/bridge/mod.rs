//! `bridge`: a bridge on the host, a veth pair for each container, addresses, masquerade, published ports.

mod settings;

use alloc::{format, string::String, vec, vec::Vec};
use core::net::IpAddr;

use ipnetwork::IpNetwork;
pub(crate) use settings::interface_prefix;
pub use settings::{EndpointSettings, GatewayMode, Loopback, Settings};

use crate::{
    Abilities, BadOption, Driver, Endpoint, Family, InterfaceName, MacAddress, Member, Names, Network, Place,
    PortRange, Publication, Resource, Setting, bandwidth,
};

/// The device of the network `bridge`, which is there without being made.
pub const DEFAULT_DEVICE: &str = "rnet0";

/// The most ports that a bridge of the Linux kernel has: `BR_MAX_PORTS` of `net/bridge/br_private.h` less the
/// number 0, which is never given.
pub const MOST_PORTS: usize = 1023;

/// The driver.
pub struct Bridge;

impl Driver for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: true, connectable: true, addresses: true, lan: false }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        Settings::of(network).map(drop)
    }

    fn network(&self, network: &Network) -> Result<Vec<Resource>, BadOption> {
        let settings = Settings::of(network)?;
        let link = settings.device.clone();
        let mut list = vec![Resource::Firewall];
        if !network.internal {
            list.extend(forwarding(network));
        }
        list.push(Resource::Bridge {
            name: link.clone(),
            mac: bridge_mac(network),
            mtu: settings.mtu,
            group: network.group,
            alias: alias(network, None),
        });
        list.extend(link_settings(Place::Host, &link, network.has_family(true)));
        list.extend(firewall_members(network, &settings));
        if settings.connection_rate.is_some() || settings.most_connections.is_some() {
            let (rate, most) = (settings.connection_rate, settings.most_connections);
            list.push(Resource::Guarded { link: link.clone(), rate, most });
        }
        for address in gateway_addresses(network, &settings) {
            list.push(Resource::Address { place: Place::Host, link: link.clone(), address });
        }
        list.push(Resource::Up { place: Place::Host, link });
        Ok(list)
    }

    fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        let settings = Settings::of(network)?;
        let limits = EndpointSettings::of(endpoint, settings.mtu)?.limits;
        let port = port_name(endpoint);
        let inside = endpoint.interface.clone();
        let mut list = vec![Resource::Veth {
            name: port.clone(),
            bridge: Some(settings.device.clone()),
            peer: inside.clone(),
            mac: endpoint.mac,
            mtu: settings.mtu,
            group: network.group,
        }];
        list.push(Resource::Setting { place: Place::Host, link: port.clone(), setting: Setting::Ipv6Off });
        list.extend(link_settings(Place::Container, &inside, network.has_family(true)));
        list.extend(inside_resources(endpoint));
        if settings.spoof_check {
            list.push(Resource::Member(Member::Pinned {
                link: port.clone(),
                mac: endpoint.hardware_address(),
            }));
            let link_local = network.has_family(true).then(|| endpoint.hardware_address().link_local());
            let addresses = endpoint.addresses.iter().map(IpNetwork::ip).chain(link_local);
            list.extend(
                addresses.map(|address| Resource::Member(Member::Address { link: port.clone(), address })),
            );
        }
        let alias = alias(network, Some(endpoint));
        list.extend(bandwidth::resources(&limits, &port, network.group, &alias, endpoint));
        list.extend(published(endpoint, &settings));
        list.push(Resource::Port {
            link: port.clone(),
            alias,
            isolated: !settings.icc,
            hairpin: !endpoint.ports.is_empty(),
            pinned: settings.spoof_check.then_some(endpoint.hardware_address()),
        });
        list.push(Resource::Up { place: Place::Host, link: port });
        Ok(list)
    }

    fn names(&self, network: &Network) -> Result<Option<Names>, BadOption> {
        let settings = Settings::of(network)?;
        let servers: Vec<IpAddr> =
            gateway_addresses(network, &settings).iter().map(|address| address.ip()).collect();
        let named = settings.dns && !servers.is_empty();
        Ok(named.then_some(Names { link: settings.device, servers }))
    }
}

/// Where addresses are routed a published port is opened on the container's own address, and nothing is translated.
pub(crate) fn published(endpoint: &Endpoint, settings: &Settings) -> Vec<Resource> {
    let mut list = Vec::new();
    for port in &endpoint.ports {
        match settings.gateway_mode(Family::of(port.target)) {
            GatewayMode::Routed => open(&mut list, port),
            // What several share is nobody's own: it follows from the records of all of them.
            _ if port.service.is_some() => {}
            GatewayMode::Nat | GatewayMode::NatUnprotected | GatewayMode::Isolated => {
                list.push(Resource::Published(port.clone()));
            }
        }
    }
    list
}

/// Opens the ports of a publication. Several host ports may lead to one port of the container, which the kernel's
/// set has once only: what overlaps becomes one range.
fn open(list: &mut Vec<Resource>, port: &Publication) {
    let (address, protocol, mut ports) = (port.target, port.protocol, port.target_ports);
    list.retain(|other| match other {
        Resource::Member(Member::Open { address: a, protocol: p, ports: q })
            if (*a, *p) == (address, protocol) && q.overlaps(&ports) =>
        {
            ports = PortRange { first: ports.first.min(q.first), last: ports.last.max(q.last) };
            false
        }
        _ => true,
    });
    list.push(Resource::Member(Member::Open { address, protocol, ports }));
}

/// The host's end of an endpoint's veth pair.
#[must_use]
pub fn port_name(endpoint: &Endpoint) -> InterfaceName {
    InterfaceName::of("veth", &endpoint.id)
}

/// What `ifalias` says of a link: whose it is.
#[must_use]
pub fn alias(network: &Network, endpoint: Option<&Endpoint>) -> String {
    match endpoint {
        None => format!("rnet:{}:{}", network.id.short(), network.name),
        Some(endpoint) => format!("rnet:{}:{}:{}", network.id.short(), network.name, endpoint.id.short()),
    }
}

/// The host must route between the bridge and the rest of the world, without becoming a router for strangers.
pub(crate) fn forwarding(network: &Network) -> Vec<Resource> {
    let families = [(false, Family::Ipv4), (true, Family::Ipv6)];
    families
        .into_iter()
        .filter(|(ipv6, _)| network.has_family(*ipv6))
        .flat_map(|(_, family)| [Resource::Member(Member::Guard { family }), Resource::Forwarding { family }])
        .collect()
}

/// Router advertisements and redirects are never believed; IPv6 is off where the network has none.
pub(crate) fn link_settings(place: Place, link: &InterfaceName, ipv6: bool) -> Vec<Resource> {
    let mut settings = if ipv6 {
        vec![Setting::NoRouterAdvertisements, Setting::NoDuplicateDetection, Setting::Ipv6On]
    } else {
        vec![Setting::Ipv6Off]
    };
    if place == Place::Host {
        settings.push(Setting::NoRedirects);
    }
    settings.into_iter().map(|setting| Resource::Setting { place, link: link.clone(), setting }).collect()
}

pub(crate) fn firewall_members(network: &Network, settings: &Settings) -> Vec<Resource> {
    let link = || settings.device.clone();
    let mut members = vec![Member::Bridge { link: link() }];
    members.extend(network.pools.iter().map(|pool| Member::Subnet { subnet: pool.subnet }));
    if settings.icc {
        members.push(Member::Talking { link: link() });
    }
    if network.internal {
        members.push(Member::Internal { link: link() });
    }
    for (ipv6, family) in [(false, Family::Ipv4), (true, Family::Ipv6)] {
        if settings.gateway_mode(family) == GatewayMode::NatUnprotected
            && network.has_family(ipv6)
            && !network.internal
        {
            members.push(Member::Unprotected { link: link(), family });
        }
        if settings.masquerades(family) && network.has_family(ipv6) && !network.internal {
            members.push(Member::Masquerade { link: link(), family });
        }
    }
    if settings.dns && !gateway_addresses(network, settings).is_empty() {
        members.push(Member::Named { link: link() });
    }
    for address in gateway_addresses(network, settings) {
        members.push(Member::Gateway { link: link(), address: address.ip() });
    }
    members.into_iter().map(Resource::Member).collect()
}

/// The addresses that the host itself has on the bridge.
pub(crate) fn gateway_addresses(network: &Network, settings: &Settings) -> Vec<IpNetwork> {
    let with_length = |address: IpAddr, subnet: IpNetwork| IpNetwork::new(address, subnet.prefix()).ok();
    network
        .pools
        .iter()
        .filter(|pool| settings.host_has_address(Family::of(pool.subnet.ip())))
        .filter_map(|pool| with_length(pool.gateway?, pool.subnet))
        .collect()
}

/// A fixed address: otherwise the bridge takes over that of the port with the lowest one, and changes it as
/// ports come and go.
fn bridge_mac(network: &Network) -> MacAddress {
    let gateway = network.pools.iter().find_map(|pool| pool.gateway);
    gateway.map_or_else(
        || MacAddress([0x02, 0x42, network.id.0[0], network.id.0[1], network.id.0[2], network.id.0[3]]),
        MacAddress::of,
    )
}

/// Everything inside the container's own namespace but the settings: loopback, addresses, up, routes.
pub(crate) fn inside_resources(endpoint: &Endpoint) -> Vec<Resource> {
    let place = Place::Container;
    let inside = endpoint.interface.clone();
    let mut list = vec![Resource::Up { place, link: InterfaceName::loopback() }];
    for address in &endpoint.addresses {
        list.push(Resource::Address { place, link: inside.clone(), address: *address });
    }
    list.push(Resource::Up { place, link: inside.clone() });
    list.extend(
        endpoint
            .gateways
            .iter()
            .map(|gateway| Resource::DefaultRoute { gateway: *gateway, link: inside.clone() }),
    );
    let routes = endpoint.routes.iter().cloned();
    list.extend(routes.map(|route| Resource::Route { link: inside.clone(), route }));
    list.extend(tuning(endpoint));
    list
}

/// Switches of the container's namespace, and what makes its interface other than it is born.
pub(crate) fn tuning(endpoint: &Endpoint) -> Vec<Resource> {
    let link = || endpoint.interface.clone();
    let sysctls = endpoint.tuning.sysctls.iter();
    let sysctl = |(name, value): (&crate::SysctlName, &String)| Resource::Sysctl {
        link: link(),
        name: name.clone(),
        value: value.clone(),
    };
    let mut list: Vec<Resource> = sysctls.map(sysctl).collect();
    if !endpoint.tuning.link.is_empty() {
        list.push(Resource::Tuned { link: link(), tuning: endpoint.tuning.link });
    }
    list
}
