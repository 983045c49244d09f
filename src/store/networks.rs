//! What was made for each network, and who may work on it.

use std::{net::IpAddr, path::PathBuf};

use rnetkit_drivers::{Id, Network, Resource};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    file::{self, Durable, Lock},
};
use crate::error::Error;

/// What was made for a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The network as it was then.
    pub network: Network,
    /// The change is not finished.
    pub pending: bool,
    /// What was made, in order.
    pub made: Vec<Resource>,
}

/// A container on another host, by what its network's other hosts say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Far {
    /// Its id, where its host says it.
    pub id: Option<Id>,
    /// Its name.
    pub name: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FarRecord {
    containers: Vec<Far>,
}

/// What was made for each network.
impl Store {
    /// Locks the addresses and endpoints of a network.
    ///
    /// # Errors
    /// When another process does not let go of them.
    pub fn lock_network(&self, network: &Network) -> Result<Lock, Error> {
        let folder = self.network_dir(&network.id);
        file::make_dir(&folder)?;
        file::lock(&folder.join(".lock"), &format!("network {}", network.name))
    }

    /// Locks the addresses and endpoints of a network that was made; `None` where it is gone.
    ///
    /// # Errors
    /// When another process does not let go of them.
    pub fn lock_living_network(&self, network: &Network) -> Result<Option<Lock>, Error> {
        file::lock_existing(
            &self.network_dir(&network.id).join(".lock"),
            &format!("network {}", network.name),
        )
    }

    /// Says that a living process removes the network, as long as the lock is held.
    ///
    /// # Errors
    /// When another process is at it.
    pub fn lock_removal(&self, network: &Network) -> Result<Lock, Error> {
        let folder = self.network_dir(&network.id);
        file::make_dir(&folder)?;
        file::lock(&folder.join(".removal"), &format!("network {}", network.name))
    }

    /// Whether a living process removes the network.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn is_being_removed(&self, network: &Network) -> Result<bool, Error> {
        let path = self.network_dir(&network.id).join(".removal");
        Ok(path.exists() && file::try_lock(&path)?.is_none())
    }

    /// What was made for a network; `None` where nothing was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn network_state(&self, id: &Id) -> Result<Option<NetworkState>, Error> {
        file::read(&self.network_dir(id).join("state.json"))
    }

    /// The network as it was made; `None` where nothing was, or the change is not finished. Does not read the list of
    /// what was made, and so costs half of `network_state`.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn made_network(&self, id: &Id) -> Result<Option<Network>, Error> {
        #[derive(Deserialize)]
        struct Made {
            network: Network,
            pending: bool,
        }
        let made: Option<Made> = file::read(&self.network_dir(id).join("state.json"))?;
        Ok(made.filter(|made| !made.pending).map(|made| made.network))
    }

    /// Remembers what was made for a network.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_network_state(&self, state: &NetworkState) -> Result<(), Error> {
        let folder = self.network_dir(&state.network.id);
        file::make_dir(&folder.join("endpoints"))?;
        file::write(&folder.join("state.json"), state, Durable::No)
    }

    /// Forgets what was made for a network, its addresses included.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear_network_state(&self, id: &Id) -> Result<(), Error> {
        let folder = self.network_dir(id);
        file::remove(&folder.join("state.json"))?;
        file::remove_tree(&folder)
    }

    /// The directory of what a network has on other hosts, as far as they say it.
    #[must_use]
    pub fn far_dir(&self, id: &Id) -> PathBuf {
        self.network_dir(id).join("far")
    }

    /// Who is in a network on other hosts, and what they are called there; nobody where nothing was heard of any.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn far_names(&self, id: &Id) -> Result<Vec<Far>, Error> {
        let record: Option<FarRecord> = file::read(&self.far_dir(id).join("names.json"))?;
        Ok(record.map(|record| record.containers).unwrap_or_default())
    }

    /// Remembers it, if the network is still there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_far_names(&self, network: &Network, list: &[Far]) -> Result<(), Error> {
        let Some(_lock) = self.lock_living_network(network)? else { return Ok(()) };
        let record = FarRecord { containers: list.to_vec() };
        file::make_dir(&self.far_dir(&network.id))?;
        file::write(&self.far_dir(&network.id).join("names.json"), &record, Durable::No)
    }

    /// The ids of all networks of which something was made, or is being made.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn network_ids(&self) -> Result<Vec<Id>, Error> {
        let names = file::names(&self.run.join("networks"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Every network that was made; a record that cannot be read hides no other.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn made_networks(&self) -> Result<Vec<Network>, Error> {
        let made = |id: Id| match self.made_network(&id) {
            Ok(network) => network,
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        };
        Ok(self.network_ids()?.into_iter().filter_map(made).collect())
    }

    /// What was made for every network. A record that is damaged is set aside and logged, one of a newer rnet is logged.
    ///
    /// # Errors
    /// When a directory or record cannot be read.
    pub fn network_states(&self) -> Result<Vec<NetworkState>, Error> {
        let mut list = Vec::new();
        for id in self.network_ids()? {
            match self.network_state(&id) {
                Err(error @ (Error::Damaged { .. } | Error::Newer { .. })) => tracing::warn!("{error}"),
                state => list.extend(state?),
            }
        }
        Ok(list)
    }

    /// Networks that have endpoints and no record of their own: it was damaged, and set aside.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn networks_without_state(&self) -> Result<Vec<Id>, Error> {
        let mut list = self.network_ids()?;
        list.retain(|id| !self.network_dir(id).join("state.json").exists());
        let mut lost = Vec::new();
        for id in list {
            if self.has_endpoints(&id)? {
                lost.push(id);
            }
        }
        Ok(lost)
    }

    /// Whether the record of a network that has endpoints is missing, or that of what networks share while there are
    /// networks.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn lost_records(&self) -> Result<bool, Error> {
        let ids = self.network_ids()?;
        let has_state = |id: &Id| self.network_dir(id).join("state.json").exists();
        let host = self.run.join("host.json").exists();
        Ok(ids.iter().any(has_state) && !host || !self.networks_without_state()?.is_empty())
    }
}
