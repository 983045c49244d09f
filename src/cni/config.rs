//! The network configuration that comes on stdin, with what libcni puts into it: name, version, `prevResult`,
//! `runtimeConfig` (SPEC 1.1, section 1). Reads it, and leaves what belongs to a plugin to the plugin.

use std::io::Read;

use rnetkit_drivers::Name;
use serde_json::{Map, Value};

use super::{
    failure::{Code, Failure},
    json::{self, Object},
    result::Outcome,
    version::Version,
};
use crate::error::shown;

/// The longest configuration, in bytes. Kubernetes allows 256 KiB of annotations, the largest thing that a runtime
/// passes on.
const LONGEST: u64 = 1024 * 1024;

/// What libcni calls the list of attachments that are still valid, now and before.
const VALID: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// A configuration whose name and version are known to be good.
#[derive(Debug, Clone)]
pub(super) struct Config {
    map: Map<String, Value>,
    pub(super) version: Version,
    /// The network's name for CNI.
    pub(super) name: Name,
}

/// An attachment that the runtime still wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) container: String,
    pub(super) interface: String,
}

/// Reads stdin to its end, if that comes early enough.
pub(super) fn read(input: impl Read) -> Result<Map<String, Value>, Failure> {
    let mut bytes = Vec::new();
    let failed = |error| Failure::new(Code::Io, format!("cannot read the configuration from stdin: {error}"));
    input.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::new(Code::Decode, format!("the configuration has more than {LONGEST} bytes")));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::new(Code::Decode, "the configuration is no JSON object")),
        Err(error) => Err(Failure::new(Code::Decode, format!("the configuration is no JSON: {error}"))),
    }
}

/// The version that a configuration is written in. Without the key it is the first.
pub(super) fn version(map: &Map<String, Value>) -> Result<Version, Failure> {
    let text = Object::new(map, "the configuration").text("cniVersion")?.unwrap_or("0.1.0");
    text.parse().map_err(|()| {
        let message = format!("incompatible CNI version \"{}\" in the configuration", shown(text));
        Failure::new(Code::IncompatibleVersion, message)
            .details(format!("supported are {}", Version::names().join(", ")))
    })
}

impl Config {
    pub(super) fn new(map: Map<String, Value>) -> Result<Self, Failure> {
        let version = version(&map)?;
        let name = Object::new(&map, "the configuration").text("name")?;
        let name = name.ok_or_else(|| Failure::config("the configuration has no name"))?;
        let name = Name::parse("network name", name).map_err(|error| Failure::config(error.to_string()))?;
        Ok(Self { map, version, name })
    }

    pub(super) fn root(&self) -> Object<'_> {
        Object::new(&self.map, "the configuration")
    }

    /// As it came, for delegates.
    pub(super) fn text(&self) -> String {
        Value::Object(self.map.clone()).to_string()
    }

    /// The values of capabilities.
    pub(super) fn runtime(&self) -> Result<Option<Object<'_>>, Failure> {
        self.root().object("runtimeConfig")
    }

    /// `args.cni`: what a user of the runtime asks for.
    pub(super) fn args(&self) -> Result<Option<Object<'_>>, Failure> {
        match self.root().object("args")? {
            Some(args) => args.object("cni"),
            None => Ok(None),
        }
    }

    /// What the plugins before this one made.
    pub(super) fn previous(&self) -> Result<Option<Outcome>, Failure> {
        self.root().get("prevResult").map(|value| Outcome::read(value, self.version)).transpose()
    }

    /// `prevResult` in the version of the configuration, for plugins that pass it on.
    pub(super) fn passed_on(&self) -> Result<Option<Value>, Failure> {
        let Some(value) = self.root().get("prevResult") else { return Ok(None) };
        let outcome = Outcome::read(value, self.version)?;
        let stated = value.as_object().and_then(|map| json::get(map, "cniVersion")).and_then(Value::as_str);
        // As it came where it is in the right version: it may have keys of other plugins.
        Ok(Some(match stated {
            Some(stated) if stated == self.version.name() => value.clone(),
            _ => outcome.json(self.version),
        }))
    }

    /// GC: what is still valid. `None` where the runtime says nothing of it: then only what is dead may go.
    pub(super) fn valid(&self) -> Result<Option<Vec<Attachment>>, Failure> {
        let Some(key) = VALID.into_iter().find(|key| json::has(&self.map, key)) else { return Ok(None) };
        let list = self.root().objects(key)?;
        let one = |object: &Object<'_>| {
            let text = |key| Ok::<_, Failure>(object.text(key)?.unwrap_or_default().to_owned());
            Ok(Attachment { container: text("containerID")?, interface: text("ifname")? })
        };
        list.iter().map(one).collect::<Result<Vec<_>, Failure>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::failure::Reason, *};

    fn config(value: Value) -> Result<Config, Failure> {
        Config::new(value.as_object().cloned().unwrap())
    }

    #[test]
    fn what_is_no_object_or_too_long_is_refused() {
        let code = |text: &[u8]| read(text).unwrap_err().reason;
        assert_eq!(code(b""), Reason::Own(Code::Decode));
        assert_eq!(code(b"[]"), Reason::Own(Code::Decode));
        assert_eq!(code(b"{"), Reason::Own(Code::Decode));
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
        assert_eq!(
            read(long.as_bytes()).unwrap_err().message,
            "the configuration has more than 1048576 bytes"
        );
        let deep = "[".repeat(100_000);
        assert_eq!(code(format!("{{\"a\": {deep}").as_bytes()), Reason::Own(Code::Decode));
    }

    #[test]
    fn versions_and_names_are_checked() {
        assert_eq!(config(json!({ "name": "a" })).unwrap().version, Version::V0_1_0);
        let failure = config(json!({ "name": "a", "cniVersion": "1.2.0" })).unwrap_err();
        assert_eq!(failure.reason, Reason::Own(Code::IncompatibleVersion));
        for bad in [json!({}), json!({ "name": "../x" }), json!({ "name": "" }), json!({ "name": 7 })] {
            assert_eq!(config(bad).unwrap_err().reason, Reason::Own(Code::InvalidConfig));
        }
    }

    #[test]
    fn a_list_of_valid_attachments_that_is_null_is_empty_and_one_that_is_absent_is_none() {
        let valid = |value| config(value).unwrap().valid().unwrap();
        assert_eq!(valid(json!({ "name": "a" })), None);
        assert_eq!(valid(json!({ "name": "a", "cni.dev/valid-attachments": null })), Some(vec![]));
        let one = Attachment { container: "c".to_owned(), interface: "eth0".to_owned() };
        assert_eq!(
            valid(json!({ "name": "a", "cni.dev/attachments": [{ "containerID": "c", "ifname": "eth0" }] })),
            Some(vec![one])
        );
    }
}
