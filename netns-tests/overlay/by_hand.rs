//! Networks whose hosts are named by hand: no store, no agent, the same tunnels.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Ear, Host, hosts};
use crate::{
    command::{Output, until},
    forge::{self, Wire},
    harness::tests,
    lab::{Lab, Place, prepare},
    traffic,
};

tests!(
    containers_on_different_hosts_talk_in_both_families,
    nothing_is_asked_or_flooded_on_the_underlay,
    packets_are_as_long_as_the_underlay_allows,
    a_container_is_told_where_the_underlay_has_become_narrower,
    datagrams_from_strangers_reach_nobody,
    a_container_cannot_send_into_the_tunnel,
    ports_are_published_on_each_host_and_containers_reach_the_world,
    what_somebody_deletes_is_found_and_mended,
    a_container_that_is_gone_is_taken_back,
    what_peers_could_not_know_is_refused,
    hosts_are_reached_over_ipv6_too,
);

/// The part of the subnets that each host gives out.
fn ranges(number: usize) -> (String, String) {
    (format!("10.9.0.{}/26", number * 64), format!("fd00:9::{:x}/122", number * 64))
}

/// The words that create network `ov` on a host, among the others.
fn create(host: &Host, all: &[Host], six: bool) -> Vec<String> {
    let range = |host: &Host| {
        let (four, sixth) = ranges(host.number - 1);
        if six { format!("{four}+{sixth}") } else { four }
    };
    let peers: Vec<String> = all
        .iter()
        .filter(|other| other.number != host.number)
        .map(|other| format!("{}={}", other.address, range(other)))
        .collect();
    let (four, sixth) = ranges(host.number - 1);
    let mut words =
        vec!["network", "create", "-d", "overlay", "--subnet", "10.9.0.0/24", "--ip-range", &four];
    if six {
        words.extend(["--subnet", "fd00:9::/64", "--ip-range", &sixth]);
    }
    let (peers, local) = (format!("peers={}", peers.join(",")), format!("local={}", host.address));
    words.extend(["-o", &peers, "-o", &local, "ov"]);
    words.into_iter().map(str::to_owned).collect()
}

#[track_caller]
fn run(lab: &Lab, host: &Host, words: &[String]) -> Output {
    host.rnet(lab, &words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[track_caller]
fn connect(lab: &Lab, host: &Host, name: &str, options: &[&str]) -> Place {
    let place = lab.namespace(name);
    host.rnet(lab, &[&["network", "connect"], options, &["ov", name]].concat()).ok().silent();
    lab.listen_tcp(&place, "[::]:80");
    place
}

/// The network on all of them.
#[track_caller]
fn made(lab: &Lab, count: usize, six: bool) -> Vec<Host> {
    let all = hosts(lab, count);
    for host in &all {
        run(lab, host, &create(host, &all, six)).ok();
    }
    all
}

/// Takes everything away again, with rnet, and compares.
#[track_caller]
fn unmade(lab: &Lab, all: &[Host]) {
    for host in all {
        host.rn(lab, "network rm -f ov").ok().prints("ov\n");
        assert_eq!(host.place.links(), ["lo", "eth0"], "links left on {}", host.name());
        host.rn(lab, "purge").ok().silent();
    }
    clean(lab, all);
}

/// The lab compares its own host; these are compared here.
#[track_caller]
pub(super) fn clean(lab: &Lab, all: &[Host]) {
    for host in all {
        let left: Vec<_> = walk(&format!("/run/lab/{}", host.name()));
        assert_eq!(left, [] as [String; 0], "files left by {}", host.name());
    }
    lab.is_clean();
    all.iter().for_each(|host| drop(host.sh(lab, "ip link del eth0").ok()));
    lab.sh("ip link del underlay").ok();
    lab.prepared();
}

fn walk(folder: &str) -> Vec<String> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a directory").flatten() {
        let path = entry.path().display().to_string();
        if entry.path().is_dir() { list.extend(walk(&path)) } else { list.push(path) }
    }
    list
}

