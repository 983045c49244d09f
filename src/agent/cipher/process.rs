//! The process that encrypts: begun by the agent, and left alone by its end. It ends when nothing is wanted of it any
//! more, or when this host is to be another than the one it began as; then the agent begins the next.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery},
    thread::CapabilitySet,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    super::confine,
    peers::{LONGEST, Peers, Ways},
};
use crate::{
    cipher::{DEVICE, Wanted},
    error::Error,
    kernel,
    store::Store,
};

/// What the process is called among the parts of the agent, though it is none.
pub const NAME: &str = "cipher";
/// How often sessions are looked after.
const TICK: Duration = Duration::from_millis(250);
/// How many bytes wait for the process, and leave it, at most.
const BUFFER: usize = 4 << 20;
/// What is said on standard output when packets pass.
pub const READY: &str = "ready";

/// Is the process. Says `ready` on standard output when packets pass.
///
/// # Errors
/// When another is, when nothing is wanted, or when device or socket cannot be had.
pub fn be(store: &Store) -> Result<(), Error> {
    let _ = rustix::thread::set_name(c"rnet-cipher");
    // The agent's terminal is not this process's.
    let _ = rustix::process::setsid();
    let Some(_lock) = store.lock_cipher()? else {
        return Err(Error::agent("another process encrypts already".to_owned()));
    };
    let queue = follow(store).map_err(|errno| Error::store(store.run_dir(), errno))?;
    let Some(wanted) = store.cipher()? else {
        return Err(Error::agent("nothing is to be encrypted".to_owned()));
    };
    let own = wanted.own.clone();
    let failed = |refusal| Error::kernel("encrypt between hosts", refusal);
    let taken = |error: io::Error| Error::agent(format!("listen on {}/udp: {error}", own.at));
    let socket = socket(own.at).map_err(taken)?;
    let device = kernel::open_tun(&own).map_err(failed)?;
    let keep = |set| confine::keep(set).and_then(|()| confine::no_new_privileges());
    keep(CapabilitySet::empty()).map_err(|error| Error::agent(error.to_string()))?;
    let line = Arc::new(Line { device, socket });
    let peers = Arc::new(Peers::new(store.private_key()?, own.address));
    begin({
        let (line, peers) = (Arc::clone(&line), Arc::clone(&peers));
        move || line.leave(&peers)
    })?;
    begin({
        let (line, peers) = (Arc::clone(&line), Arc::clone(&peers));
        move || line.arrive(&peers)
    })?;
    peers.set(&wanted, &*line);
    say_ready().map_err(|error| Error::agent(error.to_string()))?;
    look_after(store, &queue, wanted, &peers, &line)
}

/// Where datagrams of WireGuard are heard. They may be cut up on their way, as the kernel's own WireGuard has it: what is
/// inside was already told how long it may be.
fn socket(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    // As much as the kernel gives.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    match at {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT)?,
    }
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// From now on nobody listens: what the agent's own streams lead to is not kept open by a process that outlives it.
fn say_ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}").and_then(|()| stdout.flush())?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn begin(work: impl FnOnce() -> io::Error + Send + 'static) -> Result<(), Error> {
    let run = move || {
        let error = work();
        // Without one of its halves the process is of no use: the next one has both.
        tracing::error!("{DEVICE}: {error}");
        std::process::exit(1);
    };
    let begun = thread::Builder::new().stack_size(512 * 1024).spawn(run);
    begun.map(drop).map_err(|error| Error::agent(error.to_string()))
}

/// Follows the directory in which the record is.
fn follow(store: &Store) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let events = WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
    inotify::add_watch(&queue, store.run_dir(), events)?;
    Ok(queue)
}

/// Sessions, as time passes; and what the agent writes.
fn look_after(
    store: &Store,
    queue: &rustix::fd::OwnedFd,
    mut known: Wanted,
    peers: &Peers,
    line: &Line,
) -> Result<(), Error> {
    let mut second = Instant::now();
    loop {
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        let mut ready = [PollFd::new(queue, PollFlags::IN)];
        let some = poll(&mut ready, Some(&timeout)).is_ok_and(|count| count > 0);
        if some {
            drain(queue);
            match store.cipher() {
                Ok(Some(wanted)) if wanted.own != known.own => return Ok(()),
                Ok(Some(wanted)) if wanted != known => {
                    peers.set(&wanted, line);
                    known = wanted;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        peers.tick(line);
        if second.elapsed() >= Duration::from_secs(1) {
            second = Instant::now();
            peers.second();
        }
    }
}

fn drain(queue: &rustix::fd::OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(queue, &mut buffer);
    while reader.next().is_ok() {}
}

/// The device and the socket.
struct Line {
    device: File,
    socket: UdpSocket,
}

impl Line {
    /// Packets of this host, until that fails.
    fn leave(&self, peers: &Peers) -> io::Error {
        let (mut packet, mut room) = (vec![0; LONGEST], vec![0; LONGEST]);
        loop {
            match (&self.device).read(&mut packet) {
                Ok(length) => peers.leave(&packet[..length], &mut room, self),
                Err(error) if is_passing(&error) => {}
                Err(error) => return error,
            }
        }
    }

    /// Datagrams of others, until that fails.
    fn arrive(&self, peers: &Peers) -> io::Error {
        let (mut datagram, mut room) = (vec![0; LONGEST], vec![0; LONGEST]);
        loop {
            match self.socket.recv_from(&mut datagram) {
                Ok((length, from)) => peers.arrive(from.ip(), &datagram[..length], &mut room, self),
                Err(error) if is_passing(&error) => {}
                Err(error) => return error,
            }
        }
    }
}

/// One packet is lost, and the next may pass.
fn is_passing(error: &io::Error) -> bool {
    let passing = [
        libc::EINTR,
        libc::EAGAIN,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINVAL,
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

impl Ways for Line {
    fn to_host(&self, at: SocketAddr, datagram: &[u8]) {
        if let Err(error) = self.socket.send_to(datagram, at) {
            tracing::debug!("{at}: {error}");
        }
    }

    fn to_device(&self, packet: &[u8]) {
        match (&self.device).write(packet) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            // Somebody took the device down: another process has another.
            Err(error) => {
                tracing::error!("{DEVICE}: {error}");
                std::process::exit(1);
            }
        }
    }
}
