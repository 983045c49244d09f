//! Commands side by side, and commands that are killed in the middle.

use std::collections::BTreeSet;

use crate::{
    command::{Output, Running},
    harness::tests,
    lab::Lab,
};

tests! {
    a_hundred_attaches_started_at_once,
    one_port_wanted_by_many_goes_to_one,
    one_name_wanted_by_many_goes_to_one,
    networks_made_at_once_have_different_subnets,
    attaches_and_detaches_side_by_side,
    an_attach_beside_the_removal_of_its_network,
    the_same_attach_many_times_at_once,
    after_a_killed_connect_everything_works_and_nothing_is_left,
    after_a_killed_connect_the_network_can_be_removed,
    after_a_killed_disconnect_nothing_is_left,
    after_a_killed_create_nothing_is_in_the_way,
}

/// Starts all of them before it waits for the first.
fn at_once(lab: &Lab, lines: impl IntoIterator<Item = String>) -> Vec<Output> {
    let started: Vec<Running> =
        lines.into_iter().map(|line| lab.start(&line.split(' ').collect::<Vec<_>>())).collect();
    started.into_iter().map(Running::wait).collect()
}

fn a_hundred_attaches_started_at_once(lab: &Lab) {
    lab.rn("network create blue").ok();
    for number in 0..100 {
        lab.namespace(&format!("c{number}"));
    }
    let connect = |number| format!("network connect -p {}:80 blue c{number}", 8000 + number);
    for output in at_once(lab, (0..100).map(connect)) {
        output.ok();
    }
    let shown = lab.inspect("blue");
    let endpoints = shown["Containers"].as_object().expect("containers");
    let addresses: BTreeSet<&str> = endpoints.values().filter_map(|e| e["IPv4Address"].as_str()).collect();
    let expected: BTreeSet<String> = (2..102).map(|number| format!("172.18.0.{number}/16")).collect();
    assert_eq!(addresses, expected.iter().map(String::as_str).collect());
    lab.audit("blue");
    for output in at_once(lab, (0..100).map(|number| format!("network disconnect blue c{number}"))) {
        output.ok();
    }
    lab.rn("network rm blue").ok();
}

