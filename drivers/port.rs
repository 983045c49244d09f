//! Published ports: how users write them, and what they become.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
};
use core::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    model::{Invalid, serde_as_text},
    service::Share,
};

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
    /// SCTP (RFC 9260).
    Sctp,
}

impl Protocol {
    /// Its number in the IP header (IANA protocol numbers).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(&protocol.to_string()))
            .ok_or_else(|| Invalid::new("protocol", text, "it must be tcp, udp or sctp"))
    }
}

/// One or more ports in a row, none of them 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl PortRange {
    /// The range of one port.
    #[must_use]
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// How many ports there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// Whether a port is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the port is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let port = |part: &str| -> Result<u16, Invalid> {
            let digits = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
            let number = part.parse().ok().filter(|number| digits && *number != 0);
            number.ok_or_else(|| Invalid::new("port", part, "it must be a number from 1 to 65535"))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(Invalid::new("port range", text, "it ends before it begins"));
        }
        Ok(Self { first, last })
    }
}
serde_as_text!(PortRange);

/// What a user asks to publish: `[[HOST_IP]:][HOST_PORT[-END]]:CONTAINER_PORT[-END][/tcp|udp|sctp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// The host's address to listen on; all of them where none is given.
    pub host: Option<IpAddr>,
    /// The host's ports; free ones are chosen where none are given. A range for one container port means any of it.
    pub host_ports: Option<PortRange>,
    /// The container's ports.
    pub container_ports: PortRange,
    /// The protocol.
    pub protocol: Protocol,
}

impl FromStr for PortMapping {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrap = |error: Invalid| {
            let value = crate::model::Escaped(&error.value);
            Invalid::new("port to publish", text, format!("{} \"{value}\": {}", error.what, error.reason))
        };
        let (ports, protocol) = match text.rsplit_once('/') {
            Some((ports, protocol)) => (ports, protocol.parse().map_err(wrap)?),
            None => (text, Protocol::Tcp),
        };
        let (rest, container) = match ports.rsplit_once(':') {
            Some((rest, container)) => (Some(rest), container),
            None => (None, ports),
        };
        let container_ports: PortRange = container.parse().map_err(wrap)?;
        let (host, host_ports) = match rest {
            Some(rest) => host_part(rest).map_err(wrap)?,
            None => (None, None),
        };
        let mapping = Self { host, host_ports, container_ports, protocol };
        if let Some(range) = host_ports
            && range.count() != container_ports.count()
            && container_ports.count() != 1
        {
            let reason =
                format!("{} host ports cannot lead to {} ports", range.count(), container_ports.count());
            return Err(Invalid::new("port to publish", text, reason));
        }
        Ok(mapping)
    }
}

/// What stands before the container's port: `IP:PORTS`, `IP:`, `IP`, `PORTS`, or nothing.
fn host_part(text: &str) -> Result<(Option<IpAddr>, Option<PortRange>), Invalid> {
    let (address, ports) = if text.starts_with('[') {
        let Some((address, ports)) = text.split_once(']') else {
            return Err(Invalid::new("host address", text, "the bracket is not closed"));
        };
        let ports =
            ports.strip_prefix(':').ok_or_else(|| Invalid::new("host port", ports, "a ':' is missing"))?;
        (Some(&address[1..]), ports)
    } else {
        match text.rsplit_once(':') {
            Some((address, ports)) => (Some(address), ports),
            None if text.contains('.') => (Some(text), ""),
            None => (None, text),
        }
    };
    let ports = if ports.is_empty() { None } else { Some(ports.parse()?) };
    let address = match address {
        None | Some("") => None,
        Some(address) => Some(host_address(address)?),
    };
    Ok((address, ports))
}

/// A host address; `0.0.0.0` and `::` stay what they are: all addresses of one family.
fn host_address(text: &str) -> Result<IpAddr, Invalid> {
    let address: IpAddr =
        text.parse().map_err(|_| Invalid::new("host address", text, "it is not an IP address"))?;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if mapped {
        return Err(Invalid::new("host address", text, "write the IPv4 address itself"));
    }
    if address.is_multicast() || address == IpAddr::from([255, 255, 255, 255]) {
        return Err(Invalid::new("host address", text, "no service can listen on it"));
    }
    Ok(address)
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            None => {}
        }
        if let Some(ports) = self.host_ports {
            write!(f, "{ports}")?;
        }
        write!(f, ":{}/{}", self.container_ports, self.protocol)
    }
}

