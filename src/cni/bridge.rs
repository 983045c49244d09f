//! `bridge`: an interface on a bridge, with the addresses of whoever `ipam` names. The bridge is a network of rnet,
//! made on first use, with the name of the configuration. What rnet would close is left open, as those who use this
//! name expect; `firewall` in the same list closes it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use rnetkit_drivers::StaticRoute;
use serde_json::Value;

use super::{
    Plugin, Request, attachment,
    failure::{Code, Failure},
    leases::Leases,
    networks::{Meant, labelled},
    result::{Outcome, Route},
};
use crate::{
    ipam::Wishes,
    kernel::Linux,
    verbs::{Connect, CreateNetwork, Rnet},
};

pub(super) struct Bridge;

impl Plugin for Bridge {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        let keys = Keys::read(request)?;
        let leases = Leases::of(request)?;
        let wanted = attachment::named(request)?;
        attachment::dns(request)?;
        let mut rnet = request.rnet()?;
        attachment::refuse_namespace(&mut rnet, &wanted, request)?;
        attachment::refuse_attached(&mut rnet, request)?;
        let leased = leases.take(request)?;
        match connect(&mut rnet, &keys, wanted, &leased, request) {
            Ok(outcome) => Ok(outcome.json(request.config.version)),
            Err(failure) => {
                // What cannot be given back either is taken again by the next try, and freed by GC.
                let _ = leases.give_back(request);
                Err(failure)
            }
        }
    }

    fn del(&self, request: &Request) -> Result<(), Failure> {
        let gone = attachment::disconnect(&mut request.rnet()?, request.config.name.as_str(), request);
        let given_back = Leases::of(request)?.give_back(request);
        gone.and(given_back)
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        let meant = Meant::Made(request.config.name.to_string());
        attachment::check(&mut request.rnet()?, &meant, request)?;
        Leases::of(request)?.check(request)
    }

    fn gc(&self, request: &Request) -> Result<(), Failure> {
        let gone = attachment::collect(&mut request.rnet()?, request.config.name.as_str(), request)?;
        Leases::of(request)?.collect(request, &gone)
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let unavailable = |failure: Failure| failure.because(Code::NotAvailable);
        Keys::read(request).map_err(unavailable)?;
        Leases::of(request).map_err(unavailable)?.status(request)
    }
}

/// The keys of the configuration that have a meaning here.
struct Keys {
    bridge: String,
    is_gateway: bool,
    is_default: bool,
    masquerade: bool,
    mtu: Option<u32>,
    spoof_check: bool,
    isolated: bool,
}

impl Keys {
    fn read(request: &Request) -> Result<Self, Failure> {
        let root = request.config.root();
        let unsupported = |key: &str, why: &str| {
            Err(Failure::new(Code::UnsupportedField, format!("unsupported {key}: {why}")))
        };
        if root.number::<u32>("vlan")?.unwrap_or(0) != 0 || !root.list("vlanTrunk")?.is_empty() {
            return unsupported("vlan", "rnet's bridges filter no VLANs");
        }
        for key in ["promiscMode", "disableContainerInterface"] {
            if root.flag(key)? {
                return unsupported(key, "rnet's bridges know where each address is, and interfaces are up");
            }
        }
        if let Some(backend) =
            root.text("ipMasqBackend")?.filter(|name| !["iptables", "nftables"].contains(name))
        {
            return Err(Failure::config(format!("invalid ipMasqBackend: {}", crate::error::shown(backend))));
        }
        for key in ["hairpinMode", "forceAddress", "enabledad", "preserveDefaultVlan"] {
            root.flag(key)?;
        }
        let is_default = root.flag("isDefaultGateway")?;
        Ok(Self {
            bridge: root.text("bridge")?.unwrap_or("cni0").to_owned(),
            is_gateway: root.flag("isGateway")? || is_default,
            is_default,
            masquerade: root.flag("ipMasq")?,
            mtu: root.number::<u32>("mtu")?.filter(|mtu| *mtu > 0),
            spoof_check: root.flag("macspoofchk")?,
            isolated: root.flag("portIsolation")?,
        })
    }

