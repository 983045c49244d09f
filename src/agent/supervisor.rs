//! The agent itself: starts the parts that the networks need, starts again those that end, and answers on its socket.
//! Needs no capability, and touches neither the kernel's network nor a container.

use std::{
    cell::Cell,
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdStream, process::ExitStatusExt as _},
    },
    process::{ExitStatus, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, Notify, mpsc},
    task::{self, JoinHandle},
    time::{sleep, timeout},
};

use super::{
    confine,
    follow::{Depth, Follower},
    names::upstream,
    part::{self, PARTS, Part},
    wire::{self, LONGEST_LINE, Reply, Request},
};
use crate::{
    config::Config,
    error::Error,
    store::{Lock, Store},
};

/// How long a part may need for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may need for one request.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// A part that lives longer than this was not broken from the start.
const PROVEN: Duration = Duration::from_secs(10);

/// When the agent ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// When no network needs it.
    WhileWanted,
    /// When a network needed it, and none does any more.
    UntilDone,
    /// Never.
    Always,
}

/// How a part is started: the program, which is this one, and its words.
#[derive(Debug, Clone)]
pub struct Program {
    /// The words before the name of the part.
    pub words: Vec<std::ffi::OsString>,
}

/// Serves until it is told to end. `ready` is called when it can be asked.
///
/// # Errors
/// When it cannot begin: the socket cannot be made, or the records not be read.
pub fn serve(
    store: &Store,
    lock: Lock,
    stay: Stay,
    program: Program,
    config: Config,
    ready: impl FnOnce(),
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::agent(error.to_string());
    // Each part gives up by itself what only the others need, and that takes a capability too.
    let parts = part::needs_of_all() | rustix::thread::CapabilitySet::SETPCAP;
    confine::bound(parts).map_err(failed)?;
    confine::keep(rustix::thread::CapabilitySet::empty()).map_err(failed)?;
    let runtime = super::runtime().map_err(failed)?;
    let served = task::LocalSet::new().block_on(&runtime, async {
        let (ended, mut endings) = mpsc::unbounded_channel();
        let agent = Rc::new(Agent {
            store: store.clone(),
            stay,
            program,
            config,
            begun: Instant::now(),
            had_work: Cell::new(stay == Stay::WhileWanted),
            parts: Mutex::new(PARTS.iter().map(|part| Slot::of(part)).collect()),
            ended,
            stop: Notify::new(),
        });
        let mut follower = Follower::new(store, Depth::Networks)?;
        let listener = listen(store)?;
        let done = agent.look_again().await;
        ready();
        let result = if done { Ok(()) } else { agent.serve(&listener, &mut follower, &mut endings).await };
        store.remove_agent_socket()?;
        agent.end_parts().await;
        store.remove_agent_lock()?;
        result.map_err(failed)
    });
    drop(lock);
    served
}

/// The socket, which only this user may enter. The caller holds the agent's lock, so what is there is a dead agent's.
fn listen(store: &Store) -> Result<UnixListener, Error> {
    let path = store.agent_socket();
    store.remove_agent_socket()?;
    let failed = |error: io::Error| Error::store(&path, error);
    let (address, _folder) = wire::address(&path).map_err(failed)?;
    // A mask for the process, which has one thread: there is no moment at which others may enter.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(address);
    rustix::process::umask(before);
    listener.map_err(failed)
}

/// A part, and its process where it has one.
struct Slot {
    part: &'static Part,
    process: Option<Process>,
    /// How often it ended soon after its start, without a long life between.
    failures: u32,
    /// What was wrong last.
    trouble: Option<String>,
}

struct Process {
    pid: u32,
    begun: Instant,
    channel: BufReader<UnixStream>,
    watch: JoinHandle<()>,
}

/// The end of a part's process.
struct Ending {
    name: &'static str,
    pid: u32,
    status: Option<ExitStatus>,
}

struct Agent {
    store: Store,
    stay: Stay,
    program: Program,
    config: Config,
    begun: Instant,
    had_work: Cell<bool>,
    parts: Mutex<Vec<Slot>>,
    ended: mpsc::UnboundedSender<Ending>,
    stop: Notify,
}

