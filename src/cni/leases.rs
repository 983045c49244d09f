//! Addresses for plugins that make interfaces: what `ipam` of a configuration names, in this process where that is
//! rnet itself. Makes no interface.

use super::{
    Request,
    call::Verb,
    delegate::{self, Delegate},
    failure::Failure,
    fixed, host_local,
    result::Outcome,
};
use crate::store::EndpointState;

/// Who gives out addresses.
pub(super) enum Leases {
    /// Nobody: the network is the runtime's or the administrator's own business.
    Nobody,
    /// `host-local` of this file.
    HostLocal,
    /// `static` of this file.
    Fixed,
    /// Another program.
    Program(std::path::PathBuf),
}

impl Leases {
    /// Reads who it is.
    pub(super) fn of(request: &Request) -> Result<Self, Failure> {
        let Some(ipam) = request.config.root().object("ipam")? else { return Ok(Self::Nobody) };
        let Some(kind) = ipam.text("type")? else { return Ok(Self::Nobody) };
        Ok(match (delegate::find(request, kind)?, kind) {
            (Delegate::Own, "host-local") => Self::HostLocal,
            (Delegate::Own, "static") => Self::Fixed,
            (Delegate::Own, _) => {
                return Err(Failure::config(format!("plugin {kind} gives out no addresses")));
            }
            (Delegate::Program(path), _) => Self::Program(path),
        })
    }

    /// Takes addresses. What a killed call had taken for the same interface is taken again.
    pub(super) fn take(&self, request: &Request) -> Result<Outcome, Failure> {
        match self {
            Self::Nobody => Ok(Outcome::default()),
            Self::HostLocal => host_local::take(request, host_local::Repeated::Again),
            Self::Fixed => fixed::outcome(request),
            Self::Program(path) => Ok(delegate::run(path, Verb::Add, request)?.unwrap_or_default()),
        }
    }

    /// Gives them back.
    pub(super) fn give_back(&self, request: &Request) -> Result<(), Failure> {
        match self {
            Self::Nobody | Self::Fixed => Ok(()),
            Self::HostLocal => host_local::give_back(request),
            Self::Program(path) => delegate::run(path, Verb::Del, request).map(drop),
        }
    }

    /// Whether they are still the interface's.
    pub(super) fn check(&self, request: &Request) -> Result<(), Failure> {
        match self {
            Self::Nobody | Self::Fixed => Ok(()),
            Self::HostLocal => host_local::check(request),
            Self::Program(path) => delegate::run(path, Verb::Check, request).map(drop),
        }
    }

    /// Gives back what belongs to nobody any more; `gone`: those whose interfaces were just collected.
    pub(super) fn collect(&self, request: &Request, gone: &[EndpointState]) -> Result<(), Failure> {
        match self {
            Self::Nobody | Self::Fixed => Ok(()),
            Self::HostLocal => host_local::collect(request, gone),
            Self::Program(path) => delegate::run(path, Verb::Gc, request).map(drop),
        }
    }

    /// Whether there are more.
    pub(super) fn status(&self, request: &Request) -> Result<(), Failure> {
        match self {
            Self::Nobody | Self::Fixed => Ok(()),
            Self::HostLocal => host_local::status(request),
            Self::Program(path) => delegate::run(path, Verb::Status, request).map(drop),
        }
    }
}
