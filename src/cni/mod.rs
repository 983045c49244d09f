//! rnet as a CNI plugin (specification 1.1.0): environment and JSON in, verbs called, JSON out. Never touches the
//! kernel or the store itself.
//!
//! One file is many plugins: the type `rnet`, and those that it is by the name it is called by.
//!
//! | module | what it does |
//! |---|---|
//! | `call` | the environment: verb, container, namespace, interface |
//! | `config` | stdin: name, version, what the runtime and other plugins put into it |
//! | `json` | JSON as Go reads it |
//! | `result` | what ADD prints, in the shape of each version |
//! | `failure` | codes and lines |
//! | `keys` | the keys that configurations may have |
//! | `networks`, `policy` | the network that a configuration means, made on first use |
//! | `attachment` | one container's place there: ADD, DEL, CHECK, GC, STATUS |
//! | `native`, `maker`, `bridge`, `chained`, `loopback` | the plugins that make and change interfaces |
//! | `allowlist` | the switches that an administrator lets them set |
//! | `leases`, `host_local`, `fixed`, `delegate` | addresses: our own plugins for them, and others' |
//! | `install`, `export`, `lint` | rnet where runtimes look for plugins; their files, written and looked through |

mod allowlist;
mod attachment;
mod bridge;
mod call;
mod chained;
mod config;
mod delegate;
pub mod export;
mod failure;
mod fixed;
mod host_local;
pub mod install;
mod json;
mod keys;
mod leases;
pub mod lint;
mod loopback;
mod maker;
mod native;
mod networks;
mod policy;
mod result;
mod version;

use std::{ffi::OsString, io::Write as _, path::Path};

pub use call::Environment;
use call::{Call, Verb};
use config::Config;
use failure::{Code, Failure};
use serde_json::{Value, json};
use version::Version;

use crate::{
    container::watch::Held,
    kernel::{Deletion, Linux},
    verbs::Rnet,
};

/// The version of the reference plugins whose keys the drop-in names understand; some runtimes read it from what a
/// plugin says of itself, and turn features off where it is too old.
const LIKE: &str = "1.9.1";

/// A call with all that belongs to it.
struct Request {
    call: Call,
    config: Config,
}

impl Request {
    /// The networks of this host.
    fn rnet(&self) -> Result<Rnet<Linux>, Failure> {
        Ok(Rnet::open(&self.call.root, &self.call.run, Deletion::Behind)?)
    }
}

/// What a plugin does for each verb.
trait Plugin: Sync {
    /// ADD; returns what is to be printed.
    fn add(&self, request: &Request) -> Result<Value, Failure>;
    /// DEL, any number of times, with or without a namespace.
    fn del(&self, request: &Request) -> Result<(), Failure>;
    /// CHECK.
    fn check(&self, request: &Request) -> Result<(), Failure>;
    /// GC.
    fn gc(&self, request: &Request) -> Result<(), Failure>;
    /// STATUS.
    fn status(&self, request: &Request) -> Result<(), Failure>;
}

/// A plugin that rnet can be.
#[derive(Clone, Copy)]
pub struct Called {
    name: &'static str,
    plugin: &'static dyn Plugin,
}

static ALL: [Called; 12] = [
    Called { name: "rnet", plugin: &native::Native },
    Called { name: "bridge", plugin: &bridge::BRIDGE },
    Called { name: "ptp", plugin: &bridge::PTP },
    Called { name: "macvlan", plugin: &bridge::MACVLAN },
    Called { name: "ipvlan", plugin: &bridge::IPVLAN },
    Called { name: "host-local", plugin: &host_local::HostLocal },
    Called { name: "static", plugin: &fixed::Fixed },
    Called { name: "loopback", plugin: &loopback::Loopback },
    Called { name: "portmap", plugin: &chained::PORTMAP },
    Called { name: "firewall", plugin: &chained::FIREWALL },
    Called { name: "tuning", plugin: &chained::TUNING },
    Called { name: "bandwidth", plugin: &chained::BANDWIDTH },
];

