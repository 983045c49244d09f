//! The process that encrypts between hosts where the kernel does not: WireGuard between every two hosts. The part for
//! networks that span hosts begins it, and it outlives the agent. Never sends anything in clear, and never decides who the
//! other hosts are.
//!
//! ```text
//!  vx0 (VXLAN, port 4799) ── host's routes ── rnet-wg ── this process ── UDP 51820 ~~~ the other host's process
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `process.rs` | its beginning, its threads, its end |
//! | `peers.rs` | the other hosts and their sessions; what may pass |
//!
//! The device goes with the process. Then nothing leaves: the firewall lets the sealed port out by no other device.

mod peers;
mod process;

pub use process::{NAME, READY, be};
