//! Resources: one thing each that exists on a host, or must. Data only; `src/kernel` makes and finds them.

use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use core::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    bandwidth::Bits,
    child::{Child, Sharing},
    model::{
        Escaped, InterfaceName, Invalid, LinkTuning, MacAddress, StaticRoute, SysctlName, serde_as_text,
    },
    port::{PortRange, Protocol, Publication, socket_text},
    service::Balanced,
};

/// So many in a time: `100/second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pace {
    /// How many, at least 1.
    pub count: u32,
    /// The time.
    pub unit: Unit,
}

/// A time in which something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Unit {
    const ALL: [(Self, &str, u32); 4] = [
        (Self::Second, "second", 1),
        (Self::Minute, "minute", 60),
        (Self::Hour, "hour", 3600),
        (Self::Day, "day", 86400),
    ];

    /// Its length in seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        Self::ALL.iter().find(|(unit, _, _)| *unit == self).map_or(1, |(_, _, seconds)| *seconds)
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Unit::ALL.iter().find(|(unit, _, _)| *unit == self.unit).map_or("", |(_, name, _)| *name);
        write!(f, "{}/{name}", self.count)
    }
}

impl FromStr for Pace {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let pace = || {
            let (count, name) = text.split_once('/')?;
            let digits = count.bytes().all(|digit| digit.is_ascii_digit());
            let count = count.parse().ok().filter(|count| digits && (1..=1_000_000).contains(count))?;
            let unit = Unit::ALL.iter().find(|(_, unit, _)| *unit == name)?.0;
            Some(Self { count, unit })
        };
        pace().ok_or_else(|| {
            Invalid::new(
                "rate",
                text,
                "it must be a number up to 1000000 per second, minute, hour or day: 10/second",
            )
        })
    }
}
serde_as_text!(Pace);

/// In whose network namespace a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The host's.
    Host,
    /// The container's.
    Container,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::Ipv6 } else { Self::Ipv4 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// A VXLAN tunnel (RFC 7348) of one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// The link, in the sandbox.
    pub name: InterfaceName,
    /// The sandbox that it is born in. Its UDP socket stays in the host's own namespace.
    pub sandbox: InterfaceName,
    /// The bridge in the sandbox that it is a port of.
    pub bridge: InterfaceName,
    /// The network's number on the wire, 24 bits.
    pub vni: u32,
    /// The UDP port that all hosts send to.
    pub port: u16,
    /// The address that this host sends from.
    pub local: IpAddr,
    /// Its largest packet, in bytes.
    pub mtu: u32,
    /// Its interface group.
    pub group: u32,
    /// Its port is sealed, and seen to be so before the tunnel is made.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub sealed: bool,
}

/// A veth pair between the host and a sandbox, by which containers there reach the host and the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Uplink {
    /// The host's end.
    pub name: InterfaceName,
    /// The hardware address of the host's end.
    pub mac: MacAddress,
    /// The sandbox that the other end is born in.
    pub sandbox: InterfaceName,
    /// The other end.
    pub peer: InterfaceName,
    /// The bridge in the sandbox that the other end is a port of.
    pub bridge: InterfaceName,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The interface group of both ends.
    pub group: u32,
    /// Whose it is, kept in `ifalias`.
    pub alias: String,
}

/// A switch of one interface under `/proc/sys/net`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// `ipv6/conf/LINK/disable_ipv6` = 1: no IPv6 at all, not even a link-local address.
    Ipv6Off,
    /// `ipv6/conf/LINK/disable_ipv6` = 0, also where the namespace's default is off.
    Ipv6On,
    /// `ipv6/conf/LINK/accept_ra` = 0 and `accept_redirects` = 0: neither advertisements of routers nor their
    /// redirects are believed.
    NoRouterAdvertisements,
    /// `ipv4/conf/LINK/accept_redirects` = 0 and `send_redirects` = 0.
    NoRedirects,
    /// `ipv4/conf/LINK/rp_filter` = 1: what comes from an address that is not behind the link is dropped.
    OwnSources,
    /// `ipv6/conf/LINK/accept_dad` = 0: addresses are usable at once; rnet itself keeps them unique.
    NoDuplicateDetection,
}

