//! The verbs' side of the part: each question is one line to the agent. Starts nothing.

use std::net::IpAddr;

use rnetkit_drivers::{Id, Network};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::NAME;
use crate::{
    agent::{
        start,
        wire::{Reply, Request},
    },
    cluster::Host,
    error::Error,
    store::Store,
    verbs::Shared,
};

/// Asks the agent of this host.
pub struct Client {
    ask: Box<Ask>,
}

/// A question to the part, and what it answers.
type Ask = dyn Fn(&Value) -> Result<Value, Error>;

/// A host of the cluster, and whether it was heard of lately.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// The host.
    #[serde(flatten)]
    pub host: Host,
    /// It was heard of lately.
    pub alive: bool,
    /// It is this one.
    pub here: bool,
    /// How many endpoints it has.
    pub endpoints: usize,
}

impl Client {
    /// Of the agent of these records.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self::asking(move |words| ask(&store, words))
    }

    /// Of an agent that is asked in that way.
    pub(super) fn asking(ask: impl Fn(&Value) -> Result<Value, Error> + 'static) -> Self {
        Self { ask: Box::new(ask) }
    }

    fn ask(&self, words: Value) -> Result<Value, Error> {
        let answer = (self.ask)(&words)?;
        match answer.get("no").and_then(Value::as_str) {
            Some(reason) => Err(Error::Cluster { reason: reason.to_owned() }),
            None => Ok(answer["ok"].clone()),
        }
    }

    fn read<T: DeserializeOwned>(&self, words: Value) -> Result<T, Error> {
        let answer = self.ask(words)?;
        serde_json::from_value(answer).map_err(|error| Error::agent(crate::error::shown(&error.to_string())))
    }

    /// The hosts of the cluster.
    ///
    /// # Errors
    /// When the agent does not know.
    pub fn hosts(&self) -> Result<Vec<Seen>, Error> {
        self.read(json!({"do": "hosts"}))
    }

    /// Removes a host that is gone for good, and gives back what it had.
    ///
    /// # Errors
    /// When there is none, or the store does not answer.
    pub fn fence(&self, host: &Id) -> Result<(), Error> {
        self.ask(json!({"do": "fence", "host": host})).map(drop)
    }
}

/// One line there, one back.
fn ask(store: &Store, words: &Value) -> Result<Value, Error> {
    let request = Request::Ask { part: NAME.to_owned(), words: words.clone() };
    let none = "networks that span hosts need the agent, and none runs: rnet agent --store etcd://HOST:PORT \
                (or hosts named by hand: -o peers=HOST=RANGE,...)";
    match start::ask(store, &request)? {
        Some(Reply::Done(answer)) => Ok(answer),
        Some(Reply::Failed(reason)) if !reason.ends_with(" does not run") => Err(Error::Cluster { reason }),
        Some(Reply::Failed(_) | Reply::Leaving) | None => Err(Error::Cluster { reason: none.to_owned() }),
    }
}

impl Shared for Client {
    fn create(&mut self, network: &Network) -> Result<Network, Error> {
        self.read(json!({"do": "create", "network": network}))
    }

    fn remove(&mut self, network: &Network) -> Result<(), Error> {
        self.ask(json!({"do": "remove", "network": network.id})).map(drop)
    }

    fn reserve(
        &mut self,
        network: &Network,
        endpoint: &Id,
        name: &str,
        asked: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Error> {
        self.read(json!({
            "do": "reserve", "network": network.id, "endpoint": endpoint, "name": name, "asked": asked,
        }))
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.ask(json!({"do": "settle"})).map(drop)
    }
}
