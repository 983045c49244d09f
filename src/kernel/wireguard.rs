//! The kernel's own WireGuard: a link whose other ends are told over generic netlink (`linux/wireguard.h`). It works on
//! without anybody.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_route::{RouteNetlinkMessage, link::InfoKind};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use rnetkit_drivers::InterfaceName;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{
    Refusal, link,
    netlink::{Channel, Requests, Route, is_verdict, refusal, request},
    tun,
};
use crate::cipher::{PrivateKey, PublicKey, Wanted, WantedPeer};

/// `NETLINK_GENERIC`.
const GENERIC: isize = 16;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// How many hosts are told of in one message, whose parts have lengths of 16 bits.
const AT_ONCE: usize = 200;

/// The link, with this host's key and exactly these others. What is so already stays: sessions go on.
///
/// # Errors
/// When the kernel has no WireGuard, another link has the name, or something is refused.
pub fn bring(key: &PrivateKey, wanted: &Wanted) -> Result<(), Refusal> {
    let name = &tun::device()?;
    let mut route = Route::open()?;
    let mut found = link::find(&mut route, name)?;
    if found.is_none() {
        let mut requests = Requests::default();
        requests.push(request(create(name)), NLM_F_CREATE | NLM_F_EXCL);
        let taken = |(_, refusal)| Refusal { text: Some(format!("link {name}")), ..refusal };
        route.run(requests, |_| ()).map_err(taken)?;
    }
    let mut wireguard = WireGuard::open(name)?;
    // What is so already is not set again: that would lose what is on its way.
    let device = wireguard.device()?;
    if (device.key, device.port) != (Some(key.public()), wanted.own.at.port()) {
        wireguard.set(vec![
            WireguardAttribute::PrivateKey(key.bytes()),
            WireguardAttribute::ListenPort(wanted.own.at.port()),
        ])?;
    }
    let known = device.peers;
    let gone = known.iter().filter(|known| !wanted.peers.iter().any(|peer| peer.key == known.key));
    let gone = gone.map(|known| {
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(known.key.0),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ])
    });
    let fresh = wanted.peers.iter().filter(|peer| !known.contains(peer)).map(told);
    let all: Vec<WireguardPeer> = gone.chain(fresh).collect();
    for some in all.chunks(AT_ONCE) {
        wireguard.set(vec![WireguardAttribute::Peers(some.to_vec())])?;
    }
    match found.take_if(|link| link.up && link.mtu == wanted.own.mtu) {
        Some(_) => Ok(()),
        None => tun::dress(&mut route, name, &wanted.own),
    }
}

/// No link has the name.
///
/// # Errors
/// When one has.
pub fn refuse_taken() -> Result<(), Refusal> {
    let name = &tun::device()?;
    match link::find(&mut Route::open()?, name)? {
        Some(_) => Err(Refusal::because(libc::EEXIST, format!("link {name} is somebody else's"))),
        None => Ok(()),
    }
}

/// How long the link of a process that ended may still be there, and how often that is looked at.
const TAKING_DOWN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The link goes if it is one of WireGuard; another went with its process, which is waited for.
///
/// # Errors
/// When the kernel does not let it go.
pub fn take() -> Result<(), Refusal> {
    let name = &tun::device()?;
    let mut route = Route::open()?;
    let end = Instant::now() + TAKING_DOWN;
    while let Some(found) = link::find(&mut route, name)? {
        if WireGuard::open(name).and_then(|mut wireguard| wireguard.device()).is_ok() {
            let mut requests = Requests::default();
            requests.push(request(link::delete(found.index)), 0);
            return route.run(requests, |_| ()).map_err(|(_, refusal)| refusal);
        }
        if Instant::now() > end {
            return Err(Refusal::because(libc::EBUSY, format!("link {name} is still there")));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Whether the link is there, up, and WireGuard's.
#[must_use]
pub fn is_there() -> bool {
    let Ok(name) = &tun::device() else { return false };
    let found = Route::open().and_then(|mut route| link::find(&mut route, name));
    found.is_ok_and(|link| link.is_some_and(|link| link.up))
        && WireGuard::open(name).is_ok_and(|mut wireguard| wireguard.device().is_ok())
}

fn create(name: &InterfaceName) -> RouteNetlinkMessage {
    let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Wireguard);
    RouteNetlinkMessage::NewLink(builder.name(name.to_string()).build())
}

/// Another host: where it is, and the one address that it may send from.
fn told(peer: &WantedPeer) -> WireguardPeer {
    let allowed = WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv6),
        WireguardAllowedIpAttr::IpAddr(peer.address.into()),
        WireguardAllowedIpAttr::Cidr(128),
    ]);
    WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey(peer.key.0),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        WireguardPeerAttribute::Endpoint(peer.at),
        WireguardPeerAttribute::AllowedIps(vec![allowed]),
    ])
}

