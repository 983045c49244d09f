//! Disconnects a container from a network; its namespace may be gone already.
//!
//! `cargo run --example disconnect -- /run/netns/web`

use rnet::{
    kernel::Deletion,
    verbs::{Mode, Rnet},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let container = std::env::args().nth(1).ok_or("usage: disconnect NAMESPACE")?;
    let mut rnet = Rnet::open("/var/lib/rnet".as_ref(), "/run/rnet".as_ref(), Deletion::Wait)?;
    let plan = rnet.disconnect("bridge", &container.parse()?, Mode::Do)?;
    print!("{plan}");
    Ok(())
}
