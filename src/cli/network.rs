//! `rnet network …`.

use std::{collections::BTreeMap, io::BufRead as _, net::IpAddr};

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Invalid, Name};
use serde_json::{Value, json};

use super::{
    Context, Failure, agent, args, filter,
    output::{Format, Out, natural},
    template::Template,
    view,
};
use crate::{
    cni::export,
    container_ref::ContainerRef,
    error::{Error, shown},
    ipam::Wishes,
    kernel::Linux,
    plan::Plan,
    verbs::{Connect, CreateNetwork, Mode, Rnet},
};

fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::Show } else { Mode::Do }
}

fn show_plan(plan: &Plan, out: &mut Out) {
    if plan.is_empty() {
        out.line("nothing to do");
    }
    out.text(&plan.to_string());
}

pub(super) fn create(context: &Context, mut args: args::Create, out: &mut Out) -> Result<(), Failure> {
    let mode = mode(args.dry_run);
    let list = args.cni.take();
    let wanted = wanted(args)?;
    if let Some(folder) = &list {
        export::place(folder, wanted.name.as_str())?;
    }
    let mut rnet = context.rnet()?;
    let (network, plan) = rnet.create(wanted, mode)?;
    match mode {
        Mode::Do => {
            if let Some(folder) = &list {
                write_list(&mut rnet, folder, &network)?;
            }
            agent::network_made(context, &network);
            out.line(&network.id.to_string());
        }
        Mode::Show => show_plan(&plan, out),
    }
    Ok(())
}

/// A network whose list cannot be written is not made either.
fn write_list(
    rnet: &mut Rnet<Linux>,
    folder: &std::path::Path,
    network: &rnetkit_drivers::Network,
) -> Result<(), Failure> {
    let written = export::write(folder, network);
    if written.is_err() {
        rnet.remove(network.name.as_str(), false, Mode::Do)?;
    }
    Ok(written.map(drop)?)
}

fn wanted(args: args::Create) -> Result<CreateNetwork, Failure> {
    let wishes = Wishes {
        subnets: all(&args.subnet, |text| cidr("subnet", text))?,
        gateways: all(&args.gateway, |text| ip("gateway", text))?,
        ranges: all(&args.ip_range, |text| cidr("ip-range", text))?,
        aux: reserved(&args.aux_address)?,
    };
    Ok(CreateNetwork {
        name: Name::parse("network name", &args.name)?,
        driver: args.driver,
        wishes,
        ipv4: switch("--ipv4", &args.ipv4)?,
        ipv6: switch("--ipv6", &args.ipv6)?,
        ipam_driver: args.ipam_driver,
        ipam_options: pairs("ipam option", &args.ipam_opt)?,
        internal: args.internal,
        attachable: args.attachable,
        labels: labels(&args.label)?,
        options: pairs("option", &args.opt)?,
    })
}

/// `NAME=IP`.
fn reserved(texts: &[String]) -> Result<BTreeMap<String, IpAddr>, Invalid> {
    if let Some(text) = texts.iter().find(|text| !text.contains('=')) {
        return Err(Invalid::new("aux-address", text, "it must be NAME=IP"));
    }
    let address = |(name, text): (String, String)| {
        let address = ip("aux-address", &text)
            .map_err(|error| Invalid::new("aux-address", &format!("{name}={text}"), error.reason));
        Ok((name, address?))
    };
    pairs("aux-address", texts)?.into_iter().map(address).collect()
}

fn all<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    texts.iter().map(|text| parse(text)).collect()
}

/// An address: strict, so that no octet is read as octal and nothing is guessed.
pub(super) fn ip(what: &'static str, text: &str) -> Result<IpAddr, Invalid> {
    let address: IpAddr = text.parse().map_err(|_| Invalid::new(what, text, "it is not an IP address"))?;
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(Invalid::new(what, text, "write the IPv4 address itself"));
    }
    Ok(address)
}

