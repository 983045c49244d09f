//! A cluster in memory: each host has the real verbs and the real part of the agent on a kernel that is a model, and all
//! share a store that fails as a real one does. What happens is drawn from a seed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    rc::Rc,
};

use rnetkit_drivers::{Id, Resource};
use serde_json::{Value, json};

use super::{Client, Core, Unable};
use crate::{
    cluster::{
        Host, Keys, is_shared,
        memory::{Fault, Memory, now},
        operations::Cluster,
        store::Store as _,
    },
    error::Error,
    ipam::Wishes,
    kernel::{Fake, Killed},
    store::Store,
    verbs::{Connect, CreateNetwork, Mode, Rnet, model},
};

/// Longer than anything rests or is in flight, in seconds.
const LONG: u64 = 600;

/// How many kinds of things happen.
const KINDS: usize = 16;

/// Numbers that look like chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one_of(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

type Handle = Rc<RefCell<Fake>>;
type Agent = Rc<RefCell<Core<Memory, Handle>>>;

struct Machine {
    folder: PathBuf,
    me: Host,
    kernel: Handle,
    agent: Option<Agent>,
    started: u64,
}

impl Machine {
    fn new(number: usize, folder: PathBuf) -> Self {
        let kernel = Handle::default();
        let rnet = Rnet::new(store(&folder), kernel.clone());
        let id = rnet.identity().unwrap().host;
        let address = IpAddr::from([198, 51, 100, u8::try_from(number + 1).unwrap()]);
        let name = format!("h{number}");
        let me = Host { id, name, address, mtu: 1500, generation: 1, fenced: false, key: None };
        Self { folder, me, kernel, agent: None, started: 0 }
    }

    /// A process with that life begins, and follows nothing yet.
    fn start_agent(&mut self, memory: &Memory) {
        let rnet = Rnet::new(store(&self.folder), self.kernel.clone());
        let cluster = Cluster::new(memory.clone(), Keys::below("sim"), self.me.clone());
        self.agent = Some(Rc::new(RefCell::new(Core::new(cluster, rnet, Box::new(Unable)))));
        self.act(|core| drop(now(core.begin())));
    }

    /// The agent does something, if it lives.
    fn act<T>(&mut self, what: impl FnOnce(&mut Core<Memory, Handle>) -> T) -> Option<T> {
        let agent = self.agent.clone()?;
        Some(what(&mut agent.borrow_mut()))
    }

    /// What the part does when the store tells it of something. Whether it did.
    fn follow(&mut self) -> bool {
        let followed = self.act(|core| {
            let first = !core.follow.is_told();
            match now(core.follow.next(&core.cluster.store.clone())) {
                Some(Ok(differences)) => {
                    core.take(differences);
                    if first && let Some(Ok(())) = now(core.settle()) {
                        let _ = now(core.sweep());
                    }
                    true
                }
                Some(Err(trouble)) => {
                    core.lost(&trouble);
                    false
                }
                None => false,
            }
        });
        followed.unwrap_or(false)
    }

    /// What it does from time to time.
    fn beat(&mut self, look: bool) {
        self.act(|core| {
            let _ = now(core.begin());
            let _ = now(core.settle());
            core.tidy();
            if look {
                core.look_again();
                let _ = now(core.sweep());
            }
        });
    }

