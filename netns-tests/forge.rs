//! What attackers use: frames made by hand, ears that hear what arrives, and sockets with a source port of choice.
//! Knows nothing of rnet.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketType, sockopt},
};

use crate::{lab::Place, traffic};

/// How long to listen for what must not arrive. On one machine it would take a millisecond.
const SHORT: Duration = Duration::from_millis(300);
/// How long what must arrive may take.
const LONG: Duration = Duration::from_secs(15);

/// `ETH_P_*` of `linux/if_ether.h`.
pub const IP4: u16 = 0x0800;
/// `ETH_P_ARP`.
pub const ARP: u16 = 0x0806;
/// `ETH_P_IPV6`.
pub const IP6: u16 = 0x86dd;
/// The hardware address of everybody.
pub const ALL: [u8; 6] = [0xff; 6];

/// A socket that sends and receives whole frames on a link.
pub struct Wire(OwnedFd);

impl Wire {
    /// On a link of a place; `None` where there is no such link.
    pub fn try_on(place: &Place, link: &str) -> Option<Self> {
        const ETH_P_ALL: u16 = 3;
        place.inside(|| {
            let index = rustix::net::netdevice::name_to_index(
                rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?,
                link,
            );
            // SAFETY: a new descriptor that nobody else has.
            let socket = unsafe {
                let number = libc::socket(
                    libc::AF_PACKET,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    i32::from(ETH_P_ALL.to_be()),
                );
                assert!(number >= 0, "a packet socket: {}", std::io::Error::last_os_error());
                OwnedFd::from_raw_fd(number)
            };
            let mut address = link_address(index.ok()?);
            address.sll_protocol = ETH_P_ALL.to_be();
            // SAFETY: the address is one of `sockaddr_ll`, with its length.
            let bound =
                unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LENGTH) };
            (bound == 0).then_some(Self(socket))
        })
    }

    /// On a link of a place.
    #[track_caller]
    pub fn on(place: &Place, link: &str) -> Self {
        Self::try_on(place, link).unwrap_or_else(|| panic!("no link {link} in {}", place.name()))
    }

    /// All frames that came by until now, in both directions.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let mut list = Vec::new();
        loop {
            let mut buffer = vec![0; 65536];
            let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: the buffer is valid for its length.
            let count = unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_DONTWAIT) };
            let Ok(count) = usize::try_from(count) else { return list };
            buffer.truncate(count);
            list.push(buffer);
        }
    }

    /// Sends a frame; whether the link took it.
    pub fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the buffer is valid for its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        sent == frame.len() as isize
    }

    /// Whether a frame with this word in it arrives soon.
    pub fn hears(&self, word: &str) -> bool {
        self.hears_within(word, SHORT)
    }

    /// A frame with this word in it arrives.
    #[track_caller]
    pub fn must_hear(&self, word: &str) {
        assert!(self.hears_within(word, LONG), "{word:?} does not arrive");
    }

    /// No frame with this word in it arrives.
    #[track_caller]
    pub fn must_not_hear(&self, word: &str) {
        assert!(!self.hears(word), "{word:?} arrives");
    }

    fn hears_within(&self, word: &str, time: Duration) -> bool {
        const OUTGOING: u8 = 4;
        let end = Instant::now() + time;
        let mut buffer = [0u8; 2048];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            if !poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0) {
                return false;
            }
            let mut from = link_address(0);
            let mut length = ADDRESS_LENGTH;
            // SAFETY: buffer and address are valid for the lengths that go with them.
            let count = unsafe {
                let (at, room) = (buffer.as_mut_ptr().cast(), buffer.len());
                libc::recvfrom(self.0.as_raw_fd(), at, room, 0, (&raw mut from).cast(), &raw mut length)
            };
            let frame = &buffer[..usize::try_from(count).unwrap_or(0)];
            if from.sll_pkttype != OUTGOING && frame.windows(word.len()).any(|part| part == word.as_bytes()) {
                return true;
            }
        }
    }
}

const ADDRESS_LENGTH: u32 = size_of::<libc::sockaddr_ll>() as u32;

fn link_address(index: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// The bytes of a hardware address.
pub fn mac(text: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    for (byte, part) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).expect("hex digits");
    }
    bytes
}

/// The link-local address that goes with a hardware address (RFC 4291, appendix A).
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A frame.
pub fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// A claim that an address is behind a hardware address: as a request (1) or as an answer (2).
pub fn arp_claim(operation: u16, address: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let target = if operation == 2 { ALL } else { [0; 6] };
    let head = [0, 1, 8, 0, 6, 4];
    [&head[..], &operation.to_be_bytes(), &mac, &address.octets(), &target, &address.octets()].concat()
}

/// A UDP datagram, checksums and all, from one socket address to another of the same family.
pub fn udp(from: SocketAddr, to: SocketAddr, data: &str) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut datagram = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(data.as_bytes());
    let sum = transport_sum(from.ip(), to.ip(), 17, &datagram);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(from, to, 17, &[], &datagram),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(from, to, 17, &datagram),
        _ => panic!("addresses of two families"),
    }
}

