//! Networks that hosts share by a store: a real etcd, an agent on each host, real traffic.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{Host, by_hand::clean, hosts, store::Store};
use crate::{
    command::{Output, Running, until},
    harness::tests,
    lab::{Lab, Place, RNET},
    traffic,
};

tests!(
    a_network_made_on_one_host_is_on_all_of_them,
    traffic_goes_on_while_others_come_and_go,
    without_agent_and_store_traffic_goes_on_and_a_new_attach_fails_soon,
    an_address_moves_from_host_to_host,
    a_host_that_is_gone_is_removed_and_comes_back,
    what_is_poisoned_in_the_store_is_named_and_harms_nothing_else,
    what_somebody_deletes_is_placed_again,
    a_store_that_lost_everything_takes_nothing_away,
    an_agent_that_missed_a_compaction_catches_up,
    one_address_is_given_once_however_many_ask,
    the_example_of_two_hosts_runs,
);

/// Hosts, each with its agent, and the store that they share.
pub struct Cluster {
    pub store: Store,
    pub hosts: Vec<Host>,
    pub agents: Vec<Option<Running>>,
}

impl Cluster {
    #[track_caller]
    pub fn start(lab: &Lab, count: usize) -> Self {
        Self::start_with(lab, count, Store::start)
    }

    /// With a store of that kind.
    #[track_caller]
    pub fn start_with(lab: &Lab, count: usize, store: impl FnOnce(&Lab) -> Store) -> Self {
        let mut cluster = Self::machines(lab, count, store);
        (0..count).for_each(|number| cluster.start_agent(lab, number));
        until("all hosts know each other", || {
            cluster.hosts.iter().all(|host| host.rn(lab, "host ls -q").stdout().lines().count() == count)
        });
        cluster
    }

    /// Without any agent.
    #[track_caller]
    pub fn machines(lab: &Lab, count: usize, store: impl FnOnce(&Lab) -> Store) -> Self {
        let hosts = hosts(lab, count);
        Self { store: store(lab), hosts, agents: (0..count).map(|_| None).collect() }
    }

    #[track_caller]
    pub fn start_agent(&mut self, lab: &Lab, number: usize) {
        let host = &self.hosts[number];
        let mut command: Command = host.command(lab, &["agent", "--foreground"]);
        command.envs(self.store.variables()).env("RNET_HOST_ADDRESS", &host.address);
        let agent = host.place.inside(|| Running::start(&mut command));
        self.agents[number] = Some(agent);
        until("the agent answers", || host.rn(lab, "agent --status").succeeded());
    }

    /// The agent and its parts die, all at once.
    #[track_caller]
    pub fn kill_agent(&mut self, lab: &Lab, number: usize) {
        let status = self.hosts[number].rn(lab, "agent --status").ok().json();
        let part = status["parts"]["overlay"]["pid"].as_i64().expect("the part runs");
        let agent = self.agents[number].take().expect("an agent");
        agent.signal(Signal::KILL);
        let pid = rustix::process::Pid::from_raw(part as i32).expect("a process");
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        assert!(agent.ended_within(Duration::from_secs(20)));
        let _ = agent.wait();
    }

    /// Ends everything with rnet, and compares.
    #[track_caller]
    pub fn end(mut self, lab: &Lab) {
        for (host, agent) in self.hosts.iter().zip(&mut self.agents) {
            if let Some(agent) = agent.take() {
                agent.signal(Signal::TERM);
                agent.wait().ok();
            }
            host.rn(lab, "purge").ok();
            assert_eq!(host.place.links(), ["lo", "eth0"], "links left on {}", host.name());
            let _ = std::fs::remove_file(format!("{}/agent.lock", host.run()));
        }
        self.store.down();
        clean(lab, &self.hosts);
    }
}

/// A container on a host, in the network.
#[track_caller]
pub fn connect(lab: &Lab, host: &Host, name: &str, options: &[&str]) -> Place {
    let place = lab.namespace(name);
    host.rnet(lab, &[&["network", "connect"], options, &["ov", name]].concat()).ok().silent();
    lab.listen_tcp(&place, "[::]:80");
    place
}

