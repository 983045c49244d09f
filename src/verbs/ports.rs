//! Publishing: which host ports an endpoint gets, and that nobody else has them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::{Range, RangeInclusive},
};

use rnetkit_drivers::{
    Endpoint, Network, PortMapping, PortRange, Protocol, Publication, Share,
    bridge::{GatewayMode, Loopback, Settings},
    port::wildcard,
};

use super::{Connect, Mode, Rnet, disconnect::Rest, services};
use crate::{
    error::{Error, port_text},
    kernel::Kernel,
    store::Numbers,
};

/// How often another free port is tried when a process of the host has the chosen one.
const TRIES: u32 = 200;

/// One mapping before its host ports are chosen: the addresses on which they must all be free.
struct Request {
    service: Option<Share>,
    hosts: Vec<IpAddr>,
    asked: Option<PortRange>,
    container: PortRange,
    protocol: Protocol,
    /// The container has it by another of its endpoints, or had until now.
    was_its_own: bool,
}

impl<K: Kernel> Rnet<K> {
    /// Chooses and takes the host ports of an endpoint, one mapping after the other; those taken are in the
    /// endpoint also when a later one fails. To show them, they are chosen alone.
    pub(super) fn take_ports(
        &mut self,
        network: &Network,
        wanted: &Connect,
        endpoint: &mut Endpoint,
        mode: Mode,
    ) -> Result<(), Error> {
        if !wanted.ports.is_empty() && super::driver(&network.driver)?.abilities().lan {
            let what = format!(
                "containers of network {} are on the LAN themselves, and have no ports of the host: port {} cannot be published there",
                network.name, wanted.ports[0]
            );
            return Err(Error::Unsupported { what });
        }
        if let Some(service) = &wanted.service {
            refuse_unshareable(service, network, &wanted.ports)?;
        }
        for mapping in &wanted.ports {
            for request in requests(network, mapping, wanted.service.as_ref(), endpoint)? {
                let ports = self.take(&request, endpoint, mode)?;
                endpoint.ports.extend(publications(&request, ports, network, endpoint));
            }
        }
        Ok(())
    }

    fn take(&mut self, request: &Request, endpoint: &Endpoint, mode: Mode) -> Result<PortRange, Error> {
        if choose(request) {
            return self.take_free(request, endpoint, mode);
        }
        let ports = request.asked.unwrap_or(request.container);
        refuse_second_loopback(request, ports, endpoint)?;
        self.refuse_listener(request, ports, endpoint)?;
        self.take_exactly(request, ports, endpoint, mode)?;
        Ok(ports)
    }

    /// Takes these ports on every address of the request, or none.
    fn take_exactly(
        &mut self,
        request: &Request,
        ports: PortRange,
        endpoint: &Endpoint,
        mode: Mode,
    ) -> Result<(), Error> {
        if mode == Mode::Show {
            return self.refuse_published(request, ports, endpoint);
        }
        let hosts = marked(&request.hosts);
        for (number, host) in hosts.iter().enumerate() {
            if self.mark(*host, request.protocol, ports)? {
                continue;
            }
            // Perhaps a dead process left its mark and no record: the records have the last word.
            if let Err(error) = self.refuse_published(request, ports, endpoint) {
                for host in &hosts[..number] {
                    self.unmark(*host, request.protocol, ports, Rest::No)?;
                }
                return Err(error);
            }
            self.force_mark(*host, request.protocol, ports)?;
        }
        Ok(())
    }

    /// The lowest port of the range that no container has and no process listens on.
    fn take_free(&mut self, request: &Request, endpoint: &Endpoint, mode: Mode) -> Result<PortRange, Error> {
        let range = request.asked.unwrap_or_else(|| self.kernel.free_port_range());
        let mut from = range.first;
        let exhausted =
            || Error::PortsExhausted { first: range.first, last: range.last, protocol: request.protocol };
        for _ in 0..TRIES {
            let free =
                self.lowest_free_port(request, endpoint, from..=range.last, mode)?.ok_or_else(exhausted)?;
            let ports = PortRange::one(free);
            let free_for_all = self
                .refuse_listener(request, ports, endpoint)
                .and_then(|()| self.take_exactly(request, ports, endpoint, mode));
            match free_for_all {
                Ok(()) => return Ok(ports),
                Err(Error::PortTaken { .. }) => {
                    from = free.checked_add(1).filter(|next| *next <= range.last).ok_or_else(exhausted)?
                }
                Err(error) => return Err(error),
            }
        }
        Err(exhausted())
    }