fn containers_on_different_hosts_talk_in_both_families(lab: &Lab) {
    let all = made(lab, 3, true);
    let places: Vec<Place> =
        all.iter().map(|host| connect(lab, host, &format!("c{}", host.number), &[])).collect();
    let local = connect(lab, &all[0], "c4", &[]);
    for from in places.iter().chain([&local]) {
        for (number, to) in places.iter().enumerate() {
            let last = number * 64 + if number == 0 { 2 } else { 0 };
            lab.tcp(from, &format!("10.9.0.{last}:80")).answered_by(to);
            lab.tcp(from, &format!("[fd00:9::{last:x}]:80")).answered_by(to);
        }
    }
    lab.tcp(&places[2], "10.9.0.3:80").answered_by(&local).seen_from("10.9.0.128");
    unmade(lab, &all);
}

fn nothing_is_asked_or_flooded_on_the_underlay(lab: &Lab) {
    let all = made(lab, 2, true);
    let ear = Ear::at(lab, &all[0]);
    let (one, two) = (connect(lab, &all[0], "c1", &[]), connect(lab, &all[1], "c2", &[]));
    lab.tcp(&one, "10.9.0.64:80").answered_by(&two);
    lab.tcp(&two, "[fd00:9::2]:80").answered_by(&one);
    // Questions and shouts of every kind.
    lab.no_tcp(&one, "10.9.0.200:80");
    lab.no_tcp(&one, "[fd00:9::ffff]:80");
    let wire = Wire::on(&one, "eth0");
    let mac = forge::mac("02:42:0a:09:00:02");
    let [own, other] = [Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 64)];
    let from = SocketAddr::from((own, 5000));
    for to in [forge::ALL, forge::mac("02:42:0a:09:00:63"), forge::mac("02:00:00:00:00:99")] {
        wire.send(&forge::frame(
            to,
            mac,
            forge::IP4,
            &forge::udp(from, SocketAddr::from((other, 6000)), "shout"),
        ));
        wire.send(&forge::frame(to, mac, forge::ARP, &arp_question(mac, own, other)));
    }
    // A neighbour that is asked directly, as kernels do to see whether it is still there.
    wire.send(&forge::frame(
        forge::mac("02:42:0a:09:00:40"),
        mac,
        forge::ARP,
        &arp_question(mac, own, other),
    ));
    lab.tcp(&one, "10.9.0.64:80").answered_by(&two);
    let heard = ear.tunnelled();
    assert!(heard.len() > 10, "only {} datagrams were heard", heard.len());
    let odd: Vec<String> = heard
        .iter()
        .filter(|inner| !inner.is_plain_unicast() || inner.destination() == forge::mac("02:00:00:00:00:99"))
        .map(|inner| format!("{:02x?} {:04x}", inner.destination(), inner.kind()))
        .collect();
    assert_eq!(odd, [] as [String; 0]);
    unmade(lab, &all);
}

fn arp_question(mac: [u8; 6], own: Ipv4Addr, other: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &own.octets(), &[0; 6], &other.octets()].concat()
}

fn packets_are_as_long_as_the_underlay_allows(lab: &Lab) {
    let all = made(lab, 2, false);
    let (one, _) = (connect(lab, &all[0], "c1", &[]), connect(lab, &all[1], "c2", &[]));
    assert_eq!(one.link("eth0")["mtu"], 1450);
    let two = Place::new("c2", "/run/netns/c2");
    lab.listen_udp(&two, "0.0.0.0:7000");
    let socket = one.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect("10.9.0.64:7000").expect("a way there");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
    never_fragment(&socket);
    // 28 bytes are IPv4's and UDP's own.
    socket.send(&[0; 1422]).expect("1450 bytes pass in one piece");
    assert!(traffic::heard(&socket, &mut [0; 64]).is_ok(), "and arrive");
    let refused = socket.send(&[0; 1423]).expect_err("1451 bytes do not pass");
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
    let too_long = "network create -d overlay --subnet 10.10.0.0/24 --ip-range 10.10.0.0/26 -o local=198.51.100.1 \
                    -o peers= -o mtu=1451 ov2";
    all[0].rn(lab, too_long).fails_with(
        "rnet: packets of 1451 bytes do not fit: 198.51.100.1 has 1500 bytes, and that leaves 1450",
    );
    unmade(lab, &all);
}

