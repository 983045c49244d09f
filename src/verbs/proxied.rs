//! Which ports of a container the explicit proxy serves, and for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rnetkit_drivers::{
    Id, Protocol, Publication,
    bridge::{Loopback, Settings},
};

use super::Rnet;
use crate::{
    container_ref::ContainerRef,
    error::Error,
    kernel::Kernel,
    store::{EndpointState, Watch},
};

/// What goes through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Carrier {
    fn of(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::Tcp => Some(Self::Tcp),
            Protocol::Udp => Some(Self::Udp),
            Protocol::Sctp => None,
        }
    }

    /// The protocol that carries it.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }
}

/// A port on the host's loopback, and where in the container it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// What goes through.
    pub carrier: Carrier,
    /// On the host.
    pub host: SocketAddr,
    /// In the container.
    pub target: SocketAddr,
}

/// The endpoint that is served, by which its end is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    network: Id,
    key: String,
    endpoint: Id,
}

impl<K: Kernel> Rnet<K> {
    /// The ports of a container that wait for a proxy: TCP and UDP ports published on all addresses or on loopback, of networks
    /// with `loopback=proxy`.
    ///
    /// # Errors
    /// When the container has none, or records cannot be read.
    pub fn proxied(&mut self, container: &ContainerRef) -> Result<(Vec<Served>, Vec<Proxied>), Error> {
        self.wake()?;
        let container = self.resolve(container)?;
        let (mut served, mut ports) = (Vec::new(), Vec::new());
        for state in self.store.endpoints_of(&container.key())? {
            let own = self.waiting(&state)?;
            if !own.is_empty() {
                let (network, endpoint) = (state.endpoint.network, state.endpoint.id);
                served.push(Served { network, key: state.key.clone(), endpoint });
            }
            ports.extend(own);
        }
        if ports.is_empty() {
            let what = format!(
                "container {container} has no TCP or UDP port on the host's loopback in a network with --opt loopback=proxy"
            );
            return Err(Error::Unsupported { what });
        }
        Ok((served, ports))
    }

    fn waiting(&self, state: &EndpointState) -> Result<Vec<Proxied>, Error> {
        let Some(made) = self.store.network_state(&state.endpoint.network)? else { return Ok(Vec::new()) };
        let is_bridge = made.network.driver == "bridge";
        if !is_bridge || Settings::of(&made.network)?.loopback != Loopback::Proxy {
            return Ok(Vec::new());
        }
        Ok(state.endpoint.ports.iter().flat_map(on_loopback).collect())
    }

    /// All such ports of all containers, with the containers' names.
    pub(super) fn all_waiting(&self) -> Result<Vec<(String, Proxied)>, Error> {
        let mut list = Vec::new();
        for state in self.store.every_endpoint()? {
            let name = state.endpoint.container.name.clone();
            list.extend(self.waiting(&state)?.into_iter().map(|port| (name.clone(), port)));
        }
        Ok(list)
    }

    /// Returns once one of the endpoints is no longer what it was: disconnected, or its container in the network anew.
    ///
    /// # Errors
    /// When a record cannot be watched.
    pub fn wait_gone(&self, served: &[Served]) -> Result<(), Error> {
        loop {
            let mut watches = Vec::new();
            for one in served {
                watches.extend(self.store.watch_endpoint(&one.network, &one.key)?);
                match self.store.endpoint(&one.network, &one.key)? {
                    Some(state) if state.endpoint.id == one.endpoint => {}
                    _ => return Ok(()),
                }
            }
            if watches.len() < served.len() {
                return Ok(());
            }
            Watch::wait_any(&watches)?;
        }
    }
}

fn on_loopback(port: &Publication) -> Vec<Proxied> {
    let Some(carrier) = Carrier::of(port.protocol) else { return Vec::new() };
    let host = match port.host {
        host if host.is_loopback() => host,
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return Vec::new(),
    };
    let pairs = (port.host_ports.first..=port.host_ports.last).zip(port.target_ports.first..);
    pairs
        .map(|(at, to)| Proxied {
            carrier,
            host: SocketAddr::new(host, at),
            target: SocketAddr::new(port.target, to),
        })
        .collect()
}
