//! Ports that several containers share, in the firewall's maps: each port has a fixed number of slots, and each slot
//! leads to one of the members. What is there is looked at first, so that as few slots as possible change hands.
//!
//! The caller sees to it that nobody else changes the same port meanwhile.

use std::collections::HashMap;

use netlink_packet_core::NlasIterator;
use rnetkit_drivers::{Balance, Balanced, Publication, service::SLOTS};

use super::{
    TableName,
    elements::{self, Element},
    put,
    wire::{Attributes, Batch, INET, Nft, message},
};
use crate::kernel::Refusal;

/// Makes the port lead to its members, whatever it leads to now.
pub(in super::super) fn set(
    nft: &mut Nft,
    table: &TableName,
    port: &Balanced,
) -> Result<(), super::Rejected> {
    change(nft, table, port, true)
}

/// Takes the port away.
pub(in super::super) fn unset(
    nft: &mut Nft,
    table: &TableName,
    port: &Balanced,
) -> Result<(), super::Rejected> {
    change(nft, table, port, false)
}

/// Whether the port leads to its members, each with its part, and to nobody else.
pub(in super::super) fn is_set(nft: &mut Nft, table: &TableName, port: &Balanced) -> Result<bool, Refusal> {
    let now = found(nft, table, port)?;
    Ok(same(&now, &wanted(port, &now)))
}

fn change(nft: &mut Nft, table: &TableName, port: &Balanced, make: bool) -> Result<(), super::Rejected> {
    let unseen = |refusal| super::Rejected { owner: 0, refusal, outcome: super::Outcome::Undone };
    let now = found(nft, table, port).map_err(unseen)?;
    let wanted = if make { wanted(port, &now) } else { Vec::new() };
    let right = |element: &&Element, list: &[Element]| !list.contains(element);
    let old: Vec<Element> = now.iter().filter(|element| right(element, &wanted)).cloned().collect();
    let new: Vec<Element> = wanted.iter().filter(|element| right(element, &now)).cloned().collect();
    let mut batch = Batch::default();
    put(&mut batch, table, &old, false, 0);
    put(&mut batch, table, &new, true, 0);
    if batch.is_empty() { Ok(()) } else { nft.run(&batch) }
}

fn same(a: &[Element], b: &[Element]) -> bool {
    a.len() == b.len() && a.iter().all(|element| b.contains(element))
}

/// The elements that must be: every slot, and the way of the host's own loopback, which leads to the first member.
/// There is no connection tracking on it, so nothing would keep the packets of a connection together.
fn wanted(port: &Balanced, now: &[Element]) -> Vec<Element> {
    let Some(first) = port.port() else { return Vec::new() };
    let mut list = Vec::with_capacity(SLOTS + 4);
    if !first.host.is_loopback() {
        let values: Vec<Vec<u8>> = port.members.iter().map(elements::target_of).collect();
        let slots = (0..SLOTS).map(|slot| elements::slot(first, number(first, slot)));
        let mut slots: Vec<Element> = slots.collect();
        let held: HashMap<&[u8], &Element> =
            now.iter().map(|element| (element.key.as_slice(), element)).collect();
        let holder = |slot: &Element| {
            let value = held.get(slot.key.as_slice()).filter(|held| held.set == slot.set)?.value.as_ref()?;
            values.iter().position(|other| other == value)
        };
        let now: Vec<Option<usize>> = slots.iter().map(holder).collect();
        for (slot, member) in slots.iter_mut().zip(port.slots(&now)) {
            slot.value = values.get(member).cloned();
        }
        list.extend(slots);
    }
    list.extend(elements::loopback(first, first.host_ports.first, first.target_ports.first));
    list
}

/// The number of a slot in the map: those by source come after those by chance.
fn number(port: &Publication, slot: usize) -> u32 {
    let by_source = port.service.as_ref().is_some_and(|share| share.balance == Balance::Source);
    let base = if by_source { SLOTS } else { 0 };
    u32::try_from(base + slot).unwrap_or(u32::MAX)
}

/// The elements of the port that are there.
fn found(nft: &mut Nft, table: &TableName, port: &Balanced) -> Result<Vec<Element>, Refusal> {
    let Some(first) = port.port() else { return Ok(Vec::new()) };
    let mut list = Vec::new();
    for set in elements::sets_of_shared(first) {
        let mut body = Attributes::default();
        body.text(1, table.as_str()).text(2, set);
        let answers = match nft.list_of(message::GET_ELEMENT, INET, &body) {
            Err(refusal) if refusal.is_missing() => continue,
            answers => answers?,
        };
        let elements = answers.iter().flat_map(|answer| read(answer, set));
        list.extend(elements.filter(|element| elements::is_of_shared(element, first)));
    }
    Ok(list)
}

/// The elements in an answer (`NFTA_SET_ELEM_LIST_ELEMENTS`): keys, and values that are data.
fn read(answer: &[u8], set: &'static str) -> Vec<Element> {
    let part = |body: &[u8], kind: u16| {
        NlasIterator::new(body).flatten().find(|nla| nla.kind() == kind).map(|nla| nla.value().to_vec())
    };
    let data = |element: &[u8], kind| part(&part(element, kind)?, 1);
    let elements = part(answer, 3).unwrap_or_default();
    let one = |element: &[u8]| {
        Some(Element { value: data(element, 2), ..Element::in_set(INET, set, data(element, 1)?) })
    };
    NlasIterator::new(&elements).flatten().filter_map(|nla| one(nla.value())).collect()
}
