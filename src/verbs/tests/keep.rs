//! check, repair, gc, purge, restore: records and kernel are brought together again.

use rnetkit_drivers::{InterfaceName, Resource};

use super::*;

/// A host with two networks, three containers, ports, and a container that is in both.
fn busy() -> Lab {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24", "fd00:2::/64"])).unwrap();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab.connect(&connect("red", "web")).unwrap();
    lab.connect(&connect("blue", "db")).unwrap();
    lab.connect(&publish("bridge", "app", &["53:53/udp"])).unwrap();
    lab
}

fn differences(lab: &mut Lab) -> Vec<String> {
    lab.rnet.check(&[]).unwrap().iter().map(ToString::to_string).collect()
}

/// The kernel loses everything but what is in the namespaces and what the administrator made.
fn lose(lab: &mut Lab, is_lost: impl Fn(&Resource) -> bool) {
    let veths: Vec<Resource> =
        lab.kernel().resources.iter().map(|(_, r)| r.clone()).filter(&is_lost).collect();
    for lost in veths {
        lab.kernel().lose(&lost);
    }
}

#[test]
fn a_host_that_is_as_recorded_has_no_differences_and_needs_no_repair() {
    let mut lab = busy();
    let before = lab.snapshot();
    assert_eq!(differences(&mut lab), Vec::<String>::new());
    assert_eq!(lab.rnet.repair().unwrap(), []);
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn what_is_missing_is_named_with_its_owner_and_made_again() {
    let mut lab = busy();
    let before = lab.snapshot();
    lose(&mut lab, |resource| matches!(resource, Resource::Published(_) | Resource::DefaultRoute { .. }));
    let mut missing = differences(&mut lab);
    missing.sort();
    assert_eq!(
        missing,
        [
            "container app on network bridge: missing: default route via 172.17.0.1 on eth0 in the container",
            "container app on network bridge: missing: publish 0.0.0.0:53/udp to 172.17.0.2:53",
            "container db on network blue: missing: default route via 10.1.0.1 on eth0 in the container",
            "container web on network blue: missing: publish 0.0.0.0:8080/tcp to 10.1.0.2:80",
            "container web on network red: missing: default route via 10.2.0.1 on eth1 in the container",
            "container web on network red: missing: default route via fd00:2::1 on eth1 in the container",
        ]
    );
    assert_eq!(lab.rnet.repair().unwrap().len(), 6);
    assert_eq!(lab.snapshot(), before);
    assert_eq!(differences(&mut lab), Vec::<String>::new());
}

#[test]
fn each_thing_that_is_lost_is_made_again() {
    let mut lab = busy();
    let before = lab.snapshot();
    let all: Vec<Resource> = lab.kernel().resources.iter().map(|(_, resource)| resource.clone()).collect();
    for lost in all.iter().filter(|resource| !resource.is_kept()) {
        lab.kernel().lose(lost);
        assert!(!differences(&mut lab).is_empty(), "{lost}");
        if let Err(error) = lab.rnet.repair() {
            panic!("after the loss of {lost}: {error}");
        }
        assert_eq!(lab.kernel().host(), before.host, "{lost}");
        assert_eq!(differences(&mut lab), Vec::<String>::new(), "{lost}");
    }
    lab.remove_all();
    assert_eq!(lab.kernel().host(), Vec::<String>::new());
}

#[test]
fn a_host_that_lost_everything_is_made_again_whole() {
    let mut lab = busy();
    let before = lab.snapshot();
    lab.kernel().resources.clear();
    lab.rnet.repair().unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn what_was_changed_is_changed_back() {
    let mut lab = Lab::blue();
    lab.connect(&connect("blue", "web")).unwrap();
    let before = lab.snapshot();
    for (_, resource) in &mut lab.kernel().resources {
        if let Resource::DefaultRoute { gateway, .. } = resource {
            *gateway = [10, 1, 0, 99].into();
        }
    }
    assert_eq!(
        differences(&mut lab),
        ["container web on network blue: expected: default route via 10.1.0.1 on eth0 in the container; \
          found: default route via 10.1.0.99 on eth0 in the container"]
    );
    lab.rnet.repair().unwrap();
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_check_can_be_confined_to_networks() {
    let mut lab = busy();
    lose(
        &mut lab,
        |resource| matches!(resource, Resource::Up { link, .. } if link.as_str().starts_with("veth")),
    );
    let of: Vec<String> =
        lab.rnet.check(&["red".to_owned()]).unwrap().into_iter().map(|difference| difference.of).collect();
    assert_eq!(of, ["container web on network red"]);
    assert_eq!(lab.rnet.check(&["pink".to_owned()]).unwrap_err().to_string(), "network pink not found");
}

#[test]
fn a_repair_refused_at_any_step_is_finished_by_the_next() {
    for number in 0.. {
        let mut lab = busy();
        let before = lab.snapshot();
        lab.kernel().resources.clear();
        let (result, step) = lab.refusing(number, |rnet| rnet.repair());
        let Some(step) = step else {
            assert!(number > 50);
            return;
        };
        assert!(result.unwrap_err().to_string().starts_with(&format!("{step}: refused by the test")));
        lab.rnet.repair().unwrap();
        assert_eq!(lab.snapshot(), before, "{step}");
    }
}

#[test]
fn a_repair_killed_at_any_step_is_finished_by_the_next() {
    for number in 0.. {
        let mut lab = busy();
        let before = lab.snapshot();
        lab.kernel().resources.clear();
        let Some(step) = lab.killed(number, |rnet| drop(rnet.repair())) else {
            assert!(number > 50);
            return;
        };
        lab.rnet.repair().unwrap();
        assert_eq!(lab.snapshot(), before, "{step}");
    }
}

#[test]
fn endpoints_of_namespaces_that_are_gone_are_collected() {
    let mut lab = busy();
    lab.kernel().end(&netns("app"));
    lab.kernel().end(&netns("web"));
    let before = lab.snapshot();
    let garbage = lab.rnet.collect_garbage(true).unwrap();
    let orphans = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    let mut found = garbage.orphans.clone();
    found.sort();
    assert_eq!(found, orphans(&[("app", "bridge"), ("web", "blue"), ("web", "red")]));
    assert_eq!(lab.snapshot(), before);
    assert_eq!(lab.rnet.collect_garbage(false).unwrap(), garbage);
    assert_eq!(lab.rnet.collect_garbage(false).unwrap().orphans, []);
    assert_eq!(lab.rnet.containers().unwrap().len(), 1, "db lives");
    assert_eq!(differences(&mut lab), Vec::<String>::new());
    assert!(!lab.kernel().host().contains(&"rnet0 up on the host".to_owned()));
}

#[test]
fn a_purge_leaves_neither_resources_nor_records() {
    let mut lab = busy();
    lab.rnet.purge().unwrap();
    assert_eq!(lab.snapshot(), Snapshot { host: Vec::new(), files: BTreeMap::new() });
}

#[test]
fn a_purge_refused_or_killed_at_any_step_is_finished_by_the_next() {
    let nothing = Snapshot { host: Vec::new(), files: BTreeMap::new() };
    for number in 0.. {
        let mut refused = busy();
        let (_, step) = refused.refusing(number, |rnet| rnet.purge());
        refused.rnet.purge().unwrap();
        assert_eq!(refused.snapshot(), nothing, "{step:?}");
        let mut killed = busy();
        killed.killed(number, |rnet| drop(rnet.purge()));
        killed.rnet.purge().unwrap();
        assert_eq!(killed.snapshot(), nothing, "{step:?}");
        if step.is_none() {
            assert!(number > 20);
            return;
        }
    }
}

#[test]
fn defined_networks_are_restored_after_a_reboot() {
    let mut lab = Lab::blue();
    lab.create(&create("red", &["10.2.0.0/24"])).unwrap();
    let before = lab.kernel().host();
    lab.kernel().resources.clear();
    fs::remove_dir_all(lab.folder.join("run")).unwrap();
    assert_eq!(lab.rnet.restore().unwrap(), ["blue", "red"]);
    assert_eq!(lab.kernel().host(), before);
    assert_eq!(lab.rnet.restore().unwrap(), Vec::<String>::new());
}

#[test]
fn a_network_whose_making_was_killed_is_restored_too() {
    let mut lab = Lab::new();
    lab.killed(6, |rnet| drop(rnet.create(create("blue", &["10.1.0.0/24"]), Mode::Do)));
    assert_eq!(lab.rnet.restore().unwrap(), ["blue"]);
    assert_eq!(lab.kernel().host().len(), 14);
    assert_eq!(differences(&mut lab), Vec::<String>::new());
}

#[test]
fn a_damaged_record_stops_no_other_container() {
    let mut lab = Lab::blue();
    lab.connect(&publish("blue", "web", &["8080:80"])).unwrap();
    lab.connect(&connect("blue", "db")).unwrap();
    let path = lab.snapshot().files.into_keys().find(|name| name.ends_with("endpoints/web.json")).unwrap();
    fs::write(lab.folder.join(&path), "{").unwrap();
    assert_eq!(address(&lab.connect(&connect("blue", "app")).unwrap()), "10.1.0.4/24");
    lab.disconnect("blue", "db").unwrap();
    assert_eq!(lab.rnet.endpoints(&lab.rnet.network("blue").unwrap()).unwrap().len(), 1);
    lab.rnet.remove("blue", true, Mode::Do).unwrap();
    assert_eq!(lab.rnet.containers().unwrap().len(), 0);
}

#[test]
fn links_of_others_are_no_difference() {
    let mut lab = Lab::blue();
    let name: InterfaceName = "br0".parse().unwrap();
    let mac = "02:00:00:00:00:01".parse().unwrap();
    lab.kernel()
        .resources
        .push((None, Resource::Bridge { name, mac, mtu: 1500, group: 0, alias: String::new() }));
    assert_eq!(differences(&mut lab), Vec::<String>::new());
}
