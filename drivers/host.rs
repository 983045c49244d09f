//! `host`: the container shares the host's own network. Nothing to make.

use alloc::vec::Vec;

use crate::{Abilities, BadOption, Driver, Endpoint, Network, Resource, options};

/// The driver of the network `host`, of which there is one.
pub(crate) struct Host;

impl Driver for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: false, connectable: false, addresses: false, lan: false }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        options::refuse_all("host", &network.options)
    }

    fn network(&self, _: &Network) -> Result<Vec<Resource>, BadOption> {
        Ok(Vec::new())
    }

    fn endpoint(&self, _: &Network, _: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        Ok(Vec::new())
    }
}