/// The names of all plugins; the first is rnet's own.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|called| called.name).collect()
}

/// The plugin that rnet is called as, if it is called as one: by its own name, by `rnet cni` alone, or by
/// `CNI_COMMAND` where there are no words besides.
#[must_use]
pub fn called(words: &[OsString], environment: Environment<'_>) -> Option<Called> {
    let name = words.first().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or_default();
    if let Some(called) = ALL[1..].iter().find(|called| called.name == name) {
        return Some(*called);
    }
    let alone = match words.len() {
        0 | 1 => environment("CNI_COMMAND").is_some(),
        2 => words[1] == "cni",
        _ => false,
    };
    alone.then_some(ALL[0])
}

/// Does what is asked for, and prints one JSON object or nothing. Returns the exit code.
pub fn main(called: Called, environment: Environment<'_>) -> u8 {
    let Some(verb) = environment("CNI_COMMAND").filter(|verb| !verb.is_empty()) else {
        return about(called.name);
    };
    let mut version = Version::CURRENT;
    // A signal that comes while the host is being changed ends the plugin when it is done, and not half-way.
    let held = Held::signals();
    let done =
        Verb::read(&verb.to_string_lossy()).and_then(|verb| run(called, verb, environment, &mut version));
    drop(held);
    match done {
        Ok(None) => 0,
        Ok(Some(value)) => print(&value, 0),
        Err(failure) => print(&failure.json(version), 1),
    }
}

/// What a person sees who starts the plugin by hand, and a runtime that asks which version it is.
fn about(name: &str) -> u8 {
    let text = format!(
        "CNI {name} plugin v{LIKE}+rnet.{}\nCNI protocol versions supported: {}\n",
        env!("CARGO_PKG_VERSION"),
        Version::names().join(", ")
    );
    let _ = std::io::stderr().write_all(text.as_bytes());
    0
}

fn print(value: &Value, code: u8) -> u8 {
    match std::io::stdout().write_all(format!("{value}\n").as_bytes()) {
        Ok(()) => code,
        Err(_) => 1,
    }
}

fn run(
    called: Called,
    verb: Verb,
    environment: Environment<'_>,
    version: &mut Version,
) -> Result<Option<Value>, Failure> {
    if verb == Verb::Version {
        return Ok(Some(json!({
            "cniVersion": Version::CURRENT.name(),
            "supportedVersions": Version::names(),
        })));
    }
    let call = Call::read(verb, environment)?;
    let map = config::read(std::io::stdin().lock())?;
    *version = config::version(&map)?;
    let config = Config::new(map)?;
    refuse_older(verb, config.version)?;
    let request = Request { call, config };
    match verb {
        Verb::Add => called.plugin.add(&request).map(Some),
        Verb::Del => called.plugin.del(&request).map(|()| None),
        Verb::Check => called.plugin.check(&request).map(|()| None),
        Verb::Gc => called.plugin.gc(&request).map(|()| None),
        Verb::Status => called.plugin.status(&request).map(|()| None),
        Verb::Version => Ok(None),
    }
}

/// Verbs that the version of the configuration did not have yet.
fn refuse_older(verb: Verb, version: Version) -> Result<(), Failure> {
    let first = match verb {
        Verb::Check => Version::V0_4_0,
        Verb::Gc | Verb::Status => Version::V1_1_0,
        Verb::Add | Verb::Del | Verb::Version => Version::V0_1_0,
    };
    if version >= first {
        return Ok(());
    }
    let message = format!("version {} of the configuration does not allow {}", version.name(), verb.name());
    Err(Failure::new(Code::IncompatibleVersion, message))
}

/// Any bytes as a configuration, read as far as it is one: for fuzz targets.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    let Ok(map) = config::read(bytes) else { return };
    let Ok(config) = Config::new(map) else { return };
    let _ = (config.runtime().is_ok(), config.args().is_ok(), config.valid().is_ok());
    let _ = (config.previous().is_ok(), config.passed_on().is_ok());
    let _ = attachment::bandwidth(&config.root());
}
