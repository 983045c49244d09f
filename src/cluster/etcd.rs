//! etcd, version 3, over gRPC: HTTP/2 by `h2`, messages by `prost`. One connection at a time, to one of the endpoints;
//! another one is taken where it fails. Only reads are tried again; what may have been done is told as unknown.
//!
//! `etcd-client` was not taken: it builds its messages with `protoc`, and goes on asking a dead member.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Method, Request, Uri};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    address::{Address, Credentials},
    proto::{self, With},
    store::{Changes, Do, Entry, Event, If, Lease, Listing, Store, Transaction, Trouble, Watch},
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_millis(800);
/// How long an answer may take: another member is asked then, and has its time within what a user waits.
const ANSWER: Duration = Duration::from_millis(1300);
/// How long members may be without a leader until that is told; they choose one within 2 s by default.
const LEADERLESS: Duration = Duration::from_millis(2300);
/// How soon they are asked again.
const AGAIN: Duration = Duration::from_millis(40);
/// How often a connection that is quiet is asked whether it lives. More often etcd takes as an attack.
const PING: Duration = Duration::from_secs(6);
/// How many keys are listed at a time.
const PAGE: i64 = 1000;
/// No message of a store is longer, in bytes.
const LONGEST: usize = 64 << 20;

/// The store. Clones share its connection.
#[derive(Clone)]
pub struct Etcd(Rc<Inner>);

struct Inner {
    address: Address,
    credentials: Credentials,
    /// The member in use.
    member: Cell<usize>,
    connection: RefCell<Option<SendRequest<Bytes>>>,
    token: RefCell<Option<String>>,
}

/// How a call ended that brought no answer.
enum Failed {
    /// It was not sent.
    NotSent(String),
    /// It was sent, and no answer came.
    NoAnswer(String),
    /// The store said no: gRPC's code, and why.
    Status(u32, String),
}

