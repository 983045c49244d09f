//! Endpoints: reserved, ready, recalled, forgotten.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rnetkit_drivers::{Endpoint, Id, Name, Resource};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Store,
    file::{self, Durable, Lock},
};
use crate::error::Error;

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

/// Endpoints.
/// A record that is watched: it is replaced or renamed, never written in place.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    events: OwnedFd,
}

impl Watch {
    fn new(path: &Path) -> Result<Option<Self>, Error> {
        let fail = |errno: rustix::io::Errno| Error::store(path, std::io::Error::from(errno));
        let events = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(fail)?;
        let what =
            inotify::WatchFlags::MOVE_SELF | inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::ATTRIB;
        match inotify::add_watch(&events, path, what) {
            Ok(_) => Ok(Some(Self { path: path.to_owned(), events })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(fail(errno)),
        }
    }

    /// Returns once something happened to one of the records.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn wait_any(watches: &[Self]) -> Result<(), Error> {
        let mut events: Vec<PollFd<'_>> =
            watches.iter().map(|watch| PollFd::new(&watch.events, PollFlags::IN)).collect();
        loop {
            match poll(&mut events, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => {
                    let path = watches.first().map(|watch| watch.path.clone()).unwrap_or_default();
                    return Err(Error::store(path, std::io::Error::from(errno)));
                }
            }
        }
    }
}

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

    /// The folder with the files that a container sees in /etc.
    #[must_use]
    pub fn names_dir(&self, key: &str) -> PathBuf {
        self.container_dir(key).join("etc")
    }

    /// Writes the resolv.conf that a container sees: in place, for those that see it already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_names(&self, key: &str, text: &str) -> Result<(), Error> {
        let folder = self.names_dir(key);
        file::make_dir(&folder)?;
        let path = folder.join("resolv.conf");
        fs::write(&path, text).map_err(|error| Error::store(path, error))
    }

    /// Removes what a container sees.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_names(&self, key: &str) -> Result<(), Error> {
        let folder = self.names_dir(key);
        file::remove(&folder.join("resolv.conf"))?;
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::store(folder, error)),
            _ => Ok(()),
        }
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

    /// Watches the record of an endpoint; `None` where there is none.
    ///
    /// # Errors
    /// When the kernel refuses to watch.
    pub fn watch_endpoint(&self, network: &Id, key: &str) -> Result<Option<Watch>, Error> {
        Watch::new(&self.endpoint_path(network, key))
    }

    /// What of an endpoint's record a reader wants; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn endpoint_part<T: DeserializeOwned>(&self, network: &Id, key: &str) -> Result<Option<T>, Error> {
        file::read(&self.endpoint_path(network, key))
    }

    /// The keys of the containers that are in a network.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn endpoint_keys(&self, network: &Id) -> Result<Vec<String>, Error> {
        let names = file::names(&self.endpoints_dir(network))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned).collect())
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
        let record = self.endpoint_path(network, key);
        if !record.exists() {
            file::remove_rest(&record)?;
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