/// A container on each of the first two hosts, which find each other; the second one answers datagrams.
#[track_caller]
pub fn pair(lab: &Lab, cluster: &Cluster) -> (Place, Place) {
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    until("both are placed", || cluster.hosts[..2].iter().all(|host| remotes(lab, host) == 1));
    lab.listen_udp(&two, "0.0.0.0:7000");
    (one, two)
}

/// A network on the first host, known to all.
#[track_caller]
pub fn create(lab: &Lab, cluster: &Cluster, words: &str) {
    cluster.hosts[0].rn(lab, &format!("network create -d overlay {words} ov")).ok();
    until("all hosts know the network", || {
        cluster.hosts.iter().all(|host| host.rn(lab, "network inspect ov").succeeded())
    });
}

/// Removes the network as soon as other hosts have told that they have nothing in it.
#[track_caller]
pub fn remove(lab: &Lab, host: &Host) {
    let mut said = String::new();
    until("the others have told", || {
        let removed = host.rn(lab, "network rm ov");
        assert!(said.is_empty() || !removed.stderr().contains("not found"), "removed, and not: {said}");
        said = removed.stderr().to_owned();
        removed.succeeded()
    });
}

/// IPv4 and IPv6.
#[track_caller]
pub fn addresses(place: &Place) -> (String, String) {
    let four = place.addresses("eth0")[0].split('/').next().expect("an address").to_owned();
    let six = place.ip("-6 address show dev eth0 scope global");
    (four, six[0]["addr_info"][0]["local"].as_str().unwrap_or_default().to_owned())
}

/// Hardware addresses that the host's tunnel knows to be behind others.
#[track_caller]
pub fn remotes(lab: &Lab, host: &Host) -> usize {
    let shown =
        host.sh(lab, &format!("nsenter --net={} bridge fdb show dev vx0", host.sandbox().path_text()));
    shown.stdout().lines().filter(|line| line.contains(" dst ")).count()
}

fn a_network_made_on_one_host_is_on_all_of_them(lab: &Lab) {
    let cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24 --subnet fd00:9::/64");
    let ports = ["-p", "8080:80"];
    let places: Vec<Place> =
        (cluster.hosts.iter()).map(|host| connect(lab, host, &format!("c{}", host.number), &ports)).collect();
    let known: Vec<(String, String)> = places.iter().map(addresses).collect();
    // A connect returns when this host can send to the others; they hear of it a moment later.
    until("all are placed", || cluster.hosts.iter().all(|host| remotes(lab, host) == 2));
    for (from, own) in places.iter().zip(&known) {
        for (to, (four, six)) in places.iter().zip(&known) {
            lab.tcp(from, &format!("{four}:80")).answered_by(to).seen_from(&own.0);
            lab.tcp(from, &format!("[{six}]:80")).answered_by(to).seen_from(&own.1);
        }
    }
    cluster.hosts.iter().for_each(|host| three_entries_for_each(lab, host, 2));
    for (host, place) in cluster.hosts.iter().zip(&places) {
        lab.tcp(&lab.host, &format!("{}:8080", host.address)).answered_by(place).seen_from("198.51.100.254");
        host.rn(lab, "check").ok().silent();
    }
    cluster.hosts[1].rn(lab, "network rm ov").refused(&["c"]);
    cluster.hosts[2].rn(lab, "network disconnect ov c3").ok();
    until("it is gone elsewhere", || cluster.hosts[..2].iter().all(|host| remotes(lab, host) == 1));
    cluster.hosts[2].rn(lab, "network rm ov").refused(&["network ov has active endpoints (c"]);
    cluster.hosts[0].rn(lab, "network disconnect ov c1").ok();
    cluster.hosts[1].rn(lab, "network disconnect ov c2").ok();
    remove(lab, &cluster.hosts[0]);
    until("it is nowhere", || {
        cluster.hosts.iter().all(|host| !host.rn(lab, "network inspect ov").succeeded())
    });
    cluster.end(lab);
}

