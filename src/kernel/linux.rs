//! The Linux kernel: steps become netlink messages that are sent together wherever their order allows it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use rnetkit_drivers::{
    Balanced, Family, InterfaceName, Name, Place, PortRange, Protocol, Publication, Resource,
};

use super::{
    Failed, Kernel, Known, Netns, Refusal, Underlay, address,
    behind::Deleter,
    conntrack::{self, Change},
    find::{self, Sight, Stray},
    firewall::{self, Batch, Limits, Nft, Outcome, Rejected, Scope, TableName, balance},
    lent,
    link::{self, Link, Veth},
    listeners, neighbour,
    netlink::{Requests, Route},
    netns, overlay, route,
    sandbox::Sandboxes,
    shape, sysctl,
};
use crate::plan::{Plan, Step};

/// What to do about the wait after a deletion, which the kernel spends on its own book-keeping when the thing
/// itself is gone already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Wait until the kernel is done. For programs with threads.
    Wait,
    /// Return once the thing is gone; a child process sits the rest out. For short-lived commands with one
    /// thread.
    Behind,
}

/// The kernel of this host, by way of the calling thread's network namespace.
pub struct Linux {
    table: TableName,
    deletion: Deletion,
    identity: (u64, u64),
    host: Option<Route>,
    nft: Option<Nft>,
    scope: Scope,
    /// Where sandboxes have their names, and those that were entered.
    sandboxes: Sandboxes,
}

impl Linux {
    /// The kernel as seen from the calling thread's network namespace, with rnet's tables under that name.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn new(table: TableName, deletion: Deletion) -> Result<Self, Refusal> {
        let identity = netns::Netns::own_identity()?;
        let (scope, sandboxes) = (Scope::Host, Sandboxes::none());
        Ok(Self { table, deletion, identity, host: None, nft: None, scope, sandboxes })
    }

    /// As it is, with sandboxes that have their names in that directory.
    #[must_use]
    pub fn with_sandboxes(mut self, folder: PathBuf) -> Self {
        self.sandboxes = Sandboxes::in_folder(folder);
        self
    }

    /// A sandbox, as a kernel of its own: it takes the host's place. Opens nothing yet; its sockets are opened by
    /// whoever is inside.
    pub(super) fn of_sandbox(&self, identity: (u64, u64)) -> Self {
        Self {
            // Nobody else has tables in there.
            table: TableName::default(),
            deletion: self.deletion,
            identity,
            host: None,
            nft: None,
            scope: Scope::Sandbox,
            sandboxes: Sandboxes::none(),
        }
    }

    pub(super) fn sandboxes(&mut self) -> &mut Sandboxes {
        &mut self.sandboxes
    }

    fn host(&mut self) -> Result<&mut Route, Refusal> {
        if self.host.is_none() {
            self.host = Some(Route::open()?);
        }
        self.host.as_mut().ok_or_else(|| Refusal::new(libc::EBADF))
    }

    fn nft(&mut self) -> Result<&mut Nft, Refusal> {
        if self.nft.is_none() {
            self.nft = Some(Nft::open()?);
        }
        self.nft.as_mut().ok_or_else(|| Refusal::new(libc::EBADF))
    }
}

/// What is collected before it is sent: messages to one place, or a transaction of the firewall.
#[derive(Default)]
struct Queue {
    place: Option<Place>,
    requests: Requests,
    /// The step that each request is for.
    owners: Vec<usize>,
    batch: Batch,
    /// Published ports in the batch that have flows which the kernel must forget once it is run.
    flows: Vec<(Publication, Change)>,
    /// The first step that is not yet sent.
    start: usize,
}

/// One run of steps.
struct Run<'a> {
    linux: &'a mut Linux,
    netns: Option<&'a Netns>,
    container: Option<Route>,
    queue: Queue,
    indexes: HashMap<(Place, String), u32>,
    /// The other end's name of a veth pair that is being made.
    peers: HashMap<String, String>,
    /// The step in hand.
    at: usize,
}

impl<'a> Run<'a> {
    fn new(linux: &'a mut Linux, netns: Option<&'a Netns>) -> Self {
        let mut indexes = HashMap::new();
        // Loopback is the first link of every namespace (`LOOPBACK_IFINDEX` of `net/net_namespace.h`).
        indexes.insert((Place::Container, "lo".to_owned()), 1);
        Self { linux, netns, container: None, queue: Queue::default(), indexes, peers: HashMap::new(), at: 0 }
    }

