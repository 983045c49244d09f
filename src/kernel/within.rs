//! What exists in sandboxes, and who is behind whom there: the slow path, as in `find.rs`.

use std::{collections::HashMap, net::IpAddr};

use netlink_packet_route::AddressFamily;
use rnetkit_drivers::{
    InterfaceName, MacAddress, Resource,
    resource::{Tunnel, Uplink},
};

use super::{
    Linux, Netns, Refusal,
    find::{Seen, find},
    link::{self, Link},
    netlink::Route,
    overlay::{self, Entry},
};

/// Who is behind whom: of the bridges and tunnels, and of both families.
pub(super) type Entries = [HashMap<Key, Vec<Entry>>; 2];

/// A link, and a hardware or IP address there.
type Key = (u32, Vec<u8>);

/// What is in sandboxes, each looked at once; by the number in the list.
pub(super) fn find_inside(
    linux: &mut Linux,
    resources: &[Resource],
    netns: Option<&Netns>,
    found: &mut HashMap<usize, Resource>,
) -> Result<(), Refusal> {
    let mut sandboxes: Vec<&InterfaceName> = resources.iter().filter_map(sandbox_of).collect();
    sandboxes.sort();
    sandboxes.dedup();
    for sandbox in sandboxes {
        let own = resources.iter().enumerate().filter(|(_, r)| sandbox_of(r) == Some(sandbox));
        let own: Vec<(usize, &Resource)> = own.collect();
        let looked = linux.enter(sandbox, |linux, _| look_inside(linux, &own, netns));
        match looked {
            Ok(looked) => found.extend(looked?),
            Err(refusal) if refusal.is_missing() => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(())
}

fn sandbox_of(resource: &Resource) -> Option<&InterfaceName> {
    match resource {
        Resource::Sandbox { name, .. } => Some(name),
        Resource::Inside { sandbox, .. } => Some(sandbox),
        Resource::Tunnel(tunnel) => Some(&tunnel.sandbox),
        Resource::Uplink(uplink) => Some(&uplink.sandbox),
        _ => None,
    }
}

/// The calling thread is in the sandbox.
fn look_inside(
    linux: &mut Linux,
    wanted: &[(usize, &Resource)],
    netns: Option<&Netns>,
) -> Result<Vec<(usize, Resource)>, Refusal> {
    let (numbers, inner): (Vec<usize>, Vec<Resource>) =
        wanted.iter().filter_map(|(number, r)| Some((*number, r.inside()?.1.clone()))).unzip();
    let seen = find(linux, &inner, netns)?;
    let mut list: Vec<(usize, Resource)> = Vec::new();
    let links: HashMap<String, Link> = linux
        .finding_host()?
        .dump(&link::list(), Link::read)?
        .into_iter()
        .map(|link| (link.name.clone(), link))
        .collect();
    for (number, resource) in wanted {
        match resource {
            Resource::Sandbox { .. } => list.push((*number, (*resource).clone())),
            Resource::Tunnel(wanted) => list.extend(tunnel(&links, wanted).map(|found| (*number, found))),
            // The sandbox's end; the host's is looked at on the host.
            Resource::Uplink(wanted) => {
                let own = links.get(wanted.peer.as_str());
                let bridge = own.and_then(|own| links.values().find(|other| other.index == own.master));
                if bridge.is_some_and(|bridge| bridge.name == wanted.bridge.as_str()) {
                    list.push((*number, (*resource).clone()));
                }
            }
            _ => {}
        }
    }
    for (number, found) in numbers.into_iter().zip(seen) {
        let sandbox = wanted.iter().find(|(n, _)| *n == number).and_then(|(_, r)| r.inside());
        if let (Some(found), Some((sandbox, _))) = (found, sandbox) {
            list.push((number, Resource::Inside { sandbox: sandbox.clone(), what: Box::new(found) }));
        }
    }
    Ok(list)
}

/// The tunnel, if it is the one; perhaps not as the port that it must be.
fn tunnel(links: &HashMap<String, Link>, wanted: &Tunnel) -> Option<Resource> {
    let found = links.get(wanted.name.as_str())?;
    if found.tunnel != Some((wanted.vni, wanted.port, wanted.local)) || found.group != wanted.group {
        return None;
    }
    let bridge = links.values().find(|link| link.index == found.master).map(|link| link.name.as_str());
    let right = bridge == Some(wanted.bridge.as_str()) && found.isolated && !found.learning;
    let bridge = if right { wanted.bridge.clone() } else { wanted.name.clone() };
    Some(Resource::Tunnel(Tunnel { bridge, mtu: found.mtu, ..wanted.clone() }))
}

/// The way out of a sandbox: both ends.
pub(super) fn uplink(seen: &Seen, wanted: &Uplink, inside: Option<Resource>) -> Option<Resource> {
    let found = seen.links.get(wanted.name.as_str())?;
    if found.kind != "veth" || found.group != wanted.group {
        return None;
    }
    let bridge = if inside.is_some() { wanted.bridge.clone() } else { wanted.peer.clone() };
    let mac = MacAddress(found.mac.clone().try_into().ok()?);
    let (mtu, alias) = (found.mtu, found.alias.clone());
    Some(Resource::Uplink(Uplink { mac, bridge, mtu, alias, ..wanted.clone() }))
}

/// The tables of the bridges and tunnels, and of both families.
pub(super) fn entries(socket: &mut Route, wanted: &[Resource]) -> Result<Entries, Refusal> {
    let mut tables = [HashMap::new(), HashMap::new()];
    if !wanted.iter().any(|r| matches!(r, Resource::Neighbour { .. } | Resource::Remote { .. })) {
        return Ok(tables);
    }
    for entry in socket.dump(&overlay::list(AddressFamily::Bridge), Entry::read)? {
        tables[0].entry((entry.index, entry.mac.clone())).or_insert_with(Vec::new).push(entry);
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for entry in socket.dump(&overlay::list(family), Entry::read)? {
            let Some(address) = entry.address else { continue };
            let key = (entry.index, octets(address));
            tables[1].entry(key).or_insert_with(Vec::new).push(entry);
        }
    }
    Ok(tables)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Whose hardware address it is now; what is not permanent is not there.
pub(super) fn neighbour(seen: &Seen, entries: &Entries, wanted: &Resource) -> Option<Resource> {
    let Resource::Neighbour { link, address, .. } = wanted else { return None };
    let key = (seen.index(link)?, octets(*address));
    let entry = entries[1].get(&key)?.iter().find(|entry| entry.is_permanent())?;
    let mac = MacAddress(entry.mac.clone().try_into().ok()?);
    Some(Resource::Neighbour { link: link.clone(), address: *address, mac })
}

/// Behind which host it is now; what is missing in one of the two tables is missing.
pub(super) fn remote(seen: &Seen, entries: &Entries, wanted: &Resource) -> Option<Resource> {
    let Resource::Remote { link, mac, .. } = wanted else { return None };
    let entries = entries[0].get(&(seen.index(link)?, mac.0.to_vec()))?;
    entries.iter().find(|entry| entry.is_of_bridge())?;
    let via = entries.iter().find(|entry| !entry.is_of_bridge())?.address?;
    Some(Resource::Remote { link: link.clone(), mac: *mac, via })
}
