//! Links of containers that share an interface of the host. They are born in the container, and have no other end.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoIpVlan, InfoKind, InfoMacVlan, IpVlanMode as Layer, MacVlanMode as Mode},
};
use rnetkit_drivers::{
    MacAddress, Resource,
    child::{Child, IpvlanMode, MacvlanMode, Sharing},
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{
    Netns, Refusal,
    behind::Deleter,
    find::Seen,
    link::{self, Link},
    linux::Deletion,
    netlink::{Requests, Route, request},
};

/// What is made must not exist. Its index does not come back: the kernel would send that into the container.
pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;

/// The message that makes the link, down, directly in the container.
pub(super) fn create(child: &Child, parent: u32, netns: BorrowedFd<'_>) -> RouteNetlinkMessage {
    let mut builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind(child.sharing))
        .name(child.name.as_str())
        .link(parent)
        .link_group(child.group)
        .set_info_data(mode(child.sharing))
        .setns_by_fd(netns.as_raw_fd());
    if let Some(mac) = child.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = child.mtu {
        builder = builder.mtu(mtu);
    }
    RouteNetlinkMessage::NewLink(builder.build())
}

/// Gives it its hardware address, its largest packet and its mark again.
pub(super) fn set(child: &Child, index: u32) -> RouteNetlinkMessage {
    let mut builder = LinkMessageBuilder::<LinkUnspec>::new().index(index).alias(&child.alias);
    if let Some(mac) = child.mac {
        builder = builder.address(mac.0.to_vec());
    }
    if let Some(mtu) = child.mtu {
        builder = builder.mtu(mtu);
    }
    RouteNetlinkMessage::SetLink(builder.build())
}

fn kind(sharing: Sharing) -> InfoKind {
    match sharing {
        Sharing::Macvlan(_) => InfoKind::MacVlan,
        Sharing::Ipvlan(_) => InfoKind::IpVlan,
    }
}

fn mode(sharing: Sharing) -> InfoData {
    match sharing {
        Sharing::Macvlan(mode) => InfoData::MacVlan(vec![InfoMacVlan::Mode(match mode {
            MacvlanMode::Bridge => Mode::Bridge,
            MacvlanMode::Private => Mode::Private,
            MacvlanMode::Vepa => Mode::Vepa,
            MacvlanMode::Passthru => Mode::Passthrough,
        })]),
        Sharing::Ipvlan(mode) => InfoData::IpVlan(vec![InfoIpVlan::Mode(match mode {
            IpvlanMode::L2 => Layer::L2,
            IpvlanMode::L3 => Layer::L3,
            IpvlanMode::L3s => Layer::L3S,
        })]),
    }
}

/// The mode as the kernel has it (`MACVLAN_MODE_*` and `IPVLAN_MODE_*` of `linux/if_link.h`).
fn number(sharing: Sharing) -> u32 {
    match sharing {
        Sharing::Macvlan(MacvlanMode::Private) => 1,
        Sharing::Macvlan(MacvlanMode::Vepa) => 2,
        Sharing::Macvlan(MacvlanMode::Bridge) => 4,
        Sharing::Macvlan(MacvlanMode::Passthru) => 8,
        Sharing::Ipvlan(IpvlanMode::L2) => 0,
        Sharing::Ipvlan(IpvlanMode::L3) => 1,
        Sharing::Ipvlan(IpvlanMode::L3s) => 2,
    }
}

/// Whether the kernel can make such links at all. It is asked for one that shares nothing, which it refuses in any case:
/// it looks for its own part first.
pub(super) fn refuse_unable(route: &mut Route, sharing: Sharing) -> Result<(), Refusal> {
    let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind(sharing));
    let mut requests = Requests::default();
    requests.push(request(RouteNetlinkMessage::NewLink(builder.name("rnet-probe%d").build())), CREATE);
    match route.run(requests, |_| ()) {
        Err((_, refusal)) if refusal.errno == libc::EOPNOTSUPP => Err(lacking(sharing)),
        Err((_, refusal)) if refusal.errno == libc::EPERM => Err(refusal),
        _ => Ok(()),
    }
}

/// What is missing, and where it comes from.
fn lacking(sharing: Sharing) -> Refusal {
    let option = format!("CONFIG_{}", sharing.to_string().to_uppercase());
    Refusal::because(
        libc::EOPNOTSUPP,
        format!(
            "this kernel has no {sharing}: it needs {option} (its module is loaded by itself where it is installed, or by modprobe {sharing})"
        ),
    )
}

/// A refusal to make one, with the reason where that is that the kernel cannot.
pub(super) fn explained(refusal: Refusal, sharing: Sharing) -> Refusal {
    if refusal.errno == libc::EOPNOTSUPP { lacking(sharing) } else { refusal }
}

/// The link as it is; one of another kind, on another interface or not rnet's is somebody else's.
pub(super) fn find(container: &Seen, host: &Seen, wanted: &Child) -> Option<Resource> {
    let found = container.links.get(wanted.name.as_str()).filter(|link| is_it(link, wanted))?;
    if host.index(&wanted.parent) != Some(found.peer) || found.mode != Some(number(wanted.sharing)) {
        return None;
    }
    let mac = MacAddress(found.mac.clone().try_into().ok()?);
    Some(Resource::Child(Child {
        mac: wanted.mac.map(|_| mac),
        mtu: wanted.mtu.map(|_| found.mtu),
        alias: found.alias.clone(),
        ..wanted.clone()
    }))
}

fn is_it(link: &Link, wanted: &Child) -> bool {
    link.kind == wanted.sharing.to_string() && link.group == wanted.group
}

/// Deletes the link, if it is the one.
pub(super) fn delete(
    netns: &Netns,
    socket: &mut Route,
    child: &Child,
    deletion: Deletion,
) -> Result<(), Refusal> {
    let found = link::find(socket, &child.name)?.filter(|found| is_it(found, child));
    let missing = || format!("there is no link {} of rnet in the container", child.name);
    let index = found.ok_or_else(|| Refusal::because(libc::ENODEV, missing()))?.index;
    let message = link::delete(index);
    if deletion == Deletion::Behind {
        let deleted = netns.inside(Deleter::open)?.and_then(|deleter| deleter.delete(&message, index, None));
        match deleted {
            // No file or process to spare: then the wait is this one's to sit out.
            Err(refusal) if super::behind::is_short(&refusal) => {}
            done => return done,
        }
    }
    let mut requests = Requests::default();
    requests.push(request(message), NLM_F_ACK);
    socket.run(requests, |_| ()).map_err(|(_, refusal)| refusal)
}