/// The host's kernel knows for each remote container the host that it is on, and a hardware address for each of its two
/// addresses; no more, and nothing that it learned.
#[track_caller]
fn three_entries_for_each(lab: &Lab, host: &Host, containers: usize) {
    let sandbox = host.sandbox().path_text();
    let lines = |what: &str| -> Vec<String> {
        let shown = host.sh(lab, &format!("nsenter --net={sandbox} {what}")).ok();
        shown.stdout().lines().map(str::to_owned).collect()
    };
    let forwarding = lines("bridge fdb show dev vx0");
    let remote: Vec<&String> = forwarding.iter().filter(|line| line.contains(" dst ")).collect();
    assert_eq!(remote.len(), containers, "{forwarding:#?}");
    let macs: Vec<&str> = remote.iter().filter_map(|line| line.split(' ').next()).collect();
    let neighbours = lines("ip neigh show");
    let known = neighbours.iter().filter(|line| macs.iter().any(|mac| line.contains(mac)));
    assert_eq!(known.count(), 2 * containers, "{neighbours:#?}");
    let learned = neighbours.iter().filter(|line| !line.contains("PERMANENT"));
    assert_eq!(learned.collect::<Vec<_>>(), [] as [&String; 0]);
}

/// Asks until the end, and counts what gets no answer.
pub struct Pinging {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<(u32, u32)>>,
}

impl Pinging {
    pub fn start(from: &Place, to: &str) -> Self {
        let socket = from.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.connect(to).expect("a way there");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut sent, mut lost) = (0, 0);
            while !told.load(std::sync::atomic::Ordering::Relaxed) {
                sent += 1;
                let answered = socket.send(b"hello").is_ok() && traffic::heard(&socket, &mut [0; 64]).is_ok();
                lost += u32::from(!answered);
                // So often, and not as often as it can.
                std::thread::sleep(Duration::from_millis(2));
            }
            (sent, lost)
        });
        Self { stop, thread: Some(thread) }
    }

    #[track_caller]
    pub fn lost_nothing(mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (sent, lost) = self.thread.take().expect("it runs").join().expect("it counts");
        assert!(sent > 20, "only {sent} were sent");
        assert_eq!(lost, 0, "of {sent} datagrams {lost} had no answer");
    }
}

fn traffic_goes_on_while_others_come_and_go(lab: &Lab) {
    let mut cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &["-p", "7000:7000/udp"]);
    until("both are placed", || cluster.hosts[..2].iter().all(|host| remotes(lab, host) == 1));
    lab.listen_udp(&two, "0.0.0.0:7000");
    let inside = Pinging::start(&one, &format!("{}:7000", addresses(&two).0));
    let published = Pinging::start(&lab.host, &format!("{}:7000", cluster.hosts[1].address));
    for round in 0..8 {
        for number in 0..3 {
            let name = format!("g{round}{number}");
            lab.namespace(&name);
            cluster.hosts[number].rn(lab, &format!("network connect -p 80{number}0:80 ov {name}")).ok();
        }
        match round {
            2 => drop(cluster.hosts[0].rn(lab, "repair").ok()),
            4 => {
                cluster.kill_agent(lab, 0);
                cluster.start_agent(lab, 0);
            }
            6 => drop(cluster.hosts[1].rn(lab, "repair").ok()),
            _ => {}
        }
        for number in 0..3 {
            let name = format!("g{round}{number}");
            cluster.hosts[number].rn(lab, &format!("network disconnect ov {name}")).ok();
        }
    }
    inside.lost_nothing();
    published.lost_nothing();
    cluster.end(lab);
}

