//! Type `rnet`: bridge, addresses, masquerade, ports and names in one process. Leaves no part of it to another plugin.

use serde_json::Value;

use super::{
    Plugin, Request, attachment,
    failure::{Code, Failure},
    networks::Meant,
};

pub(super) struct Native;

impl Plugin for Native {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        refuse_unsupported(request)?;
        let meant = Meant::read(request)?;
        let wanted = attachment::wanted(request)?;
        // Read before anything is made: what it says may be nonsense.
        attachment::dns(request)?;
        let mut rnet = request.rnet()?;
        attachment::refuse_namespace(&mut rnet, &wanted, request)?;
        let connected = attachment::connect(&mut rnet, &meant, wanted, request)?;
        let outcome = attachment::outcome(&connected.network, &connected.endpoint, request)?;
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
    for key in ["deviceID", "infinibandGUID"] {
        let is_empty =
            |value: &Value| value.as_str() == Some("") || value.as_object().is_some_and(|map| map.is_empty());
        if runtime.get(key).is_some_and(|value| !is_empty(value)) {
            return Err(Failure::new(Code::UnsupportedField, format!("unsupported runtimeConfig: {key}")));
        }
    }
    Ok(())
}
