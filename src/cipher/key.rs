//! Keys of WireGuard: Curve25519 (RFC 7748), in base64 as `wg(8)` writes them. A private key is never shown.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boringtun::x25519;
use rnetkit_drivers::Invalid;
use serde::{Deserialize, Serialize, de::Error as _};

use crate::error::Error;

/// What a host is known by. Its owner alone has the other half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        bytes(text).map(Self).ok_or_else(|| Invalid::new("key", text, "it must be 32 bytes in base64"))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error: Invalid| D::Error::custom(error.reason))
    }
}

/// The half that never leaves the host.
#[derive(Clone)]
pub struct PrivateKey(x25519::StaticSecret);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl PrivateKey {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            let more = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
            filled += more.map_err(|errno| Error::agent(format!("no random bytes: {errno}")))?;
        }
        Ok(Self(bytes.into()))
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    /// As it is kept in a file that its owner alone may read.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        STANDARD.encode(self.0.as_bytes())
    }

    /// As it was kept.
    #[must_use]
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        bytes(text).map(|bytes| Self(bytes.into()))
    }

    /// As the kernel has it: with the bits set that make it a scalar (RFC 7748, section 5), so that the same key is not
    /// another, which would end all sessions.
    #[must_use]
    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = self.0.to_bytes();
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        bytes
    }

    pub(crate) fn secret(&self) -> &x25519::StaticSecret {
        &self.0
    }
}

fn bytes(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_it_is_read_and_the_private_one_is_not_shown() {
        let key = PrivateKey::random().unwrap();
        let public = key.public();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert_eq!(PrivateKey::of_text(&key.text()).unwrap().public(), public);
        assert_ne!(PrivateKey::random().unwrap().public(), public);
        assert_eq!(format!("{key:?}"), "PrivateKey");
    }

    #[test]
    fn the_public_key_follows_from_the_private_one_as_in_rfc_7748_section_6_1() {
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(PrivateKey::of_text(private).unwrap().public().to_string(), public);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "a", "AAAA", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm", "\u{1b}[2J"] {
            assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
            assert!(PrivateKey::of_text(text).is_none(), "{text:?}");
        }
    }
}
