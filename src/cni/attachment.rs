//! One container's place in one network, by the key that CNI has for it: network, container id, interface. Every
//! plugin of rnet that makes interfaces stands on these few functions.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Endpoint, InterfaceName, Network, PortMapping, PortRange, Resource};

use super::{
    Request,
    failure::{Code, Failure},
    json::{Object, parse},
    networks::{Meant, TRIES},
    result::{Dns, Interface, Ip, Outcome, Route},
};
use crate::{
    container_ref::ContainerRef,
    error::Error,
    kernel::Linux,
    store::EndpointState,
    verbs::{Connect, Connected, Mode, Rnet},
};

/// Who owns what a configuration of that name made.
fn owner(request: &Request) -> String {
    format!("cni:{}", request.config.name)
}

/// The container, and the name that its second interface on the same network goes by.
fn names(request: &Request) -> Result<[ContainerRef; 2], Failure> {
    let (id, interface) = (&request.call.container, &request.call.interface);
    let name = |text: String| text.parse::<ContainerRef>().map_err(environment);
    Ok([name(format!("cni:{id}"))?, name(format!("cni:{id}:{interface}"))?])
}

/// A variable that names what rnet has no name for.
fn environment(error: rnetkit_drivers::Invalid) -> Failure {
    let variable = if error.what == "interface name" { "CNI_IFNAME" } else { "CNI_CONTAINERID" };
    Failure::new(Code::InvalidEnvironment, format!("{variable}: {error}"))
}

/// What is recorded of the attachment.
pub(super) fn find(
    rnet: &Rnet<Linux>,
    network: &Network,
    request: &Request,
) -> Result<Option<(ContainerRef, EndpointState)>, Failure> {
    for name in names(request)? {
        if let Some(state) = rnet.endpoint(network, &name.key())?
            && state.endpoint.interface.as_str() == request.call.interface
        {
            return Ok(Some((name, state)));
        }
    }
    Ok(None)
}

/// The container, its interface and who asks, and nothing else.
pub(super) fn named(request: &Request) -> Result<Connect, Failure> {
    let [name, _] = names(request)?;
    let interface: InterfaceName = request.call.interface.parse().map_err(environment)?;
    let mut wanted = Connect::new("", name);
    wanted.netns = Some(request.call.netns()?.to_owned());
    wanted.interface = Some(interface);
    wanted.owner = owner(request);
    wanted.mac = mac(request)?;
    Ok(wanted)
}

/// What the call asks for, all parsed. The network is filled in later.
pub(super) fn wanted(request: &Request) -> Result<Connect, Failure> {
    let mut wanted = named(request)?;
    wanted.ports = ports(request)?;
    wanted.aliases = aliases(request)?;
    wanted.options.extend(limits(request)?);
    for address in addresses(request)? {
        ask_for(&mut wanted, address)?;
    }
    Ok(wanted)
}

/// Asks for an address, one of each family.
pub(super) fn ask_for(wanted: &mut Connect, address: IpAddr) -> Result<(), Failure> {
    let place = if address.is_ipv6() { &mut wanted.ip6 } else { &mut wanted.ip };
    match place.replace(address).filter(|other| *other != address) {
        None => Ok(()),
        Some(other) => Err(Failure::config(format!(
            "invalid ips: {other} and {address}: one address of a family is possible"
        ))),
    }
}

/// The addresses that are asked for, by `CNI_ARGS`, `args.cni` and the capability.
pub(super) fn addresses(request: &Request) -> Result<Vec<IpAddr>, Failure> {
    let mut texts: Vec<&str> = request.call.args.ips.iter().map(String::as_str).collect();
    for object in [request.config.args()?, request.config.runtime()?].into_iter().flatten() {
        texts.extend(object.texts("ips")?);
    }
    let address = |text: &str| match text.split_once('/') {
        Some(_) => super::result::cidr("ips", text).map(|address| address.ip()),
        None => parse("ips", text, "an IP address"),
    };
    texts.into_iter().map(address).collect()
}

/// The hardware address that is asked for; the capability has the last word.
pub(super) fn mac(request: &Request) -> Result<Option<rnetkit_drivers::MacAddress>, Failure> {
    let mut text = request.call.args.mac.as_deref();
    for object in [request.config.args()?, request.config.runtime()?].into_iter().flatten() {
        text = object.text("mac")?.or(text);
    }
    text.map(|text| {
        text.parse().map_err(|error: rnetkit_drivers::Invalid| Failure::config(error.to_string()))
    })
    .transpose()
}

/// The capability `portMappings`.
pub(super) fn ports(request: &Request) -> Result<Vec<PortMapping>, Failure> {
    let Some(runtime) = request.config.runtime()? else { return Ok(Vec::new()) };
    let mut list: Vec<PortMapping> = Vec::new();
    for object in runtime.objects("portMappings")? {
        let mapping = port(&object)?;
        if !list.contains(&mapping) {
            list.push(mapping);
        }
    }
    Ok(list)
}

