//! Address management: which subnet, which address, which port comes next. Pure: it is given what is taken, and
//! says what to take.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Id, Pool};

use crate::error::Error;

/// The most addresses of a pool that are given out by choice: a bridge has no more than 1,023 ports, so even a
/// large subnet never needs more. Addresses beyond can be asked for by name.
pub const WINDOW: u32 = 65_536;

/// Docker's pools for networks without a subnet of their own, in order: the pool, and the length that it is cut to.
const POOLS: [(Ipv4Addr, u8, u8); 7] = [
    (Ipv4Addr::new(172, 17, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 18, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 19, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 20, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 24, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 28, 0, 0), 14, 16),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 20),
];

/// Whether one contains addresses of the other.
#[must_use]
pub fn overlaps(a: &IpNetwork, b: &IpNetwork) -> bool {
    let shorter = a.prefix().min(b.prefix());
    a.is_ipv6() == b.is_ipv6() && bits(a.ip()) >> shift(a, shorter) == bits(b.ip()) >> shift(b, shorter)
}

/// A shift that keeps the first `prefix` bits; a shift by all bits must not overflow.
fn shift(network: &IpNetwork, prefix: u8) -> u32 {
    let width = if network.is_ipv6() { 128 } else { 32 };
    (width - u32::from(prefix)).min(127)
}

/// The first pool that meets nothing that is taken.
///
/// # Errors
/// When every pool does.
pub fn choose_ipv4(taken: &[IpNetwork]) -> Result<IpNetwork, Error> {
    let candidates = POOLS.iter().flat_map(|(base, length, cut)| {
        let step = 1u32 << (32 - cut);
        let count = 1u32 << (cut - length);
        (0..count).map(move |n| (u32::from(*base) + n * step, *cut))
    });
    for (address, length) in candidates {
        if let Ok(subnet) = IpNetwork::new(IpAddr::V4(address.into()), length)
            && !taken.iter().any(|other| overlaps(&subnet, other))
        {
            return Ok(subnet);
        }
    }
    Err(Error::PoolsExhausted { taken: taken.len() })
}

/// The first /64 of the host's own /48 of unique local addresses (RFC 4193) that meets nothing that is taken.
///
/// # Errors
/// When every one does.
pub fn choose_ipv6(host: &Id, taken: &[IpNetwork]) -> Result<IpNetwork, Error> {
    let h = host.0;
    for number in 0..=u16::MAX {
        let [high, low] = number.to_be_bytes();
        let octets = [0xfd, h[0], h[1], h[2], h[3], h[4], high, low, 0, 0, 0, 0, 0, 0, 0, 0];
        if let Ok(subnet) = IpNetwork::new(IpAddr::V6(octets.into()), 64)
            && !taken.iter().any(|other| overlaps(&subnet, other))
        {
            return Ok(subnet);
        }
    }
    Err(Error::PoolsExhausted { taken: taken.len() })
}

/// What a user says of one subnet.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// `--subnet`.
    pub subnets: Vec<IpNetwork>,
    /// `--gateway`.
    pub gateways: Vec<IpAddr>,
    /// `--ip-range`.
    pub ranges: Vec<IpNetwork>,
    /// `--aux-address`.
    pub aux: BTreeMap<String, IpAddr>,
}

