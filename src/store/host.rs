//! What was made for all networks together, and of which life of the host everything is.

use rnetkit_drivers::Resource;
use serde::{Deserialize, Serialize};

use super::{
    Store,
    file::{self, Durable, Lock},
};
use crate::{error::Error, kernel::TableName};

/// The life of the host that a run directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Device and inode of the host's network namespace.
    pub netns: (u64, u64),
}

/// What was made for all networks together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Of which life.
    pub life: Life,
    /// The name of rnet's tables.
    pub table: TableName,
    /// The change is not finished.
    pub pending: bool,
    /// What was made, in order.
    pub made: Vec<Resource>,
}

/// What was made for all networks.
impl Store {
    /// Locks what all networks share, definitions included.
    ///
    /// # Errors
    /// When another process does not let go of it.
    pub fn lock_host(&self) -> Result<Lock, Error> {
        file::make_dir(&self.run)?;
        file::lock(&self.run.join(".lock"), &format!("the state in {}", self.run.display()))
    }

    /// What was made for all networks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn host_state(&self) -> Result<Option<HostState>, Error> {
        file::read(&self.run.join("host.json"))
    }

    /// The name of rnet's tables.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn table(&self) -> Result<TableName, Error> {
        #[derive(Deserialize)]
        struct Named {
            table: TableName,
        }
        let named: Option<Named> = file::read(&self.run.join("host.json"))?;
        Ok(named.map_or_else(TableName::default, |named| named.table))
    }

    /// The life of the host that the run directory belongs to; `None` where nothing was made.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn life(&self) -> Result<Option<Life>, Error> {
        #[derive(Deserialize)]
        struct Lived {
            life: Life,
        }
        let lived: Option<Lived> = file::read(&self.run.join("host.json"))?;
        Ok(lived.map(|lived| lived.life))
    }

    /// Remembers what was made for all networks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_host_state(&self, state: &HostState) -> Result<(), Error> {
        file::write(&self.run.join("host.json"), state, Durable::No)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear_host_state(&self) -> Result<(), Error> {
        file::remove_tree(&self.run.join("ports"))?;
        file::remove_with_rest(&self.run.join("host.json"))
    }

    /// Forgets everything that died with an earlier life of the host.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn forget_life(&self) -> Result<(), Error> {
        for part in ["networks", "pending", "containers", "running", "ports"] {
            file::remove_tree(&self.run.join(part))?;
        }
        self.clear_host_state()
    }

    /// Removes both directories' contents: rnet was never here.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn erase(&self) -> Result<(), Error> {
        self.forget_life()?;
        for (folder, names) in [
            (&self.run, &[".lock"][..]),
            (&self.root, &["host.json", "cluster.json", "cipher-key.json", ".lock"][..]),
        ] {
            names.iter().try_for_each(|name| file::remove_with_rest(&folder.join(name)))?;
        }
        file::remove_tree(&self.root.join("networks"))
    }
}
