//! Names of containers, for containers: a resolver at each network's gateway address, heard on that network's bridge
//! only. It never changes anything on the host.
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | who is called what; pure |
//! | `answer.rs` | from a question to its answer; pure |
//! | `known.rs` | the table, kept as the records are |
//! | `listen.rs` | the sockets of each network |
//! | `serve.rs` | questions in, answers out |
//! | `forward.rs`, `cache.rs`, `upstream.rs` | what others are asked |
//! | `cage.rs` | what this process may still do |

pub mod answer;
mod cache;
mod cage;
mod forward;
mod known;
mod listen;
mod serve;
pub mod table;
pub mod upstream;

use std::{rc::Rc, time::Duration};

use rnetkit_drivers::Network;
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};

use self::{
    cage::Cage, forward::Forwarder, known::Records, listen::Listeners, serve::Resolver, upstream::Upstream,
};
use super::{
    follow::{Depth, Follower},
    part::{Inside, Part, Running},
    wire::{Reply, Request},
};
use crate::error::Error;

/// The part of the agent.
pub static PART: Part = Part {
    name: "names",
    needs: CapabilitySet::NET_BIND_SERVICE,
    is_wanted,
    without: "containers are not found by name",
    is_always: |_| false,
    run: |inside| run(inside),
};

/// How soon an address that could not be listened on is tried again, at first and at most: the part before this one may
/// not have ended yet, and what else listens there may stay.
const AGAIN: [Duration; 2] = [Duration::from_millis(2), Duration::from_secs(1)];
/// How long who waits for the part to be ready waits for such an address.
const PATIENCE: Duration = Duration::from_millis(300);

fn is_wanted(network: &Network) -> bool {
    rnetkit_drivers::driver(&network.driver)
        .is_some_and(|driver| driver.names(network).is_ok_and(|names| names.is_some()))
}

fn run(inside: Inside) -> Running {
    Box::pin(async move { LocalSet::new().run_until(serve(inside)).await })
}

async fn serve(mut inside: Inside) -> Result<(), Error> {
    raise_open_files();
    let resolver = Rc::new(Resolver::new(
        Records::open(&inside.store)?,
        Rc::new(Forwarder::new(Upstream::of(inside.host))),
    ));
    let mut listeners = Listeners::default();
    // Only networks wake this process; endpoints are looked at when somebody asks.
    let mut networks = Follower::new(&inside.store, Depth::Networks)?;
    let failed = |error: std::io::Error| Error::agent(format!("names: {error}"));
    let queue = networks.queue().map_err(failed)?;
    // What the process ever opens anew is below that folder; everything else is open by now.
    let cage = cage::lock(&inside.store.networks_dir()?);
    if !cage.is_whole() {
        tracing::warn!("names: landlock {}, seccomp {}", cage.landlock, cage.seccomp);
    }
    let mut again = AGAIN[0];
    loop {
        tokio::select! {
            request = inside.requests.next() => {
                let Some(request) = request else { return Ok(()) };
                follow_soon(&mut listeners, &resolver).await;
                let answer = reply(&request, &resolver, &listeners, &cage);
                inside.requests.answer(&answer).await.map_err(failed)?;
            }
            readable = queue.readable() => {
                readable.map_err(failed)?.clear_ready();
                networks.changes().map_err(failed)?;
                listeners.follow(&resolver);
            }
            () = sleep(again), if !listeners.trouble().is_empty() => {
                listeners.follow(&resolver);
                again = (again * 2).min(AGAIN[1]);
            }
        }
        if listeners.trouble().is_empty() {
            again = AGAIN[0];
        }
    }
}

/// Opens what the networks need now, and waits a moment for what another still holds.
async fn follow_soon(listeners: &mut Listeners, resolver: &Rc<Resolver>) {
    let end = Instant::now() + PATIENCE;
    listeners.follow(resolver);
    while !listeners.trouble().is_empty() && Instant::now() < end {
        sleep(AGAIN[0]).await;
        listeners.follow(resolver);
    }
}

fn reply(request: &Value, resolver: &Resolver, listeners: &Listeners, cage: &Cage) -> Value {
    match serde_json::from_value(request.clone()) {
        Ok(Request::Sync) if !listeners.trouble().is_empty() => {
            json!(Reply::Failed(listeners.trouble().join("; ")))
        }
        Ok(Request::Sync | Request::Ping) => json!(Reply::Done(Value::Null)),
        Ok(Request::Status) => resolver.status(&listeners.trouble(), cage),
        Ok(Request::Stop | Request::Ask { .. }) | Err(_) => json!(Reply::Failed("no request".to_owned())),
    }
}

/// A thousand questions that wait for others need a thousand sockets.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
