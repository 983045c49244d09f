//! The explicit proxy for the host's own loopback: `rnet proxy`, run by whoever wants it. Copies bytes between a
//! listening address and a container; makes, records and decides nothing.
//!
//! It is for hosts whose firewall drops what connection tracking does not know, where the kernel's rewriting cannot work.
//! Containers see the host's address on their bridge, as they do without it.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// The most connections at the same time; more wait until one ends, as in any listening queue.
const MOST: usize = 1024;
/// How long a container may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The stack of a thread that copies: it calls little.
const STACK: usize = 64 * 1024;

/// Listens at an address; nothing is served yet.
///
/// # Errors
/// When somebody has the address.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(at)
}

/// Serves what comes, on threads, until the process ends.
pub fn serve(listener: TcpListener, target: SocketAddr) {
    let open = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        loop {
            match listener.accept() {
                Ok((client, _)) if open.load(Ordering::Relaxed) < MOST => {
                    connect(client, target, &open);
                }
                // Too many: this one is closed, and so told.
                Ok(_) => {}
                // No file to spare, or a client that is gone already: the next one may do better.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    });
}

fn connect(client: TcpStream, target: SocketAddr, open: &Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    let ends = open.clone();
    let work = move || {
        if let Ok(server) = TcpStream::connect_timeout(&target, PATIENCE) {
            both_ways(&client, &server);
        }
        ends.fetch_sub(1, Ordering::Relaxed);
    };
    if thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each side may end its own direction and go on reading.
fn both_ways(client: &TcpStream, server: &TcpStream) {
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || one_way(server, client));
        if back.is_ok() {
            one_way(client, server);
        }
    });
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    let copied = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
