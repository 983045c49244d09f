//! A device whose packets a process of rnet reads and writes (`tun`, `Documentation/networking/tuntap.rst`). It goes with
//! its last file.

use std::{fs::File, io, net::IpAddr, os::fd::AsRawFd};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use rnetkit_drivers::{InterfaceName, Setting};

use super::{
    Refusal, address, link,
    netlink::{Requests, Route, request},
    sysctl,
};
use crate::cipher::{DEVICE, Own, PREFIX_LENGTH};

/// `TUNSETIFF` of `linux/if_tun.h`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// `TUNGETFEATURES`.
const TUNGETFEATURES: libc::Ioctl = 0x8004_54cf;
/// How many packets wait for the process, at most.
const QUEUE: u32 = 1000;

/// A device with one address, up, without anything that the kernel says by itself.
///
/// # Errors
/// When the kernel has no such devices, one of that name is there, or IPv6 is off for good.
pub fn open(own: &Own) -> Result<File, Refusal> {
    let name = device()?;
    let file = attach(&name).map_err(|error| {
        let refusal = Refusal::from(error);
        Refusal { text: Some(format!("device {name} (/dev/net/tun)")), ..refusal }
    })?;
    dress(&mut Route::open()?, &name, own)?;
    Ok(file)
}

/// The device that encrypts, by its name.
pub(super) fn device() -> Result<InterfaceName, Refusal> {
    DEVICE.parse().map_err(|_| Refusal::new(libc::EINVAL))
}

/// Gives a link between hosts its one address and the length of its packets, and brings it up. The kernel says nothing
/// there by itself, and believes nothing.
pub(super) fn dress(route: &mut Route, name: &InterfaceName, own: &Own) -> Result<(), Refusal> {
    let failed = |refusal: Refusal| Refusal { text: Some(format!("set up {name}")), ..refusal };
    sysctl::no_own_address(name).map_err(failed)?;
    sysctl::apply(name, Setting::Ipv6On).map_err(failed)?;
    sysctl::apply(name, Setting::NoRouterAdvertisements).map_err(failed)?;
    let missing = || Refusal::because(libc::ENODEV, format!("there is no link {name}"));
    let index = link::find(route, name)?.ok_or_else(missing)?.index;
    let address =
        IpNetwork::new(IpAddr::V6(own.address), PREFIX_LENGTH).map_err(|_| Refusal::new(libc::EINVAL))?;
    let mut requests = Requests::default();
    requests.push(request(link::set_packets(index, own.mtu, QUEUE)), 0);
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
