//! Networks for containers: bridges, addresses, published ports, in network namespaces of Linux.
//!
//! The walk of a connect, each line the module opened next:
//!
//! | module | what it does |
//! |---|---|
//! | `main.rs`, [`start`], [`cli`] | words in, verbs called, words out |
//! | [`cni`] | the same as a CNI plugin: environment and JSON in, verbs called, JSON out |
//! | [`container`], [`page`] | processes of `rnet run`, and what they serve without a command |
//! | [`proxy`] | `rnet proxy`: the host's loopback served by a process, where the kernel's way is closed |
//! | [`agent`] | the long-running part, for names: a process beside, never on the way of a connect |
//! | [`verbs`] | create, connect, disconnect, remove: reserve, apply, commit |
//! | [`store`] | what is remembered: the only place that writes files |
//! | [`cluster`] | what hosts share of overlay networks, in a store that all of them reach |
//! | [`cipher`] | keys of hosts, and who encrypts with whom; pure |
//! | [`ipam`] | which subnet, address, port comes next; pure |
//! | [`drivers`] | what must exist for a network and an endpoint; cannot touch the host |
//! | [`plan`] | the difference between what exists and what must, as steps that can be undone; pure |
//! | [`kernel`] | runs steps and finds resources: the only place that touches the host |
//!
//! ```no_run
//! use rnet::{kernel::Deletion, verbs::{Connect, Mode, Rnet}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut rnet = Rnet::open("/var/lib/rnet".as_ref(), "/run/rnet".as_ref(), Deletion::Wait)?;
//! let mut wanted = Connect::new("bridge", "/proc/4242/ns/net".parse()?);
//! wanted.ports.push("8080:80".parse()?);
//! let connected = rnet.connect(&wanted, Mode::Do)?;
//! println!("{} has {}", connected.endpoint.interface, connected.endpoint.addresses[0]);
//! # Ok(())
//! # }
//! ```

pub mod agent;
pub mod cipher;
pub mod cli;
pub mod cluster;
pub mod cni;
pub mod config;
pub mod container;
pub mod container_ref;
pub mod error;
pub mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod ipam;
pub mod kernel;
pub mod page;
pub mod plan;
pub mod proxy;
pub mod start;
pub mod store;
pub mod verbs;

pub use error::Error;
pub use rnetkit_drivers as drivers;
