//! The drawing for terminals.

use std::fmt::Write;

use super::{Description, Interface, Visit, entrance, published, shorten};

const WIDTH: usize = 100;

/// The way from the visitor to the container, top to bottom, and the container's other interfaces.
pub(super) fn draw(description: &Description, visit: &Visit) -> String {
    let mut out = String::new();
    let asked = if visit.asked.is_empty() { String::new() } else { format!(", asking {}", visit.asked) };
    row(&mut out, "you", &format!("{}{asked}", visit.address));
    let port = published(description, visit);
    if let Some(port) = port {
        row(&mut out, " |", "");
        row(&mut out, "host", &description.ports[port]);
    }
    let way = entrance(description, visit);
    if let Some(interface) = way.map(|index| &description.interfaces[index]) {
        row(&mut out, " |", "");
        way_in(&mut out, interface);
    }
    row(&mut out, " |", "");
    row(&mut out, "container", &format!("{}, hostname {}", description.name, description.hostname));
    others(&mut out, description, way, port);
    out
}

/// A label and what it is about; lines that would wrap are cut.
fn row(out: &mut String, label: &str, text: &str) {
    let line = format!("{label:<10} {}", shorten(text, WIDTH));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", line.trim_end());
}

fn way_in(out: &mut String, interface: &Interface) {
    row(out, if interface.bridge.is_some() { "bridge" } else { "network" }, &network(interface));
    row(out, " |", "");
    row(out, &shorten(&interface.name, 10), &addresses(interface));
}

fn network(interface: &Interface) -> String {
    let mut parts = Vec::new();
    match &interface.bridge {
        Some(bridge) => parts.push(format!("{bridge}, network {}", interface.network)),
        None => parts.push(interface.network.clone()),
    }
    parts.extend(interface.subnets.iter().cloned());
    parts.extend(interface.gateways.iter().map(|gateway| format!("gateway {gateway}")));
    parts.join(", ")
}

fn addresses(interface: &Interface) -> String {
    let mac = interface.mac.iter().map(|mac| format!("MAC {mac}"));
    let all: Vec<String> = interface.addresses.iter().cloned().chain(mac).collect();
    all.join(", ")
}

/// What this visit did not pass.
fn others(out: &mut String, description: &Description, way: Option<usize>, port: Option<usize>) {
    let interfaces = description.interfaces.iter().enumerate().filter(|(index, _)| Some(*index) != way);
    let rest: Vec<&Interface> = interfaces.map(|(_, interface)| interface).collect();
    let ports = description.ports.iter().enumerate().filter(|(index, _)| Some(*index) != port);
    let ports: Vec<&str> = ports.map(|(_, port)| port.as_str()).collect();
    if !rest.is_empty() || !ports.is_empty() {
        out.push('\n');
    }
    for port in ports {
        row(out, "also", port);
    }
    for interface in rest {
        row(out, &shorten(&interface.name, 10), &addresses(interface));
        row(out, "", &format!("on {}", network(interface)));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{visit, web},
        *,
    };

    #[test]
    fn the_way_in_reads_from_top_to_bottom() {
        let expected = "\
you        192.0.2.7, asking example.com:8080
 |
host       8080 -> 80/tcp
 |
bridge     rnet0, network bridge, 172.17.0.0/16, gateway 172.17.0.1
 |
eth0       172.17.0.2/16, MAC 02:42:ac:11:00:02
 |
container  web, hostname web
";
        assert_eq!(draw(&web(), &visit()), expected);
    }

    #[test]
    fn a_terminal_is_not_disturbed() {
        let hostile = Description { name: "\u{1b}[2J".to_owned(), ..web() };
        assert!(!draw(&hostile, &visit()).contains('\u{1b}'));
    }
}
