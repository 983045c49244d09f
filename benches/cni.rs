//! rnet as a CNI plugin beside the CNI project's own plugins (Debian's), whole processes, in one run:
//! `cargo bench --bench cni` as root, `-- --quick` for fewer samples.
//!
//! Each contender has a host of its own; samples go round, so that noise hits all alike. All programs are on one file
//! system, as they are where they are installed, and all are waited for in the same way: their output is read to its end.
//! What a runtime does between two plugins of a list is not counted. At 1,000 containers those of
//! rnet are real ones. For the plugins of the CNI project the rules and the files of leases of so many are loaded in
//! bulk, as their own ADD left them for the first; they would need a quarter of an hour to make them.

#[allow(dead_code)]
#[path = "attach/lab.rs"]
mod lab;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use lab::{Done, Lab, netns, port, run, settle, timed, timed_at_once};
use serde_json::{Value, json};

const MANY: usize = 1000;
const AT_ONCE: usize = 64;
const THEIRS: &str = "/usr/lib/cni";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("cni: this is a measurement, not a test: cargo bench --bench cni");
        return ExitCode::SUCCESS;
    }
    let samples = if words.iter().any(|word| word == "--quick") { 11 } else { 41 };
    match bench(samples) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cni: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `rnet network connect` and `disconnect`.
    Command,
    /// Type `rnet`.
    Native,
    /// rnet as bridge, host-local, portmap, firewall, tuning.
    Names,
    /// Those plugins themselves.
    Reference,
}

const ALL: [(Kind, &str); 4] = [
    (Kind::Command, "rnet network connect"),
    (Kind::Native, "type rnet"),
    (Kind::Names, "rnet as bridge, portmap, firewall, tuning"),
    (Kind::Reference, "bridge, portmap, firewall, tuning (Debian)"),
];

struct Contender {
    kind: Kind,
    rnet: PathBuf,
    /// The same file by the names of plugins.
    plugins: PathBuf,
}

impl Contender {
    fn new(kind: Kind, rnet: PathBuf) -> Done<Self> {
        let plugins = rnet.with_file_name("bench-plugins");
        let contender = Self { kind, rnet, plugins };
        let rnet = || Command::new(&contender.rnet);
        run(rnet().args(["cni", "install", "--aliases", "--dir"]).arg(&contender.plugins))?;
        match kind {
            Kind::Command | Kind::Native => {
                run(rnet().args(["network", "create", "--subnet", "172.18.0.0/16", "blue"])).map(drop)?;
            }
            Kind::Names => {}
            Kind::Reference if !Path::new(THEIRS).join("bridge").exists() => {
                return Err(format!("there are no plugins in {THEIRS}"));
            }
            Kind::Reference => {}
        }
        Ok(contender)
    }

