//! What rnet and others do to what rnet owns, as it happens: the records followed, and the kernel listened to. There is
//! no daemon that would remember: what happened before is known as far as records still tell it.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rnetkit_drivers::{Id, Network};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use serde::Serialize;

use crate::{
    agent::follow::{Change, Depth, Follower},
    error::Error,
    kernel::{Heard, HeardLink, Linux, Listener, TableChange, Transaction},
    store::{EndpointState, Store},
    verbs::{Rnet, now},
};

/// What happened, in Docker's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What it happened to: `network`, `link`, `address`, `firewall`, or `events` for the stream itself.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// What happened: `create`, `destroy`, `connect`, `disconnect`, `update`, or `lost`.
    #[serde(rename = "Action")]
    pub action: &'static str,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: &'static str,
    /// When it was noticed: seconds since 1970 in UTC.
    pub time: u64,
    /// The same in nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

/// What an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// The network's id; the name of a link, the family and name of a table.
    #[serde(rename = "ID")]
    pub id: String,
    /// What is known of it besides, by name.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<&'static str, String>,
}

impl Event {
    /// An event that nobody saw, for tests of those who show them.
    #[cfg(test)]
    pub(crate) fn example(
        kind: &'static str,
        action: &'static str,
        attributes: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Self {
        let attributes = attributes.into_iter().map(|(key, value)| (key, value.to_owned()));
        Self::at(1, kind, action, "id".to_owned(), attributes)
    }

    fn at(
        nanoseconds: u64,
        kind: &'static str,
        action: &'static str,
        id: String,
        attributes: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let actor = Actor { id, attributes: attributes.into_iter().collect() };
        Self {
            kind,
            action,
            actor,
            scope: "local",
            time: nanoseconds / 1_000_000_000,
            time_nano: nanoseconds,
        }
    }
}

/// What is followed, and what is known of it so far.
pub struct Events {
    rnet: Rnet<Linux>,
    listener: Listener,
    records: Follower,
    definitions: OwnedFd,
    known: Known,
}

/// What there was at the last look: what is gone can only be named by this.
#[derive(Default)]
struct Known {
    networks: HashMap<Id, Network>,
    defined: HashMap<Id, Network>,
    endpoints: HashMap<(Id, String), EndpointState>,
    links: HashMap<u32, HeardLink>,
}

impl Events {
    /// Begins to follow: whatever happens after this returned will be told.
    ///
    /// # Errors
    /// When the kernel refuses to tell, or records cannot be read.
    pub fn follow(mut rnet: Rnet<Linux>) -> Result<Self, Error> {
        rnet.wake()?;
        let failed = |refusal| Error::kernel("listen to the kernel", refusal);
        let listener = Listener::open().map_err(failed)?;
        let records = Follower::new(rnet.store(), Depth::Endpoints)?;
        let definitions = follow_definitions(rnet.store())?;
        let mut known = Known::default();
        for link in rnet.kernel().links().map_err(failed)? {
            known.links.insert(link.index, link);
        }
        let mut events = Self { rnet, listener, records, definitions, known };
        drop(events.look_at_records()?);
        events.known.forget_foreign_links();
        Ok(events)
    }

    /// What records still tell of the time before: the making of networks, and of connections, that are still there.
    /// In the order in which it happened.
    #[must_use]
    pub fn past(&self) -> Vec<Event> {
        let made = self.known.defined.values().map(|network| of_network("create", network, network.created));
        let connected = self
            .known
            .endpoints
            .values()
            .map(|state| self.known.of_endpoint("connect", state, state.created));
        let mut list: Vec<Event> = made.chain(connected).collect();
        list.sort_by(|a, b| (a.time_nano, &a.actor.id).cmp(&(b.time_nano, &b.actor.id)));
        list
    }

    /// Waits for something to happen, for no longer than that; nothing where nothing did.
    ///
    /// # Errors
    /// When records or the kernel cannot be read.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Vec<Event>, Error> {
        let [links, firewall, records] = self.wait(patience)?;
        let mut list = Vec::new();
        // Records first: they name what the kernel tells of.
        if records || links || firewall {
            list.extend(self.look_if_changed()?);
        }
        let failed = |refusal| Error::kernel("listen to the kernel", refusal);
        let mut heard = Vec::new();
        if links {
            heard.extend(self.listener.hear_links().map_err(failed)?);
        }
        if firewall {
            heard.extend(self.listener.hear_firewall().map_err(failed)?);
        }
        for one in heard {
            list.extend(self.tell(one)?);
        }
        Ok(list)
    }

