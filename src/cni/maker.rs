//! Plugins that make an interface, with the addresses of whoever `ipam` names: `bridge`, `ptp`, `macvlan`, `ipvlan`. The
//! network is one of rnet, made on first use, with the name of the configuration. What rnet would close is left open, as
//! those who use these names expect; `firewall` in the same list closes it.

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

/// What the plugins of this kind differ in.
pub(super) struct Maker {
    /// Reads the keys of its own.
    pub(super) keys: fn(&Request) -> Result<Keys, Failure>,
    /// It makes no sense without addresses.
    pub(super) needs_addresses: bool,
}

/// The keys of a configuration that have a meaning here.
pub(super) struct Keys {
    /// The driver of the network.
    pub(super) driver: &'static str,
    /// Its options.
    pub(super) options: BTreeMap<String, String>,
    /// The interface of the host that the network shares, where that is still to be found.
    pub(super) shares: Option<String>,
    /// The gateway of the addresses is the network's own.
    pub(super) is_gateway: bool,
    /// The network is the container's way out, whatever `ipam` says.
    pub(super) is_default: bool,
    /// The hardware address, unless the runtime asks for one.
    pub(super) mac: Option<rnetkit_drivers::MacAddress>,
}

impl Plugin for Maker {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        let mut keys = (self.keys)(request)?;
        let leases = Leases::of(request)?;
        if self.needs_addresses && matches!(leases, Leases::Nobody) {
            return Err(Failure::config("the configuration has no ipam, and this plugin needs addresses"));
        }
        let mut wanted = attachment::named(request)?;
        wanted.mac = wanted.mac.or(keys.mac);
        attachment::dns(request)?;
        let mut rnet = request.rnet()?;
        attachment::refuse_namespace(&mut rnet, &wanted, request)?;
        attachment::refuse_attached(&mut rnet, request)?;
        keys.find_shared(&mut rnet)?;
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
        (self.keys)(request).map_err(unavailable)?;
        Leases::of(request).map_err(unavailable)?.status(request)
    }
}

impl Keys {
    /// Without a name the interface that is shared is the one that the host's default route leads through.
    fn find_shared(&mut self, rnet: &mut Rnet<Linux>) -> Result<(), Failure> {
        let Some(name) = self.shares.take() else { return Ok(()) };
        let name = match name.as_str() {
            "" => {
                let found = rnet.kernel().default_interface().map_err(|refusal| {
                    Failure::new(Code::Refused, format!("cannot look for the default route: {refusal}"))
                })?;
                found.ok_or_else(|| {
                    Failure::config(
                        "the configuration has no master, and the host no default route that would tell",
                    )
                })?
            }
            _ => name,
        };
        self.options.insert("parent".to_owned(), name);
        Ok(())
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
        Ok(labelled(CreateNetwork {
            name: request.config.name.clone(),
            driver: self.driver.to_owned(),
            ipv4: has(false),
            ipv6: has(true),
            ipam_driver: if wishes.subnets.is_empty() { "null" } else { "default" }.to_owned(),
            wishes,
            ipam_options: BTreeMap::new(),
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: self.options.clone(),
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
