//! Files that are whole or not there, and locks that end with their holder.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Error;

/// The version of every record that this rnet writes.
pub(super) const VERSION: u64 = 1;
/// How a record of this version begins, where rnet wrote it: then the version need not be looked for first.
const BEGINNING: &[u8] = br#"{"version":1,"#;
/// No record is longer, in bytes.
const LONGEST: u64 = 4 << 20;
/// How the name of a damaged record ends, once it is set aside.
const DAMAGED: &str = ".damaged";
/// How long a lock is waited for. Whoever holds one does so for milliseconds; on a busy host, for those of many before.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every record begins with.
#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u64,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// Whether two things are to be on the disk before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// They survive a loss of power.
    Yes,
    /// They live and die with the kernel's own objects.
    No,
}

/// Makes a directory, and its parents, that nobody else may enter.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| Error::store(path, error)),
        Err(error) => Err(Error::store(path, error)),
    }
}

/// A directory in which others could plant files is not used.
pub(super) fn check_dir(path: &Path) -> Result<(), Error> {
    let unsafe_because = |reason: String| Err(Error::UnsafeDirectory { path: path.into(), reason });
    let data = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        data => data.map_err(|error| Error::store(path, error))?,
    };
    let me = rustix::process::geteuid().as_raw();
    if !data.is_dir() {
        return unsafe_because("it is no directory".to_owned());
    }
    if data.uid() != me && data.uid() != 0 {
        return unsafe_because(format!("it belongs to user {}", data.uid()));
    }
    if data.mode() & 0o022 != 0 {
        return unsafe_because(format!("others may write to it (mode {:04o})", data.mode() & 0o7777));
    }
    Ok(())
}

/// Writes a record: readers see the old one or the new one, and a kill leaves no half of it.
pub(super) fn write<T: Serialize>(path: &Path, record: &T, durable: Durable) -> Result<(), Error> {
    let result = text_of(record).and_then(|text| put(path, &text, durable).map(drop));
    let result = result.and_then(|()| if durable == Durable::Yes { sync_parent(path) } else { Ok(()) });
    result.map_err(|error| Error::store(path, error))
}

/// Writes a new record that is locked before anyone can see it.
pub(super) fn write_locked<T: Serialize>(path: &Path, record: &T) -> Result<Lock, Error> {
    let written = text_of(record).and_then(|text| put(path, &text, Durable::No));
    written.map(Lock).map_err(|error| Error::store(path, error))
}

fn text_of<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Versioned { version: VERSION, record })?)
}

/// The file is whole whenever it has its name, and what it replaces until then.
fn put(path: &Path, text: &[u8], durable: Durable) -> io::Result<File> {
    if path.symlink_metadata().is_ok() {
        return write_over(path, text, durable);
    }
    match write_new(path, text, durable) {
        Err(error) if is_replacing(&error) => write_over(path, text, durable),
        written => written,
    }
}

/// The record is there by now, or the file system has no files without a name.
fn is_replacing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EEXIST | libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL))
}

/// A file without a name gets one when it is whole; a kill before that leaves nothing.
fn write_new(path: &Path, text: &[u8], durable: Durable) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?);
    fill(&mut file, text, durable)?;
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(rustix::fs::CWD, open, rustix::fs::CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(file)
}

/// Writes beside the record and moves that over it. The name begins with a dot, as no record's does, and is always
/// the same: what a killed writer left is written over by the next.
fn write_over(path: &Path, text: &[u8], durable: Durable) -> io::Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let written = open_alone(&options, &beside).and_then(|mut file| {
        fill(&mut file, text, durable)?;
        fs::rename(&beside, path)?;
        Ok(file)
    });
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Opens and locks the file beside a record. Whoever clears away what killed writers left may have come between.
fn open_alone(options: &fs::OpenOptions, beside: &Path) -> io::Result<File> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let file = options.open(beside)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&file, beside) => return Ok(file),
            Ok(()) | Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::from(io::ErrorKind::WouldBlock))
}

