//! Networks whose packets leave a host in cipher only: what is seen on the underlay, whatever dies, and whoever tries.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::unix::fs::MetadataExt as _,
};

use rustix::process::{Pid, Signal};

use super::{
    Host,
    by_hand::{forged, never_fragment, vni},
    cluster::{Cluster, Pinging, addresses, connect, create, pair, remotes, remove},
    store::Store,
};
use crate::{
    command::until,
    forge::{self, Wire},
    harness::{skip, tests},
    lab::{Lab, prepare},
    traffic,
};

tests!(
    containers_talk_and_nothing_is_seen_in_clear,
    where_nothing_encrypts_nothing_leaves,
    datagrams_in_clear_reach_nobody,
    without_agent_and_store_it_goes_on,
    a_host_that_cannot_encrypt_says_so_and_takes_no_part,
    plain_networks_beside_it_are_as_before,
    hosts_are_reached_over_ipv6_too,
    hosts_say_nothing_else_to_each_other_there,
    without_its_seal_a_network_is_not_made,
);

/// What a host says and hears on the underlay that is not the store's.
struct Underlay(Wire);

impl Underlay {
    fn at(lab: &Lab, host: &Host) -> Self {
        Self(Wire::on(&lab.host, &host.name()))
    }

    /// The destination ports of the UDP datagrams that came by until now, over IPv4 and IPv6.
    fn ports(&self) -> Vec<u16> {
        let port = |frame: &Vec<u8>| {
            let kind = u16::from_be_bytes([frame[12], frame[13]]);
            let (protocol, at) = match kind {
                forge::IP4 => (frame[23], 14 + 20),
                forge::IP6 => (frame[20], 14 + 40),
                _ => return None,
            };
            (protocol == 17 && frame.len() >= at + 8)
                .then(|| u16::from_be_bytes([frame[at + 2], frame[at + 3]]))
        };
        self.0.frames().iter().filter_map(port).collect()
    }
}

#[track_caller]
fn cluster(lab: &Lab, count: usize) -> Cluster {
    let cluster = Cluster::start(lab, count);
    create(lab, &cluster, "-o encrypted --subnet 10.9.0.0/24 --subnet fd00:9::/64");
    cluster
}

/// The process that encrypts for a host.
fn cipher_of(host: &Host) -> Option<Pid> {
    let own = fs::metadata(host.place.path_text()).expect("the host's namespace").ino();
    let is_it = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "rnet-cipher"
            && fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|data| data.ino() == own)
    };
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(is_it).and_then(Pid::from_raw)
}

/// Whether the kernel encrypts by itself, as some do on which these tests are run by hand.
fn kernel_encrypts(lab: &Lab) -> bool {
    let tried = lab.sh("ip link add probe0 type wireguard && ip link delete probe0");
    assert!(tried.succeeded() || tried.stderr().contains("Unknown device type"), "{tried}");
    tried.succeeded()
}

#[track_caller]
fn kill_cipher(lab: &Lab, host: &Host) {
    match cipher_of(host) {
        Some(pid) => rustix::process::kill_process(pid, Signal::KILL).expect("killed"),
        None => drop(host.sh(lab, "ip link delete rnet-wg").ok()),
    }
    until("it is gone", || !host.place.has_link("rnet-wg"));
}

/// The address that a host has between hosts in cipher.
#[track_caller]
fn between(host: &Host) -> String {
    let shown = host.place.ip("-6 address show dev rnet-wg");
    shown[0]["addr_info"][0]["local"].as_str().expect("an address").to_owned()
}

/// How often the rule with that comment was met.
#[track_caller]
fn met(lab: &Lab, host: &Host, comment: &str) -> u64 {
    let shown = host.sh(lab, "nft list table inet rnet").ok();
    let line = shown.stdout().lines().find(|line| line.contains(comment)).expect("the rule").to_owned();
    let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).expect("a counter").parse().expect("a number")
}

