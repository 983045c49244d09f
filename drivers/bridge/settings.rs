//! The options of the bridge driver, read.

use alloc::string::String;
use core::{fmt, net::IpAddr, str::FromStr};

use super::DEFAULT_DEVICE;
use crate::{
    BadOption, Endpoint, Family, InterfaceName, Network, Pace,
    bandwidth::{self, Limits},
    options::{Known, Options},
};

/// How containers of a family meet the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayMode {
    /// They take the host's address on the way out; only published ports are reachable.
    Nat,
    /// As `Nat`, but the containers' own addresses are open to whoever has a route to them.
    NatUnprotected,
    /// No translation; published ports are opened on the containers' own addresses.
    Routed,
    /// The host has no address in the network; for internal networks only.
    Isolated,
}

impl FromStr for GatewayMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "nat" => Ok(Self::Nat),
            "nat-unprotected" => Ok(Self::NatUnprotected),
            "routed" => Ok(Self::Routed),
            "isolated" => Ok(Self::Isolated),
            _ => Err(()),
        }
    }
}

impl fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::NatUnprotected => "nat-unprotected",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        })
    }
}

/// How published ports are reached on the host's own 127.0.0.1 and ::1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// The firewall rewrites the packets.
    Rewrite,
    /// By a process, `rnet proxy`, that somebody runs: nobody else does.
    Proxy,
}

impl FromStr for Loopback {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "rewrite" => Ok(Self::Rewrite),
            "proxy" => Ok(Self::Proxy),
            _ => Err(()),
        }
    }
}

static NETWORK_OPTIONS: [Known; 14] = [
    Known { long: "com.docker.network.bridge.name", short: "name" },
    Known { long: "com.docker.network.bridge.enable_icc", short: "icc" },
    Known { long: "com.docker.network.bridge.enable_ip_masquerade", short: "masquerade" },
    Known { long: "com.docker.network.bridge.host_binding_ipv4", short: "host-binding-ipv4" },
    Known { long: "com.docker.network.bridge.gateway_mode_ipv4", short: "gateway-mode-ipv4" },
    Known { long: "com.docker.network.bridge.gateway_mode_ipv6", short: "gateway-mode-ipv6" },
    Known { long: "com.docker.network.bridge.inhibit_ipv4", short: "inhibit-ipv4" },
    Known { long: "com.docker.network.driver.mtu", short: "mtu" },
    Known { long: "com.docker.network.container_iface_prefix", short: "iface-prefix" },
    Known { long: "rnet.bridge.spoof_check", short: "spoof-check" },
    Known { long: "rnet.bridge.conn_limit", short: "conn-limit" },
    Known { long: "rnet.bridge.conn_max", short: "conn-max" },
    Known { long: "rnet.bridge.loopback", short: "loopback" },
    Known { long: "rnet.dns", short: "dns" },
];

static ENDPOINT_OPTIONS: [Known; 7] = {
    let [a, b, c, d, e, f] = bandwidth::OPTIONS;
    [Known { long: "com.docker.network.endpoint.ifname", short: "ifname" }, a, b, c, d, e, f]
};

/// The settings of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bridge's name.
    pub device: InterfaceName,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Members may talk to each other.
    pub icc: bool,
    /// Members take the host's address on the way out.
    pub masquerade: bool,
    /// The host address of published ports that name none.
    pub host_binding: Option<IpAddr>,
    /// How containers meet the world with IPv4, and with IPv6.
    pub gateway_modes: [GatewayMode; 2],
    /// The bridge has no IPv4 address.
    pub inhibit_ipv4: bool,
    /// Interfaces in containers are called this and a number.
    pub interface_prefix: String,
    /// Ports send with their own addresses only.
    pub spoof_check: bool,
    /// How many new connections one address may open to one port.
    pub connection_rate: Option<Pace>,
    /// How many connections one address may have to one port at the same time.
    pub most_connections: Option<u32>,
    /// How published ports are reached on the host's own loopback.
    pub loopback: Loopback,
    /// Members find each other by name. Never on `bridge`, as in Docker.
    pub dns: bool,
}

impl Settings {
    /// The settings of a network.
    ///
    /// # Errors
    /// The first option that is unknown or malformed.
    pub fn of(network: &Network) -> Result<Self, BadOption> {
        Self::read("bridge", &NETWORK_OPTIONS, network)
    }

