//! Overlay networks that hosts share by a store: how long it takes from a write into etcd until the kernels of ten hosts
//! have it, and the last of a thousand simulated hosts; how long an attach takes; how fast TCP is beside a bare VXLAN. As
//! root: `cargo bench --bench overlay`, with `-- --quick` for a run of two minutes.
//!
//! Hosts are network namespaces on one underlay, each with its own agent and directories; all of them and a real etcd,
//! which keeps its data in memory, share this machine's processors. The clock starts before the write is sent, so the
//! store's own time is in, and stops for each host when its kernel announces the neighbour entry, the last that is made.

#[path = "overlay/crowd.rs"]
mod crowd;
#[allow(dead_code)]
#[path = "attach/lab.rs"]
mod lab;
#[allow(dead_code)]
#[path = "ports/traffic.rs"]
mod traffic;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use lab::{Done, Lab};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rnet::{
    cluster::{
        End, Host, Keys,
        address::{Address, Credentials},
        etcd::Etcd,
        operations::{Cluster, Refused, Wish},
    },
    verbs::new_id,
};
use rnetkit_drivers::MacAddress;
use rustix::process::{Pid, Signal, kill_process};

const HOSTS: usize = 10;
const STORE: &str = "etcd://198.51.100.254:2379/bench";
/// From a write to all hosts, in milliseconds: the median, and what 99 of 100 stay below.
const GOALS: [f64; 2] = [5.0, 30.0];
/// Until the last of a thousand simulated hosts, 99 of 100, in milliseconds.
const CROWD_GOAL: f64 = 150.0;
/// Of an attach, median in milliseconds: to a network that the host has a container in, and to one that it has none in.
const ATTACH_GOALS: [f64; 2] = [15.0, 50.0];
/// Namespaces beside the hosts and their containers: the ends of a bare VXLAN, and a container that comes and goes.
const BARE: [usize; 2] = [2 * HOSTS + 1, 2 * HOSTS + 2];
/// Beside them: namespaces with a bridge and a VXLAN, and one with a veth pair to each.
const BRIDGED: [usize; 2] = [2 * HOSTS + 3, 2 * HOSTS + 4];
const BEHIND: [usize; 2] = [2 * HOSTS + 5, 2 * HOSTS + 6];
const GUEST: usize = 2 * HOSTS + 7;
/// Containers of an encrypted network, on the first two hosts.
const ENCRYPTED: [usize; 2] = [2 * HOSTS + 8, 2 * HOSTS + 9];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("overlay: this is a measurement, not a test: cargo bench --bench overlay");
        return ExitCode::SUCCESS;
    }
    let rounds = if words.iter().any(|word| word == "--quick") { 100 } else { 500 };
    match bench(rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(rounds: usize) -> Done {
    let [rnet, _] = lab::build()?;
    let lab = Lab::open(ENCRYPTED[1], move || Machines::start(&rnet))?;
    let mut times = lab.ask(move |machines| machines.latencies(rounds))?;
    let mut attaches = lab.ask(move |machines| machines.attaches(rounds / 4))?;
    let mut streams = lab.ask(move |machines| machines.streams(rounds / 10))?;
    let mut crowd = lab.ask(move |_| crowd::last(rounds / 2))?;
    let away = Duration::from_secs(if rounds < 500 { 10 } else { 60 });
    let outage = lab.ask(move |machines| machines.outage(away))?;
    println!(
        "| from the write into etcd to the kernels of {HOSTS} hosts, {rounds} writes | goal | measured |"
    );
    println!("|---|---|---|");
    for (figure, part, goal) in [("median", 0.5, GOALS[0]), ("p99", 0.99, GOALS[1])] {
        println!("| {figure} | {goal} ms | {:.1} ms |", at(&mut times, part));
    }
    for (figure, part) in [("median", 0.5), ("p99", 0.99)] {
        let goal = if part > 0.5 { format!("{CROWD_GOAL} ms") } else { String::new() };
        println!("| last of 1,000 simulated hosts, {figure} | {goal} | {:.0} ms |", at(&mut crowd, part));
    }
    let kinds = ["attach, the host has the network", "attach, the first of the host"];
    for ((kind, times), goal) in kinds.iter().zip(&mut attaches).zip(ATTACH_GOALS) {
        println!("| {kind}, median | {goal} ms | {:.1} ms |", at(times, 0.5));
    }
    let kinds = [
        ("TCP / bare VXLAN", "0.95"),
        ("TCP / VXLAN on a bridge with veth pairs", ""),
        ("encrypted TCP / bare VXLAN", ""),
    ];
    for ((what, goal), ratios) in kinds.iter().zip(&mut streams) {
        let (low, middle, high) = (at(ratios, 0.1), at(ratios, 0.5), at(ratios, 0.9));
        println!("| {what}, median (from 10 to 90 of 100) | {goal} | {middle:.2} ({low:.2} to {high:.2}) |");
    }
    let Outage { sent, lost, refused, known } = outage;
    let seconds = away.as_secs();
    println!("| the store away for {seconds} s: lost of {sent} datagrams between two hosts | 0 | {lost} |");
    println!("| until an attach is refused then | 3 s | {refused:.1} s |");
    println!(
        "| from the store's new beginning until all hosts know what happened meanwhile | 5 s | {known:.1} s |"
    );
    Ok(())
}

/// What that part of the measurements stays below.
fn at(list: &mut [f64], part: f64) -> f64 {
    list.sort_by(f64::total_cmp);
    list[((list.len() - 1) as f64 * part) as usize]
}

/// The address of a host's own container.
fn container(host: usize) -> String {
    format!("10.9.1.{host}")
}

/// The store, the hosts, and what runs on them.
struct Machines {
    rnet: PathBuf,
    running: Vec<Child>,
}

/// The agents end before the store, and what encrypts, which outlives them, after both.
impl Drop for Machines {
    fn drop(&mut self) {
        for child in self.running.iter_mut().rev() {
            let _ = Pid::from_raw(child.id().cast_signed()).map(|pid| kill_process(pid, Signal::TERM));
            let _ = child.wait();
        }
        for host in 1..=HOSTS {
            let _ = fs::remove_file(format!("/run/h{host}/run/cipher.json"));
        }
    }
}

impl Machines {
    fn start(rnet: &Path) -> Done<Self> {
        let mut machines = Self { rnet: rnet.to_owned(), running: Vec::new() };
        // Of its own: one that follows its ports leaves who asked too early with an address that nobody has.
        ip("link add underlay address 02:00:00:00:00:fe type bridge mcast_snooping 0")?;
        ip("address add 198.51.100.254/24 dev underlay")?;
        ip("link set underlay up")?;
        machines.running.push(etcd()?);
        for number in 1..=HOSTS {
            ip(&format!("link add h{number} type veth peer name eth0 netns c{number}"))?;
            ip(&format!("link set h{number} master underlay up"))?;
            ip(&format!("-n c{number} address add 198.51.100.{number}/24 dev eth0"))?;
            ip(&format!("-n c{number} link set lo up"))?;
            ip(&format!("-n c{number} link set eth0 up"))?;
            ip(&format!("-n c{number} route add default via 198.51.100.254"))?;
            let mut agent = machines.command(number, "agent --foreground");
            agent.env("RNET_STORE", STORE).env("RNET_HOST_ADDRESS", format!("198.51.100.{number}"));
            let agent = traffic::inside(&lab::netns(number), move || quiet(&mut agent).spawn())?;
            machines.running.push(agent.map_err(|error| format!("an agent: {error}"))?);
        }
        for number in 1..=HOSTS {
            machines.until(number, "host ls -q", |said| said.lines().count() == HOSTS)?;
        }
        machines.on(1, "network create -d overlay --subnet 10.9.0.0/16 ov")?;
        for number in 1..=HOSTS {
            machines.until(number, "network inspect ov", |_| true)?;
            let address = container(number);
            machines.on(number, &format!("network connect --ip {address} ov c{}", HOSTS + number))?;
        }
        Ok(machines)
    }

    /// The store goes away for that long, and a container leaves meanwhile: what is lost between two others, how many
    /// seconds a new attach takes to be refused, and how many until all hosts know of it once the store is back.
    fn outage(&mut self, time: Duration) -> Done<Outage> {
        let asked = format!("{}:7000", container(2));
        let echo = traffic::inside(&lab::netns(HOSTS + 2), || UdpSocket::bind("0.0.0.0:7000"))?;
        let echo = echo.map_err(|error| error.to_string())?;
        thread::spawn(move || {
            let mut room = [0; 64];
            while let Ok((length, from)) = echo.recv_from(&mut room) {
                let _ = echo.send_to(&room[..length], from);
            }
        });
        let ask = traffic::inside(&lab::netns(HOSTS + 1), || UdpSocket::bind("0.0.0.0:0"))?;
        let ask = ask.map_err(|error| error.to_string())?;
        ask.connect(asked)
            .and_then(|()| ask.set_read_timeout(Some(Duration::from_secs(1))))
            .map_err(|error| error.to_string())?;
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let asking = thread::spawn(move || {
            let (mut sent, mut lost) = (0, 0);
            while !told.load(Ordering::Relaxed) {
                sent += 1;
                let answered = ask.send(b"hello").and_then(|_| ask.recv(&mut [0; 64])).is_ok();
                lost += u32::from(!answered);
                thread::sleep(Duration::from_millis(10));
            }
            (sent, lost)
        });
        let gone = "10.9.2.200";
        self.on(HOSTS, &format!("network disconnect ov c{}", 2 * HOSTS))?;
        self.on(HOSTS, &format!("network connect --ip {gone} ov c{}", 2 * HOSTS))?;
        knows(gone, true)?;
        let store = &mut self.running[0];
        store.kill().and_then(|()| store.wait()).map_err(|error| format!("etcd: {error}"))?;
        let away = Instant::now();
        let begun = Instant::now();
        if self.on(3, &format!("network connect ov c{GUEST}")).is_ok() {
            return Err("an attach without the store was not refused".to_owned());
        }
        let refused = begun.elapsed().as_secs_f64();
        self.on(HOSTS, &format!("network disconnect ov c{}", 2 * HOSTS))?;
        thread::sleep(time.saturating_sub(away.elapsed()));
        let back = Instant::now();
        self.running[0] = etcd()?;
        knows(gone, false)?;
        let known = back.elapsed().as_secs_f64();
        end.store(true, Ordering::Relaxed);
        let (sent, lost) = asking.join().map_err(|_| "nobody counts any more")?;
        Ok(Outage { sent, lost, refused, known })
    }

    fn command(&self, host: usize, line: &str) -> Command {
        let mut command = Command::new(&self.rnet);
        command.args(line.split(' ')).env("RNET_ROOT", format!("/run/h{host}/root"));
        command.env("RNET_RUN", format!("/run/h{host}/run")).env("RNET_HOST_NAME", format!("h{host}"));
        command
    }

    fn on(&self, host: usize, line: &str) -> Done<String> {
        let mut command = self.command(host, line);
        traffic::inside(&lab::netns(host), move || lab::run(&mut command))?
    }

    fn until(&self, host: usize, line: &str, is: impl Fn(&str) -> bool) -> Done {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.on(host, line);
            if said.as_deref().is_ok_and(&is) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("{line} on h{host} never said what it must: {said:?}"));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Milliseconds of an attach: to a network that the host has a container in, and to one that it has none in.
    fn attaches(&self, rounds: usize) -> Done<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            eprint!("\rattach: round {round} of {rounds}");
            self.on(HOSTS, &format!("network disconnect ov c{}", 2 * HOSTS))?;
            lab::settle();
            for (kind, (host, name)) in [(1, GUEST), (HOSTS, 2 * HOSTS)].into_iter().enumerate() {
                let mut command = self.command(host, &format!("network connect ov c{name}"));
                let time = traffic::inside(&lab::netns(host), move || lab::timed(&mut command))??;
                // The first ones warm up.
                if round > 0 {
                    times[kind].push(time);
                }
                lab::settle();
            }
            self.on(1, &format!("network disconnect ov c{GUEST}"))?;
            lab::settle();
        }
        eprintln!();
        Ok(times)
    }

    /// TCP between containers of two hosts against the ends of a VXLAN without anything else, and against the same with the
    /// bridge and the veth pairs that containers need, in turns; and the same between containers of an encrypted network.
    fn streams(&self, rounds: usize) -> Done<[Vec<f64>; 3]> {
        for (number, place) in [1, 2].into_iter().zip(0..) {
            for (name, id, to) in [("bare", 77, BARE[place]), ("vx", 78, BRIDGED[place])] {
                let (own, other) = (format!("198.51.100.{number}"), format!("198.51.100.{}", 3 - number));
                let tunnel = format!("type vxlan id {id} local {own} remote {other} dstport 4790 dev eth0");
                ip(&format!("-n c{number} link add {name} {tunnel}"))?;
                ip(&format!("-n c{number} link set {name} netns c{to}"))?;
                ip(&format!("-n c{to} link set {name} up"))?;
            }
            let (bridged, behind) = (BRIDGED[place], BEHIND[place]);
            ip(&format!("-n c{bridged} link add name br type bridge"))?;
            ip(&format!("-n c{bridged} link set dev br up"))?;
            ip(&format!("-n c{bridged} link set vx master br"))?;
            ip(&format!("-n c{bridged} link add v type veth peer name eth0 netns c{behind}"))?;
            ip(&format!("-n c{bridged} link set v master br up"))?;
            // As long as what the tunnel takes.
            ip(&format!("-n c{behind} link set eth0 mtu 1450 up"))?;
            ip(&format!("-n c{behind} address add 10.78.0.{number}/24 dev eth0"))?;
            ip(&format!("-n c{} address add 10.77.0.{number}/24 dev bare", BARE[place]))?;
        }
        self.on(1, "network create -d overlay -o encrypted --subnet 10.8.0.0/24 secret")?;
        for (number, name) in [1, 2].into_iter().zip(ENCRYPTED) {
            self.until(number, "network inspect secret", |_| true)?;
            self.on(number, &format!("network connect --ip 10.8.0.1{number} secret c{name}"))?;
        }
        let ways = [
            (HOSTS + 1, HOSTS + 2, container(2)),
            (BARE[0], BARE[1], "10.77.0.2".to_owned()),
            (BEHIND[0], BEHIND[1], "10.78.0.2".to_owned()),
            (ENCRYPTED[0], ENCRYPTED[1], "10.8.0.12".to_owned()),
        ];
        let mut ratios = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=rounds {
            eprint!("\rstreams: round {round} of {rounds}");
            let mut rates = [0.0; 4];
            // Each is the first as often as the others.
            for turn in 0..ways.len() {
                let way = (round + turn) % ways.len();
                let (from, to, address) = &ways[way];
                let time = Duration::from_millis(500);
                rates[way] = traffic::throughput(&lab::netns(*from), &lab::netns(*to), address, time)?;
            }
            // The first round warms up.
            if round > 0 {
                let pairs = [(0, 1), (0, 2), (3, 1)];
                ratios
                    .iter_mut()
                    .zip(pairs)
                    .for_each(|(list, (own, other))| list.push(rates[own] / rates[other]));
            }
        }
        eprintln!();
        Ok(ratios)
    }

    /// Milliseconds from a write to each host's kernel, for each write and host.
    fn latencies(&self, rounds: usize) -> Done<Vec<f64>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (says, hears) = channel();
        for host in 1..=HOSTS {
            listen(host, says.clone())?;
        }
        let id = new_id().map_err(|error| error.to_string())?;
        let address = IpAddr::from([198, 51, 100, 200]);
        let me = Host {
            id,
            name: "writer".to_owned(),
            address,
            mtu: 1500,
            generation: 1,
            fenced: false,
            key: None,
        };
        let store: Address = STORE.parse().map_err(|error| format!("{STORE}: {error}"))?;
        let keys = Keys::below(&store.prefix);
        let mut cluster = Cluster::new(Etcd::new(store, Credentials::default()), keys, me);
        runtime.block_on(async {
            cluster.register().await.map_err(|refused| format!("{refused:?}"))?;
            let mut all = Vec::new();
            for round in 0..rounds {
                eprint!("\rlatency: write {} of {rounds}", round + 1);
                all.extend(write(&mut cluster, &hears).await?);
                // What the hosts do afterwards is in nobody's time.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            eprintln!();
            Ok(all)
        })
    }
}

