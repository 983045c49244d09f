//! rnet's part of the host's firewall: two tables of its own, `inet` and `bridge`, in nf_tables over netlink.
//!
//! The ruleset has constant size (`skeleton.rs`); networks, containers and ports are elements of sets
//! (`sets.rs`, `elements.rs`). A change is one transaction; no program is run and no ruleset listed.

pub(super) mod balance;
mod contents;
mod elements;
mod foreign;
mod limits;
mod rule;
mod sets;
mod skeleton;
mod wire;

use std::{fmt, str::FromStr};

pub use contents::StrayElement;
pub(super) use contents::{Contents, converge, remove_strays};
use elements::Element;
pub(super) use foreign::foreign_chains;
pub use foreign::{ForeignChain, Manager};
pub(super) use limits::Limits;
use rnetkit_drivers::{Family, Invalid, Member, Publication};
use serde::{Deserialize, Serialize};
pub(super) use skeleton::Scope;
use wire::{Attributes, BRIDGE, CREATE, EXCL, INET, message};
pub(super) use wire::{Batch, Nft, Outcome, Rejected};

use super::Refusal;

/// The name of rnet's two tables: `rnet`, or another where an instance beside the first needs its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName(String);

impl TableName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TableName {
    fn default() -> Self {
        Self("rnet".to_owned())
    }
}

