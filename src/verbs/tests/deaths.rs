//! A process is killed at a step: the next command makes it right, and removing everything leaves nothing.

use super::*;

/// Kills the verb at each step in turn, in a world of its own; then the next command, and the removal of all.
pub(super) fn killed_at_each_step<T>(
    lab: impl Fn() -> Lab,
    verb: impl Fn(&mut Rnet<Fake>) -> Result<T, Error>,
    next: impl Fn(&mut Lab),
) -> usize {
    for number in 0.. {
        let mut lab = lab();
        let Some(step) = lab.killed(number, |rnet| drop(verb(rnet))) else { return number };
        next(&mut lab);
        assert_made(&mut lab, &step);
        lab.remove_all();
        // The folder of the pre-defined bridge may stay, for its lock.
        let bridge = format!("run/networks/{}/", lab.rnet.network("bridge").unwrap().id);
        let mut after = lab.snapshot();
        after.files.retain(|name, _| *name != bridge && name != "root/host.json");
        assert_eq!(after, Snapshot { host: Vec::new(), files: BTreeMap::new() }, "killed at {step}");
    }
    unreachable!()
}

/// The host has exactly what ready records say.
fn assert_made(lab: &mut Lab, step: &Step) {
    let store = lab.rnet.store();
    let mut made: Vec<String> = Vec::new();
    made.extend(store.host_state().unwrap().into_iter().flat_map(|state| state.made).map(|r| r.to_string()));
    made.extend(
        store.network_states().unwrap().into_iter().flat_map(|state| state.made).map(|r| r.to_string()),
    );
    for container in lab.rnet.containers().unwrap() {
        let mortal = container.endpoints.into_iter().flat_map(|state| state.made).filter(|r| !r.is_kept());
        made.extend(mortal.map(|r| r.to_string()));
    }
    made.sort();
    assert_eq!(lab.kernel().host(), made, "killed at {step}");
}

fn another(lab: &mut Lab) {
    lab.connect(&connect("blue", "app")).unwrap();
}

fn red_and_blue() -> Lab {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    lab.connect(&connect("blue", "web")).unwrap();
    lab.connect(&connect("blue", "db")).unwrap();
    lab
}

#[test]
fn after_a_killed_create_the_network_can_be_used() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.create(create("blue", &["10.1.0.0/24"]), Mode::Do);
    assert_eq!(killed_at_each_step(Lab::new, verb, another), 14);
}

#[test]
fn after_a_killed_create_the_network_can_be_removed() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.create(create("blue", &["10.1.0.0/24"]), Mode::Do);
    assert_eq!(killed_at_each_step(Lab::new, verb, |lab| lab.remove("blue").unwrap()), 14);
}

#[test]
fn after_a_killed_create_another_network_can_be_made() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.create(create("blue", &["10.1.0.0/24"]), Mode::Do);
    let next = |lab: &mut Lab| {
        lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
        another(lab);
    };
    assert_eq!(killed_at_each_step(Lab::new, verb, next), 14);
}

#[test]
fn after_a_killed_connect_another_container_can_be_connected() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&publish("blue", "web", &["8080:80"]), Mode::Do);
    let next = |lab: &mut Lab| {
        let connected = lab.connect(&publish("blue", "app", &["8080:80"])).unwrap();
        assert_eq!(connected.endpoint.ports[0].host_ports.first, 8080);
    };
    assert_eq!(killed_at_each_step(Lab::blue, verb, next), 12);
}

#[test]
fn after_a_killed_connect_the_same_connect_works() {
    let wanted = Connect { ip: Some([10, 1, 0, 77].into()), ..publish("blue", "web", &["8080:80"]) };
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&wanted, Mode::Do);
    let next = |lab: &mut Lab| assert_eq!(address(&lab.connect(&wanted).unwrap()), "10.1.0.77/24");
    assert_eq!(killed_at_each_step(Lab::blue, verb, next), 12);
}

#[test]
fn after_a_killed_connect_the_network_can_be_removed() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&publish("blue", "web", &["8080:80"]), Mode::Do);
    assert_eq!(killed_at_each_step(Lab::blue, verb, |lab| lab.remove("blue").unwrap()), 12);
}

#[test]
fn after_a_killed_connect_networks_can_be_pruned() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&connect("blue", "web"), Mode::Do);
    let next = |lab: &mut Lab| assert_eq!(lab.rnet.prune(|_| true).unwrap().len(), 1);
    assert_eq!(killed_at_each_step(Lab::blue, verb, next), 11);
}

