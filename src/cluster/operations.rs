//! What a host does in the cluster: each a transaction that names what it relies on. An answer that did not come is
//! found out by reading, never by trying again blindly.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use rnetkit_drivers::{
    Id, Network, Pool,
    overlay::{MOST_VNI, SMALLEST_VNI},
};

use super::{
    End, Held, Host, Keys, parse, shared,
    store::{Do, Entry, If, Lease, Store, Transaction, Trouble},
    text,
};
use crate::{error::Error, ipam};

/// How long a host counts as alive after it was last heard of.
pub const ALIVE: Duration = Duration::from_secs(10);
/// How long an address rests after it was given back.
pub const REST: Duration = Duration::from_secs(60);
/// How often a change is tried again when others came first.
const TRIES: usize = 32;
/// How many keys go into one transaction: etcd takes 128 operations unless told otherwise.
const CHUNK: usize = 64;

/// Why something could not be done.
#[derive(Debug)]
pub enum Refused {
    /// The store could not be reached, or did not answer.
    Trouble(Trouble),
    /// It may not be done, and why.
    No(Error),
    /// This host was removed from the cluster, or another took its place.
    Fenced,
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::No(error)
    }
}

/// A cluster, seen by one of its hosts.
pub struct Cluster<S> {
    /// The store.
    pub store: S,
    /// The names of its keys.
    pub keys: Keys,
    /// This host, as it is registered.
    pub me: Host,
    lease: Option<Lease>,
    /// The lease that addresses rest on, and how many seconds after the start it was granted.
    rest: Option<(Lease, u64)>,
}

/// An endpoint's wish for addresses.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The endpoint.
    pub endpoint: Id,
    /// The container's name.
    pub name: String,
    /// The addresses asked for, at most one a family.
    pub asked: Vec<IpAddr>,
}

impl<S: Store> Cluster<S> {
    /// The cluster in that store, for a host that is not registered yet.
    pub fn new(store: S, keys: Keys, me: Host) -> Self {
        Self { store, keys, me, lease: None, rest: None }
    }

    /// Runs a transaction; where its answer did not come, `done` tells by what is in the store now.
    async fn run(
        &self,
        transaction: &Transaction,
        key: &str,
        done: impl Fn(Option<&Entry>) -> bool,
    ) -> Result<bool, Trouble> {
        match self.store.run(transaction).await {
            Err(Trouble::Unknown(_)) => Ok(done(self.get(key).await?.as_ref())),
            result => result,
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, Trouble> {
        Ok(self.store.list(key).await?.entries.into_iter().find(|entry| entry.key == key))
    }

    /// Says that this host is there. Its generation goes up where it was removed; whether it did.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn register(&mut self) -> Result<bool, Refused> {
        let lease = self.store.grant(ALIVE).await?;
        let key = self.keys.host(&self.me.id);
        for _ in 0..TRIES {
            let before = self.get(&key).await?;
            let known: Option<Host> = before.as_ref().and_then(|entry| parse(&entry.value).ok());
            let again = known.as_ref().is_some_and(|known| known.fenced);
            self.me.generation = known.map_or(1, |known| known.generation + u64::from(known.fenced));
            self.me.fenced = false;
            let me = text(&self.me);
            let transaction = Transaction {
                given: vec![If::Changed(key.clone(), before.map_or(0, |entry| entry.changed))],
                then: vec![
                    Do::Put(key.clone(), me.clone(), None),
                    Do::Put(
                        self.keys.alive(&self.me.id),
                        self.me.generation.to_string().into_bytes(),
                        Some(lease),
                    ),
                ],
            };
            let mine = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.value == me);
            if self.run(&transaction, &key, mine).await? {
                self.lease = Some(lease);
                return Ok(again);
            }
        }
        Err(Refused::Trouble(Trouble::Refused("others change the record of this host".to_owned())))
    }

    /// Keeps this host alive; registers it again where its lease ended.
    ///
    /// # Errors
    /// When the store cannot be reached, or this host was removed.
    pub async fn keep_alive(&mut self) -> Result<bool, Refused> {
        match self.lease {
            Some(lease) if self.store.keep(lease).await? => Ok(false),
            _ => self.register().await,
        }
    }

