//! Options of drivers: Docker's long names, rnet's short ones, and the nearest known one for a misspelt name.

use alloc::{
    borrow::ToOwned,
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::model::Escaped;

/// An option that a driver does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadOption {
    /// The driver.
    pub driver: &'static str,
    /// The option's name, as given.
    pub option: String,
    /// Why.
    pub reason: String,
    /// The nearest known option, where one is near.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for BadOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option \"{}\" of driver {}: {}", Escaped(&self.option), self.driver, self.reason)
    }
}

impl core::error::Error for BadOption {}

/// An option that a driver knows: the name that Docker gave it, and the short one.
pub struct Known {
    /// Docker's name.
    pub long: &'static str,
    /// The short name.
    pub short: &'static str,
}

/// The options of one driver as given, read by their short names.
pub struct Options<'a> {
    driver: &'static str,
    given: Vec<(&'static str, &'a str, &'a str)>,
}

impl<'a> Options<'a> {
    /// Sorts out what was given.
    ///
    /// # Errors
    /// The first unknown option, or one given under both names with different values.
    pub fn read(
        driver: &'static str,
        known: &'static [Known],
        given: &'a BTreeMap<String, String>,
    ) -> Result<Self, BadOption> {
        let mut read: Vec<(&'static str, &'a str, &'a str)> = Vec::new();
        for (name, value) in given {
            let Some(option) = known.iter().find(|known| known.long == name || known.short == name) else {
                let nearest = nearest(name, known);
                return Err(BadOption {
                    driver,
                    option: name.clone(),
                    reason: "there is no such option".into(),
                    nearest,
                });
            };
            if let Some((_, other, _)) =
                read.iter().find(|(short, _, earlier)| *short == option.short && earlier != value)
            {
                let reason = format!("it contradicts \"{other}\", which is the same option");
                return Err(BadOption { driver, option: name.clone(), reason, nearest: None });
            }
            read.push((option.short, name, value));
        }
        Ok(Self { driver, given: read })
    }

    /// Whose options they are.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// The value of the option with that short name, as text.
    #[must_use]
    pub fn text(&self, short: &str) -> Option<&'a str> {
        self.given.iter().find(|(name, _, _)| *name == short).map(|(_, _, value)| *value)
    }

    /// The value, parsed.
    ///
    /// # Errors
    /// When the text does not parse.
    pub fn parsed<T: FromStr>(&self, short: &str, expected: &str) -> Result<Option<T>, BadOption> {
        let Some(text) = self.text(short) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.bad(short, expected))
    }

    /// The value, as `true` or `false`; an option without a value is `true`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn switch(&self, short: &str, default: bool) -> Result<bool, BadOption> {
        match self.text(short) {
            None => Ok(default),
            Some("" | "true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(self.bad(short, "it must be true or false")),
        }
    }

    /// The error that says what the value should have been.
    #[must_use]
    pub fn bad(&self, short: &str, expected: &str) -> BadOption {
        let (name, value) = self
            .given
            .iter()
            .find(|(known, _, _)| *known == short)
            .map_or((short, ""), |(_, name, value)| (*name, *value));
        let reason = format!("\"{}\" is refused: {expected}", Escaped(value));
        BadOption { driver: self.driver, option: name.to_owned(), reason, nearest: None }
    }
}

/// For drivers that take no option at all.
///
/// # Errors
/// The first option given.
pub fn refuse_all(driver: &'static str, given: &BTreeMap<String, String>) -> Result<(), BadOption> {
    match given.keys().next() {
        None => Ok(()),
        Some(name) => {
            let reason = "the driver takes no options".to_string();
            Err(BadOption { driver, option: name.clone(), reason, nearest: None })
        }
    }
}

/// The known option that differs least, if it differs by no more than a third of its letters.
fn nearest(name: &str, known: &'static [Known]) -> Option<&'static str> {
    nearest_of(name, known.iter().flat_map(|known| [known.short, known.long]))
}

/// The known word that differs least, if it differs by no more than a third of its letters.
pub fn nearest_of(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let (distance, best) = known.map(|known| (distance(name, known), known)).min()?;
    (distance <= best.len() / 3 + 1).then_some(best)
}

/// How many letters must be changed, added or taken away (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 128;
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(LONGEST).enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let change = row[j] + usize::from(x != *y);
            next.push(change.min(row[j + 1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    static KNOWN: [Known; 2] = [
        Known { long: "com.docker.network.driver.mtu", short: "mtu" },
        Known { long: "x.enable_icc", short: "icc" },
    ];

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_misspelt_option_names_the_nearest_known_one() {
        let error = Options::read("bridge", &KNOWN, &given(&[("mtuu", "1")])).err().unwrap();
        assert_eq!(error.nearest, Some("mtu"));
        let error = Options::read("bridge", &KNOWN, &given(&[("zebra-crossing", "1")])).err().unwrap();
        assert_eq!(error.nearest, None);
    }

    #[test]
    fn both_names_mean_the_same_option() {
        let map = given(&[("com.docker.network.driver.mtu", "1400"), ("icc", "false")]);
        let options = Options::read("bridge", &KNOWN, &map).ok().unwrap();
        assert_eq!(options.parsed::<u32>("mtu", "a number").unwrap(), Some(1400));
        assert!(!options.switch("icc", true).unwrap());
        let map = given(&[("com.docker.network.driver.mtu", "1400"), ("mtu", "1500")]);
        assert!(Options::read("bridge", &KNOWN, &map).is_err());
    }
}
