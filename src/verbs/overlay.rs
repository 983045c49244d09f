//! What an overlay network needs to know of its host: by which address others reach it, and how much of a packet is
//! left. Never talks to other hosts.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use rnetkit_drivers::{
    Id, Network, Peer, Resource,
    overlay::{self, MOST_VNI, OWN_ADDRESS, SMALLEST_VNI, Settings},
};

use super::{Rnet, driver};
use crate::{
    cluster,
    error::Error,
    ipam::{self, Wishes},
    kernel::Kernel,
    plan::Plan,
    store::{EndpointState, NetworkState},
};

/// What is said where a cluster is needed and there is none.
const NO_STORE: &str = "an overlay network needs a store that its hosts share (store = \"etcd://...\" in config.toml), or \
                        their addresses: -o peers=HOST=RANGE,...";

impl<K: Kernel> Rnet<K> {
    /// Fills in what the user left open: the own address, the largest packet, the number on the wire.
    pub(super) fn decide_overlay(&mut self, network: &mut Network) -> Result<(), Error> {
        let settings = Settings::of(network)?;
        if !settings.is_by_hand() {
            // What is left open, the hosts of the cluster agree on.
            self.cluster()?;
            return Ok(());
        }
        let underlay = self
            .kernel
            .underlay(settings.local)
            .map_err(|refusal| Error::kernel("find out how other hosts reach this one", refusal))?;
        let most = overlay::inner_mtu(underlay.address, underlay.mtu, false);
        if let Some(mtu) = settings.mtu.filter(|mtu| *mtu > most) {
            let what = format!(
                "packets of {mtu} bytes do not fit: {} has {} bytes, and that leaves {most}",
                underlay.address, underlay.mtu
            );
            return Err(Error::Unsupported { what });
        }
        let number = number_of(network);
        let options = &mut network.options;
        if settings.local.is_none() {
            options.insert(OWN_ADDRESS.to_owned(), underlay.address.to_string());
        }
        if settings.mtu.is_none() {
            options.insert("mtu".to_owned(), most.to_string());
        }
        if settings.vni.is_none() {
            options.insert("vni".to_owned(), number.to_string());
        }
        Ok(())
    }
}

/// The number on the wire that follows from the subnets, so that hosts that are told the same of a network by hand
/// agree on it (FNV-1a).
fn number_of(network: &Network) -> u32 {
    let text: Vec<String> = network.pools.iter().map(|pool| pool.subnet.to_string()).collect();
    let hash = text.join(" ").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let numbers = u64::from(MOST_VNI - SMALLEST_VNI + 1);
    SMALLEST_VNI + u32::try_from(hash % numbers).unwrap_or(0)
}

/// What the hosts of a cluster agree on, for the verbs of one of them.
pub trait Shared {
    /// Defines a network for all hosts; returns it with what was chosen.
    ///
    /// # Errors
    /// When its name or subnet is taken, or the others cannot be asked.
    fn create(&mut self, network: &Network) -> Result<Network, Error>;

    /// Removes a network that no host has an endpoint in.
    ///
    /// # Errors
    /// When one has, or the others cannot be asked.
    fn remove(&mut self, network: &Network) -> Result<(), Error>;

    /// One address of each subnet, for an endpoint that is being made.
    ///
    /// # Errors
    /// When none is to be had, or the others cannot be asked.
    fn reserve(
        &mut self,
        network: &Network,
        endpoint: &Id,
        name: &str,
        asked: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Error>;

    /// Tells the others what is recorded here by now.
    ///
    /// # Errors
    /// When they cannot be told.
    fn settle(&mut self) -> Result<(), Error>;
}

impl<K: Kernel> Rnet<K> {
    /// With a cluster, by way of which hosts agree.
    #[must_use]
    pub fn with_cluster(mut self, shared: Box<dyn Shared>) -> Self {
        self.shared = Some(shared);
        self
    }

    pub(super) fn cluster(&mut self) -> Result<&mut Box<dyn Shared>, Error> {
        let missing = || Error::Unsupported { what: NO_STORE.to_owned() };
        self.shared.as_mut().ok_or_else(missing)
    }