/// Sorts gateways, ranges and reserved addresses to the subnets that they are in.
///
/// # Errors
/// The first thing that fits no subnet, or contradicts another.
pub fn pools(wishes: &Wishes) -> Result<Vec<Pool>, Error> {
    let mut pools: Vec<Pool> = Vec::new();
    for subnet in &wishes.subnets {
        check_subnet(subnet)?;
        if let Some(other) = pools.iter().find(|pool| overlaps(&pool.subnet, subnet)) {
            return Err(Error::SubnetTaken {
                subnet: *subnet,
                by: format!("{} of the same network", other.subnet),
            });
        }
        pools.push(Pool { subnet: *subnet, gateway: None, range: None, aux: BTreeMap::new() });
    }
    for range in &wishes.ranges {
        let whole = format!("ip-range {range}");
        if network_of(range) != *range {
            return Err(contradiction(whole, format!("is no subnet: it should be {}", network_of(range))));
        }
        let pool = pools
            .iter_mut()
            .find(|pool| pool.subnet.contains(range.ip()) && range.prefix() >= pool.subnet.prefix());
        let pool = pool.ok_or_else(|| contradiction(whole.clone(), "is in no subnet of the network"))?;
        if let Some(other) = pool.range.replace(*range) {
            return Err(contradiction(
                whole,
                format!("is a second range of subnet {}, beside {other}", pool.subnet),
            ));
        }
    }
    for gateway in &wishes.gateways {
        let whole = format!("gateway {gateway}");
        let pool = pools.iter_mut().find(|pool| pool.subnet.contains(*gateway));
        let pool = pool.ok_or_else(|| contradiction(whole.clone(), "is in no subnet of the network"))?;
        if let Some(reason) = unusable(&pool.subnet, *gateway) {
            return Err(contradiction(whole, reason));
        }
        if let Some(other) = pool.gateway.replace(*gateway) {
            return Err(contradiction(
                whole,
                format!("is a second gateway of subnet {}, beside {other}", pool.subnet),
            ));
        }
    }
    for (name, address) in &wishes.aux {
        let whole = format!("aux-address {}={address}", crate::error::shown(name));
        let pool = pools.iter_mut().find(|pool| pool.subnet.contains(*address));
        let pool = pool.ok_or_else(|| contradiction(whole.clone(), "is in no subnet of the network"))?;
        if pool.gateway == Some(*address) || pool.aux.values().any(|other| other == address) {
            return Err(contradiction(whole, "is reserved twice"));
        }
        pool.aux.insert(name.clone(), *address);
    }
    pools.iter_mut().try_for_each(complete)?;
    pools.sort_by_key(|pool| pool.subnet.is_ipv6());
    Ok(pools)
}

/// Gives a pool its gateway: the first address of its subnet that can be one.
///
/// # Errors
/// When the subnet has no room for one.
pub fn complete(pool: &mut Pool) -> Result<(), Error> {
    if pool.gateway.is_none() {
        let free = (0..=pool.aux.len() as u128 + 2).filter_map(|offset| address_at(&pool.subnet, offset));
        let mut usable = free.filter(|address| unusable(&pool.subnet, *address).is_none());
        pool.gateway = usable.find(|address| !pool.aux.values().any(|other| other == address));
    }
    match pool.gateway {
        Some(_) => Ok(()),
        None => Err(contradiction(format!("subnet {}", pool.subnet), "has no address for a gateway")),
    }
}

fn contradiction(value: String, reason: impl Into<String>) -> Error {
    Error::Contradiction { value, reason: reason.into() }
}

/// Whether a subnet can be a container network's.
fn check_subnet(subnet: &IpNetwork) -> Result<(), Error> {
    let refuse = |reason: &str| Err(contradiction(format!("subnet {subnet}"), reason));
    if network_of(subnet) != *subnet {
        return refuse(&format!("has host bits set: it should be {}", network_of(subnet)));
    }
    let (shortest, longest) = if subnet.is_ipv6() { (16, 127) } else { (8, 31) };
    if !(shortest..=longest).contains(&subnet.prefix()) {
        return refuse(&format!("must have a length from /{shortest} to /{longest}"));
    }
    let special: [(&str, &str); 8] = [
        ("0.0.0.0/8", "is this network's own (RFC 1122)"),
        ("127.0.0.0/8", "is loopback"),
        ("169.254.0.0/16", "is link-local"),
        ("224.0.0.0/4", "is multicast"),
        ("240.0.0.0/4", "is reserved (RFC 1112)"),
        ("fe80::/10", "is link-local"),
        ("ff00::/8", "is multicast"),
        ("::/16", "is reserved (RFC 4291)"),
    ];
    for (range, reason) in special {
        if range.parse().is_ok_and(|range: IpNetwork| overlaps(&range, subnet)) {
            return refuse(reason);
        }
    }
    Ok(())
}

/// The network with its host bits cleared.
#[must_use]
pub fn network_of(network: &IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(*network)
}

/// Why an address of the subnet can be nobody's. In a subnet of two addresses or one, all can (RFC 3021).
#[must_use]
pub fn unusable(subnet: &IpNetwork, address: IpAddr) -> Option<&'static str> {
    let width = if subnet.is_ipv6() { 128 } else { 32 };
    if subnet.prefix() + 1 >= width {
        return None;
    }
    if address == subnet.network() {
        return Some(if subnet.is_ipv6() {
            "is the subnet's router anycast address"
        } else {
            "is the address of the subnet itself"
        });
    }
    (!subnet.is_ipv6() && address == subnet.broadcast()).then_some("is the broadcast address of the subnet")
}

