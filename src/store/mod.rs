//! What rnet remembers. The only place that writes files.
//!
//! ```text
//! ROOT (survives a reboot)                      RUN (dies with the kernel's objects)
//!   host.json        who this host is             host.json          what was made for all networks
//!   networks/NAME.json  definitions               networks/ID/state.json      what was made for the network
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

mod file;
mod pool;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use file::Durable;
pub use file::Lock;
use ipnetwork::IpNetwork;
pub use pool::Numbers;
use rnetkit_drivers::{Endpoint, Id, Name, Network, Protocol, Resource};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{error::Error, ipam, kernel::TableName};

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

/// An endpoint, and what was made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The key of its container.
    pub key: String,
    /// The network's name.
    pub network: Name,
    /// Who asked for it: `rnet`, or the name of an orchestrator.
    pub owner: String,
    /// When: nanoseconds since 1970 in UTC.
    pub created: u64,
    /// What was made, or may have been, in order.
    pub made: Vec<Resource>,
}

/// An endpoint in the making or unmaking, locked.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    /// The record.
    pub state: EndpointState,
    _lock: Lock,
}

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
        file::make_dir(&self.root.join("networks"))?;
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
}

/// What was made for all networks, and for each.
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
        let ports = self.run.join("ports");
        match fs::remove_dir_all(&ports) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::store(ports, error));
            }
            _ => {}
        }
        file::remove_with_rest(&self.run.join("host.json"))
    }

    /// Forgets everything that died with an earlier life of the host.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn forget_life(&self) -> Result<(), Error> {
        for part in ["networks", "pending", "containers", "running", "ports"] {
            let path = self.run.join(part);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::store(path, error));
                }
                _ => {}
            }
        }
        self.clear_host_state()
    }

    /// Removes both directories' contents: rnet was never here.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn erase(&self) -> Result<(), Error> {
        self.forget_life()?;
        for (folder, names) in [(&self.run, &[".lock"][..]), (&self.root, &["host.json", ".lock"][..])] {
            names.iter().try_for_each(|name| file::remove_with_rest(&folder.join(name)))?;
        }
        let definitions = self.root.join("networks");
        match fs::remove_dir_all(&definitions) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::store(definitions, error))
            }
            _ => Ok(()),
        }
    }

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
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::store(folder, error)),
            _ => Ok(()),
        }
    }

    /// What was made for every network.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn network_states(&self) -> Result<Vec<NetworkState>, Error> {
        let mut list = Vec::new();
        for name in file::names(&self.run.join("networks"))? {
            if let Ok(id) = name.parse() {
                list.extend(self.network_state(&id)?);
            }
        }
        Ok(list)
    }
}

/// Endpoints.
impl Store {
    /// Locks a container: one command at a time works on it.
    ///
    /// # Errors
    /// When another process does not let go of it.
    pub fn lock_container(&self, key: &str) -> Result<Lock, Error> {
        file::lock_dir(&self.container_dir(key), &format!("container {key}"))
    }

