//! Network namespaces: opened once, compared by identity, entered for a moment. Never
//! gives one a name, and never takes one away.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use super::Refusal;

/// `NSFS_MAGIC` of `linux/magic.h`: the file system that namespace files are in.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: OwnedFd,
    identity: (u64, u64),
}

impl Netns {
    /// Opens a namespace file, and makes sure that it is a network namespace.
    ///
    /// # Errors
    /// When the path cannot be opened or is something else. Nothing hangs, whatever it is.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        Self::from_file(file)
    }

    /// Takes an open namespace file.
    ///
    /// # Errors
    /// When it is no network namespace.
    pub fn from_file(file: OwnedFd) -> Result<Self, Refusal> {
        let is_netns = rustix::fs::fstatfs(&file)?.f_type as u64 == NSFS_MAGIC
            && kind_of(file.as_fd()) == Some(libc::CLONE_NEWNET);
        if !is_netns {
            return Err(Refusal::because(libc::EINVAL, "it is not a network namespace"));
        }
        let stat = rustix::fs::fstat(&file)?;
        Ok(Self { file, identity: (stat.st_dev, stat.st_ino) })
    }

    /// Device and inode: equal if and only if it is the same namespace, as long as it is there.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The identity of the calling thread's own namespace.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn own_identity() -> Result<(u64, u64), Refusal> {
        let stat = std::fs::metadata("/proc/thread-self/ns/net")?;
        Ok((stat.dev(), stat.ino()))
    }

    /// A number that no other namespace gets until the host is started again, while that of [`Netns::identity`] is
    /// given to the next one as soon as this one is gone (`SO_NETNS_COOKIE`, Linux 5.14).
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel has no such number.
    pub fn cookie(&self) -> Result<u64, Refusal> {
        let socket = self.inside(|| {
            rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::DGRAM,
                rustix::net::SocketFlags::CLOEXEC,
                None,
            )
        })??;
        let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `length` bytes to the number, which is as long.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                std::ptr::from_mut(&mut cookie).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(cookie) } else { Err(std::io::Error::last_os_error().into()) }
    }

    /// Runs `work` with the calling thread inside the namespace, and comes back.
    ///
    /// Sockets opened inside stay there. `work` must not start threads: they would stay inside.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> Result<T, Refusal> {
        let own = File::open("/proc/thread-self/ns/net")?;
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let back = Back(own);
        let result = work();
        drop(back);
        Ok(result)
    }
}

impl Netns {
    /// Runs `work` with the calling thread inside a new network namespace, and comes back. Unless `work` gives it a
    /// name it is gone then.
    ///
    /// # Errors
    /// When none can be made.
    pub(super) fn in_new<T>(work: impl FnOnce() -> T) -> Result<T, Refusal> {
        let own = File::open("/proc/thread-self/ns/net")?;
        // SAFETY: only the network namespace of the calling thread changes, and it goes back below; the table of open
        // files stays shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        let back = Back(own);
        let result = work();
        drop(back);
        Ok(result)
    }
}

/// Goes back also when the work panics. A thread that cannot go back would do the rest of its work in the wrong place:
/// there is nothing safe left but to end.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            std::process::abort();
        }
    }
}

/// What kind of namespace a file of the namespace file system is: one of `CLONE_NEW*`.
fn kind_of(file: BorrowedFd<'_>) -> Option<libc::c_int> {
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the file is open, and the call takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    (kind >= 0).then_some(kind)
}

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> Self {
        netns.file
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