/// An endpoint comes, all hosts hear of it, and it goes.
async fn write(cluster: &mut Cluster<Etcd>, hears: &Receiver<Heard>) -> Done<Vec<f64>> {
    let failed = |refused: Refused| format!("{refused:?}");
    cluster.keep_alive().await.map_err(failed)?;
    let networks = cluster.networks().await.map_err(|trouble| trouble.to_string())?;
    let network = networks.first().ok_or("there is no network")?.clone();
    let id = new_id().map_err(|error| error.to_string())?;
    let wish = Wish { endpoint: id, name: "far".to_owned(), asked: Vec::new() };
    let addresses = cluster.reserve(&network, &wish).await.map_err(failed)?;
    let Some(IpAddr::V4(address)) = addresses.first().copied() else { return Err("no address".to_owned()) };
    let [a, b, c, d] = address.octets();
    let mac = MacAddress([2, 0x42, a, b, c, d]);
    let end = End { id, container: None, name: wish.name, mac, addresses, aliases: Vec::new() };
    let start = Instant::now();
    cluster.publish(&network.id, &end).await.map_err(failed)?;
    let mut seen: Vec<Option<f64>> = vec![None; HOSTS];
    while seen.iter().any(Option::is_none) {
        let heard = hears.recv_timeout(Duration::from_secs(10)).map_err(|_| "a host never had the entry")?;
        if heard.address == address {
            let time = heard.at.duration_since(start).as_secs_f64() * 1000.0;
            seen[heard.host - 1].get_or_insert(time);
        }
    }
    cluster.withdraw(&network.id, &id).await.map_err(failed)?;
    Ok(seen.into_iter().flatten().collect())
}

