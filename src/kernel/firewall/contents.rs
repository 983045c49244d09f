//! What rnet's sets hold, read once and whole: for checks and repairs of many things at once, and for finding what
//! no record names. Never on the way of a connect.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
    net::IpAddr,
};

use netlink_packet_core::NlasIterator;
use rnetkit_drivers::{MacAddress, Member, Publication, Resource};

use super::{
    TableName,
    elements::{self, Element},
    sets::{self, Kept, Set, Type},
    wire::{Attributes, BRIDGE, Batch, Nft, message},
};
use crate::kernel::Refusal;

/// `NFTA_SET_ELEM_LIST_ELEMENTS` and, within, `NFTA_LIST_ELEM`.
const ELEMENTS: u16 = 3;
/// `NFTA_SET_ELEM_KEY`, `..._DATA`, `..._KEY_END`, and within each `NFTA_DATA_VALUE`.
const KEY: u16 = 1;
const DATA: u16 = 2;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;

/// The elements of every set, by set and key.
#[derive(Debug, Default)]
pub(in super::super) struct Contents {
    whole: bool,
    elements: HashMap<(u8, &'static str), HashMap<Vec<u8>, Element>>,
}

/// An element of rnet's own sets that no record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayElement(Element);

impl Contents {
    /// Reads them all. Where the tables are not whole there is nothing to read: they are made anew.
    pub(in super::super) fn read(nft: &mut Nft, table: &TableName) -> Result<Self, Refusal> {
        let mut contents =
            Self { whole: super::is_whole(nft, table, super::Scope::Host)?, elements: HashMap::new() };
        if contents.whole {
            for set in remembered() {
                contents.elements.insert((set.family, set.name.as_ref()), read_set(nft, table, set)?);
            }
        }
        Ok(contents)
    }

    /// The tables are there, with every chain and rule.
    pub(in super::super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(in super::super) fn has_member(&self, member: &Member) -> bool {
        elements::of_member(member).iter().all(|element| self.has(element))
    }

    pub(in super::super) fn has_published(&self, publication: &Publication) -> bool {
        elements::of_publication(publication).iter().all(|element| self.has(element))
    }

    fn has(&self, element: &Element) -> bool {
        self.under_key(element) == Some(element)
    }

    /// What is there under the same key, perhaps with another end or value.
    fn under_key(&self, element: &Element) -> Option<&Element> {
        self.elements.get(&(element.family, element.set))?.get(&element.key)
    }

    /// Whether a link has a place in the sets: then it is of the instance of rnet that these tables belong to.
    pub(in super::super) fn knows_link(&self, name: &str) -> bool {
        let key = elements::interface_key(name);
        [(super::INET, "bridges"), (BRIDGE, "ports")]
            .iter()
            .any(|set| self.elements.get(set).is_some_and(|elements| elements.contains_key(&key)))
    }

    /// The elements that none of these resources stands for.
    pub(in super::super) fn strays(&self, wanted: &[Resource]) -> Vec<StrayElement> {
        let known: HashSet<Element> = wanted.iter().flat_map(of).collect();
        let shared: Vec<&Publication> = wanted.iter().filter_map(shared).collect();
        let is_known = |element: &&Element| {
            known.contains(*element) || shared.iter().any(|port| elements::is_of_shared(element, port))
        };
        let unknown = self.elements.values().flat_map(HashMap::values).filter(|element| !is_known(element));
        let mut list: Vec<StrayElement> = unknown.cloned().map(StrayElement).collect();
        list.sort_by_cached_key(ToString::to_string);
        list
    }
}

/// The elements that a resource stands for.
fn of(resource: &Resource) -> Vec<Element> {
    match resource {
        Resource::Member(member) => elements::of_member(member),
        Resource::Published(publication) => elements::of_publication(publication),
        _ => Vec::new(),
    }
}

/// A port that several containers share: which of them its slots lead to is looked at elsewhere.
fn shared(resource: &Resource) -> Option<&Publication> {
    match resource {
        Resource::Balanced(port) => port.port(),
        _ => None,
    }
}

/// One transaction after which the elements of `wanted` are there as they must be, and those of `unwanted` are not.
/// Where another program changes the sets meanwhile, they are read again.
pub(in super::super) fn converge(
    nft: &mut Nft,
    table: &TableName,
    wanted: &[&Resource],
    unwanted: &[&Resource],
) -> Result<(), Refusal> {
    const TRIES: usize = 10;
    let wanted: Vec<Element> = wanted.iter().flat_map(|resource| of(resource)).collect();
    let unwanted: Vec<Element> = unwanted.iter().flat_map(|resource| of(resource)).collect();
    let mut last = Ok(());
    for _ in 0..TRIES {
        let contents = Contents::read(nft, table)?;
        let mut gone: Vec<Element> =
            unwanted.iter().filter_map(|element| contents.under_key(element)).cloned().collect();
        let missing: Vec<Element> = wanted.iter().filter(|element| !contents.has(element)).cloned().collect();
        gone.extend(missing.iter().filter_map(|element| contents.under_key(element)).cloned());
        let mut batch = Batch::default();
        super::put(&mut batch, table, &gone, false, 0);
        super::put(&mut batch, table, &missing, true, 0);
        if batch.is_empty() {
            return Ok(());
        }
        match nft.run(&batch) {
            Ok(()) => return Ok(()),
            Err(rejected) if raced(&rejected.refusal) => last = Err(rejected.refusal),
            Err(rejected) => return Err(rejected.refusal),
        }
    }
    last
}

fn raced(refusal: &Refusal) -> bool {
    refusal.is_missing() || refusal.errno == libc::EEXIST
}

/// Takes elements away that no record names, in one transaction; one that is gone already is no error.
pub(in super::super) fn remove_strays(
    nft: &mut Nft,
    table: &TableName,
    strays: &[StrayElement],
) -> Result<(), Refusal> {
    const TRIES: usize = 10;
    let mut left: Vec<Element> = strays.iter().map(|stray| stray.0.clone()).collect();
    for _ in 0..TRIES {
        let mut batch = Batch::default();
        super::put(&mut batch, table, &left, false, 0);
        if batch.is_empty() {
            return Ok(());
        }
        match nft.run(&batch) {
            Ok(()) => return Ok(()),
            Err(rejected) if !rejected.refusal.is_missing() => return Err(rejected.refusal),
            Err(_) => {}
        }
        let contents = Contents::read(nft, table)?;
        left.retain(|element| contents.has(element));
    }
    Err(Refusal::because(libc::EAGAIN, "the sets changed each time they were read"))
}

/// The sets whose elements members and published ports stand for. Others fill and empty themselves, or belong to the
/// limits of a network, which are looked at as a whole.
fn remembered() -> impl Iterator<Item = &'static Set> {
    let remembered = |set: &&Set| match set.kept {
        Kept::Exactly | Kept::InRanges => set.value != [Type::Verdict],
        Kept::ForAWhile | Kept::WhileConnected => false,
    };
    sets::ALL.iter().filter(remembered)
}

/// Any bytes as the elements of every set, and their texts, for fuzz targets.
#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(body: &[u8]) {
    for set in remembered() {
        let _ = read_element(set, body).map(|element| StrayElement(element).to_string());
    }
}

