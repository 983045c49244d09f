//! The verbs: each reserves, applies and commits, with the same few pieces. They print nothing, read no
//! environment, and need no runtime.

mod addresses;
mod connect;
mod containers;
mod disconnect;
mod doctor;
mod extend;
mod keep;
mod life;
#[cfg(test)]
pub(crate) mod model;
mod names;
mod networks;
mod overlay;
mod owned;
mod ports;
mod proxied;
mod services;
mod strays;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

pub use connect::{Connect, Connected, Mode};
pub use containers::{Container, ContainerState, OwnNetns, started_at};
pub use doctor::{Finding, Verdict};
pub use extend::{Less, More};
pub use keep::{Difference, Garbage, What};
pub use names::{check_alias, name_servers};
pub use networks::{BUILTIN, CreateNetwork, is_builtin};
pub use overlay::Shared;
pub use proxied::{Carrier, Proxied, Served};
use rnetkit_drivers::{Driver, Id, Network};

use crate::{
    error::{Error, shown},
    kernel::{Deletion, Kernel, Linux},
    store::{EndpointState, Store},
};

/// A host's networks: what is remembered of them, and the kernel that has them.
pub struct Rnet<K> {
    store: Store,
    kernel: K,
    made_network: bool,
    shared: Option<Box<dyn Shared>>,
}

impl Rnet<Linux> {
    /// The networks of this host, remembered in these directories (`/var/lib/rnet` and `/run/rnet` for the command).
    ///
    /// # Errors
    /// When a directory is not safe to use, or what is in it cannot be read.
    pub fn open(root: &Path, run: &Path, deletion: Deletion) -> Result<Self, Error> {
        Self::open_in(Store::open(root, run)?, deletion)
    }

    /// The networks of this host, remembered in that store.
    ///
    /// # Errors
    /// When what is in it cannot be read.
    pub fn open_in(store: Store, deletion: Deletion) -> Result<Self, Error> {
        let table = store.table()?;
        let kernel =
            Linux::new(table, deletion).map_err(|refusal| Error::kernel("look at /proc", refusal))?;
        let sandboxes = store.sandboxes_dir();
        let client = crate::agent::overlay::Client::new(store.clone());
        Ok(Self::new(store, kernel.with_sandboxes(sandboxes)).with_cluster(Box::new(client)))
    }
}

impl<K: Kernel> Rnet<K> {
    /// The networks that the store remembers, on that kernel.
    pub fn new(store: Store, kernel: K) -> Self {
        Self { store, kernel, made_network: false, shared: None }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether a verb made a network's own objects since these networks were opened: then who answers for it has
    /// to be told.
    #[must_use]
    pub fn made_network(&self) -> bool {
        self.made_network
    }

    /// The kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    fn driver(network: &Network) -> Result<&'static dyn Driver, Error> {
        driver(&network.driver)
    }

    /// The endpoints of a network that are ready.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn endpoints(&self, network: &Network) -> Result<Vec<EndpointState>, Error> {
        self.store.endpoints(&network.id)
    }
}

/// The driver of that name.
///
/// # Errors
/// When there is none.
pub fn driver(name: &str) -> Result<&'static dyn Driver, Error> {
    rnetkit_drivers::driver(name).ok_or_else(|| {
        let known: Vec<&str> = rnetkit_drivers::ALL.iter().map(|driver| driver.name()).collect();
        Error::DriverNotFound { name: shown(name), known: known.join(", ") }
    })
}

/// Nanoseconds since 1970 in UTC.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds since the host was started; unlike the time of day it only goes forward.
pub(crate) fn uptime() -> u64 {
    #[cfg(test)]
    if let Some(passed) = model::passed() {
        return passed;
    }
    u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec).unwrap_or(0)
}

/// A new id.
///
/// # Errors
/// When the kernel has no random numbers.
pub fn new_id() -> Result<Id, Error> {
    #[cfg(test)]
    if let Some(id) = model::id() {
        return Ok(id);
    }
    let mut bytes = [0; 32];
    let failed = |errno: rustix::io::Errno| Error::kernel("get random numbers", errno.into());
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(failed)?;
    Ok(Id(bytes))
}
