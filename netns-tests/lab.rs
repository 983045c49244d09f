//! A host of its own for each test, with a neighbour on the LAN, and named namespaces to be containers.
//!
//!     lan  eth0 192.0.2.2/24, 192.0.2.254/24 ── uplink0 192.0.2.1/24  host (the test's thread) ── whatever rnet makes
//!
//! The thread that builds a lab enters it and never leaves: every program it starts runs on that host.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    net::Ipv4Addr,
    os::fd::AsFd,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::{
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, unmount,
    },
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use serde_json::Value;

use crate::{
    command::{self, Output, Running, ended_within},
    harness::skip,
    snapshot::{self, Snapshot},
    traffic::{self, Attempt, Server},
};

/// The program under test.
pub const RNET: &str = env!("CARGO_BIN_EXE_rnet");
/// The host's address on the LAN.
pub const HOST: &str = "192.0.2.1";
/// The neighbour's address on the LAN.
pub const LAN: &str = "192.0.2.2";
/// Marks every process of a lab, so that one that outlives it is found.
const MARK: &str = "NETNS_LAB";

/// A network namespace: the host, the neighbour, or a container.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    path: PathBuf,
}

impl Place {
    /// The namespace behind a file, which is opened on each use: holding it open would keep a deleted one alive.
    pub fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into() }
    }

    /// What its servers call themselves, and for a named namespace what rnet calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file by which it is entered.
    pub fn path_text(&self) -> String {
        self.path.display().to_string()
    }

    /// Does something there and comes back. Sockets and processes made there stay there.
    #[track_caller]
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let back = Back(File::open("/proc/thread-self/ns/net").expect("/proc"));
        let there = File::open(&self.path)
            .unwrap_or_else(|error| panic!("namespace {}: {error}", self.path.display()));
        enter(&there);
        let result = work();
        drop(back);
        result
    }

    /// Runs `ip` there and returns what it prints as JSON.
    #[track_caller]
    pub fn ip(&self, words: &str) -> Value {
        let output =
            self.inside(|| Command::new("ip").arg("-j").args(words.split(' ')).output()).expect("ip runs");
        assert!(
            output.status.success(),
            "ip {words} in {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// The names of its links.
    #[track_caller]
    pub fn links(&self) -> Vec<String> {
        names(&self.ip("link"))
    }

    /// Whether it has this link.
    #[track_caller]
    pub fn has_link(&self, name: &str) -> bool {
        self.links().iter().any(|link| link == name)
    }

    /// One link in detail.
    #[track_caller]
    pub fn link(&self, name: &str) -> Value {
        self.ip(&format!("-d link show dev {name}"))[0].clone()
    }

    /// Whether a link was set up. (Its `operstate` says so up to a second later.)
    #[track_caller]
    pub fn is_up(&self, link: &str) -> bool {
        self.link(link)["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"))
    }

    /// The addresses of a link with their prefix lengths, IPv4 only.
    #[track_caller]
    pub fn addresses(&self, link: &str) -> Vec<String> {
        let shown = self.ip(&format!("-4 address show dev {link}"));
        let addresses = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
        addresses
            .iter()
            .map(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"]))
            .collect()
    }

    /// The MAC address of a link.
    #[track_caller]
    pub fn mac(&self, link: &str) -> String {
        self.link(link)["address"].as_str().unwrap_or_default().to_owned()
    }

    /// Its default gateway and the link behind which that is.
    #[track_caller]
    pub fn gateway(&self) -> Option<(String, String)> {
        let routes = self.ip("-4 route show default");
        let routes = routes.as_array().cloned().unwrap_or_default();
        assert!(routes.len() <= 1, "several default routes in {}: {routes:?}", self.name);
        let route = routes.first()?;
        Some((route["gateway"].as_str()?.to_owned(), route["dev"].as_str()?.to_owned()))
    }
}

struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        enter(&self.0);
    }
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("the namespace can be entered");
}

/// The names of the links that `ip -j link` shows.
fn names(links: &Value) -> Vec<String> {
    let links = links.as_array().cloned().unwrap_or_default();
    links.iter().filter_map(|link| link["ifname"].as_str().map(str::to_owned)).collect()
}

/// Runs commands on a lab's host.
#[derive(Clone)]
pub struct Hands {
    mark: String,
}

