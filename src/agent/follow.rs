//! Follows the records of networks by `inotify(7)`, without waking anybody where nobody asks. Never reads a record.
//!
//! The kernel queues an event before the call that causes it returns. Whoever drains the queue after something was
//! asked thus knows of everything that was recorded before it was asked.

use std::{collections::HashMap, ffi::CStr, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rnetkit_drivers::Id;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use crate::{error::Error, store::Store};

/// How much is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Which networks there are, and what each is.
    Networks,
    /// Their endpoints too.
    Endpoints,
    /// And what they have on other hosts.
    Far,
}

/// What may be different since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A network came, went, or is another than before.
    Network(Id),
    /// Every endpoint of a network.
    Endpoints(Id),
    /// The endpoints that a network has on other hosts.
    Far(Id),
    /// An endpoint came, went, or is another than before: the network and the container's key.
    Endpoint(Id, String),
    /// More than the kernel could queue: everything.
    Everything,
}

#[derive(Debug, Clone, Copy)]
enum Watched {
    All,
    Network(Id),
    Endpoints(Id),
    Far(Id),
}

/// The end of the queue.
#[derive(Debug)]
pub struct Follower {
    queue: OwnedFd,
    depth: Depth,
    watched: HashMap<i32, Watched>,
    store: Store,
}

impl std::os::fd::AsFd for Follower {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Renames, links and removals of records; records are never written in place.
const EVENTS: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

impl Follower {
    /// Begins to follow. What is recorded already has to be read by the caller, afterwards.
    ///
    /// # Errors
    /// When the kernel has no more watches to give, or the directory cannot be made.
    pub fn new(store: &Store, depth: Depth) -> Result<Self, Error> {
        let folder = store.networks_dir()?;
        let failed = |errno: Errno| Error::store(&folder, errno);
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(failed)?;
        let mut follower = Self { queue, depth, watched: HashMap::new(), store: store.clone() };
        follower.watch(&folder, Watched::All).map_err(failed)?;
        follower.watch_networks();
        Ok(follower)
    }

    /// What changed since the last call; nothing where nothing did.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub fn changes(&mut self) -> io::Result<Vec<Change>> {
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.queue, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let name = event.file_name().and_then(|name| CStr::to_str(name).ok()).map(str::to_owned);
            events.push((event.wd(), event.events(), name));
        }
        let mut changes = Vec::new();
        events.iter().for_each(|(watch, flags, name)| {
            self.note(*watch, *flags, name.as_deref(), &mut changes);
        });
        Ok(changes)
    }

    /// The queue, to be waited for by a runtime.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn queue(&self) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an owned descriptor is open, and the same, for as long as it is owned.
        Ok(unsafe { AsyncFd::register(self.queue.try_clone()?) }?)
    }

    fn note(&mut self, watch: i32, flags: ReadFlags, name: Option<&str>, changes: &mut Vec<Change>) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            changes.push(Change::Everything);
            return;
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.watched.remove(&watch);
            return;
        }
        let (Some(watched), Some(name)) = (self.watched.get(&watch).copied(), name) else { return };
        let change = match watched {
            Watched::All => name.parse().ok().map(|id| {
                self.watch_network(&id);
                Change::Network(id)
            }),
            Watched::Network(id) => match name {
                "endpoints" => {
                    self.watch_network(&id);
                    Some(Change::Endpoints(id))
                }
                "state.json" => Some(Change::Network(id)),
                "far" => {
                    self.watch_network(&id);
                    (self.depth >= Depth::Far).then_some(Change::Far(id))
                }
                _ => None,
            },
            Watched::Far(id) => (name == "names.json").then_some(Change::Far(id)),
            Watched::Endpoints(id) => record(name).map(|key| Change::Endpoint(id, key.to_owned())),
        };
        changes.extend(change.filter(|change| changes.last() != Some(change)));
    }

    /// Follows every network that is recorded now; needed again only where more happened than the kernel could queue.
    pub fn watch_networks(&mut self) {
        match self.store.network_ids() {
            Ok(ids) => ids.iter().for_each(|id| self.watch_network(id)),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// A directory that is gone again needs no watch.
    fn watch_network(&mut self, id: &Id) {
        let endpoints = self.store.endpoints_dir(id);
        let Some(folder) = endpoints.parent() else { return };
        let far = self.store.far_dir(id);
        let all = [
            (Depth::Networks, folder, Watched::Network(*id)),
            (Depth::Endpoints, &endpoints, Watched::Endpoints(*id)),
            (Depth::Far, &far, Watched::Far(*id)),
        ];
        let depth = self.depth;
        for (_, folder, what) in all.into_iter().filter(|(of, ..)| *of <= depth) {
            match self.watch(folder, what) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => tracing::warn!("cannot follow network {}: {errno}", id.short()),
            }
        }
    }

    fn watch(&mut self, folder: &Path, what: Watched) -> Result<(), Errno> {
        let watch = inotify::add_watch(&self.queue, folder, EVENTS)?;
        self.watched.insert(watch, what);
        Ok(())
    }
}

/// The key of a record by its file name; what is being written beside one begins with a dot.
fn record(name: &str) -> Option<&str> {
    name.strip_suffix(".json").filter(|key| !key.starts_with('.'))
}