/// A subnet with its length.
fn cidr(what: &'static str, text: &str) -> Result<IpNetwork, Invalid> {
    let wrong = || Invalid::new(what, text, "it must be an address and a length, as 10.0.0.0/24");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let padded = length.len() > 1 && length.starts_with('0');
    if length.is_empty() || padded || length.len() > 3 || !length.bytes().all(|digit| digit.is_ascii_digit())
    {
        return Err(wrong());
    }
    let address = ip(what, address).map_err(|error| Invalid::new(what, text, error.reason))?;
    IpNetwork::new(address, length.parse().map_err(|_| wrong())?).map_err(|_| wrong())
}

fn switch(what: &'static str, text: &str) -> Result<bool, Invalid> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Invalid::new(what, text, "it must be true or false")),
    }
}

/// `K=V`, or `K` for an empty value.
pub(super) fn pairs(what: &'static str, texts: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut map = BTreeMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(Invalid::new(what, text, "it must be KEY=VALUE"));
        }
        if text.len() > 4096 || text.chars().any(char::is_control) {
            return Err(Invalid::new(
                what,
                text,
                "control characters and more than 4096 bytes are not allowed",
            ));
        }
        if map.insert(key.to_owned(), value.to_owned()).is_some_and(|earlier| earlier != value) {
            return Err(Invalid::new(what, text, format!("{key} is given twice")));
        }
    }
    Ok(map)
}

/// Of labels, as in Docker, the last one counts.
fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut map = BTreeMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() || text.len() > 4096 || text.contains('\0') {
            return Err(Invalid::new("label", text, "it must be KEY=VALUE of at most 4096 bytes"));
        }
        map.insert(key.to_owned(), value.to_owned());
    }
    Ok(map)
}

pub(super) fn list(context: &Context, args: &args::Ls, out: &mut Out) -> Result<(), Failure> {
    let format = Format::read(args.format.as_deref())?;
    let filters =
        filter::read(&args.filter, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let rnet = context.rnet()?;
    let mut networks = Vec::new();
    for network in rnet.networks()? {
        let used = !rnet.endpoints(&network)?.is_empty();
        if filter::passes(&filters, &network, used) {
            networks.push(network);
        }
    }
    networks.sort_by(|a, b| natural(a.name.as_str(), b.name.as_str()));
    let rows: Vec<Value> = networks.iter().map(|network| view::listed(network, args.no_trunc)).collect();
    if args.quiet && args.format.is_none() {
        rows.iter().for_each(|row| out.line(row["ID"].as_str().unwrap_or_default()));
        return Ok(());
    }
    let header = json!({
        "CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6",
        "Internal": "INTERNAL", "Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
    });
    format.show(&rows, &["ID", "Name", "Driver", "Scope"], &header, out)
}

/// Those found are shown, those not found named; then the exit code is 1.
pub(super) fn inspect(context: &Context, args: &args::Inspect, mut out: Out) -> Result<u8, Failure> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(text.parse::<Template>().map_err(|error| Failure::new(error.to_string()))?),
    };
    let mut rnet = context.rnet()?;
    let mut shown = Vec::new();
    let mut missing: Option<Failure> = None;
    for reference in &args.networks {
        match inspect_one(&mut rnet, reference) {
            Ok(value) => shown.push(value),
            Err(error) => missing = Some(merge(missing, error.into())),
        }
    }
    match template {
        Some(template) => {
            for value in &shown {
                out.line(&template.render(value).map_err(|error| Failure::new(error.to_string()))?);
            }
        }
        None if args.format.is_some() => out.line(&Value::Array(shown).to_string()),
        None => out.line(&indented(&Value::Array(shown))),
    }
    out.finish()?;
    missing.map_or(Ok(0), Err)
}

pub(super) fn merge(earlier: Option<Failure>, failure: Failure) -> Failure {
    match earlier {
        None => failure,
        Some(mut earlier) => {
            earlier.lines.extend(failure.lines);
            earlier
        }
    }
}

fn inspect_one(rnet: &mut Rnet<Linux>, reference: &str) -> Result<Value, Error> {
    let network = rnet.network_in_full(reference)?;
    let endpoints = rnet.endpoints(&network)?;
    Ok(view::network(&network, &endpoints))
}

