//! The kernel's floor: sends the netlink messages of an attach with one published port, as rnet sends them, and does
//! nothing else. No options, no files, no locks, no choice, no check. `benches/attach.rs` measures rnet against it.
//!
//! `floor attach BRIDGE GROUP NETNS LINK ADDRESS/PREFIX GATEWAY PORT ALIAS`, `floor detach` with the same words, and
//! without words it ends at once: what is left then is the cost of a process.

use std::{
    error::Error,
    fs,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
};

use netlink_sys::Socket;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

type Done<T = ()> = Result<T, Box<dyn Error>>;

/// What is attached, all chosen.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The bridge.
    pub bridge: String,
    /// The interface group of the network.
    pub group: u32,
    /// The namespace file of the container.
    pub netns: String,
    /// The host's end of the veth pair.
    pub link: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The length of its subnet's prefix.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// The host port that leads to port 80 of the container.
    pub port: u16,
    /// The text on the host's end.
    pub alias: String,
}

impl Endpoint {
    /// As words of the command.
    #[must_use]
    pub fn words(&self) -> [String; 8] {
        let address = format!("{}/{}", self.address, self.prefix);
        let (group, gateway, port) =
            (self.group.to_string(), self.gateway.to_string(), self.port.to_string());
        [
            self.bridge.clone(),
            group,
            self.netns.clone(),
            self.link.clone(),
            address,
            gateway,
            port,
            self.alias.clone(),
        ]
    }

    fn of(words: &[String]) -> Done<Self> {
        let [bridge, group, netns, link, address, gateway, port, alias] = words else {
            return Err("eight words".into());
        };
        let (address, prefix) = address.split_once('/').ok_or("ADDRESS/PREFIX")?;
        Ok(Self {
            bridge: bridge.clone(),
            group: group.parse()?,
            netns: netns.clone(),
            link: link.clone(),
            address: address.parse()?,
            prefix: prefix.parse()?,
            gateway: gateway.parse()?,
            port: port.parse()?,
            alias: alias.clone(),
        })
    }

    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.address.octets();
        [0x02, 0x42, a, b, c, d]
    }
}

fn main() -> Done {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        None => Ok(()),
        Some((verb, rest)) if verb == "attach" => attach(&Endpoint::of(rest)?),
        Some((verb, rest)) if verb == "detach" => detach(&Endpoint::of(rest)?),
        Some((verb, _)) => Err(format!("{verb}: attach or detach").into()),
    }
}

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ECHO: u16 = 8;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;
const NEWSETELEM: u16 = 10 << 8 | 12;
const GETSETELEM: u16 = 10 << 8 | 13;
const DELSETELEM: u16 = 10 << 8 | 14;

const INET: u8 = 1;
const BRIDGE: u8 = 7;

/// Makes everything that rnet makes.
pub fn attach(endpoint: &Endpoint) -> Done {
    let host = Socket::new(0)?;
    let netns = fs::File::open(&endpoint.netns)?;
    let bridge = index_of(&host, &endpoint.bridge)?.ok_or("no bridge")?;
    let (link, peer) = make_pair(&host, endpoint, bridge, netns.as_raw_fd() as u32)?;
    fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", endpoint.link), "1")?;
    let inside = enter(&netns, || {
        fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1")?;
        Socket::new(0)
    })??;
    send(&inside, &inner(endpoint, peer), |_, _| ())?;
    send(&Socket::new(12)?, &elements(endpoint, NEWSETELEM, CREATE | EXCL), |_, _| ())?;
    send(&host, &port(endpoint, link), |_, _| ())
}

/// Unmakes it, and waits as long as the kernel does.
pub fn detach(endpoint: &Endpoint) -> Done {
    send(&Socket::new(12)?, &elements(endpoint, DELSETELEM, 0), |_, _| ())?;
    let host = Socket::new(0)?;
    let index = index_of(&host, &endpoint.link)?.ok_or("no link")?;
    let mut buffer = Messages::default();
    buffer.put(DELLINK, ACK, &link_header(index, 0), |_| ());
    send(&host, &buffer, |_, _| ())
}

/// Deletes all links of the group, and waits as long as the kernel does.
pub fn detach_group(group: u32) -> Done {
    let mut buffer = Messages::default();
    buffer.put(DELLINK, ACK, &link_header(0, 0), |body| body.number(27, group));
    send(&Socket::new(0)?, &buffer, |_, _| ())
}

