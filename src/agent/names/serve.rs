//! Questions in, answers out: over datagrams and streams, bounded for each who asks and for all together.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use rnetkit_drivers::{Id, Names};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task,
    time::{sleep, timeout},
};

use super::{
    answer::{Verdict, Way, answer},
    cage::Cage,
    forward::Forwarder,
    known::Records,
};

/// No question is longer, in bytes: one name of 255 bytes and what is said beside it.
const LONGEST_QUESTION: usize = 1500;
/// So many questions are taken from a socket before others have their turn.
const BATCH: usize = 32;
/// A connection that says nothing for so long is closed, and so is one that takes nothing.
const IDLE: Duration = Duration::from_secs(2);
/// So many connections may one address have, and all together.
const MOST_OF_ONE: usize = 32;
const MOST_STREAMS: usize = 256;
/// How long nobody is accepted after that failed: there are no descriptors, and asking at once would ask for ever.
const PAUSE: Duration = Duration::from_millis(10);

/// What all sockets share.
#[derive(Debug)]
pub struct Resolver {
    records: RefCell<Records>,
    forwarder: Rc<Forwarder>,
    streams: RefCell<HashMap<IpAddr, usize>>,
    questions: Cell<u64>,
    strangers: Cell<u64>,
    batch: RefCell<Batch>,
}

/// Questions that were taken from a socket together: the records are looked at once for all of them, after the last one
/// came. One for all sockets.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The length of each, and who asks.
    met: Vec<(usize, SocketAddr)>,
}

