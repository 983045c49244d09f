//! What hosts share: networks, addresses and endpoints of overlay networks, in a store that all of them reach. Never
//! touches the kernel, and never decides what a host makes of it.
//!
//! ```text
//! PREFIX/v1/seen/meta                    which cluster this is, for ever
//!           seen/hosts/HOST              a host: its address, its generation; fenced when it was removed
//!           seen/alive/HOST              on a lease: the only thing that ends by time
//!           seen/nets/NETWORK            a network as defined
//!           seen/ends/NETWORK/HOST/ENDPOINT   an endpoint that others may send to
//!           names/NAME  vnis/NUMBER      who has a name, a number on the wire
//!           pools                        changed with each new network, so that two cannot take one subnet
//!           addresses/NETWORK/ADDRESS    who has an address; `released` for a while after it is given back
//! ```
//!
//! Each change is one transaction that names what it relies on. Only what is below `seen/` is followed.

pub mod address;
pub mod etcd;
pub mod follow;
pub mod memory;
pub mod operations;
mod proto;
pub mod store;
pub mod tls;

use std::net::IpAddr;

use rnetkit_drivers::{Id, MacAddress, Network, overlay};
use serde::{Deserialize, Serialize};

use crate::cipher::{PublicKey, tunnel_address};

/// A host, as others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its id, for ever.
    pub id: Id,
    /// What people call it.
    pub name: String,
    /// The address that others send to.
    pub address: IpAddr,
    /// The largest packet of the link that has the address, in bytes.
    pub mtu: u32,
    /// Counts its lives in the cluster: one more each time it comes back after it was removed.
    pub generation: u64,
    /// It was removed: what it had is nobody's, until it comes back.
    #[serde(default)]
    pub fenced: bool,
    /// What it proves to be where networks are encrypted; `None` where it cannot encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
}

impl Host {
    /// The address that it sends a network's VXLAN from, and is sent to; `None` where it cannot take part.
    #[must_use]
    pub fn address_for(&self, encrypted: bool) -> Option<IpAddr> {
        match (encrypted, &self.key) {
            (false, _) => Some(self.address),
            (true, Some(_)) => Some(tunnel_address(&self.id).into()),
            (true, None) => None,
        }
    }
}

/// Whether what containers of a network say to each other leaves a host in cipher only.
#[must_use]
pub fn is_encrypted(network: &Network) -> bool {
    overlay::Settings::of(network).is_ok_and(|settings| settings.encrypted)
}

/// An endpoint that others may send to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its id.
    pub id: Id,
    /// The container's id.
    #[serde(default)]
    pub container: Option<Id>,
    /// The container's name.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Other names of the container on the network.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// An endpoint, or one that is being made.
    By {
        /// The host.
        host: Id,
        /// The endpoint: a new one for each attempt, so that an attempt knows its own.
        endpoint: Id,
        /// The container's name.
        name: String,
    },
    /// Nobody; it rests.
    Released,
}

/// The names of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Below this prefix, `rnet` where none is given.
    #[must_use]
    pub fn below(prefix: &str) -> Self {
        Self { prefix: format!("{}/v1", prefix.trim_matches('/')) }
    }

    /// What every host follows.
    #[must_use]
    pub fn seen(&self) -> String {
        format!("{}/seen/", self.prefix)
    }

    pub(crate) fn meta(&self) -> String {
        format!("{}/seen/meta", self.prefix)
    }

    pub(crate) fn host(&self, host: &Id) -> String {
        format!("{}/seen/hosts/{host}", self.prefix)
    }

    pub(crate) fn alive(&self, host: &Id) -> String {
        format!("{}/seen/alive/{host}", self.prefix)
    }

    pub(crate) fn networks(&self) -> String {
        format!("{}/seen/nets/", self.prefix)
    }

    pub(crate) fn network(&self, network: &Id) -> String {
        format!("{}/seen/nets/{network}", self.prefix)
    }

    pub(crate) fn ends(&self, network: &Id) -> String {
        format!("{}/seen/ends/{network}/", self.prefix)
    }

    pub(crate) fn all_ends(&self) -> String {
        format!("{}/seen/ends/", self.prefix)
    }

    pub(crate) fn end(&self, network: &Id, host: &Id, end: &Id) -> String {
        format!("{}/seen/ends/{network}/{host}/{end}", self.prefix)
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/names/{name}", self.prefix)
    }

    pub(crate) fn vni(&self, vni: u32) -> String {
        format!("{}/vnis/{vni}", self.prefix)
    }

    pub(crate) fn pools(&self) -> String {
        format!("{}/pools", self.prefix)
    }

    pub(crate) fn addresses(&self, network: &Id) -> String {
        format!("{}/addresses/{network}/", self.prefix)
    }

    pub(crate) fn all_addresses(&self) -> String {
        format!("{}/addresses/", self.prefix)
    }

    pub(crate) fn address(&self, network: &Id, address: IpAddr) -> String {
        format!("{}/addresses/{network}/{address}", self.prefix)
    }

    /// What a followed key is about; `None` where it is no key of rnet's.
    #[must_use]
    pub fn read(&self, key: &str) -> Option<Key> {
        let rest = key.strip_prefix(&self.seen())?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            ["meta"] => Some(Key::Meta),
            ["hosts", host] => Some(Key::Host(host.parse().ok()?)),
            ["alive", host] => Some(Key::Alive(host.parse().ok()?)),
            ["nets", network] => Some(Key::Network(network.parse().ok()?)),
            ["ends", network, host, end] => Some(Key::End {
                network: network.parse().ok()?,
                host: host.parse().ok()?,
                end: end.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// What a followed key is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Which cluster this is.
    Meta,
    /// A host.
    Host(Id),
    /// Its life.
    Alive(Id),
    /// A network.
    Network(Id),
    /// An endpoint.
    End {
        /// Of which network.
        network: Id,
        /// On which host.
        host: Id,
        /// Which.
        end: Id,
    },
}

/// The longest value that is read, in bytes; rnet's own are shorter by far.
pub const LONGEST_VALUE: usize = 64 * 1024;

/// A value as what it should be, or why it is not.
///
/// # Errors
/// One line.
pub fn parse<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, String> {
    if value.len() > LONGEST_VALUE {
        return Err(format!("it has {} bytes, and {LONGEST_VALUE} are the most", value.len()));
    }
    serde_json::from_slice(value).map_err(|error| crate::error::shown(&error.to_string()))
}

/// A record as it is kept.
pub(crate) fn text<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).unwrap_or_default()
}

/// A network without what is one host's own.
#[must_use]
pub fn shared(network: &Network) -> Network {
    let mut network = network.clone();
    network.group = 0;
    network.options.remove(rnetkit_drivers::overlay::OWN_ADDRESS);
    network.options.remove("rnet.overlay.local");
    network
}

/// Whether the network is one that hosts share by a store.
#[must_use]
pub fn is_shared(network: &Network) -> bool {
    network.driver == "overlay"
        && !network.options.contains_key("peers")
        && !network.options.contains_key("rnet.overlay.peers")
}
