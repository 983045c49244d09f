//! create, list, find, remove, prune.

use std::collections::BTreeMap;

use rnetkit_drivers::{Id, Name, Network, Resource};

use super::{Mode, Rnet, driver};
use crate::{
    cluster,
    error::{Error, shown},
    ipam::{self, Wishes},
    kernel::Kernel,
    plan::Plan,
    store::{EndpointState, NetworkState, Pending},
};

/// The networks that are there without being made, and their drivers.
pub const BUILTIN: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A network as a user asks for it.
#[derive(Debug, Clone)]
pub struct CreateNetwork {
    /// Its name.
    pub name: Name,
    /// Its driver's name.
    pub driver: String,
    /// Subnets, gateways, ranges, reserved addresses.
    pub wishes: Wishes,
    /// It has IPv4.
    pub ipv4: bool,
    /// It has IPv6.
    pub ipv6: bool,
    /// `default` or `null`.
    pub ipam_driver: String,
    /// Options of the IPAM driver.
    pub ipam_options: BTreeMap<String, String>,
    /// No way in or out, except between members.
    pub internal: bool,
    /// Accepted and shown.
    pub attachable: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

impl<K: Kernel> Rnet<K> {
    /// Creates a network: defines it, and makes what it needs on this host.
    ///
    /// # Errors
    /// When the name or subnet is taken, an option makes no sense, or a step fails; then nothing is left.
    pub fn create(&mut self, wanted: CreateNetwork, mode: Mode) -> Result<(Network, Plan), Error> {
        self.wake()?;
        if mode == Mode::Do {
            self.recover()?;
        }
        let name = wanted.name.clone();
        if BUILTIN.iter().any(|(builtin, _)| *builtin == name.as_str()) {
            return Err(Error::NetworkExists { name: name.to_string() });
        }
        if name.as_str().parse::<Id>().is_ok() {
            let reason = "it has the form of an id";
            return Err(rnetkit_drivers::Invalid::new("network name", name.as_str(), reason).into());
        }
        let lock = if mode == Mode::Do { Some(self.store.lock_host()?) } else { None };
        if self.store.definition(&name)?.is_some() {
            return Err(Error::NetworkExists { name: name.to_string() });
        }
        let network = self.decide(wanted)?;
        if mode == Mode::Show {
            let plan = self.up_plan(&network)?.1;
            return Ok((network, plan));
        }
        if cluster::is_shared(&network) {
            // Made on each host when a container there first needs it. The agent may need the lock before it answers.
            drop(lock);
            let network = self.cluster()?.create(&network)?;
            let _lock = self.store.lock_host()?;
            if self.store.definition(&name)?.is_none() {
                self.store.define(&network)?;
            }
            return Ok((network, Plan::default()));
        }
        self.store.define(&network)?;
        drop(lock);
        if let Err(error) = self.up(&network) {
            self.store.undefine(&name)?;
            return Err(error);
        }
        Ok((network, Plan::default()))
    }

    /// Everything that the user left open is chosen; everything that cannot be is refused. Writes nothing.
    fn decide(&mut self, wanted: CreateNetwork) -> Result<Network, Error> {
        let driver = driver(&wanted.driver)?;
        let abilities = driver.abilities();
        if !abilities.creatable {
            let what = format!("driver {} has one network only, which is there already", wanted.driver);
            return Err(Error::Unsupported { what });
        }
        if !["default", "null"].contains(&wanted.ipam_driver.as_str()) {
            return Err(Error::DriverNotFound {
                name: shown(&wanted.ipam_driver),
                known: "default, null".to_owned(),
            });
        }
        if let Some(option) = wanted.ipam_options.keys().next() {
            let what = format!(
                "ipam driver {} takes no options, and so not \"{}\"",
                wanted.ipam_driver,
                shown(option)
            );
            return Err(Error::Unsupported { what });
        }
        let id = super::new_id()?;
        let mut network = Network {
            id,
            name: wanted.name,
            driver: driver.name().to_owned(),
            created: super::now(),
            pools: Vec::new(),
            internal: wanted.internal,
            attachable: wanted.attachable,
            ipam_driver: wanted.ipam_driver,
            ipam_options: wanted.ipam_options,
            options: wanted.options,
            labels: wanted.labels,
            group: self.free_group(&id)?,
        };
        network.pools = self.decide_pools(&wanted.wishes, wanted.ipv4, wanted.ipv6, &network)?;
        if network.driver == "overlay" {
            self.decide_overlay(&mut network)?;
        }
        driver.check(&network)?;
        self.check_device(&network)?;
        Ok(network)
    }