/// Its part of generic netlink, for one link.
struct WireGuard {
    channel: Channel,
    family: u16,
    name: String,
}

impl WireGuard {
    fn open(name: &InterfaceName) -> Result<Self, Refusal> {
        let mut channel = Channel::open(GENERIC)?;
        let asked = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName("wireguard".to_owned())],
        };
        let said = ask(&mut channel, GenlMessage::from_payload(asked), NLM_F_ACK)?;
        let id = said.into_iter().flat_map(|answer| answer.nlas).find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(id) => Some(id),
            _ => None,
        });
        let family = id.ok_or_else(|| Refusal::because(libc::EOPNOTSUPP, "the kernel has no WireGuard"))?;
        Ok(Self { channel, family, name: name.to_string() })
    }

    fn message(&self, cmd: WireguardCmd, more: Vec<WireguardAttribute>) -> GenlMessage<WireguardMessage> {
        let mut attributes = vec![WireguardAttribute::IfName(self.name.clone())];
        attributes.extend(more);
        let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        message.set_resolved_family_id(self.family);
        message
    }

    fn set(&mut self, attributes: Vec<WireguardAttribute>) -> Result<(), Refusal> {
        let message = self.message(WireguardCmd::SetDevice, attributes);
        ask(&mut self.channel, message, NLM_F_ACK).map(drop)
    }

    /// What the link is by now.
    fn device(&mut self) -> Result<Device, Refusal> {
        let message = self.message(WireguardCmd::GetDevice, Vec::new());
        let said = ask(&mut self.channel, message, NLM_F_DUMP)?;
        let mut device = Device::default();
        for attribute in said.into_iter().flat_map(|part| part.attributes) {
            match attribute {
                WireguardAttribute::PublicKey(key) => device.key = Some(PublicKey(key)),
                WireguardAttribute::ListenPort(port) => device.port = port,
                WireguardAttribute::Peers(peers) => device.peers.extend(peers.iter().filter_map(read)),
                _ => {}
            }
        }
        Ok(device)
    }
}

/// A link of WireGuard, as the kernel has it; other hosts that rnet would not have made are without an address.
#[derive(Default)]
struct Device {
    key: Option<PublicKey>,
    port: u16,
    peers: Vec<WantedPeer>,
}

/// Another host, as the kernel has it.
fn read(peer: &WireguardPeer) -> Option<WantedPeer> {
    let mut found = WantedPeer {
        key: PublicKey([0; 32]),
        at: SocketAddr::from(([0, 0, 0, 0], 0)),
        address: Ipv6Addr::UNSPECIFIED,
    };
    let mut has_key = false;
    for attribute in &peer.0 {
        match attribute {
            WireguardPeerAttribute::PublicKey(key) => (found.key, has_key) = (PublicKey(*key), true),
            WireguardPeerAttribute::Endpoint(at) => found.at = *at,
            WireguardPeerAttribute::AllowedIps(allowed) => found.address = only(allowed),
            _ => {}
        }
    }
    has_key.then_some(found)
}

/// The one address that may be sent from, where there is one only.
fn only(allowed: &[WireguardAllowedIp]) -> Ipv6Addr {
    let [WireguardAllowedIp(one)] = allowed else { return Ipv6Addr::UNSPECIFIED };
    let whole = one.iter().any(|part| matches!(part, WireguardAllowedIpAttr::Cidr(128)));
    let address = one.iter().find_map(|part| match part {
        WireguardAllowedIpAttr::IpAddr(IpAddr::V6(address)) => Some(*address),
        _ => None,
    });
    address.filter(|_| whole).unwrap_or(Ipv6Addr::UNSPECIFIED)
}

/// Sends one message, and reads what is said until it is acknowledged or all is listed.
fn ask<F>(channel: &mut Channel, message: GenlMessage<F>, flags: u16) -> Result<Vec<F>, Refusal>
where
    F: std::fmt::Debug,
    GenlMessage<F>: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<GenlMessage<F>>: From<GenlMessage<F>>,
{
    let mut whole = NetlinkMessage::from(message);
    let number = channel.number(1);
    whole.header.flags = NLM_F_REQUEST | flags;
    whole.header.sequence_number = number;
    whole.finalize();
    let mut buffer = vec![0; whole.buffer_len()];
    whole.serialize(&mut buffer);
    channel.send(&buffer)?;
    let mut said = Vec::new();
    let mut refused = None;
    loop {
        let done = channel.receive(|answer| {
            if answer.sequence != number {
                return false;
            }
            refused = refused.take().or_else(|| refusal(&answer));
            if answer.kind != DONE && !is_verdict(&answer) {
                said.extend(answer.parse::<GenlMessage<F>>());
            }
            answer.kind == DONE || is_verdict(&answer)
        })?;
        if let Some(refusal) = refused.take() {
            return Err(refusal);
        }
        if done {
            return Ok(said.into_iter().map(|message| message.into_parts().1).collect());
        }
    }
}
