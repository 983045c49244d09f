//! What does not parse or contradicts something: one clear line that names the value, and nothing changed.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, time::Duration};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{
    command::Running,
    harness::tests,
    lab::{Lab, prepare},
};

tests! {
    wrong_words_are_exit_code_2,
    bad_network_names,
    bad_container_names,
    bad_bytes_in_names,
    bad_subnets_and_gateways,
    subnets_that_are_in_use,
    bad_network_options,
    bad_labels_and_drivers,
    bad_ports,
    bad_addresses_of_containers,
    bad_mac_addresses,
    bad_interface_names,
    bad_endpoint_options,
    unknown_networks_and_containers,
    a_network_of_that_name_exists,
    a_container_is_connected_once,
    networks_that_are_there_without_being_made_stay,
    host_and_none_take_no_container,
    the_hosts_own_namespace_in_every_disguise,
    what_is_no_network_namespace,
    a_bridge_name_that_is_taken_is_refused,
    bad_run_options,
    control_characters_are_escaped,
    closed_descriptors_and_pipes,
}

/// Each of the command lines is refused with a line that mentions the word, and leaves the host as it was.
#[track_caller]
fn all_refused<'a>(lab: &Lab, cases: impl IntoIterator<Item = (Vec<&'a str>, &'a str)>) {
    let before = lab.snapshot();
    for (words, mentioned) in cases {
        lab.rnet(&words).refused(&[mentioned]);
        lab.is_like(&before);
    }
}

fn wrong_words_are_exit_code_2(lab: &Lab) {
    for (line, word) in [
        ("frobnicate", "frobnicate"),
        ("network frobnicate", "frobnicate"),
        ("network create", "NAME"),
        ("network create --frobnicate blue", "--frobnicate"),
        ("network create blue green", "green"),
        ("network create --subnet", "--subnet"),
        ("network connect blue", "CONTAINER"),
        ("network connect", "NETWORK"),
        ("network disconnect blue", "CONTAINER"),
        ("network rm", "NETWORK"),
        ("network inspect", "NETWORK"),
        ("network ls extra", "extra"),
        ("port", "CONTAINER"),
        ("exec", "CONTAINER"),
        ("stop", "CONTAINER"),
        ("rm", "CONTAINER"),
        ("logs", "CONTAINER"),
        ("run --frobnicate", "--frobnicate"),
    ] {
        lab.rn(line).wrong_words(word);
        lab.is_clean();
    }
    lab.rnet(&[] as &[&str]).exits(2);
    lab.rn("network").exits(2);
}

/// The part of a value that stays the same however the value is quoted or escaped.
fn plain(value: &str) -> &str {
    value.trim().split(['"', '\\', '\'']).max_by_key(|part| part.len()).unwrap_or_default()
}

/// Names that Docker refuses too, or that some program on the way would take for something else.
const BAD_NAMES: [&str; 24] = [
    ".",
    "..",
    "../x",
    "a/b",
    "/abs",
    "-rf",
    "br*",
    "@s",
    "a\"b",
    "a'b",
    "a;b",
    "a{b}",
    "a%d",
    "$(id)",
    "a b",
    " blue",
    "blue ",
    "a:b",
    "_x",
    ".x",
    "a\\b",
    "ü",
    "a,b",
    "container:x",
];

fn bad_network_names(lab: &Lab) {
    all_refused(lab, BAD_NAMES.map(|name| (vec!["network", "create", "--", name], plain(name))));
    let long = "n".repeat(300);
    all_refused(
        lab,
        [(vec!["network", "create", long.as_str()], "nnn"), (vec!["network", "create", ""], "name")],
    );
    for name in ["bridge", "host", "none"] {
        all_refused(lab, [(vec!["network", "create", name], name)]);
    }
}