    fn decide_pools(
        &mut self,
        wishes: &Wishes,
        ipv4: bool,
        ipv6: bool,
        network: &Network,
    ) -> Result<Vec<rnetkit_drivers::Pool>, Error> {
        let has = |six: bool| wishes.subnets.iter().any(|subnet| subnet.is_ipv6() == six);
        let refuse = |what: &str| Err(Error::Unsupported { what: what.to_owned() });
        for (six, wanted, family) in [(false, ipv4, "IPv4"), (true, ipv6, "IPv6")] {
            let given: Vec<String> = wishes
                .subnets
                .iter()
                .filter(|subnet| subnet.is_ipv6() == six)
                .map(ToString::to_string)
                .collect();
            if given.len() > 1 {
                return refuse(&format!(
                    "a bridge has one {family} subnet, and these were given: {}",
                    given.join(", ")
                ));
            }
            if has(six) && !wanted && !six {
                return refuse(&format!("an {family} subnet was given, and {family} is switched off"));
            }
        }
        let ipv6 = ipv6 || has(true);
        if network.ipam_driver == "null" {
            return if wishes.subnets.is_empty() {
                Ok(Vec::new())
            } else {
                refuse("ipam driver null gives out no addresses: a subnet makes no sense")
            };
        }
        if !ipv4 && !ipv6 {
            return refuse("a network needs IPv4, IPv6 or both");
        }
        let mut wishes = wishes.clone();
        let mut taken = self.taken()?;
        taken.extend(self.kept_for_bridge(&taken)?);
        // A LAN is the host's own: its routes lead there.
        let lan = driver(&network.driver)?.abilities().lan;
        for subnet in &wishes.subnets {
            if lan {
                self.refuse_networks(subnet)?
            } else {
                self.check_free(subnet)?
            };
        }
        if ipv4 && !has(false) {
            wishes.subnets.push(ipam::choose_ipv4(&taken)?);
        }
        if ipv6 && !has(true) {
            wishes.subnets.push(ipam::choose_ipv6(&self.identity()?.host, &taken)?);
        }
        ipam::pools(&wishes)
    }

    /// The subnet that the pre-defined bridge would get on first use.
    fn kept_for_bridge(
        &mut self,
        taken: &[ipnetwork::IpNetwork],
    ) -> Result<Option<ipnetwork::IpNetwork>, Error> {
        let bridge = self.network("bridge")?;
        Ok(if bridge.pools.is_empty() { Some(ipam::choose_ipv4(taken)?) } else { None })
    }

    /// A subnet that a user asks for must meet no other network, and nothing that the host has a route to.
    pub(super) fn check_free(&mut self, subnet: &ipnetwork::IpNetwork) -> Result<(), Error> {
        let taken = |by: String| Err(Error::SubnetTaken { subnet: *subnet, by });
        self.refuse_networks(subnet)?;
        let all = self.taken()?;
        if let Some(kept) = self.kept_for_bridge(&all)?.filter(|kept| ipam::overlaps(kept, subnet)) {
            return taken(format!("{kept}, which is kept for network bridge"));
        }
        let routes =
            self.kernel.subnets().map_err(|refusal| Error::kernel("list the host's routes", refusal))?;
        match routes.iter().find(|known| ipam::overlaps(&known.subnet, subnet)) {
            Some(known) => taken(format!("{}, {}", known.subnet, known.how)),
            None => Ok(()),
        }
    }

    /// A subnet must meet no other network.
    fn refuse_networks(&self, subnet: &ipnetwork::IpNetwork) -> Result<(), Error> {
        for network in self.networks()? {
            if let Some(pool) = network.pools.iter().find(|pool| ipam::overlaps(&pool.subnet, subnet)) {
                let by = format!("{} of network {}", pool.subnet, network.name);
                return Err(Error::SubnetTaken { subnet: *subnet, by });
            }
        }
        Ok(())
    }

    /// Two networks cannot share a bridge.
    fn check_device(&mut self, network: &Network) -> Result<(), Error> {
        let device = |network: &Network| {
            rnetkit_drivers::bridge::Settings::of(network).ok().map(|settings| settings.device)
        };
        let wanted = device(network);
        for other in self.networks()?.iter().filter(|other| other.driver == "bridge") {
            if wanted.is_some() && device(other) == wanted {
                let link = wanted.map(|device| device.to_string()).unwrap_or_default();
                let what = format!("bridge {link} is the one of network {} already", other.name);
                return Err(Error::Unsupported { what });
            }
        }
        Ok(())
    }

    /// An interface group that no other network has.
    pub(super) fn free_group(&self, id: &Id) -> Result<u32, Error> {
        let used: Vec<u32> = self.networks()?.iter().map(|network| network.group).collect();
        let start = u32::from(u16::from_be_bytes([id.0[0], id.0[1]]));
        let mut groups = (0..=0xffff).map(|n| Network::GROUPS | (start + n) & 0xffff);
        groups
            .find(|group| !used.contains(group))
            .ok_or_else(|| Error::Unsupported { what: "there are 65,536 networks already".to_owned() })
    }