impl Agent {
    async fn serve(
        self: &Rc<Self>,
        listener: &UnixListener,
        follower: &mut Follower,
        endings: &mut mpsc::UnboundedReceiver<Ending>,
    ) -> io::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let queue = follower.queue()?;
        loop {
            tokio::select! {
                client = listener.accept() => match client {
                    Ok((stream, _)) => drop(task::spawn_local(Rc::clone(self).attend(stream))),
                    Err(error) => {
                        tracing::warn!("cannot accept: {error}");
                        sleep(Duration::from_millis(10)).await;
                    }
                },
                readable = queue.readable() => {
                    readable?.clear_ready();
                    follower.changes()?;
                    if self.look_again().await {
                        return Ok(());
                    }
                }
                Some(ending) = endings.recv() => self.mourn(ending).await,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = self.stop.notified() => return Ok(()),
            }
        }
    }

    /// Acts upon what is recorded; whether nothing is left to do.
    async fn look_again(&self) -> bool {
        match self.sync().await {
            Ok(wanted) => !wanted && self.may_leave(),
            Err(reason) => {
                tracing::warn!("{reason}");
                false
            }
        }
    }

    fn may_leave(&self) -> bool {
        self.stay != Stay::Always && self.had_work.get()
    }

    /// Starts what is wanted, ends what is not, and lets the rest act upon what is recorded. Whether any is wanted.
    async fn sync(&self) -> Result<bool, String> {
        let mut slots = self.parts.lock().await;
        let networks = self.store.made_networks().map_err(|error| error.to_string())?;
        let mut trouble = Vec::new();
        let mut any = false;
        for slot in slots.iter_mut() {
            let wanted = |network| (slot.part.is_wanted)(network);
            if (slot.part.is_always)(&self.config) || networks.iter().any(wanted) {
                any = true;
                let synced = self.ask(slot, &json!(Request::Sync)).await;
                let reason = synced.map(|answer| answer["failed"].as_str().map(str::to_owned));
                let reason = reason.unwrap_or_else(Some);
                trouble.extend(reason.map(|reason| format!("{}: {reason}", slot.part.name)));
            } else {
                slot.end().await;
            }
        }
        if any {
            self.had_work.set(true);
        }
        if trouble.is_empty() { Ok(any) } else { Err(trouble.join("; ")) }
    }

    /// Asks a part, which is started first where it has no process.
    async fn ask(&self, slot: &mut Slot, request: &Value) -> Result<Value, String> {
        if slot.process.is_none() {
            slot.process = Some(self.start(slot.part).map_err(|error| format!("cannot start: {error}"))?);
            if *request != json!(Request::Sync) {
                slot.ask(&json!(Request::Sync)).await?;
            }
        }
        let answer = slot.ask(request).await;
        if let Err(reason) = &answer {
            slot.trouble = Some(reason.clone());
            slot.end().await;
        }
        answer
    }

    fn start(&self, part: &'static Part) -> io::Result<Process> {
        let (ours, theirs) = StdStream::pair()?;
        let (tells, asks) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        tells.set_nonblocking(true)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("rnet").args(&self.program.words).arg(part.name);
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(asks)))
            .current_dir("/");
        let child = command.kill_on_drop(true).spawn()?;
        let pid = child.id().unwrap_or(0);
        let channel = BufReader::new(UnixStream::from_std(ours)?);
        task::spawn_local(upstream::tell(UnixStream::from_std(tells)?));
        let watch = task::spawn_local(watch(part.name, pid, child, self.ended.clone()));
        Ok(Process { pid, begun: Instant::now(), channel, watch })
    }

    /// A part that ended though it is wanted is started again: at once the first time, and ever later while it keeps
    /// ending soon.
    async fn mourn(self: &Rc<Self>, ending: Ending) {
        let mut slots = self.parts.lock().await;
        let Some(slot) = slots.iter_mut().find(|slot| slot.part.name == ending.name) else { return };
        let Some(process) = slot.process.take_if(|process| process.pid == ending.pid) else { return };
        let how = how_it_ended(ending.status);
        tracing::error!("part {} ended: {how}", ending.name);
        slot.trouble = Some(how);
        slot.failures = if process.begun.elapsed() > PROVEN { 0 } else { slot.failures + 1 };
        let pause =
            Duration::from_millis(10 << slot.failures.min(9)).saturating_sub(Duration::from_millis(20));
        let agent = Rc::clone(self);
        task::spawn_local(async move {
            sleep(pause).await;
            agent.look_again().await;
        });
    }

    async fn end_parts(&self) {
        for slot in self.parts.lock().await.iter_mut() {
            slot.end().await;
        }
    }

    /// Answers a client until it has no more requests.
    async fn attend(self: Rc<Self>, stream: UnixStream) {
        if !stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid())) {
            return;
        }
        let mut stream = BufReader::new(stream);
        while let Ok(Some(line)) = timeout(CLIENT_PATIENCE, read_line(&mut stream)).await {
            let reply = match serde_json::from_slice(&line) {
                Ok(request) => self.reply(request).await,
                Err(error) => Reply::Failed(format!("no request: {error}")),
            };
            let Ok(text) = wire::line(&reply) else { return };
            let sent = timeout(CLIENT_PATIENCE, stream.get_mut().write_all(&text)).await;
            if reply == Reply::Leaving {
                self.stop.notify_one();
            }
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn reply(&self, request: Request) -> Reply {
        match request {
            Request::Ping => Reply::Done(Value::Null),
            Request::Status => Reply::Done(self.status().await),
            Request::Sync => match self.sync().await {
                Ok(wanted) if !wanted && self.may_leave() => self.leave(),
                Ok(_) => Reply::Done(Value::Null),
                Err(reason) => Reply::Failed(reason),
            },
            Request::Stop => self.leave(),
            Request::Ask { part, words } => {
                let mut slots = self.parts.lock().await;
                match slots.iter_mut().find(|slot| slot.part.name == part && slot.process.is_some()) {
                    Some(slot) => self.ask(slot, &words).await.map_or_else(Reply::Failed, Reply::Done),
                    None => Reply::Failed(format!("part {} does not run", crate::error::shown(&part))),
                }
            }
        }
    }

    /// Nobody finds it any more when it says that it leaves.
    fn leave(&self) -> Reply {
        match self.store.remove_agent_socket() {
            Ok(()) => Reply::Leaving,
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    async fn status(&self) -> Value {
        let mut parts = serde_json::Map::new();
        for slot in self.parts.lock().await.iter_mut() {
            let said = match slot.process {
                Some(_) => slot.ask(&json!(Request::Status)).await.unwrap_or_else(Value::from),
                None => Value::Null,
            };
            let pid = slot.process.as_ref().map(|process| process.pid);
            parts.insert(
                slot.part.name.to_owned(),
                json!({"pid": pid, "trouble": slot.trouble, "says": said}),
            );
        }
        json!({
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "stays": self.stay == Stay::Always,
            "seconds": self.begun.elapsed().as_secs(),
            "parts": parts,
        })
    }
}

/// The agent's own user, and root.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

impl Slot {
    fn of(part: &'static Part) -> Self {
        Self { part, process: None, failures: 0, trouble: None }
    }

    async fn ask(&mut self, request: &Value) -> Result<Value, String> {
        let Some(process) = &mut self.process else { return Err("it does not run".to_owned()) };
        let exchange = async {
            let text = wire::line(request).map_err(|error| error.to_string())?;
            let written = process.channel.get_mut().write_all(&text).await;
            written.map_err(|error| error.to_string())?;
            let line = read_line(&mut process.channel).await.ok_or("it ended without an answer")?;
            serde_json::from_slice(&line).map_err(|error| error.to_string())
        };
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    /// Ends its process: it ends by itself when nobody asks it any more, or it is killed.
    async fn end(&mut self) {
        let Some(process) = self.process.take() else { return };
        drop(process.channel);
        let mut watch = process.watch;
        if timeout(PATIENCE, &mut watch).await.is_err() {
            watch.abort();
        }
    }
}

async fn watch(name: &'static str, pid: u32, mut child: Child, ended: mpsc::UnboundedSender<Ending>) {
    let status = child.wait().await.ok();
    // Nobody hears it where the agent itself ends.
    let _ = ended.send(Ending { name, pid, status });
}

/// In words; a call that was on no list is said to be one.
fn how_it_ended(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "its end was not seen".to_owned() };
    if status.signal() == Some(libc::SIGSYS) {
        return "it made a system call that it may not make, and was killed (SIGSYS)".to_owned();
    }
    status.to_string()
}

/// One line, or nothing where there is none or it is too long.
async fn read_line(stream: &mut BufReader<UnixStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    stream.take(LONGEST_LINE as u64).read_until(b'\n', &mut line).await.ok()?;
    (line.last() == Some(&b'\n')).then_some(line)
}
