//! One agent for a run directory: who comes second finds the first. Never forks; the caller decides how to go to the
//! background.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    supervisor::Stay,
    wire::{self, Reply, Request},
};
use crate::{
    error::Error,
    store::{Lock, Store},
};

/// How long an agent that begins or leaves is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is when one wants to be the agent.
pub enum Turn {
    /// Nobody else is: this is the right to be.
    Mine(Lock),
    /// Another is, and answers.
    Taken,
}

/// Waits until this process may be the agent, or another is it.
///
/// One that stays takes the place of one that was started by the way.
///
/// # Errors
/// When the place is taken by one that stays too, or by one that does not answer.
pub fn turn(store: &Store, stay: Stay) -> Result<Turn, Error> {
    let begun = Instant::now();
    loop {
        if let Some(lock) = store.lock_agent()? {
            return Ok(Turn::Mine(lock));
        }
        match (ask(store, &Request::Status)?, stay) {
            (Some(Reply::Done(_)), Stay::WhileWanted | Stay::UntilDone) => return Ok(Turn::Taken),
            (Some(Reply::Done(status)), Stay::Always) => {
                if status["stays"] == Value::Bool(true) {
                    return Err(Error::agent(format!("it runs already, as process {}", status["pid"])));
                }
                ask(store, &Request::Stop)?;
            }
            // It begins, or it leaves.
            (None | Some(Reply::Leaving | Reply::Failed(_)), _) => {}
        }
        if begun.elapsed() > PATIENCE {
            return Err(Error::agent("another holds its lock and does not answer".to_owned()));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Asks the agent; `None` where there is none.
///
/// # Errors
/// When it does not answer as it should.
pub fn ask(store: &Store, request: &Request) -> Result<Option<Reply>, Error> {
    wire::ask(&store.agent_socket(), request).map_err(|error| Error::agent(error.to_string()))
}

/// Lets the agent act upon everything that is recorded; whether there is one.
///
/// # Errors
/// When it does not, and why.
pub fn sync(store: &Store) -> Result<bool, Error> {
    match ask(store, &Request::Sync)? {
        None => Ok(false),
        Some(Reply::Done(_) | Reply::Leaving) => Ok(true),
        Some(Reply::Failed(reason)) => Err(Error::agent(reason)),
    }
}
