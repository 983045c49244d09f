//! The Linux kernel: steps become netlink messages that are sent together wherever their order allows it.

mod run;
mod settle;
mod step;

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use rnetkit_drivers::{Family, Id, Name, PortRange, Protocol, Resource};

use settle::is_settled;

use super::{
    Failed, Kernel, Known, Netns, Refusal, Underlay, address, behind,
    find::{self, Sight, Stray},
    firewall::{self, Nft, Scope, TableName},
    lent,
    link::{self, Link},
    listeners,
    netlink::Route,
    netns, route,
    sandbox::Sandboxes,
    sysctl,
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

/// Where elements of the firewall were deleted, closing the socket would wait for the kernel's own book-keeping.
impl Drop for Linux {
    fn drop(&mut self) {
        let nft = self.nft.take().filter(|nft| self.deletion == Deletion::Behind && nft.waits_at_its_end());
        if let Some(nft) = nft {
            behind::close_later(nft.channel().socket().as_raw_fd());
        }
    }
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
        container: Option<&Id>,
    ) -> Result<Option<(u16, String)>, Refusal> {
        listeners::find(address, ports, protocol, container)
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

    fn end_cipher(&mut self) -> Result<(), Refusal> {
        super::take_wireguard()
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
pub(super) fn default_link(host: &mut Route) -> Result<Option<u32>, Refusal> {
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
