//! Links of containers that share an interface of the host: what they are, and what their two drivers have in common.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    Abilities, BadOption, Driver, Endpoint, InterfaceName, MacAddress, Network, Place, Resource, StaticRoute,
    bridge::{self, EndpointSettings, GatewayMode, Loopback},
    options::Options,
};

/// How a link shares the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", content = "mode", rename_all = "lowercase")]
pub enum Sharing {
    /// With a hardware address of its own.
    Macvlan(MacvlanMode),
    /// With the host's hardware address, and IP addresses of its own.
    Ipvlan(IpvlanMode),
}

/// How macvlan links that share an interface reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Directly.
    Bridge,
    /// Not at all.
    Private,
    /// By way of the switch that the interface leads to, which must send back where it received (IEEE 802.1Qbg).
    Vepa,
    /// There is one only, and the interface is all its own.
    Passthru,
}

/// In which layer ipvlan links are switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// As Ethernet, with ARP.
    L2,
    /// As IP, without ARP, broadcast or the host's connection tracking.
    L3,
    /// As IP, through the host's netfilter.
    L3s,
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
        })
    }
}

impl Sharing {
    /// The mode, as options have it.
    #[must_use]
    pub fn mode(self) -> &'static str {
        match self {
            Self::Macvlan(MacvlanMode::Bridge) => "bridge",
            Self::Macvlan(MacvlanMode::Private) => "private",
            Self::Macvlan(MacvlanMode::Vepa) => "vepa",
            Self::Macvlan(MacvlanMode::Passthru) => "passthru",
            Self::Ipvlan(IpvlanMode::L2) => "l2",
            Self::Ipvlan(IpvlanMode::L3) => "l3",
            Self::Ipvlan(IpvlanMode::L3s) => "l3s",
        }
    }
}

/// A link of a container that shares an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Child {
    /// Its name in the container.
    pub name: InterfaceName,
    /// The host's interface.
    pub parent: InterfaceName,
    /// How it shares it.
    pub sharing: Sharing,
    /// Its hardware address, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Its largest packet, in bytes; the parent's where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its interface group, by which it is known to be rnet's.
    pub group: u32,
    /// Whose it is, kept in `ifalias`.
    pub alias: String,
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, parent, sharing, .. } = self;
        write!(f, "{sharing} {name} in the container on {parent} of the host, mode {}", sharing.mode())?;
        self.mac.iter().try_for_each(|mac| write!(f, " mac {mac}"))?;
        self.mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))
    }
}

/// The settings of a network whose containers share an interface of the host.
pub(crate) struct Settings {
    pub(crate) parent: InterfaceName,
    pub(crate) sharing: Sharing,
    pub(crate) mtu: Option<u32>,
    pub(crate) interface_prefix: String,
}

impl Settings {
    /// What both drivers read alike.
    pub(crate) fn read(
        options: &Options<'_>,
        network: &Network,
        sharing: Sharing,
    ) -> Result<Self, BadOption> {
        let expected = "it must be the name of an interface of this host";
        let Some(parent) = options.parsed("parent", expected)? else {
            let reason = "it must be given: the interface of this host that containers share".to_owned();
            let option = "parent".to_owned();
            return Err(BadOption { driver: options.driver(), option, reason, nearest: None });
        };
        let smallest = if network.has_family(true) { 1280 } else { 68 };
        let expected = "it must be a number of bytes from 68 to 65535, and from 1280 with IPv6";
        let mtu = options.parsed::<u32>("mtu", expected)?;
        if mtu.is_some_and(|mtu| !(smallest..=65535).contains(&mtu)) {
            return Err(options.bad("mtu", expected));
        }
        Ok(Self { parent, sharing, mtu, interface_prefix: bridge::interface_prefix(options)? })
    }

    /// What the network is to the host: nothing of the host's own, but an interface that it shares.
    pub(crate) fn as_bridge(&self) -> bridge::Settings {
        bridge::Settings {
            device: self.parent.clone(),
            mtu: self.mtu.unwrap_or(1500),
            icc: true,
            masquerade: false,
            host_binding: None,
            loopback: Loopback::Rewrite,
            // The gateway is a router of the LAN: it answers, whoever it is.
            gateway_modes: [GatewayMode::Nat; 2],
            inhibit_ipv4: false,
            interface_prefix: self.interface_prefix.clone(),
            spoof_check: false,
            connection_rate: None,
            most_connections: None,
            dns: false,
        }
    }

    /// The interface that must be there.
    pub(crate) fn network(&self) -> Vec<Resource> {
        [Resource::Parent { link: self.parent.clone(), sharing: self.sharing }].into()
    }

    /// The link, with everything in the container.
    pub(crate) fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Vec<Resource> {
        let own_mac = matches!(self.sharing, Sharing::Macvlan(_));
        let mut list = Vec::from([Resource::Child(Child {
            name: endpoint.interface.clone(),
            parent: self.parent.clone(),
            sharing: self.sharing,
            mac: own_mac.then_some(endpoint.mac),
            mtu: self.mtu,
            group: network.group,
            alias: bridge::alias(network, Some(endpoint)),
        })]);
        let ipv6 = network.has_family(true);
        list.extend(bridge::link_settings(Place::Container, &endpoint.interface, ipv6));
        list.extend(match self.sharing {
            Sharing::Macvlan(_) | Sharing::Ipvlan(IpvlanMode::L2) => bridge::inside_resources(endpoint),
            Sharing::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s) => {
                bridge::inside_resources(&by_the_link(endpoint))
            }
        });
        list
    }
}

/// Where nobody answers ARP: what has no better way goes out through the link, whoever is next.
fn by_the_link(endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    let gateways = core::mem::take(&mut endpoint.gateways);
    endpoint.routes.extend(gateways.into_iter().filter_map(|gateway| {
        let any: IpAddr =
            if gateway.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        Some(StaticRoute { destination: IpNetwork::new(any, 0).ok()?, gateway: None })
    }));
    endpoint
}

/// A driver whose containers are on the LAN of one of the host's interfaces.
pub(crate) struct Lan {
    pub(crate) name: &'static str,
    /// Reads a network's options.
    pub(crate) settings: fn(&Network) -> Result<Settings, BadOption>,
}

impl Driver for Lan {
    fn name(&self) -> &'static str {
        self.name
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: true, connectable: true, addresses: true, lan: true }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        (self.settings)(network).map(drop)
    }

    fn settings(&self, network: &Network) -> Result<bridge::Settings, BadOption> {
        (self.settings)(network).map(|settings| settings.as_bridge())
    }

    fn network(&self, network: &Network) -> Result<Vec<Resource>, BadOption> {
        (self.settings)(network).map(|settings| settings.network())
    }

    fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        EndpointSettings::without_limits(self.name, endpoint)?;
        Ok((self.settings)(network)?.endpoint(network, endpoint))
    }
}