    /// The settings of a network whose driver knows these options alone.
    pub(crate) fn read(
        driver: &'static str,
        known: &'static [Known],
        network: &Network,
    ) -> Result<Self, BadOption> {
        let options = Options::read(driver, known, &network.options)?;
        let device = match options.text("name") {
            Some(name) => name.parse().map_err(|_| {
                options.bad(
                    "name",
                    "it must be an interface name of at most 15 letters, digits, '_', '.' or '-'",
                )
            })?,
            None if network.name.as_str() == "bridge" => {
                DEFAULT_DEVICE.parse().map_err(|_| options.bad("name", "an interface name"))?
            }
            None => InterfaceName::of("rn-", &network.id),
        };
        let expected = "it must be a number of bytes from 68 to 65535, and from 1280 with IPv6";
        let smallest = if network.has_family(true) { 1280 } else { 68 };
        let mtu = options.parsed::<u32>("mtu", expected)?.unwrap_or(1500);
        if !(smallest..=65535).contains(&mtu) {
            return Err(options.bad("mtu", expected));
        }
        let interface_prefix = interface_prefix(&options)?;
        Ok(Self {
            device,
            mtu,
            icc: options.switch("icc", true)?,
            masquerade: options.switch("masquerade", true)?,
            host_binding: options.parsed("host-binding-ipv4", "it must be an IP address")?,
            gateway_modes: [
                mode(&options, network, "gateway-mode-ipv4")?,
                mode(&options, network, "gateway-mode-ipv6")?,
            ],
            inhibit_ipv4: options.switch("inhibit-ipv4", false)?,
            interface_prefix,
            spoof_check: options.switch("spoof-check", true)?,
            connection_rate: options.parsed(
                "conn-limit",
                "it must be a number up to 1000000 per second, minute, hour or day: 10/second",
            )?,
            most_connections: most(&options, "conn-max")?,
            loopback: options.parsed("loopback", "it must be rewrite or proxy")?.unwrap_or(Loopback::Rewrite),
            dns: options.switch("dns", true)? && network.name.as_str() != "bridge",
        })
    }

    /// Whether members take the host's address of that family on the way out.
    #[must_use]
    pub fn masquerades(&self, family: Family) -> bool {
        self.masquerade && self.gateway_mode(family) != GatewayMode::Routed
    }

    /// How containers meet the world with that family.
    #[must_use]
    pub fn gateway_mode(&self, family: Family) -> GatewayMode {
        self.gateway_modes[usize::from(family == Family::Ipv6)]
    }

    /// Whether the host has an address of that family on the bridge.
    #[must_use]
    pub fn host_has_address(&self, family: Family) -> bool {
        !(self.inhibit_ipv4 && family == Family::Ipv4) && self.gateway_mode(family) != GatewayMode::Isolated
    }
}

/// What interfaces in containers are called before their number.
pub(crate) fn interface_prefix(options: &Options<'_>) -> Result<String, BadOption> {
    let prefix = String::from(options.text("iface-prefix").unwrap_or("eth"));
    let numbered: Result<InterfaceName, _> = (prefix.clone() + "0").parse();
    if prefix.len() > 12 || numbered.is_err() {
        return Err(options.bad("iface-prefix", "it must be 1 to 12 letters, digits, '_', '.' or '-'"));
    }
    Ok(prefix)
}

/// A gateway mode; without a way out nothing is translated, and only then can the host stay away.
fn mode(options: &Options<'_>, network: &Network, name: &str) -> Result<GatewayMode, BadOption> {
    let expected = "it must be nat, nat-unprotected, routed or, for internal networks, isolated";
    let mode = options.parsed(name, expected)?.unwrap_or(GatewayMode::Nat);
    if mode == GatewayMode::Isolated && !network.internal {
        return Err(options.bad(name, "it is for internal networks only"));
    }
    Ok(mode)
}

/// A number of connections.
fn most(options: &Options<'_>, name: &str) -> Result<Option<u32>, BadOption> {
    let expected = "it must be a number from 1 to 1000000";
    match options.parsed::<u32>(name, expected)? {
        Some(number) if !(1..=1_000_000).contains(&number) => Err(options.bad(name, expected)),
        number => Ok(number),
    }
}

/// The settings of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// The name of the interface in the container, where one is wanted.
    pub interface: Option<InterfaceName>,
    /// How much the container may receive and send.
    pub limits: Limits,
}

impl EndpointSettings {
    /// The settings of an endpoint of a network with this MTU.
    ///
    /// # Errors
    /// The first option that is unknown or malformed, or that the network's packets do not fit.
    pub fn of(endpoint: &Endpoint, mtu: u32) -> Result<Self, BadOption> {
        let options = Options::read("bridge", &ENDPOINT_OPTIONS, &endpoint.options)?;
        let settings = Self::from(&options)?;
        settings.limits.check(&options, mtu)?;
        Ok(settings)
    }

    /// The settings in options as given.
    ///
    /// # Errors
    /// The first option that is unknown or malformed.
    pub fn read(given: &alloc::collections::BTreeMap<String, String>) -> Result<Self, BadOption> {
        Self::from(&Options::read("bridge", &ENDPOINT_OPTIONS, given)?)
    }

    /// Refuses limits, for drivers whose links have no queue of the host's.
    pub(crate) fn without_limits(driver: &'static str, endpoint: &Endpoint) -> Result<(), BadOption> {
        Options::read(driver, &ENDPOINT_OPTIONS[..1], &endpoint.options).map(drop)
    }

    fn from(options: &Options<'_>) -> Result<Self, BadOption> {
        let interface = options.parsed(
            "ifname",
            "it must be an interface name of at most 15 letters, digits, '_', '.' or '-'",
        )?;
        Ok(Self { interface, limits: Limits::read(options)? })
    }
}
