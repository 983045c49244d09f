//! Where a store is, and what a host proves itself with there.

use std::{fmt, str::FromStr};

use rnetkit_drivers::Invalid;

use super::tls::Tls;

/// Where a store is: `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`, or `etcds://` and the same for one behind TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// It is spoken to by TLS.
    pub secure: bool,
    /// Its members, as `HOST:PORT`.
    pub members: Vec<String>,
    /// Below which all keys are.
    pub prefix: String,
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |reason: &str| Invalid::new("store", text, reason);
        let secure = text.starts_with("etcds://");
        let rest = text.strip_prefix("etcds://").or_else(|| text.strip_prefix("etcd://"));
        let rest = rest.ok_or_else(|| refuse("it must be etcd://HOST:PORT or etcds://HOST:PORT"))?;
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        let is_member = |member: &String| {
            let authority: Option<http::uri::Authority> = member.parse().ok();
            authority.is_some_and(|authority| authority.port_u16().is_some() && !member.contains('@'))
        };
        if !members.iter().all(is_member) {
            return Err(refuse("it must be etcd://HOST:PORT, or several HOST:PORT with commas between"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
        if !prefix.chars().all(plain) || prefix.len() > 128 {
            return Err(refuse("the prefix must be letters, digits, '_', '.', '-' and '/'"));
        }
        let prefix = if prefix.trim_matches('/').is_empty() { "rnet" } else { prefix.trim_matches('/') };
        Ok(Self { secure, members, prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "etcds" } else { "etcd" };
        write!(f, "{scheme}://{}/{}", self.members.join(","), self.prefix)
    }
}

/// A user of the store.
#[derive(Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// What a host proves itself with to a store.
#[derive(Clone, Default)]
pub struct Credentials {
    /// How it is spoken to by TLS.
    pub tls: Option<Tls>,
    /// As whom.
    pub user: Option<User>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_members_and_a_prefix() {
        let address: Address = "etcd://10.0.0.1:2379,[fd00::1]:2379/site/a".parse().unwrap();
        assert_eq!(address.members, ["10.0.0.1:2379", "[fd00::1]:2379"]);
        assert_eq!(address.prefix, "site/a");
        assert_eq!("etcd://h:1".parse::<Address>().unwrap().prefix, "rnet");
        let secure: Address = "etcds://h:1,i:2".parse().unwrap();
        assert!(secure.secure && !address.secure);
        assert_eq!(secure.to_string(), "etcds://h:1,i:2/rnet");
        for text in ["", "etcd://", "http://h:1", "etcd://h", "etcd://u@h:1", "etcd://h:1/$(id)", "etcds://h"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