    /// A command runs; one of its steps may be refused, or the last thing that it does.
    fn command<T>(
        &mut self,
        end: End,
        verb: impl FnOnce(&mut Rnet<Handle>) -> Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let (agent, kernel) = (self.agent.clone(), self.kernel.clone());
        let ask = move |words: &Value| {
            let agent =
                agent.as_ref().ok_or_else(|| Error::Cluster { reason: "no agent runs".to_owned() })?;
            // What the agent does is not the command's end.
            let end = End::of(&mut kernel.borrow_mut(), End::default());
            let before = kernel.borrow().log.len();
            let answer = now(agent.borrow_mut().answer(words)).expect("it never waits");
            let steps = kernel.borrow().log.len() - before;
            End::of(&mut kernel.borrow_mut(), end.later(steps));
            Ok(answer)
        };
        self.kernel.borrow_mut().log.clear();
        End::of(&mut self.kernel.borrow_mut(), end);
        let mut rnet =
            Rnet::new(store(&self.folder), self.kernel.clone()).with_cluster(Box::new(Client::asking(ask)));
        let result = catch_unwind(AssertUnwindSafe(|| verb(&mut rnet)));
        End::of(&mut self.kernel.borrow_mut(), End::default());
        drop(rnet);
        // The agent is told by the records that changed.
        self.act(|core| drop(now(core.settle())));
        match result {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Killed>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// A namespace of that name is there.
    fn start(&mut self, name: &str) {
        self.started += 1;
        let fresh = Some((4, 4_026_532_000 + self.started));
        self.kernel.borrow_mut().namespaces.entry(Self::netns(name)).or_insert(fresh);
    }

    fn netns(name: &str) -> PathBuf {
        Path::new("/run/netns").join(name)
    }
}

/// How a command ends.
#[derive(Default, Clone, Copy)]
struct End {
    refused: Option<usize>,
    killed: Option<usize>,
}

impl End {
    /// Sets it; returns what was to come.
    fn of(kernel: &mut Fake, end: Self) -> Self {
        let before = Self { refused: kernel.fail_at, killed: kernel.die_at };
        (kernel.fail_at, kernel.die_at) = (end.refused, end.killed);
        before
    }

    fn later(self, steps: usize) -> Self {
        let later = |at: Option<usize>| at.map(|at| at + steps);
        Self { refused: later(self.refused), killed: later(self.killed) }
    }
}

fn store(folder: &Path) -> Store {
    Store::open(&folder.join("root"), &folder.join("run")).unwrap()
}

/// The hosts, and what they share.
struct World {
    seed: u64,
    chance: Chance,
    memory: Memory,
    machines: Vec<Machine>,
    /// Endpoints that were on a host when others removed it: what they had may be another's.
    lost: HashSet<Id>,
    folder: PathBuf,
    /// What happened, for whoever looks at a failure.
    done: Vec<String>,
    count: BTreeMap<&'static str, usize>,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        if std::thread::panicking() {
            let last = &self.done[self.done.len().saturating_sub(60)..];
            for machine in &mut self.machines {
                let status = machine.act(|core| now(core.answer(&json!({"do": "status"}))));
                eprintln!("{}: {status:?}", machine.me.name);
            }
            for key in self.memory.keys().iter().filter(|key| !key.contains("/addresses/")) {
                let value = now(self.memory.list(key)).unwrap().unwrap();
                eprintln!("{key} {}", String::from_utf8_lossy(&value.entries[0].value));
            }
            eprintln!("seed {}, after {} operations:\n{}", self.seed, self.done.len(), last.join("\n"));
        }
    }
}

