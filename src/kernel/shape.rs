//! Messages that hold a link to a rate, and that lead what a link receives through another one (`tc`, without the
//! program). Decides nothing.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
        TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType,
        TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
    },
};
use rnetkit_drivers::InterfaceName;
use rtnetlink::LinkIfb;

use super::netlink::Answer;

/// Whatever queue there is becomes this one.
pub(super) const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// There must be none yet.
pub(super) const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// How long a packet may wait for its turn, in milliseconds: longer queues give no more bandwidth, only delay.
const LATENCY: u64 = 25;

/// `RTM_NEWQDISC` and `RTM_NEWTFILTER` of `linux/rtnetlink.h`.
const QUEUES: u16 = 36;
const FILTERS: u16 = 44;
/// `struct tcmsg`: its bytes, and where index, handle and parent stand.
const HEADER: usize = 20;
const INDEX: usize = 4;
const PARENT: usize = 12;

/// An intermediate functional block, down.
pub(super) fn create_ifb(name: &InterfaceName, group: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(LinkIfb::new(name.as_str()).link_group(group).build())
}

/// A token bucket as the link's own queue.
pub(super) fn set_rate(index: u32, rate: u64, burst: u32) -> RouteNetlinkMessage {
    /// `TCA_TBF_*` of `linux/pkt_sched.h`.
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    let bytes = rate / 8;
    let mut parameters = Vec::new();
    // `struct tc_tbf_qopt`: rate, peak rate (`struct tc_ratespec`), limit, buffer, mtu.
    parameters.extend(ratespec(u32::try_from(bytes).unwrap_or(u32::MAX)));
    parameters.extend(ratespec(0));
    for number in [limit(rate, burst), 0, 0] {
        parameters.extend(number.to_ne_bytes());
    }
    let mut options = vec![
        TcOption::Other(DefaultNla::new(PARAMETERS, parameters)),
        TcOption::Other(DefaultNla::new(BURST, burst.to_ne_bytes().to_vec())),
    ];
    if bytes > u64::from(u32::MAX) {
        options.push(TcOption::Other(DefaultNla::new(RATE64, bytes.to_ne_bytes().to_vec())));
    }
    RouteNetlinkMessage::NewQueueDiscipline(queue(index, TcHandle::ROOT, "tbf", options))
}

/// `struct tc_ratespec` for packets of Ethernet (`TC_LINKLAYER_ETHERNET`): the rate in bytes per second.
fn ratespec(rate: u32) -> [u8; 12] {
    const ETHERNET: u8 = 1;
    let mut bytes = [0; 12];
    bytes[1] = if rate == 0 { 0 } else { ETHERNET };
    bytes[8..].copy_from_slice(&rate.to_ne_bytes());
    bytes
}

/// How many bytes wait at most: the burst, and what passes while a packet waits as long as it may.
fn limit(rate: u64, burst: u32) -> u32 {
    let waiting = rate / 8 * LATENCY / 1000;
    u32::try_from(waiting.saturating_add(u64::from(burst))).unwrap_or(u32::MAX)
}

fn queue(index: u32, parent: TcHandle, kind: &str, options: Vec<TcOption>) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent;
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    if !options.is_empty() {
        message.attributes.push(TcAttribute::Options(options));
    }
    message
}

/// The link's own queue is again what it was without ours.
pub(super) fn delete_rate(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelQueueDiscipline(queue(index, TcHandle::ROOT, "tbf", Vec::new()))
}

/// The place where filters meet what a link receives.
pub(super) fn add_ingress(index: u32) -> RouteNetlinkMessage {
    let mut message = queue(index, TcHandle::INGRESS, "ingress", Vec::new());
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    RouteNetlinkMessage::NewQueueDiscipline(message)
}

/// Takes that place away, and the filters in it.
pub(super) fn delete_ingress(index: u32) -> RouteNetlinkMessage {
    let mut message = queue(index, TcHandle::INGRESS, "ingress", Vec::new());
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    RouteNetlinkMessage::DelQueueDiscipline(message)
}

