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
//!
//! In this order: the template and its errors; reading (scanner, parser); rendering; functions; printing.

use core::cmp::Ordering;
use core::fmt::{self, Write};
use core::ops::Deref;
use core::str::FromStr;
use std::rc::Rc;

use serde_json::{Value as Json, json};

/// The longest template that is read, in bytes.
const LONGEST_TEMPLATE: usize = 64 * 1024;
/// How many blocks and parentheses may be open at once.
const DEEPEST_TEMPLATE: usize = 64;
/// How deep a value may nest; what `serde_json` reads is never deeper.
const DEEPEST_VALUE: usize = 128;
/// The most that one rendering writes, and that one function returns, in bytes.
const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;
/// The most that all functions of one rendering return together, in bytes.
const MOST_MADE: usize = 8 * LARGEST_OUTPUT;
/// How many texts, actions and blocks one rendering goes through, repetitions counted.
const MOST_STEPS: usize = 1_000_000;
/// The widest that `printf` and `pad` go, and the most parts that `split` makes.
/// Below 65535, as Rust panics at an exponent after so many digits.
const WIDEST: usize = 60_000;
/// How much of a template or a value an error shows, in characters.
const LONGEST_EXCERPT: usize = 120;
/// How many field names an error lists.
const MOST_FIELDS_SHOWN: usize = 24;

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
fn error_at(source: &str, offset: usize, what: impl fmt::Display) -> TemplateError {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    TemplateError(format!("{what} at {line}:{column}"))
}

/// A text on one line, cut short.
fn excerpt(text: &str) -> String {
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

enum Piece {
    Text(String),
    Action(Cursor),
}

/// The tokens of an action, the next one at `at`. It lies in the source from `start` to `end`.
struct Cursor {
    tokens: Vec<Token>,
    at: usize,
    start: usize,
    end: usize,
}

#[derive(Clone)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
    /// No blank before it.
    glued: bool,
}

#[derive(Clone, PartialEq)]
enum Kind {
    /// `.Name`
    Field(String),
    /// `$name`, without the sign
    Variable(String),
    Word(String),
    Literal(Json),
    Dot,
    Open,
    Close,
    Pipe,
    Comma,
    Assign,
    Declare,
}

impl Cursor {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn peek_kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek_kind(0), Some(Kind::Word(next)) if next == word)
    }

    /// Takes the word, if it is next.
    fn take_word(&mut self, word: &str) -> bool {
        let next = self.is_word(word);
        self.at += usize::from(next);
        next
    }

    /// Where the next token starts, or the action ends.
    fn position(&self) -> usize {
        self.peek().map_or(self.end, |token| token.start)
    }
}

fn scan(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut scanner = Scanner { source, at: 0 };
    let mut trim_start = false;
    while let Some(found) = scanner.rest().find("{{") {
        let start = scanner.at + found;
        let after = &source[start + 2..];
        let trim_end = after.starts_with('-') && after[1..].starts_with(char::is_whitespace);
        pieces.push(Piece::Text(plain(&source[scanner.at..start], trim_start, trim_end)));
        scanner.at = start + if trim_end { 3 } else { 2 };
        if scanner.rest().trim_start().starts_with("/*") {
            trim_start = scanner.comment(start)?;
        } else {
            let (action, trim) = scanner.action(start)?;
            pieces.push(Piece::Action(action));
            trim_start = trim;
        }
    }
    pieces.push(Piece::Text(plain(scanner.rest(), trim_start, false)));
    Ok(pieces)
}

/// What trim markers take away.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Text outside actions: `\t` and `\n` in two characters are meant as one, as in `docker network ls`.
fn plain(text: &str, trim_start: bool, trim_end: bool) -> String {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let text = if trim_start { text.trim_start_matches(BLANKS) } else { &text };
    let text = if trim_end { text.trim_end_matches(BLANKS) } else { text };
    text.to_owned()
}

