//! The kernel, as the verbs see it: it runs steps and finds resources. What it does, it does in order, and what
//! it cannot finish it takes back.

mod address;
mod behind;
mod child;
mod conntrack;
mod device;
mod fake;
mod find;
mod firewall;
mod lent;
mod link;
mod linux;
mod listen;
mod listeners;
mod neighbour;
mod netlink;
mod netns;
mod overlay;
mod probe;
mod route;
mod sandbox;
mod shape;
#[cfg(test)]
mod shared;
mod survey;
mod sysctl;
mod tun;
mod wireguard;
mod within;

use std::{fmt, io, net::IpAddr, path::Path};

pub use device::interface_of_device;
pub use fake::{Fake, Killed};
pub use find::{Sight, Stray};
pub use firewall::{ForeignChain, Manager, StrayElement, TableName};
use ipnetwork::IpNetwork;
pub use linux::{Deletion, Linux};
pub use listen::{Heard, HeardLink, Listener, TableChange, Transaction};
pub use netns::Netns;
pub(crate) use probe::has_wireguard;
pub use probe::{Feature, probe};
use rnetkit_drivers::{Family, Id, Name, PortRange, Protocol, Resource};
pub use survey::{MarkedLink, Survey};
pub(crate) use tun::{open as open_tun, probe as probe_tun};
pub(crate) use wireguard::{
    bring as bring_wireguard, is_there as is_wireguard, refuse_taken, take as take_wireguard,
};

use crate::{
    error::Error,
    plan::{Plan, Step},
};

/// Why the kernel refused: its error number, and what it says besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As in `errno(3)`, positive.
    pub errno: i32,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`), or what rnet was doing.
    pub text: Option<String>,
}

impl Refusal {
    /// A refusal with an error number alone.
    #[must_use]
    pub fn new(errno: i32) -> Self {
        Self { errno, text: None }
    }

    /// A refusal in which rnet says what is wrong.
    #[must_use]
    pub fn because(errno: i32, text: impl Into<String>) -> Self {
        Self { errno, text: Some(text.into()) }
    }

    /// Whether it says that the thing is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        [libc::ENOENT, libc::ENODEV, libc::EADDRNOTAVAIL, libc::ESRCH, libc::ENXIO].contains(&self.errno)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = io::Error::from_raw_os_error(self.errno).to_string();
        let plain = plain.split(" (os error").next().unwrap_or(&plain);
        match &self.text {
            Some(text) => write!(f, "{text}: {plain}"),
            None => f.write_str(plain),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let text = error.raw_os_error().is_none().then(|| error.to_string());
        Self { errno: error.raw_os_error().unwrap_or(libc::EIO), text }
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::new(errno.raw_os_error())
    }
}

/// A step that failed, and how far the kernel had got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The index of the step.
    pub at: usize,
    /// Steps before this one may have been done, the failed one included; it and all later ones were not. A refused
    /// transaction of the firewall has done nothing, so this is its first step then.
    pub done: usize,
    /// Why.
    pub refusal: Refusal,
}

/// A subnet that the host knows its way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The subnet.
    pub subnet: IpNetwork,
    /// How, in words: `the host's route through eth0`.
    pub how: String,
}

/// How other hosts reach this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underlay {
    /// The address that they send to.
    pub address: IpAddr,
    /// The largest packet of the link that has it, in bytes.
    pub mtu: u32,
}

/// What the verbs need of a kernel.
pub trait Kernel {
    /// An open network namespace.
    type Netns;
    /// What the host has, as it was looked at once.
    type Sight;

    /// Opens a namespace file.
    ///
    /// # Errors
    /// When there is none, or it is something else.
    fn open(&self, path: &Path) -> Result<Self::Netns, Refusal>;

    /// Device and inode of a namespace: equal if and only if it is the same one.
    fn identity(&self, netns: &Self::Netns) -> (u64, u64);

    /// Runs the steps in order and stops at the first that fails.
    ///
    /// # Errors
    /// The step that failed.
    fn run(&mut self, steps: &[Step], netns: Option<&Self::Netns>) -> Result<(), Failed>;

    /// Runs steps as far as they are not done yet: what is there already, or gone already, is no error. For taking
    /// back and for mending, where nobody knows how far another got.
    ///
    /// Returns what could not be done, with the reason.
    fn settle(&mut self, plan: &Plan, netns: Option<&Self::Netns>) -> Vec<(Step, Refusal)>;

    /// For each resource what exists of it: nothing, itself, or the same thing in another state.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn find(
        &mut self,
        resources: &[Resource],
        netns: Option<&Self::Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal>;

