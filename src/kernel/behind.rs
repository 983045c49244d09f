//! Deleting a link without waiting for what the kernel does after the link is gone.
//!
//! The request blocks its sender for an RCU grace period or two (15 to 35 ms), and closing a netfilter socket
//! after a delete waits too. But the kernel announces `RTM_DELLINK` when the link has left its lists, after half
//! a millisecond. So a child sends the request and holds the sockets, and the caller goes on at the
//! announcement. The child has the caller's memory, and none of its other files, and never runs anything else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::RouteNetlinkMessage;
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{RecvFlags, SendFlags},
};

use super::{
    Refusal,
    link::Link,
    netlink::{Requests, Route},
};
use crate::start;

/// `RTNLGRP_LINK` of `linux/rtnetlink.h`.
const LINKS: u32 = 1;

/// Whether a refusal says that there is no file or process to spare.
pub(super) fn is_short(refusal: &Refusal) -> bool {
    [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM].contains(&refusal.errno)
}

/// Has a child close a socket whose closing would wait. Where there is no process to spare, whoever closes it waits.
pub(super) fn close_later(socket: RawFd) {
    let errand = Errand {
        request: Vec::new(),
        asks: -1,
        writes: -1,
        left: start::all_but(&[socket]),
        answer: [0; ANSWER],
    };
    let _ = errand.send_out();
}

/// What a child does, with everything that it needs: it shares the memory of the caller, who goes on meanwhile, so it
/// makes calls and nothing else. A fork would copy the caller's page tables, and have it pay for each page that it writes.
struct Errand {
    request: Vec<u8>,
    asks: RawFd,
    writes: RawFd,
    /// The files that it has no use for, from and to.
    left: Vec<(u32, u32)>,
    answer: [u8; ANSWER],
}

/// Room for the kernel's answer, in bytes: an error, and its text.
const ANSWER: usize = 2048;
/// The child's stack, in bytes: it calls little.
const STACK: usize = 32 * 1024;

impl Errand {
    /// Begins the child. It uses the errand and its stack as long as it lives, so they are never given back: the caller
    /// ends soon.
    fn send_out(self) -> std::io::Result<()> {
        let stack = Box::leak(vec![0u128; STACK / size_of::<u128>()].into_boxed_slice());
        let top = stack.as_mut_ptr_range().end.cast();
        let errand = Box::into_raw(Box::new(self));
        // SAFETY: the calling process has one thread (`Deletion::Behind` is for such programs only), which touches neither
        // stack nor errand again. The child uses nothing else of its memory, and does not return.
        let pid = unsafe { libc::clone(run, top, libc::CLONE_VM | libc::SIGCHLD, errand.cast()) };
        if pid == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The child: sends the request, says why if it was refused, and ends.
extern "C" fn run(errand: *mut libc::c_void) -> libc::c_int {
    const ERROR: [u8; 2] = 2u16.to_ne_bytes();
    // SAFETY: the caller made it for this process alone.
    let errand = unsafe { &mut *errand.cast::<Errand>() };
    for (from, to) in &errand.left {
        // SAFETY: the files are this process's own copies, and it uses none of them.
        unsafe { libc::syscall(libc::SYS_close_range, *from, *to, 0) };
    }
    if errand.asks >= 0 {
        // SAFETY: the socket was open when this process began, and is its own.
        let asks = unsafe { BorrowedFd::borrow_raw(errand.asks) };
        let sent = rustix::net::send(asks, &errand.request, SendFlags::empty());
        let said = sent.and_then(|_| rustix::net::recv(asks, &mut errand.answer[..], RecvFlags::empty()));
        let code = match said {
            Ok((length, _)) if length >= 20 && errand.answer[4..6] == ERROR => {
                let [a, b, c, d] = [16, 17, 18, 19].map(|at| errand.answer[at]);
                -i32::from_ne_bytes([a, b, c, d])
            }
            Ok(_) => libc::EBADMSG,
            Err(errno) => errno.raw_os_error(),
        };
        if code != 0 {
            // SAFETY: as `asks`.
            let writes = unsafe { BorrowedFd::borrow_raw(errand.writes) };
            let _ = rustix::io::write(writes, &code.to_ne_bytes());
        }
    }
    // SAFETY: ends this process; nothing of the caller's is flushed or run.
    unsafe { libc::_exit(0) }
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
        let mut requests = Requests::default();
        requests.push(super::netlink::request(message.clone()), NLM_F_ACK);
        let errand = Errand {
            request: requests.numbered(self.asks.channel()),
            asks,
            writes: writes.as_raw_fd(),
            left: start::all_but(&keep.into_iter().flatten().collect::<Vec<_>>()),
            answer: [0; ANSWER],
        };
        errand.send_out()?;
        drop(writes);
        self.wait(index, reads.as_fd())
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
