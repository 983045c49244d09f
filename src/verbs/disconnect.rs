//! disconnect, and who is the gateway of a container with several networks.

use std::{cmp::Reverse, net::IpAddr};

use rnetkit_drivers::{Endpoint, Name, Network, Resource};

use super::{Mode, Rnet, addresses::size};
use crate::{
    container_ref::ContainerRef,
    error::Error,
    ipam,
    kernel::Kernel,
    plan::Plan,
    store::{EndpointState, Pending},
};

impl<K: Kernel> Rnet<K> {
    /// Disconnects a container from a network, by its record alone: the namespace may be gone.
    ///
    /// # Errors
    /// When the container is not in the network, or a step fails.
    pub fn disconnect(
        &mut self,
        reference: &str,
        container: &ContainerRef,
        mode: Mode,
    ) -> Result<Plan, Error> {
        self.wake()?;
        let network = self.network(reference)?;
        let container = &self.resolve(container)?;
        let key = container.key();
        let not_connected =
            || Error::NotConnected { container: container.to_string(), network: network.name.to_string() };
        if mode == Mode::Show {
            let state = self.store.endpoint(&network.id, &key)?.ok_or_else(not_connected)?;
            return self.disconnect_plan(&network, &state);
        }
        self.take_back_dead(None)?;
        if self.store.endpoint(&network.id, &key)?.is_none() {
            return Err(not_connected());
        }
        let lock = self.store.lock_container(&key)?;
        let pending = self.store.recall(&network.id, &key)?.ok_or_else(not_connected)?;
        let plan = Plan::between(&pending.state.made, &[]);
        let others = self.hand_over_gateways(std::slice::from_ref(&pending))?;
        self.unmake(pending)?;
        self.take_gateways(others);
        drop(lock);
        self.down_if_unused(&network)?;
        Ok(plan)
    }

    /// The steps that disconnect would run.
    fn disconnect_plan(&mut self, network: &Network, state: &EndpointState) -> Result<Plan, Error> {
        let mut plan = self.leave_plan(state)?.then(Plan::between(&state.made, &[]));
        let mut others = self.store.endpoints_of(&state.key)?;
        others.retain(|other| other.endpoint.id != state.endpoint.id);
        plan = plan.then(self.gateway_plan(&self.handed_over(&others)?));
        let last =
            self.store.all_endpoints(&network.id)?.iter().all(|other| other.endpoint.id == state.endpoint.id);
        match self.store.network_state(&network.id)? {
            Some(made) if last && super::is_builtin(network) => {
                Ok(plan.then(Plan::between(&made.made, &[])).then(self.unshare_plan(network)?))
            }
            _ => Ok(plan),
        }
    }

    /// Disconnects by the container's key alone, where the record is enough.
    pub(super) fn disconnect_key(&mut self, network: &rnetkit_drivers::Id, key: &str) -> Result<(), Error> {
        let made = self.store.network_state(network)?.map(|state| state.network);
        {
            let _lock = self.store.lock_container(key)?;
            if let Some(pending) = self.store.recall(network, key)? {
                self.unmake(pending)?;
            }
        }
        made.map_or(Ok(()), |network| self.down_if_unused(&network))
    }

    /// The pre-defined bridge is there while it is used, and so is on each host a network that hosts share.
    pub(super) fn down_if_unused(&mut self, network: &Network) -> Result<(), Error> {
        let for_a_while = super::networks::is_builtin(network) || crate::cluster::is_shared(network);
        if for_a_while { self.take_down(network) } else { Ok(()) }
    }

    /// Unmakes what was made for a network that nobody is connected to. Its definition stays.
    pub(super) fn take_down(&mut self, network: &Network) -> Result<(), Error> {
        if self.store.has_endpoints(&network.id)? {
            return Ok(());
        }
        let _host = self.store.lock_host()?;
        let _lock = self.store.lock_network(network)?;
        if self.store.has_endpoints(&network.id)? {
            return Ok(());
        }
        match self.store.network_state(&network.id)? {
            Some(mut state) => {
                state.pending = true;
                self.store.set_network_state(&state)?;
                self.tear_down(&state)
            }
            None => self.store.clear_network_state(&network.id),
        }
    }

