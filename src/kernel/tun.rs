//! A device whose packets a process of rnet reads and writes (`tun`, `Documentation/networking/tuntap.rst`). It goes with
//! its last file.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rnetkit_drivers::{InterfaceName, Setting};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Refusal, address, link,
    netlink::{Requests, Route, request},
    sysctl,
};

/// `TUNSETIFF` of `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// `TUNGETFEATURES`.
const TUNGETFEATURES: libc::Ioctl = 0x8004_54cf;
/// How many bytes wait for the process, and leave it, at most.
const BUFFER: usize = 4 << 20;
/// How many packets wait for the process, at most.
const QUEUE: u32 = 1000;

/// A device with one address, up, without anything that the kernel says by itself.
///
/// # Errors
/// When the kernel has no such devices, one of that name is there, or IPv6 is off for good.
pub fn open(name: &InterfaceName, own: Ipv6Addr, prefix: u8, mtu: u32) -> Result<File, Refusal> {
    let file = attach(name).map_err(|error| {
        let refusal = Refusal::from(error);
        Refusal { text: Some(format!("device {name} (/dev/net/tun)")), ..refusal }
    })?;
    dress(&mut Route::open()?, name, own, prefix, mtu)?;
    Ok(file)
}

/// Gives a link between hosts its one address and the length of its packets, and brings it up. The kernel says nothing
/// there by itself, and believes nothing.
pub(super) fn dress(
    route: &mut Route,
    name: &InterfaceName,
    own: Ipv6Addr,
    prefix: u8,
    mtu: u32,
) -> Result<(), Refusal> {
    let failed = |refusal: Refusal| Refusal { text: Some(format!("set up {name}")), ..refusal };
    sysctl::no_own_address(name).map_err(failed)?;
    sysctl::apply(name, Setting::Ipv6On).map_err(failed)?;
    sysctl::apply(name, Setting::NoRouterAdvertisements).map_err(failed)?;
    let missing = || Refusal::because(libc::ENODEV, format!("there is no link {name}"));
    let index = link::find(route, name)?.ok_or_else(missing)?.index;
    let address = IpNetwork::new(IpAddr::V6(own), prefix).map_err(|_| Refusal::new(libc::EINVAL))?;
    let mut requests = Requests::default();
    requests.push(request(link::set_packets(index, mtu, QUEUE)), 0);
    requests.push(request(link::set_up(index)), 0);
    requests.push(request(address::add(index, address)), NLM_F_CREATE | NLM_F_REPLACE);
    route.run(requests, |_| ()).map_err(|(_, refusal)| failed(refusal))
}

fn attach(name: &InterfaceName) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeros is a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: the file is open, and the request is of the kind that the call reads and writes.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Where datagrams of WireGuard are heard. They may be cut up on their way, as the kernel's own WireGuard has it: what is
/// inside was already told how long it may be.
///
/// # Errors
/// When the address is not this host's, or the port is another's.
pub fn cipher_socket(at: SocketAddr) -> Result<UdpSocket, Refusal> {
    let failed = |error: io::Error| {
        let refusal = Refusal::from(error);
        Refusal { text: Some(format!("listen on {at}/udp")), ..refusal }
    };
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    // As much as the kernel gives.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    let (level, option) = match at {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let never: libc::c_int = libc::IP_PMTUDISC_DONT;
    // SAFETY: the value is a number of the length that is said.
    let set = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const never).cast(), length)
    };
    if set == -1 {
        return Err(failed(io::Error::last_os_error()));
    }
    socket.bind(&at.into()).map_err(failed)?;
    Ok(socket.into())
}

/// Whether there could be such a device.
///
/// # Errors
/// Why not.
pub fn probe() -> Result<(), Refusal> {
    let no = |error: io::Error| {
        let refusal = Refusal::from(error);
        Refusal { text: Some("/dev/net/tun".to_owned()), ..refusal }
    };
    let file = File::options().read(true).write(true).open("/dev/net/tun").map_err(no)?;
    let mut features: libc::c_uint = 0;
    // SAFETY: the file is open, and the call writes one number.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNGETFEATURES, &raw mut features) } == -1 {
        return Err(no(io::Error::last_os_error()));
    }
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    Err(Refusal::because(libc::EAFNOSUPPORT, "IPv6 is off for good on this host"))
}
