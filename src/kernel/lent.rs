//! `/etc/netns/NAME`: files that programs in a named namespace see in /etc (`ip-netns(8)`). Lends a folder of rnet's own
//! by a link, where nobody gave others; takes back only that link.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
};

use rnetkit_drivers::Name;

use super::Refusal;

const FOLDER: &str = "/etc/netns";

/// Whether the files are seen now.
pub(super) fn lend(name: &Name, folder: &Path) -> Result<bool, Refusal> {
    let link = place(name);
    let made = match symlink(folder, &link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = fs::DirBuilder::new().mode(0o755).recursive(true).create(FOLDER);
            made.and_then(|()| symlink(folder, &link))
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(is_ours(&link, folder)),
        made => Ok(made.map(|()| true)?),
    }
}

/// What leads elsewhere is somebody else's, and stays.
pub(super) fn take_back(name: &Name, folder: &Path) -> Result<(), Refusal> {
    let link = place(name);
    if !is_ours(&link, folder) {
        return Ok(());
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Takes back every link into a folder of rnet's that is no more: what a reboot left.
pub(super) fn take_back_dead(folder: &Path) {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let leads = fs::read_link(entry.path());
        if leads.is_ok_and(|leads| leads.starts_with(folder) && !leads.exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn place(name: &Name) -> PathBuf {
    Path::new(FOLDER).join(name.as_str())
}

fn is_ours(link: &Path, folder: &Path) -> bool {
    fs::read_link(link).is_ok_and(|leads| leads == folder)
}
