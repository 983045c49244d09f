//! connect: a container's place in a network, from reservation to commit.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{
    Container, Endpoint, InterfaceName, MacAddress, Network, Pool, PortMapping, Resource, Share, StaticRoute,
    Tuning,
    bridge::{self, EndpointSettings, Settings},
};

use super::{Rnet, disconnect::Rest};
use crate::{
    container_ref::{ContainerRef, Means},
    error::Error,
    kernel::Kernel,
    plan::Plan,
    store::{EndpointState, Pending},
};

/// Whether a verb does its work or shows what it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Does it.
    Do,
    /// Returns the plan, and changes nothing.
    Show,
}

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The network: a name, an id, or the beginning of one.
    pub network: String,
    /// The container.
    pub container: ContainerRef,
    /// The process of the container, where `rnet run` started it, and its id.
    pub process: Option<(u32, rnetkit_drivers::Id)>,
    /// The namespace file, where the container's name does not lead to it: an orchestrator tells it.
    pub netns: Option<std::path::PathBuf>,
    /// A static IPv4 address.
    pub ip: Option<IpAddr>,
    /// A static IPv6 address.
    pub ip6: Option<IpAddr>,
    /// The hardware address.
    pub mac: Option<MacAddress>,
    /// The interface's name in the container.
    pub interface: Option<InterfaceName>,
    /// Ports to publish.
    pub ports: Vec<PortMapping>,
    /// The service that shares their host ports.
    pub service: Option<Share>,
    /// Ports that the container has by another of its networks, to be published here when it leaves that one.
    pub spare: Vec<PortMapping>,
    /// Other names of the container.
    pub aliases: Vec<String>,
    /// The name servers that are asked for names that nobody on its networks has; the host's where there are none.
    pub dns: Vec<IpAddr>,
    /// Higher wins when the gateway is chosen.
    pub gateway_priority: i32,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Routes of the container besides.
    pub routes: Vec<StaticRoute>,
    /// How its interface is to be other than it is born, and switches of its namespace.
    pub tuning: Tuning,
    /// The network may become the container's default route, if it is the best of its networks for that.
    pub default_route: bool,
    /// Who asks: `rnet`, or the name of an orchestrator.
    pub owner: String,
}

