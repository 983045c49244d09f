//! A step is refused: the error names it, and host and records are as before.

use rnetkit_drivers::Resource;

use super::*;

/// Refuses each step of the verb in turn. Returns how many there are.
pub(super) fn refused_at_each_step<T>(
    lab: impl Fn() -> Lab,
    verb: impl Fn(&mut Rnet<Fake>) -> Result<T, Error>,
) -> usize {
    for number in 0.. {
        let mut lab = lab();
        let before = lab.snapshot();
        let (result, step) = lab.refusing(number, &verb);
        let Some(step) = step else {
            assert!(result.is_ok());
            return number;
        };
        let error = result.err().unwrap_or_else(|| panic!("{step} was refused, and nobody said so"));
        assert_eq!(error.to_string(), format!("{step}: refused by the test: Input/output error"));
        assert_eq!(lab.snapshot(), before, "{step}");
        if let Err(error) = verb(&mut lab.rnet) {
            panic!("a second try after {step}: {error}");
        }
        lab.remove_all();
        assert_eq!(lab.kernel().host(), Vec::<String>::new(), "{step}");
    }
    unreachable!()
}

/// As before, for verbs that unmake: what is unmade stays so, and the next try finishes it. A default route that
/// cannot be handed over stops nothing.
pub(super) fn refused_and_finished_at_each_step<T>(
    lab: impl Fn() -> Lab,
    verb: impl Fn(&mut Rnet<Fake>) -> Result<T, Error>,
) -> usize {
    let mut whole = lab();
    assert!(verb(&mut whole.rnet).is_ok());
    let after = whole.kernel().host().len();
    for number in 0.. {
        let mut lab = lab();
        let (result, step) = lab.refusing(number, &verb);
        let Some(step) = step else {
            assert!(result.is_ok());
            return number;
        };
        if matches!(step, Step::Create(Resource::DefaultRoute { .. })) {
            assert!(result.is_ok());
            continue;
        }
        let error = result.err().unwrap_or_else(|| panic!("{step} was refused, and nobody said so"));
        assert_eq!(error.to_string(), format!("{step}: refused by the test: Input/output error"));
        match verb(&mut lab.rnet) {
            Ok(_) | Err(Error::NotConnected { .. }) => {}
            Err(error) => panic!("a second try after {step}: {error}"),
        }
        assert_eq!(lab.kernel().host().len(), after, "{step}: {:#?}", lab.kernel().host());
        lab.remove_all();
        assert_eq!(lab.kernel().host(), Vec::<String>::new(), "{step}");
    }
    unreachable!()
}

pub(super) fn done<T>(result: Result<T, Error>) -> Result<(), Error> {
    result.map(drop)
}

#[test]
fn create_refused_at_any_step_leaves_nothing() {
    let dual = create("blue", &["10.1.0.0/24", "fd00:1::/64"]);
    let steps = refused_at_each_step(Lab::new, |rnet| rnet.create(dual.clone(), Mode::Do));
    assert_eq!(steps, 22);
}

#[test]
fn create_beside_another_network_refused_at_any_step_leaves_that_one() {
    let red = create("red", &["10.2.0.0/24"]);
    assert_eq!(refused_at_each_step(Lab::blue, |rnet| rnet.create(red.clone(), Mode::Do)), 11);
}

#[test]
fn the_first_connect_refused_at_any_step_leaves_the_network_empty() {
    let steps = refused_at_each_step(Lab::blue, |rnet| rnet.connect(&connect("blue", "web"), Mode::Do));
    assert_eq!(steps, 11);
}

#[test]
fn a_second_connect_refused_at_any_step_leaves_the_first() {
    let lab = || {
        let mut lab = Lab::blue();
        lab.connect(&connect("blue", "web")).unwrap();
        lab
    };
    assert_eq!(refused_at_each_step(lab, |rnet| rnet.connect(&connect("blue", "db"), Mode::Do)), 11);
}

#[test]
fn a_connect_with_ports_refused_at_any_step_publishes_nothing() {
    let ports = ["8080:80", "127.0.0.1:53:53/udp", "9000-9002:9000-9002", "443"];
    let steps =
        refused_at_each_step(Lab::blue, |rnet| rnet.connect(&publish("blue", "web", &ports), Mode::Do));
    assert_eq!(steps, 15);
}

#[test]
fn a_connect_that_takes_over_the_gateway_gives_it_back_when_refused() {
    let lab = || {
        let mut lab = Lab::blue();
        lab.create(&create("amber", &["10.2.0.0/24"])).unwrap();
        lab.connect(&connect("blue", "web")).unwrap();
        lab
    };
    let over = Connect { gateway_priority: 1, ..connect("amber", "web") };
    assert_eq!(refused_at_each_step(lab, |rnet| rnet.connect(&over, Mode::Do)), 10);
}

#[test]
fn the_first_connect_to_the_default_bridge_refused_at_any_step_leaves_no_bridge() {
    let steps =
        refused_at_each_step(Lab::new, |rnet| rnet.connect(&publish("bridge", "web", &["80:80"]), Mode::Do));
    assert_eq!(steps, 25);
}

#[test]
fn a_disconnect_refused_at_any_step_is_finished_by_the_next_command() {
    let lab = || {
        let mut lab = Lab::blue();
        lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
        lab
    };
    let verb = |rnet: &mut Rnet<Fake>| rnet.disconnect("blue", &container("web"), Mode::Do);
    assert_eq!(refused_and_finished_at_each_step(lab, verb), 4);
}

#[test]
fn a_removal_refused_at_any_step_is_finished_by_the_next_try() {
    let verb = |rnet: &mut Rnet<Fake>| done(rnet.remove("blue", false, Mode::Do));
    let steps = refused_and_finished_at_each_step(Lab::blue, |rnet| match verb(rnet) {
        Err(Error::NetworkNotFound { .. }) => Ok(()),
        result => result,
    });
    assert_eq!(steps, 10);
}

#[test]
fn a_forced_removal_refused_at_any_step_is_finished_by_the_next_try() {
    let lab = || {
        let mut lab = Lab::blue();
        lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
        lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
        lab.connect(&connect("red", "web")).unwrap();
        lab.connect(&connect("blue", "db")).unwrap();
        lab
    };
    let verb = |rnet: &mut Rnet<Fake>| match rnet.remove("blue", true, Mode::Do) {
        Err(Error::NetworkNotFound { .. }) => Ok(()),
        result => done(result),
    };
    assert_eq!(refused_and_finished_at_each_step(lab, verb), 15);
}
