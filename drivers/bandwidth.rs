//! Bandwidth: how much a container may receive and send, and what must exist on the host for that.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::{
    BadOption, Endpoint, InterfaceName, Place, Resource, Setting,
    options::{Known, Options},
};

/// A number of bits, or of bits per second: `10mbit`, `1.5gbit`, `800000`. The units are decimal, as those of `tc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(pub u64);

/// Units from the largest on, so that a number is shown in the largest that it is a multiple of.
const UNITS: [(&str, u64); 5] =
    [("tbit", 1_000_000_000_000), ("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];

impl FromStr for Bits {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let lower = text.to_ascii_lowercase();
        let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
        let (number, unit) = match unit {
            Some((name, bits)) => (lower.strip_suffix(name).ok_or(())?, *bits),
            None => (lower.as_str(), 1),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(part) || number.ends_with('.') || part.len() > 12 {
            return Err(());
        }
        let whole = whole.parse::<u64>().map_err(drop)?.checked_mul(unit).ok_or(())?;
        let scale = 10u64.pow(u32::try_from(part.len()).map_err(drop)?);
        let part = u128::from(part.parse::<u64>().unwrap_or(0)) * u128::from(unit) / u128::from(scale);
        whole.checked_add(u64::try_from(part).map_err(drop)?).map(Self).ok_or(())
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, bits)| self.0 >= *bits && self.0.is_multiple_of(*bits));
        let (unit, bits) = unit.copied().unwrap_or(("bit", 1));
        write!(f, "{}{unit}", self.0 / bits)
    }
}

/// A rate, and how much may pass at once before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bits per second.
    pub rate: u64,
    /// Bytes.
    pub burst: u32,
}

/// What an endpoint may receive and send; as seen from the container, like the `bandwidth` capability of CNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Into the container.
    pub ingress: Option<Bandwidth>,
    /// Out of the container.
    pub egress: Option<Bandwidth>,
}

/// The options of an endpoint that limit its bandwidth.
pub const OPTIONS: [Known; 6] = [
    Known { long: "rnet.endpoint.rate", short: "rate" },
    Known { long: "rnet.endpoint.burst", short: "burst" },
    Known { long: "rnet.endpoint.ingress_rate", short: "ingress-rate" },
    Known { long: "rnet.endpoint.ingress_burst", short: "ingress-burst" },
    Known { long: "rnet.endpoint.egress_rate", short: "egress-rate" },
    Known { long: "rnet.endpoint.egress_burst", short: "egress-burst" },
];

/// The slowest rate that is taken, in bits per second: below it a single packet takes seconds.
const SLOWEST: u64 = 8000;
/// The fastest: `u64` bytes per second are more than the kernel can multiply with a second in nanoseconds.
const FASTEST: u64 = 10_000_000_000_000;
/// The burst of a rate that comes without one: as long as the rate takes for 10 ms, but never less than this many
/// bytes, so that a large segment of TCP passes whole.
const SMALLEST_BURST: u64 = 64 * 1024;

impl Limits {
    /// Reads them from an endpoint's options.
    ///
    /// # Errors
    /// A rate or burst that is malformed or out of bounds, and a burst without its rate.
    pub fn read(options: &Options<'_>) -> Result<Self, BadOption> {
        let both = (rate(options, "rate")?, burst(options, "burst")?);
        let one = |rate_name, burst_name| -> Result<Option<Bandwidth>, BadOption> {
            let given = rate(options, rate_name)?.or(both.0);
            let burst = burst(options, burst_name)?.map(|burst| (burst_name, burst));
            match (given, burst.or(both.1.map(|burst| ("burst", burst)))) {
                (Some(rate), burst) => Ok(Some(bandwidth(rate, burst.map(|(_, burst)| burst)))),
                (None, Some((name @ ("ingress-burst" | "egress-burst"), _))) => {
                    Err(options.bad(name, "a burst needs its rate"))
                }
                (None, _) => Ok(None),
            }
        };
        let limits = Self {
            ingress: one("ingress-rate", "ingress-burst")?,
            egress: one("egress-rate", "egress-burst")?,
        };
        if both.1.is_some() && limits == Self::default() {
            return Err(options.bad("burst", "a burst needs its rate"));
        }
        Ok(limits)
    }

    /// Whether every packet of the network fits into the bursts: one that does not would never pass.
    ///
    /// # Errors
    /// The option whose burst is too small.
    pub fn check(&self, options: &Options<'_>, mtu: u32) -> Result<(), BadOption> {
        /// An Ethernet header with a tag.
        const HEADER: u32 = 18;
        let too_small = |limit: Option<Bandwidth>| limit.is_some_and(|limit| limit.burst < mtu + HEADER);
        for (limit, name) in [(self.ingress, "ingress-burst"), (self.egress, "egress-burst")] {
            if too_small(limit) {
                let name = if options.text(name).is_some() { name } else { "burst" };
                let expected = format!(
                    "it must hold a packet of the network: at least {} bits",
                    u64::from(mtu + HEADER) * 8
                );
                return Err(options.bad(name, &expected));
            }
        }
        Ok(())
    }
}

fn bandwidth(rate: u64, burst: Option<u32>) -> Bandwidth {
    let usual = (rate / 8 / 100).max(SMALLEST_BURST);
    Bandwidth { rate, burst: burst.unwrap_or(u32::try_from(usual).unwrap_or(u32::MAX)) }
}

fn rate(options: &Options<'_>, name: &str) -> Result<Option<u64>, BadOption> {
    let expected = "it must be bits per second from 8kbit to 10tbit: 10mbit, 1.5gbit, 800000";
    match options.parsed::<Bits>(name, expected)? {
        Some(Bits(rate)) if !(SLOWEST..=FASTEST).contains(&rate) => Err(options.bad(name, expected)),
        rate => Ok(rate.map(|rate| rate.0)),
    }
}

