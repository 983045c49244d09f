//! What a host is able to do and what could be in the way: looked at for `doctor`, never on the way of a connect.

use std::fs;

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Family, Network};

use super::{
    Linux, Refusal, address,
    firewall::{self, ForeignChain},
    link::{self, Link},
    listen::HeardLink,
    sysctl,
};

/// A link of the host that carries the mark of rnet's links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedLink {
    /// Its name.
    pub name: String,
    /// Its interface group.
    pub group: u32,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Why nf_tables cannot be used, if it cannot.
    pub firewall: Option<String>,
    /// The kernel has IPv6.
    pub ipv6: bool,
    /// It forwards IPv4, and IPv6.
    pub forwards: [bool; 2],
    /// `net.bridge.bridge-nf-call-iptables`: bridged packets pass the host's firewall too. `None`: not loaded.
    pub bridge_filter: Option<bool>,
    /// Interfaces whose `rp_filter` is strict (1).
    pub strict_interfaces: Vec<String>,
    /// Chains of others that could drop what containers send or receive.
    pub foreign: Vec<ForeignChain>,
    /// The older form of `iptables`, which nf_tables does not show, has tables.
    pub legacy_tables: bool,
    /// Links with rnet's mark.
    pub marked: Vec<MarkedLink>,
    /// Interfaces that are up, with their largest packet in bytes; rnet's own and loopback left out.
    pub interfaces: Vec<(String, u32)>,
    /// The host's addresses, with the interfaces that have them.
    pub addresses: Vec<(IpNetwork, String)>,
}

impl Linux {
    /// Looks at the host.
    ///
    /// # Errors
    /// When the kernel cannot be asked at all.
    pub fn survey(&mut self) -> Result<Survey, Refusal> {
        let links = self.finding_host()?.dump(&link::list(), Link::read)?;
        let ours = |link: &&Link| link.group & 0xffff_0000 == Network::GROUPS;
        let name_of =
            |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let addresses = self.finding_host()?.dump(&address::list(), address::read)?.into_iter();
        let mut survey = Survey {
            ipv6: fs::metadata("/proc/sys/net/ipv6").is_ok(),
            forwards: [Family::Ipv4, Family::Ipv6].map(|family| sysctl::forwards(family).unwrap_or(false)),
            legacy_tables: ["ip", "ip6"].iter().any(|family| {
                fs::read_to_string(format!("/proc/net/{family}_tables_names"))
                    .is_ok_and(|names| !names.is_empty())
            }),
            bridge_filter: switch("/proc/sys/net/bridge/bridge-nf-call-iptables"),
            marked: links
                .iter()
                .filter(ours)
                .map(|link| MarkedLink { name: link.name.clone(), group: link.group })
                .collect(),
            addresses: addresses.filter_map(|(index, address)| Some((address, name_of(index)?))).collect(),
            ..Survey::default()
        };
        for link in links.iter().filter(|link| link.up && !ours(link) && link.name != "lo") {
            survey.interfaces.push((link.name.clone(), link.mtu));
            let path = format!("/proc/sys/net/ipv4/conf/{}/rp_filter", link.name);
            if !link.name.contains('/') && fs::read_to_string(path).is_ok_and(|text| text.trim() == "1") {
                survey.strict_interfaces.push(link.name.clone());
            }
        }
        match self.finding_firewall().and_then(|(nft, _)| firewall::foreign_chains(nft)) {
            Ok(chains) => survey.foreign = chains,
            Err(refusal) => survey.firewall = Some(refusal.to_string()),
        }
        Ok(survey)
    }
}

impl Linux {
    /// The interface that the host's default route leads through; IPv4's before IPv6's.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn default_interface(&mut self) -> Result<Option<String>, Refusal> {
        let host = self.finding_host()?;
        let Some(index) = super::linux::default_link(host)? else { return Ok(None) };
        let links = host.dump(&link::list(), Link::read)?;
        Ok(links.into_iter().find(|link| link.index == index).map(|link| link.name))
    }

    /// Every link of the host.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn links(&mut self) -> Result<Vec<HeardLink>, Refusal> {
        let links = self.finding_host()?.dump(&link::list(), Link::read)?;
        Ok(links.into_iter().map(HeardLink::from).collect())
    }
}

fn switch(path: &str) -> Option<bool> {
    fs::read_to_string(path).ok().map(|text| text.trim() == "1")
}
