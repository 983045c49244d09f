//! Who is asked for names that nobody here has: the host's own resolvers, as they are now.

use std::{
    fs,
    io::Read as _,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::container::files;

/// How long what was read is taken to be true.
const FRESH: Duration = Duration::from_secs(1);
/// As many as glibc asks.
const MOST: usize = 3;
/// Nobody's file is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// The host's resolvers.
#[derive(Debug)]
pub struct Upstream {
    path: PathBuf,
    seen: Option<Seen>,
    looked: Option<Instant>,
    servers: Vec<IpAddr>,
    own: Vec<IpAddr>,
}

/// What a file was when it was read: another one under its name has another number.
type Seen = (u64, u64, i64, i64, u64);

impl Upstream {
    /// Those that the file names.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None, looked: None, servers: Vec::new(), own: Vec::new() }
    }

    /// Addresses that are not asked, because who asks answers there.
    pub fn set_own(&mut self, own: Vec<IpAddr>) {
        self.own = own;
    }

    /// Looks at the file where that was some time ago. Whether others are asked from now on.
    pub fn is_changed(&mut self) -> bool {
        if self.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return false;
        }
        self.looked = Some(Instant::now());
        let seen = fs::metadata(&self.path).ok();
        let seen = seen.map(|data| (data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), data.size()));
        if seen == self.seen && seen.is_some() {
            return false;
        }
        self.seen = seen;
        let before = std::mem::take(&mut self.servers);
        self.servers = read(&self.path);
        self.servers != before
    }

    /// Who is asked: those that are given, or the host's.
    #[must_use]
    pub fn servers(&self, given: &[IpAddr]) -> Vec<IpAddr> {
        let list = if given.is_empty() { &self.servers } else { given };
        list.iter().filter(|server| !self.own.contains(server)).take(MOST).copied().collect()
    }
}

fn read(path: &Path) -> Vec<IpAddr> {
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text));
    if let Err(error) = read {
        tracing::warn!("{}: {error}", path.display());
    }
    files::name_servers(&String::from_utf8_lossy(&text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_read_again_and_ourselves_never_asked() {
        let folder = std::env::temp_dir().join(format!("rnet-upstream-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("resolv.conf");
        let mut upstream = Upstream::of(&path);
        assert!(!upstream.is_changed());
        assert_eq!(upstream.servers(&[]), Vec::<IpAddr>::new());
        let replace = |text: &str| {
            fs::write(folder.join("new"), text).unwrap();
            fs::rename(folder.join("new"), &path).unwrap();
        };
        replace("nameserver 127.0.0.53\nnameserver 10.0.0.1\n");
        upstream.looked = None;
        assert!(upstream.is_changed());
        upstream.set_own(vec![[10, 0, 0, 1].into()]);
        assert_eq!(upstream.servers(&[]), [IpAddr::from([127, 0, 0, 53])]);
        assert_eq!(upstream.servers(&[[9, 9, 9, 9].into()]), [IpAddr::from([9, 9, 9, 9])]);
        assert!(!upstream.is_changed());
        let many: String = (0..100).map(|n| format!("nameserver 10.0.1.{n}\n")).collect();
        replace(&many);
        upstream.looked = None;
        assert!(upstream.is_changed());
        assert_eq!(upstream.servers(&[]).len(), 3);
        replace("");
        upstream.looked = None;
        assert!(upstream.is_changed() && upstream.servers(&[]).is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }
}
