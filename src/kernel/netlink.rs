//! Netlink without a runtime: messages are put one after the other into one buffer, sent with one call over a
//! blocking socket, and the answers are read until the last one is acknowledged. Knows nothing of networks.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Refusal;

/// `NLMSG_ERROR` of `linux/netlink.h`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_CAPPED`: the request is not repeated in an error, only its header.
const CAPPED: u16 = 0x100;
/// `NLM_F_DUMP_INTR`: the dump is torn, something changed while it was read.
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const ERROR_TEXT: u16 = 1;
/// Bytes of a netlink header.
const HEADER: usize = 16;
/// The kernel fills no longer datagram than this (`netlink_dump` in `net/netlink/af_netlink.c`).
const LONGEST_ANSWER: usize = 32 * 1024;
/// How often a torn dump is read again before it is an error.
pub(super) const TORN_DUMPS: usize = 50;

/// An answer: the sequence number of the request, the message's type, flags and body.
pub(super) struct Answer<'a> {
    pub(super) sequence: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: &'a [u8],
}

/// An open netlink socket, in the namespace in which it was opened.
pub(super) struct Channel {
    socket: Socket,
    /// The last datagram. Its room is never filled with zeros: those pages would be touched for nothing.
    answers: Vec<u8>,
    /// The next sequence number. Never used twice, so that an answer to an earlier question, left unread after a
    /// fault, is not taken for the answer to this one.
    sequence: u32,
}

impl Channel {
    /// Opens a socket of the netlink protocol in the calling thread's namespace.
    pub(super) fn open(protocol: isize) -> Result<Self, Refusal> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, answers: Vec::with_capacity(LONGEST_ANSWER), sequence: 1 })
    }

    /// The socket itself, for options and for handing it on.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket itself, to change its options.
    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Takes as many sequence numbers in a row; returns the first.
    pub(super) fn number(&mut self, count: u32) -> u32 {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(count).max(1);
        first
    }

    /// Sends a buffer of messages.
    pub(super) fn send(&self, buffer: &[u8]) -> Result<(), Refusal> {
        retry(|| self.socket.send(buffer, 0))?;
        Ok(())
    }

    /// Reads away what is left of an answer that was given up. The kernel refuses a new dump while an old one is not
    /// read to its end.
    pub(super) fn drain(&mut self) {
        const MOST: usize = 100_000;
        const MOST_ERRORS: usize = 8;
        let mut errors = 0;
        for _ in 0..MOST {
            self.answers.clear();
            match self.socket.recv(&mut self.answers, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => errors += 1,
            }
            if errors > MOST_ERRORS {
                return;
            }
        }
    }

    /// Reads one datagram and hands its messages to `each` until that returns `true`: then all is said.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Answer<'_>) -> bool) -> Result<bool, Refusal> {
        self.answers.clear();
        retry(|| self.socket.recv(&mut self.answers, 0))?;
        let mut rest: &[u8] = &self.answers;
        while rest.len() >= HEADER {
            let field = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
            let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            let size = word(0) as usize;
            if size < HEADER || size > rest.len() {
                return Err(Refusal::because(libc::EBADMSG, "an answer of the kernel is malformed"));
            }
            let answer =
                Answer { sequence: word(8), kind: field(4), flags: field(6), body: &rest[HEADER..size] };
            if each(answer) {
                return Ok(true);
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
        Ok(false)
    }
}

/// Calls again when a signal came in between.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What an error message says: `None` for an acknowledgement.
pub(super) fn refusal(answer: &Answer<'_>) -> Option<Refusal> {
    if answer.kind != ERROR || answer.body.len() < 4 {
        return None;
    }
    let code = i32::from_ne_bytes([answer.body[0], answer.body[1], answer.body[2], answer.body[3]]);
    if code == 0 {
        return None;
    }
    let text = (answer.flags & CAPPED != 0)
        .then(|| answer.body.get(4 + HEADER..))
        .flatten()
        .and_then(|attributes| {
            NlasIterator::new(attributes)
                .flatten()
                .find(|nla| nla.kind() == ERROR_TEXT)
                .map(|nla| nla.value().to_vec())
        })
        .map(|text| String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned());
    Some(Refusal { errno: -code, text })
}

/// Whether a dump that ended so is to be asked for again: others changed what it lists, or its answer did not fit.
pub(super) fn is_torn(refusal: &Refusal) -> bool {
    [libc::EAGAIN, libc::EINTR, libc::EBUSY, libc::ENOBUFS].contains(&refusal.errno)
}

/// Whether a message acknowledges or refuses.
pub(super) fn is_verdict(answer: &Answer<'_>) -> bool {
    answer.kind == ERROR
}

/// Requests to rtnetlink that are sent together. They are not atomic: those after a failed one are run all the
/// same.
#[derive(Default)]
pub(super) struct Requests {
    buffer: Vec<u8>,
    /// Where each header begins.
    starts: Vec<usize>,
}

impl Requests {
    /// Adds a request.
    pub(super) fn push(&mut self, message: impl Into<NetlinkMessage<RouteNetlinkMessage>>, flags: u16) {
        let mut message = message.into();
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let start = self.buffer.len();
        self.buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.buffer[start..]);
        self.starts.push(start);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// As they are sent, with numbers of the channel: for whoever sends them at another time.
    pub(super) fn numbered(mut self, channel: &mut Channel) -> Vec<u8> {
        let first = channel.number(self.starts.len() as u32);
        self.finish(first);
        self.buffer
    }

