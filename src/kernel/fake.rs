//! A host in memory that can refuse or die at any step: what the verbs are tested on without root.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Family, Id, InterfaceName, Member, Name, Place, PortRange, Protocol, Resource};

use super::{Failed, Kernel, Known, Refusal, Stray, TableName, Underlay};
use crate::plan::{Plan, Step};

/// Device and inode of a namespace.
type Identity = (u64, u64);

/// A kernel that keeps resources in memory, and refuses what Linux refuses: what exists already, what would live on
/// a link that is not there, one port too many.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    /// What exists, and the container's namespace that it reaches into: a veth pair with its far end, everything
    /// else by being there.
    pub resources: Vec<(Option<Identity>, Resource)>,
    /// The namespace files. `None` is the host's own.
    pub namespaces: BTreeMap<PathBuf, Option<Identity>>,
    /// Refuse the step with that number, counted from 0 over all that is run and taken back.
    pub fail_at: Option<usize>,
    /// Die before the step with that number: unwinds with [`Killed`], so that nothing of the verb runs on, and all
    /// its locks are let go.
    pub die_at: Option<usize>,
    /// The steps so far, those of `fail_at` and `die_at` included.
    pub log: Vec<Step>,
    /// Subnets that the host routes.
    pub routed: Vec<IpNetwork>,
    /// Ports on which processes of the host listen.
    pub listening: Vec<(IpAddr, u16, Protocol)>,
    /// The folders that named namespaces see in /etc.
    pub lent: BTreeMap<String, PathBuf>,
    /// Sandboxes, each a host of its own.
    pub sandboxes: BTreeMap<InterfaceName, Fake>,
}

/// What a verb unwinds with when its kernel dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed;

impl Fake {
    /// The host's own namespace.
    const HOST: Identity = (0, 0);

    /// Everything that exists, as text, sorted: to compare two states. What outlives its owner is left out.
    #[must_use]
    pub fn host(&self) -> Vec<String> {
        let mortal = self.resources.iter().filter(|(_, resource)| !resource.is_kept());
        let mut list: Vec<String> = mortal.map(|(_, resource)| resource.to_string()).collect();
        for (name, sandbox) in &self.sandboxes {
            let own = sandbox.resources.iter().map(|(_, resource)| resource);
            // Ends of the host's own links.
            let own = own.filter(|r| !matches!(r, Resource::Tunnel(_) | Resource::Uplink(_)));
            list.extend(own.map(|resource| format!("{resource}, in sandbox {name}")));
        }
        list.sort();
        list
    }

    /// A namespace dies, and with it all links that have an end in it.
    pub fn end(&mut self, path: &Path) {
        let Some(ended) = self.namespaces.remove(path) else { return };
        self.end_links(ended);
    }

    fn end_links(&mut self, ended: Option<Identity>) {
        self.sandboxes.values_mut().for_each(|sandbox| sandbox.end_links(ended));
        let links = |(place, resource): &(Option<Identity>, Resource)| match resource {
            Resource::Veth { .. } if *place == ended => Some(resource.clone()),
            _ => None,
        };
        let veths: Vec<Resource> = self.resources.iter().filter_map(links).collect();
        veths.iter().for_each(|veth| self.drop_link(veth));
        self.resources.retain(|(place, _)| place.is_none() || *place != ended);
    }

    /// Somebody else deletes a thing.
    pub fn lose(&mut self, lost: &Resource) {
        if let Some((name, what)) = lost.inside() {
            if let Some(sandbox) = self.sandboxes.get_mut(name) {
                sandbox.lose(what);
            }
            return;
        }
        if let Resource::Sandbox { name, .. } = lost {
            self.drop_sandbox(name);
        }
        self.drop_link(lost);
        self.resources.retain(|(_, resource)| resource != lost);
    }

    /// The namespace that a resource is kept under.
    fn place(resource: &Resource, netns: Option<&Identity>) -> Option<Identity> {
        let inside = resource.is_inside() || matches!(resource, Resource::Veth { .. });
        netns.copied().filter(|_| inside)
    }

    fn position(&self, wanted: &Resource, netns: Option<&Identity>) -> Option<usize> {
        let inside = wanted.is_inside();
        let is_it = |resource: &Resource| match resource {
            Resource::Bridge { .. } | Resource::Veth { .. } | Resource::Ifb { .. } => {
                resource.is_same_thing(wanted)
            }
            Resource::Balanced(_) | Resource::Child(_) => resource.is_same_thing(wanted),
            _ => resource == wanted,
        };
        self.resources
            .iter()
            .position(|(place, resource)| is_it(resource) && (!inside || *place == netns.copied()))
    }