    fn netns(&self) -> Result<&'a Netns, Refusal> {
        self.netns.ok_or_else(|| Refusal::because(libc::ENOENT, "the container's network namespace is gone"))
    }

    fn socket(&mut self, place: Place) -> Result<&mut Route, Refusal> {
        match place {
            Place::Host => self.linux.host(),
            Place::Container => {
                if self.container.is_none() {
                    self.inside(|| Ok(()))?;
                }
                self.container.as_mut().ok_or_else(|| Refusal::new(libc::EBADF))
            }
        }
    }

    /// Works inside the container's namespace; the first visit also opens the socket that later messages go through.
    fn inside(&mut self, work: impl FnOnce() -> Result<(), Refusal>) -> Result<(), Refusal> {
        let netns = self.netns()?;
        let container = &mut self.container;
        netns.inside(|| {
            if container.is_none() {
                *container = Some(Route::open()?);
            }
            work()
        })?
    }

    fn failed(&self, at: usize, refusal: Refusal) -> Failed {
        Failed { at, done: self.at + 1, refusal }
    }

    /// Sends what is collected.
    fn flush(&mut self) -> Result<(), Failed> {
        self.flush_firewall()?;
        self.flush_requests()
    }

    fn flush_firewall(&mut self) -> Result<(), Failed> {
        if self.queue.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.queue.batch);
        let start = self.queue.start;
        let end = self.at;
        let nft = self.linux.nft().map_err(|refusal| Failed { at: start, done: start, refusal })?;
        nft.run(&batch).map_err(|rejected| {
            // All or nothing: no step of a refused batch was done.
            let done = if rejected.outcome == Outcome::Undone { start } else { end + 1 };
            Failed { at: rejected.owner, done, refusal: rejected.refusal }
        })?;
        self.linux.forget_flows(&std::mem::take(&mut self.queue.flows));
        Ok(())
    }

    fn flush_requests(&mut self) -> Result<(), Failed> {
        let Some(place) = self.queue.place.take() else { return Ok(()) };
        let requests = std::mem::take(&mut self.queue.requests);
        let owners = std::mem::take(&mut self.queue.owners);
        let at = self.at;
        let first = owners.first().copied().unwrap_or(at);
        let mut made = Vec::new();
        let socket = self.socket(place).map_err(|refusal| Failed { at: first, done: at, refusal })?;
        let result = socket.run(requests, |answer| made.extend(Link::read(answer)));
        for link in made {
            if let Some(peer) = self.peers.remove(&link.name) {
                self.indexes.insert((Place::Container, peer), link.peer);
            }
            self.indexes.insert((place, link.name), link.index);
        }
        result.map_err(|(number, refusal)| Failed {
            at: owners.get(number).copied().unwrap_or(first),
            done: at + 1,
            refusal,
        })
    }

    /// Collects a request; what was collected for elsewhere is sent first.
    fn request(&mut self, place: Place, message: RouteNetlinkMessage, flags: u16) -> Result<(), Failed> {
        if !self.queue.batch.is_empty() || self.queue.place.is_some_and(|other| other != place) {
            self.flush()?;
        }
        self.queue.place = Some(place);
        self.queue.requests.push(super::netlink::request(message), flags);
        self.queue.owners.push(self.at);
        Ok(())
    }

    /// The batch to collect changes of the firewall in.
    fn batch(&mut self) -> Result<(&mut Batch, TableName), Failed> {
        self.flush_requests()?;
        if self.queue.batch.is_empty() {
            self.queue.start = self.at;
        }
        Ok((&mut self.queue.batch, self.linux.table.clone()))
    }

    /// Notes that a published port changes with the batch in hand.
    fn changed(&mut self, publication: &Publication, change: Change) {
        if conntrack::concerns(publication) {
            self.queue.flows.push((publication.clone(), change));
        }
    }

    /// The index of a link; asks the kernel where it is not known from its making.
    fn index(&mut self, place: Place, name: &InterfaceName) -> Result<u32, Failed> {
        let key = (place, name.as_str().to_owned());
        if !self.indexes.contains_key(&key) {
            self.flush()?;
        }
        if let Some(index) = self.indexes.get(&key) {
            return Ok(*index);
        }
        let index = self.look_up(place, name).map_err(|refusal| self.failed(self.at, refusal))?;
        self.indexes.insert(key, index);
        Ok(index)
    }

    fn look_up(&mut self, place: Place, name: &InterfaceName) -> Result<u32, Refusal> {
        let found = link::find(self.socket(place)?, name)?;
        found
            .map(|link| link.index)
            .ok_or_else(|| Refusal::because(libc::ENODEV, format!("there is no link {name} {place}")))
    }

    fn step(&mut self, step: &Step) -> Result<(), Failed> {
        match step {
            Step::Create(resource) => self.create(resource),
            Step::Change { from, to } => self.change(from, to),
            Step::Remove(resource) => self.remove(resource),
        }
    }

    fn create(&mut self, resource: &Resource) -> Result<(), Failed> {
        let at = self.at;
        match resource {
            Resource::Firewall => {
                let scope = self.linux.scope;
                let (batch, table) = self.batch()?;
                batch.append(firewall::create(&table, scope, at));
            }
            Resource::Forwarding { family } => self.now(|| sysctl::forward(*family, true))?,
            Resource::Bridge { name, mac, mtu, group, alias } => {
                self.request(Place::Host, link::create_bridge(name, *mac, *mtu, *group), link::CREATE)?;
                let index = self.index(Place::Host, name)?;
                self.request(Place::Host, link::set_alias(index, alias), 0)?;
            }
            Resource::Veth { .. } => self.create_veth(resource)?,
            Resource::Ifb { name, group, alias } => {
                self.request(Place::Host, shape::create_ifb(name, *group), link::CREATE)?;
                let index = self.index(Place::Host, name)?;
                self.request(Place::Host, link::set_alias(index, alias), 0)?;
            }
            Resource::Redirect { link, through } => self.redirect(link, through)?,
            Resource::Rate { link, rate, burst } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, shape::set_rate(index, *rate, *burst), shape::CREATE)?;
            }
            Resource::Port { .. } => self.set_port(resource, NLM_F_CREATE | NLM_F_EXCL)?,
            Resource::Setting { place, link, setting } => match place {
                Place::Host => self.now(|| sysctl::apply(link, *setting))?,
                Place::Container => {
                    self.flush()?;
                    self.inside(|| sysctl::apply(link, *setting))
                        .map_err(|refusal| self.failed(at, refusal))?;
                }
            },
            Resource::Address { place, link, address } => {
                let index = self.index(*place, link)?;
                self.request(*place, address::add(index, *address), NLM_F_CREATE | NLM_F_EXCL)?;
                // Of what is sent together, the kernel may leave out the address alone when the sender is killed in it;
                // and a bridge that is up and has none looks whole to a connect.
                if *place == Place::Host {
                    self.flush()?;
                }
            }
            Resource::Up { place, link } => {
                let index = self.index(*place, link)?;
                self.request(*place, link::set_up(index), 0)?;
            }
            Resource::DefaultRoute { gateway, link } => {
                let index = self.index(Place::Container, link)?;
                let message = RouteNetlinkMessage::NewRoute(route::default(*gateway, index));
                self.request(Place::Container, message, NLM_F_CREATE | NLM_F_EXCL)?;
            }
            Resource::Route { link, route } => {
                let index = self.index(Place::Container, link)?;
                let message = RouteNetlinkMessage::NewRoute(route::to(route, index));
                self.request(Place::Container, message, NLM_F_CREATE | NLM_F_EXCL)?;
            }
            Resource::Sysctl { name, value, .. } => {
                self.flush()?;
                let set = self.netns().and_then(|netns| netns.inside(|| sysctl::set(name, value))?);
                set.map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Tuned { link, tuning } => {
                let index = self.index(Place::Container, link)?;
                self.request(Place::Container, link::tune(index, tuning), 0)?;
            }
            Resource::Member(member) => {
                let (batch, table) = self.batch()?;
                firewall::add_member(batch, &table, member, at);
            }
            Resource::Guarded { link, rate, most } => {
                let limits = Limits { link, rate: *rate, most: *most };
                let (batch, table) = self.batch()?;
                firewall::limit(batch, &table, &limits, at);
            }
            Resource::Balanced(port) => self.balance(None, Some(port))?,
            Resource::Published(publication) => {
                let (batch, table) = self.batch()?;
                firewall::publish(batch, &table, publication, at);
                self.changed(publication, Change::Opened);
            }
            Resource::Inside { .. } => self.in_sandbox(&[Step::Create(resource.clone())])?,
            Resource::Sandbox { name, .. } => {
                self.flush()?;
                self.linux.sandboxes.create(name).map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Tunnel(tunnel) => {
                self.flush()?;
                self.linux.create_tunnel(tunnel).map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Uplink(uplink) => {
                self.flush()?;
                self.linux.create_uplink(uplink).map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Answers { link } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, overlay::set_answers(index, true), 0)?;
            }
            Resource::Neighbour { link, address, mac } => {
                let index = self.index(Place::Host, link)?;
                let message = overlay::neighbour(index, *address, *mac);
                self.request(Place::Host, RouteNetlinkMessage::NewNeighbour(message), overlay::REPLACE)?;
            }
            Resource::Remote { link, mac, via } => {
                let index = self.index(Place::Host, link)?;
                for message in [overlay::behind_host(index, *mac, *via), overlay::behind_tunnel(index, *mac)]
                {
                    self.request(Place::Host, RouteNetlinkMessage::NewNeighbour(message), overlay::REPLACE)?;
                }
            }
        }
        Ok(())
    }

    /// Sets how the bridge treats a port. `flags`: whether what is behind it may be known already.
    fn set_port(&mut self, resource: &Resource, flags: u16) -> Result<(), Failed> {
        let Resource::Port { link, alias, isolated, hairpin, pinned } = resource else { return Ok(()) };
        let index = self.index(Place::Host, link)?;
        self.request(Place::Host, link::set_port(index, *isolated, *hairpin, pinned.is_some()), 0)?;
        if let Some(mac) = pinned {
            self.request(Place::Host, neighbour::add_static(index, *mac), flags)?;
        }
        self.request(Place::Host, link::set_alias(index, alias), 0)
    }

    /// Steps of one sandbox, one after the other: they are run there by a kernel of its own.
    fn in_sandbox(&mut self, steps: &[Step]) -> Result<(), Failed> {
        self.flush()?;
        let at = self.at;
        let Some((sandbox, _)) = steps.first().and_then(Step::inside) else { return Ok(()) };
        let sandbox = sandbox.clone();
        let inner: Vec<Step> = steps.iter().filter_map(|step| Some(step.inside()?.1)).collect();
        let netns = self.netns;
        let run = self.linux.enter(&sandbox, |linux, _| linux.run_each(&inner, netns));
        let failed = |refusal| Failed { at, done: at, refusal };
        run.map_err(failed)?.map_err(|inner| Failed {
            at: at + inner.at,
            done: at + inner.done,
            refusal: inner.refusal,
        })
    }

    fn create_veth(&mut self, resource: &Resource) -> Result<(), Failed> {
        let Resource::Veth { name, bridge, peer, mac, mtu, group } = resource else { return Ok(()) };
        let master = self.living_bridge(bridge)?;
        let netns = self.netns().map_err(|refusal| self.failed(self.at, refusal))?;
        let netns = std::os::fd::AsFd::as_fd(netns);
        let veth = Veth { name, bridge: master, peer, netns, mac: *mac, mtu: *mtu, group: *group };
        self.request(Place::Host, veth.create(), link::CREATE)?;
        self.peers.insert(name.as_str().to_owned(), peer.as_str().to_owned());
        Ok(())
    }

    /// The index of a bridge that is up. That it is costs no question: the answer that has the index says so.
    fn living_bridge(&mut self, bridge: &InterfaceName) -> Result<u32, Failed> {
        let key = (Place::Host, bridge.as_str().to_owned());
        if let Some(index) = self.indexes.get(&key) {
            return Ok(*index);
        }
        self.flush()?;
        let fail = |refusal| Failed { at: self.at, done: self.at + 1, refusal };
        let found = self.linux.host().and_then(|host| link::find(host, bridge)).map_err(fail)?;
        match found {
            Some(link) if link.up => {
                self.indexes.insert(key, link.index);
                Ok(link.index)
            }
            Some(_) => Err(fail(Refusal::because(libc::ENETDOWN, format!("bridge {bridge} is down")))),
            None => Err(fail(Refusal::because(
                libc::ENODEV,
                format!("there is no link {bridge} {}", Place::Host),
            ))),
        }
    }

    fn redirect(&mut self, link: &InterfaceName, through: &InterfaceName) -> Result<(), Failed> {
        let (index, through) = (self.index(Place::Host, link)?, self.index(Place::Host, through)?);
        self.request(Place::Host, shape::add_ingress(index), shape::CREATE)?;
        self.request(Place::Host, shape::redirect(index, through), shape::CREATE)
    }

    /// Shares a host port among these, and no longer among those. What it leads to is looked at first.
    fn balance(&mut self, from: Option<&Balanced>, to: Option<&Balanced>) -> Result<(), Failed> {
        self.flush()?;
        let at = self.at;
        let table = self.linux.table.clone();
        let nft = self.linux.nft().map_err(|refusal| Failed { at, done: at, refusal })?;
        let done = match (from, to) {
            (_, Some(port)) => balance::set(nft, &table, port),
            (Some(port), None) => balance::unset(nft, &table, port),
            (None, None) => Ok(()),
        };
        done.map_err(|rejected| {
            let done = if rejected.outcome == Outcome::Undone { at } else { at + 1 };
            Failed { at, done, refusal: rejected.refusal }
        })?;
        let members = |port: Option<&Balanced>| port.map(|port| port.members.clone()).unwrap_or_default();
        let (before, after) = (members(from), members(to));
        let gone =
            before.iter().filter(|member| !after.contains(member)).map(|member| (member, Change::Closed));
        let come =
            after.iter().filter(|member| !before.contains(member)).map(|member| (member, Change::Opened));
        let flows = gone.chain(come).filter(|(member, _)| conntrack::concerns(member));
        let flows: Vec<(Publication, Change)> =
            flows.map(|(member, change)| (member.clone(), change)).collect();
        self.linux.forget_flows(&flows);
        Ok(())
    }

    /// Something that is no message: what is collected goes first.
    fn now(&mut self, work: impl FnOnce() -> Result<(), Refusal>) -> Result<(), Failed> {
        self.flush()?;
        work().map_err(|refusal| self.failed(self.at, refusal))
    }

    fn change(&mut self, from: &Resource, to: &Resource) -> Result<(), Failed> {
        match to {
            Resource::DefaultRoute { gateway, link } => {
                let index = self.index(Place::Container, link)?;
                let message = RouteNetlinkMessage::NewRoute(route::default(*gateway, index));
                self.request(Place::Container, message, route::REPLACE)
            }
            Resource::Port { pinned, .. } => {
                // What is behind it is known already, unless it is to be another.
                let same =
                    !matches!(from, Resource::Port { pinned: Some(before), .. } if Some(*before) != *pinned);
                self.set_port(to, if same { route::REPLACE } else { NLM_F_CREATE | NLM_F_EXCL })
            }
            Resource::Neighbour { .. } | Resource::Remote { .. } => self.create(to),
            Resource::Inside { .. } => {
                self.in_sandbox(&[Step::Change { from: from.clone(), to: to.clone() }])
            }
            Resource::Tunnel(tunnel) => {
                self.flush()?;
                self.linux.set_tunnel(tunnel).map_err(|refusal| self.failed(self.at, refusal))
            }
            Resource::Uplink(uplink) => {
                self.flush()?;
                self.linux.set_uplink(uplink).map_err(|refusal| self.failed(self.at, refusal))
            }
            Resource::Balanced(port) => match from {
                Resource::Balanced(before) => self.balance(Some(before), Some(port)),
                _ => self.create(to),
            },
            Resource::Rate { link, rate, burst } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, shape::set_rate(index, *rate, *burst), shape::REPLACE)
            }
            Resource::Veth { name, bridge, .. } => {
                let index = self.index(Place::Host, name)?;
                let bridge = self.index(Place::Host, bridge)?;
                self.request(Place::Host, link::set_master(index, bridge), 0)
            }
            Resource::Bridge { name, mac, mtu, alias, .. } => {
                let index = self.index(Place::Host, name)?;
                self.request(Place::Host, link::set_bridge(index, *mac, *mtu), 0)?;
                self.request(Place::Host, link::set_alias(index, alias), 0)
            }
            _ => {
                self.remove(from)?;
                self.create(to)
            }
        }
    }

    fn remove(&mut self, resource: &Resource) -> Result<(), Failed> {
        let at = self.at;
        match resource {
            Resource::Firewall => {
                let scope = self.linux.scope;
                let (batch, table) = self.batch()?;
                batch.append(firewall::delete(&table, scope, at));
            }
            Resource::Forwarding { family } => {
                self.flush()?;
                let needed =
                    self.linux.guarded_by_others(*family).map_err(|refusal| self.failed(at, refusal))?;
                if !needed {
                    self.now(|| sysctl::forward(*family, false))?;
                }
            }
            Resource::Bridge { name, group, .. }
            | Resource::Veth { name, group, .. }
            | Resource::Ifb { name, group, .. } => self.delete_link(name, *group)?,
            Resource::Redirect { link, .. } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, shape::delete_ingress(index), 0)?;
            }
            Resource::Rate { link, .. } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, shape::delete_rate(index), 0)?;
            }
            Resource::Port { .. }
            | Resource::Setting { .. }
            | Resource::Sysctl { .. }
            | Resource::Tuned { .. } => {}
            Resource::Address { place, link, address } => {
                let index = self.index(*place, link)?;
                self.request(*place, address::delete(index, *address), 0)?;
            }
            Resource::Up { place, link } => {
                let index = self.index(*place, link)?;
                self.request(*place, link::set_down(index), 0)?;
            }
            Resource::DefaultRoute { gateway, link } => {
                let index = self.index(Place::Container, link)?;
                let message = RouteNetlinkMessage::DelRoute(route::default(*gateway, index));
                self.request(Place::Container, message, 0)?;
            }
            Resource::Route { link, route } => {
                let index = self.index(Place::Container, link)?;
                let message = RouteNetlinkMessage::DelRoute(route::to(route, index));
                self.request(Place::Container, message, 0)?;
            }
            Resource::Member(member) => {
                let (batch, table) = self.batch()?;
                firewall::remove_member(batch, &table, member, at);
            }
            Resource::Guarded { link, rate, most } => {
                let limits = Limits { link, rate: *rate, most: *most };
                let (batch, table) = self.batch()?;
                firewall::unlimit(batch, &table, &limits, at);
            }
            Resource::Balanced(port) => self.balance(Some(port), None)?,
            Resource::Published(publication) => {
                let (batch, table) = self.batch()?;
                firewall::unpublish(batch, &table, publication, at);
                self.changed(publication, Change::Closed);
            }
            Resource::Inside { .. } => self.in_sandbox(&[Step::Remove(resource.clone())])?,
            Resource::Sandbox { name, group } => {
                self.flush()?;
                self.linux.remove_sandbox(name, *group).map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Tunnel(tunnel) => {
                self.flush()?;
                let removed = self.linux.enter(&tunnel.sandbox, |linux, _| linux.remove_link(&tunnel.name));
                removed.and_then(|removed| removed).map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Uplink(uplink) => self.delete_link(&uplink.name, uplink.group)?,
            Resource::Answers { link } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, overlay::set_answers(index, false), 0)?;
            }
            Resource::Neighbour { link, address, mac } => {
                let index = self.index(Place::Host, link)?;
                let message = overlay::neighbour(index, *address, *mac);
                self.request(Place::Host, RouteNetlinkMessage::DelNeighbour(message), 0)?;
            }
            Resource::Remote { link, mac, via } => {
                let index = self.index(Place::Host, link)?;
                for message in [overlay::behind_tunnel(index, *mac), overlay::behind_host(index, *mac, *via)]
                {
                    self.request(Place::Host, RouteNetlinkMessage::DelNeighbour(message), 0)?;
                }
            }
        }
        Ok(())
    }

    /// Deletes a link of ours: one with that name in another group is somebody else's.
    fn delete_link(&mut self, name: &InterfaceName, group: u32) -> Result<(), Failed> {
        self.flush()?;
        let at = self.at;
        let fail = |refusal| Failed { at, done: at + 1, refusal };
        let host = self.linux.host().map_err(fail)?;
        let found = link::find(host, name).map_err(fail)?;
        let Some(found) = found.filter(|found| found.group == group) else {
            return Err(fail(Refusal::because(libc::ENODEV, format!("there is no link {name} of rnet"))));
        };
        self.linux.delete(&link::delete(found.index), found.index).map_err(fail)
    }
}

