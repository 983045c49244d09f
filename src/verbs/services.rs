//! Services: host ports that several containers share. What a port leads to follows from the records of all its
//! members and belongs to none of them; whoever joins or leaves works it out anew, under the lock of the ports.

use rnetkit_drivers::{Balanced, Publication, Resource, service::SLOTS};

use super::{
    Rnet,
    keep::{Difference, What},
};
use crate::{
    error::Error,
    kernel::Kernel,
    plan::{Plan, Step},
    store::{EndpointState, Pending},
};

impl<K: Kernel> Rnet<K> {
    /// Makes the endpoint ready; where it is of a service, its ports lead to it from then on. The container can be
    /// reached by now. Nobody joins or leaves between the sharing and the record that says so.
    pub(super) fn join(&mut self, pending: &Pending, others: &[EndpointState]) -> Result<(), Error> {
        if !shares(&pending.state) {
            return self.commit(pending, others);
        }
        let _ports = self.store.lock_ports()?;
        let (without, with) = self.shared(&pending.state)?;
        let joined = self
            .kernel
            .apply(&Plan::between(&without, &with), None)
            .and_then(|()| self.commit(pending, others));
        if joined.is_err() {
            let left = self.kernel.settle(&Plan::between(&with, &without), None);
            left.iter().for_each(|(step, refusal)| tracing::warn!("{step}: {refusal}"));
        }
        joined
    }

    /// The ports of an endpoint that goes lead to the other members. Its record is no longer ready.
    pub(super) fn leave(&mut self, state: &EndpointState) -> Result<(), Error> {
        if !shares(state) {
            return Ok(());
        }
        let _ports = self.store.lock_ports()?;
        self.leave_locked(state)
    }

    /// As `leave`, by one who holds the lock of the ports.
    pub(super) fn leave_locked(&mut self, state: &EndpointState) -> Result<(), Error> {
        let (without, with) = self.shared(state)?;
        let left = self.kernel.settle(&Plan::between(&with, &without), None);
        match left.first() {
            Some((step, refusal)) => Err(Error::apply(step, refusal.clone(), &left[1..])),
            None => Ok(()),
        }
    }

    /// The steps that joining would run.
    pub(super) fn join_plan(&self, state: &EndpointState) -> Result<Plan, Error> {
        let (without, with) = self.shared(state)?;
        Ok(Plan::between(&without, &with))
    }

    /// The steps that leaving would run.
    pub(super) fn leave_plan(&self, state: &EndpointState) -> Result<Plan, Error> {
        let (without, with) = self.shared(state)?;
        Ok(Plan::between(&with, &without))
    }

    /// The shared ports of an endpoint without it, and with it.
    fn shared(&self, state: &EndpointState) -> Result<(Vec<Resource>, Vec<Resource>), Error> {
        if !shares(state) {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut states = self.ready()?;
        states.retain(|other| other.endpoint.id != state.endpoint.id);
        let own = |resource: &Resource| matches!(resource, Resource::Balanced(port) if has(state, port));
        let of = |states: &[EndpointState]| balanced(states).into_iter().filter(own).collect::<Vec<_>>();
        let without = of(&states);
        states.push(state.clone());
        Ok((without, of(&states)))
    }

    /// What differs between the shared ports that there must be and those that there are.
    pub(super) fn shared_differences(&mut self) -> Result<Vec<Difference>, Error> {
        let _ports = self.store.lock_ports()?;
        self.differing()
    }

    /// Makes the shared ports what they must be; returns what was mended.
    pub(super) fn mend_shared(&mut self) -> Result<Vec<Difference>, Error> {
        let _ports = self.store.lock_ports()?;
        let differences = self.differing()?;
        let plan = Plan { steps: differences.iter().filter_map(step).collect() };
        match self.kernel.settle(&plan, None).first() {
            Some((step, refusal)) => Err(Error::apply(step, refusal.clone(), &[])),
            None => Ok(differences),
        }
    }

    fn differing(&mut self) -> Result<Vec<Difference>, Error> {
        let wanted = balanced(&self.ready()?);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |refusal| Error::kernel("look at the host", refusal);
        let found: Vec<Resource> =
            self.kernel.find(&wanted, None).map_err(failed)?.into_iter().flatten().collect();
        let steps = Plan::between(&found, &wanted).steps.into_iter();
        Ok(steps.map(|step| Difference { of: "services".to_owned(), what: What::Step(step) }).collect())
    }

    /// Whether another endpoint, ready or not, is of the service that has this port.
    pub(super) fn has_others(&self, port: &Publication, whose: &rnetkit_drivers::Id) -> Result<bool, Error> {
        let states = self.store.every_endpoint()?;
        let mut others = states.iter().filter(|state| state.endpoint.id != *whose);
        Ok(others.any(|state| state.endpoint.ports.iter().any(|other| other.is_same_port(port))))
    }

    fn ready(&self) -> Result<Vec<EndpointState>, Error> {
        let mut list = Vec::new();
        for network in self.store.network_states()? {
            list.extend(self.store.endpoints(&network.network.id)?);
        }
        Ok(list)
    }
}

/// Whether an endpoint has a port that it shares.
pub(super) fn shares(state: &EndpointState) -> bool {
    state.endpoint.ports.iter().any(|port| port.service.is_some())
}

/// The step that mends a difference.
fn step(difference: &Difference) -> Option<Step> {
    match &difference.what {
        What::Step(step) => Some(step.clone()),
        What::Stray(_) | What::SetAside(_) => None,
    }
}

fn has(state: &EndpointState, port: &Balanced) -> bool {
    port.port().is_some_and(|port| state.endpoint.ports.iter().any(|other| other.is_same_port(port)))
}

/// The shared ports of all these endpoints, their members in the order in which they came.
pub(super) fn balanced(states: &[EndpointState]) -> Vec<Resource> {
    let mut states: Vec<&EndpointState> = states.iter().filter(|state| shares(state)).collect();
    states.sort_by_key(|state| (state.created, state.endpoint.id));
    let mut list: Vec<Balanced> = Vec::new();
    for port in states.iter().flat_map(|state| &state.endpoint.ports).filter(|port| port.service.is_some()) {
        match list.iter_mut().find(|other| other.port().is_some_and(|other| other.is_same_port(port))) {
            Some(shared) => shared.members.push(port.clone()),
            None => list.push(Balanced { members: vec![port.clone()] }),
        }
    }
    list.into_iter().map(Resource::Balanced).collect()
}

/// The most containers that share a port: each has a slot at least.
pub(super) const MOST_MEMBERS: usize = SLOTS;