    fn has_link(&self, place: Place, link: &InterfaceName, netns: Option<&Identity>) -> bool {
        let within = |at: &Option<Identity>| place == Place::Host || *at == netns.copied();
        *link == InterfaceName::loopback()
            || self.resources.iter().any(|(at, other)| within(at) && other.carries(place, link))
            || self.extra_links().any(|name| name == *link)
            || place == Place::Container && self.far_ends().contains(&(netns.copied(), link.clone()))
    }

    /// Links that are no bridges and no containers': tunnels, and sandboxes' ends of the ways to the host.
    fn extra_links(&self) -> impl Iterator<Item = InterfaceName> {
        self.resources.iter().filter_map(|(_, resource)| match resource {
            Resource::Tunnel(tunnel) => Some(tunnel.name.clone()),
            Resource::Uplink(uplink) => Some(uplink.peer.clone()),
            _ => None,
        })
    }

    /// The ends in containers of links that begin in sandboxes.
    fn far_ends(&self) -> Vec<(Option<Identity>, InterfaceName)> {
        let ends = self.sandboxes.values().flat_map(|sandbox| &sandbox.resources);
        ends.filter_map(|(at, resource)| match resource {
            Resource::Veth { peer, .. } => Some((*at, peer.clone())),
            _ => None,
        })
        .collect()
    }

    /// What lived on the ends in containers that went goes along.
    fn lose_far_ends(&mut self, before: &[(Option<Identity>, InterfaceName)]) {
        let now = self.far_ends();
        for (at, link) in before.iter().filter(|end| !now.contains(end)) {
            self.resources.retain(|(place, other)| match other.lives_on() {
                Some((Place::Container, name)) => place != at || name != link,
                _ => true,
            });
        }
    }

    fn step(&mut self, step: &Step, netns: Option<&Identity>) -> Result<(), Refusal> {
        let number = self.log.len();
        self.log.push(step.clone());
        if self.die_at == Some(number) {
            std::panic::resume_unwind(Box::new(Killed));
        }
        if self.fail_at == Some(number) {
            return Err(Refusal::because(libc::EIO, "refused by the test"));
        }
        self.take(step, netns)
    }

    fn take(&mut self, step: &Step, netns: Option<&Identity>) -> Result<(), Refusal> {
        if let Some((name, inner)) = step.inside() {
            let missing = || Refusal::because(libc::ENOENT, format!("there is no sandbox {name}"));
            let before = self.far_ends();
            self.sandboxes.get_mut(name).ok_or_else(missing)?.take(&inner, netns)?;
            self.lose_far_ends(&before);
            return Ok(());
        }
        match step {
            Step::Create(resource) => self.create(resource, netns),
            Step::Change { from, to } => {
                self.resources.retain(|(place, other)| {
                    !(other.is_same_thing(from) && *place == Self::place(from, netns))
                });
                self.create(to, netns)
            }
            Step::Remove(resource) => self.remove(resource, netns),
        }
    }

    fn create(&mut self, resource: &Resource, netns: Option<&Identity>) -> Result<(), Refusal> {
        if let Some((place, link)) = resource.lives_on()
            && !self.has_link(place, link, netns)
        {
            return Err(Refusal::because(libc::ENODEV, format!("there is no link {link} {place}")));
        }
        if let Resource::Veth { bridge: Some(bridge), .. } = resource {
            self.check_bridge(bridge)?;
        }
        let place = Self::place(resource, netns);
        if matches!(resource, Resource::Balanced(_)) {
            // Whatever the port led to.
            self.resources.retain(|(_, other)| !other.is_same_thing(resource));
        }
        if self.resources.iter().any(|(at, other)| self.clashes(resource, other, *at == place)) {
            return Err(Refusal::new(libc::EEXIST));
        }
        if let Resource::Neighbour { .. } | Resource::Remote { .. } = resource {
            self.resources.retain(|(_, other)| !other.is_same_thing(resource));
        }
        self.join_sandbox(resource)?;
        if self.position(resource, netns).is_none() {
            self.resources.push((place, resource.clone()));
        }
        Ok(())
    }

    fn check_bridge(&self, bridge: &InterfaceName) -> Result<(), Refusal> {
        if !self.has_link(Place::Host, bridge, None) {
            return Err(Refusal::because(libc::ENODEV, format!("there is no link {bridge} on the host")));
        }
        let ports = self.resources.iter().filter(
            |(_, other)| matches!(other, Resource::Veth { bridge: on, .. } if on.as_ref() == Some(bridge)),
        );
        if ports.count() == rnetkit_drivers::bridge::MOST_PORTS {
            Err(Refusal::new(libc::EXFULL))
        } else {
            Ok(())
        }
    }

