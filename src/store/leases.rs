//! Which addresses and ports are taken. An index of the records, never more.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Id, Protocol};

use super::{
    Numbers, Store,
    file::{self, Lock},
};
use crate::{error::Error, ipam};

/// Addresses and ports.
impl Store {
    /// Works on the taken addresses of a pool and keeps the outcome. The caller holds the network's lock.
    ///
    /// # Errors
    /// When the file cannot be read or written, or what `work` says.
    pub fn with_addresses<T>(
        &self,
        network: &Id,
        pool: &IpNetwork,
        size: u32,
        now: u64,
        work: impl FnOnce(&mut Numbers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_numbers(&self.addresses_path(network, pool), size, now, work)
    }

    /// Looks at the taken addresses of a pool, and keeps nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn addresses(&self, network: &Id, pool: &IpNetwork, size: u32, now: u64) -> Result<Numbers, Error> {
        Numbers::open(&self.addresses_path(network, pool), size, now)
    }

    fn addresses_path(&self, network: &Id, pool: &IpNetwork) -> PathBuf {
        self.network_dir(network).join(format!("pool-{}", pool.to_string().replace(['/', ':'], "_")))
    }

    /// Looks at the published ports of an address, and keeps nothing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ports(&self, address: IpAddr, protocol: Protocol, now: u64) -> Result<Numbers, Error> {
        Numbers::open(&self.ports_path(address, protocol), ipam::WINDOW, now)
    }

    fn ports_path(&self, address: IpAddr, protocol: Protocol) -> PathBuf {
        self.run.join("ports").join(format!("{protocol}-{}", address.to_string().replace(':', "_")))
    }

    /// Locks the list of published ports: from the choice of ports until the record that names them is written.
    ///
    /// # Errors
    /// When another process does not let go of it.
    pub fn lock_ports(&self) -> Result<Lock, Error> {
        file::lock_dir(&self.run.join("ports"), "the list of published ports")
    }

    /// Works on the published ports of an address and keeps the outcome. The caller holds their lock.
    ///
    /// # Errors
    /// When the file cannot be read or written, or what `work` says.
    pub fn with_ports<T>(
        &self,
        address: IpAddr,
        protocol: Protocol,
        now: u64,
        work: impl FnOnce(&mut Numbers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_numbers(&self.ports_path(address, protocol), ipam::WINDOW, now, work)
    }

    fn with_numbers<T>(
        &self,
        path: &Path,
        size: u32,
        now: u64,
        work: impl FnOnce(&mut Numbers) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut numbers = Numbers::open(path, size, now)?;
        let result = work(&mut numbers)?;
        numbers.save(path)?;
        Ok(result)
    }
}