fn containers_talk_and_nothing_is_seen_in_clear(lab: &Lab) {
    let cluster = cluster(lab, 2);
    let ear = Underlay::at(lab, &cluster.hosts[0]);
    let words = Wire::on(&lab.host, "h1");
    let (one, two) = pair(lab, &cluster);
    let (four, six) = addresses(&two);
    lab.tcp(&one, &format!("{four}:80")).answered_by(&two);
    lab.tcp(&one, &format!("[{six}]:80")).answered_by(&two);
    lab.tcp(&two, &format!("{}:80", addresses(&one).0)).answered_by(&one);
    let socket = one.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.connect(format!("{four}:7000")).expect("a way there");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
    socket.send(b"a-word-in-clear").expect("sent");
    words.must_not_hear("a-word-in-clear");
    assert!(traffic::heard(&socket, &mut [0; 64]).is_ok(), "the word arrives");
    // 28 bytes are IPv4's and UDP's own, 70 VXLAN's over IPv6, 60 WireGuard's over IPv4: 1500.
    assert_eq!(one.link("eth0")["mtu"], 1370);
    never_fragment(&socket);
    socket.send(&[0; 1342]).expect("1370 bytes pass in one piece");
    assert!(traffic::heard(&socket, &mut [0; 64]).is_ok(), "and arrive");
    let ports = ear.ports();
    assert!(ports.len() > 10, "only {} datagrams were heard", ports.len());
    assert!(ports.iter().all(|port| *port == 51820), "{ports:?}");
    let says = cluster.hosts[0].rn(lab, "agent --status").ok().json();
    let by = if kernel_encrypts(lab) { "in the kernel" } else { "in a process of its own (boringtun)" };
    assert_eq!(says["parts"]["overlay"]["says"]["encrypts"], format!("WireGuard, {by}"));
    let text = fs::read_to_string(format!("{}/cipher-key.json", cluster.hosts[0].root())).expect("the key");
    assert!(text.contains("private_key"), "{text}");
    let mode = fs::metadata(format!("{}/cipher-key.json", cluster.hosts[0].root())).expect("the key").mode();
    assert_eq!(mode & 0o777, 0o600);
    cluster.hosts[0].rn(lab, "check").ok().silent();
    cluster.end(lab);
}

fn where_nothing_encrypts_nothing_leaves(lab: &Lab) {
    let mut cluster = cluster(lab, 2);
    let (one, two) = pair(lab, &cluster);
    let to = format!("{}:80", addresses(&two).0);
    lab.tcp(&one, &to).answered_by(&two);
    // Begun again by the agent.
    kill_cipher(lab, &cluster.hosts[0]);
    until("the agent begins another", || cluster.hosts[0].place.has_link("rnet-wg"));
    lab.tcp(&one, &to).answered_by(&two);
    cluster.store.down();
    kill_cipher(lab, &cluster.hosts[0]);
    until("it does so without the store", || cluster.hosts[0].place.has_link("rnet-wg"));
    lab.tcp(&one, &to).answered_by(&two);
    cluster.store.up(lab);
    // Not begun again, and the host's routes lead what was to be encrypted to the other host by its plain link.
    cluster.kill_agent(lab, 0);
    kill_cipher(lab, &cluster.hosts[0]);
    let ear = Underlay::at(lab, &cluster.hosts[0]);
    prepare(&cluster.hosts[0].place, "route add fd72:6e65:7400::/48 via 2001:db8:50::2 dev eth0");
    let before = met(lab, &cluster.hosts[0], "never in clear to elsewhere");
    let socket = one.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    for _ in 0..20 {
        socket.send_to(b"a-word-in-clear", format!("{}:7000", addresses(&two).0)).expect("sent");
    }
    until("all of them were dropped", || {
        met(lab, &cluster.hosts[0], "never in clear to elsewhere") >= before + 20
    });
    assert!(!ear.ports().contains(&4799), "something left in clear");
    prepare(&cluster.hosts[0].place, "route del fd72:6e65:7400::/48 dev eth0");
    cluster.start_agent(lab, 0);
    lab.tcp(&one, &to).answered_by(&two);
    cluster.end(lab);
}

