//! Hosts of the measurement: a neighbour `c1` on the LAN, a server `c2` and another container `c3`, on a network made by
//! hand or by rnet, with ports published in one way or another.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    lab::{Done, netns, run, settle, timed},
    traffic,
};

/// The first host port, and the first port of the container: no two of them the same, so that each is one element.
const FIRST: usize = 20_000;
const FIRST_INSIDE: usize = 40_000;

/// One host.
pub struct Host {
    rnet: Option<PathBuf>,
    /// Where the neighbour connects to, and where the server listens.
    to: String,
    inside: u16,
    /// The server's address.
    server: &'static str,
}

impl Host {
    /// A bare bridge with bare veth pairs, and a host that routes. Nothing looks at a packet.
    pub fn plain() -> Done<Self> {
        lan()?;
        ip("link add br0 type bridge\nlink set br0 up\naddress add 172.18.0.1/16 dev br0")?;
        for (number, address) in [(2, "172.18.0.2"), (3, "172.18.0.3")] {
            ip(&format!(
                "link add v{number} numrxqueues 1 numtxqueues 1 type veth peer name eth0 numrxqueues 1 numtxqueues 1 netns {}\nlink set v{number} master br0 up",
                netns(number)
            ))?;
            ip_in(
                number,
                &format!(
                    "link set lo up\nlink set eth0 up\naddress add {address}/16 dev eth0\nroute add default via 172.18.0.1"
                ),
            )?;
        }
        write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(Self {
            rnet: None,
            to: format!("172.18.0.2:{FIRST_INSIDE}"),
            inside: port(FIRST_INSIDE),
            server: "172.18.0.2",
        })
    }

    /// The same, and the kernel remembers every connection: what any stateful firewall costs at least.
    pub fn tracked() -> Done<Self> {
        let host = Self::plain()?;
        nft("table ip bench { chain f { type filter hook forward priority 0; ct state invalid drop; }; }")?;
        Ok(host)
    }

    /// With rnet, and so many ports of one container published.
    pub fn rnet(rnet: &Path, count: usize) -> Done<Self> {
        lan()?;
        let host = Self {
            rnet: Some(rnet.to_owned()),
            to: last(count),
            inside: last_inside(count),
            server: "172.18.0.2",
        };
        host.run("network create blue")?;
        host.run(&format!("network connect -p {} blue {}", ports(count), netns(2)))?;
        host.run(&format!("network connect blue {}", netns(3)))?;
        Ok(host)
    }

