//! Containers without a container engine: `run`, `exec`, `ps`, `stop`, `rm`, `logs`.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal};

use crate::{
    command::{Running, ended_within},
    harness::tests,
    lab::{LAN, Lab, Place},
    traffic,
};

tests! {
    the_exit_code_is_that_of_the_command,
    a_command_that_does_not_exist_is_127,
    a_failure_of_rnet_itself_is_125,
    the_command_has_its_own_network_files,
    the_command_has_its_own_mounts_and_host_name,
    names_and_resolvers_can_be_given,
    environment_folder_user_and_sysctl_can_be_given,
    stdin_and_stdout_are_the_callers,
    without_a_command_a_page_is_served,
    a_published_port_of_a_command,
    the_network_can_be_chosen,
    several_networks_in_the_long_form,
    the_network_of_the_host,
    no_network,
    the_network_of_another_container,
    signals_are_passed_on,
    a_command_that_a_signal_ended,
    detached_containers_are_shown_and_stopped,
    logs_of_a_detached_container,
    exec_runs_inside,
    stop_kills_what_does_not_listen,
    rm_wants_force_for_what_runs,
    a_container_with_a_name_is_one,
    names_are_given_where_none_is,
    a_run_container_can_be_connected_and_disconnected,
    after_rnet_was_killed_the_next_command_cleans_up,
    what_another_process_takes_down_is_waited_for,
    after_the_detached_process_died_its_network_is_taken_down,
    no_descriptor_leaks_into_the_command,
    a_detached_container_keeps_nothing_of_its_caller,
}

/// Runs a line of shell in a container, with options of `run`.
#[track_caller]
fn shell(lab: &Lab, options: &str, line: &str) -> crate::command::Output {
    let mut words: Vec<&str> = vec!["run"];
    words.extend(options.split_whitespace());
    words.extend(["--", "sh", "-c", line]);
    lab.rnet(&words)
}

/// A container in the foreground that has said that it runs, and goes on until its stdin ends.
#[track_caller]
fn waiting(lab: &Lab, options: &str) -> Running {
    let mut words: Vec<&str> = vec!["run"];
    words.extend(options.split_whitespace());
    words.extend(["--", "sh", "-c", "echo ready; read line; echo $line"]);
    let mut running = lab.start(&words);
    assert_eq!(running.line(), "ready");
    running
}

/// A Python program in the foreground that says `ready` and then waits for signals; TERM makes it exit with 3.
const PATIENT: &str = "import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
signal.signal(signal.SIGINT, lambda *_: sys.exit(4))
signal.signal(signal.SIGHUP, lambda *_: sys.exit(5))
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'usr1\\n'))
print('ready', flush=True)
while True: signal.pause()";

fn the_exit_code_is_that_of_the_command(lab: &Lab) {
    for code in [0, 1, 7, 125, 255] {
        shell(lab, "", &format!("exit {code}")).exits(code);
        lab.is_clean();
    }
    shell(lab, "", "echo out; echo err >&2").ok().prints("out\n");
}

fn a_command_that_does_not_exist_is_127(lab: &Lab) {
    let missing = lab.rn("run -- no-such-command-here").exits(127);
    assert!(missing.stderr().contains("no-such-command-here"), "{missing}");
    lab.rn("run -- /etc/hosts").exits(126);
    lab.rn("run -- /etc").exits(126);
    lab.is_clean();
}

fn a_failure_of_rnet_itself_is_125(lab: &Lab) {
    lab.listen_tcp(&lab.host, "0.0.0.0:8080");
    let refused = lab.rn("run -p 8080:80 -- true").exits(125);
    assert!(refused.stderr().starts_with("rnet: port 8080/tcp"), "{refused}");
    lab.is_clean();
}