impl World {
    fn new(seed: u64, hosts: usize) -> Self {
        model::begin(seed);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("rnet-cluster-{}-{seed}", std::process::id()));
        let memory = Memory::default();
        let mut machines: Vec<Machine> =
            (0..hosts).map(|number| Machine::new(number, folder.join(format!("h{number}")))).collect();
        machines.iter_mut().for_each(|machine| machine.start_agent(&memory));
        Self {
            seed,
            chance: Chance(seed),
            memory,
            machines,
            lost: HashSet::new(),
            folder,
            done: Vec::new(),
            count: BTreeMap::new(),
        }
    }

    fn note(&mut self, what: &'static str, host: usize, more: &str) {
        *self.count.entry(what).or_default() += 1;
        self.done.push(format!("{}: h{host} {what} {more}", self.done.len()));
    }

    /// One thing happens. Whether an address may have been given.
    fn step(&mut self) -> bool {
        let host = self.chance.below(self.machines.len());
        if self.chance.one_of(12) {
            let fault = if self.chance.one_of(2) { Fault::Before } else { Fault::After };
            self.memory.fault.set(Some(fault));
        }
        let mut end = End::default();
        match self.chance.below(10) {
            0 => end.killed = Some(self.chance.below(40)),
            1 => end.refused = Some(self.chance.below(40)),
            _ => {}
        }
        let what = self.chance.below(100);
        match what {
            0..5 => self.create(host, end),
            5..32 => self.connect(host, end),
            32..46 => self.disconnect(host, end),
            46..47 => self.remove(host, end),
            47..50 => self.kill_container(host),
            50..52 => {
                self.note("takes back", host, "");
                let _ = self.machines[host].command(end, |rnet| rnet.collect_garbage(false));
            }
            52..54 => {
                self.note("repairs", host, "");
                let _ = self.machines[host].command(end, |rnet| rnet.repair());
            }
            54..56 => {
                self.note("agent dies", host, "");
                self.machines[host].agent = None;
            }
            56..60 => self.start_agent(host),
            60..61 => {
                self.note("store is away, or back", host, "");
                self.memory.away.set(!self.memory.away.get());
            }
            61..62 => {
                self.note("store forgets what was", host, "");
                self.memory.compact();
            }
            62..63 => self.expire(host),
            63..64 => self.fence(host),
            64..66 => {
                let time = [1, 20, 40][self.chance.below(3)];
                self.note("time passes", host, &format!("{time} s"));
                model::pass(time);
            }
            66..74 => {
                let look = self.chance.one_of(3);
                self.note("beats", host, if look { "and looks" } else { "" });
                self.machines[host].beat(look);
            }
            _ => {
                self.note("follows", host, "");
                self.machines[host].follow();
            }
        }
        self.memory.fault.set(None);
        // Seldom for long.
        if self.memory.away.get() && self.chance.one_of(20) {
            self.memory.away.set(false);
        }
        (5..32).contains(&what)
    }

    fn start_agent(&mut self, host: usize) {
        self.note("agent starts", host, "");
        if self.machines[host].agent.is_none() {
            let memory = self.memory.clone();
            self.machines[host].start_agent(&memory);
        }
    }

    fn create(&mut self, host: usize, end: End) {
        let number = self.chance.below(4);
        // Small ones, so that they are full now and then.
        let subnets = [format!("10.{number}.0.0/28"), format!("fd00:{number}::/64")];
        let count = 1 + number % 2;
        let wanted = CreateNetwork {
            name: format!("n{number}").parse().unwrap(),
            driver: "overlay".to_owned(),
            ipv4: true,
            ipv6: count == 2,
            wishes: Wishes {
                subnets: subnets[..count].iter().map(|text| text.parse().unwrap()).collect(),
                ..Wishes::default()
            },
            ipam_driver: "default".to_owned(),
            ipam_options: BTreeMap::new(),
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        self.note("creates", host, &format!("n{number}"));
        let _ = self.machines[host].command(end, |rnet| rnet.create(wanted, Mode::Do));
    }

    fn connect(&mut self, host: usize, end: End) {
        let (network, number) = (self.chance.below(4), self.chance.below(5));
        let name = format!("c{host}{number}");
        self.machines[host].start(&name);
        let mut wanted = Connect::new(format!("n{network}"), name.parse().unwrap());
        if self.chance.one_of(4) {
            wanted.ip =
                Some(IpAddr::from([10, u8::try_from(network).unwrap(), 0, 2 + self.chance.below(13) as u8]));
        }
        let result = self.machines[host].command(end, |rnet| rnet.connect(&wanted, Mode::Do));
        let how = match result {
            Some(Ok(done)) => format!("{:?}", done.endpoint.addresses),
            Some(Err(error)) => error.to_string(),
            None => "and is killed".to_owned(),
        };
        self.note("connects", host, &format!("{name} to n{network}: {how}"));
    }

    fn disconnect(&mut self, host: usize, end: End) {
        let (network, number) = (self.chance.below(4), self.chance.below(5));
        let name = format!("c{host}{number}");
        self.note("disconnects", host, &format!("{name} from n{network}"));
        let container = name.parse().unwrap();
        let network = format!("n{network}");
        let _ = self.machines[host].command(end, |rnet| rnet.disconnect(&network, &container, Mode::Do));
    }

    fn remove(&mut self, host: usize, end: End) {
        let network = format!("n{}", self.chance.below(4));
        self.note("removes", host, &network);
        let _ = self.machines[host].command(end, |rnet| rnet.remove(&network, false, Mode::Do));
    }

    fn kill_container(&mut self, host: usize) {
        let name = format!("c{host}{}", self.chance.below(5));
        self.note("container dies", host, &name);
        self.machines[host].kernel.borrow_mut().end(&Machine::netns(&name));
    }

    /// A host was not heard of for too long.
    fn expire(&mut self, host: usize) {
        let leases = self.memory.leases();
        if !leases.is_empty() {
            let lease = leases[self.chance.below(leases.len())];
            self.note("lease ends", host, &lease.to_string());
            self.memory.expire(lease);
        }
    }

    fn fence(&mut self, host: usize) {
        let other = self.chance.below(self.machines.len());
        if other == host {
            return;
        }
        let id = self.machines[other].me.id;
        self.note("removes host", host, &format!("h{other}"));
        // Also where it fails half-way.
        let on_it: Vec<Id> = self.endpoints(other).into_iter().map(|(_, end, _)| end).collect();
        self.lost.extend(on_it);
        self.machines[host].act(|core| now(core.answer(&json!({"do": "fence", "host": id}))));
    }

    /// The endpoints of shared networks that are on record: network, endpoint, addresses.
    fn endpoints(&mut self, host: usize) -> Vec<(Id, Id, Vec<IpAddr>)> {
        let rnet = Rnet::new(store(&self.machines[host].folder), Fake::default());
        let (ready, _) = rnet.shared_endpoints().unwrap();
        let one = |state: crate::store::EndpointState| {
            let endpoint = state.endpoint;
            let addresses = endpoint.addresses.iter().map(ipnetwork::IpNetwork::ip).collect();
            (endpoint.network, endpoint.id, addresses)
        };
        ready.into_iter().map(one).collect()
    }

    /// No address is two endpoints'.
    fn nothing_is_twice(&mut self) {
        let mut seen: BTreeMap<(Id, IpAddr), Id> = BTreeMap::new();
        for host in 0..self.machines.len() {
            for (network, end, addresses) in self.endpoints(host) {
                if self.lost.contains(&end) {
                    continue;
                }
                for address in addresses {
                    let other = seen.insert((network, address), end);
                    assert_eq!(other, None, "{address} of network {} is twice", network.short());
                }
            }
        }
    }

    /// Faults end, and everybody hears of everything.
    fn calm(&mut self) {
        self.memory.away.set(false);
        self.memory.fault.set(None);
        for host in 0..self.machines.len() {
            self.start_agent(host);
            let _ = self.machines[host].command(End::default(), |rnet| rnet.collect_garbage(false));
            let _ = self.machines[host].command(End::default(), |rnet| rnet.repair());
        }
        model::pass(LONG);
        // What one says another hears, and answers.
        for round in 0..4 {
            for machine in &mut self.machines {
                machine.beat(round == 2);
                while machine.follow() {}
            }
        }
        for machine in &mut self.machines {
            machine.beat(false);
        }
    }

    /// Every host sends to what others have, and to nothing else; and its kernel is what its records say.
    fn all_agree(&mut self) {
        let all: Vec<Vec<(Id, Id, Vec<IpAddr>)>> =
            (0..self.machines.len()).map(|n| self.endpoints(n)).collect();
        let published = now(self.memory.list("sim/v1/seen/ends/")).unwrap().unwrap();
        let published: BTreeSet<String> = published.entries.into_iter().map(|entry| entry.key).collect();
        let mut told = 0;
        for (machine, own) in self.machines.iter().zip(&all) {
            for (network, end, addresses) in own {
                let key = format!("sim/v1/seen/ends/{network}/{}/{end}", machine.me.id);
                let is_told = published.contains(&key);
                assert!(
                    is_told || self.lost.contains(end),
                    "{addresses:?} of {} is not told",
                    machine.me.name
                );
                told += usize::from(is_told);
            }
        }
        assert_eq!(told, published.len(), "endpoints that nobody has are told of: {published:#?}");
        for (host, machine) in self.machines.iter_mut().enumerate() {
            let made = store(&machine.folder).made_networks().unwrap();
            for network in made.iter().filter(|network| is_shared(network)) {
                let others = all.iter().enumerate().filter(|(number, _)| *number != host);
                // Those that this host removed from the cluster keep theirs on it.
                let here: BTreeSet<IpAddr> = all[host]
                    .iter()
                    .filter(|(of, ..)| *of == network.id)
                    .flat_map(|(_, _, addresses)| addresses.clone())
                    .collect();
                let expected: BTreeSet<IpAddr> = others
                    .flat_map(|(number, list)| list.iter().map(move |end| (number, end)))
                    .filter(|(_, (of, ..))| *of == network.id)
                    .filter(|(_, (of, end, _))| {
                        published
                            .iter()
                            .any(|key| key.contains(&format!("/{of}/")) && key.ends_with(&end.to_string()))
                    })
                    .filter(|(_, (_, _, addresses))| !addresses.iter().any(|one| here.contains(one)))
                    .flat_map(|(_, (_, _, addresses))| addresses.clone())
                    .collect();
                assert_eq!(
                    far(&machine.kernel.borrow(), network),
                    expected,
                    "network {} on h{host}",
                    network.name
                );
            }
            let different = machine.command(End::default(), |rnet| rnet.check(&[])).unwrap().unwrap();
            let different: Vec<String> = different.iter().map(ToString::to_string).collect();
            assert_eq!(different, [] as [&str; 0], "on h{host}");
        }
    }

    /// Everything is taken away as a user would, and nothing is left anywhere.
    fn end(mut self) {
        self.calm();
        for host in 0..self.machines.len() {
            let machine = &mut self.machines[host];
            let names: Vec<PathBuf> = machine.kernel.borrow().namespaces.keys().cloned().collect();
            names.iter().for_each(|name| machine.kernel.borrow_mut().end(name));
            machine.command(End::default(), |rnet| rnet.collect_garbage(false)).unwrap().unwrap();
        }
        self.calm();
        for number in 0..4 {
            let network = format!("n{number}");
            let removed =
                self.machines[0].command(End::default(), |rnet| rnet.remove(&network, false, Mode::Do));
            match removed.unwrap() {
                Ok(_) | Err(Error::NetworkNotFound { .. }) => {}
                Err(error) => panic!("{network}: {error}"),
            }
        }
        self.calm();
        self.memory.leases().into_iter().for_each(|lease| self.memory.expire(lease));
        let host_or_meta = |key: &&String| {
            key.starts_with("sim/v1/seen/hosts/") || *key == "sim/v1/seen/meta" || *key == "sim/v1/pools"
        };
        let left: Vec<String> = self.memory.keys().iter().filter(|key| !host_or_meta(key)).cloned().collect();
        assert_eq!(left, [] as [&str; 0], "left in the store");
        for machine in &mut self.machines {
            machine.command(End::default(), |rnet| rnet.purge()).unwrap().unwrap();
            assert_eq!(machine.kernel.borrow().host(), [] as [&str; 0], "left on {}", machine.me.name);
        }
        assert_eq!(self.count.len(), KINDS, "{:?}", self.count);
    }
}

