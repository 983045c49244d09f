//! Everything that can go wrong, as situations that a caller can act on. `Display` is the one line that people
//! see; hints are added at the edge.

use std::{fmt, io, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{BadOption, Invalid, MacAddress, Protocol, model::Escaped, port::socket_text};

use crate::{kernel::Refusal, plan::Step};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not what it should be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No network has that name, id, or beginning of an id.
    #[error("network {name} not found")]
    NetworkNotFound {
        /// As it was asked for, escaped.
        name: String,
    },
    /// Several ids begin so.
    #[error("network {prefix} is ambiguous: {count} ids begin so")]
    NetworkAmbiguous {
        /// As it was asked for.
        prefix: String,
        /// How many.
        count: usize,
    },
    /// The name is taken.
    #[error("network with name {name} already exists")]
    NetworkExists {
        /// The name.
        name: String,
    },
    /// `bridge`, `host` and `none` are always there, once.
    #[error("{name} is a pre-defined network and cannot be {action}")]
    Predefined {
        /// The network.
        name: String,
        /// What was asked for: `removed`, `created`.
        action: &'static str,
    },
    /// No driver has that name.
    #[error("driver {name} not found; there are {known}")]
    DriverNotFound {
        /// As it was asked for, escaped.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The driver's networks exist once, or cannot be connected to.
    #[error("{what}")]
    Unsupported {
        /// What cannot be done, and why.
        what: String,
    },
    /// The subnet overlaps another.
    #[error("subnet {subnet} overlaps {by}")]
    SubnetTaken {
        /// The subnet.
        subnet: IpNetwork,
        /// What it overlaps: `network blue (172.18.0.0/16)`.
        by: String,
    },
    /// Subnet, gateway, range and reserved addresses contradict each other.
    #[error("{value} {reason}")]
    Contradiction {
        /// What was given: `gateway 10.0.0.1`.
        value: String,
        /// What it contradicts.
        reason: String,
    },
    /// No default pool is free.
    #[error("all predefined address pools have been fully subnetted: {taken} subnets are in use")]
    PoolsExhausted {
        /// How many subnets were met.
        taken: usize,
    },
    /// Every address of the pool is in use.
    #[error("no address is free in {pool} of network {network}: {used} are in use")]
    PoolExhausted {
        /// The network.
        network: String,
        /// The subnet or range.
        pool: IpNetwork,
        /// How many are in use.
        used: usize,
    },
    /// The address belongs to another container.
    #[error("address {address} is in use by container {by} on network {network}")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        by: String,
        /// The network.
        network: String,
    },
    /// The hardware address belongs to another container of the network.
    #[error("MAC address {mac} is in use on network {network}")]
    MacTaken {
        /// The hardware address.
        mac: MacAddress,
        /// The network.
        network: String,
    },
    /// The address cannot be a container's.
    #[error("address {address} cannot be given out on network {network}: {reason}")]
    AddressRefused {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// Why.
        reason: String,
    },
    /// The port belongs to another container or to a process of the host.
    #[error("port {port}/{protocol} is {by}")]
    PortTaken {
        /// The port, with the address where it is a specific one.
        port: String,
        /// The protocol.
        protocol: Protocol,
        /// `published by container web on network blue`, `in use by nginx (pid 42)`.
        by: String,
    },
    /// The agent cannot be what it should, or does not do what it should.
    #[error("the agent: {reason}")]
    Agent {
        /// Why.
        reason: String,
    },
    /// What hosts share cannot be agreed on.
    #[error("{reason}")]
    Cluster {
        /// Why.
        reason: String,
    },
    /// The administrator's file makes no sense.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// No port is free.
    #[error("no port is free from {first} to {last}/{protocol}")]
    PortsExhausted {
        /// The first tried.
        first: u16,
        /// The last tried.
        last: u16,
        /// The protocol.
        protocol: Protocol,
    },
    /// A driver does not take the option.
    #[error(transparent)]
    BadOption(#[from] BadOption),
    /// No container has that name, no namespace is there.
    #[error("container {name} not found{reason}")]
    ContainerNotFound {
        /// As it was asked for, escaped.
        name: String,
        /// `: ` and what was tried, or nothing.
        reason: String,
    },
    /// The name of a new container is taken.
    #[error("container {name} already exists")]
    ContainerExists {
        /// The name.
        name: String,
    },
    /// What was named is no network namespace.
    #[error("{path} cannot be a container: {reason}")]
    NotNamespace {
        /// The path, escaped.
        path: String,
        /// Why.
        reason: String,
    },
    /// What was named is the host itself.
    #[error("{name} is the host's own network namespace, which cannot be a container")]
    HostNamespace {
        /// As it was asked for, escaped.
        name: String,
    },
    /// The container is in the network already.
    #[error("container {container} is already connected to network {network}")]
    AlreadyConnected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The container is not in the network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// A network with containers is not removed.
    #[error("network {network} has active endpoints ({containers})")]
    HasEndpoints {
        /// The network.
        network: String,
        /// The containers' names.
        containers: String,
    },
    /// The container has an interface of that name.
    #[error("container {container} already has an interface {interface}")]
    InterfaceTaken {
        /// The container.
        container: String,
        /// The interface.
        interface: String,
    },
    /// The container has a default route that is not rnet's.
    #[error("container {container} already has a default route that is not rnet's")]
    RouteTaken {
        /// The container.
        container: String,
    },
    /// A link of the host that is not rnet's has the name.
    #[error("the host already has a link {link}, which is not of network {network}")]
    LinkTaken {
        /// The link.
        link: String,
        /// The network.
        network: String,
    },
    /// The bridge has as many ports as the kernel allows.
    #[error("network {network} is full: a bridge of the Linux kernel has at most 1023 ports")]
    BridgeFull {
        /// The network.
        network: String,
    },
    /// A capability is missing.
    #[error("{step}: not permitted; rnet needs root, or the capabilities NET_ADMIN and SYS_ADMIN")]
    NotPermitted {
        /// What was refused.
        step: String,
    },
    /// The kernel refused a step.
    #[error("{step}: {reason}{}", left(left_behind))]
    Apply {
        /// The step.
        step: String,
        /// The kernel's reason.
        reason: Refusal,
        /// What could not be taken back.
        left_behind: Vec<String>,
    },
    /// The kernel could not be asked.
    #[error("{what}: {reason}")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// The kernel's reason.
        reason: Refusal,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record cannot be understood; it was set aside.
    #[error("{} is damaged ({reason}); it was set aside as {}", path.display(), aside.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Where it is now.
        aside: PathBuf,
    },
    /// A record was written by a newer rnet.
    #[error("{} was written by a newer rnet (version {version}); this one reads versions up to {known}", path.display())]
    Newer {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// The newest known.
        known: u64,
    },
    /// The state belongs to another network namespace that is still alive.
    #[error("{} is in use by a host in another network namespace ({by}); give this one its own with --run", path.display())]
    OtherHost {
        /// The run directory.
        path: PathBuf,
        /// A process there.
        by: String,
    },
    /// The directory could be tampered with.
    #[error("{} is not safe to use: {reason}", path.display())]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another rnet holds a lock for too long.
    #[error("{what} is locked by {holder}")]
    Locked {
        /// What is locked.
        what: String,
        /// The process, if it can be known.
        holder: String,
    },
}

