//! check, repair, gc, purge, restore: what others break is named, and mended once.

use crate::{
    harness::tests,
    lab::{Lab, Place},
    watch::only_asks,
};

tests! {
    a_sound_host_has_no_difference,
    whatever_is_damaged_is_named_and_mended_and_flows_go_on,
    connect_itself_heals_a_network_whose_bridge_is_down,
    a_flushed_ruleset_is_repaired_whole,
    a_chain_that_was_emptied_is_repaired,
    an_element_that_was_deleted_or_led_elsewhere_is_repaired,
    a_bridge_that_was_deleted_is_made_again_with_all_its_ports,
    a_bridge_without_its_address_or_down_is_mended,
    a_port_that_was_taken_from_the_bridge_is_put_back,
    a_veth_that_was_deleted_is_made_again,
    forwarding_that_was_switched_off_is_switched_on,
    connect_itself_heals_a_network_whose_bridge_is_gone,
    a_repair_that_is_only_shown_changes_nothing,
    endpoints_of_deleted_namespaces_are_collected,
    purge_leaves_nothing,
    networks_are_restored_after_a_reboot_and_addresses_are_free,
    after_a_reboot_that_kept_the_run_directory_networks_come_back_on_first_use,
    a_damaged_record_is_set_aside_and_stops_nobody_else,
}

/// Network blue with a server behind port 8080.
fn blue(lab: &Lab) -> Place {
    lab.rn("network create blue").ok();
    lab.web("blue", "web", &["-p", "8080:80"])
}

/// `check` names the difference, one `repair` mends it, a second has nothing to do, and the port answers.
fn is_mended(lab: &Lab, web: &Place, named: &str) {
    lab.rn("check").exits(1).mentions(named);
    lab.rn("repair").ok();
    lab.rn("repair").ok().prints("");
    lab.rn("check").ok().prints("");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(web);
    lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(web);
    lab.rn("network rm -f blue").ok();
}

fn a_sound_host_has_no_difference(lab: &Lab) {
    lab.rn("check").ok().prints("");
    blue(lab);
    lab.rn("network create --internal red").ok();
    lab.rn("network connect red web").ok();
    let here = lab.snapshot();
    lab.rn("check").ok().prints("");
    lab.rn("check blue").ok().prints("");
    lab.rn("repair").ok().prints("");
    lab.rn("check green").refused(&["green"]);
    lab.is_like(&here);
    lab.rn("network rm -f red blue").ok();
}

fn a_flushed_ruleset_is_repaired_whole(lab: &Lab) {
    lab.needs("nft");
    let web = blue(lab);
    let here = lab.snapshot();
    lab.sh("nft flush ruleset").ok();
    lab.no_tcp(&lab.lan, "192.0.2.1:8080");
    lab.rn("check").exits(1).mentions("host: missing: firewall: tables, chains and empty sets");
    lab.rn("repair").ok();
    lab.is_like(&here);
    lab.sh("nft flush ruleset").ok();
    is_mended(lab, &web, "container web on network blue: missing: publish 0.0.0.0:8080/tcp to 172.18.0.2:80");
}

fn a_chain_that_was_emptied_is_repaired(lab: &Lab) {
    lab.needs("nft");
    let web = blue(lab);
    lab.sh("nft flush chain inet rnet publish").ok();
    is_mended(lab, &web, "host: missing: firewall: tables, chains and empty sets");
}

fn an_element_that_was_deleted_or_led_elsewhere_is_repaired(lab: &Lab) {
    lab.needs("nft");
    let web = blue(lab);
    lab.sh("nft 'delete element inet rnet publish4_any { tcp . 8080 }'").ok();
    lab.sh("nft 'add element inet rnet publish4_any { tcp . 8080 : 172.18.0.9 . 80 }'").ok();
    is_mended(lab, &web, "container web on network blue: missing: publish 0.0.0.0:8080/tcp to 172.18.0.2:80");
}