fn without_agent_and_store_traffic_goes_on_and_a_new_attach_fails_soon(lab: &Lab) {
    let mut cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    until("both are placed", || cluster.hosts.iter().all(|host| remotes(lab, host) == 1));
    lab.listen_udp(&two, "0.0.0.0:7000");
    let pinging = Pinging::start(&one, &format!("{}:7000", addresses(&two).0));
    cluster.kill_agent(lab, 0);
    cluster.store.down();
    lab.namespace("c3");
    // Without the agent.
    cluster.hosts[0]
        .rn(lab, "network connect ov c3")
        .refused(&["networks that span hosts need the agent", "--store etcd://HOST:PORT"]);
    // Without the store.
    let begun = Instant::now();
    cluster.hosts[1]
        .rn(lab, "network connect ov c3")
        .refused(&["overlay: cannot reserve an address", "running containers are not affected"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // What leaves meanwhile is told later.
    cluster.hosts[1].rn(lab, "check").ok().silent();
    cluster.start_agent(lab, 0);
    pinging.lost_nothing();
    cluster.hosts[0].rn(lab, "network disconnect ov c1").ok();
    cluster.store.up(lab);
    until("what left is gone elsewhere", || remotes(lab, &cluster.hosts[1]) == 0);
    cluster.hosts[1].rn(lab, "network connect ov c3").ok();
    cluster.end(lab);
}

fn an_address_moves_from_host_to_host(lab: &Lab) {
    let cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let watcher = connect(lab, &cluster.hosts[2], "w", &["--ip", "10.9.0.2"]);
    for round in 0..6 {
        let host = &cluster.hosts[round % 2];
        let name = format!("m{round}");
        let place = connect(lab, host, &name, &["--ip", "10.9.0.77"]);
        until("it answers from there", || {
            crate::traffic::tcp_short(&watcher, "10.9.0.77:80").result().is_ok_and(|reply| reply.by == name)
        });
        lab.tcp(&watcher, "10.9.0.77:80").answered_by(&place);
        lab.namespace("x");
        let other = &cluster.hosts[(round + 1) % 2];
        other.rn(lab, "network connect --ip 10.9.0.77 ov x").refused(&["10.9.0.77", &name]);
        lab.delete_namespace(&Place::new("x", "/run/netns/x"));
        host.rn(lab, &format!("network disconnect ov {name}")).ok();
        until("it is given back", || remotes(lab, &cluster.hosts[2]) == 0);
    }
    cluster.end(lab);
}

fn a_host_that_is_gone_is_removed_and_comes_back(lab: &Lab) {
    let mut cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &["--ip", "10.9.0.2"]);
    let two = connect(lab, &cluster.hosts[1], "c2", &["--ip", "10.9.0.50"]);
    until("both are placed", || cluster.hosts[..2].iter().all(|host| remotes(lab, host) == 1));
    cluster.kill_agent(lab, 1);
    // Silent is not gone: its containers stay reachable.
    lab.tcp(&one, "10.9.0.50:80").answered_by(&two);
    cluster.hosts[0].rn(lab, "host rm h2").ok().prints("h2\n");
    until("what it had is gone", || remotes(lab, &cluster.hosts[0]) == 0);
    lab.no_tcp(&one, "10.9.0.50:80");
    let shown = cluster.hosts[0].rn(lab, "host ls").ok();
    assert!(
        shown.stdout().lines().any(|line| line.contains("h2") && line.contains("removed")),
        "{}",
        shown.stdout()
    );
    // Its address is free for who asks for it.
    let three = connect(lab, &cluster.hosts[2], "c3", &["--ip", "10.9.0.50"]);
    until("it is another's", || remotes(lab, &cluster.hosts[0]) == 1);
    lab.tcp(&one, "10.9.0.50:80").answered_by(&three);
    // It comes back, and finds its address taken: that is said, and nobody else is harmed.
    cluster.start_agent(lab, 1);
    until("it is back", || {
        cluster.hosts[0].rn(lab, "host ls").stdout().lines().any(|l| l.contains("h2") && l.contains("up"))
    });
    until("it says so", || {
        let status = cluster.hosts[1].rn(lab, "agent --status").ok().json();
        status["parts"]["overlay"]["says"]["trouble"].as_str().is_some_and(|text| text.contains("c2"))
    });
    lab.tcp(&one, "10.9.0.50:80").answered_by(&three);
    cluster.hosts[2].rn(lab, "network disconnect ov c3").ok();
    cluster.end(lab);
}

fn what_is_poisoned_in_the_store_is_named_and_harms_nothing_else(lab: &Lab) {
    lab.needs("etcdctl");
    let cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &["--ip", "10.9.0.2"]);
    let shown = cluster.hosts[0].rn(lab, "network inspect ov").ok().json();
    let network = shown[0]["Id"].as_str().expect("an id").to_owned();
    let hosts = cluster.hosts[0].rn(lab, "host inspect h1 h2").ok().json();
    let ids: Vec<String> = (0..2).map(|n| hosts[n]["id"].as_str().expect("an id").to_owned()).collect();
    let (end, other) = ("e".repeat(64), "d".repeat(64));
    let ends = format!("test/v1/seen/ends/{network}/{}", ids[1]);
    let good = |id: &str, address: &str| {
        format!(
            "{{\"id\":\"{id}\",\"name\":\"x\",\"mac\":\"02:42:0a:09:00:63\",\"addresses\":[\"{address}\"]}}"
        )
    };
    let own = addresses(&one).0;
    for (key, value) in [
        ("test/v1/seen/$(id)".to_owned(), "x".to_owned()),
        ("test/v1/seen/hosts/../../etc".to_owned(), "x".to_owned()),
        (format!("test/v1/seen/hosts/{other}"), "{\"id\":1}".to_owned()),
        (format!("test/v1/seen/hosts/{}", "c".repeat(64)), "not json".to_owned()),
        (format!("{ends}/{end}"), "[".repeat(1000)),
        (format!("{ends}/{other}"), good(&end, "10.9.0.99")),
        (format!("{ends}/{}", "1".repeat(64)), good(&"1".repeat(64), "192.0.2.1")),
        (format!("{ends}/{}", "2".repeat(64)), good(&"2".repeat(64), &own)),
        (format!("{ends}/{}", "3".repeat(64)), good(&"3".repeat(64), "10.9.0.1")),
        (format!("{ends}/{}", "4".repeat(64)), good(&"4".repeat(64), "fd00::1")),
        (format!("{ends}/{}", "5".repeat(64)), format!("\"{}\"", "x".repeat(100_000))),
        (format!("test/v1/seen/nets/{}", "6".repeat(64)), "{\"name\":\"../../x\"}".to_owned()),
        (format!("test/v1/seen/nets/{}", "7".repeat(64)), shared("7", "127.0.0.0/8")),
        (format!("test/v1/seen/nets/{}", "8".repeat(64)), shared("8", "198.51.100.0/24")),
        (format!("test/v1/seen/nets/{}", "9".repeat(64)), shared("9", "0.0.0.0/0")),
    ] {
        cluster.store.put(lab, &key, &value);
    }
    // What is right is still heard of, after all of them.
    let two = connect(lab, &cluster.hosts[1], "c2", &["--ip", "10.9.0.3"]);
    until("it is placed", || remotes(lab, &cluster.hosts[0]) == 1);
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    let known = cluster.hosts[0].rn(lab, "network ls -q").ok();
    assert_eq!(known.stdout().lines().count(), 4, "{}", known.stdout());
    cluster.hosts[0].rn(lab, "check").ok().silent();
    cluster.end(lab);
}