fn a_container_is_told_where_the_underlay_has_become_narrower(lab: &Lab) {
    let all = made(lab, 2, false);
    let (one, two) = (connect(lab, &all[0], "c1", &[]), connect(lab, &all[1], "c2", &[]));
    lab.listen_udp(&two, "0.0.0.0:7000");
    let socket = one.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect("10.9.0.64:7000").expect("a way there");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
    never_fragment(&socket);
    prepare(&all[0].place, "link set eth0 mtu 1400");
    let is_told = || socket.send(&[0; 1422]).is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE));
    until("the container is told", is_told);
    // 1400 less 50 for VXLAN, and 28 for IPv4 and UDP. What was told of earlier datagrams is heard first.
    until("1350 bytes pass in one piece", || socket.send(&[0; 1322]).is_ok());
    assert!(traffic::heard(&socket, &mut [0; 64]).is_ok(), "and arrive");
    let refused = socket.send(&[0; 1323]).expect_err("1351 bytes do not pass");
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
    prepare(&all[0].place, "link set eth0 mtu 1500");
    unmade(lab, &all);
}

/// Every datagram is one packet or none.
pub fn never_fragment(socket: &std::net::UdpSocket) {
    use std::os::fd::AsRawFd as _;
    let value = libc::IP_PMTUDISC_DO;
    // SAFETY: the option is a number, and the pointer is to one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    assert_eq!(set, 0);
}

/// A VXLAN datagram with a UDP datagram for a container in it.
pub fn forged(vni: u32, to: Ipv4Addr, word: &str) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let mac = |address: Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        [2, 0x42, a, b, c, d]
    };
    let from = Ipv4Addr::new(10, 9, 0, 70);
    let inner = forge::udp(SocketAddr::from((from, 5000)), SocketAddr::from((to, 6000)), word);
    [&[8, 0, 0, 0, a, b, c, 0][..], &forge::frame(mac(to), mac(from), forge::IP4, &inner)].concat()
}

/// The network's number on the wire.
#[track_caller]
pub fn vni(lab: &Lab, host: &Host) -> u32 {
    let shown = host.rn(lab, "network inspect ov").ok().json();
    shown[0]["Options"]["vni"].as_str().expect("inspect shows the number").parse().expect("a number")
}

fn send(place: &Place, from: &str, to: &str, data: &[u8]) {
    let socket = place.inside(|| std::net::UdpSocket::bind(from)).expect("a socket");
    socket.send_to(data, to).expect("sent");
}

fn datagrams_from_strangers_reach_nobody(lab: &Lab) {
    let all = made(lab, 3, false);
    let one = connect(lab, &all[0], "c1", &[]);
    let vni = vni(lab, &all[0]);
    let wire = Wire::on(&one, "eth0");
    let to = Ipv4Addr::new(10, 9, 0, 2);
    // A host of the network may: so the forgery is right.
    send(&all[1].place, "198.51.100.2:0", "198.51.100.1:4789", &forged(vni, to, "from-a-host"));
    wire.must_hear("from-a-host");
    // Somebody else on the same underlay may not, nor the host of another network.
    send(&lab.host, "198.51.100.254:0", "198.51.100.1:4789", &forged(vni, to, "from-a-stranger"));
    wire.must_not_hear("from-a-stranger");
    all[2].rn(lab, "network rm ov").ok();
    let others = "network create -d overlay --subnet 10.9.0.0/24 --ip-range 10.9.0.0/26 -o local=198.51.100.3 -o vni=77 \
                  -o peers= ov";
    all[2].rn(lab, others).ok();
    send(&all[0].place, "198.51.100.1:0", "198.51.100.3:4789", &forged(77, to, "not-of-this-network"));
    let three = connect(lab, &all[2], "c3", &["--ip", "10.9.0.2"]);
    let wire = Wire::on(&three, "eth0");
    send(&all[0].place, "198.51.100.1:0", "198.51.100.3:4789", &forged(77, to, "not-of-this-network"));
    wire.must_not_hear("not-of-this-network");
    unmade(lab, &all);
}