impl Linux {
    /// Sends a request that deletes the link with that index, and returns once it is gone.
    pub(super) fn delete(&mut self, message: &RouteNetlinkMessage, index: u32) -> Result<(), Refusal> {
        match self.deletion {
            Deletion::Wait => self.delete_and_wait(message),
            Deletion::Behind => {
                let held = self.nft.as_ref().map(|nft| nft.channel().socket().as_raw_fd());
                match Deleter::open().and_then(|deleter| deleter.delete(message, index, held)) {
                    // No file or process to spare: then the wait is this one's to sit out.
                    Err(refusal)
                        if [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM]
                            .contains(&refusal.errno) =>
                    {
                        self.delete_and_wait(message)
                    }
                    done => done,
                }
            }
        }
    }

    fn delete_and_wait(&mut self, message: &RouteNetlinkMessage) -> Result<(), Refusal> {
        let mut requests = Requests::default();
        requests.push(super::netlink::request(message.clone()), NLM_F_ACK);
        self.host()?.run(requests, |_| ()).map_err(|(_, refusal)| refusal)
    }

    /// The links of a network that goes as a whole go in one message.
    fn delete_group(&mut self, steps: &[Step]) -> Option<(usize, Result<(), Refusal>)> {
        let mut group = None;
        let mut links = Vec::new();
        let mut whole = None;
        for step in steps {
            let Step::Remove(
                Resource::Bridge { name, group: of, .. }
                | Resource::Veth { name, group: of, .. }
                | Resource::Ifb { name, group: of, .. },
            ) = step
            else {
                break;
            };
            if group.is_some_and(|group| group != *of) {
                break;
            }
            group = Some(*of);
            links.push(name);
            if matches!(step, Step::Remove(Resource::Bridge { .. })) {
                whole = Some(links.len());
            }
        }
        let count = whole.filter(|count| *count > 1)?;
        let bridge = links[count - 1];
        let result = self.host().and_then(|host| link::find(host, bridge)).and_then(|found| match found {
            Some(found) if Some(found.group) == group => {
                self.delete(&link::delete_group(found.group), found.index)
            }
            _ => Err(Refusal::because(libc::ENODEV, format!("there is no link {bridge} of rnet"))),
        });
        Some((count, result))
    }

