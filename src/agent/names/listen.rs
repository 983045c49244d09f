//! The sockets of each network: at its gateway addresses, and only for what comes in by its own link.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use rnetkit_drivers::{Id, Names};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::{self, JoinHandle},
};

use super::serve::{self, Resolver};

const PORT: u16 = 53;
/// How much waits to be read, in bytes; the kernel gives what `net.core.rmem_max` allows.
const ROOM: usize = 1 << 20;
/// So many connections wait to be accepted.
const BACKLOG: i32 = 128;

/// All sockets.
#[derive(Debug, Default)]
pub struct Listeners(HashMap<Id, Open>);

/// The sockets of a network, and who serves them.
#[derive(Debug)]
struct Open {
    names: Names,
    /// The number of its link: a link that was made again has another, and a socket stays with the old one.
    link: u32,
    tasks: Vec<JoinHandle<()>>,
    trouble: Vec<String>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Listeners {
    /// Opens what the networks need now, and closes what they do not. What is right stays open: no question is lost.
    pub fn follow(&mut self, resolver: &Rc<Resolver>) {
        let wanted = resolver.places();
        self.0.retain(|id, open| {
            let right = wanted.iter().any(|(wanted, names)| wanted == id && *names == open.names);
            right && open.trouble.is_empty() && number(&open.names) == Some(open.link)
        });
        let own = wanted.iter().flat_map(|(_, names)| names.servers.clone()).collect();
        resolver.forwarder().set_own(own);
        for (id, names) in wanted {
            self.0.entry(id).or_insert_with(|| Open::new(id, names, resolver));
        }
    }

    /// What is not as it should be.
    #[must_use]
    pub fn trouble(&self) -> Vec<String> {
        self.0.values().flat_map(|open| open.trouble.clone()).collect()
    }
}

impl Open {
    fn new(id: Id, names: Names, resolver: &Rc<Resolver>) -> Self {
        let mut open =
            Self { link: number(&names).unwrap_or(0), names, tasks: Vec::new(), trouble: Vec::new() };
        for server in open.names.servers.clone() {
            let mut note = |what: &str, result: io::Result<JoinHandle<()>>| match result {
                Ok(task) => open.tasks.push(task),
                Err(error) => open.trouble.push(format!("{what} port {PORT} of {server}: {error}")),
            };
            let udp = udp(&open.names, server);
            note(
                "UDP",
                udp.map(|socket| task::spawn_local(serve::datagrams(Rc::clone(resolver), id, socket))),
            );
            let tcp = tcp(&open.names, server);
            note("TCP", tcp.map(|socket| task::spawn_local(serve::streams(Rc::clone(resolver), id, socket))));
        }
        open
    }
}

/// The number of the link, if it is there.
fn number(names: &Names) -> Option<u32> {
    let any =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(any, names.link.as_str()).ok()
}

fn udp(names: &Names, server: IpAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket(names, server, Type::DGRAM, Protocol::UDP)?.into())
}

fn tcp(names: &Names, server: IpAddr) -> io::Result<TcpListener> {
    let socket = socket(names, server, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Bound to the link before to the address: there is no moment in which others are heard.
fn socket(names: &Names, server: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = if server.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
    socket.bind_device(Some(names.link.as_str().as_bytes()))?;
    socket.set_reuse_address(true)?;
    // As much as anybody may have: one who floods the socket leaves room for others.
    let _ = socket.set_recv_buffer_size(ROOM);
    if server.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&SocketAddr::new(server, PORT).into())?;
    Ok(socket)
}
