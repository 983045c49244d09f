//! Others are answered, whatever one client does, and while names come and go.

use std::{
    collections::HashSet,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use domain::base::iana::Rtype;
use rustix::process::Pid;

use super::{Asker, PATIENCE, names_pid, names_status, question, said};
use crate::{
    command::{self, until},
    harness::tests,
    lab::{Lab, Place, use_resolver},
    traffic,
};

tests! {
    one_client_cannot_stop_the_others,
    a_thousand_questions_for_a_dead_server_stop_nobody,
    few_open_files_are_no_end,
    no_answer_is_lost_under_fifty_changes_a_second,
    a_change_costs_the_same_however_many_names_stay,
}

/// The goal for every answer to another client, whatever one client does.
const GOAL: Duration = Duration::from_millis(100);
/// A machine that does other things too may miss it now and then: once, and so often in a hundred answers.
const MISSED: usize = 2;
/// And none is later than that.
const STALL: Duration = Duration::from_secs(1);

const AGAIN: Duration = Duration::from_millis(20);

/// How long answers took, the shortest first.
struct Times(Vec<Duration>);

impl Times {
    /// What was reached is printed, and the goal is asserted.
    #[track_caller]
    fn reach_the_goal(&self, what: &str) {
        let (count, longest) = (self.0.len(), self.0[self.0.len() - 1]);
        let within = self.0.iter().filter(|time| **time < GOAL).count();
        let median = self.0[count / 2];
        println!("names: {what}: {count} answers to another client, median {median:?}, longest {longest:?}");
        let missed = count - within;
        assert!(missed <= 1 + count * MISSED / 100, "{what}: {within} of {count} answers within {GOAL:?}");
        assert!(longest < STALL, "{what}: an answer took {longest:?}");
    }
}

/// Asks for a local name again and again while something goes on, and says how long answers took. What is not answered
/// in time is asked again, and its time goes on: a datagram may be lost where another client floods the socket.
fn times_while(asker: &Asker<'_>, again: Duration, mut work: impl FnMut()) -> Times {
    let (place, server, question) = (asker.place.clone(), asker.server, question("web", Rtype::A));
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    // The two know each other's hardware addresses by then.
    assert!(asker.a("web").starts_with("NOERROR "));
    let socket = place.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    let asking = std::thread::spawn(move || {
        socket.connect(SocketAddr::new(server, 53)).expect("a way");
        socket.set_read_timeout(Some(again)).expect("a timeout");
        let mut times = Vec::new();
        while !stop.load(Relaxed) {
            let began = Instant::now();
            let answered = || {
                socket.send(&question).expect("sent");
                traffic::heard(&socket, &mut [0; 600]).is_ok()
            };
            while !answered() {
                assert!(began.elapsed() < PATIENCE, "no answer");
            }
            times.push(began.elapsed());
            // Not so fast that the asker itself is what others wait for.
            std::thread::sleep(Duration::from_millis(1));
        }
        times.sort();
        Times(times)
    });
    work();
    done.store(true, Relaxed);
    asking.join().expect("every question is answered")
}

fn one_client_cannot_stop_the_others(lab: &Lab) {
    lab.needs("python3");
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let (web, bad) = (lab.namespace("web"), lab.namespace("bad"));
    lab.rn("network connect blue web").ok();
    lab.rn("network connect blue bad").ok();
    let web_asks = Asker::new(lab, &web, "blue");
    let attack = |program: &str| {
        let program = format!("import socket,struct,random,os\nS=('10.90.0.1',53)\n{program}");
        bad.inside(|| command::run(&mut lab.command("python3", &["-c", &program]))).ok();
    };
    for (what, program) in [
        (
            "300 idle connections",
            "l=[]\nfor n in range(300):\n s=socket.socket(); s.settimeout(3); s.connect(S); l.append(s)\n",
        ),
        (
            "a message cut short, and a reset",
            "for n in range(100):\n s=socket.socket(); s.settimeout(3)\n s.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0))\n\
            \x20s.connect(S)\n try: s.send(b'\\0\\x40'+b'x'*10)\n except OSError: pass\n s.close()\n",
        ),
        (
            "64 KiB of junk",
            "for n in range(20):\n s=socket.socket(); s.settimeout(3); s.connect(S)\n try: s.sendall(os.urandom(65536))\n except OSError: pass\n",
        ),
        (
            "random bytes",
            "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor n in range(10000):\n s.sendto(os.urandom(random.randrange(1,1400)),S)\n",
        ),
    ] {
        times_while(&web_asks, AGAIN, || attack(program)).reach_the_goal(what);
        assert_eq!(web_asks.tcp("bad"), "NOERROR 10.90.0.3", "{what}");
    }
    until("it is quiet again", || names_status(lab)["streams"] == 0);
    let before = ticks(lab);
    // Nothing is to happen meanwhile.
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks(lab) - before <= 3, "the resolver works though nobody asks");
    lab.rn("network rm -f blue").ok();
}

