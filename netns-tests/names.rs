//! Names: containers find each other by name, and nobody else does. Questions are asked with real packets, from within
//! the containers' namespaces.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use domain::{
    base::{Message, MessageBuilder, Name, iana::Rtype},
    rdata::AllRecordData,
};

use crate::{
    harness::tests,
    lab::{Lab, Place},
};

tests! {
    a_name_answers_as_soon_as_connect_returned,
    names_follow_live_changes,
    networks_without_names_need_no_agent,
    the_agent_leaves_with_the_last_network,
}

/// How long an answer is waited for; nothing that works takes as long.
const PATIENCE: Duration = Duration::from_secs(5);
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
    socket.send(bytes).ok()?;
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
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
struct Asker<'a> {
    place: &'a Place,
    server: IpAddr,
}

impl<'a> Asker<'a> {
    /// The container asks the gateway of the network.
    fn new(lab: &Lab, place: &'a Place, network: &str) -> Self {
        let gateway =
            lab.inspect(network)["IPAM"]["Config"][0]["Gateway"].as_str().expect("a gateway").to_owned();
        Self { place, server: gateway.parse().expect("an address") }
    }

    /// What is said to a question.
    #[track_caller]
    fn ask(&self, name: &str, kind: Rtype) -> String {
        let answer = exchange(self.place, self.server, &question(name, kind), PATIENCE);
        said(&answer.unwrap_or_else(|| panic!("nothing is said about {name}")))
    }

    #[track_caller]
    fn a(&self, name: &str) -> String {
        self.ask(name, Rtype::A)
    }

    /// Nothing is said.
    #[track_caller]
    fn hears_nothing(&self, name: &str) {
        let answer = exchange(self.place, self.server, &question(name, Rtype::A), SILENCE);
        assert_eq!(answer.as_deref().map(said), None, "an answer about {name}");
    }
}

fn a_name_answers_as_soon_as_connect_returned(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect --alias www blue web").ok().silent();
    let asker = Asker::new(lab, &web, "blue");
    assert_eq!(asker.a("web"), "NOERROR 10.90.0.2");
    for round in 0..30 {
        let name = format!("c{round}");
        let place = lab.namespace(&name);
        lab.rn(&format!("network connect blue {name}")).ok().silent();
        assert_eq!(asker.a(&name), format!("NOERROR {}", lab.address("blue", &name)), "round {round}");
        lab.rn(&format!("network disconnect blue {name}")).ok();
        lab.delete_namespace(&place);
    }
    lab.rn("network rm -f blue").ok();
}

fn names_follow_live_changes(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network create --internal --subnet 10.91.0.0/24 red").ok();
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    lab.rn("network connect --alias www blue web").ok();
    lab.rn("network connect red db").ok();
    let web_asks = Asker::new(lab, &web, "blue");
    let db_asks = Asker::new(lab, &db, "red");
    assert_eq!(db_asks.a("web"), "NXDOMAIN");
    lab.rn("network connect blue db").ok();
    assert_eq!(web_asks.a("DB"), "NOERROR 10.90.0.3");
    assert_eq!(db_asks.a("www.blue."), "NOERROR 10.90.0.2");
    assert_eq!(web_asks.a("db.red"), web_asks.a("db.nosuch"), "another network's names are unknown");
    assert_eq!(web_asks.ask("web", Rtype::MX), "NOERROR");
    assert_eq!(web_asks.ask("2.0.90.10.in-addr.arpa", Rtype::PTR), "NOERROR web.blue.");
    assert_eq!(web_asks.a("host.rnet.internal"), "NOERROR 10.90.0.1");
    lab.rn("network disconnect blue web").ok();
    assert_eq!(db_asks.a("web"), db_asks.a("nosuch"));
    lab.rn("network rm -f blue red").ok();
}

fn networks_without_names_need_no_agent(lab: &Lab) {
    lab.rn("network create --opt dns=false blue").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    let _web = lab.web("bridge", "web", &[]);
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.sh("RNET_AGENT=manual rnet network create red").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    std::fs::write("/var/lib/rnet/config.toml", "agent = \"manual\"\n").expect("a file");
    lab.rn("network create green").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    std::fs::remove_file("/var/lib/rnet/config.toml").expect("a file");
    lab.rn("network rm blue red green").ok();
    lab.rn("network disconnect bridge web").ok();
}

fn the_agent_leaves_with_the_last_network(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.rn("network create red").ok();
    lab.rn("agent --status").ok();
    lab.rn("network rm blue").ok();
    lab.rn("agent --status").ok();
    lab.rn("network rm red").ok();
    lab.rn("agent --status").fails_with("rnet: no agent runs");
    lab.is_clean();
}
