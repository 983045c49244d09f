//! Limits: how much a container may receive and send, and how many connections strangers may open.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::tests,
    lab::{LAN, Lab, Place},
};

tests! {
    a_container_receives_no_faster_than_its_rate,
    a_container_sends_no_faster_than_its_rate,
    limits_are_shown_by_inspect_and_refused_where_they_cannot_be,
    a_lost_limit_is_found_and_mended,
    limits_survive_a_command_that_dies,
    addresses_stay_pinned_behind_a_limit,
    one_address_opens_so_many_connections_to_one_port,
    one_address_opens_so_many_connections_with_ipv6,
    one_address_has_so_many_open_connections,
    limits_of_connections_are_found_and_mended,
    limits_of_connections_are_read_strictly,
}

/// How long a number of bytes takes over TCP.
fn takes(from: &Place, to: &Place, address: &str, bytes: usize) -> Duration {
    let at: SocketAddr = address.parse().expect("an address");
    let listener = to.inside(|| TcpListener::bind(("0.0.0.0", 5001))).expect("a port");
    let reader = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let count = std::io::copy(&mut stream, &mut std::io::sink()).expect("all of it");
        stream.write_all(&[1]).expect("an answer");
        count
    });
    let mut stream = from
        .inside(|| TcpStream::connect_timeout(&at, Duration::from_secs(15)))
        .unwrap_or_else(|error| panic!("{} to {at}: {error}", from.name()));
    let start = Instant::now();
    let piece = [0u8; 16 * 1024];
    (0..bytes / piece.len()).for_each(|_| stream.write_all(&piece).expect("the other side reads"));
    stream.shutdown(Shutdown::Write).expect("a connection");
    stream.read_exact(&mut [0]).expect("an answer");
    let time = start.elapsed();
    assert_eq!(reader.join().expect("the reader"), (bytes / piece.len() * piece.len()) as u64);
    time
}

const MEGABYTE: usize = 1 << 20;

/// A megabyte at 16 Mbit/s takes 0.5 s, less what may pass at once (64 KiB): the kernel's clock makes this a bound
/// that no busy machine can break.
const AT_LEAST: Duration = Duration::from_millis(450);

fn a_container_receives_no_faster_than_its_rate(lab: &Lab) {
    let web = lab.web("bridge", "web", &["--driver-opt", "ingress-rate=16mbit", "-p", "8080:5001"]);
    let free = lab.web("bridge", "free", &["-p", "8081:5001"]);
    let slow = takes(&lab.lan, &web, "192.0.2.1:8080", MEGABYTE);
    assert!(slow > AT_LEAST, "{slow:?}");
    assert!(takes(&free, &web, "172.17.0.2:5001", MEGABYTE) > AT_LEAST, "from a neighbour, too");
    // Neither the other way nor the neighbour is held.
    assert!(takes(&web, &lab.lan, "192.0.2.2:5001", MEGABYTE) < slow / 3);
    assert!(takes(&lab.lan, &free, "192.0.2.1:8081", MEGABYTE) < slow / 3);
    lab.rn("network disconnect bridge web").ok();
    lab.rn("network disconnect bridge free").ok();
}

fn a_container_sends_no_faster_than_its_rate(lab: &Lab) {
    let web = lab.web("bridge", "web", &["--driver-opt", "egress-rate=16mbit", "-p", "8080:5001"]);
    let free = lab.web("bridge", "free", &[]);
    let slow = takes(&web, &lab.lan, "192.0.2.2:5001", MEGABYTE);
    assert!(slow > AT_LEAST, "{slow:?}");
    assert!(takes(&web, &free, "172.17.0.3:5001", MEGABYTE) > AT_LEAST, "to a neighbour, too");
    assert!(takes(&lab.lan, &web, "192.0.2.1:8080", MEGABYTE) < slow / 3);
    assert!(takes(&free, &lab.lan, "192.0.2.2:5001", MEGABYTE) < slow / 3);
    // Out of the container's reach: it may do in its own namespace whatever it likes.
    let inside = web.ip("link");
    assert!(!inside.to_string().contains("ifb"), "{inside}");
    lab.rn("network disconnect bridge web").ok();
    lab.rn("network disconnect bridge free").ok();
}

