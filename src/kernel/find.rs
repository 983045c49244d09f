//! What exists of a list of resources: the slow path, for checks and repairs.

use std::collections::{HashMap, HashSet};

use ipnetwork::IpNetwork;
use netlink_packet_route::link::LinkFlags;
use rnetkit_drivers::{
    Balanced, InterfaceName, LinkTuning, MacAddress, Member, Network, Place, Publication, Resource,
};

use super::{
    Linux, Netns, Refusal, address, child,
    firewall::{self, Contents, Limits, StrayElement},
    link::{self, Link},
    netlink::Route,
    route,
    shape::{self, Queue},
    sysctl, within,
};

/// What a namespace has.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) links: HashMap<String, Link>,
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

    pub(super) fn index(&self, name: &InterfaceName) -> Option<u32> {
        self.links.get(name.as_str()).map(|link| link.index)
    }
}

/// What the host has, looked at once.
pub struct Sight {
    host: Seen,
    /// All of rnet's sets; where they were not read, each element is asked for.
    firewall: Option<Contents>,
}

/// Looks at everything that rnet could have on the host itself, once for however many checks.
pub(super) fn look(linux: &mut Linux) -> Result<Sight, Refusal> {
    let host = Seen::of(linux.finding_host()?)?;
    let (nft, table) = linux.finding_firewall()?;
    Ok(Sight { host, firewall: Some(Contents::read(nft, &table)?) })
}

/// For each resource: nothing, itself, or the same thing in another state.
pub(super) fn find(
    linux: &mut Linux,
    resources: &[Resource],
    netns: Option<&Netns>,
) -> Result<Vec<Option<Resource>>, Refusal> {
    let sight = Sight { host: Seen::of(linux.finding_host()?)?, firewall: None };
    find_in(linux, &sight, resources, netns)
}

/// As [`find`], with the host as it was looked at before; the container is looked at now.
pub(super) fn find_in(
    linux: &mut Linux,
    sight: &Sight,
    resources: &[Resource],
    netns: Option<&Netns>,
) -> Result<Vec<Option<Resource>>, Refusal> {
    let inside = match netns {
        Some(netns) => netns.inside(|| Inside::look(resources))??,
        None => Inside::default(),
    };
    let mut in_sandboxes = HashMap::new();
    within::find_inside(linux, resources, netns, &mut in_sandboxes)?;
    let entries = within::entries(linux.finding_host()?, resources)?;
    let shaped = Shaped::of(linux.finding_host()?, &sight.host, resources)?;
    let mut firewall = Firewall::new(linux, sight.firewall.as_ref());
    let mut found = Vec::with_capacity(resources.len());
    for (number, wanted) in resources.iter().enumerate() {
        let seen =
            if matches!(wanted.lives_on(), Some((Place::Container, _))) { &inside.seen } else { &sight.host };
        let is_there = match wanted {
            Resource::Firewall => firewall.is_whole()?,
            Resource::Member(member) => firewall.is_whole()? && firewall.has_member(member)?,
            Resource::Guarded { link, rate, most } => {
                let limits = Limits { link, rate: *rate, most: *most };
                firewall.is_whole()? && firewall.is_limited(&limits)?
            }
            Resource::Balanced(port) => firewall.is_whole()? && firewall.is_balanced(port)?,
            Resource::Published(publication) => {
                firewall.is_whole()? && firewall.has_published(publication)?
            }
            Resource::Forwarding { family } => sysctl::forwards(*family)?,
            Resource::Setting { place: Place::Host, link, setting } => sysctl::is_set(link, *setting),
            Resource::Setting { place: Place::Container, .. } | Resource::Sysctl { .. } => {
                inside.settings.contains(wanted)
            }
            Resource::DefaultRoute { .. } => {
                found.push(default_route(seen, wanted));
                continue;
            }
            Resource::Port { .. } => {
                found.push(port(seen, wanted));
                continue;
            }
            Resource::Rate { .. } | Resource::Redirect { .. } => {
                found.push(shaped.find(&sight.host, wanted));
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
            Resource::Parent { link, .. } => sight.host.index(link).is_some(),
            Resource::Child(wanted) => {
                found.push(child::find(&inside.seen, &sight.host, wanted));
                continue;
            }
            Resource::Sandbox { .. } | Resource::Inside { .. } | Resource::Tunnel(_) => {
                found.push(in_sandboxes.remove(&number));
                continue;
            }
            Resource::Uplink(wanted) => {
                found.push(within::uplink(&sight.host, wanted, in_sandboxes.remove(&number)));
                continue;
            }
            Resource::Neighbour { .. } => {
                found.push(within::neighbour(seen, &entries, wanted));
                continue;
            }
            Resource::Remote { .. } => {
                found.push(within::remote(seen, &entries, wanted));
                continue;
            }
            other => is_in(seen, other),
        };
        found.push(is_there.then(|| wanted.clone()));
    }
    Ok(found)
}

/// What a container has.
#[derive(Default)]
struct Inside {
    seen: Seen,
    /// Those of the wanted settings that are as they must be.
    settings: Vec<Resource>,
}

impl Inside {
    /// Looks, from inside.
    fn look(resources: &[Resource]) -> Result<Self, Refusal> {
        let is_set = |resource: &&Resource| match resource {
            Resource::Setting { place: Place::Container, link, setting } => sysctl::is_set(link, *setting),
            Resource::Sysctl { name, value, .. } => sysctl::has(name, value),
            _ => false,
        };
        let settings = resources.iter().filter(is_set).cloned().collect();
        Ok(Self { seen: Seen::of(&mut Route::open()?)?, settings })
    }
}

/// The firewall: as it was read, or asked element by element.
struct Firewall<'a> {
    linux: &'a mut Linux,
    read: Option<&'a Contents>,
    whole: Option<bool>,
}

