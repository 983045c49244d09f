//! check, repair, gc, purge, restore: what is recorded against what the kernel has. One difference, read in both
//! directions.

use rnetkit_drivers::Resource;

use super::Rnet;
use crate::{
    error::Error,
    kernel::Kernel,
    plan::{Plan, Step},
    store::EndpointState,
};

/// A difference between record and kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose: `host`, `network blue`, `container web on network blue`.
    pub of: String,
    /// The step that would mend it.
    pub step: Step,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.step {
            Step::Create(resource) => write!(f, "{}: missing: {resource}", self.of),
            Step::Change { from, to } => write!(f, "{}: expected: {to}; found: {from}", self.of),
            Step::Remove(resource) => write!(f, "{}: not expected: {resource}", self.of),
        }
    }
}

/// The part of a host that is looked at together: its records, and the namespace that its container resources are in.
pub(super) struct Part<N> {
    pub(super) of: String,
    pub(super) made: Vec<Resource>,
    pub(super) netns: Option<N>,
}

/// What a clean-up takes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Endpoints in the making or unmaking of dead processes.
    pub unfinished: usize,
    /// Containers of `rnet run` whose watchers died.
    pub abandoned: Vec<String>,
    /// Endpoints whose namespaces are gone: container and network.
    pub orphans: Vec<(String, String)>,
}

impl<K: Kernel> Rnet<K> {
    /// What differs between the records and the kernel; empty where all is well. `only`: names or ids of networks, or
    /// none for all.
    ///
    /// # Errors
    /// When records or the kernel cannot be read, or a network is unknown.
    pub fn check(&mut self, only: &[String]) -> Result<Vec<Difference>, Error> {
        self.wake()?;
        self.recover()?;
        let mut differences = Vec::new();
        for part in self.parts(only)? {
            differences.extend(self.differences_of(&part)?);
        }
        if only.is_empty() {
            differences.extend(self.shared_differences()?);
        }
        Ok(differences)
    }

    /// What differs in one part.
    pub(super) fn differences_of(&mut self, part: &Part<K::Netns>) -> Result<Vec<Difference>, Error> {
        // A firewall that is not whole is one difference, not two.
        let steps = self.difference(part)?.steps.into_iter();
        let steps = steps.filter(|step| *step != Step::Remove(Resource::Firewall));
        Ok(steps.map(|step| Difference { of: part.of.clone(), step }).collect())
    }

    /// Makes the kernel agree with the records; returns what was mended. A second call mends nothing.
    ///
    /// # Errors
    /// When records or the kernel cannot be read, or a step is refused.
    pub fn repair(&mut self) -> Result<Vec<Difference>, Error> {
        self.wake()?;
        self.recover()?;
        self.mend()
    }

    /// Makes the kernel agree with the records of this instance, whosever they are.
    pub(super) fn mend(&mut self) -> Result<Vec<Difference>, Error> {
        let mut mended = Vec::new();
        for part in self.parts(&[])? {
            let plan = self.difference(&part)?;
            if plan.is_empty() {
                continue;
            }
            let left = self.kernel.settle(&plan, part.netns.as_ref());
            if let Some((step, refusal)) = left.first() {
                return Err(Error::apply(step, refusal.clone(), &left[1..]));
            }
            mended.extend(plan.steps.into_iter().map(|step| Difference { of: part.of.clone(), step }));
        }
        mended.extend(self.mend_shared()?);
        Ok(mended)
    }

    /// The plan that leads from what exists of a part to what is recorded.
    ///
    /// What lives on a link that is missing is missing too, whatever was found under its name. A firewall that is
    /// there but not whole is made anew: everything in it is an element that its owner puts back.
    pub(super) fn difference(&mut self, part: &Part<K::Netns>) -> Result<Plan, Error> {
        let failed = |refusal| Error::kernel("look at the host", refusal);
        let found = self.kernel.find(&part.made, part.netns.as_ref()).map_err(failed)?;
        let found: Vec<Resource> = found.into_iter().flatten().collect();
        let is_gone = |resource: &&Resource| !found.iter().any(|other| other.is_same_thing(resource));
        let gone: Vec<&Resource> = part.made.iter().filter(is_gone).collect();
        let lost = |resource: &Resource| gone.iter().any(|other| resource.goes_with(other));
        let found: Vec<Resource> = found.iter().filter(|resource| !lost(resource)).cloned().collect();
        let mut plan = Plan::between(&found, &part.made);
        let wants_firewall = plan.steps.contains(&Step::Create(Resource::Firewall));
        if wants_firewall && self.kernel.has_tables(&self.store.table()?).map_err(failed)? {
            plan.steps.insert(0, Step::Remove(Resource::Firewall));
        }
        Ok(plan)
    }