fn burst(options: &Options<'_>, name: &str) -> Result<Option<u32>, BadOption> {
    let expected = "it must be a number of bits up to 17gbit: 512kbit, 4mbit, 800000";
    let bits = options.parsed::<Bits>(name, expected)?;
    // The kernel keeps the waiting packets' number of bytes in 32 bits, and the burst is a part of it.
    let bytes =
        |bits: Bits| u32::try_from(bits.0 / 8).ok().filter(|bytes| *bytes > 0 && *bytes <= u32::MAX / 2);
    bits.map(|bits| bytes(bits).ok_or_else(|| options.bad(name, expected))).transpose()
}

/// What must exist for the limits of an endpoint whose host's end is `port`: what the container receives is what that
/// end sends, so a token bucket there holds it; what the container sends is received there, where nothing waits, so
/// it goes through an intermediate block that has a queue. Both are outside of the container's reach.
#[must_use]
pub fn resources(
    limits: &Limits,
    port: &InterfaceName,
    group: u32,
    alias: &str,
    endpoint: &Endpoint,
) -> Vec<Resource> {
    let mut list = Vec::new();
    if let Some(Bandwidth { rate, burst }) = limits.ingress {
        list.push(Resource::Rate { link: port.clone(), rate, burst });
    }
    if let Some(Bandwidth { rate, burst }) = limits.egress {
        let block = InterfaceName::of("ifb", &endpoint.id);
        list.extend(vec![
            Resource::Ifb { name: block.clone(), group, alias: alias.to_string() },
            Resource::Setting { place: Place::Host, link: block.clone(), setting: Setting::Ipv6Off },
            Resource::Rate { link: block.clone(), rate, burst },
            Resource::Up { place: Place::Host, link: block.clone() },
            Resource::Redirect { link: port.clone(), through: block },
        ]);
    }
    list
}

/// The limits as people read them, by name: `IngressRate`, bits per second; `IngressBurst`, bits.
#[must_use]
pub fn shown(limits: &Limits) -> Vec<(String, u64)> {
    let mut list = Vec::new();
    for (name, limit) in [("Ingress", limits.ingress), ("Egress", limits.egress)] {
        if let Some(limit) = limit {
            list.push((format!("{name}Rate"), limit.rate));
            list.push((format!("{name}Burst"), u64::from(limit.burst) * 8));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use alloc::{borrow::ToOwned, collections::BTreeMap};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Limits, String> {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = Options::read("bridge", &OPTIONS, &map).map_err(|error| error.to_string())?;
        let limits = Limits::read(&options).map_err(|error| error.to_string())?;
        limits.check(&options, 1500).map_err(|error| error.to_string())?;
        Ok(limits)
    }

    #[test]
    fn numbers_of_bits_have_the_units_of_tc() {
        for (text, bits) in [
            ("800000", 800_000),
            ("10mbit", 10_000_000),
            ("1.5Gbit", 1_500_000_000),
            ("8kbit", 8000),
            ("7bit", 7),
        ] {
            assert_eq!(text.parse(), Ok(Bits(bits)), "{text}");
        }
        for text in ["", "mbit", "-1", "+1", "1e6", "10mbps", "10 mbit", "1.", ".5mbit", "99999999tbit"] {
            assert_eq!(text.parse::<Bits>(), Err(()), "{text}");
        }
        assert_eq!(Bits(10_000_000).to_string(), "10mbit");
        assert_eq!(Bits(1_500_000).to_string(), "1500kbit");
    }

    #[test]
    fn a_rate_is_for_both_ways_unless_one_is_named() {
        let both = read(&[("rate", "10mbit")]).unwrap();
        let usual = Some(Bandwidth { rate: 10_000_000, burst: 65_536 });
        assert_eq!(both, Limits { ingress: usual, egress: usual });
        let one = read(&[("rnet.endpoint.egress_rate", "1gbit"), ("egress-burst", "8mbit")]).unwrap();
        assert_eq!(
            one,
            Limits { ingress: None, egress: Some(Bandwidth { rate: 1_000_000_000, burst: 1_000_000 }) }
        );
        let mixed = read(&[("rate", "10mbit"), ("ingress-rate", "20mbit"), ("burst", "800000")]).unwrap();
        assert_eq!(mixed.ingress, Some(Bandwidth { rate: 20_000_000, burst: 100_000 }));
        assert_eq!(mixed.egress, Some(Bandwidth { rate: 10_000_000, burst: 100_000 }));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let rate = "it must be bits per second from 8kbit to 10tbit: 10mbit, 1.5gbit, 800000";
        for (pairs, error) in [
            (&[("rate", "10mbps")][..], format!("option \"rate\" of driver bridge: \"10mbps\" is refused: {rate}")),
            (&[("rate", "0")], format!("option \"rate\" of driver bridge: \"0\" is refused: {rate}")),
            (
                &[("ingress-burst", "8mbit")],
                "option \"ingress-burst\" of driver bridge: \"8mbit\" is refused: a burst needs its rate".to_owned(),
            ),
            (
                &[("burst", "8mbit")],
                "option \"burst\" of driver bridge: \"8mbit\" is refused: a burst needs its rate".to_owned(),
            ),
            (
                &[("rate", "1mbit"), ("egress-burst", "8kbit")],
                "option \"egress-burst\" of driver bridge: \"8kbit\" is refused: it must hold a packet of the network: at least 12144 bits".to_owned(),
            ),
        ] {
            assert_eq!(read(pairs).unwrap_err(), error);
        }
    }
}
