//! The long-running parts of the agent. Each is a process of its own, with the capabilities that it needs and no
//! others: what one meets on the network can end that one only, and it is started again.
//!
//! To add a part: implement it in a module beside this one, and add it to [`PARTS`].

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    pin::Pin,
};

use rnetkit_drivers::Network;
use rustix::thread::CapabilitySet;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{confine, supervisor::Program, wire};
use crate::{config::Config, error::Error, store::Store};

/// Every part, in the order in which they are started.
pub static PARTS: [&Part; 2] = [&super::names::PART, &super::overlay::PART];

/// What the process of the part that answers names is called.
pub const RESOLVER: &str = "rnet-names";

/// A part, as the agent knows it.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// The capabilities that it keeps.
    pub needs: CapabilitySet,
    /// Whether a network needs it.
    pub is_wanted: fn(&Network) -> bool,
    /// What a network that needs it has to do without where it does not run.
    pub without: &'static str,
    /// Whether it is needed without any network.
    pub is_always: fn(&Config) -> bool,
    /// The part itself, in its own process; it ends when its requests do.
    pub run: fn(Inside) -> Running,
}

/// A part that runs.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// What a part has to work with.
pub struct Inside {
    /// The records.
    pub store: Store,
    /// The administrator's wishes.
    pub config: Config,
    /// This program, as whatever part.
    pub program: Program,
    /// What the agent asks.
    pub requests: Requests,
    /// Where the agent says what the host's resolvers are.
    pub host: UnixStream,
}

/// The capabilities that any part needs.
#[must_use]
pub fn needs_of_all() -> CapabilitySet {
    PARTS.iter().fold(CapabilitySet::empty(), |all, part| all | part.needs)
}

/// Whether any part is wanted for that network.
#[must_use]
pub fn is_wanted_for(network: &Network) -> bool {
    wanted_for(network).next().is_some()
}

/// What that network has to do without where no agent runs; nothing where it needs none.
#[must_use]
pub fn missed_by(network: &Network) -> String {
    wanted_for(network).map(|part| part.without).collect::<Vec<_>>().join(", and ")
}

fn wanted_for(network: &Network) -> impl Iterator<Item = &'static Part> {
    PARTS.into_iter().filter(|part| (part.is_wanted)(network))
}

/// The requests of the agent: [`Value`]s, each of which must be answered with one. The first is always
/// `{"do":"sync"}`, and answering it says that the part is ready. An answer `{"failed":"why"}` is told to who asked,
/// and the part goes on.
pub struct Requests {
    lines: BufReader<OwnedReadHalf>,
    answers: OwnedWriteHalf,
}

impl Requests {
    fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self { lines: BufReader::new(read), answers: write }
    }

    /// The next request; `None` when the agent wants no more, or is gone.
    ///
    /// Nothing is lost where the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let buffered = self.lines.fill_buf().await.ok()?;
            if buffered.is_empty() {
                return None;
            }
            // The agent writes a line at once, so a part of one is waited for without harm.
            let mut line = Vec::new();
            self.lines.read_until(b'\n', &mut line).await.ok()?;
            match serde_json::from_slice(&line) {
                Ok(value) => return Some(value),
                Err(error) => tracing::warn!("a request that makes no sense: {error}"),
            }
        }
    }

    /// Answers the last request.
    ///
    /// # Errors
    /// When the agent is gone.
    pub async fn answer(&mut self, answer: &Value) -> io::Result<()> {
        self.answers.write_all(&wire::line(answer)?).await
    }
}

/// Is the part of that name, in this process: gives up what it does not need, and serves until the agent that started
/// it ends. The agent is heard on standard input, and asked on standard output.
///
/// # Errors
/// When there is no such part, or it fails.
pub fn be(name: &str, store: Store, config: Config, program: Program) -> Result<(), Error> {
    let failed = |error: io::Error| Error::agent(format!("part {name}: {error}"));
    let part = PARTS
        .iter()
        .find(|part| part.name == name)
        .ok_or_else(|| Error::agent(format!("there is no part {}", crate::error::shown(name))))?;
    if let Ok(called) = std::ffi::CString::new(format!("rnet-{name}")) {
        let _ = rustix::thread::set_name(&called);
    }
    confine::bound(part.needs).map_err(failed)?;
    confine::keep(part.needs).map_err(failed)?;
    confine::no_new_privileges().map_err(failed)?;
    let runtime = super::runtime().map_err(failed)?;
    runtime.block_on(async {
        let requests = Requests::new(stream(rustix::stdio::stdin()).map_err(failed)?);
        let host = stream(rustix::stdio::stdout()).map_err(failed)?;
        (part.run)(Inside { store, config, program, requests, host }).await
    })
}

/// A stream that the agent has the other end of.
fn stream(end: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let end: OwnedFd = rustix::io::fcntl_dupfd_cloexec(end, 3)?;
    let stream = std::os::unix::net::UnixStream::from(end);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
