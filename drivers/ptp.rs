//! `ptp`: a veth pair for each container and no bridge. The host routes to each address by itself, and its end of every
//! pair has the gateway's address; so containers meet by way of the host alone, and see nothing of each other's links.

use alloc::{vec, vec::Vec};
use core::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{
    Abilities, BadOption, Driver, Endpoint, Family, Member, Network, Place, Resource, Setting, StaticRoute,
    bandwidth,
    bridge::{self, EndpointSettings, GatewayMode, Settings, port_name},
    model::InterfaceName,
    options::Known,
};

static OPTIONS: [Known; 7] = [
    Known { long: "com.docker.network.bridge.enable_icc", short: "icc" },
    Known { long: "com.docker.network.bridge.enable_ip_masquerade", short: "masquerade" },
    Known { long: "com.docker.network.bridge.host_binding_ipv4", short: "host-binding-ipv4" },
    Known { long: "com.docker.network.bridge.gateway_mode_ipv4", short: "gateway-mode-ipv4" },
    Known { long: "com.docker.network.bridge.gateway_mode_ipv6", short: "gateway-mode-ipv6" },
    Known { long: "com.docker.network.driver.mtu", short: "mtu" },
    Known { long: "com.docker.network.container_iface_prefix", short: "iface-prefix" },
];

/// The driver.
pub(crate) struct Ptp;

impl Driver for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: true, connectable: true, addresses: true, lan: false }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        self.settings(network).map(drop)
    }

    fn settings(&self, network: &Network) -> Result<Settings, BadOption> {
        let settings = Settings::read("ptp", &OPTIONS, network)?;
        // The answers of names come from a device that all members share.
        Ok(Settings { dns: false, ..settings })
    }

    fn network(&self, network: &Network) -> Result<Vec<Resource>, BadOption> {
        self.check(network)?;
        let mut list = vec![Resource::Firewall];
        if !network.internal {
            list.extend(bridge::forwarding(network));
        }
        let subnets = network.pools.iter().map(|pool| Member::Subnet { subnet: pool.subnet });
        list.extend(subnets.map(Resource::Member));
        Ok(list)
    }

    fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        let settings = self.settings(network)?;
        let limits = EndpointSettings::of(endpoint, settings.mtu)?.limits;
        let port = port_name(endpoint);
        let mut list = vec![Resource::Veth {
            name: port.clone(),
            bridge: None,
            peer: endpoint.interface.clone(),
            mac: endpoint.mac,
            mtu: settings.mtu,
            group: network.group,
        }];
        let alias = bridge::alias(network, Some(endpoint));
        list.push(Resource::Marked { link: port.clone(), alias: alias.clone() });
        let ipv6 = network.has_family(true);
        list.extend(bridge::link_settings(Place::Host, &port, ipv6));
        list.push(Resource::Setting { place: Place::Host, link: port.clone(), setting: Setting::OwnSources });
        list.extend(bridge::link_settings(Place::Container, &endpoint.interface, ipv6));
        list.extend(members(network, &settings, &port));
        let gateways = endpoint.addresses.iter().filter_map(|address| gateway(network, &settings, address));
        let place = Place::Host;
        list.extend(gateways.map(|address| Resource::Address { place, link: port.clone(), address }));
        list.extend(inside(network, &settings, endpoint));
        list.extend(bandwidth::resources(&limits, &port, network.group, &alias, endpoint));
        list.extend(bridge::published(endpoint, &settings));
        list.push(Resource::Up { place, link: port.clone() });
        let own = endpoint.addresses.iter().map(|address| address.ip());
        list.extend(own.map(|address| Resource::Behind { link: port.clone(), address }));
        Ok(list)
    }
}

/// Each port is to the firewall what a bridge with one member is.
fn members(network: &Network, settings: &Settings, port: &InterfaceName) -> Vec<Resource> {
    let link = || port.clone();
    let mut members = vec![Member::Bridge { link: link() }];
    if settings.icc {
        members.push(Member::Routed { link: link() });
    }
    if network.internal {
        members.push(Member::Internal { link: link() });
    }
    for (ipv6, family) in [(false, Family::Ipv4), (true, Family::Ipv6)] {
        if !network.has_family(ipv6) || network.internal {
            continue;
        }
        if settings.gateway_mode(family) == GatewayMode::NatUnprotected {
            members.push(Member::Unprotected { link: link(), family });
        }
        if settings.masquerades(family) {
            members.push(Member::Masquerade { link: link(), family });
        }
    }
    members.into_iter().map(Resource::Member).collect()
}

/// The address alone: nothing else of its subnet is on the link.
fn alone(address: IpAddr) -> Option<IpNetwork> {
    IpNetwork::new(address, if address.is_ipv6() { 128 } else { 32 }).ok()
}

/// The host's address on the link by which this one is reached.
fn gateway(network: &Network, settings: &Settings, address: &IpNetwork) -> Option<IpNetwork> {
    let pool = network.pools.iter().find(|pool| pool.subnet.contains(address.ip()))?;
    alone(pool.gateway.filter(|_| settings.host_has_address(Family::of(address.ip())))?)
}

/// In the container: the gateway is on the link, and the rest of the subnet behind the gateway.
fn inside(network: &Network, settings: &Settings, endpoint: &Endpoint) -> Vec<Resource> {
    let mut endpoint = endpoint.clone();
    let mut routes = Vec::new();
    for address in &endpoint.addresses {
        let Some(gateway) = gateway(network, settings, address) else { continue };
        let Ok(subnet) = IpNetwork::new(address.network(), address.prefix()) else { continue };
        routes.push(StaticRoute { destination: gateway, gateway: None });
        routes.push(StaticRoute { destination: subnet, gateway: Some(gateway.ip()) });
    }
    let link = || endpoint.interface.clone();
    let routes: Vec<Resource> =
        routes.into_iter().map(|route| Resource::Route { link: link(), route }).collect();
    endpoint.addresses = endpoint.addresses.iter().filter_map(|address| alone(address.ip())).collect();
    let mut list = bridge::inside_resources(&endpoint);
    // Ways that lead over the gateway come after the way to the gateway.
    let over =
        |resource: &Resource| matches!(resource, Resource::DefaultRoute { .. } | Resource::Route { .. });
    let at = list.iter().position(over).unwrap_or(list.len());
    list.splice(at..at, routes);
    list
}
