//! Real runtimes of containers, which know nothing of rnet but the files in its plugin directory: podman 4 with its CNI
//! backend, containerd's `ctr`. A recorder stands before each plugin, so that a failure shows what was passed.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};

use crate::{
    command::Running,
    harness::{skip, tests},
    lab::{Lab, Place},
};

tests! {
    podman_makes_networks_of_its_own,
    podman_uses_a_network_of_type_rnet,
    ctr_adds_and_deletes_a_container,
    what_ctr_forgets_is_collected,
}

/// Keeps what it was called with, and calls the plugin of its own name.
const RECORDER: &str = r#"#!/bin/sh
name=${0##*/}
input=$(cat)
{
    printf 'plugin=%s command=%s id=%s netns=%s if=%s args=%s\n' "$name" "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$CNI_ARGS"
    printf '%s\n' "$input" | tr -d '\n'; echo
} >> /run/lab/recorded
printf '%s' "$input" | /run/lab/real/"$name"
"#;

/// Puts the plugins there, each behind the recorder.
fn install(lab: &Lab, folder: &str) {
    lab.rn("cni install --dir /run/lab/real --aliases").ok();
    fs::create_dir_all(folder).expect("a folder");
    for entry in fs::read_dir("/run/lab/real").expect("plugins").flatten() {
        let path = Path::new(folder).join(entry.file_name());
        fs::write(&path, RECORDER).expect("a recorder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a recorder");
    }
}

/// The calls so far: `bridge ADD`, and what came on stdin.
fn recorded() -> Vec<(String, Value)> {
    let text = fs::read_to_string("/run/lab/recorded").unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(2)
        .filter_map(|pair| {
            Some(((*pair.first()?).to_owned(), serde_json::from_str(pair.get(1)?).unwrap_or_default()))
        })
        .collect()
}

fn calls(plugin: &str, command: &str) -> Vec<(String, Value)> {
    let wanted = format!("plugin={plugin} command={command} ");
    recorded().into_iter().filter(|(line, _)| line.starts_with(&wanted)).collect()
}

/// A root file system of one static program.
fn root_file_system() {
    let root = Path::new("/run/lab/rootfs");
    for folder in ["bin", "proc", "sys", "dev", "tmp", "etc", "run"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "nc", "sleep", "cat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
}

/// What runtimes look for and a lab does not have. The hierarchy of control groups is the machine's, and runtimes name
/// their groups by the container: one test at a time uses it, as long as what is returned lives.
#[must_use]
fn mounts(lab: &Lab, more: &str) -> fs::File {
    lab.needs("busybox");
    let alone = fs::File::open("/bin/busybox").expect("busybox-static is installed");
    rustix::fs::flock(&alone, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    let script = format!("mount -t cgroup2 cgroup2 /sys/fs/cgroup {more}");
    if !lab.sh(&script).succeeded() {
        skip("cgroup2 cannot be mounted here: not root of the machine");
    }
    alone
}

/// Podman with nothing of the machine's.
struct Podman<'a> {
    lab: &'a Lab,
    _alone: fs::File,
}

impl<'a> Podman<'a> {
    fn new(lab: &'a Lab) -> Self {
        for program in ["podman", "crun", "conmon"] {
            lab.needs(program);
        }
        // Podman keeps its locks in the machine's shared memory, whatever its other directories are.
        let alone = mounts(lab, "&& mount -t tmpfs tmpfs /dev/shm");
        root_file_system();
        install(lab, "/run/lab/cni");
        fs::create_dir_all("/run/lab/net.d").expect("a folder");
        let config = r#"
            [network]
            network_backend = "cni"
            cni_plugin_dirs = ["/run/lab/cni"]
            network_config_dir = "/run/lab/net.d"
            [engine]
            runtime = "crun"
            events_logger = "none"
            cgroup_manager = "cgroupfs"
            [containers]
            cgroups = "disabled"
            log_driver = "none"
        "#;
        fs::write("/run/lab/containers.conf", config).expect("a configuration");
        lab.prepared();
        Self { lab, _alone: alone }
    }

    #[track_caller]
    fn run(&self, line: &str) -> crate::command::Output {
        let options =
            "--root /run/lab/p/root --runroot /run/lab/p/run --tmpdir /run/lab/p/tmp --storage-driver vfs";
        self.lab.sh(&format!("CONTAINERS_CONF=/run/lab/containers.conf podman {options} {line}")).ok()
    }

    /// Runs a server that says its name on port 80, and returns where it is.
    #[track_caller]
    fn serve(&self, name: &str, options: &str) -> String {
        let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024";
        let server = format!("while :; do echo {name} | nc -l -p 80; done");
        self.run(&format!(
            "run -d --name {name} {options} {limits} --rootfs /run/lab/rootfs sh -c '{server}'"
        ))
        .text()
        .trim()
        .to_owned()
    }
}

/// What a server of `serve` says, once it listens. Between two clients it closes its socket with whoever
/// waits there, so an empty answer is asked for again.
#[track_caller]
fn says(lab: &Lab, from: &Place, address: &str, name: &str) {
    let script = format!(
        "for try in 1 2 3 4 5 6 7 8 9 10; do said=$(busybox nc -w 1 {address} </dev/null); [ -n \"$said\" ] && echo \"$said\" && exit; busybox usleep 200000; done; exit 1"
    );
    let output = from.inside(|| lab.sh(&script)).ok();
    assert_eq!(output.text().trim(), name, "from {}", from.name());
}

fn podman_makes_networks_of_its_own(lab: &Lab) {
    let podman = Podman::new(lab);
    podman.run("network create --subnet 10.89.1.0/24 one");
    podman.run("network create --subnet 10.89.2.0/24 two");
    let id = podman.serve("web", "--network one,two -p 8080:80 --hostname web");
    says(lab, &lab.lan, "192.0.2.1 8080", "web");
    says(lab, &lab.host, "127.0.0.1 8080", "web");
    says(lab, &lab.host, "10.89.2.2 80", "web");
    // Podman takes its networks, and their interfaces, in an order of its own that changes.
    let mut adds = calls("bridge", "ADD");
    adds.sort_by_key(|(_, config)| config["bridge"].to_string());
    assert_eq!(adds.len(), 2, "{adds:#?}");
    let (line, config) = adds.swap_remove(0);
    assert!(line.contains(&format!("id={id} netns=/run/netns/netns-")), "{line}");
    assert!(line.contains(" if=eth") && line.ends_with(" args=IgnoreUnknown=1;K8S_POD_NAME=web"), "{line}");
    assert_eq!((&config["bridge"], &config["cniVersion"]), (&json!("cni-podman1"), &json!("0.4.0")));
    let ports = &calls("portmap", "ADD")[0].1["runtimeConfig"]["portMappings"][0];
    assert_eq!((&ports["hostPort"], &ports["containerPort"]), (&json!(8080), &json!(80)));
    assert!(calls("bridge", "VERSION").len() > 2, "podman asks each time");
    let shown = podman.run(
        "inspect web --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}} {{end}}'",
    );
    assert_eq!(shown.text().trim(), "10.89.1.2 02:42:0a:59:01:02 10.89.2.2 02:42:0a:59:02:02");
    let name = format!("cni:{id}");
    assert_eq!(lab.endpoint("one", &name)["Owner"], "cni:one");
    lab.rn("check").ok().prints("");

    podman.run("restart -t 0 web");
    says(lab, &lab.lan, "192.0.2.1 8080", "web");
    let second = podman.serve("db", "--network one --ip 10.89.1.77 --mac-address 02:00:00:00:00:77");
    says(lab, &lab.host, "10.89.1.77 80", "db");
    assert_eq!(lab.endpoint("one", &format!("cni:{second}"))["MacAddress"], "02:00:00:00:00:77");
    // Podman listens on a published port itself while the container runs, by the container's `conmon`.
    let holds = |network: &str| lab.endpoint(network, &name)["Ports"] != json!({});
    let (holder, other) = if holds("two") { ("two", "one") } else { ("one", "two") };
    assert!(!holds(other));
    podman.run(&format!("network disconnect {holder} web"));
    assert!(lab.inspect(holder)["Containers"].get(&name).is_none());
    assert!(holds(other), "the port moves to the network that is left");
    says(lab, &lab.lan, "192.0.2.1 8080", "web");
    podman.run(&format!("network disconnect {other} web"));
    podman.run(&format!("network connect {holder} web"));
    says(lab, &lab.lan, "192.0.2.1 8080", "web");
    podman.run(&format!("network connect {other} web"));
    says(lab, &lab.host, &format!("{} 80", lab.address(other, &name)), "web");
    lab.rn("check").ok().prints("");

    podman.run("rm -f -t 0 web db");
    for network in ["one", "two"] {
        assert_eq!(lab.inspect(network)["Containers"], json!({}));
        podman.run(&format!("network rm {network}"));
    }
    // Podman says nothing of a network that goes. The next one of its subnet and bridge takes its place.
    podman.run("network create --subnet 10.89.1.0/24 three");
    podman.serve("app", "--network three -p 8080:80");
    says(lab, &lab.lan, "192.0.2.1 8080", "app");
    podman.run("rm -f -t 0 app");
    lab.rn("network prune -f").ok();
    let _ = fs::remove_dir_all("/var/lib/cni");
    let _ = fs::remove_dir_all("/var/lib/containers");
}

fn podman_uses_a_network_of_type_rnet(lab: &Lab) {
    let podman = Podman::new(lab);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cni/podman.conflist");
    fs::copy(example, "/run/lab/net.d/rnet.conflist").expect("the example");
    let id = podman.serve("web", "--network rnet:alias=www,ip=10.83.0.9 -p 127.0.0.1:8080:80 -p 8081:80/tcp");
    says(lab, &lab.host, "127.0.0.1 8080", "web");
    says(lab, &lab.lan, "192.0.2.1 8081", "web");
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    assert_eq!(lab.endpoint("rnet", &format!("cni:{id}"))["IPv4Address"], "10.83.0.9/24");
    let adds = calls("rnet", "ADD");
    assert_eq!(adds.len(), 1, "one process for one network");
    assert_eq!(adds[0].1["runtimeConfig"]["aliases"]["rnet"][0], "www", "{:#}", adds[0].1);
    podman.run("rm -f -t 0 web");
    assert_eq!(lab.inspect("rnet")["Containers"], json!({}));
    lab.rn("network rm rnet").ok();
    let _ = fs::remove_dir_all("/var/lib/cni");
    let _ = fs::remove_dir_all("/var/lib/containers");
}

/// containerd with nothing of the machine's, until it is dropped.
struct Containerd<'a> {
    lab: &'a Lab,
    _daemon: Running,
    _alone: fs::File,
}

const OCI: &str = r#"{
    "ociVersion": "1.0.2",
    "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sleep", "1000"], "env": ["PATH=/bin"], "cwd": "/" },
    "root": { "path": "/run/lab/rootfs" },
    "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
    "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }] }
}"#;

