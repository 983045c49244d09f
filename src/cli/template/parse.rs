//! Reading: from pieces and words to what a template does.

use serde_json::Value as Json;

use super::{
    DEEPEST_TEMPLATE, TemplateError, error_at, excerpt,
    functions::{FUNCTIONS, Function},
    scan::{Cursor, Kind, Piece, Token},
};

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Branches),
    With(Branches),
    Range(Range),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(super) struct Branches {
    pub(super) list: Vec<(Pipeline, Vec<Node>)>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) over: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// `:=`, not `=`
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// Operands in the source from `start` to `end`; the first acts on the others.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Json),
    Function(&'static str, Function),
    Pipeline(Box<Pipeline>),
}

/// What ended a list of nodes.
pub(super) enum Ending {
    Source,
    End(usize),
    Else(Cursor),
}

pub(super) struct Parser<'s> {
    pub(super) source: &'s str,
    pub(super) pieces: std::vec::IntoIter<Piece>,
    pub(super) variables: Vec<String>,
    /// How many `range` are open.
    pub(super) loops: usize,
    pub(super) depth: usize,
}

pub(super) type Parsed<T> = Result<T, TemplateError>;

impl Parser<'_> {
    pub(super) fn list(&mut self) -> Parsed<(Vec<Node>, Ending)> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let mut cursor = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(cursor) => cursor,
            };
            if cursor.take_word("end") {
                self.nothing_more(&cursor)?;
                return Ok((nodes, Ending::End(cursor.start)));
            }
            if cursor.take_word("else") {
                return Ok((nodes, Ending::Else(cursor)));
            }
            nodes.push(self.action(cursor)?);
        }
        Ok((nodes, Ending::Source))
    }

    pub(super) fn action(&mut self, mut cursor: Cursor) -> Parsed<Node> {
        let Some(Kind::Word(word)) = cursor.peek_kind(0).cloned() else {
            return self.statement(cursor).map(Node::Action);
        };
        let start = cursor.start;
        cursor.at += 1;
        match word.as_str() {
            "if" => self.branches(cursor, "if").map(Node::If),
            "with" => self.branches(cursor, "with").map(Node::With),
            "range" => self.range(cursor).map(Node::Range),
            "break" | "continue" if self.loops == 0 => {
                Err(error_at(self.source, start, format!("{{{{{word}}}}} outside a range")))
            }
            "break" => self.nothing_more(&cursor).map(|()| Node::Break),
            "continue" => self.nothing_more(&cursor).map(|()| Node::Continue),
            "define" | "block" | "template" => Err(error_at(
                self.source,
                start,
                format!("{word} is not known here: a format is one template"),
            )),
            _ => {
                cursor.at -= 1;
                self.statement(cursor).map(Node::Action)
            }
        }
    }

    pub(super) fn branches(&mut self, mut cursor: Cursor, keyword: &str) -> Parsed<Branches> {
        let start = cursor.start;
        let scope = self.variables.len();
        self.deeper(start)?;
        let mut branches = Branches { list: Vec::new(), otherwise: Vec::new() };
        loop {
            let condition = self.statement(cursor)?;
            let (body, ending) = self.scoped_list()?;
            branches.list.push((condition, body));
            match ending {
                Ending::Else(next) if next.is_word(keyword) => {
                    cursor = next;
                    cursor.at += 1;
                }
                other => {
                    branches.otherwise = self.otherwise(other, start)?;
                    break;
                }
            }
        }
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(branches)
    }

    pub(super) fn range(&mut self, cursor: Cursor) -> Parsed<Range> {
        let start = cursor.start;
        let scope = self.variables.len();
        self.deeper(start)?;
        let over = self.statement(cursor)?;
        self.loops += 1;
        let (body, ending) = self.scoped_list()?;
        self.loops -= 1;
        let otherwise = self.otherwise(ending, start)?;
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(Range { over, body, otherwise })
    }

    fn scoped_list(&mut self) -> Parsed<(Vec<Node>, Ending)> {
        let scope = self.variables.len();
        let list = self.list()?;
        self.variables.truncate(scope);
        Ok(list)
    }

    /// What follows the last condition of the block that starts at `start`.
    fn otherwise(&mut self, ending: Ending, start: usize) -> Parsed<Vec<Node>> {
        let (nodes, ending) = match ending {
            Ending::Else(cursor) => {
                self.nothing_more(&cursor)?;
                self.scoped_list()?
            }
            other => (Vec::new(), other),
        };
        match ending {
            Ending::End(_) => Ok(nodes),
            Ending::Else(cursor) => Err(error_at(self.source, cursor.start, "unexpected {{else}}")),
            Ending::Source => Err(error_at(self.source, start, "no {{end}} for the block")),
        }
    }

    fn deeper(&mut self, at: usize) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEEPEST_TEMPLATE {
            return Err(error_at(self.source, at, format!("nested deeper than {DEEPEST_TEMPLATE} levels")));
        }
        Ok(())
    }

    fn nothing_more(&self, cursor: &Cursor) -> Parsed<()> {
        if cursor.peek().is_some() { Err(self.unexpected(cursor)) } else { Ok(()) }
    }

    fn unexpected(&self, cursor: &Cursor) -> TemplateError {
        match cursor.peek() {
            Some(token) => {
                let text = excerpt(self.source.get(token.start..token.end).unwrap_or_default());
                error_at(self.source, token.start, format!("unexpected {text}"))
            }
            None => error_at(self.source, cursor.start, "a value is missing in the action"),
        }
    }

    /// A pipeline that is all that is left of an action, with the variables it sets.
    fn statement(&mut self, mut cursor: Cursor) -> Parsed<Pipeline> {
        let (variables, declares) = self.targets(&mut cursor)?;
        let commands = self.commands(&mut cursor)?;
        self.nothing_more(&cursor)?;
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { variables, declares, commands })
    }

    /// `$x :=`, `$x =`, `$k, $v :=`
    fn targets(&mut self, cursor: &mut Cursor) -> Parsed<(Vec<String>, bool)> {
        let mut names = Vec::new();
        let mut ahead = 0;
        while let Some(Kind::Variable(name)) = cursor.peek_kind(ahead) {
            names.push(name.clone());
            ahead += 1;
            match cursor.peek_kind(ahead) {
                Some(Kind::Comma) if names.len() == 1 && self.in_range(cursor) => ahead += 1,
                Some(Kind::Declare) if !names.contains(&String::new()) => {
                    cursor.at += ahead + 1;
                    return Ok((names, true));
                }
                Some(Kind::Assign) if names.iter().all(|name| !name.is_empty() && self.knows(name)) => {
                    cursor.at += ahead + 1;
                    return Ok((names, false));
                }
                _ => break,
            }
        }
        Ok((Vec::new(), false))
    }

    fn in_range(&self, cursor: &Cursor) -> bool {
        matches!(cursor.tokens.first().map(|token| &token.kind), Some(Kind::Word(word)) if word == "range")
    }

    fn knows(&self, variable: &String) -> bool {
        self.variables.contains(variable)
    }

    fn commands(&mut self, cursor: &mut Cursor) -> Parsed<Vec<Command>> {
        let mut commands = vec![self.command(cursor)?];
        while cursor.peek_kind(0) == Some(&Kind::Pipe) {
            cursor.at += 1;
            commands.push(self.command(cursor)?);
        }
        Ok(commands)
    }

    pub(super) fn command(&mut self, cursor: &mut Cursor) -> Parsed<Command> {
        let start = cursor.position();
        let mut operands = vec![self.operand(cursor)?];
        while let Some(token) = cursor.peek() {
            match token.kind {
                Kind::Pipe | Kind::Close => break,
                _ if token.glued => return Err(self.unexpected(cursor)),
                _ => operands.push(self.operand(cursor)?),
            }
        }
        let end = cursor.tokens.get(cursor.at - 1).map_or(start, |token| token.end);
        Ok(Command { operands, start, end })
    }

    pub(super) fn operand(&mut self, cursor: &mut Cursor) -> Parsed<Operand> {
        let mut fields = Vec::new();
        let Some(token) = cursor.next() else {
            return Err(self.unexpected(cursor));
        };
        let base = match token.kind {
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Dot => return Ok(Operand { base: Base::Dot, fields }),
            Kind::Literal(value) => return Ok(Operand { base: Base::Literal(value), fields }),
            Kind::Word(name) => return Ok(Operand { base: self.function(&name, token.start)?, fields }),
            Kind::Variable(name) if self.knows(&name) => Base::Variable(name),
            Kind::Variable(name) => {
                return Err(error_at(self.source, token.start, format!("there is no variable ${name}")));
            }
            Kind::Open => Base::Pipeline(Box::new(self.parenthesis(cursor, token.start)?)),
            Kind::Close | Kind::Pipe | Kind::Comma | Kind::Assign | Kind::Declare => {
                cursor.at -= 1;
                return Err(self.unexpected(cursor));
            }
        };
        while let Some(Token { kind: Kind::Field(name), glued: true, .. }) = cursor.peek() {
            fields.push(name.clone());
            cursor.at += 1;
        }
        Ok(Operand { base, fields })
    }

    fn parenthesis(&mut self, cursor: &mut Cursor, start: usize) -> Parsed<Pipeline> {
        self.deeper(start)?;
        let commands = self.commands(cursor)?;
        self.depth -= 1;
        match cursor.next() {
            Some(Token { kind: Kind::Close, .. }) => {
                Ok(Pipeline { variables: Vec::new(), declares: false, commands })
            }
            _ => Err(error_at(self.source, start, "unclosed parenthesis")),
        }
    }

    fn function(&self, name: &str, at: usize) -> Parsed<Base> {
        match FUNCTIONS.iter().find(|(known, _)| *known == name) {
            Some((name, function)) => Ok(Base::Function(name, *function)),
            None => Err(error_at(self.source, at, format!("there is no function {}", excerpt(name)))),
        }
    }
}

// Rendering.
