//! Filters of lists: `--filter key=value`. The same key twice means either, different keys mean both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rnetkit_drivers::Network;

use super::Failure;
use crate::error::shown;

/// One filter.
pub(super) enum Filter {
    Driver(String),
    Id(Pattern),
    Name(Pattern),
    Label { key: String, value: Option<String>, wanted: bool },
    Scope(String),
    Custom(bool),
    Dangling(bool),
    Until(SystemTime),
}

/// A text that matches as a whole, as a part, or as a regular expression.
pub(super) struct Pattern(String, Option<regex_lite::Regex>);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(text.to_owned(), regex_lite::Regex::new(text).ok())
    }

    fn matches(&self, text: &str) -> bool {
        text.contains(&self.0) || self.1.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// Reads filters; `known` are the keys that the command takes.
pub(super) fn read(texts: &[String], known: &[&str]) -> Result<Vec<Filter>, Failure> {
    texts.iter().map(|text| one(text, known)).collect()
}

fn one(text: &str, known: &[&str]) -> Result<Filter, Failure> {
    let refuse = |reason: &str| Failure::new(format!("invalid filter \"{}\": {reason}", shown(text)));
    let Some((key, value)) = text.split_once('=') else {
        return Err(refuse("it must be KEY=VALUE"));
    };
    if !known.contains(&key) {
        return Err(refuse(&format!("the keys are {}", known.join(", "))));
    }
    let switch = || match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(refuse("it must be true or false")),
    };
    let label = |wanted| {
        let (key, value) =
            value.split_once('=').map_or((value, None), |(key, value)| (key, Some(value.to_owned())));
        Filter::Label { key: key.to_owned(), value, wanted }
    };
    Ok(match key {
        "driver" => Filter::Driver(if value == "none" { "null" } else { value }.to_owned()),
        "id" => Filter::Id(Pattern::new(value)),
        "name" => Filter::Name(Pattern::new(value)),
        "label" => label(true),
        "label!" => label(false),
        "scope" => Filter::Scope(value.to_owned()),
        "dangling" => Filter::Dangling(switch()?),
        "until" => Filter::Until(
            until(value)
                .ok_or_else(|| refuse("it must be a time as 2026-01-31T12:00:00Z, or an age as 24h"))?,
        ),
        "type" => match value {
            "custom" => Filter::Custom(true),
            "builtin" => Filter::Custom(false),
            _ => return Err(refuse("it must be custom or builtin")),
        },
        _ => return Err(refuse("it is not known")),
    })
}

/// A time of day, or that long ago.
pub(super) fn until(text: &str) -> Option<SystemTime> {
    if let Ok(age) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(age);
    }
    humantime::parse_rfc3339_weak(text).ok().or_else(|| {
        text.parse().ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    })
}

/// Whether a network passes all filters. `used`: a container is connected to it.
pub(super) fn passes(filters: &[Filter], network: &Network, used: bool) -> bool {
    filters.iter().all(|filter| {
        let same_kind =
            filters.iter().filter(|other| std::mem::discriminant(*other) == std::mem::discriminant(filter));
        let either = !matches!(filter, Filter::Label { .. } | Filter::Until(_));
        if either {
            same_kind.into_iter().any(|other| holds(other, network, used))
        } else {
            holds(filter, network, used)
        }
    })
}

fn holds(filter: &Filter, network: &Network, used: bool) -> bool {
    let builtin = crate::verbs::is_builtin(network);
    match filter {
        Filter::Driver(driver) => network.driver == *driver,
        Filter::Id(pattern) => pattern.matches(&network.id.to_string()),
        Filter::Name(pattern) => pattern.matches(network.name.as_str()),
        Filter::Label { key, value, wanted } => {
            let has = network
                .labels
                .get(key)
                .is_some_and(|label| value.as_ref().is_none_or(|value| value == label));
            has == *wanted
        }
        Filter::Scope(scope) => scope == "local",
        Filter::Custom(custom) => builtin != *custom,
        Filter::Dangling(dangling) => (!builtin && !used) == *dangling,
        Filter::Until(time) => UNIX_EPOCH
            .checked_add(Duration::from_nanos(network.created))
            .is_some_and(|created| created < *time),
    }
}
