//! nf_tables on the wire: attributes, messages, and batches that the kernel runs as one transaction.
//!
//! Written by hand: of the twelve expressions that the ruleset needs, `netlink-packet-netfilter` 0.4 knows six
//! and takes the others as raw attributes. One writer for all of them is shorter than two.
//! Numbers are those of `linux/netfilter/nf_tables.h` and `linux/netfilter/nfnetlink.h`.

use super::super::{
    Refusal,
    netlink::{Channel, DUMP_INTERRUPTED, TORN_DUMPS, is_torn, is_verdict, refusal},
};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Refuse what exists.
pub(super) const EXCL: u16 = 0x200;
/// Make what does not exist.
pub(super) const CREATE: u16 = 0x400;
/// Put a rule behind those that are there.
pub(super) const APPEND: u16 = 0x800;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NETLINK_NETFILTER: isize = 12;

/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
pub(super) const INET: u8 = 1;
/// `NFPROTO_BRIDGE`: frames on their way through a bridge.
pub(super) const BRIDGE: u8 = 7;

/// `NFT_MSG_*`.
pub(super) mod message {
    pub(in super::super) const NEW_TABLE: u16 = 0;
    pub(in super::super) const GET_TABLE: u16 = 1;
    pub(in super::super) const DELETE_TABLE: u16 = 2;
    pub(in super::super) const NEW_CHAIN: u16 = 3;
    pub(in super::super) const GET_CHAIN: u16 = 4;
    pub(in super::super) const DELETE_CHAIN: u16 = 5;
    pub(in super::super) const NEW_RULE: u16 = 6;
    pub(in super::super) const GET_RULE: u16 = 7;
    pub(in super::super) const DELETE_RULE: u16 = 8;
    pub(in super::super) const NEW_SET: u16 = 9;
    pub(in super::super) const DELETE_SET: u16 = 11;
    pub(in super::super) const NEW_ELEMENT: u16 = 12;
    pub(in super::super) const GET_ELEMENT: u16 = 13;
    pub(in super::super) const DELETE_ELEMENT: u16 = 14;
    /// What the kernel is not done with when it answers.
    pub(in super::super) const DELETIONS: [u16; 5] =
        [DELETE_TABLE, DELETE_CHAIN, DELETE_RULE, DELETE_SET, DELETE_ELEMENT];
}

const NLA_F_NESTED: u16 = 0x8000;

/// Attributes: type, length, value, each aligned to four bytes.
#[derive(Default, Clone)]
pub(super) struct Attributes(pub(super) Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.put(kind, value)
    }

    /// A number, in network order as all of nf_tables' own numbers.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    pub(super) fn long(&mut self, kind: u16, value: u64) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// A text with its closing NUL.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let at = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let length = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[at + 2..at + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }
}

/// Puts one message behind the others.
pub(super) fn put_message(
    buffer: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    body: &[u8],
) {
    let (kind, resource) = match kind {
        NFNL_MSG_BATCH_BEGIN | NFNL_MSG_BATCH_END => (kind, NFNL_SUBSYS_NFTABLES),
        kind => (NFNL_SUBSYS_NFTABLES << 8 | kind, 0),
    };
    buffer.extend(((20 + body.len()) as u32).to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    buffer.extend(sequence.to_ne_bytes());
    buffer.extend([0; 4]);
    buffer.extend([family, 0]);
    buffer.extend(resource.to_be_bytes());
    buffer.extend(body);
}

/// Changes that are all made or none.
#[derive(Default)]
pub(in super::super) struct Batch {
    messages: Vec<(u16, u16, u8, Vec<u8>, usize)>,
}

impl Batch {
    /// Adds a message on behalf of the step `owner`.
    pub(super) fn push(&mut self, kind: u16, flags: u16, family: u8, body: Attributes, owner: usize) {
        self.messages.push((kind, flags, family, body.0, owner));
    }

    /// Adds all of another batch.
    pub(in super::super) fn append(&mut self, other: Self) {
        self.messages.extend(other.messages);
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The whole transaction as bytes: the messages between a beginning and an end, the last one acknowledged,
    /// numbered from `first` on.
    fn encode(&self, first: u32) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(256 * self.messages.len());
        put_message(&mut buffer, NFNL_MSG_BATCH_BEGIN, 0, first, 0, &[]);
        let last = self.messages.len();
        for (number, (kind, flags, family, body, _)) in self.messages.iter().enumerate() {
            let ack = if number + 1 == last { NLM_F_ACK } else { 0 };
            put_message(&mut buffer, *kind, flags | ack, first + number as u32 + 1, *family, body);
        }
        put_message(&mut buffer, NFNL_MSG_BATCH_END, 0, first + last as u32 + 1, 0, &[]);
        buffer
    }
}

/// A batch that was not run.
pub(in super::super) struct Rejected {
    /// On whose behalf the refused message was.
    pub(in super::super) owner: usize,
    /// Why.
    pub(in super::super) refusal: Refusal,
    /// What became of the batch.
    pub(in super::super) outcome: Outcome,
}

/// What became of a batch that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    /// Nothing of it was done.
    Undone,
    /// All of it may have been done: the answer was lost.
    Unknown,
}