    /// Host first, then networks, then endpoints: the order in which they must be made.
    fn parts(&self, only: &[String]) -> Result<Vec<Part<K::Netns>>, Error> {
        let wanted = only.iter().map(|name| Ok(self.network(name)?.id)).collect::<Result<Vec<_>, Error>>()?;
        let mut parts = Vec::new();
        if let Some(state) = self.store.host_state()? {
            parts.push(Part { of: "host".to_owned(), made: state.made, netns: None });
        }
        let mut endpoints = Vec::new();
        for state in self.store.network_states()? {
            if !wanted.is_empty() && !wanted.contains(&state.network.id) {
                continue;
            }
            endpoints.extend(self.store.endpoints(&state.network.id)?);
            parts.push(Part { of: format!("network {}", state.network.name), made: state.made, netns: None });
        }
        for state in endpoints {
            let of = format!("container {} on network {}", state.endpoint.container.name, state.network);
            // What is inside a namespace that is gone is nobody's loss; the endpoint itself is gc's.
            if let Some(netns) = self.namespace_of(&state) {
                parts.push(Part { of, made: state.made, netns: Some(netns) });
            }
        }
        Ok(parts)
    }

    /// How many endpoints dead processes left in the making or unmaking.
    fn unfinished(&self) -> Result<usize, Error> {
        let mut count = 0;
        for (id, _) in self.store.pending()? {
            count += usize::from(self.store.dead(&id)?.is_some());
        }
        Ok(count)
    }

    /// The namespace of an endpoint, if it is still there.
    pub(super) fn namespace_of(&self, state: &EndpointState) -> Option<K::Netns> {
        self.still_there(&state.endpoint.container)
    }

    /// Takes back what has no living owner. With `pretend` it is only counted.
    ///
    /// # Errors
    /// When records cannot be read, or a step fails.
    pub fn collect_garbage(&mut self, pretend: bool) -> Result<Garbage, Error> {
        self.wake()?;
        let mut garbage = Garbage { unfinished: self.unfinished()?, ..Garbage::default() };
        garbage.abandoned = self.store.abandoned()?.into_iter().map(|(key, _)| key).collect();
        if !pretend {
            self.reap()?;
        }
        for state in self.store.every_endpoint()? {
            if self.store.endpoint(&state.endpoint.network, &state.key)?.is_some()
                && self.namespace_of(&state).is_none()
            {
                garbage.orphans.push((state.endpoint.container.name.clone(), state.network.to_string()));
                if !pretend {
                    self.disconnect_key(&state.endpoint.network, &state.key)?;
                }
            }
        }
        Ok(garbage)
    }

    /// Takes everything away that rnet made on this host, definitions and identity included. Containers of `rnet run`
    /// are ended.
    ///
    /// # Errors
    /// When a step fails; the rest is still there then, and a second call goes on.
    pub fn purge(&mut self) -> Result<(), Error> {
        self.wake()?;
        self.reap()?;
        for container in self.containers()? {
            if let Some(pid) = container.state.as_ref().and_then(super::ContainerState::pid) {
                super::containers::kill(pid);
                self.store.wait_unwatched(&container.key)?;
            }
        }
        for key in self.store.container_keys()? {
            self.disconnect_all(&key)?;
            self.store.remove_container(&key)?;
        }
        // Also those whose definition is lost: what was made for them is on record.
        let made = self.store.network_states()?.into_iter().map(|state| state.network);
        let mut networks = self.store.definitions()?;
        networks.extend(made.filter(|network| !networks.contains(network)).collect::<Vec<_>>());
        for network in networks {
            self.remove_all(&network, Vec::new(), true)?;
        }
        self.store.erase()
    }

    /// Makes what the defined networks need, as after a reboot; returns their names.
    ///
    /// # Errors
    /// When a network cannot be made; those before it are.
    pub fn restore(&mut self) -> Result<Vec<String>, Error> {
        self.wake()?;
        self.recover()?;
        let mut names = Vec::new();
        for network in self.store.definitions()? {
            if !self.is_up(&network)? {
                self.up(&network)?;
                names.push(network.name.to_string());
            }
        }
        Ok(names)
    }
}
