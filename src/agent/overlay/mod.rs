//! The part of the agent for networks that span hosts: it follows the store that they share, places what other hosts
//! have in the kernel, and tells them what is here. It may end at any time: nothing changes in the kernel, and the next
//! one finds out what happened meanwhile.
//!
//! Of one event: the host is believed, its endpoint is placed behind the tunnel, and announced last; what goes, goes in
//! reverse. An endpoint of this host is told to others when it works.

mod answers;
mod belief;
mod cipher;
mod client;
mod core;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod simulation;

use std::time::Duration;

pub use cipher::{Encrypts, Unable};
pub use client::{Client, Seen};
pub use core::Core;
use rustix::thread::CapabilitySet;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::{
    follow::{Depth, Follower},
    part::{Inside, Part, Running},
    supervisor::Program,
};
use crate::{
    cluster::{
        self, Host, Keys,
        address::{Address, Credentials, User},
        etcd::Etcd,
        operations::{Cluster, Refused},
        store::Trouble,
        tls::{Tls, secret},
    },
    config::Config,
    error::Error,
    kernel::{Deletion, Kernel, Linux},
    store::Store,
    verbs::Rnet,
};

/// The part's name.
pub const NAME: &str = "overlay";

/// As the agent knows it. It is always wanted where there is a store: networks come from other hosts.
pub static PART: Part = Part {
    name: NAME,
    needs: CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_ADMIN).union(CapabilitySet::NET_RAW),
    is_wanted: cluster::is_shared,
    without: "containers of other hosts are not reached",
    is_always: |config| config.store.is_some(),
    run: |inside| -> Running { Box::pin(run(inside)) },
};

/// How long a question may take.
const PATIENCE: Duration = Duration::from_millis(2850);
/// How often a host is heard of; a third of the time that it counts as alive.
const BEAT: Duration = Duration::from_secs(3);
/// How often everything that was placed is looked at again.
const LOOK: u32 = 10;
/// How soon after its failure the store is tried again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

async fn run(mut inside: Inside) -> Result<(), Error> {
    let mut core = match core_of(&inside.store, &inside.config, inside.program.clone()) {
        Ok(core) => core,
        Err(error) => return refuse_all(&mut inside, &error).await,
    };
    if let Err(refused) = core.begin().await {
        note(&mut core, &refused);
    }
    let mut follower = Follower::new(&inside.store, Depth::Endpoints)?;
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tidy = interval(Duration::from_millis(200));
    tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = 0u32;
    let mut pause = PAUSES[0];
    let mut again = Instant::now();
    let mut first = true;
    loop {
        let failed = |error: std::io::Error| Error::agent(error.to_string());
        let queue = follower.queue().map_err(failed)?;
        tokio::select! {
            request = inside.requests.next() => {
                let Some(request) = request else { return Ok(()) };
                let answer = timeout(PATIENCE, core.answer(&request)).await;
                let answer = answer.unwrap_or_else(|_| {
                    core.give_up(&request);
                    answers::late(&request)
                });
                inside.requests.answer(&answer).await.map_err(failed)?;
            }
            followed = async { sleep_until(again).await; core.follow.next(&core.cluster.store).await } => match followed {
                Ok(differences) => {
                    core.take(differences);
                    pause = PAUSES[0];
                    if std::mem::take(&mut first) {
                        let settled = match core.settle().await { Ok(()) => core.sweep().await, refused => refused };
                        settled.unwrap_or_else(|refused| note(&mut core, &refused));
                    }
                }
                Err(trouble) => {
                    core.lost(&trouble);
                    again = Instant::now() + pause;
                    pause = (pause * 2).min(PAUSES[1]);
                    first = true;
                }
            },
            readable = queue.readable() => {
                readable.map_err(failed)?.clear_ready();
                if !follower.changes().map_err(failed)?.is_empty()
                    && let Err(refused) = core.settle().await
                {
                    note(&mut core, &refused);
                }
            }
            _ = tidy.tick() => core.tidy(),
            _ = beat.tick() => {
                beats = beats.wrapping_add(1);
                core.encrypt();
                if beats.is_multiple_of(LOOK) {
                    core.look_again();
                }
                // A store that does not answer is asked once: whoever asks meanwhile waits for that.
                let swept = match core.begin().await {
                    Ok(()) if beats.is_multiple_of(LOOK) || core.has_given_up() => core.sweep().await,
                    begun => begun,
                };
                swept.unwrap_or_else(|refused| note(&mut core, &refused));
            }
        }
    }
}

