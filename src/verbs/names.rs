//! Which name servers a container has: those of its networks. Its files follow as it is connected and disconnected.

use std::{net::IpAddr, path::Path};

use rnetkit_drivers::{Invalid, Name, Network};
use serde::{Deserialize, Serialize};

use super::Rnet;
use crate::{
    agent::names::table::HOST_NAMES,
    container::files::{self, DnsOptions},
    error::Error,
    kernel::Kernel,
    store::EndpointState,
};

/// What the resolv.conf of a container of `rnet run` is made from, beside its networks.
const RECORD: &str = "names.json";
/// Where named namespaces are (`ip-netns(8)`), by both names of the place.
const NAMED: [&str; 2] = ["/run/netns/", "/var/run/netns/"];
const HOSTS_OWN: &str = "/etc/resolv.conf";

/// How a container's resolv.conf came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    dns: DnsOptions,
    /// What was written: who wrote something else there since meant it.
    text: String,
}

/// The name servers that a network gives its containers: the host's addresses on it, where the agent answers. None
/// where the network gives no names; then the host's own are the containers'.
///
/// # Errors
/// When the driver is unknown or an option makes no sense.
pub fn name_servers(network: &Network) -> Result<Vec<IpAddr>, Error> {
    Ok(super::driver(&network.driver)?.names(network)?.map(|names| names.servers).unwrap_or_default())
}

/// Whether others can find a container by that name, and by it nothing else.
///
/// # Errors
/// When it is no name in DNS (RFC 1035, 2.3.4), reads as a number (`inet_aton(3)`), or is the host's or everybody's own.
pub fn check_alias(text: &str) -> Result<(), Invalid> {
    let refuse = |reason: &str| Err(Invalid::new("alias", text, reason));
    Name::parse("alias", text)?;
    let lower = text.to_ascii_lowercase();
    if !text.split('.').all(|label| (1..=63).contains(&label.len())) {
        return refuse("each part between dots must have 1 to 63 bytes");
    }
    if lower.rsplit('.').next().is_some_and(reads_as_number) {
        return refuse("it would be read as an address");
    }
    if lower == "localhost" || lower.ends_with(".localhost") {
        return refuse("it is everybody's own name for itself");
    }
    if HOST_NAMES.contains(&lower.as_str()) || lower == "rnet.internal" || lower.ends_with(".rnet.internal") {
        return refuse("it is the host's name");
    }
    Ok(())
}

/// As `inet_aton(3)` reads numbers: decimal, octal, and hexadecimal after 0x.
fn reads_as_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || label.bytes().all(|byte| byte.is_ascii_digit())
}

impl<K: Kernel> Rnet<K> {
    /// The text of the resolv.conf of a container of `rnet run` that is in these networks; later changes of its networks
    /// change it, as long as nobody else does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_resolv_conf(
        &mut self,
        key: &str,
        networks: &[&Network],
        dns: &DnsOptions,
    ) -> Result<(), Error> {
        let text = resolv_conf(&servers_of(networks)?, dns);
        self.store.set_container_text(key, "resolv.conf", &text)?;
        self.store.set_container_record(key, RECORD, &Written { dns: dns.clone(), text })
    }

    /// An endpoint comes: its container gets to know where to ask. The record that names it is written already, so
    /// whoever takes that back takes this back too.
    pub(super) fn names_come(
        &mut self,
        network: &Network,
        state: &EndpointState,
        others: &[EndpointState],
    ) -> Result<(), Error> {
        if name_servers(network)?.is_empty() {
            return Ok(());
        }
        let mut networks = self.networks_known(others);
        networks.push(network.clone());
        self.set_names(state, &networks)
    }

    /// An endpoint goes: its container asks its other networks, if there are any that have names.
    pub(super) fn names_go(&mut self, state: &EndpointState) -> Result<(), Error> {
        let lent = named(state).is_some() && self.store.names_dir(&state.key).exists();
        if !lent && self.store.container_record::<Written>(&state.key, RECORD)?.is_none() {
            return Ok(());
        }
        let mut others = self.store.endpoints_of(&state.key)?;
        others.retain(|other| other.endpoint.id != state.endpoint.id);
        let networks = self.networks_known(&others);
        self.set_names(state, &networks)
    }

    fn networks_known(&self, states: &[EndpointState]) -> Vec<Network> {
        let made = |state: &EndpointState| self.store.made_network(&state.endpoint.network).ok().flatten();
        states.iter().filter_map(made).collect()
    }

    fn set_names(&mut self, state: &EndpointState, networks: &[Network]) -> Result<(), Error> {
        let servers = servers_of(&networks.iter().collect::<Vec<_>>())?;
        match named(state) {
            Some(name) => self.set_lent(&name, &state.key, &servers),
            None => self.rewrite(&state.key, &servers),
        }
    }

    /// What cannot be lent (a file system that cannot be written to) is told, and no reason not to connect.
    fn set_lent(&mut self, name: &Name, key: &str, servers: &[IpAddr]) -> Result<(), Error> {
        let folder = self.store.names_dir(key);
        let trouble = if servers.is_empty() {
            let taken = self.kernel.take_back_files(name, &folder);
            self.store.remove_names(key)?;
            taken.err()
        } else {
            self.store.set_names(key, &resolv_conf(servers, &DnsOptions::default()))?;
            self.kernel.lend_files(name, &folder).err()
        };
        if let Some(refusal) = trouble {
            tracing::warn!("/etc/netns/{name}: {refusal}");
        }
        Ok(())
    }

    /// In place: it is mounted in the container.
    fn rewrite(&mut self, key: &str, servers: &[IpAddr]) -> Result<(), Error> {
        let Some(written) = self.store.container_record::<Written>(key, RECORD)? else { return Ok(()) };
        if self.store.container_text(key, "resolv.conf")?.as_deref() != Some(written.text.as_str()) {
            return Ok(());
        }
        let text = resolv_conf(servers, &written.dns);
        self.store.set_container_text(key, "resolv.conf", &text)?;
        self.store.set_container_record(key, RECORD, &Written { text, ..written })
    }

    /// Takes back what an earlier life of the host left in /etc/netns.
    pub(super) fn take_back_dead_files(&mut self) {
        let containers = self.store.run_dir().join("containers");
        self.kernel.take_back_dead_files(&containers);
    }
}

/// The name servers of networks: first of those that lead outside.
fn servers_of(networks: &[&Network]) -> Result<Vec<IpAddr>, Error> {
    let mut networks = networks.to_vec();
    networks.sort_by_key(|network| network.internal);
    let mut list = Vec::new();
    for network in networks {
        list.extend(name_servers(network)?);
    }
    Ok(list)
}

/// The container's own, where it asks its networks: what the user gave is asked by the agent then, unless it is the
/// container itself.
fn resolv_conf(servers: &[IpAddr], dns: &DnsOptions) -> String {
    let host = std::fs::read(HOSTS_OWN).unwrap_or_default();
    let own = dns.servers.iter().any(|server| files::is_the_hosts_own(*server));
    let servers = if servers.is_empty() || own { dns.servers.clone() } else { servers.to_vec() };
    files::resolv_conf(&String::from_utf8_lossy(&host), &DnsOptions { servers, ..dns.clone() })
}

/// The name of the named namespace that an endpoint is in.
fn named(state: &EndpointState) -> Option<Name> {
    let path = Path::new(&state.endpoint.container.netns).to_str()?;
    NAMED.iter().find_map(|folder| path.strip_prefix(folder))?.parse().ok()
}
