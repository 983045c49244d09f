//! Records that are damaged, lost or of another version: named, set aside, and what they stood for taken back or
//! recorded anew. Nobody else is stopped.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::{
    command::{Running, until},
    harness::tests,
    lab::{Lab, Place},
};

tests! {
    a_damaged_endpoint_is_named_and_what_it_stood_for_taken_back,
    a_damaged_record_of_a_network_is_made_again_and_its_containers_go_on,
    a_damaged_record_of_what_networks_share_is_made_again,
    what_an_endpoint_of_a_newer_rnet_stands_for_is_left,
    strays_of_another_instance_are_left,
    a_damaged_record_of_a_running_container_stops_nobody_else,
    a_run_that_is_killed_is_taken_down_at_once,
    a_detached_run_whose_watcher_is_killed_keeps_its_log,
    who_lives_in_a_later_namespace_of_the_same_inode_is_left_alone,
}

/// Network blue with servers web and db, ports 8080 and 8081 published.
fn blue(lab: &Lab) -> [Place; 2] {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    [lab.web("blue", "web", &["-p", "8080:80"]), lab.web("blue", "db", &["-p", "8081:80"])]
}

/// The only file that a pattern of the shell finds.
#[track_caller]
fn file(lab: &Lab, pattern: &str) -> PathBuf {
    PathBuf::from(lab.sh(&format!("ls -d {pattern}")).ok().text())
}

#[track_caller]
fn damage(lab: &Lab, path: &Path) {
    lab.sh(&format!("truncate -s -9 {}", path.display())).ok();
}

/// Both answer, from outside and to each other.
#[track_caller]
fn all_is_well(lab: &Lab, [web, db]: &[Place; 2]) {
    lab.rn("check").ok().prints("");
    lab.rn("repair").ok().prints("");
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(web);
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(db);
    lab.tcp(web, "10.81.0.3:80").answered_by(db);
    lab.audit("blue");
    lab.rn("network rm -f blue").ok();
}

fn a_damaged_endpoint_is_named_and_what_it_stood_for_taken_back(lab: &Lab) {
    let places = blue(lab);
    let record = file(lab, "/run/rnet/networks/*/endpoints/web.json");
    damage(lab, &record);
    lab.tcp(&lab.lan, "192.0.2.1:8081").answered_by(&places[1]);
    let check = lab.rn("check").exits(1);
    check.no_panic();
    let port = lab.sh("ip -br link show type veth | cut -d@ -f1").ok();
    assert!(
        check
            .stdout()
            .contains("host: not on record: element of set publish4_any { tcp . 8080 : 10.81.0.2 . 80 }"),
        "{check}"
    );
    let stray = port
        .stdout()
        .lines()
        .find(|port| check.stdout().contains(&format!("not on record: link {port} (rnet:")));
    assert!(stray.is_some(), "{check}");
    let aside = format!("a damaged record was set aside as {}.damaged", record.display());
    assert!(check.stdout().contains(&aside), "{check}");

    lab.namespace("other");
    lab.rn("network connect blue other").ok();
    lab.rn("network disconnect blue other").ok();
    lab.rn("gc --dry-run")
        .ok()
        .mentions("element of set publish4_any { tcp . 8080 : 10.81.0.2 . 80 }, which no record names");
    lab.rn("repair").ok().mentions("host: - link veth");
    lab.rn("repair").ok().prints("");
    lab.rn("check").ok().prints("");
    lab.namespace_is_fresh(&places[0]);
    lab.rn("network connect -p 8080:80 --ip 10.81.0.2 blue web").ok();
    all_is_well(lab, &places);
}

fn a_damaged_record_of_a_network_is_made_again_and_its_containers_go_on(lab: &Lab) {
    let places = blue(lab);
    damage(lab, &file(lab, "/run/rnet/networks/*/state.json"));
    lab.namespace("other");
    lab.rn("network connect blue other").ok();
    lab.rn("network disconnect blue other").ok();
    lab.rn("gc").ok().mentions("state.json.damaged");
    all_is_well(lab, &places);
}

fn a_damaged_record_of_what_networks_share_is_made_again(lab: &Lab) {
    let places = blue(lab);
    damage(lab, &file(lab, "/run/rnet/host.json"));
    drop(lab.rn("network ls"));
    lab.rn("network create --subnet 10.82.0.0/24 red").ok();
    lab.namespace("other");
    lab.rn("network connect red other").ok();
    lab.rn("network rm -f red").ok();
    lab.rn("gc").ok().mentions("host.json.damaged");
    all_is_well(lab, &places);
}

fn what_an_endpoint_of_a_newer_rnet_stands_for_is_left(lab: &Lab) {
    let places = blue(lab);
    let record = file(lab, "/run/rnet/networks/*/endpoints/web.json");
    let version = |from: u32, to: u32| {
        lab.sh(&format!("sed -i 's/\"version\":{from}/\"version\":{to}/' {}", record.display())).ok();
    };
    version(1, 999);
    let here = lab.snapshot();
    lab.rn("network disconnect blue web").refused(&["newer rnet", "999", "web.json"]);
    for words in ["check", "repair", "gc"] {
        lab.rn(words).no_panic();
        lab.is_like(&here);
    }
    lab.tcp(&lab.lan, "192.0.2.1:8080").answered_by(&places[0]);
    version(999, 1);
    all_is_well(lab, &places);
}

