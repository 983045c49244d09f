//! `rnet events`: one line of JSON for each thing that happens, until it is ended.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Context, Failure, args, filter, template::Template};
use crate::{
    error::shown,
    events::{Event, Events},
};

pub(super) fn events(context: &Context, args: &args::Events) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(|text| time("--since", text)).transpose()?;
    let until = args.until.as_deref().map(|text| time("--until", text)).transpose()?;
    let filters = args.filter.iter().map(|text| Filter::read(text)).collect::<Result<Vec<_>, _>>()?;
    let show = Show::read(args.format.as_deref())?;
    let wanted = |event: &Event| matches(&filters, event);
    let mut events = Events::follow(context.rnet()?)?;
    if let Some(since) = since {
        let then = nanoseconds(since);
        let end = until.map_or(u64::MAX, nanoseconds);
        let past = events.past().into_iter();
        let past = past.filter(|event| (then..=end).contains(&event.time_nano));
        past.filter(wanted).try_for_each(|event| show.line(&event))?;
    }
    loop {
        let left = match until.map(|until| until.duration_since(SystemTime::now())) {
            Some(Err(_)) => return Ok(0),
            left => left.and_then(Result::ok),
        };
        events.next(left)?.iter().filter(|event| wanted(event)).try_for_each(|event| show.line(event))?;
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// As Docker reads it: seconds since 1970, a time as RFC 3339 has it, or an age as `10m`.
fn time(option: &str, text: &str) -> Result<SystemTime, Failure> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
    let unix = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let unix = unix.and_then(|since| UNIX_EPOCH.checked_add(since));
    unix.or_else(|| filter::until(text)).ok_or_else(|| {
        let wanted = "it must be a time as 2026-01-31T12:00:00Z, seconds since 1970, or an age as 10m";
        Failure::new(format!("invalid {option} \"{}\": {wanted}", shown(text)))
    })
}

/// How an event is shown.
enum Show {
    Json,
    Template(Template),
}

impl Show {
    fn read(format: Option<&str>) -> Result<Self, Failure> {
        match format {
            None | Some("" | "json" | "{{json .}}") => Ok(Self::Json),
            Some(text) => {
                let template = text.parse::<Template>();
                Ok(Self::Template(template.map_err(|error| Failure::new(error.to_string()))?))
            }
        }
    }

    /// Each line goes out at once: somebody may be waiting for it.
    fn line(&self, event: &Event) -> Result<(), Failure> {
        let value = serde_json::to_value(event)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        let text = match self {
            Self::Json => value.to_string(),
            Self::Template(template) => {
                template.render(&value).map_err(|error| Failure::new(error.to_string()))?
            }
        };
        let mut stdout = std::io::stdout().lock();
        let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
        written.map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
    }
}

/// One `--filter KEY=VALUE`.
struct Filter {
    key: &'static str,
    value: String,
}

/// The keys; `event` and `action` are one.
const KEYS: [&str; 6] = ["type", "event", "action", "network", "container", "scope"];

impl Filter {
    fn read(text: &str) -> Result<Self, Failure> {
        let refuse = |reason: String| Failure::new(format!("invalid filter \"{}\": {reason}", shown(text)));
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("it must be KEY=VALUE".to_owned()))?;
        let key = KEYS.into_iter().find(|known| *known == key);
        let key = key.ok_or_else(|| refuse(format!("the keys are {}", KEYS.join(", "))))?;
        Ok(Self { key: if key == "action" { "event" } else { key }, value: value.to_owned() })
    }

    fn fits(&self, event: &Event) -> bool {
        let attribute = |name: &str| event.actor.attributes.get(name).is_some_and(|text| *text == self.value);
        match self.key {
            "type" => event.kind == self.value,
            "event" => event.action == self.value,
            "scope" => event.scope == self.value,
            "container" => attribute("containerName") || self.begins(event.actor.attributes.get("container")),
            _ => {
                let of_network =
                    event.kind == "network" && (attribute("name") || self.begins(Some(&event.actor.id)));
                of_network || attribute("network")
            }
        }
    }

    /// The beginning of an id, as Docker takes one.
    fn begins(&self, id: Option<&String>) -> bool {
        self.value.len() >= 4 && id.is_some_and(|id| id.starts_with(&self.value))
    }
}

/// The same key twice means either, different keys mean both. What says that events were lost is told in any case.
fn matches(filters: &[Filter], event: &Event) -> bool {
    let fits = |key: &str| filters.iter().filter(|f| f.key == key).any(|filter| filter.fits(event));
    event.kind == "events" || filters.iter().all(|filter| fits(filter.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| Filter::read(text).unwrap_or_else(|_| panic!("{text}"))).collect()
    }

    #[test]
    fn one_key_twice_means_either_and_two_keys_mean_both() {
        let event = Event::example("network", "connect", [("name", "blue"), ("containerName", "web")]);
        for texts in [
            &[][..],
            &["type=network"],
            &["type=link", "type=network", "network=blue"],
            &["container=web", "event=connect"],
            &["action=connect"],
        ] {
            assert!(matches(&filters(texts), &event), "{texts:?}");
        }
        for texts in
            [&["type=link"][..], &["type=network", "network=red"], &["event=create", "container=web"]]
        {
            assert!(!matches(&filters(texts), &event), "{texts:?}");
        }
        let lost = Event::example("events", "lost", []);
        assert!(matches(&filters(&["type=network"]), &lost), "what is lost is told to everybody");
    }

    #[test]
    fn times_are_read_as_docker_reads_them() {
        let at = |text| nanoseconds(time("--since", text).unwrap_or_else(|_| panic!("{text}")));
        assert_eq!(at("1700000000"), 1_700_000_000_000_000_000);
        assert_eq!(at("1700000000.5"), 1_700_000_000_500_000_000);
        assert_eq!(at("2023-11-14T22:13:20Z"), 1_700_000_000_000_000_000);
        let failure = time("--since", "yesterday").err().map(|failure| failure.lines.join(";"));
        assert!(failure.is_some_and(|line| line.starts_with("invalid --since \"yesterday\": it must be")));
        assert!(time("--since", "-1").is_err() && time("--since", "1e300").is_err());
    }
}