/// The addresses that a host's kernel knows to be elsewhere in a network.
fn far(kernel: &Fake, network: &rnetkit_drivers::Network) -> BTreeSet<IpAddr> {
    let sandbox = kernel.sandboxes.iter().find(|(name, _)| name.as_str().ends_with(&network.id.short()));
    let Some((_, sandbox)) = sandbox else { return BTreeSet::new() };
    let all = || sandbox.resources.iter().map(|(_, resource)| resource);
    let behind =
        |wanted| all().any(|resource| matches!(resource, Resource::Remote { mac, .. } if mac == wanted));
    let neighbours = all().filter_map(|resource| match resource {
        Resource::Neighbour { address, mac, .. } if behind(mac) => Some(*address),
        _ => None,
    });
    neighbours.collect()
}

/// Some 1,000 operations.
fn run(seed: u64) {
    let mut world = World::new(seed, 5);
    for step in 0..1000 {
        if world.step() {
            world.nothing_is_twice();
        }
        if step % 250 == 249 {
            world.calm();
            world.nothing_is_twice();
            world.all_agree();
        }
    }
    world.end();
}

#[test]
fn ten_thousand_operations_with_faults_leave_no_address_twice_and_nothing_behind() {
    let seeds = std::env::var("RNET_SEED").unwrap_or_else(|_| "1-10".to_owned());
    let (first, last) = seeds.split_once('-').unwrap_or((&seeds, &seeds));
    let seeds: Vec<u64> = (first.parse().unwrap()..=last.parse().unwrap()).collect();
    // Each world is its thread's.
    std::thread::scope(|scope| {
        let half = seeds.len().div_ceil(2);
        for some in seeds.chunks(half) {
            scope.spawn(move || some.iter().copied().for_each(run));
        }
    });
}

