//! How a plugin fails: a code and a line, as one JSON object on stdout (SPEC 1.1, section "Error"). Prints nothing.

use serde_json::{Value, json};

use super::version::Version;
use crate::error::{Error, Kind};

/// The codes of the specification, and from 100 on rnet's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The plugin does not speak this version of the protocol.
    IncompatibleVersion = 1,
    /// A key or value that the plugin cannot honour.
    UnsupportedField = 2,
    /// The container is not there, and nothing of it needs to be cleaned up.
    UnknownContainer = 3,
    /// A variable of the environment is missing or malformed.
    InvalidEnvironment = 4,
    /// A file could not be read or written.
    Io = 5,
    /// What came on stdin is no JSON, or too long.
    Decode = 6,
    /// The configuration makes no sense.
    InvalidConfig = 7,
    /// `CNI_NETNS` is the plugin's own network namespace, or none at all.
    InvalidNamespace = 8,
    /// It would work later: somebody else is at it, or nothing is free at the moment.
    TryAgain = 11,
    /// STATUS: containers cannot be added now.
    NotAvailable = 50,
    /// An address, a port or a name belongs to somebody else.
    Taken = 100,
    /// The kernel refused a step.
    Refused = 101,
    /// CHECK: something is not as ADD made it.
    Differs = 102,
}

/// A failure of a delegate keeps the delegate's own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// One of ours.
    Own(Code),
    /// A delegate's.
    Delegate(u64),
}

impl Reason {
    fn number(self) -> u64 {
        match self {
            Self::Own(code) => code as u64,
            Self::Delegate(number) => number,
        }
    }
}

/// Why a call ends without having done its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) details: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        let reason = Reason::Own(code);
        Self { reason, message: message.into().replace('\n', " "), details: String::new() }
    }

    /// The same, for another reason.
    pub(super) fn because(self, code: Code) -> Self {
        Self { reason: Reason::Own(code), ..self }
    }

    pub(super) fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// A key of the configuration that is not what it should be.
    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, message)
    }

    /// As the runtime reads it. `version`: that of the configuration, as far as it is known.
    pub(super) fn json(&self, version: Version) -> Value {
        let mut shown =
            json!({ "cniVersion": version.name(), "code": self.reason.number(), "msg": self.message });
        if !self.details.is_empty() {
            shown["details"] = json!(self.details);
        }
        shown
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let details = match &error {
            Error::BadOption(bad) => bad.nearest.map(|near| format!("the nearest known option is {near}")),
            Error::PoolExhausted { used, pool, .. } => Some(format!("{used} addresses of {pool} are in use")),
            _ => None,
        };
        Self::new(code(&error), error.to_string()).details(details.unwrap_or_default())
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::ContainerNotFound { .. } => return Code::UnknownContainer,
        Error::HostNamespace { .. } | Error::NotNamespace { .. } => return Code::InvalidNamespace,
        Error::Store { .. } | Error::Damaged { .. } | Error::UnsafeDirectory { .. } => return Code::Io,
        _ => {}
    }
    match error.kind() {
        Kind::Invalid | Kind::NotFound => Code::InvalidConfig,
        Kind::Conflict => Code::Taken,
        Kind::Exhausted | Kind::Busy => Code::TryAgain,
        Kind::Forbidden | Kind::Failed => Code::Refused,
    }
}