fn one_port_wanted_by_many_goes_to_one(lab: &Lab) {
    lab.rn("network create blue").ok();
    let places: Vec<_> = (0..10).map(|number| lab.namespace(&format!("c{number}"))).collect();
    for place in &places {
        lab.listen_tcp(place, "0.0.0.0:80");
    }
    let outputs = at_once(lab, (0..10).map(|number| format!("network connect -p 8080:80 blue c{number}")));
    let mut winners = Vec::new();
    for (place, output) in places.iter().zip(outputs) {
        if output.succeeded() {
            winners.push(place);
        } else {
            output.refused(&["8080/tcp"]);
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(winners[0]);
    lab.audit("blue");
    lab.rn("network rm -f blue").ok();
}

fn one_name_wanted_by_many_goes_to_one(lab: &Lab) {
    let outputs =
        at_once(lab, (0..10).map(|number| format!("network create --subnet 10.80.{number}.0/24 blue")));
    let (won, lost): (Vec<Output>, Vec<Output>) = outputs.into_iter().partition(Output::succeeded);
    assert_eq!(won.len(), 1);
    assert_eq!(lab.inspect("blue")["Id"], won[0].text());
    for output in lost {
        output.refused(&["blue"]);
    }
    lab.rn("network rm blue").ok();
}

fn networks_made_at_once_have_different_subnets(lab: &Lab) {
    for output in at_once(lab, (0..10).map(|number| format!("network create net{number}"))) {
        output.ok();
    }
    let template = "{{(index .IPAM.Config 0).Subnet}}";
    let subnets: BTreeSet<String> = (0..10)
        .map(|number| {
            lab.rnet(&["network", "inspect", "--format", template, &format!("net{number}")]).ok().text()
        })
        .collect();
    assert_eq!(subnets.len(), 10, "{subnets:?}");
    lab.rn("network prune -f").ok();
}

fn attaches_and_detaches_side_by_side(lab: &Lab) {
    lab.rn("network create blue").ok();
    for number in 0..20 {
        lab.namespace(&format!("c{number}"));
    }
    for round in 0..5 {
        let verb =
            |number: usize| if (number + round).is_multiple_of(2) { "connect" } else { "disconnect -f" };
        for output in at_once(lab, (0..20).map(|number| format!("network {} blue c{number}", verb(number)))) {
            output.ok();
        }
        lab.audit("blue");
    }
    lab.rn("network rm -f blue").ok();
}

fn an_attach_beside_the_removal_of_its_network(lab: &Lab) {
    let web = lab.namespace("web");
    for _ in 0..10 {
        lab.rn("network create blue").ok();
        lab.inspect("blue");
        let outputs = at_once(lab, ["network connect blue web".to_owned(), "network rm -f blue".to_owned()]);
        let [connect, remove] = <[Output; 2]>::try_from(outputs).unwrap_or_else(|_| panic!("two commands"));
        if !connect.succeeded() {
            connect.refused(&["blue"]);
        }
        remove.ok();
        lab.rn("network rm -f blue").ok();
        lab.is_clean();
        lab.namespace_is_fresh(&web);
    }
}

fn the_same_attach_many_times_at_once(lab: &Lab) {
    lab.rn("network create blue").ok();
    let web = lab.namespace("web");
    let outputs = at_once(lab, (0..8).map(|_| "network connect -p 8080:80 blue web".to_owned()));
    assert_eq!(outputs.iter().filter(|output| output.succeeded()).count(), 1);
    for output in outputs.into_iter().filter(|output| !output.succeeded()) {
        output.refused(&["web"]);
    }
    assert_eq!(web.addresses("eth0").len(), 1);
    lab.audit("blue");
    lab.rn("network rm -f blue").ok();
}

/// The calls by which a command writes to the kernel or to its records.
const CALLS: [&str; 7] = ["sendto", "sendmsg", "write", "rename", "openat", "unlink", "clone"];

/// Kills the command at the first, second, third … time that it makes each of the calls, until it gets through.
/// What `before` and `after` do to the host each time must cancel out.
fn kill_everywhere(lab: &Lab, words: &[&str], most: usize, before: impl Fn(), after: impl Fn()) {
    let mut kills = 0;
    for call in CALLS {
        for when in 1..=most {
            before();
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let output = lab.strace(&["-e", &format!("trace={call}"), "-e", &inject], words);
            output.no_panic();
            after();
            lab.is_clean();
            if !output.was_killed() {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 3, "`rnet {}` was killed {kills} times only", words.join(" "));
}

fn after_a_killed_connect_everything_works_and_nothing_is_left(lab: &Lab) {
    let (web, db) = (lab.namespace("web"), lab.namespace("db"));
    lab.listen_tcp(&web, "0.0.0.0:80");
    let before = || {
        lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    };
    let after = || {
        // Another container has a network as if nothing had been, and the same command works the second time,
        // or else was done already when it was killed.
        lab.rn("network connect blue db").ok();
        let again = lab.rn("network connect -p 8081:80 blue web");
        if !again.succeeded() {
            again.refused(&["web", "blue"]);
        }
        let address = lab.address("blue", "web");
        lab.tcp(&db, &format!("{address}:80")).answered_by(&web);
        lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&web);
        lab.audit("blue");
        lab.rn("network disconnect blue db").ok();
        lab.rn("network disconnect blue web").ok();
        lab.rn("network rm blue").ok();
    };
    kill_everywhere(lab, &["network", "connect", "-p", "8081:80", "blue", "web"], 8, before, after);
}

fn after_a_killed_connect_the_network_can_be_removed(lab: &Lab) {
    let web = lab.namespace("web");
    let before = || {
        lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    };
    let after = || {
        lab.rn("network rm -f blue").ok();
        lab.namespace_is_fresh(&web);
    };
    kill_everywhere(lab, &["network", "connect", "-p", "8081:80", "blue", "web"], 6, before, after);
}

fn after_a_killed_disconnect_nothing_is_left(lab: &Lab) {
    let web = lab.namespace("web");
    let before = || {
        lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
        lab.rn("network connect -p 8081:80 blue web").ok();
    };
    let after = || {
        lab.rn("network disconnect -f blue web").ok();
        lab.namespace_is_fresh(&web);
        lab.rn("network rm blue").ok();
    };
    kill_everywhere(lab, &["network", "disconnect", "blue", "web"], 6, before, after);
}

fn after_a_killed_create_nothing_is_in_the_way(lab: &Lab) {
    let after = || {
        lab.rn("network rm -f blue").ok();
        lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
        lab.rn("network rm blue").ok();
    };
    kill_everywhere(lab, &["network", "create", "--subnet", "10.81.0.0/24", "blue"], 6, || (), after);
}
