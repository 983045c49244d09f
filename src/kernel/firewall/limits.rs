//! Limits of a network: one chain and its sets, which packets themselves fill. The only part of the ruleset that
//! grows with networks, and only with those that have limits.

use std::borrow::Cow;

use rnetkit_drivers::{InterfaceName, Pace};

use super::{
    elements::Element,
    rule::{Meta, R0, Rule, field},
    sets::{Kept, Set, Type},
    skeleton::{self, Words},
    wire::{APPEND, Attributes, Batch, CREATE, EXCL, INET, message},
};

/// What a network limits.
#[derive(Clone, Copy)]
pub(in super::super) struct Limits<'a> {
    /// The bridge.
    pub(in super::super) link: &'a InterfaceName,
    /// New connections of one address to one port, in a time.
    pub(in super::super) rate: Option<Pace>,
    /// Its connections at the same time.
    pub(in super::super) most: Option<u32>,
}

/// What chains of limits are called, so that they are told from the fixed ones.
const PREFIX: &str = "limit_";

/// Whether a chain is one of these.
pub(super) fn is_chain(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl Limits<'_> {
    fn chain(&self) -> String {
        format!("{PREFIX}{}", self.link)
    }

    fn set(&self, what: &str, ipv6: bool) -> String {
        format!("{what}{}_{}", if ipv6 { 6 } else { 4 }, self.link)
    }

    fn sets(&self) -> Vec<Set> {
        let mut list = Vec::new();
        for ipv6 in [false, true] {
            let key: &[Type] = if ipv6 {
                &[Type::Ip6, Type::Ip6, Type::Protocol, Type::Port]
            } else {
                &[Type::Ip4, Type::Ip4, Type::Protocol, Type::Port]
            };
            let set = |what, kept| {
                let name = Cow::Owned(self.set(what, ipv6));
                Set { family: INET, name, key, value: &[], kept }
            };
            list.extend(self.rate.map(|_| set("rate", Kept::ForAWhile)));
            list.extend(self.most.map(|_| set("open", Kept::WhileConnected)));
        }
        list
    }

    /// Who opens too many is not answered. An IPv6 address counts as its /64: whoever has one has all of it.
    fn rules(&self) -> Vec<Rule> {
        /// How long an address is remembered that opens none: no shorter than what is counted.
        const SHORTEST: u64 = 60;
        let mut list = Vec::new();
        for ipv6 in [false, true] {
            let words = Words::of(ipv6);
            let n = words.registers;
            let visitor = |comment| {
                let rule = Rule::new(comment).family(ipv6).load(words.source, R0);
                let rule = if ipv6 { rule.mask(R0, &NETWORK6) } else { rule };
                let rule = rule.load(words.destination, R0 + n).meta(Meta::L4proto, R0 + 2 * n);
                rule.load(field::DESTINATION_PORT, R0 + 2 * n + 1)
            };
            if let Some(pace) = self.rate {
                let lasts = u64::from(pace.unit.seconds()).max(SHORTEST) * 1000;
                let rule = visitor("new connections of one address to one port");
                list.push(rule.more_often(&self.set("rate", ipv6), R0, pace, lasts).drop());
            }
            if let Some(most) = self.most {
                let rule = visitor("open connections of one address to one port");
                list.push(rule.more_connections(&self.set("open", ipv6), R0, most).drop());
            }
        }
        list
    }

    /// Into the chain for what goes out through the bridge.
    fn element(&self) -> Element {
        Element::jump("limits", self.link, self.chain())
    }

    /// The messages that make all of it, in order.
    pub(super) fn create(&self, table: &str, owner: usize) -> Batch {
        let mut batch = Batch::default();
        for (id, set) in (1000..).zip(self.sets()) {
            batch.push(message::NEW_SET, CREATE | EXCL, INET, set.message(table, id), owner);
        }
        let chain = self.chain();
        batch.push(message::NEW_CHAIN, CREATE | EXCL, INET, skeleton::plain(&chain).message(table), owner);
        for rule in self.rules() {
            batch.push(message::NEW_RULE, CREATE | APPEND, INET, rule.message(table, &chain), owner);
        }
        let mut body = Attributes::default();
        let element = self.element();
        body.text(1, table).text(2, element.set).nest(3, |list| element.write(list, true));
        batch.push(message::NEW_ELEMENT, CREATE | EXCL, INET, body, owner);
        batch
    }

    /// What unmakes it, part by part in order.
    pub(super) fn parts(&self, table: &str, owner: usize) -> Vec<Batch> {
        let chain = self.chain();
        let mut parts = Vec::new();
        let mut part = |kind, fill: &dyn Fn(&mut Attributes)| {
            let (mut batch, mut body) = (Batch::default(), Attributes::default());
            body.text(1, table);
            fill(&mut body);
            batch.push(kind, 0, INET, body, owner);
            parts.push(batch);
        };
        let element = self.element();
        part(message::DELETE_ELEMENT, &|body| {
            body.text(2, element.set).nest(3, |list| element.write(list, false));
        });
        part(message::DELETE_RULE, &|body| {
            body.text(2, &chain);
        });
        part(message::DELETE_CHAIN, &|body| {
            body.text(3, &chain);
        });
        for set in self.sets() {
            part(message::DELETE_SET, &|body| {
                body.text(2, &set.name);
            });
        }
        parts
    }

    /// The chain's name, how many rules it must have, and the element that leads there.
    pub(super) fn expected(&self) -> (String, usize, Element) {
        (self.chain(), self.rules().len(), self.element())
    }
}

/// The part of an IPv6 address that names its network.
const NETWORK6: [u8; 16] = [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