    /// With the rules that are usual elsewhere: for each port one that translates, one that accepts, and one for the
    /// container that calls itself.
    pub fn rules(count: usize) -> Done<Self> {
        let host = Self { to: last(count), inside: last_inside(count), ..Self::plain()? };
        let each = |rule: &dyn Fn(usize, usize) -> String| -> String {
            (0..count).map(|n| rule(FIRST + n, FIRST_INSIDE + n)).collect::<Vec<_>>().join("\n")
        };
        nft(&format!(
            "table ip bench {{
               chain pre {{ type nat hook prerouting priority -100; fib daddr type local jump ports
}}
               chain out {{ type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local jump ports
}}
               chain forward {{ type filter hook forward priority 0; policy accept;
                 oifname br0 ct state established,related accept
                 oifname br0 jump accepted
                 oifname br0 drop
}}
               chain post {{ type nat hook postrouting priority 100;
                 ip saddr 172.18.0.0/16 oifname != br0 masquerade
                 jump hairpin
}}
               chain ports {{
{}
}}
               chain accepted {{
{}
}}
               chain hairpin {{
{}
}}
             }}",
            each(&|out, inside| format!("tcp dport {out} dnat to 172.18.0.2:{inside}")),
            each(&|_, inside| format!("ip daddr 172.18.0.2 iifname != br0 oifname br0 tcp dport {inside} accept")),
            each(&|_, inside| format!("ip saddr 172.18.0.2 ip daddr 172.18.0.2 tcp dport {inside} masquerade")),
        ))?;
        Ok(host)
    }

    /// Whether the host's firewall looks into the bridge.
    pub fn filter(self, on: bool) -> Done<Self> {
        for family in ["iptables", "ip6tables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
            if Path::new(&path).exists() {
                write(&path, if on { "1" } else { "0" })?;
            }
        }
        Ok(self)
    }

    fn run(&self, line: &str) -> Done<String> {
        run(&mut self.command(line)?)
    }

    fn command(&self, line: &str) -> Done<Command> {
        let mut command = Command::new(self.rnet.as_ref().ok_or("this host has no rnet")?);
        // Names are not what is measured here, and need an agent that would go on in a host that nobody is in.
        command.args(line.split(' ')).stdin(Stdio::null()).env("RNET_AGENT", "manual");
        Ok(command)
    }

    /// New connections per second from the neighbour to the server.
    pub fn connections(&mut self, time: Duration) -> Done<f64> {
        traffic::connections(&netns(1), &netns(2), &self.to, self.inside, time)
    }

    /// Bytes per second from the other container to the server.
    pub fn throughput(&mut self, time: Duration) -> Done<f64> {
        traffic::throughput(&netns(3), &netns(2), self.server, time)
    }

    /// The milliseconds of a whole attach of the third container with that port published.
    pub fn attach(&mut self, ports: &str) -> Done<f64> {
        self.run(&format!("network disconnect blue {}", netns(3)))?;
        self.run(&format!("network disconnect -f blue {}", netns(2)))?;
        settle();
        let time = timed(&mut self.command(&format!("network connect -p {ports} blue {}", netns(3)))?)?;
        settle();
        Ok(time)
    }

    /// Rules, and elements of sets and maps; and processes of rnet.
    pub fn counts(&mut self) -> Done<[usize; 3]> {
        let listed = run(Command::new("/usr/sbin/nft").args(["-j", "list", "ruleset"]))?;
        let listed: Value = serde_json::from_str(&listed).map_err(|error| error.to_string())?;
        let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
        let rules = objects.iter().filter(|object| object.get("rule").is_some()).count();
        let elements = |kind: &str| -> usize {
            objects.iter().filter_map(|object| object[kind]["elem"].as_array()).map(Vec::len).sum()
        };
        Ok([rules, elements("set") + elements("map"), processes(self.rnet.as_deref())])
    }

    /// How many elements the maps of translated ports have more once that port is published beside the others.
    pub fn elements_of(&mut self, ports: &str) -> Done<usize> {
        let count = || -> Done<usize> {
            let listed = run(Command::new("/usr/sbin/nft").args([
                "-j",
                "list",
                "map",
                "inet",
                "rnet",
                "ranges4_any",
            ]))?;
            let listed: Value = serde_json::from_str(&listed).map_err(|error| error.to_string())?;
            let objects = listed["nftables"].as_array().cloned().unwrap_or_default();
            Ok(objects.iter().filter_map(|object| object["map"]["elem"].as_array()).map(Vec::len).sum())
        };
        self.attach("8080:80")?;
        let before = count()?;
        self.attach(ports)?;
        Ok(count()? - before)
    }
}

fn port(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn last(count: usize) -> String {
    format!("192.0.2.1:{}", FIRST + count - 1)
}

fn last_inside(count: usize) -> u16 {
    port(FIRST_INSIDE + count - 1)
}

fn ports(count: usize) -> String {
    match count {
        1 => format!("{FIRST}:{FIRST_INSIDE}"),
        _ => format!("{FIRST}-{}:{FIRST_INSIDE}-{}", FIRST + count - 1, FIRST_INSIDE + count - 1),
    }
}

/// The neighbour. Its own ports are few, so that the kernel remembers few connections.
fn lan() -> Done {
    ip(&format!(
        "link add uplink0 type veth peer name eth0 netns {}\nlink set uplink0 up\naddress add 192.0.2.1/24 dev uplink0",
        netns(1)
    ))?;
    ip_in(
        1,
        "link set lo up\nlink set eth0 up\naddress add 192.0.2.2/24 dev eth0\nroute add default via 192.0.2.1",
    )?;
    traffic::inside(&netns(1), || write("/proc/sys/net/ipv4/ip_local_port_range", "10000 19999"))?
}

fn ip(lines: &str) -> Done {
    lines.lines().try_for_each(|line| run(Command::new("/usr/sbin/ip").args(line.split(' '))).map(drop))
}

fn ip_in(container: usize, lines: &str) -> Done {
    let name = format!("c{container}");
    lines.lines().try_for_each(|line| {
        run(Command::new("/usr/sbin/ip").args(["-n", &name]).args(line.split(' '))).map(drop)
    })
}

fn nft(rules: &str) -> Done {
    let file = "/run/bench.nft";
    write(file, rules)?;
    run(Command::new("/usr/sbin/nft").args(["-f", file])).map(drop)
}

fn write(path: &str, text: &str) -> Done {
    fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

/// Processes of that program.
fn processes(program: Option<&Path>) -> usize {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let programs = all.filter_map(|entry| fs::read_link(entry.path().join("exe")).ok());
    programs.filter(|exe| Some(exe.as_path()) == program).count()
}