#[test]
fn what_was_reserved_for_somebody_who_waits_no_longer_is_given_back_at_once() {
    let mut world = World::new(4711, 1);
    world.machines[0].follow();
    world.create(0, End::default());
    let machine = &mut world.machines[0];
    while machine.follow() {}
    let network = machine.act(|core| core.networks.keys().next().copied()).flatten().unwrap();
    let ask = |name: &str, endpoint: u8| json!({"do": "reserve", "network": network, "endpoint": Id([endpoint; 32]), "name": name, "asked": []});
    let (first, second) = (ask("waits", 1), ask("gave-up", 2));
    for question in [&first, &second] {
        let answer = machine.act(|core| now(core.answer(question)).unwrap()).unwrap();
        assert!(answer["ok"].is_array(), "{answer}");
    }
    let swept = |machine: &mut Machine| {
        let held = |core: &mut Core<Memory, Handle>| {
            now(core.sweep()).unwrap().unwrap();
            let me = core.cluster.me.id;
            let held = now(core.cluster.held_by(&me)).unwrap().unwrap();
            held.into_iter().map(|(_, endpoint, ..)| endpoint).collect::<HashSet<Id>>()
        };
        machine.act(held).unwrap()
    };
    assert_eq!(swept(machine), HashSet::from([Id([1; 32]), Id([2; 32])]), "both may be recorded yet");
    machine.act(|core| core.give_up(&second));
    assert_eq!(machine.act(|core| core.has_given_up()), Some(true));
    assert_eq!(swept(machine), HashSet::from([Id([1; 32])]), "one of them may");
    assert_eq!(machine.act(|core| core.has_given_up()), Some(false));
}