fn shared(digit: &str, subnet: &str) -> String {
    format!(
        "{{\"id\":\"{}\",\"name\":\"evil{digit}\",\"driver\":\"overlay\",\"created\":0,\"pools\":[{{\"subnet\":\"{subnet}\"}}],\
         \"ipam_driver\":\"default\",\"group\":0,\"options\":{{\"vni\":\"5000\",\"mtu\":\"1450\"}}}}",
        digit.repeat(64)
    )
}

fn what_somebody_deletes_is_placed_again(lab: &Lab) {
    let cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    until("both are placed", || cluster.hosts.iter().all(|host| remotes(lab, host) == 1));
    let sandbox = cluster.hosts[0].sandbox().path_text();
    until("it is on record", || cluster.hosts[0].rn(lab, "check").succeeded());
    for line in [
        format!("nsenter --net={sandbox} bridge fdb flush dev vx0 self"),
        format!("nsenter --net={sandbox} ip neigh flush dev br0 nud permanent"),
        "nft flush ruleset".to_owned(),
    ] {
        let _: Output = cluster.hosts[0].sh(lab, &line);
        cluster.hosts[0].rn(lab, "repair").ok();
        cluster.hosts[0].rn(lab, "check").ok().silent();
        lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    }
    cluster.end(lab);
}

