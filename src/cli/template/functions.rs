//! The functions that a template may call.

use core::cmp::Ordering;
use core::fmt::Write;

use serde_json::{Value as Json, json};

use super::{
    WIDEST,
    print::{bounded, print, printf, println, show},
    render::{Args, Made, is_true, missing, shown},
    scan::is_name,
};

#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    And,
    Or,
    Plain(fn(Args<'_, '_>) -> Made),
}

impl Function {
    pub(super) fn of_nothing(self) -> Made {
        match self {
            Function::And | Function::Or => Err("takes at least 1 argument, not 0".to_owned()),
            Function::Plain(function) => function(&[]),
        }
    }

    /// `and` and `or` look no further than the argument that decides.
    pub(super) fn decided_by(self, value: &Json) -> bool {
        match self {
            Function::And => !is_true(value),
            Function::Or => is_true(value),
            Function::Plain(_) => false,
        }
    }
}

pub(super) const FUNCTIONS: [(&str, Function); 26] = [
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

pub(super) fn one<'a>(args: Args<'a, '_>) -> Result<&'a Json, String> {
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

pub(super) fn text(value: &Json) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("takes a string, not {}", shown(value)))
}

pub(super) fn count(value: &Json) -> Result<usize, String> {
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

pub(super) fn integer(value: &Json) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}

pub(super) fn length(args: Args<'_, '_>) -> Made {
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
pub(super) fn slice(args: Args<'_, '_>) -> Made {
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
pub(super) fn label(args: Args<'_, '_>) -> Made {
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

pub(super) fn join(args: Args<'_, '_>) -> Made {
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
pub(super) fn pad(args: Args<'_, '_>) -> Made {
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
pub(super) fn truncate(args: Args<'_, '_>) -> Made {
    let (whole, length) = two(args)?;
    let length = count(length)?;
    Ok(json!(text(whole)?.chars().take(length).collect::<String>()))
}

pub(super) fn escape(args: Args<'_, '_>, escaped: fn(char, &mut String)) -> Made {
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
