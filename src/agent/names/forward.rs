//! Asks others: the host's resolvers, or those that a container was given. Each question from a port and with an id of
//! its own; at most so many at a time; the same question once. Never asks itself.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::oneshot,
    task,
    time::timeout,
};

use super::{
    answer::{LARGEST, LARGEST_UDP, Question},
    cache::{self, Cache, Key},
    upstream::Upstream,
};

/// So many questions may wait, whoever asks.
const MOST: usize = 1024;
/// How long one server may need for one answer, and all servers together. Clients wait five seconds.
const ONE_ANSWER: Duration = Duration::from_millis(1500);
const ALL_ANSWERS: Duration = Duration::from_millis(4500);
/// A server alone is asked so often.
const TRIES: usize = 2;
/// Where name servers listen.
const PORT: u16 = 53;

/// `RCODE` 2 (RFC 1035, 4.1.1).
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

type Shared = Rc<Vec<u8>>;

/// Who asks others.
#[derive(Debug)]
pub struct Forwarder {
    upstream: Rc<Upstream>,
    cache: RefCell<Cache>,
    waiting: RefCell<HashMap<Key, Vec<oneshot::Sender<Option<Shared>>>>>,
    count: Cell<usize>,
    buffer: RefCell<Vec<u8>>,
    /// How many questions were asked, answered from the cache, and turned away.
    pub counts: Cell<[u64; 3]>,
}

impl Forwarder {
    /// With nothing known yet.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self {
            upstream: Rc::new(upstream),
            cache: RefCell::default(),
            waiting: RefCell::default(),
            count: Cell::new(0),
            buffer: RefCell::new(vec![0; LARGEST]),
            counts: Cell::default(),
        }
    }

    /// The addresses at which this process itself answers: they are not asked.
    pub fn set_own(&self, own: Vec<IpAddr>) {
        self.upstream.set_own(own);
    }

    /// The answer for who asked, whatever it takes; a failure where nobody answers.
    pub async fn ask(self: &Rc<Self>, question: &Question) -> Vec<u8> {
        if self.upstream.is_changed().await {
            self.cache.borrow_mut().clear();
        }
        let key = key(question);
        if let Some(message) = self.cache.borrow().get(&key, Instant::now()) {
            self.note(1);
            return for_asker(&message, question);
        }
        if self.count.get() >= MOST {
            self.note(2);
            return failure(question);
        }
        self.count.set(self.count.get() + 1);
        let answer = self.wait(question, key).await;
        self.count.set(self.count.get() - 1);
        answer.map_or_else(|| failure(question), |message| for_asker(&message, question))
    }

    /// How many questions wait, and how many answers are kept.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.count.get(), self.cache.borrow().len())
    }

    fn note(&self, which: usize) {
        let mut counts = self.counts.get();
        counts[which] += 1;
        self.counts.set(counts);
    }

    /// Who asks what is being asked waits with the first: a question that comes back to us in a circle waits for
    /// itself, and not for ever.
    async fn wait(self: &Rc<Self>, question: &Question, key: Key) -> Option<Shared> {
        let (says, hears) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.borrow_mut();
            let list = waiting.entry(key.clone()).or_default();
            list.push(says);
            list.len() == 1
        };
        if first {
            self.note(0);
            task::spawn_local(Rc::clone(self).work(question.clone(), key));
        }
        hears.await.ok().flatten()
    }

    async fn work(self: Rc<Self>, question: Question, key: Key) {
        let message = timeout(ALL_ANSWERS, self.exchange(&question)).await.ok().flatten().map(Rc::new);
        let waiting = self.waiting.borrow_mut().remove(&key).unwrap_or_default();
        if let Some(message) = &message {
            self.cache.borrow_mut().keep(key, message, Instant::now());
        }
        for one in waiting {
            let _ = one.send(message.clone());
        }
    }

    /// Asks one server after the other. What fails at one may succeed at the next.
    async fn exchange(&self, question: &Question) -> Option<Vec<u8>> {
        let servers = self.upstream.servers(&question.servers);
        let rounds = if servers.len() == 1 { TRIES } else { 1 };
        let mut second_best = None;
        for server in servers.iter().cycle().take(servers.len() * rounds) {
            let Ok(Ok(message)) = timeout(ONE_ANSWER, self.ask_one(*server, question)).await else {
                continue;
            };
            if [SERVFAIL, REFUSED].contains(&(message[3] & 15)) {
                second_best = Some(message);
            } else {
                return Some(message);
            }
        }
        second_best
    }

    async fn ask_one(&self, server: IpAddr, question: &Question) -> io::Result<Vec<u8>> {
        let (id, message) = request(question)?;
        let place = SocketAddr::new(server, PORT);
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        // Connected, so that the kernel drops what others send.
        socket.connect(place).await?;
        socket.send(&message).await?;
        let answer = loop {
            socket.readable().await?;
            // One buffer for all: a thousand that wait need none.
            let mut buffer = self.buffer.borrow_mut();
            match socket.try_recv(&mut buffer) {
                Ok(length) if is_answer(&buffer[..length], id, question) => break buffer[..length].to_vec(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        };
        if answer[2] & 2 == 0 { Ok(answer) } else { self.ask_whole(place, id, &message, question).await }
    }

    /// What was cut short over UDP is whole over TCP.
    async fn ask_whole(
        &self,
        place: SocketAddr,
        id: u16,
        message: &[u8],
        question: &Question,
    ) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(place).await?;
        stream.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat()).await?;
        let length = stream.read_u16().await?;
        let mut answer = Vec::with_capacity(usize::from(length).min(4096));
        (&mut stream).take(u64::from(length)).read_to_end(&mut answer).await?;
        let whole = answer.len() == usize::from(length) && is_answer(&answer, id, question);
        if whole { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

fn key(question: &Question) -> Key {
    let mut section = question.section.clone();
    let name = section.len() - 4;
    section[..name].make_ascii_lowercase();
    Key { section, edns: question.edns, unchecked: question.flags.1, servers: question.servers.clone() }
}

/// The question as others are asked: an id of its own, and EDNS where the asker has it.
fn request(question: &Question) -> io::Result<(u16, Vec<u8>)> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let (_, unchecked, authentic) = question.flags;
    let mut message = vec![id[0], id[1], 1, u8::from(unchecked) << 4 | u8::from(authentic) << 5];
    message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(question.edns.is_some())]);
    message.extend_from_slice(&question.section);
    if let Some(edns) = question.edns {
        let size = (LARGEST_UDP as u16).to_be_bytes();
        message.extend_from_slice(&[0, 0, 41, size[0], size[1], 0, 0, u8::from(edns.dnssec) << 7, 0, 0, 0]);
    }
    Ok((u16::from_be_bytes(id), message))
}

