//! Published ports, in one run: new connections per second through one of many, beside the way without translation and
//! beside one rule for each port; what a range of all ports costs; throughput between containers. As root:
//! `cargo bench --bench ports`, with `-- --quick` for a run under a minute.
//!
//! Each contender has a host of its own; samples go round, so that noise hits all alike, and every figure is a ratio of
//! medians of the same run. Also written: `target/bench/ports.json`.

#[path = "ports/hosts.rs"]
mod hosts;
#[allow(dead_code)]
#[path = "attach/lab.rs"]
mod lab;
#[path = "ports/report.rs"]
mod report;
#[path = "ports/traffic.rs"]
mod traffic;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use hosts::Host;
use lab::{Done, Lab};
use report::Results;

/// How much is measured.
struct Size {
    rounds: usize,
    sample: Duration,
    attaches: usize,
}

const FULL: Size = Size { rounds: 21, sample: Duration::from_millis(500), attaches: 21 };
const QUICK: Size = Size { rounds: 7, sample: Duration::from_millis(250), attaches: 9 };

/// How many ports are published.
pub const PORTS: [usize; 3] = [1, 1_000, 10_000];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("ports: this is a measurement, not a test: cargo bench --bench ports");
        return ExitCode::SUCCESS;
    }
    let size = if words.iter().any(|word| word == "--quick") { &QUICK } else { &FULL };
    match bench(size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ports: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(size: &Size) -> Done {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [rnet, _] = lab::build()?;
    let mut results = Results::default();
    rates(size, &rnet, &mut results)?;
    throughput(size, &rnet, &mut results)?;
    whole_range(size, &rnet, &mut results)?;
    print!("{}", results.table());
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let path = folder.join("ports.json");
    fs::write(&path, results.json()).map_err(|error| format!("{}: {error}", path.display()))
}

type Contender = (String, Lab<Host>);

/// New connections per second, all by turns.
fn rates(size: &Size, rnet: &Path, results: &mut Results) -> Done {
    let mut contenders: Vec<Contender> = vec![open("no translation", Host::plain)?];
    contenders.push(open("no translation, tracked", Host::tracked)?);
    for count in PORTS {
        let rnet = rnet.to_owned();
        contenders.push(open(&format!("rnet, {count} ports"), move || Host::rnet(&rnet, count))?);
    }
    for count in PORTS {
        contenders.push(open(&format!("a rule each, {count} ports"), move || Host::rules(count))?);
    }
    for (name, lab) in &contenders[2..2 + PORTS.len()] {
        results.counts.push((name.clone(), lab.ask(|host| host.counts())?));
    }
    let sample = size.sample;
    for round in 0..=size.rounds {
        eprint!("\rconnections: round {round} of {}", size.rounds);
        for turn in 0..contenders.len() {
            let (name, lab) = &contenders[(round + turn) % contenders.len()];
            let rate =
                lab.ask(move |host| host.connections(sample)).map_err(|error| format!("{name}: {error}"))?;
            // The first round warms up.
            if round > 0 {
                results.rate(name, rate);
            }
        }
    }
    eprintln!();
    Ok(())
}

fn open(name: &str, make: impl FnOnce() -> Done<Host> + Send + 'static) -> Done<Contender> {
    eprintln!("{name}");
    Lab::open(3, make).map(|lab| (name.to_owned(), lab)).map_err(|error| format!("{name}: {error}"))
}

/// Bytes per second from one container to another, with the bridge's own way and with the host's firewall looking
/// into the bridge (`br_netfilter`), which some kernels do in every new namespace.
fn throughput(size: &Size, rnet: &Path, results: &mut Results) -> Done {
    for filtered in [false, true] {
        let path = rnet.to_owned();
        let bare =
            open("bare veth on a bare bridge", move || Host::plain().and_then(|host| host.filter(filtered)))?
                .1;
        let ours = open("rnet", move || Host::rnet(&path, 1).and_then(|host| host.filter(filtered)))?.1;
        let sample = size.sample;
        for round in 0..=size.rounds {
            eprint!("\rthroughput: round {round} of {}", size.rounds);
            let pair = if round % 2 == 0 {
                let a = bare.ask(move |host| host.throughput(sample))?;
                (a, ours.ask(move |host| host.throughput(sample))?)
            } else {
                let b = ours.ask(move |host| host.throughput(sample))?;
                (bare.ask(move |host| host.throughput(sample))?, b)
            };
            if round > 0 {
                results.throughput[usize::from(filtered)].push(pair);
            }
        }
        eprintln!();
    }
    Ok(())
}

/// A whole attach that publishes one port, and one that publishes all.
fn whole_range(size: &Size, rnet: &Path, results: &mut Results) -> Done {
    let path = rnet.to_owned();
    let (_, lab) = open("attach", move || Host::rnet(&path, 1))?;
    for round in 0..=size.attaches {
        eprint!("\rattach: round {round} of {}", size.attaches);
        let pair = lab.ask(|host| Ok((host.attach("8080:80")?, host.attach("1-65535:1-65535")?)))?;
        if round > 0 {
            results.attaches.push(pair);
        }
    }
    eprintln!();
    results.elements = lab.ask(|host| host.elements_of("1-65535:1-65535"))?;
    Ok(())
}
