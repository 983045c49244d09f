//! `--dry-run`: what is shown is what is then run, and showing changes nothing.

use super::*;

/// Shows, then does; both are compared. Returns the text.
fn shown(
    lab: &mut Lab,
    show: impl FnOnce(&mut Rnet<Fake>) -> Result<Plan, Error>,
    run: impl FnOnce(&mut Rnet<Fake>) -> Result<(), Error>,
) -> String {
    let before = lab.snapshot();
    let steps = lab.kernel().log.len();
    let plan = show(&mut lab.rnet).unwrap();
    assert_eq!(lab.snapshot(), before, "showing changed something");
    assert_eq!(lab.kernel().log.len(), steps, "showing did something");
    run(&mut lab.rnet).unwrap();
    assert_eq!(text(&plan.steps), text(&lab.kernel().log[steps..]));
    text(&plan.steps)
}

fn shown_connect(lab: &mut Lab, wanted: &Connect) -> String {
    let show = |rnet: &mut Rnet<Fake>| rnet.connect(wanted, Mode::Show).map(|connected| connected.plan);
    shown(lab, show, |rnet| rnet.connect(wanted, Mode::Do).map(drop))
}

fn shown_disconnect(lab: &mut Lab, network: &str, name: &str) -> String {
    let name = container(name);
    let show = |rnet: &mut Rnet<Fake>| rnet.disconnect(network, &name, Mode::Show);
    shown(lab, show, |rnet| rnet.disconnect(network, &name, Mode::Do).map(drop))
}

fn shown_remove(lab: &mut Lab, network: &str) -> String {
    let show = |rnet: &mut Rnet<Fake>| rnet.remove(network, true, Mode::Show).map(|(_, plan)| plan);
    shown(lab, show, |rnet| rnet.remove(network, true, Mode::Do).map(drop))
}

fn shown_create(lab: &mut Lab, wanted: &CreateNetwork) -> String {
    let show = |rnet: &mut Rnet<Fake>| rnet.create(wanted.clone(), Mode::Show).map(|(_, plan)| plan);
    shown(lab, show, |rnet| rnet.create(wanted.clone(), Mode::Do).map(drop))
}

#[test]
fn a_create_is_shown_as_it_is_run() {
    assert_eq!(
        shown_create(&mut Lab::new(), &create("blue", &["10.1.0.0/24"])),
        "+ firewall: tables, chains and empty sets\n\
         + firewall: no IPv4 forwarding for others\n\
         + IPv4 forwarding\n\
         + bridge rn-* mac 02:42:0a:01:00:01 mtu 1500\n\
         + IPv6 off on rn-* on the host\n\
         + no redirects on rn-* on the host\n\
         + firewall: rn-* is closed but for replies and published ports\n\
         + firewall: from 10.1.0.0/24 back into it through the host\n\
         + firewall: members of rn-* may talk to each other\n\
         + firewall: masquerade IPv4 from rn-*\n\
         + firewall: members of rn-* may ask the host for names\n\
         + firewall: 10.1.0.1 answers on rn-* only\n\
         + address 10.1.0.1/24 on rn-* on the host\n\
         + rn-* up on the host\n"
    );
}

#[test]
fn a_create_beside_another_network_is_shown_without_what_is_there() {
    let text = shown_create(&mut Lab::blue(), &create("red", &["10.2.0.0/24"]));
    assert_eq!(text.lines().next(), Some("+ bridge rn-* mac 02:42:0a:02:00:01 mtu 1500"));
}

#[test]
fn a_connect_is_shown_as_it_is_run() {
    assert_eq!(
        shown_connect(&mut Lab::blue(), &publish("blue", "web", &["8080:80"])),
        "+ veth veth* on rn-* to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500\n\
         + IPv6 off on veth* on the host\n\
         + IPv6 off on eth0 in the container\n\
         + lo up in the container\n\
         + address 10.1.0.2/24 on eth0 in the container\n\
         + eth0 up in the container\n\
         + default route via 10.1.0.1 on eth0 in the container\n\
         + firewall: veth* sends as 02:42:0a:01:00:02 only\n\
         + firewall: veth* sends as 10.1.0.2 only\n\
         + publish 0.0.0.0:8080/tcp to 10.1.0.2:80\n\
         + port veth*: behind it 02:42:0a:01:00:02, hairpin\n\
         + veth* up on the host\n"
    );
}

#[test]
fn the_first_connect_to_the_default_bridge_is_shown_with_the_bridge() {
    let text = shown_connect(&mut Lab::new(), &publish("bridge", "web", &["80", "53:53/udp"]));
    assert_eq!(text.lines().count(), 13 + 13);
}

#[test]
fn a_connect_that_takes_over_the_gateway_is_shown_so() {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    lab.connect(&connect("blue", "web")).unwrap();
    let text = shown_connect(&mut lab, &Connect { gateway_priority: 1, ..connect("red", "web") });
    assert_eq!(
        text.lines().find(|line| line.contains("default route")),
        Some(
            "~ default route via 10.1.0.1 on eth0 in the container => default route via 10.2.0.1 on eth1 in the container"
        )
    );
}