    /// Tells the other hosts; they hear of it later where they cannot be told now.
    pub(super) fn tell_others(&mut self, network: &Network) {
        if !cluster::is_shared(network) {
            return;
        }
        if let Err(error) = self.cluster().and_then(|shared| shared.settle()) {
            tracing::warn!("network {}: other hosts do not know yet: {error}", network.name);
        }
    }

    /// Takes over a network that another host defined, or the address that this host has by now. Whether anything is other
    /// than before: then nothing of its other hosts is placed.
    ///
    /// # Errors
    /// When it meets what is here already, or makes no sense.
    pub fn adopt(&mut self, network: &Network, own: IpAddr) -> Result<bool, Error> {
        if let Some(known) = self.store.definition(&network.name)? {
            if known.id == network.id {
                return self.readdress(&known, own);
            }
            return Err(Error::NetworkExists { name: network.name.to_string() });
        }
        let mut network = network.clone();
        network.group = self.free_group(&network.id)?;
        network.options.insert(OWN_ADDRESS.to_owned(), own.to_string());
        self.refuse_poison(&network)?;
        let _lock = self.store.lock_host()?;
        self.store.define(&network)?;
        Ok(true)
    }

    fn readdress(&mut self, known: &Network, own: IpAddr) -> Result<bool, Error> {
        let options = BTreeMap::from([(OWN_ADDRESS.to_owned(), own.to_string())]);
        if known.options.get(OWN_ADDRESS) == options.get(OWN_ADDRESS) {
            return Ok(false);
        }
        if self.store.made_network(&known.id)?.is_some() {
            return self.reconfigure(known, &options);
        }
        let mut known = known.clone();
        known.options.extend(options);
        let _lock = self.store.lock_host()?;
        self.store.define(&known)?;
        Ok(true)
    }

    /// What comes from the store is believed as little as what a user types.
    fn refuse_poison(&mut self, network: &Network) -> Result<(), Error> {
        let refuse =
            |what: &str| Err(Error::Unsupported { what: format!("network {}: {what}", network.name) });
        if !cluster::is_shared(network) || network.ipam_driver != "default" {
            return refuse("it is no overlay network of a cluster");
        }
        let settings = Settings::of(network)?;
        if settings.vni.is_none() || settings.mtu.is_none() || network.pools.is_empty() {
            return refuse("its number, its largest packet or its subnet is missing");
        }
        let wishes = Wishes {
            subnets: network.pools.iter().map(|pool| pool.subnet).collect(),
            gateways: network.pools.iter().filter_map(|pool| pool.gateway).collect(),
            ranges: network.pools.iter().filter_map(|pool| pool.range).collect(),
            aux: network.pools.iter().flat_map(|pool| pool.aux.clone()).collect(),
        };
        if ipam::pools(&wishes)? != network.pools {
            return refuse("its subnets contradict each other");
        }
        for subnet in &wishes.subnets {
            self.check_free(subnet)?;
        }
        driver("overlay")?.check(network)?;
        Ok(())
    }

    /// Forgets a network that the cluster has no more. One that has endpoints here stays until they are gone.
    ///
    /// # Errors
    /// When something cannot be unmade.
    pub fn forget_shared(&mut self, network: &Id) -> Result<bool, Error> {
        let known = self.store.definitions()?.into_iter().find(|known| known.id == *network);
        let Some(known) = known.filter(cluster::is_shared) else { return Ok(true) };
        if self.store.has_endpoints(network)? {
            return Ok(false);
        }
        self.remove_all(&known, Vec::new(), false)?;
        Ok(true)
    }

    /// The endpoints of shared networks on this host that are ready, and the ids of those that are being made.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn shared_endpoints(&self) -> Result<(Vec<EndpointState>, Vec<Id>), Error> {
        let mut ready = Vec::new();
        for network in self.store.made_networks()?.iter().filter(|network| cluster::is_shared(network)) {
            ready.extend(self.store.endpoints(&network.id)?);
        }
        let pending = self.store.pending()?.into_iter().map(|(id, _)| id).collect();
        Ok((ready, pending))
    }