fn datagrams_in_clear_reach_nobody(lab: &Lab) {
    let cluster = cluster(lab, 2);
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let wire = Wire::on(&one, "eth0");
    let (number, own) = (vni(lab, &cluster.hosts[0]), between(&cluster.hosts[0]));
    let target: Ipv4Addr = addresses(&one).0.parse().expect("an address");
    // Somebody on the same underlay has the address of the other host, and a way around the cipher.
    let other = between(&cluster.hosts[1]);
    prepare(
        &lab.host,
        &format!(
            "address add {other}/128 dev underlay nodad
             route add {own}/128 via 2001:db8:50::1 dev underlay"
        ),
    );
    let forge = |word: &str| {
        let socket = lab.host.inside(|| UdpSocket::bind(format!("[{other}]:0"))).expect("a socket");
        socket.send_to(&forged(number, target, word), format!("[{own}]:4799")).expect("sent");
    };
    // With one endpoint, and nobody who may send.
    forge("to-the-only-one");
    wire.must_not_hear("to-the-only-one");
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    until("it is placed", || remotes(lab, &cluster.hosts[0]) == 1);
    forge("from-a-stranger");
    wire.must_not_hear("from-a-stranger");
    assert!(met(lab, &cluster.hosts[0], "never in clear from elsewhere") >= 2);
    // The forgery is right: the seal alone keeps it out.
    cluster.hosts[0].sh(lab, "nft delete element inet rnet sealed '{ 4799 }'").ok();
    forge("without-the-seal");
    wire.must_hear("without-the-seal");
    let checked = cluster.hosts[0].rn(lab, "check").exits(1);
    assert_eq!(checked.stdout(), "host: missing: firewall: 4799/udp in cipher only\n");
    cluster.hosts[0].rn(lab, "repair").ok();
    forge("with-the-seal-again");
    wire.must_not_hear("with-the-seal-again");
    // A container has no way into it either.
    let socket = two.inside(|| UdpSocket::bind("[::]:0")).expect("a socket");
    let _ = socket.send_to(&forged(number, target, "from-a-container"), format!("[{own}]:4799"));
    wire.must_not_hear("from-a-container");
    prepare(
        &lab.host,
        &format!(
            "route del {own}/128 via 2001:db8:50::1 dev underlay
             address del {other}/128 dev underlay"
        ),
    );
    cluster.end(lab);
}

fn without_agent_and_store_it_goes_on(lab: &Lab) {
    let mut cluster = cluster(lab, 2);
    let (one, two) = pair(lab, &cluster);
    let index = |cluster: &Cluster| cluster.hosts[0].place.link("rnet-wg")["ifindex"].clone();
    let before = index(&cluster);
    lab.udp(&one, &format!("{}:7000", addresses(&two).0)).answered_by(&two);
    let pinging = Pinging::start(&one, &format!("{}:7000", addresses(&two).0));
    cluster.kill_agent(lab, 0);
    cluster.store.down();
    cluster.start_agent(lab, 0);
    cluster.store.up(lab);
    until("the agent follows the store again", || {
        let says = cluster.hosts[0].rn(lab, "agent --status").ok().json();
        says["parts"]["overlay"]["says"]["follows"] == true
    });
    pinging.lost_nothing();
    assert_eq!(index(&cluster), before);
    // The last encrypted network takes what encrypts along, on all hosts.
    cluster.hosts[0].rn(lab, "network disconnect ov c1").ok();
    cluster.hosts[1].rn(lab, "network disconnect ov c2").ok();
    remove(lab, &cluster.hosts[0]);
    until("nothing encrypts", || cluster.hosts.iter().all(|host| !host.place.has_link("rnet-wg")));
    cluster.end(lab);
}

fn a_host_that_cannot_encrypt_says_so_and_takes_no_part(lab: &Lab) {
    if kernel_encrypts(lab) {
        skip("this kernel has WireGuard, and needs no /dev/net/tun".to_owned());
    }
    let mut cluster = Cluster::machines(lab, 2, Store::start);
    lab.sh("mount --bind /dev/null /dev/net/tun").ok();
    (0..2).for_each(|number| cluster.start_agent(lab, number));
    let words = "network create -d overlay -o encrypted --subnet 10.9.0.0/24 ov";
    cluster.hosts[0].rn(lab, words).refused(&["this host cannot encrypt", "/dev/net/tun"]);
    cluster.hosts[0].rn(lab, "network inspect ov").failed_after_output(&["network ov not found"]);
    cluster.hosts[0].rn(lab, "doctor").ok().mentions("/dev/net/tun");
    lab.sh("umount /dev/net/tun").ok();
    cluster.hosts[0].rn(lab, words).refused(&["begin the agent again"]);
    cluster.kill_agent(lab, 0);
    cluster.start_agent(lab, 0);
    cluster.hosts[0].rn(lab, words).ok();
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    assert_eq!(one.link("eth0")["mtu"], 1370);
    lab.namespace("c2");
    cluster.hosts[1].rn(lab, "network connect ov c2").refused(&["ov"]);
    // It takes part in all others.
    cluster.hosts[1].rn(lab, "network create -d overlay --subnet 10.10.0.0/24 plain").ok();
    cluster.hosts[1].rn(lab, "network connect plain c2").ok();
    let says = cluster.hosts[1].rn(lab, "agent --status").ok().json();
    assert_eq!(says["parts"]["overlay"]["says"]["trouble"], serde_json::Value::Null);
    cluster.end(lab);
}

