//! Containers of `rnet run`: what is remembered of them, and what happens when they or their watchers end.

use std::fs;

use rnetkit_drivers::{Id, InterfaceName, Name, Network, Place, Resource};
use serde::{Deserialize, Serialize};

use super::Rnet;
use crate::{
    container_ref::{ContainerRef, Means},
    error::Error,
    kernel::{Kernel, Netns},
    plan::Plan,
    store::{EndpointState, Lock},
};

/// The record's name in the container's directory.
const RECORD: &str = "run.json";

/// A container of `rnet run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: Name,
    /// The command with its arguments; empty for the page.
    pub command: Vec<String>,
    /// When it was made: nanoseconds since 1970 in UTC.
    pub created: u64,
    /// Its main process, once there is one: its number, and when it started in clock ticks since boot
    /// (`/proc/PID/stat`, field 22).
    pub process: Option<(u32, u64)>,
    /// The exit code, once it has ended.
    pub exit: Option<u8>,
    /// Its own network namespace: whatever still runs there when its watcher dies is ended. Nothing where the kernel
    /// cannot tell it from one that comes after it.
    #[serde(default)]
    pub namespace: Option<OwnNetns>,
    /// It is forgotten when it ends.
    pub remove: bool,
    /// Whose network it uses: its own where this is `None`, else `host` or `container:NAME`.
    pub network_of: Option<String>,
}

/// A network namespace, so that no later one is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNetns {
    /// Device and inode.
    pub file: (u64, u64),
    /// [`Netns::cookie`].
    pub cookie: u64,
}

impl OwnNetns {
    /// That of an open namespace, where the kernel can tell.
    #[must_use]
    pub fn of(netns: &Netns) -> Option<Self> {
        Some(Self { file: netns.identity(), cookie: netns.cookie().ok()? })
    }

    /// Ends every process in it: those that a container started and that outlived it.
    fn end_processes(self) {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(processes) = fs::read_dir("/proc") else { return };
        // Held open from the first process that is met: then the inode is nobody else's.
        let mut held = None;
        for entry in processes.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let path = entry.path().join("ns/net");
            let inside = || fs::metadata(&path).is_ok_and(|data| (data.dev(), data.ino()) == self.file);
            if pid == std::process::id() || !inside() {
                continue;
            }
            if held.is_none() {
                let Ok(netns) = Netns::open(&path) else { continue };
                if Self::of(&netns) != Some(self) {
                    continue;
                }
                held = Some(netns);
            }
            if inside() {
                kill(pid);
            }
        }
    }
}

impl ContainerState {
    /// The number of the main process, if it still is that process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let (pid, started) = self.process?;
        (self.exit.is_none() && started_at(pid) == Some(started)).then_some(pid)
    }
}

/// When a process started, in clock ticks since boot.
#[must_use]
pub fn started_at(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so count from its end; the state is the third field. What is
    // dead and not yet buried (Z, X) does not count.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let lives = !matches!(*fields.first()?, "Z" | "X");
    fields.get(19)?.parse().ok().filter(|_| lives)
}

/// A container as lists show it: one of `rnet run`, or a namespace that is connected to networks.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its key in the store.
    pub key: String,
    /// The record of `rnet run`, where it is one of those.
    pub state: Option<ContainerState>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointState>,
}