    /// Numbers the requests from `first` on, and asks for the acknowledgement of the last; the others answer only if
    /// they fail. Returns how many there are.
    fn finish(&mut self, first: u32) -> u32 {
        for (number, start) in (first..).zip(&self.starts) {
            self.buffer[start + 8..start + 12].copy_from_slice(&number.to_ne_bytes());
        }
        if let Some(last) = self.starts.last() {
            let flags = u16::from_ne_bytes([self.buffer[last + 6], self.buffer[last + 7]]) | NLM_F_ACK;
            self.buffer[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        self.starts.len() as u32
    }
}

/// An rtnetlink socket.
pub(super) struct Route(Channel);

impl Route {
    /// Opens one in the calling thread's namespace.
    pub(super) fn open() -> Result<Self, Refusal> {
        Channel::open(NETLINK_ROUTE).map(Self)
    }

    /// The channel below.
    pub(super) fn channel(&mut self) -> &mut Channel {
        &mut self.0
    }

    /// Sends the requests; returns the index of the first that was refused. Messages that come back besides
    /// (asked for with `NLM_F_ECHO`) go to `each`.
    pub(super) fn run(
        &mut self,
        mut requests: Requests,
        mut each: impl FnMut(&Answer<'_>),
    ) -> Result<(), (usize, Refusal)> {
        if requests.is_empty() {
            return Ok(());
        }
        let start = self.0.number(requests.starts.len() as u32);
        let count = requests.finish(start);
        let all = |refusal| (0, refusal);
        self.0.send(&requests.buffer).map_err(all)?;
        let mut first: Option<(usize, Refusal)> = None;
        loop {
            let done = self.0.receive(|answer| {
                let number = answer.sequence.wrapping_sub(start);
                if number >= count {
                    return false;
                }
                if !is_verdict(&answer) {
                    each(&answer);
                    return false;
                }
                if let Some(refusal) = refusal(&answer)
                    && first.as_ref().is_none_or(|(at, _)| (number as usize) < *at)
                {
                    first = Some((number as usize, refusal));
                }
                number + 1 == count
            });
            if done.map_err(all)? {
                return first.map_or(Ok(()), Err);
            }
        }
    }

    /// Asks for one thing, and reads the answer.
    pub(super) fn get<T>(
        &mut self,
        message: RouteNetlinkMessage,
        read: impl Fn(&Answer<'_>) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let mut requests = Requests::default();
        requests.push(message, 0);
        let mut found = None;
        self.run(requests, |answer| found = read(answer)).map_err(|(_, refusal)| refusal)?;
        Ok(found)
    }

    /// Asks for all of a kind, and reads each answer; a dump that was torn by a change is read again.
    pub(super) fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        read: impl Fn(&Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        for _ in 0..TORN_DUMPS {
            let mut requests = Requests::default();
            requests.push(message.clone(), NLM_F_DUMP);
            let number = self.0.number(1);
            requests.finish(number);
            self.0.send(&requests.buffer)?;
            if let Some(list) = self.read_dump(number, &read)? {
                return Ok(list);
            }
        }
        Err(Refusal::because(
            libc::EAGAIN,
            "each time the kernel's list was read it changed, or the answer was lost",
        ))
    }

    /// One dump, or nothing where it was torn.
    fn read_dump<T>(
        &mut self,
        number: u32,
        read: impl Fn(&Answer<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        let mut list = Vec::new();
        let mut torn = false;
        let mut refused = None;
        loop {
            let done = self.0.receive(|answer| {
                if answer.sequence != number {
                    return false;
                }
                torn |= answer.flags & DUMP_INTERRUPTED != 0;
                refused = refused.take().or_else(|| refusal(&answer));
                list.extend(read(&answer));
                answer.kind == DONE || is_verdict(&answer)
            });
            match (done, refused.take()) {
                (Err(refusal), _) | (_, Some(refusal)) if is_torn(&refusal) => {
                    self.0.drain();
                    return Ok(None);
                }
                (Err(refusal), _) | (_, Some(refusal)) => return Err(refusal),
                (Ok(true), None) => return Ok((!torn).then_some(list)),
                (Ok(false), None) => {}
            }
        }
    }
}

/// A message of rtnetlink, if it is one that can be read.
pub(super) fn parse(answer: &Answer<'_>) -> Option<RouteNetlinkMessage> {
    answer.parse()
}

impl Answer<'_> {
    /// What it says, if it is a message of that kind that can be read.
    pub(super) fn parse<M: NetlinkDeserializable>(&self) -> Option<M> {
        if self.kind <= DONE {
            return None;
        }
        let mut whole = Vec::with_capacity(HEADER + self.body.len());
        whole.extend(((HEADER + self.body.len()) as u32).to_ne_bytes());
        whole.extend(self.kind.to_ne_bytes());
        whole.extend(self.flags.to_ne_bytes());
        whole.extend(self.sequence.to_ne_bytes());
        whole.extend([0; 4]);
        whole.extend(self.body);
        match NetlinkMessage::<M>::deserialize(&whole).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }
}

/// A request as it is sent, with an empty header.
pub(super) fn request(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
    NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message))
}
