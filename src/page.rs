//! The page of a container without a command: the network it is in, as a drawing. Knows nothing but what it is told:
//! it never asks the kernel, and never sends a visitor's words back unescaped.
//!
//! A handful of threads, blocking sockets, one request a connection: enough for a page that people look at, and
//! nothing a visitor can make grow.

mod drawing;
mod http;
mod text;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where it is served.
pub const PORT: u16 = 80;

/// Threads for each listener; as many visitors are served at a time.
const WORKERS: usize = 12;

/// What the page shows.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The container's name.
    pub name: String,
    /// Its hostname.
    pub hostname: String,
    /// Its interfaces, in order.
    pub interfaces: Vec<Interface>,
    /// Its published ports, such as `8080 -> 80/tcp`.
    pub ports: Vec<String>,
}

/// One interface and the network behind it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The network's name.
    pub network: String,
    /// The host's bridge, if the network has one.
    pub bridge: Option<String>,
    /// The network's subnets.
    pub subnets: Vec<String>,
    /// The network's gateways.
    pub gateways: Vec<String>,
    /// The interface's name in the container.
    pub name: String,
    /// Its MAC address, if it has one.
    pub mac: Option<String>,
    /// Its addresses, with or without a prefix length.
    pub addresses: Vec<String>,
}

/// The sockets that visitors come to.
#[derive(Debug)]
pub struct Door(Vec<TcpListener>);

/// Serves it on port 80 until the process is killed.
///
/// # Errors
/// Where the port cannot be had.
pub fn serve(description: &Description) -> io::Result<Infallible> {
    serve_on(listen(PORT)?, description)
}

/// Listens for both families, or for the one that there is.
///
/// # Errors
/// Where neither can be had; the error is that of IPv4.
pub fn listen(port: u16) -> io::Result<Door> {
    // Mostly one socket takes both families and the second bind fails; with bindv6only it takes two.
    let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    let four = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    match (six, four) {
        (Err(_), Err(error)) => Err(error),
        (six, four) => Ok(Door(six.into_iter().chain(four).collect())),
    }
}

impl Door {
    /// The port that was asked for, or that the kernel chose where 0 was.
    pub fn port(&self) -> Option<u16> {
        self.0.first()?.local_addr().ok().map(|address| address.port())
    }
}

/// Serves it on sockets that listen already, until the process is killed.
///
/// # Errors
/// Where there can be no thread to serve it.
pub fn serve_on(door: Door, description: &Description) -> io::Result<Infallible> {
    thread::scope(|scope| {
        for listener in door.0.iter().cycle().take(WORKERS * door.0.len()) {
            let worker = move || work(listener, description);
            thread::Builder::new().stack_size(512 * 1024).spawn_scoped(scope, worker)?;
        }
        match door.0.first() {
            Some(listener) => work(listener, description),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    })
}

fn work(listener: &TcpListener, description: &Description) -> io::Result<Infallible> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => answer(stream, description),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors or memory: it passes, and until it does there is no point in asking at once.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn answer(mut stream: TcpStream, description: &Description) {
    let Ok((peer, local)) = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?))) else {
        return;
    };
    let response = match http::read(&mut stream) {
        Ok(request) => respond(&request, description, peer.ip(), local.ip()),
        Err(Some(refusal)) => refusal,
        Err(None) => return,
    };
    http::write(stream, &response);
}

/// A visit: whose, and which way it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Visit {
    /// Where the visitor came from.
    address: IpAddr,
    /// What the visitor asked for, as in the address line of a browser.
    asked: String,
    /// The address that the connection came to.
    #[serde(skip)]
    reached: IpAddr,
}

fn respond(
    request: &http::Request,
    description: &Description,
    peer: IpAddr,
    local: IpAddr,
) -> http::Response {
    let visit =
        Visit { address: peer.to_canonical(), asked: request.host.clone(), reached: local.to_canonical() };
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return http::Response::refusal(405, "This page can only be read.").without_body(request);
    }
    let response = match request.path.as_str() {
        "/" if request.wants_text => http::Response::text(text::draw(description, &visit)),
        "/" => http::Response::html(drawing::page(description, &visit)),
        "/text" => http::Response::text(text::draw(description, &visit)),
        "/json" => http::Response::json(&json(description, &visit)),
        _ => http::Response::refusal(404, "There are /, /text and /json."),
    };
    response.without_body(request)
}