/// JSON with four spaces of indentation, as Docker prints it.
fn indented(value: &Value) -> String {
    use serde::Serialize as _;
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => value.to_string(),
    }
}

pub(super) fn connect(context: &Context, args: args::Connect, out: &mut Out) -> Result<(), Failure> {
    let mode = mode(args.dry_run);
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(text.parse::<Template>().map_err(|error| Failure::new(error.to_string()))?),
    };
    let wanted = wanted_endpoint(&args)?;
    let mut rnet = context.rnet()?;
    let connected = rnet.connect(&wanted, mode)?;
    if mode == Mode::Show {
        show_plan(&connected.plan, out);
        return Ok(());
    }
    agent::container_connected(context, &connected.network, rnet.made_network());
    if args.format.is_some() {
        let state = rnet.store().endpoint(&connected.network.id, &wanted.container.key())?;
        let shown = state.as_ref().map(view::endpoint).unwrap_or_default();
        match template {
            Some(template) => {
                out.line(&template.render(&shown).map_err(|error| Failure::new(error.to_string()))?)
            }
            None => out.line(&indented(&shown)),
        }
    }
    Ok(())
}

fn wanted_endpoint(args: &args::Connect) -> Result<Connect, Failure> {
    let mut wanted = Connect::new(&args.network, args.container.parse()?);
    wanted.ip = args.ip.as_deref().map(|text| ip("IPv4 address", text)).transpose()?;
    wanted.ip6 = args.ip6.as_deref().map(|text| ip("IPv6 address", text)).transpose()?;
    wanted.mac = args.mac_address.as_deref().map(str::parse).transpose()?;
    wanted.interface = args.interface.as_deref().map(str::parse).transpose()?;
    wanted.ports = all(&args.publish, str::parse)?;
    wanted.service = args.service.as_deref().map(str::parse).transpose()?;
    wanted.aliases = all(&args.alias, |text| Name::parse("alias", text).map(|name| name.to_string()))?;
    if let Some(name) = &args.name {
        wanted.aliases.push(Name::parse("name", name)?.to_string());
    }
    wanted.gateway_priority = priority(&args.gw_priority)?;
    wanted.options = pairs("driver option", &args.driver_opt)?;
    Ok(wanted)
}

/// A gateway priority: any whole number of 32 bits.
pub(super) fn priority(text: &str) -> Result<i32, Invalid> {
    let reason = "it must be a whole number from -2147483648 to 2147483647";
    text.parse().map_err(|_| Invalid::new("gateway priority", text, reason))
}

pub(super) fn disconnect(context: &Context, args: &args::Disconnect, out: &mut Out) -> Result<(), Failure> {
    let container: ContainerRef = args.container.parse()?;
    let result = context.rnet()?.disconnect(&args.network, &container, mode(args.dry_run));
    match result {
        Ok(plan) if args.dry_run => show_plan(&plan, out),
        Err(Error::NotConnected { .. }) if args.force => {}
        result => drop(result?),
    }
    Ok(())
}

/// Each is removed or refused by itself; the names of those removed are printed, as they were given.
pub(super) fn remove(context: &Context, args: &args::Rm, mut out: Out) -> Result<u8, Failure> {
    let mut rnet = context.rnet()?;
    let mut refused: Option<Failure> = None;
    for reference in &args.networks {
        match rnet.remove(reference, args.force, mode(args.dry_run)) {
            Ok((_, plan)) if args.dry_run => show_plan(&plan, &mut out),
            Ok((network, _)) => {
                agent::network_gone(context, &network);
                out.line(&shown(reference));
            }
            Err(Error::NetworkNotFound { .. }) if args.force => {}
            Err(error) => refused = Some(merge(refused, error.into())),
        }
    }
    out.finish()?;
    refused.map_or(Ok(0), Err)
}

