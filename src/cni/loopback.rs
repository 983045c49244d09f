//! `loopback`: brings `lo` up, and says so. Knows no network, and remembers nothing.

use serde_json::Value;

use super::{
    Plugin, Request,
    failure::{Code, Failure},
    result::{Interface, Ip, Outcome, cidr},
};
use crate::container_ref::ContainerRef;

pub(super) struct Loopback;

impl Plugin for Loopback {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        let previous = request.config.passed_on()?;
        let mut rnet = request.rnet()?;
        rnet.set_loopback_up(&container(request)?, request.call.netns()?)?;
        match previous {
            Some(previous) => Ok(previous),
            None => Ok(outcome(request)?.json(request.config.version)),
        }
    }

    /// The namespace goes, and `lo` with it; until then whoever is in there may need it.
    fn del(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        let netns = request.call.netns()?;
        if request.rnet()?.is_loopback_up(&container(request)?, netns)? {
            return Ok(());
        }
        Err(Failure::new(Code::Differs, format!("lo is down in {}", netns.display())))
    }

    fn gc(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }

    fn status(&self, _: &Request) -> Result<(), Failure> {
        Ok(())
    }
}

fn container(request: &Request) -> Result<ContainerRef, Failure> {
    Ok(format!("cni:{}", request.call.container).parse()?)
}

fn outcome(request: &Request) -> Result<Outcome, Failure> {
    let sandbox = Some(request.call.netns()?.to_string_lossy().into_owned());
    let mac = Some("00:00:00:00:00:00".to_owned());
    let ip =
        |text| Ok::<_, Failure>(Ip { interface: Some(0), address: cidr("address", text)?, gateway: None });
    Ok(Outcome {
        interfaces: vec![Interface { name: "lo".to_owned(), mac, mtu: None, sandbox }],
        ips: vec![ip("127.0.0.1/8")?, ip("::1/128")?],
        ..Outcome::default()
    })
}