impl Batch {
    /// Takes what waits, so many at most.
    fn take(&mut self, socket: &UdpSocket, most: usize) {
        self.bytes.resize(BATCH * LONGEST_QUESTION, 0);
        self.met.clear();
        // What went wrong with an earlier answer comes as an error here, and is no reason to stop.
        for _ in 0..most {
            let at = self.met.len() * LONGEST_QUESTION;
            match socket.try_recv_from(&mut self.bytes[at..at + LONGEST_QUESTION]) {
                Ok(question) => self.met.push(question),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    }

    fn questions(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let bytes = self.bytes.chunks(LONGEST_QUESTION);
        bytes.zip(&self.met).map(|(bytes, (length, from))| (&bytes[..*length], *from))
    }
}

impl Resolver {
    /// With no socket yet.
    #[must_use]
    pub fn new(records: Records, forwarder: Rc<Forwarder>) -> Self {
        Self {
            records: RefCell::new(records),
            forwarder,
            streams: RefCell::default(),
            questions: Cell::new(0),
            strangers: Cell::new(0),
            batch: RefCell::default(),
        }
    }

    /// Where to listen, for which network.
    #[must_use]
    pub fn places(&self) -> Vec<(Id, Names)> {
        self.records.borrow_mut().look().places().map(|(id, names)| (id, names.clone())).collect()
    }

    /// Who asks others.
    #[must_use]
    pub fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self, trouble: &[String], cage: &Cage) -> Value {
        let (networks, endpoints) = self.records.borrow_mut().look().counts();
        let [forwarded, cached, refused] = self.forwarder.counts.get();
        let (waiting, kept) = self.forwarder.sizes();
        json!({
            "networks": networks, "endpoints": endpoints, "questions": self.questions.get(),
            "strangers": self.strangers.get(), "forwarded": forwarded, "cached": cached,
            "turned away": refused, "waiting": waiting, "kept": kept,
            "streams": self.streams.borrow().values().sum::<usize>(), "trouble": trouble, "confined": cage,
        })
    }

    /// What becomes of a question from that address, as the records were at the last look. Whoever is no endpoint of the
    /// network hears nothing.
    fn judge(&self, network: &Id, from: IpAddr, question: &[u8], way: Way) -> Verdict {
        let records = self.records.borrow();
        let Some(asker) = records.known().asker(network, from.to_canonical()) else {
            self.strangers.set(self.strangers.get() + 1);
            return Verdict::Silence;
        };
        self.questions.set(self.questions.get() + 1);
        answer(question, way, &asker)
    }

    fn is_endpoint(&self, network: &Id, address: IpAddr) -> bool {
        self.records.borrow_mut().look().asker(network, address.to_canonical()).is_some()
    }
}

/// Serves a socket for ever.
pub async fn datagrams(resolver: Rc<Resolver>, network: Id, socket: UdpSocket) {
    let socket = Rc::new(socket);
    loop {
        if socket.readable().await.is_err() {
            sleep(PAUSE).await;
            continue;
        }
        let more = some(&resolver, &network, &socket);
        if more {
            task::yield_now().await;
        }
    }
}

/// Answers what waits; whether there may be more. One who asks alone does not wait until it is known that nobody else does.
fn some(resolver: &Rc<Resolver>, network: &Id, socket: &Rc<UdpSocket>) -> bool {
    let mut batch = resolver.batch.borrow_mut();
    for most in [1, BATCH] {
        batch.take(socket, most);
        if batch.met.is_empty() {
            return false;
        }
        resolver.records.borrow_mut().look();
        batch.questions().for_each(|(question, from)| one(resolver, network, socket, question, from));
    }
    batch.met.len() == BATCH
}

fn one(resolver: &Rc<Resolver>, network: &Id, socket: &Rc<UdpSocket>, question: &[u8], from: SocketAddr) {
    match resolver.judge(network, from.ip(), question, Way::Udp) {
        Verdict::Reply(reply) => {
            if socket.try_send_to(&reply, from).is_err() {
                task::spawn_local(send(Rc::clone(socket), reply, from));
            }
        }
        Verdict::Forward(question) => {
            let (forwarder, socket) = (Rc::clone(&resolver.forwarder), Rc::clone(socket));
            task::spawn_local(async move {
                let reply = forwarder.ask(&question).await;
                send(socket, reply, from).await;
            });
        }
        Verdict::Silence => {}
    }
}

/// Waits for room; who does not take it does not get it.
async fn send(socket: Rc<UdpSocket>, reply: Vec<u8>, to: SocketAddr) {
    let _ = timeout(IDLE, socket.send_to(&reply, to)).await;
}

/// Accepts for ever, whatever goes wrong.
pub async fn streams(resolver: Rc<Resolver>, network: Id, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(place) = Place::take(&resolver, &network, from.ip()) {
                    task::spawn_local(stream_of(place, network, stream));
                }
            }
            Err(error) => {
                tracing::debug!("cannot accept: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The right to have a connection, given back when it ends.
struct Place {
    resolver: Rc<Resolver>,
    from: IpAddr,
}

impl Place {
    fn take(resolver: &Rc<Resolver>, network: &Id, from: IpAddr) -> Option<Self> {
        if !resolver.is_endpoint(network, from) {
            return None;
        }
        let mut streams = resolver.streams.borrow_mut();
        let all: usize = streams.values().sum();
        let own = streams.entry(from).or_default();
        if *own >= MOST_OF_ONE || all >= MOST_STREAMS {
            return None;
        }
        *own += 1;
        Some(Self { resolver: Rc::clone(resolver), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.resolver.streams.borrow_mut();
        if let Some(own) = streams.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                streams.remove(&self.from);
            }
        }
    }
}

/// Answers the questions of a connection, one after the other, until it says nothing, nonsense, or goes.
async fn stream_of(place: Place, network: Id, mut stream: TcpStream) {
    while let Ok(Ok(question)) = timeout(IDLE, read_question(&mut stream)).await {
        place.resolver.records.borrow_mut().look();
        let reply = match place.resolver.judge(&network, place.from, &question, Way::Tcp) {
            Verdict::Reply(reply) => reply,
            Verdict::Forward(question) => place.resolver.forwarder.ask(&question).await,
            Verdict::Silence => return,
        };
        let Ok(length) = u16::try_from(reply.len()) else { return };
        let framed = [&length.to_be_bytes(), &reply[..]].concat();
        if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read_question(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUESTION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await?;
    Ok(question)
}
