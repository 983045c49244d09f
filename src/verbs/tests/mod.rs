//! The verbs on a kernel in memory: no test here needs root, or touches the host.

mod choices;
mod deaths;
mod failures;
mod keep;
mod overlay;
mod sequences;
mod shown;
mod whole;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use ipnetwork::IpNetwork;
use rnetkit_drivers::Network;

use super::{Connect, Connected, CreateNetwork, Mode, Rnet};
use crate::{
    container_ref::ContainerRef,
    error::Error,
    ipam::Wishes,
    kernel::{Fake, Killed},
    plan::{Plan, Step},
    store::Store,
};

/// A host with two directories of its own, gone when dropped.
struct Lab {
    folder: PathBuf,
    rnet: Rnet<Fake>,
    /// Namespaces so far.
    started: u64,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a host and its records are, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    host: Vec<String>,
    files: BTreeMap<String, String>,
}

impl Lab {
    /// A host that knows who it is, with three containers: `web`, `db` and `app`.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In memory where there is such a place: definitions are written with fsync.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("rnet-verbs-{}-{number}", std::process::id()));
        let rnet = rnet(&folder, Fake::default());
        let mut lab = Self { folder, rnet, started: 0 };
        ["web", "db", "app"].into_iter().for_each(|name| lab.start(name));
        lab.rnet.identity().unwrap();
        lab
    }

    /// A host with the network `blue`, 10.1.0.0/24.
    fn blue() -> Self {
        let mut lab = Self::new();
        lab.create(&create("blue", &["10.1.0.0/24"])).unwrap();
        lab
    }

    fn kernel(&mut self) -> &mut Fake {
        self.rnet.kernel()
    }

    /// A namespace of that name appears.
    fn start(&mut self, name: &str) {
        self.started += 1;
        let identity = (4, 4_026_532_000 + self.started);
        self.kernel().namespaces.insert(netns(name), Some(identity));
    }

    fn create(&mut self, wanted: &CreateNetwork) -> Result<Network, Error> {
        self.rnet.create(wanted.clone(), Mode::Do).map(|(network, _)| network)
    }

    fn connect(&mut self, wanted: &Connect) -> Result<Connected, Error> {
        self.rnet.connect(wanted, Mode::Do)
    }

    fn disconnect(&mut self, network: &str, name: &str) -> Result<Plan, Error> {
        self.rnet.disconnect(network, &container(name), Mode::Do)
    }

    fn remove(&mut self, network: &str) -> Result<(), Error> {
        self.rnet.remove(network, false, Mode::Do).map(drop)
    }

    /// Removes everything that there is, as a user would.
    fn remove_all(&mut self) {
        for container in self.rnet.containers().unwrap() {
            for state in container.endpoints {
                let name = state.endpoint.container.name.parse().unwrap();
                self.rnet.disconnect(state.network.as_str(), &name, Mode::Do).unwrap();
            }
        }
        for network in self.rnet.networks().unwrap() {
            if !super::BUILTIN.iter().any(|(name, _)| *name == network.name.as_str()) {
                self.rnet.remove(network.name.as_str(), true, Mode::Do).unwrap();
            }
        }
    }

    /// What exists on the host, and every record. Bitmaps are there or not: what rests in them changes with time.
    fn snapshot(&mut self) -> Snapshot {
        let mut files = BTreeMap::new();
        list(&self.folder, &self.folder, &mut files);
        Snapshot { host: self.kernel().host(), files }
    }

    /// Runs a verb whose step with that number, counted from now, is refused. Returns that step.
    fn refusing<T>(&mut self, number: usize, verb: impl FnOnce(&mut Rnet<Fake>) -> T) -> (T, Option<Step>) {
        let at = self.kernel().log.len() + number;
        self.kernel().fail_at = Some(at);
        let result = verb(&mut self.rnet);
        self.kernel().fail_at = None;
        (result, self.kernel().log.get(at).cloned())
    }

    /// Runs a verb in a process that is killed before the step with that number. The host lives on, and so do the
    /// files; locks end with the process. Returns the step, or nothing where the verb had ended before.
    fn killed<T>(&mut self, number: usize, verb: impl FnOnce(&mut Rnet<Fake>) -> T) -> Option<Step> {
        let at = self.kernel().log.len() + number;
        self.kernel().die_at = Some(at);
        let result = catch_unwind(AssertUnwindSafe(|| verb(&mut self.rnet)));
        let host = Fake { die_at: None, ..self.kernel().clone() };
        self.rnet = rnet(&self.folder, host);
        match result {
            Ok(_) => None,
            Err(payload) if payload.is::<Killed>() => self.kernel().log.last().cloned(),
            Err(payload) => resume_unwind(payload),
        }
    }
}

fn rnet(folder: &Path, host: Fake) -> Rnet<Fake> {
    Rnet::new(Store::open(&folder.join("root"), &folder.join("run")).unwrap(), host)
}

fn netns(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn container(name: &str) -> ContainerRef {
    name.parse().unwrap()
}

/// A network with these subnets.
fn create(name: &str, subnets: &[&str]) -> CreateNetwork {
    let subnets: Vec<IpNetwork> = subnets.iter().map(|text| text.parse().unwrap()).collect();
    CreateNetwork {
        name: name.parse().unwrap(),
        driver: "bridge".to_owned(),
        ipv4: subnets.is_empty() || subnets.iter().any(IpNetwork::is_ipv4),
        ipv6: subnets.iter().any(IpNetwork::is_ipv6),
        wishes: Wishes { subnets, ..Wishes::default() },
        ipam_driver: "default".to_owned(),
        ipam_options: BTreeMap::new(),
        internal: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
    }
}

fn connect(network: &str, name: &str) -> Connect {
    Connect::new(network, container(name))
}

/// As `connect`, with ports to publish.
fn publish(network: &str, name: &str, ports: &[&str]) -> Connect {
    Connect { ports: ports.iter().map(|port| port.parse().unwrap()).collect(), ..connect(network, name) }
}

fn address(connected: &Connected) -> String {
    connected.endpoint.addresses[0].to_string()
}

/// Every file below a folder but locks, and every folder that is a network's. A container's may stay empty: it is
/// its lock.
fn list(folder: &Path, base: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if name.starts_with("run/networks/") {
                files.insert(format!("{name}/"), String::new());
            }
            list(&path, base, files);
        } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            let is_record = name.ends_with(".json");
            files.insert(name, if is_record { fs::read_to_string(&path).unwrap() } else { String::new() });
        }
    }
}

/// Steps as text, with what is drawn by lot left out: the names of links.
fn text(steps: &[Step]) -> String {
    let text = Plan { steps: steps.to_vec() }.to_string();
    let links = regex_lite::Regex::new("veth[0-9a-f]{11}").unwrap();
    let bridges = regex_lite::Regex::new("rn-[0-9a-f]{12}").unwrap();
    bridges.replace_all(&links.replace_all(&text, "veth*"), "rn-*").into_owned()
}
