//! Many at once, and some of them killed: eight workers attach, detach, publish, inspect, repair and collect on the same
//! networks, each command sometimes ended by SIGKILL at any moment. Every error must be a clear one, and when all is
//! over everything must agree.
//!
//! `RNET_CHURN_SECONDS=60 cargo test --test netns -- churn:: --nocapture` goes on for a minute; without it each worker
//! does a fixed number of commands, from a fixed seed.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    audit,
    command::{Output, Running},
    harness::tests,
    lab::{Hands, Lab},
};

tests! {
    eight_workers_and_random_kills_leave_nothing_and_give_nothing_twice,
}

const WORKERS: usize = 8;
const COMMANDS: usize = 25;
const NETWORKS: [&str; 2] = ["blue", "red"];

/// Numbers that look random and are the same each time (xorshift64, Marsaglia 2003).
pub struct Numbers(pub u64);

impl Numbers {
    /// A number below that.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// What the workers count.
#[derive(Default)]
struct Counts {
    commands: AtomicUsize,
    killed: AtomicUsize,
    refused: AtomicUsize,
}

fn eight_workers_and_random_kills_leave_nothing_and_give_nothing_twice(lab: &Lab) {
    for (name, subnet) in NETWORKS.iter().zip(["10.81.0.0/24", "10.82.0.0/24"]) {
        lab.rn(&format!("network create --subnet {subnet} {name}")).ok();
    }
    for worker in 0..WORKERS {
        (0..2).for_each(|number| drop(lab.namespace(&format!("c{worker}{number}"))));
    }
    let seconds = env::var("RNET_CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let counts = Counts::default();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (hands, counts) = (lab.hands(), &counts);
            scope.spawn(move || work(worker, &hands, counts, end));
        }
    });
    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    println!(
        "churn: {} commands of {WORKERS} workers, {} killed, {} refused with a clear error",
        count(&counts.commands),
        count(&counts.killed),
        count(&counts.refused)
    );
    lab.rn("gc").ok();
    lab.rn("repair").ok();
    lab.rn("check").ok().prints("");
    audit::agrees(lab);
    lab.rn("network rm -f blue red").ok();
}

fn work(worker: usize, hands: &Hands, counts: &Counts, end: Option<Instant>) {
    let mut numbers =
        Numbers(0x9e37_79b9_7f4a_7c15 ^ (worker as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut done = 0;
    while end.map_or(done < COMMANDS, |end| Instant::now() < end) {
        done += 1;
        let words = words(worker, &mut numbers);
        let running = Running::start(&mut hands.rnet(&words));
        if numbers.below(4) == 0 && !running.ended_within(Duration::from_micros(numbers.below(12_000) as u64))
        {
            running.signal_if_alive(Signal::KILL);
        }
        judge(&running.wait(), counts);
    }
}

fn words(worker: usize, numbers: &mut Numbers) -> Vec<String> {
    let network = *numbers.of(&NETWORKS);
    let container = format!("c{worker}{}", numbers.below(2));
    let port = format!("{}:80", 9000 + numbers.below(6));
    let line = match numbers.below(12) {
        0..=2 => format!("network connect -p {port} {network} {container}"),
        3 => format!("network connect {network} {container}"),
        4..=6 => format!("network disconnect {network} {container}"),
        7 => format!("network inspect {network}"),
        8 => "ps".to_owned(),
        9 => "repair".to_owned(),
        10 => "gc".to_owned(),
        _ => "check".to_owned(),
    };
    line.split(' ').map(str::to_owned).collect()
}

/// Done, refused with one clear line, or killed; `check` may say what others are just at.
fn judge(output: &Output, counts: &Counts) {
    counts.commands.fetch_add(1, Ordering::Relaxed);
    output.no_panic();
    if output.was_killed() {
        counts.killed.fetch_add(1, Ordering::Relaxed);
    } else if !output.succeeded() && output.stdout().is_empty() {
        counts.refused.fetch_add(1, Ordering::Relaxed);
        output.is_one_clear_refusal();
    }
}
