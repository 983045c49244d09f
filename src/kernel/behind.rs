//! Deleting a link without waiting for what the kernel does after the link is gone.
//!
//! The request blocks its sender for an RCU grace period or two (15 to 35 ms), and closing a netfilter socket
//! after a delete waits too. But the kernel announces `RTM_DELLINK` when the link has left its lists, after half
//! a millisecond. So a child sends the request and holds the sockets, and the caller goes on at the
//! announcement. The child is forked without the caller's files and never runs anything else.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::RouteNetlinkMessage;
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Refusal,
    link::Link,
    netlink::{Requests, Route},
};

/// `RTNLGRP_LINK` of `linux/rtnetlink.h`.
const LINKS: u32 = 1;

/// Whether a refusal says that there is no file or process to spare.
pub(super) fn is_short(refusal: &Refusal) -> bool {
    [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM].contains(&refusal.errno)
}

/// Has a child close a socket whose closing would wait. Where there is no process to spare, whoever closes it waits.
pub(super) fn close_later(socket: RawFd) {
    // SAFETY: the calling process has one thread (`Deletion::Behind` is for such programs only), so the child may do what
    // the parent may; it ends, and nothing of the parent's is flushed or run.
    if unsafe { libc::fork() } == 0 {
        crate::start::close_all_but(&[socket]);
        unsafe { libc::_exit(0) }
    }
}

/// Two sockets: one hears of links, one asks.
pub(super) struct Deleter {
    hears: Route,
    asks: Route,
}

impl Deleter {
    pub(super) fn open() -> Result<Self, Refusal> {
        let mut hears = Route::open()?;
        hears.channel().socket_mut().add_membership(LINKS)?;
        Ok(Self { hears, asks: Route::open()? })
    }

    /// Has a child send the request, and returns when the link with that index is gone. `held`: a socket whose
    /// closing would wait; the child closes it last.
    pub(super) fn delete(
        mut self,
        message: &RouteNetlinkMessage,
        index: u32,
        held: Option<RawFd>,
    ) -> Result<(), Refusal> {
        let (reads, writes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let asks = self.asks.channel().socket().as_raw_fd();
        let keep = [Some(asks), Some(writes.as_raw_fd()), held];
        // SAFETY: the calling process has one thread (`Deletion::Behind` is for such programs only), so the
        // child may do what the parent may.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error().into()),
            0 => self.child(message, &keep.into_iter().flatten().collect::<Vec<_>>(), writes.as_fd()),
            _ => {
                drop(writes);
                self.wait(index, reads.as_fd())
            }
        }
    }

    /// Sends the request, says why if it was refused, and ends.
    fn child(
        mut self,
        message: &RouteNetlinkMessage,
        keep: &[RawFd],
        writes: rustix::fd::BorrowedFd<'_>,
    ) -> ! {
        crate::start::close_all_but(keep);
        let mut requests = Requests::default();
        requests.push(super::netlink::request(message.clone()), NLM_F_ACK);
        if let Err((_, refusal)) = self.asks.run(requests, |_| ()) {
            let _ = rustix::io::write(writes, &refusal.errno.to_ne_bytes());
        }
        // SAFETY: ends this child; nothing of the parent's is flushed or run.
        unsafe { libc::_exit(0) }
    }

    /// Waits for the announcement, or for the child to say why there will be none.
    fn wait(&mut self, index: u32, reads: rustix::fd::BorrowedFd<'_>) -> Result<(), Refusal> {
        loop {
            let socket = self.hears.channel().socket().as_raw_fd();
            // SAFETY: the socket is open as long as `self` is.
            let socket = unsafe { rustix::fd::BorrowedFd::borrow_raw(socket) };
            let mut waited = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&reads, PollFlags::IN)];
            match poll(&mut waited, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let (heard, ended) = (!waited[0].revents().is_empty(), !waited[1].revents().is_empty());
            if heard && self.hears_of_end(index)? {
                return Ok(());
            }
            if ended && !heard {
                return self.ended(reads);
            }
        }
    }

    fn hears_of_end(&mut self, index: u32) -> Result<bool, Refusal> {
        const DELETED: u16 = 17;
        let heard = self.hears.channel().receive(|answer| {
            answer.kind == DELETED && Link::read(&answer).is_some_and(|link| link.index == index)
        });
        match heard {
            // Too much was announced at once: the child's end will tell.
            Err(refusal) if refusal.errno == libc::ENOBUFS => Ok(false),
            result => result,
        }
    }

    /// The child is done: it wrote why the request was refused, or nothing.
    fn ended(&mut self, reads: rustix::fd::BorrowedFd<'_>) -> Result<(), Refusal> {
        let mut code = [0; 4];
        match rustix::io::read(reads, &mut code)? {
            4 => Err(Refusal::new(i32::from_ne_bytes(code))),
            _ => Ok(()),
        }
    }
}
