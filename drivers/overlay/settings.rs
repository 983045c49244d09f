//! The options of the overlay driver, read.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::IpAddr;

use ipnetwork::IpNetwork;

use super::peers::{ByHand, MOST_BY_HAND, Peer, nth, place, size};
use crate::{
    BadOption, Endpoint, MacAddress, Network,
    bridge::{self, GatewayMode, Loopback},
    options::{Known, Options},
};

/// The UDP port of VXLAN (IANA).
pub const PORT: u16 = 4789;
/// The smallest number that rnet gives a network on the wire: lower ones are left to those who choose by hand.
pub const SMALLEST_VNI: u32 = 4096;
/// The largest number on the wire: 24 bits.
pub const MOST_VNI: u32 = 0xff_ffff;
/// The option that says which address of its own a host sends from.
pub const OWN_ADDRESS: &str = "local";

/// The UDP port of VXLAN that hosts say to each other in cipher only: one of its own, so that what must not be seen in
/// clear is known by its port alone.
pub const SEALED_PORT: u16 = 4799;

/// What VXLAN adds to a packet, in bytes: outer IP header, UDP 8, VXLAN 8, inner Ethernet header 14.
#[must_use]
pub fn overhead(underlay: IpAddr) -> u32 {
    if underlay.is_ipv6() { 70 } else { 50 }
}

/// What WireGuard adds to a packet, in bytes: outer IP header, UDP 8, its own header 16, and the authenticator 16.
#[must_use]
pub fn cipher_overhead(underlay: IpAddr) -> u32 {
    if underlay.is_ipv6() { 80 } else { 60 }
}

/// What is left of a packet of the underlay for one of the network, in bytes. In cipher, hosts have IPv6 addresses.
#[must_use]
pub fn inner_mtu(underlay: IpAddr, mtu: u32, encrypted: bool) -> u32 {
    if encrypted {
        mtu.saturating_sub(cipher_overhead(underlay) + overhead(IpAddr::from([0u16; 8])))
    } else {
        mtu.saturating_sub(overhead(underlay))
    }
}

static NETWORK_OPTIONS: [Known; 7] = [
    Known { long: "com.docker.network.driver.overlay.vxlanid_list", short: "vni" },
    Known { long: "com.docker.network.driver.mtu", short: "mtu" },
    Known { long: "com.docker.network.container_iface_prefix", short: "iface-prefix" },
    Known { long: "rnet.overlay.encrypted", short: "encrypted" },
    Known { long: "rnet.overlay.peers", short: "peers" },
    Known { long: "rnet.overlay.local", short: OWN_ADDRESS },
    Known { long: "rnet.overlay.port", short: "port" },
];

/// The settings of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The network's number on the wire; chosen where none is given.
    pub vni: Option<u32>,
    /// The largest packet, in bytes; what the host's own network leaves where none is given.
    pub mtu: Option<u32>,
    /// The address that this host sends from.
    pub local: Option<IpAddr>,
    /// The UDP port.
    pub port: u16,
    /// What containers say to each other leaves the host in cipher, or not at all.
    pub encrypted: bool,
    interface_prefix: String,
    /// The hosts named by hand; `None` where a store knows them.
    by_hand: Option<Vec<ByHand>>,
}

