//! What the agent writes down for the process that encrypts: who this host is, and who the others are.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use rnetkit_drivers::{Id, overlay};
use serde::{Deserialize, Serialize};

use super::{PORT, PublicKey};

/// This host and the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// This host.
    pub own: Own,
    /// The others.
    pub peers: Vec<WantedPeer>,
}

/// This host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Where WireGuard is heard.
    pub at: SocketAddr,
    /// The address that VXLAN is sent from.
    pub address: Ipv6Addr,
    /// The largest packet that goes into the device, in bytes.
    pub mtu: u32,
}

/// Another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedPeer {
    /// What it proves to be.
    pub key: PublicKey,
    /// Where its WireGuard is heard.
    pub at: SocketAddr,
    /// The only address that it may send from.
    pub address: Ipv6Addr,
}

impl Own {
    /// This host, with that id, at that address of a link with packets of that many bytes.
    #[must_use]
    pub fn of(host: &Id, underlay: IpAddr, mtu: u32) -> Self {
        Self {
            at: SocketAddr::new(underlay, PORT),
            address: tunnel_address(host),
            mtu: mtu.saturating_sub(overlay::cipher_overhead(underlay)),
        }
    }
}

/// The address that a host has between hosts in cipher, from its id: a unique local one (RFC 4193) that begins with
/// "rnet", so that none has to be given out and nobody else's can be claimed.
#[must_use]
pub fn tunnel_address(host: &Id) -> Ipv6Addr {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&PREFIX);
    bytes[6..].copy_from_slice(&host.0[..10]);
    bytes.into()
}

const PREFIX: [u8; 6] = [0xfd, b'r', b'n', b'e', b't', 0];
/// How long the part of a tunnel address is that all hosts have in common.
pub(crate) const PREFIX_LENGTH: u8 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_s_address_follows_from_its_id() {
        let own = Own::of(&Id([0xab; 32]), IpAddr::from([192, 0, 2, 1]), 1500);
        assert_eq!(own.address.to_string(), "fd72:6e65:7400:abab:abab:abab:abab:abab");
        assert_eq!((own.at.to_string().as_str(), own.mtu), ("192.0.2.1:51820", 1440));
        assert_ne!(tunnel_address(&Id([1; 32])), own.address);
    }
}
