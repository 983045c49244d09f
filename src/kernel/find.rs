//! What exists of a list of resources: the slow path, for checks and repairs.

use std::collections::HashMap;

use ipnetwork::IpNetwork;
use netlink_packet_route::link::LinkFlags;
use rnetkit_drivers::{InterfaceName, LinkTuning, MacAddress, Place, Resource};

use super::{
    Linux, Netns, Refusal, address, firewall,
    link::{self, Link},
    netlink::Route,
    route,
    shape::{self, Queue},
    sysctl,
};

/// What a namespace has.
#[derive(Default)]
struct Seen {
    links: HashMap<String, Link>,
    addresses: Vec<(u32, IpNetwork)>,
    routes: Vec<route::Route>,
}

impl Seen {
    fn of(socket: &mut Route) -> Result<Self, Refusal> {
        let links = socket
            .dump(&link::list(), Link::read)?
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        let addresses = socket.dump(&address::list(), address::read)?;
        let mut routes = Vec::new();
        for ipv6 in [false, true] {
            routes.extend(socket.dump(&route::list(ipv6), route::read)?);
        }
        Ok(Self { links, addresses, routes })
    }

    fn index(&self, name: &InterfaceName) -> Option<u32> {
        self.links.get(name.as_str()).map(|link| link.index)
    }
}

/// For each resource: nothing, itself, or the same thing in another state.
pub(super) fn find(
    linux: &mut Linux,
    resources: &[Resource],
    netns: Option<&Netns>,
) -> Result<Vec<Option<Resource>>, Refusal> {
    let host = Seen::of(linux.finding_host()?)?;
    let inside = match netns {
        Some(netns) => Seen::of(&mut netns.inside(Route::open)??)?,
        None => Seen::default(),
    };
    let mut found = Vec::with_capacity(resources.len());
    let shaped = Shaped::of(linux.finding_host()?, &host, resources)?;
    let (nft, table) = linux.finding_firewall()?;
    let firewalled = firewall::is_whole(nft, &table)?;
    for wanted in resources {
        let seen = if matches!(wanted.lives_on(), Some((Place::Container, _))) { &inside } else { &host };
        let is_there = match wanted {
            Resource::Firewall => firewalled,
            Resource::Member(member) => firewalled && firewall::has_member(nft, &table, member)?,
            Resource::Guarded { link, rate, most } => {
                let limits = firewall::Limits { link, rate: *rate, most: *most };
                firewalled && firewall::is_limited(nft, &table, &limits)?
            }
            Resource::Published(publication) => {
                firewalled && firewall::is_published(nft, &table, publication)?
            }
            Resource::Forwarding { family } => sysctl::forwards(*family)?,
            Resource::Setting { place: Place::Host, link, setting } => sysctl::is_set(link, *setting),
            Resource::Setting { place: Place::Container, link, setting } => match netns {
                Some(netns) => netns.inside(|| sysctl::is_set(link, *setting))?,
                None => false,
            },
            Resource::Sysctl { name, value, .. } => match netns {
                Some(netns) => netns.inside(|| sysctl::has(name, value))?,
                None => false,
            },
            Resource::DefaultRoute { .. } => {
                found.push(default_route(seen, wanted));
                continue;
            }
            Resource::Port { .. } => {
                found.push(port(seen, wanted));
                continue;
            }
            Resource::Rate { .. } | Resource::Redirect { .. } => {
                found.push(shaped.find(&host, wanted));
                continue;
            }
            Resource::Bridge { .. } => {
                found.push(bridge(seen, wanted));
                continue;
            }
            Resource::Veth { .. } => {
                found.push(veth(seen, wanted));
                continue;
            }
            other => is_in(seen, other),
        };
        found.push(is_there.then(|| wanted.clone()));
    }
    Ok(found)
}

fn is_in(seen: &Seen, resource: &Resource) -> bool {
    match resource {
        Resource::Address { link, address, .. } => {
            seen.index(link).is_some_and(|index| seen.addresses.contains(&(index, *address)))
        }
        Resource::Ifb { name, group, alias } => seen
            .links
            .get(name.as_str())
            .is_some_and(|link| link.kind == "ifb" && link.group == *group && link.alias == *alias),
        Resource::Route { link, route } => seen.index(link).is_some_and(|index| {
            seen.routes.iter().any(|other| {
                other.table == route::MAIN
                    && (other.link, other.destination, other.gateway)
                        == (index, route.destination, route.gateway)
            })
        }),
        Resource::Tuned { link, tuning } => {
            seen.links.get(link.as_str()).is_some_and(|link| is_tuned(link, tuning))
        }
        Resource::Up { link, .. } => seen.links.get(link.as_str()).is_some_and(|link| link.up),
        _ => false,
    }
}

fn is_tuned(link: &Link, tuning: &LinkTuning) -> bool {
    let flag = |wanted: Option<bool>, flag| wanted.is_none_or(|on| link.flags.contains(flag) == on);
    tuning.mac.is_none_or(|mac| link.mac == mac.0)
        && tuning.mtu.is_none_or(|mtu| link.mtu == mtu)
        && tuning.queue.is_none_or(|queue| link.queue == queue)
        && flag(tuning.promiscuous, LinkFlags::Promisc)
        && flag(tuning.all_multicast, LinkFlags::Allmulti)
}

