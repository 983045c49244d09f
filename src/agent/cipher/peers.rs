//! The other hosts, their sessions, and what may pass: VXLAN on the sealed port, from a host's own address to another's,
//! and nothing else, whatever the host's routes say.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use boringtun::{
    noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter},
    x25519,
};
use rnetkit_drivers::overlay::SEALED_PORT;

use crate::cipher::{PrivateKey, Wanted, WantedPeer};

/// No packet is longer, in bytes, with what WireGuard adds.
pub const LONGEST: usize = 65_535 + 64;
/// How many beginnings of sessions there may be in a second, from all hosts together, before each sender has to prove
/// that it has the address that it says. Each is looked at twice.
const BEGINNINGS: u64 = 400;

/// Another host, and the session with it.
pub struct Peer {
    wanted: WantedPeer,
    /// What the other host calls the session; the lower 8 bits are WireGuard's own.
    index: u32,
    session: Mutex<Tunn>,
}

impl Peer {
    fn session(&self) -> MutexGuard<'_, Tunn> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them, by what a packet says.
#[derive(Default)]
struct Table {
    by_address: HashMap<Ipv6Addr, Arc<Peer>>,
    by_key: HashMap<[u8; 32], Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
}

/// The other hosts.
pub struct Peers {
    private: PrivateKey,
    public: x25519::PublicKey,
    own: Ipv6Addr,
    limiter: Arc<RateLimiter>,
    table: RwLock<Arc<Table>>,
    next: Mutex<u32>,
}

/// Where datagrams go, and packets that came out of them.
pub trait Ways {
    /// To another host.
    fn to_host(&self, at: SocketAddr, datagram: &[u8]);
    /// To the host's own network.
    fn to_device(&self, packet: &[u8]);
}

impl Peers {
    /// None yet.
    pub fn new(private: PrivateKey, own: Ipv6Addr) -> Self {
        let public = x25519::PublicKey::from(private.secret());
        Self {
            limiter: Arc::new(RateLimiter::new(&public, BEGINNINGS)),
            private,
            public,
            own,
            table: RwLock::default(),
            next: Mutex::new(0),
        }
    }

    /// From now on these are the others. Sessions of those that stay go on; with new ones one is begun, so that a host
    /// that was restarted is heard of before anything is sent to it.
    pub fn set(&self, wanted: &Wanted, ways: &impl Ways) {
        let before = self.table();
        let mut table = Table::default();
        let mut fresh = Vec::new();
        for peer in &wanted.peers {
            let known = before.by_key.get(&peer.key.0).filter(|known| known.wanted == *peer).cloned();
            let known = known.unwrap_or_else(|| {
                let made = self.begin(peer.clone());
                fresh.push(Arc::clone(&made));
                made
            });
            table.by_address.insert(peer.address, Arc::clone(&known));
            table.by_key.insert(peer.key.0, Arc::clone(&known));
            table.by_index.insert(known.index, known);
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        let mut room = vec![0; LONGEST];
        for peer in fresh {
            let begun = peer.session().format_handshake_initiation(&mut room, false);
            send(&peer, begun, ways);
        }
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self, wanted: WantedPeer) -> Arc<Peer> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next + 1) & 0x00ff_ffff;
        let (key, limiter) = (x25519::PublicKey::from(wanted.key.0), Arc::clone(&self.limiter));
        let session = Tunn::new(self.private.secret().clone(), key, None, None, *next, Some(limiter));
        Arc::new(Peer { wanted, index: *next, session: Mutex::new(session) })
    }

    /// A packet that the host sends into the device. `room` must have [`LONGEST`] bytes.
    pub fn leave(&self, packet: &[u8], room: &mut [u8], ways: &impl Ways) {
        let Some((source, destination)) = sealed(packet) else { return };
        if source != self.own {
            return;
        }
        let table = self.table();
        let Some(peer) = table.by_address.get(&destination) else { return };
        let result = peer.session().encapsulate(packet, room);
        send(peer, result, ways);
    }

    /// A datagram from wherever. `room` must have [`LONGEST`] bytes.
    pub fn arrive(&self, from: IpAddr, datagram: &[u8], room: &mut [u8], ways: &impl Ways) {
        let table = self.table();
        let Some(peer) = self.sender(&table, from, datagram, room, ways) else { return };
        let mut session = peer.session();
        let mut result = session.decapsulate(Some(from), datagram, room);
        // After a word of WireGuard's own, what waited for it is sent.
        while let TunnResult::WriteToNetwork(word) = result {
            ways.to_host(peer.wanted.at, word);
            result = session.decapsulate(None, &[], room);
        }
        if let TunnResult::WriteToTunnelV6(packet, _) = result
            && sealed(packet) == Some((peer.wanted.address, self.own))
        {
            ways.to_device(packet);
        }
    }