fn a_bridge_that_was_deleted_is_made_again_with_all_its_ports(lab: &Lab) {
    let web = blue(lab);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    lab.sh(&format!("ip link delete {bridge}")).ok();
    is_mended(lab, &web, &format!("network blue: missing: bridge {bridge}"));
}

fn a_bridge_without_its_address_or_down_is_mended(lab: &Lab) {
    let web = blue(lab);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    lab.sh(&format!("ip address flush dev {bridge}; ip link set {bridge} down")).ok();
    is_mended(lab, &web, &format!("network blue: missing: address 172.18.0.1/16 on {bridge} on the host"));
}

fn a_port_that_was_taken_from_the_bridge_is_put_back(lab: &Lab) {
    let web = blue(lab);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    let port = lab.sh(&format!("ip -br link show master {bridge} | cut -d@ -f1")).ok().text();
    lab.sh(&format!("ip link set {port} nomaster")).ok();
    is_mended(lab, &web, &format!("container web on network blue: expected: veth {port} on {bridge}"));
}

fn a_veth_that_was_deleted_is_made_again(lab: &Lab) {
    let web = blue(lab);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    lab.sh(&format!("ip link delete $(ip -br link show master {bridge} | cut -d@ -f1)")).ok();
    assert!(!web.has_link("eth0"));
    is_mended(
        lab,
        &web,
        "container web on network blue: missing: address 172.18.0.2/16 on eth0 in the container",
    );
}

fn forwarding_that_was_switched_off_is_switched_on(lab: &Lab) {
    let web = blue(lab);
    lab.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    is_mended(lab, &web, "host: missing: IPv4 forwarding");
}

fn connect_itself_heals_a_network_whose_bridge_is_gone(lab: &Lab) {
    blue(lab);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    lab.sh(&format!("ip link delete {bridge}")).ok();
    let db = lab.namespace("db");
    lab.listen_tcp(&db, "0.0.0.0:80");
    lab.rn("network connect -p 8081:80 blue db").ok();
    lab.rn("check").ok().prints("");
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&db);
    lab.rn("network rm -f blue").ok();
}

fn a_repair_that_is_only_shown_changes_nothing(lab: &Lab) {
    lab.needs("nft");
    blue(lab);
    lab.sh("nft flush ruleset").ok();
    let here = lab.snapshot();
    lab.rn("repair --dry-run").ok().mentions("+ publish 0.0.0.0:8080/tcp");
    lab.is_like(&here);
    lab.rn("network rm -f blue").ok();
}

fn endpoints_of_deleted_namespaces_are_collected(lab: &Lab) {
    let web = blue(lab);
    lab.rn("gc").ok().prints("");
    lab.silence(&web);
    lab.delete_namespace(&web);
    let line = "container web on network blue, whose namespace is gone\n";
    lab.rn("gc --dry-run").ok().prints(line);
    lab.rn("gc").ok().prints(line);
    lab.rn("gc").ok().prints("");
    lab.rn("check").ok().prints("");
    lab.rn("network rm blue").ok();
}

fn purge_leaves_nothing(lab: &Lab) {
    blue(lab);
    lab.rn("network create --internal red").ok();
    lab.rn("network connect red web").ok();
    lab.rn("run -d --name page").ok();
    lab.rn("purge").ok().prints("");
    lab.is_clean();
    lab.sh("find /run/rnet /var/lib/rnet -type f").ok().prints("");
}

/// What a reboot does to processes and to the kernel's objects.
fn reboot(lab: &Lab) {
    lab.rn("agent --stop").ok();
    lab.sh(KERNEL_FORGETS).ok();
}

const KERNEL_FORGETS: &str = "
    for link in $(ip -br link show type bridge | cut -d' ' -f1) $(ip -br link show type veth | grep -o '^veth[0-9a-f]*'); do
        ip link delete $link
    done
    nft delete table inet rnet; nft delete table bridge rnet; echo 0 > /proc/sys/net/ipv4/ip_forward";