/// A socket to nf_tables, and whether closing it would wait until the kernel is done with what was deleted.
pub(in super::super) struct Nft(Channel, bool);

impl Nft {
    /// Opens one in the calling thread's namespace.
    pub(in super::super) fn open() -> Result<Self, Refusal> {
        Channel::open(NETLINK_NETFILTER).map(|channel| Self(channel, false))
    }

    /// Whether closing it would wait.
    pub(in super::super) fn waits_at_its_end(&self) -> bool {
        self.1
    }

    /// Another process closes it, later.
    pub(in super::super) fn is_held_by_another(&mut self) {
        self.1 = false;
    }

    /// Runs a batch; on refusal says on whose behalf the refused message was.
    pub(in super::super) fn run(&mut self, batch: &Batch) -> Result<(), Rejected> {
        /// A transaction runs against a generation of the rules; if another program's came first, again.
        const TRIES: usize = 100;
        for _ in 1..TRIES {
            match self.run_once(batch) {
                Err(Rejected { refusal, outcome: Outcome::Undone, .. })
                    if [libc::EAGAIN, libc::EINTR, libc::EBUSY].contains(&refusal.errno) => {}
                result => return result,
            }
        }
        self.run_once(batch)
    }

    fn run_once(&mut self, batch: &Batch) -> Result<(), Rejected> {
        let owner = |number: u32| {
            batch.messages.get((number as usize).saturating_sub(1)).map_or(0, |message| message.4)
        };
        let last = batch.messages.len() as u32;
        let begin = self.0.number(last + 2);
        let buffer = batch.encode(begin);
        let rejected = |outcome| move |refusal| Rejected { owner: owner(1), refusal, outcome };
        self.make_room(buffer.len()).map_err(rejected(Outcome::Undone))?;
        self.0.send(&buffer).map_err(rejected(Outcome::Undone))?;
        self.1 |= batch.messages.iter().any(|message| message::DELETIONS.contains(&message.0));
        let mut first: Option<(u32, Refusal)> = None;
        loop {
            let done = self.0.receive(|answer| {
                let number = answer.sequence.wrapping_sub(begin);
                if !is_verdict(&answer) || number > last {
                    return false;
                }
                if let Some(refusal) = refusal(&answer)
                    && first.is_none()
                {
                    first = Some((number, refusal));
                }
                number == last || number == 0
            });
            // Without its answer, nobody knows what became of a batch that was sent.
            if done.map_err(rejected(Outcome::Unknown))? {
                return first.map_or(Ok(()), |(number, refusal)| {
                    Err(Rejected { owner: owner(number), refusal, outcome: Outcome::Undone })
                });
            }
        }
    }

