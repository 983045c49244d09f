//! `host-local`: addresses from ranges, kept in files of the form that all plugins of this name share, so that they
//! can take turns on one directory: a file for each address, named by it, with the container's id and interface.
//!
//! Beside them, in `.rnet`, a file for each interface names its addresses, so that nobody has to read all files to
//! find them. It is an index: the files of the addresses have the last word.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::{
    Plugin, Request, attachment,
    failure::{Code, Failure},
    json::Object,
    result::{Dns, Ip, Outcome, Route, cidr},
};
use crate::{ipam, store::EndpointState};

pub(super) struct HostLocal;

impl Plugin for HostLocal {
    fn add(&self, request: &Request) -> Result<Value, Failure> {
        Ok(take(request, Repeated::Refused)?.json(request.config.version))
    }

    fn del(&self, request: &Request) -> Result<(), Failure> {
        give_back(request)
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        check(request)
    }

    fn gc(&self, request: &Request) -> Result<(), Failure> {
        collect(request, &[])
    }

    fn status(&self, request: &Request) -> Result<(), Failure> {
        status(request)
    }
}

/// What it means that the interface has addresses already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    /// A mistake.
    Refused,
    /// A killed call took them: the caller knows that there is no interface.
    Again,
}

/// A range of addresses.
#[derive(Debug, Clone)]
struct Range {
    subnet: IpNetwork,
    start: u128,
    end: u128,
    gateway: IpAddr,
}

impl Range {
    fn read(object: &Object<'_>) -> Result<Self, Failure> {
        let text =
            object.text("subnet")?.ok_or_else(|| Failure::config("invalid ranges: a range has no subnet"))?;
        let subnet = cidr("subnet", text)?;
        let host_bits = if subnet.is_ipv6() { 128 - subnet.prefix() } else { 32 - subnet.prefix() };
        if subnet.ip() != subnet.network() {
            return Err(Failure::config(format!(
                "invalid subnet: {subnet} has host bits: it should be {}/{}",
                subnet.network(),
                subnet.prefix()
            )));
        }
        if host_bits < 2 {
            return Err(Failure::config(format!(
                "invalid subnet: {subnet} is too small to give out addresses"
            )));
        }
        let size = 1u128.checked_shl(u32::from(host_bits)).map_or(u128::MAX, |size| size - 1);
        let last = if subnet.is_ipv6() { size } else { size - 1 };
        let offset = |key: &str, default: u128| -> Result<u128, Failure> {
            let Some(address) = object.parsed::<IpAddr>(key, "an IP address")? else { return Ok(default) };
            ipam::offset_of(&subnet, address).filter(|offset| (1..=last).contains(offset)).ok_or_else(|| {
                Failure::config(format!("invalid {key}: {address} cannot be given out in {subnet}"))
            })
        };
        let (start, end) = (offset("rangeStart", 1)?, offset("rangeEnd", last)?);
        if start > end {
            return Err(Failure::config(format!(
                "invalid rangeEnd: the range of {subnet} ends before it begins"
            )));
        }
        let gateway = match object.parsed("gateway", "an IP address")? {
            Some(gateway) => gateway,
            None => ipam::address_at(&subnet, 1)
                .ok_or_else(|| Failure::config(format!("invalid subnet: {subnet}")))?,
        };
        Ok(Self { subnet, start, end, gateway })
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        ipam::offset_of(&self.subnet, address).filter(|offset| (self.start..=self.end).contains(offset))
    }
}

/// Ranges of which each interface gets one address.
struct Set(Vec<Range>);

impl Set {
    fn name(&self) -> String {
        let name = |range: &Range| {
            let end = |offset| {
                ipam::address_at(&range.subnet, offset).map_or_else(String::new, |ip| ip.to_string())
            };
            format!("{}-{}", end(range.start), end(range.end))
        };
        self.0.iter().map(name).collect::<Vec<_>>().join(",")
    }