    /// Makes the kernel forget flows that the changes put in the wrong. The ports themselves are right by then, so
    /// a kernel that refuses is no reason to take them back: the flows then end by themselves.
    fn forget_flows(&mut self, changes: &[(Publication, Change)]) {
        if changes.is_empty() {
            return;
        }
        let forgotten = self
            .addresses()
            .and_then(|locals| conntrack::forget(self.nft()?.channel_mut(), changes, &locals));
        if let Err(refusal) = forgotten {
            tracing::warn!("UDP flows of published ports are not forgotten: {refusal}");
        }
    }

    /// The host's own addresses.
    fn addresses(&mut self) -> Result<Vec<IpAddr>, Refusal> {
        let list = self.host()?.dump(&address::list(), address::read)?;
        Ok(list.into_iter().map(|(_, address)| address.ip()).collect())
    }

    /// Does one step as far as it is not done yet, element by element.
    fn settle_step(&mut self, step: &Step, netns: Option<&Netns>) -> Result<(), Refusal> {
        let alone = |linux: &mut Self| {
            linux.run_each(std::slice::from_ref(step), netns).map_err(|failed| failed.refusal)
        };
        if let Some((sandbox, inner)) = step.inside() {
            let sandbox = sandbox.clone();
            return self.enter(&sandbox, |linux, _| linux.settle_step(&inner, netns))?;
        }
        let (made, unmade) = match step {
            Step::Remove(Resource::Member(member)) => {
                (Vec::new(), firewall::member_parts(&self.table, member, false))
            }
            Step::Create(Resource::Member(member)) => {
                let parts = |make| firewall::member_parts(&self.table, member, make);
                (parts(true), parts(false))
            }
            Step::Remove(Resource::Published(publication)) => {
                (Vec::new(), firewall::publication_parts(&self.table, publication, false))
            }
            Step::Create(Resource::Published(publication)) => {
                let parts = |make| firewall::publication_parts(&self.table, publication, make);
                (parts(true), parts(false))
            }
            // What is left of it goes first: it is made as a whole.
            Step::Create(Resource::Guarded { link, rate, most }) => {
                let limits = Limits { link, rate: *rate, most: *most };
                for part in firewall::limit_parts(&self.table, &limits) {
                    let _ = self.nft()?.run(&part);
                }
                return alone(self);
            }
            Step::Remove(Resource::Guarded { link, rate, most }) => {
                let limits = Limits { link, rate: *rate, most: *most };
                (Vec::new(), firewall::limit_parts(&self.table, &limits))
            }
            _ => return alone(self),
        };
        let mut first = Ok(());
        let mut note = |result: Result<(), Rejected>| match result {
            Err(Rejected { refusal, .. }) if !is_settled(&refusal) => first = first.clone().and(Err(refusal)),
            _ => {}
        };
        if made.is_empty() {
            unmade.iter().try_for_each(|part| self.nft().map(|nft| note(nft.run(part))))?;
        }
        // An element that is there may lead elsewhere than it must.
        for (make, unmake) in made.iter().zip(&unmade) {
            match self.nft()?.run(make) {
                Err(Rejected { refusal, .. }) if refusal.errno == libc::EEXIST => {
                    note(self.nft()?.run(unmake));
                    note(self.nft()?.run(make));
                }
                result => note(result),
            }
        }
        match step {
            Step::Create(Resource::Published(port)) if conntrack::concerns(port) => {
                self.forget_flows(&[(port.clone(), Change::Opened)]);
            }
            Step::Remove(Resource::Published(port)) if conntrack::concerns(port) => {
                self.forget_flows(&[(port.clone(), Change::Closed)]);
            }
            _ => {}
        }
        first
    }

