//! Those who are compared, each on a host of its own: how it makes its network, attaches and detaches. Only what a
//! user or a runtime would have to wait for is in the times.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    floor::{self, Endpoint},
    lab::{Done, netns, port, programs, run, timed, timed_at_once},
};

/// A way to attach containers to a network. Times are in milliseconds.
pub trait Contender: Send {
    /// Connects a container and publishes its port 80.
    fn attach(&mut self, container: usize) -> Done<f64>;

    /// Takes that back, all of it.
    fn detach(&mut self, container: usize) -> Done<f64>;

    /// The same containers at once; says the time, and takes them back.
    fn at_once(&mut self, containers: usize) -> Done<AtOnce> {
        Err(format!("{containers} at once are not measured here"))
    }

    /// Programs executed by an attach and by a detach, the command itself not counted.
    fn programs(&mut self, _container: usize) -> Done<Option<(usize, usize)>> {
        Ok(None)
    }
}

/// Many attaches at once, and the removal of all of them with their network.
pub struct AtOnce {
    /// All attaches, from the first start to the last end.
    pub attach: f64,
    /// The removal of the network with its endpoints, where the contender has such a thing.
    pub remove: Option<f64>,
}

/// The agent that rnet started for its network's names; it would go on in a host that nobody else is in.
struct Agent(PathBuf);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = Command::new(&self.0).args(["agent", "--stop"]).output();
    }
}

/// rnet, as the user would call it.
pub struct Rnet {
    program: PathBuf,
    network: Blue,
    _agent: Agent,
}

/// The floor: the same messages, in the network and the tables that rnet made.
pub struct Floor {
    program: PathBuf,
    network: Blue,
    _agent: Agent,
}

/// `ip` and `nft` in a script, in the network and the tables that rnet made.
pub struct Script {
    network: Blue,
    _agent: Agent,
}

/// The network that `rnet network create blue` made.
struct Blue {
    rnet: PathBuf,
    id: String,
    group: u32,
}

impl Blue {
    fn create(rnet: &Path) -> Done<Self> {
        let id = run(Command::new(rnet).args(["network", "create", "--subnet", "172.18.0.0/16", "blue"]))?;
        let state =
            fs::read(format!("/run/rnet/networks/{id}/state.json")).map_err(|error| error.to_string())?;
        let state: Value = serde_json::from_slice(&state).map_err(|error| error.to_string())?;
        let group = state["network"]["group"].as_u64().and_then(|group| u32::try_from(group).ok());
        Ok(Self { rnet: rnet.into(), id, group: group.ok_or("no group in the network's state")? })
    }

    /// The endpoint that the floor and the script make for a container.
    fn endpoint(&self, container: usize) -> Endpoint {
        let number = u16::try_from(container + 1).unwrap_or(0).to_be_bytes();
        let link = format!("veth{container:011x}");
        Endpoint {
            bridge: format!("rn-{}", &self.id[..12]),
            group: self.group,
            netns: netns(container),
            alias: format!("rnet:{}:blue:{container:012x}", &self.id[..12]),
            link,
            address: [172, 18, number[0], number[1]].into(),
            prefix: 16,
            gateway: [172, 18, 0, 1].into(),
            port: port(container),
        }
    }

    /// The endpoint as rnet made it.
    fn made(&self, container: usize) -> Done<Endpoint> {
        let path = format!("/run/rnet/networks/{}/endpoints/c{container}.json", self.id);
        let state: Value =
            serde_json::from_slice(&fs::read(&path).map_err(|error| format!("{path}: {error}"))?)
                .map_err(|error| format!("{path}: {error}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let address = text(&state["endpoint"]["addresses"][0]);
        let address = address.split('/').next().and_then(|address| address.parse().ok());
        Ok(Endpoint {
            link: text(&state["made"][0]["name"]),
            address: address.ok_or("no address")?,
            ..self.endpoint(container)
        })
    }
}

impl Rnet {
    /// With its network made.
    pub fn new(program: &Path) -> Done<Self> {
        Ok(Self { program: program.into(), network: Blue::create(program)?, _agent: Agent(program.into()) })
    }

    fn connect(&self, container: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.args([
            "network",
            "connect",
            "-p",
            &format!("{}:80", port(container)),
            "blue",
            &format!("c{container}"),
        ]);
        command
    }

    fn disconnect(&self, container: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["network", "disconnect", "blue", &format!("c{container}")]);
        command
    }
}

impl Contender for Rnet {
    fn attach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.connect(container))
    }

    /// At the return of the command its link, in both namespaces, and all its elements must be gone.
    fn detach(&mut self, container: usize) -> Done<f64> {
        let endpoint = self.network.made(container)?;
        let time = timed(&mut self.disconnect(container))?;
        let left = floor::left(&endpoint).map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(time) } else { Err(format!("detach left {}", left.join(", "))) }
    }

    fn at_once(&mut self, containers: usize) -> Done<AtOnce> {
        let attach = timed_at_once((1..=containers).map(|container| self.connect(container)).collect())?;
        let made: Result<Vec<_>, _> =
            (1..=containers).map(|container| self.network.made(container)).collect();
        let made = made?;
        let mut addresses: Vec<_> = made.iter().map(|endpoint| endpoint.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() != containers {
            return Err(format!("{containers} containers have {} addresses", addresses.len()));
        }
        let remove = timed(Command::new(&self.program).args(["network", "rm", "-f", "blue"]))?;
        for endpoint in &made {
            let left = floor::left(endpoint).map_err(|error| error.to_string())?;
            if !left.is_empty() {
                return Err(format!("network rm left {}", left.join(", ")));
            }
        }
        super::lab::settle();
        self.network = Blue::create(&self.program)?;
        Ok(AtOnce { attach, remove: Some(remove) })
    }

    fn programs(&mut self, container: usize) -> Done<Option<(usize, usize)>> {
        let attach = programs(&self.connect(container))?;
        let detach = programs(&self.disconnect(container))?;
        Ok(attach.zip(detach))
    }
}