/// The time that the part has worked so far, in hundredths of a second.
fn ticks(lab: &Lab) -> u64 {
    let text =
        std::fs::read_to_string(format!("/proc/{}/stat", names_pid(lab).as_raw_nonzero())).expect("it lives");
    let fields: Vec<&str> = text.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

fn a_thousand_questions_for_a_dead_server_stop_nobody(lab: &Lab) {
    use_resolver("nameserver 192.0.2.99\n").expect("a file");
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let (web, bad) = (lab.namespace("web"), lab.namespace("bad"));
    lab.rn("network connect blue web").ok();
    lab.rn("network connect blue bad").ok();
    let web_asks = Asker::new(lab, &web, "blue");
    let bad_asks = Asker::new(lab, &bad, "blue");
    let socket = bad.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    let times = times_while(&web_asks, AGAIN, || {
        for n in 0..1500 {
            let question = question(&format!("x{n}.example"), Rtype::A);
            socket.send_to(&question, (bad_asks.server, 53)).expect("sent");
            if n % 10 == 0 {
                // Not faster than they are heard.
                assert_eq!(bad_asks.a("web"), "NOERROR 10.90.0.2");
            }
        }
        until("they wait, and some are turned away", || {
            let status = names_status(lab);
            status["waiting"].as_u64() > Some(900) || status["turned away"].as_u64() > Some(100)
        });
        until("they wait no more", || names_status(lab)["waiting"] == 0);
    });
    times.reach_the_goal("a thousand questions for a dead server");
    lab.rn("network rm -f blue").ok();
}

fn few_open_files_are_no_end(lab: &Lab) {
    lab.needs("python3");
    lab.sh("ulimit -n 64; rnet network create --subnet 10.90.0.0/24 blue").ok();
    let (web, bad) = (lab.namespace("web"), lab.namespace("bad"));
    lab.rn("network connect blue web").ok();
    lab.rn("network connect blue bad").ok();
    lab.sh(&format!("prlimit --nofile=40:40 --pid {}", names_pid(lab).as_raw_nonzero())).ok();
    let web_asks = Asker::new(lab, &web, "blue");
    let program = "import socket\nl=[]\nfor n in range(60):\n s=socket.socket(); s.settimeout(3); s.connect(('10.90.0.1',53)); l.append(s)\n";
    let times = times_while(&web_asks, AGAIN, || {
        bad.inside(|| command::run(&mut lab.command("python3", &["-c", program]))).ok();
    });
    times.reach_the_goal("no open files left");
    until("connections are accepted again", || web_asks.tcp_or_nothing("bad").is_some());
    lab.rn("network rm -f blue").ok();
}

/// Asks at a pace, whoever is slow, and counts the answers.
struct Asking {
    stop: Arc<AtomicBool>,
    sent: JoinHandle<usize>,
    heard: JoinHandle<usize>,
}

impl Asking {
    /// So often, for a name that is always there.
    fn start(asker: &Asker<'_>, every: Duration) -> Self {
        let (server, mut bytes) = (asker.server, question("web", Rtype::A));
        let socket = asker.place.inside(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.connect(SocketAddr::new(server, 53)).expect("a way");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (stop, ears) = (Arc::new(AtomicBool::new(false)), socket.try_clone().expect("the socket"));
        let stopped = Arc::clone(&stop);
        let (says, hears) = std::sync::mpsc::channel::<u16>();
        let sent = std::thread::spawn(move || {
            let began = Instant::now();
            let mut number = 0usize;
            while !stopped.load(Relaxed) {
                let id = number as u16;
                bytes[..2].copy_from_slice(&id.to_be_bytes());
                socket.send(&bytes).expect("sent");
                says.send(id).expect("somebody counts");
                number += 1;
                // At this rate.
                std::thread::sleep((every * number as u32).saturating_sub(began.elapsed()));
            }
            number
        });
        let heard = std::thread::spawn(move || {
            let (mut waiting, mut count) = (HashSet::new(), 0);
            let mut buffer = [0; 600];
            // Each question is known to be on its way before its answer is counted, in whatever order they come.
            while let Ok(id) = hears.recv() {
                waiting.insert(id);
                while !waiting.is_empty() {
                    let Ok(length) = traffic::heard(&ears, &mut buffer) else { return count };
                    assert_eq!(said(&buffer[..length]), "NOERROR 10.90.0.2");
                    let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                    while !waiting.contains(&id) {
                        waiting.insert(hears.recv().expect("a question that was asked"));
                    }
                    waiting.remove(&id);
                    count += 1;
                }
            }
            count
        });
        Self { stop, sent, heard }
    }

    /// How many were asked, and how many answered.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Relaxed);
        (self.sent.join().expect("it asks"), self.heard.join().expect("it hears"))
    }
}

fn no_answer_is_lost_under_fifty_changes_a_second(lab: &Lab) {
    const CONTAINERS: usize = 10;
    const TIME: Duration = Duration::from_secs(4);
    // Nobody else is asked for a name that is gone.
    use_resolver("").expect("a file");
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    let places: Vec<Place> = (0..CONTAINERS).map(|n| lab.namespace(&format!("c{n}"))).collect();
    let web_asks = Asker::new(lab, &web, "blue");
    assert_eq!(web_asks.a("web"), "NOERROR 10.90.0.2");
    let asking = Asking::start(&web_asks, Duration::from_millis(1));
    let (began, changes) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (hands, own, changes) = (lab.hands(), worker..CONTAINERS, &changes);
            let asker = Asker { place: &web, server: web_asks.server };
            scope.spawn(move || {
                let own: Vec<usize> = own.step_by(2).collect();
                for round in 0.. {
                    let n = own[round % own.len()];
                    for verb in ["connect", "disconnect"] {
                        if began.elapsed() > TIME {
                            return;
                        }
                        let (network, name) = ("blue".to_owned(), format!("c{n}"));
                        let words = ["network".to_owned(), verb.to_owned(), network, name.clone()];
                        command::run(&mut hands.rnet(&words)).ok();
                        // Whoever was connected answers to its name when that is done, and whoever was disconnected does not.
                        let known = asker.a(&name).starts_with("NOERROR ");
                        assert_eq!(known, verb == "connect", "{name} after {verb}");
                        let done = changes.fetch_add(1, Relaxed) + 1;
                        // Fifty changes a second.
                        std::thread::sleep(
                            (Duration::from_millis(20) * done as u32).saturating_sub(began.elapsed()),
                        );
                    }
                }
            });
        }
    });
    let time = began.elapsed().as_secs_f64();
    let (asked, answered) = asking.end();
    let changes = changes.into_inner();
    let (per_second, asked_per_second) = (changes as f64 / time, asked as f64 / time);
    println!(
        "names: {per_second:.0} changes/s under {asked_per_second:.0} questions/s, {} lost",
        asked - answered
    );
    assert_eq!(answered, asked, "answers are lost");
    assert!(per_second > 30.0, "{per_second:.0} changes a second are no load");
    assert!(asked_per_second > 700.0, "{asked_per_second:.0} questions a second are no load");
    drop(places);
    lab.rn("network rm -f blue").ok();
}