/// A published port, or as many in a row, of one family: all is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Publication {
    /// The host's address; `0.0.0.0` or `::` for every address of the family.
    pub host: IpAddr,
    /// The host's ports.
    pub host_ports: PortRange,
    /// The container's address, of the same family as the host's.
    pub target: IpAddr,
    /// The container's ports, as many as the host's.
    pub target_ports: PortRange,
    /// The protocol.
    pub protocol: Protocol,
    /// The host's own address in the container's network: from there the host's loopback is served. Without it
    /// (or where the host has none in that network) the host's loopback does not lead to the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The service that shares the host port, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Share>,
}

impl Publication {
    /// Whether both are about the very same host port.
    #[must_use]
    pub fn is_same_port(&self, other: &Self) -> bool {
        (self.host, self.protocol, self.host_ports) == (other.host, other.protocol, other.host_ports)
    }

    /// Whether both are of one service, which may share a host port.
    #[must_use]
    pub fn shares_with(&self, other: Option<&Share>) -> bool {
        matches!((&self.service, other), (Some(a), Some(b)) if (&a.name, a.balance) == (&b.name, b.balance))
    }

    /// The container's address and ports.
    #[must_use]
    pub fn target_text(&self) -> String {
        socket_text(self.target, &self.target_ports.to_string())
    }

    /// Whether every port of the host leads to the same port of the container.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.host_ports == self.target_ports
    }

    /// Whether both claim a port of the same address, family and protocol. A specific address and the wildcard
    /// live side by side: the specific one wins.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        self.host == other.host
            && self.protocol == other.protocol
            && self.host_ports.overlaps(&other.host_ports)
    }
}

/// `8080/tcp`, with the host address where it is a specific one: `192.0.2.1:8080/tcp`.
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = socket_text(self.host, &self.host_ports.to_string());
        write!(f, "{ports}/{} to {}", self.protocol, self.target_text())
    }
}

/// Address and port as people write them: `0.0.0.0:80`, `[::]:80`.
#[must_use]
pub fn socket_text(address: IpAddr, port: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// The wildcard address of a family.
#[must_use]
pub fn wildcard(ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::from([0, 0, 0, 0]) }
}

impl<'de> Deserialize<'de> for PortMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for PortMapping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.to_string().trim_start_matches(':').to_owned().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        text.parse::<PortMapping>().map_or_else(|error| error.to_string(), |mapping| mapping.to_string())
    }

    #[test]
    fn every_form_of_the_specification_is_understood() {
        for (text, read) in [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("::1:8080:80", "[::1]:8080:80/tcp"),
            ("8000-8100:9000-9100/udp", "8000-8100:9000-9100/udp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
            ("80", ":80/tcp"),
            (":80", ":80/tcp"),
            ("192.0.2.7::80", "192.0.2.7::80/tcp"),
            ("[2001:db8::1]::53/UDP", "[2001:db8::1]::53/udp"),
            ("1-65535:1-65535/sctp", "1-65535:1-65535/sctp"),
        ] {
            assert_eq!(shape(text), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_named_with_its_reason() {
        for (text, error) in [
            ("", "invalid port to publish \"\": port \"\": it must be a number from 1 to 65535"),
            ("0:80", "invalid port to publish \"0:80\": port \"0\": it must be a number from 1 to 65535"),
            (
                "65536:80",
                "invalid port to publish \"65536:80\": port \"65536\": it must be a number from 1 to 65535",
            ),
            ("-1:80", "invalid port to publish \"-1:80\": port \"\": it must be a number from 1 to 65535"),
            ("+8:80", "invalid port to publish \"+8:80\": port \"+8\": it must be a number from 1 to 65535"),
            (
                "90-80:80",
                "invalid port to publish \"90-80:80\": port range \"90-80\": it ends before it begins",
            ),
            ("80:1-2", "invalid port to publish \"80:1-2\": 1 host ports cannot lead to 2 ports"),
            (
                "80:80/icmp",
                "invalid port to publish \"80:80/icmp\": protocol \"icmp\": it must be tcp, udp or sctp",
            ),
            (
                "300.1.1.1:80:80",
                "invalid port to publish \"300.1.1.1:80:80\": host address \"300.1.1.1\": it is not an IP address",
            ),
            (
                "[::1:80:80",
                "invalid port to publish \"[::1:80:80\": host address \"[::1:80\": the bracket is not closed",
            ),
        ] {
            assert_eq!(shape(text), error, "{text}");
        }
    }
}