    /// Which of the sockets, and whether the records, have something to tell.
    fn wait(&self, patience: Option<Duration>) -> Result<[bool; 3], Error> {
        let patience = patience.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let [links, firewall] = self.listener.sockets();
        let ready = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut all =
            [ready(links), ready(firewall), ready(self.records.as_fd()), ready(self.definitions.as_fd())];
        match poll(&mut all, patience.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok([false; 3]),
            Err(errno) => return Err(Error::kernel("wait for events", errno.into())),
        }
        let [links, firewall, records, definitions] = all.map(|fd| !fd.revents().is_empty());
        Ok([links, firewall, records || definitions])
    }

    fn look_if_changed(&mut self) -> Result<Vec<Event>, Error> {
        let failed = |error| Error::store(self.rnet.store().run_dir(), error);
        let changes = self.records.changes().map_err(failed)?;
        let drained = drain(&self.definitions);
        if changes.is_empty() && !drained {
            return Ok(Vec::new());
        }
        let mut list = Vec::new();
        if changes.contains(&Change::Everything) {
            list.push(lost("records"));
        }
        list.extend(self.look_at_records()?);
        Ok(list)
    }

    /// Compares what is recorded now with what is known: what came and went between two looks is not told.
    fn look_at_records(&mut self) -> Result<Vec<Event>, Error> {
        let time = now();
        let networks = self.rnet.networks()?;
        let mut defined = HashMap::new();
        let mut endpoints = HashMap::new();
        for network in &networks {
            for state in self.rnet.endpoints(network)? {
                endpoints.insert((network.id, state.key.clone()), state);
            }
            defined.insert(network.id, network.clone());
        }
        let known = &mut self.known;
        known.networks.extend(networks.into_iter().map(|network| (network.id, network)));
        let mut list = Vec::new();
        let new = defined.iter().filter(|(id, _)| !known.defined.contains_key(id));
        list.extend(new.map(|(_, network)| of_network("create", network, time)));
        let is_other = |old: Option<&EndpointState>, new: &EndpointState| {
            old.is_none_or(|old| old.endpoint.id != new.endpoint.id)
        };
        let gone = known.endpoints.iter().filter(|(key, old)| is_other(endpoints.get(*key), old));
        list.extend(gone.map(|(_, state)| known.of_endpoint("disconnect", state, time)));
        let new = endpoints.iter().filter(|(key, new)| is_other(known.endpoints.get(*key), new));
        list.extend(new.map(|(_, state)| known.of_endpoint("connect", state, time)));
        let gone = known.defined.iter().filter(|(id, _)| !defined.contains_key(id));
        list.extend(gone.map(|(_, network)| of_network("destroy", network, time)));
        known.defined = defined;
        known.endpoints = endpoints;
        Ok(list)
    }

    fn tell(&mut self, heard: Heard) -> Result<Vec<Event>, Error> {
        Ok(match heard {
            Heard::Link(link) => self.known.link(link).into_iter().collect(),
            Heard::LinkGone(link) => self.known.link_gone(&link).into_iter().collect(),
            Heard::Address(index, address) => {
                self.known.address("create", index, address.to_string()).into_iter().collect()
            }
            Heard::AddressGone(index, address) => {
                self.known.address("destroy", index, address.to_string()).into_iter().collect()
            }
            Heard::Firewall(transaction) => {
                let table = self.rnet.store().table()?;
                of_transaction(&transaction, table.as_str())
            }
            Heard::Lost => {
                // What was recorded meanwhile is told after all.
                let mut list = vec![lost("kernel")];
                list.extend(self.look_at_records()?);
                list
            }
        })
    }
}

/// Some of what happened is not told, because it was not read in time.
fn lost(of: &str) -> Event {
    Event::at(now(), "events", "lost", of.to_owned(), [])
}

fn of_network(action: &'static str, network: &Network, time: u64) -> Event {
    let attributes = [("name", network.name.to_string()), ("type", network.driver.clone())];
    Event::at(time, "network", action, network.id.to_string(), attributes)
}