fn bad_container_names(lab: &Lab) {
    lab.rn("network create blue").ok();
    let names = ["../x", "a/b", "br*", "a\"b", "a;b", "a%d", "a b", "..", ".", "$(id)"];
    all_refused(lab, names.map(|name| (vec!["network", "connect", "blue", name], plain(name))));
    let long = "n".repeat(300);
    all_refused(
        lab,
        [
            (vec!["network", "connect", "blue", ""], "container"),
            (vec!["network", "connect", "blue", &long], "nnn"),
            (vec!["network", "connect", "blue", "pid:"], "pid:"),
            (vec!["network", "connect", "blue", "pid:0"], "pid:0"),
            (vec!["network", "connect", "blue", "pid:-1"], "pid:-1"),
            (vec!["network", "connect", "blue", "pid:abc"], "pid:abc"),
            (vec!["network", "connect", "blue", "pid:999999999"], "pid:999999999"),
            (vec!["network", "connect", "blue", "pid:99999999999999999999"], "pid:99999999999999999999"),
            (vec!["network", "connect", "blue", "relative/path"], "relative/path"),
        ],
    );
    lab.namespace("web");
    for name in ["../x", "a b", "a/b", "br*", "a%d"] {
        all_refused(lab, [(vec!["network", "connect", "--name", name, "blue", "web"], name)]);
        all_refused(lab, [(vec!["network", "connect", "--alias", name, "blue", "web"], name)]);
    }
    lab.rn("network rm blue").ok();
}

fn bad_bytes_in_names(lab: &Lab) {
    for bytes in [&b"a\xffb"[..], b"a\nb", b"a\x1b[31mb", b"a\tb", b"a\x7fb", b"a\xe2\x80\xaeb"] {
        let name = OsString::from_vec(bytes.to_vec());
        let create = ["network".into(), "create".into(), name.clone()];
        lab.rnet(&create as &[OsString]).refused(&[]);
        let connect = ["network".into(), "connect".into(), "bridge".into(), name.clone()];
        lab.rnet(&connect as &[OsString]).refused(&[]);
        let remove = ["network".into(), "rm".into(), name];
        lab.rnet(&remove as &[OsString]).refused(&[]);
        lab.is_clean();
    }
}

fn bad_subnets_and_gateways(lab: &Lab) {
    for subnet in [
        "nonsense",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "/24",
        "10.0.0/24",
        "10.0.0.0.0/24",
        "010.0.0.0/24",
        "10.0.0.1/24",
        "0.0.0.0/0",
        "224.0.0.0/24",
        "127.0.0.0/8",
        "10.0.0.0/24x",
        "10.0.0.0/32",
        "fd00::/129",
        "ff02::/64",
        "",
        "255.255.255.255/32",
        "10.0.0.0/024",
    ] {
        let named = if subnet.is_empty() { "subnet" } else { subnet };
        all_refused(lab, [(vec!["network", "create", "--subnet", subnet, "blue"], named)]);
    }
    let with = |options: &'static str| {
        [
            &["network", "create", "--subnet", "10.1.0.0/24"],
            &*options.split(' ').collect::<Vec<_>>(),
            &["blue"],
        ]
        .concat()
    };
    all_refused(
        lab,
        [
            (with("--gateway 10.2.0.1"), "10.2.0.1"),
            (with("--gateway 10.1.0.0"), "10.1.0.0"),
            (with("--gateway 10.1.0.255"), "10.1.0.255"),
            (with("--gateway nonsense"), "nonsense"),
            (with("--gateway 10.1.0.1/24"), "10.1.0.1/24"),
            (with("--gateway fd00::1"), "fd00::1"),
            (with("--gateway 10.1.0.1 --gateway 10.1.0.2"), "10.1.0.2"),
            (with("--ip-range 10.2.0.0/25"), "10.2.0.0/25"),
            (with("--ip-range 10.0.0.0/8"), "10.0.0.0/8"),
            (with("--ip-range nonsense"), "nonsense"),
            (with("--ip-range 10.1.0.0/25 --ip-range 10.1.0.128/25"), "10.1.0.128/25"),
            (with("--aux-address printer=10.2.0.9"), "10.2.0.9"),
            (with("--aux-address printer=nonsense"), "nonsense"),
            (with("--aux-address printer"), "printer"),
            (with("--aux-address =10.1.0.9"), "10.1.0.9"),
            (with("--gateway 10.1.0.9 --aux-address printer=10.1.0.9"), "10.1.0.9"),
            (with("--aux-address a=10.1.0.9 --aux-address b=10.1.0.9"), "10.1.0.9"),
            (with("--subnet 10.1.0.128/25"), "10.1.0.128/25"),
            (vec!["network", "create", "--gateway", "10.1.0.1", "blue"], "10.1.0.1"),
            (vec!["network", "create", "--ip-range", "10.1.0.0/25", "blue"], "10.1.0.0/25"),
            (vec!["network", "create", "--aux-address", "a=10.1.0.9", "blue"], "10.1.0.9"),
            (vec!["network", "create", "--ipam-driver", "nosuch", "blue"], "nosuch"),
        ],
    );
}

