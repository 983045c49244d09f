//! Shows what a network of a driver consists of, without touching the host: no root needed.
//!
//! `cargo run --example plan`

use std::collections::BTreeMap;

use rnet::{drivers::Network, ipam, plan::Plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wishes = ipam::Wishes { subnets: vec!["10.1.0.0/24".parse()?], ..ipam::Wishes::default() };
    let network = Network {
        id: rnet::verbs::new_id()?,
        name: "blue".parse()?,
        driver: "bridge".to_owned(),
        created: rnet::verbs::now(),
        pools: ipam::pools(&wishes)?,
        internal: false,
        attachable: false,
        ipam_driver: "default".to_owned(),
        ipam_options: BTreeMap::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        group: Network::GROUPS,
    };
    let list = rnet::verbs::driver(&network.driver)?.network(&network)?;
    print!("{}", Plan::between(&[], &list));
    Ok(())
}