impl Etcd {
    /// The store at that address. Connects when it is first used.
    #[must_use]
    pub fn new(address: Address, credentials: Credentials) -> Self {
        Self(Rc::new(Inner {
            address,
            credentials,
            member: Cell::new(0),
            connection: RefCell::new(None),
            token: RefCell::new(None),
        }))
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    fn next_member(&self) {
        *self.0.connection.borrow_mut() = None;
        *self.0.token.borrow_mut() = None;
        self.0.member.set((self.0.member.get() + 1) % self.0.address.members.len());
    }

    async fn connected(&self) -> Result<SendRequest<Bytes>, Failed> {
        let known = self.0.connection.borrow().clone();
        if let Some(connection) = known
            && let Ok(Ok(ready)) = timeout(CONNECT, connection.ready()).await
        {
            return Ok(ready);
        }
        let member = &self.0.address.members[self.0.member.get()];
        let failed = |error: &dyn fmt::Display| Failed::NotSent(format!("{member}: {error}"));
        let connect = async {
            let stream = TcpStream::connect(member.as_str()).await.map_err(|error| failed(&error))?;
            let _ = stream.set_nodelay(true);
            let Some(tls) = &self.0.credentials.tls else {
                return open(stream).await.map_err(|error| failed(&error));
            };
            let stream = tls.talk(member, stream).await.map_err(|error| failed(&error))?;
            // What a member thinks of a certificate it says at the end, and may be gone before it is heard (RFC 8446, 4.4.2.4).
            let unwelcome = |error| failed(&format!("{error}; it may not accept this host's certificate"));
            open(stream).await.map_err(unwelcome)
        };
        // A token is of a connection: a member that began anew does not know it.
        *self.0.token.borrow_mut() = None;
        let ready =
            timeout(CONNECT, connect).await.unwrap_or_else(|_| Err(failed(&"no connection in time")))?;
        *self.0.connection.borrow_mut() = Some(ready.clone());
        Ok(ready)
    }

    fn request(&self, path: &str) -> Result<Request<()>, Failed> {
        let member = &self.0.address.members[self.0.member.get()];
        let scheme = if self.0.address.secure { "https" } else { "http" };
        let uri: Result<Uri, _> = format!("{scheme}://{member}{path}").parse();
        let uri = uri.map_err(|error| Failed::NotSent(error.to_string()))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            // A member that lost the others does not answer from what it remembers.
            .header("hasleader", "true");
        if let Some(token) = self.0.token.borrow().as_deref() {
            request = request.header("token", token);
        }
        request.body(()).map_err(|error| Failed::NotSent(error.to_string()))
    }

    /// One call: one message there, one back.
    async fn ask<A: Message, B: Message + Default>(&self, path: &str, message: &A) -> Result<B, Failed> {
        let mut connection = self.connected().await?;
        let request = self.request(path)?;
        let (response, mut body) =
            connection.send_request(request, false).map_err(|error| Failed::NotSent(error.to_string()))?;
        let exchange = async {
            let lost = |error: h2::Error| Failed::NoAnswer(error.to_string());
            body.send_data(frame(message), true).map_err(lost)?;
            let response = response.await.map_err(lost)?;
            status(response.headers())?;
            let mut stream = Messages::new(response.into_body());
            let answer = stream.next::<B>().await?;
            answer.ok_or_else(|| Failed::NoAnswer("it ended without an answer".to_owned()))
        };
        timeout(ANSWER, exchange)
            .await
            .unwrap_or_else(|_| Err(Failed::NoAnswer("no answer in time".to_owned())))
    }

    /// Whether another token may help: this one ended, or users were changed since.
    fn is_stale(&self, code: u32, reason: &str) -> bool {
        let is_of_users = code == UNAUTHENTICATED
            || code == INVALID_ARGUMENT && reason.contains("revision of auth store is old");
        is_of_users && self.0.token.borrow().is_some()
    }

    async fn log_in(&self) -> Result<(), Failed> {
        let Some(user) = self.0.credentials.user.clone() else { return Ok(()) };
        // First of all: with another connection the token goes.
        self.connected().await?;
        if self.0.token.borrow().is_some() {
            return Ok(());
        }
        let request = proto::AuthenticateRequest { name: user.name, password: user.password };
        let answer: proto::AuthenticateResponse =
            self.ask("/etcdserverpb.Auth/Authenticate", &request).await?;
        *self.0.token.borrow_mut() = Some(answer.token);
        Ok(())
    }

    /// A call that changes nothing, or nothing twice: tried at each member.
    async fn read<A: Message, B: Message + Default>(&self, path: &str, message: &A) -> Result<B, Trouble> {
        let mut last = String::new();
        for _ in 0..=self.0.address.members.len() {
            match self.call(path, message).await {
                Err(Trouble::Unknown(reason)) => last = reason,
                told => return told,
            }
        }
        Err(Trouble::Unreachable(last))
    }

    /// A call that is sent once; another member is tried where it could not be sent.
    async fn call<A: Message, B: Message + Default>(&self, path: &str, message: &A) -> Result<B, Trouble> {
        let mut reason = String::new();
        let mut tries = 0;
        let begun = Instant::now();
        while tries <= self.0.address.members.len() {
            tries += 1;
            let asked = match self.log_in().await {
                Ok(()) => self.ask(path, message).await,
                Err(failed) => Err(failed),
            };
            match asked {
                Ok(answer) => return Ok(answer),
                Err(Failed::NotSent(why)) => {
                    self.next_member();
                    reason = why;
                }
                Err(Failed::NoAnswer(why)) => {
                    self.next_member();
                    return Err(Trouble::Unknown(why));
                }
                Err(Failed::Status(code, why)) if self.is_stale(code, &why) => {
                    *self.0.token.borrow_mut() = None;
                    reason = why;
                }
                // It is said before anything else is done.
                Err(Failed::Status(UNAVAILABLE, why)) if why.contains("no leader") => {
                    self.next_member();
                    reason = why;
                    if begun.elapsed() < LEADERLESS {
                        tries = 0;
                        sleep(AGAIN).await;
                    }
                }
                Err(Failed::Status(UNAVAILABLE | DEADLINE_EXCEEDED, why)) => {
                    self.next_member();
                    return Err(Trouble::Unknown(why));
                }
                Err(Failed::Status(_, why)) => return Err(Trouble::Refused(why)),
            }
        }
        Err(Trouble::Unreachable(crate::error::shown(&reason)))
    }
}

/// Codes of gRPC.
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// HTTP/2 on a stream, once the other end has answered on it: only then has it believed this host's certificate.
async fn open<T: Stream>(stream: T) -> Result<SendRequest<Bytes>, h2::Error> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(4 << 20).initial_connection_window_size(16 << 20);
    let (send, mut connection) = builder.handshake(stream).await?;
    if let Some(mut pings) = connection.ping_pong() {
        tokio::select! {
            ended = &mut connection => ended?,
            answered = pings.ping(h2::Ping::opaque()) => {
                answered?;
            }
        }
        tokio::spawn(live(connection, pings));
    }
    send.ready().await
}

