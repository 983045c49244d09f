//! `ipvlan`: containers are on the LAN of one of the host's interfaces themselves, with the host's hardware address and
//! IP addresses of their own. The host itself does not reach them over that interface, and has no ports for them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::{
    Abilities, BadOption, Driver, Endpoint, Network, Resource, StaticRoute, bridge,
    bridge::EndpointSettings,
    child::{IpvlanMode, Settings, Sharing},
    options::{Known, Options},
};

static OPTIONS: [Known; 5] = [
    Known { long: "parent", short: "parent" },
    Known { long: "ipvlan_mode", short: "mode" },
    Known { long: "ipvlan_flag", short: "flag" },
    Known { long: "com.docker.network.driver.mtu", short: "mtu" },
    Known { long: "com.docker.network.container_iface_prefix", short: "iface-prefix" },
];

/// The driver.
pub(crate) struct Ipvlan;

fn settings(network: &Network) -> Result<Settings, BadOption> {
    let options = Options::read("ipvlan", &OPTIONS, &network.options)?;
    let mode = match options.text("mode").unwrap_or("l2") {
        "l2" => IpvlanMode::L2,
        "l3" => IpvlanMode::L3,
        "l3s" => IpvlanMode::L3s,
        _ => return Err(options.bad("mode", "it must be l2, l3 or l3s")),
    };
    if options.text("flag").is_some_and(|flag| flag != "bridge") {
        return Err(options.bad("flag", "it must be bridge"));
    }
    Settings::read(&options, network, Sharing::Ipvlan(mode))
}

impl Driver for Ipvlan {
    fn name(&self) -> &'static str {
        "ipvlan"
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: true, connectable: true, addresses: true, lan: true }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        settings(network).map(drop)
    }

    fn settings(&self, network: &Network) -> Result<bridge::Settings, BadOption> {
        settings(network).map(|settings| settings.as_bridge())
    }

    fn network(&self, network: &Network) -> Result<Vec<Resource>, BadOption> {
        settings(network).map(|settings| settings.network())
    }

    fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        EndpointSettings::without_limits("ipvlan", endpoint)?;
        let settings = settings(network)?;
        if settings.sharing == Sharing::Ipvlan(IpvlanMode::L2) {
            return Ok(settings.endpoint(network, endpoint));
        }
        // Nobody answers ARP there: what has no better way goes out through the link, whoever is next.
        let mut endpoint = endpoint.clone();
        let gateways = core::mem::take(&mut endpoint.gateways);
        endpoint.routes.extend(gateways.into_iter().filter_map(|gateway| {
            let any: IpAddr =
                if gateway.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            Some(StaticRoute { destination: IpNetwork::new(any, 0).ok()?, gateway: None })
        }));
        Ok(settings.endpoint(network, &endpoint))
    }
}
