//! The texts of a container's /etc/hosts and /etc/resolv.conf. Pure: never reads or writes a file.

use std::{fmt::Write, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::options::{ExtraAddress, ExtraHost, is_host_file_name};

/// What /etc/hosts is made from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HostsInput {
    /// Whether the container has IPv6.
    pub ipv6: Family6,
    /// The extra hosts, in the user's order.
    pub extra: Vec<ExtraHost>,
    /// What `host-gateway` stands for: the host's addresses on the container's networks.
    pub host_gateway: Vec<IpAddr>,
    /// An address of the container and its names there, the hostname first.
    pub endpoints: Vec<(IpAddr, Vec<String>)>,
}

/// Whether a container has IPv6.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family6 {
    /// It has.
    #[default]
    Present,
    /// It has not, and names that lead to IPv6 addresses would lead nowhere.
    Absent,
}

const LOCALHOST_4: &str = "127.0.0.1\tlocalhost\n";
const LOCALHOST_6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// /etc/hosts, with the lines that Docker writes. Names that cannot stand in that file are left out.
pub fn hosts(input: &HostsInput) -> String {
    let mut text = String::from(LOCALHOST_4);
    if input.ipv6 == Family6::Present {
        text.push_str(LOCALHOST_6);
    }
    for ExtraHost { name, address } in &input.extra {
        match address {
            ExtraAddress::Ip(ip) => line(&mut text, *ip, std::slice::from_ref(name)),
            ExtraAddress::HostGateway => {
                input.host_gateway.iter().for_each(|ip| line(&mut text, *ip, std::slice::from_ref(name)));
            }
        }
    }
    for (ip, names) in &input.endpoints {
        line(&mut text, *ip, names);
    }
    text
}

fn line(text: &mut String, ip: IpAddr, names: &[String]) {
    let good: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_host_file_name(name)).collect();
    if !good.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{ip}\t{}", good.join(" "));
    }
}

/// What the user or the network says about DNS. What is given replaces what the host has, kind by kind.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// `--dns`; the host's unless given. May be on loopback: then it is the container's.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; a `.` means none.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
    /// Whether the host's IPv6 servers can be reached.
    pub ipv6: Family6,
}

/// As many as glibc asks.
const MAX_SERVERS: usize = 3;
/// What glibc read of a search list before 2.26, and what musl reads today.
const MAX_SEARCH: usize = 256;
const MAX_OPTIONS: usize = 256;
/// Nobody's resolv.conf is longer; a hostile one is not read to its end.
const MAX_INPUT: usize = 1 << 20;
/// As Docker has them.
const FALLBACK: [IpAddr; 2] = [ip4(8, 8, 8, 8), ip4(8, 8, 4, 4)];

const fn ip4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
}

/// /etc/resolv.conf, from the host's and what the user says.
pub fn resolv_conf(host_text: &str, dns: &DnsOptions) -> String {
    let host = Host::read(host_text);
    let mut text = String::new();
    for server in servers(&host, dns) {
        let _ = writeln!(text, "nameserver {server}");
    }
    directive(&mut text, "search", chosen(&dns.search, host.search), MAX_SEARCH);
    directive(&mut text, "options", chosen(&dns.options, host.options), MAX_OPTIONS);
    text
}

/// The name servers that a resolv.conf names, in its order; those with a scope are left out.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    Host::read(text).servers
}

/// What a resolv.conf says.
#[derive(Default)]
struct Host<'a> {
    servers: Vec<IpAddr>,
    search: Vec<&'a str>,
    options: Vec<&'a str>,
}

