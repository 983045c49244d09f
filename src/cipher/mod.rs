//! What hosts of a cluster say to each other for encrypted networks, in cipher: WireGuard between every two hosts, in a
//! process of its own that outlives the agent. Never sends anything in clear, and never decides who the other hosts are.
//!
//! ```text
//!  vx0 (VXLAN, port 4799) ── host's routes ── rnet-wg ── this process ── UDP 51820 ~~~ the other host's process
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `key.rs` | who a host proves to be |
//! | `wanted.rs` | what the agent writes down for the process: this host and the others |
//! | `process.rs` | the process: its beginning, its threads, its end |
//! | `peers.rs` | the other hosts and their sessions; what may pass |
//!
//! The device goes with the process. Then nothing leaves: the firewall lets the sealed port out by no other device.

mod key;
mod peers;
mod process;
mod wanted;

pub use key::{PrivateKey, PublicKey};
pub(crate) use process::READY;
pub use process::{NAME, be};
pub(crate) use wanted::PREFIX_LENGTH;
pub use wanted::{Own, Wanted, WantedPeer, tunnel_address};

/// The device that encrypts, in the host's own namespace. The firewall knows it by this name.
pub const DEVICE: &str = "rnet-wg";
/// The UDP port of WireGuard.
pub const PORT: u16 = 51820;