impl<K: Kernel> Rnet<K> {
    /// The record of a container of `rnet run`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn container_state(&self, container: &ContainerRef) -> Result<Option<ContainerState>, Error> {
        match &container.means {
            Means::Name(name) => self.store.container_record(name.as_str(), RECORD),
            Means::Path(_) | Means::Pid(_) | Means::Cni(_) => Ok(None),
        }
    }

    /// The container that is meant: by its name, or by its id or the beginning of one (four digits at least).
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn resolve(&self, container: &ContainerRef) -> Result<ContainerRef, Error> {
        let Means::Name(name) = &container.means else { return Ok(container.clone()) };
        let text = name.as_str();
        let hex = (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let known = || {
            self.store.container_dir(text).exists()
                || fs::symlink_metadata(format!("/run/netns/{text}")).is_ok()
        };
        if !hex || known() {
            return Ok(container.clone());
        }
        let id = |one: &Container| match (&one.state, one.endpoints.first()) {
            (Some(state), _) => Some(state.id.to_string()),
            (None, Some(state)) => Some(state.endpoint.container.id.to_string()),
            (None, None) => None,
        };
        let mut matching =
            self.containers()?.into_iter().filter(|one| id(one).is_some_and(|id| id.starts_with(text)));
        Ok(match (matching.next(), matching.next()) {
            (Some(one), None) => container.renamed(match one.endpoints.first() {
                Some(state) => state.endpoint.container.name.as_str(),
                None => one.key.as_str(),
            })?,
            _ => container.clone(),
        })
    }

    /// The process and id of a container of `rnet run` that runs.
    pub(super) fn process_of(&self, container: &ContainerRef) -> Result<Option<(u32, Id)>, Error> {
        let Some(state) = self.container_state(container)? else { return Ok(None) };
        match state.pid() {
            Some(pid) => Ok(Some((pid, state.id))),
            None => Err(Error::ContainerNotFound {
                name: container.to_string(),
                reason: ": it is not running".to_owned(),
            }),
        }
    }

    /// Takes a name for a new container. The lock says that its watcher lives.
    ///
    /// # Errors
    /// When a container or a named namespace has the name.
    pub fn begin_container(&mut self, state: &ContainerState) -> Result<Lock, Error> {
        self.wake()?;
        self.reap()?;
        let key = state.name.as_str();
        let taken = || Error::ContainerExists { name: key.to_owned() };
        let _lock = self.store.lock_container(key)?;
        let named = fs::symlink_metadata(format!("/run/netns/{key}")).is_ok();
        if named || self.store.container_record::<ContainerState>(key, RECORD)?.is_some() {
            return Err(taken());
        }
        if !self.store.endpoints_of(key)?.is_empty() {
            return Err(taken());
        }
        let watching = self.store.watch(key)?;
        self.store.set_container_record(key, RECORD, state)?;
        Ok(watching)
    }

    /// Keeps what changed of a container.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update_container(&self, state: &ContainerState) -> Result<(), Error> {
        self.store.set_container_record(state.name.as_str(), RECORD, state)
    }

    /// Disconnects a container that has ended from all its networks, and remembers its end or forgets it.
    ///
    /// # Errors
    /// When a step fails; the next command tries again.
    pub fn end_container(&mut self, state: &ContainerState, exit: u8) -> Result<(), Error> {
        let key = state.name.as_str();
        self.disconnect_all(key)?;
        if state.remove {
            self.store.remove_container(key)?;
        } else {
            let ended = ContainerState { exit: Some(exit), process: None, ..state.clone() };
            self.update_container(&ended)?;
        }
        self.store.unwatch(key)
    }

    /// Forgets a container that has ended.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_container(&mut self, state: &ContainerState) -> Result<(), Error> {
        self.disconnect_all(state.name.as_str())?;
        self.store.remove_container(state.name.as_str())
    }

    /// Disconnects a container from every network that it is in.
    pub(super) fn disconnect_all(&mut self, key: &str) -> Result<(), Error> {
        let mut used: Vec<Network> = Vec::new();
        {
            let _lock = self.store.lock_container(key)?;
            for state in self.store.endpoints_of(key)? {
                if let Some(pending) = self.store.recall(&state.endpoint.network, key)? {
                    self.unmake_in(pending)?;
                    used.extend(self.store.network_state(&state.endpoint.network)?.map(|made| made.network));
                }
            }
        }
        used.iter().try_for_each(|network| self.down_if_unused(network))
    }

    /// Ends what remains of containers whose watchers were killed.
    ///
    /// # Errors
    /// When records cannot be read, or a step fails.
    pub fn reap(&mut self) -> Result<usize, Error> {
        self.recover()?;
        let Some(_alone) = self.store.lock_abandoned()? else { return Ok(0) };
        let abandoned = self.store.abandoned()?;
        let count = abandoned.len();
        for (key, _lock) in abandoned {
            match self.container_record(&key)? {
                Some(state) if state.exit.is_none() => {
                    if let Some(pid) = state.pid() {
                        kill(pid);
                    }
                    state.namespace.into_iter().for_each(OwnNetns::end_processes);
                    // What a shell says of a process that was killed (128 + SIGKILL). Its log stays, where it is not
                    // to go with it.
                    self.end_container(&state, 137)?;
                }
                Some(_) => self.store.unwatch(&key)?,
                None => self.end_unknown(&key)?,
            }
        }
        Ok(count)
    }

    /// Ends what remains of a container whose record was lost. Its main process ended with the watcher; what else it
    /// had started stays, without a network: nothing says any more which processes those are.
    fn end_unknown(&mut self, key: &str) -> Result<(), Error> {
        self.disconnect_all(key)?;
        self.store.remove_container(key)?;
        self.store.unwatch(key)
    }

    /// The record of a container; one that is damaged is set aside and logged, as if there were none.
    fn container_record(&self, key: &str) -> Result<Option<ContainerState>, Error> {
        match self.store.container_record(key, RECORD) {
            Err(error @ Error::Damaged { .. }) => {
                tracing::warn!("{error}");
                Ok(None)
            }
            record => record,
        }
    }

    /// All containers: those of `rnet run`, and namespaces that are connected to networks.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>, Error> {
        let mut list = Vec::new();
        for key in self.store.container_keys()? {
            let state = self.container_record(&key)?;
            let endpoints = self.store.endpoints_of(&key)?;
            if state.is_some() || !endpoints.is_empty() {
                list.push(Container { key, state, endpoints });
            }
        }
        Ok(list)
    }
}

impl<K: Kernel<Netns = Netns>> Rnet<K> {
    /// Brings the loopback interface of a namespace without networks up.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn bring_loopback_up(&mut self, netns: std::os::fd::OwnedFd) -> Result<(), Error> {
        let netns =
            Netns::from_file(netns).map_err(|refusal| Error::kernel("enter a network namespace", refusal))?;
        let up = Resource::Up { place: Place::Container, link: InterfaceName::loopback() };
        self.kernel.apply(&Plan::between(&[], &[up]), Some(&netns))
    }
}

/// Ends a process that lost its watcher. Its number was compared with its start a moment ago; a pidfd makes sure that
/// no other process got the number since.
pub(super) fn kill(pid: u32) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let before = started_at(pid);
    if let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Ok(process) = pidfd_open(number, PidfdFlags::empty())
        && started_at(pid) == before
    {
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}