/// Removes what killed writers left beside the records of a directory.
pub(super) fn clear_rest(folder: &Path) -> Result<(), Error> {
    let is_rest = |name: &String| name.starts_with('.') && name.ends_with(".new");
    for name in all_names(folder)?.into_iter().filter(is_rest) {
        let path = folder.join(name);
        // A living writer holds the lock of its own.
        if let Some(_lock) = try_lock(&path)? {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Locks and writes.
fn fill(file: &mut File, text: &[u8], durable: Durable) -> io::Result<()> {
    rustix::fs::flock(&*file, FlockOperation::NonBlockingLockExclusive)?;
    file.write_all(text)?;
    if durable == Durable::Yes { file.sync_all() } else { Ok(()) }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Reads a record; `None` where there is none.
///
/// A record that cannot be understood is set aside under another name, so that it stops nobody else.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::store(path, error))?,
    };
    read_open(path, &file).map(Some)
}

fn open(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn read_open<T: DeserializeOwned>(path: &Path, file: &File) -> Result<T, Error> {
    let mut text = Vec::with_capacity(4096);
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| Error::store(path, error))?;
    let damaged = |reason: String| set_aside(path, reason);
    if text.len() as u64 > LONGEST {
        return Err(damaged(format!("it is longer than {LONGEST} bytes")));
    }
    if !text.starts_with(BEGINNING) {
        let Version { version } =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if version > VERSION {
            return Err(Error::Newer { path: path.into(), version, known: VERSION });
        }
    }
    serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
}

/// Whether a record is of a newer rnet. Looks at its beginning alone where this rnet wrote it.
pub(super) fn is_newer(path: &Path) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Anything {}
    match read::<Anything>(path) {
        Err(Error::Newer { .. }) => Ok(true),
        Err(Error::Damaged { .. }) | Ok(_) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The damaged records of a directory that were set aside, sorted.
pub(super) fn damaged(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut list: Vec<PathBuf> = all_names(folder)?
        .into_iter()
        .filter(|name| name.ends_with(DAMAGED))
        .map(|name| folder.join(name))
        .collect();
    list.sort_unstable();
    Ok(list)
}

/// Gives a damaged record another name.
fn set_aside(path: &Path, reason: String) -> Error {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(DAMAGED);
    let aside = path.with_file_name(name);
    match fs::rename(path, &aside) {
        Ok(()) => Error::Damaged { path: path.into(), reason, aside },
        Err(error) => Error::store(path, error),
    }
}

/// Moves a record to a place where none is.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows how.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.exists() => fs::rename(from, to),
        moved => Ok(moved?),
    }
}

/// Removes a file, and what a killed writer may have left beside it; one that is not there is no error.
pub(super) fn remove_with_rest(path: &Path) -> Result<(), Error> {
    remove_rest(path)?;
    remove(path)
}

/// Removes what a killed writer may have left beside a file.
pub(super) fn remove_rest(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    remove(&path.with_file_name(format!(".{name}.new")))
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::store(path, error)),
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it; one that is not there is no error.
pub(super) fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::store(path, error)),
        _ => Ok(()),
    }
}

/// Whether a directory has any record; looks at one, however many there are.
pub(super) fn has_any(path: &Path) -> Result<bool, Error> {
    let mut entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(|error| Error::store(path, error))?,
    };
    let is_record = |name: &str| !name.starts_with('.') && !name.ends_with(DAMAGED);
    Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_record))))
}

/// The names in a directory that are records (not temporary, damaged or lock files), sorted.
pub(super) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let mut names = all_names(path)?;
    names.retain(|name| !name.starts_with('.') && !name.ends_with(DAMAGED));
    names.sort_unstable();
    Ok(names)
}

fn all_names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(|error| Error::store(path, error))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// A lock on a file or directory, held until it is dropped or its process ends.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    /// Explicitly, because a child that was forked meanwhile would hold it on.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Locks a file, made for that if need be.
pub(super) fn lock(path: &Path, what: &str) -> Result<Lock, Error> {
    let open = || {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
    };
    lock_with(path, what, open)
}

/// Waits for the lock of a file that is there; gone is as good.
pub(super) fn lock_existing(path: &Path, what: &str) -> Result<Option<Lock>, Error> {
    match lock_with(path, what, || open(path)) {
        Err(Error::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        lock => lock.map(Some),
    }
}

/// The lock of a file, if nobody has it.
pub(super) fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::store(path, error))?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(is_at(&file, path).then_some(Lock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(Error::store(path, errno)),
    }
}

/// Locks a directory that is made for that if need be.
pub(super) fn lock_dir(path: &Path, what: &str) -> Result<Lock, Error> {
    let open = || match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(path).map_err(|error| match error {
                Error::Store { source, .. } => source,
                other => io::Error::other(other),
            })?;
            File::open(path)
        }
        file => file,
    };
    lock_with(path, what, open)
}

