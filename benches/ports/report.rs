//! What was measured, as a table for people and as JSON; beside it what was to be reached.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// All that was measured.
#[derive(Default)]
pub struct Results {
    /// Contenders, and their connections per second.
    rates: Vec<(String, Vec<f64>)>,
    /// Rules, elements and processes of rnet with so many ports.
    pub counts: Vec<(String, [usize; 3])>,
    /// Bytes per second over the bare bridge and over rnet's; without and with `br_netfilter`.
    pub throughput: [Vec<(f64, f64)>; 2],
    /// Milliseconds of an attach with one port, and with all.
    pub attaches: Vec<(f64, f64)>,
    /// Elements that all ports of one protocol are, for IPv4.
    pub elements: usize,
}

/// A figure, what was to be reached, and whether it was.
struct Goal {
    figure: String,
    value: f64,
    goal: f64,
    at_least: bool,
}

impl Goal {
    fn reached(&self) -> bool {
        if self.at_least { self.value >= self.goal } else { self.value <= self.goal }
    }
}

fn median(list: impl IntoIterator<Item = f64>) -> f64 {
    let mut list: Vec<f64> = list.into_iter().collect();
    list.sort_by(f64::total_cmp);
    list.get(list.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Results {
    /// Notes a sample.
    pub fn rate(&mut self, name: &str, rate: f64) {
        match self.rates.iter_mut().find(|(other, _)| other == name) {
            Some((_, list)) => list.push(rate),
            None => self.rates.push((name.to_owned(), vec![rate])),
        }
    }

    /// The median of the ratios of samples of the same round.
    fn ratio(&self, name: &str, to: &str) -> f64 {
        let list =
            |name: &str| self.rates.iter().find(|(other, _)| other == name).map(|(_, list)| list.clone());
        let (Some(a), Some(b)) = (list(name), list(to)) else { return f64::NAN };
        median(a.into_iter().zip(b).map(|(a, b)| a / b))
    }

    fn goals(&self) -> Vec<Goal> {
        let plain = "no translation";
        let rnet = |count: usize| format!("rnet, {count} ports");
        let rules = |count: usize| format!("a rule each, {count} ports");
        let mut list = Vec::new();
        let mut goal =
            |figure: String, value, goal, at_least| list.push(Goal { figure, value, goal, at_least });
        for count in crate::PORTS {
            goal(
                format!("connections, rnet with {count} ports : no translation"),
                self.ratio(&rnet(count), plain),
                0.85,
                true,
            );
        }
        goal(
            "connections, rnet with 10000 ports : with 1".to_owned(),
            self.ratio(&rnet(10_000), &rnet(1)),
            0.9,
            true,
        );
        goal(
            "connections, rnet : a rule each, 1000 ports".to_owned(),
            self.ratio(&rnet(1000), &rules(1000)),
            3.0,
            true,
        );
        goal(
            "connections, rnet : a rule each, 10000 ports".to_owned(),
            self.ratio(&rnet(10_000), &rules(10_000)),
            15.0,
            true,
        );
        for (list, how) in self.throughput.iter().zip(["", ", with br_netfilter"]) {
            let ratio = median(list.iter().map(|(bare, ours)| ours / bare));
            goal(format!("throughput, rnet : bare bridge{how}"), ratio, 0.97, true);
        }
        let attach = median(self.attaches.iter().map(|(one, all)| all / one));
        goal("attach, -p 1-65535:1-65535 : one port".to_owned(), attach, 2.0, false);
        goal(
            "elements of -p 1-65535:1-65535, a family and protocol".to_owned(),
            self.elements as f64,
            1.0,
            false,
        );
        let count = |what: usize| self.counts.iter().map(move |(_, counts)| counts[what] as f64);
        goal("processes of rnet, whatever is published".to_owned(), count(2).fold(0.0, f64::max), 0.0, false);
        let grown = count(0).fold(0.0, f64::max) - count(0).fold(f64::INFINITY, f64::min);
        goal("rules more with 10000 ports than with 1".to_owned(), grown, 0.0, false);
        list
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "\nnew TCP connections per second, one client, through the last of N ports (median, lowest, highest)\n",
        );
        for (name, list) in &self.rates {
            let (low, high) = (
                list.iter().copied().fold(f64::INFINITY, f64::min),
                list.iter().copied().fold(0.0, f64::max),
            );
            let _ = writeln!(text, "  {name:<28} {:>8.0} {low:>8.0} {high:>8.0}", median(list.clone()));
        }
        text.push_str("\nthroughput between containers, GB/s (bare bridge, rnet)\n");
        for (list, how) in self.throughput.iter().zip(["bridge alone", "with br_netfilter"]) {
            let of = |ours: bool| median(list.iter().map(|pair| if ours { pair.1 } else { pair.0 })) / 1e9;
            let _ = writeln!(text, "  {how:<28} {:>8.2} {:>8.2}", of(false), of(true));
        }
        let _ = writeln!(
            text,
            "\nattach, ms: one port {:.2}, all ports {:.2}",
            median(self.attaches.iter().map(|pair| pair.0)),
            median(self.attaches.iter().map(|pair| pair.1))
        );
        for (name, [rules, elements, processes]) in &self.counts {
            let _ = writeln!(text, "{name}: {rules} rules, {elements} elements, {processes} processes");
        }
        text.push_str("\n                                                          measured     goal\n");
        for goal in self.goals() {
            let sign = if goal.at_least { "≥" } else { "≤" };
            let mark = if goal.reached() { "reached" } else { "NOT reached" };
            let _ =
                writeln!(text, "  {:<54} {:>8.2}   {sign} {:<5} {mark}", goal.figure, goal.value, goal.goal);
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let goals: Vec<Value> = self
            .goals()
            .iter()
            .map(|goal| json!({ "figure": goal.figure, "value": goal.value, "goal": goal.goal, "at_least": goal.at_least, "reached": goal.reached() }))
            .collect();
        let shown = json!({
            "connections_per_second": self.rates.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "bytes_per_second": { "bridge": self.throughput[0], "br_netfilter": self.throughput[1] },
            "attach_ms": self.attaches,
            "rules_elements_processes": self.counts,
            "goals": goals,
        });
        format!("{shown:#}\n")
    }
}