    /// Locks a container, if no command is at work on it.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn try_lock_container(&self, key: &str) -> Result<Option<Lock>, Error> {
        let folder = self.container_dir(key);
        file::make_dir(&folder)?;
        file::try_lock(&folder)
    }

    /// Removes the directory of a container that is in no network any more. The caller holds its lock.
    pub fn leave_container(&self, key: &str) {
        let _ = fs::remove_dir(self.container_dir(key));
    }

    /// The keys of all containers.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn container_keys(&self) -> Result<Vec<String>, Error> {
        file::names(&self.run.join("containers"))
    }

    /// The endpoints of a container, ready ones only.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn endpoints_of(&self, key: &str) -> Result<Vec<EndpointState>, Error> {
        let mut list = Vec::new();
        for name in file::names(&self.container_dir(key))? {
            if let Ok(network) = name.parse::<Id>() {
                list.extend(self.endpoint(&network, key)?);
            }
        }
        Ok(list)
    }

    /// The endpoint of a container in a network.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn endpoint(&self, network: &Id, key: &str) -> Result<Option<EndpointState>, Error> {
        file::read(&self.endpoint_path(network, key))
    }

    /// The endpoints of a network, ready ones only.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn endpoints(&self, network: &Id) -> Result<Vec<EndpointState>, Error> {
        self.records(&self.network_dir(network).join("endpoints"))
    }

    /// Whether a network has any endpoint, ready or not.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub fn has_endpoints(&self, network: &Id) -> Result<bool, Error> {
        if file::has_any(&self.network_dir(network).join("endpoints"))? {
            return Ok(true);
        }
        Ok(self.pending_states()?.iter().any(|state| state.endpoint.network == *network))
    }

    /// Replaces the record of an endpoint that is ready.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update(&self, state: &EndpointState) -> Result<(), Error> {
        file::write(&self.endpoint_path(&state.endpoint.network, &state.key), state, Durable::No)
    }

    fn pending_path(&self, id: &Id) -> PathBuf {
        self.run.join("pending").join(format!("{id}.json"))
    }

    /// Reserves: from now on the record names everything that may come to exist.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reserve(&self, state: EndpointState) -> Result<Pending, Error> {
        let path = self.pending_path(&state.endpoint.id);
        let lock = match file::write_locked(&path, &state) {
            Err(Error::Store { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                file::make_dir(&self.run.join("pending"))?;
                file::write_locked(&path, &state)?
            }
            lock => lock?,
        };
        Ok(Pending { path, state, _lock: lock })
    }

    /// Commits: the endpoint is ready.
    ///
    /// # Errors
    /// When the record cannot be moved; it is still pending then.
    pub fn commit(&self, pending: &Pending) -> Result<(), Error> {
        let state = &pending.state;
        let marker = self.marker(&state.key, &state.endpoint.network);
        fs::write(&marker, "").map_err(|error| Error::store(&marker, error))?;
        let place = self.endpoint_path(&state.endpoint.network, &state.key);
        file::rename_new(&pending.path, &place).map_err(|error| Error::store(place, error))
    }

    /// Begins to remove an endpoint: its record is pending again. `None` where there is none.
    ///
    /// # Errors
    /// When the record cannot be read or moved.
    pub fn recall(&self, network: &Id, key: &str) -> Result<Option<Pending>, Error> {
        let place = self.endpoint_path(network, key);
        let Some((lock, state)) = file::lock_dead::<EndpointState>(&place)? else { return Ok(None) };
        let path = self.pending_path(&state.endpoint.id);
        file::make_dir(&self.run.join("pending"))?;
        fs::rename(&place, &path).map_err(|error| Error::store(place, error))?;
        Ok(Some(Pending { path, state, _lock: lock }))
    }

    /// Forgets an endpoint that is unmade.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub fn forget(&self, pending: Pending) -> Result<(), Error> {
        let (key, network) = (&pending.state.key, &pending.state.endpoint.network);
        // The container may be in the network again, with a newer endpoint.
        if !self.endpoint_path(network, key).exists() {
            file::remove(&self.marker(key, network))?;
        }
        file::remove(&pending.path)
    }

    /// The endpoints in the making or unmaking, dead or alive: their ids, and the keys of their containers.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn pending(&self) -> Result<Vec<(Id, String)>, Error> {
        if !file::has_any(&self.run.join("pending"))? {
            return Ok(Vec::new());
        }
        Ok(self.pending_states()?.into_iter().map(|state| (state.endpoint.id, state.key)).collect())
    }

    /// The record of an endpoint that a dead process left in the making or unmaking.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn dead(&self, id: &Id) -> Result<Option<Pending>, Error> {
        let path = self.pending_path(id);
        let found = file::lock_dead(&path)?;
        Ok(found.map(|(lock, state)| Pending { path, state, _lock: lock }))
    }

    /// All endpoints in the making or unmaking, whoever is at work on them.
    fn pending_states(&self) -> Result<Vec<EndpointState>, Error> {
        self.records(&self.run.join("pending"))
    }

    /// Every endpoint of a network, also those in the making or unmaking.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub fn all_endpoints(&self, network: &Id) -> Result<Vec<EndpointState>, Error> {
        let mut list = self.endpoints(network)?;
        list.extend(self.pending_states()?.into_iter().filter(|state| state.endpoint.network == *network));
        Ok(list)
    }

    /// Every endpoint of every network.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub fn every_endpoint(&self) -> Result<Vec<EndpointState>, Error> {
        let mut list = self.pending_states()?;
        for name in file::names(&self.run.join("networks"))? {
            if let Ok(id) = name.parse() {
                list.extend(self.endpoints(&id)?);
            }
        }
        Ok(list)
    }
}