    /// Whose datagram it says to be; whether it is shows the session.
    fn sender<'a>(
        &self,
        table: &'a Table,
        from: IpAddr,
        datagram: &[u8],
        room: &mut [u8],
        ways: &impl Ways,
    ) -> Option<&'a Arc<Peer>> {
        let packet = match self.limiter.verify_packet(Some(from), datagram, room) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => {
                // Only a host of the cluster is told anything.
                let asked = table.by_key.values().find(|peer| peer.wanted.at.ip() == from);
                asked.inspect(|peer| ways.to_host(peer.wanted.at, cookie));
                return None;
            }
            Err(_) => return None,
        };
        let index = match packet {
            Packet::HandshakeInit(begun) => {
                let half = parse_handshake_anon(self.private.secret(), &self.public, &begun).ok()?;
                return table.by_key.get(&half.peer_static_public);
            }
            Packet::HandshakeResponse(answer) => answer.receiver_idx,
            Packet::PacketCookieReply(cookie) => cookie.receiver_idx,
            Packet::PacketData(data) => data.receiver_idx,
        };
        table.by_index.get(&(index >> 8))
    }

    /// What has to be said because time passed; four times a second is often enough.
    pub fn tick(&self, ways: &impl Ways) {
        let mut room = vec![0; LONGEST];
        for peer in self.table().by_index.values() {
            let result = peer.session().update_timers(&mut room);
            send(peer, result, ways);
        }
    }

    /// A second passed.
    pub fn second(&self) {
        self.limiter.reset_count();
    }
}

fn send(peer: &Peer, result: TunnResult<'_>, ways: &impl Ways) {
    if let TunnResult::WriteToNetwork(datagram) = result {
        ways.to_host(peer.wanted.at, datagram);
    }
}

