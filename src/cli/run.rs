//! `rnet run`: a process in namespaces of its own, connected, watched, and taken down.

use std::{ffi::OsString, path::PathBuf};

use rnetkit_drivers::{Invalid, MacAddress, Name, PortMapping};

use super::{Context, Failure, agent, args, network, output::Out};
use crate::{
    container::{
        SpawnError,
        detach::{self, Detached, Watcher},
        files::{self, DnsOptions, Family6, HostsInput},
        guard,
        options::{EnvVar, ExtraHost, Hostname, Sysctl, User},
        spawn::{Files, Held, Main, Namespace, Output, Spec, spawn},
    },
    container_ref::ContainerRef,
    error::shown,
    kernel::{Linux, Netns},
    page,
    store::Lock,
    verbs::{Connect, Connected, ContainerState, Mode, OwnNetns, Rnet, new_id, now, started_at},
};

/// rnet itself failed, as Docker says it.
const FAILED: u8 = 125;

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        Self::new(error.to_string().replace('\n', " ")).code(error.code())
    }
}

/// Which network a container has.
enum Attachment {
    /// Networks of its own namespace.
    Networks(Vec<Connect>),
    /// The host's.
    Host,
    /// Only loopback.
    None,
    /// Another container's.
    Container(ContainerRef, String),
}

/// Everything that was asked for, parsed.
struct Wanted {
    name: Name,
    id: rnetkit_drivers::Id,
    hostname: Hostname,
    attachment: Attachment,
    detached: bool,
    remove: bool,
    dns: DnsOptions,
    extra: Vec<ExtraHost>,
    sysctls: Vec<Sysctl>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    user: Option<User>,
    command: Vec<OsString>,
}

impl Wanted {
    /// The others find it by its hostname too, as in Docker.
    fn hostname_alias(&self) -> Option<String> {
        let hostname = self.hostname.to_string();
        let other = hostname != self.name.as_str() && hostname != self.id.short();
        other.then_some(hostname).filter(|name| crate::verbs::check_alias(name).is_ok())
    }
}

/// Runs a container; returns its exit code, or at once where it is detached.
pub(super) fn run(context: &Context, args: args::Run) -> Result<u8, Failure> {
    let failed = |failure: Failure| if failure.code == 1 { failure.code(FAILED) } else { failure };
    let wanted = wanted(args).map_err(failed)?;
    if !wanted.detached {
        return start_and_watch(context, &wanted, |_| ()).map_err(failed);
    }
    let cannot = |error| failed(Failure::new(format!("cannot go to the background: {error}")));
    match detach::detach().map_err(cannot)? {
        Detached::Foreground(foreground) => match foreground.wait() {
            Ok(id) => {
                let mut out = Out::default();
                out.line(&id);
                out.finish()?;
                Ok(0)
            }
            Err(failure) => {
                let mut lines = failure.line.split('\n').map(str::to_owned);
                let line = lines.next().unwrap_or_default();
                Err(Failure { hint: lines.next(), ..Failure::new(line).code(failure.code) })
            }
        },
        Detached::Watcher(watcher) => Ok(in_background(context, &wanted, watcher)),
    }
}

fn in_background(context: &Context, wanted: &Wanted, watcher: Watcher) -> u8 {
    let mut watcher = Some(watcher);
    let result = start_and_watch(context, wanted, |id| {
        if let Some(watcher) = watcher.take() {
            watcher.started(id);
        }
    });
    match (result, watcher) {
        (Ok(code), _) => code,
        (Err(failure), Some(watcher)) => {
            let code = if failure.code == 1 { FAILED } else { failure.code };
            let line = [Some(failure.lines.join("; ")), failure.hint]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("\n");
            watcher.failed(&detach::Failure { code, line });
            code
        }
        (Err(failure), None) => failure.code,
    }
}

