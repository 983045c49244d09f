//! What the agent keeps in the run directory: its lock and its socket; and what it reads: the administrator's file.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use rnetkit_drivers::Id;
use serde::{Deserialize, Serialize};

use super::{
    Lock, Store,
    file::{self, Durable},
};
use crate::{config::Config, error::Error};

/// No configuration is longer, in bytes.
const LONGEST_CONFIG: u64 = 1 << 20;

impl Store {
    /// Where the agent is asked.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// The lock that the one agent of this run directory holds as long as it lives; `None` where another has it.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn lock_agent(&self) -> Result<Option<Lock>, Error> {
        self.only_one("agent.lock")
    }

    /// The lock of a file in the run directory, made for that, if nobody has it.
    pub(super) fn only_one(&self, name: &str) -> Result<Option<Lock>, Error> {
        file::make_dir(&self.run)?;
        let path = self.run.join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW);
        options.open(&path).map_err(|error| Error::store(&path, error))?;
        file::try_lock(&path)
    }

    /// Removes the agent's socket. The caller holds the agent's lock.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_agent_socket(&self) -> Result<(), Error> {
        file::remove(&self.agent_socket())
    }

    /// Removes the lock's file. The caller holds the lock, and what others lock from now on is another file.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_agent_lock(&self) -> Result<(), Error> {
        file::remove(&self.run.join("agent.lock"))
    }

    /// The directory of all networks that were made here, itself made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn networks_dir(&self) -> Result<PathBuf, Error> {
        let folder = self.run.join("networks");
        file::make_dir(&folder)?;
        Ok(folder)
    }

    /// The directory of a network's endpoints that are ready.
    #[must_use]
    pub fn endpoints_dir(&self, network: &Id) -> PathBuf {
        self.network_dir(network).join("endpoints")
    }

    /// What the administrator wrote in `config.toml`; the defaults where there is no such file.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub fn config(&self) -> Result<Config, Error> {
        let path = self.root.join("config.toml");
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            file => file.map_err(|error| Error::store(&path, error))?,
        };
        let mut text = String::new();
        file.take(LONGEST_CONFIG).read_to_string(&mut text).map_err(|error| Error::store(&path, error))?;
        let config = text.parse::<Config>().map_err(|reason| Error::Config { path, reason })?;
        Ok(config.of(&self.root))
    }

    /// Which cluster this host is of, and how far it had seen it.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn cluster_record(&self) -> Result<Option<ClusterRecord>, Error> {
        file::read(&self.root.join("cluster.json"))
    }

    /// Remembers it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_cluster_record(&self, record: &ClusterRecord) -> Result<(), Error> {
        file::make_dir(&self.root)?;
        file::write(&self.root.join("cluster.json"), record, Durable::No)
    }
}

/// Which cluster a host is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster's id.
    pub cluster: Id,
    /// The revision of the store up to which it was seen.
    pub revision: i64,
}
