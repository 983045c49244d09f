//! What each step is in messages: how a resource is made, changed and taken away.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use rnetkit_drivers::{
    Balanced, InterfaceName, Place, Publication, Resource, child::Child, resource::Tunnel,
};

use super::super::{
    Failed, Kernel, Refusal, address, child,
    conntrack::{self, Change},
    firewall::{self, Limits, Outcome, balance},
    link::{self, Veth},
    neighbour, overlay, route, shape, sysctl,
};
use crate::plan::Step;

use super::run::Run;

impl Run<'_> {
    pub(super) fn create(&mut self, resource: &Resource) -> Result<(), Failed> {
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
            Resource::Parent { link, sharing } => {
                self.index(Place::Host, link)?;
                let able = self.linux.host().and_then(|host| child::refuse_unable(host, *sharing));
                able.map_err(|refusal| self.failed(at, refusal))?;
            }
            Resource::Child(child) => self.create_child(child)?,
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
            Resource::Marked { link, alias } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, link::set_alias(index, alias), 0)?;
            }
            Resource::Behind { link, address } => {
                let index = self.index(Place::Host, link)?;
                let message = RouteNetlinkMessage::NewRoute(route::behind(*address, index));
                self.request(Place::Host, message, NLM_F_CREATE | NLM_F_EXCL)?;
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
    pub(super) fn in_sandbox(&mut self, steps: &[Step]) -> Result<(), Failed> {
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
        let master = bridge.as_ref().map(|bridge| self.living_bridge(bridge)).transpose()?;
        let netns = self.netns().map_err(|refusal| self.failed(self.at, refusal))?;
        let netns = std::os::fd::AsFd::as_fd(netns);
        let veth = Veth { name, bridge: master, peer, netns, mac: *mac, mtu: *mtu, group: *group };
        self.request(Place::Host, veth.create(), link::CREATE)?;
        self.peers.insert(name.as_str().to_owned(), peer.as_str().to_owned());
        Ok(())
    }

    fn create_child(&mut self, child: &Child) -> Result<(), Failed> {
        let parent = self.index(Place::Host, &child.parent)?;
        let netns = self.netns().map_err(|refusal| self.failed(self.at, refusal))?;
        let message = child::create(child, parent, std::os::fd::AsFd::as_fd(netns));
        self.request(Place::Host, message, child::CREATE)?;
        self.flush().map_err(|failed| Failed {
            refusal: child::explained(failed.refusal, child.sharing),
            ..failed
        })?;
        let index = self.index(Place::Container, &child.name)?;
        self.request(Place::Container, link::set_alias(index, &child.alias), 0)
    }

    /// Deletes it from within its container, which is the only way to it.
    fn delete_child(&mut self, child: &Child) -> Result<(), Failed> {
        self.flush()?;
        let at = self.at;
        let fail = |refusal| Failed { at, done: at + 1, refusal };
        let netns = self.netns().map_err(fail)?;
        let deletion = self.linux.deletion;
        let socket = self.socket(Place::Container).map_err(fail)?;
        child::delete(netns, socket, child, deletion).map_err(fail)
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
    pub(super) fn now(&mut self, work: impl FnOnce() -> Result<(), Refusal>) -> Result<(), Failed> {
        self.flush()?;
        work().map_err(|refusal| self.failed(self.at, refusal))
    }

    pub(super) fn change(&mut self, from: &Resource, to: &Resource) -> Result<(), Failed> {
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
                let way = |t: &Tunnel| (t.vni, t.port, t.local, t.mtu, t.sealed);
                let same = matches!(from, Resource::Tunnel(before) if way(before) == way(tunnel));
                let changed =
                    if same { self.linux.set_tunnel(tunnel) } else { self.linux.replace_tunnel(tunnel) };
                changed.map_err(|refusal| self.failed(self.at, refusal))
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
                let bridge = match bridge {
                    Some(bridge) => self.index(Place::Host, bridge)?,
                    None => 0,
                };
                self.request(Place::Host, link::set_master(index, bridge), 0)
            }
            Resource::Marked { .. } => self.create(to),
            Resource::Child(child) => {
                let index = self.index(Place::Container, &child.name)?;
                self.request(Place::Container, child::set(child, index), 0)
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

    pub(super) fn remove(&mut self, resource: &Resource) -> Result<(), Failed> {
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
            Resource::Child(child) => self.delete_child(child)?,
            Resource::Redirect { link, .. } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, shape::delete_ingress(index), 0)?;
            }
            Resource::Rate { link, .. } => {
                let index = self.index(Place::Host, link)?;
                self.request(Place::Host, shape::delete_rate(index), 0)?;
            }
            Resource::Behind { link, address } => {
                let index = self.index(Place::Host, link)?;
                let message = RouteNetlinkMessage::DelRoute(route::behind(*address, index));
                self.request(Place::Host, message, 0)?;
            }
            Resource::Parent { .. }
            | Resource::Marked { .. }
            | Resource::Port { .. }
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