/// What HTTP/2 runs on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Drives a connection, and ends it where the other end is gone without a word.
async fn live<T: Stream>(connection: h2::client::Connection<T, Bytes>, mut pings: h2::PingPong) {
    let beat = async {
        loop {
            sleep(PING).await;
            if !matches!(timeout(CONNECT * 4, pings.ping(h2::Ping::opaque())).await, Ok(Ok(_))) {
                return;
            }
        }
    };
    tokio::select! {
        _ = connection => {}
        () = beat => {}
    }
}

/// A message as gRPC sends it: uncompressed, its length, itself.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(length + 5);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    buffer.put_slice(&message.encode_to_vec());
    buffer.freeze()
}

/// What headers or trailers say of a call; nothing where it goes on.
fn status(headers: &HeaderMap) -> Result<(), Failed> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse::<u32>().ok()) {
        None | Some(0) => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or("no reason given");
            Err(Failed::Status(code, crate::error::shown(&message.replace("%20", " "))))
        }
    }
}

/// The messages of an answer.
struct Messages {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next one; nothing at the end.
    async fn next<B: Message + Default>(&mut self) -> Result<Option<B>, Failed> {
        loop {
            if let Some(message) = self.whole()? {
                let decoded = B::decode(message).map_err(|error| Failed::NoAnswer(error.to_string()))?;
                return Ok(Some(decoded));
            }
            match self.stream.data().await {
                Some(Ok(data)) => {
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.buffer.put(data);
                }
                Some(Err(error)) => return Err(Failed::NoAnswer(error.to_string())),
                None => {
                    let trailers = self.stream.trailers().await;
                    let trailers = trailers.map_err(|error| Failed::NoAnswer(error.to_string()))?;
                    return trailers.map_or(Ok(()), |trailers| status(&trailers)).map(|()| None);
                }
            }
        }
    }