    /// Gives back addresses and ports.
    pub(super) fn release(&mut self, state: &EndpointState, rest: Rest) -> Result<(), Error> {
        let endpoint = &state.endpoint;
        let network = self.store.network_state(&endpoint.network)?.map(|state| state.network);
        if let Some(network) = network.filter(|_| !endpoint.addresses.is_empty()) {
            let _lock = self.store.lock_network(&network)?;
            self.release_addresses(&network, endpoint, rest)?;
        }
        if endpoint.ports.is_empty() {
            return Ok(());
        }
        let _ports = self.store.lock_ports()?;
        self.release_ports(endpoint, rest)
    }

    /// Gives addresses back. The caller holds the network's lock.
    pub(super) fn release_addresses(
        &mut self,
        network: &Network,
        endpoint: &Endpoint,
        rest: Rest,
    ) -> Result<(), Error> {
        for pool in &network.pools {
            let address = endpoint.address(pool.subnet.is_ipv6());
            let offset = address.and_then(|address| ipam::offset_of(&pool.subnet, address.ip()));
            let Some(offset) = offset.and_then(|offset| u32::try_from(offset).ok()) else { continue };
            self.store.with_addresses(&network.id, &pool.subnet, size(pool), super::uptime(), |numbers| {
                match rest {
                    Rest::Yes => numbers.free(offset),
                    Rest::No => numbers.put_back(offset),
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Whether an address that is given back is kept from others for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It was used: neighbours and flows may remember it.
    Yes,
    /// Nobody ever had it.
    No,
}

/// Gateways.
impl<K: Kernel> Rnet<K> {
    /// Which gateways the endpoint gives its container, beside the others; and those others whose part in it
    /// changes, as they will be.
    pub(super) fn gateways(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        others: &[EndpointState],
    ) -> Result<(Vec<IpAddr>, Vec<EndpointState>), Error> {
        if others.is_empty() {
            let own = [Candidate { network, endpoint }];
            return Ok((chosen(&own, endpoint), Vec::new()));
        }
        let networks = self.networks_of(others)?;
        let mut candidates: Vec<Candidate<'_>> = others
            .iter()
            .zip(&networks)
            .map(|(state, network)| Candidate { network, endpoint: &state.endpoint })
            .collect();
        candidates.push(Candidate { network, endpoint });
        let changed = changed(&candidates, others, &networks)?;
        Ok((chosen(&candidates, endpoint), changed))
    }

    fn networks_of(&self, states: &[EndpointState]) -> Result<Vec<Network>, Error> {
        let missing = |name: &Name| Error::NetworkNotFound { name: name.to_string() };
        states
            .iter()
            .map(|state| {
                let made = self.store.network_state(&state.endpoint.network)?;
                made.map(|made| made.network).ok_or_else(|| missing(&state.network))
            })
            .collect()
    }

    /// The endpoints that become the gateways of their containers when these go: as they are, and as they will be.
    pub(super) fn hand_over_gateways(&self, going: &[Pending]) -> Result<Vec<Handover>, Error> {
        let mut list = Vec::new();
        for pending in going {
            list.extend(self.handed_over(&self.store.endpoints_of(&pending.state.key)?)?);
        }
        Ok(list)
    }

    /// Those of a container's remaining endpoints whose part in its gateways changes.
    pub(super) fn handed_over(&self, others: &[EndpointState]) -> Result<Vec<Handover>, Error> {
        let networks = self.networks_of(others)?;
        let candidates: Vec<Candidate<'_>> = others
            .iter()
            .zip(&networks)
            .map(|(state, network)| Candidate { network, endpoint: &state.endpoint })
            .collect();
        let before = |after: &EndpointState| {
            others.iter().find(|other| other.endpoint.id == after.endpoint.id).cloned()
        };
        let changed = changed(&candidates, others, &networks)?;
        Ok(changed
            .into_iter()
            .filter_map(|after| Some(Handover { before: before(&after)?, after }))
            .collect())
    }

    /// The steps that set the routes of those that took over.
    pub(super) fn gateway_plan(&self, changed: &[Handover]) -> Plan {
        let lives = |handover: &&Handover| self.still_there(&handover.after.endpoint.container).is_some();
        changed.iter().filter(lives).fold(Plan::default(), |plan, handover| plan.then(handover.plan()))
    }

    /// After an endpoint of a dead process was taken back, nobody knows which default routes its container has: those
    /// that fall to its other endpoints are looked for, and set.
    ///
    /// The caller holds the container's lock.
    pub(super) fn settle_container(&mut self, key: &str) -> Result<(), Error> {
        let mut others = self.store.endpoints_of(key)?;
        if others.is_empty() {
            return Ok(());
        }
        for handover in self.handed_over(&others)? {
            self.store.update(&handover.after)?;
        }
        others = self.store.endpoints_of(key)?;
        let Some(netns) = others.first().and_then(|state| self.still_there(&state.endpoint.container)) else {
            return Ok(());
        };
        let made = others.into_iter().flat_map(|state| state.made);
        let wanted: Vec<Resource> = made.filter(|r| matches!(r, Resource::DefaultRoute { .. })).collect();
        let failed = |refusal| Error::kernel("look at a container's routes", refusal);
        let found: Vec<Resource> =
            self.kernel.find(&wanted, Some(&netns)).map_err(failed)?.into_iter().flatten().collect();
        self.kernel.apply(&Plan::between(&found, &wanted), Some(&netns))
    }

    /// Sets the routes of those that took over, where their containers still live, and remembers it. A route that
    /// cannot be set is left to `check` and `repair`: what was asked for is done.
    pub(super) fn take_gateways(&mut self, changed: Vec<Handover>) {
        for handover in changed {
            let after = &handover.after;
            if let Some(netns) = self.still_there(&after.endpoint.container) {
                for (step, refusal) in self.kernel.settle(&handover.plan(), Some(&netns)) {
                    tracing::warn!("container {}: {step}: {refusal}", after.endpoint.container.name);
                }
            }
            if let Err(error) = self.store.update(after) {
                tracing::warn!("{error}");
            }
        }
    }
}

/// An endpoint whose part in its container's gateways changes.
pub(super) struct Handover {
    before: EndpointState,
    after: EndpointState,
}

impl Handover {
    fn plan(&self) -> Plan {
        let routes = |state: &EndpointState| -> Vec<Resource> {
            state.made.iter().filter(|r| matches!(r, Resource::DefaultRoute { .. })).cloned().collect()
        };
        Plan::between(&routes(&self.before), &routes(&self.after))
    }
}

/// An endpoint that could be a container's gateway.
struct Candidate<'a> {
    network: &'a Network,
    endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    /// The gateway that it would give, for a family.
    fn gateway(&self, ipv6: bool) -> Option<IpAddr> {
        let pool = self.network.pools.iter().find(|pool| pool.subnet.is_ipv6() == ipv6)?;
        let settings = rnetkit_drivers::settings(self.network).ok()?;
        let answers = settings.host_has_address(rnetkit_drivers::Family::of(pool.subnet.ip()));
        pool.gateway.filter(|_| !self.network.internal && answers)
    }
}

/// The gateways that fall to one endpoint: for each family the highest priority wins, then a network with both
/// families, then the network that comes first by name, as Docker chooses.
fn chosen(candidates: &[Candidate<'_>], endpoint: &Endpoint) -> Vec<IpAddr> {
    let mut list = Vec::new();
    for ipv6 in [false, true] {
        let able = candidates.iter().filter(|candidate| candidate.gateway(ipv6).is_some());
        let best = able.min_by_key(|candidate| {
            let both = candidate.gateway(false).is_some() && candidate.gateway(true).is_some();
            (Reverse(candidate.endpoint.gateway_priority), Reverse(both), &candidate.network.name)
        });
        list.extend(best.filter(|best| best.endpoint.id == endpoint.id).and_then(|best| best.gateway(ipv6)));
    }
    list
}

/// The states whose gateways are no longer what they were, as they will be.
fn changed(
    candidates: &[Candidate<'_>],
    states: &[EndpointState],
    networks: &[Network],
) -> Result<Vec<EndpointState>, Error> {
    let mut list = Vec::new();
    for (state, network) in states.iter().zip(networks) {
        let gateways = chosen(candidates, &state.endpoint);
        if gateways == state.endpoint.gateways {
            continue;
        }
        let mut state = state.clone();
        state.endpoint.gateways = gateways;
        state.made = super::driver(&network.driver)?.endpoint(network, &state.endpoint)?;
        list.push(state);
    }
    Ok(list)
}