    /// The networks that are there without being made.
    fn builtin(&self) -> Result<Vec<Network>, Error> {
        let identity = self.identity()?;
        let ids = [identity.bridge, identity.host_network, identity.none];
        let make = |((name, driver), id): ((&str, &str), Id)| -> Result<Network, Error> {
            Ok(Network {
                id,
                name: name.parse()?,
                driver: driver.to_owned(),
                created: identity.created,
                pools: Vec::new(),
                internal: false,
                attachable: false,
                ipam_driver: "default".to_owned(),
                ipam_options: BTreeMap::new(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                group: Network::GROUPS | u32::from(u16::from_be_bytes([id.0[0], id.0[1]])),
            })
        };
        BUILTIN.into_iter().zip(ids).map(make).collect()
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        let mut list = self.store.definitions()?;
        // A definition that was damaged or lost is still known by what was made for it.
        for state in self.store.network_states()?.into_iter().filter(|state| !state.pending) {
            if !is_builtin(&state.network) && !list.iter().any(|network| network.id == state.network.id) {
                list.push(state.network);
            }
        }
        for network in self.builtin()? {
            let made = self.store.network_state(&network.id)?.map(|state| state.network);
            list.push(made.unwrap_or(network));
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// The network with that name, id, or beginning of an id.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn network(&self, reference: &str) -> Result<Network, Error> {
        let damaged = match Name::parse("network", reference).map(|name| self.store.definition(&name)) {
            Ok(Ok(Some(network))) => return Ok(network),
            Ok(Err(error @ Error::Damaged { .. })) => Some(error),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) | Err(_) => None,
        };
        let list = self.networks()?;
        if let Some(network) = list.iter().find(|network| network.name.as_str() == reference) {
            return Ok(network.clone());
        }
        let hex = !reference.is_empty() && reference.bytes().all(|b| b.is_ascii_hexdigit());
        let mut matching =
            list.into_iter().filter(|network| hex && network.id.to_string().starts_with(reference));
        match (matching.next(), matching.count()) {
            (Some(network), 0) => Ok(network),
            (Some(_), more) => Err(Error::NetworkAmbiguous { prefix: shown(reference), count: more + 1 }),
            (None, _) => Err(damaged.unwrap_or_else(|| Error::NetworkNotFound { name: shown(reference) })),
        }
    }

    /// As `network`, with the subnet that `bridge` would get on first use.
    ///
    /// # Errors
    /// As `network`.
    pub fn network_in_full(&mut self, reference: &str) -> Result<Network, Error> {
        let network = self.network(reference)?;
        self.complete(&network)
    }

    /// Removes a network; with `force` its endpoints too.
    ///
    /// # Errors
    /// When it is pre-defined, has endpoints, or a step fails.
    pub fn remove(&mut self, reference: &str, force: bool, mode: Mode) -> Result<(Network, Plan), Error> {
        self.wake()?;
        if mode == Mode::Do {
            self.recover()?;
        }
        let network = self.network(reference)?;
        if is_builtin(&network) {
            return Err(Error::Predefined { name: network.name.to_string(), action: "removed" });
        }
        if mode == Mode::Show {
            let plan = self.remove_plan(&network, force)?;
            return Ok((network, plan));
        }
        let endpoints = {
            let _host = self.store.lock_host()?;
            let _lock = self.store.lock_network(&network)?;
            let endpoints = self.store.all_endpoints(&network.id)?;
            refuse_endpoints(&network, &endpoints, force)?;
            endpoints
        };
        if cluster::is_shared(&network) {
            for state in &endpoints {
                self.disconnect_key(&network.id, &state.key)?;
            }
            self.cluster()?.settle()?;
            self.cluster()?.remove(&network)?;
        }
        match self.remove_all(&network, endpoints, force) {
            // The agent heard of it too, and was faster.
            Err(_) if cluster::is_shared(&network) && !self.is_defined(&network)? => {}
            result => result?,
        }
        Ok((network, Plan::default()))
    }

    fn is_defined(&self, network: &Network) -> Result<bool, Error> {
        Ok(self.store.definition(&network.name)?.is_some_and(|known| known.id == network.id))
    }

    fn remove_plan(&mut self, network: &Network, force: bool) -> Result<Plan, Error> {
        let mut endpoints = self.store.endpoints(&network.id)?;
        refuse_endpoints(network, &endpoints, force)?;
        endpoints.sort_by(|a, b| a.key.cmp(&b.key));
        let mut made = self.store.network_state(&network.id)?.map(|state| state.made).unwrap_or_default();
        made.extend(endpoints.iter().flat_map(|state| state.made.clone()));
        let mut plan = together(&made);
        for state in &endpoints {
            let mut others = self.store.endpoints_of(&state.key)?;
            others.retain(|other| other.endpoint.network != network.id);
            plan = plan.then(self.gateway_plan(&self.handed_over(&others)?));
        }
        Ok(plan.then(self.unshare_plan(network)?))
    }

    /// Endpoints and network in one plan, so that the kernel deletes their links together.
    ///
    /// Locks are taken in the order in which connect takes them: containers, host, network. Whoever connects
    /// meanwhile finds the network gone; whoever had begun is waited for.
    pub(super) fn remove_all(
        &mut self,
        network: &Network,
        endpoints: Vec<EndpointState>,
        force: bool,
    ) -> Result<(), Error> {
        let removal = self.store.lock_removal(network)?;
        let made = self.begin_removal(network, force)?;
        let mut keys: Vec<String> = endpoints
            .into_iter()
            .chain(self.store.all_endpoints(&network.id)?)
            .map(|state| state.key)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut recalled = Vec::new();
        let mut locks = Vec::new();
        for key in &keys {
            locks.push(self.store.lock_container(key)?);
            recalled.extend(self.store.recall(&network.id, key)?);
        }
        let _host = self.store.lock_host()?;
        let lock = self.store.lock_network(network)?;
        let mut all = made.made.clone();
        let others = self.hand_over_gateways(&recalled)?;
        recalled.iter().try_for_each(|pending| self.leave(&pending.state))?;
        let mut left = Vec::new();
        for Pending { state, .. } in &recalled {
            // What is reached from within containers alone goes one by one.
            if state.made.iter().any(|resource| matches!(resource, Resource::Child(_))) {
                left.extend(self.settle_for(&Plan::between(&state.made, &[]), &state.endpoint.container));
            } else {
                all.extend(state.made.clone());
            }
        }
        left.extend(self.kernel.settle(&together(&all), None));
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        let ports = self.store.lock_ports()?;
        for pending in recalled {
            self.names_go(&pending.state)?;
            self.release_ports(&pending.state.endpoint, super::disconnect::Rest::Yes)?;
            self.store.forget(pending)?;
        }
        drop(ports);
        keys.iter().for_each(|key| self.store.leave_container(key));
        self.take_gateways(others);
        drop((removal, lock));
        self.tear_down(&NetworkState { made: Vec::new(), ..made })?;
        self.store.undefine(&network.name)
    }

    /// From now on nobody connects. Returns what was made for the network.
    fn begin_removal(&mut self, network: &Network, force: bool) -> Result<NetworkState, Error> {
        let _host = self.store.lock_host()?;
        let _lock = self.store.lock_network(network)?;
        refuse_endpoints(network, &self.store.all_endpoints(&network.id)?, force)?;
        let state = self.store.network_state(&network.id)?;
        let state = NetworkState {
            pending: true,
            ..state.unwrap_or(NetworkState { network: network.clone(), pending: true, made: Vec::new() })
        };
        self.store.set_network_state(&state)?;
        Ok(state)
    }

    /// Removes every network of users that has no endpoint, if `wanted` says so; returns their names.
    ///
    /// # Errors
    /// The first failure.
    pub fn prune(&mut self, mut wanted: impl FnMut(&Network) -> bool) -> Result<Vec<Name>, Error> {
        self.wake()?;
        self.recover()?;
        let mut pruned = Vec::new();
        for network in self.store.definitions()? {
            if !wanted(&network) || self.store.has_endpoints(&network.id)? {
                continue;
            }
            match self.remove(network.name.as_str(), false, Mode::Do) {
                Ok((network, _)) => pruned.push(network.name),
                Err(Error::HasEndpoints { .. } | Error::NetworkNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}

/// Whether the network is one of those that are there without being made.
#[must_use]
pub fn is_builtin(network: &Network) -> bool {
    BUILTIN.iter().any(|(name, _)| *name == network.name.as_str())
}

/// Elements of the firewall first, then links, the bridge last: the order in which the kernel takes them in the
/// fewest messages.
fn together(made: &[Resource]) -> Plan {
    let mut plan = Plan::between(made, &[]);
    plan.steps.sort_by_key(|step| match step {
        crate::plan::Step::Remove(Resource::Veth { .. } | Resource::Ifb { .. }) => 1,
        crate::plan::Step::Remove(Resource::Bridge { .. } | Resource::Sandbox { .. }) => 2,
        _ => 0,
    });
    plan
}

fn refuse_endpoints(network: &Network, endpoints: &[EndpointState], force: bool) -> Result<(), Error> {
    if force || endpoints.is_empty() {
        return Ok(());
    }
    const SHOWN: usize = 10;
    let mut names: Vec<&str> =
        endpoints.iter().take(SHOWN).map(|state| state.endpoint.container.name.as_str()).collect();
    if endpoints.len() > SHOWN {
        names.push("…");
    }
    Err(Error::HasEndpoints { network: network.name.to_string(), containers: names.join(", ") })
}
