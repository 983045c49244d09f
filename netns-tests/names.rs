//! Names: containers find each other by name, and nobody else does. Questions are asked with real packets, from within
//! the containers' namespaces.

pub mod agent;
pub mod answers;
pub mod files;
pub mod forward;
pub mod load;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use domain::{
    base::{Message, MessageBuilder, Name, iana::Rtype},
    rdata::AllRecordData,
};
use rustix::process::Pid;

use crate::{
    lab::{Lab, Place},
    traffic,
};

/// How long an answer is waited for; nothing that works takes as long.
const PATIENCE: Duration = Duration::from_secs(15);
/// After how long without an answer a question is asked again; longer than any answer may take.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// How long silence must last to be one.
const SILENCE: Duration = Duration::from_millis(300);

/// The bytes of a question.
fn question(name: &str, kind: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x2a17);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((Name::vec_from_str(name).expect("a name"), kind)).expect("room");
    builder.finish()
}

/// The answer to bytes that are sent from a place to a server, if any comes in time.
fn exchange(place: &Place, server: IpAddr, bytes: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = place.inside(|| UdpSocket::bind(any)).expect("a socket");
    socket.connect(SocketAddr::new(server, 53)).ok()?;
    traffic::exchange(&socket, bytes, patience, ASKED_AGAIN).ok()
}

/// What an answer says: its return code and the data of its records, sorted.
fn said(bytes: &[u8]) -> String {
    let message = Message::from_octets(bytes).expect("a message");
    let records = message.answer().expect("an answer").limit_to::<AllRecordData<_, _>>();
    let mut data: Vec<String> = records.map(|record| record.expect("a record").data().to_string()).collect();
    data.sort();
    format!("{} {}", message.header().rcode(), data.join(" ")).trim_end().to_owned()
}

/// Somebody who asks, and whom.
pub struct Asker<'a> {
    pub place: &'a Place,
    pub server: IpAddr,
}

impl<'a> Asker<'a> {
    /// The container asks the gateway of the network.
    pub fn new(lab: &Lab, place: &'a Place, network: &str) -> Self {
        let gateway =
            lab.inspect(network)["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned();
        Self { place, server: gateway.parse().expect("an address") }
    }

    /// What is said to a question.
    #[track_caller]
    pub fn ask(&self, name: &str, kind: Rtype) -> String {
        let answer = exchange(self.place, self.server, &question(name, kind), PATIENCE);
        said(&answer.unwrap_or_else(|| panic!("nothing is said about {name}")))
    }

    #[track_caller]
    pub fn a(&self, name: &str) -> String {
        self.ask(name, Rtype::A)
    }

    /// That is said, soon.
    #[track_caller]
    pub fn comes_to_say(&self, name: &str, answer: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = self.a(name);
            if said == answer {
                return;
            }
            assert!(Instant::now() < end, "about {name} it is said {said}, and never {answer}");
        }
    }

    /// What is said over TCP.
    #[track_caller]
    pub fn tcp(&self, name: &str) -> String {
        self.tcp_or_nothing(name).unwrap_or_else(|| panic!("nothing is said about {name} over TCP"))
    }

    pub fn tcp_or_nothing(&self, name: &str) -> Option<String> {
        let place = SocketAddr::new(self.server, 53);
        let mut stream = self.place.inside(|| TcpStream::connect_timeout(&place, PATIENCE)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let question = question(name, Rtype::A);
        let length = u16::try_from(question.len()).expect("a short one");
        stream.write_all(&[&length.to_be_bytes(), &question[..]].concat()).ok()?;
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).ok()?;
        Some(said(&answer))
    }

    /// Nothing is said.
    #[track_caller]
    pub fn hears_nothing(&self, name: &str) {
        let answer = exchange(self.place, self.server, &question(name, Rtype::A), SILENCE);
        assert_eq!(answer.as_deref().map(said), None, "an answer about {name}");
    }
}

/// How the part is.
fn names_status(lab: &Lab) -> serde_json::Value {
    lab.rn("agent --status").ok().json()["parts"]["names"]["says"].clone()
}

fn names_pid(lab: &Lab) -> Pid {
    let pid = lab.rn("agent --status").ok().json()["parts"]["names"]["pid"].as_i64().expect("a process");
    Pid::from_raw(pid as i32).expect("a process")
}