    /// A large batch must fit into the socket's send buffer as one datagram, and its refusals into the other.
    fn make_room(&mut self, bytes: usize) -> Result<(), Refusal> {
        const USUAL: usize = 100_000;
        if bytes > USUAL {
            let room = i32::try_from(bytes * 2).unwrap_or(i32::MAX);
            rustix::net::sockopt::set_socket_send_buffer_size_force(self.0.socket(), room as usize)?;
            rustix::net::sockopt::set_socket_recv_buffer_size_force(self.0.socket(), room as usize)?;
        }
        Ok(())
    }

    /// Asks one question; `None` where the thing is not there.
    pub(super) fn get(
        &mut self,
        kind: u16,
        family: u8,
        body: &Attributes,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        for _ in 1..TORN_DUMPS {
            match self.get_once(kind, family, body) {
                // A question changes nothing, so it can be asked again where its answer was lost.
                Err(refusal) if is_torn(&refusal) => self.0.drain(),
                answer => return answer,
            }
        }
        self.get_once(kind, family, body)
    }

    fn get_once(&mut self, kind: u16, family: u8, body: &Attributes) -> Result<Option<Vec<u8>>, Refusal> {
        let mut buffer = Vec::new();
        let number = self.0.number(1);
        put_message(&mut buffer, kind, NLM_F_ACK, number, family, &body.0);
        self.0.send(&buffer)?;
        let mut found = None;
        let mut refused = None;
        loop {
            let done = self.0.receive(|answer| {
                if answer.sequence != number {
                    return false;
                }
                if is_verdict(&answer) {
                    refused = refusal(&answer);
                    return true;
                }
                found = answer.body.get(4..).map(<[u8]>::to_vec);
                false
            })?;
            if done {
                return match refused {
                    Some(refusal) if refusal.is_missing() => Ok(None),
                    Some(refusal) => Err(refusal),
                    None => Ok(found),
                };
            }
        }
    }

    /// Asks for all of a kind.
    pub(super) fn list(&mut self, kind: u16, family: u8) -> Result<Vec<Vec<u8>>, Refusal> {
        self.list_of(kind, family, &Attributes::default())
    }

    /// Asks for all of a kind that is in what the body names. A list that another program's transaction tore is asked
    /// for again; where none is whole, that is an error, and not a list with holes.
    pub(super) fn list_of(
        &mut self,
        kind: u16,
        family: u8,
        body: &Attributes,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        for _ in 0..TORN_DUMPS {
            if let Some(list) = self.list_once(kind, family, body)? {
                return Ok(list);
            }
        }
        Err(Refusal::because(
            libc::EAGAIN,
            "each time the firewall was read it changed, or the answer was lost",
        ))
    }

    /// One list, or nothing where it was torn.
    fn list_once(
        &mut self,
        kind: u16,
        family: u8,
        body: &Attributes,
    ) -> Result<Option<Vec<Vec<u8>>>, Refusal> {
        const NLM_F_DUMP: u16 = 0x300;
        const DONE: u16 = 3;
        let mut buffer = Vec::new();
        let number = self.0.number(1);
        put_message(&mut buffer, kind, NLM_F_DUMP, number, family, &body.0);
        self.0.send(&buffer)?;
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
                if answer.kind != DONE && !is_verdict(&answer) {
                    list.extend(answer.body.get(4..).map(<[u8]>::to_vec));
                }
                answer.kind == DONE || is_verdict(&answer)
            });
            match done {
                // The kernel could not keep what it had to say (`ENOBUFS`), or was stopped in it.
                Err(refusal) if is_torn(&refusal) => {
                    self.0.drain();
                    return Ok(None);
                }
                Err(refusal) => return Err(refusal),
                Ok(false) => {}
                Ok(true) => break,
            }
        }
        match refused {
            Some(refusal) if is_torn(&refusal) => Ok(None),
            Some(refusal) => Err(refusal),
            None => Ok((!torn).then_some(list)),
        }
    }

    /// The socket below.
    pub(in super::super) fn channel(&self) -> &Channel {
        &self.0
    }

    /// The socket below, for the other parts of netfilter: it serves them all, and a second one would cost its
    /// closing.
    pub(in super::super) fn channel_mut(&mut self) -> &mut Channel {
        &mut self.0
    }
}
