//! Which process of the host listens on a port.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt};

use rnetkit_drivers::{Id, PortRange, Protocol};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use super::{
    Refusal,
    netlink::{Channel, is_verdict, refusal},
};
use crate::agent::part::RESOLVER;

/// Up to so many ports are tried one by one; for more the kernel's table is read.
const TRIED: u32 = 32;

/// The first of the ports that a process has, and who it is.
pub(super) fn find(
    address: IpAddr,
    ports: PortRange,
    protocol: Protocol,
    container: Option<&Id>,
) -> Result<Option<(u16, String)>, Refusal> {
    if ports.count() <= TRIED {
        return one_by_one(address, ports, protocol, container);
    }
    one_by_one(address, PortRange::one(ports.first), protocol, container)?;
    let taken =
        sockets(protocol)?.into_iter().filter(|socket| ports.contains(socket.port) && socket.meets(address));
    let taken = taken.filter(|socket| !lets_pass(socket.inode, container));
    Ok(taken.min_by_key(|socket| socket.port).map(|socket| (socket.port, process(socket.inode))))
}

fn one_by_one(
    address: IpAddr,
    ports: PortRange,
    protocol: Protocol,
    container: Option<&Id>,
) -> Result<Option<(u16, String)>, Refusal> {
    for port in ports.first..=ports.last {
        if !is_free(address, port, protocol)? {
            let (ours, others): (Vec<Bound>, Vec<Bound>) = sockets(protocol)
                .unwrap_or_default()
                .into_iter()
                .filter(|socket| socket.port == port && socket.meets(address))
                .partition(|socket| lets_pass(socket.inode, container));
            if others.is_empty() && !ours.is_empty() {
                continue;
            }
            return Ok(Some((
                port,
                others.first().map_or_else(|| "a process of the host".to_owned(), |one| process(one.inode)),
            )));
        }
    }
    Ok(None)
}

/// Asks the kernel for the port, and gives it back at once. What was closed lately does not count.
fn is_free(address: IpAddr, port: u16, protocol: Protocol) -> Result<bool, Refusal> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, Some(number))
    {
        // A container has the host's kernel: what that lacks, nobody can serve.
        Err(rustix::io::Errno::PROTONOSUPPORT | rustix::io::Errno::SOCKTNOSUPPORT)
            if protocol == Protocol::Sctp =>
        {
            return Err(Refusal::new(libc::EPROTONOSUPPORT));
        }
        // Without the protocol no process can listen on it.
        Err(
            rustix::io::Errno::PROTONOSUPPORT
            | rustix::io::Errno::SOCKTNOSUPPORT
            | rustix::io::Errno::AFNOSUPPORT,
        ) => {
            return Ok(true);
        }
        socket => socket?,
    };
    if protocol != Protocol::Udp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match rustix::net::bind(&socket, &std::net::SocketAddr::new(address, port)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ADDRINUSE) => Ok(false),
        Err(rustix::io::Errno::ADDRNOTAVAIL) => {
            Err(Refusal::because(libc::EADDRNOTAVAIL, "it is no address of this host"))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// A bound socket of the host.
struct Bound {
    address: IpAddr,
    port: u16,
    inode: u64,
}

impl Bound {
    /// Whether listening on both addresses at once is impossible.
    fn meets(&self, address: IpAddr) -> bool {
        let same_family = self.address.is_ipv6() == address.is_ipv6();
        let any = self.address.is_unspecified() || address.is_unspecified();
        self.address == address
            || any && (same_family || self.address.is_ipv6() && self.address.is_unspecified())
    }
}

/// The listening sockets of the calling thread's namespace (`sock_diag(7)`: the kernel looks through those that listen,
/// while `/proc/net/tcp` has it look through all that there could be, at each read).
fn sockets(protocol: Protocol) -> Result<Vec<Bound>, Refusal> {
    const NETLINK_SOCK_DIAG: isize = 4;
    // `TCP_LISTEN`; and `TCP_CLOSE`, which is what UDP sockets without a peer are in.
    let state = match protocol {
        Protocol::Tcp => 10,
        Protocol::Udp => 7,
        Protocol::Sctp => return Ok(Vec::new()),
    };
    let mut channel = Channel::open(NETLINK_SOCK_DIAG)?;
    let mut list = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        list.extend(dump(&mut channel, family as u8, protocol, state)?);
    }
    Ok(list)
}

