//! Local names over UDP: questions a second, latency and memory, beside dnsmasq and aardvark-dns of Debian, in one run:
//! `cargo bench --bench names` as root, `-- --quick` for a run under a minute.
//!
//! One host, one network with a thousand containers; each contender knows all their names and listens at the network's
//! gateway. One container asks: with one question at a time for latency, with many at once for throughput. Contenders
//! take turns, so that noise hits all alike.

#[allow(dead_code)]
#[path = "attach/lab.rs"]
mod lab;

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use lab::{Done, Lab};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

struct Size {
    containers: usize,
    rounds: usize,
    time: Duration,
}

const FULL: Size = Size { containers: 1000, rounds: 7, time: Duration::from_secs(2) };
const QUICK: Size = Size { containers: 200, rounds: 3, time: Duration::from_millis(700) };
/// So many questions are under way at once when throughput is measured.
const AT_ONCE: usize = 64;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("names: this is a measurement, not a test: cargo bench --bench names");
        return ExitCode::SUCCESS;
    }
    let size = if words.iter().any(|word| word == "--quick") { &QUICK } else { &FULL };
    match bench(size) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("names: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(size: &'static Size) -> Done<String> {
    let [rnet, _] = lab::build()?;
    let lab = Lab::open(size.containers, move || Host::new(&rnet, size))?;
    lab.ask(move |host| {
        let outcome = host.measure(size);
        host.end();
        outcome
    })
}

/// A contender: its name, its port, and its processes.
struct Contender {
    name: &'static str,
    port: u16,
    processes: Vec<u32>,
    child: Option<Child>,
}

struct Host {
    rnet: PathBuf,
    contenders: Vec<Contender>,
}

/// What was measured of a contender in one round.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    median: f64,
    p99: f64,
}

impl Host {
    fn new(rnet: &Path, size: &Size) -> Done<Self> {
        // Whatever fails from here on, nothing goes on running.
        let mut host = Self { rnet: rnet.to_owned(), contenders: Vec::new() };
        host.begin(size).inspect_err(|_| host.end())?;
        Ok(host)
    }

    fn begin(&mut self, size: &Size) -> Done {
        let rnet = self.rnet.clone();
        lab::run(
            Command::new(&rnet)
                .args(["network", "create", "--subnet", "10.99.0.0/22", "bench"])
                .stdout(Stdio::null()),
        )?;
        for number in 1..=size.containers {
            lab::run(Command::new(&rnet).args(["network", "connect", "bench", &format!("c{number}")]))?;
        }
        self.contenders.push(rnet_itself(&rnet)?);
        self.contenders.push(dnsmasq(size)?);
        self.contenders.push(aardvark(size)?);
        self.contenders.iter().try_for_each(Contender::wait_until_it_answers)
    }

    fn measure(&mut self, size: &Size) -> Done<String> {
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); self.contenders.len()];
        for _ in 0..size.rounds {
            for (contender, rounds) in self.contenders.iter().zip(&mut rounds) {
                rounds.push(contender.round(size)?);
            }
        }
        let mut text = format!(
            "{} containers, {} rounds of {:?} each way; medians of the rounds\n\n\
             | | questions/s ({AT_ONCE} at once) | latency, one at a time: median | p99 | resident |\n|---|---|---|---|---|\n",
            size.containers, size.rounds, size.time
        );
        for (contender, rounds) in self.contenders.iter().zip(&rounds) {
            let median = |of: fn(&Round) -> f64| {
                let mut list: Vec<f64> = rounds.iter().map(of).collect();
                list.sort_by(f64::total_cmp);
                list[list.len() / 2]
            };
            let memory: Vec<f64> = contender.processes.iter().map(|pid| resident(*pid)).collect();
            let each: Vec<String> = memory.iter().map(|megabytes| format!("{megabytes:.1}")).collect();
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.1} µs | {:.1} µs | {:.1} MB ({}) |",
                contender.name,
                median(|round| round.per_second),
                median(|round| round.median),
                median(|round| round.p99),
                memory.iter().sum::<f64>(),
                each.join(" + ")
            );
        }
        Ok(text)
    }

    fn end(&mut self) {
        for contender in &mut self.contenders {
            if let Some(child) = &mut contender.child {
                let _ = child.kill();
                let _ = child.wait();
                // One that went on in a process of its own is not the child any more.
                for pid in contender.processes.iter().filter(|pid| **pid != child.id()) {
                    let pid = rustix::process::Pid::from_raw(*pid as i32);
                    let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
                }
            }
        }
        for words in [&["network", "rm", "-f", "bench"][..], &["agent", "--stop"]] {
            let mut command = Command::new(&self.rnet);
            let _ = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn rnet_itself(rnet: &Path) -> Done<Contender> {
    let output =
        Command::new(rnet).args(["agent", "--status"]).output().map_err(|error| error.to_string())?;
    let status: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let pid = |value: &serde_json::Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
    let processes = [&status["pid"], &status["parts"]["names"]["pid"]].into_iter().filter_map(pid).collect();
    Ok(Contender { name: "rnet (agent and part)", port: 53, processes, child: None })
}

fn dnsmasq(size: &Size) -> Done<Contender> {
    let hosts: String = (1..=size.containers).map(|n| format!("{} c{n}\n", address(n))).collect();
    fs::write("/run/hosts", hosts).map_err(|error| error.to_string())?;
    let words = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=5354",
        "--listen-address=10.99.0.1",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--addn-hosts=/run/hosts",
        "--user=root",
        "--pid-file=",
        "--log-facility=/dev/null",
    ];
    start("dnsmasq (Debian)", 5354, Command::new("/usr/sbin/dnsmasq").args(words))
}

fn aardvark(size: &Size) -> Done<Contender> {
    let mut file = format!("{GATEWAY}\n");
    for n in 1..=size.containers {
        let _ = writeln!(file, "{n:064x} {}  c{n}", address(n));
    }
    fs::create_dir_all("/run/aardvark").map_err(|error| error.to_string())?;
    fs::write("/run/aardvark/bench", file).map_err(|error| error.to_string())?;
    let words = ["--config", "/run/aardvark", "--port", "5355", "run"];
    let mut contender =
        start("aardvark-dns (Debian)", 5355, Command::new("/usr/lib/podman/aardvark-dns").args(words))?;
    // It may go on in a process of its own.
    let own = || fs::read_to_string("/run/aardvark/aardvark.pid").ok()?.trim().parse().ok();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if let Some(pid) = own() {
            contender.processes = vec![pid];
            break;
        }
    }
    Ok(contender)
}

