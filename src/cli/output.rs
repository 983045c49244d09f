//! What is printed on stdout: collected, and written at the end, so that a full disk or a closed pipe is an error
//! like any other.

use std::io::Write as _;

use serde_json::Value;

use super::{Failure, template::Template};

/// What a command prints.
#[derive(Default)]
pub(crate) struct Out {
    text: String,
}

impl Out {
    /// Adds a text as it is.
    pub(crate) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Writes it all.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if !self.text.is_empty() && crate::start::stdout_was_closed() {
            let closed = std::io::Error::from_raw_os_error(libc::EBADF);
            return Err(Failure::new(format!("cannot write to stdout: {closed}")));
        }
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(self.text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
    }
}

/// A table as Go's tabwriter lays it out for Docker: columns at least ten wide, three spaces between them, the last
/// one unpadded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest =
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        (longest + 3).max(10)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column < last {
                let pad = widths[column].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    text
}

/// How a list is shown.
pub(crate) enum Format {
    /// The usual table.
    Table,
    /// One JSON object a line.
    Json,
    /// A template for each, perhaps under a header.
    Template { template: Template, headed: bool },
}

impl Format {
    /// Reads `--format`.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, Failure> {
        let parse = |text: &str| text.parse::<Template>().map_err(|error| Failure::new(error.to_string()));
        match text {
            None | Some("" | "table") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => match Template::strip_table(text) {
                Some(rest) => Ok(Self::Template { template: parse(rest)?, headed: true }),
                None => Ok(Self::Template { template: parse(text)?, headed: false }),
            },
        }
    }

    /// Shows a list: `columns` are the usual ones, `header` has the heading of every field.
    pub(crate) fn show(
        &self,
        list: &[Value],
        columns: &[&str],
        header: &Value,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let render = |template: &Template, value: &Value| {
            template.render(value).map_err(|error| Failure::new(error.to_string()))
        };
        match self {
            Self::Table => {
                let cells = |value: &Value| {
                    columns
                        .iter()
                        .map(|column| value[column].as_str().unwrap_or_default().to_owned())
                        .collect()
                };
                let rows: Vec<Vec<String>> = std::iter::once(header).chain(list).map(cells).collect();
                out.text(&table(&rows));
            }
            Self::Json => list.iter().for_each(|value| out.line(&value.to_string())),
            Self::Template { template, headed: false } => {
                for value in list {
                    out.line(&render(template, value)?);
                }
            }
            Self::Template { template, headed: true } => {
                let mut rows = Vec::new();
                for value in std::iter::once(header).chain(list) {
                    rows.push(render(template, value)?.split('\t').map(str::to_owned).collect());
                }
                out.text(&table(&rows));
            }
        }
        Ok(())
    }
}

/// The order of names in which numbers count as numbers: `a2` before `a10`.
pub(crate) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut x, mut y) = (a, b);
    loop {
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (n, m) = (digits(x), digits(y));
        let order = if n > 0 && m > 0 {
            let (left, right) = (x[..n].trim_start_matches('0'), y[..m].trim_start_matches('0'));
            let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
            (x, y) = (&x[n..], &y[m..]);
            order
        } else {
            let (left, right) = (x.chars().next(), y.chars().next());
            x = left.map_or("", |c| &x[c.len_utf8()..]);
            y = right.map_or("", |c| &y[c.len_utf8()..]);
            left.cmp(&right)
        };
        if order.is_ne() || x.is_empty() && y.is_empty() {
            return order.then_with(|| a.cmp(b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_as_dockers() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text =
            table(&[row(&["NETWORK ID", "NAME", "DRIVER"]), row(&["c0ffee012345", "bridge", "bridge"])]);
        assert_eq!(text, "NETWORK ID     NAME      DRIVER\nc0ffee012345   bridge    bridge\n");
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["a10", "a2", "b", "a02x", "a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "a2", "a02x", "a10", "b"]);
    }
}