    /// Looks at everything that could be rnet's on the host itself, so that many things can be compared with it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn look(&mut self) -> Result<Self::Sight, Refusal>;

    /// As `find`, with the host as it was looked at; the container is looked at now.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn find_in(
        &mut self,
        sight: &Self::Sight,
        resources: &[Resource],
        netns: Option<&Self::Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal>;

    /// What carries this instance's mark on the host and is none of the resources. `marks`: how the `ifalias` of the
    /// instance's own links begins.
    fn strays(&self, sight: &Self::Sight, resources: &[Resource], marks: &[String]) -> Vec<Stray>;

    /// Takes strays away; returns those that could not be, with the reason.
    fn remove_strays(&mut self, strays: &[Stray]) -> Vec<(Stray, Refusal)>;

    /// The subnets that the host has routes to, or resolves names through.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn subnets(&mut self) -> Result<Vec<Known>, Refusal>;

    /// The first of the ports on which a process of the host listens, and who it is if that can be known. A process
    /// that keeps the port for that very container does not count.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or the address is not one of the host's.
    fn listener(
        &mut self,
        address: IpAddr,
        ports: PortRange,
        protocol: Protocol,
        container: Option<&Id>,
    ) -> Result<Option<(u16, String)>, Refusal>;

    /// The ports from which one is chosen when the user names none (`net.ipv4.ip_local_port_range`).
    fn free_port_range(&mut self) -> PortRange;

    /// Whether rnet's tables are there under that name.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn has_tables(&mut self, table: &TableName) -> Result<bool, Refusal>;

    /// Whether another instance of rnet on this host made it forward packets of the family.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn guarded_by_others(&mut self, family: Family) -> Result<bool, Refusal>;

    /// How other hosts reach this one: by that address, or by the one that the default route leads out of.
    ///
    /// # Errors
    /// When the host has no such address, or the kernel cannot be asked.
    fn underlay(&mut self, address: Option<IpAddr>) -> Result<Underlay, Refusal>;

    /// What encrypts between hosts is gone: the kernel's own link is removed, that of a process went with it.
    ///
    /// # Errors
    /// When it cannot be removed, or does not go.
    fn end_cipher(&mut self) -> Result<(), Refusal>;

    /// From now on rnet's tables have this name.
    fn use_tables(&mut self, table: TableName);

    /// Lets programs in the named namespace see the files of that folder in /etc (`ip-netns(8)`). Whether they do: not
    /// where somebody gave them others.
    ///
    /// # Errors
    /// When the link cannot be made.
    fn lend_files(&mut self, name: &Name, folder: &Path) -> Result<bool, Refusal>;

    /// Takes that back, and nothing that is somebody else's.
    ///
    /// # Errors
    /// When the link cannot be removed.
    fn take_back_files(&mut self, name: &Name, folder: &Path) -> Result<(), Refusal>;

    /// Takes back what leads into that folder, and to nothing.
    fn take_back_dead_files(&mut self, folder: &Path);

    /// The host's own network namespace: device and inode.
    fn host_identity(&self) -> (u64, u64);

    /// Runs a plan; what was done of a plan that fails is undone.
    ///
    /// # Errors
    /// The step that failed and what could not be undone.
    fn apply(&mut self, plan: &Plan, netns: Option<&Self::Netns>) -> Result<(), Error> {
        let Err(failed) = self.run(&plan.steps, netns) else { return Ok(()) };
        let mut taken = Plan { steps: plan.steps[..failed.done.min(plan.steps.len())].to_vec() };
        if failed.refusal.errno == libc::EEXIST && failed.at < taken.steps.len() {
            // What exists already is somebody else's.
            taken.steps.remove(failed.at);
        }
        let back = taken.undo(taken.steps.len());
        let left_behind = self.settle(&back, netns);
        Err(Error::apply(&plan.steps[failed.at], failed.refusal, &left_behind))
    }
}

/// Any bytes as answers of the kernel, one of each kind that is read: for fuzz targets. The first two bytes are flags,
/// the rest is the body.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    let Some((flags, body)) = bytes.split_first_chunk() else { return };
    let flags = u16::from_ne_bytes(*flags);
    for kind in
        [2, 3, libc::RTM_NEWLINK, libc::RTM_DELLINK, libc::RTM_NEWADDR, libc::RTM_DELADDR, libc::RTM_NEWROUTE]
    {
        let answer = netlink::Answer { sequence: 1, kind, flags, body };
        let _ = netlink::refusal(&answer).map(|refusal| refusal.to_string());
        let _ = link::Link::read(&answer);
        let _ = address::read(&answer);
        let _ = route::read(&answer);
    }
    let _ = conntrack::reads(body);
    firewall::read_anything(body);
}