    /// Brings the kernel from these peers to those, in one plan. `all` is what was placed so far: everything that exists
    /// is on record, before it comes and until it is gone, and nobody mends the host in between.
    ///
    /// # Errors
    /// When a step is refused, or the record cannot be written.
    pub fn move_peers(
        &mut self,
        network: &Network,
        all: &[Peer],
        before: &[Peer],
        after: &[Peer],
    ) -> Result<(), Error> {
        let _host = self.store.lock_host()?;
        let (gone, come) = (peers(network, before)?, peers(network, after)?);
        let mut known = peers(network, all)?;
        let seen: HashSet<&Resource> = known.iter().collect();
        let fresh: Vec<Resource> = come.iter().filter(|resource| !seen.contains(resource)).cloned().collect();
        if !fresh.is_empty() {
            known.extend(fresh);
            self.record(network, known.clone())?;
        }
        self.settle_plan(&Plan::between(&gone, &come))?;
        let stay: HashSet<&Resource> = come.iter().collect();
        let left: HashSet<&Resource> = gone.iter().filter(|resource| !stay.contains(resource)).collect();
        if left.is_empty() {
            return Ok(());
        }
        known.retain(|resource| !left.contains(resource));
        self.record(network, known)
    }

    /// Brings the kernel to these peers from whatever it has and a record knows of.
    ///
    /// # Errors
    /// When the kernel cannot be looked at, a step is refused, or the record cannot be written.
    pub fn settle_peers(&mut self, network: &Network, all: &[Peer]) -> Result<(), Error> {
        let _host = self.store.lock_host()?;
        let Some(state) = self.store.network_state(&network.id)? else { return Ok(()) };
        let wanted = peers(network, all)?;
        let mut known = wanted.clone();
        let seen: HashSet<&Resource> = wanted.iter().collect();
        let mut own: HashSet<Resource> = driver("overlay")?.network(network)?.into_iter().collect();
        // An address that was elsewhere may be here by now.
        own.extend(self.store.endpoints(&network.id)?.into_iter().flat_map(|state| state.made));
        known.extend(state.made.iter().filter(|r| !seen.contains(r) && !own.contains(r)).cloned());
        self.record(network, known.clone())?;
        let failed = |refusal| Error::kernel("look at the host", refusal);
        let found: Vec<Resource> =
            self.kernel.find(&known, None).map_err(failed)?.into_iter().flatten().collect();
        self.settle_plan(&Plan::between(&found, &wanted))?;
        if known.len() > wanted.len() { self.record(network, wanted) } else { Ok(()) }
    }

    fn settle_plan(&mut self, plan: &Plan) -> Result<(), Error> {
        let left = self.kernel.settle(plan, None);
        match left.first() {
            Some((step, refusal)) => Err(Error::apply(step, refusal.clone(), &left[1..])),
            None => Ok(()),
        }
    }

    /// Records the peers with what was made for the network, so that it is checked, mended and unmade with it.
    fn record(&mut self, network: &Network, placed: Vec<Resource>) -> Result<(), Error> {
        let Some(_lock) = self.store.lock_living_network(network)? else { return Ok(()) };
        let Some(made) = self.store.made_network(&network.id)? else { return Ok(()) };
        let own = driver("overlay")?.network(network)?.into_iter().filter(|resource| !resource.is_shared());
        let mut seen = HashSet::new();
        let made_of = own.chain(placed).filter(|resource| seen.insert(resource.clone())).collect();
        self.store.set_network_state(&NetworkState { network: made, pending: false, made: made_of })
    }
}

fn peers(network: &Network, list: &[Peer]) -> Result<Vec<Resource>, Error> {
    let driver = driver("overlay")?;
    let mut all = Vec::new();
    for peer in list {
        all.extend(driver.peer(network, peer)?);
    }
    Ok(all)
}