/// A reboot takes all kernel objects and keeps what is under /var/lib; /run is new.
fn networks_are_restored_after_a_reboot_and_addresses_are_free(lab: &Lab) {
    let web = blue(lab);
    lab.silence(&web);
    reboot(lab);
    lab.sh("rm -r /run/rnet").ok();
    lab.rn("restore").ok().prints("blue\n");
    lab.rn("restore").ok().prints("");
    lab.rn("check").ok().prints("");
    lab.web("blue", "db", &[]);
    assert_eq!(lab.address("blue", "db"), "172.18.0.2");
    lab.rn("network rm -f blue").ok();
}

/// Where /run is on a disk its records outlive the kernel's objects; another boot id says so.
fn after_a_reboot_that_kept_the_run_directory_networks_come_back_on_first_use(lab: &Lab) {
    let web = blue(lab);
    lab.silence(&web);
    reboot(lab);
    lab.sh(
        "sed -i 's/\"boot\":\"[0-9a-f-]*\"/\"boot\":\"11111111-2222-3333-4444-555555555555\"/' /run/rnet/host.json",
    )
    .ok();
    lab.rn("ps").ok().prints("CONTAINER ID   COMMAND   CREATED   STATUS    PORTS     NETWORKS   NAMES\n");
    let db = lab.web("blue", "db", &["-p", "8080:80"]);
    assert_eq!(lab.address("blue", "db"), "172.18.0.2", "addresses and ports of the former life are free");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&db);
    lab.rn("check").ok().prints("");
    lab.rn("network rm -f blue").ok();
}

fn a_damaged_record_is_set_aside_and_stops_nobody_else(lab: &Lab) {
    blue(lab);
    lab.rn("network create red").ok();
    lab.sh("echo '{' > /var/lib/rnet/networks/red.json").ok();
    lab.rn("network inspect red").ok();
    assert!(lab.sh("ls /var/lib/rnet/networks").ok().stdout().contains("red.json.damaged"));
    lab.rn("network ls -q").ok();
    lab.web("blue", "db", &[]);
    lab.rn("network rm -f blue").ok();
    lab.rn("purge").ok();
    lab.sh("rm /var/lib/rnet/networks/*.damaged").exits(1);
}

/// An echo server in a container, and a client of it on the LAN, by way of the published port: one connection that was
/// there before the damage.
struct Flow(std::net::TcpStream);

impl Flow {
    #[track_caller]
    fn open(lab: &Lab, echo: &Place) -> Self {
        let listener = echo.inside(|| std::net::TcpListener::bind("0.0.0.0:7")).expect("a socket");
        std::thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                let copy = stream.try_clone();
                let _ = copy.and_then(|mut copy| std::io::copy(&mut copy, &mut stream));
            }
        });
        let stream = lab.lan.inside(|| std::net::TcpStream::connect("192.0.2.1:8087")).expect("a connection");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a socket");
        Self(stream)
    }

    #[track_caller]
    fn goes_on(&mut self, text: &str) {
        use std::io::{Read as _, Write as _};
        self.0.write_all(text.as_bytes()).expect("the connection is alive");
        let mut back = vec![0; text.len()];
        self.0.read_exact(&mut back).unwrap_or_else(|error| panic!("after {text}: {error}"));
        assert_eq!(back, text.as_bytes());
    }
}

