//! `ipvlan`: containers are on the LAN of one of the host's interfaces themselves, with the host's hardware address and
//! IP addresses of their own. The host itself does not reach them over that interface, and has no ports for them.

use crate::{
    BadOption, Network,
    child::{IpvlanMode, Lan, Settings, Sharing},
    options::{Known, Options},
};

static OPTIONS: [Known; 5] = [
    Known { long: "parent", short: "parent" },
    Known { long: "ipvlan_mode", short: "mode" },
    Known { long: "ipvlan_flag", short: "flag" },
    Known { long: "com.docker.network.driver.mtu", short: "mtu" },
    Known { long: "com.docker.network.container_iface_prefix", short: "iface-prefix" },
];

/// The driver.
pub(crate) static IPVLAN: Lan = Lan { name: "ipvlan", settings };

fn settings(network: &Network) -> Result<Settings, BadOption> {
    let options = Options::read("ipvlan", &OPTIONS, &network.options)?;
    let mode = match options.text("mode").unwrap_or("l2") {
        "l2" => IpvlanMode::L2,
        "l3" => IpvlanMode::L3,
        "l3s" => IpvlanMode::L3s,
        _ => return Err(options.bad("mode", "it must be l2, l3 or l3s")),
    };
    if options.text("flag").is_some_and(|flag| flag != "bridge") {
        return Err(options.bad("flag", "it must be bridge"));
    }
    Settings::read(&options, network, Sharing::Ipvlan(mode))
}
