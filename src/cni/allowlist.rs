//! Which switches the administrator lets configurations set: `/etc/cni/tuning/allowlist.conf`, a regular expression a
//! line, as the `tuning` plugin of the CNI project has it since 1.2.0. It is matched against the name as the
//! configuration has it, `IFNAME` not yet replaced. Without the file every switch of a network namespace may be set.

use std::{fs, io};

use regex_lite::Regex;

use super::failure::{Code, Failure};
use crate::error::shown;

const PATH: &str = "/etc/cni/tuning/allowlist.conf";

/// Expressions one of which a name must match.
pub(super) struct Allowlist(Option<Vec<Regex>>);

impl Allowlist {
    /// The file as it is now.
    pub(super) fn read() -> Result<Self, Failure> {
        match fs::read_to_string(PATH) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(error) => Err(Failure::new(Code::Io, format!("{PATH}: {error}"))),
        }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut list = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
            list.push(Regex::new(line).map_err(|error| {
                let place = format!("{PATH}: line {}: \"{}\"", number + 1, shown(line));
                Failure::new(Code::Io, format!("{place} is no regular expression: {error}"))
            })?);
        }
        Ok(Self(Some(list)))
    }

    /// Refuses a name that none of the lines allows.
    pub(super) fn check(&self, name: &str) -> Result<(), Failure> {
        match &self.0 {
            Some(list) if !list.iter().any(|line| line.is_match(name)) => {
                Err(Failure::config(format!("sysctl \"{}\" is not allowed by {PATH}", shown(name))))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_match_a_line() {
        let list =
            Allowlist::parse("\n^net.ipv4.conf.IFNAME.arp_filter$\n  ^net.core.somaxconn$\r\n").unwrap();
        for (name, good) in [
            ("net.core.somaxconn", true),
            ("net.ipv4.conf.IFNAME.arp_filter", true),
            ("net.ipv4.conf.eth0.arp_filter", false),
            ("net.core.somaxconn2", false),
        ] {
            assert_eq!(list.check(name).is_ok(), good, "{name}");
        }
        assert!(Allowlist::parse("").unwrap().check("net.core.somaxconn").is_err(), "nothing is allowed");
        assert!(Allowlist(None).check("net.core.somaxconn").is_ok());
        let failure = Allowlist::parse("net\n(").err().unwrap();
        assert!(failure.message.contains("allowlist.conf: line 2: \"(\""), "{}", failure.message);
    }
}