/// Leads all that the link receives to where another one sends. With `u32`, which more kernels have than `matchall`.
pub(super) fn redirect(index: u32, through: u32) -> RouteNetlinkMessage {
    /// `ETH_P_ALL` of `linux/if_ether.h`.
    const EVERYTHING: u16 = 3;
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = through;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let options = vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ];
    let parent = TcHandle { major: u16::MAX, minor: 0 };
    let mut message = queue(index, parent, TcFilterU32::KIND, options);
    message.header.info = u32::from(TcHandle { major: 1, minor: EVERYTHING.to_be() });
    RouteNetlinkMessage::NewTrafficFilter(message)
}

/// Asks for all queues.
pub(super) fn list() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default())
}

/// Asks for the filters that meet what a link receives.
pub(super) fn list_filters(index: u32) -> RouteNetlinkMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle { major: u16::MAX, minor: 0 };
    RouteNetlinkMessage::GetTrafficFilter(message)
}

/// A token bucket as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The link whose queue it is.
    pub(super) link: u32,
    /// Bytes per second.
    rate: u64,
    /// Bytes that may wait.
    limit: u32,
}

impl Bucket {
    fn read(link: u32, options: &[u8]) -> Option<Self> {
        /// `TCA_TBF_PARMS` and `TCA_TBF_RATE64`; rate and limit in `struct tc_tbf_qopt`.
        const PARAMETERS: u16 = 1;
        const RATE64: u16 = 4;
        const RATE: usize = 8;
        const LIMIT: usize = 24;
        let parameters = value(options, PARAMETERS)?;
        let long =
            value(options, RATE64).and_then(|rate| rate.first_chunk().copied().map(u64::from_ne_bytes));
        let rate = long.unwrap_or(u64::from(word(parameters.get(RATE..)?)?));
        Some(Self { link, rate, limit: word(parameters.get(LIMIT..)?)? })
    }

    /// Bits per second.
    pub(super) fn bits(&self) -> u64 {
        self.rate.saturating_mul(8)
    }

    /// Whether it is what was asked for.
    pub(super) fn is(&self, rate: u64, burst: u32) -> bool {
        (self.rate, self.limit) == (rate / 8, limit(rate, burst))
    }
}

/// A queue of a link, as far as rnet makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// A token bucket at the link's root.
    Bucket(Bucket),
    /// The place where filters meet what the link receives.
    Ingress {
        /// The link.
        link: u32,
    },
}

impl Queue {
    /// Reads an answer.
    pub(super) fn read(answer: &Answer<'_>) -> Option<Self> {
        /// `TCA_KIND` and `TCA_OPTIONS` of `linux/rtnetlink.h`.
        const KIND: u16 = 1;
        const OPTIONS: u16 = 2;
        let (header, attributes) = answer.body.split_at_checked(HEADER)?;
        if answer.kind != QUEUES {
            return None;
        }
        let link = word(&header[INDEX..])?;
        let parent = TcHandle::from(word(&header[PARENT..])?);
        match value(attributes, KIND)? {
            b"tbf\0" if parent == TcHandle::ROOT => {
                Bucket::read(link, value(attributes, OPTIONS)?).map(Self::Bucket)
            }
            b"ingress\0" if parent == TcHandle::INGRESS => Some(Self::Ingress { link }),
            _ => None,
        }
    }
}

/// Where a filter of ours leads to, by index.
pub(super) fn redirected_to(answer: &Answer<'_>) -> Option<u32> {
    if answer.kind != FILTERS {
        return None;
    }
    let Some(RouteNetlinkMessage::NewTrafficFilter(message)) = super::netlink::parse(answer) else {
        return None;
    };
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.flatten().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions.flatten().flat_map(|action| &action.attributes);
    let parameters = attributes.filter_map(|attribute| match attribute {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    parameters.flatten().find_map(|option| match option {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    })
}

fn value(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let Some(head) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let found = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let body = rest.get(4..length)?;
        if found == kind {
            return Some(body);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}
