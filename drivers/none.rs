//! `none`: the container has its own loopback and nothing else. Nothing to make on the host.

use alloc::vec::Vec;

use crate::{Abilities, BadOption, Driver, Endpoint, Network, Resource, options};

/// The driver of the network `none`, of which there is one. Docker calls the driver `null`.
pub(crate) struct None;

impl Driver for None {
    fn name(&self) -> &'static str {
        "null"
    }

    fn abilities(&self) -> Abilities {
        Abilities { creatable: false, connectable: false, addresses: false, lan: false }
    }

    fn check(&self, network: &Network) -> Result<(), BadOption> {
        options::refuse_all("null", &network.options)
    }

    fn network(&self, _: &Network) -> Result<Vec<Resource>, BadOption> {
        Ok(Vec::new())
    }

    fn endpoint(&self, _: &Network, _: &Endpoint) -> Result<Vec<Resource>, BadOption> {
        Ok(Vec::new())
    }
}