    fn list(&self) -> Vec<Value> {
        if self.kind == Kind::Native {
            return vec![json!({ "type": "rnet", "network": "blue" })];
        }
        vec![
            json!({
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": "/run/leases", "ranges": [[{ "subnet": "10.90.0.0/16" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }),
            json!({ "type": "portmap" }),
            json!({ "type": "firewall" }),
            json!({ "type": "tuning" }),
        ]
    }

    fn plugin(&self, verb: &str, container: usize, plugin: &Value, previous: &Value) -> Done<Command> {
        let mut config = plugin.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("bench");
        if ["rnet", "portmap"].contains(&plugin["type"].as_str().unwrap_or_default()) {
            config["runtimeConfig"] = json!({
                "portMappings": [{ "hostPort": port(container), "containerPort": 80, "protocol": "tcp" }],
            });
        }
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let input = format!("/run/stdin-{container}");
        let file = fs::write(&input, config.to_string()).and_then(|()| fs::File::open(&input));
        let folder = if self.kind == Kind::Reference { Path::new(THEIRS) } else { &self.plugins };
        let mut command = Command::new(folder.join(plugin["type"].as_str().unwrap_or_default()));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("c{container}"))
            .env("CNI_NETNS", netns(container))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", folder)
            .stdin(file.map_err(|error| error.to_string())?);
        Ok(command)
    }

    fn command(&self, verb: &str, container: usize) -> Command {
        let mut command = Command::new(&self.rnet);
        command.args(["network", verb]);
        if verb == "connect" {
            command.args(["-p", &format!("{}:80", port(container))]);
        }
        command.args(["blue", &format!("c{container}")]);
        command
    }

    fn add(&self, container: usize) -> Done<f64> {
        if self.kind == Kind::Command {
            return read_to_end(&mut self.command("connect", container)).map(|(time, _)| time);
        }
        let mut time = 0.0;
        let mut previous = Value::Null;
        for plugin in self.list() {
            let (own, said) = read_to_end(&mut self.plugin("ADD", container, &plugin, &previous)?)?;
            time += own;
            previous = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        }
        fs::write(format!("/run/result-{container}"), previous.to_string())
            .map_err(|error| error.to_string())?;
        Ok(time)
    }

    fn del(&self, container: usize) -> Done<f64> {
        if self.kind == Kind::Command {
            return read_to_end(&mut self.command("disconnect", container)).map(|(time, _)| time);
        }
        let said = fs::read(format!("/run/result-{container}")).map_err(|error| error.to_string())?;
        let previous: Value = serde_json::from_slice(&said).map_err(|error| error.to_string())?;
        let mut time = 0.0;
        for plugin in self.list().iter().rev() {
            time += read_to_end(&mut self.plugin("DEL", container, plugin, &previous)?)?.0;
        }
        Ok(time)
    }

    /// So many containers more; the first is there already.
    fn populate(&self, most: usize) -> Done {
        if self.kind != Kind::Reference {
            return (2..=most).try_for_each(|container| self.add(container).map(drop));
        }
        for table in ["nat", "filter"] {
            let saved = run(Command::new("iptables-save").args(["-t", table]))?;
            load(table, &rules_of_many(&saved, most))?;
        }
        for container in 2..=most {
            let path = format!("/run/leases/bench/{}", address(container));
            fs::write(path, format!("c{container}\r\neth0")).map_err(|error| error.to_string())?;
        }
        fs::write("/run/leases/bench/last_reserved_ip.0", address(most)).map_err(|error| error.to_string())
    }

    /// All at once, each the first plugin alone where there are several.
    fn at_once(&self, count: usize) -> Done<f64> {
        let one = |container: usize| match self.kind {
            Kind::Command => Ok(self.command("connect", container)),
            Kind::Native | Kind::Names | Kind::Reference => {
                self.plugin("ADD", container, &self.list()[0], &Value::Null)
            }
        };
        // `timed_at_once` has no stdin for its commands: a shell opens it.
        let started: Vec<Command> = (1..=count)
            .map(|container| {
                let command = one(container)?;
                let mut shell = Command::new("/bin/sh");
                let input = if self.kind == Kind::Command {
                    "/dev/null".to_owned()
                } else {
                    format!("/run/stdin-{container}")
                };
                shell
                    .args(["-c", &format!("exec \"$0\" \"$@\" < {input}")])
                    .arg(command.get_program())
                    .args(command.get_args());
                shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                Ok(shell)
            })
            .collect::<Done<_>>()?;
        let time = timed_at_once(started)?;
        for container in 1..=count {
            match self.kind {
                Kind::Command => run(&mut self.command("disconnect", container))?,
                _ => run(&mut self.plugin("DEL", container, &self.list()[0], &Value::Null)?)?,
            };
        }
        Ok(time)
    }
}

/// The milliseconds from the fork to the end of a command that must succeed, and what it printed.
fn read_to_end(command: &mut Command) -> Done<(f64, String)> {
    let start = Instant::now();
    let said = run(command)?;
    Ok((start.elapsed().as_secs_f64() * 1000.0, said))
}

fn address(container: usize) -> String {
    let [high, low] = u16::try_from(container + 1).unwrap_or(0).to_be_bytes();
    format!("10.90.{high}.{low}")
}

/// The rules of the first container, once for each of many.
fn rules_of_many(saved: &str, most: usize) -> String {
    let own: Vec<&str> =
        saved.lines().filter(|line| chain_of(line).is_some() || line.contains("10.90.0.2/32")).collect();
    let mut text = String::new();
    for container in 2..=most {
        for line in &own {
            let mut line = (*line).to_owned();
            for hash in hashes(&line) {
                line = line.replace(&hash, &format!("{}{container:06}", &hash[..hash.len() - 6]));
            }
            line = line
                .replace("10.90.0.2", &address(container))
                .replace("\"c1\\\"", &format!("\"c{container}\\\""));
            line = line.replace(&format!(" {}", port(1)), &format!(" {}", port(container)));
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// The chain that is one container's alone.
fn chain_of(line: &str) -> Option<String> {
    hashes(line).into_iter().next()
}

fn hashes(line: &str) -> Vec<String> {
    let words = line.split(|c: char| c.is_whitespace() || c == ':');
    let is_hash = |word: &&str| {
        let rest = word.strip_prefix("CNI-DN-").or_else(|| word.strip_prefix("CNI-"));
        rest.is_some_and(|rest| rest.len() >= 20 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut list: Vec<String> = words.filter(is_hash).map(str::to_owned).collect();
    list.dedup();
    list
}

fn load(table: &str, rules: &str) -> Done {
    let (chains, rest): (Vec<&str>, Vec<&str>) = rules.lines().partition(|line| line.starts_with(':'));
    let text = format!("*{table}\n{}\n{}\nCOMMIT\n", chains.join("\n"), rest.join("\n"));
    fs::write("/run/rules", text).map_err(|error| error.to_string())?;
    let file = fs::File::open("/run/rules").map_err(|error| error.to_string())?;
    run(Command::new("iptables-restore").arg("--noflush").stdin(file)).map(drop)
}

fn bench(samples: usize) -> Done {
    let [rnet, floor] = lab::build()?;
    let mut labs: Vec<(&str, Lab<Contender>)> = Vec::new();
    for (kind, name) in ALL {
        let rnet = rnet.clone();
        match Lab::open(MANY + 1, move || Contender::new(kind, rnet)) {
            Ok(lab) => labs.push((name, lab)),
            Err(error) => eprintln!("{name}: left out: {error}"),
        }
    }
    println!("milliseconds, median (minimum) of {samples}; whole processes\n");
    small(&labs, &floor, samples)?;
    at_once(&labs)?;
    println!(
        "| one container with one port | ADD, {} there | DEL | ADD, {MANY} there | DEL |\n|---|---|---|---|---|",
        1
    );
    for (_, lab) in &labs {
        lab.ask(|contender| contender.add(1).map(drop))?;
    }
    let few = round(&labs, 2, samples)?;
    for (name, lab) in &labs {
        eprintln!("{name}: up to {MANY} containers");
        lab.ask(|contender| contender.populate(MANY))?;
    }
    let many = round(&labs, MANY + 1, samples)?;
    for (number, (name, _)) in labs.iter().enumerate() {
        let cell = |list: &[[Vec<f64>; 2]], verb: usize| shown(&list[number][verb]);
        println!(
            "| {name} | {} | {} | {} | {} |",
            cell(&few, 0),
            cell(&few, 1),
            cell(&many, 0),
            cell(&many, 1)
        );
    }
    Ok(())
}

/// One more container, again and again, all by turns: the times of ADD and DEL of each.
fn round(labs: &[(&str, Lab<Contender>)], container: usize, samples: usize) -> Done<Vec<[Vec<f64>; 2]>> {
    let mut times: Vec<[Vec<f64>; 2]> = labs.iter().map(|_| [Vec::new(), Vec::new()]).collect();
    for sample in 0..samples {
        for turn in 0..labs.len() {
            let who = (sample + turn) % labs.len();
            let lab = &labs[who].1;
            times[who][0].push(lab.ask(move |contender| contender.add(container))?);
            settle();
            times[who][1].push(lab.ask(move |contender| contender.del(container))?);
            settle();
        }
    }
    Ok(times)
}

/// STATUS and VERSION, beside a process that does nothing.
fn small(labs: &[(&str, Lab<Contender>)], floor: &Path, samples: usize) -> Done {
    let Some((_, lab)) = labs.iter().find(|(name, _)| *name == "type rnet") else { return Ok(()) };
    let floor = floor.to_owned();
    let [empty, version, status] = lab.ask(move |contender| {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        fs::write("/run/status", r#"{"cniVersion":"1.1.0","name":"bench","type":"rnet","network":"blue"}"#)
            .map_err(|error| error.to_string())?;
        for _ in 0..samples * 4 {
            times[0].push(timed(&mut Command::new(&floor))?);
            for (number, verb) in [(1, "VERSION"), (2, "STATUS")] {
                let mut command = Command::new(&contender.rnet);
                let input = fs::File::open("/run/status").map_err(|error| error.to_string())?;
                command.env("CNI_COMMAND", verb).env("CNI_PATH", &contender.plugins).stdin(input);
                times[number].push(timed(&mut command)?);
            }
        }
        Ok(times)
    })?;
    let ratio = |times: &[f64]| median(times) / median(&empty);
    println!("an empty process {}", shown(&empty));
    println!("VERSION {} = {:.2} x", shown(&version), ratio(&version));
    println!("STATUS {} = {:.2} x\n", shown(&status), ratio(&status));
    Ok(())
}

/// Many at once; of a list, its first plugin.
fn at_once(labs: &[(&str, Lab<Contender>)]) -> Done {
    println!("{AT_ONCE} ADDs started at once, until the last is done (of a list, bridge with its addresses)");
    for (name, lab) in labs {
        let mut times = Vec::new();
        for _ in 0..3 {
            times.push(lab.ask(|contender| contender.at_once(AT_ONCE))?);
            settle();
        }
        println!("  {name}: {}", shown(&times));
    }
    println!();
    Ok(())
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(times: &[f64]) -> String {
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    format!("{:.2} ({least:.2})", median(times))
}
