//! Overlay networks, whose hosts are named by hand: a step is refused, or a process killed at it.

use super::{
    deaths::killed_at_each_step,
    failures::{done, refused_and_finished_at_each_step, refused_at_each_step},
    *,
};

fn overlay() -> CreateNetwork {
    let mut wanted = create("blue", &["10.1.0.0/24", "fd00:1::/64"]);
    wanted.driver = "overlay".to_owned();
    wanted.wishes.ranges = vec!["10.1.0.0/30".parse().unwrap(), "fd00:1::/126".parse().unwrap()];
    wanted.options.insert("peers".to_owned(), "198.51.100.2=10.1.0.4/30+fd00:1::4/126".to_owned());
    wanted
}

fn network() -> Lab {
    let mut lab = Lab::new();
    lab.create(&overlay()).unwrap();
    lab
}

fn connected() -> Lab {
    let mut lab = network();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab
}

#[test]
fn what_the_user_leaves_open_is_chosen_and_shown() {
    let mut lab = Lab::new();
    let network = lab.create(&overlay()).unwrap();
    let options: Vec<String> = network.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        options,
        ["local=192.0.2.1", "mtu=1450", "peers=198.51.100.2=10.1.0.4/30+fd00:1::4/126", "vni=9837814"]
    );
    let again = lab.create(&CreateNetwork { name: "red".parse().unwrap(), ..overlay() }).unwrap_err();
    assert_eq!(again.to_string(), "subnet 10.1.0.0/24 overlaps 10.1.0.0/24 of network blue");
}

#[test]
fn a_connect_gives_both_families_addresses_that_go_together() {
    let mut lab = network();
    let connected = lab.connect(&connect("blue", "web")).unwrap();
    let addresses: Vec<String> = connected.endpoint.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.1.0.2/24", "fd00:1::2/64"]);
    lab.remove_all();
    assert_eq!(lab.kernel().host(), Vec::<String>::new());
}

#[test]
fn a_create_refused_at_any_step_leaves_nothing() {
    let steps = refused_at_each_step(Lab::new, |rnet| rnet.create(overlay(), Mode::Do));
    assert!(steps > 30, "{steps}");
}

#[test]
fn a_connect_refused_at_any_step_leaves_nothing() {
    let wanted = publish("blue", "web", &["8080:80"]);
    let steps = refused_at_each_step(network, |rnet| rnet.connect(&wanted, Mode::Do));
    assert!(steps > 15, "{steps}");
}

#[test]
fn a_disconnect_or_removal_refused_at_any_step_is_finished_by_the_next() {
    let leave = |rnet: &mut Rnet<Fake>| done(rnet.disconnect("blue", &container("web"), Mode::Do));
    assert!(refused_and_finished_at_each_step(connected, leave) > 5);
    let remove = |rnet: &mut Rnet<Fake>| match rnet.remove("blue", true, Mode::Do) {
        Err(Error::NetworkNotFound { .. }) => Ok(()),
        result => done(result),
    };
    assert!(refused_and_finished_at_each_step(connected, remove) > 5);
}

#[test]
fn after_a_death_at_any_step_the_next_command_makes_it_right() {
    let next = |lab: &mut Lab| drop(lab.connect(&connect("blue", "db")).unwrap());
    assert!(killed_at_each_step(Lab::new, |rnet| rnet.create(overlay(), Mode::Do), next) > 30);
    assert!(
        killed_at_each_step(
            network,
            |rnet| rnet.connect(&publish("blue", "web", &["8080:80"]), Mode::Do),
            next
        ) > 15
    );
    let leave = |rnet: &mut Rnet<Fake>| rnet.disconnect("blue", &container("web"), Mode::Do);
    assert!(killed_at_each_step(connected, leave, |lab| drop(lab.rnet.recover())) > 5);
}

#[test]
fn what_is_lost_in_a_sandbox_is_missed_and_mended() {
    let mut lab = connected();
    assert_eq!(lab.rnet.check(&[]).unwrap(), []);
    let made = lab.rnet.store().network_states().unwrap().remove(0).made;
    for lost in made {
        lab.kernel().lose(&lost);
        assert!(!lab.rnet.check(&[]).unwrap().is_empty(), "not missed: {lost}");
        lab.rnet.repair().unwrap();
        assert_eq!(lab.rnet.check(&[]).unwrap(), [], "after {lost}");
    }
}