impl<'a> Containerd<'a> {
    fn new(lab: &'a Lab) -> Self {
        for program in ["containerd", "ctr", "crun"] {
            lab.needs(program);
        }
        // ctr looks in these places alone.
        if !Path::new("/etc/cni").is_dir() {
            skip(
                "there is no /etc/cni to put a directory of our own over: podman or containernetworking-plugins make it",
            );
        }
        let alone = mounts(lab, "&& mount -t tmpfs tmpfs /opt && mount -t tmpfs tmpfs /etc/cni");
        root_file_system();
        install(lab, "/opt/cni/bin");
        fs::create_dir_all("/etc/cni/net.d").expect("a folder");
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cni/10-rnet.conflist");
        fs::copy(example, "/etc/cni/net.d/10-rnet.conflist").expect("the example");
        let config = r#"
            version = 2
            root = "/run/lab/c/root"
            state = "/run/lab/c/state"
            disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
            [grpc]
            address = "/run/lab/c.sock"
        "#;
        fs::write("/run/lab/containerd.toml", config).expect("a configuration");
        fs::write("/run/lab/oci.json", OCI).expect("a configuration");
        let daemon =
            Running::start(&mut lab.command("containerd", &["--config", "/run/lab/containerd.toml"]));
        let wait = "for try in $(busybox seq 100); do ctr --address /run/lab/c.sock version >/dev/null 2>&1 && exit; busybox usleep 100000; done; exit 1";
        lab.sh(wait).ok();
        lab.prepared();
        Self { lab, _daemon: daemon, _alone: alone }
    }

