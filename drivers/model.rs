//! What a network, an endpoint and a container are. Values here are valid by construction: texts are parsed at
//! the edge into these types, and trusted from then on.

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::port::{PortMapping, Publication};

/// A text that is not what it should be: what it should be, the text, and why it is not.
///
/// `Display` escapes control characters, so that a hostile text cannot act on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// What was expected, as a person would call it: `network name`.
    pub what: &'static str,
    /// The text as it was given.
    pub value: String,
    /// Why it was refused.
    pub reason: String,
}

impl Invalid {
    /// `what` cannot be `value`, because `reason`.
    #[must_use]
    pub fn new(what: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self { what, value: value.to_owned(), reason: reason.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        let shown: String = self.value.chars().take(SHOWN).collect();
        let more = if shown.len() < self.value.len() { "…" } else { "" };
        write!(f, "invalid {} \"{}{more}\": {}", self.what, Escaped(&shown), self.reason)
    }
}

impl core::error::Error for Invalid {}

/// A text with everything escaped that could act on a terminal or hide what it says: control and formatting
/// characters (among them the marks that turn the direction of reading).
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let formats =
                matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
            if c.is_control() || formats || c == '\u{feff}' {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

/// Writes and reads a type through its text form.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// An id: 32 random bytes, written as 64 hex digits, as Docker does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 32]);

impl Id {
    /// The first `digits` hex digits.
    #[must_use]
    pub fn prefix(&self, digits: usize) -> String {
        let mut text = self.to_string();
        text.truncate(digits);
        text
    }

    /// The twelve digits that people are shown.
    #[must_use]
    pub fn short(&self) -> String {
        self.prefix(12)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All digits at once: a path has an id or two, and `{:02x}` of each byte shows in the time of a connect.
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
        let digits: [char; 64] = core::array::from_fn(|at| {
            digit(if at % 2 == 0 { self.0[at / 2] >> 4 } else { self.0[at / 2] & 15 })
        });
        f.write_str(&String::from_iter(digits))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for Id {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("id", text, "it must be 64 hex digits");
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| (d as char).to_digit(16).filter(|_| !d.is_ascii_uppercase());
            let (high, low) = (digit(pair[0]).ok_or_else(wrong)?, digit(pair[1]).ok_or_else(wrong)?);
            *byte = (high << 4 | low) as u8;
        }
        Ok(Self(bytes))
    }
}
serde_as_text!(Id);

/// The name of a network or of a container: letters, digits, `_`, `.`, `-`, beginning with a letter or digit.
///
/// It is safe as a file name and in every output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes; with room for an ending in the 255 bytes of a file name.
    pub const LONGEST: usize = 128;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a name, calling it `what` in the error.
    ///
    /// # Errors
    /// When the text is empty, too long, or has other characters.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str| Err(Invalid::new(what, text, reason));
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > Self::LONGEST {
            return refuse("it is longer than 128 bytes");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return refuse("it must begin with a letter or a digit");
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
            return refuse("only letters, digits, '_', '.' and '-' are allowed");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse("name", text)
    }
}
serde_as_text!(Name);

/// The name of a network interface: 1 to 15 bytes of letters, digits, `_`, `.`, `-`, beginning with a letter,
/// digit or `_`.
///
/// The kernel accepts much more (`br*`, quotes, escape sequences), and other tools then read it as a pattern or
/// worse; `all`, `default` and `lo` have a meaning of their own. All these are refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The longest name in bytes: `IFNAMSIZ` of `linux/if.h` less the closing NUL.
    pub const LONGEST: usize = 15;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that a driver always uses. It must be one: that is what the driver's tests show.
    #[must_use]
    pub(crate) fn fixed(text: &str) -> Self {
        debug_assert!(text.parse::<Self>().is_ok());
        Self(text.to_owned())
    }