fn subnets_that_are_in_use(lab: &Lab) {
    lab.rn("network create --subnet 10.1.0.0/16 blue").ok();
    prepare(&lab.host, "route add 10.3.4.0/24 via 192.0.2.2");
    all_refused(
        lab,
        [
            (vec!["network", "create", "--subnet", "10.1.0.0/16", "green"], "blue"),
            (vec!["network", "create", "--subnet", "10.1.7.0/24", "green"], "blue"),
            (vec!["network", "create", "--subnet", "10.0.0.0/8", "green"], "10.0.0.0/8"),
            (vec!["network", "create", "--subnet", "172.17.0.0/24", "green"], "bridge"),
            (vec!["network", "create", "--subnet", "192.0.2.0/24", "green"], "192.0.2.0/24"),
            (vec!["network", "create", "--subnet", "192.0.2.0/28", "green"], "uplink0"),
            (vec!["network", "create", "--subnet", "10.3.0.0/16", "green"], "10.3.4.0/24"),
        ],
    );
    lab.rn("network rm blue").ok();
    prepare(&lab.host, "route del 10.3.4.0/24");
}

fn bad_network_options(lab: &Lab) {
    for (option, mentioned) in [
        ("com.docker.network.driver.mtu=67", "67"),
        ("mtu=70000", "70000"),
        ("mtu=abc", "abc"),
        ("mtu=-1", "-1"),
        ("mtu=", "mtu"),
        ("mtu", "mtu"),
        ("icc=perhaps", "perhaps"),
        ("com.docker.network.bridge.enable_icc=2", "2"),
        ("com.docker.network.bridge.enable_ip_masquerade=x", "x"),
        ("com.docker.network.bridge.host_binding_ipv4=nonsense", "nonsense"),
        ("com.docker.network.bridge.gateway_mode_ipv4=sideways", "sideways"),
        ("com.docker.network.bridge.name=a/b", "a/b"),
        ("name=sixteen-letters-", "sixteen-letters-"),
        ("name=..", ".."),
        ("name=br%d", "br%d"),
        ("name=lo", "lo"),
        ("com.docker.network.container_iface_prefix=a/b", "a/b"),
        ("com.docker.network.container_iface_prefix=far-too-long-for-it", "far-too-long-for-it"),
        ("com.docker.network.bridge.colour=blue", "com.docker.network.bridge.colour"),
        ("=x", "=x"),
    ] {
        all_refused(lab, [(vec!["network", "create", "-o", option, "blue"], mentioned)]);
    }
    let near = lab.rn("network create -o com.docker.network.bridge.enable_iccc=false blue");
    let near = near.refused(&["com.docker.network.bridge.enable_iccc"]);
    let hint = near.stderr().lines().nth(1).unwrap_or_default();
    assert!(hint.starts_with("hint: ") && hint.contains("com.docker.network.bridge.enable_icc"), "{near}");
    lab.rn("network create -o mut=1400 blue").refused(&["mut", "hint: "]);
}

