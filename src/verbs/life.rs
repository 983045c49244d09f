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
    fn life(&self) -> Result<Life, Error> {
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
        let Some(state) = self.store.host_state()? else { return Ok(()) };
        let life = self.life()?;
        if state.life == life {
            return Ok(());
        }
        if state.life.boot == life.boot
            && let Some(by) = someone_in(state.life.netns)
        {
            return Err(Error::OtherHost { path: self.store.run_dir().into(), by });
        }
        let _lock = self.store.lock_host()?;
        self.store.forget_life()
    }

    /// Takes back what dead processes left in the making or unmaking.
    ///
    /// # Errors
    /// When records cannot be read or removed.
    pub fn take_back_dead(&mut self) -> Result<usize, Error> {
        let dead = self.store.dead()?;
        let count = dead.len();
        for pending in dead {
            self.unmake(pending)?;
        }
        Ok(count)
    }

    /// Unmakes an endpoint by its record, forgets it, and its container if it was the last.
    pub(super) fn unmake(&mut self, pending: Pending) -> Result<(), Error> {
        let key = pending.state.key.clone();
        self.unmake_in(pending)?;
        self.store.leave_container(&key);
        Ok(())
    }

    /// Unmakes an endpoint by its record, and forgets it.
    pub(super) fn unmake_in(&mut self, pending: Pending) -> Result<(), Error> {
        let plan = Plan::between(&pending.state.made, &[]);
        let left = self.kernel.settle(&plan, None);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        self.release(&pending.state, super::disconnect::Rest::Yes)?;
        self.store.forget(pending)
    }

    /// Makes what the network needs, unless it is there.
    ///
    /// Returns the network as it is: for `bridge`, with the subnet that was chosen for it.
    pub(super) fn up(&mut self, network: &Network) -> Result<Network, Error> {
        if let Some(state) = self.store.network_state(&network.id)?
            && !state.pending
        {
            return Ok(state.network);
        }
        let _host = self.store.lock_host()?;
        let _lock = self.store.lock_network(network)?;
        match self.store.network_state(&network.id)? {
            Some(state) if !state.pending => return Ok(state.network),
            Some(_) if self.store.is_being_removed(network)? => {
                return Err(Error::NetworkNotFound { name: network.name.to_string() });
            }
            Some(state) => self.tear_down(&state)?,
            None => {}
        }
        self.refuse_removed(network)?;
        let network = self.complete(network)?;
        let list = Self::driver(&network)?.network(&network)?;
        let (shared, own): (Vec<Resource>, Vec<Resource>) = list.into_iter().partition(Resource::is_shared);
        self.share(&shared)?;
        let mut state = NetworkState { network, pending: true, made: own };
        self.store.set_network_state(&state)?;
        if let Err(error) = self.kernel.apply(&Plan::between(&[], &state.made), None) {
            self.store.clear_network_state(&state.network.id)?;
            self.unshare()?;
            return Err(name_clash(error, &state.network));
        }
        state.pending = false;
        self.store.set_network_state(&state)?;
        Ok(state.network)
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
    fn really(&mut self, resources: &[Resource]) -> Result<Vec<Resource>, Error> {
        let found = self
            .kernel
            .find(resources, None)
            .map_err(|refusal| Error::kernel("look at the host", refusal))?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Unmakes what networks share once there is no network. The caller holds the host's lock.
    fn unshare(&mut self) -> Result<(), Error> {
        let Some(state) = self.store.host_state()? else { return Ok(()) };
        if !self.store.network_states()?.is_empty() {
            return Ok(());
        }
        let left = self.kernel.settle(&Plan::between(&state.made, &[]), None);
        if let Some((step, refusal)) = left.first() {
            return Err(Error::apply(step, refusal.clone(), &left[1..]));
        }
        self.store.clear_host_state()
    }

    /// A name for rnet's tables that nobody has: `rnet`, or one of this host's own beside another instance.
    fn free_table(&mut self) -> Result<TableName, Error> {
        let failed = |refusal| Error::kernel("look at the firewall", refusal);
        if !self.kernel.has_tables(&TableName::default()).map_err(failed)? {
            self.kernel.use_tables(TableName::default());
            return Ok(TableName::default());
        }
        let own: TableName = format!("rnet_{}", self.identity()?.host.prefix(8)).parse()?;
        self.kernel.use_tables(own.clone());
        if self.kernel.has_tables(&own).map_err(failed)? {
            // Ours by its name, and remembered by nobody: an earlier life's, whose records are gone.
            self.kernel.settle(&Plan { steps: vec![Step::Remove(Resource::Firewall)] }, None);
        }
        Ok(own)
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
    let settings = rnetkit_drivers::bridge::Settings::of(network);
    match (error.errno(), settings) {
        (Some(libc::EEXIST), Ok(settings)) => {
            Error::LinkTaken { link: settings.device.to_string(), network: network.name.to_string() }
        }
        _ => error,
    }
}

/// A living process in the namespace, if there is one.
fn someone_in(identity: (u64, u64)) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let data = fs::metadata(entry.path().join("ns/net")).ok()?;
        ((data.dev(), data.ino()) == identity).then(|| format!("process {pid}"))
    })
}

impl<K: Kernel> Rnet<K> {
    /// Whether the network's objects exist on this host now, by its record.
    pub fn is_up(&self, network: &Network) -> bool {
        self.store.has_network_state(&network.id)
    }

    /// Enters a container's namespace by its recorded path, if it is still the same one.
    pub(super) fn still_there(&self, container: &rnetkit_drivers::Container) -> Option<K::Netns> {
        let netns = self.kernel.open(container.netns.as_ref()).ok()?;
        (self.kernel.identity(&netns) == (container.device, container.inode)).then_some(netns)
    }
}