    fn whole(&mut self) -> Result<Option<Bytes>, Failed> {
        let Some((head, _)) = self.buffer.split_at_checked(5) else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || length > LONGEST {
            return Err(Failed::NoAnswer("its answer is malformed".to_owned()));
        }
        if self.buffer.len() < length + 5 {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// The end of the range of all keys that begin so.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn compare(given: &If) -> proto::Compare {
    use proto::{Relation, Target};
    let make = |key: &String, target: Target, result: Relation, with: With| proto::Compare {
        result: result as i32,
        target: target as i32,
        key: key.clone().into_bytes(),
        with: Some(with),
        range_end: Vec::new(),
    };
    match given {
        If::Absent(key) => make(key, Target::Version, Relation::Equal, With::Version(0)),
        If::Present(key) => make(key, Target::Version, Relation::Greater, With::Version(0)),
        If::Changed(key, revision) => make(key, Target::Mod, Relation::Equal, With::ModRevision(*revision)),
        If::Is(key, value) => make(key, Target::Value, Relation::Equal, With::Value(value.clone())),
        If::On(key, lease) => make(key, Target::Lease, Relation::Equal, With::Lease(*lease)),
        If::Empty(prefix) => proto::Compare {
            range_end: end_of(prefix),
            ..make(prefix, Target::Version, Relation::Equal, With::Version(0))
        },
    }
}

fn operation(op: &Do) -> proto::RequestOp {
    let request = match op {
        Do::Put(key, value, lease) => proto::Request::Put(proto::PutRequest {
            key: key.clone().into_bytes(),
            value: value.clone(),
            lease: lease.unwrap_or(0),
        }),
        Do::Delete(key) => proto::Request::DeleteRange(proto::DeleteRangeRequest {
            key: key.clone().into_bytes(),
            range_end: Vec::new(),
        }),
        Do::DeleteAll(prefix) => proto::Request::DeleteRange(proto::DeleteRangeRequest {
            key: prefix.clone().into_bytes(),
            range_end: end_of(prefix),
        }),
    };
    proto::RequestOp { request: Some(request) }
}

fn entry(kv: proto::KeyValue) -> Option<Entry> {
    Some(Entry { key: String::from_utf8(kv.key).ok()?, value: kv.value, changed: kv.mod_revision })
}

impl Store for Etcd {
    type Watch = Watching;

    async fn run(&self, transaction: &Transaction) -> Result<bool, Trouble> {
        let request = proto::TxnRequest {
            compare: transaction.given.iter().map(compare).collect(),
            success: transaction.then.iter().map(operation).collect(),
        };
        let answer: proto::TxnResponse = self.call("/etcdserverpb.KV/Txn", &request).await?;
        Ok(answer.succeeded)
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Trouble> {
        let mut listing = Listing::default();
        let mut request = proto::RangeRequest {
            key: prefix.as_bytes().to_vec(),
            range_end: end_of(prefix),
            limit: PAGE,
            revision: 0,
        };
        loop {
            let answer: proto::RangeResponse = self.read("/etcdserverpb.KV/Range", &request).await?;
            if listing.revision == 0 {
                listing.revision = answer.header.map_or(0, |header| header.revision);
                request.revision = listing.revision;
            }
            if let Some(last) = answer.kvs.last() {
                request.key = [last.key.as_slice(), &[0]].concat();
            }
            listing.entries.extend(answer.kvs.into_iter().filter_map(entry));
            if !answer.more {
                return Ok(listing);
            }
        }
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<Watching, Trouble> {
        let failed = |failed: Failed| match failed {
            Failed::NotSent(why) | Failed::NoAnswer(why) => Trouble::Unreachable(why),
            Failed::Status(_, why) => Trouble::Refused(why),
        };
        self.log_in().await.map_err(failed)?;
        let mut connection = self.connected().await.map_err(failed)?;
        let request = self.request("/etcdserverpb.Watch/Watch").map_err(failed)?;
        let lost = |error: h2::Error| Trouble::Unreachable(error.to_string());
        let (response, mut send) = connection.send_request(request, false).map_err(lost)?;
        let create = proto::WatchCreateRequest {
            key: prefix.as_bytes().to_vec(),
            range_end: end_of(prefix),
            start_revision: from,
        };
        send.send_data(frame(&proto::WatchRequest { create_request: Some(create) }), false).map_err(lost)?;
        let response = timeout(ANSWER, response).await;
        let response =
            response.map_err(|_| Trouble::Unreachable("no answer in time".to_owned()))?.map_err(lost)?;
        status(response.headers()).map_err(failed)?;
        let messages = Messages::new(response.into_body());
        Ok(Watching { store: self.clone(), messages, _send: send })
    }

    async fn grant(&self, time: Duration) -> Result<Lease, Trouble> {
        let request = proto::LeaseGrantRequest { ttl: i64::try_from(time.as_secs()).unwrap_or(60) };
        let answer: proto::LeaseGrantResponse = self.read("/etcdserverpb.Lease/LeaseGrant", &request).await?;
        Ok(answer.id)
    }

    async fn keep(&self, lease: Lease) -> Result<bool, Trouble> {
        let request = proto::LeaseKeepAliveRequest { id: lease };
        let answer: proto::LeaseKeepAliveResponse =
            self.read("/etcdserverpb.Lease/LeaseKeepAlive", &request).await?;
        Ok(answer.ttl > 0)
    }
}

/// Tells of changes.
pub struct Watching {
    store: Etcd,
    messages: Messages,
    /// The store ends the watch when it is asked no more.
    _send: SendStream<Bytes>,
}

impl Watch for Watching {
    async fn next(&mut self) -> Result<Changes, Trouble> {
        let lost = |failed| match failed {
            Failed::NotSent(why) | Failed::NoAnswer(why) | Failed::Status(_, why) => {
                Trouble::Unreachable(why)
            }
        };
        loop {
            let answer: Option<proto::WatchResponse> = self.messages.next().await.map_err(lost)?;
            let answer = answer.ok_or_else(|| Trouble::Unreachable("it ended the watch".to_owned()))?;
            if answer.compact_revision > 0 {
                return Err(Trouble::Compacted);
            }
            if answer.canceled {
                // It does not say whether the token is why.
                *self.store.0.token.borrow_mut() = None;
                return Err(Trouble::Refused(crate::error::shown(&answer.cancel_reason)));
            }
            if answer.events.is_empty() {
                continue;
            }
            let event = |event: proto::Event| {
                let entry = entry(event.kv?)?;
                let gone = event.r#type == proto::EventType::Delete as i32;
                Some(if gone { Event::Delete(entry.key) } else { Event::Put(entry) })
            };
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Changes { revision, events: answer.events.into_iter().filter_map(event).collect() });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_one() {
        assert_eq!(end_of("a/"), b"a0");
        assert_eq!(end_of("\u{7f}"), [0x80]);
    }
}