    /// Whether the kernel refuses to make one because of the other; `together`: they are in one namespace.
    fn clashes(&self, new: &Resource, old: &Resource, together: bool) -> bool {
        use Resource::{Address, Bridge, DefaultRoute, Ifb, Port, Published, Veth};
        let name = |resource: &Resource| match resource {
            Bridge { name, .. } | Veth { name, .. } | Ifb { name, .. } => Some(name.clone()),
            _ => None,
        };
        if name(new).is_some_and(|new| name(old) == Some(new)) {
            return true;
        }
        match (new, old) {
            (Veth { peer: a, .. }, Veth { peer: b, .. }) => together && a == b,
            (Resource::Child(a), Resource::Child(b)) => together && a.name == b.name,
            (Address { link: a, address: x, .. }, Address { link: b, address: y, .. }) => {
                together && a == b && x == y
            }
            (DefaultRoute { gateway: a, .. }, DefaultRoute { gateway: b, .. }) => {
                together && a.is_ipv6() == b.is_ipv6()
            }
            (Port { link: a, pinned: Some(x), .. }, Port { link: b, pinned: Some(y), .. }) => {
                x == y && self.bridge_of(a) == self.bridge_of(b)
            }
            (Published(a), Published(b)) => a.clashes(b),
            (
                Resource::Member(Member::Gateway { address: a, .. }),
                Resource::Member(Member::Gateway { address: b, .. }),
            ) => a == b,
            // What sets a state (a setting, a port, up, forwarding) is content with finding it.
            (Resource::Member(_) | Resource::Firewall, _) => new == old,
            _ => false,
        }
    }

    fn bridge_of(&self, port: &InterfaceName) -> Option<&InterfaceName> {
        self.resources.iter().find_map(|(_, resource)| match resource {
            Resource::Veth { name, bridge, .. } if name == port => bridge.as_ref(),
            _ => None,
        })
    }

    fn remove(&mut self, resource: &Resource, netns: Option<&Identity>) -> Result<(), Refusal> {
        if let Resource::Sandbox { name, .. } = resource {
            self.drop_sandbox(name);
        }
        let at = self.position(resource, netns).ok_or_else(|| Refusal::new(libc::ENOENT))?;
        if matches!(resource, Resource::Bridge { .. } | Resource::Veth { .. } | Resource::Ifb { .. }) {
            self.drop_link(resource);
        } else if matches!(resource, Resource::Child(_)) {
            let (place, gone) = self.resources.remove(at);
            self.resources.retain(|(at, other)| *at != place || !other.goes_with(&gone));
        } else {
            self.resources.remove(at);
        }
        Ok(())
    }

    /// A sandbox comes to be, or a link gets an end in it.
    fn join_sandbox(&mut self, resource: &Resource) -> Result<(), Refusal> {
        let missing = |name| Refusal::because(libc::ENOENT, format!("there is no sandbox {name}"));
        let (sandbox, end) = match resource {
            Resource::Sandbox { name, .. } => {
                self.sandboxes.insert(name.clone(), Self::default());
                return Ok(());
            }
            Resource::Tunnel(tunnel) => (&tunnel.sandbox, resource),
            Resource::Uplink(uplink) => (&uplink.sandbox, resource),
            _ => return Ok(()),
        };
        let inner = self.sandboxes.get_mut(sandbox).ok_or_else(|| missing(sandbox))?;
        inner.resources.push((None, end.clone()));
        Ok(())
    }

    /// A sandbox goes, and all links with an end in it.
    fn drop_sandbox(&mut self, name: &InterfaceName) {
        let before = self.far_ends();
        self.sandboxes.remove(name);
        self.lose_far_ends(&before);
        let gone = Resource::Sandbox { name: name.clone(), group: 0 };
        let ends: Vec<Resource> =
            self.resources.iter().map(|(_, r)| r.clone()).filter(|r| r.goes_with(&gone)).collect();
        for end in ends {
            self.resources.retain(|(_, other)| *other != end && !other.goes_with(&end));
        }
    }

    /// The ports of a bridge that goes stay, and are ports no longer.
    fn free_ports(&mut self, gone: &Resource) {
        let Resource::Bridge { name: gone, .. } = gone else { return };
        let mut freed = Vec::new();
        for (_, resource) in &mut self.resources {
            if let Resource::Veth { name, bridge, peer, .. } = resource
                && bridge.as_ref() == Some(gone)
            {
                *bridge = Some(peer.clone());
                freed.push(name.clone());
            }
        }
        self.resources
            .retain(|(_, other)| !matches!(other, Resource::Port { link, .. } if freed.contains(link)));
    }

    /// A link goes, and takes along what lives on it, at either end.
    fn drop_link(&mut self, link: &Resource) {
        if !matches!(link, Resource::Bridge { .. } | Resource::Veth { .. } | Resource::Ifb { .. }) {
            return;
        }
        let Some(at) = self.position(link, None) else { return };
        let (far, _) = self.resources.remove(at);
        self.free_ports(link);
        self.resources.retain(|(place, other)| match other.lives_on() {
            Some((Place::Host, name)) => !link.carries(Place::Host, name),
            Some((Place::Container, name)) => *place != far || !link.carries(Place::Container, name),
            None => true,
        });
    }
}

