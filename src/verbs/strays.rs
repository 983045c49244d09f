//! What the kernel has of rnet's and no record names, as when a record was damaged or lost. Found by the marks on links
//! and in rnet's own sets. Never touches what carries no mark of this instance.

use rnetkit_drivers::{Network, Pool, Resource};

use super::{Rnet, keep::cannot_look, services::balanced};
use crate::{
    error::Error,
    ipam,
    kernel::{Kernel, Stray, TableName},
    store::{EndpointState, HostState, NetworkState},
};

impl<K: Kernel> Rnet<K> {
    /// What no record names.
    pub(super) fn strays(&mut self) -> Result<Vec<Stray>, Error> {
        if self.store.host_state()?.is_none() {
            // Nothing says which tables are this instance's.
            return Ok(Vec::new());
        }
        let sight = self.kernel.look().map_err(cannot_look)?;
        if self.strays_in(&sight)?.is_empty() {
            return Ok(Vec::new());
        }
        // Perhaps a command is just at work. With these locks nobody takes a port or makes a network; and what a
        // connect makes is on record before, so records are read after the look.
        let _host = self.store.lock_host()?;
        let _ports = self.store.lock_ports()?;
        let sight = self.kernel.look().map_err(cannot_look)?;
        self.strays_in(&sight)
    }

    /// Takes back what no record names.
    pub(super) fn take_back_strays(&mut self) -> Result<Vec<Stray>, Error> {
        if self.strays()?.is_empty() {
            return Ok(Vec::new());
        }
        let _host = self.store.lock_host()?;
        let _ports = self.store.lock_ports()?;
        let sight = self.kernel.look().map_err(cannot_look)?;
        let strays = self.strays_in(&sight)?;
        match self.kernel.remove_strays(&strays).into_iter().next() {
            None => Ok(strays),
            Some((stray, reason)) => {
                Err(Error::Apply { step: format!("take away {stray}"), reason, left_behind: Vec::new() })
            }
        }
    }

    fn strays_in(&self, sight: &K::Sight) -> Result<Vec<Stray>, Error> {
        let Some(mut recorded) = self.everything_recorded()? else { return Ok(Vec::new()) };
        recorded.extend(self.store.host_state()?.map(|state| state.made).unwrap_or_default());
        let mark = |network: &Network| format!("rnet:{}:", network.id.short());
        let marks: Vec<String> = self.networks()?.iter().map(mark).collect();
        Ok(self.kernel.strays(sight, &recorded, &marks))
    }

    /// What is recorded for networks and endpoints, ready or not; `None` where a record cannot be read and is not set
    /// aside (a newer rnet wrote it), or where a network that has endpoints has no record of its own: then nobody can
    /// say what is a stray.
    fn everything_recorded(&self) -> Result<Option<Vec<Resource>>, Error> {
        if self.store.has_newer()? || !self.store.networks_without_state()?.is_empty() {
            return Ok(None);
        }
        let networks = self.store.network_states()?.into_iter().flat_map(|state| state.made);
        let endpoints = self.store.every_endpoint()?;
        let shared = balanced(&endpoints);
        Ok(Some(networks.chain(endpoints.into_iter().flat_map(|state| state.made)).chain(shared).collect()))
    }

    /// Records of what was made that were damaged and set aside are made again, where what is defined and the endpoints'
    /// records say what they must have been. The caller holds the host's lock.
    pub(super) fn rebuild_records(&mut self) -> Result<(), Error> {
        for id in self.store.networks_without_state()? {
            let endpoints = self.store.endpoints(&id)?;
            let known = self.networks()?.into_iter().find(|network| network.id == id);
            if let Some(network) = known.map(|network| with_pools(network, &endpoints)) {
                let list = Self::driver(&network)?.network(&network)?;
                let made = list.into_iter().filter(|resource| !resource.is_shared()).collect();
                tracing::warn!("network {}: its record was lost, and is made again", network.name);
                self.store.set_network_state(&NetworkState { network, pending: false, made })?;
            }
        }
        self.rebuild_host()
    }

    /// As `rebuild_records`, for what networks share.
    pub(super) fn rebuild_host(&mut self) -> Result<(), Error> {
        let states = self.store.network_states()?;
        if states.is_empty() || self.store.host_state()?.is_some() {
            return Ok(());
        }
        let table = self.former_table()?;
        self.kernel.use_tables(table.clone());
        let mut shared: Vec<Resource> = vec![Resource::Firewall];
        for state in &states {
            let list = Self::driver(&state.network)?.network(&state.network)?;
            shared.extend(
                list.into_iter().filter(|r| r.is_shared() && !shared.contains(r)).collect::<Vec<_>>(),
            );
        }
        let there = self.really(&shared)?;
        let guarded = |resource: &Resource| match resource {
            Resource::Forwarding { family } => {
                there.contains(&Resource::Member(rnetkit_drivers::Member::Guard { family: *family }))
            }
            _ => true,
        };
        // Forwarding without its guard was not switched on by rnet.
        let made = shared.into_iter().filter(|r| *r == Resource::Firewall || there.contains(r) && guarded(r));
        let made = made.collect();
        tracing::warn!("the record of what networks share was lost, and is made again");
        self.store.set_host_state(&HostState { life: self.life()?, table, pending: false, made })
    }

    /// The name of the tables that this instance had: its own name where such tables are, else the usual one.
    fn former_table(&mut self) -> Result<TableName, Error> {
        let own = self.own_table()?;
        let has_own = self.kernel.has_tables(&own).map_err(cannot_look)?;
        Ok(if has_own { own } else { TableName::default() })
    }
}

/// The network `bridge` has no subnets in its definition: its endpoints say which it had.
fn with_pools(mut network: Network, endpoints: &[EndpointState]) -> Network {
    if network.pools.is_empty() {
        let addresses = endpoints.first().map(|state| state.endpoint.addresses.clone()).unwrap_or_default();
        for address in addresses {
            let mut pool = Pool {
                subnet: ipam::network_of(&address),
                gateway: None,
                range: None,
                aux: std::collections::BTreeMap::new(),
            };
            if ipam::complete(&mut pool).is_ok() {
                network.pools.push(pool);
            }
        }
    }
    network
}
