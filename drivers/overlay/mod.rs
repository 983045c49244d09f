//! `overlay`: one subnet on several hosts, over VXLAN (RFC 7348). Nothing is learned and nothing flooded: what is
//! behind which host is written down. Who the other hosts are it is told; it never asks.
//!
//! ```text
//!  container ── veth ── br0 ── vx0 ~~~ VXLAN over the hosts' own network ~~~ vx0 ── br0 ── veth ── container
//!                        │         └ sandbox: a namespace of the network's own on each host ┘   │
//!                       up0                                                                    up0
//!  host: gateway, masquerade, published ports                          host: gateway, masquerade, published ports
//! ```
//!
//! Every host is the gateway of its own containers, with the same address and hardware address; `up0` and `vx0` are
//! isolated from each other, so that no host sends into another through the tunnel.

mod peers;
mod settings;

use alloc::{boxed::Box, string::ToString, vec, vec::Vec};
use core::net::IpAddr;

use ipnetwork::IpNetwork;
pub use peers::{MOST_BY_HAND, Peer, RemoteEndpoint};
pub use settings::{
    MOST_VNI, OWN_ADDRESS, PORT, SEALED_PORT, SMALLEST_VNI, Settings, cipher_overhead, inner_mtu,
};

use crate::{
    Abilities, BadOption, Driver, Endpoint, InterfaceName, MacAddress, Member, Names, Network, Place,
    Resource, Setting, bandwidth,
    bridge::{self, alias, port_name},
    resource::{Tunnel, Uplink},
};

/// The bridge in every sandbox.
const BRIDGE: &str = "br0";
/// The tunnel in every sandbox.
const TUNNEL: &str = "vx0";
/// The sandbox's end of the way to the host.
const UPLINK: &str = "up0";

/// The driver.
pub struct Overlay;

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: true, connectable: true, addresses: true, lan: false }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        let settings = Settings::of(network)?;
        settings.check_ranges(network)
    }

    fn settings(&self, network: &Network) -> Result<bridge::Settings, BadOption> {
        Settings::of(network).map(|settings| settings.as_bridge(network))
    }

    fn network(&self, network: &Network) -> Result<Vec<Resource>, BadOption> {
        let settings = Settings::of(network)?;
        let local = settings.local()?;
        let links = Links::of(network);
        let mut list = vec![Resource::Firewall];
        if !network.internal {
            list.extend(bridge::forwarding(network));
        }
        // Who may send is settled before there is anything to send to.
        let (port, vni) = (settings.port, settings.vni()?);
        if settings.encrypted {
            list.push(Resource::Member(Member::Sealed { port }));
        }
        list.push(Resource::Member(Member::Tunnel { port, vni }));
        list.push(Resource::Sandbox { name: links.sandbox.clone(), group: network.group });
        list.push(links.inside(Resource::Firewall));
        let mac = bridge_mac(network);
        let (mtu, group) = (settings.mtu()?, network.group);
        list.push(links.inside(Resource::Bridge {
            name: links.bridge.clone(),
            mac,
            mtu,
            group,
            alias: alias(network, None),
        }));
        list.push(links.inside(up(&links.bridge)));
        list.push(Resource::Tunnel(Tunnel {
            name: links.tunnel.clone(),
            sandbox: links.sandbox.clone(),
            bridge: links.bridge.clone(),
            vni,
            port,
            local,
            mtu,
            group,
            sealed: settings.encrypted,
        }));
        list.push(links.inside(up(&links.tunnel)));
        list.extend(way_out(network, &settings, &links)?);
        for peer in settings.peers_by_hand(network) {
            list.extend(self.peer(network, &peer)?);
        }
        Ok(list)
    }

    fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        let settings = Settings::of(network)?;
        settings.check_by_hand(network, endpoint)?;
        let mtu = settings.mtu()?;
        let limits = bridge::EndpointSettings::of(endpoint, mtu)?.limits;
        let links = Links::of(network);
        let (port, place) = (port_name(endpoint), Place::Host);
        let ipv6 = network.has_family(true);
        let mut list = vec![
            links.inside(Resource::Veth {
                name: port.clone(),
                bridge: Some(links.bridge.clone()),
                peer: endpoint.interface.clone(),
                mac: endpoint.mac,
                mtu,
                group: network.group,
            }),
            links.inside(Resource::Setting { place, link: port.clone(), setting: Setting::Ipv6Off }),
        ];
        list.extend(bridge::link_settings(Place::Container, &endpoint.interface, ipv6));
        list.extend(bridge::inside_resources(endpoint));
        let pinned = Member::Pinned { link: port.clone(), mac: endpoint.mac };
        let own = endpoint.addresses.iter().map(IpNetwork::ip).chain(ipv6.then(|| endpoint.mac.link_local()));
        let own = own.map(|address| Member::Address { link: port.clone(), address });
        list.extend([pinned].into_iter().chain(own).map(|member| links.inside(Resource::Member(member))));
        let alias = alias(network, Some(endpoint));
        let shaped = bandwidth::resources(&limits, &port, network.group, &alias, endpoint);
        list.extend(shaped.into_iter().map(|resource| match resource.lives_on() {
            Some((Place::Container, _)) => resource,
            Some((Place::Host, _)) | None => links.inside(resource),
        }));
        list.extend(bridge::published(endpoint, &settings.as_bridge(network)));
        list.push(links.inside(Resource::Port {
            link: port.clone(),
            alias,
            isolated: false,
            hairpin: false,
            pinned: Some(endpoint.mac),
        }));
        list.push(links.inside(Resource::Answers { link: port.clone() }));
        list.push(links.inside(up(&port)));
        list.extend(links.known_here(endpoint.addresses.iter().map(IpNetwork::ip), endpoint.mac));
        Ok(list)
    }

    fn peer(&self, network: &Network, peer: &Peer) -> Result<Vec<Resource>, BadOption> {
        let settings = Settings::of(network)?;
        let links = Links::of(network);
        let (port, vni) = (settings.port, settings.vni()?);
        let mut list = vec![Resource::Member(Member::Host { port, vni, address: peer.address })];
        for remote in &peer.endpoints {
            let link = links.tunnel.clone();
            list.push(links.inside(Resource::Remote { link, mac: remote.mac, via: peer.address }));
            list.extend(remote.addresses.iter().map(|address| links.known(*address, remote.mac)));
        }
        Ok(list)
    }

    fn names(&self, network: &Network) -> Result<Option<Names>, BadOption> {
        let settings = self.settings(network)?;
        let servers: Vec<IpAddr> =
            bridge::gateway_addresses(network, &settings).iter().map(IpNetwork::ip).collect();
        Ok((!servers.is_empty()).then_some(Names { link: settings.device, servers }))
    }

    fn paired(&self, network: &Network, address: IpAddr) -> Result<Option<IpAddr>, BadOption> {
        Ok(Settings::of(network)?.paired(network, address))
    }
}