#[test]
fn after_a_killed_connect_that_takes_over_the_gateway_the_first_network_has_it_again() {
    let over = Connect { gateway_priority: 1, ..connect("red", "web") };
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&over, Mode::Do);
    let next = |lab: &mut Lab| {
        lab.connect(&connect("blue", "app")).unwrap();
    };
    assert_eq!(killed_at_each_step(red_and_blue, verb, next), 10);
}

#[test]
fn after_a_killed_connect_that_takes_over_the_gateway_the_same_connect_works() {
    let over = Connect { gateway_priority: 1, ..connect("red", "web") };
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&over, Mode::Do);
    let next = |lab: &mut Lab| {
        let connected = lab.connect(&over).unwrap();
        assert_eq!(connected.endpoint.gateways, ["10.2.0.1".parse::<std::net::IpAddr>().unwrap()]);
    };
    assert_eq!(killed_at_each_step(red_and_blue, verb, next), 10);
}

#[test]
fn after_a_killed_first_connect_to_the_default_bridge_it_works_for_the_next_container() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&publish("bridge", "web", &["80:80"]), Mode::Do);
    let next = |lab: &mut Lab| {
        lab.connect(&publish("bridge", "app", &["80:80"])).unwrap();
    };
    assert_eq!(killed_at_each_step(Lab::new, verb, next), 25);
}

#[test]
fn after_a_killed_first_connect_to_the_default_bridge_any_command_takes_it_back() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.connect(&publish("bridge", "web", &["80:80"]), Mode::Do);
    let next = |lab: &mut Lab| assert_eq!(lab.rnet.prune(|_| true).unwrap(), []);
    assert_eq!(killed_at_each_step(Lab::new, verb, next), 25);
}

#[test]
fn after_a_killed_disconnect_the_next_command_finishes_it() {
    let lab = || {
        let mut lab = red_and_blue();
        lab.connect(&publish("red", "web", &["8080:80"])).unwrap();
        lab
    };
    let verb = |rnet: &mut Rnet<Fake>| rnet.disconnect("blue", &container("web"), Mode::Do);
    assert_eq!(killed_at_each_step(lab, verb, |lab| drop(lab.connect(&connect("red", "app")).unwrap())), 4);
}

#[test]
fn after_a_killed_disconnect_the_container_can_be_connected_again() {
    let lab = || {
        let mut lab = red_and_blue();
        lab.connect(&publish("red", "web", &["8080:80"])).unwrap();
        lab
    };
    let verb = |rnet: &mut Rnet<Fake>| rnet.disconnect("red", &container("web"), Mode::Do);
    let next = |lab: &mut Lab| match lab.connect(&publish("red", "web", &["8080:80"])) {
        Ok(_) | Err(Error::AlreadyConnected { .. }) => {}
        Err(error) => panic!("{error}"),
    };
    assert_eq!(killed_at_each_step(lab, verb, next), 4);
}

#[test]
fn after_a_killed_disconnect_of_the_last_container_the_default_bridge_goes() {
    let lab = || {
        let mut lab = Lab::new();
        lab.connect(&publish("bridge", "web", &["80:80"])).unwrap();
        lab
    };
    let verb = |rnet: &mut Rnet<Fake>| rnet.disconnect("bridge", &container("web"), Mode::Do);
    let next = |lab: &mut Lab| assert_eq!(lab.rnet.prune(|_| true).unwrap(), []);
    assert_eq!(killed_at_each_step(lab, verb, next), 13);
}

#[test]
fn after_a_killed_removal_the_network_can_be_removed() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.remove("blue", true, Mode::Do);
    let next = |lab: &mut Lab| match lab.rnet.remove("blue", true, Mode::Do) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.to_string(), "network blue not found"),
    };
    assert_eq!(killed_at_each_step(red_and_blue, verb, next), 13);
}

#[test]
fn after_a_killed_removal_of_the_last_network_any_command_takes_the_rest_back() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.remove("blue", true, Mode::Do);
    let next = |lab: &mut Lab| drop(lab.rnet.prune(|_| true).unwrap());
    assert_eq!(killed_at_each_step(Lab::blue, verb, next), 10);
}

#[test]
fn after_a_killed_removal_the_network_can_be_used_again() {
    let verb = |rnet: &mut Rnet<Fake>| rnet.remove("blue", true, Mode::Do);
    let next = |lab: &mut Lab| match lab.connect(&connect("blue", "app")) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.to_string(), "network blue not found"),
    };
    assert_eq!(killed_at_each_step(red_and_blue, verb, next), 13);
}
