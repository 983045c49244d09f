//! check, repair, gc, purge, restore: what is recorded against what the kernel has. One difference, read in both
//! directions.

use std::{collections::HashMap, path::PathBuf};

use rnetkit_drivers::{Container, Id, Resource};

use super::Rnet;
use crate::{
    error::Error,
    kernel::{Kernel, Stray},
    plan::{Plan, Step},
    store::{EndpointState, Lock},
};

/// A difference between records and kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose: `host`, `network blue`, `container web on network blue`.
    pub of: String,
    /// What differs.
    pub what: What,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The kernel is not as recorded; this step would mend it.
    Step(Step),
    /// The kernel has something of rnet's that no record names: it goes.
    Stray(Stray),
    /// A record was damaged, and set aside under this name.
    SetAside(PathBuf),
}

impl std::fmt::Display for Difference {
    /// Object, expected, found.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            What::Step(Step::Create(resource)) => write!(f, "{}: missing: {resource}", self.of),
            What::Step(Step::Change { from, to }) => {
                write!(f, "{}: expected: {to}; found: {from}", self.of)
            }
            What::Step(Step::Remove(resource)) => write!(f, "{}: not expected: {resource}", self.of),
            What::Stray(stray) => write!(f, "{}: not on record: {stray}", self.of),
            What::SetAside(path) => {
                write!(f, "{}: a damaged record was set aside as {}", self.of, path.display())
            }
        }
    }
}

/// The part of a host that is looked at together.
pub(super) struct Part {
    pub(super) of: String,
    pub(super) made: Vec<Resource>,
    /// Whose it is, where it is an endpoint.
    pub(super) endpoint: Option<Owner>,
}