impl<'a> Firewall<'a> {
    fn new(linux: &'a mut Linux, read: Option<&'a Contents>) -> Self {
        Self { linux, read, whole: read.map(Contents::is_whole) }
    }

    fn is_whole(&mut self) -> Result<bool, Refusal> {
        if let Some(whole) = self.whole {
            return Ok(whole);
        }
        let scope = self.linux.scope();
        let (nft, table) = self.linux.finding_firewall()?;
        let whole = firewall::is_whole(nft, &table, scope)?;
        self.whole = Some(whole);
        Ok(whole)
    }

    fn has_member(&mut self, member: &Member) -> Result<bool, Refusal> {
        if let Some(read) = self.read {
            return Ok(read.has_member(member));
        }
        let (nft, table) = self.linux.finding_firewall()?;
        firewall::has_member(nft, &table, member)
    }

    fn has_published(&mut self, publication: &Publication) -> Result<bool, Refusal> {
        if let Some(read) = self.read {
            return Ok(read.has_published(publication));
        }
        let (nft, table) = self.linux.finding_firewall()?;
        firewall::is_published(nft, &table, publication)
    }
}

/// Limits and shared ports are few: they are asked for.
impl Firewall<'_> {
    fn is_balanced(&mut self, port: &Balanced) -> Result<bool, Refusal> {
        let (nft, table) = self.linux.finding_firewall()?;
        firewall::balance::is_set(nft, &table, port)
    }

    fn is_limited(&mut self, limits: &Limits<'_>) -> Result<bool, Refusal> {
        let (nft, table) = self.linux.finding_firewall()?;
        firewall::is_limited(nft, &table, limits)
    }
}

/// Something that carries this instance's mark and that no record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// A bridge or a veth pair.
    Link {
        /// Its name.
        name: String,
        /// Its index, by which it is deleted: a name may be given again.
        index: u32,
        /// What its `ifalias` says.
        alias: String,
    },
    /// An element of a set.
    Element(StrayElement),
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link { name, alias, .. } => {
                write!(f, "link {} ({})", crate::error::shown(name), crate::error::shown(alias))
            }
            Self::Element(element) => element.fmt(f),
        }
    }
}

/// What carries this instance's mark and is none of the resources. A link's mark is its group together with an alias
/// that begins with one of `marks`, or with a place in this instance's own sets: other instances have marks and sets of
/// their own.
pub(super) fn strays(sight: &Sight, resources: &[Resource], marks: &[String]) -> Vec<Stray> {
    let Some(firewall) = &sight.firewall else { return Vec::new() };
    let named: HashSet<&str> = resources
        .iter()
        .filter_map(|resource| match resource {
            Resource::Bridge { name, .. } | Resource::Veth { name, .. } | Resource::Ifb { name, .. } => {
                Some(name.as_str())
            }
            Resource::Uplink(uplink) => Some(uplink.name.as_str()),
            _ => None,
        })
        .collect();
    let ours = |link: &&Link| {
        link.group & 0xffff_0000 == Network::GROUPS
            && ["bridge", "veth", "ifb"].contains(&link.kind.as_str())
            && !named.contains(link.name.as_str())
            && (marks.iter().any(|mark| link.alias.starts_with(mark)) || firewall.knows_link(&link.name))
    };
    let mut links: Vec<&Link> = sight.host.links.values().filter(ours).collect();
    links.sort_by_key(|link| link.index);
    let links = links.into_iter().map(|link| Stray::Link {
        name: link.name.clone(),
        index: link.index,
        alias: link.alias.clone(),
    });
    links.chain(firewall.strays(resources).into_iter().map(Stray::Element)).collect()
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
        Resource::Marked { link, alias } => {
            seen.links.get(link.as_str()).is_some_and(|link| link.alias == *alias)
        }
        Resource::Behind { link, address } => seen.index(link).is_some_and(|index| {
            let to: IpNetwork = (*address).into();
            let mut own = seen.routes.iter().filter(|other| other.table == route::MAIN);
            own.any(|other| (other.link, other.destination, other.gateway) == (index, to, None))
        }),
        Resource::Up { link, .. } => seen.links.get(link.as_str()).is_some_and(|link| link.up),
        Resource::Answers { link } => seen.links.get(link.as_str()).is_some_and(|link| link.answers),
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
    let right = master == bridge.as_ref().map(InterfaceName::as_str);
    let bridge = if right { bridge.clone() } else { Some(peer.clone()) };
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
