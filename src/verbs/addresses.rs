//! Addresses: those of a pool that are taken, the one asked for, the lowest free one. Makes nothing in the kernel.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Network, Pool};

use super::Rnet;
use crate::{
    error::Error,
    ipam,
    kernel::Kernel,
    store::{EndpointState, Numbers},
};

impl<K: Kernel> Rnet<K> {
    /// Takes an address of the pool: the one asked for, or the lowest free one. The caller holds the lock.
    pub(super) fn take_address(
        &mut self,
        network: &Network,
        pool: &Pool,
        asked: Option<IpAddr>,
    ) -> Result<IpAddr, Error> {
        match asked {
            Some(address) => self.take_static(network, pool, address),
            None => self.take_lowest(network, pool),
        }
    }

    /// An index that is missing or damaged is made again from the records.
    fn rebuild_if_doubtful(
        &self,
        numbers: &mut Numbers,
        network: &Network,
        pool: &Pool,
    ) -> Result<(), Error> {
        if numbers.is_doubtful() {
            numbers.rebuild(self.used(network, pool)?.into_iter());
        }
        Ok(())
    }

    fn take_static(&mut self, network: &Network, pool: &Pool, address: IpAddr) -> Result<IpAddr, Error> {
        check_static(network, pool, address)?;
        let offset = ipam::offset_of(&pool.subnet, address).unwrap_or(u128::MAX);
        let taken = match u32::try_from(offset) {
            Ok(offset) if offset < size(pool) => self.store.with_addresses(
                &network.id,
                &pool.subnet,
                size(pool),
                super::uptime(),
                |numbers| {
                    self.rebuild_if_doubtful(numbers, network, pool)?;
                    let taken = numbers.has(offset);
                    numbers.take(offset);
                    Ok(taken)
                },
            )?,
            _ => true,
        };
        if !taken {
            return Ok(address);
        }
        // Perhaps a dead process took it and wrote no record: the records have the last word.
        self.refuse_held(network, address)?;
        Ok(address)
    }

    /// An address that a record names.
    fn refuse_held(&self, network: &Network, address: IpAddr) -> Result<(), Error> {
        let has = |state: &&EndpointState| state.endpoint.addresses.iter().any(|other| other.ip() == address);
        match self.store.all_endpoints(&network.id)?.iter().find(has) {
            Some(state) => Err(Error::AddressTaken {
                address,
                by: state.endpoint.container.name.clone(),
                network: network.name.to_string(),
            }),
            None => Ok(()),
        }
    }

    fn take_lowest(&mut self, network: &Network, pool: &Pool) -> Result<IpAddr, Error> {
        let now = super::uptime();
        let take = || {
            self.store.with_addresses(&network.id, &pool.subnet, size(pool), now, |numbers| {
                self.rebuild_if_doubtful(numbers, network, pool)?;
                Ok(lowest(numbers, pool).inspect(|n| numbers.take(*n)))
            })
        };
        let mut found = take()?;
        if found.is_none() {
            // Numbers of processes that died before they wrote a record are free again.
            let used = self.used(network, pool)?;
            self.store.with_addresses(&network.id, &pool.subnet, size(pool), now, |numbers| {
                numbers.rebuild(used.into_iter());
                Ok(())
            })?;
            found = take()?;
        }
        match found.and_then(|offset| ipam::address_at(&pool.subnet, u128::from(offset))) {
            Some(address) => Ok(address),
            None => Err(exhausted(network, pool, self.used(network, pool)?.len())),
        }
    }

    /// The addresses that the records name, as offsets into the subnet.
    fn used(&self, network: &Network, pool: &Pool) -> Result<Vec<u32>, Error> {
        let endpoints = self.store.all_endpoints(&network.id)?;
        let addresses = endpoints.iter().flat_map(|state| state.endpoint.addresses.iter().map(IpNetwork::ip));
        Ok(addresses
            .filter_map(|address| u32::try_from(ipam::offset_of(&pool.subnet, address)?).ok())
            .collect())
    }

    /// The address that would be taken now.
    pub(super) fn preview_address(
        &mut self,
        network: &Network,
        pool: &Pool,
        asked: Option<IpAddr>,
    ) -> Result<IpAddr, Error> {
        if let Some(address) = asked {
            check_static(network, pool, address)?;
            self.refuse_held(network, address)?;
            return Ok(address);
        }
        let mut numbers = self.store.addresses(&network.id, &pool.subnet, size(pool), super::uptime())?;
        let used = self.used(network, pool)?;
        let found = lowest(&numbers, pool).or_else(|| {
            numbers.rebuild(used.iter().copied());
            lowest(&numbers, pool)
        });
        let address = found.and_then(|offset| ipam::address_at(&pool.subnet, u128::from(offset)));
        address.ok_or_else(|| exhausted(network, pool, used.len()))
    }
}

/// How many addresses of the pool have a bit.
pub(super) fn size(pool: &Pool) -> u32 {
    u32::try_from(ipam::window(pool).end).unwrap_or(u32::MAX).min(1 << 24)
}

fn exhausted(network: &Network, pool: &Pool, used: usize) -> Error {
    Error::PoolExhausted { network: network.name.to_string(), pool: pool.range.unwrap_or(pool.subnet), used }
}

/// The lowest number that is neither taken nor reserved.
pub(super) fn lowest(numbers: &Numbers, pool: &Pool) -> Option<u32> {
    let window = ipam::window(pool);
    let range = u32::try_from(window.start).ok()?..u32::try_from(window.end).unwrap_or(u32::MAX);
    let address = |offset| ipam::address_at(&pool.subnet, u128::from(offset));
    numbers.lowest_free(range, |offset| {
        address(offset).is_some_and(|address| ipam::reserved(pool, address).is_none())
    })
}

fn check_static(network: &Network, pool: &Pool, address: IpAddr) -> Result<(), Error> {
    let refuse =
        |reason: String| Err(Error::AddressRefused { address, network: network.name.to_string(), reason });
    if !pool.subnet.contains(address) {
        return refuse(format!("it is not in subnet {}", pool.subnet));
    }
    ipam::reserved(pool, address).map_or(Ok(()), refuse)
}