fn a_container_cannot_send_into_the_tunnel(lab: &Lab) {
    let all = made(lab, 2, false);
    let (own, other) = (connect(lab, &all[0], "c1", &[]), connect(lab, &all[1], "c2", &[]));
    all[0].rn(lab, "network create blue").ok();
    let bridged = lab.namespace("b1");
    all[0].rn(lab, "network connect blue b1").ok();
    let vni = vni(lab, &all[0]);
    let wire = Wire::on(&other, "eth0");
    let to = Ipv4Addr::new(10, 9, 0, 64);
    // Its packets would leave with the host's address, which the other host trusts.
    for place in [&own, &bridged] {
        send(place, "0.0.0.0:0", "198.51.100.2:4789", &forged(vni, to, "from-a-container"));
        wire.must_not_hear("from-a-container");
        send(
            place,
            "0.0.0.0:0",
            "198.51.100.1:4789",
            &forged(vni, Ipv4Addr::new(10, 9, 0, 2), "to-its-own-host"),
        );
    }
    Wire::on(&own, "eth0").must_not_hear("to-its-own-host");
    all[0].rn(lab, "network rm -f blue").ok();
    unmade(lab, &all);
}

fn ports_are_published_on_each_host_and_containers_reach_the_world(lab: &Lab) {
    let all = made(lab, 2, true);
    for host in &all {
        let place = connect(lab, host, &format!("c{}", host.number), &["-p", "8080:80"]);
        lab.tcp(&lab.host, &format!("{}:8080", host.address)).answered_by(&place).seen_from("198.51.100.254");
        lab.tcp(&lab.host, &format!("[2001:db8:50::{}]:8080", host.number)).answered_by(&place);
        lab.tcp(&host.place, "127.0.0.1:8080").answered_by(&place);
    }
    lab.listen_tcp(&lab.host, "198.51.100.254:81");
    let one = Place::new("c1", "/run/netns/c1");
    lab.tcp(&one, "198.51.100.254:81").answered_by(&lab.host).seen_from("198.51.100.1");
    // By way of the other host's published port, and its own.
    lab.tcp(&one, "198.51.100.2:8080")
        .answered_by(&Place::new("c2", "/run/netns/c2"))
        .seen_from("198.51.100.1");
    lab.tcp(&one, "198.51.100.1:8080").answered_by(&one);
    // What is not published is closed, and a host does not send into another through the tunnel.
    lab.no_tcp(&all[0].place, "10.9.0.64:80");
    unmade(lab, &all);
}

fn what_somebody_deletes_is_found_and_mended(lab: &Lab) {
    let all = made(lab, 2, true);
    let (one, two) = (connect(lab, &all[0], "c1", &["-p", "8080:80"]), connect(lab, &all[1], "c2", &[]));
    let sandbox = all[0].sandbox().path_text();
    let sabotage = [
        format!("nsenter --net={sandbox} ip link del vx0"),
        format!("nsenter --net={sandbox} ip link del br0"),
        format!("nsenter --net={sandbox} ip link set br0 down"),
        format!("nsenter --net={sandbox} ip link set vx0 nomaster"),
        format!("nsenter --net={sandbox} bridge link set dev vx0 isolated off learning on"),
        format!("nsenter --net={sandbox} bridge fdb del 02:42:0a:09:00:40 dev vx0 self"),
        format!("nsenter --net={sandbox} bridge fdb del 02:42:0a:09:00:40 dev vx0 master"),
        format!(
            "nsenter --net={sandbox} bridge fdb replace 02:42:0a:09:00:40 dev vx0 dst 203.0.113.9 self permanent"
        ),
        format!("nsenter --net={sandbox} ip neigh del 10.9.0.64 dev br0"),
        format!(
            "nsenter --net={sandbox} ip neigh replace fd00:9::40 lladdr 02:00:00:00:00:01 dev br0 nud permanent"
        ),
        format!("nsenter --net={sandbox} nft flush ruleset"),
        "nft flush ruleset".to_owned(),
        format!("ip link del rn-{}", &sandbox[sandbox.len() - 12..]),
        format!("umount {sandbox}"),
        // Its namespace outlives it for a moment, as it does where the kernel is slow to take it down.
        format!("nsenter --net={sandbox} sleep 1 >/dev/null 2>&1 & sleep 0.2; umount {sandbox}"),
    ];
    all[0].rn(lab, "check").ok().silent();
    for line in &sabotage {
        all[0].sh(lab, line).ok();
        let found = all[0].rn(lab, "check");
        assert!(!found.succeeded(), "not found: {line}");
        all[0].rn(lab, "repair").ok();
        let left = all[0].rn(lab, "check");
        assert!(left.succeeded(), "after {line}: {}{}", left.stdout(), left.stderr());
        lab.tcp(&one, "10.9.0.64:80").answered_by(&two);
        lab.tcp(&two, "[fd00:9::2]:80").answered_by(&one);
        lab.tcp(&lab.host, "198.51.100.1:8080").answered_by(&one);
    }
    unmade(lab, &all);
}

