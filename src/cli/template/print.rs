//! Printing: `print`, `printf` and how values are shown, as Go's `fmt` does.

use core::fmt::{self, Write};

use serde_json::{Value as Json, json};

use super::{
    WIDEST,
    functions::{integer, text},
    render::{Args, Bounded, Held, Made, TOO_LARGE},
};

pub(super) fn bounded(print: impl FnOnce(&mut Bounded) -> fmt::Result) -> Result<String, String> {
    let mut out = Bounded::default();
    match print(&mut out) {
        Ok(()) => Ok(out.0),
        Err(fmt::Error) => Err(TOO_LARGE.to_owned()),
    }
}

pub(super) fn print_value(out: &mut Bounded, value: &Json) -> fmt::Result {
    if value.is_null() { out.write_str("<no value>") } else { show(out, value) }
}

/// `%v`
pub(super) fn show(out: &mut Bounded, value: &Json) -> fmt::Result {
    directive(out, &Spec::default(), 'v', value)
}

/// With a space between two arguments that are no strings.
pub(super) fn print(args: Args<'_, '_>) -> Result<String, String> {
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

pub(super) fn println(args: Args<'_, '_>) -> Made {
    let line = bounded(|out| {
        for (at, arg) in args.iter().enumerate() {
            out.write_str(if at > 0 { " " } else { "" })?;
            show(out, arg)?;
        }
        out.write_char('\n')
    });
    line.map(Json::from)
}

pub(super) fn printf(args: Args<'_, '_>) -> Made {
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
    pub(super) minus: bool,
    pub(super) plus: bool,
    pub(super) sharp: bool,
    pub(super) zero: bool,
    pub(super) space: bool,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
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

pub(super) fn quote(text: &str, mark: char) -> String {
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
pub(super) fn general(magnitude: f64, precision: Option<usize>) -> String {
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
