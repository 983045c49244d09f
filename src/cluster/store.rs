//! What is needed of a store: transactions, lists, leases, and to be told of changes. Knows nothing of networks.

use std::{fmt, time::Duration};

/// The id of a lease.
pub type Lease = i64;

/// Something in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of the store in which it was last changed.
    pub changed: i64,
}

/// What a transaction relies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum If {
    /// There is no such key.
    Absent(String),
    /// There is one.
    Present(String),
    /// It was last changed in this revision; 0 where there is none.
    Changed(String, i64),
    /// It has this value.
    Is(String, Vec<u8>),
    /// It is on this lease.
    On(String, Lease),
    /// There is no key that begins so.
    Empty(String),
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Writes a value, on a lease where one is given.
    Put(String, Vec<u8>, Option<Lease>),
    /// Removes a key.
    Delete(String),
    /// Removes all keys that begin so.
    DeleteAll(String),
}

/// All or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must be so.
    pub given: Vec<If>,
    /// What is done then.
    pub then: Vec<Do>,
}

/// A list, all of it as it was in one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The revision.
    pub revision: i64,
    /// What there was, by key.
    pub entries: Vec<Entry>,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It has this value now.
    Put(Entry),
    /// It is gone.
    Delete(String),
}

/// Changes that came together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The last revision that is in.
    pub revision: i64,
    /// The changes, in order.
    pub events: Vec<Event>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing was done: the store cannot be reached.
    Unreachable(String),
    /// Nobody knows whether it was done: the answer did not come.
    Unknown(String),
    /// The store refused.
    Refused(String),
    /// What changed since then is no longer known: all must be listed again.
    Compacted,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "the store cannot be reached: {reason}"),
            Self::Unknown(reason) => write!(f, "the store did not answer: {reason}"),
            Self::Refused(reason) => write!(f, "the store refused: {reason}"),
            Self::Compacted => f.write_str("the store forgot what changed"),
        }
    }
}

impl std::error::Error for Trouble {}

/// A store that all hosts reach, with one order of changes for all.
pub trait Store {
    /// What tells of changes.
    type Watch: Watch;

    /// Runs a transaction; whether what it relied on was so.
    ///
    /// # Errors
    /// Of [`Trouble`], [`Unknown`](Trouble::Unknown) means that it may have been run.
    fn run(&self, transaction: &Transaction) -> impl Future<Output = Result<bool, Trouble>>;

    /// All keys that begin so.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Listing, Trouble>>;

    /// Tells of changes to keys that begin so, from that revision on.
    ///
    /// # Errors
    /// When the store cannot be reached.
    fn watch(&self, prefix: &str, from: i64) -> impl Future<Output = Result<Self::Watch, Trouble>>;

    /// A lease for that long.
    ///
    /// # Errors
    /// When the store gives none.
    fn grant(&self, time: Duration) -> impl Future<Output = Result<Lease, Trouble>>;

    /// Keeps a lease; whether it was still there.
    ///
    /// # Errors
    /// When the store cannot be reached.
    fn keep(&self, lease: Lease) -> impl Future<Output = Result<bool, Trouble>>;
}

/// Tells of changes.
pub trait Watch {
    /// The next changes; waits for them. Nothing is lost where the future is dropped before it is ready.
    ///
    /// # Errors
    /// When the store cannot be heard any more, or forgot what changed.
    fn next(&mut self) -> impl Future<Output = Result<Changes, Trouble>>;
}
