//! What rnet remembers. The only place that writes files.
//!
//! ```text
//! ROOT (survives a reboot)                      RUN (dies with the kernel's objects)
//!   host.json        who this host is             host.json          what was made for all networks
//!   networks/NAME.json  definitions               networks/ID/state.json      what was made for the network
//!   config.toml      the administrator's wishes   agent.lock, agent.sock      the one agent, and where it is asked
//!   cipher-key.json  what it encrypts with        cipher.lock, cipher.json    the one process that encrypts, and for whom
//!                                                 networks/ID/endpoints/KEY.json  its endpoints, ready
//!                                                 networks/ID/pool-N          which addresses are taken
//!                                                 pending/ENDPOINT.json       endpoints in the making or unmaking
//!                                                 containers/KEY/NETWORK      which networks a container is in
//!                                                 containers/KEY/run.json     a container of rnet run, beside its files
//!                                                 running/KEY                 locked while its watcher lives
//!                                                 ports/PROTOCOL-ADDRESS      which ports are published
//! ```
//!
//! A record in `pending` is locked by the process at work on it. One that can be locked belongs to a dead process,
//! and whoever meets it takes it back. Moving it to its network says "ready"; moving it back says "to be removed".

mod agent;
mod cipher;
mod containers;
mod definitions;
mod endpoints;
mod file;
mod host;
mod leases;
mod networks;
mod pool;

use std::path::{Path, PathBuf};

pub use agent::ClusterRecord;
pub use definitions::Identity;
pub use endpoints::{EndpointState, Pending, Watch};
pub use file::Lock;
pub use host::{HostState, Life};
pub use networks::{Far, NetworkState};
pub use pool::Numbers;
use rnetkit_drivers::Id;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The two directories.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    run: PathBuf,
}

impl Store {
    /// The store in these directories, which are made when first written to.
    ///
    /// # Errors
    /// When a directory could be tampered with by others.
    pub fn open(root: &Path, run: &Path) -> Result<Self, Error> {
        file::check_dir(root)?;
        file::check_dir(run)?;
        Ok(Self { root: root.into(), run: run.into() })
    }

    /// The run directory.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// The directory in which sandboxes have their names. The kernel's part of rnet makes it and what is in it.
    #[must_use]
    pub fn sandboxes_dir(&self) -> PathBuf {
        self.run.join("netns")
    }

    fn network_dir(&self, id: &Id) -> PathBuf {
        self.run.join("networks").join(id.to_string())
    }

    fn endpoint_path(&self, network: &Id, key: &str) -> PathBuf {
        self.network_dir(network).join("endpoints").join(format!("{key}.json"))
    }

    /// The directory of a container: the networks that it is in, and files of `rnet run`.
    #[must_use]
    pub fn container_dir(&self, key: &str) -> PathBuf {
        self.run.join("containers").join(key)
    }

    fn marker(&self, key: &str, network: &Id) -> PathBuf {
        self.container_dir(key).join(network.to_string())
    }

    /// All records of a directory; the damaged ones are set aside and logged, and stop nobody.
    fn records<T: DeserializeOwned>(&self, folder: &Path) -> Result<Vec<T>, Error> {
        let mut list = Vec::new();
        for name in file::names(folder)?.iter().filter(|name| name.ends_with(".json")) {
            match file::read(&folder.join(name)) {
                Ok(record) => list.extend(record),
                Err(error @ (Error::Damaged { .. } | Error::Newer { .. })) => tracing::warn!("{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    /// The damaged records that were set aside.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn set_aside(&self) -> Result<Vec<PathBuf>, Error> {
        let mut list = file::damaged(&self.root.join("networks"))?;
        list.extend(file::damaged(&self.root)?);
        list.extend(self.set_aside_in_run()?);
        Ok(list)
    }

    /// Removes the damaged records of what dies with a reboot: what they stood for is taken back by what the kernel
    /// itself says of it. Definitions stay for their owner to look at.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn clear_set_aside(&self) -> Result<Vec<PathBuf>, Error> {
        let list = self.set_aside_in_run()?;
        list.iter().try_for_each(|path| file::remove(path))?;
        Ok(list)
    }

    /// Removes what killed writers left beside their records.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear_rest(&self) -> Result<(), Error> {
        let own = [self.root.clone(), self.root.join("networks")];
        self.run_folders()?.iter().chain(&own).try_for_each(|folder| file::clear_rest(folder))
    }

    fn set_aside_in_run(&self) -> Result<Vec<PathBuf>, Error> {
        self.run_folders()?
            .iter()
            .map(|folder| file::damaged(folder))
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.concat())
    }

    /// The directories in which there are records of what was made.
    fn run_folders(&self) -> Result<Vec<PathBuf>, Error> {
        let mut folders = vec![self.run.clone(), self.run.join("pending")];
        for name in file::names(&self.run.join("networks"))? {
            let folder = self.run.join("networks").join(name);
            folders.extend([folder.join("endpoints"), folder]);
        }
        for key in file::names(&self.run.join("containers"))? {
            folders.push(self.run.join("containers").join(key));
        }
        Ok(folders)
    }

    /// Whether a record of what was made is of a newer rnet, which this one cannot read.
    ///
    /// # Errors
    /// When one cannot be read at all.
    pub fn has_newer(&self) -> Result<bool, Error> {
        for folder in self.run_folders()? {
            for name in file::names(&folder)?.iter().filter(|name| name.ends_with(".json")) {
                if file::is_newer(&folder.join(name))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
