//! Services: one host port that several containers share, and how connections are spread over them.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Invalid, Name},
    port::Publication,
};

/// By what the member for a new connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// By chance.
    Random,
    /// By the client's address: one client meets one member, as long as there are the same members.
    Source,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Source => "source",
        })
    }
}

/// A container's part in a service: `web`, `web,weight=3,balance=source`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Share {
    /// The service's name.
    pub name: Name,
    /// How many connections the container gets beside the others: twice the weight, twice as many. 1 to 100.
    pub weight: u8,
    /// The same for all members.
    pub balance: Balance,
}

impl FromStr for Share {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |part: &str, reason: &str| {
            let reason = if part == text { String::from(reason) } else { format!("\"{part}\": {reason}") };
            Invalid::new("service", text, reason)
        };
        let mut parts = text.split(',');
        let name = Name::parse("service", parts.next().unwrap_or_default())?;
        let mut share = Self { name, weight: 1, balance: Balance::Random };
        for part in parts {
            match part.split_once('=') {
                Some(("weight", number)) => {
                    let digits = number.bytes().all(|digit| digit.is_ascii_digit());
                    let weight = number.parse().ok().filter(|weight| digits && (1..=100).contains(weight));
                    share.weight =
                        weight.ok_or_else(|| refuse(part, "a weight is a number from 1 to 100"))?;
                }
                Some(("balance", "random")) => share.balance = Balance::Random,
                Some(("balance", "source")) => share.balance = Balance::Source,
                Some(("balance", _)) => return Err(refuse(part, "the balance is random or source")),
                _ => return Err(refuse(part, "after the name come weight=N and balance=random|source")),
            }
        }
        Ok(share)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},weight={},balance={}", self.name, self.weight, self.balance)
    }
}

/// One host port of a service, and who serves it: publications of the same host address, port and protocol, at
/// least one, in the order in which they joined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Balanced {
    /// The members.
    pub members: Vec<Publication>,
}

/// How many slots one port of a service has: a connection falls into one of them, and each belongs to a member.
pub const SLOTS: usize = 256;

impl Balanced {
    /// The host port that is shared, as its first member has it.
    #[must_use]
    pub fn port(&self) -> Option<&Publication> {
        self.members.first()
    }

    /// Whether both are about the same host port.
    #[must_use]
    pub fn is_same_port(&self, other: &Self) -> bool {
        match (self.port(), other.port()) {
            (Some(a), Some(b)) => a.is_same_port(b),
            (None, None) => true,
            _ => false,
        }
    }

    /// How many slots each member has: one at least, the others by weight.
    #[must_use]
    pub fn quotas(&self) -> Vec<usize> {
        let weight =
            |member: &Publication| member.service.as_ref().map_or(1, |share| usize::from(share.weight));
        let total: usize = self.members.iter().map(weight).sum::<usize>().max(1);
        let free = SLOTS.saturating_sub(self.members.len());
        let mut quotas: Vec<usize> =
            self.members.iter().map(|member| 1 + free * weight(member) / total).collect();
        // What rounding left over goes to those who lost most by it, the first of them first.
        let mut order: Vec<usize> = (0..quotas.len()).collect();
        order.sort_by_key(|at| {
            core::cmp::Reverse(self.members.get(*at).map_or(0, |m| free * weight(m) % total))
        });
        let left = SLOTS.saturating_sub(quotas.iter().sum());
        order.into_iter().take(left).for_each(|at| quotas[at] += 1);
        quotas
    }

    /// Which member has which slot, by number, where it is `now` as it is: as few slots as possible change hands.
    #[must_use]
    pub fn slots(&self, now: &[Option<usize>]) -> Vec<usize> {
        let mut left = self.quotas();
        let mut slots: Vec<Option<usize>> = (0..SLOTS)
            .map(|slot| {
                let member = now.get(slot).copied().flatten()?;
                let quota = left.get_mut(member).filter(|quota| **quota > 0)?;
                *quota -= 1;
                Some(member)
            })
            .collect();
        // Taking turns, so that neighbouring slots have different members.
        let mut turn = 0;
        for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
            let Some(step) = (0..left.len()).find(|step| left[(turn + step) % left.len()] > 0) else { break };
            let member = (turn + step) % left.len();
            left[member] -= 1;
            *slot = Some(member);
            turn = member + 1;
        }
        slots.into_iter().map(|slot| slot.unwrap_or(0)).collect()
    }
}

impl fmt::Display for Balanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.port() else { return f.write_str("a service without members") };
        if let Some(share) = &first.service {
            write!(f, "service {} by {}: ", share.name, share.balance)?;
        }
        write!(f, "{first}")?;
        for member in &self.members[1..] {
            write!(f, ", {}", member.target_text())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;
    use crate::port::{PortRange, Protocol};

    fn service(weights: &[u8]) -> Balanced {
        let member = |(number, weight): (usize, &u8)| Publication {
            host: [0, 0, 0, 0].into(),
            host_ports: PortRange::one(80),
            target: [10, 0, (number / 250) as u8, (number % 250) as u8 + 2].into(),
            target_ports: PortRange::one(8080),
            protocol: Protocol::Tcp,
            gateway: None,
            service: Some(Share {
                name: Name::parse("service", "web").unwrap(),
                weight: *weight,
                balance: Balance::Random,
            }),
        };
        Balanced { members: weights.iter().enumerate().map(member).collect() }
    }

    #[test]
    fn slots_follow_weights_and_nobody_has_none() {
        assert_eq!(service(&[1]).quotas(), [256]);
        assert_eq!(service(&[1, 1]).quotas(), [128, 128]);
        assert_eq!(service(&[1, 1, 1]).quotas(), [86, 85, 85]);
        assert_eq!(service(&[1, 3]).quotas(), [65, 191]);
        let many = service(&[vec![100; 200], vec![1; 56]].concat()).quotas();
        assert_eq!((many.iter().sum::<usize>(), many.iter().min()), (256, Some(&1)));
    }

    #[test]
    fn few_slots_change_hands_when_a_member_comes_or_goes() {
        let held = |slots: &[usize]| slots.iter().map(|member| Some(*member)).collect::<Vec<_>>();
        let two = service(&[1, 1]).slots(&[]);
        let three = service(&[1, 1, 1]).slots(&held(&two));
        let moved = two.iter().zip(&three).filter(|(a, b)| a != b).count();
        assert_eq!(moved, 85, "what the new one gets, and no more");
        let without: Vec<Option<usize>> =
            three.iter().map(|member| (*member < 2).then_some(*member)).collect();
        let again = service(&[1, 1]).slots(&without);
        assert_eq!(three.iter().zip(&again).filter(|(a, b)| a != b).count(), 85, "what it had");
    }

    #[test]
    fn a_share_is_read_strictly() {
        let read = |text: &str| {
            text.parse::<Share>().map_or_else(|error| error.to_string(), |share| share.to_string())
        };
        assert_eq!(read("web"), "web,weight=1,balance=random");
        assert_eq!(read("web,balance=source,weight=3"), "web,weight=3,balance=source");
        assert_eq!(
            read("web,weight=0"),
            "invalid service \"web,weight=0\": \"weight=0\": a weight is a number from 1 to 100"
        );
        assert_eq!(
            read("web,mode=x"),
            "invalid service \"web,mode=x\": \"mode=x\": after the name come weight=N and balance=random|source"
        );
        assert!(read("../web").starts_with("invalid service \"../web\""), "{}", read("../web"));
    }
}