impl Kernel for Fake {
    type Netns = Identity;
    type Sight = ();

    fn open(&self, path: &Path) -> Result<Identity, Refusal> {
        let found = self.namespaces.get(path).ok_or_else(|| Refusal::new(libc::ENOENT))?;
        Ok(found.unwrap_or(Self::HOST))
    }

    fn identity(&self, netns: &Identity) -> Identity {
        *netns
    }

    fn run(&mut self, steps: &[Step], netns: Option<&Identity>) -> Result<(), Failed> {
        for (at, step) in steps.iter().enumerate() {
            self.step(step, netns).map_err(|refusal| Failed { at, done: at, refusal })?;
        }
        Ok(())
    }

    fn settle(&mut self, plan: &Plan, netns: Option<&Identity>) -> Vec<(Step, Refusal)> {
        let mut left = Vec::new();
        for step in &plan.steps {
            match self.step(step, netns) {
                Err(refusal) if !refusal.is_missing() && refusal.errno != libc::EEXIST => {
                    left.push((step.clone(), refusal))
                }
                _ => {}
            }
        }
        left
    }

    fn find(
        &mut self,
        resources: &[Resource],
        netns: Option<&Identity>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        let found = resources.iter().map(|wanted| {
            if let Some((name, what)) = wanted.inside() {
                let sandbox = self.sandboxes.get_mut(name)?;
                let found = sandbox.find(std::slice::from_ref(what), netns).ok()?.into_iter().next()??;
                return Some(Resource::Inside { sandbox: name.clone(), what: Box::new(found) });
            }
            let inside = wanted.is_inside();
            let here = |place: &Option<Identity>| !inside || *place == netns.copied();
            let same =
                |(place, other): &&(Option<Identity>, Resource)| here(place) && other.is_same_thing(wanted);
            self.resources.iter().find(same).map(|(_, other)| other.clone())
        });
        Ok(found.collect())
    }

    fn look(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn find_in(
        &mut self,
        (): &(),
        resources: &[Resource],
        netns: Option<&Identity>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        self.find(resources, netns)
    }

    /// None: what this kernel has, it has from the verbs, and the tests compare all of it.
    fn strays(&self, (): &(), _: &[Resource], _: &[String]) -> Vec<Stray> {
        Vec::new()
    }

    fn remove_strays(&mut self, _: &[Stray]) -> Vec<(Stray, Refusal)> {
        Vec::new()
    }

    fn subnets(&mut self) -> Result<Vec<Known>, Refusal> {
        Ok(self
            .routed
            .iter()
            .map(|subnet| Known { subnet: *subnet, how: "a route of the test".to_owned() })
            .collect())
    }

    fn listener(
        &mut self,
        address: IpAddr,
        ports: PortRange,
        protocol: Protocol,
        _: Option<&Id>,
    ) -> Result<Option<(u16, String)>, Refusal> {
        let same = |(at, port, proto): &&(IpAddr, u16, Protocol)| {
            *at == address && ports.contains(*port) && *proto == protocol
        };
        Ok(self.listening.iter().find(same).map(|(_, port, _)| (*port, "a process of the test".to_owned())))
    }

    fn free_port_range(&mut self) -> PortRange {
        PortRange { first: 32768, last: 60999 }
    }

    fn has_tables(&mut self, _: &TableName) -> Result<bool, Refusal> {
        Ok(self.resources.iter().any(|(_, resource)| *resource == Resource::Firewall))
    }

    fn guarded_by_others(&mut self, _: Family) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn underlay(&mut self, address: Option<IpAddr>) -> Result<Underlay, Refusal> {
        Ok(Underlay { address: address.unwrap_or(IpAddr::from([192, 0, 2, 1])), mtu: 1500 })
    }

    fn end_cipher(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn use_tables(&mut self, _: TableName) {}

    fn lend_files(&mut self, name: &Name, folder: &Path) -> Result<bool, Refusal> {
        Ok(self.lent.entry(name.to_string()).or_insert_with(|| folder.to_owned()) == folder)
    }

    fn take_back_files(&mut self, name: &Name, folder: &Path) -> Result<(), Refusal> {
        self.lent.retain(|other, leads| other != name.as_str() || leads != folder);
        Ok(())
    }

    fn take_back_dead_files(&mut self, folder: &Path) {
        self.lent.retain(|_, leads| !leads.starts_with(folder) || leads.exists());
    }

    fn host_identity(&self) -> Identity {
        Self::HOST
    }
}
