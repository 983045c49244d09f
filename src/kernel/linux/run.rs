//! A run of steps: what may go together is collected, and sent when something has to come after it.

use std::collections::HashMap;

use netlink_packet_route::RouteNetlinkMessage;
use rnetkit_drivers::{InterfaceName, Place, Publication};

use super::super::{
    Failed, Netns, Refusal,
    conntrack::{self, Change},
    firewall::{Batch, Outcome, TableName},
    link::{self, Link},
    netlink::{self, Requests, Route},
};
use crate::plan::Step;

use super::Linux;

/// What is collected before it is sent: messages to one place, or a transaction of the firewall.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) place: Option<Place>,
    pub(super) requests: Requests,
    /// The step that each request is for.
    pub(super) owners: Vec<usize>,
    pub(super) batch: Batch,
    /// Published ports in the batch that have flows which the kernel must forget once it is run.
    pub(super) flows: Vec<(Publication, Change)>,
    /// The first step that is not yet sent.
    pub(super) start: usize,
}

/// One run of steps.
pub(super) struct Run<'a> {
    pub(super) linux: &'a mut Linux,
    pub(super) netns: Option<&'a Netns>,
    pub(super) container: Option<Route>,
    pub(super) queue: Queue,
    pub(super) indexes: HashMap<(Place, String), u32>,
    /// The other end's name of a veth pair that is being made.
    pub(super) peers: HashMap<String, String>,
    /// The step in hand.
    pub(super) at: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(linux: &'a mut Linux, netns: Option<&'a Netns>) -> Self {
        let mut indexes = HashMap::new();
        // Loopback is the first link of every namespace (`LOOPBACK_IFINDEX` of `net/net_namespace.h`).
        indexes.insert((Place::Container, "lo".to_owned()), 1);
        Self { linux, netns, container: None, queue: Queue::default(), indexes, peers: HashMap::new(), at: 0 }
    }

    pub(super) fn netns(&self) -> Result<&'a Netns, Refusal> {
        self.netns.ok_or_else(|| Refusal::because(libc::ENOENT, "the container's network namespace is gone"))
    }

    pub(super) fn socket(&mut self, place: Place) -> Result<&mut Route, Refusal> {
        match place {
            Place::Host => self.linux.host(),
            Place::Container => {
                if self.container.is_none() {
                    self.inside(|| Ok(()))?;
                }
                self.container.as_mut().ok_or_else(|| Refusal::new(libc::EBADF))
            }
        }
    }

    /// Works inside the container's namespace; the first visit also opens the socket that later messages go through.
    pub(super) fn inside(&mut self, work: impl FnOnce() -> Result<(), Refusal>) -> Result<(), Refusal> {
        let netns = self.netns()?;
        let container = &mut self.container;
        netns.inside(|| {
            if container.is_none() {
                *container = Some(Route::open()?);
            }
            work()
        })?
    }

    pub(super) fn failed(&self, at: usize, refusal: Refusal) -> Failed {
        Failed { at, done: self.at + 1, refusal }
    }

    /// Sends what is collected.
    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        self.flush_firewall()?;
        self.flush_requests()
    }

    fn flush_firewall(&mut self) -> Result<(), Failed> {
        if self.queue.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.queue.batch);
        let start = self.queue.start;
        let end = self.at;
        let nft = self.linux.nft().map_err(|refusal| Failed { at: start, done: start, refusal })?;
        nft.run(&batch).map_err(|rejected| {
            // All or nothing: no step of a refused batch was done.
            let done = if rejected.outcome == Outcome::Undone { start } else { end + 1 };
            Failed { at: rejected.owner, done, refusal: rejected.refusal }
        })?;
        self.linux.forget_flows(&std::mem::take(&mut self.queue.flows));
        Ok(())
    }

    fn flush_requests(&mut self) -> Result<(), Failed> {
        let Some(place) = self.queue.place.take() else { return Ok(()) };
        let requests = std::mem::take(&mut self.queue.requests);
        let owners = std::mem::take(&mut self.queue.owners);
        let at = self.at;
        let first = owners.first().copied().unwrap_or(at);
        let mut made = Vec::new();
        let socket = self.socket(place).map_err(|refusal| Failed { at: first, done: at, refusal })?;
        let result = socket.run(requests, |answer| made.extend(Link::read(answer)));
        for link in made {
            if let Some(peer) = self.peers.remove(&link.name) {
                self.indexes.insert((Place::Container, peer), link.peer);
            }
            self.indexes.insert((place, link.name), link.index);
        }
        result.map_err(|(number, refusal)| Failed {
            at: owners.get(number).copied().unwrap_or(first),
            done: at + 1,
            refusal,
        })
    }

    /// Collects a request; what was collected for elsewhere is sent first.
    pub(super) fn request(
        &mut self,
        place: Place,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Failed> {
        if !self.queue.batch.is_empty() || self.queue.place.is_some_and(|other| other != place) {
            self.flush()?;
        }
        self.queue.place = Some(place);
        self.queue.requests.push(netlink::request(message), flags);
        self.queue.owners.push(self.at);
        Ok(())
    }

    /// The batch to collect changes of the firewall in.
    pub(super) fn batch(&mut self) -> Result<(&mut Batch, TableName), Failed> {
        self.flush_requests()?;
        if self.queue.batch.is_empty() {
            self.queue.start = self.at;
        }
        Ok((&mut self.queue.batch, self.linux.table.clone()))
    }

    /// Notes that a published port changes with the batch in hand.
    pub(super) fn changed(&mut self, publication: &Publication, change: Change) {
        if conntrack::concerns(publication) {
            self.queue.flows.push((publication.clone(), change));
        }
    }

    /// The index of a link; asks the kernel where it is not known from its making.
    pub(super) fn index(&mut self, place: Place, name: &InterfaceName) -> Result<u32, Failed> {
        let key = (place, name.as_str().to_owned());
        if !self.indexes.contains_key(&key) {
            self.flush()?;
        }
        if let Some(index) = self.indexes.get(&key) {
            return Ok(*index);
        }
        let index = self.look_up(place, name).map_err(|refusal| self.failed(self.at, refusal))?;
        self.indexes.insert(key, index);
        Ok(index)
    }

    fn look_up(&mut self, place: Place, name: &InterfaceName) -> Result<u32, Refusal> {
        let found = link::find(self.socket(place)?, name)?;
        found
            .map(|link| link.index)
            .ok_or_else(|| Refusal::because(libc::ENODEV, format!("there is no link {name} {place}")))
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), Failed> {
        match step {
            Step::Create(resource) => self.create(resource),
            Step::Change { from, to } => self.change(from, to),
            Step::Remove(resource) => self.remove(resource),
        }
    }
}
