//! The sweep over lists of plugins by the names that everybody's configurations have: each plugin is killed, or one of its
//! calls fails, at the first, second, third … time that it makes each call that could matter. After each the runtime does
//! what runtimes do, DEL of the whole list; then the host is as it was, and the list can be added, reached and deleted.

use serde_json::{Value, json};

use crate::{
    cni_chain::{List, forget, install, ports},
    harness::tests,
    lab::{Lab, Place},
    snapshot::Snapshot,
    sweep::{FAILURES, WRITES, all, was_hit},
};

tests! {
    killed_additions_of_bridge,
    killed_additions_of_portmap,
    killed_additions_of_firewall_and_tuning,
    killed_deletions_of_the_list,
    failing_additions_of_bridge,
    failing_additions_of_portmap,
    failing_additions_of_firewall_and_tuning,
    failing_deletions_of_the_list,
    killed_and_failing_calls_of_ptp_and_macvlan,
}

/// No sweep needs more; one that does not end would be a fault of its own.
const MOST: usize = 400;
/// Each of so many calls fails in any case; of those after them every third, unless all are asked for.
const EACH: usize = 12;

fn usual() -> Vec<Value> {
    vec![
        json!({
            "type": "bridge", "bridge": "cni-sweep", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "routes": [{ "dst": "0.0.0.0/0" }],
                "ranges": [[{ "subnet": "10.89.0.0/24", "gateway": "10.89.0.1" }]],
            },
        }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
        json!({ "type": "firewall", "ingressPolicy": "same-bridge" }),
        json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" }, "txQLen": 77 }),
    ]
}

/// A list on a host, and what the host was like without any container.
struct Sweep<'a> {
    lab: &'a Lab,
    list: List<'a>,
    web: Place,
    without: Snapshot,
    /// Where the container is reached, if it has a port of the host.
    reached_at: Option<&'static str>,
}

impl<'a> Sweep<'a> {
    fn new(lab: &'a Lab, plugins: Vec<Value>) -> Self {
        install(lab);
        let reached_at = (plugins.len() > 1).then_some("192.0.2.1:8080");
        let list = List::new(lab, plugins);
        let web = lab.namespace("web");
        lab.listen_tcp(&web, "0.0.0.0:80");
        list.add(&web, &ports(8080));
        list.del(&web);
        let without = like(lab);
        Self { lab, list, web, without, reached_at }
    }

    /// What plugin `number` gets, and the results of those before it, which are run.
    fn before(&self, number: usize) -> Value {
        let runtime = ports(8080);
        self.list.plugins[..number].iter().fold(Value::Null, |previous, plugin| {
            let config = self.list.config(plugin, &previous, &runtime);
            self.list.call("ADD", &self.web, plugin, &config).ok()
        })
    }

    /// What a runtime does after a failure, and then again.
    fn recovers(&self, inject: &str) {
        self.list.del(&self.web);
        self.lab.namespace_is_fresh(&self.web);
        if let Some(difference) = difference(self.lab, &self.without) {
            panic!("after {inject}: {difference}");
        }
        let result = self.list.add(&self.web, &ports(8080));
        if let Some(address) = self.reached_at {
            self.lab.tcp(&self.lab.lan, address).answered_by(&self.web);
        }
        self.list.check(&self.web, &result, &ports(8080));
        self.list.del(&self.web);
    }