impl<'a> Host<'a> {
    fn read(text: &'a str) -> Self {
        let mut host = Self::default();
        let text = &text[..text.floor_char_boundary(MAX_INPUT)];
        for line in text.lines().filter(|line| !line.contains(is_hostile)) {
            let mut words = line.split_whitespace();
            match words.next() {
                // A server with a scope (fe80::1%eth0) is on a link that the container does not have.
                Some("nameserver") => {
                    host.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                // The last one counts.
                Some("search" | "domain") => host.search = words.collect(),
                Some("options") => host.options.extend(words),
                _ => {}
            }
        }
        host
    }
}

fn is_hostile(character: char) -> bool {
    character.is_control() && character != '\t'
}

fn servers(host: &Host<'_>, dns: &DnsOptions) -> Vec<IpAddr> {
    let reachable = |ip: &&IpAddr| !is_the_hosts_own(**ip) && (ip.is_ipv4() || dns.ipv6 == Family6::Present);
    let usable: Vec<IpAddr> = match dns.servers.as_slice() {
        [] => host.servers.iter().filter(reachable).copied().collect(),
        given => given.to_vec(),
    };
    let usable = if usable.is_empty() { FALLBACK.to_vec() } else { usable };
    usable.into_iter().take(MAX_SERVERS).collect()
}

/// 127/8 and ::1, in the container, are the container; so is 0.0.0.0.
pub fn is_the_hosts_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

fn chosen<'a>(given: &'a [String], host: Vec<&'a str>) -> Vec<&'a str> {
    if given.is_empty() { host } else { given.iter().map(String::as_str).collect() }
}

/// One line of words, cut before the word that would make it too long.
fn directive(text: &mut String, name: &str, words: Vec<&str>, limit: usize) {
    let mut length = 0;
    let mut kept: Vec<&str> = Vec::new();
    for word in words.into_iter().filter(|word| is_word(word)) {
        length += word.len() + 1;
        if length > limit {
            break;
        }
        kept.push(word);
    }
    if !kept.is_empty() {
        let _ = writeln!(text, "{name} {}", kept.join(" "));
    }
}

/// One that can stand in the file as what it is. A lone dot is the way to say "none".
fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word != "."
        && !word.contains(|c: char| c.is_whitespace() || c.is_control() || "#;".contains(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_as_docker_writes_them() {
        let input = HostsInput {
            ipv6: Family6::Present,
            extra: vec!["db:10.0.0.9".parse().unwrap(), "host.docker.internal:host-gateway".parse().unwrap()],
            host_gateway: vec![ip("172.17.0.1")],
            endpoints: vec![(ip("172.17.0.2"), vec!["web".to_owned()])],
        };
        let expected = "127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::\tip6-localnet\n\
            ff00::\tip6-mcastprefix\n\
            ff02::1\tip6-allnodes\n\
            ff02::2\tip6-allrouters\n\
            10.0.0.9\tdb\n\
            172.17.0.1\thost.docker.internal\n\
            172.17.0.2\tweb\n";
        assert_eq!(hosts(&input), expected);
    }

    #[test]
    fn hosts_without_ipv6_do_not_name_it() {
        let input = HostsInput { ipv6: Family6::Absent, ..HostsInput::default() };
        assert_eq!(hosts(&input), "127.0.0.1\tlocalhost\n");
    }

    #[test]
    fn a_name_cannot_smuggle_a_line() {
        let names = vec!["web\n6.6.6.6 bank".to_owned(), String::new()];
        let input = HostsInput { endpoints: vec![(ip("10.0.0.2"), names)], ..HostsInput::default() };
        assert!(!hosts(&input).contains("bank"));
    }

    #[test]
    fn the_hosts_resolvers_without_its_loopback_ones() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n\
            nameserver 2001:db8::1\nsearch a.example b.example\noptions edns0 trust-ad\n";
        let expected = "nameserver 10.0.0.1\nnameserver 2001:db8::1\nsearch a.example b.example\n\
            options edns0 trust-ad\n";
        assert_eq!(resolv_conf(host, &DnsOptions::default()), expected);
        let without = DnsOptions { ipv6: Family6::Absent, ..DnsOptions::default() };
        assert!(!resolv_conf(host, &without).contains("2001"));
    }

    #[test]
    fn googles_resolvers_where_none_is_left() {
        let expected = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(
            resolv_conf("nameserver 127.0.0.1\nnameserver ::ffff:127.0.0.1\n", &DnsOptions::default()),
            expected
        );
        assert_eq!(resolv_conf("", &DnsOptions::default()), expected);
    }

    #[test]
    fn what_the_user_gives_replaces_the_hosts() {
        let dns = DnsOptions {
            servers: vec![ip("1.1.1.1")],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
            ipv6: Family6::Present,
        };
        let text = resolv_conf("nameserver 10.0.0.1\nsearch a.example\noptions edns0\n", &dns);
        assert_eq!(text, "nameserver 1.1.1.1\noptions ndots:2\n");
    }

    #[test]
    fn a_hostile_file_stays_small() {
        let many: String =
            (0..100).map(|n| format!("nameserver 10.0.0.{n}\nsearch {}\n", "x. ".repeat(n * 100))).collect();
        let text = resolv_conf(&many, &DnsOptions::default());
        assert_eq!(text.matches("nameserver").count(), 3);
        assert!(text.lines().all(|line| line.len() <= 264), "{text}");
        let nul = "nameserver 10.0.0.1\0\nnameserver 10.0.0.2\nsearch a\u{1b}[2J\n";
        assert_eq!(resolv_conf(nul, &DnsOptions::default()), "nameserver 10.0.0.2\n");
        assert!(resolv_conf(&"ä".repeat(MAX_INPUT), &DnsOptions::default()).len() < 100);
    }

    proptest! {
        #[test]
        fn any_text_gives_a_valid_file(text in "(?s).{0,300}", words in proptest::collection::vec(".{0,40}", 0..5)) {
            let dns = DnsOptions { search: words.clone(), options: words, ..DnsOptions::default() };
            for line in resolv_conf(&text, &dns).lines() {
                let known = ["nameserver ", "search ", "options "];
                prop_assert!(known.iter().any(|word| line.starts_with(word)), "{line:?}");
            }
        }
    }
}