/// What links of the host send and receive through; looked at only where somebody asks.
#[derive(Default)]
struct Shaped {
    queues: Vec<Queue>,
    /// Pairs of indexes: all that the first receives goes through the second.
    redirected: Vec<(u32, u32)>,
}

impl Shaped {
    fn of(socket: &mut Route, host: &Seen, wanted: &[Resource]) -> Result<Self, Refusal> {
        let mut shaped = Self::default();
        let is_shape =
            |resource: &Resource| matches!(resource, Resource::Rate { .. } | Resource::Redirect { .. });
        if !wanted.iter().any(is_shape) {
            return Ok(shaped);
        }
        shaped.queues = socket.dump(&shape::list(), Queue::read)?;
        for resource in wanted {
            let Resource::Redirect { link, .. } = resource else { continue };
            let Some(index) = host.index(link).filter(|index| shaped.filters(*index)) else { continue };
            let found = socket.dump(&shape::list_filters(index), shape::redirected_to)?;
            shaped.redirected.extend(found.into_iter().map(|through| (index, through)));
        }
        Ok(shaped)
    }

    /// Whether filters meet what the link receives.
    fn filters(&self, index: u32) -> bool {
        self.queues.contains(&Queue::Ingress { link: index })
    }

    fn find(&self, host: &Seen, wanted: &Resource) -> Option<Resource> {
        match wanted {
            Resource::Rate { link, rate, burst } => {
                let index = host.index(link)?;
                let bucket = self.queues.iter().find_map(|queue| match queue {
                    Queue::Bucket(bucket) if bucket.link == index => Some(bucket),
                    _ => None,
                })?;
                let other = Resource::Rate { link: link.clone(), rate: bucket.bits(), burst: 0 };
                Some(if bucket.is(*rate, *burst) { wanted.clone() } else { other })
            }
            Resource::Redirect { link, through } => {
                let index = host.index(link).filter(|index| self.filters(*index))?;
                // A filter that leads elsewhere, or nowhere: it has to go before ours is made.
                let other = Resource::Redirect { link: link.clone(), through: link.clone() };
                let mut ways = self.redirected.iter().filter(|(from, _)| *from == index);
                let right = ways.next().is_some_and(|(_, to)| Some(*to) == host.index(through))
                    && ways.next().is_none();
                Some(if right { wanted.clone() } else { other })
            }
            _ => None,
        }
    }
}

/// The container's default route of that family, whichever it is.
fn default_route(seen: &Seen, wanted: &Resource) -> Option<Resource> {
    let Resource::DefaultRoute { gateway, .. } = wanted else { return None };
    let route = seen.routes.iter().find(|route| {
        route.is_unicast
            && route.table == route::MAIN
            && route.destination.prefix() == 0
            && route.destination.is_ipv6() == gateway.is_ipv6()
    })?;
    let name = seen.links.values().find(|link| link.index == route.link)?.name.parse().ok()?;
    Some(Resource::DefaultRoute { gateway: route.gateway?, link: name })
}

/// The bridge as it is; one of another group is somebody else's.
fn bridge(seen: &Seen, wanted: &Resource) -> Option<Resource> {
    let Resource::Bridge { name, group, .. } = wanted else { return None };
    let found = seen.links.get(name.as_str()).filter(|link| link.kind == "bridge" && link.group == *group)?;
    let mac = MacAddress(found.mac.clone().try_into().ok()?);
    Some(Resource::Bridge {
        name: name.clone(),
        mac,
        mtu: found.mtu,
        group: *group,
        alias: found.alias.clone(),
    })
}

/// The pair as it is: perhaps on no bridge, or on another.
fn veth(seen: &Seen, wanted: &Resource) -> Option<Resource> {
    let Resource::Veth { name, bridge, peer, mac, mtu, group } = wanted else { return None };
    let found = seen.links.get(name.as_str()).filter(|link| link.kind == "veth" && link.group == *group)?;
    let master = seen.links.values().find(|link| link.index == found.master).map(|link| link.name.as_str());
    let bridge = if master == Some(bridge.as_str()) { bridge.clone() } else { peer.clone() };
    Some(Resource::Veth {
        name: name.clone(),
        bridge,
        peer: peer.clone(),
        mac: *mac,
        mtu: *mtu,
        group: *group,
    })
}

/// The port with the flags that it has.
fn port(seen: &Seen, wanted: &Resource) -> Option<Resource> {
    let Resource::Port { link, alias, isolated, hairpin, pinned } = wanted else { return None };
    let found = seen.links.get(link.as_str()).filter(|found| found.is_port)?;
    let right = found.isolated == *isolated
        && found.hairpin == *hairpin
        && found.learning != pinned.is_some()
        && found.alias == *alias;
    let (alias, isolated, hairpin) = (found.alias.clone(), found.isolated, found.hairpin);
    let other = Resource::Port { link: link.clone(), alias, isolated, hairpin, pinned: None };
    Some(if right { wanted.clone() } else { other })
}