fn lock_with(path: &Path, what: &str, open: impl Fn() -> io::Result<File>) -> Result<Lock, Error> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        let file = open().map_err(|error| Error::store(path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // The holder before may have removed it: then this lock is on something that nobody else finds.
            Ok(()) if is_at(&file, path) => return Ok(Lock(file)),
            Ok(()) | Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(Error::store(path, errno)),
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::Locked { what: what.to_owned(), holder: holder(&file) });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Takes the lock of a record whose holder is dead. `None` where the holder lives or the record is gone.
pub(super) fn lock_dead<T: DeserializeOwned>(path: &Path) -> Result<Option<(Lock, T)>, Error> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::store(path, error))?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&file, path) => {}
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(Error::store(path, errno)),
    }
    let record = read_open(path, &file)?;
    Ok(Some((Lock(file), record)))
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|held| fs::symlink_metadata(path).is_ok_and(|there| same(held, there)))
}

/// Who holds a lock, by `/proc/locks`: `process 4242 (rnet)`.
fn holder(file: &File) -> String {
    let Ok(data) = file.metadata() else { return "another process".to_owned() };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    match locker(&locks, data.dev(), data.ino()) {
        Some(pid) => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let stopped = if is_stopped(pid) { ", stopped" } else { "" };
            format!("process {pid} ({}{stopped})", crate::error::shown(name.trim()))
        }
        None => "another process".to_owned(),
    }
}

/// The process that holds the lock of a file in the lines of `/proc/locks`, where files are told apart by device and inode
/// (`lock_get_status`, fs/locks.c).
fn locker(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    locks.lines().filter(|line| line.contains("FLOCK")).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(5).filter(|place| **place == wanted).and_then(|_| words.get(4)?.parse().ok())
    })
}