fn start_and_watch(context: &Context, wanted: &Wanted, started: impl FnOnce(&str)) -> Result<u8, Failure> {
    let mut rnet = context.rnet()?;
    let mut state = ContainerState {
        id: wanted.id,
        name: wanted.name.clone(),
        command: wanted.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        created: now(),
        process: None,
        namespace: None,
        exit: None,
        remove: true,
        network_of: match &wanted.attachment {
            Attachment::Host => Some("host".to_owned()),
            Attachment::Container(_, name) => Some(format!("container:{name}")),
            Attachment::Networks(_) | Attachment::None => None,
        },
    };
    let watching = rnet.begin_container(&state)?;
    let prepared = guard(context, &wanted.name);
    let running = match prepared.and_then(|()| prepare(context, &mut rnet, wanted, &mut state)) {
        Ok(running) => running,
        Err(failure) => {
            rnet.end_container(&state, FAILED)?;
            return Err(failure);
        }
    };
    started(&wanted.id.to_string());
    let code = running.wait();
    end(&mut rnet, &state, code, watching)?;
    Ok(code)
}

/// Where this process is killed before it has taken its container down, another does that at once.
fn guard(context: &Context, name: &Name) -> Result<(), Failure> {
    let take_down = || {
        if let Ok(mut rnet) = context.rnet()
            && rnet.store().is_watched(name.as_str())
        {
            // Where that fails, the next command tries again.
            drop(rnet.reap());
        }
    };
    guard::outlive(take_down).map_err(|error| Failure::new(format!("make a process: {error}")))
}

fn end(rnet: &mut Rnet<Linux>, state: &ContainerState, code: u8, watching: Lock) -> Result<(), Failure> {
    rnet.end_container(state, code)?;
    drop(watching);
    Ok(())
}

/// The process exists, then its networks, then it is let go.
fn prepare(
    context: &Context,
    rnet: &mut Rnet<Linux>,
    wanted: &Wanted,
    state: &mut ContainerState,
) -> Result<crate::container::watch::Running, Failure> {
    let held = spawn(&spec(rnet, wanted)?)?;
    state.process = started_at(held.pid()).map(|started| (held.pid(), started));
    let own = matches!(wanted.attachment, Attachment::Networks(_) | Attachment::None);
    let namespace = held.netns().try_clone_to_owned().ok().filter(|_| own);
    state.namespace = namespace.and_then(|file| OwnNetns::of(&Netns::from_file(file).ok()?));
    rnet.update_container(state)?;
    let connected = connect_all(rnet, wanted, &held)?;
    for one in &connected {
        agent::container_connected(context, &one.network, rnet.made_network());
    }
    write_files(rnet, wanted, &connected)?;
    let description = describe(wanted, &connected);
    let is_page = wanted.command.is_empty();
    let running = held.release(Some(&description).filter(|_| is_page))?;
    if is_page && !wanted.detached {
        tell_where(&connected);
    }
    state.remove = wanted.remove;
    rnet.update_container(state)?;
    Ok(running)
}

fn spec(rnet: &mut Rnet<Linux>, wanted: &Wanted) -> Result<Spec, Failure> {
    let mut words = wanted.command.iter().cloned();
    let main = match words.next() {
        Some(program) => Main::Command { program, args: words.collect() },
        None => Main::Page,
    };
    let key = wanted.name.as_str();
    let file = |name: &str| rnet.store().set_container_text(key, name, "");
    let own = Files { hosts: file("hosts")?, resolv_conf: file("resolv.conf")?, hostname: file("hostname")? };
    let log = rnet.store().container_dir(key).join("log");
    Ok(Spec {
        namespace: match &wanted.attachment {
            Attachment::Networks(_) | Attachment::None => Namespace::New,
            Attachment::Host => Namespace::Host,
            Attachment::Container(other, name) => Namespace::Join(other_namespace(rnet, other, name)?),
        },
        files: (!matches!(wanted.attachment, Attachment::Host)).then_some(own),
        hostname: Some(wanted.hostname.to_string()),
        environment: wanted.environment.clone(),
        directory: wanted.directory.clone(),
        user: wanted.user,
        sysctls: wanted.sysctls.clone(),
        output: if wanted.detached { Output::Log(log) } else { Output::Inherit },
        ..Spec::new(main)
    })
}

fn other_namespace(
    rnet: &mut Rnet<Linux>,
    other: &ContainerRef,
    name: &str,
) -> Result<std::os::fd::OwnedFd, Failure> {
    let state = rnet.container_state(other)?;
    let pid = match &state {
        Some(state) => {
            Some(state.pid().ok_or_else(|| Failure::new(format!("container {name} is not running")))?)
        }
        None => None,
    };
    let (netns, _) = other.open(pid, rnet.kernel())?;
    Ok(netns.into())
}

