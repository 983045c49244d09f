//! Rendering: a template applied to a value, within bounds.

use core::fmt::{self, Write};
use core::ops::Deref;
use std::rc::Rc;

use serde_json::{Value as Json, json};

use super::{
    LARGEST_OUTPUT, MOST_FIELDS_SHOWN, MOST_MADE, MOST_STEPS, TemplateError, WIDEST, excerpt,
    functions::{Function, label},
    parse::{Base, Branches, Command, Node, Operand, Parsed, Pipeline, Range},
    print::print_value,
};

/// A value that belongs to the caller, or that the template made.
#[derive(Clone)]
pub(super) enum Held<'v> {
    Lent(&'v Json),
    Made(Rc<Json>),
}

impl Held<'_> {
    fn made(value: Json) -> Self {
        Held::Made(Rc::new(value))
    }

    fn member(&self, name: &str) -> Option<Self> {
        match self {
            Held::Lent(value) => value.get(name).map(Held::Lent),
            Held::Made(value) => value.get(name).cloned().map(Held::made),
        }
    }

    /// What `range` goes through: key and value, in the order of a map's keys.
    fn entries(&self) -> Option<Vec<(Self, Self)>> {
        let lend = |value: &Json| Held::made(value.clone());
        Some(match self {
            Held::Lent(Json::Array(items)) => numbered(items.iter().map(Held::Lent)),
            Held::Lent(Json::Object(members)) => {
                sorted(members.iter().map(|(key, member)| (key, Held::Lent(member))))
            }
            Held::Made(value) => match &**value {
                Json::Array(items) => numbered(items.iter().map(lend)),
                Json::Object(members) => sorted(members.iter().map(|(key, member)| (key, lend(member)))),
                other => return counted(other),
            },
            Held::Lent(other) => return counted(other),
        })
    }
}

fn numbered<'v>(items: impl Iterator<Item = Held<'v>>) -> Vec<(Held<'v>, Held<'v>)> {
    items.enumerate().map(|(at, item)| (Held::made(json!(at)), item)).collect()
}

fn sorted<'v, 'k>(members: impl Iterator<Item = (&'k String, Held<'v>)>) -> Vec<(Held<'v>, Held<'v>)> {
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|(key, _)| *key);
    members.into_iter().map(|(key, member)| (Held::made(json!(key)), member)).collect()
}

/// A number is gone through from 0, unless it is too large; null not at all.
fn counted<'v>(value: &Json) -> Option<Vec<(Held<'v>, Held<'v>)>> {
    let number = if value.is_null() { 0 } else { value.as_i64()? };
    let number = usize::try_from(number.max(0)).ok().filter(|number| *number <= WIDEST)?;
    Some(numbered((0..number).map(|at| Held::made(json!(at)))))
}

impl Deref for Held<'_> {
    type Target = Json;

    fn deref(&self) -> &Json {
        match self {
            Held::Lent(value) => value,
            Held::Made(value) => value,
        }
    }
}

