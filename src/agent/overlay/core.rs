//! What the part does, apart from waiting: it takes what is followed, places what other hosts have, and tells them what is
//! here. Runs on any store and any kernel.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Id, Network, Peer, RemoteEndpoint};

use super::{
    belief::{self, same_id, sound_host},
    cipher::Encrypts,
};
use crate::{
    cipher::{Own, Wanted},
    cluster::{
        End, Host, Key,
        follow::{Difference, Follow},
        is_encrypted, is_shared,
        operations::{Cluster, Refused},
        parse,
        store::{Store, Trouble},
    },
    error::{Error, shown},
    kernel::Kernel,
    store::{ClusterRecord, EndpointState, Far},
    verbs::{self, Rnet},
};

/// How long an address may be reserved for an endpoint that no record names yet, in seconds.
const IN_FLIGHT: u64 = 30;

/// What is known, and what was made of it.
pub struct Core<S: Store, K: Kernel> {
    /// The cluster.
    pub cluster: Cluster<S>,
    /// This host.
    pub rnet: Rnet<K>,
    /// What is followed.
    pub follow: Follow<S>,
    pub(super) hosts: BTreeMap<Id, Host>,
    pub(super) alive: BTreeSet<Id>,
    pub(super) networks: BTreeMap<Id, Network>,
    pub(super) ends: BTreeMap<Id, BTreeMap<(Id, Id), End>>,
    /// Addresses of containers of this host, by network, as its records were last read.
    here: BTreeMap<Id, HashSet<IpAddr>>,
    /// Peers as they were last placed, by network and host.
    placed: BTreeMap<Id, BTreeMap<Id, Peer>>,
    /// Who was said to be on other hosts, by network.
    named: BTreeMap<Id, Vec<Far>>,
    /// Networks that the cluster has no more, and this host still has.
    leaving: BTreeSet<Id>,
    /// Endpoints that addresses were reserved for, and when.
    pub(super) in_flight: BTreeMap<Id, u64>,
    /// A reservation failed, or came too late: there may be addresses that nobody has.
    pub(super) given_up: bool,
    /// Why nothing of the store is believed.
    pub(super) distrust: Option<String>,
    /// What was wrong last.
    pub(super) trouble: Option<String>,
    pub(super) registered: bool,
    recorded: Option<ClusterRecord>,
    cipher: Box<dyn Encrypts>,
}

impl<S: Store, K: Kernel> Core<S, K> {
    /// The part at its beginning.
    pub fn new(cluster: Cluster<S>, rnet: Rnet<K>, cipher: Box<dyn Encrypts>) -> Self {
        let follow = Follow::new(cluster.keys.seen());
        Self {
            cluster,
            rnet,
            follow,
            hosts: BTreeMap::new(),
            alive: BTreeSet::new(),
            networks: BTreeMap::new(),
            ends: BTreeMap::new(),
            here: BTreeMap::new(),
            placed: BTreeMap::new(),
            named: BTreeMap::new(),
            leaving: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            given_up: false,
            distrust: None,
            trouble: None,
            registered: false,
            recorded: None,
            cipher,
        }
    }