    /// The lowest port without a mark, leaving out those of the endpoint itself.
    fn lowest_free_port(
        &self,
        request: &Request,
        endpoint: &Endpoint,
        range: RangeInclusive<u16>,
        mode: Mode,
    ) -> Result<Option<u16>, Error> {
        let (host, protocol, now) = (request.hosts[0], request.protocol, super::uptime());
        let own = |port: u32| {
            endpoint.ports.iter().any(|publication| {
                publication.protocol == protocol
                    && marked(&[publication.host]).contains(&host)
                    && u16::try_from(port).is_ok_and(|port| publication.host_ports.contains(port))
            })
        };
        let range = u32::from(*range.start())..u32::from(*range.end()) + 1;
        let find = |numbers: &Numbers| numbers.lowest_free(range, |port| !own(port));
        let found = match mode {
            Mode::Do => self.store.with_ports(host, protocol, now, |numbers| Ok(find(numbers)))?,
            Mode::Show => find(&self.store.ports(host, protocol, now)?),
        };
        Ok(found.and_then(|port| u16::try_from(port).ok()))
    }

    /// Marks the ports as published, unless one of them is.
    fn mark(&self, host: IpAddr, protocol: Protocol, ports: PortRange) -> Result<bool, Error> {
        self.store.with_ports(host, protocol, super::uptime(), |numbers| {
            if numbers.has_any(numbers_of(ports)) {
                return Ok(false);
            }
            numbers.take_all(numbers_of(ports));
            Ok(true)
        })
    }

    fn force_mark(&self, host: IpAddr, protocol: Protocol, ports: PortRange) -> Result<(), Error> {
        self.store.with_ports(host, protocol, super::uptime(), |numbers| {
            numbers.take_all(numbers_of(ports));
            Ok(())
        })
    }

    fn unmark(&self, host: IpAddr, protocol: Protocol, ports: PortRange, rest: Rest) -> Result<(), Error> {
        self.store.with_ports(host, protocol, super::uptime(), |numbers| {
            match rest {
                Rest::Yes => numbers.free_all(numbers_of(ports)),
                Rest::No => numbers.put_back_all(numbers_of(ports)),
            }
            Ok(())
        })
    }

    /// Gives the published ports of an endpoint back.
    pub(super) fn release_ports(&self, endpoint: &Endpoint, rest: Rest) -> Result<(), Error> {
        self.release_some(&endpoint.id, &endpoint.ports, rest)
    }

    /// Gives some of them back.
    pub(super) fn release_some(
        &self,
        endpoint: &rnetkit_drivers::Id,
        ports: &[Publication],
        rest: Rest,
    ) -> Result<(), Error> {
        ports.iter().try_for_each(|port| {
            if port.service.is_some() && self.has_others(port, endpoint)? {
                return Ok(());
            }
            let hosts = marked(&[port.host]);
            hosts.into_iter().try_for_each(|host| self.unmark(host, port.protocol, port.host_ports, rest))
        })
    }

    /// A port on which a process of the host listens would be taken away from it. What was the container's already has
    /// been looked at.
    fn refuse_listener(
        &mut self,
        request: &Request,
        ports: PortRange,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        if request.was_its_own {
            return Ok(());
        }
        for host in &request.hosts {
            let container = Some(&endpoint.container.id);
            let found = self.kernel.listener(*host, ports, request.protocol, container);
            let found = found.map_err(|refusal| match refusal.errno {
                libc::EADDRNOTAVAIL => Error::Contradiction {
                    value: format!("host address {host}"),
                    reason: "is no address of this host".to_owned(),
                },
                libc::EPROTONOSUPPORT => Error::Unsupported {
                    what: format!(
                        "port {}/{} cannot be published: the kernel of this host has no {}",
                        ports,
                        request.protocol,
                        request.protocol.to_string().to_uppercase()
                    ),
                },
                _ => Error::kernel("look for listening processes", refusal),
            })?;
            if let Some((port, process)) = found {
                let by = format!("in use by {process} of the host");
                return Err(Error::PortTaken {
                    port: port_text(*host, port),
                    protocol: request.protocol,
                    by,
                });
            }
        }
        Ok(())
    }