fn bad_labels_and_drivers(lab: &Lab) {
    all_refused(
        lab,
        [
            (vec!["network", "create", "--label", "=x", "blue"], "=x"),
            (vec!["network", "create", "--label", "", "blue"], "label"),
            (vec!["network", "create", "-d", "nosuch", "blue"], "nosuch"),
            (vec!["network", "create", "-d", "../evil", "blue"], "../evil"),
            (vec!["network", "create", "-d", "", "blue"], "driver"),
            (vec!["network", "create", "-d", "host", "blue"], "host"),
            (vec!["network", "create", "-d", "none", "blue"], "none"),
            (vec!["network", "create", "-d", "null", "blue"], "null"),
        ],
    );
}

fn bad_ports(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    for spec in [
        "",
        ":",
        "0:80",
        "8080:0",
        "65536:80",
        "8080:65536",
        "99999999999:80",
        "-1:80",
        "a:80",
        "8080:b",
        "8080:",
        "8080:80/",
        "8080:80/icmp",
        "8080:80/TCPX",
        "8080:80:90:100",
        "999.1.1.1:8080:80",
        "1.2.3:8080:80",
        "[::1:8080:80",
        "8080-8090:80-85",
        "8090-8080:90-80",
        "8080-:80",
        "8080:80-",
        "65530-65540:1-11",
        "8080:80/tcp/udp",
        " 8080:80",
        "8080 :80",
        "0x50:80",
        "+8080:80",
        "host:8080:80",
    ] {
        let option = format!("--publish={spec}");
        let named = if spec.is_empty() { "port" } else { spec.trim() };
        all_refused(lab, [(vec!["network", "connect", &option, "blue", "web"], named)]);
    }
    all_refused(
        lab,
        [
            (vec!["network", "connect", "-p", "8080:80", "-p", "8080:81", "blue", "web"], "8080/tcp"),
            (
                vec!["network", "connect", "-p", "8080:80", "-p", "127.0.0.1:8080:81", "blue", "web"],
                "8080/tcp",
            ),
            (vec!["network", "connect", "-p", "8080-8085:80-85", "-p", "8082:90", "blue", "web"], "8082/tcp"),
            (vec!["network", "connect", "-p", "198.51.100.1:8080:80", "blue", "web"], "198.51.100.1"),
            (vec!["network", "connect", "-p", "224.0.0.1:8080:80", "blue", "web"], "224.0.0.1"),
        ],
    );
    lab.namespace_is_fresh(&web);
    lab.rn("network rm blue").ok();
}

fn bad_addresses_of_containers(lab: &Lab) {
    lab.rn("network create --subnet 10.1.0.0/24 blue").ok();
    lab.web("blue", "taken", &["--ip", "10.1.0.7"]);
    lab.namespace("web");
    for address in [
        "nonsense",
        "10.2.0.7",
        "10.1.0.0",
        "10.1.0.1",
        "10.1.0.255",
        "10.1.0.7",
        "10.1.0.256",
        "010.1.0.8",
        "10.1.0.8/24",
        "fd00::1",
        "0.0.0.0",
        "10.1.8",
        "10.1.0.8 ",
    ] {
        all_refused(lab, [(vec!["network", "connect", "--ip", address, "blue", "web"], address.trim())]);
    }
    lab.rn("network connect --ip 10.1.0.7 blue web").refused(&["10.1.0.7", "taken"]);
    all_refused(
        lab,
        [
            (vec!["network", "connect", "--ip6", "nonsense", "blue", "web"], "nonsense"),
            (vec!["network", "connect", "--ip6", "fd00::9", "blue", "web"], "fd00::9"),
        ],
    );
    lab.rn("network rm -f blue").ok();
}

fn bad_mac_addresses(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.web("blue", "taken", &["--mac-address", "02:00:00:00:00:07"]);
    lab.namespace("web");
    for mac in [
        "nonsense",
        "02:42",
        "02:00:00:00:00:0g",
        "02:00:00:00:00:00:00",
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "02:00:00:00:00:07",
        "02:00:00:00:00:0",
        "020000000007",
    ] {
        all_refused(lab, [(vec!["network", "connect", "--mac-address", mac, "blue", "web"], mac)]);
    }
    lab.rn("network rm -f blue").ok();
}

