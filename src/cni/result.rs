//! Results of ADD in every shape that the protocol has had (SPEC 1.1, section "ADD Success", and its predecessors).
//! Changes nothing but the shape.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::{
    failure::{Code, Failure},
    json::{self, Object},
    version::Version,
};
use crate::error::shown;

/// What a plugin made, and those before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) interfaces: Vec<Interface>,
    pub(super) ips: Vec<Ip>,
    pub(super) routes: Vec<Route>,
    pub(super) dns: Dns,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mac: Option<String>,
    pub(super) mtu: Option<u32>,
    /// The namespace file of an interface inside a container; absent on the host.
    pub(super) sandbox: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ip {
    /// Which of the interfaces has it.
    pub(super) interface: Option<usize>,
    pub(super) address: IpNetwork,
    pub(super) gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) destination: IpNetwork,
    pub(super) gateway: Option<IpAddr>,
    /// `mtu`, `advmss`, `priority`, `table`, `scope`: since 1.1.0, passed on as they are.
    pub(super) more: Map<String, Value>,
}

/// The keys of a route that 1.1.0 added.
const MORE: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dns {
    pub(super) nameservers: Vec<String>,
    pub(super) domain: Option<String>,
    pub(super) search: Vec<String>,
    pub(super) options: Vec<String>,
}

impl Route {
    pub(super) fn new(destination: IpNetwork, gateway: Option<IpAddr>) -> Self {
        Self { destination, gateway, more: Map::new() }
    }

    /// The route of everything that has no other, through this gateway.
    pub(super) fn default(gateway: IpAddr) -> Self {
        let all = match gateway {
            IpAddr::V4(_) => IpNetwork::V4(ipnetwork::Ipv4Network::from(std::net::Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => IpNetwork::V6(ipnetwork::Ipv6Network::from(std::net::Ipv6Addr::UNSPECIFIED)),
        };
        Self::new(IpNetwork::new(all.ip(), 0).unwrap_or(all), Some(gateway))
    }
}

/// Writing.
impl Outcome {
    /// In the shape of that version.
    pub(super) fn json(&self, version: Version) -> Value {
        let mut shown = Map::new();
        shown.insert("cniVersion".to_owned(), json!(version.name()));
        if version < Version::V0_3_0 {
            for (key, ipv6) in [("ip4", false), ("ip6", true)] {
                if let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv6() == ipv6) {
                    shown.insert(key.to_owned(), self.family_json(ip, ipv6));
                }
            }
        } else {
            if !self.interfaces.is_empty() {
                let list = self.interfaces.iter().map(|interface| interface.json(version)).collect();
                shown.insert("interfaces".to_owned(), list);
            }
            if !self.ips.is_empty() {
                shown.insert("ips".to_owned(), self.ips.iter().map(|ip| ip.json(version)).collect());
            }
            if !self.routes.is_empty() {
                shown.insert(
                    "routes".to_owned(),
                    self.routes.iter().map(|route| route.json(version)).collect(),
                );
            }
        }
        shown.insert("dns".to_owned(), self.dns.json());
        Value::Object(shown)
    }

    /// One address with its routes, as 0.1.0 and 0.2.0 have it.
    fn family_json(&self, ip: &Ip, ipv6: bool) -> Value {
        let mut shown = json!({ "ip": ip.address.to_string() });
        if let Some(gateway) = ip.gateway {
            shown["gateway"] = json!(gateway);
        }
        let routes: Vec<Value> = self
            .routes
            .iter()
            .filter(|route| route.destination.is_ipv6() == ipv6)
            .map(|route| route.json(Version::V0_2_0))
            .collect();
        if !routes.is_empty() {
            shown["routes"] = Value::Array(routes);
        }
        shown
    }
}

impl Interface {
    fn json(&self, version: Version) -> Value {
        let mut shown = json!({ "name": self.name });
        if let Some(mac) = &self.mac {
            shown["mac"] = json!(mac);
        }
        if let Some(mtu) = self.mtu.filter(|_| version >= Version::V1_1_0) {
            shown["mtu"] = json!(mtu);
        }
        if let Some(sandbox) = &self.sandbox {
            shown["sandbox"] = json!(sandbox);
        }
        shown
    }
}

impl Ip {
    fn json(&self, version: Version) -> Value {
        let mut shown = Map::new();
        if version < Version::V1_0_0 {
            shown.insert("version".to_owned(), json!(if self.address.is_ipv6() { "6" } else { "4" }));
        }
        if let Some(interface) = self.interface {
            shown.insert("interface".to_owned(), json!(interface));
        }
        shown.insert("address".to_owned(), json!(self.address.to_string()));
        if let Some(gateway) = self.gateway {
            shown.insert("gateway".to_owned(), json!(gateway));
        }
        Value::Object(shown)
    }
}

impl Route {
    fn json(&self, version: Version) -> Value {
        let mut shown = json!({ "dst": self.destination.to_string() });
        if let Some(gateway) = self.gateway {
            shown["gw"] = json!(gateway);
        }
        if version >= Version::V1_1_0 {
            self.more.iter().for_each(|(key, value)| shown[key] = value.clone());
        }
        shown
    }
}

impl Dns {
    fn json(&self) -> Value {
        let mut shown = Map::new();
        let mut list = |key: &str, list: &[String]| {
            if !list.is_empty() {
                shown.insert(key.to_owned(), json!(list));
            }
        };
        list("nameservers", &self.nameservers);
        list("search", &self.search);
        list("options", &self.options);
        if let Some(domain) = &self.domain {
            shown.insert("domain".to_owned(), json!(domain));
        }
        Value::Object(shown)
    }