/// The endpoint of a part.
pub(super) struct Owner {
    network: Id,
    key: String,
    container: Container,
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
    /// What the kernel had of rnet's, and no record named.
    pub strays: Vec<Stray>,
    /// Damaged records that had been set aside.
    pub set_aside: Vec<PathBuf>,
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
        for (part, plan) in self.examine(only)? {
            // Another command may have taken it away between the reading of its record and the look at the kernel.
            if self.is_on_record(&part)? {
                differences.extend(seen(&part, plan));
            }
        }
        if only.is_empty() {
            let host = |what| Difference { of: "host".to_owned(), what };
            differences.extend(self.shared_differences()?);
            differences.extend(self.strays()?.into_iter().map(What::Stray).map(host));
            differences.extend(self.store.set_aside()?.into_iter().map(What::SetAside).map(host));
        }
        Ok(differences)
    }

    /// What differs in one part, of which each thing is asked for by itself.
    pub(super) fn differences_of(&mut self, part: &Part) -> Result<Vec<Difference>, Error> {
        Ok(self.difference(None, part)?.map(|plan| seen(part, plan)).unwrap_or_default())
    }

    /// Makes the kernel agree with the records; returns what was mended. A second call mends nothing.
    ///
    /// # Errors
    /// When records or the kernel cannot be read, or a step is refused.
    pub fn repair(&mut self) -> Result<Vec<Difference>, Error> {
        self.wake()?;
        self.recover()?;
        let (mut mended, busy) = {
            let _host = self.store.lock_host()?;
            self.mend(None)?
        };
        for part in busy {
            mended.extend(self.mend_when_free(&part)?);
        }
        mended.extend(self.mend_shared()?);
        let strays = self.take_back_strays()?;
        let host = |what| Difference { of: "host".to_owned(), what };
        mended.extend(strays.into_iter().map(What::Stray).map(host));
        mended.extend(self.store.clear_set_aside()?.into_iter().map(What::SetAside).map(host));
        Ok(mended)
    }

    /// Makes the kernel agree with the records of this instance, whosever they are: the firewall in one transaction,
    /// then what is on the links. Parts of containers that other commands are at work on are left, and returned.
    ///
    /// The caller holds the host's lock. `held`: the container whose lock it holds too.
    pub(super) fn mend(&mut self, held: Option<&str>) -> Result<(Vec<Difference>, Vec<Part>), Error> {
        let mut locks: HashMap<String, Lock> = HashMap::new();
        let mut work = Vec::new();
        let mut busy = Vec::new();
        let most = most_locks();
        for (part, plan) in self.examine(&[])? {
            let free = match &part.endpoint {
                Some(owner) if held == Some(owner.key.as_str()) || locks.contains_key(&owner.key) => true,
                // No more files may be open at a time: one after the other, then.
                Some(_) if locks.len() >= most => false,
                Some(owner) => {
                    let lock = self.store.try_lock_container(&owner.key)?;
                    lock.map(|lock| locks.insert(owner.key.clone(), lock)).is_some()
                }
                None => true,
            };
            match free {
                true if self.is_on_record(&part)? => work.push((part, plan)),
                true => {}
                false => busy.push(part),
            }
        }
        self.mend_firewall(&work)?;
        for (part, plan) in &work {
            self.mend_links(part, plan)?;
        }
        let differences = work.into_iter().flat_map(|(part, plan)| differences(&part, plan)).collect();
        Ok((differences, busy))
    }

    /// Mends a part of a container once the command that is at work on it is done.
    fn mend_when_free(&mut self, part: &Part) -> Result<Vec<Difference>, Error> {
        let Some(owner) = &part.endpoint else { return Ok(Vec::new()) };
        let _lock = self.store.lock_container(&owner.key)?;
        let Some(state) = self.store.endpoint(&owner.network, &owner.key)? else { return Ok(Vec::new()) };
        let part = part_of(state);
        let sight = self.kernel.look().map_err(cannot_look)?;
        let Some(plan) = self.difference(Some(&sight), &part)? else { return Ok(Vec::new()) };
        let work = [(part, plan)];
        self.mend_firewall(&work)?;
        self.mend_links(&work[0].0, &work[0].1)?;
        let [(part, plan)] = work;
        Ok(differences(&part, plan))
    }

    fn mend_firewall(&mut self, work: &[(Part, Plan)]) -> Result<(), Error> {
        let steps = work.iter().flat_map(|(_, plan)| &plan.steps).filter(|step| is_of_firewall(step));
        self.settle_or_fail(&Plan { steps: steps.cloned().collect() }, None)
    }

    fn mend_links(&mut self, part: &Part, plan: &Plan) -> Result<(), Error> {
        let steps = plan.steps.iter().filter(|step| !is_of_firewall(step)).cloned();
        let plan = Plan { steps: steps.collect() };
        let netns = match &part.endpoint {
            Some(owner) => match self.still_there(&owner.container) {
                Some(netns) => Some(netns),
                // It ended meanwhile; what is left of it is gc's.
                None => return Ok(()),
            },
            None => None,
        };
        self.settle_or_fail(&plan, netns.as_ref())
    }

    /// Runs a plan as far as it is not done yet.
    fn settle_or_fail(&mut self, plan: &Plan, netns: Option<&K::Netns>) -> Result<(), Error> {
        if plan.is_empty() {
            return Ok(());
        }
        let left = self.kernel.settle(plan, netns);
        left.first().map_or(Ok(()), |(step, refusal)| Err(Error::apply(step, refusal.clone(), &left[1..])))
    }

    /// The parts that are not as recorded, with the plans that would mend them. The host is looked at once, whatever
    /// the number of containers.
    fn examine(&mut self, only: &[String]) -> Result<Vec<(Part, Plan)>, Error> {
        let parts = self.parts(only)?;
        let sight = self.kernel.look().map_err(cannot_look)?;
        let mut list = Vec::new();
        for part in parts {
            if let Some(plan) = self.difference(Some(&sight), &part)? {
                list.push((part, plan));
            }
        }
        Ok(list)
    }

    /// The plan that leads from what exists of a part to what is recorded; `None` where nothing is to be done.
    ///
    /// What lives on a link that is missing is missing too, whatever was found under its name. A firewall that is
    /// there but not whole is made anew: everything in it is an element that its owner puts back.
    fn difference(&mut self, sight: Option<&K::Sight>, part: &Part) -> Result<Option<Plan>, Error> {
        let netns = match &part.endpoint {
            Some(owner) => match self.still_there(&owner.container) {
                Some(netns) => Some(netns),
                // What is inside a namespace that is gone is nobody's loss; the endpoint itself is gc's.
                None => return Ok(None),
            },
            None => None,
        };
        let found = match sight {
            Some(sight) => self.kernel.find_in(sight, &part.made, netns.as_ref()),
            None => self.kernel.find(&part.made, netns.as_ref()),
        };
        let found = found.map_err(cannot_look)?;
        let mut found: Vec<Resource> = found.into_iter().flatten().collect();
        let is_gone = |resource: &&Resource| !found.iter().any(|other| other.is_same_thing(resource));
        let mut gone: Vec<Resource> = part.made.iter().filter(is_gone).cloned().collect();
        // What is lost with them takes along what lives on it.
        while !gone.is_empty() {
            let lost = |resource: &mut Resource| gone.iter().any(|other| resource.goes_with(other));
            gone = found.extract_if(.., lost).collect();
        }
        let mut plan = Plan::between(&found, &part.made);
        let wants_firewall = plan.steps.contains(&Step::Create(Resource::Firewall));
        if wants_firewall && self.kernel.has_tables(&self.store.table()?).map_err(cannot_look)? {
            plan.steps.insert(0, Step::Remove(Resource::Firewall));
        }
        Ok(Some(plan).filter(|plan| !plan.is_empty()))
    }

    /// Host first, then networks, then endpoints: the order in which they must be made.
    fn parts(&self, only: &[String]) -> Result<Vec<Part>, Error> {
        let wanted = only.iter().map(|name| Ok(self.network(name)?.id)).collect::<Result<Vec<_>, Error>>()?;
        let mut parts = Vec::new();
        if let Some(state) = self.store.host_state()? {
            parts.push(Part { of: "host".to_owned(), made: state.made, endpoint: None });
        }
        let mut endpoints = Vec::new();
        for state in self.store.network_states()? {
            if !wanted.is_empty() && !wanted.contains(&state.network.id) {
                continue;
            }
            endpoints.extend(self.store.endpoints(&state.network.id)?.into_iter().map(part_of));
            let of = format!("network {}", state.network.name);
            parts.push(Part { of, made: state.made, endpoint: None });
        }
        parts.extend(endpoints);
        Ok(parts)
    }

    /// Whether an endpoint is still recorded as it was; what is no endpoint is guarded by the host's lock.
    fn is_on_record(&self, part: &Part) -> Result<bool, Error> {
        let Some(owner) = &part.endpoint else { return Ok(true) };
        let state = self.store.endpoint(&owner.network, &owner.key)?;
        Ok(state.is_some_and(|state| state.made == part.made))
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
            self.store.clear_rest()?;
            self.take_back_dead_files();
        }
        garbage.set_aside = if pretend { self.store.set_aside()? } else { self.store.clear_set_aside()? };
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
        garbage.strays = if pretend { self.strays()? } else { self.take_back_strays()? };
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
        self.take_back_dead_files();
        let encrypted = self.store.cipher()?.is_some();
        self.store.end_cipher()?;
        if encrypted {
            let failed = |refusal| Error::kernel("end what encrypts between hosts", refusal);
            self.kernel.end_cipher().map_err(failed)?;
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
        self.take_back_dead_files();
        let mut names = Vec::new();
        for network in self.store.definitions()? {
            if !self.is_up(&network)? && !crate::cluster::is_shared(&network) {
                self.up(&network)?;
                names.push(network.name.to_string());
            }
        }
        Ok(names)
    }
}