impl Connect {
    /// The container in the network, all else left to rnet.
    #[must_use]
    pub fn new(network: impl Into<String>, container: ContainerRef) -> Self {
        Self {
            network: network.into(),
            container,
            process: None,
            netns: None,
            ip: None,
            ip6: None,
            mac: None,
            interface: None,
            ports: Vec::new(),
            spare: Vec::new(),
            service: None,
            aliases: Vec::new(),
            dns: Vec::new(),
            gateway_priority: 0,
            options: BTreeMap::new(),
            routes: Vec::new(),
            tuning: Tuning::default(),
            default_route: true,
            owner: "rnet".to_owned(),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The network, all chosen.
    pub network: Network,
    /// The endpoint, all chosen.
    pub endpoint: Endpoint,
    /// The steps: those that were run, or would be.
    pub plan: Plan,
}

/// How often the pre-defined bridge is made again when others, leaving it, unmake it.
const TRIES: usize = 100;

/// A container, its namespace open.
struct Target<N> {
    key: String,
    netns: N,
    container: Container,
}

impl<K: Kernel> Rnet<K> {
    /// Connects a container to a network.
    ///
    /// # Errors
    /// When something asked for is not to be had, or a step fails; then nothing is left.
    pub fn connect(&mut self, wanted: &Connect, mode: Mode) -> Result<Connected, Error> {
        self.wake()?;
        wanted.aliases.iter().try_for_each(|alias| super::check_alias(alias))?;
        let network = self.network(&wanted.network)?;
        self.refuse_unconnectable(&network)?;
        let wanted = &Connect { container: self.resolve(&wanted.container)?, ..wanted.clone() };
        let target = self.target(wanted)?;
        if mode == Mode::Show {
            return self.show(wanted, &network, &target);
        }
        let _lock = self.store.lock_container(&target.key)?;
        self.take_back_dead(Some(&target.key))?;
        let result = self.connect_locked(wanted, &network, &target);
        match &result {
            Ok(connected) => self.tell_others(&connected.network),
            Err(_) => self.store.leave_container(&target.key),
        }
        result
    }

    fn connect_locked(
        &mut self,
        wanted: &Connect,
        network: &Network,
        target: &Target<K::Netns>,
    ) -> Result<Connected, Error> {
        let others = self.leave_former(target)?;
        refuse_second(network, &others)?;
        for _ in 0..TRIES {
            let network = self.up(network)?;
            match self.attach(wanted, &network, target, &others) {
                // The last container left between the two, and the bridge went with it.
                Err(Error::NetworkNotFound { .. })
                    if network.name.as_str() == "bridge" || crate::cluster::is_shared(&network) => {}
                Err(error) => {
                    self.down_if_unused(&network)?;
                    return Err(error);
                }
                connected => return connected,
            }
        }
        Err(Error::NetworkNotFound { name: network.name.to_string() })
    }

    /// The container's other endpoints. Those of an earlier namespace with the same name are taken back: it is gone,
    /// and nobody else would say so.
    fn leave_former(&mut self, target: &Target<K::Netns>) -> Result<Vec<EndpointState>, Error> {
        let endpoints = self.store.endpoints_of(&target.key)?;
        let (others, former): (Vec<EndpointState>, Vec<EndpointState>) =
            endpoints.into_iter().partition(|state| is_of(state, &target.container));
        for state in former {
            let network = state.endpoint.network;
            if let Some(pending) = self.store.recall(&network, &target.key)? {
                self.unmake_in(pending)?;
            }
            if let Some(made) = self.store.network_state(&network)? {
                self.down_if_unused(&made.network)?;
            }
        }
        Ok(others)
    }

    /// Reserve, apply, commit. Where the kernel lacks what the network needs (somebody deleted it), that is made
    /// again and the attach tried once more; where the container has an interface of the chosen name, the next
    /// free one is taken.
    fn attach(
        &mut self,
        wanted: &Connect,
        network: &Network,
        target: &Target<K::Netns>,
        others: &[EndpointState],
    ) -> Result<Connected, Error> {
        let mut skip = Vec::new();
        let mut healed = false;
        let mut wanted = wanted.clone();
        loop {
            let pending = self.reserve(&wanted, network, target, others, &skip)?;
            let (before, after) = self.with_gateways(network, &pending.state, others)?;
            let plan = Plan::between(&before, &after);
            let endpoint = pending.state.endpoint.clone();
            let applied = self.kernel.apply(&plan, Some(&target.netns));
            let error = match applied {
                Ok(()) => match self
                    .names_come(network, &pending.state, others)
                    .and_then(|()| self.join(&pending, others))
                {
                    Ok(()) => return Ok(Connected { network: network.clone(), endpoint, plan }),
                    Err(error) => {
                        let left = self.kernel.settle(&plan.undo(plan.steps.len()), Some(&target.netns));
                        left.iter().for_each(|(step, refusal)| tracing::warn!("{step}: {refusal}"));
                        error
                    }
                },
                Err(error) => error,
            };
            if matches!(&error, Error::Apply { left_behind, .. } if !left_behind.is_empty()) {
                // Its record stays pending: the next command tries again to take back what is left.
                return Err(error);
            }
            self.names_go(&pending.state)?;
            self.release(&pending.state, Rest::No)?;
            self.store.forget(pending)?;
            let error = self.explain(error, network, target, &endpoint);
            match &error {
                Error::InterfaceTaken { .. } if wanted.interface.is_none() && skip.len() < 64 => {
                    skip.push(endpoint.interface)
                }
                Error::RouteTaken { .. } if others.is_empty() && wanted.default_route => {
                    tracing::warn!("{error}: it stays");
                    wanted.default_route = false;
                }
                Error::Apply { reason, .. }
                    if !healed && (reason.is_missing() || reason.errno == libc::ENETDOWN) =>
                {
                    healed = true;
                    self.heal(&target.key)?;
                }
                _ => return Err(error),
            }
        }
    }

    /// What a refusal means for the user.
    fn explain(
        &mut self,
        error: Error,
        network: &Network,
        target: &Target<K::Netns>,
        endpoint: &Endpoint,
    ) -> Error {
        let Error::Apply { step, reason, .. } = &error else { return error };
        let name = target.container.name.clone();
        let own = |start: &str| step.starts_with(start);
        let inside = &endpoint.interface;
        let on_link = own(&format!("+ veth {} ", bridge::port_name(endpoint)))
            || own(&format!("+ macvlan {inside} in the container"))
            || own(&format!("+ ipvlan {inside} in the container"));
        match reason.errno {
            // br_add_if() of net/bridge/br_if.c: no port number is left.
            libc::EXFULL => Error::BridgeFull { network: network.name.to_string() },
            libc::EEXIST if on_link => {
                Error::InterfaceTaken { container: name, interface: endpoint.interface.to_string() }
            }
            libc::EEXIST if step.starts_with("+ default route ") => Error::RouteTaken { container: name },
            libc::EEXIST if step.starts_with("+ port ") => {
                Error::MacTaken { mac: endpoint.mac, network: network.name.to_string() }
            }
            libc::EEXIST => match endpoint.ports.iter().find(|port| step.contains(&port.to_string())) {
                Some(port) => Error::PortTaken {
                    port: crate::error::port_text(port.host, port.host_ports),
                    protocol: port.protocol,
                    by: "published by another program in rnet's own tables".to_owned(),
                },
                None => error,
            },
            _ => error,
        }
    }

    fn refuse_unconnectable(&self, network: &Network) -> Result<(), Error> {
        if Self::driver(network)?.abilities().connectable {
            return Ok(());
        }
        let what = match network.driver.as_str() {
            "host" => {
                "a container cannot be connected to network host: it must be started there (rnet run --network host)"
            }
            _ => "a container cannot be connected to network none: that means to have no network",
        };
        Err(Error::Unsupported { what: what.to_owned() })
    }

    fn target(&mut self, wanted: &Connect) -> Result<Target<K::Netns>, Error> {
        let started = match wanted.process {
            Some(process) => Some(process),
            None => self.process_of(&wanted.container)?,
        };
        let process = started.map(|(pid, _)| pid);
        let (netns, path) = match &wanted.netns {
            Some(path) => wanted.container.open_at(path.clone(), &self.kernel)?,
            None => wanted.container.open(process, &self.kernel)?,
        };
        let key = wanted.container.key();
        let (device, inode) = self.kernel.identity(&netns);
        let id = match started {
            Some((_, id)) => id,
            None => match (self.store.endpoints_of(&key)?.first(), &wanted.container.means) {
                (Some(other), _) => other.endpoint.container.id,
                // An orchestrator's id stays what it is, where it has the form of one.
                (None, Means::Cni(id)) => id.parse().or_else(|_| super::new_id())?,
                (None, _) => super::new_id()?,
            },
        };
        let name = wanted.container.name();
        let container = Container { id, name, netns: path.to_string_lossy().into_owned(), device, inode };
        Ok(Target { key, netns, container })
    }

    /// The plan, with choices made as if now, and none of them kept.
    fn show(
        &mut self,
        wanted: &Connect,
        network: &Network,
        target: &Target<K::Netns>,
    ) -> Result<Connected, Error> {
        let mut others = self.store.endpoints_of(&target.key)?;
        others.retain(|other| is_of(other, &target.container));
        refuse_second(network, &others)?;
        let (network, up) = self.up_plan(network)?;
        let mut state = self.draft(wanted, &network, target, &others, &[])?;
        for pool in &network.pools {
            let asked = asked_address(wanted, &network, pool, &state.endpoint)?;
            let address = self.preview_address(&network, pool, asked)?;
            state.endpoint.addresses.extend(IpNetwork::new(address, pool.subnet.prefix()));
        }
        state.endpoint.mac = mac_of(wanted, &state.endpoint.addresses, &state.endpoint.id);
        self.take_ports(&network, wanted, &mut state.endpoint, Mode::Show)?;
        state.endpoint.gateways = self.gateways(&network, &state.endpoint, &others)?.0;
        state.made = Self::driver(&network)?.endpoint(&network, &state.endpoint)?;
        let (before, after) = self.with_gateways(&network, &state, &others)?;
        let plan = up.then(Plan::between(&before, &after)).then(self.join_plan(&state)?);
        Ok(Connected { network, endpoint: state.endpoint, plan })
    }

    /// The record as far as nothing has to be chosen under a lock.
    fn draft(
        &mut self,
        wanted: &Connect,
        network: &Network,
        target: &Target<K::Netns>,
        others: &[EndpointState],
        skip: &[InterfaceName],
    ) -> Result<EndpointState, Error> {
        let settings = rnetkit_drivers::settings(network)?;
        let asked = EndpointSettings::read(&wanted.options)?.interface;
        let interface = match wanted.interface.clone().or(asked) {
            Some(name) => free_interface(name, &target.container, others)?,
            None => next_interface(&settings, others, skip)?,
        };
        refuse_contradictions(wanted, network)?;
        let id = super::new_id()?;
        let endpoint = Endpoint {
            id,
            network: network.id,
            container: target.container.clone(),
            interface,
            mac: mac_of(wanted, &[], &id),
            addresses: Vec::new(),
            gateway_priority: wanted.gateway_priority,
            gateways: Vec::new(),
            routes: wanted.routes.clone(),
            tuning: wanted.tuning.clone(),
            spare: wanted.spare.clone(),
            ports: Vec::new(),
            aliases: wanted.aliases.clone(),
            dns: wanted.dns.clone(),
            options: wanted.options.clone(),
        };
        Ok(EndpointState {
            endpoint,
            key: target.key.clone(),
            network: network.name.clone(),
            owner: wanted.owner.clone(),
            created: super::now(),
            made: Vec::new(),
        })
    }

    /// Chooses addresses and ports, and writes down everything that may come to exist. Under the network's lock, so
    /// that nobody removes the network between.
    fn reserve(
        &mut self,
        wanted: &Connect,
        network: &Network,
        target: &Target<K::Netns>,
        others: &[EndpointState],
        skip: &[InterfaceName],
    ) -> Result<Pending, Error> {
        let mut state = self.draft(wanted, network, target, others, skip)?;
        // Before any lock is held: the agent may need the same.
        let wanted = &self.agree(wanted, network, &state.endpoint)?;
        let gone = || Error::NetworkNotFound { name: network.name.to_string() };
        let _lock = self.store.lock_living_network(network)?.ok_or_else(gone)?;
        if self.store.made_network(&network.id)?.is_none() {
            return Err(gone());
        }
        // From the choice of ports until the record names them, nobody else chooses.
        let _ports = if wanted.ports.is_empty() { None } else { Some(self.store.lock_ports()?) };
        let result = self.reserve_into(&mut state, wanted, network, others);
        match result.and_then(|()| self.store.reserve(state.clone())) {
            Ok(pending) => Ok(pending),
            Err(error) => Err(self.let_go(&state, network, error)),
        }
    }

    fn reserve_into(
        &mut self,
        state: &mut EndpointState,
        wanted: &Connect,
        network: &Network,
        others: &[EndpointState],
    ) -> Result<(), Error> {
        for pool in &network.pools {
            let asked = asked_address(wanted, network, pool, &state.endpoint)?;
            let address = self.take_address(network, pool, asked)?;
            state.endpoint.addresses.extend(IpNetwork::new(address, pool.subnet.prefix()));
        }
        state.endpoint.mac = mac_of(wanted, &state.endpoint.addresses, &state.endpoint.id);
        self.take_ports(network, wanted, &mut state.endpoint, Mode::Do)?;
        if wanted.default_route {
            state.endpoint.gateways = self.gateways(network, &state.endpoint, others)?.0;
        }
        state.made = Self::driver(network)?.endpoint(network, &state.endpoint)?;
        Ok(())
    }

    /// Gives back what was reserved before a failure. The caller holds the network's lock.
    fn let_go(&mut self, state: &EndpointState, network: &Network, error: Error) -> Error {
        let given_back = self.release_addresses(network, &state.endpoint, Rest::No);
        match given_back.and_then(|()| self.release_ports(&state.endpoint, Rest::No)) {
            Ok(()) => error,
            Err(also) => also,
        }
    }

    /// The resources of the container's endpoints before and after, as far as they differ.
    fn with_gateways(
        &self,
        network: &Network,
        own: &EndpointState,
        others: &[EndpointState],
    ) -> Result<(Vec<Resource>, Vec<Resource>), Error> {
        let (_, changed) = self.gateways(network, &own.endpoint, others)?;
        let mut before = Vec::new();
        let mut after = Vec::new();
        for state in &changed {
            let old = others.iter().find(|other| other.endpoint.id == state.endpoint.id);
            before.extend(old.map(|old| old.made.clone()).unwrap_or_default());
            after.extend(state.made.clone());
        }
        after.extend(own.made.clone());
        Ok((before, after))
    }

    pub(super) fn commit(&mut self, pending: &Pending, others: &[EndpointState]) -> Result<(), Error> {
        if !others.is_empty()
            && let Some(made) = self.store.network_state(&pending.state.endpoint.network)?
        {
            for state in self.gateways(&made.network, &pending.state.endpoint, others)?.1 {
                self.store.update(&state)?;
            }
        }
        self.store.commit(pending)
    }

    /// Somebody deleted what the network needs: everything that is missing on this host is made again, other containers'
    /// links and ports included.
    fn heal(&mut self, held: &str) -> Result<(), Error> {
        let _host = self.store.lock_host()?;
        let (mended, _) = self.mend(Some(held))?;
        mended.iter().for_each(|difference| tracing::info!("mended: {difference}"));
        tracing::warn!("{} things that somebody had deleted were made again", mended.len());
        Ok(())
    }
}

impl<K: Kernel> Rnet<K> {
    /// What is wanted, with the addresses that the hosts of a cluster agree on where the network is theirs.
    fn agree(&mut self, wanted: &Connect, network: &Network, endpoint: &Endpoint) -> Result<Connect, Error> {
        let mut wanted = wanted.clone();
        if !crate::cluster::is_shared(network) {
            return Ok(wanted);
        }
        let asked: Vec<IpAddr> = wanted.ip.into_iter().chain(wanted.ip6).collect();
        let agreed = self.cluster()?.reserve(network, &endpoint.id, &endpoint.container.name, &asked)?;
        wanted.ip = agreed.iter().copied().find(IpAddr::is_ipv4);
        wanted.ip6 = agreed.iter().copied().find(IpAddr::is_ipv6);
        Ok(wanted)
    }
}

/// The address that the user asks for, or the one that goes with the endpoint's IPv4 address where the driver says so.
fn asked_address(
    wanted: &Connect,
    network: &Network,
    pool: &Pool,
    endpoint: &Endpoint,
) -> Result<Option<IpAddr>, Error> {
    if !pool.subnet.is_ipv6() {
        return Ok(wanted.ip);
    }
    let paired = match endpoint.address(false) {
        Some(first) => super::driver(&network.driver)?.paired(network, first.ip())?,
        None => None,
    };
    match (wanted.ip6, paired) {
        (Some(address), Some(paired)) if address != paired => Err(Error::AddressRefused {
            address,
            network: network.name.to_string(),
            reason: format!("{paired} goes with the IPv4 address"),
        }),
        (asked, paired) => Ok(asked.or(paired)),
    }
}

/// Whether the endpoint is in that very namespace.
fn is_of(state: &EndpointState, container: &Container) -> bool {
    let other = &state.endpoint.container;
    (other.device, other.inode) == (container.device, container.inode)
}

fn refuse_second(network: &Network, others: &[EndpointState]) -> Result<(), Error> {
    match others.iter().find(|other| other.endpoint.network == network.id) {
        Some(other) => Err(Error::AlreadyConnected {
            container: other.endpoint.container.name.clone(),
            network: network.name.to_string(),
        }),
        None => Ok(()),
    }
}

/// Wishes that the network cannot fulfil.
fn refuse_contradictions(wanted: &Connect, network: &Network) -> Result<(), Error> {
    for (address, six, family) in [(wanted.ip, false, "IPv4"), (wanted.ip6, true, "IPv6")] {
        let Some(address) = address else { continue };
        let refuse = |reason: String| {
            Err(Error::AddressRefused { address, network: network.name.to_string(), reason })
        };
        if address.is_ipv6() != six {
            return refuse(format!("it is no {family} address"));
        }
        if !network.has_family(six) {
            return refuse(format!("the network has no {family}"));
        }
    }
    if network.internal && !wanted.ports.is_empty() {
        let what = format!(
            "network {} is internal: port {} cannot be published there",
            network.name, wanted.ports[0]
        );
        return Err(Error::Unsupported { what });
    }
    Ok(())
}

/// The name that was asked for, if none of the container's other endpoints has it.
fn free_interface(
    name: InterfaceName,
    container: &Container,
    others: &[EndpointState],
) -> Result<InterfaceName, Error> {
    if others.iter().any(|other| other.endpoint.interface == name) {
        return Err(Error::InterfaceTaken { container: container.name.clone(), interface: name.to_string() });
    }
    Ok(name)
}

/// The network's prefix with the lowest number that no other endpoint of the container has.
fn next_interface(
    settings: &Settings,
    others: &[EndpointState],
    skip: &[InterfaceName],
) -> Result<InterfaceName, Error> {
    let mut number = 0u32;
    loop {
        let name: InterfaceName = format!("{}{number}", settings.interface_prefix).parse()?;
        if !skip.contains(&name) && !others.iter().any(|other| other.endpoint.interface == name) {
            return Ok(name);
        }
        number += 1;
    }
}

fn mac_of(wanted: &Connect, addresses: &[IpNetwork], id: &rnetkit_drivers::Id) -> MacAddress {
    let first = addresses.iter().min_by_key(|address| address.is_ipv6());
    let derived = first.map(|address| MacAddress::of(address.ip()));
    wanted.mac.or(derived).unwrap_or(MacAddress([0x02, 0x42, id.0[0], id.0[1], id.0[2], id.0[3]]))
}