fn a_store_that_lost_everything_takes_nothing_away(lab: &Lab) {
    let mut cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    until("both are placed", || cluster.hosts.iter().all(|host| remotes(lab, host) == 1));
    until("it is remembered", || {
        std::fs::read_to_string(format!("{}/cluster.json", cluster.hosts[0].root()))
            .is_ok_and(|text| !text.contains("\"revision\":0"))
    });
    cluster.store.down();
    cluster.store.wipe();
    cluster.store.up(lab);
    until("it is noticed", || {
        let status = cluster.hosts[0].rn(lab, "agent --status").ok().json();
        status["parts"]["overlay"]["says"]["trouble"]
            .as_str()
            .is_some_and(|t| t.contains("what is placed stays"))
    });
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    // Nor does an agent that begins anew believe it.
    cluster.kill_agent(lab, 0);
    cluster.start_agent(lab, 0);
    lab.namespace("c3");
    until("it is refused", || !cluster.hosts[0].rn(lab, "network connect ov c3").succeeded());
    lab.tcp(&one, &format!("{}:80", addresses(&two).0)).answered_by(&two);
    cluster.end(lab);
}

fn an_agent_that_missed_a_compaction_catches_up(lab: &Lab) {
    lab.needs("etcdctl");
    let mut cluster = Cluster::start(lab, 2);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &["--ip", "10.9.0.2"]);
    let two = connect(lab, &cluster.hosts[1], "c2", &["--ip", "10.9.0.3"]);
    until("both are placed", || cluster.hosts.iter().all(|host| remotes(lab, host) == 1));
    cluster.kill_agent(lab, 0);
    cluster.hosts[1].rn(lab, "network disconnect ov c2").ok();
    let three = connect(lab, &cluster.hosts[1], "c3", &["--ip", "10.9.0.90"]);
    cluster.store.compact(lab);
    cluster.start_agent(lab, 0);
    until("it knows what is there now", || {
        crate::traffic::tcp_short(&one, "10.9.0.90:80").result().is_ok_and(|reply| reply.by == "c3")
    });
    until("and nothing else", || remotes(lab, &cluster.hosts[0]) == 1);
    lab.tcp(&one, "10.9.0.90:80").answered_by(&three);
    drop(two);
    cluster.end(lab);
}

fn one_address_is_given_once_however_many_ask(lab: &Lab) {
    let cluster = Cluster::start(lab, 3);
    create(lab, &cluster, "--subnet 10.9.0.0/26");
    let mut running = Vec::new();
    for (number, host) in cluster.hosts.iter().enumerate() {
        for n in 0..4 {
            let name = format!("s{number}{n}");
            lab.namespace(&name);
            let mut command = host.command(lab, &["network", "connect", "--ip", "10.9.0.33", "ov", &name]);
            running.push(host.place.inside(|| Running::start(&mut command)));
            let name = format!("f{number}{n}");
            lab.namespace(&name);
            let mut command = host.command(lab, &["network", "connect", "ov", &name]);
            running.push(host.place.inside(|| Running::start(&mut command)));
        }
    }
    let ended: Vec<Output> = running.into_iter().map(Running::wait).collect();
    let connected = ended.iter().filter(|output| output.succeeded()).count();
    let others = ended.iter().filter(|output| !output.succeeded() && !output.stderr().contains("10.9.0.33"));
    let others: Vec<&str> = others.map(Output::stderr).collect();
    assert_eq!(others, [] as [&str; 0]);
    // One of those that left it open may have been given it first.
    assert!([12, 13].contains(&connected), "12 that left it open, and perhaps one that asked for the same");
    let mut given: Vec<String> = Vec::new();
    for host in &cluster.hosts {
        let shown = host.rn(lab, "network inspect ov").ok().json();
        let containers = shown[0]["Containers"].as_object().cloned().unwrap_or_default();
        given.extend(containers.values().map(|c| c["IPv4Address"].as_str().unwrap_or_default().to_owned()));
    }
    let count = given.len();
    given.sort();
    given.dedup();
    assert_eq!((given.len(), count), (connected, connected), "{given:?}");
    assert!(given.iter().any(|address| address.starts_with("10.9.0.33/")), "{given:?}");
    cluster.end(lab);
}

fn the_example_of_two_hosts_runs(lab: &Lab) {
    lab.needs("etcd");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/two-hosts/two-hosts.sh");
    for store in ["", "etcd", "encrypted"] {
        lab.sh(&format!("RNET={RNET} {script} {store}")).ok().mentions("Done; all of it goes now");
    }
    lab.is_clean();
}