/// Membership in one of the firewall's sets: which rules of the fixed ruleset apply to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "set", rename_all = "kebab-case")]
pub enum Member {
    /// The bridge of a network: nothing reaches it but replies, neighbours and published ports.
    Bridge {
        /// The bridge.
        link: InterfaceName,
    },
    /// What comes from the subnet and goes back into it through a published port takes the host's address.
    Subnet {
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The members of the bridge may talk to each other.
    Talking {
        /// The bridge.
        link: InterfaceName,
    },
    /// The members of a network whose links are this one and others like it may talk to each other.
    Routed {
        /// The link of one member.
        link: InterfaceName,
    },
    /// The bridge has no way in or out.
    Internal {
        /// The bridge.
        link: InterfaceName,
    },
    /// What leaves the bridge for elsewhere takes the host's address.
    Masquerade {
        /// The bridge.
        link: InterfaceName,
        /// Of which family.
        family: Family,
    },
    /// The members' own addresses are open to whoever has a route to them.
    Unprotected {
        /// The bridge.
        link: InterfaceName,
        /// Of which family.
        family: Family,
    },
    /// Ports of a container that are open on its own address.
    Open {
        /// The container's address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The ports.
        ports: PortRange,
    },
    /// The host's own address on a bridge answers on that bridge only.
    Gateway {
        /// The bridge.
        link: InterfaceName,
        /// The host's address there.
        address: IpAddr,
    },
    /// The port sends with its own hardware address and IP addresses only.
    Pinned {
        /// The host's end of the veth pair.
        link: InterfaceName,
        /// The container's hardware address.
        mac: MacAddress,
    },
    /// An IP address with which a pinned port may send.
    Address {
        /// The host's end of the veth pair.
        link: InterfaceName,
        /// The address.
        address: IpAddr,
    },
    /// The members of the bridge ask the host for names: also where they have no way out, and where the port of names
    /// is published.
    Named {
        /// The bridge.
        link: InterfaceName,
    },
    /// rnet itself made the host a router for its networks: for strangers it stays none.
    Guard {
        /// Of which family.
        family: Family,
    },
    /// VXLAN datagrams of this network come from its hosts and are sent by this host itself; others are dropped.
    Tunnel {
        /// The UDP port.
        port: u16,
        /// The network's number on the wire.
        vni: u32,
    },
    /// A host that may send VXLAN datagrams of the network.
    Host {
        /// The UDP port.
        port: u16,
        /// The network's number on the wire.
        vni: u32,
        /// The host's address.
        address: IpAddr,
    },
    /// What goes to the UDP port comes and leaves by the device that encrypts, or not at all.
    Sealed {
        /// The UDP port.
        port: u16,
    },
}

/// One thing on a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Resource {
    /// rnet's own tables with their fixed chains, rules, and empty sets.
    Firewall,
    /// The host forwards packets of the family between its interfaces.
    Forwarding {
        /// Of which family.
        family: Family,
    },
    /// A bridge.
    Bridge {
        /// Its name.
        name: InterfaceName,
        /// Its hardware address.
        mac: MacAddress,
        /// Its largest packet, in bytes.
        mtu: u32,
        /// Its interface group.
        group: u32,
        /// Whose it is, kept in `ifalias`.
        alias: String,
    },
    /// A veth pair: one end on the host, the other born in the container.
    Veth {
        /// The host's end.
        name: InterfaceName,
        /// The bridge that it is a port of, if it is of any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<InterfaceName>,
        /// The container's end.
        peer: InterfaceName,
        /// The hardware address of the container's end.
        mac: MacAddress,
        /// The largest packet, in bytes.
        mtu: u32,
        /// The interface group of the host's end.
        group: u32,
    },
    /// An interface of the host that containers share. It is not rnet's: it is looked for, and never made.
    Parent {
        /// Its name.
        link: InterfaceName,
        /// How it is shared, which the kernel must be able to do.
        sharing: Sharing,
    },
    /// A link of the container that shares an interface of the host.
    Child(Child),
    /// An intermediate functional block: what another link receives can be led through it, and so be held to a rate.
    Ifb {
        /// Its name.
        name: InterfaceName,
        /// Its interface group.
        group: u32,
        /// Whose it is, kept in `ifalias`.
        alias: String,
    },
    /// All that a link receives is led through another link first.
    Redirect {
        /// The link.
        link: InterfaceName,
        /// The other link.
        through: InterfaceName,
    },
    /// What a link sends is held to a rate: what exceeds it waits, and is dropped when too much waits.
    Rate {
        /// The link, on the host.
        link: InterfaceName,
        /// Bits per second.
        rate: u64,
        /// How many bytes may pass at once.
        burst: u32,
    },
    /// How the bridge treats a port.
    Port {
        /// The host's end of the veth pair.
        link: InterfaceName,
        /// Whose it is, kept in `ifalias`.
        alias: String,
        /// It reaches no other isolated port.
        isolated: bool,
        /// It may get back what it sent: where `br_netfilter` translates on the bridge itself, that is how a
        /// container reaches its own published port.
        hairpin: bool,
        /// The bridge learns nothing from it: this one hardware address is behind it, and no other.
        pinned: Option<MacAddress>,
    },
    /// A switch of an interface.
    Setting {
        /// Where.
        place: Place,
        /// Which interface.
        link: InterfaceName,
        /// Which switch.
        setting: Setting,
    },
    /// An address of an interface.
    Address {
        /// Where.
        place: Place,
        /// Which interface.
        link: InterfaceName,
        /// The address with the length of its subnet.
        address: IpNetwork,
    },
    /// What `ifalias` of a link of the host says: whose it is. A bridge's port says it with its flags.
    Marked {
        /// The link.
        link: InterfaceName,
        /// Whose it is.
        alias: String,
    },
    /// The host's way to a container.
    Behind {
        /// The host's end of its veth pair.
        link: InterfaceName,
        /// The container's address.
        address: IpAddr,
    },
    /// The interface is up.
    Up {
        /// Where.
        place: Place,
        /// Which interface.
        link: InterfaceName,
    },
    /// The container's default route of a family.
    DefaultRoute {
        /// The next hop; its family is the route's.
        gateway: IpAddr,
        /// Through which interface.
        link: InterfaceName,
    },
    /// A route of the container that is not its default route.
    Route {
        /// Through which interface.
        link: InterfaceName,
        /// Where it leads, and by which next hop.
        route: StaticRoute,
    },
    /// A switch of the container's namespace.
    Sysctl {
        /// The interface with which it comes.
        link: InterfaceName,
        /// Its name.
        name: SysctlName,
        /// Its value.
        value: String,
    },
    /// An interface of the container that is other than it was born.
    Tuned {
        /// The interface.
        link: InterfaceName,
        /// How it is.
        tuning: LinkTuning,
    },
    /// Membership in a set of the firewall.
    Member(Member),
    /// How many connections one address may open to one port of the containers of a network: a chain of the firewall.
    Guarded {
        /// The bridge.
        link: InterfaceName,
        /// New ones in a time.
        rate: Option<Pace>,
        /// At the same time.
        most: Option<u32>,
    },
    /// A published port, or a range of them.
    Published(Publication),
    /// A host port that several containers share.
    Balanced(Balanced),
    /// A network namespace of a network's own, by its name in the run directory.
    Sandbox {
        /// Its name.
        name: InterfaceName,
        /// The interface group of all links in it.
        group: u32,
    },
    /// Something in a sandbox, where the sandbox takes the host's place.
    Inside {
        /// The sandbox.
        sandbox: InterfaceName,
        /// What is in it.
        what: Box<Resource>,
    },
    /// A VXLAN tunnel in a sandbox.
    Tunnel(Tunnel),
    /// The way from a sandbox to the host.
    Uplink(Uplink),
    /// A bridge answers ARP itself for what it knows to be behind this port.
    Answers {
        /// The port.
        link: InterfaceName,
    },
    /// Whose hardware address an IP address has, for ever: nothing is asked.
    Neighbour {
        /// The link behind which it is.
        link: InterfaceName,
        /// The IP address.
        address: IpAddr,
        /// The hardware address.
        mac: MacAddress,
    },
    /// A hardware address that is behind another host.
    Remote {
        /// The tunnel.
        link: InterfaceName,
        /// The hardware address.
        mac: MacAddress,
        /// The host's address.
        via: IpAddr,
    },
}