    /// Where many elements of the firewall are to come and go: all in one transaction, by what the sets hold now.
    /// Returns the steps that are done so; none where they are few, or where the tables themselves are to be made first.
    fn settle_elements<'a>(&mut self, plan: &'a Plan) -> HashSet<&'a Step> {
        const FEW: usize = 16;
        let resource = |step: &'a Step| match step {
            Step::Create(resource @ (Resource::Member(_) | Resource::Published(_))) => Some((resource, true)),
            Step::Remove(resource @ (Resource::Member(_) | Resource::Published(_))) => {
                Some((resource, false))
            }
            Step::Create(_) | Step::Change { .. } | Step::Remove(_) => None,
        };
        let steps: HashSet<&Step> = plan.steps.iter().filter(|step| resource(step).is_some()).collect();
        let tables = plan.steps.contains(&Step::Create(Resource::Firewall));
        if steps.len() <= FEW || tables {
            return HashSet::new();
        }
        let of = |wanted: bool| {
            plan.steps
                .iter()
                .filter_map(resource)
                .filter(move |r| r.1 == wanted)
                .map(|r| r.0)
                .collect::<Vec<_>>()
        };
        let table = self.table.clone();
        let done = self.nft().and_then(|nft| firewall::converge(nft, &table, &of(true), &of(false)));
        if done.is_err() {
            return HashSet::new();
        }
        let changes = steps.iter().filter_map(|step| match step {
            Step::Create(Resource::Published(port)) => Some((port.clone(), Change::Opened)),
            Step::Remove(Resource::Published(port)) => Some((port.clone(), Change::Closed)),
            _ => None,
        });
        let changes: Vec<(Publication, Change)> =
            changes.filter(|(port, _)| conntrack::concerns(port)).collect();
        self.forget_flows(&changes);
        steps
    }

    fn run_each(&mut self, steps: &[Step], netns: Option<&Netns>) -> Result<(), Failed> {
        let mut run = Run::new(self, netns);
        let mut at = 0;
        while at < steps.len() {
            run.at = at;
            if let Some((sandbox, _)) = steps[at].inside() {
                let same = |step: &&Step| step.inside().is_some_and(|(other, _)| other == sandbox);
                let count = steps[at..].iter().take_while(same).count();
                run.in_sandbox(&steps[at..at + count])?;
                at += count;
                continue;
            }
            if matches!(steps[at], Step::Remove(Resource::Veth { .. } | Resource::Ifb { .. })) {
                run.flush()?;
                if let Some((count, result)) = run.linux.delete_group(&steps[at..]) {
                    result.map_err(|refusal| Failed { at, done: at + count, refusal })?;
                    at += count;
                    continue;
                }
            }
            run.step(&steps[at])?;
            at += 1;
        }
        run.at = steps.len();
        run.flush()
    }
}