pub(super) fn prune(context: &Context, args: &args::Prune, out: &mut Out) -> Result<(), Failure> {
    let filters = filter::read(&args.filter, &["label", "label!", "until"])?;
    let mut rnet = context.rnet()?;
    if args.dry_run {
        for network in rnet.networks()? {
            let builtin = crate::verbs::is_builtin(&network);
            if !builtin && rnet.endpoints(&network)?.is_empty() && filter::passes(&filters, &network, false) {
                out.line(&format!("- network {}", network.name));
            }
        }
        return Ok(());
    }
    if !args.force && !confirmed()? {
        return Ok(());
    }
    let pruned = rnet.prune(|network| filter::passes(&filters, network, false))?;
    agent::records_changed(context);
    if !pruned.is_empty() {
        out.line("Deleted Networks:");
        pruned.iter().for_each(|name| out.line(name.as_str()));
    }
    Ok(())
}

/// Asks; the end of the input means no.
fn confirmed() -> Result<bool, Failure> {
    use std::io::Write as _;
    let question = "WARNING! This will remove all networks that no container is connected to.\nAre you sure you want to continue? [y/N] ";
    let _ = std::io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["\\PC{0,40}", "[0-9a-f:.]{0,40}(/[0-9]{0,4})?", "[a-z=,.0-9 ]{0,20}", any::<String>()]
    }

    fn is_one_line(error: &Invalid) -> bool {
        !error.to_string().chars().any(char::is_control)
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused_in_one_line(text in text()) {
            match ip("address", &text) {
                Ok(address) => prop_assert_eq!(ip("address", &address.to_string()), Ok(address)),
                Err(error) => prop_assert!(is_one_line(&error), "{error}"),
            }
        }

        #[test]
        fn any_text_is_a_subnet_or_refused_in_one_line(text in text()) {
            match cidr("subnet", &text) {
                Ok(subnet) => {
                    let longest = if subnet.is_ipv6() { 128 } else { 32 };
                    prop_assert!(subnet.prefix() <= longest);
                    prop_assert_eq!(cidr("subnet", &subnet.to_string()), Ok(subnet));
                }
                Err(error) => prop_assert!(is_one_line(&error), "{error}"),
            }
        }

        #[test]
        fn every_subnet_is_read_from_its_text(address in any::<IpAddr>(), length in 0u8..=128) {
            let Ok(subnet) = IpNetwork::new(address, length) else { return Ok(()) };
            let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            prop_assert_eq!(cidr("subnet", &subnet.to_string()).is_ok(), !mapped);
        }

        #[test]
        fn any_words_are_read_or_refused_in_one_line(texts in proptest::collection::vec(text(), 0..4)) {
            let results = [
                pairs("option", &texts).err(),
                labels(&texts).err(),
                reserved(&texts).err(),
                texts.iter().find_map(|text| priority(text).err()),
                texts.iter().find_map(|text| switch("--ipv4", text).err()),
            ];
            for error in results.into_iter().flatten() {
                prop_assert!(is_one_line(&error), "{error}");
            }
        }
    }

    #[test]
    fn nothing_about_an_address_is_guessed() {
        for (text, reason) in [
            ("10.0.0.01/24", "it is not an IP address"),
            ("10.0.0/24", "it is not an IP address"),
            ("167772160/8", "it is not an IP address"),
            ("0x0a000000/8", "it is not an IP address"),
            ("::ffff:10.0.0.0/104", "write the IPv4 address itself"),
            ("10.0.0.0", "it must be an address and a length, as 10.0.0.0/24"),
            ("10.0.0.0/", "it must be an address and a length, as 10.0.0.0/24"),
            ("10.0.0.0/08", "it must be an address and a length, as 10.0.0.0/24"),
            ("10.0.0.0/+8", "it must be an address and a length, as 10.0.0.0/24"),
            ("10.0.0.0/33", "it must be an address and a length, as 10.0.0.0/24"),
            ("10.0.0.0/255.0.0.0", "it must be an address and a length, as 10.0.0.0/24"),
            ("fd00::/129", "it must be an address and a length, as 10.0.0.0/24"),
            ("fe80::1%eth0/64", "it is not an IP address"),
            (" 10.0.0.0/8", "it is not an IP address"),
        ] {
            assert_eq!(cidr("subnet", text).unwrap_err().reason, reason, "{text}");
        }
    }
}