/// Whether a process was stopped by a signal: then nothing but another signal will make it let go.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering},
    };

    use rnetkit_drivers::{Driver as _, Id, Network, bridge::Bridge};

    use super::*;
    use crate::store::{NetworkState, Store};

    /// A directory that is gone when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("rnet-file-{}-{number}", std::process::id()));
            make_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn network(name: &str) -> Network {
        let pool = r#"{"subnet":"10.1.0.0/24","gateway":"10.1.0.1","aux":{"a":"10.1.0.9"}}"#;
        Network {
            id: Id([7; 32]),
            name: name.parse().unwrap(),
            driver: "bridge".to_owned(),
            created: 1,
            pools: vec![serde_json::from_str(pool).unwrap()],
            internal: false,
            attachable: false,
            ipam_driver: "default".to_owned(),
            ipam_options: Default::default(),
            options: [("icc".to_owned(), "false".to_owned())].into(),
            labels: [("ä \"".to_owned(), "\n".to_owned())].into(),
            group: 1,
        }
    }

    #[test]
    fn a_lock_of_the_same_inode_on_another_device_is_another() {
        let locks = "1: FLOCK  ADVISORY  WRITE 7 00:2a:19 0 EOF\n2: POSIX  ADVISORY  WRITE 8 00:2b:19 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:2b:19 0 EOF\n";
        let device = rustix::fs::makedev(0, 0x2b);
        assert_eq!(locker(locks, device, 19), Some(9));
        assert_eq!(locker(locks, device, 9), None, "the end of a number is not the number");
    }

    fn record() -> NetworkState {
        let network = network("blue");
        let made = Bridge.network(&network).unwrap();
        NetworkState { network, pending: false, made }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = Folder::new();
        let path = folder.0.join("state.json");
        write(&path, &record(), Durable::Yes).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record()));
        let again = NetworkState { pending: true, ..record() };
        write(&path, &again, Durable::No).unwrap();
        assert_eq!(read(&path).unwrap(), Some(again));
        assert_eq!(folder.names(), ["state.json"]);
    }

    /// What rnet 0.1 wrote, as it wrote it. A change of a type must go on reading it, or raise the version and say how
    /// the old one is read.
    #[test]
    fn records_of_version_1_are_read_for_ever() {
        use crate::{
            store::{EndpointState, HostState},
            verbs::ContainerState,
        };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/record");
        let folder = Folder::new();
        let kept = |name: &str| {
            let path = folder.0.join(name);
            fs::copy(fixtures.join(name), &path).unwrap();
            path
        };
        let endpoint: EndpointState = read(&kept("00")).unwrap().unwrap();
        assert_eq!((endpoint.key.as_str(), endpoint.network.as_str()), ("one", "bridge"));
        let endpoint: EndpointState = read(&kept("01")).unwrap().unwrap();
        assert_eq!((endpoint.key.as_str(), endpoint.endpoint.ports.len()), ("c1", 2));
        for (name, network) in [("02", "bridge"), ("03", "blue")] {
            let state: NetworkState = read(&kept(name)).unwrap().unwrap();
            assert_eq!((state.network.name.as_str(), state.pending), (network, false));
        }
        let host: HostState = read(&kept("04")).unwrap().unwrap();
        assert_eq!(host.table.as_str(), "rnet");
        let container: ContainerState = read(&kept("05")).unwrap().unwrap();
        assert_eq!(container.command, ["sleep", "100"]);
    }

    #[test]
    fn a_record_cut_off_anywhere_is_set_aside_by_name() {
        let folder = Folder::new();
        let path = folder.0.join("state.json");
        let whole = text_of(&record()).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read::<NetworkState>(&path).unwrap_err().to_string();
            let (begins, ends) = (
                format!("{} is damaged (", path.display()),
                format!("); it was set aside as {}.damaged", path.display()),
            );
            assert!(error.starts_with(&begins) && error.ends_with(&ends), "{error}");
            assert_eq!(folder.names(), ["state.json.damaged"]);
            assert_eq!(fs::read(folder.0.join("state.json.damaged")).unwrap(), &whole[..length]);
            assert_eq!(read::<NetworkState>(&path).unwrap(), None, "the next reader is not stopped");
        }
    }

    #[test]
    fn a_record_with_a_flipped_byte_is_read_or_set_aside() {
        let folder = Folder::new();
        let path = folder.0.join("state.json");
        let whole = text_of(&record()).unwrap();
        for at in 0..whole.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut text = whole.clone();
                text[at] ^= flip;
                fs::write(&path, &text).unwrap();
                match read::<NetworkState>(&path) {
                    Ok(Some(_)) | Err(Error::Damaged { .. } | Error::Newer { .. }) => {}
                    other => panic!("byte {at} with {flip:#x}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_damaged_definition_hides_no_other() {
        let folder = Folder::new();
        let store = Store::open(&folder.0.join("root"), &folder.0.join("run")).unwrap();
        ["amber", "blue", "red"].iter().for_each(|name| store.define(&network(name)).unwrap());
        fs::write(folder.0.join("root/networks/blue.json"), "{").unwrap();
        let names = |store: &Store| -> Vec<String> {
            store.definitions().unwrap().into_iter().map(|network| network.name.to_string()).collect()
        };
        assert_eq!(names(&store), ["amber", "red"]);
        assert_eq!(names(&store), ["amber", "red"]);
        store.define(&network("blue")).unwrap();
        assert_eq!(names(&store), ["amber", "blue", "red"]);
        assert!(folder.0.join("root/networks/blue.json.damaged").exists());
    }

    #[test]
    fn a_record_of_a_newer_rnet_is_left_where_it_is() {
        let folder = Folder::new();
        let path = folder.0.join("state.json");
        fs::write(&path, r#"{"version":2,"all":"different"}"#).unwrap();
        assert_eq!(
            read::<NetworkState>(&path).unwrap_err().to_string(),
            format!(
                "{} was written by a newer rnet (version 2); this one reads versions up to 1",
                path.display()
            )
        );
        assert_eq!(folder.names(), ["state.json"]);
    }

    #[test]
    fn a_record_that_is_too_long_or_no_file_is_refused() {
        let folder = Folder::new();
        let path = folder.0.join("state.json");
        fs::write(&path, vec![b' '; LONGEST as usize + 1]).unwrap();
        let error = read::<NetworkState>(&path).unwrap_err().to_string();
        assert!(error.contains("is damaged (it is longer than 4194304 bytes)"), "{error}");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let error = read::<NetworkState>(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{}: Too many levels of symbolic links (os error 40)", path.display()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(read::<NetworkState>(&path), Err(Error::Store { .. } | Error::Damaged { .. })));
    }

    #[test]
    fn a_record_is_locked_until_its_holder_lets_go() {
        let folder = Folder::new();
        let path = folder.0.join("state.json");
        let held = write_locked(&path, &record()).unwrap();
        assert!(lock_dead::<NetworkState>(&path).unwrap().is_none());
        drop(held);
        let (lock, found) = lock_dead::<NetworkState>(&path).unwrap().unwrap();
        assert_eq!(found, record());
        assert!(try_lock(&path).unwrap().is_none());
        drop(lock);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(
            check_dir(&folder.0).unwrap_err().to_string(),
            format!("{} is not safe to use: others may write to it (mode 0777)", folder.0.display())
        );
        let file = folder.0.join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(
            check_dir(&file).unwrap_err().to_string(),
            format!("{} is not safe to use: it is no directory", file.display())
        );
    }
}
