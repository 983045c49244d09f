//! doctor: what on this host helps or hinders, each with what to do about it. Looks, and changes nothing.

use rnetkit_drivers::{Network, PortRange};
use serde::Serialize;

use super::Rnet;
use crate::{
    agent::{part, wire},
    error::Error,
    ipam,
    kernel::{Feature, ForeignChain, Kernel as _, Linux, Manager, Survey, probe},
};

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, with a limit that is worth knowing.
    Note,
    /// Something will not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: `forwarding`, `firewall`.
    pub about: &'static str,
    /// How it is to be taken.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, where there is something to do.
    pub advice: Option<String>,
}

fn good(about: &'static str, found: impl Into<String>) -> Finding {
    Finding { about, verdict: Verdict::Good, found: found.into(), advice: None }
}

fn finding(
    about: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding { about, verdict, found: found.into(), advice: Some(advice.into()) }
}

impl Rnet<Linux> {
    /// Looks at the host.
    ///
    /// # Errors
    /// When records or the kernel cannot be read.
    pub fn doctor(&mut self) -> Result<Vec<Finding>, Error> {
        let survey = self.kernel.survey().map_err(|refusal| Error::kernel("look at the host", refusal))?;
        let mut findings = vec![firewall(&survey), ipv6(&survey), bridge_filter(&survey)];
        findings.extend(features(&probe()));
        findings.push(self.forwarding(&survey)?);
        findings.extend(policies(&survey));
        findings.extend(strict(&survey));
        findings.extend(self.clashes(&survey)?);
        findings.extend(self.routes(&survey)?);
        findings.extend(self.mtus(&survey)?);
        findings.extend(self.proxies()?);
        findings.extend(self.agent()?);
        findings.push(self.leftovers(&survey)?);
        findings.push(self.differences()?);
        Ok(findings)
    }

    fn forwarding(&self, survey: &Survey) -> Result<Finding, Error> {
        let made = self.store.host_state()?.map(|state| state.made).unwrap_or_default();
        let ours =
            made.iter().any(|resource| matches!(resource, rnetkit_drivers::Resource::Forwarding { .. }));
        Ok(match (survey.forwards[0], ours) {
            (true, true) => good("forwarding", "on, switched on by rnet, for its own networks only"),
            (true, false) => good("forwarding", "on, not by rnet, which leaves it alone"),
            (false, false) => {
                good("forwarding", "off; rnet switches it on with its first network that needs it")
            }
            (false, true) => {
                let advice = "rnet repair switches it on again";
                finding(
                    "forwarding",
                    Verdict::Bad,
                    "rnet switched it on, and somebody switched it off",
                    advice,
                )
            }
        })
    }

    /// Ports that wait for a proxy that nobody runs.
    fn proxies(&mut self) -> Result<Vec<Finding>, Error> {
        let mut list = Vec::new();
        for (container, port) in self.all_waiting()? {
            let ports = PortRange::one(port.host.port());
            let listener = self.kernel.listener(port.host.ip(), ports, port.carrier.protocol(), None);
            if listener.map_err(|refusal| Error::kernel("look for listening processes", refusal))?.is_none() {
                let found = format!(
                    "nobody serves {}/{} for container {container}",
                    port.host,
                    port.carrier.protocol()
                );
                list.push(finding("loopback", Verdict::Note, found, format!("run rnet proxy {container}")));
            }
        }
        Ok(list)
    }

    /// Networks that need an agent where none runs.
    fn agent(&self) -> Result<Vec<Finding>, Error> {
        let mut networks = self.store.made_networks()?;
        networks.retain(part::is_wanted_for);
        if !networks.is_empty() && wire::is_there(&self.store.agent_socket()) {
            return Ok(vec![good("agent", "it runs")]);
        }
        let missing = |network: &Network| {
            let found = format!("none runs; network {}: {}", network.name, part::missed_by(network));
            let advice = "rnet agent; the next connect starts it by itself, unless config.toml or RNET_AGENT says manual";
            finding("agent", Verdict::Bad, found, advice)
        };
        Ok(networks.iter().map(missing).collect())
    }

    /// Subnets of networks in which the host has an address elsewhere.
    fn clashes(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let marked = |name: &String| survey.marked.iter().any(|link| link.name == *name);
        let mut list = Vec::new();
        for network in self.networks()? {
            for pool in &network.pools {
                let clash = survey.addresses.iter().find(|(address, link)| {
                    !marked(link) && ipam::overlaps(&ipam::network_of(address), &pool.subnet)
                });
                list.extend(clash.map(|(address, link)| {
                    let found =
                        format!("{} of network {} overlaps {address} on {link}", pool.subnet, network.name);
                    finding(
                        "addresses",
                        Verdict::Bad,
                        found,
                        "create the network again with another --subnet",
                    )
                }));
            }
        }
        if list.is_empty() {
            list.push(good("addresses", "no network overlaps an address of the host"));
        }
        Ok(list)
    }

