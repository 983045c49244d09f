//! Changes to what is there: an endpoint gets more ports, limits or switches, or loses them; a network gets other
//! options. The record names everything that may exist before the kernel is touched, so that whoever is killed here
//! leaves nothing that a disconnect would not find.

use std::collections::BTreeMap;

use rnetkit_drivers::{Network, PortMapping, Publication, Resource, Tuning};

use super::{Connect, Mode, Rnet, disconnect::Rest};
use crate::{
    container_ref::ContainerRef,
    error::Error,
    kernel::Kernel,
    plan::Plan,
    store::{EndpointState, NetworkState},
};

/// What an endpoint gets besides what it has.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// Ports; those that it has already are no ones' loss.
    pub ports: Vec<PortMapping>,
    /// Ports that the container has by another of its endpoints.
    pub spare: Vec<PortMapping>,
    /// Switches and what makes the interface other than it is born; each in place of what there was.
    pub tuning: Tuning,
    /// Options of the driver; each in place of what there was.
    pub options: BTreeMap<String, String>,
}

/// What an endpoint loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Less {
    /// Its published ports.
    Ports,
    /// What the kernel is asked no longer to have, though it stays as it is: switches, the interface's own changes.
    Tuning,
    /// Its limits of bandwidth.
    Limits,
}

/// The options of limits begin so, whichever way.
const LIMITS: [&str; 4] = ["ingress-rate", "ingress-burst", "egress-rate", "egress-burst"];

impl<K: Kernel> Rnet<K> {
    /// Gives an endpoint more, or brings it in line with its network where that was reconfigured.
    ///
    /// # Errors
    /// When there is no such endpoint, a port is taken, an option makes no sense, or a step fails; then nothing is
    /// changed.
    pub fn extend(
        &mut self,
        network: &Network,
        container: &ContainerRef,
        more: &More,
    ) -> Result<EndpointState, Error> {
        let _lock = self.store.lock_container(&container.key())?;
        let before = self.ready_endpoint(network, container)?;
        let mut after = before.clone();
        after.endpoint.options.extend(more.options.clone());
        tune(&mut after.endpoint.tuning, &more.tuning);
        let spare = &mut after.endpoint.spare;
        spare.extend(more.spare.iter().filter(|port| !before.endpoint.spare.contains(port)).cloned());
        let mut wanted = Connect::new(network.name.to_string(), container.clone());
        wanted.ports = more.ports.iter().filter(|port| !is_published(&before, port)).cloned().collect();
        let ports = if wanted.ports.is_empty() { None } else { Some(self.store.lock_ports()?) };
        let mut prepared = self.take_ports(network, &wanted, &mut after.endpoint, Mode::Do);
        after.endpoint.spare.retain(|port| !more.ports.contains(port));
        if prepared.is_ok() {
            prepared = self.prepare(network, &before, &mut after);
        }
        let fresh = after.endpoint.ports[before.endpoint.ports.len()..].to_vec();
        if let Err(error) = prepared {
            self.release_some(&after.endpoint.id, &fresh, Rest::No)?;
            return Err(error);
        }
        drop(ports);
        if let Err(error) = self.turn(&before, &after) {
            self.take_back(&before, &fresh)?;
            return Err(error);
        }
        Ok(after)
    }

    /// Takes something from an endpoint. An endpoint that is not there has lost it already.
    ///
    /// # Errors
    /// When records cannot be read or written, or a step fails.
    pub fn reduce(&mut self, network: &Network, container: &ContainerRef, less: Less) -> Result<(), Error> {
        let _lock = self.store.lock_container(&container.key())?;
        let Some(before) = self.store.endpoint(&network.id, &container.key())? else { return Ok(()) };
        let mut after = before.clone();
        let mut ports = Vec::new();
        match less {
            Less::Ports => {
                ports = std::mem::take(&mut after.endpoint.ports);
                after.endpoint.spare.clear();
            }
            Less::Tuning => after.endpoint.tuning = Tuning::default(),
            Less::Limits => after.endpoint.options.retain(|name, _| !LIMITS.contains(&name.as_str())),
        }
        after.made = Self::driver(network)?.endpoint(network, &after.endpoint)?;
        let left = self.kernel.settle(&Plan::between(&before.made, &after.made), None);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        if !ports.is_empty() {
            let _ports = self.store.lock_ports()?;
            self.release_some(&before.endpoint.id, &ports, Rest::Yes)?;
        }
        if after == before { Ok(()) } else { self.store.update(&after) }
    }

