//! The configuration that lets a runtime use a network of the command. Reads and writes that one file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rnetkit_drivers::Network;
use serde_json::{Value, json};

use super::keys;
use crate::error::Error;

/// The list for the network, as text. Older runtimes read `cniVersion`, newer ones choose from `cniVersions`.
#[must_use]
pub fn list(network: &Network) -> String {
    let capabilities: serde_json::Map<String, Value> =
        passed_on().map(|name| (name.to_owned(), json!(true))).collect();
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": network.name,
        "plugins": [{ "type": "rnet", "network": network.name, "capabilities": capabilities }],
    });
    format!("{list:#}\n")
}

/// What runtimes pass on to type `rnet`; of a network that is there already the subnet and the device are settled.
fn passed_on() -> impl Iterator<Item = &'static str> {
    keys::ACTED_UPON.into_iter().filter(|key| !["ipRanges", "deviceID"].contains(key))
}

/// The file of a network, if nobody else has it.
///
/// # Errors
/// When something else is there.
pub fn place(folder: &Path, network: &str) -> Result<PathBuf, Error> {
    let path = folder.join(format!("{network}.conflist"));
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
        Err(error) => return Err(Error::store(path, error)),
    };
    let there: Value = serde_json::from_slice(&text).unwrap_or_default();
    let is_ours = there["plugins"][0]["type"] == "rnet" && there["plugins"][0]["network"] == network;
    if is_ours {
        return Ok(path);
    }
    Err(Error::Unsupported { what: format!("{} is there already, and is not rnet's", path.display()) })
}

/// Writes it in one step: a runtime that watches the directory never reads a part.
///
/// # Errors
/// When something else is there, or it cannot be written.
pub fn write(folder: &Path, network: &Network) -> Result<PathBuf, Error> {
    let path = place(folder, network.name.as_str())?;
    // Runtimes read what ends in .conflist alone.
    let fresh = folder.join(format!(".{}.rnet-{}", network.name, std::process::id()));
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&fresh, list(network)))
        .and_then(|()| fs::rename(&fresh, &path));
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        return Err(Error::store(path, error));
    }
    Ok(path)
}
