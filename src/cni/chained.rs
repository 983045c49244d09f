//! Plugins that come after one that made an interface, and change what that made: `portmap`, `firewall`, `tuning`,
//! `bandwidth`. Each extends the record of the interface, so that it is taken back with it, whoever is called for that.

use std::collections::BTreeMap;

use rnetkit_drivers::{LinkTuning, MacAddress, Network, SysctlName, Tuning};
use serde_json::Value;

use super::{
    Plugin, Request,
    allowlist::Allowlist,
    attachment,
    failure::{Code, Failure},
    json::{Object, parse},
    networks::Meant,
    result::Outcome,
    version::Version,
};
use crate::{
    container_ref::ContainerRef,
    error::shown,
    kernel::Linux,
    store::EndpointState,
    verbs::{Less, More, Rnet},
};

/// What the plugins of this kind differ in.
pub(super) struct Chained {
    /// What they give the interface.
    more: fn(&Request) -> Result<Change, Failure>,
    /// What they take from it again.
    less: Option<Less>,
    /// What they change of the result.
    result: fn(&mut Outcome, &Change, &Request),
}

/// What a plugin changes.
#[derive(Default)]
struct Change {
    more: More,
    /// Options of the network.
    network: BTreeMap<String, String>,
    /// Nothing has to be looked at.
    is_nothing: bool,
}

pub(super) static PORTMAP: Chained = Chained { more: portmap, less: Some(Less::Ports), result: |_, _, _| {} };
pub(super) static FIREWALL: Chained = Chained { more: firewall, less: None, result: |_, _, _| {} };
pub(super) static TUNING: Chained = Chained { more: tuning, less: Some(Less::Tuning), result: tuned };
pub(super) static BANDWIDTH: Chained =
    Chained { more: bandwidth, less: Some(Less::Limits), result: |_, _, _| {} };

impl Plugin for Chained {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        let change = (self.more)(request)?;
        let Some(passed_on) = request.config.passed_on()? else {
            return Err(Failure::config(
                "there is no prevResult: this plugin comes after one that makes an interface",
            ));
        };
        if change.is_nothing {
            return Ok(passed_on);
        }
        let mut rnet = request.rnet()?;
        rnet.wake()?;
        let (mut network, container, _) = attached(&rnet, request)?.ok_or_else(|| unknown(request))?;
        if rnet.reconfigure(&network, &change.network)? {
            network = rnet.network(network.name.as_str())?;
        }
        let mut more = change.more.clone();
        (more.ports, more.spare) = rnet.part_ports(&network, &container, more.ports)?;
        rnet.extend(&network, &container, &more)?;
        let Some(mut outcome) = request.config.previous()? else { return Ok(passed_on) };
        let before = outcome.clone();
        (self.result)(&mut outcome, &change, request);
        Ok(if outcome == before { passed_on } else { outcome.json(request.config.version) })
    }

    fn del(&self, request: &Request) -> Result<(), Failure> {
        let Some(less) = self.less else { return Ok(()) };
        let mut rnet = request.rnet()?;
        rnet.wake()?;
        if let Some((network, container, state)) = attached(&rnet, request)?
            && has(&state, less)
        {
            rnet.reduce(&network, &container, less)?;
            if less == Less::Ports {
                rnet.use_spare(&container)?;
            }
        }
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        let change = (self.more)(request)?;
        if change.is_nothing {
            return Ok(());
        }
        let meant = Meant::Made(request.config.name.to_string());
        let state = attachment::check(&mut request.rnet()?, &meant, request)?;
        refuse_other_tuning(&state, &change.more.tuning)
    }

    /// What is dead goes with its interface, whose plugin collects it.
    fn gc(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let unavailable = |failure: Failure| failure.because(Code::NotAvailable);
        attachment::refuse_without_firewall(&mut request.rnet().map_err(unavailable)?).map_err(unavailable)
    }
}

type Attached = (Network, ContainerRef, EndpointState);

/// The interface that is meant, if rnet made it.
fn attached(rnet: &Rnet<Linux>, request: &Request) -> Result<Option<Attached>, Failure> {
    let Some(network) = Meant::Made(request.config.name.to_string()).find(rnet)? else { return Ok(None) };
    let found = attachment::find(rnet, &network, request)?;
    Ok(found.map(|(container, state)| (network, container, state)))
}

fn unknown(request: &Request) -> Failure {
    let (id, interface, name) = (&request.call.container, &request.call.interface, &request.config.name);
    Failure::config(format!(
        "{interface} of container {id} on network {name} was not made by rnet: only what rnet made can be changed by it"
    ))
}

fn has(state: &EndpointState, less: Less) -> bool {
    match less {
        Less::Ports => !state.endpoint.ports.is_empty() || !state.endpoint.spare.is_empty(),
        Less::Tuning => !state.endpoint.tuning.is_empty(),
        Less::Limits => !state.endpoint.options.is_empty(),
    }
}

fn unsupported(key: &str, why: &str) -> Failure {
    Failure::new(Code::UnsupportedField, format!("unsupported {key}: {why}"))
}

fn one_of(object: &Object<'_>, key: &str, known: &[&str]) -> Result<(), Failure> {
    match object.text(key)?.filter(|text| !known.contains(text)) {
        None => Ok(()),
        Some(text) => Err(Failure::config(format!(
            "invalid {key}: \"{}\": it must be {}",
            shown(text),
            known.join(" or ")
        ))),
    }
}

