//! Containers of `rnet run`: their files, and whether somebody looks after them.

use std::{fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Store,
    file::{self, Durable, Lock},
};
use crate::error::Error;

/// Files of `rnet run`, in the container's directory; and in `running`, a file for each that its watcher locks.
impl Store {
    /// Says that a watcher looks after the container, as long as the lock is held.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn watch(&self, key: &str) -> Result<Lock, Error> {
        let folder = self.run.join("running");
        file::make_dir(&folder)?;
        file::lock(&folder.join(key), &format!("container {key}"))
    }

    /// Waits until no watcher looks after the container any more.
    ///
    /// # Errors
    /// When the watcher does not end.
    pub fn wait_unwatched(&self, key: &str) -> Result<(), Error> {
        let path = self.run.join("running").join(key);
        if path.exists() { file::lock_existing(&path, &format!("container {key}")).map(drop) } else { Ok(()) }
    }

    /// Whether something is left to look after; by a watcher that lives, or by whoever finds it dead.
    #[must_use]
    pub fn is_watched(&self, key: &str) -> bool {
        self.run.join("running").join(key).exists()
    }

    /// Says that nothing is left to look after.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn unwatch(&self, key: &str) -> Result<(), Error> {
        file::remove(&self.run.join("running").join(key))
    }

    /// Taken by whoever takes down what watchers left: who comes second waits, and finds nothing left to do. `None`
    /// where there is nothing to look after.
    ///
    /// # Errors
    /// When another process holds it for too long.
    pub fn lock_abandoned(&self) -> Result<Option<Lock>, Error> {
        let folder = self.run.join("running");
        if file::names(&folder)?.is_empty() {
            return Ok(None);
        }
        file::lock_dir(&folder, "what killed commands left").map(Some)
    }

    /// The containers whose watchers died, each locked against a watcher of its name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn abandoned(&self) -> Result<Vec<(String, Lock)>, Error> {
        let folder = self.run.join("running");
        let mut list = Vec::new();
        for key in file::names(&folder)? {
            let lock = file::try_lock(&folder.join(&key))?;
            list.extend(lock.map(|lock| (key, lock)));
        }
        Ok(list)
    }

    /// Reads a record of a container.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn container_record<T: DeserializeOwned>(&self, key: &str, name: &str) -> Result<Option<T>, Error> {
        file::read(&self.container_dir(key).join(name))
    }

    /// Writes a record of a container.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_container_record<T: Serialize>(&self, key: &str, name: &str, record: &T) -> Result<(), Error> {
        file::write(&self.container_dir(key).join(name), record, Durable::No)
    }

    /// Writes a plain text file of a container, and says where it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_container_text(&self, key: &str, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.container_dir(key).join(name);
        fs::write(&path, text).map_err(|error| Error::store(&path, error))?;
        Ok(path)
    }

    /// The plain text file of a container, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn container_text(&self, key: &str, name: &str) -> Result<Option<String>, Error> {
        let path = self.container_dir(key).join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => text
                .map(|text| Some(String::from_utf8_lossy(&text).into_owned()))
                .map_err(|error| Error::store(path, error)),
        }
    }

    /// Removes everything of a container that is in no network any more.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_container(&self, key: &str) -> Result<(), Error> {
        file::remove_tree(&self.container_dir(key))
    }
}
