//! A network as one makes it by hand: a bridge, veth pairs, forwarding, and nothing that protects anybody. An attack
//! that fails even here proves nothing.

use std::fs;

use crate::{
    command::{self, until},
    lab::{Lab, Place, mac_of, prepare},
    traffic::tcp_short,
};

/// Where an attack is tried: a network with two containers, made by hand or by rnet. Hardware addresses follow
/// IPv4 addresses (`mac_of`).
pub struct Ground {
    /// The bridge.
    pub bridge: String,
    /// The host's address on it.
    pub gateway: &'static str,
    /// The attacker, and its address.
    pub one: Place,
    /// Its address.
    pub one_ip: &'static str,
    /// Its neighbour.
    pub two: Place,
    /// The neighbour's address.
    pub two_ip: &'static str,
}

/// The network `blue` of rnet with two members, TCP servers on port 80.
#[track_caller]
pub fn rnet(lab: &Lab, options: &str, publish: &[&str]) -> Ground {
    lab.rn(&format!("network create {options} blue")).ok();
    let one = lab.web("blue", "one", publish);
    let two = lab.web("blue", "two", &[]);
    let bridge = lab.host.links().into_iter().find(|link| link.starts_with("rn-")).expect("a bridge");
    Ground { bridge, gateway: "172.18.0.1", one, one_ip: "172.18.0.2", two, two_ip: "172.18.0.3" }
}

/// The network by hand.
pub struct Naive<'a> {
    lab: &'a Lab,
    forwarding: Vec<(&'static str, String)>,
    /// Where the attack is tried first.
    pub ground: Ground,
}

/// The switches that make the host a router.
const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
/// The naive host's IPv6 address on its bridge; the members have ::2 and ::3.
pub const GATEWAY6: &str = "fd00:30::1";

impl<'a> Naive<'a> {
    /// With IPv4 alone, as far as anybody configured it.
    #[track_caller]
    pub fn new(lab: &'a Lab) -> Self {
        let forwarding: Vec<_> =
            FORWARDING.map(|path| (path, fs::read_to_string(path).expect("/proc"))).into();
        prepare(
            &lab.host,
            &format!(
                "link add naive0 type bridge
                 link set naive0 address {} up
                 address add 172.30.0.1/24 dev naive0",
                mac_of("172.30.0.1")
            ),
        );
        fs::write(FORWARDING[0], "1").expect("/proc");
        let [one, two] = ["naive1", "naive2"].map(|name| lab.namespace(name));
        for (place, address) in [(&one, "172.30.0.2"), (&two, "172.30.0.3")] {
            let name = place.name();
            prepare(
                &lab.host,
                &format!(
                    "link add v-{name} type veth peer name eth0 netns {name}
                     link set v-{name} master naive0 up"
                ),
            );
            prepare(
                place,
                &format!(
                    "link set lo up
                     link set eth0 address {} up
                     address add {address}/24 dev eth0
                     route add default via 172.30.0.1",
                    mac_of(address)
                ),
            );
            lab.listen_tcp(place, "0.0.0.0:80");
        }
        let bridge = "naive0".to_owned();
        let (gateway, one_ip, two_ip) = ("172.30.0.1", "172.30.0.2", "172.30.0.3");
        let ground = Ground { bridge, gateway, one, one_ip, two, two_ip };
        Self { lab, forwarding, ground }
    }

    /// With IPv6 beside it.
    #[track_caller]
    pub fn dual_stack(lab: &'a Lab) -> Self {
        let naive = Self::new(lab);
        prepare(&lab.host, &format!("address add {GATEWAY6}/64 dev naive0 nodad"));
        for (place, last) in [(&naive.ground.one, 2), (&naive.ground.two, 3)] {
            prepare(place, &format!("address add fd00:30::{last}/64 dev eth0 nodad"));
            prepare(place, &format!("route add default via {GATEWAY6}"));
        }
        fs::write(FORWARDING[1], "1").expect("/proc");
        naive
    }

    /// Rules as one finds them in tutorials.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        let mut nft = self.lab.command("nft", &[rules]);
        command::run(&mut nft).ok();
    }

    /// Takes it all away.
    #[track_caller]
    pub fn gone(self) {
        let lab = self.lab;
        self.nft("flush ruleset");
        prepare(&lab.host, "link del v-naive1\n link del v-naive2\n link del naive0");
        for (path, value) in &self.forwarding {
            fs::write(path, value).expect("/proc");
        }
        lab.delete_namespace(&self.ground.one);
        lab.delete_namespace(&self.ground.two);
    }
}

/// Another program throws all rules away.
#[track_caller]
pub fn flush(lab: &Lab) {
    lab.needs("nft");
    lab.sh("nft flush ruleset").ok();
}

/// Another LAN behind the host, with a TCP server on port 80 and one of UDP on port 53.
#[track_caller]
pub fn second_lan(lab: &Lab) -> Place {
    let lan2 = lab.namespace("lan2");
    prepare(
        &lab.host,
        "link add uplink1 type veth peer name eth0 netns lan2
         link set uplink1 addrgenmode none up
         address add 198.51.100.1/24 dev uplink1
         address add 2001:db8:2::1/64 dev uplink1 nodad",
    );
    prepare(
        &lan2,
        "link set lo up
         link set eth0 up
         address add 198.51.100.2/24 dev eth0
         address add 2001:db8:2::2/64 dev eth0 nodad
         route add default via 198.51.100.1
         route add default via 2001:db8:2::1",
    );
    prepare(
        &lab.lan,
        "route add 198.51.100.0/24 via 192.0.2.1\n route add 2001:db8:2::/64 via 2001:db8:1::1",
    );
    lab.listen_tcp(&lan2, "[::]:80");
    for to in ["198.51.100.2:80", "[2001:db8:2::2]:80"] {
        until("the other LAN is up", || tcp_short(&lab.host, to).result().is_ok());
    }
    lan2
}

/// Takes the other LAN away.
#[track_caller]
pub fn no_second_lan(lab: &Lab, lan2: &Place) {
    prepare(&lab.host, "link del uplink1");
    lab.delete_namespace(lan2);
}