    /// The loopback interface, which every namespace has.
    #[must_use]
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// `prefix` followed by the first digits of an id, as long as an interface name can be.
    #[must_use]
    pub fn of(prefix: &str, id: &Id) -> Self {
        Self(format!("{prefix}{}", id.prefix(Self::LONGEST.saturating_sub(prefix.len()))))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str| Err(Invalid::new("interface name", text, reason));
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > Self::LONGEST {
            return refuse("it is longer than the 15 bytes that Linux allows");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return refuse("it must begin with a letter or a digit");
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
            return refuse("only letters, digits, '_', '.' and '-' are allowed");
        }
        if ["all", "default", "lo"].contains(&text) {
            return refuse("this name has a meaning of its own in Linux");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "lo" { Ok(Self::loopback()) } else { text.parse().map_err(D::Error::custom) }
    }
}

/// The hardware address of an interface: a unicast address, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that an endpoint gets unless one is given: `02:42:` and the four bytes of its IPv4 address.
    ///
    /// Whoever gets an address again thus has the hardware address that neighbours remember for it. An endpoint
    /// with IPv6 alone takes the last four bytes of that.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                [octets[12], octets[13], octets[14], octets[15]]
            }
        };
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl MacAddress {
    /// The link-local IPv6 address that an interface with this hardware address gives itself (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self) -> IpAddr {
        let [a, b, c, d, e, g] = self.0;
        IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, g])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str| Invalid::new("MAC address", text, reason);
        let form = || refuse("it must be six pairs of hex digits, as 02:42:ac:11:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(form)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        if bytes[0] & 1 == 1 {
            return Err(refuse("it is a multicast address"));
        }
        if bytes == [0; 6] {
            return Err(refuse("it is all zero"));
        }
        Ok(Self(bytes))
    }
}
serde_as_text!(MacAddress);

/// A subnet of a network, and which of its addresses are given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The subnet; no host bits are set.
    pub subnet: IpNetwork,
    /// The host's own address in the subnet, which containers use as their gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Addresses are chosen from here; a static address may be anywhere in the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNetwork>,
    /// Reserved addresses by name, never given out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux: BTreeMap<String, IpAddr>,
}

/// A network as defined: what the user asked for, and what rnet chose where nothing was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id, for ever.
    pub id: Id,
    /// Its name, unique on the host.
    pub name: Name,
    /// The driver's name.
    pub driver: String,
    /// When it was created: nanoseconds since 1970 in UTC.
    pub created: u64,
    /// Its subnets; at most one a family for a bridge.
    #[serde(default)]
    pub pools: Vec<Pool>,
    /// No way in or out, except between members.
    #[serde(default)]
    pub internal: bool,
    /// Accepted and shown, as Docker does.
    #[serde(default)]
    pub attachable: bool,
    /// The IPAM driver: `default` or `null`.
    pub ipam_driver: String,
    /// Options of the IPAM driver, as given.
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
    /// Options of the driver, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels, as given.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The interface group (`IFLA_GROUP`) of all its links on the host: the mark that they are born with.
    pub group: u32,
}

impl Network {
    /// The upper half of every interface group that rnet gives out: `rn` in ASCII.
    pub const GROUPS: u32 = 0x726e_0000;

    /// Whether the network has a subnet of the family of `address`.
    #[must_use]
    pub fn has_family(&self, ipv6: bool) -> bool {
        self.pools.iter().any(|pool| pool.subnet.is_ipv6() == ipv6)
    }
}

/// Whose network namespace an endpoint is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The id of the container.
    pub id: Id,
    /// What users call it: a name, or the path or pid that they gave.
    pub name: String,
    /// Where its network namespace was found.
    pub netns: String,
    /// Device and inode of the namespace file: which namespace it was, whatever the path leads to today.
    pub device: u64,
    /// The inode that goes with [`device`](Self::device).
    pub inode: u64,
}

/// A route of a container that is not its default route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StaticRoute {
    /// Where it leads; no host bits are set.
    pub destination: IpNetwork,
    /// The next hop; without one the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// The name of a switch under `/proc/sys/net`, as `net.ipv4.conf.eth0.rp_filter`. With a `/` in it, dots are dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlName(String);

impl SysctlName {
    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file below `/proc/sys`; it never leads out of `/proc/sys/net`.
    #[must_use]
    pub fn file(&self) -> String {
        if self.0.contains('/') { self.0.clone() } else { self.0.replace('.', "/") }
    }
}

impl FromStr for SysctlName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str| Err(Invalid::new("sysctl", text, reason));
        let name = Self(text.to_owned());
        if !name.file().starts_with("net/") {
            return refuse("only those that begin with net. belong to a network namespace");
        }
        let plain = |part: &str| {
            part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
                && !["", ".", ".."].contains(&part)
        };
        if text.len() > 200 || !name.file().split('/').all(plain) {
            return refuse("it must be a name as net.ipv4.conf.eth0.rp_filter");
        }
        Ok(name)
    }
}