impl Floor {
    /// With its network made, by rnet.
    pub fn new(program: &Path, rnet: &Path) -> Done<Self> {
        Ok(Self { program: program.into(), network: Blue::create(rnet)?, _agent: Agent(rnet.into()) })
    }

    fn command(&self, verb: &str, container: usize) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).args(self.network.endpoint(container).words());
        command
    }
}

impl Contender for Floor {
    fn attach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.command("attach", container))
    }

    fn detach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.command("detach", container))
    }

    fn at_once(&mut self, containers: usize) -> Done<AtOnce> {
        let attach =
            timed_at_once((1..=containers).map(|container| self.command("attach", container)).collect())?;
        floor::detach_group(self.network.group).map_err(|error| error.to_string())?;
        run(Command::new(&self.network.rnet).args(["network", "rm", "-f", "blue"]))?;
        self.network = Blue::create(&self.network.rnet)?;
        Ok(AtOnce { attach, remove: None })
    }
}

/// One `ip` for the host's side and one for the container's, as someone would write it who cares for time.
const ATTACH: &str = r#"set -e
bridge=$1 group=$2 netns=${3##*/} link=$4 address=$5 gateway=$6 port=$7 alias=$8
ip=${address%/*} mac=$9
ip -batch - <<END
link add $link mtu 1500 master $bridge group $group numtxqueues 1 numrxqueues 1 type veth peer name eth0 address $mac mtu 1500 numtxqueues 1 numrxqueues 1 netns $netns
link set $link type bridge_slave hairpin on learning off flood off locked on
link set $link alias $alias
END
echo 1 > /proc/sys/net/ipv6/conf/$link/disable_ipv6
nsenter --net=/run/netns/$netns sh -s <<END
echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6
ip -batch - <<IP
link set lo up
address add $address broadcast + dev eth0
link set eth0 up
route add default via $gateway
IP
END
nft -f - <<END
add element bridge rnet ports { "$link" }
add element bridge rnet port_mac { "$link" . $mac }
add element bridge rnet port_ip4 { "$link" . $ip }
add element inet rnet publish4_any { tcp . $port : $ip . 80 }
add element inet rnet gateway4 { 127.0.0.1 . $port . tcp : $gateway }
add element inet rnet container4 { 127.0.0.1 . $port . tcp : $ip }
add element inet rnet port4 { 127.0.0.1 . $port . tcp : 80 }
add element inet rnet loopback4 { $ip . $port . tcp : 127.0.0.1 }
END
bridge fdb add $mac dev $link master static
ip link set $link up
"#;

const DETACH: &str = r#"set -e
link=$4 ip=${5%/*} port=$7 mac=$9
nft -f - <<END
delete element inet rnet publish4_any { tcp . $port }
delete element inet rnet gateway4 { 127.0.0.1 . $port . tcp }
delete element inet rnet container4 { 127.0.0.1 . $port . tcp }
delete element inet rnet port4 { 127.0.0.1 . $port . tcp }
delete element inet rnet loopback4 { $ip . $port . tcp }
delete element bridge rnet port_ip4 { "$link" . $ip }
delete element bridge rnet port_mac { "$link" . $mac }
delete element bridge rnet ports { "$link" }
END
ip link delete $link
"#;

impl Script {
    /// With its network made, by rnet.
    pub fn new(rnet: &Path) -> Done<Self> {
        fs::write("/run/attach.sh", ATTACH)
            .and_then(|()| fs::write("/run/detach.sh", DETACH))
            .map_err(|error| error.to_string())?;
        Ok(Self { network: Blue::create(rnet)?, _agent: Agent(rnet.into()) })
    }

    fn command(&self, script: &str, container: usize) -> Command {
        let endpoint = self.network.endpoint(container);
        let [.., a, b] = endpoint.address.octets();
        let mut command = Command::new("/bin/sh");
        command.arg(script).args(endpoint.words()).arg(format!("02:42:ac:12:{a:02x}:{b:02x}"));
        command
    }
}

impl Contender for Script {
    fn attach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.command("/run/attach.sh", container))
    }

    fn detach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.command("/run/detach.sh", container))
    }
}

/// Podman's, which chooses no address itself.
pub struct Netavark {
    program: &'static str,
}

impl Netavark {
    /// If it is installed and works here.
    pub fn new() -> Done<Self> {
        let places = ["/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"];
        let program =
            places.into_iter().find(|path| Path::new(path).exists()).ok_or("netavark is not installed")?;
        fs::create_dir("/run/netavark").map_err(|error| error.to_string())?;
        let mut netavark = Self { program };
        netavark.attach(1)?;
        netavark.detach(1)?;
        Ok(netavark)
    }

    fn command(&self, verb: &str, container: usize) -> Done<Command> {
        let words = json!({
            "container_id": format!("{container:064x}"),
            "container_name": format!("c{container}"),
            "networks": { "blue": { "interface_name": "eth0", "static_ips": [address(89, container)] } },
            "port_mappings": [{
                "host_ip": "", "host_port": port(container), "container_port": 80, "protocol": "tcp", "range": 1,
            }],
            "network_info": { "blue": {
                "name": "blue", "id": format!("{:064x}", 1), "driver": "bridge", "network_interface": "podman1",
                "created": "2026-01-01T00:00:00Z", "ipv6_enabled": false, "internal": false, "dns_enabled": false,
                "subnets": [{ "subnet": "10.89.0.0/16", "gateway": "10.89.0.1" }],
                "ipam_options": { "driver": "host-local" },
            } },
        });
        let mut command = Command::new(self.program);
        command.args(["--config", "/run/netavark", verb, &netns(container)]).stdin(input(&words)?);
        Ok(command)
    }
}

impl Contender for Netavark {
    fn attach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.command("setup", container)?)
    }

    fn detach(&mut self, container: usize) -> Done<f64> {
        timed(&mut self.command("teardown", container)?)
    }
}

/// The CNI project's: `bridge`, which calls `host-local`, and `portmap`, one after the other as a runtime does.
pub struct Cni;

const CNI: &str = "/usr/lib/cni";

impl Cni {
    /// If they are installed and work here.
    pub fn new() -> Done<Self> {
        for plugin in ["bridge", "portmap", "host-local"] {
            let path = Path::new(CNI).join(plugin);
            if !path.exists() {
                return Err(format!("{} is not installed", path.display()));
            }
        }
        let mut cni = Self;
        cni.attach(1)?;
        cni.detach(1)?;
        Ok(cni)
    }

    fn plugin(name: &str, verb: &str, container: usize, words: &Value) -> Done<Command> {
        let mut command = Command::new(Path::new(CNI).join(name));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("c{container}"))
            .env("CNI_NETNS", netns(container));
        command.env("CNI_IFNAME", "eth0").env("CNI_PATH", CNI).stdin(input(words)?);
        Ok(command)
    }

    fn bridge() -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "blue", "type": "bridge", "bridge": "cni0",
            "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": "/run/cni",
                "ranges": [[{ "subnet": "10.90.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
            },
        })
    }

    fn portmap(container: usize, result: &Value) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "blue", "type": "portmap", "capabilities": { "portMappings": true },
            "runtimeConfig": {
                "portMappings": [{ "hostPort": port(container), "containerPort": 80, "protocol": "tcp" }],
            },
            "prevResult": result,
        })
    }

    fn result(container: usize) -> String {
        format!("/run/cni-result-{container}")
    }
}

impl Contender for Cni {
    fn attach(&mut self, container: usize) -> Done<f64> {
        let start = std::time::Instant::now();
        let said = run(&mut Self::plugin("bridge", "ADD", container, &Self::bridge())?)?;
        let result: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        run(&mut Self::plugin("portmap", "ADD", container, &Self::portmap(container, &result))?)?;
        let time = start.elapsed().as_secs_f64() * 1000.0;
        fs::write(Self::result(container), said).map_err(|error| error.to_string())?;
        Ok(time)
    }

    fn detach(&mut self, container: usize) -> Done<f64> {
        let said = fs::read(Self::result(container)).map_err(|error| error.to_string())?;
        let result: Value = serde_json::from_slice(&said).map_err(|error| error.to_string())?;
        let start = std::time::Instant::now();
        run(&mut Self::plugin("portmap", "DEL", container, &Self::portmap(container, &result))?)?;
        run(&mut Self::plugin("bridge", "DEL", container, &Self::bridge())?)?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    }
}

/// An address for a contender that does not choose one.
fn address(second: u8, container: usize) -> String {
    let [high, low] = u16::try_from(container + 1).unwrap_or(0).to_be_bytes();
    format!("10.{second}.{high}.{low}")
}

/// A file with the words that a program reads from its standard input.
fn input(words: &Value) -> Done<fs::File> {
    const PATH: &str = "/run/bench.stdin";
    fs::write(PATH, words.to_string()).and_then(|()| fs::File::open(PATH)).map_err(|error| error.to_string())
}
