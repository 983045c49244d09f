//! Which process of the host listens on a port.

use std::{fs, net::IpAddr, os::unix::fs::MetadataExt};

use rnetkit_drivers::{PortRange, Protocol};
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};

use super::Refusal;
use crate::agent::part::RESOLVER;

/// Up to so many ports are tried one by one; for more the kernel's table is read.
const TRIED: u32 = 32;

/// The first of the ports that a process has, and who it is.
pub(super) fn find(
    address: IpAddr,
    ports: PortRange,
    protocol: Protocol,
) -> Result<Option<(u16, String)>, Refusal> {
    if ports.count() <= TRIED {
        return one_by_one(address, ports, protocol);
    }
    one_by_one(address, PortRange::one(ports.first), protocol)?;
    let taken =
        sockets(protocol).into_iter().filter(|socket| ports.contains(socket.port) && socket.meets(address));
    let taken = taken.filter(|socket| !is_resolver(socket.inode));
    Ok(taken.min_by_key(|socket| socket.port).map(|socket| (socket.port, process(socket.inode))))
}

fn one_by_one(
    address: IpAddr,
    ports: PortRange,
    protocol: Protocol,
) -> Result<Option<(u16, String)>, Refusal> {
    for port in ports.first..=ports.last {
        if !is_free(address, port, protocol)? {
            let (ours, others): (Vec<Bound>, Vec<Bound>) = sockets(protocol)
                .into_iter()
                .filter(|socket| socket.port == port && socket.meets(address))
                .partition(|socket| is_resolver(socket.inode));
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

/// The listening sockets of the calling thread's namespace.
fn sockets(protocol: Protocol) -> Vec<Bound> {
    let (tables, state): (&[&str], &str) = match protocol {
        Protocol::Tcp => (&["tcp", "tcp6"], "0A"),
        Protocol::Udp => (&["udp", "udp6"], "07"),
        Protocol::Sctp => (&[], ""),
    };
    let read =
        |table: &&str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    tables
        .iter()
        .map(read)
        .flat_map(|text| text.lines().skip(1).filter_map(|line| bound(line, state)).collect::<Vec<_>>())
        .collect()
}

/// One line of `/proc/net/tcp`: number, local address, remote address, state, …, inode as the tenth word.
fn bound(line: &str, wanted: &str) -> Option<Bound> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if *words.get(3)? != wanted {
        return None;
    }
    let (address, port) = words.get(1)?.split_once(':')?;
    Some(Bound {
        address: hex_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// An address as /proc writes it: words of four bytes, each in the machine's own order.
fn hex_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for word in text.as_bytes().chunks(8) {
        let number = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(number.to_ne_bytes());
    }
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The process that has the socket open: `python3 (pid 4242)`.
fn process(inode: u64) -> String {
    let named =
        |(pid, name): (u32, String)| format!("{} (pid {pid})", rnetkit_drivers::model::Escaped(&name));
    owner(inode).map_or_else(|| "a process of the host".to_owned(), named)
}

/// Whether a socket is the resolver's: heard on the bridges of networks only, and what is published passes it.
fn is_resolver(inode: u64) -> bool {
    owner(inode).is_some_and(|(_, name)| name == RESOLVER)
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
    fn a_line_of_the_kernels_table_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0";
        let socket = bound(line, "0A").unwrap();
        assert_eq!((socket.address, socket.port, socket.inode), (IpAddr::from([127, 0, 0, 1]), 8080, 4242));
        assert!(bound(line, "07").is_none());
        assert!(bound("garbage", "0A").is_none());
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