/// Whether a refusal says that the step was done before.
fn is_settled(refusal: &Refusal) -> bool {
    refusal.is_missing() || refusal.errno == libc::EEXIST
}

impl Kernel for Linux {
    type Netns = Netns;
    type Sight = Sight;

    fn open(&self, path: &Path) -> Result<Netns, Refusal> {
        Netns::open(path)
    }

    fn identity(&self, netns: &Netns) -> (u64, u64) {
        netns.identity()
    }

    fn run(&mut self, steps: &[Step], netns: Option<&Netns>) -> Result<(), Failed> {
        self.run_each(steps, netns)
    }

    fn settle(&mut self, plan: &Plan, netns: Option<&Netns>) -> Vec<(Step, Refusal)> {
        if self.run_each(&plan.steps, netns).is_ok() {
            return Vec::new();
        }
        let mut left = Vec::new();
        let many = self.settle_elements(plan);
        for step in &plan.steps {
            if many.contains(&step) {
                continue;
            }
            match self.settle_step(step, netns) {
                Err(refusal) if !is_settled(&refusal) => left.push((step.clone(), refusal)),
                _ => {}
            }
        }
        left
    }

    fn find(
        &mut self,
        resources: &[Resource],
        netns: Option<&Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        find::find(self, resources, netns)
    }

