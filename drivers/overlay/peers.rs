//! Other hosts of a network, and what is behind them.

use alloc::{string::ToString, vec::Vec};
use core::{net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Invalid, MacAddress, Network};

/// The most addresses that hosts named by hand may have together. Each is written down as if a container had it.
pub const MOST_BY_HAND: u32 = 4096;

/// Another host of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The address that it sends from and is sent to.
    pub address: IpAddr,
    /// The endpoints that are there.
    pub endpoints: Vec<RemoteEndpoint>,
}

/// An endpoint on another host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemoteEndpoint {
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
}

/// A host that a user named by hand, with the addresses that it gives out: `192.0.2.2=10.0.9.64/26` or
/// `192.0.2.2=10.0.9.64/26+fd00:9::40/122`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ByHand {
    pub(super) address: IpAddr,
    pub(super) ranges: Vec<IpNetwork>,
}

impl FromStr for ByHand {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new("peer", text, "it must be HOST=RANGE or HOST=RANGE+RANGE, as 192.0.2.2=10.0.9.64/26")
        };
        let (host, ranges) = text.split_once('=').ok_or_else(wrong)?;
        let address: IpAddr = host.parse().map_err(|_| wrong())?;
        let ranges: Result<Vec<IpNetwork>, Invalid> =
            ranges.split('+').map(|range| range.parse().map_err(|_| wrong())).collect();
        let ranges = ranges?;
        let bare = |range: &&IpNetwork| range.ip() != range.network() || !text.contains('/');
        if let Some(range) = ranges.iter().find(bare) {
            return Err(Invalid::new("peer", text, alloc::format!("{range} is no range")));
        }
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(Invalid::new("peer", text, address.to_string() + " is no address of a host"));
        }
        Ok(Self { address, ranges })
    }
}

impl ByHand {
    /// The range of a family.
    pub(super) fn range(&self, ipv6: bool) -> Option<IpNetwork> {
        self.ranges.iter().copied().find(|range| range.is_ipv6() == ipv6)
    }

    /// Every address of the host's ranges as an endpoint, with the hardware address that follows from it.
    pub(super) fn peer(&self, network: &Network) -> Peer {
        let families = [false, true].map(|ipv6| self.range(ipv6).filter(|_| network.has_family(ipv6)));
        let first = families.into_iter().flatten().next();
        let count = first.map_or(0, |range| size(&range));
        let reserved = |address: &IpAddr| {
            network.pools.iter().any(|pool| {
                pool.gateway == Some(*address)
                    || (!address.is_ipv6() && pool.subnet.network() == *address)
                    || (!address.is_ipv6() && pool.subnet.broadcast() == *address)
            })
        };
        let endpoint = |number| {
            let addresses: Vec<IpAddr> =
                families.into_iter().flatten().filter_map(|range| nth(&range, number)).collect();
            let mac = MacAddress::of(*addresses.first()?);
            (!addresses.iter().any(reserved)).then_some(RemoteEndpoint { mac, addresses })
        };
        Peer { address: self.address, endpoints: (0..count).filter_map(endpoint).collect() }
    }
}

/// How many addresses a range has, as far as they are counted.
pub(super) fn size(range: &IpNetwork) -> u32 {
    let width = if range.is_ipv6() { 128 } else { 32 };
    1u32.checked_shl(width - u32::from(range.prefix())).unwrap_or(u32::MAX)
}

/// The address that many places into a range.
pub(super) fn nth(range: &IpNetwork, number: u32) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(address) => IpAddr::V4(u32::from(address).checked_add(number)?.into()),
        IpAddr::V6(address) => IpAddr::V6(u128::from(address).checked_add(u128::from(number))?.into()),
    };
    range.contains(address).then_some(address)
}

/// How many places into a range an address is.
pub(super) fn place(range: &IpNetwork, address: IpAddr) -> Option<u32> {
    if !range.contains(address) {
        return None;
    }
    match (range.network(), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => Some(u32::from(address) - u32::from(first)),
        (IpAddr::V6(first), IpAddr::V6(address)) => {
            u32::try_from(u128::from(address) - u128::from(first)).ok()
        }
        _ => None,
    }
}
