//! What the child mounts in its own mount namespace. Never allocates, and never touches the host's mounts:
//! [`keep_apart`] comes first.
//!
//! All of it runs between fork and exec, so paths are literals or were made before the fork.

use std::ffi::CStr;

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, CWD, Mode, OFlags, StatVfsMountFlags},
    io::{self, Errno},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, mount_change,
        move_mount, open_tree,
    },
};

/// What hosts mount below /sys and programs look for there: limits, tracing, pinned programs.
const BELOW_SYS: [&CStr; 5] = [
    c"/sys/fs/cgroup",
    c"/sys/fs/bpf",
    c"/sys/kernel/security",
    c"/sys/kernel/debug",
    c"/sys/kernel/tracing",
];

const SYSFS_MAGIC: u64 = 0x6265_6572;

/// From here on no mount reaches the host. The host's later mounts still come in, as with `unshare` and `ip netns`.
pub(super) fn keep_apart() -> io::Result<()> {
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
}

/// A /sys of the network namespace that the caller is in, so that /sys/class/net shows its links.
///
/// A sysfs shows the namespace it was mounted from, for good. What the host has mounted below is carried over.
pub(super) fn own_sys() -> io::Result<()> {
    let read_only = fs::statvfs(c"/sys")?.f_flag.contains(StatVfsMountFlags::RDONLY);
    let below = BELOW_SYS.map(take_tree);
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    flags.set(MountFlags::RDONLY, read_only);
    mount(c"sysfs", c"/sys", c"sysfs", flags, None::<&CStr>)?;
    for (tree, path) in below.iter().zip(BELOW_SYS) {
        if let Some(tree) = tree {
            // A container without it still works.
            let _ = move_mount(tree, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        }
    }
    Ok(())
}

/// The tree mounted at `path`, or nothing where the path is only a part of sysfs itself.
fn take_tree(path: &CStr) -> Option<OwnedFd> {
    let kind = fs::statfs(path).ok()?.f_type;
    if u64::try_from(kind).is_ok_and(|kind| kind == SYSFS_MAGIC) {
        return None;
    }
    copy_tree(path).ok()
}

fn copy_tree(path: &CStr) -> io::Result<OwnedFd> {
    let recursive = OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive)
}

/// `source` shows where `target` is. A link is followed; one that leads nowhere is itself mounted over.
pub(super) fn bind(source: &CStr, target: &CStr) -> io::Result<()> {
    match mount_bind(source, target) {
        Err(Errno::NOENT) if exists(target) => {
            // move_mount, unlike mount, need not follow a link in its last step.
            let tree = copy_tree(source)?;
            move_mount(&tree, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        }
        result => result,
    }
}

/// Whether there is anything by that name, be it a link that leads nowhere.
pub(super) fn exists(path: &CStr) -> bool {
    fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// /etc with room for files that the host does not have: the host's below, a tmpfs of the container's above.
///
/// Mounting needs a name to mount over. To create that name on the host would change the host and stay behind.
pub(super) fn overlay_etc() -> io::Result<()> {
    let before = fs::open(c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // "." goes on naming the host's /etc when the tmpfs lies over it.
    rustix::process::chdir(c"/etc")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(c"tmpfs", c"/etc", c"tmpfs", flags, Some(c"mode=0755"))?;
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdir(c"/etc/upper", mode)?;
    fs::mkdir(c"/etc/work", mode)?;
    let layers = c"lowerdir=.,upperdir=/etc/upper,workdir=/etc/work";
    mount(c"overlay", c"/etc", c"overlay", MountFlags::empty(), Some(layers))?;
    rustix::process::fchdir(before)
}

/// An empty file to mount over.
pub(super) fn create(path: &CStr) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::from_raw_mode(0o644)).map(drop)
}