fn connect_all(rnet: &mut Rnet<Linux>, wanted: &Wanted, held: &Held) -> Result<Vec<Connected>, Failure> {
    match &wanted.attachment {
        Attachment::Networks(list) => {
            let mut connected = Vec::new();
            for connect in list {
                let mut connect = Connect { process: Some((held.pid(), wanted.id)), ..connect.clone() };
                connect.dns.clone_from(&wanted.dns.servers);
                connect.aliases.extend(wanted.hostname_alias());
                connected.push(rnet.connect(&connect, Mode::Do)?);
            }
            Ok(connected)
        }
        Attachment::None => {
            rnet.bring_loopback_up(
                held.netns().try_clone_to_owned().map_err(|error| Failure::new(error.to_string()))?,
            )?;
            Ok(Vec::new())
        }
        Attachment::Host | Attachment::Container(..) => Ok(Vec::new()),
    }
}

/// The texts of the container's own files, now that its addresses are known. They are mounted already, so they are
/// written in place.
fn write_files(rnet: &mut Rnet<Linux>, wanted: &Wanted, connected: &[Connected]) -> Result<(), Failure> {
    let key = wanted.name.as_str();
    let has_ipv6 = connected.iter().any(|one| one.endpoint.address(true).is_some());
    let ipv6 = if has_ipv6 { Family6::Present } else { Family6::Absent };
    let names = |one: &Connected| {
        let mut names = vec![wanted.hostname.to_string()];
        names.extend((wanted.name.as_str() != wanted.hostname.as_str()).then(|| wanted.name.to_string()));
        names
            .extend(one.endpoint.aliases.iter().filter(|alias| **alias != wanted.hostname.as_str()).cloned());
        names
    };
    let addresses = |one: &Connected| {
        let names = names(one);
        one.endpoint.addresses.iter().map(move |address| (address.ip(), names.clone())).collect::<Vec<_>>()
    };
    let gateways = connected.iter().flat_map(|one| one.network.pools.iter().filter_map(|pool| pool.gateway));
    let hosts = files::hosts(&HostsInput {
        ipv6,
        extra: wanted.extra.clone(),
        host_gateway: gateways.collect(),
        endpoints: connected.iter().flat_map(addresses).collect(),
    });
    rnet.store().set_container_text(key, "hosts", &hosts)?;
    let networks: Vec<_> = connected.iter().map(|one| &one.network).collect();
    rnet.write_resolv_conf(key, &networks, &DnsOptions { ipv6, ..wanted.dns.clone() })?;
    rnet.store().set_container_text(key, "hostname", &format!("{}\n", wanted.hostname))?;
    Ok(())
}

fn describe(wanted: &Wanted, connected: &[Connected]) -> page::Description {
    let interface = |one: &Connected| page::Interface {
        network: one.network.name.to_string(),
        bridge: rnetkit_drivers::settings(&one.network)
            .ok()
            .filter(|_| ["bridge", "overlay"].contains(&one.network.driver.as_str()))
            .map(|settings| settings.device.to_string()),
        subnets: one.network.pools.iter().map(|pool| pool.subnet.to_string()).collect(),
        gateways: one
            .network
            .pools
            .iter()
            .filter_map(|pool| pool.gateway)
            .map(|gateway| gateway.to_string())
            .collect(),
        name: one.endpoint.interface.to_string(),
        mac: Some(one.endpoint.mac.to_string()),
        addresses: one.endpoint.addresses.iter().map(ToString::to_string).collect(),
    };
    let mut ports: Vec<String> = Vec::new();
    for publication in connected.iter().flat_map(|one| &one.endpoint.ports) {
        let host = crate::error::port_text(publication.host, publication.host_ports);
        let text = format!("{host} -> {}/{}", publication.target_ports, publication.protocol);
        if !ports.contains(&text) {
            ports.push(text);
        }
    }
    page::Description {
        name: wanted.name.to_string(),
        hostname: wanted.hostname.to_string(),
        interfaces: connected.iter().map(interface).collect(),
        ports,
    }
}