fn limits_are_shown_by_inspect_and_refused_where_they_cannot_be(lab: &Lab) {
    lab.rn("network create blue").ok();
    let options = ["--driver-opt", "rate=10mbit", "--driver-opt", "egress-rate=1gbit"];
    lab.web("blue", "web", &options);
    let shown = lab.endpoint("blue", "web")["Limits"].clone();
    let wanted =
        r#"{"IngressRate":10000000,"IngressBurst":524288,"EgressRate":1000000000,"EgressBurst":10000000}"#;
    assert_eq!(shown.to_string(), wanted);
    lab.namespace("db");
    let here = lab.snapshot();
    for (option, line) in [
        (
            "rate=10mbps",
            "rnet: option \"rate\" of driver bridge: \"10mbps\" is refused: it must be bits per second from 8kbit to 10tbit: 10mbit, 1.5gbit, 800000",
        ),
        (
            "ingress-burst=8kbit",
            "rnet: option \"ingress-burst\" of driver bridge: \"8kbit\" is refused: a burst needs its rate",
        ),
        ("raet=1mbit", "rnet: option \"raet\" of driver bridge: there is no such option"),
    ] {
        lab.rnet(&["network", "connect", "--driver-opt", option, "blue", "db"]).fails_with(line);
    }
    lab.rn("network connect --driver-opt rate=1mbit --driver-opt burst=12kbit blue db").fails_with(
        "rnet: option \"burst\" of driver bridge: \"12kbit\" is refused: it must hold a packet of the network: at least 12144 bits",
    );
    lab.is_like(&here);
    lab.rn("network rm -f blue").ok();
}

fn a_lost_limit_is_found_and_mended(lab: &Lab) {
    lab.needs("tc");
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["--driver-opt", "rate=16mbit"]);
    lab.rn("check").ok().prints("");
    let port = lab.host.links().into_iter().find(|link| link.starts_with("veth")).expect("a port");
    let block = lab.host.links().into_iter().find(|link| link.starts_with("ifb")).expect("a block");
    for damage in [
        format!("tc qdisc del dev {port} root"),
        format!("tc qdisc replace dev {port} root tbf rate 1mbit burst 10kb latency 10ms"),
        format!("tc qdisc del dev {block} root"),
        format!("tc qdisc del dev {port} ingress"),
        format!("tc filter del dev {port} ingress"),
        format!("ip link set {block} down"),
        format!("ip link del {block}"),
    ] {
        lab.mends(&damage);
        assert!(takes(&web, &lab.lan, "192.0.2.2:5001", MEGABYTE) > AT_LEAST, "after {damage}");
    }
    lab.rn("network rm -f blue").ok();
}

fn limits_survive_a_command_that_dies(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    let words = ["network", "connect", "--driver-opt", "rate=16mbit", "blue", "web"];
    for call in ["sendto", "rename", "write", "setns"] {
        for when in 1..200 {
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let output = lab.strace(&["-e", &format!("trace={call}"), "-e", &inject], &words);
            let ended = !output.was_killed();
            if !lab.rnet(&words).succeeded() {
                lab.rn("network disconnect blue web").ok();
                lab.rnet(&words).ok();
            }
            lab.rn("check").ok().prints("");
            lab.rn("network disconnect blue web").ok();
            lab.namespace_is_fresh(&web);
            assert!(!lab.host.links().iter().any(|link| link.starts_with("ifb")));
            if ended {
                break;
            }
        }
    }
    lab.rn("network rm blue").ok();
}

/// What comes out of the block goes through the bridge's own checks all the same.
fn addresses_stay_pinned_behind_a_limit(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["--driver-opt", "rate=100mbit"]);
    let db = lab.web("blue", "db", &[]);
    lab.tcp(&web, "172.18.0.3:80").answered_by(&db).seen_from("172.18.0.2");
    lab.tcp(&db, "172.18.0.2:80").answered_by(&web);
    lab.listen_tcp(&lab.lan, &format!("{LAN}:80"));
    lab.tcp(&web, &format!("{LAN}:80")).answered_by(&lab.lan);
    crate::lab::prepare(&web, "address add 172.18.0.9/16 dev eth0\n address del 172.18.0.2/16 dev eth0");
    lab.no_tcp(&web, "172.18.0.3:80");
    lab.rn("network rm -f blue").ok();
}

