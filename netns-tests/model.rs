//! Random commands on a real kernel against a simple model, some of them killed at a random call: the model and what
//! rnet shows agree after each, and an audit that asks nothing of rnet finds everything in agreement.
//!
//! `RNET_MODEL=1000 cargo test --test netns -- model:: --nocapture` does a thousand; another `RNET_SEED` does others.

use std::{collections::BTreeSet, env};

use crate::{audit, churn::Numbers, harness::tests, lab::Lab};

tests! {
    random_commands_with_kills_agree_with_a_model,
}

const NETWORKS: [(&str, &str); 2] = [("blue", "10.81.0.0/24"), ("red", "10.82.0.0/24")];
const CONTAINERS: [&str; 4] = ["c1", "c2", "c3", "c4"];
/// Calls at which a command is killed.
const CALLS: [&str; 6] = ["sendto", "linkat", "renameat2", "unlink", "openat", "pwrite64"];
/// How many commands there are, unless more are asked for.
const COMMANDS: usize = 120;

/// Which networks there are, and who is connected where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    networks: BTreeSet<&'static str>,
    connected: BTreeSet<(&'static str, &'static str)>,
}

impl Model {
    /// As rnet shows it.
    fn shown(lab: &Lab) -> Self {
        let mut model = Self::default();
        for (network, _) in NETWORKS {
            let shown = lab.rnet(&["network", "inspect", network]);
            if !shown.succeeded() {
                continue;
            }
            model.networks.insert(network);
            let endpoints = shown.json()[0]["Containers"].as_object().cloned().unwrap_or_default();
            let names = endpoints.values().filter_map(|endpoint| endpoint["Name"].as_str());
            let known = names.filter_map(|name| CONTAINERS.into_iter().find(|known| *known == name));
            model.connected.extend(known.map(|container| (network, container)));
        }
        model
    }

    /// What a command that does its work makes of it.
    fn after(&self, command: Command) -> Self {
        let mut model = self.clone();
        match command {
            Command::Create(network) => drop(model.networks.insert(network)),
            Command::Connect(network, container, _) => drop(model.connected.insert((network, container))),
            Command::Disconnect(network, container) => drop(model.connected.remove(&(network, container))),
            Command::Remove(network) => {
                model.networks.remove(network);
                model.connected.retain(|(other, _)| *other != network);
            }
            Command::Renew(container) => model.connected.retain(|(_, other)| *other != container),
            Command::Flush | Command::Repair | Command::Collect => {}
        }
        model
    }

    /// What a command that was killed may have made of it beside nothing and all: the containers leave a network together
    /// before it goes itself, and then it is there, empty, to be used or removed.
    fn halfway(&self, command: Command) -> Option<Self> {
        let Command::Remove(network) = command else { return None };
        let mut model = self.clone();
        model.connected.retain(|(other, _)| *other != network);
        Some(model)
    }