fn start(name: &'static str, port: u16, command: &mut Command) -> Done<Contender> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.map_err(|error| {
        format!("{name} does not start (apt-get install dnsmasq-base aardvark-dns): {error}")
    })?;
    Ok(Contender { name, port, processes: vec![child.id()], child: Some(child) })
}

/// The address of container `n`: they were connected in order.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(GATEWAY) + n as u32)
}

impl Contender {
    /// A socket in the first container, connected to the contender.
    fn socket(&self) -> Done<UdpSocket> {
        let failed = |error: std::io::Error| error.to_string();
        let home = fs::File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let there = fs::File::open("/run/netns/c1").map_err(failed)?;
        let enter = |file: &fs::File| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| e.to_string())
        };
        enter(&there)?;
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed);
        enter(&home)?;
        let socket = socket?;
        socket.connect(SocketAddr::from((GATEWAY, self.port))).map_err(failed)?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(failed)?;
        Ok(socket)
    }

    fn wait_until_it_answers(&self) -> Done {
        let socket = self.socket()?;
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let mut buffer = [0; 600];
            if socket.send(&question(1, 2)).is_ok() && socket.recv(&mut buffer).is_ok() {
                let right = buffer[3] & 15 == 0 && buffer[7] == 1;
                return if right { Ok(()) } else { Err(format!("{} knows no names", self.name)) };
            }
        }
        Err(format!("{} does not answer", self.name))
    }

    fn round(&self, size: &Size) -> Done<Round> {
        let (median, p99) = self.latency(size)?;
        Ok(Round { per_second: self.throughput(size)?, median, p99 })
    }

    /// One question at a time, in microseconds.
    fn latency(&self, size: &Size) -> Done<(f64, f64)> {
        let socket = self.socket()?;
        let (mut times, mut buffer) = (Vec::new(), [0; 600]);
        let end = Instant::now() + size.time;
        for id in 0u16.. {
            let name = usize::from(id) * 7919 % size.containers + 1;
            let began = Instant::now();
            socket.send(&question(id, name)).map_err(|error| error.to_string())?;
            socket.recv(&mut buffer).map_err(|error| format!("{}: an answer is lost: {error}", self.name))?;
            times.push(began.elapsed().as_nanos() as f64 / 1000.0);
            if Instant::now() > end || id == u16::MAX {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
    }

    /// Many questions at once: each answer lets the next question go.
    fn throughput(&self, size: &Size) -> Done<f64> {
        let socket = self.socket()?;
        let mut buffer = [0; 600];
        let began = Instant::now();
        let mut id = 0u16;
        let mut ask = || {
            id = id.wrapping_add(1);
            socket
                .send(&question(id, usize::from(id) * 7919 % size.containers + 1))
                .map_err(|error| error.to_string())
        };
        (0..AT_ONCE).try_for_each(|_| ask().map(drop))?;
        let mut answers = 0u64;
        while began.elapsed() < size.time {
            match socket.recv(&mut buffer) {
                Ok(_) => answers += 1,
                Err(_) => tell_lost(self.name),
            }
            ask()?;
        }
        Ok(answers as f64 / began.elapsed().as_secs_f64())
    }
}

fn tell_lost(name: &str) {
    eprintln!("names: {name}: no answer for 200 ms");
}

/// `A` of `cN`.
fn question(id: u16, container: usize) -> Vec<u8> {
    let name = format!("c{container}");
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8]);
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// `VmRSS` of a process, in MB.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .map_or(f64::NAN, |kib: f64| kib / 1000.0 * 1.024)
}