/// Whether a message answers the question: its id, its kind, its one question, and it is well-formed (RFC 5452).
fn is_answer(message: &[u8], id: u16, question: &Question) -> bool {
    let Some(end) = cache::question_end(message) else { return false };
    message[..2] == id.to_be_bytes()
        && message[2] & 0xf8 == 0x80
        && message[12..end].eq_ignore_ascii_case(&question.section)
        && cache::records(message).is_some()
}

/// The answer with the asker's own id and spelling, and no longer than it takes.
fn for_asker(message: &[u8], question: &Question) -> Vec<u8> {
    let mut reply = message.to_vec();
    let end = 12 + question.section.len();
    let (recursion, unchecked, authentic) = question.flags;
    reply[..2].copy_from_slice(&question.id.to_be_bytes());
    reply[12..end].copy_from_slice(&question.section);
    // Not our own word, and whole unless cut below; recursion is to be had here.
    reply[2] = reply[2] & 0xf8 | u8::from(recursion);
    let verified = authentic || question.edns.is_some_and(|edns| edns.dnssec);
    reply[3] = reply[3] & (if verified { 0x2f } else { 0x0f }) | 0x80 | u8::from(unchecked) << 4;
    if reply.len() > question.limit {
        reply.truncate(end);
        reply[2] |= 2;
        reply[6..12].fill(0);
    }
    reply
}

fn failure(question: &Question) -> Vec<u8> {
    let mut reply = vec![0; 12];
    reply[..2].copy_from_slice(&question.id.to_be_bytes());
    reply[2] = 0x80 | u8::from(question.flags.0);
    reply[3] = 0x80 | u8::from(question.flags.1) << 4 | SERVFAIL;
    reply[5] = 1;
    reply.extend_from_slice(&question.section);
    reply
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::names::answer::Edns;

    fn question() -> Question {
        Question {
            section: b"\x03wWw\x07example\0\0\x01\0\x01".to_vec(),
            id: 7,
            flags: (true, false, false),
            edns: None,
            limit: 512,
            servers: Vec::new(),
        }
    }

    fn message(id: u16, rest: &[u8]) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        message.extend_from_slice(&[0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(b"\x03www\x07example\0\0\x01\0\x01");
        message.extend_from_slice(rest);
        message
    }

    #[test]
    fn only_an_answer_to_the_very_question_is_one() {
        let question = question();
        assert!(is_answer(&message(9, &[]), 9, &question));
        assert!(!is_answer(&message(8, &[]), 9, &question), "another id");
        let mut other = message(9, &[]);
        other[13] = b'x';
        assert!(!is_answer(&other, 9, &question), "another question");
        let mut query = message(9, &[]);
        query[2] = 1;
        assert!(!is_answer(&query, 9, &question), "a question");
        let mut short = message(9, &[]);
        short[7] = 1;
        assert!(!is_answer(&short, 9, &question), "a record that is not there");
        assert!(!is_answer(&message(9, &[])[..20], 9, &question));
    }

    #[test]
    fn the_asker_gets_its_own_id_and_spelling() {
        let reply = for_asker(&message(9, &[]), &question());
        assert_eq!(reply[..4], [0, 7, 0x81, 0x80]);
        assert_eq!(reply[12..], question().section);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let mut long = message(9, &[0; 600]);
        long[11] = 1;
        let reply = for_asker(&long, &question());
        assert_eq!((reply.len(), reply[2] & 2, &reply[6..12]), (12 + 17, 2, &[0; 6][..]));
    }

    #[test]
    fn a_request_says_what_the_asker_said() {
        let (id, plain) = request(&question()).unwrap();
        assert_eq!(plain[..2], id.to_be_bytes());
        assert_eq!(plain[2..12], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let (_, with) = request(&Question { edns: Some(Edns { dnssec: true }), ..question() }).unwrap();
        assert_eq!(with[with.len() - 11..], [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if bytes.len() > 30 {
                bytes[..29].copy_from_slice(&message(9, &[])[..29]);
            }
            if is_answer(&bytes, 9, &question()) {
                let _ = for_asker(&bytes, &question());
            }
        }
    }
}