impl Settings {
    /// The settings of a network.
    ///
    /// # Errors
    /// The first option that is unknown or malformed.
    pub fn of(network: &Network) -> Result<Self, BadOption> {
        let options = Options::read("overlay", &NETWORK_OPTIONS, &network.options)?;
        let encrypted = options.switch("encrypted", false)?;
        if encrypted && options.text("peers").is_some() {
            let reason =
                "hosts named by hand have no keys; an encrypted network needs a store that its hosts share";
            return Err(options.bad("encrypted", reason));
        }
        let expected = "it must be a number from 1 to 16777215";
        let vni = options.parsed::<u32>("vni", expected)?;
        if vni.is_some_and(|vni| !(1..=MOST_VNI).contains(&vni)) {
            return Err(options.bad("vni", expected));
        }
        let smallest = if network.has_family(true) { 1280 } else { 68 };
        let expected = "it must be a number of bytes from 68 to 65465, and from 1280 with IPv6";
        let mtu = options.parsed::<u32>("mtu", expected)?;
        if mtu.is_some_and(|mtu| !(smallest..=65465).contains(&mtu)) {
            return Err(options.bad("mtu", expected));
        }
        let local = options.parsed::<IpAddr>(OWN_ADDRESS, "it must be an IP address of this host")?;
        if local.is_some_and(|local| local.is_unspecified() || local.is_loopback() || local.is_multicast()) {
            return Err(options.bad(OWN_ADDRESS, "it must be an IP address of this host that others reach"));
        }
        let expected = "it must be a UDP port from 1 to 65535";
        let usual = if encrypted { SEALED_PORT } else { PORT };
        let port = options.parsed::<u16>("port", expected)?.unwrap_or(usual);
        if port == 0 {
            return Err(options.bad("port", expected));
        }
        if encrypted != (port == SEALED_PORT) {
            let reason = format!("port {SEALED_PORT} is that of encrypted networks, and no other is");
            return Err(options.bad("port", &reason));
        }
        let by_hand = match options.text("peers") {
            None => None,
            Some(text) => Some(by_hand(text).map_err(|reason| options.bad("peers", &reason))?),
        };
        let interface_prefix = bridge::interface_prefix(&options)?;
        let settings = Self { vni, mtu, local, port, encrypted, interface_prefix, by_hand };
        match settings.mixed() {
            Some(address) => {
                Err(options.bad("peers", &format!("{address} is of another family than the others")))
            }
            None => Ok(settings),
        }
    }

    /// Hosts are reached over IPv4 or over IPv6, not both: the address that is of another family than the first.
    fn mixed(&self) -> Option<IpAddr> {
        let peers = self.by_hand.iter().flatten().map(|peer| peer.address);
        let mut addresses = self.local.into_iter().chain(peers);
        let first = addresses.next()?;
        addresses.find(|address| address.is_ipv6() != first.is_ipv6())
    }

    /// Whether the network's hosts are named by hand, so that no store is needed.
    #[must_use]
    pub fn is_by_hand(&self) -> bool {
        self.by_hand.is_some()
    }

    /// The hosts named by hand, with all addresses that they may give out.
    #[must_use]
    pub fn peers_by_hand(&self, network: &Network) -> Vec<Peer> {
        self.by_hand.iter().flatten().map(|peer| peer.peer(network)).collect()
    }

    /// The addresses of the hosts named by hand.
    pub fn hosts_by_hand(&self) -> impl Iterator<Item = IpAddr> {
        self.by_hand.iter().flatten().map(|peer| peer.address)
    }

    /// What the network is to the host: as a bridge, whose device is the host's end of the way to the sandbox.
    pub(super) fn as_bridge(&self, network: &Network) -> bridge::Settings {
        bridge::Settings {
            device: super::device_name(network),
            mtu: self.mtu.unwrap_or(1500),
            icc: true,
            masquerade: true,
            host_binding: None,
            loopback: Loopback::Rewrite,
            gateway_modes: [GatewayMode::Nat; 2],
            inhibit_ipv4: false,
            interface_prefix: self.interface_prefix.clone(),
            spoof_check: true,
            connection_rate: None,
            most_connections: None,
            // Nobody answers names there yet, so nothing is opened for them.
            dns: false,
        }
    }

