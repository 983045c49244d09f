//! Templates for `--format`, as Docker's users write them: Go's `text/template` over a JSON value.
//! Never reads files or the environment, never panics, and never runs or prints without bound.
//!
//! Our own, because the crates fall short (tried in full): `gtmpl-ng` 1.0.0 gives methods no arguments, so no
//! `.Label "k"`; reads escapes in raw strings; ends the process on deep parentheses and long `else if` chains;
//! loses the order of keys; and names a missing field only in prose. `gtmpl` 0.7 has no bounds at all.
//!
//! Unlike Docker, a field that is not there is an error and not `<no value>`, except through `index`, which
//! answers with an empty string. `define`, `block`, `template` and `call` are refused: one format has no use
//! for them. In `printf`, arguments cannot be chosen by number (`%[1]d`).

mod functions;
mod parse;
mod print;
mod render;
mod scan;
#[cfg(test)]
mod tests;

use core::fmt;
use core::str::FromStr;

use parse::{Base, Ending, Node, Parser, Pipeline};
use render::{Bounded, Held, Renderer};
use scan::scan;
use serde_json::Value as Json;

/// The longest template that is read, in bytes.
const LONGEST_TEMPLATE: usize = 64 * 1024;
/// How many blocks and parentheses may be open at once.
pub(super) const DEEPEST_TEMPLATE: usize = 64;
/// How deep a value may nest; what `serde_json` reads is never deeper.
const DEEPEST_VALUE: usize = 128;
/// The most that one rendering writes, and that one function returns, in bytes.
pub(super) const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;
/// The most that all functions of one rendering return together, in bytes.
pub(super) const MOST_MADE: usize = 8 * LARGEST_OUTPUT;
/// How many texts, actions and blocks one rendering goes through, repetitions counted.
pub(super) const MOST_STEPS: usize = 1_000_000;
/// The widest that `printf` and `pad` go, and the most parts that `split` makes.
/// Below 65535, as Rust panics at an exponent after so many digits.
pub(super) const WIDEST: usize = 60_000;
/// How much of a template or a value an error shows, in characters.
const LONGEST_EXCERPT: usize = 120;
/// How many field names an error lists.
pub(super) const MOST_FIELDS_SHOWN: usize = 24;

/// A parsed template.
///
/// ```
/// let template: rnet::cli::template::Template = r"{{.Name}}\t{{.Driver | upper}}".parse()?;
/// let network = serde_json::json!({"Name": "blue", "Driver": "bridge"});
/// assert_eq!(template.render(&network)?, "blue\tBRIDGE");
/// # Ok::<(), rnet::cli::template::TemplateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    nodes: Vec<Node>,
}

/// Why a text is no template, or why it cannot be applied to a value. One line, whatever the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError(String);

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        if source.len() > LONGEST_TEMPLATE {
            return Err(TemplateError(format!("longer than {LONGEST_TEMPLATE} bytes")));
        }
        let pieces = scan(source)?;
        let mut parser =
            Parser { source, pieces: pieces.into_iter(), variables: vec![String::new()], loops: 0, depth: 0 };
        match parser.list()? {
            (nodes, Ending::Source) => Ok(Template { source: source.to_owned(), nodes }),
            (_, Ending::End(at)) => Err(error_at(source, at, "unexpected {{end}}")),
            (_, Ending::Else(cursor)) => Err(error_at(source, cursor.start, "unexpected {{else}}")),
        }
    }
}

impl Template {
    /// What follows the word `table`, if the format starts with it (Docker's `table {{.ID}}\t{{.Name}}`).
    /// Nothing may follow: the caller's own columns are meant then.
    pub fn strip_table(format: &str) -> Option<&str> {
        let rest = format.strip_prefix("table")?;
        let word_ends = rest.is_empty() || [" ", "\t", "\\t", "{{"].iter().any(|end| rest.starts_with(end));
        word_ends.then(|| rest.trim())
    }

    /// The fields of the value itself that the template prints, in order and as often as it does, so that a
    /// caller can print a line of headers: `["ID", "Name"]`. Fields in `range` and `with` are other values'.
    ///
    /// To get the line as Docker does, render the template over an object that has a header for each name.
    pub fn headers(&self) -> Vec<String> {
        let mut fields = Vec::new();
        printed_fields(&self.nodes, &mut fields);
        fields
    }

    /// The text that the template makes of a value.
    ///
    /// # Errors
    /// When the template names a field that is not there, gives a function what it does not take, or would
    /// print more than 16 MiB.
    pub fn render(&self, value: &Json) -> Result<String, TemplateError> {
        refuse_deep(value, DEEPEST_VALUE)?;
        let root = Held::Lent(value);
        let mut renderer = Renderer {
            source: &self.source,
            out: Bounded::default(),
            variables: vec![(String::new(), root.clone())],
            steps: 0,
            made: 0,
        };
        renderer.nodes(&self.nodes, &root)?;
        Ok(renderer.out.0)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template: {}", self.0)
    }
}

impl std::error::Error for TemplateError {}

/// Lines and columns count from 1, columns in characters.
pub(super) fn error_at(source: &str, offset: usize, what: impl fmt::Display) -> TemplateError {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    TemplateError(format!("{what} at {line}:{column}"))
}

/// A text on one line, cut short.
pub(super) fn excerpt(text: &str) -> String {
    let mut line = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST_EXCERPT {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

fn refuse_deep(value: &Json, levels: usize) -> Result<(), TemplateError> {
    let Some(levels) = levels.checked_sub(1) else {
        return Err(TemplateError(format!("the value is nested deeper than {DEEPEST_VALUE} levels")));
    };
    match value {
        Json::Array(items) => items.iter().try_for_each(|item| refuse_deep(item, levels)),
        Json::Object(members) => members.values().try_for_each(|member| refuse_deep(member, levels)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
    }
}

fn printed_fields(nodes: &[Node], fields: &mut Vec<String>) {
    for node in nodes {
        match node {
            Node::Action(pipeline) if pipeline.variables.is_empty() => pipeline_fields(pipeline, fields),
            Node::If(branches) => {
                branches.list.iter().for_each(|(_, body)| printed_fields(body, fields));
                printed_fields(&branches.otherwise, fields);
            }
            Node::Action(_)
            | Node::Text(_)
            | Node::Range(_)
            | Node::With(_)
            | Node::Break
            | Node::Continue => {}
        }
    }
}

fn pipeline_fields(pipeline: &Pipeline, fields: &mut Vec<String>) {
    for operand in pipeline.commands.iter().flat_map(|command| &command.operands) {
        match &operand.base {
            Base::Pipeline(inner) => pipeline_fields(inner, fields),
            Base::Dot => fields.extend(operand.fields.first().cloned()),
            Base::Variable(name) if name.is_empty() => fields.extend(operand.fields.first().cloned()),
            Base::Variable(_) | Base::Literal(_) | Base::Function(..) => {}
        }
    }
}

// Reading: the scanner makes pieces and tokens, the parser makes nodes.