/// Client addresses are kept and marks are not needed, so the keys about both have nothing to do.
fn portmap(request: &Request) -> Result<Change, Failure> {
    let root = request.config.root();
    one_of(&root, "backend", &["iptables", "nftables"])?;
    root.switch("snat")?;
    root.number::<u8>("markMasqBit")?;
    root.text("externalSetMarkChain")?;
    if root.flag("masqAll")? {
        return Err(unsupported("masqAll", "rnet keeps the addresses of clients"));
    }
    for key in ["conditionsV4", "conditionsV6"] {
        if !root.list(key)?.is_empty() {
            return Err(unsupported(key, "rnet has no rules of iptables that they could be part of"));
        }
    }
    let ports = attachment::ports(request)?;
    Ok(Change { is_nothing: ports.is_empty(), more: More { ports, ..More::default() }, ..Change::default() })
}

/// Networks of rnet have a firewall anyway; this says how open it is.
fn firewall(request: &Request) -> Result<Change, Failure> {
    let root = request.config.root();
    if request.config.version < Version::V0_4_0 {
        let message =
            format!("version {} of the configuration does not allow firewall", request.config.version.name());
        return Err(Failure::new(Code::IncompatibleVersion, message));
    }
    one_of(&root, "backend", &["iptables", "firewalld", "nftables"])?;
    root.text("iptablesAdminChainName")?;
    root.text("firewalldZone")?;
    let policy = root.text("ingressPolicy")?.unwrap_or("open");
    let network: BTreeMap<String, String> =
        super::policy::options("ingressPolicy", policy)?.into_iter().collect();
    Ok(Change { network, is_nothing: policy == "open", ..Change::default() })
}

fn tuning(request: &Request) -> Result<Change, Failure> {
    let tuning = tuning_keys(request)?;
    request.config.root().text("dataDir")?;
    Ok(Change {
        is_nothing: tuning.is_empty(),
        more: More { tuning, ..More::default() },
        ..Change::default()
    })
}

/// Switches, and what makes an interface other than it is born. `args.cni` comes after the configuration, and the
/// runtime after both.
pub(super) fn tuning_keys(request: &Request) -> Result<Tuning, Failure> {
    let root = request.config.root();
    let mut tuning = Tuning::default();
    let objects = [Some(root), request.config.args()?, request.config.runtime()?];
    let own = objects.into_iter().flatten();
    let mut sysctls = Vec::new();
    for object in own.clone() {
        sysctls.extend(object.pairs("sysctl")?);
    }
    if !sysctls.is_empty() {
        let allowed = Allowlist::read()?;
        sysctls.iter().try_for_each(|(name, _)| allowed.check(name))?;
    }
    for (name, value) in sysctls {
        let (name, value) = sysctl(&name.replace("IFNAME", &request.call.interface), &value)?;
        tuning.sysctls.insert(name, value);
    }
    for object in own {
        let positive = |key: &str| Ok::<_, Failure>(object.number::<u32>(key)?.filter(|number| *number > 0));
        let link = &mut tuning.link;
        let mac =
            object.text("mac")?.map(|text| parse::<MacAddress>("mac", text, "a MAC address")).transpose()?;
        *link = LinkTuning {
            mac: mac.or(link.mac),
            mtu: positive("mtu")?.or(link.mtu),
            queue: positive("txQLen")?.or(link.queue),
            promiscuous: object.switch("promisc")?.filter(|on| *on).or(link.promiscuous),
            all_multicast: object.switch("allmulti")?.or(link.all_multicast),
        };
    }
    if let Some(text) = &request.call.args.mac {
        tuning.link.mac.get_or_insert(parse("CNI_ARGS: MAC", text, "a MAC address")?);
    }
    Ok(tuning)
}

fn sysctl(name: &str, value: &str) -> Result<(SysctlName, String), Failure> {
    let name: SysctlName = name.parse()?;
    if value.len() > 256 || value.contains(char::is_control) {
        return Err(Failure::config(format!("invalid sysctl {name}: \"{}\"", shown(value))));
    }
    Ok((name, value.to_owned()))
}

fn tuned(outcome: &mut Outcome, change: &Change, request: &Request) {
    let link = &change.more.tuning.link;
    let own = |name: &str| name == request.call.interface;
    for interface in outcome.interfaces.iter_mut().filter(|one| one.sandbox.is_some() && own(&one.name)) {
        interface.mac = link.mac.map(|mac| mac.to_string()).or(interface.mac.take());
        interface.mtu = link.mtu.or(interface.mtu);
    }
}

fn refuse_other_tuning(state: &EndpointState, tuning: &Tuning) -> Result<(), Failure> {
    let missing =
        tuning.sysctls.iter().find(|(name, value)| state.endpoint.tuning.sysctls.get(*name) != Some(*value));
    match missing {
        None => Ok(()),
        Some((name, value)) => {
            Err(Failure::new(Code::Differs, format!("{name} = {value} was not set by rnet")))
        }
    }
}

fn bandwidth(request: &Request) -> Result<Change, Failure> {
    if request.config.version < Version::V0_3_0 {
        let message = format!(
            "version {} of the configuration does not allow bandwidth",
            request.config.version.name()
        );
        return Err(Failure::new(Code::IncompatibleVersion, message));
    }
    let options = attachment::limits(request)?;
    let options: BTreeMap<String, String> = options.into_iter().collect();
    Ok(Change {
        is_nothing: options.is_empty(),
        more: More { options, ..More::default() },
        ..Change::default()
    })
}
