//! Whole-process attach and detach with one published port, beside what a user would pick instead and beside the
//! kernel's floor, in one run: `cargo bench --bench attach` as root, `-- --quick` for a run under a minute.
//!
//! Each contender has a host of its own (`lab.rs`); samples go round, so that noise hits all alike. The table says
//! medians and minima, and the goals beside what was measured. Also written: `target/bench/attach.json`, and after a
//! full run the plot `benches/attach.svg`.

#[path = "attach/contenders.rs"]
mod contenders;
#[allow(dead_code)]
mod floor;
#[path = "attach/lab.rs"]
mod lab;
#[path = "attach/plot.rs"]
mod plot;
#[path = "attach/report.rs"]
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use contenders::{Cni, Contender, Floor, Netavark, Rnet, Script};
use lab::{Done, Lab, settle};
use report::{Cell, Results, Row};

/// How much is measured.
struct Size {
    populations: &'static [usize],
    samples: usize,
    at_once_rounds: usize,
}

const FULL: Size = Size { populations: &[1, 100, 500, 1000], samples: 40, at_once_rounds: 9 };
const QUICK: Size = Size { populations: &[1, 50], samples: 12, at_once_rounds: 3 };
/// How many are attached at once, and removed with their network.
const AT_ONCE: usize = 100;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("attach: this is a measurement, not a test: cargo bench --bench attach");
        return ExitCode::SUCCESS;
    }
    let quick = words.iter().any(|word| word == "--quick");
    match bench(if quick { &QUICK } else { &FULL }, quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attach: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(size: &Size, quick: bool) -> Done {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [rnet, floor] = lab::build()?;
    let (contenders, launcher) = (open(size, &rnet, &floor)?, launcher(&floor, size.samples)?);
    let mut results = Results::new(size.populations, size.samples, launcher);
    results.programs = contenders[0].lab()?.ask(|rnet| rnet.programs(1))?;
    measure_at_once(&contenders, size.at_once_rounds, &mut results)?;
    let mut rows: Vec<Row> = contenders.iter().map(Contestant::row).collect();
    let mut connected = 0;
    for population in size.populations {
        populate(&contenders, &mut rows, connected, population - 1)?;
        connected = population - 1;
        measure(&contenders, &mut rows, *population, size.samples)?;
    }
    results.rows = rows;
    print!("{}", results.table());
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(folder.join("attach.json"), results.json())?;
    if !quick {
        write(root.join("benches/attach.svg"), plot::svg(&results))?;
    }
    Ok(())
}

type AnyLab = Lab<Box<dyn Contender>>;

/// A contender by name, or why it is not there.
struct Contestant {
    name: &'static str,
    lab: Done<AnyLab>,
}

impl Contestant {
    fn lab(&self) -> Done<&AnyLab> {
        self.lab.as_ref().map_err(|error| format!("{}: {error}", self.name))
    }

    fn row(&self) -> Row {
        Row { name: self.name, cells: Vec::new(), failed: self.lab.as_ref().err().cloned() }
    }
}

fn open(size: &Size, rnet: &Path, floor: &Path) -> Done<Vec<Contestant>> {
    let most = size.populations.iter().copied().max().unwrap_or(0).max(AT_ONCE);
    let (a, b, c, d) = (rnet.to_owned(), rnet.to_owned(), rnet.to_owned(), floor.to_owned());
    let boxed = |contender: Done<Box<dyn Contender>>| contender;
    let list = vec![
        ("rnet", Lab::open(most, move || boxed(Rnet::new(&a).map(|it| Box::new(it) as _)))),
        ("floor", Lab::open(most, move || boxed(Floor::new(&d, &b).map(|it| Box::new(it) as _)))),
        ("ip + nft", Lab::open(most, move || boxed(Script::new(&c).map(|it| Box::new(it) as _)))),
        ("netavark", Lab::open(most, move || boxed(Netavark::new().map(|it| Box::new(it) as _)))),
        ("CNI bridge + portmap", Lab::open(most, move || boxed(Cni::new().map(|it| Box::new(it) as _)))),
    ];
    let list: Vec<Contestant> = list.into_iter().map(|(name, lab)| Contestant { name, lab }).collect();
    for contestant in &list {
        match &contestant.lab {
            Ok(_) => eprintln!("{}: ready, {most} containers", contestant.name),
            Err(error) => eprintln!("{}: left out: {error}", contestant.name),
        }
    }
    list[0].lab()?;
    list[1].lab()?;
    Ok(list)
}

/// What starting and ending a process costs that does nothing: it is part of every other figure.
fn launcher(floor: &Path, samples: usize) -> Done<Vec<f64>> {
    let floor = floor.to_owned();
    let lab = Lab::open(0, || Ok(()))?;
    lab.ask(move |()| (0..samples).map(|_| lab::timed(&mut Command::new(&floor))).collect())
}

/// Many at once, rnet and the floor by turns.
fn measure_at_once(contenders: &[Contestant], rounds: usize, results: &mut Results) -> Done {
    for round in 1..=rounds {
        eprintln!("{AT_ONCE} at once: round {round} of {rounds}");
        let rnet = contenders[0].lab()?.ask(|rnet| rnet.at_once(AT_ONCE))?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        let floor = contenders[1].lab()?.ask(|floor| floor.at_once(AT_ONCE))?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        results.at_once.push((rnet.attach, floor.attach));
        results.remove.extend(rnet.remove);
    }
    Ok(())
}

/// Connects containers up to a number, all labs side by side: this is not measured.
fn populate(contenders: &[Contestant], rows: &mut [Row], from: usize, to: usize) -> Done {
    eprintln!("up to {to} containers");
    let fill = move |contender: &mut Box<dyn Contender>| {
        (from + 1..=to).try_for_each(|number| contender.attach(number).map(drop))
    };
    let able = contenders.iter().zip(rows).filter(|(_, row)| row.failed.is_none());
    let waited: Vec<_> = able.map(|(one, row)| Ok((one.lab()?.start(fill), row))).collect::<Done<_>>()?;
    for (answer, row) in waited {
        match answer.recv().unwrap_or_else(|_| Err("its lab ended".to_owned())) {
            Ok(()) => eprintln!("  {}", row.name),
            Err(error) => row.fail(error),
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    Ok(())
}

/// One more container, again and again, all contenders by turns; each comes after each other equally often.
fn measure(contenders: &[Contestant], rows: &mut [Row], population: usize, samples: usize) -> Done {
    for row in rows.iter_mut() {
        row.cells.push(Cell::default());
    }
    for sample in 1..=samples {
        eprint!("\r{population} containers: sample {sample} of {samples}");
        for turn in 0..contenders.len() {
            let who = (sample + turn) % contenders.len();
            let row = &mut rows[who];
            if row.failed.is_some() {
                continue;
            }
            let lab = contenders[who].lab()?;
            let both = lab.ask(move |contender| contender.attach(population)).and_then(|attach| {
                settle();
                let detach = lab.ask(move |contender| contender.detach(population))?;
                settle();
                Ok((attach, detach))
            });
            match (both, row.cells.last_mut()) {
                (Ok((attach, detach)), Some(cell)) => {
                    cell.attach.push(attach);
                    cell.detach.push(detach);
                }
                (Err(error), _) => row.fail(error),
                (Ok(_), None) => {}
            }
        }
    }
    eprintln!();
    rows.iter()
        .take(2)
        .try_for_each(|row| row.failed.clone().map_or(Ok(()), |error| Err(format!("{}: {error}", row.name))))
}
