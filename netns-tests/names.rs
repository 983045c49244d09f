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
    containers_get_it_without_doing_anything,
    files_that_somebody_gave_a_namespace_stay,
    a_running_container_gets_to_know_its_new_networks,
    bad_names_are_refused_at_connect,
    only_endpoints_of_a_network_are_answered,
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

fn containers_get_it_without_doing_anything(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.91.0.0/24 red").ok();
    let _db = lab.namespace("db");
    lab.rn("network connect --alias mysql blue db").ok().silent();
    for name in ["db", "mysql", "DB.blue"] {
        let words = ["run", "--network", "blue", "--", "getent", "ahostsv4", name];
        lab.rnet(&words).ok().mentions("10.90.0.2");
    }
    lab.sh("ip netns exec db getent ahostsv4 host.rnet.internal").ok().mentions("10.90.0.1");
    lab.rn("exec db -- getent ahostsv4 mysql").ok().mentions("10.90.0.2");
    lab.rn("exec db -- cat /etc/resolv.conf").ok().prints("nameserver 10.90.0.1\n");
    lab.rn("network connect red db").ok();
    lab.rn("exec db -- cat /etc/resolv.conf").ok().prints("nameserver 10.90.0.1\nnameserver 10.91.0.1\n");
    lab.rn("network disconnect blue db").ok();
    lab.rn("exec db -- cat /etc/resolv.conf").ok().prints("nameserver 10.91.0.1\n");
    lab.rn("network disconnect red db").ok();
    assert!(!std::path::Path::new("/etc/netns/db").exists(), "files of a container that is in no network");
    lab.rn("network rm blue red").ok();
}

fn files_that_somebody_gave_a_namespace_stay(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let _db = lab.namespace("db");
    std::fs::create_dir_all("/etc/netns/db").expect("a folder");
    std::fs::write("/etc/netns/db/resolv.conf", "nameserver 192.0.2.254\n").expect("a file");
    lab.rn("network rm blue").ok();
    lab.prepared();
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network connect blue db").ok().silent();
    lab.sh("ip netns exec db cat /etc/resolv.conf").ok().prints("nameserver 192.0.2.254\n");
    lab.rn("network disconnect blue db").ok();
    lab.rn("network rm blue").ok();
    lab.is_clean();
}

fn a_running_container_gets_to_know_its_new_networks(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.91.0.0/24 red").ok();
    lab.rn("run -d --name web --network blue --dns 192.0.2.2 --dns-search example -- sleep 1000").ok();
    let shown = || lab.rn("exec web -- cat /etc/resolv.conf").ok().stdout().to_owned();
    assert_eq!(shown(), "nameserver 10.90.0.1\nsearch example\n");
    lab.rn("network connect red web").ok();
    assert_eq!(shown(), "nameserver 10.90.0.1\nnameserver 10.91.0.1\nsearch example\n");
    lab.rn("network disconnect blue web").ok();
    assert_eq!(shown(), "nameserver 10.91.0.1\nsearch example\n");
    lab.rn("exec web -- sh").ok();
    lab.sh("rnet exec web -- sh -c 'echo nameserver 192.0.2.9 >/etc/resolv.conf'").ok();
    lab.rn("network connect blue web").ok();
    assert_eq!(shown(), "nameserver 192.0.2.9\n", "what somebody wrote stays");
    lab.rn("rm -f web").ok();
    lab.rn("network rm blue red").ok();
}

fn bad_names_are_refused_at_connect(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let db = lab.namespace("db");
    let long = "x".repeat(64);
    for (alias, reason) in [
        ("a\n127.0.0.1 bank", "only letters, digits, '_', '.' and '-' are allowed"),
        ("a,b", "only letters, digits, '_', '.' and '-' are allowed"),
        ("a b", "only letters, digits, '_', '.' and '-' are allowed"),
        (&long, "each part between dots must have 1 to 63 bytes"),
        ("a..b", "each part between dots must have 1 to 63 bytes"),
        ("12345", "it would be read as an address"),
        ("10.0.0.1", "it would be read as an address"),
        ("0x7f000001", "it would be read as an address"),
        ("LocalHost", "it is everybody's own name for itself"),
        ("host-gateway", "it is the host's name"),
        ("x.rnet.internal", "it is the host's name"),
    ] {
        let refused = lab.rnet(&["network", "connect", "--alias", alias, "blue", "db"]).refused(&[reason]);
        assert!(refused.stderr().starts_with("rnet: invalid alias \""), "{}", refused.stderr());
    }
    lab.rn("network connect --alias good blue db").ok();
    assert_eq!(Asker::new(lab, &db, "blue").a("good"), "NOERROR 10.90.0.2");
    lab.rn("network rm -f blue").ok();
}

fn only_endpoints_of_a_network_are_answered(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 --opt spoof-check=false blue").ok();
    lab.rn("network create --subnet 10.91.0.0/24 red").ok();
    let (web, far) = (lab.namespace("web"), lab.namespace("far"));
    lab.rn("network connect blue web").ok();
    lab.rn("network connect red far").ok();
    let blue = Asker::new(lab, &web, "blue");
    assert_eq!(blue.a("web"), "NOERROR 10.90.0.2");
    // Another network's member, at the gateway of this one.
    Asker { place: &far, server: blue.server }.hears_nothing("web");
    // The LAN, which has a route to it.
    crate::lab::prepare(&lab.lan, "route add 10.90.0.0/24 via 192.0.2.1");
    Asker { place: &lab.lan, server: blue.server }.hears_nothing("web");
    Asker { place: &lab.lan, server: crate::lab::HOST.parse().expect("an address") }.hears_nothing("web");
    // The host itself is no container.
    Asker { place: &lab.host, server: blue.server }.hears_nothing("web");
    // An address that nobody was given, and one of another network.
    for address in ["10.90.0.77/24", "10.91.0.2/32"] {
        crate::lab::prepare(&web, &format!("address add {address} dev eth0"));
        let socket = web.inside(|| UdpSocket::bind((address.split('/').next().expect("an address"), 0)));
        let socket = socket.expect("a socket");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        socket.send_to(&question("web", Rtype::A), (blue.server, 53)).expect("sent");
        assert!(socket.recv(&mut [0; 600]).is_err(), "an answer to {address}");
    }
    assert_eq!(blue.a("web"), "NOERROR 10.90.0.2");
    lab.rn("network rm -f blue red").ok();
}