    /// Reads the object under the key `dns`.
    pub(super) fn read(object: Option<Object<'_>>) -> Result<Self, Failure> {
        let Some(object) = object else { return Ok(Self::default()) };
        let texts = |key| Ok::<_, Failure>(object.texts(key)?.into_iter().map(str::to_owned).collect());
        Ok(Self {
            nameservers: texts("nameservers")?,
            domain: object.text("domain")?.map(str::to_owned),
            search: texts("search")?,
            options: texts("options")?,
        })
    }
}

/// Reading.
impl Outcome {
    /// Reads a result, which says of itself in which version it is; `version` is that of the configuration around it.
    pub(super) fn read(value: &Value, version: Version) -> Result<Self, Failure> {
        let object = Object::of(value, "prevResult")?;
        let version = match object.text("cniVersion")? {
            None => version,
            Some(text) => text.parse().map_err(|()| {
                let message = format!("incompatible CNI version \"{}\" of prevResult", shown(text));
                Failure::new(Code::IncompatibleVersion, message)
            })?,
        };
        let dns = Dns::read(object.object("dns")?)?;
        if version < Version::V0_3_0 {
            let mut outcome = Self { dns, ..Self::default() };
            for key in ["ip4", "ip6"] {
                object.object(key)?.map_or(Ok(()), |family| outcome.read_family(family))?;
            }
            return Ok(outcome);
        }
        let interfaces: Vec<Interface> =
            object.objects("interfaces")?.iter().map(Interface::read).collect::<Result<_, _>>()?;
        let ips = object.objects("ips")?;
        let ips = ips.iter().map(|ip| Ip::read(ip, interfaces.len())).collect::<Result<_, _>>()?;
        let routes = object.objects("routes")?.iter().map(Route::read).collect::<Result<_, _>>()?;
        Ok(Self { interfaces, ips, routes, dns })
    }