fn the_command_has_its_own_network_files(lab: &Lab) {
    let before = ["hosts", "resolv.conf", "hostname"].map(|name| fs::read(format!("/etc/{name}")).ok());
    let hosts = shell(lab, "--name web", "cat /etc/hosts").ok();
    assert!(
        hosts.stdout().lines().any(|line| line.split_whitespace().eq(["127.0.0.1", "localhost"])),
        "{hosts}"
    );
    assert!(
        hosts.stdout().lines().any(|line| line.starts_with("172.17.0.2") && line.contains("web")),
        "{hosts}"
    );
    let resolver = shell(lab, "", "cat /etc/resolv.conf").ok();
    assert!(resolver.stdout().contains("nameserver 192.0.2.254"), "{resolver}");
    shell(lab, "--name web --hostname office", "cat /etc/hostname; hostname; uname -n")
        .ok()
        .prints("office\noffice\noffice\n");
    shell(lab, "--name web", "hostname").ok().prints("web\n");
    // It may write them, and that stays with it.
    shell(lab, "", "echo 192.0.2.99 x >> /etc/hosts && echo '#' >> /etc/resolv.conf").ok();
    let after = ["hosts", "resolv.conf", "hostname"].map(|name| fs::read(format!("/etc/{name}")).ok());
    assert!(before == after, "the host's own files were changed");
}

fn the_command_has_its_own_mounts_and_host_name(lab: &Lab) {
    let here = |kind: &str| {
        fs::read_link(format!("/proc/thread-self/ns/{kind}")).expect("/proc").display().to_string()
    };
    for kind in ["net", "mnt", "uts"] {
        let there = lab.rnet(&["run", "--", "readlink", &format!("/proc/self/ns/{kind}")]).ok().text();
        assert_ne!(there, here(kind), "the {kind} namespace");
    }
    shell(lab, "", "mount -t tmpfs none /mnt && hostname elsewhere").ok();
    lab.is_clean();
    let links = shell(lab, "", "ls /sys/class/net").ok().mentions("eth0");
    assert!(!links.stdout().contains("uplink0"), "the host's links: {links}");
}

fn names_and_resolvers_can_be_given(lab: &Lab) {
    let options = "--dns 192.0.2.53 --dns 192.0.2.54 --dns-search example.org --dns-option ndots:3";
    let resolver = shell(lab, options, "cat /etc/resolv.conf").ok();
    let lines: Vec<&str> = resolver.stdout().lines().filter(|line| !line.starts_with('#')).collect();
    for line in ["nameserver 192.0.2.53", "nameserver 192.0.2.54", "search example.org", "options ndots:3"] {
        assert!(lines.contains(&line), "{line} is not in {resolver}");
    }
    assert!(!resolver.stdout().contains("192.0.2.254"), "{resolver}");
    let hosts = shell(lab, "--add-host db:192.0.2.77 --add-host me:host-gateway", "cat /etc/hosts").ok();
    let words: Vec<Vec<&str>> =
        hosts.stdout().lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(words.contains(&vec!["192.0.2.77", "db"]), "{hosts}");
    assert!(words.contains(&vec!["172.17.0.1", "me"]), "{hosts}");
}

fn environment_folder_user_and_sysctl_can_be_given(lab: &Lab) {
    shell(lab, "-e COLOUR=blue -w /var", "echo $COLOUR; pwd").ok().prints("blue\n/var\n");
    if lab.has_many_users() {
        shell(lab, "--user 65534:65534", "id -u; id -g").ok().prints("65534\n65534\n");
    }
    shell(
        lab,
        "--sysctl net.ipv4.ip_unprivileged_port_start=80",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
    )
    .ok()
    .prints("80\n");
    let addresses = lab.rn("run --ip 172.17.9.9 --mac-address 02:00:00:00:00:09 -- ip -br address show eth0");
    if addresses.succeeded() {
        addresses.mentions("172.17.9.9/16");
    } else {
        // Docker allows it on networks that a user defined only.
        addresses.exits(125);
    }
}

fn stdin_and_stdout_are_the_callers(lab: &Lab) {
    let mut cat = lab.start(&["run", "--", "cat"]);
    cat.type_line("hello");
    assert_eq!(cat.line(), "hello");
    cat.wait().ok();
}

/// The first command of the README.
fn without_a_command_a_page_is_served(lab: &Lab) {
    let page = lab.start(&["run", "--name", "page", "-p", "8080:80"]);
    let answer = fetch(&page, &lab.lan, "192.0.2.1:8080");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for word in ["172.17.0.2", "rnet0", "8080", LAN] {
        assert!(answer.contains(word), "{word} is not on the page:\n{answer}");
    }
    let answer = traffic::http(&lab.host, "127.0.0.1:8080", "/").expect("a page");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    traffic::http(&lab.lan, "192.0.2.1:8080", "/no/such/page").expect("an answer of some kind");
    page.signal(Signal::INT);
    page.wait();
    lab.is_clean();
}

