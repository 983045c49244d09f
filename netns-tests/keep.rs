//! check, repair, gc, purge, restore: what others break is named, and mended once.

use crate::{
    harness::tests,
    lab::{Lab, Place},
};

tests! {
    a_sound_host_has_no_difference,
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

/// A reboot takes all kernel objects and keeps what is under /var/lib; /run is new.
fn networks_are_restored_after_a_reboot_and_addresses_are_free(lab: &Lab) {
    let web = blue(lab);
    lab.silence(&web);
    lab.sh(
        "for link in $(ip -br link show type bridge | cut -d' ' -f1) $(ip -br link show type veth | grep -o '^veth[0-9a-f]*'); do
             ip link delete $link
         done
         nft delete table inet rnet; nft delete table bridge rnet; echo 0 > /proc/sys/net/ipv4/ip_forward
         rm -r /run/rnet",
    )
    .ok();
    lab.rn("restore").ok().prints("blue\n");
    lab.rn("restore").ok().prints("");
    lab.rn("check").ok().prints("");
    lab.web("blue", "db", &[]);
    assert_eq!(lab.address("blue", "db"), "172.18.0.2");
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