    fn look(&mut self) -> Result<Sight, Refusal> {
        find::look(self)
    }

    fn find_in(
        &mut self,
        sight: &Sight,
        resources: &[Resource],
        netns: Option<&Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        find::find_in(self, sight, resources, netns)
    }

    fn strays(&self, sight: &Sight, resources: &[Resource], marks: &[String]) -> Vec<Stray> {
        find::strays(sight, resources, marks)
    }

    fn remove_strays(&mut self, strays: &[Stray]) -> Vec<(Stray, Refusal)> {
        let mut left = Vec::new();
        let mut elements = Vec::new();
        for stray in strays {
            match stray {
                Stray::Link { index, .. } => match self.delete(&link::delete(*index), *index) {
                    Err(refusal) if !is_settled(&refusal) => left.push((stray.clone(), refusal)),
                    _ => {}
                },
                Stray::Element(element) => elements.push(element.clone()),
            }
        }
        let table = self.table.clone();
        let removed = self.nft().and_then(|nft| firewall::remove_strays(nft, &table, &elements));
        if let (Err(refusal), Some(first)) = (removed, elements.first()) {
            left.push((Stray::Element(first.clone()), refusal));
        }
        left
    }

    fn subnets(&mut self) -> Result<Vec<Known>, Refusal> {
        let host = self.host()?;
        let links = host.dump(&link::list(), Link::read)?;
        let names: HashMap<u32, String> = links.into_iter().map(|link| (link.index, link.name)).collect();
        let mut known = resolvers();
        for ipv6 in [false, true] {
            let routes = host.dump(&route::list(ipv6), route::read)?.into_iter();
            let routes = routes.filter(|route| route.is_unicast && route.destination.prefix() > 0);
            known.extend(routes.map(|route| {
                let link = names.get(&route.link).map_or("another interface", String::as_str);
                Known { subnet: route.destination, how: format!("the host's route through {link}") }
            }));
        }
        Ok(known)
    }