impl Resource {
    /// Belongs to the host, not to one network: made with the first network and unmade with the last.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::Firewall
                | Self::Forwarding { .. }
                | Self::Member(Member::Guard { .. } | Member::Sealed { .. })
        )
    }

    /// Stays when its owner goes: undoing it could break what others began to rely on.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Up { link, .. } if *link == InterfaceName::loopback())
    }

    /// The link that it lives on: when that goes, the kernel takes this along.
    #[must_use]
    pub fn lives_on(&self) -> Option<(Place, &InterfaceName)> {
        match self {
            Self::Port { link, .. }
            | Self::Redirect { link, .. }
            | Self::Rate { link, .. }
            | Self::Marked { link, .. }
            | Self::Behind { link, .. } => Some((Place::Host, link)),
            Self::Setting { place, link, .. }
            | Self::Address { place, link, .. }
            | Self::Up { place, link } => Some((*place, link)),
            Self::DefaultRoute { link, .. }
            | Self::Route { link, .. }
            | Self::Sysctl { link, .. }
            | Self::Tuned { link, .. } => Some((Place::Container, link)),
            Self::Answers { link } | Self::Neighbour { link, .. } | Self::Remote { link, .. } => {
                Some((Place::Host, link))
            }
            Self::Firewall
            | Self::Forwarding { .. }
            | Self::Bridge { .. }
            | Self::Veth { .. }
            | Self::Ifb { .. }
            | Self::Parent { .. }
            | Self::Child(_)
            | Self::Member(_)
            | Self::Guarded { .. }
            | Self::Published(_)
            | Self::Balanced(_)
            | Self::Sandbox { .. }
            | Self::Inside { .. }
            | Self::Tunnel(_)
            | Self::Uplink(_) => None,
        }
    }

    /// Whether it is in the container, and can be reached from there only.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        matches!(self, Self::Child(_)) || matches!(self.lives_on(), Some((Place::Container, _)))
    }

    /// Whether this goes with the other: it lives on its link, or in its sandbox.
    #[must_use]
    pub fn goes_with(&self, gone: &Self) -> bool {
        match (self, gone) {
            (Self::Inside { sandbox, .. }, Self::Sandbox { name, .. })
            | (Self::Tunnel(Tunnel { sandbox, .. }), Self::Sandbox { name, .. })
            | (Self::Uplink(Uplink { sandbox, .. }), Self::Sandbox { name, .. }) => sandbox == name,
            (Self::Inside { sandbox: a, what }, Self::Inside { sandbox: b, what: gone }) => {
                a == b && what.goes_with(gone)
            }
            (Self::Inside { sandbox, what }, Self::Tunnel(tunnel)) => {
                *sandbox == tunnel.sandbox && what.lives_on() == Some((Place::Host, &tunnel.name))
            }
            (Self::Inside { sandbox, what }, Self::Uplink(uplink)) => {
                *sandbox == uplink.sandbox && what.lives_on() == Some((Place::Host, &uplink.peer))
            }
            // A container is the same place, whichever way its link leads.
            (_, Self::Inside { what, .. }) => self
                .lives_on()
                .is_some_and(|(place, link)| place == Place::Container && what.carries(place, link)),
            _ => self.lives_on().is_some_and(|(place, link)| gone.carries(place, link)),
        }
    }

    /// The sandbox that it is in, and what it is there.
    #[must_use]
    pub fn inside(&self) -> Option<(&InterfaceName, &Self)> {
        match self {
            Self::Inside { sandbox, what } => Some((sandbox, what)),
            _ => None,
        }
    }

    /// Whether deleting this deletes that link.
    #[must_use]
    pub fn carries(&self, place: Place, link: &InterfaceName) -> bool {
        match self {
            Self::Bridge { name, .. } | Self::Ifb { name, .. } => place == Place::Host && name == link,
            Self::Veth { name, peer, .. } => match place {
                Place::Host => name == link,
                Place::Container => peer == link,
            },
            Self::Uplink(uplink) => place == Place::Host && uplink.name == *link,
            Self::Child(child) => place == Place::Container && child.name == *link,
            _ => false,
        }
    }

    /// Whether both are the same thing, perhaps in different states: then one is changed into the other.
    #[must_use]
    pub fn is_same_thing(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::DefaultRoute { gateway: a, .. }, Self::DefaultRoute { gateway: b, .. }) => {
                a.is_ipv6() == b.is_ipv6()
            }
            (Self::Port { link: a, .. }, Self::Port { link: b, .. })
            | (Self::Marked { link: a, .. }, Self::Marked { link: b, .. })
            | (Self::Rate { link: a, .. }, Self::Rate { link: b, .. })
            | (Self::Guarded { link: a, .. }, Self::Guarded { link: b, .. })
            | (Self::Redirect { link: a, .. }, Self::Redirect { link: b, .. }) => a == b,
            (Self::Balanced(a), Self::Balanced(b)) => a.is_same_port(b),
            (Self::Bridge { name: a, group: x, .. }, Self::Bridge { name: b, group: y, .. })
            | (Self::Veth { name: a, group: x, .. }, Self::Veth { name: b, group: y, .. })
            | (Self::Ifb { name: a, group: x, .. }, Self::Ifb { name: b, group: y, .. }) => a == b && x == y,
            (Self::Child(a), Self::Child(b)) => {
                (&a.name, &a.parent, a.sharing, a.group) == (&b.name, &b.parent, b.sharing, b.group)
            }
            (Self::Inside { sandbox: a, what: x }, Self::Inside { sandbox: b, what: y }) => {
                a == b && x.is_same_thing(y)
            }
            (Self::Tunnel(a), Self::Tunnel(b)) => (&a.name, &a.sandbox) == (&b.name, &b.sandbox),
            (Self::Uplink(a), Self::Uplink(b)) => (&a.name, a.group) == (&b.name, b.group),
            (Self::Neighbour { link: a, address: x, .. }, Self::Neighbour { link: b, address: y, .. }) => {
                a == b && x == y
            }
            (Self::Remote { link: a, mac: x, .. }, Self::Remote { link: b, mac: y, .. }) => a == b && x == y,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "on the host",
            Self::Container => "in the container",
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv6Off => "IPv6 off",
            Self::Ipv6On => "IPv6 on",
            Self::NoRouterAdvertisements => "no router advertisements",
            Self::NoRedirects => "no redirects",
            Self::OwnSources => "no sources that are elsewhere",
            Self::NoDuplicateDetection => "no duplicate address detection",
        })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { link } => {
                write!(f, "firewall: {link} is closed but for replies and published ports")
            }
            Self::Subnet { subnet } => write!(f, "firewall: from {subnet} back into it through the host"),
            Self::Talking { link } => write!(f, "firewall: members of {link} may talk to each other"),
            Self::Routed { link } => write!(f, "firewall: the member behind {link} may talk to others"),
            Self::Internal { link } => write!(f, "firewall: {link} has no way in or out"),
            Self::Masquerade { link, family } => write!(f, "firewall: masquerade {family} from {link}"),
            Self::Unprotected { link, family } => write!(f, "firewall: {link} is open with {family}"),
            Self::Open { address, protocol, ports } => {
                write!(f, "firewall: open {}/{protocol}", socket_text(*address, &ports.to_string()))
            }
            Self::Named { link } => write!(f, "firewall: members of {link} may ask the host for names"),
            Self::Gateway { link, address } => write!(f, "firewall: {address} answers on {link} only"),
            Self::Pinned { link, mac } => write!(f, "firewall: {link} sends as {mac} only"),
            Self::Address { link, address } => write!(f, "firewall: {link} sends as {address} only"),
            Self::Guard { family } => write!(f, "firewall: no {family} forwarding for others"),
            Self::Tunnel { port, vni } => {
                write!(f, "firewall: VXLAN {vni} on {port}/udp from its hosts only")
            }
            Self::Host { port, vni, address } => {
                write!(f, "firewall: VXLAN {vni} on {port}/udp from {address}")
            }
            Self::Sealed { port } => write!(f, "firewall: {port}/udp in cipher only"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firewall => f.write_str("firewall: tables, chains and empty sets"),
            Self::Forwarding { family } => write!(f, "{family} forwarding"),
            Self::Bridge { name, mac, mtu, .. } => write!(f, "bridge {name} mac {mac} mtu {mtu}"),
            Self::Veth { name, bridge, peer, mac, mtu, .. } => {
                write!(f, "veth {name}")?;
                bridge.iter().try_for_each(|bridge| write!(f, " on {bridge}"))?;
                write!(f, " to {peer} in the container, mac {mac} mtu {mtu}")
            }
            Self::Marked { link, alias } => write!(f, "{link} is marked {}", Escaped(alias)),
            Self::Behind { link, address } => write!(f, "{address} is behind {link}"),
            Self::Parent { link, sharing } => write!(f, "{link} of the host, for {sharing}"),
            Self::Child(child) => child.fmt(f),
            Self::Ifb { name, .. } => write!(f, "intermediate block {name}"),
            Self::Redirect { link, through } => write!(f, "what {link} receives goes through {through}"),
            Self::Rate { link, rate, burst } => {
                write!(f, "{link} sends at most {} per second, {burst} bytes at once", Bits(*rate))
            }
            Self::Port { link, isolated, hairpin, pinned, .. } => {
                let isolated = if *isolated { ", isolated" } else { "" };
                let hairpin = if *hairpin { ", hairpin" } else { "" };
                let pinned = pinned.map(|mac| mac.to_string());
                let behind = pinned.as_deref().unwrap_or("whatever it learns");
                write!(f, "port {link}: behind it {behind}{isolated}{hairpin}")
            }
            Self::Setting { place, link, setting } => write!(f, "{setting} on {link} {place}"),
            Self::Address { place, link, address } => write!(f, "address {address} on {link} {place}"),
            Self::Up { place, link } => write!(f, "{link} up {place}"),
            Self::DefaultRoute { gateway, link } => {
                write!(f, "default route via {gateway} on {link} in the container")
            }
            Self::Route { link, route: StaticRoute { destination, gateway: Some(gateway) } } => {
                write!(f, "route {destination} via {gateway} on {link} in the container")
            }
            Self::Route { link, route: StaticRoute { destination, gateway: None } } => {
                write!(f, "route {destination} on {link} in the container")
            }
            Self::Sysctl { name, value, .. } => write!(f, "{name} = {} in the container", Escaped(value)),
            Self::Tuned { link, tuning } => write!(f, "{link} in the container with {tuning}"),
            Self::Member(member) => member.fmt(f),
            Self::Guarded { link, rate, most } => {
                write!(f, "firewall: to one port behind {link}, one address opens at most")?;
                rate.iter().try_for_each(|rate| write!(f, " {rate} connections"))?;
                most.iter().try_for_each(|most| write!(f, " {most} at a time"))
            }
            Self::Published(publication) => write!(f, "publish {publication}"),
            Self::Balanced(balanced) => balanced.fmt(f),
            Self::Sandbox { name, .. } => write!(f, "sandbox {name}"),
            Self::Inside { sandbox, what } => write!(f, "{what}, in sandbox {sandbox}"),
            Self::Tunnel(t) => write!(
                f,
                "vxlan {} in sandbox {} on {}, vni {} port {} from {} mtu {}{}",
                t.name,
                t.sandbox,
                t.bridge,
                t.vni,
                t.port,
                t.local,
                t.mtu,
                if t.sealed { ", sealed" } else { "" }
            ),
            Self::Uplink(u) => write!(
                f,
                "veth {} mac {} to {} on {} in sandbox {}, mtu {}",
                u.name, u.mac, u.peer, u.bridge, u.sandbox, u.mtu
            ),
            Self::Answers { link } => write!(f, "ARP is answered for {link}"),
            Self::Neighbour { link, address, mac } => write!(f, "{address} is {mac} on {link}"),
            Self::Remote { link, mac, via } => write!(f, "{mac} is behind {via} on {link}"),
        }
    }
}
