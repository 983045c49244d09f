//! The interface of a device, by the device's place on its bus. Reads sysfs, and changes nothing.

use std::{fs, path::Path};

use super::Refusal;

/// Where devices have their places: PCI, and functions of such devices.
const BUSES: [&str; 2] = ["/sys/bus/pci/devices", "/sys/bus/auxiliary/devices"];

/// The interface of the device, which has one only.
///
/// # Errors
/// When there is no such device, or it has no interface here.
pub fn interface_of_device(id: &str) -> Result<String, Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    let missing = |why: &str| Refusal::because(libc::ENODEV, format!("{} {why}", crate::error::shown(id)));
    if id.is_empty() || id.starts_with('.') || id.len() > 128 || !id.chars().all(plain) {
        return Err(missing("is no place on a bus"));
    }
    let device = BUSES.iter().map(|bus| Path::new(bus).join(id)).find(|path| path.exists());
    let device = device.ok_or_else(|| missing("is no device of this host"))?;
    let entries = fs::read_dir(device.join("net")).map_err(|_| missing("has no interface on this host"))?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.next().ok_or_else(|| missing("has no interface on this host"))
}
