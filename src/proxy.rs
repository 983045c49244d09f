//! The explicit proxy for the host's own loopback: `rnet proxy`, run by whoever wants it. Copies bytes, or datagrams,
//! between an address of the host and a container; makes, records and decides nothing.
//!
//! It is for hosts whose firewall drops what connection tracking does not know, where the kernel's rewriting cannot work.
//! Containers see the host's address on their bridge, as they do without it.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::verbs::{Carrier, Proxied};

/// The most connections of a port, or clients of a UDP port, at the same time.
const MOST: usize = 1024;
/// How long a UDP client that gets no answer any more is remembered: as long as the kernel's connection tracking keeps
/// a flow that went both ways (`nf_conntrack_udp_timeout_stream`).
const SILENCE: Duration = Duration::from_secs(120);
/// No datagram is longer, in bytes.
const DATAGRAM: usize = 65_535;
/// How long a container may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The stack of a thread that copies: it calls little.
const STACK: usize = 64 * 1024;

/// An address of the host that nobody else has now.
#[derive(Debug)]
pub enum Listener {
    /// For connections.
    Tcp(TcpListener),
    /// For datagrams.
    Udp(UdpSocket),
}

/// Listens at a port; nothing is served yet.
///
/// # Errors
/// When somebody has the address.
pub fn listen(port: &Proxied) -> io::Result<Listener> {
    Ok(match port.carrier {
        Carrier::Tcp => Listener::Tcp(TcpListener::bind(port.host)?),
        Carrier::Udp => Listener::Udp(UdpSocket::bind(port.host)?),
    })
}

/// Serves what comes, on threads, until the process ends.
pub fn serve(listener: Listener, target: SocketAddr) {
    thread::spawn(move || match listener {
        Listener::Tcp(listener) => serve_connections(&listener, target),
        Listener::Udp(socket) => serve_datagrams(&Arc::new(socket), target),
    });
}

fn serve_connections(listener: &TcpListener, target: SocketAddr) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((client, _)) if open.load(Ordering::Relaxed) < MOST => {
                connect(client, target, &open);
            }
            // Too many: this one is closed, and so told.
            Ok(_) => {}
            // No file to spare, or a client that is gone already: the next one may do better.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// The sockets by which clients are known to the container, each with a thread for what comes back.
type Clients = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

fn serve_datagrams(host: &Arc<UdpSocket>, target: SocketAddr) {
    let clients = Clients::default();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let Ok((length, client)) = host.recv_from(&mut datagram) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let known = clients.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
        // A datagram may be lost: too many clients, no file to spare, or nobody listens there yet.
        let socket = known.or_else(|| acquaint(host, client, target, &clients));
        let _ = socket.map(|socket| socket.send(&datagram[..length]));
    }
}

fn acquaint(
    host: &Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    clients: &Clients,
) -> Option<Arc<UdpSocket>> {
    let mut all = clients.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= MOST {
        return None;
    }
    let unspecified: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = Arc::new(UdpSocket::bind(unspecified).ok()?);
    socket.connect(target).and_then(|()| socket.set_read_timeout(Some(SILENCE))).ok()?;
    let (answers, host, others) = (socket.clone(), host.clone(), clients.clone());
    let work = move || {
        answer(&answers, &host, client);
        others.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
    };
    thread::Builder::new().stack_size(STACK).spawn(work).ok()?;
    all.insert(client, socket.clone());
    Some(socket)
}

/// Hands on what the container says, until it has said nothing for long.
fn answer(container: &UdpSocket, host: &UdpSocket, client: SocketAddr) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        match container.recv(&mut datagram) {
            Ok(length) => drop(host.send_to(&datagram[..length], client)),
            // Nobody listens there: somebody may when the client tries again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // Stopped and continued: signal(7).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn connect(client: TcpStream, target: SocketAddr, open: &Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    let ends = open.clone();
    let work = move || {
        if let Ok(server) = TcpStream::connect_timeout(&target, PATIENCE) {
            both_ways(&client, &server);
        }
        ends.fetch_sub(1, Ordering::Relaxed);
    };
    if thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each side may end its own direction and go on reading.
fn both_ways(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || one_way(server, client));
        if back.is_ok() {
            one_way(client, server);
        }
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    let copied = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