fn read_set(
    nft: &mut Nft,
    table: &TableName,
    set: &'static Set,
) -> Result<HashMap<Vec<u8>, Element>, Refusal> {
    let mut body = Attributes::default();
    body.text(1, table.as_str()).text(2, &set.name);
    let mut found = HashMap::new();
    for message in nft.list_of(message::GET_ELEMENT, set.family, &body)? {
        let lists = NlasIterator::new(&message).flatten().filter(|nla| nla.kind() == ELEMENTS);
        for list in lists {
            let read =
                NlasIterator::new(list.value()).flatten().filter_map(|nla| read_element(set, nla.value()));
            found.extend(read.map(|element| (element.key.clone(), element)));
        }
    }
    Ok(found)
}

fn read_element(set: &'static Set, body: &[u8]) -> Option<Element> {
    let part = |kind| super::value(&super::value(body, kind)?, VALUE);
    Some(Element {
        family: set.family,
        set: set.name.as_ref(),
        jump: None,
        key: part(KEY)?,
        key_end: part(KEY_END),
        value: part(DATA),
    })
}

impl fmt::Display for StrayElement {
    /// As `nft` writes it: `publish4_any { tcp . 8080 : 172.18.0.2 . 80 }`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let element = &self.0;
        let set =
            sets::ALL.iter().find(|set| (set.family, set.name.as_ref()) == (element.family, element.set));
        let (key, value) = set.map_or((&[][..], &[][..]), |set| (set.key, set.value));
        write!(f, "element of set {} {{ {}", element.set, text_of(key, &element.key))?;
        if let Some(end) = element.key_end.as_ref().filter(|end| **end != element.key) {
            write!(f, " to {}", text_of(key, end))?;
        }
        if let Some(to) = &element.value {
            write!(f, " : {}", text_of(value, to))?;
        }
        f.write_str(" }")
    }
}

fn text_of(types: &[Type], bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    for (number, kind) in types.iter().enumerate() {
        let (own, after) = rest.split_at(kind.length().min(rest.len() as u32) as usize);
        rest = after.get((kind.padded() - kind.length()) as usize..).unwrap_or_default();
        let separator = if number == 0 { "" } else { " . " };
        let _ = write!(text, "{separator}{}", part_text(*kind, own));
    }
    text
}

fn part_text(kind: Type, bytes: &[u8]) -> String {
    let number = || bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)).to_string();
    match kind {
        Type::Ip4 => <[u8; 4]>::try_from(bytes).map_or_else(|_| number(), |b| IpAddr::from(b).to_string()),
        Type::Ip6 => <[u8; 16]>::try_from(bytes).map_or_else(|_| number(), |b| IpAddr::from(b).to_string()),
        Type::Mac => <[u8; 6]>::try_from(bytes).map_or_else(|_| number(), |b| MacAddress(b).to_string()),
        Type::Interface => {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            crate::error::shown(&String::from_utf8_lossy(name))
        }
        Type::Protocol => match bytes {
            [6] => "tcp".to_owned(),
            [17] => "udp".to_owned(),
            [132] => "sctp".to_owned(),
            _ => number(),
        },
        Type::Nfproto | Type::Port | Type::Mark | Type::Verdict | Type::Vni => number(),
    }
}
