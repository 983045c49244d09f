//! Networks, pools and containers that the tests give to drivers.

use std::collections::BTreeMap;

use rnetkit_drivers::{Container, Endpoint, Id, Network, Pool, Resource};

const NETWORK: Id = Id([0xb1; 32]);
const ENDPOINT: Id = Id([0xe5; 32]);

pub fn pool(subnet: &str, gateway: &str) -> Pool {
    let gateway = Some(gateway.parse().unwrap());
    Pool { subnet: subnet.parse().unwrap(), gateway, range: None, aux: BTreeMap::new() }
}

/// One pool of each family.
pub fn dual() -> Vec<Pool> {
    vec![pool("10.1.0.0/24", "10.1.0.1"), pool("fd00:1::/64", "fd00:1::1")]
}

/// The network `blue`.
pub fn network(driver: &str, options: &[(&str, &str)], pools: &[Pool]) -> Network {
    Network {
        id: NETWORK,
        name: "blue".parse().unwrap(),
        driver: driver.to_owned(),
        created: 0,
        pools: pools.to_vec(),
        internal: false,
        attachable: false,
        ipam_driver: "default".to_owned(),
        ipam_options: BTreeMap::new(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        labels: BTreeMap::new(),
        group: Network::GROUPS,
    }
}

/// The container `web` with an address of each subnet and the gateways.
pub fn endpoint(network: &Network) -> Endpoint {
    let address = |pool: &Pool| if pool.subnet.is_ipv6() { "fd00:1::2/64" } else { "10.1.0.2/24" };
    Endpoint {
        id: ENDPOINT,
        network: network.id,
        container: Container {
            id: Id([0xc0; 32]),
            name: "web".to_owned(),
            netns: "/run/netns/web".to_owned(),
            device: 4,
            inode: 4_026_532_000,
        },
        interface: "eth0".parse().unwrap(),
        mac: "02:42:0a:01:00:02".parse().unwrap(),
        addresses: network.pools.iter().map(|pool| address(pool).parse().unwrap()).collect(),
        gateway_priority: 0,
        routes: Vec::new(),
        tuning: Default::default(),
        spare: Vec::new(),
        gateways: network.pools.iter().filter_map(|pool| pool.gateway).collect(),
        ports: Vec::new(),
        aliases: Vec::new(),
        dns: Vec::new(),
        options: BTreeMap::new(),
    }
}

/// Each resource as people read it.
pub fn texts(list: Vec<Resource>) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
