//! What is wanted of whatever encrypts between hosts, the kernel's own WireGuard or the agent's process: keys, who this host
//! is, and who the others are. Pure: never encrypts anything itself.

mod key;
mod wanted;

pub use key::{PrivateKey, PublicKey};
pub(crate) use wanted::PREFIX_LENGTH;
pub use wanted::{Own, Wanted, WantedPeer, tunnel_address};

/// The device that encrypts, in the host's own namespace. The firewall knows it by this name.
pub const DEVICE: &str = "rnet-wg";
/// The UDP port of WireGuard.
pub const PORT: u16 = 51820;
