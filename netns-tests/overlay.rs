//! Overlay networks: several hosts on one underlay, each a namespace with directories of its own, on the real kernel.
//!
//! ```text
//!   the test's host: bridge underlay 198.51.100.254/24, 2001:db8:50::254/64
//!      ├── h1 198.51.100.1  2001:db8:50::1     ├── h2 198.51.100.2 ...     └── h3 198.51.100.3 ...
//! ```

use std::process::Command;

use crate::{
    command::{self, Output, until},
    forge::{self, Wire},
    lab::{Lab, Place, RNET, prepare},
};

/// The tests of networks whose hosts are named by hand.
pub mod by_hand;
/// The tests of networks that hosts share by a store.
pub mod cluster;
/// The tests of networks whose packets leave a host in cipher only.
pub mod encrypted;
/// The tests of hosts that are cut off, hang, or move.
pub mod faults;
/// The tests of what a store of several members, and one that asks who is there, can do.
pub mod members;
/// The tests of names across hosts.
pub mod names;
/// The store of those tests.
pub mod store;

/// A namespace that plays a host of its own: links, firewall, directories.
pub struct Host {
    /// Its namespace.
    pub place: Place,
    /// Its address on the underlay.
    pub address: String,
    number: usize,
}

impl Host {
    /// Runs rnet on it with the words of one line.
    #[track_caller]
    pub fn rn(&self, lab: &Lab, line: &str) -> Output {
        self.rnet(lab, &line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs rnet on it.
    #[track_caller]
    pub fn rnet(&self, lab: &Lab, words: &[&str]) -> Output {
        let mut command = self.command(lab, words);
        self.place.inside(|| command::run(&mut command))
    }

    /// A command line of rnet for it.
    pub fn command(&self, lab: &Lab, words: &[&str]) -> Command {
        let mut command = lab.command(RNET, words);
        command.env("RNET_ROOT", self.root()).env("RNET_RUN", self.run()).env("RNET_HOST_NAME", self.name());
        command
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("h{}", self.number)
    }

    /// Where it keeps definitions.
    pub fn root(&self) -> String {
        format!("/run/lab/{}/root", self.name())
    }

    /// Where it keeps what lives with the kernel.
    pub fn run(&self) -> String {
        format!("/run/lab/{}/run", self.name())
    }

    /// Runs a program in it.
    #[track_caller]
    pub fn sh(&self, lab: &Lab, line: &str) -> Output {
        let mut command = lab.command("sh", &["-c", line]);
        self.place.inside(|| command::run(&mut command))
    }

    /// The only sandbox that it has.
    #[track_caller]
    pub fn sandbox(&self) -> Place {
        let folder = format!("{}/netns", self.run());
        let names: Vec<String> = std::fs::read_dir(&folder)
            .map(|list| list.flatten().map(|entry| entry.path().display().to_string()).collect())
            .unwrap_or_default();
        assert_eq!(names.len(), 1, "sandboxes in {folder}: {names:?}");
        Place::new(&format!("sandbox of {}", self.name()), names[0].clone())
    }
}

/// Hosts beside each other on one underlay.
pub fn hosts(lab: &Lab, count: usize) -> Vec<Host> {
    prepare(
        &lab.host,
        "link add underlay type bridge mcast_snooping 0
         link set underlay addrgenmode none
         link set underlay up
         address add 198.51.100.254/24 dev underlay
         address add 2001:db8:50::254/64 dev underlay nodad",
    );
    let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
    let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
    let made: Vec<Host> = (1..=count).map(|number| host(lab, number)).collect();
    until("the underlay is up", || made.iter().all(|host| forwards(lab, host)));
    lab.prepared();
    made
}

/// The kernel opens a port a little after its cable is there.
fn forwards(lab: &Lab, host: &Host) -> bool {
    lab.host.link(&host.name())["linkinfo"]["info_slave_data"]["state"] == "forwarding"
}

fn host(lab: &Lab, number: usize) -> Host {
    let name = format!("h{number}");
    let place = lab.namespace(&name);
    std::fs::create_dir(format!("/run/lab/{name}")).expect("a directory of the host");
    prepare(
        &lab.host,
        &format!(
            "link add {name} type veth peer name eth0 netns /run/netns/{name}
             link set {name} addrgenmode none
             link set {name} master underlay up"
        ),
    );
    prepare(
        &place,
        &format!(
            "link set lo up
             link set eth0 addrgenmode none
             link set eth0 up
             address add 198.51.100.{number}/24 dev eth0
             address add 2001:db8:50::{number}/64 dev eth0 nodad
             route add default via 198.51.100.254"
        ),
    );
    Host { place, address: format!("198.51.100.{number}"), number }
}

/// What a host sends and receives on the underlay, frame by frame.
pub struct Ear(Wire);

/// A VXLAN datagram: the frame in it.
pub struct Inner(Vec<u8>);

impl Inner {
    /// The hardware address that the inner frame is for.
    pub fn destination(&self) -> &[u8] {
        &self.0[..6]
    }

    /// What the inner frame carries: `ETH_P_*`.
    pub fn kind(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }

    /// For one station only, and no question about where one is.
    pub fn is_plain_unicast(&self) -> bool {
        let solicits =
            self.kind() == forge::IP6 && self.0.get(20) == Some(&58) && self.0.get(54) == Some(&135);
        self.destination()[0] & 1 == 0 && self.kind() != forge::ARP && !solicits
    }
}

impl Ear {
    /// At the cable of a host.
    pub fn at(lab: &Lab, host: &Host) -> Self {
        Self(Wire::on(&lab.host, &host.name()))
    }

    /// The VXLAN datagrams that came by until now.
    pub fn tunnelled(&self) -> Vec<Inner> {
        const OUTER: usize = 14 + 20;
        let is_vxlan = |frame: &Vec<u8>| {
            frame.len() >= OUTER + 16 + 14
                && frame[12..14] == forge::IP4.to_be_bytes()
                && frame[23] == 17
                && frame[OUTER + 2..OUTER + 4] == 4789u16.to_be_bytes()
        };
        self.0
            .frames()
            .into_iter()
            .filter(is_vxlan)
            .map(|frame| Inner(frame[OUTER + 16..].to_vec()))
            .collect()
    }
}
