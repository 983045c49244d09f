//! Finds what is wrong with a configuration file before a runtime reads it: the protocol lets misspelt keys pass in
//! silence. Changes nothing.

use std::{io::Read, path::Path};

use rnetkit_drivers::{Name, options::nearest_of};
use serde_json::{Map, Value};

use super::{json::get, keys, version::Version};
use crate::error::{Error, shown};

/// What is wrong with the file, a line for each thing; none where all is well.
///
/// # Errors
/// When the file cannot be read.
pub fn lint(path: &Path) -> Result<Vec<String>, Error> {
    const LONGEST: u64 = 1024 * 1024;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Error::store(path, error))?;
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| Error::store(path, error))?;
    let mut findings = Vec::new();
    match serde_json::from_slice::<Value>(&bytes) {
        _ if bytes.len() as u64 > LONGEST => findings.push(format!("it has more than {LONGEST} bytes")),
        Ok(Value::Object(map)) => findings = whole(&map),
        Ok(_) => findings.push("it is no JSON object".to_owned()),
        Err(error) => findings.push(format!("it is no JSON: {error}")),
    }
    Ok(findings.into_iter().map(|finding| format!("{}: {finding}", path.display())).collect())
}

fn whole(map: &Map<String, Value>) -> Vec<String> {
    let mut findings = Vec::new();
    let text = |key: &str| get(map, key).and_then(Value::as_str);
    match text("name").map(|name| Name::parse("network name", name)) {
        None => findings.push("it has no name".to_owned()),
        Some(Err(error)) => findings.push(error.to_string()),
        Some(Ok(_)) => {}
    }
    let versions = get(map, "cniVersions").and_then(Value::as_array).cloned().unwrap_or_default();
    let versions = versions.iter().filter_map(Value::as_str);
    for version in text("cniVersion").into_iter().chain(versions) {
        if version.parse::<Version>().is_err() {
            findings.push(format!("there is no version \"{}\" of CNI", shown(version)));
        }
    }
    let Some(list) = get(map, "plugins") else {
        findings.extend(plugin("it", map));
        return findings;
    };
    findings.extend(unknown("it", map, &keys::LIST));
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() {
        findings.push("it has no plugins".to_owned());
    }
    for (number, one) in list.iter().enumerate() {
        let name = format!("plugins[{number}]");
        match one.as_object() {
            Some(map) => findings.extend(plugin(&name, map)),
            None => findings.push(format!("{name} is no object")),
        }
    }
    findings
}

fn plugin(name: &str, map: &Map<String, Value>) -> Vec<String> {
    let Some(kind) = get(map, "type").and_then(Value::as_str) else {
        return vec![format!("{name} has no type")];
    };
    if let Err(error) = Name::parse("type", kind) {
        return vec![format!("{name}: {error}")];
    }
    let name = format!("{name} ({kind})");
    let mut findings = Vec::new();
    if let Some(keys) = keys::of(kind) {
        findings.extend(unknown(&name, map, &[&keys::EVERY[..], &keys].concat()));
    }
    if let Some(ipam) = get(map, "ipam").and_then(Value::as_object) {
        let kind = get(ipam, "type").and_then(Value::as_str).unwrap_or_default();
        if let Some(keys) = keys::of(kind) {
            findings.extend(unknown(
                &format!("{name}: ipam ({kind})"),
                ipam,
                &[&["type", "name"][..], &keys].concat(),
            ));
        }
    }
    if let Some(map) = get(map, "capabilities").and_then(Value::as_object) {
        findings.extend(unknown(&format!("{name}: capabilities"), map, &keys::CAPABILITIES));
    }
    findings
}

fn unknown(name: &str, map: &Map<String, Value>, known: &[&'static str]) -> Vec<String> {
    let is_unknown = |key: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(key));
    let finding = |key: &String| {
        let near = nearest_of(key, known.iter().copied());
        let near = near.map(|near| format!("; the nearest known one is \"{near}\"")).unwrap_or_default();
        format!("{name}: unknown key \"{}\"{near}", shown(key))
    };
    map.keys().filter(is_unknown).map(finding).collect()
}