    /// A port that a container has, this one included.
    fn refuse_published(
        &self,
        request: &Request,
        ports: PortRange,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        let claims = |publication: &Publication| {
            marked(&request.hosts).iter().any(|host| marked(&[publication.host]).contains(host))
                && publication.protocol == request.protocol
                && publication.host_ports.overlaps(&ports)
        };
        let taken = |publication: &Publication, by: String| {
            let port = publication.host_ports.first.max(ports.first);
            let host = if request.hosts.contains(&publication.host) {
                publication.host
            } else {
                wildcard(publication.host.is_ipv6())
            };
            Err(Error::PortTaken { port: port_text(host, port), protocol: request.protocol, by })
        };
        if let Some(publication) = endpoint.ports.iter().find(|publication| claims(publication)) {
            return taken(publication, "to be published twice".to_owned());
        }
        let mut members = 0;
        for state in self.store.every_endpoint()? {
            let Some(publication) = state.endpoint.ports.iter().find(|publication| claims(publication))
            else {
                continue;
            };
            let same = request.hosts.contains(&publication.host) && publication.host_ports == ports;
            if same && publication.shares_with(request.service.as_ref()) {
                members += 1;
                continue;
            }
            let (container, network) = (&state.endpoint.container.name, &state.network);
            let service = publication.service.as_ref();
            let service = service.map(|share| format!("service {} by {}, ", share.name, share.balance));
            let service = service.unwrap_or_default();
            return taken(
                publication,
                format!("published by {service}container {container} on network {network}"),
            );
        }
        if members >= services::MOST_MEMBERS {
            let what = format!(
                "port {ports}/{} is shared by {members} containers, and no more can",
                request.protocol
            );
            return Err(Error::Unsupported { what });
        }
        Ok(())
    }
}

/// The addresses whose ports are claimed: all addresses of a family include its loopback, where there can be one
/// answer only. Other specific addresses live beside all addresses, and win.
fn marked(hosts: &[IpAddr]) -> Vec<IpAddr> {
    let loopback = |host: &IpAddr| match host {
        IpAddr::V4(address) if address.is_unspecified() => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(address) if address.is_unspecified() => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => None,
    };
    hosts.iter().flat_map(|host| [Some(*host), loopback(host)]).flatten().collect()
}

/// The way back from a container is found by its address and the host's port: there can be one loopback address for
/// both.
fn refuse_second_loopback(request: &Request, ports: PortRange, endpoint: &Endpoint) -> Result<(), Error> {
    let loopback = |host: IpAddr| marked(&[host]).into_iter().find(IpAddr::is_loopback);
    let other = |host: &IpAddr| {
        let wanted = loopback(*host)?;
        let own = endpoint.ports.iter().filter(|port| port.gateway.is_some());
        let mut own = own.filter(|port| {
            port.protocol == request.protocol
                && port.host.is_ipv6() == host.is_ipv6()
                && port.host_ports.overlaps(&ports)
        });
        own.find_map(|port| loopback(port.host).filter(|other| *other != wanted)).map(|other| (other, wanted))
    };
    match request.hosts.iter().find_map(other) {
        Some((other, wanted)) => {
            let protocol = request.protocol;
            let what = format!(
                "port {ports}/{protocol} of one container can be on one loopback address only, and is on {other}: not on {wanted} too"
            );
            Err(Error::Unsupported { what })
        }
        None => Ok(()),
    }
}

fn numbers_of(ports: PortRange) -> Range<u32> {
    u32::from(ports.first)..u32::from(ports.last) + 1
}