    fn has(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.offset(address).is_some())
    }

    /// Every address, from the one after `last` on and round to it.
    fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let at = last
            .and_then(|last| self.0.iter().position(|range| range.offset(last).is_some()).zip(Some(last)));
        let (first, from) = match at {
            Some((index, last)) => {
                (index, self.0[index].offset(last).map_or(self.0[index].start, |offset| offset + 1))
            }
            None => (0, self.0[0].start),
        };
        let rest = self.0.iter().cycle().skip(first + 1).take(self.0.len().saturating_sub(1));
        let head = std::iter::once((&self.0[first], from..=self.0[first].end));
        let middle = rest.map(|range| (range, range.start..=range.end));
        let tail = std::iter::once((&self.0[first], self.0[first].start..=from.saturating_sub(1)));
        head.chain(middle).chain(tail).flat_map(|(range, offsets)| {
            offsets.filter_map(move |offset| Some((ipam::address_at(&range.subnet, offset)?, range)))
        })
    }
}

/// The directory of a network, locked.
struct Folder {
    path: PathBuf,
    own: String,
    _lock: fs::File,
}

/// What an address's file says.
fn owner_text(container: &str, interface: &str) -> String {
    format!("{container}\r\n{interface}")
}

impl Folder {
    fn open(request: &Request) -> Result<Self, Failure> {
        let path = folder(request)?;
        let failed = |error: io::Error| Failure::new(Code::Io, format!("{}: {error}", path.display()));
        fs::create_dir_all(path.join(".rnet")).map_err(failed)?;
        let lock =
            fs::OpenOptions::new().create(true).append(true).open(path.join("lock")).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
        let own = owner_text(&request.call.container, &request.call.interface);
        Ok(Self { path, own, _lock: lock })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(Code::Io, format!("{}: {error}", self.path.display()))
    }

    fn index(&self, owner: &str) -> PathBuf {
        self.path.join(".rnet").join(owner.replace("\r\n", ":"))
    }

    /// Whether the file of an address says that it is the owner's. Older ones name the container alone.
    fn is_of(&self, address: IpAddr, owner: &str) -> bool {
        let text = fs::read_to_string(self.path.join(address.to_string())).unwrap_or_default();
        let text = text.trim();
        !text.is_empty() && (text == owner || owner.split("\r\n").next() == Some(text))
    }

    /// The addresses of an interface: by the index, and where that says nothing, by reading all files.
    fn of(&self, owner: &str) -> Result<Vec<IpAddr>, Failure> {
        if let Ok(text) = fs::read_to_string(self.index(owner)) {
            let list = text.lines().filter_map(|line| line.parse().ok());
            let list: Vec<IpAddr> = list.filter(|address| self.is_of(*address, owner)).collect();
            if !list.is_empty() {
                return Ok(list);
            }
        }
        Ok(self.all()?.into_iter().filter(|address| self.is_of(*address, owner)).collect())
    }

    /// Every address that has a file.
    fn all(&self) -> Result<Vec<IpAddr>, Failure> {
        let entries = fs::read_dir(&self.path).map_err(|error| self.failed(&error))?;
        let mut list: Vec<IpAddr> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        list.sort_unstable();
        Ok(list)
    }

