//! The drivers of rnet: each says what must exist for a network and for its endpoints, and nothing else.
//!
//! This crate cannot touch the host: it is `no_std`, so it has no file, socket, process or clock to reach for.
//! A driver turns a [`Network`] and an [`Endpoint`] into [`Resource`]s in the order of making; the library works
//! out the difference to what exists, makes it so and remembers it.
//!
//! # How to add a driver
//!
//! 1. Write `drivers/NAME.rs` with a type that implements [`Driver`].
//! 2. Add it to [`ALL`].
//!
//! That is all: create, connect, disconnect, rm, `--dry-run`, undo, check and repair follow from the list.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bandwidth;
pub mod bridge;
pub mod child;
mod host;
mod ipvlan;
mod macvlan;
pub mod model;
mod none;
pub mod options;
pub mod overlay;
pub mod port;
mod ptp;
pub mod resource;
pub mod service;

use alloc::vec::Vec;
use core::net::IpAddr;

pub use model::{
    Container, Endpoint, Id, InterfaceName, Invalid, LinkTuning, MacAddress, Name, Network, Pool,
    StaticRoute, SysctlName, Tuning,
};
pub use options::BadOption;
pub use overlay::{Peer, RemoteEndpoint};
pub use port::{PortMapping, PortRange, Protocol, Publication};
pub use resource::{Family, Member, Pace, Place, Resource, Setting};
pub use service::{Balance, Balanced, Share};

/// What a network of a driver is able to do; asked before anything is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Users may create networks of this driver.
    pub creatable: bool,
    /// Containers get an interface, addresses and ports: `connect` is possible.
    pub connectable: bool,
    /// The network gives out addresses from its pools.
    pub addresses: bool,
    /// Containers are on a LAN of the host's: their subnet may be the host's own, and they have no ports of the host.
    pub lan: bool,
}

/// From a network and its endpoints to the list of what must exist, in the order of making.
///
/// The lists must be pure: the same input gives the same list, on any host.
pub trait Driver: Sync {
    /// The name given with `--driver`.
    fn name(&self) -> &'static str;

    /// What networks of this driver can do.
    fn abilities(&self) -> Abilities;

    /// Whether the options are known and make sense together.
    ///
    /// # Errors
    /// The first option that is unknown, malformed, or contradicts another.
    fn check(&self, network: &Network) -> Result<(), BadOption>;

    /// What must exist for the network, whoever is connected.
    ///
    /// # Errors
    /// As [`check`](Driver::check).
    fn network(&self, network: &Network) -> Result<Vec<Resource>, BadOption>;

    /// What must exist for one endpoint, in addition.
    ///
    /// # Errors
    /// As [`check`](Driver::check), for the endpoint's own options too.
    fn endpoint(&self, network: &Network, endpoint: &Endpoint) -> Result<Vec<Resource>, BadOption>;

    /// What the network is to the host: its device, its largest packet, how containers meet the world.
    ///
    /// # Errors
    /// As [`check`](Driver::check).
    fn settings(&self, network: &Network) -> Result<bridge::Settings, BadOption> {
        bridge::Settings::of(network)
    }

    /// What must exist for another host of the network, in addition; nothing where networks stay on one host.
    ///
    /// # Errors
    /// As [`check`](Driver::check).
    fn peer(&self, _: &Network, _: &Peer) -> Result<Vec<Resource>, BadOption> {
        Ok(Vec::new())
    }

    /// The IPv6 address that goes with an IPv4 address, where the two are not chosen independently.
    ///
    /// # Errors
    /// As [`check`](Driver::check).
    fn paired(&self, _: &Network, _: IpAddr) -> Result<Option<IpAddr>, BadOption> {
        Ok(None)
    }

    /// The addresses at which the agent answers the network's containers, and the link on which they ask; nothing
    /// where the network gives no names.
    ///
    /// # Errors
    /// As [`check`](Driver::check).
    fn names(&self, _network: &Network) -> Result<Option<Names>, BadOption> {
        Ok(None)
    }
}

/// Where a network's containers ask for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The link of the host on which they ask, and the only one on which they are answered.
    pub link: InterfaceName,
    /// The host's addresses there, which are the containers' name servers: one a family at most.
    pub servers: Vec<IpAddr>,
}

/// Every driver, in the order in which they are listed to people.
pub static ALL: [&dyn Driver; 7] = [
    &bridge::Bridge,
    &host::Host,
    &ipvlan::IPVLAN,
    &macvlan::MACVLAN,
    &none::None,
    &overlay::Overlay,
    &ptp::Ptp,
];

/// The driver of that name. Docker's own word for `none` is `null`, so both are known.
#[must_use]
pub fn driver(name: &str) -> Option<&'static dyn Driver> {
    let name = if name == "none" { "null" } else { name };
    ALL.into_iter().find(|driver| driver.name() == name)
}

/// What a network is to the host, whichever driver it is of.
///
/// # Errors
/// The first option that is unknown or malformed.
pub fn settings(network: &Network) -> Result<bridge::Settings, BadOption> {
    match driver(&network.driver) {
        Some(driver) => driver.settings(network),
        None => bridge::Settings::of(network),
    }
}
