//! Networks and endpoints as Docker shows them.

use std::time::{Duration, UNIX_EPOCH};

use rnetkit_drivers::{
    Network, Publication, bandwidth,
    bridge::{EndpointSettings, Settings},
    model::Escaped,
};
use serde_json::{Map, Value, json};

use crate::store::EndpointState;

/// A network as `docker network inspect` shows it.
pub(super) fn network(network: &Network, endpoints: &[EndpointState]) -> Value {
    let containers: Map<String, Value> =
        endpoints.iter().map(|state| (state.endpoint.container.id.to_string(), endpoint(state))).collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.has_family(false),
        "EnableIPv6": network.has_family(true),
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options,
            "Config": network.pools.iter().map(pool).collect::<Vec<_>>(),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options(network),
        "Labels": network.labels,
    })
}

fn pool(pool: &rnetkit_drivers::Pool) -> Value {
    let mut shown = Map::new();
    shown.insert("Subnet".to_owned(), json!(pool.subnet));
    if let Some(range) = pool.range {
        shown.insert("IPRange".to_owned(), json!(range));
    }
    if let Some(gateway) = pool.gateway {
        shown.insert("Gateway".to_owned(), json!(gateway));
    }
    if !pool.aux.is_empty() {
        shown.insert("AuxiliaryAddresses".to_owned(), json!(pool.aux));
    }
    Value::Object(shown)
}

/// The options as given; the network that nobody made shows those it works with, as Docker's does.
fn options(network: &Network) -> Value {
    match (network.name.as_str(), Settings::of(network)) {
        ("bridge", Ok(settings)) => json!({
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": settings.icc.to_string(),
            "com.docker.network.bridge.enable_ip_masquerade": settings.masquerade.to_string(),
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            "com.docker.network.bridge.name": settings.device.as_str(),
            "com.docker.network.driver.mtu": settings.mtu.to_string(),
        }),
        _ => json!(network.options),
    }
}

/// An endpoint as `docker network inspect` shows it under `Containers`, and what rnet adds.
pub(super) fn endpoint(state: &EndpointState) -> Value {
    let endpoint = &state.endpoint;
    let address = |ipv6| endpoint.address(ipv6).map(|address| address.to_string()).unwrap_or_default();
    let mut shown = json!({
        "Name": endpoint.container.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": address(false),
        "IPv6Address": address(true),
        "Ports": ports(&endpoint.ports),
        "Interface": endpoint.interface,
        "NetNS": endpoint.container.netns,
        "Owner": state.owner,
    });
    let service = endpoint.ports.iter().find_map(|port| port.service.as_ref());
    if let (Some(share), Some(shown)) = (service, shown.as_object_mut()) {
        let service = json!({ "Name": share.name, "Weight": share.weight, "Balance": share.balance });
        shown.insert("Service".to_owned(), service);
    }
    let limits = EndpointSettings::read(&endpoint.options).map(|settings| bandwidth::shown(&settings.limits));
    let limits: Map<String, Value> =
        limits.unwrap_or_default().into_iter().map(|(name, value)| (name, json!(value))).collect();
    if let (false, Some(shown)) = (limits.is_empty(), shown.as_object_mut()) {
        shown.insert("Limits".to_owned(), Value::Object(limits));
    }
    shown
}

/// Published ports by the container's port: `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}`.
fn ports(list: &[Publication]) -> Value {
    let mut shown: Map<String, Value> = Map::new();
    for (port, address, host) in pairs(list) {
        let entry = shown.entry(port).or_insert_with(|| json!([]));
        if let Some(list) = entry.as_array_mut() {
            list.push(json!({ "HostIp": address, "HostPort": host.to_string() }));
        }
    }
    Value::Object(shown)
}

/// Each published port by itself: `80/tcp`, the host's address, the host's port; in natural order.
pub(super) fn pairs(list: &[Publication]) -> Vec<(String, std::net::IpAddr, u16)> {
    let mut pairs: Vec<(u16, String, std::net::IpAddr, u16)> = Vec::new();
    for publication in list {
        let ports = publication.target_ports.first..=publication.target_ports.last;
        let hosts = publication.host_ports.first..=publication.host_ports.last;
        pairs.extend(
            ports.zip(hosts).map(|(port, host)| {
                (port, format!("{port}/{}", publication.protocol), publication.host, host)
            }),
        );
    }
    pairs.sort();
    pairs.into_iter().map(|(_, port, address, host)| (port, address, host)).collect()
}

/// Published ports in one line, as `docker ps` shows them: ranges stay ranges.
pub(super) fn ports_line(list: &[Publication]) -> String {
    let one = |publication: &Publication| {
        let host = rnetkit_drivers::port::socket_text(publication.host, &publication.host_ports.to_string());
        format!("{host}->{}/{}", publication.target_ports, publication.protocol)
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A line of `network ls`: every field a text, as Docker has it.
pub(super) fn listed(network: &Network, in_full: bool) -> Value {
    let labels: Vec<String> =
        network.labels.iter().map(|(key, value)| Escaped(&format!("{key}={value}")).to_string()).collect();
    json!({
        "CreatedAt": time(network.created),
        "Driver": network.driver,
        "ID": if in_full { network.id.to_string() } else { network.id.short() },
        "IPv4": has_ipv4(network).to_string(),
        "IPv6": network.has_family(true).to_string(),
        "Internal": network.internal.to_string(),
        "Labels": labels.join(","),
        "Name": network.name,
        "Scope": "local",
    })
}

/// The pre-defined bridge gets its IPv4 subnet when it is first used.
fn has_ipv4(network: &Network) -> bool {
    network.has_family(false) || network.name.as_str() == "bridge"
}

/// Nanoseconds since 1970 as RFC 3339 writes them.
pub(super) fn time(nanoseconds: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(nanoseconds)).to_string()
}