impl FromStr for TableName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain || !text.starts_with("rnet") || text.len() > 64 {
            return Err(Invalid::new("table name", text, "it must be rnet, letters, digits and '_'"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TableName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many elements go into one message: its length has 16 bits.
const ELEMENTS_A_MESSAGE: usize = 256;

/// Puts the elements of a member into a batch.
pub(super) fn add_member(batch: &mut Batch, table: &TableName, member: &Member, owner: usize) {
    put(batch, table, &elements::of_member(member), true, owner);
}

/// Takes the elements of a member away.
pub(super) fn remove_member(batch: &mut Batch, table: &TableName, member: &Member, owner: usize) {
    put(batch, table, &elements::of_member(member), false, owner);
}

/// Puts the elements of published ports into a batch.
pub(super) fn publish(batch: &mut Batch, table: &TableName, publication: &Publication, owner: usize) {
    put(batch, table, &elements::of_publication(publication), true, owner);
}

/// Takes the elements of published ports away.
pub(super) fn unpublish(batch: &mut Batch, table: &TableName, publication: &Publication, owner: usize) {
    put(batch, table, &elements::of_publication(publication), false, owner);
}

/// The elements of a member one by one, each as a transaction of its own.
pub(super) fn member_parts(table: &TableName, member: &Member, make: bool) -> Vec<Batch> {
    parts(table, &elements::of_member(member), make)
}

/// The elements of published ports one by one, each as a transaction of its own.
pub(super) fn publication_parts(table: &TableName, publication: &Publication, make: bool) -> Vec<Batch> {
    parts(table, &elements::of_publication(publication), make)
}

fn parts(table: &TableName, list: &[Element], make: bool) -> Vec<Batch> {
    let part = |element: &Element| {
        let mut batch = Batch::default();
        put(&mut batch, table, std::slice::from_ref(element), make, 0);
        batch
    };
    list.iter().map(part).collect()
}

/// Puts the limits of a network into a batch.
pub(super) fn limit(batch: &mut Batch, table: &TableName, limits: &Limits<'_>, owner: usize) {
    batch.append(limits.create(table.as_str(), owner));
}

/// Takes the limits of a network away.
pub(super) fn unlimit(batch: &mut Batch, table: &TableName, limits: &Limits<'_>, owner: usize) {
    limits.parts(table.as_str(), owner).into_iter().for_each(|part| batch.append(part));
}

/// What takes the limits of a network away, part by part, each as a transaction of its own.
pub(super) fn limit_parts(table: &TableName, limits: &Limits<'_>) -> Vec<Batch> {
    limits.parts(table.as_str(), 0)
}

/// Whether the limits of a network are there.
pub(super) fn is_limited(nft: &mut Nft, table: &TableName, limits: &Limits<'_>) -> Result<bool, Refusal> {
    let (chain, count, element) = limits.expected();
    let rules = nft.list(message::GET_RULE, INET)?;
    let found = rules.iter().filter(|body| names(body) == [table.as_str(), &chain]).count();
    Ok(found == count && has(nft, table, &[element])?)
}

/// The transaction that makes the fixed part.
pub(super) fn create(table: &TableName, scope: Scope, owner: usize) -> Batch {
    skeleton::create(table, scope, owner)
}

/// The transaction that takes everything away.
pub(super) fn delete(table: &TableName, scope: Scope, owner: usize) -> Batch {
    skeleton::delete(table, scope, owner)
}

/// Elements of the same set go into one message.
fn put(batch: &mut Batch, table: &TableName, list: &[Element], make: bool, owner: usize) {
    let mut sets: Vec<(u8, &'static str)> = Vec::new();
    for element in list {
        if !sets.contains(&(element.family, element.set)) {
            sets.push((element.family, element.set));
        }
    }
    let (kind, flags) =
        if make { (message::NEW_ELEMENT, CREATE | EXCL) } else { (message::DELETE_ELEMENT, 0) };
    for (family, set) in sets {
        let same: Vec<&Element> = list.iter().filter(|e| (e.family, e.set) == (family, set)).collect();
        for some in same.chunks(ELEMENTS_A_MESSAGE) {
            let mut body = Attributes::default();
            body.text(1, table.as_str()).text(2, set);
            body.nest(3, |elements| some.iter().for_each(|element| element.write(elements, make)));
            batch.push(kind, flags, family, body, owner);
        }
    }
}

/// Whether one of the tables is there.
pub(super) fn exists(nft: &mut Nft, table: &TableName) -> Result<bool, Refusal> {
    for family in [INET, BRIDGE] {
        let mut body = Attributes::default();
        body.text(1, table.as_str());
        if nft.get(message::GET_TABLE, family, &body)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the tables are there, with every chain and as many rules in each as they must have.
pub(super) fn is_whole(nft: &mut Nft, table: &TableName, scope: Scope) -> Result<bool, Refusal> {
    let expected = skeleton::rules(scope);
    for family in scope.families().iter().copied() {
        let mut found: Vec<String> = Vec::new();
        for body in nft.list(message::GET_RULE, family)? {
            let [of, chain] = names(&body);
            if of == table.as_str() && !limits::is_chain(&chain) {
                found.push(chain);
            }
        }
        let mut wanted: Vec<&str> =
            expected.iter().filter(|rule| rule.0 == family).map(|rule| rule.1).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        if found != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The value of an attribute.
pub(super) fn value(body: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = netlink_packet_core::NlasIterator::new(body).flatten();
    attributes.find(|nla| nla.kind() == kind).map(|nla| nla.value().to_vec())
}

/// A number in network order.
pub(super) fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// A text without its closing NUL.
pub(super) fn text(body: &[u8], kind: u16) -> String {
    let text =
        value(body, kind).map(|value| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default();
    text.trim_end_matches('\0').to_owned()
}

/// The names of table and chain in a rule (`NFTA_RULE_TABLE`, `NFTA_RULE_CHAIN`).
fn names(body: &[u8]) -> [String; 2] {
    [text(body, 1), text(body, 2)]
}

/// Whether another instance of rnet, with tables of another name, guards the family: then forwarding is its work too.
pub(super) fn guarded_by_others(nft: &mut Nft, table: &TableName, family: Family) -> Result<bool, Refusal> {
    const TABLE_NAME: u16 = 1;
    for body in nft.list(message::GET_TABLE, INET)? {
        let Ok(other) = text(&body, TABLE_NAME).parse::<TableName>() else { continue };
        if other != *table && has_member(nft, &other, &Member::Guard { family })? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether nothing gets to that port in clear: each of the rules is there, in the chain of its own, and so is the port.
pub(super) fn is_sealed(nft: &mut Nft, table: &TableName, port: u16) -> Result<bool, Refusal> {
    const NOTE: u16 = 7;
    let mut missing = skeleton::SEAL.to_vec();
    for body in nft.list(message::GET_RULE, INET)? {
        let [of, chain] = names(&body);
        if of == table.as_str() {
            // After the note's own head of two bytes.
            let note = value(&body, NOTE).unwrap_or_default();
            let note = String::from_utf8_lossy(note.get(2..).unwrap_or_default()).into_owned();
            missing.retain(|rule| *rule != (chain.as_str(), note.trim_end_matches('\0')));
        }
    }
    Ok(missing.is_empty() && has_member(nft, table, &Member::Sealed { port })?)
}

/// Whether a member has all its elements.
pub(super) fn has_member(nft: &mut Nft, table: &TableName, member: &Member) -> Result<bool, Refusal> {
    has(nft, table, &elements::of_member(member))
}

/// Whether published ports have all their elements.
pub(super) fn is_published(
    nft: &mut Nft,
    table: &TableName,
    publication: &Publication,
) -> Result<bool, Refusal> {
    has(nft, table, &elements::of_publication(publication))
}

fn has(nft: &mut Nft, table: &TableName, list: &[Element]) -> Result<bool, Refusal> {
    for element in list {
        let mut body = Attributes::default();
        body.text(1, table.as_str()).text(2, element.set);
        body.nest(3, |elements| element.write(elements, false));
        let Some(found) = nft.get(message::GET_ELEMENT, element.family, &body)? else { return Ok(false) };
        let right =
            element.value.as_ref().is_none_or(|value| found.windows(value.len()).any(|part| part == value));
        if !right {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Any bytes as what nf_tables says, for fuzz targets.
#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(body: &[u8]) {
    let _ = names(body);
    let _ = value(body, 5).and_then(|value| word(&value));
    contents::read_anything(body);
}
