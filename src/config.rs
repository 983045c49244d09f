//! What an administrator writes in `config.toml` of the root directory. Pure: never reads the file itself.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use rnetkit_drivers::model::Escaped;
use serde::{Deserialize, Serialize};

/// The keys of `config.toml`. Each is also an option or a variable of the command, and those come first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Who starts the agent.
    pub agent: AgentStart,
    /// Where networks that span hosts are kept: `etcd://HOST:PORT`.
    pub store: Option<String>,
    /// The certificate of the authority that signed the store's.
    pub store_ca: Option<PathBuf>,
    /// This host's certificate for the store.
    pub store_cert: Option<PathBuf>,
    /// The key that goes with it.
    pub store_key: Option<PathBuf>,
    /// A file with the user and the password for the store.
    pub store_password_file: Option<PathBuf>,
    /// The address that other hosts send to.
    pub host_address: Option<IpAddr>,
    /// This host's name for other hosts.
    pub host_name: Option<String>,
}

impl Config {
    /// The files that it names.
    pub fn files(&mut self) -> [&mut Option<PathBuf>; 4] {
        [&mut self.store_ca, &mut self.store_cert, &mut self.store_key, &mut self.store_password_file]
    }

    /// With files beside `config.toml` where their paths are relative.
    #[must_use]
    pub fn of(mut self, root: &Path) -> Self {
        for file in self.files().into_iter().flatten() {
            *file = root.join(&file);
        }
        self
    }
}

/// Who starts the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStart {
    /// The command, when a network needs it; then it also leaves when none does.
    #[default]
    Auto,
    /// The administrator alone.
    Manual,
}

impl std::str::FromStr for AgentStart {
    type Err = rnetkit_drivers::Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "manual" => Ok(Self::Manual),
            _ => Err(rnetkit_drivers::Invalid::new("agent", text, "it must be auto or manual")),
        }
    }
}

impl std::str::FromStr for Config {
    type Err = String;

    /// Reads the file's text. The error is one line that says where and why.
    fn from_str(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: {}", Escaped(&error.message().replace('\n', " ")))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_leaves_everything_to_rnet() {
        assert_eq!("".parse::<Config>().unwrap(), Config::default());
        assert_eq!(Config::default().agent, AgentStart::Auto);
    }

    #[test]
    fn the_keys_are_those_of_the_options() {
        let text = "agent = \"manual\"\nstore = \"etcd://10.0.0.1:2379\"\nhost-address = \"192.0.2.1\"\n";
        let config: Config = text.parse().unwrap();
        assert_eq!(config.agent, AgentStart::Manual);
        assert_eq!(config.store.as_deref(), Some("etcd://10.0.0.1:2379"));
        assert_eq!(config.host_address, Some([192, 0, 2, 1].into()));
    }

    #[test]
    fn files_are_beside_the_file_that_names_them() {
        let config: Config = "store-ca = \"ca.pem\"\nstore-key = \"/etc/key\"\n".parse().unwrap();
        let config = config.of(Path::new("/var/lib/rnet"));
        assert_eq!(config.store_ca, Some("/var/lib/rnet/ca.pem".into()));
        assert_eq!(config.store_key, Some("/etc/key".into()));
        assert_eq!(config.store_cert, None);
    }

    #[test]
    fn a_key_that_is_unknown_or_wrong_is_refused_in_one_line() {
        for (text, expected) in [
            ("\nagnet = \"manual\"\n", "line 2: unknown field `agnet`, expected one of"),
            ("agent = 1\n", "line 1: wanted string or table"),
            ("agent = \"often\"\n", "line 1: unknown variant `often`, expected `auto` or `manual`"),
            ("agent", "line 1: "),
        ] {
            let error = text.parse::<Config>().unwrap_err();
            assert!(error.starts_with(expected) && !error.contains('\n'), "{error}");
        }
    }
}
