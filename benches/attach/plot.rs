//! The plot for the README: cost against number of containers, drawn by hand, readable on light and dark pages.

use std::fmt::Write as _;

use super::report::{Cell, Results, Row, median};

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 360.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 310.0;
/// Of the left panel, and how far the right one is from it.
const LEFT: f64 = 52.0;
const STEP: f64 = 430.0;
/// Room for a panel's curves; their names are beside.
const PANEL: f64 = 250.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:14px;font-weight:600}.dim{fill:#59636e}
.grid{stroke:#d1d9e0;stroke-width:1}path{fill:none;stroke-width:2}
.c0{stroke:#0969da}.c1{stroke:#59636e;stroke-dasharray:5 4}.c2{stroke:#1a7f37}.c3{stroke:#bc4c00}.c4{stroke:#8250df}
circle.c0{fill:#0969da}circle.c1{fill:#59636e}circle.c2{fill:#1a7f37}circle.c3{fill:#bc4c00}circle.c4{fill:#8250df}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9198a1}.grid{stroke:#3d444d}
.c0{stroke:#4493f8}.c1{stroke:#9198a1}.c2{stroke:#3fb950}.c3{stroke:#f0883e}.c4{stroke:#ab7df8}
circle.c0{fill:#4493f8}circle.c1{fill:#9198a1}circle.c2{fill:#3fb950}circle.c3{fill:#f0883e}circle.c4{fill:#ab7df8}}";

/// A range of milliseconds, by powers of ten.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).log10().floor() as i32;
        let high = values.iter().copied().fold(1.0, f64::max).log10().ceil() as i32;
        Self { low: low.clamp(-3, 3), high: high.max(low + 1) }
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low) * (BOTTOM - TOP)
    }
}

/// Attach on the left, detach on the right, both on one scale.
pub fn svg(results: &Results) -> String {
    type Pick = fn(&Cell) -> &[f64];
    let panels: [(&str, Pick); 2] = [("attach", |cell| &cell.attach), ("detach", |cell| &cell.detach)];
    let medians = results
        .rows
        .iter()
        .flat_map(|row| &row.cells)
        .flat_map(|cell| [median(&cell.attach), median(&cell.detach)]);
    let scale = Scale::of(&medians.filter(|value| value.is_finite()).collect::<Vec<_>>());
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Cost of attach and detach against the number of containers\">\n<style>{STYLE}</style>\n"
    );
    for (number, (title, pick)) in panels.into_iter().enumerate() {
        let left = LEFT + STEP * number as f64;
        axes(&mut text, results.populations(), &scale, left, title);
        curves(&mut text, results, &scale, left, pick);
    }
    text.push_str("</svg>\n");
    text
}

fn x(left: f64, populations: &[usize], at: usize) -> f64 {
    let last = populations.last().copied().unwrap_or(1).max(2) as f64;
    left + (populations[at] as f64 - 1.0) / (last - 1.0) * PANEL
}

fn axes(text: &mut String, populations: &[usize], scale: &Scale, left: f64, title: &str) {
    let _ = writeln!(text, "<text class=\"title\" x=\"{left}\" y=\"24\">{title}, one published port</text>");
    let _ =
        writeln!(text, "<text class=\"dim\" x=\"{left}\" y=\"42\">milliseconds, fork to exit, median</text>");
    for power in scale.low..=scale.high {
        let (value, y) = (10f64.powi(power), scale.y(10f64.powi(power)));
        let right = left + PANEL;
        let _ = writeln!(text, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
        let _ = writeln!(
            text,
            "<text class=\"dim\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    for (at, number) in populations.iter().enumerate() {
        let x = x(left, populations, at);
        let _ = writeln!(
            text,
            "<text class=\"dim\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{number}</text>",
            BOTTOM + 18.0
        );
    }
    let middle = left + PANEL / 2.0;
    let _ = writeln!(
        text,
        "<text class=\"dim\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">containers on the network</text>",
        BOTTOM + 38.0
    );
}

fn curves(text: &mut String, results: &Results, scale: &Scale, left: f64, pick: fn(&Cell) -> &[f64]) {
    let mut names: Vec<(f64, String)> = Vec::new();
    for (number, row) in results.rows.iter().enumerate() {
        let points = points(row, results.populations(), scale, left, pick);
        let Some((_, y, value)) = points.last().copied() else { continue };
        let line: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(text, "<path class=\"c{number}\" d=\"M{}\"/>", line.join("L"));
        for (x, y, _) in &points {
            let _ = writeln!(text, "<circle class=\"c{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
        }
        names.push((y, format!("{} {value:.1}", row.name)));
    }
    // Names of curves that end close together are moved apart, from the top down.
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (y, name) in names {
        lowest = y.max(lowest + 15.0);
        let _ = writeln!(text, "<text x=\"{}\" y=\"{:.1}\">{name}</text>", left + PANEL + 10.0, lowest + 4.0);
    }
}

/// Where the medians of a contender are, and what they are.
fn points(
    row: &Row,
    populations: &[usize],
    scale: &Scale,
    left: f64,
    pick: fn(&Cell) -> &[f64],
) -> Vec<(f64, f64, f64)> {
    let place = |(at, cell): (usize, &Cell)| {
        let value = median(pick(cell));
        value.is_finite().then(|| (x(left, populations, at), scale.y(value), value))
    };
    row.cells.iter().enumerate().filter_map(place).collect()
}