    /// Which cluster the store is of: its id, which is made where there is none.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn identity(&self, fresh: Id) -> Result<Id, Refused> {
        let key = self.keys.meta();
        for _ in 0..TRIES {
            if let Some(entry) = self.get(&key).await? {
                let bad = |reason| Refused::Trouble(Trouble::Refused(format!("{key}: {reason}")));
                return parse(&entry.value).map_err(bad);
            }
            let given = vec![If::Absent(key.clone())];
            let put = Transaction { given, then: vec![Do::Put(key.clone(), text(&fresh), None)] };
            self.run(&put, &key, |_| false).await?;
        }
        Err(Refused::Trouble(Trouble::Refused("the cluster's identity does not stay".to_owned())))
    }

    /// What every change of this host relies on: that it was not removed.
    fn unfenced(&self) -> If {
        If::Is(self.keys.host(&self.me.id), text(&self.me))
    }

    async fn is_fenced(&self) -> Result<bool, Trouble> {
        Ok(self.get(&self.keys.host(&self.me.id)).await?.is_none_or(|entry| entry.value != text(&self.me)))
    }

    /// Defines a network for all hosts; it gets its number on the wire.
    ///
    /// # Errors
    /// When its name or one of its subnets is taken, or the store does not answer.
    pub async fn create(&self, wanted: &Network) -> Result<Network, Refused> {
        let pools = self.keys.pools();
        for number in 0..TRIES {
            let before = self.get(&pools).await?;
            let others = self.networks().await?;
            if others.iter().any(|other| other.name == wanted.name) {
                return Err(Error::NetworkExists { name: wanted.name.to_string() }.into());
            }
            for pool in &wanted.pools {
                let meets =
                    |other: &&Network| other.pools.iter().any(|o| ipam::overlaps(&o.subnet, &pool.subnet));
                if let Some(other) = others.iter().find(meets) {
                    let by = format!("network {} of the cluster", other.name);
                    return Err(Error::SubnetTaken { subnet: pool.subnet, by }.into());
                }
            }
            let vni = wanted.options.get("vni").and_then(|vni| vni.parse().ok());
            let vni: u32 = vni.unwrap_or_else(|| number_for(&wanted.id, number));
            let mut network = shared(wanted);
            network.options.insert("vni".to_owned(), vni.to_string());
            let (own, name, id) =
                (self.keys.network(&network.id), network.name.to_string(), text(&network.id));
            let transaction = Transaction {
                given: vec![
                    If::Changed(pools.clone(), before.map_or(0, |entry| entry.changed)),
                    If::Absent(self.keys.name(&name)),
                    If::Absent(self.keys.vni(vni)),
                    self.unfenced(),
                ],
                then: vec![
                    Do::Put(pools.clone(), id.clone(), None),
                    Do::Put(self.keys.name(&name), id.clone(), None),
                    Do::Put(self.keys.vni(vni), id, None),
                    Do::Put(own.clone(), text(&network), None),
                ],
            };
            if self.run(&transaction, &own, |entry| entry.is_some()).await? {
                return Ok(network);
            }
            if self.is_fenced().await? {
                return Err(Refused::Fenced);
            }
            if wanted.options.contains_key("vni") && self.get(&self.keys.vni(vni)).await?.is_some() {
                let what = format!("number {vni} is another network's of the cluster");
                return Err(Error::Unsupported { what }.into());
            }
        }
        Err(Refused::Trouble(Trouble::Refused("others create networks all the time".to_owned())))
    }

    /// The networks of the cluster; what is none is passed over.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn networks(&self) -> Result<Vec<Network>, Trouble> {
        let listing = self.store.list(&self.keys.networks()).await?;
        Ok(listing.entries.iter().filter_map(|entry| parse(&entry.value).ok()).collect())
    }

    /// Removes a network that no host has an endpoint in.
    ///
    /// # Errors
    /// When one has, or the store does not answer.
    pub async fn remove(&self, network: &Network) -> Result<(), Refused> {
        let own = self.keys.network(&network.id);
        let mut then = vec![
            Do::Delete(own.clone()),
            Do::Delete(self.keys.name(network.name.as_str())),
            Do::DeleteAll(self.keys.addresses(&network.id)),
            Do::Put(self.keys.pools(), text(&network.id), None),
        ];
        then.extend(
            network
                .options
                .get("vni")
                .and_then(|vni| vni.parse().ok())
                .map(|vni| Do::Delete(self.keys.vni(vni))),
        );
        for _ in 0..TRIES {
            // Addresses are reserved before an endpoint is seen: none may be held either.
            let held = self.held(&network.id).await?;
            if let Some((_, Held::By { name, .. })) =
                held.iter().find(|(_, held)| matches!(held, Held::By { .. }))
            {
                let error =
                    Error::HasEndpoints { network: network.name.to_string(), containers: name.clone() };
                return Err(error.into());
            }
            let changed = self.get(&own).await?;
            let Some(changed) = changed else { return Ok(()) };
            let transaction = Transaction {
                given: vec![
                    If::Changed(own.clone(), changed.changed),
                    If::Empty(self.keys.ends(&network.id)),
                ],
                then: then.clone(),
            };
            if self.run(&transaction, &own, |entry| entry.is_none()).await? {
                return Ok(());
            }
        }
        Err(Refused::Trouble(Trouble::Refused("others change the network all the time".to_owned())))
    }

    async fn held(&self, network: &Id) -> Result<Vec<(IpAddr, Held)>, Trouble> {
        let prefix = self.keys.addresses(network);
        let listing = self.store.list(&prefix).await?;
        let read = |entry: &Entry| {
            let address = entry.key.strip_prefix(&prefix)?.parse().ok()?;
            Some((address, parse(&entry.value).unwrap_or(Held::Released)))
        };
        Ok(listing.entries.iter().filter_map(read).collect())
    }

    /// Reserves one address of each pool for an endpoint of this host.
    ///
    /// # Errors
    /// When an address that is asked for is another's, none is left, or the store does not answer.
    pub async fn reserve(&mut self, network: &Network, wish: &Wish) -> Result<Vec<IpAddr>, Refused> {
        for _ in 0..TRIES {
            let held = self.held(&network.id).await?;
            let mut chosen = Vec::new();
            for pool in &network.pools {
                chosen.push(self.choose(network, pool, wish, &held)?);
            }
            if self.take(network, wish, &chosen, &held).await? {
                return Ok(chosen);
            }
            if self.is_fenced().await? {
                return Err(Refused::Fenced);
            }
            if self.get(&self.keys.network(&network.id)).await?.is_none() {
                return Err(Error::NetworkNotFound { name: network.name.to_string() }.into());
            }
            self.keep_alive().await?;
        }
        Err(Refused::Trouble(Trouble::Refused("others take addresses all the time".to_owned())))
    }

    fn choose(
        &self,
        network: &Network,
        pool: &Pool,
        wish: &Wish,
        held: &[(IpAddr, Held)],
    ) -> Result<IpAddr, Error> {
        let asked = wish.asked.iter().find(|address| address.is_ipv6() == pool.subnet.is_ipv6());
        if let Some(address) = asked {
            let refuse = |reason| Error::AddressRefused {
                address: *address,
                network: network.name.to_string(),
                reason,
            };
            if !pool.subnet.contains(*address) {
                return Err(refuse(format!("it is not in subnet {}", pool.subnet)));
            }
            if let Some(reason) = ipam::reserved(pool, *address) {
                return Err(refuse(reason));
            }
            let holder = held.iter().find(|(other, _)| other == address);
            return match holder {
                Some((_, Held::By { name, endpoint, .. })) if *endpoint != wish.endpoint => {
                    Err(Error::AddressTaken {
                        address: *address,
                        by: name.clone(),
                        network: network.name.to_string(),
                    })
                }
                // Whoever asks for it by name may have it at once.
                Some((_, Held::By { .. } | Held::Released)) | None => Ok(*address),
            };
        }
        let taken: HashSet<IpAddr> = held.iter().map(|(address, _)| *address).collect();
        let free = |address: &IpAddr| !taken.contains(address) && ipam::reserved(pool, *address).is_none();
        free_address(pool, &self.me.id, free).ok_or_else(|| Error::PoolExhausted {
            network: network.name.to_string(),
            pool: pool.range.unwrap_or(pool.subnet),
            used: taken.iter().filter(|address| pool.subnet.contains(**address)).count(),
        })
    }

    async fn take(
        &self,
        network: &Network,
        wish: &Wish,
        chosen: &[IpAddr],
        held: &[(IpAddr, Held)],
    ) -> Result<bool, Refused> {
        let mine = Held::By { host: self.me.id, endpoint: wish.endpoint, name: wish.name.clone() };
        let mut given = vec![If::Present(self.keys.network(&network.id)), self.unfenced()];
        given.extend(self.lease.map(|lease| If::On(self.keys.alive(&self.me.id), lease)));
        let mut then = Vec::new();
        for address in chosen {
            let key = self.keys.address(&network.id, *address);
            given.push(match held.iter().find(|(other, _)| other == address) {
                Some((_, held)) => If::Is(key.clone(), text(held)),
                None => If::Absent(key.clone()),
            });
            then.push(Do::Put(key, text(&mine), None));
        }
        let Some(first) = chosen.first() else { return Ok(true) };
        let key = self.keys.address(&network.id, *first);
        let own = |entry: Option<&Entry>| entry.is_some_and(|entry| parse(&entry.value) == Ok(mine.clone()));
        Ok(self.run(&Transaction { given, then }, &key, own).await?)
    }

    /// Lets others send to an endpoint, whose addresses must be its own.
    ///
    /// # Errors
    /// When they are not, or the store does not answer.
    pub async fn publish(&self, network: &Id, end: &End) -> Result<(), Refused> {
        let key = self.keys.end(network, &self.me.id, &end.id);
        let mut given = vec![If::Present(self.keys.network(network)), self.unfenced()];
        for address in &end.addresses {
            let held = Held::By { host: self.me.id, endpoint: end.id, name: end.name.clone() };
            given.push(If::Is(self.keys.address(network, *address), text(&held)));
        }
        let then = vec![Do::Put(key.clone(), text(end), None)];
        let same = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.value == text(end));
        if self.run(&Transaction { given, then }, &key, same).await? {
            return Ok(());
        }
        if self.is_fenced().await? {
            return Err(Refused::Fenced);
        }
        let what = format!("the addresses of container {} are not its own in the cluster", end.name);
        Err(Error::Unsupported { what }.into())
    }

    /// Takes the addresses of an endpoint again after this host was removed and came back: those that are nobody's.
    ///
    /// # Errors
    /// When one is another's by now, or the store does not answer.
    pub async fn reclaim(&mut self, network: &Network, end: &End) -> Result<(), Refused> {
        let wish = Wish { endpoint: end.id, name: end.name.clone(), asked: end.addresses.clone() };
        self.reserve(network, &wish).await.map(drop)
    }

    /// Gives back what an endpoint of this host had; its addresses rest for a while.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn withdraw(&mut self, network: &Id, end: &Id) -> Result<(), Refused> {
        let me = self.me.id;
        let mut own = self.held(network).await?;
        own.retain(
            |(_, held)| matches!(held, Held::By { host, endpoint, .. } if *host == me && endpoint == end),
        );
        self.release(network, &me, end, &own).await
    }

    async fn release(
        &mut self,
        network: &Id,
        host: &Id,
        end: &Id,
        own: &[(IpAddr, Held)],
    ) -> Result<(), Refused> {
        let key = self.keys.end(network, host, end);
        for _ in 0..2 {
            let rest = self.rest_lease().await?;
            let mut transaction = Transaction { given: Vec::new(), then: vec![Do::Delete(key.clone())] };
            for (address, held) in own {
                let address = self.keys.address(network, *address);
                transaction.given.push(If::Is(address.clone(), text(held)));
                transaction.then.push(Do::Put(address, text(&Held::Released), Some(rest)));
            }
            match self.run(&transaction, &key, |entry| entry.is_none() && own.is_empty()).await {
                Ok(true) => return Ok(()),
                // The addresses are another's by now; the endpoint goes all the same.
                Ok(false) => break,
                // The lease ended before its time.
                Err(Trouble::Refused(_)) => self.rest = None,
                Err(trouble) => return Err(trouble.into()),
            }
        }
        let alone = Transaction { given: Vec::new(), then: vec![Do::Delete(key.clone())] };
        self.run(&alone, &key, |entry| entry.is_none()).await?;
        Ok(())
    }

    /// One lease for all addresses that are given back within half of the time that they rest.
    async fn rest_lease(&mut self) -> Result<Lease, Trouble> {
        let now = crate::verbs::uptime();
        if let Some((lease, granted)) = self.rest
            && now < granted + REST.as_secs() / 2
        {
            return Ok(lease);
        }
        let lease = self.store.grant(REST).await?;
        self.rest = Some((lease, now));
        Ok(lease)
    }

    /// Every address that a host holds: network, endpoint, address.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn held_by(&self, wanted: &Id) -> Result<Vec<(Id, Id, IpAddr, Held)>, Trouble> {
        let prefix = self.keys.all_addresses();
        let listing = self.store.list(&prefix).await?;
        let read = |entry: &Entry| {
            let (network, address) = entry.key.strip_prefix(&prefix)?.split_once('/')?;
            let held: Held = parse(&entry.value).ok()?;
            match held {
                Held::By { host, endpoint, .. } if host == *wanted => {
                    Some((network.parse().ok()?, endpoint, address.parse().ok()?, held))
                }
                Held::By { .. } | Held::Released => None,
            }
        };
        Ok(listing.entries.iter().filter_map(read).collect())
    }

    /// Removes a host that is gone for good: first it can change nothing any more, then what it had is given back.
    ///
    /// # Errors
    /// When there is no such host, or the store does not answer.
    pub async fn fence(&mut self, host: &Id) -> Result<(), Refused> {
        let key = self.keys.host(host);
        let missing = || Error::Unsupported { what: format!("there is no host {}", host.short()) };
        for _ in 0..TRIES {
            let before = self.get(&key).await?.ok_or_else(missing)?;
            let known: Host = parse(&before.value).map_err(|reason| Error::Unsupported { what: reason })?;
            let fenced = Host { fenced: true, ..known };
            let transaction = Transaction {
                given: vec![If::Changed(key.clone(), before.changed)],
                then: vec![Do::Put(key.clone(), text(&fenced), None), Do::Delete(self.keys.alive(host))],
            };
            let same = |entry: Option<&Entry>| entry.is_some_and(|entry| entry.value == text(&fenced));
            if self.run(&transaction, &key, same).await? {
                return self.sweep(host).await;
            }
        }
        Err(Refused::Trouble(Trouble::Refused("others change the record of the host".to_owned())))
    }

    /// Gives back everything that a removed host had.
    async fn sweep(&mut self, host: &Id) -> Result<(), Refused> {
        for (network, end, address, held) in self.held_by(host).await? {
            self.release(&network, host, &end, &[(address, held)]).await?;
        }
        let all = self.keys.all_ends();
        let left = self.store.list(&all).await?.entries.into_iter().filter(|entry| {
            entry.key.strip_prefix(&all).and_then(|rest| rest.split('/').nth(1))
                == Some(host.to_string().as_str())
        });
        let left: Vec<Do> = left.map(|entry| Do::Delete(entry.key)).collect();
        for some in left.chunks(CHUNK) {
            self.store.run(&Transaction { given: Vec::new(), then: some.to_vec() }).await?;
        }
        Ok(())
    }
}

/// A number on the wire for a network, another one at each try.
fn number_for(network: &Id, number: usize) -> u32 {
    let start = u32::from_be_bytes([0, network.0[0], network.0[1], network.0[2]]);
    let count = MOST_VNI - SMALLEST_VNI + 1;
    SMALLEST_VNI + (start + u32::try_from(number).unwrap_or(0) * 7919) % count
}

/// A free address, searched for from a place that is each host's own: all searching from the lowest would meet.
fn free_address(pool: &Pool, host: &Id, free: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let window = ipam::window(pool);
    let size = window.end.checked_sub(window.start).filter(|size| *size > 0)?;
    let start = u128::from(u64::from_be_bytes(*host.0.first_chunk()?)) % size;
    let places = (0..size).map(|n| window.start + (start + n) % size);
    places.filter_map(|place| ipam::address_at(&pool.subnet, place)).find(free)
}