/// An IPv4 packet with options (a multiple of four bytes).
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    fragment(from, to, protocol, options, 0, payload)
}

/// An IPv4 packet with this in its field of flags and fragment offset.
pub fn fragment(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    offset: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = 20 + options.len();
    let mut head = vec![0x40 | (length / 4) as u8, 0];
    head.extend(((length + payload.len()) as u16).to_be_bytes());
    head.extend(4711u16.to_be_bytes());
    head.extend(offset.to_be_bytes());
    head.extend([64, protocol, 0, 0]);
    head.extend(from.octets());
    head.extend(to.octets());
    head.extend(options);
    let sum = checksum(&head);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [&head[..], payload].concat()
}

/// An IPv6 packet. The hop limit is the one that neighbour discovery asks for.
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0x60, 0, 0, 0];
    let length = (payload.len() as u16).to_be_bytes();
    [&head[..], &length, &[next, 255], &from.octets(), &to.octets(), payload].concat()
}

/// An ICMPv6 message with its checksum.
pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = transport_sum(from.into(), to.into(), 58, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A router advertisement for everybody: a default route, and a prefix to take an address from.
pub fn router_advertisement(from: Ipv6Addr, prefix: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 8];
    message.extend(1800u16.to_be_bytes());
    message.extend([0; 8]);
    message.extend([3, 4, 64, 0xc0]);
    message.extend(86400u32.to_be_bytes());
    message.extend(14400u32.to_be_bytes());
    message.extend([0; 4]);
    message.extend(prefix.octets());
    icmp6(from, ALL_NODES, &message)
}

/// All nodes of a link (RFC 4291), and the hardware address that goes with it.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The hardware address of all nodes.
pub const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// An unasked neighbour advertisement: this address is behind this hardware address, believe it.
pub fn neighbour_claim(from: Ipv6Addr, address: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &address.octets(), &[2, 1], &mac].concat();
    icmp6(from, ALL_NODES, &message)
}

fn transport_sum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = (payload.len() as u32).to_be_bytes();
    checksum(&[&bytes(from)[..], &bytes(to), &length, &[0, 0, 0, protocol], payload].concat())
}

/// The checksum of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Connects over TCP from a port of choice; what the server says, if one answers.
pub fn tcp_from_port(place: &Place, port: u16, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().expect("an address and a port");
    let socket = place.inside(|| rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)).ok()?;
    sockopt::set_socket_reuseaddr(&socket, true).ok()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SHORT)).ok()?;
    rustix::net::bind(&socket, &SocketAddr::from(([0, 0, 0, 0], port))).ok()?;
    rustix::net::connect(&socket, &to).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SHORT)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A UDP client that keeps its source port.
pub struct Client(UdpSocket);

impl Client {
    /// At an address (with port 0 for any) of a place, talking to one other address.
    #[track_caller]
    pub fn new(place: &Place, at: &str, to: &str) -> Self {
        let socket = place.inside(|| UdpSocket::bind(at)).expect("a socket");
        socket.connect(to).expect("an address and a port");
        Self(socket)
    }

    /// Sends without waiting for anything.
    pub fn say(&self, word: &str) {
        // An ICMP error of an earlier datagram is told once, instead of sending.
        if self.0.send(word.as_bytes()).is_err() {
            let _ = self.0.send(word.as_bytes());
        }
    }

    /// Sends, and who answered soon, if anybody.
    pub fn ask(&self) -> Option<String> {
        let mut buffer = [0; 128];
        // Answers to earlier questions do not count.
        let _ = self.0.set_nonblocking(true);
        while self.0.recv(&mut buffer).is_ok() {}
        let _ = self.0.set_nonblocking(false);
        let _ = self.0.set_read_timeout(Some(SHORT));
        self.say("hello");
        let end = Instant::now() + SHORT;
        loop {
            match traffic::heard(&self.0, &mut buffer) {
                Ok(count) => {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    return text.split(' ').next().map(str::to_owned);
                }
                // An ICMP error of an earlier datagram.
                Err(error)
                    if error.kind() == std::io::ErrorKind::ConnectionRefused && Instant::now() < end =>
                {
                    self.say("hello");
                    std::thread::yield_now();
                }
                Err(_) => return None,
            }
        }
    }
}

impl Client {
    /// Goes on sending until this place answers. A flow that leads elsewhere is kept alive by that, and never does.
    #[track_caller]
    pub fn must_reach(&self, place: &Place) {
        let end = Instant::now() + LONG;
        let mut last = None;
        while last.as_deref() != Some(place.name()) {
            assert!(Instant::now() < end, "{} does not answer, but {last:?}", place.name());
            last = self.ask();
        }
    }
}

/// Waits for the short while in which something would happen that must not.
pub fn for_a_short_while(what: &impl AsFd) {
    let left = Timespec { tv_sec: 0, tv_nsec: i64::from(SHORT.subsec_nanos()) };
    let _ = poll(&mut [PollFd::new(what, PollFlags::empty())], Some(&left));
}
