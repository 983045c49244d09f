//! What of the store is believed: a store that was tampered with, or hosts that contradict each other, must harm nothing
//! that is sound. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use rnetkit_drivers::{Id, Network, Peer, RemoteEndpoint};

use crate::{
    cipher::{self, WantedPeer, tunnel_address},
    cluster::{End, Host, is_encrypted},
    error::shown,
    ipam,
    store::Far,
};

/// An endpoint on another host, and the address that it is sent to.
pub struct Believed<'a> {
    host: Id,
    address: IpAddr,
    end: &'a End,
}

/// What other hosts have of a network, as far as it can be believed. `here`: addresses of containers of this host, which
/// keep them on it even where the others have given them to somebody else meanwhile.
pub fn believed<'a>(
    network: &Network,
    me: &Host,
    hosts: &BTreeMap<Id, Host>,
    ends: &'a BTreeMap<(Id, Id), End>,
    here: Option<&HashSet<IpAddr>>,
) -> Vec<Believed<'a>> {
    let mut believed = Vec::new();
    let encrypted = is_encrypted(network);
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
        let Some(address) = known.address_for(encrypted) else {
            tracing::warn!(
                "host {} cannot encrypt: it is not reached on network {}",
                shown(&known.name),
                network.name
            );
            continue;
        };
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
        believed.push(Believed { host: known.id, address, end });
    }
    believed
}

/// Where it is sent to.
pub fn peers(believed: &[Believed<'_>]) -> BTreeMap<Id, Peer> {
    let mut peers: BTreeMap<Id, Peer> = BTreeMap::new();
    for Believed { host, address, end } in believed {
        let peer = peers.entry(*host).or_insert(Peer { address: *address, endpoints: Vec::new() });
        peer.endpoints.push(RemoteEndpoint { mac: end.mac, addresses: end.addresses.clone() });
    }
    peers
}

/// Who else encrypts, by what the hosts say of themselves: those that this one reaches, and of two with one key or one
/// address between hosts the first.
pub fn encrypting(me: &Host, hosts: &BTreeMap<Id, Host>) -> Vec<WantedPeer> {
    let mut seen = HashSet::new();
    seen.extend(me.key);
    let mut addresses = HashSet::from([tunnel_address(&me.id)]);
    let mut peers = Vec::new();
    for host in hosts.values().filter(|host| host.id != me.id && !host.fenced) {
        let Some(key) = host.key.filter(|_| host.address.is_ipv6() == me.address.is_ipv6()) else { continue };
        let address = tunnel_address(&host.id);
        if !seen.insert(key) || !addresses.insert(address) {
            tracing::warn!(
                "host {} says that it has another's key: nothing is said to it",
                shown(&host.name)
            );
            continue;
        }
        peers.push(WantedPeer { key, at: SocketAddr::new(host.address, cipher::PORT), address });
    }
    peers
}

/// How it can be asked for on this host.
pub fn names(believed: &[Believed<'_>]) -> Vec<Far> {
    let far = |believed: &Believed<'_>| {
        let End { container, name, aliases, addresses, .. } = believed.end.clone();
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cipher::PublicKey;

    fn host(number: u8, key: Option<u8>) -> Host {
        Host {
            id: Id([number; 32]),
            name: format!("h{number}"),
            address: [192, 0, 2, number].into(),
            mtu: 1500,
            generation: 1,
            fenced: false,
            key: key.map(|key| PublicKey([key; 32])),
        }
    }

    #[test]
    fn only_hosts_with_a_key_of_their_own_are_spoken_to_in_cipher() {
        let me = host(1, Some(1));
        let fenced = Host { fenced: true, ..host(5, Some(5)) };
        let far = Host { address: "2001:db8::6".parse().unwrap(), ..host(6, Some(6)) };
        let like_me = host(7, Some(1));
        let all = [me.clone(), host(2, Some(2)), host(3, None), host(4, Some(2)), fenced, far, like_me];
        let hosts: BTreeMap<Id, Host> = all.into_iter().map(|host| (host.id, host)).collect();
        let peers = encrypting(&me, &hosts);
        assert_eq!(peers.iter().map(|peer| peer.at.to_string()).collect::<Vec<_>>(), ["192.0.2.2:51820"]);
        assert_eq!(peers[0].address, tunnel_address(&Id([2; 32])));
    }
}