/// Fetches the page as soon as there is one.
#[track_caller]
fn fetch(server: &Running, from: &Place, address: &str) -> String {
    for _ in 0..1000 {
        match traffic::http(from, address, "/") {
            Ok(page) if !page.is_empty() => return page,
            _ => assert!(!server.ended_within(Duration::from_millis(10)), "it ended before it served a page"),
        }
    }
    panic!("no page on {address}")
}

/// The second command of the README.
fn a_published_port_of_a_command(lab: &Lab) {
    lab.needs("python3");
    let server = lab.start(&["run", "-p", "8081:80", "--", "python3", "-m", "http.server", "80"]);
    let page = fetch(&server, &lab.lan, "192.0.2.1:8081");
    assert!(page.contains("Directory listing"), "{page}");
    assert!(fetch(&server, &lab.host, "127.0.0.1:8081").contains("Directory listing"));
    server.signal(Signal::TERM);
    server.wait().ended_by(Signal::TERM);
    lab.no_tcp(&lab.lan, "192.0.2.1:8081");
    lab.is_clean();
}

fn the_network_can_be_chosen(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let running =
        waiting(lab, "--name web --network blue --ip 10.90.0.9 --mac-address 02:00:00:00:00:09 -p 8080:80");
    let web = lab.container("blue", "web");
    assert_eq!(web.addresses("eth0"), ["10.90.0.9/24"]);
    assert_eq!(web.mac("eth0"), "02:00:00:00:00:09");
    assert!(web.is_up("lo"));
    lab.listen_tcp(&web, "0.0.0.0:80");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web).seen_from(LAN);
    lab.silence(&web);
    running.wait().ok();
    lab.rn("network rm blue").ok();
}

fn several_networks_in_the_long_form(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.91.0.0/24 green").ok();
    let running = waiting(
        lab,
        "--name web --network name=blue,ip=10.90.0.7,mac-address=02:00:00:00:00:07,alias=www \
         --network name=green,ip=10.91.0.7,gw-priority=5",
    );
    let web = lab.container("blue", "web");
    assert_eq!(web.addresses("eth0"), ["10.90.0.7/24"]);
    assert_eq!(web.mac("eth0"), "02:00:00:00:00:07");
    assert_eq!(web.addresses("eth1"), ["10.91.0.7/24"]);
    assert_eq!(web.gateway(), Some(("10.91.0.1".into(), "eth1".into())));
    running.wait().ok();
    lab.rn("network rm blue green").ok();
}

fn the_network_of_the_host(lab: &Lab) {
    let here = fs::read_link("/proc/thread-self/ns/net").expect("/proc").display().to_string();
    lab.rn("run --network host -- readlink /proc/self/ns/net").ok().prints(&format!("{here}\n"));
    lab.is_clean();
}

fn no_network(lab: &Lab) {
    let links = shell(lab, "--network none", "ip -br link").ok().mentions("lo");
    assert!(!links.stdout().contains("eth0") && !links.stdout().contains("uplink0"), "{links}");
    shell(lab, "--network none", "ip route").ok().prints("");
    lab.is_clean();
}

fn the_network_of_another_container(lab: &Lab) {
    let running = waiting(lab, "--name web");
    let first = lab.rn("exec web -- readlink /proc/self/ns/net").ok().text();
    lab.rn("run --network container:web -- readlink /proc/self/ns/net").ok().prints(&format!("{first}\n"));
    lab.rn("exec web -- readlink /proc/self/ns/net").ok().prints(&format!("{first}\n"));
    running.wait().ok();
    lab.is_clean();
}

fn signals_are_passed_on(lab: &Lab) {
    lab.needs("python3");
    for (signal, code) in [(Signal::TERM, 3), (Signal::INT, 4), (Signal::HUP, 5)] {
        let mut running = lab.start(&["run", "--", "python3", "-c", PATIENT]);
        assert_eq!(running.line(), "ready");
        running.signal(Signal::USR1);
        assert_eq!(running.line(), "usr1");
        running.signal(signal);
        running.wait().exits(code);
        lab.is_clean();
    }
}