fn json(description: &Description, visit: &Visit) -> impl Serialize {
    #[derive(Serialize)]
    struct Both {
        #[serde(flatten)]
        description: Description,
        visitor: Visit,
        entered: Option<String>,
    }
    let entered = entrance(description, visit).map(|index| description.interfaces[index].name.clone());
    Both { description: description.clone(), visitor: visit.clone(), entered }
}

/// The interface that the visit came in by.
fn entrance(description: &Description, visit: &Visit) -> Option<usize> {
    let has = |address: &String| without_prefix(address).parse() == Ok(visit.reached);
    description.interfaces.iter().position(|interface| interface.addresses.iter().any(has))
}

fn without_prefix(address: &str) -> &str {
    address.split('/').next().unwrap_or_default()
}

/// The published port that the visit came in by: the one that the visitor asked for.
fn published(description: &Description, visit: &Visit) -> Option<usize> {
    let asked = visit.asked.rsplit_once(':').map_or("", |(_, port)| port);
    let asked = if asked.parse::<u16>().is_ok() { asked } else { "80" };
    let host_port = |port: &str| {
        let host = port.split("->").next().unwrap_or_default().trim();
        host.rsplit(':').next() == Some(asked)
    };
    description.ports.iter().position(|port| host_port(port))
}

/// At most `width` characters, none of which could disturb a terminal or a document.
fn shorten(text: &str, width: usize) -> String {
    let clean = || text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    if clean().nth(width).is_none() {
        return clean().collect();
    }
    clean().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    pub(super) fn web() -> Description {
        Description {
            name: "web".to_owned(),
            hostname: "web".to_owned(),
            interfaces: vec![Interface {
                network: "bridge".to_owned(),
                bridge: Some("rnet0".to_owned()),
                subnets: vec!["172.17.0.0/16".to_owned()],
                gateways: vec!["172.17.0.1".to_owned()],
                name: "eth0".to_owned(),
                mac: Some("02:42:ac:11:00:02".to_owned()),
                addresses: vec!["172.17.0.2/16".to_owned()],
            }],
            ports: vec!["8080 -> 80/tcp".to_owned()],
        }
    }

    pub(super) fn visit() -> Visit {
        Visit {
            address: "192.0.2.7".parse().unwrap(),
            asked: "example.com:8080".to_owned(),
            reached: "172.17.0.2".parse().unwrap(),
        }
    }

    fn ask(request: &str) -> String {
        let door = listen(0).unwrap();
        let port = door.port().unwrap();
        let asked = thread::spawn(move || {
            let (stream, _) = door.0[0].accept().unwrap();
            answer(stream, &web());
        });
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // The other side may refuse before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        drop(stream);
        asked.join().unwrap();
        reply
    }

    #[test]
    fn a_browser_gets_a_drawing_and_curl_gets_text() {
        let html =
            ask("GET / HTTP/1.1\r\nHost: a:8080\r\nAccept: text/html,*/*\r\nUser-Agent: Mozilla\r\n\r\n");
        assert!(
            html.starts_with("HTTP/1.1 200 OK\r\n") && html.contains("<svg") && html.contains("127.0.0.1")
        );
        let text = ask("GET / HTTP/1.1\r\nHost: a:8080\r\nAccept: */*\r\nUser-Agent: curl/8\r\n\r\n");
        assert!(text.contains("Content-Type: text/plain") && text.contains("172.17.0.2/16"), "{text}");
    }

    #[test]
    fn json_has_the_description_and_the_visitor() {
        let reply = ask("GET /json?x=1 HTTP/1.1\r\nHost: a:8080\r\n\r\n");
        let (_, body) = reply.split_once("\r\n\r\n").unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["visitor"]["address"], "127.0.0.1");
        assert_eq!(value["interfaces"][0]["addresses"][0], "172.17.0.2/16");
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let reply = ask("HEAD /text HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            reply.contains("Content-Length: ")
                && !reply.contains("Content-Length: 0")
                && reply.ends_with("\r\n\r\n")
        );
    }

    #[test]
    fn everything_else_is_refused() {
        assert!(ask("GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(ask("GET / SPDY/9\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(ask(&long).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn the_way_in_is_known() {
        assert_eq!(entrance(&web(), &visit()), Some(0));
        assert_eq!(published(&web(), &visit()), Some(0));
        let direct = Visit { asked: "172.17.0.2".to_owned(), ..visit() };
        assert_eq!(published(&web(), &direct), None);
        let two = Description { ports: vec!["[::]:80->80/tcp".to_owned()], ..web() };
        assert_eq!(published(&two, &direct), Some(0));
    }
}
