//! What this host encrypts with, and for whom: the private key in the root directory, which survives a reboot, and the
//! record that the agent writes for the process that encrypts.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Lock, Store,
    file::{self, Durable},
};
use crate::{
    cipher::{PrivateKey, Wanted},
    error::Error,
};

/// As it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    private_key: String,
}

impl Store {
    fn cipher_path(&self) -> PathBuf {
        self.run.join("cipher.json")
    }

    /// What this host proves with who it is; made when first asked.
    ///
    /// # Errors
    /// When it cannot be kept, or what is kept is no key.
    pub fn private_key(&self) -> Result<PrivateKey, Error> {
        let path = self.root.join("cipher-key.json");
        let read = || -> Result<Option<PrivateKey>, Error> {
            let bad = || Error::store(&path, io::Error::other("it has no private key"));
            let kept = file::read::<Kept>(&path)?;
            kept.map(|kept| PrivateKey::of_text(&kept.private_key).ok_or_else(bad)).transpose()
        };
        if let Some(key) = read()? {
            return Ok(key);
        }
        file::make_dir(&self.root)?;
        let _lock = file::lock(&self.root.join(".lock"), "the key of the host")?;
        if let Some(key) = read()? {
            return Ok(key);
        }
        let key = PrivateKey::random()?;
        file::write(&path, &Kept { private_key: key.text() }, Durable::Yes)?;
        Ok(key)
    }

    /// What is wanted of the process that encrypts; `None` where nothing is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cipher(&self) -> Result<Option<Wanted>, Error> {
        file::read(&self.cipher_path())
    }

    /// Says what is wanted of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_cipher(&self, wanted: Option<&Wanted>) -> Result<(), Error> {
        match wanted {
            Some(wanted) => {
                file::make_dir(&self.run)?;
                file::write(&self.cipher_path(), wanted, Durable::No)
            }
            None => file::remove(&self.cipher_path()),
        }
    }

    /// Nothing is wanted of the process that encrypts any more, and it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub fn end_cipher(&self) -> Result<(), Error> {
        self.set_cipher(None)?;
        let ended = file::lock_existing(&self.run.join("cipher.lock"), "the process that encrypts")?;
        if ended.is_some() { file::remove(&self.run.join("cipher.lock")) } else { Ok(()) }
    }

    /// Whether a process encrypts.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn is_encrypting(&self) -> Result<bool, Error> {
        Ok(self.lock_cipher()?.is_none())
    }

    /// The lock that the one process that encrypts holds as long as it lives; `None` where another has it.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn lock_cipher(&self) -> Result<Option<Lock>, Error> {
        self.only_one("cipher.lock")
    }
}