fn a_command_that_a_signal_ended(lab: &Lab) {
    shell(lab, "", "kill -TERM $$").ended_by(Signal::TERM);
    shell(lab, "", "kill -KILL $$").ended_by(Signal::KILL);
    lab.is_clean();
    let mut running = lab.start(&["run", "--", "sh", "-c", "echo ready; exec sleep 60"]);
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    running.wait().ended_by(Signal::TERM);
    lab.is_clean();
}

fn detached_containers_are_shown_and_stopped(lab: &Lab) {
    let started = lab.rn("run -d --name web -p 8080:80").ok();
    let id = started.text();
    assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()), "the id: {started}");
    let page = traffic::http(&lab.lan, "192.0.2.1:8080", "/").expect("a page as soon as it returns");
    assert!(page.contains("172.17.0.2"), "{page}");
    lab.rn("ps").ok().mentions("web").mentions(&id[..12]);
    lab.rn("ps -q").ok().prints(&format!("{}\n", &id[..12]));
    lab.rn("port web 80").ok().mentions("0.0.0.0:8080\n");
    lab.rn("stop web").ok().prints("web\n");
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    assert!(!lab.rn("ps").ok().stdout().contains("web"));
    lab.rn("ps -a").ok().mentions("web");
    lab.rn("rm web").ok().prints("web\n");
    assert!(!lab.rn("ps -a").ok().stdout().contains("web"));
    lab.is_clean();
}

fn logs_of_a_detached_container(lab: &Lab) {
    lab.sh("mkfifo /run/lab/said").ok();
    let line = "echo out; echo err >&2; echo said > /run/lab/said; exit 5";
    lab.rnet(&["run", "-d", "--name", "web", "--", "sh", "-c", line]).ok();
    lab.sh("timeout 30 cat /run/lab/said").ok().prints("said\n");
    lab.rn("stop web").ok();
    let logs = lab.rn("logs web").ok();
    let all = format!("{}{}", logs.stdout(), logs.stderr());
    assert!(all.contains("out\n") && all.contains("err\n"), "{logs}");
    lab.rn("rm web").ok();
}

fn exec_runs_inside(lab: &Lab) {
    let running = waiting(lab, "--name web --hostname office");
    lab.rn("exec web -- cat /etc/hostname").ok().prints("office\n");
    lab.rn("exec web -- hostname").ok().prints("office\n");
    lab.rn("exec web -- ip -br -4 address show eth0").ok().mentions("172.17.0.2/16");
    lab.rnet(&["exec", "web", "--", "sh", "-c", "exit 9"]).exits(9);
    lab.rn("exec web -- no-such-command-here").exits(127);
    let place = lab.namespace("plain");
    lab.rn("exec plain -- ip -br link").ok().mentions("lo");
    lab.namespace_is_fresh(&place);
    running.wait().ok();
    lab.is_clean();
}

fn stop_kills_what_does_not_listen(lab: &Lab) {
    lab.sh("mkfifo /run/lab/deaf /run/lab/never").ok();
    let line = "trap '' TERM; echo deaf > /run/lab/deaf; read x < /run/lab/never";
    lab.rnet(&["run", "-d", "--name", "deaf", "--", "sh", "-c", line]).ok();
    lab.sh("timeout 30 cat /run/lab/deaf").ok().prints("deaf\n");
    let first = first_process(lab, "bridge", "deaf");
    lab.rn("stop -t 0 deaf").ok();
    assert!(ended_within(first, Duration::ZERO), "it still lives");
    lab.rn("rm deaf").ok();
    lab.is_clean();
}

fn rm_wants_force_for_what_runs(lab: &Lab) {
    lab.rn("run -d --name web -p 8080:80").ok();
    lab.rn("rm web").refused(&["web"]);
    traffic::http(&lab.lan, "192.0.2.1:8080", "/").expect("it still runs");
    lab.rn("rm -f web").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.is_clean();
    lab.rn("run -d --rm --name web -p 8080:80").ok();
    lab.rn("stop web").ok();
    assert!(!lab.rn("ps -a").ok().stdout().contains("web"), "--rm takes it away when it ends");
    lab.is_clean();
}

fn a_container_with_a_name_is_one(lab: &Lab) {
    let running = waiting(lab, "--name web");
    let second = lab.rn("run --name web -- true").exits(125);
    assert!(second.stderr().contains("web"), "{second}");
    running.wait().ok();
    lab.rn("run --name web -- true").ok();

    // A plain namespace of that name is a container too.
    lab.namespace("db");
    lab.rn("run --name db -- true").exits(125);
}

