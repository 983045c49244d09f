//! JSON as Go's `encoding/json` reads it into a struct, because that is what runtimes rely on: keys match whatever
//! their case, an exact match wins, `null` is as good as absent, unknown keys are nobody's business, and a number that
//! must be whole is written whole. Changes nothing that it reads.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::failure::Failure;
use crate::error::shown;

/// An object, and what it is called in messages: `ipam`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    name: &'static str,
}

/// The value of a key, whatever the key's case. `None` where it is absent or `null`.
pub(super) fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let folded = || map.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
    map.get(key).or_else(folded).filter(|value| !value.is_null())
}

/// Whether the key is there, be it with `null`.
pub(super) fn has(map: &Map<String, Value>, key: &str) -> bool {
    map.keys().any(|name| name.eq_ignore_ascii_case(key))
}

impl<'a> Object<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, name: &'static str) -> Self {
        Self { map, name }
    }

    pub(super) fn of(value: &'a Value, name: &'static str) -> Result<Self, Failure> {
        value.as_object().map(|map| Self { map, name }).ok_or_else(|| wrong(name, value, "an object"))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        get(self.map, key)
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong(&format!("{}: {key}", self.name), value, expected))
    }

    /// A text; an empty one is as good as absent, as in Go.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Failure> {
        Ok(self.read(key, "a text", Value::as_str)?.filter(|text| !text.is_empty()))
    }

    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>, Failure> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.switch(key)?.unwrap_or(false))
    }

    /// A whole number; 0 is as good as absent where `T` says so.
    pub(super) fn number<T: TryFrom<i64>>(&self, key: &str) -> Result<Option<T>, Failure> {
        let expected = format!("a whole number that fits in {} bits", size_of::<T>() * 8);
        self.read(key, &expected, |value| T::try_from(value.as_i64()?).ok())
    }

    /// A text that means something.
    pub(super) fn parsed<T: FromStr>(&self, key: &str, expected: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        parse(&format!("{}: {key}", self.name), text, expected).map(Some)
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], Failure> {
        Ok(self.read(key, "a list", Value::as_array)?.map_or(&[], Vec::as_slice))
    }

    pub(super) fn object(&self, key: &'static str) -> Result<Option<Object<'a>>, Failure> {
        let map = self.read(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Object { map, name: key }))
    }

    pub(super) fn objects(&self, key: &'static str) -> Result<Vec<Object<'a>>, Failure> {
        self.list(key)?.iter().filter(|value| !value.is_null()).map(|value| Object::of(value, key)).collect()
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Failure> {
        let whole = format!("{}: {key}", self.name);
        let text = |value: &'a Value| value.as_str().ok_or_else(|| wrong(&whole, value, "a list of texts"));
        self.list(key)?.iter().map(text).collect()
    }

    /// An object whose values are texts, as `options`; numbers and switches are taken as they are written.
    pub(super) fn pairs(&self, key: &'static str) -> Result<Vec<(String, String)>, Failure> {
        let Some(object) = self.object(key)? else { return Ok(Vec::new()) };
        let pair = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Bool(_) | Value::Number(_) => Ok((name.clone(), value.to_string())),
            _ => Err(wrong(&format!("{key}: {}", shown(name)), value, "a text")),
        };
        object.map.iter().map(pair).collect()
    }
}

/// Reads a text into what it means.
pub(super) fn parse<T: FromStr>(what: &str, text: &str, expected: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| {
        Failure::config(format!("invalid {what}: \"{}\" is refused: it must be {expected}", shown(text)))
    })
}

fn wrong(what: &str, value: &Value, expected: &str) -> Failure {
    Failure::config(format!(
        "invalid {what}: {} is refused: it must be {expected}",
        shown(&value.to_string())
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_match_whatever_their_case_and_an_exact_match_wins() {
        let value = json!({ "HostPort": 8080, "hostport": 1, "hostPort": 2, "Protocol": "tcp" });
        let object = Object::of(&value, "test").unwrap();
        assert_eq!(object.number::<u16>("hostPort").unwrap(), Some(2));
        assert_eq!(object.text("protocol").unwrap(), Some("tcp"));
        let value = json!({ "HOSTPORT": 1, "HostPort": 2 });
        assert_eq!(Object::of(&value, "test").unwrap().number::<u16>("hostPort").unwrap(), Some(2));
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let value = json!({ "mtu": null, "ipam": null, "list": null });
        let object = Object::of(&value, "test").unwrap();
        assert_eq!(object.number::<u32>("mtu").unwrap(), None);
        assert!(object.object("ipam").unwrap().is_none());
        assert!(object.list("list").unwrap().is_empty());
        assert!(has(object.map, "MTU"));
    }

    #[test]
    fn what_has_another_type_is_refused_with_key_value_and_reason() {
        let value = json!({ "mtu": 1500.0, "name": 7, "flag": "true", "big": 70000 });
        let object = Object::of(&value, "the configuration").unwrap();
        let message = |failure: Failure| failure.message;
        assert_eq!(
            object.number::<u32>("mtu").map_err(message),
            Err("invalid the configuration: mtu: 1500.0 is refused: it must be a whole number that fits in 32 bits"
                .to_owned())
        );
        assert!(object.text("name").is_err() && object.flag("flag").is_err());
        assert!(object.number::<u16>("big").is_err());
    }
}