/// What there is of the endpoint: the names of its parts.
pub fn left(endpoint: &Endpoint) -> Done<Vec<String>> {
    let mut list = Vec::new();
    if index_of(&Socket::new(0)?, &endpoint.link)?.is_some() {
        list.push(endpoint.link.clone());
    }
    let netns = fs::File::open(&endpoint.netns)?;
    if index_of(&enter(&netns, || Socket::new(0))??, "eth0")?.is_some() {
        list.push("eth0".to_owned());
    }
    let firewall = Socket::new(12)?;
    for (family, set, key, _) in all_elements(endpoint) {
        let mut buffer = Messages::default();
        buffer.put(GETSETELEM, ACK, &[family, 0, 0, 0], |body| element(body, set, &key, &[]));
        if send(&firewall, &buffer, |_, _| ()).is_ok() {
            list.push(format!("an element of {set}"));
        }
    }
    Ok(list)
}

/// Both ends, the peer in the container's namespace; says their indexes.
fn make_pair(host: &Socket, endpoint: &Endpoint, bridge: u32, netns: u32) -> Done<(u32, u32)> {
    let mut buffer = Messages::default();
    buffer.put(NEWLINK, ACK | ECHO | EXCL | CREATE, &link_header(0, 0), |body| {
        body.text(3, &endpoint.link);
        [(4, 1500), (10, bridge), (27, endpoint.group), (31, 1), (32, 1)]
            .iter()
            .for_each(|(kind, n)| body.number(*kind, *n));
        body.nest(18, |info| {
            info.bytes(1, b"veth");
            info.nest(2, |data| {
                data.nest(1, |peer| {
                    peer.0.extend(link_header(0, 0));
                    peer.text(3, "eth0");
                    peer.number(4, 1500);
                    peer.bytes(1, &endpoint.mac());
                    [(31, 1), (32, 1), (28, netns)].iter().for_each(|(kind, n)| peer.number(*kind, *n));
                });
            });
        });
    });
    let mut made = (0, 0);
    send(host, &buffer, |kind, body| {
        if kind == NEWLINK {
            made = (word(body, 4), attribute(&body[16..], 5).map_or(0, |value| word(value, 0)));
        }
    })?;
    Ok(made)
}

/// The container's own side, in one buffer.
fn inner(endpoint: &Endpoint, peer: u32) -> Messages {
    let mut buffer = Messages::default();
    let (address, prefix) = (endpoint.address.octets(), endpoint.prefix);
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let broadcast = (u32::from(endpoint.address) | host_bits).to_be_bytes();
    buffer.put(SETLINK, 0, &link_header(1, 1), |_| ());
    buffer.put(NEWADDR, CREATE | EXCL, &[&[2, prefix, 0, 0], &peer.to_ne_bytes()[..]].concat(), |body| {
        [(1, address), (2, address), (4, broadcast)]
            .iter()
            .for_each(|(kind, value)| body.bytes(*kind, value));
    });
    buffer.put(SETLINK, 0, &link_header(peer, 1), |_| ());
    buffer.put(NEWROUTE, ACK | CREATE | EXCL, &[2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0], |body| {
        body.bytes(5, &endpoint.gateway.octets());
        body.number(4, peer);
    });
    buffer
}

/// The port of the bridge, up last.
fn port(endpoint: &Endpoint, link: u32) -> Messages {
    let mut buffer = Messages::default();
    buffer.put(NEWLINK, 0, &link_header(link, 0), |body| {
        body.nest(18, |info| {
            info.text(4, "bridge");
            info.nest(5, |flags| {
                [(33, 0), (4, 1), (8, 0), (9, 0), (39, 1)]
                    .iter()
                    .for_each(|(kind, on)| flags.bytes(*kind, &[*on]));
            });
        });
    });
    let neighbour = [&[7, 0, 0, 0], &link.to_ne_bytes()[..], &[0x40, 0, 4, 0]].concat();
    buffer.put(NEWNEIGH, CREATE | EXCL, &neighbour, |body| body.bytes(2, &endpoint.mac()));
    buffer.put(SETLINK, 0, &link_header(link, 0), |body| body.text(20, &endpoint.alias));
    buffer.put(SETLINK, ACK, &link_header(link, 1), |_| ());
    buffer
}

