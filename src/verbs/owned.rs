//! What orchestrators ask about their own endpoints: is one as it was made, which of them may go, is there room for
//! another. Looks at one network, and at one endpoint where that is enough.

use std::path::Path;

use rnetkit_drivers::{InterfaceName, Network, Place, Resource};

use super::{
    Difference, Rnet,
    addresses::{lowest, size},
    keep::{Part, part_of},
};
use crate::{container_ref::ContainerRef, error::Error, kernel::Kernel, plan::Plan, store::EndpointState};

impl<K: Kernel> Rnet<K> {
    /// What differs between the record of one endpoint, with all that it stands on, and the kernel.
    ///
    /// # Errors
    /// When records or the kernel cannot be read, or the endpoint's namespace is gone.
    pub fn check_endpoint(&mut self, state: &EndpointState) -> Result<Vec<Difference>, Error> {
        let network = &state.endpoint.network;
        let mut parts = Vec::new();
        if let Some(host) = self.store.host_state()? {
            parts.push(Part { of: "host".to_owned(), made: host.made, endpoint: None });
        }
        if let Some(made) = self.store.network_state(network)? {
            let of = format!("network {}", made.network.name);
            parts.push(Part { of, made: made.made, endpoint: None });
        }
        let container = &state.endpoint.container;
        if self.namespace_of(state).is_none() {
            return Err(Error::ContainerNotFound {
                name: container.name.clone(),
                reason: format!(": its network namespace {} is gone", container.netns),
            });
        }
        parts.push(part_of(state.clone()));
        let mut differences = Vec::new();
        for part in &parts {
            differences.extend(self.differences_of(part)?);
        }
        Ok(differences)
    }

    /// Disconnects every endpoint of a network that `goes` says so of; it is told whether the namespace still lives.
    /// One that cannot be disconnected keeps no other.
    ///
    /// # Errors
    /// The first failure, when all were tried.
    pub fn collect(
        &mut self,
        network: &Network,
        mut goes: impl FnMut(&EndpointState, bool) -> bool,
    ) -> Result<Vec<EndpointState>, Error> {
        self.wake()?;
        self.take_back_dead(None)?;
        let mut gone = Vec::new();
        let mut first = Ok(());
        for state in self.store.endpoints(&network.id)? {
            let lives = self.namespace_of(&state).is_some();
            if !goes(&state, lives) {
                continue;
            }
            match self.disconnect_key(&network.id, &state.key) {
                Ok(()) => gone.push(state),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first.map(|()| gone)
    }

    /// Whether one more container would get its addresses, and whether the firewall can be asked.
    ///
    /// # Errors
    /// `PoolExhausted` where it would not, or why that cannot be known.
    pub fn refuse_full(&mut self, network: &Network) -> Result<(), Error> {
        self.wake()?;
        self.refuse_without_firewall()?;
        for pool in &network.pools {
            let numbers = self.store.addresses(&network.id, &pool.subnet, size(pool), super::uptime())?;
            // The index may know of numbers that nobody has any more, so a full one is not the last word.
            if lowest(&numbers, pool).is_none() {
                self.preview_address(network, pool, None)?;
            }
        }
        Ok(())
    }

    /// Whether the kernel's firewall can be asked.
    ///
    /// # Errors
    /// Why not.
    pub fn refuse_without_firewall(&mut self) -> Result<(), Error> {
        let table = self.store.table()?;
        self.kernel.has_tables(&table).map_err(|refusal| Error::kernel("ask the firewall", refusal)).map(drop)
    }

    /// Whether the endpoint is in the namespace behind this file.
    #[must_use]
    pub fn lives_at(&self, state: &EndpointState, netns: &Path) -> bool {
        let container = &state.endpoint.container;
        let identity = self.kernel.open(netns).map(|netns| self.kernel.identity(&netns));
        identity.is_ok_and(|identity| identity == (container.device, container.inode))
    }

    /// Brings the loopback interface of a container up.
    ///
    /// # Errors
    /// When the namespace is the host's own, or none, or the kernel refuses.
    pub fn set_loopback_up(&mut self, container: &ContainerRef, netns: &Path) -> Result<(), Error> {
        let (netns, _) = container.open_at(netns.to_owned(), &self.kernel)?;
        self.kernel.apply(&Plan::between(&[], &[loopback()]), Some(&netns))
    }

    /// Whether the loopback interface of a container is up.
    ///
    /// # Errors
    /// When the namespace is the host's own, or none, or the kernel cannot be asked.
    pub fn is_loopback_up(&mut self, container: &ContainerRef, netns: &Path) -> Result<bool, Error> {
        let (netns, _) = container.open_at(netns.to_owned(), &self.kernel)?;
        let found = self.kernel.find(&[loopback()], Some(&netns));
        let found = found.map_err(|refusal| Error::kernel("look at the loopback interface", refusal))?;
        Ok(found.into_iter().any(|one| one.is_some()))
    }

    /// The endpoint of a container in a network, if it is ready.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn endpoint(&self, network: &Network, key: &str) -> Result<Option<EndpointState>, Error> {
        self.store.endpoint(&network.id, key)
    }
}

fn loopback() -> Resource {
    Resource::Up { place: Place::Container, link: InterfaceName::loopback() }
}