    /// Parts ports into those that are new to the container, and those that it has by another of its networks.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn part_ports(
        &self,
        network: &Network,
        container: &ContainerRef,
        ports: Vec<PortMapping>,
    ) -> Result<(Vec<PortMapping>, Vec<PortMapping>), Error> {
        if ports.is_empty() {
            return Ok((ports, Vec::new()));
        }
        let mut others = self.store.endpoints_of(&container.key())?;
        others.retain(|other| other.endpoint.network != network.id);
        Ok(ports.into_iter().partition(|port| !others.iter().any(|other| is_published(other, port))))
    }

    /// Publishes what a container has to spare, by the endpoints that it still has. A port that somebody else took
    /// meanwhile stays theirs.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn use_spare(&mut self, container: &ContainerRef) -> Result<(), Error> {
        for state in self.store.endpoints_of(&container.key())? {
            if state.endpoint.spare.is_empty() || self.still_there(&state.endpoint.container).is_none() {
                continue;
            }
            let Some(network) = self.store.made_network(&state.endpoint.network)? else { continue };
            let more = More { ports: state.endpoint.spare, ..More::default() };
            if let Err(error) = self.extend(&network, container, &more) {
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }

    fn ready_endpoint(&self, network: &Network, container: &ContainerRef) -> Result<EndpointState, Error> {
        self.store.endpoint(&network.id, &container.key())?.ok_or_else(|| Error::NotConnected {
            container: container.to_string(),
            network: network.name.to_string(),
        })
    }

    /// Works out what must exist, and writes down what may.
    fn prepare(
        &self,
        network: &Network,
        before: &EndpointState,
        after: &mut EndpointState,
    ) -> Result<(), Error> {
        after.made = Self::driver(network)?.endpoint(network, &after.endpoint)?;
        if after == before {
            return Ok(());
        }
        let mut both = after.clone();
        both.made.extend(surplus(before, after));
        self.store.update(&both)
    }

    /// Runs the difference.
    fn turn(&mut self, before: &EndpointState, after: &EndpointState) -> Result<(), Error> {
        let plan = Plan::between(&before.made, &after.made);
        if plan.is_empty() {
            return Ok(());
        }
        let netns = self.still_there(&after.endpoint.container);
        self.kernel.apply(&plan, netns.as_ref())?;
        if surplus(before, after).next().is_none() {
            return Ok(());
        }
        self.store.update(after).inspect_err(|_| {
            // The record goes back to what was before, and so must the kernel.
            let left = self.kernel.settle(&plan.undo(plan.steps.len()), netns.as_ref());
            left.iter().for_each(|(step, refusal)| tracing::warn!("{step}: {refusal}"));
        })
    }

    fn take_back(&mut self, before: &EndpointState, fresh: &[Publication]) -> Result<(), Error> {
        if !fresh.is_empty() {
            let _ports = self.store.lock_ports()?;
            self.release_some(&before.endpoint.id, fresh, Rest::No)?;
        }
        self.store.update(before)
    }

    /// Gives a network other options, and its endpoints what follows from them; says whether anything changed.
    ///
    /// # Errors
    /// When an option makes no sense, or a step fails.
    pub fn reconfigure(
        &mut self,
        network: &Network,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, Error> {
        let has_all =
            |network: &Network| options.iter().all(|(name, value)| network.options.get(name) == Some(value));
        if has_all(network) {
            return Ok(false);
        }
        let _host = self.store.lock_host()?;
        let _lock = self.store.lock_network(network)?;
        let Some(before) = self.store.network_state(&network.id)? else {
            return Err(Error::NetworkNotFound { name: network.name.to_string() });
        };
        if has_all(&before.network) {
            return Ok(false);
        }
        let mut after = before.network.clone();
        after.options.extend(options.clone());
        let driver = Self::driver(&after)?;
        driver.check(&after)?;
        let made: Vec<Resource> =
            driver.network(&after)?.into_iter().filter(|resource| !resource.is_shared()).collect();
        self.store.define(&after)?;
        self.kernel.apply(&Plan::between(&before.made, &made), None)?;
        self.store.set_network_state(&NetworkState { network: after.clone(), pending: false, made })?;
        for mut state in self.store.endpoints(&network.id)? {
            let made = driver.endpoint(&after, &state.endpoint)?;
            if made != state.made {
                self.kernel.apply(&Plan::between(&state.made, &made), None)?;
                state.made = made;
                self.store.update(&state)?;
            }
        }
        Ok(true)
    }
}

fn surplus<'a>(before: &'a EndpointState, after: &'a EndpointState) -> impl Iterator<Item = Resource> + 'a {
    before.made.iter().filter(|resource| !after.made.contains(resource)).cloned()
}

fn is_published(state: &EndpointState, mapping: &PortMapping) -> bool {
    state.endpoint.ports.iter().any(|port| {
        Some(port.host_ports) == mapping.host_ports
            && port.target_ports == mapping.container_ports
            && port.protocol == mapping.protocol
            && mapping.host.is_none_or(|host| host == port.host)
    })
}

fn tune(tuning: &mut Tuning, more: &Tuning) {
    tuning.sysctls.extend(more.sysctls.clone());
    let (link, more) = (&mut tuning.link, &more.link);
    link.mac = more.mac.or(link.mac);
    link.mtu = more.mtu.or(link.mtu);
    link.queue = more.queue.or(link.queue);
    link.promiscuous = more.promiscuous.or(link.promiscuous);
    link.all_multicast = more.all_multicast.or(link.all_multicast);
}