fn port(object: &Object<'_>) -> Result<PortMapping, Failure> {
    let number = |key: &str| -> Result<PortRange, Failure> {
        let number = object.number::<i64>(key)?.unwrap_or(0);
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.map(PortRange::one).ok_or_else(|| {
            Failure::config(format!(
                "invalid portMappings: {key}: {number} is refused: it must be a number from 1 to 65535"
            ))
        })
    };
    let host: Option<IpAddr> = object.parsed("hostIP", "an IP address")?;
    Ok(PortMapping {
        host,
        host_ports: Some(number("hostPort")?),
        container_ports: number("containerPort")?,
        protocol: object.parsed("protocol", "tcp, udp or sctp")?.unwrap_or(rnetkit_drivers::Protocol::Tcp),
    })
}

/// The limits of the configuration, and in their place those of the capability `bandwidth`.
pub(super) fn limits(request: &Request) -> Result<Vec<(String, String)>, Failure> {
    let root = request.config.root();
    for key in ["shapedSubnets", "unshapedSubnets"] {
        if !root.list(key)?.is_empty() {
            let message = format!("unsupported {key}: rnet limits all that a container receives and sends");
            return Err(Failure::new(Code::UnsupportedField, message));
        }
    }
    let mut options = bandwidth(&root)?;
    if let Some(object) =
        request.config.runtime()?.map(|runtime| runtime.object("bandwidth")).transpose()?.flatten()
    {
        options.extend(bandwidth(&object)?);
    }
    Ok(options)
}

/// Rates in bits per second and bursts in bits, as options of the driver. 0 means no limit, as if it were absent.
pub(super) fn bandwidth(object: &Object<'_>) -> Result<Vec<(String, String)>, Failure> {
    let mut options = Vec::new();
    for way in ["ingress", "egress"] {
        let number =
            |what: &str| Ok::<_, Failure>(object.number::<u64>(&format!("{way}{what}"))?.unwrap_or(0));
        let (rate, burst) = (number("Rate")?, number("Burst")?);
        if rate == 0 && burst > 0 {
            return Err(Failure::config(format!("invalid {way}Burst: there is no {way}Rate with it")));
        }
        if rate == 0 {
            continue;
        }
        options.push((format!("{way}-rate"), rate.to_string()));
        if burst > 0 {
            options.push((format!("{way}-burst"), burst.to_string()));
        }
    }
    Ok(options)
}

/// The capability `aliases`: a list of names, or one for each network as podman has it.
fn aliases(request: &Request) -> Result<Vec<String>, Failure> {
    let Some(runtime) = request.config.runtime()? else { return Ok(Vec::new()) };
    let texts = match runtime.get("aliases") {
        Some(serde_json::Value::Object(_)) => match runtime.object("aliases")? {
            Some(networks) => networks.texts(request.config.name.as_str())?,
            None => Vec::new(),
        },
        _ => runtime.texts("aliases")?,
    };
    let name = |text: &str| Ok(rnetkit_drivers::Name::parse("alias", text)?.to_string());
    texts.into_iter().map(name).collect()
}

/// Connects the container, making the network first where that is needed. When nothing comes of it, nothing is left.
pub(super) fn connect(
    rnet: &mut Rnet<Linux>,
    meant: &Meant,
    mut wanted: Connect,
    request: &Request,
) -> Result<Connected, Failure> {
    wanted.network = meant.name().to_owned();
    let mut made = false;
    for _ in 0..TRIES {
        made |= meant.ensure(rnet)?;
        if let Some(network) = meant.find(rnet)? {
            choose_name(rnet, &network, &mut wanted, request)?;
            let ports =
                std::mem::take(&mut wanted.ports).into_iter().chain(std::mem::take(&mut wanted.spare));
            (wanted.ports, wanted.spare) = rnet.part_ports(&network, &wanted.container, ports.collect())?;
        }
        match rnet.connect(&wanted, Mode::Do) {
            Ok(connected) => return Ok(connected),
            // Another that made it, and whose own container then failed, took it back.
            Err(Error::NetworkNotFound { .. }) if matches!(meant, Meant::OnFirstUse(_)) => {}
            Err(error) => {
                if made {
                    meant.take_back(rnet);
                }
                return Err(error.into());
            }
        }
    }
    Err(Error::NetworkNotFound { name: wanted.network }.into())
}

