//! Every text is parsed or refused, in one line that is safe to print; what is parsed is safe to use, and its own text
//! means the same again.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use proptest::prelude::*;
use rnetkit_drivers::{
    Id, InterfaceName, Invalid, MacAddress, Name, PortMapping, PortRange, Protocol, options::BadOption,
};

/// Anything: printable, hostile, or made of the letters that the parsers look for.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,40}",
        "[0-9a-fA-F:.\\[\\]/-]{0,40}",
        "[a-z0-9_.-]{0,20}",
        "[\\x00-\\x20\u{202e}\u{feff}*%'\"/]{0,8}",
        any::<String>(),
    ]
}

/// A port to publish that is right, or nearly.
fn mapping() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just(String::new()),
        "(0|127|192|256)\\.0\\.0\\.[0-9]{1,3}:",
        "\\[?::[0-9a-f]{0,4}\\]?:",
        Just("[::ffff:1.2.3.4]:".to_owned()),
    ];
    let range = prop_oneof!["[0-9]{0,6}", "[0-9]{1,5}-[0-9]{1,5}"];
    (host, range.clone(), range, "(/(tcp|udp|sctp|TCP|icmp|))?")
        .prop_map(|(host, ports, target, protocol)| format!("{host}{ports}:{target}{protocol}"))
}

/// Parsed, and the same again from its own text; or refused in one line.
fn round_trip<T: FromStr<Err = Invalid> + Display + PartialEq + Debug>(
    text: &str,
) -> Result<(), TestCaseError> {
    match text.parse::<T>() {
        Ok(value) => prop_assert_eq!(value.to_string().parse::<T>(), Ok(value)),
        Err(error) => {
            let line = error.to_string();
            prop_assert!(
                !line.chars().any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)),
                "{line:?}"
            );
            prop_assert!(line.chars().count() < 1400, "{line:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in text()) {
        round_trip::<Name>(&text)?;
        round_trip::<InterfaceName>(&text)?;
        round_trip::<MacAddress>(&text)?;
        round_trip::<Id>(&text)?;
        round_trip::<PortRange>(&text)?;
        round_trip::<Protocol>(&text)?;
        round_trip::<PortMapping>(&text)?;
    }

    #[test]
    fn a_port_to_publish_makes_sense_or_is_refused(text in mapping()) {
        round_trip::<PortMapping>(&text)?;
        if let Ok(mapping) = text.parse::<PortMapping>() {
            prop_assert!(mapping.container_ports.first > 0 && mapping.container_ports.first <= mapping.container_ports.last);
            if let Some(ports) = mapping.host_ports {
                prop_assert!(ports.first > 0 && ports.first <= ports.last);
                let container = mapping.container_ports.count();
                prop_assert!(container == 1 || container == ports.count());
            }
        }
    }

    #[test]
    fn a_name_is_safe_as_a_file_and_in_any_output(text in text()) {
        let Ok(name) = text.parse::<Name>() else { return Ok(()) };
        prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)));
        prop_assert!(!name.as_str().starts_with(['.', '-', '_']) && (1..=128).contains(&name.as_str().len()));
    }

    #[test]
    fn an_interface_name_is_one_that_linux_takes_and_nobody_reads_as_a_pattern(text in text()) {
        let Ok(name) = text.parse::<InterfaceName>() else { return Ok(()) };
        prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)));
        prop_assert!(!name.as_str().starts_with(['.', '-']) && (1..=15).contains(&name.as_str().len()));
        prop_assert!(!["all", "default", "lo"].contains(&name.as_str()));
    }

    #[test]
    fn every_hardware_address_is_read_from_its_text_or_is_no_ones(bytes in any::<[u8; 6]>()) {
        let address = MacAddress(bytes);
        let read = address.to_string().parse::<MacAddress>();
        prop_assert_eq!(read.is_ok(), bytes[0] & 1 == 0 && bytes != [0; 6]);
        prop_assert_eq!(address.to_string().to_uppercase().parse::<MacAddress>().is_ok(), read.is_ok());
    }

    #[test]
    fn every_id_is_read_from_its_text_and_from_no_other(bytes in any::<[u8; 32]>(), at in 0usize..64) {
        let text = Id(bytes).to_string();
        prop_assert_eq!(text.parse::<Id>(), Ok(Id(bytes)));
        prop_assert!(text[..at].parse::<Id>().is_err());
        let other = format!("{}g{}", &text[..at], &text[at + 1..]);
        prop_assert!(other.parse::<Id>().is_err());
    }

    #[test]
    fn what_is_kept_in_records_is_read_again(text in text()) {
        fn kept<T>(text: &str) -> Result<(), TestCaseError>
        where
            T: FromStr + serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
        {
            let Ok(value) = text.parse::<T>() else { return Ok(()) };
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<T>(&json).ok(), Some(value));
            Ok(())
        }
        kept::<Name>(&text)?;
        kept::<InterfaceName>(&text)?;
        kept::<MacAddress>(&text)?;
        kept::<PortRange>(&text)?;
        kept::<PortMapping>(&text)?;
    }

    #[test]
    fn an_option_of_any_name_and_value_is_taken_or_refused_in_one_line(key in text(), value in text()) {
        let network = rnetkit_drivers::Network {
            id: Id([1; 32]),
            name: "blue".parse().unwrap(),
            driver: "bridge".to_owned(),
            created: 0,
            pools: Vec::new(),
            internal: true,
            attachable: false,
            ipam_driver: "default".to_owned(),
            ipam_options: Default::default(),
            options: [(key, value.clone()), ("name".to_owned(), value.clone()), ("mtu".to_owned(), value)].into(),
            labels: Default::default(),
            group: 1,
        };
        for name in ["bridge", "host", "null"] {
            let checked: Result<(), BadOption> = rnetkit_drivers::driver(name).unwrap().check(&network);
            if let Err(error) = checked {
                prop_assert!(!error.to_string().chars().any(char::is_control), "{error}");
            }
        }
    }
}
