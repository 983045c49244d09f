//! Which of the kernel's features that rnet could use are there: each is tried, in a network namespace that nobody else
//! sees and that is gone afterwards. Where features are modules, trying one loads it, as using it would.

use std::thread;

use landlock::{AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{RouteNetlinkMessage, link::InfoKind, link::MacVlanMode};
use rtnetlink::{LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::{
    Refusal,
    firewall::{self, Nft, Scope, TableName},
    netlink::{Requests, Route, request},
};

/// Something that a kernel has or has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Nothing works without it.
    pub is_needed: bool,
    /// What is not to be had without it.
    pub cost: &'static str,
    /// How a kernel gets it.
    pub option: &'static str,
    /// Why it is not there; `None` where it is.
    pub lacking: Option<String>,
}

/// A feature, and how it is tried.
struct Trial {
    name: &'static str,
    is_needed: bool,
    cost: &'static str,
    option: &'static str,
    run: fn() -> Result<(), Refusal>,
}

const TRIALS: [Trial; 11] = [
    Trial {
        name: "bridge",
        is_needed: true,
        cost: "no network of driver bridge or overlay can be made",
        option: "CONFIG_BRIDGE",
        run: || make(link(InfoKind::Bridge)),
    },
    Trial {
        name: "veth",
        is_needed: true,
        cost: "no container can be connected",
        option: "CONFIG_VETH",
        run: || make(link(InfoKind::Veth)),
    },
    Trial {
        name: "nf_tables with NAT and fib",
        is_needed: true,
        cost: "no network of driver bridge can be made",
        option: "CONFIG_NF_TABLES_INET, NF_TABLES_BRIDGE, NFT_NAT, NFT_MASQ, NFT_FIB_INET, NFT_CT, NFT_SOCKET (with `socket wildcard`: Linux 5.12)",
        run: whole_ruleset,
    },
    Trial {
        name: "vxlan",
        is_needed: false,
        cost: "no network can span hosts (driver overlay)",
        option: "CONFIG_VXLAN",
        run: || make(RouteNetlinkMessage::NewLink(LinkVxlan::new("probe", 1).build())),
    },
    Trial {
        name: "macvlan",
        is_needed: false,
        cost: "no network of driver macvlan can be made",
        option: "CONFIG_MACVLAN",
        run: || {
            make(link(InfoKind::Veth))?;
            make(RouteNetlinkMessage::NewLink(LinkMacVlan::new("over", 2, MacVlanMode::Bridge).build()))
        },
    },
    Trial {
        name: "ipvlan",
        is_needed: false,
        cost: "no network of driver ipvlan can be made",
        option: "CONFIG_IPVLAN",
        run: || {
            make(link(InfoKind::Veth))?;
            let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::IpVlan);
            make(RouteNetlinkMessage::NewLink(builder.name("over").link(2).build()))
        },
    },
    Trial {
        name: "802.1q",
        is_needed: false,
        cost: "no network of driver macvlan or ipvlan on a tagged VLAN can be made",
        option: "CONFIG_VLAN_8021Q",
        run: || {
            make(link(InfoKind::Veth))?;
            make(RouteNetlinkMessage::NewLink(rtnetlink::LinkVlan::new("over", 2, 7).build()))
        },
    },
    Trial {
        name: "ifb",
        is_needed: false,
        cost: "what a container sends cannot be limited (--driver-opt egress-rate)",
        option: "CONFIG_IFB",
        run: || make(link(InfoKind::Ifb)),
    },
    Trial {
        name: "wireguard or tun",
        is_needed: false,
        cost: "networks that span hosts cannot be encrypted",
        option: "CONFIG_WIREGUARD, or CONFIG_TUN and CONFIG_IPV6",
        run: || make(link(InfoKind::Wireguard)).or_else(|_| super::tun::probe()),
    },
    Trial {
        name: "landlock",
        is_needed: false,
        cost: "the part of the agent that answers names is not kept from files and ports that it does not need",
        option: "CONFIG_SECURITY_LANDLOCK and lsm=...,landlock (Linux 5.13)",
        run: landlock,
    },
    Trial {
        name: "seccomp",
        is_needed: false,
        cost: "the part of the agent that answers names is not kept from system calls that it does not need",
        option: "CONFIG_SECCOMP_FILTER",
        run: seccomp,
    },
];

/// Tries everything.
#[must_use]
pub fn probe() -> Vec<Feature> {
    TRIALS.iter().map(tried).collect()
}

/// Whether the kernel can encrypt between hosts by itself.
pub(crate) fn has_wireguard() -> bool {
    in_passing(|| make(link(InfoKind::Wireguard))).is_ok()
}

fn tried(trial: &'static Trial) -> Feature {
    let Trial { name, is_needed, cost, option, run } = *trial;
    let lacking = in_passing(run).err().map(|refusal| refusal.to_string());
    Feature { name, is_needed, cost, option, lacking }
}

/// In a namespace of its own, which ends with the thread that is in it.
fn in_passing(work: impl FnOnce() -> Result<(), Refusal> + Send + 'static) -> Result<(), Refusal> {
    let inside = || {
        // SAFETY: this thread alone changes its network namespace, and ends.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        work()
    };
    let lost = || Err(Refusal::because(libc::EAGAIN, "it could not be tried"));
    let begun = thread::Builder::new().spawn(inside);
    begun.map_or_else(|_| lost(), |thread| thread.join().unwrap_or_else(|_| lost()))
}

fn link(kind: InfoKind) -> RouteNetlinkMessage {
    let builder = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind);
    RouteNetlinkMessage::NewLink(builder.name("probe").build())
}

fn make(message: RouteNetlinkMessage) -> Result<(), Refusal> {
    let mut requests = Requests::default();
    requests.push(request(message), NLM_F_CREATE | NLM_F_EXCL);
    Route::open()?.run(requests, |_| ()).map_err(|(_, refusal)| refusal)
}

/// rnet's own ruleset, as it is made on a host.
fn whole_ruleset() -> Result<(), Refusal> {
    Nft::open()?
        .run(&firewall::create(&TableName::default(), Scope::Host, 0))
        .map_err(|rejected| rejected.refusal)
}

fn landlock() -> Result<(), Refusal> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let made = rules.handle_access(AccessFs::ReadFile).and_then(Ruleset::create);
    made.map(drop).map_err(|error| Refusal::because(libc::EOPNOTSUPP, error.to_string()))
}

/// For this thread alone, which ends: a filter that refuses one call that is never made.
fn seccomp() -> Result<(), Refusal> {
    let refused = |error: String| Refusal::because(libc::ENOSYS, error);
    let architecture = std::env::consts::ARCH.try_into();
    let architecture = architecture.map_err(|_| refused("not for this processor".to_owned()))?;
    let one = [(libc::SYS_acct, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(one, SeccompAction::Allow, refuse, architecture);
    let program: BpfProgram =
        filter.and_then(TryInto::try_into).map_err(|error| refused(error.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|error| refused(error.to_string()))
}