fn plain_networks_beside_it_are_as_before(lab: &Lab) {
    let cluster = cluster(lab, 2);
    let (one, two) = pair(lab, &cluster);
    cluster.hosts[0].rn(lab, "network create -d overlay --subnet 10.10.0.0/24 plain").ok();
    until("the other host knows it", || cluster.hosts[1].rn(lab, "network inspect plain").succeeded());
    let [three, four] = ["p1", "p2"].map(|name| lab.namespace(name));
    cluster.hosts[0].rn(lab, "network connect plain p1").ok();
    cluster.hosts[1].rn(lab, "network connect plain p2").ok();
    lab.listen_tcp(&four, "0.0.0.0:80");
    assert_eq!(three.link("eth0")["mtu"], 1450);
    let ear = Underlay::at(lab, &cluster.hosts[0]);
    lab.tcp(&three, &format!("{}:80", addresses(&four).0)).answered_by(&four);
    assert!(ear.ports().contains(&4789));
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    lab.no_tcp(&one, &format!("{}:80", addresses(&four).0));
    cluster.end(lab);
}

fn hosts_are_reached_over_ipv6_too(lab: &Lab) {
    let mut cluster = Cluster::machines(lab, 2, Store::start);
    for number in 0..2 {
        cluster.hosts[number].address = format!("2001:db8:50::{}", number + 1);
        cluster.start_agent(lab, number);
    }
    create(lab, &cluster, "-o encrypted --subnet 10.9.0.0/24");
    let ear = Underlay::at(lab, &cluster.hosts[0]);
    let (one, two) = pair(lab, &cluster);
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    // 1500 less 70 for VXLAN and 80 for WireGuard, both over IPv6.
    assert_eq!(one.link("eth0")["mtu"], 1350);
    assert!(ear.ports().iter().all(|port| *port == 51820));
    cluster.end(lab);
}

fn hosts_say_nothing_else_to_each_other_there(lab: &Lab) {
    let cluster = cluster(lab, 2);
    let (one, two) = pair(lab, &cluster);
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    // Services of the host listen at all of its addresses.
    lab.listen_tcp(&cluster.hosts[0].place, "[::]:80");
    lab.listen_udp(&cluster.hosts[0].place, "[::]:7001");
    let own = between(&cluster.hosts[0]);
    lab.tcp(&cluster.hosts[1].place, "[2001:db8:50::1]:80").answered_by(&cluster.hosts[0].place);
    lab.no_tcp(&cluster.hosts[1].place, &format!("[{own}]:80"));
    lab.no_udp(&cluster.hosts[1].place, &format!("[{own}]:7001"));
    lab.silence(&cluster.hosts[0].place);
    cluster.end(lab);
}

fn without_its_seal_a_network_is_not_made(lab: &Lab) {
    let cluster = cluster(lab, 2);
    let host = &cluster.hosts[1];
    lab.namespace("c2");
    // Its tables are there by now, and somebody takes one of the rules.
    host.rn(lab, "network create --subnet 10.20.0.0/24 blue").ok();
    let taken = "handle=$(nft -a list chain inet rnet tunnels_out | sed -n 's/.*never in clear.*handle //p'); \
                 nft delete rule inet rnet tunnels_out handle $handle";
    host.sh(lab, taken).ok();
    host.rn(lab, "network connect ov c2").refused(&["does not keep 4799/udp from being sent in clear"]);
    // A rule that only says that it is one does not count where it does nothing.
    host.sh(
        lab,
        "nft 'add rule inet rnet tunnels udp dport 4799 accept comment \"never in clear to elsewhere\"'",
    )
    .ok();
    host.rn(lab, "network connect ov c2").refused(&["does not keep 4799/udp from being sent in clear"]);
    assert!(!host.place.has_link("vx0"));
    host.rn(lab, "repair").ok();
    host.rn(lab, "network connect ov c2").ok();
    host.rn(lab, "network rm blue").ok();
    cluster.end(lab);
}
