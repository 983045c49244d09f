//! `macvlan`: containers are on the LAN of one of the host's interfaces themselves, each with a hardware address of its
//! own. The host itself does not reach them over that interface, and has no ports for them.

use crate::{
    BadOption, Network,
    child::{Lan, MacvlanMode, Settings, Sharing},
    options::{Known, Options},
};

static OPTIONS: [Known; 4] = [
    Known { long: "parent", short: "parent" },
    Known { long: "macvlan_mode", short: "mode" },
    Known { long: "com.docker.network.driver.mtu", short: "mtu" },
    Known { long: "com.docker.network.container_iface_prefix", short: "iface-prefix" },
];

/// The driver.
pub(crate) static MACVLAN: Lan = Lan { name: "macvlan", settings };

fn settings(network: &Network) -> Result<Settings, BadOption> {
    let options = Options::read("macvlan", &OPTIONS, &network.options)?;
    let mode = match options.text("mode").unwrap_or("bridge") {
        "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        _ => return Err(options.bad("mode", "it must be bridge, private, vepa or passthru")),
    };
    Settings::read(&options, network, Sharing::Macvlan(mode))
}
