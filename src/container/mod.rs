//! Containers without a container engine: a process in namespaces of its own, its files, its end.
//!
//! Nothing here knows what a network is. A caller makes the process ([`spawn::spawn`]), connects the namespace
//! that the process waits in, lets it go ([`spawn::Held::release`]) and stays with it until it ends
//! ([`watch::Running::wait`]):
//!
//! ```no_run
//! # fn main() -> Result<(), rnet::container::SpawnError> {
//! use rnet::container::spawn::{Main, Spec, spawn};
//! let main = Main::Command { program: "ip".into(), args: vec!["address".into()] };
//! let held = spawn(&Spec::new(main))?;
//! let _namespace = held.netns(); // connect it
//! let code = held.release(None)?.wait();
//! # Ok(()) }
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `spawn.rs` | what to start, and the parent's half of starting it |
//! | `exec.rs` | a further command in a container that runs |
//! | `child.rs` | the child's half: from the fork to the command |
//! | `mounts.rs` | what the child mounts |
//! | `watch.rs` | signals passed on, stops followed, descendants ended |
//! | `detach.rs` | a watcher in the background |
//! | `guard.rs` | who is left when a watcher is killed |
//! | `files.rs` | the texts of hosts and resolv.conf |
//! | `options.rs` | words of the command line, parsed once |
//! | `report.rs` | how the child tells what failed, and the errors |

mod child;
pub mod detach;
pub mod exec;
pub mod files;
pub mod guard;
mod mounts;
pub mod options;
mod report;
pub mod spawn;
pub mod watch;

pub use report::SpawnError;