/// Whether the host port is rnet's to choose: none was asked for, or any of a range for one container port.
fn choose(request: &Request) -> bool {
    match request.asked {
        None => true,
        Some(asked) => asked.count() > 1 && request.container.count() == 1,
    }
}

/// A port of a service is one that all members name, and that is translated.
fn refuse_unshareable(service: &Share, network: &Network, ports: &[PortMapping]) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Unsupported { what });
    let name = &service.name;
    for mapping in ports {
        match mapping.host_ports {
            Some(range) if range.count() == 1 => {}
            Some(range) => {
                return refuse(format!("service {name} shares single ports, and {range} is a range"));
            }
            None => {
                return refuse(format!(
                    "service {name} needs the host port that its members share: not {mapping}"
                ));
            }
        }
    }
    let modes = rnetkit_drivers::settings(network)?.gateway_modes;
    if ports.is_empty() {
        return refuse(format!("service {name} shares published ports, and there is none"));
    }
    if modes.contains(&GatewayMode::Routed) {
        let network = &network.name;
        return refuse(format!(
            "service {name} shares host ports, and network {network} is routed: it has none"
        ));
    }
    Ok(())
}

/// The requests of a mapping. Several container ports without host ports are a request each.
fn requests(
    network: &Network,
    mapping: &PortMapping,
    service: Option<&Share>,
    endpoint: &Endpoint,
) -> Result<Vec<Request>, Error> {
    let hosts = hosts(network, mapping, endpoint)?;
    let request = |container| Request {
        service: service.cloned(),
        hosts: hosts.clone(),
        asked: mapping.host_ports,
        container,
        protocol: mapping.protocol,
        was_its_own: endpoint.spare.contains(mapping),
    };
    if mapping.host_ports.is_none() {
        let ports = mapping.container_ports.first..=mapping.container_ports.last;
        return Ok(ports.map(|port| request(PortRange::one(port))).collect());
    }
    Ok(vec![request(mapping.container_ports)])
}

/// The host addresses of a mapping: the one named, the network's, or all addresses of the families that the
/// endpoint has.
fn hosts(network: &Network, mapping: &PortMapping, endpoint: &Endpoint) -> Result<Vec<IpAddr>, Error> {
    let has = |ipv6: bool| endpoint.address(ipv6).is_some();
    let binding = rnetkit_drivers::settings(network)?.host_binding;
    match mapping.host.or(binding) {
        Some(host) if has(host.is_ipv6()) => Ok(vec![host]),
        Some(host) => Err(Error::Contradiction {
            value: format!("host address {host}"),
            reason: format!("is of a family that network {} does not have", network.name),
        }),
        None => {
            let list: Vec<IpAddr> = [false, true].into_iter().filter(|six| has(*six)).map(wildcard).collect();
            if list.is_empty() {
                let what = format!(
                    "the container has no address on network {} to publish port {mapping} for",
                    network.name
                );
                return Err(Error::Unsupported { what });
            }
            Ok(list)
        }
    }
}

/// What becomes of a request, once its ports are chosen.
fn publications(
    request: &Request,
    ports: PortRange,
    network: &Network,
    endpoint: &Endpoint,
) -> Vec<Publication> {
    let settings = rnetkit_drivers::settings(network).ok();
    let one = |host: &IpAddr| {
        let pool = network.pools.iter().find(|pool| pool.subnet.is_ipv6() == host.is_ipv6());
        let family = rnetkit_drivers::Family::of(*host);
        let rewritten =
            |settings: &Settings| settings.host_has_address(family) && settings.loopback == Loopback::Rewrite;
        let answers = settings.as_ref().is_some_and(rewritten);
        Some(Publication {
            host: *host,
            host_ports: ports,
            target: endpoint.address(host.is_ipv6())?.ip(),
            target_ports: request.container,
            protocol: request.protocol,
            gateway: pool.and_then(|pool| pool.gateway).filter(|_| answers),
            service: request.service.clone(),
        })
    };
    request.hosts.iter().filter_map(one).collect()
}