/// The names of a network's sandbox and of the links in it.
struct Links {
    sandbox: InterfaceName,
    bridge: InterfaceName,
    tunnel: InterfaceName,
    uplink: InterfaceName,
}

impl Links {
    fn of(network: &Network) -> Self {
        Self {
            sandbox: sandbox_name(network),
            bridge: InterfaceName::fixed(BRIDGE),
            tunnel: InterfaceName::fixed(TUNNEL),
            uplink: InterfaceName::fixed(UPLINK),
        }
    }

    fn inside(&self, what: Resource) -> Resource {
        Resource::Inside { sandbox: self.sandbox.clone(), what: Box::new(what) }
    }

    /// What is behind a port of the bridge itself, IPv4 alone: of IPv6 neighbours the kernel's bridge answers only for
    /// those behind the tunnel, and a question about one that it knows it keeps from the ports where the answer is.
    fn known_here(&self, addresses: impl Iterator<Item = IpAddr>, mac: MacAddress) -> Vec<Resource> {
        addresses.filter(IpAddr::is_ipv4).map(|address| self.known(address, mac)).collect()
    }

    fn known(&self, address: IpAddr, mac: MacAddress) -> Resource {
        self.inside(Resource::Neighbour { link: self.bridge.clone(), address, mac })
    }
}

/// The name of a network's sandbox.
#[must_use]
pub fn sandbox_name(network: &Network) -> InterfaceName {
    InterfaceName::of("ov-", &network.id)
}

/// The host's end of the way to a network's sandbox: what a bridge is for a network of the bridge driver.
#[must_use]
pub fn device_name(network: &Network) -> InterfaceName {
    InterfaceName::of("rn-", &network.id)
}

fn up(link: &InterfaceName) -> Resource {
    Resource::Up { place: Place::Host, link: link.clone() }
}

/// The bridge itself sends nothing; its address must only be nobody else's in the sandbox.
fn bridge_mac(network: &Network) -> MacAddress {
    let [a, b, c, d] = [network.id.0[0], network.id.0[1], network.id.0[2], network.id.0[3]];
    MacAddress([0x02, 0x5e, a, b, c, d])
}

/// From the sandbox to the host, and what the host is to the network: gateway, masquerade, published ports.
fn way_out(network: &Network, settings: &Settings, links: &Links) -> Result<Vec<Resource>, BadOption> {
    let as_bridge = settings.as_bridge(network);
    let (device, peer) = (as_bridge.device.clone(), links.uplink.clone());
    let gateways = bridge::gateway_addresses(network, &as_bridge);
    let mac = gateways.first().map_or_else(|| bridge_mac(network), |address| MacAddress::of(address.ip()));
    let ipv6 = network.has_family(true);
    let mut list = vec![Resource::Uplink(Uplink {
        name: device.clone(),
        mac,
        sandbox: links.sandbox.clone(),
        peer: peer.clone(),
        bridge: links.bridge.clone(),
        mtu: as_bridge.mtu,
        group: network.group,
        alias: alias(network, None),
    })];
    list.push(links.inside(Resource::Port {
        link: peer.clone(),
        alias: alias(network, None),
        isolated: true,
        hairpin: false,
        pinned: Some(mac),
    }));
    list.push(links.inside(Resource::Answers { link: peer.clone() }));
    list.extend(bridge::link_settings(Place::Host, &device, ipv6));
    list.extend(bridge::firewall_members(network, &as_bridge));
    list.push(links.inside(up(&peer)));
    list.extend(links.known_here(gateways.iter().map(IpNetwork::ip), mac));
    for address in gateways {
        list.push(Resource::Address { place: Place::Host, link: device.clone(), address });
    }
    list.push(up(&device));
    Ok(list)
}

impl Settings {
    /// The own address, which is there in every network that was made.
    fn local(&self) -> Result<IpAddr, BadOption> {
        self.local.ok_or_else(|| missing(OWN_ADDRESS, "the host's own address is not known"))
    }

    fn vni(&self) -> Result<u32, BadOption> {
        self.vni.ok_or_else(|| missing("vni", "the network has no number"))
    }

    fn mtu(&self) -> Result<u32, BadOption> {
        self.mtu.ok_or_else(|| missing("mtu", "the largest packet is not known"))
    }
}

fn missing(option: &str, reason: &str) -> BadOption {
    BadOption { driver: "overlay", option: option.to_string(), reason: reason.to_string(), nearest: None }
}
