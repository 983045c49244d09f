//! What the keys of `bridge`, `ptp`, `macvlan` and `ipvlan` mean for a network of rnet. Makes nothing.

use std::collections::BTreeMap;

use super::{
    Request,
    failure::{Code, Failure},
    json::{Object, parse},
    maker::{Keys, Maker},
};
use crate::error::shown;

pub(super) static BRIDGE: Maker = Maker { keys: bridge, needs_addresses: false };
pub(super) static PTP: Maker = Maker { keys: ptp, needs_addresses: true };
pub(super) static MACVLAN: Maker = Maker { keys: macvlan, needs_addresses: false };
pub(super) static IPVLAN: Maker = Maker { keys: ipvlan, needs_addresses: false };

fn unsupported<T>(key: &str, why: &str) -> Result<T, Failure> {
    Err(Failure::new(Code::UnsupportedField, format!("unsupported {key}: {why}")))
}

fn options<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn mtu(root: &Object<'_>, options: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    let mtu = root.number::<u32>("mtu")?.filter(|mtu| *mtu > 0);
    options.extend(mtu.map(|mtu| ("mtu".to_owned(), mtu.to_string())));
    Ok(())
}

fn check_backend(root: &Object<'_>) -> Result<(), Failure> {
    match root.text("ipMasqBackend")?.filter(|name| !["iptables", "nftables"].contains(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::config(format!("invalid ipMasqBackend: {}", shown(name)))),
    }
}

fn bridge(request: &Request) -> Result<Keys, Failure> {
    let root = request.config.root();
    if root.number::<u32>("vlan")?.unwrap_or(0) != 0 || !root.list("vlanTrunk")?.is_empty() {
        return unsupported("vlan", "rnet's bridges filter no VLANs");
    }
    for key in ["promiscMode", "disableContainerInterface"] {
        if root.flag(key)? {
            return unsupported(key, "rnet's bridges know where each address is, and interfaces are up");
        }
    }
    check_backend(&root)?;
    for key in ["hairpinMode", "forceAddress", "enabledad", "preserveDefaultVlan"] {
        root.flag(key)?;
    }
    let is_default = root.flag("isDefaultGateway")?;
    let is_gateway = root.flag("isGateway")? || is_default;
    let mut options = options([
        ("name", root.text("bridge")?.unwrap_or("cni0").to_owned()),
        ("masquerade", root.flag("ipMasq")?.to_string()),
        ("icc", (!root.flag("portIsolation")?).to_string()),
        ("spoof-check", root.flag("macspoofchk")?.to_string()),
        ("inhibit-ipv4", (!is_gateway).to_string()),
        ("gateway-mode-ipv4", "nat-unprotected".to_owned()),
        ("gateway-mode-ipv6", "nat-unprotected".to_owned()),
        // Names are nothing that this name promises, and the runtime has its own.
        ("dns", "false".to_owned()),
    ]);
    mtu(&root, &mut options)?;
    Ok(Keys { driver: "bridge", options, shares: None, is_gateway, is_default, mac: None })
}

fn ptp(request: &Request) -> Result<Keys, Failure> {
    let root = request.config.root();
    check_backend(&root)?;
    let mut options = options([
        ("masquerade", root.flag("ipMasq")?.to_string()),
        ("gateway-mode-ipv4", "nat-unprotected".to_owned()),
        ("gateway-mode-ipv6", "nat-unprotected".to_owned()),
    ]);
    mtu(&root, &mut options)?;
    Ok(Keys { driver: "ptp", options, shares: None, is_gateway: true, is_default: false, mac: None })
}

fn macvlan(request: &Request) -> Result<Keys, Failure> {
    let root = request.config.root();
    if root.number::<u32>("bcqueuelen")?.unwrap_or(0) != 0 {
        return unsupported("bcqueuelen", "rnet leaves the queue of broadcasts as the kernel has it");
    }
    let mac = root.text("mac")?.filter(|text| !text.is_empty());
    let mac = mac.map(|text| parse("mac", text, "a MAC address")).transpose()?;
    Ok(Keys { mac, ..shared(&root, "macvlan", &["bridge", "private", "vepa", "passthru"])? })
}

fn ipvlan(request: &Request) -> Result<Keys, Failure> {
    shared(&request.config.root(), "ipvlan", &["l2", "l3", "l3s"])
}

/// What plugins have in common that share an interface of the host; the first mode is the usual one.
fn shared(root: &Object<'_>, driver: &'static str, modes: &[&str]) -> Result<Keys, Failure> {
    if root.flag("linkInContainer")? {
        return unsupported("linkInContainer", "rnet shares interfaces of the host");
    }
    let mode = root.text("mode")?.filter(|mode| !mode.is_empty()).unwrap_or(modes[0]);
    if !modes.contains(&mode) {
        let known = modes.join(", ");
        return Err(Failure::config(format!("invalid mode: \"{}\": it must be one of {known}", shown(mode))));
    }
    let mut options = options([("mode", mode.to_owned())]);
    mtu(root, &mut options)?;
    let shares = Some(root.text("master")?.unwrap_or_default().to_owned());
    Ok(Keys { driver, options, shares, is_gateway: true, is_default: false, mac: None })
}
