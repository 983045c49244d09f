//! Switches under `/proc/sys/net`. They belong to the calling thread's network namespace.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rnetkit_drivers::{Family, InterfaceName, Setting, SysctlName};
use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::Refusal;
use crate::error::shown;

/// The files and values of a setting. The name of a link cannot lead elsewhere: it has no `/`, and a `.` in a
/// file name is a `.`.
fn files(link: &InterfaceName, setting: Setting) -> Vec<(PathBuf, &'static str)> {
    let file = |family: &str, key: &str| PathBuf::from(format!("/proc/sys/net/{family}/conf/{link}/{key}"));
    match setting {
        Setting::Ipv6Off => vec![(file("ipv6", "disable_ipv6"), "1")],
        Setting::Ipv6On => vec![(file("ipv6", "disable_ipv6"), "0")],
        Setting::NoRouterAdvertisements => {
            vec![(file("ipv6", "accept_ra"), "0"), (file("ipv6", "accept_redirects"), "0")]
        }
        Setting::OwnSources => vec![(file("ipv4", "rp_filter"), "1")],
        Setting::NoDuplicateDetection => vec![(file("ipv6", "accept_dad"), "0")],
        Setting::NoRedirects => {
            vec![(file("ipv4", "accept_redirects"), "0"), (file("ipv4", "send_redirects"), "0")]
        }
    }
}

/// A kernel without IPv6 needs no telling that IPv6 is off.
fn is_moot(setting: Setting, error: &io::Error) -> bool {
    let wants_none =
        matches!(setting, Setting::Ipv6Off | Setting::NoRouterAdvertisements | Setting::NoDuplicateDetection);
    wants_none && error.kind() == io::ErrorKind::NotFound && !PathBuf::from("/proc/sys/net/ipv6").exists()
}

/// Writes a value in one go: the kernel takes each write for a whole.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let apart = if is_crowded() { open_apart(path).ok() } else { None };
    let mut file = match apart {
        Some(file) => file,
        None => File::options().write(true).open(path)?,
    };
    io::Write::write_all(&mut file, value.as_bytes())
}

/// Whether the machine has so many links, in whatever namespaces, that a file is found sooner by `open_apart`: from some
/// hundred on.
fn is_crowded() -> bool {
    const MANY: u64 = 256;
    // A directory has two links more than directories in it; that of other namespaces' links are not seen, but counted.
    fs::metadata("/sys/devices/virtual/net").is_ok_and(|directory| directory.nlink() > MANY)
}

/// Opens a file below `/proc` through an instance of procfs that nobody else uses, and that goes with the file.
///
/// One instance keeps what was found of all namespaces under one name in one chain and walks it, link by link, to the one of
/// the caller's (`proc_sys_compare` of `fs/proc/proc_sysctl.c`): a millisecond for the `eth0` of the thousandth container.
fn open_apart(path: &Path) -> rustix::io::Result<File> {
    let below = path.strip_prefix("/proc").map_err(|_| rustix::io::Errno::INVAL)?;
    let procfs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(procfs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(procfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(openat(mount, below, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Switches.
pub(super) fn apply(link: &InterfaceName, setting: Setting) -> Result<(), Refusal> {
    for (path, value) in files(link, setting) {
        match write(&path, value) {
            Err(error) if !is_moot(setting, &error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return Err(Refusal::because(errno, format!("{} = {value}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The kernel gives the link no IPv6 address of its own (`IN6_ADDR_GEN_MODE_NONE`).
pub(super) fn no_own_address(link: &InterfaceName) -> Result<(), Refusal> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{link}/addr_gen_mode"));
    write(&path, "1").map_err(Refusal::from)
}

/// Whether it is switched so.
pub(super) fn is_set(link: &InterfaceName, setting: Setting) -> bool {
    files(link, setting).iter().all(|(path, value)| match fs::read_to_string(path) {
        Ok(text) => text.trim() == *value,
        Err(error) => is_moot(setting, &error),
    })
}

/// Sets a switch of the namespace.
pub(super) fn set(name: &SysctlName, value: &str) -> Result<(), Refusal> {
    let path = format!("/proc/sys/{}", name.file());
    write(path.as_ref(), value).map_err(|error| {
        Refusal::because(error.raw_os_error().unwrap_or(libc::EIO), format!("{path} = {}", shown(value)))
    })
}

/// Whether a switch of the namespace has that value; the kernel writes several numbers with tabs between.
pub(super) fn has(name: &SysctlName, value: &str) -> bool {
    let text = fs::read_to_string(format!("/proc/sys/{}", name.file())).unwrap_or_default();
    text.split_whitespace().eq(value.split_whitespace())
}

fn forwarding(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "/proc/sys/net/ipv4/ip_forward",
        Family::Ipv6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

/// Whether the host forwards packets of the family.
pub(super) fn forwards(family: Family) -> Result<bool, Refusal> {
    let path = forwarding(family);
    let text = fs::read_to_string(path)
        .map_err(|error| Refusal::because(error.raw_os_error().unwrap_or(libc::EIO), path))?;
    Ok(text.trim() == "1")
}

/// Switches forwarding of the family on or off.
pub(super) fn forward(family: Family, on: bool) -> Result<(), Refusal> {
    let path = forwarding(family);
    let value = if on { "1" } else { "0" };
    fs::write(path, value).map_err(|error| {
        Refusal::because(error.raw_os_error().unwrap_or(libc::EIO), format!("{path} = {value}"))
    })
}

/// The ports from which one is chosen when none is named.
pub(super) fn local_port_range() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