/// Waits until the kernels of all hosts but the last know the address, or none does.
fn knows(address: &str, wanted: bool) -> Done {
    let end = Instant::now() + Duration::from_secs(60);
    for host in 1..HOSTS {
        let folder = format!("/run/h{host}/run/netns");
        let list = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
        let sandboxes: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).collect();
        let known = || {
            let shown = sandboxes.iter().map(|sandbox| {
                let mut ip = Command::new("/usr/bin/nsenter");
                ip.arg(format!("--net={}", sandbox.display())).args([
                    "/usr/sbin/ip",
                    "neigh",
                    "show",
                    address,
                ]);
                lab::run(&mut ip)
            });
            Ok::<bool, String>(
                shown.collect::<Done<Vec<String>>>()?.iter().any(|text| text.contains(address)),
            )
        };
        while known()? != wanted {
            if Instant::now() > end {
                return Err(format!("h{host} never heard of {address} what it should"));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// What came of a store that was away.
struct Outage {
    sent: u32,
    lost: u32,
    refused: f64,
    known: f64,
}

/// The store, which keeps what it knows when it is begun again.
fn etcd() -> Done<Child> {
    let mut etcd = Command::new("etcd");
    etcd.args(["--data-dir", "/run/etcd", "--listen-client-urls", "http://198.51.100.254:2379"])
        .args(["--advertise-client-urls", "http://198.51.100.254:2379"])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap", "--log-level", "error"]);
    quiet(&mut etcd).spawn().map_err(|error| format!("etcd: {error}"))
}

/// A neighbour that a host's kernel has now.
struct Heard {
    host: usize,
    address: Ipv4Addr,
    at: Instant,
}

/// Has a thread hear what the kernel announces in the only sandbox of a host.
fn listen(host: usize, says: Sender<Heard>) -> Done {
    const NEIGHBOURS: u32 = 1 << 2;
    let folder = format!("/run/h{host}/run/netns");
    let list = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let sandbox = list.flatten().next().ok_or_else(|| format!("no sandbox in {folder}"))?.path();
    let socket = traffic::inside(&sandbox.display().to_string(), || {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, NEIGHBOURS))?;
        Ok::<_, std::io::Error>(socket)
    })?
    .map_err(|error| error.to_string())?;
    thread::spawn(move || {
        while let Ok((message, _)) = socket.recv_from_full() {
            let at = Instant::now();
            if let Some(address) = neighbour(&message)
                && says.send(Heard { host, address, at }).is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

/// The IPv4 address of an `RTM_NEWNEIGH`: its type after the length, its family after the header, then attributes.
fn neighbour(message: &[u8]) -> Option<Ipv4Addr> {
    const NEW: [u8; 2] = 28u16.to_ne_bytes();
    const INET: u8 = 2;
    let mut rest = message.get(28..).filter(|_| message[4..6] == NEW && message[16] == INET)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind == 1 {
            return value.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn ip(line: &str) -> Done {
    lab::run(Command::new("/usr/sbin/ip").args(line.split(' '))).map(drop)
}