/// A text that refuses to grow without end.
#[derive(Default)]
pub(super) struct Bounded(pub(super) String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LARGEST_OUTPUT {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

static NOTHING: Json = Json::Null;
pub(super) const TOO_LARGE: &str = "makes more than 16 MiB";

/// What a list of nodes asks of the `range` around it.
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) struct Renderer<'t, 'v> {
    pub(super) source: &'t str,
    pub(super) out: Bounded,
    pub(super) variables: Vec<(String, Held<'v>)>,
    pub(super) steps: usize,
    pub(super) made: usize,
}

impl<'v> Renderer<'_, 'v> {
    pub(super) fn nodes(&mut self, nodes: &[Node], dot: &Held<'v>) -> Parsed<Flow> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Held<'v>) -> Parsed<Flow> {
        self.steps(1)?;
        match node {
            Node::Text(text) => self.write(|out| out.write_str(text))?,
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.set(pipeline, [&value]);
                if pipeline.variables.is_empty() {
                    self.write(|out| print_value(out, &value))?;
                }
            }
            Node::If(branches) => return self.branches(branches, dot, false),
            Node::With(branches) => return self.branches(branches, dot, true),
            Node::Range(range) => return self.range(range, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn steps(&mut self, number: usize) -> Parsed<()> {
        self.steps += number;
        if self.steps > MOST_STEPS {
            return Err(TemplateError(format!("takes more than {MOST_STEPS} steps")));
        }
        Ok(())
    }

    fn write(&mut self, print: impl FnOnce(&mut Bounded) -> fmt::Result) -> Parsed<()> {
        print(&mut self.out).map_err(|_| TemplateError("prints more than 16 MiB".to_owned()))
    }

    /// Runs a list whose variables end with it.
    fn scoped(&mut self, nodes: &[Node], dot: &Held<'v>) -> Parsed<Flow> {
        let scope = self.variables.len();
        let flow = self.nodes(nodes, dot);
        self.variables.truncate(scope);
        flow
    }

    pub(super) fn branches(&mut self, branches: &Branches, dot: &Held<'v>, moves_dot: bool) -> Parsed<Flow> {
        let scope = self.variables.len();
        for (condition, body) in &branches.list {
            self.steps(1)?;
            let value = self.pipeline(condition, dot)?;
            self.set(condition, [&value]);
            if is_true(&value) {
                let flow = self.scoped(body, if moves_dot { &value } else { dot });
                self.variables.truncate(scope);
                return flow;
            }
        }
        let flow = self.scoped(&branches.otherwise, dot);
        self.variables.truncate(scope);
        flow
    }

    pub(super) fn range(&mut self, range: &Range, dot: &Held<'v>) -> Parsed<Flow> {
        let over = self.pipeline(&range.over, dot)?;
        let Some(entries) = over.entries() else {
            return Err(
                self.refuse(&range.over.commands, format!("range cannot go through {}", shown(&over)))
            );
        };
        if entries.is_empty() {
            return self.scoped(&range.otherwise, dot);
        }
        let scope = self.variables.len();
        self.steps(entries.len())?;
        for (key, value) in entries {
            match range.over.variables.len() {
                2 => self.set(&range.over, [&key, &value]),
                _ => self.set(&range.over, [&value]),
            }
            let flow = self.scoped(&range.body, &value)?;
            self.variables.truncate(scope);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn set<'a, const N: usize>(&mut self, pipeline: &Pipeline, values: [&'a Held<'v>; N])
    where
        'v: 'a,
    {
        for (name, value) in pipeline.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known {
                Some((_, known)) if !pipeline.declares => *known = value.clone(),
                _ => self.variables.push((name.clone(), value.clone())),
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Held<'v>) -> Parsed<Held<'v>> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, dot, piped)?);
        }
        Ok(piped.unwrap_or(Held::Lent(&NOTHING)))
    }

    pub(super) fn command(
        &mut self,
        command: &Command,
        dot: &Held<'v>,
        piped: Option<Held<'v>>,
    ) -> Parsed<Held<'v>> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Ok(Held::Lent(&NOTHING));
        };
        if let Base::Function(_, function) = first.base {
            return self.call(function, command, dot, piped);
        }
        if rest.is_empty() && piped.is_none() {
            return self.operand(first, dot);
        }
        let Some(("Label", object)) = first.fields.split_last().map(|(last, object)| (last.as_str(), object))
        else {
            return Err(self.refuse_command(command, "only functions and .Label take arguments"));
        };
        let object = self.follow(first, object, dot)?;
        let mut args = vec![object];
        for operand in rest {
            args.push(self.operand(operand, dot)?);
        }
        args.extend(piped);
        self.made(label(&args), command)
    }

    fn call(
        &mut self,
        function: Function,
        command: &Command,
        dot: &Held<'v>,
        piped: Option<Held<'v>>,
    ) -> Parsed<Held<'v>> {
        let mut args = Vec::new();
        for operand in command.operands.iter().skip(1) {
            let value = self.operand(operand, dot)?;
            if function.decided_by(&value) {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(piped);
        match function {
            Function::Plain(function) => self.made(function(&args), command),
            Function::And | Function::Or => {
                let decisive = args.iter().find(|value| function.decided_by(value)).or(args.last());
                decisive
                    .cloned()
                    .ok_or_else(|| self.refuse_command(command, "takes at least 1 argument, not 0"))
            }
        }
    }

    /// Counts what a function made, so that no template fills the memory bit by bit.
    fn made(&mut self, result: Made, command: &Command) -> Parsed<Held<'v>> {
        let value = result.map_err(|why| self.refuse_command(command, why))?;
        let weight = weight(&value);
        if weight > LARGEST_OUTPUT {
            return Err(self.refuse_command(command, TOO_LARGE));
        }
        self.made += weight;
        if self.made > MOST_MADE {
            return Err(self.refuse_command(command, "the functions together make too much"));
        }
        Ok(Held::made(value))
    }

    pub(super) fn operand(&mut self, operand: &Operand, dot: &Held<'v>) -> Parsed<Held<'v>> {
        self.follow(operand, &operand.fields, dot)
    }

    /// The value at the end of a chain that starts at the operand's base.
    fn follow(&mut self, operand: &Operand, fields: &[String], dot: &Held<'v>) -> Parsed<Held<'v>> {
        let (mut value, base) = match &operand.base {
            Base::Dot => (dot.clone(), String::new()),
            Base::Variable(name) => (self.variable(name)?, format!("${name}")),
            Base::Literal(value) => (Held::made(value.clone()), String::new()),
            Base::Pipeline(pipeline) => (self.pipeline(pipeline, dot)?, "(…)".to_owned()),
            Base::Function(name, function) => {
                let result = function.of_nothing();
                (Held::made(result.map_err(|why| TemplateError(format!("{name}: {why}")))?), String::new())
            }
        };
        for (at, name) in fields.iter().enumerate() {
            let Some(member) = value.member(name) else {
                let chain = excerpt(&format!("{base}.{}", fields[..=at].join(".")));
                return Err(TemplateError(format!("{chain}: {}", missing(&value))));
            };
            value = member;
        }
        Ok(value)
    }

    fn variable(&self, name: &str) -> Parsed<Held<'v>> {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).ok_or_else(|| TemplateError(format!("${name}: not set here")))
    }

    fn refuse(&self, commands: &[Command], why: impl fmt::Display) -> TemplateError {
        match commands.first() {
            Some(command) => self.refuse_command(command, why),
            None => TemplateError(why.to_string()),
        }
    }

    fn refuse_command(&self, command: &Command, why: impl fmt::Display) -> TemplateError {
        let text = self.source.get(command.start..command.end).unwrap_or_default();
        TemplateError(format!("{}: {why}", excerpt(text)))
    }
}

pub(super) fn missing(value: &Json) -> String {
    let Json::Object(members) = value else {
        return format!("no such field; {} has none", shown(value));
    };
    if members.is_empty() {
        return "no such field; there are none here".to_owned();
    }
    let mut fields: Vec<String> = members.keys().map(|field| excerpt(field)).collect();
    fields.sort();
    let more = if fields.len() > MOST_FIELDS_SHOWN { ", …" } else { "" };
    fields.truncate(MOST_FIELDS_SHOWN);
    format!("no such field; the fields are {}{more}", fields.join(", "))
}

/// A value as an error shows it.
pub(super) fn shown(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::String(text) => excerpt(&format!("{text:?}")),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "a map".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

pub(super) fn is_true(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(bool) => *bool,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(members) => !members.is_empty(),
    }
}

fn weight(value: &Json) -> usize {
    let inner = match value {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(weight).sum(),
        Json::Object(members) => members.iter().map(|(key, member)| key.len() + weight(member)).sum(),
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
    };
    inner + size_of::<Json>()
}

// Functions. Each takes its arguments and says why it refuses.

pub(super) type Made = Result<Json, String>;
pub(super) type Args<'a, 'v> = &'a [Held<'v>];