    /// By hand, each host gives out addresses from a range of its own, and no two of them meet.
    pub(super) fn check_ranges(&self, network: &Network) -> Result<(), BadOption> {
        let Some(peers) = &self.by_hand else { return Ok(()) };
        let own = network.pools.iter().map(|pool| (self.local, pool.range));
        let mut seen: Vec<(Option<IpAddr>, IpNetwork)> = Vec::new();
        for (host, range) in own {
            let reason =
                "with hosts named by hand each needs a range of its own: give this one's with --ip-range";
            seen.push((host, range.ok_or_else(|| refuse(reason))?));
        }
        let mut total = 0u32;
        for peer in peers {
            if self.local == Some(peer.address) {
                return Err(refuse(&format!("{} is this host itself", peer.address)));
            }
            total = total.saturating_add(peer.ranges.iter().map(size).max().unwrap_or(0));
            for range in &peer.ranges {
                if !network
                    .pools
                    .iter()
                    .any(|pool| pool.subnet.contains(range.ip()) && range.prefix() >= pool.subnet.prefix())
                {
                    return Err(refuse(&format!(
                        "{range} of {} is in no subnet of the network",
                        peer.address
                    )));
                }
                if let Some((host, other)) = seen.iter().find(|(_, other)| overlap(other, range)) {
                    let host = host.map_or_else(|| "this host".to_owned(), |host| host.to_string());
                    return Err(refuse(&format!("{range} of {} meets {other} of {host}", peer.address)));
                }
                seen.push((Some(peer.address), *range));
            }
            let both = network.pools.iter().all(|pool| peer.range(pool.subnet.is_ipv6()).is_some());
            if !both || peer.ranges.len() != network.pools.len() {
                return Err(refuse(&format!("{} needs one range for each subnet", peer.address)));
            }
        }
        if total > MOST_BY_HAND {
            return Err(refuse(&format!(
                "the ranges have {total} addresses, and {MOST_BY_HAND} are the most without a store"
            )));
        }
        Ok(())
    }

    /// By hand, what other hosts write down of an endpoint follows from its IPv4 address; so nothing of it is free.
    pub(super) fn check_by_hand(&self, network: &Network, endpoint: &Endpoint) -> Result<(), BadOption> {
        if self.by_hand.is_none() {
            return Ok(());
        }
        for address in &endpoint.addresses {
            let pool = network.pools.iter().find(|pool| pool.subnet.contains(address.ip()));
            let range = pool.and_then(|pool| pool.range);
            if !range.is_some_and(|range| range.contains(address.ip())) {
                return Err(refuse(&format!(
                    "{} is not in this host's range, and other hosts would not find it",
                    address.ip()
                )));
            }
        }
        let expected = endpoint.addresses.first().map(|address| MacAddress::of(address.ip()));
        match expected {
            Some(expected) if expected != endpoint.mac => Err(refuse(&format!(
                "other hosts know {} as {expected}, and not as {}",
                endpoint.addresses[0].ip(),
                endpoint.mac
            ))),
            _ => Ok(()),
        }
    }

    /// By hand, the IPv6 address that goes with an IPv4 address: at the same place in the host's other range.
    pub(super) fn paired(&self, network: &Network, address: IpAddr) -> Option<IpAddr> {
        self.by_hand.as_ref()?;
        let range = |ipv6: bool| network.pools.iter().find(|pool| pool.subnet.is_ipv6() == ipv6)?.range;
        nth(&range(true)?, place(&range(false)?, address)?)
    }
}

fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

fn refuse(reason: &str) -> BadOption {
    BadOption { driver: "overlay", option: "peers".to_owned(), reason: reason.to_owned(), nearest: None }
}

/// Hosts between commas; none at all is a network that is on this host alone, until it is told of others.
fn by_hand(text: &str) -> Result<Vec<ByHand>, String> {
    let mut list: Vec<ByHand> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let peer: ByHand = part.parse().map_err(|error: crate::Invalid| error.reason)?;
        if list.iter().any(|other| other.address == peer.address) {
            return Err(format!("{} is given twice", peer.address));
        }
        list.push(peer);
    }
    Ok(list)
}
