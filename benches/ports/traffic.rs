//! Traffic between namespaces: connections that are opened and closed, and bytes that flow.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    net::sockopt::set_socket_linger,
    thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity},
};

use crate::lab::Done;

/// Does something in a namespace, on a thread of its own.
pub fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> Done<T> {
    started(netns, work)?.join().map_err(|_| "a thread of the bench died".to_owned())?
}

fn started<T: Send + 'static>(
    netns: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Done<thread::JoinHandle<Done<T>>> {
    let file = File::open(netns).map_err(|error| format!("{netns}: {error}"))?;
    Ok(thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| error.to_string())?;
        Ok(work())
    }))
}

fn listen(netns: &str, port: u16) -> Done<TcpListener> {
    inside(netns, move || TcpListener::bind(("0.0.0.0", port)))?
        .map_err(|error| format!("port {port}: {error}"))
}

/// Keeps the thread on one processor. Else what is measured is where the scheduler puts both ends: for connections, how
/// long one takes to wake the other, which in a virtual machine is most of it.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    let _ = sched_setaffinity(None, &set);
}

/// How many connections per second a client opens, one after the other, each until the server has said a byte.
pub fn connections(client: &str, server: &str, to: &str, port: u16, time: Duration) -> Done<f64> {
    let to: SocketAddr = to.parse().map_err(|error| format!("{to}: {error}"))?;
    let listener = listen(server, port)?;
    let ended = Arc::new(AtomicBool::new(false));
    let over = ended.clone();
    let serving = thread::spawn(move || {
        pin(0);
        while let Ok((mut stream, _)) = listener.accept() {
            // The client waits for this: one that ran ahead would fill the queue, and a connection that finds no room
            // there is tried again a second later.
            let _ = stream.write_all(&[0]);
            // The client ends each.
            let _ = stream.read(&mut [0]);
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    let rate = inside(client, move || -> Done<f64> {
        pin(0);
        let start = Instant::now();
        let mut count = 0u32;
        while start.elapsed() < time {
            let fail = |error: std::io::Error| format!("connection {count} to {to}: {error}");
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(fail)?;
            stream.read_exact(&mut [0]).map_err(fail)?;
            // Closed at once, without a wait that would use the client's ports up.
            set_socket_linger(&stream, Some(Duration::ZERO)).map_err(|error| error.to_string())?;
            count += 1;
        }
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        drop(TcpStream::connect_timeout(&to, Duration::from_secs(2)));
        Ok(rate)
    })??;
    serving.join().map_err(|_| "the server died".to_owned())?;
    Ok(rate)
}

/// How many bytes per second go from one to the other.
pub fn throughput(from: &str, to: &str, address: &str, time: Duration) -> Done<f64> {
    const PORT: u16 = 5001;
    let listener = listen(to, PORT)?;
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let reading = thread::spawn(move || {
        pin(1);
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            counted.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    });
    let to: SocketAddr =
        format!("{address}:{PORT}").parse().map_err(|error| format!("{address}: {error}"))?;
    let took = inside(from, move || -> Done<f64> {
        pin(0);
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))
            .map_err(|error| format!("{to}: {error}"))?;
        let piece = vec![0; 256 * 1024];
        let start = Instant::now();
        while start.elapsed() < time {
            stream.write_all(&piece).map_err(|error| error.to_string())?;
        }
        Ok(start.elapsed().as_secs_f64())
    })??;
    reading.join().map_err(|_| "the reader died".to_owned())?;
    Ok(count.load(Ordering::Relaxed) as f64 / took)
}