/// With a live container and an open connection: each kind of damage is named, one repair heals all of it, and the
/// connection goes on.
fn whatever_is_damaged_is_named_and_mended_and_flows_go_on(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    let web = lab.web("blue", "web", &["-p", "8080:80"]);
    let echo = lab.namespace("echo");
    lab.rn("network connect -p 8087:7 blue echo").ok();
    let mut flow = Flow::open(lab, &echo);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    let ports = "ip -br link show master $(ip -br link show type bridge | cut -d' ' -f1) | cut -d@ -f1";
    for (damage, named) in [
        ("nft flush ruleset", "host: missing: firewall: tables, chains and empty sets".to_owned()),
        ("nft delete table bridge rnet", "host: missing: firewall: tables, chains and empty sets".to_owned()),
        ("ip link delete BRIDGE", format!("network blue: missing: bridge {bridge}")),
        ("ip link set BRIDGE down", format!("network blue: missing: {bridge} up on the host")),
        (
            "ip link set BRIDGE mtu 1400",
            format!(
                "network blue: expected: bridge {bridge} mac 02:42:0a:51:00:01 mtu 1500; found: bridge {bridge} mac 02:42:0a:51:00:01 mtu 1400"
            ),
        ),
        (
            "ip address flush dev BRIDGE",
            format!("network blue: missing: address 10.81.0.1/24 on {bridge} on the host"),
        ),
        (
            "for p in $(PORTS); do ip link delete $p; done",
            "container web on network blue: missing: veth ".to_owned(),
        ),
        (
            "for p in $(PORTS); do ip link set $p nomaster; done",
            "container echo on network blue: expected: veth ".to_owned(),
        ),
        (
            "for p in $(PORTS); do ip link set $p down; done",
            "container web on network blue: missing: veth".to_owned(),
        ),
        (
            "for p in $(PORTS); do bridge link set dev $p learning on hairpin off; done",
            "container web on network blue: expected: port veth".to_owned(),
        ),
        ("echo 0 > /proc/sys/net/ipv4/ip_forward", "host: missing: IPv4 forwarding".to_owned()),
        (
            "echo 0 > /proc/sys/net/ipv6/conf/BRIDGE/disable_ipv6",
            format!("network blue: missing: IPv6 off on {bridge} on the host"),
        ),
        (
            "echo 1 > /proc/sys/net/ipv4/conf/BRIDGE/send_redirects",
            format!("network blue: missing: no redirects on {bridge} on the host"),
        ),
        (
            "ip -n echo address flush dev eth0",
            "container echo on network blue: missing: address 10.81.0.3/24 on eth0 in the container"
                .to_owned(),
        ),
        (
            "ip -n echo route delete default",
            "container echo on network blue: missing: default route via 10.81.0.1 on eth0 in the container"
                .to_owned(),
        ),
        (
            "ip -n web link set eth0 down",
            "container web on network blue: missing: eth0 up in the container".to_owned(),
        ),
        (
            "nft flush ruleset; ip link delete BRIDGE; echo 0 > /proc/sys/net/ipv4/ip_forward",
            "host: missing: IPv4 forwarding".to_owned(),
        ),
    ] {
        let line = damage.replace("PORTS", ports).replace("BRIDGE", &bridge);
        lab.sh(&line).ok();
        let check = lab.rn("check").exits(1);
        assert!(check.stdout().contains(&named), "after {damage}, {named:?} is not said by {check}");
        lab.rn("repair").ok();
        lab.rn("check").ok().prints("");
        only_asks(lab, &["repair"]);
        flow.goes_on(damage);
        lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&web);
        lab.tcp(&lab.host, "127.0.0.1:8080").answered_by(&web);
    }
    drop(flow);
    lab.rn("network rm -f blue").ok();
}

/// Not noticed by what it does with the bridge, but by what the kernel says of it when asked for its index.
fn connect_itself_heals_a_network_whose_bridge_is_down(lab: &Lab) {
    let web = blue(lab);
    let bridge = lab.bridge_of("blue").expect("a bridge");
    lab.sh(&format!("ip link set {bridge} down")).ok();
    let db = lab.namespace("db");
    lab.rn("network connect blue db").ok();
    lab.rn("check").ok().prints("");
    lab.tcp(&db, "172.18.0.2:80").answered_by(&web);
    lab.rn("network rm -f blue").ok();
}