/// Source and destination of a packet that may pass: IPv6 (RFC 8200) without extensions, UDP, to the sealed port.
fn sealed(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    const UDP: u8 = 17;
    let address = |from: usize| -> Option<Ipv6Addr> {
        let bytes: [u8; 16] = packet.get(from..from + 16)?.try_into().ok()?;
        Some(bytes.into())
    };
    let port = u16::from_be_bytes(packet.get(42..44)?.try_into().ok()?);
    let may = packet[0] >> 4 == 6 && packet[6] == UDP && port == SEALED_PORT;
    if may { Some((address(8)?, address(24)?)) } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::cipher::Own;

    /// What a host would have sent.
    #[derive(Default)]
    struct Sent {
        datagrams: RefCell<Vec<(SocketAddr, Vec<u8>)>>,
        packets: RefCell<Vec<Vec<u8>>>,
    }

    impl Ways for Sent {
        fn to_host(&self, at: SocketAddr, datagram: &[u8]) {
            self.datagrams.borrow_mut().push((at, datagram.to_vec()));
        }

        fn to_device(&self, packet: &[u8]) {
            self.packets.borrow_mut().push(packet.to_vec());
        }
    }

    struct Host {
        number: u8,
        key: PrivateKey,
        peers: Peers,
        sent: Sent,
    }

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 51820))
    }

    fn address(number: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd72, 0, 0, 0, 0, 0, 0, number.into())
    }

    fn host(number: u8) -> Host {
        let key = PrivateKey::random().unwrap();
        Host { number, peers: Peers::new(key.clone(), address(number)), key, sent: Sent::default() }
    }

    impl Host {
        fn knows(&self, others: &[&Self]) {
            let peer = |other: &&Self| WantedPeer {
                key: other.key.public(),
                at: at(other.number),
                address: address(other.number),
            };
            let own = Own { at: at(self.number), address: address(self.number), mtu: 1440 };
            self.peers.set(&Wanted { own, peers: others.iter().map(peer).collect() }, &self.sent);
        }

        fn says(&self, packet: &[u8]) {
            self.peers.leave(packet, &mut vec![0; LONGEST], &self.sent);
        }

        fn has(&self) -> Vec<Vec<u8>> {
            std::mem::take(&mut self.sent.packets.borrow_mut())
        }
    }

    /// Carries datagrams until nobody says any more; how many.
    fn carry(hosts: &[&Host]) -> usize {
        let mut count = 0;
        loop {
            let mut all = Vec::new();
            for host in hosts {
                let said = std::mem::take(&mut *host.sent.datagrams.borrow_mut());
                all.extend(said.into_iter().map(|(to, datagram)| (host.number, to, datagram)));
            }
            if all.is_empty() {
                return count;
            }
            count += all.len();
            for (from, to, datagram) in all {
                for host in hosts.iter().filter(|host| at(host.number) == to) {
                    host.peers.arrive(at(from).ip(), &datagram, &mut vec![0; LONGEST], &host.sent);
                }
            }
        }
    }

    fn packet(from: Ipv6Addr, to: Ipv6Addr, next: u8, port: u16, word: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + word.len()).unwrap();
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([next, 64]);
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend([0x12, 0xb7]);
        packet.extend(port.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(word);
        packet
    }

    fn good(from: u8, to: u8) -> Vec<u8> {
        packet(address(from), address(to), 17, SEALED_PORT, b"a word")
    }

    #[test]
    fn what_one_says_another_hears_and_nobody_else_and_not_in_clear() {
        let (one, two, three) = (host(1), host(2), host(3));
        one.knows(&[&two, &three]);
        two.knows(&[&one, &three]);
        three.knows(&[&one, &two]);
        assert!(carry(&[&one, &two, &three]) >= 6, "sessions are begun before anything is said");
        one.says(&good(1, 2));
        let seen: Vec<u8> = one.sent.datagrams.borrow().iter().flat_map(|(_, data)| data.clone()).collect();
        assert!(!seen.is_empty() && !seen.windows(6).any(|bytes| bytes == b"a word"));
        carry(&[&one, &two, &three]);
        assert_eq!((two.has(), three.has()), (vec![good(1, 2)], vec![]));
    }

    #[test]
    fn what_is_said_before_there_is_a_session_arrives_when_there_is() {
        let (one, two) = (host(1), host(2));
        one.knows(&[&two]);
        one.says(&good(1, 2));
        two.knows(&[&one]);
        carry(&[&one, &two]);
        assert_eq!(two.has(), [good(1, 2)]);
    }

    #[test]
    fn nothing_but_vxlan_between_the_hosts_own_addresses_passes() {
        let (one, two, three) = (host(1), host(2), host(3));
        one.knows(&[&two]);
        two.knows(&[&one]);
        carry(&[&one, &two]);
        let bad = [
            packet(address(1), address(2), 17, 22, b"another port"),
            packet(address(1), address(2), 6, SEALED_PORT, b"TCP"),
            packet(address(1), address(2), 58, SEALED_PORT, b"ICMPv6"),
            packet(address(3), address(2), 17, SEALED_PORT, b"another's address"),
            packet(address(1), address(3), 17, SEALED_PORT, b"nobody there"),
            vec![0x45; 64],
            vec![0x60; 43],
            Vec::new(),
        ];
        bad.iter().for_each(|packet| one.says(packet));
        assert_eq!(carry(&[&one, &two, &three]), 0);
        // A host that does not keep to it is not believed: its session says who it is, whatever its packet says.
        let liar = Host {
            number: 1,
            peers: Peers::new(one.key.clone(), address(3)),
            key: one.key,
            sent: Sent::default(),
        };
        liar.knows(&[&two]);
        carry(&[&liar, &two]);
        liar.says(&good(3, 2));
        assert!(carry(&[&liar, &two]) > 0, "it says so");
        assert_eq!(two.has(), [] as [Vec<u8>; 0]);
    }

    #[test]
    fn a_stranger_and_noise_are_not_answered() {
        let (one, two, stranger) = (host(1), host(2), host(9));
        two.knows(&[&one]);
        stranger.knows(&[&two]);
        two.sent.datagrams.borrow_mut().clear();
        assert_eq!(carry(&[&two, &stranger]), 1, "the stranger's own word");
        for length in [0, 1, 4, 31, 32, 64, 92, 148, 1500] {
            for kind in 0..=5u8 {
                let mut noise = vec![kind; length];
                noise.iter_mut().skip(1).take(3).for_each(|byte| *byte = 0);
                two.peers.arrive(at(9).ip(), &noise, &mut vec![0; LONGEST], &two.sent);
            }
        }
        assert!(two.sent.datagrams.borrow().is_empty());
        assert_eq!(two.has(), [] as [Vec<u8>; 0]);
    }

    #[test]
    fn a_host_that_was_begun_again_is_understood_at_once() {
        let (one, two) = (host(1), host(2));
        one.knows(&[&two]);
        two.knows(&[&one]);
        carry(&[&one, &two]);
        let again = Host {
            number: 2,
            peers: Peers::new(two.key.clone(), address(2)),
            key: two.key,
            sent: Sent::default(),
        };
        again.knows(&[&one]);
        carry(&[&one, &again]);
        one.says(&good(1, 2));
        carry(&[&one, &again]);
        assert_eq!(again.has(), [good(1, 2)]);
    }

    #[test]
    fn who_is_no_peer_any_more_is_not_heard() {
        let (one, two) = (host(1), host(2));
        one.knows(&[&two]);
        two.knows(&[&one]);
        carry(&[&one, &two]);
        two.knows(&[]);
        one.says(&good(1, 2));
        carry(&[&one, &two]);
        assert_eq!(two.has(), [] as [Vec<u8>; 0]);
    }
}