fn names_are_given_where_none_is(lab: &Lab) {
    let (one, two) = (waiting(lab, ""), waiting(lab, ""));
    let names = lab.rnet(&["ps", "--format", "{{.Names}}"]).ok();
    let mut lines: Vec<&str> = names.stdout().lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert!(lines.len() == 2 && lines.iter().all(|name| !name.is_empty()), "{names}");
    assert_eq!(lab.inspect("bridge")["Containers"].as_object().map(serde_json::Map::len), Some(2));
    one.wait().ok();
    two.wait().ok();
}

fn a_run_container_can_be_connected_and_disconnected(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let running = waiting(lab, "--name web");
    lab.rn("network connect -p 8080:80 blue web").ok().silent();
    let web = lab.container("blue", "web");
    assert_eq!(web.addresses("eth1"), ["10.90.0.2/24"]);
    lab.rn("network disconnect blue web").ok();
    assert!(!web.has_link("eth1"));
    lab.rn("network disconnect bridge web").ok();
    assert!(!web.has_link("eth0"));
    lab.rn("network connect blue web").ok();
    assert!(web.has_link("eth0"));
    running.wait().ok();
    lab.rn("network rm blue").ok();
}

fn after_rnet_was_killed_the_next_command_cleans_up(lab: &Lab) {
    let running = waiting(lab, "--name web -p 8080:80");
    let first = first_process(lab, "bridge", "web");
    running.signal(Signal::KILL);
    assert!(running.ended_within(Duration::from_secs(20)));
    assert!(!lab.rn("ps").ok().stdout().contains("web"));
    assert!(ended_within(first, Duration::from_secs(20)), "its command lives on");
    lab.is_clean();
    lab.rn("run --name web -p 8080:80 -- true").ok();
}

fn what_another_process_takes_down_is_waited_for(lab: &Lab) {
    let running = waiting(lab, "--name web");
    let taking_down = fs::File::open("/run/rnet/running").expect("a container runs");
    rustix::fs::flock(&taking_down, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    let asking = lab.start(&["ps"]);
    assert!(!asking.ended_within(Duration::from_millis(200)), "it does not wait");
    drop(taking_down);
    assert!(asking.wait().ok().stdout().contains("web"));
    running.wait().ok();
    lab.is_clean();
}

fn after_the_detached_process_died_its_network_is_taken_down(lab: &Lab) {
    lab.rn("run -d --name web -p 8080:80").ok();
    let first = first_process(lab, "bridge", "web");
    rustix::process::kill_process(first, Signal::KILL).expect("it lives");
    assert!(ended_within(first, Duration::from_secs(20)));
    assert!(!lab.rn("ps").ok().stdout().contains("web"));
    lab.rn("rm -f web").ok();
    lab.is_clean();
}

/// The oldest process that lives in the container's network namespace.
#[track_caller]
fn first_process(lab: &Lab, network: &str, name: &str) -> Pid {
    let place = lab.container(network, name);
    let there = place.inside(|| fs::read_link("/proc/thread-self/ns/net")).expect("/proc");
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    let inside =
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == there));
    inside.min().and_then(Pid::from_raw).expect("a process in the container")
}

fn no_descriptor_leaks_into_the_command(lab: &Lab) {
    let open = lab.rnet(&["run", "--", "ls", "/proc/self/fd"]).ok();
    open.prints("0\n1\n2\n3\n");
    lab.rn("run -d --name web -- sleep 1000").ok();
    let first = first_process(lab, "bridge", "web");
    let count = fs::read_dir(format!("/proc/{}/fd", first.as_raw_nonzero())).expect("it lives").count();
    assert_eq!(count, 3, "stdin, stdout and stderr");
    lab.rn("rm -f web").ok();
}

/// A lock that the caller holds by a descriptor would be held for as long as the container runs.
fn a_detached_container_keeps_nothing_of_its_caller(lab: &Lab) {
    lab.sh("exec 9>/run/lab/lock; flock 9; rnet run -d --name web -- sleep 1000").ok();
    lab.sh("flock -n /run/lab/lock true").ok();
    lab.rn("rm -f web").ok();
}