fn bad_interface_names(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    for name in [
        "sixteen-letters-",
        "lo",
        ".",
        "..",
        "a/b",
        "a b",
        "eth%d",
        "all",
        "default",
        "a:b",
        "br*",
        "a\"b",
        "-x",
        "ü",
    ] {
        let option = format!("--interface={name}");
        all_refused(lab, [(vec!["network", "connect", &option, "blue", "web"], plain(name))]);
    }
    all_refused(
        lab,
        [
            (vec!["network", "connect", "--interface=", "blue", "web"], "interface"),
            (vec!["network", "connect", "--interface", "a\nb", "blue", "web"], "interface"),
        ],
    );
    lab.rn("network rm blue").ok();
}

fn bad_endpoint_options(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    all_refused(
        lab,
        [
            (vec!["network", "connect", "--gw-priority", "high", "blue", "web"], "high"),
            (
                vec!["network", "connect", "--gw-priority", "99999999999999999999", "blue", "web"],
                "99999999999999999999",
            ),
            (vec!["network", "connect", "--driver-opt", "colour=red", "blue", "web"], "colour"),
            (vec!["network", "connect", "--driver-opt", "=x", "blue", "web"], "=x"),
            (
                vec![
                    "network",
                    "connect",
                    "--driver-opt",
                    "com.docker.network.endpoint.ifname=a/b",
                    "blue",
                    "web",
                ],
                "a/b",
            ),
        ],
    );
    lab.rn("network rm blue").ok();
}

fn unknown_networks_and_containers(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    all_refused(
        lab,
        [
            (vec!["network", "connect", "nowhere", "web"], "nowhere"),
            (vec!["network", "connect", "blue", "nobody"], "nobody"),
            (vec!["network", "disconnect", "nowhere", "web"], "nowhere"),
            (vec!["network", "disconnect", "blue", "nobody"], "nobody"),
            (vec!["network", "disconnect", "blue", "web"], "web"),
            (vec!["network", "rm", "nowhere"], "nowhere"),
            (vec!["port", "nobody"], "nobody"),
            (vec!["stop", "nobody"], "nobody"),
            (vec!["rm", "nobody"], "nobody"),
            (vec!["logs", "nobody"], "nobody"),
        ],
    );
    lab.rn("exec nobody -- true").refused(&["nobody"]);
    lab.rn("network inspect nowhere").failed_after_output(&["nowhere"]);
    lab.rn("network rm blue").ok();
}

fn a_network_of_that_name_exists(lab: &Lab) {
    lab.rn("network create blue").ok();
    all_refused(
        lab,
        [
            (vec!["network", "create", "blue"], "blue"),
            (vec!["network", "create", "--subnet", "10.1.0.0/24", "blue"], "blue"),
        ],
    );
    lab.rn("network rm blue").ok();
}

fn a_container_is_connected_once(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    let here = lab.snapshot();
    lab.rn("network connect blue web").refused(&["web", "blue"]);
    lab.rn("network connect -p 8080:80 blue web").refused(&["web", "blue"]);
    lab.rn("network connect -p 8081:80 blue /run/netns/web").refused(&["web", "blue"]);
    lab.is_like(&here);
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
    assert_eq!(web.addresses("eth0"), ["172.18.0.2/16"]);
    lab.rn("network rm -f blue").ok();
}

fn networks_that_are_there_without_being_made_stay(lab: &Lab) {
    for name in ["bridge", "host", "none"] {
        all_refused(lab, [(vec!["network", "rm", name], name), (vec!["network", "rm", "-f", name], name)]);
        lab.inspect(name);
    }
}

fn host_and_none_take_no_container(lab: &Lab) {
    lab.namespace("web");
    all_refused(
        lab,
        [
            (vec!["network", "connect", "host", "web"], "host"),
            (vec!["network", "connect", "none", "web"], "none"),
            (vec!["network", "connect", "-p", "8080:80", "host", "web"], "host"),
        ],
    );
}

