//! What of the store is believed: a store that was tampered with, or hosts that contradict each other, must harm nothing
//! that is sound. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use rnetkit_drivers::{Id, Network, Peer, RemoteEndpoint};

use crate::{
    cluster::{End, Host},
    error::shown,
    ipam,
    store::Far,
};

/// What other hosts have of a network, as far as it can be believed. `here`: addresses of containers of this host, which
/// keep them on it even where the others have given them to somebody else meanwhile.
pub fn believed<'a>(
    network: &Network,
    me: &Host,
    hosts: &'a BTreeMap<Id, Host>,
    ends: &'a BTreeMap<(Id, Id), End>,
    here: Option<&HashSet<IpAddr>>,
) -> Vec<(&'a Host, &'a End)> {
    let mut believed = Vec::new();
    let mut seen: HashSet<IpAddr> = here.cloned().unwrap_or_default();
    let own = ends.iter().filter(|((host, _), _)| *host == me.id);
    seen.extend(own.flat_map(|(_, end)| end.addresses.iter().copied()));
    for ((host, id), end) in ends {
        if *host == me.id {
            continue;
        }
        let Some(known) = hosts.get(host).filter(|known| !known.fenced) else { continue };
        if known.address.is_ipv6() != me.address.is_ipv6() || known.address == me.address {
            tracing::warn!("host {} is not reached by address {}", shown(&known.name), known.address);
            continue;
        }
        let doubtful = end.addresses.iter().find_map(|address| doubt(network, *address, &seen));
        if let Some(reason) = doubtful {
            tracing::warn!(
                "endpoint {} of host {} on network {}: {reason}",
                id.short(),
                shown(&known.name),
                network.name
            );
            continue;
        }
        seen.extend(end.addresses.iter().copied());
        believed.push((known, end));
    }
    believed
}

/// Where it is sent to.
pub fn peers(believed: &[(&Host, &End)]) -> BTreeMap<Id, Peer> {
    let mut peers: BTreeMap<Id, Peer> = BTreeMap::new();
    for (host, end) in believed {
        let peer = peers.entry(host.id).or_insert(Peer { address: host.address, endpoints: Vec::new() });
        peer.endpoints.push(RemoteEndpoint { mac: end.mac, addresses: end.addresses.clone() });
    }
    peers
}

/// How it can be asked for on this host.
pub fn names(believed: &[(&Host, &End)]) -> Vec<Far> {
    let far = |(_, end): &(&Host, &End)| {
        let End { container, name, aliases, addresses, .. } = (*end).clone();
        Far { id: container, name, aliases, addresses }
    };
    believed.iter().map(far).collect()
}

/// A host whose record is its own, and whose address can be a host's.
pub fn sound_host(id: &Id, host: Host) -> Result<Host, String> {
    let address = host.address;
    if host.id != *id {
        return Err("it is of another host than its key".to_owned());
    }
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!("{address} is no address of a host"));
    }
    Ok(host)
}

/// A network under the key of its own id.
pub fn same_id(id: &Id, network: Network) -> Result<Network, String> {
    if network.id == *id { Ok(network) } else { Err("it is of another network than its key".to_owned()) }
}

/// Why an address cannot be an endpoint's.
fn doubt(network: &Network, address: IpAddr, seen: &HashSet<IpAddr>) -> Option<String> {
    let Some(pool) = network.pools.iter().find(|pool| pool.subnet.contains(address)) else {
        return Some(format!("{address} is in no subnet of the network"));
    };
    if seen.contains(&address) {
        return Some(format!("{address} is another's"));
    }
    ipam::reserved(pool, address).map(|reason| format!("{address}: {reason}"))
}