/// The address that many places into the subnet.
#[must_use]
pub fn address_at(subnet: &IpNetwork, offset: u128) -> Option<IpAddr> {
    let address = bits(subnet.network()).checked_add(offset)?;
    let address = match subnet {
        IpNetwork::V4(_) => IpAddr::V4(u32::try_from(address).ok()?.into()),
        IpNetwork::V6(_) => IpAddr::V6(Ipv6Addr::from(address)),
    };
    subnet.contains(address).then_some(address)
}

/// How many places into the subnet the address is.
#[must_use]
pub fn offset_of(subnet: &IpNetwork, address: IpAddr) -> Option<u128> {
    subnet.contains(address).then(|| bits(address) - bits(subnet.network()))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The addresses of a pool that are given out by choice: the first of its range, or of its subnet, as offsets
/// into the subnet.
#[must_use]
pub fn window(pool: &Pool) -> std::ops::Range<u128> {
    let range = pool.range.unwrap_or(pool.subnet);
    let start = offset_of(&pool.subnet, range.network()).unwrap_or(0);
    let width = if range.is_ipv6() { 128 } else { 32 };
    let size = 1u128.checked_shl(width - u32::from(range.prefix())).unwrap_or(u128::MAX);
    start..start.saturating_add(size.min(u128::from(WINDOW)))
}

/// Why an address of the pool is never given to a container, whoever asks.
#[must_use]
pub fn reserved(pool: &Pool, address: IpAddr) -> Option<String> {
    if let Some(reason) = unusable(&pool.subnet, address) {
        return Some(format!("it {reason}"));
    }
    if pool.gateway == Some(address) {
        return Some("it is the gateway".to_owned());
    }
    let (name, _) = pool.aux.iter().find(|(_, other)| **other == address)?;
    Some(format!("it is reserved as aux-address {}", crate::error::shown(name)))
}

/// A set of small numbers, one bit each.
pub mod bitmap {
    /// Whether the number is in.
    #[must_use]
    pub fn has(bits: &[u8], number: u32) -> bool {
        bits.get(number as usize / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    }

    /// Puts the number in, or takes it out.
    pub fn put(bits: &mut [u8], number: u32, inside: bool) {
        if let Some(byte) = bits.get_mut(number as usize / 8) {
            let bit = 1 << (number % 8);
            *byte = if inside { *byte | bit } else { *byte & !bit };
        }
    }

    /// Puts all numbers of a range in, or takes them out.
    pub fn put_all(bits: &mut [u8], range: std::ops::Range<u32>, inside: bool) {
        each_part(range, |byte, mask| {
            if let Some(byte) = bits.get_mut(byte) {
                *byte = if inside { *byte | mask } else { *byte & !mask };
            }
        });
    }

    /// Whether any number of a range is in.
    #[must_use]
    pub fn has_any(bits: &[u8], range: std::ops::Range<u32>) -> bool {
        let mut found = false;
        each_part(range, |byte, mask| found |= bits.get(byte).is_some_and(|byte| byte & mask != 0));
        found
    }

    /// The bytes that a range touches, each with its bits of the range.
    fn each_part(range: std::ops::Range<u32>, mut work: impl FnMut(usize, u8)) {
        if range.is_empty() {
            return;
        }
        let (first, last) = (range.start / 8, (range.end - 1) / 8);
        for byte in first..=last {
            let low = if byte == first { u8::MAX << (range.start % 8) } else { u8::MAX };
            let high = if byte == last { u8::MAX >> (7 - (range.end - 1) % 8) } else { u8::MAX };
            work(byte as usize, low & high);
        }
    }

    /// The lowest number of the range that is in none of the sets.
    #[must_use]
    pub fn lowest_free(sets: &[&[u8]], range: std::ops::Range<u32>) -> Option<u32> {
        let mut number = range.start;
        while number < range.end {
            let byte =
                sets.iter().fold(0, |all, set| all | set.get(number as usize / 8).copied().unwrap_or(0));
            if byte == u8::MAX && number.is_multiple_of(8) {
                number += 8;
            } else if byte >> (number % 8) & 1 == 1 {
                number += 1;
            } else {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_of_bits_is_all_its_bits(start in 0u32..40, length in 0u32..60, before in 0u64..) {
            let mut bits = before.to_le_bytes();
            let mut one_by_one = bits;
            let range = start..(start + length).min(64);
            let any = range.clone().any(|number| bitmap::has(&bits, number));
            prop_assert_eq!(bitmap::has_any(&bits, range.clone()), any);
            for inside in [before % 2 == 0, before % 2 == 1] {
                bitmap::put_all(&mut bits, range.clone(), inside);
                range.clone().for_each(|number| bitmap::put(&mut one_by_one, number, inside));
                prop_assert_eq!(bits, one_by_one);
            }
        }
    }

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn wishes(subnet: &str) -> Wishes {
        Wishes { subnets: vec![net(subnet)], ..Wishes::default() }
    }

    #[test]
    fn default_pools_skip_what_is_taken() {
        assert_eq!(choose_ipv4(&[]).unwrap(), net("172.17.0.0/16"));
        assert_eq!(choose_ipv4(&[net("172.17.5.0/24"), net("172.18.0.0/15")]).unwrap(), net("172.20.0.0/16"));
        let error = choose_ipv4(&[net("172.16.0.0/12"), net("192.168.0.0/16")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all predefined address pools have been fully subnetted: 2 subnets are in use"
        );
    }

    #[test]
    fn there_are_31_default_pools_as_in_docker() {
        let mut taken = Vec::new();
        while let Ok(subnet) = choose_ipv4(&taken) {
            taken.push(subnet);
        }
        assert_eq!(taken.len(), 31);
    }

    #[test]
    fn a_gateway_outside_every_subnet_is_refused_by_name() {
        let wishes = Wishes { gateways: vec!["10.1.0.1".parse().unwrap()], ..wishes("10.0.0.0/24") };
        assert_eq!(
            pools(&wishes).unwrap_err().to_string(),
            "gateway 10.1.0.1 is in no subnet of the network"
        );
    }

    #[test]
    fn subnets_that_cannot_work_are_refused() {
        for (subnet, error) in [
            ("10.0.0.1/24", "subnet 10.0.0.1/24 has host bits set: it should be 10.0.0.0/24"),
            ("0.0.0.0/0", "subnet 0.0.0.0/0 must have a length from /8 to /31"),
            ("10.0.0.0/32", "subnet 10.0.0.0/32 must have a length from /8 to /31"),
            ("127.0.0.0/16", "subnet 127.0.0.0/16 is loopback"),
            ("224.1.0.0/16", "subnet 224.1.0.0/16 is multicast"),
            ("fe80::/64", "subnet fe80::/64 is link-local"),
        ] {
            assert_eq!(pools(&wishes(subnet)).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn the_gateway_is_the_first_address_that_is_free() {
        let gateway = |wishes: &Wishes| pools(wishes).unwrap()[0].gateway.unwrap().to_string();
        assert_eq!(gateway(&wishes("10.0.0.0/24")), "10.0.0.1");
        assert_eq!(gateway(&wishes("10.0.0.0/31")), "10.0.0.0");
        assert_eq!(gateway(&wishes("fd00:1::/64")), "fd00:1::1");
        let aux = [("x".to_owned(), "10.0.0.1".parse().unwrap())].into();
        assert_eq!(gateway(&Wishes { aux, ..wishes("10.0.0.0/24") }), "10.0.0.2");
    }

    proptest! {
        #[test]
        fn lowest_free_agrees_with_a_plain_search(bits in proptest::collection::vec(any::<u8>(), 0..9), start in 0u32..70, end in 0u32..70) {
            let plain = (start..end).find(|n| !bitmap::has(&bits, *n));
            prop_assert_eq!(bitmap::lowest_free(&[&bits], start..end), plain);
        }

        #[test]
        fn overlap_is_what_containment_says(a in any::<u32>(), b in any::<u32>(), x in 0u8..=32, y in 0u8..=32) {
            let net = |ip: u32, length| network_of(&IpNetwork::new(IpAddr::V4(ip.into()), length).unwrap());
            let (a, b) = (net(a, x), net(b, y));
            prop_assert_eq!(overlaps(&a, &b), a.contains(b.ip()) || b.contains(a.ip()));
        }
    }
}