    /// The network that goes with these addresses.
    fn network(&self, leased: &Outcome, request: &Request) -> Result<CreateNetwork, Failure> {
        let mut wishes = Wishes::default();
        for ip in &leased.ips {
            let subnet = subnet(ip.address)?;
            if !wishes.subnets.contains(&subnet) {
                wishes.subnets.push(subnet);
                wishes.gateways.extend(ip.gateway);
            }
        }
        let has = |ipv6: bool| wishes.subnets.iter().any(|subnet| subnet.is_ipv6() == ipv6);
        if has(true) && !self.is_gateway {
            let message = "unsupported isGateway: without it, rnet's bridges have IPv4 alone";
            return Err(Failure::new(Code::UnsupportedField, message));
        }
        let mut options = BTreeMap::from([
            ("name".to_owned(), self.bridge.clone()),
            ("masquerade".to_owned(), self.masquerade.to_string()),
            ("icc".to_owned(), (!self.isolated).to_string()),
            ("spoof-check".to_owned(), self.spoof_check.to_string()),
            ("inhibit-ipv4".to_owned(), (!self.is_gateway).to_string()),
            ("gateway-mode-ipv4".to_owned(), "nat-unprotected".to_owned()),
            ("gateway-mode-ipv6".to_owned(), "nat-unprotected".to_owned()),
        ]);
        if let Some(mtu) = self.mtu {
            options.insert("mtu".to_owned(), mtu.to_string());
        }
        Ok(labelled(CreateNetwork {
            name: request.config.name.clone(),
            driver: "bridge".to_owned(),
            ipv4: has(false),
            ipv6: has(true),
            ipam_driver: if wishes.subnets.is_empty() { "null" } else { "default" }.to_owned(),
            wishes,
            ipam_options: BTreeMap::new(),
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options,
        }))
    }
}

fn subnet(address: IpNetwork) -> Result<IpNetwork, Failure> {
    IpNetwork::new(address.network(), address.prefix()).map_err(|error| Failure::config(error.to_string()))
}

fn connect(
    rnet: &mut Rnet<Linux>,
    keys: &Keys,
    mut wanted: Connect,
    leased: &Outcome,
    request: &Request,
) -> Result<Outcome, Failure> {
    let meant = Meant::OnFirstUse(Box::new(keys.network(leased, request)?));
    for ip in &leased.ips {
        attachment::ask_for(&mut wanted, ip.address.ip())?;
    }
    wanted.default_route = keys.is_default;
    for route in &leased.routes {
        add_route(&mut wanted, route, keys, leased)?;
    }
    let connected = attachment::connect(rnet, &meant, wanted, request)?;
    let mut outcome = attachment::outcome(&connected.network, &connected.endpoint, request)?;
    // As the addresses came, gateways of others included.
    outcome.ips.iter_mut().for_each(|ip| {
        let came = leased.ips.iter().find(|other| other.address == ip.address);
        ip.gateway = came.and_then(|came| came.gateway).or(ip.gateway);
    });
    let own = outcome.routes.into_iter().filter(|_| keys.is_default);
    let missing: Vec<Route> = own
        .filter(|route| !leased.routes.iter().any(|other| other.destination == route.destination))
        .collect();
    outcome.routes = leased.routes.iter().cloned().chain(missing).collect();
    if request.config.root().object("dns")?.is_none() {
        outcome.dns = leased.dns.clone();
    }
    Ok(outcome)
}

/// A default route through the bridge is rnet's to choose among the container's networks; any other is the
/// container's own.
fn add_route(wanted: &mut Connect, route: &Route, keys: &Keys, leased: &Outcome) -> Result<(), Failure> {
    let ipv6 = route.destination.is_ipv6();
    let gateway = leased.ips.iter().find(|ip| ip.address.is_ipv6() == ipv6).and_then(|ip| ip.gateway);
    let hop = route.gateway.or(gateway);
    if is_default(&route.destination) && keys.is_gateway && hop == gateway {
        wanted.default_route = true;
        return Ok(());
    }
    let destination = subnet(route.destination)?;
    wanted.routes.push(StaticRoute { destination, gateway: hop });
    Ok(())
}

fn is_default(destination: &IpNetwork) -> bool {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    destination.prefix() == 0 && any.contains(&destination.ip())
}