/// What somebody's record would look like, as far as names have to do with it.
fn write_record(folder: &Path, number: usize) {
    let [high, low] = (number as u16).to_be_bytes();
    let text = serde_json::json!({
        "version": 1, "key": format!("filler{number}"),
        "endpoint": {
            "container": {"id": format!("{number:064x}"), "name": format!("filler{number}")},
            "addresses": [format!("10.90.{}.{low}/16", high + 100)], "aliases": ["many"],
        },
    });
    let path = folder.join(format!("filler{number}.json"));
    let beside = folder.join(format!(".filler{number}"));
    std::fs::write(&beside, text.to_string()).expect("a record");
    std::fs::rename(beside, path).expect("a record");
}

/// The time that the part has worked so far, to the nanosecond.
fn worked(pid: Pid) -> Duration {
    let text =
        std::fs::read_to_string(format!("/proc/{}/schedstat", pid.as_raw_nonzero())).expect("it lives");
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
}

fn a_change_costs_the_same_however_many_names_stay(lab: &Lab) {
    // Nobody else is asked for a name that is gone.
    use_resolver("").expect("a file");
    lab.rn("network create --subnet 10.90.0.0/16 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    let web_asks = Asker::new(lab, &web, "blue");
    let pid = names_pid(lab);
    let id = lab.inspect("blue")["Id"].as_str().expect("an id").to_owned();
    let folder = Path::new("/run/rnet/networks").join(id).join("endpoints");
    let mut costs = Vec::new();
    for (from, to) in [(0, 50), (50, 5000)] {
        (from..to).for_each(|number| write_record(&folder, number));
        assert_eq!(names_status(lab)["endpoints"], to + 1);
        let mut rounds: Vec<Duration> = (0..5)
            .map(|_| {
                let before = worked(pid);
                for number in 0..40 {
                    std::fs::remove_file(folder.join(format!("filler{number}.json"))).expect("a record");
                    assert!(!web_asks.a(&format!("filler{number}")).starts_with("NOERROR"));
                    write_record(&folder, number);
                    assert!(web_asks.a(&format!("filler{number}")).starts_with("NOERROR"));
                }
                worked(pid) - before
            })
            .collect();
        rounds.sort();
        costs.push(rounds[1]);
    }
    println!("names: 80 changes and questions cost {:?} with 51 names, {:?} with 5,001", costs[0], costs[1]);
    assert!(costs[1] < costs[0] * 3, "{costs:?}");
    (0..5000).for_each(|number| {
        std::fs::remove_file(folder.join(format!("filler{number}.json"))).expect("a record")
    });
    lab.rn("network rm -f blue").ok();
}
