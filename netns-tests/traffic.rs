//! Real TCP and UDP between places: servers that say who they are and whom they saw, clients that say what they got.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsFd, unix::net::UnixStream},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::lab::Place;

/// How long an answer may take that must come.
const LONG: Duration = Duration::from_secs(15);
/// How long to wait for an answer that must not come. An answer on one machine takes a millisecond.
const SHORT: Duration = Duration::from_millis(400);
/// After how long without an answer a datagram is sent again.
const SENT_AGAIN: Duration = Duration::from_secs(2);

/// A server in a place, until it is dropped.
pub struct Server {
    /// The place that it serves.
    pub place: String,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each TCP connection with its name and the address that the connection came from.
    #[track_caller]
    pub fn tcp(place: &Place, address: &str) -> Self {
        let listener = place.inside(|| bind(|| TcpListener::bind(address)));
        let listener =
            listener.unwrap_or_else(|e| panic!("no TCP server on {address} in {}: {e}", place.name()));
        listener.set_nonblocking(true).expect("a socket");
        let name = place.name().to_owned();
        Self::start(place, listener, move |listener| {
            if let Ok((mut stream, peer)) = listener.accept() {
                let _ = writeln!(stream, "{name} {}", peer.ip().to_canonical());
            }
        })
    }

    /// Answers each UDP datagram with its name and the address that the datagram came from.
    #[track_caller]
    pub fn udp(place: &Place, address: &str) -> Self {
        let socket = place.inside(|| bind(|| UdpSocket::bind(address)));
        let socket = socket.unwrap_or_else(|e| panic!("no UDP server on {address} in {}: {e}", place.name()));
        socket.set_nonblocking(true).expect("a socket");
        let name = place.name().to_owned();
        Self::start(place, socket, move |socket| {
            let mut buffer = [0; 64];
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}\n", peer.ip().to_canonical()).as_bytes(), peer);
            }
        })
    }

    fn start<S: AsFd + Send + 'static>(
        place: &Place,
        socket: S,
        serve: impl Fn(&S) + Send + 'static,
    ) -> Self {
        let (stop, stopped) = UnixStream::pair().expect("a socket pair");
        let thread = thread::spawn(move || {
            loop {
                let mut both = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
                match poll(&mut both, None) {
                    Ok(_) if !both[1].revents().is_empty() => return,
                    Ok(_) => serve(&socket),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        });
        Self { place: place.name().to_owned(), stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds; a child that another test forks at this moment may hold the socket of an earlier server until it becomes its
/// program, so a port in use is tried again for a while.
fn bind<S>(bind: impl Fn() -> std::io::Result<S>) -> std::io::Result<S> {
    let end = std::time::Instant::now() + LONG;
    loop {
        match bind() {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < end =>
            {
                thread::yield_now();
            }
            result => return result,
        }
    }
}

/// Who answered, and which address it saw us come from.
#[derive(Debug, PartialEq)]
pub struct Reply {
    /// The place of the server.
    pub by: String,
    /// The address that the server saw.
    pub saw: IpAddr,
}

/// Why there was no answer.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// Somebody said no.
    Refused,
    /// Nobody said anything.
    Timeout,
    /// There is no way there.
    Unreachable,
    /// Something else.
    Other(String),
}

/// What came of an attempt to talk.
pub struct Attempt {
    what: String,
    result: Result<Reply, Failure>,
}

impl Attempt {
    /// The server of this place answered.
    #[track_caller]
    pub fn answered_by(self, place: &Place) -> Self {
        match &self.result {
            Ok(reply) => assert_eq!(reply.by, place.name(), "{} was answered by another", self.what),
            Err(failure) => panic!("{}: no answer: {failure:?}", self.what),
        }
        self
    }

    /// The server saw this client address.
    #[track_caller]
    pub fn seen_from(self, address: &str) -> Self {
        match &self.result {
            Ok(reply) => assert_eq!(reply.saw.to_string(), address, "{}: client address", self.what),
            Err(failure) => panic!("{}: no answer: {failure:?}", self.what),
        }
        self
    }

    /// The way was open but nobody listens there.
    #[track_caller]
    pub fn is_refused(&self) {
        assert_eq!(self.result, Err(Failure::Refused), "{}", self.what);
    }

    /// There was no answer of any kind that lets a client talk.
    #[track_caller]
    pub fn has_no_answer(&self) {
        if let Ok(reply) = &self.result {
            panic!("{} must not work, but was answered: {reply:?}", self.what);
        }
    }

    /// The outcome, for those who want to decide themselves.
    pub fn result(self) -> Result<Reply, Failure> {
        self.result
    }
}

/// Connects over TCP from a place and reads what the server says.
pub fn tcp(place: &Place, address: &str) -> Attempt {
    attempt("TCP", place, address, |to| tcp_reply(place, to, LONG))
}

/// As `tcp`, for what must not work: waits a short while only.
pub fn tcp_short(place: &Place, address: &str) -> Attempt {
    attempt("TCP", place, address, |to| tcp_reply(place, to, SHORT))
}

/// Sends a datagram from a place and reads the answer.
pub fn udp(place: &Place, address: &str) -> Attempt {
    attempt("UDP", place, address, |to| udp_reply(place, to, LONG))
}

/// As `udp`, for what must not work: waits a short while only.
pub fn udp_short(place: &Place, address: &str) -> Attempt {
    attempt("UDP", place, address, |to| udp_reply(place, to, SHORT))
}

/// A page fetched over HTTP from a place: head and body as they came.
pub fn http(place: &Place, address: &str, path: &str) -> Result<String, Failure> {
    let to: SocketAddr = address.parse().expect("an address and a port");
    let fetch = || -> io::Result<String> {
        let mut stream = place.inside(|| TcpStream::connect_timeout(&to, LONG))?;
        stream.set_read_timeout(Some(LONG))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    };
    fetch().map_err(failure)
}

fn attempt(
    protocol: &str,
    place: &Place,
    address: &str,
    talk: impl FnOnce(SocketAddr) -> io::Result<String>,
) -> Attempt {
    let what = format!("{protocol} from {} to {address}", place.name());
    let to = address.parse().unwrap_or_else(|_| panic!("{address:?} is no address with a port"));
    let result = talk(to).map_err(failure).and_then(|text| parse(&text));
    Attempt { what, result }
}

fn tcp_reply(place: &Place, to: SocketAddr, time: Duration) -> io::Result<String> {
    let mut stream = place.inside(|| TcpStream::connect_timeout(&to, time))?;
    stream.set_read_timeout(Some(time))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The socket is connected, so an answer from any address but the one asked is not an answer.
fn udp_reply(place: &Place, to: SocketAddr, time: Duration) -> io::Result<String> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = place.inside(|| UdpSocket::bind(any))?;
    socket.connect(to)?;
    let reply = exchange(&socket, b"hello", time, SENT_AGAIN)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// The answer to a datagram over a connected socket, if any comes in time. It is sent again after each `again` without
/// one: datagrams are lost where a machine is busy.
pub fn exchange(socket: &UdpSocket, bytes: &[u8], time: Duration, again: Duration) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let end = std::time::Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left.min(again)))?;
        socket.send(bytes)?;
        match heard(socket, &mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && std::time::Instant::now() < end => {}
            count => return Ok(buffer[..count?].to_vec()),
        }
    }
}

/// One datagram. A machine that is frozen and thawed interrupts what waits with a time limit: signal(7).
pub fn heard(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            count => return count,
        }
    }
}

fn parse(text: &str) -> Result<Reply, Failure> {
    let reply = text.trim().split_once(' ').and_then(|(by, saw)| Some((by, saw.parse().ok()?)));
    reply
        .map(|(by, saw)| Reply { by: by.to_owned(), saw })
        .ok_or(Failure::Other(format!("the answer {text:?}")))
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::Timeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Failure::Unreachable,
        _ => Failure::Other(error.to_string()),
    }
}
