//! A store in memory, for one process: hosts of a simulation share it. It can fail as a real one does: before a
//! transaction, after it, between.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::store::{Changes, Do, Entry, Event, If, Lease, Listing, Store, Transaction, Trouble, Watch};

#[derive(Default)]
struct State {
    revision: i64,
    keys: BTreeMap<String, (Entry, Option<Lease>)>,
    /// Every change since `compacted`, with its revision.
    history: Vec<(i64, Event)>,
    compacted: i64,
    leases: Vec<Lease>,
    next_lease: Lease,
}

/// What the next transaction meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not run.
    Before,
    /// It is run, and nobody hears of it.
    After,
}

/// The store. Clones are the same store.
#[derive(Clone, Default)]
pub struct Memory {
    state: Rc<RefCell<State>>,
    /// What the next transaction meets.
    pub fault: Rc<Cell<Option<Fault>>>,
    /// Nobody reaches the store.
    pub away: Rc<Cell<bool>>,
}

impl Memory {
    /// A lease ends, and all that is on it goes.
    pub fn expire(&self, lease: Lease) {
        let mut state = self.state.borrow_mut();
        state.leases.retain(|other| *other != lease);
        let gone: Vec<String> =
            state.keys.iter().filter(|(_, (_, on))| *on == Some(lease)).map(|(key, _)| key.clone()).collect();
        if !gone.is_empty() {
            state.revision += 1;
            gone.iter().for_each(|key| state.delete(key));
        }
    }

    /// All leases that there are.
    #[must_use]
    pub fn leases(&self) -> Vec<Lease> {
        self.state.borrow().leases.clone()
    }

    /// Forgets what changed until now.
    pub fn compact(&self) {
        let mut state = self.state.borrow_mut();
        state.history.clear();
        state.compacted = state.revision;
    }

    /// Writes anything, as somebody with the store's password could.
    pub fn poison(&self, key: &str, value: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.revision += 1;
        state.put(key, value, None);
    }

    /// Every key, for comparison.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.state.borrow().keys.keys().cloned().collect()
    }

    fn reached(&self) -> Result<(), Trouble> {
        if self.away.get() { Err(Trouble::Unreachable("it is away".to_owned())) } else { Ok(()) }
    }
}

impl State {
    fn holds(&self, given: &If) -> bool {
        let entry = |key: &String| self.keys.get(key);
        match given {
            If::Absent(key) => entry(key).is_none(),
            If::Present(key) => entry(key).is_some(),
            If::Changed(key, revision) => entry(key).map_or(0, |(entry, _)| entry.changed) == *revision,
            If::Is(key, value) => entry(key).is_some_and(|(entry, _)| entry.value == *value),
            If::On(key, lease) => entry(key).is_some_and(|(_, on)| *on == Some(*lease)),
            If::Empty(prefix) => !self.keys.keys().any(|key| key.starts_with(prefix)),
        }
    }

    fn put(&mut self, key: &str, value: &[u8], lease: Option<Lease>) {
        let entry = Entry { key: key.to_owned(), value: value.to_vec(), changed: self.revision };
        self.history.push((self.revision, Event::Put(entry.clone())));
        self.keys.insert(key.to_owned(), (entry, lease));
    }

    fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.history.push((self.revision, Event::Delete(key.to_owned())));
        }
    }
}

impl Store for Memory {
    type Watch = Changed;

    async fn run(&self, transaction: &Transaction) -> Result<bool, Trouble> {
        self.reached()?;
        let fault = self.fault.take();
        if fault == Some(Fault::Before) {
            return Err(Trouble::Unknown("refused by the test".to_owned()));
        }
        let mut state = self.state.borrow_mut();
        let lost = |op: &Do| matches!(op, Do::Put(_, _, Some(lease)) if !state.leases.contains(lease));
        if transaction.then.iter().any(lost) {
            return Err(Trouble::Refused("requested lease not found".to_owned()));
        }
        let holds = transaction.given.iter().all(|given| state.holds(given));
        if holds {
            state.revision += 1;
            for op in &transaction.then {
                match op {
                    Do::Put(key, value, lease) => state.put(key, value, *lease),
                    Do::Delete(key) => state.delete(key),
                    Do::DeleteAll(prefix) => {
                        let all: Vec<String> =
                            state.keys.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
                        all.iter().for_each(|key| state.delete(key));
                    }
                }
            }
        }
        match fault {
            Some(Fault::After) => Err(Trouble::Unknown("refused by the test".to_owned())),
            Some(Fault::Before) | None => Ok(holds),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Trouble> {
        self.reached()?;
        let state = self.state.borrow();
        let own = state.keys.values().filter(|(entry, _)| entry.key.starts_with(prefix));
        Ok(Listing { revision: state.revision, entries: own.map(|(entry, _)| entry.clone()).collect() })
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<Changed, Trouble> {
        self.reached()?;
        Ok(Changed { store: self.clone(), prefix: prefix.to_owned(), next: from })
    }

    async fn grant(&self, _: Duration) -> Result<Lease, Trouble> {
        self.reached()?;
        let mut state = self.state.borrow_mut();
        state.next_lease += 1;
        let lease = state.next_lease;
        state.leases.push(lease);
        Ok(lease)
    }

    async fn keep(&self, lease: Lease) -> Result<bool, Trouble> {
        self.reached()?;
        Ok(self.state.borrow().leases.contains(&lease))
    }
}

/// Tells of changes to a store in memory; it is never woken, so whoever waits looks again.
pub struct Changed {
    store: Memory,
    prefix: String,
    next: i64,
}

impl Watch for Changed {
    async fn next(&mut self) -> Result<Changes, Trouble> {
        std::future::poll_fn(|_| match self.look() {
            Ok(changes) if changes.events.is_empty() => Poll::Pending,
            result => Poll::Ready(result),
        })
        .await
    }
}

impl Changed {
    fn look(&mut self) -> Result<Changes, Trouble> {
        self.store.reached()?;
        let state = self.store.state.borrow();
        if self.next <= state.compacted {
            return Err(Trouble::Compacted);
        }
        let own = |event: &Event| match event {
            Event::Put(entry) => entry.key.starts_with(&self.prefix),
            Event::Delete(key) => key.starts_with(&self.prefix),
        };
        let new = state.history.iter().filter(|(revision, event)| *revision >= self.next && own(event));
        let events = new.map(|(_, event)| event.clone()).collect();
        self.next = state.revision + 1;
        Ok(Changes { revision: state.revision, events })
    }
}

/// Runs what a store in memory never keeps waiting; `None` where it waits for a change.
pub fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