fn strays_of_another_instance_are_left(lab: &Lab) {
    let places = blue(lab);
    let other = |words: &str| lab.rn(&format!("--root /var/lib/second --run /run/second {words}"));
    lab.namespace("theirs");
    other("network create --subnet 10.83.0.0/24 green").ok();
    other("network connect -p 8090:80 green theirs").ok();
    let here = lab.snapshot();
    lab.rn("gc").ok().prints("");
    lab.rn("repair").ok().prints("");
    other("gc").ok().prints("");
    lab.is_like(&here);
    other("network rm -f green").ok();
    other("purge").ok();
    all_is_well(lab, &places);
}

fn a_damaged_record_of_a_running_container_stops_nobody_else(lab: &Lab) {
    lab.rn("run -d --name one -- sleep 1000").ok();
    lab.rn("run -d --name two -p 8082:80 -- sleep 1000").ok();
    let watcher = watcher_of(lab, "one");
    damage(lab, &file(lab, "/run/rnet/containers/one/run.json"));
    lab.rn("ps").ok().mentions("two");
    lab.rn("check").exits(1).mentions("containers/one/run.json.damaged");
    lab.rn("rm -f two").ok();
    rustix::process::kill_process(watcher, Signal::KILL).expect("it lives");
    lab.rn("gc").ok();
    becomes_clean(lab);
    lab.rn("ps -aq").ok().prints("");
}

/// The kernel gives the inode of a namespace that is gone to one that comes later: who lives there is not taken for what
/// a killed container left.
fn who_lives_in_a_later_namespace_of_the_same_inode_is_left_alone(lab: &Lab) {
    lab.rn("run -d --name one --network none -- sleep 1000").ok();
    let other = lab.namespace("other");
    let stranger = other.inside(|| Running::start(&mut lab.command("sleep", &["1000"])));
    let record = "/run/rnet/containers/one/run.json";
    let place = lab.sh("stat -L -c %d,%i /run/netns/other").ok().text();
    let watcher = watcher_of(lab, "one");
    lab.sh(&format!("sed -Ei 's/\"file\":\\[[0-9]+,[0-9]+\\]/\"file\":[{place}]/' {record} && grep -qF '[{place}]' {record}")).ok();
    rustix::process::kill_process(watcher, Signal::KILL).expect("it lives");
    until("its end is noticed", || lab.rn("ps -a").ok().stdout().contains("Exited (137)"));
    lab.rn("gc").ok();
    assert!(!stranger.ended_within(Duration::from_millis(200)), "a stranger was killed");
    stranger.signal(Signal::KILL);
    assert!(stranger.ended_within(Duration::from_secs(20)));
    let _ = stranger.wait();
    lab.rn("rm one").ok();
}

/// Waits, without any further command of rnet, for the host to be as it was.
#[track_caller]
fn becomes_clean(lab: &Lab) {
    let end = Instant::now() + Duration::from_secs(20);
    while !lab.sh("ip -br link show type bridge; nft list tables; ls /run/rnet/running").text().is_empty() {
        assert!(Instant::now() < end, "nobody takes it down");
    }
    lab.is_clean();
}

/// The process that holds the lock of a container of `rnet run`.
#[track_caller]
fn watcher_of(lab: &Lab, name: &str) -> Pid {
    // Other tests have file systems of their own, with the same numbers.
    let file = lab.sh(&format!("printf %02x:%02x:%d $(stat -c '%Hd %Ld %i' /run/rnet/running/{name})"));
    let file = file.ok().text();
    let pid = lab.sh(&format!("grep ' {file} ' /proc/locks | tr -s ' ' | cut -d' ' -f5")).ok().text();
    Pid::from_raw(pid.parse().expect("a lock")).expect("a process")
}

fn a_run_that_is_killed_is_taken_down_at_once(lab: &Lab) {
    lab.needs("nft");
    let leaves_another = "echo ready; setsid sleep 1000 & sleep 1000";
    let mut running = lab.start(&["run", "--name", "web", "-p", "8080:80", "--", "sh", "-c", leaves_another]);
    assert_eq!(running.line(), "ready");
    running.signal(Signal::KILL);
    assert!(running.ended_within(Duration::from_secs(20)));
    becomes_clean(lab);
}

fn a_detached_run_whose_watcher_is_killed_keeps_its_log(lab: &Lab) {
    lab.rnet(&["run", "-d", "--name", "web", "--", "sh", "-c", "echo hello; sleep 1000"]).ok();
    while lab.rn("logs web").ok().stdout() != "hello\n" {}
    rustix::process::kill_process(watcher_of(lab, "web"), Signal::KILL).expect("it lives");
    let end = Instant::now() + Duration::from_secs(20);
    while !lab.rn("ps -a").ok().stdout().contains("Exited (137)") {
        assert!(Instant::now() < end, "its end is not noticed");
    }
    lab.rn("logs web").ok().prints("hello\n");
    lab.rn("rm web").ok();
}