impl fmt::Display for SysctlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
serde_as_text!(SysctlName);

/// How a container's interface is to be other than it is born, and switches of its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Tuning {
    /// Switches of the namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<SysctlName, String>,
    /// The interface itself.
    #[serde(skip_serializing_if = "LinkTuning::is_empty")]
    pub link: LinkTuning,
}

impl Tuning {
    /// Whether all is as it is born.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How an interface is to be other than it is born.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkTuning {
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Its largest packet, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How many packets wait at most (`txqueuelen`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// It takes every packet that it sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<bool>,
    /// It takes every multicast packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_multicast: Option<bool>,
}

impl LinkTuning {
    /// Whether it is as it is born.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LinkTuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = Vec::new();
        list.extend(self.mac.map(|mac| format!("mac {mac}")));
        list.extend(self.mtu.map(|mtu| format!("mtu {mtu}")));
        list.extend(self.queue.map(|queue| format!("queue {queue}")));
        let switch = |on: bool| if on { "on" } else { "off" };
        list.extend(self.promiscuous.map(|on| format!("promiscuous {}", switch(on))));
        list.extend(self.all_multicast.map(|on| format!("all multicast {}", switch(on))));
        f.write_str(&list.join(", "))
    }
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id, unique for ever.
    pub id: Id,
    /// The network.
    pub network: Id,
    /// The container.
    pub container: Container,
    /// The interface's name inside the container.
    pub interface: InterfaceName,
    /// The interface's hardware address.
    pub mac: MacAddress,
    /// Its addresses with the length of their subnets; at most one a family.
    pub addresses: Vec<IpNetwork>,
    /// Higher wins when the container's gateway is chosen among its networks.
    #[serde(default)]
    pub gateway_priority: i32,
    /// The gateways that this endpoint gives the container now; empty where another endpoint does.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Its other routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
    /// How its interface is to be other than it is born.
    #[serde(default, skip_serializing_if = "Tuning::is_empty")]
    pub tuning: Tuning,
    /// Its published ports.
    #[serde(default)]
    pub ports: Vec<Publication>,
    /// Ports that the container has by another of its endpoints, to be published here when that one goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare: Vec<PortMapping>,
    /// Other names of the container on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The name servers that its container was given; the host's where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Options of the driver for this endpoint, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Endpoint {
    /// The hardware address that its interface works with.
    #[must_use]
    pub fn hardware_address(&self) -> MacAddress {
        self.tuning.link.mac.unwrap_or(self.mac)
    }

    /// The address of that family, if it has one.
    #[must_use]
    pub fn address(&self, ipv6: bool) -> Option<IpNetwork> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_patterns_or_options_are_refused() {
        for text in [
            "",
            ".",
            "..",
            "../x",
            "/abs",
            "-rf",
            "a b",
            "br*",
            "a\"b",
            "a;b",
            "a\nb",
            "a\u{1b}[2J",
            "é",
            "a%d",
        ] {
            assert!(Name::parse("network name", text).is_err(), "{text:?}");
            assert!(text.parse::<InterfaceName>().is_err(), "{text:?}");
        }
        assert!("x".repeat(129).parse::<Name>().is_err());
        assert!("x".repeat(16).parse::<InterfaceName>().is_err());
        assert!("all".parse::<InterfaceName>().is_err());
        assert!("blue_1.a-b".parse::<Name>().is_ok());
    }

    #[test]
    fn an_error_names_the_value_and_never_acts_on_the_terminal() {
        let error = Name::parse("network name", "a\u{1b}[2J\u{202e}b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid network name \"a\\u{1b}[2J\\u{202e}b\": only letters, digits, '_', '.' and '-' are allowed"
        );
    }

    #[test]
    fn a_mac_address_is_unicast_and_not_zero() {
        assert_eq!("02:42:AC:11:00:02".parse::<MacAddress>().unwrap().to_string(), "02:42:ac:11:00:02");
        for text in [
            "",
            "02:42",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "02:42:ac:11:00:02:03",
            "+2:42:ac:11:00:02",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_reads_back_as_written() {
        let id = Id([0xab; 32]);
        assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<Id>().is_err());
        assert_eq!(InterfaceName::of("rn-", &id).as_str(), "rn-abababababab");
    }
}