    #[track_caller]
    fn ctr(&self, line: &str) -> crate::command::Output {
        self.lab.sh(&format!("ctr --address /run/lab/c.sock {line}"))
    }
}

const RUN: &str = "run --cni --runc-binary crun --config /run/lab/oci.json";

/// Waits until the network has so many containers.
#[track_caller]
fn has_containers(lab: &Lab, count: usize) {
    let end = std::time::Instant::now() + crate::command::PATIENCE;
    loop {
        let shown = lab.rn("network inspect pods");
        let found = if shown.succeeded() {
            shown.json()[0]["Containers"].as_object().map_or(0, serde_json::Map::len)
        } else {
            0
        };
        if found == count {
            return;
        }
        assert!(std::time::Instant::now() < end, "{found} containers, and not {count}: {:#?}", recorded());
        std::thread::yield_now();
    }
}

fn ctr_adds_and_deletes_a_container(lab: &Lab) {
    let containerd = Containerd::new(lab);
    let words = format!("ctr --address /run/lab/c.sock {RUN} --rm web");
    let foreground = Running::start(&mut lab.command("sh", &["-c", &words]));
    has_containers(lab, 1);
    let endpoint = lab.endpoint("pods", "cni:default-web");
    let place = Place::new("web", endpoint["NetNS"].as_str().unwrap_or_default());
    assert_eq!(place.addresses("eth0"), ["10.82.0.2/24"]);
    lab.listen_tcp(&place, "0.0.0.0:80");
    lab.tcp(&lab.host, "10.82.0.2:80").answered_by(&place);
    lab.silence(&place);
    containerd.ctr("task kill -s KILL web").ok();
    foreground.wait();
    has_containers(lab, 0);
    let (line, config) = calls("rnet", "DEL").swap_remove(0);
    assert_eq!(
        line, "plugin=rnet command=DEL id=default-web netns= if=eth0 args=",
        "ctr no longer knows the namespace"
    );
    assert!(config["prevResult"]["ips"][0]["address"] == "10.82.0.2/24", "{config:#}");
    lab.rn("check").ok().prints("");
    drop(containerd);
    lab.rn("network rm pods").ok();
    let _ = fs::remove_dir_all("/var/lib/cni");
}

fn what_ctr_forgets_is_collected(lab: &Lab) {
    let containerd = Containerd::new(lab);
    containerd.ctr(&format!("{RUN} -d web")).ok();
    has_containers(lab, 1);
    containerd.ctr("task kill -s KILL web").ok();
    let gone = "for try in $(busybox seq 100); do ctr --address /run/lab/c.sock task rm web >/dev/null 2>&1 && exit; busybox usleep 100000; done; exit 1";
    lab.sh(gone).ok();
    containerd.ctr("container rm web").ok();
    assert_eq!(
        calls("rnet", "DEL").len(),
        0,
        "ctr says nothing of a container that it ran in the background"
    );
    has_containers(lab, 1);
    let config = json!({ "cniVersion": "1.1.0", "name": "pods", "type": "rnet", "subnet": "10.82.0.0/24" });
    crate::cni_plugin::Call::bare(lab, "GC", &config).ok();
    has_containers(lab, 0);
    drop(containerd);
    lab.rn("network rm pods").ok();
    let _ = fs::remove_dir_all("/var/lib/cni");
}