    /// Whether the command can do its work.
    fn allows(&self, command: Command) -> bool {
        match command {
            Command::Create(network) => !self.networks.contains(network),
            Command::Connect(network, container, _) => {
                self.networks.contains(network) && !self.connected.contains(&(network, container))
            }
            Command::Disconnect(network, container) => self.connected.contains(&(network, container)),
            Command::Remove(network) => self.networks.contains(network),
            Command::Renew(_) | Command::Flush | Command::Repair | Command::Collect => true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Command {
    Create(&'static str),
    Connect(&'static str, &'static str, usize),
    Disconnect(&'static str, &'static str),
    Remove(&'static str),
    /// The container's namespace is deleted, and made again.
    Renew(&'static str),
    /// Somebody else flushes the firewall.
    Flush,
    Repair,
    Collect,
}

impl Command {
    fn random(numbers: &mut Numbers) -> Self {
        let (network, container) = (numbers.of(&NETWORKS).0, *numbers.of(&CONTAINERS));
        match numbers.below(20) {
            0..=3 => Self::Create(network),
            4..=9 => Self::Connect(network, container, 9000 + numbers.below(3)),
            10..=13 => Self::Disconnect(network, container),
            14 => Self::Remove(network),
            15 | 16 => Self::Renew(container),
            17 => Self::Flush,
            18 => Self::Repair,
            _ => Self::Collect,
        }
    }

    /// The words, where it is one of rnet's.
    fn words(self) -> Option<Vec<String>> {
        let line = match self {
            Self::Create(network) => {
                let subnet = NETWORKS.iter().find(|(name, _)| *name == network).map(|(_, subnet)| *subnet);
                format!("network create --subnet {} {network}", subnet.unwrap_or_default())
            }
            Self::Connect(network, container, port) => {
                format!("network connect -p {port}:80 {network} {container}")
            }
            Self::Disconnect(network, container) => format!("network disconnect {network} {container}"),
            Self::Remove(network) => format!("network rm -f {network}"),
            Self::Repair => "repair".to_owned(),
            Self::Collect => "gc".to_owned(),
            Self::Renew(_) | Self::Flush => return None,
        };
        Some(line.split(' ').map(str::to_owned).collect())
    }
}

fn random_commands_with_kills_agree_with_a_model(lab: &Lab) {
    lab.needs("nft");
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let (count, seed) = (number("RNET_MODEL").unwrap_or(COMMANDS as u64), number("RNET_SEED").unwrap_or(42));
    CONTAINERS.iter().for_each(|name| drop(lab.namespace(name)));
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut model, mut kills) = (Model::default(), 0);
    for at in 0..count {
        let command = Command::random(&mut numbers);
        let what = format!("command {at} of seed {seed}: {command:?}");
        let kill = (numbers.below(4) == 0).then(|| (*numbers.of(&CALLS), numbers.below(8) + 1));
        let (before, after) = (model.clone(), model.after(command));
        let killed = run(lab, command, kill, &before, &what);
        kills += usize::from(killed);
        if killed {
            lab.rn("gc").ok();
        }
        // Who was renewed is disconnected by whoever comes next; gc is sure to.
        if matches!(command, Command::Renew(_)) {
            lab.rn("gc").ok();
        }
        model = Model::shown(lab);
        let as_before = model == before;
        let done = model == after && before.allows(command);
        assert!(
            if killed {
                as_before || done || before.halfway(command).as_ref() == Some(&model)
            } else {
                done || as_before && !before.allows(command)
                    || matches!(command, Command::Connect(..)) && as_before
            },
            "{what}: from {before:?} to {model:?}"
        );
        if at % 10 == 9 {
            lab.rn("repair").ok();
            lab.rn("gc").ok();
            lab.rn("check").ok().prints("");
            audit::agrees(lab);
        }
    }
    println!("model: {count} random commands, {kills} killed, seed {seed}");
    lab.rn("network rm -f blue red").no_panic();
}

/// Runs it, perhaps to be killed; `true` where it was. What the model does not allow must be refused.
fn run(lab: &Lab, command: Command, kill: Option<(&str, usize)>, before: &Model, what: &str) -> bool {
    let Some(words) = command.words() else {
        match command {
            Command::Renew(container) => {
                lab.sh(&format!("ip netns del {container} && ip netns add {container}")).ok();
            }
            _ => drop(lab.sh("nft flush ruleset").ok()),
        }
        return false;
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = match kill {
        None => lab.rnet(&words),
        Some((call, when)) => {
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            lab.strace(&["-e", &format!("trace={call}"), "-e", &inject], &words)
        }
    };
    output.no_panic();
    if output.was_killed() {
        return true;
    }
    // A port may be taken; all else that the model allows must be done.
    let may_fail = !before.allows(command) || output.stderr().contains("is published by container");
    assert!(output.succeeded() || may_fail, "{what}: {output}");
    if !output.succeeded() {
        output.is_one_clear_refusal();
    }
    false
}
