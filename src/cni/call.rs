//! What the environment says of a call: verb, container, namespace, interface, arguments (SPEC 1.1, section
//! "Parameters"). Everything is parsed here, and trusted from then on. Reads the environment through a function that
//! it is given.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use rnetkit_drivers::Name;

use super::failure::{Code, Failure};
use crate::error::shown;

/// A variable of the environment by its name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => {
                return Err(invalid(
                    "CNI_COMMAND",
                    text,
                    "it must be ADD, DEL, CHECK, GC, STATUS or VERSION",
                ));
            }
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The variables without which the verb makes no sense.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc | Self::Status => &["CNI_PATH"],
            Self::Version => &[],
        }
    }
}

/// A call.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) verb: Verb,
    /// The container's id; empty for GC and STATUS.
    pub(super) container: String,
    /// The namespace file; absent where DEL no longer knows it.
    pub(super) netns: Option<PathBuf>,
    /// The interface's name in the container; empty for GC and STATUS.
    pub(super) interface: String,
    pub(super) args: Args,
    /// Where plugins are looked for.
    pub(super) path: Vec<PathBuf>,
    /// Where rnet keeps what it knows.
    pub(super) root: PathBuf,
    pub(super) run: PathBuf,
}

impl Call {
    pub(super) fn read(verb: Verb, environment: Environment<'_>) -> Result<Self, Failure> {
        let text = |name: &str| -> Result<String, Failure> {
            let Some(value) = environment(name) else { return Ok(String::new()) };
            value.into_string().map_err(|value| invalid(name, &value.to_string_lossy(), "it is not UTF-8"))
        };
        let mut missing = Vec::new();
        for name in verb.needs() {
            if text(name)?.is_empty() {
                missing.push(*name);
            }
        }
        if !missing.is_empty() {
            let message = format!("{} needs {}", verb.name(), missing.join(", "));
            return Err(Failure::new(Code::InvalidEnvironment, message));
        }
        let container = text("CNI_CONTAINERID")?;
        let interface = text("CNI_IFNAME")?;
        if verb.needs().contains(&"CNI_CONTAINERID") {
            let id = Name::parse("CNI_CONTAINERID", &container);
            id.map_err(|error| Failure::new(Code::InvalidEnvironment, error.to_string()))?;
            check_interface(&interface)?;
        }
        let netns = Some(text("CNI_NETNS")?).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = netns.as_ref().filter(|path| !path.is_absolute()) {
            return Err(invalid("CNI_NETNS", &path.to_string_lossy(), "it must be an absolute path"));
        }
        let folder = |name: &str, default: &str| {
            environment(name).filter(|value| !value.is_empty()).map_or_else(|| default.into(), PathBuf::from)
        };
        Ok(Self {
            verb,
            container,
            netns,
            interface,
            args: Args::read(&text("CNI_ARGS")?)?,
            path: text("CNI_PATH")?.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect(),
            root: folder("RNET_ROOT", "/var/lib/rnet"),
            run: folder("RNET_RUN", "/run/rnet"),
        })
    }

    /// The namespace file of verbs that need one.
    pub(super) fn netns(&self) -> Result<&Path, Failure> {
        let missing =
            || Failure::new(Code::InvalidEnvironment, format!("{} needs CNI_NETNS", self.verb.name()));
        self.netns.as_deref().ok_or_else(missing)
    }
}

/// As the kernel accepts interface names, `lo` included (`dev_valid_name()` of `net/core/dev.c`).
fn check_interface(text: &str) -> Result<(), Failure> {
    if text.len() > 15 {
        return Err(invalid("CNI_IFNAME", text, "it is longer than the 15 bytes that Linux allows"));
    }
    if text == "." || text == ".." || text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err(invalid("CNI_IFNAME", text, "it is no name that Linux allows"));
    }
    Ok(())
}

fn invalid(name: &str, value: &str, reason: &str) -> Failure {
    Failure::new(Code::InvalidEnvironment, format!("invalid {name} \"{}\": {reason}", shown(value)))
}

/// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`. Keys match in their exact case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Args {
    /// Addresses that are asked for, one after the other with commas.
    pub(super) ips: Vec<String>,
    pub(super) mac: Option<String>,
    pub(super) gateway: Option<String>,
    /// What Kubernetes and those who follow it call the container.
    pub(super) pod: Option<String>,
}

impl Args {
    fn read(text: &str) -> Result<Self, Failure> {
        let mut args = Self::default();
        let mut unknown = Vec::new();
        let mut ignore = false;
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid("CNI_ARGS", pair, "it must be KEY=VALUE"))?;
            match key {
                "IP" => args.ips.extend(value.split(',').map(|ip| ip.trim().to_owned())),
                "MAC" => args.mac = Some(value.to_owned()).filter(|mac| !mac.is_empty()),
                "GATEWAY" => args.gateway = Some(value.to_owned()),
                "K8S_POD_NAME" => args.pod = Some(value.to_owned()),
                "IgnoreUnknown" => ignore = ["1", "t", "T", "true", "TRUE", "True"].contains(&value),
                _ => {}
            }
            if !["IP", "MAC", "GATEWAY", "IgnoreUnknown"].contains(&key) {
                unknown.push(shown(key));
            }
        }
        args.ips.retain(|ip| !ip.is_empty());
        if !unknown.is_empty() && !ignore {
            let message =
                format!("unknown CNI_ARGS: {}; IgnoreUnknown=1 leaves them alone", unknown.join(", "));
            return Err(Failure::new(Code::InvalidEnvironment, message));
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::failure::Reason, *};

    fn call(verb: Verb, pairs: &[(&str, &str)]) -> Result<Call, Failure> {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        Call::read(verb, &find)
    }

    const ALL: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/a:/b"),
    ];

    #[test]
    fn each_verb_names_every_variable_that_is_missing() {
        let message = |verb| call(verb, &[]).unwrap_err().message;
        assert_eq!(message(Verb::Add), "ADD needs CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH");
        assert_eq!(message(Verb::Del), "DEL needs CNI_CONTAINERID, CNI_IFNAME, CNI_PATH");
        assert_eq!(message(Verb::Gc), "GC needs CNI_PATH");
        assert!(call(Verb::Add, &ALL).is_ok());
    }

    #[test]
    fn ids_names_and_paths_that_lead_elsewhere_are_refused() {
        for (name, value) in [
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", "-a"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "sixteen-bytes-xx"),
            ("CNI_NETNS", "relative/path"),
            ("CNI_ARGS", "novalue"),
            ("CNI_ARGS", "UNKNOWN=1"),
        ] {
            let mut pairs = vec![(name, value)];
            pairs.extend(ALL);
            let failure = call(Verb::Add, &pairs).unwrap_err();
            assert_eq!(
                failure.reason,
                Reason::Own(Code::InvalidEnvironment),
                "{name}={value}: {}",
                failure.message
            );
        }
    }

    #[test]
    fn cni_args_are_read_in_their_exact_case() {
        let args =
            Args::read("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.0.0.5,fd00::5;mac=x;MAC=02:42:0a:00:00:05")
                .unwrap();
        assert_eq!(args.ips, ["10.0.0.5", "fd00::5"]);
        assert_eq!(args.mac.as_deref(), Some("02:42:0a:00:00:05"));
        assert!(Args::read("K8S_POD_NAME=web").is_err());
    }
}
