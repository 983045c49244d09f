//! Who is answered, and what.

use std::net::UdpSocket;

use domain::base::iana::Rtype;

use super::{Asker, SILENCE, question};
use crate::{
    harness::tests,
    lab::{Lab, use_resolver},
};

tests! {
    a_name_answers_as_soon_as_connect_returned,
    names_follow_live_changes,
    bad_names_are_refused_at_connect,
    only_endpoints_of_a_network_are_answered,
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
    // Nobody is asked for what nobody here is called, and that is said at once.
    use_resolver("").expect("a file");
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
    assert_eq!(web_asks.a("db.red"), "SERVFAIL", "another network's names are asked elsewhere");
    assert_eq!(web_asks.ask("web", Rtype::MX), "NOERROR");
    assert_eq!(web_asks.ask("2.0.90.10.in-addr.arpa", Rtype::PTR), "NOERROR web.blue.");
    assert_eq!(web_asks.a("host.rnet.internal"), "NOERROR 10.90.0.1");
    lab.rn("network disconnect blue web").ok();
    assert_eq!(db_asks.a("web"), "SERVFAIL");
    lab.rn("network rm -f blue red").ok();
}

fn bad_names_are_refused_at_connect(lab: &Lab) {
    use_resolver("").expect("a file");
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
    // What somebody called a namespace is no reason to refuse it, and no name.
    let local = lab.namespace("localhost");
    lab.rn("network connect blue localhost").ok();
    assert_eq!(Asker::new(lab, &local, "blue").a("localhost"), "SERVFAIL");
    lab.rn("network disconnect blue localhost").ok();
    lab.rn("network connect --alias good blue db").ok();
    assert_eq!(Asker::new(lab, &db, "blue").a("good"), format!("NOERROR {}", lab.address("blue", "db")));
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