    /// Tries a call of one plugin with every injection of a kind; says how often it was hit.
    fn try_each(&self, verb: &str, number: usize, kills: bool) -> usize {
        let mut hits = 0;
        let kill = [("SIGKILL", "signal=SIGKILL".to_owned())];
        let calls: Vec<(&str, Vec<(&str, String)>)> = if kills {
            // A kill at an open for reading is a kill at the call before.
            WRITES
                .into_iter()
                .filter(|call| *call != "openat" || all())
                .map(|call| (call, kill.to_vec()))
                .collect()
        } else {
            let ways =
                |errors: &'static [&'static str]| errors.iter().take(if all() { errors.len() } else { 1 });
            FAILURES
                .into_iter()
                .map(|(call, errors)| (call, ways(errors).map(|e| (*e, format!("error={e}"))).collect()))
                .collect()
        };
        for (call, ways) in calls {
            for (_, what) in ways {
                let often = (EACH..MOST).step_by(if kills || all() { 1 } else { 3 });
                for when in (1..EACH).chain(often) {
                    let inject = format!("inject={call}:{what}:when={when}");
                    let hit = self.one(verb, number, call, &inject);
                    self.recovers(&format!("{verb} of {}: {inject}", self.list.plugins[number]["type"]));
                    if !hit {
                        break;
                    }
                    hits += 1;
                }
            }
        }
        hits
    }

    /// One call with an injection; whether it was hit.
    fn one(&self, verb: &str, number: usize, call: &str, inject: &str) -> bool {
        let plugin = &self.list.plugins[number];
        let previous = if verb == "ADD" { self.before(number) } else { self.before(self.list.plugins.len()) };
        let config = self.list.config(plugin, &previous, &ports(8080));
        let reply = self.list.call(verb, &self.web, plugin, &config).injected(call, inject);
        let killed = was_hit(self.lab, "killed by SIGKILL");
        let hit = killed || was_hit(self.lab, "INJECTED");
        // Where it is the very words that could not be written, there are none.
        if !killed && !was_hit(self.lab, "write(1,.*INJECTED") {
            reply.is_a_result_or_one_error();
        }
        hit
    }

    fn sweep(&self, verb: &str, numbers: &[usize], kills: bool) {
        let mut hits = 0;
        for number in numbers {
            hits += self.try_each(verb, *number, kills);
        }
        let types: Vec<&str> =
            numbers.iter().filter_map(|n| self.list.plugins[*n]["type"].as_str()).collect();
        let what = if kills { "kills" } else { "failures" };
        println!("sweep: {verb} of {}: {hits} {what}, nothing left", types.join(", "));
        assert!(hits >= 10, "{verb} of {types:?} met {hits} {what} only");
        forget(self.lab);
    }
}

/// The host, whichever address was given out last.
fn like(lab: &Lab) -> Snapshot {
    let _ = std::fs::remove_dir_all("/var/lib/cni");
    lab.snapshot()
}

fn difference(lab: &Lab, earlier: &Snapshot) -> Option<String> {
    let leases = crate::cni_chain::leases();
    let left = (!leases.is_empty()).then(|| format!("addresses are left: {leases:?}"));
    left.or_else(|| earlier.difference(&like(lab)))
}

fn killed_additions_of_bridge(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("ADD", &[0], true);
}

fn killed_additions_of_portmap(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("ADD", &[1], true);
}

fn killed_additions_of_firewall_and_tuning(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("ADD", &[2, 3], true);
}

fn killed_deletions_of_the_list(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("DEL", &[3, 1, 0], true);
}

fn failing_additions_of_bridge(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("ADD", &[0], false);
}

fn failing_additions_of_portmap(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("ADD", &[1], false);
}

fn failing_additions_of_firewall_and_tuning(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("ADD", &[2, 3], false);
}

fn failing_deletions_of_the_list(lab: &Lab) {
    Sweep::new(lab, usual()).sweep("DEL", &[3, 1, 0], false);
}

fn killed_and_failing_calls_of_ptp_and_macvlan(lab: &Lab) {
    let ipam = |subnet: &str, start: &str, gateway: &str| json!({ "type": "host-local", "subnet": subnet, "rangeStart": start, "gateway": gateway });
    let ptp =
        json!({ "type": "ptp", "ipMasq": true, "ipam": ipam("10.89.0.0/24", "10.89.0.2", "10.89.0.1") });
    let macvlan = json!({ "type": "macvlan", "master": "uplink0", "ipam": ipam("192.0.2.0/24", "192.0.2.128", "192.0.2.2") });
    for plugin in [ptp, macvlan] {
        for verb in ["ADD", "DEL"] {
            for kills in [true, false] {
                Sweep::new(lab, vec![plugin.clone()]).sweep(verb, &[0], kills);
                lab.silence(&lab.known("web"));
                lab.delete_namespace(&lab.known("web"));
            }
        }
    }
}