    /// Subnets of networks into which the host has a route elsewhere.
    fn routes(&mut self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let known =
            self.kernel.subnets().map_err(|refusal| Error::kernel("list the host's routes", refusal))?;
        let own = |how: &str| survey.marked.iter().any(|link| how.ends_with(&format!(" {}", link.name)));
        let mut list = Vec::new();
        for network in self.networks()? {
            for pool in &network.pools {
                let clash = known
                    .iter()
                    .find(|known| !own(&known.how) && ipam::overlaps(&known.subnet, &pool.subnet));
                list.extend(clash.map(|known| {
                    let found = format!(
                        "{} of network {} overlaps {} ({})",
                        pool.subnet, network.name, known.subnet, known.how
                    );
                    finding("routes", Verdict::Bad, found, "create the network again with another --subnet")
                }));
            }
        }
        if list.is_empty() {
            list.push(good("routes", "no network overlaps a route or name server of the host"));
        }
        Ok(list)
    }

    /// Networks whose packets are larger than those of the interfaces that they leave through.
    fn mtus(&self, survey: &Survey) -> Result<Vec<Finding>, Error> {
        let Some((link, smallest)) = survey.interfaces.iter().min_by_key(|(_, mtu)| *mtu) else {
            return Ok(Vec::new());
        };
        let mut list = Vec::new();
        for network in self.networks()?.iter().filter(|network| network.driver == "bridge") {
            let mtu = rnetkit_drivers::settings(network)?.mtu;
            if mtu > *smallest {
                let found = format!(
                    "network {} has an MTU of {mtu}, interface {link} one of {smallest}",
                    network.name
                );
                let advice = format!(
                    "where path MTU discovery does not work, create the network with --opt mtu={smallest}"
                );
                list.push(finding("MTU", Verdict::Note, found, advice));
            }
        }
        Ok(list)
    }

    /// Links with rnet's mark that no record of this instance knows.
    fn leftovers(&self, survey: &Survey) -> Result<Finding, Error> {
        let mut groups: Vec<u32> =
            self.store.network_states()?.iter().map(|state| state.network.group).collect();
        groups.extend(self.networks()?.iter().map(|network| network.group));
        let unknown: Vec<&str> = survey
            .marked
            .iter()
            .filter(|link| !groups.contains(&link.group))
            .map(|link| link.name.as_str())
            .collect();
        Ok(if unknown.is_empty() {
            good("leftovers", "every link with rnet's mark is on record")
        } else {
            let found =
                format!("links with rnet's mark that this instance has no record of: {}", unknown.join(", "));
            finding(
                "leftovers",
                Verdict::Note,
                found,
                "another instance's (--root, --run); if there is none: ip link delete NAME",
            )
        })
    }

    fn differences(&mut self) -> Result<Finding, Error> {
        let differences = self.check(&[])?;
        Ok(match differences.first() {
            None => good("records", "the kernel has what is recorded"),
            Some(first) => {
                let found = format!("{} differences, the first: {first}", differences.len());
                finding("records", Verdict::Bad, found, "rnet check lists them, rnet repair mends them")
            }
        })
    }
}

fn firewall(survey: &Survey) -> Finding {
    match &survey.firewall {
        None => good("firewall", "nf_tables works"),
        Some(why) => {
            let advice = "rnet needs root, and a kernel with nf_tables (CONFIG_NF_TABLES, NF_TABLES_INET, NF_TABLES_BRIDGE)";
            finding("firewall", Verdict::Bad, format!("nf_tables cannot be used: {why}"), advice)
        }
    }
}

/// What the kernel has and has not, with what each is for.
fn features(probed: &[Feature]) -> Vec<Finding> {
    let there: Vec<&str> =
        probed.iter().filter(|feature| feature.lacking.is_none()).map(|f| f.name).collect();
    let mut list = Vec::new();
    if !there.is_empty() {
        list.push(good("kernel", format!("it has {}", there.join(", "))));
    }
    for feature in probed {
        let Some(why) = &feature.lacking else { continue };
        let verdict = if feature.is_needed { Verdict::Bad } else { Verdict::Note };
        let advice = format!("{}: {}", feature.cost, feature.option);
        list.push(finding("kernel", verdict, format!("it has no {} ({why})", feature.name), advice));
    }
    list
}

fn ipv6(survey: &Survey) -> Finding {
    if survey.ipv6 {
        good("IPv6", "the kernel has it")
    } else {
        finding(
            "IPv6",
            Verdict::Note,
            "the kernel has none",
            "networks with --ipv6 cannot be made; others work",
        )
    }
}

