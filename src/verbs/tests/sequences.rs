//! Random sequences of commands, some refused and some killed, against a simple model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::store::EndpointState;

const NETWORKS: [&str; 4] = ["bridge", "blue", "red", "six"];
const CONTAINERS: [&str; 6] = ["web", "db", "app", "c1", "c2", "c3"];

/// What happens to a command: nothing, a refusal, or the end of its process, at the step with that number.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    Nothing,
    Refused(usize),
    Killed(usize),
}

#[derive(Debug, Clone)]
enum Command {
    Create { network: usize, internal: bool },
    Connect { network: usize, container: usize, ip: Option<u8>, ports: Vec<&'static str>, priority: i32 },
    Disconnect { network: usize, container: usize },
    Remove { network: usize },
    Prune,
    Repair,
    Collect,
    Restart { container: usize },
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        6 => Just(Mishap::Nothing),
        1 => (0usize..16).prop_map(Mishap::Refused),
        1 => (0usize..16).prop_map(Mishap::Killed),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let ports = proptest::collection::vec(
        proptest::sample::select(vec![
            "8080:80",
            "8080-8082:80",
            "127.0.0.1:8081:81",
            "80",
            "443/udp",
            "[::1]:8080:80",
            "8080:80/udp",
            "8079-8081:79-81",
        ]),
        0..3,
    );
    prop_oneof![
        3 => (1..NETWORKS.len(), proptest::bool::weighted(0.15)).prop_map(|(network, internal)| Command::Create { network, internal }),
        9 => (0..NETWORKS.len(), 0..CONTAINERS.len(), proptest::option::weighted(0.2, 1u8..8), ports, -1i32..2).prop_map(
            |(network, container, ip, ports, priority)| Command::Connect { network, container, ip, ports, priority }
        ),
        4 => (0..NETWORKS.len(), 0..CONTAINERS.len())
            .prop_map(|(network, container)| Command::Disconnect { network, container }),
        1 => (0..NETWORKS.len()).prop_map(|network| Command::Remove { network }),
        1 => Just(Command::Prune),
        1 => Just(Command::Repair),
        1 => Just(Command::Collect),
        1 => (0..CONTAINERS.len()).prop_map(|container| Command::Restart { container }),
    ]
}

/// Who is connected where.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Model {
    networks: BTreeSet<&'static str>,
    connected: BTreeSet<(&'static str, &'static str)>,
}

impl Model {
    /// The model as the records have it, which are looked through on the way.
    fn of(lab: &Lab) -> Self {
        let mut model = Self::default();
        let mut states: Vec<EndpointState> = Vec::new();
        let networks = lab.rnet.networks().unwrap();
        for name in NETWORKS {
            let Some(network) = networks.iter().find(|network| network.name.as_str() == name) else {
                continue;
            };
            model.networks.insert(name);
            for state in lab.rnet.endpoints(network).unwrap() {
                let is_it = |container: &&str| *container == state.endpoint.container.name;
                model.connected.insert((name, CONTAINERS.into_iter().find(is_it).unwrap()));
                assert_sound(network, &state, &states);
                states.push(state);
            }
        }
        model
    }

    /// What the command makes of it, if it does its work.
    fn after(&self, command: &Command, lab: &mut Lab) -> Self {
        let mut model = self.clone();
        match *command {
            Command::Create { network, .. } => drop(model.networks.insert(NETWORKS[network])),
            Command::Connect { network, container, .. } => {
                let container = CONTAINERS[container];
                model.connected.retain(|(_, other)| *other != container);
                let former = self.connected.iter().filter(|(_, other)| *other == container);
                model.connected.extend(former.filter(|(network, _)| lives(lab, network, container)).copied());
                model.connected.insert((NETWORKS[network], container));
            }
            Command::Disconnect { network, container } => {
                model.connected.remove(&(NETWORKS[network], CONTAINERS[container]));
            }
            Command::Remove { network } => {
                model.networks.remove(NETWORKS[network]);
                model.connected.retain(|(name, _)| *name != NETWORKS[network]);
            }
            Command::Prune => {
                let used =
                    |name: &&str| *name == "bridge" || model.connected.iter().any(|(other, _)| other == name);
                model.networks = self.networks.iter().copied().filter(used).collect();
            }
            Command::Collect => model.connected.retain(|(network, container)| lives(lab, network, container)),
            Command::Repair | Command::Restart { .. } => {}
        }
        model
    }
}

/// Whether the endpoint is in the namespace that has the container's name now.
fn lives(lab: &mut Lab, network: &str, container: &str) -> bool {
    let id = lab.rnet.network(network).unwrap().id;
    let state = lab.rnet.store().endpoint(&id, container).unwrap().unwrap();
    let identity = (state.endpoint.container.device, state.endpoint.container.inode);
    lab.kernel().namespaces.get(&netns(container)) == Some(&Some(identity))
}