/// How many containers are locked at a time: each lock is an open file, and the work needs some too.
fn most_locks() -> usize {
    const SPARE: u64 = 64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(SPARE)).unwrap_or(usize::MAX))
}

pub(super) fn cannot_look(refusal: crate::kernel::Refusal) -> Error {
    Error::kernel("look at the host", refusal)
}

/// As `check` shows it: a firewall that is not whole is one difference, not two.
fn seen(part: &Part, mut plan: Plan) -> Vec<Difference> {
    plan.steps.retain(|step| *step != Step::Remove(Resource::Firewall));
    differences(part, plan)
}

pub(super) fn part_of(state: EndpointState) -> Part {
    Part {
        of: format!("container {} on network {}", state.endpoint.container.name, state.network),
        made: state.made,
        endpoint: Some(Owner {
            network: state.endpoint.network,
            key: state.key,
            container: state.endpoint.container,
        }),
    }
}

fn differences(part: &Part, plan: Plan) -> Vec<Difference> {
    plan.steps.into_iter().map(|step| Difference { of: part.of.clone(), what: What::Step(step) }).collect()
}

/// Elements and tables of the firewall know links by name and need none of them: all of them are one transaction.
fn is_of_firewall(step: &Step) -> bool {
    let is = |resource: &Resource| {
        matches!(
            resource,
            Resource::Firewall | Resource::Member(_) | Resource::Published(_) | Resource::Guarded { .. }
        )
    };
    match step {
        Step::Create(resource) | Step::Remove(resource) => is(resource),
        Step::Change { to, .. } => is(to),
    }
}
