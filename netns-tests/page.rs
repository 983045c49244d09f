//! `examples/firewall.md`: the ruleset as a running kernel has it, with comments. The listings in the page are compared
//! with the kernel's, so that the page is never wrong; what is not in the page is missing from it.
//!
//! To write the listings anew: `BLESS=1 cargo test --test netns -- page::`

use std::{collections::BTreeMap, fs};

use crate::{
    harness::{skip, tests},
    lab::Lab,
};

tests! {
    the_page_about_the_firewall_is_what_the_kernel_has,
    the_ruleset_has_the_same_rules_whatever_is_published,
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/firewall.md");

/// Listings begin with a line like ```` ```nft inet chain forward ````: the family, the kind, and names.
const FENCE: &str = "```nft ";

fn the_page_about_the_firewall_is_what_the_kernel_has(lab: &Lab) {
    lab.needs("nft");
    let page = fs::read_to_string(PAGE).expect("examples/firewall.md");
    let version = lab.sh("nft --version").ok().text();
    let version = version.split(' ').nth(1).unwrap_or_default().to_owned();
    if !page.contains(&version) {
        skip(format!("nft {version} lists rules in another way than the one that the page names"));
    }
    build(lab);
    let objects = objects(lab);
    let (written, mut shown) = fill(&page, &objects);
    if std::env::var_os("BLESS").is_some() {
        fs::write(PAGE, &written).expect("the page can be written");
    } else {
        let line = page.lines().zip(written.lines()).find(|(a, b)| a != b);
        assert_eq!(
            page, written,
            "the page is not what the kernel has, first at {line:?}; BLESS=1 writes it anew"
        );
    }
    let mut all: Vec<String> = objects.into_keys().collect();
    all.sort();
    shown.sort();
    assert_eq!(shown, all, "each chain, set and map is in the page once");
    lab.rn("purge").ok();
}

/// A host with something of everything, its names fixed.
fn build(lab: &Lab) {
    let limits = "--opt conn-limit=20/second --opt conn-max=100";
    lab.rn(&format!(
        "network create --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 --opt name=br-web {limits} web"
    ))
    .ok();
    lab.rn("network create --internal --subnet 10.2.0.0/24 --opt name=br-data data").ok();
    for (name, words) in [
        ("www", "-p 8080:80 -p 192.0.2.1:8443:443 web"),
        ("games", "-p 7000-7999:7000-7999/udp -p 127.0.0.1:9000-9009:9000-9009 web"),
        ("api1", "-p 3000:3000 --service api web"),
        ("api2", "-p 3000:3000 --service api web"),
        ("db", "data"),
    ] {
        lab.namespace(name);
        lab.rn(&format!("network connect {words} {name}")).ok();
    }
}

/// Every chain, set and map of both tables: `inet chain forward`, and its listing without what differs from run to run.
fn objects(lab: &Lab) -> BTreeMap<String, String> {
    let mut names: Vec<(String, String)> = Vec::new();
    for (network, containers) in [("web", &["www", "games", "api1", "api2"][..]), ("data", &["db"])] {
        for name in containers {
            let id = lab.endpoint(network, name)["EndpointID"].as_str().expect("an id").to_owned();
            names.push((format!("veth{}", &id[..11]), format!("veth-{name}")));
        }
    }
    let mut objects = BTreeMap::new();
    for family in ["inet", "bridge"] {
        let mut listing = lab.sh(&format!("nft -s list table {family} rnet")).ok().text();
        for (name, shown) in &names {
            listing = listing.replace(name, shown);
        }
        let mut lines = listing.lines().filter(|line| !line.is_empty());
        while let Some(line) = lines.next() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind @ ("chain" | "set" | "map"), name, "{"] = words[..] else { continue };
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "\t}").collect();
            let body = in_order(&body);
            let text = format!("{kind} {name} {{\n{body}}}\n");
            objects.insert(format!("{family} {kind} {name}"), text);
        }
    }
    objects
}

/// Elements in alphabetical order, one a line: the kernel lists hashes in an order of its own.
fn in_order(body: &[&str]) -> String {
    const SHOWN: usize = 8;
    let text: String = body.iter().map(|line| format!("{}\n", line.replacen('\t', "", 1))).collect();
    let Some((head, elements)) = text.split_once("elements = {") else { return text };
    let elements = elements.trim_end().trim_end_matches('}');
    let mut list: Vec<String> = elements.split(",\n").map(|element| element.trim().to_owned()).collect();
    list = list.iter().flat_map(|line| line.split(", ").map(str::to_owned)).collect();
    list.sort();
    let more = list.len().saturating_sub(SHOWN);
    list.truncate(SHOWN);
    let shown: String = list.iter().map(|element| format!("\t\t{element}\n")).collect();
    let more = if more > 0 { format!("\t\t# and {more} more\n") } else { String::new() };
    format!("{head}elements = {{\n{shown}{more}\t}}\n")
}

/// The page with its listings filled in, and what it shows.
fn fill(page: &str, objects: &BTreeMap<String, String>) -> (String, Vec<String>) {
    let mut written = String::new();
    let mut shown = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        written += &format!("{line}\n");
        let Some(what) = line.strip_prefix(FENCE) else { continue };
        let words: Vec<&str> = what.split(' ').collect();
        let [family, kind, names @ ..] = &words[..] else { panic!("{line}: a family, a kind and names") };
        for name in names {
            let key = format!("{family} {kind} {name}");
            let text = objects.get(&key).unwrap_or_else(|| panic!("the kernel has no {key}"));
            written += text;
            shown.push(key);
        }
        written += "```\n";
        lines.by_ref().find(|line| *line == "```").unwrap_or_else(|| panic!("{line}: no end"));
    }
    (written, shown)
}

fn rules(lab: &Lab) -> Vec<String> {
    let listing =
        ["inet", "bridge"].map(|family| lab.sh(&format!("nft -s list table {family} rnet")).ok().text());
    let listing = listing.concat();
    let mut rules = Vec::new();
    let mut lines = listing.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("chain ") {
            rules.push(line.to_owned());
            rules.extend(lines.by_ref().take_while(|line| *line != "\t}").map(str::to_owned));
        }
    }
    rules
}

/// One network or four, one container or twelve, one port or hundreds, shared or not: the rules are the same, letter by
/// letter.
fn the_ruleset_has_the_same_rules_whatever_is_published(lab: &Lab) {
    lab.needs("nft");
    lab.rn("network create first").ok();
    let one = rules(lab);
    assert!(one.len() > 40, "{one:?}");
    for network in 0..4 {
        lab.rn(&format!("network create --ipv6 net{network}")).ok();
        for container in 0..3 {
            let name = format!("c{network}{container}");
            lab.namespace(&name);
            let first = 10_000 + network * 1000 + container * 100;
            let ports = format!("-p {first}-{}:{}-{}", first + 99, first + 20_000, first + 20_099);
            lab.rn(&format!("network connect {ports} net{network} {name}")).ok();
        }
        let name = format!("s{network}");
        lab.namespace(&name);
        lab.rn(&format!("network connect -p 80:80 --service web net{network} {name}")).ok();
    }
    assert_eq!(rules(lab), one);
    // With the limits of a network comes the one chain that is its own.
    lab.rn("network create --opt conn-limit=5/second --opt name=br-limited limited").ok();
    let more: Vec<String> = rules(lab).into_iter().filter(|rule| !one.contains(rule)).collect();
    assert_eq!(more.len(), 3, "{more:?}");
    assert!(more[0].contains("chain limit_br-limited"), "{more:?}");
    lab.rn("purge").ok();
}