/// `COUNT/hour`, so that no time that a slow machine takes gives another one.
fn one_address_opens_so_many_connections_to_one_port(lab: &Lab) {
    lab.rn("network create --opt conn-limit=3/hour blue").ok();
    lab.rn("network create green").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80", "-p", "8081:81", "-p", "5300:53/udp"]);
    lab.listen_tcp(&web, "0.0.0.0:81");
    lab.listen_udp(&web, "0.0.0.0:53");
    let (neighbour, stranger) = (lab.web("blue", "neighbour", &[]), lab.web("green", "stranger", &[]));
    for _ in 0..3 {
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web).seen_from(LAN);
    }
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    // Neither other ports nor other addresses, nor neighbours and the host itself.
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
    lab.tcp(&stranger, "192.0.2.1:8080").answered_by(&web);
    for _ in 0..4 {
        lab.tcp(&neighbour, "172.18.0.2:80").answered_by(&web);
        lab.tcp(&lab.host, "192.0.2.1:8080").answered_by(&web);
        lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    }
    for _ in 0..3 {
        lab.udp(&lab.lan, "192.0.2.1:5300").answered_by(&web);
    }
    lab.no_udp(&lab.lan, "192.0.2.1:5300");
    assert_eq!(lab.inspect("blue")["Options"]["conn-limit"], "3/hour");
    lab.rn("network rm -f blue green").ok();
}

/// With its whole /64, which is what one customer has.
fn one_address_opens_so_many_connections_with_ipv6(lab: &Lab) {
    lab.rn("network create --ipv6 --opt conn-limit=2/hour blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:81"]);
    lab.listen_tcp(&web, "[::]:81");
    crate::lab::prepare(&lab.lan, "address add 2001:db8:1::77/64 dev eth0 nodad");
    for _ in 0..2 {
        lab.tcp(&lab.lan, "[2001:db8:1::1]:8080").answered_by(&web);
    }
    lab.no_tcp(&lab.lan, "[2001:db8:1::1]:8080");
    crate::lab::prepare(&lab.lan, "address del 2001:db8:1::2/64 dev eth0");
    lab.no_tcp(&lab.lan, "[2001:db8:1::1]:8080");
    lab.rn("network rm -f blue").ok();
}

fn one_address_has_so_many_open_connections(lab: &Lab) {
    lab.rn("network create --opt conn-max=2 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:5002"]);
    // Nobody accepts: the kernel does, and they stay open.
    let listener = web.inside(|| TcpListener::bind(("0.0.0.0", 5002))).expect("a port");
    let to: SocketAddr = "192.0.2.1:8080".parse().expect("an address");
    let open = |time| lab.lan.inside(|| TcpStream::connect_timeout(&to, time));
    let held: Vec<TcpStream> = (0..2).map(|_| open(Duration::from_secs(15)).expect("one of two")).collect();
    let third = open(Duration::from_millis(300));
    assert!(third.is_err(), "{third:?}");
    drop(held);
    let accepted: Vec<_> = (0..2).map(|_| listener.accept().expect("a connection")).collect();
    drop(accepted);
    crate::command::until("the kernel counts two less", || open(Duration::from_millis(300)).is_ok());
    lab.rn("network rm -f blue").ok();
}

fn limits_of_connections_are_found_and_mended(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --opt conn-limit=1/hour --opt conn-max=100 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    let chain = lab.sh("nft list table inet rnet | sed -n 's/.*chain \\(limit_[^ ]*\\).*/\\1/p'").ok().text();
    let chain = chain.trim();
    let link = chain.trim_start_matches("limit_");
    for damage in [
        format!("nft flush chain inet rnet {chain}"),
        format!("nft delete element inet rnet limits '{{ {link} }}'"),
        format!("nft delete element inet rnet limits '{{ {link} }}' && nft delete chain inet rnet {chain}"),
        "nft flush ruleset".to_owned(),
    ] {
        lab.mends(&damage);
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
        lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    }
    lab.rn("network rm -f blue").ok();
}

fn limits_of_connections_are_read_strictly(lab: &Lab) {
    let rate = "it must be a number up to 1000000 per second, minute, hour or day: 10/second";
    let most = "it must be a number from 1 to 1000000";
    for (option, value, expected) in [
        ("conn-limit", "0/second", rate),
        ("conn-limit", "10", rate),
        ("conn-limit", "10/fortnight", rate),
        ("conn-limit", "-1/second", rate),
        ("conn-max", "0", most),
        ("conn-max", "many", most),
    ] {
        lab.rn(&format!("network create --opt {option}={value} blue")).fails_with(&format!(
            "rnet: option \"{option}\" of driver bridge: \"{value}\" is refused: {expected}"
        ));
    }
}