/// Addresses and ports.
impl Store {
    /// Works on the taken addresses of a pool and keeps the outcome. The caller holds the network's lock.
    ///
    /// # Errors
    /// When the file cannot be read or written, or what `work` says.
    pub fn with_addresses<T>(
        &self,
        network: &Id,
        pool: &IpNetwork,
        size: u32,
        now: u64,
        work: impl FnOnce(&mut Numbers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_numbers(&self.addresses_path(network, pool), size, now, work)
    }

    /// Looks at the taken addresses of a pool, and keeps nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn addresses(&self, network: &Id, pool: &IpNetwork, size: u32, now: u64) -> Result<Numbers, Error> {
        Numbers::open(&self.addresses_path(network, pool), size, now)
    }

    fn addresses_path(&self, network: &Id, pool: &IpNetwork) -> PathBuf {
        self.network_dir(network).join(format!("pool-{}", pool.to_string().replace(['/', ':'], "_")))
    }

    /// Looks at the published ports of an address, and keeps nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ports(&self, address: IpAddr, protocol: Protocol, now: u64) -> Result<Numbers, Error> {
        Numbers::open(&self.ports_path(address, protocol), ipam::WINDOW, now)
    }

    fn ports_path(&self, address: IpAddr, protocol: Protocol) -> PathBuf {
        self.run.join("ports").join(format!("{protocol}-{}", address.to_string().replace(':', "_")))
    }

    /// Locks the list of published ports: from the choice of ports until the record that names them is written.
    ///
    /// # Errors
    /// When another process does not let go of it.
    pub fn lock_ports(&self) -> Result<Lock, Error> {
        file::lock_dir(&self.run.join("ports"), "the list of published ports")
    }

    /// Works on the published ports of an address and keeps the outcome. The caller holds their lock.
    ///
    /// # Errors
    /// When the file cannot be read or written, or what `work` says.
    pub fn with_ports<T>(
        &self,
        address: IpAddr,
        protocol: Protocol,
        now: u64,
        work: impl FnOnce(&mut Numbers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_numbers(&self.ports_path(address, protocol), ipam::WINDOW, now, work)
    }

    fn with_numbers<T>(
        &self,
        path: &Path,
        size: u32,
        now: u64,
        work: impl FnOnce(&mut Numbers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut numbers = Numbers::open(path, size, now)?;
        let result = work(&mut numbers)?;
        numbers.save(path)?;
        Ok(result)
    }
}

/// Files of `rnet run`, in the container's directory; and in `running`, a file for each that its watcher locks.
impl Store {
    /// Says that a watcher looks after the container, as long as the lock is held.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn watch(&self, key: &str) -> Result<Lock, Error> {
        let folder = self.run.join("running");
        file::make_dir(&folder)?;
        file::lock(&folder.join(key), &format!("container {key}"))
    }

    /// Waits until no watcher looks after the container any more.
    ///
    /// # Errors
    /// When the watcher does not end.
    pub fn wait_unwatched(&self, key: &str) -> Result<(), Error> {
        let path = self.run.join("running").join(key);
        if path.exists() { file::lock_existing(&path, &format!("container {key}")).map(drop) } else { Ok(()) }
    }

    /// Says that nothing is left to look after.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn unwatch(&self, key: &str) -> Result<(), Error> {
        file::remove(&self.run.join("running").join(key))
    }

    /// The containers whose watchers died, locked against others who would clean up too.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn abandoned(&self) -> Result<Vec<(String, Lock)>, Error> {
        let folder = self.run.join("running");
        let mut list = Vec::new();
        for key in file::names(&folder)? {
            let lock = file::try_lock(&folder.join(&key))?;
            list.extend(lock.map(|lock| (key, lock)));
        }
        Ok(list)
    }

    /// Reads a record of a container.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn container_record<T: DeserializeOwned>(&self, key: &str, name: &str) -> Result<Option<T>, Error> {
        file::read(&self.container_dir(key).join(name))
    }

    /// Writes a record of a container.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_container_record<T: Serialize>(&self, key: &str, name: &str, record: &T) -> Result<(), Error> {
        file::write(&self.container_dir(key).join(name), record, Durable::No)
    }

    /// Writes a plain text file of a container, and says where it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_container_text(&self, key: &str, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.container_dir(key).join(name);
        fs::write(&path, text).map_err(|error| Error::store(&path, error))?;
        Ok(path)
    }

    /// Removes everything of a container that is in no network any more.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_container(&self, key: &str) -> Result<(), Error> {
        let folder = self.container_dir(key);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::store(folder, error)),
            _ => Ok(()),
        }
    }
}