#[test]
fn a_connect_that_is_shown_skips_ports_that_are_taken() {
    let mut lab = Lab::blue();
    lab.connect(&publish("blue", "db", &["80", "8000:80"])).unwrap();
    let text = shown_connect(&mut lab, &publish("blue", "web", &["80", "81", "8000-8001:80"]));
    let published: Vec<&str> = text.lines().filter(|line| line.starts_with("+ publish")).collect();
    assert_eq!(
        published,
        [
            "+ publish 0.0.0.0:32769/tcp to 10.1.0.3:80",
            "+ publish 0.0.0.0:32770/tcp to 10.1.0.3:81",
            "+ publish 0.0.0.0:8001/tcp to 10.1.0.3:80",
        ]
    );
}

#[test]
fn a_connect_that_is_shown_skips_addresses_that_rest() {
    let mut lab = Lab::blue();
    lab.connect(&connect("blue", "db")).unwrap();
    lab.disconnect("blue", "db").unwrap();
    let text = shown_connect(&mut lab, &connect("blue", "web"));
    assert!(text.contains("+ address 10.1.0.3/24 on eth0 in the container\n"), "{text}");
}

#[test]
fn a_static_address_that_is_taken_is_refused_when_shown_too() {
    let mut lab = Lab::blue();
    lab.connect(&connect("blue", "db")).unwrap();
    let wanted = Connect { ip: Some([10, 1, 0, 2].into()), ..connect("blue", "web") };
    assert_eq!(
        lab.rnet.connect(&wanted, Mode::Show).unwrap_err().to_string(),
        "address 10.1.0.2 is in use by container db on network blue"
    );
}

#[test]
fn a_disconnect_is_shown_as_it_is_run() {
    let mut lab = Lab::blue();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    assert_eq!(
        shown_disconnect(&mut lab, "blue", "web"),
        "- publish 0.0.0.0:8080/tcp to 10.1.0.2:80\n\
         - firewall: veth* sends as 10.1.0.2 only\n\
         - firewall: veth* sends as 02:42:0a:01:00:02 only\n\
         - veth veth* on rn-* to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500\n"
    );
}

#[test]
fn a_disconnect_from_the_network_of_the_gateway_is_shown_with_the_new_gateway() {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    lab.connect(&connect("blue", "web")).unwrap();
    lab.connect(&connect("red", "web")).unwrap();
    let text = shown_disconnect(&mut lab, "blue", "web");
    assert_eq!(text.lines().last(), Some("+ default route via 10.2.0.1 on eth1 in the container"));
}

#[test]
fn the_last_disconnect_from_the_default_bridge_is_shown_with_the_bridge() {
    let mut lab = Lab::new();
    lab.connect(&connect("bridge", "web")).unwrap();
    let text = shown_disconnect(&mut lab, "bridge", "web");
    assert_eq!(text.lines().last(), Some("- firewall: tables, chains and empty sets"));
}

#[test]
fn a_removal_is_shown_as_it_is_run() {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab.connect(&connect("blue", "db")).unwrap();
    lab.connect(&connect("red", "web")).unwrap();
    assert_eq!(
        shown_remove(&mut lab, "blue"),
        "- publish 0.0.0.0:8080/tcp to 10.1.0.2:80\n\
         - firewall: veth* sends as 10.1.0.2 only\n\
         - firewall: veth* sends as 02:42:0a:01:00:02 only\n\
         - firewall: veth* sends as 10.1.0.3 only\n\
         - firewall: veth* sends as 02:42:0a:01:00:03 only\n\
         - firewall: 10.1.0.1 answers on rn-* only\n\
         - firewall: members of rn-* may ask the host for names\n\
         - firewall: masquerade IPv4 from rn-*\n\
         - firewall: members of rn-* may talk to each other\n\
         - firewall: from 10.1.0.0/24 back into it through the host\n\
         - firewall: rn-* is closed but for replies and published ports\n\
         - veth veth* on rn-* to eth0 in the container, mac 02:42:0a:01:00:02 mtu 1500\n\
         - veth veth* on rn-* to eth0 in the container, mac 02:42:0a:01:00:03 mtu 1500\n\
         - bridge rn-* mac 02:42:0a:01:00:01 mtu 1500\n\
         + default route via 10.2.0.1 on eth1 in the container\n"
    );
}

#[test]
fn the_removal_of_the_last_network_is_shown_with_what_networks_share() {
    assert_eq!(
        shown_remove(&mut Lab::blue(), "blue"),
        "- firewall: 10.1.0.1 answers on rn-* only\n\
         - firewall: members of rn-* may ask the host for names\n\
         - firewall: masquerade IPv4 from rn-*\n\
         - firewall: members of rn-* may talk to each other\n\
         - firewall: from 10.1.0.0/24 back into it through the host\n\
         - firewall: rn-* is closed but for replies and published ports\n\
         - bridge rn-* mac 02:42:0a:01:00:01 mtu 1500\n\
         - IPv4 forwarding\n\
         - firewall: no IPv4 forwarding for others\n\
         - firewall: tables, chains and empty sets\n"
    );
}
