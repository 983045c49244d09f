//! Connects a network namespace to a network and publishes a port, as a container runtime would.
//!
//! `ip netns add web && cargo run --example connect -- /run/netns/web 8080:80`

use rnet::{
    kernel::Deletion,
    verbs::{Connect, Mode, Rnet},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let container = words.next().ok_or("usage: connect NAMESPACE [PORTS...]")?;
    let mut rnet = Rnet::open("/var/lib/rnet".as_ref(), "/run/rnet".as_ref(), Deletion::Wait)?;
    let mut wanted = Connect::new("bridge", container.parse()?);
    for port in words {
        wanted.ports.push(port.parse()?);
    }
    let connected = rnet.connect(&wanted, Mode::Do)?;
    for address in &connected.endpoint.addresses {
        println!("{} has {address}", connected.endpoint.interface);
    }
    Ok(())
}
