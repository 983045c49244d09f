//! Everything on a host that rnet could leave behind, as lines that can be compared. Changes nothing.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What a host consists of, section by section.
#[derive(Clone, PartialEq)]
pub struct Snapshot(BTreeMap<&'static str, Vec<String>>);

impl Snapshot {
    /// Of the host whose namespaces the calling thread is in.
    pub fn take() -> Self {
        let mut sections = BTreeMap::from([
            ("link", json_lines(&["-d", "-j", "link"])),
            ("address", json_lines(&["-j", "address"])),
            ("route", json_lines(&["-j", "-4", "route", "show", "table", "all"])),
            ("route6", json_lines(&["-j", "-6", "route", "show", "table", "all"])),
            ("rule", json_lines(&["-j", "-4", "rule"])),
            ("rule6", json_lines(&["-j", "-6", "rule"])),
            ("sysctl", sysctls()),
            ("mount", mounts()),
            ("file", files()),
        ]);
        sections.values_mut().for_each(|lines| lines.sort());
        // The order of rules within the ruleset means something.
        sections.insert("nft", ruleset());
        Self(sections)
    }

    /// What is no longer there and what is there in addition; nothing if they are equal.
    pub fn difference(&self, later: &Self) -> Option<String> {
        let mut text = String::new();
        for (section, before) in &self.0 {
            let after = later.0.get(section).map(Vec::as_slice).unwrap_or_default();
            for line in before.iter().filter(|line| !after.contains(line)) {
                let _ = writeln!(text, "  gone   {section}: {line}");
            }
            for line in after.iter().filter(|line| !before.contains(line)) {
                let _ = writeln!(text, "  extra  {section}: {line}");
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

/// One line for each object that `ip` knows, without what changes by itself.
fn json_lines(words: &[&str]) -> Vec<String> {
    let output = Command::new("ip").args(words).output().expect("ip runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    objects
        .into_iter()
        .filter(|object| object.as_object().is_none_or(|o| !o.is_empty()))
        .map(stable)
        .collect()
}

fn stable(mut object: Value) -> String {
    forget_what_changes(&mut object);
    let name = object["ifname"].as_str().or(object["dst"].as_str()).unwrap_or_default().to_owned();
    format!("{name} {object}")
}

/// Members that change by themselves.
const CHANGES: [&str; 3] = ["operstate", "preferred_life_time", "expires"];
/// Flags that follow the other end of a cable, and that late: the kernel's link watch runs up to a second behind.
const CARRIER: [&str; 4] = ["NO-CARRIER", "LOWER_UP", "M-DOWN", "linkdown"];

fn forget_what_changes(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| !key.contains("timer") && !CHANGES.contains(&key.as_str()));
            members.values_mut().for_each(forget_what_changes);
        }
        Value::Array(items) => {
            items.retain(|item| item.as_str().is_none_or(|flag| !CARRIER.contains(&flag)));
            items.iter_mut().for_each(forget_what_changes);
        }
        _ => {}
    }
}

/// The firewall as `nft` lists it, without counters; nothing where `nft` is not installed.
pub fn ruleset() -> Vec<String> {
    let Ok(output) = Command::new("nft").args(["-s", "list", "ruleset"]).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// All that can be set about the network, forwarding first of all.
fn sysctls() -> Vec<String> {
    let mut lines = Vec::new();
    for folder in ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/bridge"] {
        for path in walk(Path::new(folder)) {
            if let Ok(text) = fs::read_to_string(&path) {
                lines.push(format!("{} = {}", path.display(), text.trim()));
            }
        }
    }
    lines
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let named = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        format!("{} of {}", words.get(4).unwrap_or(&""), words.get(3).unwrap_or(&""))
    };
    // Named namespaces come and go with the test itself.
    table.lines().map(named).filter(|mount| !mount.starts_with("/run/netns/")).collect()
}

/// The files that rnet keeps; who the host is and locks may stay, empty folders as well.
fn files() -> Vec<String> {
    let folders = ["/run/rnet", "/var/lib/rnet", "/etc/netns"];
    let paths = folders.iter().flat_map(|folder| walk(Path::new(folder)));
    paths.filter(|path| !may_stay(path)).map(|path| path.display().to_string()).collect()
}

fn may_stay(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name == "host.json" || name == "lock" || name.ends_with(".lock")
}

/// The settings of a link that is a port of a bridge: a hundred files for each of a thousand containers.
/// A port that is left is seen as a link.
fn is_bridge_port(folder: &Path) -> bool {
    let link = folder.file_name().unwrap_or_default();
    folder.starts_with("/proc/sys/net") && Path::new("/sys/class/net").join(link).join("brport").exists()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && is_bridge_port(&entry.path()) => {}
            Ok(kind) if kind.is_dir() => found.extend(walk(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}