    fn read_family(&mut self, family: Object<'_>) -> Result<(), Failure> {
        let address = cidr("prevResult: ip", family.text("ip")?.unwrap_or_default())?;
        self.ips.push(Ip { interface: None, address, gateway: family.parsed("gateway", "an IP address")? });
        let routes: Vec<Route> =
            family.objects("routes")?.iter().map(Route::read).collect::<Result<_, _>>()?;
        self.routes.extend(routes);
        Ok(())
    }
}

impl Interface {
    fn read(object: &Object<'_>) -> Result<Self, Failure> {
        let text = |key| Ok::<_, Failure>(object.text(key)?.map(str::to_owned));
        Ok(Self {
            name: text("name")?.unwrap_or_default(),
            mac: text("mac")?,
            mtu: object.number("mtu")?,
            sandbox: text("sandbox")?,
        })
    }
}

impl Ip {
    fn read(object: &Object<'_>, interfaces: usize) -> Result<Self, Failure> {
        let interface = object.number::<i64>("interface")?;
        let interface = match interface.map(usize::try_from) {
            None => None,
            Some(Ok(index)) if index < interfaces => Some(index),
            Some(_) => {
                let message = format!(
                    "invalid ips: interface {} is refused: there are {interfaces} interfaces",
                    interface.unwrap_or_default()
                );
                return Err(Failure::config(message));
            }
        };
        Ok(Self {
            interface,
            address: cidr("ips: address", object.text("address")?.unwrap_or_default())?,
            gateway: object.parsed("gateway", "an IP address")?,
        })
    }
}

impl Route {
    pub(super) fn read(object: &Object<'_>) -> Result<Self, Failure> {
        let mut more = Map::new();
        for key in MORE {
            if let Some(number) = object.number::<u32>(key)? {
                more.insert(key.to_owned(), json!(number));
            }
        }
        let destination = cidr("routes: dst", object.text("dst")?.unwrap_or_default())?;
        Ok(Self { destination, gateway: object.parsed("gw", "an IP address")?, more })
    }
}

/// An address with the length of its subnet.
pub(super) fn cidr(what: &str, text: &str) -> Result<IpNetwork, Failure> {
    // Without a length it would be read as one address.
    let checked = if text.contains('/') { text } else { "" };
    json::parse(what, checked, "an address and a length, as 10.0.0.2/24").map_err(|failure| Failure {
        message: failure.message.replacen("\"\"", &format!("\"{}\"", shown(text)), 1),
        ..failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            interfaces: vec![
                Interface { name: "rnet0".to_owned(), ..Interface::default() },
                Interface {
                    name: "eth0".to_owned(),
                    mac: Some("02:42:0a:00:00:02".to_owned()),
                    mtu: Some(1500),
                    sandbox: Some("/run/netns/a".to_owned()),
                },
            ],
            ips: vec![
                Ip {
                    interface: Some(1),
                    address: "10.0.0.2/24".parse().unwrap(),
                    gateway: "10.0.0.1".parse().ok(),
                },
                Ip { interface: Some(1), address: "fd00::2/64".parse().unwrap(), gateway: None },
            ],
            routes: vec![Route::default("10.0.0.1".parse().unwrap())],
            dns: Dns { nameservers: vec!["10.0.0.1".to_owned()], ..Dns::default() },
        }
    }

    #[test]
    fn each_version_has_its_shape() {
        assert_eq!(
            outcome().json(Version::V0_2_0),
            json!({
                "cniVersion": "0.2.0",
                "ip4": { "ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }] },
                "ip6": { "ip": "fd00::2/64" },
                "dns": { "nameservers": ["10.0.0.1"] },
            })
        );
        let interfaces = |mtu: bool| {
            let mut eth0 = json!({ "name": "eth0", "mac": "02:42:0a:00:00:02" });
            if mtu {
                eth0["mtu"] = json!(1500);
            }
            eth0["sandbox"] = json!("/run/netns/a");
            json!([{ "name": "rnet0" }, eth0])
        };
        let shown = outcome().json(Version::V0_4_0);
        assert_eq!(shown["interfaces"], interfaces(false));
        assert_eq!(
            shown["ips"],
            json!([
                { "version": "4", "interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1" },
                { "version": "6", "interface": 1, "address": "fd00::2/64" },
            ])
        );
        let shown = outcome().json(Version::V1_1_0);
        assert_eq!(shown["interfaces"], interfaces(true));
        assert_eq!(
            shown["ips"][0],
            json!({ "interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1" })
        );
    }

    #[test]
    fn what_was_written_is_read_back_in_every_version() {
        for version in Version::ALL {
            let read = Outcome::read(&outcome().json(version), Version::CURRENT).unwrap();
            assert_eq!(read.json(version), outcome().json(version), "{}", version.name());
        }
    }

    #[test]
    fn a_hostile_result_is_refused_with_what_is_wrong() {
        for (value, wrong) in [
            (json!([]), "prevResult"),
            (json!({ "cniVersion": "9" }), "\"9\""),
            (json!({ "ips": [{ "address": "10.0.0.2" }] }), "\"10.0.0.2\""),
            (json!({ "ips": [{ "address": "10.0.0.2/99" }] }), "\"10.0.0.2/99\""),
            (json!({ "ips": [{ "address": "10.0.0.2/24", "interface": 7 }] }), "interface 7"),
            (json!({ "ips": [{ "address": "10.0.0.2/24", "interface": -1 }] }), "interface -1"),
            (json!({ "interfaces": "eth0" }), "\"eth0\""),
            (json!({ "routes": [{ "dst": "x" }] }), "\"x\""),
        ] {
            let failure = Outcome::read(&value, Version::CURRENT).unwrap_err();
            assert!(failure.message.contains(wrong), "{}", failure.message);
        }
    }
}