fn bridge_filter(survey: &Survey) -> Finding {
    match survey.bridge_filter {
        Some(true) => {
            let found = "net.bridge.bridge-nf-call-iptables is 1: packets between containers pass the host's firewall too";
            finding(
                "br_netfilter",
                Verdict::Note,
                found,
                "others' rules meet them, and with icc=false members do not reach each other's published ports; 0 is faster, if nobody else needs it",
            )
        }
        Some(false) | None => good("br_netfilter", "off: packets between containers stay on the bridge"),
    }
}

/// Chains of others that drop what they do not know.
fn policies(survey: &Survey) -> Vec<Finding> {
    let mut list: Vec<Finding> = survey.foreign.iter().map(policy).collect();
    if survey.legacy_tables {
        let advice = "rnet cannot see them: where iptables-legacy -S FORWARD begins with -P FORWARD DROP, let containers through as examples/firewall.md says";
        list.push(finding("policies", Verdict::Note, "iptables-legacy has rules on this host", advice));
    }
    if list.is_empty() {
        list.push(good("policies", "no chain of others drops by policy what containers send or receive"));
    }
    list
}

fn policy(chain: &ForeignChain) -> Finding {
    let keeper = match chain.manager {
        Manager::Docker => " (Docker)",
        Manager::Ufw => " (ufw)",
        Manager::Firewalld => " (firewalld)",
        Manager::Iptables => " (iptables)",
        Manager::Nft => "",
    };
    let (name, table) = (&chain.chain, &chain.table);
    if chain.hook == "forward" {
        let found =
            format!("chain {name} of table {table}{keeper} drops forwarded packets that it does not know");
        finding("policies", Verdict::Bad, found, way_through(chain))
    } else {
        let found =
            format!("chain {name} of table {table}{keeper} drops packets to the host that it does not know");
        finding("policies", Verdict::Note, found, way_in(chain))
    }
}

/// The interface groups of all of rnet's links, as `iptables` and `nft` write them.
const GROUPS: &str = "0x726e0000/0xffff0000";
const IN_GROUPS: &str = "iifgroup & 0xffff0000 == 0x726e0000";

/// How forwarded packets of containers get through: both ways, by interface group. What containers may do is still for
/// rnet's own chains to say.
fn way_through(chain: &ForeignChain) -> String {
    let (name, table) = (&chain.chain, &chain.table);
    let iptables = if table.starts_with("ip6") { "ip6tables" } else { "iptables" };
    let rules = |chain: &str| {
        format!(
            "{iptables} -I {chain} -m devgroup --src-group {GROUPS} -j ACCEPT; {iptables} -I {chain} -m devgroup --dst-group {GROUPS} -j ACCEPT"
        )
    };
    let way = match chain.manager {
        Manager::Docker => rules("DOCKER-USER"),
        Manager::Iptables => rules("FORWARD"),
        Manager::Ufw => "ufw route allow in on BRIDGE; ufw route allow out on BRIDGE, for each bridge of rnet".to_owned(),
        Manager::Firewalld => {
            "firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE, for each bridge of rnet; firewall-cmd --reload; rnet repair".to_owned()
        }
        Manager::Nft => format!(
            "nft insert rule {table} {name} '{IN_GROUPS} accept'; nft insert rule {table} {name} '{} accept'",
            IN_GROUPS.replace("iif", "oif")
        ),
    };
    format!("let containers through there: {way}")
}

/// How the replies to the host's own loopback get in: connection tracking does not know them.
fn way_in(chain: &ForeignChain) -> String {
    let (name, table) = (&chain.chain, &chain.table);
    let iptables = if table.starts_with("ip6") { "ip6tables" } else { "iptables" };
    let way = match chain.manager {
        Manager::Docker | Manager::Iptables | Manager::Ufw => {
            format!("{iptables} -I {name} -m devgroup --src-group {GROUPS} -m conntrack --ctstate UNTRACKED -j ACCEPT")
        }
        Manager::Firewalld => {
            "firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE, for each bridge of rnet; firewall-cmd --reload; rnet repair".to_owned()
        }
        Manager::Nft => format!("nft insert rule {table} {name} '{IN_GROUPS} ct state untracked accept'"),
    };
    format!(
        "ports published on the host's own 127.0.0.1 need their untracked replies: {way}; or publish them through a process (--opt loopback=proxy, rnet proxy)"
    )
}

fn strict(survey: &Survey) -> Option<Finding> {
    if survey.strict_interfaces.is_empty() {
        return None;
    }
    let found = format!("rp_filter is strict on {}", survey.strict_interfaces.join(", "));
    let advice =
        "fine where replies leave through the interface that the question came in by; else set it to 2";
    Some(finding("rp_filter", Verdict::Note, found, advice))
}