fn note<S: cluster::store::Store, K: Kernel>(core: &mut Core<S, K>, refused: &Refused) {
    match refused {
        Refused::Trouble(trouble) => core.lost(trouble),
        Refused::No(error) => tracing::warn!("{error}"),
        Refused::Fenced => core.lost(&Trouble::Refused("this host was removed from the cluster".to_owned())),
    }
}

/// What cannot begin says why, to whoever asks.
async fn refuse_all(inside: &mut Inside, error: &Error) -> Result<(), Error> {
    tracing::error!("{error}");
    while let Some(request) = inside.requests.next().await {
        let answer = match request["do"].as_str() {
            Some("sync" | "status") => json!({"trouble": error.to_string()}),
            _ => json!({"no": error.to_string()}),
        };
        inside.requests.answer(&answer).await.map_err(|error| Error::agent(error.to_string()))?;
    }
    Ok(())
}

fn core_of(store: &Store, config: &Config, program: Program) -> Result<Core<Etcd, Linux>, Error> {
    let missing =
        || Error::Cluster { reason: "no store is named: store = \"etcd://...\" in config.toml".to_owned() };
    let address: Address = config.store.as_ref().ok_or_else(missing)?.parse()?;
    let mut rnet = Rnet::open_in(store.clone(), Deletion::Wait)?;
    let underlay = rnet
        .kernel()
        .underlay(config.host_address)
        .map_err(|refusal| Error::kernel("find out how other hosts reach this one", refusal))?;
    let name = config.host_name.clone().unwrap_or_else(own_name);
    let id = rnet.identity()?.host;
    let cipher = cipher::at_hand(store, program);
    let key = match cipher.probe() {
        Ok(()) => Some(store.private_key()?.public()),
        Err(_) => None,
    };
    let me =
        Host { id, name, address: underlay.address, mtu: underlay.mtu, generation: 1, fenced: false, key };
    let keys = Keys::below(&address.prefix);
    let credentials = credentials(&address, config)?;
    Ok(Core::new(Cluster::new(Etcd::new(address, credentials), keys, me), rnet, cipher))
}

/// What the administrator's files say, checked before anything is sent.
fn credentials(address: &Address, config: &Config) -> Result<Credentials, Error> {
    let refuse = |reason: &str| Err(Error::Cluster { reason: format!("{address}: {reason}") });
    let tls = match (&config.store_ca, &config.store_cert, &config.store_key) {
        (None, None, None) if !address.secure => None,
        _ if !address.secure => {
            return refuse("store-ca, store-cert and store-key are for a store at etcds://");
        }
        (None, ..) => return refuse("TLS needs the certificate of the store's authority: store-ca"),
        (_, Some(_), None) | (_, None, Some(_)) => {
            return refuse("store-cert and store-key go together");
        }
        (Some(ca), cert, key) => Some(Tls { ca: ca.clone(), own: cert.clone().zip(key.clone()) }),
    };
    if let Some(Err(reason)) = tls.as_ref().map(Tls::config) {
        return refuse(&reason);
    }
    let user = config.store_password_file.as_deref().map(user).transpose()?;
    if user.is_some() && !address.secure {
        tracing::warn!("{address}: the password is sent in clear; etcds:// does not");
    }
    Ok(Credentials { tls, user })
}

/// The first line of a file that only its owner may read: `USER:PASSWORD`.
fn user(path: &std::path::Path) -> Result<User, Error> {
    let text = secret(path).map_err(|error| Error::store(path, error))?;
    let line = text.lines().next().unwrap_or_default();
    let (name, password) = line.split_once(':').ok_or_else(|| Error::Config {
        path: path.to_owned(),
        reason: "its first line must be USER:PASSWORD".to_owned(),
    })?;
    Ok(User { name: name.to_owned(), password: password.to_owned() })
}

fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
