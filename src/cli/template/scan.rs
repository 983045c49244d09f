//! Reading: from the text of a template to its pieces and words.

use serde_json::{Value as Json, json};

use super::{TemplateError, error_at, excerpt};

pub(super) enum Piece {
    Text(String),
    Action(Cursor),
}

/// The tokens of an action, the next one at `at`. It lies in the source from `start` to `end`.
pub(super) struct Cursor {
    pub(super) tokens: Vec<Token>,
    pub(super) at: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// No blank before it.
    pub(super) glued: bool,
}

#[derive(Clone, PartialEq)]
pub(super) enum Kind {
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
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    pub(super) fn peek_kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek_kind(0), Some(Kind::Word(next)) if next == word)
    }

    /// Takes the word, if it is next.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let next = self.is_word(word);
        self.at += usize::from(next);
        next
    }

    /// Where the next token starts, or the action ends.
    pub(super) fn position(&self) -> usize {
        self.peek().map_or(self.end, |token| token.start)
    }
}

pub(super) fn scan(source: &str) -> Result<Vec<Piece>, TemplateError> {
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
    pub(super) source: &'s str,
    pub(super) at: usize,
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

    pub(super) fn action(&mut self, start: usize) -> Result<(Cursor, bool), TemplateError> {
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

pub(super) fn is_name(c: char) -> bool {
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