fn the_hosts_own_namespace_in_every_disguise(lab: &Lab) {
    lab.rn("network create blue").ok();
    let sleeper = Running::start(&mut lab.command("cat", &[] as &[&str]));
    let pid = sleeper.pid().as_raw_nonzero();
    std::os::unix::fs::symlink(format!("/proc/{pid}/ns/net"), "/run/lab/link").expect("a symlink");
    std::os::unix::fs::symlink("/run/lab/link", "/run/netns/linked").expect("a symlink");
    fs::write("/run/netns/bound", "").expect("a file");
    rustix::mount::mount_bind(format!("/proc/{pid}/ns/net"), "/run/netns/bound").expect("mounts of our own");
    for container in [
        "/proc/self/ns/net",
        "/proc/thread-self/ns/net",
        "/proc/self/../self/ns/net",
        "/run/lab/host",
        "/run/lab/../lab/host",
        "/run/lab/link",
        "/run/netns/bound",
        "/var/run/netns/bound",
        "linked",
        "bound",
        &format!("/proc/{pid}/ns/net"),
        &format!("/proc/{pid}/task/{pid}/ns/net"),
        &format!("pid:{pid}"),
    ] {
        all_refused(
            lab,
            [
                (vec!["network", "connect", "blue", container], container),
                (vec!["network", "connect", "-p", "8080:80", "bridge", container], container),
            ],
        );
    }
    lab.rn("network connect blue /proc/self/ns/net").refused(&["host"]);
    drop(sleeper);
    rustix::mount::unmount("/run/netns/bound", rustix::mount::UnmountFlags::DETACH)
        .expect("mounts of our own");
    fs::remove_file("/run/netns/bound").expect("our file");
    fs::remove_file("/run/netns/linked").expect("our link");
    lab.rn("network rm blue").ok();
}