/// ADD for an interface that rnet made already is a mistake, and nothing may be taken for it.
pub(super) fn refuse_attached(rnet: &mut Rnet<Linux>, request: &Request) -> Result<(), Failure> {
    rnet.wake()?;
    let Some(network) = Meant::Made(request.config.name.to_string()).find(rnet)? else { return Ok(()) };
    match find(rnet, &network, request)? {
        // Another namespace under the same id: the container was started again, and nobody said DEL.
        Some((_, state)) if rnet.lives_at(&state, request.call.netns()?) => Err(Error::AlreadyConnected {
            container: state.endpoint.container.name,
            network: network.name.to_string(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Whether the firewall can be asked at all.
pub(super) fn refuse_without_firewall(rnet: &mut Rnet<Linux>) -> Result<(), Failure> {
    Ok(rnet.refuse_without_firewall()?)
}

/// Looks at the namespace before anything is made for it.
pub(super) fn refuse_namespace(
    rnet: &mut Rnet<Linux>,
    wanted: &Connect,
    request: &Request,
) -> Result<(), Failure> {
    wanted.container.open_at(request.call.netns()?.to_owned(), rnet.kernel())?;
    Ok(())
}

/// A second interface of a container on the same network needs a name of its own.
fn choose_name(
    rnet: &Rnet<Linux>,
    network: &Network,
    wanted: &mut Connect,
    request: &Request,
) -> Result<(), Failure> {
    let [plain, long] = names(request)?;
    let other = rnet.endpoint(network, &plain.key())?;
    let is_other = |state: &EndpointState| state.endpoint.interface.as_str() != request.call.interface;
    wanted.container = if other.as_ref().is_some_and(is_other) { long } else { plain };
    Ok(())
}

/// Disconnects by the record alone. Whoever is not there is gone already.
pub(super) fn disconnect(rnet: &mut Rnet<Linux>, meant: &str, request: &Request) -> Result<(), Failure> {
    let network = match rnet.network(meant) {
        Ok(network) => network,
        Err(Error::NetworkNotFound { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let [plain, _] = names(request)?;
    let name = find(rnet, &network, request)?.map_or(plain, |(name, _)| name);
    let other = rnet.endpoint(&network, &name.key())?;
    if other.is_some_and(|state| state.endpoint.interface.as_str() != request.call.interface) {
        return Ok(());
    }
    match rnet.disconnect(meant, &name, Mode::Do) {
        Ok(_) => Ok(rnet.use_spare(&name)?),
        Err(Error::NotConnected { .. } | Error::NetworkNotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Compares the kernel with the record, and the record with what the runtime remembers.
pub(super) fn check(
    rnet: &mut Rnet<Linux>,
    meant: &Meant,
    request: &Request,
) -> Result<EndpointState, Failure> {
    let unknown = || {
        let (id, interface) = (&request.call.container, &request.call.interface);
        let message = format!("container {id} has no {interface} on network {}", meant.name());
        Failure::new(Code::UnknownContainer, message)
    };
    rnet.wake()?;
    let network = meant.find(rnet)?.ok_or_else(unknown)?;
    let (_, state) = find(rnet, &network, request)?.ok_or_else(unknown)?;
    let differences = rnet.check_endpoint(&state)?;
    let mut texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    texts.extend(remembered_otherwise(&state.endpoint, request)?);
    match texts.split_first() {
        None => Ok(state),
        Some((first, more)) => Err(Failure::new(Code::Differs, first.clone()).details(more.join("; "))),
    }
}

/// What the runtime remembers of the interface and what is not recorded so.
fn remembered_otherwise(endpoint: &Endpoint, request: &Request) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    let interface = endpoint.interface.as_str();
    if let Some(previous) = request.config.previous()? {
        let is_own = |ip: &&Ip| {
            let holder = ip.interface.and_then(|index| previous.interfaces.get(index));
            holder.is_none_or(|holder| holder.name == interface && holder.sandbox.is_some())
        };
        let missing =
            previous.ips.iter().filter(is_own).filter(|ip| !endpoint.addresses.contains(&ip.address));
        texts.extend(
            missing.map(|ip| format!("{interface}: prevResult has {}, which rnet did not give", ip.address)),
        );
    }
    for mapping in ports(request)?.into_iter().filter(|port| !endpoint.spare.contains(port)) {
        let is_there = endpoint.ports.iter().any(|port| {
            Some(port.host_ports) == mapping.host_ports
                && port.target_ports == mapping.container_ports
                && port.protocol == mapping.protocol
        });
        if !is_there {
            texts.push(format!("{interface}: port {mapping} is not published"));
        }
    }
    Ok(texts)
}

/// Takes back what the runtime no longer knows; where it does not say what it knows, what is dead.
pub(super) fn collect(
    rnet: &mut Rnet<Linux>,
    meant: &str,
    request: &Request,
) -> Result<Vec<EndpointState>, Failure> {
    let network = match rnet.network(meant) {
        Ok(network) => network,
        Err(Error::NetworkNotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let valid = request.config.valid()?;
    let owner = owner(request);
    let goes = |state: &EndpointState, lives: bool| {
        let interface = state.endpoint.interface.as_str();
        let is_valid = valid.as_ref().map(|list| {
            list.iter().any(|one| Some(one.container.as_str()) == id_of(state) && one.interface == interface)
        });
        state.owner == owner && !is_valid.unwrap_or(lives)
    };
    Ok(rnet.collect(&network, goes)?)
}

/// The id that the runtime has for the container.
pub(super) fn id_of(state: &EndpointState) -> Option<&str> {
    state.endpoint.container.name.strip_prefix("cni:")?.split(':').next()
}

/// Whether another container could be added now.
pub(super) fn status(rnet: &mut Rnet<Linux>, meant: &Meant) -> Result<(), Failure> {
    let not_available = |failure: Failure| failure.because(Code::NotAvailable);
    rnet.wake().map_err(|error| not_available(error.into()))?;
    match (meant.find(rnet).map_err(not_available)?, meant) {
        (Some(network), _) => rnet.refuse_full(&network).map_err(|error| not_available(error.into())),
        (None, Meant::OnFirstUse(wanted)) => {
            let made = rnet.create((**wanted).clone(), Mode::Show);
            made.map(drop).map_err(|error| not_available(error.into()))
        }
        (None, Meant::Made(name)) => Err(not_available(Error::NetworkNotFound { name: name.clone() }.into())),
    }
}

/// What ADD prints: the bridge, the host's end, the container's end, in this order, which other plugins rely on.
pub(super) fn outcome(network: &Network, endpoint: &Endpoint, request: &Request) -> Result<Outcome, Failure> {
    let driver = rnetkit_drivers::driver(&network.driver);
    let mut made = driver.map(|driver| driver.network(network)).transpose()?.unwrap_or_default();
    made.extend(driver.map(|driver| driver.endpoint(network, endpoint)).transpose()?.unwrap_or_default());
    let mut interfaces: Vec<Interface> = made.iter().filter_map(on_the_host).collect();
    let mtu = made.iter().find_map(|resource| match resource {
        Resource::Veth { mtu, .. } => Some(*mtu),
        Resource::Child(child) => child.mtu,
        _ => None,
    });
    interfaces.push(Interface {
        name: endpoint.interface.to_string(),
        mac: Some(endpoint.mac.to_string()),
        mtu,
        sandbox: request.call.netns.as_ref().map(|path| path.to_string_lossy().into_owned()),
    });
    let own = interfaces.len() - 1;
    let gateway = |address: &IpNetwork| {
        let pool = network.pools.iter().find(|pool| pool.subnet.contains(address.ip()));
        pool.and_then(|pool| pool.gateway)
    };
    let ips = endpoint.addresses.iter();
    let ips = ips.map(|address| Ip { interface: Some(own), address: *address, gateway: gateway(address) });
    Ok(Outcome {
        ips: ips.collect(),
        interfaces,
        routes: endpoint.gateways.iter().copied().map(Route::default).collect(),
        dns: dns_on(network, request)?,
    })
}

fn on_the_host(resource: &Resource) -> Option<Interface> {
    match resource {
        Resource::Bridge { name, mac, mtu, .. } => Some(Interface {
            name: name.to_string(),
            mac: Some(mac.to_string()),
            mtu: Some(*mtu),
            sandbox: None,
        }),
        Resource::Veth { name, mtu, .. } => {
            Some(Interface { name: name.to_string(), mac: None, mtu: Some(*mtu), sandbox: None })
        }
        _ => None,
    }
}

/// Without any of the configuration or the runtime, those of the network, where it answers names.
fn dns_on(network: &Network, request: &Request) -> Result<Dns, Failure> {
    let mut dns = dns(request)?;
    if dns.nameservers.is_empty() {
        let servers = crate::verbs::name_servers(network)?;
        dns.nameservers = servers.iter().map(ToString::to_string).collect();
    }
    Ok(dns)
}

/// The configuration's resolver settings, or the runtime's by the capability `dns`.
pub(super) fn dns(request: &Request) -> Result<Dns, Failure> {
    let own = Dns::read(request.config.root().object("dns")?)?;
    let Some(object) = request.config.runtime()?.map(|runtime| runtime.object("dns")).transpose()?.flatten()
    else {
        return Ok(own);
    };
    let texts = |key| Ok::<_, Failure>(object.texts(key)?.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let or = |asked: Vec<String>, own: Vec<String>| if asked.is_empty() { own } else { asked };
    Ok(Dns {
        nameservers: or(texts("servers")?, own.nameservers),
        search: or(texts("searches")?, own.search),
        options: or(texts("options")?, own.options),
        domain: own.domain,
    })
}
