//! The words of `rnet run` that are about the process, each parsed once, at the edge. Pure.

use std::{ffi::OsString, fmt, net::IpAddr, str::FromStr};

/// Why a word of the command line is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct BadWord {
    /// The word, shortened where it is long.
    pub value: String,
    /// What it should have been.
    pub expected: &'static str,
}

impl BadWord {
    fn new(value: &str, expected: &'static str) -> Self {
        Self { value: value.chars().take(80).collect(), expected }
    }
}

/// A hostname: labels of letters, digits and inner hyphens, with dots between, 63 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hostname(String);

impl Hostname {
    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let expected =
            "a hostname: letters, digits and inner hyphens, dots between labels, at most 63 characters";
        let good = text.len() <= 63 && text.split('.').all(is_label);
        good.then(|| Self(text.to_owned())).ok_or_else(|| BadWord::new(text, expected))
    }
}

/// RFC 1123, 2.1.
fn is_label(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-') && !text.ends_with('-')
}

/// `NAME:IP`, `NAME=IP` or `NAME:host-gateway` of `--add-host`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub address: ExtraAddress,
}

/// The address of an extra host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtraAddress {
    /// That one.
    Ip(IpAddr),
    /// Whatever the host is to the container.
    HostGateway,
}

impl FromStr for ExtraHost {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let bad = || BadWord::new(text, "NAME:IP or NAME:host-gateway");
        // As Docker: a '=' decides, for the address may be full of colons.
        let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
        let address = match address {
            "host-gateway" => ExtraAddress::HostGateway,
            ip => ExtraAddress::Ip(without_brackets(ip).parse().map_err(|_| bad())?),
        };
        if is_host_file_name(name) { Ok(Self { name: name.to_owned(), address }) } else { Err(bad()) }
    }
}

fn without_brackets(ip: &str) -> &str {
    ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip)
}

/// What may stand in a line of /etc/hosts; people do use underscores there.
pub(super) fn is_host_file_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(good)
}

/// `net.…=VALUE` of `--sysctl`: the only ones that a network namespace has of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sysctl {
    key: String,
    value: String,
}

impl Sysctl {
    /// With dots, as given.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// As given.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The file it is.
    pub fn path(&self) -> String {
        format!("/proc/sys/{}", self.key.replace('.', "/"))
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for Sysctl {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let bad = || BadWord::new(text, "net.KEY=VALUE, a sysctl of a network namespace");
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        let below_net = key.strip_prefix("net.").is_some_and(|rest| rest.split('.').all(is_sysctl_part));
        if !below_net || key.len() > 200 || !is_sysctl_value(value) {
            return Err(bad());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// No part can climb out of /proc/sys/net: none has a slash, and none is empty or made of dots.
fn is_sysctl_part(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_sysctl_value(value: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b" _.,:-".contains(&byte);
    (1..=1000).contains(&value.len()) && value.bytes().all(good)
}

/// `UID[:GID]` of `--user`, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group; the user's own, unless given.
    pub gid: Option<u32>,
}

impl User {
    /// The group that /etc/passwd has for this user.
    pub fn group_in(self, passwd: &str) -> Option<u32> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':').skip(2);
            let uid: u32 = fields.next()?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (uid == self.uid).then_some(gid)
        })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uid)?;
        self.gid.map_or(Ok(()), |gid| write!(f, ":{gid}"))
    }
}

impl FromStr for User {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let bad = || BadWord::new(text, "UID or UID:GID, in numbers");
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        let uid = identifier(uid).ok_or_else(bad)?;
        let gid = gid.map(|gid| identifier(gid).ok_or_else(bad)).transpose()?;
        Ok(Self { uid, gid })
    }
}

/// The highest number means "leave as it is" to the kernel: a process that asked for it would stay root.
fn identifier(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number != u32::MAX)
}

/// `NAME=VALUE` or `NAME` of `-e`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EnvVar {
    /// That value.
    Set {
        /// The name.
        name: String,
        /// The value.
        value: String,
    },
    /// What the caller has, if it has it.
    Inherit {
        /// The name.
        name: String,
    },
}

impl EnvVar {
    /// What to add to the caller's environment, which has the inherited ones already.
    pub fn addition(&self) -> Option<(OsString, OsString)> {
        match self {
            Self::Set { name, value } => Some((name.into(), value.into())),
            Self::Inherit { .. } => None,
        }
    }
}