struct Scanner<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Scanner<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Passes a comment; tells whether its end trims.
    fn comment(&mut self, start: usize) -> Result<bool, TemplateError> {
        let Some(length) = self.rest().find("*/") else {
            return Err(error_at(self.source, start, "unclosed comment"));
        };
        self.at += length + 2;
        match self.closing() {
            Some(trim) => Ok(trim),
            None => Err(error_at(self.source, self.at, "a comment is alone in its action: expected }}")),
        }
    }

    /// Passes blanks and the end of the action, if it is next; tells whether it trims.
    fn closing(&mut self) -> Option<bool> {
        let blanks = self.rest().len() - self.rest().trim_start().len();
        self.at += blanks;
        let (length, trim) = if self.rest().starts_with("}}") {
            (2, false)
        } else if blanks > 0 && self.rest().starts_with("-}}") {
            (3, true)
        } else {
            return None;
        };
        self.at += length;
        Some(trim)
    }

    fn action(&mut self, start: usize) -> Result<(Cursor, bool), TemplateError> {
        let mut tokens = Vec::new();
        loop {
            let before = self.at;
            if let Some(trim) = self.closing() {
                return Ok((Cursor { tokens, at: 0, start, end: self.at }, trim));
            }
            if self.rest().is_empty() {
                return Err(error_at(self.source, start, "unclosed action"));
            }
            let token_start = self.at;
            let kind = self.token()?;
            tokens.push(Token { kind, start: token_start, end: self.at, glued: before == token_start });
        }
    }

    fn token(&mut self) -> Result<Kind, TemplateError> {
        let rest = self.rest();
        let mut chars = rest.chars();
        let (first, second) = (chars.next().unwrap_or(' '), chars.next().unwrap_or(' '));
        match first {
            '"' | '\'' => self.quoted(first),
            '`' => self.raw(),
            '$' => Ok(Kind::Variable(self.name_after(1))),
            '.' if is_name(second) && !second.is_numeric() => Ok(Kind::Field(self.name_after(1))),
            '0'..='9' => self.number(),
            '+' | '-' | '.' if second.is_ascii_digit() => self.number(),
            _ if is_name(first) => Ok(self.word()),
            _ => self.sign(first, second),
        }
    }

    fn sign(&mut self, first: char, second: char) -> Result<Kind, TemplateError> {
        let kind = match (first, second) {
            ('.', _) => Kind::Dot,
            ('(', _) => Kind::Open,
            (')', _) => Kind::Close,
            ('|', _) => Kind::Pipe,
            (',', _) => Kind::Comma,
            ('=', _) => Kind::Assign,
            (':', '=') => Kind::Declare,
            _ => {
                let what = format!("unexpected {}", excerpt(&first.to_string()));
                return Err(error_at(self.source, self.at, what));
            }
        };
        self.at += if kind == Kind::Declare { 2 } else { 1 };
        Ok(kind)
    }

    fn name_after(&mut self, skipped: usize) -> String {
        self.at += skipped;
        let rest = self.rest();
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        self.at += name.len();
        name.to_owned()
    }

    fn word(&mut self) -> Kind {
        let word = self.name_after(0);
        match word.as_str() {
            "true" => Kind::Literal(json!(true)),
            "false" => Kind::Literal(json!(false)),
            "nil" => Kind::Literal(Json::Null),
            _ => Kind::Word(word),
        }
    }

    fn number(&mut self) -> Result<Kind, TemplateError> {
        let rest = self.rest();
        let mut previous = ' ';
        let ends = |c: char| {
            let signed = matches!(c, '+' | '-') && matches!(previous, ' ' | 'e' | 'E');
            previous = c;
            !(signed || c == '.' || is_name(c))
        };
        let text = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let Some(number) = read_number(text) else {
            return Err(error_at(self.source, self.at, format!("{} is no number", excerpt(text))));
        };
        self.at += text.len();
        Ok(Kind::Literal(number))
    }

    fn raw(&mut self) -> Result<Kind, TemplateError> {
        let body = &self.rest()[1..];
        let Some(length) = body.find('`') else {
            return Err(error_at(self.source, self.at, "unclosed string"));
        };
        self.at += length + 2;
        Ok(Kind::Literal(json!(body[..length])))
    }

    /// A string in double quotes, or a character in single ones, which is a number.
    fn quoted(&mut self, quote: char) -> Result<Kind, TemplateError> {
        let start = self.at;
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            match self.rest().chars().next() {
                Some(c) if c == quote => break,
                Some('\\') => self.escape(&mut bytes)?,
                Some(c) if c != '\n' => {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += c.len_utf8();
                }
                _ => return Err(error_at(self.source, start, "unclosed string")),
            }
        }
        self.at += 1;
        let text = String::from_utf8_lossy(&bytes);
        let mut chars = text.chars();
        match (quote, chars.next(), chars.next()) {
            ('"', ..) => Ok(Kind::Literal(json!(text))),
            (_, Some(c), None) => Ok(Kind::Literal(json!(u32::from(c)))),
            _ => Err(error_at(self.source, start, "single quotes hold one character")),
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), TemplateError> {
        let rest = self.rest().get(1..).unwrap_or_default();
        let (digits, radix) = match rest.chars().next() {
            Some('x') => (rest.get(1..3), 16),
            Some('u') => (rest.get(1..5), 16),
            Some('U') => (rest.get(1..9), 16),
            Some('0'..='7') => (rest.get(..3), 8),
            Some(c) => {
                let known = "abfnrtv\\'\"".find(c).and_then(|at| b"\x07\x08\x0c\n\r\t\x0b\\'\"".get(at));
                self.at += 2;
                return match known {
                    Some(byte) => {
                        bytes.push(*byte);
                        Ok(())
                    }
                    None => Err(error_at(self.source, self.at - 2, "unknown escape in a string")),
                };
            }
            None => (None, 16),
        };
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let long = matches!(rest.as_bytes().first(), Some(b'u' | b'U'));
        match (code.and_then(|code| u8::try_from(code).ok()), code.and_then(char::from_u32)) {
            (_, Some(c)) if long => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            (Some(byte), _) if !long => bytes.push(byte),
            _ => return Err(error_at(self.source, self.at, "unknown escape in a string")),
        }
        self.at += 1 + usize::from(radix == 16) + digits.map_or(0, str::len);
        Ok(())
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn read_number(text: &str) -> Option<Json> {
    let digits = text.replace('_', "").to_ascii_lowercase();
    let (sign, magnitude) = match digits.strip_prefix(['+', '-']) {
        Some(magnitude) => (&digits[..1], magnitude),
        None => ("", digits.as_str()),
    };
    let radixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = radixes.iter().find_map(|(prefix, radix)| Some((magnitude.strip_prefix(prefix)?, *radix)));
    if let Some((magnitude, radix)) = prefixed {
        return i64::from_str_radix(&format!("{sign}{magnitude}"), radix).ok().map(Json::from);
    }
    let octal =
        magnitude.len() > 1 && magnitude.starts_with('0') && magnitude.bytes().all(|b| b.is_ascii_digit());
    match i64::from_str_radix(&digits, if octal { 8 } else { 10 }) {
        Ok(number) => Some(number.into()),
        Err(_) if octal || magnitude.bytes().all(|b| b.is_ascii_digit()) => None,
        Err(_) => digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(Json::from),
    }
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Action(Pipeline),
    If(Branches),
    With(Branches),
    Range(Range),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
struct Branches {
    list: Vec<(Pipeline, Vec<Node>)>,
    otherwise: Vec<Node>,
}

#[derive(Debug, Clone)]
struct Range {
    over: Pipeline,
    body: Vec<Node>,
    otherwise: Vec<Node>,
}

#[derive(Debug, Clone)]
struct Pipeline {
    variables: Vec<String>,
    /// `:=`, not `=`
    declares: bool,
    commands: Vec<Command>,
}

/// Operands in the source from `start` to `end`; the first acts on the others.
#[derive(Debug, Clone)]
struct Command {
    operands: Vec<Operand>,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone)]
struct Operand {
    base: Base,
    fields: Vec<String>,
}

#[derive(Debug, Clone)]
enum Base {
    Dot,
    Variable(String),
    Literal(Json),
    Function(&'static str, Function),
    Pipeline(Box<Pipeline>),
}

/// What ended a list of nodes.
enum Ending {
    Source,
    End(usize),
    Else(Cursor),
}

struct Parser<'s> {
    source: &'s str,
    pieces: std::vec::IntoIter<Piece>,
    variables: Vec<String>,
    /// How many `range` are open.
    loops: usize,
    depth: usize,
}

type Parsed<T> = Result<T, TemplateError>;

impl Parser<'_> {
    fn list(&mut self) -> Parsed<(Vec<Node>, Ending)> {
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

    fn action(&mut self, mut cursor: Cursor) -> Parsed<Node> {
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

    fn branches(&mut self, mut cursor: Cursor, keyword: &str) -> Parsed<Branches> {
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

    fn range(&mut self, cursor: Cursor) -> Parsed<Range> {
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

    fn command(&mut self, cursor: &mut Cursor) -> Parsed<Command> {
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

    fn operand(&mut self, cursor: &mut Cursor) -> Parsed<Operand> {
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

/// A value that belongs to the caller, or that the template made.
#[derive(Clone)]
enum Held<'v> {
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
struct Bounded(String);

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
const TOO_LARGE: &str = "makes more than 16 MiB";

/// What a list of nodes asks of the `range` around it.
enum Flow {
    Next,
    Break,
    Continue,
}

struct Renderer<'t, 'v> {
    source: &'t str,
    out: Bounded,
    variables: Vec<(String, Held<'v>)>,
    steps: usize,
    made: usize,
}

impl<'v> Renderer<'_, 'v> {
    fn nodes(&mut self, nodes: &[Node], dot: &Held<'v>) -> Parsed<Flow> {
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

    fn branches(&mut self, branches: &Branches, dot: &Held<'v>, moves_dot: bool) -> Parsed<Flow> {
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

    fn range(&mut self, range: &Range, dot: &Held<'v>) -> Parsed<Flow> {
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

    fn command(&mut self, command: &Command, dot: &Held<'v>, piped: Option<Held<'v>>) -> Parsed<Held<'v>> {
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

    fn operand(&mut self, operand: &Operand, dot: &Held<'v>) -> Parsed<Held<'v>> {
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

fn missing(value: &Json) -> String {
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
fn shown(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::String(text) => excerpt(&format!("{text:?}")),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "a map".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

fn is_true(value: &Json) -> bool {
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

type Made = Result<Json, String>;
type Args<'a, 'v> = &'a [Held<'v>];

#[derive(Debug, Clone, Copy)]
enum Function {
    And,
    Or,
    Plain(fn(Args<'_, '_>) -> Made),
}

impl Function {
    fn of_nothing(self) -> Made {
        match self {
            Function::And | Function::Or => Err("takes at least 1 argument, not 0".to_owned()),
            Function::Plain(function) => function(&[]),
        }
    }

    /// `and` and `or` look no further than the argument that decides.
    fn decided_by(self, value: &Json) -> bool {
        match self {
            Function::And => !is_true(value),
            Function::Or => is_true(value),
            Function::Plain(_) => false,
        }
    }
}

const FUNCTIONS: [(&str, Function); 26] = [
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Plain(|args| Ok(json!(!is_true(one(args)?))))),
    ("eq", Function::Plain(equal)),
    ("ne", Function::Plain(|args| Ok(json!(!two(args).and_then(|(a, b)| same(a, b))?)))),
    ("lt", Function::Plain(|args| Ok(json!(order(args)?.is_lt())))),
    ("le", Function::Plain(|args| Ok(json!(order(args)?.is_le())))),
    ("gt", Function::Plain(|args| Ok(json!(order(args)?.is_gt())))),
    ("ge", Function::Plain(|args| Ok(json!(order(args)?.is_ge())))),
    ("len", Function::Plain(length)),
    ("index", Function::Plain(index)),
    ("slice", Function::Plain(slice)),
    ("print", Function::Plain(|args| Ok(json!(print(args)?)))),
    ("printf", Function::Plain(printf)),
    ("println", Function::Plain(println)),
    ("html", Function::Plain(|args| escape(args, html))),
    ("js", Function::Plain(|args| escape(args, js))),
    ("urlquery", Function::Plain(urlquery)),
    ("json", Function::Plain(|args| Ok(json!(one(args)?.to_string())))),
    ("join", Function::Plain(join)),
    ("split", Function::Plain(split)),
    ("lower", Function::Plain(|args| Ok(json!(text(one(args)?)?.to_lowercase())))),
    ("upper", Function::Plain(|args| Ok(json!(text(one(args)?)?.to_uppercase())))),
    ("title", Function::Plain(title)),
    ("pad", Function::Plain(pad)),
    ("truncate", Function::Plain(truncate)),
];

fn one<'a>(args: Args<'a, '_>) -> Result<&'a Json, String> {
    match args {
        [only] => Ok(only),
        _ => Err(format!("takes 1 argument, not {}", args.len())),
    }
}

fn two<'a>(args: Args<'a, '_>) -> Result<(&'a Json, &'a Json), String> {
    match args {
        [first, second] => Ok((first, second)),
        _ => Err(format!("takes 2 arguments, not {}", args.len())),
    }
}

fn text(value: &Json) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("takes a string, not {}", shown(value)))
}

fn count(value: &Json) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number
        .filter(|number| *number <= WIDEST)
        .ok_or_else(|| format!("takes a number from 0 to {WIDEST}, not {}", shown(value)))
}

fn equal(args: Args<'_, '_>) -> Made {
    let Some((first, rest)) = args.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(format!("takes at least 2 arguments, not {}", args.len()));
    };
    for other in rest {
        if same(first, other)? {
            return Ok(json!(true));
        }
    }
    Ok(json!(false))
}

fn same(a: &Json, b: &Json) -> Result<bool, String> {
    match (a, b) {
        (Json::Null, _) | (_, Json::Null) => Ok(a == b),
        (Json::Bool(a), Json::Bool(b)) => Ok(a == b),
        (Json::String(a), Json::String(b)) => Ok(a == b),
        (Json::Number(_), Json::Number(_)) => Ok(compare_numbers(a, b) == Some(Ordering::Equal)),
        _ => Err(format!("cannot compare {} with {}", shown(a), shown(b))),
    }
}

fn order(args: Args<'_, '_>) -> Result<Ordering, String> {
    let (a, b) = two(args)?;
    let ordering = match (a, b) {
        (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
        _ => compare_numbers(a, b),
    };
    ordering.ok_or_else(|| format!("cannot compare {} with {}", shown(a), shown(b)))
}

fn compare_numbers(a: &Json, b: &Json) -> Option<Ordering> {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn integer(value: &Json) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

fn length(args: Args<'_, '_>) -> Made {
    match one(args)? {
        Json::String(text) => Ok(json!(text.len())),
        Json::Array(items) => Ok(json!(items.len())),
        Json::Object(members) => Ok(json!(members.len())),
        other => Err(format!("{} has no length", shown(other))),
    }
}

/// As Go's, but what a map lacks is an empty string.
fn index(args: Args<'_, '_>) -> Made {
    let Some((first, keys)) = args.split_first() else {
        return Err("takes at least 1 argument".to_owned());
    };
    let mut item: &Json = first;
    for key in keys {
        item = match (item, &**key) {
            (Json::Object(members), Json::String(name)) => match members.get(name) {
                Some(member) => member,
                None => return Ok(json!("")),
            },
            (Json::Null, Json::String(_)) => return Ok(json!("")),
            (Json::Array(items), Json::Number(_)) => {
                let found = key.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
                found.ok_or_else(|| format!("{} is out of range: there are {}", shown(key), items.len()))?
            }
            (item, key) => return Err(format!("cannot index {} with {}", shown(item), shown(key))),
        };
    }
    Ok(item.clone())
}

/// `slice x 1 3`: from the second to the third; strings count bytes, as in Go.
fn slice(args: Args<'_, '_>) -> Made {
    let (whole, bounds) = match args {
        [whole, bounds @ ..] if bounds.len() <= 2 => (whole, bounds),
        _ => return Err(format!("takes 1 to 3 arguments, not {}", args.len())),
    };
    let bounds: Vec<usize> = bounds.iter().map(|bound| count(bound)).collect::<Result<_, _>>()?;
    let start = bounds.first().copied().unwrap_or(0);
    let part = match &**whole {
        Json::String(text) => {
            text.get(start..bounds.get(1).copied().unwrap_or(text.len())).map(|part| json!(part))
        }
        Json::Array(items) => {
            items.get(start..bounds.get(1).copied().unwrap_or(items.len())).map(|part| json!(part))
        }
        other => return Err(format!("cannot slice {}", shown(other))),
    };
    part.ok_or_else(|| format!("out of range of {}", shown(whole)))
}

/// `.Label "k"`, of objects that have `Labels`: a map, or Docker's text `a=1,b=2`.
fn label(args: Args<'_, '_>) -> Made {
    let (object, name) = two(args).map_err(|_| ".Label takes 1 argument".to_owned())?;
    let name = text(name)?;
    match object.get("Labels") {
        Some(Json::Object(labels)) => Ok(labels.get(name).cloned().unwrap_or_else(|| json!(""))),
        Some(Json::String(labels)) => {
            let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            Ok(json!(pairs.find(|(key, _)| *key == name).map_or("", |(_, value)| value)))
        }
        Some(_) => Ok(json!("")),
        None => Err(missing(object)),
    }
}

fn join(args: Args<'_, '_>) -> Made {
    let (list, separator) = two(args)?;
    let separator = text(separator)?;
    let items = match list {
        Json::Array(items) => items.as_slice(),
        Json::Null => &[],
        other => return Err(format!("takes a list, not {}", shown(other))),
    };
    bounded(|out| {
        for (at, item) in items.iter().enumerate() {
            out.write_str(if at > 0 { separator } else { "" })?;
            show(out, item)?;
        }
        Ok(())
    })
    .map(Json::from)
}

/// An empty separator splits into characters.
fn split(args: Args<'_, '_>) -> Made {
    let (whole, separator) = two(args)?;
    let (whole, separator) = (text(whole)?, text(separator)?);
    let parts: Vec<Json> = if separator.is_empty() {
        whole.chars().take(WIDEST + 1).map(|c| json!(c.to_string())).collect()
    } else {
        whole.split(separator).take(WIDEST + 1).map(Json::from).collect()
    };
    if parts.len() > WIDEST { Err(format!("makes more than {WIDEST} parts")) } else { Ok(Json::Array(parts)) }
}

/// A capital at the start of each word, the rest as it is.
fn title(args: Args<'_, '_>) -> Made {
    let mut titled = String::new();
    let mut in_word = false;
    for c in text(one(args)?)?.chars() {
        if in_word {
            titled.push(c)
        } else {
            titled.extend(c.to_uppercase())
        }
        in_word = is_name(c);
    }
    Ok(json!(titled))
}

/// `pad .Name 1 2`: one space before, two after; none around nothing.
fn pad(args: Args<'_, '_>) -> Made {
    let [inner, before, after] = args else {
        return Err(format!("takes 3 arguments, not {}", args.len()));
    };
    let (inner, before, after) = (text(inner)?, count(before)?, count(after)?);
    if inner.is_empty() {
        return Ok(json!(""));
    }
    Ok(json!(format!("{}{inner}{}", " ".repeat(before), " ".repeat(after))))
}

/// `truncate .ID 12`: the first characters. Docker counts bytes, which cuts characters in two.
fn truncate(args: Args<'_, '_>) -> Made {
    let (whole, length) = two(args)?;
    let length = count(length)?;
    Ok(json!(text(whole)?.chars().take(length).collect::<String>()))
}

fn escape(args: Args<'_, '_>, escaped: fn(char, &mut String)) -> Made {
    let mut safe = String::new();
    print(args)?.chars().for_each(|c| escaped(c, &mut safe));
    Ok(json!(safe))
}

fn html(c: char, safe: &mut String) {
    match c {
        '"' => safe.push_str("&#34;"),
        '\'' => safe.push_str("&#39;"),
        '&' => safe.push_str("&amp;"),
        '<' => safe.push_str("&lt;"),
        '>' => safe.push_str("&gt;"),
        '\0' => safe.push('\u{fffd}'),
        _ => safe.push(c),
    }
}

fn js(c: char, safe: &mut String) {
    match c {
        '\\' | '\'' | '"' => safe.extend(['\\', c]),
        '<' | '>' | '&' | '=' => safe.push_str(&format!("\\u{:04X}", u32::from(c))),
        _ if c.is_control() => safe.push_str(&format!("\\u{:04X}", u32::from(c))),
        _ => safe.push(c),
    }
}

fn urlquery(args: Args<'_, '_>) -> Made {
    let mut safe = String::new();
    for byte in print(args)?.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => safe.push(byte.into()),
            b' ' => safe.push('+'),
            _ => safe.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(json!(safe))
}

// Printing, as Go's package fmt does.

fn bounded(print: impl FnOnce(&mut Bounded) -> fmt::Result) -> Result<String, String> {
    let mut out = Bounded::default();
    match print(&mut out) {
        Ok(()) => Ok(out.0),
        Err(fmt::Error) => Err(TOO_LARGE.to_owned()),
    }
}

fn print_value(out: &mut Bounded, value: &Json) -> fmt::Result {
    if value.is_null() { out.write_str("<no value>") } else { show(out, value) }
}

/// `%v`
fn show(out: &mut Bounded, value: &Json) -> fmt::Result {
    directive(out, &Spec::default(), 'v', value)
}

/// With a space between two arguments that are no strings.
fn print(args: Args<'_, '_>) -> Result<String, String> {
    bounded(|out| {
        let mut after_string = true;
        for arg in args {
            if !after_string && !arg.is_string() {
                out.write_char(' ')?;
            }
            show(out, arg)?;
            after_string = arg.is_string();
        }
        Ok(())
    })
}

fn println(args: Args<'_, '_>) -> Made {
    let line = bounded(|out| {
        for (at, arg) in args.iter().enumerate() {
            out.write_str(if at > 0 { " " } else { "" })?;
            show(out, arg)?;
        }
        out.write_char('\n')
    });
    line.map(Json::from)
}

fn printf(args: Args<'_, '_>) -> Made {
    let Some((format, args)) = args.split_first() else {
        return Err("takes at least 1 argument".to_owned());
    };
    let format = text(format)?;
    bounded(|out| print_format(out, format, args)).map(Json::from)
}

fn print_format(out: &mut Bounded, format: &str, args: Args<'_, '_>) -> fmt::Result {
    let mut args = args.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.write_str(before)?;
        let mut chars = after.chars();
        let spec = Spec::read(&mut chars, &mut args);
        match chars.next() {
            None => out.write_str("%!(NOVERB)")?,
            Some('%') => out.write_char('%')?,
            Some(verb) => match args.next() {
                Some(value) => directive(out, &spec, verb, value)?,
                None => write!(out, "%!{verb}(MISSING)")?,
            },
        }
        rest = chars.as_str();
    }
    out.write_str(rest)?;
    print_extra(out, args.as_slice())
}

fn print_extra(out: &mut Bounded, args: Args<'_, '_>) -> fmt::Result {
    for (at, arg) in args.iter().enumerate() {
        out.write_str(if at == 0 { "%!(EXTRA " } else { ", " })?;
        typed(out, arg)?;
    }
    out.write_str(if args.is_empty() { "" } else { ")" })
}

/// `string=blue`
fn typed(out: &mut Bounded, value: &Json) -> fmt::Result {
    if !value.is_null() {
        write!(out, "{}=", type_name(value))?;
    }
    show(out, value)
}

fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(_) if integer(value).is_some() => "int",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

/// What stands between `%` and the verb.
#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn read(chars: &mut core::str::Chars<'_>, args: &mut core::slice::Iter<'_, Held<'_>>) -> Self {
        let mut spec = Spec::default();
        while let Some(flag) = chars.as_str().chars().next() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                '0' => spec.zero = true,
                ' ' => spec.space = true,
                _ => break,
            }
            chars.next();
        }
        let width = read_width(chars, args).unwrap_or(0);
        spec.minus |= width < 0;
        spec.width = clamp(width);
        if chars.as_str().starts_with('.') {
            chars.next();
            let precision = read_width(chars, args).unwrap_or(0);
            spec.precision = (precision >= 0).then(|| clamp(precision));
        }
        spec
    }

    fn pad(&self, out: &mut Bounded, text: &str) -> fmt::Result {
        let blanks = " ".repeat(self.width.saturating_sub(text.chars().count()));
        if self.minus { write!(out, "{text}{blanks}") } else { write!(out, "{blanks}{text}") }
    }

    /// A number in its width, with zeros between sign and digits where the flag says so.
    fn pad_number(&self, out: &mut Bounded, negative: bool, digits: &str, may_zero: bool) -> fmt::Result {
        let sign = match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        if !self.zero || self.minus || !may_zero {
            return self.pad(out, &format!("{sign}{digits}"));
        }
        let zeros = "0".repeat(self.width.saturating_sub(sign.len() + digits.len()));
        write!(out, "{sign}{zeros}{digits}")
    }
}

/// Digits, or `*` for the next argument.
fn read_width(chars: &mut core::str::Chars<'_>, args: &mut core::slice::Iter<'_, Held<'_>>) -> Option<i64> {
    let rest = chars.as_str();
    if rest.starts_with('*') {
        chars.next();
        return args.next().and_then(|arg| arg.as_i64());
    }
    let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
    *chars = rest[digits.len()..].chars();
    digits.parse().ok()
}

/// Wider than the widest is as wide as that.
fn clamp(width: i64) -> usize {
    usize::try_from(width.unsigned_abs()).unwrap_or(WIDEST).min(WIDEST)
}

fn directive(out: &mut Bounded, spec: &Spec, verb: char, value: &Json) -> fmt::Result {
    match (value, verb) {
        (_, 'T') => spec.pad(out, type_name(value)),
        (Json::Array(items), _) => {
            for (at, item) in items.iter().enumerate() {
                out.write_str(if at == 0 { "[" } else { " " })?;
                directive(out, spec, verb, item)?;
            }
            out.write_str(if items.is_empty() { "[]" } else { "]" })
        }
        (Json::Object(members), _) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            out.write_str("map[")?;
            for (at, (key, member)) in members.into_iter().enumerate() {
                out.write_str(if at == 0 { "" } else { " " })?;
                text_directive(out, spec, verb, key)?;
                out.write_char(':')?;
                directive(out, spec, verb, member)?;
            }
            out.write_char(']')
        }
        (Json::String(text), _) => text_directive(out, spec, verb, text),
        (Json::Null, 'v') => spec.pad(out, "<nil>"),
        (Json::Bool(bool), 'v' | 't') => spec.pad(out, if *bool { "true" } else { "false" }),
        (Json::Number(_), _) => number_directive(out, spec, verb, value),
        (Json::Null | Json::Bool(_), _) => wrong_verb(out, verb, value),
    }
}

fn wrong_verb(out: &mut Bounded, verb: char, value: &Json) -> fmt::Result {
    write!(out, "%!{verb}(")?;
    typed(out, value)?;
    out.write_char(')')
}

fn text_directive(out: &mut Bounded, spec: &Spec, verb: char, text: &str) -> fmt::Result {
    let text: String = match spec.precision {
        Some(length) => text.chars().take(length).collect(),
        None => text.to_owned(),
    };
    match verb {
        'v' | 's' => spec.pad(out, &text),
        'q' => spec.pad(out, &quote(&text, '"')),
        'x' => spec.pad(out, &text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()),
        'X' => spec.pad(out, &text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>()),
        _ => wrong_verb(out, verb, &json!(text)),
    }
}

fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            _ if c == mark => quoted.extend(['\\', c]),
            _ if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}

fn number_directive(out: &mut Bounded, spec: &Spec, verb: char, value: &Json) -> fmt::Result {
    match (integer(value), value.as_f64()) {
        (Some(number), _) => integer_directive(out, spec, verb, number, value),
        (None, Some(number)) => float_directive(out, spec, verb, number, value),
        (None, None) => wrong_verb(out, verb, value),
    }
}

fn integer_directive(out: &mut Bounded, spec: &Spec, verb: char, number: i128, value: &Json) -> fmt::Result {
    let magnitude = number.unsigned_abs();
    let character = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let (prefix, digits) = match verb {
        'd' | 'v' => ("", magnitude.to_string()),
        'b' => ("0b", format!("{magnitude:b}")),
        'o' => ("0", format!("{magnitude:o}")),
        'O' => ("", format!("0o{magnitude:o}")),
        'x' => ("0x", format!("{magnitude:x}")),
        'X' => ("0X", format!("{magnitude:X}")),
        'c' => return spec.pad(out, &character.to_string()),
        'q' => return spec.pad(out, &quote(&character.to_string(), '\'')),
        'U' => return spec.pad(out, &format!("U+{magnitude:04X}")),
        _ => return wrong_verb(out, verb, value),
    };
    let zeros = "0".repeat(spec.precision.unwrap_or(0).saturating_sub(digits.len()));
    let prefix = if spec.sharp { prefix } else { "" };
    spec.pad_number(out, number < 0, &format!("{prefix}{zeros}{digits}"), spec.precision.is_none())
}

fn float_directive(out: &mut Bounded, spec: &Spec, verb: char, number: f64, value: &Json) -> fmt::Result {
    let magnitude = number.abs();
    let digits = match verb {
        'v' | 'g' | 'G' => general(magnitude, spec.precision),
        'f' | 'F' => format!("{magnitude:.*}", spec.precision.unwrap_or(6)),
        'e' | 'E' => scientific(&format!("{magnitude:.*e}", spec.precision.unwrap_or(6))),
        _ => return wrong_verb(out, verb, value),
    };
    let digits = if verb.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
    spec.pad_number(out, number.is_sign_negative(), &digits, true)
}

/// The shortest text for the number, or one of so many digits.
fn general(magnitude: f64, precision: Option<usize>) -> String {
    let (precise, exponent_from) = match precision {
        None => (format!("{magnitude:e}"), 6),
        Some(digits) => {
            let digits = digits.max(1);
            (format!("{magnitude:.*e}", digits - 1), i64::try_from(digits).unwrap_or(6))
        }
    };
    let (mantissa, exponent) = precise.split_once('e').unwrap_or((&precise, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let short = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= exponent_from {
        return scientific(&format!("{}e{exponent}", short(mantissa)));
    }
    match precision {
        None => magnitude.to_string(),
        Some(_) => {
            short(&format!("{magnitude:.*}", usize::try_from(exponent_from - 1 - exponent).unwrap_or(0)))
        }
    }
}

/// Rust writes `1e7`, Go `1e+07`.
fn scientific(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn network() -> Json {
        json!({
            "Name": "blue", "ID": "0123456789abcdef", "Driver": "bridge", "Internal": false, "MTU": 1500,
            "Ratio": 1.5, "Big": 12345678901234567890u64, "Peer": null, "Aliases": ["web", "db"],
            "Labels": {"tier": "front", "com.example.x": "1"}, "Options": {},
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.1.0.0/16"}, {"Subnet": "fd00::/64"}]},
            "Containers": {"f2": {"Name": "web"}, "a1": {"Name": "db"}},
        })
    }

    fn rendered(source: &str) -> String {
        let result = source.parse::<Template>().and_then(|template| template.render(&network()));
        result.unwrap_or_else(|error| error.to_string())
    }

    /// Each line is a template, ` => `, and what it must print.
    fn check(cases: &[(&str, &str)]) {
        for (source, expected) in cases {
            assert_eq!(rendered(source), *expected, "{source}");
        }
    }

    #[test]
    fn fields_and_values_print_as_in_go() {
        check(&[
            ("", ""),
            ("plain", "plain"),
            ("{{/* nothing */}}", ""),
            ("{{.Name}} {{.IPAM.Driver}} {{$.Name}} {{(.Name)}}", "blue default blue blue"),
            ("{{.Internal}} {{.MTU}} {{.Ratio}} {{.Big}}", "false 1500 1.5 12345678901234567890"),
            ("{{.Peer}}", "<no value>"),
            ("{{.Aliases}} {{.Labels}} {{.Options}}", "[web db] map[com.example.x:1 tier:front] map[]"),
            ("{{.IPAM}}", "map[Config:[map[Subnet:10.1.0.0/16] map[Subnet:fd00::/64]] Driver:default]"),
            ("{{(index .IPAM.Config 1).Subnet}}", "fd00::/64"),
            (
                r#"{{"a\tb"}} {{`raw\n`}} {{1}} {{-2}} {{0x1f}} {{1.5}} {{true}}"#,
                "a\tb raw\\n 1 -2 31 1.5 true",
            ),
        ]);
    }

    #[test]
    fn blocks_follow_go() {
        check(&[
            ("{{range .Aliases}}{{.}};{{end}}", "web;db;"),
            ("{{range .Options}}x{{else}}none{{end}}", "none"),
            ("{{range .Peer}}x{{else}}none{{end}}", "none"),
            ("{{range $k, $v := .Containers}}{{$k}}={{$v.Name}} {{end}}", "a1=db f2=web "),
            ("{{range $i, $e := .Aliases}}{{if $i}}, {{end}}{{$e}}{{end}}", "web, db"),
            ("{{range .Aliases}}{{if eq . \"web\"}}{{continue}}{{end}}{{.}}{{end}}", "db"),
            ("{{range .Aliases}}{{.}}{{break}}{{end}}", "web"),
            (
                "{{range .IPAM.Config}}{{.Subnet}} on {{$.Name}} {{end}}",
                "10.1.0.0/16 on blue fd00::/64 on blue ",
            ),
            ("{{if .Internal}}a{{else if .Peer}}b{{else}}c{{end}}", "c"),
            ("{{with .IPAM}}{{.Driver}}{{end}}{{with .Options}}x{{else}}-{{end}}", "default-"),
            ("{{$x := .Name}}{{if true}}{{$x = \"red\"}}{{end}}{{$x}}", "red"),
            ("{{with $c := .IPAM.Config}}{{len $c}}{{end}}", "2"),
        ]);
    }

    #[test]
    fn markers_trim_and_comments_vanish() {
        check(&[
            ("a  {{- .Name -}}  b", "ablueb"),
            ("a {{/* }} */}} b", "a  b"),
            ("a {{- /* x */ -}} b", "ab"),
            (r"a\n{{- .Name}}", "ablue"),
        ]);
    }

    #[test]
    fn tab_and_newline_may_be_written_as_two_characters() {
        check(&[
            (r"{{.Name}}\t{{.Driver}}\n", "blue\tbridge\n"),
            (r"a\\tb\x\", "a\\\tb\\x\\"),
            (r#"{{"\\t"}}{{`\n`}}"#, r"\t\n"),
            (r#"{{"}}\t"}}"#, "}}\t"),
        ]);
    }

    #[test]
    fn functions_of_go_are_known() {
        check(&[
            ("{{and 1 0}} {{or \"\" .Name}} {{not .Internal}}", "0 blue true"),
            (
                "{{eq .Name \"red\" \"blue\"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}",
                "true true true true false false",
            ),
            ("{{and .Peer .Peer.Name}}", "<no value>"),
            ("{{len .Name}} {{len .Aliases}} {{len .Labels}}", "4 2 2"),
            ("{{slice .Name 1 3}} {{slice .Aliases 1}}", "lu [db]"),
            ("{{print 1 2 \"a\" 3}} {{println .Name 1}}", "1 2a3 blue 1\n"),
            (
                "{{printf \"%-6s|%4d|%q|%v|%.2f|%x|%t\" .Name .MTU .Name .Aliases .Ratio 255 true}}",
                "blue  |1500|\"blue\"|[web db]|1.50|ff|true",
            ),
            ("{{.Name | printf \"%s-%s\" \"a\" | upper}}", "A-BLUE"),
            ("{{html \"<a>\"}} {{js \"'\"}} {{urlquery \"a b/c\"}}", "&lt;a&gt; \\' a+b%2Fc"),
        ]);
    }

    #[test]
    fn functions_of_docker_are_known() {
        check(&[
            ("{{json .Aliases}} {{json .Name}} {{json .Peer}}", r#"["web","db"] "blue" null"#),
            (
                "{{json .IPAM}}",
                r#"{"Driver":"default","Config":[{"Subnet":"10.1.0.0/16"},{"Subnet":"fd00::/64"}]}"#,
            ),
            ("{{json .Big}} {{json .Ratio}} {{json \"<&>\"}}", r#"12345678901234567890 1.5 "<&>""#),
            ("{{join .Aliases \", \"}} {{split \"a-b\" \"-\"}} {{split \"ab\" \"\"}}", "web, db [a b] [a b]"),
            ("{{lower \"AbC\"}} {{upper \"abC\"}} {{title \"one two-three\"}}", "abc ABC One Two-Three"),
            ("[{{pad .Name 1 2}}] [{{pad \"\" 1 2}}]", "[ blue  ] []"),
            ("{{truncate .ID 12}} {{truncate .Name 12}} {{truncate \"äöü\" 2}}", "0123456789ab blue äö"),
        ]);
    }

    #[test]
    fn labels_are_asked_by_name() {
        check(&[
            ("{{.Label \"tier\"}}[{{.Label \"nope\"}}]", "front[]"),
            ("{{with $n := .}}{{$n.Label \"com.example.x\"}}{{end}}", "1"),
            ("{{if .Label \"tier\"}}y{{end}}{{json .Labels}}", r#"y{"tier":"front","com.example.x":"1"}"#),
        ]);
        let row: Template = "{{.Label \"b\"}}".parse().expect("a template");
        assert_eq!(row.render(&json!({"Labels": "a=1,b=2=3"})), Ok("2=3".to_owned()));
    }

    #[test]
    fn index_answers_with_nothing_for_a_key_that_is_not_there() {
        check(&[
            ("{{index .Labels \"com.example.x\"}}[{{index .Labels \"nope\"}}]", "1[]"),
            ("{{if index .Options \"x\"}}y{{else}}n{{end}}", "n"),
            ("{{index .Containers \"a1\" \"Name\"}}[{{index .Peer \"x\"}}]", "db[]"),
        ]);
    }

    #[test]
    fn a_field_that_is_not_there_is_refused_with_the_fields_that_are() {
        check(&[
            (
                "{{.Nmae}}",
                "template: .Nmae: no such field; the fields are Aliases, Big, Containers, Driver, ID, IPAM, \
                 Internal, Labels, MTU, Name, Options, Peer, Ratio",
            ),
            ("{{.IPAM.Nope}}", "template: .IPAM.Nope: no such field; the fields are Config, Driver"),
            ("{{.IPAM.Nope.Deeper}}", "template: .IPAM.Nope: no such field; the fields are Config, Driver"),
            (
                "{{range .IPAM.Config}}{{.Gateway}}{{end}}",
                "template: .Gateway: no such field; the fields are Subnet",
            ),
            ("{{.Options.mtu}}", "template: .Options.mtu: no such field; there are none here"),
            (
                "{{.Label \"tier\"}}{{.IPAM.Nope}}",
                "template: .IPAM.Nope: no such field; the fields are Config, Driver",
            ),
        ]);
    }

    #[test]
    fn errors_say_what_and_where_in_one_line() {
        check(&[
            ("ab {{.Name", "template: unclosed action at 1:4"),
            (r"\t\nä{{foo}}", "template: there is no function foo at 1:8"),
            ("a\n  {{end}}", "template: unexpected {{end}} at 2:3"),
            ("{{$x}}", "template: there is no variable $x at 1:3"),
            ("{{if .Name}}{{$x := 1}}{{end}}{{$x}}", "template: there is no variable $x at 1:33"),
            ("{{if}}{{end}}", "template: a value is missing in the action at 1:1"),
            ("{{.Name | }}", "template: a value is missing in the action at 1:1"),
            ("{{if .Name}}", "template: no {{end}} for the block at 1:1"),
            ("{{if .Name}}{{else}}{{else}}{{end}}", "template: unexpected {{else}} at 1:21"),
            ("{{end .Name}}", "template: unexpected .Name at 1:7"),
            ("{{break}}", "template: {{break}} outside a range at 1:1"),
            ("{{range .Aliases}}{{else}}{{break}}{{end}}", "template: {{break}} outside a range at 1:27"),
            ("{{(.Name}}", "template: unclosed parenthesis at 1:3"),
            ("{{.Name)}}", "template: unexpected ) at 1:8"),
            ("{{\"a\nb\"}}", "template: unclosed string at 1:3"),
            (r#"{{"\q"}}"#, "template: unknown escape in a string at 1:4"),
            ("{{1x}}", "template: 1x is no number at 1:3"),
            (
                "{{define \"a\"}}{{end}}",
                "template: define is not known here: a format is one template at 1:1",
            ),
            ("{{.Name.First}}", "template: .Name.First: no such field; \"blue\" has none"),
            ("{{.Peer.Name}}", "template: .Peer.Name: no such field; null has none"),
            ("{{.Name 1}}", "template: .Name 1: only functions and .Label take arguments"),
            ("{{index .Aliases 7}}", "template: index .Aliases 7: 7 is out of range: there are 2"),
            ("{{range .Name}}{{end}}", "template: .Name: range cannot go through \"blue\""),
            ("{{eq .Name 1}}", "template: eq .Name 1: cannot compare \"blue\" with 1"),
            ("{{upper .MTU}}", "template: upper .MTU: takes a string, not 1500"),
            ("{{upper}}", "template: upper: takes 1 argument, not 0"),
            ("{{print len}}", "template: len: takes 1 argument, not 0"),
            ("{{pad .Name -1 0}}", "template: pad .Name -1 0: takes a number from 0 to 60000, not -1"),
        ]);
    }

    #[test]
    fn printf_follows_go() {
        let verbs = [
            (
                r#"%5d|%-5d|%05d|%+d|% d|%x|%X|%#x|%o|%b|%c|%U" 42 42 -42 42 42 255 255 255 8 5 65 65"#,
                "   42|42   |-0042|+42| 42|ff|FF|0xff|10|101|A|U+0041",
            ),
            (r#"%5s|%-5s|%.2s|%q|%x" "ab" "ab" "abc" "a\"b" "ab""#, r#"   ab|ab   |ab|"a\"b"|6162"#),
            (
                r#"%f|%.1f|%8.2f|%e|%g|%.3g|%v" 1.5 1.25 1.5 1500.5 0.5 1234.5 1e21"#,
                "1.500000|1.2|    1.50|1.500500e+03|0.5|1.23e+03|1e+21",
            ),
            (r#"%t|%v|%*d|%%|%T" true nil 4 7 "a""#, "true|<nil>|   7|%|string"),
            (r#"%d|%s|%d" "a" 1"#, "%!d(string=a)|%!s(int=1)|%!d(MISSING)"),
            (r#"%d" 1 "a" 2"#, "1%!(EXTRA string=a, int=2)"),
            (r#"%q %3d" .Aliases (split "" "x")"#, r#"["web" "db"] [%!d(string=)]"#),
            (r#"%""#, "%!(NOVERB)"),
        ];
        for (arguments, expected) in verbs {
            assert_eq!(rendered(&format!("{{{{printf \"{arguments}}}}}")), expected, "{arguments}");
        }
    }

    #[test]
    fn numbers_are_those_of_go() {
        check(&[
            ("{{1000000.0}} {{1e20}} {{1e21}} {{0.0001}}", "1e+06 1e+20 1e+21 0.0001"),
            ("{{0.00001}} {{1_000}} {{017}} {{'a'}}", "1e-05 1000 15 97"),
            ("{{eq 1 1.0}} {{lt 1 1.5}} {{lt \"a\" \"b\"}} {{eq .Peer nil}}", "true true true true"),
            ("{{range 3}}{{.}}{{end}} {{range $i := 2}}{{$i}}{{end}}", "012 01"),
            ("{{with .Options}}a{{else with .Name}}{{.}}{{else}}b{{end}}", "blue"),
        ]);
    }

    #[test]
    fn what_a_template_may_cost_is_bounded() {
        let long = "x".repeat(LONGEST_TEMPLATE + 1);
        assert_eq!(rendered(&long), "template: longer than 65536 bytes");
        let doubling = "{{$x := \"xx\"}}{{range 64}}{{$x = print $x $x}}{{end}}";
        assert_eq!(rendered(doubling), "template: print $x $x: makes more than 16 MiB");
        let remade = "{{$x := printf \"%9999v\" 1}}{{range 59999}}{{$y := print $x}}{{end}}";
        assert_eq!(rendered(remade), "template: print $x: the functions together make too much");
        let chatty = "{{$x := printf \"%9999v\" 1}}{{range 9999}}{{$x}}{{end}}";
        assert_eq!(rendered(chatty), "template: prints more than 16 MiB");
        assert_eq!(rendered("{{range 60001}}{{end}}"), "template: 60001: range cannot go through 60001");
        let nested = "{{range 60000}}{{range 60000}}{{break}}{{end}}{{end}}";
        assert_eq!(rendered(nested), "template: takes more than 1000000 steps");
        for verb in ["f\" 1.5", "e\" 1.5", "g\" 1.5", "x\" 7", "d\" 7", "s\" .Name"] {
            let wide = format!("{{{{printf \"%99999.99999{verb} | len | le 60000}}}}");
            assert_eq!(rendered(&wide), "true", "{verb}");
        }
        assert_eq!(rendered(&"{{if 1}}".repeat(65)), "template: nested deeper than 64 levels at 1:513");
        let parentheses = format!("{{{{{}1}}}}", "(".repeat(60_000));
        assert_eq!(rendered(&parentheses), "template: nested deeper than 64 levels at 1:67");
        let branches = format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(4000));
        assert_eq!(rendered(&branches), "");
        let deep = (0..1000).fold(Json::Null, |inner, _| json!([inner]));
        let refused = "{{.}}".parse::<Template>().and_then(|template| template.render(&deep));
        assert_eq!(refused, Err(TemplateError("the value is nested deeper than 128 levels".to_owned())));
    }

    #[test]
    fn the_word_table_is_told_from_the_template() {
        assert_eq!(Template::strip_table(r"table {{.ID}}\t{{.Name}}"), Some(r"{{.ID}}\t{{.Name}}"));
        assert_eq!(Template::strip_table("table{{.ID}}"), Some("{{.ID}}"));
        assert_eq!(Template::strip_table("table"), Some(""));
        assert_eq!(Template::strip_table("tables"), None);
        assert_eq!(Template::strip_table("{{.ID}}"), None);
    }

    #[test]
    fn headers_are_the_printed_fields_of_the_value_itself() {
        let headers = |source: &str| source.parse::<Template>().expect("a template").headers();
        assert_eq!(headers(r"{{.ID}}\t{{.Name}}"), ["ID", "Name"]);
        assert_eq!(headers("{{- truncate (.ID) 12 -}} {{.Name | upper}}"), ["ID", "Name"]);
        assert_eq!(headers("{{if .Internal}}{{$.Name}}{{else}}{{.IPAM.Driver}}{{end}}"), ["Name", "IPAM"]);
        assert_eq!(
            headers("{{range .Aliases}}{{.Name}}{{end}}{{$x := .ID}}{{$x}}{{printf \".A %s\" .B}}"),
            ["B"]
        );
        assert_eq!(headers("{{/* .ID */}}{{\"}}.ID\"}}.Name"), Vec::<String>::new());
    }

    const FRAGMENTS: &str = r#"
        {{ }} {{- -}} . .Name .Nope .Labels .IPAM.Config .Aliases .Label $ $x := = , | ( ) " "a" ` ' 'a' /* */
        \ \t \n ä 0 7 -1 1e9 0x 99999999999999999999 1_0 true nil ~ ~-~ ~and~ ~eq~
        {{if~.Name}} {{range~.Aliases}} {{range~$i,~$x~:=~.Containers}} {{with~.IPAM}} {{range~99}}
        {{else}} {{else~if~.Name}} {{else~with~.}} {{end}} {{break}} {{continue}} {{define~"a"}}
        {{$x~:=~.}} {{$x~=~print~$x~$x}} {{.Label~"tier"}} {{.}} {{(((.Name)))}} {{printf~"%v"~.}}"#;

    const FUNCTION_NAMES: &str = "and or not eq ne lt le gt ge len index slice print printf println html js
        urlquery json join split lower upper title pad truncate .Label $.Label range if with";

    const ARGUMENTS: &str = r#"
        . .Name .Labels .IPAM.Config .Aliases .Peer .Big .Ratio "%9s%d%q%[9]v%*d" "%+-#~08.3x%g%e%U%c%T%"
        "%*.*e" "ä€" "" "ä" -1 0 1 3 60000 60001 9999999999 1e300 1e-300 2.50 nil true (len~.Name)
        (split~.Name~"") (index~.Labels~"x")"#;

    /// One of the words of a list; `~` stands for a blank.
    fn word_of(list: &'static str) -> impl Strategy<Value = String> {
        let words: Vec<String> = list.split_whitespace().map(|word| word.replace('~', " ")).collect();
        prop::sample::select(words)
    }

    fn call() -> impl Strategy<Value = String> {
        (word_of(FUNCTION_NAMES), prop::collection::vec(word_of(ARGUMENTS), 0..5))
            .prop_map(|(name, args)| format!("{{{{{name} {}}}}}", args.join(" ")))
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![8 => word_of(FRAGMENTS), 6 => call(), 1 => any::<String>()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn no_template_panics_and_every_error_is_one_line(parts in prop::collection::vec(part(), 0..16)) {
            if let Err(error) = parts.concat().parse::<Template>().and_then(|template| {
                template.headers();
                template.render(&network())
            }) {
                let shown = error.to_string();
                prop_assert!(shown.starts_with("template: ") && !shown.contains(char::is_control), "{}", shown);
            }
        }
    }
}