/// Family, set, key and value of every element of an endpoint with a published port.
fn all_elements(endpoint: &Endpoint) -> [(u8, &'static str, Vec<u8>, Vec<u8>); 8] {
    let mut name = [0; 16];
    name[..endpoint.link.len()].copy_from_slice(endpoint.link.as_bytes());
    let (address, gateway) = (endpoint.address.octets(), endpoint.gateway.octets());
    let [high, low] = endpoint.port.to_be_bytes();
    let loopback = [127, 0, 0, 1];
    let tcp = [6, 0, 0, 0];
    let port = [high, low, 0, 0];
    let [a, b, c, d, e, f] = endpoint.mac();
    let here = [loopback, port, tcp].concat();
    [
        (BRIDGE, "ports", name.to_vec(), Vec::new()),
        (BRIDGE, "port_mac", [&name[..], &[a, b, c, d, e, f, 0, 0]].concat(), Vec::new()),
        (BRIDGE, "port_ip4", [&name[..], &address].concat(), Vec::new()),
        (INET, "publish4_any", [tcp, port].concat(), [address, [0, 80, 0, 0]].concat()),
        (INET, "gateway4", here.clone(), gateway.to_vec()),
        (INET, "container4", here.clone(), address.to_vec()),
        (INET, "port4", here, vec![0, 80]),
        (INET, "loopback4", [address, port, tcp].concat(), loopback.to_vec()),
    ]
}

/// One transaction of the firewall.
fn elements(endpoint: &Endpoint, kind: u16, flags: u16) -> Messages {
    let mut buffer = Messages::default();
    buffer.put(0x10, 0, &[0, 0, 0, 10], |_| ());
    let list = all_elements(endpoint);
    let last = list.len() - 1;
    for (number, (family, set, key, value)) in list.into_iter().enumerate() {
        let value = if kind == NEWSETELEM { value } else { Vec::new() };
        let ack = if number == last { ACK } else { 0 };
        buffer.put(kind, flags | ack, &[family, 0, 0, 0], |body| element(body, set, &key, &value));
    }
    buffer.put(0x11, 0, &[0, 0, 0, 10], |_| ());
    buffer
}

fn element(body: &mut Attributes, set: &str, key: &[u8], value: &[u8]) {
    body.text(1, "rnet");
    body.text(2, set);
    body.nest(3 | NESTED, |list| {
        list.nest(1 | NESTED, |element| {
            element.nest(1 | NESTED, |data| data.bytes(1, key));
            if !value.is_empty() {
                element.nest(2 | NESTED, |data| data.bytes(1, value));
            }
        });
    });
}

/// Attributes of netlink, one behind the other.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.bytes(kind, &[]);
        fill(self);
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Messages of netlink, one behind the other.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Messages {
    fn put(&mut self, kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Attributes)) {
        let mut body = Attributes::default();
        fill(&mut body);
        self.0.extend((16 + header.len() as u32 + body.0.len() as u32).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend((REQUEST | flags).to_ne_bytes());
        self.0.extend([0; 8]);
        self.0.extend(header);
        self.0.extend(body.0);
    }
}

/// `struct ifinfomsg`: family, type, index, flags, and which flags change.
fn link_header(index: u32, up: u32) -> Vec<u8> {
    [0, index, up, up].iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn index_of(socket: &Socket, name: &str) -> Done<Option<u32>> {
    const SKIP_STATISTICS: u32 = 8;
    let mut buffer = Messages::default();
    buffer.put(GETLINK, ACK, &link_header(0, 0), |body| {
        body.text(3, name);
        body.number(29, SKIP_STATISTICS);
    });
    let mut index = None;
    match send(socket, &buffer, |_, body| index = Some(word(body, 4))) {
        Err(error) if error.to_string() != "errno 19" => Err(error),
        _ => Ok(index),
    }
}

/// Sends, and reads until the one acknowledgement; what comes before goes to `each`.
fn send(socket: &Socket, messages: &Messages, mut each: impl FnMut(u16, &[u8])) -> Done {
    const ERROR: u16 = 2;
    socket.send(&messages.0, 0)?;
    let mut answers = [0; 8192];
    loop {
        let length = socket.recv(&mut &mut answers[..], 0)?;
        let mut rest = &answers[..length];
        while rest.len() >= 16 {
            let size = word(rest, 0) as usize;
            let kind = word(rest, 4) as u16;
            let body = &rest[16..size];
            match (kind, word(body, 0).wrapping_neg()) {
                (ERROR, 0) => return Ok(()),
                (ERROR, errno) => return Err(format!("errno {errno}").into()),
                (kind, _) => each(kind, body),
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// The value of an attribute.
fn attribute(mut rest: &[u8], kind: u16) -> Option<&[u8]> {
    while rest.len() >= 4 {
        let header = word(rest, 0);
        let size = (header & 0xffff) as usize;
        if (header >> 16) as u16 == kind {
            return rest.get(4..size);
        }
        rest = rest.get(size.next_multiple_of(4)..)?;
    }
    None
}

/// Does something inside a namespace.
fn enter<T>(netns: &fs::File, work: impl FnOnce() -> T) -> Done<T> {
    let home = fs::File::open("/proc/thread-self/ns/net")?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    let result = work();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(result)
}
