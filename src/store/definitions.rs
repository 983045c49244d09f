//! Who this host is, and which networks are defined on it: what survives a reboot.

use std::path::PathBuf;

use rnetkit_drivers::{Id, Name, Network};
use serde::{Deserialize, Serialize};

use super::{
    Store,
    file::{self, Durable},
};
use crate::error::Error;

/// Who this host is, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The host's own id.
    pub host: Id,
    /// The ids of the networks that are there without being made.
    pub bridge: Id,
    /// As `bridge`.
    pub none: Id,
    /// As `bridge`.
    pub host_network: Id,
    /// When they came to be: nanoseconds since 1970 in UTC.
    pub created: u64,
}

/// A network's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Definition {
    network: Network,
}

/// The host, and definitions of networks.
impl Store {
    /// Who this host is; found out and kept when first asked.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn identity(&self, fresh: impl FnOnce() -> Identity) -> Result<Identity, Error> {
        let path = self.root.join("host.json");
        if let Some(identity) = file::read(&path)? {
            return Ok(identity);
        }
        file::make_dir(&self.root)?;
        let _lock = file::lock(&self.root.join(".lock"), "the identity of the host")?;
        if let Some(identity) = file::read(&path)? {
            return Ok(identity);
        }
        let identity = fresh();
        file::write(&path, &identity, Durable::Yes)?;
        Ok(identity)
    }

    fn definition_path(&self, name: &Name) -> PathBuf {
        self.root.join("networks").join(format!("{name}.json"))
    }

    /// The directory of definitions, made where it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn definitions_dir(&self) -> Result<PathBuf, Error> {
        let folder = self.root.join("networks");
        file::make_dir(&folder)?;
        Ok(folder)
    }

    /// The definition of the network with that name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn definition(&self, name: &Name) -> Result<Option<Network>, Error> {
        Ok(file::read::<Definition>(&self.definition_path(name))?.map(|definition| definition.network))
    }

    /// All definitions; those that cannot be read are set aside, and reported to the log.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn definitions(&self) -> Result<Vec<Network>, Error> {
        let folder = self.root.join("networks");
        let definitions: Vec<Definition> = self.records(&folder)?;
        Ok(definitions.into_iter().map(|definition| definition.network).collect())
    }

    /// Keeps a definition.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn define(&self, network: &Network) -> Result<(), Error> {
        self.definitions_dir()?;
        file::write(
            &self.definition_path(&network.name),
            &Definition { network: network.clone() },
            Durable::Yes,
        )
    }

    /// Forgets a definition.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn undefine(&self, name: &Name) -> Result<(), Error> {
        file::remove_with_rest(&self.definition_path(name))
    }
}
