//! What exists beneath the endpoints: the part of the firewall that all networks share, and each network's own
//! bridge. Made on first use, unmade after the last.

use std::fs;

use rnetkit_drivers::{Family, Member, Network, Resource};

use super::Rnet;
use crate::{
    error::Error,
    ipam,
    kernel::{Kernel, TableName},
    plan::{Plan, Step},
    store::{HostState, Identity, Life, NetworkState, Pending},
};

impl<K: Kernel> Rnet<K> {
    /// Who this host is.
    ///
    /// # Errors
    /// When the identity cannot be kept.
    pub fn identity(&self) -> Result<Identity, Error> {
        let fresh = [super::new_id()?, super::new_id()?, super::new_id()?, super::new_id()?];
        let [host, bridge, none, host_network] = fresh;
        self.store.identity(|| Identity { host, bridge, none, host_network, created: super::now() })
    }

    /// The life of this host now.
    pub(super) fn life(&self) -> Result<Life, Error> {
        const PATH: &str = "/proc/sys/kernel/random/boot_id";
        let boot = fs::read_to_string(PATH).map_err(|error| Error::store(PATH, error))?;
        Ok(Life { boot: boot.trim().to_owned(), netns: self.kernel.host_identity() })
    }

    /// Makes sure that what is remembered is of this life of the host: after a reboot the kernel has none of it,
    /// and all addresses and ports are free again. Networks stay defined.
    ///
    /// # Errors
    /// When the state belongs to another host that is alive.
    pub fn wake(&mut self) -> Result<(), Error> {
        let Some(former) = self.store.life()? else { return Ok(()) };
        let life = self.life()?;
        if former == life {
            return Ok(());
        }
        if former.boot == life.boot
            && let Some(by) = someone_in(former.netns)
        {
            return Err(Error::OtherHost { path: self.store.run_dir().into(), by });
        }
        let _lock = self.store.lock_host()?;
        // Another command may have come first: then the state is of this life already.
        match self.store.life()? {
            Some(former) if former != life => {
                self.store.forget_life()?;
                self.take_back_dead_files();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Takes back what dead processes left in the making or unmaking. `held`: the container whose lock the caller
    /// holds already.
    ///
    /// # Errors
    /// When records cannot be read or removed.
    pub fn take_back_dead(&mut self, held: Option<&str>) -> Result<usize, Error> {
        let mut count = 0;
        for (id, key) in self.store.pending()? {
            let lock = if held == Some(key.as_str()) { None } else { self.store.try_lock_container(&key)? };
            if lock.is_none() && held != Some(key.as_str()) {
                continue;
            }
            let Some(pending) = self.store.dead(&id)? else { continue };
            let network = pending.state.endpoint.network;
            self.unmake_in(pending)?;
            self.settle_container(&key)?;
            if lock.is_some() {
                self.store.leave_container(&key);
            }
            drop(lock);
            if let Some(made) = self.store.network_state(&network)? {
                self.down_if_unused(&made.network)?;
            }
            count += 1;
        }
        Ok(count)
    }

    /// As `take_back_dead`, and also finishes or undoes what dead processes left of networks and of what they share.
    /// Looks at every network, so it is not on the way of connect and disconnect, which look at their own.
    ///
    /// # Errors
    /// When records cannot be read or written, or a step fails.
    pub fn recover(&mut self) -> Result<(), Error> {
        if self.store.lost_records()? {
            let _host = self.store.lock_host()?;
            self.rebuild_records()?;
        }
        self.take_back_dead(None)?;
        for state in self.store.network_states()? {
            self.down_if_unused(&state.network)?;
        }
        let host = self.store.host_state()?;
        let states = self.store.network_states()?;
        let unfinished = states.iter().any(|state| state.pending);
        if host.is_none() && !unfinished
            || host.is_some_and(|host| !host.pending) && !unfinished && !states.is_empty()
        {
            return Ok(());
        }
        let _host = self.store.lock_host()?;
        for state in self.store.network_states()?.into_iter().filter(|state| state.pending) {
            if !self.store.is_being_removed(&state.network)? {
                self.finish_network(state)?;
            }
        }
        self.unshare()?;
        match self.store.host_state()? {
            Some(state) if state.pending => self.finish_host(state),
            _ => Ok(()),
        }
    }

    /// A network that a dead process was making or removing: with endpoints nothing of it was removed yet, so it stays;
    /// without, it goes, to be made again when it is next used. The caller holds the host's lock.
    fn finish_network(&mut self, state: NetworkState) -> Result<(), Error> {
        let _lock = self.store.lock_network(&state.network)?;
        if self.store.has_endpoints(&state.network.id)? {
            return self.store.set_network_state(&NetworkState { pending: false, ..state });
        }
        self.tear_down(&state)
    }

    /// What networks share is made as far as it is missing. The caller holds the host's lock.
    fn finish_host(&mut self, state: HostState) -> Result<(), Error> {
        let there = self.really(&state.made)?;
        let left = self.kernel.settle(&Plan::between(&there, &state.made), None);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        self.store.set_host_state(&HostState { pending: false, ..state })
    }

    /// Unmakes an endpoint by its record, forgets it, and its container if it was the last.
    pub(super) fn unmake(&mut self, pending: Pending) -> Result<(), Error> {
        let key = pending.state.key.clone();
        self.unmake_in(pending)?;
        self.store.leave_container(&key);
        Ok(())
    }

    /// Settles a plan about one container. Its namespace is opened only where something can be reached from there alone.
    pub(super) fn settle_for(
        &mut self,
        plan: &Plan,
        container: &rnetkit_drivers::Container,
    ) -> Vec<(Step, crate::kernel::Refusal)> {
        let inside = |step: &Step| matches!(step, Step::Remove(resource) if resource.is_inside());
        let netns = plan.steps.iter().any(inside).then(|| self.still_there(container)).flatten();
        self.kernel.settle(plan, netns.as_ref())
    }

    /// Unmakes an endpoint by its record, and forgets it.
    pub(super) fn unmake_in(&mut self, pending: Pending) -> Result<(), Error> {
        self.leave(&pending.state)?;
        let plan = Plan::between(&pending.state.made, &[]);
        let left = self.settle_for(&plan, &pending.state.endpoint.container);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        self.names_go(&pending.state)?;
        self.release(&pending.state, super::disconnect::Rest::Yes)?;
        self.store.forget(pending)
    }

    /// Makes what the network needs, unless it is there.
    ///
    /// Returns the network as it is: for `bridge`, with the subnet that was chosen for it.
    pub(super) fn up(&mut self, network: &Network) -> Result<Network, Error> {
        match self.store.made_network(&network.id) {
            Ok(Some(made)) => return Ok(made),
            Ok(None) => {}
            // It is set aside by now, and made again below.
            Err(error @ Error::Damaged { .. }) => tracing::warn!("{error}"),
            Err(error) => return Err(error),
        }
        let _host = self.store.lock_host()?;
        match self.store.network_state(&network.id)? {
            Some(state) if !state.pending => return Ok(state.network),
            Some(_) if self.store.is_being_removed(network)? => {
                return Err(Error::NetworkNotFound { name: network.name.to_string() });
            }
            Some(state) => self.finish_network(state)?,
            None if self.store.has_endpoints(&network.id)? => self.rebuild_records()?,
            None => {}
        }
        // What was torn down took the lock's file along.
        let _lock = self.store.lock_network(network)?;
        if let Some(state) = self.store.network_state(&network.id)? {
            return Ok(state.network);
        }
        let made = self.make(network);
        if made.is_err() {
            self.store.clear_network_state(&network.id)?;
        }
        made
    }

    /// Makes what the network needs. The caller holds the locks of host and network.
    fn make(&mut self, network: &Network) -> Result<Network, Error> {
        self.refuse_removed(network)?;
        let network = self.complete(network)?;
        let list = Self::driver(&network)?.network(&network)?;
        let (shared, own): (Vec<Resource>, Vec<Resource>) = list.into_iter().partition(Resource::is_shared);
        self.share(&shared)?;
        let mut state = NetworkState { network, pending: true, made: own };
        self.store.set_network_state(&state)?;
        if let Err(error) = self.make_own(&shared, &state.made) {
            self.store.clear_network_state(&state.network.id)?;
            self.unshare()?;
            return Err(name_clash(error, &state.network));
        }
        state.pending = false;
        if let Err(error) = self.store.set_network_state(&state) {
            self.kernel.settle(&Plan::between(&state.made, &[]), None);
            self.store.clear_network_state(&state.network.id)?;
            self.unshare()?;
            return Err(error);
        }
        self.made_network = true;
        Ok(state.network)
    }

    /// Makes what is the network's own. Where what networks share was deleted by somebody (a flushed ruleset), that is
    /// made again first.
    fn make_own(&mut self, shared: &[Resource], own: &[Resource]) -> Result<(), Error> {
        let plan = Plan::between(&[], own);
        match self.kernel.apply(&plan, None) {
            Err(Error::Apply { reason, .. }) if reason.is_missing() => {}
            made => return made,
        }
        if let Some(state) = self.store.host_state()? {
            self.store.set_host_state(&HostState { pending: true, ..state })?;
        }
        self.share(shared)?;
        self.kernel.apply(&plan, None)
    }

    /// A network that was removed meanwhile is not made again.
    fn refuse_removed(&self, network: &Network) -> Result<(), Error> {
        let defined = super::is_builtin(network)
            || self.store.definition(&network.name)?.is_some_and(|other| other.id == network.id);
        if defined { Ok(()) } else { Err(Error::NetworkNotFound { name: network.name.to_string() }) }
    }

    /// The steps that `up` would run.
    pub(super) fn up_plan(&mut self, network: &Network) -> Result<(Network, Plan), Error> {
        if let Some(state) = self.store.network_state(&network.id)? {
            return Ok((state.network, Plan::default()));
        }
        let network = self.complete(network)?;
        let list = Self::driver(&network)?.network(&network)?;
        let made = self.store.host_state()?.map(|state| state.made).unwrap_or_default();
        let forwarded = self.forwarded(&list)?;
        let wanted =
            list.into_iter().filter(|resource| !made.contains(resource) && !forwarded.contains(resource));
        let wanted: Vec<Resource> = wanted.collect();
        Ok((network, Plan::between(&[], &wanted)))
    }

    /// Unmakes what was made for a network. The caller holds the locks of host and network.
    pub(super) fn tear_down(&mut self, state: &NetworkState) -> Result<(), Error> {
        let left = self.kernel.settle(&Plan::between(&state.made, &[]), None);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        self.store.clear_network_state(&state.network.id)?;
        self.unshare()
    }

    /// Makes what all networks share, as far as it is not there. The caller holds the host's lock.
    fn share(&mut self, shared: &[Resource]) -> Result<(), Error> {
        self.rebuild_host()?;
        let mut state = match self.store.host_state()? {
            Some(state) => state,
            None => {
                HostState { life: self.life()?, table: self.free_table()?, pending: true, made: Vec::new() }
            }
        };
        let forwarded = self.forwarded(shared)?;
        let missing: Vec<Resource> =
            shared.iter().filter(|r| !state.made.contains(r) && !forwarded.contains(r)).cloned().collect();
        let settled = !state.pending && missing.is_empty();
        if settled {
            return Ok(());
        }
        let before = if state.pending { self.really(&state.made)? } else { state.made.clone() };
        state.made.extend(missing);
        state.pending = true;
        self.store.set_host_state(&state)?;
        if let Err(error) = self.kernel.apply(&Plan::between(&before, &state.made), None) {
            state.made = before;
            state.pending = false;
            if state.made.is_empty() {
                self.store.clear_host_state()?
            } else {
                self.store.set_host_state(&state)?
            }
            return Err(error);
        }
        state.pending = false;
        self.store.set_host_state(&state)
    }

    /// Forwarding that the administrator switched on is not ours: nothing to make, nothing to guard, and later
    /// nothing to switch off.
    fn forwarded(&mut self, list: &[Resource]) -> Result<Vec<Resource>, Error> {
        let wanted: Vec<Resource> =
            list.iter().filter(|r| matches!(r, Resource::Forwarding { .. })).cloned().collect();
        let made = self.store.host_state()?.map(|state| state.made).unwrap_or_default();
        let ours = |resource: &Resource| made.contains(resource);
        let wanted: Vec<Resource> = wanted.into_iter().filter(|resource| !ours(resource)).collect();
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let found = self
            .kernel
            .find(&wanted, None)
            .map_err(|refusal| Error::kernel("look at forwarding", refusal))?;
        let mut list = Vec::new();
        for resource in found.into_iter().flatten() {
            let Resource::Forwarding { family } = resource else { continue };
            // Switched on by another instance of rnet: then it is shared, and the last one switches it off.
            if !self
                .kernel
                .guarded_by_others(family)
                .map_err(|refusal| Error::kernel("look at the firewall", refusal))?
            {
                list.extend([guard(family), resource]);
            }
        }
        Ok(list)
    }

    /// What of these resources really exists.
    pub(super) fn really(&mut self, resources: &[Resource]) -> Result<Vec<Resource>, Error> {
        let found = self
            .kernel
            .find(resources, None)
            .map_err(|refusal| Error::kernel("look at the host", refusal))?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Unmakes what networks share once there is no network. The caller holds the host's lock.
    fn unshare(&mut self) -> Result<(), Error> {
        let Some(mut state) = self.store.host_state()? else { return Ok(()) };
        if !self.store.network_states()?.is_empty() {
            return Ok(());
        }
        // Whoever comes after one that was killed in this must not take what is half gone for whole. On a full disk it
        // goes all the same.
        state.pending = true;
        if let Err(error) = self.store.set_host_state(&state) {
            tracing::warn!("{error}");
        }
        let left = self.kernel.settle(&Plan::between(&state.made, &[]), None);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        self.store.clear_host_state()
    }

    /// The steps that `unshare` would run once that network is gone.
    pub(super) fn unshare_plan(&self, network: &Network) -> Result<Plan, Error> {
        let others = self.store.network_states()?.iter().any(|state| state.network.id != network.id);
        let shared = self.store.host_state()?.filter(|_| !others);
        Ok(shared.map(|state| Plan::between(&state.made, &[])).unwrap_or_default())
    }

    /// A name for rnet's tables that nobody has: `rnet`, or one of this host's own beside another instance.
    fn free_table(&mut self) -> Result<TableName, Error> {
        let failed = |refusal| Error::kernel("look at the firewall", refusal);
        if !self.kernel.has_tables(&TableName::default()).map_err(failed)? {
            self.kernel.use_tables(TableName::default());
            return Ok(TableName::default());
        }
        let own = self.own_table()?;
        self.kernel.use_tables(own.clone());
        if self.kernel.has_tables(&own).map_err(failed)? {
            // Ours by its name, and remembered by nobody: an earlier life's, whose records are gone.
            self.kernel.settle(&Plan { steps: vec![Step::Remove(Resource::Firewall)] }, None);
        }
        Ok(own)
    }

    /// The name of this instance's tables beside those of another.
    pub(super) fn own_table(&self) -> Result<TableName, Error> {
        Ok(format!("rnet_{}", self.identity()?.host.prefix(8)).parse()?)
    }

    /// Gives a network the subnet that it lacks: `bridge` has none until it is first used.
    pub(super) fn complete(&mut self, network: &Network) -> Result<Network, Error> {
        let mut network = network.clone();
        if network.pools.is_empty()
            && Self::driver(&network)?.abilities().addresses
            && network.ipam_driver == "default"
        {
            let taken = self.taken()?;
            let mut pool = rnetkit_drivers::Pool {
                subnet: ipam::choose_ipv4(&taken)?,
                gateway: None,
                range: None,
                aux: std::collections::BTreeMap::new(),
            };
            ipam::complete(&mut pool)?;
            network.pools.push(pool);
        }
        Ok(network)
    }

    /// Every subnet that a new network must not meet: the host's routes and name servers, and other networks.
    pub(super) fn taken(&mut self) -> Result<Vec<ipnetwork::IpNetwork>, Error> {
        let known =
            self.kernel.subnets().map_err(|refusal| Error::kernel("list the host's routes", refusal))?;
        let mut taken: Vec<ipnetwork::IpNetwork> = known.into_iter().map(|known| known.subnet).collect();
        taken
            .extend(self.networks()?.iter().flat_map(|network| network.pools.iter().map(|pool| pool.subnet)));
        Ok(taken)
    }
}

fn guard(family: Family) -> Resource {
    Resource::Member(Member::Guard { family })
}

/// A link of that name that is not rnet's is a clash of names, and left alone.
fn name_clash(error: Error, network: &Network) -> Error {
    let settings = rnetkit_drivers::settings(network);
    match (error.errno(), settings) {
        (Some(libc::EEXIST), Ok(settings)) => {
            Error::LinkTaken { link: settings.device.to_string(), network: network.name.to_string() }
        }
        _ => error,
    }
}

/// What keeps the namespace alive, if anything does: a process, or a mount (`ip netns`).
fn someone_in(identity: (u64, u64)) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let processes = fs::read_dir("/proc").ok()?;
    let process = processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let data = fs::metadata(entry.path().join("ns/net")).ok()?;
        ((data.dev(), data.ino()) == identity).then(|| format!("process {pid}"))
    });
    let mount = || {
        let wanted = format!("net:[{}]", identity.1);
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|line| line.split(' ').nth(3) == Some(wanted.as_str()))?;
        Some(format!("mounted at {}", crate::error::shown(line.split(' ').nth(4)?)))
    };
    process.or_else(mount)
}

impl<K: Kernel> Rnet<K> {
    /// Whether the network's objects exist on this host now.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn is_up(&self, network: &Network) -> Result<bool, Error> {
        Ok(self.store.made_network(&network.id)?.is_some())
    }

    /// Enters a container's namespace by its recorded path, if it is still the same one.
    pub(super) fn still_there(&self, container: &rnetkit_drivers::Container) -> Option<K::Netns> {
        let netns = self.kernel.open(container.netns.as_ref()).ok()?;
        (self.kernel.identity(&netns) == (container.device, container.inode)).then_some(netns)
    }
}