fn a_container_that_is_gone_is_taken_back(lab: &Lab) {
    let all = made(lab, 2, false);
    let one = connect(lab, &all[0], "c1", &["-p", "8080:80"]);
    lab.delete_namespace(&one);
    all[0].rn(lab, "gc").ok();
    let again = connect(lab, &all[0], "c1", &["-p", "8080:80"]);
    lab.tcp(&lab.host, "198.51.100.1:8080").answered_by(&again);
    all[0].rn(lab, "check").ok().silent();
    unmade(lab, &all);
}

fn what_peers_could_not_know_is_refused(lab: &Lab) {
    let all = made(lab, 2, true);
    lab.namespace("c1");
    for (options, reason) in [
        ("--ip 10.9.0.99", "10.9.0.99 is not in this host's range, and other hosts would not find it"),
        (
            "--mac-address 02:00:00:00:00:07",
            "other hosts know 10.9.0.2 as 02:42:0a:09:00:02, and not as 02:00:00:00:00:07",
        ),
    ] {
        let line = format!("network connect {options} ov c1");
        all[0].rn(lab, &line).fails_with(&format!("rnet: option \"peers\" of driver overlay: {reason}"));
    }
    all[0].rn(lab, "network connect --ip6 fd00:9::5 ov c1").fails_with(
        "rnet: address fd00:9::5 cannot be given out on network ov: fd00:9::2 goes with the IPv4 address",
    );
    let encrypted =
        "network create -d overlay --subnet 10.10.0.0/24 --ip-range 10.10.0.0/26 -o peers= -o encrypted e";
    all[0].rn(lab, encrypted).refused(&["encrypted"]);
    all[0].rn(lab, "network create -d overlay --subnet 10.10.0.0/24 e").refused(&["store"]);
    for (peers, word) in [
        ("198.51.100.2=10.10.0.0/27", "meets"),
        ("198.51.100.2", "HOST=RANGE"),
        ("198.51.100.2=10.11.0.0/26", "in no subnet"),
        ("127.0.0.1=10.10.0.64/26", "no address of a host"),
        ("198.51.100.2=10.10.0.64/26,198.51.100.2=10.10.0.128/26", "twice"),
        ("2001:db8::1=10.10.0.64/26", "family"),
    ] {
        let line = format!(
            "network create -d overlay --subnet 10.10.0.0/24 --ip-range 10.10.0.0/26 -o local=198.51.100.1 -o peers={peers} e"
        );
        all[0].rn(lab, &line).refused(&[word]);
    }
    unmade(lab, &all);
}

fn hosts_are_reached_over_ipv6_too(lab: &Lab) {
    let all = hosts(lab, 2);
    for host in &all {
        let (own, other) = (host.number, 3 - host.number);
        let line = format!(
            "network create -d overlay --subnet 10.9.0.0/24 --ip-range {} -o local=2001:db8:50::{own} \
             -o peers=2001:db8:50::{other}={} ov",
            ranges(own - 1).0,
            ranges(other - 1).0
        );
        host.rn(lab, &line).ok();
    }
    let (one, two) = (connect(lab, &all[0], "c1", &[]), connect(lab, &all[1], "c2", &[]));
    assert_eq!(one.link("eth0")["mtu"], 1430);
    lab.tcp(&one, "10.9.0.64:80").answered_by(&two);
    lab.tcp(&two, "10.9.0.2:80").answered_by(&one);
    unmade(lab, &all);
}
