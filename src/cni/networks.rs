//! The network that a configuration means: one that the command made, or one that is made on first use from the keys
//! of the configuration. Chooses nothing that `rnet network create` would not choose.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use rnetkit_drivers::Network;
use serde_json::json;

use super::{
    Request,
    failure::{Code, Failure},
    json::{Object, parse},
    keys, policy,
    result::cidr,
};
use crate::{
    error::Error,
    ipam::Wishes,
    kernel::Linux,
    verbs::{CreateNetwork, Mode, Rnet},
};

/// The label that says: made by a configuration, and by which keys.
const LABEL: &str = "rnet.cni";

/// How often a network that vanishes between two steps is made again.
pub(super) const TRIES: usize = 20;

/// Which network is meant.
#[derive(Debug, Clone)]
pub(super) enum Meant {
    /// One of the command, by name or id.
    Made(String),
    /// The configuration's own.
    OnFirstUse(Box<CreateNetwork>),
}

impl Meant {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Made(name) => name,
            Self::OnFirstUse(wanted) => wanted.name.as_str(),
        }
    }

    /// Reads it from a configuration of type `rnet`.
    pub(super) fn read(request: &Request) -> Result<Self, Failure> {
        let root = request.config.root();
        if let Some(name) = root.text("network")? {
            let inline = keys::NETWORK.into_iter().find(|key| root.get(key).is_some());
            return match inline {
                Some(key) => Err(Failure::config(format!(
                    "invalid {key}: the network is {name}, whose settings are those it was made with; only without \"network\" are they taken from here"
                ))),
                None => Ok(Self::Made(name.to_owned())),
            };
        }
        inline(request).map(|wanted| Self::OnFirstUse(Box::new(wanted)))
    }

    /// The network as it is now, if it is there.
    pub(super) fn find(&self, rnet: &Rnet<Linux>) -> Result<Option<Network>, Failure> {
        match rnet.network(self.name()) {
            Ok(network) => Ok(Some(network)),
            Err(Error::NetworkNotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it if that is needed; says whether it was.
    pub(super) fn ensure(&self, rnet: &mut Rnet<Linux>) -> Result<bool, Failure> {
        let Self::OnFirstUse(wanted) = self else { return Ok(false) };
        for _ in 0..TRIES {
            if let Some(network) = self.find(rnet)? {
                if network.labels.get(LABEL) == wanted.labels.get(LABEL) {
                    return Ok(false);
                }
                replace(rnet, &network)?;
            }
            match rnet.create((**wanted).clone(), Mode::Do) {
                Ok(_) => return Ok(true),
                // Another container of the network came first.
                Err(Error::NetworkExists { .. }) => {}
                Err(error) => match stale(rnet, &error)? {
                    Some(network) => drop(rnet.remove(network.name.as_str(), false, Mode::Do)?),
                    None => return Err(error.into()),
                },
            }
        }
        Err(Error::NetworkExists { name: wanted.name.to_string() }.into())
    }

    /// Takes back what `ensure` made, when nothing came of it. Who uses it meanwhile keeps it.
    pub(super) fn take_back(&self, rnet: &mut Rnet<Linux>) {
        match rnet.remove(self.name(), false, Mode::Do) {
            Ok(_) | Err(Error::HasEndpoints { .. } | Error::NetworkNotFound { .. }) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// A network of that name that is not as the configuration says it. One that an earlier configuration made and nobody
/// uses gives way.
fn replace(rnet: &mut Rnet<Linux>, network: &Network) -> Result<(), Failure> {
    if !network.labels.contains_key(LABEL) {
        let message = format!(
            "network {} was made by the command: its settings are not those of the configuration",
            network.name
        );
        return Err(
            Failure::config(message).details(format!("\"network\": \"{}\" uses it as it is", network.name))
        );
    }
    match rnet.remove(network.name.as_str(), false, Mode::Do) {
        Ok(_) | Err(Error::NetworkNotFound { .. }) => Ok(()),
        Err(Error::HasEndpoints { containers, .. }) => Err(Failure::config(format!(
            "network {} was made with other settings, and containers use it: {containers}",
            network.name
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The network that is in the way, if a configuration made it and nobody uses it: its configuration may be gone long
/// since, and no verb of the protocol would have said so.
fn stale(rnet: &Rnet<Linux>, error: &Error) -> Result<Option<Network>, Failure> {
    let (Error::SubnetTaken { by: text, .. } | Error::Unsupported { what: text }) = error else {
        return Ok(None);
    };
    let named = |network: &Network| text.split_whitespace().rev().any(|word| word == network.name.as_str());
    for network in rnet.networks()?.into_iter().filter(|network| network.labels.contains_key(LABEL)) {
        if named(&network) && !rnet.store().has_endpoints(&network.id)? {
            return Ok(Some(network));
        }
    }
    Ok(None)
}

fn inline(request: &Request) -> Result<CreateNetwork, Failure> {
    let root = request.config.root();
    let mut options: BTreeMap<String, String> = root.pairs("options")?.into_iter().collect();
    if let Some(mtu) = root.number::<u32>("mtu")? {
        options.insert("mtu".to_owned(), mtu.to_string());
    }
    let driver = root.text("driver")?.unwrap_or("bridge");
    add_policy(&root, &mut options)?;
    share_device(request, driver, &mut options)?;
    let mut wishes = Wishes {
        subnets: one_or_more(&root, "subnet", "subnets", |text| cidr("subnet", text))?,
        gateways: one_or_more(&root, "gateway", "gateways", |text| parse("gateway", text, "an IP address"))?,
        ranges: one_or_more(&root, "ipRange", "ipRanges", |text| cidr("ipRange", text))?,
        aux: BTreeMap::new(),
    };
    for (name, text) in root.pairs("auxAddresses")? {
        wishes.aux.insert(name, parse("auxAddresses", &text, "an IP address")?);
    }
    if wishes.subnets.is_empty() {
        from_runtime(request, &mut wishes)?;
    }
    let mut wanted = CreateNetwork {
        name: request.config.name.clone(),
        driver: driver.to_owned(),
        ipv4: root.switch("ipv4")?.unwrap_or(true),
        ipv6: root.flag("ipv6")? || wishes.subnets.iter().any(IpNetwork::is_ipv6),
        wishes,
        ipam_driver: "default".to_owned(),
        ipam_options: BTreeMap::new(),
        internal: root.flag("internal")?,
        attachable: false,
        labels: root.pairs("labels")?.into_iter().collect(),
        options,
    };
    // A single IPv6 subnet is no wish for an IPv4 one.
    if root.get("ipv4").is_none() && !wanted.wishes.subnets.is_empty() {
        wanted.ipv4 = wanted.wishes.subnets.iter().any(|subnet| !subnet.is_ipv6());
    }
    Ok(labelled(wanted))
}

/// The key `policy`: the same words as `ingressPolicy` of `firewall`, as options of the network.
fn add_policy(root: &Object<'_>, options: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    let Some(text) = root.text("policy")? else { return Ok(()) };
    for (name, value) in policy::options("policy", text)? {
        if let Some(other) = options.get(&name).filter(|other| **other != value) {
            return Err(Failure::config(format!(
                "invalid policy: \"{text}\" contradicts {name} = {other} of options"
            )));
        }
        options.insert(name, value);
    }
    Ok(())
}

/// The capability `deviceID`: the device whose interface containers share.
fn share_device(
    request: &Request,
    driver: &str,
    options: &mut BTreeMap<String, String>,
) -> Result<(), Failure> {
    let Some(id) = request.config.runtime()?.map(|runtime| runtime.text("deviceID")).transpose()?.flatten()
    else {
        return Ok(());
    };
    if !["macvlan", "ipvlan"].contains(&driver) {
        let message = format!(
            "unsupported runtimeConfig: deviceID: a network of driver {driver} shares no device; those of macvlan and ipvlan do"
        );
        return Err(Failure::new(Code::UnsupportedField, message));
    }
    let found = crate::kernel::interface_of_device(id)
        .map_err(|refusal| Failure::config(format!("invalid runtimeConfig: deviceID: {refusal}")))?;
    match options.insert("parent".to_owned(), found.clone()) {
        Some(other) if other != found => Err(Failure::config(format!(
            "invalid runtimeConfig: deviceID: {id} is {found}, and the configuration has parent = {other}"
        ))),
        _ => Ok(()),
    }
}

/// Says in a label by which keys a network was made, so that others are noticed.
pub(super) fn labelled(mut wanted: CreateNetwork) -> CreateNetwork {
    let Wishes { subnets, gateways, ranges, aux } = &wanted.wishes;
    let keys = json!({
        "driver": wanted.driver, "subnets": subnets, "gateways": gateways, "ranges": ranges, "aux": aux,
        "ipv4": wanted.ipv4, "ipv6": wanted.ipv6, "internal": wanted.internal, "options": wanted.options,
    });
    wanted.labels.insert(LABEL.to_owned(), keys.to_string());
    wanted
}

/// The capability `ipRanges`: sets of ranges, of which a network takes the first of each set.
fn from_runtime(request: &Request, wishes: &mut Wishes) -> Result<(), Failure> {
    let Some(runtime) = request.config.runtime()? else { return Ok(()) };
    for set in runtime.list("ipRanges")? {
        let set = set
            .as_array()
            .ok_or_else(|| Failure::config("invalid runtimeConfig: ipRanges: it must be a list of lists"))?;
        if set.len() > 1 {
            return Err(Failure::config(
                "invalid runtimeConfig: ipRanges: a network takes one range of each family",
            ));
        }
        for range in set {
            let range = Object::of(range, "ipRanges")?;
            wishes.subnets.push(cidr("ipRanges: subnet", range.text("subnet")?.unwrap_or_default())?);
            wishes.gateways.extend(range.parsed::<IpAddr>("gateway", "an IP address")?);
        }
    }
    Ok(())
}

fn one_or_more<T>(
    object: &Object<'_>,
    one: &str,
    more: &str,
    read: impl Fn(&str) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let single = object.text(one)?;
    single.into_iter().chain(object.texts(more)?).map(read).collect()
}