    fn listener(
        &mut self,
        address: IpAddr,
        ports: PortRange,
        protocol: Protocol,
    ) -> Result<Option<(u16, String)>, Refusal> {
        listeners::find(address, ports, protocol)
    }

    fn free_port_range(&mut self) -> PortRange {
        let (first, last) = sysctl::local_port_range().unwrap_or((32768, 60999));
        PortRange { first: first.max(1), last: last.max(first).max(1) }
    }

    fn has_tables(&mut self, table: &TableName) -> Result<bool, Refusal> {
        firewall::exists(self.nft()?, table)
    }

    fn guarded_by_others(&mut self, family: Family) -> Result<bool, Refusal> {
        let table = self.table.clone();
        firewall::guarded_by_others(self.nft()?, &table, family)
    }

    fn underlay(&mut self, address: Option<IpAddr>) -> Result<Underlay, Refusal> {
        let host = self.host()?;
        let addresses = host.dump(&address::list(), address::read)?;
        let link = match address {
            Some(wanted) => addresses.iter().find(|(_, own)| own.ip() == wanted).map(|(link, _)| *link),
            None => default_link(host)?,
        };
        let usable = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let of_link = || {
            let mut all = addresses.iter().filter(|(of, _)| Some(*of) == link).map(|(_, own)| own.ip());
            all.find(usable)
        };
        let missing = || match address {
            Some(address) => {
                Refusal::because(libc::EADDRNOTAVAIL, format!("{address} is no address of this host"))
            }
            None => Refusal::because(libc::EADDRNOTAVAIL, "there is no default route that would tell"),
        };
        let address = address.or_else(of_link).filter(|_| link.is_some()).ok_or_else(missing)?;
        let links = host.dump(&link::list(), Link::read)?;
        let found = links.into_iter().find(|found| Some(found.index) == link).ok_or_else(missing)?;
        Ok(Underlay { address, mtu: found.mtu })
    }

    fn use_tables(&mut self, table: TableName) {
        self.table = table;
    }

    fn lend_files(&mut self, name: &Name, folder: &Path) -> Result<bool, Refusal> {
        lent::lend(name, folder)
    }

    fn take_back_files(&mut self, name: &Name, folder: &Path) -> Result<(), Refusal> {
        lent::take_back(name, folder)
    }

    fn take_back_dead_files(&mut self, folder: &Path) {
        lent::take_back_dead(folder);
    }

    fn host_identity(&self) -> (u64, u64) {
        self.identity
    }
}

/// The link that the default route leads through; IPv4's before IPv6's.
fn default_link(host: &mut Route) -> Result<Option<u32>, Refusal> {
    for ipv6 in [false, true] {
        let routes = host.dump(&route::list(ipv6), route::read)?;
        let leads_out = |route: &&route::Route| {
            route.is_unicast && route.table == route::MAIN && route.destination.prefix() == 0
        };
        if let Some(route) = routes.iter().find(leads_out) {
            return Ok(Some(route.link));
        }
    }
    Ok(None)
}

/// The addresses of the host's name servers.
fn resolvers() -> Vec<Known> {
    const LONGEST: usize = 64 * 1024;
    let Ok(mut text) = fs::read("/etc/resolv.conf") else { return Vec::new() };
    text.truncate(LONGEST);
    let text = String::from_utf8_lossy(&text);
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses
        .map(|address| Known { subnet: address.into(), how: "a name server of the host".to_owned() })
        .collect()
}

/// What finding needs of the sockets.
impl Linux {
    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    pub(super) fn finding_host(&mut self) -> Result<&mut Route, Refusal> {
        self.host()
    }

    pub(super) fn finding_firewall(&mut self) -> Result<(&mut Nft, TableName), Refusal> {
        let table = self.table.clone();
        Ok((self.nft()?, table))
    }
}