fn what_is_no_network_namespace(lab: &Lab) {
    lab.rn("network create blue").ok();
    fs::write("/run/lab/file", "text").expect("a file");
    fs::write("/run/netns/empty", "").expect("a file");
    mknodat(CWD, "/run/lab/fifo", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
    std::os::unix::fs::symlink("/run/lab/loop", "/run/lab/loop").expect("a symlink");
    let _socket = std::os::unix::net::UnixListener::bind("/run/lab/socket").expect("a socket");
    for path in [
        "/run/lab/file",
        "/run/lab",
        "/run/lab/fifo",
        "/run/lab/loop",
        "/run/lab/socket",
        "/run/lab/missing",
        "/run/lab/file/below",
        "/proc/self/ns/mnt",
        "/proc/self/ns/uts",
        "/proc/self/ns/user",
        "/dev/null",
        "/",
        "empty",
        "/run/netns/empty",
        "/proc/999999999/ns/net",
    ] {
        let attempt = lab.start(&["network", "connect", "blue", path]);
        assert!(attempt.ended_within(Duration::from_secs(20)), "{path} makes it hang");
        attempt.wait().refused(&[path]);
    }
    fs::remove_file("/run/netns/empty").expect("our file");
    lab.rn("network rm blue").ok();
}

fn a_bridge_name_that_is_taken_is_refused(lab: &Lab) {
    prepare(&lab.host, "link add br-other type bridge");
    lab.rn("network create -o name=office0 blue").ok();
    all_refused(
        lab,
        [
            (vec!["network", "create", "-o", "name=office0", "green"], "office0"),
            (vec!["network", "create", "-o", "name=rnet0", "green"], "rnet0"),
            (vec!["network", "create", "-o", "name=uplink0", "green"], "uplink0"),
            (vec!["network", "create", "-o", "name=br-other", "green"], "br-other"),
        ],
    );
    lab.rn("network rm blue").ok();

    // Somebody takes the name between the two commands: his link is left alone.
    lab.rn("network create blue").ok();
    prepare(&lab.host, "link add rnet0 type bridge");
    lab.namespace("web");
    all_refused(lab, [(vec!["network", "connect", "bridge", "web"], "rnet0")]);
    prepare(&lab.host, "link del rnet0\n link del br-other");
    lab.rn("network rm blue").ok();
}

fn bad_run_options(lab: &Lab) {
    lab.rn("network create blue").ok();
    let before = lab.snapshot();
    for (options, mentioned) in [
        ("--name a/b", "a/b"),
        ("--name ../x", "../x"),
        ("--hostname a_/b", "a_/b"),
        ("--network nowhere", "nowhere"),
        ("--network container:nobody", "nobody"),
        ("--network blue --network blue", "blue"),
        ("--network name=blue,colour=red", "colour"),
        ("--network name=blue,ip=nonsense", "nonsense"),
        ("--network ip=10.0.0.9", "name"),
        ("--network host --network blue", "host"),
        ("--network host -p 8080:80", "host"),
        ("-p nonsense", "nonsense"),
        ("--ip nonsense", "nonsense"),
        ("--mac-address nonsense", "nonsense"),
        ("--dns nonsense", "nonsense"),
        ("--add-host nonsense", "nonsense"),
        ("--add-host name:nonsense", "nonsense"),
        ("--sysctl nonsense", "nonsense"),
        ("--sysctl kernel.hostname=x", "kernel.hostname"),
        ("--user nobody-of-this-name", "nobody-of-this-name"),
        ("-w /no/such/folder", "/no/such/folder"),
        ("-e =x", "=x"),
    ] {
        let refused = lab.rn(&format!("run {options} -- true")).exits(125);
        assert!(refused.stderr().starts_with("rnet: ") && refused.stderr().contains(mentioned), "{refused}");
        assert!(refused.stderr().lines().count() <= 2, "{refused}");
        lab.is_like(&before);
    }
    lab.rn("network rm blue").ok();
}

fn control_characters_are_escaped(lab: &Lab) {
    for name in ["a\nrnet: all is well", "\x1b]0;title\x07", "a\u{202e}b", "a\rb", "a\u{7f}b", "a\u{85}b"] {
        lab.rnet(&["network", "create", name]).refused(&[]);
        lab.rnet(&["network", "create", "--subnet", name, "blue"]).refused(&[]);
        lab.rnet(&["network", "create", "-o", name, "blue"]).refused(&[]);
        lab.rnet(&["network", "connect", "-p", name, "bridge", "web"]).refused(&[]);
        lab.rnet(&["network", "connect", "bridge", name]).refused(&[]);
        lab.rnet(&["network", "rm", name]).refused(&[]);
        lab.is_clean();
    }
    let unknown = lab.rnet(&["network", "\x1b[31mred"]).exits(2);
    assert!(!unknown.stderr().contains("\x1b[31mred"), "{unknown}");
    // Printable again where a name is only shown.
    lab.rnet(&["network", "create", "--label", "colour=\x1b[31m", "blue"]).ok();
    let shown = lab.rn("network inspect blue").ok();
    assert!(!shown.stdout().contains('\x1b'), "{shown}");
    lab.rn("network rm blue").ok();
}

/// What is opened first would get the number of a closed one, and the next message would be written into it.
fn closed_descriptors_and_pipes(lab: &Lab) {
    let id = lab.rn("network create blue").ok().text();
    lab.namespace("web");
    lab.sh("rnet network connect blue web <&- >&- 2>&-").ok();
    lab.sh("rnet network connect blue web <&- >&- 2>&-").exits(1).silent();
    assert_eq!(lab.inspect("blue")["Id"], id.trim());
    assert_eq!(lab.endpoint("blue", "web")["Name"], "web");
    lab.rn("check").ok().prints("");
    lab.sh("rnet network ls >&-").refused(&["cannot write to stdout", "Bad file descriptor"]);
    let piped = lab.sh("{ sleep 0.2; rnet network ls; echo code $? >&2; } | true").ok();
    assert_eq!(piped.stderr(), "rnet: cannot write to stdout: Broken pipe (os error 32)\ncode 1\n");
    lab.rn("network disconnect blue web").ok();
    lab.rn("network rm blue").ok();
}
