//! `rnet events`: what rnet and others do to what rnet owns, as lines of JSON.

use serde_json::Value;

use crate::{command::Running, harness::tests, lab::Lab};

tests! {
    networks_and_connections_are_told_as_docker_tells_them,
    what_others_do_is_told_with_who_did_it,
    what_belongs_to_nobody_is_not_told,
    filters_choose_and_times_bound,
    a_reader_that_does_not_read_holds_nobody_up_and_is_told_that_it_missed_something,
    bad_words_are_refused,
}

/// A stream of events, listening: a network of before is told first.
struct Stream(Running);

impl Stream {
    #[track_caller]
    fn of(lab: &Lab, options: &[&str]) -> Self {
        let mut stream = Self(lab.start(&[&["events", "--since", "1h"], options].concat()));
        assert_eq!(stream.next()["Action"], "create", "of the network bridge, which is always there");
        stream
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        let line = self.0.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next event of that type and action.
    #[track_caller]
    fn until(&mut self, kind: &str, action: &str) -> Value {
        loop {
            let event = self.next();
            if event["Type"] == kind && event["Action"] == action {
                return event;
            }
        }
    }
}

fn networks_and_connections_are_told_as_docker_tells_them(lab: &Lab) {
    let mut stream = Stream::of(
        lab,
        &["--filter", "type=network", "--filter", "network=bridge", "--filter", "network=blue"],
    );
    let id = lab.rn("network create --subnet 10.81.0.0/24 blue").ok().text();
    lab.namespace("web");
    lab.rn("network connect blue web").ok();
    lab.rn("network disconnect blue web").ok();
    lab.rn("network rm blue").ok();
    let create = stream.until("network", "create");
    assert_eq!(
        create["Actor"],
        serde_json::json!({"ID": id, "Attributes": {"name": "blue", "type": "bridge"}})
    );
    assert_eq!(create["scope"], "local");
    let (seconds, nanoseconds) = (create["time"].as_u64(), create["timeNano"].as_u64());
    assert_eq!(seconds, nanoseconds.map(|time| time / 1_000_000_000), "{create}");
    let connect = stream.next();
    let attributes = &connect["Actor"]["Attributes"];
    assert_eq!((&connect["Action"], &connect["Actor"]["ID"]), (&"connect".into(), &id.clone().into()));
    assert_eq!((&attributes["name"], &attributes["type"]), (&"blue".into(), &"bridge".into()));
    assert_eq!(
        (&attributes["containerName"], &attributes["ipv4Address"]),
        (&"web".into(), &"10.81.0.2/24".into())
    );
    assert_eq!(attributes["container"].as_str().map(str::len), Some(64), "{connect}");
    let disconnect = stream.next();
    assert_eq!(disconnect["Action"], "disconnect");
    assert_eq!(disconnect["Actor"], connect["Actor"]);
    let destroy = stream.next();
    assert_eq!((&destroy["Action"], &destroy["Actor"]), (&"destroy".into(), &create["Actor"]));
}

fn what_others_do_is_told_with_who_did_it(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.namespace("web");
    lab.rn("network connect -p 8080:80 blue web").ok();
    let bridge = lab.bridge_of("blue").expect("a bridge");
    let mut stream = Stream::of(lab, &[]);
    lab.sh("nft 'delete element inet rnet publish4_any { tcp . 8080 }'").ok();
    let update = stream.until("firewall", "update");
    let attributes = &update["Actor"]["Attributes"];
    assert_eq!((&attributes["by"], &attributes["table"]), (&"nft".into(), &"rnet".into()), "{update}");
    assert_eq!((&attributes["made"], &attributes["unmade"]), (&"0".into(), &"1".into()), "{update}");
    lab.sh(&format!("ip link set {bridge} down")).ok();
    let down = stream.until("link", "update");
    assert_eq!(down["Actor"]["ID"], *bridge);
    assert_eq!(down["Actor"]["Attributes"]["state"], "down", "{down}");
    assert_eq!(down["Actor"]["Attributes"]["network"], "blue", "{down}");
    lab.sh(&format!("ip address flush dev {bridge}")).ok();
    let gone = stream.until("address", "destroy");
    assert_eq!(gone["Actor"]["ID"], "10.81.0.1/24", "{gone}");
    lab.sh("nft flush ruleset").ok();
    assert_eq!(stream.until("firewall", "destroy")["Actor"]["Attributes"]["by"], "nft");
    lab.sh(&format!("ip link delete {bridge}")).ok();
    assert_eq!(stream.until("link", "destroy")["Actor"]["ID"], *bridge);
    lab.rn("repair").ok();
    // The kernel tells of links and of the firewall on two sockets: which comes first is not said.
    let (mut linked, mut ruled) = (false, false);
    while !(linked && ruled) {
        let event = stream.next();
        linked |= event["Action"] == "create" && event["Actor"]["ID"] == *bridge;
        ruled |= event["Type"] == "firewall" && event["Actor"]["Attributes"]["by"] == "rnet";
    }
    lab.rn("network rm -f blue").ok();
}

fn what_belongs_to_nobody_is_not_told(lab: &Lab) {
    lab.needs("nft");
    let mut stream = Stream::of(lab, &[]);
    lab.sh("ip link add other type bridge; ip link set other up; ip address add 10.9.0.1/24 dev other").ok();
    lab.sh("nft add table inet other; nft add chain inet other c; nft delete table inet other; ip link delete other").ok();
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    let always = ["bridge", "host", "none"];
    let mut told = stream.next();
    while always.iter().any(|name| told["Actor"]["Attributes"]["name"] == *name) {
        told = stream.next();
    }
    assert_eq!(told["Actor"]["Attributes"]["name"], "blue");
    lab.rn("network rm blue").ok();
}

fn filters_choose_and_times_bound(lab: &Lab) {
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.82.0.0/24 red").ok();
    lab.namespace("web");
    lab.rn("network connect blue web").ok();
    let past = |words: &str| lab.rn(&format!("events --since 1h --until 0s {words}")).ok().text();
    let format = "--format {{.Action}}-{{.Actor.Attributes.name}}";
    assert_eq!(past(&format!("--filter network=red {format}")), "create-red");
    assert_eq!(past(&format!("--filter container=web {format}")), "connect-blue");
    assert_eq!(
        past(&format!("--filter event=create --filter network=blue --filter network=red {format}")),
        "create-blue\ncreate-red"
    );
    assert_eq!(past("--filter type=link"), "");
    assert_eq!(lab.rn("events --since 0s --until 0s").ok().text(), "", "nothing happened since now");
    lab.rn("network rm -f blue red").ok();
}

/// The stream's process is stopped, so that it reads nothing, while more happens than the kernel keeps for it.
fn a_reader_that_does_not_read_holds_nobody_up_and_is_told_that_it_missed_something(lab: &Lab) {
    use rustix::process::Signal;
    lab.rn("network create --subnet 10.81.0.0/24 blue").ok();
    lab.namespace("web");
    lab.rn("network connect blue web").ok();
    let bridge = lab.bridge_of("blue").expect("a bridge");
    let mut stream = Stream::of(lab, &["--filter", "type=network"]);
    stream.0.signal(Signal::STOP);
    let lines: String = (0..1500).map(|n| format!("link set {bridge} mtu {}\n", 1300 + n % 2)).collect();
    std::fs::write("/run/lab/many", lines).expect("a file");
    lab.sh("ip -batch /run/lab/many").ok();
    lab.rn("network disconnect blue web").ok();
    stream.0.signal(Signal::CONT);
    let lost = stream.until("events", "lost");
    assert_eq!(lost["Actor"]["ID"], "kernel");
    lab.rn("network connect blue web").ok();
    assert_eq!(stream.until("network", "connect")["Actor"]["Attributes"]["containerName"], "web");
    lab.rn("network rm -f blue").ok();
}

fn bad_words_are_refused(lab: &Lab) {
    lab.rn("events --since yesterday").fails_with(
        "rnet: invalid --since \"yesterday\": it must be a time as 2026-01-31T12:00:00Z, seconds since 1970, or an age as 10m",
    );
    lab.rn("events --filter colour=red").fails_with(
        "rnet: invalid filter \"colour=red\": the keys are type, event, action, network, container, scope",
    );
    lab.rn("events --filter type").refused(&["it must be KEY=VALUE"]);
    lab.rn("events --format {{.Action").exits(1);
}