/// One family's sockets in that state.
fn dump(channel: &mut Channel, family: u8, protocol: Protocol, state: u32) -> Result<Vec<Bound>, Refusal> {
    /// `SOCK_DIAG_BY_FAMILY`, flags of netlink, and `NLMSG_DONE`.
    const BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 1 | 0x300;
    const DONE: u16 = 3;
    /// A netlink header and `struct inet_diag_req_v2`.
    const LENGTH: usize = 16 + 56;
    let number = channel.number(1);
    let mut message = Vec::with_capacity(LENGTH);
    message.extend((LENGTH as u32).to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST_DUMP.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([family, protocol.number(), 0, 0]);
    message.extend((1u32 << state).to_ne_bytes());
    message.resize(LENGTH, 0);
    channel.send(&message)?;
    let (mut list, mut refused) = (Vec::new(), None);
    loop {
        let done = channel.receive(|answer| {
            if answer.sequence != number {
                return false;
            }
            refused = refused.take().or_else(|| refusal(&answer));
            if answer.kind == BY_FAMILY {
                list.extend(bound(answer.body));
            }
            answer.kind == DONE || is_verdict(&answer)
        })?;
        if done {
            return refused.map_or(Ok(list), Err);
        }
    }
}

/// `struct inet_diag_msg`: family, ports and addresses in network order, …, the inode.
fn bound(body: &[u8]) -> Option<Bound> {
    const PORT: usize = 4;
    const ADDRESS: usize = 8;
    const INODE: usize = 68;
    let address = body.get(ADDRESS..)?;
    let address = if i32::from(*body.first()?) == libc::AF_INET {
        IpAddr::from(*address.first_chunk::<4>()?)
    } else {
        IpAddr::from(*address.first_chunk::<16>()?)
    };
    let port = u16::from_be_bytes(*body.get(PORT..)?.first_chunk()?);
    let inode = u32::from_ne_bytes(*body.get(INODE..)?.first_chunk()?);
    Some(Bound { address, port, inode: inode.into() })
}

/// The process that has the socket open: `python3 (pid 4242)`.
fn process(inode: u64) -> String {
    let named =
        |(pid, name): (u32, String)| format!("{} (pid {pid})", rnetkit_drivers::model::Escaped(&name));
    owner(inode).map_or_else(|| "a process of the host".to_owned(), named)
}

/// Whether a port may be published though this socket has it. The resolver is heard on the bridges of networks only, and
/// what is published passes it. Podman's `conmon` keeps the ports of its container from others and answers nobody.
fn lets_pass(inode: u64, container: Option<&Id>) -> bool {
    owner(inode).is_some_and(|(pid, name)| {
        let keeps = || container.is_some_and(|id| monitors(&arguments(pid), &id.to_string()));
        name == RESOLVER || name == "conmon" && keeps()
    })
}

fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether the words start a `conmon` for that container: `conmon … -c ID … -- …`.
fn monitors(words: &[String], id: &str) -> bool {
    let own = words.iter().position(|word| word == "--").map_or(words, |end| &words[..end]);
    own.windows(2).any(|pair| ["-c", "--cid"].contains(&pair[0].as_str()) && pair[1] == id)
}

fn owner(inode: u64) -> Option<(u32, String)> {
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        if files.flatten().any(|file| {
            fs::metadata(file.path()).is_ok_and(|data| data.ino() == inode && is_socket(&file.path()))
        }) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

fn is_socket(path: &std::path::Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_as_the_kernel_tells_it_is_read() {
        let mut body = vec![0; 72];
        body[0] = libc::AF_INET as u8;
        body[4..6].copy_from_slice(&8080u16.to_be_bytes());
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[68..].copy_from_slice(&4242u32.to_ne_bytes());
        let socket = bound(&body).unwrap();
        assert_eq!((socket.address, socket.port, socket.inode), (IpAddr::from([127, 0, 0, 1]), 8080, 4242));
        assert!(bound(&body[..71]).is_none());
    }

    #[test]
    fn a_monitor_is_one_of_its_own_container_alone() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(monitors(&words("conmon --api-version 1 -c abc -u abc -r /usr/bin/crun"), "abc"));
        assert!(monitors(&words("conmon --cid abc"), "abc"));
        assert!(!monitors(&words("conmon -c abcd -u abc"), "abc"));
        assert!(!monitors(&words("conmon -c other -- -c abc"), "abc"));
        assert!(!monitors(&words("conmon -c"), ""));
    }

    #[test]
    fn a_wildcard_meets_every_address_of_its_family_and_ipv6_meets_both() {
        let at = |text: &str| Bound { address: text.parse().unwrap(), port: 1, inode: 1 };
        assert!(at("127.0.0.1").meets("0.0.0.0".parse().unwrap()));
        assert!(at("::").meets("0.0.0.0".parse().unwrap()));
        assert!(!at("127.0.0.1").meets("192.0.2.1".parse().unwrap()));
        assert!(!at("0.0.0.0").meets("::".parse().unwrap()));
    }
}