    /// Takes an address, if nobody has it. A file without a word in it belongs to nobody: whoever made it was killed.
    fn take(&self, address: IpAddr) -> Result<bool, Failure> {
        let place = self.path.join(address.to_string());
        let fresh = self.path.join(".rnet").join(".fresh");
        let taken = fs::write(&fresh, &self.own).and_then(|()| fs::hard_link(&fresh, &place));
        let done = match taken {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match fs::metadata(&place).map_err(|error| self.failed(&error))?.len() {
                    0 => fs::rename(&fresh, &place).map(|()| true),
                    _ => Ok(false),
                }
            }
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        };
        let _ = fs::remove_file(&fresh);
        done.map_err(|error| self.failed(&error))
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        fs::metadata(self.path.join(address.to_string())).is_ok_and(|data| data.len() > 0)
    }

    fn free(&self, addresses: &[IpAddr]) -> Result<(), Failure> {
        for address in addresses {
            match fs::remove_file(self.path.join(address.to_string())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed(&error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets an interface with all its addresses.
    fn release(&self, owner: &str) -> Result<(), Failure> {
        self.free(&self.of(owner)?)?;
        let _ = fs::remove_file(self.index(owner));
        Ok(())
    }

    fn last(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_path(set)).ok()?.trim().parse().ok()
    }

    fn last_path(&self, set: usize) -> PathBuf {
        self.path.join(format!("last_reserved_ip.{set}"))
    }

    /// One address of the set: that which is asked for, or the next.
    fn choose(&self, number: usize, set: &Set, asked: &[IpAddr]) -> Result<Ip, Failure> {
        let leased = |address: IpAddr, range: &Range| -> Result<Ip, Failure> {
            let address = IpNetwork::new(address, range.subnet.prefix())
                .map_err(|error| Failure::config(error.to_string()))?;
            Ok(Ip { interface: None, address, gateway: Some(range.gateway) })
        };
        if let Some((address, range)) = asked.iter().find_map(|ip| Some((*ip, set.has(*ip)?))) {
            if address == range.gateway {
                return Err(Failure::config(format!(
                    "address {address} cannot be given out: it is the gateway"
                )));
            }
            if !self.take(address)? {
                let message = format!("address {address} is in use on network {}", self.path.display());
                return Err(Failure::new(Code::Taken, message));
            }
            return leased(address, range);
        }
        for (address, range) in set.after(self.last(number)) {
            if address != range.gateway && self.take(address)? {
                let kept = fs::write(self.last_path(number), address.to_string());
                kept.map_err(|error| self.failed(&error))?;
                return leased(address, range);
            }
        }
        Err(full(set, &self.path))
    }
}

fn full(set: &Set, path: &Path) -> Failure {
    Failure::new(Code::TryAgain, format!("no address is free in {} ({})", set.name(), path.display()))
}

fn ipam(request: &Request) -> Result<Object<'_>, Failure> {
    request.config.root().object("ipam")?.ok_or_else(|| Failure::config("the configuration has no ipam"))
}

fn folder(request: &Request) -> Result<PathBuf, Failure> {
    let base = match request.config.root().object("ipam")? {
        Some(ipam) => ipam.text("dataDir")?,
        None => None,
    };
    Ok(Path::new(base.unwrap_or("/var/lib/cni/networks")).join(request.config.name.as_str()))
}

fn sets(request: &Request) -> Result<Vec<Set>, Failure> {
    let ipam = ipam(request)?;
    let mut sets = Vec::new();
    if ipam.get("subnet").is_some() {
        sets.push(Set(vec![Range::read(&ipam)?]));
    }
    let mut lists = Vec::new();
    if let Some(runtime) = request.config.runtime()? {
        lists.extend(runtime.list("ipRanges")?);
    }
    lists.extend(ipam.list("ranges")?);
    for list in lists {
        let list =
            list.as_array().ok_or_else(|| Failure::config("invalid ranges: it must be a list of lists"))?;
        let range = |value: &Value| Range::read(&Object::of(value, "ranges")?);
        sets.push(Set(list.iter().map(range).collect::<Result<_, _>>()?));
    }
    sets.retain(|set| !set.0.is_empty());
    if sets.is_empty() {
        return Err(Failure::config("host-local: no range is given, neither as subnet nor as ranges"));
    }
    let subnets: Vec<IpNetwork> =
        sets.iter().flat_map(|set| set.0.iter().map(|range| range.subnet)).collect();
    for (number, subnet) in subnets.iter().enumerate() {
        if let Some(other) =
            subnets[..number].iter().find(|other| ipam::overlaps(other, subnet) && *other != subnet)
        {
            return Err(Failure::config(format!("invalid ranges: {subnet} overlaps {other}")));
        }
    }
    Ok(sets)
}

/// Takes one address of each set, or none at all.
pub(super) fn take(request: &Request, repeated: Repeated) -> Result<Outcome, Failure> {
    let ipam = ipam(request)?;
    let sets = sets(request)?;
    let routes = ipam.objects("routes")?.iter().map(Route::read).collect::<Result<_, _>>()?;
    let dns = ipam.text("resolvConf")?.map(resolver).transpose()?.unwrap_or_default();
    let asked = attachment::addresses(request)?;
    if let Some(foreign) = asked.iter().find(|ip| !sets.iter().any(|set| set.has(**ip).is_some())) {
        return Err(Failure::config(format!(
            "address {foreign} is in no range of network {}",
            request.config.name
        )));
    }
    let folder = Folder::open(request)?;
    if folder.index(&folder.own).exists() || repeated == Repeated::Refused {
        let had = folder.of(&folder.own)?;
        if repeated == Repeated::Refused && !had.is_empty() {
            let message = format!(
                "{} of container {} has {} already",
                request.call.interface, request.call.container, had[0]
            );
            return Err(Failure::new(Code::Taken, message));
        }
        folder.free(&had)?;
    }
    let mut ips: Vec<Ip> = Vec::new();
    for (number, set) in sets.iter().enumerate() {
        match folder.choose(number, set, &asked) {
            Ok(ip) => ips.push(ip),
            Err(failure) => {
                folder.free(&ips.iter().map(|ip| ip.address.ip()).collect::<Vec<_>>())?;
                return Err(failure);
            }
        }
    }
    let lines: String = ips.iter().map(|ip| format!("{}\n", ip.address.ip())).collect();
    // Without the index the files of the addresses are found as well, only later.
    let _ = fs::write(folder.index(&folder.own), lines);
    Ok(Outcome { interfaces: Vec::new(), ips, routes, dns })
}

pub(super) fn give_back(request: &Request) -> Result<(), Failure> {
    if !folder(request)?.exists() {
        return Ok(());
    }
    let folder = Folder::open(request)?;
    folder.release(&folder.own)
}

pub(super) fn check(request: &Request) -> Result<(), Failure> {
    let (id, interface) = (&request.call.container, &request.call.interface);
    let nothing =
        || Failure::new(Code::Differs, format!("{interface} of container {id} has no address on record"));
    if !folder(request)?.exists() {
        return Err(nothing());
    }
    let folder = Folder::open(request)?;
    if folder.of(&folder.own)?.is_empty() { Err(nothing()) } else { Ok(()) }
}

/// Frees what is not valid; where the runtime does not say what is, the addresses of those who are gone for sure.
pub(super) fn collect(request: &Request, gone: &[EndpointState]) -> Result<(), Failure> {
    if !folder(request)?.exists() {
        return Ok(());
    }
    let valid = request.config.valid()?;
    let folder = Folder::open(request)?;
    for state in gone {
        let container = attachment::id_of(state).unwrap_or_default();
        folder.release(&owner_text(container, state.endpoint.interface.as_str()))?;
    }
    let Some(valid) = valid else { return Ok(()) };
    let valid: Vec<String> = valid.iter().map(|one| owner_text(&one.container, &one.interface)).collect();
    for address in folder.all()? {
        if !valid.iter().any(|owner| folder.is_of(address, owner)) {
            folder.free(&[address])?;
        }
    }
    let entries = fs::read_dir(folder.path.join(".rnet")).map_err(|error| folder.failed(&error))?;
    for entry in entries.flatten() {
        let owner = entry.file_name().to_string_lossy().replace(':', "\r\n");
        if !valid.contains(&owner) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

pub(super) fn status(request: &Request) -> Result<(), Failure> {
    let sets = sets(request).map_err(|failure| failure.because(Code::NotAvailable))?;
    if !folder(request)?.exists() {
        return Ok(());
    }
    let folder = Folder::open(request)?;
    for (number, set) in sets.iter().enumerate() {
        let free =
            |(address, range): &(IpAddr, &Range)| *address != range.gateway && !folder.is_taken(*address);
        if !set.after(folder.last(number)).any(|one| free(&one)) {
            return Err(full(set, &folder.path).because(Code::NotAvailable));
        }
    }
    Ok(())
}

/// The settings of a file in the form of `resolv.conf(5)`.
fn resolver(path: &str) -> Result<Dns, Failure> {
    const LONGEST: usize = 64 * 1024;
    let mut bytes =
        fs::read(path).map_err(|error| Failure::new(Code::Io, format!("resolvConf {path}: {error}")))?;
    bytes.truncate(LONGEST);
    let mut dns = Dns::default();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let mut words = line.split_whitespace();
        let word = words.next();
        let rest = words.map(str::to_owned);
        match word {
            Some("nameserver") => dns.nameservers.extend(rest.take(1)),
            Some("domain") => dns.domain = rest.into_iter().next(),
            Some("search") => dns.search.extend(rest),
            Some("options") => dns.options.extend(rest),
            _ => {}
        }
    }
    Ok(dns)
}