/// What kind of situation an error is, for exit codes, CNI codes and HTTP statuses at the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The request makes no sense.
    Invalid,
    /// What is named does not exist.
    NotFound,
    /// It contradicts what exists.
    Conflict,
    /// There is nothing left to give out.
    Exhausted,
    /// It is not allowed.
    Forbidden,
    /// Try again later.
    Busy,
    /// The kernel or a file refused.
    Failed,
}

impl Error {
    /// What kind of situation it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_)
            | Self::BadOption(_)
            | Self::Contradiction { .. }
            | Self::NotNamespace { .. } => Kind::Invalid,
            Self::AddressRefused { .. } | Self::HostNamespace { .. } | Self::Unsupported { .. } => {
                Kind::Invalid
            }
            Self::NetworkNotFound { .. } | Self::DriverNotFound { .. } => Kind::NotFound,
            Self::ContainerNotFound { .. } | Self::NotConnected { .. } => Kind::NotFound,
            Self::ContainerExists { .. }
            | Self::NetworkAmbiguous { .. }
            | Self::NetworkExists { .. }
            | Self::SubnetTaken { .. } => Kind::Conflict,
            Self::AddressTaken { .. }
            | Self::MacTaken { .. }
            | Self::PortTaken { .. }
            | Self::AlreadyConnected { .. } => Kind::Conflict,
            Self::HasEndpoints { .. }
            | Self::InterfaceTaken { .. }
            | Self::RouteTaken { .. }
            | Self::LinkTaken { .. } => Kind::Conflict,
            Self::PoolsExhausted { .. } | Self::PoolExhausted { .. } => Kind::Exhausted,
            Self::PortsExhausted { .. } | Self::BridgeFull { .. } => Kind::Exhausted,
            Self::Predefined { .. } | Self::NotPermitted { .. } | Self::UnsafeDirectory { .. } => {
                Kind::Forbidden
            }
            Self::Locked { .. } => Kind::Busy,
            Self::Apply { .. } | Self::Kernel { .. } | Self::Store { .. } | Self::Damaged { .. } => {
                Kind::Failed
            }
            Self::Newer { .. } | Self::OtherHost { .. } | Self::Agent { .. } | Self::Cluster { .. } => {
                Kind::Failed
            }
            Self::Config { .. } => Kind::Invalid,
        }
    }

    /// The kernel refused a step.
    #[must_use]
    pub fn apply(step: &Step, reason: Refusal, left_behind: &[(Step, Refusal)]) -> Self {
        if reason.errno == libc::EPERM && left_behind.is_empty() {
            return Self::NotPermitted { step: step.to_string() };
        }
        let left_behind = left_behind.iter().map(|(step, refusal)| format!("{step} ({refusal})")).collect();
        Self::Apply { step: step.to_string(), reason, left_behind }
    }

    /// The kernel could not be asked.
    #[must_use]
    pub fn kernel(what: &'static str, reason: Refusal) -> Self {
        if reason.errno == libc::EPERM {
            Self::NotPermitted { step: what.to_owned() }
        } else {
            Self::Kernel { what, reason }
        }
    }

    /// The agent cannot be what it should.
    #[must_use]
    pub fn agent(reason: String) -> Self {
        Self::Agent { reason }
    }

    /// A file could not be read or written.
    #[must_use]
    pub fn store(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Store { path: path.into(), source: source.into() }
    }

    /// The error number of the kernel's refusal, if it is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Apply { reason, .. } | Self::Kernel { reason, .. } => Some(reason.errno),
            _ => None,
        }
    }
}

fn left(left_behind: &[String]) -> String {
    if left_behind.is_empty() {
        String::new()
    } else {
        format!("; could not be undone: {}", left_behind.join("; "))
    }
}

/// A text from outside, safe to print, and not too long.
#[must_use]
pub fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    let short: String = text.chars().take(SHOWN).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    if short.is_empty() { "\"\"".to_owned() } else { format!("{}{more}", Escaped(&short)) }
}

/// How a port is named in errors: `8080`, and `192.0.2.1:8080` where the address is a specific one.
#[must_use]
pub fn port_text(address: IpAddr, port: impl fmt::Display) -> String {
    if address.is_unspecified() { port.to_string() } else { socket_text(address, &port.to_string()) }
}
