//! Firewalls of others, as far as containers meet them: looked at for people who are told what to do, never changed.

use super::{
    Nft, TableName, names, text, value,
    wire::{Attributes, message},
    word,
};
use crate::kernel::Refusal;

/// Who keeps a chain, where that can be told from its name and its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Docker's daemon, by way of `iptables`; it leaves the chain `DOCKER-USER` to the administrator.
    Docker,
    /// `ufw`.
    Ufw,
    /// `firewalld`.
    Firewalld,
    /// `iptables` in its nf_tables form.
    Iptables,
    /// Somebody with `nft`.
    Nft,
}

/// A chain of somebody else where packets of containers pass, and that drops what no rule of it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// Its table, with the family as `nft` writes it: `ip filter`.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Where it stands: `forward` or `input`.
    pub hook: &'static str,
    /// Who keeps it.
    pub manager: Manager,
}

/// A chain as the kernel lists it.
struct Listed {
    table: String,
    name: String,
    hook: Option<u32>,
    drops: bool,
}

/// The chains of others that drop what is forwarded, or what comes to the host, unless they know it.
pub(in super::super) fn foreign_chains(nft: &mut Nft) -> Result<Vec<ForeignChain>, Refusal> {
    const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];
    const HOOKS: [(u32, &str); 2] = [(1, "input"), (2, "forward")];
    let mut list = Vec::new();
    for (number, family) in FAMILIES {
        let chains: Vec<Listed> = nft
            .list_of(message::GET_CHAIN, number, &Attributes::default())?
            .iter()
            .map(|body| listed(body))
            .collect();
        for chain in &chains {
            let hook = HOOKS.iter().find(|(number, _)| Some(*number) == chain.hook).map(|(_, name)| *name);
            let Some(hook) = hook.filter(|_| chain.table.parse::<TableName>().is_err()) else { continue };
            let manager = manager(family, &chain.table, &chains);
            // firewalld's policy is to accept, and its last rule to reject.
            if chain.drops || manager == Manager::Firewalld {
                let table = format!("{family} {}", chain.table);
                list.push(ForeignChain { table, chain: chain.name.clone(), hook, manager });
            }
        }
    }
    Ok(list)
}

fn listed(body: &[u8]) -> Listed {
    const DROP: u32 = 0;
    let [table, _] = names(body);
    let hook = value(body, 4).and_then(|hook| word(&value(&hook, 1)?));
    let drops = value(body, 5).and_then(|policy| word(&policy)) == Some(DROP);
    Listed { table, name: text(body, 3), hook, drops }
}

fn manager(family: &str, table: &str, chains: &[Listed]) -> Manager {
    let beside = |name: &str| chains.iter().any(|chain| chain.table == table && chain.name == name);
    match (family, table) {
        (_, "firewalld") => Manager::Firewalld,
        ("ip" | "ip6", "filter") if beside("ufw-before-forward") || beside("ufw6-before-forward") => {
            Manager::Ufw
        }
        ("ip" | "ip6", "filter") if beside("DOCKER-USER") => Manager::Docker,
        ("ip" | "ip6", "filter") if beside("FORWARD") || beside("INPUT") => Manager::Iptables,
        _ => Manager::Nft,
    }
}
