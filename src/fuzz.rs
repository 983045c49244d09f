//! Every parser of what comes from outside, as a function of any bytes: what `fuzz/` and the test below drive. Built for
//! them alone. A function that returns has found nothing wrong.
//!
//! `cargo test fuzz` runs each over its corpus (`fuzz/corpus/NAME/`) and over some thousands of its mutations, the same
//! each time: with the compiler that everyone has, in a second or two. `cargo fuzz run NAME` (in `fuzz/`) needs a
//! nightly compiler and `cargo-fuzz`, which takes minutes to build; it finds what is deeper, and what it finds goes into
//! the corpus.

use std::path::PathBuf;

use rnetkit_drivers::{PortMapping, bridge::Settings};

use crate::{
    container::files::{DnsOptions, Family6, resolv_conf},
    container::options::{ExtraHost, Hostname, Sysctl, User},
    container_ref::ContainerRef,
    store::{EndpointState, HostState, NetworkState},
};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("publish", publish),
    ("options", options),
    ("record", record),
    ("netlink", netlink),
    ("resolv_conf", resolver),
    ("template", template),
    ("words", words),
    ("cni", cni),
];

/// A published port: what is read is written so that it is read again as the same.
pub fn publish(bytes: &[u8]) {
    let Ok(mapping) = text(bytes).parse::<PortMapping>() else { return };
    let again = mapping.to_string().parse::<PortMapping>();
    assert_eq!(again.as_ref().ok(), Some(&mapping), "{mapping}");
    assert!(mapping.host_ports.is_none_or(|ports| ports.first <= ports.last && ports.first > 0), "{mapping}");
}

/// Options of a network, one a line.
pub fn options(bytes: &[u8]) {
    let text = text(bytes);
    let options = text.lines().filter_map(|line| line.split_once('='));
    let mut network = network();
    network.options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if let Ok(settings) = Settings::of(&network) {
        assert!(settings.device.as_str().len() <= 15, "{}", settings.device);
        let driver = crate::verbs::driver("bridge").map(|driver| driver.network(&network).is_ok());
        assert!(driver.is_ok_and(|can| can), "{:?}", network.options);
    }
}

/// A record: what is read is written so that it is read again as the same.
pub fn record(bytes: &[u8]) {
    fn one<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(record) = serde_json::from_slice::<T>(bytes) else { return };
        let again = serde_json::to_vec(&record).ok().and_then(|text| serde_json::from_slice::<T>(&text).ok());
        assert_eq!(again, Some(record));
    }
    one::<EndpointState>(bytes);
    one::<NetworkState>(bytes);
    one::<HostState>(bytes);
    one::<crate::verbs::ContainerState>(bytes);
}

/// What the kernel answers: links, addresses, routes, sets, flows.
pub fn netlink(bytes: &[u8]) {
    crate::kernel::read_anything(bytes);
}

/// The host's resolv.conf: whatever it says, the container's has lines that begin with known words only.
pub fn resolver(bytes: &[u8]) {
    let dns =
        DnsOptions { servers: Vec::new(), search: Vec::new(), options: Vec::new(), ipv6: Family6::Absent };
    let made = resolv_conf(&text(bytes), &dns);
    let known = ["nameserver ", "search ", "options ", "#"];
    let strange =
        made.lines().find(|line| !line.is_empty() && !known.iter().any(|word| line.starts_with(word)));
    assert_eq!(strange, None, "in {made:?}");
}

/// A template, and what it makes of a small object.
pub fn template(bytes: &[u8]) {
    let Ok(template) = text(bytes).parse::<crate::cli::template::Template>() else { return };
    let value = serde_json::json!({"Name": "blue", "Options": {"a": "b"}, "List": [1, "two", null], "N": 3});
    let _ = template.render(&value);
}

/// Single words of the command line.
pub fn words(bytes: &[u8]) {
    let text = text(bytes);
    let _ = text.parse::<ContainerRef>().map(|container| container.key());
    let _ = text.parse::<ExtraHost>();
    let _ = text.parse::<Hostname>();
    let _ = text.parse::<Sysctl>();
    let _ = text.parse::<User>();
    let _ = text.parse::<rnetkit_drivers::InterfaceName>().map(|name| assert!(name.as_str().len() <= 15));
}

/// A configuration of the CNI plugin.
pub fn cni(bytes: &[u8]) {
    crate::cni::read_anything(bytes);
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn network() -> rnetkit_drivers::Network {
    let text = include_str!("../fuzz/network.json");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("fuzz/network.json: {error}"))
}

/// Where the corpus of a target is.
#[must_use]
pub fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Numbers that look random and are the same each time (xorshift64, Marsaglia 2003).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end.max(1) as u64) as usize
        }
    }

    /// A few changes to a text: bytes flipped, put in, taken out, repeated, or parts of another text.
    fn mutated(bytes: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        const TELLING: [u8; 16] = *b"\0\n\"\\{}[]:,-./=%\xff";
        let mut bytes = bytes.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len() + 1);
            match numbers.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
                1 => bytes.insert(at, TELLING[numbers.below(TELLING.len())]),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                4 => bytes.splice(at..at, other[..numbers.below(other.len() + 1)].to_vec()).for_each(drop),
                5 => {
                    let again = bytes[at..bytes.len().min(at + 1 + numbers.below(16))].to_vec();
                    for _ in 0..numbers.below(8) {
                        bytes.splice(at..at, again.iter().copied()).for_each(drop);
                    }
                }
                _ if at < bytes.len() => bytes[at] = numbers.below(256) as u8,
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn every_parser_takes_its_corpus_and_thousands_of_mutations_of_it() {
        const MUTATIONS: usize = 3000;
        for (name, target) in TARGETS {
            let files = fs::read_dir(corpus(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut seeds: Vec<Vec<u8>> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
            seeds.sort();
            assert!(!seeds.is_empty(), "no corpus of {name}");
            seeds.iter().for_each(|seed| target(seed));
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
            for _ in 0..MUTATIONS {
                let (seed, other) = (numbers.below(seeds.len()), numbers.below(seeds.len()));
                target(&mutated(&seeds[seed], &seeds[other], &mut numbers));
            }
        }
    }
}