impl FromStr for EnvVar {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        let parsed = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match parsed {
            ("", _) => Err(BadWord::new(text, "NAME=VALUE or NAME, an environment variable")),
            _ if text.contains('\0') => Err(BadWord::new(text, "an environment variable: it has a NUL byte")),
            (name, Some(value)) => Ok(Self::Set { name: name.to_owned(), value: value.to_owned() }),
            (name, None) => Ok(Self::Inherit { name: name.to_owned() }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is<T: FromStr>(text: &str) -> bool {
        text.parse::<T>().is_ok()
    }

    #[test]
    fn hostnames_are_rfc_1123() {
        assert!(["web", "web-1", "3", "web.example.com", &"a".repeat(63)].into_iter().all(is::<Hostname>));
        let bad = ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "ä", "a\n", &"a".repeat(64)];
        assert!(!bad.into_iter().any(is::<Hostname>));
    }

    #[test]
    fn extra_hosts_take_either_separator_and_ipv6() {
        let host = |name: &str, address| Ok(ExtraHost { name: name.to_owned(), address });
        let ip = |text: &str| ExtraAddress::Ip(text.parse().unwrap());
        assert_eq!("db:10.0.0.1".parse(), host("db", ip("10.0.0.1")));
        assert_eq!("db=10.0.0.1".parse(), host("db", ip("10.0.0.1")));
        assert_eq!("db:fd00::1".parse(), host("db", ip("fd00::1")));
        assert_eq!("db=[fd00::1]".parse(), host("db", ip("fd00::1")));
        assert_eq!("a_b:host-gateway".parse(), host("a_b", ExtraAddress::HostGateway));
        let bad =
            ["", "db", "db:", ":1.2.3.4", "a b:1.2.3.4", "a\n1.1.1.1 b:1.2.3.4", "a#:1.2.3.4", "a:1.2.3.4 x"];
        assert!(!bad.into_iter().any(is::<ExtraHost>));
    }

    #[test]
    fn sysctls_stay_below_net() {
        let sysctl: Sysctl = "net.ipv4.conf.eth0.rp_filter=2".parse().unwrap();
        assert_eq!(sysctl.path(), "/proc/sys/net/ipv4/conf/eth0/rp_filter");
        assert_eq!(sysctl.to_string(), "net.ipv4.conf.eth0.rp_filter=2");
        assert!(is::<Sysctl>("net.ipv4.ip_local_port_range=1024 65000"));
        let bad = [
            "",
            "net",
            "net.=1",
            "net.ipv4.=1",
            "net..ipv4=1",
            "kernel.domainname=x",
            "net.ipv4/../../kernel.x=1",
            "net.ipv4.x=",
            "net.ipv4.x",
            "net.ipv4.x=1\n2",
            "network.x=1",
            "net.ipv4.x=a/b",
            "net/ipv4=1",
        ];
        assert!(!bad.into_iter().any(is::<Sysctl>));
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: None }));
        assert_eq!("1000:5".parse(), Ok(User { uid: 1000, gid: Some(5) }));
        let bad =
            ["", ":", "1:", ":1", "root", "+1", "-1", "4294967295", "1:4294967295", "99999999999", "1:2:3"];
        assert!(!bad.into_iter().any(is::<User>));
    }

    #[test]
    fn the_group_of_a_user_is_that_of_passwd() {
        let passwd = "broken\nroot:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/false\n";
        assert_eq!(User { uid: 33, gid: None }.group_in(passwd), Some(34));
        assert_eq!(User { uid: 1000, gid: None }.group_in(passwd), None);
    }

    #[test]
    fn a_variable_is_set_or_inherited() {
        assert_eq!("A=b=c".parse::<EnvVar>().unwrap().addition(), Some(("A".into(), "b=c".into())));
        assert_eq!("A=".parse::<EnvVar>().unwrap().addition(), Some(("A".into(), "".into())));
        assert_eq!("A".parse::<EnvVar>().unwrap().addition(), None);
        assert!(!["", "=x", "A\0=x"].into_iter().any(is::<EnvVar>));
    }

    proptest! {
        #[test]
        fn no_word_panics_or_escapes(text in ".{0,80}") {
            let _ = text.parse::<Hostname>();
            let _ = text.parse::<User>();
            let _ = text.parse::<EnvVar>();
            if let Ok(host) = text.parse::<ExtraHost>() {
                prop_assert!(!host.name.contains(char::is_whitespace));
            }
            if let Ok(sysctl) = format!("net.{text}=1").parse::<Sysctl>() {
                prop_assert!(!sysctl.path().contains("..") && !sysctl.path().contains("//"));
            }
        }
    }
}
