//! The table, kept as the records are. Looks at what changed when asked, and at nothing else.

use rnetkit_drivers::Id;

use super::table::{Record, Table};
use crate::{
    agent::follow::{Change, Depth, Follower},
    error::Error,
    store::Store,
};

/// The records, as names.
#[derive(Debug)]
pub struct Records {
    store: Store,
    follower: Follower,
    table: Table,
}

impl Records {
    /// All that is recorded now.
    ///
    /// # Errors
    /// When the records cannot be followed.
    pub fn open(store: &Store) -> Result<Self, Error> {
        let follower = Follower::new(store, Depth::Far)?;
        let mut records = Self { store: store.clone(), follower, table: Table::default() };
        records.read_all();
        Ok(records)
    }

    /// As they were at the last look.
    #[must_use]
    pub fn known(&self) -> &Table {
        &self.table
    }

    /// Looks: then the table has everything that was recorded before this call.
    pub fn look(&mut self) -> &Table {
        match self.follower.changes() {
            Ok(changes) => changes.iter().for_each(|change| self.act_on(change)),
            Err(error) => {
                tracing::error!("cannot follow the records: {error}");
                self.read_all();
            }
        }
        &self.table
    }

    fn act_on(&mut self, change: &Change) {
        match change {
            Change::Network(id) => self.read_network(id),
            Change::Endpoints(id) => self.read_endpoints(id),
            Change::Far(id) => self.read_far(id),
            Change::Endpoint(network, key) => self.read_endpoint(network, key),
            Change::Everything => {
                self.follower.watch_networks();
                self.read_all();
            }
        }
    }

    fn read_all(&mut self) {
        self.table = Table::default();
        match self.store.network_ids() {
            Ok(ids) => ids.iter().for_each(|id| self.read_network(id)),
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn read_network(&mut self, id: &Id) {
        match self.store.made_network(id) {
            Ok(Some(network)) => {
                let known = self.table.has(id);
                self.table.set_network(&network);
                if !known {
                    self.read_endpoints(id);
                    self.read_far(id);
                }
            }
            Ok(None) => self.table.remove_network(id),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// All of them, whatever was known.
    fn read_endpoints(&mut self, network: &Id) {
        self.table.remove_endpoints(network);
        let keys = self.store.endpoint_keys(network).unwrap_or_default();
        keys.iter().for_each(|key| self.read_endpoint(network, key));
    }

    fn read_far(&mut self, network: &Id) {
        match self.store.far_names(network) {
            Ok(list) => self.table.set_far(network, &list),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// A record that cannot be read is nobody's name, and stops no other.
    fn read_endpoint(&mut self, network: &Id, key: &str) {
        match self.store.endpoint_part::<Record>(network, key) {
            Ok(Some(record)) if record.key == key => self.table.set_endpoint(network, &record),
            Ok(_) => self.table.remove_endpoint(network, key),
            Err(error) => {
                tracing::warn!("{error}");
                self.table.remove_endpoint(network, key);
            }
        }
    }
}