/// One event for each of rnet's tables that the transaction changed.
fn of_transaction(transaction: &Transaction, own: &str) -> Vec<Event> {
    let ours = |change: &&TableChange| change.table == own;
    let event = |change: &TableChange| {
        let family = if change.family == 7 { "bridge" } else { "inet" };
        let mut attributes = vec![
            ("table", change.table.clone()),
            ("family", family.to_owned()),
            ("made", change.made.to_string()),
            ("unmade", change.unmade.to_string()),
        ];
        if let Some((pid, name)) = &transaction.by {
            attributes.extend([("pid", pid.to_string()), ("by", crate::error::shown(name))]);
        }
        let action = if change.gone { "destroy" } else { "update" };
        Event::at(now(), "firewall", action, format!("{family} {}", change.table), attributes)
    };
    transaction.tables.iter().filter(ours).map(event).collect()
}

impl Known {
    fn of_endpoint(&self, action: &'static str, state: &EndpointState, time: u64) -> Event {
        let endpoint = &state.endpoint;
        let driver = self.networks.get(&endpoint.network).map(|network| network.driver.clone());
        let mut attributes = vec![
            ("name", state.network.to_string()),
            ("type", driver.unwrap_or_default()),
            ("container", endpoint.container.id.to_string()),
            ("containerName", endpoint.container.name.clone()),
            ("endpoint", endpoint.id.to_string()),
        ];
        for address in &endpoint.addresses {
            attributes
                .push((if address.is_ipv6() { "ipv6Address" } else { "ipv4Address" }, address.to_string()));
        }
        Event::at(time, "network", action, endpoint.network.to_string(), attributes)
    }

    /// The network that a link is of, by the group that it was born with.
    fn network_of(&self, link: &HeardLink) -> Option<&Network> {
        self.networks.values().find(|network| network.group == link.group)
    }

    fn forget_foreign_links(&mut self) {
        let ours: Vec<u32> =
            self.links.values().filter(|l| self.network_of(l).is_some()).map(|l| l.index).collect();
        self.links.retain(|index, _| ours.contains(index));
    }

    /// A link came, or is another than it was: one that was ours stays ours, whatever is done to it.
    fn link(&mut self, link: HeardLink) -> Option<Event> {
        let before = self.links.get(&link.index);
        if before == Some(&link) || before.is_none() && self.network_of(&link).is_none() {
            return None;
        }
        let action = if before.is_some() { "update" } else { "create" };
        let event = self.of_link(action, &link);
        self.links.insert(link.index, link);
        Some(event)
    }

    fn link_gone(&mut self, gone: &HeardLink) -> Option<Event> {
        let link = self.links.remove(&gone.index)?;
        Some(self.of_link("destroy", &link))
    }

    fn of_link(&self, action: &'static str, link: &HeardLink) -> Event {
        let master = self.links.get(&link.master).map(|bridge| bridge.name.clone());
        let mut attributes = vec![
            ("kind", link.kind.clone()),
            ("state", if link.up { "up" } else { "down" }.to_owned()),
            ("mtu", link.mtu.to_string()),
        ];
        attributes.extend(self.network_of(link).map(|network| ("network", network.name.to_string())));
        attributes.extend(master.map(|name| ("bridge", name)));
        Event::at(now(), "link", action, crate::error::shown(&link.name), attributes)
    }

    fn address(&self, action: &'static str, index: u32, address: String) -> Option<Event> {
        let link = self.links.get(&index)?;
        let mut attributes = vec![("link", link.name.clone())];
        attributes.extend(self.network_of(link).map(|network| ("network", network.name.to_string())));
        Some(Event::at(now(), "address", action, address, attributes))
    }
}

fn follow_definitions(store: &Store) -> Result<OwnedFd, Error> {
    let folder = store.definitions_dir()?;
    let failed = |errno: Errno| Error::store(&folder, errno);
    let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(failed)?;
    let what = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
    inotify::add_watch(&queue, &folder, what).map_err(failed)?;
    Ok(queue)
}

/// Reads a queue away; whether there was anything in it.
fn drain(queue: &OwnedFd) -> bool {
    let mut buffer = [0; 4096];
    let mut any = false;
    while rustix::io::read(queue, &mut buffer).is_ok_and(|count| count > 0) {
        any = true;
    }
    any
}
