//! Type `rnet`: bridge, addresses, masquerade, ports and names in one process. Leaves no part of it to another plugin.

use serde_json::Value;

use super::{
    Plugin, Request, attachment, chained,
    failure::{Code, Failure},
    networks::Meant,
};

pub(super) struct Native;

impl Plugin for Native {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        refuse_unsupported(request)?;
        let meant = Meant::read(request)?;
        let mut wanted = attachment::wanted(request)?;
        let mut tuning = chained::tuning_keys(request)?;
        // It is born with both: the one that is asked for, and the network's.
        wanted.mac = wanted.mac.or(tuning.link.mac.take());
        tuning.link.mtu = None;
        wanted.tuning = tuning;
        // Read before anything is made: what it says may be nonsense.
        let dns = attachment::dns(request)?;
        wanted.dns = dns.nameservers.iter().filter_map(|server| server.parse().ok()).collect();
        let mut rnet = request.rnet()?;
        attachment::refuse_namespace(&mut rnet, &wanted, request)?;
        let connected = attachment::connect(&mut rnet, &meant, wanted, request)?;
        let outcome = attachment::outcome(&connected.network, &connected.endpoint, request)?;
        crate::cli::container_connected(&request.call.root, &request.call.run, &connected.network);
        Ok(outcome.json(request.config.version))
    }

    fn del(&self, request: &Request) -> Result<(), Failure> {
        attachment::disconnect(&mut request.rnet()?, network(request)?, request)
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        attachment::check(&mut request.rnet()?, &Meant::Made(network(request)?.to_owned()), request).map(drop)
    }

    fn gc(&self, request: &Request) -> Result<(), Failure> {
        attachment::collect(&mut request.rnet()?, network(request)?, request).map(drop)
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        let meant = Meant::read(request)?;
        attachment::status(&mut request.rnet()?, &meant)
    }
}

/// The network's name, which is all that must be right for what takes back.
fn network(request: &Request) -> Result<&str, Failure> {
    Ok(request.config.root().text("network")?.unwrap_or(request.config.name.as_str()))
}

/// What is asked for and cannot be had is not left out in silence.
fn refuse_unsupported(request: &Request) -> Result<(), Failure> {
    if request
        .config
        .root()
        .get("ipam")
        .is_some_and(|ipam| ipam.as_object().is_none_or(|map| !map.is_empty()))
    {
        let message = "unsupported ipam: type rnet gives out the addresses of its network itself";
        return Err(Failure::new(Code::UnsupportedField, message));
    }
    let Some(runtime) = request.config.runtime()? else { return Ok(()) };
    let is_made = request.config.root().text("network")?.is_some();
    for (key, is_refused) in [("deviceID", is_made), ("infinibandGUID", true)] {
        let is_empty =
            |value: &Value| value.as_str() == Some("") || value.as_object().is_some_and(|map| map.is_empty());
        if is_refused && runtime.get(key).is_some_and(|value| !is_empty(value)) {
            return Err(Failure::new(Code::UnsupportedField, format!("unsupported runtimeConfig: {key}")));
        }
    }
    Ok(())
}