/// Where the page is to be seen, for the person at the terminal.
fn tell_where(connected: &[Connected]) {
    use std::io::Write as _;
    let published = connected.iter().flat_map(|one| &one.endpoint.ports);
    let mut published = published.filter(|port| port.target_ports.contains(page::PORT));
    let address = connected.iter().find_map(|one| one.endpoint.addresses.first());
    let place = match (published.next(), address) {
        (Some(port), _) if port.host.is_unspecified() => format!("localhost:{}", port.host_ports.first),
        (Some(port), _) => rnetkit_drivers::port::socket_text(port.host, &port.host_ports.first.to_string()),
        (None, Some(address)) => rnetkit_drivers::port::socket_text(address.ip(), "80"),
        (None, None) => return,
    };
    let line =
        format!("rnet: a page about this container's network is at http://{place}/ (Ctrl-C ends it)\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Parses every word; contradictions are refused before anything is made.
fn wanted(args: args::Run) -> Result<Wanted, Failure> {
    let id = new_id()?;
    let name = match &args.name {
        Some(name) => Name::parse("container name", name)?,
        None => id.short().parse::<Name>()?,
    };
    let hostname = match &args.hostname {
        Some(text) => parse(text)?,
        None => name.as_str().parse::<Hostname>().or_else(|_| parse(&id.short()))?,
    };
    let attachment = attachment(&args, &name)?;
    refuse_conflicts(&args, &attachment)?;
    let dns = DnsOptions {
        servers: args
            .dns
            .iter()
            .map(|text| network::ip("DNS server", text))
            .collect::<Result<_, Invalid>>()?,
        search: words("DNS search domain", &args.dns_search)?,
        options: words("DNS option", &args.dns_option)?,
        ipv6: Family6::Absent,
    };
    let environment: Vec<EnvVar> = parse_all(&args.env)?;
    Ok(Wanted {
        name,
        id,
        hostname,
        attachment,
        detached: args.detach,
        remove: args.rm || !args.detach,
        dns,
        extra: parse_all(&args.add_host)?,
        sysctls: parse_all(&args.sysctl)?,
        environment: environment.iter().filter_map(EnvVar::addition).collect(),
        directory: args.workdir,
        user: args.user.as_deref().map(parse).transpose()?,
        command: args.command,
    })
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Failure::new(error.to_string()))
}

pub(super) fn parse_all<T: std::str::FromStr>(texts: &[String]) -> Result<Vec<T>, Failure>
where
    T::Err: std::fmt::Display,
{
    texts.iter().map(|text| parse(text)).collect()
}

/// Words that go into resolv.conf: nothing in them may begin another line or word.
fn words(what: &'static str, texts: &[String]) -> Result<Vec<String>, Invalid> {
    for text in texts {
        if text.is_empty()
            || text.len() > 253
            || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
        {
            return Err(Invalid::new(what, text, "only letters, digits, '.', '_', '-' and ':' are allowed"));
        }
    }
    Ok(texts.to_vec())
}

fn attachment(args: &args::Run, name: &Name) -> Result<Attachment, Failure> {
    let first = args.network.first().map(String::as_str);
    let special = match first {
        Some("host") => Some(Attachment::Host),
        Some("none") => Some(Attachment::None),
        Some(other) => match other.strip_prefix("container:") {
            Some(other) => Some(Attachment::Container(other.parse()?, shown(other))),
            None => None,
        },
        None => None,
    };
    let is_special = |text: &String| text == "host" || text == "none" || text.starts_with("container:");
    if args.network.len() > 1 && args.network.iter().any(is_special) {
        let line = "network host, none or container:NAME cannot be combined with other networks";
        return Err(Failure::new(line));
    }
    match special {
        Some(special) => Ok(special),
        None => Ok(Attachment::Networks(connections(args, name)?)),
    }
}

/// What one `--network` asks for, and on the first one what the plain options do.
fn connections(args: &args::Run, name: &Name) -> Result<Vec<Connect>, Failure> {
    let mut list = Vec::new();
    let default = ["bridge".to_owned()];
    let texts = if args.network.is_empty() { &default[..] } else { &args.network[..] };
    for text in texts {
        let connect = long_form(text, name)?;
        if list.iter().any(|other: &Connect| other.network == connect.network) {
            return Err(Failure::new(format!("network {} is given twice", shown(&connect.network))));
        }
        list.push(connect);
    }
    plain_options(args, &mut list[0])?;
    let ports =
        args.publish.iter().map(|text| text.parse()).collect::<Result<Vec<PortMapping>, Invalid>>()?;
    // Ports are published where the container has its gateway.
    let best = (0..list.len()).min_by_key(|n| {
        (
            std::cmp::Reverse(list[*n].gateway_priority),
            if list.len() > 1 { list[*n].network.clone() } else { String::new() },
        )
    });
    let best = &mut list[best.unwrap_or(0)];
    best.ports = ports;
    best.service = args.service.as_deref().map(str::parse).transpose()?;
    Ok(list)
}

fn plain_options(args: &args::Run, first: &mut Connect) -> Result<(), Failure> {
    let twice = |what: &str| Failure::new(format!("{what} is given both by itself and in --network"));
    let ip = args.ip.as_deref().map(|text| network::ip("IPv4 address", text)).transpose()?;
    let ip6 = args.ip6.as_deref().map(|text| network::ip("IPv6 address", text)).transpose()?;
    let mac: Option<MacAddress> = args.mac_address.as_deref().map(str::parse).transpose()?;
    for (given, there, what) in [
        (ip.is_some(), first.ip.is_some(), "the IPv4 address"),
        (ip6.is_some(), first.ip6.is_some(), "the IPv6 address"),
        (mac.is_some(), first.mac.is_some(), "the MAC address"),
    ] {
        if given && there {
            return Err(twice(what));
        }
    }
    first.ip = first.ip.or(ip);
    first.ip6 = first.ip6.or(ip6);
    first.mac = first.mac.or(mac);
    for alias in &args.network_alias {
        first.aliases.push(Name::parse("alias", alias)?.to_string());
    }
    Ok(())
}

/// `NETWORK`, or `name=NETWORK,ip=...,alias=...,mac-address=...,gw-priority=...`.
fn long_form(text: &str, name: &Name) -> Result<Connect, Failure> {
    let container = ContainerRef::from(name.clone());
    if !text.contains('=') {
        return Ok(Connect::new(text, container));
    }
    let refuse = |reason: String| Failure::new(format!("invalid network \"{}\": {reason}", shown(text)));
    let mut connect = Connect::new("", container);
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| refuse(format!("\"{}\" is not KEY=VALUE", shown(field))))?;
        match key.to_ascii_lowercase().as_str() {
            "name" => connect.network = value.to_owned(),
            "ip" => connect.ip = Some(network::ip("IPv4 address", value)?),
            "ip6" => connect.ip6 = Some(network::ip("IPv6 address", value)?),
            "alias" => connect.aliases.push(Name::parse("alias", value)?.to_string()),
            "mac-address" => connect.mac = Some(value.parse()?),
            "interface" => connect.interface = Some(value.parse()?),
            "gw-priority" => connect.gateway_priority = network::priority(value)?,
            "driver-opt" => connect.options.extend(network::pairs("driver option", &[value.to_owned()])?),
            other => {
                let known = "name, ip, ip6, alias, mac-address, interface, gw-priority, driver-opt";
                return Err(refuse(format!("\"{}\" is not one of {known}", shown(other))));
            }
        }
    }
    if connect.network.is_empty() {
        return Err(refuse("it has no name=".to_owned()));
    }
    Ok(connect)
}

/// Options that make no sense without a network of one's own, as Docker refuses them.
fn refuse_conflicts(args: &args::Run, attachment: &Attachment) -> Result<(), Failure> {
    let whose = match attachment {
        Attachment::Networks(_) => return Ok(()),
        Attachment::Host => "host",
        Attachment::None => "none",
        Attachment::Container(..) => "container:NAME",
    };
    let given = [
        (!args.publish.is_empty(), "--publish"),
        (args.service.is_some(), "--service"),
        (args.ip.is_some(), "--ip"),
        (args.ip6.is_some(), "--ip6"),
        (args.mac_address.is_some(), "--mac-address"),
        (!args.network_alias.is_empty(), "--network-alias"),
        (!args.sysctl.is_empty() && !matches!(attachment, Attachment::None), "--sysctl"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(Failure::new(format!("{option} cannot be combined with --network {whose}"))),
        None => Ok(()),
    }
}