impl Hands {
    /// A command line there.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, words: &[S]) -> Command {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).env_clear().env(MARK, &self.mark);
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root");
        command.current_dir("/");
        command
    }

    /// A command line of rnet there.
    pub fn rnet<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        self.command(RNET, words)
    }
}

/// The host that the calling thread plays, and all that was put beside it.
pub struct Lab {
    /// The host itself.
    pub host: Place,
    /// The neighbour on the LAN.
    pub lan: Place,
    mark: String,
    beginning: RefCell<Snapshot>,
    namespaces: RefCell<Vec<Place>>,
    servers: RefCell<Vec<Server>>,
}

impl Lab {
    /// Makes the calling thread a fresh host. The error says why this machine does not let us.
    pub fn new() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let flags = UnshareFlags::FS | UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS;
        // SAFETY: no descriptor table is unshared; file system state and namespaces belong to this thread alone.
        unsafe { unshare_unsafe(flags) }.map_err(|error| format!("no namespaces of our own: {error}"))?;
        own_file_system().map_err(|error| format!("no mounts of our own: {error}"))?;
        let host = Place::new("host", "/run/lab/host");
        bind_namespace(&host.path).map_err(|error| format!("no namespace file: {error}"))?;
        let lan = new_place("lan", "/run/lab/lan")?;
        batch(
            &host,
            &format!(
                "link set lo up
                 link add uplink0 type veth peer name eth0 netns /run/lab/lan
                 link set uplink0 addrgenmode none
                 link set uplink0 up
                 address add {HOST}/24 dev uplink0
                 address add 2001:db8:1::1/64 dev uplink0 nodad"
            ),
        )?;
        batch(
            &lan,
            &format!(
                "link set lo up
                 link set eth0 addrgenmode none
                 link set eth0 up
                 address add {LAN}/24 dev eth0
                 address add 192.0.2.254/24 dev eth0
                 address add 2001:db8:1::2/64 dev eth0 nodad"
            ),
        )?;
        batch(&host, "route add default via 192.0.2.254")?;
        settle_ipv6()?;
        let beginning = RefCell::new(Snapshot::take());
        let (namespaces, servers) = (RefCell::default(), RefCell::default());
        Ok(Self { host, lan, mark, beginning, namespaces, servers })
    }

    /// Compares the host, now, with what it was at the beginning.
    #[track_caller]
    pub fn is_clean(&self) {
        self.is_like(&self.beginning.borrow().clone());
    }

    /// Compares the host, now, with an earlier picture of it.
    #[track_caller]
    pub fn is_like(&self, earlier: &Snapshot) {
        if let Some(difference) = earlier.difference(&Snapshot::take()) {
            panic!("the host is not as it was:\n{difference}");
        }
    }

    /// A picture of the host as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take()
    }

    /// What the test itself prepared on the host so far belongs to the beginning.
    pub fn prepared(&self) {
        *self.beginning.borrow_mut() = Snapshot::take();
    }

    /// The end of each test: nothing may be left, neither on the host nor in the namespaces nor of processes.
    #[track_caller]
    pub fn finish(self) {
        self.servers.borrow_mut().clear();
        self.is_clean();
        for place in self.namespaces.borrow().iter().take(8) {
            self.namespace_is_fresh(place);
        }
        let named = fs::read_dir("/run/netns").expect("/run/netns").flatten();
        let named = named.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let own = |name: &String| self.namespaces.borrow().iter().any(|place| &place.name == name);
        let foreign: Vec<String> = named.filter(|name| !own(name)).collect();
        assert!(foreign.is_empty(), "namespaces that the test did not make: {foreign:?}");
        let left = self.processes().into_iter().filter(|pid| !ended_within(*pid, Duration::from_secs(15)));
        let left: Vec<String> = left.map(words_of).collect();
        assert!(left.is_empty(), "processes that outlive the test: {left:?}");
    }

    /// Nothing of rnet is in a namespace.
    #[track_caller]
    pub fn namespace_is_fresh(&self, place: &Place) {
        assert_eq!(
            names(&place.ip("link show type veth")),
            [] as [&str; 0],
            "links left in {}",
            place.name()
        );
        assert_eq!(place.gateway(), None, "default route left in {}", place.name());
        assert_eq!(
            place.inside(snapshot::ruleset),
            [] as [&str; 0],
            "firewall rules left in {}",
            place.name()
        );
    }

    /// A command line of rnet on this host, for those who want more than `rnet`.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, words: &[S]) -> Command {
        self.hands().command(program, words)
    }

    /// What a thread of the test's own needs to run commands on this host, which it is on from its beginning.
    pub fn hands(&self) -> Hands {
        Hands { mark: self.mark.clone() }
    }
    /// Runs rnet to its end.
    #[track_caller]
    pub fn rnet<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        command::run(&mut self.command(RNET, words))
    }

    /// Runs rnet with the words of one line, which are separated by spaces.
    #[track_caller]
    pub fn rn(&self, line: &str) -> Output {
        self.rnet(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Starts rnet and lets it run.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(&self, words: &[S]) -> Running {
        Running::start(&mut self.command(RNET, words))
    }

    /// Runs a line in a shell on the host; `rnet` is in its path.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        let mut command = self.command("sh", &["-c", line]);
        let folder = Path::new(RNET).parent().expect("a folder").display().to_string();
        command.env("PATH", format!("{folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        command::run(&mut command)
    }

    /// Runs a Python program on the host.
    #[track_caller]
    pub fn python(&self, program: &str) -> Output {
        self.needs("python3");
        command::run(&mut self.command("python3", &["-c", program]))
    }

    /// What a line of the shell does to the host is found by `check`, and mended by `repair`.
    #[track_caller]
    pub fn mends(&self, damage: &str) {
        self.sh(damage).ok();
        self.rn("check").exits(1);
        self.rn("repair").ok();
        self.rn("check").ok().prints("");
    }

    /// Runs rnet under `strace` with these options. It starts no agent, which `strace` would follow for ever.
    #[track_caller]
    pub fn strace(&self, options: &[&str], words: &[&str]) -> Output {
        self.needs("strace");
        let options: Vec<&str> =
            [&["-f", "-qq", "-o", "/run/lab/strace"], options, &["--", RNET], words].concat();
        command::run(self.command("strace", &options).env("RNET_AGENT", "manual"))
    }

    /// Skips the test where a program is not installed.
    pub fn needs(&self, program: &str) {
        let found = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        if !found.iter().any(|folder| Path::new(folder).join(program).exists()) {
            skip(format!("{program} is not installed"));
        }
    }

    /// Whether there are other users than root: not in the user namespace of somebody who is not root.
    pub fn has_many_users(&self) -> bool {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.lines().count() > 1 || !map.trim_end().ends_with(" 1")
    }

    /// A named namespace, as `ip netns add` makes it.
    #[track_caller]
    pub fn namespace(&self, name: &str) -> Place {
        let place = new_place(name, &format!("/run/netns/{name}")).unwrap_or_else(|error| panic!("{error}"));
        self.namespaces.borrow_mut().push(place.clone());
        place
    }

    /// The namespace of that name that the test made.
    #[track_caller]
    pub fn known(&self, name: &str) -> Place {
        let list = self.namespaces.borrow();
        list.iter().find(|place| place.name == name).cloned().expect("a namespace of the test")
    }

    /// Deletes a namespace, as `ip netns del` does.
    #[track_caller]
    pub fn delete_namespace(&self, place: &Place) {
        self.servers.borrow_mut().retain(|server| server.place != place.name);
        self.namespaces.borrow_mut().retain(|other| other.name != place.name);
        unmount(&place.path, UnmountFlags::DETACH).expect("a named namespace");
        fs::remove_file(&place.path).expect("a named namespace");
    }

    /// The namespace of a container that `rnet run` started, as `inspect` tells it.
    #[track_caller]
    pub fn container(&self, network: &str, name: &str) -> Place {
        let endpoint = self.endpoint(network, name);
        Place::new(name, endpoint["NetNS"].as_str().expect("inspect tells the namespace"))
    }

    /// A network as `inspect` shows it.
    #[track_caller]
    pub fn inspect(&self, network: &str) -> Value {
        let shown = self.rnet(&["network", "inspect", network]).ok().json();
        assert_eq!(shown.as_array().map(Vec::len), Some(1), "inspect {network} shows {shown}");
        shown[0].clone()
    }

    /// A container's endpoint as `inspect` of the network shows it.
    #[track_caller]
    pub fn endpoint(&self, network: &str, container: &str) -> Value {
        let shown = self.inspect(network);
        let endpoints = shown["Containers"].as_object().cloned().unwrap_or_default();
        let endpoint = endpoints.into_iter().find(|(_, endpoint)| endpoint["Name"] == container);
        endpoint.unwrap_or_else(|| panic!("no container {container} in {shown:#}")).1
    }

    /// The address that a container has on a network, without its prefix length.
    #[track_caller]
    pub fn address(&self, network: &str, container: &str) -> String {
        let endpoint = self.endpoint(network, container);
        let address = endpoint["IPv4Address"].as_str().expect("inspect tells the address");
        address.split('/').next().expect("an address").to_owned()
    }

    /// A namespace of this name on the network, with a TCP server on port 80.
    #[track_caller]
    pub fn web(&self, network: &str, name: &str, options: &[&str]) -> Place {
        let place = self.namespace(name);
        self.rnet(&[&["network", "connect"], options, &[network, name]].concat()).ok().silent();
        self.listen_tcp(&place, "0.0.0.0:80");
        place
    }

    /// A TCP server until the end of the test.
    #[track_caller]
    pub fn listen_tcp(&self, place: &Place, address: &str) {
        let server = Server::tcp(place, address);
        self.servers.borrow_mut().push(server);
    }

    /// A UDP server until the end of the test.
    #[track_caller]
    pub fn listen_udp(&self, place: &Place, address: &str) {
        let server = Server::udp(place, address);
        self.servers.borrow_mut().push(server);
    }

    /// Ends all servers of a place.
    pub fn silence(&self, place: &Place) {
        self.servers.borrow_mut().retain(|server| server.place != place.name);
    }

    /// Connects over TCP, for what must work.
    #[track_caller]
    pub fn tcp(&self, from: &Place, to: &str) -> Attempt {
        traffic::tcp(from, to)
    }

    /// Sends over UDP, for what must work.
    #[track_caller]
    pub fn udp(&self, from: &Place, to: &str) -> Attempt {
        traffic::udp(from, to)
    }

    /// There is no way over TCP.
    #[track_caller]
    pub fn no_tcp(&self, from: &Place, to: &str) {
        traffic::tcp_short(from, to).has_no_answer();
    }

    /// There is no way over UDP.
    #[track_caller]
    pub fn no_udp(&self, from: &Place, to: &str) {
        traffic::udp_short(from, to).has_no_answer();
    }

    /// What is recorded is what the kernel has: each endpoint's address and MAC, and one port of the bridge for each.
    #[track_caller]
    pub fn audit(&self, network: &str) {
        let shown = self.inspect(network);
        let endpoints = shown["Containers"].as_object().cloned().unwrap_or_default();
        let mut addresses: Vec<String> = Vec::new();
        for endpoint in endpoints.values() {
            let text = |key: &str| endpoint[key].as_str().unwrap_or_default().to_owned();
            let place = Place::new(&text("Name"), text("NetNS"));
            assert_eq!(
                place.addresses(&text("Interface")),
                [text("IPv4Address")],
                "address of {}",
                place.name()
            );
            assert_eq!(place.mac(&text("Interface")), text("MacAddress"), "MAC of {}", place.name());
            addresses.push(text("IPv4Address"));
        }
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), endpoints.len(), "addresses given twice on {network}: {shown:#}");
        if let Some(bridge) = self.bridge_of(network) {
            let ports = names(&self.host.ip(&format!("link show master {bridge}")));
            assert_eq!(
                ports.len(),
                endpoints.len(),
                "ports of bridge {bridge}: {ports:?}, endpoints: {shown:#}"
            );
        } else {
            assert!(endpoints.is_empty(), "no bridge for {shown:#}");
        }
    }

    /// The device on the host that has the network's gateway address.
    #[track_caller]
    pub fn bridge_of(&self, network: &str) -> Option<String> {
        let shown = self.inspect(network);
        let gateway = shown["IPAM"]["Config"][0]["Gateway"].as_str()?;
        let links = self.host.ip(&format!("-4 address show to {gateway}"));
        names(&links).into_iter().next()
    }

    /// All processes that carry this lab's mark.
    fn processes(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.mark);
        let pids = fs::read_dir("/proc").expect("/proc").flatten();
        let pids =
            pids.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .filter_map(Pid::from_raw)
        .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn words_of(pid: Pid) -> String {
    let words = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Private mounts, an empty /run and /var/lib, /run/netns as `ip netns` makes it, and a resolver on the LAN.
fn own_file_system() -> rustix::io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for folder in ["/run", "/var/lib"] {
        mount("tmpfs", folder, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")?;
    }
    // So that /sys/class/net shows this host's links; not all machines allow it, and nothing depends on it.
    let _ = mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None);
    for folder in ["/run/netns", "/run/lab"] {
        fs::create_dir(folder).map_err(to_errno)?;
    }
    own_etc()?;
    mount_bind_recursive("/run/netns", "/run/netns")?;
    mount_change("/run/netns", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    use_resolver("nameserver 192.0.2.254\n")
}

/// What a host has in /etc, and what a test adds goes with it.
fn own_etc() -> rustix::io::Result<()> {
    for folder in ["/run/lab/etc", "/run/lab/etc-work"] {
        fs::create_dir(folder).map_err(to_errno)?;
    }
    let options = c"lowerdir=/etc,upperdir=/run/lab/etc,workdir=/run/lab/etc-work";
    mount("overlay", "/etc", "overlay", MountFlags::empty(), options)
}

/// Puts a file of our own over `/etc/resolv.conf`, also where that is a link into the /run that is now empty.
pub fn use_resolver(text: &str) -> rustix::io::Result<()> {
    fs::write("/run/lab/resolv.conf", text).map_err(to_errno)?;
    let target = match fs::read_link("/etc/resolv.conf") {
        Ok(target) => Path::new("/etc").join(target),
        Err(_) => PathBuf::from("/etc/resolv.conf"),
    };
    if !target.exists() {
        let _ = target.parent().map(fs::create_dir_all);
        fs::write(&target, "").map_err(to_errno)?;
    }
    mount_bind("/run/lab/resolv.conf", &target)
}

fn to_errno(error: std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
}

/// A new network namespace under a path. A thread of its own enters it, so the caller stays where it is.
fn new_place(name: &str, path: &str) -> Result<Place, String> {
    let place = Place::new(name, path);
    let file = place.path.clone();
    let made = thread::spawn(move || {
        // SAFETY: only the network namespace of this short-lived thread changes.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        bind_namespace(&file)
    });
    let made = made.join().map_err(|_| "the thread of the new namespace died".to_owned())?;
    made.map(|()| place).map_err(|error| format!("no namespace {path}: {error}"))
}

/// Gives the calling thread's network namespace a name in the file system.
fn bind_namespace(path: &Path) -> rustix::io::Result<()> {
    File::create_new(path).map_err(to_errno)?;
    mount_bind("/proc/thread-self/ns/net", path)
}

/// Many commands of `ip` in one process.
fn batch(place: &Place, lines: &str) -> Result<(), String> {
    let lines: String = lines.lines().map(|line| format!("{}\n", line.trim())).collect();
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = place.inside(|| command.spawn());
    let mut child = child.map_err(|error| format!("the program `ip` (iproute2) does not start: {error}"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match written {
        Some(Ok(())) if output.status.success() => Ok(()),
        _ => Err(format!("ip -batch: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The `ip` commands a test prepares a place with.
#[track_caller]
pub fn prepare(place: &Place, lines: &str) {
    batch(place, lines).unwrap_or_else(|error| panic!("in {}: {error}", place.name()));
}

/// The MAC address that goes with an IPv4 address.
pub fn mac_of(address: &str) -> String {
    let [a, b, c, d] = address.parse::<Ipv4Addr>().expect("an IPv4 address").octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Lets a command start with this descriptor closed.
pub fn without_stdout(command: &mut Command) -> &mut Command {
    // SAFETY: close is safe to call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::close(1);
            Ok(())
        })
    }
}

/// Waits until the kernel has made the route to the host's own IPv6 address, which it does a little after the link has
/// its carrier: a picture taken before would be of another host.
fn settle_ipv6() -> Result<(), String> {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let shown =
            Command::new("ip").args(["-6", "route", "show", "table", "local", "2001:db8:1::1"]).output();
        if shown.map_err(|error| format!("ip: {error}"))?.stdout.starts_with(b"local") {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err("the host's IPv6 address never became usable".to_owned());
        }
        std::thread::yield_now();
    }
}
