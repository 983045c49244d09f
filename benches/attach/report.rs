//! What was measured, as a table for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// The samples of a contender at a number of containers, in milliseconds.
#[derive(Default)]
pub struct Cell {
    /// Fork to exit.
    pub attach: Vec<f64>,
    /// Fork to exit.
    pub detach: Vec<f64>,
}

/// A contender, and its samples at each number of containers.
pub struct Row {
    /// What it is called.
    pub name: &'static str,
    /// In the order of the populations.
    pub cells: Vec<Cell>,
    /// Why it has no more of them.
    pub failed: Option<String>,
}

impl Row {
    /// Leaves the contender out from here on.
    pub fn fail(&mut self, error: String) {
        eprintln!("\n{}: left out from here on: {error}", self.name);
        self.failed = Some(error);
    }
}

/// All that was measured.
pub struct Results {
    populations: &'static [usize],
    samples: usize,
    launcher: Vec<f64>,
    /// rnet and the floor, one pair each round.
    pub at_once: Vec<(f64, f64)>,
    /// Removal of a network with its endpoints.
    pub remove: Vec<f64>,
    /// Programs executed by attach and detach.
    pub programs: Option<(usize, usize)>,
    /// rnet, the floor, and the others.
    pub rows: Vec<Row>,
}

/// The middle one.
pub fn median(list: &[f64]) -> f64 {
    let mut list = list.to_vec();
    list.sort_by(f64::total_cmp);
    list.get(list.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least: what it costs when nothing disturbs.
pub fn minimum(list: &[f64]) -> f64 {
    list.iter().copied().fold(f64::NAN, f64::min)
}

/// A goal of the project, and how near it is.
struct Goal {
    figure: String,
    goal: String,
    by_median: f64,
    by_minimum: f64,
    limit: f64,
}

impl Results {
    /// Nothing measured yet, but the launcher.
    pub fn new(populations: &'static [usize], samples: usize, launcher: Vec<f64>) -> Self {
        Self {
            populations,
            samples,
            launcher,
            at_once: Vec::new(),
            remove: Vec::new(),
            programs: None,
            rows: Vec::new(),
        }
    }

    /// The numbers of containers.
    pub fn populations(&self) -> &[usize] {
        self.populations
    }

    fn cell(&self, row: usize, population: usize) -> &Cell {
        &self.rows[row].cells[population]
    }

    fn goals(&self) -> Vec<Goal> {
        let last = self.populations.len() - 1;
        let mut goals = Vec::new();
        let mut push = |figure: String, limit: f64, unit: &str, value: &dyn Fn(fn(&[f64]) -> f64) -> f64| {
            let goal = format!("≤ {limit}{unit}");
            goals.push(Goal { figure, goal, by_median: value(median), by_minimum: value(minimum), limit });
        };
        for at in [0, last] {
            let figure = format!("attach / floor, at {}", self.populations[at]);
            push(figure, 1.5, " ×", &|of| of(&self.cell(0, at).attach) / of(&self.cell(1, at).attach));
        }
        let grown = |row: usize, of: fn(&[f64]) -> f64| {
            of(&self.cell(row, last).attach) / of(&self.cell(row, 0).attach)
        };
        push(format!("growth from 1 to {}, beyond the floor's", self.populations[last]), 1.3, " ×", &|of| {
            grown(0, of) / grown(1, of)
        });
        for at in [0, last] {
            let figure = format!("detach / attach floor, at {}", self.populations[at]);
            push(figure, 2.0, " ×", &|of| of(&self.cell(0, at).detach) / of(&self.cell(1, at).attach));
        }
        push("network rm -f of 100 endpoints".to_owned(), 150.0, " ms", &|of| of(&self.remove));
        let (rnet, floor): (Vec<f64>, Vec<f64>) = self.at_once.iter().copied().unzip();
        push("100 attaches at once / 100 floors at once".to_owned(), 2.0, " ×", &|of| {
            of(&rnet) / of(&floor)
        });
        goals
    }

    /// Everything for people.
    pub fn table(&self) -> String {
        let mut text =
            format!("\nmilliseconds from fork to exit, median (minimum), {} samples each\n\n", self.samples);
        for (what, which) in [("attach", 0), ("detach", 1)] {
            let _ = write!(text, "{what:<24}");
            for number in self.populations {
                let _ = write!(text, "{:>20}", format!("at {number}"));
            }
            text.push('\n');
            for row in &self.rows {
                let _ = write!(text, "{:<24}", row.name);
                for cell in &row.cells {
                    let list = if which == 0 { &cell.attach } else { &cell.detach };
                    let shown = if list.is_empty() {
                        "-".to_owned()
                    } else {
                        format!("{:.2} ({:.2})", median(list), minimum(list))
                    };
                    let _ = write!(text, "{shown:>20}");
                }
                text.push('\n');
            }
            text.push('\n');
        }
        self.notes(&mut text);
        self.goal_lines(&mut text);
        text
    }

    fn notes(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "of each figure, a process that does nothing: {:.2} ({:.2})",
            median(&self.launcher),
            minimum(&self.launcher)
        );
        text.push_str("detach of the floor waits for the kernel to finish (a veth deletion blocks); netavark makes its bridge for the\n");
        text.push_str(
            "first container and removes it after the last; CNI is both plugins, as a runtime calls them\n",
        );
        let (rnet, floor): (Vec<f64>, Vec<f64>) = self.at_once.iter().copied().unzip();
        let _ = writeln!(
            text,
            "100 at once: rnet {:.1} ({:.1}), floor {:.1} ({:.1})",
            median(&rnet),
            minimum(&rnet),
            median(&floor),
            minimum(&floor)
        );
        for row in &self.rows {
            if let Some(reason) = &row.failed {
                let _ = writeln!(text, "{} left out: {reason}", row.name);
            }
        }
    }

    fn goal_lines(&self, text: &mut String) {
        let _ = writeln!(text, "\n{:<46}{:>12}{:>12}{:>12}", "goal", "", "by median", "by minimum");
        for goal in self.goals() {
            let verdict = if goal.by_median <= goal.limit { "reached" } else { "MISSED" };
            let _ = writeln!(
                text,
                "{:<46}{:>12}{:>12.2}{:>12.2}  {verdict}",
                goal.figure, goal.goal, goal.by_median, goal.by_minimum
            );
        }
        let programs = self
            .programs
            .map_or("not counted: no strace".to_owned(), |(attach, detach)| format!("{attach} and {detach}"));
        let verdict = if self.programs == Some((0, 0)) { "reached" } else { "MISSED" };
        let _ = writeln!(
            text,
            "{:<46}{:>12}{programs:>24}  {verdict}",
            "programs executed by attach and detach", "0"
        );
        text.push_str("100 attaches at once: all succeeded, distinct addresses; after each detach no link and no element was left\n");
    }

    /// Everything for programs.
    pub fn json(&self) -> String {
        let row = |row: &Row| {
            let cells = self.populations.iter().zip(&row.cells).map(|(containers, cell)| {
                json!({
                    "containers": containers,
                    "attach": { "median": median(&cell.attach), "minimum": minimum(&cell.attach), "samples": cell.attach },
                    "detach": { "median": median(&cell.detach), "minimum": minimum(&cell.detach), "samples": cell.detach },
                })
            });
            json!({ "name": row.name, "failed": row.failed, "at": cells.collect::<Vec<Value>>() })
        };
        let goal = |goal: Goal| {
            json!({
                "figure": goal.figure, "goal": goal.goal, "median": goal.by_median, "minimum": goal.by_minimum,
                "reached": goal.by_median <= goal.limit,
            })
        };
        let value = json!({
            "unit": "ms",
            "contenders": self.rows.iter().map(row).collect::<Vec<Value>>(),
            "goals": self.goals().into_iter().map(goal).collect::<Vec<Value>>(),
            "process": self.launcher,
            "at_once": self.at_once.iter().map(|(rnet, floor)| json!({ "rnet": rnet, "floor": floor })).collect::<Vec<Value>>(),
            "network_rm": self.remove,
            "programs": self.programs,
        });
        serde_json::to_string_pretty(&value).unwrap_or_default()
    }
}
