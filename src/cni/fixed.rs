//! `static`: addresses that the configuration, the arguments or the runtime name. Keeps no account of them.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    Plugin, Request,
    failure::Failure,
    json::parse,
    result::{Dns, Ip, Outcome, Route, cidr},
};

pub(super) struct Fixed;

impl Plugin for Fixed {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        Ok(outcome(request)?.json(request.config.version))
    }

    fn del(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        outcome(request).map(drop)
    }

    fn gc(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }

    fn status(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }
}

/// What is named; the runtime's capability comes before `args.cni`, and both before the rest.
pub(super) fn outcome(request: &Request) -> Result<Outcome, Failure> {
    let ipam = request
        .config
        .root()
        .object("ipam")?
        .ok_or_else(|| Failure::config("the configuration has no ipam"))?;
    let mut ips = Vec::new();
    for object in ipam.objects("addresses")? {
        let address = cidr("addresses: address", object.text("address")?.unwrap_or_default())?;
        ips.push(Ip { interface: None, address, gateway: object.parsed("gateway", "an IP address")? });
    }
    let gateway = request.call.args.gateway.as_deref();
    let gateways: Vec<IpAddr> = gateway
        .iter()
        .flat_map(|text| text.split(','))
        .map(|text| parse("CNI_ARGS: GATEWAY", text.trim(), "an IP address"))
        .collect::<Result<_, _>>()?;
    let plain = |text: &str| -> Result<Ip, Failure> {
        let address = cidr("ips", text)?;
        let gateway = gateways.iter().find(|gateway| address.contains(**gateway)).copied();
        Ok(Ip { interface: None, address, gateway })
    };
    for text in &request.call.args.ips {
        ips.push(plain(text)?);
    }
    for object in [request.config.args()?, request.config.runtime()?].into_iter().flatten() {
        let texts = object.texts("ips")?;
        if !texts.is_empty() {
            ips = texts.into_iter().map(plain).collect::<Result<_, _>>()?;
        }
    }
    if ips.is_empty() {
        return Err(Failure::config(
            "static: no address is named, in ipam: addresses, CNI_ARGS or by the runtime",
        ));
    }
    let routes = ipam.objects("routes")?.iter().map(Route::read).collect::<Result<_, _>>()?;
    Ok(Outcome { interfaces: Vec::new(), ips, routes, dns: Dns::read(ipam.object("dns")?)? })
}
