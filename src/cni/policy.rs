//! How open a network is: the words of `firewall` for it, as options of a network of rnet. Changes nothing.

use super::failure::Failure;
use crate::error::shown;

/// The options that a policy stands for. `open`: whoever has a route to a container reaches it. `same-bridge`: its
/// neighbours do, and others by published ports. `isolated`: others by published ports alone.
pub(super) fn options(key: &str, policy: &str) -> Result<Vec<(String, String)>, Failure> {
    let (mode, icc) = match policy {
        "open" => ("nat-unprotected", None),
        "same-bridge" => ("nat", None),
        "isolated" => ("nat", Some("false")),
        other => {
            return Err(Failure::config(format!(
                "invalid {key}: \"{}\": it must be open, same-bridge or isolated",
                shown(other)
            )));
        }
    };
    let modes = ["gateway-mode-ipv4", "gateway-mode-ipv6"].map(|name| (name, mode));
    let pairs = modes.into_iter().chain(icc.map(|icc| ("icc", icc)));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