fn run(rnet: &mut Rnet<Fake>, command: &Command) -> Result<(), Error> {
    match command {
        Command::Create { network, internal } => {
            let subnets: &[&str] = match NETWORKS[*network] {
                "blue" => &["10.1.0.0/29"],
                "red" => &[],
                _ => &["10.3.0.0/29", "fd00:3::/64"],
            };
            rnet.create(
                CreateNetwork { internal: *internal, ..create(NETWORKS[*network], subnets) },
                Mode::Do,
            )
            .map(drop)
        }
        Command::Connect { network, container, ip, ports, priority } => {
            let subnet = match NETWORKS[*network] {
                "blue" => [10, 1, 0],
                "six" => [10, 3, 0],
                "red" => [172, 18, 0],
                _ => [172, 17, 0],
            };
            let ip = ip.map(|last| [subnet[0], subnet[1], subnet[2], last].into());
            let wanted = publish(NETWORKS[*network], CONTAINERS[*container], ports);
            rnet.connect(&Connect { ip, gateway_priority: *priority, ..wanted }, Mode::Do).map(drop)
        }
        Command::Disconnect { network, container: name } => {
            rnet.disconnect(NETWORKS[*network], &container(CONTAINERS[*name]), Mode::Do).map(drop)
        }
        Command::Remove { network } => rnet.remove(NETWORKS[*network], true, Mode::Do).map(drop),
        Command::Prune => rnet.prune(|_| true).map(drop),
        Command::Repair => rnet.repair().map(drop),
        Command::Collect => rnet.collect_garbage(false).map(drop),
        Command::Restart { .. } => Ok(()),
    }
}

/// Addresses are the network's to give and given once; so are ports.
fn assert_sound(network: &Network, state: &EndpointState, others: &[EndpointState]) {
    for address in &state.endpoint.addresses {
        let pool = network.pools.iter().find(|pool| pool.subnet.contains(address.ip())).unwrap();
        assert_eq!(crate::ipam::reserved(pool, address.ip()), None, "{address}");
        let same = others.iter().find(|other| other.endpoint.addresses.contains(address));
        assert!(same.is_none(), "{address} was given twice");
    }
    for port in &state.endpoint.ports {
        let same = others.iter().flat_map(|other| &other.endpoint.ports).find(|other| port.clashes(other));
        assert_eq!(same, None, "{port} was published twice");
    }
}

/// Refusals for reasons that the model does not look into: it knows that they leave everything as it was.
fn is_no(error: &Error) -> bool {
    use crate::error::Kind;
    matches!(
        error.kind(),
        Kind::Conflict | Kind::Exhausted | Kind::NotFound | Kind::Invalid | Kind::Forbidden
    )
}

fn check(commands: &[(Command, Mishap)]) {
    let mut lab = Lab::new();
    CONTAINERS.into_iter().skip(3).for_each(|name| lab.start(name));
    for network in 1..NETWORKS.len() {
        run(&mut lab.rnet, &Command::Create { network, internal: false }).unwrap();
    }
    let mut before = Model::of(&lab);
    for (command, mishap) in commands {
        if let Command::Restart { container } = command {
            lab.kernel().end(&netns(CONTAINERS[*container]));
            lab.start(CONTAINERS[*container]);
            continue;
        }
        let after = before.after(command, &mut lab);
        let (result, happened) = match *mishap {
            Mishap::Nothing => (Some(run(&mut lab.rnet, command)), false),
            Mishap::Refused(step) => {
                let (result, step) = lab.refusing(step, |rnet| run(rnet, command));
                (Some(result), step.is_some())
            }
            Mishap::Killed(step) => {
                let mut result = None;
                let step = lab.killed(step, |rnet| result = Some(run(rnet, command)));
                (result, step.is_some())
            }
        };
        let now = Model::of(&lab);
        match result {
            Some(Ok(())) => assert_eq!(now, after, "after {command:?}"),
            Some(Err(error)) if !happened => {
                assert!(is_no(&error), "{command:?}: {error}");
                assert!(now.connected.is_subset(&before.connected), "{command:?}: {error}");
                assert_eq!(now.networks, before.networks, "{command:?}: {error}");
            }
            // What was begun is begun; nothing else was touched.
            _ => {
                let all = &before.connected | &after.connected;
                assert!(now.connected.is_subset(&all), "{command:?}: {now:?}");
                assert!(now.networks.is_subset(&(&before.networks | &after.networks)), "{command:?}");
            }
        }
        before = now;
    }
    lab.rnet.repair().unwrap();
    assert_eq!(lab.rnet.check(&[]).unwrap(), [], "after a repair nothing differs");
    lab.rnet.collect_garbage(false).unwrap();
    lab.remove_all();
    lab.rnet.prune(|_| true).unwrap();
    let bridge = format!("run/networks/{}/", lab.rnet.network("bridge").unwrap().id);
    let mut left = lab.snapshot();
    left.files.retain(|name, _| *name != bridge && name != "root/host.json");
    // Ports rest for a while after they were given back.
    left.files.retain(|name, _| !name.starts_with("run/ports/"));
    assert_eq!(left, Snapshot { host: Vec::new(), files: BTreeMap::new() });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commands_keeps_addresses_and_ports_apart_and_can_be_undone(
        commands in proptest::collection::vec((command(), mishap()), 30)
    ) {
        check(&commands);
    }
}