    /// Says that this host is there, and makes sure that the store is the one of before.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn begin(&mut self) -> Result<(), Refused> {
        if self.distrust.is_some() {
            return Ok(());
        }
        if !self.registered {
            self.check_identity().await?;
            if self.distrust.is_some() {
                return Ok(());
            }
            let again = self.cluster.register().await?;
            self.registered = true;
            if again {
                tracing::warn!("this host was removed from the cluster and is back");
                self.settle().await?;
            }
        } else if self.cluster.keep_alive().await? {
            self.settle().await?;
        }
        self.trouble = None;
        Ok(())
    }

    /// Lets what encrypts know of the other hosts, where a network needs it; it is begun again where it ended.
    pub fn encrypt(&mut self) {
        // What it takes no part in was said when it was not taken over.
        if self.cluster.me.key.is_none() {
            return;
        }
        // Who has not heard of all knows of nobody that he is gone.
        let goes_on = || self.rnet.store().cipher().is_ok_and(|before| before.is_some());
        if !self.follow.is_told() && !goes_on() {
            return;
        }
        if let Err(error) = self.encrypt_for(None) {
            tracing::error!("{error}; encrypted networks reach no other host");
            self.trouble = Some(error.to_string());
        }
    }

    /// As `encrypt`, with a network that is about to be one of this cluster's.
    pub(super) fn encrypt_for(&mut self, network: Option<&Network>) -> Result<(), Error> {
        let me = &self.cluster.me;
        let before = if self.follow.is_told() { None } else { self.rnet.store().cipher()? };
        let wanted = self.networks.values().chain(network).any(is_encrypted).then(|| Wanted {
            own: Own::of(&me.id, me.address, me.mtu),
            peers: belief::encrypting(me, &self.hosts),
        });
        if wanted.is_some() && me.key.is_none() {
            return Err(Error::Unsupported { what: self.cannot_encrypt() });
        }
        self.cipher.bring(before.or(wanted))
    }

    /// By what it encrypts, where it does.
    pub(super) fn says_encrypts(&self) -> Option<String> {
        self.cipher.says()
    }

    /// Why this host takes part in no encrypted network.
    pub(super) fn cannot_encrypt(&self) -> String {
        match self.cipher.probe() {
            Err(error) => format!("this host cannot encrypt: {error}"),
            Ok(()) => "this host could not encrypt when its agent began; begin the agent again".to_owned(),
        }
    }

    /// A store that is empty, or of an earlier time, must not take away what works.
    async fn check_identity(&mut self) -> Result<(), Refused> {
        self.recorded = self.rnet.store().cluster_record()?;
        let fresh = verbs::new_id()?;
        let found = self.cluster.identity(fresh).await?;
        match &self.recorded {
            Some(record) if record.cluster != found => {
                self.distrust = Some(format!(
                    "the store is not the one of before: it is of cluster {}, and this host is of {}; to join it \
                     all the same, remove cluster.json",
                    found.short(),
                    record.cluster.short()
                ));
            }
            Some(_) => {}
            None => self.record(ClusterRecord { cluster: found, revision: 0 })?,
        }
        Ok(())
    }

    fn record(&mut self, record: ClusterRecord) -> Result<(), Error> {
        self.rnet.store().set_cluster_record(&record)?;
        self.recorded = Some(record);
        Ok(())
    }

    /// Takes what is different in the store. Networks that it concerns are placed anew.
    pub fn take(&mut self, differences: Vec<Difference>) {
        if let Some(reason) = self.suspicion(&differences) {
            tracing::error!("{reason}");
            self.distrust = Some(reason);
        }
        if self.distrust.is_some() {
            return;
        }
        let mut touched = BTreeSet::new();
        let mut different = false;
        for (key, value) in differences {
            let read = self.cluster.keys.read(&key);
            different |= matches!(read, Some(Key::Host(_) | Key::Network(_)));
            match read {
                Some(read) => self.take_one(&key, read, value.as_deref(), &mut touched),
                None => tracing::warn!("{}: it is no key of rnet's, and not looked at", shown(&key)),
            }
        }
        if different {
            self.encrypt();
        }
        for network in touched {
            self.place(&network);
        }
    }

    /// Whether the store lost what it cannot lose.
    fn suspicion(&self, differences: &[Difference]) -> Option<String> {
        let record = self.recorded.as_ref()?;
        if self.follow.revision() < record.revision {
            return Some(format!(
                "the store is of an earlier time: it is at revision {}, and was at {}; what is placed stays as it is",
                self.follow.revision(),
                record.revision
            ));
        }
        let meta = differences.iter().find(|(key, _)| self.cluster.keys.read(key) == Some(Key::Meta))?;
        let same = meta.1.as_deref().is_some_and(|value| parse(value) == Ok(record.cluster));
        (!same)
            .then(|| "the store lost the identity of the cluster; what is placed stays as it is".to_owned())
    }

    fn take_one(&mut self, key: &str, read: Key, value: Option<&[u8]>, touched: &mut BTreeSet<Id>) {
        let bad = |reason: &str| tracing::warn!("{}: {reason}; it is not believed", shown(key));
        match (read, value) {
            (Key::Meta, _) => {}
            (Key::Alive(host), Some(_)) => drop(self.alive.insert(host)),
            (Key::Alive(host), None) => drop(self.alive.remove(&host)),
            (Key::Host(host), None) => {
                self.hosts.remove(&host);
                touched.extend(self.networks_of(&host));
            }
            (Key::Host(id), Some(value)) => match parse::<Host>(value).and_then(|host| sound_host(&id, host))
            {
                Ok(host) => {
                    // Others removed this host, which lives: it comes back with the next beat.
                    self.registered &= id != self.cluster.me.id || !host.fenced;
                    self.hosts.insert(id, host);
                    touched.extend(self.networks_of(&id));
                }
                Err(reason) => bad(&reason),
            },
            (Key::Network(network), None) => {
                self.networks.remove(&network);
                self.leaving.insert(network);
            }
            (Key::Network(id), Some(value)) => match parse::<Network>(value).and_then(|n| same_id(&id, n)) {
                Ok(network) => {
                    self.leaving.remove(&id);
                    self.adopt(&network);
                    self.networks.insert(id, network);
                    touched.insert(id);
                }
                Err(reason) => bad(&reason),
            },
            (Key::End { network, host, end }, None) => {
                self.ends.entry(network).or_default().remove(&(host, end));
                touched.insert(network);
            }
            (Key::End { network, host, end }, Some(value)) => match parse::<End>(value) {
                Ok(known) if known.id == end => {
                    self.ends.entry(network).or_default().insert((host, end), known);
                    touched.insert(network);
                }
                Ok(_) => bad("it is of another endpoint than its key"),
                Err(reason) => bad(&reason),
            },
        }
    }

    /// The networks that a host has endpoints in.
    fn networks_of(&self, host: &Id) -> Vec<Id> {
        let first = (*host, Id([0; 32]));
        let is_in = |ends: &BTreeMap<(Id, Id), End>| {
            ends.range(first..).next().is_some_and(|((of, _), _)| of == host)
        };
        self.ends.iter().filter(|(_, ends)| is_in(ends)).map(|(network, _)| *network).collect()
    }

    /// What could not be taken over may have met what is gone by now.
    fn adopt_all(&mut self) {
        let all: Vec<Network> = self.networks.values().cloned().collect();
        all.iter().for_each(|network| self.adopt(network));
    }

    fn adopt(&mut self, network: &Network) {
        let encrypted = is_encrypted(network);
        let Some(own) = self.cluster.me.address_for(encrypted) else {
            return tracing::warn!(
                "network {} of the cluster is not taken over: {}",
                network.name,
                self.cannot_encrypt()
            );
        };
        match self.rnet.adopt(network, own) {
            Ok(true) => drop(self.placed.remove(&network.id)),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!("network {} of the cluster is not taken over: {error}", network.name)
            }
        }
    }

    /// Brings the kernel to what is known of a network's other hosts.
    pub(super) fn place(&mut self, id: &Id) {
        let known = match self.rnet.store().made_network(id) {
            Ok(known) => known,
            Err(error) => return tracing::warn!("{error}"),
        };
        let Some(network) = known else {
            self.placed.remove(id);
            self.named.remove(id);
            return;
        };
        let believed = match self.ends.get(id) {
            Some(ends) => belief::believed(&network, &self.cluster.me, &self.hosts, ends, self.here.get(id)),
            None => Vec::new(),
        };
        let wanted = belief::peers(&believed);
        let far = belief::names(&believed);
        let placed = match self.placed.remove(id) {
            Some(before) if before == wanted => Ok(()),
            Some(before) => {
                let (from, to) = difference(&before, &wanted);
                let all: Vec<Peer> = before.into_values().collect();
                self.rnet.move_peers(&network, &all, &from, &to)
            }
            // Nobody knows what is there: all is looked at.
            None => {
                let all: Vec<Peer> = wanted.values().cloned().collect();
                self.rnet.settle_peers(&network, &all)
            }
        };
        match placed {
            Ok(()) => {
                self.placed.insert(*id, wanted);
                self.tell_names(&network, far);
            }
            Err(error) => {
                tracing::warn!("network {}: {error}", network.name);
                self.trouble = Some(error.to_string());
            }
        }
    }

    /// Whoever can be reached on other hosts can be asked for, too.
    fn tell_names(&mut self, network: &Network, far: Vec<Far>) {
        if self.named.get(&network.id).is_some_and(|named| *named == far) {
            return;
        }
        match self.rnet.store().set_far_names(network, &far) {
            Ok(()) => drop(self.named.insert(network.id, far)),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Forgets what the cluster forgot, and records how far it was followed.
    pub fn tidy(&mut self) {
        for id in self.leaving.clone() {
            match self.rnet.forget_shared(&id) {
                Ok(true) => {
                    self.leaving.remove(&id);
                    self.adopt_all();
                }
                Ok(false) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let revision = self.follow.revision();
        if let Some(record) = self.recorded.clone().filter(|record| record.revision < revision)
            && self.distrust.is_none()
            && let Err(error) = self.record(ClusterRecord { revision, ..record })
        {
            tracing::warn!("{error}");
        }
    }

    /// Looks at every network that is here again: what somebody deleted is made again.
    pub fn look_again(&mut self) {
        if self.distrust.is_some() || !self.follow.is_told() {
            return;
        }
        self.adopt_all();
        self.placed.clear();
        self.named.clear();
        let all: Vec<Id> = self.networks.keys().copied().collect();
        all.iter().for_each(|id| self.place(id));
    }

    /// Tells the others what is recorded here, and gives back what is not.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn settle(&mut self) -> Result<(), Refused> {
        // Networks that came to be here since: their other hosts are placed.
        let fresh: Vec<Id> =
            self.networks.keys().filter(|id| !self.placed.contains_key(id)).copied().collect();
        fresh.iter().for_each(|id| self.place(id));
        let (ready, pending) = self.rnet.shared_endpoints()?;
        self.know_here(&ready);
        let me = self.cluster.me.id;
        for state in &ready {
            let end = end_of(state);
            let network = state.endpoint.network;
            let known = self.ends.get(&network).and_then(|ends| ends.get(&(me, end.id)));
            if known == Some(&end) || !self.networks.contains_key(&network) {
                continue;
            }
            self.publish(&network, &end).await?;
        }
        let is_here = |id: &Id| ready.iter().any(|state| state.endpoint.id == *id) || pending.contains(id);
        let now = verbs::uptime();
        self.in_flight.retain(|id, since| now < *since + IN_FLIGHT && !is_here(id));
        let gone: Vec<(Id, Id)> = self
            .ends
            .iter()
            .flat_map(|(network, ends)| ends.keys().map(move |(host, end)| (*network, *host, *end)))
            .filter(|(_, host, end)| *host == me && !is_here(end) && !self.in_flight.contains_key(end))
            .map(|(network, _, end)| (network, end))
            .collect();
        for (network, end) in gone {
            self.cluster.withdraw(&network, &end).await?;
            self.ends.entry(network).or_default().remove(&(me, end));
        }
        Ok(())
    }

    /// What another host has by now of an address that went from here is placed.
    fn know_here(&mut self, ready: &[EndpointState]) {
        let mut here: BTreeMap<Id, HashSet<IpAddr>> = BTreeMap::new();
        for endpoint in ready.iter().map(|state| &state.endpoint) {
            here.entry(endpoint.network).or_default().extend(endpoint.addresses.iter().map(IpNetwork::ip));
        }
        let before = std::mem::replace(&mut self.here, here);
        for (network, addresses) in before {
            let now = self.here.get(&network);
            if addresses.iter().any(|address| now.is_none_or(|now| !now.contains(address))) {
                self.place(&network);
            }
        }
    }

    async fn publish(&mut self, network: &Id, end: &End) -> Result<(), Refused> {
        let published = match self.cluster.publish(network, end).await {
            Err(Refused::Fenced) => {
                self.cluster.register().await?;
                self.reclaim(network, end).await
            }
            Err(Refused::No(_)) => self.reclaim(network, end).await,
            published => published,
        };
        match published {
            Ok(()) => {
                self.ends.entry(*network).or_default().insert((self.cluster.me.id, end.id), end.clone());
                Ok(())
            }
            Err(Refused::No(error)) => {
                let name = shown(&end.name);
                self.trouble = Some(format!("container {name} is not told to other hosts: {error}"));
                tracing::error!("container {name} is not told to other hosts: {error}");
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }

    async fn reclaim(&mut self, network: &Id, end: &End) -> Result<(), Refused> {
        let Some(known) = self.networks.get(network).cloned() else { return Ok(()) };
        self.cluster.reclaim(&known, end).await?;
        self.cluster.publish(network, end).await
    }

    /// What was removed while nobody here heard of it is removed here too.
    fn leave_unknown(&mut self) -> Result<(), Error> {
        if self.distrust.is_some() || !self.follow.is_told() {
            return Ok(());
        }
        let defined = self.rnet.store().definitions()?;
        let unknown = defined.iter().filter(|network| is_shared(network)).map(|network| network.id);
        // One whose definition cannot be believed is still there.
        let is_there = |id: &Id| self.follow.known().contains_key(&self.cluster.keys.network(id));
        let gone: Vec<Id> = unknown.filter(|id| !self.networks.contains_key(id) && !is_there(id)).collect();
        self.leaving.extend(gone);
        Ok(())
    }

    /// Gives up what this host has for nobody: networks that were removed unheard of, and addresses of commands that died
    /// between reserving and recording.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweep(&mut self) -> Result<(), Refused> {
        self.leave_unknown()?;
        let held = self.cluster.held_by(&self.cluster.me.id).await?;
        let (ready, pending) = self.rnet.shared_endpoints()?;
        let is_here = |id: &Id| ready.iter().any(|state| state.endpoint.id == *id) || pending.contains(id);
        let lost: BTreeSet<(Id, Id)> = held
            .into_iter()
            .filter(|(_, end, _, _)| !is_here(end) && !self.in_flight.contains_key(end))
            .map(|(network, end, _, _)| (network, end))
            .collect();
        for (network, end) in lost {
            self.cluster.withdraw(&network, &end).await?;
        }
        self.given_up = false;
        Ok(())
    }

    /// Whether something was given up that others could have.
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// What was wrong with the store.
    pub fn lost(&mut self, trouble: &Trouble) {
        let text = trouble.to_string();
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!("{text}; what is placed stays as it is");
        }
        self.trouble = Some(text);
    }
}

/// What other hosts are told of an endpoint.
fn end_of(state: &EndpointState) -> End {
    let endpoint = &state.endpoint;
    End {
        id: endpoint.id,
        container: Some(endpoint.container.id),
        name: endpoint.container.name.clone(),
        mac: endpoint.mac,
        addresses: endpoint.addresses.iter().map(IpNetwork::ip).collect(),
        aliases: endpoint.aliases.clone(),
    }
}

/// What has to go and what has to come, host by host, without what stays.
fn difference(before: &BTreeMap<Id, Peer>, after: &BTreeMap<Id, Peer>) -> (Vec<Peer>, Vec<Peer>) {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    for host in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        match (before.get(host), after.get(host)) {
            (Some(old), Some(new)) if old.address == new.address => {
                let known: HashSet<&RemoteEndpoint> = old.endpoints.iter().collect();
                let wanted: HashSet<&RemoteEndpoint> = new.endpoints.iter().collect();
                let only = |list: &[RemoteEndpoint], other: &HashSet<&RemoteEndpoint>| {
                    list.iter().filter(|end| !other.contains(end)).cloned().collect::<Vec<_>>()
                };
                let (gone, come) = (only(&old.endpoints, &wanted), only(&new.endpoints, &known));
                if !gone.is_empty() || !come.is_empty() {
                    // In both, so that the host itself stays believed.
                    from.push(Peer { address: old.address, endpoints: gone });
                    to.push(Peer { address: new.address, endpoints: come });
                }
            }
            (old, new) => {
                from.extend(old.cloned());
                to.extend(new.cloned());
            }
        }
    }
    (from, to)
}
